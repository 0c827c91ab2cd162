//! mprotect(2), and names of anonymous memory.

use super::{Inner, MAX_MAP_COUNT, Mm, MmLimits, VmFlags};
use abi::{Errno, PAGE_SIZE, Result, page_up};
use platform::Prot;
use std::ops::Range;
use std::sync::Arc;

impl Mm {
    /// mprotect(2). `grows_down`: `PROT_GROWSDOWN`. Mappings before one that cannot be changed are changed.
    pub fn mprotect(
        &self,
        addr: u64,
        len: u64,
        prot: Prot,
        grows_down: bool,
        limits: &MmLimits,
    ) -> Result<()> {
        if addr % PAGE_SIZE != 0 {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let len = page_up(len).filter(|l| *l != 0).ok_or(Errno::ENOMEM)?;
        let end = addr.checked_add(len).ok_or(Errno::ENOMEM)?;
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let (vs, _, first) = inner.vmas.find(addr).ok_or(Errno::ENOMEM)?;
        let mut start = addr;
        if grows_down {
            if vs >= end {
                return Err(Errno::ENOMEM);
            }
            if !first.flags.contains(VmFlags::GROWSDOWN) {
                return Err(Errno::EINVAL);
            }
            start = vs;
        } else if vs > addr {
            return Err(Errno::ENOMEM);
        }
        let (done, result) = self.set_prot(inner, start..end, prot, limits);
        if done > start {
            self.apply_prot(inner, start..done, prot).map_err(|e| {
                tracing::warn!(error = %e, "mprotect");
                Errno::ENOMEM
            })?;
        }
        result
    }

    /// Changes the mappings of a range up to the first that cannot be changed; where that is, and why it ended.
    fn set_prot(&self, inner: &mut Inner, r: Range<u64>, prot: Prot, limits: &MmLimits) -> (u64, Result<()>) {
        let mut at = r.start;
        let mut result = Ok(());
        while at < r.end {
            let Some((_, ve, vma)) = inner.vmas.get(at) else {
                result = Err(Errno::ENOMEM);
                break;
            };
            if vma.flags.contains(VmFlags::SEALED) {
                result = Err(Errno::EPERM);
                break;
            }
            let piece = at..ve.min(r.end);
            let need = [
                (Prot::READ, VmFlags::MAYREAD),
                (Prot::WRITE, VmFlags::MAYWRITE),
                (Prot::EXEC, VmFlags::MAYEXEC),
            ];
            if need.iter().any(|(p, may)| prot.contains(*p) && !vma.flags.contains(*may)) {
                result = Err(Errno::EACCES);
                break;
            }
            if vma.prot != prot {
                let mut new = vma.clone();
                new.prot = prot;
                let len = piece.end - piece.start;
                let (was, is) = (vma.is_data(), new.is_data());
                let commits = new.is_accountable() && !vma.is_accountable();
                if !was && is && inner.may_expand(0, false, limits).and(inner.data_fits(len, limits)).is_err()
                {
                    result = Err(Errno::ENOMEM);
                    break;
                }
                if commits && self.may_commit(len, &new).is_err() || inner.vmas.len() + 2 > MAX_MAP_COUNT {
                    result = Err(Errno::ENOMEM);
                    break;
                }
                if was && !is {
                    inner.data_vm = inner.data_vm.saturating_sub(len);
                } else if is && !was {
                    inner.data_vm += len;
                }
                inner.vmas.change(piece.clone(), |_, v| v.prot = prot);
            }
            at = piece.end;
        }
        (at, result)
    }

    /// mseal(2): ENOMEM when a part is not mapped.
    pub fn mseal(&self, addr: u64, len: u64) -> Result<()> {
        if addr % PAGE_SIZE != 0 {
            return Err(Errno::EINVAL);
        }
        let len = page_up(len).ok_or(Errno::EINVAL)?;
        let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
        let mut inner = self.inner.write();
        if !inner.vmas.gaps(addr..end).is_empty() {
            return Err(Errno::ENOMEM);
        }
        inner.vmas.change(addr..end, |_, v| v.flags |= VmFlags::SEALED);
        Ok(())
    }

    /// prctl(`PR_SET_VMA_ANON_NAME`): names the private anonymous memory of a range. ENOMEM for holes, EBADF for
    /// other mappings.
    pub fn set_anon_name(&self, addr: u64, len: u64, name: Option<Arc<[u8]>>) -> Result<()> {
        let len = page_up(len).ok_or(Errno::EINVAL)?;
        let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
        if addr % PAGE_SIZE != 0 {
            return Err(Errno::EINVAL);
        }
        let mut inner = self.inner.write();
        let holes = !inner.vmas.gaps(addr..end).is_empty();
        let parts: Vec<(Range<u64>, bool)> = inner
            .vmas
            .overlapping(addr..end)
            .map(|(s, e, v)| {
                (s.max(addr)..e.min(end), v.file.is_none() && !v.flags.contains(VmFlags::SPECIAL))
            })
            .collect();
        for (r, anonymous) in parts {
            if !anonymous {
                return Err(Errno::EBADF);
            }
            inner.vmas.change(r, |_, v| v.name = name.clone());
        }
        if holes { Err(Errno::ENOMEM) } else { Ok(()) }
    }
}

impl Inner {
    /// EPERM if a mapping in the range is sealed.
    pub(super) fn not_sealed(&self, r: Range<u64>) -> Result<()> {
        let sealed = self.vmas.overlapping(r).any(|(.., v)| v.flags.contains(VmFlags::SEALED));
        if sealed { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Whether `more` bytes of data fit into `RLIMIT_DATA`.
    fn data_fits(&self, more: u64, limits: &MmLimits) -> Result<()> {
        if self.data_vm.saturating_add(more) > limits.data { Err(Errno::ENOMEM) } else { Ok(()) }
    }
}
