//! open(2): flags, creation, permissions, and what a node's type leads to. The only place where files that
//! have names are opened.

use super::change::{self, New};
use super::inode::Caller;
use super::notify::{Event, Origin, notify};
use super::permission::{May, check, owner_or_capable, want_write};
use super::state::Opened;
use super::walk::{Last, LookupFlags, Parent, Start, Walk, child_locked};
use super::{File, FileOps, Path};
use crate::restart::SysError;
use abi::fcntl::OpenFlags;
use abi::stat::{FileType, mode};
use abi::{Errno, Result};
use std::sync::Arc;

/// How to open: flags of open(2), the mode for creation, and how to walk.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenHow {
    pub flags: OpenFlags,
    pub mode: u32,
    pub resolve: LookupFlags,
}

/// The flags that open(2) knows; it ignores others (openat2(2) does not).
pub const VALID: OpenFlags = OpenFlags::all();

/// Checks and completes flags as `build_open_flags` does.
fn normalize(how: &OpenHow) -> Result<OpenFlags> {
    let mut flags = how.flags & VALID;
    if flags.contains(OpenFlags::PATH) {
        flags &= OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
        return Ok(flags);
    }
    if flags.contains(OpenFlags::DIRECTORY | OpenFlags::CREAT) {
        return Err(Errno::EINVAL);
    }
    if flags.contains(OpenFlags::TMPFILE_BIT) {
        if !flags.contains(OpenFlags::DIRECTORY) || !flags.can_write() {
            return Err(Errno::EINVAL);
        }
    }
    if flags.contains(OpenFlags::SYNC_BIT) {
        flags.insert(OpenFlags::DSYNC);
    }
    Ok(flags)
}

/// What the flags demand of the file (`acc_mode`).
fn wanted(flags: OpenFlags) -> May {
    let mut may = match flags.bits() & OpenFlags::ACCMODE {
        0 => May::READ,
        1 => May::WRITE,
        _ => May::READ | May::WRITE,
    };
    if flags.contains(OpenFlags::TRUNC) {
        may |= May::WRITE;
    }
    may
}

/// Opens a path.
pub fn open(
    cx: &Caller<'_>,
    start: Start,
    path: &[u8],
    how: &OpenHow,
) -> std::result::Result<Arc<File>, SysError> {
    let flags = normalize(how)?;
    let mut look = how.resolve;
    if flags.contains(OpenFlags::DIRECTORY) {
        look |= LookupFlags::DIRECTORY;
    }
    if !flags.contains(OpenFlags::NOFOLLOW) && !flags.contains(OpenFlags::CREAT | OpenFlags::EXCL) {
        look |= LookupFlags::FOLLOW;
    }
    let how = OpenHow { flags, ..*how };
    let mut walk = Walk::new(cx, start, path, look)?;
    loop {
        let parent = walk.to_parent()?;
        if parent.last != Last::Normal {
            if flags.contains(OpenFlags::CREAT) {
                return Err(Errno::EISDIR.into());
            }
            return open_place(cx, walk.current().clone(), &how, false);
        }
        if flags.contains(OpenFlags::CREAT) {
            if parent.slash {
                return Err(Errno::EISDIR.into());
            }
            match create_or_find(cx, &parent, &how)? {
                Found::Made(path) => return open_place(cx, path, &how, true),
                Found::Old(dentry) => {
                    if flags.contains(OpenFlags::EXCL) {
                        return Err(Errno::EEXIST.into());
                    }
                    if let Some(end) = walk.finish_with(dentry)? {
                        return open_existing_for_create(cx, &parent, end, &how);
                    }
                }
            }
        } else if let Some(end) = walk.finish(&parent)? {
            return open_place(cx, end, &how, false);
        }
    }
}

enum Found {
    Made(Path),
    Old(Arc<super::Dentry>),
}

/// Finds the last component or makes it.
fn create_or_find(cx: &Caller<'_>, at: &Parent, how: &OpenHow) -> Result<Found> {
    let dir = &at.dir;
    let cached = super::walk::child(cx, dir, &at.name)?;
    if cached.inode().is_some() {
        return Ok(Found::Old(cached));
    }
    if how.resolve.contains(LookupFlags::CACHED) {
        return Err(Errno::EAGAIN);
    }
    let _lock = dir.dentry.lock_dir();
    let child = child_locked(cx, dir, &at.name)?;
    if child.inode().is_some() {
        return Ok(Found::Old(child));
    }
    want_write(&dir.mount)?;
    super::permission::may_create(cx, dir)?;
    let mode = FileType::Regular.mode_bits() | (how.mode & mode::PERM);
    let dentry = change::make_locked(cx, dir, &at.name, &New::Node { mode, rdev: 0 })?;
    Ok(Found::Made(dir.with(dentry)))
}

/// `O_CREAT` on something that exists: directories refuse, and sticky directories protect FIFOs and files of others.
fn open_existing_for_create(
    cx: &Caller<'_>,
    _parent: &Parent,
    end: Path,
    how: &OpenHow,
) -> std::result::Result<Arc<File>, SysError> {
    if end.inode()?.file_type() == FileType::Directory {
        return Err(Errno::EISDIR.into());
    }
    open_place(cx, end, how, false)
}

/// Opens a place that was found or made (`do_open`). With `made` the permissions of the file itself do not matter.
fn open_place(
    cx: &Caller<'_>,
    path: Path,
    how: &OpenHow,
    made: bool,
) -> std::result::Result<Arc<File>, SysError> {
    let flags = how.flags;
    let kind = path.inode()?.file_type();
    if flags.contains(OpenFlags::DIRECTORY) && kind != FileType::Directory {
        return Err(Errno::ENOTDIR.into());
    }
    if flags.contains(OpenFlags::PATH) {
        return Ok(File::new(Arc::new(PathOnly), path, flags, Arc::clone(cx.creds)));
    }
    if flags.contains(OpenFlags::TMPFILE_BIT) {
        if kind != FileType::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        let file = change::make_nameless(cx, &path, how.mode, flags.contains(OpenFlags::EXCL))?;
        return finish(cx, file, flags, true);
    }
    if flags.contains(OpenFlags::TRUNC) && !made && kind == FileType::Regular {
        want_write(&path.mount)?;
    }
    may_open(cx, &path, kind, flags, made)?;
    let truncate = flags.contains(OpenFlags::TRUNC) && kind == FileType::Regular && !made;
    let file = finish(cx, path, flags, made)?;
    if truncate {
        let inode = file.path().inode()?;
        if flags.can_write() {
            super::setattr::set_size(cx, file.path(), 0)?;
        } else {
            inode.extras().get_write()?;
            let result = super::setattr::set_size(cx, file.path(), 0);
            inode.extras().put_write();
            result?;
        }
    }
    if made {
        notify(Origin::at(cx, file.path()), &file.path().dentry, Event::OPEN);
    }
    Ok(file)
}

/// Type and permission checks (`may_open`).
fn may_open(cx: &Caller<'_>, path: &Path, kind: FileType, flags: OpenFlags, made: bool) -> Result<()> {
    let may = wanted(flags);
    match kind {
        FileType::Symlink => return Err(Errno::ELOOP),
        FileType::Directory if may.contains(May::WRITE) => return Err(Errno::EISDIR),
        FileType::BlockDevice | FileType::CharDevice if path.mount.nodev() => return Err(Errno::EACCES),
        _ => {}
    }
    if !made {
        check(cx, path, may)?;
        if may.contains(May::WRITE) && matches!(kind, FileType::Regular) {
            want_write(&path.mount)?;
        }
    }
    if flags.contains(OpenFlags::NOATIME) && !owner_or_capable(cx.creds, &path.inode()?.perm()?) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// Opens without walking or asking: by /proc/pid/fd links, execve, and the kernel itself.
pub fn open_path(cx: &Caller<'_>, path: &Path, flags: OpenFlags) -> std::result::Result<Arc<File>, SysError> {
    let how = OpenHow { flags, ..OpenHow::default() };
    let how = OpenHow { flags: normalize(&how)?, ..how };
    open_place(cx, path.clone(), &how, false)
}

/// Opens a program for execve(2): it must be a regular file that may be executed.
pub fn open_exec(cx: &Caller<'_>, path: &Path) -> Result<Arc<File>> {
    let inode = path.inode()?;
    if inode.file_type() != FileType::Regular {
        return Err(Errno::EACCES);
    }
    check(cx, path, May::EXEC)?;
    if path.mount.noexec() {
        return Err(Errno::EACCES);
    }
    let flags = OpenFlags::empty();
    let ops = inode.open(cx, path, flags)?;
    let file = File::new(ops, path.clone(), flags, Arc::clone(cx.creds));
    file.set_opener(cx);
    file.deny_write()?;
    notify(Origin::at(cx, file.path()), &file.path().dentry, Event::OPEN);
    notify(Origin::at(cx, file.path()), &file.path().dentry, Event::OPEN_EXEC);
    Ok(file)
}

/// The last part: counts the writer and asks whoever answers for the type.
fn finish(
    cx: &Caller<'_>,
    path: Path,
    flags: OpenFlags,
    made: bool,
) -> std::result::Result<Arc<File>, SysError> {
    let inode = Arc::clone(path.inode()?);
    let kind = inode.file_type();
    let counts = kind == FileType::Regular && flags.can_write();
    if counts {
        inode.extras().get_write()?;
    }
    let opened = open_kind(cx, &inode, &path, kind, flags);
    let (ops, path) = match opened {
        Ok(Opened::Ops(ops)) => (ops, path),
        Ok(Opened::Other(ops, path)) => (ops, path),
        Err(e) => {
            if counts {
                inode.extras().put_write();
            }
            return Err(e);
        }
    };
    let file = File::new_counted(ops, path, flags, Arc::clone(cx.creds), counts);
    file.set_opener(cx);
    if flags.contains(OpenFlags::DIRECT) {
        file.ops().flags_changed(&file, flags)?;
    }
    if !made {
        notify(Origin::at(cx, file.path()), &file.path().dentry, Event::OPEN);
    }
    Ok(file)
}

fn open_kind(
    cx: &Caller<'_>,
    inode: &Arc<dyn super::Inode>,
    path: &Path,
    kind: FileType,
    flags: OpenFlags,
) -> std::result::Result<Opened, SysError> {
    let task = || cx.task.ok_or(SysError::Errno(Errno::ENXIO));
    match kind {
        FileType::Symlink => Err(Errno::ELOOP.into()),
        FileType::Socket => Err(Errno::ENXIO.into()),
        FileType::Fifo => {
            let opener = Arc::clone(task()?.kernel().vfs.fifo_opener()?);
            Ok(Opened::Ops(opener.open(cx, path, flags)?))
        }
        FileType::CharDevice | FileType::BlockDevice => {
            let rdev = inode.attr()?.rdev;
            let (driver, minor) = task()?.kernel().vfs.device(kind == FileType::BlockDevice, rdev)?;
            driver.open(cx, path, minor, flags)
        }
        FileType::Regular | FileType::Directory => Ok(Opened::Ops(inode.open(cx, path, flags)?)),
    }
}

/// The operations of an `O_PATH` description: none.
struct PathOnly;

impl FileOps for PathOnly {
    fn readdir(&self, _: &Caller<'_>, _: &File, _: u64, _: &mut dyn super::DirSink) -> Result<()> {
        Err(Errno::EBADF)
    }
    fn ioctl(&self, _: &crate::Task, _: &File, _: u32, _: u64) -> crate::SysResult {
        Err(Errno::EBADF.into())
    }
    fn fsync(&self, _: &File, _: bool) -> Result<()> {
        Err(Errno::EBADF)
    }
}
