//! What the users of connections and listeners call. Payload goes in and out as chunks, so that the
//! copies from and to guest memory can be made without the engine's lock.

use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::super::addresses::Tuple;
use super::super::chunk::Chunk;
use super::super::error::Error;
use super::super::events::{Event, Observer, Ready};
use super::super::memory::LEAST;
use super::super::net::Net;
use super::super::slab::Handle;
use super::super::time::Time;
use super::conn::{Conn, ConnOptions, SEND_INITIAL, State, Wait};
use super::remnant::Remnant;
use super::{Entry, Listener, MOST_ORPHANS, Tcp};

/// A connection that a listener hands out.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    pub connection: Handle,
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

impl Tcp {
    /// Begins to connect. The local address and port are chosen by the caller.
    pub fn connect(
        &mut self,
        net: &mut Net,
        local: SocketAddr,
        remote: SocketAddr,
        options: ConnOptions,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Handle, Error> {
        if local.port() == 0
            || remote.port() == 0
            || remote.ip().is_multicast()
            || local.is_ipv4() != remote.is_ipv4()
        {
            return Err(Error::Invalid);
        }
        let from = Some(local.ip()).filter(|ip| !ip.is_unspecified());
        let path = net.path(remote.ip(), from, options.interface)?;
        let local = SocketAddr::new(path.source, local.port());
        let tuple = Tuple::new(local, remote);
        let now = net.now;
        let mut iss = self.initial(&tuple, now);
        if let Some(entry) = self.demux.get(&tuple).copied() {
            let Entry::Remnant(handle) = entry else { return Err(Error::AddressNotAvailable) };
            match self.remnants.get(handle) {
                // RFC 6191: timestamps tell old segments from new ones.
                Some(Remnant::TimeWait(wait))
                    if wait.ts_recent.is_some() && now.since(wait.since).as_secs() >= 1 =>
                {
                    iss = wait.snd_nxt.plus(65_537);
                    self.remove_remnant(net, handle);
                }
                _ => return Err(Error::AddressNotAvailable),
            }
        }
        let mut conn = Conn::new(tuple, options, iss, self.ts_offset(&tuple), now);
        conn.observer = observer;
        conn.path_generation = 0;
        net.stats.tcp_active_opens += 1;
        let handle = self.conns.insert(conn);
        self.demux.insert(tuple, Entry::Conn(handle));
        if let Some(conn) = self.conns.get_mut(handle) {
            conn.handle = handle;
            conn.send_syn(net);
            conn.retransmit = Some((Wait::Timeout, now + conn.rtt.rto()));
            conn.settle(net);
        }
        Ok(handle)
    }

    pub fn listen(
        &mut self,
        local: SocketAddr,
        only_v6: bool,
        backlog: usize,
        options: ConnOptions,
        observer: Option<Arc<dyn Observer>>,
    ) -> Handle {
        let listener = Listener {
            local,
            only_v6,
            interface: options.interface,
            backlog,
            options,
            observer,
            queue: Default::default(),
            halves: 0,
        };
        let handle = self.listeners.insert(listener);
        self.ports.entry(local.port()).or_default().push(handle);
        handle
    }

    /// Makes the listener for connections that `Upper::listens` wants.
    pub fn listen_for_upper(&mut self, backlog: usize, observer: Arc<dyn Observer>) -> Handle {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let handle = self.listen(nowhere, false, backlog, self.defaults, Some(observer));
        self.ports.remove(&0);
        self.upper = Some(handle);
        handle
    }

    pub fn set_backlog(&mut self, listener: Handle, backlog: usize) -> Result<(), Error> {
        self.listeners.get_mut(listener).ok_or(Error::Stale)?.backlog = backlog;
        Ok(())
    }

    /// Changes options that new connections of a listener begin with.
    pub fn listener_options(
        &mut self,
        listener: Handle,
        change: impl FnOnce(&mut ConnOptions),
    ) -> Result<(), Error> {
        change(&mut self.listeners.get_mut(listener).ok_or(Error::Stale)?.options);
        Ok(())
    }

    pub fn accept(&mut self, listener: Handle) -> Result<Accepted, Error> {
        let listener = self.listeners.get_mut(listener).ok_or(Error::Stale)?;
        while let Some(handle) = listener.queue.pop_front() {
            if let Some(conn) = self.conns.get(handle) {
                return Ok(Accepted {
                    connection: handle,
                    local: conn.tuple.local(),
                    remote: conn.tuple.remote(),
                });
            }
        }
        Err(Error::WouldBlock)
    }

    /// Connections that wait to be accepted, and the limit.
    pub fn accept_queue(&self, listener: Handle) -> (usize, usize) {
        self.listeners.get(listener).map_or((0, 0), |listener| (listener.queue.len(), listener.backlog))
    }

    pub fn close_listener(&mut self, net: &mut Net, handle: Handle) {
        let Some(listener) = self.listeners.remove(handle) else { return };
        if let Some(list) = self.ports.get_mut(&listener.local.port()) {
            list.retain(|other| *other != handle);
            if list.is_empty() {
                self.ports.remove(&listener.local.port());
            }
        }
        for conn in listener.queue {
            self.abort(net, conn);
            self.close(net, conn);
        }
        let halves: Vec<Handle> = self
            .remnants
            .iter()
            .filter(|(_, remnant)| matches!(remnant, Remnant::Half(half) if half.listener == handle))
            .map(|(handle, _)| handle)
            .collect();
        for half in halves {
            self.remove_remnant(net, half);
        }
    }

    pub(super) fn conn(&mut self, handle: Handle) -> Result<&mut Conn, Error> {
        self.conns.get_mut(handle).ok_or(Error::Stale)
    }

    pub fn observe(&mut self, net: &mut Net, handle: Handle, observer: Option<Arc<dyn Observer>>) {
        if let Ok(conn) = self.conn(handle) {
            conn.observer = observer;
            // What happened before anybody looked is told now.
            if let Some(observer) = &conn.observer {
                net.events.push(Event::Ready(observer.clone(), conn.ready()));
            }
        }
    }

    pub fn ready(&mut self, handle: Handle) -> Ready {
        let Ok(conn) = self.conn(handle) else { return Ready::CLOSED | Ready::READ | Ready::WRITE };
        let ready = conn.ready();
        if !ready.has(Ready::WRITE) {
            conn.write_blocked = true;
        }
        ready
    }

    /// The pending error, which is taken away.
    pub fn take_error(&mut self, handle: Handle) -> Option<Error> {
        let conn = self.conn(handle).ok()?;
        conn.error.take().or_else(|| conn.soft_error.take().filter(|_| conn.state == State::Closed))
    }

    pub fn state(&self, handle: Handle) -> Option<State> {
        self.conns.get(handle).map(|conn| conn.state)
    }

    pub fn ends(&self, handle: Handle) -> Option<(SocketAddr, SocketAddr)> {
        self.conns.get(handle).map(|conn| (conn.tuple.local(), conn.tuple.remote()))
    }

    fn may_send(conn: &mut Conn) -> Result<(), Error> {
        if let Some(error) = conn.error.take() {
            return Err(error);
        }
        match conn.state {
            State::SynSent | State::SynReceived if !conn.fin_wanted => Err(Error::WouldBlock),
            state if state.sends() && !conn.fin_wanted => Ok(()),
            _ => Err(Error::BrokenPipe),
        }
    }

    /// Room for data now; to be asked before bytes are copied from the guest.
    pub fn send_room(&mut self, net: &Net, handle: Handle) -> Result<usize, Error> {
        let exhausted = net.memory.exhausted();
        let conn = self.conn(handle)?;
        Tcp::may_send(conn)?;
        let mut room = conn.send_room();
        if exhausted {
            room = room.min(LEAST.saturating_sub(conn.send.len()));
        }
        if room == 0 {
            conn.write_blocked = true;
            return Err(Error::WouldBlock);
        }
        Ok(room)
    }

    /// Queues chunks, all of them: they were made after `send_room` said how much fits.
    pub fn send_chunks(
        &mut self,
        net: &mut Net,
        handle: Handle,
        chunks: impl IntoIterator<Item = Chunk>,
        urgent: bool,
    ) -> Result<usize, Error> {
        let conn = self.conn(handle)?;
        Tcp::may_send(conn)?;
        conn.note_starved();
        let mut count = 0;
        for chunk in chunks {
            count += chunk.len();
            conn.send.push(chunk);
        }
        if urgent {
            conn.urgent_out = Some(conn.data_end());
        }
        conn.write_blocked |= conn.send_room() == 0;
        conn.output(net);
        self.after(net, handle);
        Ok(count)
    }

    /// Copies bytes into the send buffer; returns how many fitted.
    pub fn send(&mut self, net: &mut Net, handle: Handle, bytes: &[u8]) -> Result<usize, Error> {
        let room = self.send_room(net, handle)?;
        let conn = self.conn(handle)?;
        conn.note_starved();
        let count = bytes.len().min(room);
        conn.send.push_slice(bytes.get(..count).unwrap_or_default());
        conn.write_blocked |= count < bytes.len();
        conn.output(net);
        self.after(net, handle);
        Ok(count)
    }

    /// Sends bytes of which the last is urgent.
    pub fn send_urgent(&mut self, net: &mut Net, handle: Handle, bytes: &[u8]) -> Result<usize, Error> {
        let room = self.send_room(net, handle)?;
        let conn = self.conn(handle)?;
        let count = bytes.len().min(room);
        conn.send.push_slice(bytes.get(..count).unwrap_or_default());
        if count == bytes.len() && count > 0 {
            conn.urgent_out = Some(conn.data_end());
        }
        conn.output(net);
        self.after(net, handle);
        Ok(count)
    }

    /// Takes up to `limit` bytes. No chunk: the stream has ended. The caller copies them to the guest
    /// without the lock and gives back what it could not (`unread`).
    pub fn receive(
        &mut self,
        net: &mut Net,
        handle: Handle,
        limit: usize,
    ) -> Result<SmallVec<[Chunk; 4]>, Error> {
        let conn = self.conn(handle)?;
        let mut chunks = SmallVec::new();
        if let Some(urgent) = conn.urgent
            && urgent.position == conn.read_position()
            && !conn.receive.is_empty()
        {
            // The mark is passed: the urgent byte leaves the stream, or stays in it.
            if !conn.options.oob_inline {
                conn.receive.advance(1);
            }
            conn.urgent = None;
        }
        let mut left = conn.readable().min(limit);
        if left == 0 {
            if let Some(error) = conn.error.take() {
                return Err(error);
            }
            return match conn.state {
                _ if conn.fin_received || conn.state == State::Closed => Ok(chunks),
                _ if limit == 0 => Ok(chunks),
                _ => Err(Error::WouldBlock),
            };
        }
        let mut count = 0;
        while left > 0
            && let Some(chunk) = conn.receive.pop(left)
        {
            left -= chunk.len();
            count += chunk.len();
            chunks.push(chunk);
        }
        conn.after_read(net, count);
        self.after(net, handle);
        Ok(chunks)
    }

    /// Puts bytes back that could not be copied out.
    pub fn unread(&mut self, handle: Handle, chunk: Chunk) {
        if let Ok(conn) = self.conn(handle) {
            conn.receive.unshift(chunk);
        }
    }

    /// Copies bytes out and takes them.
    pub fn receive_into(&mut self, net: &mut Net, handle: Handle, out: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0;
        for chunk in self.receive(net, handle, out.len())? {
            out[done..done + chunk.len()].copy_from_slice(&chunk);
            done += chunk.len();
        }
        Ok(done)
    }

    /// Chunks from `offset` on, which stay in the stream.
    pub fn peek(
        &mut self,
        handle: Handle,
        offset: usize,
        limit: usize,
    ) -> Result<SmallVec<[Chunk; 4]>, Error> {
        let conn = self.conn(handle)?;
        let mut chunks = SmallVec::new();
        let length = conn.readable().saturating_sub(offset).min(limit);
        conn.receive.for_range(offset, length, |chunk, from, to| chunks.push(chunk.slice(from, to)));
        if chunks.is_empty() && limit > 0 && !conn.fin_received && conn.state != State::Closed {
            return Err(Error::WouldBlock);
        }
        Ok(chunks)
    }

    /// The urgent byte (MSG_OOB). Invalid: there is none, or it was taken.
    pub fn receive_urgent(&mut self, handle: Handle, peek: bool) -> Result<u8, Error> {
        let conn = self.conn(handle)?;
        if conn.options.oob_inline {
            return Err(Error::Invalid);
        }
        let urgent = conn.urgent.as_mut().filter(|urgent| !urgent.taken).ok_or(Error::Invalid)?;
        let byte = urgent.byte.ok_or(Error::WouldBlock)?;
        urgent.taken |= !peek;
        Ok(byte)
    }

    /// Bytes to be read (SIOCINQ), bytes not acknowledged and not sent (SIOCOUTQ, SIOCOUTQNSD), at the mark.
    pub fn queues(&self, handle: Handle) -> (usize, usize, usize, bool) {
        self.conns.get(handle).map_or((0, 0, 0, false), |conn| {
            (conn.readable(), conn.send.len(), conn.unsent(), conn.at_mark())
        })
    }

    /// No more data will be sent: FIN follows what is queued.
    pub fn shutdown_write(&mut self, net: &mut Net, handle: Handle) -> Result<(), Error> {
        let conn = self.conn(handle)?;
        conn.close_write();
        conn.output(net);
        self.after(net, handle);
        Ok(())
    }

    /// Nobody holds the connection any more; it ends by itself.
    pub fn close(&mut self, net: &mut Net, handle: Handle) {
        let many = self.orphans >= MOST_ORPHANS || net.memory.exhausted();
        let Ok(conn) = self.conn(handle) else { return };
        if conn.released {
            return;
        }
        conn.released = true;
        conn.observer = None;
        conn.orphan = conn.state != State::Closed;
        let orphan = usize::from(conn.orphan);
        match conn.state {
            // There is no room for connections without a holder.
            _ if many && conn.state.synchronized() => {
                conn.send_reset(net);
                conn.finish(None);
            }
            State::SynSent => conn.finish(None),
            State::Closed => {}
            _ if !conn.receive.is_empty() => {
                // Unread data means that the peer has to know (RFC 2525, 2.17).
                conn.send_reset(net);
                conn.finish(None);
            }
            State::FinWait2 => match conn.options.fin_timeout {
                Some(time) => conn.fin_wait_at = Some(net.now + time),
                None => {
                    conn.send_reset(net);
                    conn.finish(None);
                }
            },
            _ => {
                conn.close_write();
                conn.output(net);
            }
        }
        conn.receive.clear();
        self.orphans += orphan;
        self.after(net, handle);
    }

    /// Ends the connection with a reset.
    pub fn abort(&mut self, net: &mut Net, handle: Handle) {
        let Ok(conn) = self.conn(handle) else { return };
        conn.send_reset(net);
        conn.finish(None);
        self.after(net, handle);
    }

    /// Changes options and does what the change lets happen.
    pub fn set_options(
        &mut self,
        net: &mut Net,
        handle: Handle,
        change: impl FnOnce(&mut ConnOptions),
    ) -> Result<(), Error> {
        let now = net.now;
        let conn = self.conn(handle)?;
        let ConnOptions { keep_alive: keep, keep_idle: idle, quick_ack: quick, .. } = conn.options;
        change(&mut conn.options);
        let options = conn.options;
        conn.send_capacity = options.send_buffer.unwrap_or(conn.send_capacity.max(SEND_INITIAL));
        if let Some(size) = options.receive_buffer {
            conn.receive_capacity = size;
        }
        conn.congestion.algorithm = options.congestion;
        conn.rtt.bounds = options.rto_bounds;
        if keep != options.keep_alive || idle != options.keep_idle {
            conn.arm_keep_alive(now);
        }
        if conn.state == State::SynSent {
            conn.max_segment = options.max_segment;
        }
        if conn.path.is_some() {
            conn.set_mss();
        }
        if quick != options.quick_ack {
            conn.set_quick(net, options.quick_ack);
        }
        conn.offer_room();
        if conn.state.synchronized() {
            if !options.cork {
                conn.cork_until = None;
            }
            conn.output(net);
        }
        self.after(net, handle);
        Ok(())
    }

    /// TCP_QUICKACK: from now on acknowledgements come at once, or wait for data of ours, until the course of the
    /// conversation says otherwise.
    pub fn set_quick(&mut self, net: &mut Net, handle: Handle, on: bool) {
        if let Ok(conn) = self.conn(handle) {
            conn.set_quick(net, on);
            self.after(net, handle);
        }
    }

    /// The segment that began the connection, once: EINVAL if there is less room.
    pub fn saved_syn(&mut self, handle: Handle, room: usize) -> Result<Vec<u8>, Error> {
        let conn = self.conn(handle)?;
        if conn.saved_syn.as_ref().is_some_and(|syn| syn.len() > room) {
            return Err(Error::Invalid);
        }
        Ok(conn.saved_syn.take().map(Vec::from).unwrap_or_default())
    }

    /// The clock of its timestamps.
    pub fn timestamp(&self, handle: Handle, now: Time) -> Option<u32> {
        self.conns.get(handle).map(|conn| conn.ts_now(now))
    }

    /// Whether acknowledgements come at once.
    pub fn is_quick(&self, handle: Handle) -> Option<bool> {
        self.conns.get(handle).map(|conn| !conn.pingpong)
    }

    pub fn options(&self, handle: Handle) -> Option<ConnOptions> {
        self.conns.get(handle).map(|conn| conn.options)
    }
}

impl Conn {
    fn set_quick(&mut self, net: &mut Net, on: bool) {
        self.options.quick_ack = on;
        self.pingpong = !on;
        if on {
            self.acknowledge_read(net);
        }
    }

    fn close_write(&mut self) {
        self.fin_wanted = true;
        match self.state {
            State::Established => self.state = State::FinWait1,
            State::CloseWait => self.state = State::LastAck,
            _ => {}
        }
        self.wake |= Ready::WRITE;
        if self.fin_received {
            self.wake |= Ready::CLOSED;
        }
    }
}
