//! Addresses as the stack uses them. V4-mapped IPv6 addresses do not occur here: an IPv6 socket that speaks
//! IPv4 has IPv4 addresses, and the embedder maps them where the guest sees them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The family a socket was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

/// One end of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub port: u16,
    /// Interface index of link-local IPv6 addresses, else 0.
    pub scope: u32,
}

impl Endpoint {
    pub fn new(ip: IpAddr, port: u16) -> Endpoint {
        Endpoint { ip: canonical(ip), port, scope: 0 }
    }

    /// The wildcard of a family.
    pub fn any(family: Family) -> Endpoint {
        Endpoint { ip: unspecified(family), port: 0, scope: 0 }
    }

    pub fn with_port(self, port: u16) -> Endpoint {
        Endpoint { port, ..self }
    }
}

/// The address that means «none» or «all» in a family.
pub fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// The same address with V4-mapped ones as IPv4.
pub fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// Whether the first `prefix` bits of two addresses of one family are the same.
pub fn same_prefix(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32u32.saturating_sub(prefix.into());
            u32::from(a).checked_shr(shift).unwrap_or(0) == u32::from(b).checked_shr(shift).unwrap_or(0)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128u32.saturating_sub(prefix.into());
            u128::from(a).checked_shr(shift).unwrap_or(0) == u128::from(b).checked_shr(shift).unwrap_or(0)
        }
        _ => false,
    }
}

/// The broadcast address of an IPv4 network.
pub fn broadcast_of(ip: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    Ipv4Addr::from(u32::from(ip) | host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_mapped_addresses() {
        let v4 = |s: &str| IpAddr::V4(s.parse().unwrap());
        assert!(same_prefix(v4("127.0.0.1"), v4("127.255.0.1"), 8));
        assert!(!same_prefix(v4("127.0.0.1"), v4("126.0.0.1"), 8));
        assert!(same_prefix(v4("1.2.3.4"), v4("9.9.9.9"), 0));
        assert!(!same_prefix(v4("1.2.3.4"), v4("1.2.3.5"), 32));
        assert_eq!(canonical("::ffff:10.0.0.1".parse().unwrap()), v4("10.0.0.1"));
        assert_eq!(canonical("::1".parse().unwrap()), "::1".parse::<IpAddr>().unwrap());
        assert_eq!(
            broadcast_of("10.1.2.3".parse().unwrap(), 8),
            "10.255.255.255".parse::<Ipv4Addr>().unwrap()
        );
    }
}
