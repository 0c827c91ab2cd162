//! Extension headers of IPv6 (RFC 8200, RFC 3542): what a datagram is sent with, and what is told of one that came.

use crate::engine::ipv6::{Place, Walk};
use std::net::Ipv6Addr;
use std::sync::Arc;

pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const DESTINATION: u8 = 60;

/// The header of IPv6 itself.
const BASE: usize = 40;

/// The headers of a datagram that is sent; each is whole, with its two first bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// `IPV6_HOPOPTS`
    pub hop: Option<Vec<u8>>,
    /// `IPV6_RTHDRDSTOPTS`: only with a routing header.
    pub before_routing: Option<Vec<u8>>,
    /// `IPV6_RTHDR`
    pub routing: Option<Vec<u8>>,
    /// `IPV6_DSTOPTS`
    pub destination: Option<Vec<u8>>,
}

/// The headers of one packet in their order, ready to be put in front of its transport's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    headers: Vec<(u8, Vec<u8>)>,
    /// How many of them are in each piece of a packet that is cut.
    in_all: usize,
}

impl Extensions {
    pub fn is_empty(&self) -> bool {
        *self == Extensions::default()
    }

    /// Where a packet goes first on its way to `to`.
    pub fn first_hop(&self, to: Ipv6Addr) -> Ipv6Addr {
        let address = |header: &Vec<u8>| {
            // Type 2 has one address; a segment routing header (type 4) says which is the first.
            let index = match header.get(2)? {
                4 => usize::from(*header.get(3)?),
                _ => 0,
            };
            let at = 8 + index * 16;
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(header.get(at..at + 16)?).ok()?))
        };
        self.routing.as_ref().and_then(address).unwrap_or(to)
    }

    /// The headers of a packet to `to`.
    pub fn chain(&self, to: Ipv6Addr) -> Chain {
        let mut headers = Vec::new();
        headers.extend(self.hop.clone().map(|h| (HOP_BY_HOP, h)));
        if let Some(mut routing) = self.routing.clone() {
            headers.extend(self.before_routing.clone().map(|h| (DESTINATION, h)));
            // What the header of IPv6 has no place for: the end of the way.
            if let Some(last) = routing.get_mut(8..24) {
                last.copy_from_slice(&to.octets());
            }
            headers.push((ROUTING, routing));
        }
        let in_all = headers.len();
        headers.extend(self.destination.clone().map(|h| (DESTINATION, h)));
        Chain { headers, in_all }
    }
}

impl Chain {
    /// The kind of the first of some headers, and the bytes of all of them in front of `next`.
    fn bytes(&self, headers: &[(u8, Vec<u8>)], next: u8) -> (u8, Vec<u8>) {
        let mut out = Vec::new();
        for (index, (_, header)) in headers.iter().enumerate() {
            let at = out.len();
            out.extend_from_slice(header);
            out[at] = headers.get(index + 1).map_or(next, |(kind, _)| *kind);
        }
        (headers.first().map_or(next, |(kind, _)| *kind), out)
    }

    /// All headers in front of `next`.
    pub fn whole(&self, next: u8) -> (u8, Vec<u8>) {
        self.bytes(&self.headers, next)
    }

    /// Those that each piece has.
    pub fn in_all(&self, next: u8) -> (u8, Vec<u8>) {
        self.bytes(&self.headers[..self.in_all], next)
    }

    /// Those that are cut with the rest.
    pub fn in_first(&self, next: u8) -> (u8, Vec<u8>) {
        self.bytes(&self.headers[self.in_all..], next)
    }

    /// Bytes of all.
    pub fn len(&self) -> usize {
        self.headers.iter().map(|(_, header)| header.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    /// Bytes of those that each piece has.
    pub fn len_in_all(&self) -> usize {
        self.headers[..self.in_all].iter().map(|(_, header)| header.len()).sum()
    }

    /// What a packet of this stack to itself comes to, in front of a transport's header.
    pub(crate) fn arrive(&self, to: Ipv6Addr, next: u8) -> Arrival {
        let (first, bytes) = self.whole(next);
        let mut data = vec![0; BASE];
        data.extend_from_slice(&bytes);
        let mut place = Place::new(first);
        match place.walk(&data, to.is_multicast()) {
            Walk::Done if place.protocol == next && place.transport == data.len() => {
                Arrival::Taken(Some(Between { first, bytes: bytes.into() }))
            }
            Walk::Problem(code, at) => Arrival::Problem(code, u32::try_from(at).unwrap_or(u32::MAX)),
            _ => Arrival::Lost,
        }
    }
}

/// What becomes of a packet when its headers are read.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    /// It is taken, with what there is to tell of.
    Taken(Option<Between>),
    /// It is dropped.
    Lost,
    /// The sender is told of a problem: its code, and where.
    Problem(u8, u32),
}

/// What a datagram had between the header of IP and its own: options of IPv4, or extension headers of IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Between {
    /// The kind of the first header of IPv6.
    pub first: u8,
    pub bytes: Arc<[u8]>,
}

impl Between {
    /// The extension headers by their kinds, in their order.
    pub fn headers(&self) -> Vec<(u8, &[u8])> {
        let mut all = Vec::new();
        let (mut kind, mut rest) = (self.first, &*self.bytes);
        while let [next, units, ..] = *rest {
            // That of a fragment has no length.
            let length = if kind == 44 { 8 } else { (usize::from(units) + 1) * 8 };
            let Some((header, behind)) = rest.split_at_checked(length) else { break };
            all.push((kind, header));
            (kind, rest) = (next, behind);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

    fn header(option: u8) -> Vec<u8> {
        vec![0, 0, option, 4, 0, 0, 0, 0]
    }

    #[test]
    fn headers_are_linked_in_their_order() {
        let all = Extensions {
            hop: Some(PADDING.to_vec()),
            before_routing: Some(PADDING.to_vec()),
            routing: None,
            destination: Some(PADDING.to_vec()),
        };
        let chain = all.chain(Ipv6Addr::LOCALHOST);
        let (first, bytes) = chain.whole(17);
        assert_eq!((first, bytes[0], bytes[8], bytes.len()), (HOP_BY_HOP, DESTINATION, 17, 16));
        assert_eq!((chain.len(), chain.len_in_all()), (16, 8));
        assert_eq!(chain.in_all(44).1[0], 44);
        assert_eq!(chain.in_first(17), (DESTINATION, vec![17, 0, 1, 4, 0, 0, 0, 0]));
        let Arrival::Taken(Some(between)) = chain.arrive(Ipv6Addr::LOCALHOST, 17) else { panic!("lost") };
        let kinds: Vec<u8> = between.headers().iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [HOP_BY_HOP, DESTINATION]);
    }

    #[test]
    fn a_segment_routing_header_goes_by_its_first_segment() {
        let (first, end) = ("fd00::1".parse().unwrap(), "fd00::9".parse::<Ipv6Addr>().unwrap());
        let mut routing = vec![0, 4, 4, 1, 1, 0, 0, 0];
        routing.extend([0; 16]);
        routing.extend(Ipv6Addr::octets(&first));
        let all =
            Extensions { routing: Some(routing), before_routing: Some(header(1)), ..Extensions::default() };
        assert_eq!(all.first_hop(end), first);
        let (kind, bytes) = all.chain(end).whole(17);
        assert_eq!((kind, bytes[0], bytes[8]), (DESTINATION, ROUTING, 17));
        assert_eq!(bytes[16..32], end.octets());
    }

    #[test]
    fn unknown_options_are_passed_over_dropped_or_told_of() {
        let arrive = |option: u8, to: &str| {
            let all = Extensions { destination: Some(header(option)), ..Extensions::default() };
            let to: Ipv6Addr = to.parse().unwrap();
            all.chain(to).arrive(to, 17)
        };
        assert!(matches!(arrive(0x03, "::1"), Arrival::Taken(Some(_))));
        assert!(matches!(arrive(0x43, "::1"), Arrival::Lost));
        assert!(matches!(arrive(0x83, "::1"), Arrival::Problem(2, 42)));
        assert!(matches!(arrive(0xc3, "::1"), Arrival::Problem(2, 42)));
        assert!(matches!(arrive(0xc3, "ff02::1"), Arrival::Lost));
        assert!(matches!(arrive(0x83, "ff02::1"), Arrival::Problem(2, 42)));
    }
}
