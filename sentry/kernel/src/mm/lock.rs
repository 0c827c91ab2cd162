//! mlock(2) and kin. Guest memory is never swapped by us; what counts are limits, flags and that pages are there.

use super::{Inner, Mm, MmLimits, VmFlags};
use abi::{Errno, PAGE_SIZE, Result, page_down, page_up};
use bitflags::bitflags;
use std::ops::Range;

bitflags! {
    /// `MCL_*`
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct LockAll: u32 {
        const CURRENT = 1;
        const FUTURE = 2;
        const ONFAULT = 4;
    }
}

const LOCK_FLAGS: VmFlags = VmFlags::LOCKED.union(VmFlags::LOCKONFAULT);

fn page_range(addr: u64, len: u64) -> Result<Range<u64>> {
    let start = page_down(addr);
    let len = len.checked_add(addr % PAGE_SIZE).and_then(page_up).ok_or(Errno::EINVAL)?;
    let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
    Ok(start..end)
}

impl Mm {
    /// mlock2(2); `on_fault`: `MLOCK_ONFAULT`.
    pub fn mlock(&self, addr: u64, len: u64, on_fault: bool, limits: &MmLimits) -> Result<()> {
        if !limits.may_lock && limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        let r =
            page_range(addr, len).map_err(|_| if limits.may_lock { Errno::EINVAL } else { Errno::ENOMEM })?;
        let mut inner = self.inner.write();
        let already: u64 = inner
            .vmas
            .overlapping(r.clone())
            .filter(|(.., v)| v.flags.contains(VmFlags::LOCKED))
            .map(|(s, e, _)| e.min(r.end) - s.max(r.start))
            .sum();
        if !inner.may_lock((r.end - r.start).saturating_sub(already), limits) {
            return Err(Errno::ENOMEM);
        }
        let set = if on_fault { LOCK_FLAGS } else { VmFlags::LOCKED };
        Self::set_lock(&mut inner, r.clone(), set)?;
        if !on_fault {
            self.populate(&mut inner, r, None).map_err(|_| Errno::ENOMEM)?;
        }
        Ok(())
    }

    /// munlock(2).
    pub fn munlock(&self, addr: u64, len: u64) -> Result<()> {
        let r = page_range(addr, len)?;
        Self::set_lock(&mut self.inner.write(), r, VmFlags::empty())
    }

    /// Sets the lock flags of mappings up to the first hole; ENOMEM if there is one.
    fn set_lock(inner: &mut Inner, r: Range<u64>, set: VmFlags) -> Result<()> {
        let mut at = r.start;
        while at < r.end {
            let (_, ve, vma) = inner.vmas.get(at).ok_or(Errno::ENOMEM)?;
            let piece = at..ve.min(r.end);
            at = piece.end;
            if vma.flags.contains(VmFlags::SPECIAL) {
                continue;
            }
            let len = piece.end - piece.start;
            match (vma.flags.contains(VmFlags::LOCKED), set.contains(VmFlags::LOCKED)) {
                (false, true) => inner.locked_vm += len,
                (true, false) => inner.locked_vm = inner.locked_vm.saturating_sub(len),
                _ => {}
            }
            inner.vmas.change(piece, |_, v| v.flags = (v.flags - LOCK_FLAGS) | set);
        }
        Ok(())
    }

    /// mlockall(2).
    pub fn mlockall(&self, flags: LockAll, limits: &MmLimits) -> Result<()> {
        if flags.is_empty() || flags == LockAll::ONFAULT {
            return Err(Errno::EINVAL);
        }
        if !limits.may_lock && limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        let set = if flags.contains(LockAll::ONFAULT) { LOCK_FLAGS } else { VmFlags::LOCKED };
        let mut inner = self.inner.write();
        if flags.contains(LockAll::CURRENT) && !limits.may_lock && inner.total_vm > limits.memlock {
            return Err(Errno::ENOMEM);
        }
        inner.def_flags = if flags.contains(LockAll::FUTURE) { set } else { VmFlags::empty() };
        if flags.contains(LockAll::CURRENT) {
            let all: Vec<Range<u64>> = inner.vmas.iter().map(|(s, e, _)| s..e).collect();
            for r in all {
                let _ = Self::set_lock(&mut inner, r.clone(), set);
                if !flags.contains(LockAll::ONFAULT) {
                    // As Linux: pages that cannot be had are no error here.
                    let _ = self.populate(&mut inner, r, None);
                }
            }
        }
        Ok(())
    }

    /// munlockall(2).
    pub fn munlockall(&self) {
        let mut inner = self.inner.write();
        inner.def_flags = VmFlags::empty();
        let all: Vec<Range<u64>> = inner.vmas.iter().map(|(s, e, _)| s..e).collect();
        for r in all {
            let _ = Self::set_lock(&mut inner, r, VmFlags::empty());
        }
    }
}
