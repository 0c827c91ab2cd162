//! How poll(2), select(2), epoll(7) and signals tell of sockets.

use super::kit::*;
use crate::case::{Case, asleep, case, close, fork, pause_ms, wait};
use crate::out::{claim, done, must, number, ret};
use crate::{say, sys};
use libc::{
    EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLLET, EPOLLEXCLUSIVE, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLRDHUP,
    SHUT_RDWR, SHUT_WR, SOCK_DGRAM, SOCK_STREAM, epoll_event,
};

struct Epoll(i32);

impl Epoll {
    fn new() -> Epoll {
        Epoll(must("epoll", sys!(epoll_create1, 0)) as i32)
    }
    fn add(&self, fd: i32, events: i32) -> isize {
        let e = epoll_event { events: events as u32, u64: fd as u64 };
        sys!(epoll_ctl, self.0, EPOLL_CTL_ADD, fd, &e)
    }
    fn change(&self, fd: i32, events: i32) -> isize {
        let e = epoll_event { events: events as u32, u64: fd as u64 };
        sys!(epoll_ctl, self.0, EPOLL_CTL_MOD, fd, &e)
    }
    /// What it tells within so many milliseconds.
    fn tells(&self, ms: i32) -> String {
        let mut list = [epoll_event { events: 0, u64: 0 }; 8];
        let n = sys!(epoll_wait, self.0, &mut list, 8, ms);
        if n < 0 {
            return number(n);
        }
        let all: Vec<String> = list[..n as usize].iter().map(|e| events(e.events as i16)).collect();
        format!("{n}: {}", all.join(" "))
    }
}

/// Two connected streams of a kind: 0 TCP over IPv4, 1 over IPv6, 2 AF_UNIX.
fn stream(kind: usize) -> (i32, i32) {
    match kind {
        0 => connection(V4),
        1 => connection(V6),
        _ => pair(SOCK_STREAM),
    }
}

fn edge_in(kind: usize) {
    let (c, s) = stream(kind);
    let e = Epoll::new();
    ret("add", e.add(s, EPOLLIN | EPOLLET));
    say!("{}", e.tells(0));
    send(c, b"one", 0);
    say!("{}", e.tells(2000));
    say!("once {}", e.tells(0));
    send(c, b"two", 0);
    say!("more {}", e.tells(2000));
    say!("{}", recv(s, 2, 0));
    say!("partly read {}", e.tells(0));
    say!("{}", recv(s, 16, 0));
    say!("empty {}", e.tells(0));
    sys!(shutdown, c, SHUT_WR);
    say!("end {}", e.tells(2000));
    say!("once {}", e.tells(0));
    close(c);
    pause_ms(5);
    say!("closed {}", e.tells(0));
}

fn edge_out(kind: usize) {
    let (c, s) = stream(kind);
    nonblocking(c);
    let e = Epoll::new();
    ret("add", e.add(c, EPOLLOUT | EPOLLET));
    say!("{}", e.tells(0));
    say!("{}", e.tells(0));
    let chunk = vec![0u8; 16384];
    let mut sent = 0;
    loop {
        let n = send(c, &chunk, 0);
        if n <= 0 {
            break;
        }
        sent += n;
    }
    say!("full {}", e.tells(0));
    let mut b = vec![0u8; 1 << 20];
    let mut got = 0;
    while got < sent {
        let n = sys!(read, s, b.as_mut_slice(), b.len());
        if n <= 0 {
            break;
        }
        got += n;
    }
    claim("all came", got == sent);
    say!("room {}", e.tells(2000));
}

fn hang_ups(kind: usize) {
    let (c, s) = stream(kind);
    let e = Epoll::new();
    ret("add", e.add(s, EPOLLIN | EPOLLRDHUP));
    sys!(shutdown, c, SHUT_WR);
    say!("half {}", e.tells(2000));
    ret("only rdhup", e.change(s, EPOLLRDHUP));
    say!("{}", e.tells(0));
    ret("nothing asked", e.change(s, 0));
    say!("{}", e.tells(0));
    sys!(shutdown, s, SHUT_WR);
    say!("both {}", e.tells(2000));
    close(c);
    say!("closed {}", e.tells(2000));
}

fn one_shot(kind: usize) {
    let (c, s) = stream(kind);
    let e = Epoll::new();
    ret("add", e.add(s, EPOLLIN | EPOLLONESHOT));
    send(c, b"x", 0);
    say!("{}", e.tells(2000));
    say!("{}", e.tells(0));
    ret("again", e.change(s, EPOLLIN | EPOLLONESHOT));
    say!("{}", e.tells(2000));
    ret("twice", e.add(s, EPOLLIN));
}

fn listening(net: Net) {
    let (l, a) = listener(net);
    let e = Epoll::new();
    ret("add", e.add(l, EPOLLIN | EPOLLOUT | EPOLLET));
    say!("{}", e.tells(0));
    let c = tcp(net);
    must("connect", connect(c, &a));
    say!("{}", e.tells(2000));
    let c2 = tcp(net);
    must("connect", connect(c2, &a));
    say!("another {}", e.tells(2000));
    say!("{}", e.tells(0));
    done("accept", accept(l));
    say!("one left {}", e.tells(0));
    sys!(shutdown, l, SHUT_RDWR);
    say!("shut {}", e.tells(2000));
}

/// Of many who wait for one listener, one wakes.
fn exclusive(net: Net) {
    let (l, a) = listener(net);
    nonblocking(l);
    let (from, to) = crate::case::pipe(0);
    let children: Vec<i32> = (0..4)
        .map(|_| {
            fork(|| {
                let e = Epoll::new();
                must("add", e.add(l, EPOLLIN | EPOLLEXCLUSIVE));
                let mut list = [epoll_event { events: 0, u64: 0 }; 1];
                loop {
                    sys!(epoll_wait, e.0, &mut list, 1, -1);
                    let s = accept(l);
                    // Who was woken and comes too late waits on.
                    if s >= 0 {
                        sys!(write, to, b"+", 1);
                        return 0;
                    }
                }
            })
        })
        .collect();
    for c in &children {
        claim("waits", asleep(*c));
    }
    for _ in 0..4 {
        let c = tcp(net);
        must("connect", connect(c, &a));
        let mut b = [0u8; 1];
        sys!(read, from, &mut b, 1);
        say!("{}", b[0] as char);
    }
    for c in children {
        say!("{}", wait(c));
    }
    let e = Epoll::new();
    ret("exclusive with oneshot", e.add(l, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT));
    ret("exclusive", e.add(l, EPOLLIN | EPOLLEXCLUSIVE));
    ret("changed", e.change(l, EPOLLIN));
}

fn connecting(net: Net) {
    let e = Epoll::new();
    let fresh = tcp(net);
    ret("add", e.add(fresh, EPOLLIN | EPOLLOUT | EPOLLRDHUP));
    say!("fresh {}", e.tells(0));
    let (hole, at) = bound(tcp(net), net);
    let fd = tcp(net);
    nonblocking(fd);
    connect(fd, &at);
    let e = Epoll::new();
    ret("add", e.add(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP));
    say!("refused {}", e.tells(2000));
    say!("{}", get(fd, libc::SOL_SOCKET, libc::SO_ERROR));
    say!("then {}", e.tells(0));
    close(hole);
    let (l, a) = listener(net);
    let fd = tcp(net);
    nonblocking(fd);
    connect(fd, &a);
    let e = Epoll::new();
    ret("add", e.add(fd, EPOLLIN | EPOLLOUT | EPOLLET));
    say!("connected {}", e.tells(2000));
    let s = must("accept", accept(l)) as i32;
    reset(s);
    ready(fd, libc::POLLERR);
    say!("reset {}", e.tells(2000));
}

fn datagram_edges() {
    let (a, b) = datagrams(V4);
    let e = Epoll::new();
    ret("add", e.add(b, EPOLLIN | EPOLLET));
    send(a, b"1", 0);
    say!("{}", e.tells(2000));
    send(a, b"2", 0);
    say!("{}", e.tells(2000));
    recv(b, 1, 0);
    say!("one left {}", e.tells(0));
    recv(b, 1, 0);
    send(a, b"3", 0);
    say!("{}", e.tells(2000));
    sys!(shutdown, b, SHUT_RDWR);
    say!("shut {}", e.tells(2000));
}

fn full_unix_datagrams() {
    let (a, b) = pair(SOCK_DGRAM);
    nonblocking(a);
    let e = Epoll::new();
    ret("add", e.add(a, EPOLLOUT | EPOLLET));
    say!("{}", e.tells(0));
    while send(a, b"x", 0) > 0 {}
    say!("{} {}", poll(a), e.tells(0));
    let n = sys!(getpid);
    claim("pid", n > 0);
    while recv(b, 1, libc::MSG_DONTWAIT) != "EAGAIN" {}
    say!("{} {}", poll(a), e.tells(2000));
}

fn selecting() {
    let (c, s) = connection(V4);
    let show = |fd: i32| {
        let (mut r, mut w, mut x) = ([0u64; 16], [0u64; 16], [0u64; 16]);
        for set in [&mut r, &mut w, &mut x] {
            set[fd as usize / 64] |= 1 << (fd % 64);
        }
        let span = [0i64, 0];
        let n = sys!(select, fd + 1, &mut r, &mut w, &mut x, &span);
        let on = |set: &[u64; 16]| set[fd as usize / 64] >> (fd % 64) & 1;
        format!("{n} {}{}{}", on(&r), on(&w), on(&x))
    };
    say!("{} {}", show(c), show(s));
    send(c, b"x", 0);
    readable(s);
    say!("{}", show(s));
    recv(s, 1, 0);
    send(c, b"!", libc::MSG_OOB);
    ready(s, libc::POLLPRI);
    say!("{}", show(s));
    close(c);
    ready(s, libc::POLLRDHUP);
    say!("{}", show(s));
    say!("fresh {}", show(tcp(V4)));
    say!("listening {}", show(listener(V4).0));
}

fn signals(kind: usize) {
    let (c, s) = stream(kind);
    let mask: u64 = 1 << (libc::SIGIO - 1);
    sys!(rt_sigprocmask, libc::SIG_BLOCK, &mask, 0, 8);
    ret("owner", sys!(fcntl, s, libc::F_SETOWN, sys!(getpid)));
    ret("async", sys!(fcntl, s, libc::F_SETFL, libc::O_RDWR | libc::O_ASYNC));
    let span = [0i64, 0];
    let none = sys!(rt_sigtimedwait, &mask, 0, &span, 8);
    say!("before {}", number(none));
    send(c, b"x", 0);
    let span = [2i64, 0];
    ret("data", sys!(rt_sigtimedwait, &mask, 0, &span, 8));
    say!("{}", recv(s, 4, 0));
    close(c);
    ret("end", sys!(rt_sigtimedwait, &mask, 0, &span, 8));
}

pub const NETS: &[Case] = nets![
    [v4 v6] "epoll_wait/tcp_listening" "accept4 shutdown" listening;
    [v4 v6] "epoll_wait/tcp_exclusive" "accept4 fork" exclusive;
    [v4 v6] "epoll_wait/tcp_connecting" "connect" connecting;
];

pub const CASES: &[Case] = &[
    case("epoll_wait/edge_in_tcp", "sendto recvfrom", || edge_in(0)),
    case("epoll_wait/edge_in_tcp6", "sendto recvfrom", || edge_in(1)),
    case("epoll_wait/edge_in_unix", "sendto recvfrom", || edge_in(2)),
    case("epoll_wait/edge_out_tcp", "sendto read", || edge_out(0)),
    case("epoll_wait/edge_out_unix", "sendto read", || edge_out(2)),
    case("epoll_wait/hang_ups_tcp", "shutdown", || hang_ups(0)),
    case("epoll_wait/hang_ups_tcp6", "shutdown", || hang_ups(1)),
    case("epoll_wait/hang_ups_unix", "shutdown", || hang_ups(2)),
    case("epoll_wait/one_shot_tcp", "epoll_ctl", || one_shot(0)),
    case("epoll_wait/one_shot_unix", "epoll_ctl", || one_shot(2)),
    case("epoll_wait/datagram_edges", "shutdown", datagram_edges),
    case("epoll_wait/full_unix_datagrams", "poll", full_unix_datagrams),
    case("select/sockets", "", selecting),
    case("fcntl/async_tcp", "rt_sigtimedwait", || signals(0)),
    case("fcntl/async_unix", "rt_sigtimedwait", || signals(2)),
];
