//! The sentry: the guest kernel put together. The families of system calls, their table, the
//! loader, the task loop, and the two joints through which `runsc` drives it ([`boot`] and
//! [`control`]) live here; the kernel objects they work on live in `kernel` and `fs`.

#![forbid(unsafe_code)]
// Arguments of guests come through here: a number may only become a narrower one where it is said how. (Tests cast as they like.)
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

pub mod boot;
pub mod control;
pub mod current;
pub mod loader;
pub mod net;
pub mod run;
pub mod syscalls;
mod tracing_stops;
pub mod workers;

pub use current::Current;
