//! What a connection sends and when: new data by window and Nagle's rule, runs again that are lost,
//! acknowledgements, resets. One frame may hold many segments if the link cuts it.

use std::time::Duration;

use super::super::error::Error;
use super::super::frame::{SegmentKind, Segmentation, TxFrame};
use super::super::net::{Net, TCP};
use super::super::sending::{Fragmenting, Outgoing};
use super::super::time::Time;
use super::conn::{AckNeed, Conn, Mode, SCALE, State, Wait};
use super::segment::{ACK, Blocks, FIN, Header, Options, PSH, RST, SYN, URG};
use super::seq::Seq;

/// How long TCP_CORK holds back an incomplete segment.
const CORK: Duration = Duration::from_millis(200);
/// How long an acknowledgement waits for company; who answers within this time holds a dialogue.
const ACK_WAIT: Duration = Duration::from_millis(40);
/// Linux looks at the route again after a while; so do we.
const PATH_AGE: Duration = Duration::from_secs(30);

impl Conn {
    /// Asks for the path again if anything may have changed.
    pub fn refresh_path(&mut self, net: &Net) -> Result<(), Error> {
        let old = net.now.since(self.path_checked) > PATH_AGE;
        if self.path.is_some() && self.path_generation == net.generation && !old {
            return Ok(());
        }
        let (local, remote) = (self.tuple.local(), self.tuple.remote());
        self.path_generation = net.generation;
        self.path_checked = net.now;
        match net.path(remote.ip(), Some(local.ip()), self.options.interface) {
            Ok(path) => {
                self.path = Some(path);
                self.set_mss();
                Ok(())
            }
            Err(error) => {
                self.path = None;
                self.soft_error = Some(error);
                Err(error)
            }
        }
    }

    fn header_room(&self) -> usize {
        if self.tuple.local().is_ipv4() { 40 } else { 60 }
    }

    /// The segment size that we announce.
    pub fn own_mss(&self) -> u16 {
        let mtu = self.path.map_or(1280, |path| path.mtu);
        let mss = mtu.saturating_sub(self.header_room()).clamp(88, 65_495);
        let mss = self.max_segment.map_or(mss, |most| mss.min(usize::from(most)));
        u16::try_from(mss).unwrap_or(u16::MAX)
    }

    pub fn set_mss(&mut self) {
        let full = self.peer_mss.min(usize::from(self.own_mss()));
        let mss = full.saturating_sub(if self.timestamps { 12 } else { 0 }).max(48);
        if mss != self.mss {
            self.mss = mss;
            self.congestion.set_mss(mss);
        }
    }

    /// The largest payload of one frame: a multiple of the segment size if the link cuts frames.
    fn frame_room(&self, net: &Net) -> usize {
        let able = self.path.filter(|path| !path.local).and_then(|path| net.interface(path.interface));
        match able.map_or(0, |interface| interface.capabilities.segmentation) {
            0 => self.mss,
            most => {
                let room = most.min(65_535).saturating_sub(self.header_room() + 40);
                (room / self.mss * self.mss).max(self.mss)
            }
        }
    }

    /// The largest window that there will ever be.
    pub fn full_window(&self) -> usize {
        let most = self.receive_capacity.min(65_535 << self.rcv_scale);
        self.options.window_clamp.map_or(most, |clamp| most.min(clamp))
    }

    /// The window of a SYN, which is not scaled.
    pub fn first_window(&self) -> u16 {
        let clamp = self.options.window_clamp.unwrap_or(usize::MAX);
        self.receive_capacity.min(clamp).min(65_535) as u16
    }

    /// The window to announce, never taken back, and its field.
    fn window(&mut self) -> u16 {
        let full = self.full_window();
        let space = self.receive_capacity.saturating_sub(self.receive.len()).min(full);
        // Silly windows are not opened (RFC 1122, 4.2.3.3).
        let space = if space < self.rcv_mss.min(full / 2) { 0 } else { space };
        let least = self.rcv_edge.after(self.rcv_nxt);
        let wanted = space.max(least).min(65_535 << self.rcv_scale);
        let field =
            (wanted + (if wanted == least { (1 << self.rcv_scale) - 1 } else { 0 })) >> self.rcv_scale;
        let field = field.min(65_535);
        self.rcv_edge = self.rcv_edge.max(self.rcv_nxt.plus(field << self.rcv_scale));
        field as u16
    }

    /// The options of a segment after the handshake.
    fn options_out(&mut self, net: &Net, with_sack: bool) -> Options {
        let mut options = Options::default();
        if self.timestamps {
            options.timestamp = Some((self.ts_now(net.now), self.ts_recent));
        }
        if with_sack && self.sack {
            let room = if self.timestamps { 3 } else { 4 };
            let mut blocks = Blocks::new();
            blocks.extend(self.dsack.take());
            let (nxt, position) = (self.rcv_nxt, self.rcv_position);
            for &(from, to) in self.assembler.ranges(position) {
                if blocks.len() < room {
                    blocks.push((nxt.plus((from - position) as usize), nxt.plus((to - position) as usize)));
                }
            }
            options.sack = blocks;
        }
        options
    }

    /// Sends one segment (or a frame of several) with `length` bytes of data from `seq` on.
    fn emit(&mut self, net: &mut Net, seq: Seq, length: usize, mut flags: u8, options: Options) {
        if self.refresh_path(net).is_err() {
            return;
        }
        let Some(path) = self.path else { return };
        let mut frame = TxFrame::default();
        if length > 0 {
            let offset = seq.after(self.snd_una);
            self.send.for_range(offset, length, |chunk, from, to| frame.body.push(chunk.slice(from, to)));
            let per = self.mss;
            if length > per {
                let kind = if self.tuple.local().is_ipv4() { SegmentKind::Tcp4 } else { SegmentKind::Tcp6 };
                let size = u16::try_from(per).unwrap_or(u16::MAX);
                if frame.body_len() + 100 > path.mtu {
                    frame.segmentation = Some(Segmentation { kind, size });
                }
            }
            self.counters.data_segments_out += length.div_ceil(per) as u32;
            self.counters.bytes_sent += length as u64;
        }
        let segments = length.div_ceil(self.mss).max(1) as u32;
        let mut urgent = 0;
        if let Some(up) = self.urgent_out {
            let distance = up.after(seq);
            if distance > 0 && distance <= 65_535 && flags & ACK != 0 {
                flags |= URG;
                urgent = distance as u16;
            }
        }
        let window = if flags & SYN != 0 {
            let first = self.first_window();
            self.rcv_edge = self.rcv_nxt.plus(usize::from(first));
            first
        } else {
            self.window()
        };
        let (local, remote) = (self.tuple.local(), self.tuple.remote());
        let header = Header {
            source: (local.ip(), local.port()),
            destination: (remote.ip(), remote.port()),
            seq,
            ack: if flags & ACK != 0 { self.rcv_nxt } else { Seq(0) },
            flags,
            window,
            urgent,
            options,
        };
        header.push(&mut frame);
        if flags & ACK != 0 {
            self.ack = AckNeed::None;
            self.delayed_ack = None;
            self.unacked = 0;
            self.last_ack_sent = self.rcv_nxt;
            self.quick = self.quick.saturating_sub(1);
        }
        self.counters.segments_out += segments;
        net.stats.tcp_out += u64::from(segments);
        let out = Outgoing {
            ttl: self.options.ttl,
            tos: self.options.tos,
            fragmenting: Fragmenting::Never,
            ..Outgoing::new(local.ip(), remote.ip(), TCP)
        };
        if let Err(error) = net.output(&path, &out, frame) {
            self.soft_error = Some(error);
        }
    }

    /// Sends SYN, or SYN and ACK.
    pub fn send_syn(&mut self, net: &mut Net) {
        let _ = self.refresh_path(net);
        let answer = self.state == State::SynReceived;
        // After a few tries without options a broken peer may understand.
        let mut options = Options {
            mss: Some(self.own_mss()),
            scale: (!answer || self.rcv_scale > 0).then_some(SCALE),
            sack_permitted: !answer || self.sack,
            timestamp: (!answer || self.timestamps)
                .then(|| (self.ts_now(net.now), if answer { self.ts_recent } else { 0 })),
            sack: Blocks::new(),
        };
        options.restrict(net.tcp_features);
        let iss = self.iss;
        self.snd_nxt = iss.plus(1);
        self.emit(net, iss, 0, if answer { SYN | ACK } else { SYN }, options);
    }

    /// Sends an acknowledgement without data.
    pub fn send_ack(&mut self, net: &mut Net) {
        let options = self.options_out(net, true);
        let seq = self.snd_nxt;
        self.emit(net, seq, 0, ACK, options);
    }

    /// An old sequence number, which makes the peer acknowledge: keep-alive and window probes.
    pub fn send_probe(&mut self, net: &mut Net) {
        let options = self.options_out(net, false);
        let seq = self.snd_una.minus(1);
        self.emit(net, seq, 0, ACK, options);
    }

    pub fn send_reset(&mut self, net: &mut Net) {
        if matches!(self.state, State::SynSent | State::Closed) {
            return;
        }
        let options = self.options_out(net, false);
        let seq = self.snd_nxt;
        net.stats.tcp_resets_out += 1;
        self.emit(net, seq, 0, RST | ACK, options);
    }

    /// Sends a run that may hold the FIN.
    fn send_run(&mut self, net: &mut Net, seq: Seq, end: Seq) {
        let data_end = self.data_end();
        let data = data_end.min(end).after(seq);
        let mut flags = ACK;
        if end > data_end {
            flags |= FIN;
        }
        if data > 0 && seq.plus(data) == data_end {
            flags |= PSH;
        }
        let options = self.options_out(net, false);
        self.last_sent = net.now;
        self.pace(net.now, data);
        self.emit(net, seq, data, flags, options);
    }

    /// Sends a run again.
    pub fn send_again(&mut self, net: &mut Net, seq: Seq, end: Seq) {
        let now = net.now;
        let mark = self.delivery.mark(self.board.in_flight == 0, now);
        self.board.resent(seq, now, mark);
        let length = end.after(seq);
        self.prr_out += length;
        self.counters.retransmissions += length.div_ceil(self.mss).max(1) as u32;
        self.counters.bytes_retransmitted += length as u64;
        net.stats.tcp_retransmitted += 1;
        self.send_run(net, seq, end);
    }

    /// Sends everything that may be sent now, and a due acknowledgement.
    pub fn output(&mut self, net: &mut Net) {
        if self.state.synchronized() {
            let before = self.counters.segments_out;
            self.output_lost(net);
            self.output_new(net);
            if self.counters.segments_out != before
                && self.retransmit.is_none_or(|(wait, _)| wait == Wait::WindowProbe)
            {
                self.arm_retransmit(net.now);
            }
            self.arm_window_probe(net.now);
            if self.options.not_sent_low.is_some() {
                self.offer_room();
            }
        }
        match self.ack {
            AckNeed::Soon if net.late_acks(self.handle) => {}
            AckNeed::Soon | AckNeed::Now if self.state != State::SynSent => self.send_ack(net),
            AckNeed::Delayed if self.delayed_ack.is_none() => {
                self.delayed_ack = Some(net.now + ACK_WAIT.min(self.options.ack_most));
            }
            _ => {}
        }
    }

    /// Whether the next segment has to wait for its time (SO_MAX_PACING_RATE).
    fn paced(&mut self, now: Time) -> bool {
        self.pace_until = Some(self.pace_at).filter(|at| self.options.pacing.is_some() && *at > now);
        self.pace_until.is_some()
    }

    /// Data leaves: the next has to wait until the wire would be free at that rate. As Linux, the first segments do not.
    fn pace(&mut self, now: Time, length: usize) {
        let Some(rate) = self.options.pacing.filter(|rate| *rate > 0) else { return };
        if self.counters.data_segments_out >= 10 {
            let nanos = length as u128 * 1_000_000_000 / u128::from(rate);
            let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            self.pace_at = self.pace_at.max(now) + time;
        }
    }

    fn output_lost(&mut self, net: &mut Net) {
        let room = self.frame_room(net);
        let mut first = true;
        while self.board.lost > 0 && !self.paced(net.now) {
            let free = self.congestion.cwnd.saturating_sub(self.board.in_flight);
            // The first of a round always goes: recovery must not wait for itself.
            let allowed = if first && self.board.in_flight == 0 { free.max(self.mss) } else { free };
            if allowed < self.mss.min(self.board.lost) {
                break;
            }
            let most = if allowed < self.mss { allowed } else { room.min(allowed / self.mss * self.mss) };
            let Some((seq, end)) = self.board.next_lost(most) else { break };
            self.send_again(net, seq, end);
            first = false;
            if self.path.is_none() {
                break;
            }
        }
    }

    fn output_new(&mut self, net: &mut Net) {
        if self.fin_sent {
            return;
        }
        if self.refresh_path(net).is_err() {
            // The timer tries again; what is unsent stays so.
            if self.unsent() > 0 && self.retransmit.is_none() {
                self.retransmit = Some((Wait::WindowProbe, net.now + self.rtt.backed_off(self.backoff)));
            }
            return;
        }
        if self.board.is_empty() && self.unsent() > 0 {
            let idle = net.now.since(self.last_sent);
            if idle > self.rtt.rto() {
                self.congestion.restart(idle, self.rtt.rto());
            }
        }
        let mut room = self.frame_room(net);
        if let Some(rate) = self.options.pacing {
            // No more at once than goes in a millisecond (as sk_pacing_shift).
            let most = usize::try_from(rate >> 10).unwrap_or(usize::MAX).max(2 * self.mss);
            room = room.min(most / self.mss * self.mss);
        }
        loop {
            let unsent = self.unsent();
            let window = self.snd_una.plus(self.snd_wnd).after(self.snd_nxt);
            if unsent == 0 || self.paced(net.now) {
                break;
            }
            let credit = self.congestion.cwnd.saturating_sub(self.board.in_flight);
            let mut take = unsent.min(window).min(credit).min(room);
            if take == 0 {
                break;
            }
            // A frame of several segments ends with a whole one, unless the rest may go as well.
            let rest = take % self.mss;
            if take > self.mss && rest != 0 && (take < unsent || !self.may_send_small(true)) {
                take -= rest;
            }
            if take < self.mss {
                let whole = take == unsent;
                // Sender's silly window avoidance (RFC 1122, 4.2.3.4).
                let silly = !whole && take < self.max_window / 2;
                if (silly && (window >= self.mss.min(unsent) || !self.board.is_empty()))
                    || (whole && !self.may_send_small(whole))
                {
                    if self.options.cork && self.cork_until.is_none() {
                        self.cork_until = Some(net.now + CORK);
                    }
                    break;
                }
            }
            if take < unsent && take < room && self.defers(take, net.now) {
                break;
            }
            let (seq, end) = (self.snd_nxt, self.snd_nxt.plus(take));
            let fin = self.fin_wanted && take == unsent;
            let end = if fin && window > take { end.plus(1) } else { end };
            self.note_sent(net, seq, end);
            if self.path.is_none() {
                break;
            }
        }
        if self.fin_wanted && !self.fin_sent && self.unsent() == 0 {
            let seq = self.snd_nxt;
            self.note_sent(net, seq, seq.plus(1));
        }
    }

    /// Whether a frame that could hold more should wait for the next acknowledgement, which will let more
    /// go at once (as Linux's tcp_tso_should_defer): else a stream of large frames decays to small ones.
    fn defers(&self, take: usize, now: Time) -> bool {
        let Some(oldest) = self.board.oldest().filter(|_| self.mode == Mode::Open) else { return false };
        // An acknowledgement that is half a round trip away is not worth the wait.
        let near = now.since(oldest) >= self.rtt.smoothed.unwrap_or_default() / 2;
        near && take < self.snd_wnd.min(self.congestion.cwnd) / 3
    }

    fn note_sent(&mut self, net: &mut Net, seq: Seq, end: Seq) {
        let now = net.now;
        let length = end.after(seq);
        self.snd_nxt = end;
        let data_end = self.data_end();
        if end > data_end {
            self.fin_sent = true;
        }
        if length % self.mss != 0 {
            self.small_end = end;
        }
        self.cork_until = None;
        if end > seq && now.since(self.data_at) < ACK_WAIT && self.rcv_position > 0 {
            self.pingpong = true;
        }
        let mark = self.delivery.mark(self.board.in_flight == 0, now);
        self.board.push(seq, end, now, mark);
        self.prr_out += length;
        self.send_run(net, seq, end);
    }

    /// Nagle's rule in Minshall's form, TCP_NODELAY and TCP_CORK. `whole`: nothing stays behind.
    fn may_send_small(&self, whole: bool) -> bool {
        if self.fin_wanted || self.urgent_out.is_some() {
            return true;
        }
        if self.options.cork {
            return false;
        }
        whole && (self.options.no_delay || self.small_end <= self.snd_una)
    }

    /// True if a timer has to ask for the window: there is data, none in flight, and none can go.
    fn arm_window_probe(&mut self, now: Time) {
        let waits = self.cork_until.is_some() || self.pace_until.is_some();
        let stuck = self.board.is_empty() && self.unsent() > 0 && !waits;
        match self.retransmit {
            Some((Wait::WindowProbe, _)) if !stuck => {
                self.retransmit = None;
                self.probes = 0;
                self.backoff = 0;
            }
            None if stuck => {
                self.retransmit = Some((Wait::WindowProbe, now + self.rtt.backed_off(self.backoff)));
            }
            _ => {}
        }
    }

    /// Starts the timer for what is in flight: a tail loss probe where that is sensible, else the timeout.
    pub fn arm_retransmit(&mut self, now: Time) {
        if self.board.is_empty() {
            self.retransmit = None;
            return;
        }
        let timeout = self.rtt.backed_off(self.backoff);
        let probing =
            self.mode == Mode::Open && self.sack && self.board.sacked == 0 && self.tail_probe.is_none();
        if let (true, Some(smoothed)) = (probing && self.backoff == 0, self.rtt.smoothed) {
            let single = self.board.in_flight <= self.mss;
            let wait =
                smoothed * 2 + if single { Duration::from_millis(200) } else { Duration::from_millis(2) };
            if wait < timeout {
                self.retransmit = Some((Wait::TailProbe, now + wait));
                return;
            }
        }
        self.retransmit = Some((Wait::Timeout, now + timeout));
    }
}
