//! TCP socket files (tcp(7)).

use super::address;
use super::base::{Base, SIOCINQ, SIOCOUTQ, answer, choose_by, directions};
use super::control::send_control;
use super::cork::Corked;
use super::options::{SOL_IP, SOL_TCP, SOL_UDP, ip, number, tcp};
use super::stacks::errno;
use super::streamoptions;
use crate::socket::{ControlMessage, Received, SendArgs, SockOptions, SocketOps};
use abi::poll::PollEvents;
use abi::socket::{
    AF_UNSPEC, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_FASTOPEN, MSG_MORE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK,
    MSG_TRUNC, MSG_ZEROCOPY, SOL_SOCKET, so,
};
use abi::{Errno, Result};
use kernel::bpf::Program;
use kernel::io::Sink;
use kernel::vfs::Caller;
use kernel::{SysResult, Task};
use ksync::WaitQueue;
use netstack::tcp::{NotOpen, TakeHow, TcpSocket, TcpState, Transport};
use netstack::{Endpoint, NetError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A TCP socket.
pub struct InetStream {
    corked: Arc<Corked>,
    base: Base,
    tcp: Arc<TcpSocket>,
    released: AtomicBool,
    /// A send with `MSG_FASTOPEN` waits for its connection.
    opening: AtomicBool,
}

impl InetStream {
    pub(super) fn create(base: Base) -> Arc<InetStream> {
        let tcp = TcpSocket::new(&base.stack, base.family, base.waker());
        InetStream::with(base, tcp)
    }

    fn with(base: Base, tcp: Arc<TcpSocket>) -> Arc<InetStream> {
        let off = || AtomicBool::new(false);
        Arc::new(InetStream { corked: Corked::new(), base, tcp, released: off(), opening: off() })
    }

    pub fn tcp(&self) -> &Arc<TcpSocket> {
        &self.tcp
    }

    /// Tells the stack what the options say now.
    fn apply(&self) {
        self.tcp.configure(|options| streamoptions::update(&self.base, options));
    }

    /// `MSG_FASTOPEN`: connects before it sends. Nobody here has a cookie, so that data never goes with the SYN. EINVAL without
    /// an address, EISCONN, EALREADY, EOPNOTSUPP; EINPROGRESS for who does not wait, who has to send again.
    fn open_first(&self, args: &SendArgs<'_>) -> Result<()> {
        if !self.opening.load(Ordering::Acquire) {
            let begun = match (self.tcp.state(), args.to) {
                (TcpState::SynSent, _) => return Err(Errno::EALREADY),
                (TcpState::Close, None) => return Err(Errno::EINVAL),
                (TcpState::Close, Some(raw)) if address::family_of(raw)? == AF_UNSPEC => {
                    return Err(Errno::EOPNOTSUPP);
                }
                (TcpState::Close, Some(raw)) => {
                    let to = self.base.check_reach(raw, false)?;
                    self.bound_clamp(&self.base);
                    self.tcp.connect(to, self.base.bind_options())
                }
                _ => return Err(Errno::EISCONN),
            };
            match begun {
                Err(NetError::InProgress) if args.flags & MSG_DONTWAIT == 0 => {
                    self.opening.store(true, Ordering::Release);
                }
                other => return other.map_err(errno),
            }
        }
        match self.tcp.connected() {
            Err(NetError::InProgress) => Err(Errno::EAGAIN),
            other => {
                self.opening.store(false, Ordering::Release);
                other.map_err(errno)
            }
        }
    }

    /// A connection begins: the window has no use for more than the buffer holds (`tcp_init_buffer_space`).
    fn bound_clamp(&self, base: &Base) {
        let most = i32::try_from(base.options.receive_buffer() / 2).unwrap_or(i32::MAX);
        let clamp = base.numbers.get(SOL_TCP, tcp::WINDOW_CLAMP).unwrap_or(0);
        if clamp > most {
            base.numbers.put(SOL_TCP, tcp::WINDOW_CLAMP, most);
        }
    }

    /// Without a connection: what receiving gives.
    fn not_open(&self) -> Result<Received> {
        match self.tcp.not_open() {
            NotOpen::Error(e) => Err(errno(e)),
            NotOpen::Connecting => Err(Errno::EAGAIN),
            NotOpen::Ended => Ok(Received::default()),
            NotOpen::Never => Err(Errno::ENOTCONN),
        }
    }

    fn broken(&self, cx: &Caller<'_>, flags: u32, e: NetError) -> Errno {
        if e == NetError::BrokenPipe && flags & MSG_NOSIGNAL == 0 {
            crate::sigpipe(cx);
        }
        errno(e)
    }

    fn send_on(&self, cx: &Caller<'_>, t: &Arc<dyn Transport>, args: &mut SendArgs<'_>) -> Result<usize> {
        let pool = &self.base.stack.pool;
        let more = args.flags & MSG_MORE != 0 || self.base.numbers.on(SOL_TCP, tcp::CORK);
        let hold = more && args.flags & MSG_OOB == 0 && t.is_local();
        let mut sent = 0;
        loop {
            let want = args.data.remaining();
            if want == 0 && sent > 0 {
                return Ok(sent);
            }
            if sent > 0 && t.has_error() {
                return Ok(sent);
            }
            let n = match t.reserve(want) {
                Ok(n) => n,
                Err(NetError::WouldBlock) if want == 0 => return Ok(sent),
                Err(_) if sent > 0 => return Ok(sent),
                Err(e) => return Err(self.broken(cx, args.flags, e)),
            };
            if want == 0 {
                t.commit(n, None, false);
                return Ok(0);
            }
            let mut buf = pool.get(n);
            match args.data.take(buf.bytes_mut()) {
                Ok(k) if k == n => {
                    let urgent = args.flags & MSG_OOB != 0 && k == want;
                    match cx.task {
                        Some(task) if hold || (self.corked.waits() && !urgent) => {
                            self.corked.add(task.kernel(), t, n, buf.bytes());
                            if !hold {
                                self.corked.flush();
                            }
                        }
                        _ => {
                            if self.corked.waits() {
                                self.corked.flush();
                            }
                            t.commit(n, Some(buf), urgent);
                        }
                    }
                    sent += k;
                }
                // A piece that cannot be read whole is not sent at all.
                other => {
                    t.commit(n, None, false);
                    return if sent > 0 { Ok(sent) } else { Err(other.err().unwrap_or(Errno::EFAULT)) };
                }
            }
        }
    }

    fn receive_urgent(&self, t: &Arc<dyn Transport>, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        if self.base.options.oob_inline() {
            return Err(Errno::EINVAL);
        }
        match t.take_urgent(flags & MSG_PEEK != 0).map_err(errno)? {
            None => Ok(Received::default()),
            Some(byte) => {
                let mut got = Received { flags: MSG_OOB, ..Received::default() };
                if dst.remaining() == 0 {
                    got.flags |= MSG_TRUNC;
                } else {
                    if flags & MSG_TRUNC == 0 {
                        dst.put(&[byte])?;
                    }
                    got.len = 1;
                }
                Ok(got)
            }
        }
    }
}

impl SocketOps for InetStream {
    fn options(&self) -> &Arc<SockOptions> {
        &self.base.options
    }

    fn queue(&self) -> &Arc<WaitQueue> {
        &self.base.wait
    }

    fn attach(&self, ino: u64) {
        self.base.ino.store(ino, Ordering::Relaxed);
        let _ = self.tcp.tag.set((ino, self.base.uid.load(Ordering::Relaxed)));
    }

    fn poll(&self, _cx: &Caller<'_>) -> PollEvents {
        let e = self.tcp.poll(self.base.options.receive_low(), self.base.options.oob_inline());
        let mut events = PollEvents::from_bits_truncate(e.0);
        if self.base.copies.waiting() {
            events |= PollEvents::ERR;
        }
        events
    }

    fn bind(&self, cx: &Caller<'_>, addr: &[u8]) -> Result<()> {
        let to = self.base.check_bind(cx, addr)?;
        self.tcp.bind(to, self.base.bind_options()).map_err(errno)
    }

    fn listen(&self, _cx: &Caller<'_>, backlog: u32) -> Result<()> {
        self.tcp.listen(backlog as usize, self.base.bind_options()).map_err(errno)
    }

    fn connect(&self, _cx: &Caller<'_>, addr: &[u8], _wait_on: &mut Option<Arc<WaitQueue>>) -> Result<()> {
        if address::family_of(addr)? == AF_UNSPEC {
            self.tcp.disconnect();
            return Ok(());
        }
        let to = self.base.check_reach(addr, false)?;
        self.bound_clamp(&self.base);
        self.tcp.connect(to, self.base.bind_options()).map_err(errno)
    }

    fn connect_finish(&self, _cx: &Caller<'_>) -> Result<()> {
        match self.tcp.connected() {
            Err(NetError::InProgress) => Err(Errno::EAGAIN),
            other => other.map_err(errno),
        }
    }

    fn accept(&self, _cx: &Caller<'_>) -> Result<Arc<dyn SocketOps>> {
        let incoming = self.tcp.accept().map_err(errno)?;
        let base = self.base.inherit();
        self.bound_clamp(&base);
        let tcp = self.tcp.accepted(incoming, base.waker());
        Ok(InetStream::with(base, tcp))
    }

    fn name(&self) -> Result<Vec<u8>> {
        Ok(self.base.encode(self.tcp.local()))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let remote = self.tcp.remote().ok_or(Errno::ENOTCONN)?;
        Ok(self.base.encode(remote))
    }

    fn accepted_from(&self) -> Result<Vec<u8>> {
        Ok(self.base.encode(self.tcp.remote_or_any()))
    }

    fn send(&self, cx: &Caller<'_>, args: &mut SendArgs<'_>) -> Result<usize> {
        send_control(self.base.family, &args.control)?;
        if args.flags & MSG_FASTOPEN != 0 {
            self.open_first(args)?;
        }
        match self.tcp.transport() {
            Some(t) if matches!(t.state(), TcpState::SynSent | TcpState::SynReceived) => Err(Errno::EAGAIN),
            Some(t) => {
                let sent = self.send_on(cx, &t, args)?;
                if sent > 0 && args.flags & MSG_ZEROCOPY != 0 && self.base.options.zerocopy() {
                    self.base.sent_zerocopy();
                }
                Ok(sent)
            }
            None => match self.tcp.not_open() {
                NotOpen::Connecting => Err(Errno::EAGAIN),
                NotOpen::Error(e) => Err(errno(e)),
                _ => Err(self.broken(cx, args.flags, NetError::BrokenPipe)),
            },
        }
    }

    fn receive(&self, _cx: &Caller<'_>, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        if flags & MSG_ERRQUEUE != 0 {
            return self.base.completion().ok_or(Errno::EAGAIN);
        }
        let Some(t) = self.tcp.transport() else {
            if flags & MSG_OOB != 0 && !self.tcp.is_listening() {
                return Err(Errno::EINVAL);
            }
            return self.not_open();
        };
        if flags & MSG_OOB != 0 {
            return self.receive_urgent(&t, dst, flags);
        }
        let peek = flags & MSG_PEEK != 0;
        let skip = if peek { self.base.options.peek_offset().unwrap_or(0) } else { 0 };
        let how = TakeHow { peek, skip, inline_urgent: self.base.options.oob_inline() };
        if dst.remaining() == 0 {
            // Nothing is taken, but something must be there.
            t.take(1, TakeHow { peek: true, ..how }).map_err(errno)?;
            return Ok(Received::default());
        }
        let taken = t.take(dst.remaining(), how).map_err(errno)?;
        self.base.options.peeked(taken.len, peek);
        let mut got = Received { may_continue: !taken.at_mark, ..Received::default() };
        if flags & MSG_TRUNC != 0 {
            // The data is thrown away.
            got.len = taken.len;
            return Ok(got);
        }
        let mut parts = taken.parts.into_iter();
        while let Some(part) = parts.next() {
            match dst.put(part.bytes()) {
                Ok(n) if n == part.len() => got.len += n,
                // A piece that cannot be written whole stays, as on Linux.
                other => {
                    if !peek {
                        t.give_back(std::iter::once(part).chain(parts).collect());
                    }
                    if got.len == 0 {
                        return Err(other.err().unwrap_or(Errno::EFAULT));
                    }
                    got.may_continue = false;
                    break;
                }
            }
        }
        if self.base.numbers.on(SOL_TCP, tcp::INQ) {
            let left = i32::try_from(t.readable(how.inline_urgent)).unwrap_or(i32::MAX);
            got.control.push(ControlMessage::int(SOL_TCP, tcp::INQ, left));
        }
        Ok(got)
    }

    fn shutdown(&self, _cx: &Caller<'_>, how: i32) -> Result<()> {
        let (receive, send) = directions(how)?;
        if send {
            self.corked.flush();
        }
        self.tcp.shutdown(receive, send).map_err(errno)
    }

    fn getsockopt(&self, cx: &Caller<'_>, level: i32, name: i32, want: usize) -> Result<Vec<u8>> {
        let int = |v: i32| Ok(v.to_ne_bytes().to_vec());
        if level == SOL_TCP {
            return match name {
                tcp::MAXSEG => {
                    let fresh = matches!(self.tcp.state(), TcpState::Close | TcpState::Listen);
                    let wish = self.base.numbers.get(level, name).unwrap_or(0);
                    int(if fresh && wish != 0 { wish } else { super::tcpinfo::segment_size(&self.tcp) })
                }
                tcp::WINDOW_CLAMP => {
                    let fresh =
                        matches!(self.tcp.state(), TcpState::Close | TcpState::Listen | TcpState::SynSent);
                    let clamp = self.base.numbers.get(level, name).unwrap_or(0);
                    let full = i32::try_from(self.base.options.receive_buffer() / 2).unwrap_or(i32::MAX);
                    int(if clamp == 0 && !fresh { full } else { clamp })
                }
                tcp::QUICKACK => {
                    let quick = self.tcp.transport().and_then(|t| t.is_quick());
                    int(quick.unwrap_or(self.base.numbers.on(level, name)).into())
                }
                // Neither Reno nor CUBIC has anything to tell.
                tcp::CC_INFO => Ok(Vec::new()),
                tcp::SAVED_SYN => {
                    self.tcp.transport().map_or(Ok(Vec::new()), |t| t.saved_syn(want)).map_err(errno)
                }
                tcp::TIMESTAMP => {
                    let own = self.tcp.transport().and_then(|t| t.timestamp());
                    let millis = || cx.task.map_or(0, |t| t.kernel().clocks.monotonic() / 1_000_000);
                    #[expect(clippy::cast_possible_truncation, reason = "a clock of 32 bits that goes round")]
                    let now = own.unwrap_or_else(|| millis().cast_unsigned() as u32);
                    int(now.cast_signed())
                }
                // No other protocol can be put upon it.
                tcp::ULP => Ok(Vec::new()),
                tcp::INFO => Ok(super::tcpinfo::encode(&self.tcp)),
                tcp::CONGESTION => {
                    let name = if self.base.numbers.on(SOL_TCP, tcp::CONGESTION) { "reno" } else { "cubic" };
                    let mut text = name.as_bytes().to_vec();
                    text.resize(16.min(want), 0);
                    Ok(text)
                }
                tcp::DEFER_ACCEPT | tcp::LINGER2 | tcp::FASTOPEN => {
                    let default = if name == tcp::LINGER2 { 60 } else { 0 };
                    int(self.base.numbers.get(level, name).unwrap_or(default))
                }
                _ => match self.base.numbers.get(level, name) {
                    Some(v) => int(v),
                    None => Err(Errno::ENOPROTOOPT),
                },
            };
        }
        let remote: Option<Endpoint> = self.tcp.remote();
        self.base.getsockopt(level, name, want, remote)
    }

    fn setsockopt(&self, cx: &Caller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        match (level, name) {
            (SOL_UDP, _) => return Err(Errno::ENOPROTOOPT),
            (SOL_IP, ip::ADD_MEMBERSHIP..=ip::DROP_SOURCE_MEMBERSHIP) => return Err(Errno::EPROTO),
            _ => {}
        }
        if level == SOL_TCP {
            match name {
                tcp::CONGESTION => {
                    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
                    let reno = match &value[..end] {
                        b"reno" => 1,
                        b"cubic" => 0,
                        b"" => return Err(Errno::EINVAL),
                        _ => return Err(Errno::ENOENT),
                    };
                    self.base.numbers.put(level, name, reno);
                    self.apply();
                    return Ok(());
                }
                tcp::MAXSEG => {
                    let v = number(level, value)?;
                    if v != 0 && !(88..=32767).contains(&v) {
                        return Err(Errno::EINVAL);
                    }
                    self.base.numbers.put(level, name, v);
                    self.apply();
                    return Ok(());
                }
                tcp::DEFER_ACCEPT => {
                    let count = streamoptions::timeouts(number(level, value)?);
                    self.base.numbers.put(level, name, streamoptions::seconds(count));
                    self.apply();
                    return Ok(());
                }
                tcp::LINGER2 => {
                    // 0 stands for the default.
                    let v = match number(level, value)? {
                        ..0 => -1,
                        0 => 60,
                        v => v.min(120),
                    };
                    self.base.numbers.put(level, name, v);
                    self.apply();
                    return Ok(());
                }
                // Nobody repairs connections here.
                tcp::TIMESTAMP => return Err(Errno::EPERM),
                tcp::FASTOPEN_CONNECT if self.tcp.state() != TcpState::Close => return Err(Errno::EINVAL),
                tcp::RTO_MIN_US | tcp::DELACK_MAX_US => {
                    let v = streamoptions::ticks(number(level, value)?)?;
                    self.base.numbers.put(level, name, v);
                    self.apply();
                    return Ok(());
                }
                tcp::ULP => return Err(Errno::ENOENT),
                tcp::WINDOW_CLAMP => {
                    let v = number(level, value)?;
                    if v == 0 && self.tcp.state() != TcpState::Close {
                        return Err(Errno::EINVAL);
                    }
                    self.base.numbers.put(level, name, if v == 0 { 0 } else { v.max(1152) });
                    self.apply();
                    return Ok(());
                }
                tcp::FASTOPEN => {
                    let v = number(level, value)?;
                    let fresh = matches!(self.tcp.state(), TcpState::Close | TcpState::Listen);
                    if v < 0 || !fresh {
                        return Err(Errno::EINVAL);
                    }
                    // Connections inside the sandbox have no use for data in a SYN; the length is kept.
                    self.base.numbers.put(level, name, v);
                    return Ok(());
                }
                _ => {}
            }
        }
        self.base.setsockopt(cx, level, name, value, self.tcp.has_port())?;
        self.apply();
        if (level, name) == (SOL_TCP, tcp::QUICKACK) {
            self.tcp.set_quick(self.base.numbers.on(level, name));
        }
        let pushes = match name {
            tcp::CORK => !self.base.numbers.on(SOL_TCP, name),
            tcp::NODELAY => self.base.numbers.on(SOL_TCP, name),
            _ => false,
        };
        if level == SOL_TCP && pushes {
            self.corked.flush();
        }
        if level == SOL_SOCKET && matches!(name, so::BINDTODEVICE | so::BINDTOIFINDEX) {
            self.tcp.set_bind_options(self.base.bind_options());
        }
        Ok(())
    }

    fn choose_by(&self, program: Option<Arc<Program>>) -> Result<()> {
        choose_by(&self.base, program, |chooser| self.tcp.set_chooser(chooser))
    }

    fn option_changed(&self, name: i32) {
        match name {
            so::REUSEADDR | so::REUSEPORT => self.tcp.set_bind_options(self.base.bind_options()),
            so::KEEPALIVE | so::MAX_PACING_RATE => self.apply(),
            // Half of a buffer is overhead, as Linux reckons (`tcp_adv_win_scale`).
            so::SNDBUF | so::SNDBUFFORCE => {
                self.tcp.set_limits(Some(self.base.options.send_buffer() / 2), None)
            }
            so::RCVBUF | so::RCVBUFFORCE => {
                self.tcp.set_limits(None, Some(self.base.options.receive_buffer() / 2));
            }
            _ => {}
        }
    }

    fn take_error(&self) -> Option<Errno> {
        self.tcp.take_error().map(errno)
    }

    fn memory(&self) -> (usize, usize) {
        self.tcp.transport().map_or((0, 0), |t| (t.readable(true), t.unsent().0))
    }

    fn is_listening(&self) -> bool {
        self.tcp.is_listening()
    }

    fn ioctl(&self, task: &Task, cmd: u32, arg: u64) -> SysResult {
        const SIOCATMARK: u32 = 0x8905;
        const SIOCOUTQNSD: u32 = 0x894b;
        let t = self.tcp.transport();
        if self.tcp.is_listening() && matches!(cmd, SIOCINQ | SIOCOUTQ | SIOCOUTQNSD) {
            return Err(Errno::EINVAL.into());
        }
        let n = match cmd {
            SIOCINQ => t.map_or(0, |t| t.readable(self.base.options.oob_inline())),
            SIOCOUTQ => t.map_or(0, |t| t.unsent().0),
            SIOCOUTQNSD => t.map_or(0, |t| t.unsent().1),
            SIOCATMARK => usize::from(t.is_some_and(|t| t.at_mark())),
            _ => return Err(Errno::ENOTTY.into()),
        };
        answer(task, arg, n)
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn release(&self) {
        if !self.released.swap(true, Ordering::AcqRel) {
            self.corked.flush();
            self.tcp.close(self.base.options.aborts_on_close());
        }
    }
}

impl Drop for InetStream {
    fn drop(&mut self) {
        // An accepted connection that never became a file.
        self.release();
    }
}
