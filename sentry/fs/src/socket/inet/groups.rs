//! Membership of multicast groups as options give it (ip(7), ipv6(7), RFC 3678).

use super::address;
use super::base::{Base, mreq};
use super::datagram::InetDatagram;
use super::options::{SOL_IP, SOL_IPV6, ip, ipv6};
use super::stacks::errno;
use abi::{Errno, Result};
use netstack::udp::SourceChange;
use netstack::{Endpoint, Family};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an option is about groups.
pub fn is_membership(family: Family, level: i32, name: i32) -> bool {
    match level {
        SOL_IP => {
            matches!(name, ip::ADD_MEMBERSHIP..=ip::MSFILTER | ip::MCAST_JOIN_GROUP..=ip::MCAST_MSFILTER)
        }
        SOL_IPV6 if family == Family::V6 => {
            matches!(name, ipv6::JOIN_GROUP | ipv6::LEAVE_GROUP | ip::MCAST_JOIN_GROUP..=ip::MCAST_MSFILTER)
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

/// `struct ip_msfilter` or `struct group_filter`: which sources of a group are wanted.
struct SourceFilter {
    group: IpAddr,
    device: u32,
    include: bool,
    /// As many sources as the structure says it has room for.
    count: usize,
    /// Where they begin, and how long each is.
    start: usize,
    size: usize,
}

/// The bytes of a `struct sockaddr_storage`.
const STORAGE: usize = 128;

fn word(value: &[u8], at: usize) -> Result<u32> {
    array(value, at).map(u32::from_ne_bytes)
}

impl SourceFilter {
    /// EINVAL, ENODEV.
    fn read(base: &Base, level: i32, name: i32, value: &[u8]) -> Result<SourceFilter> {
        let (group, device, mode_at, size) = if (level, name) == (SOL_IP, ip::MSFILTER) {
            // Group, interface, mode, count, sources.
            let device = base.device_of(Ipv4Addr::from(array::<4>(value, 4)?), 0);
            (IpAddr::V4(Ipv4Addr::from(array::<4>(value, 0)?)), device, 8, 4)
        } else {
            // Interface, group, mode, count, sources.
            let raw = value.get(8..8 + STORAGE).ok_or(Errno::EINVAL)?;
            let group = address::to_reach(base.family, raw, false).map_err(|_| Errno::EINVAL)?.ip;
            (group, word(value, 0), 8 + STORAGE, STORAGE)
        };
        let (mode, count) = (word(value, mode_at)?, word(value, mode_at + 4)?);
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        let count = usize::try_from(count).map_err(|_| Errno::ENOBUFS)?;
        Ok(SourceFilter { group, device: device?, include: mode == INCLUDE, count, start: mode_at + 8, size })
    }

    /// Its sources: ENOBUFS, EINVAL for a count that the value does not hold.
    fn sources(&self, family: Family, value: &[u8]) -> Result<Vec<IpAddr>> {
        // More than any socket may have.
        if self.count > 64 {
            return Err(Errno::ENOBUFS);
        }
        let raw = value.get(self.start..self.start + self.count * self.size).ok_or(Errno::EINVAL)?;
        raw.chunks_exact(self.size)
            .map(|one| match self.size {
                4 => Ok(IpAddr::V4(Ipv4Addr::from(array::<4>(one, 0)?))),
                _ => Ok(address::to_reach(family, one, false).map_err(|_| Errno::EADDRNOTAVAIL)?.ip),
            })
            .collect()
    }
}

/// `MCAST_INCLUDE`; `MCAST_EXCLUDE` is 0.
const INCLUDE: u32 = 1;

/// Whether an option tells the sources of a group, which its value names.
pub fn is_source_filter(level: i32, name: i32) -> bool {
    matches!((level, name), (SOL_IP, ip::MSFILTER | ip::MCAST_MSFILTER) | (SOL_IPV6, ip::MCAST_MSFILTER))
}

impl InetDatagram {
    /// Sets one of the options of [`is_source_filter`].
    fn set_sources(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let base = self.base();
        let filter = SourceFilter::read(base, level, name, value)?;
        let sources = filter.sources(base.family, value)?;
        if word(value, filter.start - 8)? > INCLUDE {
            return Err(Errno::EINVAL);
        }
        self.udp().set_sources(filter.group, filter.device, filter.include, sources).map_err(errno)
    }

    /// Tells what one of the options of [`is_source_filter`] is: as many sources as `asked` has room for, and how many there are.
    pub(super) fn get_sources(&self, level: i32, name: i32, asked: &[u8]) -> Result<Vec<u8>> {
        let base = self.base();
        let filter = SourceFilter::read(base, level, name, asked)?;
        let by_index = filter.size != 4;
        if by_index && filter.device == 0 {
            // No group is joined on no interface.
            return Err(Errno::EADDRNOTAVAIL);
        }
        let (include, sources) =
            self.udp().sources(filter.group, filter.device).map_err(|e| match errno(e) {
                Errno::ENODEV if by_index => Errno::EADDRNOTAVAIL,
                other => other,
            })?;
        let mut out = asked.get(..filter.start - 8).ok_or(Errno::EINVAL)?.to_vec();
        out.extend(u32::from(include).to_ne_bytes());
        out.extend(u32::try_from(sources.len()).unwrap_or(u32::MAX).to_ne_bytes());
        for source in sources.iter().take(filter.count) {
            let end = out.len() + filter.size;
            match source {
                IpAddr::V4(ip) if filter.size == 4 => out.extend(ip.octets()),
                ip => out.extend(address::encode(base.family, Endpoint::new(*ip, 0))),
            }
            out.resize(end, 0);
        }
        Ok(out)
    }

    /// Sets one of the options of [`is_membership`].
    pub(super) fn membership(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if is_source_filter(level, name) {
            return self.set_sources(level, name, value);
        }
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
