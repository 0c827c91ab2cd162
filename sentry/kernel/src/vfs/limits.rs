//! Limits on the size of files: `RLIMIT_FSIZE` with SIGXFSZ, and the largest offset there is.

use super::inode::{Caller, Inode};
use abi::{Errno, Result};
use std::sync::Arc;

/// The largest size of a file (`MAX_LFS_FILESIZE`).
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// The caller's `RLIMIT_FSIZE`.
fn limit(cx: &Caller<'_>) -> u64 {
    cx.task.map_or(u64::MAX, |t| t.group().soft_limit(abi::resource::Resource::Fsize))
}

fn exceeded(cx: &Caller<'_>) -> Errno {
    if let Some(t) = cx.task {
        t.send_signal(&abi::siginfo::SigInfo::user(
            abi::signal::Signal::SIGXFSZ,
            abi::signal::code::SI_USER,
            t.group().tgid,
            cx.creds.uid,
        ));
    }
    Errno::EFBIG
}

/// Whether a file may get this size: growing beyond the limit is EFBIG with SIGXFSZ.
pub(super) fn check_size(cx: &Caller<'_>, inode: &Arc<dyn Inode>, size: u64) -> Result<()> {
    if size > MAX_SIZE {
        return Err(Errno::EINVAL);
    }
    let limit = limit(cx);
    if limit != u64::MAX && size > limit && size > inode.attr()?.size {
        return Err(exceeded(cx));
    }
    Ok(())
}

/// As for a size that is set, for space that is reserved.
pub fn check_growth(cx: &Caller<'_>, inode: &Arc<dyn Inode>, end: u64) -> Result<()> {
    check_size(cx, inode, end)
}

/// How much of a write of `len` bytes at `pos` is allowed; EFBIG when none is.
pub fn check_write(cx: &Caller<'_>, pos: u64, len: usize) -> Result<usize> {
    let limit = limit(cx);
    if pos >= MAX_SIZE {
        return Err(Errno::EFBIG);
    }
    if limit != u64::MAX && pos >= limit {
        return Err(exceeded(cx));
    }
    let room = limit.min(MAX_SIZE) - pos;
    Ok(len.min(usize::try_from(room).unwrap_or(usize::MAX)))
}
