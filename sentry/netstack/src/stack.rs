//! One network stack: what a network namespace has. Interfaces and routes are in `interface`, ports in
//! `ports`; here is what finds sockets.

use crate::addr::{Endpoint, Family};
use crate::buf::{Buf, Ledger, Pool};
use crate::counters::Counters;
use crate::datagram::SendHow;
use crate::engine::Engine;
use crate::engine::neighbour::Neighbours;
use crate::engine::sending::Extra;
use crate::env::{Env, Waker};
use crate::error::{NetError, Result};
use crate::interface::{Interfaces, Route};
use crate::ports::{Claim, Ports, Rules};
use crate::raw::{RawHow, RawSocket};
use crate::reuse::{Choice, leave};
use crate::tcp::{Listener, StreamOptions, TcpSocket, Transport};
use crate::udp::{UdpSocket, UdpTable};
use crate::wire::Alarm;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

/// The options of a socket that decide about addresses and ports.
#[derive(Clone, Copy, Debug, Default)]
pub struct BindOptions {
    pub reuse_addr: bool,
    pub reuse_port: bool,
    pub v6only: bool,
    /// `SO_BINDTODEVICE`: an interface index, or 0.
    pub device: u32,
    pub uid: u32,
    /// `IP_FREEBIND`, `IP_TRANSPARENT`
    pub any_address: bool,
    /// `IP_LOCAL_PORT_RANGE`: first and last port to choose from, 0 for that of the stack.
    pub ports: (u16, u16),
}

impl BindOptions {
    /// Nothing special is asked for.
    pub const PLAIN: BindOptions = BindOptions {
        reuse_addr: false,
        reuse_port: false,
        v6only: false,
        device: 0,
        uid: 0,
        any_address: false,
        ports: (0, 0),
    };

    /// The ports to choose from, within those of the stack.
    pub(crate) fn range(&self, (first, last): (u16, u16)) -> (u16, u16) {
        let low = if self.ports.0 == 0 { first } else { self.ports.0.clamp(first, last) };
        let high = if self.ports.1 == 0 { last } else { self.ports.1.clamp(first, last) };
        if low > high { (first, last) } else { (low, high) }
    }

    pub(crate) fn claim(&self, ip: IpAddr, connected_to: Option<Endpoint>) -> Claim {
        Claim {
            ip,
            v6only: self.v6only,
            reuse_addr: self.reuse_addr,
            reuse_port: self.reuse_port,
            uid: self.uid,
            device: self.device,
            listening: false,
            connected_to,
        }
    }
}

/// What «this host» means in the family of an address.
pub(crate) fn loopback_address(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

/// Connections that leave the stack: implemented by the packet engine.
pub trait Wire: Send + Sync {
    /// Begins a connection; its state is SYN-SENT.
    fn connect(
        &self,
        from: Endpoint,
        to: Endpoint,
        options: BindOptions,
        settings: &StreamOptions,
        waker: Arc<dyn Waker>,
    ) -> Result<Arc<dyn Transport>>;
    /// Sends a datagram. EMSGSIZE, ENETUNREACH, EHOSTUNREACH, ENOBUFS.
    fn send_datagram(
        &self,
        from: Endpoint,
        to: Endpoint,
        data: Buf,
        how: &SendHow,
        extra: &Extra<'_>,
    ) -> Result<()>;
    /// The largest IP packet to a destination, as far as is known (`IP_MTU`).
    fn path_mtu(&self, to: IpAddr, source: Option<IpAddr>, device: u32) -> Result<u32>;
    /// One member more of a group on an interface, or one less. ENOBUFS, ENODEV.
    fn join(&self, group: IpAddr, device: u32) -> Result<()>;
    fn leave(&self, group: IpAddr, device: u32);
    /// Does something with the engine itself: raw sockets, taps, statistics.
    fn engine(&self, act: &mut dyn FnMut(&mut Engine));
    /// Shows a raw socket the packets of a protocol, or a ping socket the answers to an identifier, until what
    /// this gives is dropped.
    fn open_raw(
        &self,
        socket: &Weak<RawSocket>,
        v4: bool,
        protocol: u8,
        ident: Option<u16>,
    ) -> Option<Box<dyn RawWire>>;
    /// Sends a packet of a raw or ping socket; the port of `from` is the identifier of the latter, or 0.
    fn send_raw(
        &self,
        protocol: u8,
        from: Endpoint,
        to: Endpoint,
        data: &[u8],
        how: &SendHow,
        raw: RawHow,
        extra: &Extra<'_>,
    ) -> Result<()>;
}

/// Stands for servers that are no sockets of the stack though their addresses are its own: Docker's name server
/// on the loopback interface of the host's namespace.
pub trait Relay: Send + Sync {
    /// Whether this address is one of those; `taken`: a socket of the stack has it too.
    fn wants(&self, to: Endpoint, taken: bool) -> bool;
    /// A datagram; what it is answered with comes by [`Stack::deliver_datagram`].
    fn datagram(&self, from: Endpoint, to: Endpoint, data: &[u8]) -> Result<()>;
    /// A connection, of which this is the server's end.
    fn connection(&self, far: Arc<dyn Transport>, to: Endpoint) -> Result<()>;
}

/// What keeps a raw socket known to the packet engine.
pub trait RawWire: Send + Sync {}

/// A network stack.
pub struct Stack {
    pub env: Arc<dyn Env>,
    pub pool: Arc<Pool>,
    /// What connections inside the stack have queued.
    pub ledger: Arc<Ledger>,
    pub interfaces: Interfaces,
    pub(crate) counters: Counters,
    pub(crate) tcp_ports: Ports,
    udp_ports: [Ports; 2],
    udp_table: [UdpTable; 2],
    listeners: RwLock<HashMap<u16, Vec<Arc<Listener>>>>,
    tcp: Mutex<BTreeMap<u64, Weak<TcpSocket>>>,
    udp: Mutex<BTreeMap<u64, Weak<UdpSocket>>>,
    raw: Mutex<BTreeMap<u64, Weak<RawSocket>>>,
    next: AtomicU64,
    /// What flow labels are made with.
    pub(crate) flow_key: [u8; 16],
    /// Neighbours of interfaces without a link.
    pub(crate) unlinked: Mutex<Neighbours>,
    wire: RwLock<Option<Arc<dyn Wire>>>,
    relay: RwLock<Option<Arc<dyn Relay>>>,
    listening: OnceLock<Arc<dyn Alarm>>,
}

impl Stack {
    /// A stack with a loopback interface, which is up or not.
    pub fn new(env: Arc<dyn Env>, loopback_up: bool) -> Arc<Stack> {
        let mut flow_key = [0; 16];
        env.random(&mut flow_key);
        Arc::new(Stack {
            env,
            pool: Arc::default(),
            ledger: Arc::default(),
            interfaces: Interfaces::new(loopback_up),
            counters: Counters::default(),
            tcp_ports: Ports::new(Rules::Tcp),
            udp_ports: [Ports::new(Rules::Udp), Ports::new(Rules::Udp)],
            udp_table: Default::default(),
            listeners: RwLock::default(),
            tcp: Mutex::default(),
            udp: Mutex::default(),
            raw: Mutex::default(),
            next: AtomicU64::new(1),
            flow_key,
            unlinked: Mutex::default(),
            wire: RwLock::default(),
            relay: RwLock::default(),
            listening: OnceLock::new(),
        })
    }

    /// A number for a socket.
    pub fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives the stack a way to the outside.
    pub fn set_wire(&self, wire: Arc<dyn Wire>) {
        *self.wire.write().unwrap_or_else(PoisonError::into_inner) = Some(wire);
    }

    /// Gives the stack somebody who stands for servers outside.
    pub fn set_relay(&self, relay: Arc<dyn Relay>) {
        *self.relay.write().unwrap_or_else(PoisonError::into_inner) = Some(relay);
    }

    /// Whom to tell when somebody begins or ends to listen for connections of TCP. Only the first one is told.
    pub fn watch_listeners(&self, alarm: Arc<dyn Alarm>) {
        let _ = self.listening.set(alarm);
    }

    /// The ports on which somebody listens for connections of TCP.
    pub fn listening_ports(&self) -> Vec<u16> {
        self.listeners.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    fn tell_of_listeners(&self) {
        if let Some(alarm) = self.listening.get() {
            alarm.earlier();
        }
    }

    /// Who stands for the server at an address of the stack, if it is none of the stack's sockets.
    pub(crate) fn relay(&self, to: Endpoint, taken: impl FnOnce() -> bool) -> Option<Arc<dyn Relay>> {
        let relay = self.relay.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        relay.wants(to, taken()).then_some(relay)
    }

    /// The ports of UDP or UDP-Lite.
    pub(crate) fn datagram_ports(&self, lite: bool) -> &Ports {
        &self.udp_ports[usize::from(lite)]
    }
    /// The sockets of UDP or UDP-Lite.
    pub(crate) fn datagram_table(&self, lite: bool) -> &UdpTable {
        &self.udp_table[usize::from(lite)]
    }

    pub(crate) fn wire(&self) -> Option<Arc<dyn Wire>> {
        self.wire.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does something with the packet engine, if there is one.
    pub fn with_engine<R>(&self, act: impl FnOnce(&mut Engine) -> R) -> Option<R> {
        let wire = self.wire()?;
        let (mut act, mut result) = (Some(act), None);
        wire.engine(&mut |engine| result = act.take().map(|act| act(engine)));
        result
    }

    pub(crate) fn connect_by_packets(
        &self,
        from: Endpoint,
        to: Endpoint,
        options: BindOptions,
        settings: &StreamOptions,
        waker: Arc<dyn Waker>,
    ) -> Result<Arc<dyn Transport>> {
        self.wire().ok_or(NetError::NetworkUnreachable)?.connect(from, to, options, settings, waker)
    }

    /// The largest packet to an address by what is known now (`IP_MTU`). ENETUNREACH.
    pub fn path_mtu(&self, to: IpAddr, source: Option<IpAddr>, device: u32) -> Result<u32> {
        let route = self.route(to, source, device)?;
        match self.wire().filter(|_| !route.local) {
            Some(wire) => wire.path_mtu(to, source, device),
            None => Ok(route.mtu),
        }
    }

    /// Whether an address is one of this stack.
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.interfaces.local(ip).is_some() || self.interfaces.joined_or_broadcast(ip)
    }

    /// The way to an address: ENETUNREACH.
    pub fn route(&self, to: IpAddr, source: Option<IpAddr>, device: u32) -> Result<Route> {
        self.interfaces.route(to, source, device)
    }

    /// Who comes to a group chooses as the group does, else as `choice` says, which is given back.
    pub(crate) fn add_listener(&self, l: Arc<Listener>, choice: Arc<Choice>) -> Arc<Choice> {
        let mut map = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        let list = map.entry(l.local.port).or_default();
        let group = list.iter().find(|other| other.grouped(&l)).and_then(|other| other.choice.get());
        let choice = group.map_or(choice, Arc::clone);
        let _ = l.choice.set(Arc::clone(&choice));
        list.push(l);
        drop(map);
        self.tell_of_listeners();
        choice
    }

    pub(crate) fn remove_listener(&self, l: &Arc<Listener>) {
        let mut map = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = map.get_mut(&l.local.port) {
            if let Some(at) = list.iter().position(|x| Arc::ptr_eq(x, l)) {
                leave(list, at, |a, b| a.grouped(b));
            }
            if list.is_empty() {
                map.remove(&l.local.port);
            }
        }
        drop(map);
        self.tell_of_listeners();
    }

    /// Who listens at an address; of a group of equals one is chosen by the other end.
    pub fn find_listener(&self, from: Endpoint, to: Endpoint) -> Option<Arc<Listener>> {
        let device = self.interfaces.local(to.ip).unwrap_or(0);
        let map = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        let list = map.get(&to.port)?;
        let fits = |l: &Listener| {
            if l.device != 0 && l.device != device {
                return None;
            }
            if to.ip.is_ipv6() && l.family == Family::V4 {
                return None;
            }
            l.score(to.ip).map(|s| s * 2 + u32::from(l.device != 0))
        };
        let best = list.iter().filter_map(|l| fits(l)).max()?;
        let equal: Vec<&Arc<Listener>> = list.iter().filter(|l| fits(l) == Some(best)).collect();
        let chosen = || equal.first()?.choice.get()?.of_connection(from, to, device, equal.len());
        let i = match equal.iter().all(|l| l.reuse_port) {
            true => chosen().unwrap_or_else(|| spread(from) % equal.len()),
            false => equal.len() - 1,
        };
        equal.get(i).map(|l| Arc::clone(l))
    }

    pub(crate) fn list_tcp(&self, s: &Arc<TcpSocket>) {
        self.tcp.lock().unwrap_or_else(PoisonError::into_inner).insert(s.id, Arc::downgrade(s));
    }
    pub(crate) fn unlist_tcp(&self, id: u64) {
        self.tcp.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
    pub(crate) fn list_udp(&self, s: &Arc<UdpSocket>) {
        self.udp.lock().unwrap_or_else(PoisonError::into_inner).insert(s.id, Arc::downgrade(s));
    }
    pub(crate) fn unlist_udp(&self, id: u64) {
        self.udp.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub(crate) fn list_raw(&self, s: &Arc<RawSocket>) {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner).insert(s.id, Arc::downgrade(s));
    }
    pub(crate) fn unlist_raw(&self, id: u64) {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// All raw and ping sockets, oldest first.
    pub fn raw_sockets(&self) -> Vec<Arc<RawSocket>> {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner).values().filter_map(Weak::upgrade).collect()
    }
    /// All TCP sockets, oldest first.
    pub fn tcp_sockets(&self) -> Vec<Arc<TcpSocket>> {
        self.tcp.lock().unwrap_or_else(PoisonError::into_inner).values().filter_map(Weak::upgrade).collect()
    }
    /// All UDP sockets, oldest first.
    pub fn udp_sockets(&self) -> Vec<Arc<UdpSocket>> {
        self.udp.lock().unwrap_or_else(PoisonError::into_inner).values().filter_map(Weak::upgrade).collect()
    }
    /// Connections in TIME-WAIT: both ends, nanoseconds left.
    pub fn time_wait(&self) -> Vec<(Endpoint, Endpoint, u64)> {
        let list = self.tcp_ports.waiting(&*self.env);
        list.into_iter().filter_map(|(l, r, t)| Some((l, r?, t))).collect()
    }
}

/// A number from an address that spreads clients over a group.
pub(crate) fn spread(e: Endpoint) -> usize {
    let ip = match e.ip {
        IpAddr::V4(a) => u64::from(u32::from(a)),
        IpAddr::V6(a) => (u128::from(a) >> 64) as u64 ^ u128::from(a) as u64,
    };
    let mixed = (ip ^ (u64::from(e.port) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as usize
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stack")
    }
}
