//! Stopping and continuing processes (job control), and freezing them for a paused container.

use super::{GroupState, Reason, StopState, Task, ThreadGroup};
use abi::signal::{Signal, code};

/// If every live thread has stopped, the process has: its signal, to tell the parent.
pub(super) fn complete_if_all_stopped(state: &mut GroupState) -> Option<Signal> {
    let StopState::Stopping(s) = state.stop else {
        return None;
    };
    let all = state.threads.iter().all(|t| t.has_exited() || t.is_parked());
    if !all {
        return None;
    }
    state.stop = StopState::Stopped(s);
    state.stop_news = Some(s);
    state.continued_news = false;
    Some(s)
}

impl GroupState {
    /// A stop signal takes effect: every thread is to stop.
    pub(crate) fn begin_stop(&mut self, s: Signal) {
        if self.exiting.is_some() || self.exec.is_some() {
            return;
        }
        if matches!(self.stop, StopState::Running) {
            self.stop = StopState::Stopping(s);
            self.continued_news = false;
        }
        for t in &self.threads {
            if !t.has_exited() {
                t.raise(Reason::Stop);
            }
        }
    }

    /// SIGCONT or SIGKILL: nobody stays stopped. What the parent is to be told.
    pub(crate) fn end_stop(&mut self, by_continue: bool) -> Option<(i32, i32)> {
        let was = std::mem::replace(&mut self.stop, StopState::Running);
        for t in &self.threads {
            t.look().clear(Reason::Stop);
            t.kick();
        }
        match was {
            StopState::Running => None,
            StopState::Stopping(s) => {
                self.stop_news = None;
                by_continue.then_some((code::CLD_STOPPED, i32::from(s.number())))
            }
            StopState::Stopped(_) => {
                self.stop_news = None;
                self.continued_news = by_continue;
                by_continue.then_some((code::CLD_CONTINUED, i32::from(Signal::SIGCONT.number())))
            }
        }
    }
}

impl ThreadGroup {
    /// Tells the parent that the process stopped or went on. No lock of a process may be held.
    pub(crate) fn tell_parent(&self, news: (i32, i32)) {
        if let Some(k) = self.kernel() {
            k.tasks.lock().tell_parent(self, news.0, news.1);
        }
    }
}

impl Task {
    fn is_parked(&self) -> bool {
        self.parked.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Stops with the rest of the process until SIGCONT or death. Called by the task itself when
    /// [`super::Step::Stop`] comes.
    pub fn stop_here(&self) {
        self.parked.store(true, std::sync::atomic::Ordering::SeqCst);
        let told = complete_if_all_stopped(&mut self.group.state().lock());
        if let Some(s) = told {
            self.group.tell_parent((code::CLD_STOPPED, i32::from(s.number())));
        }
        self.sleep_while(|t| {
            t.look.has(Reason::Stop) && !t.look.has(Reason::Kill) && !t.look.has(Reason::Trap)
        });
        self.parked.store(false, std::sync::atomic::Ordering::SeqCst);
    }

    /// Sleeps while the container is paused.
    pub fn freeze_here(&self) {
        self.sleep_while(|t| t.look.has(Reason::Freeze) && !t.look.has(Reason::Kill));
    }

    /// Sleeps while a condition on the reasons to look up holds; [`Task::kick`] makes it look again.
    pub(super) fn sleep_while(&self, cond: impl Fn(&Task) -> bool) {
        ksync::assert_no_locks();
        self.cpu.stop_sentry(platform::clock::monotonic());
        self.set_sleeping(true);
        loop {
            self.waiter.reset();
            if !cond(self) {
                break;
            }
            self.waiter.sleep(None);
        }
        self.set_sleeping(false);
        self.cpu.resume_sentry(platform::clock::monotonic());
    }
}
