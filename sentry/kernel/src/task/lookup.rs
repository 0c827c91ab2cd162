//! "This task must look up": the one word that says why a task may not sleep on or go on running
//! guest code, and in which order the reasons are dealt with.

use ksync::sync::atomic::{AtomicU32, Ordering};

/// A reason to look up. The order of the values is the order in which they are dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Reason {
    /// The task ends: SIGKILL, exit_group of another thread, execve of another thread.
    Kill = 1,
    /// The runtime paused the container.
    Freeze = 2,
    /// A tracer wants it to stop.
    Trap = 4,
    /// The process stops (SIGSTOP and kin).
    Stop = 8,
    /// A signal that is not blocked is pending.
    Signal = 16,
    /// CPU time limits and timers are to be looked at.
    CpuTimers = 32,
}

/// What the task does next on its way back to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Exit,
    Freeze,
    Trap,
    Stop,
    Signals,
    CpuTimers,
    Run,
}

/// The set of reasons; changed by any thread.
#[derive(Debug, Default)]
pub struct LookUp(AtomicU32);

impl LookUp {
    /// Adds a reason; whether it was new.
    pub fn raise(&self, r: Reason) -> bool {
        self.0.fetch_or(r as u32, Ordering::SeqCst) & r as u32 == 0
    }
    /// Takes a reason away.
    pub fn clear(&self, r: Reason) {
        self.0.fetch_and(!(r as u32), Ordering::SeqCst);
    }
    /// Whether a reason is there.
    pub fn has(&self, r: Reason) -> bool {
        self.0.load(Ordering::SeqCst) & r as u32 != 0
    }
    /// Whether a sleep must end. A frozen sleeper sleeps on: it runs nothing anyway, and its call
    /// must not end because of the freeze.
    pub fn ends_sleep(&self) -> bool {
        let quiet = Reason::Freeze as u32 | Reason::CpuTimers as u32;
        self.0.load(Ordering::SeqCst) & !quiet != 0
    }
    /// Whether a sleep that only death ends must end.
    pub fn ends_killable_sleep(&self) -> bool {
        self.has(Reason::Kill)
    }
    /// Whether there is anything at all to do before the guest runs.
    pub fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }
    /// What comes next.
    pub fn next(&self) -> Step {
        let set = self.0.load(Ordering::SeqCst);
        let has = |r: Reason| set & r as u32 != 0;
        if has(Reason::Kill) {
            Step::Exit
        } else if has(Reason::Freeze) {
            Step::Freeze
        } else if has(Reason::Trap) {
            Step::Trap
        } else if has(Reason::Stop) {
            Step::Stop
        } else if has(Reason::CpuTimers) {
            Step::CpuTimers
        } else if has(Reason::Signal) {
            Step::Signals
        } else {
            Step::Run
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn death_comes_first_and_freezing_ends_no_sleep() {
        let l = LookUp::default();
        assert_eq!(l.next(), Step::Run);
        assert!(l.raise(Reason::Freeze));
        assert!(!l.ends_sleep() && l.any());
        assert!(l.raise(Reason::Signal));
        assert!(!l.raise(Reason::Signal));
        assert!(l.ends_sleep() && !l.ends_killable_sleep());
        assert_eq!(l.next(), Step::Freeze);
        l.clear(Reason::Freeze);
        assert!(l.raise(Reason::Stop));
        assert_eq!(l.next(), Step::Stop);
        assert!(l.raise(Reason::Trap));
        assert_eq!(l.next(), Step::Trap);
        assert!(l.raise(Reason::Kill));
        assert_eq!(l.next(), Step::Exit);
        assert!(l.ends_killable_sleep());
    }
}
