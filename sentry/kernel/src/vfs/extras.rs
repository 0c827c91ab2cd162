//! What the VFS keeps for an inode whatever its file system: made on first use.

use super::locks::FileLocks;
use super::notify::Watches;
use abi::{Errno, Result};
use ksync::{LockClass, Mutex};
use std::any::Any;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

/// A place for an object of a type that only its owner knows.
pub type Slot = Mutex<Option<Arc<dyn Any + Send + Sync>>>;

/// Advisory locks, watches, the pipe of a FIFO, the bound socket.
#[derive(Default)]
pub struct InodeExtras {
    rest: OnceLock<Box<Rest>>,
    /// Above zero: opened for writing that often. Below: writing is denied that often (`i_writecount`).
    writers: AtomicI32,
    /// Descriptions that are open.
    opens: AtomicI32,
    /// `F_SET_RW_HINT`: kept and told, and of no effect.
    hint: AtomicU8,
}

struct Rest {
    locks: FileLocks,
    watches: Watches,
    fifo: Slot,
    socket: Slot,
}

impl InodeExtras {
    fn rest(&self) -> &Rest {
        self.rest.get_or_init(|| {
            Box::new(Rest {
                locks: FileLocks::new(),
                watches: Watches::new(),
                fifo: Mutex::new(LockClass::FileLocks, None),
                socket: Mutex::new(LockClass::FileLocks, None),
            })
        })
    }

    /// Advisory locks.
    pub fn locks(&self) -> &FileLocks {
        &self.rest().locks
    }
    /// Advisory locks if there ever was one.
    pub fn locks_if_any(&self) -> Option<&FileLocks> {
        self.rest.get().map(|r| &r.locks)
    }
    /// Inotify watches.
    pub fn watches(&self) -> &Watches {
        &self.rest().watches
    }
    /// Inotify watches if there ever was one.
    pub fn watches_if_any(&self) -> Option<&Watches> {
        self.rest.get().map(|r| &r.watches)
    }
    /// The pipe of a FIFO.
    pub fn fifo(&self) -> &Slot {
        &self.rest().fifo
    }
    /// The socket bound to this inode.
    pub fn socket(&self) -> &Slot {
        &self.rest().socket
    }

    /// Counts an opening for writing; ETXTBSY while that is denied.
    pub fn get_write(&self) -> Result<()> {
        self.change(|n| n >= 0, 1).map_err(|()| Errno::ETXTBSY)
    }
    /// The opposite of `get_write`.
    pub fn put_write(&self) {
        self.writers.fetch_sub(1, Ordering::AcqRel);
    }
    /// Denies opening for writing; ETXTBSY when it is open so already.
    pub fn deny_write(&self) -> Result<()> {
        self.change(|n| n <= 0, -1).map_err(|()| Errno::ETXTBSY)
    }
    /// The opposite of `deny_write`.
    pub fn allow_write(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }
    /// The write life time hint of fcntl(2).
    pub fn write_hint(&self) -> u8 {
        self.hint.load(Ordering::Relaxed)
    }
    pub fn set_write_hint(&self, hint: u8) {
        self.hint.store(hint, Ordering::Relaxed);
    }
    pub(super) fn opened(&self) {
        self.opens.fetch_add(1, Ordering::AcqRel);
    }
    /// Whether that was the last description.
    pub(super) fn closed(&self) -> bool {
        self.opens.fetch_sub(1, Ordering::AcqRel) == 1
    }
    pub(super) fn is_open(&self) -> bool {
        self.opens.load(Ordering::Acquire) > 0
    }
    /// How many descriptions are open for writing.
    pub fn writers(&self) -> i32 {
        self.writers.load(Ordering::Acquire).max(0)
    }

    fn change(&self, ok: impl Fn(i32) -> bool, by: i32) -> std::result::Result<(), ()> {
        self.writers
            .fetch_update(
                Ordering::AcqRel,
                Ordering::Acquire,
                |n| if ok(n) { n.checked_add(by) } else { None },
            )
            .map(|_| ())
            .map_err(|_| ())
    }
}

impl std::fmt::Debug for InodeExtras {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InodeExtras(writers {})", self.writers.load(Ordering::Relaxed))
    }
}

/// Keeps an inode from being opened for writing as long as it lives: the text of a running program.
pub struct DenyWrite(Arc<dyn super::Inode>);

impl DenyWrite {
    /// ETXTBSY when somebody writes to it.
    pub fn new(inode: &Arc<dyn super::Inode>) -> Result<DenyWrite> {
        inode.extras().deny_write()?;
        Ok(DenyWrite(Arc::clone(inode)))
    }
}

impl Drop for DenyWrite {
    fn drop(&mut self) {
        self.0.extras().allow_write();
    }
}

impl std::fmt::Debug for DenyWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DenyWrite")
    }
}
