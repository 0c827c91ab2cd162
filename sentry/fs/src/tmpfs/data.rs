//! The contents of a regular file: runs of pages of the memory file by offset, holes between them.
//!
//! Two locks: `rw` (i_rwsem) is held shared over a read and alone over everything that changes or frees
//! pages, so guest memory can be copied under it; `state` guards the tables for moments, also for page faults, which
//! only ever add pages.

use super::Shared;
use abi::{Errno, Result};
use kernel::io::{Sink, Source};
use kernel::mm::{MapError, Mappable, Mm, Segment};
use kernel::vfs::SeekFrom;
use ksync::{LockClass, Mutex, RwLock, RwLockWriteGuard};
use platform::hostsys::account;
use platform::{Access, AllocOpts, Backing, Block, FileRange, PAGE, Prot};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// Seals of fcntl(2).
pub(super) mod seal {
    pub const SEAL: u32 = 1;
    pub const SHRINK: u32 = 2;
    pub const GROW: u32 = 4;
    pub const WRITE: u32 = 8;
    pub const FUTURE_WRITE: u32 = 16;
    pub const EXEC: u32 = 32;
    pub const ALL: u32 = 63;
}

/// Most bytes of one step of a write.
const STEP: u64 = 1 << 20;
/// Most pages that a growing file takes in advance.
const AHEAD: u64 = 512;

type Runs = SmallVec<[FileRange; 4]>;

pub(super) struct FileData {
    shared: Arc<Shared>,
    ino: u64,
    rw: RwLock<()>,
    state: Mutex<State>,
    maps: Mutex<Maps>,
}

struct State {
    size: u64,
    /// By file offset, page-aligned, not overlapping.
    extents: BTreeMap<u64, FileRange>,
    pages: u64,
    /// Pages taken in advance, not yet anybody's.
    spare: Option<FileRange>,
    seals: u32,
}

#[derive(Default)]
struct Maps {
    mms: Vec<Weak<Mm>>,
    /// Bytes mapped shared with the right to write.
    writable: u64,
}

/// A part of a file's range.
enum Part {
    Data(FileRange),
    Hole(u64),
}

fn page_up(n: u64) -> u64 {
    n.div_ceil(PAGE) * PAGE
}

impl State {
    /// The extent that holds `off`: its start and range.
    fn at(&self, off: u64) -> Option<(u64, FileRange)> {
        let (start, range) = self.extents.range(..=off).next_back()?;
        (off < start + range.len()).then_some((*start, *range))
    }

    /// What is at `off`, at most `max` bytes of it.
    fn part(&self, off: u64, max: u64) -> Part {
        if let Some((start, range)) = self.at(off) {
            let from = range.start + (off - start);
            return Part::Data(FileRange { start: from, end: range.end.min(from + max) });
        }
        let next = self.extents.range(off..).next().map_or(u64::MAX, |(s, _)| *s);
        Part::Hole(max.min(next - off))
    }

    fn insert(&mut self, off: u64, range: FileRange) {
        self.pages += range.len() / PAGE;
        if let Some((start, before)) = self.extents.range_mut(..off).next_back()
            && start + before.len() == off
            && before.end == range.start
        {
            before.end = range.end;
            return;
        }
        self.extents.insert(off, range);
    }

    /// Takes the pages of a page-aligned range out.
    fn cut(&mut self, lo: u64, hi: u64) -> Vec<FileRange> {
        let mut out = Vec::new();
        if lo >= hi {
            return out;
        }
        for edge in [lo, hi] {
            if let Some((start, range)) = self.at(edge)
                && start < edge
            {
                let mid = range.start + (edge - start);
                if let Some(r) = self.extents.get_mut(&start) {
                    r.end = mid;
                }
                self.extents.insert(edge, FileRange { start: mid, end: range.end });
            }
        }
        let keys: Vec<u64> = self.extents.range(lo..hi).map(|(k, _)| *k).collect();
        for k in keys {
            if let Some(r) = self.extents.remove(&k) {
                self.pages -= r.len() / PAGE;
                out.push(r);
            }
        }
        out
    }
}

impl FileData {
    pub fn new(shared: &Arc<Shared>, ino: u64) -> Arc<FileData> {
        Arc::new(FileData {
            shared: Arc::clone(shared),
            ino,
            rw: RwLock::new(LockClass::FileWrite, ()),
            state: Mutex::new(
                LockClass::Inode,
                State { size: 0, extents: BTreeMap::new(), pages: 0, spare: None, seals: seal::SEAL },
            ),
            maps: Mutex::new(LockClass::Mappings, Maps::default()),
        })
    }

    /// Size in bytes and pages in use.
    pub fn size_and_pages(&self) -> (u64, u64) {
        let s = self.state.lock();
        (s.size, s.pages)
    }

    /// One range of pages, at most `want` pages long. From what was taken in advance if there is some.
    fn new_pages(&self, s: &mut State, want: u64, appending: bool) -> Result<FileRange> {
        if let Some(spare) = &mut s.spare {
            let take = FileRange { start: spare.start, end: spare.end.min(spare.start + want * PAGE) };
            spare.start = take.end;
            if spare.is_empty() {
                s.spare = None;
            }
            return Ok(take);
        }
        let ahead = if appending { (s.pages / 2).clamp(want, AHEAD.max(want)) } else { want };
        // Whoever touches a page first is charged (memory ownership, Documentation/admin-guide/cgroup-v2.rst).
        let opts = AllocOpts { account: account::of_thread(), ..AllocOpts::default() };
        let memfile = &self.shared.memfile;
        let got = memfile
            .allocate(ahead * PAGE, opts)
            .or_else(|_| memfile.allocate(want * PAGE, opts))
            .or_else(|_| memfile.allocate_anyway(PAGE, opts))
            .map_err(|_| Errno::ENOSPC)?;
        let take = FileRange { start: got.start, end: got.end.min(got.start + want * PAGE) };
        if take.end < got.end {
            s.spare = Some(FileRange { start: take.end, end: got.end });
        }
        Ok(take)
    }

    /// Fills the holes of a page-aligned range, from its front, as far as there is room: the end of what is
    /// filled, and the ranges that are new.
    fn fill(&self, s: &mut State, lo: u64, hi: u64) -> (u64, Vec<Range<u64>>) {
        let mut fresh = Vec::new();
        let mut at = lo;
        while at < hi {
            match s.part(at, hi - at) {
                Part::Data(r) => at += r.len(),
                Part::Hole(len) => {
                    let want = (len / PAGE).min(self.shared.room().max(1));
                    if self.shared.charge(want).is_err() {
                        break;
                    }
                    let appending = s.extents.range(at..).next().is_none();
                    let Ok(range) = self.new_pages(s, want, appending) else {
                        self.shared.uncharge(want);
                        break;
                    };
                    self.shared.uncharge(want - range.len() / PAGE);
                    s.insert(at, range);
                    fresh.push(at..at + range.len());
                    at += range.len();
                }
            }
        }
        (at, fresh)
    }

    fn free(&self, ranges: Vec<FileRange>) {
        for r in ranges {
            self.shared.uncharge(r.len() / PAGE);
            self.shared.memfile.dec_ref(r);
        }
    }

    /// The pages of a range, which are all there.
    fn runs(s: &State, lo: u64, hi: u64) -> Runs {
        let mut runs = Runs::new();
        let mut at = lo;
        while at < hi {
            match s.part(at, hi - at) {
                Part::Data(r) => {
                    runs.push(r);
                    at += r.len();
                }
                Part::Hole(_) => break,
            }
        }
        runs
    }

    pub fn read(&self, dst: &mut dyn Sink, pos: &mut u64) -> Result<usize> {
        let _rw = self.rw.read();
        let mut done = 0;
        loop {
            let want = dst.remaining() as u64;
            let part = {
                let s = self.state.lock();
                if want == 0 || *pos >= s.size {
                    break;
                }
                s.part(*pos, want.min(s.size - *pos))
            };
            let (len, result) = match part {
                Part::Hole(len) => {
                    let len = usize::try_from(len).unwrap_or(usize::MAX);
                    (len, dst.put_zeros(len))
                }
                Part::Data(range) => {
                    let len = usize::try_from(range.len()).unwrap_or(usize::MAX);
                    (len, self.copy_out(dst, range, len))
                }
            };
            match result {
                Ok(n) => {
                    done += n;
                    *pos += n as u64;
                    if n < len {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn copy_out(&self, dst: &mut dyn Sink, range: FileRange, len: usize) -> Result<usize> {
        let mut from = range.start;
        dst.fill_with(len, &mut |blocks| {
            let mut n = 0;
            for to in blocks {
                let mut off = 0;
                while off < to.len() && from < range.end {
                    let src = self.shared.memfile.block(FileRange { start: from, end: range.end });
                    let Some(room) = to.slice(off, to.len() - off) else {
                        break;
                    };
                    let k = src.copy_to_partial(room);
                    if k == 0 {
                        return if n == 0 { Err(Errno::EFAULT) } else { Ok(n) };
                    }
                    off += k;
                    from += k as u64;
                    n += k;
                }
            }
            Ok(n)
        })
    }

    /// Writes at `*pos`, or at the end with `append`.
    pub fn write(&self, src: &mut dyn Source, pos: &mut u64, append: bool) -> Result<usize> {
        let _rw = self.rw.write();
        let mut done = 0;
        if append {
            *pos = self.state.lock().size;
        }
        while src.remaining() > 0 {
            match self.write_step(src, *pos) {
                Ok((n, more)) => {
                    done += n;
                    *pos += n as u64;
                    if !more {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// One step of a write: the bytes written, and whether to go on.
    fn write_step(&self, src: &mut dyn Source, pos: u64) -> Result<(usize, bool)> {
        let mut want = (src.remaining() as u64).min(STEP - pos % PAGE);
        let (lo, runs, fresh, old_size) = {
            let mut s = self.state.lock();
            if s.seals & (seal::WRITE | seal::FUTURE_WRITE) != 0 {
                return Err(Errno::EPERM);
            }
            if s.seals & seal::GROW != 0 {
                want = want.min(s.size.saturating_sub(pos));
                if want == 0 {
                    return Err(Errno::EPERM);
                }
            }
            let end = pos.checked_add(want).filter(|e| *e <= i64::MAX as u64).ok_or(Errno::EFBIG)?;
            let lo = pos / PAGE * PAGE;
            let (filled, fresh) = self.fill(&mut s, lo, page_up(end));
            if filled <= pos {
                return Err(Errno::ENOSPC);
            }
            want = want.min(filled - pos);
            (lo, Self::runs(&s, lo, page_up(pos + want)), fresh, s.size)
        };
        let result = self.copy_in(src, &runs, pos - lo, want);
        let n = *result.as_ref().unwrap_or(&0) as u64;
        let mut s = self.state.lock();
        if n > 0 {
            s.size = s.size.max(pos + n);
        }
        if n < want {
            // New pages beyond the end that got nothing must not stay.
            let keep = page_up(s.size.max(old_size)).max(page_up(pos + n));
            let gone: Vec<FileRange> =
                fresh.iter().filter(|r| r.end > keep).flat_map(|r| s.cut(r.start.max(keep), r.end)).collect();
            drop(s);
            self.free(gone);
        }
        let n = result?;
        Ok((n, n as u64 == want && n > 0))
    }

    fn copy_in(&self, src: &mut dyn Source, runs: &Runs, skip: u64, want: u64) -> Result<usize> {
        let mut run = 0;
        let mut at = skip;
        while runs.get(run).is_some_and(|r| at >= r.len()) {
            at -= runs[run].len();
            run += 1;
        }
        let max = usize::try_from(want).unwrap_or(usize::MAX);
        src.drain_with(max, &mut |blocks| {
            let mut n = 0;
            for from in blocks {
                let mut off = 0;
                while off < from.len() {
                    let Some(r) = runs.get(run) else {
                        return Ok(n);
                    };
                    let to: Block<'_> =
                        self.shared.memfile.block(FileRange { start: r.start + at, end: r.end });
                    let Some(data) = from.slice(off, from.len() - off) else {
                        break;
                    };
                    let k = data.copy_to_partial(to);
                    if k == 0 {
                        return if n == 0 { Err(Errno::EFAULT) } else { Ok(n) };
                    }
                    off += k;
                    n += k;
                    at += k as u64;
                    if at >= r.len() {
                        run += 1;
                        at = 0;
                    }
                }
            }
            Ok(n)
        })
    }

    /// Zeroes bytes inside pages that are there.
    fn zero(&self, lo: u64, hi: u64) {
        let runs = {
            let s = self.state.lock();
            let mut runs = Runs::new();
            let mut at = lo;
            while at < hi {
                match s.part(at, hi - at) {
                    Part::Data(r) => {
                        runs.push(r);
                        at += r.len();
                    }
                    Part::Hole(n) => at += n,
                }
            }
            runs
        };
        for r in runs {
            for b in self.shared.memfile.blocks(r) {
                let _ = b.zero(0, b.len());
            }
        }
    }

    fn invalidate(&self, range: Range<u64>, even_private: bool) {
        let mms = self.maps.lock().mms.clone();
        for mm in mms.iter().filter_map(Weak::upgrade) {
            mm.invalidate(self, range.clone(), even_private);
        }
    }

    /// Frees the pages of a page-aligned range, also from mappings.
    fn drop_pages(&self, lo: u64, hi: u64, even_private: bool, _rw: &RwLockWriteGuard<'_, ()>) {
        let gone = self.state.lock().cut(lo, hi);
        self.invalidate(lo..hi, even_private);
        self.free(gone);
    }

    /// truncate(2).
    pub fn set_size(&self, size: u64) -> Result<()> {
        let rw = self.rw.write();
        let old = {
            let mut s = self.state.lock();
            if size < s.size && s.seals & seal::SHRINK != 0 || size > s.size && s.seals & seal::GROW != 0 {
                return Err(Errno::EPERM);
            }
            std::mem::replace(&mut s.size, size)
        };
        if size < old {
            self.drop_pages(page_up(size), u64::MAX / PAGE * PAGE, true, &rw);
            self.zero(size, page_up(size));
            self.drop_spare();
        }
        Ok(())
    }

    /// fallocate(2); whether the contents may have changed.
    pub fn fallocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        if mode & !(KEEP_SIZE | PUNCH_HOLE) != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        let rw = self.rw.write();
        if mode & PUNCH_HOLE != 0 {
            if self.state.lock().seals & (seal::WRITE | seal::FUTURE_WRITE) != 0 {
                return Err(Errno::EPERM);
            }
            let (lo, hi) = (page_up(offset), end / PAGE * PAGE);
            if lo < hi {
                self.drop_pages(lo, hi, false, &rw);
            }
            if lo > hi {
                self.zero(offset, end);
            } else {
                self.zero(offset, lo);
                self.zero(hi, end);
            }
            return Ok(());
        }
        let mut s = self.state.lock();
        if s.seals & seal::GROW != 0 && end > s.size {
            return Err(Errno::EPERM);
        }
        let lo = offset / PAGE * PAGE;
        if (page_up(end) - lo) / PAGE > self.shared.room().saturating_add(s.pages) {
            return Err(Errno::ENOSPC);
        }
        let (filled, fresh) = self.fill(&mut s, lo, page_up(end));
        if filled < page_up(end) {
            let gone = fresh.into_iter().flat_map(|r| s.cut(r.start, r.end)).collect();
            drop(s);
            self.free(gone);
            return Err(Errno::ENOSPC);
        }
        if mode & KEEP_SIZE == 0 {
            s.size = s.size.max(end);
        }
        Ok(())
    }

    /// lseek(2) with `SEEK_DATA` or `SEEK_HOLE`; `None` for the others.
    pub fn seek(&self, from: SeekFrom) -> Option<Result<u64>> {
        let s = self.state.lock();
        let (off, hole) = match from {
            SeekFrom::Data(o) => (o, false),
            SeekFrom::Hole(o) => (o, true),
            _ => return None,
        };
        let Ok(off) = u64::try_from(off) else {
            return Some(Err(Errno::ENXIO));
        };
        if off >= s.size {
            return Some(Err(Errno::ENXIO));
        }
        let mut at = off;
        while at < s.size {
            match s.part(at, s.size - at) {
                Part::Data(_) if !hole => return Some(Ok(at)),
                Part::Hole(_) if hole => return Some(Ok(at)),
                Part::Data(r) => at += r.len(),
                Part::Hole(n) => at += n,
            }
        }
        Some(if hole { Ok(s.size) } else { Err(Errno::ENXIO) })
    }

    /// Gives back what was taken in advance.
    pub fn drop_spare(&self) {
        let spare = self.state.lock().spare.take();
        if let Some(spare) = spare {
            self.shared.memfile.dec_ref(spare);
        }
    }

    pub fn seals(&self) -> u32 {
        self.state.lock().seals
    }

    /// Replaces the seals that a new file has.
    pub fn init_seals(&self, seals: u32) {
        self.state.lock().seals = seals;
    }

    /// fcntl(F_ADD_SEALS). `S_IX*` bits of the mode imply more with `F_SEAL_EXEC`.
    pub fn add_seals(&self, add: u32, executable: bool) -> Result<()> {
        if add & !seal::ALL != 0 {
            return Err(Errno::EINVAL);
        }
        let _rw = self.rw.write();
        let mapped = self.maps_writable();
        let mut s = self.state.lock();
        if s.seals & seal::SEAL != 0 {
            return Err(Errno::EPERM);
        }
        if add & seal::WRITE != 0 && s.seals & seal::WRITE == 0 && mapped {
            return Err(Errno::EBUSY);
        }
        let mut add = add;
        if add & seal::EXEC != 0 && executable {
            add |= seal::SHRINK | seal::GROW | seal::WRITE | seal::FUTURE_WRITE;
        }
        s.seals |= add;
        Ok(())
    }

    fn maps_writable(&self) -> bool {
        self.maps.lock().writable > 0
    }
}

impl Mappable for FileData {
    fn translate(
        &self,
        required: Range<u64>,
        optional: Range<u64>,
        _access: Access,
    ) -> std::result::Result<Vec<Segment>, MapError> {
        let mut s = self.state.lock();
        let limit = page_up(s.size);
        if required.end > limit {
            return Err(MapError::Bus);
        }
        // As on Linux, a fault on a hole makes a page, whatever the access.
        let (filled, _) = self.fill(&mut s, required.start, required.end);
        if filled < required.end {
            return Err(MapError::Bus);
        }
        let mut lo = required.start;
        while lo > optional.start {
            match s.at(lo - 1) {
                Some((start, _)) => lo = start.max(optional.start),
                None => break,
            }
        }
        let mut out = Vec::new();
        let hi = optional.end.min(limit);
        let writable = s.seals & (seal::WRITE | seal::FUTURE_WRITE) == 0;
        let mut at = lo;
        while at < hi {
            let Part::Data(r) = s.part(at, hi - at) else {
                break;
            };
            self.shared.memfile.inc_ref(r);
            out.push(Segment {
                range: at..at + r.len(),
                backing: Backing::Memory(Arc::clone(&self.shared.memfile)),
                backing_offset: r.start,
                writable,
            });
            at += r.len();
        }
        Ok(out)
    }

    fn add_mapping(&self, mm: &Weak<Mm>, _at: u64, range: Range<u64>, writable_shared: bool) {
        let mut maps = self.maps.lock();
        if writable_shared {
            maps.writable += range.end - range.start;
        }
        if !maps.mms.iter().any(|m| m.ptr_eq(mm)) {
            maps.mms.retain(|m| m.strong_count() > 0);
            maps.mms.push(Weak::clone(mm));
        }
    }

    fn remove_mapping(&self, _mm: &Weak<Mm>, _at: u64, range: Range<u64>, writable_shared: bool) {
        if writable_shared {
            let mut maps = self.maps.lock();
            maps.writable = maps.writable.saturating_sub(range.end - range.start);
        }
    }

    fn mmap_check(&self, shared: bool, prot: Prot) -> Result<bool> {
        let sealed = self.seals() & (seal::WRITE | seal::FUTURE_WRITE) != 0;
        if sealed && shared && prot.contains(Prot::WRITE) {
            return Err(Errno::EPERM);
        }
        Ok(!(sealed && shared))
    }

    fn punch(&self, range: Range<u64>) -> Result<()> {
        self.fallocate(3, range.start, range.end - range.start)
    }

    fn identity(&self) -> (u64, u64) {
        (self.shared.dev, self.ino)
    }
}

impl Drop for FileData {
    fn drop(&mut self) {
        let (gone, spare) = {
            let mut s = self.state.lock();
            (s.cut(0, u64::MAX / PAGE * PAGE), s.spare.take())
        };
        self.free(gone);
        if let Some(spare) = spare {
            self.shared.memfile.dec_ref(spare);
        }
    }
}
