//! Job control: who may read from and write to the terminal, and whose controlling terminal it is
//! (credentials(7), tcsetpgrp(3), ioctl_tty(2)).

use super::Tty;
use abi::siginfo::SigInfo;
use abi::signal::{SIG_IGN, Signal};
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::restart::Restart;
use kernel::task::{ControllingTty, Task};
use kernel::{SysError, SysResult};
use std::sync::Arc;

/// What a process in the background that uses the terminal gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// It is not in the background, or may go on all the same.
    Allowed,
    /// Nobody could bring it to the foreground.
    Orphaned,
    /// Its process group was sent the signal; the call is made again when it goes on.
    Stopped,
}

impl Tty {
    /// Whether this is the controlling terminal of the task.
    fn is_own(&self, task: &Task) -> bool {
        let tty = task.group().tty();
        tty.is_some_and(|t| std::ptr::addr_eq(Arc::as_ptr(&t), std::ptr::from_ref(self)))
    }

    /// `__tty_check_change` with the signal of a read or of a write.
    pub(super) fn background(&self, task: &Task, signal: Signal) -> Background {
        if !self.is_own(task) {
            return Background::Allowed;
        }
        let own = task.group().pgrp();
        let Some(foreground) = self.foreground() else { return Background::Allowed };
        if Arc::ptr_eq(&own, &foreground) {
            return Background::Allowed;
        }
        let ignored = task.group().sighand().get(signal).handler == SIG_IGN;
        if ignored || task.blocked().contains(signal) {
            return if signal == Signal::SIGTTIN { Background::Orphaned } else { Background::Allowed };
        }
        if task.group().in_orphaned_pgrp() {
            return Background::Orphaned;
        }
        own.send_signal(&SigInfo::kernel(signal));
        Background::Stopped
    }

    /// Before a change of the terminal's settings (`tty_check_change`).
    pub(super) fn check_change(&self, task: &Task) -> Result<(), SysError> {
        match self.background(task, Signal::SIGTTOU) {
            Background::Allowed => Ok(()),
            Background::Orphaned => Err(Errno::EIO.into()),
            Background::Stopped => Err(Restart::Sys.into()),
        }
    }

    fn take(&self, task: &Task) {
        let group = task.group();
        let (session, pgrp) = (group.session(), group.pgrp());
        let Some(me) = self.me.upgrade() else { return };
        {
            let mut s = self.jobs.lock();
            s.session = Arc::downgrade(&session);
            s.foreground = Some((Arc::downgrade(&pgrp), Arc::clone(pgrp.pid())));
        }
        drop(session.set_tty(Some(me as Arc<dyn ControllingTty>)));
    }

    /// A session leader without a terminal opened this one, which has no session (`tty_open_proc_set_tty`).
    pub fn opened_by(&self, task: &Task) {
        let group = task.group();
        if group.is_session_leader() && group.tty().is_none() && self.jobs.lock().session.upgrade().is_none()
        {
            self.take(task);
        }
    }

    /// `TIOCSCTTY`
    pub(super) fn set_controlling(&self, task: &Task, steal: bool) -> SysResult {
        let group = task.group();
        let session = group.session();
        let current = self.jobs.lock().session.upgrade();
        let leader = group.is_session_leader();
        if leader && current.as_ref().is_some_and(|s| Arc::ptr_eq(s, &session)) {
            return Ok(0);
        }
        if !leader || group.tty().is_some() {
            return Err(Errno::EPERM.into());
        }
        if let Some(other) = current {
            if !steal || !task.creds().has_cap(CapSet::SYS_ADMIN) {
                return Err(Errno::EPERM.into());
            }
            drop(other.set_tty(None));
        }
        self.take(task);
        Ok(0)
    }

    /// `TIOCNOTTY`
    pub(super) fn give_up(&self, task: &Task) -> SysResult {
        if !self.is_own(task) {
            return Err(Errno::ENOTTY.into());
        }
        if !task.group().is_session_leader() {
            // It leaves alone, and so do children that it has from now on.
            task.group().leave_tty();
            return Ok(0);
        }
        let session = task.group().session();
        let foreground = self.foreground();
        drop(session.set_tty(None));
        self.disassociate(&session);
        if let Some(g) = foreground {
            g.send_signal(&SigInfo::kernel(Signal::SIGHUP));
            g.send_signal(&SigInfo::kernel(Signal::SIGCONT));
        }
        Ok(0)
    }

    /// `TIOCGPGRP`
    pub(super) fn foreground_number(&self, task: &Task, from_master: bool) -> Result<i32, SysError> {
        if !from_master && !self.is_own(task) {
            return Err(Errno::ENOTTY.into());
        }
        let pid = self.jobs.lock().foreground.as_ref().map(|(_, p)| Arc::clone(p));
        Ok(pid.and_then(|p| p.number_in(&task.pid_ns())).unwrap_or(0))
    }

    /// `TIOCSPGRP`
    pub(super) fn set_foreground(&self, task: &Task, nr: i32) -> SysResult {
        match self.check_change(task) {
            Err(SysError::Errno(Errno::EIO)) => return Err(Errno::ENOTTY.into()),
            other => other?,
        }
        let session = task.group().session();
        let ours = self.jobs.lock().session.upgrade().is_some_and(|s| Arc::ptr_eq(&s, &session));
        if !self.is_own(task) || !ours {
            return Err(Errno::ENOTTY.into());
        }
        if nr < 0 {
            return Err(Errno::EINVAL.into());
        }
        let pid = task.pid_ns().find(nr).ok_or(Errno::ESRCH)?;
        let group = pid.process_group().ok_or(Errno::EPERM)?;
        if !Arc::ptr_eq(group.session(), &session) {
            return Err(Errno::EPERM.into());
        }
        self.jobs.lock().foreground = Some((Arc::downgrade(&group), pid));
        Ok(0)
    }

    /// `TIOCGSID`
    pub(super) fn session_number(&self, task: &Task, from_master: bool) -> Result<i32, SysError> {
        if !from_master && !self.is_own(task) {
            return Err(Errno::ENOTTY.into());
        }
        let session = self.jobs.lock().session.upgrade().ok_or(Errno::ENOTTY)?;
        Ok(session.pid().number_in(&task.pid_ns()).unwrap_or(0))
    }
}
