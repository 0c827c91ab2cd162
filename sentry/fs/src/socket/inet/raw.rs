//! Raw sockets (raw(7)) and ping sockets (icmp(7)) as files.

use super::address;
use super::base::{Base, directions, queue_ioctl, sieve, take_all};
use super::control::{SendControl, all_control, check_rights};
use super::headers::{Said, may_raw};
use super::options::{SOL_ICMPV6, SOL_IP, SOL_IPV6, SOL_RAW, ip, ipv6, number};
use super::stacks::errno;
use crate::socket::{Received, SendArgs, SockOptions, SocketOps};
use abi::poll::PollEvents;
use abi::socket::{AF_UNSPEC, MSG_DONTROUTE, MSG_OOB, SOL_SOCKET, so};
use abi::{Errno, Result};
use kernel::bpf::Program;
use kernel::io::Sink;
use kernel::vfs::Caller;
use kernel::{SysResult, Task};
use ksync::WaitQueue;
use netstack::Family;
use netstack::raw::{RAW, RawHow, RawSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// `ICMP_FILTER` and `ICMPV6_FILTER` of their levels.
const FILTER: i32 = 1;
/// `IPV6_CHECKSUM`
const CHECKSUM: i32 = 7;

/// A raw or ping socket.
pub struct InetRaw {
    base: Base,
    raw: Arc<RawSocket>,
    header_included: AtomicBool,
    /// `IPV6_ROUTER_ALERT`
    alerts: AtomicBool,
    /// Where a checksum is put into what is sent; -1 for none.
    checksum_at: AtomicI32,
    released: AtomicBool,
}

impl InetRaw {
    pub(super) fn create(base: Base, protocol: u8, ping: bool) -> Arc<InetRaw> {
        let raw = RawSocket::new(&base.stack, base.family, protocol, ping, base.waker());
        Arc::new(InetRaw {
            base,
            raw,
            // Nobody but the sender can know what protocol this is.
            header_included: AtomicBool::new(protocol == RAW),
            alerts: AtomicBool::new(false),
            checksum_at: AtomicI32::new(if protocol == netstack::raw::ICMPV6 { 2 } else { -1 }),
            released: AtomicBool::new(false),
        })
    }

    /// The name of the level that filters, and how many words a filter has.
    fn filter_level(&self) -> (i32, usize) {
        if self.base.family == Family::V4 { (SOL_RAW, 1) } else { (SOL_ICMPV6, 8) }
    }

    /// `IPV6_ROUTER_ALERT`: EADDRINUSE for the second time, ENOBUFS for nothing to be taken away.
    fn router_alert(&self, value: i32) -> Result<()> {
        let had = self.alerts.swap(value >= 0, Ordering::AcqRel);
        match (had, value >= 0) {
            (true, true) => return Err(Errno::EADDRINUSE),
            (false, false) => return Err(Errno::ENOBUFS),
            _ => {}
        }
        self.base.numbers.put(SOL_IPV6, ipv6::ROUTER_ALERT, i32::from(value != 0));
        Ok(())
    }

    fn is_icmp(&self) -> bool {
        !self.raw.ping && matches!(self.raw.protocol, netstack::raw::ICMP | netstack::raw::ICMPV6)
    }
}

impl SocketOps for InetRaw {
    fn options(&self) -> &Arc<SockOptions> {
        &self.base.options
    }

    fn queue(&self) -> &Arc<WaitQueue> {
        &self.base.wait
    }

    fn attach(&self, ino: u64) {
        self.base.ino.store(ino, Ordering::Relaxed);
        let _ = self.raw.tag.set((ino, self.base.uid.load(Ordering::Relaxed)));
    }

    fn poll(&self, _cx: &Caller<'_>) -> PollEvents {
        PollEvents::from_bits_truncate(self.raw.poll().0)
    }

    fn bind(&self, _cx: &Caller<'_>, addr: &[u8]) -> Result<()> {
        let to = address::to_bind(self.base.family, addr)?;
        self.raw.bind(to, self.base.bind_options()).map_err(errno)
    }

    fn connect(&self, _cx: &Caller<'_>, addr: &[u8], _wait_on: &mut Option<Arc<WaitQueue>>) -> Result<()> {
        if address::family_of(addr)? == AF_UNSPEC {
            self.raw.disconnect();
            return Ok(());
        }
        let to = address::to_reach(self.base.family, addr, false)?;
        self.base.check_scope(to)?;
        self.base.sticky().flow = self.base.flow_of(addr).unwrap_or(0);
        let how = self.base.how(to.ip, &SendControl::default(), &Said::default());
        self.raw.connect(to, self.base.bind_options(), &how).map_err(errno)
    }

    fn name(&self) -> Result<Vec<u8>> {
        let mut name = self.raw.local();
        if !self.raw.ping {
            // A raw socket's port is its protocol.
            name.port = self.raw.protocol.into();
        }
        Ok(self.base.encode(name))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let remote = self.raw.remote().ok_or(Errno::ENOTCONN)?;
        Ok(self.base.encode(remote))
    }

    fn send(&self, cx: &Caller<'_>, args: &mut SendArgs<'_>) -> Result<usize> {
        if args.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let len = args.data.remaining();
        if len > 65535 && self.base.family == Family::V4 {
            return Err(Errno::EMSGSIZE);
        }
        let mut to = match args.to {
            Some(raw) => Some(address::to_reach(self.base.family, raw, false)?),
            None => None,
        };
        if !self.raw.ping
            && let Some(to) = &mut to
        {
            // There are no ports.
            to.port = 0;
        }
        let (control, mut said) = all_control(self.base.family, &args.control, may_raw(cx))?;
        check_rights(cx, &control)?;
        said.direct = args.flags & MSG_DONTROUTE != 0;
        said.flow = said.flow.or_else(|| self.base.flow_of(args.to?));
        let target = to.or(self.raw.remote()).ok_or(Errno::EDESTADDRREQ)?;
        let header_included = self.header_included.load(Ordering::Relaxed);
        let data = take_all(args.data)?;
        let how = self.base.how(target.ip, &control, &said);
        let checksum_at = usize::try_from(self.checksum_at.load(Ordering::Relaxed)).ok();
        self.raw.send(to, &data, &how, RawHow { header_included, checksum_at }).map_err(errno)?;
        Ok(len)
    }

    fn receive(&self, _cx: &Caller<'_>, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        if flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        self.base.receive(&self.raw, dst, flags, 0)
    }

    fn shutdown(&self, _cx: &Caller<'_>, how: i32) -> Result<()> {
        let (receive, send) = directions(how)?;
        self.raw.shutdown(receive, send).map_err(errno)
    }

    fn getsockopt(&self, _cx: &Caller<'_>, level: i32, name: i32, want: usize) -> Result<Vec<u8>> {
        let int = |v: i32| Ok(v.to_ne_bytes().to_vec());
        let (filters, words) = self.filter_level();
        match (level, name) {
            (SOL_IP, ip::HDRINCL) => int(self.header_included.load(Ordering::Relaxed).into()),
            (SOL_IPV6, ipv6::HDRINCL) if !self.raw.ping && self.base.family == Family::V6 => {
                int(self.header_included.load(Ordering::Relaxed).into())
            }
            (SOL_IPV6 | SOL_RAW, CHECKSUM) if self.base.family == Family::V6 => {
                int(self.checksum_at.load(Ordering::Relaxed))
            }
            (l, FILTER) if l == filters && self.is_icmp() => {
                let all = self.raw.filter();
                Ok(all.iter().take(words).flat_map(|w| w.to_ne_bytes()).collect())
            }
            (l, _) if l == filters => {
                Err(if self.is_icmp() { Errno::ENOPROTOOPT } else { Errno::EOPNOTSUPP })
            }
            _ => self.base.getsockopt(level, name, want, self.raw.remote()),
        }
    }

    fn setsockopt(&self, cx: &Caller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let (filters, words) = self.filter_level();
        match (level, name) {
            (SOL_IPV6, ipv6::HDRINCL) if !self.raw.ping && self.base.family == Family::V6 => {
                self.header_included.store(number(level, value)? != 0, Ordering::Relaxed);
                return Ok(());
            }
            // Packets that pass through are seen with it; none does.
            (SOL_IPV6, ipv6::ROUTER_ALERT) if !self.raw.ping && self.raw.protocol == RAW => {
                return self.router_alert(number(level, value)?);
            }
            (SOL_IP, ip::HDRINCL) if !self.raw.ping => {
                self.header_included.store(number(level, value)? != 0, Ordering::Relaxed);
                return Ok(());
            }
            (SOL_IPV6 | SOL_RAW, CHECKSUM) if self.base.family == Family::V6 => {
                let v = number(level, value)?;
                // Those of ICMPv6 are made always, which only the older level says; others stand at an even place.
                let made = self.raw.protocol == netstack::raw::ICMPV6 && level == SOL_IPV6;
                if made || v > 0 && v & 1 == 1 {
                    return Err(Errno::EINVAL);
                }
                self.checksum_at.store(v.max(-1), Ordering::Relaxed);
                return Ok(());
            }
            (l, FILTER) if l == filters && self.is_icmp() => {
                let mut all = self.raw.filter();
                for (word, raw) in all.iter_mut().take(words).zip(value.chunks_exact(4)) {
                    *word = u32::from_ne_bytes(raw.try_into().unwrap_or_default());
                }
                self.raw.set_filter(all);
                return Ok(());
            }
            (l, _) if l == filters => {
                return Err(if self.is_icmp() { Errno::ENOPROTOOPT } else { Errno::EOPNOTSUPP });
            }
            _ => {}
        }
        self.base.setsockopt(cx, level, name, value, false)?;
        if level == SOL_SOCKET && matches!(name, so::BINDTODEVICE | so::BINDTOIFINDEX) {
            self.raw.set_bind_options(self.base.bind_options());
        }
        self.base.apply_reports(&self.raw, level, name);
        Ok(())
    }

    fn has_filters(&self) -> bool {
        true
    }

    fn filter_changed(&self, filter: Option<Arc<Program>>) {
        self.raw.set_sieve(sieve(filter));
    }

    fn option_changed(&self, name: i32) {
        if matches!(name, so::RCVBUF | so::RCVBUFFORCE) {
            self.raw.set_limit(self.base.options.receive_buffer());
        }
    }

    fn memory(&self) -> (usize, usize) {
        (self.raw.usage().0, 0)
    }

    fn drops(&self) -> usize {
        usize::try_from(self.raw.usage().1).unwrap_or(usize::MAX)
    }

    fn take_error(&self) -> Option<Errno> {
        self.raw.take_error().map(errno)
    }

    fn ioctl(&self, task: &Task, cmd: u32, arg: u64) -> SysResult {
        queue_ioctl(&self.raw, task, cmd, arg)
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn release(&self) {
        if !self.released.swap(true, Ordering::AcqRel) {
            self.raw.close();
        }
    }
}
