//! Path arguments: directory descriptors, `AT_*` flags, and the walk they ask for. Not a family of calls.

use crate::Current;
use abi::fcntl::{AT_FDCWD, AtFlags};
use abi::{Errno, Result};
use kernel::creds::UserNamespace;
use kernel::uaccess::UserCStr;
use kernel::vfs::{Fd, File, LookupFlags, Parent, Path, Start, resolve, resolve_parent};
use std::sync::Arc;

/// An open file that calls may work with: EBADF for `O_PATH` descriptors, too.
pub(super) fn file(t: &Current<'_>, fd: Fd) -> Result<Arc<File>> {
    let file = t.files().get(fd)?;
    if file.flags().contains(abi::fcntl::OpenFlags::PATH) { Err(Errno::EBADF) } else { Ok(file) }
}

/// Where a walk of `path` begins.
pub(super) fn start(t: &Current<'_>, dir: Fd, path: &[u8]) -> Result<Start> {
    let (root, cwd) = t.fs().root_and_cwd();
    if dir.0 == AT_FDCWD || path.first() == Some(&b'/') {
        return Ok(Start { root, base: cwd });
    }
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    let base = t.files().get(dir)?.path().clone();
    Ok(Start { root, base })
}

/// Walks a path that was copied in already.
pub(super) fn walk(t: &Current<'_>, dir: Fd, path: &[u8], flags: LookupFlags) -> Result<Path> {
    let start = start(t, dir, path)?;
    t.as_caller(|cx| resolve(cx, start, path, flags))
}

/// Walks a path argument; with `AT_EMPTY_PATH` an empty one means what `dir` is.
pub(super) fn place(t: &Current<'_>, dir: Fd, path: UserCStr, at: AtFlags) -> Result<Path> {
    let path = match (path.0, at.contains(AtFlags::EMPTY_PATH)) {
        (0, true) => Vec::new(),
        _ => path.read_path(&t.mm())?,
    };
    if path.is_empty() && at.contains(AtFlags::EMPTY_PATH) {
        return whole(t, dir);
    }
    let follow = !at.contains(AtFlags::SYMLINK_NOFOLLOW);
    walk(t, dir, &path, if follow { LookupFlags::FOLLOW } else { LookupFlags::empty() })
}

/// The place that a descriptor itself is.
pub(super) fn whole(t: &Current<'_>, dir: Fd) -> Result<Path> {
    if dir.0 == AT_FDCWD { Ok(t.fs().cwd()) } else { Ok(t.files().get(dir)?.path().clone()) }
}

/// The directory and last component of a path argument.
pub(super) fn parent(t: &Current<'_>, dir: Fd, path: UserCStr) -> Result<Parent> {
    let path = path.read_path(&t.mm())?;
    let start = start(t, dir, &path)?;
    t.as_caller(|cx| resolve_parent(cx, start, &path, LookupFlags::empty()))
}

/// `AT_*` flags of which only some are known; EINVAL.
pub(super) fn flags(raw: u32, known: AtFlags) -> Result<AtFlags> {
    let flags = AtFlags::from_bits_retain(raw);
    if known.contains(flags) { Ok(flags) } else { Err(Errno::EINVAL) }
}

/// `AT_FDCWD` as a descriptor.
pub(super) const CWD: Fd = Fd(AT_FDCWD);

/// How a user of the sandbox looks to somebody.
pub(super) fn show_uid(ns: &UserNamespace, kuid: u32) -> u32 {
    if ns.parent.is_none() { kuid } else { ns.uid_in(kuid) }
}

/// How a group of the sandbox looks to somebody.
pub(super) fn show_gid(ns: &UserNamespace, kgid: u32) -> u32 {
    if ns.parent.is_none() { kgid } else { ns.gid_in(kgid) }
}
