//! What the engine tells its users. Events are collected while the engine is locked and dispatched by
//! the embedder afterwards, so that no lock of a socket is ever taken below the engine's.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::extensions::Between;

use super::chunk::Chunk;
use super::error::PacketError;
use super::tap::{FrameSink, SeenFrame};
use super::tcp::ConnOptions;
use super::time::Time;

/// What a connection or listener is ready for (a bit set).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ready(pub u8);

impl Ready {
    pub const READ: Ready = Ready(1);
    pub const WRITE: Ready = Ready(2);
    /// The peer has shut down its direction.
    pub const READ_CLOSED: Ready = Ready(4);
    /// Both directions are over.
    pub const CLOSED: Ready = Ready(8);
    pub const ERROR: Ready = Ready(16);
    /// Urgent data.
    pub const URGENT: Ready = Ready(32);

    pub fn has(self, other: Ready) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for Ready {
    type Output = Ready;

    fn bitor(self, other: Ready) -> Ready {
        Ready(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Ready {
    fn bitor_assign(&mut self, other: Ready) {
        self.0 |= other.0;
    }
}

/// Who wants to know about a connection or listener.
pub trait Observer: Send + Sync {
    /// Something became ready (an edge: it may have been ready before).
    fn changed(&self, ready: Ready);
}

/// A datagram for a UDP, raw or ping endpoint.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub source: IpAddr,
    pub source_port: u16,
    pub destination: IpAddr,
    pub destination_port: u16,
    pub interface: u32,
    pub ttl: u8,
    pub tos: u8,
    /// The flow label of IPv6.
    pub flow: u32,
    /// The largest fragment it came in; 0: it came whole.
    pub fragment: u32,
    /// Options or extension headers.
    pub between: Option<Between>,
    pub payload: Chunk,
    /// For raw endpoints of IPv4: where the IP header ends within the payload.
    pub header: usize,
    pub arrived: Time,
    /// Payload bytes of each datagram if the link joined several.
    pub segment: Option<u16>,
}

/// Takes what arrives for an endpoint without a connection.
pub trait DatagramSink: Send + Sync {
    fn deliver(&self, datagram: Datagram);
    fn error(&self, error: &PacketError);
}

/// What the sockets above say of one that listens.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// There is room for one more connection.
    pub room: bool,
    /// What its connections begin with.
    pub options: ConnOptions,
}

/// The sockets above, asked when a packet is for nobody whom the engine itself knows. Called with the
/// engine's lock held: what is behind it must not call the engine.
pub trait Upper: DatagramSink {
    /// Whether somebody listens for connections there.
    fn listens(&self, local: SocketAddr, remote: SocketAddr, interface: u32) -> Option<Listening>;
    /// Whether a datagram would be taken by anybody.
    fn takes(&self, local: SocketAddr, remote: SocketAddr, interface: u32) -> bool;
    /// Whether a socket takes datagrams of IPv6 without a checksum.
    fn takes_unchecked(&self, _local: SocketAddr, _remote: SocketAddr, _interface: u32) -> bool {
        false
    }
}

/// One thing to tell.
pub enum Event {
    Ready(Arc<dyn Observer>, Ready),
    Datagram(Arc<dyn DatagramSink>, Datagram),
    Error(Arc<dyn DatagramSink>, PacketError),
    Frame(Arc<dyn FrameSink>, SeenFrame),
}

impl Event {
    pub fn dispatch(self) {
        match self {
            Event::Ready(observer, ready) => observer.changed(ready),
            Event::Datagram(sink, datagram) => sink.deliver(datagram),
            Event::Error(sink, error) => sink.error(&error),
            Event::Frame(sink, frame) => sink.frame(frame),
        }
    }
}
