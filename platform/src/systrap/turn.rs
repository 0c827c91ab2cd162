//! Whose turn it is where more guest threads want a processor than there are.
//!
//! A hand-off between two threads that run at the same time, each on a processor of its own, takes a tenth of one where the one must
//! wake the other. So of guest threads that call all the time it is better that a few have two processors each, one after the other, than that
//! all run at once with one each. A thread whose turn it is may spin. The turn ends when the thread sleeps or computes, or has
//! had its time and others wait.

use super::sync::atomic::Ordering::{Relaxed, SeqCst};
use super::sync::atomic::{AtomicU32, AtomicUsize};
use super::sync::{Mutex, MutexGuard};
use super::{Instant, futex};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long a turn lasts if others wait.
const TIME: Duration = Duration::from_millis(2);
/// Whoever has not come to its next run for so long, because a call takes long, loses its turn to those who wait.
const LATE: Duration = Duration::from_millis(4);

/// Over all sandboxes of this process, as they share the host's processors.
static QUEUE: Mutex<Queue> = Mutex::new(Queue { held: Vec::new(), waiting: VecDeque::new() });
/// How many wait in it.
static WAITING: AtomicUsize = AtomicUsize::new(0);

struct Queue {
    /// Whose turn it is, and since when.
    held: Vec<(Arc<Turn>, Instant)>,
    waiting: VecDeque<Arc<Turn>>,
}

/// A guest thread's place in the queue.
#[derive(Default)]
pub(super) struct Turn {
    state: AtomicU32,
}

const NONE: u32 = 0;
const QUEUED: u32 = 1;
const MINE: u32 = 2;

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether others wait for a turn.
fn wanted() -> bool {
    WAITING.load(Relaxed) != 0
}

impl Queue {
    fn take(&mut self, turn: &Arc<Turn>, cpus: usize) -> bool {
        let free = self.held.len() < cpus / 2 && self.waiting.is_empty();
        if free {
            self.give(turn.clone());
        }
        free
    }

    fn give(&mut self, turn: Arc<Turn>) {
        turn.state.store(MINE, SeqCst);
        self.held.push((turn, Instant::now()));
    }

    /// It is no longer this one's turn but the next one's, whom to wake.
    fn pass(&mut self, from: usize) -> Option<Arc<Turn>> {
        self.held.swap_remove(from).0.state.store(NONE, SeqCst);
        let next = self.waiting.pop_front()?;
        WAITING.store(self.waiting.len(), Relaxed);
        self.give(next.clone());
        Some(next)
    }
}

impl Turn {
    /// Whether it is this thread's.
    pub(super) fn is_mine(&self) -> bool {
        self.state.load(Relaxed) == MINE
    }

    /// Takes it if it is to be had now.
    pub(super) fn try_take(self: &Arc<Self>, cpus: usize) -> bool {
        self.is_mine() || !wanted() && queue().take(self, cpus)
    }

    /// Waits for it. False: there are none, it came and went before this thread could run, or `leave` was called.
    fn take(self: &Arc<Self>, cpus: usize) -> bool {
        {
            let mut q = queue();
            if q.take(self, cpus) {
                return true;
            }
            if q.held.is_empty() {
                return false;
            }
            self.state.store(QUEUED, SeqCst);
            q.waiting.push_back(self.clone());
            WAITING.store(q.waiting.len(), Relaxed);
        }
        loop {
            futex::wait_private(&self.state, QUEUED, Some(LATE));
            let mut q = queue();
            match self.state.load(SeqCst) {
                QUEUED => {}
                state => return state == MINE,
            }
            if let Some(late) = q.held.iter().position(|(_, since)| since.elapsed() > LATE) {
                let next = q.pass(late);
                drop(q);
                wake(next);
            }
        }
    }

    /// Waits no more.
    pub(super) fn leave(self: &Arc<Self>) {
        if self.state.load(SeqCst) != QUEUED {
            return;
        }
        let mut q = queue();
        if self.state.load(SeqCst) == QUEUED {
            q.waiting.retain(|other| !Arc::ptr_eq(other, self));
            WAITING.store(q.waiting.len(), Relaxed);
            self.state.store(NONE, SeqCst);
            drop(q);
            wake(Some(self.clone()));
        }
    }

    /// Lets the next one have it.
    pub(super) fn give_up(self: &Arc<Self>) {
        if !self.is_mine() {
            return;
        }
        let mut q = queue();
        if let Some(at) = q.held.iter().position(|(held, _)| Arc::ptr_eq(held, self)) {
            let next = q.pass(at);
            drop(q);
            wake(next);
        }
    }
}

fn wake(turn: Option<Arc<Turn>>) {
    if let Some(turn) = turn {
        futex::wake_private(&turn.state, 1);
    }
}

/// What a guest thread makes of its turns.
#[derive(Default)]
pub(super) struct Use {
    /// Since when others wait.
    since: Option<Instant>,
}

impl Use {
    /// Before a run where no processor is to spare: whether the thread may spin. `often`: it calls often. `rest` is called before it waits
    /// for its turn.
    pub(super) fn may_spin(
        &mut self,
        turn: &Arc<Turn>,
        cpus: usize,
        often: bool,
        rest: impl FnOnce(),
    ) -> bool {
        if !often {
            turn.give_up();
            return false;
        }
        if turn.is_mine() {
            if !wanted() {
                self.since = None;
                return true;
            }
            let now = Instant::now();
            if now - *self.since.get_or_insert(now) < TIME {
                return true;
            }
            turn.give_up();
        }
        self.since = None;
        if turn.try_take(cpus) {
            return true;
        }
        rest();
        turn.take(cpus)
    }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use super::*;

    /// The queue is the process's: one test at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    /// Nobody loses a turn by being late, for longer than any test takes.
    fn nobody_is_late() {
        let later = Instant::now() + Duration::from_secs(60);
        queue().held.iter_mut().for_each(|(_, since)| *since = later);
    }

    #[test]
    fn one_at_a_time_and_everybody_in_the_end() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = AtomicUsize::new(0);
        let turns = AtomicUsize::new(0);
        // Whoever is kept from running for too long loses its turn, while it has it or before.
        let (met, late) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|s| {
            for _ in 0..6 {
                s.spawn(|| {
                    let turn = Arc::new(Turn::default());
                    for _ in 0..500 {
                        let begun = Instant::now();
                        while !turn.try_take(2) && !turn.take(2) {
                            assert!(begun.elapsed() > LATE, "refused at once");
                        }
                        let since = Instant::now();
                        met.fetch_add(usize::from(inside.fetch_add(1, SeqCst) > 0), SeqCst);
                        turns.fetch_add(1, SeqCst);
                        inside.fetch_sub(1, SeqCst);
                        late.fetch_add(usize::from(since.elapsed() > LATE), SeqCst);
                        turn.give_up();
                    }
                });
            }
        });
        assert_eq!(turns.load(SeqCst), 3000);
        assert!(met.load(SeqCst) == 0 || late.load(SeqCst) > 0, "{met:?} met another");
        assert!(queue().held.is_empty() && !wanted());
    }

    #[test]
    fn a_long_call_loses_the_turn() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (stuck, next) = (Arc::new(Turn::default()), Arc::new(Turn::default()));
        assert!(stuck.try_take(3));
        assert!(!next.try_take(3));
        assert!(next.take(3) && next.is_mine() && !stuck.is_mine());
        stuck.give_up();
        assert!(next.is_mine(), "it was not its turn any more");
        next.give_up();
        assert!(queue().held.is_empty());
    }

    #[test]
    fn who_waits_can_leave() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (holder, other) = (Arc::new(Turn::default()), Arc::new(Turn::default()));
        std::thread::scope(|s| {
            assert!(holder.try_take(2));
            nobody_is_late();
            let waits = s.spawn(|| other.take(2));
            while !wanted() {
                std::thread::yield_now();
            }
            other.leave();
            assert!(!waits.join().expect("the one that waits"), "it was not its turn");
        });
        assert!(holder.is_mine() && !other.is_mine());
        holder.give_up();
        assert!(queue().held.is_empty() && !wanted());
    }

    #[test]
    fn with_one_processor_there_are_no_turns() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = Arc::new(Turn::default());
        assert!(!Use::default().may_spin(&turn, 1, true, || {}));
        assert!(queue().held.is_empty());
    }

    #[test]
    fn time_is_shared() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (turn, mut used) = (Arc::new(Turn::default()), Use::default());
        assert!(used.may_spin(&turn, 2, true, || panic!("nobody else")));
        nobody_is_late();
        let other = std::thread::spawn(|| {
            let turn = Arc::new(Turn::default());
            let took = turn.take(2);
            turn.give_up();
            took
        });
        while !wanted() {
            std::thread::yield_now();
        }
        // It keeps it as long as its time is not over, and gives it up then.
        let (mut rested, began) = (false, Instant::now());
        while !rested && !other.is_finished() {
            used.may_spin(&turn, 2, true, || rested = true);
        }
        assert!(other.join().expect("the other thread"));
        assert!(began.elapsed() < Duration::from_secs(30), "it was given up, not lost");
        turn.give_up();
        assert!(queue().held.is_empty());
    }
}
