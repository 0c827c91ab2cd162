//! The neighbour caches of ARP and NDP: one state machine (RFC 4861, 7.3) for both, with bounded
//! queues of packets that wait for an answer. The packets of the protocols are made in `arp` and `ndp`.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::error::Error;
use super::frame::TxFrame;
use super::link::Mac;
use super::time::Time;

/// Entries over which unused ones are dropped (Linux's gc_thresh3). Those that stay for good are not among them, as in
/// Linux, but have the same limit.
const MOST: usize = 1024;
/// Bytes that wait for one neighbour (Linux's unres_qlen_bytes).
const WAITING: usize = 212_992;
const RETRY: Duration = Duration::from_secs(1);
const TRIES: u8 = 3;
const REACHABLE: Duration = Duration::from_secs(30);
const DELAY: Duration = Duration::from_secs(5);
/// Unused entries go after this.
const UNUSED: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NeighbourState {
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
    Failed,
    /// Set by hand: never asked for.
    Permanent,
    /// The same; of interfaces where nobody asks.
    NoArp,
}

impl NeighbourState {
    /// A link address is known.
    pub fn is_valid(self) -> bool {
        !matches!(self, NeighbourState::Incomplete | NeighbourState::Failed)
    }

    /// It stays whatever others say, until somebody takes it away.
    pub fn is_fixed(self) -> bool {
        matches!(self, NeighbourState::Permanent | NeighbourState::NoArp)
    }
}

/// An entry as somebody wants it who administers the table.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// None: the one that is known.
    pub mac: Option<Mac>,
    pub state: NeighbourState,
    pub router: bool,
    /// `RTPROT_*`: who wants it; 0 if that is not told.
    pub protocol: u8,
    /// Another link address replaces the one that is known; otherwise the entry stays as it is.
    pub overrides: bool,
}

#[derive(Debug)]
pub struct Neighbour {
    pub state: NeighbourState,
    pub mac: Mac,
    deadline: Option<Time>,
    /// Questions without an answer.
    pub tries: u8,
    pub used: Time,
    /// When it was last known to be right, and when it last changed.
    pub confirmed: Time,
    pub updated: Time,
    waiting: VecDeque<TxFrame>,
    waiting_bytes: usize,
    pub router: bool,
    /// `RTPROT_*` of who has set it, or 0.
    pub protocol: u8,
}

/// What to do with a packet.
pub enum Resolution {
    Known(Mac, TxFrame),
    /// It waits; `ask` says that a question has to be sent.
    Waiting {
        ask: bool,
    },
    /// The neighbour was asked in vain a moment ago.
    Failed,
}

/// A question or a failure that the timer brings.
pub enum Due {
    /// Ask for the neighbour; with its address if it is only to be confirmed.
    Ask(u32, IpAddr, Option<Mac>),
    Failed(u32, Vec<TxFrame>),
}

/// Interface and address.
pub type Key = (u32, IpAddr);

#[derive(Default)]
pub struct Neighbours {
    table: BTreeMap<Key, Neighbour>,
    pub timer: Option<Time>,
    /// A known neighbour has to be asked soon: the timer wants to be set.
    pub rearm: bool,
}

impl Neighbours {
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Neighbour)> {
        self.table.iter()
    }

    /// A frame for the neighbour: its address, or the frame waits.
    pub fn resolve(&mut self, interface: u32, ip: IpAddr, frame: TxFrame, now: Time) -> Resolution {
        let key = (interface, ip);
        if !self.table.contains_key(&key) {
            self.make_room(now);
        }
        let unknown = || Neighbour::new(NeighbourState::Failed, Mac::default(), now);
        let entry = self.table.entry(key).or_insert_with(unknown);
        entry.used = now;
        match entry.state {
            NeighbourState::Failed if entry.deadline.is_some_and(|until| until > now) => Resolution::Failed,
            NeighbourState::Failed => {
                entry.state = NeighbourState::Incomplete;
                entry.tries = 1;
                entry.deadline = Some(now + RETRY);
                entry.wait(frame);
                Resolution::Waiting { ask: true }
            }
            NeighbourState::Incomplete => {
                entry.wait(frame);
                Resolution::Waiting { ask: false }
            }
            NeighbourState::Reachable if entry.deadline.is_some_and(|until| until <= now) => {
                entry.state = NeighbourState::Delay;
                entry.deadline = Some(now + DELAY);
                self.rearm = true;
                Resolution::Known(entry.mac, frame)
            }
            NeighbourState::Stale => {
                entry.state = NeighbourState::Delay;
                entry.deadline = Some(now + DELAY);
                self.rearm = true;
                Resolution::Known(entry.mac, frame)
            }
            _ => Resolution::Known(entry.mac, frame),
        }
    }

    /// An answer or another sign of the neighbour's address. `confirmed`: it answered to us. Returns the
    /// frames that waited. With `create` an unknown neighbour is entered (RFC 4861, 7.2.3).
    pub fn learn(&mut self, key: Key, mac: Mac, confirmed: bool, create: bool, now: Time) -> Vec<TxFrame> {
        if !mac.is_unicast() {
            return Vec::new();
        }
        if !self.table.contains_key(&key) {
            if !create {
                return Vec::new();
            }
            self.make_room(now);
            self.table.insert(key, Neighbour::new(NeighbourState::Stale, mac, now));
        }
        let Some(entry) = self.table.get_mut(&key) else { return Vec::new() };
        if entry.state.is_fixed() {
            return Vec::new();
        }
        let changed = entry.mac != mac;
        entry.mac = mac;
        if changed {
            entry.updated = now;
        }
        if confirmed {
            entry.confirmed = now;
            entry.state = NeighbourState::Reachable;
            entry.deadline = Some(now + REACHABLE);
        } else if changed || matches!(entry.state, NeighbourState::Incomplete | NeighbourState::Failed) {
            entry.state = NeighbourState::Stale;
            entry.deadline = None;
        }
        entry.tries = 0;
        entry.waiting_bytes = 0;
        entry.waiting.drain(..).collect()
    }

    /// The link address of a neighbour, if one is known.
    pub fn mac(&self, key: Key) -> Option<Mac> {
        self.table.get(&key).filter(|entry| entry.state.is_valid()).map(|entry| entry.mac)
    }

    /// Whether a known neighbour has another link address. Its entry becomes stale, so that it is asked
    /// at its next use.
    pub fn doubts(&mut self, key: Key, mac: Mac) -> bool {
        if self.mac(key).is_none_or(|known| known == mac) {
            return false;
        }
        if let Some(entry) = self.table.get_mut(&key)
            && entry.state == NeighbourState::Reachable
        {
            entry.state = NeighbourState::Stale;
            entry.deadline = None;
        }
        true
    }

    /// A hint of an upper layer that the neighbour answers (RFC 4861, 7.3.1).
    pub fn confirm(&mut self, interface: u32, ip: IpAddr, now: Time) {
        if let Some(entry) = self.table.get_mut(&(interface, ip))
            && matches!(
                entry.state,
                NeighbourState::Reachable
                    | NeighbourState::Delay
                    | NeighbourState::Probe
                    | NeighbourState::Stale
            )
        {
            entry.state = NeighbourState::Reachable;
            entry.deadline = Some(now + REACHABLE);
            entry.confirmed = now;
            entry.tries = 0;
        }
    }

    /// A neighbour has said whether it is a router.
    pub fn set_router(&mut self, key: Key, router: bool) {
        if let Some(entry) = self.table.get_mut(&key) {
            entry.router = router;
        }
    }

    pub fn get(&self, key: Key) -> Option<&Neighbour> {
        self.table.get(&key)
    }

    /// An entry by hand, or one taken over from the host: `neigh_update` of Linux for an administrator. Returns the frames
    /// that waited and now know where to go. Invalid without a link address where one is needed; no buffers if too many
    /// are to stay for good.
    pub fn change(&mut self, key: Key, change: Change, now: Time) -> Result<Vec<TxFrame>, Error> {
        let known = self.table.get(&key).filter(|entry| entry.state.is_valid()).map(|entry| entry.mac);
        let mac = match change.mac.or(known) {
            Some(mac) => mac,
            None if change.state.is_valid() => return Err(Error::Invalid),
            None => Mac::default(),
        };
        if change.state.is_valid() && !change.overrides && known.is_some_and(|known| known != mac) {
            return Ok(Vec::new());
        }
        let was_fixed = self.table.get(&key).is_some_and(|entry| entry.state.is_fixed());
        if change.state.is_fixed() {
            let fixed = self.table.values().filter(|entry| entry.state.is_fixed()).count();
            if !was_fixed && fixed >= MOST {
                return Err(Error::NoBuffers);
            }
        } else if was_fixed || !self.table.contains_key(&key) {
            self.make_room(now);
        }
        let entry = self.table.entry(key).or_insert_with(|| Neighbour::new(change.state, mac, now));
        entry.mac = mac;
        // Whoever wants it asked for gets that at its next use.
        entry.state = if change.state.is_valid() { change.state } else { NeighbourState::Failed };
        entry.deadline = match change.state {
            NeighbourState::Reachable => Some(now + REACHABLE),
            NeighbourState::Delay => Some(now + DELAY),
            NeighbourState::Probe => Some(now),
            _ => None,
        };
        if change.state.is_fixed() || change.state == NeighbourState::Reachable {
            entry.confirmed = now;
        }
        if change.overrides && change.state.is_valid() {
            entry.router = change.router;
        }
        if change.protocol != 0 {
            entry.protocol = change.protocol;
        }
        entry.updated = now;
        entry.tries = 0;
        entry.waiting_bytes = 0;
        let waiting = entry.waiting.drain(..).collect();
        Ok(if change.state.is_valid() { waiting } else { Vec::new() })
    }

    /// Takes an entry away. Returns the frames that waited; none if there is no such entry.
    pub fn remove(&mut self, key: Key) -> Option<Vec<TxFrame>> {
        self.table.remove(&key).map(|entry| entry.waiting.into())
    }

    pub fn forget_interface(&mut self, interface: u32) {
        self.table.retain(|key, _| key.0 != interface);
    }

    /// When something is due.
    pub fn next(&self) -> Option<Time> {
        let running = |n: &&Neighbour| {
            matches!(n.state, NeighbourState::Incomplete | NeighbourState::Delay | NeighbourState::Probe)
        };
        self.table.values().filter(running).filter_map(|n| n.deadline).min()
    }

    /// The next thing that is due.
    pub fn due(&mut self, now: Time) -> Option<Due> {
        for (&(interface, ip), entry) in &mut self.table {
            if entry.deadline.is_none_or(|at| at > now) {
                continue;
            }
            match entry.state {
                NeighbourState::Incomplete if entry.tries < TRIES => {
                    entry.tries += 1;
                    entry.deadline = Some(now + RETRY);
                    return Some(Due::Ask(interface, ip, None));
                }
                NeighbourState::Incomplete => {
                    entry.state = NeighbourState::Failed;
                    entry.deadline = Some(now + RETRY);
                    entry.waiting_bytes = 0;
                    return Some(Due::Failed(interface, entry.waiting.drain(..).collect()));
                }
                NeighbourState::Delay | NeighbourState::Probe if entry.tries < TRIES => {
                    entry.state = NeighbourState::Probe;
                    entry.tries += 1;
                    entry.deadline = Some(now + RETRY);
                    // The last question goes to everybody: the neighbour may have a new address.
                    let known = (entry.tries < TRIES).then_some(entry.mac);
                    return Some(Due::Ask(interface, ip, known));
                }
                NeighbourState::Probe => {
                    entry.state = NeighbourState::Failed;
                    entry.deadline = Some(now + RETRY);
                }
                _ => {}
            }
        }
        None
    }

    /// Makes room for one more that does not stay for good.
    fn make_room(&mut self, now: Time) {
        if self.table.len() < MOST {
            return;
        }
        let idle = |n: &Neighbour| {
            !n.state.is_fixed() && n.state != NeighbourState::Incomplete && now.since(n.used) > UNUSED
        };
        self.table.retain(|_, entry| !idle(entry));
        let passing =
            |table: &BTreeMap<Key, Neighbour>| table.values().filter(|entry| !entry.state.is_fixed()).count();
        for _ in MOST..=passing(&self.table) {
            let oldest = self
                .table
                .iter()
                .filter(|(_, entry)| !entry.state.is_fixed())
                .min_by_key(|(_, entry)| entry.used)
                .map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.table.remove(&oldest);
            }
        }
    }
}

impl Neighbour {
    fn new(state: NeighbourState, mac: Mac, now: Time) -> Neighbour {
        Neighbour {
            state,
            mac,
            deadline: None,
            tries: 0,
            used: now,
            confirmed: now,
            updated: now,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            router: false,
            protocol: 0,
        }
    }

    /// The state at a time: who was not heard of for long is no longer known to be reachable.
    pub fn state_at(&self, now: Time) -> NeighbourState {
        let over = self.deadline.is_some_and(|until| until <= now);
        if self.state == NeighbourState::Reachable && over { NeighbourState::Stale } else { self.state }
    }

    fn wait(&mut self, frame: TxFrame) {
        self.waiting_bytes += frame.len();
        self.waiting.push_back(frame);
        while self.waiting_bytes > WAITING {
            let Some(dropped) = self.waiting.pop_front() else { break };
            self.waiting_bytes = self.waiting_bytes.saturating_sub(dropped.len());
        }
    }
}
