//! Random bytes from the host's kernel.

/// Fills the buffer (getrandom(2)).
///
/// # Panics
/// If the host has no random source: nothing secure could follow.
pub fn fill(mut out: &mut [u8]) {
    while !out.is_empty() {
        match rustix::rand::getrandom(&mut *out, rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => out = &mut out[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => panic!("getrandom: {e}"),
        }
    }
}

/// A random number.
pub fn u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
