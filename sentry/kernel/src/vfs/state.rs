//! What a sandbox's kernel keeps for its VFS: device drivers, file system types, and the makers of objects that
//! the kernel crate does not know (pipes for FIFOs).

use super::{Caller, FileOps, FileSystem, MountFlags, MountTree, Path};
use crate::restart::SysError;
use abi::fcntl::OpenFlags;
use abi::stat::{major, makedev, minor};
use abi::{Errno, Result};
use ksync::{LockClass, RwLock};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Opens device nodes of one major number.
pub trait DeviceDriver: Send + Sync {
    /// Opens the device; ENXIO when there is no such minor number. May block through the task.
    fn open(
        &self,
        cx: &Caller<'_>,
        path: &Path,
        minor: u32,
        flags: OpenFlags,
    ) -> std::result::Result<Opened, SysError>;
}

/// What opening came to.
pub enum Opened {
    /// Operations on the object.
    Ops(Arc<dyn FileOps>),
    /// Another file takes the place of the node (/dev/tty, ptmx): its operations and its path.
    Other(Arc<dyn FileOps>, Path),
}

/// Opens FIFOs.
pub trait FifoOpener: Send + Sync {
    /// Opens an end of the FIFO at `path`, waiting for the other end as fifo(7) has it.
    fn open(
        &self,
        cx: &Caller<'_>,
        path: &Path,
        flags: OpenFlags,
    ) -> std::result::Result<Arc<dyn FileOps>, SysError>;
}

/// A type of file systems, for mount(2).
pub trait FsType: Send + Sync {
    fn name(&self) -> &'static str;
    /// Whether it needs no device (`nodev` in /proc/filesystems).
    fn nodev(&self) -> bool {
        true
    }
    /// Whether the root of a user namespace may mount it.
    fn in_user_ns(&self) -> bool {
        false
    }
    /// Makes a file system from the source and the option string of mount(2).
    fn make(&self, cx: &Caller<'_>, source: &[u8], options: &[u8]) -> Result<Arc<dyn FileSystem>>;
}

/// The VFS's part of a [`crate::Kernel`].
pub struct Vfs {
    /// All mounts of the sandbox.
    pub mounts: Arc<MountTree>,
    devices: RwLock<BTreeMap<(bool, u32), Arc<dyn DeviceDriver>>>,
    types: RwLock<BTreeMap<&'static str, Arc<dyn FsType>>>,
    fifo: OnceLock<Arc<dyn FifoOpener>>,
    next_dev: AtomicU32,
    /// Descriptions that are open (`/proc/sys/fs/file-nr`).
    pub files: AtomicU64,
    pub(super) lock_waits: super::locks::LockWaits,
}

impl Default for Vfs {
    fn default() -> Vfs {
        Vfs {
            mounts: MountTree::new(),
            devices: RwLock::new(LockClass::Leaf, BTreeMap::new()),
            types: RwLock::new(LockClass::Leaf, BTreeMap::new()),
            fifo: OnceLock::new(),
            next_dev: AtomicU32::new(20),
            files: AtomicU64::new(0),
            lock_waits: super::locks::LockWaits::default(),
        }
    }
}

impl Vfs {
    /// A driver for all minors of a character (`block` false) or block device major.
    pub fn register_device(&self, block: bool, major: u32, driver: Arc<dyn DeviceDriver>) {
        self.devices.write().insert((block, major), driver);
    }

    /// The driver and minor number of a device; ENXIO.
    pub fn device(&self, block: bool, rdev: u64) -> Result<(Arc<dyn DeviceDriver>, u32)> {
        let driver = self.devices.read().get(&(block, major(rdev))).cloned().ok_or(Errno::ENXIO)?;
        Ok((driver, minor(rdev)))
    }

    /// A type that mount(2) knows from now on.
    pub fn register_type(&self, fs: Arc<dyn FsType>) {
        self.types.write().insert(fs.name(), fs);
    }

    /// A type by name; ENODEV.
    pub fn fs_type(&self, name: &[u8]) -> Result<Arc<dyn FsType>> {
        let name = std::str::from_utf8(name).map_err(|_| Errno::ENODEV)?;
        self.types.read().get(name).cloned().ok_or(Errno::ENODEV)
    }

    /// All types, for /proc/filesystems.
    pub fn fs_types(&self) -> Vec<Arc<dyn FsType>> {
        self.types.read().values().cloned().collect()
    }

    /// Says who opens FIFOs; once.
    pub fn set_fifo_opener(&self, opener: Arc<dyn FifoOpener>) {
        let _ = self.fifo.set(opener);
    }
    pub(super) fn fifo_opener(&self) -> Result<&Arc<dyn FifoOpener>> {
        self.fifo.get().ok_or(Errno::ENXIO)
    }

    /// A device number for a file system without a device.
    pub fn new_dev(&self) -> u64 {
        makedev(0, self.next_dev.fetch_add(1, Ordering::Relaxed))
    }
}

impl std::fmt::Debug for Vfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vfs")
    }
}

/// The flags that mount(2)'s `MS_*` bits set on a new mount (`do_mount`): relatime unless told otherwise.
pub fn mount_flags(ms: u64) -> MountFlags {
    let kept = MountFlags::all() - MountFlags::RELATIME;
    let mut flags = MountFlags::from_bits_truncate(u32::try_from(ms & 0xffff_ffff).unwrap_or(0)) & kept;
    if flags.contains(MountFlags::STRICTATIME) {
        flags.remove(MountFlags::RELATIME | MountFlags::NOATIME);
    } else if !flags.contains(MountFlags::NOATIME) {
        flags.insert(MountFlags::RELATIME);
    }
    flags
}
