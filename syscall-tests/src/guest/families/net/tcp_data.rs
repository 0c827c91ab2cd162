//! TCP: what connections carry: bytes, their end, resets, urgent bytes, waiting and flags.

use super::kit::*;
use crate::case::{Case, NOWHERE, asleep, case, close, fork, in_child, now_ms, pause_ms, wait};
use crate::out::{claim, done, must, number, ret, text};
use crate::{say, sys};
use libc::{
    IPPROTO_TCP, MSG_DONTWAIT, MSG_MORE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, SHUT_RD,
    SHUT_RDWR, SHUT_WR, SO_ERROR, SO_OOBINLINE, SO_RCVLOWAT, SO_RCVTIMEO, SO_SNDBUF, SO_SNDTIMEO, SOL_SOCKET,
};

fn echo(net: Net) {
    let (c, s) = connection(net);
    ret("send", send(c, b"hello ", 0));
    ret("send", send(c, b"world", 0));
    readable(s);
    say!("{}", recv(s, 11, MSG_WAITALL));
    say!("{}", recv(s, 8, MSG_DONTWAIT));
    ret("write", sys!(write, s, b"answer", 6));
    let mut b = [0u8; 16];
    say!("{}", number(sys!(read, c, &mut b, 16)));
    say!("{}", text(&b));
    let (from, at) = {
        send(s, b"again", 0);
        recv_from(c, 16, 0)
    };
    say!("{from} '{at}'");
    ret("empty", send(c, b"", 0));
    say!("{}", recv(s, 8, MSG_DONTWAIT));
    let nothing = recv(s, 0, MSG_DONTWAIT);
    say!("no room {nothing}");
    ret("read of nothing", sys!(read, s, &mut b, 0));
    ret("with an address", send_to(c, b"x", &net.loopback(9)));
    say!("{}", recv(s, 8, 0));
    ret("bad pointer", sys!(sendto, c, NOWHERE, 4, 0, 0, 0));
    ret("bad pointer", sys!(recvfrom, c, NOWHERE, 4, MSG_DONTWAIT, 0, 0));
    send(s, b"data", 0);
    readable(c);
    ret("bad pointer with data", sys!(recvfrom, c, NOWHERE, 4, 0, 0, 0));
    say!("still there {}", recv(c, 8, 0));
}

fn not_connected(net: Net) {
    let fd = tcp(net);
    ret("send", send(fd, b"x", MSG_NOSIGNAL));
    say!("{}", recv(fd, 4, 0));
    say!("{}", recv(fd, 4, MSG_PEEK));
    say!("{}", recv(fd, 4, MSG_OOB));
    ret("shutdown", sys!(shutdown, fd, SHUT_RDWR));
    say!("{}", poll(fd));
    in_child("signal", || send(fd, b"x", 0) as i32);
    let to = net.loopback(9);
    ret("to an address", sys!(sendto, fd, b"x", 1, MSG_NOSIGNAL, &to.raw, to.len));
    say!("{}", peer(fd));
}

fn peeking(net: Net) {
    let (c, s) = connection(net);
    send(c, b"peekaboo", 0);
    readable(s);
    say!("{}", recv(s, 4, MSG_PEEK));
    say!("{}", recv(s, 16, MSG_PEEK));
    say!("{}", recv(s, 4, MSG_TRUNC));
    say!("{}", recv(s, 2, MSG_PEEK | MSG_TRUNC));
    say!("{}", recv(s, 16, 0));
    say!("{}", recv(s, 16, MSG_PEEK | MSG_DONTWAIT));
    close(c);
    readable(s);
    say!("{}", recv(s, 16, MSG_PEEK));
}

fn shutdown_send(net: Net) {
    let (c, s) = connection(net);
    say!("{} {}", poll(c), poll(s));
    send(c, b"last", 0);
    ret("shutdown", sys!(shutdown, c, SHUT_WR));
    ready(s, libc::POLLRDHUP);
    say!("{} {}", poll(c), poll(s));
    ret("send after", send(c, b"x", MSG_NOSIGNAL));
    in_child("signal", || send(c, b"x", 0) as i32);
    say!("{} {}", recv(s, 8, 0), recv(s, 8, 0));
    ret("the other way", send(s, b"fine", 0));
    say!("{}", recv(c, 8, 0));
    ret("twice", sys!(shutdown, c, SHUT_WR));
    ret("other end", sys!(shutdown, s, SHUT_WR));
    ready(c, libc::POLLHUP);
    say!("{} {}", poll(c), recv(c, 8, 0));
    ret("all over", sys!(shutdown, c, SHUT_WR));
    say!("{}", peer(c));
}

fn shutdown_receive(net: Net) {
    let (c, s) = connection(net);
    ret("shutdown", sys!(shutdown, c, SHUT_RD));
    say!("{} {}", poll(c), recv(c, 8, 0));
    ret("data comes nevertheless", send(s, b"late", 0));
    pause_ms(10);
    say!("{} {}", recv(c, 8, MSG_DONTWAIT), poll(c));
    ret("sending goes on", send(c, b"still", 0));
    say!("{}", recv(s, 8, 0));
    ret("bad", sys!(shutdown, c, 3));
    ret("bad", sys!(shutdown, c, -1));
    ret("both", sys!(shutdown, c, SHUT_RDWR));
    say!("{} {}", recv(s, 8, 0), poll(c));
}

fn close_with_unread(net: Net) {
    let (c, s) = connection(net);
    send(c, b"never read", 0);
    readable(s);
    close(s);
    ready(c, libc::POLLERR);
    say!("{}", poll(c));
    say!("{}", recv(c, 8, 0));
    say!("{}", recv(c, 8, 0));
    ret("send", send(c, b"x", MSG_NOSIGNAL));
    say!("{} {}", get(c, SOL_SOCKET, SO_ERROR), peer(c));
}

fn reset_by_linger(net: Net) {
    let (c, s) = connection(net);
    send(s, b"lost", 0);
    readable(c);
    reset(s);
    ready(c, libc::POLLERR);
    say!("{}", poll(c));
    say!("{}", get(c, SOL_SOCKET, SO_ERROR));
    say!("{}", recv(c, 8, 0));
    say!("{}", poll(c));
    ret("send", send(c, b"x", MSG_NOSIGNAL));
    let (c, s) = connection(net);
    reset(s);
    ready(c, libc::POLLERR);
    ret("send first", send(c, b"x", MSG_NOSIGNAL));
    ret("send then", send(c, b"x", MSG_NOSIGNAL));
    say!("{}", recv(c, 8, 0));
}

fn send_to_closed(net: Net) {
    let (c, s) = connection(net);
    close(s);
    readable(c);
    say!("{} {}", poll(c), recv(c, 4, 0));
    ret("first", send(c, b"x", MSG_NOSIGNAL));
    ready(c, libc::POLLERR | libc::POLLHUP);
    pause_ms(10);
    say!("{}", poll(c));
    ret("second", send(c, b"x", MSG_NOSIGNAL));
    in_child("signal", || send(c, b"x", 0) as i32);
    say!("{}", recv(c, 4, 0));
}

fn linger_waits(net: Net) {
    let (c, s) = connection(net);
    let linger = [1i32, 1];
    ret("set", sys!(setsockopt, c, SOL_SOCKET, libc::SO_LINGER, &linger, 8));
    send(c, b"all of it", 0);
    let began = now_ms();
    ret("close", sys!(close, c));
    claim("soon", now_ms() - began < 900);
    say!("{} {}", recv(s, 16, 0), recv(s, 16, 0));
}

fn urgent(net: Net) {
    let (c, s) = connection(net);
    ret("send", send(c, b"abc", MSG_OOB));
    ready(s, libc::POLLPRI);
    say!("{}", poll(s));
    let mark = |fd| {
        let mut v = 9i32;
        let r = sys!(ioctl, fd, 0x8905, &mut v);
        if r < 0 { number(r) } else { v.to_string() }
    };
    say!("mark {}", mark(s));
    say!("{}", recv(s, 16, 0));
    say!("mark {} {}", mark(s), poll(s));
    say!("{}", recv(s, 16, MSG_OOB | MSG_PEEK));
    say!("{}", recv(s, 16, MSG_OOB));
    say!("{}", recv(s, 16, MSG_OOB));
    say!("{} {}", poll(s), recv(s, 4, MSG_DONTWAIT));
    send(c, b"1", MSG_OOB);
    send(c, b"2", MSG_OOB);
    send(c, b"tail", 0);
    pause_ms(10);
    readable(s);
    say!("{}", recv(s, 16, MSG_OOB));
    say!("{}", recv(s, 16, 0));
    say!("{}", recv(s, 16, MSG_DONTWAIT));
    ret("inline", set(s, SOL_SOCKET, SO_OOBINLINE, 1));
    send(c, b"xyz", MSG_OOB);
    ready(s, libc::POLLPRI);
    say!("{}", recv(s, 16, MSG_OOB));
    say!("{}", recv(s, 16, 0));
    say!("mark {}", mark(s));
    say!("{}", recv(s, 16, 0));
    say!("none {}", recv(c, 4, MSG_OOB));
}

fn urgent_signal(net: Net) {
    let (c, s) = connection(net);
    in_child("killed by SIGURG handler's lack", || {
        must("own", sys!(fcntl, s, libc::F_SETOWN, sys!(getpid)));
        say!("{}", (sys!(fcntl, s, libc::F_GETOWN) == sys!(getpid)));
        let mask: u64 = 1 << (libc::SIGURG - 1);
        sys!(rt_sigprocmask, libc::SIG_BLOCK, &mask, 0, 8);
        send(c, b"!", MSG_OOB);
        ready(s, libc::POLLPRI);
        let span = [1i64, 0];
        ret("signal", sys!(rt_sigtimedwait, &mask, 0, &span, 8));
        0
    });
}

fn wait_all(net: Net) {
    let (c, s) = connection(net);
    let child = fork(|| {
        say!("{}", recv(s, 10, MSG_WAITALL));
        0
    });
    send(c, b"12345", 0);
    claim("waits", asleep(child));
    send(c, b"67890", 0);
    say!("{}", wait(child));
    let child = fork(|| {
        say!("{}", recv(s, 10, MSG_WAITALL));
        0
    });
    send(c, b"part", 0);
    claim("waits", asleep(child));
    sys!(shutdown, c, SHUT_WR);
    say!("{}", wait(child));
    let (c, s) = connection(net);
    send(c, b"some", 0);
    readable(s);
    say!("{}", recv(s, 10, MSG_WAITALL | MSG_DONTWAIT));
    send(c, b"some", 0);
    readable(s);
    let span = [0i64, 20_000];
    must("timeout", sys!(setsockopt, s, SOL_SOCKET, SO_RCVTIMEO, &span, 16));
    say!("{}", recv(s, 10, MSG_WAITALL));
}

fn timeouts(net: Net) {
    let (c, s) = connection(net);
    let span = [0i64, 30_000];
    ret("set", sys!(setsockopt, s, SOL_SOCKET, SO_RCVTIMEO, &span, 16));
    let began = now_ms();
    say!("{}", recv(s, 8, 0));
    claim("waited", now_ms() - began >= 25);
    must("small", set(c, SOL_SOCKET, SO_SNDBUF, 4096));
    must("set", sys!(setsockopt, c, SOL_SOCKET, SO_SNDTIMEO, &span, 16));
    let big = vec![7u8; 64 << 20];
    let n = send(c, &big, 0);
    claim("part", n > 0 && n < big.len() as isize);
}

fn low_water(net: Net) {
    let (c, s) = connection(net);
    ret("set", set(s, SOL_SOCKET, SO_RCVLOWAT, 6));
    send(c, b"1234", 0);
    pause_ms(10);
    say!("{}", poll(s));
    send(c, b"56", 0);
    readable(s);
    say!("{}", poll(s));
    say!("{}", recv(s, 16, 0));
    let child = fork(|| {
        say!("{}", recv(s, 16, 0));
        0
    });
    claim("waits", asleep(child));
    send(c, b"abcdef", 0);
    say!("{}", wait(child));
}

fn large(net: Net) {
    let (c, s) = connection(net);
    let child = fork(|| {
        close(s);
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 >> 3) as u8).collect();
        let n = sys!(write, c, data.as_slice(), data.len());
        i32::from(n != data.len() as isize)
    });
    close(c);
    let (mut total, mut bad) = (0usize, 0);
    let mut b = vec![0u8; 70_000];
    loop {
        let n = sys!(read, s, b.as_mut_slice(), b.len());
        if n <= 0 {
            say!("end {}", number(n));
            break;
        }
        bad += (0..n as usize).filter(|i| b[*i] != (((total + i) as u32).wrapping_mul(7) >> 3) as u8).count();
        total += n as usize;
    }
    say!("{total} {bad} {}", wait(child));
}

fn blocked_writer(net: Net) {
    let (c, s) = connection(net);
    nonblocking(c);
    let chunk = vec![1u8; 65536];
    let mut sent = 0;
    loop {
        let n = send(c, &chunk, 0);
        if n < 0 {
            say!("full {}", number(n));
            break;
        }
        sent += n;
    }
    say!("{}", poll(c));
    let child = fork(|| {
        let mut p = libc::pollfd { fd: c, events: libc::POLLOUT, revents: 0 };
        sys!(poll, &mut p, 1, 10000);
        say!("{}", events(p.revents));
        0
    });
    claim("waits", asleep(child));
    let mut b = vec![0u8; 1 << 20];
    let mut got = 0;
    while got < sent {
        let n = sys!(read, s, b.as_mut_slice(), b.len());
        if n <= 0 {
            break;
        }
        got += n;
    }
    let ended = wait(child);
    claim("all", got == sent);
    say!("{ended}");
    sys!(fcntl, c, libc::F_SETFL, libc::O_RDWR);
    let mut all = 0;
    let child = fork(|| {
        ret("blocking", sys!(write, c, vec![2u8; 16 << 20].as_slice(), 16 << 20));
        0
    });
    while all < 16 << 20 {
        let n = sys!(read, s, b.as_mut_slice(), b.len());
        if n <= 0 {
            break;
        }
        all += n;
    }
    say!("{all} {}", wait(child));
}

fn reset_wakes(net: Net) {
    let (c, s) = connection(net);
    let child = fork(|| {
        close(s);
        say!("{}", recv(c, 8, 0));
        0
    });
    claim("waits", asleep(child));
    reset(s);
    say!("{}", wait(child));
}

fn shutdown_wakes(net: Net) {
    let (c, _s) = connection(net);
    let child = fork(|| {
        say!("{}", recv(c, 8, 0));
        0
    });
    claim("waits", asleep(child));
    sys!(shutdown, c, SHUT_RD);
    say!("{}", wait(child));
}

fn cork(net: Net) {
    let (c, s) = connection(net);
    ret("cork", set(c, IPPROTO_TCP, libc::TCP_CORK, 1));
    send(c, b"held", 0);
    pause_ms(20);
    say!("{}", recv(s, 16, MSG_DONTWAIT));
    ret("uncork", set(c, IPPROTO_TCP, libc::TCP_CORK, 0));
    readable(s);
    say!("{}", recv(s, 16, 0));
    send(c, b"more", MSG_MORE);
    pause_ms(20);
    say!("{}", recv(s, 16, MSG_DONTWAIT));
    send(c, b" come", 0);
    readable(s);
    say!("{}", recv(s, 16, 0));
    set(c, IPPROTO_TCP, libc::TCP_CORK, 1);
    send(c, b"end", 0);
    sys!(shutdown, c, SHUT_WR);
    say!("{} {}", recv(s, 16, MSG_WAITALL), recv(s, 16, 0));
}

fn queues(net: Net) {
    let (c, s) = connection(net);
    let ask = |fd: i32, cmd: u32| {
        let mut v = -1i32;
        let r = sys!(ioctl, fd, cmd, &mut v);
        if r < 0 { number(r) } else { v.to_string() }
    };
    say!("{} {} {}", ask(s, 0x541b), ask(c, 0x5411), ask(c, 0x894b));
    send(c, b"twelve bytes", 0);
    readable(s);
    say!("{} {} {}", ask(s, 0x541b), ask(c, 0x5411), ask(c, 0x894b));
    recv(s, 5, 0);
    say!("{}", ask(s, 0x541b));
    let (l, _) = listener(net);
    say!("{} {} {}", ask(l, 0x541b), ask(l, 0x5411), ask(l, 0x8905));
    let fresh = tcp(net);
    say!("{} {} {}", ask(fresh, 0x541b), ask(fresh, 0x5411), ask(fresh, 0x8905));
    ret("bad pointer", sys!(ioctl, s, 0x541b, NOWHERE));
    ret("unknown", sys!(ioctl, s, 0x5499, 0));
}

fn fault_in_the_middle(net: Net) {
    let (c, s) = connection(net);
    // A page, then nothing.
    let page = must("map", sys!(mmap, 0, 8192, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)) as usize;
    must("unmap", sys!(munmap, page + 4096, 4096));
    ret("send", sys!(sendto, c, page + 4092, 8, 0, 0, 0));
    ret("send nothing", sys!(sendto, c, page + 4096, 8, 0, 0, 0));
    readable(s);
    say!("{}", recv(s, 16, MSG_DONTWAIT));
    send(c, b"12345678", 0);
    readable(s);
    ret("receive", sys!(recvfrom, s, page + 4092, 8, MSG_DONTWAIT, 0, 0));
    say!("left {}", recv(s, 16, MSG_DONTWAIT));
}

fn vectors(net: Net) {
    let (c, s) = connection(net);
    let parts = [&b"ab"[..], &b""[..], &b"cde"[..]];
    let iov: Vec<[usize; 2]> = parts.iter().map(|p| [p.as_ptr() as usize, p.len()]).collect();
    ret("writev", sys!(writev, c, iov.as_slice(), 3));
    readable(s);
    let (mut x, mut y) = ([0u8; 3], [0u8; 8]);
    let iov = [[x.as_mut_ptr() as usize, 3], [y.as_mut_ptr() as usize, 8]];
    ret("readv", sys!(readv, s, &iov, 2));
    say!("{} {}", text(&x), text(&y[..2]));
    ret("pwrite", sys!(pwrite64, c, b"x", 1, 0));
    ret("pread", sys!(pread64, s, &mut x, 1, 0));
    ret("lseek", sys!(lseek, c, 0, 0));
    ret("too many", sys!(writev, c, iov.as_slice(), 1025));
    ret("fsync", sys!(fsync, c));
    ret("ftruncate", sys!(ftruncate, c, 0));
}

/// Of many parts only some fit: what is said to be sent is what arrives.
fn parts_that_do_not_fit(net: Net) {
    let (c, s) = connection(net);
    must("SO_SNDBUF", set(c, SOL_SOCKET, libc::SO_SNDBUF, 20_000));
    let all: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8 ^ (n >> 12) as u8).collect();
    let (mut sent, mut got) = (0, Vec::<u8>::new());
    let mut partial = false;
    while got.len() < all.len() {
        while sent < all.len() {
            let iov: Vec<[usize; 2]> =
                all[sent..].chunks(777).take(300).map(|p| [p.as_ptr() as usize, p.len()]).collect();
            let offered: usize = iov.iter().map(|p| p[1]).sum();
            let mut message: libc::msghdr = crate::case::zeroed();
            message.msg_iov = iov.as_ptr().cast_mut().cast();
            message.msg_iovlen = iov.len();
            let n = sys!(sendmsg, c, &message, MSG_DONTWAIT);
            if n <= 0 {
                break;
            }
            sent += n as usize;
            partial |= (n as usize) < offered;
        }
        let mut buffer = vec![0; 1 << 20];
        match sys!(recvfrom, s, buffer.as_mut_ptr(), buffer.len(), MSG_DONTWAIT, 0, 0) {
            n if n > 0 => got.extend(&buffer[..n as usize]),
            // It is on its way, or there is room to send again.
            _ => pause_ms(1),
        }
    }
    claim("some did not fit", partial);
    claim("in order", sent == all.len() && got == all);
}

fn connecting_again(net: Net) {
    let (l, a) = listener(net);
    let c = tcp(net);
    must("connect", connect(c, &a));
    let s = must("accept", accept(l)) as i32;
    ret("disconnect", connect(c, &Addr::family(libc::AF_UNSPEC, 16)));
    ready(s, libc::POLLERR);
    say!("{} {}", poll(s), recv(s, 4, 0));
    ret("connect", connect(c, &a));
    let s = must("accept", accept(l)) as i32;
    send(c, b"second life", 0);
    say!("{}", recv(s, 16, 0));
    done("listen", listen(c, 1));
}

pub const NETS: &[Case] = nets![
    [v4 v6 mapped] "recvfrom/tcp_echo" "sendto read write" echo;
    [v4 v6] "sendto/tcp_not_connected" "recvfrom shutdown" not_connected;
    [v4 v6] "recvfrom/tcp_peek" "sendto" peeking;
    [v4 v6 mapped] "shutdown/tcp_send" "poll recvfrom" shutdown_send;
    [v4 v6] "shutdown/tcp_receive" "poll recvfrom" shutdown_receive;
    [v4 v6] "close/tcp_unread" "recvfrom" close_with_unread;
    [v4 v6] "close/tcp_reset" "setsockopt recvfrom" reset_by_linger;
    [v4 v6] "sendto/tcp_to_closed" "close" send_to_closed;
    [v4 v6] "close/tcp_linger" "setsockopt" linger_waits;
    [v4 v6] "sendto/tcp_urgent" "recvfrom ioctl setsockopt" urgent;
    [v4 v6] "fcntl/tcp_urgent_signal" "sendto rt_sigtimedwait" urgent_signal;
    [v4 v6] "recvfrom/tcp_waitall" "sendto" wait_all;
    [v4 v6] "setsockopt/tcp_timeouts" "recvfrom sendto" timeouts;
    [v4 v6] "setsockopt/tcp_low_water" "poll recvfrom" low_water;
    [v4 v6 mapped] "read/tcp_large" "write" large;
    [v4 v6] "poll/tcp_blocked_writer" "write read" blocked_writer;
    [v4 v6] "recvfrom/tcp_reset_wakes" "close" reset_wakes;
    [v4 v6] "shutdown/tcp_wakes" "recvfrom" shutdown_wakes;
    [v4 v6] "setsockopt/tcp_cork" "sendto" cork;
    [v4 v6] "ioctl/tcp_queues" "" queues;
    [v4 v6] "sendmsg/tcp_parts" "recvfrom" parts_that_do_not_fit;
    [v4 v6] "sendto/tcp_fault" "recvfrom mmap munmap" fault_in_the_middle;
    [v4 v6] "writev/tcp" "readv pread64 pwrite64" vectors;
    [v4 v6] "connect/tcp_again" "recvfrom" connecting_again;
];

fn states_of_info() {
    let state = |fd: i32| get_bytes(fd, IPPROTO_TCP, libc::TCP_INFO, 1).map_or(-1, |b| i32::from(b[0]));
    let fd = tcp(V4);
    say!("fresh {}", state(fd));
    must("listen", listen(fd, 1));
    say!("listening {}", state(fd));
    let (c, s) = connection(V4);
    say!("open {} {}", state(c), state(s));
    sys!(shutdown, c, SHUT_WR);
    ready(s, libc::POLLRDHUP);
    pause_ms(10);
    say!("half {} {}", state(c), state(s));
    sys!(shutdown, s, SHUT_WR);
    ready(c, libc::POLLHUP);
    pause_ms(10);
    say!("over {} {}", state(c), state(s));
    let all = get_bytes(c, IPPROTO_TCP, libc::TCP_INFO, 104).map_or(0, |b| b.len());
    say!("{all}");
}

pub const CASES: &[Case] = &[case("getsockopt/tcp_info_states", "shutdown", states_of_info)];
