//! Options that tune connections of TCP and that can be seen in what a connection does: TCP_MAXSEG, TCP_WINDOW_CLAMP,
//! TCP_NOTSENT_LOWAT, TCP_LINGER2 and their kin.

use super::kit::*;
use crate::case::{Case, case, close, pause_ms};
use crate::out::{claim, must, ret};
use crate::{say, sys};
use libc::{IPPROTO_TCP, MSG_DONTWAIT, SO_ERROR, SO_REUSEADDR, SOL_SOCKET};

const MAXSEG: i32 = 2;
const SYNCNT: i32 = 7;
const LINGER2: i32 = 8;
const CLAMP: i32 = 10;
const INFO: i32 = 11;
const LOWAT: i32 = 25;
const UNSENT: usize = 0x894b;

/// A connection whose ends had these options set before: who connects, who was accepted.
fn with(net: Net, client: &[(i32, i32)], server: &[(i32, i32)]) -> (i32, i32) {
    let all = |fd, list: &[(i32, i32)]| {
        for (name, value) in list {
            must("set", set(fd, IPPROTO_TCP, *name, *value));
        }
    };
    let l = tcp(net);
    all(l, server);
    let (l, a) = bound(l, net);
    must("listen", listen(l, 8));
    let c = tcp(net);
    all(c, client);
    must("connect", connect(c, &a));
    let s = must("accept", accept(l)) as i32;
    close(l);
    (c, s)
}

/// Words of `struct tcp_info`.
fn info<const N: usize>(fd: i32, at: [usize; N]) -> [i32; N] {
    let bytes = get_bytes(fd, IPPROTO_TCP, INFO, 256).unwrap_or_default();
    at.map(|at| int_at(&bytes, at))
}

fn queue(fd: i32, request: usize) -> i32 {
    let mut n = -1i32;
    sys!(ioctl, fd, request, &mut n);
    n
}

/// Segment sizes and windows of a fresh connection.
fn sizes(fd: i32) -> String {
    let [send, receive, advertised] = info(fd, [16, 20, 84]);
    format!("{} {send} {receive} {advertised}", get(fd, IPPROTO_TCP, MAXSEG))
}

fn segment_sizes(net: Net) {
    for (client, server) in [(0, 0), (1000, 0), (0, 1000), (1000, 500), (500, 1000), (88, 0), (32767, 0)] {
        let (c, s) = with(net, &[(MAXSEG, client)], &[(MAXSEG, server)]);
        say!("{client} {server}: {} | {}", sizes(c), sizes(s));
        ret("later", set(c, IPPROTO_TCP, MAXSEG, 700));
        say!("{}", sizes(c));
        must("send", send(c, &[1; 5000], 0));
        readable(s);
        pause_ms(5);
        // Segments with data, out and in.
        say!("{:?} {:?}", info(c, [156]), info(s, [152]));
        close(c);
        close(s);
    }
}

fn clamped_windows(net: Net) {
    for clamp in [1200, 3000] {
        for (label, client, server) in [("client", clamp, 0), ("server", 0, clamp)] {
            let (c, s) = with(net, &[(CLAMP, client)], &[(CLAMP, server)]);
            say!("{label} {clamp}: {} {:?} | {} {:?}", sizes(c), info(c, [228]), sizes(s), info(s, [228]));
            say!("{} {}", get(c, IPPROTO_TCP, CLAMP), get(s, IPPROTO_TCP, CLAMP));
            say!("later {} {}", turn(c, IPPROTO_TCP, CLAMP, 5), turn(c, IPPROTO_TCP, CLAMP, 0));
            say!("{}", turn(c, IPPROTO_TCP, CLAMP, 200_000));
            close(c);
            close(s);
        }
    }
    let (c, s) = with(net, &[], &[]);
    say!("{} {}", get(c, IPPROTO_TCP, CLAMP), get(s, IPPROTO_TCP, CLAMP));
    let l = tcp(net);
    say!("{}", turn(l, IPPROTO_TCP, CLAMP, -1));
    say!("{}", turn(l, IPPROTO_TCP, CLAMP, 0));
}

/// Sends as long as it goes.
fn fill(fd: i32) -> isize {
    let mut all = 0;
    for _ in 0..40 {
        loop {
            let n = send(fd, &[7; 1000], MSG_DONTWAIT);
            if n <= 0 {
                break;
            }
            all += n;
        }
        pause_ms(2);
    }
    all
}

fn little_unsent(net: Net) {
    for low in [1, 1000, 100_000] {
        let (c, s) = connection(net);
        must("buffer", set(s, SOL_SOCKET, libc::SO_RCVBUF, 20_000));
        ret("low", set(c, IPPROTO_TCP, LOWAT, low));
        let all = fill(c);
        let unsent = queue(c, UNSENT);
        claim("bounded", unsent >= low && unsent < low + 70_000);
        say!("{}", poll(c));
        ret("no", send(c, b"x", MSG_DONTWAIT));
        // More may be unsent from now on.
        ret("default", set(c, IPPROTO_TCP, LOWAT, 0));
        say!("{} {}", poll(c), send(c, b"x", MSG_DONTWAIT));
        ret("low", set(c, IPPROTO_TCP, LOWAT, low));
        say!("{}", poll(c));
        let mut got = 0;
        let mut b = vec![0u8; 65536];
        while got < all + 1 && readable(s) {
            got += sys!(recvfrom, s, b.as_mut_slice(), 65536, 0, 0, 0).max(0);
        }
        claim("all", got == all + 1);
        claim("writable", ready(c, libc::POLLOUT));
        say!("{} unsent", queue(c, UNSENT));
        close(c);
        close(s);
    }
    // It has no sign.
    let (c, _s) = connection(net);
    ret("most", set(c, IPPROTO_TCP, LOWAT, -1));
    claim("much", fill(c) > 500_000);
}

/// The end that is closed first does not wait for the other.
fn impatient(net: Net) {
    for shut_before in [false, true] {
        let (c, s) = connection(net);
        ret("linger2", set(c, IPPROTO_TCP, LINGER2, -5));
        must("send", send(c, b"hello", 0));
        if shut_before {
            ret("shutdown", sys!(shutdown, c, libc::SHUT_WR));
            pause_ms(100);
            say!("{} {}", poll(s), get(s, SOL_SOCKET, SO_ERROR));
        }
        let at = own(c);
        close(c);
        pause_ms(100);
        say!("{}", poll(s));
        say!("{} {}", recv(s, 9, 0), recv(s, 9, 0));
        say!("error {}", get(s, SOL_SOCKET, SO_ERROR));
        ret("broken", send(s, b"x", libc::MSG_NOSIGNAL));
        say!("{}", poll(s));
        // The port is free at once.
        ret("bind", bind(tcp(net), &at));
    }
    let (c, s) = connection(net);
    must("linger2", set(c, IPPROTO_TCP, LINGER2, -1));
    must("send", send(s, b"last words", 0));
    close(s);
    say!("{} {}", recv(c, 20, 0), recv(c, 20, 0));
    ret("who closes last", close_of(c));
}

fn close_of(fd: i32) -> isize {
    sys!(close, fd)
}

/// The other end is waited for for a second.
fn a_second(net: Net) {
    let (c, s) = connection(net);
    must("linger2", set(c, IPPROTO_TCP, LINGER2, 1));
    let at = own(c);
    close(c);
    readable(s);
    let again = tcp(net);
    ret("taken", bind(again, &at));
    pause_ms(3000);
    ret("free", bind(again, &at));
    say!("{}", poll(s));
    ret("first", send(s, b"x", libc::MSG_NOSIGNAL));
    pause_ms(20);
    ret("second", send(s, b"x", libc::MSG_NOSIGNAL));
    ret("reuse", set(again, SOL_SOCKET, SO_REUSEADDR, 1));
}

fn handed_down() {
    let all = [(LINGER2, 5), (SYNCNT, 3), (LOWAT, 77), (CLAMP, 2000), (MAXSEG, 1000)];
    let (_c, s) = with(V4, &[], &all);
    let now: Vec<String> = all.iter().map(|(name, _)| get(s, IPPROTO_TCP, *name)).collect();
    say!("{}", now.join(" "));
}

pub const NETS: &[Case] = nets! {
    [v4 v6 mapped] "setsockopt/tuned_maxseg" "getsockopt connect" segment_sizes;
    [v4 v6] "setsockopt/tuned_window_clamp" "getsockopt connect" clamped_windows;
    [v4 v6] "setsockopt/tuned_notsent_lowat" "sendto poll ioctl" little_unsent;
    [v4 v6] "setsockopt/tuned_linger2_negative" "close recvfrom sendto poll" impatient;
    [v4] "setsockopt/tuned_linger2_second" "close bind" a_second;
};
pub const CASES: &[Case] = &[case("accept4/tuned_inherited", "setsockopt getsockopt", handed_down)];
