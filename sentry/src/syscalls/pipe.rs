//! pipe(2), pipe2(2).

use crate::Current;
use abi::Errno;
use abi::fcntl::OpenFlags;
use kernel::SysResult;
use kernel::uaccess::UserPtr;

pub fn pipe(t: &mut Current<'_>, fds: UserPtr<[i32; 2]>) -> SysResult {
    pipe2(t, fds, 0)
}

pub fn pipe2(t: &mut Current<'_>, fds: UserPtr<[i32; 2]>, flags: u32) -> SysResult {
    let flags = OpenFlags::from_bits_retain(flags);
    // O_NOTIFICATION_PIPE shares its bit with O_EXCL; the host kernels we follow are built without it.
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let cloexec = flags.contains(OpenFlags::CLOEXEC);
    let (r, w) = t.as_caller(|cx| fs::pipe::pipe_files(t.kernel(), cx, flags - OpenFlags::CLOEXEC));
    t.install_pair([r, w], cloexec, fds)
}
