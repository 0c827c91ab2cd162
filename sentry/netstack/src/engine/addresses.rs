//! Addresses: prefixes, scopes, and the pairs that name a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address and the length of its prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl Prefix {
    pub fn new(address: IpAddr, length: u8) -> Prefix {
        let most = if address.is_ipv4() { 32 } else { 128 };
        Prefix { address, length: length.min(most) }
    }

    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32 - u32::from(self.length);
                u64::from(a.to_bits()) >> shift == u64::from(b.to_bits()) >> shift
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => common_bits(a, b) >= u32::from(self.length),
            _ => false,
        }
    }

    /// The broadcast address of an IPv4 network with more than two addresses.
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(a) if self.length < 31 => {
                Some(Ipv4Addr::from_bits(a.to_bits() | (u64::from(u32::MAX) >> self.length) as u32))
            }
            _ => None,
        }
    }
}

/// Leading bits that are the same.
pub fn common_bits(a: Ipv6Addr, b: Ipv6Addr) -> u32 {
    (a.to_bits() ^ b.to_bits()).leading_zeros()
}

/// The scope of an IPv6 address, as RFC 6724 orders them (multicast: the scope nibble).
pub fn scope(address: Ipv6Addr) -> u8 {
    if address.is_multicast() {
        address.octets()[1] & 0xf
    } else if address.is_loopback() || address.is_unicast_link_local() {
        2
    } else {
        14
    }
}

/// The solicited-node group of an address (RFC 4291, 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | (address.to_bits() & 0xff_ffff))
}

/// The unspecified address of the same family.
pub fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The limited broadcast address.
pub fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(a) if a.is_broadcast())
}

/// The two ends of a connection, as one key: IPv4 addresses are mapped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Tuple {
    local: u128,
    remote: u128,
    ports: u32,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().to_bits(),
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn address(bits: u128) -> IpAddr {
    let address = Ipv6Addr::from_bits(bits);
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

impl Tuple {
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Tuple {
        Tuple {
            local: bits(local.ip()),
            remote: bits(remote.ip()),
            ports: u32::from(local.port()) << 16 | u32::from(remote.port()),
        }
    }

    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(address(self.local), (self.ports >> 16) as u16)
    }

    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(address(self.remote), self.ports as u16)
    }

    /// Words for a keyed hash.
    pub fn words(&self) -> [u64; 5] {
        [
            self.local as u64,
            (self.local >> 64) as u64,
            self.remote as u64,
            (self.remote >> 64) as u64,
            u64::from(self.ports),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let net = Prefix::new(Ipv4Addr::new(10, 1, 2, 3).into(), 24);
        assert!(net.contains(Ipv4Addr::new(10, 1, 2, 200).into()));
        assert!(!net.contains(Ipv4Addr::new(10, 1, 3, 200).into()));
        assert_eq!(net.broadcast(), Some(Ipv4Addr::new(10, 1, 2, 255)));
        assert!(Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0).contains(Ipv4Addr::LOCALHOST.into()));
        assert!(Prefix::new(Ipv6Addr::UNSPECIFIED.into(), 0).contains(Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn tuples_keep_their_ends() {
        let a: SocketAddr = SocketAddr::from(([10, 0, 0, 1], 80));
        let b: SocketAddr = SocketAddr::from((Ipv6Addr::LOCALHOST, 4000));
        let tuple = Tuple::new(a, b);
        assert_eq!((tuple.local(), tuple.remote()), (a, b));
    }
}
