//! UDP socket files (udp(7)).

use super::address;
use super::base::Base;
use super::control::{SendControl, send_control};
use super::groups::is_membership;
use super::options::{SOL_IP, SOL_IPV6, SOL_TCP, SOL_UDP, SOL_UDPLITE, ip, ipv6, number, udp};
use super::stacks::errno;
use super::stream::directions;
use crate::socket::{Received, SendArgs, SockOptions, SocketOps};
use abi::poll::PollEvents;
use abi::socket::{
    AF_UNSPEC, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_MORE, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_ZEROCOPY, SOL_SOCKET,
    so,
};
use abi::{Errno, Result};
use kernel::io::Sink;
use kernel::uaccess::UserPtr;
use kernel::vfs::Caller;
use kernel::{SysResult, Task};
use ksync::{LockClass, Mutex, WaitQueue};
use netstack::udp::{SendHow, UdpSocket};
use netstack::{Buf, Endpoint, Family};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The largest datagram over IPv4, without headers.
const MAX4: usize = 65507;
/// The same over IPv6.
const MAX6: usize = 65527;

/// A datagram that several calls make (`MSG_MORE`, `UDP_CORK`).
struct Held {
    to: Option<Endpoint>,
    target: Endpoint,
    control: SendControl,
    data: Vec<u8>,
}

/// A UDP socket.
pub struct InetDatagram {
    held: Mutex<Option<Held>>,
    base: Base,
    udp: Arc<UdpSocket>,
    /// `UDP_SEGMENT` of the socket, 0 for none.
    segment: std::sync::atomic::AtomicU32,
    released: AtomicBool,
}

impl InetDatagram {
    pub(super) fn create(base: Base, lite: bool) -> Arc<InetDatagram> {
        let udp = UdpSocket::new(&base.stack, base.family, lite, base.waker());
        Arc::new(InetDatagram {
            held: Mutex::new(LockClass::Leaf, None),
            base,
            udp,
            segment: Default::default(),
            released: AtomicBool::new(false),
        })
    }

    pub fn udp(&self) -> &Arc<UdpSocket> {
        &self.udp
    }

    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    fn how(&self, to: IpAddr, c: &SendControl) -> SendHow {
        let (ttl, tos) = self.base.ttl_tos(to);
        let n = &self.base.numbers;
        let v4 = to.is_ipv4();
        let source = self.base.multicast_source.load(Ordering::Relaxed);
        SendHow {
            source: c.source,
            device: if c.device != 0 { c.device } else { self.base.device_to(to) },
            ttl: c.ttl.unwrap_or(ttl),
            tos: c.tos.unwrap_or(tos),
            broadcast: self.base.options.broadcast(),
            multicast_loop: if v4 {
                n.on(SOL_IP, ip::MULTICAST_LOOP)
            } else {
                n.on(SOL_IPV6, ipv6::MULTICAST_LOOP)
            },
            multicast_device: self.base.multicast_device.load(Ordering::Relaxed),
            multicast_source: if v4 && source != 0 { Some(IpAddr::V4(Ipv4Addr::from(source))) } else { None },
            want_errors: if v4 { n.on(SOL_IP, ip::RECVERR) } else { n.on(SOL_IPV6, ipv6::RECVERR) },
            discover: self.discover(v4),
            no_checksum: self.base.options.no_check(),
        }
    }

    /// `IP_MTU_DISCOVER` or `IPV6_MTU_DISCOVER`.
    fn discover(&self, v4: bool) -> u8 {
        let mode = match v4 {
            true => self.base.numbers.get(SOL_IP, ip::MTU_DISCOVER),
            false => self.base.numbers.get(SOL_IPV6, ipv6::MTU_DISCOVER),
        };
        mode.and_then(|mode| u8::try_from(mode).ok()).unwrap_or(1)
    }

    fn receive_report(&self, dst: &mut dyn Sink) -> Result<Received> {
        if let Some((first, last)) = self.base.copies.take() {
            let control = vec![self.base.zerocopy_report(first, last)];
            return Ok(Received { flags: MSG_ERRQUEUE, control, ..Received::default() });
        }
        let r = self.udp.receive_report().map_err(errno)?;
        let data = r.data.bytes();
        let copied = if data.is_empty() || dst.remaining() == 0 { 0 } else { dst.put(data)? };
        let mut got = Received { len: copied, flags: MSG_ERRQUEUE, ..Received::default() };
        if copied < data.len() {
            got.flags |= MSG_TRUNC;
        }
        got.from = Some(address::encode(self.base.family, r.to));
        self.base.options.stamp(r.time, &mut got.control);
        got.control.push(self.base.error_report(&r));
        Ok(got)
    }
}

impl InetDatagram {
    /// Sends one datagram, or with `UDP_SEGMENT` as many as it makes.
    fn dispatch(
        &self,
        to: Option<Endpoint>,
        target: Endpoint,
        control: &SendControl,
        raw: Vec<u8>,
    ) -> Result<()> {
        let how = self.how(target.ip, control);
        let options = self.base.bind_options();
        let send = |data: Buf| self.udp.send(to, data, &how, options).map_err(errno);
        let segment = control.segment.map_or(self.segment.load(Ordering::Relaxed), u32::from) as usize;
        if segment == 0 || segment >= raw.len() {
            return send(Buf::from_vec(raw));
        }
        if raw.len().div_ceil(segment) > 128 {
            return Err(Errno::EINVAL);
        }
        raw.chunks(segment).try_for_each(|piece| send(Buf::copy_of(piece)))
    }

    /// Keeps data for a datagram of several calls. The first says where it goes and how.
    fn hold(
        &self,
        to: Option<Endpoint>,
        target: Endpoint,
        control: SendControl,
        raw: &[u8],
        most: usize,
    ) -> Result<()> {
        let mut held = self.held.lock();
        let h = held.get_or_insert_with(|| Held { to, target, control, data: Vec::new() });
        if h.data.len() + raw.len() > most {
            return Err(Errno::EMSGSIZE);
        }
        h.data.extend_from_slice(raw);
        Ok(())
    }

    /// Sends what is held.
    fn flush(&self) -> Result<()> {
        let Some(h) = self.held.lock().take() else { return Ok(()) };
        self.dispatch(h.to, h.target, &h.control, h.data)
    }

    /// A datagram longer than any packet: who asked for reports gets one, with the size there is.
    fn too_long(&self, target: Endpoint, most: usize) {
        let n = &self.base.numbers;
        let v4 = target.ip.is_ipv4();
        if !(if v4 { n.on(SOL_IP, ip::RECVERR) } else { n.on(SOL_IPV6, ipv6::RECVERR) }) {
            return;
        }
        let mtu = self.base.stack.route(target.ip, None, 0).map_or(most + 28, |r| r.mtu as usize);
        self.udp.too_long(target, Buf::from_vec(Vec::new()), u32::try_from(mtu.min(65535)).unwrap_or(0));
    }
}

impl SocketOps for InetDatagram {
    fn options(&self) -> &Arc<SockOptions> {
        &self.base.options
    }

    fn queue(&self) -> &Arc<WaitQueue> {
        &self.base.wait
    }

    fn attach(&self, ino: u64) {
        self.base.ino.store(ino, Ordering::Relaxed);
        let _ = self.udp.tag.set((ino, self.base.uid.load(Ordering::Relaxed)));
    }

    fn poll(&self, _cx: &Caller<'_>) -> PollEvents {
        let mut events = PollEvents::from_bits_truncate(self.udp.poll().0);
        if self.base.copies.waiting() {
            events |= PollEvents::ERR;
        }
        if self.base.options.select_err_queue() && events.contains(PollEvents::ERR) {
            events |= PollEvents::PRI;
        }
        events
    }

    fn bind(&self, cx: &Caller<'_>, addr: &[u8]) -> Result<()> {
        let to = self.base.check_bind(cx, addr)?;
        self.udp.bind(to, self.base.bind_options()).map_err(errno)
    }

    fn connect(&self, _cx: &Caller<'_>, addr: &[u8], _wait_on: &mut Option<Arc<WaitQueue>>) -> Result<()> {
        if address::family_of(addr)? == AF_UNSPEC {
            self.udp.disconnect();
            return Ok(());
        }
        let to = self.base.check_reach(addr, true)?;
        let how = self.how(to.ip, &SendControl::default());
        self.udp.connect(to, self.base.bind_options(), &how).map_err(errno)
    }

    fn name(&self) -> Result<Vec<u8>> {
        Ok(address::encode(self.base.family, self.udp.local()))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let remote = self.udp.remote().ok_or(Errno::ENOTCONN)?;
        Ok(address::encode(self.base.family, remote))
    }

    fn send(&self, _cx: &Caller<'_>, args: &mut SendArgs<'_>) -> Result<usize> {
        // IPv6 does not look.
        if args.flags & MSG_OOB != 0 && self.base.family == Family::V4 {
            return Err(Errno::EOPNOTSUPP);
        }
        let len = args.data.remaining();
        if len > 65535 {
            return Err(Errno::EMSGSIZE);
        }
        let to = match args.to {
            // An address without a family is none, for an IPv6 socket.
            Some(raw) if self.base.family == Family::V6 && address::family_of(raw)? == AF_UNSPEC => None,
            Some(raw) => Some(self.base.check_reach(raw, true)?),
            None => None,
        };
        let held = self.held.lock().as_ref().map(|h| h.target);
        let target = held.or(to).or(self.udp.remote()).ok_or(Errno::EDESTADDRREQ)?;
        let control = send_control(self.base.family, &args.control)?;
        let most = if target.ip.is_ipv4() { MAX4 } else { MAX6 };
        if len > most {
            self.too_long(target, most);
            return Err(Errno::EMSGSIZE);
        }
        let mut raw = vec![0; len];
        let mut done = 0;
        while done < len {
            match args.data.take(&mut raw[done..])? {
                0 => return Err(Errno::EFAULT),
                n => done += n,
            }
        }
        let more = args.flags & MSG_MORE != 0 || self.base.numbers.on(SOL_UDP, udp::CORK);
        if more || held.is_some() {
            self.hold(to, target, control, &raw, most)?;
            if !more {
                self.flush()?;
            }
            return Ok(len);
        }
        self.dispatch(to, target, &control, raw)?;
        if args.flags & MSG_ZEROCOPY != 0 && self.base.options.zerocopy() {
            self.base.copies.done();
            self.base.wait.wake(PollEvents::ERR.bits());
        }
        Ok(len)
    }

    fn receive(&self, _cx: &Caller<'_>, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        if flags & MSG_ERRQUEUE != 0 {
            return self.receive_report(dst);
        }
        let options = &self.base.options;
        let found = match options.peek_offset() {
            Some(skip) if flags & MSG_PEEK != 0 => self.udp.peek(skip),
            _ if flags & MSG_PEEK != 0 => self.udp.peek(0),
            _ => self.udp.receive().map(|d| d.map(|d| (d, 0))),
        };
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
        if flags & MSG_PEEK != 0 {
            options.peeked(copied, true);
        } else {
            options.peeked(data.len(), false);
        }
        Ok(Received {
            len: if flags & MSG_TRUNC != 0 { data.len() } else { copied },
            from: Some(address::encode(self.base.family, d.from)),
            flags: if copied < data.len() { MSG_TRUNC } else { 0 },
            control: self.base.control(&d),
            ..Received::default()
        })
    }

    fn shutdown(&self, _cx: &Caller<'_>, how: i32) -> Result<()> {
        let (receive, send) = directions(how)?;
        self.udp.shutdown(receive, send).map_err(errno)
    }

    fn getsockopt(&self, _cx: &Caller<'_>, level: i32, name: i32, want: usize) -> Result<Vec<u8>> {
        match (level, name) {
            (SOL_UDP, udp::SEGMENT) => Ok(self.segment.load(Ordering::Relaxed).to_ne_bytes().to_vec()),
            (SOL_UDPLITE, 10 | 11) if self.udp.lite => {
                let v = self.base.numbers.get(level, name).unwrap_or(0);
                Ok(v.to_ne_bytes().to_vec())
            }
            (SOL_UDP, _) => {
                let v = self.base.numbers.get(level, name).ok_or(Errno::ENOPROTOOPT)?;
                Ok(v.to_ne_bytes().to_vec())
            }
            (SOL_TCP, _) if self.base.family == Family::V4 => Err(Errno::EOPNOTSUPP),
            (SOL_TCP, _) => Err(Errno::ENOPROTOOPT),
            _ => self.base.getsockopt(level, name, want, self.udp.remote()),
        }
    }

    fn setsockopt(&self, cx: &Caller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        match (level, name) {
            (SOL_UDP, udp::SEGMENT) => {
                let v = number(level, value)?;
                if !(0..=65535).contains(&v) {
                    return Err(Errno::EINVAL);
                }
                self.segment.store(v.unsigned_abs(), Ordering::Relaxed);
                return Ok(());
            }
            (SOL_UDPLITE, 10 | 11) if self.udp.lite => {
                // No checksum is made here; what it is to cover is kept.
                let v = number(level, value)?;
                self.base.numbers.put(level, name, if v == 0 { 0 } else { v.clamp(8, 65535) });
                return Ok(());
            }
            (SOL_UDP, _) => {
                let v = number(level, value)?;
                self.base.numbers.set(cx, level, name, v).unwrap_or(Err(Errno::ENOPROTOOPT))?;
                return if name == udp::CORK && v == 0 { self.flush() } else { Ok(()) };
            }
            (SOL_TCP, _) => return Err(Errno::ENOPROTOOPT),
            _ if is_membership(self.base.family, level, name) => return self.membership(level, name, value),
            _ => {}
        }
        self.base.setsockopt(cx, level, name, value, self.udp.has_port())?;
        match (level, name) {
            (SOL_SOCKET, so::BINDTODEVICE | so::BINDTOIFINDEX) => {
                self.udp.set_bind_options(self.base.bind_options())
            }
            (SOL_IP, ip::MULTICAST_ALL) => self.udp.set_all_groups(self.base.numbers.on(level, name)),
            (SOL_IP, ip::RECVERR) | (SOL_IPV6, ipv6::RECVERR) => {
                self.udp.set_want_errors(self.base.numbers.on(level, name));
            }
            (SOL_IP, ip::MTU_DISCOVER) | (SOL_IPV6, ipv6::MTU_DISCOVER) => {
                self.udp.set_discover(self.discover(level == SOL_IP));
            }
            (SOL_IPV6, ipv6::MULTICAST_ALL) => self.udp.set_all_groups(self.base.numbers.on(level, name)),
            _ => {}
        }
        Ok(())
    }

    fn option_changed(&self, name: i32) {
        match name {
            so::REUSEADDR | so::REUSEPORT => self.udp.set_bind_options(self.base.bind_options()),
            so::RCVBUF | so::RCVBUFFORCE => self.udp.set_limit(self.base.options.receive_buffer()),
            _ => {}
        }
    }

    fn take_error(&self) -> Option<Errno> {
        self.udp.take_error().map(errno)
    }

    fn memory(&self) -> (usize, usize) {
        (self.udp.usage().0, 0)
    }

    fn drops(&self) -> usize {
        usize::try_from(self.udp.usage().1).unwrap_or(usize::MAX)
    }

    fn ioctl(&self, task: &Task, cmd: u32, arg: u64) -> SysResult {
        const SIOCINQ: u32 = 0x541b;
        const SIOCOUTQ: u32 = 0x5411;
        let n = match cmd {
            SIOCINQ => self.udp.next_len(),
            SIOCOUTQ => 0,
            _ => return Err(Errno::ENOTTY.into()),
        };
        UserPtr::new(arg).write(&task.mm(), &i32::try_from(n).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn release(&self) {
        if !self.released.swap(true, Ordering::AcqRel) {
            self.udp.close();
        }
    }
}
