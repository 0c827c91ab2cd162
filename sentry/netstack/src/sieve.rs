//! Filters of sockets (socket(7), `SO_ATTACH_FILTER`): which datagrams come into a queue, and how much of them.

use crate::addr::Endpoint;
use crate::datagram::Datagram;
use std::net::IpAddr;

/// A datagram as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// From the network header on. Those headers that were never made say what they would have said; their checksums are 0.
    pub packet: &'a [u8],
    /// Where in it the place 0 of a program is.
    pub start: usize,
    /// The EtherType.
    pub protocol: u16,
    /// The interface.
    pub device: u32,
    /// `SO_MARK` of the sender.
    pub mark: u32,
}

/// Decides about datagrams.
pub trait Sieve: Send + Sync {
    /// How many bytes from the start are kept; 0 keeps the datagram out.
    fn keep(&self, seen: &Seen<'_>) -> usize;
}

/// What a socket's datagrams have in front of their data, where its filter begins to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The header of UDP, or of UDP-Lite.
    Udp { lite: bool },
    /// Nothing: they are messages of that protocol, for a raw socket of IPv4 with its header (`whole`).
    Message { protocol: u8, whole: bool },
}

/// The header of UDP.
const UDP: usize = 8;

impl Shape {
    /// Bytes of the header that is before the data.
    fn head(self) -> usize {
        if matches!(self, Shape::Udp { .. }) { UDP } else { 0 }
    }

    /// A datagram with its headers, and where its data begins.
    pub(crate) fn packet(self, d: &Datagram) -> (Vec<u8>, usize) {
        let mut packet = Vec::new();
        let protocol = match self {
            Shape::Udp { lite: false } => 17,
            Shape::Udp { lite: true } => 136,
            Shape::Message { protocol, .. } => protocol,
        };
        let head = self.head();
        if self != (Shape::Message { protocol, whole: true }) {
            network_header(&mut packet, (d.from.ip, d.to.ip), (d.ttl, d.tos), protocol, head + d.data.len());
        }
        if head > 0 {
            packet.extend(d.from.port.to_be_bytes());
            packet.extend(d.to.port.to_be_bytes());
            packet.extend(u16::try_from(UDP + d.data.len()).unwrap_or(u16::MAX).to_be_bytes());
            packet.extend([0; 2]);
        }
        let start = packet.len();
        packet.extend_from_slice(d.data.bytes());
        (packet, start)
    }

    /// Asks a sieve about a datagram and cuts it; false if it is kept out.
    pub(crate) fn passes(self, sieve: &dyn Sieve, d: &mut Datagram) -> bool {
        let (packet, start) = self.packet(d);
        let head = self.head();
        let protocol = if d.to.ip.is_ipv4() { 0x0800 } else { 0x86dd };
        let seen =
            Seen { packet: &packet, start: start - head, protocol, device: d.device, mark: d.tag.mark };
        let kept = sieve.keep(&seen);
        // The header stays, whatever the program says.
        d.data.truncate(kept.saturating_sub(head).min(d.data.len()));
        kept > 0
    }
}

/// The headers of the segment that begins a connection, and where they end.
pub(crate) fn segment_header(from: Endpoint, to: Endpoint) -> (Vec<u8>, usize) {
    const TCP: u8 = 6;
    const SYN: u8 = 2;
    let mut packet = Vec::new();
    network_header(&mut packet, (from.ip, to.ip), (64, 0), TCP, 20);
    packet.extend(from.port.to_be_bytes());
    packet.extend(to.port.to_be_bytes());
    packet.extend([0; 8]);
    packet.extend([0x50, SYN, 0, 0, 0, 0, 0, 0]);
    let end = packet.len();
    (packet, end)
}

fn network_header(
    out: &mut Vec<u8>,
    ends: (IpAddr, IpAddr),
    (ttl, tos): (u8, u8),
    protocol: u8,
    length: usize,
) {
    match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend([0x45, tos]);
            out.extend(u16::try_from(20 + length).unwrap_or(u16::MAX).to_be_bytes());
            out.extend([0; 4]);
            out.extend([ttl, protocol, 0, 0]);
            out.extend(from.octets());
            out.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            out.extend((6 << 28 | u32::from(tos) << 20).to_be_bytes());
            out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
            out.extend([protocol, ttl]);
            out.extend(from.octets());
            out.extend(to.octets());
        }
        // There are no others.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;
    use crate::buf::Buf;
    use std::sync::Mutex;

    /// Keeps so much, and remembers what it saw.
    struct Keep(usize, Mutex<(Vec<u8>, usize)>);
    impl Sieve for Keep {
        fn keep(&self, seen: &Seen<'_>) -> usize {
            *self.1.lock().unwrap() = (seen.packet.to_vec(), seen.start);
            self.0
        }
    }

    fn run(shape: Shape, from: &str, to: &str, keep: usize) -> (bool, Vec<u8>, Vec<u8>, usize) {
        let end = |text: &str, port| Endpoint::new(text.parse().unwrap(), port);
        let mut d = Datagram {
            from: end(from, 0x0102),
            to: end(to, 0x0304),
            device: 1,
            data: Buf::copy_of(b"abcdef"),
            time: 0,
            ttl: 9,
            tos: 0x10,
            drops: 0,
            tag: Default::default(),
            segment: None,
            fragment: 0,
            between: None,
            flow: 0,
        };
        let sieve = Keep(keep, Mutex::default());
        let passes = shape.passes(&sieve, &mut d);
        let (packet, start) = sieve.1.into_inner().unwrap();
        (passes, d.data.bytes().to_vec(), packet, start)
    }

    #[test]
    fn headers_are_made_and_stay() {
        let udp = Shape::Udp { lite: false };
        let (passes, data, packet, start) = run(udp, "127.0.0.1", "127.0.0.2", 10);
        assert!(passes);
        assert_eq!((data, start), (b"ab".to_vec(), 20));
        assert_eq!(packet[..10], [0x45, 0x10, 0, 34, 0, 0, 0, 0, 9, 17]);
        assert_eq!(packet[12..28], [127, 0, 0, 1, 127, 0, 0, 2, 1, 2, 3, 4, 0, 14, 0, 0]);
        assert_eq!(packet[28..], *b"abcdef");
        assert_eq!(run(udp, "::1", "::1", 1).1, b"");
        assert_eq!(run(udp, "::1", "::1", 1).3, 40);
        assert!(!run(udp, "::1", "::1", 0).0);
    }

    #[test]
    fn messages_have_no_header_of_their_own() {
        let ping = Shape::Message { protocol: 1, whole: false };
        assert_eq!(run(ping, "127.0.0.1", "127.0.0.1", 3).1, b"abc");
        assert_eq!(run(ping, "127.0.0.1", "127.0.0.1", 3).3, 20);
        let raw = Shape::Message { protocol: 1, whole: true };
        let (_, data, packet, start) = run(raw, "127.0.0.1", "127.0.0.1", 99);
        assert_eq!((data, packet, start), (b"abcdef".to_vec(), b"abcdef".to_vec(), 0));
    }
}
