//! The clocks of clock_gettime(2), as a task sees them.

use crate::Kernel;
use crate::task::{Task, ThreadGroup};
use abi::time::clock;
use abi::{Errno, Result};
use std::sync::{Arc, Weak};

/// A clock.
#[derive(Clone, Debug)]
pub enum Clock {
    Realtime,
    Monotonic,
    MonotonicRaw,
    Boottime,
    Tai,
    /// User and system time of a process; with `virt` user time only.
    Process(Weak<ThreadGroup>, Virt),
    Thread(Weak<Task>, Virt),
}

/// What CPU time is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virt {
    /// User and system.
    Both,
    /// User only (`CPUCLOCK_VIRT`).
    User,
}

impl Clock {
    /// The clock behind an id; EINVAL for unknown ids and dead processes.
    pub fn find(task: &Arc<Task>, id: i32) -> Result<Clock> {
        Ok(match id {
            clock::REALTIME | clock::REALTIME_COARSE | clock::REALTIME_ALARM => Clock::Realtime,
            clock::MONOTONIC | clock::MONOTONIC_COARSE => Clock::Monotonic,
            clock::MONOTONIC_RAW => Clock::MonotonicRaw,
            clock::BOOTTIME | clock::BOOTTIME_ALARM => Clock::Boottime,
            clock::TAI => Clock::Tai,
            clock::PROCESS_CPUTIME_ID => Clock::Process(Arc::downgrade(task.group()), Virt::Both),
            clock::THREAD_CPUTIME_ID => Clock::Thread(Arc::downgrade(task), Virt::Both),
            ..0 => Self::dynamic(task, id)?,
            _ => return Err(Errno::EINVAL),
        })
    }

    /// `MAKE_PROCESS_CPUCLOCK(pid, which)`: clock_getcpuclockid(3), pthread_getcpuclockid(3).
    fn dynamic(task: &Arc<Task>, id: i32) -> Result<Clock> {
        let which = id & 3;
        let per_thread = id & 4 != 0;
        let virt = match which {
            0 | 2 => Virt::Both,
            1 => Virt::User,
            _ => return Err(Errno::EINVAL),
        };
        let pid = !(id >> 3);
        let ns = task.pid_ns();
        if per_thread {
            let t = if pid == 0 { Arc::clone(task) } else { ns.task(pid).ok_or(Errno::EINVAL)? };
            if !Arc::ptr_eq(t.group(), task.group()) {
                return Err(Errno::EINVAL);
            }
            return Ok(Clock::Thread(Arc::downgrade(&t), virt));
        }
        let g = if pid == 0 { Arc::clone(task.group()) } else { ns.group(pid).ok_or(Errno::EINVAL)? };
        Ok(Clock::Process(Arc::downgrade(&g), virt))
    }

    /// Whether it measures CPU time.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Clock::Process(..) | Clock::Thread(..))
    }

    /// What it shows, nanoseconds. EINVAL when what it measures is gone.
    pub fn now(&self, kernel: &Kernel) -> Result<i64> {
        let pick = |(u, s): (i64, i64), v: Virt| if v == Virt::User { u } else { u + s };
        Ok(match self {
            Clock::Realtime => kernel.clocks.realtime(),
            Clock::Monotonic => kernel.clocks.monotonic(),
            Clock::MonotonicRaw => platform::clock::monotonic_raw(),
            Clock::Boottime => platform::clock::boottime(),
            Clock::Tai => platform::clock::tai(),
            Clock::Process(g, v) => pick(g.upgrade().ok_or(Errno::EINVAL)?.cpu_time(), *v),
            Clock::Thread(t, v) => {
                let u = t.upgrade().ok_or(Errno::EINVAL)?.usage();
                pick((u.user, u.system), *v)
            }
        })
    }

    /// The time on the monotonic clock at which this (wall) clock will show `at`.
    pub fn to_monotonic(&self, kernel: &Kernel, at: i64) -> Result<i64> {
        Ok(match self {
            Clock::Monotonic => at,
            _ => kernel.clocks.monotonic().saturating_add(at.saturating_sub(self.now(kernel)?)),
        })
    }
}
