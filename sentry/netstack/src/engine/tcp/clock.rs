//! What a connection does when its timers fire.

use std::time::Duration;

use super::super::error::Error;
use super::super::net::Net;
use super::super::time::Time;
use super::conn::{AckNeed, Conn, Mode, State, Wait};

/// Timeouts of one segment before the connection is given up (tcp_retries2), and of one that nobody holds.
const RETRIES: u32 = 15;
const ORPHAN_RETRIES: u32 = 8;
/// Timeouts of a thin stream that do not grow.
const THIN_RETRIES: u32 = 6;

impl Conn {
    /// Does what is due and sets the timer again.
    pub fn tick(&mut self, net: &mut Net) {
        self.timer_entry = None;
        let now = net.now;
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if due(self.delayed_ack) {
            self.delayed_ack = None;
            if self.ack == AckNeed::Delayed {
                self.ack = AckNeed::Now;
                // No data of ours came in time: this is no dialogue.
                self.pingpong = false;
            }
        }
        if due(self.cork_until) {
            self.cork_until = None;
            let cork = std::mem::replace(&mut self.options.cork, false);
            let no_delay = std::mem::replace(&mut self.options.no_delay, true);
            self.output(net);
            self.options.cork = cork;
            self.options.no_delay = no_delay;
        }
        if due(self.pace_until) {
            self.pace_until = None;
        }
        if due(self.fin_wait_at) {
            self.fin_wait_at = None;
            if self.released && self.state == State::FinWait2 {
                // The peer may go on to talk; it is told then that nobody is here.
                self.finish(None);
            }
        }
        if due(self.keep_at) {
            self.keep_alive(net);
        }
        if let Some((wait, at)) = self.retransmit
            && at <= now
        {
            self.retransmit = None;
            match wait {
                Wait::Reordering => {
                    self.detect_loss(now);
                    if self.retransmit.is_none() {
                        self.arm_retransmit(now);
                    }
                }
                Wait::TailProbe => self.tail_probe(net),
                Wait::Timeout => self.timeout(net),
                Wait::WindowProbe => self.window_probe(net),
            }
        }
        if self.state != State::Closed {
            self.output(net);
        }
        self.settle(net);
    }

    /// True if the peer has been silent for too long.
    fn given_up(&mut self, now: Time, retries: u32) -> bool {
        let since = *self.silent_since.get_or_insert(now);
        if let Some(limit) = self.options.user_timeout {
            return now.since(since) >= limit;
        }
        retries > if self.released { ORPHAN_RETRIES } else { RETRIES }
    }

    /// When to try again; the end of the user timeout is not slept through (tcp_clamp_rto_to_user_timeout).
    fn next_try(&self, now: Time) -> Time {
        let next = now + self.rtt.backed_off(self.backoff);
        match (self.options.user_timeout, self.silent_since) {
            (Some(limit), Some(since)) => next.min((since + limit).max(now + Duration::from_millis(1))),
            _ => next,
        }
    }

    fn give_up(&mut self, net: &mut Net) {
        self.send_reset(net);
        let error = self.soft_error.take().unwrap_or(Error::TimedOut);
        self.finish(Some(error));
    }

    fn timeout(&mut self, net: &mut Net) {
        let now = net.now;
        if matches!(self.state, State::SynSent | State::SynReceived) {
            self.retries += 1;
            let since = *self.silent_since.get_or_insert(self.syn_at);
            let late = self.options.user_timeout.is_some_and(|limit| now.since(since) >= limit);
            if self.retries > self.options.syn_retries || late {
                let error = self.soft_error.take().unwrap_or(Error::TimedOut);
                self.finish(Some(error));
                return;
            }
            self.backoff += 1;
            self.send_syn(net);
            if self.state != State::Closed {
                self.retransmit = Some((Wait::Timeout, self.next_try(now)));
            }
            return;
        }
        self.retries += 1;
        let retries = self.retries;
        if self.given_up(now, retries) {
            self.give_up(net);
            return;
        }
        let first = self.mode != Mode::Loss;
        let flight = self.board.in_flight + self.board.lost;
        self.board.lose_all();
        self.congestion.timeout(flight, first);
        self.mode = Mode::Loss;
        self.high = self.snd_nxt;
        self.tail_probe = None;
        self.duplicate_acks = 0;
        self.counters.timeouts += 1;
        // A stream of few segments may ask for timeouts that do not grow (`tcp_stream_is_thin`).
        let thin = self.options.thin_linear && flight < 4 * self.mss && retries <= THIN_RETRIES;
        self.backoff = if thin { 0 } else { self.backoff + 1 };
        // The route may be another by now.
        self.path_checked = Time(0);
        if let Some((seq, end)) = self.board.next_lost(self.mss) {
            self.send_again(net, seq, end);
        }
        self.retransmit = Some((Wait::Timeout, self.next_try(now)));
    }

    /// A tail loss probe (RFC 8985, 7.3): new data if there is some, else the last segment again.
    fn tail_probe(&mut self, net: &mut Net) {
        let now = net.now;
        let before = self.snd_nxt;
        if self.unsent() > 0
            && self.snd_una.plus(self.snd_wnd).after(self.snd_nxt) >= self.mss.min(self.unsent())
        {
            let saved = self.congestion.cwnd;
            self.congestion.cwnd = self.board.in_flight + self.mss;
            let no_delay = std::mem::replace(&mut self.options.no_delay, true);
            self.output(net);
            self.options.no_delay = no_delay;
            self.congestion.cwnd = saved;
        }
        if self.snd_nxt == before
            && let Some((seq, end)) = self.board.probe(self.mss)
        {
            self.send_again(net, seq, end);
            self.tail_probe = Some((self.snd_nxt, true));
        } else {
            self.tail_probe = Some((self.snd_nxt, false));
        }
        if !self.board.is_empty() {
            self.retransmit = Some((Wait::Timeout, self.next_try(now)));
        }
    }

    /// Asks a closed window whether it has opened. It is asked for ever, if the peer answers and somebody holds the connection; of
    /// one that nobody holds the peer shall not keep what is queued for ever (`tcp_probe_timer`).
    fn window_probe(&mut self, net: &mut Net) {
        let now = net.now;
        if self.board.is_empty() && self.unsent() == 0 {
            return;
        }
        self.probes += 1;
        let probes = self.probes;
        let endless = self.released && self.rtt.backed_off(self.backoff) >= self.options.rto_bounds.1;
        if endless || self.given_up(now, probes) {
            self.give_up(net);
            return;
        }
        self.path_checked = Time(0);
        self.send_probe(net);
        self.backoff = (self.backoff + 1).min(16);
        self.retransmit = Some((Wait::WindowProbe, self.next_try(now)));
    }

    /// When the next keep-alive probe has to be thought of.
    pub fn arm_keep_alive(&mut self, now: Time) {
        let alive = self.options.keep_alive && self.state.synchronized();
        self.keep_at = alive.then(|| now + self.options.keep_idle);
        self.keep_probes = 0;
    }

    fn keep_alive(&mut self, net: &mut Net) {
        let now = net.now;
        self.keep_at = None;
        if !self.options.keep_alive || !self.state.synchronized() {
            return;
        }
        // Data in flight asks the same question.
        if !self.board.is_empty() || self.unsent() > 0 {
            self.keep_at = Some(now + self.options.keep_idle);
            return;
        }
        let idle = now.since(self.last_received);
        if idle < self.options.keep_idle {
            self.keep_probes = 0;
            self.keep_at = Some(self.last_received + self.options.keep_idle);
            return;
        }
        let over = match self.options.user_timeout {
            Some(limit) => idle >= limit && self.keep_probes > 0,
            None => self.keep_probes >= self.options.keep_count,
        };
        if over {
            self.send_reset(net);
            let error = self.soft_error.take().unwrap_or(Error::TimedOut);
            self.finish(Some(error));
            return;
        }
        self.send_probe(net);
        self.keep_probes += 1;
        self.keep_at = Some(now + self.options.keep_interval.max(Duration::from_millis(1)));
    }
}
