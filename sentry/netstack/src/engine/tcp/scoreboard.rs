//! What was sent and is not acknowledged: selective acknowledgements (RFC 2018, RFC 6675) and the
//! detection of losses by time (RACK, RFC 8985).

use std::collections::VecDeque;
use std::time::Duration;

use super::super::time::Time;
use super::rate::Mark;
use super::seq::Seq;

/// Pieces over which foreign block edges do not split any more.
const MOST_PIECES: usize = 8192;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    InFlight,
    Sacked,
    Lost,
}

/// A run of sequence numbers that was sent at once.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub seq: Seq,
    pub end: Seq,
    pub at: Time,
    pub fate: Fate,
    /// It was sent more than once.
    pub again: bool,
    pub mark: Mark,
}

impl Sent {
    fn len(&self) -> usize {
        self.end.after(self.seq)
    }
}

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acked {
    /// Bytes acknowledged for good.
    pub cumulative: usize,
    /// Bytes that are known for the first time to have arrived.
    pub delivered: usize,
    /// The time of the newest acknowledged run that was sent only once.
    pub rtt: Option<Duration>,
    /// The acknowledgement covers something sent again.
    pub retransmitted: bool,
    /// The run that was sent last of those delivered.
    pub newest: Option<Sent>,
}

#[derive(Debug, Default)]
pub struct Scoreboard {
    list: VecDeque<Sent>,
    pub in_flight: usize,
    pub sacked: usize,
    pub lost: usize,
    /// RACK: the newest run that is known to have arrived.
    newest: Option<(Time, Seq)>,
    rtt: Duration,
    /// The highest end that is known to have arrived.
    forward: Option<Seq>,
    pub reordering: bool,
    /// Quarters of the least round trip that are granted to reordering.
    pub steps: u32,
}

impl Scoreboard {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// When the first of what is not acknowledged was sent the last time.
    pub fn oldest(&self) -> Option<Time> {
        self.list.front().map(|sent| sent.at)
    }

    #[cfg(test)]
    pub fn pieces(&self) -> usize {
        self.list.len()
    }

    /// Notes what was sent for the first time.
    pub fn push(&mut self, seq: Seq, end: Seq, at: Time, mark: Mark) {
        self.in_flight += end.after(seq);
        self.list.push_back(Sent { seq, end, at, fate: Fate::InFlight, again: false, mark });
    }

    fn account(&mut self, fate: Fate, length: usize, add: bool) {
        let counter = match fate {
            Fate::InFlight => &mut self.in_flight,
            Fate::Sacked => &mut self.sacked,
            Fate::Lost => &mut self.lost,
        };
        *counter = if add { *counter + length } else { counter.saturating_sub(length) };
    }

    fn set(&mut self, index: usize, fate: Fate) {
        if let Some(sent) = self.list.get_mut(index) {
            let (old, length) = (sent.fate, sent.len());
            sent.fate = fate;
            self.account(old, length, false);
            self.account(fate, length, true);
        }
    }

    /// Splits the run at `index`, so that it ends at `at`.
    fn split(&mut self, index: usize, at: Seq) {
        if let Some(sent) = self.list.get_mut(index)
            && at > sent.seq
            && at < sent.end
        {
            let rest = Sent { seq: at, ..*sent };
            sent.end = at;
            self.list.insert(index + 1, rest);
        }
    }

    /// The next run that has to be sent again, at most `most` bytes of it.
    pub fn next_lost(&mut self, most: usize) -> Option<(Seq, Seq)> {
        if self.lost == 0 {
            return None;
        }
        let index = self.list.iter().position(|sent| sent.fate == Fate::Lost)?;
        let sent = *self.list.get(index)?;
        let end = sent.end.min(sent.seq.plus(most.max(1)));
        self.split(index, end);
        Some((sent.seq, end))
    }

    /// Notes that a run was sent again.
    pub fn resent(&mut self, seq: Seq, now: Time, mark: Mark) {
        if let Some(index) = self.list.iter().position(|sent| sent.seq == seq) {
            self.set(index, Fate::InFlight);
            if let Some(sent) = self.list.get_mut(index) {
                sent.again = true;
                (sent.at, sent.mark) = (now, mark);
            }
        }
    }

    /// For a tail loss probe: the last `most` bytes, which count as sent again.
    pub fn probe(&mut self, most: usize) -> Option<(Seq, Seq)> {
        let index = self.list.len().checked_sub(1)?;
        let last = *self.list.get(index)?;
        if last.fate == Fate::Sacked {
            return None;
        }
        if last.len() > most {
            self.split(index, last.end.minus(most));
        }
        let last = *self.list.back()?;
        Some((last.seq, last.end))
    }

    fn advance(&mut self, sent: &Sent, now: Time, least: Duration, acked: &mut Acked) {
        let rtt = now.since(sent.at);
        if acked.newest.is_none_or(|newest| (newest.at, newest.end) <= (sent.at, sent.end)) {
            acked.newest = Some(*sent);
        }
        if sent.again {
            acked.retransmitted = true;
            // It may be the first copy's acknowledgement (RFC 8985, 6.2, step 2).
            if rtt < least {
                return;
            }
        } else {
            acked.rtt = Some(acked.rtt.map_or(rtt, |old| old.min(rtt)));
            if self.forward.is_some_and(|forward| sent.end < forward) && sent.fate == Fate::InFlight {
                self.reordering = true;
            }
        }
        if self.newest.is_none_or(|(at, end)| sent.at > at || (sent.at == at && sent.end > end)) {
            self.newest = Some((sent.at, sent.end));
            self.rtt = rtt;
        }
    }

    /// Takes an acknowledgement and its blocks.
    pub fn acknowledge(
        &mut self,
        una: Seq,
        ack: Seq,
        blocks: &[(Seq, Seq)],
        least: Duration,
        now: Time,
    ) -> Acked {
        let mut acked = Acked { cumulative: ack.after(una), ..Acked::default() };
        while let Some(first) = self.list.front().copied() {
            if first.seq >= ack {
                break;
            }
            if first.end > ack {
                self.split(0, ack);
                continue;
            }
            self.list.pop_front();
            self.account(first.fate, first.len(), false);
            if first.fate != Fate::Sacked {
                acked.delivered += first.len();
                self.advance(&first, now, least, &mut acked);
            }
            self.forward = Some(self.forward.map_or(first.end, |forward| forward.max(first.end)));
        }
        for &(from, to) in blocks {
            if to > from && from >= ack && self.list.back().is_some_and(|last| to <= last.end) {
                self.mark(from, to, least, now, &mut acked);
            }
        }
        if self.list.is_empty() {
            self.forward = None;
        }
        acked
    }

    fn mark(&mut self, from: Seq, to: Seq, least: Duration, now: Time, acked: &mut Acked) {
        let mut index = self.list.partition_point(|sent| sent.end <= from);
        while let Some(sent) = self.list.get(index).copied() {
            if sent.seq >= to {
                break;
            }
            if sent.fate == Fate::Sacked {
                index += 1;
                continue;
            }
            if sent.seq < from || sent.end > to {
                if self.list.len() >= MOST_PIECES {
                    index += 1;
                    continue;
                }
                if sent.seq < from {
                    self.split(index, from);
                    index += 1;
                } else {
                    self.split(index, to);
                }
                continue;
            }
            acked.delivered += sent.len();
            self.advance(&sent, now, least, acked);
            self.set(index, Fate::Sacked);
            self.forward = Some(self.forward.map_or(sent.end, |forward| forward.max(sent.end)));
            index += 1;
        }
    }

    /// Finds what is lost by the time of what arrived. Returns the bytes newly lost and how long to
    /// wait for runs that may only be late.
    pub fn detect(
        &mut self,
        now: Time,
        smoothed: Duration,
        least: Duration,
        eager: bool,
    ) -> (usize, Option<Duration>) {
        let Some((newest_at, newest_end)) = self.newest else { return (0, None) };
        let window = match (self.reordering, eager) {
            (false, true) => Duration::ZERO,
            _ => (least / 4 * (self.steps + 1)).min(smoothed),
        };
        let mut lost = 0;
        let mut wait: Option<Duration> = None;
        for index in 0..self.list.len() {
            let Some(sent) = self.list.get(index).copied() else { break };
            if sent.fate != Fate::InFlight {
                continue;
            }
            if sent.at > newest_at || (sent.at == newest_at && sent.end >= newest_end) {
                // Runs are in order of their first sending: nothing later can be older, but for those sent again.
                if !sent.again && sent.at > newest_at {
                    break;
                }
                continue;
            }
            let deadline = sent.at + self.rtt + window;
            if deadline <= now {
                self.set(index, Fate::Lost);
                lost += sent.len();
            } else {
                let left = deadline.since(now);
                wait = Some(wait.map_or(left, |old| old.max(left)));
            }
        }
        (lost, wait)
    }

    /// The first run is lost (three duplicate acknowledgements without SACK). Returns its bytes.
    pub fn lose_first(&mut self, most: usize) -> usize {
        let Some(first) = self.list.front().copied() else { return 0 };
        if first.fate != Fate::InFlight {
            return 0;
        }
        self.split(0, first.seq.plus(most));
        self.set(0, Fate::Lost);
        self.list.front().map_or(0, Sent::len)
    }

    /// A timeout: all that is not known to have arrived is lost. If the first run was said to have
    /// arrived, the receiver has thrown it away: then nothing of what it said counts.
    pub fn lose_all(&mut self) {
        let reneged = self.list.front().is_some_and(|first| first.fate == Fate::Sacked);
        for index in 0..self.list.len() {
            if reneged || self.list.get(index).is_some_and(|sent| sent.fate == Fate::InFlight) {
                self.set(index, Fate::Lost);
            }
        }
        self.newest = None;
    }

    pub fn clear(&mut self) {
        *self = Scoreboard::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn board(count: u32) -> Scoreboard {
        let mut board = Scoreboard::default();
        for n in 0..count {
            board.push(Seq(n * 1000), Seq((n + 1) * 1000), Time::from_millis(u64::from(n)), Mark::default());
        }
        board
    }

    #[test]
    fn a_hole_is_lost_after_the_window() {
        let mut board = board(5);
        let acked =
            board.acknowledge(Seq(0), Seq(1000), &[(Seq(2000), Seq(5000))], MS * 10, Time::from_millis(20));
        assert_eq!((acked.cumulative, acked.delivered), (1000, 4000));
        assert_eq!((board.in_flight, board.sacked), (1000, 3000));
        let (lost, wait) = board.detect(Time::from_millis(20), MS * 16, MS * 16, true);
        assert_eq!((lost, wait), (1000, None));
        assert_eq!(board.next_lost(400), Some((Seq(1000), Seq(1400))));
        board.resent(Seq(1000), Time::from_millis(21), Mark::default());
        assert_eq!((board.lost, board.in_flight), (600, 400));
        assert_eq!(board.next_lost(9999), Some((Seq(1400), Seq(2000))));
    }

    #[test]
    fn blocks_split_runs() {
        let mut board = Scoreboard::default();
        board.push(Seq(0), Seq(64_000), Time(0), Mark::default());
        board.acknowledge(Seq(0), Seq(0), &[(Seq(10_000), Seq(20_000))], MS, Time::from_millis(5));
        assert_eq!((board.sacked, board.in_flight, board.pieces()), (10_000, 54_000, 3));
        board.acknowledge(Seq(0), Seq(15_000), &[], MS, Time::from_millis(5));
        assert_eq!((board.sacked, board.in_flight), (5000, 44_000));
        board.lose_all();
        assert_eq!((board.sacked, board.lost), (0, 49_000));
    }

    #[test]
    fn nonsense_blocks_change_nothing() {
        let mut board = board(3);
        for block in [(Seq(9000), Seq(9500)), (Seq(2000), Seq(1000)), (Seq(1000), Seq(4000))] {
            board.acknowledge(Seq(0), Seq(0), &[block], MS, Time::from_millis(9));
        }
        assert_eq!((board.sacked, board.in_flight), (0, 3000));
    }
}
