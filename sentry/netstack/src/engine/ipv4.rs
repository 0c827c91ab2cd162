//! IPv4 in (RFC 791, RFC 1122): the header is checked, fragments are joined, what is not for us is dropped.

use std::net::IpAddr;

use smoltcp::wire::Ipv4Packet;

use crate::options::{Giver, Options, Stamp};

use super::checksum;
use super::frame::{RxChecksum, RxFrame};
use super::net::{Net, Packet};
use super::reassembly::{Fragment, Key};

impl Net {
    /// Reads an IP packet. None: it was malformed, not ours, or waits for its other fragments.
    pub fn ipv4_input(&mut self, interface: u32, frame: RxFrame) -> Option<Packet> {
        self.stats.v4.in_packets += 1;
        let packet = match Ipv4Packet::new_checked(&frame.data[..]) {
            Ok(packet) if packet.version() == 4 && packet.header_len() >= 20 => packet,
            _ => {
                self.stats.v4.in_header_errors += 1;
                return None;
            }
        };
        let header = usize::from(packet.header_len());
        let total = usize::from(packet.total_len());
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let martian = source.is_multicast()
            || source.is_broadcast()
            || (source.is_loopback() && !destination.is_loopback());
        let local = self.interface(interface).is_none_or(|i| i.medium == super::link::Medium::Loopback);
        let stray = destination.is_loopback() && !local && !self.is_looped(source.into());
        if checksum::of(&frame.data[..header]) != 0 || martian || stray {
            self.stats.v4.in_header_errors += 1;
            return None;
        }
        let to = IpAddr::V4(destination);
        let group = destination.is_multicast();
        let ours = self.is_local(to) || self.is_broadcast(to) || (group && self.is_member(interface, to));
        if !ours {
            self.stats.v4.in_not_ours += 1;
            return None;
        }
        let mut result = Packet {
            interface,
            source: source.into(),
            destination: to,
            protocol: packet.next_header().into(),
            ttl: packet.hop_limit(),
            tos: packet.dscp() << 2 | packet.ecn(),
            data: frame.data.slice(0, total),
            transport: header,
            checksum: frame.checksum,
            segment: frame.segment,
            multicast: group || self.is_broadcast(to),
            fragment: 0,
        };
        let more = packet.more_frags();
        let offset = usize::from(packet.frag_offset());
        let ident = packet.ident();
        if header > 20 {
            self.read_options(&mut result)?;
        }
        if !more && offset == 0 {
            return Some(result);
        }
        let key = Key {
            source: source.into(),
            destination: to,
            identification: ident.into(),
            protocol: result.protocol,
            interface,
        };
        let fragment = Fragment {
            header: result.data.slice(0, header),
            protocol: result.protocol,
            offset,
            more,
            data: result.data.slice(header, total),
        };
        let whole = self.join_fragments(key, fragment)?;
        let mut data = whole.header.to_vec();
        result.transport = data.len();
        data.extend_from_slice(&whole.data);
        let total = u16::try_from(data.len()).ok()?;
        // The header of the whole, for raw sockets and quotes.
        data[2..4].copy_from_slice(&total.to_be_bytes());
        data[6..8].fill(0);
        data[10..12].fill(0);
        let sum = checksum::of(&data[..result.transport]);
        data[10..12].copy_from_slice(&sum.to_be_bytes());
        result.data = data.into();
        result.fragment = whole.largest;
        result.checksum = RxChecksum::Unknown;
        Some(result)
    }

    /// Packets that we sent to ourselves carry loopback addresses by right.
    fn is_looped(&self, source: IpAddr) -> bool {
        source.is_loopback()
    }

    /// Checks the options of a packet for us and writes into them what they ask for. None: it is dropped, source routes as
    /// Linux does by default.
    fn read_options(&mut self, packet: &mut Packet) -> Option<()> {
        let header = packet.transport;
        let options = match Options::read(&packet.data[20..header], Giver::Packet) {
            Ok(options) if !options.is_source_routed() => options,
            Ok(_) => {
                self.stats.v4.in_header_errors += 1;
                return None;
            }
            Err(at) => {
                self.stats.v4.in_header_errors += 1;
                self.icmp_error(packet, (12, 0), ((20 + at) as u32) << 24);
                return None;
            }
        };
        let IpAddr::V4(own) = packet.destination else { return None };
        let options = options.arrived(Stamp::new(own, self.realtime()));
        let mut data = packet.data.to_vec();
        data[20..header].copy_from_slice(options.told());
        data[10..12].fill(0);
        let sum = checksum::of(&data[..header]);
        data[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.data = data.into();
        Some(())
    }
}
