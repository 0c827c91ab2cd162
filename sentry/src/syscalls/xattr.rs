//! Extended attributes: setxattr(2), getxattr(2), listxattr(2), removexattr(2) and their forms.

use super::at;
use crate::Current;
use abi::fcntl::AtFlags;
use abi::{Errno, Result};
use kernel::SysResult;
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::vfs::{Fd, Path, XattrFlags, xattr};

fn name_of(t: &Current<'_>, name: UserCStr) -> Result<Vec<u8>> {
    let name = name.read(&t.mm(), xattr::NAME_MAX + 1, Errno::ERANGE)?;
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

fn place(t: &Current<'_>, path: UserCStr, follow: bool) -> Result<Path> {
    let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    at::place(t, at::CWD, path, flags)
}

fn set(
    t: &Current<'_>,
    place: Result<Path>,
    name: UserCStr,
    value: UserPtr<u8>,
    size: usize,
    flags: u32,
) -> SysResult {
    let flags = XattrFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let name = name_of(t, name)?;
    if size > xattr::SIZE_MAX {
        return Err(Errno::E2BIG.into());
    }
    let value = value.read_array(&t.mm(), size)?;
    let place = place?;
    t.as_caller(|cx| xattr::set(cx, &place, &name, &value, flags))?;
    Ok(0)
}

/// Gives a value out by the rules of getxattr(2) and listxattr(2): size 0 asks for the length.
fn give(t: &Current<'_>, value: &[u8], out: UserPtr<u8>, size: usize) -> SysResult {
    if size > 0 {
        if value.len() > size {
            return Err(Errno::ERANGE.into());
        }
        t.mm().copy_out(out.addr(), value)?;
    }
    Ok(value.len() as u64)
}

fn get(t: &Current<'_>, place: Result<Path>, name: UserCStr, out: UserPtr<u8>, size: usize) -> SysResult {
    let name = name_of(t, name)?;
    let place = place?;
    let value = t.as_caller(|cx| xattr::get(cx, &place, &name))?;
    give(t, &value, out, size)
}

fn list(t: &Current<'_>, place: Result<Path>, out: UserPtr<u8>, size: usize) -> SysResult {
    let place = place?;
    let names = t.as_caller(|cx| xattr::list(cx, &place))?;
    let mut all = Vec::new();
    for n in names {
        all.extend_from_slice(&n);
        all.push(0);
    }
    give(t, &all, out, size)
}

fn remove(t: &Current<'_>, place: Result<Path>, name: UserCStr) -> SysResult {
    let name = name_of(t, name)?;
    let place = place?;
    t.as_caller(|cx| xattr::remove(cx, &place, &name))?;
    Ok(0)
}

fn open(t: &Current<'_>, fd: Fd) -> Result<Path> {
    Ok(at::file(t, fd)?.path().clone())
}

pub fn setxattr(
    t: &mut Current<'_>,
    path: UserCStr,
    name: UserCStr,
    value: UserPtr<u8>,
    size: usize,
    flags: u32,
) -> SysResult {
    set(t, place(t, path, true), name, value, size, flags)
}
pub fn lsetxattr(
    t: &mut Current<'_>,
    path: UserCStr,
    name: UserCStr,
    value: UserPtr<u8>,
    size: usize,
    flags: u32,
) -> SysResult {
    set(t, place(t, path, false), name, value, size, flags)
}
pub fn fsetxattr(
    t: &mut Current<'_>,
    fd: Fd,
    name: UserCStr,
    value: UserPtr<u8>,
    size: usize,
    flags: u32,
) -> SysResult {
    set(t, Ok(open(t, fd)?), name, value, size, flags)
}
pub fn getxattr(
    t: &mut Current<'_>,
    path: UserCStr,
    name: UserCStr,
    out: UserPtr<u8>,
    size: usize,
) -> SysResult {
    get(t, place(t, path, true), name, out, size)
}
pub fn lgetxattr(
    t: &mut Current<'_>,
    path: UserCStr,
    name: UserCStr,
    out: UserPtr<u8>,
    size: usize,
) -> SysResult {
    get(t, place(t, path, false), name, out, size)
}
pub fn fgetxattr(t: &mut Current<'_>, fd: Fd, name: UserCStr, out: UserPtr<u8>, size: usize) -> SysResult {
    get(t, Ok(open(t, fd)?), name, out, size)
}
pub fn listxattr(t: &mut Current<'_>, path: UserCStr, out: UserPtr<u8>, size: usize) -> SysResult {
    list(t, place(t, path, true), out, size)
}
pub fn llistxattr(t: &mut Current<'_>, path: UserCStr, out: UserPtr<u8>, size: usize) -> SysResult {
    list(t, place(t, path, false), out, size)
}
pub fn flistxattr(t: &mut Current<'_>, fd: Fd, out: UserPtr<u8>, size: usize) -> SysResult {
    list(t, open(t, fd), out, size)
}
pub fn removexattr(t: &mut Current<'_>, path: UserCStr, name: UserCStr) -> SysResult {
    remove(t, place(t, path, true), name)
}
pub fn lremovexattr(t: &mut Current<'_>, path: UserCStr, name: UserCStr) -> SysResult {
    remove(t, place(t, path, false), name)
}
pub fn fremovexattr(t: &mut Current<'_>, fd: Fd, name: UserCStr) -> SysResult {
    remove(t, Ok(open(t, fd)?), name)
}
