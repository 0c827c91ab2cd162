//! mremap(2).

use super::{Gone, Inner, MAX_MAP_COUNT, Mm, MmLimits, Placement, Pma, VmFlags, Vma};
use abi::{Errno, PAGE_SIZE, Result, page_up};
use bitflags::bitflags;
use std::ops::Range;

bitflags! {
    /// `MREMAP_*`
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct RemapFlags: u32 {
        const MAYMOVE = 1;
        const FIXED = 2;
        const DONTUNMAP = 4;
    }
}

impl Mm {
    /// mremap(2). The new address.
    pub fn mremap(
        &self,
        old: u64,
        old_len: u64,
        new_len: u64,
        flags: u64,
        new_addr: u64,
        limits: &MmLimits,
    ) -> Result<u64> {
        let flags = u32::try_from(flags).ok().and_then(RemapFlags::from_bits).ok_or(Errno::EINVAL)?;
        let moves = flags.contains(RemapFlags::MAYMOVE);
        if flags.intersects(RemapFlags::FIXED | RemapFlags::DONTUNMAP) && !moves {
            return Err(Errno::EINVAL);
        }
        if old % PAGE_SIZE != 0 {
            return Err(Errno::EINVAL);
        }
        let old_len = page_up(old_len).ok_or(Errno::EINVAL)?;
        let new_len = page_up(new_len).filter(|l| *l != 0).ok_or(Errno::EINVAL)?;
        if flags.contains(RemapFlags::DONTUNMAP) && old_len != new_len {
            return Err(Errno::EINVAL);
        }
        let mut gone = Gone::default();
        let mut inner = self.inner.write();
        let result =
            self.mremap_locked(&mut inner, old, old_len, new_len, flags, new_addr, limits, &mut gone);
        if let Ok((at, populate)) = &result
            && let Some(r) = populate
        {
            let _ = (at, self.populate(&mut inner, r.clone(), None));
        }
        drop(inner);
        drop(gone);
        result.map(|(at, _)| at)
    }

    #[expect(clippy::too_many_arguments, reason = "mremap has this many")]
    fn mremap_locked(
        &self,
        inner: &mut Inner,
        old: u64,
        mut old_len: u64,
        new_len: u64,
        flags: RemapFlags,
        new_addr: u64,
        limits: &MmLimits,
        gone: &mut Gone,
    ) -> Result<(u64, Option<Range<u64>>)> {
        let fixed = flags.contains(RemapFlags::FIXED);
        let keep = flags.contains(RemapFlags::DONTUNMAP);
        if fixed || keep {
            if fixed {
                if new_addr % PAGE_SIZE != 0
                    || new_len > self.limits.max
                    || new_addr > self.limits.max - new_len
                {
                    return Err(Errno::EINVAL);
                }
                let old_end = old.checked_add(old_len).ok_or(Errno::EINVAL)?;
                if old_end > new_addr && new_addr + new_len > old {
                    return Err(Errno::EINVAL);
                }
                if new_addr < self.limits.min {
                    return Err(Errno::EPERM);
                }
            }
            if inner.vmas.len() + 4 >= MAX_MAP_COUNT {
                return Err(Errno::ENOMEM);
            }
        }
        let (_, ve, vma) = inner.vmas.get(old).ok_or(Errno::EFAULT)?;
        let vma = vma.clone();
        inner.not_sealed(old..old.saturating_add(old_len.max(1)))?;
        if old_len == 0 && !vma.is_shared() {
            return Err(Errno::EINVAL);
        }
        if fixed {
            self.unmap_locked(inner, new_addr..new_addr + new_len, gone)?;
        }
        if old_len > new_len {
            self.unmap_locked(inner, old + new_len..old + old_len, gone)?;
            old_len = new_len;
            if !fixed && !keep {
                return Ok((old, None));
            }
        } else if old_len == new_len && !fixed && !keep {
            if old_len > ve - old {
                return Err(Errno::EFAULT);
            }
            return Ok((old, None));
        }
        if old_len > ve - old {
            return Err(Errno::EFAULT);
        }
        let grow = new_len - old_len;
        if grow > 0 {
            if vma.flags.contains(VmFlags::SPECIAL) {
                return Err(Errno::EFAULT);
            }
            if vma.file.is_some() {
                let offset = inner.vmas.get(old).map_or(0, |(s, _, v)| v.offset + (old - s));
                if offset.checked_add(new_len).is_none_or(|e| i64::try_from(e).is_err()) {
                    return Err(Errno::EINVAL);
                }
            }
        }
        let more = if keep || old_len == 0 { new_len } else { grow };
        if vma.flags.contains(VmFlags::LOCKED) && !inner.may_lock(more, limits) {
            return Err(Errno::EAGAIN);
        }
        inner.may_expand(more, vma.is_data(), limits)?;
        self.may_commit(grow, &vma)?;
        // In place?
        let end = old + old_len;
        if !fixed && !keep && old_len > 0 && end == ve {
            let room = new_len <= self.limits.max && old <= self.limits.max - new_len;
            if room
                && inner.vmas.is_free(end..old + new_len)
                && self.find_room(inner, Placement::Hint(end), grow) == Ok(end)
            {
                self.extend(inner, end, grow, old);
                return Ok((old, vma.flags.contains(VmFlags::LOCKED).then(|| end..old + new_len)));
            }
        }
        if !flags.contains(RemapFlags::MAYMOVE) {
            return Err(Errno::ENOMEM);
        }
        let hint = if new_addr != 0 && keep { new_addr } else { 0 };
        let to = if fixed { new_addr } else { self.find_room(inner, Placement::Hint(hint), new_len)? };
        self.move_mapping(inner, old..end, to, new_len, keep, gone);
        let populate = (vma.flags.contains(VmFlags::LOCKED) && grow > 0).then(|| to + old_len..to + new_len);
        Ok((to, populate))
    }

    /// Makes the mapping that ends at `end` longer.
    fn extend(&self, inner: &mut Inner, end: u64, grow: u64, inside: u64) {
        let Some((s, _, vma)) = inner.vmas.get(inside) else { return };
        let mut more = vma.clone();
        if more.file.is_some() {
            more.offset += end - s;
        }
        if let Some(f) = &more.file {
            f.object.add_mapping(&self.me, end, more.offset..more.offset + grow, more.is_shared_writable());
        }
        inner.add_vm(grow, more.is_data());
        if more.flags.contains(VmFlags::LOCKED) {
            inner.locked_vm += grow;
        }
        inner.vmas.insert(end..end + grow, more);
    }

    /// Moves (with `keep` or an empty range: doubles) the mapping of `from` to `to`, `new_len` bytes long there.
    fn move_mapping(
        &self,
        inner: &mut Inner,
        from: Range<u64>,
        to: u64,
        new_len: u64,
        keep: bool,
        gone: &mut Gone,
    ) {
        let Some((s, _, vma)) = inner.vmas.get(from.start) else { return };
        let mut new = vma.clone();
        if new.file.is_some() {
            new.offset += from.start - s;
        }
        if let Some(f) = &new.file {
            f.object.add_mapping(&self.me, to, new.offset..new.offset + new_len, new.is_shared_writable());
        }
        inner.add_vm(new_len, new.is_data());
        if new.flags.contains(VmFlags::LOCKED) {
            inner.locked_vm += new_len;
        }
        // The pages go along.
        let pages: Vec<(Range<u64>, Pma)> = inner.take_pmas(from.clone());
        if !self.hide(&pages) {
            // They stay visible at the old place: never give them to anybody else.
            for (r, p) in &pages {
                if let platform::Backing::Memory(m) = &p.backing {
                    m.inc_ref(platform::FileRange { start: p.off, end: p.off + (r.end - r.start) });
                }
                inner.leaked += r.end - r.start;
            }
        }
        for (r, mut p) in pages {
            p.mapped = None;
            let at = to + (r.start - from.start);
            inner.add_pma(at..at + (r.end - r.start), p);
        }
        let removed: Vec<(Range<u64>, Vma)> =
            if keep || from.is_empty() { Vec::new() } else { inner.take_vmas(from.clone()) };
        for (r, v) in &removed {
            inner.sub_vm(r.end - r.start, v);
            if let Some(f) = &v.file {
                let bytes = v.offset..v.offset + (r.end - r.start);
                f.object.remove_mapping(&self.me, r.start, bytes, v.is_shared_writable());
            }
        }
        if keep && new.flags.contains(VmFlags::LOCKED) {
            // What stays behind is no longer locked.
            let len = from.end - from.start;
            inner.locked_vm = inner.locked_vm.saturating_sub(len);
            inner.vmas.change(from, |_, v| v.flags -= VmFlags::LOCKED | VmFlags::LOCKONFAULT);
        }
        inner.vmas.insert(to..to + new_len, new);
        // Programs that move memory go on to use it.
        let _ = self.map_host_range(inner, to..to + new_len, 4);
        gone.vmas.extend(removed);
    }
}
