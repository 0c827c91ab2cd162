//! Endpoints that see packets below the transport: raw sockets of a protocol and ping sockets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::checksum::{self, Sum};
use super::chunk::Chunk;
use super::error::{Error, PacketError};
use super::events::{Datagram, DatagramSink, Event};
use super::frame::TxFrame;
use super::net::{ICMP, ICMPV6, Net, Packet};
use super::sending::Outgoing;
use super::slab::{Handle, Slab};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    pub interface: Option<u32>,
    /// Where it goes first, if a source route says so.
    pub hop: Option<IpAddr>,
    /// Only to what is on a link (MSG_DONTROUTE).
    pub direct: bool,
}

/// What an endpoint sees.
#[derive(Clone, Debug)]
pub struct RawBinding {
    pub v4: bool,
    pub protocol: u8,
    pub local: Option<IpAddr>,
    pub remote: Option<IpAddr>,
    pub interface: Option<u32>,
    /// A ping socket: only answers to this identifier.
    pub ident: Option<u16>,
}

struct Endpoint {
    binding: RawBinding,
    sink: Arc<dyn DatagramSink>,
}

#[derive(Default)]
pub struct Raw {
    endpoints: Slab<Endpoint>,
}

impl Raw {
    pub fn bind(&mut self, binding: RawBinding, sink: Arc<dyn DatagramSink>) -> Handle {
        self.endpoints.insert(Endpoint { binding, sink })
    }

    pub fn rebind(&mut self, handle: Handle, change: impl FnOnce(&mut RawBinding)) -> Result<(), Error> {
        change(&mut self.endpoints.get_mut(handle).ok_or(Error::Stale)?.binding);
        Ok(())
    }

    pub fn close(&mut self, handle: Handle) {
        self.endpoints.remove(handle);
    }

    /// Shows a packet to who wants to see it; true if somebody did.
    pub fn input(&mut self, net: &mut Net, packet: &Packet) -> bool {
        if self.endpoints.is_empty() {
            return false;
        }
        let mut seen = false;
        let v4 = packet.source.is_ipv4();
        let bytes = packet.payload();
        let reply = matches!((packet.protocol, bytes.first()), (ICMP, Some(0)) | (ICMPV6, Some(129)));
        let ident = bytes.get(4..6).map(|b| u16::from_be_bytes([b[0], b[1]]));
        for (_, endpoint) in self.endpoints.iter() {
            let binding = &endpoint.binding;
            let fits = binding.v4 == v4
                && binding.protocol == packet.protocol
                && binding.local.is_none_or(|ip| ip == packet.destination)
                && binding.remote.is_none_or(|ip| ip == packet.source)
                && binding.interface.is_none_or(|index| index == packet.interface)
                && binding.ident.is_none_or(|own| reply && ident == Some(own));
            if !fits {
                continue;
            }
            seen = true;
            // Raw sockets of IPv4 see the header; those of IPv6 and ping sockets do not.
            let (payload, header) = if v4 && binding.ident.is_none() {
                (packet.data.clone(), packet.transport)
            } else {
                (packet.data.slice(packet.transport, packet.data.len()), 0)
            };
            let datagram = Datagram {
                destination_port: binding.ident.unwrap_or(0),
                header,
                ..packet.datagram(payload, net.now)
            };
            net.events.push(Event::Datagram(endpoint.sink.clone(), datagram));
        }
        seen
    }

    /// Sends a payload under an IP header made here. `checksum_at`: where a checksum over the payload
    /// (with the pseudo header of IPv6) has to be put.
    pub fn send(
        &mut self,
        net: &mut Net,
        out: &Outgoing,
        way: Way,
        payload: &[u8],
        checksum_at: Option<usize>,
    ) -> Result<(), Error> {
        let source = Some(out.source).filter(|ip| !ip.is_unspecified());
        let hop = way.hop.unwrap_or(out.destination);
        let path = net.path_by(hop, source, way.interface, way.direct)?;
        let mut bytes = payload.to_vec();
        if let Some(at) = checksum_at {
            let field = bytes.get_mut(at..at + 2).ok_or(Error::Invalid)?;
            field.fill(0);
            let mut sum = match out.destination {
                IpAddr::V4(_) => Sum::default(),
                IpAddr::V6(_) => Sum::pseudo(path.source, out.destination, out.protocol, payload.len()),
            };
            sum.add(&bytes);
            bytes[at..at + 2].copy_from_slice(&sum.finish().to_be_bytes());
        }
        let out = Outgoing { source: path.source, destination: hop, ..*out };
        net.output_bytes(&path, &out, &bytes)
    }

    /// Sends a packet whose header the user made. Of IPv4 (IP_HDRINCL) length, checksum, and source and identification if they
    /// are zero, are filled as raw(7) says; of IPv6 (IPV6_HDRINCL) nothing.
    pub fn send_with_header(
        &mut self,
        net: &mut Net,
        to: IpAddr,
        way: Way,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let mut bytes = bytes.to_vec();
        if to.is_ipv6() {
            let path = net.path_by(to, None, way.interface, way.direct)?;
            if bytes.len() < 40 {
                return Err(Error::Invalid);
            }
            if bytes.len() > path.mtu {
                return Err(Error::MessageTooLong);
            }
            return net.link_output(&path, to, TxFrame::with_body(Chunk::from(bytes)));
        }
        let header = bytes.first().map_or(0, |first| usize::from(first & 15) * 4);
        if header < 20 || bytes.len() < header || bytes.len() > 65_535 {
            return Err(Error::Invalid);
        }
        let path = net.path_by(to, None, way.interface, way.direct)?;
        if bytes.len() > path.mtu {
            return Err(Error::MessageTooLong);
        }
        let length = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        if bytes[4..6] == [0, 0] {
            let ident = net.random.u32() as u16;
            bytes[4..6].copy_from_slice(&ident.to_be_bytes());
        }
        if let (true, IpAddr::V4(source)) = (bytes[12..16] == [0; 4], path.source) {
            bytes[12..16].copy_from_slice(&source.octets());
        }
        bytes[10..12].fill(0);
        let sum = checksum::of(&bytes[..header]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        net.link_output(&path, to, TxFrame::with_body(Chunk::from(bytes)))
    }

    pub fn packet_error(&mut self, net: &mut Net, error: &PacketError) {
        for (_, endpoint) in self.endpoints.iter() {
            let binding = &endpoint.binding;
            let own = u16::from_be_bytes([error.header[4], error.header[5]]);
            let fits = binding.protocol == error.protocol
                && binding.v4 == error.local.is_ipv4()
                && binding.remote.is_none_or(|ip| ip == error.remote)
                && binding.ident.is_none_or(|ident| ident == own);
            if fits {
                net.events.push(Event::Error(endpoint.sink.clone(), error.clone()));
            }
        }
    }

    /// An identifier that no ping socket has.
    pub fn free_ident(&self, net: &mut Net) -> u16 {
        loop {
            let ident = net.random.u32() as u16;
            if ident != 0 && !self.endpoints.iter().any(|(_, e)| e.binding.ident == Some(ident)) {
                return ident;
            }
        }
    }

    /// A ping by a ping socket: the identifier and checksum are filled.
    pub fn ping(
        &mut self,
        net: &mut Net,
        from: SocketAddr,
        out: &Outgoing,
        way: Way,
        message: &[u8],
    ) -> Result<(), Error> {
        let kind = if out.destination.is_ipv4() { 8 } else { 128 };
        if message.len() < 8 || message[0] != kind || message[1] != 0 {
            return Err(Error::Invalid);
        }
        let mut bytes = message.to_vec();
        bytes[4..6].copy_from_slice(&from.port().to_be_bytes());
        self.send(net, out, way, &bytes, Some(2))
    }
}
