//! Data from file to file without the guest's memory: sendfile(2), copy_file_range(2), splice(2), tee(2),
//! vmsplice(2). It goes through a buffer of the sentry's.

use super::at;
use super::read_write::{read_file, wait_ready, write_file};
use crate::Current;
use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use kernel::io::{SliceSink, SliceSource};
use kernel::uaccess::{MAX_RW_COUNT, UserIoVec, UserPtr};
use kernel::vfs::{Fd, File, SplicePipe, rw};
use kernel::{SysError, SysResult};
use std::sync::Arc;

/// Most bytes on their way at a time.
const BUFFER: usize = 128 * 1024;

const F_MOVE: u32 = 1;
const F_NONBLOCK: u32 = 2;
const F_MORE: u32 = 4;
const F_GIFT: u32 = 8;
const F_ALL: u32 = F_MOVE | F_NONBLOCK | F_MORE | F_GIFT;

fn usize_of(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// A position argument that is null or in guest memory.
fn offset_in(t: &Current<'_>, at: UserPtr<i64>) -> Result<Option<u64>> {
    match at.optional() {
        None => Ok(None),
        Some(p) => u64::try_from(p.read(&t.mm())?).map(Some).map_err(|_| Errno::EINVAL),
    }
}

fn offset_out(t: &Current<'_>, at: UserPtr<i64>, pos: Option<u64>) -> Result<()> {
    match (at.optional(), pos) {
        (Some(p), Some(pos)) => p.write(&t.mm(), &pos.cast_signed()),
        _ => Ok(()),
    }
}

/// Reads once into `buf`, at `*pos` or the description's position.
fn take(t: &Current<'_>, file: &Arc<File>, buf: &mut [u8], pos: Option<u64>) -> Result<usize> {
    t.as_caller(|cx| rw::read(cx, file, &mut SliceSink::new(buf), pos))
}

/// Puts bytes of a seekable file that nobody wanted back.
fn step_back(file: &File, n: usize) {
    let mut pos = file.pos().lock();
    *pos = pos.saturating_sub(n as u64);
}

pub fn sendfile(t: &mut Current<'_>, out: Fd, input: Fd, offset: UserPtr<i64>, count: usize) -> SysResult {
    let from = at::file(t, input)?;
    if !from.flags().can_read() {
        return Err(Errno::EBADF.into());
    }
    let mut pos = offset_in(t, offset)?;
    if pos.is_some() && !from.ops().seekable() {
        return Err(Errno::ESPIPE.into());
    }
    let to = at::file(t, out)?;
    if !to.flags().can_write() {
        return Err(Errno::EBADF.into());
    }
    if !from.ops().seekable() || from.path().inode()?.file_type() == FileType::Directory {
        return Err(Errno::EINVAL.into());
    }
    if to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL.into());
    }
    let want = count.min(MAX_RW_COUNT);
    let mut buf = vec![0; want.min(BUFFER)];
    let mut done = 0;
    let mut failed = None;
    while done < want {
        let n = buf.len().min(want - done);
        let got = match take(t, &from, &mut buf[..n], pos) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) => {
                failed = Some(SysError::Errno(e));
                break;
            }
        };
        let put = match write_file(t, &to, &mut SliceSource::new(&mut buf[..got]), None, false) {
            Ok(n) => usize_of(n),
            Err(e) => {
                failed = Some(e);
                0
            }
        };
        done += put;
        match &mut pos {
            Some(p) => *p += put as u64,
            None => step_back(&from, got - put),
        }
        if put < got {
            break;
        }
    }
    offset_out(t, offset, pos)?;
    match failed {
        Some(e) if done == 0 => Err(e),
        _ => Ok(done as u64),
    }
}

fn regular(file: &File) -> Result<()> {
    match file.path().inode()?.file_type() {
        FileType::Regular => Ok(()),
        FileType::Directory => Err(Errno::EISDIR),
        _ => Err(Errno::EINVAL),
    }
}

pub fn copy_file_range(
    t: &mut Current<'_>,
    fd_in: Fd,
    off_in: UserPtr<i64>,
    fd_out: Fd,
    off_out: UserPtr<i64>,
    len: usize,
    flags: u32,
) -> SysResult {
    let (from, to) = (at::file(t, fd_in)?, at::file(t, fd_out)?);
    let (pos_in, pos_out) = (offset_in(t, off_in)?, offset_in(t, off_out)?);
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    regular(&from)?;
    regular(&to)?;
    if !from.flags().can_read() || !to.flags().can_write() || to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EBADF.into());
    }
    let mut src = pos_in.unwrap_or_else(|| *from.pos().lock());
    let mut dst = pos_out.unwrap_or_else(|| *to.pos().lock());
    let (a, b) = (from.path().inode()?, to.path().inode()?);
    let len64 = len as u64;
    if src.checked_add(len64).is_none() || dst.checked_add(len64).is_none() {
        return Err(Errno::EOVERFLOW.into());
    }
    if a.fs().dev() != b.fs().dev() {
        return Err(Errno::EXDEV.into());
    }
    let size = from.ops().attr(&from)?.size;
    let want = len64.min(size.saturating_sub(src)).min(MAX_RW_COUNT as u64);
    if kernel::vfs::change::same_inode(a, b) && src < dst + want && dst < src + want {
        return Err(Errno::EINVAL.into());
    }
    let mut buf = vec![0; usize_of(want).min(BUFFER)];
    let mut done = 0;
    while done < want {
        let n = usize_of(want - done).min(buf.len());
        let step = take(t, &from, &mut buf[..n], Some(src))
            .map_err(SysError::from)
            .and_then(|got| write_file(t, &to, &mut SliceSource::new(&mut buf[..got]), Some(dst), false));
        match step {
            Ok(0) => break,
            Ok(n) => {
                done += n;
                src += n;
                dst += n;
            }
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    match pos_in {
        Some(_) => offset_out(t, off_in, Some(src))?,
        None => *from.pos().lock() = src,
    }
    match pos_out {
        Some(_) => offset_out(t, off_out, Some(dst))?,
        None => *to.pos().lock() = dst,
    }
    Ok(done)
}

fn pipe(file: &File) -> Option<&dyn SplicePipe> {
    file.ops().as_pipe()
}

/// From a pipe to something that is no pipe.
fn drain_pipe(
    t: &Current<'_>,
    from: &Arc<File>,
    to: &Arc<File>,
    pos: Option<u64>,
    len: usize,
    nonblock: bool,
) -> SysResult {
    let mut buf = vec![0; len.min(BUFFER)];
    let got = usize_of(read_file(t, from, &mut SliceSink::new(&mut buf), None, nonblock)?);
    buf.truncate(got);
    if got == 0 {
        return Ok(0);
    }
    let put = write_file(t, to, &mut SliceSource::new(&mut buf), pos, nonblock);
    let n = *put.as_ref().unwrap_or(&0);
    if usize_of(n) < got
        && let Some(p) = pipe(from)
    {
        p.unread(buf.split_off(usize_of(n)));
    }
    put
}

/// Waits until a pipe has room; how much.
fn room(t: &Current<'_>, to: &Arc<File>, nonblock: bool) -> std::result::Result<usize, SysError> {
    wait_ready(t, to, true, nonblock || to.nonblocking(), || {
        let p = pipe(to).ok_or(Errno::EINVAL)?;
        let broken = t.as_caller(|cx| to.ops().poll(cx, to)).contains(abi::poll::PollEvents::ERR);
        match p.room() {
            // The write itself tells that nobody reads.
            _ if broken => Ok(1),
            0 => Err(Errno::EAGAIN),
            n => Ok(n),
        }
    })
}

fn fill_pipe(
    t: &Current<'_>,
    from: &Arc<File>,
    to: &Arc<File>,
    pos: Option<u64>,
    len: usize,
    nonblock: bool,
) -> SysResult {
    let n = room(t, to, nonblock)?.min(len).min(BUFFER);
    let mut buf = vec![0; n];
    let got = usize_of(read_file(t, from, &mut SliceSink::new(&mut buf), pos, nonblock)?);
    if got == 0 {
        return Ok(0);
    }
    let put = write_file(t, to, &mut SliceSource::new(&mut buf[..got]), None, nonblock);
    let n = usize_of(*put.as_ref().unwrap_or(&0));
    if n < got && pos.is_none() && from.ops().seekable() {
        step_back(from, got - n);
    }
    put
}

/// Whether data can be moved between a pipe and such a file: not for directories and the nameless kinds that only
/// read(2) and write(2) know (eventfd, epoll and the like), which is found out before anything waits.
fn spliceable(file: &File) -> Result<()> {
    const KIND: u32 = 0o170_000;
    const DIRECTORY: u32 = 0o040_000;
    match file.path().inode()?.attr()?.mode & KIND {
        0 | DIRECTORY => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

pub fn splice(
    t: &mut Current<'_>,
    fd_in: Fd,
    off_in: UserPtr<i64>,
    fd_out: Fd,
    off_out: UserPtr<i64>,
    len: usize,
    flags: u32,
) -> SysResult {
    if len == 0 {
        return Ok(0);
    }
    if flags & !F_ALL != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (from, to) = (at::file(t, fd_in)?, at::file(t, fd_out)?);
    if !from.flags().can_read() || !to.flags().can_write() {
        return Err(Errno::EBADF.into());
    }
    let nonblock = flags & F_NONBLOCK != 0;
    match (pipe(&from), pipe(&to)) {
        (Some(a), Some(b)) => {
            if !off_in.is_null() || !off_out.is_null() {
                return Err(Errno::ESPIPE.into());
            }
            if a.pipe_id() == b.pipe_id() {
                return Err(Errno::EINVAL.into());
            }
            let room = room(t, &to, nonblock)?;
            drain_pipe(t, &from, &to, None, len.min(room), nonblock)
        }
        (Some(_), None) => {
            if !off_in.is_null() {
                return Err(Errno::ESPIPE.into());
            }
            if !off_out.is_null() && !to.ops().seekable() {
                return Err(Errno::EINVAL.into());
            }
            if to.flags().contains(OpenFlags::APPEND) {
                return Err(Errno::EINVAL.into());
            }
            spliceable(&to)?;
            let pos = offset_in(t, off_out)?;
            let n = drain_pipe(t, &from, &to, pos, len, nonblock)?;
            offset_out(t, off_out, pos.map(|p| p + n))?;
            Ok(n)
        }
        (None, Some(_)) => {
            if !off_out.is_null() {
                return Err(Errno::ESPIPE.into());
            }
            if !off_in.is_null() && !from.ops().seekable() {
                return Err(Errno::EINVAL.into());
            }
            spliceable(&from)?;
            let pos = offset_in(t, off_in)?;
            let n = fill_pipe(t, &from, &to, pos, len, nonblock)?;
            offset_out(t, off_in, pos.map(|p| p + n))?;
            Ok(n)
        }
        (None, None) => Err(Errno::EINVAL.into()),
    }
}

pub fn tee(t: &mut Current<'_>, fd_in: Fd, fd_out: Fd, len: usize, flags: u32) -> SysResult {
    if flags & !F_ALL != 0 {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(0);
    }
    let (from, to) = (at::file(t, fd_in)?, at::file(t, fd_out)?);
    let (Some(a), Some(b)) = (pipe(&from), pipe(&to)) else {
        return Err(Errno::EINVAL.into());
    };
    if a.pipe_id() == b.pipe_id() {
        return Err(Errno::EINVAL.into());
    }
    if !from.flags().can_read() || !to.flags().can_write() {
        return Err(Errno::EBADF.into());
    }
    let nonblock = flags & F_NONBLOCK != 0;
    let mut data = wait_ready(t, &from, false, nonblock || from.nonblocking(), || a.peek(len.min(BUFFER)))?;
    if data.is_empty() {
        return Ok(0);
    }
    let n = room(t, &to, nonblock)?.min(data.len());
    write_file(t, &to, &mut SliceSource::new(&mut data[..n]), None, true)
}

pub fn vmsplice(t: &mut Current<'_>, fd: Fd, iov: UserPtr<[u64; 2]>, n: usize, flags: u32) -> SysResult {
    if flags & !F_ALL != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = at::file(t, fd)?;
    if pipe(&file).is_none() {
        return Err(Errno::EBADF.into());
    }
    let mm = t.mm();
    let iov = UserIoVec::import(&mm, iov, n)?;
    if iov.is_empty() {
        return Ok(0);
    }
    let nonblock = flags & F_NONBLOCK != 0;
    if file.flags().can_write() {
        // It waits for some room, not until all is written.
        let mut source = iov.source(&mm);
        loop {
            room(t, &file, nonblock)?;
            match write_file(t, &file, &mut source, None, true) {
                // Another writer was faster.
                Err(SysError::Errno(Errno::EAGAIN)) if !nonblock && !file.nonblocking() => {}
                done => return done,
            }
        }
    } else {
        read_file(t, &file, &mut iov.sink(&mm), None, nonblock)
    }
}
