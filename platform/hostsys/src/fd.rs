//! Descriptors: passing them over sockets, closing all but a few, duplicating onto fixed numbers.
//!
//! Plain open/read/write are rustix's own safe calls and are not repeated here.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Most descriptors in one message (SCM_MAX_FD of the kernel).
pub const MAX_FDS: usize = 253;

/// Sends bytes with descriptors (SCM_RIGHTS). Returns how many bytes went; the descriptors go with the first one. `data` must not be
/// empty on stream sockets. Never raises SIGPIPE.
pub fn send_with_fds(socket: impl AsFd, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_with_fds_flags(socket, data, fds, SendFlags::NOSIGNAL)
}

/// As [`send_with_fds`] with flags (DONTWAIT for example).
pub fn send_with_fds_flags(
    socket: impl AsFd,
    data: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    if fds.len() > MAX_FDS {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(data)], &mut control, flags | SendFlags::NOSIGNAL)?)
}

/// Receives bytes and up to [`MAX_FDS`] descriptors (close-on-exec). 0 bytes: the peer closed. A message or descriptor list that was
/// cut off is an error (EMSGSIZE), never a silent loss.
pub fn recv_with_fds(socket: impl AsFd, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    recv_with_fds_flags(socket, buf, RecvFlags::empty())
}

/// As [`recv_with_fds`] with flags.
pub fn recv_with_fds_flags(
    socket: impl AsFd,
    buf: &mut [u8],
    flags: RecvFlags,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [IoSliceMut::new(buf)];
    let got = rustix::net::recvmsg(socket, &mut iov, &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(list) = message {
            fds.extend(list);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    Ok((got.bytes, fds))
}

/// Closes every descriptor whose number is not in `keep`. For a process that has just been forked: values of `OwnedFd`
/// and `File` that were made before and are not kept must be forgotten, not dropped.
pub fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut first = 0u32;
    for fd in keep {
        if first < fd {
            close_range(first, fd - 1)?;
        }
        first = fd.saturating_add(1);
    }
    close_range(first, u32::MAX)
}

/// close_range(2).
pub fn close_range(first: u32, last: u32) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: closes descriptors; the caller answers for their owners, see `close_all_but`.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn set_cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: changes flags only.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes number `target` refer to the file of `fd` (dup2, without close-on-exec). What `target` was before is closed; nobody may own it.
/// Meant for 0, 1 and 2.
pub fn dup_onto(fd: impl AsFd, target: RawFd) -> io::Result<()> {
    // SAFETY: dup2 has no memory preconditions; ownership of `target` is the caller's promise.
    match unsafe { libc::dup2(fd.as_fd().as_raw_fd(), target) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Moves a descriptor to a number of at least `min`, so that low numbers stay free for stdio.
pub fn move_above(fd: OwnedFd, min: RawFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, min)?)
}

/// Takes over a descriptor that was inherited by number. Checks that it is open.
pub fn adopt(raw: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl on any number is harmless.
    if raw < 0 || unsafe { libc::fcntl(raw, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and the caller says that nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn passes_descriptors() {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (r, w) = rustix::pipe::pipe().unwrap();
        assert_eq!(send_with_fds(&a, b"x", &[w.as_fd(), r.as_fd()]).unwrap(), 1);
        let mut buf = [0; 8];
        let (n, fds) = recv_with_fds(&b, &mut buf).unwrap();
        assert_eq!((n, fds.len()), (1, 2));
        rustix::io::write(&fds[0], b"hi").unwrap();
        assert_eq!(rustix::io::read(&r, &mut buf).unwrap(), 2);
        assert_eq!(send_with_fds(&a, b"long message", &[]).unwrap(), 12);
        assert_eq!(recv_with_fds(&b, &mut buf).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        drop(a);
        assert_eq!(recv_with_fds(&b, &mut buf).unwrap().0, 0);
    }

    #[test]
    fn adopt_checks() {
        assert!(adopt(-1).is_err());
        assert!(adopt(1 << 20).is_err());
    }
}
