//! Membership of multicast groups as options give it (ip(7), ipv6(7), RFC 3678).

use super::address;
use super::base::mreq;
use super::datagram::InetDatagram;
use super::options::{SOL_IP, SOL_IPV6, ip, ipv6};
use super::stacks::errno;
use abi::{Errno, Result};
use netstack::Family;
use netstack::udp::SourceChange;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an option is about groups.
pub fn is_membership(family: Family, level: i32, name: i32) -> bool {
    match level {
        SOL_IP => matches!(name, ip::ADD_MEMBERSHIP..=ip::DROP_SOURCE_MEMBERSHIP | ip::MCAST_JOIN_GROUP..=47),
        SOL_IPV6 if family == Family::V6 => {
            matches!(name, ipv6::JOIN_GROUP | ipv6::LEAVE_GROUP | ip::MCAST_JOIN_GROUP..=47)
        }
        _ => false,
    }
}

/// What is done to the sources, for the options that name one.
fn source_change(name: i32) -> Option<SourceChange> {
    match name {
        ip::ADD_SOURCE_MEMBERSHIP | ip::MCAST_JOIN_SOURCE_GROUP => Some(SourceChange::Join),
        ip::DROP_SOURCE_MEMBERSHIP | ip::MCAST_LEAVE_SOURCE_GROUP => Some(SourceChange::Leave),
        ip::BLOCK_SOURCE | ip::MCAST_BLOCK_SOURCE => Some(SourceChange::Block),
        ip::UNBLOCK_SOURCE | ip::MCAST_UNBLOCK_SOURCE => Some(SourceChange::Unblock),
        _ => None,
    }
}

fn array<const N: usize>(value: &[u8], at: usize) -> Result<[u8; N]> {
    value.get(at..at + N).and_then(|v| v.try_into().ok()).ok_or(Errno::EINVAL)
}

impl InetDatagram {
    /// Sets one of the options of [`is_membership`].
    pub(super) fn membership(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let base = self.base();
        let change = source_change(name);
        let mut source = None;
        let (group, device) = match (level, name) {
            (SOL_IP, ip::ADD_MEMBERSHIP | ip::DROP_MEMBERSHIP) => {
                let group = IpAddr::V4(Ipv4Addr::from(array::<4>(value, 0)?));
                let (address, index) = mreq(value, false)?;
                (group, base.device_of(address, index)?)
            }
            (SOL_IP, ip::UNBLOCK_SOURCE..=ip::DROP_SOURCE_MEMBERSHIP) => {
                // `struct ip_mreq_source`: group, interface, source.
                let word = |at| array::<4>(value, at).map(Ipv4Addr::from);
                source = Some(IpAddr::V4(word(8)?));
                (IpAddr::V4(word(0)?), base.device_of(word(4)?, 0)?)
            }
            (SOL_IPV6, ipv6::JOIN_GROUP | ipv6::LEAVE_GROUP) => {
                let group = IpAddr::V6(Ipv6Addr::from(array::<16>(value, 0)?));
                (group, u32::from_ne_bytes(array(value, 16)?))
            }
            _ => {
                // `struct group_req`, `group_source_req`: interface, then addresses of 128 bytes each.
                let index = u32::from_ne_bytes(array(value, 0)?);
                let group = address::to_reach(base.family, value.get(8..).ok_or(Errno::EINVAL)?, true)?.ip;
                if change.is_some() {
                    let raw = value.get(136..).ok_or(Errno::EINVAL)?;
                    source = Some(address::to_reach(base.family, raw, true)?.ip);
                }
                (group, index)
            }
        };
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        let udp = self.udp();
        match (change, source) {
            (Some(how), Some(source)) => udp.change_source(group, device, source, how),
            _ if matches!(name, ip::ADD_MEMBERSHIP | ip::MCAST_JOIN_GROUP)
                || (level, name) == (SOL_IPV6, ipv6::JOIN_GROUP) =>
            {
                udp.join(group, device)
            }
            _ => udp.leave(group, device),
        }
        .map_err(errno)
    }
}
