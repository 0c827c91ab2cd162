//! Guests that attack the stub they run in. Each may at worst end its own process; the sentry and other guests go on.
//!
//! The addresses are those of platform/src/stub/layout.rs, which a guest can read from its own memory map by trying.

mod common;

use common::{DATA, Guest, regs};
use platform::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TEXT: u64 = 0x7fff_f800_0000;
const CMD: u64 = TEXT + 0x1_0000;
const CONTEXTS: u64 = TEXT - 0x1000_0000;

fn each(f: impl Fn(Guest)) {
    for name in ["ptrace", "systrap"] {
        let start = Instant::now();
        let platform = platform::open(name).unwrap();
        f(Guest::new(platform.clone()));
        // Whatever happened, the next guest runs.
        let g = Guest::new(platform);
        let mut cx = g.platform.new_context().unwrap();
        assert_eq!(cx.switch(&g.space(), &mut regs(at!(g_args))).unwrap(), Trap::Syscall);
        println!("{name}: {:?}", start.elapsed());
    }
}

/// Interrupts a context every few milliseconds while `f` runs.
fn poked<R>(cx: &mut Box<dyn Context>, f: impl FnOnce(&mut Box<dyn Context>) -> R) -> R {
    let handle = cx.interrupter();
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let thread = std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(2));
            handle.interrupt();
        }
    });
    let result = f(cx);
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    result
}

/// Starts at every byte of the stub's text and data, with registers meant to do harm.
#[test]
fn jumps_into_the_stub() {
    each(|g| {
        let fresh = || {
            let space = g.space();
            g.map_data(&space, Prot::READ | Prot::WRITE);
            (space, g.platform.new_context().unwrap())
        };
        let (mut space, mut cx) = fresh();
        let mut dead = 0;
        for (rsp, step) in [(CONTEXTS + 0x4000, 1), (DATA + 0x8000, 5), (0, 7)] {
            for off in (0..0x400).step_by(step) {
                let mut r = regs(TEXT + off);
                r.rsp = rsp;
                (r.rbx, r.rbp, r.rax, r.rdi) = (CMD, DATA, 231, DATA);
                (r.r12, r.r13, r.r9, r.rsi) = (1, 0, DATA, 4096);
                let mut left = 20;
                let end = poked(&mut cx, |cx| {
                    loop {
                        left -= 1;
                        match cx.switch(&space, &mut r).unwrap() {
                            Trap::Syscall if left > 0 => r.set_return(0),
                            other => return other,
                        }
                    }
                });
                if end == Trap::Dead {
                    dead += 1;
                    (space, cx) = fresh();
                }
            }
        }
        println!("{}: {dead} of the jumps ended their process", g.platform.name());
        assert!(g.platform.name() != "ptrace" || dead == 0);
    });
}

/// Writes over context blocks (where there are some), its own and others', with several patterns.
#[test]
fn spoils_contexts() {
    each(|g| {
        for pattern in [0, 1, 2, 3, u64::MAX, 0x0000_0001_0000_0001, CONTEXTS + 0x2000, 0x8000_0000_0000_0000]
        {
            for (from, words) in
                [(CONTEXTS, 512), (CONTEXTS + 0x1000, 3584), (CONTEXTS, 4096 * 2), (CONTEXTS + 8, 7)]
            {
                let space = g.space();
                let mut cx = g.platform.new_context().unwrap();
                let mut victim = g.platform.new_context().unwrap();
                let mut rv = regs(at!(g_loop));
                let _ = victim.switch(&space, &mut rv).unwrap();
                let mut r = regs(at!(g_spoil));
                (r.rdi, r.rcx, r.rax) = (from, words, pattern);
                for _ in 0..5 {
                    let trap = poked(&mut cx, |cx| cx.switch(&space, &mut r).unwrap());
                    if trap == Trap::Dead {
                        break;
                    }
                    let _ = poked(&mut victim, |cx| cx.switch(&space, &mut rv).unwrap());
                    let _ = (cx.fpu(), victim.fpu());
                }
            }
        }
    });
}

/// One thread spoils the blocks of the others all the time, while these work.
#[test]
fn spoils_while_others_run() {
    each(|g| {
        for pattern in [0u64, 2, 0x1111_1111_1111_1111] {
            let space = g.space();
            let stop = AtomicBool::new(false);
            std::thread::scope(|s| {
                let workers: Vec<_> = (0..3)
                    .map(|_| {
                        s.spawn(|| {
                            let mut cx = g.platform.new_context().unwrap();
                            let mut r = regs(at!(g_loop));
                            poked(&mut cx, |cx| {
                                for _ in 0..200 {
                                    match cx.switch(&space, &mut r) {
                                        Ok(Trap::Dead) | Err(_) => break,
                                        Ok(_) => r = regs(at!(g_loop)),
                                    }
                                }
                            });
                        })
                    })
                    .collect();
                s.spawn(|| {
                    let mut cx = g.platform.new_context().unwrap();
                    let mut r = regs(at!(g_spoil_spin));
                    (r.rdi, r.rcx, r.rax) = (CONTEXTS, 4096 * 4, pattern);
                    poked(&mut cx, |cx| {
                        while !stop.load(Ordering::Relaxed) {
                            if matches!(cx.switch(&space, &mut r), Ok(Trap::Dead) | Err(_)) {
                                break;
                            }
                        }
                    });
                });
                for w in workers {
                    w.join().unwrap();
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
    });
}

/// The command page and the text cannot be written, and nothing there can be unmapped by way of the interface.
#[test]
fn stub_pages_are_read_only() {
    each(|g| {
        let space = g.space();
        for at in [CMD, TEXT, TEXT + 0x2000] {
            let mut cx = g.platform.new_context().unwrap();
            let mut r = regs(at!(g_store));
            r.rdi = at;
            assert!(
                matches!(cx.switch(&space, &mut r).unwrap(), Trap::Fault(f) if f.addr == at && f.code == 2)
            );
            let page = GuestRange { start: at, end: at + PAGE };
            assert!(space.unmap(page).is_err() && space.protect(page, Prot::all()).is_err());
        }
    });
}

/// A stub process that goes from one guest to the next brings nothing along: not what was written into the context block, no vector
/// registers, no mask or stack of signals.
#[test]
fn nothing_is_inherited() {
    const PATTERN: u64 = 0x5a5a_1234_5678_9abc;
    each(|g| {
        let mut pids = std::collections::BTreeMap::new();
        for round in 0..30 {
            let space = g.space();
            *pids.entry(space.host_pid()).or_insert(0) += 1;
            let mut cx = g.platform.new_context().unwrap();
            assert_eq!(cx.switch(&space, &mut regs(at!(g_args))).unwrap(), Trap::Syscall);
            let fpu = cx.fpu().unwrap();
            assert!(fpu.as_bytes()[160..416].iter().all(|b| *b == 0), "vector registers of another guest");
            if g.platform.name() == "systrap" {
                let mut r = regs(at!(g_watch));
                (r.rdi, r.rsi) = (CONTEXTS + 0x3000, PATTERN);
                assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall, "memory of another guest");
                r = regs(at!(g_store));
                (r.rdi, r.rbx) = (CONTEXTS + 0x3000, PATTERN);
                assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
            }
            let mut r = regs(at!(g_fpu));
            r.rbx = PATTERN;
            assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
            if round % 3 == 0 {
                // A frame of its own making: the thread goes on with other masks and stacks, and ends badly or not at all.
                let mut r = regs(TEXT + 0x300 + round);
                (r.rsp, r.rbx, r.rax) = (CONTEXTS + 0x3000, CMD, 15);
                let _ = poked(&mut cx, |cx| cx.switch(&space, &mut r).unwrap());
            }
            cx.release();
            drop((cx, space));
            std::thread::sleep(Duration::from_millis(3));
        }
        assert!(
            g.platform.name() == "ptrace" || pids.values().any(|n| *n > 2),
            "no process was used again: {pids:?}"
        );
    });
}
