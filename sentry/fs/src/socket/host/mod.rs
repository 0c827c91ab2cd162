//! `--network=host`: TCP, UDP, UDP-Lite and ping sockets of the host's network namespace behind the same calls. A guest's address, option
//! or flag is parsed and written anew for the host, never handed on; what is not in the tables is refused here, and once
//! more by the sentry's own filter.

mod options;
mod receive;
pub mod settings;
pub mod tables;

pub use options::{SETTABLE, Settable};

use super::inet::address::{self, to_bind, to_reach};
use super::inet::control::{SendControl, send_control};
use super::inet::options::{SOL_IP, SOL_TCP, ip, number, tcp};
use super::inet::{
    Completions, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, InetFamily,
    SIOCINQ, SIOCOUTQ, answer, directions, may_bind, may_ping, stack_for, stack_of,
};
use super::{Family as FamilyTrait, Received, SendArgs, SockOptions, SocketOps, Speaks};
use abi::poll::PollEvents;
use abi::socket::{
    AF_UNSPEC, MSG_DONTROUTE, MSG_EOR, MSG_MORE, MSG_NOSIGNAL, MSG_OOB, MSG_ZEROCOPY, SHUT_WR, SOCK_DGRAM,
    SOCK_RAW, SOCK_STREAM, SOL_SOCKET, so,
};
use abi::{Errno, Result};
use kernel::io::Sink;
use kernel::vfs::Caller;
use kernel::{Kernel, SysResult, Task};
use ksync::{LockClass, Mutex, WaitQueue};
use netstack::{Endpoint, Family, Stack};
use platform::hostsys::datagram;
use platform::hostsys::edges::{Edge, Edges, Side, Watch};
use platform::hostsys::inet::{self, Kind};
use platform::hostsys::poller::ready_now;
use settings::Settings;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tables::Tables;

/// The largest piece of a stream that is copied at once; a datagram is never larger.
const PIECE: usize = 64 << 10;
/// What Linux copies at once into the queue of a stream, at most (`SKB_FRAG_PAGE_ORDER`).
const PART: usize = 32 << 10;

/// Makes sockets of the host for tasks in the sandbox's first network namespace; others have stacks of their own.
pub struct HostFamily {
    family: Family,
    stack: Arc<Stack>,
    place: Place,
}

/// Where all sockets are known.
#[derive(Clone)]
struct Place {
    edges: Arc<Edges>,
    tables: Arc<Tables>,
    settings: Arc<Settings>,
}

/// Has the sandbox use the host's sockets from now on. To be called before any guest runs, and before the filter is there.
pub fn register(kernel: &Arc<Kernel>, net: &kernel::task::OtherNamespace) -> std::io::Result<()> {
    let families = super::Families::of(kernel);
    let place = Place { edges: Edges::new()?, tables: Tables::of(kernel), settings: Settings::of(kernel) };
    for (number, family) in [(abi::socket::AF_INET, Family::V4), (abi::socket::AF_INET6, Family::V6)] {
        let (stack, place) = (stack_of(kernel, net), place.clone());
        families.register(number, Arc::new(HostFamily { family, stack, place }));
    }
    Ok(())
}

impl FamilyTrait for HostFamily {
    fn create(&self, cx: &Caller<'_>, kind: i32, protocol: i32) -> Result<(Arc<dyn SocketOps>, i32)> {
        let ping = if self.family == Family::V4 { IPPROTO_ICMP } else { IPPROTO_ICMPV6 };
        let own = stack_for(cx).is_some_and(|stack| !Arc::ptr_eq(&stack, &self.stack));
        let (kind, protocol) = match (kind, protocol) {
            _ if own => return InetFamily(self.family).create(cx, kind, protocol),
            (SOCK_STREAM, 0 | IPPROTO_TCP) => (Kind::Tcp, IPPROTO_TCP),
            (SOCK_DGRAM, 0 | IPPROTO_UDP) => (Kind::Udp, IPPROTO_UDP),
            (SOCK_DGRAM, IPPROTO_UDPLITE) => (Kind::UdpLite, IPPROTO_UDPLITE),
            (SOCK_DGRAM, n) if n == ping && !may_ping(cx) => return Err(Errno::EACCES),
            (SOCK_DGRAM, n) if n == ping => (Kind::Ping, ping),
            // The host would want a right of the sentry's for it, which it does not have.
            (SOCK_RAW, 1..=255) => return Err(Errno::EPERM),
            (SOCK_STREAM | SOCK_DGRAM, 1..=262) => return Err(Errno::EPROTONOSUPPORT),
            // What is wrong everywhere.
            _ => return InetFamily(self.family).create(cx, kind, protocol),
        };
        let fd = inet::open(self.family == Family::V6, kind).map_err(|e| Errno::from_host(&e))?;
        let options = match kind {
            Kind::Tcp => SockOptions::with_buffers(Speaks::Internet(true), 16384, 131_072),
            Kind::Udp | Kind::UdpLite | Kind::Ping => SockOptions::new(Speaks::Internet(false)),
        };
        if let Some(task) = cx.task {
            self.place.settings.apply(&task.kernel().sysctls, &fd, self.family, kind);
        }
        let uid = cx.creds.euid;
        Ok((Arc::new(HostSocket::new(fd, self.family, kind, &self.place, uid, options)), protocol))
    }
}

struct News {
    queue: Arc<WaitQueue>,
    /// An urgent byte was told of and is still there.
    urgent: AtomicBool,
}

impl Edge for News {
    fn news(&self, events: u16) {
        let mut events = PollEvents::from_bits_truncate(events.into());
        // Each time something comes, the host tells of all that is there: of one urgent byte once.
        if self.urgent.swap(events.contains(PollEvents::PRI), Ordering::Relaxed) {
            events -= PollEvents::PRI;
        }
        self.queue.wake_all(events.bits());
    }

    fn idle(&self) -> bool {
        self.queue.is_empty()
    }
}

/// A socket of the host.
pub struct HostSocket {
    fd: Arc<OwnedFd>,
    family: Family,
    kind: Kind,
    options: Arc<SockOptions>,
    queue: Arc<WaitQueue>,
    place: Place,
    /// Of who made it, and the number that the sandbox knows it by.
    uid: u32,
    ino: AtomicU64,
    watch: Watch,
    listening: AtomicBool,
    /// Nothing is to be received any more.
    shut: AtomicBool,
    /// Control messages were asked for.
    tells: AtomicBool,
    /// `TCP_INQ`
    tells_left: AtomicBool,
    /// Who connected, of a socket that was accepted: also if the connection is gone already.
    accepted: Option<SocketAddr>,
    /// What was received of a stream and could not be written to the guest's memory.
    given_back: Mutex<Vec<u8>>,
    /// Sends with `MSG_ZEROCOPY`.
    copies: Completions,
}

fn host<T>(result: std::io::Result<T>) -> Result<T> {
    result.map_err(|e| Errno::from_host(&e))
}

/// An address as a socket of that family is told it: one of IPv6 knows IPv4 as mapped addresses.
fn to_host(family: Family, e: Endpoint) -> SocketAddr {
    match (e.ip, family) {
        (IpAddr::V4(_), Family::V4) => SocketAddr::new(e.ip, e.port),
        (IpAddr::V4(ip), Family::V6) => SocketAddr::new(ip.to_ipv6_mapped().into(), e.port),
        (IpAddr::V6(ip), _) => SocketAddrV6::new(ip, e.port, 0, e.scope).into(),
    }
}

fn to_guest(address: SocketAddr) -> Endpoint {
    let mut e = Endpoint::new(address.ip(), address.port());
    if let SocketAddr::V6(v6) = address {
        e.scope = v6.scope_id();
    }
    e
}

impl HostSocket {
    fn new(
        fd: OwnedFd,
        family: Family,
        kind: Kind,
        place: &Place,
        uid: u32,
        options: SockOptions,
    ) -> HostSocket {
        let (fd, queue) = (Arc::new(fd), Arc::new(WaitQueue::new()));
        let news = News { queue: Arc::clone(&queue), urgent: AtomicBool::new(false) };
        HostSocket {
            watch: place.edges.enter(&fd, Arc::new(news)),
            fd,
            family,
            kind,
            options: Arc::new(options),
            queue,
            place: place.clone(),
            uid,
            ino: AtomicU64::new(0),
            listening: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            tells: AtomicBool::new(false),
            tells_left: AtomicBool::new(false),
            accepted: None,
            given_back: Mutex::new(LockClass::Leaf, Vec::new()),
            copies: Completions::default(),
        }
    }

    fn stream(&self) -> bool {
        self.kind == Kind::Tcp
    }

    fn is_udp(&self) -> bool {
        matches!(self.kind, Kind::Udp | Kind::UdpLite)
    }

    /// Has news of a side told to who listens, if anybody does. True if that has just begun: what is there already has to be
    /// looked for once more.
    fn begin(&self, side: Side) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        self.watch.begin(side).unwrap_or_else(|e| {
            tracing::warn!("cannot watch a socket of the host: {e}");
            false
        })
    }

    /// The result of a host call; if it would have to wait, news are asked for.
    fn later<T>(&self, side: Side, mut call: impl FnMut() -> std::io::Result<T>) -> Result<T> {
        let result = host(call());
        if matches!(result, Err(Errno::EAGAIN)) && self.begin(side) {
            return host(call());
        }
        result
    }

    fn now(&self, events: PollEvents) -> PollEvents {
        let asked = u16::try_from(events.bits() & 0xffff).unwrap_or(0);
        PollEvents::from_bits_truncate(u32::from(ready_now(&*self.fd, asked)))
    }

    /// Whether there is room to send; news of it are asked for if not.
    fn has_room(&self) -> bool {
        let full = || self.now(PollEvents::OUT).is_empty();
        !full() || (self.begin(Side::Out) && !full())
    }

    /// Sends a datagram with what a sender's control messages say.
    fn send_with(
        &self,
        data: &[u8],
        to: Option<SocketAddr>,
        flags: u32,
        with: &SendControl,
    ) -> std::io::Result<usize> {
        let peer = || inet::peer_name(&*self.fd).ok().flatten();
        // On a socket of IPv6 a datagram to a mapped address goes by IPv4, and so does what is said with it.
        let v6 = self.family == Family::V6
            && to
                .or_else(peer)
                .is_some_and(|to| matches!(to.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_none()));
        datagram::send(&*self.fd, data, to, v6, flags, with)
    }

    fn encode(&self, address: SocketAddr) -> Vec<u8> {
        address::encode(self.family, to_guest(address))
    }

    /// A send with `MSG_ZEROCOPY` is done: its bytes were copied.
    fn sent_zerocopy(&self, flags: u32) {
        if flags & MSG_ZEROCOPY != 0 && self.options.zerocopy() {
            self.copies.done();
            self.queue.wake(PollEvents::ERR.bits());
        }
    }
}

impl SocketOps for HostSocket {
    fn options(&self) -> &Arc<SockOptions> {
        &self.options
    }

    fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }

    fn poll(&self, _cx: &Caller<'_>) -> PollEvents {
        let want = PollEvents::IN
            | PollEvents::RDNORM
            | PollEvents::PRI
            | PollEvents::RDHUP
            | PollEvents::OUT
            | PollEvents::WRNORM;
        let mut ready = self.now(want);
        let incoming = self.begin(Side::In);
        if (!ready.contains(PollEvents::OUT) && self.begin(Side::Out)) || incoming {
            ready = self.now(want);
        }
        if self.copies.waiting() {
            ready |= PollEvents::ERR;
        }
        if !self.given_back.lock().is_empty() {
            ready |= PollEvents::IN | PollEvents::RDNORM;
        }
        if self.options.select_err_queue() && ready.contains(PollEvents::ERR) {
            ready |= PollEvents::PRI;
        }
        ready
    }

    fn attach(&self, ino: u64) {
        self.ino.store(ino, Ordering::Relaxed);
        self.place.tables.enter(&self.fd, (ino, self.uid));
    }

    fn listened_to(&self) {
        let _ = self.begin(Side::In);
        let _ = self.begin(Side::Out);
    }

    fn bind(&self, cx: &Caller<'_>, addr: &[u8]) -> Result<()> {
        let to = to_bind(self.family, addr)?;
        if self.kind != Kind::Ping && !may_bind(cx, to.port) {
            return Err(Errno::EACCES);
        }
        let to = to_host(self.family, to);
        let settings = &self.place.settings;
        let anywhere = cx.task.and_then(|task| settings.anywhere(&task.kernel().sysctls, self.family));
        let Some((level, name)) = anywhere else { return host(inet::bind(&*self.fd, to)) };
        let was = host(inet::option(&*self.fd, level, name, 4))?;
        host(inet::set_option(&*self.fd, level, name, &1i32.to_ne_bytes()))?;
        let result = host(inet::bind(&*self.fd, to));
        // The guest has not asked for it on this socket.
        host(inet::set_option(&*self.fd, level, name, &was))?;
        result
    }

    fn listen(&self, _cx: &Caller<'_>, backlog: u32) -> Result<()> {
        if !self.stream() {
            return Err(Errno::EOPNOTSUPP);
        }
        host(inet::listen(&*self.fd, i32::try_from(backlog).unwrap_or(i32::MAX)))?;
        self.listening.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn connect(&self, _cx: &Caller<'_>, addr: &[u8], _wait_on: &mut Option<Arc<WaitQueue>>) -> Result<()> {
        if address::family_of(addr)? == AF_UNSPEC {
            self.listening.store(false, Ordering::Relaxed);
            return host(inet::disconnect(&*self.fd));
        }
        let to = to_host(self.family, to_reach(self.family, addr, self.is_udp())?);
        let result = host(inet::connect_now(&*self.fd, to));
        if matches!(result, Err(Errno::EINPROGRESS | Errno::EALREADY)) {
            // Whoever waits for the end of it looks again.
            let _ = self.begin(Side::Out);
        }
        result
    }

    fn connect_finish(&self, _cx: &Caller<'_>) -> Result<()> {
        if !self.has_room() {
            return Err(Errno::EAGAIN);
        }
        // The host is asked by the same call as before, so that it knows that its answer was heard; the address does not matter
        // any more. After a failure the socket is as new.
        let any = to_host(self.family, Endpoint::any(self.family));
        match host(inet::connect_now(&*self.fd, any)) {
            Err(Errno::EISCONN) => Ok(()),
            Err(Errno::EALREADY | Errno::EINPROGRESS) => Err(Errno::EAGAIN),
            other => other,
        }
    }

    fn accept(&self, _cx: &Caller<'_>) -> Result<Arc<dyn SocketOps>> {
        let (fd, from) = self.later(Side::In, || inet::accept(&*self.fd))?;
        let options = self.options.inherit();
        let mut new = HostSocket::new(fd, self.family, self.kind, &self.place, self.uid, options);
        new.accepted = from;
        // The host's new socket has these from the one that listens.
        new.tells = AtomicBool::new(self.tells.load(Ordering::Relaxed));
        new.tells_left = AtomicBool::new(self.tells_left.load(Ordering::Relaxed));
        Ok(Arc::new(new))
    }

    fn accepted_from(&self) -> Result<Vec<u8>> {
        self.accepted.map_or_else(|| self.peer_name(), |from| Ok(self.encode(from)))
    }

    fn name(&self) -> Result<Vec<u8>> {
        Ok(self.encode(host(inet::own_name(&*self.fd))?.ok_or(Errno::EINVAL)?))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        Ok(self.encode(host(inet::peer_name(&*self.fd))?.ok_or(Errno::ENOTCONN)?))
    }

    fn send(&self, cx: &Caller<'_>, args: &mut SendArgs<'_>) -> Result<usize> {
        let with = send_control(self.family, &args.control)?;
        if with.mark.is_some() || with.priority.is_some() {
            return Err(Errno::EINVAL);
        }
        let udp = self.is_udp();
        let to = match args.to {
            // An address without a family is none, for a socket of IPv6.
            Some(raw) if udp && self.family == Family::V6 && address::family_of(raw)? == AF_UNSPEC => None,
            Some(raw) if !self.stream() => Some(to_host(self.family, to_reach(self.family, raw, udp)?)),
            _ => None,
        };
        let flags = args.flags & (MSG_OOB | MSG_DONTROUTE | MSG_EOR | MSG_MORE);
        // One that listens never gets room; the host says what is wrong.
        if self.stream() && !self.is_listening() && !self.has_room() {
            return Err(Errno::EAGAIN);
        }
        if !self.stream() {
            let data = args.data.take_all(PIECE)?;
            let sent = self.later(Side::Out, || match args.control.is_empty() {
                true => inet::send_to(&*self.fd, &data, to, flags),
                false => self.send_with(&data, to, flags, &with),
            })?;
            self.sent_zerocopy(args.flags);
            return Ok(sent);
        }
        let mut done = 0;
        let mut buffer = vec![0; args.data.remaining().min(PIECE)];
        while args.data.remaining() > 0 {
            let want = args.data.remaining().min(PIECE);
            // Only what the host takes leaves the source.
            let sent = args.data.offer(&mut buffer[..want], &mut |data| {
                // Of a part that cannot be read whole Linux sends nothing.
                let end = if data.len() < want { data.len() - data.len() % PART } else { want };
                if end == 0 {
                    return Err(Errno::EFAULT);
                }
                host(inet::send_to(&*self.fd, &data[..end], None, flags))
            });
            match sent {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                // There may be room again by now.
                Err(Errno::EAGAIN) if self.begin(Side::Out) => {}
                Err(e) => {
                    if e == Errno::EPIPE && args.flags & MSG_NOSIGNAL == 0 {
                        crate::sigpipe(cx);
                    }
                    return Err(e);
                }
            }
        }
        self.sent_zerocopy(args.flags);
        Ok(done)
    }

    fn receive(&self, _cx: &Caller<'_>, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        self.take(dst, flags)
    }

    fn shutdown(&self, _cx: &Caller<'_>, how: i32) -> Result<()> {
        directions(how)?;
        host(inet::shutdown(&*self.fd, how))?;
        if how != SHUT_WR {
            self.shut.store(true, Ordering::Relaxed);
            // That is the end of listening.
            self.listening.store(false, Ordering::Relaxed);
        }
        self.queue.wake_all(u32::MAX);
        Ok(())
    }

    fn getsockopt(&self, _cx: &Caller<'_>, level: i32, name: i32, want: usize) -> Result<Vec<u8>> {
        match (level, name) {
            // No protocol is put upon another, and there is no list of options in the header.
            (SOL_TCP, tcp::ULP) if self.stream() => return Ok(Vec::new()),
            (SOL_IP, ip::OPTIONS) => return Ok(Vec::new()),
            (SOL_TCP, tcp::INQ) if self.stream() => {
                return Ok(i32::from(self.tells_left.load(Ordering::Relaxed)).to_ne_bytes().to_vec());
            }
            (SOL_SOCKET, _) if !options::readable(level, name) => return Err(Errno::EOPNOTSUPP),
            _ if !options::readable(level, name) => {
                return Err(options::unknown(self.family, self.stream(), level));
            }
            _ => {}
        }
        host(inet::option(&*self.fd, level, name, want.min(256)))
    }

    fn getsockopt_of(&self, level: i32, name: i32, asked: &[u8]) -> Result<Vec<u8>> {
        let list = options::source_list(level, name);
        let (head, count) = options::head_of(list, asked)?;
        host(inet::sources(&*self.fd, list, &head, count))
    }

    fn setsockopt(&self, _cx: &Caller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        match (level, name) {
            (SOL_TCP, tcp::ULP) if self.stream() => return Err(Errno::ENOENT),
            (SOL_IP, ip::OPTIONS) if value.is_empty() => return Ok(()),
            (SOL_IP, ip::ROUTER_ALERT) => return Err(Errno::EINVAL),
            (SOL_TCP, tcp::INQ) if self.stream() => {
                let on = match number(level, value)? {
                    on @ (0 | 1) => on != 0,
                    _ => return Err(Errno::EINVAL),
                };
                self.tells_left.store(on, Ordering::Relaxed);
                return Ok(());
            }
            _ => {}
        }
        let Some(settable) = options::settable(level, name) else {
            return Err(if level == SOL_SOCKET { Errno::EOPNOTSUPP } else { Errno::ENOPROTOOPT });
        };
        host(inet::set_option(&*self.fd, level, name, &settable.checked(self.family, value)?))?;
        if options::asks_to_tell(level, name) {
            self.tells.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn option_changed(&self, name: i32) {
        if matches!(
            name,
            so::TIMESTAMP
                | so::TIMESTAMPNS
                | so::TIMESTAMPING
                | so::TIMESTAMP_NEW
                | so::TIMESTAMPNS_NEW
                | so::TIMESTAMPING_NEW
        ) {
            // The host tells the time of each in the one form that is read here.
            let on = self.options.get(name).is_some_and(|value| value.iter().any(|byte| *byte != 0));
            let value = i32::from(on).to_ne_bytes();
            if let Err(e) = inet::set_option(&*self.fd, SOL_SOCKET, so::TIMESTAMPNS, &value) {
                tracing::debug!("the time stamps of a socket of the host: {e}");
            }
            self.tells.store(true, Ordering::Relaxed);
            return;
        }
        // What concerns the sentry alone (timeouts, credentials) is not in the table.
        if let (Some(_), Some(value)) = (options::settable(SOL_SOCKET, name), self.options.get(name)) {
            let value = options::as_set(name, value);
            if let Err(e) = inet::set_option(&*self.fd, SOL_SOCKET, name, &value) {
                tracing::debug!("SO_ option {name} of a socket of the host: {e}");
            }
            if options::asks_to_tell(SOL_SOCKET, name) {
                self.tells.store(true, Ordering::Relaxed);
            }
        }
    }

    fn take_error(&self) -> Option<Errno> {
        inet::take_error(&*self.fd).map(|e| Errno::from_host(&e))
    }

    fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    fn ioctl(&self, task: &Task, cmd: u32, arg: u64) -> SysResult {
        const SIOCATMARK: u32 = 0x8905;
        const SIOCOUTQNSD: u32 = 0x894b;
        let n = match cmd {
            SIOCINQ => {
                let there = host(inet::readable(&*self.fd))?;
                usize::try_from(there).unwrap_or(usize::MAX).saturating_add(self.given_back.lock().len())
            }
            SIOCOUTQ => host(inet::unsent(&*self.fd))? as usize,
            SIOCOUTQNSD if self.stream() => host(inet::not_sent(&*self.fd))? as usize,
            SIOCATMARK if self.stream() => usize::from(host(inet::at_mark(&*self.fd))?),
            _ => {
                kernel::gap!(task.kernel(), "ioctl of a socket of the host", cmd);
                return Err(Errno::ENOTTY.into());
            }
        };
        answer(task, arg, n)
    }

    fn is_stream(&self) -> bool {
        self.stream()
    }

    fn release(&self) {
        // The descriptor closes with its last owner, and who watches it is one.
        self.watch.end();
        self.place.tables.leave(self.ino.load(Ordering::Relaxed));
        self.queue.wake_all(u32::MAX);
    }
}
