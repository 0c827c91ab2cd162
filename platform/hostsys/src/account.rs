//! Bytes of the memory file by whom they were taken: what the memory controller of a cgroup counts.
//!
//! Pages stay charged to whom they were handed out until the last reference to them goes, as in Linux (memory
//! ownership in Documentation/admin-guide/cgroup-v2.rst).

use crate::memfile::PAGE;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes of one group of users, and how many there may be. Changed under the memory file's lock, read at any time.
#[derive(Debug)]
pub struct Account {
    number: u32,
    used: AtomicU64,
    peak: AtomicU64,
    /// `u64::MAX`: none.
    limit: AtomicU64,
    refusals: AtomicU64,
}

impl Account {
    pub(crate) fn new(number: u32) -> Account {
        let zero = || AtomicU64::new(0);
        Account { number, used: zero(), peak: zero(), limit: AtomicU64::new(u64::MAX), refusals: zero() }
    }

    /// What [`crate::memfile::AllocOpts`] names it by; not 0.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Bytes charged.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The most bytes that were charged at any time.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// How often a page was refused (`max` of memory.events).
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Bytes that may be charged.
    pub fn limit(&self) -> Option<u64> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|l| *l != u64::MAX)
    }

    /// Sets the limit. What is above stays.
    pub fn set_limit(&self, limit: Option<u64>) {
        self.limit.store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether not even one page more may be charged.
    pub fn is_full(&self) -> bool {
        self.used().saturating_add(PAGE) > self.limit.load(Ordering::Relaxed)
    }

    /// Whether `len` bytes may be charged, going beyond the limit by `over` at most. More than a page only as long as
    /// a part of what is left: pages count when they are taken, touched or not.
    pub(crate) fn has_room(&self, len: u64, over: u64) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == u64::MAX {
            return true;
        }
        let left = limit.saturating_add(over).saturating_sub(self.used());
        if len > PAGE {
            return len <= left / PART;
        }
        if len > left {
            self.refusals.fetch_add(1, Ordering::Relaxed);
        }
        len <= left
    }

    pub(crate) fn add(&self, len: u64) {
        let used = self.used.fetch_add(len, Ordering::Relaxed) + len;
        self.peak.fetch_max(used, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, len: u64) {
        self.used.fetch_sub(len, Ordering::Relaxed);
    }
}

/// The part of what is left that one piece may have.
const PART: u64 = 8;
