//! Unix sockets: streams, datagrams, packets, names, passing descriptors and credentials, options.

use crate::case::{Case, NOWHERE, asleep, case, close, cstr, file, fork, in_child, open, pipe, wait, zeroed};
use crate::out::{claim, done, must, ret, text};
use crate::{say, sys};
use libc::{
    AF_UNIX, MSG_CTRUNC, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, SCM_CREDENTIALS,
    SCM_RIGHTS, SHUT_RD, SHUT_RDWR, SHUT_WR, SO_ACCEPTCONN, SO_DOMAIN, SO_ERROR, SO_PASSCRED, SO_PEERCRED,
    SO_PROTOCOL, SO_RCVBUF, SO_RCVTIMEO, SO_REUSEADDR, SO_SNDBUF, SO_SNDTIMEO, SO_TYPE, SOCK_CLOEXEC,
    SOCK_DGRAM, SOCK_NONBLOCK, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET, iovec, msghdr, sockaddr_un,
};

fn socket(kind: i32) -> i32 {
    must("socket", sys!(socket, AF_UNIX, kind, 0)) as i32
}

fn pair(kind: i32) -> (i32, i32) {
    let mut p = [0i32; 2];
    must("socketpair", sys!(socketpair, AF_UNIX, kind, 0, &mut p));
    (p[0], p[1])
}

/// An address and its length; names that begin with a zero byte are abstract.
fn address(name: &[u8]) -> (sockaddr_un, usize) {
    let mut a: sockaddr_un = zeroed();
    a.sun_family = AF_UNIX as u16;
    for (to, from) in a.sun_path.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    let nul = if name.first() == Some(&0) || name.is_empty() { 0 } else { 1 };
    (a, 2 + name.len() + nul)
}

fn bind(fd: i32, name: &[u8]) -> isize {
    let (a, len) = address(name);
    sys!(bind, fd, &a, len)
}

fn connect(fd: i32, name: &[u8]) -> isize {
    let (a, len) = address(name);
    sys!(connect, fd, &a, len)
}

fn listener(name: &[u8], kind: i32, backlog: i32) -> i32 {
    let fd = socket(kind);
    must("bind", bind(fd, name));
    must("listen", sys!(listen, fd, backlog));
    fd
}

fn own_name(call: i64, fd: i32) -> String {
    let mut a: sockaddr_un = zeroed();
    let mut len = size_of::<sockaddr_un>() as u32;
    let r = crate::raw::call(call, &[fd as usize, &raw mut a as usize, &raw mut len as usize]);
    if r < 0 {
        return crate::out::number(r);
    }
    let bytes: Vec<u8> = a.sun_path.iter().map(|c| *c as u8).take((len as usize).saturating_sub(2)).collect();
    format!("family {} length {len} '{}'", a.sun_family, text(&bytes))
}

fn option(fd: i32, name: i32) -> String {
    let mut v = 0i32;
    let mut len = 4u32;
    let r = sys!(getsockopt, fd, SOL_SOCKET, name, &mut v, &mut len);
    if r < 0 { crate::out::number(r) } else { v.to_string() }
}

fn set_option(fd: i32, name: i32, value: i32) -> isize {
    sys!(setsockopt, fd, SOL_SOCKET, name, &value, 4)
}

fn recv(fd: i32, len: usize, flags: i32) -> String {
    let mut b = vec![0u8; len];
    let r = sys!(recvfrom, fd, b.as_mut_slice(), len, flags, 0, 0);
    if r < 0 { crate::out::number(r) } else { format!("{r} '{}'", text(&b[..(r as usize).min(len)])) }
}

fn send(fd: i32, bytes: &[u8], flags: i32) -> isize {
    sys!(sendto, fd, bytes, bytes.len(), flags, 0, 0)
}

#[repr(C, align(8))]
struct Control([u8; 256]);

/// Sends bytes with one control message.
fn send_control(fd: i32, bytes: &[u8], kind: i32, payload: &[u8]) -> isize {
    let mut control = Control([0; 256]);
    let len = 16 + payload.len();
    control.0[..8].copy_from_slice(&len.to_ne_bytes());
    control.0[8..12].copy_from_slice(&SOL_SOCKET.to_ne_bytes());
    control.0[12..16].copy_from_slice(&kind.to_ne_bytes());
    control.0[16..16 + payload.len()].copy_from_slice(payload);
    let iov = iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    let mut m: msghdr = zeroed();
    m.msg_iov = &raw const iov as *mut _;
    m.msg_iovlen = 1;
    m.msg_control = control.0.as_mut_ptr().cast();
    m.msg_controllen = len.next_multiple_of(8);
    sys!(sendmsg, fd, &m, 0)
}

/// What recvmsg brought: the result, the flags, each control message's kind and payload.
struct Received {
    result: isize,
    flags: i32,
    control: Vec<(i32, Vec<u8>)>,
}

fn recv_control(fd: i32, room: usize, flags: i32) -> Received {
    let mut control = Control([0; 256]);
    let mut b = [0u8; 64];
    let iov = iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 64 };
    let mut m: msghdr = zeroed();
    m.msg_iov = &raw const iov as *mut _;
    m.msg_iovlen = 1;
    m.msg_control = control.0.as_mut_ptr().cast();
    m.msg_controllen = room;
    let result = sys!(recvmsg, fd, &mut m, flags);
    let mut list = Vec::new();
    let mut at = 0;
    while result >= 0 && at + 16 <= m.msg_controllen {
        let word = |i: usize| {
            i32::from_ne_bytes([control.0[i], control.0[i + 1], control.0[i + 2], control.0[i + 3]])
        };
        let len = word(at) as usize;
        if len < 16 {
            break;
        }
        list.push((word(at + 12), control.0[at + 16..(at + len).min(256)].to_vec()));
        at += len.next_multiple_of(8);
    }
    Received { result, flags: m.msg_flags, control: list }
}

fn flag_names(flags: i32) -> String {
    let all = [
        (MSG_TRUNC, "trunc"),
        (MSG_CTRUNC, "ctrunc"),
        (libc::MSG_EOR, "eor"),
        (libc::MSG_CMSG_CLOEXEC, "cloexec"),
    ];
    all.iter().filter(|(b, _)| flags & b != 0).map(|(_, n)| *n).collect::<Vec<_>>().join("|")
}

fn word(bytes: &[u8], i: usize) -> i32 {
    bytes.get(i * 4..i * 4 + 4).map_or(-1, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

pub const CASES: &[Case] = &[
    case("socket/kinds_and_errors", "", || {
        for kind in [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, libc::SOCK_RAW] {
            done(format!("kind {kind}"), sys!(socket, AF_UNIX, kind, 0));
        }
        let fd = done("flags", sys!(socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) as i32;
        say!("{} {:o}", sys!(fcntl, fd, libc::F_GETFD), sys!(fcntl, fd, libc::F_GETFL));
        ret("bad kind", sys!(socket, AF_UNIX, 9, 0));
        ret("bad flag", sys!(socket, AF_UNIX, SOCK_STREAM | 0x100000, 0));
        ret("bad protocol", sys!(socket, AF_UNIX, SOCK_STREAM, 99));
        done("protocol unix", sys!(socket, AF_UNIX, SOCK_STREAM, 1));
        ret("bad family", sys!(socket, 99, SOCK_STREAM, 0));
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        say!("{}", link.to_string_lossy().starts_with("socket:["));
        ret("not a socket", sys!(listen, file("f", b""), 1));
        ret("bad fd", sys!(listen, 99, 1));
    }),
    case("socketpair/stream", "read write shutdown", || {
        let (a, b) = pair(SOCK_STREAM);
        ret("send", send(a, b"hello", 0));
        ret("send", send(a, b"world", 0));
        say!("merged {}", recv(b, 64, 0));
        say!("empty {}", recv(b, 64, MSG_DONTWAIT));
        send(a, b"peekaboo", 0);
        say!("peek {} then {}", recv(b, 4, MSG_PEEK), recv(b, 64, 0));
        ret("shutdown", sys!(shutdown, a, SHUT_WR));
        say!("eof {}", recv(b, 64, 0));
        ret("write after shutdown", send(a, b"x", MSG_NOSIGNAL));
        ret("other direction", send(b, b"back", 0));
        close(b);
        say!("then {} then {}", recv(a, 64, 0), recv(a, 64, 0));
        ret("to nobody", send(a, b"x", MSG_NOSIGNAL));
        in_child("signal", || send(a, b"x", 0) as i32);
        ret("bad shutdown", sys!(shutdown, a, 9));
        let mut p = [0i32; 2];
        ret("pair of inet", sys!(socketpair, libc::AF_INET, SOCK_STREAM, 0, &mut p));
        ret("bad pointer", sys!(socketpair, AF_UNIX, SOCK_STREAM, 0, NOWHERE));
    }),
    case("socketpair/unread_data_resets", "close", || {
        let (a, b) = pair(SOCK_STREAM);
        send(a, b"never read", 0);
        close(b);
        say!("{} then {}", recv(a, 10, 0), recv(a, 10, 0));
        say!("error {}", option(a, SO_ERROR));
    }),
    case("socketpair/datagrams", "recvfrom", || {
        let (a, b) = pair(SOCK_DGRAM);
        send(a, b"one", 0);
        send(a, b"", 0);
        send(a, b"three", 0);
        say!("{} {} {}", recv(b, 64, 0), recv(b, 64, 0), recv(b, 2, 0));
        send(a, b"four!", 0);
        say!("real length {}", recv(b, 2, MSG_TRUNC));
        say!("empty {}", recv(b, 64, MSG_DONTWAIT));
        close(b);
        ret("to nobody", send(a, b"x", 0));
        let (a, _b) = pair(SOCK_DGRAM);
        let mut sent = 0;
        while send(a, &[0; 100], MSG_DONTWAIT) == 100 && sent < 5000 {
            sent += 1;
        }
        say!("queue is bounded {}", sent < 5000 && sent > 5);
        ret("too long", send(a, &vec![0u8; 1 << 20], 0));
    }),
    case("socketpair/seqpacket", "recvmsg shutdown", || {
        let (a, b) = pair(SOCK_SEQPACKET);
        send(a, b"one", 0);
        send(a, b"longer", 0);
        say!("{}", recv(b, 64, 0));
        let r = recv_control(b, 0, 0);
        say!("{} {}", r.result, flag_names(r.flags));
        send(a, b"cut me", 0);
        say!("{}", recv(b, 3, 0));
        say!("{}", recv(b, 3, MSG_DONTWAIT));
        sys!(shutdown, a, SHUT_WR);
        say!("eof {}", recv(b, 3, 0));
        close(a);
        ret("write", send(b, b"x", MSG_NOSIGNAL));
    }),
    case("bind/paths", "listen accept connect getsockname getpeername", || {
        let l = listener(b"sock", SOCK_STREAM, 5);
        let mut st: libc::stat = zeroed();
        sys!(stat, c"sock", &mut st);
        say!("{:o}", st.st_mode);
        let c = socket(SOCK_STREAM);
        ret("connect", connect(c, b"sock"));
        let s = done("accept", sys!(accept, l, 0, 0)) as i32;
        send(c, b"hi", 0);
        say!("{}", recv(s, 10, 0));
        say!("listener {}", own_name(libc::SYS_getsockname, l));
        say!("client {}", own_name(libc::SYS_getsockname, c));
        say!("accepted {}", own_name(libc::SYS_getsockname, s));
        say!("client's peer {}", own_name(libc::SYS_getpeername, c));
        say!("accepted's peer {}", own_name(libc::SYS_getpeername, s));
        say!("listener's peer {}", own_name(libc::SYS_getpeername, l));
        ret("bind again", bind(l, b"other"));
        ret("name in use", bind(socket(SOCK_STREAM), b"sock"));
        ret("connect twice", connect(c, b"sock"));
        close(l);
        ret("refused", connect(socket(SOCK_STREAM), b"sock"));
        sys!(unlink, c"sock");
        ret("missing", connect(socket(SOCK_STREAM), b"sock"));
        file("plain", b"");
        ret("plain file", connect(socket(SOCK_STREAM), b"plain"));
        ret("missing directory", bind(socket(SOCK_STREAM), b"no/sock"));
        ret("108 bytes", bind(socket(SOCK_STREAM), &[b'x'; 107]));
        ret("too long", sys!(bind, socket(SOCK_STREAM), &address(b"x").0, 120));
        ret("too short", sys!(bind, socket(SOCK_STREAM), &address(b"x").0, 1));
        let mut wrong = address(b"x").0;
        wrong.sun_family = 2;
        ret("wrong family", sys!(bind, socket(SOCK_STREAM), &wrong, 4));
        ret("bad pointer", sys!(bind, socket(SOCK_STREAM), NOWHERE, 10));
    }),
    case("bind/abstract_and_autobind", "getsockname connect", || {
        let l = listener(b"\0abstract name", SOCK_STREAM, 5);
        say!("{}", own_name(libc::SYS_getsockname, l));
        ret("connect", connect(socket(SOCK_STREAM), b"\0abstract name"));
        ret("prefix is another", connect(socket(SOCK_STREAM), b"\0abstract"));
        ret("in use", bind(socket(SOCK_STREAM), b"\0abstract name"));
        close(l);
        let l = socket(SOCK_STREAM);
        ret("free again", bind(l, b"\0abstract name"));
        let auto = socket(SOCK_DGRAM);
        ret("autobind", bind(auto, b""));
        let name = own_name(libc::SYS_getsockname, auto);
        say!("{} {}", name.starts_with("family 1 length 8 '\\x00"), name.len());
        let passer = socket(SOCK_DGRAM);
        set_option(passer, SO_PASSCRED, 1);
        let target = socket(SOCK_DGRAM);
        bind(target, b"\0t");
        ret("connect binds a passer", connect(passer, b"\0t"));
        claim("bound", own_name(libc::SYS_getsockname, passer).contains("length 8"));
    }),
    case("listen/backlog_and_accept4", "accept4 connect", || {
        let l = listener(b"s", SOCK_STREAM, 1);
        ret("nothing", {
            sys!(fcntl, l, libc::F_SETFL, libc::O_NONBLOCK);
            sys!(accept4, l, 0, 0, 0)
        });
        let mut connected = 0;
        let mut clients = Vec::new();
        let end = loop {
            let c = socket(SOCK_STREAM | SOCK_NONBLOCK);
            let r = connect(c, b"s");
            clients.push(c);
            if r < 0 || connected > 10 {
                break r;
            }
            connected += 1;
        };
        ret("backlog full", end);
        say!("{connected}");
        let mut a: sockaddr_un = zeroed();
        let mut len = 110u32;
        let s = done("accept4", sys!(accept4, l, &mut a, &mut len, SOCK_CLOEXEC | SOCK_NONBLOCK)) as i32;
        say!("{len} {} {:o}", sys!(fcntl, s, libc::F_GETFD), sys!(fcntl, s, libc::F_GETFL));
        ret("bad flags", sys!(accept4, l, 0, 0, 1));
        ret("not listening", sys!(accept, socket(SOCK_STREAM), 0, 0));
        ret("datagram", sys!(accept, socket(SOCK_DGRAM), 0, 0));
        ret("listen on datagram", sys!(listen, socket(SOCK_DGRAM), 1));
        ret("listen unbound", sys!(listen, socket(SOCK_STREAM), 1));
        ret("listen connected", sys!(listen, s, 1));
        say!("{} {}", option(l, SO_ACCEPTCONN), option(s, SO_ACCEPTCONN));
        ret("connect to itself kind", connect(socket(SOCK_SEQPACKET), b"s"));
        ret("send on listener", send(l, b"x", 0));
        say!("recv on listener {}", recv(l, 1, 0));
    }),
    case("accept/blocks_and_interrupts", "fork kill", || {
        let l = listener(b"s", SOCK_STREAM, 1);
        let me = sys!(getpid);
        let child = fork(|| {
            asleep(me as i32);
            connect(socket(SOCK_STREAM), b"s") as i32
        });
        done("accept", sys!(accept, l, 0, 0));
        say!("{}", wait(child));
        super::signals::on(libc::SIGUSR1, 0);
        let child = fork(|| {
            asleep(me as i32);
            sys!(kill, me, libc::SIGUSR1);
            0
        });
        ret("interrupted", sys!(accept, l, 0, 0));
        wait(child);
        set_timeout(l, SO_RCVTIMEO, 30);
        ret("timeout", sys!(accept, l, 0, 0));
    }),
    case("sendto/datagram_names", "recvfrom connect", || {
        let (server, client) = (socket(SOCK_DGRAM), socket(SOCK_DGRAM));
        bind(server, b"server");
        bind(client, b"client");
        let (a, len) = address(b"server");
        ret("sendto", sys!(sendto, client, b"hi", 2, 0, &a, len));
        let mut from: sockaddr_un = zeroed();
        let mut n = 110u32;
        let mut b = [0u8; 8];
        ret("recvfrom", sys!(recvfrom, server, &mut b, 8, 0, &mut from, &mut n));
        say!("{n} {}", text(&from.sun_path[..6].iter().map(|c| *c as u8).collect::<Vec<_>>()));
        ret("connect", connect(client, b"server"));
        ret("send", send(client, b"again", 0));
        say!("{}", recv(server, 10, 0));
        ret("server is not connected", send(server, b"x", 0));
        let third = socket(SOCK_DGRAM);
        bind(third, b"third");
        ret("connected elsewhere", connect(third, b"client"));
        ret("refused by a connected peer", send(third, b"x", 0));
        let unspec: sockaddr_un = zeroed();
        ret("disconnect", sys!(connect, client, &unspec, 2));
        ret("send", send(client, b"x", 0));
        ret("missing", sys!(sendto, client, b"x", 1, 0, &address(b"nobody").0, 9));
        ret("stream sendto with a name", sys!(sendto, pair(SOCK_STREAM).0, b"x", 1, 0, &a, len));
        ret("unconnected stream", send(socket(SOCK_STREAM), b"x", MSG_NOSIGNAL));
        say!("unconnected stream {}", recv(socket(SOCK_STREAM), 1, 0));
        ret("wrong kind", connect(socket(SOCK_STREAM), b"server"));
    }),
    case("sendmsg/pass_descriptors", "recvmsg", || {
        let (a, b) = pair(SOCK_STREAM);
        let (r, w) = pipe(0);
        ret("send", send_control(a, b"x", SCM_RIGHTS, &w.to_ne_bytes()));
        close(w);
        let got = recv_control(b, 256, 0);
        say!("{} {} messages {}", got.result, flag_names(got.flags), got.control.len());
        let copy = got.control.first().map_or(-1, |(_, p)| word(p, 0));
        ret("write to the copy", sys!(write, copy, b"through", 7));
        let mut buf = [0u8; 16];
        ret("read", sys!(read, r, &mut buf, 16));
        ret("flag", sys!(fcntl, copy, libc::F_GETFD));
        send_control(a, b"x", SCM_RIGHTS, &r.to_ne_bytes());
        let got = recv_control(b, 256, libc::MSG_CMSG_CLOEXEC);
        ret("cloexec", sys!(fcntl, got.control.first().map_or(-1, |(_, p)| word(p, 0)), libc::F_GETFD));
        let three: Vec<u8> = [r, r, r].iter().flat_map(|fd| fd.to_ne_bytes()).collect();
        send_control(a, b"x", SCM_RIGHTS, &three);
        let got = recv_control(b, 24, 0);
        say!(
            "room for two: {} {}",
            flag_names(got.flags),
            got.control.first().map_or(0, |(_, p)| p.len() / 4)
        );
        send_control(a, b"x", SCM_RIGHTS, &three);
        let got = recv_control(b, 0, 0);
        say!("no room: {} {}", got.result, flag_names(got.flags));
        ret("bad descriptor", send_control(a, b"x", SCM_RIGHTS, &99i32.to_ne_bytes()));
        let (many, _): (Vec<u8>, ()) = ((0..60).flat_map(|_| r.to_ne_bytes()).collect(), ());
        ret("many", send_control(a, b"x", SCM_RIGHTS, &many[..240]));
        ret("unknown control", send_control(a, b"x", 99, &[0; 4]));
    }),
    case("sendmsg/descriptors_keep_boundaries", "recvmsg read", || {
        let (a, b) = pair(SOCK_STREAM);
        send(a, b"before", 0);
        send_control(a, b"with", SCM_RIGHTS, &0i32.to_ne_bytes());
        send(a, b"after", 0);
        for _ in 0..3 {
            let got = recv_control(b, 256, MSG_DONTWAIT);
            say!("{} {}", crate::out::number(got.result), got.control.len());
        }
        send_control(a, b"dropped by read", SCM_RIGHTS, &0i32.to_ne_bytes());
        let mut buf = [0u8; 64];
        ret("read", sys!(read, b, &mut buf, 64));
        ret("no descriptor came", sys!(dup, 0));
    }),
    case("sendmsg/socket_passes_itself", "close", || {
        // A cycle of sockets in flight must not be kept alive in a way that harms others.
        for _ in 0..20 {
            let (a, b) = pair(SOCK_STREAM);
            send_control(a, b"x", SCM_RIGHTS, &b.to_ne_bytes());
            send_control(b, b"x", SCM_RIGHTS, &a.to_ne_bytes());
            close(a);
            close(b);
        }
        ret("descriptors are free", sys!(dup, 0));
    }),
    case("sendmsg/credentials", "setsockopt getsockopt recvmsg", || {
        let (a, b) = pair(SOCK_STREAM);
        ret("passcred", set_option(b, SO_PASSCRED, 1));
        say!("{}", option(b, SO_PASSCRED));
        send(a, b"x", 0);
        let got = recv_control(b, 256, 0);
        let creds = |p: &[u8]| {
            format!(
                "pid is mine {} uid {} gid {}",
                word(p, 0) as isize == sys!(getpid),
                word(p, 1),
                word(p, 2)
            )
        };
        got.control.iter().for_each(|(k, p)| say!("kind {k} {}", creds(p)));
        let fake: Vec<u8> = [1i32, 5, 6].iter().flat_map(|v| v.to_ne_bytes()).collect();
        ret("root may lie", send_control(a, b"x", SCM_CREDENTIALS, &fake));
        let got = recv_control(b, 256, 0);
        got.control.iter().for_each(|(_, p)| say!("uid {} gid {}", word(p, 1), word(p, 2)));
        in_child("user", || {
            sys!(setresgid, 9, 9, 9);
            sys!(setresuid, 9, 9, 9);
            ret("lie", send_control(a, b"x", SCM_CREDENTIALS, &fake));
            let truth: Vec<u8> = [sys!(getpid) as i32, 9, 9].iter().flat_map(|v| v.to_ne_bytes()).collect();
            ret("truth", send_control(a, b"x", SCM_CREDENTIALS, &truth));
            0
        });
        let got = recv_control(b, 256, 0);
        got.control.iter().for_each(|(_, p)| say!("uid {} gid {}", word(p, 1), word(p, 2)));
        let mut cred = [0i32; 3];
        let mut len = 12u32;
        ret("peercred", sys!(getsockopt, a, SOL_SOCKET, SO_PEERCRED, &mut cred, &mut len));
        say!("{} {} {}", cred[0] as isize == sys!(getpid), cred[1], cred[2]);
        sys!(getsockopt, socket(SOCK_STREAM), SOL_SOCKET, SO_PEERCRED, &mut cred, &mut len);
        say!("unconnected {cred:?}");
        let mut fd = -1i32;
        len = 4;
        done("peerpidfd", sys!(getsockopt, a, SOL_SOCKET, 77, &mut fd, &mut len));
    }),
    case("getsockopt/options", "setsockopt", || {
        let (a, _b) = pair(SOCK_STREAM);
        for (label, name) in [
            ("type", SO_TYPE),
            ("domain", SO_DOMAIN),
            ("protocol", SO_PROTOCOL),
            ("error", SO_ERROR),
            ("acceptconn", SO_ACCEPTCONN),
            ("reuseaddr", SO_REUSEADDR),
        ] {
            say!("{label} {}", option(a, name));
        }
        say!("buffers {} {}", option(a, SO_SNDBUF), option(a, SO_RCVBUF));
        ret("set", set_option(a, SO_SNDBUF, 10_000));
        say!("{}", option(a, SO_SNDBUF));
        ret("tiny", set_option(a, SO_SNDBUF, 1));
        say!("{}", option(a, SO_SNDBUF));
        ret("reuseaddr", set_option(a, SO_REUSEADDR, 1));
        ret("unknown", sys!(getsockopt, a, SOL_SOCKET, 9999, &mut 0i32, &mut 4u32));
        ret("unknown level", sys!(getsockopt, a, 6, 1, &mut 0i32, &mut 4u32));
        ret("set unknown", set_option(a, 9999, 1));
        ret("short", sys!(setsockopt, a, SOL_SOCKET, SO_REUSEADDR, &1i32, 2));
        ret("bad pointer", sys!(setsockopt, a, SOL_SOCKET, SO_REUSEADDR, NOWHERE, 4));
        let mut len = 2u32;
        let mut v = 0i32;
        ret("get short", sys!(getsockopt, a, SOL_SOCKET, SO_TYPE, &mut v, &mut len));
        say!("{len}");
        len = u32::MAX;
        ret("get negative", sys!(getsockopt, a, SOL_SOCKET, SO_TYPE, &mut v, &mut len));
        ret("not a socket", sys!(getsockopt, 0, SOL_SOCKET, SO_TYPE, &mut v, &mut 4u32));
        let mut t = libc::timeval { tv_sec: 9, tv_usec: 9 };
        sys!(getsockopt, a, SOL_SOCKET, SO_RCVTIMEO, &mut t, &mut 16u32);
        say!("{} {}", t.tv_sec, t.tv_usec);
    }),
    case("recvfrom/timeouts_and_waitall", "setsockopt", || {
        let (a, b) = pair(SOCK_STREAM);
        set_timeout(b, SO_RCVTIMEO, 30);
        say!("timeout {}", recv(b, 4, 0));
        set_timeout(a, SO_SNDTIMEO, 30);
        let big = vec![0u8; 4 << 20];
        claim("partial send", (1..4 << 20).contains(&send(a, &big, 0)));
        ret("send timeout", send(a, b"x", 0));
        let (a, b) = pair(SOCK_STREAM);
        let me = sys!(getpid);
        let child = fork(|| {
            send(a, b"ab", 0);
            asleep(me as i32);
            send(a, b"cd", 0);
            0
        });
        say!("waitall {}", recv(b, 4, MSG_WAITALL));
        wait(child);
        send(a, b"xy", 0);
        sys!(shutdown, a, SHUT_WR);
        say!("waitall eof {}", recv(b, 4, MSG_WAITALL));
    }),
    case("shutdown/directions", "poll", || {
        let (a, b) = pair(SOCK_STREAM);
        ret("read side", sys!(shutdown, a, SHUT_RD));
        say!("{}", recv(a, 4, 0));
        ret("peer writes", send(b, b"x", MSG_NOSIGNAL));
        ret("both", sys!(shutdown, a, SHUT_RDWR));
        let mut p =
            libc::pollfd { fd: a, events: libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP, revents: 0 };
        sys!(poll, &mut p, 1, 0);
        say!("{:#x}", p.revents);
        p.fd = b;
        sys!(poll, &mut p, 1, 0);
        say!("{:#x}", p.revents);
        ret("unconnected", sys!(shutdown, socket(SOCK_STREAM), SHUT_RDWR));
        ret("not a socket", sys!(shutdown, 0, SHUT_RD));
    }),
    case("sendmmsg/several", "recvmmsg", || {
        let (a, b) = pair(SOCK_DGRAM);
        let texts: [&[u8]; 3] = [b"one", b"two!", b"three"];
        let iovs = texts.map(|t| iovec { iov_base: t.as_ptr() as *mut _, iov_len: t.len() });
        let mut list: [libc::mmsghdr; 3] = zeroed();
        for (m, v) in list.iter_mut().zip(&iovs) {
            m.msg_hdr.msg_iov = v as *const _ as *mut _;
            m.msg_hdr.msg_iovlen = 1;
        }
        ret("send", sys!(sendmmsg, a, &mut list, 3, 0));
        say!("{:?}", list.map(|m| m.msg_len));
        let mut room = [[0u8; 8]; 4];
        let iovs: Vec<iovec> =
            room.iter_mut().map(|r| iovec { iov_base: r.as_mut_ptr().cast(), iov_len: 8 }).collect();
        let mut list: [libc::mmsghdr; 4] = zeroed();
        for (m, v) in list.iter_mut().zip(&iovs) {
            m.msg_hdr.msg_iov = v as *const _ as *mut _;
            m.msg_hdr.msg_iovlen = 1;
        }
        ret("receive", sys!(recvmmsg, b, &mut list, 4, MSG_DONTWAIT, 0));
        say!("{:?}", list.map(|m| m.msg_len));
        ret("none", sys!(recvmmsg, b, &mut list, 4, MSG_DONTWAIT, 0));
        ret("zero", sys!(sendmmsg, a, &mut list, 0, 0));
        ret("bad time", sys!(recvmmsg, b, &mut list, 4, 0, &libc::timespec { tv_sec: 0, tv_nsec: -1 }));
    }),
    case("sendmsg/errors", "recvmsg", || {
        let (a, b) = pair(SOCK_STREAM);
        ret("bad header", sys!(sendmsg, a, NOWHERE, 0));
        let mut m: msghdr = zeroed();
        m.msg_iovlen = 2000;
        ret("too many vectors", sys!(sendmsg, a, &m, 0));
        m.msg_iovlen = 0;
        ret("empty", sys!(sendmsg, a, &m, 0));
        let iov = iovec { iov_base: NOWHERE as *mut _, iov_len: 4 };
        m.msg_iov = &raw const iov as *mut _;
        m.msg_iovlen = 1;
        ret("bad data", sys!(sendmsg, a, &m, 0));
        send(a, b"x", 0);
        ret("receive into nowhere", sys!(recvmsg, b, &mut m, 0));
        ret("out of band", send(a, b"!", libc::MSG_OOB).min(1));
        ret("not a socket", sys!(sendmsg, 0, &m, 0));
        ret("recv not a socket", sys!(recvfrom, 0, &mut [0u8; 4], 4, 0, 0, 0));
    }),
    case("socketpair/blocking_flow", "fork", || {
        let (a, b) = pair(SOCK_STREAM);
        let child = fork(|| {
            close(b);
            let big = vec![5u8; 1 << 20];
            (sys!(write, a, big.as_slice(), big.len()) == 1 << 20) as i32
        });
        close(a);
        asleep(child);
        let mut total = 0isize;
        let mut buf = vec![0u8; 30_000];
        loop {
            let n = sys!(read, b, buf.as_mut_slice(), buf.len());
            if n <= 0 {
                break;
            }
            total += n;
        }
        say!("{total} {}", wait(child));
    }),
    // Who looks for connections all the time finds each one whole, however early it comes.
    case("accept4/looks_all_the_time", "connect", || {
        const CONNECTIONS: usize = 10_000;
        let l = listener(b"s", SOCK_STREAM | SOCK_NONBLOCK, 5);
        let acceptor = std::thread::spawn(move || {
            let (mut whole, mut other) = (0, Vec::new());
            while whole + other.len() < CONNECTIONS {
                let (mut a, mut len): (sockaddr_un, u32) = (zeroed(), size_of::<sockaddr_un>() as u32);
                match sys!(accept4, l, &mut a, &mut len, 0) {
                    -11 => std::hint::spin_loop(),
                    fd if fd >= 0 => {
                        whole += 1;
                        close(fd as i32);
                    }
                    error => other.push(error),
                }
            }
            (whole, other)
        });
        for _ in 0..CONNECTIONS {
            let fd = socket(SOCK_STREAM);
            while connect(fd, b"s") == -11 {}
            close(fd);
        }
        say!("{:?}", acceptor.join());
    }),
    case("ioctl/socket_queues", "", || {
        let (a, b) = pair(SOCK_STREAM);
        send(a, b"12345", 0);
        let mut n = 0i32;
        ret("FIONREAD", sys!(ioctl, b, libc::FIONREAD, &mut n));
        say!("{n}");
        claim("SIOCOUTQ", sys!(ioctl, a, 0x5411, &mut n) == 0 && n > 0);
        let (a, b) = pair(SOCK_DGRAM);
        send(a, b"123", 0);
        send(a, b"4567", 0);
        ret("datagram FIONREAD", sys!(ioctl, b, libc::FIONREAD, &mut n));
        say!("{n}");
    }),
    case("connect/socket_file_permissions", "chmod", || {
        sys!(chmod, c".", 0o755);
        let _l = listener(b"s", SOCK_STREAM, 5);
        sys!(chmod, c"s", 0o700);
        in_child("user", || {
            sys!(setresuid, 9, 9, 9);
            ret("connect", connect(socket(SOCK_STREAM), b"s"));
            ret("bind elsewhere", bind(socket(SOCK_STREAM), b"t"));
            0
        });
        let _ = (open, cstr(""));
    }),
    case("socket/netlink_and_inet_exist", "", || {
        done("inet stream", sys!(socket, libc::AF_INET, SOCK_STREAM, 0));
        done("inet datagram", sys!(socket, libc::AF_INET, SOCK_DGRAM, 0));
        let fd = done("route", sys!(socket, libc::AF_NETLINK, libc::SOCK_RAW, 0)) as i32;
        let mut a: libc::sockaddr_nl = zeroed();
        a.nl_family = libc::AF_NETLINK as u16;
        ret("bind", sys!(bind, fd, &a, 12));
        ret("inet bad protocol", sys!(socket, libc::AF_INET, SOCK_STREAM, 17));
    }),
];

fn set_timeout(fd: i32, name: i32, ms: i64) {
    let t = libc::timeval { tv_sec: ms / 1000, tv_usec: ms % 1000 * 1000 };
    sys!(setsockopt, fd, SOL_SOCKET, name, &t, 16);
}
