//! What the cases of sockets share: addresses, sockets in states, what calls say in words.

use crate::case::{close, zeroed};
use crate::out::{must, number, text};
use crate::sys;
use libc::{AF_INET, AF_INET6, AF_UNIX, IPPROTO_IPV6, IPV6_V6ONLY, SOCK_DGRAM, SOCK_STREAM, iovec, msghdr};

/// The three ways to speak of an address: IPv4, IPv6, and IPv4 on a socket of IPv6.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Net {
    V4,
    V6,
    Mapped,
}
pub use Net::{Mapped, V4, V6};

/// A socket address with its length.
#[derive(Clone, Copy)]
pub struct Addr {
    pub raw: [u8; 128],
    pub len: u32,
}

impl Addr {
    pub fn new(bytes: &[u8]) -> Addr {
        let mut raw = [0; 128];
        raw[..bytes.len()].copy_from_slice(bytes);
        Addr { raw, len: bytes.len() as u32 }
    }
    pub fn v4(ip: [u8; 4], port: u16) -> Addr {
        let mut b = (AF_INET as u16).to_ne_bytes().to_vec();
        b.extend(port.to_be_bytes());
        b.extend(ip);
        b.extend([0; 8]);
        Addr::new(&b)
    }
    pub fn v6(ip: [u8; 16], port: u16, scope: u32) -> Addr {
        let mut b = (AF_INET6 as u16).to_ne_bytes().to_vec();
        b.extend(port.to_be_bytes());
        b.extend([0; 4]);
        b.extend(ip);
        b.extend(scope.to_ne_bytes());
        Addr::new(&b)
    }
    /// The family alone, with zeroes up to a length.
    pub fn family(family: i32, len: u32) -> Addr {
        let mut a = Addr::new(&(family as u16).to_ne_bytes());
        a.len = len;
        a
    }
    /// A name of AF_UNIX; abstract ones begin with a zero.
    pub fn unix(name: &[u8]) -> Addr {
        let mut b = (AF_UNIX as u16).to_ne_bytes().to_vec();
        b.extend(name);
        if !name.is_empty() && name[0] != 0 {
            b.push(0);
        }
        Addr::new(&b)
    }
    pub fn port(&self) -> u16 {
        u16::from_be_bytes([self.raw[2], self.raw[3]])
    }
    pub fn with_len(mut self, len: u32) -> Addr {
        self.len = len;
        self
    }
    fn number(&self) -> i32 {
        i32::from(u16::from_ne_bytes([self.raw[0], self.raw[1]]))
    }
    /// In words; ports that were chosen are only said to be there.
    pub fn words(&self) -> String {
        let port = match self.port() {
            0 => "0".to_owned(),
            p @ 1..=9999 => p.to_string(),
            _ => "some".to_owned(),
        };
        match self.number() {
            AF_INET => {
                let ip = std::net::Ipv4Addr::new(self.raw[4], self.raw[5], self.raw[6], self.raw[7]);
                format!("{ip}:{port} ({})", self.len)
            }
            AF_INET6 => {
                let ip: [u8; 16] = self.raw[8..24].try_into().unwrap_or_default();
                let scope = u32::from_ne_bytes(self.raw[24..28].try_into().unwrap_or_default());
                format!("[{}]:{port}%{scope} ({})", std::net::Ipv6Addr::from(ip), self.len)
            }
            AF_UNIX => {
                let end = (self.len as usize).clamp(2, 128);
                format!("unix '{}' ({})", text(&self.raw[2..end]), self.len)
            }
            other => format!("family {other} ({})", self.len),
        }
    }
}

pub const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// `::ffff:a.b.c.d`
pub fn mapped(ip: [u8; 4]) -> [u8; 16] {
    let mut out = [0; 16];
    out[10..12].fill(0xff);
    out[12..].copy_from_slice(&ip);
    out
}

impl Net {
    pub fn domain(self) -> i32 {
        if self == V4 { AF_INET } else { AF_INET6 }
    }
    pub fn loopback(self, port: u16) -> Addr {
        match self {
            V4 => Addr::v4([127, 0, 0, 1], port),
            V6 => Addr::v6(LOOPBACK6, port, 0),
            Mapped => Addr::v6(mapped([127, 0, 0, 1]), port, 0),
        }
    }
    pub fn any(self, port: u16) -> Addr {
        match self {
            V4 => Addr::v4([0; 4], port),
            V6 => Addr::v6([0; 16], port, 0),
            Mapped => Addr::v6(mapped([0; 4]), port, 0),
        }
    }
    /// An address nobody has and no route leads to.
    pub fn nowhere(self, port: u16) -> Addr {
        match self {
            V4 => Addr::v4([198, 51, 100, 1], port),
            V6 => Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], port, 0),
            Mapped => Addr::v6(mapped([198, 51, 100, 1]), port, 0),
        }
    }
}

pub fn socket(domain: i32, kind: i32, protocol: i32) -> i32 {
    must("socket", sys!(socket, domain, kind, protocol)) as i32
}
pub fn tcp(net: Net) -> i32 {
    socket(net.domain(), SOCK_STREAM, 0)
}
pub fn udp(net: Net) -> i32 {
    socket(net.domain(), SOCK_DGRAM, 0)
}
pub fn pair(kind: i32) -> (i32, i32) {
    let mut p = [0i32; 2];
    must("socketpair", sys!(socketpair, AF_UNIX, kind, 0, &mut p));
    (p[0], p[1])
}

pub fn bind(fd: i32, a: &Addr) -> isize {
    sys!(bind, fd, &a.raw, a.len)
}
pub fn connect(fd: i32, a: &Addr) -> isize {
    sys!(connect, fd, &a.raw, a.len)
}
pub fn listen(fd: i32, backlog: i32) -> isize {
    sys!(listen, fd, backlog)
}
pub fn accept(fd: i32) -> isize {
    sys!(accept4, fd, 0, 0, 0)
}

fn ask(call: i64, fd: i32) -> Result<Addr, isize> {
    let mut a = Addr { raw: [0; 128], len: 128 };
    let r = crate::raw::call(call, &[fd as usize, a.raw.as_mut_ptr() as usize, &raw mut a.len as usize]);
    if r < 0 { Err(r) } else { Ok(a) }
}
/// getsockname, which must work.
pub fn own(fd: i32) -> Addr {
    match ask(libc::SYS_getsockname, fd) {
        Ok(a) => a,
        Err(e) => {
            must("getsockname", e);
            Addr::new(&[])
        }
    }
}
pub fn name(fd: i32) -> String {
    ask(libc::SYS_getsockname, fd).map_or_else(number, |a| a.words())
}
pub fn peer(fd: i32) -> String {
    ask(libc::SYS_getpeername, fd).map_or_else(number, |a| a.words())
}

/// A socket that is bound to the loopback address.
pub fn bound(fd: i32, net: Net) -> (i32, Addr) {
    must("bind", bind(fd, &net.loopback(0)));
    (fd, own(fd))
}
/// A listening TCP socket and its address.
pub fn listener(net: Net) -> (i32, Addr) {
    let (fd, a) = bound(tcp(net), net);
    must("listen", listen(fd, 8));
    (fd, a)
}
/// A TCP connection: the end that connected, the end that was accepted.
pub fn connection(net: Net) -> (i32, i32) {
    let (l, a) = listener(net);
    let c = tcp(net);
    must("connect", connect(c, &a));
    let s = must("accept", accept(l)) as i32;
    close(l);
    (c, s)
}
/// Two UDP sockets that are connected to each other.
pub fn datagrams(net: Net) -> (i32, i32) {
    let (a, at) = bound(udp(net), net);
    let (b, bt) = bound(udp(net), net);
    must("connect", connect(a, &bt));
    must("connect", connect(b, &at));
    (a, b)
}

pub fn send(fd: i32, bytes: &[u8], flags: i32) -> isize {
    sys!(sendto, fd, bytes, bytes.len(), flags, 0, 0)
}
pub fn send_to(fd: i32, bytes: &[u8], to: &Addr) -> isize {
    sys!(sendto, fd, bytes, bytes.len(), 0, &to.raw, to.len)
}
pub fn recv(fd: i32, len: usize, flags: i32) -> String {
    let mut b = vec![0u8; len];
    let r = sys!(recvfrom, fd, b.as_mut_slice(), len, flags, 0, 0);
    if r < 0 { number(r) } else { format!("{r} '{}'", text(&b[..(r as usize).min(len)])) }
}
/// Result, data and source.
pub fn recv_from(fd: i32, len: usize, flags: i32) -> (String, String) {
    let mut b = vec![0u8; len];
    let mut a = Addr { raw: [0; 128], len: 128 };
    let r = sys!(recvfrom, fd, b.as_mut_slice(), len, flags, &mut a.raw, &mut a.len);
    if r < 0 {
        return (number(r), String::new());
    }
    (format!("{r} '{}'", text(&b[..(r as usize).min(len)])), a.words())
}

/// An option that is a number; with another length than 4 that is told, too.
pub fn get(fd: i32, level: i32, name: i32) -> String {
    let mut v = 0i32;
    let mut len = 4u32;
    let r = sys!(getsockopt, fd, level, name, &mut v, &mut len);
    match (r, len) {
        (..0, _) => number(r),
        (_, 4) => v.to_string(),
        _ => format!("{v} ({len})"),
    }
}
/// The bytes of an option.
pub fn get_bytes(fd: i32, level: i32, name: i32, room: usize) -> Result<Vec<u8>, isize> {
    let mut v = vec![0u8; room];
    let mut len = room as u32;
    let r = sys!(getsockopt, fd, level, name, v.as_mut_slice(), &mut len);
    if r < 0 {
        return Err(r);
    }
    v.truncate(len as usize);
    Ok(v)
}
pub fn set(fd: i32, level: i32, name: i32, value: i32) -> isize {
    sys!(setsockopt, fd, level, name, &value, 4)
}
pub fn set_bytes(fd: i32, level: i32, name: i32, value: &[u8]) -> isize {
    sys!(setsockopt, fd, level, name, value, value.len())
}
pub fn v6only(fd: i32, on: i32) -> isize {
    set(fd, IPPROTO_IPV6, IPV6_V6ONLY, on)
}

/// `set` and what `get` says then.
pub fn turn(fd: i32, level: i32, name: i32, value: i32) -> String {
    let r = set(fd, level, name, value);
    format!("{value}: {} -> {}", number(r), get(fd, level, name))
}

const EVENTS: &[(i16, &str)] = &[
    (libc::POLLIN, "in"),
    (libc::POLLPRI, "pri"),
    (libc::POLLOUT, "out"),
    (libc::POLLERR, "err"),
    (libc::POLLHUP, "hup"),
    (libc::POLLNVAL, "nval"),
    (libc::POLLRDHUP, "rdhup"),
];

/// The names of poll's bits.
pub fn events(bits: i16) -> String {
    let names: Vec<&str> = EVENTS.iter().filter(|(b, _)| bits & b != 0).map(|(_, n)| *n).collect();
    if names.is_empty() { "-".to_owned() } else { names.join("|") }
}
/// What poll(2) tells of a descriptor now.
pub fn poll(fd: i32) -> String {
    let all = EVENTS.iter().fold(0, |all, (b, _)| all | b);
    let mut p = libc::pollfd { fd, events: all, revents: 0 };
    sys!(poll, &mut p, 1, 0);
    events(p.revents)
}
/// Waits for one of these events, at most five seconds.
pub fn ready(fd: i32, events: i16) -> bool {
    let mut p = libc::pollfd { fd, events, revents: 0 };
    sys!(poll, &mut p, 1, 5000) == 1
}
/// Waits for data, the end or an error.
pub fn readable(fd: i32) -> bool {
    ready(fd, libc::POLLIN)
}

#[repr(C, align(8))]
struct Room([u8; 512]);

/// A control message: level, kind, data.
pub type Control = (i32, i32, Vec<u8>);

fn pack(list: &[Control]) -> (Room, usize) {
    let mut room = Room([0; 512]);
    let mut at = 0;
    for (level, kind, data) in list {
        let len = 16 + data.len();
        room.0[at..at + 8].copy_from_slice(&len.to_ne_bytes());
        room.0[at + 8..at + 12].copy_from_slice(&level.to_ne_bytes());
        room.0[at + 12..at + 16].copy_from_slice(&kind.to_ne_bytes());
        room.0[at + 16..at + len].copy_from_slice(data);
        at += len.next_multiple_of(8);
    }
    (room, at)
}

/// Sends bytes with control messages, to an address if one is given.
pub fn send_msg(fd: i32, bytes: &[u8], to: Option<&Addr>, list: &[Control], flags: i32) -> isize {
    let (mut room, len) = pack(list);
    let iov = iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    let mut m: msghdr = zeroed();
    if let Some(a) = to {
        m.msg_name = a.raw.as_ptr() as *mut _;
        m.msg_namelen = a.len;
    }
    m.msg_iov = &raw const iov as *mut _;
    m.msg_iovlen = 1;
    if len > 0 {
        m.msg_control = room.0.as_mut_ptr().cast();
        m.msg_controllen = len;
    }
    sys!(sendmsg, fd, &m, flags)
}

/// What recvmsg brought.
pub struct Got {
    pub result: isize,
    pub data: Vec<u8>,
    pub from: Addr,
    pub flags: i32,
    pub control: Vec<Control>,
}

impl Got {
    /// Result, data and flags.
    pub fn words(&self) -> String {
        if self.result < 0 {
            return number(self.result);
        }
        let names: &[(i32, &str)] = &[
            (libc::MSG_OOB, "oob"),
            (libc::MSG_TRUNC, "trunc"),
            (libc::MSG_CTRUNC, "ctrunc"),
            (libc::MSG_EOR, "eor"),
            (libc::MSG_ERRQUEUE, "errqueue"),
            (libc::MSG_CMSG_CLOEXEC, "cloexec"),
        ];
        let flags: Vec<&str> = names.iter().filter(|(b, _)| self.flags & b != 0).map(|(_, n)| *n).collect();
        format!("{} '{}' [{}]", self.result, text(&self.data), flags.join("|"))
    }
    /// Level and kind of each control message.
    pub fn kinds(&self) -> String {
        let all: Vec<String> = self.control.iter().map(|(l, k, d)| format!("{l}/{k}({})", d.len())).collect();
        all.join(" ")
    }
    pub fn find(&self, level: i32, kind: i32) -> Option<&[u8]> {
        self.control.iter().find(|(l, k, _)| (*l, *k) == (level, kind)).map(|(_, _, d)| d.as_slice())
    }
}

/// recvmsg with room for data and control messages.
pub fn recv_msg(fd: i32, len: usize, room: usize, flags: i32) -> Got {
    let mut control = Room([0; 512]);
    let mut b = vec![0u8; len];
    let iov = iovec { iov_base: b.as_mut_ptr().cast(), iov_len: len };
    let mut from = Addr { raw: [0; 128], len: 128 };
    let mut m: msghdr = zeroed();
    m.msg_name = from.raw.as_mut_ptr().cast();
    m.msg_namelen = 128;
    m.msg_iov = &raw const iov as *mut _;
    m.msg_iovlen = 1;
    m.msg_control = control.0.as_mut_ptr().cast();
    m.msg_controllen = room.min(512);
    let result = sys!(recvmsg, fd, &mut m, flags);
    from.len = m.msg_namelen;
    let mut list = Vec::new();
    let mut at = 0;
    while result >= 0 && at + 16 <= m.msg_controllen {
        let word = |i: usize| int_at(&control.0, i);
        let len = word(at) as usize;
        if len < 16 {
            break;
        }
        list.push((word(at + 8), word(at + 12), control.0[at + 16..(at + len).min(512)].to_vec()));
        at += len.next_multiple_of(8);
    }
    b.truncate(result.max(0) as usize);
    Got { result, data: b, from, flags: m.msg_flags, control: list }
}

/// The int at a place of some bytes; -1 beyond their end.
pub fn int_at(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..at + 4).map_or(-1, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

/// Closes so that the other end sees a reset (`SO_LINGER` with no time).
pub fn reset(fd: i32) {
    let linger = [1i32, 0];
    sys!(setsockopt, fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger, 8);
    close(fd);
}

/// Sets the socket to be non-blocking.
pub fn nonblocking(fd: i32) {
    sys!(fcntl, fd, libc::F_SETFL, libc::O_RDWR | libc::O_NONBLOCK);
}

/// The number of the loopback interface.
pub const LO: i32 = 1;
