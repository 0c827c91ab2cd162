//! Page faults: making pages available, breaking copy-on-write, growing stacks, and what signal a bad access gets.
//!
//! A fault costs a round trip to the guest, so each one does as much as can be foreseen. Pages of the memory file
//! cost nothing until they are touched: anonymous memory is backed in large pieces, and what is backed is shown whole.

use super::host::give_back;
use super::{Inner, MapError, Mm, Pma, STACK_GUARD_GAP, VmFlags, Vma};
use abi::{PAGE_SIZE, page_down, page_up};
use platform::{Access, AllocOpts, Backing, FaultInfo, FileRange, NoMemory, PlatformError, Prot};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// The signal that a bad access gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSignal {
    /// SIGSEGV, SIGBUS, or SIGKILL when memory is used up.
    pub signo: i32,
    pub code: i32,
    pub addr: u64,
}

const SIGKILL: i32 = 9;
const SIGBUS: i32 = 7;
const SIGSEGV: i32 = 11;
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRERR: i32 = 2;

/// The code beside SIGKILL if it was the container's limit that was met: the access may be tried again once there is room.
pub const OVER_LIMIT: i32 = 1;

/// Why a page cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// Nothing is mapped there.
    NotMapped,
    /// The mapping does not allow it.
    Denied,
    /// Beyond the end of the object.
    Bus,
    NoMemory,
    /// The limit of the container is reached.
    OverLimit,
    /// The process that holds the address space is gone.
    Dead,
}

impl From<MapError> for Miss {
    fn from(e: MapError) -> Miss {
        match e {
            MapError::Bus => Miss::Bus,
            MapError::NoMemory => Miss::NoMemory,
            MapError::OverLimit => Miss::OverLimit,
        }
    }
}

impl From<NoMemory> for Miss {
    fn from(e: NoMemory) -> Miss {
        match e {
            NoMemory::Used => Miss::NoMemory,
            NoMemory::OverLimit => Miss::OverLimit,
        }
    }
}

impl From<PlatformError> for Miss {
    fn from(e: PlatformError) -> Miss {
        match e {
            PlatformError::Dead => Miss::Dead,
            e => {
                tracing::warn!(error = %e, "the platform cannot map a page");
                Miss::NoMemory
            }
        }
    }
}

/// First step in which anonymous memory is backed, and the largest one that memory which is used in order grows to.
const STEP: u64 = 2 << 20;
const STEP_MAX: u64 = 32 << 20;
/// How much of an object is asked for around a page.
const FILE_STEP: u64 = 32 << 20;
/// How much is copied when a page that others see as well is written to.
const COPY_STEP: u64 = 32 << 10;
/// How many neighbouring runs a fault shows besides its own, and how many the first fault of an address space shows.
const NEIGHBOURS: usize = 8;
const FIRST_RUNS: usize = 60;
/// How many file mappings the first fault looks up.
const FIRST_FILES: usize = 16;
/// Memory up to this size is backed whole.
const WHOLE: u64 = 4 << 20;

/// Whether a mapping's rights allow an access; reading is possible with any right (x86).
pub(super) fn allows(prot: Prot, want: Access) -> bool {
    match want {
        Access::Read => !prot.is_empty(),
        Access::Write => prot.contains(Prot::WRITE),
        Access::Exec => prot.contains(Prot::EXEC),
    }
}

impl Mm {
    /// Answers a memory fault of guest code; `rip` is where it happened. After `Ok` the instruction can be tried again.
    pub fn handle_fault(&self, info: &FaultInfo, rip: u64) -> Result<(), FaultSignal> {
        let addr = info.addr;
        let signal = |signo, code| FaultSignal { signo, code, addr };
        if info.signo == SIGSEGV && info.code != SEGV_MAPERR && info.code != SEGV_ACCERR {
            // A general protection fault and the like: no address is known.
            return Err(signal(SIGSEGV, info.code));
        }
        if addr >= self.limits.max {
            let code = if addr < super::TASK_SIZE { SEGV_MAPERR } else { info.code };
            return Err(signal(SIGSEGV, code));
        }
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let want = match info.access {
            Some(a) => a,
            None => guess_access(inner, info, rip),
        };
        if info.signo == SIGBUS
            && let Some((_, _, p)) = inner.pmas.get(addr)
            && p.mapped.is_some()
        {
            // The page was shown and yet is not there: the file was cut behind our back, or the host has no memory.
            if matches!(p.backing, Backing::Host(_)) {
                return Err(signal(SIGBUS, BUS_ADRERR));
            }
            return Err(signal(SIGKILL, 0));
        }
        let fresh = inner.pmas.get(addr).is_none();
        match self.ready(inner, addr, want, false) {
            Ok(()) => {}
            Err(miss) => return Err(self.signal_for(miss, addr)),
        }
        if inner.pmas.get(addr).is_some_and(|(.., p)| p.mapped.is_some() && p.mapped == p.host_prot()) {
            // Another thread was quicker, or the new pages are shown already.
            return Ok(());
        }
        let locked = inner.vmas.get(addr).is_some_and(|(.., v)| v.flags.contains(VmFlags::LOCKED));
        // The page itself, and what else is likely to be used soon.
        let mut at: SmallVec<[u64; 8]> = SmallVec::new();
        at.push(addr);
        if inner.cold {
            inner.cold = false;
            self.fetch_all(inner);
            at.extend(Self::hidden(inner, self.limits.min..self.limits.max, FIRST_RUNS));
        } else {
            let near = addr.saturating_sub(STEP).max(self.limits.min)..addr.saturating_add(STEP);
            at.extend(Self::hidden(inner, near, NEIGHBOURS));
        }
        let own = inner.pmas.get(addr).map(|(s, ..)| s);
        let mut first = true;
        at.retain(|a| std::mem::take(&mut first) || Some(*a) != own);
        let precommit = locked || fresh && Self::is_used_in_order(inner, addr);
        self.show(inner, &at, precommit).map_err(|e| self.signal_for(Miss::from(e), addr))
    }

    /// Whether anonymous memory that has just been backed will be touched from its first page to its last: so was what lies
    /// below it, as far as can be told. Then the host need not fault for each page.
    fn is_used_in_order(inner: &Inner, addr: u64) -> bool {
        let Some((start, end, p)) = inner.pmas.get(addr) else { return false };
        p.private && start == page_down(addr) && end - start <= WHOLE && Self::run_below(inner, start) >= STEP
    }

    /// How much private memory is backed right below an address.
    fn run_below(inner: &Inner, addr: u64) -> u64 {
        let below = inner.pmas.before(addr).filter(|(_, e, p)| *e == addr && p.private && !p.cow);
        below.map_or(0, |(s, e, _)| e - s)
    }

    /// Shows what there is of a new address space, before the first fault asks for it. `first`: addresses that will be used
    /// at once.
    pub fn warm(&self, first: &[u64]) {
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        if !std::mem::take(&mut inner.cold) {
            return;
        }
        self.fetch_all(inner);
        let mut at: SmallVec<[u64; 8]> = SmallVec::new();
        let hidden = Self::hidden(inner, self.limits.min..self.limits.max, FIRST_RUNS);
        let runs = first.iter().filter_map(|a| inner.pmas.get(*a)).filter(|(.., p)| p.mapped.is_none());
        for start in runs.map(|(s, ..)| s).chain(hidden) {
            if !at.contains(&start) {
                at.push(start);
            }
        }
        // What is missing comes with faults.
        let _ = self.show(inner, &at, false);
    }

    /// Looks up the pages of a new program's file mappings, so that they can be shown together.
    fn fetch_all(&self, inner: &mut Inner) {
        let files: SmallVec<[u64; 16]> = inner
            .vmas
            .iter()
            .filter(|(s, _, v)| v.file.is_some() && !v.prot.is_empty() && inner.pmas.get(*s).is_none())
            .map(|(s, ..)| s)
            .take(FIRST_FILES)
            .collect();
        for at in files {
            let _ = self.ready(inner, at, Access::Read, false);
        }
    }

    fn signal_for(&self, miss: Miss, addr: u64) -> FaultSignal {
        let (signo, code) = match miss {
            Miss::NotMapped => (SIGSEGV, SEGV_MAPERR),
            Miss::Denied => (SIGSEGV, SEGV_ACCERR),
            Miss::Bus => (SIGBUS, BUS_ADRERR),
            Miss::OverLimit => (SIGKILL, OVER_LIMIT),
            Miss::NoMemory | Miss::Dead => (SIGKILL, 0),
        };
        FaultSignal { signo, code, addr }
    }

    /// Makes the page at `addr` available for an access. `forced`: rights of the mapping count only as far as ptrace
    /// cannot overcome them (`FOLL_FORCE`).
    pub(super) fn ready(&self, inner: &mut Inner, addr: u64, want: Access, forced: bool) -> Result<(), Miss> {
        let (vs, ve, vma) = self.vma_for(inner, addr)?;
        if !allows(vma.prot, want) {
            let may = match want {
                Access::Read => vma.flags.contains(VmFlags::MAYREAD),
                Access::Write => vma.flags.contains(VmFlags::MAYWRITE) && !vma.is_shared(),
                Access::Exec => false,
            };
            if !(forced && may) {
                return Err(Miss::Denied);
            }
        }
        for _ in 0..4 {
            match inner.pmas.get(addr) {
                Some((_, _, p)) if want != Access::Write || p.write_ready() => return Ok(()),
                Some((ps, pe, p)) if p.private => self.break_shared(inner, addr, ps.max(vs)..pe.min(ve))?,
                Some((ps, pe, _)) if !vma.is_shared() => {
                    self.copy_page(inner, addr, ps.max(vs)..pe.min(ve))?
                }
                Some((ps, pe, _)) => {
                    // A shared page that was got for reading only: ask the object again.
                    let r = page_down(addr).max(ps)..(page_down(addr) + PAGE_SIZE).min(pe);
                    self.drop_pages(inner, r);
                }
                None => match &vma.file {
                    None => self.fill_anonymous(inner, addr, vs..ve, &vma)?,
                    Some(_) => self.fill_from_object(inner, addr, vs..ve, &vma, want)?,
                },
            }
        }
        // The object's pages never became what was asked for.
        match inner.pmas.get(addr) {
            Some((_, _, p)) if want != Access::Write || p.write_ready() => Ok(()),
            _ => Err(Miss::Bus),
        }
    }

    /// The mapping of an address; a stack grows to reach it.
    fn vma_for(&self, inner: &mut Inner, addr: u64) -> Result<(u64, u64, Vma), Miss> {
        let (s, e, vma) = inner.vmas.find(addr).ok_or(Miss::NotMapped)?;
        if s <= addr {
            return Ok((s, e, vma.clone()));
        }
        if !vma.flags.contains(VmFlags::GROWSDOWN) {
            return Err(Miss::NotMapped);
        }
        let vma = vma.clone();
        let new_start = page_down(addr);
        if new_start < self.limits.min {
            return Err(Miss::NotMapped);
        }
        if let Some((_, pe, prev)) = inner.vmas.before(s)
            && !prev.flags.contains(VmFlags::GROWSDOWN)
            && !prev.prot.is_empty()
            && new_start.saturating_sub(pe) < STACK_GUARD_GAP
        {
            return Err(Miss::NotMapped);
        }
        let limit = self.stack_limit.load(Ordering::Relaxed);
        if e - new_start > limit {
            return Err(Miss::NotMapped);
        }
        inner.vmas.extend_down(s, new_start);
        inner.add_vm(s - new_start, vma.is_data());
        if vma.flags.contains(VmFlags::LOCKED) {
            inner.locked_vm += s - new_start;
        }
        Ok((new_start, e, vma))
    }

    /// The part of `within` around `addr` where no pages are.
    fn hole(inner: &Inner, addr: u64, within: Range<u64>) -> Range<u64> {
        let lo = inner.pmas.before(addr).map_or(within.start, |(_, e, _)| e.max(within.start));
        let hi = inner.pmas.find(addr).map_or(within.end, |(s, ..)| s.min(within.end));
        lo..hi
    }

    fn fill_anonymous(&self, inner: &mut Inner, addr: u64, v: Range<u64>, vma: &Vma) -> Result<(), Miss> {
        let hole = Self::hole(inner, addr, v);
        // Memory that is used in order is backed in growing steps, or in such that are touched at once.
        let below = Self::run_below(inner, hole.start);
        let in_order = below >= STEP && page_down(addr) == hole.start;
        let step = if in_order { STEP } else { below.next_power_of_two().clamp(STEP, STEP_MAX) };
        let (lo, hi) = if hole.end - hole.start <= WHOLE {
            (hole.start, hole.end)
        } else {
            let lo = addr - addr % STEP;
            (lo.max(hole.start), lo.saturating_add(step).min(hole.end))
        };
        let huge = hi - lo >= STEP && !vma.flags.contains(VmFlags::NOHUGEPAGE);
        let page = page_down(addr);
        let small = copy_window(addr, &hole);
        let mut refused = Miss::NoMemory;
        // Less and less, where there is little left.
        let ways = [(lo..hi, huge, in_order), (small, false, false), (page..page + PAGE_SIZE, false, false)];
        for (r, huge, soon) in ways {
            match self.memfile.allocate(r.end - r.start, AllocOpts { huge, soon, ..self.charged() }) {
                Ok(at) => {
                    inner.add_pma(r, self.private_pma(at, vma.prot));
                    return Ok(());
                }
                Err(e) => refused = Miss::from(e),
            }
        }
        Err(refused)
    }

    pub(super) fn private_pma(&self, at: FileRange, prot: Prot) -> Pma {
        let backing = Backing::Memory(self.memfile.clone());
        Pma { backing, off: at.start, private: true, cow: false, writable: true, prot, mapped: None }
    }

    fn fill_from_object(
        &self,
        inner: &mut Inner,
        addr: u64,
        v: Range<u64>,
        vma: &Vma,
        want: Access,
    ) -> Result<(), Miss> {
        let Some(f) = &vma.file else { return Err(Miss::Bus) };
        let hole = Self::hole(inner, addr, v.clone());
        let write = vma.is_shared() && want == Access::Write;
        let step = if write { STEP } else { FILE_STEP };
        let lo = (addr - addr % step).max(hole.start);
        let hi = (addr - addr % step).saturating_add(step).min(hole.end);
        let to_off = |a: u64| vma.offset + (a - v.start);
        let page = page_down(addr);
        let required = to_off(page)..to_off(page) + PAGE_SIZE;
        let optional = to_off(lo)..to_off(hi);
        let access = if write { Access::Write } else { Access::Read };
        let segments = f.object.translate(required.clone(), optional.clone(), access)?;
        let mut got = Vec::with_capacity(segments.len());
        for s in segments {
            let p = Pma {
                backing: s.backing,
                off: s.backing_offset,
                private: false,
                cow: !vma.is_shared(),
                writable: s.writable && vma.is_shared(),
                prot: vma.prot,
                mapped: None,
            };
            got.push((s.range, p));
        }
        let covers = got.iter().any(|(r, _)| r.start <= required.start && r.end >= required.end);
        for run in got {
            // What an object gives beyond what was asked for is not taken.
            let inside = super::host::clip(&run, &optional);
            let (s, e) = inside.as_ref().map_or((run.0.end, run.0.end), |(r, _)| (r.start, r.end));
            for extra in [run.0.start..s, e..run.0.end] {
                give_back(&super::host::clip(&run, &extra).into_iter().collect::<Vec<_>>());
            }
            if let Some((r, p)) = inside {
                let at = v.start + (r.start - vma.offset);
                inner.add_pma(at..at + (r.end - r.start), p);
            }
        }
        if covers { Ok(()) } else { Err(Miss::Bus) }
    }

    /// A write to private pages that other address spaces may share: takes them over if nobody does any more, else
    /// copies some of them.
    fn break_shared(&self, inner: &mut Inner, addr: u64, run: Range<u64>) -> Result<(), Miss> {
        let Some((ps, _, p)) = inner.pmas.get(addr) else { return Err(Miss::Bus) };
        let off = p.off;
        let near = copy_window(addr, &run);
        self.hot.note(addr);
        for r in [run.clone(), near.clone()] {
            let file = FileRange { start: off + (r.start - ps), end: off + (r.end - ps) };
            if self.memfile.is_unique(file) {
                inner.pmas.change(r, |_, p| p.cow = false);
                return Ok(());
            }
        }
        self.copy_page(inner, addr, run)
    }

    /// Replaces pages around `addr`, inside `run` (a part of one run), by private copies.
    fn copy_page(&self, inner: &mut Inner, addr: u64, run: Range<u64>) -> Result<(), Miss> {
        let page = page_down(addr)..page_down(addr) + PAGE_SIZE;
        let near = copy_window(addr, &run);
        match self.copy_range(inner, near.clone()) {
            Ok(()) => Ok(()),
            Err(_) if near != page => self.copy_range(inner, page),
            Err(e) => Err(e),
        }
    }

    fn copy_range(&self, inner: &mut Inner, r: Range<u64>) -> Result<(), Miss> {
        let Some((ps, _, p)) = inner.pmas.get(r.start) else { return Err(Miss::Bus) };
        let len = r.end - r.start;
        let from = p.off + (r.start - ps);
        let (backing, prot) = (p.backing.clone(), p.prot);
        let opts = AllocOpts { overwritten: true, ..self.charged() };
        let new = self.memfile.allocate(len, opts)?;
        if let Err(miss) = self.copy_backing(&backing, from, new) {
            self.memfile.dec_ref(new);
            return Err(miss);
        }
        let old = inner.take_pmas(r.clone());
        let was_shown = old.iter().any(|(_, p)| p.mapped.is_some());
        inner.add_pma(r.clone(), self.private_pma(new, prot));
        if was_shown {
            // Showing the new pages in place of the old ones is one step for threads that run meanwhile.
            let shown = self.map_host(inner, r.start, false);
            let covered = inner.pmas.overlapping(r).all(|(.., p)| p.mapped.is_some());
            if (shown.is_err() || !covered) && !self.hide(&old) {
                inner.leaked += len;
                return Ok(());
            }
        }
        give_back(&old);
        Ok(())
    }

    pub(super) fn copy_backing(&self, backing: &Backing, from: u64, to: FileRange) -> Result<(), Miss> {
        let mut done = 0;
        while done < to.len() {
            let dst = self.memfile.block(FileRange { start: to.start + done, end: to.end });
            let src = backing.block(FileRange { start: from + done, end: from + to.len() });
            let n = match src {
                Ok(src) => {
                    let n = src.len().min(dst.len());
                    let (Some(src), Some(dst)) = (src.slice(0, n), dst.slice(0, n)) else {
                        return Err(Miss::Bus);
                    };
                    let copied = src.copy_to_partial(dst);
                    if copied < n {
                        return Err(Miss::Bus);
                    }
                    n
                }
                // No room for another window of the file.
                Err(_) => match backing.host_file().read_into(&[dst], from + done) {
                    Ok(0) | Err(_) => return Err(Miss::Bus),
                    Ok(n) => n,
                },
            };
            done += n as u64;
        }
        Ok(())
    }

    /// Makes all pages of a range available and shows them (`MAP_POPULATE`, mlock, `MADV_POPULATE_*`).
    pub(super) fn populate(
        &self,
        inner: &mut Inner,
        r: Range<u64>,
        want: Option<Access>,
    ) -> Result<(), Miss> {
        let mut at = r.start;
        while at < r.end {
            let (_, ve, vma) = inner.vmas.get(at).ok_or(Miss::NotMapped)?;
            let access = want.unwrap_or(
                // As mlock and MAP_POPULATE do: private writable memory is made writable.
                if vma.prot.contains(Prot::WRITE) && !vma.is_shared() { Access::Write } else { Access::Read },
            );
            let end = ve.min(r.end);
            self.ready(inner, at, access, false)?;
            let run_end = inner.pmas.get(at).map_or(at + PAGE_SIZE, |(_, e, _)| e);
            if inner.pmas.get(at).is_some_and(|(.., p)| p.mapped.is_none() || p.mapped != p.host_prot()) {
                self.map_host(inner, at, true)?;
            }
            at = run_end.min(end);
        }
        Ok(())
    }

    /// Pages of an object went away or moved (truncate, hole punching): forgets those that mappings of `range` of it
    /// show. `even_private` takes private copies too, as truncate does.
    pub fn invalidate(&self, object: &dyn super::Mappable, range: Range<u64>, even_private: bool) {
        let mut inner = self.inner.write();
        let mut hits = Vec::new();
        for (s, e, vma) in inner.vmas.iter() {
            let Some(f) = &vma.file else { continue };
            if !super::vma::same_object(&*f.object, object) {
                continue;
            }
            let lo = page_down(range.start).max(vma.offset);
            let hi = page_up(range.end).unwrap_or(u64::MAX).min(vma.offset + (e - s));
            if lo < hi {
                hits.push(s + (lo - vma.offset)..s + (hi - vma.offset));
            }
        }
        for hit in hits {
            if even_private {
                self.drop_pages(&mut inner, hit);
                continue;
            }
            let objects: Vec<Range<u64>> = inner
                .pmas
                .overlapping(hit.clone())
                .filter(|(.., p)| !p.private)
                .map(|(s, e, _)| s.max(hit.start)..e.min(hit.end))
                .collect();
            for r in objects {
                self.drop_pages(&mut inner, r);
            }
        }
    }
}

/// What to copy around `addr` when a page must be copied.
fn copy_window(addr: u64, run: &Range<u64>) -> Range<u64> {
    let lo = addr - addr % COPY_STEP;
    lo.max(run.start)..(lo + COPY_STEP).min(run.end)
}

/// What an access was, where the platform cannot tell.
fn guess_access(inner: &Inner, info: &FaultInfo, rip: u64) -> Access {
    let Some((.., vma)) = inner.vmas.get(info.addr) else { return Access::Read };
    // An instruction is at most 15 bytes long, so it may begin on the page before.
    let fetch = info.addr >= rip && info.addr - rip < 15;
    let mapped = inner.pmas.get(info.addr).and_then(|(.., p)| p.mapped);
    if fetch && !vma.prot.contains(Prot::EXEC) {
        return Access::Exec;
    }
    if info.code == SEGV_ACCERR && mapped.is_some_and(|p| !p.contains(Prot::WRITE)) {
        // The page was shown for reading: only a write (or a fetch, see above) can have failed.
        return Access::Write;
    }
    // Nothing was shown. Private memory without pages needs new ones whatever the access is.
    let fresh = vma.file.is_none() && inner.pmas.get(info.addr).is_none();
    if fresh && vma.prot.contains(Prot::WRITE) { Access::Write } else { Access::Read }
}
