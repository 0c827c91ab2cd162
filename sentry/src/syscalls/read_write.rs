//! read(2), write(2), their vectored and positioned forms, lseek(2); and how they wait.

use super::at;
use crate::Current;
use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use kernel::io::{Sink, Source};
use kernel::restart::Restart;
use kernel::time::Deadline;
use kernel::uaccess::{UserIoVec, UserPtr};
use kernel::vfs::{Fd, File, SeekFrom, rw};
use kernel::wait::{Blocked, WaitOn};
use kernel::{SysError, SysResult};
use std::sync::Arc;

/// `RWF_*` flags of preadv2(2) and pwritev2(2).
mod rwf {
    pub const HIPRI: u32 = 1;
    pub const DSYNC: u32 = 2;
    pub const SYNC: u32 = 4;
    pub const NOWAIT: u32 = 8;
    pub const APPEND: u32 = 16;
    pub const KNOWN: u32 = HIPRI | DSYNC | SYNC | NOWAIT | APPEND;
}

fn count(n: usize) -> u64 {
    n as u64
}

/// Tries until it is not EAGAIN, waiting for the file in between unless `nonblock`. EAGAIN when the file's own
/// timeout passes.
pub(super) fn wait_ready<R>(
    t: &Current<'_>,
    file: &Arc<File>,
    write: bool,
    nonblock: bool,
    mut attempt: impl FnMut() -> Result<R>,
) -> std::result::Result<R, SysError> {
    match attempt() {
        Err(Errno::EAGAIN) if !nonblock => {}
        r => return Ok(r?),
    }
    let Some(queue) = file.ops().wait_queue(file) else {
        return Err(Errno::EAGAIN.into());
    };
    let ready = if write { PollEvents::WRITABLE } else { PollEvents::READABLE | PollEvents::RDHUP };
    let mask = (ready | PollEvents::ERR | PollEvents::HUP).bits();
    let timeout =
        file.ops().io_timeout(write).or_else(|| if write { None } else { file.ops().read_timeout(file) });
    let until = timeout.map(|ns| Deadline::after(t.kernel(), ns));
    let waited = t.block_on(&[WaitOn::mask(&queue, mask)], until, || match attempt() {
        Err(Errno::EAGAIN) => None,
        r => Some(r),
    });
    match waited {
        Ok(r) => Ok(r?),
        Err(Blocked::TimedOut) => Err(Errno::EAGAIN.into()),
        Err(Blocked::Interrupted) if timeout.is_some() => Err(Errno::EINTR.into()),
        Err(Blocked::Interrupted) => Err(Restart::Sys.into()),
    }
}

/// Reads into a destination, waiting if the file does.
pub(super) fn read_file(
    t: &Current<'_>,
    file: &Arc<File>,
    dst: &mut dyn Sink,
    at: Option<u64>,
    nonblock: bool,
) -> SysResult {
    let nonblock = nonblock || file.nonblocking();
    let got = wait_ready(t, file, false, nonblock, || t.as_caller(|cx| rw::read(cx, file, dst, at)));
    match got {
        // A terminal's VTIME has passed.
        Err(SysError::Errno(Errno::EAGAIN)) if !nonblock && file.ops().read_timeout(file).is_some() => Ok(0),
        got => got.map(count),
    }
}

/// Writes from a source, waiting if the file does; pipes and streams until all is written.
pub(super) fn write_file(
    t: &Current<'_>,
    file: &Arc<File>,
    src: &mut dyn Source,
    at: Option<u64>,
    nonblock: bool,
) -> SysResult {
    let nonblock = nonblock || file.nonblocking();
    let mut done = 0;
    loop {
        let step = wait_ready(t, file, true, nonblock, || t.as_caller(|cx| rw::write(cx, file, src, at)));
        match step {
            Ok(n) => {
                done += n;
                if nonblock || n == 0 || src.remaining() == 0 || !file.ops().writes_all() {
                    break;
                }
            }
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    let flags = file.flags();
    if done > 0 && flags.contains(OpenFlags::DSYNC) && file.ops().seekable() {
        file.ops().fsync(file, !flags.contains(OpenFlags::SYNC_BIT))?;
    }
    Ok(count(done))
}

fn position(offset: i64) -> Result<u64> {
    u64::try_from(offset).map_err(|_| Errno::EINVAL)
}

/// The file of a descriptor that is open for what the call does; ESPIPE for an offset into what has none.
fn usable(t: &Current<'_>, fd: Fd, positioned: bool, write: bool) -> Result<Arc<File>> {
    let file = at::file(t, fd)?;
    if positioned && !file.ops().seekable() {
        return Err(Errno::ESPIPE);
    }
    let open = file.flags();
    if if write { open.can_write() } else { open.can_read() } { Ok(file) } else { Err(Errno::EBADF) }
}

fn read_buffer(t: &Current<'_>, fd: Fd, buf: UserPtr<u8>, len: usize, at: Option<u64>) -> SysResult {
    let file = usable(t, fd, at.is_some(), false)?;
    let iov = UserIoVec::single(buf.addr(), len)?;
    read_file(t, &file, &mut iov.sink(&t.mm()), at, false)
}

fn write_buffer(t: &Current<'_>, fd: Fd, buf: UserPtr<u8>, len: usize, at: Option<u64>) -> SysResult {
    let file = usable(t, fd, at.is_some(), true)?;
    let iov = UserIoVec::single(buf.addr(), len)?;
    write_file(t, &file, &mut iov.source(&t.mm()), at, false)
}

pub fn read(t: &mut Current<'_>, fd: Fd, buf: UserPtr<u8>, len: usize) -> SysResult {
    read_buffer(t, fd, buf, len, None)
}

pub fn write(t: &mut Current<'_>, fd: Fd, buf: UserPtr<u8>, len: usize) -> SysResult {
    write_buffer(t, fd, buf, len, None)
}

pub fn pread64(t: &mut Current<'_>, fd: Fd, buf: UserPtr<u8>, len: usize, offset: i64) -> SysResult {
    read_buffer(t, fd, buf, len, Some(position(offset)?))
}

pub fn pwrite64(t: &mut Current<'_>, fd: Fd, buf: UserPtr<u8>, len: usize, offset: i64) -> SysResult {
    write_buffer(t, fd, buf, len, Some(position(offset)?))
}

fn vectored(
    t: &Current<'_>,
    fd: Fd,
    iov: UserPtr<[u64; 2]>,
    n: usize,
    at: Option<u64>,
    write: bool,
    flags: u32,
) -> SysResult {
    let file = usable(t, fd, at.is_some(), write)?;
    let mm = t.mm();
    let iov = UserIoVec::import(&mm, iov, n)?;
    if flags & !rwf::KNOWN != 0 || (flags & rwf::APPEND != 0 && !write) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let nowait = flags & rwf::NOWAIT != 0;
    if !write {
        return read_file(t, &file, &mut iov.sink(&mm), at, nowait);
    }
    let at = if flags & rwf::APPEND != 0 && file.ops().seekable() {
        Some(file.ops().attr(&file)?.size)
    } else {
        at
    };
    let n = write_file(t, &file, &mut iov.source(&mm), at, nowait)?;
    if n > 0 && flags & (rwf::DSYNC | rwf::SYNC) != 0 && file.ops().seekable() {
        file.ops().fsync(&file, flags & rwf::SYNC == 0)?;
    }
    Ok(n)
}

pub fn readv(t: &mut Current<'_>, fd: Fd, iov: UserPtr<[u64; 2]>, n: usize) -> SysResult {
    vectored(t, fd, iov, n, None, false, 0)
}

pub fn writev(t: &mut Current<'_>, fd: Fd, iov: UserPtr<[u64; 2]>, n: usize) -> SysResult {
    vectored(t, fd, iov, n, None, true, 0)
}

pub fn preadv(
    t: &mut Current<'_>,
    fd: Fd,
    iov: UserPtr<[u64; 2]>,
    n: usize,
    offset: i64,
    _high: u64,
) -> SysResult {
    vectored(t, fd, iov, n, Some(position(offset)?), false, 0)
}

pub fn pwritev(
    t: &mut Current<'_>,
    fd: Fd,
    iov: UserPtr<[u64; 2]>,
    n: usize,
    offset: i64,
    _high: u64,
) -> SysResult {
    vectored(t, fd, iov, n, Some(position(offset)?), true, 0)
}

/// -1 means the description's own position.
fn position2(offset: i64) -> Result<Option<u64>> {
    if offset == -1 { Ok(None) } else { position(offset).map(Some) }
}

pub fn preadv2(
    t: &mut Current<'_>,
    fd: Fd,
    iov: UserPtr<[u64; 2]>,
    n: usize,
    offset: i64,
    _high: u64,
    flags: u32,
) -> SysResult {
    vectored(t, fd, iov, n, position2(offset)?, false, flags)
}

pub fn pwritev2(
    t: &mut Current<'_>,
    fd: Fd,
    iov: UserPtr<[u64; 2]>,
    n: usize,
    offset: i64,
    _high: u64,
    flags: u32,
) -> SysResult {
    vectored(t, fd, iov, n, position2(offset)?, true, flags)
}

pub fn lseek(t: &mut Current<'_>, fd: Fd, offset: i64, whence: u32) -> SysResult {
    let file = at::file(t, fd)?;
    let from = match whence {
        0 => SeekFrom::Set(offset),
        1 => SeekFrom::Cur(offset),
        2 => SeekFrom::End(offset),
        3 => SeekFrom::Data(offset),
        4 => SeekFrom::Hole(offset),
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok(t.as_caller(|cx| rw::seek(cx, &file, from))?)
}
