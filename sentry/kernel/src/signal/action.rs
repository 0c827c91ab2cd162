//! Signal handlers (`struct sighand_struct`) and default actions (signal(7)).

use abi::siginfo::SigAction;
use abi::signal::{SIG_DFL, SIG_IGN, SaFlags, SigSet, Signal};
use ksync::{LockClass, Mutex};
use std::sync::Arc;

/// What a signal does without a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    Ignore,
    Terminate,
    Core,
    Stop,
    Continue,
}

/// The default action of a signal.
pub fn default_action(s: Signal) -> Default {
    match s {
        Signal::SIGCHLD | Signal::SIGURG | Signal::SIGWINCH => Default::Ignore,
        Signal::SIGCONT => Default::Continue,
        Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU => Default::Stop,
        Signal::SIGQUIT
        | Signal::SIGILL
        | Signal::SIGTRAP
        | Signal::SIGABRT
        | Signal::SIGBUS
        | Signal::SIGFPE
        | Signal::SIGSEGV
        | Signal::SIGXCPU
        | Signal::SIGXFSZ
        | Signal::SIGSYS => Default::Core,
        _ => Default::Terminate,
    }
}

/// The signals that stop a process.
pub const STOP_SIGNALS: SigSet = SigSet(1 << 18 | 1 << 19 | 1 << 20 | 1 << 21);

/// Whether an action means that the signal has no effect.
pub fn is_ignored(s: Signal, a: &SigAction) -> bool {
    match a.handler {
        SIG_IGN => true,
        SIG_DFL => matches!(default_action(s), Default::Ignore | Default::Continue),
        _ => false,
    }
}

/// The handlers of one or more processes.
#[derive(Debug)]
pub struct SigHand {
    actions: Mutex<[SigAction; 64]>,
}

impl SigHand {
    /// All default.
    pub fn new() -> Arc<SigHand> {
        Arc::new(SigHand { actions: Mutex::new(LockClass::SignalHandlers, [SigAction::default(); 64]) })
    }
    /// A copy for a new process; with `clear` handlers become the default (`CLONE_CLEAR_SIGHAND`).
    pub fn fork(&self, clear: bool) -> Arc<SigHand> {
        let mut actions = *self.actions.lock();
        if clear {
            reset(&mut actions);
        }
        Arc::new(SigHand { actions: Mutex::new(LockClass::SignalHandlers, actions) })
    }
    /// The action of a signal.
    pub fn get(&self, s: Signal) -> SigAction {
        self.actions.lock()[s.index()]
    }
    /// Sets the action; the old one.
    pub fn set(&self, s: Signal, a: SigAction) -> SigAction {
        std::mem::replace(&mut self.actions.lock()[s.index()], a)
    }
    /// Handlers become the default, ignored signals stay ignored (execve).
    pub fn reset_handlers(&self) {
        reset(&mut self.actions.lock());
    }
    /// (ignored, caught), for /proc/pid/status.
    pub fn ignored_and_caught(&self) -> (SigSet, SigSet) {
        let (mut ignored, mut caught) = (SigSet::EMPTY, SigSet::EMPTY);
        let actions = self.actions.lock();
        for s in (1..=64).filter_map(Signal::new) {
            match actions[s.index()].handler {
                SIG_IGN => ignored.insert(s),
                SIG_DFL => {}
                _ => caught.insert(s),
            }
        }
        (ignored, caught)
    }
    /// Whether the parent does not want zombies, and whether it wants no SIGCHLD at all.
    pub fn child_exit_rules(&self) -> (bool, bool) {
        let a = self.get(Signal::SIGCHLD);
        let ignored = a.handler == SIG_IGN;
        (ignored || a.flags & SaFlags::NOCLDWAIT.bits() != 0, ignored)
    }
}

fn reset(actions: &mut [SigAction; 64]) {
    for a in actions.iter_mut() {
        let handler = if a.handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
        *a = SigAction { handler, ..SigAction::default() };
    }
}
