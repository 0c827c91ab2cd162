//! AF_NETLINK: names, dumps and changes of interfaces, addresses and routes, news of them, lists of sockets.

use super::kit::*;
use crate::case::{Case, case, in_child, until};
use crate::out::{claim, must, number, ret, until_nul};
use crate::{say, sys};
use libc::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, MSG_DONTWAIT, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, SOL_SOCKET,
};

pub(super) const DUMP: u16 = 0x300;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
pub(super) const CREATE: u16 = 0x400;
pub(super) const EXCL: u16 = 0x200;

pub(super) fn netlink(protocol: i32) -> i32 {
    let fd = socket(AF_NETLINK, SOCK_RAW, protocol);
    let span = [2i64, 0];
    must("timeout", sys!(setsockopt, fd, SOL_SOCKET, libc::SO_RCVTIMEO, &span, 16));
    fd
}

pub(super) fn address(port: u32, groups: u32) -> Addr {
    let mut b = (AF_NETLINK as u16).to_ne_bytes().to_vec();
    b.extend([0, 0]);
    b.extend(port.to_ne_bytes());
    b.extend(groups.to_ne_bytes());
    Addr::new(&b)
}

pub(super) fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut m = (16 + body.len() as u32).to_ne_bytes().to_vec();
    m.extend(kind.to_ne_bytes());
    m.extend((flags | REQUEST).to_ne_bytes());
    m.extend(7u32.to_ne_bytes());
    m.extend(0u32.to_ne_bytes());
    m.extend(body);
    m
}

pub(super) fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut a = (4 + data.len() as u16).to_ne_bytes().to_vec();
    a.extend(kind.to_ne_bytes());
    a.extend(data);
    a.resize(a.len().next_multiple_of(4), 0);
    a
}

pub(super) struct Message {
    pub kind: u16,
    flags: u16,
    pub body: Vec<u8>,
}

impl Message {
    pub fn find(&self, skip: usize, wanted: u16) -> Option<&[u8]> {
        let mut rest = self.body.get(skip..)?;
        while rest.len() >= 4 {
            let len = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
            if len < 4 || len > rest.len() {
                return None;
            }
            if u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff == wanted {
                return Some(&rest[4..len]);
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        None
    }
    /// The result in an acknowledgement.
    pub fn result(&self) -> String {
        if self.kind == 2 { number(int_at(&self.body, 0) as isize) } else { format!("kind {}", self.kind) }
    }
}

/// The messages of one datagram.
pub(super) fn receive(fd: i32, flags: i32) -> Vec<Message> {
    let mut b = vec![0u8; 32768];
    let n = sys!(recvfrom, fd, b.as_mut_slice(), b.len(), flags, 0, 0);
    let mut rest = &b[..n.max(0) as usize];
    let mut list = Vec::new();
    while rest.len() >= 16 {
        let len = int_at(rest, 0) as usize;
        if len < 16 || len > rest.len() {
            break;
        }
        let half = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        list.push(Message { kind: half(4), flags: half(6), body: rest[16..len].to_vec() });
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    list
}

/// Asks for a dump and gives its messages without the end.
pub(super) fn dump(fd: i32, kind: u16, body: &[u8]) -> Vec<Message> {
    let m = message(kind, DUMP, body);
    must("send", send(fd, &m, 0));
    let mut all = Vec::new();
    loop {
        let got = receive(fd, 0);
        if got.is_empty() {
            return all;
        }
        for m in got {
            if m.kind == 3 || m.kind == 2 {
                return all;
            }
            all.push(m);
        }
    }
}

/// Sends a request that is to be acknowledged.
pub(super) fn ask(fd: i32, kind: u16, flags: u16, body: &[u8]) -> String {
    must("send", send(fd, &message(kind, flags | ACK, body), 0));
    receive(fd, 0).first().map_or("silence".to_owned(), Message::result)
}

fn names() {
    for (label, protocol) in [("route", 0), ("diag", 4), ("uevent", 15)] {
        say!("{label} {}", number(sys!(socket, AF_NETLINK, SOCK_DGRAM, protocol).min(0)));
    }
    ret("stream", sys!(socket, AF_NETLINK, SOCK_STREAM, 0));
    ret("protocol 40", sys!(socket, AF_NETLINK, SOCK_RAW, 40));
    ret("negative", sys!(socket, AF_NETLINK, SOCK_RAW, -1));
    let fd = netlink(0);
    let own_port = |fd: i32| int_at(&own(fd).raw, 4);
    say!("fresh {}", own_port(fd));
    ret("bind", bind(fd, &address(0, 0)));
    claim("the process' number", own_port(fd) == sys!(getpid) as i32);
    ret("again", bind(fd, &address(0, 0)));
    ret("elsewhere", bind(fd, &address(12345, 0)));
    let other = netlink(0);
    ret("taken", bind(other, &address(own_port(fd) as u32, 0)));
    ret("chosen", bind(other, &address(4_000_000, 0)));
    let third = netlink(0);
    ret("by itself", bind(third, &address(0, 0)));
    claim("another number", own_port(third) != own_port(fd));
    ret("short", bind(netlink(0), &address(0, 0).with_len(8)));
    say!("peer {}", peer(fd));
    ret("connect", connect(fd, &address(0, 0)));
    ret("unspec", connect(fd, &Addr::family(0, 12)));
    ret("listen", listen(fd, 1));
    ret("accept", accept(fd));
    ret("shutdown", sys!(shutdown, fd, 2));
    say!("{}", poll(fd));
    say!("{}", recv(fd, 8, MSG_DONTWAIT));
}

fn links() {
    let fd = netlink(0);
    let all = dump(fd, 18, &[0; 16]);
    let lo = all.iter().find(|m| int_at(&m.body, 4) == 1);
    let Some(lo) = lo else { return say!("no loopback") };
    say!("kind {} type {}", lo.kind, u16::from_ne_bytes([lo.body[2], lo.body[3]]));
    say!("name {}", until_nul(lo.find(16, 3).unwrap_or_default()));
    say!("mtu {:?}", lo.find(16, 4).map(|b| int_at(b, 0)));
    say!("address {:?}", lo.find(16, 1));
    say!("broadcast {:?}", lo.find(16, 2));
    say!("flags {:#x}", int_at(&lo.body, 8));
    say!("stats {:?}", lo.find(16, 7).map(|s| s.len()));
    let mut by_index = vec![0u8; 4];
    by_index.extend(1i32.to_ne_bytes());
    by_index.extend([0; 8]);
    must("send", send(fd, &message(18, 0, &by_index), 0));
    let one = receive(fd, 0);
    say!("one {} {:?}", one.len(), one.first().map(|m| (m.kind, m.flags)));
    by_index[4] = 99;
    say!("unknown {}", ask(fd, 18, 0, &by_index));
    say!("nothing asked {}", ask(fd, 18, 0, &[0; 16]));
}

fn addresses() {
    let fd = netlink(0);
    for (label, family, skip) in [("v4", AF_INET, 4), ("v6", AF_INET6, 16)] {
        let mut body = vec![family as u8];
        body.extend([0; 7]);
        for m in dump(fd, 22, &body) {
            if int_at(&m.body, 4) == 1 {
                say!(
                    "{label} kind {} prefix {} {:?}",
                    m.kind,
                    m.body[1],
                    m.find(8, 1).map(|a| a.len() == skip)
                );
                say!("{:?} scope {}", m.find(8, 1), m.body[3]);
            }
        }
    }
}

/// Body of a message about an address of the loopback interface.
fn lo_address(ip: [u8; 4], prefix: u8) -> Vec<u8> {
    let mut b = vec![AF_INET as u8, prefix, 0, 0];
    b.extend(1i32.to_ne_bytes());
    b.extend(attribute(2, &ip));
    b.extend(attribute(1, &ip));
    b
}

fn change_addresses() {
    let fd = netlink(0);
    let ip = [10, 9, 8, 7];
    let me = Addr::v4(ip, 0);
    ret("before", bind(tcp(V4), &me));
    say!("add {}", ask(fd, 20, CREATE | EXCL, &lo_address(ip, 32)));
    ret("bind", bind(tcp(V4), &me));
    say!("again {}", ask(fd, 20, CREATE | EXCL, &lo_address(ip, 32)));
    let listed = dump(fd, 22, &[0; 8]).iter().any(|m| m.find(8, 2) == Some(&ip[..]));
    claim("listed", listed);
    say!("delete {}", ask(fd, 21, 0, &lo_address(ip, 32)));
    say!("again {}", ask(fd, 21, 0, &lo_address(ip, 32)));
    ret("after", bind(tcp(V4), &me));
    let mut no_device = lo_address(ip, 32);
    no_device[4] = 99;
    say!("no device {}", ask(fd, 20, CREATE | EXCL, &no_device));
    in_child("user", || {
        must("setuid", sys!(setuid, 1000));
        let fd = netlink(0);
        say!("{}", ask(fd, 20, CREATE | EXCL, &lo_address(ip, 32)));
        0
    });
}

/// Body of a message about a route to a network of IPv4 by the loopback interface.
fn lo_route(ip: [u8; 4], prefix: u8) -> Vec<u8> {
    let mut b = vec![AF_INET as u8, prefix, 0, 0, 254, 3, 253, 1];
    b.extend([0; 4]);
    b.extend(attribute(1, &ip));
    b.extend(attribute(4, &1i32.to_ne_bytes()));
    b
}

fn change_routes() {
    let fd = netlink(0);
    let net = [203, 0, 113, 0];
    ret("no way", connect(udp(V4), &Addr::v4([203, 0, 113, 9], 9)));
    say!("add {}", ask(fd, 24, CREATE | EXCL, &lo_route(net, 24)));
    ret("a way", connect(udp(V4), &Addr::v4([203, 0, 113, 9], 9)));
    say!("again {}", ask(fd, 24, CREATE | EXCL, &lo_route(net, 24)));
    let mut body = vec![AF_INET as u8];
    body.extend([0; 11]);
    let found = dump(fd, 26, &body).into_iter().find(|m| m.find(12, 1) == Some(&net[..]));
    let words = found
        .map(|m| (m.kind, m.body[1], m.body[4], m.body[5], m.body[7], m.find(12, 4).map(|d| int_at(d, 0))));
    say!("{words:?}");
    say!("delete {}", ask(fd, 25, 0, &lo_route(net, 24)));
    say!("again {}", ask(fd, 25, 0, &lo_route(net, 24)));
    ret("no way", connect(udp(V4), &Addr::v4([203, 0, 113, 9], 9)));
    in_child("user", || {
        must("setuid", sys!(setuid, 1000));
        say!("{}", ask(netlink(0), 24, CREATE | EXCL, &lo_route(net, 24)));
        0
    });
}

/// An address of IPv6 brings a route to its network along; a route that is put in gets a metric.
fn routes_of_ipv6() {
    let fd = netlink(0);
    let ip = |last: u8, network: u8| {
        let mut ip = [0; 16];
        (ip[0], ip[1], ip[3], ip[15]) = (0xfd, 0x77, network, last);
        ip
    };
    let about = |ip: [u8; 16], prefix: u8| {
        let mut b = vec![AF_INET6 as u8, prefix, 0, 0];
        b.extend(1i32.to_ne_bytes());
        b.extend(attribute(1, &ip));
        b
    };
    let to = |ip: [u8; 16], prefix: u8| {
        let mut b = vec![AF_INET6 as u8, prefix, 0, 0, 254, 3, 0, 1];
        b.extend([0; 4]);
        b.extend(attribute(1, &ip));
        b.extend(attribute(4, &1i32.to_ne_bytes()));
        b
    };
    let show = |label: &str| {
        say!("{label}");
        let mut body = vec![AF_INET6 as u8];
        body.extend([0; 11]);
        for m in dump(fd, 26, &body) {
            let metric = m.find(12, 6).map(|d| int_at(d, 0));
            let (dst, pref) = (m.find(12, 1), m.find(12, 20));
            say!("table {} kind {} from {} scope {}", m.body[4], m.body[7], m.body[5], m.body[6]);
            say!("{dst:?}/{} metric {metric:?} {pref:?}", m.body[1]);
        }
        // All but the references.
        for line in std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let fixed: Vec<&str> =
                words.iter().enumerate().filter(|(i, _)| *i != 6).map(|(_, w)| *w).collect();
            say!("{}", fixed.join(" "));
        }
    };
    show("before");
    say!("add {}", ask(fd, 20, CREATE | EXCL, &about(ip(2, 0), 64)));
    say!("add {}", ask(fd, 20, CREATE | EXCL, &about(ip(3, 0), 64)));
    say!("add {}", ask(fd, 20, CREATE | EXCL, &about(ip(1, 1), 128)));
    say!("route {}", ask(fd, 24, CREATE | EXCL, &to(ip(0, 2), 48)));
    say!("route {}", ask(fd, 24, CREATE | EXCL, &to(ip(0, 0), 32)));
    // Linux looks for duplicates in a thread of its own before an address is in the table of local ones.
    let local = |text: String| text.lines().filter(|l| l.contains(" 80200001 ")).count();
    until(|| std::fs::read_to_string("/proc/net/ipv6_route").is_ok_and(|text| local(text) == 4));
    show("with");
    for (ip, prefix) in [(ip(2, 0), 64), (ip(3, 0), 64), (ip(1, 1), 128)] {
        say!("delete {}", ask(fd, 21, 0, &about(ip, prefix)));
    }
    say!("delete {}", ask(fd, 25, 0, &to(ip(0, 2), 48)));
    say!("delete {}", ask(fd, 25, 0, &to(ip(0, 0), 32)));
    show("after");
}

fn one_route() {
    let fd = netlink(0);
    let mut body = vec![AF_INET as u8, 32];
    body.extend([0; 10]);
    body.extend(attribute(1, &[127, 0, 0, 9]));
    must("send", send(fd, &message(26, 0, &body), 0));
    let got = receive(fd, 0);
    let m = got.first();
    say!("{:?}", m.map(|m| (m.kind, m.body[1], m.body[4], m.body[7])));
    say!("{:?}", m.and_then(|m| m.find(12, 4)).map(|d| int_at(d, 0)));
    say!("{:?} {:?}", m.and_then(|m| m.find(12, 1)), m.and_then(|m| m.find(12, 7)));
    let mut body = vec![AF_INET as u8, 32];
    body.extend([0; 10]);
    body.extend(attribute(1, &[198, 51, 100, 1]));
    say!("no way {}", ask(fd, 26, 0, &body));
}

fn errors() {
    let fd = netlink(0);
    say!("unknown kind {}", ask(fd, 99, 0, &[0; 16]));
    ret("too short", send(fd, &[1, 2, 3], 0));
    say!("{}", recv(fd, 8, MSG_DONTWAIT));
    let mut bad = message(18, 0, &[0; 16]);
    bad[0] = 200;
    ret("too long a length", send(fd, &bad, 0));
    say!("{}", recv(fd, 8, MSG_DONTWAIT));
    let mut silent = message(18, 0, &[0; 16]);
    silent[6] = ACK as u8;
    ret("no request", send(fd, &silent, 0));
    say!("{}", receive(fd, MSG_DONTWAIT).first().map_or("silence".to_owned(), Message::result));
    ret("no operation", send(fd, &message(1, ACK, &[]), 0));
    say!("{}", receive(fd, MSG_DONTWAIT).first().map_or("silence".to_owned(), Message::result));
    let two = [message(1, ACK, &[]), message(1, ACK, &[])].concat();
    ret("two at once", send(fd, &two, 0));
    say!("{} {}", receive(fd, MSG_DONTWAIT).len(), receive(fd, MSG_DONTWAIT).len());
    ret("oob", send(fd, b"x", libc::MSG_OOB));
    ret("huge", send(fd, &vec![0; 1 << 20], 0));
    ret("to somebody", send_to(fd, &message(1, ACK, &[]), &address(77_777, 0)));
}

fn news() {
    let listener = netlink(0);
    // RTNLGRP_IPV4_IFADDR and RTNLGRP_IPV4_ROUTE
    ret("bind", bind(listener, &address(0, 1 << 4)));
    ret("join", set(listener, 270, 1, 7));
    ret("bad group", set(listener, 270, 1, 0));
    say!("{}", int_at(&own(listener).raw, 8));
    let fd = netlink(0);
    let ip = [10, 9, 8, 6];
    say!("add {}", ask(fd, 20, CREATE | EXCL, &lo_address(ip, 32)));
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut b = vec![0u8; 4096];
        let mut from = Addr { raw: [0; 128], len: 128 };
        let n = sys!(recvfrom, listener, b.as_mut_slice(), b.len(), 0, &mut from.raw, &mut from.len);
        if n < 16 {
            break;
        }
        seen.push((u16::from_ne_bytes([b[4], b[5]]), int_at(&from.raw, 4), int_at(&from.raw, 8)));
        if seen.last().is_some_and(|s| s.0 == 20) {
            break;
        }
    }
    say!("{:?}", seen.iter().find(|s| s.0 == 20));
    say!("delete {}", ask(fd, 21, 0, &lo_address(ip, 32)));
    let gone = (0..6).find_map(|_| receive(listener, 0).into_iter().find(|m| m.kind == 21));
    say!("{:?}", gone.map(|m| m.find(8, 2).map(<[u8]>::to_vec)));
    while !receive(listener, MSG_DONTWAIT).is_empty() {}
    say!("add {}", ask(fd, 24, CREATE | EXCL, &lo_route([203, 0, 112, 0], 24)));
    let route = (0..4).find_map(|_| receive(listener, 0).into_iter().find(|m| m.kind == 24));
    say!("{:?}", route.map(|m| (m.body[1], m.find(12, 1).map(<[u8]>::to_vec))));
    ret("leave", set(listener, 270, 2, 7));
    while !receive(listener, MSG_DONTWAIT).is_empty() {}
    say!("delete {}", ask(fd, 25, 0, &lo_route([203, 0, 112, 0], 24)));
    say!("{}", recv(listener, 8, MSG_DONTWAIT));
}

fn inet_diag_request(family: i32, protocol: i32, states: u32) -> Vec<u8> {
    let mut b = vec![family as u8, protocol as u8, 0, 0];
    b.extend(states.to_ne_bytes());
    b.extend([0; 48]);
    b
}

fn tcp_list() {
    let fd = netlink(4);
    let (l, at) = listener(V4);
    let c = tcp(V4);
    must("connect", connect(c, &at));
    let s = must("accept", accept(l)) as i32;
    send(c, b"12345", 0);
    readable(s);
    let all = dump(fd, 20, &inet_diag_request(AF_INET, 6, u32::MAX));
    let port = |m: &Message, at: usize| u16::from_be_bytes([m.body[at], m.body[at + 1]]);
    let of_listener: Vec<&Message> = all.iter().filter(|m| port(m, 4) == at.port()).collect();
    for m in &of_listener {
        say!("state {} queue {} local {:?}", m.body[1], int_at(&m.body, 56), &m.body[8..12]);
    }
    let clients = all.iter().filter(|m| port(m, 6) == at.port()).count();
    say!("clients {clients}");
    let only = dump(fd, 20, &inet_diag_request(AF_INET, 6, 1 << 10));
    claim("only listeners", !only.is_empty() && only.iter().all(|m| m.body[1] == 10));
    let u = udp(V4);
    must("bind", bind(u, &V4.loopback(7300)));
    let udps = dump(fd, 20, &inet_diag_request(AF_INET, 17, u32::MAX));
    say!("{:?}", udps.iter().find(|m| port(m, 4) == 7300).map(|m| m.body[1]));
}

/// One socket, by its ends.
fn one_socket() {
    let fd = netlink(4);
    let (l, at) = listener(V4);
    let c = tcp(V4);
    must("connect", connect(c, &at));
    let s = must("accept", accept(l)) as i32;
    let from = own(c).port();
    let request =
        |protocol: i32, (sport, source): (u16, u8), (dport, destination): (u16, u8), cookie: u64| {
            let mut b = vec![AF_INET as u8, protocol as u8, 0, 0];
            b.extend(u32::MAX.to_ne_bytes());
            b.extend(sport.to_be_bytes());
            b.extend(dport.to_be_bytes());
            for last in [source, destination] {
                b.extend(if last == 0 { [0; 4] } else { [127, 0, 0, last] });
                b.extend([0; 12]);
            }
            b.extend(0u32.to_ne_bytes());
            b.extend(cookie.to_ne_bytes());
            b
        };
    let any = u64::MAX;
    let ask = |label: &str, body: &[u8]| {
        must("send", send(fd, &message(20, 0, body), 0));
        let got = receive(fd, 0);
        let show = |m: &Message| {
            if m.kind == 2 {
                return m.result();
            }
            let port = |at: usize| u16::from_be_bytes([m.body[at], m.body[at + 1]]);
            let known = |port: u16| match port {
                0 | 7301 | 7302 => port.to_string(),
                p if p == at.port() => "server".to_owned(),
                p if p == from => "client".to_owned(),
                _ => "other".to_owned(),
            };
            format!("flags {:#x} state {} {} {}", m.flags, m.body[1], known(port(4)), known(port(6)))
        };
        say!("{label} {:?}", got.iter().map(show).collect::<Vec<_>>());
        got.first()
            .filter(|m| m.kind == 20)
            .map_or(0, |m| int_at(&m.body, 44) as u32 as u64 | (int_at(&m.body, 48) as u32 as u64) << 32)
    };
    ask("client", &request(6, (from, 1), (at.port(), 1), any));
    let cookie = ask("server", &request(6, (at.port(), 1), (from, 1), any));
    ask("by its cookie", &request(6, (at.port(), 1), (from, 1), cookie));
    ask("another cookie", &request(6, (at.port(), 1), (from, 1), cookie ^ 77));
    ask("who listens", &request(6, (at.port(), 1), (9, 1), any));
    ask("another address", &request(6, (at.port(), 2), (9, 1), any));
    ask("nobody", &request(6, (9, 1), (9, 1), any));
    ask("short", &[AF_INET as u8, 6, 0, 0]);
    let u = udp(V4);
    must("bind", bind(u, &V4.loopback(7301)));
    ask("UDP", &request(17, (9, 1), (7301, 1), any));
    ask("UDP, the other way", &request(17, (7301, 1), (9, 1), any));
    must("connect", connect(u, &V4.loopback(7302)));
    ask("UDP, connected", &request(17, (7302, 1), (7301, 1), any));
    crate::case::close(s);
}

fn unix_list() {
    let fd = netlink(4);
    let l = socket(AF_UNIX, SOCK_STREAM, 0);
    must("bind", bind(l, &Addr::unix(b"\0listed")));
    must("listen", listen(l, 3));
    let (a, b) = pair(SOCK_DGRAM);
    let ino = |fd: i32| {
        let mut st: libc::stat = crate::case::zeroed();
        must("fstat", sys!(fstat, fd, &mut st));
        st.st_ino as i32
    };
    let mut body = vec![AF_UNIX as u8, 0, 0, 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(0u32.to_ne_bytes());
    // Names, peers, queues.
    body.extend((1u32 | 4 | 16).to_ne_bytes());
    body.extend([0; 8]);
    let all = dump(fd, 20, &body);
    let find = |n: i32| all.iter().find(|m| int_at(&m.body, 4) == n);
    match find(ino(l)) {
        None => say!("not listed"),
        Some(m) => say!(
            "family {} type {} state {} name {:?} queue {:?}",
            m.body[0],
            m.body[1],
            m.body[2],
            m.find(16, 0).map(crate::out::text),
            m.find(16, 4)
        ),
    }
    match find(ino(a)) {
        None => say!("not listed"),
        Some(m) => {
            say!("type {} state {}", m.body[1], m.body[2]);
            claim("its peer", m.find(16, 2).is_some_and(|p| int_at(p, 0) == ino(b)));
        }
    }
}

pub const CASES: &[Case] = &[
    case("bind/netlink_names", "socket connect getsockname", names),
    case("sendto/netlink_links", "recvfrom", links),
    case("sendto/netlink_addresses", "recvfrom", addresses),
    case("sendto/netlink_change_addresses", "bind", change_addresses),
    case("sendto/netlink_change_routes", "connect", change_routes),
    case("sendto/netlink_routes_of_ipv6", "sendto", routes_of_ipv6),
    case("sendto/netlink_one_route", "recvfrom", one_route),
    case("sendto/netlink_errors", "recvfrom", errors),
    case("recvfrom/netlink_news", "bind setsockopt", news),
    case("sendto/netlink_unix_list", "recvfrom", unix_list),
];

/// Lists of internet sockets.
pub const SOCKETS: &[Case] = &[
    case("sendto/netlink_tcp_list", "recvfrom", tcp_list),
    case("sendto/netlink_one_socket", "recvfrom", one_socket),
];
