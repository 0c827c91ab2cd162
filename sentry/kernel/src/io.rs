//! Where data goes to and comes from: user memory, kernel buffers, pipe pages. File code does not
//! know which.

use abi::{Errno, Result};
use platform::Block;

/// A destination of data, filled from its front.
pub trait Sink {
    /// Bytes that still fit.
    fn remaining(&self) -> usize;

    /// Appends as much of `data` as fits; the count may be short only at the end of the room or at
    /// a fault after some bytes. EFAULT when a fault comes before the first byte.
    fn put(&mut self, data: &[u8]) -> Result<usize>;

    /// Appends up to `len` zero bytes.
    fn put_zeros(&mut self, len: usize) -> Result<usize> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut done = 0;
        while done < len.min(done + self.remaining()) {
            let n = (len - done).min(ZEROS.len());
            match self.put(&ZEROS[..n]) {
                Ok(0) => break,
                Ok(k) => done += k,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// Gives `f` the room (at most `max` bytes of it) as blocks of memory to fill directly, e.g. by
    /// a host read; `f` says how many bytes it filled. May call `f` with a kernel buffer behind
    /// the scenes.
    fn fill_with(&mut self, max: usize, f: &mut dyn FnMut(&[Block<'_>]) -> Result<usize>) -> Result<usize>;
}

/// A source of data, drained from its front.
pub trait Source {
    /// Bytes that are still there.
    fn remaining(&self) -> usize;

    /// Takes up to `buf.len()` bytes; short only at the end or at a fault after some bytes. EFAULT
    /// when a fault comes before the first byte.
    fn take(&mut self, buf: &mut [u8]) -> Result<usize>;

    /// Gives `f` the data (at most `max` bytes of it) as blocks of memory; `f` says how many bytes
    /// it used.
    fn drain_with(&mut self, max: usize, f: &mut dyn FnMut(&[Block<'_>]) -> Result<usize>) -> Result<usize>;

    /// As [`Source::take`], but only what `f` says it used of the bytes leaves the source.
    fn offer(&mut self, buf: &mut [u8], f: &mut dyn FnMut(&[u8]) -> Result<usize>) -> Result<usize>;

    /// Takes everything that remains (at most `limit` bytes, else EMSGSIZE) into a vector.
    fn take_all(&mut self, limit: usize) -> Result<Vec<u8>> {
        let len = self.remaining();
        if len > limit {
            return Err(Errno::EMSGSIZE);
        }
        let mut buf = vec![0; len];
        let mut done = 0;
        while done < len {
            match self.take(&mut buf[done..])? {
                0 => break,
                n => done += n,
            }
        }
        if done < len {
            return Err(Errno::EFAULT);
        }
        Ok(buf)
    }
}

/// A kernel buffer as destination.
#[derive(Debug)]
pub struct SliceSink<'a> {
    pub buf: &'a mut [u8],
    /// Bytes filled so far.
    pub done: usize,
}

impl<'a> SliceSink<'a> {
    /// An empty destination over a buffer.
    pub fn new(buf: &'a mut [u8]) -> Self {
        SliceSink { buf, done: 0 }
    }
}

impl Sink for SliceSink<'_> {
    fn remaining(&self) -> usize {
        self.buf.len() - self.done
    }
    fn put(&mut self, data: &[u8]) -> Result<usize> {
        let n = data.len().min(self.remaining());
        self.buf[self.done..self.done + n].copy_from_slice(&data[..n]);
        self.done += n;
        Ok(n)
    }
    fn fill_with(&mut self, max: usize, f: &mut dyn FnMut(&[Block<'_>]) -> Result<usize>) -> Result<usize> {
        let n = max.min(self.remaining());
        let room = &mut self.buf[self.done..self.done + n];
        let used = f(&[Block::from_mut_slice(room)])?.min(n);
        self.done += used;
        Ok(used)
    }
}

/// A kernel buffer as source.
#[derive(Debug)]
pub struct SliceSource<'a> {
    pub data: &'a mut [u8],
    /// Bytes taken so far.
    pub done: usize,
}

impl<'a> SliceSource<'a> {
    /// A source over a buffer (mutable only because blocks of memory have no read-only form).
    pub fn new(data: &'a mut [u8]) -> Self {
        SliceSource { data, done: 0 }
    }
}

impl Source for SliceSource<'_> {
    fn remaining(&self) -> usize {
        self.data.len() - self.done
    }
    fn take(&mut self, buf: &mut [u8]) -> Result<usize> {
        let n = buf.len().min(self.remaining());
        buf[..n].copy_from_slice(&self.data[self.done..self.done + n]);
        self.done += n;
        Ok(n)
    }
    fn offer(&mut self, buf: &mut [u8], f: &mut dyn FnMut(&[u8]) -> Result<usize>) -> Result<usize> {
        let before = self.done;
        let got = self.take(buf)?;
        self.done = before;
        let used = f(&buf[..got])?.min(got);
        self.done += used;
        Ok(used)
    }
    fn drain_with(&mut self, max: usize, f: &mut dyn FnMut(&[Block<'_>]) -> Result<usize>) -> Result<usize> {
        let n = max.min(self.remaining());
        let part = &mut self.data[self.done..self.done + n];
        let used = f(&[Block::from_mut_slice(part)])?.min(n);
        self.done += used;
        Ok(used)
    }
}
