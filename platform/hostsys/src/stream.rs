//! Donated descriptors that are read and written as streams: pipes, terminals, sockets.

use crate::Block;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

/// What fstat(2) tells of a donated descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub ino: u64,
    pub mode: u32,
    pub rdev: u64,
    pub size: u64,
    pub blksize: u32,
    pub blocks: u64,
    /// Seconds and nanoseconds, as the two below.
    pub atime: (i64, i64),
    pub mtime: (i64, i64),
    pub ctime: (i64, i64),
}

/// A donated stream. Its file description may be shared with others, so nothing here changes its flags.
#[derive(Clone, Debug)]
pub struct HostStream {
    fd: Arc<OwnedFd>,
}

fn checked(n: isize) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Linux takes at most this many pieces in one call.
const IOV_MAX: usize = 1024;

fn iovecs(blocks: &[Block<'_>]) -> Vec<libc::iovec> {
    blocks
        .iter()
        .take(IOV_MAX)
        .map(|b| libc::iovec { iov_base: b.as_ptr().cast(), iov_len: b.len() })
        .collect()
}

/// Requests of ioctl(2) that do nothing but write an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    /// `TCGETS`: a `struct termios`.
    Terminal,
    /// `SIOCOUTQ`: an int.
    Unsent,
    /// `SIOCOUTQNSD`: an int.
    Unstarted,
    /// `SIOCATMARK`: an int.
    Mark,
}

/// The answer at the front, zeroes behind it.
pub(crate) fn ask(fd: impl AsFd, question: Question) -> io::Result<[u8; 36]> {
    const SIOCATMARK: libc::Ioctl = 0x8905;
    const SIOCOUTQNSD: libc::Ioctl = 0x894b;
    let request = match question {
        Question::Terminal => libc::TCGETS,
        Question::Unsent => libc::TIOCOUTQ,
        Question::Unstarted => SIOCOUTQNSD,
        Question::Mark => SIOCATMARK,
    };
    let mut answer = [0u8; 36];
    // SAFETY: `struct termios` is 36 bytes long, and the other answers are shorter.
    let r = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, answer.as_mut_ptr()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

impl HostStream {
    pub fn new(fd: OwnedFd) -> HostStream {
        HostStream { fd: Arc::new(fd) }
    }

    /// Makes reads and writes of the description never wait: only where nobody else uses it.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(self.fd.as_fd(), true)?)
    }

    /// The descriptor.
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Another descriptor of the same description.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Reads into blocks; may wait when nothing is there.
    pub fn read(&self, blocks: &[Block<'_>]) -> io::Result<usize> {
        let iov = iovecs(blocks);
        let count = libc::c_int::try_from(iov.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: every iovec describes a block that lives as long as `blocks`; the kernel writes inside it only, and
        // nobody has a reference into it.
        checked(unsafe { libc::readv(self.fd.as_raw_fd(), iov.as_ptr(), count) })
    }

    /// Writes from blocks; may wait when there is no room.
    pub fn write(&self, blocks: &[Block<'_>]) -> io::Result<usize> {
        let iov = iovecs(blocks);
        let count = libc::c_int::try_from(iov.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: as in `read`; the kernel only reads.
        checked(unsafe { libc::writev(self.fd.as_raw_fd(), iov.as_ptr(), count) })
    }

    /// Status flags and access mode (`F_GETFL`).
    pub fn flags(&self) -> io::Result<u32> {
        Ok(rustix::fs::fcntl_getfl(self.fd.as_fd())?.bits())
    }

    /// The position, for regular files.
    pub fn position(&self) -> io::Result<u64> {
        Ok(rustix::fs::seek(self.fd.as_fd(), rustix::fs::SeekFrom::Current(0))?)
    }

    /// Moves the position, which all who share the description see.
    pub fn set_position(&self, at: u64) -> io::Result<()> {
        rustix::fs::seek(self.fd.as_fd(), rustix::fs::SeekFrom::Start(at))?;
        Ok(())
    }

    /// ftruncate(2).
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(self.fd.as_fd(), len)?)
    }

    /// Bytes waiting to be read.
    pub fn available(&self) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(self.fd.as_fd())?)
    }

    /// `struct termios` of a terminal as TCGETS gives it; ENOTTY for others.
    pub fn terminal_attributes(&self) -> io::Result<[u8; 36]> {
        ask(&self.fd, Question::Terminal)
    }

    /// What fstat(2) tells.
    pub fn facts(&self) -> io::Result<Facts> {
        let s = rustix::fs::fstat(self.fd.as_fd())?;
        let u = |n: i64| u64::try_from(n).unwrap_or(0);
        let ns = |n: u64| i64::try_from(n).unwrap_or(0);
        Ok(Facts {
            ino: s.st_ino,
            mode: s.st_mode,
            rdev: s.st_rdev,
            size: u(s.st_size),
            blksize: u32::try_from(s.st_blksize).unwrap_or(4096),
            blocks: u(s.st_blocks),
            atime: (s.st_atime, ns(s.st_atime_nsec)),
            mtime: (s.st_mtime, ns(s.st_mtime_nsec)),
            ctime: (s.st_ctime, ns(s.st_ctime_nsec)),
        })
    }
}
