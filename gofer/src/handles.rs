//! Handles: the numbers by which the sentry names what the server holds open.
//!
//! A handle is an index and a generation, so that a stale or invented number finds nothing. The
//! table is bounded by what the process may have open.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use crate::place::FileId;

/// Where a mount begins.
#[derive(Debug)]
pub enum MountRoot {
    /// O_PATH descriptor of a directory.
    Directory(OwnedFd),
    /// A single file, by the directory it was mounted in and its name there (a name can be opened
    /// again with other rights, an O_PATH descriptor cannot without /proc).
    File { directory: OwnedFd, name: Vec<u8> },
}

/// What holds for all files of a mount.
#[derive(Debug)]
pub struct Mount {
    pub index: usize,
    pub readonly: bool,
    pub allow_devices: bool,
}

/// A descriptor of the server that a handle stands for.
#[derive(Debug)]
pub struct File {
    pub fd: Arc<OwnedFd>,
    pub mount: Arc<Mount>,
    pub id: FileId,
    /// S_IFMT bits.
    pub kind: u32,
    /// For what is no directory: where it was found, so that it can be opened again.
    pub anchor: Option<(Arc<OwnedFd>, Box<[u8]>)>,
    /// For a file whose last name is going away: a descriptor that can do more than O_PATH.
    pub io: Option<OwnedFd>,
}

impl File {
    pub fn is_directory(&self) -> bool {
        self.kind == 0o040_000
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    file: Option<Arc<File>>,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// All handles of one server.
#[derive(Debug)]
pub struct HandleTable {
    slots: Mutex<Slots>,
    max: usize,
}

impl HandleTable {
    pub fn new(max: usize) -> HandleTable {
        HandleTable { slots: Mutex::default(), max }
    }

    pub fn max(&self) -> usize {
        self.max
    }

    pub fn insert(&self, file: File) -> Result<u64, Errno> {
        let mut table = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match table.free.pop() {
            Some(index) => index,
            None if table.slots.len() < self.max => {
                table.slots.push(Slot::default());
                u32::try_from(table.slots.len() - 1).map_err(|_| Errno::NFILE)?
            }
            None => return Err(Errno::NFILE),
        };
        let slot = table.slots.get_mut(index as usize).ok_or(Errno::NFILE)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.file = Some(Arc::new(file));
        Ok(u64::from(slot.generation) << 32 | (u64::from(index) + 1))
    }

    pub fn get(&self, handle: u64) -> Result<Arc<File>, Errno> {
        let table = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let index = slot_index(handle).ok_or(Errno::BADF)?;
        let slot = table.slots.get(index).ok_or(Errno::BADF)?;
        if u64::from(slot.generation) != handle >> 32 {
            return Err(Errno::BADF);
        }
        slot.file.clone().ok_or(Errno::BADF)
    }

    /// Forgets a handle; an unknown one is no error.
    pub fn remove(&self, handle: u64) {
        let Some(index) = slot_index(handle) else { return };
        let mut table = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = table.slots.get_mut(index) else { return };
        if u64::from(slot.generation) != handle >> 32 {
            return;
        }
        let file = slot.file.take();
        if file.is_some()
            && let Ok(index) = u32::try_from(index)
        {
            table.free.push(index);
        }
        drop(table);
        // The descriptor closes outside the lock: a close may take long.
        drop(file);
    }
}

fn slot_index(handle: u64) -> Option<usize> {
    usize::try_from(handle & 0xffff_ffff).ok()?.checked_sub(1)
}
