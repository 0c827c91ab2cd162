//! What is told beside data and what decides when and how it goes: stamps and timeouts of the new kind, marks and
//! priorities, pacing, datagrams that come as one.

use super::kit::*;
use crate::case::{Case, case, close, in_child, pause_ms};
use crate::out::{claim, must, number, ret};
use crate::{say, sys};
use libc::{
    AF_UNIX, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, MSG_DONTWAIT, SO_MARK, SO_PRIORITY, SOCK_DGRAM,
    SOCK_STREAM, SOL_SOCKET,
};

const TIMESTAMP: i32 = 29;
const TIMESTAMPNS: i32 = 35;
const TIMESTAMPING: i32 = 37;
const PACING: i32 = 47;
const EXTENSIONS: i32 = 48;
const TIMESTAMP_NEW: i32 = 63;
const TIMESTAMPNS_NEW: i32 = 64;
const TIMESTAMPING_NEW: i32 = 65;
const RCVTIMEO_NEW: i32 = 66;
const SNDTIMEO_NEW: i32 = 67;
const RCVMARK: i32 = 75;
const RCVPRIORITY: i32 = 82;

/// Stamps of what is received by software.
const SOFTWARE: i32 = 8 | 16;

fn stamps() {
    // Somebody who wants stamps all the time, so that they are made.
    let keeper = udp(V4);
    must("stamps", set(keeper, SOL_SOCKET, TIMESTAMP, 1));
    let lists: &[&[(i32, i32)]] = &[
        &[(TIMESTAMP_NEW, 1)],
        &[(TIMESTAMPNS_NEW, 1)],
        &[(TIMESTAMP_NEW, 1), (TIMESTAMP, 1)],
        &[(TIMESTAMP, 1), (TIMESTAMP_NEW, 1)],
        &[(TIMESTAMPNS_NEW, 1), (TIMESTAMP, 1)],
        &[(TIMESTAMPNS_NEW, 1), (TIMESTAMPNS, 1)],
        &[(TIMESTAMP_NEW, 1), (TIMESTAMPNS_NEW, 1)],
        &[(TIMESTAMP_NEW, 1), (TIMESTAMP, 0)],
        &[(TIMESTAMPNS_NEW, 1), (TIMESTAMP_NEW, 0)],
        &[(TIMESTAMPING_NEW, SOFTWARE)],
        &[(TIMESTAMPING_NEW, SOFTWARE), (TIMESTAMPING, SOFTWARE)],
        &[(TIMESTAMPING_NEW, SOFTWARE), (TIMESTAMPING, 1 << 30)],
        &[(TIMESTAMP_NEW, 1), (TIMESTAMPING, SOFTWARE)],
        &[(TIMESTAMPNS, 1), (TIMESTAMPING_NEW, SOFTWARE)],
        &[(TIMESTAMPNS_NEW, 1), (TIMESTAMPNS_NEW, 0), (TIMESTAMPING, SOFTWARE)],
    ];
    for list in lists {
        let (a, b) = datagrams(V4);
        let results: Vec<String> = list.iter().map(|(n, v)| number(set(b, SOL_SOCKET, *n, *v))).collect();
        let told: Vec<String> = [TIMESTAMP, TIMESTAMPNS, TIMESTAMPING, TIMESTAMP_NEW, TIMESTAMPNS_NEW]
            .iter()
            .map(|n| get(b, SOL_SOCKET, *n))
            .collect();
        say!("{list:?} {} | {}", results.join(" "), told.join(" "));
        say!("{:?}", get_bytes(b, SOL_SOCKET, TIMESTAMPING_NEW, 16));
        // They begin some time after they are asked for.
        let mut got = None;
        let wanted = list.iter().any(|(_, v)| *v != 0 && *v != 1 << 30) && results.last().is_some();
        for _ in 0..if wanted { 50 } else { 1 } {
            must("send", send(a, b"x", 0));
            readable(b);
            let m = recv_msg(b, 9, 512, 0);
            let kinds = m.kinds();
            got = Some(m);
            if !kinds.is_empty() {
                break;
            }
            pause_ms(5);
        }
        if let Some(m) = got {
            say!("{}", m.kinds());
            let nanos = m.find(SOL_SOCKET, TIMESTAMPNS_NEW).or(m.find(SOL_SOCKET, TIMESTAMP_NEW));
            if let Some(raw) = nanos {
                let secs = i64::from_ne_bytes(raw[..8].try_into().unwrap_or_default());
                claim("a time of these years", secs > 1_600_000_000);
            }
        }
        close(a);
        close(b);
    }
}

fn timeouts() {
    for (label, fd) in [("tcp", tcp(V4)), ("unix", socket(AF_UNIX, SOCK_DGRAM, 0))] {
        for (old, new) in [(20, RCVTIMEO_NEW), (21, SNDTIMEO_NEW)] {
            say!("{label} {:?}", get_bytes(fd, SOL_SOCKET, new, 16));
            for span in [[1i64, 500_000], [0, 0], [0, 1_000_000], [0, -1], [-1, 0], [2, 4000]] {
                let r = sys!(setsockopt, fd, SOL_SOCKET, new, &span, 16);
                let [a, b] = [old, new].map(|n| get_bytes(fd, SOL_SOCKET, n, 16));
                say!("{span:?} {} {:?} {}", number(r), a, a == b);
            }
            ret("short", sys!(setsockopt, fd, SOL_SOCKET, new, &[1i64, 0], 8));
        }
    }
    let fd = udp(V4);
    must("timeout", sys!(setsockopt, fd, SOL_SOCKET, RCVTIMEO_NEW, &[0i64, 20_000], 16));
    say!("{}", recv(fd, 9, 0));
}

/// Marks and priorities that are told.
fn tags(m: &Got) -> String {
    let one = |kind| m.find(SOL_SOCKET, kind).map_or("-".to_owned(), |d| int_at(d, 0).to_string());
    format!("{} {}", one(SO_MARK), one(SO_PRIORITY))
}

fn marks() {
    for (label, fd) in [("tcp", tcp(V4)), ("udp", udp(V6)), ("unix", socket(AF_UNIX, SOCK_STREAM, 0))] {
        for option in [RCVMARK, RCVPRIORITY, EXTENSIONS] {
            say!("{label} {} | {}", get(fd, SOL_SOCKET, option), turn(fd, SOL_SOCKET, option, 5));
        }
    }
    for net in [V4, V6] {
        let (a, b) = datagrams(net);
        let one = |label: &str, list: &[Control]| {
            let sent = number(send_msg(a, b"x", None, list, 0));
            readable(b);
            say!("{label} {sent} {}", tags(&recv_msg(b, 9, 512, MSG_DONTWAIT)));
        };
        one("not asked", &[]);
        must("ask", set(b, SOL_SOCKET, RCVMARK, 1));
        one("mark only", &[]);
        must("ask", set(b, SOL_SOCKET, RCVPRIORITY, 1));
        one("nothing", &[]);
        must("mark", set(a, SOL_SOCKET, SO_MARK, 77));
        must("priority", set(a, SOL_SOCKET, SO_PRIORITY, 5));
        one("both", &[]);
        let int = |kind, n: i32| (SOL_SOCKET, kind, n.to_ne_bytes().to_vec());
        one("mark of one", &[int(SO_MARK, 3)]);
        one("priority of one", &[int(SO_PRIORITY, 2)]);
        one("both of one", &[int(SO_MARK, -1), int(SO_PRIORITY, 9)]);
        one("short", &[(SOL_SOCKET, SO_MARK, vec![1, 2])]);
        if net == V4 {
            for tos in [0, 0x08, 0x10, 0x18, 0xff, 0x04] {
                must("tos", set(a, IPPROTO_IP, libc::IP_TOS, tos));
                say!("tos {tos} {}", get(a, SOL_SOCKET, SO_PRIORITY));
            }
        }
        one("last", &[]);
        // A filter sees the mark, too.
        let program = [[0x20u16, 0], [0x15, 1 << 8], [0x06, 0], [0x06, 0]];
        let k = [0xffff_f014u32, 77, u32::MAX, 0];
        let insns: Vec<[u8; 8]> = (0..4)
            .map(|i| {
                let mut raw = [0; 8];
                raw[..2].copy_from_slice(&program[i][0].to_ne_bytes());
                raw[2..4].copy_from_slice(&program[i][1].to_ne_bytes());
                raw[4..].copy_from_slice(&k[i].to_ne_bytes());
                raw
            })
            .collect();
        let head = [insns.len() as u64, insns.as_ptr() as u64];
        ret("filter", sys!(setsockopt, b, SOL_SOCKET, libc::SO_ATTACH_FILTER, &head, 16));
        for mark in [76, 77] {
            must("mark", set(a, SOL_SOCKET, SO_MARK, mark));
            must("send", send(a, b"x", 0));
            pause_ms(5);
            say!("{mark} {}", recv(b, 9, MSG_DONTWAIT));
        }
    }
    let (c, s) = connection(V4);
    must("mark", set(c, SOL_SOCKET, SO_MARK, 9));
    must("ask", set(s, SOL_SOCKET, RCVMARK, 1));
    must("send", send(c, b"x", 0));
    say!("a stream {}", recv_msg(s, 9, 512, 0).kinds());
    in_child("user", || {
        let (a, b) = datagrams(V4);
        must("setuid", sys!(setuid, 1000));
        ret("mark", set(b, SOL_SOCKET, RCVMARK, 1));
        ret("no mark", set(b, SOL_SOCKET, RCVMARK, 0));
        ret("priority", set(b, SOL_SOCKET, RCVPRIORITY, 1));
        let int = |kind, n: i32| [(SOL_SOCKET, kind, n.to_ne_bytes().to_vec())];
        ret("mark of one", send_msg(a, b"x", None, &int(SO_MARK, 3), 0));
        ret("priority of one", send_msg(a, b"x", None, &int(SO_PRIORITY, 6), 0));
        ret("more", send_msg(a, b"x", None, &int(SO_PRIORITY, 7), 0));
        0
    });
}

fn pacing() {
    for (label, fd) in [("tcp", tcp(V4)), ("udp", udp(V4)), ("unix", socket(AF_UNIX, SOCK_STREAM, 0))] {
        let show = || [4, 6, 8, 9].map(|room| get_bytes(fd, SOL_SOCKET, PACING, room));
        say!("{label} {:?}", show());
        for n in [0, 5, -1, i32::MAX] {
            say!("{} {:?}", number(set(fd, SOL_SOCKET, PACING, n)), show());
        }
        for n in [5u64, 1 << 33, u64::MAX] {
            let r = set_bytes(fd, SOL_SOCKET, PACING, &n.to_ne_bytes());
            say!("{} {:?}", number(r), show());
        }
        ret("short", set_bytes(fd, SOL_SOCKET, PACING, &[1, 2, 3]));
    }
    let (c, s) = connection(V4);
    let rates = |fd| {
        let info = get_bytes(fd, IPPROTO_TCP, 11, 256).unwrap_or_default();
        [104, 112].map(|at| u64::from_ne_bytes(info[at..at + 8].try_into().unwrap_or_default()))
    };
    let [now, most] = rates(c);
    claim("fast", now > 1_000_000_000 && most == u64::MAX);
    must("pace", set(c, SOL_SOCKET, PACING, 300_000));
    say!("{:?}", rates(c));
    say!("{:?}", rates(s)[1]);
}

fn joined(net: Net) {
    const SEGMENT: i32 = 103;
    const GRO: i32 = 104;
    let (a, b) = datagrams(net);
    let all = |label: &str| {
        pause_ms(5);
        loop {
            let m = recv_msg(b, 4000, 512, MSG_DONTWAIT);
            say!("{label} {} {}", number(m.result), m.kinds());
            if let Some(size) = m.find(IPPROTO_UDP, GRO) {
                say!("segment {}", int_at(size, 0));
            }
            if m.result < 0 {
                break;
            }
        }
    };
    must("segment", set(a, IPPROTO_UDP, SEGMENT, 1000));
    ret("send", send(a, &[1; 2500], 0));
    all("apart");
    say!("{}", turn(b, IPPROTO_UDP, GRO, 7));
    for size in [2500, 3000, 1000, 900, 1001] {
        ret("send", send(a, &vec![1; size], 0));
        all("joined");
    }
    // Of one that does not fit the rest is lost.
    ret("send", send(a, &[1; 3500], 0));
    readable(b);
    say!("{}", number(sys!(ioctl, b, 0x541b, &mut 0i32)));
    let m = recv_msg(b, 1200, 512, MSG_DONTWAIT);
    say!("{} {} {}", number(m.result), m.kinds(), m.flags & libc::MSG_TRUNC);
    all("rest");
    let one = (IPPROTO_UDP, SEGMENT, 700u16.to_ne_bytes().to_vec());
    ret("of one", send_msg(a, &[2; 1500], None, &[one], 0));
    all("joined");
    must("off", set(b, IPPROTO_UDP, GRO, 0));
    ret("send", send(a, &[1; 2500], 0));
    all("apart");
    for option in [101, 102] {
        say!("{option} {} {}", turn(a, IPPROTO_UDP, option, 5), turn(a, IPPROTO_UDP, option, 0));
    }
    must("no checksum", set(a, IPPROTO_UDP, 101, 1));
    must("no segments", set(a, IPPROTO_UDP, SEGMENT, 0));
    ret("send", send(a, b"unchecked", 0));
    all("inside");
}

pub const NETS: &[Case] = nets! {
    [v4 v6 mapped] "setsockopt/fresh_joined" "sendto recvmsg" joined;
};
pub const CASES: &[Case] = &[
    case("setsockopt/fresh_stamps", "recvmsg", stamps),
    case("setsockopt/fresh_timeouts", "getsockopt recvfrom", timeouts),
    case("setsockopt/fresh_marks", "recvmsg sendmsg", marks),
    case("setsockopt/fresh_pacing", "getsockopt", pacing),
];
