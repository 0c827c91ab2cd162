//! The few messages between a starting sandbox process and the command that starts it: the child
//! asks for what only the parent may do, says that it is ready or why it is not, and then waits
//! for the parent's word to go on. If the parent dies before that word, the child ends, so a
//! killed `runsc create` leaves nothing behind.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use platform::MemoryGroup;
use platform::hostsys::fd;

use crate::net::Donation;

/// Longest text of a message. Error texts are cut to it.
const MAX_TEXT: usize = 16 * 1024;

/// What a child says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromChild {
    /// It has entered a new user namespace and needs its id maps written.
    NeedsIdMaps,
    /// All that can fail has been done.
    Ready,
    /// It gives up, for this reason.
    Failed(String),
    /// It gives up since the program is not there.
    NoProgram(String),
    /// It gives up since the program may not be run.
    NotRunnable(String),
}

/// What the parent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromParent {
    IdMapsWritten,
    /// The container is on record: from now on the child lives by itself.
    Commit,
}

/// One end of the channel; dropped by the child after [`FromParent::Commit`].
#[derive(Debug)]
pub struct Handshake {
    stream: UnixStream,
}

impl Handshake {
    pub fn new(stream: UnixStream) -> Handshake {
        Handshake { stream }
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub fn tell_parent(&mut self, message: &FromChild) -> io::Result<()> {
        let (tag, text) = match message {
            FromChild::NeedsIdMaps => (b'M', ""),
            FromChild::Ready => (b'R', ""),
            FromChild::Failed(text) => (b'E', text.as_str()),
            FromChild::NoProgram(text) => (b'N', text.as_str()),
            FromChild::NotRunnable(text) => (b'P', text.as_str()),
        };
        let text = &text.as_bytes()[..text.len().min(MAX_TEXT)];
        let length = u32::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut message = vec![tag];
        message.extend(length.to_le_bytes());
        message.extend(text);
        self.stream.write_all(&message)
    }

    /// The child's next message; `UnexpectedEof` if it is gone.
    pub fn hear_child(&mut self) -> io::Result<FromChild> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header)?;
        let [tag, length @ ..] = header;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_TEXT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut text = vec![0; length];
        self.stream.read_exact(&mut text)?;
        let reason = || String::from_utf8_lossy(&text).into_owned();
        match tag {
            b'M' => Ok(FromChild::NeedsIdMaps),
            b'R' => Ok(FromChild::Ready),
            b'E' => Ok(FromChild::Failed(reason())),
            b'N' => Ok(FromChild::NoProgram(reason())),
            b'P' => Ok(FromChild::NotRunnable(reason())),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    pub fn tell_child(&mut self, message: FromParent) -> io::Result<()> {
        self.stream.write_all(&[match message {
            FromParent::IdMapsWritten => b'm',
            FromParent::Commit => b'g',
        }])
    }

    /// Tells that the id maps are written, with the memory controller's group that the child is in.
    pub fn give_memory_group(&mut self, group: Option<&MemoryGroup>) -> io::Result<()> {
        let fds = group.map_or_else(Vec::new, MemoryGroup::descriptors);
        fd::send_with_fds(&self.stream, b"m", &fds)?;
        Ok(())
    }

    /// Waits for that.
    pub fn await_memory_group(&mut self) -> io::Result<Option<MemoryGroup>> {
        let mut byte = [0];
        let (n, fds) = fd::recv_with_fds(&self.stream, &mut byte)?;
        let mut fds = fds.into_iter();
        match (n, byte, fds.next(), fds.next(), fds.next()) {
            (1, [b'm'], Some(usage), Some(stat), score) => Ok(Some(MemoryGroup::new(usage, stat, score))),
            (1, [b'm'], None, ..) => Ok(None),
            (0, ..) => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Hands the network over, after the child has said that it is ready; it says so again then.
    pub fn give_network(&mut self, donation: &Donation) -> io::Result<()> {
        let (flags, fds) = donation.parts();
        fd::send_with_fds(&self.stream, b"n", &fds)?;
        self.stream.write_all(&flags.to_le_bytes())
    }

    /// Waits for the network, or for [`FromParent::Commit`] (nothing).
    pub fn await_network_or_commit(&mut self) -> io::Result<Option<Donation>> {
        let mut byte = [0];
        match fd::recv_with_fds(&self.stream, &mut byte)? {
            (1, fds) if byte == *b"n" => {
                let mut flags = [0; 8];
                self.stream.read_exact(&mut flags)?;
                Donation::from_parts(u64::from_le_bytes(flags), fds).map(Some)
            }
            (1, fds) if byte == *b"g" && fds.is_empty() => Ok(None),
            (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Waits for exactly this message from the parent; an error if the parent is gone.
    pub fn await_parent(&mut self, message: FromParent) -> io::Result<()> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        let expected = match message {
            FromParent::IdMapsWritten => b'm',
            FromParent::Commit => b'g',
        };
        if byte[0] == expected { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut child, mut parent) = (Handshake::new(a), Handshake::new(b));
        let reason = || "no such file".to_owned();
        let failures =
            [FromChild::Failed(reason()), FromChild::NoProgram(reason()), FromChild::NotRunnable(reason())];
        for message in [FromChild::NeedsIdMaps, FromChild::Ready].into_iter().chain(failures) {
            child.tell_parent(&message).unwrap();
            assert_eq!(parent.hear_child().unwrap(), message);
        }
        parent.tell_child(FromParent::Commit).unwrap();
        child.await_parent(FromParent::Commit).unwrap();
        drop(parent);
        assert!(child.await_parent(FromParent::Commit).is_err());
    }
}
