//! The position of an open file description.
//!
//! A call that moves it holds the lock for its whole time (`f_pos_lock`); who only shows it (fdinfo, the
//! kinds of fcntl and ioctl that count from it) reads the last value without waiting, as Linux does. So a
//! process can read the fdinfo of the very descriptor it reads with.

use ksync::{LockClass, Mutex, MutexGuard};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};

/// A position in bytes (or in the directory's own unit).
pub struct Position {
    moving: Mutex<()>,
    value: AtomicU64,
}

impl Position {
    pub(super) const fn new() -> Self {
        Position { moving: Mutex::new(LockClass::FileOffset, ()), value: AtomicU64::new(0) }
    }

    /// Waits until no other call moves the position, and keeps them out.
    pub fn lock(&self) -> PositionGuard<'_> {
        let held = self.moving.lock();
        PositionGuard { now: self.shown(), of: &self.value, _held: held }
    }

    /// What it was when the last call that moved it ended.
    pub fn shown(&self) -> u64 {
        self.value.load(Ordering::Acquire)
    }
}

/// The right to move a position; the new value is seen by others when this is dropped.
pub struct PositionGuard<'a> {
    now: u64,
    of: &'a AtomicU64,
    _held: MutexGuard<'a, ()>,
}

impl Deref for PositionGuard<'_> {
    type Target = u64;

    fn deref(&self) -> &u64 {
        &self.now
    }
}

impl DerefMut for PositionGuard<'_> {
    fn deref_mut(&mut self) -> &mut u64 {
        &mut self.now
    }
}

impl Drop for PositionGuard<'_> {
    fn drop(&mut self) {
        self.of.store(self.now, Ordering::Release);
    }
}
