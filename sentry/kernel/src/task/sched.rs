//! Scheduling parameters (sched(7)). They are kept and told; the host's scheduler decides.

/// Policies of sched_setscheduler(2).
pub mod policy {
    pub const OTHER: i32 = 0;
    pub const FIFO: i32 = 1;
    pub const RR: i32 = 2;
    pub const BATCH: i32 = 3;
    pub const IDLE: i32 = 5;
    pub const DEADLINE: i32 = 6;
    pub const RESET_ON_FORK: i32 = 0x4000_0000;
}

/// A set of CPUs, up to 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityMask(pub [u64; 16]);

impl AffinityMask {
    /// The first `n` CPUs.
    pub fn first(n: usize) -> AffinityMask {
        let mut m = [0; 16];
        for i in 0..n.min(1024) {
            m[i / 64] |= 1 << (i % 64);
        }
        AffinityMask(m)
    }
    /// The CPUs of these numbers; numbers that are too large are left out.
    pub fn of(numbers: &[u32]) -> AffinityMask {
        let mut m = [0; 16];
        for &n in numbers.iter().filter(|n| **n < 1024) {
            m[(n / 64) as usize] |= 1 << (n % 64);
        }
        AffinityMask(m)
    }
    /// The CPUs in both.
    #[must_use]
    pub fn and(&self, o: &AffinityMask) -> AffinityMask {
        AffinityMask(std::array::from_fn(|i| self.0[i] & o.0[i]))
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }
    /// How many.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|w| w.count_ones()).sum()
    }
    /// The lowest.
    pub fn lowest(&self) -> u32 {
        (0..1024u32).find(|i| self.0[(i / 64) as usize] & (1 << (i % 64)) != 0).unwrap_or(0)
    }
}

impl super::Task {
    /// The CPUs it may run on: what was set, of those that the sandbox has.
    pub fn affinity(&self) -> AffinityMask {
        let all = AffinityMask::first(self.kernel().machine.cpus());
        match self.sched.lock().affinity {
            Some(m) if !m.and(&all).is_empty() => m.and(&all),
            _ => all,
        }
    }
}

/// What sched_setattr(2), nice(2) and sched_setaffinity(2) set.
#[derive(Clone, Debug)]
pub struct Sched {
    pub policy: i32,
    pub reset_on_fork: bool,
    /// -20 to 19
    pub nice: i32,
    /// 1 to 99 with a real-time policy.
    pub priority: i32,
    /// `None`: all CPUs.
    pub affinity: Option<AffinityMask>,
    /// `SCHED_DEADLINE`: runtime, deadline, period.
    pub deadline: [u64; 3],
}

impl Default for Sched {
    fn default() -> Self {
        Sched {
            policy: policy::OTHER,
            reset_on_fork: false,
            nice: 0,
            priority: 0,
            affinity: None,
            deadline: [0; 3],
        }
    }
}

impl Sched {
    /// For a new task.
    #[must_use]
    pub fn fork(&self) -> Sched {
        let mut s = self.clone();
        if s.reset_on_fork {
            if s.policy == policy::FIFO || s.policy == policy::RR || s.policy == policy::DEADLINE {
                s.policy = policy::OTHER;
                s.priority = 0;
                s.nice = 0;
            } else if s.nice < 0 {
                s.nice = 0;
            }
            s.reset_on_fork = false;
        }
        s
    }
}
