//! The one blocking primitive. No other code of the sentry sleeps on behalf of a guest.

use crate::task::{LookUp, Task};
use crate::time::Deadline;
use ksync::sync::atomic::{AtomicU32, Ordering};
#[cfg(feature = "shuttle")]
use ksync::sync::futex;
use ksync::{Listener, Registration, WaitQueue};
#[cfg(not(feature = "shuttle"))]
use platform::hostsys::futex;
use platform::{later, load};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a wait ended without what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// A signal is pending, or the task must look up for another reason.
    Interrupted,
    /// The deadline passed.
    TimedOut,
}

/// What a task sleeps on: woken by wait queues, by signals and by timers. Only one thread sleeps on it.
#[derive(Debug, Default)]
pub struct Waiter {
    state: AtomicU32,
    /// The sleeper is a guest's thread, whose need of a processor is counted.
    counted: bool,
}

/// No news.
const NO: u32 = 0;
const WOKEN: u32 = 1;
const ASLEEP: u32 = 2;

impl Waiter {
    /// One for a guest's thread.
    pub fn of_task() -> Waiter {
        Waiter { state: AtomicU32::new(NO), counted: true }
    }

    /// Wakes the sleeper, or makes its next sleep return at once.
    pub fn wake(&self) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == ASLEEP {
            self.rises();
            futex::wake_private(&self.state, 1);
        }
    }

    /// Forgets a wake-up that came before. What is looked at next is looked at after that.
    pub fn reset(&self) {
        self.state.swap(NO, Ordering::SeqCst);
    }

    /// Sleeps until woken; `false` when `limit` passed first. Consumes the wake-up.
    pub fn sleep(&self, limit: Option<Duration>) -> bool {
        if self.counted {
            later::catch_up();
            load::rests();
        }
        if self.change(NO, ASLEEP) {
            let until = limit.and_then(|l| Instant::now().checked_add(l));
            while self.state.load(Ordering::SeqCst) == ASLEEP {
                let left = until.map(|u| u.saturating_duration_since(Instant::now()));
                if left.is_some_and(|l| l.is_zero()) && self.change(ASLEEP, NO) {
                    self.rises();
                    return false;
                }
                futex::wait_private(&self.state, ASLEEP, left);
            }
        } else {
            self.rises();
        }
        self.reset();
        true
    }

    fn change(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// The sleeper wants a processor again.
    fn rises(&self) {
        if self.counted {
            load::wants();
        }
    }
}

impl Listener for Waiter {
    fn notify(&self, _mask: u32) -> bool {
        self.wake();
        true
    }
}

/// One queue to wait on, with the bits that matter.
#[derive(Clone, Debug)]
pub struct WaitOn {
    pub queue: Arc<WaitQueue>,
    pub mask: u32,
    pub exclusive: bool,
}

impl WaitOn {
    /// Any news of a queue.
    pub fn any(queue: &Arc<WaitQueue>) -> WaitOn {
        WaitOn { queue: Arc::clone(queue), mask: u32::MAX, exclusive: false }
    }
    /// News of some bits.
    pub fn mask(queue: &Arc<WaitQueue>, mask: u32) -> WaitOn {
        WaitOn { queue: Arc::clone(queue), mask, exclusive: false }
    }
}

impl Task {
    /// Tries `try_once` until it gives a value, sleeping on the queues between tries.
    ///
    /// Must be called by the task itself and with no lock held. Ends with `Interrupted` when the
    /// task must look up (a signal that is not blocked, group exit, stop), with `TimedOut` when the
    /// deadline has passed; in both cases after one more try.
    pub fn block_on<R>(
        &self,
        queues: &[WaitOn],
        deadline: Option<Deadline>,
        try_once: impl FnMut() -> Option<R>,
    ) -> Result<R, Blocked> {
        self.block_unless(queues, deadline, LookUp::ends_sleep, try_once)
    }

    /// As [`Task::block_on`], but only death ends the wait (`TASK_KILLABLE`).
    pub fn block_on_killable<R>(
        &self,
        queues: &[WaitOn],
        try_once: impl FnMut() -> Option<R>,
    ) -> Result<R, Blocked> {
        self.block_unless(queues, None, LookUp::ends_killable_sleep, try_once)
    }

    /// As [`Task::block_on`], but nothing ends the wait early: for a task on its way out.
    pub(crate) fn block_on_anyway(&self, queues: &[WaitOn], mut try_once: impl FnMut() -> bool) {
        let _ = self.block_unless(queues, None, |_| false, || try_once().then_some(()));
    }

    fn block_unless<R>(
        &self,
        queues: &[WaitOn],
        deadline: Option<Deadline>,
        stop: impl Fn(&LookUp) -> bool,
        mut try_once: impl FnMut() -> Option<R>,
    ) -> Result<R, Blocked> {
        if let Some(r) = try_once() {
            return Ok(r);
        }
        ksync::assert_no_locks();
        let waiter = self.waiter();
        let registered: smallvec::SmallVec<[Registration; 4]> = queues
            .iter()
            .map(|w| w.queue.register(Arc::clone(waiter) as Arc<dyn Listener>, w.mask, w.exclusive))
            .collect();
        let result = loop {
            waiter.reset();
            if let Some(r) = try_once() {
                break Ok(r);
            }
            if stop(self.look()) {
                break Err(Blocked::Interrupted);
            }
            let left = match deadline.map(|d| d.remaining(self.kernel())) {
                None => None,
                Some(None) => break Err(Blocked::TimedOut),
                Some(left) => left,
            };
            self.cpu.stop_sentry(platform::clock::monotonic());
            self.cpu.voluntary_switches.fetch_add(1, Ordering::Relaxed);
            self.set_sleeping(true);
            self.rest();
            waiter.sleep(left);
            self.set_sleeping(false);
            self.cpu.resume_sentry(platform::clock::monotonic());
        };
        for (w, r) in queues.iter().zip(registered) {
            w.queue.unregister(r);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_is_kept_until_it_is_slept_over() {
        let w = Waiter::of_task();
        w.wake();
        w.wake();
        assert!(w.sleep(None), "it came before");
        assert!(!w.sleep(Some(Duration::from_millis(1))), "and counts once");
        w.wake();
        w.reset();
        assert!(!w.sleep(Some(Duration::ZERO)));
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        const TURNS: u32 = 20_000;
        let (ping, pong) = (Waiter::of_task(), Waiter::default());
        let turn = AtomicU32::new(0);
        // Each waits as block_unless does: reset, look, sleep.
        let wait_for = |w: &Waiter, mine: &dyn Fn(u32) -> bool| {
            loop {
                w.reset();
                let seen = turn.load(Ordering::SeqCst);
                if mine(seen) || seen >= TURNS {
                    return seen;
                }
                assert!(w.sleep(Some(Duration::from_secs(60))), "a wake-up was lost at turn {seen}");
            }
        };
        std::thread::scope(|s| {
            s.spawn(|| {
                while wait_for(&ping, &|t| t % 2 == 1) < TURNS {
                    turn.fetch_add(1, Ordering::SeqCst);
                    pong.wake();
                }
                pong.wake();
            });
            while wait_for(&pong, &|t| t % 2 == 0) < TURNS {
                turn.fetch_add(1, Ordering::SeqCst);
                ping.wake();
            }
            ping.wake();
        });
        assert!(turn.load(Ordering::SeqCst) >= TURNS);
    }
}
