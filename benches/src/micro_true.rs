//! The smallest program: what a start-up time is measured with.
#![no_main]

/// Called by the C runtime; returns success.
// SAFETY: the program has no other symbol of this name.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    0
}
