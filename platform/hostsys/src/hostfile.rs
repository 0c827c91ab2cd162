//! `HostFile`: an open file of the host, shared by descriptors and guest mappings.
//!
//! It owns the descriptor and the sentry's own MAP_SHARED windows of the file. Windows are made on first use, one per
//! [`CHUNK`], and go with the file. Their number over all files is bounded, because a process has a limited
//! number of mappings; beyond the bound `block` fails and callers fall back to `read_at`/`write_at`.
//! Guests map the file by its descriptor number (see the platform crate).

use crate::block::Block;
use crate::fault;
use nix::fcntl::FcntlArg;
use rustix::fs::FlockOperation;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Size of one window. Only address space is used for what is not touched.
pub const CHUNK: u64 = 64 << 20;
/// Most windows over all files (the kernel's default limit is 65,530 mappings in a process).
const MAX_WINDOWS: usize = 24_000;
/// Windows of a file that are found without a lock.
const DIRECT: usize = 2;

/// The last byte of a record lock that reaches to the end of the file.
const END_OF_LOCKS: u64 = i64::MAX as u64;

static WINDOWS: AtomicUsize = AtomicUsize::new(0);
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// An open host file.
pub struct HostFile {
    fd: OwnedFd,
    writable: bool,
    id: u64,
    direct: [AtomicPtr<u8>; DIRECT],
    more: RwLock<BTreeMap<u64, Window>>,
}

/// The address of a window (kept as a pointer to keep provenance).
#[derive(Clone, Copy)]
struct Window(*mut u8);
// SAFETY: only an address; accesses go through `Block`.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl std::fmt::Debug for HostFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostFile(fd {}, {})", self.fd.as_raw_fd(), if self.writable { "rw" } else { "ro" })
    }
}

/// How the byte ranges of [`HostFile::allocate`] are changed; values of fallocate(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocateMode {
    /// Reserve space, growing the file.
    Allocate,
    /// Reserve space, keep the size.
    KeepSize,
    /// Free the range, which then reads as zeroes.
    PunchHole,
    /// Zero the range; true: the size is kept.
    Zero(bool),
    /// Remove the range and move the rest down.
    Collapse,
    /// Insert a hole and move the rest up.
    Insert,
}

impl HostFile {
    /// Takes the descriptor over. `writable` must say whether it was opened for writing (and reading).
    pub fn new(fd: OwnedFd, writable: bool) -> Arc<HostFile> {
        Arc::new(HostFile::unshared(fd, writable))
    }

    pub(crate) fn unshared(fd: OwnedFd, writable: bool) -> HostFile {
        fault::install();
        HostFile {
            fd,
            writable,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            direct: [const { AtomicPtr::new(std::ptr::null_mut()) }; DIRECT],
            more: RwLock::new(BTreeMap::new()),
        }
    }

    /// The descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// flock(2) without waiting: exclusive, shared, or not at all.
    pub fn flock(&self, exclusive: Option<bool>) -> io::Result<()> {
        let operation = match exclusive {
            Some(true) => FlockOperation::NonBlockingLockExclusive,
            Some(false) => FlockOperation::NonBlockingLockShared,
            None => FlockOperation::NonBlockingUnlock,
        };
        Ok(rustix::fs::flock(&self.fd, operation)?)
    }

    /// A record lock of this open file (`F_OFD_SETLK`) on a range, its last byte included, without waiting: for writing, for
    /// reading, or none.
    pub fn lock_range(&self, write: Option<bool>, start: u64, last: u64) -> io::Result<()> {
        self.record_lock(true, write, start, last).map(|_| ())
    }

    /// The first lock in the way of one on a range: whether it is for writing, its first and its last byte.
    pub fn lock_in_the_way(
        &self,
        write: bool,
        start: u64,
        last: u64,
    ) -> io::Result<Option<(bool, u64, u64)>> {
        let found = self.record_lock(false, Some(write), start, last)?;
        if i32::from(found.l_type) == libc::F_UNLCK {
            return Ok(None);
        }
        let start = u64::try_from(found.l_start).unwrap_or(0);
        let last = match u64::try_from(found.l_len) {
            Ok(length) if length > 0 => start.saturating_add(length - 1),
            _ => END_OF_LOCKS,
        };
        Ok(Some((i32::from(found.l_type) == libc::F_WRLCK, start, last)))
    }

    fn record_lock(&self, set: bool, write: Option<bool>, start: u64, last: u64) -> io::Result<libc::flock> {
        let kind = match write {
            Some(true) => libc::F_WRLCK,
            Some(false) => libc::F_RDLCK,
            None => libc::F_UNLCK,
        };
        let number = |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        // A length of 0 is to the end.
        let length = if last >= END_OF_LOCKS { 0 } else { number(last.saturating_sub(start) + 1)? };
        let mut lock = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: number(start)?,
            l_len: length,
            l_pid: 0,
        };
        let asked = if set { FcntlArg::F_OFD_SETLK(&lock) } else { FcntlArg::F_OFD_GETLK(&mut lock) };
        nix::fcntl::fcntl(&self.fd, asked)?;
        Ok(lock)
    }

    /// A number that no other file of this process has or had.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether writes and writable mappings are possible.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// pread(2).
    pub fn read_at(&self, out: &mut [u8], off: u64) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.fd, out, off)?)
    }

    /// pwrite(2).
    pub fn write_at(&self, data: &[u8], off: u64) -> io::Result<usize> {
        Ok(rustix::io::pwrite(&self.fd, data, off)?)
    }

    /// preadv(2) straight into guest memory. At most 1024 blocks are used; returns the bytes read.
    pub fn read_into(&self, blocks: &[Block<'_>], off: u64) -> io::Result<usize> {
        let iov = iovecs(blocks);
        // SAFETY: the iovecs name block memory, which the kernel may write at any time; a missing page gives EFAULT.
        ret(unsafe { libc::preadv(self.fd.as_raw_fd(), iov.as_ptr(), iov.len() as i32, off.cast_signed()) })
    }

    /// pwritev(2) straight from guest memory. At most 1024 blocks are used; returns the bytes written.
    pub fn write_from(&self, blocks: &[Block<'_>], off: u64) -> io::Result<usize> {
        let iov = iovecs(blocks);
        // SAFETY: as in `read_into`; the kernel only reads.
        ret(unsafe { libc::pwritev(self.fd.as_raw_fd(), iov.as_ptr(), iov.len() as i32, off.cast_signed()) })
    }

    /// Appends from guest memory (RWF_APPEND); returns the bytes written.
    pub fn append_from(&self, blocks: &[Block<'_>]) -> io::Result<usize> {
        let iov = iovecs(blocks);
        // SAFETY: as in `write_from`.
        ret(unsafe {
            libc::pwritev2(self.fd.as_raw_fd(), iov.as_ptr(), iov.len() as i32, 0, libc::RWF_APPEND)
        })
    }

    /// Size in bytes, from fstat(2).
    pub fn size(&self) -> io::Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(&self.fd)?.st_size).unwrap_or(0))
    }

    /// All of fstat(2).
    pub fn stat(&self) -> io::Result<rustix::fs::Stat> {
        Ok(rustix::fs::fstat(&self.fd)?)
    }

    /// ftruncate(2).
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.fd, len)?)
    }

    /// fdatasync(2) or fsync(2).
    pub fn sync(&self, data_only: bool) -> io::Result<()> {
        let done = if data_only { rustix::fs::fdatasync(&self.fd) } else { rustix::fs::fsync(&self.fd) };
        Ok(done?)
    }

    /// fallocate(2).
    pub fn allocate(&self, mode: AllocateMode, off: u64, len: u64) -> io::Result<()> {
        use rustix::fs::FallocateFlags as F;
        let flags = match mode {
            AllocateMode::Allocate => F::empty(),
            AllocateMode::KeepSize => F::KEEP_SIZE,
            AllocateMode::PunchHole => F::PUNCH_HOLE | F::KEEP_SIZE,
            AllocateMode::Zero(true) => F::ZERO_RANGE | F::KEEP_SIZE,
            AllocateMode::Zero(false) => F::ZERO_RANGE,
            AllocateMode::Collapse => F::COLLAPSE_RANGE,
            AllocateMode::Insert => F::INSERT_RANGE,
        };
        Ok(rustix::fs::fallocate(&self.fd, flags, off, len)?)
    }

    /// lseek(2) with SEEK_HOLE (`hole`) or SEEK_DATA. Moves the descriptor's own offset, which nothing here uses.
    pub fn seek_hole_data(&self, off: u64, hole: bool) -> io::Result<u64> {
        use rustix::fs::SeekFrom;
        Ok(rustix::fs::seek(&self.fd, if hole { SeekFrom::Hole(off) } else { SeekFrom::Data(off) })?)
    }

    /// The file's bytes `off..off+len` in the sentry's mapping; clipped at the end of the window that holds `off`.
    /// Bytes beyond the file's end fault on access.
    pub fn block(&self, off: u64, len: u64) -> io::Result<Block<'_>> {
        let window = self.window(off / CHUNK)?;
        let inside = off % CHUNK;
        let len = len.min(CHUNK - inside);
        // SAFETY: inside the window, which lives as long as `self`; nobody makes references to it.
        Ok(unsafe { Block::new(window.add(inside as usize), len as usize) })
    }

    /// The whole range as blocks.
    pub fn blocks(&self, off: u64, len: u64) -> impl Iterator<Item = io::Result<Block<'_>>> {
        let end = off.saturating_add(len);
        let mut at = off;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let block = self.block(at, end - at);
            at = match &block {
                Ok(b) => at + b.len() as u64,
                Err(_) => end,
            };
            Some(block)
        })
    }

    fn window(&self, index: u64) -> io::Result<*mut u8> {
        if let Some(slot) = self.direct.get(usize::try_from(index).unwrap_or(usize::MAX)) {
            let ptr = slot.load(Ordering::Acquire);
            if !ptr.is_null() {
                return Ok(ptr);
            }
            let fresh = self.map_window(index)?;
            return Ok(
                match slot.compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire)
                {
                    Ok(_) => fresh,
                    Err(first) => {
                        unmap_window(fresh);
                        first
                    }
                },
            );
        }
        if let Some(w) = self.more.read().unwrap_or_else(PoisonError::into_inner).get(&index) {
            return Ok(w.0);
        }
        let mut more = self.more.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(w) = more.get(&index) {
            return Ok(w.0);
        }
        let fresh = self.map_window(index)?;
        more.insert(index, Window(fresh));
        Ok(fresh)
    }

    fn map_window(&self, index: u64) -> io::Result<*mut u8> {
        let off = index.checked_mul(CHUNK).filter(|o| *o <= i64::MAX as u64 - CHUNK);
        let off = off.ok_or_else(|| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        if WINDOWS.fetch_add(1, Ordering::Relaxed) >= MAX_WINDOWS {
            WINDOWS.fetch_sub(1, Ordering::Relaxed);
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        let prot = libc::PROT_READ | if self.writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else is touched.
        let ptr = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                CHUNK as usize,
                prot,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                self.fd.as_raw_fd(),
                off.cast_signed(),
            )
        };
        if ptr == libc::MAP_FAILED {
            WINDOWS.fetch_sub(1, Ordering::Relaxed);
            return Err(io::Error::last_os_error());
        }
        Ok(ptr.cast())
    }

    /// Asks for huge pages in the window at `off` (best effort: the host's policy decides).
    pub(crate) fn advise_huge(&self, off: u64) {
        self.advise(off, libc::MADV_HUGEPAGE);
    }

    /// What of the file is mapped in this process no longer counts as its size; the next access has it counted again.
    pub(crate) fn shrink_windows(&self, size: u64) {
        for index in 0..size.div_ceil(CHUNK) {
            self.advise(index * CHUNK, libc::MADV_DONTNEED);
        }
    }

    fn advise(&self, off: u64, advice: libc::c_int) {
        if let Ok(ptr) = self.window(off / CHUNK) {
            // SAFETY: advice about a whole window of ours, which is shared: it changes no contents.
            unsafe { libc::madvise(ptr.cast(), CHUNK as usize, advice) };
        }
    }
}

impl Drop for HostFile {
    fn drop(&mut self) {
        for slot in &mut self.direct {
            let ptr = *slot.get_mut();
            if !ptr.is_null() {
                unmap_window(ptr);
            }
        }
        for w in self.more.get_mut().unwrap_or_else(PoisonError::into_inner).values() {
            unmap_window(w.0);
        }
    }
}

fn unmap_window(ptr: *mut u8) {
    // SAFETY: `ptr` came from `map_window` and its owner is gone, so no block can name it any more.
    unsafe { libc::munmap(ptr.cast(), CHUNK as usize) };
    WINDOWS.fetch_sub(1, Ordering::Relaxed);
}

fn iovecs(blocks: &[Block<'_>]) -> Vec<libc::iovec> {
    let iov = |b: &Block<'_>| libc::iovec { iov_base: b.as_ptr().cast(), iov_len: b.len() };
    blocks.iter().take(1024).map(iov).collect()
}

fn ret(n: isize) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}
