//! Reading and writing messages: bounds, names, and nothing else.
//!
//! The reader never panics and never allocates: whatever a hostile peer sends ends as [`Malformed`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::message::{Node, Op, ReplyHeader, RequestHeader};

/// Longest message in bytes, either way. A packet socket takes it in one piece with the default buffers.
pub const MAX_MESSAGE: usize = 96 * 1024;
/// Longest name of one directory entry.
pub const MAX_NAME: usize = 255;
/// Longest symlink target.
pub const MAX_TARGET: usize = 4095;
/// Longest extended attribute value, as in Linux.
pub const MAX_XATTR: usize = 65536;
/// Most names in one walk.
pub const MAX_WALK: usize = 64;

/// The message is not what its operation prescribes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed gofer message")]
pub struct Malformed;

/// One component of a path: no slash, no NUL, neither `.` nor `..`, 1 to 255 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Name<'a>, Malformed> {
        if bytes.is_empty() || bytes.len() > MAX_NAME || bytes == b"." || bytes == b".." {
            return Err(Malformed);
        }
        if bytes.iter().any(|&byte| byte == b'/' || byte == 0) {
            return Err(Malformed);
        }
        Ok(Name(bytes))
    }

    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Takes a message apart from front to back.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[must_use]
    pub fn new(message: &'a [u8]) -> Reader<'a> {
        Reader { rest: message }
    }

    /// The next fixed structure, copied out (messages promise no alignment).
    pub fn get<T: FromBytes>(&mut self) -> Result<T, Malformed> {
        let (value, rest) = T::read_from_prefix(self.rest).map_err(|_| Malformed)?;
        self.rest = rest;
        Ok(value)
    }

    /// The next `len` bytes as they are.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A byte string with its `u32` length in front, at most `max` long.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let len: u32 = self.get()?;
        let len = usize::try_from(len).map_err(|_| Malformed)?;
        if len > max {
            return Err(Malformed);
        }
        self.take(len)
    }

    /// A name with its `u16` length in front; length 0 is `None`.
    pub fn optional_name(&mut self) -> Result<Option<Name<'a>>, Malformed> {
        let len: u16 = self.get()?;
        if len == 0 {
            return Ok(None);
        }
        Name::new(self.take(usize::from(len))?).map(Some)
    }

    pub fn name(&mut self) -> Result<Name<'a>, Malformed> {
        self.optional_name()?.ok_or(Malformed)
    }

    /// A raw entry name in a reply, which may be `.` or `..` when a host directory lists them.
    pub fn entry_name(&mut self) -> Result<&'a [u8], Malformed> {
        let len: u16 = self.get()?;
        self.take(usize::from(len))
    }

    /// The message must end here.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
}

/// Puts a message together. The buffer is kept from message to message.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    #[must_use]
    pub fn new() -> Writer {
        Writer::default()
    }

    /// Starts a request.
    pub fn request<T: IntoBytes + Immutable>(
        &mut self,
        op: Op,
        sequence: u32,
        cpu: u32,
        body: &T,
    ) -> &mut Writer {
        self.buffer.clear();
        self.put(&RequestHeader { op: op as u32, sequence, cpu }).put(body)
    }

    /// Starts a successful reply; [`Writer::fail`] turns it into an error later if need be.
    pub fn reply(&mut self, sequence: u32) -> &mut Writer {
        self.buffer.clear();
        self.put(&ReplyHeader { sequence, errno: 0 })
    }

    /// Makes this reply an error: the body is dropped.
    pub fn fail(&mut self, sequence: u32, errno: u32) {
        self.buffer.clear();
        self.put(&ReplyHeader { sequence, errno });
    }

    pub fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) -> &mut Writer {
        self.buffer.extend_from_slice(value.as_bytes());
        self
    }

    /// A byte string with its length. Longer than a message: cut by the check at sending.
    pub fn put_bytes(&mut self, bytes: &[u8]) -> &mut Writer {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.put(&len);
        self.buffer.extend_from_slice(bytes);
        self
    }

    pub fn put_name(&mut self, name: &[u8]) -> &mut Writer {
        let len = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.put(&len);
        self.buffer.extend_from_slice(name);
        self
    }

    /// Overwrites a structure at `offset`, for counts known only at the end.
    pub fn patch<T: IntoBytes + Immutable>(&mut self, offset: usize, value: &T) {
        let bytes = value.as_bytes();
        if let Some(place) = offset.checked_add(bytes.len()).and_then(|end| self.buffer.get_mut(offset..end))
        {
            place.copy_from_slice(bytes);
        }
    }

    /// Cuts the message back to `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.buffer.truncate(len);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.buffer
    }

    /// Gives memory back after an unusually large message.
    pub fn shrink(&mut self) {
        if self.buffer.capacity() > 16 * 1024 {
            self.buffer = Vec::new();
        }
    }
}

/// The fixed bodies of requests whose layout starts with a node, with the name that belongs to it.
impl Node {
    /// A node by its handle alone.
    #[must_use]
    pub const fn handle(handle: u64) -> Node {
        Node { handle, ino: 0 }
    }

    /// A child of a directory handle; the name follows in the tail.
    #[must_use]
    pub const fn child(directory: u64, ino: u64) -> Node {
        Node { handle: directory, ino }
    }
}

/// A structure that may be read from and written to a message.
pub trait Body: FromBytes + IntoBytes + Immutable + KnownLayout {}
impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Body for T {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::*;

    #[test]
    fn names() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            assert_eq!(Name::new(bad), Err(Malformed), "{bad:?}");
        }
        for good in [&b"a"[..], b"...", b".a", b"\xff\xfe", &[b'x'; 255]] {
            assert_eq!(Name::new(good).map(Name::bytes), Ok(good));
        }
    }

    #[test]
    fn round_trip() {
        let mut writer = Writer::new();
        let body = Create { node: Node::child(7, 0), mode: 0o644, uid: 1, gid: 2, flags: 0 };
        writer.request(Op::Create, 9, ANY_CPU, &body).put_name(b"file");
        let mut reader = Reader::new(writer.message());
        let header: RequestHeader = reader.get().expect("header");
        assert_eq!((Op::try_from(header.op), header.sequence), (Ok(Op::Create), 9));
        let read: Create = reader.get().expect("body");
        assert_eq!((read.node.handle, read.mode, read.uid, read.gid), (7, 0o644, 1, 2));
        assert_eq!(reader.name().map(Name::bytes), Ok(&b"file"[..]));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn every_op_has_one_number() {
        for number in 0..200 {
            if let Ok(op) = Op::try_from(number) {
                assert_eq!(op as u32, number);
            }
        }
    }

    proptest! {
        #[test]
        fn reader_takes_anything(message: Vec<u8>, steps in proptest::collection::vec(0u8..6, 0..20)) {
            let mut reader = Reader::new(&message);
            for step in steps {
                let before = reader.remaining();
                let done = match step {
                    0 => reader.get::<RequestHeader>().is_ok(),
                    1 => reader.get::<SetAttr>().is_ok(),
                    2 => reader.name().is_ok(),
                    3 => reader.bytes(64).is_ok(),
                    4 => reader.entry_name().is_ok(),
                    _ => reader.optional_name().is_ok(),
                };
                prop_assert!(reader.remaining() <= before);
                if !done { break; }
            }
        }
    }
}
