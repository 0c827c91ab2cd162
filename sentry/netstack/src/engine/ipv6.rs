//! IPv6 in (RFC 8200): the header and its extensions are walked, fragments are joined.

use std::net::IpAddr;

use smoltcp::wire::{Ipv6FragmentHeader, Ipv6Packet};

use super::frame::{RxChecksum, RxFrame};
use super::link::Medium;
use super::net::{Net, Packet};
use super::reassembly::{Fragment, Key, Whole};
use super::timers::TimerKey;

/// Extension headers of one packet.
const MOST_EXTENSIONS: usize = 64;
/// Options of one header, and bytes of padding between two of them (Linux's bounds).
const MOST_OPTIONS: usize = 8;
const MOST_PADDING: usize = 7;

/// What the walk over the extension headers found.
pub enum Walk {
    Done,
    Fragment(usize),
    Drop,
    /// Parameter problem: code and offset of the octet.
    Problem(u8, usize),
}

/// How far the extension headers of a packet have been read.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The header that begins at `transport`.
    pub protocol: u8,
    pub transport: usize,
    /// Where the field is that names it.
    pub named: usize,
}

impl Net {
    pub fn ipv6_input(&mut self, interface: u32, frame: RxFrame) -> Option<Packet> {
        self.stats.v6.in_packets += 1;
        let packet = match Ipv6Packet::new_checked(&frame.data[..]) {
            Ok(packet) if packet.version() == 6 => packet,
            _ => {
                self.stats.v6.in_header_errors += 1;
                return None;
            }
        };
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let looped = self.interface(interface).is_none_or(|i| i.medium == Medium::Loopback);
        let strange = source.is_multicast()
            || ((source.is_loopback() || destination.is_loopback()) && !looped && source != destination);
        let to = IpAddr::V6(destination);
        let group = destination.is_multicast();
        let own = self.interface_mut(interface).and_then(|i| i.find(to).map(|a| a.state));
        // Solicitations for a tentative address come to its solicited-node group, never to itself.
        let ours = if group { self.is_member(interface, to) } else { self.is_local(to) };
        if strange || !ours {
            self.stats.v6.in_not_ours += 1;
            let _ = own;
            return None;
        }
        let mut result = Packet {
            interface,
            source: source.into(),
            destination: to,
            protocol: packet.next_header().into(),
            ttl: packet.hop_limit(),
            tos: packet.traffic_class(),
            data: frame.data.slice(0, packet.total_len()),
            transport: 40,
            checksum: frame.checksum,
            segment: frame.segment,
            multicast: group,
            fragment: 0,
        };
        let mut joined = false;
        let mut place = Place::new(result.protocol);
        loop {
            let end = place.walk(&result.data, group);
            (result.protocol, result.transport) = (place.protocol, place.transport);
            match end {
                Walk::Done => return Some(result),
                Walk::Drop => {
                    self.stats.v6.in_header_errors += 1;
                    return None;
                }
                Walk::Problem(code, at) => {
                    self.stats.v6.in_header_errors += 1;
                    self.icmp_error(&result, (4, code), at as u32);
                    return None;
                }
                // A fragment within a joined packet is an attack.
                Walk::Fragment(_) if joined => return None,
                Walk::Fragment(before) => {
                    joined = true;
                    self.fragment6(&mut result, before)?;
                    (place.protocol, place.transport) = (result.protocol, result.transport);
                }
            }
        }
    }

    /// Takes a fragment; the packet becomes the whole if it was the last one missing. `before` is the
    /// place of the next-header field that named the fragment header.
    fn fragment6(&mut self, packet: &mut Packet, before: usize) -> Option<()> {
        let at = packet.transport;
        let bytes = packet.data.get(at..at + 8)?;
        let header = Ipv6FragmentHeader::new_checked(&bytes[2..]).ok()?;
        let next = bytes[0];
        let (offset, more, ident) =
            (usize::from(header.frag_offset()) * 8, header.more_frags(), header.ident());
        if !more && offset == 0 {
            // An atomic fragment (RFC 6946): complete in itself.
            packet.fragment = u32::try_from(packet.data.len()).unwrap_or(0);
            packet.protocol = next;
            packet.transport = at + 8;
            return Some(());
        }
        let data = packet.data.slice(at + 8, packet.data.len());
        if more && data.len() % 8 != 0 {
            self.icmp_error(packet, (4, 0), 4);
            return None;
        }
        let mut unfragmentable = packet.data[..at].to_vec();
        unfragmentable[before] = next;
        let key = Key {
            source: packet.source,
            destination: packet.destination,
            identification: ident,
            protocol: 0,
            interface: packet.interface,
        };
        let fragment = Fragment { header: unfragmentable.into(), protocol: next, offset, more, data };
        let whole = self.join_fragments(key, fragment)?;
        let mut data = whole.header.to_vec();
        packet.transport = data.len();
        data.extend_from_slice(&whole.data);
        let length = u16::try_from(data.len() - 40).ok()?;
        data[4..6].copy_from_slice(&length.to_be_bytes());
        packet.data = data.into();
        packet.fragment = whole.largest;
        packet.protocol = whole.protocol;
        packet.checksum = RxChecksum::Unknown;
        Some(())
    }

    pub fn join_fragments(&mut self, key: Key, fragment: Fragment) -> Option<Whole> {
        let now = self.now;
        let stats = self.stats.of(key.source);
        stats.fragments_received += 1;
        let whole = match self.reassembly.add(key, fragment, now) {
            Ok(whole) => whole,
            Err(()) => {
                stats.reassembly_failed += 1;
                None
            }
        };
        stats.reassembled += u64::from(whole.is_some());
        let next = self.reassembly.next();
        self.timers.set(TimerKey::Reassembly, &mut self.reassembly.timer, next);
        whole
    }

    /// Packets whose fragments did not all come in time: their senders are told.
    pub fn reassembly_due(&mut self) {
        self.reassembly.timer = None;
        let now = self.now;
        for (key, header, first) in self.reassembly.expire(now) {
            let stats = self.stats.of(key.source);
            stats.reassembly_failed += 1;
            stats.reassembly_timed_out += 1;
            let mut data = header.to_vec();
            let transport = data.len();
            data.extend_from_slice(&first);
            let packet = Packet {
                interface: key.interface,
                source: key.source,
                destination: key.destination,
                protocol: key.protocol,
                ttl: 0,
                tos: 0,
                data: data.into(),
                transport,
                checksum: RxChecksum::Valid,
                segment: None,
                multicast: key.destination.is_multicast(),
                fragment: 0,
            };
            self.icmp_error(&packet, if key.source.is_ipv4() { (11, 1) } else { (3, 1) }, 0);
        }
        let next = self.reassembly.next();
        self.timers.set(TimerKey::Reassembly, &mut self.reassembly.timer, next);
    }
}

impl Place {
    /// Behind the header of IPv6 itself.
    pub fn new(protocol: u8) -> Place {
        Place { protocol, transport: 40, named: 6 }
    }

    /// Reads on in a packet from its network header on, up to a fragment's header or the transport's.
    pub fn walk(&mut self, data: &[u8], multicast: bool) -> Walk {
        for _ in 0..MOST_EXTENSIONS {
            let at = self.transport;
            let Some(header) = data.get(at..) else { return Walk::Drop };
            match self.protocol {
                kind @ (0 | 43 | 60) => {
                    if kind == 0 && at != 40 {
                        return Walk::Problem(1, self.named);
                    }
                    let Some(length) = header.get(1).map(|units| (usize::from(*units) + 1) * 8) else {
                        return Walk::Drop;
                    };
                    let Some(header) = header.get(..length) else { return Walk::Drop };
                    let end = match kind {
                        43 => routing(header, at, multicast),
                        _ => options(header, at, kind == 0, multicast),
                    };
                    if let Some(end) = end {
                        return end;
                    }
                    self.named = at;
                    self.protocol = header[0];
                    self.transport = at + length;
                }
                44 => return Walk::Fragment(self.named),
                59 => return Walk::Drop,
                _ => return Walk::Done,
            }
        }
        Walk::Drop
    }
}

/// Looks at a routing header: only one that is used up is passed over (type 0 is dead: RFC 5095), and segment routing and that
/// of RPL are for those who have switched them on (`seg6_enabled`, `rpl_seg_enabled`).
fn routing(header: &[u8], at: usize, multicast: bool) -> Option<Walk> {
    match (header[2], header[3]) {
        _ if multicast => Some(Walk::Drop),
        (3 | 4, _) => Some(Walk::Drop),
        (_, 0) => None,
        _ => Some(Walk::Problem(0, at + 2)),
    }
}

/// Looks over the options of a header that begins at `at` (RFC 8200, 4.2). None: nothing to say.
fn options(header: &[u8], at: usize, hop: bool, multicast: bool) -> Option<Walk> {
    let mut place = 2;
    let (mut padding, mut count) = (0, 0);
    while let Some(&kind) = header.get(place) {
        let length = match (kind, header.get(place + 1)) {
            (0, _) => 1,
            (_, Some(length)) => usize::from(*length) + 2,
            (_, None) => return Some(Walk::Drop),
        };
        let Some(option) = header.get(place..place + length) else { return Some(Walk::Drop) };
        if kind <= 1 {
            padding += length;
            let zero = option.iter().skip(2).all(|byte| *byte == 0);
            if padding > MOST_PADDING || !zero {
                return Some(Walk::Drop);
            }
            place += length;
            continue;
        }
        (padding, count) = (0, count + 1);
        if count > MOST_OPTIONS {
            return Some(Walk::Drop);
        }
        match kind {
            // Router alert.
            5 if hop && length == 4 => {}
            5 if hop => return Some(Walk::Drop),
            // Jumbo payload (RFC 2675): no packet here is that long.
            0xc2 if hop && (length != 6 || (at + place) % 4 != 2) => return Some(Walk::Drop),
            0xc2 if hop && option[2..4] == [0, 0] => return Some(Walk::Problem(0, at + place + 2)),
            0xc2 if hop => return Some(Walk::Problem(0, at + place)),
            _ => match kind >> 6 {
                0 => {}
                1 => return Some(Walk::Drop),
                3 if multicast => return Some(Walk::Drop),
                _ => return Some(Walk::Problem(2, at + place)),
            },
        }
        place += length;
    }
    None
}
