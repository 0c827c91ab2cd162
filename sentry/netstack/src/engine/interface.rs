//! Interfaces of the engine and their addresses. What changes them is `Engine::add_address` and kin,
//! router advertisements (`ndp`) and memberships (`multicast`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::addresses::Prefix;
use super::link::{Capabilities, LinkEndpoint, Mac, Medium};
use super::multicast::Memberships;
use super::time::Time;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressState {
    /// Duplicate address detection runs until then.
    Tentative {
        until: Time,
    },
    Valid,
    /// Not for new connections.
    Deprecated,
    /// Somebody else has it.
    Duplicate,
}

#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub prefix: Prefix,
    pub state: AddressState,
    /// For addresses of router advertisements: when they end.
    pub valid_until: Option<Time>,
    pub preferred_until: Option<Time>,
}

impl Address {
    pub fn ip(&self) -> IpAddr {
        self.prefix.address
    }

    /// May be the source or destination of packets.
    pub fn usable(&self) -> bool {
        matches!(self.state, AddressState::Valid | AddressState::Deprecated)
    }
}

/// How router advertisements are dealt with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RouterMode {
    /// Routes and addresses are given by the embedder.
    #[default]
    Ignore,
    /// Solicit routers; take default routes, MTU and autonomous prefixes.
    Accept,
}

/// An interface.
pub struct Interface {
    pub index: u32,
    pub link: Arc<dyn LinkEndpoint>,
    pub medium: Medium,
    pub mtu: usize,
    /// The MTU for IPv6, which a router may lower.
    pub mtu6: usize,
    pub mac: Mac,
    pub capabilities: Capabilities,
    pub up: bool,
    pub addresses: Vec<Address>,
    pub groups: Memberships,
    pub router_mode: RouterMode,
    /// The hop limit that routers advertise.
    pub hop_limit: u8,
    /// Router solicitations still to be sent, and when.
    pub solicitations: u8,
    pub solicit_at: Option<Time>,
    /// Frames in, out, and dropped on their way in.
    pub counters: Counters,
    /// The same for guests.
    pub traffic: Option<Arc<crate::interface::Traffic>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_dropped: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_dropped: u64,
    pub multicast: u64,
}

impl Interface {
    pub fn new(index: u32, link: Arc<dyn LinkEndpoint>) -> Interface {
        let mtu = link.mtu().clamp(576, 65535);
        Interface {
            index,
            medium: link.medium(),
            mtu,
            mtu6: mtu,
            mac: link.mac(),
            capabilities: link.capabilities(),
            link,
            up: true,
            addresses: Vec::new(),
            groups: Memberships::default(),
            router_mode: RouterMode::Ignore,
            hop_limit: 64,
            solicitations: 0,
            solicit_at: None,
            counters: Counters::default(),
            traffic: None,
        }
    }

    pub fn mtu_of(&self, address: IpAddr) -> usize {
        if address.is_ipv4() { self.mtu } else { self.mtu6 }
    }

    pub fn has(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.ip() == ip && address.usable())
    }

    /// The address entry, whatever its state.
    pub fn find(&mut self, ip: IpAddr) -> Option<&mut Address> {
        self.addresses.iter_mut().find(|address| address.ip() == ip)
    }

    /// True for the limited broadcast and the broadcast addresses of this interface's networks.
    pub fn is_broadcast(&self, ip: Ipv4Addr) -> bool {
        ip.is_broadcast() || self.addresses.iter().any(|address| address.prefix.broadcast() == Some(ip))
    }

    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|address| match address.ip() {
            IpAddr::V6(ip) if ip.is_unicast_link_local() && address.usable() => Some(ip),
            _ => None,
        })
    }
}
