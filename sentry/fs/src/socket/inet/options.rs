//! Options of the levels `IPPROTO_IP`, `IPPROTO_IPV6`, `IPPROTO_TCP` and `IPPROTO_UDP` that are plain numbers
//! (ip(7), ipv6(7), tcp(7), udp(7)): their defaults, ranges and what they are set to. Those that do
//! something at once are in the files of the sockets.

use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::vfs::Caller;
use ksync::{LockClass, Mutex};

pub const SOL_IP: i32 = 0;
pub const SOL_TCP: i32 = 6;
pub const SOL_UDP: i32 = 17;
pub const SOL_IPV6: i32 = 41;
pub const SOL_UDPLITE: i32 = 136;
pub const SOL_ICMPV6: i32 = 58;
pub const SOL_RAW: i32 = 255;

pub mod ip {
    pub const TOS: i32 = 1;
    pub const TTL: i32 = 2;
    pub const HDRINCL: i32 = 3;
    pub const OPTIONS: i32 = 4;
    pub const RECVOPTS: i32 = 6;
    pub const RETOPTS: i32 = 7;
    pub const PKTINFO: i32 = 8;
    pub const MTU_DISCOVER: i32 = 10;
    pub const RECVERR: i32 = 11;
    pub const RECVTTL: i32 = 12;
    pub const RECVTOS: i32 = 13;
    pub const MTU: i32 = 14;
    pub const FREEBIND: i32 = 15;
    pub const TRANSPARENT: i32 = 19;
    pub const RECVORIGDSTADDR: i32 = 20;
    pub const MULTICAST_IF: i32 = 32;
    pub const MULTICAST_TTL: i32 = 33;
    pub const MULTICAST_LOOP: i32 = 34;
    pub const ADD_MEMBERSHIP: i32 = 35;
    pub const DROP_MEMBERSHIP: i32 = 36;
    pub const UNBLOCK_SOURCE: i32 = 37;
    pub const BLOCK_SOURCE: i32 = 38;
    pub const ADD_SOURCE_MEMBERSHIP: i32 = 39;
    pub const DROP_SOURCE_MEMBERSHIP: i32 = 40;
    pub const MSFILTER: i32 = 41;
    pub const MCAST_JOIN_GROUP: i32 = 42;
    pub const MCAST_BLOCK_SOURCE: i32 = 43;
    pub const MCAST_UNBLOCK_SOURCE: i32 = 44;
    pub const MCAST_LEAVE_GROUP: i32 = 45;
    pub const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
    pub const MCAST_LEAVE_SOURCE_GROUP: i32 = 47;
    pub const MCAST_MSFILTER: i32 = 48;
    pub const MULTICAST_ALL: i32 = 49;
    pub const UNICAST_IF: i32 = 50;
    pub const LOCAL_PORT_RANGE: i32 = 51;
    pub const ROUTER_ALERT: i32 = 5;
    pub const PASSSEC: i32 = 18;
    pub const MINTTL: i32 = 21;
    pub const NODEFRAG: i32 = 22;
    pub const CHECKSUM: i32 = 23;
    pub const RECVFRAGSIZE: i32 = 25;
    pub const RECVERR_RFC4884: i32 = 26;
}

pub mod udp {
    pub const CORK: i32 = 1;
    pub const NO_CHECK6_TX: i32 = 101;
    pub const NO_CHECK6_RX: i32 = 102;
    pub const SEGMENT: i32 = 103;
    pub const GRO: i32 = 104;
}

pub mod ipv6 {
    /// Those of RFC 2292 (`IPV6_2292PKTINFO` and its kin).
    pub const OLD_PKTINFO: i32 = 2;
    pub const OLD_HOPOPTS: i32 = 3;
    pub const OLD_DSTOPTS: i32 = 4;
    pub const OLD_RTHDR: i32 = 5;
    pub const OLD_HOPLIMIT: i32 = 8;
    pub const FLOWINFO: i32 = 11;
    pub const UNICAST_HOPS: i32 = 16;
    pub const MULTICAST_IF: i32 = 17;
    pub const MULTICAST_HOPS: i32 = 18;
    pub const MULTICAST_LOOP: i32 = 19;
    pub const JOIN_GROUP: i32 = 20;
    pub const LEAVE_GROUP: i32 = 21;
    pub const ROUTER_ALERT: i32 = 22;
    pub const MTU_DISCOVER: i32 = 23;
    pub const MTU: i32 = 24;
    pub const RECVERR: i32 = 25;
    pub const V6ONLY: i32 = 26;
    pub const MULTICAST_ALL: i32 = 29;
    pub const RECVERR_RFC4884: i32 = 31;
    pub const FLOWINFO_SEND: i32 = 33;
    pub const HDRINCL: i32 = 36;
    pub const RECVPKTINFO: i32 = 49;
    pub const PKTINFO: i32 = 50;
    pub const RECVHOPLIMIT: i32 = 51;
    pub const HOPLIMIT: i32 = 52;
    pub const RECVHOPOPTS: i32 = 53;
    pub const HOPOPTS: i32 = 54;
    pub const RTHDRDSTOPTS: i32 = 55;
    pub const RECVRTHDR: i32 = 56;
    pub const RTHDR: i32 = 57;
    pub const RECVDSTOPTS: i32 = 58;
    pub const DSTOPTS: i32 = 59;
    pub const RECVPATHMTU: i32 = 60;
    pub const PATHMTU: i32 = 61;
    pub const DONTFRAG: i32 = 62;
    pub const RECVTCLASS: i32 = 66;
    pub const TCLASS: i32 = 67;
    pub const AUTOFLOWLABEL: i32 = 70;
    pub const ADDR_PREFERENCES: i32 = 72;
    pub const MINHOPCOUNT: i32 = 73;
    pub const RECVORIGDSTADDR: i32 = 74;
    pub const TRANSPARENT: i32 = 75;
    pub const UNICAST_IF: i32 = 76;
    pub const RECVFRAGSIZE: i32 = 77;
    pub const FREEBIND: i32 = 78;
}

pub mod tcp {
    pub const NODELAY: i32 = 1;
    pub const MAXSEG: i32 = 2;
    pub const CORK: i32 = 3;
    pub const KEEPIDLE: i32 = 4;
    pub const KEEPINTVL: i32 = 5;
    pub const KEEPCNT: i32 = 6;
    pub const SYNCNT: i32 = 7;
    pub const LINGER2: i32 = 8;
    pub const DEFER_ACCEPT: i32 = 9;
    pub const WINDOW_CLAMP: i32 = 10;
    pub const INFO: i32 = 11;
    pub const QUICKACK: i32 = 12;
    pub const CONGESTION: i32 = 13;
    pub const USER_TIMEOUT: i32 = 18;
    pub const FASTOPEN: i32 = 23;
    pub const THIN_LINEAR_TIMEOUTS: i32 = 16;
    pub const TIMESTAMP: i32 = 24;
    pub const CC_INFO: i32 = 26;
    pub const SAVE_SYN: i32 = 27;
    pub const SAVED_SYN: i32 = 28;
    pub const FASTOPEN_CONNECT: i32 = 30;
    pub const ULP: i32 = 31;
    pub const RTO_MAX_MS: i32 = 44;
    pub const RTO_MIN_US: i32 = 45;
    pub const DELACK_MAX_US: i32 = 46;
    pub const NOTSENT_LOWAT: i32 = 25;
    pub const INQ: i32 = 36;
}

/// How a number is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Any number is on or off.
    Flag,
    /// EINVAL outside of the range.
    Range(i32, i32),
    /// As `Range`; -1 stands for the default.
    RangeOrDefault(i32, i32),
    Any,
    /// A flag for `CAP_NET_ADMIN` or `CAP_NET_RAW`.
    Privileged,
    /// 0 and 1 are taken and forgotten.
    Nothing,
    /// Told, but not for these sockets to set.
    Never(Errno),
}

struct Spec(i32, i32, i32, How);

use How::{Any, Flag, Never, Nothing, Privileged, Range, RangeOrDefault};

/// (level, name, default, how)
const SPECS: &[Spec] = &[
    Spec(SOL_IP, ip::TOS, 0, Any),
    Spec(SOL_IP, ip::TTL, 64, RangeOrDefault(1, 255)),
    Spec(SOL_IP, ip::RECVOPTS, 0, Flag),
    Spec(SOL_IP, ip::RETOPTS, 0, Flag),
    Spec(SOL_IP, ip::CHECKSUM, 0, Flag),
    Spec(SOL_IP, ip::RECVFRAGSIZE, 0, Flag),
    Spec(SOL_IP, ip::RECVERR_RFC4884, 0, Range(0, 1)),
    Spec(SOL_IP, ip::PKTINFO, 0, Flag),
    Spec(SOL_IP, ip::MTU_DISCOVER, 1, Range(0, 5)),
    Spec(SOL_IP, ip::RECVERR, 0, Flag),
    Spec(SOL_IP, ip::RECVTTL, 0, Flag),
    Spec(SOL_IP, ip::RECVTOS, 0, Flag),
    Spec(SOL_IP, ip::FREEBIND, 0, Flag),
    Spec(SOL_IP, ip::TRANSPARENT, 0, Privileged),
    Spec(SOL_IP, ip::RECVORIGDSTADDR, 0, Flag),
    Spec(SOL_IP, ip::PASSSEC, 0, Flag),
    Spec(SOL_IP, ip::MINTTL, 0, Range(0, 255)),
    Spec(SOL_IP, ip::UNICAST_IF, 0, Any),
    Spec(SOL_IP, ip::LOCAL_PORT_RANGE, 0, Any),
    Spec(SOL_IP, ip::ROUTER_ALERT, 0, Never(Errno::EINVAL)),
    Spec(SOL_IP, ip::HDRINCL, 0, Never(Errno::ENOPROTOOPT)),
    Spec(SOL_IP, ip::NODEFRAG, 0, Never(Errno::ENOPROTOOPT)),
    Spec(SOL_IP, 24, 0, Flag),
    Spec(SOL_IP, ip::MULTICAST_TTL, 1, RangeOrDefault(0, 255)),
    Spec(SOL_IP, ip::MULTICAST_LOOP, 1, Flag),
    Spec(SOL_IP, ip::MULTICAST_ALL, 1, Range(0, 1)),
    Spec(SOL_IPV6, ipv6::UNICAST_HOPS, 64, RangeOrDefault(0, 255)),
    Spec(SOL_IPV6, ipv6::MULTICAST_HOPS, 1, RangeOrDefault(0, 255)),
    Spec(SOL_IPV6, ipv6::MULTICAST_LOOP, 1, Range(0, 1)),
    Spec(SOL_IPV6, ipv6::ROUTER_ALERT, 0, Never(Errno::ENOPROTOOPT)),
    Spec(SOL_IPV6, ipv6::MTU_DISCOVER, 1, Range(0, 5)),
    Spec(SOL_IPV6, ipv6::RECVERR, 0, Flag),
    Spec(SOL_IPV6, ipv6::V6ONLY, 0, Flag),
    Spec(SOL_IPV6, ipv6::MULTICAST_ALL, 1, Flag),
    Spec(SOL_IPV6, ipv6::UNICAST_IF, 0, Any),
    Spec(SOL_IPV6, ipv6::RECVPKTINFO, 0, Flag),
    Spec(SOL_IPV6, ipv6::RECVHOPLIMIT, 0, Flag),
    Spec(SOL_IPV6, ipv6::DONTFRAG, 0, Flag),
    Spec(SOL_IPV6, ipv6::OLD_PKTINFO, 0, Flag),
    Spec(SOL_IPV6, ipv6::OLD_HOPOPTS, 0, Flag),
    Spec(SOL_IPV6, ipv6::OLD_DSTOPTS, 0, Flag),
    Spec(SOL_IPV6, ipv6::OLD_RTHDR, 0, Flag),
    Spec(SOL_IPV6, ipv6::OLD_HOPLIMIT, 0, Flag),
    Spec(SOL_IPV6, ipv6::FLOWINFO, 0, Flag),
    Spec(SOL_IPV6, ipv6::FLOWINFO_SEND, 0, Flag),
    Spec(SOL_IPV6, ipv6::RECVHOPOPTS, 0, Flag),
    Spec(SOL_IPV6, ipv6::RECVRTHDR, 0, Flag),
    Spec(SOL_IPV6, ipv6::RECVDSTOPTS, 0, Flag),
    Spec(SOL_IPV6, ipv6::RECVPATHMTU, 0, Flag),
    Spec(SOL_IPV6, ipv6::RECVFRAGSIZE, 0, Flag),
    Spec(SOL_IPV6, ipv6::RECVERR_RFC4884, 0, Range(0, 1)),
    Spec(SOL_IPV6, ipv6::RECVTCLASS, 0, Flag),
    Spec(SOL_IPV6, ipv6::TCLASS, 0, RangeOrDefault(0, 255)),
    Spec(SOL_IPV6, ipv6::AUTOFLOWLABEL, 1, Flag),
    Spec(SOL_IPV6, ipv6::MINHOPCOUNT, 0, Range(0, 255)),
    Spec(SOL_IPV6, ipv6::RECVORIGDSTADDR, 0, Flag),
    Spec(SOL_IPV6, ipv6::TRANSPARENT, 0, Privileged),
    Spec(SOL_IPV6, ipv6::FREEBIND, 0, Flag),
    Spec(SOL_TCP, tcp::NODELAY, 0, Flag),
    Spec(SOL_TCP, tcp::CORK, 0, Flag),
    Spec(SOL_TCP, tcp::KEEPIDLE, 7200, Range(1, 32767)),
    Spec(SOL_TCP, tcp::KEEPINTVL, 75, Range(1, 32767)),
    Spec(SOL_TCP, tcp::KEEPCNT, 9, Range(1, 127)),
    Spec(SOL_TCP, tcp::SYNCNT, 6, Range(1, 127)),
    Spec(SOL_TCP, tcp::WINDOW_CLAMP, 0, Any),
    Spec(SOL_TCP, tcp::QUICKACK, 1, Flag),
    Spec(SOL_TCP, tcp::THIN_LINEAR_TIMEOUTS, 0, Range(0, 1)),
    Spec(SOL_TCP, tcp::SAVE_SYN, 0, Range(0, 2)),
    Spec(SOL_TCP, tcp::FASTOPEN_CONNECT, 0, Range(0, 1)),
    Spec(SOL_TCP, tcp::RTO_MAX_MS, 120_000, Range(1000, 120_000)),
    Spec(SOL_TCP, tcp::RTO_MIN_US, 200_000, Any),
    Spec(SOL_TCP, tcp::DELACK_MAX_US, 200_000, Any),
    Spec(SOL_TCP, tcp::USER_TIMEOUT, 0, Range(0, i32::MAX)),
    Spec(SOL_TCP, tcp::NOTSENT_LOWAT, 0, Any),
    Spec(SOL_TCP, tcp::INQ, 0, Range(0, 1)),
    // `TCP_THIN_DUPACK`, which Linux gave up.
    Spec(SOL_TCP, 17, 0, Nothing),
    Spec(SOL_UDP, udp::CORK, 0, Flag),
    Spec(SOL_UDP, udp::NO_CHECK6_TX, 0, Flag),
    Spec(SOL_UDP, udp::NO_CHECK6_RX, 0, Flag),
    Spec(SOL_UDP, udp::GRO, 0, Flag),
];

/// The numbers of one socket that are not at their default.
pub struct InetOptions {
    set: Mutex<Vec<((i32, i32), i32)>>,
}

impl Default for InetOptions {
    fn default() -> Self {
        InetOptions { set: Mutex::new(LockClass::Leaf, Vec::new()) }
    }
}

fn spec(level: i32, name: i32) -> Option<&'static Spec> {
    SPECS.iter().find(|s| s.0 == level && s.1 == name)
}

impl InetOptions {
    /// A copy for an accepted socket.
    pub fn inherit(&self) -> InetOptions {
        InetOptions { set: Mutex::new(LockClass::Leaf, self.set.lock().clone()) }
    }

    /// Another default than that of the table, for a new socket.
    pub fn preset(self, level: i32, name: i32, value: i32) -> InetOptions {
        self.put(level, name, value);
        self
    }

    /// The value of a number; `None` if it is none.
    pub fn get(&self, level: i32, name: i32) -> Option<i32> {
        let found = self.set.lock().iter().find(|s| s.0 == (level, name)).map(|s| s.1);
        found.or_else(|| spec(level, name).map(|s| s.2))
    }

    /// Whether a flag that is off by default was switched on: quick, for what every datagram asks.
    pub fn switched_on(&self, level: i32, name: i32) -> bool {
        self.set.lock().iter().any(|s| s.0 == (level, name) && s.1 != 0)
    }

    /// Whether a flag is on.
    pub fn on(&self, level: i32, name: i32) -> bool {
        self.get(level, name).is_some_and(|v| v != 0)
    }

    /// Keeps a number without asking.
    pub fn put(&self, level: i32, name: i32, value: i32) {
        let mut set = self.set.lock();
        match set.iter_mut().find(|s| s.0 == (level, name)) {
            Some(s) => s.1 = value,
            None => set.push(((level, name), value)),
        }
    }

    /// Sets a number; `None` if it is none.
    pub fn set(&self, cx: &Caller<'_>, level: i32, name: i32, value: i32) -> Option<Result<()>> {
        let Spec(_, _, default, how) = spec(level, name)?;
        let value = match *how {
            Flag => i32::from(value != 0),
            Any => value,
            Range(min, max) if (min..=max).contains(&value) => value,
            RangeOrDefault(..) if value == -1 => *default,
            RangeOrDefault(min, max) if (min..=max).contains(&value) => value,
            Never(e) => return Some(Err(e)),
            Nothing if matches!(value, 0 | 1) => return Some(Ok(())),
            Nothing => return Some(Err(Errno::EINVAL)),
            Range(..) | RangeOrDefault(..) => return Some(Err(Errno::EINVAL)),
            Privileged => {
                let may = cx.creds.has_cap(CapSet::NET_ADMIN) || cx.creds.has_cap(CapSet::NET_RAW);
                if value != 0 && !may {
                    return Some(Err(Errno::EPERM));
                }
                i32::from(value != 0)
            }
        };
        self.put(level, name, value);
        Some(Ok(()))
    }
}

/// The number in an option's value: an int, or for the levels of IP a byte.
pub fn number(level: i32, value: &[u8]) -> Result<i32> {
    match value {
        [a, b, c, d, ..] => Ok(i32::from_ne_bytes([*a, *b, *c, *d])),
        [byte, ..] if level == SOL_IP => Ok((*byte).into()),
        [] if level == SOL_IP => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// A number as getsockopt(2) gives it: small ones of IP fit a byte, if that is all the room there is.
pub fn encode(level: i32, value: i32, want: usize) -> Vec<u8> {
    if level == SOL_IP
        && (1..4).contains(&want)
        && let Ok(byte) = u8::try_from(value)
    {
        return vec![byte];
    }
    value.to_ne_bytes().to_vec()
}
