//! open(2), openat2(2), creat(2), close(2), close_range(2), dup(2) and kin.

use super::at;
use crate::Current;
use abi::fcntl::OpenFlags;
use abi::{Errno, Result};
use kernel::SysResult;
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::vfs::{Fd, FdTable, LookupFlags, OpenHow};

fn fd_value(fd: Fd) -> u64 {
    u64::from(fd.0.unsigned_abs())
}

fn limit(t: &Current<'_>) -> usize {
    usize::try_from(t.fd_limit()).unwrap_or(usize::MAX)
}

fn do_open(t: &Current<'_>, dir: Fd, path: &[u8], how: &OpenHow) -> SysResult {
    let files = t.files();
    files.check_room(limit(t))?;
    let scoped = how.resolve.intersects(LookupFlags::BENEATH | LookupFlags::IN_ROOT);
    // A scoped walk begins at the descriptor whatever the path looks like.
    let start = at::start(t, dir, if scoped && path.first() == Some(&b'/') { b"." } else { path })?;
    let how = OpenHow { flags: how.flags | OpenFlags::LARGEFILE, ..*how };
    let file = t.as_caller(|cx| kernel::vfs::open(cx, start, path, &how))?;
    let cloexec = how.flags.contains(OpenFlags::CLOEXEC);
    Ok(fd_value(files.install(file, cloexec, 0, limit(t))?))
}

fn plain(flags: u32, mode: u32) -> OpenHow {
    let flags = OpenFlags::from_bits_truncate(flags);
    let makes = flags.intersects(OpenFlags::CREAT | OpenFlags::TMPFILE_BIT);
    OpenHow { flags, mode: if makes { mode & 0o7777 } else { 0 }, resolve: LookupFlags::empty() }
}

pub fn open(t: &mut Current<'_>, path: UserCStr, flags: u32, mode: u32) -> SysResult {
    openat(t, at::CWD, path, flags, mode)
}

pub fn openat(t: &mut Current<'_>, dir: Fd, path: UserCStr, flags: u32, mode: u32) -> SysResult {
    let path = path.read_path(&t.mm())?;
    do_open(t, dir, &path, &plain(flags, mode))
}

pub fn creat(t: &mut Current<'_>, path: UserCStr, mode: u32) -> SysResult {
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    openat(t, at::CWD, path, flags.bits(), mode)
}

/// Checks `struct open_how` (flags, mode, resolve) as openat2(2) says.
fn check_how(raw: [u64; 3]) -> Result<OpenHow> {
    let [flags, mode, resolve] = raw;
    let flags = u32::try_from(flags).ok().and_then(OpenFlags::from_bits).ok_or(Errno::EINVAL)?;
    let makes = flags.intersects(OpenFlags::CREAT | OpenFlags::TMPFILE_BIT);
    if if makes { mode & !0o7777 != 0 } else { mode != 0 } {
        return Err(Errno::EINVAL);
    }
    let with_path = OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
    if flags.contains(OpenFlags::PATH) && !with_path.contains(flags) {
        return Err(Errno::EINVAL);
    }
    if resolve & !0x3f != 0 || resolve & 0x18 == 0x18 {
        return Err(Errno::EINVAL);
    }
    let mut look = LookupFlags::empty();
    for (bit, flag) in [
        (1, LookupFlags::NO_XDEV),
        (2, LookupFlags::NO_MAGICLINKS),
        (4, LookupFlags::NO_SYMLINKS | LookupFlags::NO_MAGICLINKS),
        (8, LookupFlags::BENEATH | LookupFlags::NO_MAGICLINKS),
        (16, LookupFlags::IN_ROOT | LookupFlags::NO_MAGICLINKS),
        (32, LookupFlags::CACHED),
    ] {
        if resolve & bit != 0 {
            look |= flag;
        }
    }
    // Scoped walks refuse magic links with EXDEV, which the walk does by itself.
    if resolve & 2 == 0 && resolve & 4 == 0 {
        look.remove(LookupFlags::NO_MAGICLINKS);
    }
    if look.contains(LookupFlags::CACHED)
        && flags.intersects(OpenFlags::TRUNC | OpenFlags::CREAT | OpenFlags::TMPFILE_BIT)
    {
        return Err(Errno::EAGAIN);
    }
    Ok(OpenHow { flags, mode: u32::try_from(mode).map_err(|_| Errno::EINVAL)?, resolve: look })
}

pub fn openat2(
    t: &mut Current<'_>,
    dir: Fd,
    path: UserCStr,
    how: UserPtr<[u64; 3]>,
    size: usize,
) -> SysResult {
    if size < 24 {
        return Err(Errno::EINVAL.into());
    }
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    let mm = t.mm();
    let raw = how.read(&mm)?;
    let rest: Vec<u8> = how.add(1).cast().read_array(&mm, size - 24)?;
    if rest.iter().any(|b| *b != 0) {
        return Err(Errno::E2BIG.into());
    }
    let how = check_how(raw)?;
    let path = path.read_path(&mm)?;
    do_open(t, dir, &path, &how)
}

pub fn close(t: &mut Current<'_>, fd: Fd) -> SysResult {
    t.files().close(fd)?;
    Ok(0)
}

pub fn close_range(t: &mut Current<'_>, first: u32, last: u32, flags: u32) -> SysResult {
    const UNSHARE: u32 = 2;
    const CLOEXEC: u32 = 4;
    if flags & !(UNSHARE | CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL.into());
    }
    let mut files = t.files();
    if flags & UNSHARE != 0 {
        let own: std::sync::Arc<FdTable> =
            if flags & CLOEXEC == 0 { files.fork_without(first, last) } else { files.fork() };
        let old = t.set_files(std::sync::Arc::clone(&own));
        drop(old);
        files = own;
    }
    if flags & CLOEXEC != 0 {
        files.set_cloexec_range(first, last);
    } else {
        files.close_range(first, last);
    }
    Ok(0)
}

pub fn dup(t: &mut Current<'_>, fd: Fd) -> SysResult {
    let files = t.files();
    let file = files.get(fd)?;
    Ok(fd_value(files.install(file, false, 0, limit(t))?))
}

fn dup_to(t: &Current<'_>, old: Fd, new: Fd, cloexec: bool) -> SysResult {
    let files = t.files();
    if usize::try_from(new.0).map_or(true, |n| n >= limit(t)) {
        return Err(Errno::EBADF.into());
    }
    let file = files.get(old)?;
    if let Some(gone) = files.install_at(new, file, cloexec, limit(t))? {
        // As with close, but what the file says to it is lost.
        let _ = files.closed(&gone);
    }
    Ok(fd_value(new))
}

pub fn dup2(t: &mut Current<'_>, old: Fd, new: Fd) -> SysResult {
    if old == new {
        t.files().get(old)?;
        return Ok(fd_value(old));
    }
    dup_to(t, old, new, false)
}

pub fn dup3(t: &mut Current<'_>, old: Fd, new: Fd, flags: u32) -> SysResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if !OpenFlags::CLOEXEC.contains(flags) || old == new {
        return Err(Errno::EINVAL.into());
    }
    dup_to(t, old, new, flags.contains(OpenFlags::CLOEXEC))
}
