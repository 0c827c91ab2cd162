//! What a sandbox is told about processors and memory: the host's facts cut to the sandbox' limits.

use platform::Machine;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The hardware as the guest sees it; the limits may change while it runs.
#[derive(Debug)]
pub struct Hardware {
    /// The host's facts.
    pub host: Machine,
    cpus: AtomicUsize,
    memory: AtomicU64,
    swap: AtomicU64,
    /// `CLOCK_MONOTONIC` when the sandbox booted, in nanoseconds.
    pub booted: i64,
}

impl Hardware {
    /// With the host's CPUs and memory as limits.
    pub fn new(host: Machine, booted: i64) -> Hardware {
        let (cpus, memory) = (host.cpus.len(), host.memory);
        Hardware {
            host,
            cpus: AtomicUsize::new(cpus),
            memory: AtomicU64::new(memory),
            swap: AtomicU64::new(0),
            booted,
        }
    }

    /// Number of CPUs the guest has; they are numbered from 0.
    pub fn cpus(&self) -> usize {
        self.cpus.load(Ordering::Relaxed)
    }

    /// Sets the number of CPUs: at least one, at most those of the host.
    pub fn set_cpus(&self, n: usize) {
        self.cpus.store(n.clamp(1, self.host.cpus.len()), Ordering::Relaxed);
    }

    /// Memory of the guest in bytes (`MemTotal`).
    pub fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Sets the memory limit in bytes; never more than the host has.
    pub fn set_memory(&self, bytes: u64) {
        self.memory.store(bytes.min(self.host.memory), Ordering::Relaxed);
    }

    /// Swap of the guest in bytes (`SwapTotal`).
    pub fn swap(&self) -> u64 {
        self.swap.load(Ordering::Relaxed)
    }

    /// Sets the swap in bytes.
    pub fn set_swap(&self, bytes: u64) {
        self.swap.store(bytes, Ordering::Relaxed);
    }
}
