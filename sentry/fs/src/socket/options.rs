//! Options of level `SOL_SOCKET` that all families have (socket(7)).

use super::ControlMessage;
use abi::socket::so;
use abi::{Errno, Result};
use kernel::bpf::Program;
use kernel::creds::CapSet;
use kernel::vfs::Caller;
use ksync::{LockClass, Mutex};
use std::sync::Arc;

/// A receive or send timeout in nanoseconds; `None` waits for ever.
pub type Timeo = Option<i64>;

/// `SO_LINGER`
#[derive(Clone, Copy, Debug, Default)]
struct Linger {
    on: i32,
    seconds: i32,
}

#[derive(Clone, Debug)]
struct Values {
    debug: bool,
    reuse_addr: bool,
    reuse_port: bool,
    dont_route: bool,
    broadcast: bool,
    keepalive: bool,
    oob_inline: bool,
    no_check: bool,
    pass_cred: bool,
    pass_sec: bool,
    pass_pidfd: bool,
    timestamp: bool,
    timestamp_ns: bool,
    /// The last option about stamps was one of the new kind: so are the messages.
    stamps_new: bool,
    rxq_ovfl: bool,
    pass_rights: bool,
    filter: Option<Arc<Program>>,
    /// `SO_LOCK_FILTER`
    filter_locked: bool,
    select_err_queue: bool,
    zerocopy: bool,
    /// `SOF_TIMESTAMPING_*`
    timestamping: i32,
    /// Where the next `MSG_PEEK` begins; -1: at the front, always.
    peek_off: i32,
    /// Which buffers have a size that was asked for (`SO_BUF_LOCK`).
    buf_lock: i32,
    /// Hints to hardware and scheduler, which nothing here heeds: kept and told.
    hints: [i32; HINTS.len()],
    priority: i32,
    mark: i32,
    /// `SO_RCVMARK`, `SO_RCVPRIORITY`
    tells_mark: bool,
    tells_priority: bool,
    /// `SO_MAX_PACING_RATE`: bytes in a second; the largest number is none.
    pacing: u64,
    send_buffer: i32,
    receive_buffer: i32,
    receive_low: i32,
    receive_timeout: Timeo,
    send_timeout: Timeo,
    linger: Linger,
}

/// Whom a socket speaks with: some options are for some families only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// AF_UNIX
    Unix,
    /// AF_INET and AF_INET6; whether it is TCP.
    Internet(bool),
    /// AF_NETLINK
    Netlink,
    /// AF_PACKET
    Packet,
}

/// The options of one socket.
pub struct SockOptions {
    speaks: Speaks,
    values: Mutex<Values>,
}

/// Options that are kept and told and change nothing: there is no radio, no frame checksum, no queue of a
/// network card, no processor that a socket is bound to.
const HINTS: [(i32, i32); 6] = [
    (so::WIFI_STATUS, 0),
    (so::NOFCS, 0),
    (so::BUSY_POLL, 0),
    (so::PREFER_BUSY_POLL, 0),
    (so::INCOMING_CPU, -1),
    (so::TXREHASH, 1),
];

/// What of `SO_TIMESTAMPING` there is: software stamps of what is received, and flags that ask for hardware's
/// (there is none) or for the form of reports.
const STAMPS: i32 = RX_SOFTWARE | SOFTWARE | RX_HARDWARE | RAW_HARDWARE | OPT_CMSG;
const RX_HARDWARE: i32 = 1 << 2;
const RX_SOFTWARE: i32 = 1 << 3;
const SOFTWARE: i32 = 1 << 4;
const RAW_HARDWARE: i32 = 1 << 6;
const OPT_CMSG: i32 = 1 << 10;
/// `SOCK_SNDBUF_LOCK`, `SOCK_RCVBUF_LOCK`
const SEND_LOCK: i32 = 1;
const RECEIVE_LOCK: i32 = 2;

/// `net.core.wmem_default` and `rmem_default`.
const DEFAULT_BUFFER: i32 = 212_992;
/// `net.core.wmem_max` and `rmem_max` of who has no settings.
const MAX_BUFFER: i32 = 212_992;
const MIN_SEND: i32 = 4608;
const MIN_RECEIVE: i32 = 2304;

fn timeval(t: Timeo) -> Vec<u8> {
    let ns = t.unwrap_or(0);
    let mut out = (ns / 1_000_000_000).to_ne_bytes().to_vec();
    out.extend((ns % 1_000_000_000 / 1000).to_ne_bytes());
    out
}

fn parse_timeval(value: &[u8]) -> Result<Timeo> {
    if value.len() < 16 {
        return Err(Errno::EINVAL);
    }
    let word = |i: usize| i64::from_ne_bytes(value[i..i + 8].try_into().unwrap_or_default());
    let (sec, usec) = (word(0), word(8));
    if !(0..1_000_000).contains(&usec) {
        return Err(Errno::EDOM);
    }
    if sec < 0 {
        return Ok(Some(0));
    }
    if sec == 0 && usec == 0 {
        return Ok(None);
    }
    // As Linux: what does not fit is for ever.
    Ok(sec.checked_mul(1_000_000_000).and_then(|s| s.checked_add(usec * 1000)))
}

/// The int that most options are.
pub fn int_value(value: &[u8]) -> Result<i32> {
    let raw: [u8; 4] = value.get(..4).and_then(|v| v.try_into().ok()).ok_or(Errno::EINVAL)?;
    Ok(i32::from_ne_bytes(raw))
}

impl SockOptions {
    /// The defaults of a family.
    pub fn new(speaks: Speaks) -> Self {
        let values = Values {
            debug: false,
            reuse_addr: false,
            reuse_port: false,
            dont_route: false,
            broadcast: false,
            keepalive: false,
            oob_inline: false,
            no_check: false,
            pass_cred: false,
            pass_sec: false,
            pass_pidfd: false,
            timestamp: false,
            timestamp_ns: false,
            stamps_new: false,
            rxq_ovfl: false,
            pass_rights: true,
            filter: None,
            filter_locked: false,
            select_err_queue: false,
            zerocopy: false,
            timestamping: 0,
            peek_off: -1,
            buf_lock: 0,
            hints: HINTS.map(|h| h.1),
            priority: 0,
            mark: 0,
            tells_mark: false,
            tells_priority: false,
            pacing: u64::MAX,
            send_buffer: DEFAULT_BUFFER,
            receive_buffer: DEFAULT_BUFFER,
            receive_low: 1,
            receive_timeout: None,
            send_timeout: None,
            linger: Linger::default(),
        };
        SockOptions { speaks, values: Mutex::new(LockClass::Leaf, values) }
    }
    /// Those of a family whose buffers have other sizes at first.
    pub fn with_buffers(speaks: Speaks, send: i32, receive: i32) -> SockOptions {
        let new = SockOptions::new(speaks);
        {
            let mut v = new.values.lock();
            v.send_buffer = send;
            v.receive_buffer = receive;
        }
        new
    }
    /// A copy for an accepted socket.
    pub fn inherit(&self) -> SockOptions {
        SockOptions { speaks: self.speaks, values: Mutex::new(LockClass::Leaf, self.values.lock().clone()) }
    }
    /// `SO_PASSCRED`
    pub fn pass_cred(&self) -> bool {
        self.values.lock().pass_cred
    }
    /// `SO_OOBINLINE`
    pub fn oob_inline(&self) -> bool {
        self.values.lock().oob_inline
    }
    /// `SO_KEEPALIVE`
    pub fn keep_alive(&self) -> bool {
        self.values.lock().keepalive
    }
    /// `SO_PASSPIDFD`
    pub fn pass_pidfd(&self) -> bool {
        self.values.lock().pass_pidfd
    }
    /// `SO_SNDBUF`
    pub fn send_buffer(&self) -> usize {
        usize::try_from(self.values.lock().send_buffer).unwrap_or(0)
    }
    /// `SO_RCVBUF`
    pub fn receive_buffer(&self) -> usize {
        usize::try_from(self.values.lock().receive_buffer).unwrap_or(0)
    }
    /// `SO_RCVTIMEO`
    pub fn receive_timeout(&self) -> Timeo {
        self.values.lock().receive_timeout
    }
    /// `SO_SNDTIMEO`
    pub fn send_timeout(&self) -> Timeo {
        self.values.lock().send_timeout
    }
    /// `SO_RCVLOWAT`
    pub fn receive_low(&self) -> usize {
        usize::try_from(self.values.lock().receive_low).unwrap_or(1)
    }
    /// `SO_REUSEPORT`
    pub fn reuse_port(&self) -> bool {
        self.values.lock().reuse_port
    }
    /// `SO_NO_CHECK`
    pub fn no_check(&self) -> bool {
        self.values.lock().no_check
    }
    /// `SO_DONTROUTE`
    pub fn dont_route(&self) -> bool {
        self.values.lock().dont_route
    }
    /// `SO_BROADCAST`
    pub fn broadcast(&self) -> bool {
        self.values.lock().broadcast
    }
    /// `SO_LINGER` with no time: closing resets the connection.
    pub fn aborts_on_close(&self) -> bool {
        let v = self.values.lock();
        v.linger.on != 0 && v.linger.seconds == 0
    }
    /// `SO_RXQ_OVFL`
    pub fn tells_losses(&self) -> bool {
        self.values.lock().rxq_ovfl
    }
    /// `SO_ZEROCOPY`
    pub fn zerocopy(&self) -> bool {
        self.values.lock().zerocopy
    }
    /// `SO_SELECT_ERR_QUEUE`
    pub fn select_err_queue(&self) -> bool {
        self.values.lock().select_err_queue
    }
    /// `SO_PASSRIGHTS`
    pub fn pass_rights(&self) -> bool {
        self.values.lock().pass_rights
    }
    /// Bytes that a `MSG_PEEK` passes over first (`SO_PEEK_OFF`), if it does.
    pub fn peek_offset(&self) -> Option<usize> {
        usize::try_from(self.values.lock().peek_off).ok()
    }
    /// Moves the place of the next peek: on after a peek, back after a read.
    pub fn peeked(&self, n: usize, peek: bool) {
        let mut v = self.values.lock();
        if v.peek_off >= 0 {
            let n = i32::try_from(n).unwrap_or(i32::MAX);
            v.peek_off =
                if peek { v.peek_off.saturating_add(n) } else { v.peek_off.saturating_sub(n).max(0) };
        }
    }
    /// The time stamps that `SO_TIMESTAMP`, `SO_TIMESTAMPNS` or `SO_TIMESTAMPING` asked for.
    pub fn stamp(&self, ns: u64, out: &mut Vec<ControlMessage>) {
        let (on, nanos, stamps, new) = {
            let v = self.values.lock();
            (v.timestamp, v.timestamp_ns, v.timestamping, v.stamps_new)
        };
        if on {
            let part = ns % 1_000_000_000;
            let mut data = (ns / 1_000_000_000).to_ne_bytes().to_vec();
            data.extend((if nanos { part } else { part / 1000 }).to_ne_bytes());
            let kind = match (nanos, new) {
                (false, false) => so::TIMESTAMP,
                (true, false) => so::TIMESTAMPNS,
                (false, true) => so::TIMESTAMP_NEW,
                (true, true) => so::TIMESTAMPNS_NEW,
            };
            out.push(ControlMessage { level: abi::socket::SOL_SOCKET, kind, data });
        }
        if stamps & (RX_SOFTWARE | SOFTWARE) == RX_SOFTWARE | SOFTWARE {
            // Three times: software, a legacy, hardware.
            let mut data = (ns / 1_000_000_000).to_ne_bytes().to_vec();
            data.extend((ns % 1_000_000_000).to_ne_bytes());
            data.resize(48, 0);
            let kind = if new { so::TIMESTAMPING_NEW } else { so::TIMESTAMPING };
            out.push(ControlMessage { level: abi::socket::SOL_SOCKET, kind, data });
        }
    }
    /// `SO_MARK` and `SO_PRIORITY`
    pub fn tag(&self) -> (u32, i32) {
        let v = self.values.lock();
        (v.mark.cast_unsigned(), v.priority)
    }
    /// `IP_TOS` says how urgent a socket is, too (`rt_tos2priority`).
    pub fn set_priority(&self, priority: i32) {
        self.values.lock().priority = priority;
    }
    /// `SO_RCVMARK` and `SO_RCVPRIORITY`: what a datagram was noted with.
    pub fn tell_tag(&self, mark: u32, priority: u32, out: &mut Vec<ControlMessage>) {
        let (tells_mark, tells_priority) = {
            let v = self.values.lock();
            (v.tells_mark, v.tells_priority)
        };
        for (on, kind, value) in [(tells_mark, so::MARK, mark), (tells_priority, so::PRIORITY, priority)] {
            if on {
                out.push(ControlMessage::int(abi::socket::SOL_SOCKET, kind, value.cast_signed()));
            }
        }
    }
    /// `SO_MAX_PACING_RATE` in bytes a second, if there is one.
    pub fn pacing(&self) -> Option<u64> {
        Some(self.values.lock().pacing).filter(|rate| *rate != u64::MAX)
    }
    /// `SO_MAX_PACING_RATE` as it fits: a long, or an int that has no sign.
    pub fn pacing_value(&self, want: usize) -> Vec<u8> {
        let rate = self.values.lock().pacing;
        match want {
            8.. => rate.to_ne_bytes().to_vec(),
            _ => u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes().to_vec(),
        }
    }
    /// `SO_ATTACH_FILTER`
    pub fn filter(&self) -> Option<Arc<Program>> {
        self.values.lock().filter.clone()
    }
    /// EPERM
    pub fn set_filter(&self, filter: Option<Arc<Program>>) -> Result<()> {
        let mut v = self.values.lock();
        if v.filter_locked {
            return Err(Errno::EPERM);
        }
        let old = std::mem::replace(&mut v.filter, filter);
        drop(v);
        drop(old);
        Ok(())
    }
    /// `SO_LOCK_FILTER`; there is no way back: EPERM.
    pub fn lock_filter(&self, on: bool) -> Result<()> {
        let mut v = self.values.lock();
        if v.filter_locked && !on {
            return Err(Errno::EPERM);
        }
        v.filter_locked = on;
        Ok(())
    }
    /// `SO_LOCK_FILTER`
    pub fn is_filter_locked(&self) -> bool {
        self.values.lock().filter_locked
    }
    /// `SO_REUSEADDR`
    pub fn reuse_addr(&self) -> bool {
        self.values.lock().reuse_addr
    }

    /// The value of a common option; `None` if it is not one.
    pub fn get(&self, name: i32) -> Option<Vec<u8>> {
        if self.foreign(name) {
            return None;
        }
        let v = self.values.lock();
        let int = |n: i32| Some(n.to_ne_bytes().to_vec());
        let flag = |b: bool| int(b.into());
        match name {
            so::BSDCOMPAT => int(0),
            so::PASSRIGHTS => flag(v.pass_rights),
            so::SELECT_ERR_QUEUE => flag(v.select_err_queue),
            so::ZEROCOPY => flag(v.zerocopy),
            so::PEEK_OFF => int(v.peek_off),
            so::BUF_LOCK => int(v.buf_lock),
            so::TIMESTAMPING | so::TIMESTAMPING_NEW => {
                let told = name == so::TIMESTAMPING || v.stamps_new;
                let mut out = if told { v.timestamping } else { 0 }.to_ne_bytes().to_vec();
                out.extend([0; 4]);
                Some(out)
            }
            so::TIMESTAMP_NEW => flag(v.timestamp && v.stamps_new),
            so::TIMESTAMPNS_NEW => flag(v.timestamp && v.timestamp_ns && v.stamps_new),
            so::RCVMARK => flag(v.tells_mark),
            so::RCVPRIORITY => flag(v.tells_priority),
            so::MAX_PACING_RATE => Some(v.pacing.to_ne_bytes().to_vec()),
            so::DEBUG => flag(v.debug),
            so::REUSEADDR => flag(v.reuse_addr),
            so::REUSEPORT => flag(v.reuse_port),
            so::DONTROUTE => flag(v.dont_route),
            so::BROADCAST => flag(v.broadcast),
            so::KEEPALIVE => flag(v.keepalive),
            so::OOBINLINE => flag(v.oob_inline),
            so::NO_CHECK => flag(v.no_check),
            so::PASSCRED => flag(v.pass_cred),
            so::PASSSEC => flag(v.pass_sec),
            so::PASSPIDFD => flag(v.pass_pidfd),
            so::TIMESTAMP => flag(v.timestamp && !v.timestamp_ns && !v.stamps_new),
            so::TIMESTAMPNS => flag(v.timestamp && v.timestamp_ns && !v.stamps_new),
            so::RXQ_OVFL => flag(v.rxq_ovfl),
            so::PRIORITY => int(v.priority),
            so::MARK => int(v.mark),
            so::SNDBUF => int(v.send_buffer),
            so::RCVBUF => int(v.receive_buffer),
            so::RCVLOWAT => int(v.receive_low),
            so::SNDLOWAT => int(1),
            so::RCVTIMEO | so::RCVTIMEO_NEW => Some(timeval(v.receive_timeout)),
            so::SNDTIMEO | so::SNDTIMEO_NEW => Some(timeval(v.send_timeout)),
            so::LINGER => {
                let mut out = v.linger.on.to_ne_bytes().to_vec();
                out.extend(v.linger.seconds.to_ne_bytes());
                Some(out)
            }
            _ => HINTS.iter().position(|h| h.0 == name).and_then(|i| int(v.hints[i])),
        }
    }

    /// Whether an option is known, but not for sockets of this family.
    pub fn foreign(&self, name: i32) -> bool {
        match name {
            so::PASSCRED | so::PASSSEC | so::PASSPIDFD => {
                !matches!(self.speaks, Speaks::Unix | Speaks::Netlink)
            }
            so::PASSRIGHTS => self.speaks != Speaks::Unix,
            so::TXREHASH => self.speaks != Speaks::Internet(true),
            _ => false,
        }
    }

    /// Sets a common option; `None` if it is not one.
    pub fn set(&self, cx: &Caller<'_>, name: i32, value: &[u8]) -> Option<Result<()>> {
        if self.foreign(name) {
            return Some(Err(Errno::EOPNOTSUPP));
        }
        let known = self.get(name).is_some();
        if !known && !matches!(name, so::SNDBUFFORCE | so::RCVBUFFORCE | so::BUSY_POLL_BUDGET) {
            return None;
        }
        Some(self.set_known(cx, name, value))
    }

    fn set_known(&self, cx: &Caller<'_>, name: i32, value: &[u8]) -> Result<()> {
        let n = int_value(value)?;
        let on = n != 0;
        let admin = cx.creds.has_cap(CapSet::NET_ADMIN);
        let largest = match name {
            so::SNDBUF => most(cx, "net/core/wmem_max"),
            so::RCVBUF => most(cx, "net/core/rmem_max"),
            _ => 0,
        };
        let mut v = self.values.lock();
        match name {
            so::DEBUG => {
                if on && !admin {
                    return Err(Errno::EACCES);
                }
                v.debug = on;
            }
            so::REUSEADDR => v.reuse_addr = on,
            so::REUSEPORT if on && !matches!(self.speaks, Speaks::Internet(_)) => {
                return Err(Errno::EOPNOTSUPP);
            }
            so::REUSEPORT => v.reuse_port = on,
            so::BSDCOMPAT => {}
            so::PASSRIGHTS => v.pass_rights = on,
            so::SELECT_ERR_QUEUE => v.select_err_queue = on,
            so::ZEROCOPY => {
                if !matches!(self.speaks, Speaks::Internet(_)) {
                    return Err(Errno::EOPNOTSUPP);
                }
                if !(0..=1).contains(&n) {
                    return Err(Errno::EINVAL);
                }
                v.zerocopy = on;
            }
            so::PEEK_OFF => v.peek_off = n.max(-1),
            so::BUF_LOCK => {
                if n & !(SEND_LOCK | RECEIVE_LOCK) != 0 {
                    return Err(Errno::EINVAL);
                }
                v.buf_lock = n;
            }
            so::TIMESTAMPING | so::TIMESTAMPING_NEW => {
                if n & !STAMPS != 0 {
                    if let Some(t) = cx.task {
                        kernel::gap!(t.kernel(), "flags of SO_TIMESTAMPING", n.unsigned_abs());
                    }
                    return Err(Errno::EINVAL);
                }
                v.timestamping = n;
                v.stamps_new = name == so::TIMESTAMPING_NEW;
            }
            so::BUSY_POLL if n < 0 => return Err(Errno::EINVAL),
            so::PREFER_BUSY_POLL | so::BUSY_POLL_BUDGET if on && !admin => return Err(Errno::EPERM),
            so::BUSY_POLL_BUDGET => {}
            so::TXREHASH if !(0..=1).contains(&n) => return Err(Errno::EINVAL),
            so::DONTROUTE => v.dont_route = on,
            so::BROADCAST => v.broadcast = on,
            so::KEEPALIVE => v.keepalive = on,
            so::OOBINLINE => v.oob_inline = on,
            so::NO_CHECK => v.no_check = on,
            so::PASSCRED => v.pass_cred = on,
            so::PASSSEC => v.pass_sec = on,
            so::PASSPIDFD => v.pass_pidfd = on,
            so::TIMESTAMP | so::TIMESTAMPNS | so::TIMESTAMP_NEW | so::TIMESTAMPNS_NEW => {
                v.timestamp = on;
                v.timestamp_ns = on && matches!(name, so::TIMESTAMPNS | so::TIMESTAMPNS_NEW);
                if on {
                    v.stamps_new = matches!(name, so::TIMESTAMP_NEW | so::TIMESTAMPNS_NEW);
                }
            }
            so::RCVMARK => v.tells_mark = on,
            so::RCVPRIORITY => v.tells_priority = on,
            so::MAX_PACING_RATE => {
                v.pacing = match value.get(..8).and_then(|long| long.try_into().ok()) {
                    Some(long) => u64::from_ne_bytes(long),
                    None if n == -1 => u64::MAX,
                    None => n.cast_unsigned().into(),
                };
            }
            so::RXQ_OVFL => v.rxq_ovfl = on,
            so::PRIORITY => {
                if !(0..=6).contains(&n) && !admin && !cx.creds.has_cap(CapSet::NET_RAW) {
                    return Err(Errno::EPERM);
                }
                v.priority = n;
            }
            so::MARK => {
                if !admin && !cx.creds.has_cap(CapSet::NET_RAW) {
                    return Err(Errno::EPERM);
                }
                v.mark = n;
            }
            so::SNDBUF => {
                v.send_buffer = doubled(n.cast_unsigned(), largest, MIN_SEND);
                v.buf_lock |= SEND_LOCK;
            }
            so::RCVBUF => {
                v.receive_buffer = doubled(n.cast_unsigned(), largest, MIN_RECEIVE);
                v.buf_lock |= RECEIVE_LOCK;
            }
            so::SNDBUFFORCE | so::RCVBUFFORCE => {
                if !admin {
                    return Err(Errno::EPERM);
                }
                // A negative size counts as 0.
                let n = n.max(0).cast_unsigned();
                if name == so::SNDBUFFORCE {
                    v.send_buffer = doubled(n, i32::MAX / 2, MIN_SEND);
                } else {
                    v.receive_buffer = doubled(n, i32::MAX / 2, MIN_RECEIVE);
                }
            }
            so::RCVLOWAT => v.receive_low = if n < 0 { i32::MAX } else { n.max(1) },
            so::RCVTIMEO | so::RCVTIMEO_NEW => v.receive_timeout = parse_timeval(value)?,
            so::SNDTIMEO | so::SNDTIMEO_NEW => v.send_timeout = parse_timeval(value)?,
            so::LINGER => {
                if value.len() < 8 {
                    return Err(Errno::EINVAL);
                }
                let seconds = int_value(&value[4..])?;
                // Switched off, it keeps its time.
                let seconds = if on { seconds } else { v.linger.seconds };
                v.linger = Linger { on: on.into(), seconds };
            }
            _ => {
                let i = HINTS.iter().position(|h| h.0 == name).ok_or(Errno::ENOPROTOOPT)?;
                let flag = matches!(name, so::WIFI_STATUS | so::NOFCS | so::PREFER_BUSY_POLL);
                v.hints[i] = if flag { on.into() } else { n };
            }
        }
        Ok(())
    }
}

/// The largest buffer that may be asked for.
fn most(cx: &Caller<'_>, setting: &str) -> i32 {
    let set = cx.task.map(|t| t.kernel().sysctls.get_int(setting));
    set.and_then(|n| i32::try_from(n).ok()).unwrap_or(MAX_BUFFER).min(i32::MAX / 2)
}

/// Buffer sizes are doubled for the kernel's own overhead (socket(7)).
fn doubled(n: u32, max: i32, min: i32) -> i32 {
    let n = i32::try_from(n).unwrap_or(i32::MAX).min(max);
    (n * 2).max(min)
}
