//! What every platform must do with small guests. Each test runs on each platform.

mod common;

use common::{CODE, DATA, Guest, regs};
use platform::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

fn ptrace() -> Arc<dyn Platform> {
    static P: OnceLock<Arc<dyn Platform>> = OnceLock::new();
    P.get_or_init(|| platform::open("ptrace").expect("ptrace platform")).clone()
}

fn systrap() -> Arc<dyn Platform> {
    static P: OnceLock<Arc<dyn Platform>> = OnceLock::new();
    P.get_or_init(|| platform::open("systrap").expect("systrap platform")).clone()
}

macro_rules! tests {
    ($($name:ident)*) => {
        mod on_ptrace { $( #[test] fn $name() { super::$name(super::Guest::new(super::ptrace())) } )* }
        mod on_systrap { $( #[test] fn $name() { super::$name(super::Guest::new(super::systrap())) } )* }
    };
}
tests! {
    syscall_loop arguments registers_kept fault_and_map_in protection exceptions foreign_calls vsyscall
    threads second_space_shares_memory interrupts interrupt_is_sticky single_step segment_bases fpu_state execve_moves
    killed_from_outside stopped_from_outside mapping_while_running bad_ranges truncated_file many_maps huge_batch
    release_and_reuse interrupt_storm a_thousand_threads put_off_until_the_guest_runs
}

fn syscall_loop(g: Guest) {
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    let mut r = regs(at!(g_loop));
    for i in 0..100 {
        assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
        assert_eq!((r.syscall_nr(), r.rip, r.rbx), (121, at!(g_loop) + 7, i));
        r.set_return(1);
    }
}

fn arguments(g: Guest) {
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    let mut r = regs(at!(g_args));
    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
    assert_eq!((r.syscall_nr(), r.args()), (777, [1, 2, 3, 4, 5, 6]));
}

fn registers_kept(g: Guest) {
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    let mut r = regs(at!(g_keep));
    let values: Vec<u64> = (0..14).map(|i| 0x1111_2222_3333_4444u64.wrapping_mul(i * 2 + 1)).collect();
    [r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx] = values[0..6].try_into().unwrap();
    [r.r10, r.r9, r.r8, r.rdx, r.rsi, r.rdi] = values[6..12].try_into().unwrap();
    r.rax = 0x1234;
    let before = r;
    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
    let after = r;
    assert_eq!(after.orig_rax, 0x1234);
    r.rax = before.rax;
    r.orig_rax = before.orig_rax;
    r.rip = before.rip;
    r.rcx = before.rcx;
    r.r11 = before.r11;
    assert_eq!(r, Registers { eflags: r.eflags, ..before });
    // And what the sentry sets arrives: the next trap is at ud2 with everything as set.
    r = after;
    r.set_return(-22);
    r.rbx = 99;
    let want = r;
    assert!(matches!(cx.switch(&space, &mut r).unwrap(), Trap::Signal(s) if s.signo == libc::SIGILL));
    assert_eq!((r.rax, r.rbx, r.r15, r.rip), (want.rax, 99, want.r15, at!(g_keep) + 2));
}

fn fault_and_map_in(g: Guest) {
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    let mut r = regs(at!(g_store));
    r.rdi = DATA + 0x3008;
    r.rbx = 0xfeed;
    match cx.switch(&space, &mut r).unwrap() {
        Trap::Fault(f) => assert_eq!((f.signo, f.code, f.addr), (libc::SIGSEGV, 1, DATA + 0x3008)),
        other => panic!("{other:?}"),
    }
    assert_eq!(r.rip, at!(g_store));
    g.map_data(&space, Prot::READ | Prot::WRITE);
    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
    assert_eq!((r.rsi, g.word(0x3008)), (0xfeed, 0xfeed));
}

fn protection(g: Guest) {
    let space = g.space();
    g.map_data(&space, Prot::READ | Prot::WRITE);
    let range = GuestRange { start: DATA, end: DATA + PAGE };
    space.protect(range, Prot::READ).unwrap();
    let mut cx = g.platform.new_context().unwrap();
    let mut r = regs(at!(g_store));
    r.rdi = DATA;
    match cx.switch(&space, &mut r).unwrap() {
        Trap::Fault(f) => assert_eq!((f.signo, f.code, f.addr), (libc::SIGSEGV, 2, DATA)),
        other => panic!("{other:?}"),
    }
    space.unmap(range).unwrap();
    match cx.switch(&space, &mut r).unwrap() {
        Trap::Fault(f) => assert_eq!(f.code, 1),
        other => panic!("{other:?}"),
    }
    // Over a hole: nothing may be more accessible afterwards.
    space.protect(GuestRange { start: DATA, end: DATA + 4 * PAGE }, Prot::READ).unwrap();
    for off in [0, PAGE, 3 * PAGE] {
        r.rdi = DATA + off;
        assert!(matches!(cx.switch(&space, &mut r).unwrap(), Trap::Fault(_)));
    }
    // Data is not code.
    let mut r = regs(DATA + 8 * PAGE);
    assert!(matches!(cx.switch(&space, &mut r).unwrap(), Trap::Fault(f) if f.addr == DATA + 8 * PAGE));
}

fn exceptions(g: Guest) {
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    let mut run = |rip| {
        let mut r = regs(rip);
        (cx.switch(&space, &mut r).unwrap(), r.rip)
    };
    let (t, rip) = run(at!(g_ud2));
    assert!(matches!(t, Trap::Signal(s) if s.signo == libc::SIGILL && s.addr == rip), "{t:?}");
    let (t, _) = run(at!(g_div));
    assert!(matches!(t, Trap::Signal(s) if s.signo == libc::SIGFPE && s.code == 1), "{t:?}");
    let (t, rip) = run(at!(g_int3));
    assert!(matches!(t, Trap::Signal(s) if s.signo == libc::SIGTRAP), "{t:?}");
    assert_eq!(rip, at!(g_int3) + 1);
    let (t, rip) = run(at!(g_hlt));
    assert!(
        matches!(t, Trap::Fault(f) if f.signo == libc::SIGSEGV && f.code == 0x80 && f.addr == 0),
        "{t:?}"
    );
    assert_eq!(rip, at!(g_hlt));
    // A non-canonical rip is a fault, not an error of ours.
    let (t, _) = run(0x8000_0000_0000_0000);
    assert!(matches!(t, Trap::Fault(f) if f.signo == libc::SIGSEGV), "{t:?}");
}

fn foreign_calls(g: Guest) {
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    for rip in [at!(g_int80), at!(g_sysenter)] {
        let mut r = regs(rip);
        match cx.switch(&space, &mut r).unwrap() {
            Trap::Signal(SignalInfo { signo, .. }) | Trap::Fault(FaultInfo { signo, .. }) => {
                assert!(signo == libc::SIGSEGV || signo == libc::SIGILL, "{signo}");
            }
            other => panic!("a 32-bit call came out as {other:?}"),
        }
    }
    // The thread is still of use.
    let mut r = regs(at!(g_args));
    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
}

fn vsyscall(g: Guest) {
    let space = g.space();
    g.map_data(&space, Prot::READ | Prot::WRITE);
    let mut cx = g.platform.new_context().unwrap();
    let mut r = regs(at!(g_vsyscall));
    match cx.switch(&space, &mut r).unwrap() {
        // The host emulates the page: the call must come to us, as the system call it is.
        Trap::Syscall => {
            assert_eq!((r.syscall_nr(), r.rdi), (libc::SYS_time as u64, 0x50_0000));
            r.set_return(1234);
            assert!(matches!(cx.switch(&space, &mut r).unwrap(), Trap::Signal(_)));
            assert_eq!(r.rbx, 1234);
        }
        // The host has no such page.
        Trap::Fault(f) => assert_eq!(f.addr, 0xffff_ffff_ff60_0400),
        other => panic!("{other:?}"),
    }
    assert_eq!(g.word(0), 0, "the host's kernel wrote the time into guest memory");
}

fn threads(g: Guest) {
    let space = g.space();
    g.map_data(&space, Prot::READ | Prot::WRITE);
    std::thread::scope(|s| {
        for _ in 0..64 {
            s.spawn(|| {
                let mut cx = g.platform.new_context().unwrap();
                for _ in 0..10 {
                    let mut r = regs(at!(g_count));
                    (r.rdi, r.rsi) = (DATA + 64, 100);
                    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
                    assert_eq!((r.syscall_nr(), r.rsi), (60, 0));
                }
            });
        }
    });
    assert_eq!(g.word(64), 64 * 10 * 100);
}

fn a_thousand_threads(g: Guest) {
    let space = g.space();
    g.map_data(&space, Prot::READ | Prot::WRITE);
    let all_there = std::sync::Barrier::new(1000);
    std::thread::scope(|s| {
        for _ in 0..1000 {
            let body = || {
                let mut cx = g.platform.new_context().unwrap();
                let mut run = || {
                    let mut r = regs(at!(g_count));
                    (r.rdi, r.rsi) = (DATA + 72, 10);
                    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
                };
                run();
                all_there.wait();
                run();
            };
            std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(s, body).unwrap();
        }
    });
    assert_eq!(g.word(72), 1000 * 2 * 10);
}

fn second_space_shares_memory(g: Guest) {
    let (a, b) = (g.space(), g.space());
    g.map_data(&a, Prot::READ | Prot::WRITE);
    g.map_data(&b, Prot::READ);
    let mut ca = g.platform.new_context().unwrap();
    let mut cb = g.platform.new_context().unwrap();
    let (mut ra, mut rb) = (regs(at!(g_store)), regs(at!(g_store)));
    (ra.rdi, ra.rbx) = (DATA + 128, 42);
    assert_eq!(ca.switch(&a, &mut ra).unwrap(), Trap::Syscall);
    rb.rdi = DATA + 128;
    assert!(matches!(cb.switch(&b, &mut rb).unwrap(), Trap::Fault(f) if f.code == 2), "read-only there");
    rb.rip = at!(g_store) + 3; // only the load
    assert_eq!(cb.switch(&b, &mut rb).unwrap(), Trap::Syscall);
    assert_eq!(rb.rsi, 42);
}

fn interrupts(g: Guest) {
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    let interrupt = cx.interrupter();
    let mut r = regs(at!(g_spin));
    for i in 0..30 {
        let before = r.rbx;
        let handle = interrupt.clone();
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(i * 200));
            handle.interrupt();
        });
        let start = Instant::now();
        assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Interrupted);
        assert!(start.elapsed() < Duration::from_secs(5));
        other.join().unwrap();
        assert!(r.rbx >= before && r.rip >= at!(g_spin) && r.rip < at!(g_spin) + 8);
    }
    assert!(r.rbx > 0);
}

/// The guest makes no trap, so what was put off is done without one.
fn put_off_until_the_guest_runs(g: Guest) {
    struct Stop(Arc<dyn Interrupt>, AtomicBool);
    impl later::Work for Stop {
        fn work(&self) {
            self.1.store(true, Ordering::SeqCst);
            self.0.interrupt();
        }
    }
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    let stop = Arc::new(Stop(cx.interrupter(), AtomicBool::new(false)));
    let mut r = regs(at!(g_spin));
    later::comes_by(true);
    for _ in 0..30 {
        stop.1.store(false, Ordering::SeqCst);
        assert!(later::put_off(&stop));
        let (done, was_done) = std::sync::mpsc::channel::<()>();
        let handle = cx.interrupter();
        let anyway = std::thread::spawn(move || {
            if was_done.recv_timeout(Duration::from_secs(10)).is_err() {
                handle.interrupt();
            }
        });
        assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Interrupted);
        assert!(stop.1.load(Ordering::SeqCst), "nobody came by");
        done.send(()).unwrap();
        anyway.join().unwrap();
    }
    later::comes_by(false);
}

fn interrupt_is_sticky(g: Guest) {
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    let interrupt = cx.interrupter();
    interrupt.interrupt();
    interrupt.interrupt();
    let mut r = regs(at!(g_args));
    let before = r;
    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Interrupted);
    assert_eq!(r, before);
    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
    interrupt.interrupt();
    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Interrupted);
    assert!(matches!(cx.switch(&space, &mut r).unwrap(), Trap::Signal(_)));
}

fn interrupt_storm(g: Guest) {
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    let interrupt = cx.interrupter();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                interrupt.interrupt();
            }
        });
        let mut r = regs(at!(g_loop));
        let (mut calls, mut interrupted) = (0u64, 0);
        while calls < 300 {
            match cx.switch(&space, &mut r).unwrap() {
                Trap::Syscall => {
                    calls += 1;
                    r.set_return(1);
                }
                Trap::Interrupted => interrupted += 1,
                other => panic!("{other:?}"),
            }
            // No call is lost or made twice, wherever the interrupts hit.
            assert!(r.rbx == calls || r.rbx + 1 == calls, "{} {calls}", r.rbx);
            if interrupted > 20_000 {
                stop.store(true, Ordering::Relaxed);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

fn single_step(g: Guest) {
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    let mut r = regs(at!(g_step));
    r.set_single_step(true);
    let mut seen = Vec::new();
    for _ in 0..12 {
        let trap = cx.switch(&space, &mut r).unwrap();
        let off = r.rip - at!(g_step);
        match trap {
            Trap::Signal(s) if s.signo == libc::SIGTRAP => {
                assert_eq!(s.code, 2, "TRAP_TRACE");
                seen.push(off);
            }
            Trap::Syscall => {
                seen.push(1000 + off);
                r.set_return(7);
            }
            Trap::Signal(s) if s.signo == libc::SIGILL => break,
            other => panic!("{other:?}"),
        }
        assert!(r.single_step());
    }
    // After a call Linux reports the step at the call's end, before the next instruction; there the kernel above decides.
    let without = |v: &[u64]| v.iter().copied().filter(|o| *o != 10).collect::<Vec<_>>();
    assert_eq!(without(&seen), [1, 2, 3, 8, 1010, 11, 12]);
}

fn segment_bases(g: Guest) {
    let space = g.space();
    g.map_data(&space, Prot::READ | Prot::WRITE);
    let block = g.mem.block(g.data);
    block.store_u64(0x100, 11).unwrap();
    block.store_u64(0x208, 22).unwrap();
    let mut cx = g.platform.new_context().unwrap();
    for _ in 0..3 {
        let mut r = regs(at!(g_bases));
        (r.gs_base, r.fs_base) = (DATA + 0x100, DATA + 0x200);
        assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
        assert_eq!((r.rbx, r.rsi, r.gs_base, r.fs_base), (11, 22, DATA + 0x100, DATA + 0x200));
    }
}

fn fpu_state(g: Guest) {
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    assert_eq!(cx.fpu().unwrap(), FpuState::initial());
    let mut r = regs(at!(g_fpu));
    r.rbx = 0x1122_3344_5566_7788;
    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
    let state = cx.fpu().unwrap();
    assert_eq!(state.as_bytes().len(), FpuState::len());
    assert_eq!(state.as_bytes()[160..168], 0x1122_3344_5566_7788u64.to_le_bytes());
    // It stays over a switch.
    r.rbx = 0;
    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
    assert_eq!((r.syscall_nr(), r.rbx), (2, 0x1122_3344_5566_7788));
    // Another thread starts with what it is given, as after fork.
    let mut other = g.platform.new_context().unwrap();
    other.set_fpu(&FpuState::from_guest(state.as_bytes()).unwrap()).unwrap();
    let mut r2 = regs(at!(g_fpu) + 12);
    assert_eq!(other.switch(&space, &mut r2).unwrap(), Trap::Syscall);
    assert_eq!((r2.syscall_nr(), r2.rbx), (2, 0x1122_3344_5566_7788));
    // And without, with a clean one.
    let mut third = g.platform.new_context().unwrap();
    let mut r3 = regs(at!(g_fpu) + 12);
    r3.rbx = 5;
    assert_eq!(third.switch(&space, &mut r3).unwrap(), Trap::Syscall);
    assert_eq!(r3.rbx, 0);
    let mut bad = state.as_bytes().to_vec();
    bad[512 + 7] = 0x80;
    assert!(FpuState::from_guest(&bad).is_err());
}

fn execve_moves(g: Guest) {
    let (a, b) = (g.space(), g.space());
    g.map_data(&b, Prot::READ | Prot::WRITE);
    let mut cx = g.platform.new_context().unwrap();
    let mut r = regs(at!(g_fpu));
    r.rbx = 77;
    assert_eq!(cx.switch(&a, &mut r).unwrap(), Trap::Syscall);
    drop(a);
    let mut r = regs(at!(g_fpu) + 12);
    assert_eq!(cx.switch(&b, &mut r).unwrap(), Trap::Syscall);
    assert_eq!(r.rbx, 0, "execve clears vector registers");
    let mut r = regs(at!(g_store));
    r.rdi = DATA;
    assert_eq!(cx.switch(&b, &mut r).unwrap(), Trap::Syscall);
}

fn killed_from_outside(g: Guest) {
    for idle in [true, false] {
        let space = g.space();
        let mut cx = g.platform.new_context().unwrap();
        let mut r = regs(at!(g_args));
        assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
        let pid = space.host_pid().unwrap().cast_signed();
        let kill = move || assert_eq!(unsafe_kill(pid, libc::SIGKILL), 0);
        if idle {
            kill();
            std::thread::sleep(Duration::from_millis(20));
        } else {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                kill();
            });
        }
        let mut r = regs(at!(g_spin));
        assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Dead);
        let range = GuestRange { start: DATA, end: DATA + PAGE };
        assert!(matches!(space.unmap(range), Err(PlatformError::Dead)));
        assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Dead);
    }
    // Dead before the first switch, found by the mapper's side.
    let space = g.space();
    unsafe_kill(space.host_pid().unwrap().cast_signed(), libc::SIGKILL);
    std::thread::sleep(Duration::from_millis(20));
    let range = GuestRange { start: DATA, end: DATA + PAGE };
    assert!(matches!(space.unmap(range), Err(PlatformError::Dead)));
    let mut cx = g.platform.new_context().unwrap();
    assert_eq!(cx.switch(&space, &mut regs(at!(g_spin))).unwrap(), Trap::Dead);
}

fn unsafe_kill(pid: i32, signal: i32) -> i32 {
    // SAFETY: plain numbers; the process is a stub of this test.
    unsafe { libc::kill(pid, signal) }
}

fn stopped_from_outside(g: Guest) {
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    let pid = space.host_pid().unwrap().cast_signed();
    let mut r = regs(at!(g_loop));
    for signal in [libc::SIGSTOP, libc::SIGTERM, libc::SIGTSTP, libc::SIGSEGV, libc::SIGUSR1, libc::SIGSTOP] {
        assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
        unsafe_kill(pid, signal);
        std::thread::sleep(Duration::from_millis(5));
        r.set_return(0);
        assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall, "after signal {signal}");
        g.map_data(&space, Prot::READ);
        r.set_return(0);
    }
}

fn mapping_while_running(g: Guest) {
    let space = g.space();
    g.map_data(&space, Prot::READ | Prot::WRITE);
    std::thread::scope(|s| {
        let watcher = s.spawn(|| {
            let mut cx = g.platform.new_context().unwrap();
            let mut r = regs(at!(g_watch));
            (r.rdi, r.rsi) = (DATA, 0);
            loop {
                match cx.switch(&space, &mut r).unwrap() {
                    Trap::Syscall => return r.syscall_nr(),
                    // The page is away for a moment now and then.
                    Trap::Fault(f) => assert_eq!(f.addr, DATA),
                    other => panic!("{other:?}"),
                }
            }
        });
        for _ in 0..200 {
            space.unmap(GuestRange { start: DATA, end: DATA + PAGE }).unwrap();
            g.map_data(&space, Prot::READ | Prot::WRITE);
        }
        g.mem.block(g.data).store_u64(0, 1).unwrap();
        assert_eq!(watcher.join().unwrap(), 3);
    });
}

fn bad_ranges(g: Guest) {
    let space = g.space();
    let limits = g.platform.address_limits();
    let file = g.mem.host_file();
    let bad = [
        (0, 0x1000),
        (limits.max - 0x1000, limits.max + 0x1000),
        (0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_1000),
        (0x40_0001, 0x40_2000),
        (0x40_0000, 0x40_0000),
        (0x50_0000, 0x40_0000),
    ];
    for (start, end) in bad {
        let range = GuestRange { start, end };
        assert!(space.map(range, file, 0, Prot::READ, false).is_err());
        assert!(space.unmap(range).is_err());
        assert!(space.protect(range, Prot::READ).is_err());
    }
    let ok = GuestRange { start: limits.max - 0x1000, end: limits.max };
    space.map(ok, file, 0, Prot::READ, true).unwrap();
    let low = GuestRange { start: limits.min, end: limits.min + 0x1000 };
    space.map(low, file, 0, Prot::READ, true).unwrap();
    space.unmap(GuestRange { start: limits.min, end: limits.max }).unwrap();
    // Everything of the guest's is gone, the stub itself still works.
    let mut cx = g.platform.new_context().unwrap();
    assert!(matches!(cx.switch(&space, &mut regs(CODE)).unwrap(), Trap::Fault(_)));
    // The stub's own pages cannot be written, whatever the guest tries; reading them tells nothing.
    g.map_data(&space, Prot::READ | Prot::WRITE);
}

fn truncated_file(g: Guest) {
    let space = g.space();
    let fd = rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = HostFile::new(fd, true);
    let range = GuestRange { start: DATA, end: DATA + 2 * PAGE };
    space.map(range, &file, 0, Prot::READ | Prot::WRITE, false).unwrap();
    let mut cx = g.platform.new_context().unwrap();
    let mut r = regs(at!(g_store));
    r.rdi = DATA + PAGE;
    let t = cx.switch(&space, &mut r).unwrap();
    assert!(matches!(t, Trap::Fault(f) if f.signo == libc::SIGBUS && f.addr == DATA + PAGE), "{t:?}");
    file.set_len(2 * PAGE).unwrap();
    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
}

fn many_maps(g: Guest) {
    let space = g.space();
    for i in 0..1000u64 {
        let start = 0x1_0000_0000 + i * 2 * PAGE;
        let at = GuestRange { start, end: start + PAGE };
        space.map(at, g.mem.host_file(), g.data.start, Prot::READ, false).unwrap();
    }
    space.unmap(GuestRange { start: 0x1_0000_0000, end: 0x2_0000_0000 }).unwrap();
}

fn huge_batch(g: Guest) {
    let space = g.space();
    let file = g.mem.host_file();
    let page = |i: u64| GuestRange { start: DATA + i * PAGE, end: DATA + (i + 1) * PAGE };
    let offset = g.data.start;
    let maps =
        (0..200).map(|i| MapChange::Map { at: page(i), file, offset, prot: Prot::READ, precommit: true });
    let mut all: Vec<_> = maps.collect();
    all.push(MapChange::Unmap(page(7)));
    // A hole in the middle of a batch, and more after it.
    all.push(MapChange::Protect(GuestRange { start: page(6).start, end: page(9).end }, Prot::empty()));
    all.push(MapChange::Map { at: page(8), file, offset, prot: Prot::READ | Prot::WRITE, precommit: false });
    space.apply(&all).unwrap();
    let mut cx = g.platform.new_context().unwrap();
    for (i, ok) in [(5, false), (6, false), (7, false), (8, true), (9, false)] {
        let mut r = regs(at!(g_store));
        r.rdi = page(i).start;
        let trap = cx.switch(&space, &mut r).unwrap();
        assert_eq!(trap == Trap::Syscall, ok, "page {i}: {trap:?}");
    }
}

fn release_and_reuse(g: Guest) {
    let space = g.space();
    let mut cx = g.platform.new_context().unwrap();
    let pid = space.host_pid().unwrap();
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    for _ in 0..50 {
        assert_eq!(cx.switch(&space, &mut regs(at!(g_args))).unwrap(), Trap::Syscall);
        assert!(threads() >= 2);
        cx.release();
        // One may be kept for the next.
        assert!(threads() <= 2);
    }
}
