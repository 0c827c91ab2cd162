//! Neighbour discovery (RFC 4861) and stateless addresses (RFC 4862): solicitations, advertisements,
//! duplicate address detection, routers.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::{Icmpv6Packet, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress};

use super::addresses::{Prefix, solicited_node};
use super::checksum::Sum;
use super::interface::{Address, AddressState, RouterMode};
use super::link::{Mac, Medium};
use super::net::{ICMPV6, Net, Packet};
use super::route::Route;
use super::sending::Outgoing;
use super::time::Time;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const DAD_TIME: Duration = Duration::from_secs(1);
const SOLICIT_INTERVAL: Duration = Duration::from_secs(4);
const SOLICITATIONS: u8 = 3;
/// Metric of routes that routers advertise (as Linux's IP6_RT_PRIO_ADDRCONF).
const METRIC: u32 = 1024;
/// Addresses that advertisements may give one interface (Linux's max_addresses).
const MOST_ADDRESSES: usize = 16;

fn mac_of(address: Option<RawHardwareAddress>) -> Option<Mac> {
    let address = address?;
    let bytes: [u8; 6] = address.as_bytes().try_into().ok()?;
    Some(Mac(bytes)).filter(Mac::is_unicast)
}

/// A prefix that a router advertises (RFC 4861, 4.6.2).
struct PrefixOption {
    prefix: Prefix,
    on_link: bool,
    auto: bool,
    valid: Duration,
    preferred: Duration,
}

/// The prefixes among the options of an advertisement, of which there may be several.
fn prefix_options(mut options: &[u8]) -> Vec<PrefixOption> {
    let mut found = Vec::new();
    while let [kind, units, ..] = *options {
        let length = usize::from(units) * 8;
        let Some(option) = options.get(..length).filter(|_| length > 0) else { break };
        if kind == 3
            && let Some(Ok(network)) = option.get(16..32).map(<[u8; 16]>::try_from)
        {
            let seconds = |at: usize| {
                let number =
                    option.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
                Duration::from_secs(number.into())
            };
            found.push(PrefixOption {
                prefix: Prefix::new(Ipv6Addr::from(network).into(), option[2]),
                on_link: option[3] & 0x80 != 0,
                auto: option[3] & 0x40 != 0,
                valid: seconds(4),
                preferred: seconds(8),
            });
        }
        options = &options[length..];
    }
    found.truncate(MOST_ADDRESSES);
    found
}

impl Net {
    fn ndp_output(
        &mut self,
        interface: u32,
        source: Ipv6Addr,
        to: Ipv6Addr,
        kind: u8,
        rest: [u8; 4],
        body: &[u8],
    ) {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend_from_slice(&rest);
        bytes.extend_from_slice(body);
        let mut sum = Sum::pseudo(source.into(), to.into(), ICMPV6, bytes.len());
        sum.add(&bytes);
        bytes[2..4].copy_from_slice(&sum.finish().to_be_bytes());
        let path = self.direct(interface, to.into(), source.into());
        let out = Outgoing { ttl: Some(255), ..Outgoing::new(source.into(), to.into(), ICMPV6) };
        let _ = self.output_bytes(&path, &out, &bytes);
    }

    /// The body of a solicitation or advertisement: the target, and the link address as an option.
    fn ndp_body(target: Ipv6Addr, option: u8, mac: Option<Mac>) -> Vec<u8> {
        let mut body = target.octets().to_vec();
        if let Some(mac) = mac {
            body.extend_from_slice(&[option, 1]);
            body.extend_from_slice(mac.as_bytes());
        }
        body
    }

    pub fn neighbour_solicit(&mut self, interface: u32, target: Ipv6Addr, known: Option<Mac>) {
        let Some(own) = self.interface(interface).map(|i| i.mac) else { return };
        let source = match super::route::choose_source(&self.interfaces, interface, target.into()) {
            Some(IpAddr::V6(source)) => source,
            _ => return,
        };
        let body = Net::ndp_body(target, 1, Some(own));
        let to = if known.is_some() { target } else { solicited_node(target) };
        self.ndp_output(interface, source, to, 135, [0; 4], &body);
    }

    fn neighbour_advertise(&mut self, interface: u32, target: Ipv6Addr, to: Option<Ipv6Addr>) {
        let Some(own) = self.interface(interface).map(|i| i.mac) else { return };
        let flags = if to.is_some() { 0x60 } else { 0x20 };
        let body = Net::ndp_body(target, 2, Some(own));
        self.ndp_output(interface, target, to.unwrap_or(ALL_NODES), 136, [flags, 0, 0, 0], &body);
    }

    /// Begins the detection of duplicates for a new address.
    pub fn detect_duplicate(&mut self, interface: u32, target: Ipv6Addr) {
        let body = Net::ndp_body(target, 1, None);
        self.ndp_output(interface, Ipv6Addr::UNSPECIFIED, solicited_node(target), 135, [0; 4], &body);
    }

    pub fn solicit_routers(&mut self, interface: u32) {
        let Some(own) = self.interface(interface) else { return };
        let (mac, source) = (own.mac, own.link_local().unwrap_or(Ipv6Addr::UNSPECIFIED));
        let mut body = Vec::new();
        if !source.is_unspecified() {
            body.extend_from_slice(&[1, 1]);
            body.extend_from_slice(mac.as_bytes());
        }
        self.ndp_output(interface, source, ALL_ROUTERS, 133, [0; 4], &body);
    }

    /// Starts to look for routers.
    pub fn accept_routers(&mut self, interface: u32) {
        let now = self.now;
        if let Some(own) = self.interface_mut(interface) {
            own.router_mode = RouterMode::Accept;
            own.solicitations = SOLICITATIONS;
            own.solicit_at = Some(now + Duration::from_millis(200));
        }
        self.arm_interfaces();
    }

    /// A message of neighbour discovery; its checksum is verified.
    pub fn ndp_input(&mut self, packet: &Packet) {
        let (IpAddr::V6(source), IpAddr::V6(_)) = (packet.source, packet.destination) else { return };
        // RFC 4861, 6.1 and 7.1: it must come from the link.
        let ethernet = self.interface(packet.interface).is_some_and(|i| i.medium == Medium::Ethernet);
        if packet.ttl != 255 || !ethernet {
            return;
        }
        let Ok(message) = Icmpv6Packet::new_checked(packet.payload()) else { return };
        if message.msg_code() != 0 {
            return;
        }
        let Ok(repr) = NdiscRepr::parse(&message) else { return };
        let interface = packet.interface;
        match repr {
            NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
                self.solicited(interface, source, target_addr, mac_of(lladdr));
            }
            NdiscRepr::NeighborAdvert { flags, target_addr, lladdr } => {
                self.advertised(interface, target_addr, flags, mac_of(lladdr));
            }
            NdiscRepr::RouterAdvert { hop_limit, router_lifetime, lladdr, mtu, .. } => {
                if !source.is_unicast_link_local() {
                    return;
                }
                if let Some(mac) = mac_of(lladdr) {
                    let now = self.now;
                    let key = (interface, IpAddr::V6(source));
                    let waiting = self.neighbours.learn(key, mac, false, true, now);
                    self.neighbours.set_router(key, true);
                    self.send_waiting(interface, mac, waiting);
                }
                if self.interface(interface).is_none_or(|i| i.router_mode != RouterMode::Accept) {
                    return;
                }
                let lifetime = Duration::from_micros(router_lifetime.total_micros());
                self.router(interface, source, lifetime, hop_limit, mtu);
                for option in prefix_options(packet.payload().get(16..).unwrap_or_default()) {
                    self.prefix(interface, option);
                }
                self.changed();
                self.arm_interfaces();
            }
            // Routers solicit nothing of hosts; redirects are not followed (as Linux in a container).
            _ => {}
        }
    }

    fn solicited(&mut self, interface: u32, source: Ipv6Addr, target: Ipv6Addr, mac: Option<Mac>) {
        let Some(own) = self.interface_mut(interface) else { return };
        let Some(address) = own.find(target.into()) else { return };
        if source.is_unspecified() {
            // Somebody else tries to take the address.
            match address.state {
                AddressState::Tentative { .. } => address.state = AddressState::Duplicate,
                AddressState::Duplicate => {}
                _ => self.neighbour_advertise(interface, target, None),
            }
            return;
        }
        if !address.usable() {
            return;
        }
        if let Some(mac) = mac {
            let now = self.now;
            let waiting = self.neighbours.learn((interface, source.into()), mac, false, true, now);
            self.send_waiting(interface, mac, waiting);
            self.arm_neighbours();
        }
        self.neighbour_advertise(interface, target, Some(source));
    }

    fn advertised(&mut self, interface: u32, target: Ipv6Addr, flags: NdiscNeighborFlags, mac: Option<Mac>) {
        let now = self.now;
        let Some(own) = self.interface_mut(interface) else { return };
        if let Some(address) = own.find(target.into()) {
            if matches!(address.state, AddressState::Tentative { .. }) {
                address.state = AddressState::Duplicate;
            }
            return;
        }
        let confirmed = flags.contains(NdiscNeighborFlags::SOLICITED);
        let key = (interface, IpAddr::V6(target));
        // Without an address the one that is known is meant.
        let Some(mac) = mac.or_else(|| self.neighbours.mac(key)) else { return };
        if !flags.contains(NdiscNeighborFlags::OVERRIDE) && self.neighbours.doubts(key, mac) {
            // RFC 4861, 7.2.5: another address, but not to be believed at once.
            return;
        }
        let waiting = self.neighbours.learn(key, mac, confirmed, false, now);
        self.neighbours.set_router(key, flags.contains(NdiscNeighborFlags::ROUTER));
        self.send_waiting(interface, mac, waiting);
        self.arm_neighbours();
    }

    fn router(
        &mut self,
        interface: u32,
        router: Ipv6Addr,
        lifetime: Duration,
        hop_limit: u8,
        mtu: Option<u32>,
    ) {
        let now = self.now;
        let default = Prefix::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        let gateway = Some(IpAddr::V6(router));
        if lifetime.is_zero() {
            let _ = self
                .routes
                .remove(|route| route.prefix == default && route.gateway == gateway && route.until.is_some());
        } else if self.routes.iter().filter(|route| route.until.is_some()).count() < MOST_ADDRESSES * 2 {
            let until = Some(now + lifetime);
            self.routes.add(Route { metric: METRIC, until, ..Route::via(default, router.into(), interface) });
        }
        if let Some(own) = self.interface_mut(interface) {
            own.solicit_at = None;
            if hop_limit != 0 {
                own.hop_limit = hop_limit;
            }
            if let Some(mtu) = mtu.filter(|mtu| (1280..=own.mtu).contains(&(*mtu as usize))) {
                own.mtu6 = mtu as usize;
            }
        }
    }

    fn prefix(&mut self, interface: u32, option: PrefixOption) {
        let PrefixOption { prefix, on_link, auto, valid, preferred } = option;
        let now = self.now;
        let IpAddr::V6(network) = prefix.address else { return };
        if network.is_unicast_link_local() || network.is_multicast() || preferred > valid {
            return;
        }
        let forever = valid >= Duration::from_secs(0xffff_ffff);
        let until = (!forever).then(|| now + valid);
        if on_link {
            let route = Route {
                metric: METRIC,
                until: until.or(Some(Time(u64::MAX))),
                ..Route::on_link(prefix, interface)
            };
            if valid.is_zero() {
                let _ = self
                    .routes
                    .remove(|old| old.prefix == prefix && old.gateway.is_none() && old.until.is_some());
            } else if self.routes.iter().filter(|route| route.until.is_some()).count() < MOST_ADDRESSES * 2 {
                self.routes.add(route);
            }
        }
        if !auto || prefix.length != 64 {
            return;
        }
        let Some(own) = self.interface_mut(interface) else { return };
        let Some(id) = own.mac.as_eui_64() else { return };
        let bits = (network.to_bits() & !u128::from(u64::MAX)) | u128::from(u64::from_be_bytes(id));
        let ip = Ipv6Addr::from_bits(bits);
        let preferred_until = (!forever).then(|| now + preferred);
        if let Some(old) = own.find(ip.into()) {
            if old.valid_until.is_some() {
                // RFC 4862, 5.5.3 e: at most down to two hours by one unauthenticated word.
                let least = now + Duration::from_secs(7200);
                old.valid_until = until.map(|at| at.max(old.valid_until.unwrap_or(at).min(least)));
                old.preferred_until = preferred_until;
                if old.state == AddressState::Deprecated && !preferred.is_zero() {
                    old.state = AddressState::Valid;
                }
            }
        } else if !valid.is_zero() && own.addresses.len() < MOST_ADDRESSES {
            own.addresses.push(Address {
                prefix: Prefix::new(ip.into(), 64),
                state: AddressState::Tentative { until: now + DAD_TIME },
                valid_until: until,
                preferred_until,
            });
            self.join_solicited(interface, ip);
            self.detect_duplicate(interface, ip);
        }
    }

    /// Ends of address lifetimes, of duplicate detection and of routes; the next solicitation.
    pub fn interfaces_due(&mut self) {
        let now = self.now;
        self.interfaces_timer = None;
        let mut changed = self.routes.remove(|route| route.until.is_some_and(|until| until <= now));
        let mut solicit = Vec::new();
        for interface in &mut self.interfaces {
            for address in &mut interface.addresses {
                if matches!(address.state, AddressState::Tentative { until } if until <= now) {
                    address.state = AddressState::Valid;
                    changed = true;
                }
                if address.state == AddressState::Valid && address.preferred_until.is_some_and(|at| at <= now)
                {
                    address.state = AddressState::Deprecated;
                    changed = true;
                }
            }
            let before = interface.addresses.len();
            interface.addresses.retain(|address| address.valid_until.is_none_or(|at| at > now));
            changed |= before != interface.addresses.len();
            if interface.solicit_at.is_some_and(|at| at <= now) {
                interface.solicitations = interface.solicitations.saturating_sub(1);
                interface.solicit_at = (interface.solicitations > 0).then(|| now + SOLICIT_INTERVAL);
                solicit.push(interface.index);
            }
        }
        for index in solicit {
            self.solicit_routers(index);
        }
        self.multicast_due();
        if changed {
            self.changed();
        }
        self.arm_interfaces();
    }

    /// When duplicate detection of an address that begins now ends.
    pub fn detection_ends(&self) -> Time {
        self.now + DAD_TIME
    }
}
