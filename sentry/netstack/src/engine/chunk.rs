//! Payload bytes: ranges of reference-counted buffers, and queues of them. A byte is copied once from
//! the guest into a chunk (or from the link into one); from there on only references move. Cloning a
//! chunk needs no lock, so the copy to or from guest memory happens outside of the engine's lock.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;

use crate::buf::Buf;

/// A range of a shared buffer.
#[derive(Clone)]
pub struct Chunk(Buf);

impl Chunk {
    /// The part `from..to` of this chunk, sharing its buffer. Both ends are cut to the chunk.
    pub fn slice(&self, from: usize, to: usize) -> Chunk {
        let mut buf = self.0.clone();
        buf.truncate(to);
        buf.advance(from);
        Chunk(buf)
    }

    /// Drops the first bytes.
    pub fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }

    /// Keeps only the first bytes.
    pub fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    /// The size of the buffer that this chunk keeps alive.
    pub fn held(&self) -> usize {
        self.0.capacity()
    }
}

impl Default for Chunk {
    fn default() -> Chunk {
        Chunk(Buf::from_vec(Vec::new()))
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl From<Buf> for Chunk {
    fn from(buf: Buf) -> Chunk {
        Chunk(buf)
    }
}

impl From<Chunk> for Buf {
    fn from(chunk: Chunk) -> Buf {
        chunk.0
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(data: Vec<u8>) -> Chunk {
        Chunk(Buf::from_vec(data))
    }
}

impl From<&[u8]> for Chunk {
    fn from(data: &[u8]) -> Chunk {
        data.to_vec().into()
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.len())
    }
}

/// Writes of up to this size are gathered into the last chunk of a queue.
const GATHER: usize = 2048;
/// The buffer that gathers them.
const GATHER_BUFFER: usize = 4096;

/// A byte stream made of chunks, with access by offset in logarithmic time.
#[derive(Default, Debug)]
pub struct ChunkQueue {
    /// Each chunk with its position in the stream.
    chunks: VecDeque<(u64, Chunk)>,
    /// The position of the first byte.
    head: u64,
    /// The position after the last byte.
    tail: u64,
}

impl ChunkQueue {
    pub fn len(&self) -> usize {
        (self.tail - self.head) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.tail == self.head
    }

    /// Appends a chunk by reference; a small one is copied into the last buffer if there is room.
    pub fn push(&mut self, chunk: Chunk) {
        if chunk.is_empty() {
            return;
        }
        let length = chunk.len() as u64;
        let gathered =
            length <= 512 && self.chunks.back_mut().is_some_and(|(_, last)| last.0.try_append(&chunk));
        if !gathered {
            self.chunks.push_back((self.tail, chunk));
        }
        self.tail += length;
    }

    /// Appends a copy of the bytes.
    pub fn push_slice(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len() as u64;
        let gathered =
            bytes.len() <= GATHER && self.chunks.back_mut().is_some_and(|(_, last)| last.0.try_append(bytes));
        if !gathered {
            let mut data = bytes.to_vec();
            if bytes.len() <= GATHER {
                data.resize(GATHER_BUFFER, 0);
            }
            let mut chunk = Chunk::from(data);
            chunk.truncate(bytes.len());
            self.chunks.push_back((self.tail, chunk));
        }
        self.tail += length;
    }

    /// Puts bytes back in front.
    pub fn unshift(&mut self, chunk: Chunk) {
        if chunk.is_empty() {
            return;
        }
        // Positions are relative; a stream whose first bytes come back keeps its tail.
        let length = chunk.len() as u64;
        if self.head < length {
            let shift = length - self.head;
            self.head += shift;
            self.tail += shift;
            self.chunks.iter_mut().for_each(|(at, _)| *at += shift);
        }
        self.head -= length;
        self.chunks.push_front((self.head, chunk));
    }

    /// Drops bytes from the front.
    pub fn advance(&mut self, count: usize) {
        let target = self.tail.min(self.head + count as u64);
        while let Some((at, chunk)) = self.chunks.front_mut() {
            let end = *at + chunk.len() as u64;
            if end > target {
                chunk.advance((target - *at) as usize);
                *at = target;
                break;
            }
            self.chunks.pop_front();
        }
        self.head = target;
    }

    /// Takes up to `limit` bytes as one chunk from the front.
    pub fn pop(&mut self, limit: usize) -> Option<Chunk> {
        let (_, first) = self.chunks.front()?;
        let piece = first.slice(0, limit);
        self.advance(piece.len());
        Some(piece)
    }

    /// Calls `with` for the pieces of `length` bytes from `offset` on.
    pub fn for_range(&self, offset: usize, length: usize, mut with: impl FnMut(&Chunk, usize, usize)) {
        let from = self.head + offset as u64;
        let to = self.tail.min(from + length as u64);
        let mut index = self.chunks.partition_point(|(at, chunk)| at + chunk.len() as u64 <= from);
        while let Some((at, chunk)) = self.chunks.get(index) {
            if *at >= to {
                break;
            }
            let begin = from.saturating_sub(*at) as usize;
            let end = chunk.len().min((to - at) as usize);
            with(chunk, begin, end);
            index += 1;
        }
    }

    /// How many chunks the queue has.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Copies from `offset` on; returns how many bytes there were.
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) -> usize {
        let mut done = 0;
        let length = out.len();
        self.for_range(offset, length, |chunk, begin, end| {
            out[done..done + end - begin].copy_from_slice(&chunk[begin..end]);
            done += end - begin;
        });
        done
    }

    pub fn clear(&mut self) {
        self.chunks.clear();
        self.head = self.tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_by_offset() {
        let mut queue = ChunkQueue::default();
        for part in [&b"hello"[..], b" ", b"world", &[b'x'; 5000]] {
            queue.push_slice(part);
        }
        assert_eq!(queue.chunks(), 2);
        let mut out = [0; 7];
        assert_eq!(queue.copy_to(3, &mut out), 7);
        assert_eq!(&out, b"lo worl");
        queue.advance(9);
        assert_eq!(queue.copy_to(0, &mut out), 7);
        assert_eq!(&out, b"ldxxxxx");
        queue.unshift(Chunk::from(&b"0123456789abcdef"[..]));
        assert_eq!(queue.len(), 16 + 5002);
        assert_eq!(queue.copy_to(14, &mut out), 7);
        assert_eq!(&out, b"efldxxx");
        assert_eq!(queue.pop(100).map(|c| c.len()), Some(16));
        queue.advance(usize::MAX / 2);
        assert!(queue.is_empty() && queue.pop(1).is_none());
    }

    #[test]
    fn a_buffer_in_use_is_not_appended_to() {
        let mut queue = ChunkQueue::default();
        queue.push_slice(b"one");
        let held = queue.pop(2);
        queue.push_slice(b"two");
        assert_eq!(queue.chunks(), 2);
        assert_eq!(held.as_deref(), Some(&b"on"[..]));
    }
}
