//! Taps: packet sockets (packet(7)) see the frames of links, on their way in before the engine looks at
//! them and on their way out as the link gets them.

use std::sync::Arc;

use super::chunk::Chunk;
use super::events::Event;
use super::frame::{RxChecksum, RxFrame, TxFrame};
use super::link::{Mac, Medium};
use super::net::Net;
use super::time::Time;

/// For whom a frame is, with the numbers of `PACKET_HOST` and kin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    Host = 0,
    Broadcast = 1,
    Multicast = 2,
    OtherHost = 3,
    Outgoing = 4,
}

/// A frame that a tap sees.
#[derive(Clone, Debug)]
pub struct SeenFrame {
    pub interface: u32,
    pub kind: FrameKind,
    /// The EtherType.
    pub protocol: u16,
    /// From the link's header on.
    pub data: Chunk,
    /// Bytes of the link's header.
    pub header: usize,
    pub arrived: Time,
    /// Payload bytes of each segment, of a frame that holds several.
    pub segment: Option<u16>,
    /// Its transport checksum is not filled (`TP_STATUS_CSUMNOTREADY`).
    pub unsummed: bool,
}

/// Takes frames; called without the engine's lock.
pub trait FrameSink: Send + Sync {
    fn frame(&self, frame: SeenFrame);
}

/// What a tap wants to see.
#[derive(Clone, Copy, Debug, Default)]
pub struct TapFilter {
    /// None: all interfaces.
    pub interface: Option<u32>,
    /// The EtherType; none: all. Only those of all see what is sent (as Linux).
    pub protocol: Option<u16>,
}

struct Tap {
    id: u64,
    filter: TapFilter,
    sink: Arc<dyn FrameSink>,
}

/// All taps.
#[derive(Default)]
pub struct Taps {
    list: Vec<Tap>,
    next: u64,
}

impl Taps {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn add(&mut self, filter: TapFilter, sink: Arc<dyn FrameSink>) -> u64 {
        self.next += 1;
        self.list.push(Tap { id: self.next, filter, sink });
        self.next
    }

    pub fn change(&mut self, id: u64, filter: TapFilter) {
        if let Some(tap) = self.list.iter_mut().find(|tap| tap.id == id) {
            tap.filter = filter;
        }
    }

    pub fn remove(&mut self, id: u64) {
        self.list.retain(|tap| tap.id != id);
    }

    fn show(&self, frame: &SeenFrame, events: &mut Vec<Event>) {
        for tap in &self.list {
            let TapFilter { interface, protocol } = tap.filter;
            let outgoing = frame.kind == FrameKind::Outgoing;
            if interface.is_none_or(|index| index == frame.interface)
                && protocol.is_none_or(|wanted| wanted == frame.protocol && !outgoing)
            {
                events.push(Event::Frame(tap.sink.clone(), frame.clone()));
            }
        }
    }
}

impl Net {
    /// The link header's length and the EtherType of a frame.
    fn kind_of(&self, interface: u32, bytes: &[u8]) -> Option<(usize, u16)> {
        if self.interface(interface)?.medium == Medium::Ethernet {
            return Some((14, u16::from_be_bytes([*bytes.get(12)?, *bytes.get(13)?])));
        }
        Some((0, if bytes.first()? >> 4 == 6 { 0x86dd } else { 0x0800 }))
    }

    pub(super) fn show_received(&mut self, interface: u32, frame: &RxFrame) {
        let Some((header, protocol)) = self.kind_of(interface, &frame.data) else { return };
        let own = self.interface(interface).map_or(Mac::default(), |i| i.mac);
        let kind = match frame.data.get(..6).filter(|_| header > 0).map(Mac::from_bytes) {
            None => FrameKind::Host,
            Some(to) if to == own => FrameKind::Host,
            Some(to) if to.is_broadcast() => FrameKind::Broadcast,
            Some(to) if to.is_multicast() => FrameKind::Multicast,
            Some(_) => FrameKind::OtherHost,
        };
        let seen = SeenFrame {
            interface,
            kind,
            protocol,
            data: frame.data.clone(),
            header,
            arrived: self.now,
            segment: frame.segment,
            // What the link vouches for may have come from this very machine without a sum.
            unsummed: frame.checksum == RxChecksum::Valid,
        };
        self.taps.show(&seen, &mut self.events);
    }

    pub(super) fn show_sent(&mut self, interface: u32, frame: &TxFrame) {
        let data = Chunk::from(frame.flatten());
        let Some((header, protocol)) = self.kind_of(interface, &data) else { return };
        let seen = SeenFrame {
            interface,
            kind: FrameKind::Outgoing,
            protocol,
            data,
            header,
            arrived: self.now,
            segment: frame.segmentation.map(|cut| cut.size),
            unsummed: frame.checksum_offload().is_some(),
        };
        self.taps.show(&seen, &mut self.events);
    }
}
