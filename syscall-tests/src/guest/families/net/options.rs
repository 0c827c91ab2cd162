//! getsockopt(2) and setsockopt(2): defaults, ranges, lengths, rights.

use super::kit::*;
use crate::case::{Case, NOWHERE, case, close, in_child};
use crate::out::{claim, must, number, ret};
use crate::{say, sys};
use libc::{
    AF_INET, AF_UNIX, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP, SO_BROADCAST, SO_DEBUG,
    SO_DONTROUTE, SO_KEEPALIVE, SO_LINGER, SO_MARK, SO_NO_CHECK, SO_OOBINLINE, SO_PRIORITY, SO_RCVBUF,
    SO_RCVBUFFORCE, SO_RCVLOWAT, SO_RCVTIMEO, SO_REUSEADDR, SO_REUSEPORT, SO_SNDBUF, SO_SNDBUFFORCE,
    SO_SNDTIMEO, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET,
};

/// Sets an option to values and says the results and what it is then.
fn try_all(fd: i32, level: i32, name: i32, label: &str, values: &[i32]) {
    let all: Vec<String> = values.iter().map(|v| turn(fd, level, name, *v)).collect();
    say!("{label} {} | {}", get(tcp(V4).max(fd), level, name), all.join(" | "));
}

fn flags_of_sockets() {
    for (label, fd) in [("tcp", tcp(V4)), ("udp", udp(V6)), ("unix", socket(AF_UNIX, SOCK_STREAM, 0))] {
        for (name, option) in [
            ("reuseaddr", SO_REUSEADDR),
            ("keepalive", SO_KEEPALIVE),
            ("broadcast", SO_BROADCAST),
            ("oobinline", SO_OOBINLINE),
            ("dontroute", SO_DONTROUTE),
            ("no_check", SO_NO_CHECK),
            ("debug", SO_DEBUG),
            ("timestamp", libc::SO_TIMESTAMP),
            ("timestampns", libc::SO_TIMESTAMPNS),
            ("rxq_ovfl", libc::SO_RXQ_OVFL),
            ("select_err_queue", 45),
            ("nofcs", 43),
        ] {
            let before = get(fd, SOL_SOCKET, option);
            say!("{label} {name} {before} | {}", turn(fd, SOL_SOCKET, option, 5));
            say!("{}", turn(fd, SOL_SOCKET, option, 0));
        }
    }
}

fn reuseport_kinds() {
    for (label, fd) in [("tcp", tcp(V4)), ("udp", udp(V4)), ("unix", socket(AF_UNIX, SOCK_DGRAM, 0))] {
        say!("{label} {}", turn(fd, SOL_SOCKET, SO_REUSEPORT, 1));
    }
}

fn buffer_sizes() {
    for (label, fd) in [("tcp", tcp(V4)), ("udp", udp(V4)), ("unix", socket(AF_UNIX, SOCK_STREAM, 0))] {
        for (name, option) in [("send", SO_SNDBUF), ("receive", SO_RCVBUF)] {
            say!("{label} {name} {}", get(fd, SOL_SOCKET, option));
            let all: Vec<String> =
                [0, 1, 2000, 5000, 100_000].iter().map(|v| turn(fd, SOL_SOCKET, option, *v)).collect();
            say!("{}", all.join(" | "));
        }
        say!("force {}", number(set(fd, SOL_SOCKET, SO_SNDBUFFORCE, 500_000)));
        say!("{}", get(fd, SOL_SOCKET, SO_SNDBUF));
        say!("force {}", number(set(fd, SOL_SOCKET, SO_RCVBUFFORCE, -5)));
        say!("{}", get(fd, SOL_SOCKET, SO_RCVBUF));
        say!("not to be read {}", get(fd, SOL_SOCKET, SO_RCVBUFFORCE));
    }
}

fn buffer_lock() {
    const SO_BUF_LOCK: i32 = 72;
    let fd = tcp(V4);
    say!("{}", get(fd, SOL_SOCKET, SO_BUF_LOCK));
    set(fd, SOL_SOCKET, SO_SNDBUF, 9000);
    say!("{}", get(fd, SOL_SOCKET, SO_BUF_LOCK));
    say!("{} | {}", turn(fd, SOL_SOCKET, SO_BUF_LOCK, 3), turn(fd, SOL_SOCKET, SO_BUF_LOCK, 0));
    say!("{}", turn(fd, SOL_SOCKET, SO_BUF_LOCK, 4));
}

fn lengths() {
    let fd = tcp(V4);
    let v = 1i32;
    for len in [0, 1, 3] {
        ret("short", sys!(setsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, &v, len));
    }
    ret("long", sys!(setsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, &[1i32, 2], 8));
    ret("negative", sys!(setsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, &v, -1));
    ret("bad pointer", sys!(setsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, NOWHERE, 4));
    ret("unknown", set(fd, SOL_SOCKET, 999, 1));
    ret("unknown level", set(fd, 999, 1, 1));
    let mut out = [7u8; 8];
    for room in [0u32, 1, 3, 8] {
        let mut len = room;
        ret("get", sys!(getsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, &mut out, &mut len));
        say!("{len} {}", out[0]);
    }
    let mut len = -1i32;
    ret("negative", sys!(getsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, &mut out, &mut len));
    ret("bad length", sys!(getsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, &mut out, NOWHERE));
    let mut len = 4;
    ret("bad pointer", sys!(getsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, NOWHERE, &mut len));
    ret("unknown", sys!(getsockopt, fd, SOL_SOCKET, 999, &mut out, &mut len));
    ret("unknown level", sys!(getsockopt, fd, 999, 1, &mut out, &mut len));
    let (file, _) = crate::case::pipe(0);
    ret("not a socket", sys!(getsockopt, file, SOL_SOCKET, SO_KEEPALIVE, &mut out, &mut len));
    ret("not a socket", set(file, SOL_SOCKET, SO_KEEPALIVE, 1));
}

fn unknown_levels() {
    for (label, fd) in [
        ("tcp", tcp(V4)),
        ("tcp6", tcp(V6)),
        ("udp", udp(V4)),
        ("udp6", udp(V6)),
        ("unix", socket(AF_UNIX, SOCK_STREAM, 0)),
        ("netlink", socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)),
    ] {
        for (level, name) in [
            (IPPROTO_IP, 199),
            (IPPROTO_IPV6, 199),
            (IPPROTO_TCP, 99),
            (IPPROTO_UDP, 99),
            (255, 1),
            (58, 1),
            (270, 99),
        ] {
            say!("{label} {level}/{name} {} {}", number(set(fd, level, name, 1)), get(fd, level, name));
        }
    }
}

fn timeouts() {
    let fd = udp(V4);
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
        let show = || match get_bytes(fd, SOL_SOCKET, option, 16) {
            Ok(b) => {
                let word = |i: usize| i64::from_ne_bytes(b[i..i + 8].try_into().unwrap_or_default());
                format!("{}.{:06} ({})", word(0), word(8), b.len())
            }
            Err(e) => number(e),
        };
        say!("{}", show());
        for span in [[1i64, 500_000], [0, 0], [0, 1_000_000], [0, -1], [-1, 0], [i64::MAX, 0], [0, 4000]] {
            let r = sys!(setsockopt, fd, SOL_SOCKET, option, &span, 16);
            say!("{span:?} {} -> {}", number(r), show());
        }
        ret("short", sys!(setsockopt, fd, SOL_SOCKET, option, &[1i64, 0], 8));
        say!("{:?}", get_bytes(fd, SOL_SOCKET, option, 8).map(|b| b.len()));
    }
}

fn linger() {
    for fd in [tcp(V4), udp(V4), socket(AF_UNIX, SOCK_STREAM, 0)] {
        let show = || get_bytes(fd, SOL_SOCKET, SO_LINGER, 8).map(|b| (int_at(&b, 0), int_at(&b, 4)));
        say!("{:?}", show());
        for v in [[1, 5], [7, 0], [0, 9]] {
            let r = sys!(setsockopt, fd, SOL_SOCKET, SO_LINGER, &v, 8);
            say!("{v:?} {} -> {:?}", number(r), show());
        }
        ret("short", sys!(setsockopt, fd, SOL_SOCKET, SO_LINGER, &[1i32, 1], 4));
    }
}

fn low_water() {
    let fd = tcp(V4);
    try_all(fd, SOL_SOCKET, SO_RCVLOWAT, "receive", &[0, 1, 5]);
    say!("send {} {}", get(fd, SOL_SOCKET, 19), number(set(fd, SOL_SOCKET, 19, 5)));
    let fd = udp(V4);
    try_all(fd, SOL_SOCKET, SO_RCVLOWAT, "receive", &[0, 5, -1]);
    let fd = socket(AF_UNIX, SOCK_STREAM, 0);
    try_all(fd, SOL_SOCKET, SO_RCVLOWAT, "receive", &[0, 5, -1]);
}

fn rights() {
    in_child("user", || {
        let fd = tcp(V4);
        let other = udp(V6);
        must("setuid", sys!(setuid, 1000));
        for (label, level, name, value) in [
            ("mark", SOL_SOCKET, SO_MARK, 1),
            ("priority 6", SOL_SOCKET, SO_PRIORITY, 6),
            ("priority 7", SOL_SOCKET, SO_PRIORITY, 7),
            ("priority -1", SOL_SOCKET, SO_PRIORITY, -1),
            ("debug", SOL_SOCKET, SO_DEBUG, 1),
            ("sndbufforce", SOL_SOCKET, SO_SNDBUFFORCE, 9000),
            ("rcvbufforce", SOL_SOCKET, SO_RCVBUFFORCE, 9000),
            ("transparent", IPPROTO_IP, libc::IP_TRANSPARENT, 1),
            ("transparent off", IPPROTO_IP, libc::IP_TRANSPARENT, 0),
            ("freebind", IPPROTO_IP, libc::IP_FREEBIND, 1),
            ("busy poll", SOL_SOCKET, libc::SO_BUSY_POLL, 50),
            ("busy poll off", SOL_SOCKET, libc::SO_BUSY_POLL, 0),
        ] {
            ret(label, set(fd, level, name, value));
        }
        ret("transparent", set(other, IPPROTO_IPV6, 75, 1));
        ret("freebind", set(other, IPPROTO_IPV6, 78, 1));
        let name = *b"lo\0\0";
        ret("first device", sys!(setsockopt, fd, SOL_SOCKET, libc::SO_BINDTODEVICE, &name, 4));
        ret("another device", sys!(setsockopt, fd, SOL_SOCKET, libc::SO_BINDTODEVICE, &name, 4));
        0
    });
    let fd = tcp(V4);
    say!("{} {}", turn(fd, SOL_SOCKET, SO_MARK, 77), turn(fd, SOL_SOCKET, SO_PRIORITY, 99));
}

fn devices() {
    const IFINDEX: i32 = 62;
    let fd = udp(V4);
    let set = |n: &[u8]| set_bytes(fd, SOL_SOCKET, libc::SO_BINDTODEVICE, n);
    let show = || match get_bytes(fd, SOL_SOCKET, libc::SO_BINDTODEVICE, 16) {
        Ok(b) => format!("'{}'", crate::out::text(&b)),
        Err(e) => number(e),
    };
    say!("{} {}", show(), get(fd, SOL_SOCKET, IFINDEX));
    ret("lo", set(b"lo"));
    say!("{} {}", show(), get(fd, SOL_SOCKET, IFINDEX));
    ret("nothing such", set(b"nope0"));
    ret("too long", set(&[b'x'; 40]));
    ret("none", set(b""));
    say!("{}", show());
    say!("{:?}", get_bytes(fd, SOL_SOCKET, libc::SO_BINDTODEVICE, 4));
    say!("{}", turn(fd, SOL_SOCKET, IFINDEX, 1));
    say!("{}", turn(fd, SOL_SOCKET, IFINDEX, 0));
    say!("{} {}", turn(fd, SOL_SOCKET, IFINDEX, -1), turn(fd, SOL_SOCKET, IFINDEX, 99));
}

fn ip_numbers() {
    for (label, fd) in [("tcp", tcp(V4)), ("udp", udp(V4)), ("udp6", udp(V6))] {
        let all = |name: &str, option: i32, values: &[i32]| {
            say!("{label} {name} {}", get(fd, IPPROTO_IP, option));
            let got: Vec<String> = values.iter().map(|v| turn(fd, IPPROTO_IP, option, *v)).collect();
            say!("{}", got.join(" | "));
        };
        all("tos", libc::IP_TOS, &[0x10, 0xff, 0x103, -1, 0]);
        all("ttl", libc::IP_TTL, &[0, 1, 255, 256, -1, -2]);
        all("mtu_discover", libc::IP_MTU_DISCOVER, &[0, 1, 2, 3, 4, 5, 6, -1]);
        all("recverr", libc::IP_RECVERR, &[1, 0]);
        all("recvttl", libc::IP_RECVTTL, &[9, 0]);
        all("recvtos", libc::IP_RECVTOS, &[1]);
        all("pktinfo", libc::IP_PKTINFO, &[1]);
        all("retopts", 7, &[1]);
        all("recvopts", 6, &[1]);
        all("passsec", 18, &[1]);
        all("freebind", libc::IP_FREEBIND, &[1, 0]);
        all("minttl", 21, &[0, 255, 256, -1]);
        all("nodefrag", 22, &[1]);
        all("bind_address_no_port", 24, &[1]);
        all("origdstaddr", libc::IP_RECVORIGDSTADDR, &[1]);
        all("multicast_ttl", libc::IP_MULTICAST_TTL, &[0, 1, 255, 256, -1]);
        all("multicast_loop", libc::IP_MULTICAST_LOOP, &[0, 7]);
        all("multicast_all", 49, &[0, 1, 2]);
        all("unicast_if", 50, &[0]);
        all("router_alert", 5, &[1]);
        all("hdrincl", 3, &[1]);
        all("local_port_range", 51, &[0]);
        all("mtu", libc::IP_MTU, &[1]);
    }
}

fn transparent() {
    let kinds = [
        ("tcp", tcp(V4), IPPROTO_IP, libc::IP_TRANSPARENT),
        ("udp", udp(V4), IPPROTO_IP, libc::IP_TRANSPARENT),
    ];
    for (label, fd, level, name) in kinds.into_iter().chain([("udp6", udp(V6), IPPROTO_IPV6, 75)]) {
        say!(
            "{label} {} | {} | {}",
            get(fd, level, name),
            turn(fd, level, name, 1),
            turn(fd, level, name, 0)
        );
    }
}

fn ip_bytes() {
    let fd = udp(V4);
    ret("byte", sys!(setsockopt, fd, IPPROTO_IP, libc::IP_TTL, &[33u8], 1));
    say!("{}", get(fd, IPPROTO_IP, libc::IP_TTL));
    say!("{:?}", get_bytes(fd, IPPROTO_IP, libc::IP_TTL, 1));
    say!("{:?}", get_bytes(fd, IPPROTO_IP, libc::IP_TTL, 2));
    say!("{:?}", get_bytes(fd, IPPROTO_IP, libc::IP_TTL, 0));
    ret("empty", sys!(setsockopt, fd, IPPROTO_IP, libc::IP_TTL, &[1u8], 0));
    ret("empty tos", sys!(setsockopt, fd, IPPROTO_IP, libc::IP_TOS, &[1u8], 0));
    say!("options {:?}", get_bytes(fd, IPPROTO_IP, libc::IP_OPTIONS, 40));
    ret("none", set_bytes(fd, IPPROTO_IP, libc::IP_OPTIONS, &[]));
    say!("mtu {}", get(fd, IPPROTO_IP, libc::IP_MTU));
    must("connect", connect(fd, &V4.loopback(9)));
    say!("mtu {}", get(fd, IPPROTO_IP, libc::IP_MTU));
    say!("{:?}", get_bytes(fd, IPPROTO_IP, libc::IP_MULTICAST_IF, 4));
}

fn ipv6_numbers() {
    for (label, fd) in [("tcp", tcp(V6)), ("udp", udp(V6)), ("on v4", udp(V4))] {
        let all = |name: &str, option: i32, values: &[i32]| {
            say!("{label} {name} {}", get(fd, IPPROTO_IPV6, option));
            let got: Vec<String> = values.iter().map(|v| turn(fd, IPPROTO_IPV6, option, *v)).collect();
            say!("{}", got.join(" | "));
        };
        all("v6only", libc::IPV6_V6ONLY, &[1, 0, 7]);
        all("unicast_hops", libc::IPV6_UNICAST_HOPS, &[0, 255, 256, -1, -2]);
        all("multicast_hops", libc::IPV6_MULTICAST_HOPS, &[0, 255, 256, -1]);
        all("multicast_loop", libc::IPV6_MULTICAST_LOOP, &[0, 1, 2]);
        all("multicast_all", 29, &[0, 1, 2]);
        all("mtu_discover", 23, &[0, 5, 6, -1]);
        all("recverr", 25, &[1, 0]);
        all("recvpktinfo", libc::IPV6_RECVPKTINFO, &[1]);
        all("recvhoplimit", libc::IPV6_RECVHOPLIMIT, &[1]);
        all("dontfrag", 62, &[1]);
        all("recvtclass", libc::IPV6_RECVTCLASS, &[1]);
        all("tclass", libc::IPV6_TCLASS, &[0, 255, 256, -1, -2]);
        all("autoflowlabel", 70, &[0, 1]);
        all("minhopcount", 73, &[0, 255, 256]);
        all("recvorigdstaddr", 74, &[1]);
        all("unicast_if", 76, &[0]);
        all("freebind", 78, &[1]);
        all("checksum", 7, &[2]);
        all("hdrincl", 36, &[1]);
    }
}

fn tcp_numbers() {
    let fd = tcp(V4);
    let all = |name: &str, option: i32, values: &[i32]| {
        say!("{name} {}", get(fd, IPPROTO_TCP, option));
        let got: Vec<String> = values.iter().map(|v| turn(fd, IPPROTO_TCP, option, *v)).collect();
        say!("{}", got.join(" | "));
    };
    all("nodelay", 1, &[1, 0, 9]);
    all("maxseg", 2, &[87, 88, 536, 32767, 32768, 0]);
    all("cork", 3, &[1, 0]);
    all("keepidle", 4, &[0, 1, 32767, 32768]);
    all("keepintvl", 5, &[0, 1, 32768]);
    all("keepcnt", 6, &[0, 1, 127, 128]);
    all("syncnt", 7, &[0, 1, 127, 128]);
    all("linger2", 8, &[0, 5, 60, 121, -1]);
    all("defer_accept", 9, &[0, 1, 5, 30]);
    all("quickack", 12, &[0, 1]);
    all("thin_linear_timeouts", 16, &[1, 2, 0]);
    all("thin_dupack", 17, &[1, 2]);
    all("user_timeout", 18, &[1, 1000, 0, -1]);
    all("fastopen", 23, &[0, 5, -1]);
    all("notsent_lowat", 25, &[1, 0, -1]);
    all("inq", 36, &[1, 2, 0]);
    all("unknown", 99, &[1]);
}

fn tcp_congestion() {
    let fd = tcp(V4);
    let show = || match get_bytes(fd, IPPROTO_TCP, libc::TCP_CONGESTION, 16) {
        Ok(b) => format!("{} {}", crate::out::until_nul(&b), b.len()),
        Err(e) => number(e),
    };
    // Which one is the default is the machine's.
    claim("a name of 16 bytes", show().ends_with(" 16"));
    ret("reno", set_bytes(fd, IPPROTO_TCP, libc::TCP_CONGESTION, b"reno"));
    say!("{}", show());
    ret("unknown", set_bytes(fd, IPPROTO_TCP, libc::TCP_CONGESTION, b"nosuchthing"));
    ret("empty", set_bytes(fd, IPPROTO_TCP, libc::TCP_CONGESTION, b""));
    say!("{:?}", get_bytes(fd, IPPROTO_TCP, libc::TCP_CONGESTION, 3));
    let none = get_bytes(fd, IPPROTO_TCP, 31, 16);
    say!("{none:?}");
    ret("no such protocol", set_bytes(fd, IPPROTO_TCP, 31, b"nosuch"));
}

fn tcp_connected() {
    let (c, _s) = connection(V4);
    say!("maxseg {}", get(c, IPPROTO_TCP, 2));
    say!("maxseg set {}", turn(c, IPPROTO_TCP, 2, 1000));
    say!("window clamp 0 {}", number(set(c, IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, 0)));
    say!("fastopen {}", number(set(c, IPPROTO_TCP, 23, 5)));
    say!("mtu {}", get(c, IPPROTO_IP, libc::IP_MTU));
    say!("{}", get(c, SOL_SOCKET, libc::SO_INCOMING_CPU).parse::<i32>().is_ok());
}

fn accepted_inherits() {
    let fd = tcp(V4);
    must("keepalive", set(fd, SOL_SOCKET, SO_KEEPALIVE, 1));
    must("nodelay", set(fd, IPPROTO_TCP, 1, 1));
    must("ttl", set(fd, IPPROTO_IP, libc::IP_TTL, 7));
    must("tos", set(fd, IPPROTO_IP, libc::IP_TOS, 0x20));
    must("linger", sys!(setsockopt, fd, SOL_SOCKET, SO_LINGER, &[1i32, 3], 8));
    must("buffer", set(fd, SOL_SOCKET, SO_RCVBUF, 10_000));
    must("idle", set(fd, IPPROTO_TCP, 4, 77));
    must("reuse", set(fd, SOL_SOCKET, SO_REUSEADDR, 1));
    must("timeout", sys!(setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, &[9i64, 0], 16));
    let (l, a) = bound(fd, V4);
    must("listen", listen(l, 2));
    let c = tcp(V4);
    must("connect", connect(c, &a));
    let s = must("accept", accept(l)) as i32;
    say!("{} {}", get(s, SOL_SOCKET, SO_KEEPALIVE), get(s, IPPROTO_TCP, 1));
    say!("{} {}", get(s, IPPROTO_IP, libc::IP_TTL), get(s, IPPROTO_IP, libc::IP_TOS));
    say!("{:?}", get_bytes(s, SOL_SOCKET, SO_LINGER, 8));
    say!("{} {}", get(s, SOL_SOCKET, SO_RCVBUF), get(s, IPPROTO_TCP, 4));
    say!("{} {:?}", get(s, SOL_SOCKET, SO_REUSEADDR), get_bytes(s, SOL_SOCKET, SO_RCVTIMEO, 16));
}

fn udp_numbers() {
    let fd = udp(V4);
    let all = |name: &str, option: i32, values: &[i32]| {
        say!("{name} {}", get(fd, IPPROTO_UDP, option));
        let got: Vec<String> = values.iter().map(|v| turn(fd, IPPROTO_UDP, option, *v)).collect();
        say!("{}", got.join(" | "));
    };
    all("cork", 1, &[1, 0]);
    all("segment", 103, &[1, 65535, 65536, 0]);
    all("gro", 104, &[1, 0]);
    all("unknown", 99, &[1]);
}

fn facts() {
    for (label, fd) in [
        ("tcp", tcp(V4)),
        ("udp6", udp(V6)),
        ("unix", socket(AF_UNIX, libc::SOCK_SEQPACKET, 0)),
        ("netlink", socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)),
    ] {
        say!(
            "{label} {} {} {} {}",
            get(fd, SOL_SOCKET, libc::SO_DOMAIN),
            get(fd, SOL_SOCKET, libc::SO_TYPE),
            get(fd, SOL_SOCKET, libc::SO_PROTOCOL),
            get(fd, SOL_SOCKET, libc::SO_ACCEPTCONN)
        );
        for name in [libc::SO_DOMAIN, libc::SO_TYPE, libc::SO_PROTOCOL, libc::SO_ACCEPTCONN, libc::SO_ERROR] {
            say!("set {}", number(set(fd, SOL_SOCKET, name, 1)));
        }
        let cookie = |fd| get_bytes(fd, SOL_SOCKET, libc::SO_COOKIE, 8).unwrap_or_default();
        claim("cookie", cookie(fd).len() == 8 && cookie(fd) == cookie(fd));
        say!("short cookie {:?}", get_bytes(fd, SOL_SOCKET, libc::SO_COOKIE, 4));
        let info = get_bytes(fd, SOL_SOCKET, 55, 64);
        say!("meminfo {:?}", info.map(|b| b.len()));
        say!("peer name {:?}", get_bytes(fd, SOL_SOCKET, 28, 16));
        say!("napi {}", get(fd, SOL_SOCKET, 56));
        say!("netns {:?}", get_bytes(fd, SOL_SOCKET, 71, 8).map(|b| b.len()));
        close(fd);
    }
    let (c, _) = connection(V4);
    say!("{:?}", get_bytes(c, SOL_SOCKET, 28, 16).map(|b| b.len()));
    say!("{:?}", get_bytes(c, SOL_SOCKET, 28, 8).map(|b| b.len()));
    say!("{AF_INET} {SOCK_STREAM}");
}

fn newer() {
    for (label, fd) in [("tcp", tcp(V4)), ("udp", udp(V4)), ("unix", socket(AF_UNIX, SOCK_STREAM, 0))] {
        for (name, option, values) in [
            ("zerocopy", 60, &[1, 2, 0][..]),
            ("txrehash", 74, &[0, 1, 2]),
            ("peek_off", 42, &[0, 5, -1]),
            ("busy_poll", 46, &[0]),
            ("prefer_busy_poll", 69, &[0]),
            ("busy_poll_budget", 70, &[0]),
            ("incoming_cpu", 49, &[0]),
            ("wifi_status", 41, &[0]),
            ("passsec", 34, &[1]),
            ("passcred", 16, &[1]),
            ("passpidfd", 76, &[1]),
            ("passrights", 83, &[1, 0]),
            ("timestamping", 37, &[0]),
            ("bsdcompat", 14, &[1]),
        ] {
            say!("{label} {name} {}", get(fd, SOL_SOCKET, option));
            let got: Vec<String> = values.iter().map(|v| turn(fd, SOL_SOCKET, option, *v)).collect();
            say!("{}", got.join(" | "));
        }
    }
}

/// Says which options of the levels are answered by any kind of socket, for the page about sockets.
pub fn answered() {
    let unknown = |r: isize| r == -(libc::ENOPROTOOPT as isize) || r == -(libc::EOPNOTSUPP as isize);
    let kinds = [
        (AF_INET, SOCK_STREAM, 0),
        (libc::AF_INET6, SOCK_STREAM, 0),
        (AF_INET, SOCK_DGRAM, 0),
        (libc::AF_INET6, SOCK_DGRAM, 0),
        (AF_INET, libc::SOCK_RAW, 1),
        (libc::AF_INET6, libc::SOCK_RAW, 58),
        (libc::AF_INET6, libc::SOCK_RAW, 255),
        (AF_UNIX, SOCK_STREAM, 0),
        (libc::AF_NETLINK, libc::SOCK_RAW, 0),
    ];
    for level in [SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP] {
        for name in 0..128 {
            let answers = kinds.iter().any(|(domain, kind, protocol)| {
                let fd = socket(*domain, *kind, *protocol);
                let mut room = [0u8; 256];
                let mut len = 256u32;
                let got = sys!(getsockopt, fd, level, name, &mut room, &mut len);
                let done = set(fd, level, name, 0);
                close(fd);
                !unknown(got) || !unknown(done)
            });
            if answers {
                say!("{level} {name}");
            }
        }
    }
}

pub const CASES: &[Case] = &[
    case("setsockopt/socket_flags", "getsockopt", flags_of_sockets),
    case("setsockopt/reuseport_kinds", "getsockopt", reuseport_kinds),
    case("setsockopt/buffer_sizes", "getsockopt", buffer_sizes),
    case("setsockopt/buffer_lock", "getsockopt", buffer_lock),
    case("setsockopt/lengths", "getsockopt", lengths),
    case("setsockopt/unknown_levels", "getsockopt", unknown_levels),
    case("setsockopt/timeout_values", "getsockopt", timeouts),
    case("setsockopt/linger", "getsockopt", linger),
    case("setsockopt/low_water", "getsockopt", low_water),
    case("setsockopt/rights", "getsockopt setuid", rights),
    case("setsockopt/devices", "getsockopt", devices),
    case("setsockopt/ip_numbers", "getsockopt", ip_numbers),
    case("setsockopt/transparent", "getsockopt", transparent),
    case("setsockopt/ip_bytes", "getsockopt", ip_bytes),
    case("setsockopt/ipv6_numbers", "getsockopt", ipv6_numbers),
    case("setsockopt/tcp_numbers", "getsockopt", tcp_numbers),
    case("setsockopt/tcp_congestion", "getsockopt", tcp_congestion),
    case("setsockopt/tcp_connected", "getsockopt", tcp_connected),
    case("accept4/inherits_options", "setsockopt getsockopt", accepted_inherits),
    case("setsockopt/udp_numbers", "getsockopt", udp_numbers),
    case("getsockopt/facts", "setsockopt", facts),
    case("setsockopt/newer", "getsockopt", newer),
];
