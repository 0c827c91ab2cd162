//! TCP segments as they come in, and the headers of those that go out.

use std::net::IpAddr;

use smallvec::SmallVec;
use smoltcp::wire::{TcpOption, TcpPacket, TcpSeqNumber};

use super::super::checksum::Sum;
use super::super::chunk::Chunk;
use super::super::frame::{RxChecksum, TxFrame};
use super::super::net::{Packet, TCP, TcpFeatures};
use super::seq::Seq;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;

/// SACK blocks of one segment.
pub type Blocks = SmallVec<[(Seq, Seq); 4]>;

/// The options that matter.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub sack_permitted: bool,
    /// Value and echo.
    pub timestamp: Option<(u32, u32)>,
    pub sack: Blocks,
}

impl Options {
    fn parse(mut bytes: &[u8]) -> Options {
        let mut options = Options::default();
        while let Ok((rest, option)) = TcpOption::parse(bytes) {
            match option {
                TcpOption::EndOfList => break,
                TcpOption::MaxSegmentSize(mss) => options.mss = Some(mss),
                TcpOption::WindowScale(scale) => options.scale = Some(scale.min(14)),
                TcpOption::SackPermitted => options.sack_permitted = true,
                TcpOption::TimeStamp { tsval, tsecr } => options.timestamp = Some((tsval, tsecr)),
                TcpOption::SackRange(ranges) => {
                    options.sack = ranges.iter().flatten().map(|(from, to)| (Seq(*from), Seq(*to))).collect();
                }
                _ => {}
            }
            bytes = rest;
        }
        options
    }

    /// Forgets what is not to be spoken.
    pub fn restrict(&mut self, features: TcpFeatures) {
        self.timestamp = self.timestamp.filter(|_| features.timestamps);
        self.sack_permitted &= features.sack;
        self.scale = self.scale.filter(|_| features.scaling);
    }

    /// Bytes of the options in a header, a multiple of four.
    pub fn len(&self) -> usize {
        let mut length = 0;
        length += if self.mss.is_some() { 4 } else { 0 };
        length += if self.scale.is_some() { 4 } else { 0 };
        // Beside a timestamp the two bytes of SACK-permitted stand where padding would.
        length += if self.timestamp.is_some() { 12 } else { 0 };
        length += if self.sack_permitted && self.timestamp.is_none() { 4 } else { 0 };
        length += if self.sack.is_empty() { 0 } else { 4 + 8 * self.sack.len() };
        length
    }

    fn emit(&self, mut bytes: &mut [u8]) {
        bytes.fill(1);
        if let Some(mss) = self.mss {
            bytes = TcpOption::MaxSegmentSize(mss).emit(bytes);
        }
        match (self.sack_permitted, self.timestamp.is_some()) {
            (true, true) => bytes = TcpOption::SackPermitted.emit(bytes),
            (true, false) => bytes = &mut TcpOption::SackPermitted.emit(bytes)[2..],
            (false, true) => bytes = &mut bytes[2..],
            (false, false) => {}
        }
        if let Some((tsval, tsecr)) = self.timestamp {
            bytes = TcpOption::TimeStamp { tsval, tsecr }.emit(bytes);
        }
        if let Some(scale) = self.scale {
            bytes = TcpOption::WindowScale(scale).emit(&mut bytes[1..]);
        }
        if !self.sack.is_empty() {
            // The wire module knows three blocks; four fit if there is no timestamp.
            bytes[2] = 5;
            bytes[3] = (2 + 8 * self.sack.len()) as u8;
            for (number, (from, to)) in self.sack.iter().enumerate() {
                let at = 4 + number * 8;
                bytes[at..at + 4].copy_from_slice(&from.0.to_be_bytes());
                bytes[at + 4..at + 8].copy_from_slice(&to.0.to_be_bytes());
            }
        }
    }
}

/// A received segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Hops that its packet has left.
    pub hops: u8,
    pub source_port: u16,
    pub destination_port: u16,
    pub seq: Seq,
    pub ack: Seq,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    pub options: Options,
    pub data: Chunk,
    /// Segments that the link has joined to this one.
    pub joined: usize,
    /// Of a SYN: the headers, from the network's on.
    pub head: Option<Chunk>,
}

impl Segment {
    /// Reads the segment of a packet; none if it is malformed or damaged.
    pub fn parse(packet: &Packet) -> Option<Segment> {
        let bytes = packet.payload();
        let tcp = TcpPacket::new_checked(bytes).ok()?;
        if packet.checksum == RxChecksum::Unknown {
            let mut sum = Sum::pseudo(packet.source, packet.destination, TCP, bytes.len());
            sum.add(bytes);
            if !sum.intact() {
                return None;
            }
        }
        let header = usize::from(tcp.header_len());
        let data = packet.data.slice(packet.transport + header, packet.data.len());
        let joined = packet.segment.map_or(1, |size| data.len().div_ceil(usize::from(size).max(1)).max(1));
        Some(Segment {
            hops: packet.ttl,
            source_port: tcp.src_port(),
            destination_port: tcp.dst_port(),
            seq: Seq(tcp.seq_number().0 as u32),
            ack: Seq(tcp.ack_number().0 as u32),
            flags: bytes.get(13).copied().unwrap_or(0) & 0x3f,
            window: tcp.window_len(),
            urgent: tcp.urgent_at(),
            options: if header > 20 { Options::parse(tcp.options()) } else { Options::default() },
            data,
            joined,
            head: tcp.syn().then(|| packet.data.slice(0, packet.transport + header)),
        })
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence numbers that it occupies.
    pub fn len(&self) -> usize {
        self.data.len() + usize::from(self.has(SYN)) + usize::from(self.has(FIN))
    }

    pub fn end(&self) -> Seq {
        self.seq.plus(self.len())
    }
}

/// The header of a segment to be sent.
#[derive(Debug)]
pub struct Header {
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    pub seq: Seq,
    pub ack: Seq,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    pub options: Options,
}

impl Header {
    /// Puts the header in front of a frame's payload. The checksum is left to the link.
    pub fn push(&self, frame: &mut TxFrame) {
        let length = 20 + self.options.len();
        let payload = frame.body_len();
        let bytes = frame.push(length);
        if bytes.len() < length {
            return;
        }
        self.options.emit(&mut bytes[20..]);
        let mut tcp = TcpPacket::new_unchecked(&mut bytes[..]);
        tcp.set_src_port(self.source.1);
        tcp.set_dst_port(self.destination.1);
        tcp.set_seq_number(TcpSeqNumber(self.seq.0 as i32));
        tcp.set_ack_number(TcpSeqNumber(self.ack.0 as i32));
        tcp.clear_flags();
        tcp.set_header_len(length as u8);
        tcp.set_window_len(self.window);
        tcp.set_urgent_at(self.urgent);
        tcp.set_checksum(Sum::pseudo(self.source.0, self.destination.0, TCP, length + payload).partial());
        bytes[13] = self.flags;
        frame.mark_transport();
        frame.offload_checksum(16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(options: Options) -> Options {
        let mut bytes = vec![0; options.len()];
        assert_eq!(bytes.len() % 4, 0);
        options.emit(&mut bytes);
        Options::parse(&bytes)
    }

    #[test]
    fn options_survive() {
        let syn = Options {
            mss: Some(1460),
            scale: Some(7),
            sack_permitted: true,
            timestamp: Some((5, 6)),
            ..Options::default()
        };
        assert_eq!(syn.len(), 20);
        let read = back(syn);
        assert_eq!(
            (read.mss, read.scale, read.sack_permitted, read.timestamp),
            (Some(1460), Some(7), true, Some((5, 6)))
        );
        let read = back(Options { mss: Some(536), sack_permitted: true, ..Options::default() });
        assert_eq!((read.mss, read.scale, read.sack_permitted), (Some(536), None, true));
        let sack: Blocks =
            [(Seq(1), Seq(2)), (Seq(5), Seq(9)), (Seq(u32::MAX), Seq(3))].into_iter().collect();
        let read = back(Options { timestamp: Some((1, 2)), sack: sack.clone(), ..Options::default() });
        assert_eq!((read.timestamp, read.sack), (Some((1, 2)), sack));
    }
}
