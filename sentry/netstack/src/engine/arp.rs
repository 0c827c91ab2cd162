//! ARP (RFC 826, RFC 5227): questions, answers, and what is learnt from both.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};

use super::chunk::Chunk;
use super::frame::TxFrame;
use super::link::Mac;
use super::net::Net;
use super::route::choose_source;

impl Net {
    fn arp_output(&mut self, interface: u32, to: Mac, repr: ArpRepr) {
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut ArpPacket::new_unchecked(&mut bytes));
        self.ethernet_output(interface, to, TxFrame::with_body(Chunk::from(bytes)));
    }

    /// Asks who has the address, everybody or the one who is known to have had it.
    pub fn arp_request(&mut self, interface: u32, ip: Ipv4Addr, known: Option<Mac>) {
        let source = match choose_source(&self.interfaces, interface, ip.into()) {
            Some(IpAddr::V4(source)) => source,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        let Some(own) = self.interface(interface).map(|i| i.mac) else { return };
        let repr = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: own,
            source_protocol_addr: source,
            target_hardware_addr: Mac::default(),
            target_protocol_addr: ip,
        };
        self.arp_output(interface, known.unwrap_or(Mac::BROADCAST), repr);
    }

    /// Tells everybody where an address of ours is.
    pub fn arp_announce(&mut self, interface: u32, ip: Ipv4Addr) {
        let Some(own) = self.interface(interface).map(|i| i.mac) else { return };
        let repr = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: own,
            source_protocol_addr: ip,
            target_hardware_addr: Mac::default(),
            target_protocol_addr: ip,
        };
        self.arp_output(interface, Mac::BROADCAST, repr);
    }

    pub fn arp_input(&mut self, interface: u32, bytes: &[u8]) {
        let Ok(packet) = ArpPacket::new_checked(bytes) else { return };
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_hardware_addr,
            target_protocol_addr,
        }) = ArpRepr::parse(&packet)
        else {
            return;
        };
        let Some(own) = self.interface(interface) else { return };
        // Any address of ours is answered for on any link, as Linux does by default (arp_ignore).
        let ours = !target_protocol_addr.is_loopback() && self.is_local(target_protocol_addr.into());
        let mac = own.mac;
        let odd = source_protocol_addr.is_multicast() || source_protocol_addr.is_broadcast();
        if odd || source_hardware_addr == mac || own.has(source_protocol_addr.into()) {
            return;
        }
        let now = self.now;
        if !source_protocol_addr.is_unspecified() {
            let key = (interface, IpAddr::V4(source_protocol_addr));
            // Only an answer that was sent to us confirms; a stranger is entered if it wants to talk to us.
            let confirmed = operation == ArpOperation::Reply && target_hardware_addr == mac;
            let create = operation == ArpOperation::Request && ours;
            let waiting = self.neighbours.learn(key, source_hardware_addr, confirmed, create, now);
            self.send_waiting(interface, source_hardware_addr, waiting);
            self.arm_neighbours();
        }
        if operation == ArpOperation::Request && ours {
            let repr = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: mac,
                source_protocol_addr: target_protocol_addr,
                target_hardware_addr: source_hardware_addr,
                target_protocol_addr: source_protocol_addr,
            };
            self.arp_output(interface, source_hardware_addr, repr);
        }
    }
}
