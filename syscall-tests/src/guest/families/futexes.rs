//! Futexes: waiting, waking, requeueing, bit sets, robust lists, priority inheritance, vectors.

use crate::case::{Case, NOWHERE, asleep, case, fork, in_child, now_ms, span_ms, wait};
use crate::out::{claim, ret};
use crate::{say, sys};
use libc::{
    CLOCK_MONOTONIC, CLOCK_REALTIME, FUTEX_CLOCK_REALTIME, FUTEX_CMP_REQUEUE, FUTEX_LOCK_PI,
    FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI, FUTEX_WAIT, FUTEX_WAIT_BITSET,
    FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP, MAP_ANONYMOUS, MAP_SHARED, PROT_READ, PROT_WRITE, timespec,
};
use std::sync::atomic::{AtomicU32, Ordering};

/// A page of words shared with children.
pub(super) fn shared() -> &'static [AtomicU32; 1024] {
    let p = sys!(mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    // SAFETY: a fresh page that is never unmapped.
    unsafe { &*(p as *const [AtomicU32; 1024]) }
}

fn wake(word: &AtomicU32, n: i32) -> isize {
    sys!(futex, word.as_ptr(), FUTEX_WAKE, n, 0, 0, 0)
}

/// A child that waits on the word and leaves with 1 when it was woken.
fn waiter(word: &'static AtomicU32, bits: u32) -> i32 {
    let child = fork(|| {
        let r = sys!(futex, word.as_ptr(), FUTEX_WAIT_BITSET, 0, 0, 0, bits);
        if r == 0 { 1 } else { (-r) as i32 }
    });
    asleep(child);
    child
}

fn deadline(clock: i32, ms: i64) -> timespec {
    let mut t = timespec { tv_sec: 0, tv_nsec: 0 };
    sys!(clock_gettime, clock, &mut t);
    t.tv_nsec += ms * 1_000_000;
    t.tv_sec += t.tv_nsec / 1_000_000_000;
    t.tv_nsec %= 1_000_000_000;
    t
}

pub const CASES: &[Case] = &[
    case("futex/wait_and_wake", "fork", || {
        let w = shared();
        ret("value differs", sys!(futex, w[0].as_ptr(), FUTEX_WAIT, 1, 0, 0, 0));
        ret("nobody", wake(&w[0], 1));
        let children: Vec<i32> = (0..3).map(|_| waiter(&w[0], u32::MAX)).collect();
        ret("one", wake(&w[0], 1));
        ret("all", wake(&w[0], 100));
        for child in children {
            say!("{}", wait(child));
        }
    }),
    case("futex/errors", "", || {
        let w = shared();
        ret("odd", sys!(futex, w.as_ptr() as usize + 1, FUTEX_WAIT, 0, 0, 0, 0));
        ret("odd wake", sys!(futex, w.as_ptr() as usize + 1, FUTEX_WAKE, 0, 0, 0, 0));
        ret("nowhere", sys!(futex, NOWHERE, FUTEX_WAIT, 0, 0, 0, 0));
        ret("wake nowhere shared", sys!(futex, NOWHERE, FUTEX_WAKE, 1, 0, 0, 0));
        ret("wake nowhere private", sys!(futex, NOWHERE, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, 0, 0, 0));
        ret("unknown", sys!(futex, w[0].as_ptr(), 99, 0, 0, 0, 0));
        ret("zero bits wait", sys!(futex, w[0].as_ptr(), FUTEX_WAIT_BITSET, 0, 0, 0, 0));
        ret("zero bits wake", sys!(futex, w[0].as_ptr(), FUTEX_WAKE_BITSET, 1, 0, 0, 0));
        ret("realtime wake", sys!(futex, w[0].as_ptr(), FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, 0, 0, 0));
        let bad = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
        ret("bad time", sys!(futex, w[0].as_ptr(), FUTEX_WAIT, 0, &bad, 0, 0));
        ret("bad time pointer", sys!(futex, w[0].as_ptr(), FUTEX_WAIT, 0, NOWHERE, 0, 0));
    }),
    case("futex/timeouts", "clock_gettime", || {
        let w = shared();
        let began = now_ms();
        ret("relative", sys!(futex, w[0].as_ptr(), FUTEX_WAIT, 0, &span_ms(30), 0, 0));
        claim("waited", now_ms() - began >= 30);
        let t = deadline(CLOCK_MONOTONIC, 30);
        ret("absolute", sys!(futex, w[0].as_ptr(), FUTEX_WAIT_BITSET, 0, &t, 0, u32::MAX));
        let t = deadline(CLOCK_REALTIME, 30);
        ret(
            "absolute real",
            sys!(futex, w[0].as_ptr(), FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &t, 0, u32::MAX),
        );
        ret("past", sys!(futex, w[0].as_ptr(), FUTEX_WAIT_BITSET, 0, &span_ms(0), 0, u32::MAX));
        claim("in all", now_ms() - began >= 85);
        ret("zero relative", sys!(futex, w[0].as_ptr(), FUTEX_WAIT, 0, &span_ms(0), 0, 0));
    }),
    case("futex/bitsets", "fork", || {
        let w = shared();
        let a = waiter(&w[0], 1);
        let b = waiter(&w[0], 2);
        ret("other bits", sys!(futex, w[0].as_ptr(), FUTEX_WAKE_BITSET, 10, 0, 0, 4));
        ret("second's", sys!(futex, w[0].as_ptr(), FUTEX_WAKE_BITSET, 10, 0, 0, 6));
        say!("{}", wait(b));
        ret("plain wake takes any", wake(&w[0], 10));
        say!("{}", wait(a));
    }),
    case("futex/requeue", "fork", || {
        let w = shared();
        let children: Vec<i32> = (0..4).map(|_| waiter(&w[0], u32::MAX)).collect();
        ret("compare fails", sys!(futex, w[0].as_ptr(), FUTEX_CMP_REQUEUE, 1, 10, w[1].as_ptr(), 5));
        ret("one woken, two moved", sys!(futex, w[0].as_ptr(), FUTEX_CMP_REQUEUE, 1, 2, w[1].as_ptr(), 0));
        ret("left on the first", wake(&w[0], 10));
        ret("on the second", wake(&w[1], 10));
        for child in children {
            say!("{}", wait(child));
        }
        let child = waiter(&w[0], u32::MAX);
        ret("plain requeue", sys!(futex, w[0].as_ptr(), FUTEX_REQUEUE, 0, 10, w[2].as_ptr(), 0));
        ret("moved", wake(&w[2], 1));
        say!("{}", wait(child));
        ret("negative", sys!(futex, w[0].as_ptr(), FUTEX_REQUEUE, -1, 10, w[2].as_ptr(), 0));
    }),
    case("futex/wake_op", "fork", || {
        let w = shared();
        w[1].store(5, Ordering::SeqCst);
        // ADD 3 to the second; wake there if the old value was greater than 4.
        let op = |op: u32, cmp: u32, a: u32, c: u32| (op << 28) | (cmp << 24) | (a << 12) | c;
        let on_second = fork(|| {
            let r = sys!(futex, w[1].as_ptr(), FUTEX_WAIT, 5, 0, 0, 0);
            if r == 0 { 1 } else { 2 }
        });
        asleep(on_second);
        let on_first = waiter(&w[0], u32::MAX);
        ret("both", sys!(futex, w[0].as_ptr(), FUTEX_WAKE_OP, 1, 1, w[1].as_ptr(), op(1, 4, 3, 4)));
        say!("{} {} {}", w[1].load(Ordering::SeqCst), wait(on_first), wait(on_second));
        ret("set", sys!(futex, w[0].as_ptr(), FUTEX_WAKE_OP, 1, 1, w[1].as_ptr(), op(0, 0, 9, 0)));
        ret("andn", sys!(futex, w[0].as_ptr(), FUTEX_WAKE_OP, 1, 1, w[1].as_ptr(), op(3, 0, 1, 0)));
        ret("xor", sys!(futex, w[0].as_ptr(), FUTEX_WAKE_OP, 1, 1, w[1].as_ptr(), op(4, 0, 3, 0)));
        say!("{}", w[1].load(Ordering::SeqCst));
        ret("bad op", sys!(futex, w[0].as_ptr(), FUTEX_WAKE_OP, 1, 1, w[1].as_ptr(), op(7, 0, 3, 0)));
        ret("bad address", sys!(futex, w[0].as_ptr(), FUTEX_WAKE_OP, 1, 1, NOWHERE, op(0, 0, 3, 0)));
    }),
    case("futex/interrupted", "kill", || {
        let w = shared();
        let me = sys!(getpid);
        let poke = |signal: i32, then_wake: bool| {
            fork(move || {
                asleep(me as i32);
                sys!(kill, me, signal);
                if then_wake {
                    crate::case::pause_ms(30);
                    wake(&w[0], 1);
                }
                0
            })
        };
        super::signals::on(libc::SIGUSR1, 0);
        let child = poke(libc::SIGUSR1, false);
        ret("no restart", sys!(futex, w[0].as_ptr(), FUTEX_WAIT, 0, 0, 0, 0));
        wait(child);
        super::signals::on(libc::SIGUSR1, libc::SA_RESTART);
        let child = poke(libc::SIGUSR1, true);
        ret("restart", sys!(futex, w[0].as_ptr(), FUTEX_WAIT, 0, 0, 0, 0));
        wait(child);
        let child = poke(libc::SIGUSR1, false);
        ret("with a timeout", sys!(futex, w[0].as_ptr(), FUTEX_WAIT, 0, &span_ms(200), 0, 0));
        wait(child);
        say!("{}", super::signals::count());
    }),
    case("futex/private_and_shared_keys", "mmap fork", || {
        // The same file page mapped twice is one futex when shared, two when private.
        let fd = crate::case::file("f", &[0u8; 4096]);
        let map = |flags: i32| sys!(mmap, 0, 4096, PROT_READ | PROT_WRITE, flags, fd, 0) as usize;
        let (a, b) = (map(MAP_SHARED), map(MAP_SHARED));
        let child = fork(|| (sys!(futex, a, FUTEX_WAIT, 0, 0, 0, 0) == 0) as i32);
        asleep(child);
        ret("other mapping", sys!(futex, b, FUTEX_WAKE, 1, 0, 0, 0));
        say!("{}", wait(child));
        let thread = std::thread::spawn(move || {
            sys!(futex, a, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &span_ms(300), 0, 0)
        });
        crate::case::pause_ms(50);
        ret("shared wake", sys!(futex, a, FUTEX_WAKE, 1, 0, 0, 0));
        ret("private wake, other address", sys!(futex, b, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, 0, 0, 0));
        ret("private wake", sys!(futex, a, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, 0, 0, 0));
        ret("waiter", thread.join().unwrap_or(-1));
    }),
    case("set_robust_list/owner_dies", "get_robust_list fork", || {
        let w = shared();
        let child = fork(|| {
            // The head and one entry in the shared page; the word lies 32 bytes after the entry.
            let head = w[100].as_ptr() as usize;
            let entry = w[200].as_ptr() as usize;
            let words = head as *mut u64;
            // SAFETY: inside the shared page, 8-byte aligned.
            unsafe {
                *words = entry as u64;
                *words.add(1) = 32;
                *words.add(2) = 0;
                *(entry as *mut u64) = head as u64;
            }
            ret("set", sys!(set_robust_list, head, 24));
            w[208].store(sys!(gettid) as u32 | 0x8000_0000, Ordering::SeqCst);
            0
        });
        let waiting = fork(|| {
            let seen = w[208].load(Ordering::SeqCst);
            if seen & 0x4000_0000 != 0 {
                return 0;
            }
            (sys!(futex, w[208].as_ptr(), FUTEX_WAIT, seen, &span_ms(3000), 0, 0)
                == -(libc::ETIMEDOUT as isize)) as i32
        });
        say!("{}", wait(child));
        say!(
            "died {} waiters {}",
            w[208].load(Ordering::SeqCst) & 0x4000_0000 != 0,
            w[208].load(Ordering::SeqCst) >> 31
        );
        say!("{}", wait(waiting));
        ret("bad length", sys!(set_robust_list, &w[0], 23));
        let (mut head, mut len) = (0usize, 0usize);
        ret("get", sys!(get_robust_list, 0, &mut head, &mut len));
        say!("{len}");
        ret("no such", sys!(get_robust_list, 999_999, &mut head, &mut len));
        ret("bad pointer", sys!(get_robust_list, 0, NOWHERE, &mut len));
    }),
    case("futex/priority_inheritance", "gettid fork", || {
        let w = shared();
        let me = sys!(gettid) as u32;
        ret("lock", sys!(futex, w[0].as_ptr(), FUTEX_LOCK_PI, 0, 0, 0, 0));
        say!("owner is me {}", w[0].load(Ordering::SeqCst) == me);
        ret("again", sys!(futex, w[0].as_ptr(), FUTEX_LOCK_PI, 0, 0, 0, 0));
        in_child("try", || {
            ret("trylock", sys!(futex, w[0].as_ptr(), FUTEX_TRYLOCK_PI, 0, 0, 0, 0));
            ret("unlock foreign", sys!(futex, w[0].as_ptr(), FUTEX_UNLOCK_PI, 0, 0, 0, 0));
            0
        });
        let child = fork(|| {
            ret("child lock", sys!(futex, w[0].as_ptr(), FUTEX_LOCK_PI, 0, 0, 0, 0));
            ret("child unlock", sys!(futex, w[0].as_ptr(), FUTEX_UNLOCK_PI, 0, 0, 0, 0));
            0
        });
        asleep(child);
        let unlocked = sys!(futex, w[0].as_ptr(), FUTEX_UNLOCK_PI, 0, 0, 0, 0);
        say!("{}", wait(child));
        ret("unlock", unlocked);
        say!("free {}", w[0].load(Ordering::SeqCst));
        w[0].store(999_999, Ordering::SeqCst);
        ret("dead owner", sys!(futex, w[0].as_ptr(), FUTEX_LOCK_PI, 0, 0, 0, 0));
    }),
    case("futex/requeue_to_an_inheriting_lock", "gettid fork", || {
        const WAIT_REQUEUE_PI: i32 = 11;
        const CMP_REQUEUE_PI: i32 = 12;
        let w = shared();
        let (cond, lock) = (w[0].as_ptr(), w[1].as_ptr());
        let waiting = || {
            fork(|| {
                let got = sys!(futex, cond, WAIT_REQUEUE_PI, 0, 0, lock, 0);
                let mine = w[1].load(Ordering::SeqCst) & 0x3fff_ffff == sys!(gettid) as u32;
                let unlocked = sys!(futex, lock, FUTEX_UNLOCK_PI, 0, 0, 0, 0);
                say!("waited {got} mine {mine} unlock {unlocked}");
                0
            })
        };
        ret("one word", sys!(futex, cond, WAIT_REQUEUE_PI, 0, 0, cond, 0));
        ret("differs", sys!(futex, cond, WAIT_REQUEUE_PI, 5, 0, lock, 0));
        let t = deadline(CLOCK_MONOTONIC, 20);
        ret("timeout", sys!(futex, cond, WAIT_REQUEUE_PI, 0, &t, lock, 0));
        ret("two to wake", sys!(futex, cond, CMP_REQUEUE_PI, 2, 1, lock, 0));
        ret("to itself", sys!(futex, cond, CMP_REQUEUE_PI, 1, 1, cond, 0));
        ret("other value", sys!(futex, cond, CMP_REQUEUE_PI, 1, 1, lock, 7));
        ret("nobody", sys!(futex, cond, CMP_REQUEUE_PI, 1, 1, lock, 0));
        ret("lock", sys!(futex, lock, FUTEX_LOCK_PI, 0, 0, 0, 0));
        let children = [waiting(), waiting()];
        children.iter().for_each(|c| {
            asleep(*c);
        });
        ret("moved", sys!(futex, cond, CMP_REQUEUE_PI, 1, 10, lock, 0));
        say!("waiters {}", w[1].load(Ordering::SeqCst) >> 31);
        let unlocked = sys!(futex, lock, FUTEX_UNLOCK_PI, 0, 0, 0, 0);
        // What both say comes first.
        let ends = children.map(wait);
        ends.iter().for_each(|end| say!("{end}"));
        ret("unlock", unlocked);
        say!("free {}", w[1].load(Ordering::SeqCst));
        let child = waiting();
        asleep(child);
        let moved = sys!(futex, cond, CMP_REQUEUE_PI, 1, 0, lock, 0);
        say!("{}", wait(child));
        ret("given at once", moved);
        let plain = waiter(&w[0], u32::MAX);
        asleep(plain);
        ret("a plain waiter", sys!(futex, cond, CMP_REQUEUE_PI, 1, 1, lock, 0));
        wake(&w[0], 1);
        wait(plain);
    }),
    case("futex_waitv/vector", "fork", || {
        let w = shared();
        let entry = |i: usize, value: u64| [value, w[i].as_ptr() as u64, 2];
        let t = deadline(CLOCK_MONOTONIC, 30);
        ret("timeout", sys!(futex_waitv, &[entry(0, 0), entry(1, 0)], 2, 0, &t, CLOCK_MONOTONIC));
        ret("second differs", sys!(futex_waitv, &[entry(0, 0), entry(1, 5)], 2, 0, &t, CLOCK_MONOTONIC));
        let me = sys!(getpid);
        let child = fork(|| {
            asleep(me as i32);
            wake(&w[1], 1) as i32
        });
        let t = deadline(CLOCK_MONOTONIC, 5000);
        ret("which", sys!(futex_waitv, &[entry(0, 0), entry(1, 0)], 2, 0, &t, CLOCK_MONOTONIC));
        say!("{}", wait(child));
        ret("none", sys!(futex_waitv, &[entry(0, 0)], 0, 0, &t, CLOCK_MONOTONIC));
        ret("flags", sys!(futex_waitv, &[entry(0, 0)], 1, 1, &t, CLOCK_MONOTONIC));
        ret("bad pointer", sys!(futex_waitv, NOWHERE, 1, 0, &t, CLOCK_MONOTONIC));
    }),
    case("futex_wait/and_wake_with_sizes", "futex_wake fork", || {
        const SIZE_32: u32 = 2;
        let w = shared();
        let t = deadline(CLOCK_MONOTONIC, 20);
        ret("differs", sys!(futex_wait, w[0].as_ptr(), 1, u32::MAX, SIZE_32, &t, CLOCK_MONOTONIC));
        ret("timeout", sys!(futex_wait, w[0].as_ptr(), 0, u32::MAX, SIZE_32, &t, CLOCK_MONOTONIC));
        ret("no bits", sys!(futex_wait, w[0].as_ptr(), 0, 0, SIZE_32, &t, CLOCK_MONOTONIC));
        ret("bad size", sys!(futex_wait, w[0].as_ptr(), 0, u32::MAX, 3, &t, CLOCK_MONOTONIC));
        ret("bad flags", sys!(futex_wait, w[0].as_ptr(), 0, u32::MAX, 0x100, &t, CLOCK_MONOTONIC));
        ret("bad clock", sys!(futex_wait, w[0].as_ptr(), 0, u32::MAX, SIZE_32, &t, 50));
        let child = fork(|| (sys!(futex_wait, w[0].as_ptr(), 0, 1, SIZE_32, 0, 0) == 0) as i32);
        asleep(child);
        ret("other bits", sys!(futex_wake, w[0].as_ptr(), 2, 10, SIZE_32));
        ret("wake", sys!(futex_wake, w[0].as_ptr(), 1, 10, SIZE_32));
        say!("{}", wait(child));
        ret("wake no bits", sys!(futex_wake, w[0].as_ptr(), 0, 10, SIZE_32));
        ret("wake bad flags", sys!(futex_wake, w[0].as_ptr(), 1, 10, 0x100));
    }),
    case("futex_requeue/pairs", "futex_wake fork", || {
        let w = shared();
        let children: Vec<i32> = (0..3).map(|_| waiter(&w[0], u32::MAX)).collect();
        let entry = |i: usize, value: u64| [value, w[i].as_ptr() as u64, 2];
        ret("differs", sys!(futex_requeue, &[entry(0, 5), entry(1, 0)], 0, 1, 10));
        ret("one woken, one moved", sys!(futex_requeue, &[entry(0, 0), entry(1, 0)], 0, 1, 1));
        ret("flags", sys!(futex_requeue, &[entry(0, 0), entry(1, 0)], 1, 1, 1));
        ret("no pair", sys!(futex_requeue, 0, 0, 1, 1));
        ret("first", wake(&w[0], 10));
        ret("second", wake(&w[1], 10));
        for child in children {
            say!("{}", wait(child));
        }
    }),
    case("futex/mutex_under_load", "clone", || {
        use std::sync::{Arc, Condvar, Mutex};
        let pair = Arc::new((Mutex::new(0u32), Condvar::new()));
        let threads: Vec<_> = (0..6)
            .map(|_| {
                let pair = Arc::clone(&pair);
                std::thread::spawn(move || {
                    for _ in 0..500 {
                        *pair.0.lock().unwrap_or_else(|e| e.into_inner()) += 1;
                    }
                    pair.1.notify_all();
                })
            })
            .collect();
        let mut guard = pair.0.lock().unwrap_or_else(|e| e.into_inner());
        while *guard < 3000 {
            guard = pair
                .1
                .wait_timeout(guard, std::time::Duration::from_millis(50))
                .map(|g| g.0)
                .unwrap_or_else(|e| e.into_inner().0);
        }
        say!("{}", *guard);
        drop(guard);
        threads.into_iter().for_each(|t| {
            let _ = t.join();
        });
    }),
];
