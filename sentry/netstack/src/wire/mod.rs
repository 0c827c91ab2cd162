//! The joint between the sockets and the packet engine: one lock around the engine, held short, never
//! while bytes of a guest are copied, frames written or somebody told of news.

mod connection;
mod raw;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use crate::addr::Endpoint;
use crate::buf::Buf;
use crate::datagram::{Datagram, ErrorReport, SendHow, Tag};
use crate::engine::addresses::Prefix;
use crate::engine::chunk::Chunk;
use crate::engine::error::{Error, PacketError};
use crate::engine::events::{self, DatagramSink, Listening, Observer, Ready, Upper};
use crate::engine::frame::{Body, RxFrame};
use crate::engine::link::LinkEndpoint;
use crate::engine::net::UDP;
use crate::engine::random::Random;
use crate::engine::route::Route;
use crate::engine::sending::{Extra, Fragmenting};
use crate::engine::time::Time;
use crate::engine::udp::UdpSend;
use crate::engine::{Engine, Handle};
use crate::env::{Env, Waker};
use crate::error::{NetError, Result};
use crate::interface::{IfAddr, Interface, Watcher};
use crate::raw::{RawHow, RawSocket};
use crate::stack::{BindOptions, RawWire, Stack, Wire};
use crate::tcp::{Incoming, StreamOptions, Transport};
use connection::Connection;

/// Connections of all listeners that may wait at once in the engine itself.
const BACKLOG: usize = 4096;

/// The bytes of the header of UDP.
const UDP_HEADER: usize = 8;

/// Told when the engine wants to be polled earlier than it said, or of another change that whoever serves the stack should
/// look at.
pub trait Alarm: Send + Sync {
    fn earlier(&self);
}

struct EnvRandom(Arc<dyn Env>);

impl Random for EnvRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.random(bytes);
    }
}

struct State {
    engine: Engine,
    /// When whoever polls will come at the latest.
    expected: Option<Time>,
}

/// A link as the embedder describes it. Routes and later changes are made in the stack's table of interfaces.
pub struct Attachment {
    /// Zero: one is chosen.
    pub index: u32,
    pub name: String,
    pub link: Arc<dyn LinkEndpoint>,
    pub up: bool,
    pub carrier: bool,
    pub addresses: Vec<IfAddr>,
}

/// The engine with its lock.
pub struct PacketWire {
    me: Weak<PacketWire>,
    env: Arc<dyn Env>,
    stack: Weak<Stack>,
    state: Mutex<State>,
    links: RwLock<Vec<(u32, Arc<dyn LinkEndpoint>)>>,
    alarm: Arc<dyn Alarm>,
    listener: Handle,
    /// Held while the engine's interfaces follow the table: the last one to come has the last state.
    following: Mutex<()>,
}

/// Connections came in.
struct Arrivals(Weak<PacketWire>);

impl Observer for Arrivals {
    fn changed(&self, _ready: Ready) {
        if let Some(wire) = self.0.upgrade() {
            wire.hand_over();
        }
    }
}

/// The engine's errors under the names of errno.
pub(crate) fn name(error: Error) -> NetError {
    match error {
        Error::Stale | Error::NotConnected => NetError::NotConnected,
        Error::WouldBlock => NetError::WouldBlock,
        Error::Invalid => NetError::Invalid,
        Error::InProgress => NetError::InProgress,
        Error::BrokenPipe => NetError::BrokenPipe,
        Error::ConnectionRefused => NetError::Refused,
        Error::ConnectionReset => NetError::Reset,
        Error::ConnectionAborted => NetError::Aborted,
        Error::TimedOut => NetError::TimedOut,
        Error::HostUnreachable => NetError::HostUnreachable,
        Error::NetworkUnreachable => NetError::NetworkUnreachable,
        Error::ProtocolUnreachable => NetError::Protocol,
        Error::AccessDenied => NetError::Access,
        Error::AddressInUse => NetError::AddressInUse,
        Error::AddressNotAvailable => NetError::AddressNotAvailable,
        Error::MessageTooLong => NetError::MessageSize,
        Error::NoBuffers => NetError::NoBuffers,
        Error::InterfaceDown => NetError::NetworkDown,
    }
}

/// What becomes of a packet of a protocol that is too long, as its sender wants it.
fn fragmenting(how: &SendHow, to: IpAddr, protocol: u8) -> Fragmenting {
    match how.discover {
        _ if how.kept_whole(to, protocol) => Fragmenting::Never,
        1 => Fragmenting::Here,
        2 | 3 => Fragmenting::Never,
        4 => Fragmenting::NotHere,
        _ => Fragmenting::Allowed,
    }
}

fn address(end: Endpoint) -> SocketAddr {
    SocketAddr::new(end.ip, end.port)
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::new(address.ip(), address.port())
}

/// The other end, with the interface if its address means nothing elsewhere.
fn scoped(ip: IpAddr, port: u16, interface: u32) -> Endpoint {
    let local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    Endpoint { scope: if local { interface } else { 0 }, ..Endpoint::new(ip, port) }
}

impl PacketWire {
    /// An engine for a stack, which gets it as its way to the outside.
    pub fn new(stack: &Arc<Stack>, alarm: Arc<dyn Alarm>) -> Arc<PacketWire> {
        let wire = Arc::new_cyclic(|me: &Weak<PacketWire>| {
            let mut engine = Engine::new(Box::new(EnvRandom(stack.env.clone())));
            engine.net.epoch = stack.env.realtime().saturating_sub(stack.env.monotonic());
            let listener = engine.tcp.listen_for_upper(BACKLOG, Arc::new(Arrivals(me.clone())));
            engine.net.upper =
                Some(Arc::new(Sockets { stack: Arc::downgrade(stack), env: stack.env.clone() }));
            PacketWire {
                me: me.clone(),
                env: stack.env.clone(),
                stack: Arc::downgrade(stack),
                state: Mutex::new(State { engine, expected: None }),
                links: RwLock::default(),
                alarm,
                listener,
                following: Mutex::default(),
            }
        });
        stack.set_wire(wire.clone());
        let me: Weak<PacketWire> = Arc::downgrade(&wire);
        stack.interfaces.set_watcher(me);
        wire
    }

    /// Attaches a link to the engine and shows it among the interfaces of the stack. Returns its index.
    pub fn attach(&self, attachment: Attachment) -> Result<u32> {
        let Some(stack) = self.stack.upgrade() else { return Err(NetError::NoDevice) };
        let Attachment { index, name: called, link, up, carrier, addresses } = attachment;
        let index = stack.interfaces.add(Interface {
            index,
            name: called,
            up,
            carrier,
            loopback: false,
            mtu: u32::try_from(link.mtu()).unwrap_or(u32::MAX),
            hardware: link.mac().0,
            addrs: addresses,
            traffic: Arc::default(),
        });
        self.links.write().unwrap_or_else(PoisonError::into_inner).push((index, link.clone()));
        self.with(|engine| engine.attach(index, link)).map_err(name)?;
        self.follow();
        self.with(|engine| engine.announce(index));
        Ok(index)
    }

    /// Takes a link away again, with all that depends on it.
    pub fn detach(&self, index: u32) {
        self.links.write().unwrap_or_else(PoisonError::into_inner).retain(|(i, _)| *i != index);
        self.with(|engine| engine.detach(index));
        if let Some(stack) = self.stack.upgrade() {
            let _ = stack.interfaces.remove(index);
        }
    }

    /// Makes the engine's interfaces like those of the stack's table.
    fn follow(&self) {
        let Some(stack) = self.stack.upgrade() else { return };
        let _one_at_a_time = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        let (interfaces, lines) = (stack.interfaces.list(), stack.interfaces.routes());
        self.with(|engine| {
            for i in interfaces.iter().filter(|i| !i.loopback) {
                let addresses: Vec<Prefix> = i.addrs.iter().map(|a| Prefix::new(a.ip, a.prefix)).collect();
                let own = lines.iter().filter(|line| line.device == i.index).map(|line| Route {
                    gateway: line.gateway,
                    metric: line.metric,
                    source: line.source,
                    ..Route::on_link(Prefix::new(line.to, line.prefix), i.index)
                });
                let routes: Vec<Route> = own.collect();
                engine.configure(i.index, i.up, i.mtu as usize, &addresses, &routes);
                // What has gone through the interface is counted by the engine.
                engine.count_in(i.index, &i.traffic);
            }
        });
    }

    /// Nanoseconds until a time that `drive` has named.
    pub fn until(&self, time: u64) -> std::time::Duration {
        Time(time).since(self.now())
    }

    fn now(&self) -> Time {
        Time(self.env.monotonic())
    }

    /// Does something with the engine; then, without its lock, sends frames and tells of news.
    fn with<R>(&self, act: impl FnOnce(&mut Engine) -> R) -> R {
        self.with_alarm(true, act)
    }

    /// `alarm`: whoever polls may have to come earlier than it said.
    fn with_alarm<R>(&self, alarm: bool, act: impl FnOnce(&mut Engine) -> R) -> R {
        let now = self.now();
        let (result, events, early) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.engine.set_now(now);
            let result = act(&mut state.engine);
            state.engine.settle();
            let events = state.engine.events();
            let deadline = state.engine.deadline();
            let early =
                alarm && deadline.is_some_and(|at| state.expected.is_none_or(|expected| at < expected));
            if early {
                state.expected = deadline;
            }
            (result, events, early)
        };
        for (_, link) in self.links.read().unwrap_or_else(PoisonError::into_inner).iter() {
            link.flush();
        }
        if early {
            self.alarm.earlier();
        }
        for event in events {
            event.dispatch();
        }
        result
    }

    /// Looks at the engine, or changes what sends nothing and tells nobody.
    fn look<R>(&self, act: impl FnOnce(&mut Engine) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).engine)
    }

    /// Takes frames of a link in, and runs the timers. Returns when to come again, in nanoseconds of the
    /// stack's clock.
    pub fn drive(&self, link: u32, frames: impl IntoIterator<Item = RxFrame>) -> Option<u64> {
        let now = self.now();
        let next = self.with_alarm(false, |engine| {
            engine.receive(now, link, frames);
            engine.poll(now)
        });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.engine.deadline().or(next);
        state.expected = next;
        next.map(|at| at.0)
    }

    /// Connections that the engine has completed go to their listeners.
    fn hand_over(&self) {
        let (Some(stack), Some(me)) = (self.stack.upgrade(), self.me.upgrade()) else { return };
        while let Ok(accepted) = self.with(|engine| engine.tcp.accept(self.listener)) {
            let (local, remote) = (endpoint(accepted.local), endpoint(accepted.remote));
            let transport = Connection::new(me.clone(), accepted.connection, None);
            let incoming = Incoming { transport, local, remote };
            let refused = match stack.find_listener(remote, local) {
                Some(listener) => listener.push(incoming).err(),
                None => Some(incoming),
            };
            if let Some(refused) = refused {
                refused.transport.close(true);
            }
        }
    }
}

impl Watcher for PacketWire {
    fn changed(&self) {
        self.follow();
    }
}

impl Wire for PacketWire {
    fn engine(&self, act: &mut dyn FnMut(&mut Engine)) {
        self.with(act);
    }

    fn connect(
        &self,
        from: Endpoint,
        to: Endpoint,
        options: BindOptions,
        settings: &StreamOptions,
        waker: Arc<dyn Waker>,
    ) -> Result<Arc<dyn Transport>> {
        let me = self.me.upgrade().ok_or(NetError::NetworkDown)?;
        let bell = connection::Bell::new(Some(waker));
        let device = if options.device != 0 { options.device } else { to.scope };
        let options = StreamOptions { interface: (device != 0).then_some(device), ..*settings };
        let observer: Arc<dyn Observer> = bell.clone();
        let handle = self
            .with(|engine| {
                engine.tcp.connect(&mut engine.net, address(from), address(to), options, Some(observer))
            })
            .map_err(name)?;
        Ok(Connection::with_bell(me, handle, bell))
    }

    fn open_raw(
        &self,
        socket: &Weak<RawSocket>,
        v4: bool,
        protocol: u8,
        ident: Option<u16>,
    ) -> Option<Box<dyn RawWire>> {
        Some(Box::new(raw::Opened::new(self.me.upgrade()?, socket, v4, protocol, ident)))
    }

    fn send_raw(
        &self,
        protocol: u8,
        from: Endpoint,
        to: Endpoint,
        data: &[u8],
        how: &SendHow,
        raw: RawHow,
        extra: &Extra<'_>,
    ) -> Result<()> {
        raw::send(self, raw, extra, protocol, from, to, data, how)
    }

    fn send_datagram(
        &self,
        from: Endpoint,
        to: Endpoint,
        data: Buf,
        how: &SendHow,
        extra: &Extra<'_>,
    ) -> Result<()> {
        let mut body = Body::new();
        body.push(Chunk::from(data));
        let device = if how.device != 0 { how.device } else { to.scope };
        let hop = how.hop(to.ip);
        let how = UdpSend {
            ttl: (how.ttl != 0).then_some(how.ttl),
            tos: how.tos,
            interface: (device != 0).then_some(device),
            fragmenting: fragmenting(how, to.ip, UDP),
            ignore_path_mtu: how.discover >= 3,
            no_checksum: how.no_checksum,
            segment: None,
            hop: (hop != to.ip).then_some(hop),
            direct: how.direct && to.ip.is_ipv4(),
            extra: *extra,
        };
        self.with(|engine| engine.udp.send(&mut engine.net, address(from), address(to), &how, body))
            .map_err(name)?;
        Ok(())
    }

    fn path_mtu(&self, to: IpAddr, source: Option<IpAddr>, device: u32) -> Result<u32> {
        let path = self.look(|engine| engine.net.path(to, source, (device != 0).then_some(device)));
        Ok(u32::try_from(path.map_err(name)?.mtu).unwrap_or(u32::MAX))
    }

    fn join(&self, group: IpAddr, device: u32) -> Result<()> {
        self.with(|engine| match engine.net.interface(device).is_some() {
            true if !engine.net.join(device, group) => Err(NetError::NoBuffers),
            // Loopback has no link.
            _ => Ok(()),
        })
    }

    fn leave(&self, group: IpAddr, device: u32) {
        self.with(|engine| engine.net.leave(device, group));
    }
}

/// The sockets of the stack, as the engine sees them.
struct Sockets {
    stack: Weak<Stack>,
    env: Arc<dyn Env>,
}

impl Upper for Sockets {
    fn listens(&self, local: SocketAddr, remote: SocketAddr, _interface: u32) -> Option<Listening> {
        let listener = self.stack.upgrade()?.find_listener(endpoint(remote), endpoint(local))?;
        let (waiting, most) = listener.lengths();
        Some(Listening { room: waiting <= most, options: listener.options() })
    }

    fn takes(&self, local: SocketAddr, remote: SocketAddr, interface: u32) -> bool {
        self.stack
            .upgrade()
            .is_some_and(|stack| stack.takes_datagram(endpoint(remote), endpoint(local), interface))
    }

    fn takes_unchecked(&self, local: SocketAddr, remote: SocketAddr, interface: u32) -> bool {
        self.stack
            .upgrade()
            .is_some_and(|stack| stack.takes_unchecked(endpoint(remote), endpoint(local), interface))
    }
}

impl DatagramSink for Sockets {
    fn deliver(&self, datagram: events::Datagram) {
        let Some(stack) = self.stack.upgrade() else { return };
        let many = datagram.destination.is_multicast()
            || stack.interfaces.local(datagram.destination).is_none() && datagram.destination.is_ipv4();
        let segment = datagram.segment;
        let datagram = Datagram {
            from: scoped(datagram.source, datagram.source_port, datagram.interface),
            to: Endpoint::new(datagram.destination, datagram.destination_port),
            device: datagram.interface,
            data: Buf::from(datagram.payload),
            time: self.env.realtime(),
            ttl: datagram.ttl,
            tos: datagram.tos,
            drops: 0,
            tag: Tag::default(),
            // What the link has joined is taken apart by the sockets.
            segment,
            fragment: datagram.fragment,
            between: datagram.between,
            flow: datagram.flow,
        };
        if many {
            stack.deliver_to_many(&datagram, false);
        } else {
            // A socket that was closed in this moment: the datagram is lost, as on any network.
            let _ = stack.deliver_datagram(datagram, false);
        }
    }

    fn error(&self, error: &PacketError) {
        let Some(stack) = self.stack.upgrade() else { return };
        let (own, peer) = error.ports();
        let to = Endpoint::new(error.remote, peer);
        let report = report(error, to, self.env.realtime(), UDP_HEADER);
        stack.datagram_error(Endpoint::new(error.local, own), to, error.interface, report, error.hard);
    }
}

/// An error of the network as sockets tell it (`struct sock_extended_err`), without so many bytes of what was sent.
fn report(error: &PacketError, to: Endpoint, time: u64, header: usize) -> ErrorReport {
    ErrorReport {
        error: name(error.error),
        origin: match (error.icmp, error.local.is_ipv4()) {
            (None, _) => 1,
            (Some(_), true) => 2,
            (Some(_), false) => 3,
        },
        kind: error.icmp.map_or(0, |(kind, ..)| kind),
        code: error.icmp.map_or(0, |(_, code, _)| code),
        info: error.info,
        offender: error.icmp.map(|(.., from)| from),
        to,
        data: Buf::from(error.quote.slice(header, error.quote.len())),
        time,
        extension: error
            .extension
            .and_then(|(at, sound)| Some((at.checked_sub(u16::try_from(header).ok()?)?, sound))),
    }
}
