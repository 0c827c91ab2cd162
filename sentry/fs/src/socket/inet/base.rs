//! What TCP, UDP and raw sockets have in common: the stack they belong to, their options, and the
//! answers to options of IP.

use super::address;
use super::control::SendControl;
use super::headers::{Said, StickyCell, is_extension};
use super::options::{InetOptions, SOL_IP, SOL_IPV6, SOL_TCP, SOL_UDP, encode, ip, ipv6, number, tcp, udp};
use super::stacks::{QueueWaker, errno};
use crate::socket::filter::Asked;
use crate::socket::{ControlMessage, Received, SockOptions};
use abi::poll::PollEvents;
use abi::socket::{
    MSG_DONTWAIT, MSG_ERRQUEUE, MSG_PEEK, MSG_TRUNC, SHUT_RD, SHUT_RDWR, SHUT_WR, SOL_SOCKET, so,
};
use abi::{Errno, Result};
use kernel::bpf::Program;
use kernel::creds::CapSet;
use kernel::io::{Sink, Source};
use kernel::uaccess::UserPtr;
use kernel::vfs::Caller;
use kernel::{SysResult, Task};
use ksync::WaitQueue;
use netstack::datagram::{DatagramBase, SendHow, Tag};
use netstack::reuse::Chooser;
use netstack::sieve::Sieve;
use netstack::{BindOptions, Endpoint, Family, Stack, Waker};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The common part of an internet socket.
pub struct Base {
    pub stack: Arc<Stack>,
    pub family: Family,
    pub stream: bool,
    pub options: Arc<SockOptions>,
    pub numbers: InetOptions,
    pub wait: Arc<WaitQueue>,
    /// `SO_BINDTODEVICE`
    pub device: AtomicU32,
    /// The interface that `IPV6_PKTINFO` names. Its address is heeded by nobody, as on Linux.
    pub sticky_device: AtomicU32,
    /// Interface and address of `IP_MULTICAST_IF`.
    pub multicast_device: AtomicU32,
    pub multicast_source: AtomicU32,
    pub(super) sticky: StickyCell,
    pub uid: AtomicU32,
    pub ino: AtomicU64,
    /// Addresses of nobody may be bound to (`ip_nonlocal_bind`).
    anywhere: AtomicBool,
    /// Sends with `MSG_ZEROCOPY`.
    pub copies: Completions,
}

/// The numbers of sends with `MSG_ZEROCOPY` that nobody has been told of.
#[derive(Default)]
pub struct Completions(Mutex<(u32, Option<(u32, u32)>)>);

impl Completions {
    /// One more is done.
    pub fn done(&self) {
        let mut c = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let n = c.0;
        c.0 = n.wrapping_add(1);
        let first = c.1.map_or(n, |(first, _)| first);
        c.1 = Some((first, n));
    }
    /// The report of all that are to be told, if there is any.
    pub fn take(&self, family: Family) -> Option<Received> {
        let (first, last) = self.0.lock().unwrap_or_else(PoisonError::into_inner).1.take()?;
        let control = vec![super::control::zerocopy_report(family, first, last)];
        Some(Received { flags: MSG_ERRQUEUE, control, ..Received::default() })
    }
    pub fn waiting(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.is_some()
    }
}

impl Base {
    pub fn new(stack: Arc<Stack>, family: Family, stream: bool, uid: u32, options: SockOptions) -> Base {
        Base {
            stack,
            family,
            stream,
            options: Arc::new(options),
            numbers: match family {
                Family::V4 => InetOptions::default(),
                // As Linux has it: datagrams of groups nobody joined are for IPv4 sockets.
                Family::V6 => InetOptions::default().preset(SOL_IP, ip::MULTICAST_ALL, 0),
            },
            wait: Arc::new(WaitQueue::new()),
            device: AtomicU32::new(0),
            sticky_device: AtomicU32::new(0),
            multicast_device: AtomicU32::new(0),
            multicast_source: AtomicU32::new(0),
            sticky: StickyCell::default(),
            uid: AtomicU32::new(uid),
            ino: AtomicU64::new(0),
            anywhere: AtomicBool::new(false),
            copies: Completions::default(),
        }
    }

    /// Takes over what the settings say of new sockets (`net.ipv4.ip_default_ttl`, `net.ipv6.bindv6only`,
    /// `ip_nonlocal_bind`, `net.ipv4.tcp_keepalive_*`).
    pub fn with_settings(self, cx: &Caller<'_>) -> Base {
        let Some(task) = cx.task else { return self };
        if task.kernel().sysctls.writes() == 0 {
            return self;
        }
        let number = |path| i32::try_from(task.kernel().sysctls.get_int(path)).unwrap_or(0);
        let ttl = number("net/ipv4/ip_default_ttl");
        if ttl != 64 {
            self.numbers.put(SOL_IP, ip::TTL, ttl);
        }
        if self.family == Family::V6 && number("net/ipv6/bindv6only") != 0 {
            self.numbers.put(SOL_IPV6, ipv6::V6ONLY, 1);
        }
        let kept_alive = [
            ("net/ipv4/tcp_keepalive_time", tcp::KEEPIDLE, 7200),
            ("net/ipv4/tcp_keepalive_intvl", tcp::KEEPINTVL, 75),
            ("net/ipv4/tcp_keepalive_probes", tcp::KEEPCNT, 9),
        ];
        for (path, name, usual) in kept_alive.into_iter().filter(|_| self.stream) {
            let value = number(path);
            if value != usual {
                self.numbers.put(SOL_TCP, name, value);
            }
        }
        let anywhere = number(if self.family == Family::V4 {
            "net/ipv4/ip_nonlocal_bind"
        } else {
            "net/ipv6/ip_nonlocal_bind"
        });
        self.anywhere.store(anywhere != 0, Ordering::Relaxed);
        self
    }

    /// The common part of a socket that this one accepted.
    pub fn inherit(&self) -> Base {
        Base {
            stack: Arc::clone(&self.stack),
            family: self.family,
            stream: self.stream,
            options: Arc::new(self.options.inherit()),
            numbers: self.numbers.inherit(),
            wait: Arc::new(WaitQueue::new()),
            device: AtomicU32::new(self.device.load(Ordering::Relaxed)),
            sticky_device: AtomicU32::new(self.sticky_device.load(Ordering::Relaxed)),
            multicast_device: AtomicU32::new(self.multicast_device.load(Ordering::Relaxed)),
            multicast_source: AtomicU32::new(self.multicast_source.load(Ordering::Relaxed)),
            sticky: StickyCell::new(self.sticky().clone()),
            uid: AtomicU32::new(self.uid.load(Ordering::Relaxed)),
            ino: AtomicU64::new(0),
            anywhere: AtomicBool::new(self.anywhere.load(Ordering::Relaxed)),
            copies: Completions::default(),
        }
    }

    /// Who tells this socket's queue of news.
    pub fn waker(&self) -> Arc<dyn Waker> {
        Arc::new(QueueWaker(Arc::clone(&self.wait)))
    }

    /// The options that decide about ports.
    pub fn bind_options(&self) -> BindOptions {
        let n = &self.numbers;
        BindOptions {
            reuse_addr: self.options.reuse_addr(),
            reuse_port: self.options.reuse_port(),
            v6only: self.family == Family::V6 && n.on(SOL_IPV6, ipv6::V6ONLY),
            device: self.device.load(Ordering::Relaxed),
            uid: self.uid.load(Ordering::Relaxed),
            any_address: self.anywhere.load(Ordering::Relaxed)
                || n.on(SOL_IP, ip::FREEBIND)
                || n.on(SOL_IP, ip::TRANSPARENT)
                || n.on(SOL_IPV6, ipv6::FREEBIND)
                || n.on(SOL_IPV6, ipv6::TRANSPARENT),
            ports: self.port_range(),
        }
    }

    /// `IP_LOCAL_PORT_RANGE`: the lower and the upper half of the number, 0 for what the settings say.
    fn port_range(&self) -> (u16, u16) {
        let set = self.numbers.get(SOL_IP, ip::LOCAL_PORT_RANGE).unwrap_or(0).cast_unsigned();
        ((set & 0xffff) as u16, (set >> 16) as u16)
    }

    /// The interface for what is sent to an address (`SO_BINDTODEVICE`, `IPV6_PKTINFO`, `IP_UNICAST_IF`).
    pub fn device_to(&self, to: IpAddr) -> u32 {
        let mut bound = self.device.load(Ordering::Relaxed);
        if bound == 0 && to.is_ipv6() && !self.stream {
            bound = self.sticky_device.load(Ordering::Relaxed);
        }
        if bound != 0 || to.is_multicast() {
            return bound;
        }
        let (level, name) =
            if to.is_ipv4() { (SOL_IP, ip::UNICAST_IF) } else { (SOL_IPV6, ipv6::UNICAST_IF) };
        u32::from_be(self.numbers.get(level, name).unwrap_or(0).cast_unsigned())
    }

    /// An address that bind is given: EACCES for ports of the privileged, EINVAL for IPv4 on a socket
    /// for IPv6 only.
    pub fn check_bind(&self, cx: &Caller<'_>, raw: &[u8]) -> Result<Endpoint> {
        let e = address::to_bind(self.family, raw)?;
        if self.family == Family::V6 && e.ip.is_ipv4() && self.numbers.on(SOL_IPV6, ipv6::V6ONLY) {
            return Err(Errno::EINVAL);
        }
        if !may_bind(cx, e.port) {
            return Err(Errno::EACCES);
        }
        Ok(e)
    }

    /// An address to reach: ENETUNREACH for IPv4 on a socket for IPv6 only.
    pub fn check_reach(&self, raw: &[u8], datagram: bool) -> Result<Endpoint> {
        let e = address::to_reach(self.family, raw, datagram)?;
        if self.family == Family::V6 && e.ip.is_ipv4() && self.numbers.on(SOL_IPV6, ipv6::V6ONLY) {
            return Err(Errno::ENETUNREACH);
        }
        Ok(e)
    }

    /// An address to connect to: EINVAL for one that means something on a link only, without a link.
    pub fn check_scope(&self, to: Endpoint) -> Result<()> {
        let IpAddr::V6(ip) = to.ip else { return Ok(()) };
        let multicast = ip.is_multicast();
        let of_link = ip.is_unicast_link_local() || multicast && matches!(ip.octets()[1] & 15, 1 | 2);
        let bound = self.device.load(Ordering::Relaxed) != 0
            || multicast && self.multicast_device.load(Ordering::Relaxed) != 0;
        if of_link && to.scope == 0 && !bound { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// Time to live and type of service of what is sent to an address.
    pub fn ttl_tos(&self, to: IpAddr) -> (u8, u8) {
        let n = &self.numbers;
        let (ttl, tos) = match (to.is_ipv4(), to.is_multicast()) {
            (true, false) => (n.get(SOL_IP, ip::TTL), n.get(SOL_IP, ip::TOS)),
            (true, true) => (n.get(SOL_IP, ip::MULTICAST_TTL), n.get(SOL_IP, ip::TOS)),
            (false, false) => (n.get(SOL_IPV6, ipv6::UNICAST_HOPS), n.get(SOL_IPV6, ipv6::TCLASS)),
            (false, true) => (n.get(SOL_IPV6, ipv6::MULTICAST_HOPS), n.get(SOL_IPV6, ipv6::TCLASS)),
        };
        let byte = |v: Option<i32>, d| v.and_then(|v| u8::try_from(v).ok()).unwrap_or(d);
        (byte(ttl, 64), byte(tos, 0))
    }

    /// What getsockname(2) and its like give.
    pub fn encode(&self, name: Endpoint) -> Vec<u8> {
        address::encode(self.family, name)
    }

    /// Whether what is reported of an address is wanted (`IP_RECVERR`, `IPV6_RECVERR`).
    pub fn wants_errors(&self, v4: bool) -> bool {
        let n = &self.numbers;
        if v4 { n.on(SOL_IP, ip::RECVERR) } else { n.on(SOL_IPV6, ipv6::RECVERR) }
    }

    /// `IP_MTU_DISCOVER` or `IPV6_MTU_DISCOVER`.
    fn discover(&self, v4: bool) -> u8 {
        let mode = match v4 {
            true => self.numbers.get(SOL_IP, ip::MTU_DISCOVER),
            false => self.numbers.get(SOL_IPV6, ipv6::MTU_DISCOVER),
        };
        mode.and_then(|mode| u8::try_from(mode).ok()).unwrap_or(1)
    }

    /// How a datagram goes to an address.
    pub fn how(&self, to: IpAddr, c: &SendControl, said: &Said) -> SendHow {
        let (ttl, tos) = self.ttl_tos(to);
        let n = &self.numbers;
        let v4 = to.is_ipv4();
        let source = self.multicast_source.load(Ordering::Relaxed);
        let (mark, priority) = self.options.tag();
        let sticky = self.sticky().clone();
        let set_pieces = !v4 && n.switched_on(SOL_IPV6, ipv6::MTU);
        let pieces = if set_pieces { n.get(SOL_IPV6, ipv6::MTU).unwrap_or(0) } else { 0 };
        SendHow {
            source: c.source,
            device: if c.device != 0 { c.device } else { self.device_to(to) },
            ttl: c.ttl.unwrap_or(ttl),
            tos: c.tos.unwrap_or(tos),
            broadcast: self.options.broadcast(),
            multicast_loop: match v4 {
                true => n.on(SOL_IP, ip::MULTICAST_LOOP),
                false => n.on(SOL_IPV6, ipv6::MULTICAST_LOOP),
            },
            multicast_device: self.multicast_device.load(Ordering::Relaxed),
            multicast_source: (v4 && source != 0).then(|| IpAddr::V4(Ipv4Addr::from(source))),
            want_errors: self.wants_errors(v4),
            discover: self.discover(v4),
            no_checksum: if v4 { self.options.no_check() } else { n.on(SOL_UDP, udp::NO_CHECK6_TX) },
            tag: Tag {
                mark: c.mark.unwrap_or(mark),
                priority: c.priority.unwrap_or(priority).cast_unsigned(),
            },
            segment: None,
            dont_fragment: said
                .dont_fragment
                .unwrap_or_else(|| !v4 && n.switched_on(SOL_IPV6, ipv6::DONTFRAG)),
            pieces: pieces.cast_unsigned(),
            direct: said.direct || self.options.dont_route(),
            flow: said.flow.unwrap_or(sticky.flow),
            auto_flow: !v4 && n.on(SOL_IPV6, ipv6::AUTOFLOWLABEL),
            options: said.options.clone().or(sticky.options),
            // Those of one message are in place of all that are set.
            extensions: match said.extensions.is_empty() {
                true => sticky.extensions,
                false => Some(Arc::new(said.extensions.clone())),
            },
        }
    }

    /// Receives a datagram, or the report of one. `skip`: what a peek passes over (`SO_PEEK_OFF`).
    pub fn receive<P>(
        &self,
        socket: &DatagramBase<P>,
        dst: &mut dyn Sink,
        flags: u32,
        skip: usize,
    ) -> Result<Received> {
        if flags & MSG_ERRQUEUE != 0 {
            return self.receive_report(socket, dst);
        }
        if let Some((to, mtu)) = socket.take_path_mtu() {
            return Ok(self.path_mtu_told(to, mtu));
        }
        let peek = flags & MSG_PEEK != 0;
        let found = if peek { socket.peek(skip) } else { socket.receive().map(|d| d.map(|d| (d, 0))) };
        let Some((d, skip)) = found.map_err(errno)? else {
            // After shutdown(2): who does not wait is not told of the end.
            let waits = flags & MSG_DONTWAIT == 0;
            return if waits { Ok(Received::default()) } else { Err(Errno::EAGAIN) };
        };
        let data = &d.data.bytes()[skip..];
        let want = data.len().min(dst.remaining());
        let copied = if want == 0 { 0 } else { dst.put(data)? };
        if copied < want {
            return Err(Errno::EFAULT);
        }
        self.options.peeked(if peek { copied } else { data.len() }, peek);
        Ok(Received {
            len: if flags & MSG_TRUNC != 0 { data.len() } else { copied },
            from: Some(self.encode(d.from)),
            flags: if copied < data.len() { MSG_TRUNC } else { 0 },
            control: self.control(&d),
            ..Received::default()
        })
    }

    /// `IPV6_RECVPATHMTU`: what a datagram was too long for.
    fn path_mtu_told(&self, to: Endpoint, mtu: u32) -> Received {
        let mut data = self.encode(to);
        let from = Some(data.clone());
        data.extend(mtu.to_ne_bytes());
        let control = vec![ControlMessage { level: SOL_IPV6, kind: ipv6::PATHMTU, data }];
        Received { from, control, ..Received::default() }
    }

    fn receive_report<P>(&self, socket: &DatagramBase<P>, dst: &mut dyn Sink) -> Result<Received> {
        if let Some(got) = self.completion() {
            return Ok(got);
        }
        let r = socket.receive_report().map_err(errno)?;
        let data = r.data.bytes();
        let copied = if data.is_empty() || dst.remaining() == 0 { 0 } else { dst.put(data)? };
        let mut got = Received { len: copied, flags: MSG_ERRQUEUE, ..Received::default() };
        if copied < data.len() {
            got.flags |= MSG_TRUNC;
        }
        got.from = Some(self.encode(r.to));
        self.options.stamp(r.time, &mut got.control);
        got.control.push(self.error_report(&r));
        Ok(got)
    }

    /// The report of sends with `MSG_ZEROCOPY`, if one waits.
    pub fn completion(&self) -> Option<Received> {
        self.copies.take(self.family)
    }

    /// A send with `MSG_ZEROCOPY` is done.
    pub fn sent_zerocopy(&self) {
        self.copies.done();
        self.wait.wake(PollEvents::ERR.bits());
    }

    /// Tells the socket what an option that was set says of reports.
    pub fn apply_reports<P>(&self, socket: &DatagramBase<P>, level: i32, name: i32) {
        let v4 = level == SOL_IP;
        match (level, name) {
            (SOL_IP, ip::RECVERR) | (SOL_IPV6, ipv6::RECVERR) => {
                socket.set_want_errors(self.wants_errors(v4))
            }
            (SOL_IPV6, ipv6::RECVPATHMTU) => socket.set_want_path_mtu(self.numbers.on(level, name)),
            (SOL_IP, ip::MTU_DISCOVER) | (SOL_IPV6, ipv6::MTU_DISCOVER) => {
                socket.set_discover(self.discover(v4))
            }
            _ => {}
        }
    }

    /// Options of `SOL_SOCKET` that only internet sockets have. `None`: not one of them.
    fn get_socket_level(&self, name: i32) -> Option<Result<Vec<u8>>> {
        match name {
            so::BINDTODEVICE => {
                let index = self.device.load(Ordering::Relaxed);
                let found = self.stack.interfaces.by_index(index).filter(|_| index != 0);
                let mut text = found.map(|i| i.name.into_bytes()).unwrap_or_default();
                if !text.is_empty() {
                    text.push(0);
                }
                Some(Ok(text))
            }
            so::BINDTOIFINDEX => Some(Ok(self.device.load(Ordering::Relaxed).to_ne_bytes().to_vec())),
            _ => None,
        }
    }

    /// getsockopt of the levels SOL_SOCKET, IP and IPv6. `remote`: the socket is connected.
    pub fn getsockopt(
        &self,
        level: i32,
        name: i32,
        want: usize,
        remote: Option<Endpoint>,
    ) -> Result<Vec<u8>> {
        match level {
            SOL_SOCKET => self.get_socket_level(name).unwrap_or(Err(Errno::ENOPROTOOPT)),
            SOL_IP => match name {
                ip::MTU => {
                    let r = remote.ok_or(Errno::ENOTCONN)?;
                    let mtu = self
                        .stack
                        .path_mtu(r.ip, None, self.device.load(Ordering::Relaxed))
                        .unwrap_or(1500)
                        .min(65535);
                    Ok(encode(level, i32::try_from(mtu).unwrap_or(0), want))
                }
                ip::OPTIONS => Ok(self.sticky().options.as_ref().map_or(Vec::new(), |o| o.told().to_vec())),
                ip::MULTICAST_IF => Ok(self.multicast_source.load(Ordering::Relaxed).to_be_bytes().to_vec()),
                _ => match self.numbers.get(level, name) {
                    Some(v) => Ok(encode(level, v, want)),
                    None => Err(Errno::ENOPROTOOPT),
                },
            },
            // What is neither IP nor IPv6 ends at the last that was asked.
            _ if self.family == Family::V6 && level != SOL_IPV6 => Err(Errno::ENOPROTOOPT),
            SOL_IPV6 if self.family == Family::V6 => match name {
                ipv6::MTU => {
                    let r = remote.ok_or(Errno::ENOTCONN)?;
                    let mtu =
                        self.stack.path_mtu(r.ip, None, self.device.load(Ordering::Relaxed)).unwrap_or(1500);
                    Ok(encode(level, i32::try_from(mtu).unwrap_or(0), want))
                }
                // `struct ip6_mtuinfo`: an address that is not told, and the MTU.
                ipv6::PATHMTU if want < address::LEN6 + 4 => Err(Errno::EINVAL),
                ipv6::PATHMTU => {
                    let r = remote.filter(|r| r.ip.is_ipv6()).ok_or(Errno::ENOTCONN)?;
                    let mtu = self.stack.path_mtu(r.ip, None, self.device.load(Ordering::Relaxed));
                    let mut out = vec![0; address::LEN6];
                    out.extend(mtu.unwrap_or(1500).to_ne_bytes());
                    Ok(out)
                }
                ipv6::ADDR_PREFERENCES => Ok(self.preferences().to_ne_bytes().to_vec()),
                name if is_extension(name) => Ok(self.get_extension(name)),
                ipv6::MULTICAST_IF => {
                    Ok(self.multicast_device.load(Ordering::Relaxed).to_ne_bytes().to_vec())
                }
                _ => match self.numbers.get(level, name) {
                    Some(v) => Ok(encode(level, v, want)),
                    None => Err(Errno::ENOPROTOOPT),
                },
            },
            SOL_IPV6 => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// setsockopt of the levels SOL_SOCKET, IP and IPv6. `bound`: the socket has a port.
    pub fn setsockopt(
        &self,
        cx: &Caller<'_>,
        level: i32,
        name: i32,
        value: &[u8],
        bound: bool,
    ) -> Result<()> {
        match level {
            SOL_SOCKET => match name {
                so::BINDTODEVICE => {
                    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len()).min(15);
                    let name = &value[..end];
                    let old = self.device.load(Ordering::Relaxed);
                    if old != 0 && !cx.creds.has_cap(CapSet::NET_RAW) {
                        return Err(Errno::EPERM);
                    }
                    let index = if name.is_empty() {
                        0
                    } else {
                        self.stack.interfaces.by_name(name).ok_or(Errno::ENODEV)?.index
                    };
                    self.device.store(index, Ordering::Relaxed);
                    Ok(())
                }
                so::BINDTOIFINDEX => {
                    let index = u32::try_from(number(level, value)?).map_err(|_| Errno::EINVAL)?;
                    let old = self.device.load(Ordering::Relaxed);
                    if old != 0 && !cx.creds.has_cap(CapSet::NET_RAW) {
                        return Err(Errno::EPERM);
                    }
                    self.device.store(index, Ordering::Relaxed);
                    Ok(())
                }
                _ => Err(Errno::ENOPROTOOPT),
            },
            SOL_IP => match name {
                ip::MULTICAST_IF => self.set_multicast_if(value),
                ip::OPTIONS => self.set_options(cx, value),
                ip::RECVFRAGSIZE if self.stream => Err(Errno::EINVAL),
                ip::MULTICAST_TTL if self.stream => Err(Errno::EINVAL),
                ip::UNICAST_IF => self.set_unicast_if(level, name, value),
                ip::LOCAL_PORT_RANGE => {
                    let v = number(level, value)?;
                    let (low, high) = (v.cast_unsigned() & 0xffff, v.cast_unsigned() >> 16);
                    if low != 0 && high != 0 && low > high {
                        return Err(Errno::EINVAL);
                    }
                    self.numbers.put(level, name, v);
                    Ok(())
                }
                ip::TOS => {
                    let mut v = number(level, value)? & 0xff;
                    if self.stream {
                        // The ECN bits belong to TCP.
                        v &= !3;
                    }
                    if self.numbers.get(level, name) == Some(v) {
                        return Ok(());
                    }
                    self.numbers.put(level, name, v);
                    // Bulk, interactive, both: `TC_PRIO_*`.
                    self.options.set_priority(match v & 0x18 {
                        0 => 0,
                        0x08 => 2,
                        0x10 => 6,
                        _ => 4,
                    });
                    Ok(())
                }
                _ => self.set_number(cx, level, name, number(level, value)?),
            },
            SOL_IPV6 if self.family == Family::V6 => match name {
                ipv6::PKTINFO => {
                    // `struct in6_pktinfo`: an address and an interface.
                    let index: [u8; 4] =
                        value.get(16..20).and_then(|v| v.try_into().ok()).ok_or(Errno::EINVAL)?;
                    let index = u32::from_ne_bytes(index);
                    let bound = self.device.load(Ordering::Relaxed);
                    if bound != 0 && bound != index {
                        return Err(Errno::EINVAL);
                    }
                    self.sticky_device.store(index, Ordering::Relaxed);
                    Ok(())
                }
                ipv6::V6ONLY if bound => Err(Errno::EINVAL),
                ipv6::ADDR_PREFERENCES => self.set_preferences(value),
                name if is_extension(name) => self.set_extension(cx, name, value),
                ipv6::MTU => match number(level, value)? {
                    v if v != 0 && v < 1280 => Err(Errno::EINVAL),
                    v => {
                        self.numbers.put(level, name, v);
                        Ok(())
                    }
                },
                ipv6::MULTICAST_HOPS if self.stream => Err(Errno::ENOPROTOOPT),
                ipv6::UNICAST_IF => self.set_unicast_if(level, name, value),
                ipv6::TCLASS if self.stream => {
                    self.set_number(cx, level, name, number(level, value)?)?;
                    // The ECN bits belong to TCP.
                    let v = self.numbers.get(level, name).unwrap_or(0);
                    self.numbers.put(level, name, v & !3);
                    Ok(())
                }
                ipv6::MULTICAST_IF => {
                    let index = number(level, value)?.cast_unsigned();
                    if index != 0 && self.stack.interfaces.by_index(index).is_none() {
                        return Err(Errno::ENODEV);
                    }
                    self.multicast_device.store(index, Ordering::Relaxed);
                    Ok(())
                }
                _ => self.set_number(cx, level, name, number(level, value)?),
            },
            SOL_IPV6 => Err(Errno::ENOPROTOOPT),
            SOL_TCP if self.stream => self.set_number(cx, level, name, number(level, value)?),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set_number(&self, cx: &Caller<'_>, level: i32, name: i32, value: i32) -> Result<()> {
        if let Some(r) = self.numbers.set(cx, level, name, value) {
            return r;
        }
        if let Some(t) = cx.task {
            kernel::gap!(t.kernel(), "setsockopt of IP, IPv6 or TCP", name.unsigned_abs());
        }
        Err(Errno::ENOPROTOOPT)
    }

    /// `IP_UNICAST_IF`: an index in the byte order of the network, or none.
    fn set_unicast_if(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let raw = number(level, value)?;
        let index = u32::from_be(raw.cast_unsigned());
        if index != 0 && self.stack.interfaces.by_index(index).is_none() {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let bound = self.device.load(Ordering::Relaxed);
        if index != 0 && bound != 0 && bound != index {
            return Err(Errno::EINVAL);
        }
        self.numbers.put(level, name, raw);
        Ok(())
    }

    /// `IP_MULTICAST_IF`: an address, or an `ip_mreqn`.
    fn set_multicast_if(&self, value: &[u8]) -> Result<()> {
        let (address, index) = mreq(value, true)?;
        let device = if index != 0 {
            self.stack.interfaces.by_index(index).ok_or(Errno::EADDRNOTAVAIL)?.index
        } else if address.is_unspecified() {
            0
        } else {
            self.stack.interfaces.local(IpAddr::V4(address)).ok_or(Errno::EADDRNOTAVAIL)?
        };
        self.multicast_device.store(device, Ordering::Relaxed);
        self.multicast_source.store(u32::from(address), Ordering::Relaxed);
        Ok(())
    }

    /// The interface that an address of `ip_mreq` names; 0 for none.
    pub fn device_of(&self, address: Ipv4Addr, index: u32) -> Result<u32> {
        if index != 0 {
            return self.stack.interfaces.by_index(index).map(|i| i.index).ok_or(Errno::ENODEV);
        }
        if address.is_unspecified() {
            return Ok(0);
        }
        self.stack.interfaces.local(IpAddr::V4(address)).ok_or(Errno::ENODEV)
    }
}

/// Whether the caller may bind to a port (`net.ipv4.ip_unprivileged_port_start`).
pub fn may_bind(cx: &Caller<'_>, port: u16) -> bool {
    let first = cx.task.map_or(1024, |t| t.kernel().sysctls.get_int("net/ipv4/ip_unprivileged_port_start"));
    port == 0 || i64::from(port) >= first || cx.creds.has_cap(CapSet::NET_BIND_SERVICE)
}

/// Whether shutdown(2)'s argument means receiving and sending; EINVAL.
pub fn directions(how: i32) -> Result<(bool, bool)> {
    match how {
        SHUT_RD => Ok((true, false)),
        SHUT_WR => Ok((false, true)),
        SHUT_RDWR => Ok((true, true)),
        _ => Err(Errno::EINVAL),
    }
}

pub const SIOCINQ: u32 = 0x541b;
pub const SIOCOUTQ: u32 = 0x5411;

/// ioctl(2) of a datagram socket. Nothing of what was sent waits.
pub fn queue_ioctl<P>(socket: &DatagramBase<P>, task: &Task, cmd: u32, arg: u64) -> SysResult {
    match cmd {
        SIOCINQ => answer(task, arg, socket.next_len()),
        SIOCOUTQ => answer(task, arg, 0),
        _ => Err(Errno::ENOTTY.into()),
    }
}

/// Gives the number that an ioctl asks for.
pub fn answer(task: &Task, arg: u64, n: usize) -> SysResult {
    UserPtr::new(arg).write(&task.mm(), &i32::try_from(n).unwrap_or(i32::MAX))?;
    Ok(0)
}

/// A filter as the stack takes it.
pub fn sieve(filter: Option<Arc<Program>>) -> Option<Arc<dyn Sieve>> {
    filter.map(|program| Arc::new(Asked(program)) as Arc<dyn Sieve>)
}

/// `SO_ATTACH_REUSEPORT_CBPF` and its end: EINVAL for sockets that do not share a port, ENOENT.
pub fn choose_by(
    base: &Base,
    program: Option<Arc<Program>>,
    set: impl FnOnce(Option<Arc<dyn Chooser>>) -> bool,
) -> Result<()> {
    if !base.options.reuse_port() {
        return Err(Errno::EINVAL);
    }
    let attach = program.is_some();
    let was = set(program.map(|program| Arc::new(Asked(program)) as Arc<dyn Chooser>));
    if attach || was { Ok(()) } else { Err(Errno::ENOENT) }
}

/// All that a datagram is to be of: EFAULT.
pub fn take_all(data: &mut dyn Source) -> Result<Vec<u8>> {
    let mut all = vec![0; data.remaining()];
    let mut done = 0;
    while done < all.len() {
        match data.take(&mut all[done..])? {
            0 => return Err(Errno::EFAULT),
            n => done += n,
        }
    }
    Ok(all)
}

/// Address and interface of an `in_addr` (if `alone`), `ip_mreq` or `ip_mreqn`.
pub fn mreq(value: &[u8], alone: bool) -> Result<(Ipv4Addr, u32)> {
    let word =
        |at: usize| -> [u8; 4] { value.get(at..at + 4).and_then(|v| v.try_into().ok()).unwrap_or_default() };
    match value.len() {
        12.. => Ok((Ipv4Addr::from(word(4)), u32::from_ne_bytes(word(8)))),
        8.. => Ok((Ipv4Addr::from(word(4)), 0)),
        4.. if alone => Ok((Ipv4Addr::from(word(0)), 0)),
        _ => Err(Errno::EINVAL),
    }
}
