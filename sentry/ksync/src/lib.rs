//! Locks with a declared order and wait queues.
//!
//! Every lock of the sentry has a [`LockClass`]; the order of the variants is the order in which
//! locks may be taken, from the outside in. Debug and test builds check it at run time; release
//! builds pay nothing. [`WaitQueue`] is how one part tells another that something may have changed.
#![forbid(unsafe_code)]

pub mod live;
mod lock;
pub mod sync;
mod wait;

pub use lock::{LockClass, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, assert_no_locks};
pub use wait::{Listener, Registration, WaitQueue};
