//! eventfd(2).

use crate::Current;
use abi::Errno;
use abi::fcntl::OpenFlags;
use fs::eventfd::EventFd;
use kernel::SysResult;

const EFD_SEMAPHORE: u32 = 1;

pub fn eventfd(t: &mut Current<'_>, count: u32) -> SysResult {
    eventfd2(t, count, 0)
}

pub fn eventfd2(t: &mut Current<'_>, count: u32, flags: u32) -> SysResult {
    let semaphore = flags & EFD_SEMAPHORE != 0;
    let flags = OpenFlags::from_bits_retain(flags & !EFD_SEMAPHORE);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let ops = EventFd::new(count.into(), semaphore);
    let mode = OpenFlags::RDWR | flags;
    let file = fs::anon::other_file(t.kernel(), "[eventfd]", ops, mode, t.creds());
    Ok(t.install_fd(file, flags.contains(OpenFlags::CLOEXEC))?)
}
