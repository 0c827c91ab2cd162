//! Tracing by ptrace(2): the relation of tracer and tracee, and the tracee's stops.

use super::exit::{ExitStatus, child_info};
use super::tree::Tree;
use super::wait::full_usage;
use super::{Reason, Task, TaskSignals, WaitNews, WaitOptions};
use crate::creds::CapSet;
use abi::resource::wait;
use abi::siginfo::SigInfo;
use abi::signal::{Signal, code};
use bitflags::bitflags;
use platform::{FpuState, Registers};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

bitflags! {
    /// `PTRACE_O_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct TraceOptions: u32 {
        const SYSGOOD = 1;
        const FORK = 2;
        const VFORK = 4;
        const CLONE = 8;
        const EXEC = 16;
        const VFORK_DONE = 32;
        const EXIT = 64;
        const SECCOMP = 128;
        const EXITKILL = 1 << 20;
    }
}

/// `PTRACE_EVENT_*`, 0 for a signal or system call stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum StopEvent {
    Signal = 0,
    Fork = 1,
    Vfork = 2,
    Clone = 3,
    Exec = 4,
    VforkDone = 5,
    Exit = 6,
    Seccomp = 7,
    /// Group stop and PTRACE_INTERRUPT of a seized task.
    Stop = 128,
}

/// How the tracee shall go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Resume {
    #[default]
    Run,
    /// Until the next system call's entry or exit.
    Syscall,
    /// One instruction.
    Step,
    /// System calls stop at entry and are not made.
    Emulate,
    /// Stay stopped, but hear of SIGCONT (PTRACE_LISTEN).
    Listen,
}

/// What a tracee keeps of being traced.
#[derive(Debug)]
pub struct Trace {
    pub tracer: Weak<Task>,
    pub tracer_group: u64,
    pub seized: bool,
    pub options: TraceOptions,
    pub resume: Resume,
    /// In a stop: what wait(2) tells (the status' upper part).
    pub stop: Option<TraceStop>,
    /// PTRACE_INTERRUPT was called.
    pub interrupt: bool,
    pub event_message: u64,
    /// It has ended with this status, and the tracer was not yet told.
    pub exited: Option<ExitStatus>,
}

/// A stop.
#[derive(Debug)]
pub struct TraceStop {
    /// Signal and event, as wait(2) shows them above the low byte.
    pub code: i32,
    pub info: SigInfo,
    pub registers: Registers,
    pub fpu: FpuState,
    pub registers_changed: bool,
    pub fpu_changed: bool,
    /// wait(2) has not told it yet.
    pub news: bool,
    /// In a stop at the entry of a system call.
    pub at_entry: bool,
    /// What the tracer passes on; 0 for no signal.
    pub inject: i32,
    /// The tracer let it go on.
    pub resumed: bool,
}

impl Trace {
    /// By `tracer`.
    pub fn new(tracer: &Arc<Task>, seized: bool, options: TraceOptions) -> Trace {
        Trace {
            tracer: Arc::downgrade(tracer),
            tracer_group: tracer.group().key(),
            seized,
            options,
            resume: Resume::Run,
            stop: None,
            interrupt: false,
            event_message: 0,
            exited: None,
        }
    }
    /// Whether it is in a stop that the tracer can work with.
    pub fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|s| !s.resumed)
    }
    /// The registers at the stop.
    pub fn registers(&self) -> Option<Registers> {
        self.stop.as_ref().map(|s| s.registers)
    }
}

/// What the tracer made of a stop.
#[derive(Debug)]
pub struct AfterStop {
    /// The signal to be delivered, if any.
    pub inject: i32,
    pub info: SigInfo,
    pub registers: Option<Registers>,
    pub fpu: Option<FpuState>,
}

impl Task {
    /// Whether it is traced.
    pub fn is_traced(&self) -> bool {
        self.traced.load(Ordering::SeqCst)
    }

    fn forget_tracer(&self, sig: &mut TaskSignals) {
        sig.trace = None;
        self.traced.store(false, Ordering::SeqCst);
    }

    /// Whether this task may look into and control another (ptrace(2), "Ptrace access mode checking").
    pub fn may_trace(&self, other: &Task) -> bool {
        if Arc::ptr_eq(&self.group, &other.group) {
            return true;
        }
        let (me, them) = (self.creds(), other.creds());
        let capable = me.has_cap_in(&them.user_ns, CapSet::SYS_PTRACE);
        let uids = [them.uid, them.euid, them.suid].iter().all(|u| *u == me.uid);
        let gids = [them.gid, them.egid, them.sgid].iter().all(|g| *g == me.gid);
        if !(uids && gids) && !capable {
            return false;
        }
        if other.group.dumpable() != 1 && !capable {
            return false;
        }
        (Arc::ptr_eq(&me.user_ns, &them.user_ns) && me.permitted.contains(them.permitted)) || capable
    }

    /// The tracer.
    pub fn tracer(&self) -> Option<Arc<Task>> {
        self.sig.lock().trace.as_ref().and_then(|t| t.tracer.upgrade())
    }

    /// Begins tracing: the relation, in both directions.
    pub fn set_tracer(self: &Arc<Self>, tracer: &Arc<Task>, seized: bool, options: TraceOptions) -> bool {
        let mut tree = self.kernel.tasks.lock();
        let mut sig = self.sig.lock();
        if sig.trace.is_some() {
            return false;
        }
        sig.trace = Some(Trace::new(tracer, seized, options));
        self.traced.store(true, Ordering::SeqCst);
        drop(sig);
        tree.add_tracee(tracer.group().key(), self);
        true
    }

    /// Ends tracing.
    pub fn end_trace(&self, inject: i32) {
        let mut tree = self.kernel.tasks.lock();
        let gone = {
            let mut sig = self.sig.lock();
            // A task in a stop looks for its relation when it wakes; what it shall deliver goes with it.
            if let Some(t) = sig.trace.as_mut()
                && let Some(s) = t.stop.as_mut()
            {
                s.inject = inject;
                s.resumed = true;
                Some((t.tracer_group, true))
            } else {
                sig.trace.take().map(|t| (t.tracer_group, false))
            }
        };
        if let Some((key, stopped)) = gone {
            tree.remove_tracee(key, self);
            if stopped {
                self.sig.lock().trace.as_mut().into_iter().for_each(|t| t.tracer_group = 0);
            }
        }
        drop(tree);
        self.look.clear(Reason::Trap);
        self.kick();
    }

    /// The tracer ends: its tracees run free, or die with `PTRACE_O_EXITKILL`.
    pub(super) fn detach_all_tracees(&self) {
        let mine: Vec<Arc<Task>> = {
            let tree = self.kernel.tasks.lock();
            tree.tracees(self.group.key())
                .into_iter()
                .filter(|t| t.tracer().is_some_and(|x| std::ptr::eq(&*x, self)))
                .collect()
        };
        for t in mine {
            let kill =
                t.sig.lock().trace.as_ref().is_some_and(|x| x.options.contains(TraceOptions::EXITKILL));
            let ended = t.has_exited();
            t.end_trace(0);
            if kill {
                t.group().begin_exit(ExitStatus::killed(Signal::SIGKILL, false));
            }
            if ended {
                t.untraced_zombie();
            }
        }
    }

    /// A tracee that had ended is nobody's tracee any more: its parent is told, or it is released.
    fn untraced_zombie(self: &Arc<Self>) {
        let mut tree = self.kernel.tasks.lock();
        self.forget_tracer(&mut self.sig.lock());
        if self.is_leader() {
            if self.group.is_dead() {
                tree.notify_exit(&self.group);
            }
        } else {
            self.pid().detach_task();
        }
    }

    /// Stops for the tracer: registers are shown to it and may be changed. `None` when it is not traced
    /// (any more) or dies.
    pub fn trace_stop(
        self: &Arc<Self>,
        event: StopEvent,
        info: SigInfo,
        at_entry: bool,
        registers: Registers,
        fpu: FpuState,
    ) -> Option<AfterStop> {
        ksync::assert_no_locks();
        {
            let tree = self.kernel.tasks.lock();
            let group_key = {
                let mut sig = self.sig.lock();
                let trace = sig.trace.as_mut()?;
                trace.stop = Some(TraceStop {
                    code: info.signo | (event as i32) << 8,
                    info,
                    registers,
                    fpu,
                    registers_changed: false,
                    fpu_changed: false,
                    news: true,
                    at_entry,
                    inject: info.signo,
                    resumed: false,
                });
                trace.interrupt = false;
                self.look.clear(Reason::Trap);
                trace.tracer_group
            };
            if let Some(n) = tree.node(group_key) {
                let tracer = Arc::clone(&n.group);
                let quiet = tracer.sighand().get(Signal::SIGCHLD);
                if quiet.handler != abi::signal::SIG_IGN
                    && quiet.flags & abi::signal::SaFlags::NOCLDSTOP.bits() == 0
                {
                    let mut i =
                        child_info(Signal::SIGCHLD, code::CLD_TRAPPED, info.signo, &self.group, &tracer);
                    i.set_sender(self.tid_in(tracer.pid().namespace()), i.uid());
                    tracer.send_signal_in(&tree, &i);
                }
                tracer.child_wait.wake_all(1);
            }
        }
        // A task on its own way out still shows its exit; one that is killed does not stay.
        let ending = self.look.has(Reason::Kill);
        let waits = |t: &Task| {
            !(if ending { t.is_dying_at_once() } else { t.look.has(Reason::Kill) })
                && t.sig.lock().trace.as_ref().is_some_and(|x| x.stop.as_ref().is_some_and(|s| !s.resumed))
        };
        self.sleep_while(waits);
        let mut sig = self.sig.lock();
        let trace = sig.trace.as_mut()?;
        let stop = trace.stop.take()?;
        let detached = trace.tracer_group == 0;
        if detached {
            self.forget_tracer(&mut sig);
        }
        Some(AfterStop {
            inject: stop.inject,
            info: stop.info,
            registers: stop.registers_changed.then_some(stop.registers),
            fpu: stop.fpu_changed.then_some(stop.fpu),
        })
    }

    pub(super) fn tracee_news(
        &self,
        tree: &mut Tree,
        t: &Arc<Task>,
        options: WaitOptions,
    ) -> Option<WaitNews> {
        let keep = options.0 & wait::WNOWAIT != 0;
        let ns = self.pid_ns();
        let base = |code: i32, status: i32, wstatus: i32| WaitNews {
            pid: t.tid_in(&ns),
            uid: self.creds().user_ns.uid_in(t.creds().uid),
            code,
            status,
            wstatus,
            usage: full_usage(t.group()),
        };
        let mut sig = t.sig.lock();
        let trace = sig.trace.as_mut()?;
        if let Some(end) = trace.exited {
            if options.0 & wait::WEXITED == 0 {
                return None;
            }
            // A leader's end is told when the whole process has ended.
            drop(sig);
            if t.is_leader() && !t.group.is_dead() {
                return None;
            }
            let (c, st) = end.child_code();
            let news = base(c, st, end.0);
            if !keep {
                tree.remove_tracee(self.group.key(), t);
                t.forget_tracer(&mut t.sig.lock());
                if t.is_leader() {
                    let parent = tree.parent(t.group()).map(|p| p.key());
                    if parent == Some(self.group.key()) {
                        self.group.usage.lock().children.add(&news.usage);
                        tree.release(t.group());
                    } else {
                        tree.notify_exit(t.group());
                    }
                } else {
                    t.pid().detach_task();
                }
            }
            return Some(news);
        }
        let stop = trace.stop.as_mut().filter(|s| s.news && !s.resumed)?;
        if !keep {
            stop.news = false;
        }
        let stop_code = stop.code;
        drop(sig);
        Some(base(code::CLD_TRAPPED, stop_code, stop_code << 8 | 0x7f))
    }
}

impl Tree {
    /// A tracee has ended: its tracer is told.
    pub(super) fn trace_exited(&mut self, t: &Arc<Task>, status: ExitStatus) {
        let key = {
            let mut sig = t.sig.lock();
            let Some(trace) = sig.trace.as_mut() else {
                return;
            };
            trace.exited = Some(status);
            trace.stop = None;
            trace.tracer_group
        };
        if let Some(n) = self.node(key) {
            let tracer = Arc::clone(&n.group);
            let (c, st) = status.child_code();
            if t.is_leader() {
                tracer.send_signal_in(self, &child_info(Signal::SIGCHLD, c, st, t.group(), &tracer));
            }
            tracer.child_wait.wake_all(1);
        }
    }
}
