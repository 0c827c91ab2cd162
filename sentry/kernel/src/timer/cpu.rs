//! Timers and limits on CPU time: `ITIMER_VIRTUAL`, `ITIMER_PROF`, CPU clocks, `RLIMIT_CPU`.
//!
//! CPU time passes at most as fast as there are threads, so the next look is due when the rest could
//! have been used up. A process that does not run is looked at less and less often.

use super::group::{CpuItimer, GroupTimers, Itimer, send};
use super::{Clock, Target};
use crate::task::{ExitStatus, ThreadGroup};
use abi::resource::{RLIM_INFINITY, Resource};
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use std::sync::Arc;

const SECOND: i64 = 1_000_000_000;
/// The finest look.
const TICK: i64 = 1_000_000;
/// The coarsest, for processes that sleep.
const IDLE: i64 = 64_000_000;

impl GroupTimers {
    /// `ITIMER_VIRTUAL` or `ITIMER_PROF`.
    pub fn cpu_itimer(&self, group: &ThreadGroup, prof: bool) -> Itimer {
        let (u, s) = group.cpu_time();
        let now = if prof { u + s } else { u };
        let state = self.state.lock();
        let t = if prof { state.prof } else { state.virt };
        Itimer { value: t.next.map_or(0, |n| (n - now).max(TICK)), interval: t.interval }
    }

    /// Sets `ITIMER_VIRTUAL` or `ITIMER_PROF`; the old value.
    pub fn set_cpu_itimer(&self, group: &Arc<ThreadGroup>, prof: bool, new: Itimer) -> Itimer {
        let old = self.cpu_itimer(group, prof);
        let (u, s) = group.cpu_time();
        let now = if prof { u + s } else { u };
        {
            let mut state = self.state.lock();
            let t = if prof { &mut state.prof } else { &mut state.virt };
            t.interval = new.interval;
            t.next = (new.value > 0).then(|| now.saturating_add(new.value));
        }
        self.check_cpu(group);
        old
    }

    /// Looks at all of them, sends what is due, and arms the next look.
    pub fn check_cpu(&self, group: &Arc<ThreadGroup>) {
        let Some(kernel) = group.kernel() else {
            return;
        };
        if group.is_dead() {
            return;
        }
        let (user, system) = group.cpu_time();
        let total = user + system;
        let threads = i64::try_from(group.state().lock().live).unwrap_or(1).max(1);
        let limit = group.limit(Resource::Cpu);
        // Clocks of single threads and of other processes are asked before the lock is taken.
        let cpu_clocks: Vec<(i32, Clock)> = {
            let s = self.state.lock();
            s.posix.iter().filter(|(_, t)| t.clock.is_cpu()).map(|(id, t)| (*id, t.clock.clone())).collect()
        };
        let readings: Vec<(i32, Option<i64>)> =
            cpu_clocks.iter().map(|(id, c)| (*id, c.now(&kernel).ok())).collect();
        let mut signals = Vec::new();
        let mut due = Vec::new();
        let mut kill = false;
        {
            let mut s = self.state.lock();
            let mut least = i64::MAX;
            let mut step = |t: &mut CpuItimer, now: i64, signal: Signal| {
                let Some(next) = t.next else {
                    return;
                };
                if next <= now {
                    signals.push(signal);
                    t.next = (t.interval > 0)
                        .then(|| next + ((now - next) / t.interval + 1).saturating_mul(t.interval));
                }
                if let Some(n) = t.next {
                    least = least.min(n - now);
                }
            };
            step(&mut s.virt, user, Signal::SIGVTALRM);
            step(&mut s.prof, total, Signal::SIGPROF);
            for (id, now) in &readings {
                let (Some(t), Some(now)) = (s.posix.get_mut(id), now) else {
                    continue;
                };
                if let Some(n) = t.next.filter(|_| !t.queued) {
                    if n <= *now {
                        t.queued = true;
                        due.push((*id, t.notify.clone()));
                    } else {
                        least = least.min(n - now);
                    }
                }
            }
            if limit.cur != RLIM_INFINITY {
                let seconds = (total / SECOND).unsigned_abs();
                if limit.max != RLIM_INFINITY && seconds >= limit.max {
                    kill = true;
                } else {
                    let at = s.xcpu_at.unwrap_or(limit.cur);
                    if seconds >= at {
                        signals.push(Signal::SIGXCPU);
                        s.xcpu_at = Some(seconds + 1);
                    }
                    let next = s.xcpu_at.unwrap_or(at).min(limit.max);
                    let next = i64::try_from(next).unwrap_or(i64::MAX).saturating_mul(SECOND);
                    least = least.min(next.saturating_sub(total));
                }
            }
            if let Some(a) = s.cpu_armed.take() {
                kernel.timers.cancel(a);
            }
            if least != i64::MAX && !kill {
                let idle = total == s.cpu_seen;
                s.cpu_delay = if idle { (s.cpu_delay * 2).clamp(TICK, IDLE) } else { TICK };
                s.cpu_seen = total;
                let delay = (least / threads).max(s.cpu_delay);
                let at = kernel.clocks.monotonic().saturating_add(delay);
                s.cpu_armed = Some(kernel.timers.arm(&kernel, at, Target::Cpu(Arc::downgrade(group))));
            }
        }
        if kill {
            group.begin_exit(ExitStatus::killed(Signal::SIGKILL, false));
            return;
        }
        for s in signals {
            group.send_signal(&SigInfo::kernel(s));
        }
        for (id, notify) in due {
            if !send(group, &notify, id)
                && let Some(t) = self.state.lock().posix.get_mut(&id)
            {
                t.queued = false;
            }
        }
    }
}
