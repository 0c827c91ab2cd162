//! UDP (RFC 768): endpoints found by ports and addresses, datagrams in and out, errors for their senders.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use smallvec::SmallVec;
use smoltcp::wire::UdpPacket;

use super::checksum::Sum;
use super::chunk::Chunk;
use super::error::{Error, PacketError};
use super::events::{Datagram, DatagramSink, Event};
use super::frame::{Body, RxChecksum, SegmentKind, Segmentation, TxFrame};
use super::icmp::PORT_UNREACHABLE;
use super::net::{Net, Packet, UDP};
use super::sending::{Extra, Fragmenting, Outgoing};
use super::slab::{Handle, Slab};

/// Where an endpoint receives.
#[derive(Clone, Debug)]
pub struct UdpBinding {
    pub local: SocketAddr,
    pub remote: Option<SocketAddr>,
    pub only_v6: bool,
    pub interface: Option<u32>,
    /// One of a group that shares the port: datagrams are spread (SO_REUSEPORT).
    pub shared: bool,
    /// Takes datagrams of groups that only others joined (IP_MULTICAST_ALL).
    pub all_groups: bool,
    pub groups: SmallVec<[(u32, IpAddr); 2]>,
}

impl UdpBinding {
    pub fn new(local: SocketAddr) -> UdpBinding {
        UdpBinding {
            local,
            remote: None,
            only_v6: false,
            interface: None,
            shared: false,
            all_groups: true,
            groups: SmallVec::new(),
        }
    }

    fn score(&self, local: SocketAddr, remote: SocketAddr, interface: u32) -> Option<u32> {
        let mut score = match (self.local.ip(), local.ip()) {
            (own, to) if own == to => 4,
            (own, to) if own.is_unspecified() && own.is_ipv4() == to.is_ipv4() => 2,
            (IpAddr::V6(own), IpAddr::V4(_)) if own.is_unspecified() && !self.only_v6 => 1,
            _ => return None,
        };
        if let Some(wanted) = self.remote {
            if wanted != remote {
                return None;
            }
            score += 8;
        }
        if let Some(wanted) = self.interface {
            if wanted != interface {
                return None;
            }
            score += 8;
        }
        Some(score)
    }
}

struct Endpoint {
    binding: UdpBinding,
    sink: Arc<dyn DatagramSink>,
}

/// How a datagram is sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct UdpSend<'a> {
    pub interface: Option<u32>,
    pub ttl: Option<u8>,
    pub tos: u8,
    pub fragmenting: Fragmenting,
    pub ignore_path_mtu: bool,
    /// SO_NO_CHECK of IPv4, UDP_NO_CHECK6_TX.
    pub no_checksum: bool,
    /// Cut the payload into datagrams of this size (UDP_SEGMENT).
    pub segment: Option<u16>,
    /// Where it goes first, if a source route says so.
    pub hop: Option<IpAddr>,
    /// Only to what is on a link (MSG_DONTROUTE).
    pub direct: bool,
    pub extra: Extra<'a>,
}

#[derive(Default)]
pub struct Udp {
    endpoints: Slab<Endpoint>,
    ports: HashMap<u16, SmallVec<[Handle; 2]>>,
}

impl Udp {
    pub fn bind(&mut self, binding: UdpBinding, sink: Arc<dyn DatagramSink>) -> Handle {
        let port = binding.local.port();
        let handle = self.endpoints.insert(Endpoint { binding, sink });
        self.ports.entry(port).or_default().push(handle);
        handle
    }

    /// Changes where an endpoint receives, but not its port.
    pub fn rebind(&mut self, handle: Handle, change: impl FnOnce(&mut UdpBinding)) -> Result<(), Error> {
        let endpoint = self.endpoints.get_mut(handle).ok_or(Error::Stale)?;
        let port = endpoint.binding.local.port();
        change(&mut endpoint.binding);
        endpoint.binding.local.set_port(port);
        Ok(())
    }

    pub fn close(&mut self, handle: Handle) {
        if let Some(endpoint) = self.endpoints.remove(handle) {
            let port = endpoint.binding.local.port();
            if let Some(list) = self.ports.get_mut(&port) {
                list.retain(|other| *other != handle);
                if list.is_empty() {
                    self.ports.remove(&port);
                }
            }
        }
    }

    pub fn input(&mut self, net: &mut Net, packet: &Packet) {
        let bytes = packet.payload();
        let Ok(udp) = UdpPacket::new_checked(bytes) else { return };
        // A joined frame of datagrams is longer than the field can tell.
        let length = if packet.segment.is_some() { bytes.len() } else { usize::from(udp.len()) };
        let unchecked = udp.checksum() == 0 && packet.source.is_ipv4();
        if packet.checksum == RxChecksum::Unknown && !unchecked {
            let mut sum = Sum::pseudo(packet.source, packet.destination, UDP, length);
            sum.add(&bytes[..length]);
            // IPv6 has no datagrams without a checksum but for those who ask (RFC 6935, UDP_NO_CHECK6_RX).
            let ends = (
                SocketAddr::new(packet.destination, udp.dst_port()),
                SocketAddr::new(packet.source, udp.src_port()),
            );
            let asked =
                || net.upper.as_ref().is_some_and(|u| u.takes_unchecked(ends.0, ends.1, packet.interface));
            if if udp.checksum() == 0 { !asked() } else { !sum.intact() } {
                net.stats.of(packet.source).udp_checksum_errors += 1;
                return;
            }
        }
        let local = SocketAddr::new(packet.destination, udp.dst_port());
        let remote = SocketAddr::new(packet.source, udp.src_port());
        let datagram = |payload: Chunk| Datagram {
            source_port: remote.port(),
            destination_port: local.port(),
            segment: packet.segment,
            ..packet.datagram(payload, net.now)
        };
        let payload = packet.data.slice(packet.transport + 8, packet.transport + length);
        let list = self.ports.get(&local.port()).map(SmallVec::as_slice).unwrap_or_default();
        let upper = net.upper.clone();
        if packet.multicast {
            if let Some(upper) = upper {
                net.stats.of(packet.source).udp_in += 1;
                net.events.push(Event::Datagram(upper, datagram(payload.clone())));
            }
            for handle in list {
                let Some(endpoint) = self.endpoints.get(*handle) else { continue };
                if endpoint.binding.takes_group(local, remote, packet.interface) {
                    net.stats.of(packet.source).udp_in += 1;
                    net.events.push(Event::Datagram(endpoint.sink.clone(), datagram(payload.clone())));
                }
            }
            return;
        }
        let score =
            |handle: &Handle| self.endpoints.get(*handle)?.binding.score(local, remote, packet.interface);
        let Some(best) = list.iter().filter_map(score).max() else {
            if let Some(upper) = upper.filter(|upper| upper.takes(local, remote, packet.interface)) {
                net.stats.of(packet.source).udp_in += 1;
                net.events.push(Event::Datagram(upper, datagram(payload)));
                return;
            }
            net.stats.of(packet.source).udp_no_port += 1;
            net.icmp_unreachable(packet, PORT_UNREACHABLE);
            return;
        };
        let fit: SmallVec<[Handle; 8]> = list.iter().filter(|h| score(h) == Some(best)).copied().collect();
        let shared = fit.iter().all(|h| self.endpoints.get(*h).is_some_and(|e| e.binding.shared));
        let choice = if shared {
            use std::hash::BuildHasher;
            (net.hash.hash_one((remote, local.port())) % fit.len().max(1) as u64) as usize
        } else {
            // The last one bound wins, as in Linux.
            fit.len().saturating_sub(1)
        };
        if let Some(endpoint) = fit.get(choice).and_then(|handle| self.endpoints.get(*handle)) {
            net.stats.of(packet.source).udp_in += 1;
            net.events.push(Event::Datagram(endpoint.sink.clone(), datagram(payload)));
        }
    }

    /// Sends a datagram. The source address is chosen if it is not specified; the source is returned.
    pub fn send(
        &mut self,
        net: &mut Net,
        from: SocketAddr,
        to: SocketAddr,
        how: &UdpSend,
        payload: Body,
    ) -> Result<IpAddr, Error> {
        if to.port() == 0 {
            return Err(Error::Invalid);
        }
        let length: usize = payload.iter().map(|chunk| chunk.len()).sum();
        let source = Some(from.ip()).filter(|ip| !ip.is_unspecified());
        let path = net.path_by(how.hop.unwrap_or(to.ip()), source, how.interface, how.direct)?;
        let from = SocketAddr::new(path.source, from.port());
        match how.segment.map(usize::from).filter(|size| *size > 0 && *size < length) {
            None => {
                if length > 65_535 - 8 - if to.is_ipv4() { 20 } else { 0 } {
                    return Err(Error::MessageTooLong);
                }
                let mut frame = TxFrame::default();
                frame.body = payload;
                Udp::push_header(&mut frame, from, to, how);
                Udp::output(net, &path, from, to, how, frame)?;
            }
            Some(size) => {
                if size + 28 > path.mtu || length.div_ceil(size) > 64 {
                    return Err(Error::Invalid);
                }
                let whole = if payload.len() == 1 {
                    payload[0].clone()
                } else {
                    Chunk::from(payload.iter().flat_map(|chunk| chunk.iter().copied()).collect::<Vec<u8>>())
                };
                let cuts = net.interface(path.interface).is_some_and(|i| i.capabilities.udp_segmentation);
                let step = if cuts && !path.local && length < 65_000 { length } else { size };
                let mut at = 0;
                while at < whole.len() {
                    let end = (at + step).min(whole.len());
                    let mut frame = TxFrame::with_body(whole.slice(at, end));
                    if step > size {
                        frame.segmentation = Some(Segmentation { kind: SegmentKind::Udp, size: size as u16 });
                    }
                    Udp::push_header(&mut frame, from, to, how);
                    Udp::output(net, &path, from, to, how, frame)?;
                    at = end;
                }
            }
        }
        Ok(from.ip())
    }

    fn push_header(frame: &mut TxFrame, from: SocketAddr, to: SocketAddr, how: &UdpSend) {
        let length = frame.body_len() + 8;
        let bytes = frame.push(8);
        let mut udp = UdpPacket::new_unchecked(&mut bytes[..]);
        udp.set_src_port(from.port());
        udp.set_dst_port(to.port());
        udp.set_len(u16::try_from(length).unwrap_or(0));
        udp.set_checksum(0);
        frame.mark_transport();
        if !how.no_checksum {
            let sum = Sum::pseudo(from.ip(), to.ip(), UDP, length).partial();
            frame.head_mut()[6..8].copy_from_slice(&sum.to_be_bytes());
            frame.offload_checksum(6);
        }
    }

    fn output(
        net: &mut Net,
        path: &super::route::Path,
        from: SocketAddr,
        to: SocketAddr,
        how: &UdpSend,
        frame: TxFrame,
    ) -> Result<(), Error> {
        net.stats.of(to.ip()).udp_out += 1;
        let ttl = how.ttl.or(to.ip().is_multicast().then_some(1));
        let out = Outgoing {
            ttl,
            tos: how.tos,
            fragmenting: how.fragmenting,
            ignore_path_mtu: how.ignore_path_mtu,
            extra: how.extra,
            ..Outgoing::new(from.ip(), how.hop.unwrap_or(to.ip()), UDP)
        };
        net.output(path, &out, frame)
    }

    pub fn packet_error(&mut self, net: &mut Net, error: &PacketError) {
        let (own, peer) = error.ports();
        let local = SocketAddr::new(error.local, own);
        let remote = SocketAddr::new(error.remote, peer);
        let Some(list) = self.ports.get(&own) else {
            if let Some(upper) = &net.upper {
                net.events.push(Event::Error(upper.clone(), error.clone()));
            }
            return;
        };
        let score =
            |handle: &&Handle| self.endpoints.get(**handle)?.binding.score(local, remote, error.interface);
        let best = list.iter().filter(|h| score(h).is_some()).max_by_key(score);
        if let Some(endpoint) = best.and_then(|handle| self.endpoints.get(*handle)) {
            net.events.push(Event::Error(endpoint.sink.clone(), error.clone()));
        }
    }

    /// Endpoints there are.
    pub fn count(&self) -> usize {
        self.endpoints.len()
    }
}

impl UdpBinding {
    fn takes_group(&self, local: SocketAddr, remote: SocketAddr, interface: u32) -> bool {
        let fits = self.score(local, remote, interface).is_some();
        let joined = self
            .groups
            .iter()
            .any(|(index, group)| *group == local.ip() && (*index == 0 || *index == interface));
        let broadcast = !local.ip().is_multicast();
        fits && (broadcast || joined || self.all_groups || self.local.ip() == local.ip())
    }
}
