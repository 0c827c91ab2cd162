//! Taking signals: what the task does with them on its way back to the guest, and sigtimedwait(2).

use super::action::{Default, default_action};
use super::queue::{Queued, SYNCHRONOUS};
use crate::restart::{Restart, SysError};
use crate::task::{ExitStatus, Reason, Task};
use crate::time::Deadline;
use crate::wait::Blocked;
use abi::Errno;
use abi::siginfo::{SigAction, SigInfo};
use abi::signal::{SIG_DFL, SIG_IGN, SaFlags, SigSet, Signal};

/// A handler that is to run.
#[derive(Clone, Copy, Debug)]
pub struct HandlerCall {
    pub signal: Signal,
    pub info: SigInfo,
    pub action: SigAction,
    /// The mask that sigreturn puts back.
    pub mask: SigSet,
}

/// What the next pending signal means.
#[derive(Clone, Copy, Debug)]
pub enum Delivery {
    /// Nothing is left to do.
    None,
    Handler(HandlerCall),
    /// The whole process ends.
    Exit(ExitStatus),
    /// The process began to stop, or something else changed: look again.
    Again,
    /// A tracer has to be asked first.
    Traced(SigInfo),
}

impl Task {
    fn take_signal(&self, blocked: SigSet) -> Option<Queued> {
        let mut state = self.group().state().lock();
        let q = {
            let mut sig = self.signals().lock();
            let own = sig.pending.set().minus(blocked);
            let shared = state.pending.set().minus(blocked);
            let sync = own.and(SYNCHRONOUS).first();
            match sync.or_else(|| own.first()) {
                // Of both queues the task's own comes first, as in dequeue_signal().
                Some(s) => Some(sig.pending.take(s)),
                None => shared
                    .first()
                    .map(|_| state.pending.next(blocked))
                    .and_then(|s| s.map(|s| state.pending.take(s))),
            }
        };
        self.recalc_signals(&state);
        q
    }

    fn finish_take(&self, mut q: Queued) -> SigInfo {
        super::uncharge(self.kernel(), &q);
        if let Some(id) = q.timer {
            let overrun = self.group().timers.signal_taken(self.kernel(), self.group(), id);
            q.info.set_overrun(overrun);
        }
        q.info
    }

    /// Decides about the next signal. `traced` is what a tracer made of one that it was shown.
    pub fn next_signal(&self, traced: Option<SigInfo>) -> Delivery {
        let from_tracer = traced.is_some();
        let info = match traced {
            Some(i) => i,
            None => {
                let blocked = self.signals().lock().blocked;
                match self.take_signal(blocked) {
                    Some(q) => self.finish_take(q),
                    None => {
                        // No handler runs: a temporary mask ends here.
                        self.restore_mask();
                        return if self.look().has(Reason::Signal) {
                            Delivery::Again
                        } else {
                            Delivery::None
                        };
                    }
                }
            }
        };
        let Some(s) = info.signal() else {
            return Delivery::Again;
        };
        let (is_traced, forced) = {
            let mut sig = self.signals().lock();
            let forced = sig.forced.contains(s);
            if forced && (!sig.trace.is_some() || from_tracer) {
                sig.forced.remove(s);
            }
            (sig.trace.is_some(), forced)
        };
        if is_traced && !from_tracer && s != Signal::SIGKILL {
            return Delivery::Traced(info);
        }
        let hand = self.group().sighand();
        let action = hand.get(s);
        match action.handler {
            SIG_IGN => return Delivery::Again,
            SIG_DFL => {}
            _ => {
                if action.flags & SaFlags::RESETHAND.bits() != 0 {
                    hand.set(s, SigAction { handler: SIG_DFL, ..action });
                }
                let mask = {
                    let mut sig = self.signals().lock();
                    let now = sig.blocked;
                    sig.saved_mask.take().unwrap_or(now)
                };
                return Delivery::Handler(HandlerCall { signal: s, info, action, mask });
            }
        }
        if self.group().is_shielded() && !forced && !SigSet::UNBLOCKABLE.contains(s) {
            return Delivery::Again;
        }
        match default_action(s) {
            Default::Ignore | Default::Continue => Delivery::Again,
            Default::Stop => {
                if s != Signal::SIGSTOP && self.group().in_orphaned_pgrp() {
                    return Delivery::Again;
                }
                let mut state = self.group().state().lock();
                // A SIGCONT that came meanwhile wins.
                state.begin_stop(s);
                Delivery::Again
            }
            Default::Terminate => Delivery::Exit(ExitStatus::killed(s, false)),
            Default::Core => {
                if self.group().soft_limit(abi::resource::Resource::Core) > 0 {
                    // The status says so, too: no core was dumped.
                    crate::gap!(self.kernel(), "core dumps");
                }
                Delivery::Exit(ExitStatus::killed(s, false))
            }
        }
    }

    /// The handler's frame is written: the mask while it runs.
    pub fn enter_handler(&self, call: &HandlerCall) {
        let mut mask = self.blocked().union(SigSet(call.action.mask));
        if call.action.flags & SaFlags::NODEFER.bits() == 0 {
            mask.insert(call.signal);
        }
        self.set_blocked(mask);
    }

    /// The signals that are pending and blocked (sigpending(2)).
    pub fn pending_signals(&self) -> SigSet {
        let state = self.group().state().lock();
        let sig = self.signals().lock();
        sig.pending.set().union(state.pending.set()).and(sig.blocked)
    }

    /// Takes a pending signal of the set, blocked or not (signalfd(2), sigtimedwait(2)).
    pub fn dequeue_signal(&self, set: SigSet) -> Option<SigInfo> {
        let set = set.minus(SigSet::UNBLOCKABLE);
        let q = self.take_signal(SigSet(!set.0))?;
        Some(self.finish_take(q))
    }

    /// Whether a signal of the set is pending.
    pub fn has_pending(&self, set: SigSet) -> bool {
        let state = self.group().state().lock();
        let sig = self.signals().lock();
        !sig.pending.set().union(state.pending.set()).and(set).is_empty()
    }

    /// rt_sigtimedwait(2).
    pub fn wait_signal(&self, set: SigSet, deadline: Option<Deadline>) -> Result<SigInfo, SysError> {
        if let Some(i) = self.dequeue_signal(set) {
            return Ok(i);
        }
        let old = self.blocked();
        self.signals().lock().real_blocked = old;
        self.set_blocked(old.minus(set));
        let got = self.block_on(&[], deadline, || self.dequeue_signal(set));
        self.signals().lock().real_blocked = SigSet::EMPTY;
        self.set_blocked(old);
        match got {
            Ok(i) => Ok(i),
            Err(Blocked::TimedOut) => Err(Errno::EAGAIN.into()),
            Err(Blocked::Interrupted) => Err(Errno::EINTR.into()),
        }
    }

    /// rt_sigsuspend(2), pause(2) with the mask as it is.
    pub fn suspend(&self, mask: Option<SigSet>) -> SysError {
        if let Some(m) = mask {
            self.set_temporary_mask(m);
        }
        let _ = self.block_on::<()>(&[], None, || None);
        SysError::Restart(Restart::NoHandler)
    }
}
