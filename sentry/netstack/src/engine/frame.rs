//! Frames on their way out (headers in place, payload by reference) and in.

use smallvec::SmallVec;

use super::checksum::Sum;
use super::chunk::Chunk;

/// Room for the headers of one frame: Ethernet, IPv6 with extensions, TCP with all options.
pub const HEAD: usize = 192;

/// The payload of a frame.
pub type Body = SmallVec<[Chunk; 3]>;

/// What a link with segmentation offload shall cut the frame into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segmentation {
    pub kind: SegmentKind,
    /// Payload bytes of each segment.
    pub size: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    Tcp4,
    Tcp6,
    Udp,
}

/// A frame to be sent. Headers are pushed in front of each other, from the transport's outwards.
#[derive(Clone)]
pub struct TxFrame {
    head: [u8; HEAD],
    start: usize,
    /// Where the transport header begins in `head`.
    transport: usize,
    /// Offset of the checksum field from the transport header, if the link shall fill it: the field
    /// then has the sum of the pseudo header.
    checksum: Option<u16>,
    pub segmentation: Option<Segmentation>,
    pub body: Body,
}

impl Default for TxFrame {
    fn default() -> TxFrame {
        TxFrame {
            head: [0; HEAD],
            start: HEAD,
            transport: HEAD,
            checksum: None,
            segmentation: None,
            body: Body::new(),
        }
    }
}

impl TxFrame {
    /// A frame of this payload and no header yet.
    pub fn with_body(chunk: Chunk) -> TxFrame {
        let mut frame = TxFrame::default();
        if !chunk.is_empty() {
            frame.body.push(chunk);
        }
        frame
    }

    /// Makes room for a header in front of what is there. It is zeroed.
    pub fn push(&mut self, length: usize) -> &mut [u8] {
        let end = self.start;
        self.start = end.saturating_sub(length);
        &mut self.head[self.start..end]
    }

    /// Takes a header off again.
    pub fn pull(&mut self, length: usize) {
        self.start = (self.start + length).min(HEAD);
    }

    /// Room that is left for headers.
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Notes that the header in front now is the transport's.
    pub fn mark_transport(&mut self) {
        self.transport = self.start;
    }

    pub fn head(&self) -> &[u8] {
        &self.head[self.start..]
    }

    pub fn head_mut(&mut self) -> &mut [u8] {
        &mut self.head[self.start..]
    }

    pub fn body_len(&self) -> usize {
        self.body.iter().map(|chunk| chunk.len()).sum()
    }

    pub fn len(&self) -> usize {
        HEAD - self.start + self.body_len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all headers, the transport's included.
    pub fn header_len(&self) -> usize {
        HEAD - self.start
    }

    /// Where the checksum begins and its field's offset from there, if the link shall fill it.
    pub fn checksum_offload(&self) -> Option<(usize, usize)> {
        self.checksum.map(|offset| (self.transport - self.start, usize::from(offset)))
    }

    /// Leaves the checksum to the link: `field` holds the pseudo header's sum already.
    pub fn offload_checksum(&mut self, field: u16) {
        self.checksum = Some(field);
    }

    /// The sum of the transport header and the payload, added to `sum`.
    pub fn add_to(&self, mut sum: Sum) -> Sum {
        sum.add(&self.head[self.transport..]);
        for chunk in &self.body {
            sum.add(chunk);
        }
        sum
    }

    /// Fills a checksum that was left to the link.
    pub fn finish_checksum(&mut self) {
        if let Some(field) = self.checksum.take() {
            let sum = self.add_to(Sum::default()).finish();
            let at = self.transport + usize::from(field);
            if let Some(place) = self.head.get_mut(at..at + 2) {
                place.copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
            }
        }
    }

    /// All bytes in one piece.
    pub fn flatten(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        bytes.extend_from_slice(self.head());
        for chunk in &self.body {
            bytes.extend_from_slice(chunk);
        }
        bytes
    }
}

impl std::fmt::Debug for TxFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TxFrame({} + {} bytes)", self.header_len(), self.body_len())
    }
}

/// What a link knows about the transport checksum of a received frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RxChecksum {
    /// The engine has to look.
    #[default]
    Unknown,
    /// Verified, or never left this machine.
    Valid,
}

/// A received frame, beginning with the link's header.
#[derive(Clone, Debug, Default)]
pub struct RxFrame {
    pub data: Chunk,
    pub checksum: RxChecksum,
    /// Payload bytes of each segment if the link joined several.
    pub segment: Option<u16>,
}

impl From<Vec<u8>> for RxFrame {
    fn from(data: Vec<u8>) -> RxFrame {
        RxFrame { data: data.into(), ..RxFrame::default() }
    }
}
