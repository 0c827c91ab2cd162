//! The memory file: one memfd that holds all anonymous guest memory and tmpfs data of a sandbox.
//!
//! Ranges of pages are handed out zeroed and counted by references (copy-on-write after fork shares them). The counts
//! are kept in an interval map: neighbouring pages with equal counts are one entry, however many they are.
//! Freed pages are returned to the host by punching holes, in batches; a pool of freed but unpunched pages serves what
//! is used at once, because zeroing a page that is there is cheaper than a hole and a fault. Whoever has given the file
//! a [`Trimmer`] is told when the pool is worth a look, and trims it once nobody uses it any more.
//!
//! Not here: which guest address shows which range (the kernel's memory manager).

use crate::account::Account;
use crate::block::Block;
use crate::hostfile::{AllocateMode, CHUNK, HostFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The page size of x86-64.
pub const PAGE: u64 = 4096;
/// The file grows in steps of this size.
const GROW: u64 = CHUNK;
/// Freed bytes that may wait unpunched for any time.
const DIRTY_KEPT: u64 = 2 << 20;
/// Freed bytes that may wait unpunched while they are used again and again; a part of the limit if there is one.
const DIRTY_MAX: u64 = 32 << 20;
const DIRTY_SHARE: u64 = 16;
/// Freed pieces that may wait unpunched.
const DIRTY_MAX_PIECES: usize = 256;
/// Requests up to this size are served from the unpunched pool if they are overwritten at once.
const DIRTY_REQUEST: u64 = 64 << 10;
/// Requests up to this size are served from it in any case, zeroed.
const DIRTY_ZEROED: u64 = PAGE;
const HUGE: u64 = 2 << 20;
static ZEROES: [u8; 256 << 10] = [0; 256 << 10];

/// Bytes `start..end` of the memory file; both page-aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileRange {
    /// First byte.
    pub start: u64,
    /// First byte after.
    pub end: u64,
}

impl FileRange {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// True if it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// How to allocate.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllocOpts {
    /// Worth huge pages: align to 2 MiB and advise the host.
    pub huge: bool,
    /// The caller writes every byte before anybody else sees the range, so it need not be zeroed.
    pub overwritten: bool,
    /// Every page will be used soon: the host makes them now, which costs half of what a fault for each costs.
    pub soon: bool,
    /// The account that is charged until the pages are freed, whoever shares them meanwhile; 0 for none.
    pub account: u32,
    /// By how many bytes the account's limit may be exceeded.
    pub over: u64,
}

/// Why there is no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMemory {
    /// The host has none.
    #[error("out of guest memory")]
    Used,
    /// The limit of the account is reached.
    #[error("out of the account's memory")]
    OverLimit,
}

/// Is told when freed pages have gathered that should not stay for ever. It may not call the memory file from there.
pub trait Trimmer: Send + Sync {
    /// [`MemoryFile::trim`] is to be called in a second or so.
    fn trim_later(&self);
}

/// See the module.
pub struct MemoryFile {
    file: Arc<HostFile>,
    state: Mutex<State>,
    trimmer: OnceLock<Box<dyn Trimmer>>,
}

impl std::fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryFile").field("file", &self.file).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    /// start → (end, references ≥ 1, account); disjoint.
    used: BTreeMap<u64, (u64, u32, u32)>,
    /// Account `n + 1` is at index `n`.
    accounts: Vec<Arc<Account>>,
    /// Zero pages (holes).
    clean: FreeSet,
    /// Freed pages that still have contents.
    dirty: FreeSet,
    /// The trimmer has been told of the pool.
    told: bool,
    /// Pages of the pool were used again since the last trim.
    reused: bool,
    size: u64,
    used_bytes: u64,
    limit: u64,
}

/// Disjoint, coalesced free ranges, found by address and by length.
#[derive(Debug, Default)]
struct FreeSet {
    by_start: BTreeMap<u64, u64>,
    by_len: BTreeSet<(u64, u64)>,
    bytes: u64,
}

impl FreeSet {
    fn remove(&mut self, start: u64, end: u64) {
        self.by_start.remove(&start);
        self.by_len.remove(&(end - start, start));
        self.bytes -= end - start;
    }

    fn put(&mut self, start: u64, end: u64) {
        self.by_start.insert(start, end);
        self.by_len.insert((end - start, start));
        self.bytes += end - start;
    }

    /// Adds a range, joining it with its neighbours.
    fn insert(&mut self, mut start: u64, mut end: u64) {
        if let Some((&s, &e)) = self.by_start.range(..start).next_back()
            && e == start
        {
            self.remove(s, e);
            start = s;
        }
        if let Some(&e) = self.by_start.get(&end) {
            self.remove(end, e);
            end = e;
        }
        self.put(start, end);
    }

    /// Takes `len` bytes at an address that is a multiple of `align`, from the smallest range that can give them.
    fn take(&mut self, len: u64, align: u64) -> Option<u64> {
        for &(_, start) in self.by_len.range((len, 0)..) {
            let end = self.by_start[&start];
            let at = start.next_multiple_of(align);
            if at + len <= end {
                self.remove(start, end);
                if start < at {
                    self.put(start, at);
                }
                if at + len < end {
                    self.put(at + len, end);
                }
                return Some(at);
            }
        }
        None
    }
}

impl MemoryFile {
    /// A new empty memory file without a limit.
    pub fn new() -> io::Result<Arc<MemoryFile>> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::NOEXEC_SEAL;
        // NOEXEC_SEAL came with Linux 6.3; it only seals the file's x bits. Mappings may be executable, as guests need.
        let fd = rustix::fs::memfd_create("guest-memory", flags)
            .or_else(|_| rustix::fs::memfd_create("guest-memory", rustix::fs::MemfdFlags::CLOEXEC))?;
        Ok(Self::from_file(HostFile::new(fd, true)))
    }

    /// Uses an empty file of the host instead of memory, for data that should count against disk.
    pub fn from_file(file: Arc<HostFile>) -> Arc<MemoryFile> {
        let state = State {
            used: BTreeMap::new(),
            accounts: Vec::new(),
            clean: FreeSet::default(),
            dirty: FreeSet::default(),
            told: false,
            reused: false,
            size: 0,
            used_bytes: 0,
            limit: u64::MAX,
        };
        Arc::new(MemoryFile { file, state: Mutex::new(state), trimmer: OnceLock::new() })
    }

    /// Sets who calls [`Self::trim`]. Without one the pool stays small.
    pub fn set_trimmer(&self, trimmer: Box<dyn Trimmer>) {
        let _ = self.trimmer.set(trimmer);
    }

    /// The file, for mapping into guests and for read/write straight from descriptors.
    pub fn host_file(&self) -> &Arc<HostFile> {
        &self.file
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out `len` bytes (a multiple of the page size, not 0) of zeroes with one reference on each page.
    pub fn allocate(&self, len: u64, opts: AllocOpts) -> Result<FileRange, NoMemory> {
        assert!(len > 0 && len.is_multiple_of(PAGE), "allocation of {len} bytes");
        let align = if opts.huge && len >= HUGE { HUGE } else { PAGE };
        let mut state = self.lock();
        // Only one page at a time near the limit, so that little of it goes to what is never touched.
        if let Some(account) = state.account(opts.account)
            && !account.has_room(len, if len > PAGE { 0 } else { opts.over })
        {
            return Err(NoMemory::OverLimit);
        }
        let mut zero = false;
        let mut start = None;
        // Pages that are there already are good for what is used at once: a copy, or a single page. In larger pieces
        // they would be zeroed for nothing, and count as touched.
        if opts.overwritten && len <= DIRTY_REQUEST || len <= DIRTY_ZEROED || opts.soon {
            start = state.dirty.take(len, align);
            state.reused |= start.is_some();
            zero = start.is_some() && !opts.overwritten;
        }
        let start = match start.or_else(|| state.clean.take(len, align)) {
            Some(start) => start,
            None => self.grow(&mut state, len, align)?,
        };
        let range = FileRange { start, end: start + len };
        state.used.insert(start, (range.end, 1, opts.account));
        state.used_bytes += len;
        if let Some(account) = state.account(opts.account) {
            account.add(len);
        }
        state.join(range);
        drop(state);
        // The sentry has no page tables for most of a large piece: a write makes none and is quicker than faults.
        let written = match (opts.soon && len > DIRTY_ZEROED, zero) {
            (true, _) => self.write_zeroes(range).is_ok(),
            (false, true) => self.blocks(range).all(|b| b.zero(0, b.len()).is_ok()),
            (false, false) => true,
        };
        if !written {
            self.dec_ref(range);
            return Err(NoMemory::Used);
        }
        if align == HUGE {
            for off in (range.start / CHUNK..range.end.div_ceil(CHUNK)).map(|c| c * CHUNK) {
                self.file.advise_huge(off);
            }
        }
        Ok(range)
    }

    fn write_zeroes(&self, range: FileRange) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(ZEROES.len() as u64) as usize;
            match self.file.write_at(&ZEROES[..len], at)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => at += n as u64,
            }
        }
        Ok(())
    }

    fn grow(&self, state: &mut State, len: u64, align: u64) -> Result<u64, NoMemory> {
        let old = state.size;
        let want = old.next_multiple_of(align).checked_add(len).ok_or(NoMemory::Used)?;
        let new = want.checked_next_multiple_of(GROW).ok_or(NoMemory::Used)?;
        self.file.set_len(new).map_err(|_| NoMemory::Used)?;
        state.size = new;
        state.clean.insert(old, new);
        state.clean.take(len, align).ok_or(NoMemory::Used)
    }

    /// One reference more on each page. All pages must be allocated.
    pub fn inc_ref(&self, range: FileRange) {
        let mut state = self.lock();
        state.change(range, |refs| refs.checked_add(1).expect("page references overflow"));
        state.join(range);
    }

    /// One reference less on each page; pages without references are freed. The caller has unmapped them everywhere.
    pub fn dec_ref(&self, range: FileRange) {
        let mut state = self.lock();
        state.change(range, |refs| refs - 1);
        let freed = state.take_unreferenced(range);
        state.join(range);
        for &(start, end) in &freed {
            state.used_bytes -= end - start;
            state.dirty.insert(start, end);
        }
        let trimmer = self.trimmer.get();
        let most = match trimmer {
            Some(_) => (state.limit / DIRTY_SHARE).clamp(DIRTY_KEPT, DIRTY_MAX),
            None => DIRTY_KEPT,
        };
        let keep = if state.dirty.by_start.len() > DIRTY_MAX_PIECES {
            0
        } else if state.dirty.bytes > most {
            most / 2
        } else {
            state.dirty.bytes
        };
        // What stays has to be looked at later, however much goes now.
        let tell = keep > DIRTY_KEPT && !std::mem::replace(&mut state.told, true);
        if keep < state.dirty.bytes {
            self.punch(state, keep);
        } else {
            drop(state);
        }
        if let Some(trimmer) = trimmer.filter(|_| tell) {
            trimmer.trim_later();
        }
    }

    /// Gives every freed page back to the host now.
    pub fn flush(&self) {
        self.punch(self.lock(), 0);
    }

    /// As `flush`, and the rest is no longer counted as this process's size, by which the host chooses whom to kill.
    pub fn shrink(&self) {
        self.flush();
        let size = self.lock().size;
        self.file.shrink_windows(size);
    }

    /// Gives freed pages back to the host but for a few, if none were used again since the last time. True: they were,
    /// so that it should be called again.
    pub fn trim(&self) -> bool {
        let mut state = self.lock();
        let again = std::mem::replace(&mut state.reused, false);
        if !again {
            state.told = false;
            self.punch(state, DIRTY_KEPT);
        }
        again
    }

    /// Punches the pool down to `keep` bytes, large pieces first.
    fn punch(&self, mut state: MutexGuard<'_, State>, keep: u64) {
        let mut dirty = FreeSet::default();
        while state.dirty.bytes > keep
            && let Some(&(len, start)) = state.dirty.by_len.last()
        {
            // A part of it, if that is enough.
            let len = len.min((state.dirty.bytes - keep).next_multiple_of(PAGE));
            let end = state.dirty.by_start[&start];
            state.dirty.remove(start, end);
            if start + len < end {
                state.dirty.put(start + len, end);
            }
            dirty.put(start, start + len);
        }
        drop(state);
        // While the lock is not held these ranges are in no set, so nobody can get them.
        let mut kept = Vec::new();
        for (&start, &end) in &dirty.by_start {
            if self.file.allocate(AllocateMode::PunchHole, start, end - start).is_err() {
                kept.push(start);
            }
        }
        let mut state = self.lock();
        for (&start, &end) in &dirty.by_start {
            if kept.contains(&start) {
                state.dirty.insert(start, end)
            } else {
                state.clean.insert(start, end)
            }
        }
    }

    /// Whether every page of the range has exactly one reference.
    pub fn is_unique(&self, range: FileRange) -> bool {
        self.min_max_refs(range) == Some((1, 1))
    }

    /// The smallest and largest count of references in the range; `None` if a page is not allocated.
    pub fn min_max_refs(&self, range: FileRange) -> Option<(u32, u32)> {
        let state = self.lock();
        let (mut at, mut min, mut max) = (range.start, u32::MAX, 0);
        let first = state.used.range(..=range.start).next_back().map_or(range.start, |(s, _)| *s);
        for (&s, &(e, refs, _)) in state.used.range(first..range.end) {
            if e <= at {
                continue;
            }
            if s > at {
                return None;
            }
            min = min.min(refs);
            max = max.max(refs);
            at = e;
        }
        (at >= range.end).then_some((min, max))
    }

    /// The start of the range as one block, clipped at the window's end. Faults on access if the host has no memory.
    ///
    /// # Panics
    /// If the sentry cannot map its own memory file: nothing can go on then.
    pub fn block(&self, range: FileRange) -> Block<'_> {
        self.file.block(range.start, range.len()).expect("cannot map guest memory into the sentry")
    }

    /// The whole range as blocks.
    pub fn blocks(&self, range: FileRange) -> impl Iterator<Item = Block<'_>> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            (at < range.end).then(|| {
                let block = self.block(FileRange { start: at, end: range.end });
                at += block.len() as u64;
                block
            })
        })
    }

    /// Allocated bytes.
    pub fn usage(&self) -> u64 {
        self.lock().used_bytes
    }

    /// Says how many bytes there are meant to be. What is kept for use again goes by it; accounts hold users to their limits.
    pub fn set_limit(&self, bytes: u64) {
        self.lock().limit = bytes;
    }

    /// A new account, without a limit. The place of one that nobody has any more and nothing is charged to is used again.
    pub fn new_account(&self) -> Arc<Account> {
        let mut state = self.lock();
        let unused = |a: &Arc<Account>| Arc::strong_count(a) == 1 && a.used() == 0;
        let index = state.accounts.iter().position(unused).unwrap_or(state.accounts.len());
        let account = Arc::new(Account::new(u32::try_from(index + 1).unwrap_or(0)));
        match state.accounts.get_mut(index) {
            Some(place) => *place = Arc::clone(&account),
            None => state.accounts.push(Arc::clone(&account)),
        }
        account
    }

    /// [`Account::look`] at an account; `false` if there is none of that number.
    pub fn look(&self, account: u32) -> bool {
        let account = self.lock().account(account).cloned();
        account.is_some_and(|a| a.look())
    }

    /// Hands out memory for what the calling thread is about and cannot break off: if need be, beyond the limit of the account,
    /// to which its end then sees ([`crate::account::take_overdrawn`]).
    pub fn allocate_anyway(&self, len: u64, opts: AllocOpts) -> Result<FileRange, NoMemory> {
        use crate::account::{OVERDRAFT, overdraw};
        match self.allocate(len, opts) {
            Err(NoMemory::OverLimit) if len == PAGE => {
                self.look(opts.account);
                overdraw();
                self.allocate(len, AllocOpts { over: OVERDRAFT, ..opts })
            }
            other => other,
        }
    }

    /// How many bytes there are meant to be.
    pub fn limit(&self) -> u64 {
        self.lock().limit
    }
}

impl State {
    fn account(&self, number: u32) -> Option<&Arc<Account>> {
        self.accounts.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// Makes `at` a boundary between entries if it lies inside one.
    fn split(&mut self, at: u64) {
        if let Some((_, entry)) = self.used.range_mut(..at).next_back()
            && entry.0 > at
        {
            let old = *entry;
            entry.0 = at;
            self.used.insert(at, old);
        }
    }

    fn change(&mut self, range: FileRange, f: impl Fn(u32) -> u32) {
        self.split(range.start);
        self.split(range.end);
        let mut at = range.start;
        for (&start, entry) in self.used.range_mut(range.start..range.end) {
            assert_eq!(start, at, "page {at:#x} of the memory file is not allocated");
            entry.1 = f(entry.1);
            at = entry.0;
        }
        assert_eq!(at, range.end.max(range.start), "page {at:#x} of the memory file is not allocated");
    }

    fn take_unreferenced(&mut self, range: FileRange) -> Vec<(u64, u64)> {
        let inside = self.used.range(range.start..range.end);
        let freed: Vec<_> = inside.filter(|(_, e)| e.1 == 0).map(|(s, e)| (*s, e.0)).collect();
        for (start, end) in &freed {
            if let Some((_, _, account)) = self.used.remove(start)
                && let Some(account) = self.account(account)
            {
                account.sub(end - start);
            }
        }
        freed
    }

    /// Joins entries with equal counts and accounts in and around the range.
    fn join(&mut self, range: FileRange) {
        let first = self.used.range(..range.start).next_back().map_or(range.start, |(s, _)| *s);
        let entries: Vec<_> = self.used.range(first..=range.end).map(|(s, e)| (*s, *e)).collect();
        let mut entries = entries.into_iter();
        let Some(mut last) = entries.next() else {
            return;
        };
        for (start, entry) in entries {
            if start == last.1.0 && entry.1 == last.1.1 && entry.2 == last.1.2 {
                self.used.remove(&start);
                last.1.0 = entry.0;
                self.used.insert(last.0, last.1);
            } else {
                last = (start, entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks_512(m: &MemoryFile) -> u64 {
        m.host_file().stat().unwrap().st_blocks.cast_unsigned()
    }

    #[test]
    fn counts_and_reuse() {
        let m = MemoryFile::new().unwrap();
        let r = m.allocate(16 * PAGE, AllocOpts::default()).unwrap();
        assert!(m.is_unique(r));
        let mid = FileRange { start: r.start + 4 * PAGE, end: r.start + 8 * PAGE };
        m.inc_ref(mid);
        assert!(!m.is_unique(r));
        assert_eq!(m.min_max_refs(mid), Some((2, 2)));
        assert_eq!(m.min_max_refs(r), Some((1, 2)));
        m.dec_ref(r);
        assert_eq!(m.usage(), 4 * PAGE);
        assert!(m.is_unique(mid));
        assert_eq!(m.min_max_refs(r), None);
        m.dec_ref(mid);
        assert_eq!(m.usage(), 0);
        assert!(m.lock().used.is_empty());
        m.flush();
        assert_eq!(m.lock().clean.by_start.len(), 1, "free ranges coalesce");
    }

    #[test]
    fn accounts_are_charged_until_the_last_reference_goes() {
        let m = MemoryFile::new().unwrap();
        let (a, b) = (m.new_account(), m.new_account());
        a.set_limit(Some(40 * PAGE));
        let of = |account: &Account| AllocOpts { account: account.number(), ..AllocOpts::default() };
        let first = m.allocate(4 * PAGE, of(&a)).unwrap();
        let second = m.allocate(2 * PAGE, of(&b)).unwrap();
        m.allocate(PAGE, AllocOpts::default()).unwrap();
        assert_eq!((a.used(), b.used()), (4 * PAGE, 2 * PAGE));
        m.inc_ref(first);
        m.dec_ref(FileRange { start: first.start, end: first.start + PAGE });
        assert_eq!(a.used(), 4 * PAGE);
        m.dec_ref(first);
        assert_eq!(a.used(), 3 * PAGE);
        assert_eq!(m.allocate(6 * PAGE, of(&a)).unwrap_err(), NoMemory::OverLimit);
        for _ in 3..40 {
            m.allocate(PAGE, of(&a)).unwrap();
        }
        assert_eq!(m.allocate(PAGE, of(&a)).unwrap_err(), NoMemory::OverLimit);
        assert_eq!(a.refusals(), 1);
        m.allocate(PAGE, AllocOpts { over: PAGE, ..of(&a) }).unwrap();
        assert_eq!((a.used(), a.peak()), (41 * PAGE, 41 * PAGE));
        m.dec_ref(second);
        let number = b.number();
        drop(b);
        assert_eq!(m.new_account().number(), number, "the place is used again");
    }

    #[test]
    fn zeroed_again_and_punched() {
        let m = MemoryFile::new().unwrap();
        let r = m.allocate(4 << 20, AllocOpts::default()).unwrap();
        for b in m.blocks(r) {
            b.write(0, &vec![7u8; b.len()]).unwrap();
        }
        assert!(blocks_512(&m) >= (4 << 20) / 512);
        m.dec_ref(r);
        assert!(blocks_512(&m) <= DIRTY_KEPT / 512, "more than the pool's limit is punched at once");
        let small = m.allocate(PAGE, AllocOpts::default()).unwrap();
        m.block(small).write(0, &[9; 4096]).unwrap();
        m.dec_ref(small);
        let again = m.allocate(PAGE, AllocOpts::default()).unwrap();
        let mut page = [1u8; 4096];
        m.block(again).read(0, &mut page).unwrap();
        assert_eq!(page, [0; 4096]);
    }

    struct Told(Arc<std::sync::atomic::AtomicUsize>);

    impl Trimmer for Told {
        fn trim_later(&self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn freed_pages_stay_as_long_as_they_are_used_again() {
        let m = MemoryFile::new().unwrap();
        let told = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        m.set_trimmer(Box::new(Told(Arc::clone(&told))));
        let soon = AllocOpts { soon: true, ..AllocOpts::default() };
        let r = m.allocate(8 << 20, soon).unwrap();
        assert!(blocks_512(&m) >= (8 << 20) / 512, "the host has made the pages");
        for b in m.blocks(r) {
            b.write(0, &vec![7u8; b.len()]).unwrap();
        }
        m.dec_ref(r);
        assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(blocks_512(&m) >= (8 << 20) / 512);
        let again = m.allocate(4 << 20, soon).unwrap();
        assert!(again.start >= r.start && again.end <= r.end, "the same pages");
        let mut bytes = vec![1; 4 << 20];
        m.host_file().read_at(&mut bytes, again.start).unwrap();
        assert!(bytes.iter().all(|b| *b == 0));
        m.dec_ref(again);
        assert!(m.trim(), "they were used again");
        assert!(blocks_512(&m) >= (8 << 20) / 512);
        assert!(!m.trim());
        assert!(blocks_512(&m) <= DIRTY_KEPT / 512);
        assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1);
        m.dec_ref(m.allocate(8 << 20, soon).unwrap());
        assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 2, "told anew");
        assert!(!m.trim());
        m.dec_ref(m.allocate(2 * DIRTY_MAX, soon).unwrap());
        assert!(blocks_512(&m) > DIRTY_KEPT / 512, "not all of too much goes at once");
        assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 3, "the rest is told of as well");
    }

    #[test]
    fn the_pool_is_a_small_part_of_the_limit() {
        let m = MemoryFile::new().unwrap();
        m.set_trimmer(Box::new(Told(Arc::default())));
        m.set_limit(64 << 20);
        m.dec_ref(m.allocate(32 << 20, AllocOpts { soon: true, ..AllocOpts::default() }).unwrap());
        assert!(blocks_512(&m) <= (4 << 20) / 512);
    }

    #[test]
    fn across_windows() {
        let m = MemoryFile::new().unwrap();
        let r = m.allocate(3 * CHUNK, AllocOpts { huge: true, ..AllocOpts::default() }).unwrap();
        assert_eq!(m.blocks(r).map(|b| b.len() as u64).sum::<u64>(), r.len());
        assert_eq!(m.blocks(r).count(), 3);
    }

    /// Random operations against a plain model with one count for each page.
    #[test]
    fn random_against_model() {
        let m = MemoryFile::new().unwrap();
        let mut model: BTreeMap<u64, (u32, u8)> = BTreeMap::new();
        let mut live: Vec<FileRange> = Vec::new();
        let mut seed = 0x1234_5678_9abc_def1u64;
        let mut rand = |n: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % n
        };
        for step in 0..10_000u64 {
            match rand(5) {
                0 | 1 if live.len() < 200 => {
                    let len = (1 + rand(40)) * PAGE;
                    let r = m.allocate(len, AllocOpts::default()).unwrap();
                    let mark = (step % 250 + 1) as u8;
                    for p in (r.start..r.end).step_by(4096) {
                        assert!(model.insert(p, (1, mark)).is_none(), "page handed out twice");
                        let b = m.block(FileRange { start: p, end: p + PAGE });
                        let mut got = [0u8; 8];
                        b.read(rand(500) as usize * 8, &mut got).unwrap();
                        assert_eq!(got, [0; 8]);
                        b.write(0, &[mark; 4096]).unwrap();
                    }
                    live.push(r);
                }
                2 if !live.is_empty() => {
                    let r = live[rand(live.len() as u64) as usize];
                    let from = r.start + rand(r.len() / PAGE) * PAGE;
                    let sub = FileRange { start: from, end: from + (1 + rand((r.end - from) / PAGE)) * PAGE };
                    m.inc_ref(sub);
                    for p in (sub.start..sub.end).step_by(4096) {
                        model.get_mut(&p).unwrap().0 += 1;
                    }
                    live.push(sub);
                }
                _ if !live.is_empty() => {
                    let i = rand(live.len() as u64) as usize;
                    let r = live.swap_remove(i);
                    for p in (r.start..r.end).step_by(4096) {
                        let (refs, mark) = model[&p];
                        let mut got = [0u8; 1];
                        m.block(FileRange { start: p, end: p + PAGE }).read(4095, &mut got).unwrap();
                        assert_eq!(got[0], mark);
                        if refs == 1 {
                            model.remove(&p)
                        } else {
                            model.insert(p, (refs - 1, mark))
                        };
                    }
                    m.dec_ref(r);
                }
                _ => {}
            }
            assert_eq!(m.usage(), model.len() as u64 * PAGE);
        }
        for r in live {
            m.dec_ref(r);
        }
        m.flush();
        assert_eq!((m.usage(), blocks_512(&m)), (0, 0));
        assert!(m.lock().used.is_empty());
    }

    #[test]
    fn truncated_file_faults() {
        let fd = rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let f = HostFile::new(fd, true);
        f.set_len(3 * PAGE).unwrap();
        let b = f.block(0, 4 * PAGE).unwrap();
        assert_eq!(b.write_partial(0, &[3; 4 * 4096]), 3 * 4096);
        f.set_len(PAGE + 10).unwrap();
        // The page that holds the end stays; what lies beyond it is gone.
        for off in [0usize, 1, 7, 4001] {
            let mut out = vec![0; 3 * 4096];
            assert_eq!(b.read_partial(off, &mut out), 2 * 4096 - off);
        }
        let mut out = [0; 100];
        assert_eq!(b.read_partial(2 * 4096 - 51, &mut out), 51, "exact in the small loop too");
        assert_eq!(b.zero_partial(4096, 2 * 4096), 4096);
        assert_eq!(b.load_u32(2 * 4096), Err(crate::Fault));
        assert_eq!(b.store_u64(2 * 4096, 1), Err(crate::Fault));
        assert_eq!(b.compare_exchange_u32(2 * 4096, 0, 1), Err(crate::Fault));
        b.store_u32(8, 5).unwrap();
        assert_eq!(b.compare_exchange_u32(8, 4, 6), Ok(Err(5)));
        assert_eq!(b.compare_exchange_u32(8, 5, 6), Ok(Ok(5)));
        assert_eq!(b.load_u32(8), Ok(6));
        assert_eq!(b.load_u32(6), Err(crate::Fault), "unaligned");
        let g = MemoryFile::new().unwrap();
        let r = g.allocate(4 * PAGE, AllocOpts::default()).unwrap();
        assert_eq!(b.copy_to_partial(g.block(r)), 2 * 4096);
    }

    #[test]
    fn read_only_window() {
        let path = std::env::current_exe().unwrap();
        let f = HostFile::new(std::fs::File::open(path).unwrap().into(), false);
        let b = f.block(0, 64).unwrap();
        let mut magic = [0; 4];
        b.read(0, &mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF");
        assert_eq!(b.write_partial(0, &[1]), 0);
        let g = MemoryFile::new().unwrap();
        let r = g.allocate(PAGE, AllocOpts::default()).unwrap();
        assert_eq!(f.read_into(&[g.block(r)], 0).unwrap(), 4096);
        assert_eq!(g.block(r).load_u32(0), Ok(0x464c_457f));
    }
}
