//! A TCP connection between two sockets of one stack. One object with a queue for each direction stands for
//! what two TCP state machines and the loopback interface are on Linux; what a socket can see is the same.

use crate::buf::{Buf, Ledger, PIECE};
use crate::engine::memory::LEAST;
use crate::env::{Events, Waker};
use crate::error::{NetError, Result};
use crate::local::terms::{Terms, agree};
use crate::ports::TIME_WAIT;
use crate::tcp::StreamOptions;
use crate::tcp::transport::{Parting, StreamCounts, TakeHow, Taken, TcpState, Transport};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// What may wait in a direction when nobody set the buffers: about what Linux grows them to on loopback.
const SEND_LIMIT: usize = 2 << 20;
const RECEIVE_LIMIT: usize = 512 << 10;

/// The urgent byte of a direction; there is one at a time.
#[derive(Clone, Copy, Debug)]
struct Urgent {
    /// Its position in the stream.
    at: u64,
    byte: u8,
    /// It was read with `MSG_OOB`.
    taken: bool,
}

/// One direction: what one end wrote and the other has not read.
#[derive(Debug)]
struct Direction {
    queue: VecDeque<Buf>,
    bytes: usize,
    /// Room that writers are filling just now.
    reserved: usize,
    /// Positions of the reader and of the end of what was written.
    read: u64,
    written: u64,
    urgent: Option<Urgent>,
    /// The writer will write no more.
    fin: bool,
    /// The reader shut its receiving side.
    read_shut: bool,
    /// The reader takes the urgent byte as one like others.
    inline: bool,
    /// The writer waits for room.
    no_space: bool,
    send_limit: usize,
    receive_limit: usize,
    /// `TCP_NOTSENT_LOWAT` of the writer.
    not_sent_low: Option<usize>,
    segments: u64,
    /// The largest of them.
    largest: u32,
}

impl Default for Direction {
    fn default() -> Self {
        Direction {
            queue: VecDeque::new(),
            bytes: 0,
            reserved: 0,
            read: 0,
            written: 0,
            urgent: None,
            fin: false,
            read_shut: false,
            inline: false,
            no_space: false,
            send_limit: SEND_LIMIT,
            receive_limit: RECEIVE_LIMIT,
            not_sent_low: None,
            segments: 0,
            largest: 0,
        }
    }
}

impl Direction {
    /// Bytes that the receive buffer of the other side has no room for.
    fn used(&self) -> usize {
        (self.bytes + self.reserved).saturating_sub(self.receive_limit)
    }
    /// Whether the writer has to wait: the buffer is full, or as much is unsent as may be.
    fn full(&self) -> bool {
        let used = self.used();
        used >= self.send_limit || self.not_sent_low.is_some_and(|low| used >= low)
    }
    /// As `sk_stream_is_writeable`: a third is free, and half of what may be unsent.
    fn writable(&self) -> bool {
        let used = self.used();
        let low = self.not_sent_low.is_none_or(|low| 2 * used < low);
        self.send_limit.saturating_sub(used) >= used / 2 && !self.full() && low
    }
    /// Whether the reader stands before the urgent byte and how far.
    fn to_mark(&self) -> Option<usize> {
        let u = self.urgent.as_ref()?;
        usize::try_from(u.at.checked_sub(self.read)?).ok()
    }
    fn drop_front(&mut self, mut n: usize) {
        self.bytes -= n;
        self.read += n as u64;
        while n > 0 {
            let Some(front) = self.queue.front_mut() else { break };
            if front.len() <= n {
                n -= front.len();
                self.queue.pop_front();
            } else {
                front.advance(n);
                n = 0;
            }
        }
        if self.urgent.as_ref().is_some_and(|u| u.at < self.read) {
            self.urgent = None;
        }
    }
    fn forget(&mut self) -> VecDeque<Buf> {
        self.bytes = 0;
        self.read = self.written;
        self.urgent = None;
        std::mem::take(&mut self.queue)
    }
}

#[derive(Debug, Default)]
struct Shared {
    /// Direction `i` is written by end `i`.
    dirs: [Direction; 2],
    error: [Option<NetError>; 2],
    /// The socket of an end was closed.
    gone: [bool; 2],
    /// The connection was reset: nothing moves any more.
    reset: bool,
    /// Which end finished first: it is the one that waits in TIME-WAIT.
    first_fin: Option<usize>,
    /// `TCP_LINGER2` of each end.
    fin_timeout: [Option<Duration>; 2],
}

/// A connection.
struct Connection {
    shared: Mutex<Shared>,
    wakers: [OnceLock<Arc<dyn Waker>>; 2],
    /// Told of news of the listener's end until it is accepted.
    embryo: OnceLock<Arc<dyn Waker>>,
    ledger: Arc<Ledger>,
    terms: [Terms; 2],
}

impl Connection {
    /// `client` is the end that connects, `server` the one that listens.
    fn new(
        ledger: &Arc<Ledger>,
        to: IpAddr,
        client: &StreamOptions,
        server: &StreamOptions,
    ) -> Arc<Connection> {
        let shared = Shared { fin_timeout: [client.fin_timeout, server.fin_timeout], ..Shared::default() };
        Arc::new(Connection {
            terms: agree(to, client, server),
            shared: Mutex::new(shared),
            wakers: Default::default(),
            embryo: OnceLock::new(),
            ledger: Arc::clone(ledger),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let shared = self.shared.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.ledger.subtract(shared.dirs.iter().map(|d| d.bytes).sum());
    }
}

/// One end of a connection.
pub struct LocalEnd {
    conn: Arc<Connection>,
    /// The direction this end writes, and the one it reads. The same for a socket connected to itself.
    tx: usize,
    rx: usize,
    /// `TCP_SAVED_SYN`, until it is asked for.
    syn: Mutex<Option<Vec<u8>>>,
}

/// The two ends of a new connection: who connects, who listens.
pub fn pair(
    ledger: &Arc<Ledger>,
    to: IpAddr,
    client: &StreamOptions,
    server: &StreamOptions,
) -> (Arc<LocalEnd>, Arc<LocalEnd>) {
    let conn = Connection::new(ledger, to, client, server);
    let client = Arc::new(LocalEnd { conn: Arc::clone(&conn), tx: 0, rx: 1, syn: Mutex::default() });
    (client, Arc::new(LocalEnd { conn, tx: 1, rx: 0, syn: Mutex::default() }))
}

/// The end of a connection of a socket to itself.
pub fn loopback(ledger: &Arc<Ledger>, to: IpAddr, options: &StreamOptions) -> Arc<LocalEnd> {
    Arc::new(LocalEnd {
        conn: Connection::new(ledger, to, options, options),
        tx: 0,
        rx: 0,
        syn: Mutex::default(),
    })
}

impl Shared {
    /// The connection breaks for end `side`: as a reset that arrives there.
    fn broken(&mut self, side: usize, peer_fin: bool) {
        // In CLOSE-WAIT the reader saw the end already; writers get EPIPE (`tcp_reset`).
        self.error[side] = Some(if peer_fin { NetError::BrokenPipe } else { NetError::Reset });
    }
}

impl LocalEnd {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.conn.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Keeps what began the connection.
    pub fn save_syn(&self, segment: Vec<u8>) {
        *self.syn.lock().unwrap_or_else(PoisonError::into_inner) = Some(segment);
    }
    /// Who is told of news before the connection is accepted.
    pub fn set_embryo_waker(&self, waker: Arc<dyn Waker>) {
        let _ = self.conn.embryo.set(waker);
    }
    /// How many ends have not finished.
    fn open_ends(&self, s: &Shared) -> u64 {
        let ends = if self.rx == self.tx { &s.dirs[self.tx..=self.tx] } else { &s.dirs[..] };
        ends.iter().filter(|d| !d.fin).count() as u64
    }
    fn peer(&self) -> usize {
        // A socket connected to itself is its own peer.
        self.rx
    }
    fn wake(&self, side: usize, events: Events) {
        let embryo = || if side == 1 { self.conn.embryo.get() } else { None };
        if let Some(w) = self.conn.wakers[side].get().or_else(embryo) {
            w.wake(events);
        }
    }
}

impl Transport for LocalEnd {
    fn state(&self) -> TcpState {
        let s = self.lock();
        match (s.reset, s.dirs[self.tx].fin, s.dirs[self.rx].fin) {
            (true, ..) | (_, true, true) => TcpState::Close,
            (_, false, false) => TcpState::Established,
            (_, true, false) => TcpState::FinWait2,
            (_, false, true) => TcpState::CloseWait,
        }
    }

    fn set_waker(&self, waker: Arc<dyn Waker>) {
        let _ = self.conn.wakers[self.tx].set(waker);
    }

    fn reserve(&self, want: usize) -> Result<usize> {
        let mut s = self.lock();
        let broken = s.dirs[self.tx].fin || s.reset;
        if let Some(e) = s.error[self.tx].take() {
            return Err(e);
        }
        if broken {
            return Err(NetError::BrokenPipe);
        }
        let d = &mut s.dirs[self.tx];
        // Whoever has next to nothing gets on even without memory, so that readers make room.
        let poor = d.bytes >= LEAST && self.conn.ledger.exhausted();
        if d.full() || poor {
            d.no_space = true;
            return Err(NetError::WouldBlock);
        }
        let room = (d.send_limit + d.receive_limit).saturating_sub(d.bytes + d.reserved);
        let most = if self.conn.ledger.exhausted() { LEAST } else { PIECE };
        let n = want.min(most).min(room.max(1));
        d.reserved += n;
        Ok(n)
    }

    fn commit(&self, reserved: usize, data: Option<Buf>, urgent: bool) {
        let mut garbage = VecDeque::new();
        let (me, peer) = (self.tx, self.peer());
        let mut for_me = Events::NONE;
        let mut for_peer = Events::NONE;
        {
            let mut s = self.lock();
            let rx_fin = s.dirs[self.rx].fin && self.rx != self.tx;
            let d = &mut s.dirs[me];
            d.reserved = d.reserved.saturating_sub(reserved);
            let Some(data) = data.filter(|d| !d.is_empty()) else { return };
            // The other side closed, or wants no more and finished: it answers data with a reset.
            let refused = s.gone[peer] || (s.dirs[me].read_shut && rx_fin);
            if s.reset {
                return;
            }
            if refused {
                self.conn.ledger.count_reset(self.open_ends(&s));
                s.reset = true;
                s.broken(me, rx_fin);
                if !s.gone[peer] {
                    s.error[peer] = Some(NetError::Reset);
                    for_peer = Events::ALL;
                }
                self.conn.ledger.subtract(s.dirs[me].bytes);
                garbage = s.dirs[me].forget();
                for_me = Events::ALL;
            } else {
                let d = &mut s.dirs[me];
                let n = data.len();
                if urgent && d.to_mark() == Some(0) && !d.inline {
                    // A new urgent byte before the old one was passed: that one is lost (`tcp_check_urg`).
                    d.drop_front(1);
                    self.conn.ledger.subtract(1);
                }
                self.conn.ledger.add(n);
                d.bytes += n;
                d.written += n as u64;
                let most = self.conn.terms[me].send_segment.max(1);
                let segments = n.div_ceil(most as usize) as u64;
                d.segments += segments;
                d.largest = d.largest.max(u32::try_from(n).map_or(most, |n| n.min(most)));
                self.conn.ledger.count_segments(segments);
                if urgent && let Some(byte) = data.bytes().last() {
                    d.urgent = Some(Urgent { at: d.written - 1, byte: *byte, taken: false });
                }
                let appended = n <= 512 && d.queue.back_mut().is_some_and(|b| b.try_append(data.bytes()));
                if !appended {
                    d.queue.push_back(data);
                }
                for_peer = Events::READABLE;
                if urgent {
                    for_peer |= Events::PRI;
                }
            }
        }
        drop(garbage);
        if for_peer != Events::NONE {
            self.wake(peer, for_peer);
        }
        if for_me != Events::NONE {
            self.wake(me, for_me);
        }
    }

    fn take(&self, max: usize, how: TakeHow) -> Result<Taken> {
        let mut out = Taken::default();
        let mut room_made = false;
        {
            let mut s = self.lock();
            let d = &mut s.dirs[self.rx];
            d.inline = how.inline_urgent;
            let mut skip = how.skip;
            // The urgent byte is no part of the stream, unless it is inline.
            let mut hole = None;
            let mut limit = max;
            match d.to_mark() {
                Some(0) if !how.inline_urgent => {
                    if how.peek {
                        skip += 1;
                    } else {
                        self.conn.ledger.subtract(1);
                        d.drop_front(1);
                    }
                }
                Some(n) if n > skip => {
                    limit = limit.min(n - skip);
                    hole = Some(n - skip);
                }
                _ => {}
            }
            let mut left = limit.min(d.bytes.saturating_sub(skip));
            out.len = left;
            out.at_mark = hole.is_some_and(|h| h == left);
            if how.peek {
                for b in &d.queue {
                    if left == 0 {
                        break;
                    }
                    if skip >= b.len() {
                        skip -= b.len();
                        continue;
                    }
                    let mut part = b.clone();
                    part.advance(skip);
                    skip = 0;
                    part.truncate(left);
                    left -= part.len();
                    out.parts.push(part);
                }
            } else {
                self.conn.ledger.subtract(left);
                d.bytes -= left;
                d.read += left as u64;
                while left > 0 {
                    let Some(front) = d.queue.front_mut() else { break };
                    if front.len() <= left {
                        left -= front.len();
                        out.parts.extend(d.queue.pop_front());
                    } else {
                        out.parts.push(front.split_to(left));
                        left = 0;
                    }
                }
                if d.urgent.as_ref().is_some_and(|u| u.at < d.read) {
                    d.urgent = None;
                }
                if d.no_space && d.writable() {
                    d.no_space = false;
                    room_made = true;
                }
            }
            if out.len == 0 && max > 0 {
                let (fin, shut) = (d.fin, d.read_shut);
                if !fin {
                    if let Some(e) = s.error[self.tx].take() {
                        return Err(e);
                    }
                    if !shut && !s.reset {
                        return Err(NetError::WouldBlock);
                    }
                }
            }
        }
        if room_made {
            self.wake(self.peer(), Events::WRITABLE | Events::WRBAND);
        }
        Ok(out)
    }

    fn give_back(&self, parts: Vec<Buf>) {
        let mut s = self.lock();
        let d = &mut s.dirs[self.rx];
        for part in parts.into_iter().rev() {
            self.conn.ledger.add(part.len());
            d.bytes += part.len();
            d.read = d.read.saturating_sub(part.len() as u64);
            d.queue.push_front(part);
        }
    }

    fn take_urgent(&self, peek: bool) -> Result<Option<u8>> {
        let mut s = self.lock();
        let ended = s.reset || s.dirs[self.rx].fin || s.dirs[self.rx].read_shut;
        match &mut s.dirs[self.rx].urgent {
            Some(u) if !u.taken => {
                u.taken = !peek;
                Ok(Some(u.byte))
            }
            _ if ended => Err(NetError::Invalid),
            _ => Err(NetError::Invalid),
        }
    }

    fn poll(&self, low: usize, inline_urgent: bool) -> Events {
        let mut s = self.lock();
        let mut events = Events::NONE;
        let rx_fin = s.dirs[self.rx].fin;
        let tx_fin = s.dirs[self.tx].fin;
        let receive_shut = rx_fin || s.dirs[self.rx].read_shut || s.reset;
        let send_shut = tx_fin || s.reset;
        let closed = s.reset || (rx_fin && tx_fin);
        if closed || (receive_shut && send_shut) {
            events |= Events::HUP;
        }
        if receive_shut {
            events |= Events::READABLE | Events::RDHUP;
        }
        s.dirs[self.rx].inline = inline_urgent;
        let d = &s.dirs[self.rx];
        let target = low + usize::from(!inline_urgent && d.to_mark() == Some(0));
        if d.bytes >= target.min(d.receive_limit) && d.bytes > 0 {
            events |= Events::READABLE;
        }
        if d.urgent.as_ref().is_some_and(|u| !u.taken) {
            events |= Events::PRI;
        }
        let d = &mut s.dirs[self.tx];
        let poor = d.bytes >= LEAST && self.conn.ledger.exhausted();
        if send_shut || (d.writable() && !poor) {
            events |= Events::WRITABLE;
        } else {
            d.no_space = true;
        }
        if s.error[self.tx].is_some() {
            events |= Events::ERR;
        }
        events
    }

    fn shutdown(&self, receive: bool, send: bool) {
        {
            let mut s = self.lock();
            if receive {
                s.dirs[self.rx].read_shut = true;
            }
            if send && !s.dirs[self.tx].fin {
                s.dirs[self.tx].fin = true;
                s.first_fin.get_or_insert(self.tx);
            }
        }
        self.wake(self.tx, Events::ALL);
        if send {
            self.wake(self.peer(), Events::ALL);
        }
    }

    fn close(&self, abort: bool) -> Parting {
        let garbage;
        let parting;
        let mut news;
        {
            let mut s = self.lock();
            let (me, peer) = (self.tx, self.peer());
            let unread = s.dirs[self.rx].bytes > 0;
            s.gone[me] = true;
            // Whether the other side sees something happen.
            news = true;
            if s.reset {
                parting = Parting::Free;
            } else if (abort || unread) && !(s.dirs[0].fin && s.dirs[1].fin) {
                self.conn.ledger.count_reset(self.open_ends(&s));
                s.reset = true;
                let my_fin = s.dirs[me].fin;
                if !s.gone[peer] {
                    s.broken(peer, my_fin);
                }
                parting = Parting::Free;
            } else {
                news = !s.dirs[me].fin;
                if news {
                    s.dirs[me].fin = true;
                    s.first_fin.get_or_insert(me);
                }
                parting = match s.fin_timeout[me] {
                    _ if s.first_fin != Some(me) => Parting::Free,
                    _ if s.dirs[self.rx].fin => Parting::Wait(TIME_WAIT),
                    // Nobody waits for the peer's end: once it has ours it is reset (`TCP_LINGER2` below 0).
                    None => {
                        self.conn.ledger.count_reset(self.open_ends(&s));
                        s.reset = true;
                        s.broken(peer, true);
                        news = true;
                        Parting::Free
                    }
                    Some(time) => Parting::Wait(time),
                };
            }
            self.conn.ledger.subtract(s.dirs[self.rx].bytes);
            garbage = s.dirs[self.rx].forget();
        }
        drop(garbage);
        if self.tx != self.rx && news {
            self.wake(self.peer(), Events::ALL);
        }
        parting
    }

    fn take_error(&self) -> Option<NetError> {
        self.lock().error[self.tx].take()
    }

    fn has_error(&self) -> bool {
        self.lock().error[self.tx].is_some()
    }

    fn readable(&self, inline_urgent: bool) -> usize {
        let s = self.lock();
        let d = &s.dirs[self.rx];
        match d.to_mark() {
            Some(n) if !inline_urgent && n > 0 => n,
            Some(0) if !inline_urgent => d.bytes.saturating_sub(1),
            _ => d.bytes,
        }
    }

    fn unsent(&self) -> (usize, usize) {
        let s = self.lock();
        let n = s.dirs[self.tx].used();
        (n, n)
    }

    fn at_mark(&self) -> bool {
        self.lock().dirs[self.rx].to_mark() == Some(0)
    }

    fn configure(&self, options: &StreamOptions) {
        let mut s = self.lock();
        s.fin_timeout[self.tx] = options.fin_timeout;
        s.dirs[self.tx].not_sent_low = options.not_sent_low;
        if let Some(n) = options.send_buffer {
            s.dirs[self.tx].send_limit = n.max(1);
        }
        if let Some(n) = options.receive_buffer {
            s.dirs[self.rx].receive_limit = n.max(1);
        }
        let d = &mut s.dirs[self.tx];
        let room_made = d.no_space && d.writable();
        d.no_space &= !room_made;
        drop(s);
        if room_made {
            self.wake(self.tx, Events::WRITABLE | Events::WRBAND);
        }
    }

    fn terms(&self) -> Option<Terms> {
        let mut terms = self.conn.terms[self.tx];
        let s = self.lock();
        let (tx, rx) = (&s.dirs[self.tx], &s.dirs[self.rx]);
        // A window that was clamped is one for what is read, not for what waits.
        let left = |d: &Direction| u32::try_from(d.receive_limit.saturating_sub(d.bytes)).unwrap_or(u32::MAX);
        terms.send_window = terms.send_window.min(left(tx));
        terms.receive_window = terms.receive_window.min(left(rx));
        if rx.written > 0 {
            terms.receive_segment = rx.largest.min(terms.advertised).max(terms.receive_segment);
        }
        Some(terms)
    }

    fn counts(&self) -> StreamCounts {
        let s = self.lock();
        let (tx, rx) = (&s.dirs[self.tx], &s.dirs[self.rx]);
        StreamCounts {
            bytes_sent: tx.written,
            bytes_received: rx.written,
            segments_sent: tx.segments,
            segments_received: rx.segments,
            unacked: tx.used() as u64,
        }
    }

    fn saved_syn(&self, room: usize) -> Result<Vec<u8>> {
        let mut syn = self.syn.lock().unwrap_or_else(PoisonError::into_inner);
        if syn.as_ref().is_some_and(|syn| syn.len() > room) {
            return Err(NetError::Invalid);
        }
        Ok(syn.take().unwrap_or_default())
    }

    fn is_local(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
