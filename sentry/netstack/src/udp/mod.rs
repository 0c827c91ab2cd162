//! UDP sockets: datagrams in queues, delivered by `table`.

mod groups;
mod table;

use groups::Membership;
pub use groups::SourceChange;
use table::UdpEntry;
pub use table::UdpTable;

use crate::addr::{Endpoint, Family, unspecified};
use crate::buf::Buf;
use crate::env::{Events, Waker};
use crate::error::{NetError, Result};
use crate::ports::ClaimId;
use crate::stack::{BindOptions, Stack};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// What was received.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub from: Endpoint,
    /// The address it was sent to.
    pub to: Endpoint,
    /// Interface it came in by.
    pub device: u32,
    pub data: Buf,
    /// When it came, nanoseconds since 1970.
    pub time: u64,
    pub ttl: u8,
    pub tos: u8,
    /// Datagrams that the socket had no room for until then (`SO_RXQ_OVFL`).
    pub drops: u32,
}

/// An error that came back for a datagram (`IP_RECVERR`).
#[derive(Clone, Debug)]
pub struct ErrorReport {
    pub error: NetError,
    /// 1 from here, 2 by ICMP, 3 by ICMPv6.
    pub origin: u8,
    pub kind: u8,
    pub code: u8,
    pub info: u32,
    /// Who reported it.
    pub offender: Option<IpAddr>,
    /// Where the datagram was to go.
    pub to: Endpoint,
    pub data: Buf,
    pub time: u64,
}

/// How a datagram is sent.
#[derive(Clone, Copy, Debug)]
pub struct SendHow {
    /// The address it comes from (`IP_PKTINFO`).
    pub source: Option<IpAddr>,
    /// The interface it leaves by, 0 for any.
    pub device: u32,
    pub ttl: u8,
    pub tos: u8,
    /// `SO_BROADCAST`
    pub broadcast: bool,
    /// `IP_MULTICAST_LOOP`
    pub multicast_loop: bool,
    /// Interface and address of `IP_MULTICAST_IF`.
    pub multicast_device: u32,
    pub multicast_source: Option<IpAddr>,
    /// `IP_RECVERR`
    pub want_errors: bool,
    /// `IP_MTU_DISCOVER`, by its number: 0 cut, 1 cut what is too long here, 2 refuse it, 3 refuse what is
    /// too long for the interface, 4 and 5 cut for the interface.
    pub discover: u8,
    /// `SO_NO_CHECK`
    pub no_checksum: bool,
}

/// Memory a datagram counts beside its data (`truesize` of a small one).
const OVERHEAD: usize = 768;
/// Reports that may wait.
const MAX_REPORTS: usize = 64;

struct Inner {
    local: Endpoint,
    remote: Option<Endpoint>,
    claim: Option<ClaimId>,
    bound: bool,
    bound_ip: bool,
    options: BindOptions,
    queue: VecDeque<Datagram>,
    bytes: usize,
    limit: usize,
    drops: u64,
    error: Option<NetError>,
    reports: VecDeque<ErrorReport>,
    shut_receive: bool,
    shut_send: bool,
    /// Groups joined.
    groups: Vec<Membership>,
    /// `IP_MULTICAST_ALL`
    all_groups: bool,
    want_errors: bool,
    discover: u8,
    closed: bool,
}

/// A UDP socket.
pub struct UdpSocket {
    me: Weak<UdpSocket>,
    stack: Arc<Stack>,
    /// Unlike all others of the stack.
    pub id: u64,
    pub family: Family,
    pub lite: bool,
    waker: Arc<dyn Waker>,
    /// Inode number and user, for tables.
    pub tag: OnceLock<(u64, u32)>,
    inner: Mutex<Inner>,
}

impl UdpSocket {
    /// `lite`: UDP-Lite, which has ports of its own.
    pub fn new(stack: &Arc<Stack>, family: Family, lite: bool, waker: Arc<dyn Waker>) -> Arc<UdpSocket> {
        let id = stack.next_id();
        let socket = Arc::new_cyclic(|me| UdpSocket {
            me: me.clone(),
            stack: Arc::clone(stack),
            id,
            family,
            lite,
            waker,
            tag: OnceLock::new(),
            inner: Mutex::new(Inner {
                local: Endpoint::any(family),
                remote: None,
                claim: None,
                bound: false,
                bound_ip: false,
                options: BindOptions::default(),
                queue: VecDeque::new(),
                bytes: 0,
                limit: 212_992,
                drops: 0,
                error: None,
                reports: VecDeque::new(),
                shut_receive: false,
                shut_send: false,
                groups: Vec::new(),
                all_groups: true,
                want_errors: false,
                discover: 1,
                closed: false,
            }),
        });
        stack.list_udp(&socket);
        socket
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the table of sockets what changed of the addresses.
    fn publish(&self, inner: &Inner) {
        let Some(me) = self.me.upgrade() else { return };
        let entry = UdpEntry {
            socket: me,
            family: self.family,
            local: inner.local.ip,
            remote: inner.remote,
            v6only: inner.options.v6only,
            device: inner.options.device,
            reuse_port: inner.options.reuse_port,
        };
        self.stack.datagram_table(self.lite).publish(inner.local.port, entry);
    }

    fn claim(&self, inner: &mut Inner, to: Endpoint, options: BindOptions) -> Result<()> {
        let claim = options.claim(to.ip, None);
        let id = self.stack.datagram_ports(self.lite).claim(
            &*self.stack.env,
            options.range(self.stack.env.port_range()),
            to.port,
            claim,
        )?;
        inner.options = options;
        inner.claim = Some(id);
        inner.local = to.with_port(id.port);
        Ok(())
    }

    /// EINVAL, EADDRINUSE, EADDRNOTAVAIL.
    pub fn bind(&self, to: Endpoint, options: BindOptions) -> Result<()> {
        let mut inner = self.lock();
        if inner.claim.is_some() {
            return Err(NetError::Invalid);
        }
        if !to.ip.is_unspecified() && !options.any_address && !self.stack.is_local(to.ip) {
            return Err(NetError::AddressNotAvailable);
        }
        self.claim(&mut inner, to, options)?;
        inner.bound = to.port != 0;
        inner.bound_ip = !to.ip.is_unspecified();
        self.publish(&inner);
        Ok(())
    }

    /// Options that concern ports changed after bind.
    pub fn set_bind_options(&self, options: BindOptions) {
        let mut inner = self.lock();
        inner.options = options;
        if let Some(id) = inner.claim {
            self.stack.datagram_ports(self.lite).note(id, |c| {
                c.reuse_addr = options.reuse_addr;
                c.reuse_port = options.reuse_port;
                c.device = options.device;
            });
            self.publish(&inner);
        }
    }

    fn autobind(&self, inner: &mut Inner, options: BindOptions) -> Result<()> {
        if inner.claim.is_some() {
            return Ok(());
        }
        let any = Endpoint { ip: inner.local.ip, port: 0, scope: 0 };
        self.claim(inner, any, options).map_err(|_| NetError::WouldBlock)?;
        self.publish(inner);
        Ok(())
    }

    /// Sets the default destination. ENETUNREACH.
    pub fn connect(&self, to: Endpoint, options: BindOptions, how: &SendHow) -> Result<()> {
        let mut inner = self.lock();
        let mut to = to;
        if to.ip.is_unspecified() {
            to.ip = crate::stack::loopback_address(to.ip);
        }
        let bound = if inner.bound_ip { Some(inner.local.ip) } else { None };
        let (source, device) = if to.ip.is_multicast() {
            (bound.or(how.multicast_source), if how.device != 0 { how.device } else { how.multicast_device })
        } else {
            (bound, how.device)
        };
        let route = self.stack.route(to.ip, source, device)?;
        if route.broadcast && !how.broadcast {
            return Err(NetError::Access);
        }
        if !inner.bound_ip {
            inner.local.ip = route.source;
        }
        inner.remote = Some(to);
        if inner.claim.is_none() {
            self.autobind(&mut inner, options)?;
        }
        self.publish(&inner);
        Ok(())
    }

    /// connect(2) to `AF_UNSPEC`.
    pub fn disconnect(&self) {
        let mut inner = self.lock();
        inner.remote = None;
        if !inner.bound_ip {
            inner.local.ip = unspecified(self.family);
        }
        if !inner.bound {
            if let Some(id) = inner.claim.take() {
                self.stack.datagram_table(self.lite).withdraw(inner.local.port, self.id);
                self.stack.datagram_ports(self.lite).release(id);
            }
            inner.local.port = 0;
        } else {
            self.publish(&inner);
        }
    }

    /// Sends a datagram: EDESTADDRREQ, EACCES, ENETUNREACH, EPIPE, or an error that came before.
    pub fn send(&self, to: Option<Endpoint>, data: Buf, how: &SendHow, options: BindOptions) -> Result<()> {
        let (from_port, to, bound, connected) = {
            let mut inner = self.lock();
            if let Some(e) = inner.error.take() {
                return Err(e);
            }
            if inner.shut_send {
                return Err(NetError::BrokenPipe);
            }
            let mut to = to.or(inner.remote).ok_or(NetError::NoDestination)?;
            if to.port == 0 {
                return Err(NetError::Invalid);
            }
            if to.ip.is_unspecified() {
                to.ip = crate::stack::loopback_address(to.ip);
            }
            self.autobind(&mut inner, options)?;
            let bound =
                how.source.or(if inner.local.ip.is_unspecified() { None } else { Some(inner.local.ip) });
            (inner.local.port, to, bound, inner.remote.is_some())
        };
        if bound.is_some_and(|b| b.is_ipv4() != to.ip.is_ipv4()) {
            return Err(NetError::NetworkUnreachable);
        }
        let multicast = to.ip.is_multicast();
        let device = if multicast && how.device == 0 { how.multicast_device } else { how.device };
        let source =
            if multicast { bound.filter(|b| !b.is_multicast()).or(how.multicast_source) } else { bound };
        if let Some(wish) = how.source
            && !options.any_address
            && !self.stack.is_local(wish)
        {
            // A source that is nobody's here has no route in IPv4 and is no source in IPv6.
            return Err(if wish.is_ipv4() { NetError::NetworkUnreachable } else { NetError::Invalid });
        }
        let route = self.stack.route(to.ip, source, device)?;
        if route.broadcast && !how.broadcast {
            return Err(NetError::Access);
        }
        let from = Endpoint::new(source.unwrap_or(route.source), from_port);
        if !route.local {
            let wire = self.stack.wire().ok_or(NetError::NetworkUnreachable)?;
            let how = SendHow { device, ..*how };
            if let Err(error) = wire.send_datagram(from, to, data.clone(), &how) {
                if error == NetError::MessageSize && how.want_errors {
                    self.too_long(to, data, wire.path_mtu(to.ip, source, device).unwrap_or(0));
                }
                return Err(error);
            }
            if !(route.broadcast || (multicast && how.multicast_loop)) {
                return Ok(());
            }
        } else if !self.lite
            && let Some(relay) = self.stack.relay(to, || self.stack.takes_datagram(from, to, route.device))
        {
            return relay.datagram(from, to, data.bytes());
        }
        let datagram = Datagram {
            from,
            to,
            device: route.device,
            data,
            time: self.stack.env.realtime(),
            ttl: how.ttl,
            tos: how.tos,
            drops: 0,
        };
        self.stack.interfaces.count_local(datagram.data.len() as u64 + 28);
        if route.broadcast || multicast {
            self.stack.deliver_to_many(&datagram, self.lite);
            return Ok(());
        }
        if let Err(datagram) = self.stack.deliver_datagram(datagram, self.lite) {
            self.unreachable(datagram, from, connected, how.want_errors);
        }
        Ok(())
    }

    /// A datagram was too long for its path: the report says what is not.
    pub fn too_long(&self, to: Endpoint, data: Buf, mtu: u32) {
        {
            let mut inner = self.lock();
            if inner.reports.len() >= MAX_REPORTS {
                return;
            }
            inner.reports.push_back(ErrorReport {
                error: NetError::MessageSize,
                // `SO_EE_ORIGIN_LOCAL`
                origin: 1,
                kind: 0,
                code: 0,
                info: mtu,
                offender: None,
                to,
                data,
                time: self.stack.env.realtime(),
            });
        }
        self.waker.wake(Events::ERR);
    }

    /// Nobody has the port: what ICMP would say.
    fn unreachable(&self, datagram: Datagram, from: Endpoint, connected: bool, want: bool) {
        {
            let mut inner = self.lock();
            let v4 = datagram.to.ip.is_ipv4();
            if want && inner.reports.len() < MAX_REPORTS {
                inner.reports.push_back(ErrorReport {
                    error: NetError::Refused,
                    origin: if v4 { 2 } else { 3 },
                    kind: if v4 { 3 } else { 1 },
                    code: if v4 { 3 } else { 4 },
                    info: 0,
                    offender: Some(datagram.to.ip),
                    to: datagram.to,
                    data: datagram.data,
                    time: datagram.time,
                });
            }
            if !connected && !want {
                return;
            }
            inner.error = Some(NetError::Refused);
        }
        let _ = from;
        self.waker.wake(Events::ERR | Events::READABLE | Events::WRITABLE);
    }

    /// `IP_RECVERR` or `IPV6_RECVERR`: errors of the network are kept, and told without a connection too.
    pub fn set_want_errors(&self, on: bool) {
        let mut inner = self.lock();
        inner.want_errors = on;
        if !on {
            inner.reports.clear();
        }
    }

    /// `IP_MTU_DISCOVER`: whether a packet that is too big for its path is an error here.
    pub fn set_discover(&self, mode: u8) {
        self.lock().discover = mode;
    }

    /// An error that the network reported. Only a connected socket is told of hard ones by itself.
    pub(crate) fn reported(&self, report: ErrorReport, hard: bool) {
        {
            let mut inner = self.lock();
            // As `__udp4_lib_err`: too big is hard for those who find out about path MTUs.
            let big = report.error == NetError::MessageSize;
            if big && (inner.discover == 0 || (!inner.want_errors && inner.remote.is_none())) {
                return;
            }
            let hard = hard || big;
            if !inner.want_errors && (inner.remote.is_none() || !hard) {
                return;
            }
            inner.error = Some(report.error);
            if inner.want_errors && inner.reports.len() < MAX_REPORTS {
                inner.reports.push_back(report);
            }
        }
        self.waker.wake(Events::ERR | Events::READABLE | Events::WRITABLE);
    }

    /// Puts a datagram into the queue, if there is room.
    pub(crate) fn enqueue(&self, datagram: &Datagram) {
        {
            let mut inner = self.lock();
            if inner.closed {
                return;
            }
            if inner.bytes > inner.limit {
                inner.drops += 1;
                return;
            }
            inner.bytes += datagram.data.len() + OVERHEAD;
            let drops = u32::try_from(inner.drops).unwrap_or(u32::MAX);
            inner.queue.push_back(Datagram { drops, ..datagram.clone() });
        }
        self.waker.wake(Events::READABLE);
    }

    /// The next datagram without taking it, and how many of its bytes are passed over when `skip` bytes of
    /// all that wait are. `None` after shutdown. EAGAIN, or an error that came before.
    pub fn peek(&self, skip: usize) -> Result<Option<(Datagram, usize)>> {
        let mut inner = self.lock();
        if let Some(e) = inner.error.take() {
            return Err(e);
        }
        let mut skip = skip;
        for d in &inner.queue {
            if skip < d.data.len() || skip == 0 {
                return Ok(Some((d.clone(), skip)));
            }
            skip -= d.data.len();
        }
        if inner.shut_receive { Ok(None) } else { Err(NetError::WouldBlock) }
    }

    /// The next datagram; `None` after shutdown. EAGAIN, or an error that came before.
    pub fn receive(&self) -> Result<Option<Datagram>> {
        let mut inner = self.lock();
        if let Some(e) = inner.error.take() {
            return Err(e);
        }
        let shut = inner.shut_receive;
        match inner.queue.pop_front() {
            Some(d) => {
                inner.bytes = inner.bytes.saturating_sub(d.data.len() + OVERHEAD);
                Ok(Some(d))
            }
            None if shut => Ok(None),
            None => Err(NetError::WouldBlock),
        }
    }

    /// The next report of an error (`MSG_ERRQUEUE`). EAGAIN.
    pub fn receive_report(&self) -> Result<ErrorReport> {
        let mut inner = self.lock();
        let report = inner.reports.pop_front().ok_or(NetError::WouldBlock)?;
        // What is next becomes the pending error, else there is none any more.
        inner.error = inner.reports.front().map(|r| r.error);
        Ok(report)
    }

    /// Length of the next datagram (`FIONREAD`).
    pub fn next_len(&self) -> usize {
        self.lock().queue.front().map_or(0, |d| d.data.len())
    }

    /// Bytes that wait, with what they count beside, and datagrams that found no room.
    pub fn usage(&self) -> (usize, u64) {
        let inner = self.lock();
        (inner.bytes, inner.drops)
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
        let (port, claim, queue, groups) = {
            let mut inner = self.lock();
            inner.closed = true;
            let groups = std::mem::take(&mut inner.groups);
            (inner.local.port, inner.claim.take(), std::mem::take(&mut inner.queue), groups)
        };
        drop(queue);
        self.leave_all(groups);
        if let Some(id) = claim {
            self.stack.datagram_table(self.lite).withdraw(port, self.id);
            self.stack.datagram_ports(self.lite).release(id);
        }
        self.stack.unlist_udp(self.id);
    }

    pub fn take_error(&self) -> Option<NetError> {
        self.lock().error.take()
    }
    pub fn local(&self) -> Endpoint {
        self.lock().local
    }
    pub fn remote(&self) -> Option<Endpoint> {
        self.lock().remote
    }
    pub fn has_port(&self) -> bool {
        self.lock().claim.is_some()
    }
    /// `SO_RCVBUF`
    pub fn set_limit(&self, bytes: usize) {
        self.lock().limit = bytes;
    }
    pub fn stack(&self) -> &Arc<Stack> {
        &self.stack
    }
}

#[cfg(test)]
mod tests;
