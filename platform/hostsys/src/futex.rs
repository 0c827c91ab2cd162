//! Futexes, on words shared with other processes or of this one.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Waits while `word` is `expected`, at most `timeout`. Returns early for any reason; the caller looks at the word again.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    wait_op(word, libc::FUTEX_WAIT, expected, timeout);
}

/// As `wait`, for a word that only this process wakes: cheaper, the host need not look up the page.
pub fn wait_private(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    wait_op(word, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, expected, timeout);
}

fn wait_op(word: &AtomicU32, op: i32, expected: u32, timeout: Option<Duration>) {
    let timeout = timeout
        .map(|t| libc::timespec { tv_sec: t.as_secs().cast_signed(), tv_nsec: t.subsec_nanos().into() });
    let ptr = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: a live word and a live timespec or null.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, expected, ptr) };
}

/// Wakes up to `count` waiters; how many there were.
pub fn wake(word: &AtomicU32, count: i32) -> usize {
    wake_op(word, libc::FUTEX_WAKE, count)
}

/// As `wake`, for those who wait with `wait_private`.
pub fn wake_private(word: &AtomicU32, count: i32) -> usize {
    wake_op(word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, count)
}

fn wake_op(word: &AtomicU32, op: i32, count: i32) -> usize {
    // SAFETY: a live word.
    let n = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, count) };
    usize::try_from(n).unwrap_or(0)
}

/// Moves up to `count` waiters to another word, without waking them; how many there were.
pub fn requeue(word: &AtomicU32, to: &AtomicU32, count: usize) -> usize {
    // SAFETY: two live words. The fourth argument is a count with this operation.
    let n =
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_REQUEUE, 0, count, to.as_ptr()) };
    usize::try_from(n).unwrap_or(0)
}
