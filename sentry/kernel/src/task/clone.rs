//! The birth of tasks (clone(2)): which objects are shared, where the task goes in the tree.

use super::group::GroupParts;
use super::{
    Attributes, Members, Namespaces, Pid, PidNamespace, ProcessGroup, Reason, Session, Task, TaskParts,
    ThreadGroup, VforkDone,
};
use crate::Kernel;
use crate::creds::{CapSet, Creds};
use crate::mm::Mm;
use crate::restart::{Restart, SysError};
use crate::signal::SigHand;
use crate::vfs::{FdTable, FsContext};
use crate::wait::WaitOn;
use abi::resource::{Resource, Rlimit};
use abi::sched::CloneFlags;
use abi::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What clone(2) asks for; memory and tables are made or shared by the caller.
pub struct CloneArgs {
    pub flags: CloneFlags,
    /// 0 for none.
    pub exit_signal: u8,
    /// Wanted ids, the innermost namespace first.
    pub set_tid: Vec<i32>,
    pub child_tid: u64,
    pub mm: Arc<Mm>,
    pub fs: Arc<FsContext>,
    pub files: Arc<FdTable>,
    /// The child's, when a namespace flag makes them differ.
    pub creds: Arc<Creds>,
    pub namespaces: Arc<Namespaces>,
}

/// The first process of a container, or one that the runtime starts in it.
pub struct InitArgs {
    pub pid_ns: Arc<PidNamespace>,
    pub mm: Arc<Mm>,
    pub fs: Arc<FsContext>,
    pub files: Arc<FdTable>,
    pub creds: Arc<Creds>,
    pub namespaces: Arc<Namespaces>,
    /// `None`: the defaults.
    pub limits: Option<[Rlimit; 16]>,
    pub comm: Vec<u8>,
    /// The container it is in.
    pub members: Arc<Members>,
}

/// The combinations of flags that clone(2) refuses with EINVAL.
pub fn check_flags(flags: CloneFlags) -> Result<()> {
    let has = |f| flags.contains(f);
    let bad = (has(CloneFlags::NEWNS) && has(CloneFlags::FS))
        || (has(CloneFlags::NEWUSER) && has(CloneFlags::FS))
        || (has(CloneFlags::THREAD) && !has(CloneFlags::SIGHAND))
        || (has(CloneFlags::SIGHAND) && !has(CloneFlags::VM))
        || (has(CloneFlags::SIGHAND) && has(CloneFlags::CLEAR_SIGHAND))
        || (has(CloneFlags::NEWIPC) && has(CloneFlags::SYSVSEM))
        || (has(CloneFlags::THREAD) && flags.intersects(CloneFlags::NEWUSER | CloneFlags::NEWPID));
    if bad { Err(Errno::EINVAL) } else { Ok(()) }
}

impl Task {
    /// Makes a new task. It does not run before the caller gives it registers and a host thread.
    pub fn clone_task(self: &Arc<Self>, args: CloneArgs) -> Result<Arc<Task>, SysError> {
        let flags = args.flags;
        check_flags(flags)?;
        let thread = flags.contains(CloneFlags::THREAD);
        if flags.contains(CloneFlags::PARENT) && self.group.is_ns_init() {
            return Err(Errno::EINVAL.into());
        }
        let pid_ns = Arc::clone(&args.namespaces.pid_for_children);
        if thread && !Arc::ptr_eq(&pid_ns, &self.pid_ns()) {
            return Err(Errno::EINVAL.into());
        }
        // A signal to the whole process group must not miss the child: it is dealt with first.
        if self.look.has(Reason::Signal) || self.look.has(Reason::Kill) {
            return Err(SysError::Restart(Restart::NoIntr));
        }
        let uid = args.creds.uid;
        let limit = self.group.soft_limit(Resource::Nproc);
        if self.kernel.tasks.users.tasks(uid) >= limit
            && uid != 0
            && !args.creds.has_cap(CapSet::SYS_RESOURCE)
            && !args.creds.has_cap(CapSet::SYS_ADMIN)
        {
            return Err(Errno::EAGAIN.into());
        }

        let charge = self.group.members().charge()?;
        let mut tree = self.kernel.tasks.lock();
        let pid = Pid::allocate(&pid_ns, &args.set_tid, &tree)?;
        let group = if thread {
            Arc::clone(&self.group)
        } else {
            let sighand = if flags.contains(CloneFlags::SIGHAND) {
                self.group.sighand()
            } else {
                self.group.sighand().fork(flags.contains(CloneFlags::CLEAR_SIGHAND))
            };
            let exit_signal = if flags.contains(CloneFlags::PARENT) {
                self.group.exit_signal.load(Ordering::Relaxed)
            } else {
                i32::from(args.exit_signal)
            };
            let g = ThreadGroup::build(
                &self.kernel,
                GroupParts {
                    pid: Arc::clone(&pid),
                    sighand,
                    pgrp: self.group.pgrp(),
                    limits: self.group.limits(),
                    exit_signal,
                    creds: Arc::clone(&args.creds),
                    members: Arc::clone(self.group.members()),
                },
            );
            g.oom_score_adj.store(self.group.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
            g.inherit(&self.group);
            g.dumpable.store(self.group.dumpable(), Ordering::Relaxed);
            g
        };
        let mut comm = [0; 16];
        let name = self.comm();
        comm[..name.len()].copy_from_slice(&name);
        let child = Task::build(
            &self.kernel,
            TaskParts {
                pid: Arc::clone(&pid),
                group: Arc::clone(&group),
                mm: args.mm,
                fs: args.fs,
                files: args.files,
                creds: args.creds,
                namespaces: args.namespaces,
                blocked: self.blocked(),
                comm,
            },
        );
        self.inherit(&child, flags);
        if flags.contains(CloneFlags::CHILD_CLEARTID) {
            child.clear_child_tid.store(args.child_tid, Ordering::Relaxed);
        }
        {
            let mut state = group.state().lock();
            if thread && (state.exiting.is_some() || state.exec.is_some()) {
                drop(state);
                pid.free_if_unused();
                return Err(SysError::Restart(Restart::NoIntr));
            }
            state.threads.push(Arc::clone(&child));
            state.live += 1;
            if thread && !matches!(state.stop, super::StopState::Running) {
                child.look.raise(Reason::Stop);
            }
        }
        if self.look.has(Reason::Freeze) {
            child.look.raise(Reason::Freeze);
        }
        charge.keep();
        pid.attach_task(&child);
        self.kernel.tasks.users.add_task(uid);
        self.kernel.tasks.forks.fetch_add(1, Ordering::Relaxed);
        if !thread {
            pid.attach_group(&group);
            let (parent, parent_thread) = if flags.contains(CloneFlags::PARENT) {
                tree.node(self.group.key()).map_or((None, 0), |n| (n.parent, n.parent_thread))
            } else {
                (Some(self.group.key()), self.key)
            };
            tree.insert(&group, parent, parent_thread);
            self.group.pgrp().add(&group);
            if pid.number() == 1 {
                pid_ns.set_init(&group);
            }
        }
        drop(tree);
        Ok(child)
    }

    fn inherit(&self, child: &Task, flags: CloneFlags) {
        let sched = self.sched.lock().fork();
        *child.sched.lock() = sched;
        let mine = self.attrs.lock().clone();
        *child.attrs.lock() =
            Attributes { parent_death_signal: 0, default_timer_slack: mine.timer_slack, ..mine };
        child.set_seccomp(self.seccomp());
        // The alternate stack stays unless memory is shared without vfork (sigaltstack(2)).
        if !flags.contains(CloneFlags::VM) || flags.contains(CloneFlags::VFORK) {
            let stack = self.sig.lock().altstack;
            child.sig.lock().altstack = stack;
        }
        if flags.contains(CloneFlags::VFORK) {
            *child.vfork_parent.lock() = Some(Arc::new(VforkDone::default()));
        }
    }

    /// Sleeps until `child` of a vfork has called execve or ended. Only death ends this earlier.
    pub fn wait_vfork(&self, child: &Task) {
        let done = child.vfork_parent.lock().clone();
        if let Some(done) = done {
            let on = [WaitOn::any(&done.queue)];
            let _ = self.block_on_killable(&on, || done.done.load(Ordering::SeqCst).then_some(()));
        }
    }

    /// Makes the first task of a process that has no parent in the sandbox: a container's init, or a
    /// process that the runtime starts in a container. It leads a session of its own.
    pub fn new_process(kernel: &Arc<Kernel>, args: InitArgs) -> Result<Arc<Task>> {
        let mut tree = kernel.tasks.lock();
        let pid = Pid::allocate(&args.pid_ns, &[], &tree)?;
        // The session wants its leader and the leader its group: the leader is linked afterwards.
        let sighand = SigHand::new();
        let mut comm = [0; 16];
        let n = args.comm.len().min(15);
        comm[..n].copy_from_slice(&args.comm[..n]);
        let group = {
            let pid2 = Arc::clone(&pid);
            let limits = args.limits.unwrap_or_else(ThreadGroup::default_limits);
            let creds = Arc::clone(&args.creds);
            let placeholder = ProcessGroup::orphan(&pid2);
            let members = args.members;
            members.add();
            ThreadGroup::build(
                kernel,
                GroupParts { pid: pid2, sighand, pgrp: placeholder, limits, exit_signal: 17, creds, members },
            )
        };
        let session = Session::new(&pid, &group);
        let pgrp = ProcessGroup::new(&pid, &session);
        pgrp.add(&group);
        group.set_pgrp(pgrp);
        let uid = args.creds.uid;
        let task = Task::build(
            kernel,
            TaskParts {
                pid: Arc::clone(&pid),
                group: Arc::clone(&group),
                mm: args.mm,
                fs: args.fs,
                files: args.files,
                creds: args.creds,
                namespaces: args.namespaces,
                blocked: abi::signal::SigSet::EMPTY,
                comm,
            },
        );
        {
            let mut state = group.state().lock();
            state.threads.push(Arc::clone(&task));
            state.live = 1;
        }
        pid.attach_task(&task);
        pid.attach_group(&group);
        kernel.tasks.users.add_task(uid);
        tree.insert(&group, None, 0);
        if pid.number() == 1 {
            args.pid_ns.set_init(&group);
        }
        drop(tree);
        Ok(task)
    }
}
