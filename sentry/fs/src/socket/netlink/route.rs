//! rtnetlink(7): links, addresses, routes, rules. Neighbours are in `neighbour`.

use super::message::{Answers, CREATE, EXCL, REPLACE, Request};
use super::neighbour::{self, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH};
use crate::socket::host::tables::count;
use crate::socket::inet::errno;
use crate::socket::interfaces;
use crate::socket::routes::{self, Shown, TABLE_LOCAL, TABLE_MAIN};
use abi::socket::{AF_INET, AF_INET6, AF_UNSPEC};
use abi::{Errno, Result};
use kernel::Kernel;
use kernel::creds::CapSet;
use kernel::vfs::Caller;
use netstack::{IfAddr, Interface, RouteLine, Stack};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;

const TABLE_DEFAULT: u8 = 253;

pub(super) fn family(ip: IpAddr) -> u8 {
    u8::try_from(if ip.is_ipv4() { AF_INET } else { AF_INET6 }).unwrap_or(0)
}

pub(super) fn raw(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub(super) fn address(raw: &[u8]) -> Result<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(raw) {
        return Ok(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    <[u8; 16]>::try_from(raw).map(|v6| IpAddr::V6(Ipv6Addr::from(v6))).map_err(|_| Errno::EINVAL)
}

/// Answers a request.
pub fn handle(cx: &Caller<'_>, stack: &Stack, r: &Request<'_>, out: &mut Answers) -> Result<()> {
    // All but the questions are for the privileged.
    if r.kind & 3 != 2 {
        let task = cx.task.ok_or(Errno::EPERM)?;
        if !cx.creds.has_cap_in(&task.namespaces().net.user_ns, CapSet::NET_ADMIN) {
            return Err(Errno::EPERM);
        }
    }
    let wanted = r.body().first().copied().unwrap_or(0);
    match r.kind {
        RTM_GETLINK => {
            if let Some(task) = cx.task {
                count(task.kernel(), stack);
            }
            links(stack, r, out)
        }
        RTM_GETADDR if r.is_dump() => addresses(stack, r, wanted, out),
        RTM_GETROUTE if r.is_dump() => dump_routes(stack, r, wanted, out),
        RTM_GETROUTE => one_route(stack, r, out),
        RTM_GETRULE if r.is_dump() => rules(r, wanted, out),
        RTM_GETNEIGH if r.is_dump() => neighbour::dump(stack, r, out),
        RTM_GETNEIGH => neighbour::get(stack, r, out),
        RTM_NEWNEIGH => neighbour::change(cx, stack, r),
        RTM_DELNEIGH => neighbour::delete(cx, stack, r),
        RTM_NEWLINK | RTM_SETLINK => change_link(cx, stack, r),
        RTM_NEWADDR | RTM_DELADDR => change_address(cx, stack, r),
        RTM_NEWROUTE | RTM_DELROUTE => change_route(cx, stack, r),
        RTM_DELLINK => Err(Errno::EOPNOTSUPP),
        _ => {
            if let Some(t) = cx.task {
                kernel::gap!(t.kernel(), "rtnetlink message", r.kind);
            }
            Err(Errno::EOPNOTSUPP)
        }
    }
}

fn link(r: &Request<'_>, i: &Interface, out: &mut Answers) {
    let mut head = vec![0u8, 0];
    head.extend(interfaces::hardware_type(i).to_ne_bytes());
    head.extend(i.index.to_ne_bytes());
    head.extend(interfaces::flags(i).to_ne_bytes());
    head.extend(0u32.to_ne_bytes());
    let t = &i.traffic;
    let mut stats = Vec::new();
    for c in [&t.received_packets, &t.sent_packets, &t.received_bytes, &t.sent_bytes] {
        stats.extend(c.load(Ordering::Relaxed).to_ne_bytes());
    }
    let mut stats64 = stats.clone();
    stats64.resize(25 * 8, 0);
    let mut stats32: Vec<u8> = stats.chunks_exact(8).flat_map(|c| c[..4].to_vec()).collect();
    stats32.resize(24 * 4, 0);
    // IF_OPER_UNKNOWN for loopback, UP or DOWN for others.
    let state = match (i.loopback, i.up && i.carrier) {
        (true, true) => 0,
        (false, true) => 6,
        (_, false) => 2,
    };
    let all_ones = if i.loopback { [0; 6] } else { [0xff; 6] };
    let m = out
        .begin(r, RTM_NEWLINK)
        .bytes(&head)
        .text(3, &i.name)
        .number(13, 1000)
        .attribute(16, &[state])
        .attribute(17, &[0])
        .number(4, i.mtu)
        .number(50, 0)
        .number(51, 0)
        .number(27, 0)
        .number(30, 0)
        .number(31, 1)
        .number(32, 1)
        .attribute(33, &[u8::from(i.carrier)])
        .text(6, if i.loopback { "noqueue" } else { "fq_codel" })
        .attribute(1, &i.hardware)
        .attribute(2, &all_ones)
        .attribute(23, &stats64)
        .attribute(7, &stats32);
    out.push(m);
}

fn links(stack: &Stack, r: &Request<'_>, out: &mut Answers) -> Result<()> {
    if r.is_dump() {
        for i in stack.interfaces.list() {
            link(r, &i, out);
        }
        out.end_dump(r);
        return Ok(());
    }
    let index = r.word(4);
    let name = r.attribute(16, 3);
    let found = match name {
        Some(n) if index == 0 => {
            let end = n.iter().position(|b| *b == 0).unwrap_or(n.len());
            stack.interfaces.by_name(&n[..end])
        }
        _ if index == 0 => return Err(Errno::EINVAL),
        _ => stack.interfaces.by_index(index),
    };
    link(r, &found.ok_or(Errno::ENODEV)?, out);
    Ok(())
}

fn scope(ip: IpAddr) -> u8 {
    match ip {
        _ if ip.is_loopback() => 254,
        IpAddr::V6(a) if a.is_unicast_link_local() => 253,
        _ => 0,
    }
}

fn one_address(r: &Request<'_>, kind: u16, i: &Interface, a: &IfAddr, out: &mut Answers) {
    const PERMANENT: u8 = 0x80;
    let mut head = vec![family(a.ip), a.prefix, PERMANENT, scope(a.ip)];
    head.extend(i.index.to_ne_bytes());
    let mut m = out.begin(r, kind).bytes(&head).attribute(1, &raw(a.ip));
    if a.ip.is_ipv4() {
        let broadcast = a.broadcast.map(|b| b.octets());
        m = m.attribute(2, &raw(a.ip)).maybe(4, broadcast.as_ref().map(|b| &b[..]));
        m = m.text(3, &i.name);
    }
    let mut forever = [0xff; 16];
    forever[8..].fill(0);
    out.push(m.number(8, PERMANENT.into()).attribute(6, &forever));
}

fn addresses(stack: &Stack, r: &Request<'_>, wanted: u8, out: &mut Answers) -> Result<()> {
    for v4 in [true, false] {
        for i in stack.interfaces.list() {
            for a in i.addrs.iter().filter(|a| a.ip.is_ipv4() == v4) {
                if wanted != 0 && wanted != family(a.ip) {
                    continue;
                }
                one_address(r, RTM_NEWADDR, &i, a, out);
            }
        }
    }
    out.end_dump(r);
    Ok(())
}

/// The fixed part of a route.
fn route_head(ip: IpAddr, prefix: u8, table: u8, protocol: u8, scope: u8, kind: u8) -> Vec<u8> {
    let mut head = vec![family(ip), prefix, 0, 0, table, protocol, scope, kind];
    head.extend(0u32.to_ne_bytes());
    head
}

fn dump_routes(stack: &Stack, r: &Request<'_>, wanted: u8, out: &mut Answers) -> Result<()> {
    let list = routes::all(stack);
    for s in list {
        if wanted != 0 && wanted != family(s.to) {
            continue;
        }
        shown_route(r, RTM_NEWROUTE, &s, out);
    }
    out.end_dump(r);
    Ok(())
}

fn shown_route(r: &Request<'_>, kind: u16, s: &Shown, out: &mut Answers) {
    let head = route_head(s.to, s.prefix, s.table, s.protocol, s.scope, s.kind);
    let to = raw(s.to);
    let gateway = s.gateway.map(raw);
    let source = s.source.map(raw);
    let mut m = out.begin(r, kind).bytes(&head).number(15, s.table.into());
    m = m.maybe(1, (s.prefix > 0).then_some(&to[..]));
    m = m.maybe(7, source.as_deref()).maybe(5, gateway.as_deref());
    if s.metric != 0 || s.to.is_ipv6() {
        m = m.number(6, s.metric);
    }
    m = m.number(4, s.device);
    if s.to.is_ipv6() {
        // RTA_CACHEINFO, RTA_PREF: never used, never expires, no preference.
        m = m.attribute(12, &[0; 32]).attribute(20, &[0]);
    }
    out.push(m);
}

/// Tells the members of the groups of routes.
fn route_changed(kernel: &Kernel, stack: &Stack, kind: u16, line: &RouteLine) {
    let group = if line.to.is_ipv4() { 7 } else { 11 };
    super::announce(kernel, stack, group, |out| shown_route(&Request::NEWS, kind, &Shown::of(line), out));
}

/// The way to one destination (`ip route get`).
fn one_route(stack: &Stack, r: &Request<'_>, out: &mut Answers) -> Result<()> {
    let to = address(r.attribute(12, 1).ok_or(Errno::EINVAL)?)?;
    let found = stack.route(to, None, 0).map_err(errno)?;
    // Which table it came from is told only to who asks for the line itself.
    let (table, kind) = (TABLE_MAIN, if found.local { 2 } else { 1 });
    let prefix = if to.is_ipv4() { 32 } else { 128 };
    let mut head = route_head(to, prefix, table, 0, 0, kind);
    const CLONED: u32 = 0x200;
    head[8..12].copy_from_slice(&CLONED.to_ne_bytes());
    let gateway = found.gateway.map(raw);
    let m = out
        .begin(r, RTM_NEWROUTE)
        .bytes(&head)
        .number(15, table.into())
        .attribute(1, &raw(to))
        .number(4, found.device)
        .attribute(7, &raw(found.source))
        .maybe(5, gateway.as_deref())
        .maybe(16, None);
    out.push(m);
    Ok(())
}

fn rules(r: &Request<'_>, wanted: u8, out: &mut Answers) -> Result<()> {
    for f in [AF_INET, AF_INET6] {
        let f = u8::try_from(f).unwrap_or(0);
        if wanted != 0 && wanted != f {
            continue;
        }
        for (priority, table) in [(0u32, TABLE_LOCAL), (32766, TABLE_MAIN), (32767, TABLE_DEFAULT)] {
            if f != 2 && table == TABLE_DEFAULT {
                continue;
            }
            let head = [f, 0, 0, 0, table, 0, 0, 1, 0, 0, 0, 0];
            let mut m = out.begin(r, RTM_NEWRULE).bytes(&head).number(15, table.into());
            m = m.number(14, u32::MAX);
            if priority != 0 {
                m = m.number(6, priority);
            }
            out.push(m.attribute(21, &[2]));
        }
    }
    out.end_dump(r);
    Ok(())
}

fn change_link(cx: &Caller<'_>, stack: &Stack, r: &Request<'_>) -> Result<()> {
    let index = r.word(4);
    let name = r.attribute(16, 3);
    let found = match name {
        Some(n) if index == 0 => {
            let end = n.iter().position(|b| *b == 0).unwrap_or(n.len());
            stack.interfaces.by_name(&n[..end])
        }
        _ => stack.interfaces.by_index(index),
    };
    let Some(i) = found else {
        if r.kind == RTM_NEWLINK && r.flags & CREATE != 0 {
            if let Some(t) = cx.task {
                kernel::gap!(t.kernel(), "new network interfaces");
            }
            return Err(Errno::EOPNOTSUPP);
        }
        return Err(Errno::ENODEV);
    };
    if r.flags & (CREATE | EXCL) == CREATE | EXCL && r.kind == RTM_NEWLINK {
        return Err(Errno::EEXIST);
    }
    if let Some(mtu) = r.attribute(16, 4) {
        let mtu: [u8; 4] = mtu.try_into().map_err(|_| Errno::EINVAL)?;
        stack.interfaces.set_mtu(i.index, u32::from_ne_bytes(mtu)).map_err(errno)?;
    }
    let (flags, change) = (r.word(8), r.word(12));
    if change & interfaces::IFF_UP != 0 || (change == 0 && flags != 0) {
        stack.interfaces.set_up(i.index, flags & interfaces::IFF_UP != 0).map_err(errno)?;
    }
    if let Some(task) = cx.task {
        link_changed(task.kernel(), stack, i.index);
    }
    Ok(())
}

/// Tells the members of `RTNLGRP_LINK` of an interface.
pub fn link_changed(kernel: &Kernel, stack: &Stack, index: u32) {
    const LINK: u32 = 1;
    if let Some(i) = stack.interfaces.by_index(index) {
        super::announce(kernel, stack, LINK, |out| link(&Request::NEWS, &i, out));
    }
}

/// Tells the members of the groups of addresses; `kind`: whether it came or went.
fn address_changed(kernel: &Kernel, stack: &Stack, kind: u16, index: u32, a: &IfAddr) {
    let group = if a.ip.is_ipv4() { 5 } else { 9 };
    let Some(i) = stack.interfaces.by_index(index) else { return };
    super::announce(kernel, stack, group, |out| one_address(&Request::NEWS, kind, &i, a, out));
}

fn change_address(cx: &Caller<'_>, stack: &Stack, r: &Request<'_>) -> Result<()> {
    let prefix = r.body().get(1).copied().ok_or(Errno::EINVAL)?;
    let index = r.word(4);
    let own = r.attribute(8, 2).or(r.attribute(8, 1)).ok_or(Errno::EINVAL)?;
    let ip = address(own)?;
    if prefix > if ip.is_ipv4() { 32 } else { 128 } {
        return Err(Errno::EINVAL);
    }
    let tell = |a: &IfAddr| {
        if let Some(t) = cx.task {
            address_changed(t.kernel(), stack, r.kind, index, a);
        }
    };
    if r.kind == RTM_DELADDR {
        stack.interfaces.remove_address(index, ip, prefix).map_err(errno)?;
        tell(&IfAddr { ip, prefix, broadcast: None });
        return Ok(());
    }
    let broadcast = match r.attribute(8, 4).map(address) {
        Some(Ok(IpAddr::V4(b))) => Some(b),
        _ => None,
    };
    let new = IfAddr { ip, prefix, broadcast };
    match stack.interfaces.add_address(index, new) {
        Err(netstack::NetError::Exists) if r.flags & REPLACE != 0 => return Ok(()),
        other => other.map_err(errno)?,
    }
    tell(&new);
    Ok(())
}

fn change_route(cx: &Caller<'_>, stack: &Stack, r: &Request<'_>) -> Result<()> {
    let b = r.body();
    let (number, prefix) = match b {
        [f, p, ..] if b.len() >= 12 => (u16::from(*f), *p),
        _ => return Err(Errno::EINVAL),
    };
    let any = match number {
        AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        AF_UNSPEC => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    let to = r.attribute(12, 1).map_or(Ok(any), address)?;
    let gateway = r.attribute(12, 5).map(address).transpose()?;
    let source = r.attribute(12, 7).map(address).transpose()?;
    let number = |kind: u16| -> u32 {
        r.attribute(12, kind).and_then(|a| a.try_into().ok()).map_or(0, u32::from_ne_bytes)
    };
    let (mut device, mut metric) = (number(4), number(6));
    if metric == 0 && to.is_ipv6() {
        // `IP6_RT_PRIO_USER`
        metric = 1024;
    }
    let tell = |line: &RouteLine| {
        if let Some(t) = cx.task {
            route_changed(t.kernel(), stack, r.kind, line);
        }
    };
    if r.kind == RTM_DELROUTE {
        stack.interfaces.remove_route(to, prefix, gateway, device).map_err(errno)?;
        tell(&RouteLine { to, prefix, gateway, device, source, metric, protocol: b[5] });
        return Ok(());
    }
    if device == 0 {
        let via = gateway.ok_or(Errno::ENODEV)?;
        device = stack.route(via, None, 0).map_err(errno)?.device;
    }
    let line = RouteLine { to, prefix, gateway, device, source, metric, protocol: b[5] };
    match stack.interfaces.add_route(line) {
        Err(netstack::NetError::Exists) if r.flags & REPLACE != 0 => {
            stack.interfaces.remove_route(to, prefix, None, 0).map_err(errno)?;
            stack.interfaces.add_route(line).map_err(errno)?;
        }
        other => other.map_err(errno)?,
    }
    tell(&line);
    Ok(())
}
