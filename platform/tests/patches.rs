//! Patched call sites (systrap): the same results, registers and signals as without, whatever comes in between.

#[expect(dead_code, reason = "only part of it is needed here")]
mod common;
#[path = "common/sites.rs"]
mod sites;

use common::DATA;
use platform::*;
use sites::{CODE, World, full};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn the_same_registers() {
    let mut w = World::new();
    for (start, end) in [
        (pos!(p_number), pos!(p_number_end)),
        (pos!(p_flags), pos!(p_flags_end)),
        (pos!(p_compare), pos!(p_compare_end)),
        (pos!(p_moved), pos!(p_moved_end)),
    ] {
        let mut seen = Vec::new();
        let mut r = full(start);
        for i in 0..40 {
            if i == 10 {
                assert!(w.patch(end, 121));
                assert!(!w.patch(end, 121), "once is enough");
            }
            assert_eq!(w.switch(&mut r), Trap::Syscall);
            assert_eq!((r.orig_rax, r.rip, r.rcx, r.r11), (121, end, end, r.eflags));
            // Elsewhere they come from the count in rbx.
            let flags = if start == pos!(p_flags) { r.eflags } else { 0 };
            seen.push(Registers { rbx: 0, eflags: flags, r11: flags, ..r });
            assert_eq!(r.rbx, i);
            r.set_return(i as i64);
        }
        let first = seen.remove(1);
        for s in &seen[1..] {
            assert_eq!(Registers { r9: first.r9, ..*s }, first, "{start:x}");
        }
        if start == pos!(p_number) {
            let word = |off| w.g.word(8 * PAGE as usize - off);
            assert_eq!((word(8), word(128)), (77, 78), "the red zone");
        }
        if start == pos!(p_flags) {
            assert_eq!(seen[20].r9 & 0x41, 0x41);
        }
    }
}

#[test]
fn results_decide_comparisons() {
    let mut w = World::new();
    let mut r = full(pos!(p_compare));
    for i in 0..100u64 {
        if i == 20 {
            // The thread is in the kernel: it comes back to an instruction that is there no more.
            assert!(w.patch(pos!(p_compare_end), 121));
        }
        assert_eq!(w.switch(&mut r), Trap::Syscall);
        assert_eq!((r.rbx, r.rbp), (i.div_ceil(2), 10 + i / 2));
        r.set_return(if i % 2 == 0 { 5 } else { -9 });
    }
    // Jumps to both instructions.
    r.rip = pos!(p_compare_end);
    r.rax = 3;
    let before = r.rbx;
    assert_eq!(w.switch(&mut r), Trap::Syscall);
    assert_eq!(r.rbx, before + 1);
    r.rip = pos!(p_compare_call);
    r.rax = 1234;
    assert_eq!(w.switch(&mut r), Trap::Syscall);
    assert_eq!(r.orig_rax, 1234);
    // An invalid instruction of the guest's own, where there was a patch.
    w.map_code();
    r.rip = pos!(p_number);
    assert_eq!(w.switch(&mut r), Trap::Syscall);
    let behind = pos!(p_compare_end);
    w.g.mem.block(w.code).write((behind - CODE) as usize, &[0x0f, 0x0b]).unwrap();
    for _ in 0..3 {
        r.rip = behind;
        let trap = w.switch(&mut r);
        assert!(matches!(trap, Trap::Signal(s) if s.signo == libc::SIGILL), "{trap:?}");
        assert_eq!(r.rip, behind);
    }
}

#[test]
fn all_registers_can_change() {
    let mut w = World::new();
    assert!(w.patch(pos!(p_number_end), 121));
    let mut r = full(pos!(p_number));
    for i in 0..200u64 {
        assert_eq!(w.switch(&mut r), Trap::Syscall);
        r.rax = i;
        if i % 3 == 0 {
            r.rip = pos!(p_number_end) - 2;
            (r.rax, r.rcx, r.r11, r.r12, r.rbx) = (500 + i, 1, 2, i, 7);
            r.fs_base = 0x1000 * i;
            assert_eq!(w.switch(&mut r), Trap::Syscall);
            assert_eq!((r.orig_rax, r.r12, r.rbx, r.fs_base), (500 + i, i, 7, 0x1000 * i));
            r.rax = 0;
        }
    }
    // Where no code can be.
    r.rip = 0x8000_0000_0000_0000;
    assert!(matches!(w.switch(&mut r), Trap::Fault(f) if f.signo == libc::SIGSEGV));
    assert_eq!(r.rip, 0x8000_0000_0000_0000);
}

#[test]
fn vector_state_of_waiting_threads() {
    let mut w = World::new();
    assert!(w.patch(pos!(p_fpu_end), 121));
    let mut r = full(pos!(p_fpu));
    assert_eq!(w.switch(&mut r), Trap::Syscall);
    for i in 1..100u64 {
        let mut image = w.cx.fpu().unwrap().as_bytes().to_vec();
        assert_eq!(w.cx.fpu().unwrap().as_bytes(), image, "asked twice");
        // xmm7 of the legacy area, and SSE in use.
        image[160 + 7 * 16..][..8].copy_from_slice(&i.to_le_bytes());
        image[512] |= 2;
        w.cx.set_fpu(&FpuState::from_guest(&image).unwrap()).unwrap();
        assert_eq!(w.switch(&mut r), Trap::Syscall);
        assert_eq!(r.rbx, i);
        if i % 7 == 0 {
            assert_eq!(w.switch(&mut r), Trap::Syscall);
            assert_eq!(r.rbx, i, "it stays");
        }
    }
}

#[test]
fn mappings_undo_patches() {
    let mut w = World::new();
    let mut r = full(pos!(p_number));
    let end = pos!(p_number_end);
    let all = GuestRange { start: CODE, end: CODE + PAGE };
    for i in 0..60u64 {
        if i % 5 == 0 {
            assert!(w.patch(end, 121), "{i}");
        }
        match i % 15 {
            3 => w.map_code(),
            8 => w.space.protect(all, Prot::READ | Prot::EXEC).unwrap(),
            13 => {
                // Something of the guest's in the way.
                let at = GuestRange { start: CODE - (1 << 20), end: CODE - (1 << 20) + PAGE };
                w.space.map(at, w.g.mem.host_file(), w.g.data.start, Prot::READ, false).unwrap();
                w.space.unmap(at).unwrap();
            }
            _ => {}
        }
        assert_eq!(w.switch(&mut r), Trap::Syscall);
        assert_eq!((r.rip, r.rbx), (end, i));
        if i % 15 == 3 || i % 15 == 8 || i % 15 == 13 {
            w.map_code();
        }
    }
    w.space.unmap(all).unwrap();
    assert!(matches!(w.switch(&mut r), Trap::Fault(f) if f.addr == end));
}

#[test]
fn single_steps() {
    let steps = |patched: bool, start: u64, end: u64| {
        let mut w = World::new();
        if patched {
            assert!(w.patch(end, 121));
        }
        let mut r = full(start);
        let mut seen = Vec::new();
        for _ in 0..30 {
            r.set_single_step(true);
            let trap = w.switch(&mut r);
            seen.push((r.rip, r.rax, matches!(trap, Trap::Syscall)));
            if trap == Trap::Syscall {
                r.rax = 1;
            }
        }
        seen
    };
    for (start, end) in [
        (pos!(p_number), pos!(p_number_end)),
        (pos!(p_compare), pos!(p_compare_end)),
        (pos!(p_moved), pos!(p_moved_end)),
    ] {
        assert_eq!(steps(true, start, end), steps(false, start, end), "{start:x}");
    }
}

/// Interrupts at every instruction of the way in and out: no call is lost or made twice, and what is seen is the guest's own code.
#[test]
fn interrupts_everywhere() {
    for (start, end) in [
        (pos!(p_number), pos!(p_number_end)),
        (pos!(p_compare), pos!(p_compare_end)),
        (pos!(p_moved), pos!(p_moved_end)),
        (pos!(p_pid), pos!(p_pid_end)),
    ] {
        let mut w = World::new();
        let constant = start == pos!(p_pid);
        let nr = if constant { 39 } else { 121 };
        let c = Constants { pid: 12, tid: 1, uid: 2, euid: 3, gid: 4, egid: 5 };
        w.cx.set_constants(Some(c));
        let mut r = full(start);
        // A first call, so that the thread is there.
        assert_eq!(w.switch(&mut r), Trap::Syscall);
        r.rax = 12;
        assert!(w.patch(end, nr));
        let handle = w.cx.interrupter();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let storm = std::thread::spawn(move || {
            let mut n = 0u32;
            while !seen.load(Ordering::Relaxed) {
                handle.interrupt();
                n = n.wrapping_mul(1_103_515_245).wrapping_add(12345);
                for _ in 0..(n >> 16) % 4000 {
                    std::hint::spin_loop();
                }
            }
        });
        let (mut calls, mut interrupts) = (1u64, 0u64);
        let begin = Instant::now();
        let enough = |interrupts| interrupts > 100 || begin.elapsed() > Duration::from_secs(30);
        while begin.elapsed() < Duration::from_millis(1500) || !enough(interrupts) {
            match w.switch(&mut r) {
                Trap::Syscall => {
                    assert_eq!((r.orig_rax, r.rip), (nr, end));
                    assert_eq!((r.rdi, r.rsi, r.rdx, r.r14), (1, 2, 3, 14));
                    if constant {
                        // Interrupted where the number is loaded: it goes on at the site's own instruction, which traps.
                        assert!(r.rbx >= calls && calls <= interrupts + 1, "{calls} {interrupts} {r:x?}");
                    } else {
                        assert_eq!(r.rbx, calls);
                    }
                    calls += 1;
                    r.rax = 12;
                }
                Trap::Interrupted => {
                    assert!((CODE..CODE + PAGE).contains(&r.rip), "{:x}", r.rip);
                    assert!((DATA..DATA + 16 * PAGE).contains(&r.rsp), "{:x}", r.rsp);
                    interrupts += 1;
                    if interrupts % 16 == 0 {
                        let state = w.cx.fpu().unwrap();
                        w.cx.set_fpu(&state).unwrap();
                    }
                }
                other => panic!("{other:?} {r:x?}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
        storm.join().unwrap();
        println!("{calls} calls, {interrupts} interrupts, rbx {}", r.rbx);
        assert!(interrupts > 100);
        if constant {
            assert!(r.rbx > calls + 1000, "answered without us");
        }
    }
}

#[test]
fn constants() {
    let mut w = World::new();
    let mut r = full(pos!(p_pid));
    r.rbx = 1;
    assert!(w.patch(pos!(p_pid_end), 39));
    for round in 0..20 {
        w.cx.set_constants(None);
        assert_eq!(w.switch(&mut r), Trap::Syscall, "{round}");
        assert_eq!(r.orig_rax, 39);
        r.rax = 12;
        let before = r.rbx;
        w.cx.set_constants(Some(Constants { pid: 12, tid: 1, uid: 2, euid: 3, gid: 4, egid: 5 }));
        // A busy machine may not have let it run by then.
        for _ in 0..1000 {
            let handle = w.cx.interrupter();
            let later = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(3));
                handle.interrupt();
            });
            assert_eq!(w.switch(&mut r), Trap::Interrupted);
            later.join().unwrap();
            if r.rbx > before + 1000 {
                break;
            }
        }
        assert!(r.rbx > before + 1000);
        // Another answer ends the loop at ud2; rcx was the return address, and flags were kept.
        w.cx.set_constants(Some(Constants { pid: 13, tid: 1, uid: 2, euid: 3, gid: 4, egid: 5 }));
        assert!(matches!(w.switch(&mut r), Trap::Signal(s) if s.signo == libc::SIGILL));
        assert_eq!((r.rax, r.r10, r.r9 & 0x40), (13, pos!(p_pid_end), 0));
        (r.rip, r.rbx) = (pos!(p_pid), 0);
        assert!(matches!(w.switch(&mut r), Trap::Signal(s) if s.signo == libc::SIGILL));
        assert_eq!((r.rax, r.r9 & 0x40), (13, 0x40));
        (r.rip, r.rbx) = (pos!(p_pid), 1);
    }
}

/// The parent's number changes while the guest runs: it sees that without a trap, also in another process than the one where it was told.
#[test]
fn parents_change_while_guests_run() {
    let mut w = World::new();
    let mut r = full(pos!(p_parent));
    w.cx.set_constants(Some(Constants { pid: 13, tid: 1, uid: 2, euid: 3, gid: 4, egid: 5 }));
    let handle = w.cx.interrupter();
    for round in 0..20u32 {
        if round % 4 == 0 {
            // A new process: nothing is patched there yet.
            handle.set_parent(100 + round);
            let other = w.g.platform.new_address_space().unwrap();
            w.g.map_data(&other, Prot::READ | Prot::WRITE);
            w.space = other;
            w.map_code();
            (r.rip, r.rbx, r.r12) = (pos!(p_parent), 1, 0);
            assert_eq!(w.switch(&mut r), Trap::Syscall);
            assert!(w.patch(pos!(p_parent_end), 110));
        }
        // A trap would be a call, and an answer that stays the old one no end at all.
        (r.rip, r.rbx, r.r12) = (pos!(p_parent), 1, u64::from(100 + round));
        let told = handle.clone();
        let (seen, is_seen) = std::sync::mpsc::channel();
        let later = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            told.set_parent(101 + round);
            if is_seen.recv_timeout(Duration::from_secs(20)).is_err() {
                told.interrupt();
            }
        });
        let trap = w.switch(&mut r);
        assert!(matches!(trap, Trap::Signal(s) if s.signo == libc::SIGILL), "{round}: {trap:?}");
        seen.send(()).unwrap();
        later.join().unwrap();
        assert_eq!((r.rax, r.r10), (u64::from(101 + round), pos!(p_parent_end)));
    }
    w.cx.set_constants(None);
    r.rip = pos!(p_parent);
    assert_eq!(w.switch(&mut r), Trap::Syscall);
    assert_eq!((r.orig_rax, r.rip), (110, pos!(p_parent_end)));
}

#[test]
fn many_threads_patch_and_call() {
    let w = World::new();
    let (space, platform) = (w.space.clone(), w.g.platform.clone());
    let w = Arc::new(w.g.mem.clone());
    let code = GuestRange { start: CODE, end: CODE + PAGE };
    let threads: Vec<_> = (0..12u64)
        .map(|n| {
            let (space, platform) = (space.clone(), platform.clone());
            std::thread::spawn(move || {
                let mut cx = platform.new_context().unwrap();
                let compare = n % 2 == 0;
                let mut r = full(if compare { pos!(p_compare) } else { pos!(p_flags) });
                r.rsp = DATA + (n + 1) * PAGE;
                for i in 0..6000 {
                    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
                    assert_eq!((r.rbx, r.orig_rax), (i, 121));
                    r.set_return(1);
                }
                cx.release();
            })
        })
        .collect();
    // The kernel's lock would keep these apart from one another; threads run meanwhile.
    for _ in 0..120 {
        for end in [pos!(p_compare_end), pos!(p_flags_end)] {
            let room = space.patch_room(end).map(|(_, len)| {
                let start = CODE - (1 << 20);
                GuestRange { start, end: start + len }
            });
            let (file, prot) = (w.host_file(), Prot::READ | Prot::EXEC);
            let offset = offset_of(&space, &w);
            space.patch_call(&CallSite { after: end, nr: 121, file, offset, prot, room }).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        space.protect(code, Prot::READ | Prot::EXEC).unwrap();
    }
    for t in threads {
        t.join().unwrap();
    }
}

/// The code is the third thing allocated in each world's memory file.
fn offset_of(_: &Arc<dyn AddressSpace>, mem: &Arc<MemoryFile>) -> u64 {
    let mut first = [0u8; 10];
    let mut at = 0;
    loop {
        mem.block(FileRange { start: at, end: at + PAGE }).read(0, &mut first).unwrap();
        if first == [0x90; 10] {
            return at;
        }
        at += PAGE;
    }
}
