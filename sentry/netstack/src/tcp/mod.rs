//! TCP sockets: bound, listening, connecting, connected. How bytes travel is the transport's business.

mod listener;
pub mod transport;

pub use crate::engine::tcp::{Algorithm, ConnOptions as StreamOptions, TcpInfo};
pub use crate::local::terms::Terms;
use listener::Offer;
pub use listener::{Incoming, Listener};
pub use transport::{Parting, StreamCounts, TakeHow, Taken, TcpState, Transport};

use crate::addr::{Endpoint, Family, unspecified};
use crate::counters::bump;
use crate::env::{Events, Waker};
use crate::error::{NetError, Result};
use crate::local::stream;
use crate::ports::{Claim, ClaimId};
use crate::reuse::{Choice, Chooser};
use crate::stack::{BindOptions, Stack};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

enum Phase {
    Closed,
    Listening(Arc<Listener>),
    /// The SYN found no place in a queue.
    SynSent,
    Open(Arc<dyn Transport>),
    Released,
}

struct Inner {
    phase: Phase,
    local: Endpoint,
    remote: Option<Endpoint>,
    claim: Option<ClaimId>,
    /// Address and port were given by bind.
    bound: bool,
    bound_ip: bool,
    /// connect(2) was called and has not told the result (`SS_CONNECTING`).
    connecting: bool,
    /// An error of an attempt to connect.
    error: Option<NetError>,
    /// The attempt failed and nobody has asked since: both directions count as shut.
    failed: bool,
    /// `shutdown` before a connection.
    shut: bool,
    options: BindOptions,
    settings: StreamOptions,
    /// How the group that it belongs to, or will, chooses.
    choice: Arc<Choice>,
}

/// A TCP socket.
pub struct TcpSocket {
    me: Weak<TcpSocket>,
    stack: Arc<Stack>,
    /// Unlike all others of the stack.
    pub id: u64,
    pub family: Family,
    waker: Arc<dyn Waker>,
    /// Inode number and user, for tables.
    pub tag: OnceLock<(u64, u32)>,
    inner: Mutex<Inner>,
}

impl TcpSocket {
    pub fn new(stack: &Arc<Stack>, family: Family, waker: Arc<dyn Waker>) -> Arc<TcpSocket> {
        Self::make(stack, family, waker, Phase::Closed, Endpoint::any(family), None, BindOptions::default())
    }

    fn make(
        stack: &Arc<Stack>,
        family: Family,
        waker: Arc<dyn Waker>,
        phase: Phase,
        local: Endpoint,
        remote: Option<Endpoint>,
        options: BindOptions,
    ) -> Arc<TcpSocket> {
        let id = stack.next_id();
        let socket = Arc::new_cyclic(|me| TcpSocket {
            me: me.clone(),
            stack: Arc::clone(stack),
            id,
            family,
            waker,
            tag: OnceLock::new(),
            inner: Mutex::new(Inner {
                phase,
                local,
                remote,
                claim: None,
                bound: false,
                bound_ip: false,
                connecting: false,
                error: None,
                failed: false,
                shut: false,
                options,
                settings: StreamOptions::default(),
                choice: Arc::default(),
            }),
        });
        stack.list_tcp(&socket);
        socket
    }

    /// A socket for a connection that [`TcpSocket::accept`] gave.
    pub fn accepted(&self, incoming: Incoming, waker: Arc<dyn Waker>) -> Arc<TcpSocket> {
        let (options, claim, settings) = {
            let inner = self.lock();
            (inner.options, inner.claim, inner.settings)
        };
        incoming.transport.set_waker(Arc::clone(&waker));
        incoming.transport.configure(&settings);
        let (local, remote) = (incoming.local, incoming.remote);
        let phase = Phase::Open(incoming.transport);
        let new = Self::make(&self.stack, self.family, waker, phase, local, Some(remote), options);
        new.lock().settings = StreamOptions { defer_accept: 0, ..settings };
        if let Some(c) = claim {
            let claim = options.claim(local.ip, Some(remote));
            new.lock().claim = Some(self.stack.tcp_ports.share(c.port, claim));
        }
        new
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection: ENOTCONN.
    pub fn transport(&self) -> Option<Arc<dyn Transport>> {
        match &self.lock().phase {
            Phase::Open(t) => Some(Arc::clone(t)),
            _ => None,
        }
    }

    /// Binds to an address: EINVAL, EADDRINUSE, EADDRNOTAVAIL.
    pub fn bind(&self, to: Endpoint, options: BindOptions) -> Result<()> {
        let mut inner = self.lock();
        if inner.claim.is_some() || !matches!(inner.phase, Phase::Closed) {
            return Err(NetError::Invalid);
        }
        if !to.ip.is_unspecified() && !options.any_address && !self.stack.is_local(to.ip) {
            return Err(NetError::AddressNotAvailable);
        }
        let claim = options.claim(to.ip, None);
        let range = options.range(self.stack.env.port_range());
        let id = self.stack.tcp_ports.claim(&*self.stack.env, range, to.port, claim)?;
        inner.options = options;
        inner.claim = Some(id);
        inner.bound = to.port != 0;
        inner.bound_ip = !to.ip.is_unspecified();
        inner.local = to.with_port(id.port);
        Ok(())
    }

    /// Options that concern ports changed after bind.
    pub fn set_bind_options(&self, options: BindOptions) {
        let mut inner = self.lock();
        inner.options = options;
        if let Some(id) = inner.claim {
            self.stack.tcp_ports.note(id, |c| {
                c.reuse_addr = options.reuse_addr;
                c.reuse_port = options.reuse_port;
                c.device = options.device;
            });
        }
    }

    /// Listens, or changes the backlog: EINVAL, EADDRINUSE.
    pub fn listen(&self, backlog: usize, options: BindOptions) -> Result<()> {
        let mut inner = self.lock();
        match &inner.phase {
            Phase::Listening(l) => {
                l.set_backlog(backlog);
                return Ok(());
            }
            Phase::Closed if !inner.connecting => {}
            _ => return Err(NetError::Invalid),
        }
        inner.options = options;
        let ports = &self.stack.tcp_ports;
        match inner.claim {
            None => {
                let any = unspecified(self.family);
                let claim = Claim { listening: true, ..options.claim(any, None) };
                let range = options.range(self.stack.env.port_range());
                let id = ports.claim(&*self.stack.env, range, 0, claim)?;
                inner.claim = Some(id);
                inner.local = Endpoint { ip: any, port: id.port, scope: 0 };
            }
            Some(id) => ports.change(&*self.stack.env, id, |c| c.listening = true)?,
        }
        let local = inner.local;
        let waker = Arc::clone(&self.waker);
        let (v6only, device, group) = (options.v6only, options.device, options.reuse_port);
        let listener = Listener::new(local, self.family, v6only, device, group, waker);
        listener.set_backlog(backlog);
        listener.set_options(inner.settings);
        inner.phase = Phase::Listening(Arc::clone(&listener));
        inner.shut = false;
        let choice = Arc::clone(&inner.choice);
        drop(inner);
        let choice = self.stack.add_listener(listener, choice);
        self.lock().choice = choice;
        Ok(())
    }

    /// A connection that waits. EAGAIN, EINVAL.
    pub fn accept(&self) -> Result<Incoming> {
        let listener = match &self.lock().phase {
            Phase::Listening(l) => Arc::clone(l),
            _ => return Err(NetError::Invalid),
        };
        listener.accept().ok_or(NetError::WouldBlock)
    }

    /// Begins to connect. EINPROGRESS when begun: [`TcpSocket::connected`] tells the result.
    pub fn connect(&self, to: Endpoint, options: BindOptions) -> Result<()> {
        let Some(me) = self.me.upgrade() else { return Err(NetError::Invalid) };
        let mut inner = self.lock();
        if inner.connecting {
            return match inner.phase {
                Phase::SynSent => Err(NetError::Already),
                _ => {
                    drop(inner);
                    self.connected()
                }
            };
        }
        if !matches!(inner.phase, Phase::Closed) {
            return Err(NetError::Connected);
        }
        inner.options = options;
        let bound_ip = if inner.local.ip.is_unspecified() { None } else { Some(inner.local.ip) };
        let mut to = to;
        if to.ip.is_unspecified() {
            // «This host», as ever.
            to.ip = crate::stack::loopback_address(to.ip);
        }
        if bound_ip.is_some_and(|b| b.is_ipv4() && to.ip.is_ipv6()) {
            return Err(NetError::WrongFamily);
        }
        let route = self.stack.route(to.ip, bound_ip, options.device)?;
        if route.broadcast || route.multicast {
            return Err(NetError::NetworkUnreachable);
        }
        let source = bound_ip.unwrap_or(route.source);
        if source.is_ipv4() != to.ip.is_ipv4() {
            return Err(NetError::NetworkUnreachable);
        }
        if inner.claim.is_none() {
            let claim = options.claim(source, Some(to));
            let range = options.range(self.stack.env.port_range());
            let id = self
                .stack
                .tcp_ports
                .claim(&*self.stack.env, range, 0, claim)
                .map_err(|_| NetError::AddressNotAvailable)?;
            inner.claim = Some(id);
            inner.local.port = id.port;
        } else if let Some(id) = inner.claim {
            self.stack.tcp_ports.note(id, |c| {
                c.connected_to = Some(to);
                c.ip = source;
            });
        }
        inner.local.ip = source;
        inner.remote = Some(to);
        inner.connecting = true;
        inner.failed = false;
        inner.error = None;
        inner.shut = false;
        let from = inner.local;
        if !route.local {
            let settings = inner.settings;
            let begun = self.stack.connect_by_packets(from, to, options, &settings, Arc::clone(&self.waker));
            return match begun {
                Ok(t) => {
                    inner.phase = Phase::Open(t);
                    Err(NetError::InProgress)
                }
                Err(e) => {
                    inner.connecting = false;
                    self.forget_names(&mut inner);
                    Err(e)
                }
            };
        }
        if from.ip == to.ip && from.port == to.port {
            // A SYN that meets its own socket opens it from both sides at once.
            let end = stream::loopback(&self.stack.ledger, to.ip, &inner.settings);
            bump(&self.stack.counters.active_opens);
            self.open(&mut inner, end);
            return Err(NetError::InProgress);
        }
        if let Some(relay) = self.stack.relay(to, || self.stack.find_listener(from, to).is_some()) {
            bump(&self.stack.counters.active_opens);
            let (near, far) =
                stream::pair(&self.stack.ledger, to.ip, &inner.settings, &StreamOptions::default());
            self.open(&mut inner, near);
            drop(inner);
            if relay.connection(far.clone(), to).is_err() {
                far.close(true);
            }
            self.waker.wake(Events::ALL);
            return Err(NetError::InProgress);
        }
        bump(&self.stack.counters.active_opens);
        inner.phase = Phase::SynSent;
        drop(inner);
        let settings = self.settings();
        match self.stack.find_listener(from, to) {
            None => self.refused(),
            // One does not hear the other: the first segments are lost (`IP_MINTTL`).
            Some(l) if !hear_each_other(to.ip.is_ipv4(), &settings, &l.options()) => {}
            Some(l) => match l.offer(&me, from, to) {
                Offer::Done(end) => {
                    let mut inner = self.lock();
                    self.open(&mut inner, end);
                    drop(inner);
                    self.waker.wake(Events::ALL);
                }
                Offer::Wait => {}
                Offer::Refused => self.refused(),
            },
        }
        Err(NetError::InProgress)
    }

    fn open(&self, inner: &mut Inner, end: Arc<dyn Transport>) {
        end.set_waker(Arc::clone(&self.waker));
        end.configure(&inner.settings);
        if matches!(inner.phase, Phase::Released) {
            end.close(true);
        } else {
            inner.phase = Phase::Open(end);
        }
    }

    /// A listener has a place again.
    pub(crate) fn retry_connect(self: &Arc<Self>, listener: &Arc<Listener>, from: Endpoint, to: Endpoint) {
        if !matches!(self.lock().phase, Phase::SynSent) {
            return;
        }
        match listener.offer(self, from, to) {
            Offer::Done(end) => {
                let mut inner = self.lock();
                self.open(&mut inner, end);
                drop(inner);
                self.waker.wake(Events::ALL);
            }
            Offer::Wait => {}
            Offer::Refused => self.refused(),
        }
    }

    /// A reset answers the SYN.
    pub(crate) fn refused(&self) {
        {
            let mut inner = self.lock();
            if !matches!(inner.phase, Phase::SynSent) {
                return;
            }
            inner.phase = Phase::Closed;
            inner.error = Some(NetError::Refused);
            inner.failed = true;
            self.forget_names(&mut inner);
            bump(&self.stack.counters.failed_attempts);
            self.stack.ledger.count_reset(0);
        }
        self.waker.wake(Events::ALL);
    }

    /// What connect took and bind did not give goes back.
    fn forget_names(&self, inner: &mut Inner) {
        inner.remote = None;
        if !inner.bound_ip {
            inner.local.ip = unspecified(self.family);
        }
        if !inner.bound {
            // getsockname(2) goes on telling the port, as on Linux.
            if let Some(id) = inner.claim.take() {
                self.stack.tcp_ports.release(id);
            }
        } else if let Some(id) = inner.claim {
            let ip = inner.local.ip;
            self.stack.tcp_ports.note(id, |c| {
                c.connected_to = None;
                c.ip = ip;
            });
        }
    }

    /// How an attempt to connect ended: EINPROGRESS, the error, or done. Tells it once.
    pub fn connected(&self) -> Result<()> {
        let mut inner = self.lock();
        if !inner.connecting {
            return Ok(());
        }
        if let Phase::Open(t) = &inner.phase {
            let t = Arc::clone(t);
            match t.state() {
                TcpState::SynSent | TcpState::SynReceived => return Err(NetError::InProgress),
                TcpState::Close if !t.is_local() => {
                    inner.connecting = false;
                    inner.phase = Phase::Closed;
                    self.forget_names(&mut inner);
                    return Err(t.take_error().unwrap_or(NetError::Aborted));
                }
                _ => {
                    inner.connecting = false;
                    return Ok(());
                }
            }
        }
        if matches!(inner.phase, Phase::SynSent) {
            return Err(NetError::InProgress);
        }
        inner.connecting = false;
        inner.failed = false;
        Err(inner.error.take().unwrap_or(NetError::Aborted))
    }

    /// connect(2) to `AF_UNSPEC`: the socket is as new.
    pub fn disconnect(&self) {
        let (old, listener) = {
            let mut inner = self.lock();
            let old = std::mem::replace(&mut inner.phase, Phase::Closed);
            inner.connecting = false;
            inner.failed = false;
            inner.error = None;
            self.forget_names(&mut inner);
            match old {
                Phase::Open(t) => (Some(t), None),
                Phase::Listening(l) => (None, Some(l)),
                _ => (None, None),
            }
        };
        if let Some(t) = old {
            t.close(true);
        }
        if let Some(l) = listener {
            self.unlisten(&l);
        }
        self.waker.wake(Events::ALL);
    }

    fn unlisten(&self, l: &Arc<Listener>) {
        self.stack.remove_listener(l);
        l.close();
    }

    /// ENOTCONN
    pub fn shutdown(&self, receive: bool, send: bool) -> Result<()> {
        let mut inner = self.lock();
        match &inner.phase {
            Phase::Open(t) => {
                let t = Arc::clone(t);
                drop(inner);
                if t.state() == TcpState::Close {
                    t.shutdown(receive, send);
                    return Err(NetError::NotConnected);
                }
                t.shutdown(receive, send);
                Ok(())
            }
            Phase::Listening(l) => {
                let l = Arc::clone(l);
                if !receive {
                    return Ok(());
                }
                inner.phase = Phase::Closed;
                if let Some(id) = inner.claim {
                    self.stack.tcp_ports.note(id, |c| c.listening = false);
                }
                drop(inner);
                self.unlisten(&l);
                self.waker.wake(Events::ALL);
                Ok(())
            }
            Phase::SynSent => {
                inner.phase = Phase::Closed;
                inner.connecting = false;
                self.forget_names(&mut inner);
                drop(inner);
                self.waker.wake(Events::ALL);
                Ok(())
            }
            Phase::Closed | Phase::Released => {
                inner.shut = receive && send;
                drop(inner);
                self.waker.wake(Events::ALL);
                Err(NetError::NotConnected)
            }
        }
    }

    /// The socket is gone; `abort`: `SO_LINGER` with no time.
    pub fn close(&self, abort: bool) {
        let (phase, claim) = {
            let mut inner = self.lock();
            (std::mem::replace(&mut inner.phase, Phase::Released), inner.claim.take())
        };
        let ports = &self.stack.tcp_ports;
        let parting = match phase {
            Phase::Open(t) => t.close(abort),
            Phase::Listening(l) => {
                self.unlisten(&l);
                Parting::Free
            }
            _ => Parting::Free,
        };
        if let Some(id) = claim {
            match parting {
                Parting::Free => ports.release(id),
                Parting::Wait(time) => ports.linger(&*self.stack.env, id, time),
            }
        }
        self.stack.unlist_tcp(self.id);
    }

    pub fn poll(&self, low: usize, inline_urgent: bool) -> Events {
        let inner = self.lock();
        match &inner.phase {
            Phase::Open(t) => {
                let t = Arc::clone(t);
                drop(inner);
                t.poll(low, inline_urgent)
            }
            Phase::Listening(l) => {
                let l = Arc::clone(l);
                drop(inner);
                l.poll()
            }
            Phase::SynSent => Events::NONE,
            Phase::Closed | Phase::Released => {
                let mut e = Events::HUP | Events::WRITABLE;
                if inner.failed || inner.shut {
                    e |= Events::READABLE | Events::RDHUP;
                }
                if inner.error.is_some() {
                    e |= Events::ERR;
                }
                e
            }
        }
    }

    /// `SO_ERROR`
    pub fn take_error(&self) -> Option<NetError> {
        let t = {
            let mut inner = self.lock();
            match &inner.phase {
                Phase::Open(t) => Arc::clone(t),
                _ => return inner.error.take(),
            }
        };
        t.take_error()
    }

    /// Why a socket without a connection has nothing to give.
    pub fn not_open(&self) -> NotOpen {
        let mut inner = self.lock();
        if let Some(e) = inner.error.take() {
            return NotOpen::Error(e);
        }
        match inner.phase {
            Phase::SynSent => NotOpen::Connecting,
            _ if inner.failed || inner.shut => NotOpen::Ended,
            _ => NotOpen::Never,
        }
    }

    pub fn is_listening(&self) -> bool {
        matches!(self.lock().phase, Phase::Listening(_))
    }

    pub fn listener(&self) -> Option<Arc<Listener>> {
        match &self.lock().phase {
            Phase::Listening(l) => Some(Arc::clone(l)),
            _ => None,
        }
    }

    pub fn state(&self) -> TcpState {
        let t = match &self.lock().phase {
            Phase::Closed | Phase::Released => return TcpState::Close,
            Phase::Listening(_) => return TcpState::Listen,
            Phase::SynSent => return TcpState::SynSent,
            Phase::Open(t) => Arc::clone(t),
        };
        t.state()
    }

    pub fn local(&self) -> Endpoint {
        self.lock().local
    }

    /// Whether a port is taken.
    pub fn has_port(&self) -> bool {
        self.lock().claim.is_some()
    }

    /// The other end, as long as there is one (getpeername(2)).
    pub fn remote(&self) -> Option<Endpoint> {
        let inner = self.lock();
        match &inner.phase {
            Phase::Open(t) => {
                let t = Arc::clone(t);
                let remote = inner.remote;
                drop(inner);
                if t.state() == TcpState::Close { None } else { remote }
            }
            _ => None,
        }
    }

    /// The other end for tables: also while connecting.
    pub fn remote_or_any(&self) -> Endpoint {
        self.lock().remote.unwrap_or(Endpoint::any(self.family))
    }

    /// Changes what the connection does, or what one that comes begins with.
    pub fn configure(&self, change: impl FnOnce(&mut StreamOptions)) {
        let (t, settings) = {
            let mut inner = self.lock();
            change(&mut inner.settings);
            let settings = inner.settings;
            match &inner.phase {
                Phase::Open(t) => (Arc::clone(t), settings),
                Phase::Listening(l) => {
                    l.set_options(settings);
                    return;
                }
                _ => return,
            }
        };
        t.configure(&settings);
    }

    /// `SO_ATTACH_REUSEPORT_CBPF`: how the socket's group chooses from now on; whether there was a program.
    pub fn set_chooser(&self, chooser: Option<Arc<dyn Chooser>>) -> bool {
        let choice = Arc::clone(&self.lock().choice);
        choice.set(chooser)
    }

    /// `TCP_QUICKACK`, as far as there is a connection that has acknowledgements.
    pub fn set_quick(&self, on: bool) {
        if let Some(t) = self.transport() {
            t.set_quick(on);
        }
    }

    /// What `configure` has made of the options.
    pub fn settings(&self) -> StreamOptions {
        self.lock().settings
    }

    /// `TCP_DEFER_ACCEPT`: for how many timeouts of the handshake, 0 not at all.
    pub fn set_defer(&self, timeouts: u32) {
        self.configure(|options| options.defer_accept = timeouts);
    }

    /// Sizes of buffers in bytes of data; `None` leaves one as it is.
    pub fn set_limits(&self, send: Option<usize>, receive: Option<usize>) {
        self.configure(|options| {
            options.send_buffer = send.or(options.send_buffer);
            options.receive_buffer = receive.or(options.receive_buffer);
        });
    }

    /// What `TCP_INFO` tells of a connection over packets; there is none inside the stack.
    pub fn info(&self) -> Option<TcpInfo> {
        self.transport()?.info()
    }

    pub fn stack(&self) -> &Arc<Stack> {
        &self.stack
    }

    /// The address the socket is bound to, for routes.
    pub fn source(&self) -> Option<IpAddr> {
        let ip = self.lock().local.ip;
        if ip.is_unspecified() { None } else { Some(ip) }
    }
}

/// What a socket without a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpen {
    Error(NetError),
    Connecting,
    /// Was shut, or failed to connect.
    Ended,
    Never,
}

/// Whether segments of both have as many hops left on arrival here as the other one wants.
fn hear_each_other(v4: bool, one: &StreamOptions, other: &StreamOptions) -> bool {
    let hops = |options: &StreamOptions| options.ttl.unwrap_or(64);
    one.takes(v4, hops(other)) && other.takes(v4, hops(one))
}

#[cfg(test)]
mod tests;
