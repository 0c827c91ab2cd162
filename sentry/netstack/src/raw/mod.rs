//! Raw and ping sockets (raw(7), icmp(7)): packets above IP. What goes to this stack itself is handed over in
//! `local`; the rest goes through the packet engine.

mod local;

use crate::addr::{Endpoint, Family, unspecified};
use crate::env::{Events, Waker};
use crate::error::{NetError, Result};
use crate::stack::{BindOptions, RawWire, Stack};
use crate::udp::{Datagram, ErrorReport, SendHow};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;
/// `IPPROTO_RAW`: for sending only.
pub const RAW: u8 = 255;

/// Memory a packet counts beside its data.
const OVERHEAD: usize = 768;
/// Reports that may wait.
const MAX_REPORTS: usize = 64;

struct Inner {
    local: IpAddr,
    remote: Option<Endpoint>,
    /// A ping socket's identifier, its port as it were.
    ident: u16,
    options: BindOptions,
    queue: VecDeque<Datagram>,
    bytes: usize,
    limit: usize,
    drops: u64,
    error: Option<NetError>,
    reports: VecDeque<ErrorReport>,
    /// `ICMP_FILTER`, `ICMPV6_FILTER`: a set bit keeps a type out.
    filter: [u32; 8],
    shut_receive: bool,
    shut_send: bool,
    closed: bool,
    wire: Option<Box<dyn RawWire>>,
}

/// A raw or ping socket.
pub struct RawSocket {
    me: Weak<RawSocket>,
    stack: Arc<Stack>,
    /// Unlike all others of the stack.
    pub id: u64,
    pub family: Family,
    pub protocol: u8,
    /// Sends echo requests and receives the answers to them.
    pub ping: bool,
    waker: Arc<dyn Waker>,
    /// Inode number and user, for tables.
    pub tag: OnceLock<(u64, u32)>,
    inner: Mutex<Inner>,
}

/// How a raw socket sends beside what datagrams have.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawHow {
    /// `IP_HDRINCL`: the data begins with a header.
    pub header_included: bool,
    /// Where a checksum is to be put (`IPV6_CHECKSUM`).
    pub checksum_at: Option<usize>,
}

impl RawSocket {
    pub fn new(
        stack: &Arc<Stack>,
        family: Family,
        protocol: u8,
        ping: bool,
        waker: Arc<dyn Waker>,
    ) -> Arc<RawSocket> {
        let id = stack.next_id();
        let socket = Arc::new_cyclic(|me| RawSocket {
            me: me.clone(),
            stack: Arc::clone(stack),
            id,
            family,
            protocol,
            ping,
            waker,
            tag: OnceLock::new(),
            inner: Mutex::new(Inner {
                local: unspecified(family),
                remote: None,
                ident: 0,
                options: BindOptions::default(),
                queue: VecDeque::new(),
                bytes: 0,
                limit: 212_992,
                drops: 0,
                error: None,
                reports: VecDeque::new(),
                filter: [0; 8],
                shut_receive: false,
                shut_send: false,
                closed: false,
                wire: None,
            }),
        });
        stack.list_raw(&socket);
        if !ping && protocol != RAW {
            socket.open_wire(None);
        }
        socket
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the engine show this socket what comes from outside.
    fn open_wire(&self, ident: Option<u16>) {
        let Some(wire) = self.stack.wire() else { return };
        let new = wire.open_raw(&self.me, self.family == Family::V4, self.protocol, ident);
        self.lock().wire = new;
    }

    /// EINVAL for a second bind of a ping socket, EADDRNOTAVAIL.
    pub fn bind(&self, to: Endpoint, options: BindOptions) -> Result<()> {
        let fine = to.ip.is_unspecified() || options.any_address || self.stack.is_local(to.ip);
        if !fine {
            return Err(NetError::AddressNotAvailable);
        }
        if self.ping {
            if self.lock().ident != 0 {
                return Err(NetError::Invalid);
            }
            self.take_ident(to.port)?;
        }
        let mut inner = self.lock();
        inner.local = to.ip;
        inner.options = options;
        Ok(())
    }

    pub fn set_bind_options(&self, options: BindOptions) {
        self.lock().options = options;
    }

    /// Takes an identifier, which others may have, too; 0 asks for one that nobody has.
    fn take_ident(&self, wish: u16) -> Result<u16> {
        let taken = |ident: u16| {
            self.stack
                .raw_sockets()
                .iter()
                .any(|s| s.id != self.id && s.ping && s.family == self.family && s.lock().ident == ident)
        };
        let ident = if wish != 0 {
            wish
        } else {
            let fresh = || u16::try_from(self.stack.env.random_below(65535) + 1).unwrap_or(1);
            (0..1000).map(|_| fresh()).find(|i| !taken(*i)).ok_or(NetError::WouldBlock)?
        };
        self.lock().ident = ident;
        self.open_wire(Some(ident));
        Ok(ident)
    }

    /// Sets the default destination. ENETUNREACH.
    pub fn connect(&self, to: Endpoint, options: BindOptions, how: &SendHow) -> Result<()> {
        let bound = Some(self.lock().local).filter(|ip| !ip.is_unspecified());
        let mut to = to;
        if to.ip.is_unspecified() {
            to.ip = crate::stack::loopback_address(to.ip);
        }
        let route = self.stack.route(to.ip, bound, how.device)?;
        if route.broadcast && !how.broadcast {
            return Err(NetError::Access);
        }
        if self.ping && self.lock().ident == 0 {
            self.take_ident(0)?;
        }
        let mut inner = self.lock();
        inner.options = options;
        inner.local = bound.unwrap_or(route.source);
        inner.remote = Some(to);
        Ok(())
    }

    pub fn disconnect(&self) {
        let mut inner = self.lock();
        inner.remote = None;
        inner.local = unspecified(self.family);
    }

    /// Sends a packet: EDESTADDRREQ, EINVAL, EACCES, ENETUNREACH, EMSGSIZE, EPIPE, or an error that came before.
    pub fn send(&self, to: Option<Endpoint>, data: &[u8], how: &SendHow, raw: RawHow) -> Result<()> {
        let (to, bound) = {
            let mut inner = self.lock();
            if let Some(e) = inner.error.take() {
                return Err(e);
            }
            if inner.shut_send {
                return Err(NetError::BrokenPipe);
            }
            let to = to.or(inner.remote).ok_or(NetError::NoDestination)?;
            let own = Some(inner.local).filter(|ip| !ip.is_unspecified());
            (to, how.source.or(own))
        };
        let ident = if self.ping {
            self.check_ping(data)?;
            let ident = self.lock().ident;
            Some(if ident == 0 { self.take_ident(0)? } else { ident })
        } else {
            None
        };
        let mut to = to;
        if to.ip.is_unspecified() {
            to.ip = crate::stack::loopback_address(to.ip);
        }
        let route = self.stack.route(to.ip, bound, how.device)?;
        if route.broadcast && !how.broadcast {
            return Err(NetError::Access);
        }
        let source = bound.unwrap_or(route.source);
        let room = usize::try_from(route.mtu).unwrap_or(usize::MAX);
        if raw.header_included && data.len() > room {
            return Err(NetError::MessageSize);
        }
        if route.local {
            return self.send_local(source, to.ip, data, how, raw, ident);
        }
        let wire = self.stack.wire().ok_or(NetError::NetworkUnreachable)?;
        wire.send_raw(self.protocol, Endpoint::new(source, ident.unwrap_or(0)), to, data, how, raw)
    }

    /// Ping sockets send echo requests and nothing else.
    fn check_ping(&self, data: &[u8]) -> Result<()> {
        let kind = if self.family == Family::V4 { 8 } else { 128 };
        match data {
            [first, 0, ..] if data.len() >= 8 && *first == kind => Ok(()),
            _ => Err(NetError::Invalid),
        }
    }

    /// Puts a packet into the queue, if there is room and it is not filtered.
    pub(crate) fn enqueue(&self, packet: Datagram) {
        {
            let mut inner = self.lock();
            if inner.closed {
                return;
            }
            if inner.bytes > inner.limit {
                inner.drops += 1;
                return;
            }
            inner.bytes += packet.data.len() + OVERHEAD;
            let drops = u32::try_from(inner.drops).unwrap_or(u32::MAX);
            inner.queue.push_back(Datagram { drops, ..packet });
        }
        self.waker.wake(Events::READABLE);
    }

    /// Whether a message's type is kept out.
    pub(crate) fn filtered(&self, kind: u8) -> bool {
        let inner = self.lock();
        inner.filter[usize::from(kind >> 5)] >> (kind & 31) & 1 == 1
    }

    pub fn filter(&self) -> [u32; 8] {
        self.lock().filter
    }
    pub fn set_filter(&self, filter: [u32; 8]) {
        self.lock().filter = filter;
    }

    /// An error that the network reported.
    pub(crate) fn reported(&self, report: ErrorReport, hard: bool) {
        {
            let mut inner = self.lock();
            if inner.remote.is_some() && hard {
                inner.error = Some(report.error);
            }
            if inner.reports.len() < MAX_REPORTS {
                inner.reports.push_back(report);
            }
        }
        self.waker.wake(Events::ERR | Events::READABLE | Events::WRITABLE);
    }

    /// The next packet; `None` after shutdown. EAGAIN, or an error that came before.
    pub fn receive(&self, peek: bool) -> Result<Option<Datagram>> {
        let mut inner = self.lock();
        if let Some(e) = inner.error.take() {
            return Err(e);
        }
        let found = if peek { inner.queue.front().cloned() } else { inner.queue.pop_front() };
        match found {
            Some(d) => {
                if !peek {
                    inner.bytes = inner.bytes.saturating_sub(d.data.len() + OVERHEAD);
                }
                Ok(Some(d))
            }
            None if inner.shut_receive => Ok(None),
            None => Err(NetError::WouldBlock),
        }
    }

    /// The next report of an error (`MSG_ERRQUEUE`). EAGAIN.
    pub fn receive_report(&self) -> Result<ErrorReport> {
        self.lock().reports.pop_front().ok_or(NetError::WouldBlock)
    }

    pub fn poll(&self) -> Events {
        let inner = self.lock();
        let mut e = Events::WRITABLE | Events::WRBAND;
        if inner.error.is_some() || !inner.reports.is_empty() {
            e |= Events::ERR;
        }
        if inner.shut_receive {
            e |= Events::RDHUP | Events::READABLE;
        }
        if inner.shut_receive && inner.shut_send {
            e |= Events::HUP;
        }
        if !inner.queue.is_empty() {
            e |= Events::READABLE;
        }
        e
    }

    /// ENOTCONN, but done nevertheless.
    pub fn shutdown(&self, receive: bool, send: bool) -> Result<()> {
        let connected = {
            let mut inner = self.lock();
            inner.shut_receive |= receive;
            inner.shut_send |= send;
            inner.remote.is_some()
        };
        self.waker.wake(Events::ALL);
        if connected { Ok(()) } else { Err(NetError::NotConnected) }
    }

    pub fn close(&self) {
        let (queue, wire) = {
            let mut inner = self.lock();
            inner.closed = true;
            (std::mem::take(&mut inner.queue), inner.wire.take())
        };
        drop(queue);
        drop(wire);
        self.stack.unlist_raw(self.id);
    }

    pub fn take_error(&self) -> Option<NetError> {
        self.lock().error.take()
    }
    /// The own address; a ping socket's port is its identifier.
    pub fn local(&self) -> Endpoint {
        let inner = self.lock();
        Endpoint { ip: inner.local, port: inner.ident, scope: 0 }
    }
    pub fn remote(&self) -> Option<Endpoint> {
        self.lock().remote
    }
    /// `SO_RCVBUF`
    pub fn set_limit(&self, bytes: usize) {
        self.lock().limit = bytes;
    }
    /// Length of the next packet.
    pub fn next_len(&self) -> usize {
        self.lock().queue.front().map_or(0, |d| d.data.len())
    }
    /// Bytes that wait, with what they count beside, and packets that found no room.
    pub fn usage(&self) -> (usize, u64) {
        let inner = self.lock();
        (inner.bytes, inner.drops)
    }
    pub fn stack(&self) -> &Arc<Stack> {
        &self.stack
    }

    /// A packet that the engine received.
    pub(crate) fn arrived(&self, packet: Datagram, kind: Option<u8>) {
        if let (ICMP | ICMPV6, Some(kind), false) = (self.protocol, kind, self.ping)
            && self.filtered(kind)
        {
            return;
        }
        self.enqueue(packet);
    }
}

#[cfg(test)]
mod tests;
