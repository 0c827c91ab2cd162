//! What can be mapped: files, shared memory, devices.

use super::Mm;
use platform::{Access, Backing, Prot};
use std::any::Any;
use std::ops::Range;
use std::sync::Weak;

/// Why a page of an object cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// Beyond the end of the object, or its data cannot be read: SIGBUS, `BUS_ADRERR`.
    Bus,
    /// No memory (or no room in the file system: SIGBUS as well on Linux).
    NoMemory,
    /// The limit of a container is reached.
    OverLimit,
}

/// A run of an object's bytes and where they are.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Page-aligned range of the object's offsets.
    pub range: Range<u64>,
    pub backing: Backing,
    /// Offset in the backing of the start of `range`. For memory-file backings one reference on each
    /// page belongs to the receiver, who gives it back with `MemoryFile::dec_ref`.
    pub backing_offset: u64,
    /// Whether writes to the backing may be allowed right now (shared mappings).
    pub writable: bool,
}

/// An object that can be mapped into address spaces. Called with the address space locked: must not
/// touch guest memory, and must not block for long.
pub trait Mappable: Any + Send + Sync {
    /// Makes the pages of `required` available and may give more, up to `optional` (which contains
    /// it). The segments come in order without holes and begin at or before `required.start`.
    /// `Access::Write` is asked for shared writable mappings only and makes pages real (allocates).
    fn translate(
        &self,
        required: Range<u64>,
        optional: Range<u64>,
        access: Access,
    ) -> Result<Vec<Segment>, MapError>;

    /// An address space maps offsets `range` of the object from address `at` on. Objects that can
    /// shrink or move data keep this, to call `Mm::invalidate` on it.
    fn add_mapping(&self, mm: &Weak<Mm>, at: u64, range: Range<u64>, writable_shared: bool);

    /// A mapping, or a part of one, went away.
    fn remove_mapping(&self, mm: &Weak<Mm>, at: u64, range: Range<u64>, writable_shared: bool);

    /// msync(2): makes sure that written data of the range is where reads of the file find it.
    fn sync(&self, _range: Range<u64>) -> abi::Result<()> {
        Ok(())
    }

    /// Whether it may be mapped so (seals of a memfd: EPERM). The value says whether mprotect may give a shared mapping
    /// the right to write later.
    fn mmap_check(&self, _shared: bool, _prot: Prot) -> abi::Result<bool> {
        Ok(true)
    }

    /// madvise(`MADV_REMOVE`) of an object without a file: the bytes become zeroes and their pages free.
    fn punch(&self, _range: Range<u64>) -> abi::Result<()> {
        Err(abi::Errno::EOPNOTSUPP)
    }

    /// What distinguishes the object for futexes and /proc/pid/maps: (device, inode).
    fn identity(&self) -> (u64, u64);
}
