//! `struct sockaddr_in` and `sockaddr_in6`, and how an IPv6 socket speaks of IPv4.

use abi::socket::{AF_INET, AF_INET6, AF_UNSPEC};
use abi::{Errno, Result};
use netstack::{Endpoint, Family};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `sizeof(struct sockaddr_in)`
pub const LEN4: usize = 16;
/// `SIN6_LEN_RFC2133`: without the scope.
const LEN6_OLD: usize = 24;
/// `sizeof(struct sockaddr_in6)`
pub const LEN6: usize = 28;

/// The family number of an address; EINVAL.
pub fn family_of(raw: &[u8]) -> Result<u16> {
    raw.get(..2).and_then(|f| f.try_into().ok()).map(u16::from_ne_bytes).ok_or(Errno::EINVAL)
}

fn array<const N: usize>(raw: &[u8], at: usize) -> [u8; N] {
    raw.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

fn parse4(raw: &[u8]) -> Result<Endpoint> {
    if raw.len() < LEN4 {
        return Err(Errno::EINVAL);
    }
    let port = u16::from_be_bytes(array(raw, 2));
    Ok(Endpoint::new(IpAddr::V4(Ipv4Addr::from(array::<4>(raw, 4))), port))
}

fn parse6(raw: &[u8]) -> Result<Endpoint> {
    if raw.len() < LEN6_OLD {
        return Err(Errno::EINVAL);
    }
    let port = u16::from_be_bytes(array(raw, 2));
    let ip = Ipv6Addr::from(array::<16>(raw, 8));
    let mut e = Endpoint::new(IpAddr::V6(ip), port);
    if ip.is_unicast_link_local() || ip.is_multicast() {
        e.scope = u32::from_ne_bytes(array(raw, 24));
    }
    Ok(e)
}

/// An address to bind to (`inet_bind_sk`, `__inet6_bind`).
pub fn to_bind(family: Family, raw: &[u8]) -> Result<Endpoint> {
    match family {
        Family::V4 => {
            let e = parse4(raw)?;
            match family_of(raw)? {
                AF_INET => Ok(e),
                AF_UNSPEC if e.ip.is_unspecified() => Ok(e),
                _ => Err(Errno::EAFNOSUPPORT),
            }
        }
        Family::V6 => {
            let e = parse6(raw)?;
            if family_of(raw)? != AF_INET6 {
                return Err(Errno::EAFNOSUPPORT);
            }
            Ok(e)
        }
    }
}

/// An address to connect or send to. `datagram`: an IPv6 socket takes IPv4 addresses, too.
pub fn to_reach(family: Family, raw: &[u8], datagram: bool) -> Result<Endpoint> {
    let number = family_of(raw)?;
    match family {
        Family::V4 => {
            let e = parse4(raw)?;
            // AF_UNSPEC means AF_INET when sending (`udp_sendmsg`).
            if number != AF_INET && !(datagram && number == AF_UNSPEC) {
                return Err(Errno::EAFNOSUPPORT);
            }
            Ok(e)
        }
        Family::V6 if datagram && number == AF_INET => parse4(raw),
        Family::V6 => {
            let e = parse6(raw)?;
            if number != AF_INET6 {
                // `udpv6_sendmsg` has another word for it.
                return Err(if datagram { Errno::EINVAL } else { Errno::EAFNOSUPPORT });
            }
            Ok(e)
        }
    }
}

/// The address bytes as IPv6.
pub fn octets6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

/// As the address structure of a socket's family.
pub fn encode(family: Family, e: Endpoint) -> Vec<u8> {
    match family {
        Family::V4 => {
            let ip = match e.ip {
                IpAddr::V4(a) => a,
                IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
            };
            encode4(ip, e.port)
        }
        Family::V6 => {
            let mut out = AF_INET6.to_ne_bytes().to_vec();
            out.extend(e.port.to_be_bytes());
            out.extend([0; 4]);
            out.extend(octets6(e.ip));
            out.extend(e.scope.to_ne_bytes());
            out
        }
    }
}

/// A `struct sockaddr_in`.
pub fn encode4(ip: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut out = AF_INET.to_ne_bytes().to_vec();
    out.extend(port.to_be_bytes());
    out.extend(ip.octets());
    out.extend([0; 8]);
    out
}
