//! Waiting for many descriptors: poll, select, epoll, eventfd, signalfd.

use super::signals::{bits, block, count, on, seen};
use crate::case::{
    Case, NOWHERE, asleep, case, close, file, fork, in_child, now_ms, open, pause_ms, pipe, span_ms,
    state_of, until, wait, zeroed,
};
use crate::out::{claim, done, must, ret};
use crate::{say, sys};
use libc::{
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN,
    EPOLLONESHOT, EPOLLOUT, POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLRDHUP, SIGUSR1, epoll_event,
    pollfd,
};

fn pf(fd: i32, events: i16) -> pollfd {
    pollfd { fd, events, revents: -1 }
}

fn names(revents: i16) -> String {
    let all = [
        (POLLIN, "in"),
        (POLLOUT, "out"),
        (POLLERR, "err"),
        (POLLHUP, "hup"),
        (POLLNVAL, "nval"),
        (POLLRDHUP, "rdhup"),
        (libc::POLLPRI, "pri"),
    ];
    let list: Vec<&str> = all.iter().filter(|(b, _)| revents & b != 0).map(|(_, n)| *n).collect();
    list.join("|")
}

fn poll_one(label: &str, fd: i32, events: i16, timeout: i32) {
    let mut p = pf(fd, events);
    let r = sys!(poll, &mut p, 1, timeout);
    say!("{label}: {} {}", crate::out::number(r), names(p.revents));
}

fn ctl(ep: i32, op: i32, fd: i32, events: i32, data: u64) -> isize {
    let event = epoll_event { events: events as u32, u64: data };
    sys!(epoll_ctl, ep, op, fd, &event)
}

fn events(ep: i32, timeout: i32) -> String {
    let mut list = [epoll_event { events: 0, u64: 0 }; 8];
    let n = sys!(epoll_wait, ep, &mut list, 8, timeout);
    if n < 0 {
        return crate::out::number(n);
    }
    let mut got: Vec<(u64, u32)> = list[..n as usize].iter().map(|e| (e.u64, e.events)).collect();
    got.sort();
    got.iter().map(|(d, e)| format!("{d}:{}", names(*e as i16))).collect::<Vec<_>>().join(" ")
}

fn poke(signal: i32) -> i32 {
    let me = sys!(getpid);
    fork(move || {
        asleep(me as i32);
        sys!(kill, me, signal);
        0
    })
}

fn set(fds: &[i32]) -> [u64; 16] {
    let mut s = [0u64; 16];
    fds.iter().for_each(|fd| s[*fd as usize / 64] |= 1 << (fd % 64));
    s
}

fn in_set(s: &[u64; 16], fd: i32) -> bool {
    s[fd as usize / 64] & 1 << (fd % 64) != 0
}

pub const CASES: &[Case] = &[
    case("poll/pipes", "pipe2", || {
        let (r, w) = pipe(0);
        poll_one("empty", r, POLLIN, 0);
        poll_one("writable", w, POLLOUT, 0);
        sys!(write, w, b"x", 1);
        poll_one("readable", r, POLLIN | POLLOUT, 0);
        poll_one("nothing asked", r, 0, 0);
        close(w);
        poll_one("hang-up with data", r, POLLIN, 0);
        sys!(read, r, &mut [0u8; 4], 4);
        poll_one("hang-up", r, POLLIN, 0);
        poll_one("hang-up not asked", r, 0, 0);
        let (r, w) = pipe(libc::O_NONBLOCK);
        while sys!(write, w, &[0u8; 4096], 4096) > 0 {}
        poll_one("full", w, POLLOUT, 0);
        close(r);
        poll_one("no reader", w, POLLOUT, 0);
    }),
    case("poll/kinds_and_errors", "", || {
        poll_one("file", file("f", b""), POLLIN | POLLOUT, 0);
        poll_one("directory", open(".", libc::O_RDONLY), POLLIN | POLLOUT, 0);
        poll_one("dev null", open("/dev/null", libc::O_RDWR), POLLIN | POLLOUT, 0);
        poll_one("bad fd", 99, POLLIN, 0);
        poll_one("negative fd", -5, POLLIN, 0);
        poll_one("O_PATH", open("f", libc::O_PATH), POLLIN, 0);
        ret("no descriptors", sys!(poll, 0, 0, 10));
        ret("too many", sys!(poll, 0, 5000, 0));
        ret("bad pointer", sys!(poll, NOWHERE, 1, 0));
        let began = now_ms();
        poll_one("timeout", pipe(0).0, POLLIN, 40);
        claim("waited", now_ms() - began >= 40);
        let (r, w) = pipe(0);
        let mut many = [pf(r, POLLIN), pf(w, POLLOUT), pf(99, POLLIN), pf(-1, POLLIN)];
        ret("count of ready", sys!(poll, &mut many, 4, 0));
        say!("{:?}", many.map(|p| names(p.revents)));
    }),
    case("poll/wakes_and_eintr", "fork kill", || {
        let (r, w) = pipe(0);
        let me = sys!(getpid);
        let child = fork(|| {
            asleep(me as i32);
            sys!(write, w, b"x", 1);
            0
        });
        poll_one("woken", r, POLLIN, 5000);
        say!("{}", wait(child));
        sys!(read, r, &mut [0u8; 1], 1);
        on(SIGUSR1, libc::SA_RESTART);
        let child = poke(SIGUSR1);
        ret("interrupted", sys!(poll, &mut pf(r, POLLIN), 1, 5000));
        say!("{} {}", seen(), wait(child));
    }),
    case("ppoll/mask_and_timeout", "rt_sigprocmask", || {
        let (r, _w) = pipe(0);
        on(SIGUSR1, 0);
        block(&[SIGUSR1]);
        sys!(kill, sys!(getpid), SIGUSR1);
        ret("blocked pending", sys!(ppoll, &mut pf(r, POLLIN), 1, &span_ms(10), 0, 8));
        ret("unblocked pending", sys!(ppoll, &mut pf(r, POLLIN), 1, &span_ms(2000), &0u64, 8));
        say!("{}", seen());
        let mut t = span_ms(5000);
        let child = poke(SIGUSR1);
        ret("interrupted", sys!(ppoll, &mut pf(r, POLLIN), 1, &mut t, &0u64, 8));
        claim("time left is written", t.tv_sec < 5);
        wait(child);
        ret("bad nanoseconds", sys!(ppoll, 0, 0, &libc::timespec { tv_sec: 0, tv_nsec: -1 }, 0, 8));
        ret("bad size", sys!(ppoll, 0, 0, &span_ms(1), &0u64, 4));
    }),
    case("select/sets", "pipe2", || {
        let (r, w) = pipe(0);
        let (mut reads, mut writes) = (set(&[r]), set(&[w]));
        let mut tv = libc::timeval { tv_sec: 1, tv_usec: 0 };
        ret("writable", sys!(select, 10, &mut reads, &mut writes, 0, &mut tv));
        say!("{} {}", in_set(&reads, r), in_set(&writes, w));
        sys!(write, w, b"x", 1);
        (reads, writes) = (set(&[r]), set(&[w]));
        ret("both", sys!(select, 10, &mut reads, &mut writes, 0, &mut tv));
        // A process' table holds 64 descriptors until it needs more; select looks at none beyond.
        must("dup2", sys!(dup2, r, 100));
        reads = set(&[77]);
        ret("bad fd", sys!(select, 78, &mut reads, 0, 0, &mut tv));
        close(100);
        reads = set(&[77]);
        ret("bad fd in a table that was larger", sys!(select, 78, &mut reads, 0, 0, &mut tv));
        in_child("small table", || {
            let (mut reads, mut tv) = (set(&[77]), libc::timeval { tv_sec: 0, tv_usec: 0 });
            ret("bad fd beyond the table", sys!(select, 78, &mut reads, 0, 0, &mut tv));
            0
        });
        reads = set(&[77]);
        ret(
            "bad fd outside",
            sys!(select, 10, &mut reads, 0, 0, &mut libc::timeval { tv_sec: 0, tv_usec: 0 }),
        );
        ret("negative", sys!(select, -1, 0, 0, 0, 0));
        ret("bad time", sys!(select, 0, 0, 0, 0, &mut libc::timeval { tv_sec: -1, tv_usec: 0 }));
        ret("bad pointer", sys!(select, 10, NOWHERE, 0, 0, 0));
        tv = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
        ret("only time", sys!(select, 0, 0, 0, 0, &mut tv));
        say!("time left {} {}", tv.tv_sec, tv.tv_usec);
        close(w);
        reads = set(&[r]);
        ret("hang-up is readable", sys!(select, 10, &mut reads, 0, 0, 0));
    }),
    case("pselect6/mask", "rt_sigprocmask", || {
        let (r, _w) = pipe(0);
        on(SIGUSR1, 0);
        block(&[SIGUSR1]);
        sys!(kill, sys!(getpid), SIGUSR1);
        let mask = 0u64;
        let pack = [&raw const mask as usize, 8];
        let mut reads = set(&[r]);
        ret("unblocked", sys!(pselect6, 10, &mut reads, 0, 0, &span_ms(3000), &pack));
        say!("{} set kept {}", seen(), in_set(&reads, r));
        ret("no mask", sys!(pselect6, 10, &mut reads, 0, 0, &span_ms(5), 0));
        let pack = [&raw const mask as usize, 4];
        ret("bad size", sys!(pselect6, 10, &mut reads, 0, 0, &span_ms(5), &pack));
    }),
    case("epoll_ctl/level_edge_oneshot", "epoll_create1 epoll_wait", || {
        let ep = done("create", sys!(epoll_create1, EPOLL_CLOEXEC)) as i32;
        let (r, w) = pipe(0);
        ret("add", ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN, 1));
        say!("nothing '{}'", events(ep, 0));
        sys!(write, w, b"xy", 2);
        say!("level '{}' '{}'", events(ep, 0), events(ep, 0));
        ret("edge", ctl(ep, EPOLL_CTL_MOD, r, EPOLLIN | EPOLLET, 2));
        say!("edge '{}' '{}'", events(ep, 0), events(ep, 0));
        sys!(write, w, b"z", 1);
        say!("again after a write '{}'", events(ep, 0));
        sys!(read, r, &mut [0u8; 1], 1);
        say!("not after a read '{}'", events(ep, 0));
        ret("one shot", ctl(ep, EPOLL_CTL_MOD, r, EPOLLIN | EPOLLONESHOT, 3));
        say!("once '{}' '{}'", events(ep, 0), events(ep, 0));
        sys!(write, w, b"z", 1);
        say!("still off '{}'", events(ep, 0));
        ret("rearm", ctl(ep, EPOLL_CTL_MOD, r, EPOLLIN | EPOLLONESHOT, 4));
        say!("'{}'", events(ep, 0));
        ret("delete", ctl(ep, EPOLL_CTL_DEL, r, 0, 0));
        say!("'{}'", events(ep, 0));
        ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN, 5);
        close(w);
        sys!(read, r, &mut [0u8; 16], 16);
        say!("hang-up '{}'", events(ep, 0));
        close(r);
        say!("closed '{}'", events(ep, 0));
    }),
    case("epoll_ctl/errors", "epoll_create epoll_wait", || {
        ret("create 0", sys!(epoll_create, 0));
        done("create 1", sys!(epoll_create, 1));
        ret("create1 flags", sys!(epoll_create1, 1));
        let ep = sys!(epoll_create1, 0) as i32;
        let (r, w) = pipe(0);
        ret("add", ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN, 1));
        ret("twice", ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN, 1));
        ret("mod missing", ctl(ep, EPOLL_CTL_MOD, w, EPOLLIN, 1));
        ret("del missing", ctl(ep, EPOLL_CTL_DEL, w, 0, 1));
        ret("regular file", ctl(ep, EPOLL_CTL_ADD, file("f", b""), EPOLLIN, 1));
        ret("directory", ctl(ep, EPOLL_CTL_ADD, open(".", libc::O_RDONLY), EPOLLIN, 1));
        ret("itself", ctl(ep, EPOLL_CTL_ADD, ep, EPOLLIN, 1));
        ret("bad fd", ctl(ep, EPOLL_CTL_ADD, 99, EPOLLIN, 1));
        ret("bad epoll", ctl(99, EPOLL_CTL_ADD, r, EPOLLIN, 1));
        ret("not epoll", ctl(r, EPOLL_CTL_ADD, w, EPOLLIN, 1));
        ret("bad op", ctl(ep, 9, w, EPOLLIN, 1));
        ret("bad pointer", sys!(epoll_ctl, ep, EPOLL_CTL_ADD, w, NOWHERE));
        ret("exclusive mod", ctl(ep, EPOLL_CTL_MOD, r, EPOLLIN | EPOLLEXCLUSIVE, 1));
        ret("exclusive oneshot", ctl(ep, EPOLL_CTL_ADD, w, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 1));
        let mut list = [epoll_event { events: 0, u64: 0 }; 2];
        ret("wait zero", sys!(epoll_wait, ep, &mut list, 0, 0));
        ret("wait negative", sys!(epoll_wait, ep, &mut list, -1, 0));
        ret("wait not epoll", sys!(epoll_wait, r, &mut list, 2, 0));
        sys!(write, w, b"x", 1);
        ret("wait bad pointer", sys!(epoll_wait, ep, NOWHERE, 2, 0));
        let other = sys!(epoll_create1, 0) as i32;
        ctl(ep, EPOLL_CTL_ADD, other, EPOLLIN, 1);
        ret("loop", ctl(other, EPOLL_CTL_ADD, ep, EPOLLIN, 1));
    }),
    case("epoll_wait/nested_and_poll", "poll", || {
        let (inner, outer) = (sys!(epoll_create1, 0) as i32, sys!(epoll_create1, 0) as i32);
        let (r, w) = pipe(0);
        ctl(inner, EPOLL_CTL_ADD, r, EPOLLIN, 1);
        ctl(outer, EPOLL_CTL_ADD, inner, EPOLLIN, 2);
        poll_one("outer idle", outer, POLLIN, 0);
        sys!(write, w, b"x", 1);
        poll_one("outer ready", outer, POLLIN, 0);
        say!("'{}' '{}'", events(outer, 0), events(inner, 0));
        sys!(read, r, &mut [0u8; 1], 1);
        say!("'{}' '{}'", events(outer, 0), events(inner, 0));
    }),
    case("epoll_wait/exclusive_wakes_one", "epoll_ctl fork", || {
        let (r, w) = pipe(0);
        let waiters: Vec<i32> = (0..3)
            .map(|_| {
                fork(|| {
                    let ep = sys!(epoll_create1, 0) as i32;
                    ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN | EPOLLEXCLUSIVE, 1);
                    i32::from(events(ep, 10_000).is_empty())
                })
            })
            .collect();
        claim("all wait", waiters.iter().all(|pid| asleep(*pid)));
        let woken = || waiters.iter().filter(|pid| state_of(**pid) == 'Z').count();
        sys!(write, w, b"x", 1);
        claim("one wakes", until(|| woken() > 0));
        pause_ms(150);
        say!("woken {}", woken());
        // The byte is still there, and the next one wakes the next waiter.
        sys!(write, w, b"x", 1);
        claim("another wakes", until(|| woken() > 1));
        for pid in waiters {
            sys!(kill, pid, libc::SIGKILL);
            wait(pid);
        }
    }),
    case("epoll_wait/many_wait_for_one_instance", "epoll_ctl fork", || {
        // What stays readable is news for all, one after the other; an edge is for one.
        for (mode, told) in [(0, 3), (EPOLLET, 1)] {
            let ep = sys!(epoll_create1, 0) as i32;
            let (r, w) = pipe(0);
            ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN | mode, 1);
            let waiters: Vec<i32> =
                (0..3).map(|_| fork(|| i32::from(events(ep, 10_000).is_empty()))).collect();
            claim("all wait", waiters.iter().all(|pid| asleep(*pid)));
            let woken = || waiters.iter().filter(|pid| state_of(**pid) == 'Z').count();
            sys!(write, w, b"x", 1);
            claim("told", until(|| woken() >= told));
            pause_ms(100);
            say!("woken {}", woken());
            for pid in waiters {
                sys!(kill, pid, libc::SIGKILL);
                wait(pid);
            }
        }
    }),
    case("epoll_wait/deep_nesting_is_refused", "epoll_ctl", || {
        let mut last = sys!(epoll_create1, 0) as i32;
        for depth in 1..8 {
            let next = sys!(epoll_create1, 0) as i32;
            ret(format!("depth {depth}"), ctl(next, EPOLL_CTL_ADD, last, EPOLLIN, 1));
            last = next;
        }
    }),
    case("epoll_wait/round_robin_when_short", "", || {
        let ep = sys!(epoll_create1, 0) as i32;
        for i in 0..4 {
            let (r, w) = pipe(0);
            sys!(write, w, b"x", 1);
            ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN, i);
        }
        let mut seen = Vec::new();
        for _ in 0..4 {
            let mut one = epoll_event { events: 0, u64: 0 };
            sys!(epoll_wait, ep, &mut one, 1, 0);
            let data = one.u64;
            seen.push(data);
        }
        seen.sort();
        say!("{seen:?}");
    }),
    case("epoll_wait/dup_keeps_it_alive", "dup close", || {
        let ep = sys!(epoll_create1, 0) as i32;
        let (r, w) = pipe(0);
        ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN, 1);
        let copy = sys!(dup, r) as i32;
        close(r);
        sys!(write, w, b"x", 1);
        say!("'{}'", events(ep, 0));
        ret("delete by the closed number", ctl(ep, EPOLL_CTL_DEL, r, 0, 0));
        close(copy);
        say!("'{}'", events(ep, 0));
    }),
    case("epoll_wait/wakes_and_eintr", "fork kill", || {
        let ep = sys!(epoll_create1, 0) as i32;
        let (r, w) = pipe(0);
        ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN, 1);
        let me = sys!(getpid);
        let child = fork(|| {
            asleep(me as i32);
            sys!(write, w, b"x", 1);
            0
        });
        say!("'{}' {}", events(ep, 5000), wait(child));
        sys!(read, r, &mut [0u8; 1], 1);
        on(SIGUSR1, libc::SA_RESTART);
        let child = poke(SIGUSR1);
        say!("'{}' {}", events(ep, 5000), wait(child));
        let began = now_ms();
        say!("'{}'", events(ep, 30));
        claim("waited", now_ms() - began >= 30);
    }),
    case("epoll_pwait/masks", "epoll_pwait2", || {
        let ep = sys!(epoll_create1, 0) as i32;
        let mut list = [epoll_event { events: 0, u64: 0 }; 2];
        on(SIGUSR1, 0);
        block(&[SIGUSR1]);
        sys!(kill, sys!(getpid), SIGUSR1);
        ret("unblocked", sys!(epoll_pwait, ep, &mut list, 2, 2000, &0u64, 8));
        say!("{}", seen());
        ret("bad size", sys!(epoll_pwait, ep, &mut list, 2, 0, &0u64, 4));
        ret("pwait2 timeout", sys!(epoll_pwait2, ep, &mut list, 2, &span_ms(5), 0, 8));
        ret(
            "pwait2 bad time",
            sys!(epoll_pwait2, ep, &mut list, 2, &libc::timespec { tv_sec: 0, tv_nsec: -1 }, 0, 8),
        );
        let (_r, w) = pipe(0);
        ctl(ep, EPOLL_CTL_ADD, w, EPOLLOUT, 9);
        ret("pwait2 ready", sys!(epoll_pwait2, ep, &mut list, 2, 0, 0, 8));
    }),
    case("epoll_wait/out_and_hup_on_sockets", "socketpair", || {
        let mut pair = [0i32; 2];
        sys!(socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, &mut pair);
        let ep = sys!(epoll_create1, 0) as i32;
        ctl(ep, EPOLL_CTL_ADD, pair[0], EPOLLIN | EPOLLOUT | libc::EPOLLRDHUP | EPOLLET, 1);
        say!("'{}'", events(ep, 0));
        sys!(write, pair[1], b"x", 1);
        say!("'{}'", events(ep, 0));
        sys!(shutdown, pair[1], libc::SHUT_WR);
        say!("'{}'", events(ep, 0));
        close(pair[1]);
        say!("'{}'", events(ep, 0));
        let _ = EPOLLHUP;
    }),
    case("eventfd2/counter", "eventfd read write", || {
        let fd = done("create", sys!(eventfd2, 5, libc::EFD_NONBLOCK)) as i32;
        let mut v = 0u64;
        ret("read", sys!(read, fd, &mut v, 8));
        say!("{v}");
        ret("empty", sys!(read, fd, &mut v, 8));
        poll_one("empty", fd, POLLIN | POLLOUT, 0);
        ret("write", sys!(write, fd, &7u64, 8));
        ret("write", sys!(write, fd, &3u64, 8));
        sys!(read, fd, &mut v, 8);
        say!("{v}");
        ret("short read", sys!(read, fd, &mut v, 4));
        ret("short write", sys!(write, fd, &v, 4));
        ret("maximum", sys!(write, fd, &u64::MAX, 8));
        ret("almost", sys!(write, fd, &(u64::MAX - 1), 8));
        ret("one more", sys!(write, fd, &1u64, 8));
        poll_one("full", fd, POLLIN | POLLOUT, 0);
        let s = sys!(eventfd2, 2, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK);
        for _ in 0..3 {
            let r = sys!(read, s, &mut v, 8);
            say!("{} {v}", crate::out::number(r));
        }
        ret("bad flags", sys!(eventfd2, 0, 2));
        done("old call", sys!(eventfd, 1));
        ret("lseek", sys!(lseek, fd, 0, 0));
        ret("pread", sys!(pread64, fd, &mut v, 8, 0));
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        say!("{}", link.display());
    }),
    case("eventfd2/blocks", "fork", || {
        let fd = sys!(eventfd2, 0, 0) as i32;
        let me = sys!(getpid);
        let child = fork(|| {
            asleep(me as i32);
            sys!(write, fd, &9u64, 8);
            0
        });
        let mut v = 0u64;
        ret("read", sys!(read, fd, &mut v, 8));
        say!("{v} {}", wait(child));
    }),
    case("signalfd4/reads", "signalfd kill", || {
        block(&[SIGUSR1, libc::SIGUSR2]);
        let fd = done("create", sys!(signalfd4, -1, &bits(&[SIGUSR1]), 8, libc::SFD_NONBLOCK)) as i32;
        let mut info = [0u8; 256];
        ret("none", sys!(read, fd, &mut info, 128));
        poll_one("none", fd, POLLIN, 0);
        sys!(kill, sys!(getpid), SIGUSR1);
        sys!(kill, sys!(getpid), libc::SIGUSR2);
        poll_one("one", fd, POLLIN, 0);
        ret("too small", sys!(read, fd, &mut info, 127));
        ret("read", sys!(read, fd, &mut info, 256));
        say!("signo {} code {}", info[0], i32::from_ne_bytes([info[8], info[9], info[10], info[11]]));
        ret("again", sys!(read, fd, &mut info, 256));
        ret("change", sys!(signalfd4, fd, &bits(&[libc::SIGUSR2]), 8, 0) - fd as isize);
        ret("read", sys!(read, fd, &mut info, 256));
        say!("signo {}", info[0]);
        ret("not a signalfd", sys!(signalfd4, 0, &0u64, 8, 0));
        ret("bad size", sys!(signalfd4, -1, &0u64, 4, 0));
        ret("bad flags", sys!(signalfd4, -1, &0u64, 8, 1));
        done("old call", sys!(signalfd, -1, &0u64, 8));
        ret("write", sys!(write, fd, &info, 128));
    }),
    case("signalfd4/blocks_and_threads", "tgkill fork", || {
        block(&[SIGUSR1]);
        let fd = sys!(signalfd4, -1, &bits(&[SIGUSR1]), 8, 0) as i32;
        let me = sys!(getpid);
        let child = fork(|| {
            asleep(me as i32);
            sys!(kill, me, SIGUSR1);
            0
        });
        let mut info = [0u8; 128];
        ret("read", sys!(read, fd, &mut info, 128));
        say!("{} {}", info[0], wait(child));
        in_child("child sees its own", || {
            sys!(kill, sys!(getpid), SIGUSR1);
            ret("read", sys!(read, fd, &mut info, 128)) as i32
        });
        say!("{}", count());
        let _: libc::stat = zeroed();
        pause_ms(0);
    }),
];
