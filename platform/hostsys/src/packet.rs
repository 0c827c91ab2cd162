//! Packet sockets (packet(7)) with virtio-net headers: whole frames of one interface, with the offloads of
//! the link visible (segments of up to 64 KiB in one frame, checksums left to the link).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// `struct virtio_net_hdr` as packet sockets have it (ten bytes).
pub const VNET_HEADER: usize = 10;
/// The longest frame.
pub const FRAME: usize = 65_536 + 64;

/// The checksum from `csum_start` on is still to be filled.
pub const NEEDS_CHECKSUM: u8 = 1;
/// The checksum is known to be right.
pub const CHECKSUM_VALID: u8 = 2;

/// What frames are cut into, `VIRTIO_NET_HDR_GSO_*`.
pub const GSO_TCP4: u8 = 1;
pub const GSO_TCP6: u8 = 4;
pub const GSO_UDP: u8 = 5;

/// The header in front of each frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    pub flags: u8,
    pub gso: u8,
    /// Bytes of all headers.
    pub header: u16,
    /// Payload bytes of each segment.
    pub size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
}

impl VnetHeader {
    fn bytes(self) -> [u8; VNET_HEADER] {
        let mut bytes = [self.flags, self.gso, 0, 0, 0, 0, 0, 0, 0, 0];
        for (at, number) in [(2, self.header), (4, self.size), (6, self.csum_start), (8, self.csum_offset)] {
            bytes[at..at + 2].copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    fn read(bytes: [u8; VNET_HEADER]) -> VnetHeader {
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        VnetHeader {
            flags: bytes[0],
            gso: bytes[1],
            header: number(2),
            size: number(4),
            csum_start: number(6),
            csum_offset: number(8),
        }
    }
}

/// Opens a socket that is bound to no interface yet, in the caller's network namespace (CAP_NET_RAW).
pub fn open_unbound() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Without a protocol nothing arrives before the socket is bound to its interface.
    let fd = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    set(&fd, libc::PACKET_VNET_HDR)?;
    // Old kernels lack it; then our own frames are seen, and dropped as not for us.
    let _ = set(&fd, libc::PACKET_IGNORE_OUTGOING);
    let _ = sockopt::set_socket_recv_buffer_size_force(&fd, 8 << 20);
    let _ = sockopt::set_socket_send_buffer_size(&fd, 4 << 20);
    Ok(fd)
}

/// Binds a socket to an interface: from now on it sees the frames of that one. Takes no right beyond the socket.
pub fn bind(fd: impl AsFd, interface: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is a whole `sockaddr_ll` that lives over the call, and its size is given.
    let done = unsafe {
        libc::bind(
            fd.as_fd().as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Opens a socket for the frames of an interface.
pub fn open(interface: u32) -> io::Result<OwnedFd> {
    let fd = open_unbound()?;
    bind(&fd, interface)?;
    Ok(fd)
}

/// Keeps whoever ends from waiting for these sockets. Linux waits for a grace period of RCU (10 to 20 ms) when the last
/// descriptor of a packet socket is closed, for one after the other. This gives a socket that has descriptors of all of them,
/// and of itself, under way: when it is closed with the others, only the kernel's collector of such circles (unix(7)) finds
/// them, which since Linux 6.10 works by itself.
pub fn closed_later(sockets: &[OwnedFd]) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (keeper, sender) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    let mut fds: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    fds.push(keeper.as_fd());
    crate::fd::send_with_fds(&sender, b"k", &fds)?;
    Ok(keeper)
}

fn set(fd: &OwnedFd, option: i32) -> io::Result<()> {
    let on: i32 = 1;
    // SAFETY: the option takes an int, which lives over the call, and its size is given.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(&on).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a frame given in pieces, of which there are at most sixty.
pub fn send(fd: impl AsFd, header: VnetHeader, pieces: &[&[u8]]) -> io::Result<()> {
    let header = header.bytes();
    let mut list = Vec::with_capacity(pieces.len() + 1);
    list.push(IoSlice::new(&header));
    list.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
    rustix::io::writev(fd, &list)?;
    Ok(())
}

/// Takes a frame into the buffer; `None` if none waits.
pub fn receive(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<(VnetHeader, usize)>> {
    let mut header = [0; VNET_HEADER];
    let got = rustix::io::readv(fd, &mut [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)]);
    match got {
        Ok(count) if count > VNET_HEADER => Ok(Some((VnetHeader::read(header), count - VNET_HEADER))),
        Ok(_) => Ok(Some((VnetHeader::default(), 0))),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// In a namespace of its own, if there may be one: the sockets are gone in the end, though nobody waited for them.
    #[test]
    fn sockets_that_nobody_waits_for_are_closed_all_the_same() {
        std::thread::spawn(|| {
            if let Err(error) = crate::ns::unshare(crate::ns::Namespaces::NET) {
                crate::ns::skipped(&format!("no private network namespace: {error}"));
                return;
            }
            let open = || {
                let text = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
                text.lines().count() - 1
            };
            let sockets: Vec<OwnedFd> = (0..3).map(|_| open_unbound().unwrap()).collect();
            let keeper = closed_later(&sockets).unwrap();
            drop(sockets);
            assert_eq!(open(), 3, "the keeper has them");
            drop(keeper);
            let end = Instant::now() + Duration::from_secs(10);
            while open() > 0 {
                assert!(Instant::now() < end, "they stay for ever");
                // The collector is called when a socket is closed.
                drop(std::os::unix::net::UnixStream::pair().unwrap());
                std::thread::sleep(Duration::from_millis(5));
            }
        })
        .join()
        .unwrap();
    }
}
