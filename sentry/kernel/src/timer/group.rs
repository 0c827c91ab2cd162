//! Timers of a process: alarm(2), setitimer(2), timer_create(2), and what cpu.rs looks at.

use super::{Armed, Clock, Target};
use crate::Kernel;
use crate::task::{Task, ThreadGroup};
use abi::resource::Resource;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use abi::{Errno, Result};
use ksync::{LockClass, Mutex};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// An interval timer: what is left and the interval, nanoseconds; 0 for off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Itimer {
    pub value: i64,
    pub interval: i64,
}

/// Whom a POSIX timer tells.
#[derive(Clone, Debug)]
pub enum TimerNotify {
    None,
    Process { signal: Signal, value: u64 },
    Thread { signal: Signal, value: u64, thread: Weak<Task> },
}

/// A POSIX timer.
#[derive(Debug)]
pub struct PosixTimer {
    pub clock: Clock,
    /// As timer_create(2) was given it.
    clock_id: i32,
    pub notify: TimerNotify,
    /// On its own clock.
    pub(super) next: Option<i64>,
    pub(super) interval: i64,
    /// The signal is queued and not yet taken.
    pub(super) queued: bool,
    overrun: i32,
    armed: Option<Armed>,
}

/// A CPU time timer: when it expires on its clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CpuItimer {
    pub next: Option<i64>,
    pub interval: i64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    real_next: Option<i64>,
    real_interval: i64,
    real_armed: Option<Armed>,
    pub virt: CpuItimer,
    pub prof: CpuItimer,
    pub posix: BTreeMap<i32, PosixTimer>,
    next_id: i32,
    pub cpu_armed: Option<Armed>,
    pub cpu_seen: i64,
    pub cpu_delay: i64,
    /// Seconds of `RLIMIT_CPU` at which SIGXCPU comes next.
    pub xcpu_at: Option<u64>,
}

/// The timers of a process.
#[derive(Debug)]
pub struct GroupTimers {
    pub(super) state: Mutex<State>,
}

/// A limit on timers of a process: as many as it may have signals queued.
const MAX_TIMERS: usize = 15_000;

impl GroupTimers {
    pub(crate) fn new() -> GroupTimers {
        GroupTimers { state: Mutex::new(LockClass::Timer, State::default()) }
    }

    /// `ITIMER_REAL`.
    pub fn real(&self, kernel: &Kernel) -> Itimer {
        let s = self.state.lock();
        let now = kernel.clocks.monotonic();
        Itimer { value: s.real_next.map_or(0, |n| (n - now).max(1)), interval: s.real_interval }
    }

    /// Sets `ITIMER_REAL`; the old value.
    pub fn set_real(&self, kernel: &Kernel, group: &Arc<ThreadGroup>, new: Itimer) -> Itimer {
        let old = self.real(kernel);
        let mut s = self.state.lock();
        if let Some(a) = s.real_armed.take() {
            kernel.timers.cancel(a);
        }
        s.real_interval = if new.value == 0 { 0 } else { new.interval };
        s.real_next = None;
        if new.value > 0 {
            let at = kernel.clocks.monotonic().saturating_add(new.value);
            s.real_next = Some(at);
            s.real_armed = Some(kernel.timers.arm(kernel, at, Target::Real(Arc::downgrade(group))));
        }
        old
    }

    pub(super) fn real_expired(&self, group: &Arc<ThreadGroup>) {
        let Some(kernel) = group.kernel() else {
            return;
        };
        {
            let mut s = self.state.lock();
            let now = kernel.clocks.monotonic();
            let Some(next) = s.real_next.filter(|n| *n <= now) else {
                return;
            };
            s.real_armed = None;
            s.real_next = None;
            if s.real_interval > 0 {
                let missed = (now - next) / s.real_interval;
                let at = next.saturating_add((missed + 1).saturating_mul(s.real_interval));
                s.real_next = Some(at);
                s.real_armed = Some(kernel.timers.arm(&kernel, at, Target::Real(Arc::downgrade(group))));
            }
        }
        group.send_signal(&SigInfo::kernel(Signal::SIGALRM));
    }

    /// timer_create(2): the new id. `notify` gets the id when its value shall be that.
    pub fn create(
        &self,
        clock: Clock,
        clock_id: i32,
        notify: impl FnOnce(i32) -> TimerNotify,
    ) -> Result<i32> {
        let mut s = self.state.lock();
        if s.posix.len() >= MAX_TIMERS {
            return Err(Errno::EAGAIN);
        }
        let mut id = s.next_id;
        while s.posix.contains_key(&id) {
            id = id.checked_add(1).unwrap_or(0);
        }
        s.next_id = id.checked_add(1).unwrap_or(0);
        let notify = notify(id);
        s.posix.insert(
            id,
            PosixTimer {
                clock,
                clock_id,
                notify,
                next: None,
                interval: 0,
                queued: false,
                overrun: 0,
                armed: None,
            },
        );
        Ok(id)
    }

    /// The timers of timer_create(2): id, signal (0 for none), its value, the thread that alone is told, the clock's number.
    pub fn posix_timers(&self) -> Vec<(i32, u8, u64, Option<Arc<Task>>, i32)> {
        let s = self.state.lock();
        let row = |(id, t): (&i32, &PosixTimer)| {
            let (signal, value, thread) = match &t.notify {
                TimerNotify::None => (0, 0, None),
                TimerNotify::Process { signal, value } => (signal.number(), *value, None),
                TimerNotify::Thread { signal, value, thread } => (signal.number(), *value, thread.upgrade()),
            };
            (*id, signal, value, thread, t.clock_id)
        };
        s.posix.iter().map(row).collect()
    }

    /// timer_delete(2).
    pub fn delete(&self, kernel: &Kernel, group: &ThreadGroup, id: i32) -> Result<()> {
        let t = self.state.lock().posix.remove(&id).ok_or(Errno::EINVAL)?;
        if let Some(a) = t.armed {
            kernel.timers.cancel(a);
        }
        drop_queued(kernel, group, id);
        Ok(())
    }

    /// timer_gettime(2).
    pub fn get(&self, kernel: &Kernel, id: i32) -> Result<Itimer> {
        let clock = self.clock_of(id)?;
        let now = clock.now(kernel)?;
        let s = self.state.lock();
        let t = s.posix.get(&id).ok_or(Errno::EINVAL)?;
        Ok(t.left(now))
    }

    /// The clock of a timer: EINVAL. It is asked without the lock, since it may want the locks of the process.
    pub fn clock_of(&self, id: i32) -> Result<Clock> {
        self.state.lock().posix.get(&id).map(|t| t.clock.clone()).ok_or(Errno::EINVAL)
    }

    /// timer_settime(2); the old value.
    pub fn set(
        &self,
        kernel: &Kernel,
        group: &Arc<ThreadGroup>,
        id: i32,
        new: Itimer,
        absolute: bool,
    ) -> Result<Itimer> {
        let clock = self.clock_of(id)?;
        let now = clock.now(kernel)?;
        drop_queued(kernel, group, id);
        let is_cpu = clock.is_cpu();
        let (old, due) = {
            let mut s = self.state.lock();
            let t = s.posix.get_mut(&id).ok_or(Errno::EINVAL)?;
            let old = t.left(now);
            if let Some(a) = t.armed.take() {
                kernel.timers.cancel(a);
            }
            t.queued = false;
            t.overrun = 0;
            t.interval = new.interval;
            t.next = match (new.value, absolute) {
                (0, _) => None,
                (v, true) => Some(v),
                (v, false) => Some(now.saturating_add(v)),
            };
            if !is_cpu {
                t.arm(kernel, group, id)?;
            }
            (old, t.next.is_some())
        };
        if is_cpu && due {
            self.check_cpu(group);
        }
        Ok(old)
    }

    /// timer_getoverrun(2).
    pub fn overrun(&self, id: i32) -> Result<i32> {
        self.state.lock().posix.get(&id).map(|t| t.overrun).ok_or(Errno::EINVAL)
    }

    /// (id, clock is CPU, notify signal) of all POSIX timers, for /proc/pid/timers.
    pub fn list(&self) -> Vec<i32> {
        self.state.lock().posix.keys().copied().collect()
    }

    pub(super) fn posix_expired(&self, group: &Arc<ThreadGroup>, id: i32) {
        let Some(kernel) = group.kernel() else {
            return;
        };
        let notify = {
            let mut s = self.state.lock();
            let Some(t) = s.posix.get_mut(&id) else {
                return;
            };
            let Ok(now) = t.clock.now(&kernel) else {
                return;
            };
            if t.next.is_none_or(|n| n > now) {
                // Early (the clock was set back) or set anew.
                if t.armed.is_none() {
                    let _ = t.arm(&kernel, group, id);
                }
                return;
            }
            t.armed = None;
            if let TimerNotify::None = t.notify {
                t.forward(now);
                let _ = t.arm(&kernel, group, id);
                return;
            }
            t.queued = true;
            t.notify.clone()
        };
        if !send(group, &notify, id) {
            // Ignored: it goes on without a signal.
            let mut s = self.state.lock();
            if let Some(t) = s.posix.get_mut(&id)
                && let Ok(now) = t.clock.now(&kernel)
            {
                t.queued = false;
                t.forward(now);
                let _ = t.arm(&kernel, group, id);
            }
        }
    }

    /// The signal of a timer was taken: how often it expired since, and the next time.
    pub(crate) fn signal_taken(&self, kernel: &Kernel, group: &Arc<ThreadGroup>, id: i32) -> i32 {
        let Ok(clock) = self.clock_of(id) else {
            return 0;
        };
        let Ok(now) = clock.now(kernel) else {
            return 0;
        };
        let cpu = clock.is_cpu();
        let overrun = {
            let mut s = self.state.lock();
            let Some(t) = s.posix.get_mut(&id) else {
                return 0;
            };
            if !t.queued {
                return t.overrun;
            }
            t.queued = false;
            let passed = t.forward(now);
            t.overrun = i32::try_from((passed - 1).max(0)).unwrap_or(i32::MAX);
            if !cpu {
                let _ = t.arm(kernel, group, id);
            }
            t.overrun
        };
        if cpu {
            self.check_cpu(group);
        }
        overrun
    }

    /// execve: POSIX timers go, interval timers stay.
    pub fn delete_posix(&self, kernel: &Kernel, group: &ThreadGroup) {
        let gone = std::mem::take(&mut self.state.lock().posix);
        for (id, t) in gone {
            if let Some(a) = t.armed {
                kernel.timers.cancel(a);
            }
            drop_queued(kernel, group, id);
        }
    }

    /// The process ends.
    pub(crate) fn stop_all(&self, kernel: &Kernel) {
        let s = std::mem::take(&mut *self.state.lock());
        for a in s.real_armed.into_iter().chain(s.cpu_armed).chain(s.posix.values().filter_map(|t| t.armed)) {
            kernel.timers.cancel(a);
        }
    }

    /// Whether `RLIMIT_CPU` may matter; called when the limit is set.
    pub fn limit_changed(&self, group: &Arc<ThreadGroup>) {
        if group.soft_limit(Resource::Cpu) != abi::resource::RLIM_INFINITY {
            self.state.lock().xcpu_at = Some(group.soft_limit(Resource::Cpu));
            self.check_cpu(group);
        }
    }
}

impl PosixTimer {
    fn left(&self, now: i64) -> Itimer {
        let value = match self.next {
            None => 0,
            Some(n) if n > now => n - now,
            Some(n) if self.interval > 0 => {
                let missed = (now - n) / self.interval;
                n + (missed + 1) * self.interval - now
            }
            // Expired, the signal is on its way.
            Some(_) if self.queued => 0,
            Some(_) => 1,
        };
        Itimer { value, interval: self.interval }
    }

    /// Moves on past `now`; how often it expired.
    pub(super) fn forward(&mut self, now: i64) -> i64 {
        let Some(n) = self.next.filter(|n| *n <= now) else {
            return 0;
        };
        if self.interval == 0 {
            self.next = None;
            return 1;
        }
        let passed = (now - n) / self.interval + 1;
        self.next = Some(n.saturating_add(passed.saturating_mul(self.interval)));
        passed
    }

    fn arm(&mut self, kernel: &Kernel, group: &Arc<ThreadGroup>, id: i32) -> Result<()> {
        self.armed = match self.next {
            Some(n) if !self.clock.is_cpu() => {
                let at = self.clock.to_monotonic(kernel, n)?;
                Some(kernel.timers.arm(kernel, at, Target::Posix(Arc::downgrade(group), id)))
            }
            _ => None,
        };
        Ok(())
    }
}

/// Sends the signal of a timer; `false` when it had no effect.
pub(super) fn send(group: &Arc<ThreadGroup>, notify: &TimerNotify, id: i32) -> bool {
    match notify {
        TimerNotify::None => true,
        TimerNotify::Process { signal, value } => {
            group.send_timer_signal(None, &SigInfo::timer(*signal, id, 0, *value), id)
        }
        TimerNotify::Thread { signal, value, thread } => match thread.upgrade() {
            Some(t) => group.send_timer_signal(Some(&t), &SigInfo::timer(*signal, id, 0, *value), id),
            None => false,
        },
    }
}

fn drop_queued(kernel: &Kernel, group: &ThreadGroup, id: i32) {
    let mut state = group.state().lock();
    if let Some(q) = state.pending.remove_timer(id) {
        crate::signal::uncharge(kernel, &q);
    }
    for t in &state.threads {
        let gone = t.signals().lock().pending.remove_timer(id);
        if let Some(q) = gone {
            crate::signal::uncharge(kernel, &q);
        }
    }
}
