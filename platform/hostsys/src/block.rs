//! `Block`: a piece of guest-visible memory that the sentry has mapped.
//!
//! It is never a Rust reference: the guest changes it at any time and it may fault. All access
//! goes through the routines of `fault`. Where blocks come from: `hostfile`, `memfile`.

use crate::fault::{self, Fault};
use std::marker::PhantomData;

/// A mapped piece of memory shared with guests. Copying the value does not copy memory.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    ptr: *mut u8,
    len: usize,
    life: PhantomData<&'a ()>,
}

// SAFETY: a block is an address range that is only accessed by routines that tolerate concurrent change.
unsafe impl Send for Block<'_> {}
// SAFETY: as above.
unsafe impl Sync for Block<'_> {}

impl std::fmt::Debug for Block<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({} bytes)", self.len)
    }
}

impl<'a> Block<'a> {
    /// # Safety
    /// `ptr..ptr+len` must belong to a mapping that stays for `'a` and of which no Rust reference exists.
    pub(crate) unsafe fn new(ptr: *mut u8, len: usize) -> Block<'a> {
        Block { ptr, len, life: PhantomData }
    }

    /// A buffer of the sentry's own as a block; it stays borrowed as long as the block lives.
    pub fn from_mut_slice(buf: &'a mut [u8]) -> Block<'a> {
        // SAFETY: the exclusive borrow lasts for 'a, and is not used by anybody else meanwhile.
        unsafe { Block::new(buf.as_mut_ptr(), buf.len()) }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if the block has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// For iovecs in this crate.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.ptr
    }

    /// The `len` bytes from `off` on; `None` if they are not all inside.
    pub fn slice(&self, off: usize, len: usize) -> Option<Block<'a>> {
        if off.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: a part of a valid block is one.
        Some(unsafe { Block::new(self.ptr.add(off), len) })
    }

    /// Checks `off..off+len` and gives its address. A range outside is a fault like any other.
    fn at(&self, off: usize, len: usize) -> Result<*mut u8, Fault> {
        match off.checked_add(len) {
            // SAFETY: inside the block.
            Some(end) if end <= self.len => Ok(unsafe { self.ptr.add(off) }),
            _ => Err(Fault),
        }
    }

    /// Copies out of the block; returns the bytes done before the fault or the block's end.
    pub fn read_partial(&self, off: usize, out: &mut [u8]) -> usize {
        let len = out.len().min(self.len.saturating_sub(off));
        let Ok(src) = self.at(off, len) else { return 0 };
        // SAFETY: `src` is inside the block, `out` is ours, and no reference to block memory exists.
        unsafe { fault::copy(out.as_mut_ptr(), src, len) }
    }

    /// Copies into the block; returns the bytes done before the fault or the block's end.
    pub fn write_partial(&self, off: usize, data: &[u8]) -> usize {
        let len = data.len().min(self.len.saturating_sub(off));
        let Ok(dst) = self.at(off, len) else { return 0 };
        // SAFETY: as in `read_partial`.
        unsafe { fault::copy(dst, data.as_ptr(), len) }
    }

    /// Fills `out` from `off` on.
    pub fn read(&self, off: usize, out: &mut [u8]) -> Result<(), Fault> {
        if self.read_partial(off, out) == out.len() { Ok(()) } else { Err(Fault) }
    }

    /// Writes all of `data` at `off`. After a fault a part may have been written.
    pub fn write(&self, off: usize, data: &[u8]) -> Result<(), Fault> {
        if self.write_partial(off, data) == data.len() { Ok(()) } else { Err(Fault) }
    }

    /// Writes zeroes; returns the bytes done before the fault or the block's end.
    pub fn zero_partial(&self, off: usize, len: usize) -> usize {
        let len = len.min(self.len.saturating_sub(off));
        let Ok(dst) = self.at(off, len) else { return 0 };
        // SAFETY: as in `read_partial`.
        unsafe { fault::zero(dst, len) }
    }

    /// Writes `len` zeroes at `off`.
    pub fn zero(&self, off: usize, len: usize) -> Result<(), Fault> {
        if self.zero_partial(off, len) == len { Ok(()) } else { Err(Fault) }
    }

    /// Copies this whole block to the start of `dst`, which must be at least as long and must not overlap.
    pub fn copy_to(&self, dst: Block<'_>) -> Result<(), Fault> {
        if self.copy_to_partial(dst) == self.len { Ok(()) } else { Err(Fault) }
    }

    /// As `copy_to`, but returns the bytes done before the fault or the end of the shorter block.
    pub fn copy_to_partial(&self, dst: Block<'_>) -> usize {
        let len = self.len.min(dst.len);
        // SAFETY: both ranges are block memory, to which no reference exists. Overlap would only mix up guest bytes.
        unsafe { fault::copy(dst.ptr, self.ptr, len) }
    }

    fn scalar<T>(&self, off: usize) -> Result<*mut T, Fault> {
        let ptr = self.at(off, size_of::<T>())?;
        if ptr.align_offset(align_of::<T>()) != 0 {
            return Err(Fault);
        }
        Ok(ptr.cast())
    }

    /// Atomic load; `off` must be aligned (else a fault).
    pub fn load_u32(&self, off: usize) -> Result<u32, Fault> {
        let ptr = self.scalar(off)?;
        // SAFETY: inside the block and aligned.
        unsafe { fault::load_u32(ptr) }
    }

    /// Atomic store; `off` must be aligned (else a fault).
    pub fn store_u32(&self, off: usize, value: u32) -> Result<(), Fault> {
        let ptr = self.scalar(off)?;
        // SAFETY: inside the block and aligned.
        unsafe { fault::store_u32(ptr, value) }
    }

    /// Atomic compare and exchange; the inner result is as for `AtomicU32`.
    pub fn compare_exchange_u32(&self, off: usize, old: u32, new: u32) -> Result<Result<u32, u32>, Fault> {
        let ptr = self.scalar(off)?;
        // SAFETY: inside the block and aligned.
        unsafe { fault::compare_exchange_u32(ptr, old, new) }
    }

    /// Atomic load; `off` must be aligned (else a fault).
    pub fn load_u64(&self, off: usize) -> Result<u64, Fault> {
        let ptr = self.scalar(off)?;
        // SAFETY: inside the block and aligned.
        unsafe { fault::load_u64(ptr) }
    }

    /// Atomic store; `off` must be aligned (else a fault).
    pub fn store_u64(&self, off: usize, value: u64) -> Result<(), Fault> {
        let ptr = self.scalar(off)?;
        // SAFETY: inside the block and aligned.
        unsafe { fault::store_u64(ptr, value) }
    }

    /// Atomic compare and exchange; the inner result is as for `AtomicU64`.
    pub fn compare_exchange_u64(&self, off: usize, old: u64, new: u64) -> Result<Result<u64, u64>, Fault> {
        let ptr = self.scalar(off)?;
        // SAFETY: inside the block and aligned.
        unsafe { fault::compare_exchange_u64(ptr, old, new) }
    }
}
