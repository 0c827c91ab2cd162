//! A connection: its variables, options and what can be read of it. What it does with segments is in
//! `input`, `recovery`, `output` and `clock`.

use std::sync::Arc;
use std::time::Duration;

use super::super::addresses::Tuple;
use super::super::chunk::ChunkQueue;
use super::super::error::Error;
use super::super::events::{Event, Observer, Ready};
use super::super::net::Net;
use super::super::route::Path;
use super::super::slab::Handle;
use super::super::time::Time;
use super::super::timers::TimerKey;
use super::assembler::Assembler;
use super::congestion::{Algorithm, Congestion};
use super::rate::{Delivery, Held, Hold};
use super::rtt::{RTO_MAX, RTO_MIN, Rtt};
use super::scoreboard::Scoreboard;
use super::seq::Seq;

/// States of RFC 9293, but LISTEN (see `listener`) and TIME-WAIT (see `remnant`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    Closed,
}

impl State {
    /// The number that TCP_INFO and /proc/net/tcp show.
    pub fn number(self) -> u8 {
        match self {
            State::Established => 1,
            State::SynSent => 2,
            State::SynReceived => 3,
            State::FinWait1 => 4,
            State::FinWait2 => 5,
            State::Closed => 7,
            State::CloseWait => 8,
            State::LastAck => 9,
            State::Closing => 11,
        }
    }

    /// The handshake is over and the connection is not.
    pub fn synchronized(self) -> bool {
        !matches!(self, State::SynSent | State::SynReceived | State::Closed)
    }

    /// Data may still come.
    pub fn receives(self) -> bool {
        matches!(self, State::Established | State::FinWait1 | State::FinWait2)
    }

    /// New data may be sent.
    pub fn sends(self) -> bool {
        matches!(self, State::Established | State::CloseWait)
    }
}

/// Options of a connection; a listener hands its own down.
#[derive(Clone, Copy, Debug)]
pub struct ConnOptions {
    pub no_delay: bool,
    pub cork: bool,
    pub keep_alive: bool,
    pub keep_idle: Duration,
    pub keep_interval: Duration,
    pub keep_count: u32,
    pub user_timeout: Option<Duration>,
    pub max_segment: Option<u16>,
    /// Fixed buffer sizes; tuned by the engine if none.
    pub send_buffer: Option<usize>,
    pub receive_buffer: Option<usize>,
    pub window_clamp: Option<usize>,
    pub congestion: Algorithm,
    pub oob_inline: bool,
    pub quick_ack: bool,
    pub tos: u8,
    pub ttl: Option<u8>,
    /// Packets with fewer hops left are not for this connection, by IPv4 and by IPv6 (IP_MINTTL, IPV6_MINHOPCOUNT; RFC 5082).
    pub least_hops: [u8; 2],
    pub interface: Option<u32>,
    pub syn_retries: u32,
    /// How long FIN-WAIT-2 lasts once nobody reads (TCP_LINGER2, tcp_fin_timeout); none: not at all, the peer is reset.
    pub fin_timeout: Option<Duration>,
    pub not_sent_low: Option<usize>,
    /// Bytes a second that are not to be exceeded (SO_MAX_PACING_RATE).
    pub pacing: Option<u64>,
    /// Of a listener: timeouts of the handshake for which a client without data waits (TCP_DEFER_ACCEPT).
    pub defer_accept: u32,
    /// Of a listener: the SYN is kept, from the network header on or (2) from the link's (TCP_SAVE_SYN).
    pub save_syn: u8,
    /// TCP_THIN_LINEAR_TIMEOUTS
    pub thin_linear: bool,
    /// Bounds of the retransmission timeout (TCP_RTO_MIN_US, TCP_RTO_MAX_MS), and how long an acknowledgement waits at
    /// most (TCP_DELACK_MAX_US).
    pub rto_bounds: (Duration, Duration),
    pub ack_most: Duration,
}

impl ConnOptions {
    /// Whether a packet of a family with so many hops left is for this connection.
    pub fn takes(&self, v4: bool, hops: u8) -> bool {
        hops >= self.least_hops[usize::from(!v4)]
    }
}

impl Default for ConnOptions {
    fn default() -> ConnOptions {
        ConnOptions {
            no_delay: false,
            cork: false,
            keep_alive: false,
            keep_idle: Duration::from_secs(7200),
            keep_interval: Duration::from_secs(75),
            keep_count: 9,
            user_timeout: None,
            max_segment: None,
            send_buffer: None,
            receive_buffer: None,
            window_clamp: None,
            congestion: Algorithm::Cubic,
            oob_inline: false,
            quick_ack: true,
            tos: 0,
            ttl: None,
            least_hops: [0; 2],
            interface: None,
            syn_retries: 6,
            fin_timeout: Some(Duration::from_secs(60)),
            not_sent_low: None,
            pacing: None,
            defer_accept: 0,
            save_syn: 0,
            thin_linear: false,
            rto_bounds: (RTO_MIN, RTO_MAX),
            ack_most: RTO_MIN,
        }
    }
}

/// Sizes of buffers that the engine tunes (tcp_wmem, tcp_rmem).
pub const SEND_INITIAL: usize = 131_072;
pub const SEND_MOST: usize = 4 << 20;
pub const RECEIVE_INITIAL: usize = 131_072;
pub const RECEIVE_MOST: usize = 6 << 20;
/// What a piece of a queue costs beside its bytes.
const PIECE_COST: usize = 128;
/// The window scale that the largest buffer needs.
pub const SCALE: u8 = 7;
/// Acknowledgements at once at the beginning of a connection.
pub const QUICK: u8 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Open,
    Recovery,
    Loss,
}

/// What the retransmission timer waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    Timeout,
    TailProbe,
    Reordering,
    WindowProbe,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AckNeed {
    None,
    Delayed,
    /// When the frames that have come with it have been looked at: one for all of them.
    Soon,
    Now,
}

/// The urgent byte that the peer has announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Urgent {
    /// Its position in the stream.
    pub position: u64,
    pub byte: Option<u8>,
    pub taken: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub bytes_sent: u64,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub bytes_retransmitted: u64,
    pub segments_out: u32,
    pub segments_in: u32,
    pub data_segments_out: u32,
    pub data_segments_in: u32,
    pub retransmissions: u32,
    pub dsack_duplicates: u32,
    pub out_of_order: u32,
    pub timeouts: u32,
}

pub struct Conn {
    pub handle: Handle,
    pub tuple: Tuple,
    pub state: State,
    /// The state it was in when it ended, until that is counted.
    pub ended: Option<State>,
    pub options: ConnOptions,
    pub observer: Option<Arc<dyn Observer>>,
    pub wake: Ready,
    /// What ended the connection, until somebody asks.
    pub error: Option<Error>,
    pub soft_error: Option<Error>,
    /// Nobody holds the handle any more.
    pub released: bool,
    /// It counts among those that go on without anybody.
    pub orphan: bool,
    /// It ended by the rules: the pair of ends rests in TIME-WAIT.
    pub rests: bool,

    pub path: Option<Path>,
    pub path_generation: u64,
    pub path_checked: Time,

    pub iss: Seq,
    pub snd_una: Seq,
    pub snd_nxt: Seq,
    pub snd_wnd: usize,
    pub snd_wl1: Seq,
    pub snd_wl2: Seq,
    pub max_window: usize,
    pub snd_scale: u8,
    /// From the byte at `snd_una` on.
    pub send: ChunkQueue,
    pub send_capacity: usize,
    pub write_blocked: bool,
    pub fin_wanted: bool,
    pub fin_sent: bool,
    pub peer_mss: usize,
    /// TCP_MAXSEG as it was when the connection began: later it changes nothing.
    pub max_segment: Option<u16>,
    /// Payload of a full segment.
    pub mss: usize,
    pub timestamps: bool,
    pub ts_offset: u32,
    pub ts_recent: u32,
    pub ts_recent_at: Time,
    pub last_ack_sent: Seq,
    pub sack: bool,
    pub board: Scoreboard,
    pub delivery: Delivery,
    pub holds: Held,
    pub congestion: Congestion,
    pub rtt: Rtt,
    pub mode: Mode,
    pub high: Seq,
    pub duplicate_acks: u32,
    pub prr_delivered: usize,
    pub prr_out: usize,
    pub prr_flight: usize,
    pub backoff: u32,
    pub retries: u32,
    /// Since when the peer has not answered what was sent again.
    pub silent_since: Option<Time>,
    pub probes: u32,
    pub tail_probe: Option<(Seq, bool)>,
    pub syn_at: Time,
    /// The end of the last segment that was not full (Minshall's variant of Nagle's rule).
    pub small_end: Seq,
    pub cork_until: Option<Time>,
    /// When the next segment may leave, and that one waits for it.
    pub pace_at: Time,
    pub pace_until: Option<Time>,
    pub urgent_out: Option<Seq>,
    pub last_sent: Time,
    /// When the neighbour cache last heard of progress.
    pub confirmed_at: Time,

    pub irs: Seq,
    pub rcv_nxt: Seq,
    /// The right edge that was advertised.
    pub rcv_edge: Seq,
    pub rcv_scale: u8,
    pub receive: ChunkQueue,
    pub receive_capacity: usize,
    pub assembler: Assembler,
    /// Bytes received in order.
    pub rcv_position: u64,
    pub fin_received: bool,
    /// Where the stream ends, once a FIN came, perhaps out of order.
    pub fin_position: Option<u64>,
    pub rcv_mss: usize,
    pub ack: AckNeed,
    pub unacked: usize,
    pub quick: u8,
    /// Question and answer: acknowledgements wait for data of ours (TCP_QUICKACK is off).
    pub pingpong: bool,
    pub dsack: Option<(Seq, Seq)>,
    pub urgent: Option<Urgent>,
    pub tune_copied: usize,
    pub tune_space: usize,
    pub tune_at: Time,
    pub out_of_window_at: Option<Time>,
    pub last_received: Time,
    /// When data came last.
    pub data_at: Time,

    pub retransmit: Option<(Wait, Time)>,
    pub delayed_ack: Option<Time>,
    pub keep_at: Option<Time>,
    pub keep_probes: u32,
    pub fin_wait_at: Option<Time>,
    pub timer_entry: Option<Time>,
    /// What `Net::memory` has been told that this connection holds.
    pub accounted: usize,
    pub counters: Counters,
    /// What began it, until somebody asks (TCP_SAVED_SYN).
    pub saved_syn: Option<Box<[u8]>>,
}

impl Conn {
    pub fn new(tuple: Tuple, options: ConnOptions, iss: Seq, ts_offset: u32, now: Time) -> Conn {
        let mss = 536;
        Conn {
            handle: Handle { index: u32::MAX, generation: 0 },
            tuple,
            state: State::SynSent,
            ended: None,
            observer: None,
            wake: Ready::default(),
            error: None,
            soft_error: None,
            released: false,
            orphan: false,
            rests: false,
            path: None,
            path_generation: 0,
            path_checked: now,
            iss,
            snd_una: iss,
            snd_nxt: iss,
            snd_wnd: 0,
            snd_wl1: Seq(0),
            snd_wl2: Seq(0),
            max_window: 0,
            snd_scale: 0,
            send: ChunkQueue::default(),
            send_capacity: options.send_buffer.unwrap_or(SEND_INITIAL),
            write_blocked: false,
            fin_wanted: false,
            fin_sent: false,
            peer_mss: mss,
            max_segment: options.max_segment,
            mss,
            timestamps: false,
            ts_offset,
            ts_recent: 0,
            ts_recent_at: now,
            last_ack_sent: Seq(0),
            sack: false,
            board: Scoreboard::default(),
            delivery: Delivery::default(),
            holds: Held::default(),
            congestion: Congestion::new(options.congestion, mss),
            rtt: Rtt::bounded(options.rto_bounds),
            mode: Mode::Open,
            high: iss,
            duplicate_acks: 0,
            prr_delivered: 0,
            prr_out: 0,
            prr_flight: 0,
            backoff: 0,
            retries: 0,
            silent_since: None,
            probes: 0,
            tail_probe: None,
            syn_at: now,
            small_end: iss,
            cork_until: None,
            pace_at: Time(0),
            pace_until: None,
            urgent_out: None,
            last_sent: now,
            confirmed_at: Time(0),
            irs: Seq(0),
            rcv_nxt: Seq(0),
            rcv_edge: Seq(0),
            rcv_scale: 0,
            receive: ChunkQueue::default(),
            receive_capacity: options.receive_buffer.unwrap_or(RECEIVE_INITIAL),
            assembler: Assembler::default(),
            rcv_position: 0,
            fin_received: false,
            fin_position: None,
            rcv_mss: mss,
            ack: AckNeed::None,
            unacked: 0,
            quick: QUICK,
            pingpong: !options.quick_ack,
            dsack: None,
            urgent: None,
            tune_copied: 0,
            tune_space: 0,
            tune_at: now,
            out_of_window_at: None,
            last_received: now,
            data_at: now,
            retransmit: None,
            delayed_ack: None,
            keep_at: None,
            keep_probes: 0,
            fin_wait_at: None,
            timer_entry: None,
            accounted: 0,
            counters: Counters::default(),
            saved_syn: None,
            options,
        }
    }

    /// The sequence number after the last byte that was given to us to send (FIN not counted).
    pub fn data_end(&self) -> Seq {
        let base = if self.snd_una == self.iss { self.snd_una.plus(1) } else { self.snd_una };
        base.plus(self.send.len())
    }

    /// Bytes that were never sent.
    pub fn unsent(&self) -> usize {
        if self.fin_sent { 0 } else { self.data_end().after(self.snd_nxt) }
    }

    /// What keeps data from being sent.
    fn hold(&self) -> Hold {
        let free = self.congestion.cwnd > self.board.in_flight;
        let window = self.snd_una.plus(self.snd_wnd).after(self.snd_nxt);
        match self.unsent() {
            0 if self.board.is_empty() => Hold::Idle,
            0 if free && self.write_blocked && self.state.sends() => Hold::Buffer,
            unsent if free && window < self.mss.min(unsent) => Hold::Window,
            _ => Hold::Path,
        }
    }

    /// Whether there is less to send than could go (as `tcp_rate_check_app_limited`).
    pub fn note_starved(&mut self) {
        let flight = self.board.in_flight;
        if self.unsent() < self.mss && flight < self.congestion.cwnd && self.board.lost == 0 {
            self.delivery.starved(flight);
        }
    }

    /// Room for more data of the user; none while as much is unsent as TCP_NOTSENT_LOWAT allows.
    pub fn send_room(&self) -> usize {
        if self.options.not_sent_low.is_some_and(|low| self.unsent() >= low) {
            return 0;
        }
        self.send_capacity.saturating_sub(self.send.len())
    }

    /// Whether a writer is told that there is room: not before half of what may be unsent has gone.
    pub fn writable(&self) -> bool {
        let low = self.options.not_sent_low.is_some_and(|low| 2 * self.unsent() >= low);
        self.send_room() > 0 && self.send_room() >= self.send.len() / 2 && !low
    }

    /// Tells a writer who found no room, if there is some now.
    pub fn offer_room(&mut self) {
        if self.write_blocked && self.writable() {
            self.write_blocked = false;
            self.wake |= Ready::WRITE;
        }
    }

    /// Position in the stream of the next byte to be read.
    pub fn read_position(&self) -> u64 {
        self.rcv_position - self.receive.len() as u64
    }

    /// Bytes that a read may take now: up to the urgent mark, which is not passed in one go.
    pub fn readable(&self) -> usize {
        let length = self.receive.len();
        match self.urgent {
            Some(urgent) if urgent.position > self.read_position() => {
                length.min((urgent.position - self.read_position()) as usize)
            }
            Some(urgent) if urgent.position == self.read_position() && !self.options.oob_inline => {
                length.saturating_sub(1)
            }
            _ => length,
        }
    }

    pub fn at_mark(&self) -> bool {
        self.urgent.is_some_and(|urgent| urgent.position == self.read_position())
    }

    /// What holds now.
    pub fn ready(&self) -> Ready {
        let mut ready = Ready::default();
        if self.readable() > 0 || self.fin_received || self.state == State::Closed {
            ready |= Ready::READ;
        }
        if self.fin_received || self.state == State::Closed {
            ready |= Ready::READ_CLOSED;
        }
        let connecting = matches!(self.state, State::SynSent | State::SynReceived);
        if (!connecting && self.writable()) || self.fin_wanted || self.state == State::Closed {
            ready |= Ready::WRITE;
        }
        if self.state == State::Closed || (self.fin_received && self.fin_wanted) {
            ready |= Ready::CLOSED;
        }
        if self.error.is_some() {
            ready |= Ready::ERROR;
        }
        if self.urgent.is_some_and(|u| u.byte.is_some() && !u.taken && !self.options.oob_inline) {
            ready |= Ready::URGENT;
        }
        ready
    }

    /// The value of our timestamp clock.
    pub fn ts_now(&self, now: Time) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.ts_offset)
    }

    /// Ends the connection with an error (or none), without a word to the peer.
    pub fn finish(&mut self, error: Option<Error>) {
        if self.state == State::Closed {
            return;
        }
        self.ended = Some(self.state);
        self.state = State::Closed;
        if error.is_some() {
            self.error = error;
        }
        self.send.clear();
        self.board.clear();
        self.assembler.clear();
        self.retransmit = None;
        self.delayed_ack = None;
        self.keep_at = None;
        self.fin_wait_at = None;
        self.cork_until = None;
        self.pace_until = None;
        self.ack = AckNeed::None;
        self.wake |= Ready::READ | Ready::WRITE | Ready::READ_CLOSED | Ready::CLOSED;
        if self.error.is_some() {
            self.wake |= Ready::ERROR;
        }
    }

    /// Bytes of payload that are queued, with what each piece costs beside.
    fn held(&self) -> usize {
        let pieces = self.send.chunks() + self.receive.chunks() + self.assembler.len();
        self.send.len() + self.receive.len() + self.assembler.bytes() + pieces * PIECE_COST
    }

    /// Tells the user what happened and sets the timer: the end of everything that changes a connection.
    pub fn settle(&mut self, net: &mut Net) {
        self.holds.set(self.hold(), net.now);
        let held = self.held();
        if held != self.accounted {
            net.memory.account(self.accounted, held);
            self.accounted = held;
        }
        match self.ended.take() {
            Some(State::SynSent | State::SynReceived) => net.stats.tcp_failed_attempts += 1,
            Some(State::Established | State::CloseWait) => net.stats.tcp_broken += 1,
            _ => {}
        }
        if self.wake != Ready::default() {
            if let Some(observer) = &self.observer {
                match net.events.last_mut() {
                    Some(Event::Ready(last, ready)) if Arc::ptr_eq(last, observer) => *ready |= self.wake,
                    _ => net.events.push(Event::Ready(observer.clone(), self.wake)),
                }
            }
            self.wake = Ready::default();
        }
        let key = TimerKey::Connection(self.handle.index, self.handle.generation);
        let next = [
            self.retransmit.map(|(_, at)| at),
            self.delayed_ack,
            self.keep_at,
            self.fin_wait_at,
            self.cork_until,
            self.pace_until,
        ]
        .into_iter()
        .flatten()
        .min();
        if self.state == State::Closed {
            net.timers.remove(key, &mut self.timer_entry);
        } else {
            net.timers.set(key, &mut self.timer_entry, next);
        }
    }
}
