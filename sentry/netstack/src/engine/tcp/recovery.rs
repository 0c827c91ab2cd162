//! Acknowledgements: what they free, what they say of losses and of the path, and what the congestion
//! window makes of them (RFC 5681, 6675, 6937, 8985).

use std::time::Duration;

use super::super::events::Ready;
use super::super::net::Net;
use super::super::time::Time;
use super::conn::{Conn, Mode, SEND_MOST, Wait};
use super::scoreboard::Acked;
use super::segment::{Blocks, FIN, SYN, Segment};

/// How often forward progress is told to the neighbour cache.
const CONFIRM: Duration = Duration::from_secs(5);

impl Conn {
    /// Takes the acknowledgement of a segment. False: the segment has to be dropped.
    pub fn process_ack(&mut self, net: &mut Net, segment: &Segment) -> bool {
        let (now, ack, una) = (net.now, segment.ack, self.snd_una);
        // RFC 5961, 5.2: outside of what was or could have been sent, the peer is challenged.
        if ack > self.snd_nxt || ack < una.minus(self.max_window.max(1)) {
            self.challenge(net);
            return false;
        }
        if ack < una {
            return true;
        }
        let old_window = self.snd_wnd;
        if self.snd_wl1 < segment.seq || (self.snd_wl1 == segment.seq && self.snd_wl2 <= ack) {
            self.snd_wl1 = segment.seq;
            self.snd_wl2 = ack;
            self.snd_wnd = usize::from(segment.window) << if segment.has(SYN) { 0 } else { self.snd_scale };
            self.max_window = self.max_window.max(self.snd_wnd);
        }
        if self.board.is_empty() {
            self.probes = 0;
            self.silent_since = None;
        }
        let flight = self.board.in_flight;
        let (blocks, duplicate) = self.blocks(segment);
        let acked = if ack == una && blocks.is_empty() {
            Acked::default()
        } else {
            self.board.acknowledge(una, ack, &blocks, self.rtt.least(), now)
        };
        let newest = acked.newest.map(|sent| (sent.at, sent.mark));
        self.delivery.arrived(acked.delivered, newest, self.rtt.least(), now);
        if acked.cumulative > 0 {
            self.advance_una(net, segment, &acked);
        }
        // An acknowledgement that something sent again has made possible says nothing of when the rest came.
        if let Some(rtt) = acked.rtt.filter(|_| !acked.retransmitted) {
            self.rtt.sample(rtt, now);
        } else if acked.cumulative > 0
            && let (true, Some((_, echo))) =
                (self.timestamps && acked.retransmitted, segment.options.timestamp)
        {
            // Karn's rule does not bind where a timestamp tells the copies apart.
            let millis = self.ts_now(now).wrapping_sub(echo);
            if millis < 60_000 {
                self.rtt.sample(Duration::from_millis(u64::from(millis.max(1))), now);
            }
        }
        if duplicate {
            self.counters.dsack_duplicates += 1;
            self.board.reordering = true;
            self.board.steps = (self.board.steps + 1).min(15);
        }
        let plain = segment.data.is_empty() && segment.flags & (SYN | FIN) == 0;
        let repeated = ack == una && plain && self.snd_wnd == old_window && !self.board.is_empty();
        self.judge_tail_probe(segment, &acked, duplicate, repeated);
        self.judge_losses(now, &acked, repeated);
        let limited = match self.congestion.slow_start() {
            true => self.congestion.cwnd < 2 * flight.max(acked.delivered),
            false => flight + self.mss >= self.congestion.cwnd,
        };
        match self.mode {
            Mode::Recovery => self.reduce_rate(acked.delivered, repeated),
            _ if acked.cumulative > 0 => {
                let rtt = self.rtt.smoothed.unwrap_or_default();
                self.congestion.acked(acked.cumulative, rtt, now, limited);
            }
            _ => {}
        }
        let reordering = matches!(self.retransmit, Some((Wait::Reordering, _)));
        let probe_is_late = matches!(self.retransmit, Some((Wait::TailProbe, _))) && self.board.sacked > 0;
        if (acked.cumulative > 0 && (!reordering || self.board.is_empty())) || probe_is_late {
            self.arm_retransmit(now);
        }
        if acked.cumulative > 0 {
            self.tune_send(net.memory.pressure());
        }
        true
    }

    /// The blocks of a segment that can be of use; whether it reports something received twice (RFC 2883).
    fn blocks(&self, segment: &Segment) -> (Blocks, bool) {
        let mut blocks = Blocks::new();
        if !self.sack {
            return (blocks, false);
        }
        let list = &segment.options.sack;
        let duplicate = match list.first() {
            Some(&(from, to)) => {
                let inside = list.get(1).is_some_and(|&(a, b)| from >= a && to <= b);
                from < to && (to <= segment.ack || inside)
            }
            None => false,
        };
        let from = usize::from(duplicate);
        blocks.extend(list.iter().skip(from).copied());
        (blocks, duplicate)
    }

    fn advance_una(&mut self, net: &mut Net, segment: &Segment, acked: &Acked) {
        let now = net.now;
        let syn = usize::from(self.snd_una == self.iss);
        let data = acked.cumulative.saturating_sub(syn).min(self.send.len());
        self.snd_una = segment.ack;
        self.send.advance(data);
        self.counters.bytes_acked += data as u64;
        self.retries = 0;
        self.backoff = 0;
        self.silent_since = None;
        self.duplicate_acks = if acked.cumulative > 0 { 0 } else { self.duplicate_acks };
        self.soft_error = None;
        if self.urgent_out.is_some_and(|up| up <= self.snd_una) {
            self.urgent_out = None;
        }
        if self.mode != Mode::Open && self.snd_una >= self.high {
            if self.mode == Mode::Recovery {
                self.congestion.cwnd = self.congestion.ssthresh.max(2 * self.mss);
            }
            self.mode = Mode::Open;
        }
        self.offer_room();
        if self.send.is_empty() && self.fin_sent {
            self.wake |= Ready::WRITE;
        }
        if let Some(path) = self.path
            && now.since(self.confirmed_at) > CONFIRM
        {
            self.confirmed_at = now;
            net.neighbours.confirm(path.interface, path.next_hop, now);
        }
    }

    /// The send buffer follows the congestion window, unless the user has fixed it.
    fn tune_send(&mut self, pressure: bool) {
        if self.options.send_buffer.is_none() && !pressure {
            let wanted = (2 * self.congestion.cwnd).min(SEND_MOST);
            if wanted > self.send_capacity {
                self.send_capacity = wanted;
                self.offer_room();
            }
        }
    }

    /// Whether a tail loss probe repaired something without a sign of it (RFC 8985, 7.4).
    fn judge_tail_probe(&mut self, segment: &Segment, acked: &Acked, duplicate: bool, repeated: bool) {
        let Some((end, again)) = self.tail_probe else { return };
        if segment.ack < end {
            return;
        }
        if !again || duplicate || (segment.ack == end && repeated && acked.delivered == 0) {
            self.tail_probe = None;
        } else if segment.ack > end {
            self.tail_probe = None;
            if self.mode == Mode::Open {
                let flight = self.board.in_flight + acked.delivered;
                self.congestion.cwnd = self.congestion.reduce(flight);
            }
        }
    }

    fn judge_losses(&mut self, now: Time, acked: &Acked, repeated: bool) {
        if self.sack {
            if self.board.sacked > 0 || self.mode != Mode::Open {
                self.detect_loss(now);
            }
            return;
        }
        // Without SACK: NewReno (RFC 6582).
        if repeated {
            self.duplicate_acks += 1;
            if self.duplicate_acks == 3 && self.mode == Mode::Open {
                let lost = self.board.lose_first(self.mss);
                self.enter_recovery(lost);
            }
        } else if self.mode == Mode::Recovery && acked.cumulative > 0 {
            self.board.lose_first(self.mss);
        }
    }

    /// Looks for losses by time; sets the timer for what may only be late.
    pub fn detect_loss(&mut self, now: Time) {
        let smoothed = self.rtt.smoothed.unwrap_or(Duration::from_millis(100));
        let eager = self.mode != Mode::Open || self.board.sacked >= 3 * self.mss;
        let (lost, wait) = self.board.detect(now, smoothed, self.rtt.least(), eager);
        if lost > 0 && self.mode == Mode::Open {
            self.enter_recovery(lost);
        }
        match (wait, self.retransmit) {
            (Some(wait), old) => {
                let at = now + wait.max(Duration::from_micros(100));
                if !matches!(old, Some((Wait::Timeout, due)) if due <= at) {
                    self.retransmit = Some((Wait::Reordering, at));
                }
            }
            (None, Some((Wait::Reordering, _))) => self.arm_retransmit(now),
            (None, _) => {}
        }
    }

    fn enter_recovery(&mut self, _lost: usize) {
        let flight = self.board.in_flight + self.board.lost;
        self.high = self.snd_nxt;
        self.prr_flight = flight.max(1);
        self.prr_delivered = 0;
        self.prr_out = 0;
        self.congestion.reduce(flight);
        self.mode = Mode::Recovery;
        self.tail_probe = None;
    }

    /// Proportional rate reduction (RFC 6937): the window of this round.
    fn reduce_rate(&mut self, delivered: usize, repeated: bool) {
        let delivered = if self.sack { delivered } else { delivered + if repeated { self.mss } else { 0 } };
        self.prr_delivered += delivered;
        let (pipe, threshold) = (self.board.in_flight, self.congestion.ssthresh);
        let mut count = if pipe > threshold {
            let share = (self.prr_delivered as u128 * threshold as u128).div_ceil(self.prr_flight as u128);
            (share as usize).saturating_sub(self.prr_out)
        } else {
            let owed = self.prr_delivered.saturating_sub(self.prr_out).max(delivered);
            (owed + if delivered > 0 { self.mss } else { 0 }).min(threshold - pipe)
        };
        if self.prr_out == 0 {
            count = count.max(self.mss);
        }
        self.congestion.cwnd = (pipe + count).max(self.mss);
    }
}
