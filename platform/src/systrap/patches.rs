//! The patched call sites of one address space.
//!
//! A patched page is a copy of ours, mapped in place of the guest's page in the stub and nowhere else: everybody above, from /proc/pid/mem to
//! a child of fork, sees the page as it is. The exchange of a whole page is one step for the threads that run meanwhile: they
//! execute the old page, wait for the new one, or execute that, but never half of each. The code that jumps lead to lies in *areas*,
//! in gaps of the guest's address space that its kernel does not use by itself.
//!
//! The address space may change at any time: what the guest maps, unmaps or protects loses its patches. A guest that puts something where an
//! area is gets all sites back first that lead there.

use super::site::{AFTER, BEFORE, JUMP, Kind, UNIT};
use crate::stub::{FastText, StubSpace, fast_text};
use crate::{
    AllocOpts, CallSite, FileRange, GuestRange, HostFile, MapChange, MemoryFile, PAGE, PlatformError, Prot,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Bytes of an area.
pub(super) const AREA: u64 = 64 << 10;
/// How far a jump reaches, less the length of everything involved.
const REACH: u64 = (1 << 31) - (1 << 20);
/// Most areas of an address space.
const AREAS: usize = 16;
/// The first units hold the addresses of the ways in. Even, as slots of two units begin at even ones.
const HEADER_UNITS: usize = 4;
const UNITS: usize = (AREA / UNIT) as usize;

struct Area {
    at: u64,
    memory: FileRange,
    used: Box<[bool; UNITS]>,
    /// By unit: the site it stands in for (address after the call).
    slots: HashMap<usize, (u64, Kind)>,
    /// Still mapped. A dead one only tells what threads were doing that were on their way through it.
    live: bool,
}

struct Page {
    copy: FileRange,
    file: Arc<HostFile>,
    offset: u64,
    prot: Prot,
    /// The patched sites, by the address after the call.
    sites: Vec<u64>,
}

struct Site {
    kind: Kind,
    /// Index of the area, and where the code is.
    area: usize,
    slot: u64,
    /// The page has the jump.
    patched: bool,
}

/// See the module.
pub(super) struct Patches {
    memory: Arc<MemoryFile>,
    text: FastText,
    areas: Vec<Area>,
    pages: BTreeMap<u64, Page>,
    sites: HashMap<u64, Site>,
    /// No more patches: a thread of this space cannot be told from others.
    pub(super) off: bool,
}

impl Patches {
    pub(super) fn new(memory: Arc<MemoryFile>) -> Patches {
        Patches {
            memory,
            text: fast_text(),
            areas: Vec::new(),
            pages: BTreeMap::new(),
            sites: HashMap::new(),
            off: false,
        }
    }

    /// How many sites were ever patched.
    pub(super) fn seen(&self) -> usize {
        self.sites.len()
    }

    fn reaches(area: u64, after: u64) -> bool {
        area.abs_diff(after) < REACH
    }

    /// Where an area would have to be to be of use for a call; `None`: there is one, or there shall be no more.
    pub(super) fn room_wanted(&self, after: u64) -> Option<GuestRange> {
        let live = |a: &&Area| a.live;
        if self.off
            || self.areas.iter().filter(live).any(|a| Self::reaches(a.at, after))
            || self.areas.len() >= AREAS
        {
            return None;
        }
        Some(GuestRange { start: after.saturating_sub(REACH), end: after.saturating_add(REACH) })
    }

    /// Patches a site. False: it is not of a kind that can be.
    pub(super) fn patch(&mut self, stub: &StubSpace, call: &CallSite<'_>) -> Result<bool, PlatformError> {
        let after = call.after;
        if self.off || self.sites.get(&after).is_some_and(|s| s.patched) {
            return Ok(false);
        }
        let page = after & !(PAGE - 1);
        let at = (after - page) as usize;
        if at < BEFORE || at + AFTER > PAGE as usize {
            return Ok(false);
        }
        let mut content = [0u8; PAGE as usize];
        let original = call.file.block(call.offset, PAGE).ok().filter(|b| b.len() == PAGE as usize);
        if original.is_none_or(|b| b.read(0, &mut content).is_err()) {
            return Ok(false);
        }
        let around = std::array::from_fn(|i| content[at - BEFORE + i]);
        let Some(kind) = Kind::of(&around, call.nr) else { return Ok(false) };
        let Some((area, slot)) = self.slot(stub, after, kind, call.room)? else { return Ok(false) };
        let old = self.pages.remove(&page);
        let mut sites = old.as_ref().map_or_else(Vec::new, |p| p.sites.clone());
        self.sites.insert(after, Site { kind, area, slot, patched: true });
        sites.retain(|s| *s != after);
        sites.push(after);
        for site in &sites {
            if let Some(s) = self.sites.get(site)
                && let Some(jump) = s.kind.jump(*site, s.slot)
            {
                let at = (s.kind.jump_at(*site) - page) as usize;
                content[at..at + JUMP].copy_from_slice(&jump);
            }
        }
        let copy = self.memory.allocate(PAGE, AllocOpts { overwritten: true, ..AllocOpts::default() });
        let written = copy.is_ok_and(|c| self.memory.block(c).write(0, &content).is_ok());
        let (Ok(copy), true) = (copy, written) else {
            self.forget(&sites);
            return Ok(false);
        };
        let at = GuestRange { start: page, end: page + PAGE };
        let file = self.memory.host_file();
        let map = MapChange::Map { at, file, offset: copy.start, prot: call.prot, precommit: true };
        if let Err(e) = stub.apply(&[map]) {
            self.forget(&sites);
            return Err(e);
        }
        if let Some(old) = old {
            self.memory.dec_ref(old.copy);
        }
        let page_info = Page { copy, file: call.file.clone(), offset: call.offset, prot: call.prot, sites };
        self.pages.insert(page, page_info);
        Ok(true)
    }

    /// After an error nothing is known of what the page shows: copies stay where they are, unused by others.
    fn forget(&mut self, sites: &[u64]) {
        for s in sites {
            if let Some(s) = self.sites.get_mut(s) {
                s.patched = false;
            }
        }
        self.off = true;
    }

    /// The code for a site: what it had before, or new.
    fn slot(
        &mut self,
        stub: &StubSpace,
        after: u64,
        kind: Kind,
        room: Option<GuestRange>,
    ) -> Result<Option<(usize, u64)>, PlatformError> {
        if let Some(s) = self.sites.get(&after)
            && s.kind == kind
            && self.areas[s.area].live
        {
            return Ok(Some((s.area, s.slot)));
        }
        let units = kind.units() as usize;
        let find = |a: &Area| {
            (HEADER_UNITS..UNITS).step_by(units).find(|u| {
                a.used[*u..*u + units].iter().all(|used| !used) && kind.fits(after, a.at + *u as u64 * UNIT)
            })
        };
        let place = |areas: &[Area]| {
            let near = areas.iter().enumerate().filter(|(_, a)| a.live && Self::reaches(a.at, after));
            near.filter_map(|(i, a)| find(a).map(|u| (i, u))).next()
        };
        let mut found = place(&self.areas);
        if found.is_none()
            && let Some(room) = room
            && self.areas.len() < AREAS
        {
            self.new_area(stub, room)?;
            found = place(&self.areas);
        }
        let Some((index, unit)) = found else { return Ok(None) };
        let area = &mut self.areas[index];
        let slot = area.at + unit as u64 * UNIT;
        let pointer = match kind {
            Kind::Number(nr) => {
                self.text.constants.iter().position(|(n, _)| *n == u64::from(nr)).map(|i| i + 2)
            }
            Kind::Moved(_) => None,
            Kind::Compare(_) => Some(1),
        };
        let pointer = area.at + 8 * pointer.unwrap_or(0) as u64;
        let Some(code) = kind.code(after, slot, pointer) else { return Ok(None) };
        if self.memory.block(area.memory).write(unit * UNIT as usize, &code).is_err() {
            return Ok(None);
        }
        area.used[unit..unit + units].fill(true);
        area.slots.insert(unit, (after, kind));
        Ok(Some((index, slot)))
    }

    fn new_area(&mut self, stub: &StubSpace, room: GuestRange) -> Result<(), PlatformError> {
        let Ok(memory) = self.memory.allocate(AREA, AllocOpts::default()) else { return Ok(()) };
        let block = self.memory.block(memory);
        let ways = [self.text.enter, self.text.enter_far];
        let constants = self.text.constants.iter().map(|(_, at)| *at);
        for (i, way) in ways.into_iter().chain(constants).enumerate() {
            if block.len() as u64 != AREA || block.write(8 * i, &way.to_le_bytes()).is_err() {
                self.memory.dec_ref(memory);
                return Ok(());
            }
        }
        let at = GuestRange { start: room.start, end: room.start + AREA };
        let file = self.memory.host_file();
        let prot = Prot::READ | Prot::EXEC;
        stub.apply(&[MapChange::Map { at, file, offset: memory.start, prot, precommit: false }])?;
        let used = Box::new([false; UNITS]);
        self.areas.push(Area { at: at.start, memory, used, slots: HashMap::new(), live: true });
        Ok(())
    }

    /// The guest's kernel is about to change `changes`: takes back what is in the way. To be made before, in one go; then the changes; then
    /// [`Patches::free`] what is returned.
    pub(super) fn make_way(
        &mut self,
        stub: &StubSpace,
        changes: &[MapChange<'_>],
    ) -> Result<Vec<FileRange>, PlatformError> {
        let mut gone: Vec<FileRange> = Vec::new();
        for change in changes {
            let (r, keeps) = match *change {
                MapChange::Map { at, .. } => (at, false),
                MapChange::Unmap(at) => (at, false),
                // What is mapped stays mapped: the guest's own page must be there.
                MapChange::Protect(at, _) => (at, true),
            };
            for index in 0..self.areas.len() {
                let area = &self.areas[index];
                if area.live && area.at < r.end && r.start < area.at + AREA {
                    self.drop_area(stub, index, &mut gone)?;
                }
            }
            let pages: Vec<u64> = self.pages.range(r.start..r.end).map(|(at, _)| *at).collect();
            if !pages.is_empty() {
                self.restore(stub, &pages, keeps, &mut gone)?;
            }
        }
        Ok(gone)
    }

    /// Maps the guest's own pages again where there are patched ones. What is returned can go to [`Patches::free`].
    pub(super) fn show_own(
        &mut self,
        stub: &StubSpace,
        range: GuestRange,
    ) -> Result<Vec<FileRange>, PlatformError> {
        let first = range.start & !(PAGE - 1);
        let pages: Vec<u64> = self.pages.range(first..range.end).map(|(at, _)| *at).collect();
        let mut gone = Vec::new();
        if !pages.is_empty() {
            self.restore(stub, &pages, true, &mut gone)?;
        }
        Ok(gone)
    }

    /// Takes patched pages out of the list; with `show` the guest's own are mapped again.
    fn restore(
        &mut self,
        stub: &StubSpace,
        pages: &[u64],
        show: bool,
        gone: &mut Vec<FileRange>,
    ) -> Result<(), PlatformError> {
        let out: Vec<(u64, Page)> = pages.iter().filter_map(|at| self.pages.remove_entry(at)).collect();
        for (_, page) in &out {
            gone.push(page.copy);
            for site in &page.sites {
                if let Some(s) = self.sites.get_mut(site) {
                    s.patched = false;
                }
            }
        }
        if !show {
            return Ok(());
        }
        let changes: Vec<MapChange<'_>> = out
            .iter()
            .map(|(at, p)| MapChange::Map {
                at: GuestRange { start: *at, end: *at + PAGE },
                file: &p.file,
                offset: p.offset,
                prot: p.prot,
                precommit: false,
            })
            .collect();
        stub.apply(&changes)
    }

    fn drop_area(
        &mut self,
        stub: &StubSpace,
        index: usize,
        gone: &mut Vec<FileRange>,
    ) -> Result<(), PlatformError> {
        let leads_there = |p: &Page| {
            p.sites.iter().any(|s| self.sites.get(s).is_some_and(|s| s.patched && s.area == index))
        };
        let pages: Vec<u64> = self.pages.iter().filter(|(_, p)| leads_there(p)).map(|(at, _)| *at).collect();
        self.restore(stub, &pages, true, gone)?;
        let area = &mut self.areas[index];
        area.live = false;
        gone.push(area.memory);
        stub.apply(&[MapChange::Unmap(GuestRange { start: area.at, end: area.at + AREA })])
    }

    /// Takes all patches back.
    pub(super) fn turn_off(&mut self, stub: &StubSpace) -> Result<(), PlatformError> {
        self.off = true;
        let mut gone = Vec::new();
        for index in 0..self.areas.len() {
            if self.areas[index].live {
                self.drop_area(stub, index, &mut gone)?;
            }
        }
        self.free(gone);
        Ok(())
    }

    /// Gives memory back that the stub shows no more.
    pub(super) fn free(&self, gone: Vec<FileRange>) {
        for range in gone {
            self.memory.dec_ref(range);
        }
    }

    /// The stub shows nothing any more.
    pub(super) fn free_all(&mut self) {
        let pages = std::mem::take(&mut self.pages).into_values().map(|p| p.copy);
        let areas = std::mem::take(&mut self.areas).into_iter().filter(|a| a.live).map(|a| a.memory);
        self.free(pages.chain(areas).collect());
        self.sites.clear();
    }

    /// The site to which an address in an area belongs, and how far into its code it is.
    pub(super) fn in_area(&self, rip: u64) -> Option<(u64, Kind, u64)> {
        // The last one first: a dead one may have been at the same place.
        let area = self.areas.iter().rev().find(|a| rip.wrapping_sub(a.at) < AREA)?;
        let unit = ((rip - area.at) / UNIT) as usize;
        let (start, (after, kind)) = area
            .slots
            .get_key_value(&unit)
            .or_else(|| area.slots.get_key_value(&(unit & !1)).filter(|(_, (_, k))| k.units() == 2))?;
        Some((*after, *kind, rip - area.at - *start as u64 * UNIT))
    }

    /// Where a thread goes on that found an invalid instruction after the call of a site: behind the call in the site's code, as the
    /// instruction was overwritten; or there once more, if it has been restored since.
    pub(super) fn behind(&self, rip: u64) -> Option<u64> {
        let site = self.sites.get(&rip).filter(|s| matches!(s.kind, Kind::Compare(_)))?;
        Some(if site.patched { site.slot + super::site::GO_ON } else { rip })
    }
}
