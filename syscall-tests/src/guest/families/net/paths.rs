//! How long a packet may be on its way: `IP_MTU_DISCOVER` and its kin, what is told of fragments, and who heeds
//! `MSG_DONTROUTE`. Each case has a network of its own, since it makes the loopback interface narrow.

use super::kit::*;
use crate::case::{Case, case, pause_ms};
use crate::out::{must, number, ret};
use crate::{say, sys};
use libc::{
    AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_IPV6, MSG_DONTWAIT, MSG_ERRQUEUE,
    MSG_MORE, SOCK_DGRAM, SOCK_RAW,
};

const RECVFRAGSIZE4: i32 = 25;
const RECVFRAGSIZE6: i32 = 77;
const IPV6_MTU: i32 = 24;
const RECVPATHMTU: i32 = 60;
const PATHMTU: i32 = 61;
const DONTFRAG: i32 = 62;

/// What belongs to one of the families.
#[derive(Clone, Copy)]
struct Names {
    level: i32,
    discover: i32,
    errors: i32,
    fragsize: i32,
    /// Bytes of the headers of IP and UDP.
    headers: usize,
}

const FOUR: Names = Names {
    level: IPPROTO_IP,
    discover: libc::IP_MTU_DISCOVER,
    errors: libc::IP_RECVERR,
    fragsize: RECVFRAGSIZE4,
    headers: 28,
};
const SIX: Names =
    Names { level: IPPROTO_IPV6, discover: 23, errors: 25, fragsize: RECVFRAGSIZE6, headers: 48 };

fn names(net: Net) -> Names {
    if net == V6 { SIX } else { FOUR }
}

/// A network of this process alone, whose loopback interface takes packets up to that size.
fn narrow(mtu: i32) {
    must("unshare", sys!(unshare, libc::CLONE_NEWNET));
    crate::supervisor::loopback_up();
    set_mtu(mtu);
}

fn set_mtu(mtu: i32) {
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..20].copy_from_slice(&mtu.to_ne_bytes());
    let fd = udp(V4);
    must("mtu", sys!(ioctl, fd, libc::SIOCSIFMTU, &mut request));
    crate::case::close(fd);
}

/// What waits in the queue of errors: the length of its data, the report, who reported, where it was to go.
fn report(fd: i32, n: Names) -> String {
    let got = recv_msg(fd, 32, 256, MSG_ERRQUEUE);
    if got.result < 0 {
        return number(got.result);
    }
    let r = got.find(n.level, n.errors).unwrap_or_default();
    let who = r.get(16..).unwrap_or_default();
    format!(
        "{} {} {:?} info {} data {} offender {:?} to {} [{}]",
        got.result,
        number(-(int_at(r, 0) as isize)),
        &r[4..7],
        int_at(r, 8),
        int_at(r, 12),
        &who[..who.len().min(8)],
        got.from.words(),
        got.flags & libc::MSG_ERRQUEUE != 0,
    )
}

/// What arrived: its length, and the largest fragment it was cut into.
fn arrived(fd: i32, n: Names) -> String {
    pause_ms(2);
    let got = recv_msg(fd, 70_000, 256, MSG_DONTWAIT);
    if got.result < 0 {
        return number(got.result);
    }
    format!("{} {:?}", got.result, got.find(n.level, n.fragsize).map(|d| int_at(d, 0)))
}

fn modes(net: Net) {
    narrow(1500);
    let n = names(net);
    for linked in [false, true] {
        for mode in 0..=5 {
            let (a, at) = bound(udp(net), net);
            say!("frag size {}", turn(a, n.level, n.fragsize, 1));
            let b = udp(net);
            must("mode", set(b, n.level, n.discover, mode));
            must("errors", set(b, n.level, n.errors, 1));
            if linked {
                must("connect", connect(b, &at));
            }
            for length in [1500 - n.headers, 1501 - n.headers, 4000, 65_535 - n.headers] {
                let data = vec![7; length];
                let sent = if linked { send(b, &data, 0) } else { send_to(b, &data, &at) };
                say!("{mode} {length} {} {}", number(sent), arrived(a, n));
                say!("{}", report(b, n));
            }
            say!("mtu {}", get(b, n.level, if net == V6 { IPV6_MTU } else { libc::IP_MTU }));
            ret("more", send_to_more(b, &at, &[1; 900]));
            ret("and too much", send_to(b, &[2; 900], &at));
            ret("or not", send_to(b, &[3; 100], &at));
            say!("{}", arrived(a, n));
            say!("{}", arrived(a, n));
            crate::case::close(b);
            crate::case::close(a);
        }
    }
}

fn send_to_more(fd: i32, to: &Addr, bytes: &[u8]) -> isize {
    sys!(sendto, fd, bytes, bytes.len(), MSG_MORE, &to.raw, to.len)
}

/// The MTU changes while a socket is connected.
fn changes(net: Net) {
    narrow(4000);
    let n = names(net);
    let (_, at) = bound(udp(net), net);
    let b = udp(net);
    must("mode", set(b, n.level, n.discover, 2));
    let mtu = if net == V6 { IPV6_MTU } else { libc::IP_MTU };
    ret("before", get_ret(b, n.level, mtu));
    must("connect", connect(b, &at));
    say!("{}", get(b, n.level, mtu));
    ret("fits", send(b, &vec![0; 3900], 0));
    set_mtu(1400);
    ret("fits no longer", send(b, &vec![0; 3900], 0));
    say!("{}", get(b, n.level, mtu));
    set_mtu(65_536);
    say!("{}", get(b, n.level, mtu));
    ret("fits again", send(b, &vec![0; 3900], 0));
}

fn get_ret(fd: i32, level: i32, name: i32) -> isize {
    let mut v = 0i32;
    let mut len = 4u32;
    sys!(getsockopt, fd, level, name, &mut v, &mut len)
}

/// `IPV6_DONTFRAG` as an option and as a control message, and what `IPV6_RECVPATHMTU` tells then.
fn whole_or_not() {
    narrow(1500);
    let (a, at) = bound(udp(V6), V6);
    must("size", set(a, IPPROTO_IPV6, RECVFRAGSIZE6, 1));
    let b = udp(V6);
    must("errors", set(b, IPPROTO_IPV6, 25, 1));
    let told = || {
        let got = recv_msg(b, 32, 256, MSG_DONTWAIT);
        let info = got.find(IPPROTO_IPV6, PATHMTU).map(|d| d.to_vec()).unwrap_or_default();
        format!("{} {} {} {info:?}", got.words(), got.from.words(), got.kinds())
    };
    let message = |v: i32| (IPPROTO_IPV6, DONTFRAG, v.to_ne_bytes().to_vec());
    say!("{}", turn(b, IPPROTO_IPV6, DONTFRAG, 1));
    ret("too long", send_to(b, &[0; 2000], &at));
    say!("{} | {}", told(), report(b, SIX));
    say!("{}", turn(b, IPPROTO_IPV6, RECVPATHMTU, 1));
    ret("too long", send_to(b, &[0; 2000], &at));
    say!("{}", poll(b));
    say!("{}", report(b, SIX));
    ret("too long", send_to(b, &[0; 3000], &at));
    say!("{}", told());
    say!("{} | {}", told(), report(b, SIX));
    ret("as a message: may be cut", send_msg(b, &[0; 2000], Some(&at), &[message(0)], 0));
    say!("{} {}", told(), arrived(a, SIX));
    must("off", set(b, IPPROTO_IPV6, DONTFRAG, 0));
    ret("as a message: may not", send_msg(b, &[0; 2000], Some(&at), &[message(1)], 0));
    say!("{} {} {}", told(), arrived(a, SIX), report(b, SIX));
    ret("2", send_msg(b, &[0; 20], Some(&at), &[message(2)], 0));
    ret("-1", send_msg(b, &[0; 20], Some(&at), &[message(-1)], 0));
    ret("a byte", send_msg(b, &[0; 20], Some(&at), &[(IPPROTO_IPV6, DONTFRAG, vec![1])], 0));
    ret("8 bytes", send_msg(b, &[0; 20], Some(&at), &[(IPPROTO_IPV6, DONTFRAG, vec![0; 8])], 0));
    // IPv4 on such a socket does not know of it.
    let (c, ct) = bound(udp(V4), V4);
    must("on", set(b, IPPROTO_IPV6, DONTFRAG, 1));
    let mapped = Mapped.loopback(ct.port());
    ret("mapped", send_to(b, &[0; 2000], &mapped));
    say!("{}", arrived(c, FOUR));
    ret("pmtu off", set(b, IPPROTO_IPV6, RECVPATHMTU, 0));
}

/// `IPV6_MTU` as it is set: the size of the pieces that IPv6 datagrams are cut into.
fn smaller_pieces() {
    narrow(4000);
    let (a, at) = bound(udp(V6), V6);
    must("size", set(a, IPPROTO_IPV6, RECVFRAGSIZE6, 1));
    let b = udp(V6);
    must("errors", set(b, IPPROTO_IPV6, 25, 1));
    for v in [1, 1279, 1280, -1, 70_000, 0] {
        ret(format!("set {v}"), set(b, IPPROTO_IPV6, IPV6_MTU, v));
    }
    must("set", set(b, IPPROTO_IPV6, IPV6_MTU, 1400));
    ret("send", send_to(b, &[0; 3000], &at));
    say!("{}", arrived(a, SIX));
    must("connect", connect(b, &at));
    say!("{}", get(b, IPPROTO_IPV6, IPV6_MTU));
    must("mode", set(b, IPPROTO_IPV6, 23, 2));
    ret("send", send(b, &[0; 3000], 0));
    say!("{} {}", arrived(a, SIX), report(b, SIX));
    must("mode", set(b, IPPROTO_IPV6, 23, 1));
    ret("send", send(b, &[0; 5000], 0));
    say!("{} {}", arrived(a, SIX), report(b, SIX));
    must("none", set(b, IPPROTO_IPV6, IPV6_MTU, 0));
    ret("send", send(b, &[0; 3000], 0));
    say!("{}", arrived(a, SIX));
    ret("of tcp", set(tcp(V6), IPPROTO_IPV6, IPV6_MTU, 1400));
}

/// Raw and ping sockets.
fn messages(net: Net) {
    narrow(1500);
    let _ = std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 1000");
    let n = names(net);
    let (domain, protocol, request) =
        if net == V6 { (AF_INET6, IPPROTO_ICMPV6, 128) } else { (AF_INET, IPPROTO_ICMP, 8) };
    for (label, kind, protocol) in [("raw", SOCK_RAW, 200), ("ping", SOCK_DGRAM, protocol)] {
        for mode in 0..=5 {
            let fd = socket(domain, kind, protocol);
            must("size", set(fd, n.level, n.fragsize, 1));
            must("mode", set(fd, n.level, n.discover, mode));
            must("errors", set(fd, n.level, n.errors, 1));
            let mut data = vec![0; 3000];
            data[0] = request;
            let sent = send_to(fd, &data, &net.loopback(0));
            say!("{label} {mode} {} {}", number(sent), arrived(fd, n));
            say!("{}", report(fd, n));
            data.truncate(1500 - n.headers + 8);
            ret("fits", send_to(fd, &data, &net.loopback(0)));
            say!("{}", arrived(fd, n));
            crate::case::close(fd);
        }
    }
}

/// A header of one's own says itself whether it may be cut; it is not cut here.
fn own_header() {
    narrow(1500);
    let fd = socket(AF_INET, SOCK_RAW, 202);
    must("errors", set(fd, IPPROTO_IP, libc::IP_RECVERR, 1));
    must("header", set(fd, IPPROTO_IP, libc::IP_HDRINCL, 1));
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 9, 202, 0, 0];
    packet.extend([127, 0, 0, 1]);
    packet.extend([127, 0, 0, 1]);
    packet.resize(1500, 0);
    ret("fits", send_to(fd, &packet, &V4.loopback(0)));
    say!("{}", arrived(fd, FOUR));
    packet.push(0);
    ret("does not", send_to(fd, &packet, &V4.loopback(0)));
    say!("{}", report(fd, FOUR));
}

fn size_option() {
    for (label, fd, n) in [
        ("udp", udp(V4), FOUR),
        ("udp6", udp(V6), SIX),
        ("udp6 as v4", udp(V6), FOUR),
        ("tcp", tcp(V4), FOUR),
        ("tcp6", tcp(V6), SIX),
        ("raw", socket(AF_INET, SOCK_RAW, 200), FOUR),
    ] {
        let all: Vec<String> = [1, 0, 2, -1].iter().map(|v| turn(fd, n.level, n.fragsize, *v)).collect();
        say!("{label} {} | {}", get(fd, n.level, n.fragsize), all.join(" | "));
    }
    for (label, fd) in [("udp6", udp(V6)), ("tcp6", tcp(V6)), ("udp", udp(V4))] {
        say!(
            "{label} pathmtu {} {}",
            get(fd, IPPROTO_IPV6, RECVPATHMTU),
            turn(fd, IPPROTO_IPV6, RECVPATHMTU, 5)
        );
    }
}

/// `IP_MINTTL` and `IPV6_MINHOPCOUNT`: whoever is too far away is not heard.
fn least_hops(net: Net) {
    let (level, least, hops) =
        if net == V4 { (IPPROTO_IP, 21, libc::IP_TTL) } else { (IPPROTO_IPV6, 73, libc::IPV6_UNICAST_HOPS) };
    let connects = |server: i32, client: i32, there: i32, here: i32| {
        let (l, at) = listener(net);
        must("least", set(l, level, least, server));
        must("hops", set(l, level, hops, there));
        let c = tcp(net);
        must("least", set(c, level, least, client));
        must("hops", set(c, level, hops, here));
        nonblocking(c);
        let begun = connect(c, &at);
        pause_ms(50);
        let mut p = libc::pollfd { fd: c, events: libc::POLLOUT, revents: 0 };
        say!("{server} {client} {there} {here}: {} {}", number(begun), sys!(poll, &mut p, 1, 0));
        if p.revents == libc::POLLOUT {
            let a = must("accept", accept(l)) as i32;
            say!("{} {}", get(a, level, least), number(send(c, b"heard", 0)));
            say!("{}", recv(a, 8, 0));
        }
        crate::case::close(c);
        crate::case::close(l);
    };
    connects(0, 0, 64, 1);
    connects(64, 0, 64, 64);
    connects(64, 0, 64, 63);
    connects(255, 255, 255, 255);
    connects(0, 255, 255, 3);
    connects(0, 255, 254, 255);
    connects(255, 0, 64, 255);
    // Datagrams do not heed it.
    let (a, at) = bound(udp(net), net);
    must("least", set(a, level, least, 255));
    must("send", send_to(udp(net), b"far", &at));
    say!("{}", recv(a, 8, 0));
}

pub const CASES: &[Case] = &[
    case("connect/least_hops_v4", "setsockopt accept4", || least_hops(V4)),
    case("connect/least_hops_v6", "setsockopt accept4", || least_hops(V6)),
    case("setsockopt/mtu_discover_v4", "sendto recvmsg getsockopt", || modes(V4)),
    case("setsockopt/mtu_discover_v6", "sendto recvmsg getsockopt", || modes(V6)),
    case("getsockopt/mtu_changes_v4", "setsockopt sendto", || changes(V4)),
    case("getsockopt/mtu_changes_v6", "setsockopt sendto", || changes(V6)),
    case("setsockopt/dontfrag", "sendmsg recvmsg", whole_or_not),
    case("setsockopt/mtu_of_pieces", "sendto recvmsg", smaller_pieces),
    case("setsockopt/mtu_discover_raw4", "sendto recvmsg", || messages(V4)),
    case("setsockopt/mtu_discover_raw6", "sendto recvmsg", || messages(V6)),
    case("setsockopt/mtu_own_header", "sendto recvmsg", own_header),
    case("setsockopt/fragment_sizes", "getsockopt", size_option),
];
