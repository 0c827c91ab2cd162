//! How connections of TCP begin and what is told of that: data with the first segment (`TCP_FASTOPEN`), segments that are kept
//! (`TCP_SAVE_SYN`), clocks, bounds of timeouts.

use super::kit::*;
use crate::case::{Case, case, close, pause_ms};
use crate::out::{claim, must, number, ret};
use crate::{say, sys};
use libc::{IPPROTO_TCP, MSG_DONTWAIT, SO_ERROR, SOL_SOCKET};

const FASTOPEN: i32 = 23;
const TIMESTAMP: i32 = 24;
const CC_INFO: i32 = 26;
const SAVE_SYN: i32 = 27;
const SAVED_SYN: i32 = 28;
const FASTOPEN_CONNECT: i32 = 30;
const MSG_FASTOPEN: i32 = 0x2000_0000;

fn state(fd: i32) -> u8 {
    get_bytes(fd, IPPROTO_TCP, 11, 8).map_or(0, |b| b[0])
}
fn open_with(fd: i32, bytes: &[u8], to: Option<&Addr>, flags: i32) -> isize {
    match to {
        Some(a) => sys!(sendto, fd, bytes, bytes.len(), MSG_FASTOPEN | flags, &a.raw, a.len),
        None => send(fd, bytes, MSG_FASTOPEN | flags),
    }
}

fn deferred(net: Net) {
    let (l, a) = listener(net);
    let c = tcp(net);
    say!("{} | {}", get(c, IPPROTO_TCP, FASTOPEN_CONNECT), turn(c, IPPROTO_TCP, FASTOPEN_CONNECT, 2));
    say!("{}", turn(c, IPPROTO_TCP, FASTOPEN_CONNECT, 1));
    ret("connect", connect(c, &a));
    say!("{} {} {} {}", name(c), peer(c), state(c), poll(c));
    ret("again", connect(c, &a));
    claim("there", readable(l));
    let s = must("accept", accept(l)) as i32;
    ret("send", send(c, b"hello", 0));
    say!("{}", recv(s, 9, 0));
    say!("later {} {}", turn(c, IPPROTO_TCP, FASTOPEN_CONNECT, 0), turn(l, IPPROTO_TCP, FASTOPEN_CONNECT, 1));
    let c = tcp(net);
    must("set", set(c, IPPROTO_TCP, FASTOPEN_CONNECT, 1));
    nonblocking(c);
    ret("connect", connect(c, &a));
    claim("connected", ready(c, libc::POLLOUT));
    say!("{} {}", get(c, SOL_SOCKET, SO_ERROR), number(connect(c, &a)));
    say!("{} {}", recv(c, 9, 0), number(send(c, b"hello", 0)));
    let c = tcp(net);
    must("set", set(c, IPPROTO_TCP, FASTOPEN_CONNECT, 1));
    let (nobody, a) = bound(tcp(net), net);
    ret("nobody", connect(c, &a));
    ret("send", send(c, b"x", libc::MSG_NOSIGNAL));
    close(nobody);
}

fn with_data(net: Net) {
    let (l, a) = listener(net);
    for bytes in [&b"hello"[..], b""] {
        let c = tcp(net);
        ret("open", open_with(c, bytes, Some(&a), 0));
        let s = must("accept", accept(l)) as i32;
        pause_ms(5);
        say!("{} {} {}", state(c), peer(c), recv(s, 9, MSG_DONTWAIT));
        ret("once more", open_with(c, b"x", Some(&a), 0));
        ret("without an address", open_with(c, b"x", None, 0));
        ret("plainly", send(c, b"more", 0));
        say!("{}", recv(s, 9, 0));
        close(c);
        close(s);
    }
    let c = tcp(net);
    ret("nowhere", open_with(c, b"x", None, 0));
    ret("no family", open_with(c, b"x", Some(&Addr::family(0, 28)), 0));
    ret("not waiting", open_with(c, b"hello", Some(&a), MSG_DONTWAIT));
    claim("connected", ready(c, libc::POLLOUT));
    let s = must("accept", accept(l)) as i32;
    pause_ms(5);
    say!("{} {}", recv(s, 9, MSG_DONTWAIT), number(send(c, b"again", 0)));
    say!("{}", recv(s, 9, 0));
    let (_nobody, a) = bound(tcp(net), net);
    let c = tcp(net);
    ret("nobody", open_with(c, b"x", Some(&a), 0));
    ret("to the listener itself", open_with(l, b"x", Some(&a), 0));
    let c = tcp(net);
    ret("without the flag", sys!(sendto, c, b"x", 1, libc::MSG_NOSIGNAL, &a.raw, a.len));
}

/// A server that takes data with the first segment, as far as the machine's settings let it: they do not.
fn server() {
    let l = tcp(V4);
    ret("queue", set(l, IPPROTO_TCP, FASTOPEN, 5));
    let (l, a) = bound(l, V4);
    must("listen", listen(l, 8));
    for _ in 0..2 {
        let c = tcp(V4);
        ret("open", open_with(c, b"hello", Some(&a), 0));
        let s = must("accept", accept(l)) as i32;
        claim("there", readable(s));
        let options = |fd| get_bytes(fd, IPPROTO_TCP, 11, 8).map_or(0, |b| b[5]);
        say!("{} {} {}", recv(s, 9, 0), options(c), options(s));
        close(c);
        close(s);
    }
}

fn saved(net: Net) {
    for mode in [0, 1, 2, 3, -1] {
        let l = tcp(net);
        say!("{mode}: {}", turn(l, IPPROTO_TCP, SAVE_SYN, mode));
        let (l, a) = bound(l, net);
        must("listen", listen(l, 8));
        let c = tcp(net);
        must("segment", set(c, IPPROTO_TCP, 2, if mode == 2 { 1000 } else { 0 }));
        must("connect", connect(c, &a));
        let s = must("accept", accept(l)) as i32;
        say!("{} {:?}", get(s, IPPROTO_TCP, SAVE_SYN), get_bytes(l, IPPROTO_TCP, SAVED_SYN, 128));
        say!(
            "{:?} {:?}",
            get_bytes(c, IPPROTO_TCP, SAVED_SYN, 128),
            get_bytes(s, IPPROTO_TCP, SAVED_SYN, 20)
        );
        let syn = get_bytes(s, IPPROTO_TCP, SAVED_SYN, 128).unwrap_or_default();
        say!("{} bytes", syn.len());
        if !syn.is_empty() {
            let link = if mode == 2 { 14 } else { 0 };
            let ip = link + if net == V6 { 40 } else { 20 };
            say!("{:?}", &syn[..link]);
            // But for what is chosen by chance, and what that changes.
            match net {
                V6 => say!("{} {:?}", syn[link] >> 4, &syn[link + 4..ip]),
                _ => say!(
                    "{:?} {:?} {:?}",
                    &syn[link..link + 4],
                    &syn[link + 6..link + 10],
                    &syn[link + 12..ip]
                ),
            }
            let port = |at: usize| u16::from_be_bytes([syn[ip + at], syn[ip + at + 1]]);
            claim("ports", port(0) == own(c).port() && port(2) == a.port());
            say!("{:?}", &syn[ip + 8..ip + 28]);
            // How far windows are scaled is the machine's.
            say!("{:?}", &syn[ip + 32..ip + 39]);
            let sum = |bytes: &[u8]| {
                let all: u32 = bytes.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
                (all & 0xffff) + (all >> 16)
            };
            if net != V6 {
                say!("sum {:x}", sum(&syn[link..ip]));
            }
        }
        say!("{:?}", get_bytes(s, IPPROTO_TCP, SAVED_SYN, 128));
        close(c);
        close(s);
        close(l);
    }
    // Asked for too late.
    let (l, a) = listener(net);
    let c = tcp(net);
    must("connect", connect(c, &a));
    must("keep", set(l, IPPROTO_TCP, SAVE_SYN, 1));
    let s = must("accept", accept(l)) as i32;
    say!("{:?} {}", get_bytes(s, IPPROTO_TCP, SAVED_SYN, 128), number(set(s, IPPROTO_TCP, SAVED_SYN, 1)));
}

fn clocks() {
    let (c, s) = connection(V4);
    for fd in [c, s, tcp(V4)] {
        let clock = || get(fd, IPPROTO_TCP, TIMESTAMP).parse::<i32>().unwrap_or(0);
        let first = clock();
        pause_ms(60);
        let passed = clock().wrapping_sub(first);
        claim("milliseconds", (50..5000).contains(&passed));
        ret("set", set(fd, IPPROTO_TCP, TIMESTAMP, 1));
        ret("reno", set_bytes(fd, IPPROTO_TCP, libc::TCP_CONGESTION, b"reno"));
        say!("{:?}", get_bytes(fd, IPPROTO_TCP, CC_INFO, 64));
        ret("info", set(fd, IPPROTO_TCP, CC_INFO, 1));
    }
}

fn bounds() {
    let all = |fd: i32, name: i32, values: &[i32]| {
        let got: Vec<String> = values.iter().map(|v| turn(fd, IPPROTO_TCP, name, *v)).collect();
        say!("{name} | {}", got.join(" | "));
    };
    let l = tcp(V4);
    all(l, 44, &[0, 999, 1000, 5000, 120_000, 120_001, -1, 7000]);
    all(l, 45, &[0, 1000, 4000, 4001, 8000, 9999, 200_000, 200_001, -1, 50_000]);
    all(l, 46, &[0, 1000, 4000, 4001, 8000, 9999, 200_000, 200_001, -1, 30_000]);
    all(l, 16, &[2, 1]);
    let (l, a) = bound(l, V4);
    must("listen", listen(l, 8));
    let c = tcp(V4);
    must("connect", connect(c, &a));
    let s = must("accept", accept(l)) as i32;
    say!("{:?}", [44, 45, 46, 16].map(|n| get(s, IPPROTO_TCP, n)));
}

pub const NETS: &[Case] = nets! {
    [v4 v6 mapped] "setsockopt/begun_deferred" "connect sendto" deferred;
    [v4 v6 mapped] "sendto/begun_with_data" "accept4 recvfrom" with_data;
    [v4 v6 mapped] "setsockopt/begun_saved" "getsockopt connect" saved;
};
pub const CASES: &[Case] = &[
    case("setsockopt/begun_server", "sendto accept4", server),
    case("getsockopt/begun_clocks", "setsockopt", clocks),
    case("setsockopt/begun_bounds", "getsockopt", bounds),
];
