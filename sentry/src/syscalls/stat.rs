//! stat(2), statx(2), access(2), statfs(2).

use super::at;
use crate::Current;
use abi::fcntl::AtFlags;
use abi::stat::{FileType, Stat, StatFs, Statx, StatxTimestamp, major, minor};
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::SysResult;
use kernel::creds::{CapSet, Creds};
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::vfs::permission::{May, check};
use kernel::vfs::{Attr, Caller, Fd, MountFlags, Path};
use std::sync::Arc;

fn stat_of(t: &Current<'_>, a: &Attr) -> Stat {
    let ns = Arc::clone(&t.creds().user_ns);
    Stat {
        st_dev: a.dev,
        st_ino: a.ino,
        st_nlink: u64::from(a.nlink),
        st_mode: a.mode,
        st_uid: at::show_uid(&ns, a.uid),
        st_gid: at::show_gid(&ns, a.gid),
        st_rdev: a.rdev,
        st_size: a.size.cast_signed(),
        st_blksize: i64::from(a.blksize),
        st_blocks: a.blocks.cast_signed(),
        st_atime: a.atime.tv_sec,
        st_atime_nsec: a.atime.tv_nsec,
        st_mtime: a.mtime.tv_sec,
        st_mtime_nsec: a.mtime.tv_nsec,
        st_ctime: a.ctime.tv_sec,
        st_ctime_nsec: a.ctime.tv_nsec,
        ..Stat::default()
    }
}

fn put_stat(t: &Current<'_>, attr: &Attr, out: UserPtr<Stat>) -> SysResult {
    out.write(&t.mm(), &stat_of(t, attr))?;
    Ok(0)
}

pub fn stat(t: &mut Current<'_>, path: UserCStr, out: UserPtr<Stat>) -> SysResult {
    newfstatat(t, at::CWD, path, out, 0)
}

pub fn lstat(t: &mut Current<'_>, path: UserCStr, out: UserPtr<Stat>) -> SysResult {
    newfstatat(t, at::CWD, path, out, AtFlags::SYMLINK_NOFOLLOW.bits())
}

pub fn fstat(t: &mut Current<'_>, fd: Fd, out: UserPtr<Stat>) -> SysResult {
    let file = t.files().get(fd)?;
    let attr = file.ops().attr(&file)?;
    put_stat(t, &attr, out)
}

const STAT_FLAGS: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT).union(AtFlags::EMPTY_PATH);

/// Attributes of a path argument, or of a descriptor's file with an empty path.
fn attr_at(t: &Current<'_>, dir: Fd, path: UserCStr, flags: AtFlags) -> Result<(Attr, Path)> {
    if flags.contains(AtFlags::EMPTY_PATH) && dir.0 >= 0 {
        let empty = path.0 == 0 || path.read_path(&t.mm())?.is_empty();
        if empty {
            let file = t.files().get(dir)?;
            return Ok((file.ops().attr(&file)?, file.path().clone()));
        }
    }
    let place = at::place(t, dir, path, flags)?;
    Ok((place.inode()?.attr()?, place))
}

pub fn newfstatat(t: &mut Current<'_>, dir: Fd, path: UserCStr, out: UserPtr<Stat>, flags: u32) -> SysResult {
    let flags = at::flags(flags, STAT_FLAGS)?;
    let (attr, _) = attr_at(t, dir, path, flags)?;
    put_stat(t, &attr, out)
}

fn stamp(t: Timespec) -> StatxTimestamp {
    StatxTimestamp { tv_sec: t.tv_sec, tv_nsec: u32::try_from(t.tv_nsec).unwrap_or(0), reserved: 0 }
}

pub fn statx(
    t: &mut Current<'_>,
    dir: Fd,
    path: UserCStr,
    flags: u32,
    mask: u32,
    out: UserPtr<Statx>,
) -> SysResult {
    const BASIC: u32 = 0x7ff;
    const BTIME: u32 = 0x800;
    const MNT_ID: u32 = 0x1000;
    const MNT_ID_UNIQUE: u32 = 0x4000;
    const ATTR_MOUNT_ROOT: u64 = 0x2000;
    let sync = AtFlags::STATX_FORCE_SYNC | AtFlags::STATX_DONT_SYNC;
    let flags = at::flags(flags, STAT_FLAGS | sync)?;
    if mask & 0x8000_0000 != 0 || flags.contains(sync) {
        return Err(Errno::EINVAL.into());
    }
    let (a, place) = attr_at(t, dir, path, flags)?;
    let ns = Arc::clone(&t.creds().user_ns);
    let mut x = Statx {
        stx_mask: BASIC | if mask & MNT_ID_UNIQUE != 0 { MNT_ID_UNIQUE } else { MNT_ID },
        stx_blksize: a.blksize,
        stx_attributes_mask: ATTR_MOUNT_ROOT,
        stx_attributes: if place.is_mount_root() { ATTR_MOUNT_ROOT } else { 0 },
        stx_nlink: a.nlink,
        stx_uid: at::show_uid(&ns, a.uid),
        stx_gid: at::show_gid(&ns, a.gid),
        stx_mode: u16::try_from(a.mode & 0xffff).unwrap_or(0),
        stx_ino: a.ino,
        stx_size: a.size,
        stx_blocks: a.blocks,
        stx_atime: stamp(a.atime),
        stx_mtime: stamp(a.mtime),
        stx_ctime: stamp(a.ctime),
        stx_rdev_major: major(a.rdev),
        stx_rdev_minor: minor(a.rdev),
        stx_dev_major: major(a.dev),
        stx_dev_minor: minor(a.dev),
        stx_mnt_id: place.mount.id + if mask & MNT_ID_UNIQUE != 0 { super::mount_query::UNIQUE } else { 0 },
        ..Statx::default()
    };
    if let Some(b) = a.btime {
        x.stx_mask |= BTIME;
        x.stx_btime = stamp(b);
    }
    out.write(&t.mm(), &x)?;
    Ok(0)
}

/// Credentials with the real ids in place of the effective ones (access(2)).
fn real_creds(creds: &Arc<Creds>) -> Arc<Creds> {
    const NO_SETUID_FIXUP: u32 = 1 << 2;
    let mut c = (**creds).clone();
    c.fsuid = c.uid;
    c.fsgid = c.gid;
    if c.securebits & NO_SETUID_FIXUP == 0 {
        c.effective = if c.uid == 0 { c.permitted } else { CapSet::empty() };
    }
    Arc::new(c)
}

pub fn access(t: &mut Current<'_>, path: UserCStr, mode: u32) -> SysResult {
    faccessat2(t, at::CWD, path, mode, 0)
}

pub fn faccessat(t: &mut Current<'_>, dir: Fd, path: UserCStr, mode: u32) -> SysResult {
    faccessat2(t, dir, path, mode, 0)
}

pub fn faccessat2(t: &mut Current<'_>, dir: Fd, path: UserCStr, mode: u32, flags: u32) -> SysResult {
    let eaccess = AtFlags::REMOVEDIR;
    let flags = at::flags(flags, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | eaccess)?;
    if mode & !7 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let creds = if flags.contains(eaccess) { t.creds() } else { real_creds(&t.creds()) };
    let cx = Caller { creds: &creds, task: Some(t.task) };
    let path = if path.0 == 0 && flags.contains(AtFlags::EMPTY_PATH) {
        Vec::new()
    } else {
        path.read_path(&t.mm())?
    };
    let place = if path.is_empty() && flags.contains(AtFlags::EMPTY_PATH) {
        at::whole(t, dir)?
    } else {
        let look = if flags.contains(AtFlags::SYMLINK_NOFOLLOW) {
            kernel::vfs::LookupFlags::empty()
        } else {
            kernel::vfs::LookupFlags::FOLLOW
        };
        kernel::vfs::resolve(&cx, at::start(t, dir, &path)?, &path, look)?
    };
    let may = May::from_bits_truncate(u16::try_from(mode).unwrap_or(0));
    check(&cx, &place, may)?;
    let kind = place.inode()?.file_type();
    let special =
        matches!(kind, FileType::CharDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket);
    if may.contains(May::WRITE) && !special && place.mount.readonly() {
        return Err(Errno::EROFS.into());
    }
    Ok(0)
}

fn statfs_of(path: &Path) -> Result<StatFs> {
    let mut s = path.mount.fs.statfs()?;
    let flags = path.mount.flags();
    let mut shown: i64 = 0x20;
    for (flag, bit) in [
        (MountFlags::NOSUID, 2),
        (MountFlags::NODEV, 4),
        (MountFlags::NOEXEC, 8),
        (MountFlags::NOATIME, 1024),
        (MountFlags::NODIRATIME, 2048),
        (MountFlags::RELATIME, 4096),
        (MountFlags::NOSYMFOLLOW, 8192),
    ] {
        if flags.contains(flag) {
            shown |= bit;
        }
    }
    if path.mount.readonly() {
        shown |= 1;
    }
    s.f_flags = shown;
    Ok(s)
}

pub fn statfs(t: &mut Current<'_>, path: UserCStr, out: UserPtr<StatFs>) -> SysResult {
    let place = at::place(t, at::CWD, path, AtFlags::empty())?;
    out.write(&t.mm(), &statfs_of(&place)?)?;
    Ok(0)
}

pub fn fstatfs(t: &mut Current<'_>, fd: Fd, out: UserPtr<StatFs>) -> SysResult {
    let file = t.files().get(fd)?;
    out.write(&t.mm(), &statfs_of(file.path())?)?;
    Ok(0)
}

/// ustat(2): only what its man page says has a meaning today.
pub fn ustat(t: &mut Current<'_>, dev: u32, out: UserPtr<[u64; 4]>) -> SysResult {
    let ns = t.namespaces();
    let mounts = ns.mnt.mount_info(&ns.mnt.root());
    let found = mounts.iter().find(|m| m.mount.fs.dev() == u64::from(dev)).ok_or(Errno::EINVAL)?;
    let s = found.mount.fs.statfs()?;
    out.write(&t.mm(), &[s.f_bfree, s.f_ffree, 0, 0])?;
    Ok(0)
}

/// sysfs(2): names and numbers of the types of file systems.
pub fn sysfs(t: &mut Current<'_>, option: i32, arg: u64, out: UserPtr<u8>) -> SysResult {
    let types = t.kernel().vfs.fs_types();
    match option {
        1 => {
            let name = UserCStr(arg).read(&t.mm(), 4096, Errno::EINVAL)?;
            let at = types.iter().position(|f| f.name().as_bytes() == name).ok_or(Errno::EINVAL)?;
            Ok(at as u64)
        }
        2 => {
            let at = usize::try_from(arg & 0xffff_ffff).map_err(|_| Errno::EINVAL)?;
            let mut name = types.get(at).ok_or(Errno::EINVAL)?.name().as_bytes().to_vec();
            name.push(0);
            t.mm().copy_out(out.addr(), &name)?;
            Ok(0)
        }
        3 => Ok(types.len() as u64),
        _ => Err(Errno::EINVAL.into()),
    }
}
