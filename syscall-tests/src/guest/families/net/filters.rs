//! Filters of sockets (`SO_ATTACH_FILTER`): which programs there may be, what they see, what they keep.

use super::kit::*;
use crate::case::{Case, NOWHERE, case, pause_ms};
use crate::out::{must, number, ret};
use crate::{say, sys};
use libc::{
    AF_INET, AF_NETLINK, AF_UNIX, IPPROTO_ICMP, MSG_DONTWAIT, MSG_TRUNC, SO_ATTACH_FILTER, SO_DETACH_FILTER,
    SO_LOCK_FILTER, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET,
};

/// Code, jt, jf, k of each instruction.
type Program<'a> = &'a [(u16, u8, u8, u32)];

const RET: u16 = 0x06;
const RET_A: u16 = 0x16;
const LD_W: u16 = 0x20;
const LD_H: u16 = 0x28;
const LD_B: u16 = 0x30;
const JEQ: u16 = 0x15;
const ALL: u32 = u32::MAX;
const NETWORK: u32 = 0xfff0_0000;
const FACTS: u32 = 0xffff_f000;

fn raw(program: Program<'_>) -> Vec<[u8; 8]> {
    let one = |i: &(u16, u8, u8, u32)| {
        let mut raw = [0; 8];
        raw[..2].copy_from_slice(&i.0.to_ne_bytes());
        (raw[2], raw[3]) = (i.1, i.2);
        raw[4..].copy_from_slice(&i.3.to_ne_bytes());
        raw
    };
    program.iter().map(one).collect()
}

fn attach(fd: i32, program: Program<'_>) -> isize {
    let insns = raw(program);
    let head = [insns.len() as u64, insns.as_ptr() as u64];
    sys!(setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &head, 16)
}

/// Whether the byte at a place is this; then all is kept.
fn byte_is(at: u32, value: u32) -> [(u16, u8, u8, u32); 4] {
    [(LD_B, 0, 0, at), (JEQ, 0, 1, value), (RET, 0, 0, ALL), (RET, 0, 0, 0)]
}

fn programs() {
    let fd = udp(V4);
    let keep = (RET, 0, 0, ALL);
    let list: &[(&str, Program<'_>)] = &[
        ("none", &[]),
        ("keep", &[keep]),
        ("no return", &[(LD_W, 0, 0, 0)]),
        ("jump out", &[(JEQ, 1, 0, 0), keep]),
        ("halves", &[(LD_H, 0, 0, 1), keep]),
        ("indexed", &[(0x01, 0, 0, 4), (0x50, 0, 0, 0), (0x48, 0, 0, 0), (0x40, 0, 0, 0), keep]),
        ("header length", &[(0xb1, 0, 0, 0), keep]),
        ("modulo", &[(0x94, 0, 0, 3), (0x9c, 0, 0, 0), keep]),
        ("modulo 0", &[(0x94, 0, 0, 0), keep]),
        ("divided by 0", &[(0x34, 0, 0, 0), keep]),
        ("shift", &[(0x64, 0, 0, 32), keep]),
        ("network", &[(LD_W, 0, 0, NETWORK), keep]),
        ("protocol", &[(LD_H, 0, 0, FACTS), keep]),
        ("no fact", &[(LD_W, 0, 0, FACTS + 2), keep]),
        ("beyond facts", &[(LD_W, 0, 0, FACTS + 400), keep]),
        ("scratch", &[(0x02, 0, 0, 3), (0x60, 0, 0, 3), keep]),
        ("unwritten", &[(0x60, 0, 0, 3), keep]),
        ("no scratch", &[(0x02, 0, 0, 16), keep]),
        ("no code", &[(0x18, 0, 0, 0), keep]),
        ("wide", &[(0x38, 0, 0, 0), keep]),
    ];
    for (label, program) in list {
        say!("{label} {}", number(attach(fd, program)));
    }
    let insns = raw(&[keep]);
    let head = [1u64, insns.as_ptr() as u64, 0];
    ret("short", sys!(setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &head, 8));
    ret("long", sys!(setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &head, 24));
    ret("nowhere", sys!(setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &[1u64, NOWHERE as u64], 16));
    ret("null", sys!(setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &[1u64, 0], 16));
    ret("too many", sys!(setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &[4097u64, head[1]], 16));
}

fn read_back(fd: i32, room: i32) -> String {
    let mut out = [[0u8; 8]; 8];
    let mut len = room;
    let r = sys!(getsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &mut out, &mut len);
    format!("{} {len} {:?}", number(r), &out[..2])
}

fn rules() {
    let fd = udp(V4);
    ret("nothing to detach", set(fd, SOL_SOCKET, SO_DETACH_FILTER, 0));
    ret("short", sys!(setsockopt, fd, SOL_SOCKET, SO_DETACH_FILTER, &0u8, 1));
    say!("{}", read_back(fd, 8));
    ret("attach", attach(fd, &byte_is(0, 7)));
    ret("another", attach(fd, &[(LD_B, 0, 0, 9), (RET_A, 0, 0, 0)]));
    for room in [0, 1, 2, 8] {
        say!("{}", read_back(fd, room));
    }
    say!("locked {}", get(fd, SOL_SOCKET, SO_LOCK_FILTER));
    ret("unlock", set(fd, SOL_SOCKET, SO_LOCK_FILTER, 0));
    ret("lock", set(fd, SOL_SOCKET, SO_LOCK_FILTER, 5));
    say!("locked {}", get(fd, SOL_SOCKET, SO_LOCK_FILTER));
    ret("unlock", set(fd, SOL_SOCKET, SO_LOCK_FILTER, 0));
    ret("attach", attach(fd, &[(RET, 0, 0, 1)]));
    ret("detach", set(fd, SOL_SOCKET, SO_DETACH_FILTER, 0));
    let other = udp(V6);
    ret("attach", attach(other, &[(RET, 0, 0, 1)]));
    ret("detach", set(other, SOL_SOCKET, SO_DETACH_FILTER, 0));
    ret("detach", set(other, SOL_SOCKET, SO_DETACH_FILTER, 0));
    ret("lock", set(other, SOL_SOCKET, SO_LOCK_FILTER, 1));
    ret("detach", set(other, SOL_SOCKET, SO_DETACH_FILTER, 0));
}

/// What comes of a datagram.
fn try_one(label: &str, from: i32, to: i32, data: &[u8], program: Program<'_>) {
    must("attach", attach(to, program));
    let sent = number(send(from, data, 0));
    pause_ms(5);
    say!("{label} {sent} {}", recv(to, 64, MSG_DONTWAIT | MSG_TRUNC));
}

fn of_udp(net: Net) {
    let (a, b) = datagrams(net);
    let header = if net == V6 { 40 } else { 20 };
    let try_one = |label: &str, program: Program<'_>| try_one(label, a, b, b"abcdef", program);
    try_one("nothing", &[(RET, 0, 0, 0)]);
    try_one("all", &[(RET, 0, 0, ALL)]);
    try_one("header", &[(RET, 0, 0, 1)]);
    try_one("three", &[(RET, 0, 0, 11)]);
    try_one("length", &[(0x80, 0, 0, 0), (JEQ, 0, 1, 14), (RET, 0, 0, ALL), (RET, 0, 0, 0)]);
    try_one("length in the header", &byte_is(5, 14));
    try_one("first byte", &byte_is(8, u32::from(b'a')));
    try_one("another byte", &byte_is(8, u32::from(b'b')));
    try_one("beyond", &[(LD_B, 0, 0, 14), (RET, 0, 0, ALL)]);
    try_one("version", &byte_is(NETWORK, if net == V6 { 0x60 } else { 0x45 }));
    try_one("protocol", &byte_is(NETWORK + if net == V6 { 6 } else { 9 }, 17));
    try_one("destination", &byte_is(NETWORK + header - 1, 1));
    try_one("data from the network header", &byte_is(NETWORK + header + 8, u32::from(b'a')));
    try_one("header length", &[(0xb1, 0, 0, 8), (0x87, 0, 0, 0), (RET_A, 0, 0, 0)]);
    let fact = |which: u32, value: u32| {
        [(LD_W, 0, 0, FACTS + which), (JEQ, 0, 1, value), (RET, 0, 0, ALL), (RET, 0, 0, 0)]
    };
    try_one("ethertype", &fact(0, if net == V6 { 0x86dd } else { 0x0800 }));
    try_one("for this host", &fact(4, 0));
    try_one("interface", &fact(8, 1));
    try_one("loopback", &fact(28, 772));
    try_one("no tag", &fact(48, 0));
    let xor = [(0x00, 0, 0, 6), (0x01, 0, 0, 5), (LD_W, 0, 0, FACTS + 40), (JEQ, 0, 1, 3), (RET, 0, 0, ALL)];
    try_one("xor", &[&xor[..], &[(RET, 0, 0, 0)]].concat());
    try_one("divided by nothing", &[(0x00, 0, 0, 6), (0x3c, 0, 0, 0), (RET, 0, 0, ALL)]);
    ret("detach", set(b, SOL_SOCKET, SO_DETACH_FILTER, 0));
    send(a, b"last", 0);
    readable(b);
    say!("{}", recv(b, 64, 0));
}

fn of_unix() {
    for (label, kind) in [("datagram", SOCK_DGRAM), ("packets", SOCK_SEQPACKET), ("stream", SOCK_STREAM)] {
        let (a, b) = pair(kind);
        let try_one =
            |what: &str, program: Program<'_>| try_one(&format!("{label} {what}"), a, b, b"abcdef", program);
        try_one("nothing", &[(RET, 0, 0, 0)]);
        try_one("three", &[(RET, 0, 0, 3)]);
        try_one("first", &byte_is(0, u32::from(b'a')));
        try_one("other", &byte_is(0, u32::from(b'b')));
        ret("detach", set(b, SOL_SOCKET, SO_DETACH_FILTER, 0));
    }
    let (a, b) = pair(SOCK_DGRAM);
    must("attach", attach(b, &[(RET, 0, 0, 5)]));
    ret("empty", send(a, b"", 0));
    say!("{}", recv(b, 64, MSG_DONTWAIT));
    let listener = socket(AF_UNIX, SOCK_STREAM, 0);
    ret("fresh", attach(listener, &[(RET, 0, 0, 5)]));
}

fn of_raw() {
    let fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    let to = V4.loopback(0);
    // An echo request with its checksum.
    let request = [8u8, 0, 0xe5, 0xc9, 0x12, 0x34, 0, 1, 0, 1];
    for (label, program) in [
        ("requests", &byte_is(20, 8)[..]),
        ("answers", &byte_is(20, 0)),
        ("none", &byte_is(20, 77)),
        ("the header", &[(RET, 0, 0, 20)]),
        (
            "by its length",
            &[(0xb1, 0, 0, 0), (0x50, 0, 0, 0), (JEQ, 0, 1, 0), (RET, 0, 0, ALL), (RET, 0, 0, 0)],
        ),
    ] {
        must("attach", attach(fd, program));
        ret(label, send_to(fd, &request, &to));
        pause_ms(5);
        loop {
            let mut b = [0u8; 64];
            let n = sys!(recvfrom, fd, &mut b, 64, MSG_DONTWAIT, 0, 0);
            say!("{} type {}", number(n), if n > 20 { b[20].to_string() } else { "-".into() });
            if n < 0 {
                break;
            }
        }
    }
}

fn of_netlink() {
    let fd = socket(AF_NETLINK, SOCK_RAW, 0);
    // RTM_GETLINK of interface 1.
    let mut request = vec![32u8, 0, 0, 0, 18, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    request.extend([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let kind = |kind: u8| [(LD_B, 0, 0, 4), (JEQ, 0, 1, kind.into()), (RET, 0, 0, ALL), (RET, 0, 0, 0)];
    for (label, program) in [
        ("links", &kind(16)[..]),
        ("addresses", &kind(20)),
        ("all", &[(RET, 0, 0, ALL)]),
        ("the header", &[(RET, 0, 0, 16)]),
    ] {
        must("attach", attach(fd, program));
        ret(label, send(fd, &request, 0));
        let mut b = [0u8; 4096];
        let n = sys!(recvfrom, fd, &mut b, 4096, MSG_DONTWAIT, 0, 0);
        say!("{}", if n > 100 { "much".into() } else { number(n) });
    }
}

pub const CASES: &[Case] = &[
    case("setsockopt/filter_programs", "", programs),
    case("setsockopt/filter_rules", "getsockopt", rules),
    case("setsockopt/filter_udp_v4", "sendto recvfrom", || of_udp(V4)),
    case("setsockopt/filter_udp_v6", "sendto recvfrom", || of_udp(V6)),
    case("setsockopt/filter_unix", "sendto recvfrom", of_unix),
    case("setsockopt/filter_raw", "sendto recvfrom", of_raw),
    case("setsockopt/filter_netlink", "sendto recvfrom", of_netlink),
];
