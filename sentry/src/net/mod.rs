//! The sandbox's link to the network namespace that the engine prepared: frames go through donated packet sockets
//! (`packet_link`), interfaces, addresses and routes are taken over and followed (`host_links`), Docker's name server
//! is reached (`name_server`), whoever looks for the guest at the namespace's 127.0.0.1 is let in (`front_door`), one thread waits for all of it (`runner`).

mod conversation;
mod donation;
mod front_door;
mod host_links;
mod name_server;
mod packet_link;
mod runner;
#[cfg(test)]
mod tests;

pub use ::fs::socket::host::settings::shown as settings;
pub use ::fs::socket::host::tables::NAMES as TABLES;
pub use donation::{CONVERSATIONS, DOORS, Donation, NameServer, Steered};
pub use name_server::ADDRESS as NAME_SERVER;
pub use packet_link::PacketLink;
use platform::hostsys;
pub use runner::{show, start};
