//! ICMP and ICMPv6 (RFC 792, RFC 4443): echo is answered, errors become `PacketError`s for the sockets,
//! and errors of our own are sent, limited in rate.

use std::net::IpAddr;

use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use super::checksum::{self, Sum};
use super::chunk::Chunk;
use super::error::{Error, PacketError};
use super::frame::RxChecksum;
use super::net::{ICMP, ICMPV6, Net, Outgoing, Packet, TCP};

/// Bytes of a packet that an error keeps for its socket.
const QUOTE: usize = 1232;
/// Destination unreachable: port, protocol (code of ICMP).
pub const PORT_UNREACHABLE: (u8, u8) = (3, 3);
pub const PROTOCOL_UNREACHABLE: (u8, u8) = (3, 2);

/// Reads a packet of ours that an error quotes, or one that never left.
pub fn quoted(bytes: &[u8], interface: u32) -> Option<PacketError> {
    let (local, remote, protocol, transport): (IpAddr, IpAddr, u8, &[u8]) = match bytes.first()? >> 4 {
        4 if bytes.len() >= 20 => {
            let packet = Ipv4Packet::new_unchecked(bytes);
            let header = usize::from(packet.header_len());
            if header < 20 || packet.frag_offset() != 0 {
                return None;
            }
            let protocol = u8::from(packet.next_header());
            (packet.src_addr().into(), packet.dst_addr().into(), protocol, bytes.get(header..)?)
        }
        6 if bytes.len() >= 40 => {
            let packet = Ipv6Packet::new_unchecked(bytes);
            let mut protocol = u8::from(packet.next_header());
            let mut at = 40;
            // Hop-by-hop, routing, destination options and the first fragment may stand before it.
            for _ in 0..8 {
                let length = match protocol {
                    0 | 43 | 60 => (usize::from(*bytes.get(at + 1)?) + 1) * 8,
                    44 if u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]) & 0xfff8 == 0 => 8,
                    44 => return None,
                    _ => break,
                };
                protocol = *bytes.get(at)?;
                at += length;
            }
            (packet.src_addr().into(), packet.dst_addr().into(), protocol, bytes.get(at..)?)
        }
        _ => return None,
    };
    Some(PacketError {
        local,
        remote,
        protocol,
        header: transport.get(..8)?.try_into().ok()?,
        quote: Chunk::from(transport.get(..transport.len().min(QUOTE))?),
        error: Error::HostUnreachable,
        hard: false,
        mtu: None,
        icmp: None,
        interface,
    })
}

/// What an ICMP error says (`/net/ipv4/icmp.c`'s icmp_err_convert).
fn meaning4(kind: u8, code: u8) -> Option<(Error, bool)> {
    Some(match (kind, code) {
        (3, 0) => (Error::NetworkUnreachable, false),
        (3, 1) => (Error::HostUnreachable, false),
        (3, 2) => (Error::ProtocolUnreachable, true),
        (3, 3) => (Error::ConnectionRefused, true),
        (3, 4) => (Error::MessageTooLong, false),
        (3, 6 | 9) => (Error::NetworkUnreachable, true),
        (3, 7 | 10 | 13 | 14 | 15) => (Error::HostUnreachable, true),
        (3, 11) => (Error::NetworkUnreachable, false),
        (3, 12) | (11, _) => (Error::HostUnreachable, false),
        (12, _) => (Error::ProtocolUnreachable, true),
        _ => return None,
    })
}

fn meaning6(kind: u8, code: u8) -> Option<(Error, bool)> {
    Some(match (kind, code) {
        (1, 0) => (Error::NetworkUnreachable, false),
        (1, 1 | 5 | 6) => (Error::AccessDenied, true),
        (1, 4) => (Error::ConnectionRefused, true),
        (1, _) => (Error::HostUnreachable, false),
        (2, _) => (Error::MessageTooLong, false),
        (3, _) => (Error::HostUnreachable, false),
        (4, _) => (Error::ProtocolUnreachable, true),
        _ => return None,
    })
}

impl Net {
    pub fn icmp4_input(&mut self, packet: &Packet) {
        let bytes = packet.payload();
        if bytes.len() < 8 || (packet.checksum == RxChecksum::Unknown && checksum::of(bytes) != 0) {
            self.stats.v4.icmp_checksum_errors += 1;
            return;
        }
        self.stats.v4.icmp_in.count(bytes[0]);
        match bytes[0] {
            8 => self.echo(packet, 0),
            kind @ (3 | 11 | 12) => {
                let mtu = u16::from_be_bytes([bytes[6], bytes[7]]);
                self.icmp_error_in(
                    packet,
                    meaning4(kind, bytes[1]),
                    (kind == 3 && bytes[1] == 4).then_some(mtu.into()),
                );
            }
            _ => {}
        }
    }

    pub fn icmp6_input(&mut self, packet: &Packet) {
        let bytes = packet.payload();
        if bytes.len() < 8 {
            return;
        }
        if packet.checksum == RxChecksum::Unknown {
            let mut sum = Sum::pseudo(packet.source, packet.destination, ICMPV6, bytes.len());
            sum.add(bytes);
            if !sum.intact() {
                self.stats.v6.icmp_checksum_errors += 1;
                return;
            }
        }
        self.stats.v6.icmp_in.count(bytes[0]);
        match bytes[0] {
            128 => self.echo(packet, 129),
            kind @ 1..=4 => {
                let mtu = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
                self.icmp_error_in(packet, meaning6(kind, bytes[1]), (kind == 2).then_some(mtu as usize));
            }
            130 => self.mld_query(packet),
            131 => self.mld_report(packet),
            133..=137 => self.ndp_input(packet),
            _ => {}
        }
    }

    fn echo(&mut self, packet: &Packet, reply: u8) {
        let broadcast = self.is_broadcast(packet.destination);
        // As Linux: no answer to a broadcast, and none to a group of IPv4.
        if self.echo_ignored || broadcast || (packet.multicast && packet.source.is_ipv4()) {
            return;
        }
        let mut bytes = packet.payload().to_vec();
        bytes[0] = reply;
        let protocol = if packet.source.is_ipv4() { ICMP } else { ICMPV6 };
        let Ok(path) = self.path(packet.source, self.answer_source(packet), self.answer_interface(packet))
        else {
            return;
        };
        bytes[2..4].fill(0);
        let mut sum = match protocol {
            ICMP => Sum::default(),
            _ => Sum::pseudo(path.source, packet.source, ICMPV6, bytes.len()),
        };
        sum.add(&bytes);
        bytes[2..4].copy_from_slice(&sum.finish().to_be_bytes());
        let out = Outgoing { tos: packet.tos, ..Outgoing::new(path.source, packet.source, protocol) };
        let _ = self.output_bytes(&path, &out, &bytes);
    }

    /// Answers to link-local addresses leave by the link they came from.
    fn answer_interface(&self, packet: &Packet) -> Option<u32> {
        matches!(packet.source, IpAddr::V6(ip) if ip.is_unicast_link_local()).then_some(packet.interface)
    }

    fn icmp_error_in(&mut self, packet: &Packet, meaning: Option<(Error, bool)>, mtu: Option<usize>) {
        let bytes = packet.payload();
        let Some((error, hard)) = meaning else { return };
        let Some(mut report) = quoted(&bytes[8..], packet.interface) else { return };
        if !self.is_local(report.local) {
            return;
        }
        if let Some(mut mtu) = mtu {
            if mtu == 0 {
                // A router older than RFC 1191: the next plateau below what was sent.
                let sent = bytes.get(10..12).map_or(1500, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
                mtu = [1492, 1006, 552].into_iter().find(|plateau| *plateau < sent).unwrap_or(552);
            }
            // TCP believes it only of a segment that it has in flight (RFC 5927): see there.
            report.mtu = Some(match report.protocol {
                TCP => mtu,
                _ => self.pmtu.lower(report.remote, mtu, self.now),
            });
        }
        report.error = error;
        report.hard = hard;
        report.icmp = Some((bytes[0], bytes[1], packet.source));
        self.errors.push(report);
    }

    /// Answers a packet with an error, if that is allowed (RFC 1122, 3.2.2; RFC 4443, 2.4).
    /// `rest` is the second word of the message.
    pub fn icmp_error(&mut self, packet: &Packet, kind: (u8, u8), rest: u32) {
        let v4 = packet.source.is_ipv4();
        let too_big = !v4 && kind.0 == 2;
        let source_bad = packet.source.is_unspecified()
            || packet.source.is_multicast()
            || self.is_broadcast(packet.source);
        if source_bad || ((packet.multicast || self.is_broadcast(packet.destination)) && !too_big) {
            return;
        }
        let first = packet.payload().first().copied();
        let about_error = match (packet.protocol, first) {
            (ICMP, Some(kind)) => !matches!(kind, 0 | 8 | 13..=18),
            (ICMPV6, Some(kind)) => kind < 128,
            (ICMP | ICMPV6, None) => true,
            _ => false,
        };
        let now = self.now;
        if about_error || !self.icmp_limit.allow(now) {
            return;
        }
        let from = Some(packet.destination).filter(|ip| self.is_local(*ip));
        let Ok(path) = self.path(packet.source, from, self.answer_interface(packet)) else { return };
        let most = if v4 { 576 - 28 } else { 1280 - 48 };
        let quote = &packet.data[..packet.data.len().min(most)];
        let mut bytes = vec![kind.0, kind.1, 0, 0];
        bytes.extend_from_slice(&rest.to_be_bytes());
        bytes.extend_from_slice(quote);
        let protocol = if v4 { ICMP } else { ICMPV6 };
        let mut sum = match v4 {
            true => Sum::default(),
            false => Sum::pseudo(path.source, packet.source, ICMPV6, bytes.len()),
        };
        sum.add(&bytes);
        bytes[2..4].copy_from_slice(&sum.finish().to_be_bytes());
        // Linux sends errors with the precedence of internetwork control.
        let tos = if v4 { (packet.tos & 0x1e) | 0xc0 } else { 0 };
        let out = Outgoing { tos, ..Outgoing::new(path.source, packet.source, protocol) };
        let _ = self.output_bytes(&path, &out, &bytes);
    }

    /// Nobody listens at the port or for the protocol.
    pub fn icmp_unreachable(&mut self, packet: &Packet, what: (u8, u8)) {
        match (packet.source.is_ipv4(), what) {
            (true, _) => self.icmp_error(packet, what, 0),
            (false, PORT_UNREACHABLE) => self.icmp_error(packet, (1, 4), 0),
            (false, _) => self.icmp_error(packet, (4, 1), 6),
        }
    }
}
