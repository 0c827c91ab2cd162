//! What execve(2) does to a task beside loading the program.

use super::{Reason, Task, no_altstack};
use crate::creds::Creds;
use crate::mm::Mm;
use crate::restart::{Restart, SysError};
use abi::Errno;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The new program, loaded and ready.
pub struct NewProgram {
    pub mm: Arc<Mm>,
    pub creds: Creds,
    pub comm: Vec<u8>,
    /// Set-id or capabilities were gained: not dumpable, no parent-death signal.
    pub secure: bool,
    /// The file cannot be read by its user.
    pub unreadable: bool,
}

impl Task {
    /// Ends the other threads of the process and takes over the leader's id (`de_thread`). An error: nothing
    /// happened that matters, or this task is dying itself.
    pub fn become_only_thread(self: &Arc<Self>) -> Result<(), SysError> {
        {
            let mut state = self.group.state().lock();
            if state.exiting.is_some() || state.exec.is_some() {
                return Err(SysError::Restart(Restart::NoIntr));
            }
            if state.live > 1 {
                state.exec = Some(self.key);
                let _ = state.end_stop(false);
                for t in &state.threads {
                    if !Arc::ptr_eq(t, self) && !t.has_exited() {
                        t.raise(Reason::Kill);
                    }
                }
            }
        }
        let alone = || (self.group.state().lock().live == 1).then_some(());
        let waited = self.block_on_killable(&[], alone);
        if waited.is_err() {
            self.group.state().lock().exec = None;
            return Err(Errno::EINTR.into());
        }
        let tree = self.kernel.tasks.lock();
        if !self.is_leader() {
            let old = self.pid();
            if let Some(leader) = self.group.leader() {
                leader.pid.store(Arc::clone(&old));
                leader.tid.store(old.root_number(), Ordering::Relaxed);
            }
            self.pid.store(Arc::clone(self.group.pid()));
            self.tid.store(self.group.tgid, Ordering::Relaxed);
            self.group.pid().attach_task(self);
            old.detach_task();
        }
        let gone = {
            let mut state = self.group.state().lock();
            state.exec = None;
            state.leader_status = None;
            let all = std::mem::take(&mut state.threads);
            let (mine, gone): (Vec<_>, Vec<_>) = all.into_iter().partition(|t| Arc::ptr_eq(t, self));
            state.threads = mine;
            gone
        };
        drop(tree);
        drop(gone);
        Ok(())
    }

    /// Beyond the point of no return: the task becomes the new program. Descriptors to be closed and the
    /// seccomp and ptrace sides are the caller's.
    pub fn install_program(self: &Arc<Self>, new: NewProgram) {
        let group = &self.group;
        group.set_sighand(group.sighand().fork(true));
        group.timers.delete_posix(&self.kernel, group);
        group.exit_signal.store(17, Ordering::Relaxed);
        group.has_execed.store(true, Ordering::Relaxed);
        group.membarrier.store(0, Ordering::Relaxed);
        {
            let mut sig = self.sig.lock();
            sig.altstack = no_altstack();
        }
        crate::futex::exit_task(self);
        self.set_restart(super::RestartBlock::None);
        {
            let mut a = self.attrs.lock();
            if new.secure {
                a.parent_death_signal = 0;
                a.personality &= !PER_CLEAR_ON_SETID;
            }
        }
        group.dumpable.store(i32::from(!(new.secure || new.unreadable)), Ordering::Relaxed);
        self.kernel.tasks.users.move_task(self.creds().uid, new.creds.uid);
        self.set_creds(new.creds);
        self.set_comm(&new.comm);
        let old = self.set_mm(new.mm);
        self.vfork_done();
        drop(old);
    }
}

/// `READ_IMPLIES_EXEC | ADDR_NO_RANDOMIZE | ADDR_COMPAT_LAYOUT | MMAP_PAGE_ZERO`
const PER_CLEAR_ON_SETID: u32 = 0x0040_0000 | 0x0004_0000 | 0x0020_0000 | 0x0010_0000;
