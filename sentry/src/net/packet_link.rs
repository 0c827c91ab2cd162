//! A link of the packet engine over a packet socket. Frames leave by one gathering write each, payload
//! straight from the buffers that the guest's bytes were copied to; a TCP frame may hold 64 KiB.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netstack::engine::chunk::Chunk;
use netstack::engine::frame::{RxChecksum, RxFrame, SegmentKind, TxFrame};
use netstack::engine::link::{Capabilities, LinkEndpoint, Mac, Medium};
use netstack::{Buf, Pool};

use platform::later::{self, Work};

use super::hostsys::packet::{self, VnetHeader};

/// Frames that wait to be written; more are dropped, as a full transmit queue does.
const QUEUE: usize = 1024;
/// Frames read, or written, in one go.
const BATCH: usize = 64;
/// So many frames may wait until a guest goes on; with more of them the other end has waited long enough.
const LATER: usize = 4;

/// Frames from this size on keep the buffer that they were read into; smaller ones are copied, so that what waits in a
/// socket's queue does not hold much more memory than it has bytes.
const KEPT: usize = 16 << 10;

/// Buffers for frames to be read into.
#[derive(Debug)]
pub struct Room {
    pool: Arc<Pool>,
    next: Option<Buf>,
}

/// A place in the headers of a frame, which are short.
fn place(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

impl Default for Room {
    fn default() -> Room {
        Room { pool: Arc::new(Pool::of(packet::FRAME)), next: None }
    }
}

/// One interface of the host's namespace.
pub struct PacketLink {
    way_out: Arc<WayOut>,
    mtu: usize,
    mac: [u8; 6],
}

/// Where frames leave.
struct WayOut {
    fd: Arc<OwnedFd>,
    queue: Mutex<VecDeque<TxFrame>>,
    /// Somebody writes frames: one at a time does, so that they keep their order.
    writing: AtomicBool,
}

impl PacketLink {
    pub fn new(fd: Arc<OwnedFd>, mtu: usize, mac: [u8; 6]) -> PacketLink {
        let way_out = WayOut { fd, queue: Mutex::default(), writing: AtomicBool::new(false) };
        PacketLink { way_out: Arc::new(way_out), mtu, mac }
    }

    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.way_out.fd
    }

    /// Frames that have arrived, some of them.
    pub fn receive(&self, room: &mut Room, mut take: impl FnMut(RxFrame)) -> std::io::Result<usize> {
        for count in 0..BATCH {
            let mut buf = room.next.take().unwrap_or_else(|| room.pool.get(packet::FRAME));
            let Some((header, length)) = packet::receive(&**self.fd(), buf.bytes_mut())? else {
                room.next = Some(buf);
                return Ok(count);
            };
            let data = if length >= KEPT {
                buf.truncate(length);
                Chunk::from(buf)
            } else {
                let copy = buf.bytes().get(..length).unwrap_or_default().into();
                room.next = Some(buf);
                copy
            };
            let valid = header.flags & (packet::NEEDS_CHECKSUM | packet::CHECKSUM_VALID) != 0;
            take(RxFrame {
                data,
                checksum: if valid { RxChecksum::Valid } else { RxChecksum::Unknown },
                segment: (header.gso != 0 && header.size != 0).then_some(header.size),
            });
        }
        Ok(BATCH)
    }
}

impl WayOut {
    fn queue(&self) -> MutexGuard<'_, VecDeque<TxFrame>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, frame: &TxFrame) {
        let mut header = VnetHeader::default();
        if let Some((start, offset)) = frame.checksum_offload() {
            header.flags = packet::NEEDS_CHECKSUM;
            header.csum_start = place(start);
            header.csum_offset = place(offset);
        }
        if let Some(cut) = frame.segmentation {
            header.gso = match cut.kind {
                SegmentKind::Tcp4 => packet::GSO_TCP4,
                SegmentKind::Tcp6 => packet::GSO_TCP6,
                SegmentKind::Udp => packet::GSO_UDP,
            };
            header.size = cut.size;
            header.header = place(frame.header_len());
        }
        // What the host does not take (no buffers, interface down) is lost, as on any link.
        if frame.body.len() > 60 {
            let _ = packet::send(&*self.fd, header, &[&frame.flatten()]);
            return;
        }
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(frame.body.len() + 1);
        pieces.push(frame.head());
        pieces.extend(frame.body.iter().map(|chunk| &chunk[..]));
        let _ = packet::send(&*self.fd, header, &pieces);
    }
}

impl Work for WayOut {
    fn work(&self) {
        // Nobody waits for whoever writes: it looks again after it has stopped, and finds what came meanwhile.
        while !self.queue().is_empty() && !self.writing.swap(true, Ordering::AcqRel) {
            for _ in 0..BATCH {
                let Some(frame) = self.queue().pop_front() else { break };
                self.write(&frame);
            }
            self.writing.store(false, Ordering::Release);
        }
    }
}

impl LinkEndpoint for PacketLink {
    fn transmit(&self, frame: TxFrame) {
        let mut queue = self.way_out.queue();
        if queue.len() < QUEUE {
            queue.push_back(frame);
        }
    }

    fn flush(&self) {
        let waiting = self.way_out.queue().len();
        if waiting != 0 && (waiting > LATER || !later::put_off(&self.way_out)) {
            self.way_out.work();
        }
    }

    fn medium(&self) -> Medium {
        Medium::Ethernet
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn mac(&self) -> Mac {
        Mac(self.mac)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { checksum: true, segmentation: 65_535, udp_segmentation: false }
    }
}
