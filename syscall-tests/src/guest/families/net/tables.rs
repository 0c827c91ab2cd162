//! The tables below /proc/net (proc_pid_net(5)): what they say of sockets in known states.

use super::kit::*;
use crate::case::{Case, case, close};
use crate::out::{claim, must, ret};
use crate::{say, sys};
use libc::{AF_INET, AF_INET6, AF_UNIX, IPPROTO_ICMP, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM};

fn read(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_else(|e| format!("none: {e}"))
}

/// The line of a table that has a port, without its number, addresses of the kernel and times.
fn lines(name: &str, port: u16) -> Vec<String> {
    let wanted = format!(":{port:04X}");
    let found = |l: &&str| l.split_whitespace().nth(1).is_some_and(|a| a.ends_with(&wanted));
    let text = read(name);
    text.lines()
        .skip(1)
        .filter(found)
        .map(|l| {
            let w: Vec<&str> = l.split_whitespace().collect();
            let ip = |a: &str| a.split(':').next().unwrap_or_default().to_owned();
            let get = |i: usize| w.get(i).copied().unwrap_or_default();
            // How much memory a datagram counts is the kernel's own affair.
            let queues = if name.starts_with("tcp") { get(4) } else { &get(4)[..9] };
            let waits = !get(4).ends_with("00000000");
            format!("{} {} {} {queues} {waits} {} uid {}", ip(get(1)), ip(get(2)), get(3), w.len(), get(7))
        })
        .collect()
}

fn ino(fd: i32) -> u64 {
    let mut st: libc::stat = crate::case::zeroed();
    must("fstat", sys!(fstat, fd, &mut st));
    st.st_ino
}

fn heads() {
    for name in [
        "tcp", "tcp6", "udp", "udp6", "udplite", "raw", "raw6", "icmp", "icmp6", "unix", "route", "arp",
        "dev", "netlink",
    ] {
        let text = read(name);
        let head: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
        say!("{name}: {}", head.join(" "));
    }
    for name in ["snmp", "netstat"] {
        let text = read(name);
        let names: Vec<&str> = text.lines().map(|l| l.split(' ').next().unwrap_or_default()).collect();
        claim("every head has its values", names.chunks(2).all(|c| c.len() == 2 && c[0] == c[1]));
        let of = |wanted: &str| {
            let head = text.lines().find(|l| l.starts_with(wanted)).unwrap_or_default();
            head.split(' ').take(5).collect::<Vec<_>>().join(" ")
        };
        say!("{}", if name == "snmp" { of("Tcp:") } else { of("TcpExt:") });
        say!("{}", if name == "snmp" { of("Udp:") } else { of("IpExt:") });
    }
}

/// The value of a column of /proc/net/snmp or netstat.
fn column(name: &str, head: &str, column: &str) -> i64 {
    let text = read(name);
    let mut lines = text.lines().filter_map(|l| l.strip_prefix(head));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut both = names.split(' ').zip(values.split(' '));
    both.find(|(n, _)| *n == column).and_then(|(_, v)| v.parse().ok()).unwrap_or(-1)
}

/// What the counters say of connections and datagrams on loopback.
fn counters() {
    let udp_columns = ["InDatagrams", "NoPorts", "InErrors", "OutDatagrams", "RcvbufErrors"];
    let tcp_columns = ["ActiveOpens", "PassiveOpens", "AttemptFails", "EstabResets", "CurrEstab", "OutRsts"];
    let icmp_columns = ["InEchos", "InEchoReps", "OutEchos", "OutEchoReps"];
    let all = || -> Vec<i64> {
        let udp = udp_columns.iter().map(|c| column("snmp", "Udp: ", c));
        let tcp = tcp_columns.iter().map(|c| column("snmp", "Tcp: ", c));
        let icmp = icmp_columns.iter().map(|c| column("snmp", "Icmp: ", c));
        let six = read("snmp6");
        let six = six.lines().find_map(|l| l.strip_prefix("Udp6OutDatagrams"));
        let six = six.and_then(|l| l.trim().parse().ok()).unwrap_or(-1);
        udp.chain(tcp).chain(icmp).chain([six]).collect()
    };
    let mut last = all();
    let mut show = |label: &str| {
        let now = all();
        say!("{label} {:?}", now.iter().zip(&last).map(|(a, b)| a - b).collect::<Vec<_>>());
        last = now;
    };
    let a = udp(V4);
    must("bind", bind(a, &V4.loopback(7300)));
    let b = udp(V4);
    must("send", send_to(b, b"one", &V4.loopback(7300)));
    must("send", send_to(b, b"two", &V4.loopback(7300)));
    show("sent");
    recv(a, 8, 0);
    recv(a, 8, libc::MSG_PEEK);
    show("one read");
    must("send", send_to(b, b"lost", &V4.loopback(7301)));
    show("nobody");
    must("send", send_to(udp(V6), b"six", &V6.loopback(7302)));
    show("IPv6");
    let (l, at) = listener(V4);
    let c = tcp(V4);
    must("connect", connect(c, &at));
    let s = must("accept", accept(l)) as i32;
    show("open");
    send(c, b"unread", 0);
    readable(s);
    close(s);
    readable(c);
    show("broken");
    close(c);
    show("closed");
    ret("refused", connect(tcp(V4), &V4.loopback(7303)));
    show("refused");
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 1000").unwrap_or_default();
    let p = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    must("ping", send_to(p, &[8, 0, 0, 0, 0, 0, 0, 1], &V4.loopback(0)));
    readable(p);
    show("ping");
    must("SO_RCVBUF", set(a, libc::SOL_SOCKET, libc::SO_RCVBUF, 0));
    // Others in this namespace may have had errors of another kind before.
    let errors = || (column("snmp", "Udp: ", "RcvbufErrors"), column("snmp", "Udp: ", "InErrors"));
    let before = errors();
    for _ in 0..20 {
        must("send", send_to(b, &[0; 1000], &V4.loopback(7300)));
    }
    let lost = errors().0 - before.0;
    claim("no room", lost > 0 && lost == errors().1 - before.1);
}

/// Who is in which group.
fn members() {
    let show = |label: &str| {
        for table in ["igmp", "igmp6"] {
            say!("{label} {table}");
            let text = read(table);
            text.lines().for_each(|l| say!("{}", l.trim()));
        }
    };
    show("before");
    let four = [[224, 1, 2, 3].as_slice(), &[0; 4], &1u32.to_ne_bytes()].concat();
    let six = |scope: u8| {
        let mut raw = vec![0xff, scope];
        raw.extend([0; 12]);
        raw.extend([1, 0x14, 1, 0, 0, 0]);
        raw
    };
    let (a, b, c) = (udp(V4), udp(V4), udp(V6));
    must("join", set_bytes(a, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &four));
    must("join", set_bytes(b, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &four));
    for scope in [1, 2, 5] {
        must("join", set_bytes(c, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &six(scope)));
    }
    show("with");
    for fd in [a, b, c] {
        close(fd);
    }
    show("after");
}

fn tcp_states(net: Net) {
    let table = if net == V4 { "tcp" } else { "tcp6" };
    let (l, at) = listener(net);
    say!("{:?}", lines(table, at.port()));
    let c = tcp(net);
    must("connect", connect(c, &at));
    say!("{:?}", lines(table, at.port()));
    let s = must("accept", accept(l)) as i32;
    send(c, b"12345", 0);
    readable(s);
    say!("{:?}", lines(table, at.port()));
    say!("client {:?}", lines(table, own(c).port()));
    let text = read(table);
    for fd in [l, c, s] {
        let number = ino(fd).to_string();
        claim("its inode", text.split_whitespace().any(|w| w == number));
    }
}

fn udp_rows(net: Net) {
    let table = if net == V4 { "udp" } else { "udp6" };
    let a = udp(net);
    must("bind", bind(a, &net.loopback(7200)));
    say!("{:?}", lines(table, 7200));
    must("send", send_to(udp(net), b"waits", &net.loopback(7200)));
    readable(a);
    must("connect", connect(a, &net.loopback(7201)));
    say!("{:?}", lines(table, 7200));
    let number = ino(a).to_string();
    claim("its inode", read(table).split_whitespace().any(|w| w == number));
}

fn raw_rows() {
    let a = socket(AF_INET, SOCK_RAW, 203);
    say!("{:?}", lines("raw", 203));
    must("bind", bind(a, &V4.loopback(0)));
    say!("{:?}", lines("raw", 203));
    let _b = socket(AF_INET6, SOCK_RAW, 204);
    say!("{:?}", lines("raw6", 204));
    let before = in_use("sockstat", "RAW:");
    let _c = socket(AF_INET, SOCK_RAW, 205);
    say!("{}", in_use("sockstat", "RAW:") - before);
}

fn ping_rows() {
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 1000").unwrap_or_default();
    let p = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    must("bind", bind(p, &V4.loopback(7205)));
    say!("{:?}", lines("icmp", 7205));
    must("connect", connect(p, &V4.loopback(0)));
    say!("{:?}", lines("icmp", 7205));
}

fn unix_rows() {
    let l = socket(AF_UNIX, SOCK_STREAM, 0);
    must("bind", bind(l, &Addr::unix(b"\0rows")));
    must("listen", listen(l, 3));
    let (a, _b) = pair(SOCK_DGRAM);
    let c = socket(AF_UNIX, SOCK_STREAM, 0);
    must("connect", connect(c, &Addr::unix(b"\0rows")));
    let text = read("unix");
    for fd in [l, a, c] {
        let number = ino(fd).to_string();
        let row = text.lines().find(|r| r.split_whitespace().nth(6) == Some(&number));
        // Without the address of the kernel and the inode.
        let words = row.map(|r| {
            let w: Vec<&str> = r.split_whitespace().collect();
            format!("{} {} {} {} {}", w[2], w[3], w[4], w[5], w.get(7).unwrap_or(&""))
        });
        say!("{words:?}");
    }
}

fn interfaces() {
    say!(
        "{:?}",
        read("if_inet6")
            .lines()
            .find(|l| l.ends_with(" lo"))
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
    );
    let dev = read("dev");
    let lo = dev.lines().find(|l| l.trim_start().starts_with("lo:")).unwrap_or_default();
    say!("columns {}", lo.split_whitespace().count());
    let bytes = |text: &str| {
        let row = text.lines().find(|l| l.trim_start().starts_with("lo:")).unwrap_or_default();
        row.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    let before = bytes(&dev);
    let (a, at) = bound(udp(V4), V4);
    must("send", send_to(udp(V4), &[7; 1000], &at));
    recv(a, 8, 0);
    let now = bytes(&read("dev"));
    claim("counted", now >= before + 1000);
    say!("routes {}", read("route").lines().count());
}

/// How many sockets of a kind sockstat(5) says there are.
fn in_use(name: &str, row: &str) -> i64 {
    let text = read(name);
    let line = text.lines().find(|l| l.starts_with(row)).unwrap_or_default();
    line.split_whitespace().nth(2).and_then(|n| n.parse::<i64>().ok()).unwrap_or(-1)
}

fn sockets_counted() {
    let rows = [("sockstat", "TCP:"), ("sockstat", "UDP:"), ("sockstat6", "TCP6:"), ("sockstat6", "UDP6:")];
    let all = || rows.map(|(name, row)| in_use(name, row));
    let before = all();
    let _keep = (listener(V4), bound(udp(V4), V4), bound(udp(V6), V6));
    let now = all();
    say!("{:?}", now.iter().zip(before).map(|(n, b)| n - b).collect::<Vec<_>>());
}

pub const CASES: &[Case] = &[
    case("read/net_heads", "", heads),
    case("read/net_groups", "setsockopt", members),
    case("read/net_counters", "sendto connect", counters),
    case("read/net_tcp", "listen connect", || tcp_states(V4)),
    case("read/net_tcp6", "listen connect", || tcp_states(V6)),
    case("read/net_udp", "bind connect", || udp_rows(V4)),
    case("read/net_udp6", "bind connect", || udp_rows(V6)),
    case("read/net_raw", "bind", raw_rows),
    case("read/net_icmp", "bind connect", ping_rows),
    case("read/net_unix", "listen", unix_rows),
    case("read/net_interfaces", "sendto", interfaces),
    case("read/net_sockstat", "bind", sockets_counted),
];
