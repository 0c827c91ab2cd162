//! Control messages of internet sockets (cmsg(3)): what is told beside data, what a sender says.

use super::address::{encode, encode4, octets6};
use super::base::Base;
use super::headers::Said;
use super::options::{SOL_IP, SOL_IPV6, SOL_UDP, ip, ipv6, udp};
use super::stacks::errno;
use crate::socket::ControlMessage;
use abi::socket::{SCM_CREDENTIALS, SCM_RIGHTS, SOL_SOCKET, so};
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::vfs::Caller;
use netstack::datagram::ErrorReport;
use netstack::{Endpoint, Family};
/// What the control messages of a sender say.
pub use platform::hostsys::datagram::With as SendControl;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Base {
    /// Control messages for what was received, in Linux' order.
    pub fn control(&self, from: &netstack::datagram::Datagram) -> Vec<ControlMessage> {
        let n = &self.numbers;
        let mut out = Vec::new();
        self.options.stamp(from.time, &mut out);
        if self.options.tells_losses() && from.drops > 0 {
            let drops = i32::from_ne_bytes(from.drops.to_ne_bytes());
            out.push(ControlMessage::int(SOL_SOCKET, so::RXQ_OVFL, drops));
        }
        self.options.tell_tag(from.tag.mark, from.tag.priority, &mut out);
        if let Some(size) = from.segment {
            out.push(ControlMessage::int(SOL_UDP, udp::GRO, size.into()));
        }
        match from.to.ip {
            IpAddr::V4(to) => {
                if self.family == Family::V6 && n.on(SOL_IPV6, ipv6::RECVPKTINFO) {
                    out.push(pktinfo6(from.device, from.to.ip));
                }
                if n.on(SOL_IP, ip::PKTINFO) {
                    out.push(pktinfo4(from.device, to, to));
                }
                if n.on(SOL_IP, ip::RECVTTL) {
                    out.push(ControlMessage::int(SOL_IP, ip::TTL, from.ttl.into()));
                }
                if n.on(SOL_IP, ip::RECVTOS) {
                    out.push(ControlMessage { level: SOL_IP, kind: ip::TOS, data: vec![from.tos] });
                }
                self.told4(from, &mut out);
                if n.on(SOL_IP, ip::RECVORIGDSTADDR) {
                    let data = encode4(to, from.to.port);
                    out.push(ControlMessage { level: SOL_IP, kind: ip::RECVORIGDSTADDR, data });
                }
                if from.fragment > 0 && n.on(SOL_IP, ip::RECVFRAGSIZE) {
                    out.push(ControlMessage::int(SOL_IP, ip::RECVFRAGSIZE, from.fragment.cast_signed()));
                }
            }
            IpAddr::V6(_) => {
                if n.on(SOL_IPV6, ipv6::RECVPKTINFO) {
                    out.push(pktinfo6(from.device, from.to.ip));
                }
                if n.on(SOL_IPV6, ipv6::RECVHOPLIMIT) {
                    out.push(ControlMessage::int(SOL_IPV6, ipv6::HOPLIMIT, from.ttl.into()));
                }
                if n.on(SOL_IPV6, ipv6::RECVTCLASS) {
                    out.push(ControlMessage::int(SOL_IPV6, ipv6::TCLASS, from.tos.into()));
                }
                self.told6(from, &mut out);
                if n.on(SOL_IPV6, ipv6::RECVORIGDSTADDR) {
                    let data = encode(Family::V6, from.to);
                    out.push(ControlMessage { level: SOL_IPV6, kind: ipv6::RECVORIGDSTADDR, data });
                }
                if from.fragment > 0 && n.on(SOL_IPV6, ipv6::RECVFRAGSIZE) {
                    let size = from.fragment.cast_signed();
                    out.push(ControlMessage::int(SOL_IPV6, ipv6::RECVFRAGSIZE, size));
                }
            }
        }
        out
    }

    /// `struct sock_extended_err` with the address of who reported it.
    pub fn error_report(&self, r: &ErrorReport) -> ControlMessage {
        let offender = r.offender.map(|o| Endpoint::new(o, 0));
        let number = u32::from(errno(r.error).raw());
        let (level, name) = match r.to.ip {
            IpAddr::V4(_) => (SOL_IP, ip::RECVERR_RFC4884),
            IpAddr::V6(_) => (SOL_IPV6, ipv6::RECVERR_RFC4884),
        };
        // `struct sock_ee_data_rfc4884`: where the extensions begin, and whether they are wrong.
        let extension = r.extension.filter(|_| self.numbers.on(level, name)).map_or(0, |(at, sound)| {
            let [a, b] = at.to_ne_bytes();
            u32::from_ne_bytes([a, b, u8::from(!sound), 0])
        });
        extended_error(self.family, number, [r.origin, r.kind, r.code], [r.info, extension], offender)
    }
}

/// `struct sock_extended_err` as a message of `IP_RECVERR` or `IPV6_RECVERR`. Without an offender there is not even a family.
pub fn extended_error(
    family: Family,
    number: u32,
    what: [u8; 3],
    info: [u32; 2],
    offender: Option<Endpoint>,
) -> ControlMessage {
    let mut data = number.to_ne_bytes().to_vec();
    data.extend(what);
    data.push(0);
    data.extend(info.iter().flat_map(|i| i.to_ne_bytes()));
    data.extend(encode(family, offender.unwrap_or(Endpoint::any(family))));
    if offender.is_none() {
        data[16..].fill(0);
    }
    match family {
        Family::V4 => ControlMessage { level: SOL_IP, kind: ip::RECVERR, data },
        Family::V6 => ControlMessage { level: SOL_IPV6, kind: ipv6::RECVERR, data },
    }
}

/// The report that sends with `MSG_ZEROCOPY` are done with their memory. As on a loopback interface, bytes
/// were copied (`SO_EE_CODE_ZEROCOPY_COPIED`).
pub fn zerocopy_report(family: Family, first: u32, last: u32) -> ControlMessage {
    const ORIGIN: u8 = 5;
    const COPIED: u8 = 1;
    extended_error(family, 0, [ORIGIN, 0, COPIED], [first, last], None)
}

/// `IP_PKTINFO`: the interface, the local address, and the one in the header.
pub fn pktinfo4(device: u32, local: Ipv4Addr, to: Ipv4Addr) -> ControlMessage {
    let mut data = device.to_ne_bytes().to_vec();
    data.extend(local.octets());
    data.extend(to.octets());
    ControlMessage { level: SOL_IP, kind: ip::PKTINFO, data }
}

/// `IPV6_PKTINFO`
pub fn pktinfo6(device: u32, to: IpAddr) -> ControlMessage {
    let mut data = octets6(to).to_vec();
    data.extend(device.to_ne_bytes());
    ControlMessage { level: SOL_IPV6, kind: ipv6::PKTINFO, data }
}

/// What a sender may not say of its messages: EPERM.
pub fn check_rights(cx: &Caller<'_>, control: &SendControl) -> Result<()> {
    let may = cx.creds.has_cap(CapSet::NET_ADMIN) || cx.creds.has_cap(CapSet::NET_RAW);
    let urgent = control.priority.is_some_and(|n| !(0..=6).contains(&n));
    if (control.mark.is_some() || urgent) && !may { Err(Errno::EPERM) } else { Ok(()) }
}

/// Reads the control messages of a sender that say nothing of headers: EINVAL.
pub fn send_control(family: Family, list: &[ControlMessage]) -> Result<SendControl> {
    let (out, said) = all_control(family, list, false)?;
    if said.is_plain() { Ok(out) } else { Err(Errno::EINVAL) }
}

/// Reads the control messages of a sender: EINVAL, EPERM. `raw`: it has `CAP_NET_RAW`.
pub fn all_control(family: Family, list: &[ControlMessage], raw: bool) -> Result<(SendControl, Said)> {
    let mut out = SendControl::default();
    let mut said = Said::default();
    for m in list {
        if !(m.level == SOL_IPV6 && family == Family::V4) && said.take(m, raw)? {
            continue;
        }
        let int = || -> Result<i32> {
            let raw: [u8; 4] = m.data.get(..4).and_then(|d| d.try_into().ok()).ok_or(Errno::EINVAL)?;
            Ok(i32::from_ne_bytes(raw))
        };
        let word = |at: usize| -> [u8; 4] {
            m.data.get(at..at + 4).and_then(|d| d.try_into().ok()).unwrap_or_default()
        };
        match (m.level, m.kind) {
            // Levels of the other family are passed over.
            (SOL_IPV6, kind) if family == Family::V4 && kind != ipv6::PKTINFO => {}
            (SOL_SOCKET, SCM_RIGHTS | SCM_CREDENTIALS) => {}
            (SOL_SOCKET, so::MARK | so::PRIORITY) if m.data.len() != 4 => return Err(Errno::EINVAL),
            (SOL_SOCKET, so::MARK) => out.mark = Some(int()?.cast_unsigned()),
            (SOL_SOCKET, so::PRIORITY) => out.priority = Some(int()?),
            (SOL_IP, ip::PKTINFO) if m.data.len() == 12 => {
                out.device = u32::from_ne_bytes(word(0));
                let a = Ipv4Addr::from(word(4));
                if !a.is_unspecified() {
                    out.source = Some(IpAddr::V4(a));
                }
            }
            (SOL_IP, ip::TTL) => match u8::try_from(int()?) {
                Ok(0) | Err(_) => return Err(Errno::EINVAL),
                Ok(v) => out.ttl = Some(v),
            },
            (SOL_IP, ip::TOS) => {
                let v = if m.data.len() >= 4 {
                    int()?
                } else {
                    m.data.first().copied().ok_or(Errno::EINVAL)?.into()
                };
                out.tos = Some(u8::try_from(v).map_err(|_| Errno::EINVAL)?);
            }
            (SOL_IPV6, ipv6::PKTINFO | ipv6::OLD_PKTINFO) if family == Family::V6 && m.data.len() >= 20 => {
                out.device = u32::from_ne_bytes(word(16));
                let raw: [u8; 16] = m.data[..16].try_into().unwrap_or_default();
                let a = netstack::canonical(IpAddr::V6(Ipv6Addr::from(raw)));
                if !a.is_unspecified() {
                    out.source = Some(a);
                }
            }
            (SOL_IPV6, ipv6::HOPLIMIT | ipv6::OLD_HOPLIMIT) if family == Family::V6 => match int()? {
                -1 => {}
                v => out.ttl = Some(u8::try_from(v).map_err(|_| Errno::EINVAL)?),
            },
            (SOL_IPV6, ipv6::TCLASS) if family == Family::V6 => match int()? {
                -1 => {}
                v => out.tos = Some(u8::try_from(v).map_err(|_| Errno::EINVAL)?),
            },
            (SOL_UDP, udp::SEGMENT) => {
                let raw: [u8; 2] = m.data.get(..2).and_then(|d| d.try_into().ok()).ok_or(Errno::EINVAL)?;
                out.segment = Some(u16::from_ne_bytes(raw));
            }
            (SOL_IP | SOL_IPV6 | SOL_SOCKET, _) => return Err(Errno::EINVAL),
            _ => {}
        }
    }
    Ok((out, said))
}
