//! Packets of raw and ping sockets to this stack itself, and what answers them: the loopback interface,
//! as far as anybody can see it.

use super::{ICMP, ICMPV6, RawHow, RawSocket};
use crate::addr::{Endpoint, Family};
use crate::buf::Buf;
use crate::datagram::{Datagram, SendHow, Tag};
use crate::engine::checksum::{self, Sum};
use crate::engine::ipv6::{Place, Walk};
use crate::error::{NetError, Result};
use crate::extensions::{Arrival, Between};
use crate::interface::LOOPBACK;
use crate::lengths::Beside;
use crate::options::{Giver, Options, Stamp};
use crate::stack::Stack;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const TCP: u8 = 6;
const UDP: u8 = 17;
const LITE: u8 = 136;

/// A packet without its header of IP.
#[derive(Clone)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ttl: u8,
    tos: u8,
    tag: Tag,
    /// It may not be cut (IPv4).
    whole: bool,
    between: Option<Between>,
    flow: u32,
    /// The largest piece it came in, or 0.
    fragment: u32,
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
        to: Endpoint,
        hop: IpAddr,
        data: &[u8],
        how: &SendHow,
        raw: RawHow,
        ident: Option<u16>,
        beside: &Beside,
        fragment: u32,
    ) -> Result<()> {
        if raw.header_included {
            let packet = match to.ip {
                IpAddr::V4(_) => {
                    let Some(packet) = self.with_options(parse_header(data, source)?) else { return Ok(()) };
                    packet
                }
                IpAddr::V6(_) => match read_packet(data)? {
                    Ok((packet, named)) => {
                        if !self.stack().knows(&packet) {
                            self.stack().local_problem(data, Some((1, named)));
                        }
                        packet
                    }
                    Err(problem) => {
                        self.stack().local_problem(data, problem);
                        return Ok(());
                    }
                },
            };
            self.stack().local_packet(Packet { tag: how.tag, ..packet });
            return Ok(());
        }
        let mut problem = None;
        let between = match beside.arrive(hop, self.protocol, self.stack().env.realtime()) {
            Arrival::Taken(between) => between,
            Arrival::Lost => return Ok(()),
            Arrival::Problem(code, pointer) => {
                problem = Some((code, pointer));
                None
            }
        };
        let mut packet = Packet {
            source,
            destination: to.ip,
            protocol: self.protocol,
            ttl: how.ttl,
            tos: how.tos,
            tag: how.tag,
            whole: fragment == 0 && matches!(how.discover, 1..=3),
            between,
            flow: beside.flow(),
            fragment,
            data: data.to_vec(),
        };
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
        match problem {
            None => self.stack().local_packet(packet),
            // Less would not tell whose packet it was.
            Some((code, pointer)) if packet.data.len() >= 8 => {
                self.problem(to.with_port(0), hop, code, pointer, Buf::from_vec(packet.data));
            }
            Some(_) => {}
        }
        Ok(())
    }
}

impl RawSocket {
    /// What a packet's own options make of it: nothing if it is dropped for them.
    fn with_options(&self, mut packet: Packet) -> Option<Packet> {
        if let (Some(between), IpAddr::V4(own)) = (&mut packet.between, packet.destination) {
            let options = Options::read(&between.bytes, Giver::Packet).ok()?;
            if options.is_source_routed() {
                return None;
            }
            let options = options.arrived(Stamp::new(own, self.stack().env.realtime()));
            between.bytes = options.told().into();
        }
        Some(packet)
    }
}

/// A packet and where its protocol is named, or what its receiver has to say of it, if anything.
type Read = std::result::Result<(Packet, u32), Option<(u8, u32)>>;

/// Reads a packet of IPv6 that its sender made whole (`IPV6_HDRINCL`). EINVAL.
fn read_packet(data: &[u8]) -> Result<Read> {
    let header = data.get(..40).ok_or(NetError::Invalid)?;
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap_or_default());
    let (source, destination) = (address(8), address(24));
    let length = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || length > data.len() || source.is_multicast() {
        return Ok(Err(None));
    }
    let data = &data[..length];
    let mut place = Place::new(header[6]);
    let mut fragment = 0;
    loop {
        match place.walk(data, destination.is_multicast()) {
            Walk::Done => break,
            Walk::Drop => return Ok(Err(None)),
            Walk::Problem(code, at) => {
                return Ok(Err(Some((code, u32::try_from(at).unwrap_or(u32::MAX)))));
            }
            // One that is the whole packet (RFC 6946); others would have to wait for their kin.
            Walk::Fragment(_) => match data.get(place.transport..place.transport + 8) {
                Some([next, _, offset, more, ..]) if *offset == 0 && more & 0xf9 == 0 => {
                    fragment = u32::try_from(length).unwrap_or(u32::MAX);
                    place.protocol = *next;
                    place.transport += 8;
                }
                _ => return Ok(Err(None)),
            },
        }
    }
    let between = data.get(40..place.transport).filter(|bytes| !bytes.is_empty());
    let packet = Packet {
        tag: Tag::default(),
        source: source.into(),
        destination: destination.into(),
        protocol: place.protocol,
        ttl: header[7],
        tos: (header[0] << 4) | (header[1] >> 4),
        whole: true,
        between: between.map(|bytes| Between { first: header[6], bytes: bytes.into() }),
        flow: u32::from_be_bytes([0, header[1] & 15, header[2], header[3]]),
        fragment,
        data: data.get(place.transport..).unwrap_or_default().to_vec(),
    };
    Ok(Ok((packet, u32::try_from(place.named).unwrap_or(0))))
}

/// A packet that its sender made with its header (`IP_HDRINCL`): EINVAL.
fn parse_header(data: &[u8], source: IpAddr) -> Result<Packet> {
    let length = data.first().map_or(0, |first| usize::from(first & 15) * 4);
    if length < 20 || data.len() < length {
        return Err(NetError::Invalid);
    }
    let word = |at: usize| Ipv4Addr::new(data[at], data[at + 1], data[at + 2], data[at + 3]);
    let from = IpAddr::V4(word(12));
    let options = &data[20..length];
    Ok(Packet {
        source: if from.is_unspecified() { source } else { from },
        destination: IpAddr::V4(word(16)),
        protocol: data[9],
        ttl: data[8],
        tos: data[1],
        tag: Tag::default(),
        whole: data[6] & 0x40 != 0,
        between: (!options.is_empty()).then(|| Between { first: 0, bytes: options.into() }),
        flow: 0,
        fragment: 0,
        data: data[length..].to_vec(),
    })
}

impl Packet {
    /// The header of IPv4 that raw sockets see.
    fn header(&self, ident: u16) -> Vec<u8> {
        let options = self.between.as_ref().map(|between| &*between.bytes).unwrap_or_default();
        let mut h = vec![0u8; 20];
        h.extend_from_slice(options);
        h[0] = 0x40 | u8::try_from(h.len() / 4).unwrap_or(5);
        h[1] = self.tos;
        let length = u16::try_from(self.data.len() + h.len()).unwrap_or(u16::MAX);
        h[2..4].copy_from_slice(&length.to_be_bytes());
        h[4..6].copy_from_slice(&ident.to_be_bytes());
        h[6] = if self.whole { 0x40 } else { 0 };
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

    /// The answer to an echo request.
    fn answer(&self, stack: &Stack) -> Packet {
        let mut data = self.data.clone();
        data[0] = if self.destination.is_ipv4() { 0 } else { 129 };
        data[2..4].fill(0);
        let (source, destination) = (self.destination, self.source);
        let check = sum(source, destination, self.protocol, &data);
        data[2..4].copy_from_slice(&check.to_be_bytes());
        let mut between = None;
        if let (Some(options), IpAddr::V4(from), IpAddr::V4(to)) = (&self.between, source, destination) {
            // What is recorded is recorded on the way back, too, and by who gets it.
            let now = stack.env.realtime();
            let came = Options::read(&options.bytes, Giver::Packet).unwrap_or_default();
            let back = Options::read(&came.echoed(), Giver::Packet).unwrap_or_default();
            let sent = back.sent(Stamp::new(from, now), to);
            let told = Options::read(&sent.bytes, Giver::Packet).unwrap_or_default();
            let told = told.arrived(Stamp::new(to, now));
            between = (!told.is_empty()).then(|| Between { first: 0, bytes: told.told().into() });
        }
        let whole = self.fragment == 0;
        Packet {
            source,
            destination,
            data,
            ttl: 64,
            tag: Tag::default(),
            between,
            flow: 0,
            whole,
            ..self.clone()
        }
    }
}

impl Stack {
    /// Whether somebody here speaks the protocol of a packet.
    fn knows(&self, packet: &Packet) -> bool {
        let takes = |s: &Arc<RawSocket>| !s.ping && s.protocol == packet.protocol && s.meant(packet);
        matches!(packet.protocol, TCP | UDP | LITE | ICMPV6) || self.raw_sockets().iter().any(takes)
    }

    /// A packet of IPv6 of this host to itself has a problem: raw sockets see what ICMPv6 says of it.
    fn local_problem(&self, data: &[u8], problem: Option<(u8, u32)>) {
        let (Some((code, pointer)), Some(header)) = (problem, data.get(..40)) else { return };
        let address =
            |at: usize| IpAddr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap_or_default());
        let (source, destination) = (address(24), address(8));
        if source.is_multicast() || destination.is_unspecified() {
            return;
        }
        let mut message = vec![4, code, 0, 0];
        message.extend(pointer.to_be_bytes());
        message.extend_from_slice(&data[..data.len().min(1280 - 48)]);
        let check = sum(source, destination, ICMPV6, &message);
        message[2..4].copy_from_slice(&check.to_be_bytes());
        self.local_packet(Packet {
            tag: Tag::default(),
            source,
            destination,
            protocol: ICMPV6,
            ttl: 64,
            tos: 0,
            whole: true,
            between: None,
            flow: 0,
            fragment: 0,
            data: message,
        });
    }

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
            fragment: packet.fragment,
            between: packet.between.clone(),
            flow: packet.flow,
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
                self.local_packet(packet.answer(self));
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
