//! Data that came before what precedes it, and the blocks that tell the peer of it.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::super::chunk::Chunk;

/// Pieces out of order; more are dropped (the peer sends them again).
const MOST_PIECES: usize = 4096;

/// Pieces by their position in the stream.
#[derive(Debug, Default)]
pub struct Assembler {
    pieces: BTreeMap<u64, Chunk>,
    bytes: usize,
    /// Ranges to report, the most recent first.
    recent: SmallVec<[(u64, u64); 4]>,
}

impl Assembler {
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a piece; what is there already is not taken again. Returns the range if all of it was there.
    pub fn insert(&mut self, at: u64, chunk: Chunk) -> Option<(u64, u64)> {
        let (start, end) = (at, at + chunk.len() as u64);
        let mut position = at;
        let mut fresh = false;
        let mut chunk = if chunk.held() > 4 * chunk.len() + 1024 { Chunk::from(&chunk[..]) } else { chunk };
        while position < end && self.pieces.len() < MOST_PIECES {
            let before = self.pieces.range(..=position).next_back();
            if let Some((from, piece)) = before
                && from + piece.len() as u64 > position
            {
                let covered = (from + piece.len() as u64).min(end);
                chunk.advance((covered - position) as usize);
                position = covered;
                continue;
            }
            let stop = self.pieces.range(position..end).next().map_or(end, |(from, _)| *from);
            let part = chunk.slice(0, (stop - position) as usize);
            self.bytes += part.len();
            chunk.advance(part.len());
            self.pieces.insert(position, part);
            position = stop;
            fresh = true;
        }
        self.report(start, end);
        (!fresh).then_some((start, end))
    }

    /// The range around the newest piece goes to the front of what is reported.
    fn report(&mut self, start: u64, end: u64) {
        let (mut from, mut to) = (start, end);
        while let Some((at, piece)) = self.pieces.range(..from).next_back()
            && at + piece.len() as u64 >= from
        {
            from = *at;
        }
        while let Some((at, piece)) = self.pieces.range(..=to).next_back()
            && at + piece.len() as u64 > to
        {
            to = at + piece.len() as u64;
        }
        self.recent.retain(|(a, b)| *b < from || *a > to);
        self.recent.insert(0, (from, to));
        self.recent.truncate(4);
    }

    /// The piece that begins at (or before) `position`, cut to what is new.
    pub fn next(&mut self, position: u64) -> Option<Chunk> {
        while let Some(first) = self.pieces.first_entry() {
            if *first.key() > position {
                return None;
            }
            let at = *first.key();
            let mut chunk = first.remove();
            self.bytes = self.bytes.saturating_sub(chunk.len());
            chunk.advance((position - at) as usize);
            if !chunk.is_empty() {
                return Some(chunk);
            }
        }
        None
    }

    /// The ranges to report beyond `position`.
    pub fn ranges(&mut self, position: u64) -> &[(u64, u64)] {
        self.recent.retain(|(_, to)| *to > position);
        &self.recent
    }

    pub fn clear(&mut self) {
        self.pieces.clear();
        self.recent.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(from: u64, to: u64) -> Chunk {
        (from..to).map(|n| n as u8).collect::<Vec<u8>>().into()
    }

    #[test]
    fn overlaps_come_out_once_and_in_order() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.insert(10, piece(10, 20)), None);
        assert_eq!(assembler.insert(30, piece(30, 40)), None);
        assert_eq!(assembler.ranges(0), &[(30, 40), (10, 20)]);
        assert_eq!(assembler.insert(5, piece(5, 35)), None);
        assert_eq!(assembler.ranges(0), &[(5, 40)]);
        assert_eq!(assembler.insert(12, piece(12, 14)), Some((12, 14)));
        assert_eq!(assembler.bytes(), 35);
        assert!(assembler.next(4).is_none());
        let mut position = 7;
        while let Some(chunk) = assembler.next(position) {
            assert!(chunk.iter().zip(position..).all(|(byte, n)| *byte == n as u8));
            position += chunk.len() as u64;
        }
        assert_eq!((position, assembler.bytes()), (40, 0));
    }
}
