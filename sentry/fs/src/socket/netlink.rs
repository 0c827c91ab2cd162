//! AF_NETLINK (netlink(7)): the socket with its queue of answers. What questions mean is in `netlink/route.rs`
//! (rtnetlink(7)) and `netlink/diag.rs` (sock_diag(7)).

mod diag;
mod message;
mod neighbour;
mod route;

use super::filter::Packet;
use super::inet::stack_for;
use super::{Family, Received, SendArgs, SockOptions, SocketOps, Speaks};
use abi::poll::PollEvents;
use abi::socket::{AF_NETLINK, MSG_OOB, MSG_PEEK, MSG_TRUNC, SOCK_DGRAM, SOCK_RAW};
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::io::Sink;
use kernel::uaccess::UserPtr;
use kernel::vfs::Caller;
use kernel::{Kernel, SysResult, Task};
use ksync::{LockClass, Mutex, WaitQueue};
use message::{Answers, Request};
use netstack::Stack;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

const NETLINK_ROUTE: i32 = 0;
const NETLINK_SOCK_DIAG: i32 = 4;
/// News of devices: none comes or goes here, so a socket of it is silent.
const NETLINK_KOBJECT_UEVENT: i32 = 15;
/// `SOL_NETLINK`
const SOL_NETLINK: i32 = 270;
/// The largest datagram of answers: what a dump fills before the next one. As with Linux it fits into a page, since
/// that is what many readers (getifaddrs(3) of glibc, ip of busybox) give a message; more would be truncated.
pub(super) const PAGE: usize = 3776;

/// What netlink sockets of one sandbox share: the port ids in use of each protocol, and who is a member of groups.
struct Ports {
    taken: Mutex<BTreeSet<(i32, u32)>>,
    members: Mutex<Vec<Weak<NetlinkSocket>>>,
}

impl Ports {
    fn of(kernel: &Kernel) -> Arc<Ports> {
        kernel.extensions.get_or_init(|| Ports {
            taken: Mutex::new(LockClass::Leaf, BTreeSet::new()),
            members: Mutex::new(LockClass::Leaf, Vec::new()),
        })
    }
}

/// Datagrams that may wait of those nobody asked for.
const MOST_NEWS: usize = 1024;

/// Tells the members of a group (`RTNLGRP_*`, from 1) of a change in a network namespace. `make` writes the
/// messages.
pub fn announce(kernel: &Kernel, stack: &Stack, group: u32, make: impl Fn(&mut Answers)) {
    let members: Vec<Arc<NetlinkSocket>> = {
        let ports = Ports::of(kernel);
        let mut all = ports.members.lock();
        all.retain(|m| m.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    };
    let bit = 1 << (group - 1);
    for m in members.iter().filter(|m| std::ptr::eq(Arc::as_ptr(&m.stack), stack)) {
        let mut answers = Answers::new(0);
        make(&mut answers);
        {
            let mut s = m.state.lock();
            if s.groups & bit == 0 {
                continue;
            }
            if s.answers.len() >= MOST_NEWS {
                s.overrun = true;
            } else {
                s.answers.extend(m.filtered(answers.finish()).map(|d| (bit, d)));
            }
        }
        m.wait.wake(PollEvents::READABLE.bits());
    }
}

#[derive(Default)]
struct State {
    port: u32,
    groups: u32,
    connected: Option<(u32, u32)>,
    /// Groups that a datagram was sent to (0: an answer), and its bytes.
    answers: VecDeque<(u32, Vec<u8>)>,
    /// News was lost: ENOBUFS is told once.
    overrun: bool,
}

/// A netlink socket.
pub struct NetlinkSocket {
    me: Weak<NetlinkSocket>,
    protocol: i32,
    stack: Arc<Stack>,
    ports: Arc<Ports>,
    options: Arc<SockOptions>,
    wait: Arc<WaitQueue>,
    state: Mutex<State>,
    /// Bits of the options that are flags.
    flags: AtomicU32,
    released: AtomicBool,
}

/// Makes netlink sockets.
pub struct NetlinkFamily;

impl Family for NetlinkFamily {
    fn create(&self, cx: &Caller<'_>, kind: i32, protocol: i32) -> Result<(Arc<dyn SocketOps>, i32)> {
        if !matches!(kind, SOCK_RAW | SOCK_DGRAM) {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        if !(0..32).contains(&protocol) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let task = cx.task.ok_or(Errno::EPROTONOSUPPORT)?;
        if !matches!(protocol, NETLINK_ROUTE | NETLINK_SOCK_DIAG | NETLINK_KOBJECT_UEVENT) {
            kernel::gap!(task.kernel(), "netlink protocol", protocol.unsigned_abs());
            return Err(Errno::EPROTONOSUPPORT);
        }
        let stack = stack_for(cx).ok_or(Errno::EPROTONOSUPPORT)?;
        let ports = Ports::of(task.kernel());
        let socket = Arc::new_cyclic(|me| NetlinkSocket {
            me: me.clone(),
            protocol,
            stack,
            ports,
            options: Arc::new(SockOptions::new(Speaks::Netlink)),
            wait: Arc::new(WaitQueue::new()),
            state: Mutex::new(LockClass::Stream, State::default()),
            flags: AtomicU32::new(0),
            released: AtomicBool::new(false),
        });
        Ok((socket, protocol))
    }
}

/// Port and groups of a `struct sockaddr_nl`: EINVAL.
fn parse(raw: &[u8]) -> Result<(u32, u32)> {
    let word = |at: usize| -> Result<u32> {
        let b: [u8; 4] = raw.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)?;
        Ok(u32::from_ne_bytes(b))
    };
    if raw.get(..2) != Some(&AF_NETLINK.to_ne_bytes()[..]) {
        return Err(Errno::EINVAL);
    }
    Ok((word(4)?, word(8)?))
}

fn encode(port: u32, groups: u32) -> Vec<u8> {
    let mut out = u32::from(AF_NETLINK).to_ne_bytes().to_vec();
    out.extend(port.to_ne_bytes());
    out.extend(groups.to_ne_bytes());
    out
}

impl NetlinkSocket {
    /// Takes a port id; the process' number if none is given and it is free.
    fn claim(&self, cx: &Caller<'_>, wish: u32) -> Result<()> {
        let mut state = self.state.lock();
        if state.port != 0 {
            return if wish == 0 || wish == state.port { Ok(()) } else { Err(Errno::EINVAL) };
        }
        let own = cx.task.and_then(|t| t.group().pid().number_in(&t.pid_ns())).unwrap_or(1).unsigned_abs();
        let mut taken = self.ports.taken.lock();
        let mut port = if wish == 0 { own } else { wish };
        let mut next = u32::MAX - 4096;
        while !taken.insert((self.protocol, port)) {
            if wish != 0 {
                return Err(Errno::EADDRINUSE);
            }
            port = next;
            next -= 1;
        }
        state.port = port;
        Ok(())
    }

    /// From now on this socket may be a member of groups.
    fn enlist(&self) {
        let mut members = self.ports.members.lock();
        if !members.iter().any(|m| Weak::ptr_eq(m, &self.me)) {
            members.push(self.me.clone());
        }
    }

    /// What the socket's filter lets through.
    fn filtered(&self, datagrams: Vec<Vec<u8>>) -> impl Iterator<Item = Vec<u8>> {
        let filter = self.options.filter();
        datagrams.into_iter().filter_map(move |mut data| {
            let Some(filter) = &filter else { return Some(data) };
            let seen = Packet { data: &data, ..Packet::default() };
            let kept = seen.kept_by(filter)?;
            data.truncate(kept);
            Some(data)
        })
    }

    fn answer(&self, cx: &Caller<'_>, raw: &[u8]) {
        let port = self.state.lock().port;
        let mut answers = Answers::new(port);
        let mut rest = raw;
        while let Some((request, after)) = Request::split(rest) {
            rest = after;
            if request.flags & message::REQUEST == 0 || request.kind < 16 {
                if request.flags & message::ACK != 0 {
                    answers.status(&request, None);
                }
                continue;
            }
            let result = match self.protocol {
                NETLINK_ROUTE => route::handle(cx, &self.stack, &request, &mut answers),
                NETLINK_KOBJECT_UEVENT => Err(Errno::EOPNOTSUPP),
                _ => diag::handle(cx, &self.stack, &request, &mut answers),
            };
            match result {
                Err(e) => answers.status(&request, Some(e)),
                Ok(()) if request.flags & message::ACK != 0 && !request.is_dump() => {
                    answers.status(&request, None);
                }
                Ok(()) => {}
            }
        }
        let datagrams: Vec<Vec<u8>> = self.filtered(answers.finish()).collect();
        if !datagrams.is_empty() {
            self.state.lock().answers.extend(datagrams.into_iter().map(|d| (0, d)));
            self.wait.wake(PollEvents::READABLE.bits());
        }
    }
}

/// The rows of /proc/net/netlink. Where Linux shows an address of the kernel, there are zeroes.
pub fn table(cx: &Caller<'_>) -> String {
    let mut out = String::from(
        "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n",
    );
    let Some(task) = cx.task else { return out };
    let mut taken: Vec<(i32, u32)> = Ports::of(task.kernel()).taken.lock().iter().copied().collect();
    taken.sort_unstable();
    for (protocol, port) in taken {
        out.push_str(&format!(
            "{:016x} {protocol:<3} {port:<10} {:08x} {:<8} {:<8} {:<5} {:<8} {:<8} {:<8}\n",
            0, 0, 0, 0, 0, 2, 0, 0
        ));
    }
    out
}

impl SocketOps for NetlinkSocket {
    fn has_filters(&self) -> bool {
        true
    }
    fn options(&self) -> &Arc<SockOptions> {
        &self.options
    }
    fn queue(&self) -> &Arc<WaitQueue> {
        &self.wait
    }
    fn poll(&self, _cx: &Caller<'_>) -> PollEvents {
        let mut e = PollEvents::WRITABLE | PollEvents::WRBAND;
        if !self.state.lock().answers.is_empty() {
            e |= PollEvents::READABLE;
        }
        e
    }
    fn bind(&self, cx: &Caller<'_>, addr: &[u8]) -> Result<()> {
        let (port, groups) = parse(addr)?;
        let own = self.state.lock().port;
        if own != 0 && own != port {
            return Err(Errno::EINVAL);
        }
        self.claim(cx, port)?;
        if groups != 0 && self.protocol == NETLINK_SOCK_DIAG && !cx.creds.has_cap(CapSet::NET_ADMIN) {
            return Err(Errno::EPERM);
        }
        self.state.lock().groups = groups;
        if groups != 0 {
            self.enlist();
        }
        Ok(())
    }
    fn connect(&self, cx: &Caller<'_>, addr: &[u8], _wait_on: &mut Option<Arc<WaitQueue>>) -> Result<()> {
        if addr.get(..2) == Some(&[0, 0]) {
            self.state.lock().connected = None;
            return Ok(());
        }
        let to = parse(addr)?;
        if (to.0 != 0 || to.1 != 0) && !cx.creds.has_cap(CapSet::NET_ADMIN) {
            return Err(Errno::EPERM);
        }
        self.claim(cx, 0)?;
        self.state.lock().connected = Some(to);
        Ok(())
    }
    fn name(&self) -> Result<Vec<u8>> {
        let s = self.state.lock();
        Ok(encode(s.port, s.groups))
    }
    fn peer_name(&self) -> Result<Vec<u8>> {
        let (port, groups) = self.state.lock().connected.unwrap_or_default();
        Ok(encode(port, groups))
    }
    fn send(&self, cx: &Caller<'_>, args: &mut SendArgs<'_>) -> Result<usize> {
        if args.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let to = match args.to {
            Some(raw) => parse(raw)?,
            None => self.state.lock().connected.unwrap_or_default(),
        };
        self.claim(cx, 0)?;
        let raw = args.data.take_all(self.options.send_buffer().saturating_sub(32))?;
        if to.0 != 0 {
            // Nobody but the kernel listens on these protocols.
            return Err(Errno::ECONNREFUSED);
        }
        self.answer(cx, &raw);
        Ok(raw.len())
    }
    fn receive(&self, _cx: &Caller<'_>, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        if flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let peek = flags & MSG_PEEK != 0;
        let (groups, datagram) = {
            let mut s = self.state.lock();
            if std::mem::take(&mut s.overrun) {
                return Err(Errno::ENOBUFS);
            }
            let found = if peek { s.answers.front().cloned() } else { s.answers.pop_front() };
            found.ok_or(Errno::EAGAIN)?
        };
        let want = datagram.len().min(dst.remaining());
        let copied = if want == 0 { 0 } else { dst.put(&datagram)? };
        if copied < want {
            return Err(Errno::EFAULT);
        }
        Ok(Received {
            len: if flags & MSG_TRUNC != 0 { datagram.len() } else { copied },
            from: Some(encode(0, groups)),
            flags: if copied < datagram.len() { MSG_TRUNC } else { 0 },
            ..Received::default()
        })
    }
    fn shutdown(&self, _cx: &Caller<'_>, _how: i32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn getsockopt(&self, _cx: &Caller<'_>, level: i32, name: i32, _want: usize) -> Result<Vec<u8>> {
        match (level, name) {
            (SOL_NETLINK, 3 | 4 | 5 | 8 | 10 | 11 | 12) => {
                Ok(i32::from(self.flags.load(Ordering::Relaxed) >> name & 1 == 1).to_ne_bytes().to_vec())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
    fn setsockopt(&self, _cx: &Caller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if level != SOL_NETLINK {
            return Err(Errno::ENOPROTOOPT);
        }
        let on = super::options::int_value(value)?;
        match name {
            1 | 2 => {
                if !(1..32).contains(&on) {
                    return Err(Errno::EINVAL);
                }
                let bit = 1 << (on - 1);
                {
                    let mut s = self.state.lock();
                    s.groups = if name == 1 { s.groups | bit } else { s.groups & !bit };
                }
                self.enlist();
                Ok(())
            }
            3 | 4 | 5 | 8 | 10 | 11 | 12 => {
                let bit = 1 << name;
                if on != 0 {
                    self.flags.fetch_or(bit, Ordering::Relaxed);
                } else {
                    self.flags.fetch_and(!bit, Ordering::Relaxed);
                }
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
    fn ioctl(&self, task: &Task, cmd: u32, arg: u64) -> SysResult {
        const SIOCINQ: u32 = 0x541b;
        if cmd != SIOCINQ {
            return Err(Errno::ENOTTY.into());
        }
        let n = self.state.lock().answers.front().map_or(0, |(_, d)| d.len());
        UserPtr::new(arg).write(&task.mm(), &i32::try_from(n).unwrap_or(i32::MAX))?;
        Ok(0)
    }
    fn is_stream(&self) -> bool {
        false
    }
    fn release(&self) {
        if !self.released.swap(true, Ordering::AcqRel) {
            let port = self.state.lock().port;
            self.ports.taken.lock().remove(&(self.protocol, port));
        }
    }
}
