//! A connection of TCP with one end in the stack and the other on the host: what comes in on one side goes out on the other.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use netstack::tcp::{TakeHow, TcpSocket, Transport};
use netstack::{Buf, Events, NetError, Waker};

use super::hostsys::inet;
use super::hostsys::socket::{self, Interest};

/// The largest piece that is carried at once, and how many of them in a row, so that others have their turn.
const PIECE: usize = 16 << 10;
const ROUNDS: usize = 16;

/// Wakes the thread of the network.
pub struct Ring(pub Arc<socket::Waker>);

impl Waker for Ring {
    fn wake(&self, _events: Events) {
        self.0.wake();
    }
}

pub struct Conversation {
    /// The end in the stack, and its socket if it has one.
    guest: Arc<dyn Transport>,
    socket: Option<Arc<TcpSocket>>,
    host: OwnedFd,
    /// Connected on the host.
    ready: bool,
    to_host: Vec<u8>,
    to_guest: Vec<u8>,
    guest_done: bool,
    host_done: bool,
    /// The stack may have more for the host, of which no news will come.
    more: bool,
}

impl Conversation {
    /// `host`: a socket that begins to connect.
    pub fn to_host(guest: Arc<dyn Transport>, host: OwnedFd) -> Conversation {
        Conversation {
            guest,
            socket: None,
            host,
            ready: false,
            to_host: Vec::new(),
            to_guest: Vec::new(),
            guest_done: false,
            host_done: false,
            more: false,
        }
    }

    /// `socket`: one of the stack that is connected, to somebody there; nothing if it is not. `host`: an accepted socket.
    pub fn from_host(socket: Arc<TcpSocket>, host: OwnedFd) -> Option<Conversation> {
        let guest = socket.transport()?;
        Some(Conversation { socket: Some(socket), ready: true, ..Conversation::to_host(guest, host) })
    }

    /// What to wait for on the host's side, if anything.
    fn interest(&self) -> Option<Interest<'_>> {
        let read = self.to_guest.is_empty() && !self.host_done;
        let write = !self.ready || !self.to_host.is_empty() || self.more;
        (read || write).then(|| Interest { read, write, ..Interest::read(self.host.as_fd()) })
    }

    /// Nothing more will come or go.
    fn over(&self) -> bool {
        self.host_done && self.to_guest.is_empty() && (self.guest_done || self.guest.has_error())
    }

    /// Moves what can be moved; `events`: readable and writable, as in
    /// [`Conversation::interest`].
    fn carry(&mut self, (readable, writable): (bool, bool)) -> std::io::Result<()> {
        self.ready |= writable;
        if readable && self.to_guest.is_empty() && !self.host_done {
            let mut buffer = vec![0; PIECE];
            if let Some(count) = inet::receive(&self.host, &mut buffer)? {
                buffer.truncate(count);
                self.host_done = count == 0;
                self.to_guest = buffer;
                if self.host_done {
                    self.guest.shutdown(false, true);
                }
            }
        }
        while !self.to_guest.is_empty() {
            match self.guest.reserve(self.to_guest.len()) {
                Ok(room) => {
                    let rest = self.to_guest.split_off(room.min(self.to_guest.len()));
                    let piece = std::mem::replace(&mut self.to_guest, rest);
                    self.guest.commit(room, Some(Buf::from_vec(piece)), false);
                }
                Err(NetError::WouldBlock) => break,
                Err(_) => return Err(std::io::ErrorKind::BrokenPipe.into()),
            }
        }
        self.more = false;
        for _ in 0..ROUNDS {
            self.more = self.guest_to_host()?;
            if !self.more {
                break;
            }
        }
        if self.ready && self.guest_done && self.to_host.is_empty() && !self.host_done {
            // Saying it twice changes nothing.
            inet::finish(&self.host)?;
        }
        Ok(())
    }

    /// Carries a piece from the stack to the host; whether there may be another one that the host takes.
    fn guest_to_host(&mut self) -> std::io::Result<bool> {
        if self.to_host.is_empty() && !self.guest_done {
            match self.guest.take(PIECE, TakeHow::default()) {
                Ok(taken) if taken.len == 0 => self.guest_done = true,
                Ok(taken) => taken.parts.iter().for_each(|part| self.to_host.extend_from_slice(part.bytes())),
                Err(NetError::WouldBlock) => {}
                Err(_) => return Err(std::io::ErrorKind::ConnectionReset.into()),
            }
        }
        if !self.ready || self.to_host.is_empty() {
            return Ok(false);
        }
        match inet::send(&self.host, &self.to_host) {
            Ok(count) => drop(self.to_host.drain(..count)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(self.to_host.is_empty())
    }
}

/// Those that go on; the network's thread alone has them.
#[derive(Default)]
pub struct Conversations(Vec<Conversation>);

impl Conversations {
    pub fn add(&mut self, more: impl IntoIterator<Item = Conversation>) {
        self.0.extend(more);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What to wait for on the host's side.
    pub fn interests(&self) -> impl Iterator<Item = Interest<'_>> {
        self.0.iter().filter_map(Conversation::interest)
    }

    /// Moves what can be moved; `events`: readable and writable, as in `interests`. Ends those that are over and gives
    /// their sockets of the host.
    pub fn carry(&mut self, events: &[(bool, bool)]) -> Vec<OwnedFd> {
        let mut events = events.iter().copied();
        let mut ended = Vec::new();
        for mut conversation in std::mem::take(&mut self.0) {
            let event = conversation.interest().and_then(|_| events.next()).unwrap_or_default();
            if conversation.carry(event).is_ok() && !conversation.over() {
                self.0.push(conversation);
            } else {
                let aborted = !conversation.over();
                match conversation.socket {
                    Some(socket) => socket.close(aborted),
                    None => drop(conversation.guest.close(aborted)),
                }
                ended.push(conversation.host);
            }
        }
        ended
    }
}
