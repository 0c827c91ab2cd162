//! SYN cookies: the answer to a SYN carries, in its sequence number and timestamp, all that a connection
//! needs, so that a flood costs no memory. The sequence number holds a minute counter and the index of a
//! segment size under a keyed hash; the low bits of the timestamp hold the window scale and SACK.

use super::super::addresses::Tuple;
use super::super::random::{Random, siphash};
use super::super::time::Time;
use super::segment::Options;
use super::seq::Seq;

/// Segment sizes that a cookie can tell: the largest not above the peer's is taken.
const SIZES: [u16; 8] = [48, 536, 1220, 1300, 1440, 1460, 4312, 8960];
/// Minutes for which a cookie is good.
const MINUTES: u32 = 2;
const DATA: u32 = 0x00ff_ffff;
/// Bits of a timestamp: scale (15: none) and SACK.
const STAMP: u32 = 0x1f;

pub struct Cookies {
    keys: [(u64, u64); 2],
    /// When one was last sent: without, no acknowledgement is looked at.
    pub last: Option<Time>,
}

impl Cookies {
    pub fn new(random: &mut dyn Random) -> Cookies {
        Cookies { keys: [(random.u64(), random.u64()), (random.u64(), random.u64())], last: None }
    }

    fn hash(&self, which: usize, tuple: &Tuple, count: u32) -> u32 {
        let words = tuple.words();
        siphash(self.keys[which], &[words[0], words[1], words[2], words[3], words[4], u64::from(count)])
            as u32
    }

    fn minute(now: Time) -> u32 {
        (now.as_millis() / 60_000) as u32
    }

    /// The sequence number of the answer to a SYN.
    pub fn make(&mut self, tuple: &Tuple, irs: Seq, mss: u16, now: Time) -> Seq {
        self.last = Some(now);
        let index = SIZES.iter().rposition(|size| *size <= mss).unwrap_or(0) as u32;
        let count = Cookies::minute(now);
        let data = self.hash(1, tuple, count).wrapping_add(index) & DATA;
        let number = self.hash(0, tuple, 0).wrapping_add(irs.0).wrapping_add(count << 24).wrapping_add(data);
        Seq(number)
    }

    /// The peer's segment size, if the acknowledged number is a good cookie.
    pub fn check(&self, tuple: &Tuple, irs: Seq, cookie: Seq, now: Time) -> Option<u16> {
        let recent = self.last.is_some_and(|at| now.since(at).as_secs() < 60 * u64::from(MINUTES) + 60);
        if !recent {
            return None;
        }
        let rest = cookie.0.wrapping_sub(self.hash(0, tuple, 0)).wrapping_sub(irs.0);
        let count = Cookies::minute(now);
        let age = count.wrapping_sub(rest >> 24) & 0xff;
        if age >= MINUTES {
            return None;
        }
        let index = rest.wrapping_sub(self.hash(1, tuple, count.wrapping_sub(age))) & DATA;
        SIZES.get(index as usize).copied()
    }

    /// The timestamp (before our offset) that carries the options.
    pub fn stamp(options: &Options, clock: u32) -> u32 {
        let bits = options.scale.map_or(15, |scale| u32::from(scale.min(14)))
            | u32::from(options.sack_permitted) << 4;
        let stamp = (clock & !STAMP) | bits;
        if stamp > clock { stamp.wrapping_sub(STAMP + 1) } else { stamp }
    }

    /// The options that an echoed timestamp carries.
    pub fn unstamp(mss: u16, timestamp: Option<(u32, u32)>, offset: u32) -> Options {
        let mut options = Options { mss: Some(mss), ..Options::default() };
        if let Some((value, echo)) = timestamp {
            let bits = echo.wrapping_sub(offset) & STAMP;
            options.scale = Some((bits & 15) as u8).filter(|scale| *scale < 15);
            options.sack_permitted = bits & 16 != 0;
            options.timestamp = Some((value, echo));
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::random::SeededRandom;
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn a_cookie_is_good_for_its_pair_and_time() {
        let mut cookies = Cookies::new(&mut SeededRandom::new(3));
        let tuple =
            |port| Tuple::new(SocketAddr::from(([10, 0, 0, 1], 80)), SocketAddr::from(([10, 0, 0, 2], port)));
        let now = Time::from_millis(600_000);
        let cookie = cookies.make(&tuple(4000), Seq(77), 1400, now);
        assert_eq!(cookies.check(&tuple(4000), Seq(77), cookie, now), Some(1300));
        assert_eq!(cookies.check(&tuple(4001), Seq(77), cookie, now), None);
        assert_eq!(cookies.check(&tuple(4000), Seq(77), cookie, Time::from_millis(600_000 + 200_000)), None);
        let options =
            Options { scale: Some(9), sack_permitted: true, timestamp: Some((1, 0)), ..Options::default() };
        let stamp = Cookies::stamp(&options, 1_000_003);
        assert!(stamp <= 1_000_003);
        let back = Cookies::unstamp(1300, Some((5, stamp.wrapping_add(17))), 17);
        assert_eq!((back.scale, back.sack_permitted, back.mss), (Some(9), true, Some(1300)));
    }
}
