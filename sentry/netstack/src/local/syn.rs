//! The segment that would have begun a connection inside the stack (`TCP_SAVED_SYN`): as one that is sent by Linux' loopback
//! interface, where nobody fills in the checksum of TCP.

use crate::addr::Endpoint;
use crate::engine::checksum::Sum;
use crate::env::Env;
use crate::tcp::StreamOptions;
use std::net::IpAddr;

const TCP: u8 = 6;
const HEADER: u8 = 40;

/// From the network header on, or from the link's if `link`. What is chosen by chance is so here, too.
pub fn segment(env: &dyn Env, from: Endpoint, to: Endpoint, client: &StreamOptions, link: bool) -> Vec<u8> {
    let mut chance = [0; 12];
    env.random(&mut chance);
    let mut out = if link { vec![0; 12] } else { Vec::new() };
    let ttl = client.ttl.unwrap_or(64);
    let most: u16 = match (from.ip, to.ip) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            if link {
                out.extend(0x0800u16.to_be_bytes());
            }
            let at = out.len();
            out.extend([0x45, client.tos, 0, 20 + HEADER, chance[0], chance[1], 0x40, 0, ttl, TCP, 0, 0]);
            out.extend(from.octets());
            out.extend(to.octets());
            let mut sum = Sum::default();
            sum.add(&out[at..]);
            let sum = sum.finish();
            out[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
            65_495
        }
        (from, to) => {
            if link {
                out.extend(0x86ddu16.to_be_bytes());
            }
            let label = u32::from_ne_bytes([chance[0], chance[1], chance[2], 0]) & 0xf_ffff;
            out.extend((6 << 28 | u32::from(client.tos) << 20 | label).to_be_bytes());
            out.extend([0, HEADER, TCP, ttl]);
            for ip in [from, to] {
                if let IpAddr::V6(ip) = ip {
                    out.extend(ip.octets());
                }
            }
            65_476
        }
    };
    let segment = client.max_segment.map_or(most, |n| n.min(most));
    let window = client.window_clamp.map_or(u16::MAX, |clamp| u16::try_from(clamp).unwrap_or(u16::MAX));
    // Whole segments, if it is more than one.
    let window = if window > segment { window / segment * segment } else { window };
    out.extend(from.port.to_be_bytes());
    out.extend(to.port.to_be_bytes());
    out.extend(&chance[4..8]);
    out.extend([0, 0, 0, 0, (HEADER / 4) << 4, 2]);
    out.extend(window.to_be_bytes());
    out.extend(Sum::pseudo(from.ip, to.ip, TCP, usize::from(HEADER)).partial().to_be_bytes());
    out.extend([0, 0]);
    // Segment size, selective acknowledgements, timestamps, scale.
    out.extend([2, 4]);
    out.extend(segment.to_be_bytes());
    out.extend([4, 2, 8, 10]);
    out.extend(&chance[8..12]);
    out.extend([0, 0, 0, 0, 1, 3, 3, 7]);
    out
}
