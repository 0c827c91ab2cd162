//! Channels: one packet socket each, one thread each, one request at a time.
//!
//! The threads for further channels are made before the seccomp filter forbids making any.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use gofer_protocol::Writer;
use gofer_protocol::codec::MAX_MESSAGE;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::dispatch::Server;

/// Extra channels that one sandbox may have open at a time; more would only fight for the disk.
const WORKERS: usize = 3;
/// Stack of a worker: requests recurse nowhere and big buffers are on the heap.
const STACK: usize = 128 * 1024;

/// Channels that wait for a thread, and how many threads wait for a channel.
#[derive(Debug, Default)]
pub struct Workers {
    queue: Mutex<Queue>,
    changed: Condvar,
    started: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    sockets: VecDeque<OwnedFd>,
    idle: usize,
    closed: bool,
}

impl Workers {
    /// The next channel to serve; `None` when the sentry is gone.
    fn next(&self) -> Option<OwnedFd> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.idle += 1;
        self.started.notify_one();
        loop {
            if let Some(socket) = queue.sockets.pop_front() {
                queue.idle -= 1;
                return Some(socket);
            }
            if queue.closed {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the threads end.
    pub fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }

    /// Starts one more channel and returns the client's end; EAGAIN when no thread is free for it.
    pub fn open_another(&self) -> Result<OwnedFd, Errno> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.sockets.len() >= queue.idle {
            return Err(Errno::AGAIN);
        }
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        queue.sockets.push_back(ours);
        self.changed.notify_one();
        Ok(theirs)
    }
}

/// Starts the threads that serve further channels, and waits until each has done what a thread does at its start: the
/// filter does not allow that.
pub fn start_workers(server: &Arc<Server>) -> io::Result<()> {
    for _ in 0..WORKERS {
        let server = server.clone();
        std::thread::Builder::new().stack_size(STACK).spawn(move || {
            while let Some(socket) = server.workers.next() {
                if let Err(error) = run(&server, &socket) {
                    tracing::warn!("gofer channel: {error}");
                }
            }
        })?;
    }
    let mut queue = server.workers.queue.lock().unwrap_or_else(PoisonError::into_inner);
    while queue.idle < WORKERS {
        queue = server.workers.started.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
    Ok(())
}

/// Answers requests until the other end closes.
pub fn run(server: &Server, socket: &OwnedFd) -> io::Result<()> {
    // Zeroed pages that are not touched cost nothing.
    let mut request = vec![0; MAX_MESSAGE + 1];
    let mut reply = Writer::new();
    loop {
        let len = match rustix::net::recv(socket, request.as_mut_slice(), RecvFlags::empty()) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(()),
            Ok((_, len)) => len,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let message = request.get(..len.min(MAX_MESSAGE)).unwrap_or_default();
        let donated = server.answer(message, &mut reply);
        match send(socket, reply.message(), donated.as_ref()) {
            Ok(()) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        reply.shrink();
    }
}

fn send(socket: &OwnedFd, message: &[u8], donated: Option<&OwnedFd>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = donated.map(|fd| [fd.as_fd()]);
    if let Some(descriptors) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    loop {
        match rustix::net::sendmsg(socket, &[io::IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
