//! Typed guest addresses. They are numbers with a type; the only way to the memory behind them is a
//! copy through the task's address space.

use crate::io::{Sink, Source};
use crate::mm::Mm;
use abi::{Errno, Result};
use platform::Block;
use smallvec::SmallVec;
use std::marker::PhantomData;
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The address of a `T` in guest memory; may be null, wrong or hostile.
pub struct UserPtr<T> {
    addr: u64,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for UserPtr<T> {}
impl<T> std::fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.addr)
    }
}

impl<T> UserPtr<T> {
    /// From a register.
    pub const fn new(addr: u64) -> Self {
        UserPtr { addr, of: PhantomData }
    }
    /// The number.
    pub const fn addr(self) -> u64 {
        self.addr
    }
    /// Whether it is null.
    pub const fn is_null(self) -> bool {
        self.addr == 0
    }
    /// `None` for null: the form of optional arguments.
    pub fn optional(self) -> Option<Self> {
        if self.is_null() { None } else { Some(self) }
    }
    /// The `n`-th element of an array that starts here.
    pub fn add(self, n: usize) -> Self {
        UserPtr::new(self.addr.wrapping_add((n as u64).wrapping_mul(size_of::<T>() as u64)))
    }
    /// The same address as something else.
    pub fn cast<U>(self) -> UserPtr<U> {
        UserPtr::new(self.addr)
    }
}

impl<T: FromBytes + IntoBytes + Immutable> UserPtr<T> {
    /// Copies the value in.
    pub fn read(self, mm: &Mm) -> Result<T> {
        let mut value = T::new_zeroed();
        mm.copy_in(self.addr, value.as_mut_bytes())?;
        Ok(value)
    }
    /// Copies a value out.
    pub fn write(self, mm: &Mm, value: &T) -> Result<()> {
        mm.copy_out(self.addr, value.as_bytes())
    }
    /// Copies `n` values in.
    pub fn read_array(self, mm: &Mm, n: usize) -> Result<Vec<T>> {
        let mut v: Vec<T> = (0..n).map(|_| T::new_zeroed()).collect();
        mm.copy_in(self.addr, v.as_mut_slice().as_mut_bytes())?;
        Ok(v)
    }
    /// Copies values out.
    pub fn write_array(self, mm: &Mm, values: &[T]) -> Result<()> {
        mm.copy_out(self.addr, values.as_bytes())
    }
}

/// The address of a NUL-terminated string in guest memory.
#[derive(Clone, Copy)]
pub struct UserCStr(pub u64);

impl std::fmt::Debug for UserCStr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl UserCStr {
    /// The longest path that the kernel takes, with its NUL.
    pub const PATH_MAX: usize = 4096;

    /// Copies a path in: ENAMETOOLONG from 4096 bytes on.
    pub fn read_path(self, mm: &Mm) -> Result<Vec<u8>> {
        mm.copy_in_str(self.0, Self::PATH_MAX)?.ok_or(Errno::ENAMETOOLONG)
    }
    /// Copies a string of at most `max` bytes including its NUL in; `over` when it is longer.
    pub fn read(self, mm: &Mm, max: usize, over: Errno) -> Result<Vec<u8>> {
        mm.copy_in_str(self.0, max)?.ok_or(over)
    }
}

/// The largest count one read or write transfers (`MAX_RW_COUNT`).
pub const MAX_RW_COUNT: usize = 0x7fff_f000;

/// Ranges of guest memory, in order: the form of readv's and writev's argument and of a plain buffer.
#[derive(Clone, Debug, Default)]
pub struct UserIoVec {
    /// (address, length) pairs.
    pub parts: SmallVec<[(u64, usize); 4]>,
}

impl UserIoVec {
    /// One buffer; its length is cut to `MAX_RW_COUNT`. EFAULT when it leaves the user's half.
    pub fn single(addr: u64, len: usize) -> Result<Self> {
        if addr.checked_add(len as u64).is_none_or(|end| end > crate::mm::TASK_SIZE) {
            return Err(Errno::EFAULT);
        }
        Ok(UserIoVec { parts: smallvec::smallvec![(addr, len.min(MAX_RW_COUNT))] })
    }

    /// Copies `struct iovec`s in as Linux' import_iovec does: EINVAL for more than 1024 or a negative
    /// length, EFAULT for addresses outside the user's half; the sum is cut to `MAX_RW_COUNT`.
    pub fn import(mm: &Mm, iov: UserPtr<[u64; 2]>, count: usize) -> Result<Self> {
        if count > 1024 {
            return Err(Errno::EINVAL);
        }
        let raw = iov.read_array(mm, count)?;
        let mut left = MAX_RW_COUNT;
        let mut parts = SmallVec::new();
        for [_, len] in &raw {
            if i64::try_from(*len).is_err() {
                return Err(Errno::EINVAL);
            }
        }
        for [addr, len] in raw {
            if addr.checked_add(len).is_none_or(|end| end > crate::mm::TASK_SIZE) {
                return Err(Errno::EFAULT);
            }
            let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?.min(left);
            left -= len;
            parts.push((addr, len));
        }
        Ok(UserIoVec { parts })
    }

    /// Sum of the lengths.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|p| p.1).sum()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As a destination of data.
    pub fn sink<'a>(&'a self, mm: &'a Arc<Mm>) -> UserCursor<'a> {
        UserCursor { mm, iov: self, part: 0, at: 0, left: self.len() }
    }

    /// As a source of data.
    pub fn source<'a>(&'a self, mm: &'a Arc<Mm>) -> UserCursor<'a> {
        self.sink(mm)
    }
}

/// A position in guest memory ranges: both [`Sink`] and [`Source`].
#[derive(Debug)]
pub struct UserCursor<'a> {
    mm: &'a Arc<Mm>,
    iov: &'a UserIoVec,
    part: usize,
    at: usize,
    left: usize,
}

impl UserCursor<'_> {
    fn here(&mut self) -> Option<(u64, usize)> {
        while let Some((addr, len)) = self.iov.parts.get(self.part) {
            if self.at < *len {
                return Some((addr + self.at as u64, len - self.at));
            }
            self.part += 1;
            self.at = 0;
        }
        None
    }

    fn advance(&mut self, n: usize) {
        self.at += n;
        self.left -= n;
    }

    /// Cuts what remains to `n` bytes.
    pub fn limit(&mut self, n: usize) {
        self.left = self.left.min(n);
    }

    fn each(&mut self, want: usize, f: &mut dyn FnMut(&Mm, u64, usize, usize) -> usize) -> Result<usize> {
        let want = want.min(self.left);
        let mut done = 0;
        while done < want {
            let Some((addr, len)) = self.here() else {
                break;
            };
            let n = len.min(want - done);
            let k = f(self.mm, addr, done, n);
            self.advance(k);
            done += k;
            if k < n {
                if done == 0 {
                    return Err(Errno::EFAULT);
                }
                break;
            }
        }
        Ok(done)
    }

    fn blocks(
        &mut self,
        max: usize,
        access: platform::Access,
        f: &mut dyn FnMut(&[Block<'_>]) -> Result<usize>,
    ) -> Result<usize> {
        let mut done = 0;
        let max = max.min(self.left);
        while done < max {
            let Some((addr, len)) = self.here() else {
                break;
            };
            let n = len.min(max - done);
            match self.mm.with_blocks(addr, n, access, f) {
                Ok(k) => {
                    self.advance(k);
                    done += k;
                    if k < n {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

impl Sink for UserCursor<'_> {
    fn remaining(&self) -> usize {
        self.left
    }
    fn put(&mut self, data: &[u8]) -> Result<usize> {
        self.each(data.len(), &mut |mm, addr, off, n| mm.copy_out_partial(addr, &data[off..off + n]))
    }
    fn fill_with(&mut self, max: usize, f: &mut dyn FnMut(&[Block<'_>]) -> Result<usize>) -> Result<usize> {
        self.blocks(max, platform::Access::Write, f)
    }
}

impl Source for UserCursor<'_> {
    fn remaining(&self) -> usize {
        self.left
    }
    fn take(&mut self, buf: &mut [u8]) -> Result<usize> {
        let len = buf.len();
        self.each(len, &mut |mm, addr, off, n| mm.copy_in_partial(addr, &mut buf[off..off + n]))
    }
    fn offer(&mut self, buf: &mut [u8], f: &mut dyn FnMut(&[u8]) -> Result<usize>) -> Result<usize> {
        let before = (self.part, self.at, self.left);
        let got = self.take(buf)?;
        let after = (self.part, self.at, self.left);
        (self.part, self.at, self.left) = before;
        let used = f(&buf[..got])?.min(got);
        if used == got {
            (self.part, self.at, self.left) = after;
        } else {
            let mut rest = used;
            while rest > 0
                && let Some((_, len)) = self.here()
            {
                let n = len.min(rest);
                self.advance(n);
                rest -= n;
            }
        }
        Ok(used)
    }
    fn drain_with(&mut self, max: usize, f: &mut dyn FnMut(&[Block<'_>]) -> Result<usize>) -> Result<usize> {
        self.blocks(max, platform::Access::Read, f)
    }
}
