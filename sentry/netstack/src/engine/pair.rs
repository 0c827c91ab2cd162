//! Two ends of a link in memory, with loss, delay, reordering and duplication by a seeded generator:
//! for tests. The frames that are ready are taken by whoever drives the engines.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::frame::{RxChecksum, RxFrame, TxFrame};
use super::link::{Capabilities, LinkEndpoint, Mac, Medium};
use super::random::SeededRandom;
use super::time::Time;

/// What happens to frames; probabilities in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Impairment {
    pub loss: u64,
    pub duplicate: u64,
    pub reorder: u64,
    /// Flips a byte.
    pub corrupt: u64,
    pub delay: Duration,
    pub jitter: Duration,
}

struct Wire {
    random: SeededRandom,
    impairment: Impairment,
    now: Time,
    /// Frames on the way, for each of the two ends.
    queues: [BTreeMap<(Time, u64), RxFrame>; 2],
    sequence: u64,
    sent: [u64; 2],
}

/// The link between two ends.
#[derive(Clone)]
pub struct PairLink {
    wire: Arc<Mutex<Wire>>,
    mtu: usize,
    capabilities: Capabilities,
    medium: Medium,
}

/// One end.
pub struct PairEnd {
    link: PairLink,
    side: usize,
}

impl PairLink {
    pub fn new(
        seed: u64,
        mtu: usize,
        medium: Medium,
        capabilities: Capabilities,
        impairment: Impairment,
    ) -> PairLink {
        let wire = Wire {
            random: SeededRandom::new(seed),
            impairment,
            now: Time(0),
            queues: [BTreeMap::new(), BTreeMap::new()],
            sequence: 0,
            sent: [0, 0],
        };
        PairLink { wire: Arc::new(Mutex::new(wire)), mtu, capabilities, medium }
    }

    fn wire(&self) -> std::sync::MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn end(&self, side: usize) -> Arc<PairEnd> {
        Arc::new(PairEnd { link: self.clone(), side: side & 1 })
    }

    pub fn set_impairment(&self, impairment: Impairment) {
        self.wire().impairment = impairment;
    }

    /// When the next frame arrives anywhere.
    pub fn next(&self) -> Option<Time> {
        let wire = self.wire();
        wire.queues.iter().filter_map(|queue| queue.keys().next().map(|key| key.0)).min()
    }

    /// Moves the link's time and takes the next frame that has arrived at an end by then.
    pub fn arrived(&self, now: Time, side: usize) -> Option<RxFrame> {
        let mut wire = self.wire();
        wire.now = now;
        match wire.queues[side & 1].first_entry() {
            Some(entry) if entry.key().0 <= now => Some(entry.remove()),
            _ => None,
        }
    }

    /// How many frames an end has sent.
    pub fn sent(&self, side: usize) -> u64 {
        self.wire().sent[side & 1]
    }

    /// How many frames are on the way.
    pub fn pending(&self) -> usize {
        self.wire().queues.iter().map(BTreeMap::len).sum()
    }
}

impl LinkEndpoint for PairEnd {
    fn transmit(&self, mut frame: TxFrame) {
        let over = frame.len() > self.link.mtu + 14;
        debug_assert!(!over || frame.segmentation.is_some(), "a frame over the MTU");
        let segment = frame.segmentation.map(|s| s.size);
        // What does not cross a real wire needs no checksum; a link without the offload gets it filled.
        let checksum =
            if frame.checksum_offload().is_some() { RxChecksum::Valid } else { RxChecksum::Unknown };
        frame.finish_checksum();
        let mut data = frame.flatten();
        let wire = &mut *self.link.wire();
        wire.sent[self.side] += 1;
        let Impairment { loss, duplicate, reorder, corrupt, delay, jitter } = wire.impairment;
        if wire.random.below(1000) < loss {
            return;
        }
        if wire.random.below(1000) < corrupt && data.len() > 14 {
            let at = 14 + wire.random.below(data.len() as u64 - 14) as usize;
            data[at] ^= 1 << wire.random.below(8);
        }
        let copies = if wire.random.below(1000) < duplicate { 2 } else { 1 };
        for _ in 0..copies {
            let mut at =
                wire.now + delay + Duration::from_nanos(wire.random.below(jitter.as_nanos() as u64 + 1));
            if wire.random.below(1000) < reorder {
                at = at + delay + Duration::from_millis(1);
            }
            wire.sequence += 1;
            let frame = RxFrame { data: data.clone().into(), checksum, segment };
            wire.queues[1 - self.side].insert((at, wire.sequence), frame);
        }
    }

    fn medium(&self) -> Medium {
        self.link.medium
    }

    fn mtu(&self) -> usize {
        self.link.mtu
    }

    fn mac(&self) -> Mac {
        Mac([2, 0, 0, 0, 0, 1 + self.side as u8])
    }

    fn capabilities(&self) -> Capabilities {
        self.link.capabilities
    }
}
