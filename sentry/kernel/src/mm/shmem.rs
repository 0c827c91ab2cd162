//! Memory that several address spaces share without a file: `MAP_SHARED | MAP_ANONYMOUS` and System V
//! segments. Pages appear on first use.

use super::Mm;
use super::interval::{IntervalMap, Piece};
use super::mappable::{MapError, Mappable, Segment};
use ksync::{LockClass, Mutex};
use platform::{Access, AllocOpts, Backing, FileRange, MemoryFile, NoMemory, PAGE};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Where a run of the object's pages is in the memory file.
#[derive(Clone)]
struct At(u64);

impl Piece for At {
    fn cut_front(&mut self, by: u64) {
        self.0 += by;
    }
    fn joins(&self, len: u64, next: &Self) -> bool {
        self.0 + len == next.0
    }
}

/// A piece of shared memory.
pub struct SharedMemory {
    memfile: Arc<MemoryFile>,
    /// Which account of the memory file is charged.
    account: u32,
    size: u64,
    ino: u64,
    pages: Mutex<IntervalMap<At>>,
    /// The address spaces that have mapped it.
    mappers: Mutex<Vec<Weak<Mm>>>,
}

/// New pages are taken in steps of this size: they cost nothing until they are touched.
const STEP: u64 = 2 << 20;

impl SharedMemory {
    /// `size` bytes (rounded up to pages) of zeroes, charged to an account of the memory file (0: to none).
    pub fn new(memfile: &Arc<MemoryFile>, account: u32, size: u64) -> Arc<SharedMemory> {
        static NEXT: AtomicU64 = AtomicU64::new(1024);
        Arc::new(SharedMemory {
            memfile: Arc::clone(memfile),
            account,
            size: size.next_multiple_of(PAGE),
            ino: NEXT.fetch_add(1, Ordering::Relaxed),
            pages: Mutex::new(LockClass::Inode, IntervalMap::default()),
            mappers: Mutex::new(LockClass::Mappings, Vec::new()),
        })
    }

    /// Size in bytes, a multiple of the page size.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that have pages.
    pub fn resident(&self) -> u64 {
        self.pages.lock().iter().map(|(s, e, _)| e - s).sum()
    }
}

impl Mappable for SharedMemory {
    fn translate(
        &self,
        required: Range<u64>,
        optional: Range<u64>,
        _: Access,
    ) -> Result<Vec<Segment>, MapError> {
        if required.end > self.size {
            return Err(MapError::Bus);
        }
        let lo = (required.start - required.start % STEP).max(optional.start);
        let hi = required.end.next_multiple_of(STEP).min(optional.end).min(self.size);
        let mut pages = self.pages.lock();
        for gap in pages.gaps(lo..hi) {
            let opts = AllocOpts { account: self.account, ..AllocOpts::default() };
            if let Ok(got) = self.memfile.allocate(gap.end - gap.start, opts) {
                pages.insert(gap, At(got.start));
            }
        }
        // Where there is little left, what must be.
        for gap in pages.gaps(required.clone()) {
            for page in (gap.start..gap.end).step_by(usize::try_from(PAGE).unwrap_or(4096)) {
                let opts = AllocOpts { account: self.account, ..AllocOpts::default() };
                let got = self.memfile.allocate(PAGE, opts).map_err(|e| match e {
                    NoMemory::Used => MapError::NoMemory,
                    NoMemory::OverLimit => MapError::OverLimit,
                })?;
                pages.insert(page..page + PAGE, At(got.start));
            }
        }
        let mut out = Vec::new();
        for (s, e, at) in pages.overlapping(lo..hi) {
            let (from, to) = (s.max(lo), e.min(hi));
            let start = at.0 + (from - s);
            self.memfile.inc_ref(FileRange { start, end: start + (to - from) });
            let backing = Backing::Memory(Arc::clone(&self.memfile));
            out.push(Segment { range: from..to, backing, backing_offset: start, writable: true });
        }
        Ok(out)
    }

    fn add_mapping(&self, mm: &Weak<Mm>, _: u64, _: Range<u64>, _: bool) {
        let mut mappers = self.mappers.lock();
        // One entry for each address space is enough; it goes when the space does.
        if !mappers.iter().any(|m| m.ptr_eq(mm)) {
            mappers.retain(|m| m.strong_count() > 0);
            mappers.push(Weak::clone(mm));
        }
    }
    fn remove_mapping(&self, _: &Weak<Mm>, _: u64, _: Range<u64>, _: bool) {}

    fn punch(&self, range: Range<u64>) -> abi::Result<()> {
        let end = range.end.min(self.size);
        let gone = self.pages.lock().remove(range.start..end);
        for (r, at) in gone {
            self.memfile.dec_ref(FileRange { start: at.0, end: at.0 + (r.end - r.start) });
        }
        let mappers = self.mappers.lock().clone();
        for mm in mappers.iter().filter_map(Weak::upgrade) {
            mm.invalidate(self, range.start..end, false);
        }
        Ok(())
    }

    fn identity(&self) -> (u64, u64) {
        (1, self.ino)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let pages = std::mem::take(&mut *self.pages.lock());
        for (s, e, at) in pages.iter() {
            self.memfile.dec_ref(FileRange { start: at.0, end: at.0 + (e - s) });
        }
    }
}
