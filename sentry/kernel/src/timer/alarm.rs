//! A timer that counts its expirations and wakes a queue: what a timerfd is made of.

use super::{Armed, Clock, Target};
use crate::Kernel;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use ksync::{LockClass, Mutex, WaitQueue};
use std::sync::{Arc, Weak};

#[derive(Debug, Default)]
struct State {
    /// When it next expires on its own clock.
    next: Option<i64>,
    interval: i64,
    /// Expirations that were not read.
    count: u64,
    armed: Option<Armed>,
}

/// The timer.
pub struct Alarm {
    kernel: Weak<Kernel>,
    clock: Clock,
    state: Mutex<State>,
    /// Told with `IN` when it expires.
    pub queue: Arc<WaitQueue>,
}

impl Alarm {
    pub fn new(kernel: &Arc<Kernel>, clock: Clock) -> Arc<Alarm> {
        Arc::new(Alarm {
            kernel: Arc::downgrade(kernel),
            clock,
            state: Mutex::new(LockClass::Timer, State::default()),
            queue: Arc::new(WaitQueue::new()),
        })
    }

    /// The clock it runs on.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sets it to expire at `at` on its clock (`None` disarms) and then each `interval` (0: once); what
    /// was left and the interval before.
    pub fn set(self: &Arc<Self>, at: Option<i64>, interval: i64) -> Result<(i64, i64)> {
        let kernel = self.kernel.upgrade().ok_or(Errno::EINVAL)?;
        let mut s = self.state.lock();
        let old = self.left(&kernel, &mut s);
        if let Some(a) = s.armed.take() {
            kernel.timers.cancel(a);
        }
        s.next = at;
        s.interval = interval;
        s.count = 0;
        self.rearm(&kernel, &mut s)?;
        Ok(old)
    }

    /// What is left until the next expiration (0: disarmed) and the interval.
    pub fn get(&self) -> (i64, i64) {
        match self.kernel.upgrade() {
            Some(k) => self.left(&k, &mut self.state.lock()),
            None => (0, 0),
        }
    }

    /// Takes the number of expirations since the last time; 0 for none.
    pub fn take(&self) -> u64 {
        let Some(k) = self.kernel.upgrade() else {
            return 0;
        };
        let mut s = self.state.lock();
        self.advance(&k, &mut s);
        std::mem::take(&mut s.count)
    }

    /// Whether there is something to take.
    pub fn is_ready(&self) -> bool {
        self.state.lock().count > 0
    }

    fn left(&self, kernel: &Kernel, s: &mut State) -> (i64, i64) {
        self.advance(kernel, s);
        let now = self.clock.now(kernel).unwrap_or(0);
        let left = s.next.map_or(0, |n| (n - now).max(1));
        (left, s.interval)
    }

    /// Counts what has passed.
    fn advance(&self, kernel: &Kernel, s: &mut State) {
        let (Some(next), Ok(now)) = (s.next, self.clock.now(kernel)) else {
            return;
        };
        if next > now {
            return;
        }
        if s.interval > 0 {
            let n = (now - next) / s.interval + 1;
            s.count = s.count.saturating_add(n.unsigned_abs());
            s.next = Some(next.saturating_add(n.saturating_mul(s.interval)));
        } else {
            s.count = s.count.saturating_add(1);
            s.next = None;
        }
    }

    fn rearm(self: &Arc<Self>, kernel: &Kernel, s: &mut State) -> Result<()> {
        s.armed = match s.next {
            None => None,
            Some(n) => {
                let at = self.clock.to_monotonic(kernel, n)?;
                Some(kernel.timers.arm(kernel, at, Target::Alarm(Arc::downgrade(self))))
            }
        };
        Ok(())
    }

    pub(super) fn expired(self: &Arc<Self>) {
        let Some(kernel) = self.kernel.upgrade() else {
            return;
        };
        let ready = {
            let mut s = self.state.lock();
            if let Some(a) = s.armed.take() {
                // A timer that was set anew meanwhile is armed anew below.
                kernel.timers.cancel(a);
            }
            self.advance(&kernel, &mut s);
            let _ = self.rearm(&kernel, &mut s);
            s.count > 0
        };
        if ready {
            self.queue.wake_all(PollEvents::IN.bits());
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let (Some(a), Some(k)) = (self.state.lock().armed.take(), self.kernel.upgrade()) {
            k.timers.cancel(a);
        }
    }
}

impl std::fmt::Debug for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Alarm")
    }
}
