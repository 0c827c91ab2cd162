//! ICMP and ICMPv6 (RFC 792, RFC 4443): echo is answered, errors become `PacketError`s for the sockets,
//! and errors of our own are sent, limited in rate.

use std::net::IpAddr;

use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use crate::options::{Giver, Options, Stamp};

use super::checksum::{self, Sum};
use super::chunk::Chunk;
use super::error::{Error, PacketError};
use super::frame::RxChecksum;
use super::net::{ICMP, ICMPV6, Net, Packet, TCP};
use super::sending::{Extra, Outgoing};

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
        before: bytes.len() - transport.len(),
        error: Error::HostUnreachable,
        hard: false,
        mtu: None,
        info: 0,
        extension: None,
        icmp: None,
        interface,
    })
}

/// The extensions of a message (RFC 4884): where they begin behind its first `skipped` bytes, and whether they are sound.
fn extension(message: &[u8], v4: bool, skipped: usize) -> Option<(u16, bool)> {
    let kind = *message.first()?;
    // In words of 32 bits for ICMP, of 64 bits for ICMPv6.
    let (has, length) = match v4 {
        true => (matches!(kind, 3 | 11 | 12), usize::from(*message.get(5)?) * 4),
        false => (matches!(kind, 1 | 3), usize::from(*message.get(4)?) * 8),
    };
    let at = 8 + length;
    if !has || length < 128 || at < skipped || at + 4 > message.len() {
        return None;
    }
    let place = u16::try_from(at - skipped).ok()?;
    let all = &message[at..];
    let summed = all[2..4] == [0, 0] || checksum::of(all) == 0;
    let mut rest = &all[4..];
    while let [a, b, ..] = *rest {
        let size = usize::from(u16::from_be_bytes([a, b]));
        match rest.get(size..) {
            Some(behind) if size >= 4 => rest = behind,
            _ => return Some((place, false)),
        }
    }
    Some((place, summed && all[0] >> 4 == 2 && rest.is_empty()))
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
        let options = packet.between().filter(|_| packet.source.is_ipv4());
        let options = options.and_then(|between| Options::read(&between.bytes, Giver::Packet).ok());
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
        // Routes and times that are recorded are recorded on the way back, too.
        let options = match (options, path.source, packet.source) {
            (Some(options), IpAddr::V4(from), IpAddr::V4(to)) => {
                let back = Options::read(&options.echoed(), Giver::Packet).unwrap_or_default();
                back.sent(Stamp::new(from, self.realtime()), to).bytes
            }
            _ => Vec::new(),
        };
        let extra = Extra { options: &options, ..Extra::default() };
        let out = Outgoing { tos: packet.tos, extra, ..Outgoing::new(path.source, packet.source, protocol) };
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
        report.info = match (packet.source.is_ipv4(), bytes[0]) {
            // Only the first byte is used: it points into the header.
            (true, 12) => bytes[4].into(),
            (true, _) => 0,
            (false, _) => u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        };
        report.extension = extension(bytes, report.local.is_ipv4(), 8 + report.before);
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
        if let (true, Some(mtu)) = (packet.source.is_ipv4(), report.mtu) {
            report.info = mtu as u32;
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
        // A group is answered about an option that wants it by its two high bits (RFC 4443, 2.4).
        let option = packet.data.get(rest as usize).is_some_and(|option| option >> 6 == 2);
        let wanted = too_big || (!v4 && kind == (4, 2) && option);
        if source_bad || ((packet.multicast || self.is_broadcast(packet.destination)) && !wanted) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of ICMP about a datagram whose first 128 bytes it quotes, with extensions.
    fn message(extensions: &[u8]) -> Vec<u8> {
        let mut m = vec![11, 0, 0, 0, 0, 32, 0, 0, 0x45];
        m.resize(8 + 128, 0);
        m.extend_from_slice(extensions);
        m
    }

    #[test]
    fn extensions_are_found_and_checked() {
        let mut sound = [0x20, 0, 0, 0, 0, 8, 1, 1, 1, 2, 3, 4];
        // Behind the headers of ICMP, IP and UDP.
        let skipped = 8 + 28;
        assert_eq!(extension(&message(&sound), true, skipped), Some((100, true)));
        let sum = checksum::of(&sound);
        sound[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(extension(&message(&sound), true, skipped), Some((100, true)));
        sound[3] ^= 1;
        assert_eq!(extension(&message(&sound), true, skipped), Some((100, false)));
        assert_eq!(
            extension(&message(&[0x20, 0, 0, 0, 0, 9, 1, 1, 1, 2, 3, 4]), true, skipped),
            Some((100, false))
        );
        assert_eq!(extension(&message(&[0x10, 0, 0, 0]), true, skipped), Some((100, false)));
        assert_eq!(extension(&message(&[0x20, 0, 0]), true, skipped), None);
        let mut short = message(&sound);
        short[5] = 31;
        assert_eq!(extension(&short, true, skipped), None);
    }
}
