//! Process groups, sessions and their controlling terminal (credentials(7), setsid(2)).

use super::{Pid, ThreadGroup};
use abi::siginfo::SigInfo;
use ksync::live::{Kind, Live};
use ksync::{LockClass, Mutex};
use std::any::Any;
use std::sync::{Arc, Weak};

/// What a session needs of its terminal.
pub trait ControllingTty: Any + Send + Sync {
    /// `st_rdev` of the terminal (`tty_nr` of /proc/pid/stat).
    fn rdev(&self) -> u64;
    /// The name below /dev, e.g. `pts/0`.
    fn name(&self) -> String;
    /// The window has a new size: rows and columns.
    fn resize(&self, rows: u16, columns: u16);
    /// The foreground process group.
    fn foreground(&self) -> Option<Arc<ProcessGroup>>;
    /// The session's leader ended, or gave the terminal up: forget session and foreground group. The
    /// signals to the foreground group are sent by the caller.
    fn disassociate(&self, session: &Arc<Session>);
}

/// A session.
pub struct Session {
    pid: Arc<Pid>,
    tty: Mutex<Option<Arc<dyn ControllingTty>>>,
    leader: Weak<ThreadGroup>,
    /// For the test that nothing is leaked.
    _live: Live,
}

impl Session {
    pub(super) fn new(pid: &Arc<Pid>, leader: &Arc<ThreadGroup>) -> Arc<Session> {
        let s = Arc::new(Session {
            _live: Live::new(Kind::Session),
            pid: Arc::clone(pid),
            tty: Mutex::new(LockClass::Leaf, None),
            leader: Arc::downgrade(leader),
        });
        pid.attach_session(&s);
        s
    }
    /// Its id.
    pub fn pid(&self) -> &Arc<Pid> {
        &self.pid
    }
    /// The process that made it, as long as that exists.
    pub fn leader(&self) -> Option<Arc<ThreadGroup>> {
        self.leader.upgrade()
    }
    /// The controlling terminal.
    pub fn tty(&self) -> Option<Arc<dyn ControllingTty>> {
        self.tty.lock().clone()
    }
    /// Sets or clears the controlling terminal; the old one.
    pub fn set_tty(&self, tty: Option<Arc<dyn ControllingTty>>) -> Option<Arc<dyn ControllingTty>> {
        std::mem::replace(&mut *self.tty.lock(), tty)
    }
    /// Sets the controlling terminal if there is none; whether it did.
    pub fn set_tty_if_none(&self, tty: &Arc<dyn ControllingTty>) -> bool {
        let mut slot = self.tty.lock();
        let free = slot.is_none();
        if free {
            *slot = Some(Arc::clone(tty));
        }
        free
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.pid.detach_session(self);
    }
}

/// A process group.
pub struct ProcessGroup {
    pid: Arc<Pid>,
    session: Arc<Session>,
    members: Mutex<Vec<Weak<ThreadGroup>>>,
    /// For the test that nothing is leaked.
    _live: Live,
}

impl ProcessGroup {
    pub(super) fn new(pid: &Arc<Pid>, session: &Arc<Session>) -> Arc<ProcessGroup> {
        let g = Arc::new(ProcessGroup {
            _live: Live::new(Kind::ProcessGroup),
            pid: Arc::clone(pid),
            session: Arc::clone(session),
            members: Mutex::new(LockClass::Leaf, Vec::new()),
        });
        pid.attach_pgrp(&g);
        g
    }
    /// A group and session that are in no table, for a process that is about to get its own.
    pub(super) fn orphan(pid: &Arc<Pid>) -> Arc<ProcessGroup> {
        let session = Arc::new(Session {
            _live: Live::new(Kind::Session),
            pid: Arc::clone(pid),
            tty: Mutex::new(LockClass::Leaf, None),
            leader: Weak::new(),
        });
        Arc::new(ProcessGroup {
            _live: Live::new(Kind::ProcessGroup),
            pid: Arc::clone(pid),
            session,
            members: Mutex::new(LockClass::Leaf, Vec::new()),
        })
    }
    /// Its id.
    pub fn pid(&self) -> &Arc<Pid> {
        &self.pid
    }
    /// Its session.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
    /// The processes in it.
    pub fn members(&self) -> Vec<Arc<ThreadGroup>> {
        self.members.lock().iter().filter_map(Weak::upgrade).collect()
    }
    pub(super) fn add(&self, g: &Arc<ThreadGroup>) {
        self.members.lock().push(Arc::downgrade(g));
    }
    pub(super) fn remove(&self, g: &Arc<ThreadGroup>) {
        let empty = {
            let mut members = self.members.lock();
            members.retain(|m| !std::ptr::eq(m.as_ptr(), Arc::as_ptr(g)));
            members.is_empty()
        };
        if empty {
            // Whoever still has the group (a terminal) does not keep its number in use.
            self.pid.detach_pgrp(self);
        }
    }
    /// Sends a signal of the kernel to every member (`kill_pgrp`).
    pub fn send_signal(&self, info: &SigInfo) {
        for m in self.members() {
            m.send_signal(info);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.pid.detach_pgrp(self);
    }
}

impl std::fmt::Debug for ProcessGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProcessGroup({})", self.pid.root_number())
    }
}
