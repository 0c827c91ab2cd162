//! UDP socket files (udp(7)).

use super::address;
use super::base::{Base, choose_by, directions, queue_ioctl, sieve, take_all};
use super::control::{SendControl, all_control, check_rights};
use super::groups::is_membership;
use super::headers::{Said, may_raw};
use super::options::{SOL_IP, SOL_IPV6, SOL_TCP, SOL_UDP, SOL_UDPLITE, ip, ipv6, number, udp};
use super::stacks::errno;
use crate::socket::{Received, SendArgs, SockOptions, SocketOps};
use abi::poll::PollEvents;
use abi::socket::{AF_UNSPEC, MSG_DONTROUTE, MSG_MORE, MSG_OOB, MSG_ZEROCOPY, SOL_SOCKET, so};
use abi::{Errno, Result};
use kernel::bpf::Program;
use kernel::io::Sink;
use kernel::vfs::Caller;
use kernel::{SysResult, Task};
use ksync::{LockClass, Mutex, WaitQueue};
use netstack::udp::UdpSocket;
use netstack::{Buf, Endpoint, Family};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A datagram that several calls make (`MSG_MORE`, `UDP_CORK`).
struct Held {
    to: Option<Endpoint>,
    target: Endpoint,
    control: SendControl,
    said: Said,
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

    /// Sends one datagram, or with `UDP_SEGMENT` as many as it makes.
    fn dispatch(
        &self,
        to: Option<Endpoint>,
        target: Endpoint,
        control: &SendControl,
        said: &Said,
        raw: Vec<u8>,
    ) -> Result<()> {
        let mut how = self.base.how(target.ip, control, said);
        let options = self.base.bind_options();
        let segment = control.segment.map_or(self.segment.load(Ordering::Relaxed), u32::from) as usize;
        if segment > 0 && segment < raw.len() {
            if raw.len().div_ceil(segment) > 128 {
                return Err(Errno::EINVAL);
            }
            how.segment = u16::try_from(segment).ok();
        }
        self.udp.send(to, Buf::from_vec(raw), &how, options).map_err(errno)
    }

    /// Keeps data for a datagram of several calls. The first says where it goes and how.
    fn hold(
        &self,
        to: Option<Endpoint>,
        target: Endpoint,
        control: SendControl,
        said: Said,
        raw: &[u8],
    ) -> Result<()> {
        let (target, how, length) = {
            let held = self.held.lock();
            let length = held.as_ref().map_or(0, |h| h.data.len());
            let (target, control, said) = held
                .as_ref()
                .map_or((target, control, said.clone()), |h| (h.target, h.control, h.said.clone()));
            drop(held);
            (target, self.base.how(target.ip, &control, &said), length + raw.len())
        };
        if let Err(e) = self.udp.check_length(target, length, &how) {
            // What came before is lost with it.
            *self.held.lock() = None;
            return Err(errno(e));
        }
        let mut held = self.held.lock();
        let h = held.get_or_insert_with(|| Held { to, target, control, said, data: Vec::new() });
        h.data.extend_from_slice(raw);
        Ok(())
    }

    /// Sends what is held.
    fn flush(&self) -> Result<()> {
        let Some(h) = self.held.lock().take() else { return Ok(()) };
        self.dispatch(h.to, h.target, &h.control, &h.said, h.data)
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
        self.base.check_scope(to)?;
        self.base.sticky().flow = self.base.flow_of(addr).unwrap_or(0);
        let how = self.base.how(to.ip, &SendControl::default(), &Said::default());
        self.udp.connect(to, self.base.bind_options(), &how).map_err(errno)
    }

    fn name(&self) -> Result<Vec<u8>> {
        Ok(self.base.encode(self.udp.local()))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let remote = self.udp.remote().ok_or(Errno::ENOTCONN)?;
        Ok(self.base.encode(remote))
    }

    fn send(&self, cx: &Caller<'_>, args: &mut SendArgs<'_>) -> Result<usize> {
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
        let (control, mut said) = all_control(self.base.family, &args.control, may_raw(cx))?;
        check_rights(cx, &control)?;
        said.direct = args.flags & MSG_DONTROUTE != 0;
        said.flow = said.flow.or_else(|| self.base.flow_of(args.to?));
        let raw = take_all(args.data)?;
        let more = args.flags & MSG_MORE != 0 || self.base.numbers.on(SOL_UDP, udp::CORK);
        if more || held.is_some() {
            self.hold(to, target, control, said, &raw)?;
            if !more {
                self.flush()?;
            }
            return Ok(len);
        }
        self.dispatch(to, target, &control, &said, raw)?;
        if args.flags & MSG_ZEROCOPY != 0 && self.base.options.zerocopy() {
            self.base.sent_zerocopy();
        }
        Ok(len)
    }

    fn receive(&self, _cx: &Caller<'_>, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        let skip = self.base.options.peek_offset().unwrap_or(0);
        self.base.receive(&self.udp, dst, flags, skip)
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

    fn getsockopt_of(&self, level: i32, name: i32, asked: &[u8]) -> Result<Vec<u8>> {
        match level {
            SOL_IPV6 if self.base.family == Family::V4 => Err(Errno::EOPNOTSUPP),
            _ => self.get_sources(level, name, asked),
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
                match name {
                    udp::GRO => self.udp.set_joined(v != 0),
                    udp::NO_CHECK6_RX => self.udp.set_unchecked(v != 0),
                    _ => {}
                }
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
            (SOL_IP, ip::MULTICAST_ALL) | (SOL_IPV6, ipv6::MULTICAST_ALL) => {
                self.udp.set_all_groups(self.base.numbers.on(level, name))
            }
            _ => self.base.apply_reports(&self.udp, level, name),
        }
        Ok(())
    }

    fn has_filters(&self) -> bool {
        true
    }

    fn filter_changed(&self, filter: Option<Arc<Program>>) {
        self.udp.set_sieve(sieve(filter));
    }

    fn choose_by(&self, program: Option<Arc<Program>>) -> Result<()> {
        choose_by(&self.base, program, |chooser| self.udp.set_chooser(chooser))
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
        queue_ioctl(&self.udp, task, cmd, arg)
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
