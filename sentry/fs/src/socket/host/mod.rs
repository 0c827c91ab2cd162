//! `--network=host`: TCP and UDP sockets of the host's network namespace behind the same calls. A guest's address, option or
//! flag is parsed and written anew for the host, never handed on; what is not in the tables is refused here, and once
//! more by the sentry's own filter.

mod options;

pub use options::{SETTABLE, Settable};

use super::inet::address::{self, to_bind, to_reach};
use super::inet::control::{SendControl, pktinfo4, pktinfo6, send_control};
use super::inet::options::{SOL_IP, SOL_IPV6, SOL_UDP, ip, ipv6, udp};
use super::inet::{InetFamily, stack_for, stack_of};
use super::{ControlMessage, Family as FamilyTrait, Received, SendArgs, SockOptions, SocketOps, Speaks};
use abi::poll::PollEvents;
use abi::socket::{
    AF_UNSPEC, MSG_DONTROUTE, MSG_DONTWAIT, MSG_EOR, MSG_MORE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC,
    SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, so,
};
use abi::{Errno, Result};
use kernel::io::Sink;
use kernel::uaccess::UserPtr;
use kernel::vfs::Caller;
use kernel::{Kernel, SysResult, Task};
use ksync::WaitQueue;
use netstack::{Endpoint, Family, Stack};
use platform::hostsys::datagram::{self, Told};
use platform::hostsys::inet;
use platform::hostsys::poller::{Poller, Ready, ready_now};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const IPPROTO_TCP: i32 = 6;
const IPPROTO_UDP: i32 = 17;
/// The largest piece of a stream that is copied at once; a datagram is never larger.
const PIECE: usize = 64 << 10;

/// Makes sockets of the host for tasks in the sandbox's first network namespace; others have stacks of their own.
pub struct HostFamily {
    family: Family,
    stack: Arc<Stack>,
}

/// Has the sandbox use the host's sockets from now on. To be called before any guest runs.
pub fn register(kernel: &Arc<Kernel>, net: &kernel::task::OtherNamespace) {
    let families = super::Families::of(kernel);
    for (number, family) in [(abi::socket::AF_INET, Family::V4), (abi::socket::AF_INET6, Family::V6)] {
        families.register(number, Arc::new(HostFamily { family, stack: stack_of(kernel, net) }));
    }
}

impl FamilyTrait for HostFamily {
    fn create(&self, cx: &Caller<'_>, kind: i32, protocol: i32) -> Result<(Arc<dyn SocketOps>, i32)> {
        let own = stack_for(cx).is_some_and(|stack| !Arc::ptr_eq(&stack, &self.stack));
        let stream = match (kind, protocol) {
            (SOCK_STREAM, 0 | IPPROTO_TCP) => true,
            (SOCK_DGRAM, 0 | IPPROTO_UDP) => false,
            // What the host would not do for the sandbox: raw sockets and other protocols.
            (SOCK_STREAM | SOCK_DGRAM, 1..=262) if !own => return Err(Errno::EPROTONOSUPPORT),
            _ => return InetFamily(self.family).create(cx, kind, protocol),
        };
        if own {
            return InetFamily(self.family).create(cx, kind, protocol);
        }
        let task = cx.task.ok_or(Errno::EAFNOSUPPORT)?;
        let fd = inet::open(self.family == Family::V6, stream).map_err(|e| Errno::from_host(&e))?;
        let poller = task.kernel().extensions.get_or_init(Poller::default);
        let options = match stream {
            true => SockOptions::with_buffers(Speaks::Internet(true), 16384, 131_072),
            false => SockOptions::new(Speaks::Internet(false)),
        };
        let socket = HostSocket::new(fd, self.family, stream, poller, options);
        Ok((socket, if stream { IPPROTO_TCP } else { IPPROTO_UDP }))
    }
}

struct News(Arc<WaitQueue>);

impl Ready for News {
    fn ready(&self, events: u16) {
        self.0.wake_all(u32::from(events) | PollEvents::UNASKED.bits());
    }
}

/// A socket of the host.
pub struct HostSocket {
    fd: Arc<OwnedFd>,
    family: Family,
    stream: bool,
    options: Arc<SockOptions>,
    queue: Arc<WaitQueue>,
    news: Arc<dyn Ready>,
    poller: Arc<Poller>,
    listening: AtomicBool,
    /// Nothing is to be received any more.
    shut: AtomicBool,
    /// Control messages were asked for.
    tells: AtomicBool,
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
        stream: bool,
        poller: Arc<Poller>,
        options: SockOptions,
    ) -> Arc<HostSocket> {
        let queue = Arc::new(WaitQueue::new());
        let news: Arc<dyn Ready> = Arc::new(News(Arc::clone(&queue)));
        Arc::new(HostSocket {
            fd: Arc::new(fd),
            family,
            stream,
            options: Arc::new(options),
            queue,
            news,
            poller,
            listening: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            tells: AtomicBool::new(false),
        })
    }

    fn arm(&self, events: PollEvents) {
        let events = u16::try_from(events.bits() & 0xffff).unwrap_or(0);
        if let Err(e) = self.poller.arm(&self.fd, events, &self.news) {
            tracing::warn!("cannot watch a socket of the host: {e}");
        }
    }

    /// The result of a host call; if it would have to wait, news are asked for first.
    fn later<T>(&self, events: PollEvents, result: std::io::Result<T>) -> Result<T> {
        let result = host(result);
        if matches!(result, Err(Errno::EAGAIN)) {
            self.arm(events);
        }
        result
    }

    fn now(&self, events: PollEvents) -> PollEvents {
        let asked = u16::try_from(events.bits() & 0xffff).unwrap_or(0);
        PollEvents::from_bits_truncate(u32::from(ready_now(&*self.fd, asked)))
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

    /// Control messages of what the host tells of a datagram.
    fn tell(&self, told: &[Told], out: &mut Vec<ControlMessage>) {
        for one in told {
            match *one {
                Told::Time(ns) => self.options.stamp(ns, out),
                Told::Packet4(device, local, to) => out.push(pktinfo4(device, local, to)),
                Told::Packet6(device, to) => out.push(pktinfo6(device, to.into())),
                Told::Ttl(n) => out.push(ControlMessage::int(SOL_IP, ip::TTL, n)),
                Told::Tos(n) => out.push(ControlMessage { level: SOL_IP, kind: ip::TOS, data: vec![n] }),
                Told::HopLimit(n) => out.push(ControlMessage::int(SOL_IPV6, ipv6::HOPLIMIT, n)),
                Told::TrafficClass(n) => out.push(ControlMessage::int(SOL_IPV6, ipv6::TCLASS, n)),
                Told::Segment(n) => out.push(ControlMessage::int(SOL_UDP, udp::GRO, n)),
            }
        }
    }

    fn encode(&self, address: SocketAddr) -> Vec<u8> {
        address::encode(self.family, to_guest(address))
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
        let ready = self.now(want);
        let missing = want - ready;
        if !missing.is_empty() && !self.queue.is_empty() {
            self.arm(missing);
        }
        ready
    }

    fn bind(&self, _cx: &Caller<'_>, addr: &[u8]) -> Result<()> {
        host(inet::bind(&*self.fd, to_host(self.family, to_bind(self.family, addr)?)))
    }

    fn listen(&self, _cx: &Caller<'_>, backlog: u32) -> Result<()> {
        if !self.stream {
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
        let to = to_host(self.family, to_reach(self.family, addr, !self.stream)?);
        let result = host(inet::connect_now(&*self.fd, to));
        if matches!(result, Err(Errno::EINPROGRESS | Errno::EALREADY)) {
            self.arm(PollEvents::OUT);
        }
        result
    }

    fn connect_finish(&self, _cx: &Caller<'_>) -> Result<()> {
        if self.now(PollEvents::OUT).is_empty() {
            self.arm(PollEvents::OUT);
            return Err(Errno::EAGAIN);
        }
        // The host is asked by the same call as before, so that it knows that its answer was heard; the address does not matter
        // any more. After a failure the socket is as new.
        let any = to_host(self.family, Endpoint::any(self.family));
        match host(inet::connect_now(&*self.fd, any)) {
            Err(Errno::EISCONN) => Ok(()),
            Err(Errno::EALREADY | Errno::EINPROGRESS) => {
                self.arm(PollEvents::OUT);
                Err(Errno::EAGAIN)
            }
            other => other,
        }
    }

    fn accept(&self, _cx: &Caller<'_>) -> Result<Arc<dyn SocketOps>> {
        let (fd, _) = self.later(PollEvents::IN, inet::accept(&*self.fd))?;
        let poller = Arc::clone(&self.poller);
        Ok(HostSocket::new(fd, self.family, true, poller, self.options.inherit()))
    }

    fn name(&self) -> Result<Vec<u8>> {
        Ok(self.encode(host(inet::own_name(&*self.fd))?.ok_or(Errno::EINVAL)?))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        Ok(self.encode(host(inet::peer_name(&*self.fd))?.ok_or(Errno::ENOTCONN)?))
    }

    fn send(&self, cx: &Caller<'_>, args: &mut SendArgs<'_>) -> Result<usize> {
        let with = send_control(self.family, &args.control)?;
        let to = match args.to {
            Some(raw) if !self.stream => Some(to_host(self.family, to_reach(self.family, raw, true)?)),
            _ => None,
        };
        let flags = args.flags & (MSG_OOB | MSG_DONTROUTE | MSG_EOR | MSG_MORE);
        // One that listens never gets room; the host says what is wrong.
        if self.stream && !self.is_listening() && self.now(PollEvents::OUT).is_empty() {
            self.arm(PollEvents::OUT);
            return Err(Errno::EAGAIN);
        }
        if !self.stream {
            let data = args.data.take_all(PIECE)?;
            let sent = if args.control.is_empty() {
                inet::send_to(&*self.fd, &data, to, flags)
            } else {
                self.send_with(&data, to, flags, &with)
            };
            return self.later(PollEvents::OUT, sent);
        }
        let mut done = 0;
        while args.data.remaining() > 0 {
            // Only what the host takes leaves the source.
            let sent = args.data.drain_with(PIECE, &mut |blocks| {
                let mut piece = Vec::new();
                for block in blocks {
                    let at = piece.len();
                    piece.resize(at + block.len(), 0);
                    let got = block.read_partial(0, &mut piece[at..]);
                    piece.truncate(at + got);
                    if got < block.len() {
                        break;
                    }
                }
                if piece.is_empty() {
                    return Err(Errno::EFAULT);
                }
                host(inet::send_to(&*self.fd, &piece, None, flags))
            });
            match sent {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(Errno::EAGAIN) => {
                    self.arm(PollEvents::OUT);
                    return Err(Errno::EAGAIN);
                }
                Err(e) => {
                    if e == Errno::EPIPE && args.flags & MSG_NOSIGNAL == 0 {
                        crate::sigpipe(cx);
                    }
                    return Err(e);
                }
            }
        }
        Ok(done)
    }

    fn receive(&self, _cx: &Caller<'_>, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        let room = dst.remaining().min(PIECE);
        let mut buffer = vec![0; room];
        let kept = flags & (MSG_OOB | MSG_PEEK);
        let mut control = Vec::new();
        let got = if self.tells.load(Ordering::Relaxed) {
            datagram::receive(&*self.fd, &mut buffer, kept).map(|message| {
                self.tell(&message.told, &mut control);
                (message.count, message.length, message.from)
            })
        } else {
            inet::receive_from(&*self.fd, &mut buffer, kept, !self.stream)
        };
        // Who waits at a socket that is shut for datagrams hears of the end, who does not wait of nothing.
        let ended = !self.stream && self.shut.load(Ordering::Relaxed) && flags & MSG_DONTWAIT == 0;
        let got = match got {
            Err(error) if ended && error.kind() == std::io::ErrorKind::WouldBlock => {
                return Ok(Received::default());
            }
            got => self.later(PollEvents::IN, got),
        };
        let (count, length, from) = got?;
        let data = buffer.get(..count).unwrap_or_default();
        // Of a stream, what is cut off is not given to anybody.
        let dropped = self.stream && flags & MSG_TRUNC != 0 && flags & MSG_OOB == 0;
        let copied = if data.is_empty() || dropped { count } else { dst.put(data)? };
        let cut = !self.stream && length > count;
        Ok(Received {
            len: if cut && flags & MSG_TRUNC != 0 { length } else { copied },
            from: from.filter(|_| !self.stream).map(|from| self.encode(from)),
            flags: if cut { MSG_TRUNC } else { 0 },
            control,
            may_continue: self.stream && count > 0 && kept == 0 && !dropped,
            ..Received::default()
        })
    }

    fn shutdown(&self, _cx: &Caller<'_>, how: i32) -> Result<()> {
        if !(0..=2).contains(&how) {
            return Err(Errno::EINVAL);
        }
        host(inet::shutdown(&*self.fd, how))?;
        if how != 1 {
            self.shut.store(true, Ordering::Relaxed);
        }
        self.queue.wake_all(u32::MAX);
        Ok(())
    }

    fn getsockopt(&self, _cx: &Caller<'_>, level: i32, name: i32, want: usize) -> Result<Vec<u8>> {
        if !options::readable(level, name) {
            return Err(if level == SOL_SOCKET { Errno::EOPNOTSUPP } else { Errno::ENOPROTOOPT });
        }
        host(inet::option(&*self.fd, level, name, want.min(256)))
    }

    fn setsockopt(&self, _cx: &Caller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let Some(settable) = options::settable(level, name) else {
            return Err(if level == SOL_SOCKET { Errno::EOPNOTSUPP } else { Errno::ENOPROTOOPT });
        };
        host(inet::set_option(&*self.fd, level, name, settable.checked(value)?))?;
        if !self.stream && options::asks_to_tell(level, name) {
            self.tells.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn option_changed(&self, name: i32) {
        if matches!(name, so::TIMESTAMP | so::TIMESTAMPNS | so::TIMESTAMPING) && !self.stream {
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
        }
    }

    fn take_error(&self) -> Option<Errno> {
        inet::take_error(&*self.fd).map(|e| Errno::from_host(&e))
    }

    fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    fn ioctl(&self, task: &Task, cmd: u32, arg: u64) -> SysResult {
        const FIONREAD: u32 = 0x541b;
        if cmd != FIONREAD {
            kernel::gap!(task.kernel(), "ioctl of a socket of the host", cmd);
            return Err(Errno::ENOTTY.into());
        }
        let count = host(inet::readable(&*self.fd))?;
        UserPtr::new(arg).write(&task.mm(), &i32::try_from(count).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn is_stream(&self) -> bool {
        self.stream
    }

    fn release(&self) {
        // The descriptor closes with its last owner, and who watches it is one.
        self.poller.forget(&self.fd);
        self.queue.wake_all(u32::MAX);
    }
}
