//! Framing of control messages on a unix stream socket, for both ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use platform::hostsys::fd;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::MAX_MESSAGE;

/// Most descriptors a peer may have sent before the message they belong to is complete.
const MAX_PENDING_FDS: usize = fd::MAX_FDS;

/// Turns a message into the bytes that go over the wire.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "control message too long"));
    }
    let length = u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Sends a whole message on a blocking socket.
pub fn send<T: Serialize>(socket: impl AsFd, message: &T, mut fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = encode(message)?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let sent = fd::send_with_fds(socket.as_fd(), rest, fds)?;
        fds = &[];
        rest = &rest[sent..];
    }
    Ok(())
}

/// Collects the bytes of one peer until a message is complete.
#[derive(Debug, Default)]
pub struct Receiver {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// What one read brought.
#[derive(Debug)]
pub enum Received<T> {
    Message(T, Vec<OwnedFd>),
    /// Not complete yet.
    More,
    /// The peer has closed its end.
    End,
}

impl Receiver {
    /// Reads once from the socket. `WouldBlock` and broken peers come back as errors.
    pub fn receive<T: DeserializeOwned>(&mut self, socket: impl AsFd) -> io::Result<Received<T>> {
        // Never read past the end of a message: descriptors of the next one must not mix in.
        let wanted = match self.expected()? {
            None => 4 - self.bytes.len(),
            Some(total) => (total - self.bytes.len()).min(64 << 10),
        };
        let start = self.bytes.len();
        self.bytes.resize(start + wanted, 0);
        let got = fd::recv_with_fds(socket, &mut self.bytes[start..]);
        self.bytes.truncate(start + got.as_ref().map_or(0, |(length, _)| *length));
        let (length, fds) = got?;
        if length == 0 {
            return Ok(Received::End);
        }
        self.fds.extend(fds);
        if self.fds.len() > MAX_PENDING_FDS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match self.expected()? {
            Some(total) if total == self.bytes.len() => {
                let bytes = std::mem::take(&mut self.bytes);
                let fds = std::mem::take(&mut self.fds);
                Ok(Received::Message(serde_json::from_slice(&bytes[4..])?, fds))
            }
            _ => Ok(Received::More),
        }
    }

    /// Length of the message that is coming in, with its header; `None` until that is known.
    fn expected(&self) -> io::Result<Option<usize>> {
        let Some(header) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        match usize::try_from(u32::from_le_bytes(*header)) {
            Ok(length) if length > 0 && length <= MAX_MESSAGE => Ok(Some(length + 4)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "bad control message length")),
        }
    }
}

/// Receives a whole message on a blocking socket.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut receiver = Receiver::default();
    loop {
        match receiver.receive(socket.as_fd())? {
            Received::Message(message, fds) => return Ok((message, fds)),
            Received::More => {}
            Received::End => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
