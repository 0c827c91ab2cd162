//! TCP (RFC 9293 and what belongs to it). Here: the table that finds a segment's connection, half-open
//! entry or listener. Calls of the user are in `api`.

mod api;
mod assembler;
mod clock;
mod congestion;
mod conn;
mod cookie;
mod info;
mod input;
mod output;
mod rate;
mod recovery;
mod remnant;
mod rtt;
mod scoreboard;
mod segment;
mod seq;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::addresses::Tuple;
use super::error::{Error, PacketError};
use super::events::{Event, Listening, Observer, Ready};
use super::net::{Net, Packet};
use super::random::{KeyedState, siphash};
use super::slab::{Handle, Slab};
use super::time::Time;
use super::timers::TimerKey;
use conn::{AckNeed, Conn, RECEIVE_INITIAL, Wait};
use cookie::Cookies;
use input::Verdict;
use remnant::{Bare, Half, Remnant, TIME_WAIT, TimeWait};
use segment::{ACK, FIN, Options, RST, SYN, Segment};
use seq::Seq;

pub use api::Accepted;
pub use congestion::Algorithm;
pub use conn::{ConnOptions, State};
pub use info::{ConnectionLine, TcpInfo};

/// Half-open and resting pairs of the whole stack.
const MOST_REMNANTS: usize = 65_536;
/// Connections that nobody holds any more and that have not ended yet (tcp_max_orphans).
const MOST_ORPHANS: usize = 8192;
/// Answers to a SYN before it is forgotten (tcp_synack_retries).
const SYNACK_RETRIES: u32 = 5;

/// Who waits for connections.
pub struct Listener {
    pub local: SocketAddr,
    pub only_v6: bool,
    pub interface: Option<u32>,
    pub backlog: usize,
    pub options: ConnOptions,
    pub observer: Option<Arc<dyn Observer>>,
    queue: VecDeque<Handle>,
    halves: usize,
}

impl Listener {
    /// How well it fits: none if not at all.
    fn score(&self, local: SocketAddr, interface: u32) -> Option<u32> {
        if self.interface.is_some_and(|index| index != interface) {
            return None;
        }
        let address = match (self.local.ip(), local.ip()) {
            (own, to) if own == to => 2,
            (own, to) if own.is_unspecified() && own.is_ipv4() == to.is_ipv4() => 1,
            (IpAddr::V6(own), IpAddr::V4(_)) if own.is_unspecified() && !self.only_v6 => 0,
            _ => return None,
        };
        Some(address * 2 + u32::from(self.interface.is_some()))
    }

    fn full(&self) -> bool {
        self.queue.len() > self.backlog
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Conn(Handle),
    Remnant(Handle),
}

/// All of TCP.
pub struct Tcp {
    conns: Slab<Conn>,
    remnants: Slab<Remnant>,
    listeners: Slab<Listener>,
    demux: HashMap<Tuple, Entry, KeyedState>,
    ports: HashMap<u16, SmallVec<[Handle; 2]>>,
    secret: (u64, u64),
    cookies: Cookies,
    pub defaults: ConnOptions,
    /// Connections that nobody holds and that are not over.
    orphans: usize,
    /// Takes the connections of listeners that only the sockets above know.
    upper: Option<Handle>,
}

impl Tcp {
    pub fn new(net: &mut Net) -> Tcp {
        Tcp {
            conns: Slab::default(),
            remnants: Slab::default(),
            listeners: Slab::default(),
            demux: HashMap::with_hasher(net.hash),
            ports: HashMap::new(),
            secret: (net.random.u64(), net.random.u64()),
            cookies: Cookies::new(&mut *net.random),
            defaults: ConnOptions::default(),
            orphans: 0,
            upper: None,
        }
    }

    /// The initial sequence number of a pair (RFC 6528).
    fn initial(&self, tuple: &Tuple, now: Time) -> Seq {
        Seq((siphash(self.secret, &tuple.words()) as u32).wrapping_add((now.0 >> 6) as u32))
    }

    /// The offset of the timestamp clock towards a peer.
    fn ts_offset(&self, tuple: &Tuple) -> u32 {
        let words = tuple.words();
        (siphash(self.secret, &words[..4]) >> 32) as u32
    }

    fn find_listener(&self, local: SocketAddr, interface: u32, spread: u64) -> Option<Handle> {
        let list = self.ports.get(&local.port())?;
        let scored = |handle: &Handle| self.listeners.get(*handle)?.score(local, interface);
        let best = list.iter().filter_map(scored).max()?;
        let fit: SmallVec<[Handle; 8]> = list.iter().filter(|h| scored(h) == Some(best)).copied().collect();
        fit.get((spread % fit.len().max(1) as u64) as usize).copied()
    }

    /// A packet of protocol TCP.
    pub fn input(&mut self, net: &mut Net, packet: &Packet) {
        if packet.multicast || packet.destination.is_multicast() {
            return;
        }
        let Some(segment) = Segment::parse(packet) else {
            net.stats.tcp_checksum_errors += 1;
            return;
        };
        net.stats.tcp_in += segment.joined as u64;
        let tuple = Tuple::new(
            SocketAddr::new(packet.destination, segment.destination_port),
            SocketAddr::new(packet.source, segment.source_port),
        );
        match self.demux.get(&tuple).copied() {
            Some(Entry::Conn(handle)) => self.input_conn(net, handle, tuple, segment, packet.interface),
            Some(Entry::Remnant(handle)) => self.input_remnant(net, handle, tuple, segment, packet.interface),
            None => self.input_unknown(net, tuple, segment, packet.interface, None),
        }
    }

    fn input_conn(&mut self, net: &mut Net, handle: Handle, tuple: Tuple, segment: Segment, interface: u32) {
        let Some(conn) = self.conns.get_mut(handle) else { return };
        if !conn.options.takes(tuple.local().is_ipv4(), segment.hops) {
            return;
        }
        let reset = Bare::reset(tuple, &segment, interface);
        if conn.input(net, segment) == Verdict::Reset
            && let Some(reset) = reset
        {
            net.stats.tcp_resets_out += 1;
            reset.send(net);
        }
        self.after(net, handle);
    }

    /// Sends the acknowledgement that a connection has put off until the end of a batch of frames.
    pub fn acknowledge(&mut self, net: &mut Net, handle: Handle) {
        if let Some(conn) = self.conns.get_mut(handle).filter(|conn| conn.ack == AckNeed::Soon) {
            conn.send_ack(net);
            self.after(net, handle);
        }
    }

    /// Tidies up after anything was done to a connection.
    fn after(&mut self, net: &mut Net, handle: Handle) {
        let Some(conn) = self.conns.get_mut(handle) else { return };
        conn.settle(net);
        if conn.state != State::Closed {
            return;
        }
        let (tuple, released) = (conn.tuple, conn.released);
        if self.demux.get(&tuple) == Some(&Entry::Conn(handle)) {
            let wait = conn.rests.then(|| TimeWait {
                tuple,
                interface: conn.options.interface,
                snd_nxt: conn.snd_nxt,
                rcv_nxt: conn.rcv_nxt,
                window: (conn.rcv_edge.after(conn.rcv_nxt) >> conn.rcv_scale).min(65_535) as u16,
                ts_recent: conn.timestamps.then_some(conn.ts_recent),
                ts_offset: conn.ts_offset,
                since: net.now,
                until: net.now + TIME_WAIT,
                timer: None,
                answered: None,
            });
            match wait.filter(|_| self.remnants.len() < MOST_REMNANTS) {
                Some(wait) => self.add_remnant(net, Remnant::TimeWait(wait)),
                None => {
                    self.demux.remove(&tuple);
                }
            }
        }
        if released {
            self.forget(net, handle);
        }
    }

    /// Takes a connection out of the table.
    fn forget(&mut self, net: &mut Net, handle: Handle) {
        if let Some(conn) = self.conns.remove(handle) {
            net.memory.account(conn.accounted, 0);
            self.orphans = self.orphans.saturating_sub(usize::from(conn.orphan));
        }
    }

    fn add_remnant(&mut self, net: &mut Net, remnant: Remnant) {
        let (tuple, deadline) = (remnant.tuple(), remnant.deadline());
        let handle = self.remnants.insert(remnant);
        self.demux.insert(tuple, Entry::Remnant(handle));
        if let Some(remnant) = self.remnants.get_mut(handle) {
            let key = TimerKey::Remnant(handle.index, handle.generation);
            net.timers.set(key, remnant.timer(), Some(deadline));
        }
    }

    fn remove_remnant(&mut self, net: &mut Net, handle: Handle) -> Option<Remnant> {
        let mut remnant = *self.remnants.remove(handle)?;
        net.timers.remove(TimerKey::Remnant(handle.index, handle.generation), remnant.timer());
        self.demux.remove(&remnant.tuple());
        if let Remnant::Half(half) = &remnant
            && let Some(listener) = self.listeners.get_mut(half.listener)
        {
            listener.halves = listener.halves.saturating_sub(1);
        }
        Some(remnant)
    }

    fn input_remnant(
        &mut self,
        net: &mut Net,
        handle: Handle,
        tuple: Tuple,
        segment: Segment,
        interface: u32,
    ) {
        match self.remnants.get_mut(handle) {
            Some(Remnant::Half(_)) => self.input_half(net, handle, tuple, segment, interface),
            Some(Remnant::TimeWait(wait)) => {
                let newer = match (wait.ts_recent, segment.options.timestamp) {
                    (Some(recent), Some((value, _))) => (value.wrapping_sub(recent) as i32) > 0,
                    _ => false,
                };
                if segment.has(SYN) && !segment.has(ACK | RST) && (newer || segment.seq > wait.rcv_nxt) {
                    // RFC 1122, 4.2.2.13: a new connection may begin at once, above the old numbers.
                    let above = wait.snd_nxt.plus(65_537);
                    self.remove_remnant(net, handle);
                    self.input_unknown(net, tuple, segment, interface, Some(above));
                    return;
                }
                if segment.has(RST) {
                    if segment.seq == wait.rcv_nxt {
                        self.remove_remnant(net, handle);
                    }
                    return;
                }
                let now = net.now;
                if segment.has(FIN) && segment.end() == wait.rcv_nxt {
                    wait.until = now + TIME_WAIT;
                }
                let strange = segment.len() > 0 || segment.seq != wait.rcv_nxt;
                let often = wait.answered.is_some_and(|at| now.since(at) < Duration::from_millis(500));
                if strange && (!often || segment.has(FIN)) {
                    wait.answered = Some(now);
                    wait.answer(net);
                }
            }
            None => {}
        }
    }

    fn input_half(&mut self, net: &mut Net, handle: Handle, tuple: Tuple, segment: Segment, interface: u32) {
        let Some(Remnant::Half(half)) = self.remnants.get_mut(handle) else { return };
        let next = half.irs.plus(1);
        if segment.has(RST) {
            if segment.seq == next {
                self.remove_remnant(net, handle);
            }
            return;
        }
        if segment.has(SYN) {
            if !segment.has(ACK) && segment.seq == half.irs {
                if let (Some((value, _)), Some(stamp)) =
                    (segment.options.timestamp, &mut half.options.timestamp)
                {
                    stamp.0 = value;
                }
                let half = half.clone();
                let mss = self.announced_mss(net, &half);
                half.answer(net, mss);
            }
            return;
        }
        if !segment.has(ACK) {
            return;
        }
        if segment.ack != half.iss.plus(1) {
            if let Some(reset) = Bare::reset(tuple, &segment, interface) {
                net.stats.tcp_resets_out += 1;
                reset.send(net);
            }
            return;
        }
        if segment.seq < next || segment.seq > next.plus(usize::from(half.own_window)) {
            half.clone().answer_challenge(net);
            return;
        }
        let stale = match (half.options.timestamp, segment.options.timestamp) {
            (Some((recent, _)), Some((value, _))) => (value.wrapping_sub(recent) as i32) < 0,
            _ => false,
        };
        if stale {
            half.clone().answer_challenge(net);
            return;
        }
        if half.tries < half.defer && segment.len() == 0 {
            // TCP_DEFER_ACCEPT: the peer has to say something, or its time has to end.
            half.acknowledged = true;
            return;
        }
        let listener = half.listener;
        match self.listening(net, listener, &tuple, interface) {
            Some(listening) if listening.room => {
                if let Some(Remnant::Half(half)) = self.remove_remnant(net, handle) {
                    self.promote(net, half, listening.options, segment);
                }
            }
            // The peer will repeat itself, or we do.
            Some(_) => net.stats.listen_overflows += 1,
            None => {
                self.remove_remnant(net, handle);
                if let Some(reset) = Bare::reset(tuple, &segment, interface) {
                    net.stats.tcp_resets_out += 1;
                    reset.send(net);
                }
            }
        }
    }

    /// What a listener has to say about one more connection; none if it is gone.
    fn listening(&self, net: &Net, handle: Handle, tuple: &Tuple, interface: u32) -> Option<Listening> {
        if self.upper == Some(handle) {
            return net.upper.as_ref()?.listens(tuple.local(), tuple.remote(), interface);
        }
        let listener = self.listeners.get(handle)?;
        Some(Listening { room: !listener.full(), options: listener.options })
    }

    fn announced_mss(&self, net: &Net, half: &Half) -> u16 {
        let remote = half.tuple.remote().ip();
        let mtu = net.path(remote, Some(half.tuple.local().ip()), None).map_or(1280, |path| path.mtu);
        let mss = mtu.saturating_sub(if remote.is_ipv4() { 40 } else { 60 });
        u16::try_from(mss).unwrap_or(65_495).min(half.max_segment.unwrap_or(u16::MAX)).max(88)
    }

    /// The handshake is complete: a connection is made and queued for its listener.
    fn promote(&mut self, net: &mut Net, half: Half, options: ConnOptions, segment: Segment) {
        let Some(listener) = self.listeners.get_mut(half.listener) else { return };
        let mut conn = Conn::new(half.tuple, options, half.iss, half.ts_offset, net.now);
        conn.state = State::SynReceived;
        conn.irs = half.irs;
        conn.rcv_nxt = half.irs.plus(1);
        conn.rcv_edge = conn.rcv_nxt.plus(usize::from(half.own_window));
        conn.last_ack_sent = conn.rcv_nxt;
        conn.snd_nxt = half.iss.plus(1);
        conn.snd_wnd = usize::from(half.window);
        conn.max_window = conn.snd_wnd.max(usize::from(segment.window));
        conn.syn_at = half.sent_at;
        conn.retries = half.tries;
        // Whatever the segment is found to be: no connection is without a timer before it is open.
        conn.retransmit = Some((Wait::Timeout, net.now + conn.rtt.rto()));
        if matches!(half.tuple.remote().ip(), IpAddr::V6(ip) if ip.is_unicast_link_local()) {
            conn.options.interface = Some(half.interface);
        }
        conn.max_segment = half.max_segment;
        conn.saved_syn = half.syn.clone();
        let _ = conn.refresh_path(net);
        conn.negotiate(&half.options);
        conn.ts_recent = half.options.timestamp.map_or(0, |(value, _)| value);
        net.stats.tcp_passive_opens += 1;
        let handle = self.conns.insert(conn);
        self.demux.insert(half.tuple, Entry::Conn(handle));
        listener.queue.push_back(handle);
        if let Some(observer) = &listener.observer {
            net.events.push(Event::Ready(observer.clone(), Ready::READ));
        }
        if let Some(conn) = self.conns.get_mut(handle) {
            conn.handle = handle;
        }
        self.input_conn(net, handle, half.tuple, segment, half.interface);
    }

    /// A segment for a pair that is not known. `above`: where a new connection's numbers begin.
    fn input_unknown(
        &mut self,
        net: &mut Net,
        tuple: Tuple,
        segment: Segment,
        interface: u32,
        above: Option<Seq>,
    ) {
        let spread = siphash(self.secret, &tuple.words());
        let handle = self.find_listener(tuple.local(), interface, spread).or(self.upper);
        let listening = handle.and_then(|handle| self.listening(net, handle, &tuple, interface));
        let far = |l: &Listening| !l.options.takes(tuple.local().is_ipv4(), segment.hops);
        if listening.as_ref().is_some_and(far) {
            return;
        }
        match (handle, listening) {
            (Some(handle), Some(listening)) if segment.has(SYN) && !segment.has(ACK | RST | FIN) => {
                self.input_syn(net, (handle, listening), tuple, &segment, interface, above);
                return;
            }
            (Some(handle), Some(listening))
                if segment.has(ACK)
                    && !segment.has(SYN | RST)
                    && self.input_cookie(net, (handle, listening), tuple, &segment, interface) =>
            {
                return;
            }
            // Odd combinations at a listener are dropped.
            (_, Some(_)) if segment.has(SYN) && !segment.has(ACK) => return,
            _ => {}
        }
        if let Some(reset) = Bare::reset(tuple, &segment, interface) {
            net.stats.tcp_resets_out += 1;
            reset.send(net);
        }
    }

    fn input_syn(
        &mut self,
        net: &mut Net,
        (handle, listening): (Handle, Listening),
        tuple: Tuple,
        segment: &Segment,
        interface: u32,
        above: Option<Seq>,
    ) {
        let now = net.now;
        let ts_offset = self.ts_offset(&tuple);
        let initial = above.unwrap_or_else(|| self.initial(&tuple, now));
        let crowded = self.remnants.len() >= MOST_REMNANTS;
        let Some(listener) = self.listeners.get_mut(handle) else { return };
        if !listening.room {
            net.stats.listen_overflows += 1;
            return;
        }
        let own_window = first_window(&listening.options);
        let mut half = Half {
            tuple,
            listener: handle,
            interface,
            irs: segment.seq,
            iss: initial,
            options: Options { sack: SmallVec::new(), ..segment.options.clone() },
            window: segment.window,
            own_window,
            ts_offset,
            sent_at: now,
            tries: 0,
            defer: listening.options.defer_accept,
            acknowledged: false,
            max_segment: listening.options.max_segment,
            syn: saved(net, listening.options.save_syn, &tuple, segment, interface),
            deadline: now + Duration::from_secs(1),
            timer: None,
        };
        half.options.restrict(net.tcp_features);
        if crowded || listener.halves > listener.backlog.max(8) {
            // The queue is full: nothing is kept, the answer is the memory.
            net.stats.cookies_sent += 1;
            half.iss = self.cookies.make(&tuple, segment.seq, segment.options.mss.unwrap_or(536), now);
            if half.options.timestamp.is_none() {
                half.options.scale = None;
                half.options.sack_permitted = false;
            } else {
                let clock = now.as_millis() as u32;
                // `answer` adds the clock and the offset; what is left is the difference to the stamp.
                let stamp = Cookies::stamp(&half.options, clock);
                half.ts_offset = ts_offset.wrapping_sub(clock.wrapping_sub(stamp));
            }
            let mss = self.announced_mss(net, &half);
            half.answer(net, mss);
            return;
        }
        listener.halves += 1;
        let mss = self.announced_mss(net, &half);
        half.answer(net, mss);
        self.add_remnant(net, Remnant::Half(half));
    }

    /// Perhaps the answer to a cookie. True if the segment was dealt with.
    fn input_cookie(
        &mut self,
        net: &mut Net,
        (handle, listening): (Handle, Listening),
        tuple: Tuple,
        segment: &Segment,
        interface: u32,
    ) -> bool {
        let (irs, cookie) = (segment.seq.minus(1), segment.ack.minus(1));
        let now = net.now;
        let Some(mss) = self.cookies.check(&tuple, irs, cookie, now) else {
            if self.cookies.last.is_some() {
                net.stats.cookies_failed += 1;
            }
            return false;
        };
        if !listening.room {
            net.stats.listen_overflows += 1;
            return true;
        }
        net.stats.cookies_ok += 1;
        let ts_offset = self.ts_offset(&tuple);
        let own_window = first_window(&listening.options);
        let half = Half {
            tuple,
            listener: handle,
            interface,
            irs,
            iss: cookie,
            options: Cookies::unstamp(mss, segment.options.timestamp, ts_offset),
            window: segment.window,
            own_window,
            ts_offset,
            sent_at: now,
            tries: 1,
            defer: 0,
            acknowledged: true,
            max_segment: listening.options.max_segment,
            // A cookie does not remember it.
            syn: None,
            deadline: now,
            timer: None,
        };
        self.promote(net, half, listening.options, segment.clone());
        true
    }

    /// A timer of a connection.
    pub fn tick_conn(&mut self, net: &mut Net, handle: Handle) {
        if let Some(conn) = self.conns.get_mut(handle) {
            conn.tick(net);
            self.after(net, handle);
        }
    }

    /// A timer of a half-open or resting pair.
    pub fn tick_remnant(&mut self, net: &mut Net, handle: Handle) {
        let now = net.now;
        let Some(remnant) = self.remnants.get_mut(handle) else { return };
        *remnant.timer() = None;
        let key = TimerKey::Remnant(handle.index, handle.generation);
        if remnant.deadline() > now {
            let deadline = remnant.deadline();
            net.timers.set(key, remnant.timer(), Some(deadline));
            return;
        }
        match remnant {
            // One whose acknowledgement came is only asked again at the end of its time.
            Remnant::Half(half) if half.tries < SYNACK_RETRIES.max(half.defer) => {
                half.tries += 1;
                half.deadline = now + Duration::from_secs(1 << half.tries.min(6));
                let half = half.clone();
                if !half.acknowledged || half.tries >= half.defer {
                    let mss = self.announced_mss(net, &half);
                    half.answer(net, mss);
                }
                if let Some(remnant) = self.remnants.get_mut(handle) {
                    net.timers.set(key, remnant.timer(), Some(half.deadline));
                }
            }
            _ => {
                self.remove_remnant(net, handle);
            }
        }
    }

    /// An ICMP error, or a neighbour that does not answer (RFC 5927: only in the window).
    pub fn packet_error(&mut self, net: &mut Net, error: &PacketError) {
        let (own, peer) = error.ports();
        let tuple = Tuple::new(SocketAddr::new(error.local, own), SocketAddr::new(error.remote, peer));
        let Some(Entry::Conn(handle)) = self.demux.get(&tuple).copied() else { return };
        let Some(conn) = self.conns.get_mut(handle) else { return };
        let seq = Seq(error.sequence());
        if conn.state != State::SynSent && (seq < conn.snd_una || seq > conn.snd_nxt) {
            return;
        }
        if let Some(mtu) = error.mtu {
            net.pmtu.lower(error.remote, mtu, net.now);
            conn.path_generation = 0;
            let before = conn.mss;
            let _ = conn.refresh_path(net);
            if conn.mss < before && conn.state.synchronized() {
                // What is in flight was too big: all of it goes again in smaller pieces.
                conn.board.lose_all();
                conn.output(net);
            }
        } else if matches!(conn.state, State::SynSent | State::SynReceived)
            && (error.hard || error.icmp.is_some())
        {
            conn.finish(Some(error.error));
        } else {
            conn.soft_error = Some(if error.error == Error::ConnectionRefused {
                Error::HostUnreachable
            } else {
                error.error
            });
        }
        self.after(net, handle);
    }

    /// Connections, half-open pairs and resting pairs there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.conns.len(), self.remnants.len())
    }
}

/// A SYN as its listener keeps it (TCP_SAVE_SYN).
fn saved(net: &Net, mode: u8, tuple: &Tuple, segment: &Segment, interface: u32) -> Option<Box<[u8]>> {
    let head = segment.head.as_ref().filter(|_| mode > 0)?;
    let mut out = Vec::new();
    if mode > 1 {
        // The link's header is not here any more; it is made from who the neighbours are.
        let own = net.interface(interface).map(|i| i.mac).unwrap_or_default();
        let peer = net.neighbours.mac((interface, tuple.remote().ip())).unwrap_or_default();
        out.extend(own.as_bytes());
        out.extend(peer.as_bytes());
        out.extend(if tuple.local().is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
    }
    out.extend_from_slice(head);
    Some(out.into())
}

/// The window that a connection begins with.
fn first_window(options: &ConnOptions) -> u16 {
    let size = options.receive_buffer.unwrap_or(RECEIVE_INITIAL);
    size.min(options.window_clamp.unwrap_or(usize::MAX)).min(65_535) as u16
}

impl Half {
    fn answer_challenge(&self, net: &mut Net) {
        let bare = Bare {
            tuple: self.tuple,
            seq: self.iss.plus(1),
            ack: self.irs.plus(1),
            flags: ACK,
            window: self.own_window,
            options: Options::default(),
            interface: Some(self.interface),
        };
        bare.send(net);
    }
}
