//! The language between the sentry and its gofer.
//!
//! What lives here: the fixed-layout messages, their codec, and the limits both ends keep. What does
//! not: sockets and descriptors (each end has its own transport code), and any decision about
//! what a request may do (that is the server's).
//!
//! # Transport
//! A channel is a `SOCK_SEQPACKET` socket pair: one packet is one message, so there is no framing to
//! get wrong. A channel carries one request at a time and its reply; a client with several threads
//! asks for more channels ([`Op::Channel`]) and keeps them in a pool, so that neither side needs to match
//! replies to requests. The sequence number in the header only catches a client that lost its place.
//! A reply carries at most one descriptor, as `SCM_RIGHTS`. Requests never carry any.
//!
//! # Message
//! `RequestHeader`, the fixed body of that operation, then its tail: names (`u16` length, bytes), byte
//! strings (`u32` length, bytes) or an array of fixed structures. Replies: `ReplyHeader`, and if its
//! `errno` is zero the body and tail. All integers have the machine's byte order: both ends are the same program.
//!
//! # Naming files
//! A [`Node`] is a handle, or a handle of a directory and one name below it. The second form needs no open
//! file in the server, so that a client may know a million files and hold open a hundred.
//! `Node::ino` (0: do not check) lets the server refuse (`ESTALE`) a name that now means another file.
#![forbid(unsafe_code)]

pub mod codec;
pub mod message;

pub use codec::{Malformed, Name, Reader, Writer};
pub use message::*;
