//! Directories and the current one: getdents(2), mkdir(2), rmdir(2), chdir(2), chroot(2), getcwd(2), umask(2).

use super::at;
use crate::Current;
use abi::Errno;
use abi::fcntl::AtFlags;
use abi::stat::FileType;
use kernel::SysResult;
use kernel::creds::CapSet;
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::vfs::change::{self, New};
use kernel::vfs::permission::{May, check};
use kernel::vfs::{DirSink, Fd, LookupFlags, Path, rw};

/// Most bytes of entries that one call gives.
const BATCH: usize = 256 * 1024;

/// Entries as getdents(2) (old) or getdents64(2) gives them.
struct Entries {
    buf: Vec<u8>,
    room: usize,
    old: bool,
    full: bool,
}

impl DirSink for Entries {
    fn entry(&mut self, ino: u64, next: u64, kind: FileType, name: &[u8]) -> bool {
        let head = if self.old { 18 } else { 19 };
        let len = (head + name.len() + if self.old { 2 } else { 1 }).next_multiple_of(8);
        if self.buf.len() + len > self.room {
            self.full = true;
            return false;
        }
        let end = self.buf.len() + len;
        self.buf.extend_from_slice(&ino.to_le_bytes());
        self.buf.extend_from_slice(&next.to_le_bytes());
        self.buf.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
        if !self.old {
            self.buf.push(kind.dirent_type());
        }
        self.buf.extend_from_slice(name);
        self.buf.resize(end, 0);
        if self.old
            && let Some(last) = self.buf.last_mut()
        {
            *last = kind.dirent_type();
        }
        true
    }
}

fn entries(t: &Current<'_>, fd: Fd, out: UserPtr<u8>, count: u32, old: bool) -> SysResult {
    let file = at::file(t, fd)?;
    let room = usize::try_from(count).unwrap_or(usize::MAX).min(BATCH);
    let mut sink = Entries { buf: Vec::with_capacity(room.min(32 * 1024)), room, old, full: false };
    let before = file.pos().shown();
    t.as_caller(|cx| rw::readdir(cx, &file, &mut sink))?;
    if sink.buf.is_empty() && sink.full {
        return Err(Errno::EINVAL.into());
    }
    if let Err(e) = t.mm().copy_out(out.addr(), &sink.buf) {
        *file.pos().lock() = before;
        return Err(e.into());
    }
    Ok(sink.buf.len() as u64)
}

pub fn getdents64(t: &mut Current<'_>, fd: Fd, out: UserPtr<u8>, count: u32) -> SysResult {
    entries(t, fd, out, count, false)
}

pub fn getdents(t: &mut Current<'_>, fd: Fd, out: UserPtr<u8>, count: u32) -> SysResult {
    entries(t, fd, out, count, true)
}

pub fn mkdir(t: &mut Current<'_>, path: UserCStr, mode: u32) -> SysResult {
    mkdirat(t, at::CWD, path, mode)
}

pub fn mkdirat(t: &mut Current<'_>, dir: Fd, path: UserCStr, mode: u32) -> SysResult {
    let parent = at::parent(t, dir, path)?;
    t.as_caller(|cx| change::make(cx, &parent, &New::Directory { mode }))?;
    Ok(0)
}

pub fn rmdir(t: &mut Current<'_>, path: UserCStr) -> SysResult {
    let parent = at::parent(t, at::CWD, path)?;
    t.as_caller(|cx| change::rmdir(cx, &parent))?;
    Ok(0)
}

fn enter(t: &Current<'_>, place: Path) -> SysResult {
    if place.inode()?.file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR.into());
    }
    t.as_caller(|cx| check(cx, &place, May::EXEC))?;
    t.fs().set_cwd(place);
    Ok(0)
}

pub fn chdir(t: &mut Current<'_>, path: UserCStr) -> SysResult {
    let path = path.read_path(&t.mm())?;
    let place = at::walk(t, at::CWD, &path, LookupFlags::FOLLOW | LookupFlags::DIRECTORY)?;
    enter(t, place)
}

pub fn fchdir(t: &mut Current<'_>, fd: Fd) -> SysResult {
    let place = t.files().get(fd)?.path().clone();
    enter(t, place)
}

pub fn chroot(t: &mut Current<'_>, path: UserCStr) -> SysResult {
    let place = at::place(t, at::CWD, path, AtFlags::empty())?;
    if place.inode()?.file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR.into());
    }
    t.as_caller(|cx| check(cx, &place, May::EXEC))?;
    if !t.creds().has_cap(CapSet::SYS_CHROOT) {
        return Err(Errno::EPERM.into());
    }
    t.fs().set_root(place);
    Ok(0)
}

pub fn getcwd(t: &mut Current<'_>, buf: UserPtr<u8>, size: usize) -> SysResult {
    let (root, cwd) = t.fs().root_and_cwd();
    let mut path = kernel::vfs::cwd_path(&cwd, &root)?;
    path.push(0);
    if path.len() > 4096 {
        return Err(Errno::ENAMETOOLONG.into());
    }
    if path.len() > size {
        return Err(Errno::ERANGE.into());
    }
    t.mm().copy_out(buf.addr(), &path)?;
    Ok(path.len() as u64)
}

pub fn umask(t: &mut Current<'_>, mask: u32) -> SysResult {
    Ok(u64::from(t.fs().set_umask(mask)))
}
