//! What is known of path MTUs (RFC 1191, RFC 8201): per destination, for ten minutes, bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::random::KeyedState;
use super::time::Time;

const AGE: Duration = Duration::from_secs(600);
const MOST: usize = 4096;
/// A packet-too-big message may not bring the MTU below this (Linux's ip_rt_min_pmtu).
const LEAST4: usize = 552;
const LEAST6: usize = 1280;

pub struct PathMtus {
    table: HashMap<IpAddr, (usize, Time), KeyedState>,
}

impl PathMtus {
    pub fn new(state: KeyedState) -> PathMtus {
        PathMtus { table: HashMap::with_hasher(state) }
    }

    pub fn get(&self, to: IpAddr, now: Time) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        self.table.get(&to).filter(|(_, until)| *until > now).map(|(mtu, _)| *mtu)
    }

    /// Takes over a router's word; returns the MTU that holds from now on.
    pub fn lower(&mut self, to: IpAddr, mtu: usize, now: Time) -> usize {
        if self.table.len() >= MOST {
            self.table.retain(|_, (_, until)| *until > now);
            if self.table.len() >= MOST {
                self.table.clear();
            }
        }
        let mtu = mtu.max(if to.is_ipv4() { LEAST4 } else { LEAST6 });
        let entry = self.table.entry(to).or_insert((mtu, now + AGE));
        if entry.1 <= now || mtu <= entry.0 {
            *entry = (mtu, now + AGE);
        }
        entry.0
    }
}
