//! fanotify_init(2), fanotify_mark(2).

use super::at;
use crate::Current;
use abi::Errno;
use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use fs::fanotify::{Change, Fanotify, Setup, Target, bits, check_kind, init};
use kernel::SysResult;
use kernel::creds::CapSet;
use kernel::uaccess::UserCStr;
use kernel::vfs::permission::{May, check};
use kernel::vfs::{Fd, LookupFlags};
use std::sync::Arc;

pub fn fanotify_init(t: &mut Current<'_>, flags: u32, event_flags: u32) -> SysResult {
    use init::*;
    const CLASSES: u32 = CLASS_CONTENT | CLASS_PRE_CONTENT;
    const ADMIN: u32 = CLASSES | REPORT_TID | REPORT_PIDFD | UNLIMITED_QUEUE | UNLIMITED_MARKS;
    const KNOWN: u32 = ADMIN | CLOEXEC | NONBLOCK | ANY_FID;
    let by_handle = flags & ANY_FID != 0;
    let root = t.kernel().root_user_ns.clone();
    let privileged = t.creds().has_cap_in(&root, CapSet::SYS_ADMIN);
    if !privileged && (flags & ADMIN != 0 || !by_handle) {
        return Err(Errno::EPERM.into());
    }
    if flags & !KNOWN != 0 || flags & REPORT_PIDFD != 0 && flags & REPORT_TID != 0 {
        return Err(Errno::EINVAL.into());
    }
    let event_flags = OpenFlags::from_bits_retain(event_flags);
    let allowed = OpenFlags::WRONLY
        | OpenFlags::RDWR
        | OpenFlags::APPEND
        | OpenFlags::NONBLOCK
        | OpenFlags::SYNC_BIT
        | OpenFlags::DSYNC
        | OpenFlags::CLOEXEC
        | OpenFlags::LARGEFILE
        | OpenFlags::NOATIME;
    if !allowed.contains(event_flags) || event_flags.bits() & OpenFlags::ACCMODE == 3 {
        return Err(Errno::EINVAL.into());
    }
    if by_handle && flags & CLASSES != 0 {
        return Err(Errno::EINVAL.into());
    }
    if flags & REPORT_NAME != 0 && flags & REPORT_DIR_FID == 0 {
        return Err(Errno::EINVAL.into());
    }
    if flags & REPORT_TARGET_FID != 0 && (flags & REPORT_NAME == 0 || flags & REPORT_FID == 0) {
        return Err(Errno::EINVAL.into());
    }
    if flags & CLASSES == CLASSES {
        return Err(Errno::EINVAL.into());
    }
    if flags & (REPORT_PIDFD | REPORT_TID) != 0 {
        kernel::gap!(t.kernel(), "fanotify_init FAN_REPORT_PIDFD, FAN_REPORT_TID", flags);
        return Err(Errno::EINVAL.into());
    }
    let limit = t.kernel().sysctls.get_int("fs/fanotify/max_queued_events");
    let max_events =
        if flags & UNLIMITED_QUEUE != 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(16384) };
    let ops = Fanotify::new(Setup { flags, event_flags, unprivileged: !privileged, max_events });
    let mut mode = OpenFlags::RDWR;
    mode.set(OpenFlags::NONBLOCK, flags & NONBLOCK != 0);
    let file = fs::anon::other_file(t.kernel(), "[fanotify]", ops, mode, t.creds());
    Ok(t.install_fd(file, flags & CLOEXEC != 0)?)
}

/// Flags of fanotify_mark(2).
mod mark {
    pub const ADD: u32 = 1;
    pub const REMOVE: u32 = 2;
    pub const DONT_FOLLOW: u32 = 4;
    pub const ONLYDIR: u32 = 8;
    pub const MOUNT: u32 = 0x10;
    pub const IGNORED_MASK: u32 = 0x20;
    pub const IGNORED_SURV_MODIFY: u32 = 0x40;
    pub const FLUSH: u32 = 0x80;
    pub const FILESYSTEM: u32 = 0x100;
    pub const EVICTABLE: u32 = 0x200;
    pub const IGNORE: u32 = 0x400;
    pub const KNOWN: u32 = 0x7ff;
}

pub fn fanotify_mark(
    t: &mut Current<'_>,
    fd: Fd,
    flags: u32,
    mask: u64,
    dir: Fd,
    path: UserCStr,
) -> SysResult {
    let bad = || Err(Errno::EINVAL.into());
    let Ok(mut mask) = u32::try_from(mask) else { return bad() };
    let kind = flags & (mark::MOUNT | mark::FILESYSTEM);
    if flags & !mark::KNOWN != 0 || kind == mark::MOUNT | mark::FILESYSTEM {
        return bad();
    }
    let command = flags & (mark::ADD | mark::REMOVE | mark::FLUSH);
    match command {
        mark::ADD | mark::REMOVE if mask == 0 => return bad(),
        mark::ADD | mark::REMOVE => {}
        mark::FLUSH if flags & !(mark::MOUNT | mark::FILESYSTEM | mark::FLUSH) == 0 => {}
        _ => return bad(),
    }
    const SHAPE: u32 = bits::ONDIR | bits::EVENT_ON_CHILD;
    if mask & !(bits::EVENTS | SHAPE) != 0 {
        kernel::gap!(t.kernel(), "fanotify_mark FAN_RENAME, FAN_FS_ERROR, permission events", mask);
        return bad();
    }
    let ignore = flags & (mark::IGNORE | mark::IGNORED_MASK);
    if ignore == mark::IGNORE | mark::IGNORED_MASK {
        return bad();
    }
    if ignore == mark::IGNORED_MASK {
        mask &= !SHAPE;
    }
    let file = at::file(t, fd)?;
    let group: &Fanotify = file.ops_as().ok_or(Errno::EINVAL)?;
    if group.setup.unprivileged && kind != 0 {
        return Err(Errno::EPERM.into());
    }
    if flags & mark::EVICTABLE != 0 && kind != 0 {
        return bad();
    }
    if mask & !(bits::BY_PATH | SHAPE) != 0 && (!group.by_handle() || kind == mark::MOUNT) {
        return bad();
    }
    if command == mark::FLUSH {
        let here = t.fs().root();
        group.flush_marks(&match kind {
            mark::MOUNT => Target::Mount(here.mount),
            mark::FILESYSTEM => Target::FileSystem(here.mount),
            _ => Target::Inode(here),
        });
        return Ok(0);
    }
    let place = if path.0 == 0 {
        let place = at::whole(t, dir)?;
        if flags & mark::ONLYDIR != 0 && place.inode()?.file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        place
    } else {
        let path = path.read_path(&t.mm())?;
        let mut look = LookupFlags::empty();
        look.set(LookupFlags::FOLLOW, flags & mark::DONT_FOLLOW == 0);
        look.set(LookupFlags::DIRECTORY, flags & mark::ONLYDIR != 0);
        at::walk(t, dir, &path, look)?
    };
    t.as_caller(|cx| check(cx, &place, May::READ))?;
    let inode = place.inode()?;
    let is_dir = inode.file_type() == FileType::Directory;
    if command == mark::ADD && kind == 0 {
        let strict = ignore == mark::IGNORE || group.setup.flags & init::REPORT_TARGET_FID != 0;
        check_kind(inode, mask, strict)?;
    }
    if ignore == mark::IGNORE
        && flags & mark::IGNORED_SURV_MODIFY == 0
        && command == mark::ADD
        && (kind != 0 || is_dir)
    {
        return Err(if kind != 0 { Errno::EINVAL } else { Errno::EISDIR }.into());
    }
    if kind != 0 || !is_dir {
        mask &= !bits::EVENT_ON_CHILD;
        if command == mark::ADD && mask == 0 {
            return Ok(0);
        }
    }
    let target = match kind {
        mark::MOUNT => Target::Mount(Arc::clone(&place.mount)),
        mark::FILESYSTEM => Target::FileSystem(Arc::clone(&place.mount)),
        _ => Target::Inode(place),
    };
    let survives = flags & mark::IGNORED_SURV_MODIFY != 0;
    let change = Change { mask, ignored: ignore != 0, survives };
    if command == mark::ADD {
        group.add(target, change)?;
    } else {
        group.remove(&target, change)?;
    }
    Ok(0)
}
