//! The packet engine: links, neighbours, IP, ICMP, UDP and TCP over packets. It is a passive state
//! machine: time is passed in, frames are pushed in (`Engine::receive`), timers run when the embedder
//! polls (`Engine::poll`), and what is to be told is collected as events that the embedder dispatches
//! after it has let go of its lock around the engine. No threads, no I/O, no clock of its own.

pub mod addresses;
mod arp;
pub mod checksum;
pub mod chunk;
mod configure;
pub mod error;
pub mod events;
pub mod frame;
mod icmp;
pub mod interface;
mod ipv4;
pub mod ipv6;
pub mod link;
pub mod memory;
mod multicast;
mod ndp;
pub mod neighbour;
pub mod net;
pub mod pair;
mod pmtu;
pub mod random;
pub mod raw;
mod reassembly;
pub mod route;
pub mod sending;
mod slab;
pub mod tap;
pub mod tcp;
#[cfg(test)]
mod tests;
pub mod time;
mod timers;
pub mod udp;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use addresses::Prefix;
use error::Error;
use events::Event;
use frame::RxFrame;
use icmp::PROTOCOL_UNREACHABLE;
use interface::{Address, AddressState, Interface};
use link::{LinkEndpoint, Mac, Medium};
use net::{ICMP, ICMPV6, IGMP, Net, Packet, TCP, UDP};
use random::Random;
use raw::Raw;
use route::Route;
use tcp::Tcp;
use time::Time;
use timers::TimerKey;
use udp::Udp;

pub use slab::Handle;

/// Packets of our own that come back in one call; the rest waits for the next.
const MOST_LOOPED: usize = 1024;

/// A network stack.
pub struct Engine {
    pub net: Net,
    pub tcp: Tcp,
    pub udp: Udp,
    pub raw: Raw,
}

impl Engine {
    pub fn new(random: Box<dyn Random>) -> Engine {
        let mut net = Net::new(random);
        let tcp = Tcp::new(&mut net);
        Engine { net, tcp, udp: Udp::default(), raw: Raw::default() }
    }

    /// Moves the clock; it never goes back.
    pub fn set_now(&mut self, now: Time) {
        self.net.now = self.net.now.max(now);
    }

    /// Attaches a link under an index that no other has.
    pub fn attach(&mut self, index: u32, link: Arc<dyn LinkEndpoint>) -> Result<(), Error> {
        if index == 0 || self.net.interface(index).is_some() {
            return Err(Error::Invalid);
        }
        self.net.interfaces.push(Interface::new(index, link));
        self.net.changed();
        Ok(())
    }

    /// Detaches a link with its addresses, routes and neighbours.
    pub fn detach(&mut self, index: u32) {
        self.net.interfaces.retain(|interface| interface.index != index);
        self.net.routes.remove(|route| route.interface == index);
        self.net.neighbours.forget_interface(index);
        self.net.changed();
    }

    /// Gives an interface an address and, as Linux, the route to its network. `detect`: look for
    /// duplicates first (IPv6).
    pub fn add_address(&mut self, index: u32, prefix: Prefix, detect: bool) -> Result<(), Error> {
        let ends = self.net.detection_ends();
        let interface = self.net.interface_mut(index).ok_or(Error::Invalid)?;
        if interface.find(prefix.address).is_some() {
            return Err(Error::AddressInUse);
        }
        let detect = detect && prefix.address.is_ipv6() && interface.medium == Medium::Ethernet;
        let state = if detect { AddressState::Tentative { until: ends } } else { AddressState::Valid };
        interface.addresses.push(Address { prefix, state, valid_until: None, preferred_until: None });
        let most = if prefix.address.is_ipv4() { 32 } else { 128 };
        if prefix.length < most {
            self.net.routes.add(Route { source: None, ..Route::on_link(prefix, index) });
        }
        if let IpAddr::V6(ip) = prefix.address {
            self.net.join_solicited(index, ip);
            if detect {
                self.net.detect_duplicate(index, ip);
            }
        }
        self.net.changed();
        self.net.arm_interfaces();
        Ok(())
    }

    pub fn remove_address(&mut self, index: u32, ip: IpAddr) -> Result<(), Error> {
        let interface = self.net.interface_mut(index).ok_or(Error::Invalid)?;
        let address = *interface.find(ip).ok_or(Error::AddressNotAvailable)?;
        interface.addresses.retain(|address| address.ip() != ip);
        let others = interface
            .addresses
            .iter()
            .any(|other| other.prefix.contains(ip) && other.prefix.length == address.prefix.length);
        if !others {
            self.net.routes.remove(|route| {
                route.interface == index
                    && route.gateway.is_none()
                    && route.prefix.length == address.prefix.length
                    && route.prefix.contains(ip)
            });
        }
        if let IpAddr::V6(ip) = ip {
            self.net.leave_solicited(index, ip);
        }
        self.net.changed();
        Ok(())
    }

    pub fn add_route(&mut self, route: Route) {
        self.net.routes.add(route);
        self.net.changed();
        self.net.arm_interfaces();
    }

    pub fn remove_route(&mut self, gone: impl Fn(&Route) -> bool) -> bool {
        self.net.changed();
        self.net.routes.remove(gone)
    }

    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), Error> {
        self.net.interface_mut(index).ok_or(Error::Invalid)?.up = up;
        if !up {
            // As Linux: nobody knows who is there when it comes up again.
            self.net.neighbours.forget_interface(index);
        }
        self.net.changed();
        Ok(())
    }

    pub fn set_mtu(&mut self, index: u32, mtu: usize) -> Result<(), Error> {
        let interface = self.net.interface_mut(index).ok_or(Error::Invalid)?;
        interface.mtu = mtu;
        interface.mtu6 = mtu;
        self.net.changed();
        Ok(())
    }

    /// Frames that a link has received. A connection acknowledges all that came in order once.
    pub fn receive(&mut self, now: Time, link: u32, frames: impl IntoIterator<Item = RxFrame>) {
        self.set_now(now);
        self.net.late = Some(Vec::new());
        for frame in frames {
            self.input(link, frame);
            self.settle();
        }
        for connection in self.net.late.take().unwrap_or_default() {
            self.tcp.acknowledge(&mut self.net, connection);
        }
        self.settle();
    }

    /// Runs the timers that are due; says when the next one is.
    pub fn poll(&mut self, now: Time) -> Option<Time> {
        self.set_now(now);
        let now = self.net.now;
        while let Some(key) = self.net.timers.due(now) {
            match key {
                TimerKey::Connection(index, generation) => {
                    self.tcp.tick_conn(&mut self.net, Handle { index, generation });
                }
                TimerKey::Remnant(index, generation) => {
                    self.tcp.tick_remnant(&mut self.net, Handle { index, generation });
                }
                TimerKey::Neighbours => self.neighbours_due(),
                TimerKey::Reassembly => self.net.reassembly_due(),
                TimerKey::Interfaces => self.net.interfaces_due(),
            }
        }
        self.settle();
        self.net.timers.next()
    }

    /// When the next timer is due.
    pub fn deadline(&self) -> Option<Time> {
        if self.net.loopback.is_empty() { self.net.timers.next() } else { Some(self.net.now) }
    }

    /// Delivers what came back to us and errors that arose on the way; to be called after calls of
    /// sockets (`receive` and `poll` do it themselves).
    pub fn settle(&mut self) {
        for _ in 0..MOST_LOOPED {
            while let Some(error) = self.net.errors.pop() {
                match error.protocol {
                    TCP => self.tcp.packet_error(&mut self.net, &error),
                    UDP => self.udp.packet_error(&mut self.net, &error),
                    _ => {}
                }
                self.raw.packet_error(&mut self.net, &error);
            }
            let Some((index, frame)) = self.net.loopback.pop_front() else { break };
            self.input_ip(index, frame);
        }
    }

    /// What has to be told; to be dispatched without the engine's lock.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.net.events)
    }

    fn neighbours_due(&mut self) {
        self.net.neighbours.timer = None;
        let now = self.net.now;
        while let Some(due) = self.net.neighbours.due(now) {
            match due {
                neighbour::Due::Ask(index, ip, known) => self.net.ask_neighbour(index, ip, known),
                neighbour::Due::Failed(index, frames) => self.net.fail_waiting(index, frames),
            }
        }
        self.net.arm_neighbours();
    }

    fn input(&mut self, index: u32, mut frame: RxFrame) {
        let Some(interface) = self.net.interface_mut(index).filter(|interface| interface.up) else { return };
        interface.counters.rx_packets += 1;
        interface.counters.rx_bytes += frame.data.len() as u64;
        if let Some(traffic) = &interface.traffic {
            traffic.received_packets.fetch_add(1, Ordering::Relaxed);
            traffic.received_bytes.fetch_add(frame.data.len() as u64, Ordering::Relaxed);
        }
        if !self.net.taps.is_empty() {
            self.net.show_received(index, &frame);
        }
        let Some(interface) = self.net.interface_mut(index) else { return };
        if interface.medium == Medium::Ethernet {
            let Some(header) = frame.data.get(..14) else {
                interface.counters.rx_dropped += 1;
                return;
            };
            let to = Mac::from_bytes(&header[..6]);
            if to != interface.mac && !to.is_multicast() {
                interface.counters.rx_dropped += 1;
                return;
            }
            interface.counters.multicast += u64::from(to.is_multicast());
            let kind = u16::from_be_bytes([header[12], header[13]]);
            frame.data.advance(14);
            match kind {
                0x0806 => return self.net.arp_input(index, &frame.data),
                0x0800 | 0x86dd => {}
                _ => return,
            }
        }
        self.input_ip(index, frame);
    }

    fn input_ip(&mut self, index: u32, frame: RxFrame) {
        let packet = match frame.data.first().map(|first| first >> 4) {
            Some(4) => self.net.ipv4_input(index, frame),
            Some(6) => self.net.ipv6_input(index, frame),
            _ => None,
        };
        if let Some(packet) = packet {
            self.input_transport(&packet);
        }
    }

    fn input_transport(&mut self, packet: &Packet) {
        let seen = self.raw.input(&mut self.net, packet);
        let v4 = packet.source.is_ipv4();
        self.net.stats.of(packet.source).in_delivered += 1;
        match packet.protocol {
            TCP => self.tcp.input(&mut self.net, packet),
            UDP => self.udp.input(&mut self.net, packet),
            ICMP if v4 => self.net.icmp4_input(packet),
            IGMP if v4 => self.net.igmp_input(packet),
            ICMPV6 if !v4 => self.net.icmp6_input(packet),
            _ if !seen => {
                let stats = self.net.stats.of(packet.source);
                stats.in_unknown_protocol += 1;
                stats.in_delivered -= 1;
                self.net.icmp_unreachable(packet, PROTOCOL_UNREACHABLE);
            }
            _ => {}
        }
    }

    /// Tells the neighbours of an interface where our IPv4 addresses are.
    pub fn announce(&mut self, index: u32) {
        let addresses: Vec<IpAddr> =
            self.net.interface(index).map_or(Vec::new(), |i| i.addresses.iter().map(Address::ip).collect());
        for ip in addresses {
            if let IpAddr::V4(ip) = ip {
                self.net.arp_announce(index, ip);
            }
        }
    }

    /// Hands every link what it has queued; links may be flushed without the engine's lock.
    pub fn links(&self) -> Vec<Arc<dyn LinkEndpoint>> {
        self.net.interfaces.iter().map(|interface| interface.link.clone()).collect()
    }
}
