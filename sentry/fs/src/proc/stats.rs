//! What several files count: processor time, tasks, load.

use super::system::kernel;
use abi::Result;
use kernel::Kernel;
use kernel::vfs::Caller;
use ksync::{LockClass, Mutex};

/// What all tasks there were have used.
#[derive(Default)]
pub(super) struct Totals {
    /// Nanoseconds.
    pub user: i64,
    pub system: i64,
    pub switches: u64,
    pub faults: u64,
}

/// Summed over the living, and over those whom somebody waited for.
pub(super) fn sums(k: &Kernel) -> Totals {
    let mut t = Totals::default();
    let mut add = |s: &kernel::task::Sums| {
        t.user += s.user;
        t.system += s.system;
        t.switches += s.nvcsw + s.nivcsw;
        t.faults += s.minflt;
    };
    for g in k.root_pid_ns.groups() {
        add(&g.total_usage());
        // Each child that is gone is counted with the one who waited for it, and that one with its own.
        add(&g.children_usage());
    }
    t
}

/// User and system time of all tasks there were, in nanoseconds.
pub(super) fn cpu_time(k: &Kernel) -> (i64, i64) {
    let t = sums(k);
    (t.user, t.system)
}

/// Tasks that run or want to run, and how many were ever made.
pub(super) fn task_counts(k: &Kernel) -> (usize, i64) {
    let running = k.root_pid_ns.tasks().iter().filter(|t| t.state_letter() == 'R').count();
    (running.max(1), i64::from(k.root_pid_ns.last()))
}

/// Number of tasks of the caller's PID namespace and the number given out last.
pub(super) fn tasks_and_last_pid(cx: &Caller<'_>) -> Result<(usize, i32)> {
    let ns = match cx.task {
        Some(t) => t.pid_ns(),
        None => std::sync::Arc::clone(&kernel(cx)?.root_pid_ns),
    };
    Ok((ns.tasks().len(), ns.last()))
}

/// The load averages: running tasks, decayed over 1, 5 and 15 minutes. They are brought up to date when they are
/// read, so that an idle sandbox does nothing.
struct Load(Mutex<(i64, [f64; 3])>);

/// The three averages.
pub(super) fn load(k: &Kernel) -> [f64; 3] {
    let state = k.extensions.get_or_init(|| Load(Mutex::new(LockClass::Leaf, (k.machine.booted, [0.0; 3]))));
    let running = k.root_pid_ns.tasks().iter().filter(|t| t.state_letter() == 'R').count() as f64;
    let now = k.clocks.monotonic();
    let mut s = state.0.lock();
    let passed = (now - s.0).max(0) as f64 / 1e9;
    s.0 = now;
    for (value, minutes) in s.1.iter_mut().zip([1.0, 5.0, 15.0]) {
        let keep = (-passed / (60.0 * minutes)).exp();
        *value = *value * keep + running * (1.0 - keep);
    }
    s.1
}
