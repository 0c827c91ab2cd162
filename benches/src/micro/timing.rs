//! Timing in batches: the number of turns grows until a batch is long enough for the clock, then a
//! few batches give a median and a least value.

use std::time::Instant;

/// How long a batch shall be.
pub struct Clock {
    /// Nanoseconds.
    pub batch_ns: u64,
}

/// Nanoseconds of one turn.
pub struct Timed {
    /// Median over the batches.
    pub median: f64,
    /// The quickest batch.
    pub least: f64,
    /// Turns in a batch.
    pub turns: u64,
}

const BATCHES: usize = 5;

impl Clock {
    /// Times `turn`, which is one operation.
    pub fn time(&self, mut turn: impl FnMut()) -> Timed {
        self.batches(|turns| {
            for _ in 0..turns {
                turn();
            }
        })
    }

    /// Times `batch`, which does the given number of operations.
    pub fn batches(&self, mut batch: impl FnMut(u64)) -> Timed {
        // The first turns pay for cold caches and for a partner that is still being born.
        batch(3);
        let mut turns = 1u64;
        loop {
            let began = Instant::now();
            batch(turns);
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
            if took >= self.batch_ns / 2 || turns > 1 << 30 {
                break;
            }
            turns = (turns * (self.batch_ns / took).clamp(2, 10)).max(turns + 1);
        }
        let mut samples: Vec<f64> = (0..BATCHES)
            .map(|_| {
                let began = Instant::now();
                batch(turns);
                began.elapsed().as_nanos() as f64 / turns as f64
            })
            .collect();
        samples.sort_by(f64::total_cmp);
        Timed { median: samples[BATCHES / 2], least: samples[0], turns }
    }
}
