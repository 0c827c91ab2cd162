//! Priority-inheriting futexes: locks whose word holds the owner's thread id. There are no priorities to inherit here;
//! what is kept is the hand-over: the kernel gives the lock to the first who waits.

use super::{Entry, Futexes, MATCH_ANY, WaitError, Word};
use crate::mm::{Mm, WordKey};
use crate::task::Task;
use crate::time::Deadline;
use crate::wait::Blocked;
use abi::{Errno, Result};
use ksync::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use platform::{Access, Block};
use std::sync::Arc;

/// Somebody waits (`FUTEX_WAITERS`).
pub(super) const WAITERS: u32 = 0x8000_0000;
/// The owner died (`FUTEX_OWNER_DIED`).
pub(super) const OWNER_DIED: u32 = 0x4000_0000;
/// The owner's thread id.
pub(super) const TID_MASK: u32 = 0x3fff_ffff;

enum Step {
    Locked,
    Queued(Arc<Entry>),
}

impl Futexes {
    /// `FUTEX_LOCK_PI`, and `FUTEX_TRYLOCK_PI` with `try_only`. `tid` is the caller's own, `exists` tells whether there is a
    /// thread with an id. EDEADLK, ESRCH, EAGAIN (try only), ETIMEDOUT.
    pub fn lock_pi(
        &self,
        task: &Task,
        word: Word,
        tid: u32,
        try_only: bool,
        deadline: Option<Deadline>,
        exists: &dyn Fn(u32) -> bool,
    ) -> Result<(), WaitError> {
        let mm = task.mm();
        let waiter = task.waiter();
        let step = mm.with_word(word.addr, Access::Write, word.shared, &mut |key, block| {
            let mut queue = self.bucket(key).lock();
            loop {
                let old = load(&block)?;
                let owner = old & TID_MASK;
                if owner == tid {
                    return Err(Errno::EDEADLK);
                }
                if owner == 0 {
                    let others = queue.iter().any(|e| e.key() == key);
                    let new = tid | old & OWNER_DIED | if others { WAITERS } else { 0 };
                    if cas(&block, old, new)? {
                        return Ok(Step::Locked);
                    }
                    continue;
                }
                if try_only {
                    return Err(Errno::EAGAIN);
                }
                if old & WAITERS == 0 && !cas(&block, old, old | WAITERS)? {
                    continue;
                }
                let entry = Arc::new(Entry {
                    key: std::sync::Mutex::new(key),
                    bitset: MATCH_ANY,
                    woken: AtomicBool::new(false),
                    waiter: Arc::clone(waiter),
                    pi_tid: AtomicU32::new(tid),
                    requeue_to: None,
                });
                queue.push(Arc::clone(&entry));
                return Ok(Step::Queued(entry));
            }
        })??;
        let Step::Queued(entry) = step else { return Ok(()) };
        // Looking for the owner needs locks that come before this one's.
        let owner = mm.load_u32(word.addr).map(|v| v & TID_MASK);
        if let Ok(owner) = owner
            && owner != 0
            && owner != tid
            && !exists(owner)
            && self.remove(&entry)
        {
            return Err(Errno::ESRCH.into());
        }
        match task.block_on(&[], deadline, || entry.is_woken().then_some(())) {
            Ok(()) => Ok(()),
            Err(_) if !self.remove(&entry) => Ok(()),
            Err(Blocked::TimedOut) => Err(Errno::ETIMEDOUT.into()),
            Err(Blocked::Interrupted) => Err(WaitError::Interrupted),
        }
    }

    /// `FUTEX_UNLOCK_PI`: EPERM when the caller does not own the lock.
    pub fn unlock_pi(&self, mm: &Mm, word: Word, tid: u32) -> Result<()> {
        let next = mm.with_word(word.addr, Access::Write, word.shared, &mut |key, block| loop {
            let mut queue = self.bucket(key).lock();
            let old = load(&block)?;
            if old & TID_MASK != tid {
                return Err(Errno::EPERM);
            }
            if let Some(next) = hand_over(&mut queue, key, &block, old, 0)? {
                return Ok(next);
            }
        })??;
        if let Some(e) = next {
            e.wake();
        }
        Ok(())
    }

    /// `FUTEX_WAIT_REQUEUE_PI`: waits on `word` to be moved to the lock at `lock`, and then for that. With success the lock
    /// is the caller's. EAGAIN when interrupted after the move.
    pub fn wait_requeue_pi(
        &self,
        task: &Task,
        (word, value, bitset): (Word, u32, u32),
        lock: Word,
        tid: u32,
        deadline: Option<Deadline>,
    ) -> Result<(), WaitError> {
        if bitset == 0 {
            return Err(Errno::EINVAL.into());
        }
        let mm = task.mm();
        let target = mm.word_key(lock.addr, lock.shared)?;
        if mm.word_key(word.addr, word.shared)? == target {
            return Err(Errno::EINVAL.into());
        }
        let entry = self.enqueue_for(task, &mm, word, value, bitset, Some((target, tid)))?;
        match task.block_on(&[], deadline, || entry.is_woken().then_some(())) {
            Ok(()) => Ok(()),
            Err(_) if !self.remove(&entry) => Ok(()),
            Err(Blocked::TimedOut) => Err(Errno::ETIMEDOUT.into()),
            Err(Blocked::Interrupted) if entry.pi_tid().is_some() => Err(Errno::EAGAIN.into()),
            Err(Blocked::Interrupted) => Err(WaitError::Interrupted),
        }
    }

    /// `FUTEX_CMP_REQUEUE_PI`: moves those who wait on `from` to the lock at `to`, which the first gets if it is free; how
    /// many. EAGAIN when the word at `from` has another value, EINVAL when somebody there does not wait for that lock.
    pub fn requeue_pi(&self, mm: &Mm, from: Word, to: Word, most: usize, expected: u32) -> Result<usize> {
        let target = mm.word_key(to.addr, to.shared)?;
        let moved = mm.with_word(from.addr, Access::Read, from.shared, &mut |key, block| {
            if key == target {
                return Err(Errno::EINVAL);
            }
            let (mut a, mut b) = self.pair(key, target);
            if load(&block)? != expected {
                return Err(Errno::EAGAIN);
            }
            let wrong = |e: &&Arc<Entry>| e.requeue_to.is_none_or(|(k, _)| k != target);
            if a.iter().filter(|e| e.key() == key).take(most).any(|e| wrong(&e)) {
                return Err(Errno::EINVAL);
            }
            let mut moving = Vec::new();
            super::take(&mut a, key, MATCH_ANY, most, &mut moving);
            for e in &moving {
                if let Some((_, tid)) = e.requeue_to {
                    e.pi_tid.store(tid, Ordering::Release);
                }
                *e.key.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = target;
            }
            let n = moving.len();
            b.as_mut().unwrap_or(&mut a).extend(moving);
            Ok(n)
        })??;
        if moved == 0 {
            return Ok(0);
        }
        // They wait for the lock now: it goes to the first if nobody has it, or its owner must ask the kernel to unlock.
        let next = mm.with_word(to.addr, Access::Write, to.shared, &mut |key, block| loop {
            let mut queue = self.bucket(key).lock();
            let old = load(&block)?;
            if old & TID_MASK != 0 {
                if old & WAITERS != 0 || cas(&block, old, old | WAITERS)? {
                    return Ok(None);
                }
            } else if let Some(next) = hand_over(&mut queue, key, &block, old, old & OWNER_DIED)? {
                return Ok(next);
            }
        })??;
        if let Some(e) = next {
            e.wake();
        }
        Ok(moved)
    }

    /// The owner of a lock dies: the lock goes to the first who waits, with `OWNER_DIED`.
    pub(super) fn owner_died(&self, mm: &Mm, word: Word, tid: u32) -> Result<()> {
        let next = mm.with_word(word.addr, Access::Write, word.shared, &mut |key, block| loop {
            let mut queue = self.bucket(key).lock();
            let old = load(&block)?;
            if old & TID_MASK != tid {
                return Ok(None);
            }
            if let Some(next) = hand_over(&mut queue, key, &block, old, OWNER_DIED)? {
                return Ok(next);
            }
        })??;
        if let Some(e) = next {
            e.wake();
        }
        Ok(())
    }
}

fn load(block: &Block<'_>) -> Result<u32> {
    block.load_u32(0).map_err(|_| Errno::EFAULT)
}

fn cas(block: &Block<'_>, old: u32, new: u32) -> Result<bool> {
    Ok(block.compare_exchange_u32(0, old, new).map_err(|_| Errno::EFAULT)?.is_ok())
}

/// Puts the first waiter's id into the word, or nobody's; who has been taken out of the queue and must be woken. `None`: the
/// word changed, try again.
fn hand_over(
    queue: &mut Vec<Arc<Entry>>,
    key: WordKey,
    block: &Block<'_>,
    old: u32,
    bits: u32,
) -> Result<Option<Option<Arc<Entry>>>> {
    let mut waiting =
        queue.iter().enumerate().filter(|(_, e)| e.key() == key && e.pi_tid().is_some()).map(|(i, _)| i);
    let first = waiting.next();
    let more = waiting.next().is_some();
    let new = match first {
        Some(i) => queue[i].pi_tid().unwrap_or(0) | if more { WAITERS } else { 0 } | bits,
        None => bits,
    };
    if !cas(block, old, new)? {
        return Ok(None);
    }
    Ok(Some(first.map(|i| queue.remove(i))))
}
