//! Code with system calls that are made often and that changes: written by itself, by way of another mapping, by a debugger, while other threads
//! run it. And places that others look at: where a signal finds a thread, and the vDSO.

use crate::case::{Case, case, fork, in_child, pipe, wait, zeroed};
use crate::out::{claim, must, ret};
use crate::{say, sys};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

const PAGE: usize = 4096;
const OFTEN: usize = 300;

/// `mov eax, NUMBER; syscall; ret`: what a C library has.
fn plain(number: u32) -> Vec<u8> {
    let n = number.to_le_bytes();
    [0xb8, n[0], n[1], n[2], n[3], 0x0f, 0x05, 0xc3].to_vec()
}

/// `mov eax, VALUE; ret`.
fn constant(value: u32) -> Vec<u8> {
    let n = value.to_le_bytes();
    [0xb8, n[0], n[1], n[2], n[3], 0xc3].to_vec()
}

/// Code in the middle of an anonymous page with these rights.
fn code(bytes: &[u8], prot: i32) -> usize {
    let at = must("mmap", sys!(mmap, 0, PAGE, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)) as usize;
    put(at + 64, bytes);
    must("mprotect", sys!(mprotect, at, PAGE, prot));
    at + 64
}

fn put(at: usize, bytes: &[u8]) {
    // SAFETY: the caller's own page, which can be written.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
}

fn call(at: usize) -> i64 {
    // SAFETY: the caller has put code there that takes nothing and returns a number.
    unsafe { std::mem::transmute::<usize, extern "C" fn() -> i64>(at)() }
}

/// The one answer of many calls; -1 if they differ.
fn often(at: usize) -> i64 {
    let first = call(at);
    if (0..OFTEN).all(|_| call(at) == first) { first } else { -1 }
}

fn written_by_itself() {
    let parent = sys!(getppid) as i64;
    let at = code(&plain(libc::SYS_getppid as u32), 5);
    claim("before", often(at) == parent);
    let page = at & !(PAGE - 1);
    ret("writable", sys!(mprotect, page, PAGE, 3));
    put(at, &constant(77));
    ret("executable", sys!(mprotect, page, PAGE, 5));
    say!("{}", often(at));
    ret("both", sys!(mprotect, page, PAGE, 7));
    for value in 0..5u32 {
        put(at, &plain(libc::SYS_getppid as u32));
        claim("a call", often(at) == parent);
        put(at, &constant(value));
        say!("{}", often(at));
    }
}

fn written_elsewhere() {
    let parent = sys!(getppid) as i64;
    let fd = must("memfd_create", sys!(memfd_create, c"code", 0)) as i32;
    must("size", sys!(ftruncate, fd, PAGE));
    let view = must("view", sys!(mmap, 0, PAGE, 3, libc::MAP_SHARED, fd, 0)) as usize;
    let runs = must("code", sys!(mmap, 0, PAGE, 5, libc::MAP_SHARED, fd, 0)) as usize;
    for value in 0..4u32 {
        put(view + 64, &plain(libc::SYS_getppid as u32));
        claim("a call", often(runs + 64) == parent);
        put(view + 64, &constant(value));
        say!("{}", often(runs + 64));
    }
}

/// By /proc/self/mem, which needs no right to write.
fn written_through_proc() {
    use std::os::unix::fs::FileExt;
    let parent = sys!(getppid) as i64;
    let at = code(&plain(libc::SYS_getppid as u32), 5);
    let Ok(memory) = std::fs::OpenOptions::new().write(true).open("/proc/self/mem") else {
        return say!("BAD no /proc/self/mem");
    };
    for value in 0..4u32 {
        claim("a call", often(at) == parent);
        claim("written", memory.write_all_at(&constant(value), at as u64).is_ok());
        say!("{}", often(at));
        claim("written", memory.write_all_at(&plain(libc::SYS_getppid as u32), at as u64).is_ok());
    }
}

/// As a debugger does it: a breakpoint set and taken away on a page whose calls are made often.
fn breakpoints() {
    let at = code(&plain(libc::SYS_getppid as u32), 5);
    let child = fork(|| {
        sys!(ptrace, libc::PTRACE_TRACEME, 0, 0, 0);
        sys!(kill, sys!(getpid), libc::SIGSTOP);
        for _ in 0..4 {
            if often(at) < 0 {
                return 1;
            }
            sys!(kill, sys!(getpid), libc::SIGSTOP);
        }
        0
    });
    say!("{}", stopped(child));
    for round in 0..4 {
        let mut word = 0u64;
        must("peek", sys!(ptrace, libc::PTRACE_PEEKTEXT, child, at, &mut word));
        say!("what is there: {word:#x}");
        ret("set", sys!(ptrace, libc::PTRACE_POKETEXT, child, at, word & !0xff | 0xcc));
        sys!(ptrace, libc::PTRACE_CONT, child, 0, 0);
        say!("{round}: {}", stopped(child));
        let mut registers: libc::user_regs_struct = zeroed();
        must("registers", sys!(ptrace, libc::PTRACE_GETREGS, child, 0, &mut registers));
        claim("at the breakpoint", registers.rip as usize == at + 1);
        registers.rip = at as u64;
        must("back", sys!(ptrace, libc::PTRACE_SETREGS, child, 0, &registers));
        ret("taken away", sys!(ptrace, libc::PTRACE_POKETEXT, child, at, word));
        sys!(ptrace, libc::PTRACE_CONT, child, 0, 0);
        say!("{round}: {}", stopped(child));
    }
    sys!(ptrace, libc::PTRACE_CONT, child, 0, 0);
    say!("{}", wait(child));
}

fn stopped(child: i32) -> String {
    let mut status = 0i32;
    let got = sys!(wait4, child, &mut status, libc::__WALL, 0);
    if got == child as isize { crate::out::status(status) } else { crate::out::number(got) }
}

/// Rights of the page change, and its bytes, while threads run it.
fn while_others_run() {
    const THREADS: usize = 4;
    let at = code(&plain(libc::SYS_getppid as u32), 5);
    let page = at & !(PAGE - 1);
    let parent = sys!(getppid) as i64;
    let stop = AtomicBool::new(false);
    let wrong = AtomicUsize::new(0);
    std::thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    wrong.fetch_add((call(at) != parent) as usize, Ordering::Relaxed);
                }
            });
        }
        for round in 0..150 {
            sys!(mprotect, page, PAGE, if round % 2 == 0 { 7 } else { 5 });
            if round % 2 == 0 {
                // Elsewhere on the page.
                put(page + 1024, &constant(round));
            }
            for _ in 0..20 {
                wrong.fetch_add((call(at) != parent) as usize, Ordering::Relaxed);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    say!("wrong answers: {}", wrong.load(Ordering::Relaxed));
}

// What a thread that a signal interrupts at a cancellation point is known by: its place between two labels.
std::arch::global_asm!(
    ".globl cancellation_begin",
    ".globl cancellation_end",
    ".globl cancellation_made",
    // number, then up to three arguments; the flag to be tested first is in rcx
    "cancellation_point:",
    "  mov r11, rdi",
    "  mov r9, rcx",
    "cancellation_begin:",
    "  mov ecx, [r9]",
    "  test ecx, ecx",
    "  jnz 2f",
    "  mov rax, rdi",
    "  mov rdi, rsi",
    "  mov rsi, rdx",
    "  mov rdx, r8",
    "  mov [rsp + 8], r11",
    "  syscall",
    "cancellation_end:",
    "  ret",
    "cancellation_made:",
    "2: mov rax, -125",
    "  ret",
);

unsafe extern "C" {
    static cancellation_begin: u8;
    static cancellation_end: u8;
    static cancellation_made: u8;
}

fn cancellation_point(number: i64, a: usize, b: usize, c: usize, flag: &AtomicU64) -> i64 {
    let result;
    // SAFETY: the stack slot that the code writes is room that is made here.
    unsafe {
        std::arch::asm!(
            "sub rsp, 24",
            "call cancellation_point",
            "add rsp, 24",
            inout("rdi") number => _, inout("rsi") a => _, inout("rdx") b => _, inout("rcx") flag.as_ptr() => _,
            inout("r8") c => _, out("rax") result, out("r9") _, out("r11") _,
        )
    };
    result
}

static INSIDE: AtomicUsize = AtomicUsize::new(0);
static OUTSIDE: AtomicUsize = AtomicUsize::new(0);
static CANCEL: AtomicU64 = AtomicU64::new(0);

/// As musl does it: inside, the call is not made.
extern "C" fn cancelled(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a ucontext.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let rip = registers[libc::REG_RIP as usize] as usize;
    let (begin, end) = (&raw const cancellation_begin as usize, &raw const cancellation_end as usize);
    if (begin..end).contains(&rip) {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        registers[libc::REG_RIP as usize] = &raw const cancellation_made as i64;
    } else {
        OUTSIDE.fetch_add(1, Ordering::SeqCst);
    }
}

fn cancellation() {
    let mut action: libc::sigaction = zeroed();
    action.sa_sigaction = cancelled as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: a valid handler.
    unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
    let (read, write) = pipe(0);
    let mut byte = 0u8;
    let mut results = Vec::new();
    for round in 0..OFTEN {
        results.push(cancellation_point(libc::SYS_write, write as usize, c"x".as_ptr() as usize, 1, &CANCEL));
        results.push(cancellation_point(libc::SYS_read, read as usize, &raw mut byte as usize, 1, &CANCEL));
        if round % 100 == 0 {
            results.push(cancellation_point(libc::SYS_close, usize::MAX, 0, 0, &CANCEL));
        }
    }
    let sum: i64 = results.iter().sum();
    say!("calls made often: {} {sum}", results.len());
    // Blocked in the call, where a handler that restarts finds the call again.
    let me = sys!(gettid) as i32;
    let group = sys!(getpid) as i32;
    for _ in 0..3 {
        let other = std::thread::spawn(move || {
            crate::case::asleep(me);
            sys!(tgkill, group, me, libc::SIGUSR1);
        });
        say!("{}", cancellation_point(libc::SYS_read, read as usize, &raw mut byte as usize, 1, &CANCEL));
        let _ = other.join();
    }
    say!("inside {} outside {}", INSIDE.load(Ordering::SeqCst), OUTSIDE.load(Ordering::SeqCst));
}

/// The named functions of the vDSO with their versions; none where they are not.
fn vdso() -> Vec<(String, Option<(usize, String)>)> {
    const WANTED: [&str; 5] = [
        "__vdso_clock_gettime",
        "__vdso_gettimeofday",
        "__vdso_time",
        "__vdso_getcpu",
        "__vdso_clock_getres",
    ];
    let base = super::signals::auxv(libc::AT_SYSINFO_EHDR) as usize;
    // SAFETY: the kernel says that an ELF image is mapped there; what is read follows its own tables.
    let at16 = |a: usize| unsafe { (a as *const u16).read_unaligned() as usize };
    // SAFETY: as above.
    let at32 = |a: usize| unsafe { (a as *const u32).read_unaligned() as usize };
    // SAFETY: as above.
    let at64 = |a: usize| unsafe { (a as *const u64).read_unaligned() as usize };
    let text = |a: usize| {
        // SAFETY: strings of that image end with a zero.
        unsafe { std::ffi::CStr::from_ptr(a as *const _) }.to_string_lossy().into_owned()
    };
    let header = |i: usize| base + at64(base + 32) + i * at16(base + 54);
    let headers = || (0..at16(base + 56)).map(header);
    let bias = headers().find(|h| at32(*h) == 1).map_or(base, |h| base.wrapping_sub(at64(h + 16)));
    let Some(dynamic) = headers().find(|h| at32(*h) == 2).map(|h| bias.wrapping_add(at64(h + 16))) else {
        return Vec::new();
    };
    let entry = |tag: usize| {
        (0..64).map(|i| dynamic + 16 * i).take_while(|e| at64(*e) != 0).find(|e| at64(*e) == tag).map(|e| {
            let value = at64(e + 8);
            if value < base { bias.wrapping_add(value) } else { value }
        })
    };
    let (Some(strings), Some(symbols)) = (entry(5), entry(6)) else { return Vec::new() };
    let count = entry(4).map_or((strings - symbols) / 24, |hash| at32(hash + 4));
    let version = |i: usize| {
        let wanted = at16(entry(0x6fff_fff0)? + 2 * i) & 0x7fff;
        let mut d = entry(0x6fff_fffc)?;
        loop {
            if at16(d + 4) == wanted {
                return Some(text(strings + at32(d + at32(d + 12))));
            }
            d += Some(at32(d + 16)).filter(|next| *next != 0)?;
        }
    };
    WANTED
        .into_iter()
        .map(|name| {
            let found = (1..count).find(|i| text(strings + at32(symbols + 24 * i)) == name);
            let symbol = found.map(|i| {
                (
                    bias.wrapping_add(at64(symbols + 24 * i + 8)),
                    version(i).unwrap_or_else(|| "none".to_owned()),
                )
            });
            (name.to_owned(), symbol)
        })
        .collect()
}

/// How often the vDSO's answers do not lie between two of the kernel's.
pub fn clocks_disagree() -> Vec<usize> {
    let functions = vdso();
    let address =
        |name: &str| functions.iter().find(|(n, _)| n == name).and_then(|(_, s)| s.as_ref()).map(|s| s.0);
    let (Some(gettime), Some(getres), Some(day), Some(time), Some(getcpu)) = (
        address("__vdso_clock_gettime"),
        address("__vdso_clock_getres"),
        address("__vdso_gettimeofday"),
        address("__vdso_time"),
        address("__vdso_getcpu"),
    ) else {
        return vec![usize::MAX];
    };
    type Two = extern "C" fn(i32, *mut libc::timespec) -> i32;
    // SAFETY: the functions of these names have these types.
    let (gettime, getres, day, time, getcpu) = unsafe {
        (
            std::mem::transmute::<usize, Two>(gettime),
            std::mem::transmute::<usize, Two>(getres),
            std::mem::transmute::<usize, extern "C" fn(*mut libc::timeval, usize) -> i32>(day),
            std::mem::transmute::<usize, extern "C" fn(usize) -> i64>(time),
            std::mem::transmute::<usize, extern "C" fn(*mut u32, *mut u32, usize) -> i64>(getcpu),
        )
    };
    let nanoseconds = |t: &libc::timespec| t.tv_sec as i128 * 1_000_000_000 + t.tv_nsec as i128;
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut wrong = Vec::new();
    for clock in [0, 1, 4, 5, 6, 7, 11] {
        let mut bad = 0;
        for _ in 0..300 {
            let (mut before, mut mine, mut after) = (zero, zero, zero);
            sys!(clock_gettime, clock, &mut before);
            bad += (gettime(clock, &mut mine) != 0) as usize;
            sys!(clock_gettime, clock, &mut after);
            let between = nanoseconds(&before)..=nanoseconds(&after);
            bad += !between.contains(&nanoseconds(&mine)) as usize;
        }
        let (mut mine, mut kernels) = (zero, zero);
        getres(clock, &mut mine);
        sys!(clock_getres, clock, &mut kernels);
        bad += (nanoseconds(&mine) != nanoseconds(&kernels)) as usize;
        wrong.push(bad);
    }
    let mut bad = 0;
    for _ in 0..300 {
        let (mut before, mut mine, mut after) = (zero, libc::timeval { tv_sec: 0, tv_usec: 0 }, zero);
        sys!(clock_gettime, 0, &mut before);
        day(&mut mine, 0);
        sys!(clock_gettime, 0, &mut after);
        let mine = mine.tv_sec as i128 * 1_000_000 + mine.tv_usec as i128;
        bad += !(nanoseconds(&before) / 1000..=nanoseconds(&after) / 1000).contains(&mine) as usize;
        // It is the second of the last tick.
        bad += !(before.tv_sec - 1..=after.tv_sec).contains(&time(0)) as usize;
        let mut cpu = u32::MAX;
        bad += (getcpu(&mut cpu, std::ptr::null_mut(), 0) != 0 || cpu > 8192) as usize;
    }
    wrong.push(bad);
    wrong
}

fn vdso_everywhere() {
    for (name, symbol) in vdso() {
        say!("{name} {}", symbol.map_or_else(|| "is not there".to_owned(), |s| s.1));
    }
    say!("at once {:?}", clocks_disagree());
    in_child("child", || {
        say!("in a child {:?}", clocks_disagree());
        0
    });
    let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(clocks_disagree)).collect();
    for thread in threads {
        say!("in a thread {:?}", thread.join().ok());
    }
    in_child("exec", || {
        let argv = [c"guest".as_ptr(), c"helper:clocks".as_ptr(), std::ptr::null()];
        sys!(execve, c"/proc/self/exe", &argv, 0) as i32
    });
}

/// The cases.
pub const CASES: &[Case] = &[
    case("mprotect/code_that_writes_itself", "getppid", written_by_itself),
    case("mmap/code_written_elsewhere", "memfd_create getppid", written_elsewhere),
    case("pwrite64/code_written_through_proc", "getppid", written_through_proc),
    case("ptrace/breakpoints_beside_calls_made_often", "wait4", breakpoints),
    case("mprotect/code_that_others_run", "getppid", while_others_run),
    case("tgkill/cancellation_points", "read write close", cancellation),
    case("clock_gettime/vdso_everywhere", "clock_getres gettimeofday time getcpu", vdso_everywhere),
];
