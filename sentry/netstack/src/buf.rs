//! Buffers that travel from socket to socket. Filled once by the sender, shared by reference with whoever
//! looks at them, and given back to a pool so that a stream of large writes does not fault in fresh pages.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Size of pooled buffers: the largest piece that is sent at once.
pub const PIECE: usize = 64 << 10;
/// Smaller buffers are not pooled; they come with room for what follows.
const SMALL: usize = 2048;
/// Free buffers a pool keeps at most.
const KEEP: usize = 64;

/// What all connections inside a stack may have queued together (as tcp_mem), unless the embedder sets
/// something else.
const MOST_QUEUED: usize = 256 << 20;

/// Counts what connections inside one stack have queued.
#[derive(Debug)]
pub struct Ledger {
    used: AtomicUsize,
    most: AtomicUsize,
    /// Segments that these connections would have sent.
    segments: AtomicU64,
    /// Ends that were open when their connection broke.
    broken: AtomicU64,
    resets: AtomicU64,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger {
            used: AtomicUsize::new(0),
            most: AtomicUsize::new(MOST_QUEUED),
            segments: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            resets: AtomicU64::new(0),
        }
    }
}

impl Ledger {
    pub fn set_most(&self, bytes: usize) {
        self.most.store(bytes, Ordering::Relaxed);
    }
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
    /// Nothing more is to be queued, but for those who have next to nothing.
    pub(crate) fn exhausted(&self) -> bool {
        self.used() >= self.most.load(Ordering::Relaxed)
    }
    pub(crate) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }
    pub(crate) fn count_segments(&self, segments: u64) {
        self.segments.fetch_add(segments, Ordering::Relaxed);
    }
    /// A reset, by which so many ends break that were open.
    pub(crate) fn count_reset(&self, ends: u64) {
        self.resets.fetch_add(1, Ordering::Relaxed);
        self.broken.fetch_add(ends, Ordering::Relaxed);
    }
    pub(crate) fn segments(&self) -> u64 {
        self.segments.load(Ordering::Relaxed)
    }
    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }
    pub(crate) fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }
    pub(crate) fn subtract(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Free buffers of one size.
#[derive(Debug)]
pub struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
    size: usize,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool::of(PIECE)
    }
}

impl Pool {
    /// A pool of buffers of this size.
    pub fn of(size: usize) -> Pool {
        Pool { free: Mutex::default(), size }
    }

    /// A buffer for `len` bytes, at most the pool's size. Its content is whatever was there.
    pub fn get(self: &Arc<Pool>, len: usize) -> Buf {
        if len <= SMALL {
            let data = vec![0; len.next_power_of_two().clamp(64, SMALL)];
            return Buf { chunk: Arc::new(Chunk { data, pool: Weak::new() }), start: 0, end: len };
        }
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let data = kept.unwrap_or_else(|| vec![0; self.size]);
        let end = len.min(data.len());
        Buf { chunk: Arc::new(Chunk { data, pool: Arc::downgrade(self) }), start: 0, end }
    }
}

#[derive(Debug)]
struct Chunk {
    data: Vec<u8>,
    pool: Weak<Pool>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            let mut free = pool.free.lock().unwrap_or_else(PoisonError::into_inner);
            if free.len() < KEEP {
                free.push(std::mem::take(&mut self.data));
            }
        }
    }
}

/// A part of a shared buffer.
#[derive(Clone, Debug)]
pub struct Buf {
    chunk: Arc<Chunk>,
    start: usize,
    end: usize,
}

impl Buf {
    /// A buffer with a copy of some bytes, of any length.
    pub fn copy_of(data: &[u8]) -> Buf {
        let end = data.len();
        Buf { chunk: Arc::new(Chunk { data: data.to_vec(), pool: Weak::new() }), start: 0, end }
    }
    /// A buffer that takes over some bytes, of any length.
    pub fn from_vec(data: Vec<u8>) -> Buf {
        let end = data.len();
        Buf { chunk: Arc::new(Chunk { data, pool: Weak::new() }), start: 0, end }
    }
    pub fn len(&self) -> usize {
        self.end - self.start
    }
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
    pub fn bytes(&self) -> &[u8] {
        self.chunk.data.get(self.start..self.end).unwrap_or_default()
    }
    /// The bytes to be filled, as long as nobody else has the buffer.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start, self.end);
        Arc::get_mut(&mut self.chunk).and_then(|c| c.data.get_mut(start..end)).unwrap_or_default()
    }
    /// Forgets what is behind `len`.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }
    /// Forgets the first bytes.
    pub fn advance(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }
    /// Splits the first `n` bytes off; both share the memory.
    pub fn split_to(&mut self, n: usize) -> Buf {
        let n = n.min(self.len());
        let front = Buf { chunk: Arc::clone(&self.chunk), start: self.start, end: self.start + n };
        self.start += n;
        front
    }
    /// Appends small data if there is room and nobody else has the buffer.
    pub fn try_append(&mut self, data: &[u8]) -> bool {
        let (at, end) = (self.end, self.end + data.len());
        if data.len() > SMALL || end > self.chunk.data.len() {
            return false;
        }
        match Arc::get_mut(&mut self.chunk) {
            Some(c) => {
                c.data[at..end].copy_from_slice(data);
                self.end = end;
                true
            }
            None => false,
        }
    }
    /// Memory the buffer holds, for accounting.
    pub fn capacity(&self) -> usize {
        self.chunk.data.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_split_append_and_come_back() {
        let pool = Arc::new(Pool::default());
        let mut b = pool.get(3);
        b.bytes_mut().copy_from_slice(b"abc");
        assert!(b.try_append(b"de"));
        let front = b.split_to(2);
        assert_eq!((front.bytes(), b.bytes()), (&b"ab"[..], &b"cde"[..]));
        assert!(!b.try_append(b"f"), "the memory is shared");
        drop(front);
        assert!(b.try_append(b"f"));
        let big = pool.get(PIECE);
        drop(big);
        assert_eq!(pool.free.lock().unwrap().len(), 1);
        assert_eq!(pool.get(5000).len(), 5000);
        assert_eq!(pool.free.lock().unwrap().len(), 1);
    }
}
