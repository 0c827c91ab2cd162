//! Wait queues and locks under many schedules.
#![forbid(unsafe_code)]

use ksync::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use ksync::sync::futex;
use ksync::{Listener, LockClass, Mutex, RwLock, WaitQueue};
use shuttle::thread;
use std::sync::Arc;

const RUNS: usize = 3000;

/// Who sleeps until it is told something, as the sentry's waiters do.
#[derive(Default)]
struct Sleeper {
    told: AtomicU32,
    times: AtomicUsize,
}

impl Listener for Sleeper {
    fn notify(&self, _: u32) -> bool {
        self.told.store(1, Ordering::SeqCst);
        self.times.fetch_add(1, Ordering::SeqCst);
        futex::wake(&self.told, 1);
        true
    }
}

impl Sleeper {
    /// Waits as everybody does: registers, looks, sleeps, looks again.
    fn wait_for(self: &Arc<Self>, queue: &WaitQueue, exclusive: bool, done: impl Fn() -> bool) {
        let registration = queue.register(Arc::clone(self) as Arc<dyn Listener>, 1, exclusive);
        loop {
            self.told.swap(0, Ordering::SeqCst);
            if done() {
                break;
            }
            futex::wait(&self.told, 0, None);
        }
        queue.unregister(registration);
    }
}

fn under_schedules(test: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(test, RUNS);
}

#[test]
fn no_wake_up_is_lost() {
    under_schedules(|| {
        let queue = Arc::new(WaitQueue::new());
        let ready = Arc::new(AtomicBool::new(false));
        let waits: Vec<_> = [false, true]
            .map(|exclusive| {
                let (queue, ready) = (Arc::clone(&queue), Arc::clone(&ready));
                thread::spawn(move || {
                    let me = Arc::new(Sleeper::default());
                    me.wait_for(&queue, exclusive, || ready.load(Ordering::SeqCst));
                })
            })
            .into();
        ready.store(true, Ordering::SeqCst);
        queue.wake(1);
        waits.into_iter().for_each(|t| t.join().unwrap());
        assert!(queue.is_empty());
    });
}

/// Two who wait alone for things that come one by one: each wake-up goes to one, and nobody is left behind.
#[test]
fn each_of_the_exclusive_gets_one() {
    under_schedules(|| {
        let queue = Arc::new(WaitQueue::new());
        let things = Arc::new(AtomicUsize::new(0));
        let take = |things: &AtomicUsize| {
            things.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
        };
        let waits: Vec<_> = (0..2)
            .map(|_| {
                let (queue, things) = (Arc::clone(&queue), Arc::clone(&things));
                thread::spawn(move || Arc::new(Sleeper::default()).wait_for(&queue, true, || take(&things)))
            })
            .collect();
        // Both at once, since two wake-ups may reach the same one.
        things.fetch_add(2, Ordering::SeqCst);
        queue.wake_exclusive(1, 2);
        waits.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(things.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn one_wake_up_reaches_one_exclusive_and_all_others() {
    under_schedules(|| {
        let queue = Arc::new(WaitQueue::new());
        let all: Vec<_> = (0..4).map(|_| Arc::new(Sleeper::default())).collect();
        let registrations: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(i, s)| queue.register(Arc::clone(s) as Arc<dyn Listener>, 1, i % 2 == 1))
            .collect();
        // A third one comes and goes meanwhile.
        let passing = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let r = queue.register(Arc::new(Sleeper::default()), 2, true);
                queue.unregister(r);
            })
        };
        let wakes: Vec<_> = (0..2)
            .map(|_| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || assert!(queue.wake(1)))
            })
            .collect();
        wakes.into_iter().for_each(|t| t.join().unwrap());
        passing.join().unwrap();
        let told = |i: usize| all[i].times.load(Ordering::SeqCst);
        assert_eq!((told(0), told(2)), (2, 2), "all of the others");
        assert_eq!(told(1) + told(3), 2, "one exclusive each time");
        registrations.into_iter().for_each(|r| queue.unregister(r));
        assert!(queue.is_empty());
    });
}

/// A pair can be taken from both sides at once, and readers and writers of locks with an order never wait for each other.
#[test]
fn locks_in_order_never_wait_for_each_other() {
    under_schedules(|| {
        let pair = Arc::new([Mutex::new(LockClass::Stream, 0), Mutex::new(LockClass::Stream, 0)]);
        let below = Arc::new(RwLock::new(LockClass::Leaf, 0));
        let threads: Vec<_> = [(0, 1), (1, 0), (0, 1)]
            .into_iter()
            .map(|(a, b)| {
                let (pair, below) = (Arc::clone(&pair), Arc::clone(&below));
                thread::spawn(move || {
                    let (mut x, mut y) = Mutex::lock_pair(&pair[a], &pair[b]);
                    let seen = *below.read();
                    (*x, *y) = (*x + 1, *y + 1);
                    *below.write() += 1;
                    assert!(seen < 3);
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        pair.iter().for_each(|lock| assert_eq!(*lock.lock(), 3));
    });
}
