//! Who may send signals to whom (kill(2)), and the ways to name the receivers.

use super::send::How;
use crate::creds::CapSet;
use crate::task::{Pid, Task, ThreadGroup};
use abi::siginfo::SigInfo;
use abi::signal::{Signal, code};
use abi::{Errno, Result};
use std::sync::Arc;

/// What is sent: kill's own information, or that of rt_sigqueueinfo(2).
#[derive(Clone, Copy, Debug)]
pub enum Sender {
    /// `SI_USER` or `SI_TKILL`, with the sender filled in for each receiver.
    Kill(i32),
    /// As the guest gave it.
    Given(SigInfo),
}

impl Task {
    /// Whether this task may send the signal to the process: the same user, `CAP_KILL`, or SIGCONT
    /// within the session. 0 is checked as any other.
    pub fn may_signal(&self, to: &ThreadGroup, signal: i32) -> Result<()> {
        if Arc::ptr_eq(self.group().pid(), to.pid()) {
            return Ok(());
        }
        let (me, them) = (self.creds(), to.leader_creds());
        let same = [me.euid, me.uid].iter().any(|u| *u == them.suid || *u == them.uid);
        if same || me.has_cap_in(&them.user_ns, CapSet::KILL) {
            return Ok(());
        }
        let cont = i32::from(Signal::SIGCONT.number());
        if signal == cont && Arc::ptr_eq(&self.group().session(), &to.session()) {
            return Ok(());
        }
        Err(Errno::EPERM)
    }

    fn signal_to(&self, to: &ThreadGroup, thread: Option<&Task>, signal: i32, what: Sender) -> Result<()> {
        self.may_signal(to, signal)?;
        let Some(s) = Signal::new(signal) else {
            return Ok(());
        };
        let info = match what {
            Sender::Kill(c) => self.sender_info(s, c, to),
            Sender::Given(i) => i,
        };
        // From an ancestor namespace even an init can be killed.
        let outside = self.group().pid().number_in(to.pid().namespace()).is_none();
        to.send(thread, &info, How { force: outside, timer: None })
    }

    /// kill(2); the signal's number is checked.
    pub fn kill(&self, pid: i32, signal: i32) -> Result<()> {
        let ns = self.pid_ns();
        let what = Sender::Kill(code::SI_USER);
        match pid {
            1.. => {
                // Any thread's id will do, as in Linux.
                let task = ns.task(pid).ok_or(Errno::ESRCH)?;
                self.signal_to(task.group(), None, signal, what)
            }
            i32::MIN => Err(Errno::ESRCH),
            -1 => {
                let mut result = Err(Errno::ESRCH);
                for g in ns.groups() {
                    let is_init = g.pid().number_in(&ns) == Some(1);
                    if is_init || Arc::ptr_eq(g.pid(), self.group().pid()) {
                        continue;
                    }
                    // EPERM for some is no error as long as one could be sent to.
                    match self.signal_to(&g, None, signal, what) {
                        Ok(()) => result = Ok(()),
                        Err(Errno::EPERM) if result.is_ok() => {}
                        Err(e) if result.is_err() => result = Err(e),
                        Err(_) => {}
                    }
                }
                // Linux answers 0 when the only ones left refused.
                if result == Err(Errno::EPERM) { Ok(()) } else { result }
            }
            _ => {
                let group = if pid == 0 {
                    self.group().pgrp()
                } else {
                    ns.find(-pid).and_then(|p| p.process_group()).ok_or(Errno::ESRCH)?
                };
                let (mut result, mut sent) = (Err(Errno::ESRCH), false);
                for g in group.members() {
                    match self.signal_to(&g, None, signal, what) {
                        Ok(()) => sent = true,
                        Err(e) => result = Err(e),
                    }
                }
                if sent { Ok(()) } else { result }
            }
        }
    }

    /// tgkill(2), and tkill(2) with `tgid` `None`.
    pub fn kill_thread(&self, tgid: Option<i32>, tid: i32, signal: i32, what: Sender) -> Result<()> {
        let ns = self.pid_ns();
        let task = ns.task(tid).ok_or(Errno::ESRCH)?;
        if tgid.is_some_and(|t| task.group().pid().number_in(&ns) != Some(t)) {
            return Err(Errno::ESRCH);
        }
        let group = Arc::clone(task.group());
        self.signal_to(&group, Some(&task), signal, what)
    }

    /// rt_sigqueueinfo(2), pidfd_send_signal(2).
    pub fn queue_signal_to(&self, pid: &Pid, signal: i32, what: Sender) -> Result<()> {
        let task = pid.task().ok_or(Errno::ESRCH)?;
        let group = Arc::clone(task.group());
        self.signal_to(&group, None, signal, what)
    }
}
