//! The file systems of the sentry and its files without names. They implement the VFS traits of
//! `kernel` and never know a system call.
#![forbid(unsafe_code)]
// Arguments of guests come through here: a number may only become a narrower one where it is said how. (Tests cast as they like.)
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
// Auto traits are followed through the VFS' types, which know each other in a wide circle.
#![recursion_limit = "256"]

pub mod anon;
pub mod cgroup;
pub mod console;
pub mod dev;
pub mod devpts;
pub mod epoll;
pub mod eventfd;
pub mod fanotify;
pub mod fifo;
pub mod gofer;
pub mod hostfd;
pub mod inotify;
mod mappings;
pub mod mountfd;
pub mod mqueue;
pub mod nsfs;
pub mod overlay;
pub mod pidfd;
pub mod pipe;
pub mod proc;
pub mod pseudo;
pub mod signalfd;
pub mod socket;
pub mod sysfs;
pub mod timerfd;
pub mod tmpfs;
pub mod tty;

use abi::siginfo::SigInfo;
use abi::signal::{Signal, code};
use kernel::vfs::Caller;

/// SIGPIPE for the caller: it wrote to something that nobody will read.
pub(crate) fn sigpipe(cx: &Caller<'_>) {
    if let Some(task) = cx.task {
        let pid = task.group().pid().number();
        task.send_signal(&SigInfo::user(Signal::SIGPIPE, code::SI_USER, pid, cx.creds.uid));
    }
}

/// Makes the kernel know what is implemented here: device drivers and FIFOs.
pub fn register(kernel: &kernel::Kernel) {
    dev::register(kernel);
}
