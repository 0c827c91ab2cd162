//! /proc/PID/net: the tables of the network namespace of a task (proc_net(5)).

use crate::pseudo::{DirNode, FileNode, Node, Owner, PseudoFs, PseudoInode};
use crate::socket::host::tables::{NAMES, Tables};
use crate::socket::inet::stack_of;
use crate::socket::{arp, interfaces, routes};
use abi::stat::FileType;
use abi::{Errno, Result};
use kernel::vfs::{Caller, Inode};
use netstack::tcp::TcpState;
use netstack::{Endpoint, Family, Interface, Stack};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// (name, how it is made)
const TABLES: &[(&str, fn(&Stack) -> String)] = &[
    ("arp", arp::table),
    ("dev", devices),
    ("icmp", |s| raw(s, Family::V4, true)),
    ("icmp6", |s| raw(s, Family::V6, true)),
    ("if_inet6", inet6),
    ("igmp", igmp),
    ("igmp6", igmp6),
    ("ipv6_route", routes6),
    // Its rows are those of the sandbox, not of a stack: see `Table::read`.
    ("netlink", |_| String::new()),
    ("netstat", netstat),
    ("raw", |s| raw(s, Family::V4, false)),
    ("raw6", |s| raw(s, Family::V6, false)),
    ("route", routes),
    ("snmp", snmp),
    ("snmp6", snmp6),
    ("sockstat", sockstat),
    ("sockstat6", sockstat6),
    ("tcp", |s| tcp(s, Family::V4)),
    ("tcp6", |s| tcp(s, Family::V6)),
    ("udp", |s| udp(s, Family::V4, false)),
    ("udp6", |s| udp(s, Family::V6, false)),
    ("udplite", |s| udp(s, Family::V4, true)),
    ("udplite6", |s| udp(s, Family::V6, true)),
    ("unix", |_| "Num       RefCount Protocol Flags    Type St Inode Path\n".into()),
];

const TCP_HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n";
const TCP6_HEAD: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const UDP_HEAD: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n";
const UDP6_HEAD: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";

/// An address as the tables have it: words of the host's order in hexadecimal.
fn hex(family: Family, e: Endpoint) -> String {
    let bytes = match (family, e.ip) {
        (Family::V4, IpAddr::V4(a)) => a.octets().to_vec(),
        (Family::V4, IpAddr::V6(_)) => vec![0; 4],
        (Family::V6, ip) => crate::socket::inet::address::octets6(ip).to_vec(),
    };
    let mut out = String::new();
    for word in bytes.chunks_exact(4) {
        let _ = write!(out, "{:08X}", u32::from_ne_bytes(word.try_into().unwrap_or_default()));
    }
    let _ = write!(out, ":{:04X}", e.port);
    out
}

/// Lines of `/proc/net/tcp` are padded to this width.
const WIDTH: usize = 149;

fn tcp(stack: &Stack, family: Family) -> String {
    let mut out = String::from(if family == Family::V4 { TCP_HEAD } else { TCP6_HEAD });
    let mut n = 0;
    let mut line = |local: Endpoint,
                    remote: Endpoint,
                    state: TcpState,
                    tx: usize,
                    rx: usize,
                    tag: (u64, u32)| {
        let text = format!(
            "{n:4}: {} {} {:02X} {tx:08X}:{rx:08X} 00:00000000 00000000 {:5}        0 {} 1 0000000000000000 100 0 0 10 0",
            hex(family, local),
            hex(family, remote),
            state as u8,
            tag.1,
            tag.0,
        );
        n += 1;
        if family == Family::V4 {
            let _ = writeln!(out, "{text:<WIDTH$}");
        } else {
            let _ = writeln!(out, "{text}");
        }
    };
    for s in stack.tcp_sockets().iter().filter(|s| s.family == family) {
        let state = s.state();
        if state == TcpState::Close {
            continue;
        }
        let tag = s.tag.get().copied().unwrap_or_default();
        let (tx, rx) = match (s.listener(), s.transport()) {
            (Some(l), _) => (0, l.lengths().0),
            (_, Some(t)) => (t.unsent().0, t.readable(true)),
            _ => (0, 0),
        };
        line(s.local(), s.remote_or_any(), state, tx, rx, tag);
    }
    for l in stack.tcp_sockets().iter().filter(|s| s.family == family).filter_map(|s| s.listener()) {
        for (local, remote, rx) in l.embryos() {
            line(local, remote, TcpState::Established, 0, rx, (0, 0));
        }
    }
    for (local, remote, _) in stack.time_wait() {
        if local.ip.is_ipv4() == (family == Family::V4) {
            line(local, remote, TcpState::TimeWait, 0, 0, (0, 0));
        }
    }
    out
}

fn udp(stack: &Stack, family: Family, lite: bool) -> String {
    let mut out = String::from(if family == Family::V4 { UDP_HEAD } else { UDP6_HEAD });
    for (n, s) in stack.udp_sockets().iter().filter(|s| s.family == family && s.lite == lite).enumerate() {
        if !s.has_port() {
            continue;
        }
        let (ino, uid) = s.tag.get().copied().unwrap_or_default();
        let (rx, drops) = s.usage();
        let remote = s.remote();
        let state = if remote.is_some() { 1 } else { 7 };
        let line = format!(
            "{n:5}: {} {} {state:02X} {:08X}:{rx:08X} 00:00000000 00000000 {uid:5}        0 {ino} 2 0000000000000000 {drops}",
            hex(family, s.local()),
            hex(family, remote.unwrap_or(Endpoint::any(family))),
            0,
        );
        let _ = writeln!(out, "{line:<127}");
    }
    out
}

/// Raw sockets, whose port is their protocol, or ping sockets.
fn raw(stack: &Stack, family: Family, ping: bool) -> String {
    let mut out = match (family, ping) {
        (Family::V4, true) => UDP_HEAD.to_owned(),
        (Family::V4, false) => UDP_HEAD.trim_end().replacen("   sl", "  sl", 1) + "\n",
        (Family::V6, _) => UDP6_HEAD.to_owned(),
    };
    for (n, s) in stack.raw_sockets().iter().filter(|s| s.family == family && s.ping == ping).enumerate() {
        let (ino, uid) = s.tag.get().copied().unwrap_or_default();
        let (rx, drops) = s.usage();
        let remote = s.remote();
        let state = if remote.is_some() { 1 } else { 7 };
        let local = s.local();
        let local = if ping { local } else { local.with_port(s.protocol.into()) };
        let line = format!(
            "{n:4}: {} {} {state:02X} {:08X}:{rx:08X} 00:00000000 00000000 {uid:5}        0 {ino} 2 0000000000000000 {drops}",
            hex(family, local),
            hex(family, remote.unwrap_or(Endpoint::any(family))),
            0,
        );
        let _ = if ping { writeln!(out, "{line:<127}") } else { writeln!(out, "{line}") };
    }
    out
}

/// Bytes and packets in and out, as far as interfaces count them.
fn netstat(stack: &Stack) -> String {
    let (mut bytes_in, mut bytes_out) = (0, 0);
    for i in stack.interfaces.list() {
        bytes_in += i.traffic.received_bytes.load(Ordering::Relaxed);
        bytes_out += i.traffic.sent_bytes.load(Ordering::Relaxed);
    }
    let s = stack.statistics();
    // Programs look columns up by their names.
    let mut out = String::new();
    let tcp = [
        ("SyncookiesSent", number(s.cookies_sent)),
        ("SyncookiesRecv", number(s.cookies_ok)),
        ("SyncookiesFailed", number(s.cookies_failed)),
        ("EmbryonicRsts", 0),
        ("PruneCalled", 0),
        ("ListenOverflows", number(s.listen_overflows)),
        ("ListenDrops", number(s.listen_overflows)),
        ("TCPRcvQDrop", number(s.tcp_no_memory)),
    ];
    columns(&mut out, "TcpExt", &tcp);
    let ip = [
        ("InNoRoutes", 0),
        ("InTruncatedPkts", 0),
        ("InMcastPkts", 0),
        ("OutMcastPkts", 0),
        ("InOctets", number(bytes_in)),
        ("OutOctets", number(bytes_out)),
    ];
    columns(&mut out, "IpExt", &ip);
    out
}

fn devices(stack: &Stack) -> String {
    let mut out = String::from(
        "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    );
    for i in stack.interfaces.list() {
        let t = &i.traffic;
        let get = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
        let _ = writeln!(
            out,
            "{:>6}: {:7} {:7}    0    0    0     0          0         0 {:8} {:7}    0    0    0     0       0          0",
            i.name,
            get(&t.received_bytes),
            get(&t.received_packets),
            get(&t.sent_bytes),
            get(&t.sent_packets),
        );
    }
    out
}

fn hex6(ip: Ipv6Addr) -> String {
    ip.octets().iter().map(|b| format!("{b:02x}")).collect()
}

fn inet6(stack: &Stack) -> String {
    let mut out = String::new();
    for i in stack.interfaces.list() {
        for a in &i.addrs {
            if let IpAddr::V6(ip) = a.ip {
                let scope = if ip.is_loopback() {
                    0x10
                } else if ip.is_unicast_link_local() {
                    0x20
                } else {
                    0
                };
                let _ = writeln!(
                    out,
                    "{} {:02x} {:02x} {scope:02x} 80 {:>8}",
                    hex6(ip),
                    i.index,
                    a.prefix,
                    i.name
                );
            }
        }
    }
    out
}

/// Groups with how many are in them, newest first: those of sockets, then those that every interface is in.
fn groups(stack: &Stack, i: &Interface, own: &[IpAddr]) -> Vec<(IpAddr, usize)> {
    let mut list: Vec<(IpAddr, usize)> = Vec::new();
    let joined = stack.udp_sockets().into_iter().flat_map(|s| s.memberships());
    let of_sockets = joined.filter(|(_, device)| *device == i.index).map(|(group, _)| group);
    for group in own.iter().copied().chain(of_sockets) {
        match list.iter_mut().find(|(known, _)| *known == group) {
            Some((_, users)) => *users += 1,
            None => list.push((group, 1)),
        }
    }
    list.reverse();
    list
}

fn igmp(stack: &Stack) -> String {
    let mut out = String::from("Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n");
    for i in stack.interfaces.list().iter().filter(|i| i.up) {
        let mut list = groups(stack, i, &[IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1))]);
        list.retain(|(group, _)| group.is_ipv4());
        let _ = writeln!(out, "{}\t{:<10}: {:5}      V3", i.index, i.name, list.len());
        for (group, users) in list {
            let IpAddr::V4(group) = group else { continue };
            let number = u32::from_ne_bytes(group.octets());
            let _ = writeln!(out, "\t\t\t\t{number:08X} {users:5} 0:00000000\t\t0");
        }
    }
    out
}

fn igmp6(stack: &Stack) -> String {
    const LOADED: u32 = 4;
    const NOT_REPORTED: u32 = 8;
    let all = [1u16, 2].map(|scope| Ipv6Addr::new(0xff00 | scope, 0, 0, 0, 0, 0, 0, 1));
    let mut out = String::new();
    for i in stack.interfaces.list().iter().filter(|i| i.up) {
        let mut own = all.map(IpAddr::V6).to_vec();
        // Who asks for the neighbour behind an address asks its solicited-node group.
        let solicited = i.addrs.iter().filter(|_| !i.loopback).filter_map(|a| match a.ip {
            IpAddr::V6(ip) => {
                let [.., high, low] = ip.segments();
                Some(IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)))
            }
            IpAddr::V4(_) => None,
        });
        own.extend(solicited);
        for (group, users) in groups(stack, i, &own) {
            let IpAddr::V6(group) = group else { continue };
            // Groups of the interface alone are known to no link.
            let loaded = if group.segments()[0] & 15 > 1 { LOADED } else { 0 };
            let silent = if loaded == 0 || all.contains(&group) { NOT_REPORTED } else { 0 };
            let _ = writeln!(
                out,
                "{:<4} {:<15} {} {users:5} {:08X} 0",
                i.index,
                i.name,
                hex6(group),
                loaded | silent
            );
        }
    }
    out
}

/// The name of a route's interface.
fn device(list: &[Interface], index: u32) -> &str {
    list.iter().find(|i| i.index == index).map_or("*", |i| &i.name)
}

fn routes(stack: &Stack) -> String {
    let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
    let mut out = format!("{head:<127}\n");
    let number = |a: Ipv4Addr| u32::from_ne_bytes(a.octets());
    let list = stack.interfaces.list();
    for r in routes::all(stack).iter().filter(|r| r.table == routes::TABLE_MAIN) {
        let IpAddr::V4(to) = r.to else { continue };
        let gateway = match r.gateway {
            Some(IpAddr::V4(g)) => Some(g),
            _ => None,
        };
        let flags = 1 | if gateway.is_some() { 2 } else { 0 } | if r.prefix == 32 { 4 } else { 0 };
        let text = format!(
            "{}\t{:08X}\t{:08X}\t{flags:04X}\t0\t0\t{}\t{:08X}\t0\t0\t0",
            device(&list, r.device),
            number(to),
            number(gateway.unwrap_or(Ipv4Addr::UNSPECIFIED)),
            r.metric,
            number(interfaces::mask(r.prefix)),
        );
        let _ = writeln!(out, "{text:<127}");
    }
    out
}

fn routes6(stack: &Stack) -> String {
    const GATEWAY: u32 = 2;
    const REJECT: u32 = 0x200;
    const NO_NEXT_HOP: u32 = 0x20_0000;
    const LOCAL: u32 = 0x8000_0000;
    let mut out = String::new();
    let list = stack.interfaces.list();
    let zero = hex6(Ipv6Addr::UNSPECIFIED);
    let all = routes::all(stack);
    for table in [routes::TABLE_MAIN, routes::TABLE_LOCAL] {
        for r in all.iter().filter(|r| r.table == table) {
            let IpAddr::V6(to) = r.to else { continue };
            let (gateway, mut flags) = match r.gateway {
                Some(IpAddr::V6(gateway)) => (hex6(gateway), 1 | GATEWAY),
                _ => (zero.clone(), 1),
            };
            let loopback = list.iter().any(|i| i.index == r.device && i.loopback);
            match r.kind {
                routes::kind::LOCAL => flags |= LOCAL | NO_NEXT_HOP,
                // Nobody is behind the loopback interface.
                _ if loopback => flags = REJECT | NO_NEXT_HOP,
                _ => {}
            }
            let _ = writeln!(
                out,
                "{} {:02x} {zero} 00 {gateway} {:08x} 00000001 00000000 {flags:08x} {:>8}",
                hex6(to),
                r.prefix,
                r.metric,
                device(&list, r.device)
            );
        }
        // Each table ends with the entry that says there is no way.
        let flags = REJECT | NO_NEXT_HOP;
        let _ = writeln!(
            out,
            "{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 {flags:08x} {:>8}",
            device(&list, netstack::LOOPBACK)
        );
    }
    out
}

/// A head with the names of columns and a line with their values.
fn columns(out: &mut String, head: &str, columns: &[(&str, i64)]) {
    for line in [
        columns.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>(),
        columns.iter().map(|(_, value)| value.to_string()).collect(),
    ] {
        let _ = writeln!(out, "{head}: {}", line.join(" "));
    }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Of all columns there are these are what this stack can tell of; what never happens here is 0.
fn snmp(stack: &Stack) -> String {
    let open = stack
        .tcp_sockets()
        .iter()
        .filter(|s| matches!(s.state(), TcpState::Established | TcpState::CloseWait))
        .count();
    let s = stack.statistics();
    let (four, n) = (&s.v4, number);
    let mut out = String::new();
    let ip = [
        ("Forwarding", 2),
        ("DefaultTTL", 64),
        ("InReceives", n(four.in_packets)),
        ("InHdrErrors", n(four.in_header_errors)),
        ("InAddrErrors", n(four.in_not_ours)),
        ("ForwDatagrams", 0),
        ("InUnknownProtos", n(four.in_unknown_protocol)),
        ("InDiscards", 0),
        ("InDelivers", n(four.in_delivered)),
        ("OutRequests", n(four.out_packets)),
        ("OutDiscards", 0),
        ("OutNoRoutes", 0),
        ("ReasmTimeout", n(four.reassembly_timed_out)),
        ("ReasmReqds", n(four.fragments_received)),
        ("ReasmOKs", n(four.reassembled)),
        ("ReasmFails", n(four.reassembly_failed)),
        ("FragOKs", n(four.fragmented)),
        ("FragFails", n(four.fragmentation_failed)),
        ("FragCreates", n(four.fragments_created)),
        ("OutTransmits", n(four.transmitted)),
    ];
    columns(&mut out, "Ip", &ip);
    let mut icmp = vec![
        ("InMsgs", n(four.icmp_in.total() + four.icmp_checksum_errors)),
        ("InErrors", n(four.icmp_checksum_errors)),
        ("InCsumErrors", n(four.icmp_checksum_errors)),
    ];
    let kinds = |names: &[(&'static str, u8)], counts: &netstack::Kinds| -> Vec<(&'static str, i64)> {
        names.iter().map(|(name, kind)| (*name, number(counts.of(*kind)))).collect()
    };
    icmp.extend(kinds(ICMP_IN, &four.icmp_in));
    icmp.extend([("OutMsgs", n(four.icmp_out.total())), ("OutErrors", 0)]);
    icmp.extend(kinds(ICMP_OUT, &four.icmp_out));
    columns(&mut out, "Icmp", &icmp);
    let tcp = [
        ("RtoAlgorithm", 1),
        ("RtoMin", 200),
        ("RtoMax", 120_000),
        ("MaxConn", -1),
        ("ActiveOpens", n(s.tcp_active_opens)),
        ("PassiveOpens", n(s.tcp_passive_opens)),
        ("AttemptFails", n(s.tcp_failed_attempts)),
        ("EstabResets", n(s.tcp_broken)),
        ("CurrEstab", i64::try_from(open).unwrap_or(i64::MAX)),
        ("InSegs", n(s.tcp_in)),
        ("OutSegs", n(s.tcp_out)),
        ("RetransSegs", n(s.tcp_retransmitted)),
        ("InErrs", n(s.tcp_checksum_errors)),
        ("OutRsts", n(s.tcp_resets_out)),
        ("InCsumErrors", n(s.tcp_checksum_errors)),
    ];
    columns(&mut out, "Tcp", &tcp);
    columns(&mut out, "Udp", &udp_columns(four));
    out
}

/// The types of messages that have columns.
const ICMP_IN: &[(&str, u8)] = &[
    ("InDestUnreachs", 3),
    ("InTimeExcds", 11),
    ("InParmProbs", 12),
    ("InSrcQuenchs", 4),
    ("InRedirects", 5),
    ("InEchos", 8),
    ("InEchoReps", 0),
    ("InTimestamps", 13),
    ("InTimestampReps", 14),
    ("InAddrMasks", 17),
    ("InAddrMaskReps", 18),
];
const ICMP_OUT: &[(&str, u8)] = &[
    ("OutDestUnreachs", 3),
    ("OutTimeExcds", 11),
    ("OutParmProbs", 12),
    ("OutSrcQuenchs", 4),
    ("OutRedirects", 5),
    ("OutEchos", 8),
    ("OutEchoReps", 0),
    ("OutTimestamps", 13),
    ("OutTimestampReps", 14),
    ("OutAddrMasks", 17),
    ("OutAddrMaskReps", 18),
];

fn udp_columns(s: &netstack::FamilyStats) -> [(&'static str, i64); 9] {
    [
        ("InDatagrams", number(s.udp_in)),
        ("NoPorts", number(s.udp_no_port)),
        ("InErrors", number(s.udp_no_room + s.udp_checksum_errors)),
        ("OutDatagrams", number(s.udp_out)),
        ("RcvbufErrors", number(s.udp_no_room)),
        ("SndbufErrors", 0),
        ("InCsumErrors", number(s.udp_checksum_errors)),
        ("IgnoredMulti", 0),
        ("MemErrors", 0),
    ]
}

fn snmp6(stack: &Stack) -> String {
    let s = stack.statistics().v6;
    let rows = [
        ("Ip6InReceives", s.in_packets),
        ("Ip6InHdrErrors", s.in_header_errors),
        ("Ip6InAddrErrors", s.in_not_ours),
        ("Ip6InUnknownProtos", s.in_unknown_protocol),
        ("Ip6InDelivers", s.in_delivered),
        ("Ip6OutRequests", s.out_packets),
        ("Ip6ReasmTimeout", s.reassembly_timed_out),
        ("Ip6ReasmReqds", s.fragments_received),
        ("Ip6ReasmOKs", s.reassembled),
        ("Ip6ReasmFails", s.reassembly_failed),
        ("Ip6FragOKs", s.fragmented),
        ("Ip6FragFails", s.fragmentation_failed),
        ("Ip6FragCreates", s.fragments_created),
        ("Ip6OutTransmits", s.transmitted),
        ("Icmp6InMsgs", s.icmp_in.total() + s.icmp_checksum_errors),
        ("Icmp6InErrors", s.icmp_checksum_errors),
        ("Icmp6OutMsgs", s.icmp_out.total()),
        ("Icmp6InCsumErrors", s.icmp_checksum_errors),
    ];
    let mut out = String::new();
    for (name, value) in rows {
        let _ = writeln!(out, "{name:<32}\t{value}");
    }
    for (name, value) in udp_columns(&s) {
        let _ = writeln!(out, "{:<32}\t{value}", format!("Udp6{name}"));
    }
    out
}

fn sockstat(stack: &Stack) -> String {
    let tcp = stack.tcp_sockets();
    let udp = stack.udp_sockets();
    let four = |f: Family| f == Family::V4;
    let open = tcp.iter().filter(|s| four(s.family) && s.state() != TcpState::Close).count();
    let waiting = stack.time_wait().len();
    let lite = udp.iter().filter(|s| four(s.family) && s.lite && s.has_port()).count();
    let raws = stack.raw_sockets().iter().filter(|s| four(s.family) && !s.ping).count();
    let bound = udp.iter().filter(|s| four(s.family) && !s.lite && s.has_port()).count();
    format!(
        "sockets: used {}\nTCP: inuse {open} orphan 0 tw {waiting} alloc {} mem 0\nUDP: inuse {bound} mem 0\nUDPLITE: inuse {lite}\nRAW: inuse {raws}\nFRAG: inuse 0 memory 0\n",
        tcp.len() + udp.len() + stack.raw_sockets().len(),
        tcp.len(),
    )
}

fn sockstat6(stack: &Stack) -> String {
    let six = |f: Family| f == Family::V6;
    let tcp = stack.tcp_sockets().iter().filter(|s| six(s.family) && s.state() != TcpState::Close).count();
    let udp = stack.udp_sockets();
    let count = |lite| udp.iter().filter(|s| six(s.family) && s.lite == lite && s.has_port()).count();
    format!(
        "TCP6: inuse {tcp}\nUDP6: inuse {}\nUDPLITE6: inuse {}\nRAW6: inuse {}\nFRAG6: inuse 0 memory 0\n",
        count(false),
        count(true),
        stack.raw_sockets().iter().filter(|s| six(s.family) && !s.ping).count(),
    )
}

/// The directory.
pub(super) struct NetDir;

struct Table(&'static str);

/// The names of all tables that a caller sees.
fn names(cx: &Caller<'_>) -> Vec<&'static str> {
    let own = TABLES.iter().map(|t| t.0);
    let hosts = Tables::seen_by(cx).map_or_else(Vec::new, |tables| tables.names());
    own.chain(hosts.into_iter().filter(|name| TABLES.iter().all(|t| t.0 != *name))).collect()
}

/// The inode number of a table.
fn ino(name: &str) -> u64 {
    let own = TABLES.iter().position(|t| t.0 == name);
    let place = own.or_else(|| Some(TABLES.len() + NAMES.iter().position(|n| *n == name)?));
    0xf100_0000 + place.unwrap_or(0) as u64
}

impl FileNode for Table {
    fn read(&self, cx: &Caller<'_>) -> Result<Vec<u8>> {
        let task = cx.task.ok_or(Errno::EINVAL)?;
        if let Some(text) = Tables::seen_by(cx).and_then(|tables| tables.read(task.kernel(), self.0)) {
            return text;
        }
        let (name, make) = TABLES.iter().find(|t| t.0 == self.0).ok_or(Errno::ENOENT)?;
        let stack = stack_of(task.kernel(), &task.namespaces().net);
        let mut out = make(&stack);
        match *name {
            "unix" => out.push_str(&crate::socket::unix::table(cx)),
            "netlink" => out = crate::socket::netlink::table(cx),
            _ => {}
        }
        Ok(out.into_bytes())
    }
}

impl DirNode for NetDir {
    fn lookup(&self, cx: &Caller<'_>, fs: &Arc<PseudoFs>, name: &[u8]) -> Result<Arc<PseudoInode>> {
        let name = names(cx).into_iter().find(|n| n.as_bytes() == name).ok_or(Errno::ENOENT)?;
        let node = Node::File(Arc::new(Table(name)));
        Ok(PseudoInode::new(fs, ino(name), 0o444, Owner::Fixed(0, 0), node))
    }

    fn list(&self, cx: &Caller<'_>, from: u64, emit: &mut dyn FnMut(u64, u64, FileType, &[u8]) -> bool) {
        for (i, name) in names(cx).into_iter().enumerate() {
            let at = i as u64 + 2;
            if at >= from && !emit(at, ino(name), FileType::Regular, name.as_bytes()) {
                return;
            }
        }
    }

    fn revalidate(&self, cx: &Caller<'_>, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        child.is_some() == names(cx).iter().any(|n| n.as_bytes() == name)
    }
}
