//! TCP: creating, binding, listening, connecting, accepting; what is refused and in which order.

use super::kit::*;
use crate::case::{Case, NOWHERE, asleep, case, close, fork, in_child, pause_ms, wait};
use crate::out::{claim, done, must, ret};
use crate::{say, sys};
use libc::{
    AF_INET, AF_INET6, AF_UNSPEC, EINPROGRESS, IPPROTO_TCP, IPPROTO_UDP, SO_ACCEPTCONN, SO_ERROR,
    SO_REUSEADDR, SO_REUSEPORT, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_RAW, SOCK_SEQPACKET,
    SOCK_STREAM, SOL_SOCKET,
};

fn create(net: Net) {
    let d = net.domain();
    done("stream", sys!(socket, d, SOCK_STREAM, 0));
    done("stream tcp", sys!(socket, d, SOCK_STREAM, IPPROTO_TCP));
    ret("stream udp", sys!(socket, d, SOCK_STREAM, IPPROTO_UDP));
    done("dgram udp", sys!(socket, d, SOCK_DGRAM, IPPROTO_UDP));
    ret("dgram tcp", sys!(socket, d, SOCK_DGRAM, IPPROTO_TCP));
    ret("seqpacket", sys!(socket, d, SOCK_SEQPACKET, 0));
    ret("raw of nothing", sys!(socket, d, SOCK_RAW, 0));
    ret("rdm", sys!(socket, d, libc::SOCK_RDM, 0));
    ret("negative protocol", sys!(socket, d, SOCK_STREAM, -1));
    ret("protocol 255 of stream", sys!(socket, d, SOCK_STREAM, 255));
    ret("protocol 263", sys!(socket, d, SOCK_STREAM, 263));
    ret("kind 0", sys!(socket, d, 0, 0));
    let fd = done("flags", sys!(socket, d, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) as i32;
    say!("{} {:o}", sys!(fcntl, fd, libc::F_GETFD), sys!(fcntl, fd, libc::F_GETFL));
    say!("domain {}", get(fd, SOL_SOCKET, libc::SO_DOMAIN));
    say!("protocol {}", get(fd, SOL_SOCKET, libc::SO_PROTOCOL));
    say!("type {}", get(fd, SOL_SOCKET, libc::SO_TYPE));
    say!("{} {}", name(fd), peer(fd));
}

fn bind_errors(net: Net) {
    let fd = tcp(net);
    let a = net.loopback(0);
    for len in [0, 1, 2, 7, 15, 16, 23, 24, 27] {
        let fresh = tcp(net);
        done(format!("length {len}"), bind(fresh, &a.with_len(len)));
        close(fresh);
    }
    done("length 28", bind(tcp(net), &a.with_len(28)));
    ret("length 129", bind(fd, &a.with_len(129)));
    ret("negative length", sys!(bind, fd, &a.raw, -1));
    ret("bad pointer", sys!(bind, fd, NOWHERE, 16));
    ret("family unspec", bind(fd, &Addr::family(AF_UNSPEC, a.len)));
    close(fd);
    let fd = tcp(net);
    ret("family unix", bind(fd, &Addr::family(libc::AF_UNIX, a.len)));
    ret("address of nobody", bind(fd, &net.nowhere(0)));
    ret("still unbound", if name(fd).contains(":0") { 0 } else { -1 });
    ret("bind", bind(fd, &a));
    ret("again", bind(fd, &a));
    ret("bad fd", bind(999, &a));
}

fn bind_names(net: Net) {
    let fd = tcp(net);
    say!("fresh {} {}", name(fd), peer(fd));
    ret("any", bind(fd, &net.any(0)));
    say!("bound {} {}", name(fd), peer(fd));
    let range = own(fd).port();
    claim("port in the range", (32768..=60999).contains(&range));
    let (b, a) = bound(tcp(net), net);
    say!("loopback {}", name(b));
    let same = tcp(net);
    ret("the same port", bind(same, &a));
    ret("any with the same port", bind(same, &net.any(a.port())));
    close(b);
    ret("after close", bind(same, &a));
    let mut len = 4u32;
    let mut raw = [0xffu8; 28];
    ret("short", sys!(getsockname, same, &mut raw, &mut len));
    say!("{len} {} {}", raw[0], raw[4]);
    len = 0;
    ret("none", sys!(getsockname, same, NOWHERE, &mut len));
    say!("{len}");
    let bad = -1i32;
    ret("negative", sys!(getsockname, same, &mut raw, &bad));
    ret("bad pointer", sys!(getsockname, same, NOWHERE, &28u32));
    ret("bad length", sys!(getsockname, same, &mut raw, NOWHERE));
}

fn bind_reuse(net: Net) {
    let mark = |fd: i32, name: i32| must("option", set(fd, SOL_SOCKET, name, 1));
    let (a, at) = bound(tcp(net), net);
    let b = tcp(net);
    mark(b, SO_REUSEADDR);
    ret("one side", bind(b, &at));
    mark(a, SO_REUSEADDR);
    ret("both", bind(b, &at));
    ret("the first listens", listen(a, 1));
    ret("the second cannot", listen(b, 1));
    let c = tcp(net);
    mark(c, SO_REUSEADDR);
    ret("third beside a listener", bind(c, &at));
    close(a);
    close(b);
    let (a, at) = {
        let fd = tcp(net);
        mark(fd, SO_REUSEPORT);
        bound(fd, net)
    };
    let b = tcp(net);
    ret("without", bind(b, &at));
    mark(b, SO_REUSEPORT);
    ret("with", bind(b, &at));
    ret("both listen", listen(a, 1));
    ret("both listen", listen(b, 1));
    let c = tcp(net);
    mark(c, SO_REUSEADDR);
    ret("reuseaddr is not reuseport", bind(c, &at));
}

fn reuse_of_other_users(net: Net) {
    let fd = tcp(net);
    must("option", set(fd, SOL_SOCKET, SO_REUSEPORT, 1));
    let (_, at) = bound(fd, net);
    in_child("another user", || {
        must("setuid", sys!(setuid, 1000));
        let other = tcp(net);
        must("option", set(other, SOL_SOCKET, SO_REUSEPORT, 1));
        ret("bind", bind(other, &at));
        0
    });
}

fn privileged_ports(net: Net) {
    let fd = tcp(net);
    ret("root", bind(fd, &net.loopback(80)));
    close(fd);
    in_child("user", || {
        must("setuid", sys!(setuid, 1000));
        ret("80", bind(tcp(net), &net.loopback(80)));
        ret("1023", bind(tcp(net), &net.loopback(1023)));
        ret("1024", bind(tcp(net), &net.loopback(1024)));
        ret("0", bind(tcp(net), &net.loopback(0)));
        0
    });
}

fn listen_states(net: Net) {
    let fd = tcp(net);
    say!("{} {}", get(fd, SOL_SOCKET, SO_ACCEPTCONN), poll(fd));
    ret("accept before", accept(fd));
    ret("listen unbound", listen(fd, 5));
    say!("{} {} {}", get(fd, SOL_SOCKET, SO_ACCEPTCONN), poll(fd), name(fd));
    ret("again", listen(fd, 0));
    ret("negative", listen(fd, -1));
    ret("bind now", bind(fd, &net.loopback(0)));
    ret("connect", connect(fd, &net.loopback(9)));
    ret("send", send(fd, b"x", libc::MSG_NOSIGNAL));
    say!("receive {}", recv(fd, 4, 0));
    say!("{}", peer(fd));
    ret("shutdown send", sys!(shutdown, fd, libc::SHUT_WR));
    say!("{} {}", get(fd, SOL_SOCKET, SO_ACCEPTCONN), poll(fd));
    ret("shutdown receive", sys!(shutdown, fd, libc::SHUT_RD));
    say!("{} {}", get(fd, SOL_SOCKET, SO_ACCEPTCONN), poll(fd));
    ret("accept", accept(fd));
    ret("listen once more", listen(fd, 1));
    say!("{}", get(fd, SOL_SOCKET, SO_ACCEPTCONN));
    let u = udp(net);
    ret("udp", listen(u, 1));
    ret("udp accept", accept(u));
}

fn accept_forms(net: Net) {
    let (l, a) = listener(net);
    let c = tcp(net);
    must("connect", connect(c, &a));
    say!("{}", poll(l));
    let mut from = Addr { raw: [0; 128], len: 128 };
    let s =
        done("accept4", sys!(accept4, l, &mut from.raw, &mut from.len, SOCK_CLOEXEC | SOCK_NONBLOCK)) as i32;
    say!("{}", from.words());
    claim("from the client", from.port() == own(c).port());
    say!("{} {:o}", sys!(fcntl, s, libc::F_GETFD), sys!(fcntl, s, libc::F_GETFL));
    say!("{} {}", name(s), peer(s));
    say!("{} {}", name(c), peer(c));
    ret("bad flags", sys!(accept4, l, 0, 0, 1));
    nonblocking(l);
    ret("nobody", accept(l));
    let c2 = tcp(net);
    must("connect", connect(c2, &a));
    let s2 = done("accept", sys!(accept, l, 0, 0)) as i32;
    say!("flags are not taken over {:o}", sys!(fcntl, s2, libc::F_GETFL));
    let c3 = tcp(net);
    must("connect", connect(c3, &a));
    let bad = -1i32;
    ret("negative length", sys!(accept, l, &mut from.raw, &bad));
    ret("that one is gone", accept(l));
    let c4 = tcp(net);
    must("connect", connect(c4, &a));
    let mut small = 5u32;
    done("short", sys!(accept, l, &mut from.raw, &mut small));
    say!("{small}");
    ret("of a connection", accept(s));
}

fn accept_after_close(net: Net) {
    let (l, a) = listener(net);
    let c = tcp(net);
    must("connect", connect(c, &a));
    must("send", send(c, b"bye", 0));
    close(c);
    let mut from = Addr { raw: [0; 128], len: 128 };
    let s = done("accept", sys!(accept4, l, &mut from.raw, &mut from.len, 0)) as i32;
    say!("{}", from.words());
    say!("{} {}", recv(s, 8, 0), recv(s, 8, 0));
    let c = tcp(net);
    must("connect", connect(c, &a));
    reset(c);
    let s = done("accept of a reset one", sys!(accept4, l, &mut from.raw, &mut from.len, 0)) as i32;
    say!("{}", from.words());
    say!("{}", recv(s, 8, 0));
}

fn accept_blocks(net: Net) {
    let (l, a) = listener(net);
    let child = fork(|| {
        let s = accept(l) as i32;
        send(s, b"served", 0);
        0
    });
    claim("waits", asleep(child));
    let c = tcp(net);
    ret("connect", connect(c, &a));
    say!("{}", recv(c, 16, 0));
    say!("{}", wait(child));
    let child = fork(|| {
        ret("accept", accept(l));
        0
    });
    claim("waits", asleep(child));
    sys!(shutdown, l, libc::SHUT_RDWR);
    say!("{}", wait(child));
}

fn accept_timeout(net: Net) {
    let (l, _) = listener(net);
    let span = [0i64, 30_000];
    must("timeout", sys!(setsockopt, l, SOL_SOCKET, libc::SO_RCVTIMEO, &span, 16));
    ret("accept", accept(l));
}

fn connect_errors(net: Net) {
    let fd = tcp(net);
    let (hole, at) = bound(tcp(net), net);
    ret("nobody listens", connect(fd, &at));
    say!("{} {} {}", name(fd), peer(fd), poll(fd));
    close(hole);
    let fd = tcp(net);
    ret("short", connect(fd, &at.with_len(1)));
    ret("15 bytes", connect(fd, &at.with_len(15)));
    ret("family unix", connect(fd, &Addr::family(libc::AF_UNIX, 28)));
    ret("no route", connect(fd, &net.nowhere(80)));
    ret("bad pointer", sys!(connect, fd, NOWHERE, 16));
    ret("too long", connect(fd, &at.with_len(129)));
    ret("port 0", connect(fd, &net.loopback(0)));
    let (l, a) = listener(net);
    let fd = tcp(net);
    ret("connect", connect(fd, &a));
    ret("again", connect(fd, &a));
    ret("elsewhere", connect(fd, &net.loopback(1)));
    ret("unspec", connect(fd, &Addr::family(AF_UNSPEC, 16)));
    say!("{} {}", name(fd), peer(fd));
    ret("once more", connect(fd, &a));
    say!("{} {}", name(fd), peer(fd));
    close(l);
}

fn connect_nonblocking(net: Net) {
    let (l, a) = listener(net);
    let fd = tcp(net);
    nonblocking(fd);
    let r = connect(fd, &a);
    claim("in progress or done", r == 0 || r == -(EINPROGRESS as isize));
    claim("writable", ready(fd, libc::POLLOUT));
    ret("error", sys!(getpid).min(0));
    say!("{}", get(fd, SOL_SOCKET, SO_ERROR));
    done("accept", accept(l));
    ret("again", connect(fd, &a).max(-libc::EISCONN as isize));
    let (hole, at) = bound(tcp(net), net);
    let fd = tcp(net);
    nonblocking(fd);
    let r = connect(fd, &at);
    claim("in progress or refused", r == -(EINPROGRESS as isize) || r == -(libc::ECONNREFUSED as isize));
    if r == -(EINPROGRESS as isize) {
        claim("told", ready(fd, libc::POLLOUT));
        say!("{}", poll(fd));
        say!("{}", get(fd, SOL_SOCKET, SO_ERROR));
        say!("{}", get(fd, SOL_SOCKET, SO_ERROR));
    }
    close(hole);
}

fn connect_to_any(net: Net) {
    let fd = tcp(net);
    must("bind", bind(fd, &net.any(0)));
    must("listen", listen(fd, 1));
    let c = tcp(net);
    ret("connect", connect(c, &net.any(own(fd).port())));
    say!("{} {}", name(c), peer(c));
    let s = must("accept", accept(fd)) as i32;
    say!("{} {}", name(s), peer(s));
}

fn connect_to_self(net: Net) {
    let (fd, a) = bound(tcp(net), net);
    ret("connect", connect(fd, &a));
    say!("{} {}", name(fd), peer(fd));
    claim("the same", own(fd).port() == a.port());
    ret("send", send(fd, b"echo", 0));
    say!("{}", recv(fd, 8, 0));
    ret("shutdown", sys!(shutdown, fd, libc::SHUT_WR));
    say!("{}", recv(fd, 8, 0));
}

fn full_backlog(net: Net) {
    let (fd, a) = bound(tcp(net), net);
    must("listen", listen(fd, 0));
    let first = tcp(net);
    ret("first", connect(first, &a));
    let second = tcp(net);
    nonblocking(second);
    done("second", connect(second, &a).max(-(EINPROGRESS as isize)));
    pause_ms(20);
    say!("{}", poll(second));
    done("accept", accept(fd));
    claim("its turn", ready(second, libc::POLLOUT));
    say!("{}", get(second, SOL_SOCKET, SO_ERROR));
    done("accept", accept(fd));
}

fn close_of_a_listener(net: Net) {
    let (l, a) = listener(net);
    let c = tcp(net);
    must("connect", connect(c, &a));
    close(l);
    claim("told", ready(c, libc::POLLIN));
    say!("{}", poll(c));
    say!("{}", recv(c, 4, 0));
    say!("{}", recv(c, 4, 0));
    ret("connect to it", connect(tcp(net), &a));
}

fn port_after_use(net: Net) {
    let (l, a) = listener(net);
    let c = tcp(net);
    must("connect", connect(c, &a));
    let s = must("accept", accept(l)) as i32;
    // The server closes first: its port stays in TIME-WAIT.
    close(s);
    say!("{}", recv(c, 4, 0));
    close(c);
    close(l);
    pause_ms(20);
    let again = tcp(net);
    ret("bind", bind(again, &a));
    set(again, SOL_SOCKET, SO_REUSEADDR, 1);
    ret("bind with reuse", bind(again, &a));
    ret("listen", listen(again, 1));
    let c = tcp(net);
    ret("connect", connect(c, &a));
}

fn v6only_ports() {
    let six = tcp(V6);
    must("only", v6only(six, 1));
    must("bind", bind(six, &V6.any(7001)));
    ret("set when bound", v6only(six, 0));
    let four = tcp(V4);
    ret("ipv4 beside it", bind(four, &V4.any(7001)));
    let both = tcp(V6);
    say!("default {}", get(both, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY));
    ret("both beside it", bind(both, &V6.any(7001)));
    ret("both", bind(both, &V6.any(7002)));
    ret("ipv4 beside both", bind(tcp(V4), &V4.any(7002)));
    let only = tcp(V6);
    v6only(only, 1);
    ret("mapped on v6only", bind(only, &Mapped.loopback(0)));
    ret("connect mapped on v6only", connect(only, &Mapped.loopback(9)));
    let mixed = tcp(V6);
    must("bind", bind(mixed, &V6.loopback(0)));
    ret("mapped from ::1", connect(mixed, &Mapped.loopback(9)));
    let mapped = tcp(V6);
    must("bind", bind(mapped, &Mapped.loopback(0)));
    ret("::1 from mapped", connect(mapped, &V6.loopback(9)));
}

fn dual_stack() {
    let l = tcp(V6);
    must("bind", bind(l, &V6.any(0)));
    must("listen", listen(l, 4));
    let port = own(l).port();
    let c = tcp(V4);
    ret("ipv4 client", connect(c, &V4.loopback(port)));
    let s = must("accept", accept(l)) as i32;
    say!("{} {}", name(s), peer(s));
    say!("{} {}", name(c), peer(c));
    let c = tcp(V6);
    ret("ipv6 client", connect(c, &V6.loopback(port)));
    let s = must("accept", accept(l)) as i32;
    say!("{} {}", name(s), peer(s));
    let c = tcp(V6);
    ret("mapped client", connect(c, &Mapped.loopback(port)));
    let s = must("accept", accept(l)) as i32;
    say!("{} {} {}", name(s), peer(s), name(c));
}

fn other_family_address() {
    let four = tcp(V4);
    ret("v6 address on v4", bind(four, &V6.loopback(0)));
    ret("v6 connect on v4", connect(four, &V6.loopback(9)));
    let six = tcp(V6);
    ret("v4 address on v6", bind(six, &V4.loopback(0)));
    ret("v4 connect on v6", connect(six, &V4.loopback(9)));
    ret("v4 long", bind(six, &V4.loopback(0).with_len(28)));
    ret("v4 connect long", connect(six, &V4.loopback(9).with_len(28)));
    say!("{AF_INET} {AF_INET6}");
}

fn other_loopbacks() {
    let (l, _) = {
        let fd = tcp(V4);
        must("bind", bind(fd, &Addr::v4([127, 1, 2, 3], 7010)));
        must("listen", listen(fd, 4));
        (fd, 0)
    };
    ret("127.0.0.1", connect(tcp(V4), &V4.loopback(7010)));
    let c = tcp(V4);
    ret("127.1.2.3", connect(c, &Addr::v4([127, 1, 2, 3], 7010)));
    say!("{} {}", name(c), peer(c));
    let c = tcp(V4);
    must("bind", bind(c, &Addr::v4([127, 9, 9, 9], 0)));
    ret("from 127.9.9.9", connect(c, &Addr::v4([127, 1, 2, 3], 7010)));
    must("accept", accept(l));
    let s = must("accept", accept(l)) as i32;
    say!("{}", peer(s));
    ret("broadcast", connect(tcp(V4), &Addr::v4([127, 255, 255, 255], 7010)));
    ret("multicast", connect(tcp(V4), &Addr::v4([224, 0, 0, 1], 7010)));
    ret("bind to multicast", bind(tcp(V4), &Addr::v4([224, 0, 0, 1], 0)));
    ret("bind to broadcast", bind(tcp(V4), &Addr::v4([255, 255, 255, 255], 0)));
}

pub const NETS: &[Case] = nets![
    [v4 v6] "socket/inet_kinds" "" create;
    [v4 v6 mapped] "bind/tcp_errors" "getsockname" bind_errors;
    [v4 v6 mapped] "bind/tcp_names" "getsockname getpeername" bind_names;
    [v4 v6 mapped] "bind/tcp_reuse" "listen setsockopt" bind_reuse;
    [v4 v6] "bind/tcp_reuse_of_other_users" "setsockopt" reuse_of_other_users;
    [v4 v6] "bind/tcp_privileged_ports" "" privileged_ports;
    [v4 v6] "listen/tcp_states" "accept4 shutdown poll" listen_states;
    [v4 v6 mapped] "accept4/tcp_forms" "accept getpeername" accept_forms;
    [v4 v6] "accept4/tcp_after_close" "recvfrom" accept_after_close;
    [v4 v6] "accept4/tcp_blocks" "shutdown" accept_blocks;
    [v4 v6] "accept4/tcp_timeout" "setsockopt" accept_timeout;
    [v4 v6 mapped] "connect/tcp_errors" "getsockname" connect_errors;
    [v4 v6] "connect/tcp_nonblocking" "poll getsockopt" connect_nonblocking;
    [v4 v6 mapped] "connect/tcp_to_any" "accept4" connect_to_any;
    [v4 v6] "connect/tcp_to_self" "recvfrom" connect_to_self;
    [v4 v6] "listen/tcp_full_backlog" "connect" full_backlog;
    [v4 v6] "close/tcp_listener" "recvfrom" close_of_a_listener;
    [v4 v6] "bind/tcp_port_after_use" "close" port_after_use;
];

pub const CASES: &[Case] = &[
    case("bind/v6only", "setsockopt", v6only_ports),
    case("accept4/dual_stack", "connect", dual_stack),
    case("bind/other_family", "connect", other_family_address),
    case("connect/other_loopbacks", "bind", other_loopbacks),
];
