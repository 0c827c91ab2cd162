//! The end of tasks and processes (exit(2), exit_group(2), wait(2) "zombies").

use super::tree::Tree;
use super::{Members, Reason, StopState, Task, ThreadGroup};
use crate::Kernel;
use crate::wait::WaitOn;
use abi::siginfo::SigInfo;
use abi::signal::{Signal, code};
use ksync::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How a task ended, as wait(2) encodes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub i32);

impl ExitStatus {
    /// exit(2) with a code; its low byte counts.
    pub const fn exited(code: i32) -> ExitStatus {
        ExitStatus((code & 0xff) << 8)
    }
    /// Killed by a signal.
    pub const fn killed(s: Signal, core: bool) -> ExitStatus {
        ExitStatus(s.number() as i32 | if core { 0x80 } else { 0 })
    }
    /// The signal that killed it.
    pub const fn signal(self) -> Option<Signal> {
        Signal::new(self.0 & 0x7f)
    }
    /// The exit code.
    pub const fn code(self) -> u8 {
        ((self.0.cast_unsigned() >> 8) & 0xff) as u8
    }
    /// `si_code` and `si_status` of SIGCHLD.
    pub const fn child_code(self) -> (i32, i32) {
        match self.signal() {
            None => (code::CLD_EXITED, self.code() as i32),
            Some(s) if self.0 & 0x80 != 0 => (code::CLD_DUMPED, s.number() as i32),
            Some(s) => (code::CLD_KILLED, s.number() as i32),
        }
    }
}

impl ThreadGroup {
    /// Begins to end the whole process; the threads exit when they look up. The first status counts.
    pub fn begin_exit(&self, status: ExitStatus) -> ExitStatus {
        let mut state = self.state().lock();
        let first = *state.exiting.get_or_insert(status);
        state.stop = StopState::Running;
        state.stop_news = None;
        for t in &state.threads {
            if !t.has_exited() {
                t.look().clear(Reason::Stop);
                t.raise(Reason::Kill);
            }
        }
        first
    }
}

impl Task {
    /// exit_group(2), or death by a signal: the status the process ends with. The caller goes on to
    /// [`Task::exit`].
    pub fn exit_group(&self, status: ExitStatus) -> ExitStatus {
        self.group.begin_exit(status)
    }

    /// exit(2): only this thread ends, when it looks up.
    pub fn end_thread(&self, status: ExitStatus) {
        *self.own_end.lock() = Some(status);
        self.look.raise(Reason::Kill);
    }

    /// The status with which a task that is to end does so.
    pub fn final_status(&self) -> ExitStatus {
        let group = self.group.state().lock().exiting;
        group.or(*self.own_end.lock()).unwrap_or(ExitStatus::exited(0))
    }

    /// Whether it was killed, and did not itself ask to end: then no tracer is shown its exit.
    pub fn is_dying_at_once(&self) -> bool {
        let group = self.group.state().lock().exiting;
        group.is_some_and(|s| s.signal() == Some(Signal::SIGKILL)) && self.own_end.lock().is_none()
    }

    /// Ends the calling task. Must be called by its own thread with no lock held; afterwards the task
    /// must not run any more.
    pub fn exit(self: &Arc<Self>, status: ExitStatus) {
        ksync::assert_no_locks();
        let kernel = Arc::clone(&self.kernel);
        self.cpu.stop_sentry(platform::clock::monotonic());
        // An init takes everything in its namespace with it before it is gone itself.
        let last = {
            let mut state = self.group.state().lock();
            state.leaving += 1;
            state.leaving == state.live
        };
        if last
            && self.group.is_ns_init()
            && self.pid_ns().init().is_some_and(|g| Arc::ptr_eq(&g, &self.group))
        {
            self.empty_namespace();
        }
        crate::futex::exit_task(self);
        // One after the other: what is dropped may take locks of its own.
        self.settle_user_time();
        let mm = self.mm.write().take();
        let files = self.files.write().take();
        let fs = self.fs.write().take();
        self.vfork_done();
        drop((mm, files, fs));
        self.group.members().news.wake(Members::FREED);
        if last {
            let semaphores = self.namespaces().ipc.objects.get_or_init(crate::sysv::SemTable::default);
            semaphores.process_exited(self.group.key(), self.group.tgid, kernel.clocks.now().tv_sec);
        }
        self.set_interrupt(None);
        self.detach_all_tracees();

        let mut tree = kernel.tasks.lock();
        self.cpu.stop_sentry(platform::clock::monotonic());
        let used = self.usage();
        let is_leader = self.is_leader();
        let mut stop_told = None;
        let (last, exec_waiter) = {
            let mut state = self.group.state().lock();
            self.exited.store(true, Ordering::SeqCst);
            state.live -= 1;
            state.leaving -= 1;
            if is_leader {
                state.leader_status = Some(status);
            }
            if state.live == 0 {
                let end = state.exiting.or(state.leader_status).unwrap_or(status);
                state.dead = Some(end);
            } else {
                self.hand_over_signals(&state);
                stop_told = super::stop::complete_if_all_stopped(&mut state);
            }
            let exec = state.exec.and_then(|k| state.threads.iter().find(|t| t.key == k).cloned());
            if !is_leader {
                state.threads.retain(|t| !Arc::ptr_eq(t, self));
            }
            (state.live == 0, exec)
        };
        self.group.usage.lock().dead_threads.add(&used);
        kernel.tasks.users.remove_task(self.creds().uid);
        self.group.members().remove();
        if !last {
            self.death_signals(&tree);
        }
        if let Some(e) = exec_waiter {
            e.kick();
        }
        if let Some(s) = stop_told {
            tree.tell_parent(&self.group, code::CLD_STOPPED, i32::from(s.number()));
        }
        let traced = self.sig.lock().trace.is_some();
        if !is_leader {
            if traced {
                tree.trace_exited(self, status);
            } else {
                self.pid().detach_task();
            }
            self.pid().exited.wake_all(1);
        }
        if last {
            self.group.timers.stop_all(&kernel);
            tree = self.end_process(tree);
        } else if traced && is_leader {
            tree.trace_exited(self, status);
        }
        drop(tree);
    }

    /// The last thread is gone: children get a new parent, the own parent is told.
    fn end_process<'a>(&'a self, mut tree: MutexGuard<'a, Tree>) -> MutexGuard<'a, Tree> {
        let group = &self.group;
        group.keep_creds(self.creds());
        // The terminal loses its session; its foreground group is told.
        if group.is_session_leader() {
            let session = group.session();
            if let Some(tty) = session.set_tty(None) {
                drop(tree);
                let foreground = tty.foreground();
                tty.disassociate(&session);
                if let Some(fg) = foreground {
                    fg.send_signal(&SigInfo::kernel(Signal::SIGHUP));
                    fg.send_signal(&SigInfo::kernel(Signal::SIGCONT));
                }
                tree = self.kernel.tasks.lock();
            }
        }
        let heir = find_reaper(&tree, group);
        for child in tree.children(group.key()) {
            let thread = heir.as_ref().and_then(|h| h.live_thread()).map_or(0, |t| t.key());
            let mine = self.has_made(&tree, &child);
            tree.reparent(child.key(), heir.as_ref().map(|h| h.key()), thread);
            child.exit_signal.store(17, Ordering::Relaxed);
            // Whoever gets it sees the new parent.
            if mine {
                self.death_signal(&tree, &child);
            }
            if child.is_dead() && !is_traced_zombie(&child) {
                tree.notify_exit(&child);
            }
            // The move may have orphaned the child's group.
            let theirs = child.pgrp();
            if !Arc::ptr_eq(&theirs, &group.pgrp()) && Arc::ptr_eq(theirs.session(), &group.session()) {
                tree.hang_up_if_orphaned(&theirs, None);
            }
        }
        if let Some(parent) = tree.parent(group) {
            let (mine, theirs) = (group.pgrp(), parent.pgrp());
            if !Arc::ptr_eq(&mine, &theirs) && Arc::ptr_eq(mine.session(), theirs.session()) {
                tree.hang_up_if_orphaned(&mine, Some(group));
            }
        }
        group.pid().exited.wake_all(1);
        let leader_traced = group.leader().is_some_and(|l| l.signals().lock().trace.is_some());
        if leader_traced {
            if let (Some(l), Some(s)) = (group.leader(), group.exit_status()) {
                tree.trace_exited(&l, s);
            }
        } else {
            tree.notify_exit(group);
        }
        tree
    }

    /// Whether this thread made the child, or inherited it.
    fn has_made(&self, tree: &Tree, child: &ThreadGroup) -> bool {
        tree.node(child.key()).is_some_and(|n| n.parent_thread == self.key)
    }

    /// PR_SET_PDEATHSIG of the children that this thread made.
    fn death_signals(&self, tree: &Tree) {
        for child in tree.children(self.group.key()).iter().filter(|c| self.has_made(tree, c)) {
            self.death_signal(tree, child);
        }
    }

    fn death_signal(&self, tree: &Tree, child: &Arc<ThreadGroup>) {
        for t in child.threads() {
            let s = t.attrs.lock().parent_death_signal;
            if let Some(s) = Signal::new(i32::from(s)) {
                let info = self.sender_info(s, code::SI_USER, child);
                child.send_signal_in(tree, &info);
            }
        }
    }

    /// zap_pid_ns_processes: kills everything else in the namespace and waits for it to go.
    fn empty_namespace(self: &Arc<Self>) {
        let ns = self.pid_ns();
        ns.set_dead();
        for g in ns.groups() {
            if !Arc::ptr_eq(&g, &self.group) {
                g.begin_exit(ExitStatus::killed(Signal::SIGKILL, false));
            }
        }
        // Their zombies are ours (orphans come to us), and nobody will wait for them: so they are reaped here.
        let on = [WaitOn::any(&ns.emptied), WaitOn::any(&self.group.child_wait)];
        self.block_on_anyway(&on, || {
            self.reap_all_children();
            ns.groups().iter().all(|g| Arc::ptr_eq(g, &self.group))
        });
    }
}

/// Whether a zombie still belongs to a tracer that is not its parent.
fn is_traced_zombie(group: &ThreadGroup) -> bool {
    group.leader().is_some_and(|l| l.signals().lock().trace.is_some())
}

/// Who inherits the children of a process that ends: the nearest subreaper above it in the same
/// namespace, else the namespace's init.
fn find_reaper(tree: &Tree, group: &Arc<ThreadGroup>) -> Option<Arc<ThreadGroup>> {
    let ns = group.pid().namespace();
    let init = ns.init().filter(|i| !Arc::ptr_eq(i, group) && !i.is_dead());
    let mut at = tree.parent(group);
    while let Some(p) = at {
        if !Arc::ptr_eq(p.pid().namespace(), ns) || init.as_ref().is_some_and(|i| Arc::ptr_eq(i, &p)) {
            break;
        }
        if p.is_subreaper.load(Ordering::Relaxed) && !p.is_dead() {
            return Some(p);
        }
        at = tree.parent(&p);
    }
    match init {
        Some(i) => Some(i),
        None => {
            // The init of a nested namespace ends: what is left of it goes to the parent's side.
            let up = ns.parent.as_ref().and_then(|p| p.init());
            up.filter(|i| !Arc::ptr_eq(i, group) && !i.is_dead())
        }
    }
}

impl Tree {
    /// A process has ended: tells the parent, or reaps it when the parent does not want to know.
    pub(super) fn notify_exit(&mut self, group: &Arc<ThreadGroup>) {
        let Some(status) = group.exit_status() else {
            return;
        };
        let Some(parent) = self.parent(group) else {
            self.release(group);
            return;
        };
        let number = group.exit_signal.load(Ordering::Relaxed);
        let (code, value) = status.child_code();
        let mut autoreap = false;
        let mut signal = Signal::new(number);
        if signal == Some(Signal::SIGCHLD) {
            let (no_zombies, ignored) = parent.sighand().child_exit_rules();
            autoreap = no_zombies;
            if ignored {
                signal = None;
            }
        }
        if let Some(s) = signal {
            parent.send_signal_in(self, &child_info(s, code, value, group, &parent));
        }
        if autoreap {
            self.release(group);
        }
        parent.child_wait.wake_all(1);
    }

    /// A child stopped or went on: SIGCHLD (unless `SA_NOCLDSTOP`) and a wake-up for wait(2).
    pub(crate) fn tell_parent(&self, group: &ThreadGroup, code: i32, status: i32) {
        let Some(parent) = self.parent(group) else {
            return;
        };
        let action = parent.sighand().get(Signal::SIGCHLD);
        let quiet = action.handler == abi::signal::SIG_IGN
            || action.flags & abi::signal::SaFlags::NOCLDSTOP.bits() != 0;
        if !quiet {
            parent.send_signal_in(self, &child_info(Signal::SIGCHLD, code, status, group, &parent));
        }
        parent.child_wait.wake_all(1);
    }

    /// Takes a dead process out of all tables.
    pub(super) fn release(&mut self, group: &Arc<ThreadGroup>) {
        self.remove(group.key());
        group.pgrp().remove(group);
        let threads = std::mem::take(&mut group.state().lock().threads);
        let signals: Vec<_> = group.state().lock().pending.flush(abi::signal::SigSet(u64::MAX));
        if let Some(k) = group.kernel() {
            for q in signals {
                crate::signal::uncharge(&k, &q);
            }
        }
        group.pid().detach_task();
        drop(threads);
    }

    fn hang_up_if_orphaned(&self, pgrp: &Arc<super::ProcessGroup>, leaving: Option<&ThreadGroup>) {
        if !self.is_orphaned(pgrp, leaving) {
            return;
        }
        let stopped = pgrp.members().iter().any(|m| matches!(m.state().lock().stop, StopState::Stopped(_)));
        if stopped {
            for m in pgrp.members() {
                m.send_signal_in(self, &SigInfo::kernel(Signal::SIGHUP));
                m.send_signal_in(self, &SigInfo::kernel(Signal::SIGCONT));
            }
        }
    }
}

/// SIGCHLD's details as `to` sees them.
pub(super) fn child_info(
    s: Signal,
    code: i32,
    status: i32,
    child: &ThreadGroup,
    to: &ThreadGroup,
) -> SigInfo {
    let pid = child.pid().number_in(to.pid().namespace()).unwrap_or(0);
    let uid = to.leader_creds().user_ns.uid_in(child.leader_creds().uid);
    let (u, sy) = child.cpu_time();
    SigInfo::child(s, code, pid, uid, status, u / 10_000_000, sy / 10_000_000)
}

impl Kernel {
    /// Ends every process of a namespace (`runsc delete --force`, the end of a container).
    pub fn kill_namespace(&self, ns: &super::PidNamespace) {
        for g in ns.groups() {
            g.begin_exit(ExitStatus::killed(Signal::SIGKILL, false));
        }
    }
}
