//! The guest kernel's core: tasks, memory, signals, time, descriptors and the VFS.
//!
//! Nothing here knows a system call's number or a concrete file system: `fs` implements the VFS
//! traits, `sentry` assembles the two and decodes calls. Nothing here is global; the roots of
//! everything are [`Kernel`] values.
#![forbid(unsafe_code)]
// Arguments of guests come through here: a number may only become a narrower one where it is said how. (Tests cast as they like.)
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

pub mod bpf;
pub mod creds;
pub mod extensions;
pub mod futex;
pub mod gap;
pub mod hardware;
pub mod io;
pub mod kernel;
pub mod mm;
pub mod restart;
pub mod seccomp;
pub mod signal;
pub mod sysctl;
pub mod sysv;
pub mod task;
pub mod time;
pub mod timer;
pub mod uaccess;
pub mod vfs;
pub mod wait;

pub use kernel::Kernel;
pub use restart::{SysError, SysResult};
pub use task::{Task, ThreadGroup};
