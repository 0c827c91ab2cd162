//! Sockets: what is the same for all families, and the trait that families implement.
//!
//! A [`Socket`] is what an open file description of a socket has as operations; its [`SocketOps`] are
//! the family's. Families are found by number in [`Families`], so that network stacks of other crates
//! plug in. Nothing here blocks: EAGAIN and a wait queue, as everywhere.

pub mod arp;
pub mod filter;
pub mod host;
pub mod inet;
pub mod interfaces;
pub mod netlink;
mod options;
pub mod packet;
pub mod routes;
pub mod unix;

pub use options::{SockOptions, Speaks, Timeo};

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::socket::{MSG_DONTWAIT, so};
use abi::{Errno, Result};
use kernel::bpf::Program;
use kernel::io::{Sink, Source};
use kernel::task::Pid;
use kernel::vfs::{Caller, File, FileOps};
use kernel::{Kernel, SysResult, Task};
use ksync::{LockClass, RwLock, WaitQueue};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::IntoBytes;

/// Who sent something, or stood at the other end when a connection was made. Ids of the sandbox' root namespaces.
#[derive(Clone)]
pub struct Sender {
    pub pid: Option<Arc<Pid>>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Arc<[u32]>,
}

impl PartialEq for Sender {
    fn eq(&self, o: &Sender) -> bool {
        let key = |p: &Option<Arc<Pid>>| p.as_ref().map(Arc::as_ptr);
        (key(&self.pid), self.uid, self.gid) == (key(&o.pid), o.uid, o.gid)
    }
}

impl Sender {
    /// The caller.
    pub fn of(cx: &Caller<'_>) -> Sender {
        Sender {
            pid: cx.task.map(|t| Arc::clone(t.group().pid())),
            uid: cx.creds.euid,
            gid: cx.creds.egid,
            groups: Arc::clone(&cx.creds.groups),
        }
    }
}

/// A control message (cmsg(3)).
#[derive(Clone, Debug)]
pub struct ControlMessage {
    pub level: i32,
    pub kind: i32,
    pub data: Vec<u8>,
}

impl ControlMessage {
    /// One that holds an int.
    pub fn int(level: i32, kind: i32, value: i32) -> ControlMessage {
        ControlMessage { level, kind, data: value.to_ne_bytes().to_vec() }
    }
}

/// A message to send.
pub struct SendArgs<'a> {
    pub data: &'a mut dyn Source,
    /// Destination address with its family, if one was given.
    pub to: Option<&'a [u8]>,
    /// Open files to pass. Taken when they have been sent.
    pub rights: Vec<Arc<File>>,
    /// Credentials given by the sender, already checked.
    pub sender: Option<Sender>,
    pub flags: u32,
    /// Control messages that are the family's own.
    pub control: Vec<ControlMessage>,
    /// Set beside EAGAIN: what to wait on besides the socket's own queue.
    pub wait_on: Option<Arc<WaitQueue>>,
}

/// What was received besides the data.
#[derive(Default)]
pub struct Received {
    /// What the call returns: bytes, or with `MSG_TRUNC` the real length of the message.
    pub len: usize,
    /// Source address, if it has one.
    pub from: Option<Vec<u8>>,
    pub rights: Vec<Arc<File>>,
    pub sender: Option<Sender>,
    /// `MSG_TRUNC`, `MSG_EOR`, …
    pub flags: u32,
    /// Control messages of the family.
    pub control: Vec<ControlMessage>,
    /// More of the same stream may be appended (for `MSG_WAITALL`).
    pub may_continue: bool,
}

/// What a family implements for its sockets.
pub trait SocketOps: Any + Send + Sync {
    fn options(&self) -> &Arc<SockOptions>;
    fn poll(&self, cx: &Caller<'_>) -> PollEvents;
    fn queue(&self) -> &Arc<WaitQueue>;
    fn bind(&self, cx: &Caller<'_>, addr: &[u8]) -> Result<()>;
    fn listen(&self, _cx: &Caller<'_>, _backlog: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// EAGAIN with a queue in `wait_on` (else the socket's own): to be tried again after news of it.
    fn connect(&self, cx: &Caller<'_>, addr: &[u8], wait_on: &mut Option<Arc<WaitQueue>>) -> Result<()>;
    /// After `connect` said EINPROGRESS or EALREADY: how it ended. EAGAIN as long as it has not.
    fn connect_finish(&self, _cx: &Caller<'_>) -> Result<()> {
        Ok(())
    }
    /// A connection that waits, EAGAIN when there is none.
    fn accept(&self, _cx: &Caller<'_>) -> Result<Arc<dyn SocketOps>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Who connected, of a socket that was just accepted: also when the connection is gone already.
    fn accepted_from(&self) -> Result<Vec<u8>> {
        self.peer_name()
    }
    /// Own address.
    fn name(&self) -> Result<Vec<u8>>;
    /// Address of the other end; ENOTCONN.
    fn peer_name(&self) -> Result<Vec<u8>>;
    /// Sends as much as goes now. Sends SIGPIPE itself unless `MSG_NOSIGNAL`.
    fn send(&self, cx: &Caller<'_>, args: &mut SendArgs<'_>) -> Result<usize>;
    fn receive(&self, cx: &Caller<'_>, dst: &mut dyn Sink, flags: u32) -> Result<Received>;
    fn shutdown(&self, cx: &Caller<'_>, how: i32) -> Result<()>;
    /// Connects two fresh sockets (socketpair(2)).
    fn pair(&self, _cx: &Caller<'_>, _other: &dyn SocketOps) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Options beyond the common ones of `SOL_SOCKET`.
    fn getsockopt(&self, _cx: &Caller<'_>, _level: i32, _name: i32, _want: usize) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// An option whose value says what is asked for.
    fn getsockopt_of(&self, _level: i32, _name: i32, _asked: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::ENOPROTOOPT)
    }
    fn setsockopt(&self, _cx: &Caller<'_>, _level: i32, _name: i32, _value: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Whether programs may be attached that filter what is received.
    fn has_filters(&self) -> bool {
        false
    }
    /// One was attached or detached.
    fn filter_changed(&self, _filter: Option<Arc<Program>>) {}
    /// A program that chooses among the sockets that share the port, or none any more: EINVAL where none share, ENOENT,
    /// ENOPROTOOPT.
    fn choose_by(&self, program: Option<Arc<Program>>) -> Result<()> {
        match program {
            _ if !self.has_filters() => Err(Errno::ENOPROTOOPT),
            None if self.options().reuse_port() => Err(Errno::ENOENT),
            _ => Err(Errno::EINVAL),
        }
    }
    /// A common option of `SOL_SOCKET` was set.
    fn option_changed(&self, _name: i32) {}
    /// Somebody waits in the queue who will not poll.
    fn listened_to(&self) {}
    /// The socket has become a file with this inode number.
    fn attach(&self, _ino: u64) {}
    /// Bytes that wait to be received, and that were sent and are not received.
    fn memory(&self) -> (usize, usize) {
        (0, 0)
    }
    /// What found no room.
    fn drops(&self) -> usize {
        0
    }
    /// The pending error, cleared by asking (`SO_ERROR`).
    fn take_error(&self) -> Option<Errno> {
        None
    }
    /// Who stood at the other end when the connection was made.
    fn peer_sender(&self) -> Option<Sender> {
        None
    }
    fn is_listening(&self) -> bool {
        false
    }
    fn ioctl(&self, _task: &Task, _cmd: u32, _arg: u64) -> SysResult {
        Err(Errno::ENOTTY.into())
    }
    /// A partial send is followed by another for the rest if the socket is blocking.
    fn is_stream(&self) -> bool;
    /// The open file description is gone.
    fn release(&self);
}

/// The operations of an open socket.
pub struct Socket {
    pub family: u16,
    pub kind: i32,
    pub protocol: i32,
    ops: Arc<dyn SocketOps>,
    /// Of the open file.
    ino: AtomicU64,
}

impl Socket {
    /// A socket on a family's operations.
    pub fn new(family: u16, kind: i32, protocol: i32, ops: Arc<dyn SocketOps>) -> Arc<Socket> {
        Arc::new(Socket { family, kind, protocol, ops, ino: AtomicU64::new(0) })
    }

    /// The family's operations.
    pub fn ops(&self) -> &Arc<dyn SocketOps> {
        &self.ops
    }

    /// An open file on it. `flags`: `O_NONBLOCK`.
    pub fn into_file(self: Arc<Self>, kernel: &Kernel, cx: &Caller<'_>, flags: OpenFlags) -> Arc<File> {
        let path = crate::anon::socket_path(kernel, cx.creds);
        if let Some(attr) = path.dentry.inode().and_then(|i| i.attr().ok()) {
            self.ino.store(attr.ino, Ordering::Relaxed);
            self.ops.attach(attr.ino);
        }
        File::new(self, path, OpenFlags::RDWR | flags, Arc::clone(cx.creds))
    }

    /// getsockopt(2): the value, at most `want` bytes matter.
    pub fn getsockopt(&self, cx: &Caller<'_>, level: i32, name: i32, want: usize) -> Result<Vec<u8>> {
        if level != abi::socket::SOL_SOCKET {
            return self.ops.getsockopt(cx, level, name, want);
        }
        let int = |v: i32| Ok(v.to_ne_bytes().to_vec());
        match name {
            so::TYPE => int(self.kind),
            so::DOMAIN => int(self.family.into()),
            so::PROTOCOL => int(self.protocol),
            so::ERROR => int(self.ops.take_error().map_or(0, |e| i32::from(e.raw()))),
            so::ACCEPTCONN => int(self.ops.is_listening().into()),
            so::PEERNAME => self.ops.peer_name(),
            so::COOKIE if want < 8 => Err(Errno::EINVAL),
            // A number that no other socket has: that of its inode, which is never given twice.
            so::COOKIE => Ok(self.ino.load(Ordering::Relaxed).to_ne_bytes().to_vec()),
            so::NETNS_COOKIE if want != 8 => Err(Errno::EINVAL),
            so::NETNS_COOKIE => {
                let task = cx.task.ok_or(Errno::ENOPROTOOPT)?;
                Ok(task.namespaces().net.id.to_ne_bytes().to_vec())
            }
            // Packets come from no queue of a network card that could be polled.
            so::INCOMING_NAPI_ID => int(0),
            so::MEMINFO => Ok(self.memory()),
            so::MAX_PACING_RATE => Ok(self.ops.options().pacing_value(want)),
            // How many places below zero filters know: `SKF_AD_MAX`.
            so::BPF_EXTENSIONS => int(64),
            so::PEERCRED if self.family != abi::socket::AF_UNIX => {
                Ok(unix::ucred(cx, None).as_bytes().to_vec())
            }
            so::LOCK_FILTER if self.ops.has_filters() => int(self.ops.options().is_filter_locked().into()),
            _ if self.ops.options().foreign(name) => Err(Errno::EOPNOTSUPP),
            _ => match self.ops.options().get(name) {
                Some(v) => Ok(v),
                None => self
                    .ops
                    .getsockopt(cx, level, name, want)
                    .map_err(|e| if e == Errno::EOPNOTSUPP { Errno::ENOPROTOOPT } else { e }),
            },
        }
    }

    /// `SO_MEMINFO`: what waits to be received and sent, and how much may.
    fn memory(&self) -> Vec<u8> {
        let (receive, send) = self.ops.memory();
        let options = self.ops.options();
        let words =
            [receive, options.receive_buffer(), send, options.send_buffer(), 0, send, 0, 0, self.ops.drops()];
        words.iter().flat_map(|w| u32::try_from(*w).unwrap_or(u32::MAX).to_ne_bytes()).collect()
    }

    /// setsockopt(2).
    pub fn setsockopt(&self, cx: &Caller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if level != abi::socket::SOL_SOCKET {
            return self.ops.setsockopt(cx, level, name, value);
        }
        if filter::is_filter_option(name) {
            return filter::set(&*self.ops, cx, name, value);
        }
        match self.ops.options().set(cx, name, value) {
            Some(r) => {
                r?;
                self.ops.option_changed(name);
                // Larger buffers or a lower low-water mark may make it ready.
                self.ops.queue().wake_all(u32::MAX);
                Ok(())
            }
            None => self
                .ops
                .setsockopt(cx, level, name, value)
                .map_err(|e| if e == Errno::EOPNOTSUPP { Errno::ENOPROTOOPT } else { e }),
        }
    }
}

impl FileOps for Socket {
    fn read(&self, cx: &Caller<'_>, f: &File, dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
        // A plain read of nothing does not even look (`sock_read_iter`).
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let flags = if f.nonblocking() { MSG_DONTWAIT } else { 0 };
        self.ops.receive(cx, dst, flags).map(|r| r.len)
    }
    fn write(&self, cx: &Caller<'_>, _f: &File, src: &mut dyn Source, _pos: &mut u64) -> Result<usize> {
        let mut args = SendArgs {
            data: src,
            to: None,
            rights: Vec::new(),
            sender: None,
            flags: MSG_DONTWAIT,
            control: Vec::new(),
            wait_on: None,
        };
        self.ops.send(cx, &mut args)
    }
    fn writes_all(&self) -> bool {
        self.ops.is_stream()
    }
    fn io_timeout(&self, write: bool) -> Option<i64> {
        let options = self.ops.options();
        if write { options.send_timeout() } else { options.receive_timeout() }
    }
    fn has_urgent(&self) -> bool {
        self.ops.is_stream()
    }
    fn listened_to(&self, _f: &File) {
        self.ops.listened_to();
    }
    fn seekable(&self) -> bool {
        false
    }
    fn poll(&self, cx: &Caller<'_>, _f: &File) -> PollEvents {
        self.ops.poll(cx)
    }
    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        Some(Arc::clone(self.ops.queue()))
    }
    fn ioctl(&self, task: &Task, _f: &File, cmd: u32, arg: u64) -> SysResult {
        if interfaces::is_interface_ioctl(cmd) {
            let internet = matches!(self.family, abi::socket::AF_INET | abi::socket::AF_INET6);
            return interfaces::ioctl(task, cmd, arg, internet);
        }
        if arp::is_arp_ioctl(cmd) && matches!(self.family, abi::socket::AF_INET | abi::socket::AF_PACKET) {
            return arp::ioctl(task, cmd, arg);
        }
        self.ops.ioctl(task, cmd, arg)
    }
    fn release(&self, _f: &File) {
        self.ops.release();
    }
}

/// An address family: makes sockets.
pub trait Family: Send + Sync {
    /// `kind` has no flags. Gives the operations and the protocol that `SO_PROTOCOL` tells.
    fn create(&self, cx: &Caller<'_>, kind: i32, protocol: i32) -> Result<(Arc<dyn SocketOps>, i32)>;
}

/// The families of a sandbox, by number.
pub struct Families(RwLock<BTreeMap<u16, Arc<dyn Family>>>);

impl Families {
    /// Those of a kernel; AF_UNIX is always there.
    pub fn of(kernel: &Kernel) -> Arc<Families> {
        kernel.extensions.get_or_init(|| {
            let mut map: BTreeMap<u16, Arc<dyn Family>> = BTreeMap::new();
            map.insert(abi::socket::AF_UNIX, Arc::new(unix::UnixFamily));
            map.insert(abi::socket::AF_NETLINK, Arc::new(netlink::NetlinkFamily));
            map.insert(abi::socket::AF_PACKET, Arc::new(packet::PacketFamily));
            map.insert(abi::socket::AF_INET, Arc::new(inet::InetFamily(netstack::Family::V4)));
            map.insert(abi::socket::AF_INET6, Arc::new(inet::InetFamily(netstack::Family::V6)));
            Families(RwLock::new(LockClass::Leaf, map))
        })
    }

    /// Adds a family at boot.
    pub fn register(&self, number: u16, family: Arc<dyn Family>) {
        self.0.write().insert(number, family);
    }

    /// The family of a number.
    pub fn get(&self, number: u16) -> Option<Arc<dyn Family>> {
        self.0.read().get(&number).cloned()
    }
}
