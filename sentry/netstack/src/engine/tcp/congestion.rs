//! Congestion control: Reno (RFC 5681) and CUBIC (RFC 9438), in bytes.

use std::time::Duration;

use super::super::time::Time;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    Reno,
    #[default]
    Cubic,
}

/// Segments that may be sent at once on a new connection (RFC 6928).
const INITIAL: usize = 10;
const BETA: f64 = 0.7;
const C: f64 = 0.4;

#[derive(Clone, Debug)]
pub struct Congestion {
    pub algorithm: Algorithm,
    pub cwnd: usize,
    pub ssthresh: usize,
    mss: usize,
    /// Bytes acknowledged towards the next segment of growth.
    counted: usize,
    /// CUBIC: the window before the last reduction, in segments, and the current epoch.
    most: f64,
    epoch: Option<Epoch>,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Time,
    k: f64,
    origin: f64,
    /// What Reno would have.
    friendly: f64,
}

impl Congestion {
    pub fn new(algorithm: Algorithm, mss: usize) -> Congestion {
        Congestion {
            algorithm,
            cwnd: INITIAL * mss,
            ssthresh: usize::MAX / 2,
            mss,
            counted: 0,
            most: 0.0,
            epoch: None,
        }
    }

    /// The segment size changed (path MTU): the window keeps its number of segments, at least two.
    pub fn set_mss(&mut self, mss: usize) {
        let mss = mss.max(1);
        if mss < self.mss {
            self.cwnd = (self.cwnd / self.mss * mss).max(2 * mss);
        }
        self.mss = mss;
    }

    pub fn slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// New data was acknowledged while nothing was known to be lost; `limited`: the window was in use.
    pub fn acked(&mut self, mut bytes: usize, rtt: Duration, now: Time, limited: bool) {
        if !limited {
            return;
        }
        if self.slow_start() {
            let room = self.ssthresh - self.cwnd;
            let grow = bytes.min(room);
            self.cwnd += grow;
            bytes -= grow;
            if bytes == 0 {
                return;
            }
        }
        match self.algorithm {
            Algorithm::Reno => {
                self.counted += bytes;
                if self.counted >= self.cwnd {
                    self.counted -= self.cwnd;
                    self.cwnd += self.mss;
                }
            }
            Algorithm::Cubic => self.cubic(bytes, rtt, now),
        }
        self.cwnd = self.cwnd.min(1 << 30);
    }

    fn cubic(&mut self, bytes: usize, rtt: Duration, now: Time) {
        let mss = self.mss as f64;
        let window = self.cwnd as f64 / mss;
        let most = self.most;
        let epoch = self.epoch.get_or_insert_with(|| {
            let origin = most.max(window);
            Epoch { start: now, k: ((origin - window) / C).cbrt(), origin, friendly: window }
        });
        let time = (now.since(epoch.start) + rtt).as_secs_f64();
        let target = (epoch.origin + C * (time - epoch.k).powi(3)).clamp(window, window * 1.5);
        let acked = bytes as f64 / mss;
        let alpha = if epoch.friendly >= epoch.origin { 1.0 } else { 3.0 * (1.0 - BETA) / (1.0 + BETA) };
        epoch.friendly += alpha * acked / window;
        let grown = if epoch.friendly > target {
            epoch.friendly
        } else {
            window + (target - window) / window * acked
        };
        self.cwnd = self.cwnd.max((grown * mss) as usize);
    }

    /// A loss: the new threshold (the window follows it by proportional rate reduction).
    pub fn reduce(&mut self, in_flight: usize) -> usize {
        let window = self.cwnd as f64 / self.mss as f64;
        self.ssthresh = match self.algorithm {
            Algorithm::Reno => (in_flight.min(self.cwnd) / 2).max(2 * self.mss),
            Algorithm::Cubic => {
                // Fast convergence: leave room if the window did not come back to where it was.
                self.most = if window < self.most { window * (1.0 + BETA) / 2.0 } else { window };
                ((self.cwnd as f64 * BETA) as usize).max(2 * self.mss)
            }
        };
        self.epoch = None;
        self.counted = 0;
        self.ssthresh
    }

    /// A timeout; `first`: of this loss.
    pub fn timeout(&mut self, in_flight: usize, first: bool) {
        if first {
            self.reduce(in_flight);
        }
        self.cwnd = self.mss;
        self.epoch = None;
    }

    /// After an idle time the window is what a new connection has (RFC 2861, as Linux).
    pub fn restart(&mut self, idle: Duration, rto: Duration) {
        let least = (INITIAL * self.mss).min(self.cwnd);
        self.ssthresh = self.ssthresh.max(self.cwnd / 4 * 3);
        let mut left = idle;
        while left > rto && self.cwnd > least {
            left = left.saturating_sub(rto);
            self.cwnd /= 2;
        }
        self.cwnd = self.cwnd.max(least);
        self.epoch = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cubic_comes_back_to_where_it_was() {
        let mss = 1000;
        let mut control = Congestion::new(Algorithm::Cubic, mss);
        control.cwnd = 100 * mss;
        control.reduce(100 * mss);
        assert_eq!(control.ssthresh, 70 * mss);
        control.cwnd = control.ssthresh;
        // Long enough that Reno would be slower.
        let rtt = Duration::from_millis(100);
        let mut now = Time(0);
        while control.cwnd < 99 * mss {
            control.acked(control.cwnd, rtt, now, true);
            now = now + rtt;
        }
        // K is the cube root of 30 / 0.4: about 4.2 s, the last segment takes long.
        assert!((2500..4500).contains(&now.as_millis()), "{now:?}");
    }

    #[test]
    fn reno_grows_a_segment_each_round() {
        let mut control = Congestion::new(Algorithm::Reno, 1000);
        control.ssthresh = 10_000;
        control.acked(10_000, Duration::ZERO, Time(0), true);
        assert_eq!(control.cwnd, 11_000);
        control.acked(1000, Duration::ZERO, Time(0), false);
        assert_eq!(control.cwnd, 11_000);
    }
}
