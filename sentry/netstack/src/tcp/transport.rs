//! What carries the bytes of a TCP connection: the local hand-over (`local::stream`) or packets (`engine`).
//! The socket above does not know which.

use crate::buf::Buf;
use crate::engine::tcp::{ConnOptions as StreamOptions, TcpInfo};
use crate::env::{Events, Waker};
use crate::error::{NetError, Result};
use crate::local::terms::Terms;
use std::sync::Arc;
use std::time::Duration;

/// States of RFC 9293, with the numbers of `TCP_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TcpState {
    Established = 1,
    SynSent = 2,
    SynReceived = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
}

/// How data is taken from a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct TakeHow {
    /// Leave the data there.
    pub peek: bool,
    /// Bytes to pass over first when peeking (`SO_PEEK_OFF`).
    pub skip: usize,
    /// The urgent byte is a byte like others (`SO_OOBINLINE`).
    pub inline_urgent: bool,
}

/// Data taken from a stream.
#[derive(Debug, Default)]
pub struct Taken {
    pub parts: Vec<Buf>,
    pub len: usize,
    /// The next byte is the urgent one: `MSG_WAITALL` stops here.
    pub at_mark: bool,
}

/// What becomes of the port when a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// The connection is gone, or the other side waits.
    Free,
    /// This side closed first: FIN-WAIT-2 or TIME-WAIT, for so long.
    Wait(Duration),
}

/// Counters of a connection for `TCP_INFO`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamCounts {
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub segments_sent: u64,
    pub segments_received: u64,
    /// Sent and not yet acknowledged.
    pub unacked: u64,
}

/// A connection as one of its sockets sees it. Nothing here blocks.
pub trait Transport: Send + Sync {
    fn state(&self) -> TcpState;
    /// Who is told of news of this end.
    fn set_waker(&self, waker: Arc<dyn Waker>);
    /// Room for at least one and at most `want` bytes, to be filled and given to `commit`. EAGAIN, the
    /// pending error, EPIPE.
    fn reserve(&self, want: usize) -> Result<usize>;
    /// Gives back `reserved` bytes of room and sends `data`; the last byte of it is `urgent`.
    fn commit(&self, reserved: usize, data: Option<Buf>, urgent: bool);
    /// Data, at most `max` bytes; nothing means the end of the stream. EAGAIN, the pending error.
    fn take(&self, max: usize, how: TakeHow) -> Result<Taken>;
    /// Data that could not be delivered goes back to the front.
    fn give_back(&self, parts: Vec<Buf>);
    /// The urgent byte (`MSG_OOB`); `None` at the end of the stream. EINVAL if there is none, EAGAIN.
    fn take_urgent(&self, peek: bool) -> Result<Option<u8>>;
    fn poll(&self, low: usize, inline_urgent: bool) -> Events;
    fn shutdown(&self, receive: bool, send: bool);
    /// The socket is gone; `abort` resets instead of finishing.
    fn close(&self, abort: bool) -> Parting;
    fn take_error(&self) -> Option<NetError>;
    /// Whether an error waits.
    fn has_error(&self) -> bool;
    /// Bytes that can be read (`SIOCINQ`).
    fn readable(&self, inline_urgent: bool) -> usize;
    /// Bytes that the other side has not acknowledged (`SIOCOUTQ`), and of them not sent.
    fn unsent(&self) -> (usize, usize);
    fn at_mark(&self) -> bool;
    /// Takes over what the socket's options say: sizes of buffers and, over packets, all else.
    fn configure(&self, options: &StreamOptions);
    /// What `TCP_INFO` tells; none for a connection that is not made of packets.
    fn info(&self) -> Option<TcpInfo> {
        None
    }
    fn counts(&self) -> StreamCounts;
    /// What the ends of a connection that is not made of packets would have agreed on.
    fn terms(&self) -> Option<Terms> {
        None
    }
    /// The segment that began the connection, if the listener was to keep it (`TCP_SAVED_SYN`): told once. EINVAL if there
    /// is less room.
    fn saved_syn(&self, _room: usize) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
    /// The clock of its timestamps (`TCP_TIMESTAMP`).
    fn timestamp(&self) -> Option<u32> {
        None
    }
    /// `TCP_QUICKACK`
    fn set_quick(&self, _on: bool) {}
    /// Whether acknowledgements come at once; none where there are no acknowledgements.
    fn is_quick(&self) -> Option<bool> {
        None
    }
    /// Whether both ends are in this stack.
    fn is_local(&self) -> bool;
}
