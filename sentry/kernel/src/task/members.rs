//! The processes of one container, counted, and their memory (what the pids and memory controllers of a cgroup do).
//!
//! A container need not have a PID namespace of its own, so this mark, which every process inherits,
//! is what tells whose a process is.

use abi::{Errno, Result};
use ksync::WaitQueue;
use platform::Account;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The mark of a container's processes, with the number of their tasks.
#[derive(Debug)]
pub struct Members {
    tasks: AtomicU64,
    /// `u64::MAX`: none.
    limit: AtomicU64,
    /// The memory of its processes.
    memory: Arc<Account>,
    /// Processes killed because the memory's limit was reached, and how often it was.
    pub(super) oom_kills: AtomicU64,
    pub(super) ooms: AtomicU64,
    /// Somebody is being killed for it.
    pub(super) killing: AtomicBool,
    /// When its first process began, by the monotonic clock, in nanoseconds.
    pub started: OnceLock<i64>,
    /// Told when a process is killed for lack of memory (`KILLED`), and when memory of a task that has ended may be free (`FREED`).
    pub news: Arc<WaitQueue>,
}

impl Members {
    /// See `news`.
    pub const KILLED: u32 = 1;
    /// See `news`.
    pub const FREED: u32 = 2;

    /// `limit`: of tasks. `memory`: the account that their memory is charged to.
    pub fn new(limit: Option<u64>, memory: Arc<Account>) -> Arc<Members> {
        Arc::new(Members {
            tasks: AtomicU64::new(0),
            limit: AtomicU64::new(limit.unwrap_or(u64::MAX)),
            memory,
            oom_kills: AtomicU64::new(0),
            ooms: AtomicU64::new(0),
            killing: AtomicBool::new(false),
            started: OnceLock::new(),
            news: Arc::new(WaitQueue::new()),
        })
    }

    /// The memory of its processes.
    pub fn memory(&self) -> &Arc<Account> {
        &self.memory
    }

    /// The number of that account.
    pub fn account(&self) -> u32 {
        self.memory.number()
    }

    /// Processes that were killed because the limit of memory was reached (`oom_kill` of memory.events).
    pub fn oom_kills(&self) -> u64 {
        self.oom_kills.load(Ordering::Relaxed)
    }

    /// How often the limit was reached with nothing to give back (`oom` of memory.events).
    pub fn ooms(&self) -> u64 {
        self.ooms.load(Ordering::Relaxed)
    }

    /// Live tasks.
    pub fn tasks(&self) -> u64 {
        self.tasks.load(Ordering::Relaxed)
    }

    /// How many there may be (`pids.max`).
    pub fn limit(&self) -> Option<u64> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|l| *l != u64::MAX)
    }

    pub fn set_limit(&self, limit: Option<u64>) {
        self.limit.store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// One more task; EAGAIN at the limit (fork(2)).
    pub(super) fn charge(self: &Arc<Self>) -> Result<Charge> {
        let limit = self.limit.load(Ordering::Relaxed);
        let more = |n: u64| (n < limit).then_some(n + 1);
        self.tasks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| Errno::EAGAIN)?;
        Ok(Charge(Some(Arc::clone(self))))
    }

    /// One more, whatever the limit: the runtime moves processes in (cgroups(7)).
    pub(super) fn add(&self) {
        self.tasks.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove(&self) {
        self.tasks.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A task that is being made: given back unless it comes to be.
#[derive(Debug)]
pub(super) struct Charge(Option<Arc<Members>>);

impl Charge {
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(members) = &self.0 {
            members.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_and_a_failed_fork_gives_back() {
        let memory = platform::hostsys::memfile::MemoryFile::new().unwrap();
        let m = Members::new(Some(2), memory.new_account());
        m.add();
        drop(m.charge().unwrap());
        m.charge().unwrap().keep();
        assert_eq!(m.charge().unwrap_err(), Errno::EAGAIN);
        m.remove();
        assert_eq!(m.tasks(), 1);
        m.set_limit(None);
        assert!(m.charge().is_ok() && m.limit().is_none());
    }
}
