//! Frames for the fuzzer: made from nothing with some sense, changed, and summed anew.

use std::net::IpAddr;

use super::super::checksum::{self, Sum};
use super::super::net::{FRAGMENT, ICMP, ICMPV6, IGMP, TCP, UDP};
use super::super::random::SeededRandom;
use super::{ip4, ip6};

/// A frame for an engine: of any protocol, with fields that mean something.
pub fn made(random: &mut SeededRandom, side: usize, corpus: &[Vec<u8>]) -> Vec<u8> {
    let v4 = random.below(2) == 0;
    let (own, peer) = if v4 { (ip4(side), ip4(1 - side)) } else { (ip6(side), ip6(1 - side)) };
    let source = match random.below(6) {
        0 if v4 => IpAddr::from([10, 0, 0, random.next() as u8]),
        0 => IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1 + random.below(300) as u16]),
        1 if !v4 => IpAddr::from([0u16; 8]),
        _ => peer,
    };
    let mut own = own;
    let (protocol, payload) = match random.below(12) {
        0 if v4 => return arp(random, side),
        0..3 => {
            let quoted = corpus.get(random.below(corpus.len().max(1) as u64) as usize);
            (if v4 { ICMP } else { ICMPV6 }, icmp(random, v4, quoted))
        }
        3 if v4 => (IGMP, igmp(random)),
        3..5 if !v4 => {
            own = [own, [0xff02, 0, 0, 0, 0, 0, 0, 1].into()][random.below(2) as usize];
            (ICMPV6, discovery(random))
        }
        5..7 => (UDP, udp(random)),
        7 => (random.next() as u8, noise(random, 60)),
        _ => (TCP, tcp(random)),
    };
    if v4 {
        over4(random, source, own, protocol, payload)
    } else {
        over6(random, source, own, protocol, payload)
    }
}

fn noise(random: &mut SeededRandom, most: u64) -> Vec<u8> {
    (0..random.below(most)).map(|_| random.next() as u8).collect()
}

fn ethernet(kind: u16, packet: &[u8]) -> Vec<u8> {
    // The link's addresses of `pair`: to whichever side, so that the filter lets all through.
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(packet);
    frame
}

fn arp(random: &mut SeededRandom, side: usize) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1 + random.below(3) as u8];
    packet.extend_from_slice(&[2, 0, 0, 0, random.next() as u8, random.next() as u8]);
    packet.extend_from_slice(&[10, 0, 0, random.next() as u8]);
    packet.extend_from_slice(&[2, 0, 0, 0, 0, 1 + side as u8]);
    packet.extend_from_slice(&[10, 0, 0, random.below(4) as u8]);
    ethernet(0x0806, &packet)
}

fn over4(random: &mut SeededRandom, from: IpAddr, to: IpAddr, protocol: u8, payload: Vec<u8>) -> Vec<u8> {
    let options = if random.below(6) == 0 { noise(random, 41) } else { Vec::new() };
    let words = options.len() / 4;
    let mut packet = vec![0x45 + words as u8, random.next() as u8, 0, 0, 0, random.below(4) as u8, 0, 0];
    if random.below(4) == 0 {
        packet[6..8]
            .copy_from_slice(&(random.below(40) as u16 | (random.below(2) as u16) << 13).to_be_bytes());
    }
    packet.extend_from_slice(&[1 + random.below(255) as u8, protocol, 0, 0]);
    for address in [from, to] {
        if let IpAddr::V4(address) = address {
            packet.extend_from_slice(&address.octets());
        }
    }
    packet.extend_from_slice(&options[..words * 4]);
    packet.extend_from_slice(&payload);
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    ethernet(0x0800, &packet)
}

fn over6(random: &mut SeededRandom, from: IpAddr, to: IpAddr, protocol: u8, payload: Vec<u8>) -> Vec<u8> {
    let mut next = protocol;
    let mut extensions = Vec::new();
    for _ in 0..random.below(4).saturating_sub(1) {
        let kind = [0, 43, 60, FRAGMENT][random.below(4) as usize];
        let mut header = vec![next, 0];
        if kind == FRAGMENT {
            let place = random.below(20) as u16 * 8 | random.below(2) as u16;
            header.extend_from_slice(&place.to_be_bytes());
            header.extend_from_slice(&[0, 0, 0, random.below(4) as u8]);
        } else {
            let units = random.below(3) as u8;
            header[1] = units;
            header.extend(
                (0..6 + usize::from(units) * 8)
                    .map(|_| [0, 1, 5, random.next() as u8][random.below(4) as usize]),
            );
        }
        header.extend_from_slice(&extensions);
        extensions = header;
        next = kind;
    }
    let mut packet = vec![0x60, random.next() as u8 & 15, 0, 0, 0, 0, next];
    packet.push(if random.below(2) == 0 { 255 } else { 1 + random.below(64) as u8 });
    for address in [from, to] {
        if let IpAddr::V6(address) = address {
            packet.extend_from_slice(&address.octets());
        }
    }
    packet.extend_from_slice(&extensions);
    packet.extend_from_slice(&payload);
    let length = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    ethernet(0x86dd, &packet)
}

/// Echoes, and errors that quote what was sent.
fn icmp(random: &mut SeededRandom, v4: bool, quoted: Option<&Vec<u8>>) -> Vec<u8> {
    let kind = match v4 {
        true => [8, 0, 3, 3, 3, 11, 12, 13][random.below(8) as usize],
        false => [128, 129, 1, 2, 2, 3, 4, random.next() as u8][random.below(8) as usize],
    };
    let mut message = vec![kind, random.below(16) as u8, 0, 0, 0, 0];
    message.extend_from_slice(&[random.below(8) as u8, random.next() as u8]);
    let quote = quoted.and_then(|frame| frame.get(14..)).unwrap_or_default();
    message.extend_from_slice(&quote[..quote.len().min(8 + random.below(600) as usize)]);
    message
}

fn igmp(random: &mut SeededRandom) -> Vec<u8> {
    let kind = [0x11, 0x11, 0x12, 0x16, 0x17, 0x22][random.below(6) as usize];
    let mut message = vec![kind, random.next() as u8 * (random.below(3) != 0) as u8, 0, 0];
    let group = [[0, 0, 0, 0], [239, 1, 2, 3], [224, 0, 0, 1]][random.below(3) as usize];
    message.extend_from_slice(&group);
    if random.below(2) == 0 {
        message.extend_from_slice(&[0; 4]);
    }
    message
}

/// Neighbour discovery and multicast listeners, with options of all kinds.
fn discovery(random: &mut SeededRandom) -> Vec<u8> {
    let kind = [133, 134, 134, 134, 135, 136, 137, 130, 131, 132][random.below(10) as usize];
    let mut message = vec![kind, 0, 0, 0];
    message.extend((0..4).map(|_| random.next() as u8));
    if kind == 134 {
        message.extend_from_slice(&[0; 8]);
    } else if kind != 133 {
        let target = [ip6(0), ip6(1), [0xfd00, 0, 0, 0, 0, 0, 0, random.below(4) as u16].into()];
        if let IpAddr::V6(target) = target[random.below(3) as usize] {
            message.extend_from_slice(&target.octets());
        }
    }
    for _ in 0..random.below(5) {
        match random.below(4) {
            0 => {
                message.extend_from_slice(&[1 + random.below(2) as u8, 1, 2, 0, 0, 0, 0, random.next() as u8])
            }
            1 => message.extend_from_slice(&[5, 1, 0, 0, 0, 0, random.below(8) as u8, random.next() as u8]),
            2 => {
                message.extend_from_slice(&[
                    3,
                    4,
                    64,
                    0xc0,
                    0,
                    0,
                    0,
                    random.next() as u8,
                    0,
                    0,
                    0,
                    1,
                    0,
                    0,
                    0,
                    0,
                ]);
                message.extend_from_slice(&[
                    0xfd,
                    1,
                    random.next() as u8,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                ]);
            }
            _ => {
                let units = random.below(3) as u8;
                message.extend_from_slice(&[random.next() as u8, units]);
                message.extend((2..usize::from(units) * 8).map(|_| random.next() as u8));
            }
        }
    }
    message
}

fn udp(random: &mut SeededRandom) -> Vec<u8> {
    let payload = noise(random, 100);
    let mut message = vec![0, random.next() as u8];
    message.extend_from_slice(&[53u16, 5000, 9][random.below(3) as usize].to_be_bytes());
    message.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
    message.extend_from_slice(&[0, 0]);
    message.extend_from_slice(&payload);
    message
}

fn tcp(random: &mut SeededRandom) -> Vec<u8> {
    let options = if random.below(2) == 0 { tcp_options(random) } else { Vec::new() };
    let ports = [(4000u16, 80u16), (80, 4000), (1 + random.below(3000) as u16, 80), (7, 9)];
    let (from, to) = ports[random.below(4) as usize];
    let mut message = from.to_be_bytes().to_vec();
    message.extend_from_slice(&to.to_be_bytes());
    message.extend((0..8).map(|_| random.next() as u8));
    message.push(((5 + options.len() / 4) as u8) << 4);
    message.push([2, 16, 18, 4, 17, 24, 56, random.next() as u8][random.below(8) as usize]);
    message.extend((0..2).map(|_| random.next() as u8));
    message.extend_from_slice(&[0, 0, 0, random.next() as u8]);
    message.extend_from_slice(&options);
    message.extend_from_slice(&noise(random, 40));
    message
}

/// Up to 40 option bytes: whole options with odd values, or noise.
fn tcp_options(random: &mut SeededRandom) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..random.below(5) {
        match random.below(7) {
            0 => options.extend_from_slice(&[2, 4, random.next() as u8, random.next() as u8]),
            1 => options.extend_from_slice(&[3, 3, random.next() as u8]),
            2 => options.extend_from_slice(&[4, 2]),
            3 => {
                options.extend_from_slice(&[8, 10]);
                options.extend((0..8).map(|_| random.next() as u8));
            }
            4 => {
                let blocks = random.below(5) as usize;
                options.extend_from_slice(&[5, (2 + 8 * blocks) as u8]);
                options.extend((0..8 * blocks).map(|_| random.next() as u8));
            }
            5 => options.extend_from_slice(&[random.next() as u8, random.below(12) as u8]),
            _ => options.extend_from_slice(&noise(random, 12)),
        }
    }
    options.truncate(40);
    options.resize(options.len().div_ceil(4) * 4, [0, 1][random.below(2) as usize]);
    options
}

/// Changes a few bytes, most of them in headers; fields of TCP often in a way that keeps them near.
pub fn mutate(random: &mut SeededRandom, bytes: &mut Vec<u8>) {
    if random.below(2) == 0 {
        nudge(random, bytes);
    }
    for _ in 0..random.below(5) {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len() as u64;
        let bound = if random.below(4) == 0 { length } else { length.min(94) };
        let at = random.below(bound) as usize;
        match random.below(8) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize],
            4 => bytes.insert(at, random.next() as u8),
            5 => {
                let extra = random.below(64);
                bytes.extend((0..extra).map(|n| n as u8));
            }
            _ => {}
        }
    }
}

/// Where the transport header of a frame is, and its protocol.
fn transport(bytes: &[u8]) -> Option<(usize, u8)> {
    match bytes.get(14)? >> 4 {
        4 => Some((14 + usize::from(bytes[14] & 15) * 4, *bytes.get(23)?)),
        6 => Some((54, *bytes.get(20)?)),
        _ => None,
    }
}

/// Moves numbers of a TCP header by what matters: nothing, one, a segment, a window, half the space.
fn nudge(random: &mut SeededRandom, bytes: &mut Vec<u8>) {
    let Some((at, TCP)) = transport(bytes) else { return };
    if bytes.len() < at + 20 {
        return;
    }
    for _ in 0..1 + random.below(3) {
        let step = [0, 1, u32::MAX, 1448, 65_535, 1 << 31, 0u32.wrapping_sub(1448), random.next() as u32]
            [random.below(8) as usize];
        let place = at + [4, 8][random.below(2) as usize];
        match random.below(6) {
            0..3 => {
                let old =
                    u32::from_be_bytes([bytes[place], bytes[place + 1], bytes[place + 2], bytes[place + 3]]);
                bytes[place..place + 4].copy_from_slice(&old.wrapping_add(step).to_be_bytes());
            }
            3 => {
                bytes[at + 13] =
                    [1, 2, 4, 16, 17, 18, 20, 24, 48, random.next() as u8][random.below(10) as usize]
            }
            4 => {
                let window = [0u16, 1, 65_535, random.next() as u16][random.below(4) as usize];
                bytes[at + 14..at + 16].copy_from_slice(&window.to_be_bytes());
            }
            _ => {
                // Other option bytes.
                let header = usize::from(bytes[at + 12] >> 4) * 4;
                let options = tcp_options(random);
                let end = (at + header.max(20)).min(bytes.len());
                bytes.splice(at + 20..end, options.iter().copied());
                bytes[at + 12] = ((5 + options.len() / 4) as u8) << 4;
                fix_lengths(bytes);
            }
        }
    }
}

fn fix_lengths(bytes: &mut [u8]) {
    let length = bytes.len() - 14;
    match bytes[14] >> 4 {
        4 => bytes[16..18].copy_from_slice(&(length as u16).to_be_bytes()),
        _ => bytes[18..20].copy_from_slice(&(length.saturating_sub(40) as u16).to_be_bytes()),
    }
}

/// Makes the checksums right, so that what was changed gets past them.
pub fn fix_sums(bytes: &mut [u8]) {
    let Some((at, mut protocol)) = transport(bytes) else { return };
    let v4 = bytes[14] >> 4 == 4;
    if bytes.len() < at || (v4 && at < 34) {
        return;
    }
    let length = match v4 {
        true => {
            bytes[24..26].fill(0);
            let sum = checksum::of(&bytes[14..at]);
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            usize::from(u16::from_be_bytes([bytes[16], bytes[17]]))
        }
        false => 40 + usize::from(u16::from_be_bytes([bytes[18], bytes[19]])),
    };
    let end = (14 + length).min(bytes.len());
    let mut at = at;
    while !v4 && matches!(protocol, 0 | 43 | 60) && at + 8 <= end {
        protocol = bytes[at];
        at += (usize::from(bytes[at + 1]) + 1) * 8;
    }
    let place = match protocol {
        TCP => 16,
        UDP => 6,
        ICMP | ICMPV6 | IGMP => 2,
        _ => return,
    };
    if at + place + 2 > end {
        return;
    }
    let ip = |range: std::ops::Range<usize>| -> IpAddr {
        let bytes = &bytes[range];
        match <[u8; 4]>::try_from(bytes) {
            Ok(four) => four.into(),
            Err(_) => <[u8; 16]>::try_from(bytes).map_or([0u8; 16].into(), IpAddr::from),
        }
    };
    let (source, destination) = if v4 { (ip(26..30), ip(30..34)) } else { (ip(22..38), ip(38..54)) };
    let mut sum = match protocol {
        ICMP | IGMP => Sum::default(),
        _ => Sum::pseudo(source, destination, protocol, end - at),
    };
    bytes[at + place..at + place + 2].fill(0);
    sum.add(&bytes[at..end]);
    let sum = match sum.finish() {
        0 if protocol == UDP => 0xffff,
        sum => sum,
    };
    bytes[at + place..at + place + 2].copy_from_slice(&sum.to_be_bytes());
}
