//! The system calls: one table, and a file for each family.
//!
//! Handlers are thin: they decode, call kernel objects and encode. A handler is found under the name of its
//! man page.

mod aio;
mod args;
mod at;
mod attr;
mod caps;
mod clone;
mod dir;
mod epoll;
mod eventfd;
mod exec;
mod exit;
mod fanotify;
mod fcntl;
mod futex;
mod handle;
mod ids;
mod inotify;
mod ioctl;
mod machine;
mod memfd;
mod memory;
mod mount;
mod mount_fd;
mod mount_query;
mod mq;
mod msg;
mod name;
mod namespace;
mod numa;
mod open;
#[cfg(test)]
mod page;
mod pidfd;
mod pipe;
mod poll;
mod prctl;
mod ptrace;
mod read_write;
mod refused;
mod rlimit;
mod sched;
mod seccomp;
mod sem;
mod shm;
mod signal;
mod signalfd;
mod socket;
mod socket_msg;
mod splice;
mod stat;
mod sync;
mod system;
mod table;
mod time;
mod timer;
mod timerfd;
mod trace;
mod wait;
mod xattr;

pub use args::Arg;
pub use kernel::gap::NAMES as GAPS;
pub use refused::{REFUSED, Refused};
pub use table::{TABLE, dispatch};
pub use trace::{Entry, describe_call, describe_result};
