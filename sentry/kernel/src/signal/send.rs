//! Sending signals: what happens at the time of the kill, before the receiver looks
//! (`prepare_signal`, `complete_signal` and kin of Linux' kernel/signal.c).

use super::action::{STOP_SIGNALS, is_ignored};
use super::queue::Queued;
use crate::Kernel;
use crate::task::{ExitStatus, GroupState, Reason, StopState, Task, TaskSignals, ThreadGroup};
use abi::resource::Resource;
use abi::siginfo::SigInfo;
use abi::signal::{SIG_DFL, SigSet, Signal, code};
use abi::{Errno, Result};
use std::sync::Arc;

/// How a signal is sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    /// From the kernel or from outside the receiver's PID namespace: an init cannot ignore SIGKILL.
    pub force: bool,
    /// The POSIX timer that expired.
    pub timer: Option<i32>,
}

/// Gives the place of a queued signal back.
pub(crate) fn uncharge(kernel: &Kernel, q: &Queued) {
    if let Some(uid) = q.charged {
        kernel.tasks.users.uncharge_signal(uid);
    }
}

impl ThreadGroup {
    /// Sends a signal of the kernel to the process.
    pub fn send_signal(&self, info: &SigInfo) {
        let _ = self.send(None, info, How { force: true, timer: None });
    }

    /// As [`ThreadGroup::send_signal`], for callers that hold the task tree.
    pub(crate) fn send_signal_in(&self, tree: &crate::task::Tree, info: &SigInfo) {
        if let Ok((Some(news), _)) = self.queue_signal(None, info, How { force: true, timer: None }) {
            tree.tell_parent(self, news.0, news.1);
        }
    }

    /// Sends the signal of a POSIX timer. `false`: it is ignored or was dropped.
    pub(crate) fn send_timer_signal(&self, thread: Option<&Task>, info: &SigInfo, timer: i32) -> bool {
        match self.queue_signal(thread, info, How { force: true, timer: Some(timer) }) {
            Ok((news, queued)) => {
                if let Some(n) = news {
                    self.tell_parent(n);
                }
                queued
            }
            Err(_) => false,
        }
    }

    /// Sends to the process, or to one thread of it.
    pub(super) fn send(&self, thread: Option<&Task>, info: &SigInfo, how: How) -> Result<()> {
        let (news, _) = self.queue_signal(thread, info, how)?;
        if let Some(news) = news {
            self.tell_parent(news);
        }
        Ok(())
    }

    /// What the parent is to be told of a stop that ended, and whether the signal was queued.
    fn queue_signal(
        &self,
        thread: Option<&Task>,
        info: &SigInfo,
        how: How,
    ) -> Result<(Option<(i32, i32)>, bool)> {
        let Some(s) = info.signal() else {
            return Ok((None, false));
        };
        let Some(kernel) = self.kernel() else {
            return Ok((None, false));
        };
        let mut state = self.state().lock();
        if state.exiting.is_some() || state.dead.is_some() {
            return Ok((None, false));
        }
        let mut news = None;
        if STOP_SIGNALS.contains(s) {
            flush_everywhere(&kernel, &mut state, SigSet::of(Signal::SIGCONT));
        } else if s == Signal::SIGCONT {
            flush_everywhere(&kernel, &mut state, STOP_SIGNALS);
            news = state.end_stop(true);
        }
        if self.drops(&state, thread, s, how.force) {
            self.signal_queue.wake(u32::MAX);
            return Ok((news, false));
        }
        if s == Signal::SIGKILL {
            let status = ExitStatus::killed(s, false);
            state.exiting = Some(status);
            let _ = state.end_stop(false);
            for t in &state.threads {
                if !t.has_exited() {
                    t.raise(Reason::Kill);
                }
            }
            return Ok((news, false));
        }
        // An unknown thread of the state (already gone) gets nothing.
        let target = match thread {
            Some(t) => state.threads.iter().find(|x| std::ptr::eq(&***x, t)).cloned(),
            None => None,
        };
        if thread.is_some() && target.as_ref().is_none_or(|t| t.has_exited()) {
            return Ok((news, false));
        }
        let coalesced = match &target {
            Some(t) => t.signals().lock().pending.is_coalesced(s),
            None => state.pending.is_coalesced(s),
        };
        // Timers have a place of their own in the queue.
        if coalesced && how.timer.is_none() {
            return Ok((news, false));
        }
        // The user's limit: standard signals of the kernel and of kill(2) always get a place.
        let uid = self.leader_creds().uid;
        let limit = self.soft_limit(Resource::Sigpending);
        let must = !s.is_realtime() && info.code >= 0;
        let charged = kernel.tasks.users.charge_signal(uid, if must { u64::MAX } else { limit });
        if !charged && s.is_realtime() && info.code != code::SI_USER {
            return Err(Errno::EAGAIN);
        }
        let queued = Queued { info: *info, timer: how.timer, charged: Some(uid) };
        let put = |p: &mut super::Pending| if charged { p.push(s, queued) } else { p.mark(s) };
        match &target {
            Some(t) => {
                let open = {
                    let mut sig = t.signals().lock();
                    put(&mut sig.pending);
                    wants(&sig, s)
                };
                if open {
                    t.raise(Reason::Signal);
                }
            }
            None => {
                put(&mut state.pending);
                wake_one(&state, s);
            }
        }
        drop(state);
        self.signal_queue.wake(u32::MAX);
        Ok((news, true))
    }

    /// Whether the signal has no effect, so that it is not even queued (`sig_ignored`).
    fn drops(&self, state: &GroupState, thread: Option<&Task>, s: Signal, force: bool) -> bool {
        let action = self.sighand().get(s);
        let first = state.threads.iter().find(|t| !t.has_exited()).cloned();
        let sig = match (thread, &first) {
            (Some(t), _) => t.signals().lock(),
            (None, Some(t)) => t.signals().lock(),
            (None, None) => return true,
        };
        if sig.trace.is_some() && s != Signal::SIGKILL {
            return false;
        }
        if sig.blocked.union(sig.real_blocked).contains(s) {
            return false;
        }
        if self.is_shielded() && action.handler == SIG_DFL {
            let only_kernel = SigSet::UNBLOCKABLE.contains(s);
            if !(force && only_kernel) {
                return true;
            }
        }
        is_ignored(s, &action)
    }

    /// Drops pending instances of signals that are ignored from now on (sigaction(2)).
    pub fn flush_ignored(&self, s: Signal) {
        if let Some(kernel) = self.kernel() {
            flush_everywhere(&kernel, &mut self.state().lock(), SigSet::of(s));
        }
    }
}

fn flush_everywhere(kernel: &Kernel, state: &mut GroupState, what: SigSet) {
    for q in state.pending.flush(what) {
        uncharge(kernel, &q);
    }
    for t in &state.threads {
        let gone = t.signals().lock().pending.flush(what);
        for q in gone {
            uncharge(kernel, &q);
        }
    }
}

fn wants(sig: &TaskSignals, s: Signal) -> bool {
    !sig.blocked.contains(s)
}

/// Tells one thread that does not block the signal, the leader if it can be.
fn wake_one(state: &GroupState, s: Signal) {
    let open = |t: &&Arc<Task>| !t.has_exited() && wants(&t.signals().lock(), s);
    let idle = state.threads.iter().filter(open).find(|t| !t.look().has(Reason::Stop));
    let any = idle.or_else(|| state.threads.iter().find(open));
    if let Some(t) = any {
        t.raise(Reason::Signal);
    }
}

impl Task {
    /// Sends a signal of the kernel to this thread.
    pub fn send_signal(&self, info: &SigInfo) {
        let _ = self.group().send(Some(self), info, How { force: true, timer: None });
    }

    /// A signal that the running instruction caused: it can be neither blocked nor ignored; where it
    /// would be, it kills (`force_sig_info`).
    pub fn force_signal(&self, info: &SigInfo) {
        let Some(s) = info.signal() else {
            return;
        };
        let hand = self.group().sighand();
        let action = hand.get(s);
        {
            let _state = self.group().state().lock();
            let mut sig = self.signals().lock();
            let blocked = sig.blocked.contains(s);
            if blocked || action.handler == abi::signal::SIG_IGN {
                sig.blocked.remove(s);
                drop(sig);
                hand.set(s, abi::siginfo::SigAction::default());
                sig = self.signals().lock();
            }
            let default = blocked || action.handler <= abi::signal::SIG_IGN;
            if default {
                sig.forced.insert(s);
            }
            // Past the checks of sending: this one is never dropped.
            if !sig.pending.is_coalesced(s) {
                sig.pending.push(s, Queued { info: *info, timer: None, charged: None });
            }
        }
        self.raise(Reason::Signal);
    }

    /// After its mask or queue changed: whether a signal wants the task's attention.
    pub(crate) fn recalc_signals(&self, state: &GroupState) {
        let sig = self.signals().lock();
        let open = sig.pending.set().union(state.pending.set()).minus(sig.blocked);
        drop(sig);
        if open.is_empty() {
            self.look().clear(Reason::Signal);
        } else {
            self.look().raise(Reason::Signal);
        }
    }

    /// Sets the mask of blocked signals (SIGKILL and SIGSTOP never are); the old one.
    pub fn set_blocked(&self, new: SigSet) -> SigSet {
        let new = new.minus(SigSet::UNBLOCKABLE);
        let state = self.group().state().lock();
        let old = std::mem::replace(&mut self.signals().lock().blocked, new);
        if old == new {
            return old;
        }
        self.recalc_signals(&state);
        // What this thread was told about and now blocks, another may take.
        for s in state.pending.set().and(new.minus(old)).iter() {
            wake_one(&state, s);
        }
        old
    }

    /// A thread ends: signals for the process that it was told about go to another.
    pub(crate) fn hand_over_signals(&self, state: &GroupState) {
        for s in state.pending.set().iter() {
            wake_one(state, s);
        }
    }

    /// Sets a mask for the time of one call; delivery puts the old one back (sigsuspend, ppoll, …).
    pub fn set_temporary_mask(&self, mask: SigSet) {
        let old = self.set_blocked(mask);
        self.signals().lock().saved_mask = Some(old);
    }

    /// The call with a temporary mask ended without a signal.
    pub fn restore_mask(&self) {
        let saved = self.signals().lock().saved_mask.take();
        if let Some(m) = saved {
            self.set_blocked(m);
        }
    }

    /// Whether the process is stopped or stopping.
    pub fn group_stopping(&self) -> bool {
        !matches!(self.group().state().lock().stop, StopState::Running)
    }
}
