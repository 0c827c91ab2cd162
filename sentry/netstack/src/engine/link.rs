//! What the engine asks of a link: frames are handed out here; what comes in is pushed into
//! `Engine::receive` by the embedder. A link must not call back into the engine.

use super::frame::TxFrame;

pub use smoltcp::wire::EthernetAddress as Mac;

/// The kind of a link's frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    Ethernet,
    /// Bare IP packets.
    Ip,
    /// Bare IP packets that come back to the same engine.
    Loopback,
}

/// What the link does for the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// Fills transport checksums.
    pub checksum: bool,
    /// Cuts TCP frames over the MTU into segments, up to this many bytes of IP packet; 0 if it does not.
    pub segmentation: usize,
    /// Cuts UDP frames too.
    pub udp_segmentation: bool,
}

/// One end of a link. Its attributes are asked once, when it is attached.
pub trait LinkEndpoint: Send + Sync {
    /// Queues a frame or drops it.
    fn transmit(&self, frame: TxFrame);

    /// Sends what is queued; called without the engine's lock.
    fn flush(&self) {}

    fn medium(&self) -> Medium;

    /// The largest IP packet.
    fn mtu(&self) -> usize;

    fn mac(&self) -> Mac {
        Mac::default()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}
