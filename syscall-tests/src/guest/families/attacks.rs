//! Attacks on what runs guest code beneath the kernel: each in a process of its own that may end in any way. What is compared
//! is that everything else goes on. The class says what it would be if it succeeded.

use crate::case::{Case, NOWHERE, case, fork, pipe, wait};
use crate::out::{claim, ret};
use crate::{say, sys};
use std::arch::asm;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Where sandboxes may have something of their own: from the end of what programs can map to the end of the user's half.
const PLACES: [usize; 9] = [
    0x7fff_e7ff_f000,
    0x7fff_e800_0000,
    0x7fff_e800_8000,
    0x7fff_f7ff_f000,
    0x7fff_f800_0000,
    0x7fff_f800_2000,
    0x7fff_f801_0000,
    0x7fff_f802_0000,
    0x7fff_ffff_e000,
];
/// Seconds until an attack that goes on for ever is ended.
const LIMIT_S: u32 = 3;

/// Runs an attack in a process of its own, however it ends.
fn attack(body: impl FnOnce()) {
    wait(begin(body));
}

/// The same without waiting for its end: the process's number.
fn begin(body: impl FnOnce()) -> i32 {
    fork(|| {
        // Whatever the attack has done to stop it.
        sys!(alarm, LIMIT_S);
        // What a library says when it dies of it is not compared.
        sys!(close, 1);
        sys!(close, 2);
        body();
        0
    })
}

/// Makes a call so often.
fn calls(count: usize) {
    for _ in 0..count {
        sys!(getppid);
    }
}

/// What every attack has to leave possible.
fn others_go_on() {
    let (read, write) = pipe(0);
    let pid = fork(|| (sys!(write, write, b"still".as_slice(), 5) == 5) as i32 + 2);
    let mut answer = [0u8; 5];
    let got = sys!(read, read, &mut answer, 5);
    say!("another process: {} {got} {}", wait(pid), answer.escape_ascii());
    let thread = std::thread::spawn(|| sys!(getpid)).join();
    claim("a thread", thread.is_ok_and(|pid| pid == sys!(getpid)));
}

/// xorshift64*: the same numbers in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number, or an address where something may be.
    fn value(&mut self) -> u64 {
        let place = PLACES[self.next() as usize % PLACES.len()] as u64;
        match self.next() % 8 {
            0 => 0,
            1 => self.next() % 512,
            2 | 3 => place,
            4 => place + self.next() % 0x8000,
            5 => place + 8 * (self.next() % 0x1000),
            6 => 15,
            _ => self.next(),
        }
    }
}

/// Jumps with these sixteen registers (in the order rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 …) and flags.
fn jump(to: u64, registers: &[u64; 16], flags: u64) -> ! {
    static FRAME: [AtomicU64; 18] = [const { AtomicU64::new(0) }; 18];
    for (slot, value) in FRAME.iter().zip(registers.iter().chain([&to, &flags])) {
        slot.store(*value, Ordering::Relaxed);
    }
    // SAFETY: none at all; the process is there to end by it.
    unsafe {
        asm!(
            "push qword ptr [r15 + 136]",
            "popfq",
            "mov rax, [r15]",
            "mov rcx, [r15 + 8]",
            "mov rdx, [r15 + 16]",
            "mov rbx, [r15 + 24]",
            "mov rsp, [r15 + 32]",
            "mov rbp, [r15 + 40]",
            "mov rsi, [r15 + 48]",
            "mov rdi, [r15 + 56]",
            "mov r8, [r15 + 64]",
            "mov r9, [r15 + 72]",
            "mov r10, [r15 + 80]",
            "mov r11, [r15 + 88]",
            "mov r12, [r15 + 96]",
            "mov r13, [r15 + 104]",
            "mov r14, [r15 + 112]",
            // The target lies behind the registers; r15 itself goes last.
            "jmp qword ptr [r15 + 128]",
            in("r15") FRAME.as_ptr(),
            options(noreturn),
        )
    }
}

/// The kernel's frame, from which rt_sigreturn loads: ucontext as words.
fn sigreturn(frame: &mut [u64; 128]) -> ! {
    // SAFETY: as above.
    unsafe {
        asm!("mov rsp, {}", "mov eax, 15", "syscall", "ud2", in(reg) frame.as_mut_ptr(), options(noreturn))
    }
}

fn over_the_stub() {
    say!("class Escape");
    for place in PLACES {
        for (length, op) in (0..12).map(|op| (if op % 2 == 0 { 0x1000usize } else { 0x100_0000 }, op / 2)) {
            attack(|| {
                let fixed = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                let got = match op {
                    0 => sys!(mmap, place, length, 7, fixed, -1, 0),
                    1 => sys!(munmap, place, length),
                    2 => sys!(mprotect, place, length, 7),
                    3 => {
                        let from = sys!(mmap, 0, 0x1000, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
                        sys!(mremap, from as usize, 0x1000, length, 3, place)
                    }
                    4 => sys!(mremap, place, 0x1000, length, 1, 0),
                    _ => sys!(madvise, place, length, libc::MADV_DONTNEED),
                };
                for at in (place..place + 0x3000).step_by(0x1000) {
                    attack(|| {
                        // SAFETY: as above: whatever is there is written over.
                        unsafe { std::ptr::write_bytes(at as *mut u8, got as u8, 0x1000) };
                        calls(50);
                    });
                }
                calls(50);
            });
        }
    }
    // The whole of it, and all around.
    for (at, length) in
        [(0x7fff_0000_0000usize, 0xffff_f000usize), (0x1_0000, 0x7fff_e7ff_0000), (0, usize::MAX & !4095)]
    {
        attack(|| {
            sys!(munmap, at, length);
        });
        attack(|| {
            sys!(mprotect, at, length, 0);
        });
        attack(|| {
            sys!(madvise, at, length, libc::MADV_DONTNEED);
        });
    }
    others_go_on();
}

fn entries() {
    say!("class Escape");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..160u64 {
        let registers: [u64; 16] = std::array::from_fn(|_| random.value());
        let to = 0x7fff_f800_0000 + random.next() % 0xa00;
        let flags = 0x202 | random.next() & 0x4_04c5;
        attack(|| {
            if round % 2 == 0 {
                // Others of the process work on; calls of theirs may have been made cheaper.
                for _ in 0..2 {
                    std::thread::spawn(|| calls(usize::MAX));
                }
            }
            jump(to, &registers, flags)
        });
    }
    others_go_on();
}

fn forged_frames() {
    say!("class Escape");
    let mut random = Random(0x0dd0_1234_0567_89ab);
    for round in 0..120u64 {
        let mut frame: [u64; 128] = [0; 128];
        // ucontext: flags, link, stack (3 words), 18 registers, segments, 4 words, vector state, mask at 37.
        frame[5..23].iter_mut().for_each(|r| *r = random.value());
        let segments: [u64; 5] = [0x33, 0x23, 0x10, 0x63, random.next() & 0xffff];
        frame[23] = segments[round as usize % 5] | [0x2b, 0x2b, 0x18, 0x33][round as usize % 4] << 48;
        frame[22] &= 0x3_0fd5 | random.next();
        frame[28] = if round % 3 == 0 { 0 } else { random.value() };
        frame[37] = random.next();
        if round % 4 == 1 {
            frame[21] = 0x7fff_f800_0000 + random.next() % 0xa00;
        }
        attack(|| sigreturn(&mut frame));
    }
    others_go_on();
}

fn blocks_written_over() {
    say!("class SelfDoS");
    // All at once: each may have to be found dead, which takes seconds.
    let begun = [0u64, 1, 5, 0x0000_0002_0000_0005, 0x7fff_e800_2000, u64::MAX].map(|pattern| {
        begin(|| {
            let workers: Vec<_> = (0..3)
                .map(|n| {
                    std::thread::spawn(move || {
                        for i in 0..200 {
                            sys!(getppid);
                            // Signals need the vector registers.
                            if n == 0 && i % 10 == 0 {
                                sys!(tgkill, sys!(getpid), sys!(gettid), libc::SIGURG);
                            }
                        }
                    })
                })
                .collect();
            for at in (0x7fff_e800_0000usize..0x7fff_e802_0000).step_by(8) {
                // SAFETY: as above.
                unsafe { (at as *mut u64).write_volatile(pattern) };
            }
            workers.into_iter().for_each(|w| drop(w.join()));
        })
    });
    for pid in begun {
        wait(pid);
    }
    others_go_on();
}

/// Descriptors and bases of segments. `modify_ldt` may be refused.
fn segments() {
    say!("class Escape");
    attack(|| {
        for entry in [0u32, 1, 12, 13, 14, 8191] {
            for limit in [0u32, 8, 0xf_ffff] {
                // struct user_desc: entry, base, limit, flags: 32 bits, in pages, usable.
                let description = [entry, 0xf800_0000, limit, 0x51];
                sys!(modify_ldt, 1, &description, 16);
                sys!(modify_ldt, 0x11, &description, 16);
                for selector in [entry << 3 | 7, 0x63, 0x6b, 0x73] {
                    attack(|| {
                        // SAFETY: at worst a fault, which ends this process.
                        unsafe {
                            asm!("mov fs, {0:x}", "mov gs, {0:x}", "mov ds, {0:x}", "mov es, {0:x}", in(reg) selector)
                        };
                        calls(100);
                    });
                }
            }
        }
    });
    for base in
        [0usize, NOWHERE, 0x7fff_e800_0000, 0x7fff_f801_0000, 0x7fff_ffff_f000, 0x8000_0000_0000, usize::MAX]
    {
        for code in [0x1001, 0x1002] {
            attack(|| {
                sys!(arch_prctl, code, base);
                // Nothing of the C library after that.
                calls(100);
                crate::case::leave(0);
            });
        }
    }
    ret("set_thread_area", sys!(set_thread_area, &[12u32, 0, 0xf_ffff, 0x51]));
    others_go_on();
}

/// A tree of processes; 1 if all have ended well.
fn grow(depth: u32) -> i32 {
    if depth == 0 {
        return 1;
    }
    let children: Vec<i32> = (0..2).map(|_| fork(|| (grow(depth - 1) != 1) as i32)).collect();
    let bad = children.into_iter().filter(|c| wait(*c) != "exit 0").count();
    (bad == 0) as i32
}

/// Processes that fork as fast as they can, and all of whom end.
fn storm() {
    say!("class HostDoS");
    say!("a tree of processes: {}", grow(6));
    let chains: Vec<i32> =
        (0..4).map(|_| fork(|| (0..60).filter(|_| wait(fork(|| 7)) == "exit 7").count() as i32)).collect();
    say!("one after the other: {:?}", chains.into_iter().map(wait).collect::<Vec<_>>());
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(|| (0..20).filter(|_| wait(fork(|| 9)) == "exit 9").count()))
        .collect();
    say!("from threads: {:?}", threads.into_iter().map(|t| t.join().unwrap_or(0)).collect::<Vec<_>>());
    others_go_on();
}

static GATE: AtomicU32 = AtomicU32::new(0);
static ARRIVED: AtomicU32 = AtomicU32::new(0);

/// A thousand threads, all there at the same time. (How many more there can be is a test of the platforms.)
fn many_threads() {
    const THREADS: u32 = 1000;
    say!("class SelfDoS");
    let body = || {
        if ARRIVED.fetch_add(1, Ordering::SeqCst) + 1 == THREADS {
            sys!(futex, &ARRIVED, libc::FUTEX_WAKE, i32::MAX, 0, 0, 0);
        }
        while GATE.load(Ordering::SeqCst) == 0 {
            sys!(futex, &GATE, libc::FUTEX_WAIT, 0, 0, 0, 0);
        }
        sys!(getppid) as usize
    };
    let threads: Vec<_> = (0..THREADS)
        .map_while(|_| std::thread::Builder::new().stack_size(16 << 10).spawn(body).ok())
        .collect();
    say!("{} threads", threads.len());
    while (ARRIVED.load(Ordering::SeqCst) as usize) < threads.len() {
        let seen = ARRIVED.load(Ordering::SeqCst);
        sys!(futex, &ARRIVED, libc::FUTEX_WAIT, seen, &crate::case::span_ms(20), 0, 0);
    }
    GATE.store(1, Ordering::SeqCst);
    sys!(futex, &GATE, libc::FUTEX_WAKE, i32::MAX, 0, 0, 0);
    let parent = sys!(getppid) as usize;
    claim("all end", threads.into_iter().all(|t| t.join().is_ok_and(|p| p == parent)));
    others_go_on();
}

/// A process cannot be kept from being killed by what it does to its own threads.
fn killable() {
    say!("class SelfDoS");
    let pid = fork(|| {
        for state in [2u32, 0x77, 5] {
            std::thread::spawn(move || {
                for block in (0..4usize).cycle() {
                    let at = 0x7fff_e800_0000 + block * 0x8000;
                    // SAFETY: this process is there to be killed.
                    unsafe { (at as *mut u32).write_volatile(state) };
                }
            });
        }
        let mut frame: [u64; 128] = [0; 128];
        (frame[20], frame[21]) = (frame.as_ptr() as u64 + 512, spin as *const () as u64);
        (frame[22], frame[23]) = (0x202, 0x33 | 0x2b << 48);
        frame[37] = u64::MAX;
        sigreturn(&mut frame)
    });
    crate::case::pause_ms(100);
    ret("kill", sys!(kill, pid, libc::SIGKILL));
    let ended = wait(pid);
    // On the host there is nothing to write to.
    claim("it ends", ended.starts_with("killed by"));
    others_go_on();
}

extern "C" fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// The cases.
pub const CASES: &[Case] = &[
    case("mmap/over_the_stub", "munmap mprotect mremap madvise alarm", over_the_stub),
    case("getppid/entries_of_the_stub", "", entries),
    case("rt_sigreturn/forged_frames", "", forged_frames),
    case("tgkill/blocks_written_over", "getppid", blocks_written_over),
    case("set_thread_area/segments", "modify_ldt arch_prctl", segments),
    case("fork/storm", "wait4", storm),
    case("clone/a_thousand_threads", "futex", many_threads),
    case("kill/deaf_and_restless", "rt_sigreturn", killable),
];
