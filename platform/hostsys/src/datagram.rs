//! Messages of `--network=host` with their control messages (cmsg(3)). Each message is made anew from numbers that were checked,
//! and what comes from the host is read into such.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
};

/// What goes with a datagram that is sent. What is not set is the socket's.
#[derive(Clone, Copy, Debug, Default)]
pub struct With {
    /// Source address.
    pub source: Option<IpAddr>,
    /// Index of the interface, or 0.
    pub device: u32,
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    /// `UDP_SEGMENT`
    pub segment: Option<u16>,
    /// `SO_MARK` and `SO_PRIORITY`, which mean nothing to the host.
    pub mark: Option<u32>,
    pub priority: Option<i32>,
}

/// Something that is told of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// When it came: nanoseconds since 1970.
    Time(u64),
    /// Interface, local address, and the address in the header.
    Packet4(u32, Ipv4Addr, Ipv4Addr),
    Packet6(u32, Ipv6Addr),
    Ttl(i32),
    Tos(u8),
    HopLimit(i32),
    TrafficClass(i32),
    /// Bytes of each datagram but the last one (`UDP_GRO`).
    Segment(i32),
    /// Datagrams that found no room since the socket was made (`SO_RXQ_OVFL`).
    Lost(u32),
    /// Where it was sent to (`IP_RECVORIGDSTADDR`, `IPV6_RECVORIGDSTADDR`).
    Destination(SocketAddr),
    /// What the queue of errors says (`IP_RECVERR`, `IPV6_RECVERR`).
    Report(Report),
}

/// `struct sock_extended_err` and who reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub errno: u32,
    /// Origin, type and code.
    pub what: [u8; 3],
    /// Info and data.
    pub more: [u32; 2],
    pub offender: Option<SocketAddr>,
}

/// A datagram, a piece of a stream, or a report that was received.
#[derive(Clone, Debug)]
pub struct Message {
    /// Bytes that are in the buffer.
    pub count: usize,
    /// Bytes that it had: of a datagram, else `count`.
    pub length: usize,
    /// There were more bytes.
    pub cut: bool,
    pub from: Option<SocketAddr>,
    pub told: Vec<Told>,
}

/// sendmsg(2) without waiting. `v6`: the datagram goes by IPv6, else by IPv4, on a socket of whatever family. Of `flags` the sender's
/// `MSG_DONTROUTE` and `MSG_MORE` count.
pub fn send(
    fd: impl AsFd,
    data: &[u8],
    to: Option<SocketAddr>,
    v6: bool,
    flags: u32,
    with: &With,
) -> io::Result<usize> {
    let number = |n: u32| i32::try_from(n).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
    let packet = with.source.is_some() || with.device != 0;
    let four = match with.source {
        Some(IpAddr::V4(ip)) => u32::from_ne_bytes(ip.octets()),
        _ => 0,
    };
    let four = libc::in_pktinfo {
        ipi_ifindex: number(with.device)?,
        ipi_spec_dst: libc::in_addr { s_addr: four },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let six = match with.source {
        Some(IpAddr::V6(ip)) => ip.octets(),
        _ => [0; 16],
    };
    let six = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: six }, ipi6_ifindex: with.device };
    let (ttl, tos) = (with.ttl.map(i32::from), with.tos.map(i32::from));
    let mut messages = Vec::new();
    if v6 {
        messages.extend(packet.then_some(ControlMessage::Ipv6PacketInfo(&six)));
        messages.extend(ttl.as_ref().map(ControlMessage::Ipv6HopLimit));
        messages.extend(tos.as_ref().map(ControlMessage::Ipv6TClass));
    } else {
        messages.extend(packet.then_some(ControlMessage::Ipv4PacketInfo(&four)));
        messages.extend(ttl.as_ref().map(ControlMessage::Ipv4Ttl));
        messages.extend(with.tos.as_ref().map(ControlMessage::Ipv4Tos));
    }
    messages.extend(with.segment.as_ref().map(ControlMessage::UdpGsoSegments));
    let kept = MsgFlags::from_bits_retain(libc::MSG_DONTROUTE | libc::MSG_MORE);
    let flags = MsgFlags::from_bits_retain(flags.cast_signed()) & kept
        | MsgFlags::MSG_DONTWAIT
        | MsgFlags::MSG_NOSIGNAL;
    let to = to.map(SockaddrStorage::from);
    Ok(sendmsg(fd.as_fd().as_raw_fd(), &[IoSlice::new(data)], &messages, flags, to.as_ref())?)
}

/// recvmsg(2) without waiting. Of `flags` `MSG_PEEK`, `MSG_OOB` and `MSG_ERRQUEUE` count.
pub fn receive(fd: impl AsFd, buffer: &mut [u8], flags: u32, stream: bool) -> io::Result<Message> {
    let room = buffer.len();
    let kept = MsgFlags::MSG_PEEK | MsgFlags::MSG_OOB | MsgFlags::MSG_ERRQUEUE;
    let mut flags = MsgFlags::from_bits_retain(flags.cast_signed()) & kept | MsgFlags::MSG_DONTWAIT;
    // On streams it would throw the data away.
    if !stream {
        flags |= MsgFlags::MSG_TRUNC;
    }
    // All that a socket can be asked to tell at once.
    let mut control = cmsg_space!(
        libc::timespec,
        libc::in_pktinfo,
        libc::in6_pktinfo,
        i32,
        i32,
        i32,
        i32,
        i32,
        u32,
        [u64; 8],
        libc::sockaddr_in,
        libc::sockaddr_in6,
        (libc::sock_extended_err, libc::sockaddr_in),
        (libc::sock_extended_err, libc::sockaddr_in6)
    );
    let mut pieces = [IoSliceMut::new(buffer)];
    let got = recvmsg::<SockaddrStorage>(fd.as_fd().as_raw_fd(), &mut pieces, Some(&mut control), flags)?;
    let from = got.address.and_then(|a| {
        let four = a.as_sockaddr_in().map(|a: &SockaddrIn| SocketAddr::from(*a));
        four.or_else(|| a.as_sockaddr_in6().map(|a: &SockaddrIn6| SocketAddr::from(*a)))
    });
    let cut = got.flags.contains(MsgFlags::MSG_TRUNC);
    let told = got.cmsgs().map(|list| list.filter_map(told).collect()).unwrap_or_default();
    Ok(Message { count: got.bytes.min(room), length: got.bytes, cut, from, told })
}

fn four(address: libc::sockaddr_in) -> Option<SocketAddr> {
    let known = i32::from(address.sin_family) == libc::AF_INET;
    known.then(|| SocketAddr::from(SockaddrIn::from(address)))
}

fn six(address: libc::sockaddr_in6) -> Option<SocketAddr> {
    let known = i32::from(address.sin6_family) == libc::AF_INET6;
    known.then(|| SocketAddr::from(SockaddrIn6::from(address)))
}

fn report(e: libc::sock_extended_err, offender: Option<SocketAddr>) -> Told {
    Told::Report(Report {
        errno: e.ee_errno,
        what: [e.ee_origin, e.ee_type, e.ee_code],
        more: [e.ee_info, e.ee_data],
        offender,
    })
}

fn told(message: ControlMessageOwned) -> Option<Told> {
    let ip = |a: libc::in_addr| Ipv4Addr::from(a.s_addr.to_ne_bytes());
    Some(match message {
        ControlMessageOwned::ScmTimestampns(t) => {
            let seconds = u64::try_from(t.tv_sec()).ok()?;
            Told::Time(seconds.checked_mul(1_000_000_000)?.checked_add(u64::try_from(t.tv_nsec()).ok()?)?)
        }
        ControlMessageOwned::Ipv4PacketInfo(i) => {
            Told::Packet4(u32::try_from(i.ipi_ifindex).ok()?, ip(i.ipi_spec_dst), ip(i.ipi_addr))
        }
        ControlMessageOwned::Ipv6PacketInfo(i) => {
            Told::Packet6(i.ipi6_ifindex, Ipv6Addr::from(i.ipi6_addr.s6_addr))
        }
        ControlMessageOwned::Ipv4Ttl(n) => Told::Ttl(n),
        ControlMessageOwned::Ipv4Tos(n) => Told::Tos(n),
        ControlMessageOwned::Ipv6HopLimit(n) => Told::HopLimit(n),
        ControlMessageOwned::Ipv6TClass(n) => Told::TrafficClass(n),
        ControlMessageOwned::UdpGroSegments(n) => Told::Segment(n),
        ControlMessageOwned::RxqOvfl(n) => Told::Lost(n),
        ControlMessageOwned::Ipv4OrigDstAddr(a) => Told::Destination(four(a)?),
        ControlMessageOwned::Ipv6OrigDstAddr(a) => Told::Destination(six(a)?),
        ControlMessageOwned::Ipv4RecvErr(e, a) => report(e, a.and_then(four)),
        ControlMessageOwned::Ipv6RecvErr(e, a) => report(e, a.and_then(six)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn what_is_sent_with_a_datagram_is_told() {
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        for option in [8, 12, 13] {
            crate::inet::set_option(&there, libc::SOL_IP, option, &1i32.to_ne_bytes()).unwrap();
        }
        crate::inet::set_option(&there, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32.to_ne_bytes()).unwrap();
        let with = With {
            source: Some("127.0.0.2".parse().unwrap()),
            ttl: Some(7),
            tos: Some(0x10),
            ..With::default()
        };
        let any = UdpSocket::bind("0.0.0.0:0").unwrap();
        let to = there.local_addr().unwrap();
        assert_eq!(send(&any, b"one", Some(to), false, 0, &with).unwrap(), 3);
        assert_eq!(send(&here, b"two", Some(to), false, 0, &With::default()).unwrap(), 3);
        let mut buffer = [0; 2];
        let first = receive(&there, &mut buffer, 0, false).unwrap();
        assert_eq!((first.count, first.length, &buffer), (2, 3, b"on"));
        assert_eq!(first.from.unwrap().ip(), with.source.unwrap());
        let home = Ipv4Addr::LOCALHOST;
        assert!(first.told.iter().any(|t| matches!(t, Told::Packet4(_, a, b) if (*a, *b) == (home, home))));
        assert!(
            first.told.contains(&Told::Ttl(7)) && first.told.contains(&Told::Tos(0x10)),
            "{:?}",
            first.told
        );
        assert!(first.told.iter().any(|t| matches!(t, Told::Time(ns) if *ns > 1_600_000_000_000_000_000)));
        let second = receive(&there, &mut [0; 8], 0, false).unwrap();
        assert_eq!(second.from, Some(here.local_addr().unwrap()));
        assert_eq!(receive(&there, &mut [0; 8], 0, false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_refusal_is_in_the_queue_of_errors() {
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        crate::inet::set_option(&here, libc::SOL_IP, libc::IP_RECVERR, &1i32.to_ne_bytes()).unwrap();
        here.send_to(b"lost", nobody).unwrap();
        let errors = libc::MSG_ERRQUEUE.cast_unsigned();
        let got = receive(&here, &mut [0; 2], errors, false).unwrap();
        assert_eq!((got.count, got.cut, got.from), (2, true, Some(nobody)));
        let Some(Told::Report(report)) = got.told.first() else { panic!("{got:?}") };
        assert_eq!((report.errno, report.what), (libc::ECONNREFUSED.cast_unsigned(), [2, 3, 3]));
        assert_eq!(report.offender.unwrap().ip(), nobody.ip());
        let empty = receive(&here, &mut [0; 2], errors, false).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn streams_have_time_stamps() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        crate::inet::set_option(&server, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32.to_ne_bytes())
            .unwrap();
        // The kernel begins to stamp what comes in some time after the first socket asks (net_enable_timestamp).
        let stamped = (0..1000).any(|_| {
            std::io::Write::write_all(&mut client, b"piece").unwrap();
            let mut buffer = [0; 3];
            let got = receive(&server, &mut buffer, 0, true).unwrap();
            assert_eq!((got.count, got.length, &buffer), (3, 3, b"pie"));
            assert_eq!(receive(&server, &mut [0; 8], 0, true).unwrap().count, 2);
            std::thread::sleep(std::time::Duration::from_millis(1));
            matches!(got.told[..], [Told::Time(_)])
        });
        assert!(stamped);
    }

    #[test]
    fn by_ipv6_as_well() {
        let Ok(there) = UdpSocket::bind("[::1]:0") else {
            assert!(std::env::var_os("CI").is_none(), "no IPv6");
            return eprintln!("skipped: no IPv6");
        };
        for option in [49, 51, 66] {
            crate::inet::set_option(&there, libc::SOL_IPV6, option, &1i32.to_ne_bytes()).unwrap();
        }
        let any = UdpSocket::bind("[::]:0").unwrap();
        let with =
            With { source: Some("::1".parse().unwrap()), ttl: Some(9), tos: Some(4), ..With::default() };
        send(&any, b"x", Some(there.local_addr().unwrap()), true, 0, &with).unwrap();
        let got = receive(&there, &mut [0; 8], 0, false).unwrap();
        assert!(
            got.told.contains(&Told::HopLimit(9)) && got.told.contains(&Told::TrafficClass(4)),
            "{:?}",
            got.told
        );
        assert!(got.told.iter().any(|t| matches!(t, Told::Packet6(_, ip) if ip.is_loopback())));
    }
}
