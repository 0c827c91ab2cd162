//! The host side of the benches.

mod aims;
pub mod bundle;
pub mod docker;
pub mod micro;
pub mod network;
pub mod report;
pub mod startup;

/// The middle value; none of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
