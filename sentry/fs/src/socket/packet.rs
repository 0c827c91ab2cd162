//! AF_PACKET (packet(7)), for reading: the frames of the links that lead out of the sandbox. What is handed over
//! inside of it is no frame and is not seen.

use super::filter::Packet;
use super::inet::stack_for;
use super::{Family, Received, SendArgs, SockOptions, SocketOps, Speaks};
use abi::poll::PollEvents;
use abi::socket::{AF_PACKET, MSG_OOB, MSG_PEEK, MSG_TRUNC, SOCK_DGRAM, SOCK_RAW};
use abi::{Errno, Result};
use kernel::bpf::Program;
use kernel::creds::CapSet;
use kernel::io::Sink;
use kernel::uaccess::UserPtr;
use kernel::vfs::Caller;
use kernel::{SysResult, Task};
use ksync::{LockClass, Mutex, WaitQueue};
use netstack::engine::tap::{FrameSink, SeenFrame, TapFilter};
use netstack::{Stack, Tapped};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// `SOL_PACKET`
const SOL_PACKET: i32 = 263;
const PACKET_ADD_MEMBERSHIP: i32 = 1;
const PACKET_DROP_MEMBERSHIP: i32 = 2;
const PACKET_STATISTICS: i32 = 6;
/// `ETH_P_ALL`
const ALL: u16 = 3;
/// `sizeof(struct sockaddr_ll)`
const ADDRESS: usize = 20;
/// Memory a frame counts beside its data.
const OVERHEAD: usize = 768;

/// Frames that wait.
struct Queue {
    frames: Mutex<VecDeque<SeenFrame>>,
    bytes: AtomicU64,
    limit: AtomicU64,
    seen: AtomicU64,
    dropped: AtomicU64,
    wait: Arc<WaitQueue>,
    stack: Arc<Stack>,
    /// With the link's header (SOCK_RAW) or without.
    headers: bool,
    filter: Mutex<Option<Arc<Program>>>,
}

impl FrameSink for Queue {
    fn frame(&self, mut frame: SeenFrame) {
        // Outside of the lock: a filter is asked of each frame.
        let filter = self.filter.lock().clone();
        if let Some(filter) = filter {
            let network = frame.data.get(frame.header..).unwrap_or_default();
            let start = if self.headers { 0 } else { frame.header };
            let seen = Packet {
                mark: 0,
                link: &frame.data,
                network,
                data: if self.headers { &frame.data } else { network },
                protocol: frame.protocol,
                kind: frame.kind as u8,
                device: frame.interface,
                hardware: self
                    .stack
                    .interfaces
                    .by_index(frame.interface)
                    .map_or(0, |i| super::interfaces::hardware_type(&i)),
            };
            let Some(kept) = seen.kept_by(&filter) else { return };
            frame.data.truncate(start + kept);
        }
        self.seen.fetch_add(1, Ordering::Relaxed);
        if self.bytes.load(Ordering::Relaxed) > self.limit.load(Ordering::Relaxed) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.bytes.fetch_add((frame.data.len() + OVERHEAD) as u64, Ordering::Relaxed);
        self.frames.lock().push_back(frame);
        self.wait.wake(PollEvents::READABLE.bits());
    }
}

/// What is seen: protocol 0 is nothing.
#[derive(Clone, Copy, Default)]
struct Bound {
    protocol: u16,
    index: u32,
}

impl Bound {
    fn filter(self) -> TapFilter {
        TapFilter {
            interface: (self.index != 0).then_some(self.index),
            protocol: (self.protocol != ALL).then_some(self.protocol),
        }
    }
}

/// A packet socket.
pub struct PacketSocket {
    stack: Arc<Stack>,
    options: Arc<SockOptions>,
    queue: Arc<Queue>,
    bound: Mutex<Bound>,
    tap: Mutex<Option<Tapped>>,
}

/// Makes packet sockets.
pub struct PacketFamily;

impl Family for PacketFamily {
    fn create(&self, cx: &Caller<'_>, kind: i32, protocol: i32) -> Result<(Arc<dyn SocketOps>, i32)> {
        let task = cx.task.ok_or(Errno::EPERM)?;
        if !cx.creds.has_cap_in(&task.namespaces().net.user_ns, CapSet::NET_RAW) {
            return Err(Errno::EPERM);
        }
        if !matches!(kind, SOCK_RAW | SOCK_DGRAM) {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        let number = u16::try_from(protocol).map_err(|_| Errno::EINVAL)?;
        let stack = stack_for(cx).ok_or(Errno::EAFNOSUPPORT)?;
        let queue = Queue {
            frames: Mutex::new(LockClass::Leaf, VecDeque::new()),
            bytes: AtomicU64::new(0),
            limit: AtomicU64::new(212_992),
            seen: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            wait: Arc::new(WaitQueue::new()),
            stack: Arc::clone(&stack),
            headers: kind == SOCK_RAW,
            filter: Mutex::new(LockClass::Leaf, None),
        };
        let socket = PacketSocket {
            stack,
            options: Arc::new(SockOptions::new(Speaks::Packet)),
            queue: Arc::new(queue),
            bound: Mutex::new(LockClass::Leaf, Bound::default()),
            tap: Mutex::new(LockClass::Leaf, None),
        };
        socket.see(Bound { protocol: u16::from_be(number), index: 0 });
        Ok((Arc::new(socket), protocol))
    }
}

impl PacketSocket {
    /// Begins to see what a binding says.
    fn see(&self, bound: Bound) {
        *self.bound.lock() = bound;
        let sink: Arc<dyn FrameSink> = self.queue.clone();
        let new = if bound.protocol == 0 { None } else { self.stack.tap(bound.filter(), &sink) };
        let old = std::mem::replace(&mut *self.tap.lock(), new);
        drop(old);
    }

    /// A `struct sockaddr_ll`.
    fn address(&self, protocol: u16, index: u32, kind: u8, hardware: &[u8]) -> Vec<u8> {
        let found = self.stack.interfaces.by_index(index);
        let mut out = AF_PACKET.to_ne_bytes().to_vec();
        out.extend(protocol.to_be_bytes());
        out.extend(index.to_ne_bytes());
        out.extend(found.map_or(0, |i| super::interfaces::hardware_type(&i)).to_ne_bytes());
        out.extend([kind, u8::try_from(hardware.len()).unwrap_or(0)]);
        out.extend(hardware);
        out.resize(ADDRESS, 0);
        out
    }
}

impl SocketOps for PacketSocket {
    fn options(&self) -> &Arc<SockOptions> {
        &self.options
    }
    fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue.wait
    }
    fn poll(&self, _cx: &Caller<'_>) -> PollEvents {
        let mut events = PollEvents::WRITABLE | PollEvents::WRBAND;
        if !self.queue.frames.lock().is_empty() {
            events |= PollEvents::READABLE;
        }
        events
    }
    fn bind(&self, _cx: &Caller<'_>, addr: &[u8]) -> Result<()> {
        if addr.len() < ADDRESS || addr.get(..2) != Some(&AF_PACKET.to_ne_bytes()[..]) {
            return Err(Errno::EINVAL);
        }
        let protocol = u16::from_be_bytes([addr[2], addr[3]]);
        let index = u32::from_ne_bytes([addr[4], addr[5], addr[6], addr[7]]);
        if index != 0 && self.stack.interfaces.by_index(index).is_none() {
            return Err(Errno::ENODEV);
        }
        let protocol = if protocol == 0 { self.bound.lock().protocol } else { protocol };
        self.see(Bound { protocol, index });
        Ok(())
    }
    fn connect(&self, _cx: &Caller<'_>, _addr: &[u8], _wait_on: &mut Option<Arc<WaitQueue>>) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn name(&self) -> Result<Vec<u8>> {
        let bound = *self.bound.lock();
        let hardware = self.stack.interfaces.by_index(bound.index).map(|i| i.hardware);
        Ok(self.address(bound.protocol, bound.index, 0, hardware.as_ref().map_or(&[], |h| &h[..])))
    }
    fn peer_name(&self) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }
    fn send(&self, cx: &Caller<'_>, _args: &mut SendArgs<'_>) -> Result<usize> {
        if let Some(t) = cx.task {
            kernel::gap!(t.kernel(), "sending by packet sockets");
        }
        Err(Errno::EOPNOTSUPP)
    }
    fn receive(&self, _cx: &Caller<'_>, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        if flags & MSG_OOB != 0 {
            return Err(Errno::EINVAL);
        }
        let frame = {
            let mut frames = self.queue.frames.lock();
            let found = if flags & MSG_PEEK != 0 { frames.front().cloned() } else { frames.pop_front() };
            found.ok_or(Errno::EAGAIN)?
        };
        if flags & MSG_PEEK == 0 {
            self.queue.bytes.fetch_sub((frame.data.len() + OVERHEAD) as u64, Ordering::Relaxed);
        }
        let data = &frame.data[if self.queue.headers { 0 } else { frame.header }..];
        let want = data.len().min(dst.remaining());
        let copied = if want == 0 { 0 } else { dst.put(data)? };
        if copied < want {
            return Err(Errno::EFAULT);
        }
        // The sender stands in the second half of the header's addresses.
        let source = if frame.header >= 12 { &frame.data[6..12] } else { &[] };
        Ok(Received {
            len: if flags & MSG_TRUNC != 0 { data.len() } else { copied },
            from: Some(self.address(frame.protocol, frame.interface, frame.kind as u8, source)),
            flags: if copied < data.len() { MSG_TRUNC } else { 0 },
            ..Received::default()
        })
    }
    fn shutdown(&self, _cx: &Caller<'_>, _how: i32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn getsockopt(&self, _cx: &Caller<'_>, level: i32, name: i32, _want: usize) -> Result<Vec<u8>> {
        match (level, name) {
            (SOL_PACKET, PACKET_STATISTICS) => {
                // Asking begins anew.
                let take = |c: &AtomicU64| u32::try_from(c.swap(0, Ordering::Relaxed)).unwrap_or(u32::MAX);
                let (seen, dropped) = (take(&self.queue.seen), take(&self.queue.dropped));
                Ok([seen, dropped].iter().flat_map(|n| n.to_ne_bytes()).collect())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
    fn setsockopt(&self, _cx: &Caller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        match (level, name) {
            // A link gives all it has: there is no more to ask of it.
            (SOL_PACKET, PACKET_ADD_MEMBERSHIP | PACKET_DROP_MEMBERSHIP) => {
                let index: [u8; 4] = value.get(..4).and_then(|v| v.try_into().ok()).ok_or(Errno::EINVAL)?;
                match self.stack.interfaces.by_index(u32::from_ne_bytes(index)) {
                    Some(_) => Ok(()),
                    None => Err(Errno::ENODEV),
                }
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
    fn has_filters(&self) -> bool {
        true
    }
    fn filter_changed(&self, filter: Option<Arc<Program>>) {
        let old = std::mem::replace(&mut *self.queue.filter.lock(), filter);
        drop(old);
    }
    fn option_changed(&self, _name: i32) {
        self.queue.limit.store(self.options.receive_buffer() as u64, Ordering::Relaxed);
    }
    fn ioctl(&self, task: &Task, cmd: u32, arg: u64) -> SysResult {
        const SIOCINQ: u32 = 0x541b;
        if cmd != SIOCINQ {
            return Err(Errno::ENOTTY.into());
        }
        let n = self.queue.frames.lock().front().map_or(0, |f| f.data.len());
        UserPtr::new(arg).write(&task.mm(), &i32::try_from(n).unwrap_or(i32::MAX))?;
        Ok(0)
    }
    fn is_stream(&self) -> bool {
        false
    }
    fn release(&self) {
        let tap = self.tap.lock().take();
        drop(tap);
    }
}
