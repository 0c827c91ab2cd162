//! Cases about sockets, one file for each subject; `kit` is what they share.

pub mod kit;

/// A table of cases that run for several kinds of addresses: `[v4 v6 mapped] NAME CALLS function;`.
macro_rules! nets {
    ($([$($net:ident)*] $name:literal $also:literal $f:ident;)*) => {
        &[$($($crate::case::case(
            concat!($name, "_", stringify!($net)),
            $also,
            || $f($crate::families::net::which!($net)),
        ),)*)*]
    };
}
macro_rules! which {
    (v4) => {
        $crate::families::net::kit::Net::V4
    };
    (v6) => {
        $crate::families::net::kit::Net::V6
    };
    (mapped) => {
        $crate::families::net::kit::Net::Mapped
    };
}
pub(crate) use which;

pub mod beginnings;
pub mod controls;
pub mod filters;
pub mod headers;
pub mod interfaces;
pub mod marks;
pub mod neighbours;
pub mod netlink;
pub mod options;
pub mod paths;
pub mod raw;
pub mod readiness;
pub mod reuse;
pub mod tables;
pub mod tcp_data;
pub mod tcp_open;
pub mod transfer;
pub mod tuning;
pub mod udp;
pub mod unix;
