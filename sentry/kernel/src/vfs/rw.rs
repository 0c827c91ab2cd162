//! Reading and writing open files: what is the same for all of them (rights, positions, limits, times, events).
//! Nothing here waits; EAGAIN is for the calls to handle.

use super::inode::{Attr, Caller, SetAttr, SetTime};
use super::notify::Event;
use super::{DirSink, File, SeekFrom, atime, limits};
use crate::io::{Sink, Source};
use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};

fn is_regular(file: &File) -> bool {
    file.path().dentry.inode().is_some_and(|i| i.file_type() == FileType::Regular)
}

/// The bytes must not reach beyond the largest offset there is (`rw_verify_area`).
fn verify(pos: u64, len: usize) -> Result<()> {
    match pos.checked_add(len as u64) {
        Some(end) if end <= limits::MAX_SIZE => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// Reads at the description's position (`None`) or at `at`.
pub fn read(cx: &Caller<'_>, file: &File, dst: &mut dyn Sink, at: Option<u64>) -> Result<usize> {
    let result = read_once(cx, file, dst, at);
    // What is to be tried again is no call that has ended.
    if let Some(task) = cx.task
        && result != Err(Errno::EAGAIN)
    {
        task.cpu.io.read(result.unwrap_or(0));
    }
    result
}

fn read_once(cx: &Caller<'_>, file: &File, dst: &mut dyn Sink, at: Option<u64>) -> Result<usize> {
    if !file.flags().can_read() {
        return Err(Errno::EBADF);
    }
    let ops = file.ops();
    let n = match at {
        Some(mut pos) => {
            if !ops.seekable() {
                return Err(Errno::ESPIPE);
            }
            verify(pos, dst.remaining())?;
            ops.read(cx, file, dst, &mut pos)?
        }
        None if ops.seekable() => {
            let mut pos = file.pos().lock();
            verify(*pos, dst.remaining())?;
            ops.read(cx, file, dst, &mut pos)?
        }
        None => ops.read(cx, file, dst, &mut 0)?,
    };
    if n > 0 {
        file.tell(cx, Event::ACCESS);
    }
    if ops.seekable() {
        atime::touch(cx, file.path(), file.flags().contains(OpenFlags::NOATIME));
    }
    Ok(n)
}

/// Cuts a source to what `RLIMIT_FSIZE` lets through.
struct Limited<'a> {
    inner: &'a mut dyn Source,
    left: usize,
}

impl Source for Limited<'_> {
    fn remaining(&self) -> usize {
        self.inner.remaining().min(self.left)
    }
    fn take(&mut self, buf: &mut [u8]) -> Result<usize> {
        let n = buf.len().min(self.left);
        let k = self.inner.take(&mut buf[..n])?;
        self.left -= k;
        Ok(k)
    }
    fn offer(&mut self, buf: &mut [u8], f: &mut dyn FnMut(&[u8]) -> Result<usize>) -> Result<usize> {
        let n = buf.len().min(self.left);
        let k = self.inner.offer(&mut buf[..n], f)?;
        self.left -= k;
        Ok(k)
    }
    fn drain_with(
        &mut self,
        max: usize,
        f: &mut dyn FnMut(&[platform::Block<'_>]) -> Result<usize>,
    ) -> Result<usize> {
        let k = self.inner.drain_with(max.min(self.left), f)?;
        self.left -= k.min(self.left);
        Ok(k)
    }
}

/// Writes at the description's position (`None`), at its end (`O_APPEND`), or at `at`.
pub fn write(cx: &Caller<'_>, file: &File, src: &mut dyn Source, at: Option<u64>) -> Result<usize> {
    let result = write_once(cx, file, src, at);
    if let Some(task) = cx.task
        && result != Err(Errno::EAGAIN)
    {
        task.cpu.io.wrote(result.unwrap_or(0));
    }
    result
}

fn write_once(cx: &Caller<'_>, file: &File, src: &mut dyn Source, at: Option<u64>) -> Result<usize> {
    if !file.flags().can_write() {
        return Err(Errno::EBADF);
    }
    let ops = file.ops();
    let regular = is_regular(file);
    let put = |src: &mut dyn Source, pos: &mut u64| -> Result<usize> {
        if !regular {
            return ops.write(cx, file, src, pos);
        }
        let len = src.remaining();
        let from = if file.flags().contains(OpenFlags::APPEND) { ops.attr(file)?.size } else { *pos };
        if len == 0 {
            return Ok(0);
        }
        let left = limits::check_write(cx, from, len)?;
        super::setattr::remove_privileges(cx, file.path())?;
        if left < len {
            ops.write(cx, file, &mut Limited { inner: src, left }, pos)
        } else {
            ops.write(cx, file, src, pos)
        }
    };
    let n = match at {
        Some(mut pos) => {
            if !ops.seekable() {
                return Err(Errno::ESPIPE);
            }
            verify(pos, src.remaining())?;
            put(src, &mut pos)?
        }
        None if ops.seekable() => {
            let mut pos = file.pos().lock();
            verify(*pos, src.remaining())?;
            put(src, &mut pos)?
        }
        None => put(src, &mut 0)?,
    };
    if n > 0 {
        file.tell(cx, Event::MODIFY);
    }
    Ok(n)
}

/// lseek(2).
pub fn seek(cx: &Caller<'_>, file: &File, from: SeekFrom) -> Result<u64> {
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    if !file.ops().seekable() {
        return if file.ops().ignores_seek() { Ok(0) } else { Err(Errno::ESPIPE) };
    }
    let mut pos = file.pos().lock();
    let to = file.ops().seek(cx, file, *pos, from)?;
    *pos = to;
    Ok(to)
}

/// getdents64(2): from the description's position on; the sink decides where it ends.
pub fn readdir(cx: &Caller<'_>, file: &File, sink: &mut dyn DirSink) -> Result<()> {
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    let inode = file.path().inode()?;
    if inode.file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    if file.path().dentry.is_dead() {
        return Err(Errno::ENOENT);
    }
    struct Track<'a> {
        inner: &'a mut dyn DirSink,
        next: Option<u64>,
    }
    impl DirSink for Track<'_> {
        fn entry(&mut self, ino: u64, next: u64, kind: FileType, name: &[u8]) -> bool {
            let taken = self.inner.entry(ino, next, kind, name);
            if taken {
                self.next = Some(next);
            }
            taken
        }
    }
    let mut pos = file.pos().lock();
    let mut track = Track { inner: sink, next: None };
    file.ops().readdir(cx, file, *pos, &mut track)?;
    if let Some(next) = track.next {
        *pos = next;
    }
    drop(pos);
    file.tell(cx, Event::ACCESS);
    atime::touch(cx, file.path(), file.flags().contains(OpenFlags::NOATIME));
    Ok(())
}

/// Attributes of an open file.
pub fn file_attr(file: &File) -> Result<Attr> {
    file.ops().attr(file)
}

/// The description was read in a way that the file does not see (splice, mmap).
pub fn accessed(cx: &Caller<'_>, file: &File) {
    atime::touch(cx, file.path(), file.flags().contains(OpenFlags::NOATIME));
}

/// A symbolic link was read.
pub fn touch(cx: &Caller<'_>, path: &super::Path) {
    atime::touch(cx, path, false);
}

/// Sets modification and change time to now.
pub fn modified(cx: &Caller<'_>, file: &File) -> Result<()> {
    let set = SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() };
    file.path().inode()?.set_attr(cx, &set)
}
