//! The hand-off between sentry and stub and the queue of turns under many schedules. Those files are the platform's own; in place of
//! shared memory, futexes and clock they get what is here. The stub's side is written down again after `stub.s`, label by label,
//! with the same constants.

#[path = "../src/systrap/handoff.rs"]
#[expect(dead_code, reason = "what rests and who is born of what is not tried here")]
mod handoff;
#[path = "../src/stub/layout.rs"]
#[expect(dead_code, reason = "most of it is for the stub's text")]
mod layout;
#[path = "../src/systrap/turn.rs"]
mod turn;

use handoff::{Adapt, Answer};
use ksync::sync::{self, futex};
use layout::{
    CTX_CPU, CTX_MODE, CTX_PREV, CTX_REST, CTX_RESULT, CTX_SENTRY_SLEEPS, CTX_SPIN, CTX_STATE,
    CTX_STUB_SLEEPS, CTX_TID, STATE_EXIT, STATE_FAST, STATE_RUN, STATE_SAVE, STATE_SAVED, STATE_TRAPPED,
};
use platform::later;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use sync::atomic::AtomicU32;
use sync::atomic::Ordering::{Relaxed, SeqCst};
use turn::{Turn, Use};

/// Time goes on by so much whenever somebody looks.
static TICK: AtomicU64 = AtomicU64::new(0);
static NOW: AtomicU64 = AtomicU64::new(0);

/// Stands for `std::time::Instant`.
#[derive(Clone, Copy)]
struct Instant(Duration);

impl Instant {
    fn now() -> Instant {
        Instant(Duration::from_micros(NOW.fetch_add(TICK.load(Relaxed), Relaxed)))
    }
    fn elapsed(self) -> Duration {
        Instant::now() - self
    }
}

impl std::ops::Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

mod load {
    use shuttle::rand::{Rng, thread_rng};

    /// Now there is a processor to spare and now there is not.
    pub fn wanting() -> usize {
        thread_rng().gen_range(0..4)
    }
}

mod blocks {
    use super::sync::atomic::AtomicU32;

    /// The words of a context page that are no registers.
    pub struct ContextBlock([AtomicU32; 96]);

    impl ContextBlock {
        pub fn new() -> ContextBlock {
            ContextBlock(std::array::from_fn(|_| AtomicU32::new(0)))
        }
        pub fn word(&self, off: usize) -> &AtomicU32 {
            &self.0[off / 4]
        }
        pub fn put(&self, off: usize, value: u64) {
            self.word(off).store(value as u32, super::SeqCst);
        }
    }

    pub struct ContextFile(ContextBlock);

    impl ContextFile {
        pub fn word(&self, _index: u64, off: usize) -> &AtomicU32 {
            self.0.word(off)
        }
    }
}

mod stub {
    pub(super) use super::layout;

    /// A process that never ends by itself.
    pub struct StubSpace;

    impl StubSpace {
        pub fn has_exited(&self) -> bool {
            false
        }
        pub fn kill(&self, signal: i32) {
            panic!("signal {signal}: somebody has waited in vain");
        }
    }
}

use blocks::ContextBlock;
use stub::StubSpace;

/// The guest's thread in the stub.
struct Guest {
    block: Arc<ContextBlock>,
    /// Signals that may come at any time while it waits in a call.
    signals: AtomicUsize,
}

impl Guest {
    fn word(&self, off: usize) -> &AtomicU32 {
        self.block.word(off)
    }

    fn wake_sentry(&self) {
        if self.word(CTX_SENTRY_SLEEPS).load(SeqCst) != 0 {
            futex::wake(self.word(CTX_STATE), 1);
        }
    }

    /// `.Lawait_sleep`, `.Lfast_sleep`
    fn sleep(&self, seen: u32) {
        self.word(CTX_STUB_SLEEPS).store(1, SeqCst);
        futex::wait(self.word(CTX_STATE), seen, None);
        self.word(CTX_STUB_SLEEPS).store(0, SeqCst);
    }

    /// How often to look; few times here, so that it sleeps now and then.
    fn looks(&self) -> u32 {
        if self.word(CTX_SPIN).load(SeqCst) == 0 { 1 } else { 3 }
    }

    /// Whether it is time to sleep.
    fn tired(&self, looks: &mut u32) -> bool {
        *looks = looks.saturating_sub(1);
        *looks == 0 || self.word(CTX_REST).load(SeqCst) != 0
    }

    /// `runsc_stub_handler`: posts a signal and waits; what the state is then.
    fn trap(&self) -> u32 {
        let state = self.word(CTX_STATE);
        loop {
            let before = state.load(SeqCst);
            self.word(CTX_PREV).store(before, SeqCst);
            if state.compare_exchange(before, STATE_TRAPPED, SeqCst, SeqCst).is_ok() {
                break;
            }
        }
        self.wake_sentry();
        let mut looks = self.looks();
        loop {
            let seen = state.load(SeqCst);
            if seen != STATE_TRAPPED {
                return seen;
            }
            if self.tired(&mut looks) {
                self.sleep(STATE_TRAPPED);
                looks = 1;
            }
        }
    }

    /// A signal's handler runs in the midst of a call.
    fn maybe_interrupted(&self) {
        let left = self.signals.load(Relaxed);
        if left > 0 && thread_rng().gen_range(0..4) == 0 {
            self.signals.store(left - 1, Relaxed);
            assert_eq!(self.trap(), STATE_RUN);
        }
    }

    /// `runsc_stub_post`: a call from a patched site; its result.
    fn call(&self) -> u32 {
        let state = self.word(CTX_STATE);
        state.swap(STATE_FAST, SeqCst);
        self.wake_sentry();
        let mut looks = self.looks();
        loop {
            self.maybe_interrupted();
            let seen = state.load(SeqCst);
            match seen {
                STATE_RUN => return self.word(CTX_RESULT).load(SeqCst),
                STATE_SAVE => {
                    let _ = state.compare_exchange(STATE_SAVE, STATE_SAVED, SeqCst, SeqCst);
                    self.wake_sentry();
                    looks = self.looks();
                }
                _ if self.tired(&mut looks) => {
                    self.sleep(seen);
                    looks = 1;
                }
                _ => {}
            }
        }
    }

    /// The thread has ended: the host's kernel clears its id.
    fn exit(&self) {
        self.word(CTX_TID).store(0, SeqCst);
        futex::wake(self.word(CTX_TID), 1);
    }
}

/// Queue, counters and clock are the process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn under_schedules(runs: usize, tick: u64, test: impl Fn() + Send + Sync + 'static) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    TICK.store(tick, Relaxed);
    let mut config = shuttle::Config::new();
    config.silence_warnings = true;
    shuttle::Runner::new(shuttle::scheduler::RandomScheduler::new(runs), config).run(test);
}

/// What a guest does in a test: calls, traps, and signals that come during calls.
#[derive(Clone, Copy)]
struct Plan {
    rounds: u32,
    signals: usize,
    /// Whether the sentry asks for vectors in the midst of calls.
    vectors: bool,
}

/// Plays both sides. Each call and each trap is seen once and answered once, in whatever order the two sides look and sleep.
fn play(plan: Plan) {
    let block = Arc::new(ContextBlock::new());
    block.word(CTX_TID).store(1, SeqCst);
    // Never the processor that the sentry is on, or always so.
    block.word(CTX_CPU).store(u32::MAX, SeqCst);
    let guest = Guest { block: Arc::clone(&block), signals: AtomicUsize::new(plan.signals) };
    let traps = Arc::new(AtomicU32::new(0));
    let posted = Arc::clone(&traps);
    let done = Arc::new(AtomicU32::new(0));
    let last = Arc::clone(&done);
    let guest = thread::spawn(move || {
        assert_eq!(guest.trap(), STATE_RUN, "its birth");
        let mut calls = 0;
        for _ in 0..plan.rounds {
            if thread_rng().gen_range(0..3) == 0 {
                posted.fetch_add(1, SeqCst);
                assert_eq!(guest.trap(), STATE_RUN);
            } else {
                calls += 1;
                assert_eq!(guest.call(), calls, "the answer to another call");
            }
        }
        last.store(1, SeqCst);
        assert_eq!(guest.trap(), STATE_EXIT);
        guest.exit();
        calls
    });
    let (stub, turn, mut adapt) = (StubSpace, Arc::new(Turn::default()), Adapt::default());
    assert_eq!(handoff::wait_birth(&block, &stub), Answer::Trapped);
    let (mut calls, mut trapped) = (0, 0);
    let mut result = None;
    loop {
        match handoff::run(&block, result.take(), &stub, &mut adapt, &turn, 3, &|| false) {
            Answer::Call => {
                if plan.vectors && thread_rng().gen_range(0..2) == 0 {
                    assert_ne!(handoff::save_vectors(&block, &stub), Answer::Dead);
                }
                calls += 1;
                result = Some(u64::from(calls));
                block.word(CTX_MODE).store(0, Relaxed);
            }
            Answer::Trapped if done.load(SeqCst) != 0 => break,
            Answer::Trapped => trapped += 1,
            Answer::Dead => panic!("nobody has ended"),
        }
    }
    assert!(handoff::end(&block, &stub, STATE_EXIT));
    turn.give_up();
    assert_eq!(guest.join().unwrap(), calls);
    let traps = traps.load(SeqCst) as usize;
    assert!((traps..=traps + plan.signals).contains(&trapped), "{trapped} of {traps} traps were seen");
}

#[test]
fn calls_and_traps_are_answered_once() {
    under_schedules(3000, 20, || play(Plan { rounds: 6, signals: 0, vectors: false }));
}

#[test]
fn a_signal_may_come_during_a_call() {
    under_schedules(3000, 20, || play(Plan { rounds: 5, signals: 2, vectors: false }));
}

#[test]
fn vectors_are_saved_during_a_call() {
    under_schedules(3000, 20, || play(Plan { rounds: 4, signals: 1, vectors: true }));
}

/// A turn is one's alone, who waits for it gets it, and nothing is left.
#[test]
fn turns_are_passed_on() {
    under_schedules(3000, 0, || {
        let inside = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let inside = Arc::clone(&inside);
                thread::spawn(move || {
                    let (turn, mut used) = (Arc::new(Turn::default()), Use::default());
                    for _ in 0..2 {
                        if !used.may_spin(&turn, 2, true, || {}) {
                            continue;
                        }
                        assert_eq!(inside.fetch_add(1, Relaxed), 0, "two have the one turn");
                        thread::yield_now();
                        inside.fetch_sub(1, Relaxed);
                        turn.give_up();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        nothing_is_left();
    });
}

/// Who waits is sent away at any moment, also when it is just given the turn.
#[test]
fn who_leaves_has_the_turn_or_not() {
    under_schedules(3000, 0, || {
        let (holder, other) = (Arc::new(Turn::default()), Arc::new(Turn::default()));
        assert!(holder.try_take(2));
        let waits = {
            let other = Arc::clone(&other);
            thread::spawn(move || {
                let has = Use::default().may_spin(&other, 2, true, || {});
                assert_eq!(has, other.is_mine());
                other.give_up();
            })
        };
        let sends = thread::spawn(move || other.leave());
        holder.give_up();
        waits.join().unwrap();
        sends.join().unwrap();
        nothing_is_left();
    });
}

fn nothing_is_left() {
    let next = Arc::new(Turn::default());
    assert!(next.try_take(2), "somebody is left who has the turn or waits for it");
    next.give_up();
}
