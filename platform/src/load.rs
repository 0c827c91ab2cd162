//! How many guest threads want a processor now: those that run guest code and those whose calls are being answered, but not
//! those that sleep. While there is a processor to spare, guest and sentry wait for each other by spinning; else whoever spins
//! takes the time of somebody who has work.

use std::sync::atomic::AtomicIsize;
use std::sync::atomic::Ordering::Relaxed;

/// Over all sandboxes of this process, as they share the host's processors.
static WANT: AtomicIsize = AtomicIsize::new(0);

/// A guest thread wants a processor from now on. Whoever wakes one says so, since the one woken may have to wait for a processor itself.
pub fn wants() {
    WANT.fetch_add(1, Relaxed);
}

/// A guest thread sleeps from now on, or ends.
pub fn rests() {
    WANT.fetch_sub(1, Relaxed);
}

/// How many want one.
pub(crate) fn wanting() -> usize {
    usize::try_from(WANT.load(Relaxed)).unwrap_or(0)
}
