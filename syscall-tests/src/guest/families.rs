//! The families of cases, one file each.

use crate::case::Case;

mod attacks;
mod attr;
mod code;
mod corners;
mod counts;
mod fanotify;
mod fds;
mod futexes;
mod helpers;
mod identity;
mod io;
mod ipc;
mod kernel;
mod memory;
mod moves;
mod names;
mod net;
mod notify;
mod often;
mod pipes;
mod polling;
mod process;
mod queues;
mod signals;
mod sockets;
mod system;
mod time;
mod ttys;

pub use helpers::helper;

/// Every family with its cases.
pub const FAMILIES: &[(&str, &[Case])] = &[
    ("io", io::CASES),
    ("names", names::CASES),
    ("attr", attr::CASES),
    ("moves", moves::CASES),
    ("fds", fds::CASES),
    ("signals", signals::CASES),
    ("identity", identity::CASES),
    ("process", process::CASES),
    ("memory", memory::CASES),
    ("time", time::CASES),
    ("polling", polling::CASES),
    ("futexes", futexes::CASES),
    ("pipes", pipes::CASES),
    ("ttys", ttys::CASES),
    ("sockets", sockets::CASES),
    ("tcp", net::tcp_open::CASES),
    ("tcp", net::tcp_open::NETS),
    ("tcp", net::tcp_data::CASES),
    ("tcp", net::tcp_data::NETS),
    ("udp", net::udp::CASES),
    ("udp", net::udp::NETS),
    ("marks", net::marks::NETS),
    ("marks", net::marks::CASES),
    ("reuse", net::reuse::NETS),
    ("reuse", net::reuse::CASES),
    ("beginnings", net::beginnings::NETS),
    ("beginnings", net::beginnings::CASES),
    ("tuning", net::tuning::NETS),
    ("tuning", net::tuning::CASES),
    ("sockopts", net::options::CASES),
    ("controls", net::controls::CASES),
    ("filters", net::filters::CASES),
    ("readiness", net::readiness::CASES),
    ("readiness", net::readiness::NETS),
    ("transfer", net::transfer::CASES),
    ("unix", net::unix::CASES),
    ("paths", net::paths::CASES),
    ("headers", net::headers::CASES),
    ("raw", net::raw::CASES),
    ("netlink", net::netlink::CASES),
    ("diag", net::netlink::SOCKETS),
    ("netlink", net::neighbours::CASES),
    ("net", net::interfaces::CASES),
    ("net", net::tables::CASES),
    ("ipc", ipc::CASES),
    ("notify", notify::CASES),
    ("fanotify", fanotify::CASES),
    ("queues", queues::CASES),
    ("kernel", kernel::CASES),
    ("counts", counts::CASES),
    ("corners", corners::CASES),
    ("often", often::CASES),
    ("code", code::CASES),
    ("attacks", attacks::CASES),
    ("system", system::CASES),
];
