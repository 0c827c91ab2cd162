//! Changes of directories: making, linking, removing and renaming names. Each function takes the
//! directory and the name as a walk left them, checks what Linux checks in its order, calls the file system with the
//! directories locked, and keeps the dentries true.

use super::acl::{self, Acl};
use super::inode::{Attr, Caller, CreateArgs, FsFlags, Inode, RenameFlags, SetAttr, XattrFlags};
use super::mount_ops::directory_removed;
use super::mount_tree::is_local_mountpoint;
use super::notify::{Event, Origin, notify_entry, notify_links, notify_move};
use super::permission::{
    May, capable_over, check, may_create, may_delete, owner_or_capable, safe_hardlink_source, want_write,
};
use super::walk::{Last, Parent, child_locked};
use super::{Dentry, Path};
use crate::creds::CapSet;
use abi::stat::{FileType, mode};
use abi::{Errno, Result};
use std::sync::Arc;

/// Mode, owner and lists of something new in a directory.
struct Newborn {
    args: CreateArgs,
    access: Option<Acl>,
    default: Option<Vec<u8>>,
}

/// Applies umask or default list, and what a set-gid directory hands down (`inode_init_owner`,
/// `posix_acl_create`).
fn newborn(cx: &Caller<'_>, dir: &Path, mode: u32, rdev: u64, umask: u32) -> Result<Newborn> {
    let parent = dir.inode()?.perm()?;
    let kind = FileType::from_mode(mode).unwrap_or(FileType::Regular);
    let mut perm = mode & mode::PERM;
    let mut access = None;
    let mut default = None;
    let lists = dir.mount.fs_flags.contains(FsFlags::POSIX_ACL) && kind != FileType::Symlink;
    let value = if lists { dir.inode()?.getxattr(acl::DEFAULT).ok() } else { None };
    match value.as_deref().map(Acl::parse) {
        Some(Ok(Some(list))) => {
            let (own, bits) = list.for_new(perm);
            perm = (perm & !0o777) | bits;
            if !own.mode().1 {
                access = Some(own);
            }
            if kind == FileType::Directory {
                default = value;
            }
        }
        _ => perm &= !(umask & 0o777),
    }
    let creds = cx.creds;
    let mut gid = creds.fsgid;
    if parent.mode & mode::S_ISGID != 0 {
        gid = parent.gid;
        if kind == FileType::Directory {
            perm |= mode::S_ISGID;
        } else if perm & (mode::S_ISGID | mode::S_IXGRP) == mode::S_ISGID | mode::S_IXGRP
            && !creds.in_group(gid)
            && !capable_over(creds, &parent, CapSet::FSETID)
        {
            perm &= !mode::S_ISGID;
        }
    }
    Ok(Newborn {
        args: CreateArgs { mode: kind.mode_bits() | perm, uid: creds.fsuid, gid, rdev },
        access,
        default,
    })
}

impl Newborn {
    fn finish(self, inode: &Arc<dyn Inode>) -> Result<()> {
        if let Some(list) = self.access {
            inode.setxattr(acl::ACCESS, &list.to_bytes(), XattrFlags::empty())?;
        }
        if let Some(value) = self.default {
            inode.setxattr(acl::DEFAULT, &value, XattrFlags::empty())?;
        }
        Ok(())
    }
}

fn keeps(dir: &Path) -> bool {
    !dir.mount.fs_flags.contains(FsFlags::NO_DCACHE)
}

/// The umask of the calling task.
pub fn umask(cx: &Caller<'_>) -> u32 {
    cx.task.map_or(0, |t| t.fs().umask())
}

/// What a new name shall be.
pub enum New<'a> {
    /// Regular file, FIFO, socket or device: the mode with its type, and the device number.
    Node {
        mode: u32,
        rdev: u64,
    },
    Directory {
        mode: u32,
    },
    Symlink {
        target: &'a [u8],
    },
}

/// Makes a name (`filename_create` and `vfs_mknod`, `vfs_mkdir`, `vfs_symlink`): EEXIST comes before EROFS, and
/// that before the permission to write.
pub fn make(cx: &Caller<'_>, at: &Parent, new: &New<'_>) -> Result<Path> {
    if at.last != Last::Normal {
        return Err(Errno::EEXIST);
    }
    let dir = &at.dir;
    let _lock = dir.dentry.lock_dir();
    let old = child_locked(cx, dir, &at.name)?;
    if old.inode().is_some() {
        return Err(Errno::EEXIST);
    }
    if at.slash && !matches!(new, New::Directory { .. }) {
        return Err(Errno::ENOENT);
    }
    want_write(&dir.mount)?;
    may_create(cx, dir)?;
    if let New::Node { mode, rdev } = new {
        may_make_device(cx, *mode, *rdev)?;
    }
    let dentry = make_locked(cx, dir, &at.name, new)?;
    Ok(dir.with(dentry))
}

/// Device nodes need a capability that only the sandbox's own users can have; whiteouts do not.
fn may_make_device(cx: &Caller<'_>, mode: u32, rdev: u64) -> Result<()> {
    let root = cx.creds.user_ns.parent.is_none() && cx.creds.has_cap(CapSet::MKNOD);
    match FileType::from_mode(mode) {
        Some(FileType::CharDevice) if rdev == 0 => Ok(()),
        Some(FileType::CharDevice | FileType::BlockDevice) if !root => Err(Errno::EPERM),
        _ => Ok(()),
    }
}

/// The last part of making a name; the directory is locked and everything is checked.
pub(super) fn make_locked(cx: &Caller<'_>, dir: &Path, name: &[u8], new: &New<'_>) -> Result<Arc<Dentry>> {
    let inode = dir.inode()?;
    let mask = umask(cx);
    let (made, born) = match new {
        New::Node { mode, rdev } => {
            let born = newborn(cx, dir, *mode, *rdev, mask)?;
            (inode.create(cx, name, &born.args)?, born)
        }
        New::Directory { mode } => {
            let mode = (*mode & 0o1777) | FileType::Directory.mode_bits();
            let born = newborn(cx, dir, mode, 0, mask)?;
            (inode.mkdir(cx, name, &born.args)?, born)
        }
        New::Symlink { target } => {
            let born = newborn(cx, dir, FileType::Symlink.mode_bits() | 0o777, 0, 0)?;
            (inode.symlink(cx, name, target, &born.args)?, born)
        }
    };
    born.finish(&made)?;
    let dentry = dir.dentry.enter_new(name, Some(Arc::clone(&made)), keeps(dir));
    notify_entry(Origin::of(cx), &dir.dentry, Event::CREATE, &made, name);
    Ok(dentry)
}

/// A file without a name in a directory (`O_TMPFILE`).
pub(super) fn make_nameless(cx: &Caller<'_>, dir: &Path, mode: u32, for_ever: bool) -> Result<Path> {
    want_write(&dir.mount)?;
    check(cx, dir, May::WRITE | May::EXEC)?;
    let born = newborn(cx, dir, FileType::Regular.mode_bits() | (mode & mode::PERM), 0, umask(cx))?;
    let inode = dir.inode()?.tmpfile(cx, &born.args)?;
    born.finish(&inode)?;
    let name = format!("#{}", inode.ino());
    Ok(dir.with(dir.dentry.unlinked_child(inode, name.as_bytes(), for_ever)))
}

/// The name is gone: the dentry leaves the tables, a negative one takes its place.
fn forget(dir: &Path, name: &[u8], child: &Arc<Dentry>, dead: bool) {
    child.unhash(dead);
    if keeps(dir) {
        dir.dentry.enter_new(name, None, true);
    }
}

/// unlink(2).
pub fn unlink(cx: &Caller<'_>, at: &Parent) -> Result<()> {
    if at.last != Last::Normal {
        return Err(Errno::EISDIR);
    }
    let dir = &at.dir;
    want_write(&dir.mount)?;
    let child = {
        let _lock = dir.dentry.lock_dir();
        let child = child_locked(cx, dir, &at.name)?;
        let inode = child.inode().ok_or(Errno::ENOENT)?;
        if at.slash {
            let is_dir = inode.file_type() == FileType::Directory;
            return Err(if is_dir { Errno::EISDIR } else { Errno::ENOTDIR });
        }
        may_delete(cx, dir, inode, Some(false))?;
        if is_local_mountpoint(&dir.mount, &child) {
            return Err(Errno::EBUSY);
        }
        dir.inode()?.unlink(cx, &at.name, inode)?;
        forget(dir, &at.name, &child, false);
        child
    };
    if let Some(inode) = child.inode() {
        notify_links(Origin::of(cx), child.tree(), inode);
        notify_entry(Origin::of(cx), &dir.dentry, Event::DELETE, inode, &at.name);
    }
    directory_removed(&dir.mount, &child);
    dentry_gone(child);
    Ok(())
}

/// If nobody has an unlinked file open, its watches end now; else when the last description goes.
fn dentry_gone(child: Arc<Dentry>) {
    let Some(inode) = child.inode().cloned() else {
        return;
    };
    let tree = Arc::clone(child.tree());
    drop(child);
    if tree.watches.load(std::sync::atomic::Ordering::Acquire) != 0
        && !inode.extras().is_open()
        && inode.attr().is_ok_and(|a| no_links(&a))
    {
        super::notify::notify_gone(&inode);
    }
}

pub(super) fn no_links(attr: &Attr) -> bool {
    attr.nlink == 0 || (attr.file_type() == FileType::Directory && attr.nlink < 2)
}

/// rmdir(2).
pub fn rmdir(cx: &Caller<'_>, at: &Parent) -> Result<()> {
    match at.last {
        Last::Normal => {}
        Last::Dot => return Err(Errno::EINVAL),
        Last::DotDot => return Err(Errno::ENOTEMPTY),
        Last::Root => return Err(Errno::EBUSY),
    }
    let dir = &at.dir;
    want_write(&dir.mount)?;
    let child = {
        let _lock = dir.dentry.lock_dir();
        let child = child_locked(cx, dir, &at.name)?;
        let inode = child.inode().ok_or(Errno::ENOENT)?;
        may_delete(cx, dir, inode, Some(true))?;
        if is_local_mountpoint(&dir.mount, &child) {
            return Err(Errno::EBUSY);
        }
        dir.inode()?.rmdir(cx, &at.name, inode)?;
        forget(dir, &at.name, &child, true);
        child
    };
    if let Some(inode) = child.inode() {
        notify_entry(Origin::of(cx), &dir.dentry, Event::DELETE, inode, &at.name);
    }
    directory_removed(&dir.mount, &child);
    dentry_gone(child);
    Ok(())
}

/// link(2): gives `old` another name.
pub fn link(cx: &Caller<'_>, old: &Path, at: &Parent) -> Result<()> {
    if at.last != Last::Normal {
        return Err(Errno::EEXIST);
    }
    let dir = &at.dir;
    let target = old.inode()?;
    {
        let _lock = dir.dentry.lock_dir();
        if child_locked(cx, dir, &at.name)?.inode().is_some() {
            return Err(Errno::EEXIST);
        }
        if at.slash {
            return Err(Errno::ENOENT);
        }
        want_write(&dir.mount)?;
        if !Arc::ptr_eq(&old.mount, &dir.mount) {
            return Err(Errno::EXDEV);
        }
        may_link(cx, old)?;
        may_create(cx, dir)?;
        if target.file_type() == FileType::Directory {
            return Err(Errno::EPERM);
        }
        if old.dentry.is_dead() {
            return Err(Errno::ENOENT);
        }
        dir.inode()?.link(cx, &at.name, target)?;
        let dentry = dir.dentry.enter_new(&at.name, Some(Arc::clone(target)), keeps(dir));
        drop(dentry);
    }
    notify_links(Origin::of(cx), dir.dentry.tree(), target);
    notify_entry(Origin::of(cx), &dir.dentry, Event::CREATE, target, &at.name);
    Ok(())
}

fn may_link(cx: &Caller<'_>, old: &Path) -> Result<()> {
    if !cx.task.is_some_and(|t| t.kernel().sysctls.get_int("fs/protected_hardlinks") != 0) {
        return Ok(());
    }
    let inode = old.inode()?;
    if safe_hardlink_source(cx.creds, old.mount.fs_flags, inode, &inode.attr()?)
        || owner_or_capable(cx.creds, &inode.perm()?)
    {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

fn is_dir(inode: &Arc<dyn Inode>) -> bool {
    inode.file_type() == FileType::Directory
}

/// renameat2(2).
pub fn rename(cx: &Caller<'_>, from: &Parent, to: &Parent, flags: RenameFlags) -> Result<()> {
    if !Arc::ptr_eq(&from.dir.mount, &to.dir.mount) {
        return Err(Errno::EXDEV);
    }
    if from.last != Last::Normal {
        return Err(Errno::EBUSY);
    }
    if to.last != Last::Normal {
        return Err(if flags.contains(RenameFlags::NOREPLACE) { Errno::EEXIST } else { Errno::EBUSY });
    }
    want_write(&from.dir.mount)?;
    let same_dir = Arc::ptr_eq(&from.dir.dentry, &to.dir.dentry);
    let gone = if same_dir {
        let _lock = from.dir.dentry.lock_dir();
        rename_locked(cx, from, to, flags)?
    } else {
        let tree = Arc::clone(from.dir.dentry.tree());
        let _renames = tree.renames.lock();
        let _locks = Dentry::lock_dirs(&from.dir.dentry, &to.dir.dentry);
        rename_locked(cx, from, to, flags)?
    };
    if let Some(gone) = gone {
        if let Some(inode) = gone.inode() {
            notify_links(Origin::of(cx), gone.tree(), inode);
        }
        directory_removed(&to.dir.mount, &gone);
        dentry_gone(gone);
    }
    Ok(())
}

/// The dentry that was replaced.
fn rename_locked(
    cx: &Caller<'_>,
    from: &Parent,
    to: &Parent,
    flags: RenameFlags,
) -> Result<Option<Arc<Dentry>>> {
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    let old = child_locked(cx, &from.dir, &from.name)?;
    let old_inode = old.inode().cloned().ok_or(Errno::ENOENT)?;
    let new = child_locked(cx, &to.dir, &to.name)?;
    if flags.contains(RenameFlags::NOREPLACE) && new.inode().is_some() {
        return Err(Errno::EEXIST);
    }
    if exchange {
        let new_inode = new.inode().ok_or(Errno::ENOENT)?;
        if !is_dir(new_inode) && to.slash {
            return Err(Errno::ENOTDIR);
        }
    }
    if !is_dir(&old_inode) && (from.slash || (!exchange && to.slash)) {
        return Err(Errno::ENOTDIR);
    }
    let same_dir = Arc::ptr_eq(&from.dir.dentry, &to.dir.dentry);
    if !same_dir {
        if to.dir.dentry.step_below(&from.dir.dentry).is_some_and(|t| Arc::ptr_eq(&t, &old))
            || to.dir.dentry.is_below(&old)
        {
            return Err(Errno::EINVAL);
        }
        if from.dir.dentry.is_below(&new) {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
    }
    if Arc::ptr_eq(&old, &new) || new.inode().is_some_and(|n| same_inode(n, &old_inode)) {
        return Ok(None);
    }
    may_delete(cx, &from.dir, &old_inode, None)?;
    match new.inode() {
        None => may_create(cx, &to.dir)?,
        Some(n) => {
            may_delete(cx, &to.dir, n, if exchange { None } else { Some(is_dir(&old_inode)) })?;
        }
    }
    if !same_dir {
        // A directory that moves has its ".." written.
        if is_dir(&old_inode) {
            check(cx, &from.dir.with(Arc::clone(&old)), May::WRITE)?;
        }
        if let Some(n) = new.inode().filter(|n| exchange && is_dir(n)) {
            super::permission::check_inode(cx.creds, to.dir.mount.fs_flags, n, May::WRITE)?;
        }
    }
    if is_local_mountpoint(&from.dir.mount, &old) || is_local_mountpoint(&to.dir.mount, &new) {
        return Err(Errno::EBUSY);
    }
    from.dir.inode()?.rename(cx, &from.name, &old_inode, to.dir.inode()?, &to.name, new.inode(), flags)?;
    let replaced = new.inode().cloned();
    if exchange {
        old.exchange(&new);
        if let Some(n) = &replaced {
            notify_move(Origin::of(cx), &from.dir.dentry, &from.name, &to.dir.dentry, &to.name, &old_inode);
            notify_move(Origin::of(cx), &to.dir.dentry, &to.name, &from.dir.dentry, &from.name, n);
        }
        return Ok(None);
    }
    new.unhash(replaced.as_ref().is_some_and(is_dir));
    old.move_to(&to.dir.dentry, &to.name);
    if keeps(&from.dir) && !flags.contains(RenameFlags::WHITEOUT) {
        from.dir.dentry.enter_new(&from.name, None, true);
    }
    notify_move(Origin::of(cx), &from.dir.dentry, &from.name, &to.dir.dentry, &to.name, &old_inode);
    Ok(replaced.is_some().then_some(new))
}

/// Whether both are the same file.
pub fn same_inode(a: &Arc<dyn Inode>, b: &Arc<dyn Inode>) -> bool {
    Arc::ptr_eq(a, b) || (a.fs().dev() == b.fs().dev() && a.ino() == b.ino())
}

/// Gives an inode attributes without asking anybody, e.g. while a sandbox boots.
pub fn set_unchecked(cx: &Caller<'_>, inode: &Arc<dyn Inode>, set: &SetAttr) -> Result<()> {
    inode.set_attr(cx, set)
}
