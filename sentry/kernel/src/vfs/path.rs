//! A place in the tree: a dentry as seen through a mount.

use super::{Dentry, Inode, Mount};
use abi::{Errno, Result};
use std::sync::Arc;

/// A mount and a dentry on it (`struct path`).
#[derive(Clone, Debug)]
pub struct Path {
    pub mount: Arc<Mount>,
    pub dentry: Arc<Dentry>,
}

impl Path {
    /// The inode; ENOENT for a negative dentry.
    pub fn inode(&self) -> Result<&Arc<dyn Inode>> {
        self.dentry.inode().ok_or(Errno::ENOENT)
    }

    /// Whether both are the same place.
    pub fn same(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }

    /// A place without a name on an internal mount (see [`Mount::internal`]).
    pub fn nameless(mount: &Arc<Mount>, inode: Arc<dyn Inode>, name: &[u8]) -> Path {
        Path { mount: Arc::clone(mount), dentry: Dentry::nameless(inode, name) }
    }

    /// Another dentry on the same mount.
    pub(super) fn with(&self, dentry: Arc<Dentry>) -> Path {
        Path { mount: Arc::clone(&self.mount), dentry }
    }

    /// Whether this is the root of its mount.
    pub fn is_mount_root(&self) -> bool {
        self.mount.is_root(&self.dentry)
    }
}
