//! Clocks of a sandbox. All of them come from one source so that they can be moved with it.

use crate::Kernel;
use std::time::Duration;

/// A point in time on the sandbox's monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub i64);

impl Deadline {
    /// From now, `ns` nanoseconds (saturating).
    pub fn after(kernel: &Kernel, ns: i64) -> Deadline {
        Deadline(kernel.clocks.monotonic().saturating_add(ns))
    }

    /// What is left; `None` when it has passed.
    pub fn remaining(self, kernel: &Kernel) -> Option<Duration> {
        let left = self.0.checked_sub(kernel.clocks.monotonic())?;
        if left <= 0 { None } else { Some(Duration::from_nanos(left.unsigned_abs())) }
    }
}

/// The clocks. Offsets are added to the host's clocks.
#[derive(Debug, Default)]
pub struct Clocks {
    monotonic_offset: std::sync::atomic::AtomicI64,
    realtime_offset: std::sync::atomic::AtomicI64,
}

impl Clocks {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub fn monotonic(&self) -> i64 {
        platform::clock::monotonic() + self.monotonic_offset.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// `CLOCK_REALTIME`, nanoseconds since the epoch.
    pub fn realtime(&self) -> i64 {
        platform::clock::realtime() + self.realtime_offset.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// `CLOCK_MONOTONIC_COARSE`, nanoseconds: what the vdso gives, too.
    pub fn monotonic_coarse(&self) -> i64 {
        platform::clock::monotonic_coarse() + self.monotonic_offset.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// `CLOCK_REALTIME_COARSE`, nanoseconds since the epoch.
    pub fn realtime_coarse(&self) -> i64 {
        platform::clock::realtime_coarse() + self.realtime_offset.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Resolution of the coarse clocks, nanoseconds.
    pub fn coarse_resolution(&self) -> i64 {
        platform::clock::coarse_resolution()
    }

    /// `CLOCK_REALTIME` as a time stamp for files.
    pub fn now(&self) -> abi::time::Timespec {
        abi::time::Timespec::from_nanos(self.realtime())
    }
}
