//! What stands beside the header of IP, as programs set it and are told of it: options of IPv4 (ip(7)), extension headers of
//! IPv6 (RFC 3542, and in the words of RFC 2292), flow labels.

use super::base::Base;
use super::options::{SOL_IP, SOL_IPV6, ip, ipv6, number};
use crate::socket::ControlMessage;
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::vfs::Caller;
use netstack::datagram::Datagram;
use netstack::extensions::{DESTINATION, Extensions, HOP_BY_HOP, ROUTING};
use netstack::options::{Giver, MOST, Options};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The longest extension header that may be set.
const LONGEST: usize = 8 * 255;
/// Segment routing (RFC 8754).
const SEGMENTS: u8 = 4;
/// What of `IPV6_FLOWINFO` is there, and what of that is the label.
const FLOWINFO: u32 = 0x0fff_ffff;
pub(super) const LABEL: u32 = 0x000f_ffff;

/// What all datagrams of a socket have.
#[derive(Clone, Debug, Default)]
pub struct Sticky {
    pub extensions: Option<Arc<Extensions>>,
    pub options: Option<Arc<Options>>,
    /// The flow label of the destination it is connected to (`IPV6_FLOWINFO_SEND`).
    pub flow: u32,
}

/// What goes with one datagram, beside what [`SendControl`](super::control::SendControl) has.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub extensions: Extensions,
    pub options: Option<Arc<Options>>,
    pub dont_fragment: Option<bool>,
    pub flow: Option<u32>,
    /// `MSG_DONTROUTE`
    pub direct: bool,
}

/// Whether the caller may set options of hosts on the way.
pub fn may_raw(cx: &Caller<'_>) -> bool {
    cx.task.is_some_and(|task| cx.creds.has_cap_in(&task.namespaces().net.user_ns, CapSet::NET_RAW))
}

/// The options that are extension headers.
pub fn is_extension(name: i32) -> bool {
    matches!(name, ipv6::HOPOPTS | ipv6::RTHDRDSTOPTS | ipv6::RTHDR | ipv6::DSTOPTS)
}

/// Bytes that an extension header says it has.
fn told_length(header: &[u8]) -> usize {
    header.get(1).map_or(0, |units| (usize::from(*units) + 1) * 8)
}

/// Whether a segment routing header of a program is sound.
fn is_segment_route(header: &[u8]) -> bool {
    let (Some(left), Some(last)) = (header.get(3), header.get(4)) else { return false };
    if told_length(header) != header.len() || left > last {
        return false;
    }
    let Some(mut rest) = header.get(8 + (usize::from(*last) + 1) * 16..) else { return false };
    // What follows the segments is made of types, lengths and values.
    while let Some(length) = rest.get(1) {
        match rest.get(2 + usize::from(*length)..) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    rest.is_empty()
}

impl Base {
    pub(super) fn sticky(&self) -> MutexGuard<'_, Sticky> {
        self.sticky.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets an extension header of all datagrams, or takes it away: EPERM, EINVAL.
    pub(super) fn set_extension(&self, cx: &Caller<'_>, name: i32, value: &[u8]) -> Result<()> {
        if name != ipv6::RTHDR && !may_raw(cx) {
            return Err(Errno::EPERM);
        }
        let mut header = None;
        if !value.is_empty() {
            if value.len() < 2
                || value.len() % 8 != 0
                || value.len() > LONGEST
                || told_length(value) > value.len()
            {
                return Err(Errno::EINVAL);
            }
            // Other types are those of mobile hosts, which this is none of, and one that is given up (RFC 5095).
            if name == ipv6::RTHDR && !(value[2] == SEGMENTS && is_segment_route(value)) {
                return Err(Errno::EINVAL);
            }
            header = Some(value[..told_length(value)].to_vec());
        }
        let mut sticky = self.sticky();
        let mut all = sticky.extensions.as_deref().cloned().unwrap_or_default();
        match name {
            ipv6::HOPOPTS => all.hop = header,
            ipv6::RTHDRDSTOPTS => all.before_routing = header,
            ipv6::RTHDR => all.routing = header,
            _ => all.destination = header,
        }
        sticky.extensions = (!all.is_empty()).then(|| Arc::new(all));
        Ok(())
    }

    /// The extension header that is set, empty if none is.
    pub(super) fn get_extension(&self, name: i32) -> Vec<u8> {
        let sticky = self.sticky();
        let Some(all) = &sticky.extensions else { return Vec::new() };
        let header = match name {
            ipv6::HOPOPTS => &all.hop,
            ipv6::RTHDRDSTOPTS => &all.before_routing,
            ipv6::RTHDR => &all.routing,
            _ => &all.destination,
        };
        header.clone().unwrap_or_default()
    }

    /// `IP_OPTIONS`: EINVAL.
    pub(super) fn set_options(&self, cx: &Caller<'_>, value: &[u8]) -> Result<()> {
        let options = read_options(value, may_raw(cx))?;
        self.sticky().options = options;
        Ok(())
    }

    /// The flow label that the address of a destination has (`IPV6_FLOWINFO_SEND`).
    pub(super) fn flow_of(&self, address: &[u8]) -> Option<u32> {
        let raw: [u8; 4] = address.get(4..8)?.try_into().ok()?;
        let six = address.len() >= super::address::LEN6 && self.numbers.on(SOL_IPV6, ipv6::FLOWINFO_SEND);
        six.then(|| u32::from_be_bytes(raw) & LABEL)
    }

    /// `IPV6_ADDR_PREFERENCES`: EINVAL for what excludes each other. There are no addresses among which they could choose.
    pub(super) fn set_preferences(&self, value: &[u8]) -> Result<()> {
        let v = number(SOL_IPV6, value)?;
        let groups = [TEMPORARY | PUBLIC | EITHER, HOME | CARE_OF, CRYPTOGRAPHIC | NOT_CRYPTOGRAPHIC];
        if groups.iter().any(|group| (v & group).count_ones() > 1) {
            return Err(Errno::EINVAL);
        }
        // What is not asked for any more is not kept.
        self.numbers.put(SOL_IPV6, ipv6::ADDR_PREFERENCES, v & (TEMPORARY | PUBLIC | CARE_OF));
        Ok(())
    }

    pub(super) fn preferences(&self) -> i32 {
        let v = self.numbers.get(SOL_IPV6, ipv6::ADDR_PREFERENCES).unwrap_or(0);
        let kind = if v & (TEMPORARY | PUBLIC) == 0 { EITHER } else { 0 };
        v | kind | if v & CARE_OF == 0 { HOME } else { 0 }
    }

    /// What is told of the headers of a datagram of IPv4.
    pub(super) fn told4(&self, from: &Datagram, out: &mut Vec<ControlMessage>) {
        let Some(between) = &from.between else { return };
        if self.numbers.on(SOL_IP, ip::RECVOPTS) {
            out.push(ControlMessage { level: SOL_IP, kind: ip::RECVOPTS, data: between.bytes.to_vec() });
        }
        if self.numbers.on(SOL_IP, ip::RETOPTS) {
            let data = Options::read(&between.bytes, Giver::Packet).unwrap_or_default().echoed();
            out.push(ControlMessage { level: SOL_IP, kind: ip::RETOPTS, data });
        }
    }

    /// What is told of the headers of a datagram of IPv6, in Linux' order: the names of RFC 3542, then the older ones.
    pub(super) fn told6(&self, from: &Datagram, out: &mut Vec<ControlMessage>) {
        let n = &self.numbers;
        let on = |name: i32| n.switched_on(SOL_IPV6, name);
        let mut push = |kind: i32, data: Vec<u8>| out.push(ControlMessage { level: SOL_IPV6, kind, data });
        let flow = u32::from(from.tos) << 20 | from.flow;
        if flow != 0 && on(ipv6::FLOWINFO) {
            push(ipv6::FLOWINFO, flow.to_be_bytes().to_vec());
        }
        let headers = from.between.as_ref().map(|between| between.headers()).unwrap_or_default();
        let hop = headers.iter().find(|(kind, _)| *kind == HOP_BY_HOP).map(|(_, header)| header.to_vec());
        if let Some(hop) = hop.clone().filter(|_| on(ipv6::RECVHOPOPTS)) {
            push(ipv6::HOPOPTS, hop);
        }
        for (kind, header) in &headers {
            match *kind {
                DESTINATION if on(ipv6::RECVDSTOPTS) => push(ipv6::DSTOPTS, header.to_vec()),
                ROUTING if on(ipv6::RECVRTHDR) => push(ipv6::RTHDR, header.to_vec()),
                _ => {}
            }
        }
        if on(ipv6::OLD_PKTINFO) {
            let data = super::control::pktinfo6(from.device, from.to.ip).data;
            push(ipv6::OLD_PKTINFO, data);
        }
        if on(ipv6::OLD_HOPLIMIT) {
            push(ipv6::OLD_HOPLIMIT, i32::from(from.ttl).to_ne_bytes().to_vec());
        }
        if let Some(hop) = hop.filter(|_| on(ipv6::OLD_HOPOPTS)) {
            push(ipv6::OLD_HOPOPTS, hop);
        }
        // Of several headers of a kind the last one, before and behind the last routing header.
        let routing = headers.iter().rposition(|(kind, _)| *kind == ROUTING);
        let (before, behind) = headers.split_at(routing.unwrap_or(0));
        let last = |list: &[(u8, &[u8])]| {
            list.iter().rev().find(|(kind, _)| *kind == DESTINATION).map(|(_, header)| header.to_vec())
        };
        if let Some(header) = last(before).filter(|_| on(ipv6::OLD_DSTOPTS)) {
            push(ipv6::OLD_DSTOPTS, header);
        }
        if let Some((_, header)) = routing.and_then(|at| headers.get(at)).filter(|_| on(ipv6::OLD_RTHDR)) {
            push(ipv6::OLD_RTHDR, header.to_vec());
        }
        if let Some(header) = last(behind).filter(|_| on(ipv6::OLD_DSTOPTS)) {
            push(ipv6::OLD_DSTOPTS, header);
        }
    }
}

/// `IPV6_PREFER_SRC_*`
const TEMPORARY: i32 = 1;
const PUBLIC: i32 = 2;
const CARE_OF: i32 = 4;
const CRYPTOGRAPHIC: i32 = 8;
const EITHER: i32 = 0x100;
const HOME: i32 = 0x400;
const NOT_CRYPTOGRAPHIC: i32 = 0x800;

/// Options of IPv4 as a program gives them; none if there are none: EINVAL.
fn read_options(value: &[u8], raw: bool) -> Result<Option<Arc<Options>>> {
    if value.len() > MOST {
        return Err(Errno::EINVAL);
    }
    let options = Options::read(value, Giver::Program(raw)).map_err(|_| Errno::EINVAL)?;
    Ok((!options.is_empty()).then(|| Arc::new(options)))
}

impl Said {
    /// Takes a control message that is about headers: false if it is not. EINVAL, EPERM. `raw`: the caller has `CAP_NET_RAW`.
    pub fn take(&mut self, m: &ControlMessage, raw: bool) -> Result<bool> {
        let header = || {
            let length = told_length(&m.data);
            m.data.get(..length).filter(|header| !header.is_empty()).map(<[u8]>::to_vec).ok_or(Errno::EINVAL)
        };
        let allowed = |header: Vec<u8>| if raw { Ok(Some(header)) } else { Err(Errno::EPERM) };
        match (m.level, m.kind) {
            (SOL_IP, ip::RETOPTS) => {
                let end = m.data.len().min(MOST);
                self.options = read_options(&m.data[..end], raw)?;
            }
            (SOL_IPV6, ipv6::HOPOPTS | ipv6::OLD_HOPOPTS) => {
                if self.extensions.hop.is_some() {
                    return Err(Errno::EINVAL);
                }
                self.extensions.hop = allowed(header()?)?;
            }
            (SOL_IPV6, ipv6::OLD_DSTOPTS) if self.extensions.destination.is_some() => {
                return Err(Errno::EINVAL);
            }
            (SOL_IPV6, ipv6::DSTOPTS | ipv6::OLD_DSTOPTS) => {
                self.extensions.destination = allowed(header()?)?;
            }
            (SOL_IPV6, ipv6::RTHDRDSTOPTS) => self.extensions.before_routing = allowed(header()?)?,
            // Those of mobile hosts alone could be sent this way.
            (SOL_IPV6, ipv6::RTHDR | ipv6::OLD_RTHDR) => return Err(Errno::EINVAL),
            (SOL_IPV6, ipv6::DONTFRAG) => {
                let raw: [u8; 4] = m.data.as_slice().try_into().map_err(|_| Errno::EINVAL)?;
                self.dont_fragment = match i32::from_ne_bytes(raw) {
                    0 => Some(false),
                    1 => Some(true),
                    _ => return Err(Errno::EINVAL),
                };
            }
            (SOL_IPV6, ipv6::FLOWINFO) => {
                let raw: [u8; 4] = m.data.get(..4).and_then(|d| d.try_into().ok()).ok_or(Errno::EINVAL)?;
                self.flow = Some(u32::from_be_bytes(raw) & FLOWINFO & LABEL);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether nothing was said of headers.
    pub fn is_plain(&self) -> bool {
        self.extensions.is_empty() && self.options.is_none() && self.flow.is_none()
    }
}

/// A place for what all datagrams have.
pub type StickyCell = Mutex<Sticky>;
