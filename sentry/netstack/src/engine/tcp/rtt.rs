//! Round-trip times and the retransmission timeout (RFC 6298).

use std::time::Duration;

use super::super::time::Time;

/// Linux's bounds.
pub const RTO_MIN: Duration = Duration::from_millis(200);
pub const RTO_MAX: Duration = Duration::from_secs(120);
const RTO_INITIAL: Duration = Duration::from_secs(1);
/// How long the smallest time counts.
const MIN_WINDOW: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
pub struct Rtt {
    pub smoothed: Option<Duration>,
    pub variance: Duration,
    pub least: Option<(Duration, Time)>,
    pub latest: Duration,
    /// The least and the largest timeout.
    pub bounds: (Duration, Duration),
}

impl Default for Rtt {
    fn default() -> Rtt {
        Rtt::bounded((RTO_MIN, RTO_MAX))
    }
}

impl Rtt {
    /// Timeouts are within these bounds.
    pub fn bounded(bounds: (Duration, Duration)) -> Rtt {
        Rtt { smoothed: None, variance: Duration::ZERO, least: None, latest: Duration::ZERO, bounds }
    }

    pub fn sample(&mut self, rtt: Duration, now: Time) {
        let rtt = rtt.max(Duration::from_micros(1));
        self.latest = rtt;
        if self.least.is_none_or(|(least, at)| rtt <= least || now.since(at) > MIN_WINDOW) {
            self.least = Some((rtt, now));
        }
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variance = rtt / 2;
            }
            Some(smoothed) => {
                self.variance = (self.variance * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    pub fn rto(&self) -> Duration {
        match self.smoothed {
            None => RTO_INITIAL.min(self.bounds.1),
            // As Linux: the variance part is never below the least timeout.
            Some(smoothed) => (smoothed + (self.variance * 4).max(self.bounds.0)).min(self.bounds.1),
        }
    }

    /// The timeout after so many expiries.
    pub fn backed_off(&self, times: u32) -> Duration {
        self.rto().saturating_mul(1 << times.min(16)).min(self.bounds.1)
    }

    pub fn least(&self) -> Duration {
        self.least.map_or(Duration::ZERO, |(least, _)| least)
    }
}
