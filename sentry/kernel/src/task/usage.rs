//! CPU time and other usage (getrusage(2), times(2)).
//!
//! User time is the time that the platform runs guest code of a task, system time the time that the
//! sentry works for it; sleeping counts as neither. Both are taken by the clock, which is cheap, and cut to what the
//! host's processors spent when somebody asks, so that waiting for a processor counts as neither, too.

use super::{Task, ThreadGroup};
use abi::resource::Rusage;
use abi::time::Timeval;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering};

/// Times of one task, nanoseconds.
#[derive(Debug, Default)]
pub struct CpuTimes {
    user: AtomicI64,
    system: AtomicI64,
    /// When it began to run guest code; 0 when it does not.
    in_guest_since: AtomicI64,
    /// When the sentry began to work for it; 0 when it does not.
    in_sentry_since: AtomicI64,
    pub voluntary_switches: AtomicU64,
    pub involuntary_switches: AtomicU64,
    pub minor_faults: AtomicU64,
    /// User time in memory that the task has left (execve, exit): no clock tells of that any more.
    elsewhere: AtomicI64,
    /// What was told of both before: times never go back.
    told: [AtomicI64; 2],
    /// The host's thread that works for it, 0 for none.
    host_thread: AtomicI32,
    /// What that had worked for others before.
    worked_before: AtomicI64,
    pub io: IoCounts,
}

/// What /proc/pid/io counts.
#[derive(Debug, Default)]
pub struct IoCounts {
    pub read_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub reads: AtomicU64,
    pub writes: AtomicU64,
}

impl IoCounts {
    /// A call that read came to an end.
    pub fn read(&self, bytes: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    /// A call that wrote came to an end.
    pub fn wrote(&self, bytes: usize) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl CpuTimes {
    /// The calling host thread works for the task from now on.
    pub fn set_host_thread(&self, tid: i32) {
        self.worked_before.store(platform::clock::thread_cpu(), Ordering::Relaxed);
        self.host_thread.store(tid, Ordering::Relaxed);
    }
    /// How long guest code has been running without a trap.
    fn under_way(&self, now: i64) -> i64 {
        match self.in_guest_since.load(Ordering::Relaxed) {
            0 => 0,
            since => (now - since).max(0),
        }
    }
    /// Times as they can be told: not less than before.
    fn tell(&self, user: i64, system: i64) -> (i64, i64) {
        let told = |slot: &AtomicI64, value: i64| slot.fetch_max(value, Ordering::Relaxed).max(value);
        (told(&self.told[0], user), told(&self.told[1], system))
    }
    /// Guest code begins to run at `now`.
    pub fn enter_guest(&self, now: i64) {
        self.stop_sentry(now);
        self.in_guest_since.store(now, Ordering::Relaxed);
    }
    /// Guest code has trapped at `now`; how long it ran.
    pub fn leave_guest(&self, now: i64) -> i64 {
        let since = self.in_guest_since.swap(0, Ordering::Relaxed);
        let ran = if since != 0 { (now - since).max(0) } else { 0 };
        self.user.fetch_add(ran, Ordering::Relaxed);
        self.in_sentry_since.store(now, Ordering::Relaxed);
        ran
    }
    /// The task begins to sleep, or ends.
    pub fn stop_sentry(&self, now: i64) {
        let since = self.in_sentry_since.swap(0, Ordering::Relaxed);
        if since != 0 {
            self.system.fetch_add((now - since).max(0), Ordering::Relaxed);
        }
    }
    /// The task woke up.
    pub fn resume_sentry(&self, now: i64) {
        self.in_sentry_since.store(now, Ordering::Relaxed);
    }
    /// (user, system) up to `now`.
    pub fn at(&self, now: i64) -> (i64, i64) {
        let part = |sum: &AtomicI64, since: &AtomicI64| {
            let s = since.load(Ordering::Relaxed);
            sum.load(Ordering::Relaxed) + if s == 0 { 0 } else { (now - s).max(0) }
        };
        (part(&self.user, &self.in_guest_since), part(&self.system, &self.in_sentry_since))
    }
    /// Whether it is running just now.
    pub fn is_running(&self) -> bool {
        self.in_guest_since.load(Ordering::Relaxed) != 0 || self.in_sentry_since.load(Ordering::Relaxed) != 0
    }
}

/// Sums over tasks that are no more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    pub user: i64,
    pub system: i64,
    pub minflt: u64,
    pub nvcsw: u64,
    pub nivcsw: u64,
    /// KiB
    pub maxrss: u64,
    /// Bytes read and written, and calls that did.
    pub io: [u64; 4],
}

impl Sums {
    pub(super) fn add(&mut self, o: &Sums) {
        self.user += o.user;
        self.system += o.system;
        self.minflt += o.minflt;
        self.nvcsw += o.nvcsw;
        self.nivcsw += o.nivcsw;
        self.maxrss = self.maxrss.max(o.maxrss);
        for (mine, more) in self.io.iter_mut().zip(o.io) {
            *mine += more;
        }
    }
    /// As `struct rusage`.
    pub fn rusage(&self) -> Rusage {
        let n = |v: u64| i64::try_from(v).unwrap_or(i64::MAX);
        Rusage {
            utime: Timeval::from_nanos(self.user),
            stime: Timeval::from_nanos(self.system),
            maxrss: n(self.maxrss),
            minflt: n(self.minflt),
            nvcsw: n(self.nvcsw),
            nivcsw: n(self.nivcsw),
            ..Rusage::default()
        }
    }
}

/// What a process keeps of others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Threads of this process that have ended.
    pub dead_threads: Sums,
    /// Children that were waited for, with their children.
    pub children: Sums,
}

impl Task {
    /// User and system time, nanoseconds. `under_way`: what other threads of its memory have not counted yet.
    fn times(&self, now: i64, under_way: i64) -> (i64, i64) {
        let (user, system) = self.cpu.at(now);
        let here = match self.try_mm() {
            Some(mm) => mm.worked(user, under_way),
            None => user,
        };
        let user = self.cpu.elsewhere.load(Ordering::Relaxed).saturating_add(here);
        let system = match self.cpu.host_thread.load(Ordering::Relaxed) {
            0 => system,
            tid => {
                let before = self.cpu.worked_before.load(Ordering::Relaxed);
                platform::clock::cpu_time_of(tid, true).map_or(system, |cpu| system.min(cpu - before))
            }
        };
        self.cpu.tell(user, system)
    }

    /// The task is about to leave its memory: what it worked there is settled. Only by the task itself, in no guest code.
    pub(super) fn settle_user_time(&self) {
        let (user, _) = self.cpu_time();
        self.cpu.elsewhere.store(user, Ordering::Relaxed);
        self.cpu.user.store(0, Ordering::Relaxed);
    }

    /// User and system time, nanoseconds.
    pub fn cpu_time(&self) -> (i64, i64) {
        let now = platform::clock::monotonic();
        self.times(now, self.cpu.under_way(now))
    }

    fn sums(&self, (user, system): (i64, i64)) -> Sums {
        let io = &self.cpu.io;
        Sums {
            user,
            system,
            minflt: self.cpu.minor_faults.load(Ordering::Relaxed),
            nvcsw: self.cpu.voluntary_switches.load(Ordering::Relaxed),
            nivcsw: self.cpu.involuntary_switches.load(Ordering::Relaxed),
            maxrss: 0,
            io: [&io.read_bytes, &io.written_bytes, &io.reads, &io.writes].map(|n| n.load(Ordering::Relaxed)),
        }
    }

    /// What this task has used.
    pub fn usage(&self) -> Sums {
        self.sums(self.cpu_time())
    }
}

impl ThreadGroup {
    /// What all threads, living and dead, have used.
    pub fn total_usage(&self) -> Sums {
        let mut sums = self.usage.lock().dead_threads;
        let now = platform::clock::monotonic();
        let alive: Vec<_> = self.threads().into_iter().filter(|t| !t.has_exited()).collect();
        let under_way = alive.iter().map(|t| t.cpu.under_way(now)).sum();
        for t in alive {
            sums.add(&t.sums(t.times(now, under_way)));
        }
        sums
    }
    /// What waited-for children have used.
    pub fn children_usage(&self) -> Sums {
        self.usage.lock().children
    }
    /// User and system time of the process, nanoseconds.
    pub fn cpu_time(&self) -> (i64, i64) {
        let u = self.total_usage();
        (u.user, u.system)
    }
}
