//! Attacks on the stub that need to know it well: entries at every byte with random registers, forged signal frames, blocks that are
//! forged while their thread does something else, the other register width, signals from outside, very many threads.
//!
//! Each has the class of what it would be if it succeeded. What is allowed: that the guest process ends, and nothing else.

mod common;

use common::{CODE, DATA, Guest, regs};
use platform::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TEXT: u64 = 0x7fff_f800_0000;
const CMD: u64 = TEXT + 0x1_0000;
const TABLE: u64 = TEXT + 0x2_0000;
const CONTEXTS: u64 = TEXT - 0x1000_0000;
/// Offsets in a context block, and states (platform/src/stub/layout.rs).
const CTX_STATE: u64 = 0;
const STATE_RUN: u64 = 2;
const STATE_FAST: u64 = 5;

// The stub's text lies in this program too, as data.
unsafe extern "C" {
    static runsc_stub_start: u8;
    static runsc_stub_end: u8;
    static runsc_stub_returned: u8;
}

std::arch::global_asm!(
    ".section .rodata.attack_guests, \"a\"",
    ".globl a_start",
    "a_start:",
    // writes rbx and rcx to [rdi] by turns, without end
    ".globl a_toggle",
    "a_toggle: mov dword ptr [rdi], ebx; pause; mov dword ptr [rdi], ecx; jmp a_toggle",
    // the same site again and again, to be patched
    ".globl a_call",
    "a_call: mov eax, 121",
    "  syscall",
    ".globl a_call_end",
    "a_call_end: jmp a_call",
    // to 32-bit code: rdi is its address
    ".globl a_narrow",
    "a_narrow: push 0x23; push rdi; retfq",
    ".globl a_end",
    "a_end: nop",
    ".text",
);

unsafe extern "C" {
    static a_start: u8;
    static a_end: u8;
    static a_toggle: u8;
    static a_call: u8;
    static a_call_end: u8;
    static a_narrow: u8;
}

/// Where this file's guests are mapped, apart from the common ones.
const MINE: u64 = 0x60_0000;

macro_rules! pos {
    ($label:ident) => {
        MINE + (&raw const $label as u64 - &raw const a_start as u64)
    };
}

struct World {
    g: Guest,
    code: FileRange,
}

impl World {
    fn new() -> World {
        World::on(platform::open("systrap").unwrap())
    }

    fn on(platform: Arc<dyn Platform>) -> World {
        let g = Guest::new(platform);
        let code = g.mem.allocate(PAGE, AllocOpts::default()).unwrap();
        let (start, end) = (&raw const a_start, &raw const a_end);
        // SAFETY: both labels are in one read-only section.
        let bytes = unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) };
        g.mem.block(code).write(0, bytes).unwrap();
        World { g, code }
    }

    fn space(&self) -> Arc<dyn AddressSpace> {
        let space = self.g.space();
        self.g.map_data(&space, Prot::READ | Prot::WRITE);
        let at = GuestRange { start: MINE, end: MINE + PAGE };
        let prot = Prot::READ | Prot::EXEC;
        space.map(at, self.g.mem.host_file(), self.code.start, prot, false).unwrap();
        space
    }

    fn patch(&self, space: &Arc<dyn AddressSpace>) -> bool {
        let after = pos!(a_call_end);
        let room = space.patch_room(after).map(|(_, len)| GuestRange { start: AREA, end: AREA + len });
        let (file, prot) = (self.g.mem.host_file(), Prot::READ | Prot::EXEC);
        space.patch_call(&CallSite { after, nr: 121, file, offset: self.code.start, prot, room }).unwrap()
    }

    /// What every attack has to leave possible.
    fn still_works(&self) {
        let mut cx = self.g.platform.new_context().unwrap();
        let space = self.space();
        assert_eq!(cx.switch(&space, &mut regs(at!(g_args))).unwrap(), Trap::Syscall);
        cx.release();
    }
}

/// Where the code of patches is put.
const AREA: u64 = 0x80_0000;

/// xorshift64*: the same numbers in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number, or what does harm in a register.
    fn value(&mut self) -> u64 {
        let block = CONTEXTS + (self.next() % 3) * 0x8000;
        match self.next() % 16 {
            0 => 0,
            1 => self.next() % 512,
            2 | 3 => block,
            4 => block + self.next() % 0x8000,
            5 => block + (self.next() % 0x1000) * 8,
            6 => CMD + self.next() % 4096,
            7 => TEXT + self.next() % 0x1000,
            8 => TABLE + 8 * (self.next() % 0x2000),
            9 => DATA + 8 * (self.next() % 0x2000),
            10 => AREA + self.next() % 0x400,
            11 => MINE + self.next() % 64,
            12 => CODE,
            13 => self.next() | 1 << 63,
            14 => 15,
            _ => self.next(),
        }
    }
}

/// Interrupts a context every few milliseconds while `f` runs.
fn poked<R>(cx: &mut Box<dyn Context>, f: impl FnOnce(&mut Box<dyn Context>) -> R) -> R {
    let handle = cx.interrupter();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
                handle.interrupt();
            }
        });
        let result = f(cx);
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// Escape: every byte of the text, of a patched site and of the code behind it as an entry, with random registers and flags.
#[test]
fn any_entry_with_any_registers() {
    let w = World::new();
    let len = &raw const runsc_stub_end as u64 - &raw const runsc_stub_start as u64;
    let mut random = Random(0x1234_5678_9abc_def1);
    let fresh = || {
        let (space, mut cx) = (w.space(), w.g.platform.new_context().unwrap());
        let mut r = regs(pos!(a_call));
        let first = cx.switch(&space, &mut r).unwrap();
        assert_eq!(first, Trap::Syscall);
        assert!(w.patch(&space));
        (space, cx)
    };
    let entries = (TEXT..TEXT + len).chain(MINE..MINE + 48).chain((AREA..AREA + 0x100).step_by(3));
    let (mut space, mut cx) = fresh();
    let (mut dead, mut all) = (0, 0);
    for entry in entries {
        let mut r = regs(entry);
        let registers = [
            &mut r.rax, &mut r.rbx, &mut r.rcx, &mut r.rdx, &mut r.rsi, &mut r.rdi, &mut r.rbp, &mut r.rsp,
            &mut r.r8, &mut r.r9, &mut r.r10, &mut r.r11, &mut r.r12, &mut r.r13, &mut r.r14, &mut r.r15,
        ];
        for register in registers {
            *register = random.value();
        }
        // Carry, parity, zero, sign, direction, alignment check.
        r.eflags = 0x202 | random.next() & 0x4_04c5;
        let mut left = 6;
        let end = poked(&mut cx, |cx| {
            loop {
                left -= 1;
                match cx.switch(&space, &mut r) {
                    Ok(Trap::Syscall) if left > 0 => r.set_return(0),
                    Ok(Trap::Interrupted) if left > 2 => {}
                    Ok(other) => return other,
                    Err(e) => panic!("entry {entry:x}: {e}"),
                }
            }
        });
        all += 1;
        if end == Trap::Dead || cx.fpu().is_err() {
            dead += 1;
            (space, cx) = fresh();
        }
        if all % 512 == 0 {
            w.still_works();
        }
    }
    println!("{all} entries, {dead} ended their process");
    w.still_works();
}

/// A frame as rt_sigreturn takes it, at `DATA`: all signals blocked, going on at `rip`.
fn forge_frame(w: &World, rip: u64, mask: u64) {
    let block = w.g.mem.block(w.g.data);
    block.write(0, &[0; 0x1000]).unwrap();
    let put = |off: usize, v: u64| block.write(off, &v.to_le_bytes()).unwrap();
    // ucontext: flags, link, stack (3 words), 23 registers, pointer to vector state, mask at 296.
    put(40 + 8 * 15, DATA + 0x8000);
    put(40 + 8 * 16, rip);
    put(40 + 8 * 17, 0x202);
    put(40 + 8 * 18, 0x33 | 0x2b << 48);
    put(296, mask);
}

fn return_address() -> u64 {
    TEXT + (&raw const runsc_stub_returned as u64 - &raw const runsc_stub_start as u64)
}

/// Registers with which a guest makes the kernel load the frame at `DATA`.
fn sigreturn() -> Registers {
    let mut r = regs(return_address() - 2);
    (r.rax, r.rsp) = (15, DATA);
    r
}

/// SelfDoS: a thread that blocks all signals by a frame of its own, while another one keeps its state from standing still: both end when they
/// are to.
#[test]
fn deaf_threads_end() {
    let w = World::new();
    let space = w.space();
    forge_frame(&w, at!(g_spin), u64::MAX);
    std::thread::scope(|s| {
        let (tell, told) = std::sync::mpsc::channel();
        let (w, space) = (&w, &space);
        s.spawn(move || {
            let mut deaf = w.g.platform.new_context().unwrap();
            // So that the thread has its block: the first one.
            assert_eq!(deaf.switch(space, &mut regs(at!(g_args))).unwrap(), Trap::Syscall);
            tell.send(deaf.interrupter()).unwrap();
            let begin = Instant::now();
            assert_eq!(deaf.switch(space, &mut sigreturn()).unwrap(), Trap::Dead);
            println!("it ended after {:?}", begin.elapsed());
        });
        let deaf = told.recv().unwrap();
        s.spawn(move || {
            let mut other = w.g.platform.new_context().unwrap();
            let mut r = regs(pos!(a_toggle));
            (r.rdi, r.rbx, r.rcx) = (CONTEXTS + CTX_STATE, 0x77, STATE_RUN);
            assert_eq!(other.switch(space, &mut r).unwrap(), Trap::Dead);
        });
        std::thread::sleep(Duration::from_millis(200));
        deaf.interrupt();
    });
    w.still_works();
}

/// SelfDoS: a call that a thread never made is forged in its block; the sentry then asks for vector registers that nobody will save.
#[test]
fn forged_calls() {
    let w = World::new();
    let space = w.space();
    std::thread::scope(|s| {
        let mut victim = w.g.platform.new_context().unwrap();
        let mut r = regs(at!(g_args));
        assert_eq!(victim.switch(&space, &mut r).unwrap(), Trap::Syscall);
        s.spawn(|| {
            let mut forger = w.g.platform.new_context().unwrap();
            std::thread::sleep(Duration::from_millis(100));
            let mut r = regs(at!(g_store));
            (r.rdi, r.rbx) = (CONTEXTS + CTX_STATE, STATE_FAST | 1 << 32);
            assert_eq!(forger.switch(&space, &mut r).unwrap(), Trap::Syscall);
        });
        let mut r = regs(at!(g_spin));
        assert_eq!(victim.switch(&space, &mut r).unwrap(), Trap::Syscall);
        let begin = Instant::now();
        assert!(matches!(victim.fpu(), Err(PlatformError::Dead)));
        println!("it ended after {:?}", begin.elapsed());
        assert_eq!(victim.switch(&space, &mut r).unwrap(), Trap::Dead);
    });
    w.still_works();
}

/// Escape: 32-bit code, by a far return and by a forged frame, and its three ways to call.
#[test]
fn narrow_code() {
    for name in ["ptrace", "systrap"] {
        let w = World::on(platform::open(name).unwrap());
        // mov eax, 20 (getpid); then int 0x80, sysenter, syscall; ud2.
        for call in [[0xcd, 0x80], [0x0f, 0x34], [0x0f, 0x05]] {
            let code = [[0xb8, 20], [0, 0], [0, call[0]], [call[1], 0x0f], [0x0b, 0x0f]].concat();
            w.g.mem.block(w.code).write(0x800, &code).unwrap();
            for forged in [false, true] {
                if forged && name == "ptrace" {
                    continue;
                }
                let space = w.space();
                let mut cx = w.g.platform.new_context().unwrap();
                assert_eq!(cx.switch(&space, &mut regs(at!(g_args))).unwrap(), Trap::Syscall);
                let mut r = regs(pos!(a_narrow));
                r.rdi = MINE + 0x800;
                if forged {
                    forge_frame(&w, MINE + 0x800, 0);
                    let cs = 0x23u64 | 0x2b << 48;
                    w.g.mem.block(w.g.data).write(40 + 8 * 18, &cs.to_le_bytes()).unwrap();
                    r = sigreturn();
                }
                let trap = poked(&mut cx, |cx| {
                    loop {
                        match cx.switch(&space, &mut r).unwrap() {
                            Trap::Interrupted => {}
                            other => return other,
                        }
                    }
                });
                println!("{name} {call:x?} forged {forged}: {trap:?} rax {} rip {:x}", r.rax, r.rip);
                // A 32-bit call is none of ours: a signal, an end, or a call that the kernel above refuses.
                assert_ne!(r.rax, u64::from(std::process::id()), "a call of the host");
                cx.release();
            }
        }
        w.still_works();
    }
}

/// Escape: frames of the guest's own making with random registers, masks and vector state.
#[test]
fn forged_frames() {
    let w = World::new();
    let mut random = Random(0xfeed_beef_0bad_cafe);
    let mut fresh = true;
    let (mut space, mut cx) = (w.space(), w.g.platform.new_context().unwrap());
    let mut dead = 0;
    for round in 0..300 {
        if fresh {
            (space, cx) = (w.space(), w.g.platform.new_context().unwrap());
            assert_eq!(cx.switch(&space, &mut regs(at!(g_args))).unwrap(), Trap::Syscall);
        }
        let rip = [at!(g_loop), at!(g_ud2), TEXT + random.next() % 0x900, pos!(a_call)];
        // Not deaf: that costs seconds each time and has a test of its own.
        forge_frame(&w, rip[round % 4], random.next() & 0x7fff_0000_0000_0000);
        let block = w.g.mem.block(w.g.data);
        for _ in 0..random.next() % 12 {
            let at = 8 * (random.next() % 100) as usize;
            if at != 296 {
                block.write(at, &random.value().to_le_bytes()).unwrap();
            }
        }
        let mut r = sigreturn();
        let mut left = 5;
        let end = poked(&mut cx, |cx| {
            loop {
                left -= 1;
                match cx.switch(&space, &mut r).unwrap() {
                    Trap::Syscall if left > 0 => r.set_return(0),
                    other => return other,
                }
            }
        });
        let _ = cx.fpu();
        fresh = end == Trap::Dead;
        dead += u32::from(fresh);
    }
    println!("{dead} of 300 ended their process");
    w.still_works();
}

/// HostDoS: each signal from outside in each state of a thread. What goes on afterwards works; what does not has ended.
#[test]
fn every_signal_from_outside() {
    let w = World::new();
    #[derive(Debug, Clone, Copy)]
    enum At {
        Spinning,
        Handler,
        Site,
    }
    for at in [At::Spinning, At::Handler, At::Site] {
        let mut ended = Vec::new();
        for signal in (1..=64).filter(|s| *s != 32 && *s != 33) {
            let space = w.space();
            let mut cx = w.g.platform.new_context().unwrap();
            let mut r = regs(pos!(a_call));
            assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
            if matches!(at, At::Site) {
                assert!(w.patch(&space));
                assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
                assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
            }
            let pid = space.host_pid().unwrap().cast_signed();
            let send = move || {
                for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                    let tid: i32 = task.file_name().to_string_lossy().parse().unwrap();
                    // SAFETY: numbers; the process is a stub of this test.
                    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
                }
                // SAFETY: as above.
                unsafe { libc::kill(pid, signal) };
            };
            let trap = match at {
                At::Spinning => {
                    let handle = cx.interrupter();
                    let later = std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(2));
                        send();
                        std::thread::sleep(Duration::from_millis(2));
                        handle.interrupt();
                    });
                    let trap = cx.switch(&space, &mut regs(at!(g_spin))).unwrap();
                    later.join().unwrap();
                    trap
                }
                At::Handler | At::Site => {
                    send();
                    cx.switch(&space, &mut r).unwrap()
                }
            };
            if trap == Trap::Dead {
                ended.push(signal);
                continue;
            }
            // An interrupt may be left.
            let mut r = regs(at!(g_args));
            while cx.switch(&space, &mut r).unwrap() == Trap::Interrupted {}
            assert_eq!(r.orig_rax, 777, "{at:?} {signal}");
        }
        println!("{at:?}: ended by {ended:?}");
        assert_eq!(ended, [libc::SIGKILL], "{at:?}");
        w.still_works();
    }
}

/// SelfDoS: without the zygote there are no new processes, but those that are there go on.
#[test]
fn killed_zygote() {
    let w = World::new();
    let space = w.space();
    let mut cx = w.g.platform.new_context().unwrap();
    let mut r = regs(at!(g_loop));
    assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
    let mut stubs: Vec<u32> = w.g.platform.stub_pids();
    stubs.retain(|p| Some(*p) != space.host_pid());
    for pid in stubs {
        // SAFETY: a number; a stub of this test.
        unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
    }
    std::thread::sleep(Duration::from_millis(50));
    // A few were made before.
    let mut spaces: Vec<_> = (0..20).map(|_| w.g.platform.new_address_space()).collect();
    assert!(spaces.pop().is_some_and(|s| s.is_err()));
    drop(spaces);
    for _ in 0..10 {
        r.set_return(0);
        assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
    }
    let mut second = w.g.platform.new_context().unwrap();
    assert_eq!(second.switch(&space, &mut regs(at!(g_args))).unwrap(), Trap::Syscall, "a new thread");
}

/// SelfDoS: more threads than have a number. The patches of the process are taken back then, and all of them run.
#[test]
fn threads_without_number() {
    const THREADS: usize = 4200;
    let w = World::new();
    let space = w.space();
    let mut all = Vec::new();
    for n in 0..THREADS {
        let mut cx = w.g.platform.new_context().unwrap();
        let mut r = regs(pos!(a_call));
        assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall, "thread {n}");
        if n == 10 {
            assert!(w.patch(&space));
        }
        all.push((cx, r));
    }
    for (cx, r) in &mut all {
        r.rax = 0;
        assert_eq!(cx.switch(&space, r).unwrap(), Trap::Syscall);
        assert_eq!((r.orig_rax, r.rip), (121, pos!(a_call_end)));
    }
    assert!(!w.patch(&space), "a thread without a number could not run it");
    w.still_works();
}
