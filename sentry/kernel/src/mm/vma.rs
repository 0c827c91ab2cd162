//! One mapping of an address space (`vm_area_struct`) and one run of pages behind it.

use super::interval::Piece;
use super::mappable::Mappable;
use crate::vfs::File;
use bitflags::bitflags;
use platform::{Backing, Prot};
use std::sync::Arc;

bitflags! {
    /// Properties of a mapping beyond its rights (`VM_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct VmFlags: u32 {
        /// Writes go to the object (`VM_SHARED`; with `VM_MAYSHARE` one thing here).
        const SHARED = 1;
        /// mprotect may give these rights.
        const MAYREAD = 1 << 1;
        const MAYWRITE = 1 << 2;
        const MAYEXEC = 1 << 3;
        const GROWSDOWN = 1 << 4;
        const LOCKED = 1 << 5;
        const LOCKONFAULT = 1 << 6;
        const NORESERVE = 1 << 7;
        /// `MADV_DONTFORK`
        const DONTCOPY = 1 << 8;
        const WIPEONFORK = 1 << 9;
        const DONTDUMP = 1 << 10;
        const HUGEPAGE = 1 << 11;
        const NOHUGEPAGE = 1 << 12;
        const MERGEABLE = 1 << 13;
        /// `MADV_SEQUENTIAL`, `MADV_RANDOM`
        const SEQ_READ = 1 << 14;
        const RAND_READ = 1 << 15;
        /// A mapping of the kernel's own (vdso): cannot be grown.
        const SPECIAL = 1 << 16;
        /// Is the main stack; asked of mmap: `MAP_STACK`, of which nothing stays.
        const STACK = 1 << 17;
        /// `mseal`: stays as it is until the end of the address space.
        const SEALED = 1 << 18;
    }
}

/// The object behind a mapping that is not private anonymous memory.
#[derive(Clone)]
pub struct VmFile {
    pub object: Arc<dyn Mappable>,
    /// The description it was mapped from; `None` for shared anonymous memory and the like.
    pub file: Option<Arc<File>>,
}

impl VmFile {
    /// Whether both are the same object through the same description.
    pub fn same(&self, other: &VmFile) -> bool {
        let files = match (&self.file, &other.file) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        files && same_object(&*self.object, &*other.object)
    }
}

/// Whether two references are to one object.
pub fn same_object(a: &dyn Mappable, b: &dyn Mappable) -> bool {
    std::ptr::addr_eq(std::ptr::from_ref(a), std::ptr::from_ref(b))
}

/// A mapping.
#[derive(Clone)]
pub struct Vma {
    /// What the guest asked for.
    pub prot: Prot,
    pub flags: VmFlags,
    pub file: Option<VmFile>,
    /// Offset in the object of the mapping's start.
    pub offset: u64,
    /// Name for /proc/pid/maps: of special mappings in brackets, else set by `PR_SET_VMA_ANON_NAME`.
    pub name: Option<Arc<[u8]>>,
}

impl Vma {
    /// Private anonymous memory.
    pub fn anonymous(prot: Prot, flags: VmFlags) -> Vma {
        Vma { prot, flags: flags | Self::MAY_ALL, file: None, offset: 0, name: None }
    }

    /// All rights may be given.
    pub const MAY_ALL: VmFlags = VmFlags::MAYREAD.union(VmFlags::MAYWRITE).union(VmFlags::MAYEXEC);

    pub fn is_shared(&self) -> bool {
        self.flags.contains(VmFlags::SHARED)
    }

    /// Shared with rights to write, now or after mprotect: what the object counts as a writer.
    pub fn is_shared_writable(&self) -> bool {
        self.flags.contains(VmFlags::SHARED | VmFlags::MAYWRITE)
    }

    /// Memory that counts against `RLIMIT_DATA` (`is_data_mapping`).
    pub fn is_data(&self) -> bool {
        self.prot.contains(Prot::WRITE) && !self.flags.intersects(VmFlags::SHARED | VmFlags::GROWSDOWN)
    }

    /// Private writable memory: what counts for overcommit (`accountable_mapping`).
    pub fn is_accountable(&self) -> bool {
        self.prot.contains(Prot::WRITE) && !self.flags.intersects(VmFlags::SHARED | VmFlags::NORESERVE)
    }
}

impl Piece for Vma {
    fn cut_front(&mut self, by: u64) {
        if self.file.is_some() {
            self.offset += by;
        }
    }

    fn joins(&self, len: u64, next: &Self) -> bool {
        let files = match (&self.file, &next.file) {
            (None, None) => true,
            (Some(a), Some(b)) => a.same(b) && self.offset.checked_add(len) == Some(next.offset),
            _ => false,
        };
        files
            && self.prot == next.prot
            && self.flags == next.flags
            && self.name == next.name
            && !self.flags.contains(VmFlags::SPECIAL)
    }
}

/// A run of pages that backs a part of a mapping.
#[derive(Clone)]
pub struct Pma {
    pub backing: Backing,
    /// Offset in the backing of the run's start.
    pub off: u64,
    /// The pages belong to this private mapping, in the sandbox's memory file. Else they are the object's.
    pub private: bool,
    /// A write must not reach these pages: others may see them.
    pub cow: bool,
    /// Object pages of a shared mapping to which writes may go.
    pub writable: bool,
    /// Rights of the mapping, to spare looking for it.
    pub prot: Prot,
    /// What the guest's processor can do with the pages now; `None` when the platform does not map them.
    pub mapped: Option<Prot>,
}

impl Pma {
    /// Whether a write may go to the pages as they are, rights aside.
    pub fn write_ready(&self) -> bool {
        !self.cow && (self.private || self.writable)
    }

    /// The rights that the platform can be given.
    pub fn host_prot(&self) -> Option<Prot> {
        if self.prot.is_empty() {
            return None;
        }
        // x86 has no pages that can be written or executed and not read.
        let mut prot = Prot::READ | (self.prot & Prot::EXEC);
        if self.prot.contains(Prot::WRITE) && self.write_ready() {
            prot |= Prot::WRITE;
        }
        Some(prot)
    }

    fn same_backing(&self, other: &Pma) -> bool {
        match (&self.backing, &other.backing) {
            (Backing::Memory(a), Backing::Memory(b)) => Arc::ptr_eq(a, b),
            (Backing::Host(a), Backing::Host(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Piece for Pma {
    fn cut_front(&mut self, by: u64) {
        self.off += by;
    }

    fn joins(&self, len: u64, next: &Self) -> bool {
        self.off + len == next.off
            && self.private == next.private
            && self.cow == next.cow
            && self.writable == next.writable
            && self.prot == next.prot
            && self.mapped == next.mapped
            && self.same_backing(next)
    }
}
