//! mmap(2) and munmap(2): where mappings go, what they may be, and what they count against.

use super::{Gone, Inner, MAX_MAP_COUNT, MMAP_MIN_ADDR, Mm, MmLimits, VmFile, VmFlags, Vma};
use abi::{Errno, PAGE_SIZE, Result, page_up};
use platform::Prot;
use std::ops::Range;
use std::sync::Arc;

/// Where a mapping shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Here if it is free, else anywhere. 0: no wish.
    Hint(u64),
    /// Below 2 GiB (`MAP_32BIT`), if there is no fitting hint.
    Low(u64),
    /// Exactly here, in place of what is there.
    Fixed(u64),
    /// Exactly here, if it is free.
    FixedNoReplace(u64),
}

/// The file side of a mapping.
pub struct MmapFile {
    pub file: VmFile,
    pub offset: u64,
}

/// What mmap is asked for; the flags that concern files have been looked at.
pub struct MmapArgs {
    pub at: Placement,
    /// Bytes; rounded up to pages here.
    pub len: u64,
    pub prot: Prot,
    /// `SHARED`, `GROWSDOWN`, `NORESERVE`, `LOCKED`, `STACK`, and the `MAY*` flags.
    pub flags: VmFlags,
    pub file: Option<MmapFile>,
    pub populate: bool,
    pub name: Option<Arc<[u8]>>,
}

/// Largest new mappings of anonymous memory and of files that are shown at once.
const EAGER_ANON: u64 = 1 << 20;
const EAGER_FILE: u64 = 32 << 20;

impl Inner {
    /// Counts bytes of address space in.
    pub(super) fn add_vm(&mut self, len: u64, data: bool) {
        self.total_vm += len;
        self.peak_vm = self.peak_vm.max(self.total_vm);
        if data {
            self.data_vm += len;
        }
    }

    /// Counts bytes of a mapping out.
    pub(super) fn sub_vm(&mut self, len: u64, vma: &Vma) {
        self.total_vm = self.total_vm.saturating_sub(len);
        if vma.is_data() {
            self.data_vm = self.data_vm.saturating_sub(len);
        }
        if vma.flags.contains(VmFlags::LOCKED) {
            self.locked_vm = self.locked_vm.saturating_sub(len);
        }
    }

    /// Whether `more` bytes fit into the limits on address space and data (`may_expand_vm`).
    pub(super) fn may_expand(&self, more: u64, data: bool, limits: &MmLimits) -> Result<()> {
        if self.total_vm.saturating_add(more) > limits.address_space {
            return Err(Errno::ENOMEM);
        }
        if data && self.data_vm.saturating_add(more) > limits.data {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Whether `more` bytes may be locked (`mlock_future_ok`).
    pub(super) fn may_lock(&self, more: u64, limits: &MmLimits) -> bool {
        limits.may_lock || self.locked_vm.saturating_add(more) <= limits.memlock
    }
}

impl Mm {
    /// mmap(2). The address.
    pub fn mmap(&self, args: MmapArgs, limits: &MmLimits) -> Result<u64> {
        let mut gone = Gone::default();
        let mut inner = self.inner.write();
        let result = self.mmap_locked(&mut inner, args, limits, &mut gone);
        drop(inner);
        drop(gone);
        result
    }

    fn mmap_locked(
        &self,
        inner: &mut Inner,
        args: MmapArgs,
        limits: &MmLimits,
        gone: &mut Gone,
    ) -> Result<u64> {
        let len = page_up(args.len).filter(|l| *l != 0).ok_or(if args.len == 0 {
            Errno::EINVAL
        } else {
            Errno::ENOMEM
        })?;
        if let Some(f) = &args.file
            && f.offset.checked_add(len).is_none_or(|end| i64::try_from(end).is_err())
        {
            return Err(Errno::EOVERFLOW);
        }
        if inner.vmas.len() >= MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let start = self.find_room(inner, args.at, len)?;
        let range = start..start + len;
        let mut flags = args.flags | inner.def_flags;
        if args.flags.contains(VmFlags::LOCKED) && !limits.may_lock && limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        if flags.contains(VmFlags::LOCKED) && !inner.may_lock(len, limits) {
            return Err(Errno::EAGAIN);
        }
        if flags.contains(VmFlags::SPECIAL) {
            flags -= VmFlags::LOCKED;
        }
        let (file, offset) = match args.file {
            Some(f) => (Some(f.file), f.offset),
            None => (None, 0),
        };
        let stack = flags.contains(VmFlags::STACK);
        if !flags.contains(VmFlags::GROWSDOWN) {
            // Linux keeps no mark of it either: neighbours join.
            flags -= VmFlags::STACK;
        }
        let vma = Vma { prot: args.prot, flags, file, offset, name: args.name };
        let replaced: u64 =
            inner.vmas.overlapping(range.clone()).map(|(s, e, _)| e.min(range.end) - s.max(start)).sum();
        inner.may_expand(len - replaced, vma.is_data(), limits)?;
        self.may_commit(len, &vma)?;
        let old = if replaced > 0 { self.remove_range(inner, range.clone(), gone)? } else { Vec::new() };
        if vma.flags.contains(VmFlags::LOCKED) {
            inner.locked_vm += len;
        }
        if let Some(f) = &vma.file {
            f.object.add_mapping(&self.me, start, offset..offset + len, vma.is_shared_writable());
        }
        inner.add_vm(len, vma.is_data());
        let fill =
            args.populate || (flags.contains(VmFlags::LOCKED) && !flags.contains(VmFlags::LOCKONFAULT));
        let accessible = !vma.prot.is_empty();
        // A stack may never be used (that for signals seldom is), and its guard page is often set apart next.
        let eager = accessible && !fill && !stack && !inner.cold && Self::is_eager(&vma, len);
        inner.vmas.insert(range.clone(), vma);
        // What is shown at once takes the place of what was there in one step.
        let want = platform::Access::Read;
        let at_once = eager
            && self.ready(inner, start, want, false).is_ok()
            && inner.pmas.get(start).is_some_and(|(_, e, p)| e >= range.end && p.host_prot().is_some())
            && self.map_host(inner, start, false).is_ok()
            && inner.pmas.get(start).is_some_and(|(.., p)| p.mapped.is_some());
        if at_once {
            super::host::give_back(&old);
        } else {
            self.retire(inner, old);
            if fill && accessible {
                // Errors do not matter: the pages come with the faults, or the faults will tell.
                let _ = self.populate(inner, range, None);
            }
        }
        Ok(start)
    }

    /// Whether a new mapping is shown at once: that is cheaper than the fault that would follow.
    fn is_eager(vma: &Vma, len: u64) -> bool {
        match &vma.file {
            Some(_) => !vma.is_shared() && !vma.prot.contains(Prot::WRITE) && len <= EAGER_FILE,
            None => {
                vma.prot.contains(Prot::WRITE)
                    && len <= EAGER_ANON
                    && !vma.flags.intersects(VmFlags::NORESERVE | VmFlags::GROWSDOWN)
            }
        }
    }

    /// Refuses what is obviously more than there is (`overcommit_memory` 0).
    pub(super) fn may_commit(&self, len: u64, vma: &Vma) -> Result<()> {
        if vma.is_accountable() && len > self.memfile.limit() { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// munmap(2).
    pub fn munmap(&self, addr: u64, len: u64) -> Result<()> {
        let len = page_up(len).unwrap_or(0);
        if addr % PAGE_SIZE != 0 || addr > super::TASK_SIZE || len > super::TASK_SIZE - addr || len == 0 {
            return Err(Errno::EINVAL);
        }
        let mut gone = Gone::default();
        let mut inner = self.inner.write();
        let result = self.unmap_locked(&mut inner, addr..addr + len, &mut gone);
        drop(inner);
        drop(gone);
        result
    }

    /// Takes everything in the range out: mappings, pages, and the platform's view of them.
    pub(super) fn unmap_locked(&self, inner: &mut Inner, r: Range<u64>, gone: &mut Gone) -> Result<()> {
        let pages = self.remove_range(inner, r, gone)?;
        self.retire(inner, pages);
        Ok(())
    }

    /// Takes everything in the range out of the maps. The platform still shows the pages.
    fn remove_range(
        &self,
        inner: &mut Inner,
        r: Range<u64>,
        gone: &mut Gone,
    ) -> Result<Vec<(Range<u64>, super::Pma)>> {
        inner.not_sealed(r.clone())?;
        let splits = inner.vmas.get(r.start).is_some_and(|(s, e, _)| s < r.start && e > r.end);
        if splits && inner.vmas.len() >= MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let out = inner.take_vmas(r.clone());
        if out.is_empty() {
            return Ok(Vec::new());
        }
        for (vr, v) in &out {
            inner.sub_vm(vr.end - vr.start, v);
            if let Some(f) = &v.file {
                let bytes = v.offset..v.offset + (vr.end - vr.start);
                f.object.remove_mapping(&self.me, vr.start, bytes, v.is_shared_writable());
            }
        }
        gone.vmas.extend(out);
        Ok(inner.take_pmas(r))
    }

    /// The shared mapping of an object that holds a whole range, for remap_file_pages(2): what a mapping like it with
    /// another offset is made from. EINVAL.
    pub fn shared_mapping(&self, r: &Range<u64>) -> Result<(Prot, VmFlags, VmFile)> {
        let inner = self.inner.read();
        let (_, end, vma) = inner.vmas.get(r.start).ok_or(Errno::EINVAL)?;
        match &vma.file {
            Some(f) if vma.is_shared() && end >= r.end => Ok((vma.prot, vma.flags, f.clone())),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Takes out what is left of an object's mapping that began at `addr` with the object's first byte (shmdt(2)); `is`
    /// says which objects are meant. The object; EINVAL when there is none.
    pub fn detach(&self, addr: u64, is: &dyn Fn(&dyn super::Mappable) -> bool) -> Result<VmFile> {
        let mut gone = Gone::default();
        let mut inner = self.inner.write();
        let begins = |s: u64, v: &Vma| s.checked_sub(v.offset) == Some(addr);
        let first = inner.vmas.overlapping(addr..super::TASK_SIZE).find_map(|(s, _, v)| {
            let f = v.file.as_ref()?;
            (begins(s, v) && is(&*f.object)).then(|| f.clone())
        });
        let object = first.ok_or(Errno::EINVAL)?;
        let parts: Vec<Range<u64>> = inner
            .vmas
            .overlapping(addr..super::TASK_SIZE)
            .filter(|(s, _, v)| begins(*s, v) && v.file.as_ref().is_some_and(|f| f.same(&object)))
            .map(|(s, e, _)| s..e)
            .collect();
        for r in parts {
            self.unmap_locked(&mut inner, r, &mut gone)?;
        }
        drop(inner);
        drop(gone);
        Ok(object)
    }

    /// Whether an address is lower than what anybody may map.
    pub fn below_minimum(addr: u64) -> bool {
        addr < MMAP_MIN_ADDR
    }
}
