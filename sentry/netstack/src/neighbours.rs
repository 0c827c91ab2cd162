//! The neighbours of a stack's interfaces, for whoever looks at them or sets them by hand. Those of interfaces with a link
//! are in the packet engine, which asks for them and uses them; those of others (loopback) are only kept.

use crate::engine::link::Mac;
use crate::engine::neighbour::{Change, Neighbour, NeighbourState};
use crate::engine::time::Time;
use crate::error::{NetError, Result};
use crate::stack::Stack;
use crate::wire;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::PoisonError;
use std::time::Duration;

/// A neighbour, as it is now.
#[derive(Clone, Copy, Debug)]
pub struct NeighbourLine {
    pub device: u32,
    pub ip: IpAddr,
    pub mac: [u8; 6],
    pub state: NeighbourState,
    pub router: bool,
    /// `RTPROT_*` of who has set it, or 0.
    pub protocol: u8,
    /// Questions without an answer.
    pub tries: u8,
    /// How long ago it was last known to be right, used, changed.
    pub ages: [Duration; 3],
}

fn line(device: u32, ip: IpAddr, entry: &Neighbour, now: Time) -> NeighbourLine {
    NeighbourLine {
        device,
        ip,
        mac: entry.mac.0,
        state: entry.state_at(now),
        router: entry.router,
        protocol: entry.protocol,
        tries: entry.tries,
        ages: [entry.confirmed, entry.used, entry.updated].map(|then| now.since(then)),
    }
}

impl Stack {
    /// All neighbours, IPv4 first.
    pub fn neighbours(&self) -> Vec<NeighbourLine> {
        let now = Time(self.env.monotonic());
        let show = |table: &crate::engine::neighbour::Neighbours| -> Vec<NeighbourLine> {
            table.iter().map(|(&(device, ip), entry)| line(device, ip, entry, now)).collect()
        };
        let mut all = self.with_engine(|engine| show(&engine.net.neighbours)).unwrap_or_default();
        all.extend(show(&self.unlinked.lock().unwrap_or_else(PoisonError::into_inner)));
        let there: Vec<u32> = self.interfaces.list().iter().map(|interface| interface.index).collect();
        all.retain(|line| there.contains(&line.device));
        all.sort_by_key(|line| line.ip.is_ipv6());
        all
    }

    /// The neighbour with an address.
    pub fn neighbour(&self, device: u32, ip: IpAddr) -> Option<NeighbourLine> {
        self.neighbours().into_iter().find(|line| (line.device, line.ip) == (device, ip))
    }

    /// Makes or changes an entry. ENODEV, EINVAL without a link address, ENOBUFS.
    pub fn change_neighbour(&self, device: u32, ip: IpAddr, change: Change) -> Result<()> {
        let interface = self.interfaces.by_index(device).ok_or(NetError::NoDevice)?;
        // Linux has one entry for all of IPv4 on loopback.
        let all = interface.loopback && ip.is_ipv4();
        let ip = if all { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { ip };
        // Whoever is new there begins with the interface's own address.
        let own = (interface.loopback && self.neighbour(device, ip).is_none()).then(Mac::default);
        let change = Change { mac: change.mac.or(own), ..change };
        let linked = self.with_engine(|engine| {
            engine.net.interface(device)?;
            Some(engine.net.change_neighbour(device, ip, change))
        });
        let done = linked.flatten().unwrap_or_else(|| {
            let now = Time(self.env.monotonic());
            let mut table = self.unlinked.lock().unwrap_or_else(PoisonError::into_inner);
            table.change((device, ip), change, now).map(|_| ())
        });
        done.map_err(wire::name)
    }

    /// Takes an entry away. ENOENT.
    pub fn remove_neighbour(&self, device: u32, ip: IpAddr) -> Result<()> {
        let linked = self.with_engine(|engine| {
            engine.net.interface(device)?;
            Some(engine.net.remove_neighbour(device, ip))
        });
        let gone = linked.flatten().unwrap_or_else(|| {
            self.unlinked.lock().unwrap_or_else(PoisonError::into_inner).remove((device, ip)).is_some()
        });
        if gone { Ok(()) } else { Err(NetError::NotFound) }
    }
}

/// A change that puts a neighbour there for good, whatever was there.
pub fn fixed(mac: [u8; 6], router: bool) -> Change {
    Change { mac: Some(Mac(mac)), state: NeighbourState::Permanent, router, protocol: 0, overrides: true }
}
