//! What a stack counts of its sockets and of what is handed over inside it. The packet engine counts packets; both
//! together are what /proc/net/snmp tells.

use crate::engine::net::{FamilyStats, Stats};
use crate::stack::Stack;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts of a family.
#[derive(Debug, Default)]
pub struct FamilyCounters {
    /// Packets that stayed inside: each is one out and one in.
    packets: AtomicU64,
    /// Datagrams that were read.
    pub(crate) udp_in: AtomicU64,
    pub(crate) udp_out: AtomicU64,
    pub(crate) udp_no_port: AtomicU64,
    pub(crate) udp_no_room: AtomicU64,
    /// Messages of ICMP that stayed inside.
    icmp: Mutex<crate::engine::net::Kinds>,
}

/// Counts of a stack.
#[derive(Debug, Default)]
pub struct Counters {
    v4: FamilyCounters,
    v6: FamilyCounters,
    /// Connections inside.
    pub(crate) active_opens: AtomicU64,
    pub(crate) passive_opens: AtomicU64,
    pub(crate) failed_attempts: AtomicU64,
}

/// One more.
pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    /// The counts of an address's family.
    pub(crate) fn of(&self, ip: IpAddr) -> &FamilyCounters {
        if ip.is_ipv4() { &self.v4 } else { &self.v6 }
    }
}

impl FamilyCounters {
    pub(crate) fn count_icmp(&self, kind: u8) {
        self.icmp.lock().unwrap_or_else(PoisonError::into_inner).count(kind);
    }

    fn add_to(&self, stats: &mut FamilyStats) {
        let packets = get(&self.packets);
        for count in
            [&mut stats.in_packets, &mut stats.in_delivered, &mut stats.out_packets, &mut stats.transmitted]
        {
            *count += packets;
        }
        // The engine counts what it hands to sockets; what they make of it is counted here.
        stats.udp_in = get(&self.udp_in);
        stats.udp_out = get(&self.udp_out);
        stats.udp_no_port += get(&self.udp_no_port);
        stats.udp_no_room = get(&self.udp_no_room);
        let icmp = self.icmp.lock().unwrap_or_else(PoisonError::into_inner);
        stats.icmp_in.add(&icmp);
        stats.icmp_out.add(&icmp);
    }
}

impl Stack {
    /// Counts a packet to an address of the stack itself.
    pub(crate) fn count_local(&self, to: IpAddr, bytes: u64) {
        bump(&self.counters.of(to).packets);
        self.interfaces.count_local(bytes);
    }

    /// All that is counted.
    pub fn statistics(&self) -> Stats {
        let mut stats = self.with_engine(|engine| engine.net.stats).unwrap_or_default();
        let counters = &self.counters;
        counters.v4.add_to(&mut stats.v4);
        counters.v6.add_to(&mut stats.v6);
        stats.tcp_active_opens += get(&counters.active_opens);
        stats.tcp_passive_opens += get(&counters.passive_opens);
        stats.tcp_failed_attempts += get(&counters.failed_attempts);
        stats.tcp_broken += self.ledger.broken();
        stats.tcp_resets_out += self.ledger.resets();
        // Those without data are not thought of.
        stats.tcp_in += self.ledger.segments();
        stats.tcp_out += self.ledger.segments();
        stats
    }
}
