//! sock_diag(7): lists of sockets, as ss(8) asks for them.

use super::message::{Answers, Request};
use crate::socket::host::tables::Tables;
use abi::socket::{AF_INET, AF_INET6, AF_UNIX};
use abi::{Errno, Result};
use kernel::Task;
use kernel::vfs::Caller;
use netstack::tcp::TcpState;
use netstack::{Endpoint, Family, Stack};
use std::net::IpAddr;

const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// One line of a list.
struct Line {
    state: u8,
    local: Endpoint,
    remote: Endpoint,
    receive: usize,
    send: usize,
    uid: u32,
    ino: u64,
    id: u64,
}

fn octets(family: Family, e: Endpoint) -> [u8; 16] {
    let mut out = [0; 16];
    match (family, e.ip) {
        (Family::V4, IpAddr::V4(a)) => out[..4].copy_from_slice(&a.octets()),
        (Family::V4, IpAddr::V6(_)) => {}
        (Family::V6, ip) => out = crate::socket::inet::address::octets6(ip),
    }
    out
}

/// `struct inet_diag_msg`
fn push(out: &mut Answers, r: &Request<'_>, family: Family, l: &Line) {
    let number = if family == Family::V4 { AF_INET } else { AF_INET6 };
    let mut raw = vec![u8::try_from(number).unwrap_or(0), l.state, 0, 0];
    raw.extend(l.local.port.to_be_bytes());
    raw.extend(l.remote.port.to_be_bytes());
    raw.extend(octets(family, l.local));
    raw.extend(octets(family, l.remote));
    raw.extend(0u32.to_ne_bytes());
    raw.extend(l.id.to_ne_bytes());
    raw.extend(0u32.to_ne_bytes());
    for n in [l.receive, l.send] {
        raw.extend(u32::try_from(n).unwrap_or(u32::MAX).to_ne_bytes());
    }
    raw.extend(l.uid.to_ne_bytes());
    raw.extend(u32::try_from(l.ino).unwrap_or(0).to_ne_bytes());
    let m = out.begin(r, SOCK_DIAG_BY_FAMILY).bytes(&raw);
    out.push(m);
}

/// `struct unix_diag_msg` and what was asked for of each socket of AF_UNIX.
fn unix(cx: &Caller<'_>, r: &Request<'_>, out: &mut Answers) -> Result<()> {
    const SHOW_NAME: u32 = 1;
    const SHOW_PEER: u32 = 4;
    const SHOW_QUEUES: u32 = 16;
    let (states, ino, show) = (r.word(4), r.word(8), r.word(12));
    for s in crate::socket::unix::listed(cx) {
        let number = u32::try_from(s.ino).unwrap_or(0);
        if states >> s.state & 1 == 0 || (ino != 0 && ino != number) {
            continue;
        }
        let mut raw = vec![u8::try_from(AF_UNIX).unwrap_or(0), s.kind, s.state, 0];
        raw.extend(number.to_ne_bytes());
        raw.extend(s.ino.to_ne_bytes());
        let mut m = out.begin(r, SOCK_DIAG_BY_FAMILY).bytes(&raw);
        if show & SHOW_NAME != 0 {
            m = m.maybe(0, s.name.as_deref());
        }
        if show & SHOW_PEER != 0
            && let Some(peer) = s.peer
        {
            m = m.number(2, u32::try_from(peer).unwrap_or(0));
        }
        if show & SHOW_QUEUES != 0 {
            let queues: Vec<u8> = [s.queues.0, s.queues.1].iter().flat_map(|n| n.to_ne_bytes()).collect();
            m = m.attribute(4, &queues);
        }
        out.push(m);
    }
    out.end_dump(r);
    Ok(())
}

/// Answers a request.
pub fn handle(cx: &Caller<'_>, stack: &Stack, r: &Request<'_>, out: &mut Answers) -> Result<()> {
    if r.kind != SOCK_DIAG_BY_FAMILY {
        return Err(Errno::EINVAL);
    }
    let (number, protocol) = match r.body() {
        [f, p, ..] => (u16::from(*f), *p),
        _ => return Err(Errno::EINVAL),
    };
    let family = match number {
        AF_UNIX if r.is_dump() => return unix(cx, r, out),
        AF_INET => Family::V4,
        AF_INET6 => Family::V6,
        _ => {
            if let Some(t) = cx.task {
                kernel::gap!(t.kernel(), "sock_diag family", number);
            }
            return Err(Errno::ENOENT);
        }
    };
    if !r.is_dump() {
        return one(cx, stack, r, family, protocol, out);
    }
    let states = r.word(4);
    for line in lines(cx, stack, family, protocol)? {
        if states >> line.state & 1 == 1 {
            push(out, r, family, &line);
        }
    }
    out.end_dump(r);
    Ok(())
}

/// The one socket that a request names by its ends (`inet_diag_find_one_icsk`, `udp_dump_one`). ENOENT, also of another cookie.
fn one(
    cx: &Caller<'_>,
    stack: &Stack,
    r: &Request<'_>,
    family: Family,
    protocol: u8,
    out: &mut Answers,
) -> Result<()> {
    const ANY_COOKIE: u64 = u64::MAX;
    let id = r.body().get(8..56).ok_or(Errno::EINVAL)?;
    let port = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
    // UDP has the ends the other way round, as ever.
    let (own, peer) = if protocol == 6 { ((0, 4), (2, 20)) } else { ((2, 20), (0, 4)) };
    let is = |end: Endpoint, (at, ip): (usize, usize)| {
        port(at) == end.port && id.get(ip..ip + 16) == Some(&octets(family, end)[..])
    };
    let any = |end: Endpoint, (at, _): (usize, usize)| port(at) == end.port && end.ip.is_unspecified();
    if !matches!(protocol, 6 | 17 | 136) {
        return Err(Errno::ENOENT);
    }
    let all = lines(cx, stack, family, protocol)?;
    // A connection of these ends, or else who listens for them.
    let waiting = |line: &&Line| line.remote.port == 0 && (is(line.local, own) || any(line.local, own));
    let found = all
        .iter()
        .find(|line| is(line.local, own) && is(line.remote, peer))
        .or_else(|| all.iter().filter(waiting).max_by_key(|line| is(line.local, own)))
        .ok_or(Errno::ENOENT)?;
    let cookie = u64::from_ne_bytes(id[40..48].try_into().unwrap_or_default());
    if cookie != ANY_COOKIE && cookie != found.id {
        return Err(Errno::ENOENT);
    }
    push(out, r, family, found);
    Ok(())
}

/// All sockets of a protocol.
fn lines(cx: &Caller<'_>, stack: &Stack, family: Family, protocol: u8) -> Result<Vec<Line>> {
    let mut all = Vec::new();
    if let Some(kernel) = cx.task.map(Task::kernel)
        && let Some(tables) = Tables::beside(kernel, stack)
    {
        let name = match (protocol, family) {
            (6, Family::V4) => "tcp",
            (6, Family::V6) => "tcp6",
            (17, Family::V4) => "udp",
            (17, Family::V6) => "udp6",
            (136, Family::V4) => "udplite",
            (136, Family::V6) => "udplite6",
            (255, Family::V4) => "raw",
            (255, Family::V6) => "raw6",
            _ => return Ok(all),
        };
        let text = tables.read(kernel, name).transpose()?.unwrap_or_default();
        all.extend(String::from_utf8_lossy(&text).lines().filter_map(of_host));
        return Ok(all);
    }
    match protocol {
        6 => {
            for s in stack.tcp_sockets().iter().filter(|s| s.family == family) {
                let state = s.state() as u8;
                if state == TcpState::Close as u8 {
                    continue;
                }
                let (receive, send) = match (s.listener(), s.transport()) {
                    (Some(l), _) => l.lengths(),
                    (_, Some(t)) => (t.readable(true), t.unsent().0),
                    _ => (0, 0),
                };
                let (ino, uid) = s.tag.get().copied().unwrap_or_default();
                let (local, remote) = (s.local(), s.remote_or_any());
                all.push(Line { state, local, remote, receive, send, uid, ino, id: s.id });
            }
            for (local, remote, _) in stack.time_wait() {
                if local.ip.is_ipv4() == (family == Family::V4) {
                    let line = Line { state: 6, local, remote, receive: 0, send: 0, uid: 0, ino: 0, id: 0 };
                    all.push(line);
                }
            }
        }
        17 | 136 => {
            let lite = protocol == 136;
            for s in stack.udp_sockets().iter().filter(|s| s.family == family && s.lite == lite) {
                let state = if s.remote().is_some() { 1 } else { 7 };
                if !s.has_port() {
                    continue;
                }
                let (ino, uid) = s.tag.get().copied().unwrap_or_default();
                let remote = s.remote().unwrap_or(Endpoint::any(family));
                let (local, receive) = (s.local(), s.usage().0);
                all.push(Line { state, local, remote, receive, send: 0, uid, ino, id: s.id });
            }
        }
        255 => {
            for s in stack.raw_sockets().iter().filter(|s| s.family == family && !s.ping) {
                let (local, remote) = (s.local(), s.remote());
                let state = if remote.is_some() { 1 } else { 7 };
                let (ino, uid) = s.tag.get().copied().unwrap_or_default();
                let remote = remote.unwrap_or(Endpoint::any(family));
                let local = local.with_port(s.protocol.into());
                let receive = s.usage().0;
                all.push(Line { state, local, remote, receive, send: 0, uid, ino, id: s.id });
            }
        }
        _ => {}
    }
    Ok(all)
}

/// A row of a table of the host's sockets; `None` of what is none, as its head.
fn of_host(row: &str) -> Option<Line> {
    let mut words = row.split_ascii_whitespace();
    let (local, remote) = (end(words.nth(1)?)?, end(words.next()?)?);
    let number = |word| usize::from_str_radix(word, 16).ok();
    let state = u8::from_str_radix(words.next()?, 16).ok().filter(|state| *state < 32)?;
    let (send, receive) = words.next()?.split_once(':')?;
    let uid = words.nth(2)?.parse().ok()?;
    let ino = words.nth(1)?.parse().ok()?;
    // Those without a number are told apart by their ends.
    let id = if ino > 0 { ino } else { 1 << 63 | u64::from(local.port) << 16 | u64::from(remote.port) };
    Some(Line { state, local, remote, receive: number(receive)?, send: number(send)?, uid, ino, id })
}

/// An address and a port, as words of the host's order in hexadecimal.
fn end(word: &str) -> Option<Endpoint> {
    let (address, port) = word.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words = address.as_bytes().chunks(8).map(|word| {
        let number = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(number.to_ne_bytes())
    });
    let octets = words.collect::<Option<Vec<_>>>()?.concat();
    let ip = match (<[u8; 4]>::try_from(&octets[..]), <[u8; 16]>::try_from(&octets[..])) {
        (Ok(v4), _) => IpAddr::from(v4),
        (_, Ok(v6)) => IpAddr::from(v6),
        _ => return None,
    };
    Some(Endpoint::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_host() {
        let row = "   2: 0100007F:1F91 0200007F:1F90 01 00000010:00000002 00:00000000 00000000  1000        7 13 1 0000000000000000 20 4";
        let line = of_host(row).unwrap();
        assert_eq!(line.local, Endpoint::new([127, 0, 0, 1].into(), 8081));
        assert_eq!(line.remote, Endpoint::new([127, 0, 0, 2].into(), 8080));
        assert_eq!((line.state, line.send, line.receive, line.uid, line.ino), (1, 16, 2, 1000, 13));
        let row = "0: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 0 1";
        let line = of_host(row).unwrap();
        assert_eq!(line.local, Endpoint::new(std::net::Ipv6Addr::LOCALHOST.into(), 22));
        assert_eq!((line.state, line.ino), (10, 0));
        for wrong in [
            "",
            "  sl  local_address rem_address   st",
            &row.replace("0A", "FF"),
            &row[..120],
            &row.replace(":0016", ""),
        ] {
            assert!(of_host(wrong).is_none(), "{wrong}");
        }
    }
}
