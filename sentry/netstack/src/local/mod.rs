//! Traffic that does not leave the stack: buffers go from socket to socket, no packets are made.

pub(crate) mod stream;
pub(crate) mod syn;
pub mod terms;
