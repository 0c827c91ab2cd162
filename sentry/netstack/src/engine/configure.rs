//! An interface as whoever configures it wants it: what differs is changed, the rest goes on undisturbed.

use std::net::IpAddr;
use std::sync::Arc;

use super::Engine;
use super::addresses::Prefix;
use super::route::Route;
use crate::interface::Traffic;

impl Engine {
    /// Brings an interface to this state. `routes`: beyond those to the networks of the addresses.
    pub fn configure(&mut self, index: u32, up: bool, mtu: usize, addresses: &[Prefix], routes: &[Route]) {
        let Some(interface) = self.net.interface(index) else { return };
        let (was_up, old_mtu) = (interface.up, interface.mtu);
        let old: Vec<Prefix> = interface.addresses.iter().map(|address| address.prefix).collect();
        if was_up != up {
            let _ = self.set_up(index, up);
        }
        let mtu = mtu.clamp(576, 65_535);
        if old_mtu != mtu {
            let _ = self.set_mtu(index, mtu);
        }
        for gone in old.iter().filter(|prefix| !addresses.contains(prefix)) {
            let _ = self.remove_address(index, gone.address);
        }
        for new in addresses.iter().filter(|prefix| !old.contains(prefix)) {
            let added = self.add_address(index, *new, false).is_ok();
            if let (true, true, IpAddr::V4(ip)) = (added, up, new.address) {
                self.net.arp_announce(index, ip);
            }
        }
        let wanted = |route: &Route| {
            routes.contains(route)
                || route.gateway.is_none()
                    && addresses.iter().any(|a| *route == Route { source: None, ..Route::on_link(*a, index) })
        };
        let strange = |route: &Route| route.interface == index && route.until.is_none() && !wanted(route);
        self.remove_route(strange);
        for route in routes {
            if !self.net.routes.iter().any(|old| old == route) {
                self.add_route(*route);
            }
        }
    }

    /// Counts what goes through an interface there too, for the tables that guests read.
    pub fn count_in(&mut self, index: u32, traffic: &Arc<Traffic>) {
        if let Some(interface) = self.net.interface_mut(index)
            && interface.traffic.is_none()
        {
            interface.traffic = Some(traffic.clone());
        }
    }
}
