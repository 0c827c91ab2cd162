//! madvise(2), msync(2) and mincore(2).

use super::fault::Miss;
use super::{Mm, Pma, VmFile, VmFlags};
use abi::{Errno, PAGE_SIZE, Result, page_up};
use platform::{Access, Backing, Prot};
use std::ops::Range;

/// The advice values of madvise(2) that are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    Normal,
    Random,
    Sequential,
    WillNeed,
    DontNeed,
    Free,
    Remove,
    DontFork,
    DoFork,
    Mergeable,
    Unmergeable,
    HugePage,
    NoHugePage,
    DontDump,
    DoDump,
    WipeOnFork,
    KeepOnFork,
    Cold,
    PageOut,
    PopulateRead,
    PopulateWrite,
    DontNeedLocked,
    Collapse,
}

impl Advice {
    /// From the number; EINVAL for others.
    pub fn from_raw(raw: i32) -> Result<Advice> {
        Ok(match raw {
            0 => Advice::Normal,
            1 => Advice::Random,
            2 => Advice::Sequential,
            3 => Advice::WillNeed,
            4 => Advice::DontNeed,
            8 => Advice::Free,
            9 => Advice::Remove,
            10 => Advice::DontFork,
            11 => Advice::DoFork,
            12 => Advice::Mergeable,
            13 => Advice::Unmergeable,
            14 => Advice::HugePage,
            15 => Advice::NoHugePage,
            16 => Advice::DontDump,
            17 => Advice::DoDump,
            18 => Advice::WipeOnFork,
            19 => Advice::KeepOnFork,
            20 => Advice::Cold,
            21 => Advice::PageOut,
            22 => Advice::PopulateRead,
            23 => Advice::PopulateWrite,
            24 => Advice::DontNeedLocked,
            25 => Advice::Collapse,
            _ => return Err(Errno::EINVAL),
        })
    }
}

/// Bytes of an object that a call is about, handed out so that the work on it is done without locks.
pub struct ObjectRange {
    pub file: VmFile,
    pub range: Range<u64>,
}

impl Mm {
    /// madvise(2). For `Remove` the ranges of objects to punch come back, for the caller to do it through the files.
    pub fn madvise(&self, addr: u64, len: u64, advice: Advice) -> Result<Vec<ObjectRange>> {
        if addr % PAGE_SIZE != 0 {
            return Err(Errno::EINVAL);
        }
        let len = page_up(len).ok_or(Errno::EINVAL)?;
        let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
        if end == addr {
            return Ok(Vec::new());
        }
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        if let Advice::PopulateRead | Advice::PopulateWrite = advice {
            let want = if advice == Advice::PopulateRead { Access::Read } else { Access::Write };
            self.populate(inner, addr..end, Some(want)).map_err(|m| match m {
                Miss::NotMapped | Miss::NoMemory | Miss::OverLimit | Miss::Dead => Errno::ENOMEM,
                Miss::Denied => Errno::EINVAL,
                Miss::Bus => Errno::EFAULT,
            })?;
            return Ok(Vec::new());
        }
        let mut hole = false;
        let mut punch = Vec::new();
        let mut at = addr;
        while at < end {
            let Some((vs, ve, vma)) = inner.vmas.find(at) else {
                hole = true;
                break;
            };
            if vs > at {
                hole = true;
                at = vs;
                continue;
            }
            let piece = at..ve.min(end);
            at = piece.end;
            let f = vma.flags;
            let special = f.contains(VmFlags::SPECIAL);
            let anonymous = vma.file.is_none() && !special;
            let discards = matches!(
                advice,
                Advice::DontNeed
                    | Advice::DontNeedLocked
                    | Advice::Free
                    | Advice::Remove
                    | Advice::DontFork
                    | Advice::WipeOnFork
            );
            if discards && f.contains(VmFlags::SEALED) && !vma.is_shared() && !vma.prot.contains(Prot::WRITE)
            {
                return Err(Errno::EPERM);
            }
            let (mut set, mut clear) = (VmFlags::empty(), VmFlags::empty());
            match advice {
                Advice::Normal => clear = VmFlags::SEQ_READ | VmFlags::RAND_READ,
                Advice::Random => (set, clear) = (VmFlags::RAND_READ, VmFlags::SEQ_READ),
                Advice::Sequential => (set, clear) = (VmFlags::SEQ_READ, VmFlags::RAND_READ),
                Advice::WillNeed | Advice::Mergeable | Advice::Unmergeable | Advice::Collapse => {}
                Advice::DontNeed | Advice::DontNeedLocked => {
                    if special || f.contains(VmFlags::LOCKED) && advice == Advice::DontNeed {
                        return Err(Errno::EINVAL);
                    }
                    self.drop_pages(inner, piece.clone());
                }
                Advice::Free => {
                    if !anonymous || vma.is_shared() {
                        return Err(Errno::EINVAL);
                    }
                    self.drop_pages(inner, piece.clone());
                }
                Advice::Cold | Advice::PageOut => {
                    if special || f.contains(VmFlags::LOCKED) {
                        return Err(Errno::EINVAL);
                    }
                }
                Advice::Remove => {
                    if f.contains(VmFlags::LOCKED) {
                        return Err(Errno::EINVAL);
                    }
                    let Some(file) = &vma.file else { return Err(Errno::EINVAL) };
                    if !vma.is_shared()
                        || !vma.flags.contains(VmFlags::MAYWRITE)
                        || !vma.prot.contains(Prot::WRITE)
                    {
                        return Err(Errno::EACCES);
                    }
                    let off = vma.offset + (piece.start - vs);
                    punch.push(ObjectRange {
                        file: file.clone(),
                        range: off..off + (piece.end - piece.start),
                    });
                }
                Advice::DontFork => set = VmFlags::DONTCOPY,
                Advice::DoFork => clear = VmFlags::DONTCOPY,
                Advice::DontDump => set = VmFlags::DONTDUMP,
                Advice::DoDump => clear = VmFlags::DONTDUMP,
                Advice::HugePage => (set, clear) = (VmFlags::HUGEPAGE, VmFlags::NOHUGEPAGE),
                Advice::NoHugePage => (set, clear) = (VmFlags::NOHUGEPAGE, VmFlags::HUGEPAGE),
                Advice::WipeOnFork => {
                    if !anonymous || vma.is_shared() {
                        return Err(Errno::EINVAL);
                    }
                    set = VmFlags::WIPEONFORK;
                }
                Advice::KeepOnFork => {
                    if f.contains(VmFlags::DONTCOPY) && special {
                        return Err(Errno::EINVAL);
                    }
                    clear = VmFlags::WIPEONFORK;
                }
                Advice::PopulateRead | Advice::PopulateWrite => {}
            }
            if !(set.is_empty() && clear.is_empty()) {
                inner.vmas.change(piece, |_, v| v.flags = (v.flags - clear) | set);
            }
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(punch) }
    }

    /// msync(2): the objects to sync (shared mappings of files only); ENOMEM comes in the flag, since what is mapped is
    /// synced all the same. EBUSY: `MS_INVALIDATE` of locked memory.
    pub fn msync_ranges(&self, r: Range<u64>, invalidate: bool) -> Result<(Vec<ObjectRange>, bool)> {
        let inner = self.inner.read();
        let hole = !inner.vmas.gaps(r.clone()).is_empty();
        let mut out = Vec::new();
        for (s, e, v) in inner.vmas.overlapping(r.clone()) {
            if invalidate && v.flags.contains(VmFlags::LOCKED) {
                return Err(Errno::EBUSY);
            }
            if let Some(f) = &v.file
                && v.is_shared()
            {
                let (lo, hi) = (s.max(r.start), e.min(r.end));
                let off = v.offset + (lo - s);
                out.push(ObjectRange { file: f.clone(), range: off..off + (hi - lo) });
            }
        }
        Ok((out, hole))
    }

    /// mincore(2): a byte for each page of the range. ENOMEM when a part is not mapped.
    pub fn mincore(&self, r: Range<u64>) -> Result<Vec<u8>> {
        let inner = self.inner.read();
        if !inner.vmas.gaps(r.clone()).is_empty() {
            return Err(Errno::ENOMEM);
        }
        let pages = usize::try_from((r.end - r.start) / PAGE_SIZE).map_err(|_| Errno::ENOMEM)?;
        let mut out = vec![0u8; pages];
        for (s, e, p) in inner.pmas.overlapping(r.clone()) {
            let run = s.max(r.start)..e.min(r.end);
            for part in touched(p, s, run) {
                let from = usize::try_from((part.start - r.start) / PAGE_SIZE).unwrap_or(0);
                let to = usize::try_from((part.end - r.start) / PAGE_SIZE).unwrap_or(0).min(pages);
                out[from..to].fill(1);
            }
        }
        Ok(out)
    }
}

/// The parts of a run (which starts at `start`) inside `r` whose pages exist. Memory that was backed ahead but never
/// touched is a hole in the memory file.
pub(super) fn touched(p: &Pma, start: u64, r: Range<u64>) -> Vec<Range<u64>> {
    let Backing::Memory(m) = &p.backing else { return vec![r] };
    let file = m.host_file();
    let to_addr = |off: u64| start + (off - p.off);
    let (mut at, end) = (p.off + (r.start - start), p.off + (r.end - start));
    let mut out = Vec::new();
    while at < end {
        // An error says that no data follows.
        let Ok(data) = file.seek_hole_data(at, false) else { break };
        if data >= end {
            break;
        }
        let hole = file.seek_hole_data(data, true).unwrap_or(end).min(end);
        out.push(to_addr(data)..to_addr(hole));
        at = hole.max(data + PAGE_SIZE);
    }
    out
}
