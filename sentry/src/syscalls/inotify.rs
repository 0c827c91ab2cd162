//! inotify_init(2), inotify_add_watch(2), inotify_rm_watch(2).

use super::at;
use crate::Current;
use abi::Errno;
use abi::fcntl::OpenFlags;
use fs::inotify::{
    ALL_EVENTS, IN_DONT_FOLLOW, IN_EXCL_UNLINK, IN_MASK_ADD, IN_MASK_CREATE, IN_ONESHOT, IN_ONLYDIR, Inotify,
};
use kernel::SysResult;
use kernel::uaccess::UserCStr;
use kernel::vfs::permission::{May, check};
use kernel::vfs::{Fd, LookupFlags};

pub fn inotify_init(t: &mut Current<'_>) -> SysResult {
    inotify_init1(t, 0)
}

pub fn inotify_init1(t: &mut Current<'_>, flags: u32) -> SysResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let ops = Inotify::new(t.kernel());
    let file = fs::anon::other_file(t.kernel(), "inotify", ops, flags - OpenFlags::CLOEXEC, t.creds());
    Ok(t.install_fd(file, flags.contains(OpenFlags::CLOEXEC))?)
}

pub fn inotify_add_watch(t: &mut Current<'_>, fd: Fd, path: UserCStr, mask: u32) -> SysResult {
    // Bits that only the kernel sets are taken as well, as Linux does; some wanted event must be among them.
    const KNOWN: u32 = ALL_EVENTS
        | 0x4000_e000
        | IN_ONLYDIR
        | IN_DONT_FOLLOW
        | IN_EXCL_UNLINK
        | IN_MASK_CREATE
        | IN_MASK_ADD
        | IN_ONESHOT;
    if mask & KNOWN == 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = at::file(t, fd)?;
    if mask & IN_MASK_ADD != 0 && mask & IN_MASK_CREATE != 0 {
        return Err(Errno::EINVAL.into());
    }
    let inotify = file.ops_as::<Inotify>().ok_or(Errno::EINVAL)?;
    let mut look = LookupFlags::empty();
    look.set(LookupFlags::FOLLOW, mask & IN_DONT_FOLLOW == 0);
    look.set(LookupFlags::DIRECTORY, mask & IN_ONLYDIR != 0);
    let path = path.read_path(&t.mm())?;
    let place = at::walk(t, at::CWD, &path, look)?;
    t.as_caller(|cx| check(cx, &place, May::READ))?;
    let wd = inotify.add(&place, mask)?;
    Ok(u64::from(wd.unsigned_abs()))
}

pub fn inotify_rm_watch(t: &mut Current<'_>, fd: Fd, wd: i32) -> SysResult {
    let file = at::file(t, fd)?;
    file.ops_as::<Inotify>().ok_or(Errno::EINVAL)?.remove(wd)?;
    Ok(0)
}
