//! Which call sites of a process trap often.

/// How many traps make a place worth patching: by then they have cost about as much as the patch does.
const HOT: u8 = 6;
/// Places are watched in sets, each of so many.
const WAYS: usize = 4;
/// A power of two.
const SETS: usize = 32;

/// Where calls came from by a signal, and how often. Of places that share a set the rarer ones are forgotten first, so that
/// a few that take turns do not hide each other.
pub(super) struct Counts(Box<[[(u64, u8); WAYS]; SETS]>);

impl Default for Counts {
    fn default() -> Counts {
        Counts(Box::new([[(0, 0); WAYS]; SETS]))
    }
}

impl Counts {
    /// Counts a call; true when it has just become worth a patch.
    pub(super) fn count(&mut self, after: u64) -> bool {
        // Fibonacci hashing: neighbouring functions end up far apart.
        let hash = after.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SETS.trailing_zeros());
        let set = &mut self.0[hash as usize];
        let place = set.iter().position(|(a, _)| *a == after).unwrap_or_else(|| {
            let rarest = (0..WAYS).min_by_key(|i| set[*i].1).unwrap_or(0);
            set[rarest] = (after, 0);
            rarest
        });
        let count = &mut set[place].1;
        *count = count.saturating_add(1);
        *count == HOT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_take_turns_are_all_found() {
        // The first two are those of open and close in a C library.
        let places = [0x12_acd1, 0x12_b450, 0x12_aedd, 0x12_b4d7, 0x4020_0011, 0x4020_0111];
        let mut counts = Counts::default();
        let mut found: Vec<u64> = Vec::new();
        for _ in 0..HOT {
            found.extend(places.iter().copied().filter(|p| counts.count(*p)));
        }
        assert_eq!(found, places);
        assert!(!places.iter().any(|p| counts.count(*p)), "said once");
    }

    #[test]
    fn many_rare_places_do_not_hide_a_frequent_one() {
        let mut counts = Counts::default();
        let hot = (0..200u64).filter(|i| {
            let _ = counts.count(0x7000_0000 + 16 * i);
            counts.count(0x1234)
        });
        assert_eq!(hot.count(), 1);
    }
}
