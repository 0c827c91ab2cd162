//! Membership in multicast groups: who joined, and the reports of IGMPv3 (RFC 3376) and MLDv2 (RFC 3810),
//! or of IGMPv1, IGMPv2 and MLDv1 while a router of that version asks. Reports say "exclude nothing" for a group with members; source filters are the sockets' matter.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::addresses::solicited_node;
use super::checksum::{self, Sum};
use super::chunk::Chunk;
use super::frame::TxFrame;
use super::link::Medium;
use super::net::{ICMPV6, IGMP, Net, Packet};
use super::sending::Outgoing;
use super::time::Time;

const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const IGMP_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// Changes are reported twice (the robustness variable), a second apart at most.
const ROBUSTNESS: u8 = 2;
/// Record types of both protocols.
const IS_EXCLUDE: u8 = 2;
const TO_INCLUDE: u8 = 3;
const TO_EXCLUDE: u8 = 4;
/// How long an older version is spoken after a query of it (RFC 3376, 8.12).
const OLD_ROUTER: Duration = Duration::from_secs(260);
/// Groups of one interface.
const MOST: usize = 1024;

#[derive(Debug)]
struct Group {
    members: u32,
    /// Reports of the change still to be sent.
    repeats: u8,
    /// When the next report is due, and of which kind.
    due: Option<(Time, u8)>,
}

/// The groups of an interface.
#[derive(Default, Debug)]
pub struct Memberships {
    groups: BTreeMap<IpAddr, Group>,
    /// Until when a version is spoken instead of the newest: IGMPv1, IGMPv2, MLDv1.
    old: [Option<Time>; 3],
}

/// How a report is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dialect {
    Igmp1,
    Igmp2,
    Mld1,
    Newest,
}

impl Memberships {
    pub fn contains(&self, group: IpAddr) -> bool {
        self.groups.get(&group).is_some_and(|g| g.members > 0)
    }

    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        self.groups.iter().filter(|(_, g)| g.members > 0).map(|(ip, g)| (*ip, g.members))
    }

    fn dialect(&self, v4: bool, now: Time) -> Dialect {
        let spoken = |which: usize| self.old[which].is_some_and(|until| until > now);
        match v4 {
            true if spoken(0) => Dialect::Igmp1,
            true if spoken(1) => Dialect::Igmp2,
            false if spoken(2) => Dialect::Mld1,
            _ => Dialect::Newest,
        }
    }

    pub fn next(&self) -> Option<Time> {
        self.groups.values().filter_map(|group| group.due.map(|(at, _)| at)).min()
    }
}

/// Groups that are never reported.
fn silent(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group == ALL_SYSTEMS,
        IpAddr::V6(group) => {
            group == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1) || group.octets()[1] & 0xf < 2
        }
    }
}

impl Net {
    /// True if packets to the group are for us on that interface.
    pub fn is_member(&self, interface: u32, group: IpAddr) -> bool {
        let all = match group {
            IpAddr::V4(group) => group == ALL_SYSTEMS,
            IpAddr::V6(group) => group == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        };
        all || self.interface(interface).is_some_and(|i| i.groups.contains(group))
    }

    /// One more member of the group on the interface; false if there are too many groups.
    pub fn join(&mut self, interface: u32, group: IpAddr) -> bool {
        let Some(own) = self.interface_mut(interface) else { return false };
        if own.groups.groups.len() >= MOST && !own.groups.groups.contains_key(&group) {
            return false;
        }
        let entry = own.groups.groups.entry(group).or_insert(Group { members: 0, repeats: 0, due: None });
        entry.members += 1;
        if entry.members == 1 && !silent(group) {
            entry.repeats = ROBUSTNESS;
            self.report_change(interface, group, TO_EXCLUDE);
        }
        self.arm_interfaces();
        true
    }

    /// One member less.
    pub fn leave(&mut self, interface: u32, group: IpAddr) -> bool {
        let Some(own) = self.interface_mut(interface) else { return false };
        let Some(entry) = own.groups.groups.get_mut(&group).filter(|g| g.members > 0) else { return false };
        entry.members -= 1;
        if entry.members == 0 {
            if silent(group) {
                own.groups.groups.remove(&group);
            } else {
                entry.repeats = ROBUSTNESS;
                self.report_change(interface, group, TO_INCLUDE);
            }
        }
        self.arm_interfaces();
        true
    }

    pub fn join_solicited(&mut self, interface: u32, ip: Ipv6Addr) {
        if self.interface(interface).is_some_and(|i| i.medium == Medium::Ethernet) {
            self.join(interface, solicited_node(ip).into());
        }
    }

    pub fn leave_solicited(&mut self, interface: u32, ip: Ipv6Addr) {
        self.leave(interface, solicited_node(ip).into());
    }

    fn report_change(&mut self, interface: u32, group: IpAddr, kind: u8) {
        let delay = Duration::from_millis(u64::from(self.random.u32() % 1000));
        let now = self.now;
        if let Some(own) = self.interface_mut(interface)
            && let Some(entry) = own.groups.groups.get_mut(&group)
        {
            entry.repeats = entry.repeats.saturating_sub(1);
            entry.due = (entry.repeats > 0).then(|| (now + delay, kind));
            if entry.repeats == 0 && entry.members == 0 {
                own.groups.groups.remove(&group);
            }
        }
        self.report(interface, &[(group, kind)]);
    }

    /// Reports that are due.
    pub fn multicast_due(&mut self) {
        let now = self.now;
        let mut due = Vec::new();
        for interface in &mut self.interfaces {
            for (group, entry) in &mut interface.groups.groups {
                if let Some((_, kind)) = entry.due.filter(|(at, _)| *at <= now) {
                    entry.due = None;
                    due.push((interface.index, *group, kind));
                }
            }
        }
        for (interface, group, kind) in due {
            if kind == IS_EXCLUDE {
                self.report(interface, &[(group, kind)]);
            } else {
                self.report_change(interface, group, kind);
            }
        }
    }

    /// A query: each group of the interface (or the one asked for) reports within the time.
    fn query(&mut self, interface: u32, group: IpAddr, time: Duration) {
        let now = self.now;
        let random = u64::from(self.random.u32());
        let Some(own) = self.interface_mut(interface) else { return };
        let span = (time.as_millis() as u64).max(1);
        for (number, (member, entry)) in own.groups.groups.iter_mut().enumerate() {
            let asked = group.is_unspecified() || *member == group;
            if asked && member.is_ipv4() == group.is_ipv4() && entry.members > 0 && !silent(*member) {
                let at = now + Duration::from_millis((random.wrapping_add(number as u64 * 7919)) % span);
                if entry.due.is_none_or(|(old, _)| old > at) {
                    entry.due = Some((at, entry.due.map_or(IS_EXCLUDE, |(_, kind)| kind)));
                }
            }
        }
        self.arm_interfaces();
    }

    /// Notes a router of an older version.
    fn old_router(&mut self, interface: u32, which: usize) {
        let until = self.now + OLD_ROUTER;
        if let Some(own) = self.interface_mut(interface) {
            own.groups.old[which] = Some(until);
        }
    }

    /// Another member has reported the group: in the older versions that is enough for the router.
    fn heard_report(&mut self, interface: u32, group: IpAddr) {
        let now = self.now;
        if let Some(own) = self.interface_mut(interface)
            && own.groups.dialect(group.is_ipv4(), now) != Dialect::Newest
            && let Some(entry) = own.groups.groups.get_mut(&group)
            && entry.due.is_some_and(|(_, kind)| kind == IS_EXCLUDE)
        {
            entry.due = None;
        }
    }

    pub fn igmp_input(&mut self, packet: &Packet) {
        let bytes = packet.payload();
        if bytes.len() < 8 || checksum::of(bytes) != 0 {
            return;
        }
        let group = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
        match bytes[0] {
            0x11 => {
                let version_2 = bytes.len() < 12;
                if version_2 {
                    self.old_router(packet.interface, usize::from(bytes[1] != 0));
                }
                let tenths = match bytes[1] {
                    0 => 100,
                    code if code < 128 || version_2 => u64::from(code),
                    code => (u64::from(code & 0xf) | 0x10) << ((code >> 4 & 7) + 3),
                };
                self.query(packet.interface, group.into(), Duration::from_millis(tenths * 100));
            }
            0x12 | 0x16 => self.heard_report(packet.interface, group.into()),
            _ => {}
        }
    }

    /// A listener report of MLDv1; the checksum is verified.
    pub fn mld_report(&mut self, packet: &Packet) {
        if let Some(Ok(group)) = packet.payload().get(8..24).map(<[u8; 16]>::try_from) {
            self.heard_report(packet.interface, Ipv6Addr::from(group).into());
        }
    }

    /// A multicast listener query; the checksum is verified.
    pub fn mld_query(&mut self, packet: &Packet) {
        let bytes = packet.payload();
        let from_link = matches!(packet.source, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let Some(Ok(group)) = bytes.get(8..24).map(<[u8; 16]>::try_from) else { return };
        if packet.ttl != 1 || !from_link {
            return;
        }
        let code = u16::from_be_bytes([bytes[4], bytes[5]]);
        let version_1 = bytes.len() < 28;
        if version_1 {
            self.old_router(packet.interface, 2);
        }
        let millis = if code < 32768 || version_1 {
            u64::from(code)
        } else {
            u64::from(code & 0xfff | 0x1000) << ((code >> 12 & 7) + 3)
        };
        self.query(packet.interface, Ipv6Addr::from(group).into(), Duration::from_millis(millis));
    }

    fn report(&mut self, interface: u32, records: &[(IpAddr, u8)]) {
        let now = self.now;
        let Some(own) = self.interface(interface) else { return };
        if own.medium != Medium::Ethernet || !own.up {
            return;
        }
        let v4 = records.first().is_some_and(|(group, _)| group.is_ipv4());
        let dialect = own.groups.dialect(v4, now);
        if dialect == Dialect::Newest {
            let mut bytes = vec![if v4 { 0x22 } else { 143 }, 0, 0, 0, 0, 0];
            bytes.extend_from_slice(&(records.len() as u16).to_be_bytes());
            for (group, kind) in records {
                bytes.extend_from_slice(&[*kind, 0, 0, 0]);
                push_address(&mut bytes, *group);
            }
            let to = if v4 { IGMP_ROUTERS.into() } else { MLD_ROUTERS.into() };
            self.report_output(interface, to, bytes);
            return;
        }
        for &(group, kind) in records {
            let leaves = kind == TO_INCLUDE;
            let (kind, to): (u8, IpAddr) = match (dialect, leaves) {
                (Dialect::Igmp1, true) => continue,
                (Dialect::Igmp1, false) => (0x12, group),
                (Dialect::Mld1, true) => (132, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2).into()),
                (Dialect::Mld1, false) => (131, group),
                (_, true) => (0x17, Ipv4Addr::new(224, 0, 0, 2).into()),
                (_, false) => (0x16, group),
            };
            let mut bytes = vec![kind, 0, 0, 0];
            if !v4 {
                bytes.extend_from_slice(&[0; 4]);
            }
            push_address(&mut bytes, group);
            self.report_output(interface, to, bytes);
        }
    }

    /// Sends a message with the router alert option, one hop far.
    fn report_output(&mut self, interface: u32, to: IpAddr, mut bytes: Vec<u8>) {
        match to {
            IpAddr::V4(group) => {
                let source = super::route::choose_source(&self.interfaces, interface, to);
                let Some(IpAddr::V4(source)) = source else { return };
                let sum = checksum::of(&bytes);
                bytes[2..4].copy_from_slice(&sum.to_be_bytes());
                // The router alert option (RFC 2113) makes the header 24 bytes, so it is written here.
                let mut header = [0u8; 24];
                header[0] = 0x46;
                header[1] = 0xc0;
                header[2..4].copy_from_slice(&(24 + bytes.len() as u16).to_be_bytes());
                header[6] = 0x40;
                header[8] = 1;
                header[9] = IGMP;
                header[12..16].copy_from_slice(&source.octets());
                header[16..20].copy_from_slice(&group.octets());
                header[20..24].copy_from_slice(&[148, 4, 0, 0]);
                let sum = checksum::of(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                let mut frame = TxFrame::with_body(Chunk::from(bytes));
                frame.push(24).copy_from_slice(&header);
                let path = self.direct(interface, to, source.into());
                let _ = self.link_output(&path, to, frame);
            }
            IpAddr::V6(_) => {
                let source = self.interface(interface).and_then(|own| own.link_local());
                let source = source.unwrap_or(Ipv6Addr::UNSPECIFIED);
                let mut sum = Sum::pseudo(source.into(), to, ICMPV6, bytes.len());
                sum.add(&bytes);
                bytes[2..4].copy_from_slice(&sum.finish().to_be_bytes());
                // Hop-by-hop options: router alert for MLD, then padding (RFC 2711).
                let mut body = vec![ICMPV6, 0, 5, 2, 0, 0, 1, 0];
                body.extend_from_slice(&bytes);
                let path = self.direct(interface, to, source.into());
                let out = Outgoing { ttl: Some(1), ..Outgoing::new(source.into(), to, 0) };
                let _ = self.output_bytes(&path, &out, &body);
            }
        }
    }
}

fn push_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
    }
}
