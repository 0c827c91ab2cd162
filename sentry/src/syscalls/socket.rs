//! socket(2), socketpair(2), bind(2), listen(2), accept(2), connect(2), shutdown(2), names and options.

use crate::Current;
use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::socket::*;
use abi::{Errno, Result};
use fs::socket::{Families, Socket, SocketOps, Timeo};
use kernel::restart::Restart;
use kernel::time::Deadline;
use kernel::uaccess::UserPtr;
use kernel::vfs::{Fd, File};
use kernel::wait::{Blocked, WaitOn};
use kernel::{SysError, SysResult};
use ksync::WaitQueue;
use std::sync::Arc;

/// `sizeof(struct sockaddr_storage)`
const ADDR_MAX: usize = 128;

/// The socket behind a descriptor: EBADF, ENOTSOCK.
pub(super) fn socket_file(t: &Current<'_>, fd: Fd) -> Result<Arc<File>> {
    let file = super::at::file(t, fd)?;
    if file.ops_as::<Socket>().is_none() {
        return Err(Errno::ENOTSOCK);
    }
    Ok(file)
}

/// The socket of a file that [`socket_file`] gave.
pub(super) fn socket_of(file: &File) -> Result<&Socket> {
    file.ops_as::<Socket>().ok_or(Errno::ENOTSOCK)
}

/// Copies an address in (`move_addr_to_kernel`).
pub(super) fn read_addr(t: &Current<'_>, addr: u64, len: i32) -> Result<Vec<u8>> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if len > ADDR_MAX {
        return Err(Errno::EINVAL);
    }
    UserPtr::<u8>::new(addr).read_array(&t.mm(), len)
}

/// Copies an address out, cut to the guest's buffer (`move_addr_to_user`).
pub(super) fn write_addr(t: &Current<'_>, name: &[u8], addr: u64, len: UserPtr<i32>) -> Result<()> {
    let room = usize::try_from(len.read(&t.mm())?).map_err(|_| Errno::EINVAL)?;
    let n = room.min(name.len());
    t.mm().copy_out(addr, &name[..n])?;
    len.write(&t.mm(), &i32::try_from(name.len()).unwrap_or(i32::MAX))
}

/// The result of a call that a signal interrupted: with a timeout it is not restarted (`sock_intr_errno`).
pub(super) fn interrupted(timeout: Timeo) -> SysError {
    if timeout.is_none() { Restart::Sys.into() } else { Errno::EINTR.into() }
}

/// Tries `op` until it says something else than EAGAIN, waiting for news of the socket, or of the
/// queue that `op` leaves in its argument.
pub(super) fn retry<R>(
    t: &Current<'_>,
    ops: &dyn SocketOps,
    nonblock: bool,
    events: PollEvents,
    timeout: Timeo,
    mut op: impl FnMut(&mut Option<Arc<WaitQueue>>) -> Result<R>,
) -> Result<R, SysError> {
    let mut other = None;
    match op(&mut other) {
        Err(Errno::EAGAIN) if !nonblock => {}
        result => return Ok(result?),
    }
    let deadline = timeout.map(|ns| Deadline::after(t.kernel(), ns));
    let mask = (events | PollEvents::UNASKED | PollEvents::RDHUP).bits();
    let mut queues = vec![WaitOn::mask(ops.queue(), mask)];
    queues.extend(other.map(|q| WaitOn::any(&q)));
    let waited = t.block_on(&queues, deadline, || match op(&mut None) {
        Err(Errno::EAGAIN) => None,
        result => Some(result),
    });
    match waited {
        Ok(result) => Ok(result?),
        Err(Blocked::TimedOut) => Err(Errno::EAGAIN.into()),
        Err(Blocked::Interrupted) => Err(interrupted(timeout)),
    }
}

/// Type and flags of socket(2)'s type argument; EINVAL.
fn split_type(kind: i32) -> Result<(i32, OpenFlags, bool)> {
    let flags = kind & !SOCK_TYPE_MASK;
    if flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let nonblock = if flags & SOCK_NONBLOCK != 0 { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
    Ok((kind & SOCK_TYPE_MASK, nonblock, flags & SOCK_CLOEXEC != 0))
}

fn create(t: &Current<'_>, domain: i32, kind: i32, protocol: i32) -> Result<Arc<Socket>> {
    if !(0..AF_MAX).contains(&domain) {
        return Err(Errno::EAFNOSUPPORT);
    }
    if kind >= SOCK_MAX {
        return Err(Errno::EINVAL);
    }
    let number = u16::try_from(domain).map_err(|_| Errno::EAFNOSUPPORT)?;
    let Some(family) = Families::of(t.kernel()).get(number) else {
        kernel::gap!(t.kernel(), "socket family", number);
        return Err(Errno::EAFNOSUPPORT);
    };
    let (ops, protocol) = t.as_caller(|cx| family.create(cx, kind, protocol))?;
    let kind = if number == AF_UNIX && kind == SOCK_RAW { SOCK_DGRAM } else { kind };
    Ok(Socket::new(number, kind, protocol, ops))
}

pub fn socket(t: &mut Current<'_>, domain: i32, kind: i32, protocol: i32) -> SysResult {
    let (kind, flags, cloexec) = split_type(kind)?;
    let socket = create(t, domain, kind, protocol)?;
    let file = t.as_caller(|cx| socket.into_file(t.kernel(), cx, flags));
    Ok(t.install_fd(file, cloexec)?)
}

pub fn socketpair(
    t: &mut Current<'_>,
    domain: i32,
    kind: i32,
    protocol: i32,
    fds: UserPtr<[i32; 2]>,
) -> SysResult {
    let (kind, flags, cloexec) = split_type(kind)?;
    let a = create(t, domain, kind, protocol)?;
    let b = create(t, domain, kind, protocol)?;
    t.as_caller(|cx| a.ops().pair(cx, &**b.ops()))?;
    let files = t.as_caller(|cx| [a, b].map(|s| s.into_file(t.kernel(), cx, flags)));
    t.install_pair(files, cloexec, fds)
}

pub fn bind(t: &mut Current<'_>, fd: Fd, addr: UserPtr<u8>, len: i32) -> SysResult {
    let file = socket_file(t, fd)?;
    let addr = read_addr(t, addr.addr(), len)?;
    t.as_caller(|cx| socket_of(&file)?.ops().bind(cx, &addr))?;
    Ok(0)
}

pub fn listen(t: &mut Current<'_>, fd: Fd, backlog: i32) -> SysResult {
    let file = socket_file(t, fd)?;
    let most = u32::try_from(t.kernel().sysctls.get_int("net/core/somaxconn")).unwrap_or(0);
    // A negative backlog is a large one.
    let backlog = backlog.cast_unsigned().min(most);
    t.as_caller(|cx| socket_of(&file)?.ops().listen(cx, backlog))?;
    Ok(0)
}

pub fn connect(t: &mut Current<'_>, fd: Fd, addr: UserPtr<u8>, len: i32) -> SysResult {
    let file = socket_file(t, fd)?;
    let addr = read_addr(t, addr.addr(), len)?;
    let ops = socket_of(&file)?.ops();
    let timeout = ops.options().send_timeout();
    let events = PollEvents::WRITABLE;
    let nonblock = file.nonblocking();
    let begun =
        retry(t, &**ops, nonblock, events, timeout, |on| t.as_caller(|cx| ops.connect(cx, &addr, on)));
    match begun {
        Err(SysError::Errno(Errno::EINPROGRESS | Errno::EALREADY)) if !nonblock => {}
        other => return other.map(|()| 0),
    }
    match retry(t, &**ops, false, PollEvents::all(), timeout, |_| t.as_caller(|cx| ops.connect_finish(cx))) {
        // The attempt goes on beyond the timeout.
        Err(SysError::Errno(Errno::EAGAIN)) => Err(Errno::EINPROGRESS.into()),
        other => other.map(|()| 0),
    }
}

pub fn accept(t: &mut Current<'_>, fd: Fd, addr: UserPtr<u8>, len: UserPtr<i32>) -> SysResult {
    accept4(t, fd, addr, len, 0)
}

pub fn accept4(t: &mut Current<'_>, fd: Fd, addr: UserPtr<u8>, len: UserPtr<i32>, flags: i32) -> SysResult {
    if flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = socket_file(t, fd)?;
    let socket = socket_of(&file)?;
    let ops = socket.ops();
    let timeout = ops.options().receive_timeout();
    let accepted = retry(t, &**ops, file.nonblocking(), PollEvents::READABLE, timeout, |_| {
        t.as_caller(|cx| ops.accept(cx))
    })?;
    let peer = if addr.is_null() { None } else { Some(accepted.accepted_from()) };
    let new = Socket::new(socket.family, socket.kind, socket.protocol, accepted);
    let nonblock = if flags & SOCK_NONBLOCK != 0 { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
    let new = t.as_caller(|cx| new.into_file(t.kernel(), cx, nonblock));
    if let Some(peer) = peer {
        let peer = peer.map_err(|_| Errno::ECONNABORTED)?;
        write_addr(t, &peer, addr.addr(), len)?;
    }
    Ok(t.install_fd(new, flags & SOCK_CLOEXEC != 0)?)
}

pub fn shutdown(t: &mut Current<'_>, fd: Fd, how: i32) -> SysResult {
    let file = socket_file(t, fd)?;
    t.as_caller(|cx| socket_of(&file)?.ops().shutdown(cx, how))?;
    Ok(0)
}

pub fn getsockname(t: &mut Current<'_>, fd: Fd, addr: UserPtr<u8>, len: UserPtr<i32>) -> SysResult {
    let file = socket_file(t, fd)?;
    let name = socket_of(&file)?.ops().name()?;
    write_addr(t, &name, addr.addr(), len)?;
    Ok(0)
}

pub fn getpeername(t: &mut Current<'_>, fd: Fd, addr: UserPtr<u8>, len: UserPtr<i32>) -> SysResult {
    let file = socket_file(t, fd)?;
    let name = socket_of(&file)?.ops().peer_name()?;
    write_addr(t, &name, addr.addr(), len)?;
    Ok(0)
}

pub fn setsockopt(
    t: &mut Current<'_>,
    fd: Fd,
    level: i32,
    name: i32,
    value: UserPtr<u8>,
    len: i32,
) -> SysResult {
    // Far more than any option's value; longer ones are cut as Linux ignores the rest.
    const MOST: usize = 65536;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    let file = socket_file(t, fd)?;
    let value = value.read_array(&t.mm(), len.min(MOST))?;
    t.as_caller(|cx| socket_of(&file)?.setsockopt(cx, level, name, &value))?;
    Ok(0)
}

/// The longest value that says what is asked for.
const MAX_OPTION: usize = 16 << 10;

pub fn getsockopt(
    t: &mut Current<'_>,
    fd: Fd,
    level: i32,
    name: i32,
    value: UserPtr<u8>,
    len: UserPtr<i32>,
) -> SysResult {
    let file = socket_file(t, fd)?;
    let room = usize::try_from(len.read(&t.mm())?).map_err(|_| Errno::EINVAL)?;
    if level == SOL_SOCKET && name == so::PEERPIDFD && room >= 4 {
        let sender = socket_of(&file)?.ops().peer_sender().ok_or(Errno::ENODATA)?;
        let pid = sender.pid.ok_or(Errno::ENODATA)?;
        let pidfd = super::pidfd::open_pid(t, pid, false, false)?;
        value.cast().write(&t.mm(), &pidfd)?;
        len.write(&t.mm(), &4)?;
        return Ok(0);
    }
    if level == SOL_SOCKET && name == so::ATTACH_FILTER && socket_of(&file)?.ops().has_filters() {
        // `SO_GET_FILTER`: room and answer are numbers of instructions.
        let filter = socket_of(&file)?.ops().options().filter();
        let insns = filter.as_ref().map_or(&[][..], |program| program.insns());
        if room != 0 && room < insns.len() {
            return Err(Errno::EINVAL.into());
        }
        if room != 0 {
            value.cast::<kernel::bpf::Insn>().write_array(&t.mm(), insns)?;
        }
        len.write(&t.mm(), &i32::try_from(insns.len()).unwrap_or(i32::MAX))?;
        return Ok(0);
    }
    if fs::socket::inet::groups::is_source_filter(level, name) {
        let asked = value.read_array(&t.mm(), room.min(MAX_OPTION))?;
        let got = socket_of(&file)?.ops().getsockopt_of(level, name, &asked)?;
        value.write_array(&t.mm(), &got)?;
        len.write(&t.mm(), &i32::try_from(got.len()).unwrap_or(i32::MAX))?;
        return Ok(0);
    }
    let got = t.as_caller(|cx| socket_of(&file)?.getsockopt(cx, level, name, room))?;
    if level == SOL_SOCKET && name == so::PEERGROUPS && room < got.len() {
        len.write(&t.mm(), &i32::try_from(got.len()).unwrap_or(i32::MAX))?;
        return Err(Errno::ERANGE.into());
    }
    if level == SOL_SOCKET && name == so::PEERNAME && room > got.len() {
        return Err(Errno::EINVAL.into());
    }
    let n = room.min(got.len());
    value.write_array(&t.mm(), &got[..n])?;
    len.write(&t.mm(), &i32::try_from(n).unwrap_or(i32::MAX))?;
    Ok(0)
}
