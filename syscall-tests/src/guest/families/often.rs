//! Calls made often from the same place, through the C library: a sandbox may answer them in other ways than the first ones,
//! and nobody must be able to tell.

use super::futexes::shared;
use crate::case::{Case, case, fork, in_child, until, wait, zeroed};
use crate::out::{claim, ret};
use crate::{say, sys};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

const OFTEN: usize = 300;

/// The one answer of many calls; `None` if they differ.
fn same(f: impl Fn() -> i64) -> Option<i64> {
    let first = f();
    (0..OFTEN).all(|_| f() == first).then_some(first)
}

fn ids() -> [Option<i64>; 4] {
    // SAFETY: these only return numbers.
    unsafe {
        [
            same(|| libc::getuid().into()),
            same(|| libc::geteuid().into()),
            same(|| libc::getgid().into()),
            same(|| libc::getegid().into()),
        ]
    }
}

fn me() -> (Option<i64>, Option<i64>) {
    // SAFETY: as above.
    unsafe { (same(|| libc::getpid().into()), same(|| libc::gettid().into())) }
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
static STRANGE: AtomicU32 = AtomicU32::new(0);

extern "C" fn look(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the kernel gives a ucontext; where it was interrupted there is code.
    let (rip, rcx, before) = unsafe {
        let g = &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let rip = g[libc::REG_RIP as usize] as u64;
        (rip, g[libc::REG_RCX as usize] as u64, *((rip - 2) as *const [u8; 2]))
    };
    if before != [0x0f, 0x05] || rcx != rip {
        STRANGE.fetch_add(1, Ordering::Relaxed);
    }
}

fn code_of(f: u64) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0u8; 32];
    let file = std::fs::File::open("/proc/self/mem");
    let read = file.and_then(|m| m.read_exact_at(&mut bytes, f));
    if read.is_ok() { bytes } else { Vec::new() }
}

/// getppid(2) by its own call site.
fn parent() -> u32 {
    // SAFETY: returns a number.
    unsafe { libc::getppid() }.unsigned_abs()
}

static PARENT_AT_SIGNAL: AtomicU32 = AtomicU32::new(0);

extern "C" fn ask_parent(_: i32) {
    PARENT_AT_SIGNAL.store(parent(), Ordering::Relaxed);
}

/// Asks for its parent until it is told that the first one was waited for, and then once more: how often the first one was named after that.
fn ask_until(gone: &AtomicU32, first: u32) -> u32 {
    let mut wrong = 0;
    loop {
        // In this order: what is asked after the news must not be old.
        let last = gone.load(Ordering::SeqCst) == 1;
        let named = parent();
        if last {
            wrong += u32::from(named == first);
            return wrong + u32::from((0..OFTEN).any(|_| parent() != named));
        }
    }
}

/// The cases.
pub const CASES: &[Case] = &[
    case("getpid/often", "gettid getuid geteuid getgid getegid", || {
        let (pid, tid) = me();
        claim("the same answers", pid.is_some() && pid == tid && pid == Some(sys!(getpid) as i64));
        say!("{:?}", ids());
        in_child("child", || {
            let (child, tid) = me();
            claim("another process", child.is_some() && child == tid && child != pid);
            sys!(setresgid, 7, 8, 9);
            say!("{:?}", ids());
            sys!(setresuid, 5, 6, 0);
            say!("{:?}", ids());
            in_child("grandchild", || (me().0 == child) as i32);
            0
        });
        let thread = std::thread::spawn(me).join().ok();
        claim("a thread", thread.is_some_and(|(p, t)| p == pid && t.is_some() && t != tid));
        claim("still the same", me() == (pid, tid));
    }),
    case("unshare/ids_of_calls_made_often", "write getuid getgid", || {
        in_child("child", || {
            say!("{:?}", ids());
            ret("unshare", sys!(unshare, libc::CLONE_NEWUSER));
            say!("{:?}", ids());
            let put = |name: &str, text: &str| {
                let wrote = std::fs::write(format!("/proc/self/{name}"), text);
                claim(name, wrote.is_ok());
            };
            put("uid_map", "5 0 1");
            say!("{:?}", ids());
            put("setgroups", "deny");
            put("gid_map", "6 0 1");
            say!("{:?}", ids());
            sys!(setuid, 5);
            say!("{:?}", ids());
            0
        });
        // Written by another one, while the process asks all the time.
        let (read, write) = crate::case::pipe(0);
        let child = crate::case::fork(|| {
            sys!(unshare, libc::CLONE_NEWUSER);
            sys!(write, write, b"x".as_slice(), 1);
            // SAFETY: returns a number.
            crate::case::until(|| (0..OFTEN).all(|_| unsafe { libc::getuid() } == 3)) as i32 + 1
        });
        sys!(read, read, &mut [0u8], 1);
        claim("written", std::fs::write(format!("/proc/{child}/uid_map"), "3 0 1").is_ok());
        say!("{}", crate::case::wait(child));
    }),
    case("seccomp/reaches_calls_of_other_threads", "getpid", || {
        in_child("child", || {
            sys!(prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            // SAFETY: returns a number.
            let other = std::thread::spawn(|| crate::case::until(|| unsafe { libc::getpid() } < 0));
            crate::case::pause_ms(30);
            let program: [u64; 4] =
                [0x20, 0x15 | 1 << 24 | 39 << 32, 0x06 | 0x0005_002a << 32, 0x06 | 0x7fff_0000 << 32];
            ret("install", sys!(seccomp, 1, 1, &[4u64, program.as_ptr() as u64]));
            claim("seen", other.join().is_ok_and(|seen| seen));
            0
        });
    }),
    case("seccomp/filters_calls_made_often", "prctl", || {
        in_child("child", || {
            me();
            // Load the number; getpid gives errno 42, all else is allowed.
            let program: [u64; 4] =
                [0x20, 0x15 | 1 << 24 | 39 << 32, 0x06 | 0x0005_002a << 32, 0x06 | 0x7fff_0000 << 32];
            sys!(prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            ret("install", sys!(seccomp, 1, 0, &[4u64, program.as_ptr() as u64]));
            // SAFETY: returns a number.
            say!("{:?}", same(|| unsafe { libc::getpid() }.into()));
            0
        });
    }),
    case("tgkill/signals_often", "rt_sigaction rt_sigreturn kill", || {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = look as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: a valid handler; the process signals itself.
        unsafe {
            libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
            let me = libc::getpid();
            for _ in 0..OFTEN {
                libc::kill(me, libc::SIGUSR1);
            }
        }
        say!("{} strange {}", COUNT.load(Ordering::Relaxed), STRANGE.load(Ordering::Relaxed));
    }),
    case("getppid/often", "fork clone wait4 prctl", || {
        sys!(prctl, libc::PR_SET_CHILD_SUBREAPER, 1);
        let me = sys!(getpid) as u32;
        let w = shared();
        let [ready, gone, wrong, heirs] = [&w[0], &w[1], &w[2], &w[3]];
        for round in 0..20 {
            for word in [ready, gone, wrong, heirs] {
                word.store(0, Ordering::SeqCst);
            }
            let middle = fork(|| {
                let first = sys!(getpid) as u32;
                fork(|| {
                    // SAFETY: a handler that only asks and stores.
                    unsafe { libc::signal(libc::SIGUSR1, ask_parent as *const () as usize) };
                    sys!(prctl, libc::PR_SET_PDEATHSIG, libc::SIGUSR1);
                    let ask = move || {
                        let known = same(|| parent().into());
                        wrong.fetch_add(u32::from(known != Some(first.into())), Ordering::SeqCst);
                        ready.fetch_add(1, Ordering::SeqCst);
                        wrong.fetch_add(ask_until(gone, first), Ordering::SeqCst);
                        heirs.fetch_add(u32::from(parent() == me), Ordering::SeqCst);
                    };
                    let others = [std::thread::spawn(ask), std::thread::spawn(ask)];
                    ask();
                    for other in others {
                        let _ = other.join();
                    }
                    let told = until(|| PARENT_AT_SIGNAL.load(Ordering::Relaxed) != 0);
                    let at_signal = PARENT_AT_SIGNAL.load(Ordering::Relaxed);
                    wrong.fetch_add(u32::from(!told || at_signal != me), Ordering::SeqCst);
                    0
                });
                until(|| ready.load(Ordering::SeqCst) == 3);
                0
            });
            let middle = wait(middle);
            gone.store(1, Ordering::SeqCst);
            let orphan = sys!(wait4, -1, 0, 0, 0);
            let found = (wrong.load(Ordering::SeqCst), heirs.load(Ordering::SeqCst));
            if orphan <= 0 || found != (0, 3) || round == 0 {
                say!("{middle} orphan {} wrong, heirs {:?}", orphan > 0, found);
            }
        }
        // A sister of the one that makes it, and the child of a sister.
        in_child("maker", || {
            let made = sys!(clone, libc::CLONE_PARENT | libc::SIGCHLD, 0, 0, 0, 0);
            if made == 0 {
                crate::case::leave((same(|| parent().into()) != Some(me.into())) as i32);
            }
            0
        });
        let mut status = -1i32;
        sys!(wait4, -1, &mut status, 0, 0);
        say!("{}", crate::out::status(status));
    }),
    case("unshare/parent_in_a_pid_namespace_often", "getppid", || {
        in_child("maker", || {
            ret("unshare", sys!(unshare, libc::CLONE_NEWPID));
            in_child("init", || {
                say!("{:?}", same(|| parent().into()));
                in_child("its child", || {
                    say!("{:?}", same(|| parent().into()));
                    0
                });
                let asked = &shared()[0];
                let middle = fork(|| {
                    let mine = sys!(getpid) as i64;
                    fork(|| {
                        claim("known", same(|| parent().into()) == Some(mine));
                        asked.store(1, Ordering::SeqCst);
                        claim("adopted by init", until(|| parent() == 1));
                        say!("{:?}", same(|| parent().into()));
                        0
                    });
                    until(|| asked.load(Ordering::SeqCst) == 1);
                    0
                });
                wait(middle);
                (sys!(wait4, -1, 0, 0, 0) <= 0) as i32
            });
            0
        });
    }),
    case("mprotect/code_of_calls_made_often", "getppid read", || {
        let code = libc::getppid as *const () as u64;
        let before = code_of(code);
        // SAFETY: returns a number.
        let parent = same(|| unsafe { libc::getppid() }.into());
        claim("memory shows what the file has", !before.is_empty() && code_of(code) == before);
        let page = code & !4095;
        ret("mprotect", sys!(mprotect, page, 8192, 7));
        // SAFETY: returns a number.
        claim("called", parent.is_some() && parent == same(|| unsafe { libc::getppid() }.into()));
        ret("mprotect", sys!(mprotect, page, 8192, 5));
        // SAFETY: returns a number.
        claim("called again", parent == same(|| unsafe { libc::getppid() }.into()));
        in_child("child", || {
            // SAFETY: returns a number.
            let mine = same(|| unsafe { libc::getppid() }.into());
            (mine.is_none() || mine == parent) as i32
        });
    }),
];
