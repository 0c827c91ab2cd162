//! Pages that are written soon after a fork: the stack, the C library's data, the heap's first pages.
//!
//! A program that forks again and again writes to the same few pages each time, and so do its children. Such a page costs two
//! faults after each fork, one on each side, and a fault is a round trip. So they are noted, and at the next fork the child
//! gets copies at once, while the parent keeps the right to write.

use super::{Inner, Mm, Pma};
use abi::{PAGE_SIZE, page_down};
use ksync::{LockClass, Mutex};
use platform::{AllocOpts, FileRange};
use smallvec::SmallVec;
use std::ops::Range;

/// Most pages that are noted.
const MOST: usize = 16;

/// What a process and those it forked off have in common.
pub(super) struct HotPages(Mutex<SmallVec<[u64; MOST]>>);

impl HotPages {
    pub(super) fn new() -> HotPages {
        HotPages(Mutex::new(LockClass::Leaf, SmallVec::new()))
    }

    /// A page was written that was shared since a fork.
    pub(super) fn note(&self, addr: u64) {
        let page = page_down(addr);
        let mut pages = self.0.lock();
        match pages.iter().position(|p| *p == page) {
            Some(0) => return,
            Some(i) => {
                pages.remove(i);
            }
            None => pages.truncate(MOST - 1),
        }
        pages.insert(0, page);
    }

    fn sorted(&self) -> SmallVec<[u64; MOST]> {
        let mut pages = self.0.lock().clone();
        pages.sort_unstable();
        pages
    }
}

/// Copies of pages, made for a child.
pub(super) struct Copies {
    /// In order of addresses.
    pages: SmallVec<[u64; MOST]>,
    /// The copies, in the same order.
    at: FileRange,
    taken: SmallVec<[bool; MOST]>,
}

impl Copies {
    /// No copies.
    pub(super) fn none() -> Copies {
        Copies { pages: SmallVec::new(), at: FileRange { start: 0, end: 0 }, taken: SmallVec::new() }
    }

    /// The pages of a range that are copied, in runs.
    pub(super) fn inside(&self, r: &Range<u64>) -> SmallVec<[Range<u64>; 4]> {
        let mut runs: SmallVec<[Range<u64>; 4]> = SmallVec::new();
        for page in self.pages.iter().copied().filter(|p| r.contains(p)) {
            match runs.last_mut() {
                Some(last) if last.end == page => last.end += PAGE_SIZE,
                _ => runs.push(page..page + PAGE_SIZE),
            }
        }
        runs
    }

    /// The copy of the page at `addr`, which is the caller's from now on.
    pub(super) fn take(&mut self, addr: u64) -> Option<FileRange> {
        let i = self.pages.binary_search(&addr).ok()?;
        if std::mem::replace(&mut self.taken[i], true) {
            return None;
        }
        let start = self.at.start + i as u64 * PAGE_SIZE;
        Some(FileRange { start, end: start + PAGE_SIZE })
    }
}

impl Mm {
    /// Notes that a page will be written by the child of a fork that is about to be made.
    pub fn expect_write(&self, addr: u64) {
        self.hot.note(addr);
    }

    /// Copies of the noted pages, as far as they are nobody else's.
    pub(super) fn copy_hot(&self, inner: &Inner) -> Copies {
        let alone = |p: &Pma| p.private && !p.cow;
        let mut pages = self.hot.sorted();
        pages.retain(|a| inner.pmas.get(*a).is_some_and(|(.., p)| alone(p)));
        if pages.is_empty() {
            return Copies::none();
        }
        let opts = AllocOpts { overwritten: true, over: 0, ..self.charged() };
        let Ok(at) = self.memfile.allocate(pages.len() as u64 * PAGE_SIZE, opts) else {
            return Copies::none();
        };
        for (i, page) in pages.iter().enumerate() {
            let start = at.start + i as u64 * PAGE_SIZE;
            let copied = inner.pmas.get(*page).map(|(s, _, p)| {
                self.copy_backing(&p.backing, p.off + (page - s), FileRange { start, end: start + PAGE_SIZE })
            });
            if !matches!(copied, Some(Ok(()))) {
                self.memfile.dec_ref(at);
                return Copies::none();
            }
        }
        let taken = SmallVec::from_elem(false, pages.len());
        Copies { pages, at, taken }
    }

    /// Gives copies back that nobody took.
    pub(super) fn drop_copies(&self, copies: &Copies) {
        for (i, _) in copies.taken.iter().enumerate().filter(|(_, t)| !**t) {
            let start = copies.at.start + i as u64 * PAGE_SIZE;
            self.memfile.dec_ref(FileRange { start, end: start + PAGE_SIZE });
        }
    }
}
