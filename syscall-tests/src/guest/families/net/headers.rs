//! What stands beside the header of IP: options of IPv4, extension headers of IPv6, headers that a program makes itself, flow labels.

use super::kit::*;
use crate::case::{Case, case, in_child, pause_ms};
use crate::out::{must, number, ret};
use crate::{say, sys};
use libc::{
    AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_RAW, MSG_DONTWAIT,
    MSG_ERRQUEUE, SOCK_RAW,
};

const HOPOPTS: i32 = 54;
const RTHDRDSTOPTS: i32 = 55;
const RTHDR: i32 = 57;
const DSTOPTS: i32 = 59;
const AUTOFLOWLABEL: i32 = 70;
/// `IPV6_RECVHOPOPTS`, `IPV6_RECVRTHDR`, `IPV6_RECVDSTOPTS`
const TELL: [i32; 3] = [53, 56, 58];
/// `IPV6_2292PKTINFO`, `IPV6_2292HOPOPTS`, `IPV6_2292DSTOPTS`, `IPV6_2292RTHDR`, `IPV6_2292HOPLIMIT`
const OLD: [i32; 5] = [2, 3, 4, 5, 8];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|d| d[0] << 4 | d.get(1).unwrap_or(&0)).collect()
}

/// What arrived with its control messages.
fn arrived(fd: i32) -> String {
    pause_ms(2);
    let got = recv_msg(fd, 3000, 512, MSG_DONTWAIT);
    let all: Vec<String> = got.control.iter().map(|(l, k, d)| format!("{l}/{k} {}", hex(d))).collect();
    format!("{} {}", got.words(), all.join(" | "))
}

/// What waits in the queue of errors.
fn report(fd: i32) -> String {
    let got = recv_msg(fd, 100, 256, MSG_ERRQUEUE);
    let r = got.find(IPPROTO_IPV6, 25).unwrap_or_default();
    match r.get(..44) {
        Some(r) => format!("{} {} offender {}", got.words(), hex(&r[..16]), hex(&r[24..40])),
        None => got.words(),
    }
}

fn shown(fd: i32, name: i32) -> String {
    get_bytes(fd, IPPROTO_IPV6, name, 100).map_or_else(number, |b| hex(&b[..b.len().min(32)]))
}

const PADDING: &str = "0000010400000000";

/// A receiver that is told of all headers, its address, and a sender.
fn told(names: &[i32]) -> (i32, Addr, i32) {
    let (a, at) = bound(udp(V6), V6);
    for name in names {
        must("option", set(a, IPPROTO_IPV6, *name, 1));
    }
    let b = udp(V6);
    must("errors", set(b, IPPROTO_IPV6, 25, 1));
    (a, at, b)
}

fn sticky_headers() {
    let (a, at, b) = told(&TELL);
    for (label, name) in [("hop", HOPOPTS), ("dst", DSTOPTS), ("before", RTHDRDSTOPTS), ("routing", RTHDR)] {
        say!("{label} {}", shown(b, name));
        for value in [PADDING, "00", "00000000000000", "000000000000000000", "0001000000000000"] {
            let r = set_bytes(b, IPPROTO_IPV6, name, &bytes(value));
            say!("{label} {value} {} {}", number(r), shown(b, name));
        }
        ret("longer than it says", set_bytes(b, IPPROTO_IPV6, name, &[0; 16]));
        say!("{}", shown(b, name));
        ret("too long", set_bytes(b, IPPROTO_IPV6, name, &[0; 2048]));
        ret("send", send_to(b, b"x", &at));
        say!("{}", arrived(a));
    }
    ret("none", set_bytes(b, IPPROTO_IPV6, HOPOPTS, &[]));
    must("padding", set_bytes(b, IPPROTO_IPV6, DSTOPTS, &bytes(PADDING)));
    say!("{} {}", shown(b, HOPOPTS), shown(b, RTHDRDSTOPTS));
    ret("send", send_to(b, b"x", &at));
    say!("{}", arrived(a));
    must("connect", connect(b, &at));
    must("tell", send(b, b"connected", 0));
    say!("{}", arrived(a));
    for value in [
        "000202010000000000000000000000000000000000000001",
        "000200010000000000000000000000000000000000000001",
        "000204000000000000000000000000000000000000000001",
        "000204010000000000000000000000000000000000000001",
        "000204000100000000000000000000000000000000000001",
        "0004040101000000000000000000000000000000000000010000000000000000000000000000000000000001",
        "0003040000000000000000000000000000000000000000010104000000000000",
        "0003040000000000000000000000000000000000000000010105000000000000",
    ] {
        let r = set_bytes(b, IPPROTO_IPV6, RTHDR, &bytes(value));
        say!("routing {value} {} {}", number(r), shown(b, RTHDR));
        if r == 0 {
            ret("send", send_to(b, b"routed", &at));
            say!("{} {}", arrived(a), report(b));
        }
    }
    ret("of tcp", set_bytes(tcp(V6), IPPROTO_IPV6, HOPOPTS, &bytes(PADDING)));
    ret("of v4", set_bytes(udp(V4), IPPROTO_IPV6, HOPOPTS, &bytes(PADDING)));
    in_child("user", || {
        must("setuid", sys!(setuid, 1000));
        for name in [HOPOPTS, RTHDRDSTOPTS, DSTOPTS, RTHDR] {
            say!("{name} {}", number(set_bytes(b, IPPROTO_IPV6, name, &bytes(PADDING))));
            let message = (IPPROTO_IPV6, name, bytes(PADDING));
            say!("{}", number(send_msg(b, b"x", Some(&at), &[message], 0)));
        }
        0
    });
}

fn header_messages() {
    let (a, at, b) = told(&TELL);
    let go = |list: &[(i32, &str)]| {
        let list: Vec<Control> = list.iter().map(|(k, v)| (IPPROTO_IPV6, *k, bytes(v))).collect();
        let r = send_msg(b, b"x", Some(&at), &list, 0);
        format!("{} {}", number(r), arrived(a))
    };
    for name in [HOPOPTS, RTHDRDSTOPTS, RTHDR, DSTOPTS, 3, 4, 5] {
        for value in ["", "00", "0000", "00000000000000", "0000000000000000", PADDING] {
            say!("{name} {value} {}", go(&[(name, value)]));
        }
        say!("{name} two {}", go(&[(name, "0000000000000000ffffffffffffffff")]));
        say!("{name} cut {}", go(&[(name, "00010000000000000000000000000000")]));
    }
    say!("two hops {}", go(&[(HOPOPTS, PADDING), (3, PADDING)]));
    say!("two dsts {}", go(&[(DSTOPTS, PADDING), (DSTOPTS, "0000030400000000")]));
    say!("two old dsts {}", go(&[(4, PADDING), (4, PADDING)]));
    say!("both {}", go(&[(DSTOPTS, PADDING), (HOPOPTS, PADDING)]));
    must("sticky", set_bytes(b, IPPROTO_IPV6, DSTOPTS, &bytes(PADDING)));
    say!("in place of the sticky {}", go(&[(HOPOPTS, PADDING)]));
    say!("with the sticky {}", go(&[(libc::IPV6_TCLASS, "04000000")]));
    let (c, ct) = bound(udp(V4), V4);
    let list = [(IPPROTO_IPV6, HOPOPTS, bytes(PADDING))];
    ret("mapped", send_msg(b, b"mapped", Some(&Mapped.loopback(ct.port())), &list, 0));
    say!("{}", recv(c, 16, 0));
    ret("v4", send_msg(udp(V4), b"v4", Some(&ct), &list, 0));
    say!("{}", recv(c, 16, 0));
}

fn unknown_options() {
    let (a, at, b) = told(&TELL);
    for value in [
        "0000c30400000000",
        "0000830400000000",
        "0000430400000000",
        "0000030400000000",
        "0000010401000000",
        "00010000000000000000000000000000",
        "0000050200000100",
        "0000050300000000",
        "0000030003000300",
        "000203000300030003000300030003000300030003000300",
        "0000010500000000",
        "0000c20400010000",
        "0000c20400000100",
        "0000c90400000000",
    ] {
        for name in [HOPOPTS, DSTOPTS] {
            let message = (IPPROTO_IPV6, name, bytes(value));
            let r = send_msg(b, b"data", Some(&at), &[message], 0);
            say!("{name} {value} {} {} {}", number(r), arrived(a), report(b));
        }
    }
    // Without a queue of errors it is the next call that is told, of a connected socket.
    must("off", set(b, IPPROTO_IPV6, 25, 0));
    let bad = (IPPROTO_IPV6, DSTOPTS, bytes("0000830400000000"));
    ret("not connected", send_msg(b, b"x", Some(&at), std::slice::from_ref(&bad), 0));
    say!("{}", recv(b, 8, MSG_DONTWAIT));
    must("connect", connect(b, &at));
    ret("connected", send_msg(b, b"x", None, &[bad], 0));
    pause_ms(2);
    say!("{} {}", poll(b), recv(b, 8, MSG_DONTWAIT));
    let raw = socket(AF_INET6, SOCK_RAW, 200);
    must("errors", set(raw, IPPROTO_IPV6, 25, 1));
    must("tell", set(raw, IPPROTO_IPV6, 58, 1));
    let message = (IPPROTO_IPV6, DSTOPTS, bytes(PADDING));
    ret("raw", send_msg(raw, b"raw", Some(&V6.loopback(0)), &[message], 0));
    say!("{}", arrived(raw));
    for data in [&b"raw"[..], b"eight or more"] {
        let message = (IPPROTO_IPV6, DSTOPTS, bytes("0000830400000000"));
        ret("raw", send_msg(raw, data, Some(&V6.loopback(0)), &[message], 0));
        say!("{} {}", arrived(raw), report(raw));
    }
}

fn older_names() {
    let (a, at, b) = told(&OLD);
    for name in OLD {
        say!("{name} {}", turn(udp(V6), IPPROTO_IPV6, name, 7));
    }
    let list = [
        (IPPROTO_IPV6, 3, bytes(PADDING)),
        (IPPROTO_IPV6, 4, bytes(PADDING)),
        (IPPROTO_IPV6, 8, 33i32.to_ne_bytes().to_vec()),
        (IPPROTO_IPV6, 2, [&LOOPBACK6[..], &1i32.to_ne_bytes()].concat()),
    ];
    ret("send", send_msg(b, b"old", Some(&at), &list, 0));
    say!("{}", arrived(a));
    ret("long", send_msg(b, b"x", Some(&at), &[(IPPROTO_IPV6, 8, vec![0; 3])], 0));
}

/// Packets that a program makes with their header of IPv6.
fn own_header6() {
    let (a, at) = bound(udp(V6), V6);
    for name in [53, 56, 58, 2, 3, 4, 5, 8, 11, 77] {
        must("option", set(a, IPPROTO_IPV6, name, 1));
    }
    let icmp = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    let raw = socket(AF_INET6, SOCK_RAW, IPPROTO_RAW);
    say!("{} {}", get(raw, IPPROTO_IPV6, 36), turn(raw, IPPROTO_IPV6, 36, 2));
    let other = socket(AF_INET6, SOCK_RAW, 17);
    say!("{} {}", get(other, IPPROTO_IPV6, 36), turn(other, IPPROTO_IPV6, 36, 2));
    let datagram = udp_message(at.port(), b"hi");
    let packet = |first: u8, chain: &str, payload: &[u8], flow: u32| {
        let rest = [&bytes(chain)[..], payload].concat();
        let mut p = (6 << 28 | flow).to_be_bytes().to_vec();
        p.extend((rest.len() as u16).to_be_bytes());
        p.extend([first, 64]);
        p.extend([LOOPBACK6, LOOPBACK6].concat());
        p.extend(rest);
        p
    };
    let go = |label: &str, packet: &[u8]| {
        let r = send_to(raw, packet, &V6.loopback(0));
        say!("{label}: {} {}", number(r), arrived(a));
        loop {
            let got = recv_msg(icmp, 100, 0, MSG_DONTWAIT);
            let Some(head) = got.data.get(..16) else { break };
            say!("icmp {} {} {}", hex(&head[..2]), hex(&head[4..8]), hex(&head[8..16]));
        }
    };
    go("plain", &packet(17, "", &datagram, 0x12345 | 0x1c << 20));
    go("39 bytes", &[0; 39]);
    go("nothing next", &packet(59, "", b"", 0));
    const DST: &str = "1100010400000000";
    go("dst", &packet(60, DST, &datagram, 0));
    go("hop", &packet(0, DST, &datagram, 0));
    go("hop behind dst", &packet(60, &format!("0000010400000000{DST}"), &datagram, 0));
    go("two dst", &packet(60, &format!("3c00010400000000{DST}"), &datagram, 0));
    let all = format!("3c000104000000002b000104000000003c00090000000000{DST}");
    go("all", &packet(0, &all, &datagram, 0));
    for (kind, left, units) in
        [(0, 0, 0), (0, 1, 2), (2, 0, 2), (2, 1, 2), (3, 0, 0), (4, 0, 2), (4, 1, 2), (9, 0, 0), (9, 1, 0)]
    {
        let mut chain = format!("11{units:02x}{kind:02x}{left:02x}00000000");
        chain.push_str(&"00".repeat(8 * units));
        go(&format!("routing {kind} {left} {units}"), &packet(43, &chain, &datagram, 0));
    }
    go("cut short", &packet(0, "1109000000000000", b"", 0));
    for kind in ["c3", "83", "43", "03", "c9"] {
        let chain = format!("1100{kind}0400000000");
        go(&format!("dst {kind}"), &packet(60, &chain, &datagram, 0));
        go(&format!("hop {kind}"), &packet(0, &chain, &datagram, 0));
    }
    go("a piece that is all", &packet(44, "1100000000000001", &datagram, 0));
    go("unknown next", &packet(200, "", &datagram, 0));
    let plain = packet(17, "", &datagram, 0);
    go("shorter than it says", &plain[..plain.len() - 1]);
    go("longer than it says", &[&plain[..], b"zz"].concat());
    go("version 4", &[&[0x40], &plain[1..]].concat());
    go("many", &packet(60, &format!("{}{DST}", "3c00010400000000".repeat(9)), &datagram, 0));
    must("errors", set(raw, IPPROTO_IPV6, 25, 1));
    go("too long", &vec![0x60; 65_537]);
    say!("{}", report(raw));
    in_child("alert", || {
        for v in [1, 1, -1, -1, 0] {
            say!("{v} {}", number(set(raw, IPPROTO_IPV6, 22, v)));
        }
        say!("{} {}", get(raw, IPPROTO_IPV6, 22), number(set(other, IPPROTO_IPV6, 22, 1)));
        0
    });
}

/// A message of UDP to the loopback address of IPv6, with its checksum.
fn udp_message(port: u16, data: &[u8]) -> Vec<u8> {
    let length = 8 + data.len() as u16;
    let mut m = 4444u16.to_be_bytes().to_vec();
    m.extend([port.to_be_bytes(), length.to_be_bytes(), [0; 2]].concat());
    m.extend(data);
    let pseudo = [&LOOPBACK6[..], &LOOPBACK6, &u32::from(length).to_be_bytes(), &[0, 0, 0, 17], &m].concat();
    let sum = sum_of(&pseudo);
    m[6..8].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
    m
}

fn sum_of(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Options of a header of IPv4 in words: times differ from run to run.
fn without_times(options: &[u8]) -> String {
    let mut shown = options.to_vec();
    let mut at = 0;
    while at + 1 < shown.len() && shown[at] != 0 {
        let length = if shown[at] == 1 { 1 } else { usize::from(shown[at + 1]).max(1) };
        if shown[at] == 68 && length >= 4 && at + length <= shown.len() {
            let pairs = matches!(shown[at + 3] & 15, 1 | 3);
            let (step, skip) = if pairs { (8, 4) } else { (4, 0) };
            for place in (at + 4..at + length).step_by(step) {
                if let Some(time) = shown.get_mut(place + skip..place + skip + 4)
                    && *time != [0; 4]
                {
                    time.fill(0xee);
                }
            }
        }
        at += length;
    }
    hex(&shown)
}

fn ip_options() {
    let (a, at) = bound(udp(V4), V4);
    for name in [6, 7] {
        must("option", set(a, IPPROTO_IP, name, 1));
    }
    let arrived = || {
        pause_ms(2);
        let got = recv_msg(a, 100, 512, MSG_DONTWAIT);
        let all: Vec<String> =
            got.control.iter().map(|(l, k, d)| format!("{l}/{k} {}", without_times(d))).collect();
        format!("{} {}", got.words(), all.join(" | "))
    };
    let go = |value: &str| {
        let b = udp(V4);
        let value = bytes(value);
        let r = set_bytes(b, IPPROTO_IP, libc::IP_OPTIONS, &value);
        say!("{} {}", hex(&value), number(r));
        if r == 0 {
            say!("{}", get_bytes(b, IPPROTO_IP, libc::IP_OPTIONS, 100).map_or_else(number, |b| hex(&b)));
            ret("send", send_to(b, b"x", &at));
            say!("{}", arrived());
        }
        let message = (IPPROTO_IP, 7, value);
        ret("as a message", send_msg(udp(V4), b"y", Some(&at), &[message], 0));
        say!("{}", arrived());
        crate::case::close(b);
    };
    for value in [
        "",
        "01",
        "00",
        "0100090909",
        "070b040000000000000000000000",
        "070304",
        "0707040000000000",
        "070f0400000000000000000000000000",
        "070f0801020304000000000000000000",
        "070f10010203040102030401020304",
        "4408050000000000",
        "440c05000000000000000000",
        "440c05010000000000000000",
        "4414050100000000000000000000000000000000",
        "440c05037f00000100000000",
        "440c05030808080800000000",
        "4404050f",
        "440405f0",
        "44080ff000000000",
        "94040000",
        "94040001",
        "9403000000",
        "8307047f000001",
        "8307040a000001",
        "830b047f0000017f000002",
        "8907047f000001",
        "830704",
        "c8040000",
        "820b000000000000000000",
        "07030407030400",
        "0702",
        "ff",
        "07ff",
        "0709040000",
    ] {
        go(value);
    }
    go(&"01".repeat(40));
    ret("41 bytes", set_bytes(udp(V4), IPPROTO_IP, libc::IP_OPTIONS, &[1; 41]));
    let b = udp(V4);
    must("set", set_bytes(b, IPPROTO_IP, libc::IP_OPTIONS, &bytes("070b040000000000000000")));
    must("connect", connect(b, &at));
    say!("mtu {}", get(b, IPPROTO_IP, libc::IP_MTU));
    must("send", send(b, b"connected", 0));
    say!("{}", arrived());
    ret("away", set_bytes(b, IPPROTO_IP, libc::IP_OPTIONS, &[]));
    must("send", send(b, b"none", 0));
    say!("{}", arrived());
    must("room", set_bytes(b, IPPROTO_IP, libc::IP_OPTIONS, &[1; 40]));
    ret("longest", send(b, &vec![0; 65_535 - 28 - 40], 0));
    ret("too long", send(b, &vec![0; 65_535 - 27 - 40], 0));
    in_child("user", || {
        must("setuid", sys!(setuid, 1000));
        go("c8040000");
        go("4408050200000000");
        go("070b040000000000000000");
        0
    });
}

/// Routes that pings record, there and back.
fn recorded_pings() {
    let fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    must(
        "set",
        set_bytes(fd, IPPROTO_IP, libc::IP_OPTIONS, &bytes("0717040000000000000000000000000000000000000000")),
    );
    let mut m = vec![8, 0, 0, 0, 0, 1, 0, 1];
    let sum = sum_of(&m).to_be_bytes();
    m[2..4].copy_from_slice(&sum);
    ret("send", send_to(fd, &m, &V4.loopback(0)));
    for _ in 0..2 {
        readable(fd);
        let got = recv_msg(fd, 200, 0, 0);
        let d = &got.data;
        say!("{:x} {} {}", d[0], hex(&d[20..44]), hex(&d[44..]));
    }
}

fn flow_labels() {
    const FLOWINFO: i32 = 11;
    const SEND: i32 = 33;
    let (a, at, b) = told(&[FLOWINFO, libc::IPV6_RECVTCLASS]);
    // One is made that all datagrams of a flow have.
    let made = |bind_to: &Addr| {
        must("send", send_to(b, b"x", bind_to));
        let got = recv_msg(a, 16, 256, 0);
        got.find(IPPROTO_IPV6, FLOWINFO).map(<[u8]>::to_vec)
    };
    let first = made(&at);
    say!("made {} {}", first.is_some(), made(&at) == first);
    say!("{}", turn(b, IPPROTO_IPV6, AUTOFLOWLABEL, 0));
    say!("not made {:?}", made(&at));
    must("no label by itself", set(b, IPPROTO_IPV6, AUTOFLOWLABEL, 0));
    say!("{} {}", turn(b, IPPROTO_IPV6, SEND, 0), turn(udp(V6), IPPROTO_IPV6, FLOWINFO, 4));
    let mut labelled = at;
    labelled.raw[4..8].copy_from_slice(&0x0001_2345u32.to_be_bytes());
    must("send", send_to(b, b"x", &labelled));
    say!("without {}", arrived(a));
    say!("{}", turn(b, IPPROTO_IPV6, SEND, 3));
    must("send", send_to(b, b"x", &labelled));
    say!("with {}", arrived(a));
    must("class", set(b, IPPROTO_IPV6, libc::IPV6_TCLASS, 0x24));
    must("send", send_to(b, b"x", &labelled));
    say!("class {}", arrived(a));
    must("send", send_to(b, b"x", &at));
    say!("only the class {}", arrived(a));
    let message = |v: &str| [(IPPROTO_IPV6, FLOWINFO, bytes(v))];
    for (label, v) in
        [("message", "00054321"), ("with a class", "0ff54321"), ("short", "000543"), ("long", "0005432100")]
    {
        ret(label, send_msg(b, b"x", Some(&at), &message(v), 0));
        say!("{}", arrived(a));
    }
    must("connect", connect(b, &labelled));
    must("send", send(b, b"x", 0));
    say!("connected {}", arrived(a));
    say!("{} {}", peer(b), recv_from(a, 1, MSG_DONTWAIT).0);
}

fn preferences() {
    let fd = udp(V6);
    say!("{}", get(fd, IPPROTO_IPV6, 72));
    for v in [1, 2, 4, 8, 0x100, 0x400, 0x800, 3, 0x404, 0x808, 0x101, 5, 0x500, 0x402, 0, 0x1000] {
        say!("{}", turn(fd, IPPROTO_IPV6, 72, v));
    }
    ret("short", set_bytes(fd, IPPROTO_IPV6, 72, &[1, 0]));
    say!("{} {}", turn(tcp(V6), IPPROTO_IPV6, 72, 1), turn(udp(V4), IPPROTO_IPV6, 72, 1));
    for (label, fd, level) in [("v4", udp(V4), IPPROTO_IP), ("tcp", tcp(V4), IPPROTO_IP)] {
        for (name, option) in [("checksum", 23), ("rfc4884", 26)] {
            let all: Vec<String> = [1, 0, 2, -1].iter().map(|v| turn(fd, level, option, *v)).collect();
            say!("{label} {name} {}", all.join(" | "));
        }
    }
    for (label, fd) in [("v6", udp(V6)), ("tcp6", tcp(V6))] {
        let all: Vec<String> = [1, 0, 2, -1].iter().map(|v| turn(fd, IPPROTO_IPV6, 31, *v)).collect();
        say!("{label} {}", all.join(" | "));
        say!("{label} {} {}", turn(fd, IPPROTO_IPV6, 22, 1), turn(fd, IPPROTO_IPV6, 36, 1));
    }
}

/// Without a router on the way: on loopback that is everything there is a route to.
fn without_routers() {
    let (a, at) = bound(udp(V4), V4);
    let b = udp(V4);
    let go = |fd: i32, to: &Addr| sys!(sendto, fd, b"x", 1, libc::MSG_DONTROUTE, &to.raw, to.len);
    ret("here", go(b, &at));
    say!("{}", recv(a, 4, 0));
    ret("nowhere", go(b, &V4.nowhere(9)));
    must("option", set(b, libc::SOL_SOCKET, libc::SO_DONTROUTE, 1));
    ret("here", send_to(b, b"y", &at));
    say!("{}", recv(a, 4, 0));
    ret("connect", connect(b, &at));
    ret("connect nowhere", connect(b, &V4.nowhere(9)));
    ret("v6", go(udp(V6), &V6.loopback(9)));
}

/// Groups of IPv6 by the loopback interface: there is no route to them.
fn groups_on_loopback() {
    let all_nodes = |first: u8| {
        let mut ip = [0u8; 16];
        (ip[0], ip[1], ip[15]) = (0xff, first, 1);
        ip
    };
    for scope in [1u8, 2, 5, 0xe] {
        let a = udp(V6);
        must("bind", bind(a, &V6.any(0)));
        let join = [&all_nodes(scope)[..], &LO.to_ne_bytes()].concat();
        ret(format!("join ff0{scope:x}"), set_bytes(a, IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &join));
        let port = own(a).port();
        for (label, index) in [("plain", 0), ("with a scope", LO as u32)] {
            let to = Addr::v6(all_nodes(scope), port, index);
            let fd = udp(V6);
            say!("{label} {}", number(send_to(fd, b"x", &to)));
            let fd = udp(V6);
            must("bind", bind(fd, &V6.loopback(0)));
            say!("{label} bound {} {}", number(send_to(fd, b"x", &to)), number(connect(fd, &to)));
            let fd = udp(V6);
            must("interface", set(fd, IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, LO));
            say!("{label} interface {} {}", number(send_to(fd, b"x", &to)), number(connect(fd, &to)));
            let fd = udp(V6);
            must("interface", set(fd, IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, LO));
            must("bind", bind(fd, &V6.loopback(0)));
            say!("{label} both {}", number(send_to(fd, b"x", &to)));
            let fd = udp(V6);
            must("device", set_bytes(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo"));
            say!("{label} device {} {}", number(send_to(fd, b"x", &to)), number(connect(fd, &to)));
            let info = [&LOOPBACK6[..], &LO.to_ne_bytes()].concat();
            let message = (IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            say!("{label} message {}", number(send_msg(udp(V6), b"x", Some(&to), &[message], 0)));
        }
        pause_ms(5);
        say!("{}", recv(a, 16, MSG_DONTWAIT));
    }
}

pub const CASES: &[Case] = &[
    case("setsockopt/headers_sticky", "sendto recvmsg setuid", sticky_headers),
    case("sendmsg/headers", "recvmsg", header_messages),
    case("sendmsg/headers_unknown", "recvmsg poll", unknown_options),
    case("recvmsg/headers_older", "sendmsg", older_names),
    case("sendto/raw_own_header6", "recvmsg", own_header6),
    case("setsockopt/ip_options", "sendmsg recvmsg", ip_options),
    case("recvmsg/ip_options_recorded", "sendto", recorded_pings),
    case("setsockopt/flow_labels", "sendto connect recvmsg", flow_labels),
    case("setsockopt/preferences", "getsockopt", preferences),
    case("sendto/dontroute", "connect", without_routers),
    case("sendto/groups6_on_loopback", "setsockopt connect", groups_on_loopback),
];
