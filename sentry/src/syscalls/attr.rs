//! Attributes: chmod(2), chown(2), utimensat(2), truncate(2), fallocate(2).

use super::at;
use crate::Current;
use abi::fcntl::AtFlags;
use abi::stat::FileType;
use abi::time::{Timespec, Timeval};
use abi::{Errno, Result};
use kernel::SysResult;
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::vfs::{Event, Fd, Path, SetTime, limits, setattr};

fn chmod_place(t: &Current<'_>, place: &Path, mode: u32) -> SysResult {
    t.as_caller(|cx| setattr::chmod(cx, place, mode))?;
    Ok(0)
}

pub fn chmod(t: &mut Current<'_>, path: UserCStr, mode: u32) -> SysResult {
    fchmodat2(t, at::CWD, path, mode, 0)
}

pub fn fchmod(t: &mut Current<'_>, fd: Fd, mode: u32) -> SysResult {
    let file = at::file(t, fd)?;
    chmod_place(t, file.path(), mode)
}

pub fn fchmodat(t: &mut Current<'_>, dir: Fd, path: UserCStr, mode: u32) -> SysResult {
    fchmodat2(t, dir, path, mode, 0)
}

pub fn fchmodat2(t: &mut Current<'_>, dir: Fd, path: UserCStr, mode: u32, flags: u32) -> SysResult {
    let flags = at::flags(flags, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
    let place = at::place(t, dir, path, flags)?;
    chmod_place(t, &place, mode)
}

/// Ids as the caller's user namespace has them; -1 leaves one as it is.
fn ids(t: &Current<'_>, uid: u32, gid: u32) -> Result<(Option<u32>, Option<u32>)> {
    let ns = &t.creds().user_ns;
    let one = |id: u32, map: Option<u32>| match id {
        u32::MAX => Ok(None),
        _ => map.map(Some).ok_or(Errno::EINVAL),
    };
    Ok((one(uid, ns.kuid(uid))?, one(gid, ns.kgid(gid))?))
}

fn chown_place(t: &Current<'_>, place: &Path, uid: u32, gid: u32) -> SysResult {
    let (uid, gid) = ids(t, uid, gid)?;
    t.as_caller(|cx| setattr::chown(cx, place, uid, gid))?;
    Ok(0)
}

pub fn chown(t: &mut Current<'_>, path: UserCStr, uid: u32, gid: u32) -> SysResult {
    fchownat(t, at::CWD, path, uid, gid, 0)
}

pub fn lchown(t: &mut Current<'_>, path: UserCStr, uid: u32, gid: u32) -> SysResult {
    fchownat(t, at::CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW.bits())
}

pub fn fchown(t: &mut Current<'_>, fd: Fd, uid: u32, gid: u32) -> SysResult {
    let file = at::file(t, fd)?;
    chown_place(t, file.path(), uid, gid)
}

pub fn fchownat(t: &mut Current<'_>, dir: Fd, path: UserCStr, uid: u32, gid: u32, flags: u32) -> SysResult {
    let flags = at::flags(flags, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
    let place = at::place(t, dir, path, flags)?;
    chown_place(t, &place, uid, gid)
}

type Times = Option<(Option<SetTime>, Option<SetTime>)>;

fn set_times(t: &Current<'_>, place: &Path, times: Times) -> SysResult {
    t.as_caller(|cx| setattr::utimes(cx, place, times))?;
    Ok(0)
}

/// One time of utimensat(2), with its special values.
fn spec(ts: Timespec) -> Result<Option<SetTime>> {
    const NOW: i64 = 0x3fff_ffff;
    const OMIT: i64 = 0x3fff_fffe;
    match ts.tv_nsec {
        NOW => Ok(Some(SetTime::Now)),
        OMIT => Ok(None),
        0..=999_999_999 => Ok(Some(SetTime::At(ts))),
        _ => Err(Errno::EINVAL),
    }
}

pub fn utimensat(
    t: &mut Current<'_>,
    dir: Fd,
    path: UserCStr,
    times: UserPtr<[Timespec; 2]>,
    flags: u32,
) -> SysResult {
    let times = match times.optional() {
        None => None,
        Some(p) => {
            let [a, m] = p.read(&t.mm())?;
            Some((spec(a)?, spec(m)?))
        }
    };
    if times == Some((None, None)) {
        return Ok(0);
    }
    if path.0 == 0 && dir.0 != at::CWD.0 {
        if flags != 0 {
            return Err(Errno::EINVAL.into());
        }
        let file = at::file(t, dir)?;
        return set_times(t, file.path(), times);
    }
    let flags = at::flags(flags, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
    let place = at::place(t, dir, path, flags)?;
    set_times(t, &place, times)
}

/// Times with microseconds.
fn vals(t: &Current<'_>, times: UserPtr<[Timeval; 2]>) -> Result<Times> {
    let Some(p) = times.optional() else {
        return Ok(None);
    };
    let one = |v: Timeval| {
        if (0..1_000_000).contains(&v.tv_usec) {
            Ok(Some(SetTime::At(Timespec { tv_sec: v.tv_sec, tv_nsec: v.tv_usec * 1000 })))
        } else {
            Err(Errno::EINVAL)
        }
    };
    let [a, m] = p.read(&t.mm())?;
    Ok(Some((one(a)?, one(m)?)))
}

pub fn utimes(t: &mut Current<'_>, path: UserCStr, times: UserPtr<[Timeval; 2]>) -> SysResult {
    futimesat(t, at::CWD, path, times)
}

pub fn futimesat(t: &mut Current<'_>, dir: Fd, path: UserCStr, times: UserPtr<[Timeval; 2]>) -> SysResult {
    let times = vals(t, times)?;
    if path.0 == 0 && dir.0 != at::CWD.0 {
        let file = at::file(t, dir)?;
        return set_times(t, file.path(), times);
    }
    let place = at::place(t, dir, path, AtFlags::empty())?;
    set_times(t, &place, times)
}

pub fn utime(t: &mut Current<'_>, path: UserCStr, times: UserPtr<[i64; 2]>) -> SysResult {
    let times = match times.optional() {
        None => None,
        Some(p) => {
            let [a, m] = p.read(&t.mm())?;
            let one = |s| Some(SetTime::At(Timespec { tv_sec: s, tv_nsec: 0 }));
            Some((one(a), one(m)))
        }
    };
    let place = at::place(t, at::CWD, path, AtFlags::empty())?;
    set_times(t, &place, times)
}

pub fn truncate(t: &mut Current<'_>, path: UserCStr, len: i64) -> SysResult {
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    let place = at::place(t, at::CWD, path, AtFlags::empty())?;
    t.as_caller(|cx| setattr::truncate(cx, &place, len))?;
    Ok(0)
}

pub fn ftruncate(t: &mut Current<'_>, fd: Fd, len: i64) -> SysResult {
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    let file = at::file(t, fd)?;
    t.as_caller(|cx| setattr::ftruncate(cx, &file, len))?;
    Ok(0)
}

pub fn fallocate(t: &mut Current<'_>, fd: Fd, mode: u32, offset: i64, len: i64) -> SysResult {
    const KEEP_SIZE: u32 = 1;
    const PUNCH_HOLE: u32 = 2;
    const COLLAPSE: u32 = 8;
    const ZERO: u32 = 0x10;
    const INSERT: u32 = 0x20;
    const UNSHARE: u32 = 0x40;
    let file = at::file(t, fd)?;
    let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    let len = u64::try_from(len).ok().filter(|n| *n > 0).ok_or(Errno::EINVAL)?;
    match mode & !KEEP_SIZE {
        0 | ZERO | UNSHARE => {}
        PUNCH_HOLE if mode & KEEP_SIZE != 0 => {}
        COLLAPSE | INSERT if mode & KEEP_SIZE == 0 => {}
        _ => return Err(Errno::EOPNOTSUPP.into()),
    }
    if !file.flags().can_write() {
        return Err(Errno::EBADF.into());
    }
    match file.path().inode()?.file_type() {
        FileType::Regular => {}
        FileType::Fifo => return Err(Errno::ESPIPE.into()),
        FileType::Directory => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::ENODEV.into()),
    }
    let end = offset.checked_add(len).filter(|e| *e <= limits::MAX_SIZE).ok_or(Errno::EFBIG)?;
    t.as_caller(|cx| -> Result<()> {
        if mode & KEEP_SIZE == 0 && mode & (COLLAPSE | INSERT) == 0 {
            limits::check_growth(cx, file.path().inode()?, end)?;
        }
        setattr::remove_privileges(cx, file.path())?;
        file.ops().fallocate(&file, mode, offset, len)
    })?;
    t.as_caller(|cx| file.tell(cx, Event::MODIFY));
    Ok(0)
}
