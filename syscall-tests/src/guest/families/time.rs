//! Clocks, sleeping and timers.

use super::signals::{bits, block, count, on, seen};
use crate::case::{Case, NOWHERE, asleep, case, fork, in_child, now_ms, pause_ms, span_ms, wait, zeroed};
use crate::out::{claim, done, ret};
use crate::{say, sys};
use libc::{
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW, CLOCK_PROCESS_CPUTIME_ID,
    CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_TAI, CLOCK_THREAD_CPUTIME_ID, ITIMER_PROF, ITIMER_REAL,
    ITIMER_VIRTUAL, SIGALRM, SIGUSR1, TFD_NONBLOCK, TIMER_ABSTIME, timespec,
};

fn ts(sec: i64, nsec: i64) -> timespec {
    timespec { tv_sec: sec, tv_nsec: nsec }
}

fn now(clock: i32) -> i128 {
    let mut t = ts(0, 0);
    sys!(clock_gettime, clock, &mut t);
    t.tv_sec as i128 * 1_000_000_000 + t.tv_nsec as i128
}

fn itimer(value_us: i64, interval_us: i64) -> libc::itimerval {
    let tv = |us: i64| libc::timeval { tv_sec: us / 1_000_000, tv_usec: us % 1_000_000 };
    libc::itimerval { it_value: tv(value_us), it_interval: tv(interval_us) }
}

fn itimerspec(value_ms: i64, interval_ms: i64) -> libc::itimerspec {
    libc::itimerspec { it_value: span_ms(value_ms), it_interval: span_ms(interval_ms) }
}

fn poke(pid: isize, signal: i32) -> i32 {
    fork(|| {
        asleep(pid as i32);
        sys!(kill, pid, signal);
        0
    })
}

fn expirations(fd: i32) -> isize {
    let mut n = 0u64;
    let r = sys!(read, fd, &mut n, 8);
    if r == 8 { n as isize } else { r }
}

/// struct sigevent as the kernel has it.
fn event(notify: i32, signal: i32, value: u64, tid: i32) -> [u64; 8] {
    [value, signal as u32 as u64 | (notify as u64) << 32, tid as u64, 0, 0, 0, 0, 0]
}

pub const CASES: &[Case] = &[
    case("clock_gettime/all_clocks", "", || {
        for clock in [
            CLOCK_REALTIME,
            CLOCK_MONOTONIC,
            CLOCK_PROCESS_CPUTIME_ID,
            CLOCK_THREAD_CPUTIME_ID,
            CLOCK_MONOTONIC_RAW,
            CLOCK_REALTIME_COARSE,
            CLOCK_MONOTONIC_COARSE,
            CLOCK_BOOTTIME,
            CLOCK_TAI,
        ] {
            let mut t = ts(0, -1);
            ret(format!("clock {clock}"), sys!(clock_gettime, clock, &mut t));
            say!("sane {}", (0..1_000_000_000).contains(&t.tv_nsec));
            let a = now(clock);
            let b = now(clock);
            claim("does not go back", b >= a);
        }
        let mut t = ts(0, 0);
        ret("unknown", sys!(clock_gettime, 50, &mut t));
        ret("bad pointer", sys!(clock_gettime, CLOCK_REALTIME, NOWHERE));
        let drift = (now(CLOCK_REALTIME) - now(CLOCK_REALTIME_COARSE)).abs();
        claim("coarse is near", drift < 200_000_000);
    }),
    case("clock_gettime/vdso_agrees", "gettimeofday time", || {
        let mut a = ts(0, 0);
        // SAFETY: the C library's call, through the vDSO if there is one.
        unsafe { libc::clock_gettime(CLOCK_MONOTONIC, &mut a) };
        let mine = a.tv_sec as i128 * 1_000_000_000 + a.tv_nsec as i128;
        let kernel = now(CLOCK_MONOTONIC);
        claim("monotonic", kernel >= mine && kernel - mine < 1_000_000_000);
        let mut tv: libc::timeval = zeroed();
        ret("gettimeofday", sys!(gettimeofday, &mut tv, 0));
        let t = sys!(time, 0);
        claim("time", (t as i64 - tv.tv_sec).abs() <= 1);
        let mut zone = [9i32; 2];
        ret("zone", sys!(gettimeofday, 0, &mut zone));
        say!("{zone:?}");
        ret("bad pointer", sys!(time, NOWHERE));
        ret("bad pointer", sys!(gettimeofday, NOWHERE, 0));
    }),
    case("clock_gettime/coarse_by_both_ways", "clock_getres", || {
        // The call and the C library, which may read the clock without one, go by the same ticks.
        for clock in [CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE] {
            let mut last = 0;
            let mut back = 0;
            for round in 0..2000 {
                let mut t = ts(0, 0);
                let by_call = round % 2 == 0;
                if by_call {
                    sys!(clock_gettime, clock, &mut t);
                } else {
                    // SAFETY: the C library's call with a place for the answer.
                    unsafe { libc::clock_gettime(clock, &mut t) };
                }
                let now = t.tv_sec as i128 * 1_000_000_000 + t.tv_nsec as i128;
                back += i32::from(now < last);
                last = now;
            }
            say!("clock {clock} goes back {back} times");
            let mut t = ts(0, 0);
            ret("resolution by the call", sys!(clock_getres, clock, &mut t));
            let by_call = t.tv_nsec;
            // SAFETY: as above.
            unsafe { libc::clock_getres(clock, &mut t) };
            claim("the same resolution", by_call == t.tv_nsec);
        }
    }),
    case("clock_gettime/cpu_clocks_of_others", "clock_getres", || {
        let child = fork(|| {
            crate::case::burn_ms(50);
            pause_ms(3000);
            0
        });
        asleep(child);
        // The clock of a process: the complement of its id, shifted.
        let clock = (!child << 3) | 2;
        claim("spent", now(clock) >= 20_000_000);
        let mut t = ts(0, 0);
        ret("resolution", sys!(clock_getres, clock, &mut t));
        sys!(kill, child, libc::SIGKILL);
        wait(child);
        ret("dead", sys!(clock_gettime, clock, &mut t));
    }),
    case("clock_getres/and_settime", "clock_settime settimeofday clock_adjtime adjtimex", || {
        let mut t = ts(0, 0);
        ret("monotonic", sys!(clock_getres, CLOCK_MONOTONIC, &mut t));
        say!("{} {}", t.tv_sec, t.tv_nsec);
        ret("without buffer", sys!(clock_getres, CLOCK_MONOTONIC, 0));
        ret("unknown", sys!(clock_getres, 50, &mut t));
        ret("set monotonic", sys!(clock_settime, CLOCK_MONOTONIC, &t));
        ret("bad nanoseconds", sys!(clock_settime, CLOCK_REALTIME, &ts(1, 1_000_000_000)));
        in_child("user", || {
            sys!(setresuid, 5, 5, 5);
            ret("clock_settime", sys!(clock_settime, CLOCK_REALTIME, &ts(1, 0)));
            ret("settimeofday", sys!(settimeofday, &libc::timeval { tv_sec: 1, tv_usec: 0 }, 0));
            let mut tx: libc::timex = zeroed();
            claim("adjtimex reads", sys!(adjtimex, &mut tx) >= 0);
            claim("clock_adjtime reads", sys!(clock_adjtime, CLOCK_REALTIME, &mut tx) >= 0);
            tx.modes = 1;
            ret("adjtimex sets", sys!(adjtimex, &mut tx));
            0
        });
    }),
    case("nanosleep/times_and_errors", "", || {
        let began = now_ms();
        ret("30 ms", sys!(nanosleep, &span_ms(30), 0));
        claim("long enough", now_ms() - began >= 30);
        ret("zero", sys!(nanosleep, &ts(0, 0), 0));
        ret("negative", sys!(nanosleep, &ts(-1, 0), 0));
        ret("nanoseconds", sys!(nanosleep, &ts(0, 1_000_000_000), 0));
        ret("bad pointer", sys!(nanosleep, NOWHERE, 0));
    }),
    case("nanosleep/interrupted_tells_the_rest", "kill", || {
        on(SIGUSR1, libc::SA_RESTART);
        let child = poke(sys!(getpid), SIGUSR1);
        let mut left = ts(0, 0);
        ret("sleep", sys!(nanosleep, &span_ms(5000), &mut left));
        claim("rest", left.tv_sec < 5 && left.tv_sec >= 3);
        say!("{} {}", seen(), wait(child));
    }),
    case("clock_nanosleep/absolute", "", || {
        let mut t = ts(0, 0);
        sys!(clock_gettime, CLOCK_MONOTONIC, &mut t);
        let began = now_ms();
        t.tv_nsec += 40_000_000;
        if t.tv_nsec >= 1_000_000_000 {
            t.tv_nsec -= 1_000_000_000;
            t.tv_sec += 1;
        }
        ret("absolute", sys!(clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0));
        claim("long enough", now_ms() - began >= 38);
        ret("past", sys!(clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &ts(1, 0), 0));
        ret("real time past", sys!(clock_nanosleep, CLOCK_REALTIME, TIMER_ABSTIME, &ts(1, 0), 0));
        ret("relative", sys!(clock_nanosleep, CLOCK_BOOTTIME, 0, &span_ms(5), 0));
        ret("thread clock", sys!(clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &span_ms(5), 0));
        ret("raw", sys!(clock_nanosleep, CLOCK_MONOTONIC_RAW, 0, &span_ms(5), 0));
        ret("unknown", sys!(clock_nanosleep, 50, 0, &span_ms(5), 0));
        on(SIGUSR1, 0);
        let child = poke(sys!(getpid), SIGUSR1);
        let mut left = ts(7, 7);
        sys!(clock_gettime, CLOCK_MONOTONIC, &mut t);
        t.tv_sec += 5;
        ret("interrupted", sys!(clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, &mut left));
        say!("rest untouched {} {}", left.tv_sec, wait(child));
    }),
    case("setitimer/real", "getitimer", || {
        block(&[SIGALRM]);
        let mut old = itimer(7, 7);
        ret("set", sys!(setitimer, ITIMER_REAL, &itimer(50_000_000, 0), &mut old));
        say!("old {} {}", old.it_value.tv_sec, old.it_value.tv_usec);
        ret("get", sys!(getitimer, ITIMER_REAL, &mut old));
        claim("about 50 s", (49..=50).contains(&old.it_value.tv_sec));
        claim("alarm is the same timer", (49..=51).contains(&sys!(alarm, 0)));
        ret("periodic", sys!(setitimer, ITIMER_REAL, &itimer(10_000, 10_000), 0));
        for _ in 0..3 {
            ret("tick", sys!(rt_sigtimedwait, &bits(&[SIGALRM]), 0, &span_ms(2000), 8));
        }
        ret("off", sys!(setitimer, ITIMER_REAL, &itimer(0, 0), &mut old));
        say!("interval was {}", old.it_interval.tv_usec);
        ret("bad which", sys!(setitimer, 9, &itimer(0, 0), 0));
        ret("bad microseconds", sys!(setitimer, ITIMER_REAL, &itimer(-1, 0), 0));
        ret("bad pointer", sys!(getitimer, ITIMER_REAL, NOWHERE));
        in_child("not inherited", || {
            sys!(getitimer, ITIMER_REAL, &mut old);
            old.it_value.tv_usec as i32
        });
    }),
    case("setitimer/cpu_timers", "getitimer", || {
        on(libc::SIGVTALRM, 0);
        ret("virtual", sys!(setitimer, ITIMER_VIRTUAL, &itimer(20_000, 0), 0));
        while count() == 0 {
            std::hint::spin_loop();
        }
        say!("{}", seen());
        on(libc::SIGPROF, 0);
        ret("prof", sys!(setitimer, ITIMER_PROF, &itimer(20_000, 0), 0));
        while count() == 1 {
            std::hint::spin_loop();
        }
        say!("{}", seen());
    }),
    case("timerfd_create/one_shot_and_periodic", "timerfd_settime timerfd_gettime poll", || {
        let fd = done("create", sys!(timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK)) as i32;
        ret("unarmed", expirations(fd));
        ret("set", sys!(timerfd_settime, fd, 0, &itimerspec(20, 0), 0));
        ret("early", expirations(fd));
        let mut p = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        ret("poll", sys!(poll, &mut p, 1, 2000));
        ret("one", expirations(fd));
        ret("none", expirations(fd));
        sys!(timerfd_settime, fd, 0, &itimerspec(5, 5), 0);
        pause_ms(60);
        claim("several", expirations(fd) >= 8);
        let mut now = itimerspec(0, 0);
        ret("gettime", sys!(timerfd_gettime, fd, &mut now));
        say!("interval {}", now.it_interval.tv_nsec);
        let mut old = itimerspec(0, 0);
        ret("disarm", sys!(timerfd_settime, fd, 0, &itimerspec(0, 0), &mut old));
        say!("interval {}", old.it_interval.tv_nsec);
        ret("disarmed", expirations(fd));
        sys!(timerfd_settime, fd, 1, &itimerspec(1, 0), 0);
        sys!(poll, &mut p, 1, 2000);
        ret("absolute in the past", expirations(fd));
        let blocking = sys!(timerfd_create, CLOCK_REALTIME, 0) as i32;
        sys!(timerfd_settime, blocking, 0, &itimerspec(20, 0), 0);
        ret("blocking read", expirations(blocking));
    }),
    case("timerfd_create/errors", "timerfd_settime timerfd_gettime", || {
        let fd = sys!(timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK);
        ret("clock", sys!(timerfd_create, 50, 0));
        ret("cpu clock", sys!(timerfd_create, CLOCK_PROCESS_CPUTIME_ID, 0));
        ret("flags", sys!(timerfd_create, CLOCK_MONOTONIC, 1));
        done("alarm clock as root", sys!(timerfd_create, libc::CLOCK_BOOTTIME_ALARM, 0).min(0));
        let mut b = [0u8; 8];
        ret("short read", sys!(read, fd, &mut b, 4));
        ret("write", sys!(write, fd, &b, 8));
        let bad = libc::itimerspec { it_value: ts(0, 1_000_000_000), it_interval: ts(0, 0) };
        ret("nanoseconds", sys!(timerfd_settime, fd, 0, &bad, 0));
        ret("negative", sys!(timerfd_settime, fd, 0, &libc::itimerspec { it_value: ts(-1, 0), ..bad }, 0));
        ret("settime flags", sys!(timerfd_settime, fd, 0x10, &itimerspec(1, 0), 0));
        ret("not a timerfd", sys!(timerfd_settime, 0, 0, &itimerspec(1, 0), 0));
        ret("bad fd", sys!(timerfd_gettime, 99, &mut itimerspec(0, 0)));
        ret("bad pointer", sys!(timerfd_gettime, fd, NOWHERE));
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        say!("{}", link.display());
    }),
    case(
        "timer_create/signal_and_overrun",
        "timer_settime timer_gettime timer_getoverrun timer_delete",
        || {
            let signal = 40;
            block(&[signal]);
            let mut id = 99i32;
            ret("create", sys!(timer_create, CLOCK_MONOTONIC, &event(0, signal, 0x1234, 0), &mut id));
            ret("set", sys!(timer_settime, id, 0, &itimerspec(10, 5), 0));
            pause_ms(60);
            let mut raw = [0u64; 16];
            ret("signal", sys!(rt_sigtimedwait, &bits(&[signal]), &mut raw, &span_ms(2000), 8));
            // si_tid and si_overrun stand in raw[2], the value in raw[3].
            say!("code {} value {:#x}", raw[1] as u32 as i32, raw[3]);
            claim("overrun in the signal", (raw[2] >> 32) >= 5);
            claim("overrun", sys!(timer_getoverrun, id) >= 5);
            let mut now = itimerspec(0, 0);
            ret("get", sys!(timer_gettime, id, &mut now));
            say!("interval {}", now.it_interval.tv_nsec);
            ret("delete", sys!(timer_delete, id));
            ret("again", sys!(timer_delete, id));
            ret("get deleted", sys!(timer_gettime, id, &mut now));
            ret("overrun deleted", sys!(timer_getoverrun, id));
        },
    ),
    case("timer_create/kinds_and_errors", "timer_settime", || {
        let mut id = 99i32;
        on(SIGALRM, 0);
        ret("default event", sys!(timer_create, CLOCK_REALTIME, 0, &mut id));
        ret("set", sys!(timer_settime, id, 0, &itimerspec(10, 0), 0));
        pause_ms(40);
        say!("{}", seen());
        ret("none", sys!(timer_create, CLOCK_MONOTONIC, &event(1, 0, 0, 0), &mut id));
        sys!(timer_settime, id, 0, &itimerspec(50_000, 0), 0);
        let mut now = itimerspec(0, 0);
        sys!(timer_gettime, id, &mut now);
        claim("counts", (49..=50).contains(&now.it_value.tv_sec));
        ret("absolute", sys!(timer_settime, id, TIMER_ABSTIME, &itimerspec(1, 0), 0));
        ret(
            "nanoseconds",
            sys!(timer_settime, id, 0, &libc::itimerspec { it_value: ts(0, -1), it_interval: ts(0, 0) }, 0),
        );
        let tid = sys!(gettid) as i32;
        ret("thread", sys!(timer_create, CLOCK_MONOTONIC, &event(4, SIGUSR1, 0, tid), &mut id));
        ret("foreign thread", sys!(timer_create, CLOCK_MONOTONIC, &event(4, SIGUSR1, 0, 999_999), &mut id));
        ret("bad notify", sys!(timer_create, CLOCK_MONOTONIC, &event(9, SIGUSR1, 0, 0), &mut id));
        ret("bad signal", sys!(timer_create, CLOCK_MONOTONIC, &event(0, 99, 0, 0), &mut id));
        ret("bad clock", sys!(timer_create, 50, 0, &mut id));
        ret("bad pointer", sys!(timer_create, CLOCK_MONOTONIC, 0, NOWHERE));
        ret("no such", sys!(timer_settime, 777, 0, &itimerspec(1, 0), 0));
        in_child("not inherited", || {
            ret("get", sys!(timer_gettime, id, &mut now));
            0
        });
    }),
    case("timer_create/thread_cpu_clock", "timer_settime", || {
        on(SIGUSR1, 0);
        let mut id = 0i32;
        ret("create", sys!(timer_create, CLOCK_THREAD_CPUTIME_ID, &event(0, SIGUSR1, 0, 0), &mut id));
        ret("set", sys!(timer_settime, id, 0, &itimerspec(20, 0), 0));
        pause_ms(40);
        claim("sleeping does not count", count() == 0);
        while count() == 0 {
            std::hint::spin_loop();
        }
        say!("{}", seen());
    }),
];
