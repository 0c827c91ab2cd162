//! The TCP/IP stack of a network namespace. It knows nothing of the sentry: no guest memory, no tasks, no
//! system calls. Errors, events and clocks are its own types, which the embedder translates.
//!
//! Sockets inside one stack reach each other without packets (`local`); what leaves the stack goes
//! through the packet engine (`engine`).
#![forbid(unsafe_code)]

mod addr;
mod buf;
mod counters;
pub mod datagram;
pub mod engine;
mod env;
mod error;
pub mod extensions;
mod interface;
mod lengths;
mod local;
mod neighbours;
pub mod options;
mod ports;
pub mod raw;
pub mod reuse;
pub mod sieve;
mod stack;
mod tapped;
pub mod tcp;
pub mod udp;
mod wire;

pub use addr::{Endpoint, Family, broadcast_of, canonical, same_prefix, unspecified};
pub use buf::{Buf, Ledger, PIECE, Pool};
pub use engine::link::Mac;
pub use engine::neighbour::{Change as NeighbourChange, NeighbourState};
pub use engine::net::{FamilyStats, Kinds, Stats};
pub use env::{Env, Events, Waker};
pub use error::{NetError, Result};
pub use interface::{IfAddr, Interface, Interfaces, LOOPBACK, Route, RouteLine, Traffic};
pub use neighbours::{NeighbourLine, fixed as fixed_neighbour};
pub use stack::{BindOptions, RawWire, Relay, Stack, Wire};
pub use tapped::Tapped;
pub use wire::{Alarm, Attachment, PacketWire};
