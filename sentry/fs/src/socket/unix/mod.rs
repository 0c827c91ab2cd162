//! AF_UNIX sockets (unix(7)): the object and its states. `send.rs` and `receive.rs` move the data.
//!
//! Each socket has two locks: `state` (address, peer, listening, shut directions) and `queue` (what
//! waits to be received), never both of one socket in the other order, and of two sockets only the
//! queue of the other. Packets and files are let go of outside of all locks.

mod address;
mod listed;
mod path;
mod queue;
mod receive;
mod rights;
mod send;

pub use address::UnixAddr;
pub use listed::{listed, table};
pub use rights::InFlight;

use super::{Family, Received, SendArgs, Sender, SockOptions, SocketOps, Speaks};
use abi::poll::PollEvents;
use abi::socket::{
    SHUT_RD, SHUT_RDWR, SHUT_WR, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM, Ucred, so,
};
use abi::{Errno, Result};
use address::{AbstractNames, Parsed};
use kernel::io::Sink;
use kernel::uaccess::UserPtr;
use kernel::vfs::Caller;
use kernel::{Kernel, SysResult, Task};
use ksync::{LockClass, Mutex, WaitQueue};
use queue::{Packet, ReceiveQueue, SendAccount};
use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use zerocopy::IntoBytes;

/// The three kinds of unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Stream,
    Dgram,
    Seqpacket,
}

struct Listening {
    backlog: usize,
    pending: VecDeque<Arc<UnixSocket>>,
}

#[derive(Default)]
struct State {
    addr: Option<Arc<UnixAddr>>,
    /// The inode that is bound to this socket, kept while it is bound.
    bound: Option<path::Bound>,
    /// The other end; for datagrams the default destination.
    peer: Option<Arc<UnixSocket>>,
    /// Was connected once: streams do not connect twice.
    connected: bool,
    listening: Option<Listening>,
    /// As `SO_PEERCRED` tells; of a listening socket: who called listen.
    peer_cred: Option<Sender>,
    own_cred: Option<Sender>,
    shut_receive: bool,
    shut_send: bool,
    dead: bool,
    error: Option<Errno>,
}

/// A unix socket.
pub struct UnixSocket {
    me: Weak<UnixSocket>,
    kernel: Weak<Kernel>,
    names: Arc<AbstractNames>,
    kind: Kind,
    options: Arc<SockOptions>,
    wait: Arc<WaitQueue>,
    account: Arc<SendAccount>,
    state: Mutex<State>,
    queue: Mutex<ReceiveQueue>,
    /// Length of `queue`, for senders that only want to know whether it is full.
    queued: AtomicUsize,
    released: AtomicBool,
    /// Of the open file; 0 for a connection that nobody has accepted yet.
    ino: AtomicU64,
}

/// Makes unix sockets.
pub struct UnixFamily;

impl Family for UnixFamily {
    fn create(&self, cx: &Caller<'_>, kind: i32, protocol: i32) -> Result<(Arc<dyn SocketOps>, i32)> {
        if protocol != 0 && protocol != 1 {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let kind = match kind {
            SOCK_STREAM => Kind::Stream,
            SOCK_DGRAM | SOCK_RAW => Kind::Dgram,
            SOCK_SEQPACKET => Kind::Seqpacket,
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        let kernel = cx.task.map(|t| Arc::downgrade(t.kernel())).unwrap_or_default();
        Ok((UnixSocket::new(kernel, AbstractNames::of(cx), kind, SockOptions::new(Speaks::Unix)), 0))
    }
}

impl UnixSocket {
    fn new(
        kernel: Weak<Kernel>,
        names: Arc<AbstractNames>,
        kind: Kind,
        options: SockOptions,
    ) -> Arc<UnixSocket> {
        let wait = Arc::new(WaitQueue::new());
        let list = Arc::clone(&names);
        let new = Arc::new_cyclic(|me| UnixSocket {
            me: me.clone(),
            kernel,
            names,
            kind,
            options: Arc::new(options),
            account: SendAccount::new(Arc::clone(&wait)),
            wait,
            state: Mutex::new(LockClass::Stream, State::default()),
            queue: Mutex::new(LockClass::StreamPeer, ReceiveQueue::default()),
            queued: AtomicUsize::new(0),
            released: AtomicBool::new(false),
            ino: AtomicU64::new(0),
        });
        list.enlist(&new);
        new
    }

    fn me(&self) -> Result<Arc<UnixSocket>> {
        self.me.upgrade().ok_or(Errno::ENOTCONN)
    }

    fn kernel(&self) -> Result<Arc<Kernel>> {
        self.kernel.upgrade().ok_or(Errno::EINVAL)
    }

    fn wake(&self, events: PollEvents) {
        self.wait.wake(events.bits());
    }

    fn wake_all(&self) {
        self.wait.wake_all(u32::MAX);
    }

    /// More datagrams than may wait here (`unix_recvq_full`).
    fn queue_full(&self) -> bool {
        let limit = self.kernel.upgrade().map_or(10, |k| k.sysctls.get_int("net/unix/max_dgram_qlen"));
        self.queued.load(Ordering::Acquire) > usize::try_from(limit).unwrap_or(0)
    }

    /// Finds the socket that an address names.
    fn find(&self, cx: &Caller<'_>, addr: &UnixAddr) -> Result<Arc<UnixSocket>> {
        let found = match addr {
            UnixAddr::Path(p) => path::find(cx, p)?,
            UnixAddr::Abstract(n) => self.names.find(self.kind, n).ok_or(Errno::ECONNREFUSED)?,
        };
        if found.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        Ok(found)
    }

    fn autobind(&self) -> Result<()> {
        if self.state.lock().addr.is_some() {
            return Ok(());
        }
        let names = &self.names;
        let addr = names.autobind(&self.me()?)?;
        let mut state = self.state.lock();
        if state.addr.is_none() {
            state.addr = Some(Arc::new(addr));
        } else if let UnixAddr::Abstract(n) = &addr {
            drop(state);
            names.unbind(n, self);
        }
        Ok(())
    }

    /// Numbers of the files that wait in messages here, and in connections that nobody has accepted.
    fn queued_files(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = Vec::new();
        for p in &self.queue.lock().packets {
            ids.extend(p.rights.iter().flat_map(rights::Rights::ids));
        }
        let embryos: Vec<Arc<UnixSocket>> =
            self.state.lock().listening.iter().flat_map(|l| l.pending.iter().cloned()).collect();
        for e in embryos {
            ids.extend(e.queued_files());
        }
        ids
    }

    /// Takes the files out of all messages that wait here.
    fn drain_rights(&self) -> Vec<rights::Rights> {
        let mut out: Vec<rights::Rights> =
            self.queue.lock().packets.iter_mut().filter_map(|p| p.rights.take()).collect();
        let embryos: Vec<Arc<UnixSocket>> =
            self.state.lock().listening.iter().flat_map(|l| l.pending.iter().cloned()).collect();
        for e in embryos {
            out.extend(e.drain_rights());
        }
        out
    }

    /// Connects a stream or seqpacket socket to a listening one.
    fn connect_stream(
        &self,
        cx: &Caller<'_>,
        addr: &UnixAddr,
        wait_on: &mut Option<Arc<WaitQueue>>,
    ) -> Result<()> {
        if self.options.pass_cred() {
            self.autobind()?;
        }
        let other = self.find(cx, addr)?;
        let me = self.me()?;
        if other.is_listening() {
            let mut own = self.state.lock();
            if own.connected {
                return Err(Errno::EISCONN);
            }
            if own.listening.is_some() {
                return Err(Errno::EINVAL);
            }
            own.connected = true;
        } else {
            return Err(Errno::ECONNREFUSED);
        }
        // From here on nobody else connects this socket; a failure takes that back.
        let cred = Sender::of(cx);
        let server = UnixSocket::new(
            self.kernel.clone(),
            Arc::clone(&other.names),
            self.kind,
            other.options.inherit(),
        );
        // The server's end is complete before anybody can accept it, told of it or not.
        let (addr, listen_cred) = {
            let theirs = other.state.lock();
            (theirs.addr.clone(), theirs.own_cred.clone())
        };
        {
            let mut s = server.state.lock();
            s.addr = addr;
            s.connected = true;
            s.peer = Some(me);
            s.peer_cred = Some(cred);
        }
        let offered = {
            let mut theirs = other.state.lock();
            let shut = theirs.shut_receive || theirs.dead;
            match &mut theirs.listening {
                Some(l) if !shut && l.pending.len() > l.backlog => Err(Errno::EAGAIN),
                Some(l) if !shut => {
                    l.pending.push_back(Arc::clone(&server));
                    Ok(())
                }
                _ => Err(Errno::ECONNREFUSED),
            }
        };
        match offered {
            Err(e) => {
                let me = server.state.lock().peer.take();
                self.state.lock().connected = false;
                drop(me);
                if e == Errno::EAGAIN {
                    *wait_on = Some(Arc::clone(&other.wait));
                }
                Err(e)
            }
            Ok(()) => {
                {
                    let mut own = self.state.lock();
                    own.peer = Some(server);
                    own.peer_cred = listen_cred;
                }
                other.wake(PollEvents::READABLE);
                self.wake_all();
                Ok(())
            }
        }
    }

    fn connect_dgram(&self, cx: &Caller<'_>, addr: &UnixAddr) -> Result<()> {
        if self.options.pass_cred() {
            self.autobind()?;
        }
        let other = self.find(cx, addr)?;
        if !other.accepts_from(self) {
            return Err(Errno::EPERM);
        }
        let old = {
            let mut own = self.state.lock();
            own.connected = true;
            own.peer.replace(other)
        };
        drop(old);
        self.wake_all();
        Ok(())
    }

    fn is_connected_to(&self, other: &UnixSocket) -> bool {
        self.state.lock().peer.as_ref().is_some_and(|p| std::ptr::eq(Arc::as_ptr(p), other))
    }

    /// Whether a datagram socket takes messages of `from`: it does unless it is connected to another.
    fn accepts_from(&self, from: &UnixSocket) -> bool {
        match &self.state.lock().peer {
            None => true,
            Some(p) => std::ptr::eq(Arc::as_ptr(p), from),
        }
    }
}

impl SocketOps for UnixSocket {
    // Of a stream nobody asks it.
    fn has_filters(&self) -> bool {
        true
    }
    fn attach(&self, ino: u64) {
        self.ino.store(ino, Ordering::Relaxed);
    }
    fn options(&self) -> &Arc<SockOptions> {
        &self.options
    }
    fn queue(&self) -> &Arc<WaitQueue> {
        &self.wait
    }

    fn poll(&self, _cx: &Caller<'_>) -> PollEvents {
        let mut events = PollEvents::empty();
        let peer;
        {
            let s = self.state.lock();
            if s.error.is_some() {
                events |= PollEvents::ERR;
            }
            if s.shut_receive && s.shut_send {
                events |= PollEvents::HUP;
            }
            if s.shut_receive {
                events |= PollEvents::RDHUP | PollEvents::READABLE;
            }
            if let Some(l) = &s.listening {
                if !l.pending.is_empty() {
                    events |= PollEvents::READABLE;
                }
                return events;
            }
            if self.kind != Kind::Dgram && !s.connected {
                events |= PollEvents::HUP;
            }
            peer = if self.kind == Kind::Dgram { s.peer.clone() } else { None };
        }
        if self.queued.load(Ordering::Acquire) > 0 {
            events |= PollEvents::READABLE;
            if self.kind == Kind::Stream && self.queue.lock().packets.iter().any(|p| p.oob) {
                events |= PollEvents::PRI;
            }
        }
        let room = self.account.used() * 4 <= self.options.send_buffer();
        if room && !peer.is_some_and(|p| p.queue_full() && !p.is_connected_to(self)) {
            events |= PollEvents::WRITABLE | PollEvents::WRBAND;
        }
        events
    }

    fn bind(&self, cx: &Caller<'_>, addr: &[u8]) -> Result<()> {
        let parsed = UnixAddr::parse(addr)?;
        let me = self.me()?;
        if self.state.lock().addr.is_some() {
            // An automatic name for a socket that has one is no error.
            return if matches!(parsed, Parsed::Auto) { Ok(()) } else { Err(Errno::EINVAL) };
        }
        match parsed {
            Parsed::Auto => self.autobind(),
            Parsed::Addr(UnixAddr::Abstract(n)) => {
                self.names.bind(&n, &me)?;
                self.state.lock().addr = Some(Arc::new(UnixAddr::Abstract(n)));
                Ok(())
            }
            Parsed::Addr(UnixAddr::Path(p)) => {
                let bound = path::bind(cx, &p, &me)?;
                let mut state = self.state.lock();
                state.bound = Some(bound);
                state.addr = Some(Arc::new(UnixAddr::Path(p)));
                Ok(())
            }
        }
    }

    fn listen(&self, cx: &Caller<'_>, backlog: u32) -> Result<()> {
        if self.kind == Kind::Dgram {
            return Err(Errno::EOPNOTSUPP);
        }
        let backlog = usize::try_from(backlog).map_err(|_| Errno::EINVAL)?;
        {
            let mut s = self.state.lock();
            if s.addr.is_none() || s.connected {
                return Err(Errno::EINVAL);
            }
            match &mut s.listening {
                Some(l) => l.backlog = backlog,
                None => s.listening = Some(Listening { backlog, pending: VecDeque::new() }),
            }
            s.own_cred = Some(Sender::of(cx));
        }
        self.wake_all();
        Ok(())
    }

    fn connect(&self, cx: &Caller<'_>, addr: &[u8], wait_on: &mut Option<Arc<WaitQueue>>) -> Result<()> {
        let unspec = addr.get(..2) == Some(&[0, 0]);
        if self.kind == Kind::Dgram && unspec {
            let old = {
                let mut s = self.state.lock();
                s.connected = false;
                s.peer.take()
            };
            drop(old);
            self.wake_all();
            return Ok(());
        }
        let Parsed::Addr(addr) = UnixAddr::parse(addr)? else {
            return Err(Errno::EINVAL);
        };
        match self.kind {
            Kind::Dgram => self.connect_dgram(cx, &addr),
            _ => self.connect_stream(cx, &addr, wait_on),
        }
    }

    fn accept(&self, _cx: &Caller<'_>) -> Result<Arc<dyn SocketOps>> {
        if self.kind == Kind::Dgram {
            return Err(Errno::EOPNOTSUPP);
        }
        let accepted = {
            let mut s = self.state.lock();
            let shut = s.shut_receive;
            let l = s.listening.as_mut().ok_or(Errno::EINVAL)?;
            match l.pending.pop_front() {
                Some(a) => a,
                None if shut => return Err(Errno::EINVAL),
                None => return Err(Errno::EAGAIN),
            }
        };
        // Somebody may wait for room in the backlog.
        self.wake(PollEvents::WRITABLE);
        Ok(accepted)
    }

    fn name(&self) -> Result<Vec<u8>> {
        let addr = self.state.lock().addr.clone();
        Ok(UnixAddr::encode(addr.as_deref()))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let peer = self.state.lock().peer.clone().ok_or(Errno::ENOTCONN)?;
        peer.name()
    }

    fn send(&self, cx: &Caller<'_>, args: &mut SendArgs<'_>) -> Result<usize> {
        self.do_send(cx, args)
    }

    fn receive(&self, cx: &Caller<'_>, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        self.do_receive(cx, dst, flags)
    }

    fn shutdown(&self, _cx: &Caller<'_>, how: i32) -> Result<()> {
        let (receive, send) = match how {
            SHUT_RD => (true, false),
            SHUT_WR => (false, true),
            SHUT_RDWR => (true, true),
            _ => return Err(Errno::EINVAL),
        };
        let peer = {
            let mut s = self.state.lock();
            s.shut_receive |= receive;
            s.shut_send |= send;
            s.peer.clone()
        };
        if let Some(p) = peer
            && self.kind != Kind::Dgram
        {
            {
                let mut s = p.state.lock();
                s.shut_receive |= send;
                s.shut_send |= receive;
            }
            p.wake_all();
        }
        self.wake_all();
        Ok(())
    }

    fn pair(&self, cx: &Caller<'_>, other: &dyn SocketOps) -> Result<()> {
        let any: &dyn Any = other;
        let other: &UnixSocket = any.downcast_ref().ok_or(Errno::EOPNOTSUPP)?;
        let cred = Sender::of(cx);
        for (a, b) in [(self, other), (other, self)] {
            let peer = b.me()?;
            let mut s = a.state.lock();
            s.connected = true;
            s.peer = Some(peer);
            s.peer_cred = Some(cred.clone());
        }
        Ok(())
    }

    fn getsockopt(&self, cx: &Caller<'_>, level: i32, name: i32, _want: usize) -> Result<Vec<u8>> {
        if level != abi::socket::SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        let cred = self.peer_sender();
        match name {
            so::PEERCRED => Ok(ucred(cx, cred.as_ref()).as_bytes().to_vec()),
            so::PEERGROUPS => {
                let cred = cred.ok_or(Errno::ENODATA)?;
                let ns = &cx.creds.user_ns;
                Ok(cred.groups.iter().flat_map(|g| ns.gid_in(*g).to_ne_bytes()).collect())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    fn peer_sender(&self) -> Option<Sender> {
        // A listening socket tells who made it listen.
        let s = self.state.lock();
        s.peer_cred.clone().or_else(|| s.own_cred.clone())
    }

    fn memory(&self) -> (usize, usize) {
        (self.queue.lock().bytes(), self.account.used())
    }

    fn is_listening(&self) -> bool {
        self.state.lock().listening.is_some()
    }

    fn ioctl(&self, task: &Task, cmd: u32, arg: u64) -> SysResult {
        const SIOCINQ: u32 = 0x541b;
        const SIOCOUTQ: u32 = 0x5411;
        const SIOCATMARK: u32 = 0x8905;
        let n = match cmd {
            SIOCINQ => {
                if self.is_listening() {
                    return Err(Errno::EINVAL.into());
                }
                let q = self.queue.lock();
                match self.kind {
                    Kind::Dgram => q.packets.front().map_or(0, |p| p.data.len()),
                    _ => q.bytes(),
                }
            }
            SIOCOUTQ => self.account.used(),
            SIOCATMARK => usize::from(self.queue.lock().packets.front().is_some_and(|p| p.oob)),
            _ => return Err(Errno::ENOTTY.into()),
        };
        UserPtr::new(arg).write(&task.mm(), &i32::try_from(n).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn is_stream(&self) -> bool {
        self.kind == Kind::Stream
    }

    fn release(&self) {
        if self.released.swap(true, Ordering::AcqRel) {
            return;
        }
        let (addr, bound, peer, listening) = {
            let mut s = self.state.lock();
            s.dead = true;
            s.shut_receive = true;
            s.shut_send = true;
            (s.addr.clone(), s.bound.take(), s.peer.take(), s.listening.take())
        };
        if let Some(UnixAddr::Abstract(n)) = addr.as_deref() {
            self.names.unbind(n, self);
        }
        drop(bound);
        let unread = {
            let mut q = self.queue.lock();
            self.queued.store(0, Ordering::Release);
            std::mem::take(&mut q.packets)
        };
        if let Some(p) = peer {
            if self.kind != Kind::Dgram {
                {
                    let mut s = p.state.lock();
                    s.shut_receive = true;
                    s.shut_send = true;
                    if !unread.is_empty() {
                        s.error = Some(Errno::ECONNRESET);
                    }
                }
            }
            p.wake_all();
        }
        let embryos = listening.map(|l| l.pending).unwrap_or_default();
        for e in embryos {
            // The client sees a reset: nobody will ever accept it.
            let client = e.state.lock().peer.clone();
            if let Some(c) = client {
                c.state.lock().error = Some(Errno::ECONNRESET);
            }
            e.release();
        }
        drop(unread);
        self.wake_all();
        if let Some(kernel) = self.kernel.upgrade() {
            InFlight::of(&kernel).collect();
        }
    }
}

/// Credentials as the caller sees them.
pub fn ucred(cx: &Caller<'_>, s: Option<&Sender>) -> Ucred {
    match s {
        None => Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX },
        Some(s) => {
            let ns = &cx.creds.user_ns;
            let pid = match (&s.pid, cx.task) {
                (Some(p), Some(t)) => p.number_in(&t.pid_ns()).unwrap_or(0),
                _ => 0,
            };
            Ucred { pid, uid: ns.uid_in(s.uid), gid: ns.gid_in(s.gid) }
        }
    }
}

impl UnixSocket {
    /// Puts a packet into this socket's queue, unless it is closed for receiving; gives it back then.
    fn deliver(&self, packet: Packet) -> std::result::Result<(), Packet> {
        let mut q = self.queue.lock();
        if self.released.load(Ordering::Acquire) {
            return Err(packet);
        }
        if packet.oob {
            // There is one urgent byte at a time; an older one becomes part of the stream.
            for p in &mut q.packets {
                p.oob = false;
            }
        }
        q.packets.push_back(packet);
        self.queued.store(q.packets.len(), Ordering::Release);
        Ok(())
    }
}
