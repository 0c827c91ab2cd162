//! Where a new mapping goes.

use super::{Inner, Mm, Placement, STACK_GUARD_GAP, VmFlags, Vma};
use abi::{Errno, PAGE_SIZE, Result, page_down};
use std::ops::Range;

/// What searches from the top have learnt, so that one does not pass all mappings of a process that has thousands: from an
/// address upwards no gap takes so many bytes. For some lengths, the one asked for last first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NoRoom([Option<Known>; 4]);

#[derive(Clone, Copy, Debug)]
struct Known {
    len: u64,
    from: u64,
}

impl NoRoom {
    /// Where a search for `len` bytes begins.
    fn start(&self, len: u64) -> u64 {
        self.0.iter().flatten().filter(|k| k.len <= len).map(|k| k.from).min().unwrap_or(u64::MAX)
    }

    fn learn(&mut self, len: u64, from: u64) {
        let last = self.0.len() - 1;
        let place = self.0.iter().position(|k| k.is_none_or(|k| k.len == len)).unwrap_or(last);
        self.0[place] = Some(Known { len, from });
        self.0[..=place].rotate_right(1);
    }

    /// There is a new gap that ends at `end`.
    fn gap(&mut self, end: u64) {
        for k in self.0.iter_mut().flatten() {
            k.from = k.from.max(end);
        }
    }
}

impl Inner {
    /// The lowest address that a new mapping may not touch because of the mapping `(start, vma)` above it.
    fn low_edge(start: u64, vma: &Vma) -> u64 {
        if vma.flags.contains(VmFlags::GROWSDOWN) { start.saturating_sub(STACK_GUARD_GAP) } else { start }
    }

    /// Whether nothing is mapped in `r`, guard gap of a stack above included.
    fn is_room(&self, r: Range<u64>) -> bool {
        match self.vmas.find(r.start) {
            None => true,
            Some((s, _, v)) => s >= r.end && Self::low_edge(s, v) >= r.end,
        }
    }

    /// The highest free `len` bytes in `lo..hi`; `hi` is always the same.
    fn find_top_down(&mut self, len: u64, lo: u64, hi: u64) -> Option<u64> {
        let hi = self.no_room.start(len).min(hi);
        // Until a mapping says otherwise, free space reaches up to `hi`.
        let mut top = hi;
        if let Some((s, _, v)) = self.vmas.find(hi) {
            top = top.min(Self::low_edge(s, v));
        }
        for (s, e, v) in self.vmas.descending(hi) {
            let end = e.min(hi);
            if top > end && top - end >= len {
                break;
            }
            top = top.min(Self::low_edge(s, v));
            if top < lo.saturating_add(len) {
                return None;
            }
        }
        let at = top.checked_sub(len)?;
        if at < lo || !self.is_room(at..top) {
            return None;
        }
        self.no_room.learn(len, top);
        Some(at)
    }

    /// The lowest free `len` bytes in `lo..hi`.
    fn find_bottom_up(&self, len: u64, lo: u64, hi: u64) -> Option<u64> {
        let mut at = lo;
        loop {
            let end = at.checked_add(len)?;
            if end > hi {
                return None;
            }
            match self.vmas.find(at) {
                None => return Some(at),
                Some((s, e, v)) => {
                    if s >= end && Self::low_edge(s, v) >= end {
                        return Some(at);
                    }
                    at = e;
                }
            }
        }
    }

    /// Takes the mappings in `r` out.
    pub(super) fn take_vmas(&mut self, r: Range<u64>) -> Vec<(Range<u64>, Vma)> {
        let out = self.vmas.remove(r.clone());
        let end = self.vmas.find(r.end).map_or(u64::MAX, |(s, ..)| s.max(r.end));
        self.no_room.gap(end);
        out
    }
}

impl Mm {
    /// Finds room for `len` bytes (`get_unmapped_area`).
    pub(super) fn find_room(&self, inner: &mut Inner, at: Placement, len: u64) -> Result<u64> {
        let max = self.limits.max;
        if len > max {
            return Err(Errno::ENOMEM);
        }
        match at {
            Placement::Fixed(a) | Placement::FixedNoReplace(a) => {
                if a % PAGE_SIZE != 0 {
                    return Err(Errno::EINVAL);
                }
                if a > max - len {
                    return Err(Errno::ENOMEM);
                }
                if a < self.limits.min {
                    return Err(Errno::EPERM);
                }
                if matches!(at, Placement::FixedNoReplace(_)) && !inner.vmas.is_free(a..a + len) {
                    return Err(Errno::EEXIST);
                }
                Ok(a)
            }
            Placement::Hint(hint) | Placement::Low(hint) => {
                let low = matches!(at, Placement::Low(_));
                let top = if low { 0x8000_0000 } else { max };
                if hint != 0 {
                    // As Linux does: a hint below the lowest address is that address.
                    let a = page_down(hint).max(self.limits.min);
                    if len <= top && a <= top - len && inner.is_room(a..a + len) {
                        return Ok(a);
                    }
                }
                if low {
                    return inner.find_bottom_up(len, 0x4000_0000, 0x8000_0000).ok_or(Errno::ENOMEM);
                }
                let base = inner.layout.mmap_base.min(max);
                let bottom = self.limits.min;
                inner
                    .find_top_down(len, bottom, base)
                    .or_else(|| inner.find_bottom_up(len, (max / 3) & !(PAGE_SIZE - 1), max))
                    .ok_or(Errno::ENOMEM)
            }
        }
    }

    /// Free room of `len` bytes at a multiple of `align` (a power of two, at least a page), where mmap would look.
    pub fn free_range(&self, len: u64, align: u64) -> Result<u64> {
        let mut inner = self.inner.write();
        let more = len.checked_add(align - PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        let at = self.find_room(&mut inner, Placement::Hint(0), more)?;
        Ok(at.next_multiple_of(align))
    }
}

#[cfg(test)]
mod tests {
    use super::NoRoom;

    #[test]
    fn searches_begin_below_what_is_known() {
        let mut n = NoRoom::default();
        assert_eq!(n.start(1), u64::MAX);
        n.learn(10, 500);
        n.learn(4, 800);
        assert_eq!((n.start(3), n.start(4), n.start(10), n.start(99)), (u64::MAX, 800, 500, 500));
        n.learn(10, 400);
        assert_eq!(n.start(12), 400);
        n.gap(600);
        assert_eq!((n.start(4), n.start(12)), (800, 600));
        for len in 20..24 {
            n.learn(len, 300);
        }
        assert_eq!((n.start(12), n.start(20)), (u64::MAX, 300), "the oldest make way");
    }
}
