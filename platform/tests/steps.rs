//! Signals at every instruction of a hand-off (systrap), one instruction after the other: a tracer lets the guest's host thread make
//! N single steps from where it waits for its answer, then a signal comes exactly there. For each N, until the next call is through: what the
//! sentry sees is a place in guest code with the registers that the guest has there without patches and tracers, and no call is lost or made twice.

#[expect(dead_code, reason = "only part of it is needed here")]
mod common;
#[path = "common/sites.rs"]
#[expect(dead_code, reason = "only part of it is needed here")]
mod sites;

use hostsys::signals::INTERRUPT;
use platform::*;
use sites::{CODE, World, full};
use std::collections::{BTreeSet, HashMap};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

/// Trap and resume flag: left by single steps.
const STEPPING: u64 = 0x1_0100;
/// What getpid(2) answers; calls get the same.
const ANSWER: u64 = 12;
/// Where stubs begin: nothing of the guest's is there.
const STUB: u64 = 0x7fff_e800_0000;
/// `layout::STATE_RUN`.
const STATE_RUN: u32 = 2;
/// Most steps of a walk; the longest has about half as many.
const MOST: usize = 400;

/// What single steps leave, and what nobody can know.
fn clean(r: &Registers) -> Registers {
    Registers {
        eflags: r.eflags & !STEPPING,
        r9: r.r9 & !STEPPING,
        r11: r.r11 & !STEPPING,
        orig_rax: 0,
        ..*r
    }
}

/// A guest that makes its call again and again.
#[derive(Clone, Copy)]
struct Site {
    start: u64,
    end: u64,
    nr: u64,
}

/// How the guest behaves where nothing is patched, by the instruction and the number of calls so far.
struct Reference {
    at: HashMap<(u64, u64), Registers>,
    calls: HashMap<u64, Registers>,
}

impl Reference {
    fn new(site: Site, calls: u64) -> Reference {
        let mut w = World::new();
        let mut r = full(site.start);
        let mut it = Reference { at: HashMap::new(), calls: HashMap::new() };
        while r.rbx < calls {
            it.at.insert((r.rip, r.rbx), clean(&r));
            r.set_single_step(true);
            match w.switch(&mut r) {
                Trap::Syscall => {
                    it.calls.insert(r.rbx, clean(&r));
                    r.rax = ANSWER;
                }
                Trap::Signal(s) if s.signo == libc::SIGTRAP => {}
                other => panic!("{other:?}"),
            }
        }
        it
    }

    /// The guest was interrupted.
    fn check(&self, it: Walk, got: &Registers, r12: u64) {
        let Walk { site, constant, .. } = it;
        let mut got = clean(got);
        let want = self.at.get(&(got.rip, got.rbx));
        let mut want = *want.unwrap_or_else(|| panic!("no place of the guest's: {got:x?}"));
        want.r12 = r12;
        // What is overwritten next without being read: the call takes two registers, and before it the number is loaded.
        let number = constant && got.rip == site.end - 7;
        if number || got.rip == site.end - 2 {
            (got.rcx, got.r11) = (want.rcx, want.r11);
        }
        if number {
            got.rax = want.rax;
        }
        assert_eq!(got, want);
    }
}

enum Stop {
    /// By this signal.
    Signal(i32),
    /// It sleeps in a call and makes no step.
    Asleep,
}

/// A traced thread of a stub. All methods must be called by one thread.
struct Tracee {
    tgid: i32,
    tid: i32,
}

impl Tracee {
    fn ptrace(&self, request: u32, data: usize) -> i64 {
        // SAFETY: the requests used here read or write at `data` no more than the registers, if it is an address at all.
        unsafe { libc::ptrace(request, self.tid, null_mut::<libc::c_void>(), data) }
    }

    fn seize(tgid: i32) -> Tracee {
        // The mapper is the first thread, the guest's the other one.
        let tasks = std::fs::read_dir(format!("/proc/{tgid}/task")).unwrap();
        let mut tids = tasks.filter_map(|t| t.unwrap().file_name().to_str()?.parse().ok());
        let t = Tracee { tgid, tid: tids.find(|t| *t != tgid).unwrap() };
        assert_eq!(t.ptrace(libc::PTRACE_SEIZE, 0), 0, "{}", std::io::Error::last_os_error());
        t
    }

    fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: plain integers.
        let mut regs: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        assert_eq!(self.ptrace(libc::PTRACE_GETREGS, &raw mut regs as usize), 0);
        regs
    }

    fn peek(&self, at: u64) -> u64 {
        // SAFETY: libc returns the word.
        unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, self.tid, at, 0) }.cast_unsigned()
    }

    fn poke(&self, at: u64, word: u64) {
        // SAFETY: writes the tracee's memory.
        unsafe { libc::ptrace(libc::PTRACE_POKEDATA, self.tid, at, word) };
    }

    /// Whether it sleeps in futex(2). Where it was stopped on its way out of there, at a handler's start, the call is still named.
    fn sleeps(&self) -> bool {
        let read = |file| std::fs::read_to_string(format!("/proc/{}/task/{}/{file}", self.tgid, self.tid));
        read("stat").is_ok_and(|s| s.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')))
            && read("syscall").is_ok_and(|c| c.starts_with("202 "))
    }

    /// A stop that is there already.
    fn look(&self) -> Option<i32> {
        let mut status = 0;
        // SAFETY: writes the word.
        let got = unsafe { libc::waitpid(self.tid, &mut status, libc::__WALL | libc::WNOHANG) };
        assert!(got == 0 || libc::WIFSTOPPED(status), "the thread is gone: {status:x}");
        (got != 0).then(|| libc::WSTOPSIG(status))
    }

    fn wait(&self) -> Stop {
        let start = Instant::now();
        loop {
            if let Some(signal) = self.look() {
                return Stop::Signal(signal);
            }
            if start.elapsed() > Duration::from_millis(3) && self.sleeps() {
                return Stop::Asleep;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the thread neither stops nor sleeps");
            std::thread::yield_now();
        }
    }

    /// Stops it where it is.
    fn stop(&self) {
        assert_eq!(self.ptrace(libc::PTRACE_INTERRUPT, 0), 0);
        let start = Instant::now();
        while self.look().is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "the thread does not stop");
            std::thread::yield_now();
        }
    }

    /// Stops it where it sleeps.
    fn hold(&self) {
        while !self.sleeps() {
            self.let_go();
        }
        self.stop();
    }

    /// Lets it go on if it has stopped. Signals get to their handlers, stops of the tracer's own go nowhere.
    fn let_go(&self) {
        if let Some(signal) = self.look() {
            let pass = if signal == libc::SIGTRAP { 0 } else { signal as usize };
            self.ptrace(libc::PTRACE_CONT, pass);
        }
        std::thread::yield_now();
    }

    /// One instruction; false: it sleeps instead. Signals that the guest raises get to their handler.
    fn step(&self) -> bool {
        let mut pass = 0;
        let pushes = self.peek(self.registers().rip) & 0xff == 0x9c;
        loop {
            assert_eq!(self.ptrace(libc::PTRACE_SINGLESTEP, pass), 0);
            match self.wait() {
                Stop::Asleep => return false,
                Stop::Signal(libc::SIGTRAP) => break,
                Stop::Signal(signal) => pass = signal as usize,
            }
        }
        if pushes {
            // pushf shows that the tracer steps.
            let rsp = self.registers().rsp;
            self.poke(rsp, self.peek(rsp) & !STEPPING);
        }
        true
    }
}

/// What the tracer is to do in a round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// So many steps, then the signal.
    Walk(usize),
    /// The round is over: the thread sleeps, or soon will.
    End,
}

/// What it says.
enum Said {
    /// The thread is held where it sleeps.
    Held,
    /// The signal is sent; `last`: no further step leads anywhere new. Where it was.
    Sent { last: bool, rip: u64 },
}

/// `sticky`: by the interrupter; else a signal alone, as is left when the interrupt it belonged to has been seen already.
fn tracer(
    tgid: i32,
    interrupter: &Arc<dyn Interrupt>,
    sticky: bool,
    orders: &Receiver<Round>,
    said: &Sender<Said>,
) {
    let t = Tracee::seize(tgid);
    let mut asleep = 0;
    while let Ok(Round::Walk(steps)) = orders.recv() {
        t.hold();
        said.send(Said::Held).unwrap();
        // The word it sleeps on is the state.
        let state = t.registers().rdi;
        let start = Instant::now();
        while t.peek(state) as u32 != STATE_RUN {
            assert!(start.elapsed() < Duration::from_secs(60), "no answer comes");
            std::thread::yield_now();
        }
        let mut visits: HashMap<u64, u32> = HashMap::new();
        let mut last = false;
        let tired = asleep;
        for _ in 0..steps {
            if !t.step() {
                t.stop();
                // On a busy machine it sleeps again before it has seen the answer: only the end does so each time.
                asleep += 1;
                last = asleep > 3;
                break;
            }
            // It waits, awake.
            let visit = visits.entry(t.registers().rip).or_default();
            *visit += 1;
            if *visit > 6 {
                last = true;
                break;
            }
        }
        if asleep == tired {
            asleep = 0;
        }
        let rip = t.registers().rip;
        if sticky {
            interrupter.interrupt();
        } else {
            // SAFETY: a thread of a child that is traced here.
            unsafe { libc::syscall(libc::SYS_tgkill, t.tgid, t.tid, INTERRUPT) };
        }
        t.ptrace(libc::PTRACE_CONT, 0);
        said.send(Said::Sent { last, rip }).unwrap();
        // Whatever is raised gets to its handler, until the round is over.
        while orders.try_recv() == Err(TryRecvError::Empty) {
            t.let_go();
        }
    }
    // No other guest shall get it: a step while SIGTRAP was blocked has taken the handler of that signal away (force_sig).
    // SAFETY: a child that was not reaped.
    unsafe { libc::kill(tgid, libc::SIGKILL) };
}

/// How a guest is walked through.
#[derive(Clone, Copy)]
struct Walk {
    site: Site,
    /// The site is patched.
    patched: bool,
    /// Another register changes with each answer, so that all are loaded.
    full: bool,
    /// The stub answers by itself.
    constant: bool,
}

/// Walks, and returns where the signals came.
fn walk(it: Walk, sticky: bool, reference: &Reference) -> BTreeSet<u64> {
    let Walk { site, patched, full: all, constant } = it;
    let mut w = World::new();
    let mut r = full(site.start);
    let first = w.switch(&mut r);
    assert_eq!(first, Trap::Syscall);
    r.rax = ANSWER;
    if patched {
        assert!(w.patch(site.end, site.nr));
    }
    if constant {
        w.cx.set_constants(Some(Constants { pid: 12, tid: 1, uid: 2, euid: 3, gid: 4, egid: 5 }));
    }
    let tgid = w.space.host_pid().unwrap().cast_signed();
    let interrupter = w.cx.interrupter();
    let (order, orders) = channel();
    let (say, said) = channel();
    let thread = std::thread::spawn(move || tracer(tgid, &interrupter, sticky, &orders, &say));
    let mut places = BTreeSet::new();
    let mut calls = 1;
    let (mut ended, mut at_call) = (false, false);
    for steps in 0..MOST {
        order.send(Round::Walk(steps)).unwrap();
        assert!(matches!(said.recv().unwrap(), Said::Held));
        if all {
            r.r12 += 1;
        }
        let r12 = r.r12;
        // The signal may be sent before or after the call has come.
        let mut sent = None;
        let mut interrupted = !sticky;
        loop {
            match w.switch(&mut r) {
                Trap::Interrupted => {
                    assert!(!interrupted, "interrupted once more than asked for");
                    reference.check(it, &r, r12);
                    interrupted = true;
                    if constant {
                        at_call = r.rip == site.end - 2;
                        break;
                    }
                }
                Trap::Syscall if constant => {
                    // It was interrupted between the number and the call; that one traps.
                    assert!(at_call);
                    assert_eq!((r.orig_rax, clean(&r)), (site.nr, reference.calls[&r.rbx]));
                    at_call = false;
                    r.rax = ANSWER;
                }
                Trap::Syscall => {
                    let want = Registers { r12, ..reference.calls[&calls] };
                    assert_eq!((r.orig_rax, clean(&r)), (site.nr, want), "call {calls} after {steps} steps");
                    calls += 1;
                    r.rax = ANSWER;
                    if interrupted && sent.is_some() {
                        break;
                    }
                    if sent.is_none() {
                        sent = Some(said.recv().unwrap());
                        if interrupted {
                            break;
                        }
                    }
                }
                other => panic!("{other:?} after {steps} steps, {r:x?}"),
            }
        }
        let sent = sent.unwrap_or_else(|| said.recv().unwrap());
        order.send(Round::End).unwrap();
        let Said::Sent { last, rip } = sent else { panic!("held twice") };
        places.insert(rip);
        if last || constant && steps > 150 {
            ended = true;
            break;
        }
    }
    assert!(ended, "the walk does not come to its end");
    drop(order);
    thread.join().unwrap();
    places
}

fn walks(it: Walk, calls: u64, own_code: usize) {
    let reference = Reference::new(it.site, calls);
    for sticky in [true, false] {
        // With a signal alone the guest would go on for ever.
        if it.constant && !sticky {
            continue;
        }
        let places = walk(it, sticky, &reference);
        let stub = places.iter().filter(|p| **p >= STUB).count();
        let guest = places.iter().filter(|p| (CODE..CODE + PAGE).contains(*p)).count();
        println!("{} places: {stub} of the stub, {guest} of the guest", places.len());
        assert!(stub >= own_code && guest >= 3, "{places:x?}");
        assert_eq!(it.patched, places.len() > stub + guest, "the code of the patch: {places:x?}");
    }
}

fn site(start: u64, end: u64) -> Site {
    Site { start, end, nr: 121 }
}

fn patched(site: Site) -> Walk {
    Walk { site, patched: true, full: false, constant: false }
}

#[test]
fn calls_by_number() {
    walks(patched(site(pos!(p_number), pos!(p_number_end))), 1200, 40);
}

#[test]
fn flags_of_calls() {
    walks(patched(site(pos!(p_flags), pos!(p_flags_end))), 1200, 40);
}

#[test]
fn calls_before_comparisons() {
    walks(patched(site(pos!(p_compare), pos!(p_compare_end))), 1200, 40);
}

#[test]
fn moved_instructions() {
    walks(patched(site(pos!(p_moved), pos!(p_moved_end))), 1200, 40);
}

/// All registers are loaded: by `iretq`.
#[test]
fn answers_with_all_registers() {
    walks(Walk { full: true, ..patched(site(pos!(p_number), pos!(p_number_end))) }, 1200, 60);
}

/// Through the signal handler.
#[test]
fn calls_that_trap() {
    walks(Walk { patched: false, ..patched(site(pos!(p_number), pos!(p_number_end))) }, 1200, 30);
}

#[test]
fn answers_of_the_stub() {
    let site = Site { nr: 39, ..site(pos!(p_pid), pos!(p_pid_end)) };
    walks(Walk { constant: true, ..patched(site) }, 1500, 15);
}
