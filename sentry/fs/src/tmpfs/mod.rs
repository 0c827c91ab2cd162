//! tmpfs(5): a file system in memory. `inode.rs` has the inodes and their attributes, `dir.rs` the
//! directories, `data.rs` the contents of regular files in pages of the memory file, `options.rs` the mount options,
//! `memfd.rs` files without names.

mod data;
mod dir;
mod inode;
mod memfd;
mod options;
#[cfg(test)]
mod tests;

pub use memfd::{MemfdFlags, memfd_create};
pub use options::Options;

use abi::stat::StatFs;
use abi::time::Timespec;
use abi::{Errno, Result};
use inode::TmpInode;
use kernel::Kernel;
use kernel::creds::Creds;
use kernel::vfs::{FileSystem, FsFlags, Inode};
use ksync::{LockClass, Mutex};
use platform::{MemoryFile, PAGE};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

const MAGIC: i64 = 0x0102_1994;

/// What a file system's inodes share.
pub(crate) struct Shared {
    name: &'static str,
    root: OnceLock<Weak<TmpInode>>,
    pub memfile: Arc<MemoryFile>,
    kernel: Weak<Kernel>,
    pub dev: u64,
    options: Mutex<Options>,
    used_pages: AtomicU64,
    used_inodes: AtomicU64,
    next_ino: AtomicU64,
}

impl Shared {
    /// Now, as a time stamp.
    pub fn now(&self) -> Timespec {
        match self.kernel.upgrade() {
            Some(k) => k.clocks.now(),
            None => Timespec::from_nanos(platform::hostsys::clock::realtime()),
        }
    }

    /// Counts pages; ENOSPC when there is no room for all of them.
    pub fn charge(&self, pages: u64) -> Result<()> {
        let max = self.options.lock().max_pages;
        self.used_pages
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(pages).filter(|n| max == 0 || *n <= max)
            })
            .map(|_| ())
            .map_err(|_| Errno::ENOSPC)
    }

    /// How many more pages there is room for.
    pub fn room(&self) -> u64 {
        match self.options.lock().max_pages {
            0 => u64::MAX,
            max => max.saturating_sub(self.used_pages.load(Ordering::Relaxed)),
        }
    }

    pub fn uncharge(&self, pages: u64) {
        self.used_pages.fetch_sub(pages, Ordering::Relaxed);
    }

    /// Counts an inode or a further name of one.
    pub fn charge_inode(&self) -> Result<()> {
        let max = self.options.lock().max_inodes;
        self.used_inodes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                Some(used + 1).filter(|n| max == 0 || *n <= max)
            })
            .map(|_| ())
            .map_err(|_| Errno::ENOSPC)
    }

    pub fn uncharge_inode(&self) {
        self.used_inodes.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }
}

/// A tmpfs.
pub struct TmpFs {
    shared: Arc<Shared>,
    root: Arc<TmpInode>,
}

impl TmpFs {
    /// An empty file system.
    pub fn new(kernel: &Arc<Kernel>, options: Options) -> Arc<TmpFs> {
        TmpFs::named("tmpfs", kernel, options)
    }

    /// An empty file system with the option string of mount(2).
    pub fn mount(kernel: &Arc<Kernel>, data: &[u8]) -> Result<Arc<TmpFs>> {
        Ok(TmpFs::new(kernel, Options::parse(data)?))
    }

    /// As `mount`, for somebody: the root directory is theirs unless the options say otherwise.
    pub fn mount_for(kernel: &Arc<Kernel>, data: &[u8], creds: &Creds) -> Result<Arc<TmpFs>> {
        let mut options = Options::parse(data)?;
        options.owner_default(creds.fsuid, creds.fsgid);
        Ok(TmpFs::new(kernel, options))
    }

    /// As `new` under another type's name (devtmpfs is a tmpfs, too).
    pub fn named(name: &'static str, kernel: &Arc<Kernel>, options: Options) -> Arc<TmpFs> {
        let options = options.with_defaults(kernel.machine.memory() / PAGE);
        let (mode, uid, gid) = (options.mode, options.uid, options.gid);
        let shared = Arc::new(Shared {
            name,
            root: OnceLock::new(),
            memfile: Arc::clone(&kernel.memfile),
            kernel: Arc::downgrade(kernel),
            dev: kernel.vfs.new_dev(),
            options: Mutex::new(LockClass::Leaf, options),
            used_pages: AtomicU64::new(0),
            used_inodes: AtomicU64::new(1),
            next_ino: AtomicU64::new(1),
        });
        let root = TmpInode::root(&shared, mode, uid, gid);
        let _ = shared.root.set(Arc::downgrade(&root));
        Arc::new(TmpFs { shared, root })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl FileSystem for TmpFs {
    fn name(&self) -> &'static str {
        self.shared.name
    }
    fn dev(&self) -> u64 {
        self.shared.dev
    }
    fn flags(&self) -> FsFlags {
        FileSystem::flags(&*self.shared)
    }
    fn root(&self) -> Arc<dyn Inode> {
        Arc::clone(&self.root) as Arc<dyn Inode>
    }
    fn statfs(&self) -> Result<StatFs> {
        self.shared.statfs()
    }
    fn show_options(&self) -> String {
        self.shared.show_options()
    }
    fn reconfigure(&self, data: &[u8]) -> Result<()> {
        self.shared.reconfigure(data)
    }
}

impl FileSystem for Shared {
    fn name(&self) -> &'static str {
        self.name
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn flags(&self) -> FsFlags {
        FsFlags::XATTR | FsFlags::POSIX_ACL | FsFlags::EXPORT
    }
    fn root(&self) -> Arc<dyn Inode> {
        match self.root.get().and_then(Weak::upgrade) {
            Some(root) => root,
            None => unreachable!("the root lives as long as the file system is in use"),
        }
    }
    fn statfs(&self) -> Result<StatFs> {
        let o = self.options.lock().clone();
        let used = self.used_pages.load(Ordering::Relaxed);
        let inodes = self.used_inodes.load(Ordering::Relaxed);
        let free = if o.max_pages == 0 { 0 } else { o.max_pages.saturating_sub(used) };
        Ok(StatFs {
            f_type: MAGIC,
            f_bsize: 4096,
            f_blocks: o.max_pages,
            f_bfree: free,
            f_bavail: free,
            f_files: o.max_inodes,
            f_ffree: if o.max_inodes == 0 { 0 } else { o.max_inodes.saturating_sub(inodes) },
            f_namelen: 255,
            f_frsize: 4096,
            ..StatFs::default()
        })
    }
    fn show_options(&self) -> String {
        self.options.lock().show()
    }
    fn reconfigure(&self, data: &[u8]) -> Result<()> {
        let new = Options::parse(data)?;
        let (used, inodes) =
            (self.used_pages.load(Ordering::Relaxed), self.used_inodes.load(Ordering::Relaxed));
        let mut o = self.options.lock();
        if let Some(pages) = new.size {
            if pages != 0 && pages < used {
                return Err(Errno::EINVAL);
            }
            o.max_pages = pages;
            o.size = Some(pages);
        }
        if let Some(n) = new.nr_inodes {
            if n != 0 && n < inodes {
                return Err(Errno::EINVAL);
            }
            o.max_inodes = n;
            o.nr_inodes = Some(n);
        }
        Ok(())
    }
}
