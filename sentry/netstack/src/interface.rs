//! Interfaces, their addresses, and routes.

use crate::addr::{broadcast_of, same_prefix};
use crate::error::{NetError, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, Weak};

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IfAddr {
    pub ip: IpAddr,
    pub prefix: u8,
    pub broadcast: Option<Ipv4Addr>,
}

/// Bytes and packets that went through an interface.
#[derive(Debug, Default)]
pub struct Traffic {
    pub received_bytes: AtomicU64,
    pub received_packets: AtomicU64,
    pub sent_bytes: AtomicU64,
    pub sent_packets: AtomicU64,
}

/// A network interface.
#[derive(Clone, Debug)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    pub up: bool,
    /// The cable is plugged in.
    pub carrier: bool,
    pub loopback: bool,
    pub mtu: u32,
    pub hardware: [u8; 6],
    pub addrs: Vec<IfAddr>,
    pub traffic: Arc<Traffic>,
}

/// A line of the routing table, beside what addresses make by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLine {
    pub to: IpAddr,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
    pub device: u32,
    pub source: Option<IpAddr>,
    pub metric: u32,
    /// As `RTPROT_*`: who put it there.
    pub protocol: u8,
}

/// The way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub device: u32,
    /// The address packets come from.
    pub source: IpAddr,
    /// The destination is this stack.
    pub local: bool,
    pub broadcast: bool,
    pub multicast: bool,
    pub gateway: Option<IpAddr>,
    pub mtu: u32,
}

#[derive(Debug, Default)]
struct Table {
    list: Vec<Interface>,
    routes: Vec<RouteLine>,
    next: u32,
}

/// Whoever wants to know of each change of interfaces, addresses and routes. Told without the table's lock.
pub trait Watcher: Send + Sync {
    fn changed(&self);
}

/// All interfaces of a stack.
pub struct Interfaces {
    table: RwLock<Table>,
    watcher: RwLock<Option<Weak<dyn Watcher>>>,
}

impl std::fmt::Debug for Interfaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.read().fmt(f)
    }
}

/// Index of the loopback interface.
pub const LOOPBACK: u32 = 1;

impl Interfaces {
    pub(crate) fn new(loopback_up: bool) -> Interfaces {
        let lo = Interface {
            index: LOOPBACK,
            name: "lo".into(),
            up: false,
            carrier: true,
            loopback: true,
            mtu: 65536,
            hardware: [0; 6],
            addrs: Vec::new(),
            traffic: Arc::default(),
        };
        let table = RwLock::new(Table { list: vec![lo], routes: Vec::new(), next: 2 });
        let all = Interfaces { table, watcher: RwLock::default() };
        if loopback_up {
            let _ = all.set_up(LOOPBACK, true);
        }
        all
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the table and tells of it.
    fn edit<R>(&self, act: impl FnOnce(&mut Table) -> Result<R>) -> Result<R> {
        let result = act(&mut self.table.write().unwrap_or_else(PoisonError::into_inner))?;
        let watcher = self.watcher.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(watcher) = watcher.and_then(|watcher| watcher.upgrade()) {
            watcher.changed();
        }
        Ok(result)
    }

    /// Sets who is told of changes.
    pub(crate) fn set_watcher(&self, watcher: Weak<dyn Watcher>) {
        *self.watcher.write().unwrap_or_else(PoisonError::into_inner) = Some(watcher);
    }

    /// All interfaces, by index.
    pub fn list(&self) -> Vec<Interface> {
        self.read().list.clone()
    }
    pub fn by_name(&self, name: &[u8]) -> Option<Interface> {
        self.read().list.iter().find(|i| i.name.as_bytes() == name).cloned()
    }
    pub fn by_index(&self, index: u32) -> Option<Interface> {
        self.read().list.iter().find(|i| i.index == index).cloned()
    }
    /// The lines that were put into the routing table.
    pub fn routes(&self) -> Vec<RouteLine> {
        self.read().routes.clone()
    }

    /// Adds an interface; its index is chosen unless given and free.
    pub fn add(&self, mut new: Interface) -> u32 {
        let add = |t: &mut Table| {
            if new.index == 0 || t.list.iter().any(|i| i.index == new.index) {
                new.index = t.next;
            }
            t.next = t.next.max(new.index + 1);
            let index = new.index;
            t.list.push(new);
            Ok(index)
        };
        self.edit(add).unwrap_or(0)
    }

    /// Removes an interface with its addresses and routes. ENODEV.
    pub fn remove(&self, index: u32) -> Result<()> {
        self.edit(|t| {
            let at = t.list.iter().position(|i| i.index == index && !i.loopback).ok_or(NetError::NoDevice)?;
            t.list.remove(at);
            t.routes.retain(|r| r.device != index);
            Ok(())
        })
    }

    /// Changes something of an interface. ENODEV.
    fn with(&self, index: u32, act: impl FnOnce(&mut Interface) -> Result<()>) -> Result<()> {
        self.edit(|t| act(t.list.iter_mut().find(|i| i.index == index).ok_or(NetError::NoDevice)?))
    }

    pub fn rename(&self, index: u32, name: &str) -> Result<()> {
        self.with(index, |i| {
            name.clone_into(&mut i.name);
            Ok(())
        })
    }

    /// The cable was pulled or is back.
    pub fn set_carrier(&self, index: u32, carrier: bool) -> Result<()> {
        self.with(index, |i| {
            i.carrier = carrier;
            Ok(())
        })
    }

    /// Up or down. Loopback has its own addresses from the first time on. ENODEV.
    pub fn set_up(&self, index: u32, up: bool) -> Result<()> {
        self.edit(|t| {
            let i = t.list.iter_mut().find(|i| i.index == index).ok_or(NetError::NoDevice)?;
            i.up = up;
            if up && i.loopback {
                let v4 = IfAddr { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), prefix: 8, broadcast: None };
                let v6 = IfAddr { ip: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128, broadcast: None };
                if !i.addrs.iter().any(|a| a.ip.is_ipv4()) {
                    i.addrs.push(v4);
                }
                if !i.addrs.contains(&v6) {
                    i.addrs.push(v6);
                }
            }
            if !up {
                i.addrs.retain(|a| a.ip.is_ipv4());
                t.routes.retain(|r| r.device != index);
            }
            Ok(())
        })
    }

    pub fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        self.with(index, |i| {
            i.mtu = mtu;
            Ok(())
        })
    }

    /// EEXIST, ENODEV.
    pub fn add_address(&self, index: u32, addr: IfAddr) -> Result<()> {
        self.with(index, |i| {
            if i.addrs.iter().any(|a| a.ip == addr.ip && a.prefix == addr.prefix) {
                return Err(NetError::Exists);
            }
            i.addrs.push(addr);
            Ok(())
        })
    }

    /// EADDRNOTAVAIL, ENODEV.
    pub fn remove_address(&self, index: u32, ip: IpAddr, prefix: u8) -> Result<()> {
        self.with(index, |i| {
            let before = i.addrs.len();
            i.addrs.retain(|a| a.ip != ip || a.prefix != prefix);
            if i.addrs.len() == before { Err(NetError::AddressNotAvailable) } else { Ok(()) }
        })
    }

    /// EEXIST, ENODEV, ENETDOWN.
    pub fn add_route(&self, line: RouteLine) -> Result<()> {
        self.edit(|t| {
            let i = t.list.iter().find(|i| i.index == line.device).ok_or(NetError::NoDevice)?;
            if !i.up {
                return Err(NetError::NetworkDown);
            }
            let same = |r: &RouteLine| (r.to, r.prefix, r.metric) == (line.to, line.prefix, line.metric);
            if t.routes.iter().any(same) {
                return Err(NetError::Exists);
            }
            t.routes.push(line);
            Ok(())
        })
    }

    /// ESRCH
    pub fn remove_route(&self, to: IpAddr, prefix: u8, gateway: Option<IpAddr>, device: u32) -> Result<()> {
        let fits = |r: &RouteLine| {
            r.to == to
                && r.prefix == prefix
                && gateway.is_none_or(|g| r.gateway == Some(g))
                && (device == 0 || r.device == device)
        };
        self.edit(|t| {
            let at = t.routes.iter().position(fits).ok_or(NetError::NotFound)?;
            t.routes.remove(at);
            Ok(())
        })
    }

    /// The interface that has an address; all of its network for loopback.
    pub fn local(&self, ip: IpAddr) -> Option<u32> {
        let t = self.read();
        for i in t.list.iter().filter(|i| i.up) {
            let own =
                |a: &IfAddr| a.ip == ip || (i.loopback && ip.is_ipv4() && same_prefix(a.ip, ip, a.prefix));
            if i.addrs.iter().any(own) {
                return Some(i.index);
            }
        }
        None
    }

    /// Addresses that a datagram socket may be bound to without anybody having them.
    pub(crate) fn joined_or_broadcast(&self, ip: IpAddr) -> bool {
        ip.is_multicast() || self.is_broadcast(ip)
    }

    fn is_broadcast(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(v4) = ip else { return false };
        if v4.is_broadcast() {
            return true;
        }
        let t = self.read();
        t.list.iter().filter(|i| i.up).flat_map(|i| &i.addrs).any(|a| match a.ip {
            IpAddr::V4(own) => a.prefix < 31 && broadcast_of(own, a.prefix) == v4,
            IpAddr::V6(_) => false,
        })
    }

    /// The address of an interface for packets to `to`: one of its network, else one of the gateway's, else one that
    /// is known beyond the link if the destination is, else the first of the family.
    fn source(i: &Interface, to: IpAddr, gateway: Option<IpAddr>) -> Option<IpAddr> {
        let link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let family: Vec<&IfAddr> = i.addrs.iter().filter(|a| a.ip.is_ipv4() == to.is_ipv4()).collect();
        let near = |other: IpAddr| family.iter().find(|a| same_prefix(a.ip, other, a.prefix));
        near(to)
            .or_else(|| gateway.filter(|g| !link_local(*g)).and_then(near))
            .or_else(|| family.iter().find(|a| link_local(a.ip) == link_local(to)))
            .or(family.first())
            .map(|a| a.ip)
    }

    /// The way to an address. ENETUNREACH, ENODEV.
    pub fn route(&self, to: IpAddr, source: Option<IpAddr>, device: u32) -> Result<Route> {
        self.route_by(to, source, device, false)
    }

    /// As `route`; `direct`: only to what is on a link (`MSG_DONTROUTE`).
    pub fn route_by(&self, to: IpAddr, source: Option<IpAddr>, device: u32, direct: bool) -> Result<Route> {
        let local = self.local(to);
        let broadcast = self.is_broadcast(to);
        let t = self.read();
        if let Some(index) = local.filter(|_| !broadcast) {
            let lo = t.list.iter().find(|i| i.index == index).ok_or(NetError::NetworkUnreachable)?;
            if device != 0 && device != index && device != LOOPBACK {
                return Err(NetError::NetworkUnreachable);
            }
            let own = if lo.loopback { Self::source(lo, to, None).unwrap_or(to) } else { to };
            return Ok(Route {
                device: if lo.loopback { index } else { LOOPBACK },
                source: source.unwrap_or(own),
                local: true,
                broadcast: false,
                multicast: false,
                gateway: None,
                // What is for this host goes by its loopback interface, whoever has the address.
                mtu: t.list.iter().find(|i| i.loopback).map_or(65536, |i| i.mtu),
            });
        }
        let multicast = to.is_multicast();
        // (prefix, metric, interface, gateway, source)
        let mut ways: Vec<(u8, u32, &Interface, Option<IpAddr>, Option<IpAddr>)> = Vec::new();
        for i in t.list.iter().filter(|i| i.up && (device == 0 || device == i.index)) {
            for a in i.addrs.iter().filter(|a| same_prefix(a.ip, to, a.prefix) && a.prefix > 0) {
                ways.push((a.prefix, 0, i, None, Some(a.ip)));
            }
            let usable = |r: &&RouteLine| r.device == i.index && !(direct && r.gateway.is_some());
            for r in t.routes.iter().filter(usable).filter(|r| same_prefix(r.to, to, r.prefix)) {
                ways.push((r.prefix, r.metric, i, r.gateway, r.source));
            }
            if device != 0 && !(multicast && to.is_ipv6() && i.loopback) {
                // A socket that is bound to a device reaches everything through it.
                ways.push((0, u32::MAX, i, None, None));
            }
            // Every interface that can multicast has the multicast network of IPv6; loopback cannot.
            if multicast && to.is_ipv6() && !i.loopback {
                ways.push((8, 256, i, None, None));
            }
        }
        let mut best = ways.into_iter().max_by_key(|w| (w.0, u32::MAX - w.1));
        // A multicast or broadcast of IPv4 goes where its source address is.
        if best.is_none() && (multicast || broadcast) {
            if let Some(from) = source.filter(IpAddr::is_ipv4) {
                for i in t.list.iter().filter(|i| i.up && i.addrs.iter().any(|a| a.ip == from)) {
                    best = Some((0, 0, i, None, Some(from)));
                }
            }
        }
        let (_, _, i, gateway, from) = best.ok_or(NetError::NetworkUnreachable)?;
        let from = source.or(from).or_else(|| Self::source(i, to, gateway));
        let from = from.ok_or(NetError::NetworkUnreachable)?;
        Ok(Route {
            device: i.index,
            source: from,
            local: i.loopback,
            broadcast,
            multicast,
            gateway,
            mtu: i.mtu,
        })
    }

    /// Counts what was handed over locally as one packet out and in.
    pub(crate) fn count_local(&self, bytes: u64) {
        let t = self.read();
        if let Some(lo) = t.list.first() {
            lo.traffic.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
            lo.traffic.received_bytes.fetch_add(bytes, Ordering::Relaxed);
            lo.traffic.sent_packets.fetch_add(1, Ordering::Relaxed);
            lo.traffic.received_packets.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[test]
    fn loopback_gets_its_addresses_when_it_comes_up() {
        let all = Interfaces::new(false);
        assert_eq!(all.route(ip("127.0.0.1"), None, 0), Err(NetError::NetworkUnreachable));
        all.set_up(LOOPBACK, true).unwrap();
        let r = all.route(ip("127.9.9.9"), None, 0).unwrap();
        assert!(r.local && r.source == ip("127.0.0.1"));
        assert!(all.route(ip("::1"), None, 0).unwrap().local);
        assert_eq!(all.route(ip("10.0.0.1"), None, 0), Err(NetError::NetworkUnreachable));
        assert!(all.route(ip("127.255.255.255"), None, 0).unwrap().broadcast);
    }

    #[test]
    fn the_longest_prefix_wins() {
        let all = Interfaces::new(true);
        let a = IfAddr { ip: ip("10.0.0.2"), prefix: 24, broadcast: None };
        let eth = Interface {
            index: 0,
            name: "eth0".into(),
            up: true,
            carrier: true,
            loopback: false,
            mtu: 1500,
            hardware: [2, 0, 0, 0, 0, 1],
            addrs: vec![a],
            traffic: Arc::default(),
        };
        let index = all.add(eth);
        let gateway = Some(ip("10.0.0.1"));
        let line = RouteLine {
            to: ip("0.0.0.0"),
            prefix: 0,
            gateway,
            device: index,
            source: None,
            metric: 0,
            protocol: 3,
        };
        all.add_route(line).unwrap();
        assert_eq!(all.add_route(line), Err(NetError::Exists));
        let far = all.route(ip("8.8.8.8"), None, 0).unwrap();
        assert_eq!((far.gateway, far.source, far.local), (gateway, ip("10.0.0.2"), false));
        assert_eq!(all.route_by(ip("8.8.8.8"), None, 0, true), Err(NetError::NetworkUnreachable));
        assert!(all.route_by(ip("10.0.0.9"), None, 0, true).is_ok());
        let near = all.route(ip("10.0.0.9"), None, 0).unwrap();
        assert_eq!((near.gateway, near.device), (None, index));
        let own = all.route(ip("10.0.0.2"), None, 0).unwrap();
        assert!(own.local && own.source == ip("10.0.0.2"));
        all.remove_route(ip("0.0.0.0"), 0, None, 0).unwrap();
        assert_eq!(all.route(ip("8.8.8.8"), None, 0), Err(NetError::NetworkUnreachable));
    }
}
