//! mount(2), umount2(2), pivot_root(2), and the calls of the new mount interface that are answered.

use super::at;
use crate::Current;
use abi::fcntl::AtFlags;
use abi::{Errno, Result};
use kernel::SysResult;
use kernel::creds::CapSet;
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::vfs::{
    Fd, LookupFlags, MountFlags, MountNamespace, Propagation, SuperBlock, UmountFlags, mount_flags,
};
use std::sync::Arc;

mod ms {
    pub const RDONLY: u64 = 1;
    pub const REMOUNT: u64 = 32;
    pub const BIND: u64 = 4096;
    pub const MOVE: u64 = 8192;
    pub const REC: u64 = 16384;
    pub const SILENT: u64 = 32768;
    pub const UNBINDABLE: u64 = 1 << 17;
    pub const PRIVATE: u64 = 1 << 18;
    pub const SLAVE: u64 = 1 << 19;
    pub const SHARED: u64 = 1 << 20;
    pub const ATIME: u64 = 1024 | 2048 | 1 << 21 | 1 << 24;
}

/// The caller's mount namespace, if it may change mounts there.
pub(super) fn namespace(t: &Current<'_>) -> Result<Arc<MountNamespace>> {
    let ns = Arc::clone(&t.namespaces().mnt);
    if t.creds().has_cap_in(&ns.owner, CapSet::SYS_ADMIN) { Ok(ns) } else { Err(Errno::EPERM) }
}

/// A string argument that may be null, at most a page long.
fn text(t: &Current<'_>, p: UserCStr) -> Result<Vec<u8>> {
    if p.0 == 0 { Ok(Vec::new()) } else { p.read(&t.mm(), 4096, Errno::EINVAL) }
}

/// The options argument: a page of bytes up to its NUL.
fn options(t: &Current<'_>, p: UserPtr<u8>) -> Result<Vec<u8>> {
    if p.is_null() {
        return Ok(Vec::new());
    }
    let mut data = vec![0; 4095];
    let n = t.mm().copy_in_partial(p.addr(), &mut data);
    if n == 0 {
        return Err(Errno::EFAULT);
    }
    data.truncate(n);
    let end = data.iter().position(|b| *b == 0).unwrap_or(n);
    data.truncate(end);
    Ok(data)
}

fn propagation(flags: u64) -> Result<Option<(Propagation, bool)>> {
    let kind = flags & (ms::UNBINDABLE | ms::PRIVATE | ms::SLAVE | ms::SHARED);
    if kind == 0 {
        return Ok(None);
    }
    if flags & !(kind | ms::REC | ms::SILENT) != 0 {
        return Err(Errno::EINVAL);
    }
    let how = match kind {
        ms::UNBINDABLE => Propagation::Unbindable,
        ms::PRIVATE => Propagation::Private,
        ms::SLAVE => Propagation::Slave,
        ms::SHARED => Propagation::Shared,
        _ => return Err(Errno::EINVAL),
    };
    Ok(Some((how, flags & ms::REC != 0)))
}

pub fn mount(
    t: &mut Current<'_>,
    source: UserCStr,
    target: UserCStr,
    kind: UserCStr,
    flags: u64,
    data: UserPtr<u8>,
) -> SysResult {
    let (kind, source) = (text(t, kind)?, text(t, source)?);
    let data = options(t, data)?;
    let at = at::place(t, at::CWD, target, AtFlags::empty())?;
    let ns = namespace(t)?;
    let flags = if flags & 0xffff_0000 == 0xc0ed_0000 { flags & 0xffff } else { flags };
    let mut own = mount_flags(flags);
    if flags & ms::REMOUNT != 0 {
        if flags & ms::ATIME == 0 {
            let kept =
                MountFlags::NOATIME | MountFlags::NODIRATIME | MountFlags::RELATIME | MountFlags::STRICTATIME;
            own = (own - kept) | (at.mount.flags() & kept);
        }
        if flags & ms::BIND != 0 {
            ns.set_mount_flags(&at, own)?;
        } else {
            ns.remount(&at, flags & ms::RDONLY != 0, own, &data)?;
        }
        return Ok(0);
    }
    if flags & ms::BIND != 0 {
        let from = source_place(t, &source)?;
        ns.bind(&from, &at, flags & ms::REC != 0)?;
        return Ok(0);
    }
    if let Some((how, rec)) = propagation(flags)? {
        ns.set_propagation(&at, how, rec)?;
        return Ok(0);
    }
    if flags & ms::MOVE != 0 {
        let from = source_place(t, &source)?;
        ns.move_mount(&from, &at)?;
        return Ok(0);
    }
    if kind.is_empty() {
        return Err(Errno::EINVAL.into());
    }
    let fs_type = t.kernel().vfs.fs_type(&kind)?;
    let creds = t.creds();
    if creds.user_ns.parent.is_some() && !fs_type.in_user_ns() {
        return Err(Errno::EPERM.into());
    }
    let fs = t.as_caller(|cx| fs_type.make(cx, &source, &data))?;
    let shown: &[u8] = if source.is_empty() { b"none" } else { &source };
    ns.mount(SuperBlock::new(fs, flags & ms::RDONLY != 0), &at, own, shown)?;
    Ok(0)
}

fn source_place(t: &Current<'_>, source: &[u8]) -> Result<kernel::vfs::Path> {
    if source.is_empty() {
        return Err(Errno::EINVAL);
    }
    at::walk(t, at::CWD, source, LookupFlags::FOLLOW)
}

pub fn umount2(t: &mut Current<'_>, target: UserCStr, flags: u32) -> SysResult {
    let flags = UmountFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let nofollow =
        if flags.contains(UmountFlags::NOFOLLOW) { AtFlags::SYMLINK_NOFOLLOW } else { AtFlags::empty() };
    let ns = Arc::clone(&t.namespaces().mnt);
    let at = at::place(t, at::CWD, target, nofollow)?;
    if !t.creds().has_cap_in(&ns.owner, CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    if flags.contains(UmountFlags::EXPIRE) && flags.intersects(UmountFlags::FORCE | UmountFlags::DETACH) {
        return Err(Errno::EINVAL.into());
    }
    ns.umount(&at, flags)?;
    Ok(0)
}

pub fn pivot_root(t: &mut Current<'_>, new_root: UserCStr, put_old: UserCStr) -> SysResult {
    let ns = namespace(t)?;
    let new = at::place(t, at::CWD, new_root, AtFlags::empty())?;
    let old_place = at::place(t, at::CWD, put_old, AtFlags::empty())?;
    for p in [&new, &old_place] {
        if p.inode()?.file_type() != abi::stat::FileType::Directory {
            return Err(Errno::ENOTDIR.into());
        }
    }
    let root = t.fs().root();
    ns.pivot_root(&root, &new, &old_place)?;
    // Whoever stood at the old root stands at the new one.
    for task in t.kernel().root_pid_ns.tasks() {
        if let Some(fs) = task.try_fs() {
            fs.replace(&root, &new);
        }
    }
    Ok(0)
}

/// `MOUNT_ATTR_*` bits as flags of a mount.
pub(super) fn attr_flags(bits: u64) -> Result<MountFlags> {
    let mut out = MountFlags::empty();
    for (bit, f) in [
        (1, MountFlags::RDONLY),
        (2, MountFlags::NOSUID),
        (4, MountFlags::NODEV),
        (8, MountFlags::NOEXEC),
        (0x10, MountFlags::NOATIME),
        (0x20, MountFlags::STRICTATIME),
        (0x80, MountFlags::NODIRATIME),
        (0x20_0000, MountFlags::NOSYMFOLLOW),
    ] {
        if bits & bit != 0 {
            out |= f;
        }
    }
    if bits & !0x20_00bf != 0 { Err(Errno::EINVAL) } else { Ok(out) }
}

/// `struct mount_attr`, of which the kernel knows the first 32 bytes.
pub fn mount_setattr(
    t: &mut Current<'_>,
    dir: Fd,
    path: UserCStr,
    flags: u32,
    attr: UserPtr<[u64; 4]>,
    size: usize,
) -> SysResult {
    let flags = at::flags(
        flags,
        AtFlags::EMPTY_PATH | AtFlags::RECURSIVE | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
    )?;
    if size < 32 {
        return Err(Errno::EINVAL.into());
    }
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    let ns = namespace(t)?;
    let [set, clear_raw, prop, _userns] = attr.read(&t.mm())?;
    let (mut set, mut clear) = (attr_flags(set)?, attr_flags(clear_raw & !0x70)?);
    // The times are one field: clearing it all and setting one value is how it changes.
    let times = MountFlags::NOATIME | MountFlags::STRICTATIME | MountFlags::RELATIME;
    if set.intersects(times) || clear_raw & 0x70 != 0 {
        clear |= times;
        if !set.intersects(times) {
            set |= MountFlags::RELATIME;
        }
    }
    let place = at::place(t, dir, path, flags)?;
    let rec = flags.contains(AtFlags::RECURSIVE);
    ns.change_mount_flags(&place, set, clear, rec)?;
    if let Some((how, _)) = propagation(prop)? {
        ns.set_propagation(&place, how, rec)?;
    }
    Ok(0)
}
