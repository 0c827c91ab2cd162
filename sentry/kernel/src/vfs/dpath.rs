//! From a place to its path name (`d_path`, `getcwd`).

use super::mount_tree::mount_point;
use super::{Dentry, Path};
use std::sync::Arc;

/// How a path name came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// It begins at the root that was asked for.
    Root,
    /// It begins at the root of the namespace, outside of the root that was asked for.
    Outside,
    /// It begins at a mount that is in no namespace any more.
    Detached,
}

fn components(path: &Path, root: &Path) -> (Vec<Box<[u8]>>, Reach) {
    let mut parts = Vec::new();
    let mut at = path.clone();
    loop {
        if at.same(root) {
            return (parts, Reach::Root);
        }
        if at.is_mount_root() {
            match mount_point(&at.mount) {
                Some(up) => at = up,
                None => {
                    let known =
                        at.mount.tree().is_some_and(|t| t.topology().read().node(&at.mount).is_some());
                    return (parts, if known { Reach::Outside } else { Reach::Detached });
                }
            }
            continue;
        }
        match at.dentry.parent_and_name() {
            (Some(parent), name) => {
                parts.push(name);
                at.dentry = parent;
            }
            (None, _) => return (parts, Reach::Detached),
        }
    }
}

fn join(parts: &[Box<[u8]>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|p| p.len() + 1).sum::<usize>().max(1));
    for p in parts.iter().rev() {
        out.push(b'/');
        out.extend_from_slice(p);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// The path of a place as /proc/pid/fd, maps and exe show it, seen from `root`: with " (deleted)" when the
/// name is gone, and as its own text for nameless files.
pub fn d_path(path: &Path, root: &Path) -> Vec<u8> {
    if path.dentry.is_nameless() {
        return path.dentry.name().into_vec();
    }
    let (parts, _) = components(path, root);
    let mut out = join(&parts);
    if path.dentry.is_unlinked() {
        out.extend_from_slice(b" (deleted)");
    }
    out
}

/// What getcwd(2) tells: ENOENT when the directory was removed, "(unreachable)" in front when it is
/// not below the root.
pub fn cwd_path(path: &Path, root: &Path) -> abi::Result<Vec<u8>> {
    if path.dentry.is_unlinked() {
        return Err(abi::Errno::ENOENT);
    }
    let (parts, reach) = components(path, root);
    let mut out = join(&parts);
    if reach != Reach::Root {
        out.splice(0..0, *b"(unreachable)");
    }
    Ok(out)
}

/// The path of a place if it is below `root`.
pub fn path_below(path: &Path, root: &Path) -> Option<Vec<u8>> {
    let (parts, reach) = components(path, root);
    (reach == Reach::Root).then(|| join(&parts))
}

/// The path of a dentry inside its file system.
pub fn dentry_path(dentry: &Arc<Dentry>) -> Vec<u8> {
    let mut parts = Vec::new();
    let mut at = Arc::clone(dentry);
    while let (Some(parent), name) = at.parent_and_name() {
        parts.push(name);
        at = parent;
    }
    let mut out = join(&parts);
    if dentry.is_unlinked() {
        out.extend_from_slice(b"//deleted");
    }
    out
}
