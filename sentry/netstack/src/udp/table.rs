//! Which UDP socket gets a datagram.

use super::UdpSocket;
use crate::addr::{Endpoint, Family};
use crate::datagram::{Datagram, ErrorReport};
use crate::reuse::{Choice, leave};
use crate::stack::{Stack, spread};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

/// A socket with what decides whether it gets a datagram.
#[derive(Clone)]
pub(super) struct UdpEntry {
    pub socket: Arc<UdpSocket>,
    pub family: Family,
    pub local: IpAddr,
    pub remote: Option<Endpoint>,
    pub v6only: bool,
    pub device: u32,
    pub reuse_port: bool,
    /// How the group that it belongs to chooses.
    pub choice: Arc<Choice>,
}

impl UdpEntry {
    /// Whether two sockets are of one group.
    fn grouped(&self, other: &UdpEntry) -> bool {
        let key = |e: &UdpEntry| (e.family, e.local, e.v6only, e.device);
        self.reuse_port && other.reuse_port && key(self) == key(other)
    }

    /// How special the socket is for a datagram (`compute_score`); `None`: not meant.
    fn score(&self, from: Endpoint, to: IpAddr, device: u32) -> Option<u32> {
        let mut score = match (self.local, to) {
            (a, b) if a == b => 4,
            (IpAddr::V4(a), IpAddr::V4(_)) if a.is_unspecified() => 2,
            (IpAddr::V6(a), IpAddr::V6(_)) if a.is_unspecified() => 2,
            (IpAddr::V6(a), IpAddr::V4(_)) if a.is_unspecified() && !self.v6only => 1,
            _ => return None,
        };
        if to.is_ipv6() && self.family == Family::V4 {
            return None;
        }
        if let Some(r) = self.remote {
            if (r.ip, r.port) != (from.ip, from.port) {
                return None;
            }
            score += 8;
        }
        if self.device != 0 {
            if self.device != device {
                return None;
            }
            score += 16;
        }
        Some(score)
    }
}

const SHARDS: usize = 16;

/// Sockets by port.
#[derive(Default)]
pub struct UdpTable {
    shards: [RwLock<HashMap<u16, Vec<UdpEntry>>>; SHARDS],
}

impl UdpTable {
    fn shard(&self, port: u16) -> &RwLock<HashMap<u16, Vec<UdpEntry>>> {
        &self.shards[usize::from(port) % SHARDS]
    }

    /// Adds a socket or changes what is known of it. Who comes to a group chooses as the group does.
    pub(super) fn publish(&self, port: u16, mut entry: UdpEntry) -> Arc<Choice> {
        let mut map = self.shard(port).write().unwrap_or_else(PoisonError::into_inner);
        let list = map.entry(port).or_default();
        match list.iter_mut().find(|e| e.socket.id == entry.socket.id) {
            Some(old) => {
                let choice = Arc::clone(&entry.choice);
                *old = entry;
                choice
            }
            None => {
                if let Some(other) = list.iter().find(|other| other.grouped(&entry)) {
                    entry.choice = Arc::clone(&other.choice);
                }
                let choice = Arc::clone(&entry.choice);
                list.push(entry);
                choice
            }
        }
    }

    pub(super) fn withdraw(&self, port: u16, id: u64) {
        let mut map = self.shard(port).write().unwrap_or_else(PoisonError::into_inner);
        let mut gone = Vec::new();
        if let Some(list) = map.get_mut(&port) {
            while let Some(at) = list.iter().position(|e| e.socket.id == id) {
                gone.push(leave(list, at, UdpEntry::grouped));
            }
            if list.is_empty() {
                map.remove(&port);
            }
        }
        drop(map);
        drop(gone);
    }

    /// The socket for what comes from an address; of a group one is chosen by the datagram, if it is known.
    fn find(
        &self,
        (from, to, device): (Endpoint, Endpoint, u32),
        datagram: Option<&Datagram>,
    ) -> Option<Arc<UdpSocket>> {
        let map = self.shard(to.port).read().unwrap_or_else(PoisonError::into_inner);
        let list = map.get(&to.port)?;
        if let [only] = &list[..] {
            return only.score(from, to.ip, device).map(|_| Arc::clone(&only.socket));
        }
        let best = list.iter().filter_map(|e| e.score(from, to.ip, device)).max()?;
        let equal: Vec<&UdpEntry> =
            list.iter().filter(|e| e.score(from, to.ip, device) == Some(best)).collect();
        let group = equal.iter().all(|e| e.reuse_port);
        let chosen = || {
            let first = equal.first()?;
            first.choice.of_datagram(datagram?, first.socket.lite, equal.len())
        };
        let i = match group {
            true => chosen().unwrap_or_else(|| spread(from) % equal.len()),
            false => equal.len() - 1,
        };
        equal.get(i).map(|e| Arc::clone(&e.socket))
    }

    fn find_all(&self, from: Endpoint, to: Endpoint, device: u32) -> Vec<Arc<UdpSocket>> {
        let map = self.shard(to.port).read().unwrap_or_else(PoisonError::into_inner);
        let list = map.get(&to.port).map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .filter(|e| e.score(from, to.ip, device).is_some())
            .map(|e| Arc::clone(&e.socket))
            .collect()
    }
}

impl Stack {
    /// Whether there is a socket for a datagram.
    pub(crate) fn takes_datagram(&self, from: Endpoint, to: Endpoint, device: u32) -> bool {
        self.datagram_table(false).find((from, to, device), None).is_some()
    }

    /// Whether the socket for a datagram takes it without a checksum (`UDP_NO_CHECK6_RX`).
    pub(crate) fn takes_unchecked(&self, from: Endpoint, to: Endpoint, device: u32) -> bool {
        self.datagram_table(false).find((from, to, device), None).is_some_and(|s| s.lock().own.unchecked)
    }

    /// An error came back from `peer` or on the way for what was sent from `own`.
    pub(crate) fn datagram_error(
        &self,
        own: Endpoint,
        peer: Endpoint,
        device: u32,
        report: ErrorReport,
        hard: bool,
    ) {
        if let Some(s) = self.datagram_table(false).find((peer, own, device), None) {
            s.reported(report, hard);
        }
    }

    /// Delivers to the one socket that is meant; gives the datagram back if there is none.
    pub fn deliver_datagram(&self, datagram: Datagram, lite: bool) -> Result<(), Datagram> {
        let way = (datagram.from, datagram.to, datagram.device);
        match self.datagram_table(lite).find(way, Some(&datagram)) {
            Some(s) => {
                s.enqueue(datagram);
                Ok(())
            }
            None => Err(datagram),
        }
    }

    /// Delivers a multicast or broadcast to all that want it.
    pub fn deliver_to_many(&self, datagram: &Datagram, lite: bool) {
        let all = self.datagram_table(lite).find_all(datagram.from, datagram.to, datagram.device);
        let group = datagram.to.ip;
        if group.is_multicast() {
            let anyone = self.udp_sockets().iter().any(|s| s.joined(group, datagram.device));
            for s in all.iter().filter(|s| s.wants_group(group, datagram.from.ip, datagram.device, anyone)) {
                s.enqueue(datagram.clone());
            }
            return;
        }
        for s in all {
            s.enqueue(datagram.clone());
        }
    }
}
