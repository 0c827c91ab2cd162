//! A map from disjoint address ranges to values: the form of both the VMAs and what backs them.
//!
//! Values can be cut (their upper part starts later in whatever they describe) and joined with the value of the
//! next range.

use std::collections::BTreeMap;
use std::ops::Range;

/// A value of a range.
pub trait Piece: Clone {
    /// The range's first `by` bytes go away.
    fn cut_front(&mut self, by: u64);
    /// Whether the value of a range of `len` bytes and `next`, the value of the range right behind it, can
    /// be one value of both.
    fn joins(&self, len: u64, next: &Self) -> bool;
}

/// Disjoint ranges with values, ordered by address.
#[derive(Clone, Debug)]
pub struct IntervalMap<P> {
    map: BTreeMap<u64, (u64, P)>,
}

impl<P> Default for IntervalMap<P> {
    fn default() -> Self {
        IntervalMap { map: BTreeMap::new() }
    }
}

impl<P: Piece> IntervalMap<P> {
    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The range that holds `addr`.
    pub fn get(&self, addr: u64) -> Option<(u64, u64, &P)> {
        let (start, (end, p)) = self.map.range(..=addr).next_back()?;
        (*end > addr).then_some((*start, *end, p))
    }

    /// The range that holds `addr`, to be changed in place.
    pub fn get_mut(&mut self, addr: u64) -> Option<(u64, u64, &mut P)> {
        let (start, (end, p)) = self.map.range_mut(..=addr).next_back()?;
        (*end > addr).then_some((*start, *end, p))
    }

    /// The first range that ends behind `addr` (`find_vma`).
    pub fn find(&self, addr: u64) -> Option<(u64, u64, &P)> {
        self.get(addr).or_else(|| self.map.range(addr..).next().map(|(s, (e, p))| (*s, *e, p)))
    }

    /// The last range that starts before `addr`.
    pub fn before(&self, addr: u64) -> Option<(u64, u64, &P)> {
        self.map.range(..addr).next_back().map(|(s, (e, p))| (*s, *e, p))
    }

    /// The ranges that have bytes in `r`, whole.
    pub fn overlapping(&self, r: Range<u64>) -> impl Iterator<Item = (u64, u64, &P)> {
        let first = self.get(r.start).map_or(r.start, |(s, ..)| s);
        self.map.range(first..r.end.max(first)).map(|(s, (e, p))| (*s, *e, p))
    }

    /// All ranges.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64, &P)> {
        self.map.iter().map(|(s, (e, p))| (*s, *e, p))
    }

    /// The ranges that end at or below `top`, or contain it, from the highest one on.
    pub fn descending(&self, top: u64) -> impl Iterator<Item = (u64, u64, &P)> {
        self.map.range(..top).rev().map(|(s, (e, p))| (*s, *e, p))
    }

    /// Whether nothing is in `r`.
    pub fn is_free(&self, r: Range<u64>) -> bool {
        self.overlapping(r).next().is_none()
    }

    /// The parts of `r` where nothing is.
    pub fn gaps(&self, r: Range<u64>) -> Vec<Range<u64>> {
        let mut at = r.start;
        let mut gaps = Vec::new();
        for (s, e, _) in self.overlapping(r.clone()) {
            if s > at {
                gaps.push(at..s);
            }
            at = at.max(e);
        }
        if at < r.end {
            gaps.push(at..r.end);
        }
        gaps
    }

    /// Makes `at` a boundary if it lies inside a range.
    pub fn split(&mut self, at: u64) {
        let Some((start, (end, p))) = self.map.range_mut(..at).next_back() else { return };
        if *end <= at {
            return;
        }
        let mut upper = p.clone();
        upper.cut_front(at - start);
        let upper_end = std::mem::replace(end, at);
        self.map.insert(at, (upper_end, upper));
    }

    /// Puts a value on a range where nothing is, and joins it with its neighbours where that can be.
    pub fn insert(&mut self, r: Range<u64>, p: P) {
        debug_assert!(r.start < r.end && self.is_free(r.clone()), "insert over {r:x?}");
        self.map.insert(r.start, (r.end, p));
        self.join(r);
    }

    /// As `insert`, never joined.
    pub fn insert_apart(&mut self, r: Range<u64>, p: P) {
        debug_assert!(r.start < r.end && self.is_free(r.clone()), "insert over {r:x?}");
        self.map.insert(r.start, (r.end, p));
    }

    /// Takes everything in `r` out, in order.
    pub fn remove(&mut self, r: Range<u64>) -> Vec<(Range<u64>, P)> {
        if r.start >= r.end {
            return Vec::new();
        }
        self.split(r.start);
        self.split(r.end);
        let starts: Vec<u64> = self.map.range(r).map(|(s, _)| *s).collect();
        starts.into_iter().filter_map(|s| self.map.remove(&s).map(|(e, p)| (s..e, p))).collect()
    }

    /// Changes the values in `r` (cut at its ends) and joins what can be joined afterwards.
    pub fn change(&mut self, r: Range<u64>, mut f: impl FnMut(Range<u64>, &mut P)) {
        if r.start >= r.end {
            return;
        }
        self.split(r.start);
        self.split(r.end);
        for (s, (e, p)) in self.map.range_mut(r.clone()) {
            f(*s..*e, p);
        }
        self.join(r);
    }

    /// Joins neighbours in and around `r`.
    pub fn join(&mut self, r: Range<u64>) {
        let mut at = self.map.range(..r.start).next_back().map_or(r.start, |(s, _)| *s);
        while at <= r.end {
            let Some((&start, (end, p))) = self.map.range(at..=r.end).next() else { return };
            let end = *end;
            match self.map.get(&end) {
                Some((next_end, next)) if p.joins(end - start, next) => {
                    let next_end = *next_end;
                    self.map.remove(&end);
                    if let Some(entry) = self.map.get_mut(&start) {
                        entry.0 = next_end;
                    }
                    at = start;
                }
                _ => at = start + 1,
            }
        }
    }

    /// Moves the start of the range that starts at `start` down to `new_start`; the value stays.
    pub fn extend_down(&mut self, start: u64, new_start: u64) {
        if let Some(entry) = self.map.remove(&start) {
            self.map.insert(new_start, entry);
        }
    }

    /// Empties the map.
    pub fn take_all(&mut self) -> Vec<(Range<u64>, P)> {
        std::mem::take(&mut self.map).into_iter().map(|(s, (e, p))| (s..e, p)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct At(u64);
    impl Piece for At {
        fn cut_front(&mut self, by: u64) {
            self.0 += by;
        }
        fn joins(&self, len: u64, next: &Self) -> bool {
            self.0 + len == next.0
        }
    }

    #[test]
    fn cut_and_join() {
        let mut m = IntervalMap::default();
        m.insert(10..20, At(110));
        m.insert(20..30, At(120));
        m.insert(30..40, At(500));
        assert_eq!(m.len(), 2);
        let out = m.remove(15..35);
        assert_eq!(out, vec![(15..30, At(115)), (30..35, At(500))]);
        assert_eq!(m.gaps(0..50), vec![0..10, 15..35, 40..50]);
        m.insert(15..30, At(115));
        assert_eq!(m.get(29), Some((10, 30, &At(110))));
        assert_eq!(m.find(30).map(|x| x.0), Some(35));
        assert!(m.find(40).is_none());
        m.change(12..14, |_, p| p.0 = 7);
        assert_eq!(m.len(), 4);
        m.change(12..14, |_, p| p.0 = 112);
        assert_eq!(m.len(), 2);
        assert_eq!(m.overlapping(29..36).count(), 2);
        assert_eq!(m.overlapping(30..35).count(), 0);
    }
}
