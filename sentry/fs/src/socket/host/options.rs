//! The socket options that guests may set and read on sockets of the host.

use crate::socket::inet::address;
use crate::socket::inet::options::{SOL_IP, SOL_IPV6, SOL_TCP, SOL_UDP, SOL_UDPLITE, ip, ipv6, tcp, udp};
use abi::socket::{SOL_SOCKET, so};
use abi::{Errno, Result};
use netstack::Family;
use platform::hostsys::inet::SourceList;

/// An option that may be set.
#[derive(Clone, Copy, Debug)]
pub struct Settable {
    pub level: i32,
    pub name: i32,
    form: Form,
}

/// What its value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Int,
    /// A structure of numbers and addresses: the largest of these sizes (0: none) that the guest's value has.
    Sizes([usize; 3]),
    /// A word, at most 15 bytes long.
    Word,
    /// `struct group_req` or `group_source_req`: an interface and so many socket addresses.
    Groups(usize),
    /// `struct ip_msfilter` or `group_filter`: the sources of a group.
    Sources,
}

const fn int(level: i32, name: i32) -> Settable {
    Settable { level, name, form: Form::Int }
}

const fn sizes(level: i32, name: i32, sizes: [usize; 3]) -> Settable {
    Settable { level, name, form: Form::Sizes(sizes) }
}

const fn word(level: i32, name: i32) -> Settable {
    Settable { level, name, form: Form::Word }
}

const fn groups(level: i32, name: i32, addresses: usize) -> Settable {
    Settable { level, name, form: Form::Groups(addresses) }
}

const fn sources(level: i32, name: i32) -> Settable {
    Settable { level, name, form: Form::Sources }
}

/// All of them: what is not here neither passes the sentry nor its filter.
pub const SETTABLE: [Settable; 99] = [
    int(SOL_SOCKET, so::REUSEADDR),
    int(SOL_SOCKET, so::BROADCAST),
    int(SOL_SOCKET, so::SNDBUF),
    int(SOL_SOCKET, so::RCVBUF),
    int(SOL_SOCKET, so::KEEPALIVE),
    int(SOL_SOCKET, so::OOBINLINE),
    sizes(SOL_SOCKET, so::LINGER, [8, 0, 0]),
    int(SOL_SOCKET, so::REUSEPORT),
    int(SOL_SOCKET, so::RCVLOWAT),
    int(SOL_SOCKET, so::TIMESTAMPNS),
    int(SOL_SOCKET, so::RXQ_OVFL),
    word(SOL_SOCKET, so::BINDTODEVICE),
    int(SOL_SOCKET, so::BINDTOIFINDEX),
    int(SOL_IP, ip::TOS),
    int(SOL_IP, ip::TTL),
    // IP_RECVOPTS, IP_RETOPTS
    int(SOL_IP, 6),
    int(SOL_IP, 7),
    int(SOL_IP, ip::PKTINFO),
    int(SOL_IP, ip::MTU_DISCOVER),
    int(SOL_IP, ip::RECVERR),
    int(SOL_IP, ip::RECVTTL),
    int(SOL_IP, ip::RECVTOS),
    int(SOL_IP, ip::FREEBIND),
    int(SOL_IP, ip::PASSSEC),
    // The host wants a right for it that the sentry does not have; it may be switched off.
    int(SOL_IP, ip::TRANSPARENT),
    int(SOL_IP, ip::RECVORIGDSTADDR),
    // IP_MINTTL, IP_BIND_ADDRESS_NO_PORT
    int(SOL_IP, 21),
    int(SOL_IP, 24),
    sizes(SOL_IP, ip::MULTICAST_IF, [12, 8, 4]),
    int(SOL_IP, ip::MULTICAST_TTL),
    int(SOL_IP, ip::MULTICAST_LOOP),
    sizes(SOL_IP, ip::ADD_MEMBERSHIP, [12, 8, 0]),
    sizes(SOL_IP, ip::DROP_MEMBERSHIP, [12, 8, 0]),
    sizes(SOL_IP, ip::UNBLOCK_SOURCE, [12, 0, 0]),
    sizes(SOL_IP, ip::BLOCK_SOURCE, [12, 0, 0]),
    sizes(SOL_IP, ip::ADD_SOURCE_MEMBERSHIP, [12, 0, 0]),
    sizes(SOL_IP, ip::DROP_SOURCE_MEMBERSHIP, [12, 0, 0]),
    groups(SOL_IP, ip::MCAST_JOIN_GROUP, 1),
    groups(SOL_IP, ip::MCAST_BLOCK_SOURCE, 2),
    groups(SOL_IP, ip::MCAST_UNBLOCK_SOURCE, 2),
    groups(SOL_IP, ip::MCAST_LEAVE_GROUP, 1),
    groups(SOL_IP, ip::MCAST_JOIN_SOURCE_GROUP, 2),
    groups(SOL_IP, ip::MCAST_LEAVE_SOURCE_GROUP, 2),
    sources(SOL_IP, ip::MSFILTER),
    sources(SOL_IP, ip::MCAST_MSFILTER),
    int(SOL_IP, ip::MULTICAST_ALL),
    int(SOL_IP, ip::UNICAST_IF),
    int(SOL_IP, ip::LOCAL_PORT_RANGE),
    int(SOL_IPV6, ipv6::UNICAST_HOPS),
    int(SOL_IPV6, ipv6::MULTICAST_IF),
    int(SOL_IPV6, ipv6::MULTICAST_HOPS),
    int(SOL_IPV6, ipv6::MULTICAST_LOOP),
    sizes(SOL_IPV6, ipv6::JOIN_GROUP, [20, 0, 0]),
    sizes(SOL_IPV6, ipv6::LEAVE_GROUP, [20, 0, 0]),
    int(SOL_IPV6, ipv6::MTU_DISCOVER),
    int(SOL_IPV6, ipv6::RECVERR),
    int(SOL_IPV6, ipv6::V6ONLY),
    int(SOL_IPV6, ipv6::MULTICAST_ALL),
    groups(SOL_IPV6, ip::MCAST_JOIN_GROUP, 1),
    groups(SOL_IPV6, ip::MCAST_BLOCK_SOURCE, 2),
    groups(SOL_IPV6, ip::MCAST_UNBLOCK_SOURCE, 2),
    groups(SOL_IPV6, ip::MCAST_LEAVE_GROUP, 1),
    groups(SOL_IPV6, ip::MCAST_JOIN_SOURCE_GROUP, 2),
    groups(SOL_IPV6, ip::MCAST_LEAVE_SOURCE_GROUP, 2),
    sources(SOL_IPV6, ip::MCAST_MSFILTER),
    int(SOL_IPV6, ipv6::RECVPKTINFO),
    sizes(SOL_IPV6, ipv6::PKTINFO, [20, 0, 0]),
    int(SOL_IPV6, ipv6::RECVHOPLIMIT),
    // IPV6_DONTFRAG
    int(SOL_IPV6, 62),
    int(SOL_IPV6, ipv6::RECVTCLASS),
    int(SOL_IPV6, ipv6::TCLASS),
    // IPV6_AUTOFLOWLABEL, IPV6_MINHOPCOUNT
    int(SOL_IPV6, 70),
    int(SOL_IPV6, 73),
    int(SOL_IPV6, ipv6::RECVORIGDSTADDR),
    int(SOL_IPV6, ipv6::TRANSPARENT),
    int(SOL_IPV6, ipv6::UNICAST_IF),
    int(SOL_IPV6, ipv6::FREEBIND),
    int(SOL_UDP, udp::CORK),
    int(SOL_UDP, udp::SEGMENT),
    int(SOL_UDP, udp::GRO),
    // UDPLITE_SEND_CSCOV, UDPLITE_RECV_CSCOV
    int(SOL_UDPLITE, 10),
    int(SOL_UDPLITE, 11),
    int(SOL_TCP, tcp::NODELAY),
    int(SOL_TCP, tcp::MAXSEG),
    int(SOL_TCP, tcp::CORK),
    int(SOL_TCP, tcp::KEEPIDLE),
    int(SOL_TCP, tcp::KEEPINTVL),
    int(SOL_TCP, tcp::KEEPCNT),
    int(SOL_TCP, tcp::SYNCNT),
    int(SOL_TCP, tcp::LINGER2),
    int(SOL_TCP, tcp::DEFER_ACCEPT),
    int(SOL_TCP, tcp::WINDOW_CLAMP),
    int(SOL_TCP, tcp::QUICKACK),
    word(SOL_TCP, tcp::CONGESTION),
    // TCP_THIN_LINEAR_TIMEOUTS, TCP_THIN_DUPACK
    int(SOL_TCP, 16),
    int(SOL_TCP, 17),
    int(SOL_TCP, tcp::USER_TIMEOUT),
    int(SOL_TCP, tcp::FASTOPEN),
    int(SOL_TCP, tcp::NOTSENT_LOWAT),
];

/// `TCP_INFO`, `IP_MTU`, `IP_HDRINCL`, `IP_ROUTER_ALERT`, `IP_NODEFRAG`, `IPV6_MTU`, `IPV6_PATHMTU`
const READABLE: [(i32, i32); 7] = [
    (SOL_TCP, tcp::INFO),
    (SOL_IP, ip::MTU),
    (SOL_IP, ip::HDRINCL),
    (SOL_IP, ip::ROUTER_ALERT),
    (SOL_IP, ip::NODEFRAG),
    (SOL_IPV6, ipv6::MTU),
    (SOL_IPV6, ipv6::PATHMTU),
];

/// The bytes of an interface's number with its padding, and of a `struct sockaddr_storage`.
const GROUP_HEAD: usize = 8;
const STORAGE: usize = 128;

impl Settable {
    /// What the host is given for a guest's value: EINVAL if that is too short.
    pub fn checked(self, family: Family, value: &[u8]) -> Result<Vec<u8>> {
        let short = Errno::EINVAL;
        match self.form {
            // Numbers of IPv4 may be a byte, or nothing.
            Form::Int if self.level == SOL_IP && value.len() < 4 => Ok(value[..value.len().min(1)].to_vec()),
            Form::Int => Ok(value.get(..4).ok_or(short)?.to_vec()),
            Form::Sizes(sizes) => {
                let size = sizes.into_iter().find(|size| *size > 0 && *size <= value.len()).ok_or(short)?;
                Ok(value[..size].to_vec())
            }
            Form::Word => {
                let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
                Ok(value[..end.min(15)].to_vec())
            }
            Form::Groups(count) => {
                let mut out = value.get(..4).ok_or(short)?.to_vec();
                out.resize(GROUP_HEAD, 0);
                for place in 0..count {
                    let at = GROUP_HEAD + place * STORAGE;
                    let raw = value.get(at..at + STORAGE).ok_or(short)?;
                    out.extend(address::encode(family, address::to_reach(family, raw, false)?));
                    out.resize(at + STORAGE, 0);
                }
                Ok(out)
            }
            Form::Sources => {
                let list = source_list(self.level, self.name);
                let (mut out, count) = head_of(list, value)?;
                out.extend(u32::try_from(count).map_err(|_| Errno::ENOBUFS)?.to_ne_bytes());
                if count > SourceList::MOST {
                    return Err(Errno::ENOBUFS);
                }
                // The host says what is wrong with a list that is shorter than its number.
                for raw in value[list.start..].chunks_exact(list.size).take(count) {
                    let end = out.len() + list.size;
                    match list.size {
                        STORAGE => {
                            let family = list_family(list);
                            let source = address::to_reach(family, raw, false);
                            out.extend(address::encode(family, source.map_err(|_| Errno::EADDRNOTAVAIL)?));
                        }
                        _ => out.extend(raw),
                    }
                    out.resize(end, 0);
                }
                Ok(out)
            }
        }
    }
}

/// The form of one of the options of `groups::is_source_filter`.
pub fn source_list(level: i32, name: i32) -> SourceList {
    let (start, size) =
        if (level, name) == (SOL_IP, ip::MSFILTER) { (16, 4) } else { (GROUP_HEAD + STORAGE + 8, STORAGE) };
    SourceList { level, name, start, size }
}

fn list_family(list: SourceList) -> Family {
    if list.level == SOL_IP { Family::V4 } else { Family::V6 }
}

/// What stands before the number of sources in a guest's value, written anew, and that number.
pub fn head_of(list: SourceList, value: &[u8]) -> Result<(Vec<u8>, usize)> {
    let head = value.get(..list.start).ok_or(Errno::EINVAL)?;
    let (head, count) = head.split_at(list.start - 4);
    let count = u32::from_ne_bytes(count.try_into().map_err(|_| Errno::EINVAL)?);
    let mut out = head.to_vec();
    if list.size == STORAGE {
        // Interface, group, which of its sources.
        let family = list_family(list);
        let raw = &head[GROUP_HEAD..GROUP_HEAD + STORAGE];
        let group = address::to_reach(family, raw, false).map_err(|_| Errno::EINVAL)?;
        out.truncate(4);
        out.resize(GROUP_HEAD, 0);
        out.extend(address::encode(family, group));
        out.resize(GROUP_HEAD + STORAGE, 0);
        out.extend(&head[GROUP_HEAD + STORAGE..]);
    }
    Ok((out, usize::try_from(count).map_err(|_| Errno::ENOBUFS)?))
}

pub fn settable(level: i32, name: i32) -> Option<Settable> {
    SETTABLE.into_iter().find(|s| (s.level, s.name) == (level, name))
}

/// Whether the value may be read.
pub fn readable(level: i32, name: i32) -> bool {
    READABLE.contains(&(level, name))
        || (level, name) == (SOL_IP, ip::MULTICAST_IF)
        || settable(level, name).is_some_and(|s| matches!(s.form, Form::Int | Form::Word))
}

/// What getsockopt(2) says of what it does not know: each protocol asks the next one below, and IPv4 has another word for a level
/// that nobody knows.
pub fn unknown(family: Family, stream: bool, level: i32) -> Errno {
    let own = level == SOL_IP || level == if stream { SOL_TCP } else { SOL_UDP };
    if family == Family::V4 && !own { Errno::EOPNOTSUPP } else { Errno::ENOPROTOOPT }
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
        SOL_SOCKET => name == so::RXQ_OVFL,
        SOL_IP => matches!(name, ip::PKTINFO | ip::RECVTTL | ip::RECVTOS | ip::RECVORIGDSTADDR),
        SOL_IPV6 => {
            matches!(name, ipv6::RECVPKTINFO | ipv6::RECVHOPLIMIT | ipv6::RECVTCLASS | ipv6::RECVORIGDSTADDR)
        }
        SOL_UDP => name == udp::GRO,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_sources_are_bounded_and_written_anew() {
        let plain = settable(SOL_IP, ip::MSFILTER).unwrap();
        let of = |count: u32, sources: usize| {
            let mut value = vec![224, 1, 2, 3, 127, 0, 0, 1, 1, 0, 0, 0];
            value.extend(count.to_ne_bytes());
            value.resize(16 + 4 * sources, 9);
            value
        };
        assert_eq!(plain.checked(Family::V4, &of(2, 3)), Ok(of(2, 2)));
        assert_eq!(plain.checked(Family::V4, &of(2, 1)), Ok(of(2, 1)));
        assert_eq!(plain.checked(Family::V4, &of(65, 65)), Err(Errno::ENOBUFS));
        assert_eq!(plain.checked(Family::V4, &of(u32::MAX, 0)), Err(Errno::ENOBUFS));
        assert_eq!(plain.checked(Family::V4, &of(0, 0)[..15]), Err(Errno::EINVAL));

        let storage = settable(SOL_IPV6, ip::MCAST_MSFILTER).unwrap();
        let mut value = vec![7, 0, 0, 0, 1, 2, 3, 4];
        for last in [1, 2] {
            let end = value.len() + STORAGE;
            value.extend(address::encode(Family::V6, netstack::Endpoint::any(Family::V6).with_port(last)));
            // What nobody asked for behind an address is not handed on, nor is what fills up.
            value.resize(end, 0xaa);
            if last == 1 {
                value.extend([0, 0, 0, 0, 1, 0, 0, 0]);
            }
        }
        let out = storage.checked(Family::V6, &value).unwrap();
        assert_eq!(out.len(), value.len());
        assert_eq!((&out[..4], out.iter().filter(|b| **b == 0xaa).count()), (&[7, 0, 0, 0][..], 0));
        assert_eq!(out[4..8], [0; 4]);
        value[GROUP_HEAD] = 99;
        assert_eq!(storage.checked(Family::V6, &value), Err(Errno::EINVAL));
    }
}
