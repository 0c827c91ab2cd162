//! The host's clocks.

use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;

fn nanos(id: ClockId) -> i64 {
    let t = clock_gettime(id);
    t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec)
}

/// `CLOCK_MONOTONIC` in nanoseconds.
pub fn monotonic() -> i64 {
    nanos(ClockId::Monotonic)
}

/// `CLOCK_REALTIME` in nanoseconds since the epoch.
pub fn realtime() -> i64 {
    nanos(ClockId::Realtime)
}

/// `CLOCK_MONOTONIC_COARSE`: the monotonic clock at the host's last tick, in nanoseconds.
pub fn monotonic_coarse() -> i64 {
    nanos(ClockId::MonotonicCoarse)
}

/// `CLOCK_REALTIME_COARSE` in nanoseconds since the epoch.
pub fn realtime_coarse() -> i64 {
    nanos(ClockId::RealtimeCoarse)
}

/// Nanoseconds between two ticks, which the coarse clocks go by. The host is asked the first time only: ask before a
/// filter forbids the question.
pub fn coarse_resolution() -> i64 {
    static TICK: OnceLock<i64> = OnceLock::new();
    *TICK.get_or_init(|| {
        let t = rustix::time::clock_getres(ClockId::MonotonicCoarse);
        t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec)
    })
}

/// `CLOCK_BOOTTIME` in nanoseconds.
pub fn boottime() -> i64 {
    nanos(ClockId::Boottime)
}

/// Processor time of the calling host thread in nanoseconds.
pub fn thread_cpu() -> i64 {
    nanos(ClockId::ThreadCPUTime)
}

/// Processor time of another process, or of another thread of this one, in nanoseconds; `None` when it is gone.
pub fn cpu_time_of(id: i32, thread: bool) -> Option<i64> {
    const SCHED: i32 = 2;
    const PER_THREAD: i32 = 4;
    // How Linux numbers these clocks (clock_getcpuclockid(3)).
    let clock = (!id << 3) | SCHED | if thread { PER_THREAD } else { 0 };
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place for the answer is ours.
    let done = unsafe { libc::clock_gettime(clock, &raw mut t) } == 0;
    done.then(|| t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec))
}

/// `CLOCK_MONOTONIC_RAW` in nanoseconds.
pub fn monotonic_raw() -> i64 {
    nanos(ClockId::MonotonicRaw)
}

/// `CLOCK_TAI` in nanoseconds since the epoch.
pub fn tai() -> i64 {
    let tai = rustix::time::clock_gettime_dynamic(rustix::time::DynamicClockId::Tai);
    tai.map_or_else(|_| realtime(), |t| t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec))
}

/// Processor time of this process in nanoseconds.
pub fn process_cpu() -> i64 {
    nanos(ClockId::ProcessCPUTime)
}

/// `CLOCK_MONOTONIC` from the processor's counter: half as dear as the host's own reading, which the counter is set by
/// every few milliseconds. One for each user; good for durations.
#[derive(Debug, Default)]
pub struct Ticker {
    base: i64,
    counter: u64,
    /// Nanoseconds a tick, shifted left by 32; 0: not known yet.
    rate: u64,
}

/// The first readings of clock and counter.
static FIRST: OnceLock<(i64, u64)> = OnceLock::new();
/// How many ticks a reading of the clock is good for: about two milliseconds.
const GOOD_FOR: u64 = 1 << 22;
/// How long the first readings must be ago to tell the rate.
const ENOUGH: i64 = 20_000_000;

fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { std::arch::x86_64::_rdtsc() }
}

impl Ticker {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub fn now(&mut self) -> i64 {
        let counter = counter();
        let ticks = counter.wrapping_sub(self.counter);
        if self.rate != 0 && ticks < GOOD_FOR {
            return self.base + (u128::from(ticks) * u128::from(self.rate) >> 32) as i64;
        }
        self.set(counter)
    }

    #[cold]
    fn set(&mut self, counter: u64) -> i64 {
        let now = monotonic();
        let (then, first) = *FIRST.get_or_init(|| (now, counter));
        let ticks = counter.wrapping_sub(first);
        if now - then > ENOUGH && ticks > 0 {
            self.rate = ((((now - then) as u128) << 32) / u128::from(ticks)) as u64;
        }
        (self.base, self.counter) = (now, counter);
        now
    }
}
