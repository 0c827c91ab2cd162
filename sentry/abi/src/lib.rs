//! The Linux x86-64 ABI as data: error numbers, signal numbers, flags, structures that cross the
//! boundary between a guest and its kernel. No behaviour lives here, and nothing of the host.
#![forbid(unsafe_code)]
// Arguments of guests come through here: a number may only become a narrower one where it is said how. (Tests cast as they like.)
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

pub mod errno;
pub mod fcntl;
pub mod ipc;
pub mod mman;
pub mod nr;
pub mod poll;
pub mod resource;
pub mod sched;
pub mod siginfo;
pub mod signal;
pub mod socket;
pub mod stat;
pub mod termios;
pub mod time;

pub use errno::{Errno, Result};

/// Size of a page, in bytes.
pub const PAGE_SIZE: u64 = PAGE_BYTES as u64;
/// The same, as lengths in the sentry's memory are counted.
pub const PAGE_BYTES: usize = 4096;

/// Rounds down to a page boundary.
pub const fn page_down(addr: u64) -> u64 {
    addr & !(PAGE_SIZE - 1)
}

/// Rounds up to a page boundary; `None` when that overflows.
pub const fn page_up(addr: u64) -> Option<u64> {
    match addr.checked_add(PAGE_SIZE - 1) {
        Some(a) => Some(a & !(PAGE_SIZE - 1)),
        None => None,
    }
}
