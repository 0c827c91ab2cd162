//! The gofer file system: files of the host, through the sandbox's gofer process.
//!
//! Three ways of trusting what is known already. **Exclusive**: nothing else changes these files (a container's image
//! below an overlay), so names and attributes are kept without asking again. **Rarely**: a root that only this sandbox uses,
//! and into which an engine copies files now and then; names are asked for again after a while (see `names`).
//! **Shared**: the host may change them (bind mounts), so what is older than a moment is asked for again.
//!
//! The data of regular files never passes the gofer: opening gets a descriptor of the host's file, which stays
//! with the inode, and reads, writes and mappings go straight to it.

mod attributes;
mod calls;
mod connection;
mod devices;
mod directory;
mod inode;
mod listing;
mod names;
mod regular;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use abi::Result;
use abi::stat::StatFs;
use gofer_protocol::{Entry, MOUNT_READ_ONLY, Stat};
use kernel::vfs::{FileSystem, FsFlags, Inode};

pub use connection::Connection;
pub use inode::GoferInode;

/// Who else may change the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    Exclusive,
    Rarely,
    Shared,
}

/// How to attach to one of the gofer's mounts.
#[derive(Clone, Debug)]
pub struct AttachOptions {
    /// Index of the mount in the gofer's configuration.
    pub mount: u32,
    pub sharing: Sharing,
    /// `st_dev` of its inodes.
    pub dev: u64,
    /// What /proc/mounts shows as its source.
    pub source: String,
}

/// Descriptors of host files kept for one file system beyond those that are open or mapped.
const IDLE_HOST_FILES: usize = 2048;
/// Entries of directory listings kept after they were read, all together; about 200 bytes each. A program that walks a tree
/// in the same order again has no use of a cache that is smaller than the tree.
const KEPT_ENTRIES: usize = 200_000;

/// Where an inode stands that the file system has lent something to, oldest first.
type Queue = VecDeque<Weak<GoferInode>>;

/// These locks are innermost and are also taken when inodes are dropped, which happens under locks of any
/// class: so they are outside the checked order.
#[derive(Debug, Default)]
struct Tables {
    /// Inodes in use, by their number.
    inodes: HashMap<u64, Weak<GoferInode>>,
    /// Devices met below the root, for unique inode numbers. The first is the root's.
    devices: Vec<(u32, u32)>,
    /// Directories whose gofer handle can be taken back.
    handles: Queue,
    host_files: Queue,
    /// With the number of entries each keeps, and the sum of those.
    listings: VecDeque<(Weak<GoferInode>, usize)>,
    kept_entries: usize,
}

/// One attached mount of the gofer.
pub struct GoferFs {
    me: Weak<GoferFs>,
    connection: Arc<Connection>,
    options: AttachOptions,
    root: Entry,
    read_only: bool,
    max_handles: usize,
    type_name: &'static str,
    tables: Mutex<Tables>,
    /// Counts changes of attributes, whichever file: what a listing says of them holds as long as this stays the same.
    generation: AtomicU64,
    /// When the host was last said to have changed something, on its monotonic clock.
    looked_again: AtomicI64,
    /// Device nodes that the guest made.
    devices: devices::Devices,
    /// Handles nobody needs any more, to be closed with a later call.
    closing: Mutex<Vec<u64>>,
}

impl GoferFs {
    /// Attaches to a mount.
    pub fn attach(connection: Arc<Connection>, options: AttachOptions) -> Result<Arc<GoferFs>> {
        let attached = connection.attach(options.mount)?;
        let stat = connection.stat_fs(attached.root.handle)?;
        let device = (attached.root.stat.dev_major, attached.root.stat.dev_minor);
        let tables = Tables { devices: vec![device], ..Tables::default() };
        Ok(Arc::new_cyclic(|me| GoferFs {
            me: me.clone(),
            connection,
            options,
            root: attached.root,
            read_only: attached.flags & MOUNT_READ_ONLY != 0,
            max_handles: usize::try_from(attached.max_handles / 2).unwrap_or(1024),
            type_name: type_name(stat.file_system_type),
            tables: Mutex::new(tables),
            generation: AtomicU64::new(0),
            looked_again: AtomicI64::new(0),
            devices: devices::Devices::default(),
            closing: Mutex::default(),
        }))
    }

    /// Whether the gofer refuses every change.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Attributes of some file changed.
    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn sharing(&self) -> Sharing {
        self.options.sharing
    }

    /// What this sandbox writes is all that is written to a file.
    fn exclusive(&self) -> bool {
        self.options.sharing != Sharing::Shared
    }

    fn looked_again(&self) -> i64 {
        self.looked_again.load(Ordering::Acquire)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, after handing back handles that are not needed any more.
    fn connection(&self) -> &Connection {
        let mut closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        if closing.len() >= 32 {
            let handles = std::mem::take(&mut *closing);
            drop(closing);
            self.connection.close(&handles);
        }
        &self.connection
    }

    fn close_later(&self, handle: u64) {
        if handle != 0 && handle != self.root.handle {
            self.closing.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
        }
    }

    /// The number that a file of the host has in the sandbox. Files of mounts below the root get the place of their
    /// device in the high bits, since the sandbox sees one file system.
    fn number(&self, stat: &Stat) -> u64 {
        let device = (stat.dev_major, stat.dev_minor);
        if device == (self.root.stat.dev_major, self.root.stat.dev_minor) {
            return stat.ino;
        }
        let mut tables = self.tables();
        let index = match tables.devices.iter().position(|known| *known == device) {
            Some(index) => index,
            None => {
                tables.devices.push(device);
                tables.devices.len() - 1
            }
        };
        stat.ino ^ (u64::try_from(index).unwrap_or(0) << 48)
    }

    /// Makes attributes that the gofer told those that the guest shall see: of a device node where one was made.
    fn dressed(&self, mut stat: Stat) -> Stat {
        if let Some(device) = self.devices.find(self.number(&stat), &stat) {
            device.dress(&mut stat);
        }
        stat
    }

    /// Remembers that `inode` holds a gofer handle; too many make the oldest give theirs back.
    fn lend_handle(&self, inode: &Weak<GoferInode>) {
        let oldest = push(&mut self.tables().handles, inode, self.max_handles);
        if let Some(oldest) = oldest {
            oldest.give_back_handle();
        }
    }

    /// The gofer has no room for more handles: half of the directories give theirs back.
    fn give_back_handles(&self) {
        let oldest: Vec<_> = {
            let mut tables = self.tables();
            let half = tables.handles.len().div_ceil(2);
            tables.handles.drain(..half).collect()
        };
        for inode in oldest.iter().filter_map(Weak::upgrade) {
            inode.give_back_handle();
        }
        let handles = std::mem::take(&mut *self.closing.lock().unwrap_or_else(PoisonError::into_inner));
        self.connection.close(&handles);
    }

    /// This process has no room for more descriptors: all that are not in use are closed.
    fn give_back_host_files(&self) {
        let all = std::mem::take(&mut self.tables().host_files);
        for inode in &all {
            let used = inode.upgrade().filter(|inode| !inode.give_back_host_file());
            if used.is_some() {
                self.tables().host_files.push_back(inode.clone());
            }
        }
    }

    fn keep_host_file(&self, inode: &Weak<GoferInode>) {
        let oldest = push(&mut self.tables().host_files, inode, IDLE_HOST_FILES);
        if let Some(oldest) = oldest
            && !oldest.give_back_host_file()
        {
            // In use: it goes to the young end.
            self.tables().host_files.push_back(Arc::downgrade(&oldest));
        }
    }

    /// Remembers that `inode` keeps a listing of `len` entries; the oldest ones go when there are too many.
    fn keep_listing(&self, inode: &Weak<GoferInode>, len: usize) {
        let mut oldest = Vec::new();
        {
            let mut tables = self.tables();
            tables.listings.push_back((inode.clone(), len + 1));
            tables.kept_entries += len + 1;
            while tables.kept_entries > KEPT_ENTRIES
                && let Some((inode, len)) = tables.listings.pop_front()
            {
                tables.kept_entries -= len;
                oldest.push(inode);
            }
        }
        for inode in oldest.iter().filter_map(Weak::upgrade) {
            inode.forget_listing();
        }
    }
}

fn push(queue: &mut Queue, inode: &Weak<GoferInode>, limit: usize) -> Option<Arc<GoferInode>> {
    queue.push_back(inode.clone());
    if queue.len() > limit { queue.pop_front().and_then(|oldest| oldest.upgrade()) } else { None }
}

impl FileSystem for GoferFs {
    fn name(&self) -> &'static str {
        self.type_name
    }

    fn dev(&self) -> u64 {
        self.options.dev
    }

    fn flags(&self) -> FsFlags {
        let flags = FsFlags::XATTR | FsFlags::POSIX_ACL | FsFlags::OWN_ATIME | FsFlags::EXPORT;
        match self.sharing() {
            Sharing::Exclusive => flags,
            Sharing::Shared | Sharing::Rarely => flags | FsFlags::REVALIDATE,
        }
    }

    fn look_again(&self) {
        self.looked_again.store(inode::monotonic(), Ordering::Release);
    }

    /// The root inode does not keep the file system and is not kept by it: whoever mounts it holds both.
    fn root(&self) -> Arc<dyn Inode> {
        match self.me.upgrade() {
            Some(me) => GoferInode::of(&me, &self.root, None),
            // Only while the last reference is being dropped; nobody can ask then.
            None => unreachable!("the file system is borrowed, so it lives"),
        }
    }

    fn statfs(&self) -> Result<StatFs> {
        let stat = self.connection().stat_fs(self.root.handle)?;
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let [low, high] = [self.options.dev, self.options.dev >> 32].map(|half| (half & 0x7fff_ffff) as i32);
        Ok(StatFs {
            f_type: signed(stat.file_system_type),
            f_bsize: signed(stat.block_size),
            f_blocks: stat.blocks,
            f_bfree: stat.blocks_free,
            f_bavail: stat.blocks_available,
            f_files: stat.files,
            f_ffree: stat.files_free,
            f_fsid: [low, high],
            f_namelen: signed(stat.name_length),
            f_frsize: signed(stat.fragment_size),
            f_flags: 0,
            f_spare: [0; 4],
        })
    }

    fn sync(&self) -> Result<()> {
        if self.read_only || !self.root.stat.is_directory() {
            return Ok(());
        }
        self.connection().sync_fs(self.root.handle)
    }

    fn source(&self) -> String {
        self.options.source.clone()
    }
}

impl std::fmt::Debug for GoferFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GoferFs(mount {}, {:?})", self.options.mount, self.options.sharing)
    }
}

/// The host's name for a `statfs` magic number (linux/magic.h), since that is what the files are on.
fn type_name(magic: u64) -> &'static str {
    match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0x6969 => "nfs",
        _ => "gofer",
    }
}
