//! fcntl(2) and flock(2).

use super::at;
use crate::Current;
use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::restart::Restart;
use kernel::time::Deadline;
use kernel::uaccess::UserPtr;
use kernel::vfs::permission::owner_or_capable;
use kernel::vfs::{Fd, File, FileLocks, FileOwner, LockOwner, Outside, RecordLock, TO_END};
use kernel::wait::{Blocked, WaitOn};
use kernel::{SysError, SysResult};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct flock`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Flock {
    l_type: i16,
    l_whence: i16,
    pad: u32,
    l_start: i64,
    l_len: i64,
    l_pid: i32,
    pad2: u32,
}

const F_RDLCK: i16 = 0;
const F_WRLCK: i16 = 1;
const F_UNLCK: i16 = 2;

mod cmd {
    pub const DUPFD: u32 = 0;
    pub const GETFD: u32 = 1;
    pub const SETFD: u32 = 2;
    pub const GETFL: u32 = 3;
    pub const SETFL: u32 = 4;
    pub const GETLK: u32 = 5;
    pub const SETLK: u32 = 6;
    pub const SETLKW: u32 = 7;
    pub const SETOWN: u32 = 8;
    pub const GETOWN: u32 = 9;
    pub const SETSIG: u32 = 10;
    pub const GETSIG: u32 = 11;
    pub const SETOWN_EX: u32 = 15;
    pub const GETOWN_EX: u32 = 16;
    pub const OFD_GETLK: u32 = 36;
    pub const OFD_SETLK: u32 = 37;
    pub const OFD_SETLKW: u32 = 38;
    pub const SETLEASE: u32 = 1024;
    pub const GETLEASE: u32 = 1025;
    pub const NOTIFY: u32 = 1026;
    pub const DUPFD_QUERY: u32 = 1027;
    pub const DUPFD_CLOEXEC: u32 = 1030;
    pub const SETPIPE_SZ: u32 = 1031;
    pub const GETPIPE_SZ: u32 = 1032;
    pub const ADD_SEALS: u32 = 1033;
    pub const GET_SEALS: u32 = 1034;
    pub const GET_RW_HINT: u32 = 1035;
    pub const SET_RW_HINT: u32 = 1036;
}

fn low32(arg: u64) -> u32 {
    u32::try_from(arg & 0xffff_ffff).unwrap_or(0)
}

fn duplicate(t: &Current<'_>, file: Arc<File>, arg: u64, cloexec: bool) -> SysResult {
    let limit = usize::try_from(t.fd_limit()).unwrap_or(usize::MAX);
    let min = usize::try_from(low32(arg)).ok().filter(|m| *m < limit).ok_or(Errno::EINVAL)?;
    let fd = t.files().install(file, cloexec, min, limit)?;
    Ok(u64::from(fd.0.unsigned_abs()))
}

fn set_flags(t: &Current<'_>, fd: Fd, file: &Arc<File>, arg: u64) -> SysResult {
    let settable =
        OpenFlags::APPEND | OpenFlags::NONBLOCK | OpenFlags::DIRECT | OpenFlags::NOATIME | OpenFlags::ASYNC;
    let old = file.flags();
    let new = (old - settable) | (OpenFlags::from_bits_retain(low32(arg)) & settable);
    if new.contains(OpenFlags::NOATIME)
        && !old.contains(OpenFlags::NOATIME)
        && !owner_or_capable(&t.creds(), &file.path().inode()?.perm()?)
    {
        return Err(Errno::EPERM.into());
    }
    file.ops().flags_changed(file, new)?;
    file.set_flags(new);
    if (new ^ old).contains(OpenFlags::ASYNC) {
        file.set_async(t.kernel(), fd.0, new.contains(OpenFlags::ASYNC));
    }
    Ok(0)
}

fn set_owner(t: &Current<'_>, file: &Arc<File>, kind: i32, id: i32) -> SysResult {
    let id = if id == 0 { 0 } else { t.pid_ns().find(id).ok_or(Errno::ESRCH)?.root_number() };
    let mut owner = file.owner().lock();
    *owner = FileOwner { kind, id, signal: owner.signal };
    drop(owner);
    file.watch_urgent(t.kernel());
    Ok(0)
}

/// The owner's number as the caller's PID namespace has it.
fn owner_id(t: &Current<'_>, owner: FileOwner) -> i32 {
    let root = &t.kernel().root_pid_ns;
    root.find(owner.id).and_then(|p| p.number_in(&t.pid_ns())).unwrap_or(0)
}

pub fn fcntl(t: &mut Current<'_>, fd: Fd, cmd: u32, arg: u64) -> SysResult {
    let files = t.files();
    let file = files.get(fd)?;
    match cmd {
        cmd::DUPFD => return duplicate(t, file, arg, false),
        cmd::DUPFD_CLOEXEC => return duplicate(t, file, arg, true),
        cmd::DUPFD_QUERY => {
            let other = files.get(Fd(low32(arg).cast_signed()))?;
            return Ok(u64::from(Arc::ptr_eq(&file, &other)));
        }
        cmd::GETFD => return Ok(u64::from(files.cloexec(fd)?)),
        cmd::SETFD => {
            files.set_cloexec(fd, arg & 1 != 0)?;
            return Ok(0);
        }
        cmd::GETFL => return Ok(u64::from(file.flags().bits())),
        _ if file.flags().contains(OpenFlags::PATH) => return Err(Errno::EBADF.into()),
        _ => {}
    }
    match cmd {
        cmd::SETFL => set_flags(t, fd, &file, arg),
        cmd::GETLK | cmd::OFD_GETLK => get_lock(t, &file, cmd == cmd::OFD_GETLK, UserPtr::new(arg)),
        cmd::SETLK => set_lock(t, &file, false, false, UserPtr::new(arg)),
        cmd::SETLKW => set_lock(t, &file, false, true, UserPtr::new(arg)),
        cmd::OFD_SETLK => set_lock(t, &file, true, false, UserPtr::new(arg)),
        cmd::OFD_SETLKW => set_lock(t, &file, true, true, UserPtr::new(arg)),
        cmd::SETOWN => {
            let who = low32(arg).cast_signed();
            if who < 0 {
                set_owner(t, &file, 2, who.checked_neg().ok_or(Errno::EINVAL)?)
            } else {
                set_owner(t, &file, 1, who)
            }
        }
        cmd::GETOWN => {
            let owner = *file.owner().lock();
            let id = i64::from(owner_id(t, owner));
            Ok(if owner.kind == 2 { -id } else { id }.cast_unsigned())
        }
        cmd::SETOWN_EX => {
            let [kind, id] = UserPtr::<[i32; 2]>::new(arg).read(&t.mm())?;
            if !(0..=2).contains(&kind) {
                return Err(Errno::EINVAL.into());
            }
            set_owner(t, &file, kind, id)
        }
        cmd::GETOWN_EX => {
            let owner = *file.owner().lock();
            UserPtr::<[i32; 2]>::new(arg).write(&t.mm(), &[owner.kind, owner_id(t, owner)])?;
            Ok(0)
        }
        cmd::SETSIG => {
            let signal = u8::try_from(low32(arg)).ok().filter(|s| *s <= 64).ok_or(Errno::EINVAL)?;
            file.owner().lock().signal = signal;
            Ok(0)
        }
        cmd::GETSIG => Ok(u64::from(file.owner().lock().signal)),
        cmd::GETLEASE => Ok(2),
        cmd::SETLEASE => {
            kernel::gap!(t.kernel(), "fcntl F_SETLEASE");
            Err(Errno::EINVAL.into())
        }
        cmd::NOTIFY => {
            // Without events it takes away what was asked for before: nothing here.
            if low32(arg) & 0x7fff_ffff == 0 {
                return Ok(0);
            }
            if file.path().inode()?.file_type() != FileType::Directory {
                return Err(Errno::ENOTDIR.into());
            }
            kernel::gap!(t.kernel(), "fcntl F_NOTIFY");
            Err(Errno::EINVAL.into())
        }
        cmd::SETPIPE_SZ => {
            let privileged = t.creds().has_cap(CapSet::SYS_RESOURCE);
            let pipe = file.ops().as_pipe().ok_or(Errno::EBADF)?;
            Ok(pipe.set_capacity(low32(arg), privileged)? as u64)
        }
        cmd::GETPIPE_SZ => Ok(file.ops().as_pipe().ok_or(Errno::EBADF)?.capacity() as u64),
        cmd::ADD_SEALS => {
            file.ops().add_seals(&file, low32(arg))?;
            Ok(0)
        }
        cmd::GET_SEALS => Ok(u64::from(file.ops().seals()?)),
        cmd::GET_RW_HINT => {
            let hint = file.path().inode()?.extras().write_hint();
            UserPtr::<u64>::new(arg).write(&t.mm(), &u64::from(hint))?;
            Ok(0)
        }
        cmd::SET_RW_HINT => {
            let hint = UserPtr::<u64>::new(arg).read(&t.mm())?;
            let hint = u8::try_from(hint).ok().filter(|h| *h <= 5).ok_or(Errno::EINVAL)?;
            file.path().inode()?.extras().set_write_hint(hint);
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// First and last byte of a lock (`flock_to_posix_lock`).
fn range(file: &File, l: &Flock) -> Result<(u64, u64)> {
    let base = match l.l_whence {
        0 => 0,
        1 => i64::try_from(file.pos().shown()).map_err(|_| Errno::EOVERFLOW)?,
        2 => i64::try_from(file.ops().attr(file)?.size).map_err(|_| Errno::EOVERFLOW)?,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(l.l_start).ok_or(Errno::EOVERFLOW)?;
    let (start, last) = match l.l_len {
        0 => (start, i64::MAX),
        n if n > 0 => (start, start.checked_add(n - 1).ok_or(Errno::EOVERFLOW)?),
        n => (start.checked_add(n).ok_or(Errno::EINVAL)?, start - 1),
    };
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    Ok((start, u64::try_from(last).map_err(|_| Errno::EINVAL)?))
}

fn request(t: &Current<'_>, file: &File, l: &Flock, ofd: bool) -> Result<RecordLock> {
    let (start, last) = range(file, l)?;
    let owner = if ofd { LockOwner::File(file.id()) } else { t.files().lock_owner() };
    let pid = if ofd { -1 } else { t.group().tgid };
    Ok(RecordLock { owner, pid, write: l.l_type == F_WRLCK, start, last })
}

fn get_lock(t: &Current<'_>, file: &Arc<File>, ofd: bool, arg: UserPtr<Flock>) -> SysResult {
    let mm = t.mm();
    let mut l = arg.read(&mm)?;
    if l.l_type != F_RDLCK && l.l_type != F_WRLCK {
        return Err(Errno::EINVAL.into());
    }
    if ofd && l.l_pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    let wanted = request(t, file, &l, ofd)?;
    match file.path().inode()?.extras().locks().conflict(&wanted, &file.ops().outside_locks())? {
        None => l.l_type = F_UNLCK,
        Some(held) => {
            l.l_type = if held.write { F_WRLCK } else { F_RDLCK };
            l.l_whence = 0;
            l.l_start = held.start.cast_signed();
            l.l_len = if held.last == TO_END { 0 } else { (held.last - held.start + 1).cast_signed() };
            l.l_pid = if held.pid < 0 {
                -1
            } else {
                let root = &t.kernel().root_pid_ns;
                root.find(held.pid).and_then(|p| p.number_in(&t.pid_ns())).unwrap_or(0)
            };
        }
    }
    arg.write(&mm, &l)?;
    Ok(0)
}

fn set_lock(t: &Current<'_>, file: &Arc<File>, ofd: bool, wait: bool, arg: UserPtr<Flock>) -> SysResult {
    let l = arg.read(&t.mm())?;
    if ofd && l.l_pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    let wanted = request(t, file, &l, ofd)?;
    let flags = file.flags();
    match l.l_type {
        F_RDLCK if !flags.can_read() => return Err(Errno::EBADF.into()),
        F_WRLCK if !flags.can_write() => return Err(Errno::EBADF.into()),
        F_RDLCK | F_WRLCK | F_UNLCK => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    let locks = file.path().inode()?.extras().locks();
    if l.l_type == F_UNLCK {
        locks.unset(wanted.owner, wanted.start, wanted.last)?;
        return Ok(0);
    }
    if ofd {
        file.mark_locked();
    }
    let outside = file.ops().outside_locks();
    match locks.set(&wanted, &outside)? {
        Ok(()) => return Ok(0),
        Err(_) if !wait => return Err(Errno::EAGAIN.into()),
        Err(_) => {}
    }
    wait_for_lock(t, locks, &outside, &wanted, ofd)
}

/// Waits until a lock could be had or the attempt fails for good.
fn wait_until(
    t: &Current<'_>,
    locks: &FileLocks,
    outside: &Outside,
    mut attempt: impl FnMut() -> Option<Result<()>>,
) -> SysResult {
    // Of what happens outside there are no news.
    const LOOK_AGAIN: i64 = 20_000_000;
    loop {
        let until = outside.as_ref().map(|_| Deadline::after(t.kernel(), LOOK_AGAIN));
        match t.block_on(&[WaitOn::any(locks.queue())], until, &mut attempt) {
            Ok(result) => return result.map(|()| 0).map_err(SysError::from),
            Err(Blocked::TimedOut) => {}
            Err(Blocked::Interrupted) => return Err(Restart::Sys.into()),
        }
    }
}

fn wait_for_lock(
    t: &Current<'_>,
    locks: &FileLocks,
    outside: &Outside,
    wanted: &RecordLock,
    ofd: bool,
) -> SysResult {
    let waits = t.kernel().vfs.lock_waits();
    let attempt = || -> Option<Result<()>> {
        waits.done(wanted.owner);
        match locks.set(wanted, outside) {
            Err(e) => Some(Err(e)),
            Ok(Ok(())) => Some(Ok(())),
            Ok(Err(held)) if !ofd => match waits.wait_for(wanted.owner, held.owner) {
                Ok(()) => None,
                Err(e) => Some(Err(e)),
            },
            Ok(Err(_)) => None,
        }
    };
    let result = wait_until(t, locks, outside, attempt);
    waits.done(wanted.owner);
    result
}

pub fn flock(t: &mut Current<'_>, fd: Fd, op: u32) -> SysResult {
    const SH: u32 = 1;
    const EX: u32 = 2;
    const NB: u32 = 4;
    const UN: u32 = 8;
    let exclusive = match op & !NB {
        SH => false,
        EX => true,
        UN => {
            let file = at::file(t, fd)?;
            if let Some(locks) = file.path().inode()?.extras().locks_if_any() {
                locks.flock_unset(file.id());
            }
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let file = at::file(t, fd)?;
    file.mark_locked();
    let locks = file.path().inode()?.extras().locks();
    let (id, pid) = (file.id(), t.group().tgid);
    let outside = file.ops().outside_locks();
    match locks.flock_set(id, exclusive, pid, &outside) {
        Err(Errno::EAGAIN) if op & NB == 0 => {}
        r => {
            r?;
            return Ok(0);
        }
    }
    wait_until(t, locks, &outside, || match locks.flock_set(id, exclusive, pid, &outside) {
        Err(Errno::EAGAIN) => None,
        r => Some(r),
    })
}
