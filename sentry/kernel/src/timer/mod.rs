//! Timers: one heap of deadlines for a sandbox, and what processes hang into it.
//!
//! One thread serves the heap; it exists from the first timer on and sleeps until the next deadline, so
//! that an idle sandbox costs nothing. What a timer does is a [`Target`], not a closure.

mod alarm;
mod clock;
mod cpu;
mod group;

pub use alarm::Alarm;
pub use clock::Clock;
pub use group::{GroupTimers, Itimer, PosixTimer, TimerNotify};

use crate::Kernel;
use crate::task::ThreadGroup;
use crate::wait::Waiter;
use ksync::{LockClass, Mutex};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What happens at a deadline.
#[derive(Clone, Debug)]
pub enum Target {
    /// `ITIMER_REAL` of a process.
    Real(Weak<ThreadGroup>),
    /// A POSIX timer of a process.
    Posix(Weak<ThreadGroup>, i32),
    /// CPU time timers and limits of a process are to be looked at.
    Cpu(Weak<ThreadGroup>),
    /// A timer of a file (timerfd).
    Alarm(Weak<Alarm>),
    /// Freed guest memory that nobody uses again goes back to the host.
    Trim(Weak<Kernel>),
}

/// A deadline in the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Armed(i64, u64);

#[derive(Default)]
struct Heap {
    entries: BTreeMap<Armed, Target>,
    next: u64,
    served: bool,
}

struct Shared {
    heap: Mutex<Heap>,
    waiter: Waiter,
}

/// All timers of a sandbox.
pub struct Timers {
    shared: Arc<Shared>,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            shared: Arc::new(Shared {
                heap: Mutex::new(LockClass::Leaf, Heap::default()),
                waiter: Waiter::default(),
            }),
        }
    }
}

impl Timers {
    /// Arms a timer for a time on the sandbox's monotonic clock.
    pub fn arm(&self, kernel: &Kernel, deadline: i64, target: Target) -> Armed {
        let offset = kernel.clocks.monotonic() - platform::clock::monotonic();
        let host = deadline.saturating_sub(offset);
        let (armed, first, start) = {
            let mut heap = self.shared.heap.lock();
            heap.next += 1;
            let armed = Armed(host, heap.next);
            heap.entries.insert(armed, target);
            let first = heap.entries.first_key_value().is_some_and(|(k, _)| *k == armed);
            (armed, first, !std::mem::replace(&mut heap.served, true))
        };
        if start {
            self.start();
        } else if first {
            self.shared.waiter.wake();
        }
        armed
    }

    /// Takes a timer back. It may be firing just now.
    pub fn cancel(&self, armed: Armed) {
        let gone = self.shared.heap.lock().entries.remove(&armed);
        drop(gone);
    }

    fn start(&self) {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("timers".into()).stack_size(128 << 10);
        if let Err(error) = thread.spawn(move || serve(&shared)) {
            tracing::error!("cannot start the timer thread: {error}");
            self.shared.heap.lock().served = false;
        }
    }
}

fn serve(shared: &Arc<Shared>) {
    loop {
        shared.waiter.reset();
        let now = platform::clock::monotonic();
        let (due, next) = {
            let mut heap = shared.heap.lock();
            let later = heap.entries.split_off(&Armed(now + 1, 0));
            let due = std::mem::replace(&mut heap.entries, later);
            (due, heap.entries.first_key_value().map(|(k, _)| k.0))
        };
        if due.is_empty() {
            let limit = next.map(|n| Duration::from_nanos(n.saturating_sub(now).unsigned_abs()));
            shared.waiter.sleep(limit);
            continue;
        }
        for target in due.into_values() {
            fire(target);
        }
    }
}

fn fire(target: Target) {
    match target {
        Target::Real(g) => {
            if let Some(g) = g.upgrade() {
                g.timers.real_expired(&g);
            }
        }
        Target::Posix(g, id) => {
            if let Some(g) = g.upgrade() {
                g.timers.posix_expired(&g, id);
            }
        }
        Target::Cpu(g) => {
            if let Some(g) = g.upgrade() {
                g.timers.check_cpu(&g);
            }
        }
        Target::Alarm(a) => {
            if let Some(a) = a.upgrade() {
                a.expired();
            }
        }
        Target::Trim(k) => {
            if let Some(k) = k.upgrade()
                && k.memfile.trim()
            {
                k.trim_later();
            }
        }
    }
}
