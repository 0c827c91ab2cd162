//! Sockets of the internet families on the host, none of whose calls waits: those that were opened beforehand and are
//! connected to one place, and those of `--network=host`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::stream::{Question, ask};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrAny, SocketFlags, SocketType, ipproto,
};

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

fn socket(family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}

/// A UDP socket in the caller's network namespace that talks to one address only.
pub fn udp_to(address: SocketAddr) -> io::Result<OwnedFd> {
    let fd = socket(family(address), SocketType::DGRAM)?;
    rustix::net::connect(&fd, &address)?;
    Ok(fd)
}

/// A TCP socket over IPv4 in the caller's network namespace that is connected to nobody.
pub fn tcp() -> io::Result<OwnedFd> {
    socket(AddressFamily::INET, SocketType::STREAM)
}

/// Begins to connect a TCP socket; it can be written to when that is done.
pub fn connect(fd: impl AsFd, address: SocketAddr) -> io::Result<()> {
    match rustix::net::connect(fd, &address) {
        Err(rustix::io::Errno::INPROGRESS) => Ok(()),
        other => Ok(other?),
    }
}

/// Makes a TCP socket as new, whatever it was connected to.
pub fn disconnect(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::connect_unspec(fd)?)
}

/// Sends on a connected socket without waiting.
pub fn send(fd: impl AsFd, data: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(fd, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
}

/// Receives without waiting; `None` if there is nothing.
pub fn receive(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match rustix::net::recv(fd, buffer, RecvFlags::DONTWAIT) {
        Ok((count, _)) => Ok(Some(count)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Says that nothing more will be sent.
pub fn finish(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(fd, Shutdown::Write)?)
}

/// What sockets a guest can have of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp,
    Udp,
    /// UDP whose checksum need not cover all (udplite(7)); newer kernels have it no more.
    UdpLite,
    /// Echo requests of ICMP and their answers (icmp(7)).
    Ping,
}

/// A new socket in the caller's network namespace. EACCES for a ping socket if no group of the caller's is in
/// `net.ipv4.ping_group_range`.
pub fn open(v6: bool, kind: Kind) -> io::Result<OwnedFd> {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let protocol = match kind {
        Kind::Tcp => return socket(family, SocketType::STREAM),
        Kind::Udp => return socket(family, SocketType::DGRAM),
        Kind::UdpLite => ipproto::UDPLITE,
        Kind::Ping if v6 => ipproto::ICMPV6,
        Kind::Ping => ipproto::ICMP,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(protocol))?)
}

/// bind(2)
pub fn bind(fd: impl AsFd, address: SocketAddr) -> io::Result<()> {
    Ok(rustix::net::bind(fd, &address)?)
}

/// `SO_REUSEADDR`
pub fn reuse_address(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_reuseaddr(fd, true)?)
}

/// listen(2)
pub fn listen(fd: impl AsFd, backlog: i32) -> io::Result<()> {
    Ok(rustix::net::listen(fd, backlog)?)
}

fn known(address: Option<SocketAddrAny>) -> Option<SocketAddr> {
    address.and_then(|any| any.try_into().ok())
}

/// accept(2): EAGAIN if nobody waits.
pub fn accept(fd: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (new, from) = rustix::net::acceptfrom_with(fd, flags)?;
    Ok((new, known(from)))
}

/// connect(2): EINPROGRESS if it goes on.
pub fn connect_now(fd: impl AsFd, address: SocketAddr) -> io::Result<()> {
    Ok(rustix::net::connect(fd, &address)?)
}

/// getsockname(2); `None` is an address of another family.
pub fn own_name(fd: impl AsFd) -> io::Result<Option<SocketAddr>> {
    Ok(known(Some(rustix::net::getsockname(fd)?)))
}

/// getpeername(2)
pub fn peer_name(fd: impl AsFd) -> io::Result<Option<SocketAddr>> {
    Ok(known(rustix::net::getpeername(fd)?))
}

/// sendto(2). Of `flags` the sender's `MSG_OOB`, `MSG_DONTROUTE`, `MSG_EOR` and `MSG_MORE` count.
pub fn send_to(fd: impl AsFd, data: &[u8], to: Option<SocketAddr>, flags: u32) -> io::Result<usize> {
    let kept = SendFlags::OOB | SendFlags::DONTROUTE | SendFlags::EOR | SendFlags::MORE;
    let flags = SendFlags::from_bits_truncate(flags) & kept | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    match to {
        Some(to) => Ok(rustix::net::sendto(fd, data, flags, &to)?),
        None => Ok(rustix::net::send(fd, data, flags)?),
    }
}

/// recvfrom(2): bytes that are in the buffer, bytes that the message had (only of a `datagram`), its sender. Of `flags`
/// `MSG_OOB` and `MSG_PEEK` count.
pub fn receive_from(
    fd: impl AsFd,
    buffer: &mut [u8],
    flags: u32,
    datagram: bool,
) -> io::Result<(usize, usize, Option<SocketAddr>)> {
    let kept = RecvFlags::OOB | RecvFlags::PEEK;
    let mut flags = RecvFlags::from_bits_truncate(flags) & kept | RecvFlags::DONTWAIT;
    // On streams it would throw the data away.
    if datagram {
        flags |= RecvFlags::TRUNC;
    }
    let (count, length, from) = rustix::net::recvfrom(fd, buffer, flags)?;
    Ok((count, length, known(from)))
}

/// shutdown(2): 0, 1 or 2.
pub fn shutdown(fd: impl AsFd, how: i32) -> io::Result<()> {
    let how = match how {
        0 => Shutdown::Read,
        1 => Shutdown::Write,
        _ => Shutdown::Both,
    };
    Ok(rustix::net::shutdown(fd, how)?)
}

/// `SO_ERROR`, which is cleared by asking.
pub fn take_error(fd: impl AsFd) -> Option<io::Error> {
    match rustix::net::sockopt::socket_error(fd) {
        Ok(Err(error)) => Some(error.into()),
        Ok(Ok(())) => None,
        Err(error) => Some(error.into()),
    }
}

/// The inode number that the host shows of a socket.
pub fn number_of(fd: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(fd)?.st_ino)
}

/// Bytes that can be read (`FIONREAD`).
pub fn readable(fd: impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(fd)?)
}

fn number(fd: impl AsFd, question: Question) -> io::Result<u32> {
    let [a, b, c, d, ..] = ask(fd, question)?;
    Ok(u32::from_ne_bytes([a, b, c, d]))
}

/// Whether the urgent byte is what is read next (`SIOCATMARK`).
pub fn at_mark(fd: impl AsFd) -> io::Result<bool> {
    Ok(number(fd, Question::Mark)? != 0)
}

/// Bytes that were sent and have not arrived (`SIOCOUTQ`).
pub fn unsent(fd: impl AsFd) -> io::Result<u32> {
    number(fd, Question::Unsent)
}

/// Bytes of a stream that have not even been sent once (`SIOCOUTQNSD`).
pub fn not_sent(fd: impl AsFd) -> io::Result<u32> {
    number(fd, Question::Unstarted)
}

/// setsockopt(2) with a value of which the caller has seen that it is no address.
pub fn set_option(fd: impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads `length` bytes of a slice that lives over the call.
    let done =
        unsafe { libc::setsockopt(fd.as_fd().as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// getsockopt(2), `want` bytes at most.
pub fn option(fd: impl AsFd, level: i32, name: i32, want: usize) -> io::Result<Vec<u8>> {
    get_option(fd, level, name, vec![0; want])
}

/// Which sources of a group are wanted: `struct ip_msfilter` or `struct group_filter` (ip(7), RFC 3678).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceList {
    pub level: i32,
    pub name: i32,
    /// Where the sources begin; the number of them stands before.
    pub start: usize,
    /// How long each is.
    pub size: usize,
}

impl SourceList {
    /// The most sources that are asked for. Linux lets a socket have 10 of a group, if nobody has set something else.
    pub const MOST: usize = 64;
}

/// getsockopt(2) of a list of sources. `head` is what stands before the number of those that are asked for, `count`.
pub fn sources(fd: impl AsFd, list: SourceList, head: &[u8], count: usize) -> io::Result<Vec<u8>> {
    let count = count.min(SourceList::MOST);
    let mut value = head.get(..list.start - 4).ok_or(io::ErrorKind::InvalidInput)?.to_vec();
    value.extend((count as u32).to_ne_bytes());
    value.resize(list.start + count * list.size, 0);
    get_option(fd, list.level, list.name, value)
}

fn get_option(fd: impl AsFd, level: i32, name: i32, mut value: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel writes the new length and at most `length` bytes, which the vector has. Of a list of sources it writes as
    // many as the value says, for which `sources` has made room; every other value says 0.
    let done = unsafe {
        libc::getsockopt(fd.as_fd().as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    value.truncate(usize::try_from(length).unwrap_or(0));
    Ok(value)
}
