//! Control messages of internet sockets (cmsg(3)): what is told beside data, and what a sender may say.

use super::kit::*;
use crate::case::{Case, case, pause_ms};
use crate::out::{claim, must, number, ret};
use crate::{say, sys};
use libc::{IPPROTO_IP, IPPROTO_IPV6, MSG_DONTWAIT, MSG_ERRQUEUE, SOL_SOCKET};

/// Turns options of IP on.
fn want(fd: i32, level: i32, names: &[i32]) {
    for n in names {
        must("option", set(fd, level, *n, 1));
    }
}

fn told4() {
    let (a, b) = datagrams(V4);
    send(b, b"nothing", 0);
    let got = recv_msg(a, 16, 256, 0);
    say!("{} {}", got.words(), got.kinds());
    want(a, IPPROTO_IP, &[libc::IP_PKTINFO, libc::IP_RECVTTL, libc::IP_RECVTOS, libc::IP_RECVORIGDSTADDR]);
    must("ttl", set(b, IPPROTO_IP, libc::IP_TTL, 9));
    must("tos", set(b, IPPROTO_IP, libc::IP_TOS, 0x24));
    send(b, b"all", 0);
    let got = recv_msg(a, 16, 256, 0);
    say!("{} {}", got.words(), got.kinds());
    say!("ttl {:?}", got.find(IPPROTO_IP, libc::IP_TTL));
    say!("tos {:?}", got.find(IPPROTO_IP, libc::IP_TOS));
    say!("info {:?}", got.find(IPPROTO_IP, libc::IP_PKTINFO));
    let to = got.find(IPPROTO_IP, libc::IP_ORIGDSTADDR).unwrap_or_default();
    say!("destination {:?}", to.get(4..8));
    send(b, b"cut", 0);
    let got = recv_msg(a, 16, 32, 0);
    say!("{} {}", got.words(), got.kinds());
    send(b, b"none", 0);
    let got = recv_msg(a, 16, 0, 0);
    say!("{} {}", got.words(), got.kinds());
}

fn told6() {
    let (a, b) = datagrams(V6);
    want(a, IPPROTO_IPV6, &[libc::IPV6_RECVPKTINFO, libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVTCLASS, 74]);
    must("hops", set(b, IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, 9));
    must("class", set(b, IPPROTO_IPV6, libc::IPV6_TCLASS, 0x24));
    send(b, b"all", 0);
    let got = recv_msg(a, 16, 256, 0);
    say!("{} {}", got.words(), got.kinds());
    say!("hops {:?}", got.find(IPPROTO_IPV6, libc::IPV6_HOPLIMIT));
    say!("class {:?}", got.find(IPPROTO_IPV6, libc::IPV6_TCLASS));
    say!("info {:?}", got.find(IPPROTO_IPV6, libc::IPV6_PKTINFO));
}

fn told_mapped() {
    let a = udp(V6);
    must("bind", bind(a, &V6.any(0)));
    want(a, IPPROTO_IPV6, &[libc::IPV6_RECVPKTINFO, libc::IPV6_RECVHOPLIMIT]);
    want(a, IPPROTO_IP, &[libc::IP_PKTINFO, libc::IP_RECVTTL]);
    must("send", send_to(udp(V4), b"four", &V4.loopback(own(a).port())));
    let got = recv_msg(a, 16, 256, 0);
    say!("{} {}", got.words(), got.kinds());
    say!("{:?}", got.find(IPPROTO_IPV6, libc::IPV6_PKTINFO));
}

fn timestamps() {
    let (a, b) = datagrams(V4);
    let now = || {
        let mut t = [0i64; 2];
        sys!(clock_gettime, 0, &mut t);
        t[0]
    };
    for (label, option) in [("micro", libc::SO_TIMESTAMP), ("nano", libc::SO_TIMESTAMPNS)] {
        must("option", set(a, SOL_SOCKET, option, 1));
        send(b, b"x", 0);
        let got = recv_msg(a, 16, 256, 0);
        say!("{label} {}", got.kinds());
        let stamp = got.find(SOL_SOCKET, option).map_or(0, |d| i64::from(int_at(d, 0)));
        claim("now", (now() - stamp).abs() <= 2);
        must("option", set(a, SOL_SOCKET, option, 0));
    }
    send(b, b"x", 0);
    say!("off {}", recv_msg(a, 16, 256, 0).kinds());
    // SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE
    ret("timestamping", set(a, SOL_SOCKET, 37, 8 | 16));
    // Linux begins to stamp a moment later.
    let got = (0..200)
        .map(|_| {
            pause_ms(1);
            send(b, b"x", 0);
            recv_msg(a, 16, 256, 0)
        })
        .find(|g| !g.control.is_empty());
    let Some(got) = got else { return say!("never") };
    say!("{}", got.kinds());
    let words = got.find(SOL_SOCKET, 37).map(|d| d.chunks(8).map(|c| c != [0; 8]).collect::<Vec<_>>());
    say!("{words:?}");
}

fn tcp_stamps() {
    let (c, s) = connection(V4);
    let now = || {
        let mut t = [0i64; 2];
        sys!(clock_gettime, 0, &mut t);
        t[0]
    };
    for (label, option) in [("micro", libc::SO_TIMESTAMP), ("nano", libc::SO_TIMESTAMPNS)] {
        must("option", set(s, SOL_SOCKET, option, 1));
        send(c, b"abc", 0);
        readable(s);
        // Linux begins to stamp a moment after the first who wants it.
        let mut got = recv_msg(s, 2, 256, 0);
        for _ in 0..200 {
            if !got.control.is_empty() {
                break;
            }
            pause_ms(1);
            send(c, b"abc", 0);
            got = recv_msg(s, 2, 256, 0);
        }
        say!("{label} {}", got.kinds());
        let stamp = got.find(SOL_SOCKET, option).map_or(0, |d| i64::from(int_at(d, 0)));
        say!("now {}", (now() - stamp).abs() <= 2);
        say!("peek {}", recv_msg(s, 2, 256, libc::MSG_PEEK).kinds());
        say!("{}", recv(s, 64, 0).len() > 4);
        must("option", set(s, SOL_SOCKET, option, 0));
    }
    send(c, b"x", 0);
    readable(s);
    say!("off {}", recv_msg(s, 16, 256, 0).kinds());
}

fn bytes_left() {
    let (c, s) = connection(V4);
    must("option", set(s, libc::IPPROTO_TCP, 36, 1));
    send(c, b"abcdef", 0);
    readable(s);
    let got = recv_msg(s, 2, 256, 0);
    say!("{}", got.kinds());
    say!("left {:?}", got.find(libc::IPPROTO_TCP, 36).map(|d| int_at(d, 0)));
}

fn overflow_count() {
    let (a, b) = datagrams(V4);
    must("option", set(a, SOL_SOCKET, libc::SO_RXQ_OVFL, 1));
    send(b, b"x", 0);
    say!("none lost {}", recv_msg(a, 8, 256, 0).kinds());
    must("small", set(a, SOL_SOCKET, libc::SO_RCVBUF, 1));
    for _ in 0..100 {
        send(b, &[1; 500], 0);
    }
    pause_ms(5);
    while recv(a, 8, MSG_DONTWAIT) != "EAGAIN" {}
    send(b, b"after", 0);
    let got = recv_msg(a, 8, 256, 0);
    say!("{}", got.kinds());
    claim("lost", got.find(SOL_SOCKET, libc::SO_RXQ_OVFL).is_some_and(|d| int_at(d, 0) > 50));
}

fn said4() {
    let (a, at) = bound(udp(V4), V4);
    want(a, IPPROTO_IP, &[libc::IP_RECVTTL, libc::IP_RECVTOS, libc::IP_PKTINFO]);
    let b = udp(V4);
    let mut info = 0i32.to_ne_bytes().to_vec();
    info.extend([127, 0, 0, 7]);
    info.extend([0; 4]);
    let int = |level: i32, kind: i32, v: i32| (level, kind, v.to_ne_bytes().to_vec());
    let list = [
        (IPPROTO_IP, libc::IP_PKTINFO, info.clone()),
        int(IPPROTO_IP, libc::IP_TTL, 33),
        int(IPPROTO_IP, libc::IP_TOS, 0x10),
    ];
    ret("send", send_msg(b, b"said", Some(&at), &list, 0));
    let got = recv_msg(a, 16, 256, 0);
    say!("{} {}", got.words(), got.from.words());
    say!("{:?} {:?}", got.find(IPPROTO_IP, libc::IP_TTL), got.find(IPPROTO_IP, libc::IP_TOS));
    info[4] = 9;
    for (label, m) in [
        ("source of nobody", (IPPROTO_IP, libc::IP_PKTINFO, info)),
        ("short info", (IPPROTO_IP, libc::IP_PKTINFO, vec![0; 4])),
        ("ttl 0", int(IPPROTO_IP, libc::IP_TTL, 0)),
        ("ttl 256", int(IPPROTO_IP, libc::IP_TTL, 256)),
        ("byte of tos", (IPPROTO_IP, libc::IP_TOS, vec![4])),
        ("tos 256", int(IPPROTO_IP, libc::IP_TOS, 256)),
        ("unknown", int(IPPROTO_IP, 99, 1)),
        ("unknown of the socket", int(SOL_SOCKET, 99, 1)),
        ("another level", int(77, 1, 1)),
        ("of ipv6", int(IPPROTO_IPV6, libc::IPV6_HOPLIMIT, 1)),
    ] {
        ret(label, send_msg(b, b"x", Some(&at), &[m], 0));
    }
}

fn said6() {
    let (a, at) = bound(udp(V6), V6);
    want(a, IPPROTO_IPV6, &[libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVTCLASS]);
    let b = udp(V6);
    let int = |level: i32, kind: i32, v: i32| (level, kind, v.to_ne_bytes().to_vec());
    let mut info = LOOPBACK6.to_vec();
    info.extend(1i32.to_ne_bytes());
    let list = [
        (IPPROTO_IPV6, libc::IPV6_PKTINFO, info.clone()),
        int(IPPROTO_IPV6, libc::IPV6_HOPLIMIT, 33),
        int(IPPROTO_IPV6, libc::IPV6_TCLASS, 0x10),
    ];
    ret("send", send_msg(b, b"said", Some(&at), &list, 0));
    let got = recv_msg(a, 16, 256, 0);
    say!("{} {} {}", got.words(), got.from.words(), got.kinds());
    say!("{:?} {:?}", got.find(IPPROTO_IPV6, libc::IPV6_HOPLIMIT), got.find(IPPROTO_IPV6, libc::IPV6_TCLASS));
    info[0] = 0x20;
    for (label, m) in [
        ("source of nobody", (IPPROTO_IPV6, libc::IPV6_PKTINFO, info)),
        ("short info", (IPPROTO_IPV6, libc::IPV6_PKTINFO, vec![0; 4])),
        ("hops 0", int(IPPROTO_IPV6, libc::IPV6_HOPLIMIT, 0)),
        ("hops -1", int(IPPROTO_IPV6, libc::IPV6_HOPLIMIT, -1)),
        ("hops 256", int(IPPROTO_IPV6, libc::IPV6_HOPLIMIT, 256)),
        ("class -2", int(IPPROTO_IPV6, libc::IPV6_TCLASS, -2)),
        ("unknown", int(IPPROTO_IPV6, 99, 1)),
        ("of ipv4", int(IPPROTO_IP, libc::IP_TTL, 1)),
    ] {
        ret(label, send_msg(b, b"x", Some(&at), &[m], 0));
    }
}

fn malformed() {
    let (a, _b) = datagrams(V4);
    let go = |fd: i32, raw: &[u8]| {
        let iov = libc::iovec { iov_base: b"x".as_ptr() as *mut _, iov_len: 1 };
        let mut m: libc::msghdr = crate::case::zeroed();
        m.msg_iov = &raw const iov as *mut _;
        m.msg_iovlen = 1;
        m.msg_control = raw.as_ptr() as *mut _;
        m.msg_controllen = raw.len();
        sys!(sendmsg, fd, &m, 0)
    };
    let head = |len: u64, level: i32, kind: i32| {
        let mut v = len.to_ne_bytes().to_vec();
        v.extend(level.to_ne_bytes());
        v.extend(kind.to_ne_bytes());
        v.extend([0; 16]);
        v
    };
    let (u, _v) = pair(libc::SOCK_DGRAM);
    let (t, _w) = connection(V4);
    for fd in [a, u, t] {
        ret("length 0", go(fd, &head(0, 0, 2)));
        ret("length 15", go(fd, &head(15, 0, 2)));
        ret("too long", go(fd, &head(99, 0, 2)));
        ret("only a part", go(fd, &[1; 8]));
        ret("unknown of the socket", go(fd, &head(20, SOL_SOCKET, 99)));
        ret("other level", go(fd, &head(20, 99, 99)));
    }
    let mut m: libc::msghdr = crate::case::zeroed();
    m.msg_control = crate::case::NOWHERE as *mut _;
    m.msg_controllen = 32;
    ret("bad pointer", sys!(sendmsg, a, &m, 0));
    m.msg_controllen = 1 << 40;
    ret("huge", sys!(sendmsg, a, &m, 0));
    m.msg_controllen = 0;
    m.msg_iovlen = 1025;
    ret("too many vectors", sys!(sendmsg, a, &m, 0));
    m.msg_iovlen = 1;
    ret("bad vector", sys!(sendmsg, a, &m, 0));
    m.msg_iovlen = 0;
    ret("nothing", sys!(sendmsg, a, &m, 0));
    m.msg_name = crate::case::NOWHERE as *mut _;
    m.msg_namelen = 16;
    ret("bad name", sys!(sendmsg, a, &m, 0));
}

/// The error queue after a datagram that nobody takes.
fn error_queue(net: Net) {
    let (level, option) = if net == V6 { (IPPROTO_IPV6, 25) } else { (IPPROTO_IP, libc::IP_RECVERR) };
    let (hole, at) = bound(udp(net), net);
    crate::case::close(hole);
    let fd = udp(net);
    must("option", set(fd, level, option, 1));
    say!("{}", recv_msg(fd, 16, 256, MSG_ERRQUEUE).words());
    ret("send", send_to(fd, b"lost", &at));
    ready(fd, libc::POLLERR);
    say!("{}", poll(fd));
    let got = recv_msg(fd, 16, 256, MSG_ERRQUEUE);
    say!("{} {} {}", got.words(), got.from.words(), got.kinds());
    let report = got.find(level, option).unwrap_or_default();
    say!("{} {:?}", number(-(int_at(report, 0) as isize)), report.get(4..8));
    say!("offender {:?}", report.get(16..24));
    say!("{}", poll(fd));
    say!("{}", recv_msg(fd, 16, 256, MSG_ERRQUEUE).words());
    ret("send", send_to(fd, b"lost", &at));
    ready(fd, libc::POLLERR);
    say!("plain receive {}", recv(fd, 4, MSG_DONTWAIT));
    say!("report {}", recv_msg(fd, 2, 256, MSG_ERRQUEUE).words());
    say!("{}", recv(fd, 4, MSG_DONTWAIT));
}

fn error_queue_of_others() {
    say!("unix {}", recv(pair(libc::SOCK_STREAM).0, 4, MSG_ERRQUEUE | MSG_DONTWAIT));
    say!("unix {}", recv(pair(libc::SOCK_DGRAM).0, 4, MSG_ERRQUEUE | MSG_DONTWAIT));
    say!("tcp {}", recv(connection(V4).0, 4, MSG_ERRQUEUE));
    say!("tcp fresh {}", recv(tcp(V4), 4, MSG_ERRQUEUE));
    say!("udp {}", recv(udp(V4), 4, MSG_ERRQUEUE));
}

fn too_big() {
    let fd = udp(V4);
    must("option", set(fd, IPPROTO_IP, libc::IP_RECVERR, 1));
    must("discover", set(fd, IPPROTO_IP, libc::IP_MTU_DISCOVER, 2));
    let (_, at) = bound(udp(V4), V4);
    ret("fits", send_to(fd, &vec![0; 60_000], &at));
    ret("too big", send_to(fd, &vec![0; 65_508], &at));
    let got = recv_msg(fd, 8, 256, MSG_ERRQUEUE);
    say!("{}", got.words());
    let report = got.find(IPPROTO_IP, libc::IP_RECVERR).unwrap_or_default();
    say!("{} {:?}", number(-(int_at(report, 0) as isize)), report.get(4..12));
}

fn zerocopy() {
    const MSG_ZEROCOPY: i32 = 0x400_0000;
    let (c, s) = connection(V4);
    // Without the option the flag means nothing.
    ret("without the option", send(c, b"plain", MSG_ZEROCOPY));
    readable(s);
    say!("{}", recv(s, 16, 0));
    say!("{}", recv_msg(c, 8, 256, MSG_ERRQUEUE).words());
    ret("option", set(c, SOL_SOCKET, 60, 1));
    ret("with it", send(c, b"pinned", MSG_ZEROCOPY));
    readable(s);
    say!("{}", recv(s, 16, 0));
    ready(c, libc::POLLERR);
    let got = recv_msg(c, 8, 256, MSG_ERRQUEUE);
    say!("{} {}", got.words(), got.kinds());
    let report = got.find(IPPROTO_IP, libc::IP_RECVERR).unwrap_or_default();
    // Errno 0, origin zerocopy, the range of calls; the code says that bytes were copied (loopback).
    say!("{} {:?} {:?}", int_at(report, 0), report.get(4..7), report.get(8..16));
}

pub const CASES: &[Case] = &[
    case("recvmsg/told_v4", "setsockopt", told4),
    case("recvmsg/told_v6", "setsockopt", told6),
    case("recvmsg/told_mapped", "setsockopt", told_mapped),
    case("recvmsg/timestamps", "setsockopt", timestamps),
    case("recvmsg/tcp_stamps", "setsockopt", tcp_stamps),
    case("recvmsg/tcp_inq", "setsockopt", bytes_left),
    case("recvmsg/overflow_count", "setsockopt", overflow_count),
    case("sendmsg/said_v4", "recvmsg", said4),
    case("sendmsg/said_v6", "recvmsg", said6),
    case("sendmsg/malformed_control", "", malformed),
    case("recvmsg/error_queue_v4", "setsockopt poll", || error_queue(V4)),
    case("recvmsg/error_queue_v6", "setsockopt poll", || error_queue(V6)),
    case("recvfrom/error_queue_of_others", "", error_queue_of_others),
    case("recvmsg/too_big", "setsockopt", too_big),
    case("sendto/zerocopy", "setsockopt recvmsg", zerocopy),
];
