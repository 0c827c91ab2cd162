//! The overlay: a tree of the host below, what the sandbox changed above it.
//!
//! Unlike overlayfs of Linux the upper layer is no second directory tree. The lower layer never changes, and what is
//! above lives as long as the sandbox: so each overlay inode simply holds what is different. A directory has the
//! names that were added, replaced or removed; a file has its own attributes once these were changed, and its own data (a nameless
//! file of the upper file system, a tmpfs) once that was changed. Thus chmod copies no data, a directory
//! of the lower layer is renamed like any other, hard links of the lower layer stay links, and an inode keeps its number and identity
//! whatever happens to it.
//!
//! An inode that came from the lower layer is found by its lower number, whichever name leads to it. It is kept for
//! good from the first change on.

mod content;
mod directory;
mod inode;
mod metadata;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use abi::Result;
use abi::fcntl::OpenFlags;
use abi::stat::StatFs;
use kernel::creds::Creds;
use kernel::vfs::{Caller, Dentry, File, FileSystem, FsFlags, Inode, Mount, Path};

pub use inode::OverlayInode;

/// `OVERLAYFS_SUPER_MAGIC`.
const MAGIC: i64 = 0x794c_7630;
/// First number of inodes that have none in the lower layer: above what file systems of hosts use.
const FIRST_INO: u64 = 1 << 48;

/// An inode of the lower layer as the overlay knows it.
#[derive(Clone)]
enum Known {
    /// As it is below: nothing is lost when nobody uses it.
    Unchanged(Weak<OverlayInode>),
    Changed(Arc<OverlayInode>),
}

/// A lower and an upper file system seen as one.
pub struct OverlayFs {
    me: Weak<OverlayFs>,
    dev: u64,
    lower: Arc<Mount>,
    lower_root: Arc<dyn Inode>,
    upper: Arc<Mount>,
    upper_root: Arc<dyn Inode>,
    /// Whose rights the layers' files are opened with.
    creds: Arc<Creds>,
    next_ino: AtomicU64,
    /// Inodes from the lower layer by their lower number. Taken when inodes are dropped, which happens under any lock: nothing
    /// is taken while it is held, and it is outside the checked order.
    known: Mutex<HashMap<u64, Known>>,
}

impl OverlayFs {
    /// Puts what will change (data in `upper`, a tmpfs) above `lower`, which must not change any more.
    /// `root` is what to show of the lower file system.
    pub fn new(
        lower: Arc<dyn FileSystem>,
        upper: Arc<dyn FileSystem>,
        dev: u64,
        creds: Arc<Creds>,
    ) -> Arc<OverlayFs> {
        let (lower_root, upper_root) = (lower.root(), upper.root());
        Arc::new_cyclic(|me| OverlayFs {
            me: me.clone(),
            dev,
            lower: Mount::internal(lower),
            lower_root,
            upper: Mount::internal(upper),
            upper_root,
            creds,
            next_ino: AtomicU64::new(FIRST_INO),
            known: Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// The overlay's inode for one of the lower layer.
    fn above(self: &Arc<Self>, lower: Arc<dyn Inode>) -> Arc<OverlayInode> {
        let ino = lower.ino();
        let mut known = self.known();
        let present = match known.get(&ino) {
            Some(Known::Changed(inode)) => Some(inode.clone()),
            Some(Known::Unchanged(inode)) => inode.upgrade(),
            None => None,
        };
        present.unwrap_or_else(|| {
            let inode = OverlayInode::from_lower(self.clone(), lower);
            known.insert(ino, Known::Unchanged(Arc::downgrade(&inode)));
            inode
        })
    }

    /// An open file of the lower layer, for reading.
    fn open_lower(&self, cx: &Caller<'_>, inode: &Arc<dyn Inode>) -> Result<Arc<File>> {
        self.open_in(&self.lower, cx, inode, OpenFlags::empty())
    }

    fn open_upper(&self, cx: &Caller<'_>, inode: &Arc<dyn Inode>) -> Result<Arc<File>> {
        self.open_in(&self.upper, cx, inode, OpenFlags::RDWR)
    }

    fn open_in(
        &self,
        mount: &Arc<Mount>,
        cx: &Caller<'_>,
        inode: &Arc<dyn Inode>,
        flags: OpenFlags,
    ) -> Result<Arc<File>> {
        let path = Path { mount: mount.clone(), dentry: Dentry::nameless(inode.clone(), b"overlay") };
        let ops = inode.open(cx, &path, flags)?;
        Ok(File::new(ops, path, flags, self.creds.clone()))
    }
}

impl FileSystem for OverlayFs {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn flags(&self) -> FsFlags {
        FsFlags::XATTR | FsFlags::POSIX_ACL | FsFlags::OWN_ATIME | FsFlags::EXPORT
    }

    fn root(&self) -> Arc<dyn Inode> {
        match self.me.upgrade() {
            Some(me) => me.above(self.lower_root.clone()),
            // Only while the last reference is being dropped; nobody can ask then.
            None => unreachable!("the file system is borrowed, so it lives"),
        }
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { f_type: MAGIC, ..self.upper.fs.statfs()? })
    }

    /// Changed inodes and the file system hold each other.
    fn unmounted(&self) {
        let all = std::mem::take(&mut *self.known());
        drop(all);
    }

    fn show_options(&self) -> String {
        "lowerdir=/,upperdir=memory".to_owned()
    }
}

impl std::fmt::Debug for OverlayFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OverlayFs(dev {})", self.dev)
    }
}
