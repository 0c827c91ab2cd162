//! pidfds: a process, or a thread, as a file (pidfd_open(2)).

use abi::poll::PollEvents;
use kernel::task::Pid;
use kernel::vfs::{Caller, File, FileOps};
use ksync::WaitQueue;
use std::sync::Arc;

/// What a pidfd refers to. The number may be gone; the `Pid` stays.
pub struct PidFd {
    pid: Arc<Pid>,
    thread: bool,
}

impl PidFd {
    /// For a process, or for one thread.
    pub fn new(pid: Arc<Pid>, thread: bool) -> Arc<PidFd> {
        Arc::new(PidFd { pid, thread })
    }
    /// What it refers to.
    pub fn pid(&self) -> &Arc<Pid> {
        &self.pid
    }
    /// Whether it is for one thread (`PIDFD_THREAD`).
    pub fn is_thread(&self) -> bool {
        self.thread
    }
}

impl FileOps for PidFd {
    fn seekable(&self) -> bool {
        false
    }
    fn poll(&self, _cx: &Caller<'_>, _f: &File) -> PollEvents {
        let ready = PollEvents::IN | PollEvents::RDNORM;
        match self.pid.task() {
            None => ready | PollEvents::HUP,
            Some(t) if self.thread && t.has_exited() => ready,
            Some(t) if !self.thread && t.group().is_dead() => ready,
            Some(_) => PollEvents::empty(),
        }
    }
    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        Some(Arc::clone(&self.pid.exited))
    }
    fn fdinfo(&self, _f: &File) -> String {
        let numbers: Vec<String> =
            self.pid.numbers_from(self.pid.namespace()).iter().map(ToString::to_string).collect();
        let shown = if self.pid.task().is_some() { self.pid.number() } else { -1 };
        format!("Pid:\t{shown}\nNSpid:\t{}\n", numbers.join("\t"))
    }
}
