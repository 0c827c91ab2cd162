//! What the platform is told: the fewest map, unmap and protect calls that keep its mappings in step with the
//! pages behind the guest's.
//!
//! The rule that matters: pages are given back (`dec_ref`) only after the platform has stopped showing them.

use super::interval::Piece;
use super::{Inner, Mm, Pma};
use platform::{Backing, FileRange, GuestRange, HostFile, MapChange, PlatformError, Prot};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;

impl Inner {
    /// Counts bytes of a run of pages in or out.
    fn count(&mut self, p: &Pma, len: u64, more: bool) {
        let counter = if p.private { &mut self.anon_rss } else { &mut self.file_rss };
        *counter = if more { *counter + len } else { counter.saturating_sub(len) };
        if more {
            self.peak_rss = self.peak_rss.max(self.anon_rss + self.file_rss);
        }
    }

    /// Puts a run of pages where nothing is.
    pub(super) fn add_pma(&mut self, r: Range<u64>, p: Pma) {
        self.count(&p, r.end - r.start, true);
        self.pmas.insert(r, p);
    }

    /// Takes runs out of the map. They still hold their references.
    pub(super) fn take_pmas(&mut self, r: Range<u64>) -> Vec<(Range<u64>, Pma)> {
        let out = self.pmas.remove(r);
        for (r, p) in &out {
            self.count(p, r.end - r.start, false);
        }
        out
    }
}

/// Gives the references of runs of pages back.
pub(super) fn give_back(pmas: &[(Range<u64>, Pma)]) {
    // Neighbours in the memory file go in one call.
    let mut pending: Option<(&platform::MemoryFile, FileRange)> = None;
    for (r, p) in pmas {
        let Backing::Memory(m) = &p.backing else { continue };
        let range = FileRange { start: p.off, end: p.off + (r.end - r.start) };
        pending = match pending {
            Some((pm, pr)) if std::ptr::eq(pm, &raw const **m) && pr.end == range.start => {
                Some((pm, FileRange { start: pr.start, end: range.end }))
            }
            Some((pm, pr)) => {
                pm.dec_ref(pr);
                Some((m, range))
            }
            None => Some((m, range)),
        };
    }
    if let Some((m, r)) = pending {
        m.dec_ref(r);
    }
}

impl Mm {
    /// Takes all pages of a range away: from the platform, from the map, and back to where they came from.
    pub(super) fn drop_pages(&self, inner: &mut Inner, r: Range<u64>) {
        let gone = inner.take_pmas(r);
        self.retire(inner, gone);
    }

    /// Makes the platform forget runs that are out of the map, then gives their pages back.
    pub(super) fn retire(&self, inner: &mut Inner, gone: Vec<(Range<u64>, Pma)>) {
        if self.hide(&gone) {
            give_back(&gone);
        } else {
            inner.leaked += gone.iter().map(|(r, _)| r.end - r.start).sum::<u64>();
        }
    }

    /// Makes the platform forget runs; false when it could not.
    pub(super) fn hide(&self, pmas: &[(Range<u64>, Pma)]) -> bool {
        let mut mapped = pmas.iter().filter(|(_, p)| p.mapped.is_some()).map(|(r, _)| r);
        let Some(first) = mapped.next() else { return true };
        let end = mapped.next_back().map_or(first.end, |r| r.end);
        // One call for all of it: whatever lies between is out of the map as well or was never mapped.
        match self.space.unmap(GuestRange { start: first.start, end }) {
            // A dead process shows nothing.
            Ok(()) | Err(PlatformError::Dead) => true,
            Err(e) => {
                tracing::error!(error = %e, "cannot unmap guest memory; its pages are lost");
                false
            }
        }
    }

    /// Makes the platform show the run of pages at `addr` with all rights it can have now.
    pub(super) fn map_host(
        &self,
        inner: &mut Inner,
        addr: u64,
        precommit: bool,
    ) -> Result<(), PlatformError> {
        self.show(inner, &[addr], precommit)
    }

    /// Makes the platform show the runs of pages at some addresses, in one step. Only the first has to succeed.
    pub(super) fn show(&self, inner: &mut Inner, at: &[u64], precommit: bool) -> Result<(), PlatformError> {
        struct Run {
            range: GuestRange,
            file: Arc<HostFile>,
            offset: u64,
            prot: Prot,
        }
        impl Run {
            fn change(&self, precommit: bool) -> MapChange<'_> {
                MapChange::Map {
                    at: self.range,
                    file: &self.file,
                    offset: self.offset,
                    prot: self.prot,
                    precommit,
                }
            }
        }
        let mut runs: SmallVec<[Run; 8]> = SmallVec::new();
        for a in at {
            let Some((start, end, p)) = inner.pmas.get(*a) else { continue };
            let Some(prot) = p.host_prot().filter(|w| p.mapped != Some(*w)) else { continue };
            let file = Arc::clone(p.backing.host_file());
            runs.push(Run { range: GuestRange { start, end }, file, offset: p.off, prot });
        }
        if runs.is_empty() {
            return Ok(());
        }
        // What was not asked for may never be touched.
        let changes: SmallVec<[MapChange<'_>; 8]> =
            runs.iter().enumerate().map(|(i, r)| r.change(precommit && i == 0)).collect();
        let mut shown = runs.len();
        match self.space.apply(&changes) {
            Ok(()) => {}
            Err(PlatformError::Dead) => return Err(PlatformError::Dead),
            Err(e) => {
                // The host limits the number of mappings of a process. Forget everything, then show only what must be.
                tracing::debug!(error = %e, "the platform's mappings are dropped to make room");
                self.forget_all(inner)?;
                self.space.apply(&changes[..1])?;
                shown = 1;
            }
        }
        for r in &runs[..shown] {
            inner.pmas.change(r.range.start..r.range.end, |_, p| p.mapped = Some(r.prot));
        }
        Ok(())
    }

    /// Makes the platform forget everything, whatever it shows.
    fn forget_all(&self, inner: &mut Inner) -> Result<(), PlatformError> {
        let all = self.limits.min..self.limits.max;
        match self.space.unmap(GuestRange { start: all.start, end: all.end }) {
            Ok(()) | Err(PlatformError::Dead) => {}
            Err(e) => return Err(e),
        }
        inner.pmas.change(all, |_, p| p.mapped = None);
        Ok(())
    }

    /// The starts of up to `limit` runs in a range that have pages which are not shown but could be.
    pub(super) fn hidden(inner: &Inner, r: Range<u64>, limit: usize) -> SmallVec<[u64; 8]> {
        let runs = inner.pmas.overlapping(r);
        runs.filter(|(.., p)| p.mapped.is_none() && p.host_prot().is_some())
            .map(|(s, ..)| s)
            .take(limit)
            .collect()
    }

    /// Makes the platform show up to `limit` runs of a range that have pages.
    pub(super) fn map_host_range(
        &self,
        inner: &mut Inner,
        r: Range<u64>,
        limit: usize,
    ) -> Result<(), PlatformError> {
        let at = Self::hidden(inner, r, limit);
        self.show(inner, &at, false)
    }

    /// Changes rights of what is shown; `None` is none at all. When that fails everything is forgotten, which is always
    /// right: faults bring back what is allowed.
    pub(super) fn set_rights(
        &self,
        inner: &mut Inner,
        work: &[(Range<u64>, Option<Prot>)],
    ) -> Result<(), PlatformError> {
        if work.is_empty() {
            return Ok(());
        }
        let change = |(r, want): &(Range<u64>, Option<Prot>)| {
            let at = GuestRange { start: r.start, end: r.end };
            match want {
                Some(prot) => MapChange::Protect(at, *prot),
                None => MapChange::Unmap(at),
            }
        };
        let changes: Vec<MapChange<'_>> = work.iter().map(change).collect();
        match self.space.apply(&changes) {
            Ok(()) | Err(PlatformError::Dead) => Ok(()),
            Err(e) => {
                tracing::debug!(error = %e, "rights are changed by unmapping");
                self.forget_all(inner)
            }
        }
    }

    /// Gives pages of a range the rights of their mapping: takes rights away from what the platform shows at once;
    /// new rights come with the next fault, or at once where something is shown already.
    pub(super) fn apply_prot(
        &self,
        inner: &mut Inner,
        r: Range<u64>,
        prot: Prot,
    ) -> Result<(), PlatformError> {
        let mut work: Vec<(Range<u64>, Option<Prot>)> = Vec::new();
        let mut changed = inner.pmas.remove(r.clone());
        for (pr, p) in &mut changed {
            p.prot = prot;
            let want = p.host_prot();
            if p.mapped.is_some() && p.mapped != want {
                match work.last_mut() {
                    Some((last, w)) if last.end == pr.start && *w == want => last.end = pr.end,
                    _ => work.push((pr.clone(), want)),
                }
                p.mapped = want;
            }
        }
        for (pr, p) in changed {
            inner.pmas.insert_apart(pr, p);
        }
        inner.pmas.join(r);
        self.set_rights(inner, &work)
    }
}

/// Cuts a run at the ends of `r`, for callers that have taken it out of the map.
pub(super) fn clip(run: &(Range<u64>, Pma), r: &Range<u64>) -> Option<(Range<u64>, Pma)> {
    let (start, end) = (run.0.start.max(r.start), run.0.end.min(r.end));
    if start >= end {
        return None;
    }
    let mut p = run.1.clone();
    if start > run.0.start {
        p.cut_front(start - run.0.start);
    }
    Some((start..end, p))
}
