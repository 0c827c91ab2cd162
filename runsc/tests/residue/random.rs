//! Random numbers that a seed repeats.

pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// The seed in RUNSC_TEST_SEED, or always the same one.
    pub fn from_environment() -> Random {
        let seed = std::env::var("RUNSC_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_240_607);
        Random { seed, state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    fn next(&mut self) -> u64 {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    /// From 0 to 1.
    pub fn fraction(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() & 0xffff).unwrap()) / 65536.0
    }
}
