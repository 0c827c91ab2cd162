//! A small reader of rtnetlink(7) for a network namespace of the host: its interfaces, addresses, routes and permanent
//! neighbours, news that they have changed, and the two routing rules that keep the host's own stack silent in it ([`silence`]).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE_NEW: u16 = 0x600;

/// RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// RTMGRP_NEIGH
const NEIGHBOURS: u32 = 0x4;

/// `ARPHRD_ETHER`, `ARPHRD_LOOPBACK`
pub const ETHERNET: u16 = 1;
pub const LOOPBACK: u16 = 772;

/// Permanent neighbours that are read; a stack keeps no more.
const MOST_NEIGHBOURS: usize = 1024;

const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 0x1_0000;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `ARPHRD_*`
    pub hardware: u16,
    pub mac: [u8; 6],
    pub mtu: u32,
    pub up: bool,
    /// The cable is plugged in.
    pub carrier: bool,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub index: u32,
    pub ip: IpAddr,
    pub prefix: u8,
    pub broadcast: Option<Ipv4Addr>,
}

/// A unicast route of the main table that somebody has put there; those that addresses make by themselves are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub index: u32,
    pub to: IpAddr,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
    pub source: Option<IpAddr>,
    pub metric: u32,
    /// `RTPROT_*`
    pub protocol: u8,
}

/// A permanent neighbour: one that somebody has set for good, not one that the host's stack has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub index: u32,
    pub ip: IpAddr,
    pub mac: [u8; 6],
    pub router: bool,
}

/// What a namespace has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub links: Vec<Link>,
    pub addresses: Vec<Address>,
    pub routes: Vec<Route>,
    pub neighbours: Vec<Neighbour>,
}

/// A socket for questions (no protocol means `NETLINK_ROUTE`), in the caller's network namespace.
pub fn open() -> io::Result<OwnedFd> {
    let kind = SocketType::RAW;
    Ok(rustix::net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, None)?)
}

/// A socket that becomes readable when interfaces, addresses or routes change; neighbours too if they are wanted: where the
/// host's own stack is busy, theirs are many.
pub fn open_news(neighbours: bool) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    let groups = if neighbours { GROUPS | NEIGHBOURS } else { GROUPS };
    rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
    Ok(fd)
}

/// Takes all news; what they say does not matter, since whoever hears of one reads everything anew.
pub fn take_news(fd: impl AsFd) {
    let mut buffer = vec![0; 8192];
    loop {
        match rustix::net::recv(fd.as_fd(), &mut buffer[..], RecvFlags::DONTWAIT) {
            // News that were lost are news too.
            Ok(_) | Err(rustix::io::Errno::NOBUFS) => {}
            Err(_) => return,
        }
    }
}

/// Reads everything by a socket of [`open`].
pub fn snapshot(fd: impl AsFd) -> io::Result<Snapshot> {
    let mut found = Snapshot::default();
    dump(fd.as_fd(), RTM_GETLINK, &[0; 16], |kind, body| {
        if kind == RTM_NEWLINK {
            found.links.extend(link(body));
        }
    })?;
    dump(fd.as_fd(), RTM_GETADDR, &[0; 8], |kind, body| {
        if kind == RTM_NEWADDR {
            found.addresses.extend(address(body));
        }
    })?;
    dump(fd.as_fd(), RTM_GETROUTE, &[0; 12], |kind, body| {
        if kind == RTM_NEWROUTE {
            found.routes.extend(route(body));
        }
    })?;
    dump(fd.as_fd(), RTM_GETNEIGH, &[0; 12], |kind, body| {
        if kind == RTM_NEWNEIGH && found.neighbours.len() < MOST_NEIGHBOURS {
            found.neighbours.extend(neighbour(body));
        }
    })?;
    Ok(found)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// An attribute of a message whose fixed part has `head` bytes.
fn attribute(body: &[u8], head: usize, wanted: u16) -> Option<&[u8]> {
    let mut rest = body.get(head..)?;
    while let (Some(length), Some(kind)) = (half(rest, 0), half(rest, 2)) {
        let length = usize::from(length);
        let data = rest.get(4..length)?;
        if kind & 0x3fff == wanted {
            return Some(data);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
}

fn link(body: &[u8]) -> Option<Link> {
    let flags = word(body, 8)?;
    let name = attribute(body, 16, 3)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Link {
        index: word(body, 4)?,
        name: String::from_utf8_lossy(name).into_owned(),
        hardware: half(body, 2)?,
        mac: attribute(body, 16, 1).and_then(|mac| mac.try_into().ok()).unwrap_or_default(),
        mtu: attribute(body, 16, 4).and_then(|mtu| word(mtu, 0)).unwrap_or(1500),
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
    })
}

fn address(body: &[u8]) -> Option<Address> {
    // The own address of a point-to-point link is the local one, else both are the same.
    let own = attribute(body, 8, 2).or_else(|| attribute(body, 8, 1)).and_then(ip)?;
    let broadcast = match attribute(body, 8, 4).and_then(ip) {
        Some(IpAddr::V4(broadcast)) => Some(broadcast),
        _ => None,
    };
    Some(Address { index: word(body, 4)?, ip: own, prefix: *body.get(1)?, broadcast })
}

fn route(body: &[u8]) -> Option<Route> {
    const MAIN: u32 = 254;
    const BY_KERNEL: u8 = 2;
    const UNICAST: u8 = 1;
    let &[family, prefix, _, _, table, protocol, _, kind, ..] = body else { return None };
    let table = attribute(body, 12, 15).and_then(|table| word(table, 0)).unwrap_or(table.into());
    const CLONED: u32 = 0x200;
    if table != MAIN || protocol == BY_KERNEL || kind != UNICAST || word(body, 8)? & CLONED != 0 {
        return None;
    }
    let any: IpAddr = match family {
        2 => Ipv4Addr::UNSPECIFIED.into(),
        10 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut gateway = attribute(body, 12, 5).and_then(ip);
    let mut index = attribute(body, 12, 4).and_then(|index| word(index, 0));
    if let Some(hops) = attribute(body, 12, 9) {
        // Several ways: the first is as good as any.
        index = word(hops, 4);
        gateway = half(hops, 0)
            .and_then(|length| hops.get(..length.into()))
            .and_then(|hop| attribute(hop, 8, 5))
            .and_then(ip);
    }
    Some(Route {
        index: index?,
        to: attribute(body, 12, 1).map_or(Some(any), ip)?,
        prefix,
        gateway,
        source: attribute(body, 12, 7).and_then(ip),
        metric: attribute(body, 12, 6).and_then(|metric| word(metric, 0)).unwrap_or(0),
        protocol,
    })
}

fn neighbour(body: &[u8]) -> Option<Neighbour> {
    const PERMANENT: u16 = 0x80;
    const ROUTER: u8 = 0x80;
    if half(body, 8)? != PERMANENT {
        return None;
    }
    Some(Neighbour {
        index: word(body, 4)?,
        ip: attribute(body, 12, 1).and_then(ip)?,
        mac: attribute(body, 12, 2)?.try_into().ok()?,
        router: body.get(10)? & ROUTER != 0,
    })
}

/// One request; `each` gets kind and body of every answer. An error of the kernel is one of the call.
fn request(
    fd: impl AsFd,
    kind: u16,
    flags: u16,
    body: &[u8],
    mut each: impl FnMut(u16, &[u8]),
) -> io::Result<()> {
    const SEQUENCE: u32 = 1;
    let length = u32::try_from(16 + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST | flags).to_ne_bytes());
    message.extend(SEQUENCE.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    // A socket of netlink that is not connected sends to the kernel.
    rustix::net::send(fd.as_fd(), &message, SendFlags::empty())?;
    let mut buffer = vec![0; 65_536];
    loop {
        let (got, length) = rustix::net::recv(fd.as_fd(), &mut buffer[..], RecvFlags::TRUNC)?;
        if length > got {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of rtnetlink was cut off"));
        }
        let mut rest = buffer.get(..got).unwrap_or_default();
        while let (Some(length), Some(kind)) = (word(rest, 0), half(rest, 4)) {
            let length = length as usize;
            let Some(body) = rest.get(16..length) else { break };
            match kind {
                NLMSG_ERROR => {
                    let code = word(body, 0).map_or(0, u32::cast_signed);
                    return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                NLMSG_DONE => return Ok(()),
                kind => each(kind, body),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn dump(fd: impl AsFd, kind: u16, head: &[u8], each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    request(fd, kind, DUMP, head, each)
}

/// A rule of `ip rule`.
#[derive(Clone, Copy)]
struct Rule {
    priority: u32,
    /// What packets it is for.
    what: Match,
    action: Action,
}

#[derive(Clone, Copy, PartialEq)]
enum Match {
    All,
    /// Whatever came in by an interface other than lo.
    FromOutside,
    /// Answers of name servers to the ports that the host's stack keeps for itself.
    NameServers(u8),
}

#[derive(Clone, Copy)]
enum Action {
    LocalTable,
    Blackhole,
}

/// Ports that the host's own stack uses in a namespace whose traffic is the sandbox's: for Docker's resolver, which asks
/// from in there. First and last; a range of rules may not end at 65535.
pub const HOST_PORTS: (u16, u16) = (61_000, 65_534);

/// Rules in the order in which they are made: at no moment is there none for local traffic.
const SILENT: [Rule; 4] = [
    Rule { priority: 100, what: Match::All, action: Action::LocalTable },
    Rule { priority: 9, what: Match::NameServers(17), action: Action::LocalTable },
    Rule { priority: 9, what: Match::NameServers(6), action: Action::LocalTable },
    Rule { priority: 10, what: Match::FromOutside, action: Action::Blackhole },
];
/// The one that Linux begins with.
const FIRST: Rule = Rule { priority: 0, what: Match::All, action: Action::LocalTable };

impl Rule {
    fn message(self, family: u8) -> Vec<u8> {
        const INVERT: u32 = 2;
        let (action, table) = match self.action {
            Action::LocalTable => (1, 255),
            Action::Blackhole => (6, 0),
        };
        let mut body = vec![family, 0, 0, 0, table, 0, 0, action];
        let outside = self.what == Match::FromOutside;
        body.extend(if outside { INVERT } else { 0u32 }.to_ne_bytes());
        let mut add = |kind: u16, data: &[u8]| {
            let length = u16::try_from(4 + data.len()).unwrap_or(4);
            body.extend(length.to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(data);
            body.resize(body.len().next_multiple_of(4), 0);
        };
        add(6, &self.priority.to_ne_bytes());
        match self.what {
            Match::All => {}
            Match::FromOutside => add(3, b"lo\0"),
            Match::NameServers(protocol) => {
                add(22, &[protocol]);
                let range = |(first, last): (u16, u16)| [first.to_ne_bytes(), last.to_ne_bytes()].concat();
                add(23, &range((53, 53)));
                add(24, &range(HOST_PORTS));
            }
        }
        body
    }
}

const FAMILIES: [u8; 2] = [2, 10];

/// Keeps the host's own stack silent in the namespace of `fd`: what comes in from outside is dropped before it is looked
/// at, so that neither ARP nor ICMP nor a reset is answered twice. Addresses and routes stay as they are, since engines
/// read and change them; frames still reach packet sockets, which see them first; lo works as ever. Both families.
/// Needs CAP_NET_ADMIN; may be done again.
pub fn silence(fd: impl AsFd) -> io::Result<()> {
    each_family(|family| {
        for rule in SILENT {
            match request(fd.as_fd(), RTM_NEWRULE, ACK | CREATE_NEW, &rule.message(family), |_, _| {}) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        remove(fd.as_fd(), FIRST, family)
    })
}

/// Takes [`silence`] back.
pub fn unsilence(fd: impl AsFd) -> io::Result<()> {
    each_family(|family| {
        match request(fd.as_fd(), RTM_NEWRULE, ACK | CREATE_NEW, &FIRST.message(family), |_, _| {}) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        SILENT.iter().rev().try_for_each(|rule| remove(fd.as_fd(), *rule, family))
    })
}

fn remove(fd: impl AsFd, rule: Rule, family: u8) -> io::Result<()> {
    match request(fd, RTM_DELRULE, ACK, &rule.message(family), |_, _| {}) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// IPv6 may be missing.
fn each_family(mut act: impl FnMut(u8) -> io::Result<()>) -> io::Result<()> {
    for family in FAMILIES {
        match act(family) {
            Err(error)
                if family == 10
                    && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is on any Linux: the loopback interface with its address.
    #[test]
    fn the_namespace_of_this_process() {
        let found = snapshot(open().unwrap()).unwrap();
        let lo = found.links.iter().find(|link| link.hardware == LOOPBACK).expect("a loopback interface");
        assert_eq!((lo.name.as_str(), lo.mac), ("lo", [0; 6]));
        for address in &found.addresses {
            assert!(found.links.iter().any(|link| link.index == address.index), "{address:?}");
        }
        for route in &found.routes {
            assert!(found.links.iter().any(|link| link.index == route.index), "{route:?}");
        }
    }

    /// A message of `RTM_NEWNEIGH`.
    fn neighbour_message(state: u16, flags: u8, ip: &[u8], mac: &[u8]) -> Vec<u8> {
        let mut body = vec![if ip.len() == 4 { 2 } else { 10 }, 0, 0, 0];
        body.extend(7u32.to_ne_bytes());
        body.extend(state.to_ne_bytes());
        body.extend([flags, 1]);
        for (kind, data) in [(1u16, ip), (2, mac)] {
            body.extend(u16::try_from(4 + data.len()).unwrap().to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(data);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        body
    }

    #[test]
    fn only_permanent_neighbours_are_read() {
        let mac = [2, 0, 0, 0, 0, 9];
        let gateway = neighbour_message(0x80, 0x80, &[169, 254, 1, 1], &mac);
        let ip = IpAddr::from([169, 254, 1, 1]);
        assert_eq!(neighbour(&gateway), Some(Neighbour { index: 7, ip, mac, router: true }));
        // Found by the host's stack, of another kind of link, cut off.
        assert_eq!(neighbour(&neighbour_message(2, 0, &[169, 254, 1, 1], &mac)), None);
        assert_eq!(neighbour(&neighbour_message(0x80, 0, &[169, 254, 1, 1], &[1; 20])), None);
        assert_eq!(neighbour(&neighbour_message(0x80, 0, &[1, 2, 3], &mac)), None);
        // The last two bytes are padding.
        for length in 0..gateway.len() - 2 {
            assert_eq!(neighbour(&gateway[..length]), None, "{length} bytes");
        }
    }

    /// In a namespace of its own, if there may be one.
    #[test]
    fn silent_and_back() {
        std::thread::spawn(|| {
            if let Err(error) = crate::ns::unshare(crate::ns::Namespaces::NET) {
                crate::ns::skipped(&format!("no private network namespace: {error}"));
                return;
            }
            let fd = open().unwrap();
            let rules = || {
                let mut list = Vec::new();
                dump(&fd, 34, &[0; 12], |_, body| {
                    list.push((
                        body[0],
                        attribute(body, 12, 6).and_then(|p| word(p, 0)).unwrap_or(0),
                        body[7],
                    ));
                })
                .unwrap();
                list.sort_unstable();
                list
            };
            let before = rules();
            silence(&fd).unwrap();
            let silent = rules();
            silence(&fd).unwrap();
            assert_eq!(rules(), silent, "again");
            assert!(silent.contains(&(2, 10, 6)) && silent.contains(&(2, 100, 1)), "{silent:?}");
            assert!(!silent.contains(&(2, 0, 1)), "{silent:?}");
            unsilence(&fd).unwrap();
            assert_eq!(rules(), before);
        })
        .join()
        .unwrap();
    }
}
