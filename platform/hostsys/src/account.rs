//! Bytes of the memory file by whom they were taken: what the memory controller of a cgroup counts.
//!
//! Pages stay charged to whom they were handed out until the last reference to them goes, as in Linux (memory
//! ownership in Documentation/admin-guide/cgroup-v2.rst).

use crate::memfile::PAGE;
use crate::memgroup::MemoryGroup;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The part of what is left that one piece may have.
const PART: u64 = 8;
/// What is left free for the sandbox itself between two looks at the host's count: this part of the limit, within bounds.
const SLACK_PART: u64 = 64;
const SLACK_LEAST: u64 = 512 << 10;
const SLACK_MOST: u64 = 2 << 20;
/// How far beyond a limit work that is under way may go; its end sees to the limit.
pub const OVERDRAFT: u64 = 8 << 20;
/// Pages that were handed out and not touched count up to this part of the limit: most of them never are, perhaps.
const TO_COME_PART: u64 = 16;
/// Less than this is no room: the host hands out that much to each processor in advance.
const ROOM: u64 = 256 << 10;

thread_local! {
    /// Whom the calling thread works for, and whether it has charged beyond a limit.
    static THREAD: (Cell<u32>, Cell<bool>) = const { (Cell::new(0), Cell::new(false)) };
}

/// From now on the calling thread works for the users of an account (0: for none).
pub fn work_for(account: u32) {
    THREAD.with(|t| t.0.set(account));
}

/// The account that the calling thread works for.
pub fn of_thread() -> u32 {
    THREAD.with(|t| t.0.get())
}

/// The calling thread charges beyond the limit now, for work that it cannot break off.
pub fn overdraw() {
    THREAD.with(|t| t.1.set(true));
}

/// Whether it does.
pub fn is_overdrawing() -> bool {
    THREAD.with(|t| t.1.get())
}

/// Whether it did; from now on it does not.
pub fn take_overdrawn() -> bool {
    THREAD.with(|t| t.1.get() && t.1.replace(false))
}

/// The bytes of one group of users, and how many there may be. Changed under the memory file's lock, read at any time.
#[derive(Debug)]
pub struct Account {
    number: u32,
    used: AtomicU64,
    peak: AtomicU64,
    /// `u64::MAX`: none.
    limit: AtomicU64,
    /// What may be charged before the host's count is looked at again, and before somebody has to go. Without a group both are
    /// the limit.
    until: AtomicU64,
    hard: AtomicU64,
    /// With a group: the least that was charged since the last look, and how much more than that may be before the next. What was
    /// given back need not be the host's again yet, or somebody else may have taken it.
    low: AtomicU64,
    step: AtomicU64,
    group: OnceLock<MemoryGroup>,
    refusals: AtomicU64,
}

impl Account {
    pub(crate) fn new(number: u32) -> Account {
        let zero = || AtomicU64::new(0);
        let most = || AtomicU64::new(u64::MAX);
        Account {
            number,
            used: zero(),
            peak: zero(),
            limit: most(),
            until: most(),
            hard: most(),
            low: zero(),
            step: most(),
            group: OnceLock::new(),
            refusals: zero(),
        }
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
        let limit = limit.unwrap_or(u64::MAX);
        self.limit.store(limit, Ordering::Relaxed);
        let first = match self.group.get() {
            // To be looked at soon, but not at once: what is there before the first task cannot wait.
            Some(_) if limit != u64::MAX => limit / 4,
            _ => limit,
        };
        self.until.store(first, Ordering::Relaxed);
        self.hard.store(first, Ordering::Relaxed);
        self.step.store(first, Ordering::Relaxed);
    }

    /// What may be charged, as far as is known.
    fn now(&self) -> u64 {
        let until = self.until.load(Ordering::Relaxed);
        if self.group.get().is_none() {
            return until;
        }
        let step = self.low.load(Ordering::Relaxed).saturating_add(self.step.load(Ordering::Relaxed));
        until.min(step)
    }

    /// The limit is also the host's, for this group, in which other memory counts as well: what may be charged is what is left
    /// there. To be called before there is a limit.
    pub fn watch(&self, group: MemoryGroup) {
        // Only once in a sandbox.
        let _ = self.group.set(group);
    }

    /// The group that was given.
    pub fn group(&self) -> Option<&MemoryGroup> {
        self.group.get()
    }

    /// Looks how much is left in the group; whether there is something.
    pub fn look(&self) -> bool {
        let (Some(group), Some(limit)) = (self.group.get(), self.limit()) else { return !self.is_full() };
        let used = self.used();
        let room = match group.held(limit) {
            Ok((held, touched)) => {
                let slack = (limit / SLACK_PART).clamp(SLACK_LEAST, SLACK_MOST);
                // What was handed out and not touched may be at any time.
                let to_come = used.saturating_sub(touched).min(limit / TO_COME_PART);
                limit.saturating_sub(held + slack + to_come)
            }
            // Not the host's count then, but what is charged here.
            Err(_) => limit.saturating_sub(used),
        };
        if room < ROOM {
            // Never up: what is charged beyond would be looked at from there.
            self.hard.fetch_min(used, Ordering::Relaxed);
            self.until.fetch_min(used, Ordering::Relaxed);
            return false;
        }
        // The rest after another look, at what the sandbox itself has taken meanwhile.
        let step = (room / 2).max(ROOM);
        self.low.store(used, Ordering::Relaxed);
        self.step.store(step, Ordering::Relaxed);
        self.hard.store(used + room, Ordering::Relaxed);
        self.until.store(used + step, Ordering::Relaxed);
        true
    }

    /// Whether not even one page more may be charged, as far as is known.
    pub fn is_full(&self) -> bool {
        self.used().saturating_add(PAGE) > self.now()
    }

    /// Whether more is charged than somebody may keep.
    pub fn is_over(&self) -> bool {
        self.used() > self.now()
    }

    /// Whether `len` bytes may be charged, going beyond the limit by `over` at most. More than a page only as long as
    /// a part of what is left: pages count when they are taken, touched or not.
    pub(crate) fn has_room(&self, len: u64, over: u64) -> bool {
        if self.until.load(Ordering::Relaxed) == u64::MAX {
            return true;
        }
        let until = self.now();
        let most = match over {
            0 => until,
            // The host would kill for more.
            _ if self.group.get().is_some() => {
                self.hard.load(Ordering::Relaxed).max(until).saturating_add(over.min(SLACK_LEAST / 4))
            }
            _ => until.saturating_add(over),
        };
        let left = most.saturating_sub(self.used());
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
        let used = self.used.fetch_sub(len, Ordering::Relaxed) - len;
        if self.group.get().is_some() {
            self.low.fetch_min(used, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::FileExt;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_hosts_count_says_how_much_is_left() {
        let file =
            || std::fs::File::from(rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let (usage, stat) = (file(), file());
        let host_holds = |bytes: u64| {
            usage.write_all_at(format!("{:>12}\n", bytes + MIB).as_bytes(), 0).unwrap();
            // A MiB of it is a file on disk, whose pages the host can take back.
            stat.write_all_at(format!("anon {bytes:>12}\nfile 1048576\nslab_reclaimable 0\n").as_bytes(), 0)
                .unwrap();
        };
        let fd = |f: &std::fs::File| OwnedFd::from(f.try_clone().unwrap());
        let a = Account::new(1);
        a.watch(MemoryGroup::new(fd(&usage), fd(&stat), None));
        assert!(a.has_room(1 << 40, 0), "no limit yet");
        a.set_limit(Some(64 * MIB));
        assert!(!a.is_full(), "something without a look");

        host_holds(4 * MIB);
        a.add(20 * MIB);
        assert!(a.is_full() && a.is_over(), "to be looked at");
        assert!(a.look() && !a.is_full());
        // 64 - 4 - 1 (slack) - 4 (handed out and not touched: a sixteenth at most).
        assert_eq!(a.hard.load(Ordering::Relaxed), (20 + 55) * MIB);
        assert!(!a.has_room(28 * MIB, 0), "the half of it only, and of that a part in one piece");
        assert!(a.has_room(3 * MIB, 0));

        host_holds(63 * MIB);
        a.add(60 * MIB);
        assert!(!a.look() && a.is_full(), "now somebody has to go");
        assert!(!a.has_room(PAGE, OVERDRAFT), "and nobody may go far beyond");

        host_holds(30 * MIB);
        a.sub(60 * MIB);
        assert!(a.look() && !a.is_full());
        a.sub(10 * MIB);
        a.add(20 * MIB);
        assert!(a.is_full(), "not all that was given back is there for certain");
    }

    #[test]
    fn a_thread_overdraws_for_itself() {
        overdraw();
        assert!(is_overdrawing());
        std::thread::spawn(|| assert!(!is_overdrawing() && !take_overdrawn())).join().unwrap();
        assert!(take_overdrawn() && !take_overdrawn());
        work_for(3);
        assert_eq!((of_thread(), std::thread::spawn(of_thread).join().unwrap()), (3, 0));
    }
}
