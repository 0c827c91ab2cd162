//! Which addresses and ports are taken, for one protocol of one stack: bind rules with wildcards,
//! `SO_REUSEADDR` and `SO_REUSEPORT`, ports chosen by chance, and what TIME-WAIT keeps for a while.

use crate::addr::Endpoint;
use crate::env::Env;
use crate::error::{NetError, Result};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What somebody asks for, or has.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub ip: IpAddr,
    /// An IPv6 wildcard that leaves IPv4 alone.
    pub v6only: bool,
    pub reuse_addr: bool,
    pub reuse_port: bool,
    pub uid: u32,
    /// Interface the socket is bound to, 0 for none.
    pub device: u32,
    pub listening: bool,
    /// The other end, of a port that was chosen by a connect.
    pub connected_to: Option<Endpoint>,
}

/// Proof of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimId {
    pub port: u16,
    id: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    claim: Claim,
    /// TIME-WAIT: since when, and gone at this time.
    since: u64,
    until: Option<u64>,
}

#[derive(Debug, Default)]
struct Table {
    ports: HashMap<u16, Vec<Entry>>,
    waiting: VecDeque<(u64, ClaimId)>,
    next: u64,
}

/// How `SO_REUSEADDR` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Two listening sockets never share a port by `SO_REUSEADDR`.
    Tcp,
    /// It is enough that both have it.
    Udp,
}

/// The ports of one protocol.
#[derive(Debug)]
pub struct Ports {
    rules: Rules,
    table: Mutex<Table>,
}

/// How long a port stays taken after an active close (`TCP_TIMEWAIT_LEN`).
pub const TIME_WAIT: Duration = Duration::from_secs(60);
/// How soon a connect may take a port in TIME-WAIT over (`tcp_tw_reuse` on loopback).
const REUSE_AFTER: u64 = 1_000_000_000;

/// Whether two local addresses can mean the same packets (`inet_rcv_saddr_equal`).
fn overlap(a: &Claim, b: &Claim) -> bool {
    match (a.ip, b.ip) {
        (IpAddr::V4(x), IpAddr::V4(y)) => x == y || x.is_unspecified() || y.is_unspecified(),
        (IpAddr::V6(x), IpAddr::V6(y)) => x == y || x.is_unspecified() || y.is_unspecified(),
        (IpAddr::V6(x), IpAddr::V4(_)) => x.is_unspecified() && !a.v6only,
        (IpAddr::V4(_), IpAddr::V6(y)) => y.is_unspecified() && !b.v6only,
    }
}

impl Ports {
    pub fn new(rules: Rules) -> Ports {
        Ports { rules, table: Mutex::new(Table::default()) }
    }

    fn conflict(&self, new: &Claim, old: &Entry, now: u64) -> bool {
        let o = &old.claim;
        if new.device != 0 && o.device != 0 && new.device != o.device {
            return false;
        }
        if let (Some(a), Some(b)) = (new.connected_to, o.connected_to) {
            // Connections are told apart by both ends.
            let stale = old.until.is_some() && now >= old.since + REUSE_AFTER;
            return a == b && new.ip == o.ip && !stale;
        }
        let may_share = match self.rules {
            Rules::Tcp => new.reuse_addr && o.reuse_addr && !o.listening && !new.listening,
            Rules::Udp => new.reuse_addr && o.reuse_addr,
        };
        let grouped = new.reuse_port && o.reuse_port && (new.uid == o.uid || old.until.is_some());
        // A new listener only minds other listeners of those that share.
        let listens_over =
            self.rules == Rules::Tcp && new.listening && new.reuse_addr && o.reuse_addr && !o.listening;
        !may_share && !grouped && !listens_over && overlap(new, o)
    }

    fn free(&self, table: &Table, port: u16, claim: &Claim, except: Option<u64>, now: u64) -> bool {
        table.ports.get(&port).is_none_or(|entries| {
            !entries.iter().any(|e| Some(e.id) != except && self.conflict(claim, e, now))
        })
    }

    fn expire(table: &mut Table, now: u64) {
        while let Some((until, id)) = table.waiting.front().copied() {
            if until > now {
                break;
            }
            table.waiting.pop_front();
            Self::remove(table, id);
        }
    }

    fn remove(table: &mut Table, id: ClaimId) {
        if let Some(entries) = table.ports.get_mut(&id.port) {
            entries.retain(|e| e.id != id.id);
            if entries.is_empty() {
                table.ports.remove(&id.port);
            }
        }
    }

    fn insert(table: &mut Table, port: u16, claim: Claim) -> ClaimId {
        table.next += 1;
        let id = table.next;
        table.ports.entry(port).or_default().push(Entry { id, claim, since: 0, until: None });
        ClaimId { port, id }
    }

    /// Takes a port; `port` 0 asks for any of `range` (first, last). EADDRINUSE.
    pub fn claim(&self, env: &dyn Env, range: (u16, u16), port: u16, claim: Claim) -> Result<ClaimId> {
        let now = env.monotonic();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        Self::expire(&mut table, now);
        if port != 0 {
            if !self.free(&table, port, &claim, None, now) {
                return Err(NetError::AddressInUse);
            }
            return Ok(Self::insert(&mut table, port, claim));
        }
        let (first, last) = (u32::from(range.0), u32::from(range.1.max(range.0)));
        let count = last - first + 1;
        let start = env.random_below(count);
        // First whole ports that nobody has; a shared one only when there is no other.
        for strict in [true, false] {
            for i in 0..count {
                let candidate = u16::try_from(first + (start + i) % count).unwrap_or(0);
                if candidate == 0 {
                    continue;
                }
                let fine = match table.ports.get(&candidate) {
                    None => true,
                    Some(_) if strict => false,
                    Some(_) => self.free(&table, candidate, &claim, None, now),
                };
                if fine {
                    return Ok(Self::insert(&mut table, candidate, claim));
                }
            }
        }
        Err(NetError::AddressInUse)
    }

    /// Adds a claim without asking: a connection that came in on a bound port.
    pub fn share(&self, port: u16, claim: Claim) -> ClaimId {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        Self::insert(&mut table, port, claim)
    }

    /// Changes a claim, unless what it becomes is in somebody's way. EADDRINUSE.
    pub fn change(&self, env: &dyn Env, id: ClaimId, change: impl FnOnce(&mut Claim)) -> Result<()> {
        let now = env.monotonic();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = table.ports.get(&id.port).ok_or(NetError::Invalid)?;
        let mut new = entries.iter().find(|e| e.id == id.id).ok_or(NetError::Invalid)?.claim;
        change(&mut new);
        if !self.free(&table, id.port, &new, Some(id.id), now) {
            return Err(NetError::AddressInUse);
        }
        self.store(&mut table, id, new);
        Ok(())
    }

    /// Changes a claim in a way that concerns nobody else.
    pub fn note(&self, id: ClaimId, change: impl FnOnce(&mut Claim)) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let found = table.ports.get(&id.port).and_then(|e| e.iter().find(|e| e.id == id.id)).map(|e| e.claim);
        if let Some(mut claim) = found {
            change(&mut claim);
            self.store(&mut table, id, claim);
        }
    }

    fn store(&self, table: &mut Table, id: ClaimId, claim: Claim) {
        if let Some(entry) = table.ports.get_mut(&id.port).and_then(|e| e.iter_mut().find(|e| e.id == id.id))
        {
            entry.claim = claim;
        }
    }

    /// Gives a port back.
    pub fn release(&self, id: ClaimId) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        Self::remove(&mut table, id);
    }

    /// Keeps a port for some time (of TIME-WAIT or FIN-WAIT-2), then gives it back.
    pub fn linger(&self, env: &dyn Env, id: ClaimId, time: Duration) {
        let now = env.monotonic();
        let until = now + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = table.ports.get_mut(&id.port).and_then(|e| e.iter_mut().find(|e| e.id == id.id))
        else {
            return;
        };
        entry.since = now;
        entry.until = Some(until);
        entry.claim.listening = false;
        let place = table.waiting.partition_point(|(other, _)| *other <= until);
        table.waiting.insert(place, (until, id));
    }

    /// The connections in TIME-WAIT: both ends, and how long it still takes.
    pub fn waiting(&self, env: &dyn Env) -> Vec<(Endpoint, Option<Endpoint>, u64)> {
        let now = env.monotonic();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        Self::expire(&mut table, now);
        let mut list = Vec::new();
        for (port, entries) in &table.ports {
            for e in entries {
                if let Some(until) = e.until {
                    list.push((Endpoint::new(e.claim.ip, *port), e.claim.connected_to, until - now));
                }
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::testing::TestEnv;

    fn claim(ip: &str) -> Claim {
        Claim {
            ip: ip.parse().unwrap(),
            v6only: false,
            reuse_addr: false,
            reuse_port: false,
            uid: 0,
            device: 0,
            listening: false,
            connected_to: None,
        }
    }
    const RANGE: (u16, u16) = (40000, 40009);

    #[test]
    fn wildcards_and_families() {
        let env = TestEnv::default();
        let p = Ports::new(Rules::Tcp);
        let a = p.claim(&env, RANGE, 80, claim("0.0.0.0")).unwrap();
        assert_eq!(p.claim(&env, RANGE, 80, claim("127.0.0.1")), Err(NetError::AddressInUse));
        assert_eq!(p.claim(&env, RANGE, 80, claim("::")), Err(NetError::AddressInUse));
        let only6 = Claim { v6only: true, ..claim("::") };
        p.claim(&env, RANGE, 80, only6).unwrap();
        p.release(a);
        p.claim(&env, RANGE, 80, claim("127.0.0.1")).unwrap();
        p.claim(&env, RANGE, 80, claim("127.0.0.2")).unwrap();
    }

    #[test]
    fn sharing_needs_both_and_never_two_listeners() {
        let env = TestEnv::default();
        let p = Ports::new(Rules::Tcp);
        let reuse = Claim { reuse_addr: true, ..claim("0.0.0.0") };
        let a = p.claim(&env, RANGE, 80, reuse).unwrap();
        let b = p.claim(&env, RANGE, 80, reuse).unwrap();
        p.change(&env, a, |c| c.listening = true).unwrap();
        assert_eq!(p.change(&env, b, |c| c.listening = true), Err(NetError::AddressInUse));
        assert_eq!(p.claim(&env, RANGE, 80, reuse), Err(NetError::AddressInUse));
        let q = Ports::new(Rules::Tcp);
        let group = Claim { reuse_port: true, listening: true, ..claim("0.0.0.0") };
        q.claim(&env, RANGE, 80, group).unwrap();
        q.claim(&env, RANGE, 80, group).unwrap();
        assert_eq!(q.claim(&env, RANGE, 80, Claim { uid: 5, ..group }), Err(NetError::AddressInUse));
    }

    #[test]
    fn chosen_ports_end_and_time_wait_keeps_them() {
        let env = TestEnv::default();
        let p = Ports::new(Rules::Tcp);
        let ids: Vec<ClaimId> = (0..10).map(|_| p.claim(&env, RANGE, 0, claim("0.0.0.0")).unwrap()).collect();
        assert_eq!(p.claim(&env, RANGE, 0, claim("0.0.0.0")), Err(NetError::AddressInUse));
        p.linger(&env, ids[3], TIME_WAIT);
        assert_eq!(p.claim(&env, RANGE, ids[3].port, claim("0.0.0.0")), Err(NetError::AddressInUse));
        env.advance(61_000_000_000);
        p.claim(&env, RANGE, ids[3].port, claim("0.0.0.0")).unwrap();
    }
}
