//! The hand-off between sentry and stub over one word: who spins, who sleeps, and how it is noticed that nobody will answer.

use super::blocks::{ContextBlock, ContextFile};
use super::sync::atomic::AtomicUsize;
use super::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use super::turn::{Turn, Use};
use super::{Instant, futex};
use crate::stub::StubSpace;
use crate::stub::layout::{
    CTX_CPU, CTX_PREV, CTX_REST, CTX_RESULT, CTX_SENTRY_CPU, CTX_SENTRY_SLEEPS, CTX_SPIN, CTX_STATE,
    CTX_STUB_SLEEPS, CTX_TID, STATE_FAST, STATE_RUN, STATE_SAVE, STATE_SAVED, STATE_TRAPPED,
};
use crate::{later, load};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Guest threads that run guest code now, over all sandboxes of this process.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// A trap that comes within this time was worth waiting for.
const SHORT: Duration = Duration::from_micros(40);
/// What a wake-up of a sleeping core can take on top of that (virtual machines).
const WAKE: Duration = Duration::from_micros(80);
/// The score from which on spinning is tried.
const PAYS: u8 = 4;
/// How often a stub looks for its answer before it sleeps; about as long as `SHORT`.
const STUB_LOOKS: u32 = 3000;
/// How long the sentry sleeps before it looks whether the guest thread still lives.
const LOOK: Duration = Duration::from_millis(100);
/// An interrupt that is not obeyed for so long ends the process: a guest can block signals by forging its signal frame.
const OBEY: Duration = Duration::from_secs(5);

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is a signal frame.
    Trapped,
    /// A call from a patched site.
    Call,
    Dead,
}

/// What a state says, if the thread has stopped.
fn stopped(block: &ContextBlock, state: u32) -> Option<Answer> {
    match state {
        // It stays so until the answer. A signal that comes meanwhile finds it so, and its handler goes back to the wait when the
        // call is answered.
        STATE_FAST => Some(Answer::Call),
        // Or it came before the call was seen.
        STATE_TRAPPED if block.word(CTX_PREV).load(Acquire) == STATE_FAST => Some(Answer::Call),
        STATE_TRAPPED => Some(Answer::Trapped),
        _ => None,
    }
}

/// How well spinning has paid for this context: raised by short runs, lowered by long ones and by spinning in vain.
#[derive(Default)]
pub(super) struct Adapt {
    score: u8,
    turns: Use,
}

impl Adapt {
    fn raise(&mut self) {
        self.score = (self.score + 1).min(8);
    }

    fn lower(&mut self, by: u8) {
        self.score = self.score.saturating_sub(by);
    }
}

/// The processor the caller is on, in the form the stub uses.
fn this_cpu() -> u32 {
    static RDPID: OnceLock<bool> = OnceLock::new();
    const HAS_RDPID: u32 = 1 << 22;
    let rdpid = *RDPID.get_or_init(|| std::arch::x86_64::__cpuid_count(7, 0).ecx & HAS_RDPID != 0);
    let (mut cpu, mut low) = (0u64, 0);
    // SAFETY: both only read a register; `SystrapPlatform::open` has looked that there is the second one. The words are live.
    unsafe {
        if rdpid {
            std::arch::asm!("rdpid {}", out(reg) cpu, options(nomem, nostack, preserves_flags));
        } else {
            std::arch::x86_64::__rdtscp(&mut low);
        }
    }
    cpu as u32 | low
}

/// Lets the guest thread go on, with `result` if it waits after a call from a patched site and nothing else has changed, and waits
/// until it traps. `interrupted`: whether an interrupt is pending.
pub(super) fn run(
    block: &ContextBlock,
    result: Option<u64>,
    stub: &StubSpace,
    adapt: &mut Adapt,
    turn: &Arc<Turn>,
    cpus: usize,
    interrupted: &dyn Fn() -> bool,
) -> Answer {
    let state = block.word(CTX_STATE);
    // One core for each guest thread with work and one for whoever spins for it: otherwise spinners take the guests' time.
    // With less room only those may spin whose turn it is.
    let room = RUNNING.load(Relaxed).max(load::wanting().saturating_sub(1)) + 1 < cpus || {
        let mut rested = false;
        let mine = adapt.turns.may_spin(turn, cpus, adapt.score >= PAYS, || {
            rested = true;
            block.word(CTX_REST).store(1, Relaxed);
        });
        if rested {
            block.word(CTX_REST).store(0, Relaxed);
        }
        mine
    };
    RUNNING.fetch_add(1, Relaxed);
    let here = this_cpu();
    // Only what changes is written: the line travels between cores.
    let set = |off: usize, value: u32| {
        if block.word(off).load(Relaxed) != value {
            block.word(off).store(value, Relaxed);
        }
    };
    set(CTX_SPIN, if room { STUB_LOOKS } else { 0 });
    set(CTX_SENTRY_CPU, here);
    set(CTX_SENTRY_SLEEPS, 0);
    // Together with the state, so that the line goes over to the stub once.
    if let Some(result) = result {
        block.put(CTX_RESULT, result);
    }
    state.store(STATE_RUN, SeqCst);
    let asleep = block.word(CTX_STUB_SLEEPS).load(SeqCst) != 0;
    if asleep {
        futex::wake(state, 1);
    }
    later::catch_up();
    // On one core spinning would keep the other side from running. That the stub is awake does not say that it runs: it may have been
    // preempted by the very wake-up it made.
    let apart = block.word(CTX_CPU).load(Relaxed) != here;
    let mut answer = None;
    if room && apart && adapt.score >= PAYS {
        let crowded = || load::wanting() >= cpus && !turn.try_take(cpus);
        answer = spin(block, if asleep { SHORT + WAKE } else { SHORT }, &crowded);
        if answer.is_some() {
            adapt.raise();
        } else if load::wanting() < cpus || turn.is_mine() {
            adapt.lower(8);
        }
    }
    let answer = answer.unwrap_or_else(|| {
        turn.give_up();
        let start = Instant::now();
        let answer = sleep(block, stub, interrupted);
        // A wake-up takes time by itself, so what was slept over may still have been short.
        if start.elapsed() < SHORT + WAKE {
            adapt.raise()
        } else {
            adapt.lower(1)
        }
        answer
    });
    RUNNING.fetch_sub(1, Relaxed);
    answer
}

/// The answer to a guest thread that waits in `state` will take long. It spins on if no guest thread can miss the processor: besides it
/// there may be one to wake up, and the sentry that does so.
pub(super) fn rest(file: &ContextFile, index: u64, cpus: usize) -> bool {
    let tight = load::wanting() + 2 > cpus;
    if tight {
        file.word(index, CTX_REST).store(1, Relaxed);
    }
    tight
}

/// Looks often at first: what comes soon comes within a microsecond. The clock is read only later, it costs as much as many looks.
/// Gives up at once when somebody else needs the processor.
fn spin(block: &ContextBlock, limit: Duration, crowded: &dyn Fn() -> bool) -> Option<Answer> {
    let state = block.word(CTX_STATE);
    let mut start = None;
    for round in 0u32.. {
        for look in 0..32 {
            let seen = state.load(Acquire);
            if seen != STATE_RUN
                && let Some(answer) = stopped(block, seen)
            {
                return Some(answer);
            }
            if look % 4 == 3 {
                std::hint::spin_loop();
            }
        }
        if crowded() {
            return None;
        }
        if round >= 8 {
            let start = *start.get_or_insert_with(Instant::now);
            if start.elapsed() > limit {
                return None;
            }
        }
    }
    None
}

/// Asks a thread that waits after a call from a patched site for its vector state. `Call`: it is saved. `Trapped`: it is in the signal frame.
pub(super) fn save_vectors(block: &ContextBlock, stub: &StubSpace) -> Answer {
    let state = block.word(CTX_STATE);
    set_sleeps(block, 0);
    if state.compare_exchange(STATE_FAST, STATE_SAVE, SeqCst, SeqCst).is_err()
        && state.compare_exchange(STATE_SAVED, STATE_SAVE, SeqCst, SeqCst).is_err()
    {
        return Answer::Trapped;
    }
    let asleep = block.word(CTX_STUB_SLEEPS).load(SeqCst) != 0;
    if asleep {
        futex::wake(state, 1);
    }
    let done = |seen: u32| match seen {
        STATE_SAVED => Some(Answer::Call),
        STATE_TRAPPED => Some(Answer::Trapped),
        _ => None,
    };
    // It takes less than a microsecond where the stub runs already, and for ever where it waits for this processor.
    if !asleep && block.word(CTX_CPU).load(Relaxed) != this_cpu() {
        for _ in 0..400 {
            if let Some(answer) = done(state.load(Acquire)) {
                return answer;
            }
            std::hint::spin_loop();
        }
    }
    // It waits in the stub, unless the guest has only made it look so: then it will never answer.
    sleep_until(block, stub, &late(Duration::from_secs(1)), &done)
}

fn set_sleeps(block: &ContextBlock, value: u32) {
    block.word(CTX_SENTRY_SLEEPS).store(value, SeqCst);
}

/// Waits for the first trap of a new thread.
pub(super) fn wait_birth(block: &ContextBlock, stub: &StubSpace) -> Answer {
    // The other threads of the process can keep it from being seen, but not for ever.
    sleep(block, stub, &late(3 * OBEY))
}

/// Tells that some time has passed.
fn late(after: Duration) -> impl Fn() -> bool {
    let start = Instant::now();
    move || start.elapsed() > after
}

fn sleep(block: &ContextBlock, stub: &StubSpace, interrupted: &dyn Fn() -> bool) -> Answer {
    sleep_until(block, stub, interrupted, &|seen| stopped(block, seen))
}

fn sleep_until(
    block: &ContextBlock,
    stub: &StubSpace,
    interrupted: &dyn Fn() -> bool,
    done: &dyn Fn(u32) -> Option<Answer>,
) -> Answer {
    let state = block.word(CTX_STATE);
    set_sleeps(block, 1);
    let mut last = Instant::now();
    let mut disobeyed = Duration::ZERO;
    let answer = loop {
        let seen = state.load(SeqCst);
        if let Some(answer) = done(seen) {
            break answer;
        }
        futex::wait(state, seen, Some(LOOK));
        // Whatever the state was changed to meanwhile: a guest can change it all the time.
        let passed = last.elapsed();
        if passed < LOOK {
            continue;
        }
        last = Instant::now();
        if stub.has_exited() {
            break Answer::Dead;
        }
        // The machine may have stood still: only what was watched counts.
        disobeyed = if interrupted() { disobeyed + passed.min(2 * LOOK) } else { Duration::ZERO };
        if block.word(CTX_TID).load(Relaxed) == 0 || disobeyed > OBEY {
            // The guest ended its host thread behind our back, or made it deaf.
            stub.kill(libc::SIGKILL);
            while !stub.has_exited() {
                std::thread::sleep(Duration::from_millis(1));
            }
            break Answer::Dead;
        }
        // Someone may have stopped it.
        stub.kill(libc::SIGCONT);
    };
    set_sleeps(block, 0);
    answer
}

/// Tells a trapped thread to end and waits until it has. False: it does not, or the process is dead.
pub(super) fn end(block: &ContextBlock, stub: &StubSpace, exit: u32) -> bool {
    let (state, tid) = (block.word(CTX_STATE), block.word(CTX_TID));
    state.store(exit, SeqCst);
    futex::wake(state, 1);
    let start = Instant::now();
    loop {
        let seen = tid.load(SeqCst);
        if seen == 0 {
            return true;
        }
        if stub.has_exited() {
            return false;
        }
        if start.elapsed() > OBEY {
            stub.kill(libc::SIGKILL);
        }
        futex::wait(tid, seen, Some(LOOK));
    }
}
