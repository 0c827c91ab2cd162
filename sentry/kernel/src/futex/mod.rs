//! Futexes (futex(2), futex(7)): who waits on which word of memory.
//!
//! A word is known by its key (`mm::WordKey`). The value of a word is looked at, and a waiter put into its bucket, in one step
//! under the locks of address space and bucket, so that no wake-up between the two is lost.

mod exit;
mod pi;

#[cfg(test)]
mod tests;

pub use exit::exit_task;

use crate::mm::{Mm, WordKey};
use crate::task::Task;
use crate::time::Deadline;
use crate::wait::{Blocked, Waiter};
use abi::{Errno, Result};
use ksync::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use ksync::{LockClass, Mutex, MutexGuard};
use platform::Access;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Waiters with any bitset.
pub const MATCH_ANY: u32 = u32::MAX;
const BUCKETS: usize = 256;

/// A word of a task's memory.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    pub addr: u64,
    /// Whether others may reach it by other addresses (no `FUTEX_PRIVATE_FLAG`).
    pub shared: bool,
}

/// Why a wait ended without a wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    Errno(Errno),
    Interrupted,
}

impl From<Errno> for WaitError {
    fn from(e: Errno) -> Self {
        WaitError::Errno(e)
    }
}

/// One who waits.
struct Entry {
    /// Changed by requeueing, under the locks of both buckets.
    key: std::sync::Mutex<WordKey>,
    bitset: u32,
    woken: AtomicBool,
    waiter: Arc<Waiter>,
    /// For those who wait for a priority-inheriting lock: the thread id to put into the word. Else 0.
    pi_tid: AtomicU32,
    /// Waits to be moved to such a lock, and is this thread (`FUTEX_WAIT_REQUEUE_PI`).
    requeue_to: Option<(WordKey, u32)>,
}

impl Entry {
    fn key(&self) -> WordKey {
        *self.key.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    /// The thread id for the word of a priority-inheriting lock, if it waits for one.
    fn pi_tid(&self) -> Option<u32> {
        Some(self.pi_tid.load(Ordering::Acquire)).filter(|tid| *tid != 0)
    }
    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }
    /// Ends the wait. The entry must be out of its bucket.
    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.waiter.wake();
    }
}

type Queue = Vec<Arc<Entry>>;

/// All futexes of a sandbox that somebody waits on.
pub struct Futexes {
    buckets: Box<[Mutex<Queue>]>,
    hash: RandomState,
}

impl Default for Futexes {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| Mutex::new(LockClass::Futex, Vec::new())).collect();
        Futexes { buckets, hash: RandomState::new() }
    }
}

impl std::fmt::Debug for Futexes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Futexes")
    }
}

/// Takes up to `n` waiters on a key out of a queue, in order of arrival.
fn take(queue: &mut Queue, key: WordKey, bitset: u32, n: usize, out: &mut Vec<Arc<Entry>>) {
    let mut left = n;
    let mut i = 0;
    while i < queue.len() && left > 0 {
        let e = &queue[i];
        if e.bitset & bitset != 0 && e.key() == key {
            out.push(queue.remove(i));
            left -= 1;
        } else {
            i += 1;
        }
    }
}

impl Futexes {
    fn bucket(&self, key: WordKey) -> &Mutex<Queue> {
        // The hash is keyed, so that a guest cannot aim at one bucket.
        let n = usize::try_from(self.hash.hash_one(key) % BUCKETS as u64).unwrap_or(0);
        &self.buckets[n]
    }

    /// Locks the buckets of two keys, which may be one.
    fn pair(&self, a: WordKey, b: WordKey) -> (MutexGuard<'_, Queue>, Option<MutexGuard<'_, Queue>>) {
        let (x, y) = (self.bucket(a), self.bucket(b));
        if std::ptr::eq(x, y) {
            (x.lock(), None)
        } else {
            let (gx, gy) = Mutex::lock_pair(x, y);
            (gx, Some(gy))
        }
    }

    /// Takes an entry out again; false when it was woken first.
    fn remove(&self, entry: &Arc<Entry>) -> bool {
        loop {
            let key = entry.key();
            let mut queue = self.bucket(key).lock();
            if entry.key() != key {
                // Requeued meanwhile.
                continue;
            }
            let Some(i) = queue.iter().position(|e| Arc::ptr_eq(e, entry)) else { return false };
            queue.remove(i);
            return true;
        }
    }

    /// Puts an entry for the task into the bucket of a word if the word has the value. EAGAIN if not, EFAULT.
    fn enqueue(&self, task: &Task, mm: &Mm, word: Word, value: u32, bitset: u32) -> Result<Arc<Entry>> {
        self.enqueue_for(task, mm, word, value, bitset, None)
    }

    fn enqueue_for(
        &self,
        task: &Task,
        mm: &Mm,
        word: Word,
        value: u32,
        bitset: u32,
        requeue_to: Option<(WordKey, u32)>,
    ) -> Result<Arc<Entry>> {
        let waiter = task.waiter();
        mm.with_word(word.addr, Access::Read, word.shared, &mut |key, block| {
            let mut queue = self.bucket(key).lock();
            if block.load_u32(0).map_err(|_| Errno::EFAULT)? != value {
                return Err(Errno::EAGAIN);
            }
            let entry = Arc::new(Entry {
                key: std::sync::Mutex::new(key),
                bitset,
                woken: AtomicBool::new(false),
                waiter: Arc::clone(waiter),
                pi_tid: AtomicU32::new(0),
                requeue_to,
            });
            queue.push(Arc::clone(&entry));
            Ok(entry)
        })?
    }

    /// Waits until woken, if the word has the value (`FUTEX_WAIT_BITSET`): EAGAIN, ETIMEDOUT, EFAULT, EINVAL.
    pub fn wait(
        &self,
        task: &Task,
        word: Word,
        value: u32,
        bitset: u32,
        deadline: Option<Deadline>,
    ) -> Result<(), WaitError> {
        if bitset == 0 {
            return Err(Errno::EINVAL.into());
        }
        let entry = self.enqueue(task, &task.mm(), word, value, bitset)?;
        match task.block_on(&[], deadline, || entry.is_woken().then_some(())) {
            Ok(()) => Ok(()),
            Err(_) if !self.remove(&entry) => Ok(()),
            Err(Blocked::TimedOut) => Err(Errno::ETIMEDOUT.into()),
            Err(Blocked::Interrupted) => Err(WaitError::Interrupted),
        }
    }

    /// Waits on several words (futex_waitv(2)); the index of one that was woken.
    pub fn wait_many(
        &self,
        task: &Task,
        words: &[(Word, u32)],
        deadline: Option<Deadline>,
    ) -> Result<usize, WaitError> {
        let mm = task.mm();
        let mut entries: Vec<Arc<Entry>> = Vec::with_capacity(words.len());
        let mut failed = None;
        for (word, value) in words {
            match self.enqueue(task, &mm, *word, *value, MATCH_ANY) {
                Ok(e) => entries.push(e),
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        let result = match failed {
            Some(e) => Err(WaitError::Errno(e)),
            None => {
                let woken = || entries.iter().any(|e| e.is_woken()).then_some(());
                match task.block_on(&[], deadline, woken) {
                    Ok(()) => Ok(0),
                    Err(Blocked::TimedOut) => Err(Errno::ETIMEDOUT.into()),
                    Err(Blocked::Interrupted) => Err(WaitError::Interrupted),
                }
            }
        };
        // A wake-up that was taken counts, whatever else happened.
        let mut hit = None;
        for (i, e) in entries.iter().enumerate() {
            if !self.remove(e) {
                hit = Some(i);
            }
        }
        match hit {
            Some(i) => Ok(i),
            None => result,
        }
    }

    /// Wakes up to `n` waiters on a word whose bitset has a bit of `bitset`; how many.
    pub fn wake(&self, mm: &Mm, word: Word, n: usize, bitset: u32) -> Result<usize> {
        if bitset == 0 {
            return Err(Errno::EINVAL);
        }
        let key = mm.word_key(word.addr, word.shared)?;
        Ok(self.wake_key(key, n, bitset))
    }

    fn wake_key(&self, key: WordKey, n: usize, bitset: u32) -> usize {
        let mut out = Vec::new();
        take(&mut self.bucket(key).lock(), key, bitset, n, &mut out);
        out.iter().for_each(|e| e.wake());
        out.len()
    }

    /// Wakes up to `wake` waiters on `from` and moves up to `move_` others to `to`; how many of both. With `expected`: EAGAIN if
    /// the word at `from` has another value.
    pub fn requeue(
        &self,
        mm: &Mm,
        from: Word,
        to: Word,
        wake: usize,
        move_: usize,
        expected: Option<u32>,
    ) -> Result<usize> {
        let to_key = mm.word_key(to.addr, to.shared)?;
        let mut woken = Vec::new();
        let moved = mm.with_word(from.addr, Access::Read, from.shared, &mut |key, block| {
            let (mut a, mut b) = self.pair(key, to_key);
            if let Some(v) = expected
                && block.load_u32(0).map_err(|_| Errno::EFAULT)? != v
            {
                return Err(Errno::EAGAIN);
            }
            take(&mut a, key, MATCH_ANY, wake, &mut woken);
            if key == to_key {
                // Moving to the same word moves nobody, but counts.
                return Ok(a.iter().filter(|e| e.key() == key).count().min(move_));
            }
            let mut moving = Vec::new();
            take(&mut a, key, MATCH_ANY, move_, &mut moving);
            for e in &moving {
                *e.key.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = to_key;
            }
            let n = moving.len();
            b.as_mut().unwrap_or(&mut a).extend(moving);
            Ok(n)
        })??;
        woken.iter().for_each(|e| e.wake());
        Ok(woken.len() + moved)
    }

    /// `FUTEX_WAKE_OP`: changes the second word as `op` says, wakes `n1` on the first and, if the old value of the second
    /// compares as `op` says, `n2` on the second; how many in all. ENOSYS for unknown operations.
    pub fn wake_op(
        &self,
        mm: &Mm,
        first: Word,
        second: Word,
        n1: usize,
        n2: usize,
        op: u32,
    ) -> Result<usize> {
        let op = WakeOp::decode(op)?;
        let key1 = mm.word_key(first.addr, first.shared)?;
        let mut woken = Vec::new();
        mm.with_word(second.addr, Access::Write, second.shared, &mut |key2, block| {
            let (mut a, mut b) = self.pair(key1, key2);
            let old = loop {
                let old = block.load_u32(0).map_err(|_| Errno::EFAULT)?;
                let new = op.apply(old);
                if block.compare_exchange_u32(0, old, new).map_err(|_| Errno::EFAULT)?.is_ok() {
                    break old;
                }
            };
            take(&mut a, key1, MATCH_ANY, n1, &mut woken);
            if op.matches(old) {
                take(b.as_mut().unwrap_or(&mut a), key2, MATCH_ANY, n2, &mut woken);
            }
            Ok(())
        })??;
        woken.iter().for_each(|e| e.wake());
        Ok(woken.len())
    }
}

/// The encoded operation of `FUTEX_WAKE_OP`.
struct WakeOp {
    op: u32,
    arg: i32,
    cmp: u32,
    cmp_arg: i32,
}

impl WakeOp {
    fn decode(raw: u32) -> Result<WakeOp> {
        let signed12 = |v: u32| ((v & 0xfff) << 20).cast_signed() >> 20;
        let mut arg = signed12(raw >> 12);
        if raw & 1 << 31 != 0 {
            // Linux takes shifts out of range modulo 32.
            arg = 1i32.wrapping_shl(arg.cast_unsigned() & 31);
        }
        let (op, cmp) = (raw >> 28 & 7, raw >> 24 & 15);
        if op > 4 || cmp > 5 {
            return Err(Errno::ENOSYS);
        }
        Ok(WakeOp { op, arg, cmp, cmp_arg: signed12(raw) })
    }

    fn apply(&self, old: u32) -> u32 {
        let arg = self.arg.cast_unsigned();
        match self.op {
            0 => arg,
            1 => old.wrapping_add(arg),
            2 => old | arg,
            3 => old & !arg,
            _ => old ^ arg,
        }
    }

    fn matches(&self, old: u32) -> bool {
        let old = old.cast_signed();
        match self.cmp {
            0 => old == self.cmp_arg,
            1 => old != self.cmp_arg,
            2 => old < self.cmp_arg,
            3 => old <= self.cmp_arg,
            4 => old > self.cmp_arg,
            _ => old >= self.cmp_arg,
        }
    }
}
