//! Context blocks: the memory a guest thread's handler shares with the sentry. One memfd holds them all.

use crate::error::PlatformError;
use crate::stub::layout::{CTX_BASE, CTX_MAX, CTX_SIZE, CTX_TID};
use rustix::fs::{FallocateFlags, MemfdFlags};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Most guest threads of a sandbox.
const BLOCKS: u64 = 32_768;

/// The memfd, mapped in the sentry as a whole (only touched pages cost memory).
pub(super) struct ContextFile {
    fd: OwnedFd,
    base: *mut u8,
    free: Mutex<(Vec<u64>, u64)>,
}

// SAFETY: the mapping is only accessed through atomics.
unsafe impl Send for ContextFile {}
// SAFETY: as above.
unsafe impl Sync for ContextFile {}

impl ContextFile {
    pub(super) fn new() -> Result<Arc<ContextFile>, PlatformError> {
        let host =
            |what: &'static str| move |e: rustix::io::Errno| PlatformError::errno(what, e.raw_os_error());
        let flags = MemfdFlags::CLOEXEC;
        let fd = rustix::fs::memfd_create("stub-contexts", flags | MemfdFlags::NOEXEC_SEAL)
            .or_else(|_| rustix::fs::memfd_create("stub-contexts", flags))
            .map_err(host("memfd_create for contexts"))?;
        rustix::fs::ftruncate(&fd, BLOCKS * CTX_SIZE).map_err(host("sizing the context file"))?;
        let len = (BLOCKS * CTX_SIZE) as usize;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let share = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel likes.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, share, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(PlatformError::last("mapping the context file"));
        }
        Ok(Arc::new(ContextFile { fd, base: base.cast(), free: Mutex::new((Vec::new(), 0)) }))
    }

    pub(super) fn raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// A 32-bit word of a block, whoever has it now. The guest can change it at any time.
    pub(super) fn word(&self, index: u64, off: usize) -> &AtomicU32 {
        assert!(index < BLOCKS && off.is_multiple_of(4) && off + 4 <= CTX_SIZE as usize);
        // SAFETY: aligned and inside the mapping, which lives as long as the file; every value is valid.
        unsafe { AtomicU32::from_ptr(self.base.add((index * CTX_SIZE) as usize + off).cast()) }
    }

    /// A block of zeroes.
    pub(super) fn block(self: &Arc<Self>) -> Result<ContextBlock, PlatformError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match free.0.pop() {
            Some(i) => i,
            None if free.1 < BLOCKS => {
                free.1 += 1;
                free.1 - 1
            }
            None => return Err(PlatformError::errno("too many guest threads", libc::EAGAIN)),
        };
        Ok(ContextBlock { file: self.clone(), index })
    }
}

impl Drop for ContextFile {
    fn drop(&mut self) {
        // SAFETY: every block holds an Arc of the file, so nothing refers to the mapping any more.
        unsafe { libc::munmap(self.base.cast(), (BLOCKS * CTX_SIZE) as usize) };
    }
}

/// One block, owned. Give it back with `free` only when no stub maps it any more; if it is just dropped, it is never used again.
pub(super) struct ContextBlock {
    file: Arc<ContextFile>,
    index: u64,
}

impl ContextBlock {
    /// Where it is in the file.
    pub(super) fn offset(&self) -> u64 {
        self.index * CTX_SIZE
    }

    pub(super) fn raw_fd(&self) -> i32 {
        self.file.raw_fd()
    }

    fn at(&self, off: usize, len: usize) -> *mut u8 {
        assert!(off.is_multiple_of(len) && off + len <= CTX_SIZE as usize);
        // SAFETY: inside the mapping.
        unsafe { self.file.base.add((self.index * CTX_SIZE) as usize + off) }
    }

    /// A 32-bit word. The guest can change it at any time.
    pub(super) fn word(&self, off: usize) -> &AtomicU32 {
        self.file.word(self.index, off)
    }

    /// Which one it is in the file.
    pub(super) fn index(&self) -> u64 {
        self.index
    }

    /// A 64-bit word. The guest can change it at any time.
    pub(super) fn long(&self, off: usize) -> &AtomicU64 {
        // SAFETY: as in `word`.
        unsafe { AtomicU64::from_ptr(self.at(off, 8).cast()) }
    }

    pub(super) fn get(&self, off: usize) -> u64 {
        self.long(off).load(Ordering::Relaxed)
    }

    pub(super) fn put(&self, off: usize, value: u64) {
        self.long(off).store(value, Ordering::Relaxed);
    }

    /// Fills it with zeroes, but for the word that tells that the host thread is there.
    pub(super) fn clear(&self) {
        const PAGE: usize = 4096;
        for off in (0..PAGE).step_by(8) {
            self.put(off, if off == CTX_TID & !7 { 1 << (8 * (CTX_TID % 8)) } else { 0 });
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(&self.file.fd, flags, self.offset() + PAGE as u64, CTX_SIZE - PAGE as u64)
            .is_err()
        {
            (PAGE..CTX_SIZE as usize).step_by(8).for_each(|off| self.put(off, 0));
        }
    }

    /// Nobody maps it any more: empties it and makes it available again.
    pub(super) fn free(self) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // What a guest left in it must not be seen by another: without the hole it is not used again.
        if rustix::fs::fallocate(&self.file.fd, flags, self.offset(), CTX_SIZE).is_ok() {
            self.file.free.lock().unwrap_or_else(PoisonError::into_inner).0.push(self.index);
        }
    }
}

/// The places for context blocks in one stub process.
#[derive(Default)]
pub(crate) struct Places(Mutex<(Vec<u64>, u64)>);

impl Places {
    /// All but the first, which a thread has already.
    pub(super) fn after_first() -> Places {
        Places(Mutex::new((Vec::new(), 1)))
    }

    pub(super) fn take(&self) -> Result<u64, PlatformError> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = places.0.pop() {
            return Ok(at);
        }
        if places.1 >= CTX_MAX {
            return Err(PlatformError::errno("too many threads in a process", libc::EAGAIN));
        }
        places.1 += 1;
        Ok(CTX_BASE + (places.1 - 1) * CTX_SIZE)
    }

    pub(super) fn give_back(&self, at: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.push(at);
    }
}
