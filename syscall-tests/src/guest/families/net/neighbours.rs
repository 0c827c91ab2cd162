//! Neighbours by hand, on the loopback interface, where nobody is asked: rtnetlink, the ioctls of arp(7), /proc/net/arp.

use super::kit::*;
use super::netlink::{CREATE, EXCL, Message, address, ask, attribute, dump, message, netlink, receive};
use crate::case::{Case, case, in_child};
use crate::out::{must, ret};
use crate::{say, sys};
use libc::{AF_INET, AF_INET6, MSG_DONTWAIT};

const NEW: u16 = 28;
const DELETE: u16 = 29;
const GET: u16 = 30;
const REPLACE: u16 = 0x100;

const REACHABLE: u16 = 2;
const STALE: u16 = 4;
const FAILED: u16 = 0x20;
const PERMANENT: u16 = 0x80;

fn ip(last: u8) -> [u8; 16] {
    [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

/// A `struct ndmsg`.
fn head(family: i32, device: i32, state: u16, flags: u8) -> Vec<u8> {
    let mut b = vec![family as u8, 0, 0, 0];
    b.extend(device.to_ne_bytes());
    b.extend(state.to_ne_bytes());
    b.extend([flags, 0]);
    b
}

fn body(last: u8, mac: Option<u8>, state: u16, flags: u8) -> Vec<u8> {
    let mut b = head(AF_INET6, 1, state, flags);
    b.extend(attribute(1, &ip(last)));
    if let Some(mac) = mac {
        b.extend(attribute(2, &[2, 0, 0, 0, 0, mac]));
    }
    b
}

fn shown(m: &Message) -> String {
    if m.kind == 2 {
        return m.result();
    }
    let b = &m.body;
    format!(
        "kind {} family {} device {} state {:#x} flags {:#x} type {} address {:?} mac {:?} probes {:?} protocol {:?} info {:?}",
        m.kind,
        b[0],
        int_at(b, 4),
        u16::from_ne_bytes([b[8], b[9]]),
        b[10],
        b[11],
        m.find(12, 1).map(|a| a[a.len() - 1]),
        m.find(12, 2),
        m.find(12, 4),
        m.find(12, 12),
        m.find(12, 3).map(<[u8]>::len),
    )
}

fn list(fd: i32, family: i32, device: i32) {
    let mut b = head(family, 0, 0, 0);
    if device != 0 {
        b.extend(attribute(8, &device.to_ne_bytes()));
    }
    let mut lines: Vec<String> = dump(fd, GET, &b)
        .iter()
        // What Linux itself puts there for groups and the loopback address.
        .filter(|m| m.find(12, 1).is_some_and(|a| a.first() == Some(&0xfd)))
        .map(shown)
        .collect();
    lines.sort();
    say!("{} {lines:?}", lines.len());
}

fn get(fd: i32, last: u8) {
    let mut b = head(AF_INET6, 1, 0, 0);
    b.extend(attribute(1, &ip(last)));
    must("send", send(fd, &message(GET, 0, &b), 0));
    say!("{:?}", receive(fd, 0).first().map(shown));
}

fn by_hand() {
    let fd = netlink(0);
    list(fd, 0, 0);
    say!("add {}", ask(fd, NEW, CREATE | EXCL, &body(1, Some(1), PERMANENT, 0)));
    say!("again {}", ask(fd, NEW, CREATE | EXCL, &body(1, Some(1), PERMANENT, 0)));
    get(fd, 1);
    say!("a router {}", ask(fd, NEW, CREATE, &body(2, Some(2), STALE, 0x80)));
    let mut named = body(3, Some(3), REACHABLE, 0);
    named.extend(attribute(12, &[4]));
    say!("with a protocol {}", ask(fd, NEW, CREATE | REPLACE, &named));
    say!("unknown {}", ask(fd, NEW, 0, &body(4, Some(4), PERMANENT, 0)));
    say!("no address {}", ask(fd, NEW, CREATE, &body(4, None, PERMANENT, 0)));
    list(fd, 0, 0);
    list(fd, AF_INET6, 1);
    list(fd, AF_INET, 0);
    list(fd, AF_INET6, 77);
    say!("another address without leave {}", ask(fd, NEW, CREATE, &body(1, Some(9), STALE, 0)));
    get(fd, 1);
    say!("replaced {}", ask(fd, NEW, REPLACE, &body(1, Some(9), STALE, 0)));
    get(fd, 1);
    say!("the same address {}", ask(fd, NEW, 0, &body(1, None, PERMANENT, 0)));
    get(fd, 1);
    say!("failed {}", ask(fd, NEW, REPLACE, &body(2, None, FAILED, 0)));
    get(fd, 2);
    for last in 1..5 {
        say!("delete {}", ask(fd, DELETE, 0, &body(last, None, 0, 0)));
    }
    say!("again {}", ask(fd, DELETE, 0, &body(1, None, 0, 0)));
    get(fd, 1);
    list(fd, 0, 0);
}

fn errors() {
    let fd = netlink(0);
    for kind in [NEW, DELETE, GET] {
        say!("kind {kind}");
        say!("no destination {}", ask(fd, kind, CREATE, &head(AF_INET6, 1, PERMANENT, 0)));
        let mut b = head(AF_INET6, 0, 0, 0);
        b.extend(attribute(1, &ip(1)));
        say!("no device {}", ask(fd, kind, CREATE, &b));
        b[4] = 99;
        say!("unknown device {}", ask(fd, kind, CREATE, &b));
        b[4] = 1;
        b[0] = 77;
        say!("unknown family {}", ask(fd, kind, CREATE, &b));
        let mut b = head(AF_INET6, 1, 0, 0);
        b.extend(attribute(1, &[10, 0, 0, 1]));
        say!("short {}", ask(fd, kind, CREATE, &b));
        say!("no head {}", ask(fd, kind, CREATE, &[10, 0, 0, 0]));
    }
    let mut b = head(AF_INET6, 1, PERMANENT, 0);
    b.extend(attribute(1, &ip(1)));
    b.extend(attribute(2, &[1, 2, 3]));
    say!("short link address {}", ask(fd, NEW, CREATE, &b));
    in_child("user", || {
        must("setuid", sys!(setuid, 1000));
        let fd = netlink(0);
        for kind in [NEW, DELETE] {
            say!("{}", ask(fd, kind, CREATE, &body(1, Some(1), PERMANENT, 0)));
        }
        list(fd, 0, 0);
        0
    });
}

fn news() {
    let listener = netlink(0);
    must("bind", bind(listener, &address(0, 4)));
    let fd = netlink(0);
    say!("add {}", ask(fd, NEW, CREATE, &body(1, Some(1), PERMANENT, 0)));
    say!("delete {}", ask(fd, DELETE, 0, &body(1, None, 0, 0)));
    loop {
        let got = receive(listener, MSG_DONTWAIT);
        if got.is_empty() {
            return;
        }
        got.iter().for_each(|m| say!("{}", shown(m)));
    }
}

/// A `struct arpreq`.
fn request(ip: [u8; 4], mac: Option<u8>, flags: i32, device: &str) -> [u8; 68] {
    let mut r = [0u8; 68];
    r[..2].copy_from_slice(&(AF_INET as u16).to_ne_bytes());
    r[4..8].copy_from_slice(&ip);
    if let Some(mac) = mac {
        r[18..24].copy_from_slice(&[2, 0, 0, 0, 0, mac]);
    }
    r[32..36].copy_from_slice(&flags.to_ne_bytes());
    r[52..52 + device.len()].copy_from_slice(device.as_bytes());
    r
}

/// On loopback there is one entry for all of IPv4.
fn old_calls() {
    const REMOVE: u64 = 0x8953;
    const ASK: u64 = 0x8954;
    const SET: u64 = 0x8955;
    let fd = udp(V4);
    let any = [0; 4];
    let call = |label: &str, what: u64, r: &mut [u8; 68]| {
        ret(label, sys!(ioctl, fd, what, r.as_mut_ptr()));
    };
    let table = || say!("{:?}", std::fs::read_to_string("/proc/net/arp").unwrap_or_default().lines().nth(1));
    call("remove", REMOVE, &mut request(any, None, 0, "lo"));
    call("nothing", ASK, &mut request(any, None, 0, "lo"));
    call("set", SET, &mut request(any, Some(7), 6, "lo"));
    table();
    let mut r = request(any, None, 0, "lo");
    call("ask", ASK, &mut r);
    say!("{:?}", r);
    call("not for good", SET, &mut request(any, Some(8), 2, "lo"));
    table();
    call("other", ASK, &mut request([10, 1, 1, 1], None, 0, "lo"));
    call("no device", ASK, &mut request(any, None, 0, ""));
    call("unknown device", SET, &mut request(any, Some(7), 6, "nowhere"));
    let mut r = request(any, Some(7), 6, "lo");
    r[0] = AF_INET6 as u8;
    call("family", SET, &mut r);
    let mut r = request(any, Some(7), 6, "lo");
    r[16] = 1;
    call("hardware", SET, &mut r);
    call("mask", SET, &mut request(any, Some(7), 0x26, "lo"));
    call("remove", REMOVE, &mut request(any, None, 0, "lo"));
    call("again", REMOVE, &mut request(any, None, 0, "lo"));
    table();
    ret("IPv6", sys!(ioctl, udp(V6), ASK, request(any, None, 0, "lo").as_mut_ptr()));
    in_child("user", || {
        must("setuid", sys!(setuid, 1000));
        ret("set", sys!(ioctl, fd, SET, request(any, Some(7), 6, "lo").as_mut_ptr()));
        ret("ask", sys!(ioctl, fd, ASK, request(any, None, 0, "lo").as_mut_ptr()));
        0
    });
}

pub const CASES: &[Case] = &[
    case("sendto/netlink_neighbours", "recvfrom", by_hand),
    case("sendto/netlink_neighbour_errors", "recvfrom", errors),
    case("recvfrom/netlink_neighbour_news", "bind", news),
    case("ioctl/arp", "open", old_calls),
];
