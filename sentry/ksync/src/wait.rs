//! Wait queues: who wants to know that an object may have become ready.

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, PoisonError};

/// Somebody who waits: a sleeping task, an epoll item, an asynchronous signal owner.
pub trait Listener: Send + Sync {
    /// Something of `mask` may have happened. Called without any lock of the queue held, from any
    /// thread; must not block. Returns whether the news was taken (counts for exclusive wake-ups).
    fn notify(&self, mask: u32) -> bool;
}

struct Entry {
    id: u64,
    mask: u32,
    exclusive: bool,
    listener: Arc<dyn Listener>,
}

/// Proof of a registration, to take it back with.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Registration(u64);

/// The set of those who wait for one object. The mask is a set of bits that the object's users
/// agree on; for files it is `PollEvents`.
#[derive(Default)]
pub struct WaitQueue {
    /// Number of entries, so that waking nobody costs one load.
    len: AtomicUsize,
    next: AtomicU64,
    entries: Mutex<Vec<Entry>>,
}

impl WaitQueue {
    /// A queue with nobody in it.
    pub const fn new() -> Self {
        WaitQueue { len: AtomicUsize::new(0), next: AtomicU64::new(1), entries: Mutex::new(Vec::new()) }
    }

    /// Adds a listener for the bits of `mask`. Of the exclusive ones a wake-up reaches only as many
    /// as it says, all others it always reaches.
    pub fn register(&self, listener: Arc<dyn Listener>, mask: u32, exclusive: bool) -> Registration {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(Entry { id, mask, exclusive, listener });
        // SeqCst pairs with the load in wake(): either the waker sees the entry, or the waiter's
        // check after registering sees what the waker did before.
        self.len.store(entries.len(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Registration(id)
    }

    /// Takes a listener out. It may still be called by a wake-up that is under way.
    pub fn unregister(&self, r: Registration) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = entries.iter().position(|e| e.id == r.0) {
            let gone = entries.remove(i);
            self.len.store(entries.len(), Ordering::SeqCst);
            drop(entries);
            drop(gone);
        }
    }

    /// Whether anybody waits.
    pub fn is_empty(&self) -> bool {
        fence(Ordering::SeqCst);
        self.len.load(Ordering::SeqCst) == 0
    }

    /// Wakes everybody whose mask has a bit of `mask`, but at most one exclusive waiter. Returns whether
    /// anybody took the news.
    pub fn wake(&self, mask: u32) -> bool {
        self.wake_exclusive(mask, 1)
    }

    /// Wakes everybody, the exclusive ones too.
    pub fn wake_all(&self, mask: u32) {
        let _ = self.wake_exclusive(mask, usize::MAX);
    }

    /// Wakes the non-exclusive waiters and up to `limit` exclusive ones that take the news.
    pub fn wake_exclusive(&self, mask: u32, mut limit: usize) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut snapshot: Vec<(bool, Arc<dyn Listener>)> = Vec::new();
        {
            let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            snapshot.extend(
                entries.iter().filter(|e| e.mask & mask != 0).map(|e| (e.exclusive, Arc::clone(&e.listener))),
            );
        }
        let mut taken = false;
        for (exclusive, listener) in snapshot {
            if exclusive && limit == 0 {
                continue;
            }
            if listener.notify(mask) {
                taken = true;
                limit -= usize::from(exclusive);
            }
        }
        taken
    }
}

impl std::fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WaitQueue({})", self.len.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Listener for Count {
        fn notify(&self, _: u32) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed);
            true
        }
    }

    #[test]
    fn masks_and_exclusiveness() {
        let q = WaitQueue::new();
        let (a, b, c) = (Arc::new(Count::default()), Arc::new(Count::default()), Arc::new(Count::default()));
        let ra = q.register(a.clone(), 1, false);
        let _rb = q.register(b.clone(), 3, true);
        let _rc = q.register(c.clone(), 3, true);
        q.wake(1);
        let n = |x: &Arc<Count>| x.0.load(Ordering::Relaxed);
        assert_eq!((n(&a), n(&b), n(&c)), (1, 1, 0));
        q.wake(2);
        assert_eq!((n(&a), n(&b), n(&c)), (1, 2, 0));
        q.unregister(ra);
        q.wake_all(1);
        assert_eq!((n(&a), n(&b), n(&c)), (1, 3, 1));
        assert!(!q.is_empty());
    }
}
