//! UDP: addresses, datagrams, errors that come back, groups, who gets what.

use super::kit::*;
use crate::case::{Case, NOWHERE, asleep, case, close, fork, in_child, pause_ms, wait};
use crate::out::{claim, done, must, number, ret};
use crate::{say, sys};
use libc::{
    AF_UNSPEC, IPPROTO_IP, IPPROTO_IPV6, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC, SHUT_RD,
    SHUT_RDWR, SHUT_WR, SO_BROADCAST, SO_ERROR, SO_REUSEADDR, SO_REUSEPORT, SOL_SOCKET,
};

fn exchange(net: Net) {
    let (a, at) = bound(udp(net), net);
    let b = udp(net);
    say!("{} {}", name(b), peer(b));
    ret("send", send_to(b, b"first", &at));
    say!("{}", name(b));
    let (what, from) = recv_from(a, 32, 0);
    say!("{what} {from}");
    let bt = net.loopback(own(b).port());
    ret("answer", send_to(a, b"second", &bt));
    let (what, from) = recv_from(b, 32, 0);
    say!("{what} {from}");
    ret("empty", send_to(b, b"", &at));
    let (what, from) = recv_from(a, 32, 0);
    say!("{what} {from}");
    say!("{}", recv(a, 8, MSG_DONTWAIT));
    for i in 0..3 {
        send_to(b, &[b'0' + i; 4], &at);
    }
    say!("{} {} {}", recv(a, 8, 0), recv(a, 2, 0), recv(a, 8, 0));
}

fn destinations(net: Net) {
    let fd = udp(net);
    ret("none", send(fd, b"x", 0));
    ret("port 0", send_to(fd, b"x", &net.loopback(0)));
    ret("no route", send_to(fd, b"x", &net.nowhere(9)));
    ret("short", send_to(fd, b"x", &net.loopback(9).with_len(2)));
    ret("15 bytes", send_to(fd, b"x", &net.loopback(9).with_len(15)));
    ret("family unix", send_to(fd, b"x", &Addr::family(libc::AF_UNIX, 28)));
    ret("family unspec", send_to(fd, b"x", &Addr::family(AF_UNSPEC, net.loopback(0).len)));
    ret("oob", send(fd, b"x", MSG_OOB));
    ret("receive oob", sys!(recvfrom, fd, 0, 0, MSG_OOB | MSG_DONTWAIT, 0, 0));
    let (b, at) = bound(udp(net), net);
    ret("too long", send_to(fd, &vec![0; 65536], &at));
    ret("too long by one", send_to(fd, &vec![0; if net == V6 { 65528 } else { 65508 }], &at));
    ret("longest", send_to(fd, &vec![1; if net == V6 { 65527 } else { 65507 }], &at));
    let mut big = vec![0u8; 70000];
    ret("arrives", sys!(recvfrom, b, big.as_mut_slice(), big.len(), 0, 0, 0));
    ret("bad pointer", sys!(sendto, fd, NOWHERE, 4, 0, &at.raw, at.len));
}

fn connected(net: Net) {
    let (a, at) = bound(udp(net), net);
    let b = udp(net);
    ret("connect", connect(b, &at));
    say!("{} {}", name(b), peer(b));
    ret("send", send(b, b"hello", 0));
    say!("{}", recv(a, 8, 0));
    let (stranger, _) = bound(udp(net), net);
    let bt = own(b);
    ret("a stranger", send_to(stranger, b"who", &bt));
    pause_ms(10);
    say!("{}", recv(b, 8, MSG_DONTWAIT));
    ret("the peer", send_to(a, b"known", &bt));
    say!("{}", recv(b, 8, 0));
    let (c, ct) = bound(udp(net), net);
    ret("elsewhere nevertheless", send_to(b, b"aside", &ct));
    say!("{}", recv(c, 8, 0));
    ret("connect again", connect(b, &ct));
    ret("send", send(b, b"new", 0));
    say!("{}", recv(c, 8, 0));
    ret("disconnect", connect(b, &Addr::family(AF_UNSPEC, 16)));
    say!("{} {}", name(b), peer(b));
    ret("send", send(b, b"x", 0));
    ret("no route", connect(b, &net.nowhere(9)));
    say!("{}", peer(b));
}

fn refused(net: Net) {
    let (hole, at) = bound(udp(net), net);
    close(hole);
    let b = udp(net);
    ret("unconnected", send_to(b, b"x", &at));
    pause_ms(5);
    say!("{} {}", poll(b), recv(b, 4, MSG_DONTWAIT));
    ret("connect", connect(b, &at));
    ret("send", send(b, b"x", 0));
    ready(b, libc::POLLERR);
    say!("{}", poll(b));
    say!("{}", recv(b, 4, MSG_DONTWAIT));
    say!("{}", recv(b, 4, MSG_DONTWAIT));
    send(b, b"x", 0);
    ready(b, libc::POLLERR);
    ret("the next send tells", send(b, b"x", 0));
    ready(b, libc::POLLERR);
    say!("{}", get(b, SOL_SOCKET, SO_ERROR));
    say!("{} {}", get(b, SOL_SOCKET, SO_ERROR), poll(b));
    let child = fork(|| {
        say!("{}", recv(b, 4, 0));
        0
    });
    claim("waits", asleep(child));
    send(b, b"x", 0);
    say!("{}", wait(child));
}

fn truncated(net: Net) {
    let (a, b) = datagrams(net);
    send(a, b"0123456789", 0);
    send(a, b"next", 0);
    say!("{}", recv(b, 4, MSG_PEEK));
    say!("{}", recv(b, 4, MSG_PEEK | MSG_TRUNC));
    let got = recv_msg(b, 4, 0, 0);
    say!("{} {}", got.words(), got.from.words());
    let got = recv_msg(b, 4, 0, MSG_TRUNC);
    say!("{}", got.words());
    send(a, b"0123456789", 0);
    say!("{}", recv_msg(b, 0, 0, MSG_TRUNC).words());
    send(a, b"xy", 0);
    ret("read", sys!(read, b, NOWHERE, 1));
    say!("{}", recv(b, 4, MSG_DONTWAIT));
}

fn shutdowns(net: Net) {
    let fd = udp(net);
    ret("unconnected", sys!(shutdown, fd, SHUT_RDWR));
    say!("{}", poll(fd));
    let (a, b) = datagrams(net);
    ret("send", sys!(shutdown, a, SHUT_WR));
    ret("then", send(a, b"x", MSG_NOSIGNAL));
    in_child("signal", || send(a, b"x", 0) as i32);
    say!("{} {}", poll(a), poll(b));
    send(b, b"in", 0);
    say!("{}", recv(a, 4, 0));
    ret("receive", sys!(shutdown, a, SHUT_RD));
    say!("{} {}", poll(a), recv(a, 4, 0));
    send(b, b"late", 0);
    pause_ms(5);
    say!("{} {}", recv(a, 8, MSG_DONTWAIT), recv(a, 8, MSG_DONTWAIT));
}

fn shutdown_wakes(net: Net) {
    let (a, _b) = datagrams(net);
    let child = fork(|| {
        say!("{}", recv(a, 8, 0));
        0
    });
    claim("waits", asleep(child));
    sys!(shutdown, a, SHUT_RD);
    say!("{}", wait(child));
}

fn sharing_ports(net: Net) {
    let (a, at) = bound(udp(net), net);
    ret("the same", bind(udp(net), &at));
    let one = udp(net);
    set(one, SOL_SOCKET, SO_REUSEADDR, 1);
    ret("one side", bind(one, &at));
    set(a, SOL_SOCKET, SO_REUSEADDR, 1);
    ret("both sides", bind(one, &at));
    let sender = udp(net);
    send_to(sender, b"to whom", &at);
    ready(one, libc::POLLIN);
    say!("first {} last {}", recv(a, 16, MSG_DONTWAIT), recv(one, 16, MSG_DONTWAIT));
    let any = udp(net);
    set(any, SOL_SOCKET, SO_REUSEADDR, 1);
    ret("any", bind(any, &net.any(at.port())));
    send_to(sender, b"special", &at);
    readable(one);
    say!("any {} last {}", recv(any, 16, MSG_DONTWAIT), recv(one, 16, MSG_DONTWAIT));
    let tied = udp(net);
    set(tied, SOL_SOCKET, SO_REUSEADDR, 1);
    must("bind", bind(tied, &at));
    must("send", send_to(sender, b"x", &at));
    recv(tied, 4, 0);
    must("connect", connect(one, &net.loopback(own(sender).port())));
    send_to(sender, b"mine", &at);
    readable(one);
    say!("connected {} last {}", recv(one, 16, MSG_DONTWAIT), recv(tied, 16, MSG_DONTWAIT));
}

fn group_of_ports(net: Net) {
    let members: Vec<i32> = (0..4)
        .map(|_| {
            let fd = udp(net);
            must("option", set(fd, SOL_SOCKET, SO_REUSEPORT, 1));
            fd
        })
        .collect();
    let (_, at) = bound(members[0], net);
    for fd in &members[1..] {
        ret("bind", bind(*fd, &at));
    }
    let senders: Vec<i32> = (0..64).map(|_| udp(net)).collect();
    for s in &senders {
        must("send", send_to(*s, b"one", &at));
        must("send", send_to(*s, b"two", &at));
    }
    pause_ms(20);
    let mut counts = Vec::new();
    let mut together = true;
    for fd in &members {
        let mut from = Vec::new();
        loop {
            let (what, _) = recv_from(*fd, 8, MSG_DONTWAIT);
            if what == "EAGAIN" {
                break;
            }
            from.push(what);
        }
        let ones = from.iter().filter(|w| w.contains("one")).count();
        together &= ones * 2 == from.len();
        counts.push(from.len());
    }
    claim("all came", counts.iter().sum::<usize>() == 128);
    claim("spread", counts.iter().all(|n| *n > 0));
    claim("each sender has one member", together);
}

fn broadcast() {
    let (a, _) = {
        let fd = udp(V4);
        must("bind", bind(fd, &V4.any(7100)));
        (fd, 0)
    };
    let s = udp(V4);
    let to = Addr::v4([127, 255, 255, 255], 7100);
    ret("without", send_to(s, b"x", &to));
    ret("connect without", connect(s, &to));
    ret("option", set(s, SOL_SOCKET, SO_BROADCAST, 1));
    ret("with", send_to(s, b"all", &to));
    say!("{:?}", recv_from(a, 8, 0));
    ret("limited without a route", send_to(s, b"x", &Addr::v4([255, 255, 255, 255], 7100)));
    ret("bind to it", bind(udp(V4), &to));
}

/// `ip_mreqn`
fn mreq(group: [u8; 4], local: [u8; 4], index: i32) -> Vec<u8> {
    let mut v = group.to_vec();
    v.extend(local);
    v.extend(index.to_ne_bytes());
    v
}

const GROUP: [u8; 4] = [239, 1, 2, 3];

fn multicast4() {
    let a = udp(V4);
    must("bind", bind(a, &V4.any(7101)));
    let s = udp(V4);
    ret("interface", set_bytes(s, IPPROTO_IP, libc::IP_MULTICAST_IF, &mreq([0; 4], [127, 0, 0, 1], 0)));
    let to = Addr::v4(GROUP, 7101);
    ret("before", send_to(s, b"nobody", &to));
    pause_ms(5);
    say!("{}", recv(a, 16, MSG_DONTWAIT));
    ret("join", set_bytes(a, IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &mreq(GROUP, [0; 4], LO)));
    ret("twice", set_bytes(a, IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &mreq(GROUP, [0; 4], LO)));
    ret("send", send_to(s, b"members", &to));
    say!("{:?}", recv_from(a, 16, 0));
    let b = udp(V4);
    set(a, SOL_SOCKET, SO_REUSEADDR, 1);
    set(b, SOL_SOCKET, SO_REUSEADDR, 1);
    ret("bind", bind(b, &to));
    send_to(s, b"both", &to);
    readable(a);
    say!("{} {}", recv(a, 16, MSG_DONTWAIT), recv(b, 16, MSG_DONTWAIT));
    ret("loop off", set(s, IPPROTO_IP, libc::IP_MULTICAST_LOOP, 0));
    send_to(s, b"silent", &to);
    pause_ms(5);
    say!("{} {}", recv(a, 16, MSG_DONTWAIT), recv(b, 16, MSG_DONTWAIT));
    ret("leave", set_bytes(a, IPPROTO_IP, libc::IP_DROP_MEMBERSHIP, &mreq(GROUP, [0; 4], LO)));
    ret("leave again", set_bytes(a, IPPROTO_IP, libc::IP_DROP_MEMBERSHIP, &mreq(GROUP, [0; 4], LO)));
    ret("not a group", set_bytes(a, IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &mreq([10, 0, 0, 1], [0; 4], LO)));
    ret("no such interface", set_bytes(a, IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &mreq(GROUP, [0; 4], 77)));
    ret("short", set_bytes(a, IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &GROUP));
    ret("tcp", set_bytes(tcp(V4), IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &mreq(GROUP, [0; 4], LO)));
}

fn multicast_sources() {
    let a = udp(V4);
    must("bind", bind(a, &V4.any(7102)));
    let s = udp(V4);
    must("interface", set_bytes(s, IPPROTO_IP, libc::IP_MULTICAST_IF, &mreq([0; 4], [127, 0, 0, 1], 0)));
    let source = |group: [u8; 4], local: [u8; 4], from: [u8; 4]| {
        let mut v = group.to_vec();
        v.extend(local);
        v.extend(from);
        v
    };
    let lo = [127, 0, 0, 1];
    let other = [127, 0, 0, 9];
    let to = Addr::v4(GROUP, 7102);
    let join = libc::IP_ADD_SOURCE_MEMBERSHIP;
    ret("join a source", set_bytes(a, IPPROTO_IP, join, &source(GROUP, lo, other)));
    send_to(s, b"another's", &to);
    pause_ms(5);
    say!("{}", recv(a, 16, MSG_DONTWAIT));
    ret("join the other", set_bytes(a, IPPROTO_IP, join, &source(GROUP, lo, lo)));
    send_to(s, b"wanted", &to);
    readable(a);
    say!("{}", recv(a, 16, MSG_DONTWAIT));
    ret("leave it", set_bytes(a, IPPROTO_IP, libc::IP_DROP_SOURCE_MEMBERSHIP, &source(GROUP, lo, lo)));
    send_to(s, b"unwanted", &to);
    pause_ms(5);
    say!("{}", recv(a, 16, MSG_DONTWAIT));
    ret("leave", set_bytes(a, IPPROTO_IP, libc::IP_DROP_SOURCE_MEMBERSHIP, &source(GROUP, lo, other)));
    ret("join all", set_bytes(a, IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &mreq(GROUP, [0; 4], LO)));
    ret("block", set_bytes(a, IPPROTO_IP, libc::IP_BLOCK_SOURCE, &source(GROUP, lo, lo)));
    send_to(s, b"blocked", &to);
    pause_ms(5);
    say!("{}", recv(a, 16, MSG_DONTWAIT));
    ret("unblock", set_bytes(a, IPPROTO_IP, libc::IP_UNBLOCK_SOURCE, &source(GROUP, lo, lo)));
    ret("unblock again", set_bytes(a, IPPROTO_IP, libc::IP_UNBLOCK_SOURCE, &source(GROUP, lo, lo)));
    send_to(s, b"again", &to);
    readable(a);
    say!("{}", recv(a, 16, MSG_DONTWAIT));
}

/// A `struct ip_msfilter`.
fn msfilter(group: [u8; 4], local: [u8; 4], mode: u32, count: u32, sources: &[[u8; 4]]) -> Vec<u8> {
    let mut v = [group, local, mode.to_ne_bytes(), count.to_ne_bytes()].concat();
    v.extend(sources.concat());
    v
}

/// A `struct group_filter`.
fn group_filter(device: u32, group: &Addr, mode: u32, count: u32, sources: &[Addr]) -> Vec<u8> {
    let mut v = [device.to_ne_bytes(), [0; 4]].concat();
    v.extend(group.raw);
    v.extend([mode.to_ne_bytes(), count.to_ne_bytes()].concat());
    sources.iter().for_each(|s| v.extend(s.raw));
    v
}

/// Asks with a value; says how long the answer is and its end.
fn ask(fd: i32, level: i32, name: i32, value: &[u8], room: i32) -> String {
    let mut buffer = [0u8; 2048];
    buffer[..value.len()].copy_from_slice(value);
    let mut len = room;
    let r = sys!(getsockopt, fd, level, name, &mut buffer, &mut len);
    if r < 0 {
        return format!("{} {len}", number(r));
    }
    let end = len as usize;
    let head = if name == 41 { 8 } else { 136 };
    format!("{len} {:?}", &buffer[head.min(end)..end])
}

fn source_filters() {
    const MSFILTER: i32 = 41;
    let a = udp(V4);
    must("bind", bind(a, &V4.any(7103)));
    let s = udp(V4);
    let (lo, other) = ([127, 0, 0, 1], [127, 0, 0, 9]);
    must("interface", set_bytes(s, IPPROTO_IP, libc::IP_MULTICAST_IF, &mreq([0; 4], lo, 0)));
    let to = Addr::v4(GROUP, 7103);
    let arrives = |label: &str| {
        send_to(s, label.as_bytes(), &to);
        pause_ms(5);
        say!("{label} {}", recv(a, 32, MSG_DONTWAIT));
    };
    let set = |label: &str, value: &[u8]| ret(label, set_bytes(a, IPPROTO_IP, MSFILTER, value));
    set("not joined", &msfilter(GROUP, lo, 0, 0, &[]));
    say!("{}", ask(a, IPPROTO_IP, MSFILTER, &msfilter(GROUP, lo, 0, 4, &[]), 64));
    must("join", set_bytes(a, IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &mreq(GROUP, [0; 4], LO)));
    say!("{}", ask(a, IPPROTO_IP, MSFILTER, &msfilter(GROUP, lo, 0, 4, &[]), 64));
    set("but one", &msfilter(GROUP, lo, 0, 1, &[lo]));
    arrives("blocked");
    say!("{}", ask(a, IPPROTO_IP, MSFILTER, &msfilter(GROUP, lo, 0, 4, &[]), 64));
    set("only two", &msfilter(GROUP, lo, 1, 2, &[other, lo]));
    arrives("wanted");
    for (room, count) in [(64, 4), (64, 1), (64, 0), (16, 0), (15, 0)] {
        say!("{}", ask(a, IPPROTO_IP, MSFILTER, &msfilter(GROUP, lo, 0, count, &[]), room));
    }
    set("only another", &msfilter(GROUP, lo, 1, 1, &[other]));
    arrives("unwanted");
    set("of all", &msfilter(GROUP, lo, 0, 0, &[]));
    arrives("all");
    set("short", &msfilter(GROUP, lo, 0, 1, &[])[..15]);
    set("count without sources", &msfilter(GROUP, lo, 0, 2, &[lo]));
    set("too many", &msfilter(GROUP, lo, 0, 11, &[lo; 11]));
    set("as many as may be", &msfilter(GROUP, lo, 0, 10, &[other; 10]));
    set("no mode", &msfilter(GROUP, lo, 2, 0, &[]));
    set("no group", &msfilter(lo, lo, 0, 0, &[]));
    set("no interface", &msfilter(GROUP, [10, 9, 8, 7], 0, 0, &[]));
    say!("{}", ask(a, IPPROTO_IP, MSFILTER, &msfilter(lo, lo, 0, 4, &[]), 64));
    say!("{}", ask(a, IPPROTO_IP, MSFILTER, &msfilter([224, 1, 2, 9], lo, 0, 4, &[]), 64));
    set("of none", &msfilter(GROUP, lo, 1, 0, &[]));
    set("again", &msfilter(GROUP, lo, 1, 0, &[]));
}

fn group_filters() {
    const MCAST_JOIN_GROUP: i32 = 42;
    const MSFILTER: i32 = 48;
    let addr4 = |ip: [u8; 4]| Addr::v4(ip, 0);
    let addr6 = |last: u8| {
        let mut ip = [0; 16];
        ip[15] = last;
        Addr::v6(ip, 0, 0)
    };
    for (label, net, port, level, group, good, bad) in [
        ("v4", V4, 7104, IPPROTO_IP, addr4(GROUP), addr4([127, 0, 0, 1]), addr4([127, 0, 0, 9])),
        ("v6", V6, 7105, IPPROTO_IPV6, Addr::v6(GROUP6, 0, 0), addr6(1), addr6(9)),
    ] {
        let a = udp(net);
        must("bind", bind(a, &net.any(port)));
        let s = udp(net);
        if net == V4 {
            must("interface", set_bytes(s, level, libc::IP_MULTICAST_IF, &mreq([0; 4], [127, 0, 0, 1], 0)));
        }
        let to = Addr::v4(GROUP, port);
        // On loopback IPv6 has no route for the group unless somebody adds one.
        let arrives = |what: &str| {
            if net == V6 {
                return;
            }
            send_to(s, what.as_bytes(), &to);
            pause_ms(5);
            say!("{label} {what} {}", recv(a, 32, MSG_DONTWAIT));
        };
        let set =
            |what: &str, value: &[u8]| ret(format!("{label} {what}"), set_bytes(a, level, MSFILTER, value));
        let get = |count: u32, room: i32| {
            say!("{}", ask(a, level, MSFILTER, &group_filter(LO as u32, &group, 0, count, &[]), room));
        };
        set("not joined", &group_filter(LO as u32, &group, 0, 0, &[]));
        get(4, 1024);
        let mut join = [(LO as u32).to_ne_bytes(), [0; 4]].concat();
        join.extend(group.raw);
        must("join", set_bytes(a, level, MCAST_JOIN_GROUP, &join));
        get(4, 1024);
        set("but one", &group_filter(LO as u32, &group, 0, 1, &[good]));
        arrives("blocked");
        set("only two", &group_filter(LO as u32, &group, 1, 2, &[bad, good]));
        arrives("wanted");
        get(4, 1024);
        get(1, 1024);
        get(0, 144);
        get(0, 143);
        say!("{}", ask(a, level, MSFILTER, &group_filter(0, &group, 0, 0, &[]), 1024));
        set("only another", &group_filter(LO as u32, &group, 1, 1, &[bad]));
        arrives("unwanted");
        set("short", &group_filter(LO as u32, &group, 0, 0, &[])[..143]);
        set("count without sources", &group_filter(LO as u32, &group, 0, 2, &[good]));
        set("no mode", &group_filter(LO as u32, &group, 2, 0, &[]));
        set("no group", &group_filter(LO as u32, &good, 0, 0, &[]));
        set("no interface", &group_filter(99, &group, 0, 0, &[]));
        set("of none", &group_filter(LO as u32, &group, 1, 0, &[]));
        arrives("left");
    }
}

/// `IPV6_PKTINFO` as an option: the interface of what is sent.
fn sticky_interface() {
    const PKTINFO: i32 = libc::IPV6_PKTINFO;
    let info = |ip: [u8; 16], index: i32| {
        let mut v = ip.to_vec();
        v.extend(index.to_ne_bytes());
        v
    };
    let there = udp(V6);
    must("bind", bind(there, &V6.any(0)));
    let port = own(there).port();
    let mut foreign = [0u8; 16];
    foreign[0] = 0x20;
    for (label, value) in [
        ("nowhere", info([0; 16], 99)),
        ("loopback", info([0; 16], LO)),
        ("an address", info(foreign, 0)),
        ("both", info(foreign, LO)),
        ("none", info([0; 16], 0)),
        ("longer", [info([0; 16], LO), vec![1; 4]].concat()),
        ("short", vec![0; 16]),
        ("empty", vec![]),
    ] {
        let s = udp(V6);
        ret(label, set_bytes(s, IPPROTO_IPV6, PKTINFO, &value));
        ret("send", send_to(s, b"x", &V6.loopback(port)));
        say!("{}", recv(there, 8, MSG_DONTWAIT));
        ret("by IPv4", send_to(s, b"x", &Mapped.loopback(port)));
        say!("{}", recv(there, 8, MSG_DONTWAIT));
        let c = udp(V6);
        set_bytes(c, IPPROTO_IPV6, PKTINFO, &value);
        ret("connect", connect(c, &V6.loopback(port)));
        say!("{:?}", get_bytes(c, IPPROTO_IPV6, 61, 32));
        say!("{:?}", get_bytes(c, IPPROTO_IPV6, 61, 31));
    }
    let s = udp(V6);
    must("bound", set(s, libc::SOL_SOCKET, 62, LO));
    ret("another", set_bytes(s, IPPROTO_IPV6, PKTINFO, &info([0; 16], 0)));
    ret("the same", set_bytes(s, IPPROTO_IPV6, PKTINFO, &info([0; 16], LO)));
    say!("{:?}", get_bytes(s, IPPROTO_IPV6, PKTINFO, 32));
    ret("hop limit", set(s, IPPROTO_IPV6, libc::IPV6_HOPLIMIT, 5));
}

const GROUP6: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x23];

fn mreq6(group: [u8; 16], index: i32) -> Vec<u8> {
    let mut v = group.to_vec();
    v.extend(index.to_ne_bytes());
    v
}

fn multicast6() {
    let a = udp(V6);
    must("bind", bind(a, &V6.any(7103)));
    let s = udp(V6);
    ret("interface", set(s, IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, LO));
    let to = Addr::v6(GROUP6, 7103, 0);
    ret("join", set_bytes(a, IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &mreq6(GROUP6, LO)));
    ret("twice", set_bytes(a, IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &mreq6(GROUP6, LO)));
    ret("send", send_to(s, b"members", &to));
    readable(a);
    say!("{:?}", recv_from(a, 16, MSG_DONTWAIT));
    ret("leave", set_bytes(a, IPPROTO_IPV6, libc::IPV6_DROP_MEMBERSHIP, &mreq6(GROUP6, LO)));
    ret("leave again", set_bytes(a, IPPROTO_IPV6, libc::IPV6_DROP_MEMBERSHIP, &mreq6(GROUP6, LO)));
    ret("not a group", set_bytes(a, IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &mreq6(LOOPBACK6, LO)));
    ret("no such interface", set_bytes(a, IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &mreq6(GROUP6, 77)));
    ret("no such interface to send by", set(s, IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, 77));
    ret("short", set_bytes(a, IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &GROUP6));
}

fn queue_limit(net: Net) {
    let (a, at) = bound(udp(net), net);
    must("small", set(a, SOL_SOCKET, libc::SO_RCVBUF, 1));
    let s = udp(net);
    for _ in 0..200 {
        must("send", send_to(s, &[7; 500], &at));
    }
    pause_ms(10);
    let mut n = 0;
    while recv(a, 8, MSG_DONTWAIT) != "EAGAIN" {
        n += 1;
    }
    claim("some, not all", n > 0 && n < 100);
    send_to(s, b"room again", &at);
    say!("{}", recv(a, 16, 0));
}

fn queue_sizes(net: Net) {
    let (a, b) = datagrams(net);
    let ask = |fd: i32, cmd: u32| {
        let mut v = -1i32;
        let r = sys!(ioctl, fd, cmd, &mut v);
        if r < 0 { number(r) } else { v.to_string() }
    };
    say!("{} {}", ask(b, 0x541b), ask(a, 0x5411));
    send(a, b"first", 0);
    send(a, b"the second", 0);
    readable(b);
    say!("{}", ask(b, 0x541b));
    recv(b, 1, 0);
    say!("{} {}", ask(b, 0x541b), ask(a, 0x5411));
    say!("{}", ask(b, 0x8905));
}

fn many_at_once(net: Net) {
    let (a, b) = datagrams(net);
    let texts = [&b"one"[..], &b"three"[..], &b""[..]];
    let iov: Vec<libc::iovec> =
        texts.iter().map(|t| libc::iovec { iov_base: t.as_ptr() as *mut _, iov_len: t.len() }).collect();
    let mut list: Vec<libc::mmsghdr> = Vec::new();
    for i in &iov {
        let mut m: libc::mmsghdr = crate::case::zeroed();
        m.msg_hdr.msg_iov = &raw const *i as *mut _;
        m.msg_hdr.msg_iovlen = 1;
        list.push(m);
    }
    ret("sendmmsg", sys!(sendmmsg, a, list.as_mut_slice(), 3, 0));
    say!("{:?}", list.iter().map(|m| m.msg_len).collect::<Vec<_>>());
    ret("none", sys!(sendmmsg, a, list.as_mut_slice(), 0, 0));
    let mut bufs = [[0u8; 16]; 4];
    let iov: Vec<libc::iovec> =
        bufs.iter_mut().map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 16 }).collect();
    let mut list: Vec<libc::mmsghdr> = Vec::new();
    for i in &iov {
        let mut m: libc::mmsghdr = crate::case::zeroed();
        m.msg_hdr.msg_iov = &raw const *i as *mut _;
        m.msg_hdr.msg_iovlen = 1;
        list.push(m);
    }
    ret("recvmmsg", sys!(recvmmsg, b, list.as_mut_slice(), 4, libc::MSG_WAITFORONE, 0));
    say!("{:?}", list.iter().map(|m| m.msg_len).collect::<Vec<_>>());
    ret("empty", sys!(recvmmsg, b, list.as_mut_slice(), 4, MSG_DONTWAIT, 0));
    let span = [0i64, -1];
    ret("bad span", sys!(recvmmsg, b, list.as_mut_slice(), 4, MSG_DONTWAIT, &span));
}

fn dual_stack() {
    let a = udp(V6);
    must("bind", bind(a, &V6.any(7104)));
    ret("ipv4", send_to(udp(V4), b"four", &V4.loopback(7104)));
    say!("{:?}", recv_from(a, 8, 0));
    ret("ipv6", send_to(udp(V6), b"six", &V6.loopback(7104)));
    say!("{:?}", recv_from(a, 8, 0));
    let four = udp(V4);
    must("bind", bind(four, &V4.any(7105)));
    ret("mapped", send_to(a, b"mapped", &Mapped.loopback(7105)));
    say!("{:?}", recv_from(four, 8, 0));
    ret("plain ipv4 address", send_to(a, b"plain", &V4.loopback(7105)));
    say!("{:?}", recv_from(four, 8, MSG_DONTWAIT));
    ret("connect to plain", connect(a, &V4.loopback(7105)));
    say!("{}", peer(a));
    let only = udp(V6);
    v6only(only, 1);
    ret("v6only to mapped", send_to(only, b"x", &Mapped.loopback(7105)));
    ret("v6only bind beside", bind(socket_v6only(), &V6.any(7105)));
    ret("v6 address on v4", send_to(four, b"x", &V6.loopback(7104)));
}

fn socket_v6only() -> i32 {
    let fd = udp(V6);
    v6only(fd, 1);
    fd
}

fn segments() {
    const UDP_SEGMENT: i32 = 103;
    let (a, b) = datagrams(V4);
    ret("set", set(a, libc::IPPROTO_UDP, UDP_SEGMENT, 4));
    say!("{}", get(a, libc::IPPROTO_UDP, UDP_SEGMENT));
    ret("send", send(a, b"aaaabbbbcc", 0));
    readable(b);
    say!("{} {} {}", recv(b, 16, MSG_DONTWAIT), recv(b, 16, MSG_DONTWAIT), recv(b, 16, MSG_DONTWAIT));
    ret("off", set(a, libc::IPPROTO_UDP, UDP_SEGMENT, 0));
    let size = (libc::IPPROTO_UDP, UDP_SEGMENT, 5u16.to_ne_bytes().to_vec());
    ret("by message", send_msg(a, b"1234512345", None, &[size], 0));
    readable(b);
    say!("{} {}", recv(b, 16, MSG_DONTWAIT), recv(b, 16, MSG_DONTWAIT));
    ret("too large", set(a, libc::IPPROTO_UDP, UDP_SEGMENT, 70000));
    ret("negative", set(a, libc::IPPROTO_UDP, UDP_SEGMENT, -1));
}

fn corking(net: Net) {
    let (a, b) = datagrams(net);
    ret("more", send(a, b"first ", libc::MSG_MORE));
    pause_ms(5);
    say!("{}", recv(b, 32, MSG_DONTWAIT));
    ret("rest", send(a, b"second", 0));
    readable(b);
    say!("{}", recv(b, 32, MSG_DONTWAIT));
    const UDP_CORK: i32 = 1;
    ret("cork", set(a, libc::IPPROTO_UDP, UDP_CORK, 1));
    send(a, b"a", 0);
    send(a, b"b", 0);
    pause_ms(5);
    say!("{}", recv(b, 32, MSG_DONTWAIT));
    ret("uncork", set(a, libc::IPPROTO_UDP, UDP_CORK, 0));
    readable(b);
    say!("{}", recv(b, 32, MSG_DONTWAIT));
}

fn bind_twice_and_errors(net: Net) {
    let (fd, a) = bound(udp(net), net);
    ret("again", bind(fd, &a));
    ret("nobody's", bind(udp(net), &net.nowhere(0)));
    ret("short", bind(udp(net), &a.with_len(8)));
    ret("listen", listen(fd, 1));
    in_child("user", || {
        must("setuid", sys!(setuid, 1000));
        ret("privileged port", bind(udp(net), &net.loopback(53)));
        0
    });
    done("tcp has ports of its own", bind(tcp(net), &a));
}

fn lite(net: Net) {
    let open = || socket(net.domain(), libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE);
    let (a, at) = bound(open(), net);
    let b = open();
    ret("send", send_to(b, b"lite", &at));
    say!("{:?}", recv_from(a, 8, 0));
    ret("udp with the same port", bind(udp(net), &at));
    say!("{}", get(a, SOL_SOCKET, libc::SO_PROTOCOL));
    ret("coverage", set(a, 136, 10, 8));
    say!("{}", get(a, 136, 10));
    ret("coverage of what comes", set(a, 136, 11, 20));
    ret("less than the header", set(b, 136, 10, 3));
    ret("more than there can be", set(b, 136, 11, 100_000));
    say!("{} {} {}", get(a, 136, 11), get(b, 136, 10), get(b, 136, 11));
    ret("of UDP", set(udp(net), 136, 10, 8));
    ret("all of it wanted", set(a, 136, 11, 0));
    say!("{}", get(a, 136, 11));
    ret("connect", connect(b, &at));
    ret("listen", listen(b, 1));
}

pub const NETS: &[Case] = nets![
    [v4 v6 mapped] "sendto/udp" "recvfrom getsockname" exchange;
    [v4 v6 mapped] "sendto/udp_destinations" "recvfrom" destinations;
    [v4 v6 mapped] "connect/udp" "sendto recvfrom" connected;
    [v4 v6 mapped] "recvfrom/udp_refused" "connect poll getsockopt" refused;
    [v4 v6] "recvmsg/udp_truncated" "recvfrom" truncated;
    [v4 v6] "shutdown/udp" "sendto recvfrom" shutdowns;
    [v4 v6] "shutdown/udp_wakes" "recvfrom" shutdown_wakes;
    [v4 v6] "bind/udp_sharing" "setsockopt recvfrom" sharing_ports;
    [v4 v6] "bind/udp_reuseport_group" "setsockopt recvfrom" group_of_ports;
    [v4 v6] "setsockopt/udp_queue_limit" "recvfrom" queue_limit;
    [v4 v6] "ioctl/udp_queues" "" queue_sizes;
    [v4 v6] "sendmmsg/udp" "recvmmsg" many_at_once;
    [v4 v6] "sendto/udp_more" "setsockopt" corking;
    [v4 v6] "bind/udp_errors" "listen" bind_twice_and_errors;
    [v4 v6] "sendto/udplite" "recvfrom bind" lite;
];

pub const CASES: &[Case] = &[
    case("sendto/udp_broadcast", "setsockopt", broadcast),
    case("setsockopt/multicast4", "sendto recvfrom", multicast4),
    case("setsockopt/multicast_sources", "sendto recvfrom", multicast_sources),
    case("setsockopt/multicast_filters", "getsockopt", source_filters),
    case("setsockopt/multicast_group_filters", "getsockopt", group_filters),
    case("setsockopt/sticky_interface", "getsockopt sendto", sticky_interface),
    case("setsockopt/multicast6", "sendto recvfrom", multicast6),
    case("sendto/udp_dual_stack", "recvfrom connect", dual_stack),
    case("setsockopt/udp_segment", "sendmsg", segments),
];
