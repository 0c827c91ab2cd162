//! The network layer's state and its way out: from a transport header and payload to a frame on a link.
//! The ways in are `ipv4` and `ipv6`.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use crate::extensions::Between;

use super::addresses::is_broadcast;
use super::chunk::Chunk;
use super::error::{Error, PacketError};
use super::events::{Datagram, Event, Upper};
use super::frame::{RxChecksum, RxFrame, TxFrame};
use super::interface::{Interface, RouterMode};
use super::link::{Mac, Medium};
use super::memory::Memory;
use super::neighbour::{Change, Neighbours, Resolution};
use super::pmtu::PathMtus;
use super::random::{KeyedState, Random};
use super::reassembly::Reassembly;
use super::route::{Path, Routes, choose_source};
use super::sending::Outgoing;
use super::slab::Handle;
use super::tap::Taps;
use super::time::Time;
use super::timers::{TimerKey, Timers};

pub const ICMP: u8 = 1;
pub const IGMP: u8 = 2;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
pub const FRAGMENT: u8 = 44;

/// Frames that may wait to come back to this engine.
const LOOPBACK_QUEUE: usize = 4096;
/// Counters of identifications.
const IDENTS: usize = 1024;

/// Limits on what the engine answers by itself: a bucket that fills with time.
#[derive(Debug)]
pub struct RateLimit {
    tokens: u32,
    most: u32,
    every_micros: u64,
    last: Time,
}

impl RateLimit {
    pub fn new(per_second: u32, burst: u32) -> RateLimit {
        RateLimit {
            tokens: burst,
            most: burst,
            every_micros: 1_000_000 / u64::from(per_second),
            last: Time(0),
        }
    }

    pub fn allow(&mut self, now: Time) -> bool {
        let earned = now.since(self.last).as_micros() as u64 / self.every_micros;
        if earned > 0 {
            self.tokens = u64::from(self.tokens).saturating_add(earned).min(u64::from(self.most)) as u32;
            self.last = now;
        }
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        true
    }
}

/// A received packet whose network header has been dealt with.
#[derive(Clone, Debug)]
pub struct Packet {
    pub interface: u32,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub ttl: u8,
    pub tos: u8,
    /// From the network header on.
    pub data: Chunk,
    /// Where the transport header begins in `data`.
    pub transport: usize,
    pub checksum: RxChecksum,
    pub segment: Option<u16>,
    /// It was sent to a group or to everybody.
    pub multicast: bool,
    /// The largest fragment it came in, with its headers; 0: it came whole.
    pub fragment: u32,
}

impl Packet {
    pub fn payload(&self) -> &[u8] {
        self.data.get(self.transport..).unwrap_or_default()
    }

    /// What stands between the network header and the transport's.
    pub fn between(&self) -> Option<Between> {
        let fixed = if self.source.is_ipv4() { 20 } else { 40 };
        let bytes = self.data.get(fixed..self.transport).filter(|bytes| !bytes.is_empty())?;
        Some(Between { first: self.data[6], bytes: bytes.into() })
    }

    /// As it is told to an endpoint that has no ports.
    pub fn datagram(&self, payload: Chunk, arrived: Time) -> Datagram {
        Datagram {
            source: self.source,
            source_port: 0,
            destination: self.destination,
            destination_port: 0,
            interface: self.interface,
            ttl: self.ttl,
            tos: self.tos,
            flow: self.flow(),
            fragment: self.fragment,
            between: self.between(),
            payload,
            header: 0,
            arrived,
            segment: None,
        }
    }

    /// The flow label of IPv6.
    pub fn flow(&self) -> u32 {
        match (self.source, &self.data[..]) {
            (IpAddr::V6(_), [_, a, b, c, ..]) => u32::from_be_bytes([0, a & 15, *b, *c]),
            _ => 0,
        }
    }
}

/// Counts of messages of ICMP, by their type; those above share the last place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kinds([u64; 20]);

impl Kinds {
    pub fn count(&mut self, kind: u8) {
        let last = self.0.len() - 1;
        self.0[usize::from(kind).min(last)] += 1;
    }
    /// Those of a type of ICMP for IPv4.
    pub fn of(&self, kind: u8) -> u64 {
        self.0.get(usize::from(kind)).copied().unwrap_or(0)
    }
    pub fn add(&mut self, others: &Kinds) {
        self.0.iter_mut().zip(others.0).for_each(|(own, other)| *own += other);
    }
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// What is counted of a family.
#[derive(Clone, Copy, Debug, Default)]
pub struct FamilyStats {
    pub in_packets: u64,
    pub in_header_errors: u64,
    pub in_not_ours: u64,
    pub in_unknown_protocol: u64,
    pub in_delivered: u64,
    pub out_packets: u64,
    /// Packets of the network, which may be less than what was to be sent.
    pub transmitted: u64,
    pub fragments_received: u64,
    pub reassembled: u64,
    pub reassembly_failed: u64,
    pub reassembly_timed_out: u64,
    pub fragmented: u64,
    pub fragmentation_failed: u64,
    pub fragments_created: u64,
    pub icmp_in: Kinds,
    pub icmp_out: Kinds,
    pub icmp_checksum_errors: u64,
    pub udp_in: u64,
    pub udp_out: u64,
    pub udp_no_port: u64,
    /// Datagrams that a socket had no room for.
    pub udp_no_room: u64,
    pub udp_checksum_errors: u64,
}

/// Counts for /proc/net/snmp and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub v4: FamilyStats,
    pub v6: FamilyStats,
    pub tcp_active_opens: u64,
    pub tcp_passive_opens: u64,
    /// Connections that ended before they were open.
    pub tcp_failed_attempts: u64,
    /// Connections that ended without a goodbye.
    pub tcp_broken: u64,
    pub tcp_in: u64,
    pub tcp_out: u64,
    pub tcp_retransmitted: u64,
    pub tcp_resets_out: u64,
    pub tcp_checksum_errors: u64,
    /// Segments that were dropped because connections hold all there may be held.
    pub tcp_no_memory: u64,
    pub cookies_sent: u64,
    pub cookies_ok: u64,
    pub cookies_failed: u64,
    pub listen_overflows: u64,
}

impl Stats {
    /// The counts of an address's family.
    pub fn of(&mut self, ip: IpAddr) -> &mut FamilyStats {
        if ip.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

/// What TCP offers and takes (the sysctls tcp_timestamps, tcp_sack, tcp_window_scaling).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpFeatures {
    pub timestamps: bool,
    pub sack: bool,
    pub scaling: bool,
}

impl Default for TcpFeatures {
    fn default() -> TcpFeatures {
        TcpFeatures { timestamps: true, sack: true, scaling: true }
    }
}

/// Interfaces, routes, neighbours and all else below the transport protocols.
pub struct Net {
    pub now: Time,
    pub random: Box<dyn Random>,
    pub hash: KeyedState,
    pub interfaces: Vec<Interface>,
    pub routes: Routes,
    pub neighbours: Neighbours,
    pub pmtu: PathMtus,
    pub reassembly: Reassembly,
    pub timers: Timers,
    pub interfaces_timer: Option<Time>,
    pub events: Vec<Event>,
    pub upper: Option<Arc<dyn Upper>>,
    /// Errors for sockets that arose while something else was done.
    pub errors: Vec<PacketError>,
    pub loopback: VecDeque<(u32, RxFrame)>,
    /// While frames that came together are looked at: connections that acknowledge when all have been.
    pub late: Option<Vec<Handle>>,
    pub icmp_limit: RateLimit,
    pub echo_ignored: bool,
    pub stats: Stats,
    pub default_ttl: u8,
    /// What the engine's clock has to be added to for nanoseconds since 1970.
    pub epoch: u64,
    /// Changes with every change of interfaces, addresses, routes: cached paths are asked again.
    pub generation: u64,
    /// Frames are shown to these (packet sockets).
    pub taps: Taps,
    pub memory: Memory,
    pub tcp_features: TcpFeatures,
    identifications: Vec<u16>,
}

impl Net {
    pub fn new(mut random: Box<dyn Random>) -> Net {
        let hash = KeyedState::new(&mut *random);
        let mut idents = vec![0; IDENTS * 2];
        random.fill(&mut idents);
        let identifications = idents.chunks_exact(2).map(|b| u16::from_ne_bytes([b[0], b[1]])).collect();
        Net {
            now: Time(0),
            random,
            hash,
            interfaces: Vec::new(),
            routes: Routes::default(),
            neighbours: Neighbours::default(),
            pmtu: PathMtus::new(hash),
            reassembly: Reassembly::default(),
            timers: Timers::default(),
            interfaces_timer: None,
            events: Vec::new(),
            upper: None,
            errors: Vec::new(),
            loopback: VecDeque::new(),
            late: None,
            icmp_limit: RateLimit::new(1000, 50),
            echo_ignored: false,
            stats: Stats::default(),
            default_ttl: 64,
            epoch: 0,
            generation: 1,
            taps: Taps::default(),
            memory: Memory::default(),
            tcp_features: TcpFeatures::default(),
            identifications,
        }
    }

    /// Nanoseconds since 1970.
    pub fn realtime(&self) -> u64 {
        self.now.0.saturating_add(self.epoch)
    }

    /// The identification of an unfragmented packet: counters by pairs of addresses, so that nobody can
    /// tell from his own packets how much is sent to others (RFC 7739 for IPv6 has the reasons).
    pub(super) fn next_ident(&mut self, source: Ipv4Addr, destination: Ipv4Addr) -> u16 {
        let pair = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
        let index = self.hash.hash_one(pair) as usize % IDENTS;
        match self.identifications.get_mut(index) {
            Some(ident) => {
                *ident = ident.wrapping_add(1);
                *ident
            }
            None => 0,
        }
    }

    pub fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    pub fn interface_mut(&mut self, index: u32) -> Option<&mut Interface> {
        self.interfaces.iter_mut().find(|interface| interface.index == index)
    }

    /// True if the address is one of ours (any interface: the weak host model, as Linux).
    pub fn is_local(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.interfaces.iter().any(|interface| interface.has(ip))
    }

    /// True if the address stands for all hosts of a network.
    pub fn is_broadcast(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => ip.is_broadcast() || self.interfaces.iter().any(|i| i.is_broadcast(ip)),
            IpAddr::V6(_) => false,
        }
    }

    /// Where packets to `to` go. `from` is the source the caller has bound, `interface` the one it is bound to.
    pub fn path(&self, to: IpAddr, from: Option<IpAddr>, interface: Option<u32>) -> Result<Path, Error> {
        self.path_by(to, from, interface, false)
    }

    /// As `path`; `direct`: only to what is on a link (`MSG_DONTROUTE`).
    pub fn path_by(
        &self,
        to: IpAddr,
        from: Option<IpAddr>,
        interface: Option<u32>,
        direct: bool,
    ) -> Result<Path, Error> {
        if let Some(index) = interface
            && !self.interface(index).is_some_and(|i| i.up)
        {
            return Err(Error::InterfaceDown);
        }
        if self.is_local(to) {
            let owner = self.interfaces.iter().find(|i| i.has(to)).or(self.interfaces.first());
            let index = owner.map_or(0, |i| i.index);
            return Ok(Path {
                interface: index,
                next_hop: to,
                source: from.unwrap_or(to),
                mtu: 65535,
                local: true,
            });
        }
        let up = |index: u32| self.interface(index).is_some_and(|i| i.up);
        let route = self
            .routes
            .lookup(to, interface, |route| up(route.interface) && !(direct && route.gateway.is_some()));
        let everybody = to.is_multicast() || is_broadcast(to);
        let (index, next_hop) = match (route, interface) {
            (Some(route), _) if !everybody => (route.interface, route.gateway.unwrap_or(to)),
            (Some(route), _) => (route.interface, to),
            (None, Some(index)) if everybody => (index, to),
            // Without a route a bound interface reaches its link (as Linux with SO_BINDTODEVICE).
            (None, Some(index)) => (index, to),
            (None, None) if everybody => {
                let able = |i: &&Interface| i.up && i.medium != Medium::Loopback;
                (self.interfaces.iter().find(able).ok_or(Error::NetworkUnreachable)?.index, to)
            }
            (None, None) => return Err(Error::NetworkUnreachable),
        };
        let out = self.interface(index).ok_or(Error::NetworkUnreachable)?;
        let wanted = from.or(route.and_then(|route| route.source));
        let source = wanted
            .or_else(|| choose_source(&self.interfaces, index, to))
            .ok_or(Error::AddressNotAvailable)?;
        let mut mtu = out.mtu_of(to);
        if let Some(limit) = route.and_then(|route| route.mtu) {
            mtu = mtu.min(limit);
        }
        if let Some(limit) = self.pmtu.get(to, self.now) {
            mtu = mtu.min(limit);
        }
        Ok(Path { interface: index, next_hop, source, mtu, local: false })
    }

    /// True if `to` means everybody on that interface's network.
    fn frame_broadcast(&self, interface: u32, to: IpAddr) -> bool {
        match to {
            IpAddr::V4(ip) => self.interface(interface).is_some_and(|i| i.is_broadcast(ip)),
            IpAddr::V6(_) => false,
        }
    }

    /// Gives an IP packet to the link of the path.
    pub fn link_output(&mut self, path: &Path, destination: IpAddr, mut frame: TxFrame) -> Result<(), Error> {
        let now = self.now;
        let Some(interface) = self.interface(path.interface) else {
            return if path.local { self.loop_back(0, frame) } else { Err(Error::InterfaceDown) };
        };
        if path.local || interface.medium == Medium::Loopback {
            return self.loop_back(path.interface, frame);
        }
        if !interface.up {
            return Err(Error::InterfaceDown);
        }
        if interface.medium == Medium::Ip {
            self.transmit(path.interface, frame);
            return Ok(());
        }
        let mac = match destination {
            IpAddr::V4(ip) if ip.is_multicast() => {
                let octets = ip.octets();
                Mac([1, 0, 0x5e, octets[1] & 0x7f, octets[2], octets[3]])
            }
            IpAddr::V6(ip) if ip.is_multicast() => {
                let octets = ip.octets();
                Mac([0x33, 0x33, octets[12], octets[13], octets[14], octets[15]])
            }
            _ if self.frame_broadcast(path.interface, destination) => Mac::BROADCAST,
            _ => match self.neighbours.resolve(path.interface, path.next_hop, frame, now) {
                Resolution::Known(mac, known) => {
                    frame = known;
                    if std::mem::take(&mut self.neighbours.rearm) {
                        self.arm_neighbours();
                    }
                    mac
                }
                Resolution::Waiting { ask } => {
                    if ask {
                        self.ask_neighbour(path.interface, path.next_hop, None);
                    }
                    self.arm_neighbours();
                    return Ok(());
                }
                Resolution::Failed => return Err(Error::HostUnreachable),
            },
        };
        self.ethernet_output(path.interface, mac, frame);
        Ok(())
    }

    /// Puts the Ethernet header in front and sends.
    pub fn ethernet_output(&mut self, interface: u32, to: Mac, mut frame: TxFrame) {
        let Some(own) = self.interface(interface).map(|i| i.mac) else { return };
        let kind: u16 = match frame.head().first().map(|first| first >> 4) {
            Some(6) => 0x86dd,
            Some(4) => 0x0800,
            _ => 0x0806,
        };
        let header = frame.push(14);
        header[..6].copy_from_slice(to.as_bytes());
        header[6..12].copy_from_slice(own.as_bytes());
        header[12..14].copy_from_slice(&kind.to_be_bytes());
        self.transmit(interface, frame);
    }

    fn transmit(&mut self, interface: u32, frame: TxFrame) {
        if !self.taps.is_empty() {
            self.show_sent(interface, &frame);
        }
        if let Some(interface) = self.interface_mut(interface) {
            interface.counters.tx_packets += 1;
            interface.counters.tx_bytes += frame.len() as u64;
            if let Some(traffic) = &interface.traffic {
                traffic.sent_packets.fetch_add(1, Ordering::Relaxed);
                traffic.sent_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
            }
            interface.link.transmit(frame);
        }
    }

    /// Whether the connection will be asked for its acknowledgement at the end of the frames that are looked at.
    pub fn late_acks(&mut self, connection: Handle) -> bool {
        let Some(late) = &mut self.late else { return false };
        if late.last() != Some(&connection) {
            late.push(connection);
        }
        true
    }

    fn loop_back(&mut self, interface: u32, frame: TxFrame) -> Result<(), Error> {
        if self.loopback.len() >= LOOPBACK_QUEUE {
            return Err(Error::NoBuffers);
        }
        let segment = frame.segmentation.map(|s| s.size);
        let mut frame = frame;
        let checksum =
            if frame.checksum_offload().is_some() { RxChecksum::Valid } else { RxChecksum::Unknown };
        frame.finish_checksum();
        let data = frame.flatten().into();
        self.loopback.push_back((interface, RxFrame { data, checksum, segment }));
        Ok(())
    }

    /// Asks for the neighbour's address by the protocol of its family.
    pub fn ask_neighbour(&mut self, interface: u32, ip: IpAddr, known: Option<Mac>) {
        match ip {
            IpAddr::V4(ip) => self.arp_request(interface, ip, known),
            IpAddr::V6(ip) => self.neighbour_solicit(interface, ip, known),
        }
    }

    pub fn arm_neighbours(&mut self) {
        let next = self.neighbours.next();
        self.timers.set(TimerKey::Neighbours, &mut self.neighbours.timer, next);
    }

    /// Changes the entry of a neighbour by hand; what waited for it goes out.
    pub fn change_neighbour(&mut self, interface: u32, ip: IpAddr, change: Change) -> Result<(), Error> {
        let now = self.now;
        let waiting = self.neighbours.change((interface, ip), change, now)?;
        if let Some(mac) = self.neighbours.mac((interface, ip)) {
            self.send_waiting(interface, mac, waiting);
        }
        self.arm_neighbours();
        Ok(())
    }

    /// Takes the entry of a neighbour away; what waited for it fails. False if there is none.
    pub fn remove_neighbour(&mut self, interface: u32, ip: IpAddr) -> bool {
        let Some(waiting) = self.neighbours.remove((interface, ip)) else { return false };
        self.fail_waiting(interface, waiting);
        true
    }

    /// The frames that waited for a neighbour go out.
    pub fn send_waiting(&mut self, interface: u32, to: Mac, frames: Vec<TxFrame>) {
        for frame in frames {
            self.ethernet_output(interface, to, frame);
        }
    }

    /// Frames that waited in vain become errors of their senders.
    pub fn fail_waiting(&mut self, interface: u32, frames: Vec<TxFrame>) {
        for frame in frames {
            let bytes = frame.flatten();
            if let Some(mut error) = super::icmp::quoted(&bytes, interface) {
                error.error = Error::HostUnreachable;
                error.hard = true;
                self.errors.push(error);
            }
        }
    }

    /// Sends a small packet of the engine's own (ICMP, IGMP, MLD, NDP) with its transport header as bytes.
    pub fn output_bytes(&mut self, path: &Path, out: &Outgoing, bytes: &[u8]) -> Result<(), Error> {
        if let (ICMP | ICMPV6, Some(kind)) = (out.protocol, bytes.first()) {
            self.stats.of(out.destination).icmp_out.count(*kind);
        }
        let frame = TxFrame::with_body(Chunk::from(bytes));
        self.output(path, out, frame)
    }

    /// The addresses by which an answer to `packet` goes: from where it went, unless that was a group.
    pub fn answer_source(&self, packet: &Packet) -> Option<IpAddr> {
        (!packet.multicast && !self.is_broadcast(packet.destination)).then_some(packet.destination)
    }

    /// A path that does not depend on routes: out of this interface to a neighbour or group.
    pub fn direct(&self, interface: u32, to: IpAddr, source: IpAddr) -> Path {
        let mtu = self.interface(interface).map_or(1280, |i| i.mtu_of(to));
        Path { interface, next_hop: to, source, mtu, local: false }
    }

    pub fn changed(&mut self) {
        self.generation += 1;
    }

    /// When the interfaces want to be looked at again.
    pub fn arm_interfaces(&mut self) {
        let next = self.interfaces_next();
        let mut slot = self.interfaces_timer;
        self.timers.set(TimerKey::Interfaces, &mut slot, next);
        self.interfaces_timer = slot;
    }

    fn interfaces_next(&self) -> Option<Time> {
        let mut times: SmallVec<[Time; 8]> = SmallVec::new();
        times.extend(self.routes.next_end());
        for interface in &self.interfaces {
            for address in &interface.addresses {
                if let super::interface::AddressState::Tentative { until } = address.state {
                    times.push(until);
                }
                times.extend(address.valid_until);
                if address.state == super::interface::AddressState::Valid {
                    times.extend(address.preferred_until);
                }
            }
            times.extend(interface.groups.next());
            if interface.router_mode == RouterMode::Accept {
                times.extend(interface.solicit_at);
            }
        }
        times.into_iter().min()
    }
}

/// The address that stands for no address of the family.
pub fn any(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}
