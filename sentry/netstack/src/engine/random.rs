//! Random numbers handed in by the embedder, and the keyed hashes made with them: the demultiplexing
//! tables (so that a peer cannot choose colliding addresses), initial sequence numbers and SYN cookies.

use std::hash::{BuildHasher, Hasher};

/// A cryptographically secure source of random bytes.
pub trait Random: Send {
    fn fill(&mut self, bytes: &mut [u8]);

    fn u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        u32::from_ne_bytes(bytes)
    }

    fn u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_ne_bytes(bytes)
    }
}

/// A small generator with a seed: for tests only, its output can be foretold.
#[derive(Clone, Debug)]
pub struct SeededRandom(u64);

impl SeededRandom {
    pub fn new(seed: u64) -> SeededRandom {
        SeededRandom(seed)
    }

    /// The next number (SplitMix64).
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

impl Random for SeededRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let number = self.next().to_ne_bytes();
            part.copy_from_slice(&number[..part.len()]);
        }
    }
}

/// Makes the hashers of the engine's tables.
#[derive(Clone, Copy, Debug)]
pub struct KeyedState(u64, u64);

impl KeyedState {
    pub fn new(random: &mut dyn Random) -> KeyedState {
        KeyedState(random.u64(), random.u64() | 1)
    }
}

impl BuildHasher for KeyedState {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { state: self.0, key: self.1 }
    }
}

/// A multiply-and-fold hash under a secret key; two multiplications for an address pair.
#[derive(Debug)]
pub struct KeyedHasher {
    state: u64,
    key: u64,
}

impl KeyedHasher {
    fn mix(&mut self, low: u64, high: u64) {
        let product = u128::from(self.state ^ low) * u128::from(self.key ^ high.rotate_left(32));
        self.state = (product as u64) ^ ((product >> 64) as u64) ^ self.key.rotate_left(17);
    }
}

impl Hasher for KeyedHasher {
    fn finish(&self) -> u64 {
        let product = u128::from(self.state) * u128::from(self.key);
        (product as u64) ^ ((product >> 64) as u64)
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(16) {
            let mut word = [0u8; 16];
            word[..part.len()].copy_from_slice(part);
            self.write_u128(u128::from_le_bytes(word) ^ ((part.len() as u128) << 120));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(u64::from(number), 1);
    }

    fn write_u16(&mut self, number: u16) {
        self.mix(u64::from(number), 2);
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(u64::from(number), 4);
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number, 8);
    }

    fn write_u128(&mut self, number: u128) {
        self.mix(number as u64, (number >> 64) as u64);
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64, 8);
    }
}

/// SipHash-2-4 (Aumasson and Bernstein 2012) of words of eight bytes: for what a peer gets to see.
pub fn siphash(key: (u64, u64), words: &[u64]) -> u64 {
    let mut v = [
        key.0 ^ 0x736f_6d65_7073_6575,
        key.1 ^ 0x646f_7261_6e64_6f6d,
        key.0 ^ 0x6c79_6765_6e65_7261,
        key.1 ^ 0x7465_6462_7974_6573,
    ];
    let length = (words.len() as u64 * 8) << 56;
    for &word in words.iter().chain(std::iter::once(&length)) {
        v[3] ^= word;
        rounds(&mut v, 2);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    rounds(&mut v, 4);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn rounds(v: &mut [u64; 4], count: usize) {
    for _ in 0..count {
        v[0] = v[0].wrapping_add(v[1]);
        v[2] = v[2].wrapping_add(v[3]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[1]);
        v[0] = v[0].wrapping_add(v[3]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siphash_of_the_paper() {
        // Key 00..0f; the vectors of the reference for messages 00..07 and the empty one.
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(siphash(key, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash(key, &[0x0706_0504_0302_0100]), 0x93f5_f579_9a93_2462);
    }

    #[test]
    fn keys_change_the_hash() {
        let one = KeyedState::new(&mut SeededRandom::new(1));
        let two = KeyedState::new(&mut SeededRandom::new(2));
        assert_ne!(one.hash_one(7u64), two.hash_one(7u64));
        assert_ne!(one.hash_one(7u64), one.hash_one(8u64));
    }
}
