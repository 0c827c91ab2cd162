//! brk(2).

use super::{Gone, Mm, MmLimits, VmFlags, Vma};
use abi::page_up;
use platform::Prot;

impl Mm {
    /// brk(2): the new break, or the old one when it cannot be moved.
    pub fn brk(&self, to: u64, limits: &MmLimits) -> u64 {
        let mut gone = Gone::default();
        let mut inner = self.inner.write();
        let (start, old) = (inner.layout.start_brk, inner.layout.brk);
        if to < start || to == 0 {
            return old;
        }
        let (Some(from), Some(end)) = (page_up(old), page_up(to)) else { return old };
        if to <= old {
            if end < from && self.unmap_locked(&mut inner, end..from, &mut gone).is_err() {
                return old;
            }
            inner.layout.brk = to;
            drop(inner);
            drop(gone);
            return to;
        }
        let data = inner.layout.end_data.saturating_sub(inner.layout.start_data);
        if (to - start).saturating_add(data) > limits.data {
            return old;
        }
        if end > from {
            let more = end - from;
            let vma = Vma::anonymous(Prot::READ | Prot::WRITE, inner.def_flags);
            let next_ok = match inner.vmas.find(from) {
                None => true,
                Some((s, _, v)) => {
                    let gap = if v.flags.contains(VmFlags::GROWSDOWN) { super::STACK_GUARD_GAP } else { 0 };
                    s.saturating_sub(gap) >= end + abi::PAGE_SIZE
                }
            };
            let fits = next_ok
                && end < self.limits.max
                && from >= self.limits.min
                && inner.may_expand(more, true, limits).is_ok()
                && self.may_commit(more, &vma).is_ok()
                && (!vma.flags.contains(VmFlags::LOCKED) || inner.may_lock(more, limits));
            if !fits {
                return old;
            }
            inner.add_vm(more, true);
            if vma.flags.contains(VmFlags::LOCKED) {
                inner.locked_vm += more;
            }
            let fill = vma.flags.contains(VmFlags::LOCKED) && !vma.flags.contains(VmFlags::LOCKONFAULT);
            inner.vmas.insert(from..end, vma);
            if fill {
                let _ = self.populate(&mut inner, from..end, None);
            }
        }
        inner.layout.brk = to;
        to
    }
}
