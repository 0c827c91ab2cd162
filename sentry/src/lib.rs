//! The sentry: the guest kernel put together. The families of system calls, their table, the
//! loader, the task loop, and the two joints through which `runsc` drives it ([`boot`] and
//! [`control`]) live here; the kernel objects they work on live in `kernel` and `fs`.

#![forbid(unsafe_code)]

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
