//! Segments for a connection (RFC 9293, 3.10.7, with RFC 5961 and 7323).

use std::time::Duration;

use super::super::chunk::Chunk;
use super::super::error::Error;
use super::super::events::Ready;
use super::super::memory::LEAST;
use super::super::net::Net;
use super::super::time::Time;
use super::congestion::Congestion;
use super::conn::{AckNeed, Conn, RECEIVE_MOST, SCALE, State, Urgent, Wait};
use super::segment::{ACK, FIN, Options, RST, SYN, Segment, URG};
use super::seq::Seq;

/// Answers to nonsense for one connection (tcp_invalid_ratelimit).
const NONSENSE: Duration = Duration::from_millis(500);
/// What counts as a round trip at least where the window is tuned: Linux, too, measures it in milliseconds there.
const LEAST_ROUND: Duration = Duration::from_millis(1);
/// How long a timestamp guards against old segments (RFC 7323, 5.5).
const PAWS: Duration = Duration::from_secs(24 * 86_400);

/// What has to be done beyond the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Done,
    /// Answer the segment with a reset of its own.
    Reset,
}

impl Conn {
    pub fn input(&mut self, net: &mut Net, mut segment: Segment) -> Verdict {
        self.counters.segments_in += segment.joined as u32;
        let verdict = match self.state {
            State::Closed => Verdict::Reset,
            State::SynSent => self.input_syn_sent(net, &segment),
            _ => self.input_open(net, &mut segment),
        };
        if self.state != State::Closed {
            self.output(net);
        }
        verdict
    }

    /// Takes over what the peer's SYN says.
    pub fn negotiate(&mut self, options: &Options) {
        let default = if self.tuple.local().is_ipv4() { 536 } else { 1220 };
        self.peer_mss = options.mss.map_or(default, usize::from).max(48);
        (self.snd_scale, self.rcv_scale) = options.scale.map_or((0, 0), |scale| (scale, SCALE));
        self.sack = options.sack_permitted;
        self.timestamps = options.timestamp.is_some();
        self.set_mss();
        self.rcv_mss = self.mss;
        self.congestion = Congestion::new(self.options.congestion, self.mss);
    }

    fn input_syn_sent(&mut self, net: &mut Net, segment: &Segment) -> Verdict {
        let now = net.now;
        if segment.has(ACK) && (segment.ack <= self.iss || segment.ack > self.snd_nxt) {
            return if segment.has(RST) { Verdict::Done } else { Verdict::Reset };
        }
        if segment.has(RST) {
            if segment.has(ACK) {
                self.finish(Some(Error::ConnectionRefused));
            }
            return Verdict::Done;
        }
        if !segment.has(SYN) {
            return Verdict::Done;
        }
        self.irs = segment.seq;
        self.rcv_nxt = segment.seq.plus(1);
        self.rcv_edge = self.rcv_nxt.plus(usize::from(self.first_window()));
        self.last_ack_sent = self.rcv_nxt;
        // What was not offered does not count.
        let mut options = segment.options.clone();
        options.restrict(net.tcp_features);
        self.negotiate(&options);
        if let Some((value, _)) = options.timestamp {
            self.ts_recent = value;
            self.ts_recent_at = now;
        }
        self.snd_wnd = usize::from(segment.window);
        self.max_window = self.snd_wnd;
        self.snd_wl1 = segment.seq;
        self.snd_wl2 = segment.ack;
        self.last_received = now;
        self.retransmit = None;
        if segment.has(ACK) {
            if self.retries == 0 {
                self.rtt.sample(now.since(self.syn_at), now);
            }
            self.snd_una = segment.ack;
            self.established(net);
            self.ack = AckNeed::Now;
        } else {
            // Both sides open at once.
            self.state = State::SynReceived;
            self.send_syn(net);
            self.retransmit = Some((Wait::Timeout, now + self.rtt.backed_off(self.backoff)));
        }
        Verdict::Done
    }

    pub fn established(&mut self, net: &mut Net) {
        self.state = State::Established;
        self.retries = 0;
        self.backoff = 0;
        self.silent_since = None;
        self.retransmit = None;
        self.small_end = self.snd_una;
        self.tune_at = net.now;
        self.last_sent = net.now;
        self.arm_keep_alive(net.now);
        self.wake |= Ready::WRITE;
        if self.fin_wanted {
            self.state = State::FinWait1;
        }
    }

    fn input_open(&mut self, net: &mut Net, segment: &mut Segment) -> Verdict {
        let now = net.now;
        if !self.acceptable(net, segment) {
            return Verdict::Done;
        }
        if segment.has(RST) {
            self.input_reset(net, segment);
            return Verdict::Done;
        }
        if segment.has(SYN) {
            match (self.state == State::SynReceived && segment.seq == self.irs, segment.has(ACK)) {
                // Both opened at once: the SYN is known, its acknowledgement is what was waited for.
                (true, true) => {
                    segment.flags &= !SYN;
                    segment.seq = self.rcv_nxt;
                    self.ack = AckNeed::Now;
                }
                (true, false) => {
                    self.send_syn(net);
                    return Verdict::Done;
                }
                _ => {
                    self.challenge(net);
                    return Verdict::Done;
                }
            }
        }
        if !segment.has(ACK) {
            return Verdict::Done;
        }
        self.last_received = now;
        self.keep_probes = 0;
        if let Some((value, _)) = segment.options.timestamp
            && self.timestamps
            && segment.seq <= self.last_ack_sent
        {
            self.ts_recent = value;
            self.ts_recent_at = now;
        }
        if self.state == State::SynReceived {
            if segment.ack <= self.snd_una || segment.ack > self.snd_nxt {
                return Verdict::Reset;
            }
            if self.retries == 0 {
                self.rtt.sample(now.since(self.syn_at), now);
            }
            self.snd_una = self.iss.plus(1);
            self.snd_wl1 = segment.seq.minus(1);
            self.established(net);
        }
        if !self.process_ack(net, segment) {
            return Verdict::Done;
        }
        let fin_acked = self.fin_sent && self.snd_una == self.snd_nxt;
        match self.state {
            State::FinWait1 if fin_acked => {
                self.state = State::FinWait2;
                self.keep_at = None;
                if self.released {
                    let Some(time) = self.options.fin_timeout else {
                        self.finish(None);
                        return Verdict::Reset;
                    };
                    self.fin_wait_at = Some(now + time);
                }
            }
            State::Closing if fin_acked => {
                self.rests = true;
                self.finish(None);
                return Verdict::Done;
            }
            State::LastAck if fin_acked => {
                self.finish(None);
                return Verdict::Done;
            }
            _ => {}
        }
        if segment.has(URG) && self.state.receives() {
            self.announce_urgent(segment);
        }
        if segment.len() > 0 {
            return self.input_data(net, segment);
        }
        Verdict::Done
    }

    /// Sequence and timestamp checks (RFC 9293, 3.4; RFC 7323, 5).
    fn acceptable(&mut self, net: &mut Net, segment: &Segment) -> bool {
        let now = net.now;
        let old = match segment.options.timestamp {
            Some((value, _)) if self.timestamps && !segment.has(RST) => {
                (value.wrapping_sub(self.ts_recent) as i32) < 0 && now.since(self.ts_recent_at) < PAWS
            }
            _ => false,
        };
        let inside = segment.end() >= self.rcv_nxt.min(self.last_ack_sent) && segment.seq <= self.rcv_edge;
        let probe = segment.len() > 0 && self.rcv_edge == self.rcv_nxt && segment.seq == self.rcv_edge;
        if inside && !old && !probe {
            return true;
        }
        // A probe of the closed window is not taken, but what it acknowledges is.
        if probe
            && !old
            && segment.has(ACK)
            && !segment.has(RST)
            && !segment.has(SYN)
            && self.state.synchronized()
        {
            self.last_received = now;
            self.process_ack(net, segment);
        }
        if !segment.has(RST) {
            if segment.end() <= self.rcv_nxt && !segment.data.is_empty() && self.sack {
                self.dsack = Some((segment.seq, segment.end()));
            }
            if !segment.data.is_empty() || self.may_answer_nonsense(now) {
                self.ack = AckNeed::Now;
            }
        }
        false
    }

    fn may_answer_nonsense(&mut self, now: Time) -> bool {
        if self.out_of_window_at.is_some_and(|at| now.since(at) < NONSENSE) {
            return false;
        }
        self.out_of_window_at = Some(now);
        true
    }

    /// A challenge (RFC 5961): an acknowledgement, of which there are not too many.
    pub fn challenge(&mut self, net: &mut Net) {
        if self.may_answer_nonsense(net.now) {
            self.ack = AckNeed::Now;
        }
    }

    fn input_reset(&mut self, net: &mut Net, segment: &Segment) {
        if segment.seq != self.rcv_nxt {
            self.challenge(net);
            return;
        }
        let error = match self.state {
            State::SynReceived => Error::ConnectionRefused,
            State::CloseWait => Error::BrokenPipe,
            _ => Error::ConnectionReset,
        };
        // Waiting for the last word of a peer that goes away in a hurry is no error.
        let over = matches!(self.state, State::LastAck | State::Closing);
        self.finish((!over).then_some(error));
    }

    fn position(&self, seq: Seq) -> u64 {
        let distance = seq.0.wrapping_sub(self.rcv_nxt.0) as i32;
        self.rcv_position.saturating_add_signed(i64::from(distance))
    }

    /// The urgent pointer, which points behind the urgent byte (as Linux and BSD have it).
    fn announce_urgent(&mut self, segment: &Segment) {
        let at = segment.seq.plus(usize::from(segment.urgent)).minus(1);
        if at < self.rcv_nxt && self.position(at) < self.read_position() {
            return;
        }
        let position = self.position(at);
        if self.urgent.is_some_and(|old| old.position >= position) {
            return;
        }
        let byte = if position < self.rcv_position {
            let mut byte = [0];
            self.receive.copy_to((position - self.read_position()) as usize, &mut byte);
            Some(byte[0])
        } else {
            None
        };
        self.urgent = Some(Urgent { position, byte, taken: false });
        self.wake |= Ready::URGENT;
    }

    fn input_data(&mut self, net: &mut Net, segment: &mut Segment) -> Verdict {
        if !self.state.receives() {
            // After the peer's FIN there is nothing; it repeats itself because our answer was lost.
            self.ack = AckNeed::Now;
            return Verdict::Done;
        }
        let end = segment.end();
        if self.released && end.after(self.rcv_nxt) > usize::from(segment.has(FIN)) {
            // Nobody will ever read this (RFC 2525, 2.17).
            self.finish(Some(Error::ConnectionReset));
            return Verdict::Reset;
        }
        let size = segment.data.len() / segment.joined.max(1);
        if size > self.rcv_mss || segment.joined > 1 {
            self.rcv_mss = size.clamp(1, 65_535);
        }
        if !segment.data.is_empty() {
            self.counters.data_segments_in += segment.joined as u32;
            self.data_at = net.now;
        }
        let mut seq = segment.seq;
        let mut data = segment.data.clone();
        let mut fin = segment.has(FIN);
        if seq < self.rcv_nxt {
            let old = self.rcv_nxt.after(seq);
            if self.sack && !data.is_empty() {
                self.dsack = Some((seq, self.rcv_nxt.min(end)));
            }
            self.ack = AckNeed::Now;
            if end <= self.rcv_nxt {
                return Verdict::Done;
            }
            data.advance(old);
            seq = self.rcv_nxt;
        }
        let room = self.rcv_edge.after(seq);
        if data.len() > room {
            data.truncate(room);
            fin = false;
            self.ack = AckNeed::Now;
        }
        // Without memory only a reader who has nothing gets something (as tcp_try_rmem_schedule); the
        // peer sends the rest again.
        let held = self.receive.len() + self.assembler.bytes();
        if net.memory.exhausted() && !data.is_empty() && (held > LEAST || seq != self.rcv_nxt) {
            net.stats.tcp_no_memory += 1;
            return Verdict::Done;
        }
        if fin {
            self.fin_position = Some(self.position(seq) + data.len() as u64);
        }
        if seq == self.rcv_nxt {
            self.in_order(data);
        } else if !data.is_empty() {
            let position = self.position(seq);
            self.counters.out_of_order += segment.joined as u32;
            if let Some((from, to)) = self.assembler.insert(position, data)
                && self.sack
            {
                let base = self.rcv_nxt;
                let at = |position: u64| base.plus((position - self.rcv_position) as usize);
                self.dsack = Some((at(from), at(to)));
            }
            self.ack = AckNeed::Now;
        } else {
            self.ack = AckNeed::Now;
        }
        if self.fin_position == Some(self.rcv_position) && !self.fin_received {
            self.input_fin(net);
        }
        Verdict::Done
    }

    /// Data that continues the stream, and what had come before it.
    fn in_order(&mut self, data: Chunk) {
        let filled = !self.assembler.is_empty();
        let length = data.len();
        if length == 0 {
            return;
        }
        self.take_in(data);
        while let Some(chunk) = self.assembler.next(self.rcv_position) {
            self.take_in(chunk);
        }
        self.unacked += length;
        let need = match self.unacked > self.rcv_mss {
            _ if filled || (self.quick > 0 && !self.pingpong) => AckNeed::Now,
            true => AckNeed::Soon,
            false => AckNeed::Delayed,
        };
        self.ack = self.ack.max(need);
        self.wake |= Ready::READ;
    }

    fn take_in(&mut self, chunk: Chunk) {
        if let Some(urgent) = &mut self.urgent
            && urgent.byte.is_none()
            && urgent.position >= self.rcv_position
            && let Some(byte) = chunk.get((urgent.position - self.rcv_position) as usize)
        {
            urgent.byte = Some(*byte);
            self.wake |= Ready::URGENT;
        }
        let length = chunk.len();
        self.rcv_nxt = self.rcv_nxt.plus(length);
        self.rcv_position += length as u64;
        self.counters.bytes_received += length as u64;
        // A few bytes shall not keep a large buffer of the link alive.
        let chunk = if chunk.held() > 4 * length + 1024 { Chunk::from(&chunk[..]) } else { chunk };
        self.receive.push(chunk);
    }

    fn input_fin(&mut self, net: &mut Net) {
        self.rcv_nxt = self.rcv_nxt.plus(1);
        self.rcv_edge = self.rcv_edge.max(self.rcv_nxt);
        self.fin_received = true;
        self.assembler.clear();
        self.ack = AckNeed::Now;
        self.wake |= Ready::READ | Ready::READ_CLOSED;
        match self.state {
            State::Established => self.state = State::CloseWait,
            State::FinWait1 => {
                self.state = State::Closing;
                self.wake |= Ready::CLOSED;
            }
            State::FinWait2 => {
                self.send_ack(net);
                self.rests = true;
                self.finish(None);
            }
            _ => {}
        }
    }

    /// The user took bytes: the buffer may grow, and the peer may have to hear of the room.
    pub fn after_read(&mut self, net: &mut Net, count: usize) {
        if self.state == State::Closed || !self.state.receives() {
            return;
        }
        self.tune_copied += count;
        // Whoever only receives has measured nothing but the handshake, which is far shorter than the way through the
        // queues of a busy connection.
        let rtt = self.rtt.smoothed.unwrap_or(Duration::from_millis(10)).max(LEAST_ROUND);
        if net.now.since(self.tune_at) >= rtt {
            if self.options.receive_buffer.is_none()
                && self.tune_copied > self.tune_space
                && !net.memory.pressure()
            {
                self.tune_space = self.tune_copied;
                let wanted = (2 * self.tune_copied + 16 * self.rcv_mss).min(RECEIVE_MOST);
                self.receive_capacity = self.receive_capacity.max(wanted);
            }
            self.tune_copied = 0;
            self.tune_at = net.now;
        }
        let open = self.rcv_edge.after(self.rcv_nxt);
        let full = self.full_window();
        let room = self.receive_capacity.saturating_sub(self.receive.len()).min(full);
        // Tell when the window about doubles, or opens by two segments from nearly nothing.
        let grown = room.saturating_sub(open);
        let step = (2 * self.rcv_mss).min(full / 2).max(1);
        if grown >= step && (open < 2 * self.rcv_mss || grown >= open) {
            self.send_ack(net);
        }
        self.acknowledge_read(net);
    }

    /// Who has read all there was and holds no dialogue does not let the peer wait (`tcp_cleanup_rbuf`).
    pub fn acknowledge_read(&mut self, net: &mut Net) {
        if self.ack == AckNeed::Delayed && !self.pingpong && self.receive.is_empty() {
            self.send_ack(net);
        }
    }
}
