//! Programs that choose among sockets that share a port (`SO_ATTACH_REUSEPORT_CBPF`): who may have one, what it sees, who
//! is chosen.

use super::kit::*;
use crate::case::{Case, case, close, pause_ms};
use crate::out::{must, number, ret};
use crate::{say, sys};
use libc::{
    AF_INET, AF_UNIX, IPPROTO_ICMP, MSG_DONTWAIT, SO_LOCK_FILTER, SO_REUSEPORT, SOCK_DGRAM, SOCK_RAW,
    SOCK_STREAM, SOL_SOCKET,
};

const ATTACH: i32 = 51;
const DETACH: i32 = 68;
const NETWORK: u32 = 0xfff0_0000;

type Program<'a> = &'a [(u16, u8, u8, u32)];

const fn always(n: u32) -> [(u16, u8, u8, u32); 1] {
    [(0x06, 0, 0, n)]
}
/// The byte at a place, of which these bits are the number.
const fn byte(at: u32, mask: u32) -> [(u16, u8, u8, u32); 3] {
    [(0x30, 0, 0, at), (0x54, 0, 0, mask), (0x16, 0, 0, 0)]
}

fn attach(fd: i32, program: Program<'_>) -> isize {
    let insns: Vec<[u8; 8]> = program
        .iter()
        .map(|i| {
            let mut raw = [0; 8];
            raw[..2].copy_from_slice(&i.0.to_ne_bytes());
            (raw[2], raw[3]) = (i.1, i.2);
            raw[4..].copy_from_slice(&i.3.to_ne_bytes());
            raw
        })
        .collect();
    let head = [insns.len() as u64, insns.as_ptr() as u64];
    sys!(setsockopt, fd, SOL_SOCKET, ATTACH, &head, 16)
}
fn detach(fd: i32) -> isize {
    set(fd, SOL_SOCKET, DETACH, 0)
}
fn sharing(fd: i32) -> i32 {
    must("share", set(fd, SOL_SOCKET, SO_REUSEPORT, 1));
    fd
}

fn rules() {
    let zero = &always(0);
    for (label, kind) in [("tcp", SOCK_STREAM), ("udp", SOCK_DGRAM)] {
        let fd = socket(AF_INET, kind, 0);
        say!("{label} alone {} {}", number(attach(fd, zero)), number(detach(fd)));
        must("bind", bind(fd, &V4.loopback(0)));
        say!("bound {} {}", number(attach(fd, zero)), number(detach(fd)));
        let fd = sharing(socket(AF_INET, kind, 0));
        say!("fresh {} {}", number(detach(fd)), number(attach(fd, zero)));
        say!("{} {}", number(attach(fd, &always(1))), number(detach(fd)));
        ret("again", detach(fd));
        must("bind", bind(fd, &V4.loopback(0)));
        say!("bound {} {} {}", number(attach(fd, zero)), number(detach(fd)), number(detach(fd)));
        ret("no return", attach(fd, &[(0x20, 0, 0, 0)]));
        ret("short", sys!(setsockopt, fd, SOL_SOCKET, ATTACH, &[1u64, 2], 8));
        ret("an int", set(fd, SOL_SOCKET, ATTACH, 1));
        ret("less", sys!(setsockopt, fd, SOL_SOCKET, DETACH, &0u16, 2));
        if kind == SOCK_DGRAM {
            must("lock", set(fd, SOL_SOCKET, SO_LOCK_FILTER, 1));
            say!("locked {} {}", number(attach(fd, zero)), number(detach(fd)));
        }
        say!("{} {}", get(fd, SOL_SOCKET, ATTACH), get(fd, SOL_SOCKET, DETACH));
    }
    let raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    for (label, fd) in [("unix", socket(AF_UNIX, SOCK_STREAM, 0)), ("raw", raw)] {
        say!("{label} {} {}", number(attach(fd, zero)), number(detach(fd)));
    }
}

/// Sockets at one port; the first has a program before it is bound.
fn group(net: Net, kind: i32, count: usize, first: Program<'_>) -> (Vec<i32>, Addr) {
    let mut at = net.loopback(0);
    let mut all = Vec::new();
    for n in 0..count {
        let fd = sharing(socket(net.domain(), kind, 0));
        if n == 0 && !first.is_empty() {
            must("attach", attach(fd, first));
        }
        must("bind", bind(fd, &at));
        at = own(fd);
        if kind == SOCK_STREAM {
            must("listen", listen(fd, 8));
        }
        nonblocking(fd);
        all.push(fd);
    }
    (all, at)
}

/// Who gets a datagram.
fn who(net: Net, group: &[i32], to: &Addr, data: &[u8]) -> String {
    let fd = udp(net);
    must("send", send_to(fd, data, to));
    pause_ms(2);
    close(fd);
    let got = |fd: &&i32| sys!(recvfrom, **fd, &mut [0u8; 64], 64, MSG_DONTWAIT, 0, 0) >= 0;
    let at: Vec<String> =
        group.iter().enumerate().filter(|(_, fd)| got(fd)).map(|(n, _)| n.to_string()).collect();
    at.join(",")
}

/// Who gets a connection.
fn whom(net: Net, group: &[i32], to: &Addr) -> String {
    let fd = tcp(net);
    must("connect", connect(fd, to));
    pause_ms(2);
    let mut at = Vec::new();
    for (n, listener) in group.iter().enumerate() {
        let got = accept(*listener);
        if got >= 0 {
            close(got as i32);
            at.push(n.to_string());
        }
    }
    close(fd);
    at.join(",")
}

fn of_datagrams(net: Net) {
    let header = if net == V6 { 40 } else { 20 };
    for n in 0..3 {
        let (all, at) = group(net, SOCK_DGRAM, 3, &always(n));
        say!("{n}: {} {}", who(net, &all, &at, b"x"), who(net, &all, &at, b"y"));
        all.into_iter().for_each(close);
    }
    let (mut all, at) = group(net, SOCK_DGRAM, 3, &[]);
    ret("later", attach(all[1], &always(2)));
    say!("{}", who(net, &all, &at, b"x"));
    ret("by byte", attach(all[2], &byte(0, 3)));
    for n in 0..3 {
        say!("{n} {}", who(net, &all, &at, &[n]));
    }
    // One of them, whoever.
    for n in [3u8, 7] {
        say!("{n} {}", who(net, &all, &at, &[n]).len());
    }
    ret("by length", attach(all[0], &[(0x80, 0, 0, 0), (0x16, 0, 0, 0)]));
    for n in 0..3 {
        say!("{n} {}", who(net, &all, &at, &b"xxxxx"[..n]));
    }
    ret("network", attach(all[0], &byte(NETWORK, 3)));
    say!("{}", who(net, &all, &at, b"x"));
    ret("destination", attach(all[0], &byte(NETWORK + header - 1, 3)));
    say!("{}", who(net, &all, &at, b"x"));
    ret("protocol", attach(all[0], &byte(NETWORK + if net == V6 { 6 } else { 9 }, 3)));
    say!("{}", who(net, &all, &at, b"x"));
    ret("beyond", attach(all[0], &[(0x30, 0, 0, 50), (0x06, 0, 0, 1)]));
    say!("{}", who(net, &all, &at, b"x"));
    // The last takes the place of who leaves.
    ret("second", attach(all[0], &always(1)));
    close(all.remove(1));
    say!("{}", who(net, &all, &at, b"x"));
    ret("first", attach(all[1], &always(0)));
    close(all.remove(0));
    say!("{}", who(net, &all, &at, b"x"));
    ret("detach", detach(all[0]));
    ret("detach", detach(all[0]));
    say!("{}", who(net, &all, &at, b"x"));
}

fn of_connections(net: Net) {
    for n in 0..3 {
        let (all, at) = group(net, SOCK_STREAM, 3, &always(n));
        say!("{n}: {} {}", whom(net, &all, &at), whom(net, &all, &at));
        all.into_iter().for_each(close);
    }
    let (mut all, at) = group(net, SOCK_STREAM, 3, &[]);
    ret("later", attach(all[1], &always(2)));
    say!("{}", whom(net, &all, &at));
    ret("length", attach(all[2], &[(0x80, 0, 0, 0), (0x16, 0, 0, 0)]));
    say!("{}", whom(net, &all, &at));
    ret("nothing", attach(all[0], &[(0x30, 0, 0, 0), (0x06, 0, 0, 1)]));
    say!("{}", whom(net, &all, &at));
    let header = if net == V6 { 40 } else { 20 };
    ret("destination", attach(all[0], &byte(NETWORK + header - 1, 3)));
    say!("{}", whom(net, &all, &at));
    ret("flags", attach(all[0], &byte(NETWORK + header + 13, 0xff)));
    say!("{}", whom(net, &all, &at));
    ret("none", attach(all[0], &always(3)));
    say!("{}", whom(net, &all, &at).len());
    ret("first", attach(all[1], &always(0)));
    close(all.remove(0));
    say!("{}", whom(net, &all, &at));
    // The order is that of listen.
    let (first, _) = bound(sharing(tcp(net)), net);
    let at = own(first);
    let second = sharing(tcp(net));
    must("bind", bind(second, &at));
    for fd in [second, first] {
        must("listen", listen(fd, 8));
        nonblocking(fd);
    }
    ret("first", attach(first, &always(0)));
    say!("{}", whom(net, &[first, second], &at));
}

pub const NETS: &[Case] = nets! {
    [v4 v6] "setsockopt/chosen_datagrams" "sendto recvfrom close" of_datagrams;
    [v4 v6] "setsockopt/chosen_connections" "connect accept4 close" of_connections;
};
pub const CASES: &[Case] = &[case("setsockopt/chosen_rules", "getsockopt", rules)];
