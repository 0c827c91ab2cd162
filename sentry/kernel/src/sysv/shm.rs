//! Shared memory segments (shmget(2), shmat(2), shmctl(2)).

use super::{Found, IdTable, Perm};
use crate::creds::{Creds, UserNamespace};
use crate::mm::{MapError, Mappable, Mm, Segment, SharedMemory};
use abi::{Errno, Result};
use ksync::{LockClass, Mutex};
use platform::{Access, MemoryFile};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// A segment.
pub struct ShmSegment {
    pub id: i32,
    /// Size as asked for.
    pub size: u64,
    pub perm: Mutex<Perm>,
    /// Times in seconds, process ids in the sandbox's root PID namespace.
    pub attached: AtomicI64,
    pub detached: AtomicI64,
    pub changed: AtomicI64,
    pub creator: i32,
    pub last_pid: AtomicI32,
    pub locked: AtomicBool,
    /// Removed: goes with the last attachment.
    pub doomed: AtomicBool,
    /// Bytes mapped by all address spaces; mappings are cut and joined, bytes are not.
    mapped: AtomicU64,
    memory: Arc<SharedMemory>,
}

impl ShmSegment {
    /// Number of attachments (`shm_nattch`).
    pub fn attachments(&self) -> u64 {
        self.mapped.load(Ordering::SeqCst).div_ceil(self.memory.size().max(1))
    }

    /// A copy of its owner and rights.
    pub fn perm_now(&self) -> Perm {
        self.perm.lock().clone()
    }

    /// Bytes that have pages.
    pub fn resident(&self) -> u64 {
        self.memory.resident()
    }

    /// Bytes in whole pages.
    pub fn pages_size(&self) -> u64 {
        self.memory.size()
    }
}

impl Mappable for ShmSegment {
    fn translate(
        &self,
        required: Range<u64>,
        optional: Range<u64>,
        access: Access,
    ) -> Result<Vec<Segment>, MapError> {
        self.memory.translate(required, optional, access)
    }
    fn add_mapping(&self, mm: &Weak<Mm>, at: u64, range: Range<u64>, writable: bool) {
        self.mapped.fetch_add(range.end - range.start, Ordering::SeqCst);
        self.memory.add_mapping(mm, at, range, writable);
    }
    fn remove_mapping(&self, mm: &Weak<Mm>, at: u64, range: Range<u64>, writable: bool) {
        self.mapped.fetch_sub(range.end - range.start, Ordering::SeqCst);
        self.memory.remove_mapping(mm, at, range, writable);
    }
    fn punch(&self, range: Range<u64>) -> Result<()> {
        self.memory.punch(range)
    }
    fn identity(&self) -> (u64, u64) {
        self.memory.identity()
    }
}

/// The segments of an IPC namespace.
pub struct ShmTable {
    table: Mutex<IdTable<Arc<ShmSegment>>>,
}

impl Default for ShmTable {
    fn default() -> Self {
        ShmTable { table: Mutex::new(LockClass::FileSystem, IdTable::default()) }
    }
}

/// Limits from /proc/sys/kernel: bytes, segments, pages in all.
#[derive(Clone, Copy, Debug)]
pub struct ShmLimits {
    pub shmmax: u64,
    pub shmmni: u64,
    pub shmall: u64,
}

/// Who asks, and when.
pub struct ShmCaller<'a> {
    pub creds: &'a Creds,
    pub ns: &'a Arc<UserNamespace>,
    /// In the sandbox's root PID namespace.
    pub pid: i32,
    /// Seconds since the epoch.
    pub now: i64,
}

impl ShmTable {
    /// Forgets removed segments that nobody has attached any more. What is dropped is returned, to go without the lock.
    fn sweep(table: &mut IdTable<Arc<ShmSegment>>) -> Vec<Arc<ShmSegment>> {
        let dead = |s: &Arc<ShmSegment>| s.doomed.load(Ordering::SeqCst) && s.attachments() == 0;
        let gone = table.iter().filter(|(_, s)| dead(s)).map(|(_, s)| Arc::clone(s)).collect();
        table.retain(|s| !dead(s));
        gone
    }

    /// shmget(2). `memfile`: where the pages come from, and the account that is charged.
    pub fn get(
        &self,
        memfile: (&Arc<MemoryFile>, u32),
        cx: &ShmCaller<'_>,
        key: i32,
        size: u64,
        flags: u32,
        limits: &ShmLimits,
    ) -> Result<i32> {
        let mut table = self.table.lock();
        let gone = Self::sweep(&mut table);
        let found = table.find(key, flags, |s| s.perm.lock().key)?;
        let result = match found {
            Found::Existing(id, s) => {
                s.perm_now().check(cx.creds, cx.ns, flags)?;
                if size > s.size { Err(Errno::EINVAL) } else { Ok(id) }
            }
            Found::New => {
                if size < 1 || size > limits.shmmax || size > i64::MAX as u64 / 2 {
                    return Err(Errno::EINVAL);
                }
                let pages: u64 = table.iter().map(|(_, s)| s.memory.size() / abi::PAGE_SIZE).sum();
                if pages.saturating_add(size.div_ceil(abi::PAGE_SIZE)) > limits.shmall {
                    return Err(Errno::ENOSPC);
                }
                // Before there is memory to let go of, which the table's lock does not allow.
                if table.len() >= usize::try_from(limits.shmmni).unwrap_or(usize::MAX) {
                    return Err(Errno::ENOSPC);
                }
                let perm = Perm::new(key, flags, cx.creds);
                let memory = SharedMemory::new(memfile.0, memfile.1, size);
                table.insert(usize::try_from(limits.shmmni).unwrap_or(usize::MAX), |id| {
                    Arc::new(ShmSegment {
                        id,
                        size,
                        perm: Mutex::new(LockClass::Leaf, perm),
                        attached: AtomicI64::new(0),
                        detached: AtomicI64::new(0),
                        changed: AtomicI64::new(cx.now),
                        creator: cx.pid,
                        last_pid: AtomicI32::new(0),
                        locked: AtomicBool::new(false),
                        doomed: AtomicBool::new(false),
                        mapped: AtomicU64::new(0),
                        memory,
                    })
                })
            }
        };
        drop(table);
        drop(gone);
        result
    }

    /// The segment of an id: EINVAL, EIDRM.
    pub fn find(&self, id: i32) -> Result<Arc<ShmSegment>> {
        let mut table = self.table.lock();
        let gone = Self::sweep(&mut table);
        let found = table.get(id);
        drop(table);
        drop(gone);
        found
    }

    /// The segment at a place of the table.
    pub fn at(&self, place: i32) -> Result<Arc<ShmSegment>> {
        Ok(self.table.lock().at(place)?.1)
    }

    /// `IPC_RMID`.
    pub fn remove(&self, segment: &ShmSegment) {
        segment.doomed.store(true, Ordering::SeqCst);
        segment.perm.lock().key = abi::ipc::IPC_PRIVATE;
        let mut table = self.table.lock();
        let gone = Self::sweep(&mut table);
        drop(table);
        drop(gone);
    }

    /// All segments, and the highest place.
    pub fn all(&self) -> (Vec<Arc<ShmSegment>>, i32) {
        let mut table = self.table.lock();
        let gone = Self::sweep(&mut table);
        let all = table.iter().map(|(_, s)| Arc::clone(s)).collect();
        let highest = table.highest();
        drop(table);
        drop(gone);
        (all, highest)
    }
}
