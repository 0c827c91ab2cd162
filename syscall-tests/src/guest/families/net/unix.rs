//! AF_UNIX beyond the basics: credentials, pidfds, files in flight, names, urgent bytes, reading again.

use super::kit::*;
use crate::case::{Case, asleep, case, close, cstr, file, fork, in_child, pause_ms, wait};
use crate::out::{claim, done, must, number, ret, text};
use crate::{say, sys};
use libc::{
    AF_UNIX, AF_UNSPEC, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, SCM_CREDENTIALS, SCM_RIGHTS, SHUT_RD,
    SHUT_RDWR, SHUT_WR, SO_PASSCRED, SO_PEERCRED, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET,
};

const SCM_PIDFD: i32 = 4;
const SO_PASSPIDFD: i32 = 76;
const SO_PEERPIDFD: i32 = 77;

fn listening(name: &[u8], kind: i32) -> i32 {
    let fd = socket(AF_UNIX, kind, 0);
    must("bind", bind(fd, &Addr::unix(name)));
    must("listen", listen(fd, 5));
    fd
}

fn rights(fds: &[i32]) -> Control {
    (SOL_SOCKET, SCM_RIGHTS, fds.iter().flat_map(|f| f.to_ne_bytes()).collect())
}

/// The descriptors in what was received.
fn files(got: &Got) -> Vec<i32> {
    got.find(SOL_SOCKET, SCM_RIGHTS).unwrap_or_default().chunks_exact(4).map(|c| int_at(c, 0)).collect()
}

fn peer_credentials() {
    let l = listening(b"\0peercred", SOCK_STREAM);
    let me = sys!(getpid) as i32;
    let cred = |fd| get_bytes(fd, SOL_SOCKET, SO_PEERCRED, 12);
    say!("of a listener {:?}", cred(l).map(|c| (int_at(&c, 0) == me, int_at(&c, 4), int_at(&c, 8))));
    let child = fork(|| {
        must("setgid", sys!(setgid, 1001));
        must("setuid", sys!(setuid, 1000));
        let c = socket(AF_UNIX, SOCK_STREAM, 0);
        must("connect", connect(c, &Addr::unix(b"\0peercred")));
        let server = cred(c).unwrap_or_default();
        say!("server {} {} {}", int_at(&server, 0) == me, int_at(&server, 4), int_at(&server, 8));
        send(c, b"x", 0);
        recv(c, 1, 0);
        0
    });
    let s = must("accept", accept(l)) as i32;
    say!("{}", recv(s, 1, 0));
    let c = cred(s).unwrap_or_default();
    say!("client {} {} {}", int_at(&c, 0) == child, int_at(&c, 4), int_at(&c, 8));
    let groups = get_bytes(s, SOL_SOCKET, 59, 64);
    say!("groups {:?}", groups.map(|g| g.len()));
    send(s, b"x", 0);
    say!("{}", wait(child));
    say!("short {:?}", get_bytes(s, SOL_SOCKET, SO_PEERCRED, 4).map(|b| b.len()));
    say!("fresh {:?}", cred(socket(AF_UNIX, SOCK_STREAM, 0)));
    ret("set", set(s, SOL_SOCKET, SO_PEERCRED, 1));
    say!("tcp {:?}", cred(tcp(V4)));
}

fn peer_pidfd() {
    let (a, _b) = pair(SOCK_STREAM);
    let fd = get(a, SOL_SOCKET, SO_PEERPIDFD).parse::<i32>().unwrap_or(-1);
    claim("a descriptor", fd > 2);
    say!("flags {}", sys!(fcntl, fd, libc::F_GETFD));
    ret("signal 0", sys!(pidfd_send_signal, fd, 0, 0, 0));
    say!("fresh {}", get(socket(AF_UNIX, SOCK_STREAM, 0), SOL_SOCKET, SO_PEERPIDFD));
    let l = listening(b"\0peerpidfd", SOCK_STREAM);
    let child = fork(|| {
        let c = socket(AF_UNIX, SOCK_STREAM, 0);
        must("connect", connect(c, &Addr::unix(b"\0peerpidfd")));
        recv(c, 1, 0);
        0
    });
    let s = must("accept", accept(l)) as i32;
    let fd = get(s, SOL_SOCKET, SO_PEERPIDFD).parse::<i32>().unwrap_or(-1);
    say!("alive {}", poll(fd));
    send(s, b"x", 0);
    claim("ends", ready(fd, libc::POLLIN));
    say!("{}", wait(child));
    say!("tcp {}", get(tcp(V4), SOL_SOCKET, SO_PEERPIDFD));
}

fn pidfd_messages() {
    let (a, b) = pair(SOCK_DGRAM);
    say!("{}", turn(b, SOL_SOCKET, SO_PASSPIDFD, 1));
    send(a, b"who", 0);
    let got = recv_msg(b, 8, 256, 0);
    say!("{} {}", got.words(), got.kinds());
    let fd = got.find(SOL_SOCKET, SCM_PIDFD).map_or(-1, |d| int_at(d, 0));
    ret("signal 0", sys!(pidfd_send_signal, fd, 0, 0, 0));
    ret("both", set(b, SOL_SOCKET, SO_PASSCRED, 1));
    send(a, b"who", 0);
    say!("{}", recv_msg(b, 8, 256, 0).kinds());
    send(a, b"who", 0);
    let got = recv_msg(b, 8, 16, 0);
    say!("{} {}", got.words(), got.kinds());
    send(a, b"who", 0);
    say!("{}", recv(b, 8, 0));
}

fn credentials_by_hand() {
    let (a, b) = pair(SOCK_STREAM);
    must("option", set(b, SOL_SOCKET, SO_PASSCRED, 1));
    let cred = |pid: isize, uid: u32, gid: u32| {
        let mut v = (pid as i32).to_ne_bytes().to_vec();
        v.extend(uid.to_ne_bytes());
        v.extend(gid.to_ne_bytes());
        (SOL_SOCKET, SCM_CREDENTIALS, v)
    };
    let pid = sys!(getpid);
    ret("others' as root", send_msg(a, b"x", None, &[cred(pid, 5, 6)], 0));
    let got = recv_msg(b, 8, 256, 0);
    let c = got.find(SOL_SOCKET, SCM_CREDENTIALS).unwrap_or_default();
    say!("{} {}", int_at(c, 4), int_at(c, 8));
    ret("no such process", send_msg(a, b"x", None, &[cred(99_999_999, 0, 0)], 0));
    ret("bad user", send_msg(a, b"x", None, &[cred(pid, u32::MAX, 0)], 0));
    ret("short", send_msg(a, b"x", None, &[(SOL_SOCKET, SCM_CREDENTIALS, vec![0; 8])], 0));
    in_child("user", || {
        must("setgid", sys!(setgid, 1001));
        must("setuid", sys!(setuid, 1000));
        let own = sys!(getpid);
        ret("own", send_msg(a, b"x", None, &[cred(own, 1000, 1001)], 0));
        ret("another user", send_msg(a, b"x", None, &[cred(own, 0, 1001)], 0));
        ret("another group", send_msg(a, b"x", None, &[cred(own, 1000, 0)], 0));
        ret("another process", send_msg(a, b"x", None, &[cred(pid, 1000, 1001)], 0));
        0
    });
    // Data of different senders is not put together when credentials are asked for.
    recv(b, 8, MSG_DONTWAIT);
    send(a, b"one", 0);
    send_msg(a, b"two", None, &[cred(pid, 7, 7)], 0);
    say!("{} {}", recv(b, 16, 0), recv(b, 16, 0));
}

fn rights_and_peek(kind: i32) {
    let (a, b) = pair(kind);
    let f = file("f", b"contents");
    ret("send", send_msg(a, b"xyz", None, &[rights(&[f])], 0));
    let got = recv_msg(b, 1, 256, MSG_PEEK);
    say!("{} {}", got.words(), got.kinds());
    let peeked = files(&got);
    let got = recv_msg(b, 8, 256, 0);
    say!("{} {}", got.words(), got.kinds());
    let taken = files(&got);
    claim("different", peeked.first() != taken.first());
    let mut c = [0u8; 8];
    ret("read by one", sys!(read, peeked.first().copied().unwrap_or(-1), &mut c, 4));
    ret("read by the other", sys!(read, taken.first().copied().unwrap_or(-1), &mut c, 8));
    say!("{}", text(&c[..4]));
    ret("no data", send_msg(a, b"", None, &[rights(&[f])], 0));
    let got = recv_msg(b, 8, 256, MSG_DONTWAIT);
    say!("{} {}", got.words(), got.kinds());
}

fn rights_limits() {
    let (a, b) = pair(SOCK_STREAM);
    let f = file("f", b"x");
    ret("bad descriptor", send_msg(a, b"x", None, &[rights(&[f, 999])], 0));
    say!("{}", recv(b, 4, MSG_DONTWAIT));
    let mut m: libc::msghdr = crate::case::zeroed();
    let go = |m: &mut libc::msghdr, n: usize| {
        let mut raw = (16 + n as u64 * 4).to_ne_bytes().to_vec();
        raw.extend(SOL_SOCKET.to_ne_bytes());
        raw.extend(SCM_RIGHTS.to_ne_bytes());
        raw.extend((0..n).flat_map(|_| f.to_ne_bytes()));
        raw.resize(raw.len().next_multiple_of(8), 0);
        let iov = libc::iovec { iov_base: b"x".as_ptr() as *mut _, iov_len: 1 };
        m.msg_iov = &raw const iov as *mut _;
        m.msg_iovlen = 1;
        m.msg_control = raw.as_mut_ptr().cast();
        m.msg_controllen = raw.len();
        sys!(sendmsg, a, &*m, 0)
    };
    ret("253", go(&mut m, 253));
    ret("254", go(&mut m, 254));
    ret("none", go(&mut m, 0));
    // Room for three of 253: the others are let go.
    let got = recv_msg(b, 1, 16 + 12, 0);
    say!("{} {}", got.words(), got.kinds());
    ret("three", send_msg(a, b"y", None, &[rights(&[f, f, f])], 0));
    let got = recv_msg(b, 8, 0, 0);
    say!("{} {}", got.words(), got.kinds());
    ret("on exec", send_msg(a, b"y", None, &[rights(&[f])], 0));
    let got = recv_msg(b, 8, 256, libc::MSG_CMSG_CLOEXEC);
    say!("{} {}", got.words(), sys!(fcntl, files(&got).first().copied().unwrap_or(-1), libc::F_GETFD));
    ret("plain read", send_msg(a, b"z", None, &[rights(&[f])], 0));
    let mut c = [0u8; 4];
    ret("loses them", sys!(read, b, &mut c, 4));
    // Every descriptor is taken: nothing can be given.
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: 4096 };
    ret("send", send_msg(a, b"z", None, &[rights(&[f])], 0));
    must("limit", sys!(prlimit64, 0, libc::RLIMIT_NOFILE, &limit, 0));
    let got = recv_msg(b, 8, 256, 0);
    say!("{} {}", got.words(), got.kinds());
}

/// Sockets that hold each other in their queues are let go: what they held is closed.
fn cycles() {
    let (r, w) = crate::case::pipe(0);
    let (a, b) = pair(SOCK_STREAM);
    let (c, d) = pair(SOCK_DGRAM);
    ret("one into the other", send_msg(a, b"x", None, &[rights(&[c, w])], 0));
    ret("and back", send_msg(d, b"x", None, &[rights(&[b])], 0));
    ret("itself", send_msg(a, b"x", None, &[rights(&[a])], 0));
    close(w);
    say!("held {}", poll(r));
    for fd in [a, b, c, d] {
        close(fd);
    }
    claim("let go", ready(r, libc::POLLHUP));
    say!("{}", poll(r));
}

/// Nothing but these sockets is ever closed, and each is held by the other: it is the number that makes the kernel look.
fn many_cycles() {
    let (r, w) = crate::case::pipe(0);
    for round in 0..9000 {
        let (a, b) = pair(SOCK_DGRAM);
        let sent = if round == 0 {
            send_msg(a, b"x", None, &[rights(&[a, w])], 0)
        } else {
            send_msg(a, b"x", None, &[rights(&[a])], 0)
        };
        must("one into the other", sent);
        must("and back", send_msg(b, b"x", None, &[rights(&[b])], 0));
        close(a);
        close(b);
        if round == 0 {
            close(w);
        }
    }
    claim("let go", ready(r, libc::POLLHUP));
}

fn cycle_in_a_backlog() {
    let (r, w) = crate::case::pipe(0);
    let l = listening(b"\0backlog", SOCK_STREAM);
    let c = socket(AF_UNIX, SOCK_STREAM, 0);
    must("connect", connect(c, &Addr::unix(b"\0backlog")));
    // The listener itself and a pipe wait in a connection that nobody accepted.
    ret("send", send_msg(c, b"x", None, &[rights(&[l, w])], 0));
    close(w);
    close(l);
    close(c);
    claim("let go", ready(r, libc::POLLHUP));
}

fn closed_while_in_flight() {
    let (a, b) = pair(SOCK_STREAM);
    let (r, w) = crate::case::pipe(0);
    ret("send", send_msg(a, b"x", None, &[rights(&[w])], 0));
    close(w);
    say!("{}", poll(r));
    close(b);
    say!("{}", poll(r));
    close(a);
}

fn abstract_names() {
    for name in [&b"\0"[..], b"\0a", b"\0a\0", b"\0a\0b", &[0; 108]] {
        let fd = socket(AF_UNIX, SOCK_STREAM, 0);
        ret("bind", bind(fd, &Addr::unix(name)));
        say!("{}", super::kit::name(fd));
        ret("taken", bind(socket(AF_UNIX, SOCK_DGRAM, 0), &Addr::unix(name)));
    }
    let c = socket(AF_UNIX, SOCK_STREAM, 0);
    ret("not listening", connect(c, &Addr::unix(b"\0a")));
    ret("nobody", connect(c, &Addr::unix(b"\0nobody")));
    let d = socket(AF_UNIX, SOCK_DGRAM, 0);
    ret("another kind", connect(d, &Addr::unix(b"\0a")));
}

fn automatic_names() {
    let a = socket(AF_UNIX, SOCK_DGRAM, 0);
    ret("bind", bind(a, &Addr::family(AF_UNIX, 2)));
    let own = own(a);
    say!("{} {}", own.len, own.raw[2]);
    claim("hexadecimal", own.raw[3..8].iter().all(u8::is_ascii_hexdigit));
    ret("again", bind(a, &Addr::family(AF_UNIX, 2)));
    ret("a path now", bind(a, &Addr::unix(b"path")));
    let b = socket(AF_UNIX, SOCK_DGRAM, 0);
    must("option", set(b, SOL_SOCKET, SO_PASSCRED, 1));
    ret("connect", connect(b, &own));
    say!("with passcred {}", self::own(b).len);
    let c = socket(AF_UNIX, SOCK_DGRAM, 0);
    ret("connect", connect(c, &own));
    say!("without {}", self::own(c).len);
    ret("by address", send_to(c, b"x", &own));
    let (what, from) = recv_from(a, 8, 0);
    say!("{what} {from}");
}

fn paths() {
    let fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ret("no folder", bind(fd, &Addr::unix(b"nowhere/s")));
    ret("too long", bind(fd, &Addr::new(&[&[1, 0][..], &[b'x'; 109]].concat())));
    ret("108 bytes", bind(fd, &Addr::new(&[&[1, 0][..], &[b'x'; 108]].concat())));
    say!("{}", name(fd));
    ret("exists", bind(socket(AF_UNIX, SOCK_STREAM, 0), &Addr::new(&[&[1, 0][..], &[b'x'; 108]].concat())));
    file("plain", b"");
    ret("a file", bind(socket(AF_UNIX, SOCK_STREAM, 0), &Addr::unix(b"plain")));
    ret("connect to a file", connect(socket(AF_UNIX, SOCK_STREAM, 0), &Addr::unix(b"plain")));
    ret("connect to nothing", connect(socket(AF_UNIX, SOCK_STREAM, 0), &Addr::unix(b"none")));
    let l = listening(b"s", SOCK_STREAM);
    must("link", sys!(symlink, c"s", c"l"));
    ret("through a link", connect(socket(AF_UNIX, SOCK_STREAM, 0), &Addr::unix(b"l")));
    must("rename", sys!(rename, c"s", c"t"));
    ret("the old name", connect(socket(AF_UNIX, SOCK_STREAM, 0), &Addr::unix(b"s")));
    ret("the new name", connect(socket(AF_UNIX, SOCK_STREAM, 0), &Addr::unix(b"t")));
    say!("{}", name(l));
    ret("open", sys!(open, c"t", libc::O_RDWR, 0));
    ret("path only", sys!(open, c"t", libc::O_PATH, 0).min(0));
    must("unlink", sys!(unlink, c"t"));
    ret("bind again", bind(socket(AF_UNIX, SOCK_STREAM, 0), &Addr::unix(b"t")));
    close(l);
    ret("dead", connect(socket(AF_UNIX, SOCK_STREAM, 0), &Addr::unix(b"t")));
    sys!(umask, 0o077);
    let m = socket(AF_UNIX, SOCK_STREAM, 0);
    must("bind", bind(m, &Addr::unix(b"masked")));
    let mut st: libc::stat = crate::case::zeroed();
    must("stat", sys!(stat, &*cstr("masked"), &mut st));
    say!("{:o}", st.st_mode);
}

fn stream_states() {
    let fd = socket(AF_UNIX, SOCK_STREAM, 0);
    say!("fresh {} {}", poll(fd), recv(fd, 4, 0));
    ret("send", send(fd, b"x", MSG_NOSIGNAL));
    ret("listen unbound", listen(fd, 1));
    ret("accept", accept(fd));
    ret("shutdown", sys!(shutdown, fd, SHUT_WR));
    ret("send then", send(fd, b"x", MSG_NOSIGNAL));
    let l = listening(b"\0states", SOCK_STREAM);
    let c = socket(AF_UNIX, SOCK_STREAM, 0);
    ret("connect", connect(c, &Addr::unix(b"\0states")));
    ret("again", connect(c, &Addr::unix(b"\0states")));
    ret("unspec", connect(c, &Addr::family(AF_UNSPEC, 2)));
    ret("listen", listen(c, 1));
    ret("bind", bind(c, &Addr::unix(b"\0client")));
    let s = must("accept", accept(l)) as i32;
    say!("{} | {} | {} | {}", name(c), peer(c), name(s), peer(s));
    ret("send to", send_to(c, b"x", &Addr::unix(b"\0states")));
    ret("connect a listener", connect(l, &Addr::unix(b"\0states")));
    say!("{} {}", poll(l), recv(l, 4, MSG_DONTWAIT));
    ret("send on a listener", send(l, b"x", MSG_NOSIGNAL));
    sys!(shutdown, l, SHUT_RD);
    say!("{} {}", poll(l), number(accept(l)));
    ret("connect", connect(socket(AF_UNIX, SOCK_STREAM, 0), &Addr::unix(b"\0states")));
}

fn datagram_states() {
    let a = socket(AF_UNIX, SOCK_DGRAM, 0);
    say!("fresh {}", poll(a));
    ret("send", send(a, b"x", 0));
    ret("listen", listen(a, 1));
    ret("accept", accept(a));
    must("bind", bind(a, &Addr::unix(b"\0dgram")));
    let b = socket(AF_UNIX, SOCK_DGRAM, 0);
    ret("connect", connect(b, &Addr::unix(b"\0dgram")));
    ret("send", send(b, b"x", 0));
    let (what, from) = recv_from(a, 8, 0);
    say!("{what} '{from}'");
    ret("nobody", send_to(a, b"x", &Addr::unix(b"\0nobody")));
    ret("too long", send(b, &vec![0; 400_000], 0));
    ret("disconnect", connect(b, &Addr::family(AF_UNSPEC, 2)));
    ret("send", send(b, b"x", 0));
    ret("connect again", connect(b, &Addr::unix(b"\0dgram")));
    close(a);
    say!("closed {}", poll(b));
    ret("send", send(b, b"x", 0));
    ret("then", send(b, b"x", 0));
    say!("{}", recv(b, 4, MSG_DONTWAIT));
    let (c, d) = pair(SOCK_DGRAM);
    ret("shut", sys!(shutdown, d, SHUT_RD));
    ret("send", send(c, b"x", MSG_NOSIGNAL));
    say!("{} {}", poll(c), poll(d));
    close(d);
    ret("send", send(c, b"x", MSG_NOSIGNAL));
    say!("{}", recv(c, 4, MSG_DONTWAIT));
}

fn tied_datagrams() {
    let a = socket(AF_UNIX, SOCK_DGRAM, 0);
    must("bind", bind(a, &Addr::unix(b"\0tied-a")));
    let b = socket(AF_UNIX, SOCK_DGRAM, 0);
    must("bind", bind(b, &Addr::unix(b"\0tied-b")));
    must("connect", connect(a, &Addr::unix(b"\0tied-b")));
    let c = socket(AF_UNIX, SOCK_DGRAM, 0);
    ret("a stranger sends", send_to(c, b"x", &Addr::unix(b"\0tied-a")));
    ret("a stranger connects", connect(c, &Addr::unix(b"\0tied-a")));
    ret("the friend sends", send_to(b, b"x", &Addr::unix(b"\0tied-a")));
    say!("{}", recv(a, 4, MSG_DONTWAIT));
}

fn peek_offsets() {
    const SO_PEEK_OFF: i32 = 42;
    for kind in [SOCK_STREAM, SOCK_DGRAM] {
        let (a, b) = pair(kind);
        say!("{} {}", get(b, SOL_SOCKET, SO_PEEK_OFF), turn(b, SOL_SOCKET, SO_PEEK_OFF, 2));
        send(a, b"abcdef", 0);
        send(a, b"ghi", 0);
        for _ in 0..3 {
            say!("{} {}", recv(b, 3, MSG_PEEK | MSG_DONTWAIT), get(b, SOL_SOCKET, SO_PEEK_OFF));
        }
        say!("{} {}", recv(b, 2, 0), get(b, SOL_SOCKET, SO_PEEK_OFF));
        say!("{}", recv(b, 3, MSG_PEEK | MSG_DONTWAIT));
        say!("{}", turn(b, SOL_SOCKET, SO_PEEK_OFF, -1));
        say!("{}", recv(b, 16, MSG_PEEK | MSG_DONTWAIT));
    }
    for fd in [udp(V4), tcp(V4)] {
        say!("{}", turn(fd, SOL_SOCKET, SO_PEEK_OFF, 0));
    }
}

fn urgent_bytes() {
    let (a, b) = pair(SOCK_STREAM);
    ret("send", send(a, b"abc", MSG_OOB));
    say!("{}", poll(b));
    let mark = || {
        let mut v = 9i32;
        let r = sys!(ioctl, b, 0x8905, &mut v);
        if r < 0 { number(r) } else { v.to_string() }
    };
    say!("{} {} {}", mark(), recv(b, 16, 0), mark());
    say!("{}", recv(b, 4, MSG_OOB | MSG_PEEK));
    say!("{}", recv(b, 4, MSG_OOB));
    say!("{}", recv(b, 4, MSG_OOB));
    say!("{}", recv(b, 4, MSG_DONTWAIT));
    send(a, b"x", MSG_OOB);
    send(a, b"yz", 0);
    say!("{}", recv(b, 8, MSG_DONTWAIT));
    must("inline", set(b, SOL_SOCKET, libc::SO_OOBINLINE, 1));
    send(a, b"pq", MSG_OOB);
    say!("{} {} {}", recv(b, 8, MSG_OOB), recv(b, 8, 0), recv(b, 8, 0));
    for kind in [SOCK_DGRAM, SOCK_SEQPACKET] {
        let (a, b) = pair(kind);
        ret("send", send(a, b"x", MSG_OOB));
        say!("{}", recv(b, 4, MSG_OOB | MSG_DONTWAIT));
    }
}

fn full_queues() {
    let (a, b) = pair(SOCK_DGRAM);
    nonblocking(a);
    let mut n = 0;
    while send(a, b"x", 0) > 0 {
        n += 1;
    }
    say!("{n} {}", poll(a));
    let child = fork(|| {
        sys!(fcntl, a, libc::F_SETFL, libc::O_RDWR);
        send(a, b"y", 0) as i32
    });
    claim("waits", asleep(child));
    while recv(b, 1, MSG_DONTWAIT) != "EAGAIN" {}
    say!("{}", wait(child));
    let l = socket(AF_UNIX, SOCK_STREAM, 0);
    must("bind", bind(l, &Addr::unix(b"\0full")));
    must("listen", listen(l, 1));
    let mut n = 0;
    loop {
        let c = socket(AF_UNIX, SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        let r = connect(c, &Addr::unix(b"\0full"));
        if r < 0 {
            say!("{n} {}", number(r));
            break;
        }
        n += 1;
    }
    let child = fork(|| {
        let c = socket(AF_UNIX, SOCK_STREAM, 0);
        connect(c, &Addr::unix(b"\0full")) as i32
    });
    claim("waits", asleep(child));
    done("accept", accept(l));
    say!("{}", wait(child));
}

fn seqpacket_ends() {
    let (a, b) = pair(SOCK_SEQPACKET);
    send(a, b"one", 0);
    send(a, b"", 0);
    send(a, b"three", libc::MSG_EOR);
    say!("{} {}", recv_msg(b, 8, 0, 0).words(), recv_msg(b, 8, 0, 0).words());
    say!("{}", recv_msg(b, 2, 0, 0).words());
    sys!(shutdown, a, SHUT_WR);
    say!("{} {}", poll(b), recv_msg(b, 8, 0, 0).words());
    ret("send", send(a, b"x", MSG_NOSIGNAL));
    send(b, b"unread", 0);
    close(a);
    say!("{} {} {}", poll(b), recv(b, 4, 0), recv(b, 4, 0));
    ret("send", send(b, b"x", MSG_NOSIGNAL));
    let fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    say!("{} {}", recv(fd, 4, 0), number(send(fd, b"x", MSG_NOSIGNAL)));
}

fn shutdown_wakes() {
    for kind in [SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM] {
        let (a, b) = pair(kind);
        let child = fork(|| {
            say!("{}", recv(b, 4, 0));
            0
        });
        claim("waits", asleep(child));
        must("shutdown", sys!(shutdown, b, SHUT_RDWR));
        say!("{}", wait(child));
        close(a);
    }
}

fn sending_to_a_dying_reader() {
    let (a, b) = pair(SOCK_STREAM);
    let child = fork(|| {
        close(b);
        // More than fits: waits until the other end goes.
        let n = sys!(sendto, a, vec![0u8; 4 << 20].as_slice(), 4 << 20, MSG_NOSIGNAL, 0, 0);
        claim("a part", n > 0);
        ret("then", send(a, b"x", MSG_NOSIGNAL));
        0
    });
    close(a);
    claim("waits", asleep(child));
    pause_ms(5);
    close(b);
    say!("{}", wait(child));
}

pub const CASES: &[Case] = &[
    case("getsockopt/unix_peercred", "setuid", peer_credentials),
    case("getsockopt/unix_peerpidfd", "pidfd_send_signal", peer_pidfd),
    case("recvmsg/unix_pidfd", "setsockopt", pidfd_messages),
    case("sendmsg/unix_credentials_by_hand", "recvmsg", credentials_by_hand),
    case("recvmsg/unix_rights_peek_stream", "sendmsg", || rights_and_peek(SOCK_STREAM)),
    case("recvmsg/unix_rights_peek_dgram", "sendmsg", || rights_and_peek(SOCK_DGRAM)),
    case("recvmsg/unix_rights_peek_seqpacket", "sendmsg", || rights_and_peek(SOCK_SEQPACKET)),
    case("sendmsg/unix_rights_limits", "recvmsg prlimit64", rights_limits),
    case("close/unix_cycles", "sendmsg", cycles),
    case("sendmsg/unix_many_cycles", "sendmsg", many_cycles),
    case("close/unix_cycle_in_a_backlog", "sendmsg", cycle_in_a_backlog),
    case("close/unix_files_in_flight", "sendmsg", closed_while_in_flight),
    case("bind/unix_abstract_names", "connect", abstract_names),
    case("bind/unix_automatic_names", "connect sendto", automatic_names),
    case("bind/unix_paths", "connect symlink rename unlink", paths),
    case("connect/unix_stream_states", "listen accept4 shutdown", stream_states),
    case("connect/unix_datagram_states", "sendto", datagram_states),
    case("sendto/unix_tied_datagrams", "connect", tied_datagrams),
    case("setsockopt/unix_peek_offset", "recvfrom", peek_offsets),
    case("sendto/unix_urgent", "recvfrom ioctl", urgent_bytes),
    case("sendto/unix_full_queues", "connect", full_queues),
    case("recvmsg/unix_seqpacket_ends", "shutdown", seqpacket_ends),
    case("shutdown/unix_wakes", "recvfrom", shutdown_wakes),
    case("sendto/unix_dying_reader", "close", sending_to_a_dying_reader),
];
