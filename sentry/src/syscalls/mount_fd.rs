//! The mount interface by descriptors: fsopen(2), fsconfig(2), fsmount(2), fspick(2), open_tree(2), move_mount(2).

use super::at;
use super::mount::{attr_flags, namespace};
use crate::Current;
use abi::Errno;
use abi::fcntl::{AtFlags, OpenFlags};
use fs::mountfd::{FsContext, detached_file};
use kernel::SysResult;
use kernel::uaccess::UserCStr;
use kernel::vfs::Fd;
use std::sync::Arc;

fn install(t: &Current<'_>, ops: Arc<FsContext>, cloexec: bool) -> SysResult {
    let file = fs::anon::other_file(t.kernel(), "[fscontext]", ops, OpenFlags::RDWR, t.creds());
    Ok(t.install_fd(file, cloexec)?)
}

pub fn fsopen(t: &mut Current<'_>, name: UserCStr, flags: u32) -> SysResult {
    namespace(t)?;
    if flags & !1 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let name = name.read(&t.mm(), 4096, Errno::EINVAL)?;
    let kind = t.kernel().vfs.fs_type(&name)?;
    if t.creds().user_ns.parent.is_some() && !kind.in_user_ns() {
        return Err(Errno::EPERM.into());
    }
    install(t, FsContext::new(kind), flags & 1 != 0)
}

pub fn fspick(t: &mut Current<'_>, dir: Fd, path: UserCStr, flags: u32) -> SysResult {
    namespace(t)?;
    if flags & !0xf != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut at_flags = AtFlags::empty();
    at_flags.set(AtFlags::SYMLINK_NOFOLLOW, flags & 2 != 0);
    at_flags.set(AtFlags::EMPTY_PATH, flags & 8 != 0);
    let place = at::place(t, dir, path, at_flags)?;
    if !place.is_mount_root() {
        return Err(Errno::EINVAL.into());
    }
    install(t, FsContext::pick(place), flags & 1 != 0)
}

pub fn fsconfig(
    t: &mut Current<'_>,
    fd: Fd,
    cmd: u32,
    key: UserCStr,
    value: UserCStr,
    aux: i32,
) -> SysResult {
    let file = at::file(t, fd)?;
    let mm = t.mm();
    let read = |p: UserCStr| p.read(&mm, 256, Errno::EINVAL);
    let check = |ok: bool| if ok { Ok(()) } else { Err(Errno::EINVAL) };
    match cmd {
        0 => check(key.0 != 0 && value.0 == 0 && aux == 0)?,
        1 => check(key.0 != 0 && value.0 != 0 && aux == 0)?,
        6..=8 => check(key.0 == 0 && value.0 == 0 && aux == 0)?,
        2..=5 => {
            kernel::gap!(t.kernel(), "fsconfig with a binary, path or descriptor value", cmd);
            return Err(Errno::EOPNOTSUPP.into());
        }
        _ => return Err(Errno::EOPNOTSUPP.into()),
    }
    let context: &FsContext = file.ops_as().ok_or(Errno::EINVAL)?;
    match cmd {
        0 => context.set(&read(key)?, None)?,
        1 => context.set(&read(key)?, Some(&read(value)?))?,
        7 => context.reconfigure(&*namespace(t)?)?,
        _ => t.as_caller(|cx| context.create(cx))?,
    }
    Ok(0)
}

pub fn fsmount(t: &mut Current<'_>, fd: Fd, flags: u32, attrs: u32) -> SysResult {
    let ns = namespace(t)?;
    if flags & !1 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let attrs = attr_flags(u64::from(attrs))?;
    let file = at::file(t, fd)?;
    let context: &FsContext = file.ops_as().ok_or(Errno::EINVAL)?;
    let mount = context.mount(&ns, attrs)?;
    Ok(t.install_fd(detached_file(&ns, mount, t.creds()), flags & 1 != 0)?)
}

pub fn open_tree(t: &mut Current<'_>, dir: Fd, path: UserCStr, flags: u32) -> SysResult {
    const CLONE: u32 = 1;
    let cloexec = flags & OpenFlags::CLOEXEC.bits() != 0;
    let known = AtFlags::EMPTY_PATH | AtFlags::RECURSIVE | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let at_flags = at::flags(flags & !(CLONE | OpenFlags::CLOEXEC.bits()), known)?;
    let rec = at_flags.contains(AtFlags::RECURSIVE);
    if flags & CLONE == 0 {
        if rec {
            return Err(Errno::EINVAL.into());
        }
        let place = at::place(t, dir, path, at_flags)?;
        let file = t.as_caller(|cx| kernel::vfs::open_path(cx, &place, OpenFlags::PATH))?;
        return Ok(t.install_fd(file, cloexec)?);
    }
    let ns = namespace(t)?;
    let place = at::place(t, dir, path, at_flags)?;
    let mount = ns.clone_detached(&place, rec)?;
    Ok(t.install_fd(detached_file(&ns, mount, t.creds()), cloexec)?)
}

pub fn move_mount(
    t: &mut Current<'_>,
    from_dir: Fd,
    from: UserCStr,
    to_dir: Fd,
    to: UserCStr,
    flags: u32,
) -> SysResult {
    let ns = namespace(t)?;
    if flags & !0x377 != 0 {
        return Err(Errno::EINVAL.into());
    }
    if flags & 0x300 != 0 {
        kernel::gap!(t.kernel(), "move_mount flags", flags);
        return Err(Errno::EINVAL.into());
    }
    let at_flags = |symlinks: u32, empty: u32| {
        let mut f = AtFlags::empty();
        f.set(AtFlags::SYMLINK_NOFOLLOW, flags & symlinks == 0);
        f.set(AtFlags::EMPTY_PATH, flags & empty != 0);
        f
    };
    let source = at::place(t, from_dir, from, at_flags(1, 4))?;
    let target = at::place(t, to_dir, to, at_flags(0x10, 0x40))?;
    ns.move_mount(&source, &target)?;
    Ok(0)
}
