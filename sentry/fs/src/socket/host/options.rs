//! The socket options that guests may set and read on sockets of the host.

use crate::socket::inet::options::{SOL_IP, SOL_IPV6, SOL_TCP, SOL_UDP, ip, ipv6, udp};
use abi::socket::{SOL_SOCKET, so};
use abi::{Errno, Result};

/// An option that may be set, and the size of its value.
#[derive(Clone, Copy, Debug)]
pub struct Settable {
    pub level: i32,
    pub name: i32,
    /// Bytes that the host is given: an int, a linger, an address with an interface.
    size: usize,
}

const fn int(level: i32, name: i32) -> Settable {
    Settable { level, name, size: 4 }
}

/// All of them: what is not here neither passes the sentry nor its filter.
pub const SETTABLE: [Settable; 46] = [
    int(SOL_SOCKET, so::REUSEADDR),
    int(SOL_SOCKET, so::BROADCAST),
    int(SOL_SOCKET, so::SNDBUF),
    int(SOL_SOCKET, so::RCVBUF),
    int(SOL_SOCKET, so::KEEPALIVE),
    int(SOL_SOCKET, so::OOBINLINE),
    Settable { level: SOL_SOCKET, name: so::LINGER, size: 8 },
    int(SOL_SOCKET, so::REUSEPORT),
    int(SOL_SOCKET, so::RCVLOWAT),
    int(SOL_SOCKET, so::TIMESTAMPNS),
    // IP_TOS, TTL, PKTINFO, MTU_DISCOVER, RECVTTL, RECVTOS, FREEBIND, BIND_ADDRESS_NO_PORT
    int(SOL_IP, 1),
    int(SOL_IP, 2),
    int(SOL_IP, 8),
    int(SOL_IP, 10),
    int(SOL_IP, 12),
    int(SOL_IP, 13),
    int(SOL_IP, 15),
    int(SOL_IP, 24),
    // IP_MULTICAST_TTL, IP_MULTICAST_LOOP, IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP
    int(SOL_IP, 33),
    int(SOL_IP, 34),
    Settable { level: SOL_IP, name: 35, size: 8 },
    Settable { level: SOL_IP, name: 36, size: 8 },
    // IPV6_UNICAST_HOPS, MULTICAST_IF, MULTICAST_HOPS, MULTICAST_LOOP, ADD_MEMBERSHIP, DROP_MEMBERSHIP, V6ONLY, RECVPKTINFO,
    // RECVHOPLIMIT, RECVTCLASS, TCLASS
    int(SOL_IPV6, 16),
    int(SOL_IPV6, 17),
    int(SOL_IPV6, 18),
    int(SOL_IPV6, 19),
    Settable { level: SOL_IPV6, name: 20, size: 20 },
    Settable { level: SOL_IPV6, name: 21, size: 20 },
    int(SOL_IPV6, 26),
    int(SOL_IPV6, 49),
    int(SOL_IPV6, 51),
    int(SOL_IPV6, 66),
    int(SOL_IPV6, 67),
    // UDP_SEGMENT, UDP_GRO
    int(SOL_UDP, 103),
    int(SOL_UDP, 104),
    // TCP_NODELAY, MAXSEG, CORK, KEEPIDLE, KEEPINTVL, KEEPCNT, SYNCNT, LINGER2, DEFER_ACCEPT, QUICKACK, USER_TIMEOUT
    int(SOL_TCP, 1),
    int(SOL_TCP, 2),
    int(SOL_TCP, 3),
    int(SOL_TCP, 4),
    int(SOL_TCP, 5),
    int(SOL_TCP, 6),
    int(SOL_TCP, 7),
    int(SOL_TCP, 8),
    int(SOL_TCP, 9),
    int(SOL_TCP, 12),
    int(SOL_TCP, 18),
];

/// `TCP_INFO`, `TCP_CONGESTION`, `IP_MTU`, `IPV6_MTU`
const READABLE: [(i32, i32); 4] = [(SOL_TCP, 11), (SOL_TCP, 13), (SOL_IP, 14), (SOL_IPV6, 24)];

impl Settable {
    /// The part of a guest's value that the host is given: EINVAL if it is too short.
    pub fn checked(self, value: &[u8]) -> Result<&[u8]> {
        match value.get(..self.size) {
            Some(value) => Ok(value),
            // Multicast settings of IPv4 may be a byte.
            None if self.level == SOL_IP && self.size == 4 && !value.is_empty() => Ok(&value[..1]),
            None => Err(Errno::EINVAL),
        }
    }
}

pub fn settable(level: i32, name: i32) -> Option<Settable> {
    SETTABLE.into_iter().find(|s| (s.level, s.name) == (level, name))
}

/// Whether the value may be read.
pub fn readable(level: i32, name: i32) -> bool {
    READABLE.contains(&(level, name)) || settable(level, name).is_some_and(|s| s.size == 4)
}

/// A value of `SockOptions` as the host wants it: sizes of buffers are doubled there once more.
pub fn as_set(name: i32, value: Vec<u8>) -> Vec<u8> {
    match (name, <[u8; 4]>::try_from(&value[..])) {
        (so::SNDBUF | so::RCVBUF, Ok(doubled)) => (i32::from_ne_bytes(doubled) / 2).to_ne_bytes().to_vec(),
        _ => value,
    }
}

/// Whether the option asks for control messages.
pub fn asks_to_tell(level: i32, name: i32) -> bool {
    match level {
        SOL_IP => matches!(name, ip::PKTINFO | ip::RECVTTL | ip::RECVTOS),
        SOL_IPV6 => matches!(name, ipv6::RECVPKTINFO | ipv6::RECVHOPLIMIT | ipv6::RECVTCLASS),
        SOL_UDP => name == udp::GRO,
        _ => false,
    }
}
