//! Advisory locks: flock(2), POSIX record locks and open file description locks (fcntl(2)). Waiting is
//! done by the calls; here is what is held and who waits for whom.
//!
//! A file that others than this sandbox use has their locks to respect: the sandbox as a whole then holds on the outside what
//! its processes hold of it.

use abi::{Errno, Result};
use ksync::{LockClass, Mutex, WaitQueue};
use std::collections::HashMap;
use std::sync::Arc;

/// Most record locks of one inode: they cost memory outside the guest's.
const MAX_LOCKS: usize = 100_000;

/// Whose lock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockOwner {
    /// A descriptor table (POSIX locks), by its id.
    Table(u64),
    /// An open file description (OFD locks), by its id.
    File(u64),
    /// Somebody outside of the sandbox.
    Outside,
}

/// A record lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLock {
    pub owner: LockOwner,
    /// Process in the root PID namespace; -1 for OFD locks.
    pub pid: i32,
    pub write: bool,
    pub start: u64,
    /// Last byte; `u64::MAX >> 1` means to the end.
    pub last: u64,
}

/// The last byte of a lock that reaches to the end of the file.
pub const TO_END: u64 = i64::MAX as u64;

impl RecordLock {
    fn overlaps(&self, o: &RecordLock) -> bool {
        self.start <= o.last && o.start <= self.last
    }
    fn conflicts(&self, o: &RecordLock) -> bool {
        self.owner != o.owner && (self.write || o.write) && self.overlaps(o)
    }
}

/// What a file is locked with for those outside of the sandbox. Nothing here waits: EAGAIN if somebody there is in the way.
pub trait OutsideLocks: Send + Sync {
    /// flock(2): exclusive, shared, or not at all.
    fn flock(&self, exclusive: Option<bool>) -> Result<()>;
    /// A record lock on a range, for writing, for reading, or none.
    fn record(&self, write: Option<bool>, start: u64, last: u64) -> Result<()>;
    /// The first lock there in the way of `wanted`.
    fn conflict(&self, wanted: &RecordLock) -> Result<Option<RecordLock>>;
}

/// The outside of a file, if it has one.
pub type Outside = Option<Arc<dyn OutsideLocks>>;

#[derive(Default)]
struct Held {
    records: Vec<RecordLock>,
    /// (description, exclusive, process)
    flocks: Vec<(u64, bool, i32)>,
    /// Where the same is held; always one and the same object while there is anything to hold.
    outside: Outside,
}

impl Held {
    fn outside(&mut self, outside: &Outside) -> Outside {
        if self.outside.is_none() {
            self.outside.clone_from(outside);
        }
        self.outside.clone()
    }

    /// `gone` is held by its owner no more: outside goes what nobody else in here holds.
    fn tell_gone(&mut self, gone: &[RecordLock]) {
        if let Some(outside) = &self.outside {
            for lock in gone {
                // Sorted by their starts.
                let mut at = lock.start;
                for other in self.records.iter().filter(|other| other.overlaps(lock)) {
                    if other.start > at {
                        // There is nobody to tell of an error, and of unlocking there hardly is one.
                        let _ = outside.record(None, at, other.start - 1);
                    }
                    at = at.max(other.last.saturating_add(1));
                }
                if at <= lock.last {
                    let _ = outside.record(None, at, lock.last);
                }
            }
        }
        self.forget_outside();
    }

    /// One flock less is held: outside there is none if it was the last.
    fn tell_flocks(&mut self) {
        if self.flocks.is_empty()
            && let Some(outside) = &self.outside
        {
            let _ = outside.flock(None);
        }
        self.forget_outside();
    }

    fn forget_outside(&mut self) {
        if self.records.is_empty() && self.flocks.is_empty() {
            self.outside = None;
        }
    }
}

/// The advisory locks of an inode.
pub struct FileLocks {
    held: Mutex<Held>,
    queue: Arc<WaitQueue>,
}

impl FileLocks {
    pub(super) fn new() -> FileLocks {
        FileLocks {
            held: Mutex::new(LockClass::FileLocks, Held::default()),
            queue: Arc::new(WaitQueue::new()),
        }
    }

    /// Told when a lock went away.
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }

    /// The first lock in the way of `wanted` (`F_GETLK`).
    pub fn conflict(&self, wanted: &RecordLock, outside: &Outside) -> Result<Option<RecordLock>> {
        let mut held = self.held.lock();
        if let Some(found) = held.records.iter().find(|l| l.conflicts(wanted)) {
            return Ok(Some(*found));
        }
        let found = held.outside(outside).map_or(Ok(None), |outside| outside.conflict(wanted));
        held.forget_outside();
        found
    }

    /// Sets a record lock, replacing what its owner had in the range; what is in the way otherwise.
    pub fn set(&self, new: &RecordLock, outside: &Outside) -> Result<std::result::Result<(), RecordLock>> {
        let mut held = self.held.lock();
        if let Some(l) = held.records.iter().find(|l| l.conflicts(new)) {
            return Ok(Err(*l));
        }
        Self::check_room(&held.records)?;
        if let Some(outside) = held.outside(outside)
            && let Err(error) = outside.record(Some(new.write), new.start, new.last)
        {
            held.forget_outside();
            let there = RecordLock { owner: LockOwner::Outside, pid: 0, ..*new };
            return if error == Errno::EAGAIN { Ok(Err(there)) } else { Err(error) };
        }
        let weaker = !Self::cut(&mut held.records, new.owner, new.start, new.last)?.is_empty();
        let mut new = *new;
        // Neighbours of the same kind become one.
        held.records.retain(|l| {
            let touches = l.owner == new.owner
                && l.write == new.write
                && l.last.saturating_add(1) >= new.start
                && new.last.saturating_add(1) >= l.start;
            if touches {
                new.start = new.start.min(l.start);
                new.last = new.last.max(l.last);
            }
            !touches
        });
        let at = held.records.partition_point(|l| l.start < new.start);
        held.records.insert(at, new);
        drop(held);
        if weaker {
            self.queue.wake_all(u32::MAX);
        }
        Ok(Ok(()))
    }

    /// ENOLCK if there are too many for another two.
    fn check_room(records: &[RecordLock]) -> Result<()> {
        if records.len() + 2 > MAX_LOCKS { Err(Errno::ENOLCK) } else { Ok(()) }
    }

    /// Removes an owner's locks from a range; what was removed.
    fn cut(
        records: &mut Vec<RecordLock>,
        owner: LockOwner,
        start: u64,
        last: u64,
    ) -> Result<Vec<RecordLock>> {
        Self::check_room(records)?;
        let mut found = Vec::new();
        let mut out = Vec::with_capacity(records.len() + 2);
        for l in records.iter() {
            if l.owner != owner || l.start > last || start > l.last {
                out.push(*l);
                continue;
            }
            found.push(RecordLock { start: l.start.max(start), last: l.last.min(last), ..*l });
            if l.start < start {
                out.push(RecordLock { last: start - 1, ..*l });
            }
            if l.last > last {
                out.push(RecordLock { start: last + 1, ..*l });
            }
        }
        *records = out;
        Ok(found)
    }

    /// Removes an owner's locks from a range (`F_UNLCK`).
    pub fn unset(&self, owner: LockOwner, start: u64, last: u64) -> Result<()> {
        let found = {
            let mut held = self.held.lock();
            let found = Self::cut(&mut held.records, owner, start, last)?;
            held.tell_gone(&found);
            found
        };
        if !found.is_empty() {
            self.queue.wake_all(u32::MAX);
        }
        Ok(())
    }

    /// All record locks of an owner go (a descriptor of the file was closed).
    pub fn release_owner(&self, owner: LockOwner) {
        let found = {
            let mut held = self.held.lock();
            let gone: Vec<RecordLock> = held.records.extract_if(.., |l| l.owner == owner).collect();
            held.tell_gone(&gone);
            !gone.is_empty()
        };
        if found {
            self.queue.wake_all(u32::MAX);
        }
    }

    /// A description is gone, its locks with it.
    pub(super) fn release_file(&self, id: u64) {
        self.release_owner(LockOwner::File(id));
        self.flock_unset(id);
    }

    /// flock(2): EAGAIN when another description is in the way. A conversion lets go of the old lock
    /// first, as Linux does.
    pub fn flock_set(&self, file: u64, exclusive: bool, pid: i32, outside: &Outside) -> Result<()> {
        let (result, had) = {
            let mut held = self.held.lock();
            if held.flocks.contains(&(file, exclusive, pid)) {
                return Ok(());
            }
            let before = held.flocks.len();
            held.flocks.retain(|l| l.0 != file);
            let had = held.flocks.len() != before;
            let result = if held.flocks.iter().any(|l| l.1 || exclusive) {
                Err(Errno::EAGAIN)
            } else {
                held.outside(outside).map_or(Ok(()), |outside| outside.flock(Some(exclusive)))
            };
            match result {
                Ok(()) => held.flocks.push((file, exclusive, pid)),
                Err(_) => held.tell_flocks(),
            }
            (result, had)
        };
        if had {
            self.queue.wake_all(u32::MAX);
        }
        result
    }

    /// `LOCK_UN`.
    pub fn flock_unset(&self, file: u64) {
        let found = {
            let mut held = self.held.lock();
            let before = held.flocks.len();
            held.flocks.retain(|l| l.0 != file);
            held.tell_flocks();
            held.flocks.len() != before
        };
        if found {
            self.queue.wake_all(u32::MAX);
        }
    }

    /// What is held, for /proc/locks: record locks and flocks as (description, exclusive, process).
    pub fn snapshot(&self) -> (Vec<RecordLock>, Vec<(u64, bool, i32)>) {
        let held = self.held.lock();
        (held.records.clone(), held.flocks.clone())
    }
}

/// Which POSIX lock owner waits for which: a circle would be a deadlock.
pub struct LockWaits(Mutex<HashMap<LockOwner, LockOwner>>);

impl Default for LockWaits {
    fn default() -> LockWaits {
        LockWaits(Mutex::new(LockClass::Leaf, HashMap::new()))
    }
}

impl LockWaits {
    /// `waiter` is going to wait for `holder`; EDEADLK when that closes a circle.
    pub fn wait_for(&self, waiter: LockOwner, holder: LockOwner) -> Result<()> {
        let mut waits = self.0.lock();
        let mut at = holder;
        for _ in 0..waits.len() + 1 {
            if at == waiter {
                return Err(Errno::EDEADLK);
            }
            match waits.get(&at) {
                Some(next) => at = *next,
                None => break,
            }
        }
        waits.insert(waiter, holder);
        Ok(())
    }

    /// `waiter` waits no more.
    pub fn done(&self, waiter: LockOwner) {
        self.0.lock().remove(&waiter);
    }
}

impl super::Vfs {
    /// Who waits for whose locks.
    pub fn lock_waits(&self) -> &LockWaits {
        &self.lock_waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(owner: u64, write: bool, start: u64, last: u64) -> RecordLock {
        RecordLock { owner: LockOwner::Table(owner), pid: 1, write, start, last }
    }

    #[test]
    fn ranges_split_merge_and_conflict() {
        let l = FileLocks::new();
        assert_eq!(l.set(&lock(1, true, 0, 99), &None).unwrap(), Ok(()));
        assert!(l.set(&lock(2, false, 50, 60), &None).unwrap().is_err());
        l.unset(LockOwner::Table(1), 40, 59).unwrap();
        assert_eq!(l.set(&lock(2, false, 50, 59), &None).unwrap(), Ok(()));
        assert_eq!(l.conflict(&lock(2, true, 0, TO_END), &None).unwrap().unwrap().start, 0);
        assert_eq!(l.set(&lock(1, true, 40, 49), &None).unwrap(), Ok(()));
        let (held, _) = l.snapshot();
        assert_eq!(held.len(), 3);
        assert_eq!((held[0].start, held[0].last), (0, 49));
        l.release_owner(LockOwner::Table(1));
        assert_eq!(l.snapshot().0.len(), 1);
        let w = LockWaits::default();
        let o = LockOwner::Table;
        w.wait_for(o(1), o(2)).unwrap();
        w.wait_for(o(2), o(3)).unwrap();
        assert_eq!(w.wait_for(o(3), o(1)), Err(Errno::EDEADLK));
    }

    /// What is held outside, as text.
    #[derive(Default)]
    struct Told(std::sync::Mutex<Vec<String>>);

    impl OutsideLocks for Told {
        fn flock(&self, exclusive: Option<bool>) -> Result<()> {
            self.0.lock().unwrap().push(format!("flock {exclusive:?}"));
            Ok(())
        }
        fn record(&self, write: Option<bool>, start: u64, last: u64) -> Result<()> {
            if start == 666 {
                return Err(Errno::EAGAIN);
            }
            self.0.lock().unwrap().push(format!("{write:?} {start}-{last}"));
            Ok(())
        }
        fn conflict(&self, _: &RecordLock) -> Result<Option<RecordLock>> {
            Ok(None)
        }
    }

    #[test]
    fn the_outside_has_what_anybody_holds() {
        let l = FileLocks::new();
        let told = Arc::new(Told::default());
        let outside: Outside = Some(told.clone());
        let news = || std::mem::take(&mut *told.0.lock().unwrap()).join(", ");
        l.set(&lock(1, false, 0, 99), &outside).unwrap().unwrap();
        l.set(&lock(2, false, 10, 19), &outside).unwrap().unwrap();
        assert_eq!(news(), "Some(false) 0-99, Some(false) 10-19");
        l.unset(LockOwner::Table(1), 5, 49).unwrap();
        assert_eq!(news(), "None 5-9, None 20-49");
        let refused = l.set(&lock(1, true, 666, 667), &outside).unwrap().unwrap_err();
        assert_eq!(refused.owner, LockOwner::Outside);
        l.release_owner(LockOwner::Table(1));
        l.release_owner(LockOwner::Table(2));
        assert_eq!(news(), "None 0-4, None 50-99, None 10-19");
        l.flock_set(1, false, 1, &outside).unwrap();
        l.flock_set(2, false, 1, &outside).unwrap();
        assert_eq!(l.flock_set(1, true, 1, &outside), Err(Errno::EAGAIN));
        l.flock_unset(2);
        assert_eq!(news(), "flock Some(false), flock Some(false), flock None");
        assert!(l.held.lock().outside.is_none());
    }
}
