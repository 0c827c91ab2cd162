//! Sequence numbers: compared modulo 2^32 (RFC 9293, 3.4).

use std::cmp::Ordering;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Seq(pub u32);

impl Seq {
    /// The number `count` further on.
    pub fn plus(self, count: usize) -> Seq {
        Seq(self.0.wrapping_add(count as u32))
    }

    pub fn minus(self, count: usize) -> Seq {
        Seq(self.0.wrapping_sub(count as u32))
    }

    /// How far this number is after `other`; zero if it is before it.
    pub fn after(self, other: Seq) -> usize {
        let distance = self.0.wrapping_sub(other.0) as i32;
        if distance > 0 { distance as usize } else { 0 }
    }

    pub fn max(self, other: Seq) -> Seq {
        if self > other { self } else { other }
    }

    pub fn min(self, other: Seq) -> Seq {
        if self < other { self } else { other }
    }
}

impl PartialOrd for Seq {
    fn partial_cmp(&self, other: &Seq) -> Option<Ordering> {
        (self.0.wrapping_sub(other.0) as i32).partial_cmp(&0)
    }
}
