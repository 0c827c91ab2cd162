//! signalfd(2).

use super::at;
use crate::Current;
use abi::Errno;
use abi::fcntl::OpenFlags;
use abi::signal::SigSet;
use fs::signalfd::SignalFd;
use kernel::SysResult;
use kernel::uaccess::UserPtr;
use kernel::vfs::Fd;
use std::sync::Arc;

pub fn signalfd(t: &mut Current<'_>, fd: Fd, mask: UserPtr<u64>, size: usize) -> SysResult {
    signalfd4(t, fd, mask, size, 0)
}

pub fn signalfd4(t: &mut Current<'_>, fd: Fd, mask: UserPtr<u64>, size: usize, flags: u32) -> SysResult {
    if size != 8 {
        return Err(Errno::EINVAL.into());
    }
    let mask = SigSet(mask.read(&t.mm())?);
    let flags = OpenFlags::from_bits_retain(flags);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    if fd.0 != -1 {
        let file = at::file(t, fd)?;
        file.ops_as::<SignalFd>().ok_or(Errno::EINVAL)?.set_mask(mask);
        return Ok(u64::from(fd.0.unsigned_abs()));
    }
    let ops = SignalFd::new(mask);
    t.as_caller(|cx| ops.listen(cx));
    let mode = OpenFlags::RDWR | flags - OpenFlags::CLOEXEC;
    let file = fs::anon::other_file(t.kernel(), "[signalfd]", ops, mode, Arc::clone(&t.creds()));
    Ok(t.install_fd(file, flags.contains(OpenFlags::CLOEXEC))?)
}
