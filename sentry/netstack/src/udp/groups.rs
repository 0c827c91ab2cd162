//! Multicast groups of a UDP socket, with the sources it wants or does not want (RFC 3678).

use super::UdpSocket;
use crate::error::{NetError, Result};
use std::net::IpAddr;

/// Sources that a group may have (`igmp_max_msf`, `mld_max_msf`).
fn most_sources(group: IpAddr) -> usize {
    if group.is_ipv4() { 10 } else { 64 }
}

/// A group joined.
#[derive(Clone, Debug)]
pub(super) struct Membership {
    group: IpAddr,
    device: u32,
    /// Only of these sources; else of all but these.
    include: bool,
    sources: Vec<IpAddr>,
}

impl Membership {
    fn wants(&self, source: IpAddr) -> bool {
        self.sources.contains(&source) == self.include
    }
}

/// What is done to the sources of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceChange {
    /// `IP_ADD_SOURCE_MEMBERSHIP`
    Join,
    /// `IP_DROP_SOURCE_MEMBERSHIP`
    Leave,
    /// `IP_BLOCK_SOURCE`
    Block,
    /// `IP_UNBLOCK_SOURCE`
    Unblock,
}

impl UdpSocket {
    /// Joins a group on an interface: EADDRINUSE, ENODEV.
    pub fn join(&self, group: IpAddr, device: u32) -> Result<()> {
        let device = self.group_device(group, device)?;
        let mut state = self.lock();
        if state.own.groups.iter().any(|g| (g.group, g.device) == (group, device)) {
            return Err(NetError::AddressInUse);
        }
        if state.own.groups.len() >= 20 {
            return Err(NetError::NoBuffers);
        }
        self.tell_wire(group, device, true)?;
        state.own.groups.push(Membership { group, device, include: false, sources: Vec::new() });
        Ok(())
    }

    /// EADDRNOTAVAIL
    pub fn leave(&self, group: IpAddr, device: u32) -> Result<()> {
        let gone = {
            let mut state = self.lock();
            let at =
                state.own.groups.iter().position(|g| g.group == group && (device == 0 || g.device == device));
            state.own.groups.remove(at.ok_or(NetError::AddressNotAvailable)?)
        };
        self.tell_wire(gone.group, gone.device, false)
    }

    /// Tells the packet engine of one member more or less.
    fn tell_wire(&self, group: IpAddr, device: u32, joined: bool) -> Result<()> {
        let Some(wire) = self.stack.wire() else { return Ok(()) };
        if joined {
            return wire.join(group, device);
        }
        wire.leave(group, device);
        Ok(())
    }

    /// The socket is closed: it is in no group any more.
    pub(super) fn leave_all(&self, groups: Vec<Membership>) {
        for g in groups {
            let _ = self.tell_wire(g.group, g.device, false);
        }
    }

    /// Changes the sources of a group: EINVAL for what does not fit how it was joined, EADDRNOTAVAIL, ENOBUFS.
    pub fn change_source(&self, group: IpAddr, device: u32, source: IpAddr, how: SourceChange) -> Result<()> {
        let device = self.group_device(group, device)?;
        let include = matches!(how, SourceChange::Join | SourceChange::Leave);
        let mut state = self.lock();
        let Some(at) = state.own.groups.iter().position(|g| (g.group, g.device) == (group, device)) else {
            if how != SourceChange::Join {
                return Err(NetError::Invalid);
            }
            self.tell_wire(group, device, true)?;
            state.own.groups.push(Membership { group, device, include: true, sources: vec![source] });
            return Ok(());
        };
        let m = &mut state.own.groups[at];
        if m.include != include {
            return Err(NetError::Invalid);
        }
        let found = m.sources.iter().position(|s| *s == source);
        match (how, found) {
            (SourceChange::Join | SourceChange::Block, Some(_)) => return Err(NetError::AddressNotAvailable),
            (SourceChange::Join | SourceChange::Block, None) if m.sources.len() >= most_sources(group) => {
                return Err(NetError::NoBuffers);
            }
            (SourceChange::Join | SourceChange::Block, None) => m.sources.push(source),
            (_, None) => return Err(NetError::AddressNotAvailable),
            (_, Some(i)) => {
                m.sources.remove(i);
                // Without a source there is no membership any more.
                if include && m.sources.is_empty() {
                    state.own.groups.remove(at);
                    return self.tell_wire(group, device, false);
                }
            }
        }
        Ok(())
    }

    /// Replaces the sources of a group that was joined (`IP_MSFILTER`, `MCAST_MSFILTER`): only of these, or of all but these. Only of
    /// none is to leave it. ENOBUFS, EINVAL if it was not joined.
    pub fn set_sources(&self, group: IpAddr, device: u32, include: bool, sources: Vec<IpAddr>) -> Result<()> {
        if sources.len() > most_sources(group) {
            return Err(NetError::NoBuffers);
        }
        let device = self.group_device(group, device)?;
        if include && sources.is_empty() {
            return self.leave(group, device);
        }
        let mut state = self.lock();
        let found = state.own.groups.iter_mut().find(|g| (g.group, g.device) == (group, device));
        let m = found.ok_or(NetError::Invalid)?;
        (m.include, m.sources) = (include, sources);
        Ok(())
    }

    /// Whether only these sources of a group are wanted or all but these. ENODEV, EADDRNOTAVAIL.
    pub fn sources(&self, group: IpAddr, device: u32) -> Result<(bool, Vec<IpAddr>)> {
        let device = self.group_device(group, device)?;
        let state = self.lock();
        let found = state.own.groups.iter().find(|g| (g.group, g.device) == (group, device));
        found.map(|m| (m.include, m.sources.clone())).ok_or(NetError::AddressNotAvailable)
    }

    fn group_device(&self, group: IpAddr, device: u32) -> Result<u32> {
        if device != 0 {
            return self.stack.interfaces.by_index(device).map(|i| i.index).ok_or(NetError::NoDevice);
        }
        self.stack.route(group, None, 0).map(|r| r.device).map_err(|_| NetError::NoDevice)
    }

    /// `IP_MULTICAST_ALL`
    pub fn set_all_groups(&self, on: bool) {
        self.lock().own.own_groups_only = !on;
    }

    /// Whether a datagram of a group is for this socket; `anyone`: some socket has joined the group.
    pub(crate) fn wants_group(&self, group: IpAddr, source: IpAddr, device: u32, anyone: bool) -> bool {
        let state = self.lock();
        match state.own.groups.iter().find(|g| (g.group, g.device) == (group, device)) {
            Some(m) => m.wants(source),
            None => !state.own.own_groups_only && anyone,
        }
    }

    /// The groups it has joined and their interfaces, oldest first.
    pub fn memberships(&self) -> Vec<(IpAddr, u32)> {
        self.lock().own.groups.iter().map(|g| (g.group, g.device)).collect()
    }

    pub(crate) fn joined(&self, group: IpAddr, device: u32) -> bool {
        self.lock().own.groups.iter().any(|g| (g.group, g.device) == (group, device))
    }
}
