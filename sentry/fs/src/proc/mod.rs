//! proc(5): what the guest kernel tells about itself and its tasks.
//!
//! `system.rs` has the files of the root directory, `sys.rs` the settings, `process.rs` the directory of a
//! process, `stats.rs` what several of them count.

mod clocks;
mod fds;
mod mappings;
mod mounts;
mod net;
mod process;
mod root;
mod stats;
mod status;
mod sys;
mod system;
mod sysvipc;
mod uts;

pub use process::pid_of;
pub use root::new;
pub use sys::set_by_name;
