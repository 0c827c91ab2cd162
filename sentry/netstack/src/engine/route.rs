//! The routing table and the choice of source addresses (for IPv6 after RFC 6724).

use std::net::{IpAddr, Ipv6Addr};

use super::addresses::{Prefix, common_bits, scope};
use super::interface::{AddressState, Interface};
use super::time::Time;

/// One route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    pub prefix: Prefix,
    /// None: the destination is on the link.
    pub gateway: Option<IpAddr>,
    pub interface: u32,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    pub metric: u32,
    pub mtu: Option<usize>,
    /// Routes of router advertisements end.
    pub until: Option<Time>,
}

impl Route {
    pub fn on_link(prefix: Prefix, interface: u32) -> Route {
        Route { prefix, gateway: None, interface, source: None, metric: 0, mtu: None, until: None }
    }

    pub fn via(prefix: Prefix, gateway: IpAddr, interface: u32) -> Route {
        Route { gateway: Some(gateway), ..Route::on_link(prefix, interface) }
    }
}

/// All routes, the most specific first and within a length by metric.
#[derive(Default, Debug)]
pub struct Routes {
    table: Vec<Route>,
}

impl Routes {
    /// Adds a route; one of the same prefix, gateway, interface and metric is replaced.
    pub fn add(&mut self, route: Route) {
        self.table.retain(|old| {
            (old.prefix, old.gateway, old.interface, old.metric)
                != (route.prefix, route.gateway, route.interface, route.metric)
        });
        let key = |route: &Route| (std::cmp::Reverse(route.prefix.length), route.metric);
        let at = self.table.partition_point(|old| key(old) <= key(&route));
        self.table.insert(at, route);
    }

    /// Removes the routes for which `gone` says so; true if there were any.
    pub fn remove(&mut self, gone: impl Fn(&Route) -> bool) -> bool {
        let before = self.table.len();
        self.table.retain(|route| !gone(route));
        self.table.len() != before
    }

    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.table.iter()
    }

    /// The best route to a destination, perhaps only through one interface.
    pub fn lookup(
        &self,
        to: IpAddr,
        interface: Option<u32>,
        usable: impl Fn(&Route) -> bool,
    ) -> Option<&Route> {
        self.table.iter().find(|route| {
            interface.is_none_or(|index| index == route.interface)
                && usable(route)
                && route.prefix.contains(to)
        })
    }

    /// When the first route ends.
    pub fn next_end(&self) -> Option<Time> {
        self.table.iter().filter_map(|route| route.until).min()
    }
}

/// Where packets to a destination go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    pub interface: u32,
    pub next_hop: IpAddr,
    pub source: IpAddr,
    /// The largest IP packet, from the route, the interface and path MTU discovery.
    pub mtu: usize,
    /// The destination is an address of this engine.
    pub local: bool,
}

/// The source address for packets to `to` that leave by `out`.
pub fn choose_source(interfaces: &[Interface], out: u32, to: IpAddr) -> Option<IpAddr> {
    match to {
        IpAddr::V4(to) => {
            let on = |only: bool| {
                let mut best = None;
                for interface in interfaces.iter().filter(|i| i.up && (i.index == out) == only) {
                    for address in interface.addresses.iter().filter(|a| a.usable() && a.ip().is_ipv4()) {
                        if best.is_none() || (only && address.prefix.contains(to.into())) {
                            let found = best.is_some_and(|(_, inside)| inside);
                            if !found {
                                best = Some((address.ip(), address.prefix.contains(to.into())));
                            }
                        }
                    }
                }
                best.map(|(ip, _)| ip)
            };
            on(true).or_else(|| on(false))
        }
        IpAddr::V6(to) => {
            let mut best: Option<(Ipv6Addr, (bool, u8, bool, bool, u32))> = None;
            for interface in interfaces.iter().filter(|i| i.up) {
                for address in interface.addresses.iter().filter(|a| a.usable()) {
                    let IpAddr::V6(ip) = address.ip() else { continue };
                    // Link-local and multicast destinations need a source of that link.
                    let same = interface.index == out;
                    if !same && (scope(to) <= 2 || scope(ip) <= 2) {
                        continue;
                    }
                    let rank = if scope(ip) < scope(to) { scope(ip) } else { 64 - scope(ip) };
                    let preferred = address.state != AddressState::Deprecated;
                    let key = (ip == to, rank, preferred, same, common_bits(ip, to).min(64));
                    if best.is_none_or(|(_, old)| key > old) {
                        best = Some((ip, key));
                    }
                }
            }
            best.map(|(ip, _)| ip.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str, length: u8) -> Prefix {
        Prefix::new(text.parse().unwrap(), length)
    }

    #[test]
    fn the_longest_prefix_wins_then_the_metric() {
        let mut routes = Routes::default();
        let default = Route::via(prefix("0.0.0.0", 0), "10.0.0.254".parse().unwrap(), 1);
        routes.add(default);
        routes.add(Route { metric: 10, interface: 3, ..default });
        routes.add(Route::on_link(prefix("10.0.0.0", 24), 1));
        routes.add(Route::on_link(prefix("10.0.0.128", 25), 2));
        let find = |to: &str, only| routes.lookup(to.parse().unwrap(), only, |_| true).map(|r| r.interface);
        assert_eq!(find("10.0.0.5", None), Some(1));
        assert_eq!(find("10.0.0.200", None), Some(2));
        assert_eq!(find("1.1.1.1", None), Some(1));
        assert_eq!(find("1.1.1.1", Some(3)), Some(3));
        assert_eq!(
            routes.lookup("1.1.1.1".parse().unwrap(), None, |r| r.interface != 1).map(|r| r.interface),
            Some(3)
        );
        assert_eq!(find("::1", None), None);
    }
}
