//! Timers: one ordered set of deadlines with at most one entry for each owner. An owner that moves its
//! deadline back leaves its entry where it is and looks again when it fires, so that the timer that
//! every acknowledgement restarts costs nothing.

use std::collections::BTreeSet;

use super::time::Time;

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TimerKey {
    /// A TCP connection (index and generation).
    Connection(u32, u32),
    /// A half-open or TIME-WAIT entry.
    Remnant(u32, u32),
    /// The neighbour caches.
    Neighbours,
    /// The reassembly queues.
    Reassembly,
    /// Addresses, routers and multicast reports.
    Interfaces,
}

/// All deadlines.
#[derive(Default, Debug)]
pub struct Timers {
    set: BTreeSet<(Time, TimerKey)>,
}

impl Timers {
    /// Wants `key` to fire at `at`, or earlier; `slot` is where its owner keeps the entry's time.
    pub fn set(&mut self, key: TimerKey, slot: &mut Option<Time>, at: Option<Time>) {
        match (at, *slot) {
            (Some(at), Some(entry)) if entry <= at => {}
            (Some(at), entry) => {
                if let Some(entry) = entry {
                    self.set.remove(&(entry, key));
                }
                self.set.insert((at, key));
                *slot = Some(at);
            }
            (None, Some(_)) | (None, None) => {}
        }
    }

    /// Takes the entry away, at the owner's end.
    pub fn remove(&mut self, key: TimerKey, slot: &mut Option<Time>) {
        if let Some(entry) = slot.take() {
            self.set.remove(&(entry, key));
        }
    }

    /// The next owner that is due; it has to clear its slot.
    pub fn due(&mut self, now: Time) -> Option<TimerKey> {
        match self.set.first() {
            Some(&(at, _)) if at <= now => self.set.pop_first().map(|(_, key)| key),
            _ => None,
        }
    }

    pub fn next(&self) -> Option<Time> {
        self.set.first().map(|&(at, _)| at)
    }

    pub fn len(&self) -> usize {
        self.set.len()
    }

    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_each() {
        let mut timers = Timers::default();
        let mut slot = None;
        let key = TimerKey::Connection(1, 1);
        for at in [50, 80, 20, 90] {
            timers.set(key, &mut slot, Some(Time(at)));
        }
        assert_eq!((timers.len(), slot), (1, Some(Time(20))));
        assert_eq!(timers.due(Time(19)), None);
        assert_eq!(timers.due(Time(20)), Some(key));
        assert!(timers.is_empty());
    }
}
