//! Extended attributes (xattr(7)): name spaces and their rights.

use super::Path;
use super::acl::{self, Acl};
use super::inode::{Caller, FsFlags, Inode, SetAttr, XattrFlags};
use super::notify::{Event, Origin, notify};
use super::permission::{May, capable_over, check, check_inode, owner_or_capable, strip_setgid, want_write};
use crate::creds::CapSet;
use abi::stat::{FileType, mode};
use abi::{Errno, Result};
use std::sync::Arc;

/// Longest name with its name space (`XATTR_NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Longest value (`XATTR_SIZE_MAX`).
pub const SIZE_MAX: usize = 65536;

/// Whether the caller may use the name at all (`xattr_permission`).
fn may_use(cx: &Caller<'_>, path: &Path, inode: &Arc<dyn Inode>, name: &[u8], write: bool) -> Result<()> {
    if write {
        want_write(&path.mount)?;
    }
    if name.starts_with(b"security.") || name.starts_with(b"system.") {
        return Ok(());
    }
    let perm = inode.perm()?;
    if name.starts_with(b"trusted.") {
        let root = cx.creds.user_ns.parent.is_none() && cx.creds.has_cap(CapSet::SYS_ADMIN);
        return match (root, write) {
            (true, _) => Ok(()),
            (false, true) => Err(Errno::EPERM),
            (false, false) => Err(Errno::ENODATA),
        };
    }
    if name.starts_with(b"user.") {
        let kind = inode.file_type();
        if kind != FileType::Regular && kind != FileType::Directory {
            return Err(if write { Errno::EPERM } else { Errno::ENODATA });
        }
        if kind == FileType::Directory
            && perm.mode & mode::S_ISVTX != 0
            && write
            && !owner_or_capable(cx.creds, &perm)
        {
            return Err(Errno::EPERM);
        }
    } else {
        return Err(Errno::EOPNOTSUPP);
    }
    let want = if write { May::WRITE } else { May::READ };
    check_inode(cx.creds, path.mount.fs_flags, inode, want)
}

fn is_acl(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

/// getxattr(2).
pub fn get(cx: &Caller<'_>, path: &Path, name: &[u8]) -> Result<Vec<u8>> {
    let inode = path.inode()?;
    if is_acl(name) && !path.mount.fs_flags.contains(FsFlags::POSIX_ACL) {
        return Err(Errno::EOPNOTSUPP);
    }
    may_use(cx, path, inode, name, false)?;
    inode.getxattr(name)
}

/// setxattr(2).
pub fn set(cx: &Caller<'_>, path: &Path, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
    let inode = path.inode()?;
    if is_acl(name) {
        return set_acl(cx, path, inode, name, value);
    }
    may_use(cx, path, inode, name, true)?;
    if name == b"security.capability" {
        let perm = inode.perm()?;
        if !capable_over(cx.creds, &perm, CapSet::SETFCAP) {
            return Err(Errno::EPERM);
        }
        if !valid_file_caps(value) {
            return Err(Errno::EINVAL);
        }
    } else if name.starts_with(b"security.") && !cx.creds.has_cap(CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    inode.setxattr(name, value, flags)?;
    notify(Origin::at(cx, path), &path.dentry, Event::ATTRIB);
    Ok(())
}

/// Size and revision of a `vfs_cap_data`.
fn valid_file_caps(value: &[u8]) -> bool {
    let magic = value.get(..4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    matches!((magic >> 24, value.len()), (2, 20) | (3, 24))
}

fn set_acl(cx: &Caller<'_>, path: &Path, inode: &Arc<dyn Inode>, name: &[u8], value: &[u8]) -> Result<()> {
    let list = Acl::parse(value)?;
    want_write(&path.mount)?;
    if !path.mount.fs_flags.contains(FsFlags::POSIX_ACL) || inode.file_type() == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    let perm = inode.perm()?;
    if name == acl::DEFAULT && inode.file_type() != FileType::Directory {
        return if list.is_none() { Ok(()) } else { Err(Errno::EACCES) };
    }
    if !owner_or_capable(cx.creds, &perm) {
        return Err(Errno::EPERM);
    }
    match list {
        None => match inode.removexattr(name) {
            Ok(()) | Err(Errno::ENODATA) => {}
            Err(e) => return Err(e),
        },
        Some(list) => {
            let (bits, plain) = list.mode();
            if name == acl::ACCESS {
                let new = (perm.mode & mode::PERM & !0o777) | bits;
                let new = strip_setgid(cx.creds, &perm, new, perm.gid);
                inode.set_attr(cx, &SetAttr { mode: Some(new), ..SetAttr::default() })?;
            }
            if name == acl::ACCESS && plain {
                match inode.removexattr(name) {
                    Ok(()) | Err(Errno::ENODATA) => {}
                    Err(e) => return Err(e),
                }
            } else {
                inode.setxattr(name, &list.to_bytes(), XattrFlags::empty())?;
            }
        }
    }
    notify(Origin::at(cx, path), &path.dentry, Event::ATTRIB);
    Ok(())
}

/// removexattr(2).
pub fn remove(cx: &Caller<'_>, path: &Path, name: &[u8]) -> Result<()> {
    let inode = path.inode()?;
    if is_acl(name) {
        return set_acl(cx, path, inode, name, b"");
    }
    may_use(cx, path, inode, name, true)?;
    if name == b"security.capability" {
        if !capable_over(cx.creds, &inode.perm()?, CapSet::SETFCAP) {
            return Err(Errno::EPERM);
        }
    } else if name.starts_with(b"security.") && !cx.creds.has_cap(CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    inode.removexattr(name)?;
    notify(Origin::at(cx, path), &path.dentry, Event::ATTRIB);
    Ok(())
}

/// listxattr(2): `trusted.` names only for who may read them.
pub fn list(cx: &Caller<'_>, path: &Path) -> Result<Vec<Vec<u8>>> {
    let mut names = path.inode()?.listxattr()?;
    if !(cx.creds.user_ns.parent.is_none() && cx.creds.has_cap(CapSet::SYS_ADMIN)) {
        names.retain(|n| !n.starts_with(b"trusted."));
    }
    Ok(names)
}

/// Whether the caller may change attributes of the place at all; for calls that check before they copy.
pub fn writable(cx: &Caller<'_>, path: &Path) -> Result<()> {
    want_write(&path.mount)?;
    check(cx, path, May::empty())
}
