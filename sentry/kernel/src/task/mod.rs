//! Tasks, thread groups, process groups, sessions and PID namespaces (credentials(7), clone(2)).
//!
//! `tree.rs` has parents and children, `clone.rs` the birth of tasks, `exit.rs` their end, `wait.rs`
//! wait(2), `lookup.rs` the reasons for which a task must look up, `stop.rs` stops and freezes.

mod access;
mod clone;
mod credentials;
mod exec;
mod exit;
mod group;
mod limits;
mod lookup;
mod members;
mod namespaces;
mod oom;
mod pid;
mod sched;
mod session;
mod stop;
mod trace;
mod tree;
mod usage;
mod wait;

pub use clone::{CloneArgs, InitArgs, check_flags as check_clone_flags};
pub use credentials::{ExecCreds, ExecFile, FileCaps, exec_creds, securebits};
pub use exec::NewProgram;
pub use exit::ExitStatus;
pub use group::{GroupState, StopState, ThreadGroup};
pub use limits::{DEFAULT_LIMITS, Users};
pub use lookup::{LookUp, Reason, Step};
pub use members::Members;
pub use namespaces::{IpcNamespace, Namespaces, NsKind, OtherNamespace, TimeNamespace, UtsNamespace, uts};
pub use pid::{PID_MAX, Pid, PidNamespace};
pub use sched::{AffinityMask, Sched, policy};
pub use session::{ControllingTty, ProcessGroup, Session};
pub use trace::{AfterStop, Resume, StopEvent, Trace, TraceOptions, TraceStop};
pub use tree::TaskTree;
pub(crate) use tree::Tree;
pub use usage::{CpuTimes, Sums, Usage};
pub use wait::{WaitFor, WaitNews, WaitOptions};

use crate::Kernel;
use crate::creds::Creds;
use crate::mm::Mm;
use crate::seccomp::Chain;
use crate::signal::Pending;
use crate::vfs::{Caller, FdTable, FsContext};
use crate::wait::Waiter;
use abi::siginfo::{SigInfo, StackT, ss};
use abi::signal::SigSet;
use arc_swap::ArcSwap;
use ksync::live::{Kind, Live};
use ksync::{LockClass, Mutex, RwLock};
use platform::{Interrupt, Registers};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

/// A thread of the guest (`task_struct`).
pub struct Task {
    kernel: Arc<Kernel>,
    /// Never used twice in a sandbox.
    key: u64,
    /// Id in the sandbox's root PID namespace, as `pid` has it.
    tid: AtomicI32,
    pid: ArcSwap<Pid>,
    group: Arc<ThreadGroup>,
    mm: RwLock<Option<Arc<Mm>>>,
    fs: RwLock<Option<Arc<FsContext>>>,
    files: RwLock<Option<Arc<FdTable>>>,
    creds: ArcSwap<Creds>,
    namespaces: ArcSwap<Namespaces>,
    waiter: Arc<Waiter>,
    look: LookUp,
    /// Makes the platform's `switch` return; set by the task's own thread when it starts.
    interrupt: Mutex<Option<Arc<dyn Interrupt>>>,
    sig: Mutex<TaskSignals>,
    comm: Mutex<[u8; 16]>,
    /// Monotonic time of its birth, nanoseconds.
    pub start_time: i64,
    pub cpu: CpuTimes,
    /// Where a zero is written, and a futex woken, when it ends (set_tid_address(2)).
    pub clear_child_tid: AtomicU64,
    /// Head of the robust futex list (set_robust_list(2)).
    pub robust_list: AtomicU64,
    restart: Mutex<RestartBlock>,
    pub sched: Mutex<Sched>,
    pub attrs: Mutex<Attributes>,
    /// Somebody waits in vfork(2) until this task has no use for the memory any more.
    vfork_parent: Mutex<Option<Arc<VforkDone>>>,
    seccomp: RwLock<Option<Arc<Chain>>>,
    /// Whether there is one, to be asked at every call.
    filtered: AtomicBool,
    /// Whether `sig.trace` is there; written with its lock held.
    traced: AtomicBool,
    /// How often `mm` was replaced.
    mm_changes: AtomicU32,
    exited: AtomicBool,
    /// exit(2) was called, or a filter ended this thread alone.
    own_end: Mutex<Option<ExitStatus>>,
    /// Stopped by job control.
    parked: AtomicBool,
    /// In a blocking call.
    sleeping: AtomicBool,
    /// The call that is being answered, for /proc/pid/syscall; -1 in guest code.
    pub current_call: AtomicI32,
    /// Its arguments, the stack pointer and the instruction pointer.
    call_words: [AtomicU64; 8],
    /// For the test that nothing is leaked.
    _live: Live,
}

/// The signals of one task.
pub struct TaskSignals {
    pub blocked: SigSet,
    /// The mask before sigtimedwait(2) opened some: for "is it ignored" at the time of sending.
    pub real_blocked: SigSet,
    /// To be put back after the handler of the call that set a temporary mask (sigsuspend, ppoll, …).
    pub saved_mask: Option<SigSet>,
    pub pending: Pending,
    pub altstack: StackT,
    pub trace: Option<Trace>,
    /// A signal that a fault of the instruction caused (`force_sig`): not to be held back for pid 1.
    pub forced: SigSet,
}

impl TaskSignals {
    fn new(blocked: SigSet) -> TaskSignals {
        TaskSignals {
            blocked,
            real_blocked: SigSet::EMPTY,
            saved_mask: None,
            pending: Pending::default(),
            altstack: no_altstack(),
            trace: None,
            forced: SigSet::EMPTY,
        }
    }
}

/// "There is no alternate stack."
pub const fn no_altstack() -> StackT {
    StackT { sp: 0, flags: ss::DISABLE, pad: 0, size: 0 }
}

/// Attributes that prctl(2), personality(2) keep for a task.
#[derive(Clone, Debug)]
pub struct Attributes {
    pub personality: u32,
    /// `PR_SET_PDEATHSIG`
    pub parent_death_signal: u8,
    pub timer_slack: u64,
    pub default_timer_slack: u64,
    /// `PR_SET_TSC`, `PR_MCE_KILL`, `PR_SET_IO_FLUSHER`, … as far as they are only kept.
    pub tsc: i32,
    pub mce_kill: i32,
    pub io_flusher: bool,
    pub thp_disable: bool,
    pub io_priority: i32,
}

impl Default for Attributes {
    fn default() -> Self {
        Attributes {
            personality: 0,
            parent_death_signal: 0,
            timer_slack: 50_000,
            default_timer_slack: 50_000,
            tsc: 1,
            mce_kill: 2,
            io_flusher: false,
            thp_disable: false,
            io_priority: 0,
        }
    }
}

/// How `restart_syscall(2)` goes on with an interrupted call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartBlock {
    /// Nothing to go on with: EINTR.
    #[default]
    None,
    /// clock_nanosleep: until a time on a clock (nanoseconds); where the rest goes, 0 for nowhere.
    Nanosleep { clock: i32, until: i64, remaining: u64 },
    /// futex wait: until a monotonic deadline.
    Futex { addr: u64, value: u32, flags: u32, bitset: u32, deadline: i64 },
    /// poll(2) with a monotonic deadline; `None` waits for ever.
    Poll { fds: u64, count: u32, deadline: Option<i64> },
}

/// What a vfork parent sleeps on.
#[derive(Debug, Default)]
pub struct VforkDone {
    done: AtomicBool,
    queue: Arc<ksync::WaitQueue>,
}

impl VforkDone {
    pub(crate) fn finish(&self) {
        self.done.store(true, Ordering::SeqCst);
        self.queue.wake_all(1);
    }
}

impl Task {
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }
    /// A number that no other task of the sandbox has or had.
    pub fn key(&self) -> u64 {
        self.key
    }
    /// Id in the sandbox's root PID namespace.
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::Relaxed)
    }
    /// All its numbers.
    pub fn pid(&self) -> Arc<Pid> {
        self.pid.load_full()
    }
    /// A call is being answered from now on.
    pub fn begin_call(&self, nr: i32, args: &[u64; 6], sp: u64, pc: u64) {
        for (slot, word) in self.call_words.iter().zip(args.iter().chain([&sp, &pc])) {
            slot.store(*word, Ordering::Relaxed);
        }
        self.current_call.store(nr, Ordering::Relaxed);
    }
    /// The call that is being answered: its number (-1 for none), arguments, stack pointer, instruction pointer.
    pub fn call(&self) -> (i32, [u64; 8]) {
        let words = std::array::from_fn(|i| self.call_words[i].load(Ordering::Relaxed));
        (self.current_call.load(Ordering::Relaxed), words)
    }
    /// Whether it sleeps in a call.
    pub fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed)
    }
    /// Its id as itself sees it (gettid(2)).
    pub fn own_tid(&self) -> i32 {
        self.pid.load().number()
    }
    /// Its id as seen from a namespace, 0 if it is not visible there.
    pub fn tid_in(&self, ns: &PidNamespace) -> i32 {
        self.pid.load().number_in(ns).unwrap_or(0)
    }
    /// The PID namespace it lives in.
    pub fn pid_ns(&self) -> Arc<PidNamespace> {
        Arc::clone(self.pid.load().namespace())
    }
    pub fn group(&self) -> &Arc<ThreadGroup> {
        &self.group
    }
    /// Whether it is the leader of its thread group.
    pub fn is_leader(&self) -> bool {
        Arc::ptr_eq(&self.pid.load(), self.group.pid())
    }

    /// The address space of a running task; the calling task always has one.
    ///
    /// # Panics
    /// When the task has ended: ask others than the current task with [`Task::try_mm`].
    pub fn mm(&self) -> Arc<Mm> {
        self.try_mm().expect("a task that runs has memory")
    }
    /// The file system context of a running task; see [`Task::mm`].
    ///
    /// # Panics
    /// When the task has ended.
    pub fn fs(&self) -> Arc<FsContext> {
        self.try_fs().expect("a task that runs has a file system context")
    }
    /// The descriptors of a running task; see [`Task::mm`].
    ///
    /// # Panics
    /// When the task has ended.
    pub fn files(&self) -> Arc<FdTable> {
        self.try_files().expect("a task that runs has descriptors")
    }
    /// The address space, unless the task has ended.
    pub fn try_mm(&self) -> Option<Arc<Mm>> {
        self.mm.read().clone()
    }
    /// The file system context, unless the task has ended.
    pub fn try_fs(&self) -> Option<Arc<FsContext>> {
        self.fs.read().clone()
    }
    /// The descriptors, unless the task has ended.
    pub fn try_files(&self) -> Option<Arc<FdTable>> {
        self.files.read().clone()
    }
    /// Replaces the address space (execve); the old one, to be dropped without locks.
    pub fn set_mm(&self, mm: Arc<Mm>) -> Option<Arc<Mm>> {
        self.settle_user_time();
        let old = self.mm.write().replace(mm);
        self.mm_changes.fetch_add(1, Ordering::SeqCst);
        old
    }
    /// A number that changes when the address space is replaced.
    pub fn mm_changes(&self) -> u32 {
        self.mm_changes.load(Ordering::Relaxed)
    }
    /// Replaces the file system context (unshare(2), setns(2)).
    pub fn set_fs(&self, fs: Arc<FsContext>) -> Option<Arc<FsContext>> {
        self.fs.write().replace(fs)
    }
    /// Replaces the descriptors (unshare(2), execve, close_range(2)).
    pub fn set_files(&self, files: Arc<FdTable>) -> Option<Arc<FdTable>> {
        self.files.write().replace(files)
    }
    pub fn creds(&self) -> Arc<Creds> {
        self.creds.load_full()
    }
    /// Replaces the credentials. Only the task itself does this.
    pub fn set_creds(&self, creds: Creds) {
        self.creds.store(Arc::new(creds));
    }
    pub fn namespaces(&self) -> Arc<Namespaces> {
        self.namespaces.load_full()
    }
    pub fn set_namespaces(&self, ns: Namespaces) {
        self.namespaces.store(Arc::new(ns));
    }
    /// What this task sleeps on.
    pub fn waiter(&self) -> &Arc<Waiter> {
        &self.waiter
    }
    /// Whether something wants the task's attention, so that it must not (go on to) sleep.
    pub fn must_look_up(&self) -> bool {
        self.look.ends_sleep()
    }
    /// The reasons to look up.
    pub fn look(&self) -> &LookUp {
        &self.look
    }
    /// Whether it is about to be killed.
    pub fn is_dying(&self) -> bool {
        self.look.has(Reason::Kill)
    }
    /// Gives the task a reason to look up and makes sure that it does.
    pub fn raise(&self, reason: Reason) {
        self.look.raise(reason);
        self.kick();
    }
    /// Makes the task leave guest code or a sleep and look.
    pub fn kick(&self) {
        self.waiter.wake();
        let interrupt = self.interrupt.lock().clone();
        if let Some(i) = interrupt {
            i.interrupt();
        }
    }
    /// Tells the platform that this task is about to sleep.
    pub(crate) fn rest(&self) {
        let interrupt = self.interrupt.lock().clone();
        if let Some(i) = interrupt {
            i.rest();
        }
    }
    /// How to interrupt the guest code of this task.
    pub fn set_interrupt(&self, i: Option<Arc<dyn Interrupt>>) {
        // Under the lock of parents, so that it is told of each change from this one on.
        let tree = i.as_ref().map(|_| self.kernel.tasks.lock());
        if let (Some(tree), Some(i)) = (&tree, &i) {
            i.set_parent(tree.ppid(&self.group).unsigned_abs());
        }
        *self.interrupt.lock() = i;
    }
    /// What getppid(2) says has changed. The tree is locked.
    fn tell_ppid(&self, ppid: i32) {
        if let Some(i) = &*self.interrupt.lock() {
            i.set_parent(ppid.unsigned_abs());
        }
    }
    /// Calls `f` as this task.
    pub fn as_caller<R>(&self, f: impl FnOnce(&Caller<'_>) -> R) -> R {
        let creds = self.creds();
        f(&Caller { creds: &creds, task: Some(self) })
    }
    /// The name (`PR_SET_NAME`), without its NULs.
    pub fn comm(&self) -> Vec<u8> {
        let c = *self.comm.lock();
        c.iter().copied().take_while(|b| *b != 0).collect()
    }
    /// Sets the name; cut to 15 bytes.
    pub fn set_comm(&self, name: &[u8]) {
        let mut c = [0; 16];
        let n = name.len().min(15);
        c[..n].copy_from_slice(&name[..n]);
        *self.comm.lock() = c;
    }
    /// How an interrupted call goes on.
    pub fn set_restart(&self, block: RestartBlock) {
        *self.restart.lock() = block;
    }
    /// Takes the restart block.
    pub fn take_restart(&self) -> RestartBlock {
        std::mem::take(&mut *self.restart.lock())
    }
    /// Its seccomp filters.
    pub fn seccomp(&self) -> Option<Arc<Chain>> {
        if !self.filtered.load(Ordering::SeqCst) {
            return None;
        }
        self.seccomp.read().clone()
    }
    pub fn set_seccomp(&self, chain: Option<Arc<Chain>>) {
        let mut current = self.seccomp.write();
        self.filtered.store(chain.is_some(), Ordering::SeqCst);
        *current = chain;
    }
    /// Its signals; the thread group's state must be locked before this when both are needed.
    pub fn signals(&self) -> &Mutex<TaskSignals> {
        &self.sig
    }
    /// The mask of blocked signals.
    pub fn blocked(&self) -> SigSet {
        self.sig.lock().blocked
    }
    /// Whether the task has gone through its exit.
    pub fn has_exited(&self) -> bool {
        self.exited.load(Ordering::SeqCst)
    }
    /// Marks the time that is spent sleeping in `block_on`.
    pub(crate) fn set_sleeping(&self, on: bool) {
        self.sleeping.store(on, Ordering::Relaxed);
    }
    /// The vfork parent, if any, may go on: the memory is no longer used.
    pub fn vfork_done(&self) {
        let v = self.vfork_parent.lock().take();
        if let Some(v) = v {
            v.finish();
        }
    }
    /// The letter of /proc/pid/stat.
    pub fn state_letter(&self) -> char {
        if self.has_exited() {
            return 'Z';
        }
        if self.sig.lock().trace.as_ref().is_some_and(Trace::is_stopped) {
            return 't';
        }
        if self.look.has(Reason::Stop) {
            return 'T';
        }
        if self.sleeping.load(Ordering::Relaxed) { 'S' } else { 'R' }
    }
    /// The sender's part of a signal that this task sends to `to`.
    pub fn sender_info(&self, signal: abi::signal::Signal, code: i32, to: &ThreadGroup) -> SigInfo {
        let pid = self.group.pid().number_in(to.pid().namespace()).unwrap_or(0);
        let uid = to.leader_creds().user_ns.uid_in(self.creds().uid);
        SigInfo::user(signal, code, pid, uid)
    }
    /// Registers and floating-point state of a task that is in a ptrace stop.
    pub fn stopped_registers(&self) -> Option<Registers> {
        self.sig.lock().trace.as_ref().and_then(Trace::registers)
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Task({})", self.tid())
    }
}

struct TaskParts {
    pid: Arc<Pid>,
    group: Arc<ThreadGroup>,
    mm: Arc<Mm>,
    fs: Arc<FsContext>,
    files: Arc<FdTable>,
    creds: Arc<Creds>,
    namespaces: Arc<Namespaces>,
    blocked: SigSet,
    comm: [u8; 16],
}

impl Task {
    fn build(kernel: &Arc<Kernel>, p: TaskParts) -> Arc<Task> {
        Arc::new(Task {
            _live: Live::new(Kind::Task),
            kernel: Arc::clone(kernel),
            key: kernel.tasks.next_key(),
            tid: AtomicI32::new(p.pid.root_number()),
            pid: ArcSwap::new(p.pid),
            group: p.group,
            mm: RwLock::new(LockClass::Leaf, Some(p.mm)),
            fs: RwLock::new(LockClass::Leaf, Some(p.fs)),
            files: RwLock::new(LockClass::Leaf, Some(p.files)),
            creds: ArcSwap::new(p.creds),
            namespaces: ArcSwap::new(p.namespaces),
            waiter: Arc::new(Waiter::of_task()),
            look: LookUp::default(),
            interrupt: Mutex::new(LockClass::Leaf, None),
            sig: Mutex::new(LockClass::Task, TaskSignals::new(p.blocked)),
            comm: Mutex::new(LockClass::Leaf, p.comm),
            start_time: kernel.clocks.monotonic(),
            cpu: CpuTimes::default(),
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            restart: Mutex::new(LockClass::Leaf, RestartBlock::None),
            sched: Mutex::new(LockClass::Leaf, Sched::default()),
            attrs: Mutex::new(LockClass::Leaf, Attributes::default()),
            vfork_parent: Mutex::new(LockClass::Leaf, None),
            seccomp: RwLock::new(LockClass::Leaf, None),
            filtered: AtomicBool::new(false),
            traced: AtomicBool::new(false),
            mm_changes: AtomicU32::new(0),
            exited: AtomicBool::new(false),
            own_end: Mutex::new(LockClass::Leaf, None),
            parked: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            current_call: AtomicI32::new(-1),
            call_words: Default::default(),
        })
    }
}
