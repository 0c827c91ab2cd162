//! Who may do what with an inode: mode bits, lists, capabilities, sticky directories (path_resolution(7),
//! capabilities(7)). The only place where this is decided.

use super::inode::{Attr, Caller, FsFlags, Inode, Perm};
use super::{Mount, Path, acl};
use crate::creds::{CapSet, Creds};
use abi::stat::{FileType, mode};
use abi::{Errno, Result};
use bitflags::bitflags;
use std::sync::Arc;

bitflags! {
    /// What is wanted (`MAY_*`), with the values of rwx.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct May: u16 {
        const EXEC = 1;
        const WRITE = 2;
        const READ = 4;
    }
}

/// Whether a capability counts for an object of this owner: in a user namespace only for ids that are
/// mapped there (`capable_wrt_inode_uidgid`).
pub fn capable_over(creds: &Creds, perm: &Perm, cap: CapSet) -> bool {
    creds.has_cap(cap)
        && (creds.user_ns.parent.is_none()
            || (creds.user_ns.maps_uid(perm.uid) && creds.user_ns.maps_gid(perm.gid)))
}

/// Whether the caller is the owner or may act as such (`inode_owner_or_capable`).
pub fn owner_or_capable(creds: &Creds, perm: &Perm) -> bool {
    creds.fsuid == perm.uid || capable_over(creds, perm, CapSet::FOWNER)
}

/// Whether mode and lists alone allow it.
fn mode_allows(creds: &Creds, flags: FsFlags, inode: &Arc<dyn Inode>, perm: &Perm, want: May) -> bool {
    let bits = |shift: u32| May::from_bits_truncate(u16::try_from((perm.mode >> shift) & 7).unwrap_or(0));
    if creds.fsuid == perm.uid {
        return bits(6).contains(want);
    }
    if flags.contains(FsFlags::POSIX_ACL)
        && perm.mode & 0o070 != 0
        && let Ok(value) = inode.getxattr(acl::ACCESS)
        && let Ok(Some(list)) = acl::Acl::parse(&value)
    {
        return list.allows(creds, perm, want.bits());
    }
    if creds.in_group(perm.gid) { bits(3).contains(want) } else { bits(0).contains(want) }
}

/// Checks what is wanted against an inode; EACCES. Mounts and read-only file systems are not looked at.
pub fn check_inode(creds: &Creds, flags: FsFlags, inode: &Arc<dyn Inode>, want: May) -> Result<()> {
    if want.is_empty() {
        return Ok(());
    }
    let perm = inode.perm()?;
    if mode_allows(creds, flags, inode, &perm, want) {
        return Ok(());
    }
    let directory = perm.mode & mode::S_IFMT == FileType::Directory.mode_bits();
    let read_search = !want.contains(May::WRITE) && (directory || want == May::READ);
    if read_search && capable_over(creds, &perm, CapSet::DAC_READ_SEARCH) {
        return Ok(());
    }
    // An executable needs at least one x bit even for root; directories are always searchable.
    let executable = directory || !want.contains(May::EXEC) || perm.mode & 0o111 != 0;
    if executable && capable_over(creds, &perm, CapSet::DAC_OVERRIDE) {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// Checks what is wanted at a place (`inode_permission` with the mount's and file system's state): EROFS for
/// writing files of a read-only file system, EACCES for executing on noexec.
pub fn check(cx: &Caller<'_>, path: &Path, want: May) -> Result<()> {
    let inode = path.inode()?;
    let kind = inode.file_type();
    if want.contains(May::WRITE)
        && path.mount.sb.readonly()
        && matches!(kind, FileType::Regular | FileType::Directory | FileType::Symlink)
    {
        return Err(Errno::EROFS);
    }
    if want.contains(May::EXEC) && kind == FileType::Regular && path.mount.noexec() {
        return Err(Errno::EACCES);
    }
    check_inode(cx.creds, path.mount.fs_flags, inode, want)
}

/// EROFS when the mount or its file system is read-only (`mnt_want_write`).
pub fn want_write(mount: &Mount) -> Result<()> {
    if mount.readonly() { Err(Errno::EROFS) } else { Ok(()) }
}

/// Whether the sticky bit of a directory keeps the caller from removing or renaming `child`.
fn sticky(creds: &Creds, dir: &Perm, child: &Perm) -> bool {
    dir.mode & mode::S_ISVTX != 0
        && child.uid != creds.fsuid
        && dir.uid != creds.fsuid
        && !capable_over(creds, child, CapSet::FOWNER)
}

/// Whether something can be made in a directory (`may_create`).
pub fn may_create(cx: &Caller<'_>, dir: &Path) -> Result<()> {
    if dir.dentry.is_dead() {
        return Err(Errno::ENOENT);
    }
    check(cx, dir, May::WRITE | May::EXEC)
}

/// Whether `child` can be removed from `dir` (`may_delete`); `want_dir` says what is to be removed, `None` when
/// either will do.
pub fn may_delete(cx: &Caller<'_>, dir: &Path, child: &Arc<dyn Inode>, want_dir: Option<bool>) -> Result<()> {
    check(cx, dir, May::WRITE | May::EXEC)?;
    let dir_perm = dir.inode()?.perm()?;
    if sticky(cx.creds, &dir_perm, &child.perm()?) {
        return Err(Errno::EPERM);
    }
    let is_dir = child.file_type() == FileType::Directory;
    match want_dir {
        Some(true) if !is_dir => Err(Errno::ENOTDIR),
        Some(false) if is_dir => Err(Errno::EISDIR),
        _ if dir.dentry.is_dead() => Err(Errno::ENOENT),
        _ => Ok(()),
    }
}

/// The set-id bits that a change of content or owner takes away (`setattr_should_drop_suidgid`), given that
/// the caller lacks `CAP_FSETID`.
pub fn dropped_set_ids(mode: u32) -> u32 {
    let mut drop = mode & mode::S_ISUID;
    if mode & mode::S_ISGID != 0 && mode & mode::S_IXGRP != 0 {
        drop |= mode::S_ISGID;
    }
    drop
}

/// The mode that chmod or creation may give when the group is not the caller's: without `S_ISGID`.
pub fn strip_setgid(creds: &Creds, perm: &Perm, new_mode: u32, gid: u32) -> u32 {
    if new_mode & mode::S_ISGID != 0 && !creds.in_group(gid) && !capable_over(creds, perm, CapSet::FSETID) {
        new_mode & !mode::S_ISGID
    } else {
        new_mode
    }
}

/// Whether a hard link to this file may be made when `protected_hardlinks` is on.
pub fn safe_hardlink_source(creds: &Creds, flags: FsFlags, inode: &Arc<dyn Inode>, attr: &Attr) -> bool {
    attr.file_type() == FileType::Regular
        && attr.mode & mode::S_ISUID == 0
        && attr.mode & (mode::S_ISGID | mode::S_IXGRP) != mode::S_ISGID | mode::S_IXGRP
        && check_inode(creds, flags, inode, May::READ | May::WRITE).is_ok()
}
