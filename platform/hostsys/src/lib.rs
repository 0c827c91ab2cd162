//! Safe wrappers of the host calls this project makes, and of the memory it shares with guests.
//!
//! `unsafe` of the whole workspace lives here and in the platform crate. One module for each
//! subject; nothing here knows what a guest is beyond "memory that changes under our feet".

#![deny(clippy::undocumented_unsafe_blocks)]

pub mod account;
pub mod block;
pub mod caps;
pub mod clock;
pub mod datagram;
pub mod edges;
pub mod fault;
pub mod fd;
pub mod fsat;
pub mod futex;
pub mod hostfile;
pub mod inet;
pub mod machine;
pub mod memfile;
pub mod memgroup;
pub mod mountsys;
pub mod ns;
pub mod packet;
pub mod poller;
pub mod process;
pub mod rand;
pub mod rtnetlink;
pub mod seccomp;
pub mod signals;
pub mod socket;
pub mod steer;
pub mod stream;
pub mod tty;

pub use account::Account;
pub use block::Block;
pub use fault::Fault;
pub use hostfile::{AllocateMode, HostFile};
pub use memfile::{AllocOpts, FileRange, MemoryFile, NoMemory, PAGE, Trimmer};
pub use memgroup::MemoryGroup;
