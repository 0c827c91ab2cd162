//! Reassembly of fragments (RFC 791, RFC 8200), with limits on bytes and time. Overlaps end the whole
//! packet, for IPv6 as RFC 5722 demands, for IPv4 as Linux does since 4.20.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::chunk::Chunk;
use super::time::Time;

/// Bytes of all packets that are not complete (Linux's ipfrag_high_thresh).
const MOST_BYTES: usize = 4 << 20;
/// Fragments of one packet.
const MOST_FRAGMENTS: usize = 1024;
/// Linux's ipfrag_time; for IPv6 RFC 8200 wants 60 s.
const TIME4: Duration = Duration::from_secs(30);
const TIME6: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub identification: u32,
    pub protocol: u8,
    pub interface: u32,
}

#[derive(Debug)]
struct Queue {
    /// Header of the first fragment, from the network header to the fragmentable part.
    header: Option<Chunk>,
    /// Next-header of the fragmentable part, by the first fragment.
    protocol: u8,
    pieces: BTreeMap<usize, Chunk>,
    received: usize,
    /// The largest fragment with its headers.
    largest: usize,
    /// Length of the whole, once the last fragment is there.
    total: Option<usize>,
    until: Time,
    held: usize,
}

/// A fragment.
#[derive(Debug)]
pub struct Fragment {
    pub header: Chunk,
    pub protocol: u8,
    pub offset: usize,
    pub more: bool,
    pub data: Chunk,
}

/// A packet in one piece again: the header of the first fragment and the whole payload.
#[derive(Debug)]
pub struct Whole {
    pub header: Chunk,
    pub protocol: u8,
    pub data: Vec<u8>,
    /// Bytes of the largest fragment with its headers.
    pub largest: u32,
}

#[derive(Default, Debug)]
pub struct Reassembly {
    queues: BTreeMap<Key, Queue>,
    held: usize,
    pub timer: Option<Time>,
}

impl Reassembly {
    /// Adds a fragment. An error means that the fragment's packet was given up.
    pub fn add(&mut self, key: Key, fragment: Fragment, now: Time) -> Result<Option<Whole>, ()> {
        let end = fragment.offset + fragment.data.len();
        if fragment.data.is_empty() || end > 65535 || (fragment.more && fragment.data.len() % 8 != 0) {
            self.drop_queue(&key);
            return Err(());
        }
        // The fragment's own bytes are kept, not the buffer of the link that it came in.
        let data = if fragment.data.held() > 2 * fragment.data.len() + 512 {
            Chunk::from(&fragment.data[..])
        } else {
            fragment.data
        };
        let cost = data.held() + 128;
        while self.held + cost > MOST_BYTES {
            let Some(oldest) = self.queues.iter().min_by_key(|(_, queue)| queue.until).map(|(key, _)| *key)
            else {
                return Err(());
            };
            self.drop_queue(&oldest);
        }
        let life = if key.source.is_ipv4() { TIME4 } else { TIME6 };
        let queue = self.queues.entry(key).or_insert_with(|| Queue {
            header: None,
            protocol: fragment.protocol,
            pieces: BTreeMap::new(),
            received: 0,
            largest: 0,
            total: None,
            until: now + life,
            held: 0,
        });
        let before = queue.pieces.range(..=fragment.offset).next_back();
        let duplicate = before.is_some_and(|(at, piece)| *at == fragment.offset && piece.len() == data.len());
        if duplicate {
            return Ok(None);
        }
        let overlaps = before.is_some_and(|(at, piece)| at + piece.len() > fragment.offset)
            || queue.pieces.range(fragment.offset..end).next().is_some();
        let last = !fragment.more;
        let beyond = queue.total.is_some_and(|total| end > total || (last && end != total))
            || (last && queue.pieces.last_key_value().is_some_and(|(at, piece)| at + piece.len() > end));
        if overlaps || beyond || queue.pieces.len() >= MOST_FRAGMENTS {
            self.drop_queue(&key);
            return Err(());
        }
        if last {
            queue.total = Some(end);
        }
        if fragment.offset == 0 {
            queue.header = Some(Chunk::from(&fragment.header[..]));
            queue.protocol = fragment.protocol;
        }
        queue.received += data.len();
        // A fragment of IPv6 has a header that the whole has not.
        let headers = fragment.header.len() + if key.source.is_ipv4() { 0 } else { 8 };
        queue.largest = queue.largest.max(headers + data.len());
        queue.held += cost;
        self.held += cost;
        queue.pieces.insert(fragment.offset, data);
        if queue.total != Some(queue.received) {
            return Ok(None);
        }
        let Some(queue) = self.queues.remove(&key) else { return Ok(None) };
        self.held = self.held.saturating_sub(queue.held);
        let Some(header) = queue.header else { return Err(()) };
        let mut data = Vec::with_capacity(queue.received);
        for piece in queue.pieces.values() {
            data.extend_from_slice(piece);
        }
        let largest = u32::try_from(queue.largest).unwrap_or(u32::MAX);
        Ok(Some(Whole { header, protocol: queue.protocol, data, largest }))
    }

    fn drop_queue(&mut self, key: &Key) {
        if let Some(queue) = self.queues.remove(key) {
            self.held = self.held.saturating_sub(queue.held);
        }
    }

    pub fn next(&self) -> Option<Time> {
        self.queues.values().map(|queue| queue.until).min()
    }

    /// Drops what is too old. Returns, of packets whose first fragment was there, its key, header and first bytes.
    pub fn expire(&mut self, now: Time) -> Vec<(Key, Chunk, Chunk)> {
        let old: Vec<Key> = self.queues.iter().filter(|(_, q)| q.until <= now).map(|(key, _)| *key).collect();
        let mut first = Vec::new();
        for key in old {
            if let Some(queue) = self.queues.get(&key)
                && let (Some(header), Some(piece)) = (&queue.header, queue.pieces.get(&0))
            {
                first.push((key, header.clone(), piece.clone()));
            }
            self.drop_queue(&key);
        }
        first
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn key(identification: u32) -> Key {
        let ip = Ipv4Addr::LOCALHOST.into();
        Key { source: ip, destination: ip, identification, protocol: 17, interface: 1 }
    }

    fn piece(offset: usize, length: usize, more: bool) -> Fragment {
        let data: Vec<u8> = (offset..offset + length).map(|n| n as u8).collect();
        Fragment { header: Chunk::from(vec![0x45; 20]), protocol: 17, offset, more, data: data.into() }
    }

    #[test]
    fn any_order_once() {
        let mut table = Reassembly::default();
        assert!(table.add(key(1), piece(16, 5, false), Time(0)).is_ok_and(|w| w.is_none()));
        assert!(table.add(key(1), piece(0, 8, true), Time(0)).is_ok_and(|w| w.is_none()));
        assert!(table.add(key(1), piece(0, 8, true), Time(0)).is_ok_and(|w| w.is_none()));
        let whole = table.add(key(1), piece(8, 8, true), Time(0)).ok().flatten();
        assert_eq!(whole.map(|w| w.data), Some((0..21).collect()));
        assert_eq!((table.held(), table.next()), (0, None));
    }

    #[test]
    fn overlaps_and_age_end_a_packet() {
        let mut table = Reassembly::default();
        assert!(table.add(key(1), piece(0, 16, true), Time(0)).is_ok());
        assert!(table.add(key(1), piece(8, 16, true), Time(0)).is_err());
        assert_eq!(table.held(), 0);
        assert!(table.add(key(2), piece(0, 16, true), Time(0)).is_ok());
        assert_eq!(table.next(), Some(Time(0) + TIME4));
        assert_eq!(table.expire(Time(0) + TIME4).len(), 1);
        assert_eq!(table.held(), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut table = Reassembly::default();
        for n in 0..20_000 {
            let _ = table.add(key(n), piece(0, 1480, true), Time(u64::from(n)));
            assert!(table.held() <= MOST_BYTES);
        }
    }
}
