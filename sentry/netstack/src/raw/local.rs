//! Packets of raw and ping sockets to this stack itself, and what answers them: the loopback interface,
//! as far as anybody can see it.

use super::{ICMP, ICMPV6, RawHow, RawSocket};
use crate::addr::{Endpoint, Family};
use crate::buf::Buf;
use crate::datagram::{Datagram, SendHow, Tag};
use crate::engine::checksum::{self, Sum};
use crate::error::{NetError, Result};
use crate::interface::LOOPBACK;
use crate::stack::Stack;
use std::net::{IpAddr, Ipv4Addr};

const UDP: u8 = 17;

/// A packet without its header of IP.
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ttl: u8,
    tos: u8,
    tag: Tag,
    data: Vec<u8>,
}

/// The checksum over a message, with the pseudo header in IPv6.
fn sum(source: IpAddr, destination: IpAddr, protocol: u8, data: &[u8]) -> u16 {
    let mut sum = match destination {
        IpAddr::V4(_) => Sum::default(),
        IpAddr::V6(_) => Sum::pseudo(source, destination, protocol, data.len()),
    };
    sum.add(data);
    sum.finish()
}

impl RawSocket {
    /// Sends to an address of this stack.
    pub(super) fn send_local(
        &self,
        source: IpAddr,
        to: IpAddr,
        data: &[u8],
        how: &SendHow,
        raw: RawHow,
        ident: Option<u16>,
    ) -> Result<()> {
        let mut packet = Packet {
            source,
            destination: to,
            protocol: self.protocol,
            ttl: how.ttl,
            tos: how.tos,
            tag: how.tag,
            data: data.to_vec(),
        };
        if raw.header_included {
            packet = Packet { tag: how.tag, ..parse_header(data, source)? };
        }
        let at = match ident {
            Some(ident) => {
                packet.data[4..6].copy_from_slice(&ident.to_be_bytes());
                Some(2)
            }
            None if self.protocol == ICMPV6 => Some(2),
            None => raw.checksum_at,
        };
        if let Some(at) = at {
            packet.data.get_mut(at..at + 2).ok_or(NetError::Invalid)?.fill(0);
            let sum = sum(packet.source, packet.destination, packet.protocol, &packet.data);
            packet.data[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        self.stack().local_packet(packet);
        Ok(())
    }
}

/// A packet that its sender made with its header (`IP_HDRINCL`): EINVAL.
fn parse_header(data: &[u8], source: IpAddr) -> Result<Packet> {
    let length = data.first().map_or(0, |first| usize::from(first & 15) * 4);
    if length < 20 || data.len() < length {
        return Err(NetError::Invalid);
    }
    let word = |at: usize| Ipv4Addr::new(data[at], data[at + 1], data[at + 2], data[at + 3]);
    let from = IpAddr::V4(word(12));
    Ok(Packet {
        source: if from.is_unspecified() { source } else { from },
        destination: IpAddr::V4(word(16)),
        protocol: data[9],
        ttl: data[8],
        tos: data[1],
        tag: Tag::default(),
        data: data[length..].to_vec(),
    })
}

impl Packet {
    /// The header of IPv4 that raw sockets see.
    fn header(&self, ident: u16) -> Vec<u8> {
        let mut h = vec![0u8; 20];
        h[0] = 0x45;
        h[1] = self.tos;
        h[2..4].copy_from_slice(&u16::try_from(self.data.len() + 20).unwrap_or(u16::MAX).to_be_bytes());
        h[4..6].copy_from_slice(&ident.to_be_bytes());
        h[8] = self.ttl;
        h[9] = self.protocol;
        for (at, ip) in [(12, self.source), (16, self.destination)] {
            if let IpAddr::V4(a) = ip {
                h[at..at + 4].copy_from_slice(&a.octets());
            }
        }
        let sum = checksum::of(&h);
        h[10..12].copy_from_slice(&sum.to_be_bytes());
        h
    }
}

impl Stack {
    /// A packet that comes in by the loopback interface.
    fn local_packet(&self, packet: Packet) {
        self.count_local(packet.destination, packet.data.len() as u64 + 20);
        let v4 = packet.destination.is_ipv4();
        let mut ident = [0; 2];
        self.env.random(&mut ident);
        let header = packet.header(u16::from_ne_bytes(ident));
        let datagram = |ports: (u16, u16), data: Vec<u8>| Datagram {
            from: Endpoint::new(packet.source, ports.0),
            to: Endpoint::new(packet.destination, ports.1),
            device: LOOPBACK,
            data: Buf::from_vec(data),
            time: self.env.realtime(),
            ttl: packet.ttl,
            tos: packet.tos,
            drops: 0,
            tag: packet.tag,
            segment: None,
        };
        let kind = packet.data.first().copied().unwrap_or(0);
        let control = matches!(packet.protocol, ICMP | ICMPV6);
        if control {
            self.counters.of(packet.destination).count_icmp(kind);
        }
        for s in self.raw_sockets().iter().filter(|s| !s.ping && (s.family == Family::V4) == v4) {
            if s.protocol != packet.protocol || !s.meant(&packet) || (control && s.filtered(kind)) {
                continue;
            }
            let data = if v4 { [&header[..], &packet.data].concat() } else { packet.data.clone() };
            s.enqueue(datagram((0, 0), data));
        }
        let bytes = &packet.data;
        match (packet.protocol, kind) {
            (ICMP, 8) | (ICMPV6, 128) if bytes.len() >= 8 => {
                if sum(packet.source, packet.destination, packet.protocol, bytes) != 0 {
                    return;
                }
                let mut data = bytes.clone();
                data[0] = if v4 { 0 } else { 129 };
                data[2..4].fill(0);
                let (source, destination) = (packet.destination, packet.source);
                let check = sum(source, destination, packet.protocol, &data);
                data[2..4].copy_from_slice(&check.to_be_bytes());
                self.local_packet(Packet {
                    source,
                    destination,
                    data,
                    ttl: 64,
                    tag: Tag::default(),
                    ..packet
                });
            }
            (ICMP, 0) | (ICMPV6, 129) if bytes.len() >= 8 => {
                let ident = u16::from_be_bytes([bytes[4], bytes[5]]);
                // Of several the last one.
                let found = self.raw_sockets().into_iter().rev().find(|s| {
                    s.ping && (s.family == Family::V4) == v4 && s.local().port == ident && s.meant(&packet)
                });
                if let Some(s) = found {
                    s.enqueue(datagram((0, ident), bytes.clone()));
                }
            }
            (UDP, _) if bytes.len() >= 8 => {
                let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
                let end = usize::from(port(4)).clamp(8, bytes.len());
                // Nobody there: what ICMP would say goes to a raw socket that has not asked for it.
                let _ = self.deliver_datagram(datagram((port(0), port(2)), bytes[8..end].to_vec()), false);
            }
            _ => {}
        }
    }
}

impl RawSocket {
    /// Whether the addresses are those the socket is bound and connected to.
    fn meant(&self, packet: &Packet) -> bool {
        let local = self.local().ip;
        (local.is_unspecified() || local == packet.destination)
            && self.remote().is_none_or(|r| r.ip == packet.source)
            && matches!(self.device(), 0 | LOOPBACK)
    }

    fn device(&self) -> u32 {
        self.lock().options.device
    }
}
