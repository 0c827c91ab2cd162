//! What locks, wait queues and those who sleep on them are built of: std's primitives, or with the feature `shuttle` those of
//! shuttle, which runs a test under many schedules and takes a thread that waits for ever as a failure.

#[cfg(not(feature = "shuttle"))]
pub use std::{
    sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread_local,
};

#[cfg(feature = "shuttle")]
pub use shuttle::{
    sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread_local,
};

/// futex(2) between the threads of a test. No wait times out, since a test must not depend on it that somebody looks again
/// later: a wake-up that is lost is a deadlock here.
#[cfg(feature = "shuttle")]
pub mod futex {
    use shuttle::sync::atomic::{AtomicU32, Ordering};
    use shuttle::sync::{Condvar, Mutex, MutexGuard};
    use std::collections::HashMap;
    use std::sync::atomic::AtomicBool;
    use std::sync::{Arc, PoisonError};
    use std::time::Duration;

    #[derive(Default)]
    struct Sleeper {
        woken: AtomicBool,
        condvar: Condvar,
    }

    type Table = HashMap<usize, Vec<Arc<Sleeper>>>;

    shuttle::lazy_static! {
        static ref TABLE: Mutex<Table> = Mutex::new(HashMap::new());
    }

    fn table() -> MutexGuard<'static, Table> {
        TABLE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(word: &AtomicU32) -> usize {
        std::ptr::from_ref(word).addr()
    }

    /// Sleeps until woken if the word has the value.
    pub fn wait(word: &AtomicU32, expected: u32, _timeout: Option<Duration>) {
        let me = Arc::new(Sleeper::default());
        let mut table = table();
        if word.load(Ordering::SeqCst) != expected {
            return;
        }
        table.entry(key(word)).or_default().push(Arc::clone(&me));
        while !me.woken.load(Ordering::SeqCst) {
            table = me.condvar.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes up to `count` of those who sleep on the word; how many.
    pub fn wake(word: &AtomicU32, count: i32) -> usize {
        let mut table = table();
        let Some(sleepers) = table.get_mut(&key(word)) else { return 0 };
        let n = sleepers.len().min(usize::try_from(count).unwrap_or(0));
        for sleeper in sleepers.drain(..n) {
            sleeper.woken.store(true, Ordering::SeqCst);
            sleeper.condvar.notify_one();
        }
        n
    }

    /// As `wait`.
    pub fn wait_private(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
        wait(word, expected, timeout);
    }

    /// As `wake`.
    pub fn wake_private(word: &AtomicU32, count: i32) -> usize {
        wake(word, count)
    }
}
