//! Signals: handlers, masks, queues, waiting, interruption and restart, stops.

use crate::case::{
    Case, NOWHERE, asleep, case, fork, in_child, leave, pause_ms, pipe, span_ms, state_of, until, wait,
    zeroed,
};
use crate::out::{claim, done, must, ret, signal};
use crate::{say, sys};
use libc::{
    SA_NOCLDSTOP, SA_NODEFER, SA_ONSTACK, SA_RESETHAND, SA_RESTART, SA_SIGINFO, SIG_BLOCK, SIG_SETMASK,
    SIG_UNBLOCK, SIGALRM, SIGCHLD, SIGCONT, SIGINT, SIGKILL, SIGPIPE, SIGSTOP, SIGTERM, SIGTSTP, SIGUSR1,
    SIGUSR2, WNOHANG,
};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

const SLOTS: usize = 64;
static COUNT: AtomicUsize = AtomicUsize::new(0);
static SIGNALS: [AtomicI32; SLOTS] = [const { AtomicI32::new(0) }; SLOTS];
static CODES: [AtomicI32; SLOTS] = [const { AtomicI32::new(0) }; SLOTS];
static VALUES: [AtomicI32; SLOTS] = [const { AtomicI32::new(0) }; SLOTS];
/// Whether the handler ran on the alternate stack (checked by `sigaltstack`'s flag).
static ON_STACK: AtomicI32 = AtomicI32::new(-1);

extern "C" fn record(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let slot = COUNT.fetch_add(1, Ordering::SeqCst) % SLOTS;
    SIGNALS[slot].store(signal, Ordering::SeqCst);
    // SAFETY: the kernel hands a valid siginfo to an SA_SIGINFO handler.
    let (code, value) = unsafe { ((*info).si_code, (*info).si_value().sival_ptr as usize as i32) };
    CODES[slot].store(code, Ordering::SeqCst);
    VALUES[slot].store(value, Ordering::SeqCst);
    let mut stack: libc::stack_t = zeroed();
    sys!(sigaltstack, 0, &mut stack);
    ON_STACK.store(stack.ss_flags, Ordering::SeqCst);
}

/// Installs the recording handler.
pub fn on(signal: i32, flags: i32) {
    on_masked(signal, flags, &[]);
}

fn on_masked(signal: i32, flags: i32, mask: &[i32]) {
    let mut action: libc::sigaction = zeroed();
    action.sa_sigaction = record as *const () as usize;
    action.sa_flags = flags | SA_SIGINFO;
    for m in mask {
        // SAFETY: a local sigset.
        unsafe { libc::sigaddset(&mut action.sa_mask, *m) };
    }
    // SAFETY: installs a handler that only touches atomics and makes system calls.
    must("sigaction", unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } as isize);
}

/// How many signals the handler saw.
pub fn count() -> usize {
    COUNT.load(Ordering::SeqCst)
}

/// What the handler saw, in order.
pub fn seen() -> String {
    (0..count().min(SLOTS)).map(|i| signal(SIGNALS[i].load(Ordering::SeqCst))).collect::<Vec<_>>().join(" ")
}

fn codes() -> String {
    (0..count().min(SLOTS)).map(|i| CODES[i].load(Ordering::SeqCst).to_string()).collect::<Vec<_>>().join(" ")
}

fn values() -> String {
    (0..count().min(SLOTS))
        .map(|i| VALUES[i].load(Ordering::SeqCst).to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The kernel's mask of these signals.
pub fn bits(signals: &[i32]) -> u64 {
    signals.iter().fold(0, |m, s| m | 1 << (s - 1))
}

/// Blocks these signals.
pub fn block(signals: &[i32]) {
    sys!(rt_sigprocmask, SIG_BLOCK, &bits(signals), 0, 8);
}

/// An auxiliary vector entry.
pub fn auxv(kind: u64) -> u64 {
    // SAFETY: reads the process's own auxiliary vector.
    unsafe { libc::getauxval(kind) }
}

fn me() -> isize {
    sys!(getpid)
}

fn raise(signal: i32) {
    sys!(kill, me(), signal);
}

const RT: i32 = 34;

/// siginfo for rt_sigqueueinfo.
fn info(signal: i32, code: i32, value: usize) -> [u64; 16] {
    let mut raw = [0u64; 16];
    raw[0] = signal as u32 as u64;
    raw[1] = code as u32 as u64;
    raw[2] = me() as u64;
    raw[3] = value as u64;
    raw
}

fn fields(raw: &[u64; 16]) -> String {
    format!("{} code {} value {}", signal(raw[0] as i32), raw[1] as u32 as i32, raw[3])
}

pub const CASES: &[Case] = &[
    case("rt_sigaction/errors", "", || {
        let mut old = [0u64; 4];
        let new = [1u64, 0, 0, 0];
        ret("ignore", sys!(rt_sigaction, SIGUSR1, &new, 0, 8));
        ret("read", sys!(rt_sigaction, SIGUSR1, 0, &mut old, 8));
        say!("{}", old[0]);
        ret("kill", sys!(rt_sigaction, SIGKILL, &new, 0, 8));
        ret("kill read", sys!(rt_sigaction, SIGKILL, 0, &mut old, 8));
        ret("stop", sys!(rt_sigaction, SIGSTOP, &new, 0, 8));
        ret("zero", sys!(rt_sigaction, 0, &new, 0, 8));
        ret("65", sys!(rt_sigaction, 65, &new, 0, 8));
        ret("64", sys!(rt_sigaction, 64, &new, 0, 8));
        ret("size", sys!(rt_sigaction, SIGUSR1, &new, 0, 4));
        ret("bad pointer", sys!(rt_sigaction, SIGUSR1, NOWHERE, 0, 8));
        ret("bad old pointer", sys!(rt_sigaction, SIGUSR1, 0, NOWHERE, 8));
    }),
    case("rt_sigaction/handler_and_flags", "kill", || {
        on(SIGUSR1, 0);
        raise(SIGUSR1);
        say!("{} codes {}", seen(), codes());
        on(SIGUSR2, SA_RESETHAND);
        raise(SIGUSR2);
        let mut old = [0u64; 4];
        sys!(rt_sigaction, SIGUSR2, 0, &mut old, 8);
        say!("reset to {} flags {:#x}", old[0], old[1] & !0x0400_0000);
        in_child("second", || {
            raise(SIGUSR2);
            0
        });
    }),
    case("rt_sigaction/mask_during_handler", "rt_sigprocmask", || {
        static NESTED: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn nested(_: i32) {
            let mut mask = 0u64;
            sys!(rt_sigprocmask, 0, 0, &mut mask, 8);
            say!("mask in handler {mask:#x}");
            raise(SIGUSR2);
            if count() == 0 && NESTED.fetch_add(1, Ordering::SeqCst) == 0 {
                raise(SIGUSR1);
            }
            say!("after raising: {}", count());
        }
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = nested as *const () as usize;
        unsafe {
            libc::sigaddset(&mut action.sa_mask, SIGUSR2);
            libc::sigaction(SIGUSR1, &action, std::ptr::null_mut());
        }
        on(SIGUSR2, 0);
        block(&[SIGTERM]);
        // The second SIGUSR1, raised inside, waits for the end of the first.
        in_child("nested", || {
            raise(SIGUSR1);
            say!("{}", seen());
            0
        });
        on_masked(SIGUSR1, SA_NODEFER, &[SIGUSR2]);
        raise(SIGUSR1);
        let mut mask = 0u64;
        sys!(rt_sigprocmask, 0, 0, &mut mask, 8);
        say!("mask after {mask:#x}");
    }),
    case("rt_sigprocmask/how", "", || {
        let mut old = 0u64;
        ret("block", sys!(rt_sigprocmask, SIG_BLOCK, &bits(&[SIGUSR1, SIGUSR2]), &mut old, 8));
        ret("unblock", sys!(rt_sigprocmask, SIG_UNBLOCK, &bits(&[SIGUSR1]), &mut old, 8));
        say!("{old:#x}");
        ret("set", sys!(rt_sigprocmask, SIG_SETMASK, &u64::MAX, &mut old, 8));
        say!("{old:#x}");
        ret("read", sys!(rt_sigprocmask, 77, 0, &mut old, 8));
        say!("{old:#x}");
        ret("bad how", sys!(rt_sigprocmask, 77, &old, 0, 8));
        ret("bad size", sys!(rt_sigprocmask, SIG_SETMASK, &old, 0, 16));
        ret("bad pointer", sys!(rt_sigprocmask, SIG_SETMASK, NOWHERE, 0, 8));
        ret("bad old pointer", sys!(rt_sigprocmask, SIG_SETMASK, &old, NOWHERE, 8));
    }),
    case("rt_sigpending/blocked", "kill tgkill", || {
        block(&[SIGUSR1, SIGUSR2, RT]);
        on(SIGUSR1, 0);
        on(SIGUSR2, 0);
        on(RT, 0);
        let mut pending = 0u64;
        raise(SIGUSR1);
        raise(SIGUSR1);
        sys!(tgkill, me(), me(), SIGUSR2);
        sys!(tgkill, me(), me(), RT);
        sys!(tgkill, me(), me(), RT);
        ret("pending", sys!(rt_sigpending, &mut pending, 8));
        say!("{pending:#x}");
        sys!(rt_sigprocmask, SIG_SETMASK, &0u64, 0, 8);
        say!("{} signals", count());
        ret("pending", sys!(rt_sigpending, &mut pending, 8));
        say!("{pending:#x}");
        ret("bad size", sys!(rt_sigpending, &mut pending, 16));
        ret("bad pointer", sys!(rt_sigpending, NOWHERE, 8));
    }),
    case("rt_sigpending/ignoring_discards", "rt_sigaction", || {
        block(&[SIGUSR1, SIGCHLD]);
        raise(SIGUSR1);
        raise(SIGCHLD);
        let mut pending = 0u64;
        sys!(rt_sigpending, &mut pending, 8);
        say!("{pending:#x}");
        sys!(rt_sigaction, SIGUSR1, &[1u64, 0, 0, 0], 0, 8);
        sys!(rt_sigpending, &mut pending, 8);
        say!("{pending:#x}");
        raise(SIGUSR1);
        sys!(rt_sigpending, &mut pending, 8);
        say!("ignored but blocked: {pending:#x}");
    }),
    case("rt_sigsuspend/waits", "fork kill", || {
        block(&[SIGUSR1, SIGUSR2]);
        on(SIGUSR1, 0);
        let parent = me();
        let child = fork(|| {
            asleep(parent as i32);
            sys!(kill, parent, SIGUSR2);
            sys!(kill, parent, SIGUSR1);
            0
        });
        ret("suspend", sys!(rt_sigsuspend, &bits(&[SIGUSR2]), 8));
        say!("{}", seen());
        let mut mask = 0u64;
        sys!(rt_sigprocmask, 0, 0, &mut mask, 8);
        say!("mask restored {mask:#x}");
        say!("{}", wait(child));
        ret("bad size", sys!(rt_sigsuspend, &0u64, 4));
        ret("bad pointer", sys!(rt_sigsuspend, NOWHERE, 8));
        sys!(rt_sigaction, SIGUSR2, &[1u64, 0, 0, 0], 0, 8);
    }),
    case("pause/returns_eintr", "fork kill", || {
        on(SIGUSR1, SA_RESTART);
        let parent = me();
        let child = fork(|| {
            asleep(parent as i32);
            sys!(kill, parent, SIGUSR1);
            0
        });
        ret("pause", sys!(pause));
        say!("{} {}", seen(), wait(child));
    }),
    case("rt_sigtimedwait/queue_and_timeout", "rt_sigqueueinfo", || {
        block(&[SIGUSR1, RT, RT + 1]);
        let mut raw = [0u64; 16];
        ret("nothing", sys!(rt_sigtimedwait, &bits(&[SIGUSR1]), &mut raw, &span_ms(0), 8));
        ret("timeout", sys!(rt_sigtimedwait, &bits(&[SIGUSR1]), &mut raw, &span_ms(20), 8));
        ret("queue", sys!(rt_sigqueueinfo, me(), RT + 1, &info(RT + 1, libc::SI_QUEUE, 1)));
        sys!(rt_sigqueueinfo, me(), RT, &info(RT, libc::SI_QUEUE, 2));
        sys!(rt_sigqueueinfo, me(), RT, &info(RT, libc::SI_QUEUE, 3));
        raise(SIGUSR1);
        let all = bits(&[SIGUSR1, RT, RT + 1]);
        for _ in 0..4 {
            ret("got", sys!(rt_sigtimedwait, &all, &mut raw, &span_ms(0), 8));
            if raw[1] as i32 == libc::SI_QUEUE {
                say!("{}", fields(&raw));
            }
        }
        ret("empty", sys!(rt_sigtimedwait, &all, &mut raw, &span_ms(0), 8));
        ret("bad size", sys!(rt_sigtimedwait, &all, &mut raw, &span_ms(0), 4));
        ret("bad set", sys!(rt_sigtimedwait, NOWHERE, &mut raw, &span_ms(0), 8));
        let bad = libc::timespec { tv_sec: 0, tv_nsec: -1 };
        ret("bad time", sys!(rt_sigtimedwait, &all, &mut raw, &bad, 8));
    }),
    case("rt_sigtimedwait/interrupted_by_another", "fork kill", || {
        block(&[SIGUSR1]);
        on(SIGUSR2, SA_RESTART);
        let parent = me();
        let child = fork(|| {
            asleep(parent as i32);
            sys!(kill, parent, SIGUSR2);
            0
        });
        ret("wait", sys!(rt_sigtimedwait, &bits(&[SIGUSR1]), 0, &span_ms(3000), 8));
        say!("{} {}", seen(), wait(child));
    }),
    case("rt_sigqueueinfo/errors", "rt_tgsigqueueinfo", || {
        on(RT, 0);
        ret("to self any code", sys!(rt_sigqueueinfo, me(), RT, &info(RT, libc::SI_TKILL, 9)));
        ret("thread", sys!(rt_tgsigqueueinfo, me(), me(), RT, &info(RT, libc::SI_QUEUE, 10)));
        say!("{} codes {} values {}", seen(), codes(), values());
        let child = fork(|| {
            pause_ms(3000);
            0
        });
        ret("kill code to other", sys!(rt_sigqueueinfo, child, RT, &info(RT, libc::SI_USER, 0)));
        ret("positive code to other", sys!(rt_sigqueueinfo, child, RT, &info(RT, 5, 0)));
        ret("null signal", sys!(rt_sigqueueinfo, child, 0, &info(0, libc::SI_QUEUE, 0)));
        sys!(kill, child, SIGKILL);
        say!("{}", wait(child));
        ret("no such", sys!(rt_sigqueueinfo, 999_999, RT, &info(RT, libc::SI_QUEUE, 0)));
        ret("bad signal", sys!(rt_sigqueueinfo, me(), 99, &info(99, libc::SI_QUEUE, 0)));
        ret("bad pointer", sys!(rt_sigqueueinfo, me(), RT, NOWHERE));
        ret("thread bad id", sys!(rt_tgsigqueueinfo, me(), -1, RT, &info(RT, libc::SI_QUEUE, 0)));
    }),
    case("rt_sigreturn/order_of_delivery", "rt_sigqueueinfo rt_sigprocmask", || {
        let list = [SIGUSR2, RT + 2, RT, SIGUSR1, SIGINT];
        list.iter().for_each(|s| on_masked(*s, 0, &list));
        block(&list);
        list.iter().for_each(|s| raise(*s));
        sys!(rt_sigprocmask, SIG_UNBLOCK, &bits(&list), 0, 8);
        let mut handled: Vec<String> = seen().split(' ').map(str::to_owned).collect();
        say!(
            "{} handled, real-time in order {}",
            handled.len(),
            handled.iter().position(|s| s == "SIGRTMIN+0") < handled.iter().position(|s| s == "SIGRTMIN+2")
        );
        handled.sort();
        say!("{}", handled.join(" "));
        say!("order {}", seen());
    }),
    case("rt_sigreturn/registers_survive", "kill", || {
        on(SIGUSR1, 0);
        let (mut a, mut b): (u64, u64) = (0x1111_2222_3333_4444, 0x5555_6666_7777_8888);
        let flags: u64;
        let (pid, nr, sig) = (me() as u64, libc::SYS_kill as u64, SIGUSR1 as u64);
        let mut ret_value: u64 = nr;
        unsafe {
            std::arch::asm!(
                "movq xmm15, {a}", "stc", "syscall",
                "pushfq", "pop {f}", "movq {b}, xmm15",
                a = inout(reg) a, b = inout(reg) b, f = out(reg) flags,
                inout("rax") ret_value, in("rdi") pid, in("rsi") sig, out("rcx") _, out("r11") _, out("xmm15") _,
            );
        }
        say!("{} a {a:#x} xmm {b:#x} carry {} rax {ret_value}", seen(), flags & 1);
    }),
    case("sigaltstack/handler_runs_on_it", "rt_sigaction", || {
        let mut memory = vec![0u8; 64 << 10];
        let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
        ret("set", sys!(sigaltstack, &stack, 0));
        let mut old: libc::stack_t = zeroed();
        ret("get", sys!(sigaltstack, 0, &mut old));
        say!("flags {} size {}", old.ss_flags, old.ss_size);
        on(SIGUSR1, SA_ONSTACK);
        raise(SIGUSR1);
        say!("in handler {}", ON_STACK.load(Ordering::SeqCst));
        on(SIGUSR1, 0);
        raise(SIGUSR1);
        say!("without the flag {}", ON_STACK.load(Ordering::SeqCst));
        let small = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: 100 };
        ret("small", sys!(sigaltstack, &small, 0));
        let flags = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 7, ss_size: 65536 };
        ret("bad flags", sys!(sigaltstack, &flags, 0));
        ret("bad pointer", sys!(sigaltstack, NOWHERE, 0));
        let auto = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 1 << 31, ss_size: 65536 };
        ret("autodisarm", sys!(sigaltstack, &auto, 0));
        on(SIGUSR1, SA_ONSTACK);
        raise(SIGUSR1);
        say!("in handler {}", ON_STACK.load(Ordering::SeqCst));
        sys!(sigaltstack, 0, &mut old);
        say!("after {:#x}", old.ss_flags);
        let disable = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        ret("disable", sys!(sigaltstack, &disable, 0));
    }),
    case("sigaltstack/stack_overflow", "setrlimit", || {
        in_child("overflow", || {
            extern "C" fn caught(_: i32) {
                say!("caught on the alternate stack");
                leave(7);
            }
            let memory = Box::leak(vec![0u8; 64 << 10].into_boxed_slice());
            let stack =
                libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
            sys!(sigaltstack, &stack, 0);
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = caught as *const () as usize;
            action.sa_flags = SA_ONSTACK;
            unsafe { libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()) };
            fn deeper(n: u64) -> u64 {
                let pad = std::hint::black_box([n; 128]);
                if n == u64::MAX { 0 } else { deeper(n + 1) + pad[(n % 128) as usize] }
            }
            deeper(0) as i32
        });
        in_child("without", || {
            fn deeper(n: u64) -> u64 {
                let pad = std::hint::black_box([n; 128]);
                if n == u64::MAX { 0 } else { deeper(n + 1) + pad[(n % 128) as usize] }
            }
            deeper(0) as i32
        });
    }),
    case("kill/targets", "setpgid fork", || {
        ret("self null", sys!(kill, me(), 0));
        ret("no such", sys!(kill, 999_999, 0));
        ret("bad signal", sys!(kill, me(), 65));
        ret("negative signal", sys!(kill, me(), -1));
        ret("no such group", sys!(kill, -999_999, 0));
        let mut children = Vec::new();
        for i in 0..3 {
            let child = fork(|| {
                pause_ms(5000);
                0
            });
            let group = if i == 0 { child } else { children[0] };
            sys!(setpgid, child, group);
            children.push(child);
        }
        ret("group", sys!(kill, -children[0], SIGTERM));
        for child in children {
            say!("{}", wait(child));
        }
        let dead = fork(|| 0);
        until(|| state_of(dead) == 'Z');
        ret("zombie", sys!(kill, dead, SIGTERM));
        say!("{}", wait(dead));
        ret("reaped", sys!(kill, dead, 0));
    }),
    case("kill/permissions", "setresuid", || {
        let victim = fork(|| {
            pause_ms(5000);
            0
        });
        in_child("user", || {
            sys!(setresuid, 1000, 1000, 1000);
            ret("root's process", sys!(kill, victim, SIGTERM));
            ret("null signal", sys!(kill, victim, 0));
            ret("myself", sys!(kill, sys!(getpid), 0));
            0
        });
        let other = fork(|| {
            sys!(setresuid, 1000, 2000, 3000);
            pause_ms(5000);
            0
        });
        until(|| {
            std::fs::read_to_string(format!("/proc/{other}/status"))
                .unwrap_or_default()
                .contains("Uid:\t1000\t2000\t3000")
        });
        in_child("by real", || {
            sys!(setresuid, 1000, 5, 5);
            ret("kill", sys!(kill, other, 0)) as i32
        });
        in_child("by saved", || {
            sys!(setresuid, 3000, 3000, 3000);
            ret("kill", sys!(kill, other, 0)) as i32
        });
        in_child("effective of the target does not count", || {
            sys!(setresuid, 2000, 2000, 2000);
            ret("kill", sys!(kill, other, 0));
            0
        });
        for child in [victim, other] {
            sys!(kill, child, SIGKILL);
            say!("{}", wait(child));
        }
    }),
    case("tgkill/errors", "tkill gettid", || {
        on(SIGUSR1, 0);
        ret("tgkill", sys!(tgkill, me(), sys!(gettid), SIGUSR1));
        ret("tkill", sys!(tkill, sys!(gettid), SIGUSR1));
        say!("{} codes {}", seen(), codes());
        ret("wrong group", sys!(tgkill, 1_000_000, sys!(gettid), SIGUSR1));
        ret("zero", sys!(tgkill, 0, sys!(gettid), SIGUSR1));
        ret("negative", sys!(tgkill, me(), -1, SIGUSR1));
        ret("bad signal", sys!(tgkill, me(), sys!(gettid), 99));
        ret("tkill zero", sys!(tkill, 0, SIGUSR1));
        ret("tkill no such", sys!(tkill, 999_999, SIGUSR1));
    }),
    case("tgkill/to_a_thread", "gettid", || {
        static HANDLED_BY: AtomicI32 = AtomicI32::new(0);
        static THREAD: AtomicI32 = AtomicI32::new(0);
        extern "C" fn note(_: i32) {
            HANDLED_BY.store(sys!(gettid) as i32, Ordering::SeqCst);
        }
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = note as *const () as usize;
        unsafe { libc::sigaction(SIGUSR1, &action, std::ptr::null_mut()) };
        let thread = std::thread::spawn(|| {
            THREAD.store(sys!(gettid) as i32, Ordering::SeqCst);
            until(|| HANDLED_BY.load(Ordering::SeqCst) != 0);
        });
        until(|| THREAD.load(Ordering::SeqCst) != 0);
        ret("tgkill", sys!(tgkill, me(), THREAD.load(Ordering::SeqCst), SIGUSR1));
        let _ = thread.join();
        claim("handled by that thread", HANDLED_BY.load(Ordering::SeqCst) == THREAD.load(Ordering::SeqCst));
        // A signal to the process goes to a thread that does not block it.
        HANDLED_BY.store(0, Ordering::SeqCst);
        THREAD.store(0, Ordering::SeqCst);
        let thread = std::thread::spawn(|| {
            THREAD.store(sys!(gettid) as i32, Ordering::SeqCst);
            until(|| HANDLED_BY.load(Ordering::SeqCst) != 0);
        });
        block(&[SIGUSR1]);
        until(|| THREAD.load(Ordering::SeqCst) != 0);
        raise(SIGUSR1);
        let _ = thread.join();
        claim("the open thread took it", HANDLED_BY.load(Ordering::SeqCst) == THREAD.load(Ordering::SeqCst));
    }),
    case("read/eintr_and_restart", "pipe2 kill fork", || {
        let (r, w) = pipe(0);
        let parent = me();
        let poke = |signal: i32, then_write: bool| {
            fork(|| {
                asleep(parent as i32);
                sys!(kill, parent, signal);
                if then_write {
                    pause_ms(30);
                    sys!(write, w, b"x", 1);
                }
                0
            })
        };
        let mut b = [0u8; 4];
        on(SIGUSR1, 0);
        let child = poke(SIGUSR1, false);
        ret("no restart", sys!(read, r, &mut b, 4));
        say!("{}", wait(child));
        on(SIGUSR1, SA_RESTART);
        let child = poke(SIGUSR1, true);
        ret("restart", sys!(read, r, &mut b, 4));
        say!("{} seen {}", wait(child), count());
        sys!(rt_sigaction, SIGUSR1, &[1u64, 0, 0, 0], 0, 8);
        let child = poke(SIGUSR1, true);
        ret("ignored", sys!(read, r, &mut b, 4));
        say!("{}", wait(child));
    }),
    case("wait4/eintr_and_restart", "kill fork", || {
        on(SIGUSR1, 0);
        let parent = me();
        let child = fork(|| {
            asleep(parent as i32);
            sys!(kill, parent, SIGUSR1);
            pause_ms(40);
            5
        });
        let mut status = 0i32;
        ret("no restart", sys!(wait4, child, &mut status, 0, 0));
        say!("{}", wait(child));
    }),
    case("kill/stop_and_continue", "wait4", || {
        on(SIGCHLD, 0);
        let child = fork(|| {
            on(SIGCONT, 0);
            on(SIGUSR1, 0);
            // The parent sends the second when it knows that this goes on.
            until(|| count() > 1);
            // It is the parent who says so: nothing keeps the order of two that print.
            if seen().contains("SIGCONT") { 3 } else { 4 }
        });
        // It sleeps when it listens to both.
        asleep(child);
        ret("stop", sys!(kill, child, SIGSTOP));
        let mut status = 0i32;
        let waited = loop {
            let r = sys!(wait4, child, &mut status, libc::WUNTRACED, 0);
            if r != -(libc::EINTR as isize) {
                break r;
            }
        };
        say!("{} {}", waited == child as isize, crate::out::status(status));
        say!("state {}", state_of(child));
        ret("not twice", sys!(wait4, child, &mut status, libc::WUNTRACED | WNOHANG, 0));
        ret("continue", sys!(kill, child, SIGCONT));
        until(|| sys!(wait4, child, &mut status, libc::WCONTINUED | WNOHANG, 0) > 0);
        say!("{}", crate::out::status(status));
        ret("go", sys!(kill, child, SIGUSR1));
        let end = loop {
            let w = wait(child);
            if w != "EINTR" {
                break w;
            }
        };
        say!("{end}");
        claim("SIGCHLD came", count() > 0);
    }),
    case("kill/stop_signals_and_orphans", "setsid", || {
        // A new session has an orphaned process group: SIGTSTP is ignored there, SIGSTOP is not.
        let child = fork(|| {
            sys!(setsid);
            raise(SIGTSTP);
            say!("not stopped");
            4
        });
        say!("{}", wait(child));
        let child = fork(|| {
            raise(SIGSTOP);
            5
        });
        let mut status = 0i32;
        sys!(wait4, child, &mut status, libc::WUNTRACED, 0);
        say!("{}", crate::out::status(status));
        sys!(kill, child, SIGTERM);
        ret("term stays pending", sys!(wait4, child, &mut status, WNOHANG, 0));
        sys!(kill, child, SIGCONT);
        say!("{}", wait(child));
    }),
    case("kill/sigkill_of_a_stopped", "wait4", || {
        let child = fork(|| {
            raise(SIGSTOP);
            5
        });
        let mut status = 0i32;
        sys!(wait4, child, &mut status, libc::WUNTRACED, 0);
        sys!(kill, child, SIGKILL);
        say!("{}", wait(child));
    }),
    case("kill/cont_discards_stop", "rt_sigpending", || {
        block(&[SIGTSTP, SIGCONT]);
        let mut pending = 0u64;
        raise(SIGTSTP);
        sys!(rt_sigpending, &mut pending, 8);
        say!("{pending:#x}");
        raise(SIGCONT);
        sys!(rt_sigpending, &mut pending, 8);
        say!("{pending:#x}");
        raise(SIGTSTP);
        sys!(rt_sigpending, &mut pending, 8);
        say!("{pending:#x}");
    }),
    case("exit/sigchld_rules", "rt_sigaction wait4", || {
        // Ignored SIGCHLD: children are reaped by the kernel.
        sys!(rt_sigaction, SIGCHLD, &[1u64, 0, 0, 0], 0, 8);
        let child = fork(|| 3);
        let mut status = 0i32;
        ret("wait", sys!(wait4, child, &mut status, 0, 0));
        on(SIGCHLD, SA_NOCLDSTOP);
        let child = fork(|| {
            raise(SIGSTOP);
            0
        });
        sys!(wait4, child, &mut status, libc::WUNTRACED, 0);
        say!("no signal for the stop {}", count());
        sys!(kill, child, SIGCONT);
        while wait(child) == "EINTR" {}
        say!("{}", count());
    }),
    case("exit/sigchld_information", "rt_sigtimedwait", || {
        block(&[SIGCHLD]);
        let show = |raw: &[u64; 16]| {
            // si_pid and si_uid stand in raw[2], si_status in raw[3]'s low half.
            say!("code {} uid {} status {}", raw[1] as u32 as i32, raw[2] >> 32, raw[3] as u32);
        };
        let mut raw = [0u64; 16];
        let child = fork(|| 42);
        ret("exit", sys!(rt_sigtimedwait, &bits(&[SIGCHLD]), &mut raw, &span_ms(3000), 8));
        show(&raw);
        wait(child);
        let child = fork(|| {
            raise(SIGKILL);
            0
        });
        ret("killed", sys!(rt_sigtimedwait, &bits(&[SIGCHLD]), &mut raw, &span_ms(3000), 8));
        show(&raw);
        wait(child);
        let child = fork(|| {
            raise(SIGSTOP);
            0
        });
        ret("stopped", sys!(rt_sigtimedwait, &bits(&[SIGCHLD]), &mut raw, &span_ms(3000), 8));
        show(&raw);
        sys!(kill, child, SIGKILL);
        wait(child);
    }),
    case("rt_sigaction/default_actions", "kill", || {
        for signal_ in 1..=31 {
            if [SIGSTOP, SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal_) {
                continue;
            }
            in_child(&signal(signal_), || {
                raise(signal_);
                0
            });
        }
        in_child("real-time", || {
            raise(RT + 5);
            0
        });
    }),
    case("execve/signals_across_exec", "rt_sigaction rt_sigprocmask", || {
        on(SIGUSR1, 0);
        sys!(rt_sigaction, SIGUSR2, &[1u64, 0, 0, 0], 0, 8);
        block(&[SIGTERM]);
        raise(SIGTERM);
        sys!(umask, 0o077);
        let argv = [c"guest".as_ptr(), c"helper:state".as_ptr(), std::ptr::null()];
        sys!(execve, c"/proc/self/exe", &argv, 0);
    }),
    case("fork/signals_across_fork", "rt_sigpending", || {
        on(SIGUSR1, 0);
        block(&[SIGUSR2]);
        raise(SIGUSR2);
        in_child("child", || {
            let mut pending = 0u64;
            sys!(rt_sigpending, &mut pending, 8);
            let mut mask = 0u64;
            sys!(rt_sigprocmask, 0, 0, &mut mask, 8);
            say!("pending {pending:#x} mask {mask:#x}");
            raise(SIGUSR1);
            say!("handler {}", seen());
            0
        });
    }),
    case("rt_sigqueueinfo/limit", "prlimit64", || {
        block(&[RT]);
        in_child("limited user", || {
            let limit = libc::rlimit { rlim_cur: 5, rlim_max: 5 };
            sys!(prlimit64, 0, libc::RLIMIT_SIGPENDING, &limit, 0);
            sys!(setresuid, 12345, 12345, 12345);
            let mut sent = 0;
            let end = loop {
                let r = sys!(rt_sigqueueinfo, sys!(getpid), RT, &info(RT, libc::SI_QUEUE, sent));
                if r < 0 || sent > 100 {
                    break r;
                }
                sent += 1;
            };
            ret("end", end);
            say!("some were queued {}", (1..=5).contains(&sent));
            ret("kill still works", sys!(kill, sys!(getpid), SIGUSR2.min(0)));
            0
        });
    }),
    case("write/sigpipe_information", "rt_sigtimedwait", || {
        block(&[SIGPIPE]);
        let (r, w) = pipe(0);
        sys!(close, r);
        ret("write", sys!(write, w, b"x", 1));
        ret("signal", sys!(rt_sigtimedwait, &bits(&[SIGPIPE]), 0, &span_ms(0), 8));
    }),
    case("alarm/interrupts_and_remaining", "pause", || {
        on(SIGALRM, 0);
        ret("set", sys!(alarm, 100));
        say!("remaining {}", (99..=100).contains(&sys!(alarm, 1)));
        ret("pause", sys!(pause));
        say!("{} codes {}", seen(), codes());
        ret("none left", sys!(alarm, 0));
        done("cancel", 0);
    }),
    case("restart_syscall/nanosleep_continues", "nanosleep kill", || {
        // A stop and continue must not shorten or prolong the sleep, nor end it early.
        let child = fork(|| {
            let began = crate::case::now_ms();
            let r = sys!(nanosleep, &span_ms(300), 0);
            let took = crate::case::now_ms() - began;
            ret("sleep", r);
            say!("long enough {}", took >= 300);
            0
        });
        asleep(child);
        sys!(kill, child, SIGSTOP);
        let mut status = 0i32;
        sys!(wait4, child, &mut status, libc::WUNTRACED, 0);
        pause_ms(20);
        sys!(kill, child, SIGCONT);
        say!("{}", wait(child));
        ret("direct call", sys!(restart_syscall));
    }),
];
