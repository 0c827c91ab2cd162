//! Default limits, and what is counted per user (getrlimit(2)).

use abi::resource::{RLIM_INFINITY, Rlimit};
use ksync::{LockClass, Mutex};
use std::collections::HashMap;

const fn lim(cur: u64, max: u64) -> Rlimit {
    Rlimit { cur, max }
}

/// The limits of a process that nobody gave any (Linux' init, with the descriptor limit of systemd).
pub const DEFAULT_LIMITS: [Rlimit; 16] = [
    lim(RLIM_INFINITY, RLIM_INFINITY), // cpu
    lim(RLIM_INFINITY, RLIM_INFINITY), // fsize
    lim(RLIM_INFINITY, RLIM_INFINITY), // data
    lim(8 << 20, RLIM_INFINITY),       // stack
    lim(0, RLIM_INFINITY),             // core
    lim(RLIM_INFINITY, RLIM_INFINITY), // rss
    lim(RLIM_INFINITY, RLIM_INFINITY), // nproc
    lim(1024, 1_048_576),              // nofile
    lim(8 << 20, 8 << 20),             // memlock
    lim(RLIM_INFINITY, RLIM_INFINITY), // as
    lim(RLIM_INFINITY, RLIM_INFINITY), // locks
    lim(15_000, 15_000),               // sigpending
    lim(819_200, 819_200),             // msgqueue
    lim(0, 0),                         // nice
    lim(0, 0),                         // rtprio
    lim(RLIM_INFINITY, RLIM_INFINITY), // rttime
];

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    tasks: u64,
    signals: u64,
}

/// What each user has: tasks and queued signals.
#[derive(Debug)]
pub struct Users(Mutex<HashMap<u32, Counts>>);

impl Default for Users {
    fn default() -> Self {
        Users(Mutex::new(LockClass::Leaf, HashMap::new()))
    }
}

impl Users {
    fn change<R>(&self, uid: u32, f: impl FnOnce(&mut Counts) -> R) -> R {
        let mut m = self.0.lock();
        let c = m.entry(uid).or_default();
        let r = f(c);
        if c.tasks == 0 && c.signals == 0 {
            m.remove(&uid);
        }
        r
    }
    pub(super) fn add_task(&self, uid: u32) {
        self.change(uid, |c| c.tasks += 1);
    }
    pub(super) fn remove_task(&self, uid: u32) {
        self.change(uid, |c| c.tasks = c.tasks.saturating_sub(1));
    }
    /// A task goes from one user to another (setuid(2)).
    pub fn move_task(&self, from: u32, to: u32) {
        if from != to {
            self.remove_task(from);
            self.add_task(to);
        }
    }
    /// Tasks of a user.
    pub fn tasks(&self, uid: u32) -> u64 {
        self.0.lock().get(&uid).map_or(0, |c| c.tasks)
    }
    /// Queued signals of a user.
    pub fn signals(&self, uid: u32) -> u64 {
        self.0.lock().get(&uid).map_or(0, |c| c.signals)
    }
    /// Counts one more queued signal unless that is over the limit.
    pub(crate) fn charge_signal(&self, uid: u32, limit: u64) -> bool {
        self.change(uid, |c| {
            let ok = c.signals < limit;
            if ok {
                c.signals += 1;
            }
            ok
        })
    }
    pub(crate) fn uncharge_signal(&self, uid: u32) {
        self.change(uid, |c| c.signals = c.signals.saturating_sub(1));
    }
}
