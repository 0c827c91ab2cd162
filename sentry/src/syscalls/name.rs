//! Names: link(2), unlink(2), rename(2), symlink(2), readlink(2), mknod(2).

use super::at;
use crate::Current;
use abi::Errno;
use abi::fcntl::AtFlags;
use abi::stat::{FileType, mode};
use kernel::SysResult;
use kernel::creds::CapSet;
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::vfs::change::{self, New};
use kernel::vfs::{Fd, LinkTarget, LookupFlags, RenameFlags, rw};

pub fn link(t: &mut Current<'_>, old: UserCStr, new: UserCStr) -> SysResult {
    linkat(t, at::CWD, old, at::CWD, new, 0)
}

pub fn linkat(
    t: &mut Current<'_>,
    old_dir: Fd,
    old: UserCStr,
    new_dir: Fd,
    new: UserCStr,
    flags: u32,
) -> SysResult {
    let flags = at::flags(flags, AtFlags::SYMLINK_FOLLOW | AtFlags::EMPTY_PATH)?;
    let path = old.read_path(&t.mm())?;
    let old = if path.is_empty() && flags.contains(AtFlags::EMPTY_PATH) {
        let place = at::whole(t, old_dir)?;
        // Without the capability only who opened the descriptor may link it.
        if !t.creds().has_cap(CapSet::DAC_READ_SEARCH) && old_dir.0 >= 0 {
            let file = t.files().get(old_dir)?;
            if !std::sync::Arc::ptr_eq(file.creds(), &t.creds()) {
                return Err(Errno::ENOENT.into());
            }
        }
        place
    } else {
        let follow = flags.contains(AtFlags::SYMLINK_FOLLOW);
        at::walk(t, old_dir, &path, if follow { LookupFlags::FOLLOW } else { LookupFlags::empty() })?
    };
    let parent = at::parent(t, new_dir, new)?;
    t.as_caller(|cx| change::link(cx, &old, &parent))?;
    Ok(0)
}

pub fn unlink(t: &mut Current<'_>, path: UserCStr) -> SysResult {
    let parent = at::parent(t, at::CWD, path)?;
    t.as_caller(|cx| change::unlink(cx, &parent))?;
    Ok(0)
}

pub fn unlinkat(t: &mut Current<'_>, dir: Fd, path: UserCStr, flags: u32) -> SysResult {
    let flags = at::flags(flags, AtFlags::REMOVEDIR)?;
    let parent = at::parent(t, dir, path)?;
    t.as_caller(|cx| {
        if flags.contains(AtFlags::REMOVEDIR) {
            change::rmdir(cx, &parent)
        } else {
            change::unlink(cx, &parent)
        }
    })?;
    Ok(0)
}

pub fn rename(t: &mut Current<'_>, old: UserCStr, new: UserCStr) -> SysResult {
    renameat2(t, at::CWD, old, at::CWD, new, 0)
}

pub fn renameat(t: &mut Current<'_>, old_dir: Fd, old: UserCStr, new_dir: Fd, new: UserCStr) -> SysResult {
    renameat2(t, old_dir, old, new_dir, new, 0)
}

pub fn renameat2(
    t: &mut Current<'_>,
    old_dir: Fd,
    old: UserCStr,
    new_dir: Fd,
    new: UserCStr,
    flags: u32,
) -> SysResult {
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    if flags.contains(RenameFlags::EXCHANGE)
        && flags.intersects(RenameFlags::NOREPLACE | RenameFlags::WHITEOUT)
    {
        return Err(Errno::EINVAL.into());
    }
    let from = at::parent(t, old_dir, old)?;
    let to = at::parent(t, new_dir, new)?;
    t.as_caller(|cx| change::rename(cx, &from, &to, flags))?;
    Ok(0)
}

pub fn symlink(t: &mut Current<'_>, target: UserCStr, path: UserCStr) -> SysResult {
    symlinkat(t, target, at::CWD, path)
}

pub fn symlinkat(t: &mut Current<'_>, target: UserCStr, dir: Fd, path: UserCStr) -> SysResult {
    let target = target.read_path(&t.mm())?;
    if target.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let parent = at::parent(t, dir, path)?;
    t.as_caller(|cx| change::make(cx, &parent, &New::Symlink { target: &target }))?;
    Ok(0)
}

pub fn readlink(t: &mut Current<'_>, path: UserCStr, buf: UserPtr<u8>, size: i32) -> SysResult {
    readlinkat(t, at::CWD, path, buf, size)
}

pub fn readlinkat(t: &mut Current<'_>, dir: Fd, path: UserCStr, buf: UserPtr<u8>, size: i32) -> SysResult {
    let size = usize::try_from(size).ok().filter(|n| *n > 0).ok_or(Errno::EINVAL)?;
    let path = path.read_path(&t.mm())?;
    let empty = path.is_empty();
    let place = if empty && dir.0 != at::CWD.0 {
        at::whole(t, dir)?
    } else {
        at::walk(t, dir, &path, LookupFlags::empty())?
    };
    let inode = place.inode()?;
    if inode.file_type() != FileType::Symlink {
        return Err(if empty { Errno::ENOENT } else { Errno::EINVAL }.into());
    }
    let target = t.as_caller(|cx| {
        rw::touch(cx, &place);
        inode.readlink(cx)
    })?;
    let text = match target {
        LinkTarget::Text(text) => text,
        LinkTarget::Jump(to) => kernel::vfs::d_path(&to, &t.fs().root()),
    };
    let text = &text[..text.len().min(size)];
    t.mm().copy_out(buf.addr(), text)?;
    Ok(text.len() as u64)
}

pub fn mknod(t: &mut Current<'_>, path: UserCStr, mode: u32, dev: u32) -> SysResult {
    mknodat(t, at::CWD, path, mode, dev)
}

pub fn mknodat(t: &mut Current<'_>, dir: Fd, path: UserCStr, mode: u32, dev: u32) -> SysResult {
    let kind = match mode & mode::S_IFMT {
        0 => FileType::Regular,
        m => match FileType::from_mode(m) {
            Some(FileType::Directory) => return Err(Errno::EPERM.into()),
            Some(k) if k != FileType::Symlink => k,
            _ => return Err(Errno::EINVAL.into()),
        },
    };
    let parent = at::parent(t, dir, path)?;
    let rdev = if matches!(kind, FileType::CharDevice | FileType::BlockDevice) { u64::from(dev) } else { 0 };
    let mode = kind.mode_bits() | (mode & mode::PERM);
    t.as_caller(|cx| change::make(cx, &parent, &New::Node { mode, rdev }))?;
    Ok(0)
}
