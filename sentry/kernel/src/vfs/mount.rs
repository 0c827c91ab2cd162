//! Mounts and superblocks: single objects. How mounts hang together is `mount_tree.rs`.

use super::mount_tree::MountTree;
use super::{Dentry, FileSystem, FsFlags, Path};
use bitflags::bitflags;
use ksync::live::{Kind, Live};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

bitflags! {
    /// Per-mount flags (`MNT_*`), with the values of the `MS_*` flags of mount(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MountFlags: u32 {
        const RDONLY = 1;
        const NOSUID = 2;
        const NODEV = 4;
        const NOEXEC = 8;
        const NOSYMFOLLOW = 256;
        const NOATIME = 1024;
        const NODIRATIME = 2048;
        const RELATIME = 1 << 21;
        const STRICTATIME = 1 << 24;
    }
}

/// A file system in use (`super_block`): what all its mounts share.
pub struct SuperBlock {
    pub fs: Arc<dyn FileSystem>,
    pub root: Arc<Dentry>,
    /// Read-only as a whole (`MS_RDONLY` without `MS_BIND`).
    readonly: AtomicBool,
    /// For the test that nothing is leaked.
    _live: Live,
}

impl SuperBlock {
    /// Takes a file system into use.
    pub fn new(fs: Arc<dyn FileSystem>, readonly: bool) -> Arc<SuperBlock> {
        let root = Dentry::root(fs.root());
        Arc::new(SuperBlock {
            _live: Live::new(Kind::SuperBlock),
            fs,
            root,
            readonly: AtomicBool::new(readonly),
        })
    }
    pub fn readonly(&self) -> bool {
        self.readonly.load(Ordering::Relaxed)
    }
    pub(super) fn set_readonly(&self, on: bool) {
        self.readonly.store(on, Ordering::Relaxed);
    }
    /// Lets unused dentries go.
    pub fn shrink(&self) {
        self.root.tree().shrink(false);
    }
}

impl Drop for SuperBlock {
    /// The last mount is gone: without this the cache and the root would keep each other alive.
    fn drop(&mut self) {
        self.root.tree().shrink(true);
        self.fs.unmounted();
    }
}

/// A file system, or a part of one, in a place (`struct mount`).
pub struct Mount {
    pub id: u64,
    pub fs: Arc<dyn FileSystem>,
    pub root: Arc<Dentry>,
    pub sb: Arc<SuperBlock>,
    /// The file system's own flags, fixed for its life.
    pub fs_flags: FsFlags,
    /// What /proc/self/mountinfo shows as source.
    pub source: Box<[u8]>,
    flags: AtomicU32,
    /// For `MNT_EXPIRE`: nobody has used it since it was marked.
    pub(super) expiry_mark: AtomicBool,
    /// Mounts cannot be taken apart or made writable by whoever has less rights than their maker.
    pub(super) locked: AtomicU32,
    tree: Weak<MountTree>,
    /// For the test that nothing is leaked.
    _live: Live,
}

static NEXT_INTERNAL: AtomicU64 = AtomicU64::new(1 << 40);

impl Mount {
    pub(super) fn make(
        id: u64,
        sb: Arc<SuperBlock>,
        root: Arc<Dentry>,
        flags: MountFlags,
        source: &[u8],
        tree: Weak<MountTree>,
    ) -> Arc<Mount> {
        let fs = Arc::clone(&sb.fs);
        let fs_flags = fs.flags();
        Arc::new(Mount {
            _live: Live::new(Kind::Mount),
            id,
            fs,
            root,
            sb,
            fs_flags,
            source: source.into(),
            flags: AtomicU32::new(flags.bits()),
            expiry_mark: AtomicBool::new(false),
            locked: AtomicU32::new(0),
            tree,
        })
    }

    /// A mount in no tree, for files without a place (pipes, sockets, memfd).
    pub fn internal(fs: Arc<dyn FileSystem>) -> Arc<Mount> {
        let sb = SuperBlock::new(fs, false);
        let root = Arc::clone(&sb.root);
        let source = sb.fs.source().into_bytes();
        let id = NEXT_INTERNAL.fetch_add(1, Ordering::Relaxed);
        Mount::make(id, sb, root, MountFlags::NOATIME, &source, Weak::new())
    }

    /// Where it hangs in the tree of mounts, if it does.
    pub(super) fn tree(&self) -> Option<Arc<MountTree>> {
        self.tree.upgrade()
    }

    /// The mount's own flags.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }
    pub(super) fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }
    /// Whether changes are refused, by the mount or by its file system.
    pub fn readonly(&self) -> bool {
        self.flags().contains(MountFlags::RDONLY) || self.sb.readonly()
    }
    /// Whether programs on it must not run.
    pub fn noexec(&self) -> bool {
        self.flags().contains(MountFlags::NOEXEC) || self.fs_flags.contains(FsFlags::NOEXEC)
    }
    /// Whether set-id bits have no effect.
    pub fn nosuid(&self) -> bool {
        self.flags().contains(MountFlags::NOSUID) || self.fs_flags.contains(FsFlags::NOSUID)
    }
    /// Whether device nodes do not open.
    pub fn nodev(&self) -> bool {
        self.flags().contains(MountFlags::NODEV) || self.fs_flags.contains(FsFlags::NODEV)
    }
    /// The root of the mount as a place.
    pub fn root_path(self: &Arc<Self>) -> Path {
        Path { mount: Arc::clone(self), dentry: Arc::clone(&self.root) }
    }
    pub(super) fn is_root(&self, dentry: &Arc<Dentry>) -> bool {
        Arc::ptr_eq(&self.root, dentry)
    }
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mount({}, {})", self.id, self.fs.name())
    }
}
