//! The control file: one memfd with a command page for each stub process. The sentry maps it writable; a stub maps its
//! own page read-only.

use crate::error::PlatformError;
use rustix::fs::MemfdFlags;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

const PAGE: usize = 4096;
/// Most stub processes at a time.
const SLOTS: usize = 32_768;

/// See the module.
pub(super) struct ControlFile {
    fd: OwnedFd,
    base: *mut u8,
    free: Mutex<Free>,
    /// This process, as stubs see it.
    parent: u32,
}

struct Free {
    list: Vec<u32>,
    next: u32,
}

// SAFETY: `base` is a shared mapping that is only accessed through atomics.
unsafe impl Send for ControlFile {}
// SAFETY: as above.
unsafe impl Sync for ControlFile {}

impl ControlFile {
    pub(super) fn new() -> Result<Arc<ControlFile>, PlatformError> {
        let host =
            |what: &'static str| move |e: rustix::io::Errno| PlatformError::errno(what, e.raw_os_error());
        let flags = MemfdFlags::CLOEXEC;
        let fd = rustix::fs::memfd_create("stub-control", flags | MemfdFlags::NOEXEC_SEAL)
            .or_else(|_| rustix::fs::memfd_create("stub-control", flags))
            .map_err(host("memfd_create for the control file"))?;
        rustix::fs::ftruncate(&fd, (SLOTS * PAGE) as u64).map_err(host("sizing the control file"))?;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let share = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel likes.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), SLOTS * PAGE, prot, share, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(PlatformError::last("mapping the control file"));
        }
        let free = Mutex::new(Free { list: Vec::new(), next: 0 });
        Ok(Arc::new(ControlFile { fd, base: base.cast(), free, parent: std::process::id() }))
    }

    pub(super) fn raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// A zeroed command page.
    pub(super) fn slot(self: &Arc<Self>) -> Result<Slot, PlatformError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match free.list.pop() {
            Some(i) => i,
            None if (free.next as usize) < SLOTS => {
                free.next += 1;
                free.next - 1
            }
            None => return Err(PlatformError::errno("too many stub processes", libc::EAGAIN)),
        };
        drop(free);
        let slot = Slot { file: self.clone(), index };
        for off in (0..PAGE).step_by(8) {
            slot.long(off).store(0, std::sync::atomic::Ordering::Relaxed);
        }
        slot.word(super::layout::CMD_PARENT).store(self.parent, std::sync::atomic::Ordering::Relaxed);
        Ok(slot)
    }
}

impl Drop for ControlFile {
    fn drop(&mut self) {
        // SAFETY: every slot holds an Arc of the file, so no reference into the mapping is left.
        unsafe { libc::munmap(self.base.cast(), SLOTS * PAGE) };
    }
}

/// One command page.
pub(super) struct Slot {
    file: Arc<ControlFile>,
    index: u32,
}

impl Slot {
    /// Where the page is in the file.
    pub(super) fn offset(&self) -> u64 {
        u64::from(self.index) * PAGE as u64
    }

    fn at(&self, off: usize) -> *mut u8 {
        assert!(off < PAGE);
        // SAFETY: inside the mapping.
        unsafe { self.file.base.add(self.index as usize * PAGE + off) }
    }

    /// A 32-bit word of the page.
    pub(super) fn word(&self, off: usize) -> &AtomicU32 {
        assert!(off.is_multiple_of(4));
        // SAFETY: aligned and inside the mapping, which lives as long as the file; stubs change it only through the file, and
        // every 32-bit value is valid.
        unsafe { AtomicU32::from_ptr(self.at(off).cast()) }
    }

    /// A 64-bit word of the page.
    pub(super) fn long(&self, off: usize) -> &AtomicU64 {
        assert!(off.is_multiple_of(8));
        // SAFETY: as in `word`.
        unsafe { AtomicU64::from_ptr(self.at(off).cast()) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.file.free.lock().unwrap_or_else(PoisonError::into_inner).list.push(self.index);
    }
}
