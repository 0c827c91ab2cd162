//! What UDP, raw and ping sockets have in common: names, a queue of what was received, errors and reports of
//! them.

use crate::addr::{Endpoint, Family};
use crate::buf::Buf;
use crate::counters::bump;
use crate::env::{Events, Waker};
use crate::error::{NetError, Result};
use crate::extensions::{Between, Extensions};
use crate::interface::Route;
use crate::options::Options;
use crate::sieve::{Shape, Sieve};
use crate::stack::{BindOptions, Stack, loopback_address};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

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
    pub tag: Tag,
    /// Several datagrams, all of this size but the last (`UDP_SEGMENT` or a link that joins them).
    pub segment: Option<u16>,
    /// The largest of the pieces it came in, with its headers; 0: it came whole.
    pub fragment: u32,
    /// Options of IPv4, or extension headers of IPv6.
    pub between: Option<Between>,
    /// The flow label of IPv6.
    pub flow: u32,
}

impl Datagram {
    /// Memory it counts in a queue.
    fn cost(&self) -> usize {
        OVERHEAD + self.data.len() + self.between.as_ref().map_or(0, |between| between.bytes.len())
    }
}

/// What the kernel notes about a packet beside its bytes, and what is not on any wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// `SO_MARK`
    pub mark: u32,
    /// `SO_PRIORITY`
    pub priority: u32,
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
    /// Where in the data the extensions of an ICMP message begin (RFC 4884), and whether they are sound.
    pub extension: Option<(u16, bool)>,
}

/// How a datagram is sent.
#[derive(Clone, Debug)]
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
    /// `IP_MTU_DISCOVER`, by its number: 0 cut, 1 cut what is too long here, 2 refuse it, 3 and 4 refuse what is
    /// too long for the interface, 5 cut for the interface.
    pub discover: u8,
    /// `SO_NO_CHECK`, `UDP_NO_CHECK6_TX`
    pub no_checksum: bool,
    pub tag: Tag,
    /// `UDP_SEGMENT`: the datagrams that the data makes.
    pub segment: Option<u16>,
    /// `IPV6_DONTFRAG`
    pub dont_fragment: bool,
    /// `IPV6_MTU`: pieces are not larger than this; 0 for no such wish.
    pub pieces: u32,
    /// Only to what is on a link (`MSG_DONTROUTE`), by IPv4.
    pub direct: bool,
    /// The flow label, by IPv6.
    pub flow: u32,
    /// One is made if there is none (`IPV6_AUTOFLOWLABEL`).
    pub auto_flow: bool,
    /// Options of IPv4.
    pub options: Option<Arc<Options>>,
    /// Extension headers of IPv6.
    pub extensions: Option<Arc<Extensions>>,
}

impl SendHow {
    /// Nothing special is asked for.
    pub const PLAIN: SendHow = SendHow {
        source: None,
        device: 0,
        ttl: 64,
        tos: 0,
        broadcast: false,
        multicast_loop: true,
        multicast_device: 0,
        multicast_source: None,
        want_errors: false,
        discover: 1,
        dont_fragment: false,
        pieces: 0,
        no_checksum: false,
        tag: Tag { mark: 0, priority: 0 },
        segment: None,
        direct: false,
        flow: 0,
        auto_flow: false,
        options: None,
        extensions: None,
    };

    /// Source and interface for an address: what `IP_MULTICAST_IF` says holds for groups.
    pub(crate) fn way(&self, to: IpAddr, bound: Option<IpAddr>) -> (Option<IpAddr>, u32) {
        if !to.is_multicast() {
            return (bound, self.device);
        }
        let source = bound.filter(|b| !b.is_multicast()).or(self.multicast_source);
        (source, if self.device != 0 { self.device } else { self.multicast_device })
    }
}

/// Memory a datagram counts beside its data (`truesize` of a small one).
const OVERHEAD: usize = 768;
/// Reports that may wait.
const MAX_REPORTS: usize = 64;

/// What changes of a socket; `own` is what its protocol has beside.
pub(crate) struct State<P> {
    /// The port of a ping socket is its identifier.
    pub local: Endpoint,
    pub remote: Option<Endpoint>,
    pub options: BindOptions,
    pub error: Option<NetError>,
    queue: VecDeque<Datagram>,
    bytes: usize,
    limit: usize,
    drops: u64,
    reports: VecDeque<ErrorReport>,
    want_errors: bool,
    /// `IPV6_RECVPATHMTU`, and the last that is to be told: a destination and the MTU of its path.
    pub want_path_mtu: bool,
    pub path_mtu: Option<(Endpoint, u32)>,
    discover: u8,
    shut_receive: bool,
    shut_send: bool,
    closed: bool,
    /// `UDP_GRO`
    joined: bool,
    /// `SO_ATTACH_FILTER`
    sieve: Option<Arc<dyn Sieve>>,
    pub own: P,
}

impl<P> State<P> {
    /// Where a datagram goes: an error that came before, EPIPE, EDESTADDRREQ.
    pub fn destination(&mut self, to: Option<Endpoint>) -> Result<Endpoint> {
        if let Some(e) = self.error.take() {
            return Err(e);
        }
        if self.shut_send {
            return Err(NetError::BrokenPipe);
        }
        to.or(self.remote).map(reachable).ok_or(NetError::NoDestination)
    }

    /// The own address, if there is one.
    pub fn source(&self) -> Option<IpAddr> {
        Some(self.local.ip).filter(|ip| !ip.is_unspecified())
    }

    pub fn report(&mut self, report: ErrorReport) {
        if self.reports.len() < MAX_REPORTS {
            self.reports.push_back(report);
        }
    }

    /// Nothing is received any more; gives what waits, to be dropped without the lock.
    pub fn close(&mut self) -> VecDeque<Datagram> {
        self.closed = true;
        std::mem::take(&mut self.queue)
    }
}

/// An address to reach: none is this host.
pub(crate) fn reachable(to: Endpoint) -> Endpoint {
    if to.ip.is_unspecified() { Endpoint { ip: loopback_address(to.ip), ..to } } else { to }
}

/// The common part of a socket.
pub struct DatagramBase<P> {
    pub(crate) stack: Arc<Stack>,
    /// Unlike all others of the stack.
    pub id: u64,
    pub family: Family,
    pub(crate) waker: Arc<dyn Waker>,
    /// Inode number and user, for tables.
    pub tag: OnceLock<(u64, u32)>,
    shape: Shape,
    state: Mutex<State<P>>,
}

impl<P> DatagramBase<P> {
    pub(crate) fn new(
        stack: &Arc<Stack>,
        family: Family,
        waker: Arc<dyn Waker>,
        shape: Shape,
        own: P,
    ) -> DatagramBase<P> {
        DatagramBase {
            stack: Arc::clone(stack),
            id: stack.next_id(),
            family,
            waker,
            tag: OnceLock::new(),
            shape,
            state: Mutex::new(State {
                local: Endpoint::any(family),
                remote: None,
                options: BindOptions::default(),
                error: None,
                queue: VecDeque::new(),
                bytes: 0,
                limit: 212_992,
                drops: 0,
                reports: VecDeque::new(),
                want_errors: false,
                want_path_mtu: false,
                path_mtu: None,
                discover: 1,
                shut_receive: false,
                shut_send: false,
                closed: false,
                joined: false,
                sieve: None,
                own,
            }),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// EADDRNOTAVAIL for addresses of others.
    pub(crate) fn check_local(&self, ip: IpAddr, options: &BindOptions) -> Result<()> {
        let fine = ip.is_unspecified() || options.any_address || self.stack.is_local(ip);
        if fine { Ok(()) } else { Err(NetError::AddressNotAvailable) }
    }

    /// The way to an address: ENETUNREACH, EACCES for broadcasts that are not asked for.
    pub(crate) fn route(
        &self,
        to: IpAddr,
        source: Option<IpAddr>,
        device: u32,
        how: &SendHow,
    ) -> Result<Route> {
        let direct = how.direct && to.is_ipv4();
        let route = self.stack.interfaces.route_by(to, source, device, direct)?;
        if route.broadcast && !how.broadcast { Err(NetError::Access) } else { Ok(route) }
    }

    /// What is received counts as datagrams of UDP.
    fn counted(&self) -> bool {
        self.shape == Shape::Udp { lite: false }
    }

    /// `UDP_GRO`: several datagrams that came as one are received as one.
    pub fn set_joined(&self, on: bool) {
        self.lock().joined = on;
    }

    /// Puts a datagram into the queue, if the socket's filter keeps it and there is room; several in one are taken
    /// apart, unless the socket wants them so.
    pub(crate) fn enqueue(&self, mut datagram: Datagram) {
        let size = datagram.segment.map_or(0, usize::from);
        if size == 0 || size >= datagram.data.len() || self.lock().joined {
            datagram.segment = datagram.segment.filter(|_| size > 0 && size < datagram.data.len());
            self.enqueue_one(datagram);
            return;
        }
        while !datagram.data.is_empty() {
            let data = datagram.data.split_to(size);
            self.enqueue_one(Datagram { data, segment: None, ..datagram.clone() });
        }
    }

    fn enqueue_one(&self, mut datagram: Datagram) {
        let sieve = self.lock().sieve.clone();
        let kept = sieve.is_none_or(|sieve| self.shape.passes(&*sieve, &mut datagram));
        {
            let mut state = self.lock();
            if state.closed {
                return;
            }
            if !kept {
                // As Linux reckons: those of UDP count as lost.
                state.drops += u64::from(self.counted());
                return;
            }
            if state.bytes > state.limit {
                state.drops += 1;
                if self.counted() {
                    bump(&self.stack.counters.of(datagram.from.ip).udp_no_room);
                }
                return;
            }
            state.bytes += datagram.cost();
            let drops = u32::try_from(state.drops).unwrap_or(u32::MAX);
            state.queue.push_back(Datagram { drops, ..datagram });
        }
        self.waker.wake(Events::READABLE);
    }

    /// The next datagram without taking it, and how many of its bytes are passed over when `skip` bytes of
    /// all that wait are. `None` after shutdown. EAGAIN, or an error that came before.
    pub fn peek(&self, skip: usize) -> Result<Option<(Datagram, usize)>> {
        let mut state = self.lock();
        if let Some(e) = state.error.take() {
            return Err(e);
        }
        let mut skip = skip;
        for d in &state.queue {
            if skip < d.data.len() || skip == 0 {
                return Ok(Some((d.clone(), skip)));
            }
            skip -= d.data.len();
        }
        if state.shut_receive { Ok(None) } else { Err(NetError::WouldBlock) }
    }

    /// The next datagram; `None` after shutdown. EAGAIN, or an error that came before.
    pub fn receive(&self) -> Result<Option<Datagram>> {
        let mut state = self.lock();
        if let Some(e) = state.error.take() {
            return Err(e);
        }
        match state.queue.pop_front() {
            Some(d) => {
                state.bytes = state.bytes.saturating_sub(d.cost());
                if self.counted() {
                    bump(&self.stack.counters.of(d.from.ip).udp_in);
                }
                Ok(Some(d))
            }
            None if state.shut_receive => Ok(None),
            None => Err(NetError::WouldBlock),
        }
    }

    /// `IP_RECVERR` or `IPV6_RECVERR`: errors of the network are kept, and told without a connection too.
    pub fn set_want_errors(&self, on: bool) {
        let mut state = self.lock();
        state.want_errors = on;
        if !on {
            state.reports.clear();
        }
    }

    /// `IPV6_RECVPATHMTU`
    pub fn set_want_path_mtu(&self, on: bool) {
        self.lock().want_path_mtu = on;
    }

    /// The MTU of a path that a datagram was too long for, and where it led; told once.
    pub fn take_path_mtu(&self) -> Option<(Endpoint, u32)> {
        let mut state = self.lock();
        if state.want_path_mtu { state.path_mtu.take() } else { None }
    }

    /// `IP_MTU_DISCOVER`: whether a packet that is too big for its path is an error here.
    pub fn set_discover(&self, mode: u8) {
        self.lock().discover = mode;
    }

    /// An error that the network reported. Only a connected socket is told of hard ones by itself.
    pub(crate) fn reported(&self, report: ErrorReport, hard: bool) {
        {
            let mut state = self.lock();
            // As `__udp4_lib_err`, `raw_err` and `ping_err`: too big is hard for those who find out about path MTUs.
            let big = report.error == NetError::MessageSize;
            if big && (state.discover == 0 || (!state.want_errors && state.remote.is_none())) {
                return;
            }
            let hard = hard || big;
            if !state.want_errors && (state.remote.is_none() || !hard) {
                return;
            }
            state.error = Some(report.error);
            if state.want_errors {
                state.report(report);
            }
        }
        self.waker.wake(Events::ERR | Events::READABLE | Events::WRITABLE);
    }

    /// The next report of an error (`MSG_ERRQUEUE`). EAGAIN.
    pub fn receive_report(&self) -> Result<ErrorReport> {
        let mut state = self.lock();
        let report = state.reports.pop_front().ok_or(NetError::WouldBlock)?;
        // What is next becomes the pending error, else there is none any more.
        state.error = state.reports.front().map(|r| r.error);
        Ok(report)
    }

    pub fn poll(&self) -> Events {
        let state = self.lock();
        let mut e = Events::WRITABLE | Events::WRBAND;
        if state.error.is_some() || !state.reports.is_empty() {
            e |= Events::ERR;
        }
        if state.shut_receive {
            e |= Events::RDHUP | Events::READABLE;
        }
        if state.shut_receive && state.shut_send {
            e |= Events::HUP;
        }
        if !state.queue.is_empty() {
            e |= Events::READABLE;
        }
        e
    }

    /// ENOTCONN, but done nevertheless.
    pub fn shutdown(&self, receive: bool, send: bool) -> Result<()> {
        let connected = {
            let mut state = self.lock();
            state.shut_receive |= receive;
            state.shut_send |= send;
            state.remote.is_some()
        };
        self.waker.wake(Events::ALL);
        if connected { Ok(()) } else { Err(NetError::NotConnected) }
    }

    pub fn take_error(&self) -> Option<NetError> {
        self.lock().error.take()
    }
    /// The own address; a ping socket's port is its identifier.
    pub fn local(&self) -> Endpoint {
        self.lock().local
    }
    pub fn remote(&self) -> Option<Endpoint> {
        self.lock().remote
    }
    /// `SO_ATTACH_FILTER`
    pub fn set_sieve(&self, sieve: Option<Arc<dyn Sieve>>) {
        let old = std::mem::replace(&mut self.lock().sieve, sieve);
        drop(old);
    }
    /// `SO_RCVBUF`
    pub fn set_limit(&self, bytes: usize) {
        self.lock().limit = bytes;
    }
    /// Length of the next datagram (`FIONREAD`).
    pub fn next_len(&self) -> usize {
        self.lock().queue.front().map_or(0, |d| d.data.len())
    }
    /// Bytes that wait, with what they count beside, and datagrams that found no room.
    pub fn usage(&self) -> (usize, u64) {
        let state = self.lock();
        (state.bytes, state.drops)
    }
    pub fn stack(&self) -> &Arc<Stack> {
        &self.stack
    }
}
