//! wait4(2) and waitid(2).

use super::exit::ExitStatus;
use super::tree::Tree;
use super::usage::Sums;
use super::{Pid, ProcessGroup, Task, ThreadGroup};
use crate::restart::{Restart, SysError};
use crate::wait::{Blocked, WaitOn};
use abi::Errno;
use abi::resource::wait;
use abi::signal::{Signal, code};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Whom to wait for.
#[derive(Clone)]
pub enum WaitFor {
    All,
    Pid(Arc<Pid>),
    /// `None`: a number that no group has, so that nobody can match.
    Group(Option<Arc<ProcessGroup>>),
    /// A number nobody has.
    Nobody,
}

/// `W*` bits, checked by the caller.
#[derive(Clone, Copy, Debug)]
pub struct WaitOptions(pub u32);

impl WaitOptions {
    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }
}

/// What wait found.
#[derive(Clone, Copy, Debug)]
pub struct WaitNews {
    /// The child as the caller sees it.
    pub pid: i32,
    pub uid: u32,
    /// `CLD_*`
    pub code: i32,
    /// Exit code or signal (`si_status`).
    pub status: i32,
    /// As wait4 encodes it.
    pub wstatus: i32,
    pub usage: Sums,
}

enum Look {
    /// No child matches.
    None,
    /// Some match, none has news.
    Waiting,
    Found(WaitNews),
}

impl Task {
    /// Waits for news of a child or tracee. `None` with WNOHANG when there is none yet.
    pub fn wait_for(
        self: &Arc<Self>,
        who: &WaitFor,
        options: WaitOptions,
    ) -> Result<Option<WaitNews>, SysError> {
        let on = [WaitOn::any(&self.group.child_wait)];
        let mut once = || match self.look_at_children(who, options) {
            Look::None => Some(Err(Errno::ECHILD)),
            Look::Found(n) => Some(Ok(Some(n))),
            Look::Waiting if options.has(wait::WNOHANG) => Some(Ok(None)),
            Look::Waiting => None,
        };
        match self.block_on(&on, None, &mut once) {
            Ok(r) => Ok(r?),
            Err(Blocked::Interrupted | Blocked::TimedOut) => Err(SysError::Restart(Restart::Sys)),
        }
    }

    fn look_at_children(&self, who: &WaitFor, options: WaitOptions) -> Look {
        let mut tree = self.kernel.tasks.lock();
        let mut any = false;
        for child in tree.children(self.group.key()) {
            let node_thread = tree.node(child.key()).map_or(0, |n| n.parent_thread);
            if !matches(who, child.pid(), &child) || !right_kind(&child, options) {
                continue;
            }
            if options.has(wait::WNOTHREAD) && node_thread != self.key {
                continue;
            }
            any = true;
            // While someone else traces it, its end is the tracer's news first.
            if let Some(news) = self.child_news(&mut tree, &child, options) {
                return Look::Found(news);
            }
        }
        for t in tree.tracees(self.group.key()) {
            let group = Arc::clone(t.group());
            let pid = t.pid();
            let hit = match who {
                WaitFor::All => true,
                WaitFor::Pid(p) => Arc::ptr_eq(p, &pid),
                WaitFor::Group(g) => g.as_ref().is_some_and(|g| Arc::ptr_eq(g, &group.pgrp())),
                WaitFor::Nobody => false,
            };
            if !hit {
                continue;
            }
            any = true;
            if let Some(news) = self.tracee_news(&mut tree, &t, options) {
                return Look::Found(news);
            }
        }
        if any { Look::Waiting } else { Look::None }
    }

    fn child_news(
        &self,
        tree: &mut Tree,
        child: &Arc<ThreadGroup>,
        options: WaitOptions,
    ) -> Option<WaitNews> {
        let traced = child.leader().is_some_and(|l| l.signals().lock().trace.is_some());
        let (dead, stopped, continued) = {
            let s = child.state().lock();
            (s.dead, s.stop_news, s.continued_news)
        };
        let base = |code: i32, status: i32, wstatus: i32| WaitNews {
            pid: child.pid().number_in(&self.pid_ns()).unwrap_or(0),
            uid: self.creds().user_ns.uid_in(child.leader_creds().uid),
            code,
            status,
            wstatus,
            usage: full_usage(child),
        };
        if let Some(ExitStatus(raw)) = dead {
            if !options.has(wait::WEXITED) || traced {
                return None;
            }
            let (c, st) = ExitStatus(raw).child_code();
            let news = base(c, st, raw);
            if !options.has(wait::WNOWAIT) {
                self.collect(tree, child);
            }
            return Some(news);
        }
        if traced {
            return None;
        }
        if let Some(s) = stopped.filter(|_| options.has(wait::WUNTRACED)) {
            if !options.has(wait::WNOWAIT) {
                child.state().lock().stop_news = None;
            }
            let n = i32::from(s.number());
            return Some(base(code::CLD_STOPPED, n, n << 8 | 0x7f));
        }
        if continued && options.has(wait::WCONTINUED) {
            if !options.has(wait::WNOWAIT) {
                child.state().lock().continued_news = false;
            }
            return Some(base(code::CLD_CONTINUED, i32::from(Signal::SIGCONT.number()), 0xffff));
        }
        None
    }

    /// Takes over what a dead child used and removes it.
    fn collect(&self, tree: &mut Tree, child: &Arc<ThreadGroup>) {
        let used = full_usage(child);
        self.group.usage.lock().children.add(&used);
        tree.release(child);
    }

    /// Reaps every dead child (the end of a PID namespace).
    pub(super) fn reap_all_children(&self) {
        let mut tree = self.kernel.tasks.lock();
        for c in tree.children(self.group.key()) {
            if c.is_dead() {
                self.collect(&mut tree, &c);
            }
        }
    }
}

pub(super) fn full_usage(child: &ThreadGroup) -> Sums {
    let mut used = child.total_usage();
    used.add(&child.children_usage());
    used
}

fn matches(who: &WaitFor, pid: &Arc<Pid>, child: &ThreadGroup) -> bool {
    match who {
        WaitFor::All => true,
        WaitFor::Pid(p) => Arc::ptr_eq(p, pid),
        WaitFor::Group(g) => g.as_ref().is_some_and(|g| Arc::ptr_eq(g, &child.pgrp())),
        WaitFor::Nobody => false,
    }
}

/// `__WCLONE` and `__WALL`: a "clone" child tells its end by another signal than SIGCHLD.
fn right_kind(child: &ThreadGroup, options: WaitOptions) -> bool {
    if options.has(wait::WALL) {
        return true;
    }
    let clone = child.exit_signal.load(Ordering::Relaxed) != i32::from(Signal::SIGCHLD.number());
    clone == options.has(wait::WCLONE)
}
