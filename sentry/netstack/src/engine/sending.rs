//! From a transport header and payload to packets: the header of IP with what stands beside it, and pieces.

use std::net::IpAddr;

use smoltcp::wire::{Ipv4Packet, Ipv6FragmentHeader, Ipv6Packet};

use crate::extensions::Chain;
use crate::options::of_later_pieces;

use super::checksum;
use super::chunk::Chunk;
use super::error::Error;
use super::frame::TxFrame;
use super::link::Medium;
use super::net::{FRAGMENT, Net};
use super::route::Path;

/// What becomes of a packet that is longer than its path takes, and of IPv4's flag DF.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fragmenting {
    /// It is cut, here or by routers (IP_PMTUDISC_DONT).
    #[default]
    Allowed,
    /// It is cut here; what is whole may not be cut on its way (IP_PMTUDISC_WANT).
    Here,
    /// It is not sent: an error (IP_PMTUDISC_DO, TCP).
    Never,
    /// It is not sent, but what is may be cut by routers (IP_PMTUDISC_INTERFACE).
    NotHere,
}

/// What stands beside the header of IP itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extra<'a> {
    /// Options of IPv4, a multiple of 4 bytes.
    pub options: &'a [u8],
    /// Extension headers of IPv6.
    pub chain: Option<&'a Chain>,
    /// The flow label of IPv6.
    pub flow: u32,
    /// Pieces are not larger than this (`IPV6_MTU`); 0: no such wish.
    pub pieces: u32,
}

impl Extra<'_> {
    /// Bytes between the header of IP and the transport's.
    pub fn len(&self) -> usize {
        self.options.len() + self.chain.map_or(0, Chain::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the network layer has to know of a packet to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// None: the default, or what the router said.
    pub ttl: Option<u8>,
    pub tos: u8,
    pub fragmenting: Fragmenting,
    /// Fragment to the route's MTU even if path MTU discovery knows better (IP_PMTUDISC_PROBE and kin).
    pub ignore_path_mtu: bool,
    pub extra: Extra<'a>,
}

impl Outgoing<'_> {
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        Outgoing {
            source,
            destination,
            protocol,
            ttl: None,
            tos: 0,
            fragmenting: Fragmenting::Allowed,
            ignore_path_mtu: false,
            extra: Extra::default(),
        }
    }
}

impl Net {
    /// Sends a transport header and payload as an IP packet. The frame's checksum may be left to the link;
    /// if the link cannot, it is filled here.
    pub fn output(&mut self, path: &Path, out: &Outgoing, mut frame: TxFrame) -> Result<(), Error> {
        self.stats.of(out.destination).out_packets += 1;
        let header = if out.destination.is_ipv4() { 20 } else { 40 };
        let length = frame.len() + header + out.extra.len();
        let mtu = if out.ignore_path_mtu && !path.local {
            self.interface(path.interface).map_or(path.mtu, |i| i.mtu_of(out.destination))
        } else {
            path.mtu
        };
        let local =
            path.local || self.interface(path.interface).is_some_and(|i| i.medium == Medium::Loopback);
        let able = local || self.interface(path.interface).is_some_and(|i| i.capabilities.checksum);
        if length > mtu && frame.segmentation.is_none() {
            let most = 65535 + if header == 40 { 40 } else { 0 };
            if length > most || matches!(out.fragmenting, Fragmenting::Never | Fragmenting::NotHere) {
                self.stats.of(out.destination).fragmentation_failed += 1;
                return Err(Error::MessageTooLong);
            }
            frame.finish_checksum();
            return self.fragment(path, out, &frame, mtu);
        }
        if !able {
            frame.finish_checksum();
        }
        let mut out = *out;
        if let Some(chain) = out.extra.chain.take() {
            // They may be too long for the room that frames have for headers.
            frame.finish_checksum();
            let (first, mut bytes) = chain.whole(out.protocol);
            bytes.extend(frame.flatten());
            frame = TxFrame::with_body(Chunk::from(bytes));
            out.protocol = first;
        }
        let out = &out;
        self.push_network(out, &mut frame, None);
        self.stats.of(out.destination).transmitted += 1;
        self.link_output(path, out.destination, frame)
    }

    /// Puts the IP header in front. `piece`: identification, offset and whether more follow.
    fn push_network(&mut self, out: &Outgoing, frame: &mut TxFrame, piece: Option<(u32, usize, bool)>) {
        match (out.source, out.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = 20 + out.extra.options.len();
                let length = frame.len() + header;
                let ttl = out.ttl.unwrap_or(self.default_ttl);
                let own = match piece {
                    Some((ident, ..)) => ident as u16,
                    None => self.next_ident(source, destination),
                };
                let bytes = frame.push(header);
                match piece {
                    Some((_, offset, _)) if offset > 0 => {
                        bytes[20..].copy_from_slice(&of_later_pieces(out.extra.options))
                    }
                    _ => bytes[20..].copy_from_slice(out.extra.options),
                }
                let mut packet = Ipv4Packet::new_unchecked(bytes);
                packet.set_version(4);
                packet.set_header_len(header as u8);
                packet.set_dscp(out.tos >> 2);
                packet.set_ecn(out.tos & 3);
                packet.set_total_len(u16::try_from(length).unwrap_or(0));
                packet.clear_flags();
                let whole = matches!(out.fragmenting, Fragmenting::Here | Fragmenting::Never);
                packet.set_dont_frag(piece.is_none() && whole);
                packet.set_ident(own);
                if let Some((_, offset, more)) = piece {
                    packet.set_frag_offset(offset as u16);
                    packet.set_more_frags(more);
                }
                packet.set_hop_limit(ttl);
                packet.set_next_header(out.protocol.into());
                packet.set_src_addr(source);
                packet.set_dst_addr(destination);
                packet.set_checksum(0);
                let sum = checksum::of(packet.into_inner());
                frame.head_mut()[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut next = out.protocol;
                if let Some((ident, offset, more)) = piece {
                    let mut cut = next;
                    let chain = out.extra.chain.map(|chain| {
                        cut = chain.in_first(next).0;
                        chain.in_all(FRAGMENT)
                    });
                    let bytes = frame.push(8);
                    bytes[0] = cut;
                    let mut header = Ipv6FragmentHeader::new_unchecked(&mut bytes[2..]);
                    header.set_frag_offset((offset / 8) as u16);
                    header.set_more_frags(more);
                    header.set_ident(ident);
                    next = FRAGMENT;
                    if let Some((first, mut bytes)) = chain {
                        bytes.extend(frame.flatten());
                        *frame = TxFrame::with_body(Chunk::from(bytes));
                        next = first;
                    }
                }
                let length = frame.len();
                let ttl = out.ttl.unwrap_or(self.default_ttl);
                let mut packet = Ipv6Packet::new_unchecked(frame.push(40));
                packet.set_version(6);
                packet.set_traffic_class(out.tos);
                packet.set_flow_label(out.extra.flow);
                packet.set_payload_len(u16::try_from(length).unwrap_or(0));
                packet.set_next_header(next.into());
                packet.set_hop_limit(ttl);
                packet.set_src_addr(source);
                packet.set_dst_addr(destination);
            }
            _ => {}
        }
    }

    /// Sends a packet in pieces.
    fn fragment(&mut self, path: &Path, out: &Outgoing, frame: &TxFrame, mtu: usize) -> Result<(), Error> {
        let mut header = if out.destination.is_ipv4() { 20 + out.extra.options.len() } else { 48 };
        let mut mtu = mtu;
        let mut bytes = Vec::new();
        if !out.destination.is_ipv4() {
            if let Some(chain) = out.extra.chain {
                header += chain.len_in_all();
                bytes = chain.in_first(out.protocol).1;
            }
            if out.extra.pieces > 0 {
                mtu = mtu.min(out.extra.pieces as usize);
            }
        }
        let step = mtu.saturating_sub(header) & !7;
        if step == 0 {
            return Err(Error::MessageTooLong);
        }
        bytes.extend(frame.flatten());
        let whole = Chunk::from(bytes);
        let ident = self.random.u32();
        let mut at = 0;
        while at < whole.len() {
            let end = (at + step).min(whole.len());
            let mut piece = TxFrame::with_body(whole.slice(at, end));
            self.push_network(out, &mut piece, Some((ident, at, end < whole.len())));
            let stats = self.stats.of(out.destination);
            stats.fragments_created += 1;
            stats.transmitted += 1;
            self.link_output(path, out.destination, piece)?;
            at = end;
        }
        self.stats.of(out.destination).fragmented += 1;
        Ok(())
    }
}
