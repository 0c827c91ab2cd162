//! Thread groups: what the threads of a process have in common (`signal_struct`).

use super::{ExitStatus, Members, Pid, ProcessGroup, Reason, Session, Task, Usage, limits};
use crate::creds::Creds;
use crate::signal::{Pending, SigHand};
use crate::timer::GroupTimers;
use abi::resource::{Resource, Rlimit};
use abi::signal::Signal;
use arc_swap::ArcSwap;
use ksync::live::{Kind, Live};
use ksync::{LockClass, Mutex, WaitQueue};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

/// Where a process is with stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopState {
    Running,
    /// Some threads have yet to stop.
    Stopping(Signal),
    Stopped(Signal),
}

/// What the lock of a thread group guards: who is in it, its pending signals, stopping and ending.
pub struct GroupState {
    /// All tasks that are not released; the leader stays until the process is reaped.
    pub threads: Vec<Arc<Task>>,
    /// How many of them have not exited.
    pub live: usize,
    /// How many of the live have begun to exit: the process ends with the one that makes this all of them.
    pub leaving: usize,
    pub pending: Pending,
    pub stop: StopState,
    /// A stop that the parent was not yet told by wait(2).
    pub stop_news: Option<Signal>,
    /// A continue that the parent was not yet told by wait(2).
    pub continued_news: bool,
    /// The process ends with this status; threads that look up exit.
    pub exiting: Option<ExitStatus>,
    /// The task that runs execve and waits for the others to go.
    pub exec: Option<u64>,
    /// The status of the whole process, once all threads are gone.
    pub dead: Option<ExitStatus>,
    /// Status of the leader, should it end before the others.
    pub leader_status: Option<ExitStatus>,
}

/// A process of the guest: tasks that share a thread group id.
pub struct ThreadGroup {
    /// The leader's id in the root PID namespace.
    pub tgid: i32,
    key: u64,
    kernel: std::sync::Weak<crate::Kernel>,
    pid: Arc<Pid>,
    state: Mutex<GroupState>,
    sighand: ArcSwap<SigHand>,
    pgrp: ArcSwap<ProcessGroup>,
    limits: Mutex<[Rlimit; 16]>,
    /// What the parent is sent at the end; 0 for nothing.
    pub exit_signal: AtomicI32,
    /// Where the process sleeps in wait(2): told of changes of its children and tracees.
    pub child_wait: Arc<WaitQueue>,
    /// Told of every signal sent to the process or one of its threads (signalfd(2)).
    pub signal_queue: Arc<WaitQueue>,
    /// Of threads that have ended, and of children that were waited for.
    pub usage: Mutex<Usage>,
    pub oom_score_adj: AtomicI32,
    /// `PR_SET_CHILD_SUBREAPER`
    pub is_subreaper: AtomicBool,
    /// The session (its number) whose terminal the process gave up without leading it; 0 for none.
    left_tty_of: AtomicI32,
    /// The init of a namespace that signals end as they end any process: one that was started as a command,
    /// and knows nothing of its being the first.
    pub is_mortal: AtomicBool,
    /// execve was called since fork (setpgid(2), EACCES).
    pub has_execed: AtomicBool,
    /// 0, 1, or 2 (`PR_SET_DUMPABLE`).
    pub dumpable: AtomicI32,
    pub timers: GroupTimers,
    members: Arc<Members>,
    /// Registered commands of membarrier(2).
    pub membarrier: AtomicU64,
    leader_creds: ArcSwap<Creds>,
    pub start_time: i64,
    /// For the test that nothing is leaked.
    _live: Live,
}

pub(super) struct GroupParts {
    pub pid: Arc<Pid>,
    pub sighand: Arc<SigHand>,
    pub pgrp: Arc<ProcessGroup>,
    pub limits: [Rlimit; 16],
    pub exit_signal: i32,
    pub creds: Arc<Creds>,
    pub members: Arc<Members>,
}

impl ThreadGroup {
    pub(super) fn build(kernel: &Arc<crate::Kernel>, p: GroupParts) -> Arc<ThreadGroup> {
        Arc::new(ThreadGroup {
            _live: Live::new(Kind::ThreadGroup),
            tgid: p.pid.root_number(),
            key: kernel.tasks.next_key(),
            kernel: Arc::downgrade(kernel),
            pid: p.pid,
            state: Mutex::new(
                LockClass::ThreadGroup,
                GroupState {
                    threads: Vec::new(),
                    live: 0,
                    leaving: 0,
                    pending: Pending::default(),
                    stop: StopState::Running,
                    stop_news: None,
                    continued_news: false,
                    exiting: None,
                    exec: None,
                    dead: None,
                    leader_status: None,
                },
            ),
            sighand: ArcSwap::new(p.sighand),
            pgrp: ArcSwap::new(p.pgrp),
            limits: Mutex::new(LockClass::Leaf, p.limits),
            exit_signal: AtomicI32::new(p.exit_signal),
            child_wait: Arc::new(WaitQueue::new()),
            signal_queue: Arc::new(WaitQueue::new()),
            usage: Mutex::new(LockClass::Leaf, Usage::default()),
            oom_score_adj: AtomicI32::new(0),
            is_subreaper: AtomicBool::new(false),
            left_tty_of: AtomicI32::new(0),
            is_mortal: AtomicBool::new(false),
            has_execed: AtomicBool::new(false),
            dumpable: AtomicI32::new(1),
            timers: GroupTimers::new(),
            members: p.members,
            membarrier: AtomicU64::new(0),
            leader_creds: ArcSwap::new(p.creds),
            start_time: kernel.clocks.monotonic(),
        })
    }

    /// A number that no other process of the sandbox has or had.
    pub fn key(&self) -> u64 {
        self.key
    }
    /// The sandbox; `None` only while everything is torn down.
    pub fn kernel(&self) -> Option<Arc<crate::Kernel>> {
        self.kernel.upgrade()
    }
    /// The container it belongs to.
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }
    /// Its numbers.
    pub fn pid(&self) -> &Arc<Pid> {
        &self.pid
    }
    /// Threads, pending signals, stop and exit.
    pub fn state(&self) -> &Mutex<GroupState> {
        &self.state
    }
    pub fn sighand(&self) -> Arc<SigHand> {
        self.sighand.load_full()
    }
    pub(super) fn set_sighand(&self, s: Arc<SigHand>) {
        self.sighand.store(s);
    }
    /// Its process group.
    pub fn pgrp(&self) -> Arc<ProcessGroup> {
        self.pgrp.load_full()
    }
    pub(super) fn set_pgrp(&self, p: Arc<ProcessGroup>) {
        self.pgrp.store(p);
    }
    /// Its session.
    pub fn session(&self) -> Arc<Session> {
        Arc::clone(self.pgrp.load().session())
    }
    /// Whether it is the leader of its session.
    pub fn is_session_leader(&self) -> bool {
        Arc::ptr_eq(self.pgrp.load().session().pid(), &self.pid)
    }
    /// All threads that are not released.
    pub fn threads(&self) -> Vec<Arc<Task>> {
        self.state.lock().threads.clone()
    }
    /// The leader; `None` when the process is reaped.
    pub fn leader(&self) -> Option<Arc<Task>> {
        self.pid.task()
    }
    /// A thread that has not exited, the leader if it can be.
    pub fn live_thread(&self) -> Option<Arc<Task>> {
        self.state.lock().threads.iter().find(|t| !t.has_exited()).cloned()
    }
    /// Credentials that stand for the process.
    pub fn leader_creds(&self) -> Arc<Creds> {
        match self.pid.task() {
            Some(t) => t.creds(),
            None => self.leader_creds.load_full(),
        }
    }
    pub(super) fn keep_creds(&self, creds: Arc<Creds>) {
        self.leader_creds.store(creds);
    }
    /// A limit.
    pub fn limit(&self, r: Resource) -> Rlimit {
        self.limits.lock()[r as usize]
    }
    /// The soft value of a limit.
    pub fn soft_limit(&self, r: Resource) -> u64 {
        self.limit(r).cur
    }
    /// Sets a limit without any check.
    pub fn set_limit(&self, r: Resource, l: Rlimit) {
        self.limits.lock()[r as usize] = l;
    }
    /// All limits.
    pub fn limits(&self) -> [Rlimit; 16] {
        *self.limits.lock()
    }
    /// How the process ended, once it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.state.lock().dead
    }
    /// Whether all its threads have exited.
    pub fn is_dead(&self) -> bool {
        self.state.lock().dead.is_some()
    }
    /// Whether it is the init of a PID namespace.
    pub fn is_ns_init(&self) -> bool {
        self.pid.number() == 1
    }
    /// Whether signals without a handler are kept from it, as from an init (`SIGNAL_UNKILLABLE`).
    pub fn is_shielded(&self) -> bool {
        self.is_ns_init() && !self.is_mortal.load(Ordering::Relaxed)
    }
    /// Stops the process from running guest code, or lets it go on (pausing a container).
    pub fn freeze(&self, on: bool) {
        for t in self.threads() {
            if on {
                t.raise(Reason::Freeze);
            } else {
                t.look().clear(Reason::Freeze);
                t.kick();
            }
        }
    }
    /// The controlling terminal.
    pub fn tty(&self) -> Option<Arc<dyn super::ControllingTty>> {
        let session = self.session();
        if self.left_tty_of.load(Ordering::Relaxed) == session.pid().root_number() {
            return None;
        }
        session.tty()
    }
    /// The process has no part in its session's terminal any more.
    pub fn leave_tty(&self) {
        self.left_tty_of.store(self.session().pid().root_number(), Ordering::Relaxed);
    }
    /// What a child takes over from its parent.
    pub(super) fn inherit(&self, parent: &ThreadGroup) {
        self.left_tty_of.store(parent.left_tty_of.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    /// Whether the process was asked to end.
    pub fn is_exiting(&self) -> bool {
        self.state.lock().exiting.is_some()
    }
    /// The limits of a process that was told none.
    pub fn default_limits() -> [Rlimit; 16] {
        limits::DEFAULT_LIMITS
    }
    /// `PR_SET_DUMPABLE`'s value.
    pub fn dumpable(&self) -> i32 {
        self.dumpable.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for ThreadGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ThreadGroup({})", self.tgid)
    }
}
