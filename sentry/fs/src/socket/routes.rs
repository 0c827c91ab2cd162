//! The routes of a stack as tables show them: those that were put in, and those that addresses make by themselves.

use super::interfaces;
use netstack::{IfAddr, Interface, RouteLine, Stack, broadcast_of};
use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const TABLE_MAIN: u8 = 254;
pub const TABLE_LOCAL: u8 = 255;

/// `RTN_*`: what a route is for.
pub mod kind {
    pub const UNICAST: u8 = 1;
    pub const LOCAL: u8 = 2;
    pub const BROADCAST: u8 = 3;
    pub const MULTICAST: u8 = 5;
}

/// `RT_SCOPE_*`
mod scope {
    pub const UNIVERSE: u8 = 0;
    pub const LINK: u8 = 253;
    pub const HOST: u8 = 254;
}

/// `RTPROT_KERNEL`
const KERNEL: u8 = 2;
/// What the kernel gives its routes of IPv6 (`IP6_RT_PRIO_ADDRCONF`).
const METRIC6: u32 = 256;

/// A route of a table.
#[derive(Clone, Copy)]
pub struct Shown {
    pub to: IpAddr,
    pub prefix: u8,
    pub table: u8,
    pub protocol: u8,
    pub scope: u8,
    pub kind: u8,
    pub gateway: Option<IpAddr>,
    pub source: Option<IpAddr>,
    pub metric: u32,
    pub device: u32,
}

impl Shown {
    /// A line of the main table.
    pub fn of(line: &RouteLine) -> Shown {
        Shown {
            to: line.to,
            prefix: line.prefix,
            table: TABLE_MAIN,
            protocol: line.protocol,
            scope: if line.gateway.is_some() || line.to.is_ipv6() { scope::UNIVERSE } else { scope::LINK },
            kind: kind::UNICAST,
            gateway: line.gateway,
            source: line.source,
            metric: line.metric,
            device: line.device,
        }
    }
}

/// All routes, in the order of Linux' tables.
pub fn all(stack: &Stack) -> Vec<Shown> {
    let mut list: Vec<Shown> = stack.interfaces.routes().iter().map(Shown::of).collect();
    for i in stack.interfaces.list().iter().filter(|i| i.up) {
        for a in &i.addrs {
            match a.ip {
                IpAddr::V4(ip) => of_address4(i, a, ip, &mut list),
                IpAddr::V6(ip) => of_address6(i, a, ip, &mut list),
            }
        }
        if !i.loopback && i.addrs.iter().any(|a| a.ip.is_ipv6()) {
            let groups = IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0));
            list.push(Shown { prefix: 8, kind: kind::MULTICAST, ..own6(i, groups) });
        }
    }
    list.sort_by_key(|s| (s.to.is_ipv6(), Reverse(s.table == TABLE_MAIN), place(s)));
    list
}

/// Where a route of IPv6 stands: what is below a prefix comes before it. Those of IPv4 are in order.
fn place(s: &Shown) -> (u128, Reverse<u8>) {
    match s.to {
        IpAddr::V4(_) => (0, Reverse(0)),
        IpAddr::V6(to) => (u128::from(to) | !mask6(s.prefix), Reverse(s.prefix)),
    }
}

fn mask6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

fn of_address4(i: &Interface, a: &IfAddr, ip: Ipv4Addr, list: &mut Vec<Shown>) {
    let own = Shown {
        to: a.ip,
        prefix: 32,
        table: TABLE_LOCAL,
        protocol: KERNEL,
        scope: scope::HOST,
        kind: kind::LOCAL,
        gateway: None,
        source: Some(a.ip),
        metric: 0,
        device: i.index,
    };
    if a.prefix < 32 {
        let to = IpAddr::V4(Ipv4Addr::from(u32::from(ip) & u32::from(interfaces::mask(a.prefix))));
        let net = Shown { to, prefix: a.prefix, ..own };
        list.push(match i.loopback {
            true => net,
            false => Shown { table: TABLE_MAIN, scope: scope::LINK, kind: kind::UNICAST, ..net },
        });
        let to = IpAddr::V4(broadcast_of(ip, a.prefix));
        list.push(Shown { to, scope: scope::LINK, kind: kind::BROADCAST, ..own });
    }
    list.push(own);
}

/// A route of the kernel's in the local table of IPv6.
fn own6(i: &Interface, to: IpAddr) -> Shown {
    Shown {
        to,
        prefix: 128,
        table: TABLE_LOCAL,
        protocol: KERNEL,
        scope: scope::UNIVERSE,
        kind: kind::LOCAL,
        gateway: None,
        source: None,
        metric: METRIC6,
        device: i.index,
    }
}

fn of_address6(i: &Interface, a: &IfAddr, ip: Ipv6Addr, list: &mut Vec<Shown>) {
    let own = own6(i, a.ip);
    list.push(Shown { metric: 0, ..own });
    // The network is one, however many addresses are in it; that of ::1 is not shown.
    let to = IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask6(a.prefix)));
    let net = Shown { to, prefix: a.prefix, table: TABLE_MAIN, kind: kind::UNICAST, ..own };
    let same = |s: &Shown| (s.to, s.prefix, s.table, s.device) == (to, a.prefix, TABLE_MAIN, i.index);
    if !ip.is_loopback() && !list.iter().any(|s| same(s) && s.metric == METRIC6) {
        list.push(net);
    }
}
