//! sendfile(2), splice(2), tee(2) and vmsplice(2) with sockets.

use super::kit::*;
use crate::case::{Case, case, close, file, fork, pipe, wait};
use crate::out::{must, ret, text};
use crate::{say, sys};
use libc::{MSG_DONTWAIT, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM, SPLICE_F_MOVE, SPLICE_F_NONBLOCK};

fn stream(kind: usize) -> (i32, i32) {
    match kind {
        0 => connection(V4),
        1 => connection(V6),
        _ => pair(SOCK_STREAM),
    }
}

fn from_file(kind: usize) {
    let (c, s) = stream(kind);
    let f = file("f", b"0123456789");
    ret("all", sys!(sendfile, c, f, 0, 100));
    readable(s);
    say!("{}", recv(s, 32, 0));
    ret("at the end", sys!(sendfile, c, f, 0, 100));
    let mut at = 4i64;
    ret("from an offset", sys!(sendfile, c, f, &mut at, 3));
    say!("{at} {}", sys!(lseek, f, 0, 1));
    readable(s);
    say!("{}", recv(s, 32, 0));
    let mut at = -1i64;
    ret("negative offset", sys!(sendfile, c, f, &mut at, 3));
    ret("from a socket", sys!(sendfile, f, s, 0, 3));
    ret("nothing", sys!(sendfile, c, f, 0, 0));
    let fresh = tcp(V4);
    sys!(lseek, f, 0, 0);
    let mask: u64 = 1 << (libc::SIGPIPE - 1);
    sys!(rt_sigprocmask, libc::SIG_BLOCK, &mask, 0, 8);
    ret("not connected", sys!(sendfile, fresh, f, 0, 3));
    close(s);
    readable(c);
    sys!(lseek, f, 0, 0);
    sys!(sendfile, c, f, 0, 3);
    ready(c, libc::POLLHUP | libc::POLLERR);
    ret("to nobody", sys!(sendfile, c, f, 0, 3));
}

fn large_file(kind: usize) {
    let (c, s) = stream(kind);
    let data: Vec<u8> = (0..1_500_000u32).map(|i| (i >> 4) as u8).collect();
    let f = file("big", &data);
    let child = fork(|| {
        close(s);
        let mut left = data.len();
        while left > 0 {
            let n = sys!(sendfile, c, f, 0, left);
            if n <= 0 {
                return 1;
            }
            left -= n as usize;
        }
        0
    });
    close(c);
    let mut b = vec![0u8; 1 << 16];
    let mut got = Vec::new();
    loop {
        let n = sys!(read, s, b.as_mut_slice(), b.len());
        if n <= 0 {
            break;
        }
        got.extend_from_slice(&b[..n as usize]);
    }
    say!("{} {} {}", got.len(), got == data, wait(child));
}

fn splicing(kind: usize) {
    let (c, s) = stream(kind);
    let (r, w) = pipe(0);
    sys!(write, w, b"through a pipe", 14);
    ret("out", sys!(splice, r, 0, c, 0, 7, SPLICE_F_MOVE));
    ret("more", sys!(splice, r, 0, c, 0, 100, 0));
    readable(s);
    say!("{}", recv(s, 32, 0));
    ret("empty pipe", sys!(splice, r, 0, c, 0, 100, SPLICE_F_NONBLOCK));
    send(c, b"and back", 0);
    readable(s);
    ret("in", sys!(splice, s, 0, w, 0, 100, 0));
    let mut b = [0u8; 16];
    ret("read", sys!(read, r, &mut b, 16));
    say!("{}", text(&b));
    // TCP asks the socket alone whether to wait.
    nonblocking(s);
    ret("nothing there", sys!(splice, s, 0, w, 0, 100, SPLICE_F_NONBLOCK));
    let mut at = 0i64;
    ret("offset of a socket", sys!(splice, s, &mut at, w, 0, 1, 0));
    ret("socket to socket", sys!(splice, s, 0, c, 0, 1, 0));
    ret("socket to file", sys!(splice, s, 0, file("f", b""), 0, 1, 0));
    sys!(shutdown, c, libc::SHUT_WR);
    readable(s);
    ret("end", sys!(splice, s, 0, w, 0, 100, 0));
    ret("tee of a socket", sys!(tee, s, w, 10, 0));
}

fn splicing_datagrams() {
    for (a, b) in [datagrams(V4), pair(SOCK_DGRAM), pair(SOCK_SEQPACKET)] {
        let (r, w) = pipe(0);
        sys!(write, w, b"datagram", 8);
        ret("out", sys!(splice, r, 0, a, 0, 8, 0));
        readable(b);
        say!("{}", recv(b, 16, MSG_DONTWAIT));
        send(a, b"short", 0);
        readable(b);
        ret("in", sys!(splice, b, 0, w, 0, 100, SPLICE_F_NONBLOCK));
        let f = file("f", b"0123456789");
        ret("sendfile", sys!(sendfile, a, f, 0, 4));
        readable(b);
        say!("{}", recv(b, 16, MSG_DONTWAIT));
    }
}

fn copying() {
    let (c, _s) = connection(V4);
    let f = file("f", b"0123456789");
    ret("copy_file_range", sys!(copy_file_range, f, 0, c, 0, 4, 0));
    ret("from a socket", sys!(copy_file_range, c, 0, f, 0, 4, 0));
    ret("preadv2", sys!(preadv2, c, 0, 0, 0, 0, 0));
    ret("fallocate", sys!(fallocate, c, 0, 0, 1));
    let mut st: libc::stat = crate::case::zeroed();
    must("fstat", sys!(fstat, c, &mut st));
    say!("{:o} {}", st.st_mode, st.st_size);
    ret("fchmod", sys!(fchmod, c, 0o600));
    must("fstat", sys!(fstat, c, &mut st));
    say!("{:o}", st.st_mode);
}

pub const CASES: &[Case] = &[
    case("sendfile/tcp", "recvfrom", || from_file(0)),
    case("sendfile/unix", "recvfrom", || from_file(2)),
    case("sendfile/tcp_large", "read", || large_file(1)),
    case("sendfile/unix_large", "read", || large_file(2)),
    case("splice/tcp", "tee", || splicing(0)),
    case("splice/unix", "tee", || splicing(2)),
    case("splice/datagrams", "sendfile", splicing_datagrams),
    case("copy_file_range/sockets", "fallocate fstat fchmod", copying),
];
