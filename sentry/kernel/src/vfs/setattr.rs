//! Changes of attributes: chmod, chown, utimens, truncate, with the rules of Linux' `notify_change`.

use super::acl::{self, Acl};
use super::inode::{Caller, FsFlags, Inode, Perm, SetAttr, SetTime, XattrFlags};
use super::notify::{Event, Origin, notify};
use super::permission::{
    May, capable_over, check, dropped_set_ids, owner_or_capable, strip_setgid, want_write,
};
use super::{File, Path};
use crate::creds::CapSet;
use crate::restart::SysError;
use abi::stat::{FileType, mode};
use abi::time::Timespec;
use abi::{Errno, Result};
use std::sync::Arc;

/// chmod(2) on a place. EOPNOTSUPP for symbolic links.
pub fn chmod(cx: &Caller<'_>, path: &Path, new: u32) -> Result<()> {
    want_write(&path.mount)?;
    let inode = path.inode()?;
    if inode.file_type() == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    let perm = inode.perm()?;
    if !owner_or_capable(cx.creds, &perm) {
        return Err(Errno::EPERM);
    }
    let new = strip_setgid(cx.creds, &perm, new & mode::PERM, perm.gid);
    inode.set_attr(cx, &SetAttr { mode: Some(new), ..SetAttr::default() })?;
    if path.mount.fs_flags.contains(FsFlags::POSIX_ACL)
        && let Ok(value) = inode.getxattr(acl::ACCESS)
        && let Ok(Some(mut list)) = Acl::parse(&value)
    {
        list.chmod(new);
        inode.setxattr(acl::ACCESS, &list.to_bytes(), XattrFlags::empty())?;
    }
    notify(Origin::at(cx, path), &path.dentry, Event::ATTRIB);
    Ok(())
}

/// chown(2) on a place; `None` leaves an id as it is. Ids are those of the sandbox.
pub fn chown(cx: &Caller<'_>, path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    want_write(&path.mount)?;
    let inode = path.inode()?;
    let perm = inode.perm()?;
    let creds = cx.creds;
    let chown_cap = capable_over(creds, &perm, CapSet::CHOWN);
    if let Some(uid) = uid
        && !(chown_cap || (creds.fsuid == perm.uid && uid == perm.uid))
    {
        return Err(Errno::EPERM);
    }
    if let Some(gid) = gid
        && !(chown_cap || (creds.fsuid == perm.uid && (gid == perm.gid || creds.in_group(gid))))
    {
        return Err(Errno::EPERM);
    }
    let mut set = SetAttr { uid, gid, ..SetAttr::default() };
    if inode.file_type() != FileType::Directory {
        let mut drop = perm.mode & mode::S_ISUID;
        if perm.mode & mode::S_ISGID != 0
            && (perm.mode & mode::S_IXGRP != 0
                || !(creds.in_group(perm.gid) || capable_over(creds, &perm, CapSet::FSETID)))
        {
            drop |= mode::S_ISGID;
        }
        if drop != 0 {
            set.mode = Some(perm.mode & mode::PERM & !drop);
        }
        drop_file_caps(path, inode);
    }
    inode.set_attr(cx, &set)?;
    notify(Origin::at(cx, path), &path.dentry, Event::ATTRIB);
    Ok(())
}

fn drop_file_caps(path: &Path, inode: &Arc<dyn Inode>) {
    if path.mount.fs_flags.contains(FsFlags::XATTR) {
        let _ = inode.removexattr(b"security.capability");
    }
}

/// utimensat(2): `None` for both means now.
pub fn utimes(cx: &Caller<'_>, path: &Path, times: Option<(Option<SetTime>, Option<SetTime>)>) -> Result<()> {
    want_write(&path.mount)?;
    let inode = path.inode()?;
    let perm = inode.perm()?;
    let (atime, mtime) = match times {
        None => (Some(SetTime::Now), Some(SetTime::Now)),
        Some((None, None)) => return Ok(()),
        Some(t) => t,
    };
    let both_now = atime == Some(SetTime::Now) && mtime == Some(SetTime::Now);
    if !owner_or_capable(cx.creds, &perm) {
        if !both_now {
            return Err(Errno::EPERM);
        }
        super::permission::check_inode(cx.creds, path.mount.fs_flags, inode, May::WRITE)?;
    }
    let clamp = |t: SetTime| match t {
        SetTime::At(t) => {
            SetTime::At(Timespec { tv_sec: t.tv_sec, tv_nsec: t.tv_nsec.clamp(0, 999_999_999) })
        }
        SetTime::Now => SetTime::Now,
    };
    let set = SetAttr { atime: atime.map(clamp), mtime: mtime.map(clamp), ..SetAttr::default() };
    inode.set_attr(cx, &set)?;
    let event = match (set.atime, set.mtime) {
        (Some(_), None) => Event::ACCESS,
        (None, Some(_)) => Event::MODIFY,
        _ => Event::ATTRIB,
    };
    notify(Origin::at(cx, path), &path.dentry, event);
    Ok(())
}

/// truncate(2) by name.
pub fn truncate(cx: &Caller<'_>, path: &Path, size: u64) -> std::result::Result<(), SysError> {
    let inode = path.inode()?;
    match inode.file_type() {
        FileType::Regular => {}
        FileType::Directory => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    want_write(&path.mount)?;
    check(cx, path, May::WRITE)?;
    inode.extras().get_write()?;
    let result = set_size(cx, path, size);
    inode.extras().put_write();
    result
}

/// ftruncate(2).
pub fn ftruncate(cx: &Caller<'_>, file: &File, size: u64) -> std::result::Result<(), SysError> {
    let inode = file.path().inode()?;
    if inode.file_type() != FileType::Regular || !file.flags().can_write() {
        return Err(Errno::EINVAL.into());
    }
    set_size(cx, file.path(), size)
}

/// Sets the size of a regular file, with `RLIMIT_FSIZE` and without its set-id bits.
pub(super) fn set_size(cx: &Caller<'_>, path: &Path, size: u64) -> std::result::Result<(), SysError> {
    let inode = path.inode()?;
    super::limits::check_size(cx, inode, size)?;
    let mut set = SetAttr { size: Some(size), ..SetAttr::default() };
    let perm = inode.perm()?;
    set.mode = mode_without_set_ids(cx, &perm);
    if set.mode.is_some() {
        drop_file_caps(path, inode);
    }
    inode.set_attr(cx, &set)?;
    notify(Origin::at(cx, path), &path.dentry, Event::MODIFY);
    Ok(())
}

fn mode_without_set_ids(cx: &Caller<'_>, perm: &Perm) -> Option<u32> {
    let drop = dropped_set_ids(perm.mode);
    (drop != 0 && !capable_over(cx.creds, perm, CapSet::FSETID)).then_some(perm.mode & mode::PERM & !drop)
}

/// A regular file is about to be written: set-id bits and file capabilities go (`file_remove_privs`).
pub fn remove_privileges(cx: &Caller<'_>, path: &Path) -> Result<()> {
    let inode = path.inode()?;
    if inode.file_type() != FileType::Regular {
        return Ok(());
    }
    let perm = inode.perm()?;
    if perm.mode & (mode::S_ISUID | mode::S_ISGID) == 0 {
        return Ok(());
    }
    if let Some(mode) = mode_without_set_ids(cx, &perm) {
        drop_file_caps(path, inode);
        inode.set_attr(cx, &SetAttr { mode: Some(mode), ..SetAttr::default() })?;
    }
    Ok(())
}
