//! How fast data arrives at the peer (`draft-cheng-iccrg-delivery-rate-estimation`, as Linux's `tcp_rate.c`), and what holds a
//! connection back, by time: what TCP_INFO tells of both.

use std::time::Duration;

use super::super::time::Time;

/// What was known when a run was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    /// Bytes that had arrived, and when the last of them were known to have.
    delivered: u64,
    delivered_at: Time,
    /// When the first run was sent of those that this one is measured with.
    first_sent: Time,
    /// The user had not given enough to send.
    starved: bool,
}

/// Bytes that arrived within a time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    bytes: u64,
    time: Duration,
    starved: bool,
}

#[derive(Debug, Default)]
pub struct Delivery {
    /// Bytes that are known to have arrived.
    pub bytes: u64,
    at: Time,
    first_sent: Time,
    /// Until so many bytes have arrived the user's pace is measured, not the path's.
    starved_until: Option<u64>,
    best: Option<Sample>,
}

impl Delivery {
    /// For a run that is sent now.
    pub fn mark(&mut self, nothing_in_flight: bool, now: Time) -> Mark {
        if nothing_in_flight {
            (self.first_sent, self.at) = (now, now);
        }
        Mark {
            delivered: self.bytes,
            delivered_at: self.at,
            first_sent: self.first_sent,
            starved: self.starved_until.is_some(),
        }
    }

    /// There is less to send than could go: `in_flight` bytes are under way.
    pub fn starved(&mut self, in_flight: usize) {
        self.starved_until = Some(self.bytes + in_flight as u64);
    }

    /// An acknowledgement says that `bytes` more have arrived; the newest of them were sent at a time with a mark.
    pub fn arrived(&mut self, bytes: usize, newest: Option<(Time, Mark)>, least: Duration, now: Time) {
        if bytes == 0 {
            return;
        }
        self.bytes += bytes as u64;
        self.at = now;
        if self.starved_until.is_some_and(|until| self.bytes > until) {
            self.starved_until = None;
        }
        let Some((sent, mark)) = newest else { return };
        self.first_sent = sent;
        // Sending may have been slower than the answers that came in one go, or the other way round.
        let time = sent.since(mark.first_sent).max(now.since(mark.delivered_at));
        if time.is_zero() || time < least {
            return;
        }
        let sample = Sample { bytes: self.bytes - mark.delivered, time, starved: mark.starved };
        let faster = |old: Sample| {
            u128::from(sample.bytes) * old.time.as_nanos() >= u128::from(old.bytes) * sample.time.as_nanos()
        };
        if !sample.starved || self.best.is_none_or(faster) {
            self.best = Some(sample);
        }
    }

    /// Bytes a second, and whether that was the user's pace.
    pub fn rate(&self) -> (u64, bool) {
        let Some(sample) = self.best else { return (0, false) };
        let rate = u128::from(sample.bytes) * 1_000_000_000 / sample.time.as_nanos().max(1);
        (u64::try_from(rate).unwrap_or(u64::MAX), sample.starved)
    }
}

/// What a connection with data to send waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hold {
    /// It has nothing to send.
    #[default]
    Idle,
    /// The path, or nothing.
    Path,
    /// The peer's window.
    Window,
    /// The user, who waits for room.
    Buffer,
}

/// Where a connection's time goes.
#[derive(Debug, Default)]
pub struct Held {
    hold: Hold,
    since: Time,
    spent: [Duration; 4],
}

impl Held {
    pub fn set(&mut self, hold: Hold, now: Time) {
        if hold != self.hold {
            self.spent = self.until(now);
            (self.hold, self.since) = (hold, now);
        }
    }

    fn until(&self, now: Time) -> [Duration; 4] {
        let mut spent = self.spent;
        spent[self.hold as usize] += now.since(self.since);
        spent
    }

    /// With data to send; of that, for want of window; and for want of room.
    pub fn times(&self, now: Time) -> (Duration, Duration, Duration) {
        let [_, path, window, buffer] = self.until(now);
        (path + window + buffer, window, buffer)
    }
}
