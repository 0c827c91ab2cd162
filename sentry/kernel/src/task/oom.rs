//! When the memory of a container is used up: which process has to go (mm/oom_kill.c, the memory controller's part).

use super::{Members, Task, ThreadGroup};
use crate::time::Deadline;
use crate::wait::{Blocked, WaitOn};
use abi::PAGE_SIZE;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Whoever has this value is never chosen (`OOM_SCORE_ADJ_MIN`).
const NEVER: i32 = -1000;
/// How long is waited for memory of a process that was killed before it is looked again, in nanoseconds.
const LOOK_AGAIN: i64 = 50_000_000;
/// How long after the start of a container its watchers are there at the latest, in nanoseconds.
const WATCHERS: i64 = 1_000_000_000;

/// What a process would give: the larger, the sooner it is killed (`oom_badness`). `None`: it may not be killed, or
/// has no memory.
fn badness(group: &ThreadGroup, limit: u64) -> Option<i64> {
    let adj = group.oom_score_adj.load(Ordering::Relaxed);
    if adj == NEVER {
        return None;
    }
    let mm = group.threads().iter().find_map(|t| t.try_mm())?;
    let pages = |bytes: u64| i64::try_from(bytes / PAGE_SIZE).unwrap_or(i64::MAX);
    let shift = (pages(limit) / 1000).saturating_mul(i64::from(adj));
    Some(pages(mm.rss()).saturating_add(shift))
}

/// Whether a process was killed and still has its memory.
fn is_going(group: &ThreadGroup) -> bool {
    let threads = {
        let state = group.state().lock();
        if state.exiting.is_none() || state.dead.is_some() {
            return false;
        }
        state.threads.clone()
    };
    threads.iter().any(|t| t.try_mm().is_some())
}

/// Only one task at a time ends somebody.
struct Killing<'a>(&'a Members);

impl Drop for Killing<'_> {
    fn drop(&mut self) {
        self.0.killing.store(false, Ordering::Release);
    }
}

impl Task {
    /// The container's limit of memory was met: kills its largest process, unless one is on its way out, and waits for
    /// room. `false`: there is nobody to kill. Called with no lock held.
    pub fn out_of_memory(&self) -> bool {
        let members = Arc::clone(self.group.members());
        let account = members.memory();
        if !account.is_full() || account.look() {
            return true;
        }
        if account.group().is_some() {
            // What was freed and not given back counts there.
            self.kernel.memfile.shrink();
            if account.look() {
                return true;
            }
        }
        let mut groups = self.kernel.root_pid_ns.groups();
        groups.retain(|g| Arc::ptr_eq(g.members(), &members));
        if !groups.iter().any(|g| is_going(g)) && !members.killing.swap(true, Ordering::Acquire) {
            let killing = Killing(&members);
            if !self.kill_largest(&members, &groups) {
                return false;
            }
            drop(killing);
        }
        let until = Deadline::after(&self.kernel, LOOK_AGAIN);
        let room = || (!account.is_full() || self.is_dying()).then_some(());
        // Whatever ends the wait, the caller tries again.
        let _ = self.block_on(&[WaitOn::any(&members.news)], Some(until), room);
        true
    }

    /// More was charged than the container may have: sees that its use comes back below.
    pub fn settle_memory(&self) {
        let members = Arc::clone(self.group.members());
        let account = members.memory();
        while account.is_over() && !self.is_dying() {
            if !self.out_of_memory() || self.look().ends_sleep() {
                return;
            }
        }
    }

    /// Kills the largest process of the container. `false`: there is none that may be killed.
    fn kill_largest(&self, members: &Members, groups: &[Arc<ThreadGroup>]) -> bool {
        let limit = members.memory().limit().unwrap_or(0);
        let candidates = groups.iter().filter_map(|g| Some((badness(g, limit)?, g)));
        let Some((_, victim)) = candidates.max_by_key(|(points, _)| *points) else { return false };
        let name = victim.leader().map(|t| t.comm()).unwrap_or_default();
        tracing::warn!(
            "a container is out of memory ({limit} bytes): killed process {} ({})",
            victim.tgid,
            String::from_utf8_lossy(&name)
        );
        // Before the end can be seen: whoever sees it finds the reason.
        members.ooms.fetch_add(1, Ordering::Relaxed);
        members.oom_kills.fetch_add(1, Ordering::Relaxed);
        if let Some(group) = members.memory().group() {
            self.wait_for_watchers(members);
            if let Err(error) = group.note_kill(limit) {
                tracing::warn!("an end for lack of memory is not noted in the container's cgroup: {error}");
            }
        }
        members.news.wake(Members::KILLED);
        victim.send_signal(&SigInfo::kernel(Signal::SIGKILL));
        true
    }

    /// Whoever watches the host's group begins to when the container has been started (containerd's shim), and would not hear
    /// of an end before.
    fn wait_for_watchers(&self, members: &Members) {
        let Some(at) = members.started.get().and_then(|at| at.checked_add(WATCHERS)) else { return };
        while let Some(left) = at.checked_sub(self.kernel.clocks.monotonic()).filter(|left| *left > 0) {
            let until = Deadline::after(&self.kernel, left);
            if let Err(Blocked::Interrupted) = self.block_on(&[], Some(until), || None::<()>) {
                return;
            }
        }
    }
}
