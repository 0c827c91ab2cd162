//! Takes over what the host's network namespace has: interfaces with their addresses, routes and permanent neighbours, at
//! the beginning and whenever they change. Only what has changed on the host is changed in the stack, so that what the guest has changed
//! there by itself stays.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use netstack::{Attachment, IfAddr, Interface, PacketWire, RouteLine, Stack, fixed_neighbour};

use super::PacketLink;
use super::hostsys::packet;
use super::hostsys::rtnetlink::{self, Address, ETHERNET, Link, Neighbour, Route, Snapshot};

pub struct HostLinks {
    questions: OwnedFd,
    /// Packet sockets that no interface uses.
    spare: Vec<Arc<OwnedFd>>,
    /// Nobody waits for their end while it is open.
    _keeper: Option<OwnedFd>,
    known: Snapshot,
    links: BTreeMap<u32, Taken>,
    stack: Arc<Stack>,
    /// None: interfaces are shown, and frames go the host's own ways.
    wire: Option<Arc<PacketWire>>,
}

/// An interface of the host that is one of the stack.
struct Taken {
    link: Option<Arc<PacketLink>>,
    /// Its index in the stack.
    index: u32,
}

fn if_addr(address: &Address) -> IfAddr {
    IfAddr { ip: address.ip, prefix: address.prefix, broadcast: address.broadcast }
}

impl HostLinks {
    pub fn new(
        questions: OwnedFd,
        packets: Vec<OwnedFd>,
        keeper: Option<OwnedFd>,
        stack: Arc<Stack>,
        wire: Option<Arc<PacketWire>>,
    ) -> HostLinks {
        HostLinks {
            questions,
            spare: packets.into_iter().map(Arc::new).collect(),
            _keeper: keeper,
            known: Snapshot::default(),
            links: BTreeMap::new(),
            stack,
            wire,
        }
    }

    /// The links, each with the index of its interface in the stack.
    pub fn links(&self) -> impl Iterator<Item = (u32, &Arc<PacketLink>)> {
        self.links.values().filter_map(|taken| Some((taken.index, taken.link.as_ref()?)))
    }

    /// Reads what there is and takes the difference to the last time over.
    pub fn update(&mut self) -> io::Result<()> {
        let now = rtnetlink::snapshot(&self.questions)?;
        let before = std::mem::replace(&mut self.known, now.clone());
        let same = |a: &Link, b: &Link| (a.index, a.mac) == (b.index, b.mac);
        for old in before.links.iter().filter(|old| !now.links.iter().any(|new| same(old, new))) {
            self.gone(old);
        }
        for new in now.links.iter().filter(|new| new.hardware == ETHERNET) {
            match before.links.iter().find(|old| same(old, new)) {
                Some(old) if self.links.contains_key(&new.index) => self.changed(old, new),
                _ => self.came(new, &now)?,
            }
        }
        for old in before.addresses.iter().filter(|old| !now.addresses.contains(old)) {
            if let Some(taken) = self.links.get(&old.index) {
                // The guest may have removed it already.
                let _ = self.stack.interfaces.remove_address(taken.index, old.ip, old.prefix);
            }
        }
        for new in now.addresses.iter().filter(|new| !before.addresses.contains(new)) {
            if let Some(taken) = self.links.get(&new.index) {
                let _ = self.stack.interfaces.add_address(taken.index, if_addr(new));
            }
        }
        for old in before.routes.iter().filter(|old| !now.routes.contains(old)) {
            if let Some(taken) = self.links.get(&old.index) {
                let _ = self.stack.interfaces.remove_route(old.to, old.prefix, old.gateway, taken.index);
            }
        }
        for new in now.routes.iter().filter(|new| !before.routes.contains(new)) {
            self.route(new);
        }
        let same = |a: &Neighbour, b: &Neighbour| (a.index, a.ip) == (b.index, b.ip);
        let gone = |old: &&Neighbour| !now.neighbours.iter().any(|new| same(old, new));
        for old in before.neighbours.iter().filter(gone) {
            if let Some(taken) = self.links.get(&old.index) {
                // It went with its interface, or by the guest's doing.
                let _ = self.stack.remove_neighbour(taken.index, old.ip);
            }
        }
        for new in now.neighbours.iter().filter(|new| !before.neighbours.contains(new)) {
            self.neighbour(new);
        }
        Ok(())
    }

    fn neighbour(&self, new: &Neighbour) {
        // Frames that go the host's own ways find their neighbours there.
        if self.wire.is_none() {
            return;
        }
        let Some(taken) = self.links.get(&new.index) else { return };
        let change = fixed_neighbour(new.mac, new.router);
        if let Err(error) = self.stack.change_neighbour(taken.index, new.ip, change) {
            tracing::warn!("the neighbour {} is not taken over: {error:?}", new.ip);
        }
    }

    fn route(&self, new: &Route) {
        let Some(taken) = self.links.get(&new.index) else { return };
        let line = RouteLine {
            to: new.to,
            prefix: new.prefix,
            gateway: new.gateway,
            device: taken.index,
            source: new.source,
            metric: new.metric,
            protocol: new.protocol,
        };
        // There already, by the guest's doing, or its interface is down.
        let _ = self.stack.interfaces.add_route(line);
    }

    fn came(&mut self, new: &Link, now: &Snapshot) -> io::Result<()> {
        let addresses = now.addresses.iter().filter(|address| address.index == new.index).map(if_addr);
        let addresses: Vec<IfAddr> = addresses.collect();
        let (link, index) = match self.wire.clone() {
            Some(wire) => {
                let Some(link) = self.link(new)? else { return Ok(()) };
                let attachment = Attachment {
                    index: new.index,
                    name: new.name.clone(),
                    link: link.clone(),
                    up: new.up,
                    carrier: new.carrier,
                    addresses,
                };
                let index = wire
                    .attach(attachment)
                    .map_err(|error| io::Error::other(format!("interface {}: {error:?}", new.name)))?;
                (Some(link), index)
            }
            None => {
                let shown = Interface {
                    index: new.index,
                    name: new.name.clone(),
                    up: new.up,
                    carrier: new.carrier,
                    loopback: false,
                    mtu: new.mtu,
                    hardware: new.mac,
                    addrs: addresses,
                    traffic: Arc::default(),
                };
                (None, self.stack.interfaces.add(shown))
            }
        };
        tracing::debug!("network interface {} (index {}), mtu {}", new.name, new.index, new.mtu);
        self.links.insert(new.index, Taken { link, index });
        for route in now.routes.iter().filter(|route| route.index == new.index) {
            self.route(route);
        }
        for neighbour in now.neighbours.iter().filter(|neighbour| neighbour.index == new.index) {
            self.neighbour(neighbour);
        }
        Ok(())
    }

    /// A link over a spare socket; nothing if there is none or the interface has gone again, of which there are news.
    fn link(&mut self, new: &Link) -> io::Result<Option<Arc<PacketLink>>> {
        const ENODEV: i32 = 19;
        let Some(fd) = self.spare.pop() else {
            tracing::warn!("no packet socket is left for the network interface {}", new.name);
            return Ok(None);
        };
        match packet::bind(&*fd, new.index) {
            Ok(()) => Ok(Some(Arc::new(PacketLink::new(fd, new.mtu as usize, new.mac)))),
            Err(error) if error.raw_os_error() == Some(ENODEV) => {
                self.spare.push(fd);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn gone(&mut self, old: &Link) {
        let Some(taken) = self.links.remove(&old.index) else { return };
        tracing::debug!("network interface {} is gone", old.name);
        match (&self.wire, taken.link) {
            (Some(wire), Some(link)) => {
                wire.detach(taken.index);
                self.spare.push(link.fd().clone());
            }
            _ => {
                let _ = self.stack.interfaces.remove(taken.index);
            }
        }
    }

    fn changed(&self, old: &Link, new: &Link) {
        let Some(taken) = self.links.get(&new.index) else { return };
        let interfaces = &self.stack.interfaces;
        // The only error is that the interface is gone.
        if old.name != new.name {
            let _ = interfaces.rename(taken.index, &new.name);
        }
        if old.mtu != new.mtu {
            let _ = interfaces.set_mtu(taken.index, new.mtu);
        }
        if old.up != new.up {
            let _ = interfaces.set_up(taken.index, new.up);
        }
        if old.carrier != new.carrier {
            let _ = interfaces.set_carrier(taken.index, new.carrier);
        }
    }
}
