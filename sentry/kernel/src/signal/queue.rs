//! Pending signals of a task or a process (`struct sigpending`).

use abi::siginfo::SigInfo;
use abi::signal::{SigSet, Signal, code};
use std::collections::VecDeque;

/// Signals that are caused by the instruction that runs: delivered before all others.
pub const SYNCHRONOUS: SigSet = SigSet(
    1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 30, // ILL TRAP BUS FPE SEGV SYS
);

/// A signal in a queue.
#[derive(Clone, Copy, Debug)]
pub struct Queued {
    pub info: SigInfo,
    /// The POSIX timer that sent it; its overrun is counted until the signal is taken.
    pub timer: Option<i32>,
    /// Whose `RLIMIT_SIGPENDING` it counts against.
    pub charged: Option<u32>,
}

/// Standard signals are pending at most once, real-time signals queue.
#[derive(Debug, Default)]
pub struct Pending {
    set: SigSet,
    queue: VecDeque<Queued>,
}

impl Pending {
    /// The signals that are pending.
    pub fn set(&self) -> SigSet {
        self.set
    }
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.queue.len()
    }
    /// Whether no signal is pending.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
    /// Whether another instance of the signal would be dropped (`legacy_queue`).
    pub fn is_coalesced(&self, s: Signal) -> bool {
        !s.is_realtime() && self.set.contains(s)
    }
    /// Adds an entry.
    pub fn push(&mut self, s: Signal, q: Queued) {
        self.set.insert(s);
        self.queue.push_back(q);
    }
    /// Marks a signal pending without a place for its details (over the limit).
    pub fn mark(&mut self, s: Signal) {
        self.set.insert(s);
    }
    /// The signal that is taken next, of those not in `blocked`.
    pub fn next(&self, blocked: SigSet) -> Option<Signal> {
        let open = self.set.minus(blocked);
        open.and(SYNCHRONOUS).first().or_else(|| open.first())
    }
    /// Takes the oldest instance of a signal.
    pub fn take(&mut self, s: Signal) -> Queued {
        let number = i32::from(s.number());
        let at = self.queue.iter().position(|q| q.info.signo == number);
        let found = at.and_then(|i| self.queue.remove(i));
        if !self.queue.iter().any(|q| q.info.signo == number) {
            self.set.remove(s);
        }
        // An instance whose details were lost says SI_USER from nobody.
        found.unwrap_or(Queued { info: SigInfo::user(s, code::SI_USER, 0, 0), timer: None, charged: None })
    }
    /// Drops all instances of the signals of a set; what was dropped.
    pub fn flush(&mut self, what: SigSet) -> Vec<Queued> {
        if self.set.and(what).is_empty() {
            return Vec::new();
        }
        self.set = self.set.minus(what);
        let hit = |q: &Queued| q.info.signal().is_some_and(|s| what.contains(s));
        let gone = self.queue.iter().filter(|q| hit(q)).copied().collect();
        self.queue.retain(|q| !hit(q));
        gone
    }
    /// Drops the entry of a POSIX timer, if it is there.
    pub fn remove_timer(&mut self, id: i32) -> Option<Queued> {
        let at = self.queue.iter().position(|q| q.timer == Some(id))?;
        let q = self.queue.remove(at)?;
        if !self.queue.iter().any(|o| o.info.signo == q.info.signo)
            && let Some(s) = q.info.signal()
        {
            self.set.remove(s);
        }
        Some(q)
    }
    /// Whether an entry of the POSIX timer is there.
    pub fn has_timer(&self, id: i32) -> bool {
        self.queue.iter().any(|q| q.timer == Some(id))
    }
    /// The entries, oldest first (PTRACE_PEEKSIGINFO).
    pub fn entries(&self) -> impl Iterator<Item = &Queued> {
        self.queue.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(s: Signal, value: u64) -> Queued {
        Queued { info: SigInfo::queued(s, code::SI_QUEUE, 1, 0, value), timer: None, charged: None }
    }

    #[test]
    fn order_and_coalescing() {
        let rt = Signal::new(40).unwrap();
        let mut p = Pending::default();
        p.push(rt, q(rt, 1));
        p.push(rt, q(rt, 2));
        p.push(Signal::SIGUSR1, q(Signal::SIGUSR1, 3));
        p.push(Signal::SIGSEGV, q(Signal::SIGSEGV, 4));
        assert!(p.is_coalesced(Signal::SIGUSR1) && !p.is_coalesced(rt));
        p.push(Signal::SIGHUP, q(Signal::SIGHUP, 5));
        let mut order = Vec::new();
        while let Some(s) = p.next(SigSet::EMPTY) {
            order.push(p.take(s).info.value());
        }
        assert_eq!(order, [4, 5, 3, 1, 2]);
        assert!(p.is_empty());
        p.mark(Signal::SIGTERM);
        assert_eq!(p.next(SigSet::of(Signal::SIGTERM)), None);
        assert_eq!(p.take(Signal::SIGTERM).info.code, code::SI_USER);
        assert!(p.is_empty());
    }
}
