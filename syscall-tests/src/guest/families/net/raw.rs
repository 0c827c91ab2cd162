//! Raw and ping sockets: who may have them, what they send, what they see.

use super::kit::*;
use crate::case::{Case, case, in_child};
use crate::out::{claim, must, number, ret};
use crate::{say, sys};
use libc::{
    AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_RAW, IPPROTO_UDP,
    MSG_DONTWAIT, SO_ERROR, SOCK_DGRAM, SOCK_RAW, SOL_SOCKET,
};

const SOL_RAW: i32 = 255;

/// An echo request with its checksum (of IPv4).
fn echo(kind: u8, ident: u16, data: &[u8]) -> Vec<u8> {
    let mut m = vec![kind, 0, 0, 0];
    m.extend(ident.to_be_bytes());
    m.extend([0, 1]);
    m.extend(data);
    let mut sum: u32 = m.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    m[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    m
}

fn kinds() {
    for (label, domain, protocol) in [
        ("icmp", AF_INET, IPPROTO_ICMP),
        ("udp", AF_INET, IPPROTO_UDP),
        ("raw", AF_INET, IPPROTO_RAW),
        ("any 200", AF_INET, 200),
        ("0", AF_INET, 0),
        ("icmp6", AF_INET6, IPPROTO_ICMPV6),
        ("icmp on v6", AF_INET6, IPPROTO_ICMP),
    ] {
        let fd = sys!(socket, domain, SOCK_RAW, protocol);
        say!("{label} {}", number(fd.min(0)));
        if fd >= 0 {
            let fd = fd as i32;
            say!("{} {}", get(fd, SOL_SOCKET, libc::SO_TYPE), get(fd, SOL_SOCKET, libc::SO_PROTOCOL));
            say!("{} {} {}", name(fd), peer(fd), poll(fd));
        }
    }
    in_child("user", || {
        must("setuid", sys!(setuid, 1000));
        ret("raw", sys!(socket, AF_INET, SOCK_RAW, IPPROTO_ICMP));
        ret("raw of nothing", sys!(socket, AF_INET, SOCK_RAW, 0));
        0
    });
}

fn echo_seen() {
    let fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    must("ttl", set(fd, IPPROTO_IP, libc::IP_TTL, 33));
    ret("send", send_to(fd, &echo(8, 0x1234, b"hello"), &V4.loopback(0)));
    for _ in 0..2 {
        readable(fd);
        let got = recv_msg(fd, 128, 256, 0);
        let b = &got.data;
        // Header, then the message: first the request that came in, then its answer.
        say!("{} {:x} {} {}", got.result, b[0], b[8] == 33, b[9]);
        say!("{:?} {:?} type {} ident {:?}", &b[12..16], &b[16..20], b[20], &b[24..26]);
        say!("{} {}", got.from.words(), got.from.port());
    }
    say!("{}", recv(fd, 64, MSG_DONTWAIT));
    ret("a bad checksum is not answered", send_to(fd, &[8, 0, 1, 1, 0, 0, 0, 0], &V4.loopback(0)));
    readable(fd);
    ret("the request", sys!(recvfrom, fd, [0u8; 64].as_mut_slice(), 64, 0, 0, 0));
    crate::case::pause_ms(5);
    say!("{}", recv(fd, 64, MSG_DONTWAIT));
}

fn filters() {
    let fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    say!("{}", get(fd, SOL_RAW, 1));
    // Echo requests are kept out.
    ret("set", set(fd, SOL_RAW, 1, 1 << 8));
    say!("{}", get(fd, SOL_RAW, 1));
    send_to(fd, &echo(8, 7, b"x"), &V4.loopback(0));
    readable(fd);
    let got = recv_msg(fd, 64, 0, 0);
    say!("{} type {}", got.result, got.data[20]);
    say!("{}", recv(fd, 64, MSG_DONTWAIT));
    let udp = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
    say!("of udp {} {}", number(set(udp, SOL_RAW, 1, 1)), get(udp, SOL_RAW, 1));
    say!("unknown {} {}", number(set(fd, SOL_RAW, 9, 1)), get(fd, SOL_RAW, 9));
    let six = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    let all = [0xffu8; 32];
    ret("icmp6", set_bytes(six, 58, 1, &all));
    say!("{:?}", get_bytes(six, 58, 1, 32).map(|b| b == all));
    send_to(six, &[128, 0, 0, 0, 0, 7, 0, 1], &V6.loopback(0));
    crate::case::pause_ms(5);
    say!("{}", recv(six, 64, MSG_DONTWAIT));
}

fn echo6_seen() {
    let fd = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    // The kernel fills the checksum.
    ret("send", send_to(fd, &[128, 0, 0, 0, 0x12, 0x34, 0, 1, b'x'], &V6.loopback(0)));
    for _ in 0..2 {
        readable(fd);
        let got = recv_msg(fd, 128, 256, 0);
        say!("{} type {} sum {} {}", got.result, got.data[0], got.data[2..4] != [0, 0], got.from.words());
    }
    ret("checksum place", set(fd, IPPROTO_IPV6, 7, 2));
    say!("{}", get(fd, IPPROTO_IPV6, 7));
    let other = socket(AF_INET6, SOCK_RAW, 200);
    say!("{} {}", get(other, IPPROTO_IPV6, 7), turn(other, IPPROTO_IPV6, 7, 4));
    say!("{} {}", turn(other, IPPROTO_IPV6, 7, 3), turn(other, IPPROTO_IPV6, 7, -1));
}

fn addresses() {
    let fd = socket(AF_INET, SOCK_RAW, 200);
    ret("nobody's", bind(fd, &V4.nowhere(0)));
    ret("bind", bind(fd, &V4.loopback(5)));
    say!("{}", name(fd));
    ret("again", bind(fd, &V4.loopback(0)));
    ret("no destination", send(fd, b"x", 0));
    ret("connect", connect(fd, &V4.loopback(77)));
    say!("{}", peer(fd));
    ret("send", send(fd, b"own protocol", 0));
    readable(fd);
    let got = recv_msg(fd, 64, 0, 0);
    say!("{} protocol {}", got.result, got.data[9]);
    let other = socket(AF_INET, SOCK_RAW, 201);
    ret("another protocol", send_to(other, b"x", &V4.loopback(0)));
    crate::case::pause_ms(5);
    say!("{}", recv(fd, 64, MSG_DONTWAIT));
    ret("disconnect", connect(fd, &Addr::family(0, 16)));
    say!("{}", peer(fd));
    ret("no route", send_to(fd, b"x", &V4.nowhere(0)));
    ret("listen", listen(fd, 1));
    ret("accept", accept(fd));
    say!("{}", get(fd, SOL_SOCKET, SO_ERROR));
}

fn own_header() {
    let fd = socket(AF_INET, SOCK_RAW, 202);
    say!("{} {}", get(fd, IPPROTO_IP, 3), turn(fd, IPPROTO_IP, 3, 1));
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 9, 202, 0, 0];
    packet.extend([127, 0, 0, 5]);
    packet.extend([127, 0, 0, 1]);
    packet.extend(b"data");
    ret("send", send_to(fd, &packet, &V4.loopback(0)));
    readable(fd);
    let got = recv_msg(fd, 64, 0, 0);
    let b = &got.data;
    say!("{} length {:?} ttl {} from {:?}", got.result, &b[2..4], b[8], &b[12..16]);
    ret("too short", send_to(fd, &packet[..10], &V4.loopback(0)));
    let raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    say!("{}", get(raw, IPPROTO_IP, 3));
    ret("by the protocol raw", send_to(raw, &packet, &V4.loopback(0)));
    readable(fd);
    say!("{}", recv_msg(fd, 64, 0, 0).result);
}

fn made_datagram() {
    let (a, at) = bound(udp(V4), V4);
    let fd = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
    let mut d = 4444u16.to_be_bytes().to_vec();
    d.extend(at.port().to_be_bytes());
    d.extend(12u16.to_be_bytes());
    d.extend([0, 0]);
    d.extend(b"raw!");
    ret("send", send_to(fd, &d, &V4.loopback(0)));
    readable(a);
    say!("{:?}", recv_from(a, 16, MSG_DONTWAIT));
}

fn ping_rights() {
    // As in a new namespace: nobody's group is in the range.
    must("range", set_range("1 0"));
    ret("icmp", sys!(socket, AF_INET, SOCK_DGRAM, IPPROTO_ICMP));
    ret("icmp6", sys!(socket, AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6));
    ret("icmp6 on v4", sys!(socket, AF_INET, SOCK_DGRAM, IPPROTO_ICMPV6));
    must("range", set_range("0 1000"));
    in_child("user", || {
        must("setgid", sys!(setgid, 500));
        must("setuid", sys!(setuid, 1000));
        say!("{}", number(sys!(socket, AF_INET, SOCK_DGRAM, IPPROTO_ICMP).min(0)));
        0
    });
    in_child("outside", || {
        must("groups", sys!(setgroups, 0, 0));
        must("setgid", sys!(setgid, 5000));
        say!("{}", number(sys!(socket, AF_INET, SOCK_DGRAM, IPPROTO_ICMP).min(0)));
        0
    });
}

fn set_range(groups: &str) -> isize {
    match std::fs::write("/proc/sys/net/ipv4/ping_group_range", groups) {
        Ok(()) => 0,
        Err(e) => -(e.raw_os_error().unwrap_or(5) as isize),
    }
}

fn pings(net: Net) {
    must("range", set_range("0 1000"));
    let (protocol, request, answer) =
        if net == V4 { (IPPROTO_ICMP, 8u8, 0u8) } else { (IPPROTO_ICMPV6, 128, 129) };
    let fd = socket(net.domain(), SOCK_DGRAM, protocol);
    say!("{} {}", name(fd), poll(fd));
    let to = net.loopback(0);
    ret("short", send_to(fd, &[request, 0, 0], &to));
    ret("no request", send_to(fd, &[answer, 0, 0, 0, 0, 0, 0, 1], &to));
    ret("code", send_to(fd, &[request, 1, 0, 0, 0, 0, 0, 1], &to));
    ret("send", send_to(fd, &[request, 0, 0, 0, 0, 0, 0, 9, b'x', b'y'], &to));
    readable(fd);
    let got = recv_msg(fd, 64, 256, 0);
    say!("{} type {} sequence {:?} {:?}", got.result, got.data[0], &got.data[6..8], &got.data[8..]);
    say!("{}", got.from.words());
    let ident = u16::from_be_bytes([got.data[4], got.data[5]]);
    claim("the identifier is the port", ident == own(fd).port());
    let other = socket(net.domain(), SOCK_DGRAM, protocol);
    ret("bind", bind(other, &net.loopback(77)));
    say!("{}", name(other));
    ret("again", bind(other, &net.loopback(78)));
    let third = socket(net.domain(), SOCK_DGRAM, protocol);
    ret("shared", bind(third, &net.loopback(77)));
    crate::case::close(third);
    ret("connect", connect(other, &to));
    ret("send", send(other, &[request, 0, 0, 0, 9, 9, 0, 1], 0));
    readable(other);
    let got = recv_msg(other, 64, 256, 0);
    say!("{} {:?}", got.result, got.data.get(4..6));
    say!("{}", recv(fd, 64, MSG_DONTWAIT));
}

pub const CASES: &[Case] = &[
    case("socket/raw_kinds", "getsockopt setuid", kinds),
    case("sendto/raw_echo", "recvmsg", echo_seen),
    case("setsockopt/raw_filters", "sendto recvmsg", filters),
    case("sendto/raw_echo6", "recvmsg", echo6_seen),
    case("bind/raw_addresses", "connect sendto recvmsg", addresses),
    case("sendto/raw_own_header", "setsockopt", own_header),
    case("sendto/raw_made_datagram", "recvfrom", made_datagram),
    case("socket/ping_rights", "setgid", ping_rights),
    case("sendto/ping_v4", "recvmsg bind connect", || pings(V4)),
    case("sendto/ping_v6", "recvmsg bind connect", || pings(V6)),
];
