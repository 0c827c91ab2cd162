//! Unix socket pairs, waiting for readiness, and a wake-up descriptor: the host side of the channels between the processes
//! of a sandbox. What travels over them with descriptors is sent and received by [`crate::fd`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// A connected pair of unix stream sockets, both close-on-exec.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::STREAM)
}

/// A connected pair of unix sockets that keep message borders, both close-on-exec.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::SEQPACKET)
}

fn pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
}

/// What to wait for on one descriptor, and what came of it.
#[derive(Debug)]
pub struct Interest<'a> {
    pub fd: BorrowedFd<'a>,
    /// Wait until there is something to read.
    pub read: bool,
    /// Wait until it can be written as well.
    pub write: bool,
    /// Set by [`wait`]: reading will not block (data, end of stream or an error).
    pub readable: bool,
    /// Set by [`wait`]: writing will not block.
    pub writable: bool,
    /// Set by [`wait`]: the other side is gone or the descriptor is in error.
    pub hung_up: bool,
}

impl<'a> Interest<'a> {
    pub fn read(fd: BorrowedFd<'a>) -> Interest<'a> {
        Interest { fd, read: true, write: false, readable: false, writable: false, hung_up: false }
    }
}

/// Waits until one of `interests` is ready or `timeout` has passed; `None` waits for ever.
/// Returns how many are ready; 0 after a timeout or a signal.
pub fn wait(interests: &mut [Interest<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let mut polls: Vec<PollFd<'_>> = interests
        .iter()
        .map(|i| {
            let mut flags = if i.read { PollFlags::IN } else { PollFlags::empty() };
            if i.write {
                flags |= PollFlags::OUT;
            }
            PollFd::from_borrowed_fd(i.fd, flags)
        })
        .collect();
    let timeout = timeout.map(|t| Timespec {
        tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    let ready = match rustix::event::poll(&mut polls, timeout.as_ref()) {
        Ok(n) => n,
        Err(rustix::io::Errno::INTR) => 0,
        Err(e) => return Err(e.into()),
    };
    let results: Vec<PollFlags> = polls.iter().map(PollFd::revents).collect();
    for (interest, revents) in interests.iter_mut().zip(results) {
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        interest.hung_up = ready > 0 && revents.intersects(gone);
        interest.readable = ready > 0 && revents.intersects(PollFlags::IN | gone);
        interest.writable = ready > 0 && revents.intersects(PollFlags::OUT);
    }
    Ok(ready)
}

/// A descriptor that any thread can make readable (eventfd).
#[derive(Debug)]
pub struct Waker {
    fd: OwnedFd,
}

impl Waker {
    pub fn new() -> io::Result<Waker> {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker { fd })
    }

    /// Makes the descriptor readable. Wake-ups that nobody has taken yet add up to one.
    pub fn wake(&self) {
        // The only error is a full counter, and then it is readable already.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// Takes all wake-ups so far.
    pub fn clear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.fd, &mut count);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waker_is_readable_until_cleared() {
        let waker = Waker::new().unwrap();
        let zero = Some(Duration::ZERO);
        assert_eq!(wait(&mut [Interest::read(waker.as_fd())], zero).unwrap(), 0);
        waker.wake();
        waker.wake();
        assert_eq!(wait(&mut [Interest::read(waker.as_fd())], zero).unwrap(), 1);
        waker.clear();
        assert_eq!(wait(&mut [Interest::read(waker.as_fd())], zero).unwrap(), 0);
    }
}
