//! send(2) and recv(2) in all their forms.

use super::socket::{read_addr, retry, socket_file, socket_of, write_addr};
use crate::Current;
use abi::poll::PollEvents;
use abi::socket::*;
use abi::time::Timespec;
use abi::{Errno, Result};
use fs::socket::{ControlMessage, Received, SendArgs, Sender, Socket};
use kernel::creds::CapSet;
use kernel::io::{Sink, Source};
use kernel::time::Deadline;
use kernel::uaccess::{UserIoVec, UserPtr};
use kernel::vfs::{Fd, File};
use kernel::{SysError, SysResult};
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// `net.core.optmem_max`
const CONTROL_MAX: u64 = 131_072;
/// `UIO_MAXIOV`
const VEC_MAX: u64 = 1024;

/// What goes along with data.
#[derive(Default)]
struct Control {
    rights: Vec<Arc<File>>,
    sender: Option<Sender>,
    others: Vec<ControlMessage>,
}

fn parse_control(t: &Current<'_>, socket: &Socket, raw: &[u8]) -> Result<Control> {
    let mut out = Control::default();
    let mut at = 0;
    while raw.len() - at >= size_of::<CmsgHdr>() {
        let (hdr, rest) = CmsgHdr::read_from_prefix(&raw[at..]).map_err(|_| Errno::EINVAL)?;
        let len = usize::try_from(hdr.len).map_err(|_| Errno::EINVAL)?;
        if len < size_of::<CmsgHdr>() || len > raw.len() - at {
            return Err(Errno::EINVAL);
        }
        let data = &rest[..len - size_of::<CmsgHdr>()];
        if socket.family != AF_UNIX {
            out.others.push(ControlMessage { level: hdr.level, kind: hdr.kind, data: data.to_vec() });
        } else if hdr.level == SOL_SOCKET {
            match hdr.kind {
                SCM_RIGHTS if socket.family == AF_UNIX => {
                    let fds = data.len() / 4;
                    if fds > SCM_MAX_FD || out.rights.len() + fds > SCM_MAX_FD {
                        return Err(Errno::EINVAL);
                    }
                    let table = t.files();
                    for raw in data.chunks_exact(4) {
                        let fd = i32::from_ne_bytes(raw.try_into().unwrap_or_default());
                        let file = table.get(Fd(fd))?;
                        // Passing O_PATH descriptors is fine.
                        out.rights.push(file);
                    }
                }
                SCM_CREDENTIALS if socket.family == AF_UNIX => {
                    let c = Ucred::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
                    out.sender = Some(check_ucred(t, &c)?);
                }
                _ => return Err(Errno::EINVAL),
            }
        }
        at += len.next_multiple_of(8);
        if at > raw.len() {
            break;
        }
    }
    Ok(out)
}

/// Whether the caller may claim these credentials (`scm_check_creds`).
fn check_ucred(t: &Current<'_>, c: &Ucred) -> Result<Sender> {
    let creds = t.creds();
    let ns = &creds.user_ns;
    let uid = ns.kuid(c.uid).ok_or(Errno::EINVAL)?;
    let gid = ns.kgid(c.gid).ok_or(Errno::EINVAL)?;
    let own = t.group().pid();
    let own_pid = Some(c.pid) == own.number_in(&t.pid_ns()) || creds.has_cap(CapSet::SYS_ADMIN);
    let own_uid = [creds.uid, creds.euid, creds.suid].contains(&uid) || creds.has_cap(CapSet::SETUID);
    let own_gid = [creds.gid, creds.egid, creds.sgid].contains(&gid) || creds.has_cap(CapSet::SETGID);
    if !(own_pid && own_uid && own_gid) {
        return Err(Errno::EPERM);
    }
    let pid = t.pid_ns().find(c.pid).ok_or(Errno::ESRCH)?;
    Ok(Sender { pid: Some(pid), uid, gid, groups: Arc::clone(&creds.groups) })
}

/// Sends until all is sent, as far as the socket is a blocking stream.
fn do_send(
    t: &Current<'_>,
    file: &File,
    iov: &UserIoVec,
    to: Option<&[u8]>,
    control: Control,
    flags: u32,
) -> SysResult {
    let socket = socket_of(file)?;
    let ops = socket.ops();
    let nonblock = flags & MSG_DONTWAIT != 0 || file.nonblocking();
    let timeout = ops.options().send_timeout();
    let mm = t.mm();
    let mut data = iov.source(&mm);
    let mut rights = control.rights;
    let mut total = 0;
    loop {
        let sent = retry(t, &**ops, nonblock, PollEvents::WRITABLE, timeout, |wait_on| {
            let mut args = SendArgs {
                data: &mut data,
                to,
                rights: std::mem::take(&mut rights),
                sender: control.sender.clone(),
                flags: if nonblock { flags | MSG_DONTWAIT } else { flags },
                control: control.others.clone(),
                wait_on: None,
            };
            let result = t.as_caller(|cx| ops.send(cx, &mut args));
            rights = args.rights;
            *wait_on = args.wait_on;
            result
        });
        match sent {
            Ok(n) => total += n,
            Err(_) if total > 0 => break,
            Err(e) => return Err(e),
        }
        if !ops.is_stream() || nonblock || Source::remaining(&data) == 0 {
            break;
        }
    }
    Ok(total as u64)
}

pub fn sendto(
    t: &mut Current<'_>,
    fd: Fd,
    buf: UserPtr<u8>,
    len: usize,
    flags: u32,
    addr: UserPtr<u8>,
    addr_len: i32,
) -> SysResult {
    let iov = UserIoVec::single(buf.addr(), len)?;
    let file = socket_file(t, fd)?;
    let to = if addr.is_null() { None } else { Some(read_addr(t, addr.addr(), addr_len)?) };
    let flags = flags & !MSG_CMSG_COMPAT;
    do_send(t, &file, &iov, to.as_deref().filter(|a| !a.is_empty()), Control::default(), flags)
}

fn import(t: &Current<'_>, hdr: &MsgHdr) -> Result<UserIoVec> {
    if hdr.iovlen > VEC_MAX {
        return Err(Errno::EMSGSIZE);
    }
    let count = usize::try_from(hdr.iovlen).map_err(|_| Errno::EMSGSIZE)?;
    UserIoVec::import(&t.mm(), UserPtr::new(hdr.iov), count)
}

/// The address length of a header: negative is wrong, too long is cut (`copy_msghdr_from_user`).
fn name_len(hdr: &MsgHdr) -> Result<i32> {
    if hdr.name == 0 {
        return Ok(0);
    }
    if hdr.namelen < 0 {
        return Err(Errno::EINVAL);
    }
    Ok(hdr.namelen.min(128))
}

fn send_one(t: &Current<'_>, file: &File, hdr: &MsgHdr, flags: u32) -> SysResult {
    let len = name_len(hdr)?;
    let to = if len > 0 { Some(read_addr(t, hdr.name, len)?) } else { None };
    let iov = import(t, hdr)?;
    if hdr.controllen > CONTROL_MAX {
        return Err(Errno::ENOBUFS.into());
    }
    let mut control = Control::default();
    if hdr.controllen > 0 {
        let n = usize::try_from(hdr.controllen).map_err(|_| Errno::ENOBUFS)?;
        let raw = UserPtr::<u8>::new(hdr.control).read_array(&t.mm(), n)?;
        control = parse_control(t, socket_of(file)?, &raw)?;
    }
    do_send(t, file, &iov, to.as_deref(), control, flags & !MSG_CMSG_COMPAT)
}

pub fn sendmsg(t: &mut Current<'_>, fd: Fd, msg: UserPtr<MsgHdr>, flags: u32) -> SysResult {
    if flags & MSG_CMSG_COMPAT != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = socket_file(t, fd)?;
    let hdr = msg.read(&t.mm())?;
    send_one(t, &file, &hdr, flags)
}

pub fn sendmmsg(t: &mut Current<'_>, fd: Fd, msgs: UserPtr<MMsgHdr>, count: u32, flags: u32) -> SysResult {
    if flags & MSG_CMSG_COMPAT != 0 {
        return Err(Errno::EINVAL.into());
    }
    let count = count.min(1024) as usize;
    let file = socket_file(t, fd)?;
    let mut done = 0;
    for i in 0..count {
        let at = msgs.add(i);
        let one = (|| {
            let m = at.read(&t.mm())?;
            let n = send_one(t, &file, &m.hdr, flags)?;
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            t.mm().copy_out(at.addr().wrapping_add(56), n.as_bytes())?;
            Ok::<(), SysError>(())
        })();
        match one {
            Ok(()) => done += 1,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Receives once, or with `MSG_WAITALL` on a stream until the buffer is full.
fn do_receive(t: &Current<'_>, file: &File, iov: &UserIoVec, flags: u32) -> Result<Received, SysError> {
    let socket = socket_of(file)?;
    let ops = socket.ops();
    // The queue of errors is never waited for.
    let nonblock = flags & (MSG_DONTWAIT | MSG_ERRQUEUE) != 0 || file.nonblocking();
    let flags = if nonblock { flags | MSG_DONTWAIT } else { flags };
    let timeout = ops.options().receive_timeout();
    let mm = t.mm();
    let mut dst = iov.sink(&mm);
    let mut total: Option<Received> = None;
    loop {
        let got = retry(t, &**ops, nonblock, PollEvents::READABLE, timeout, |_| {
            t.as_caller(|cx| ops.receive(cx, &mut dst, flags))
        });
        let (n, more) = match got {
            Ok(r) => {
                let n = (r.len, r.may_continue);
                match &mut total {
                    None => total = Some(r),
                    Some(all) => {
                        all.len += r.len;
                        all.rights.extend(r.rights);
                    }
                }
                n
            }
            Err(e) => match total {
                Some(all) => return Ok(all),
                None => return Err(e),
            },
        };
        let wait_all = flags & MSG_WAITALL != 0 && flags & MSG_PEEK == 0 && !nonblock;
        if !(wait_all && ops.is_stream() && more && n > 0 && Sink::remaining(&dst) > 0) {
            return Ok(total.unwrap_or_default());
        }
    }
}

pub fn recvfrom(
    t: &mut Current<'_>,
    fd: Fd,
    buf: UserPtr<u8>,
    len: usize,
    flags: u32,
    addr: UserPtr<u8>,
    addr_len: UserPtr<i32>,
) -> SysResult {
    let iov = UserIoVec::single(buf.addr(), len)?;
    let file = socket_file(t, fd)?;
    let got = do_receive(t, &file, &iov, flags)?;
    if !addr.is_null() {
        write_addr(t, got.from.as_deref().unwrap_or_default(), addr.addr(), addr_len)?;
    }
    Ok(got.len as u64)
}

/// Builds control messages in the room the guest gives.
struct ControlOut {
    data: Vec<u8>,
    room: usize,
    truncated: bool,
}

impl ControlOut {
    /// `put_cmsg`: what does not fit is cut, with `MSG_CTRUNC`.
    fn put(&mut self, kind: i32, data: &[u8]) {
        self.put_level(SOL_SOCKET, kind, data);
    }

    fn put_level(&mut self, level: i32, kind: i32, data: &[u8]) {
        const HEAD: usize = size_of::<CmsgHdr>();
        let left = self.room - self.data.len();
        if left < HEAD {
            self.truncated = true;
            return;
        }
        let mut len = HEAD + data.len();
        if left < len {
            self.truncated = true;
            len = left;
        }
        let hdr = CmsgHdr { len: len as u64, level, kind };
        self.data.extend(hdr.as_bytes());
        self.data.extend(&data[..len - HEAD]);
        let padded = self.data.len().next_multiple_of(8).min(self.room);
        self.data.resize(padded, 0);
    }
}

/// Receives a message and writes it out; `msg` is where its header is.
fn receive_one(t: &Current<'_>, file: &File, msg: UserPtr<MsgHdr>, flags: u32) -> SysResult {
    let mm = t.mm();
    let hdr = msg.read(&mm)?;
    name_len(&hdr)?;
    let iov = import(t, &hdr)?;
    let got = do_receive(t, file, &iov, flags & !(MSG_CMSG_CLOEXEC | MSG_CMSG_COMPAT))?;
    let socket = socket_of(file)?;
    let room = if hdr.control == 0 { 0 } else { usize::try_from(hdr.controllen).unwrap_or(usize::MAX) };
    let mut out = ControlOut { data: Vec::new(), room: room.min(1 << 20), truncated: false };
    if socket.family == AF_UNIX && socket.ops().options().pass_cred() {
        let cred = t.as_caller(|cx| fs::socket::unix::ucred(cx, got.sender.as_ref()));
        if room > 0 {
            out.put(SCM_CREDENTIALS, cred.as_bytes());
        } else {
            out.truncated = true;
        }
    }
    if socket.family == AF_UNIX
        && socket.ops().options().pass_pidfd()
        && let Some(pid) = got.sender.as_ref().and_then(|s| s.pid.clone())
    {
        let room = out.room - out.data.len();
        if room >= size_of::<CmsgHdr>() + 4 {
            let fd = super::pidfd::open_pid(t, pid, false, false).unwrap_or(-1);
            out.put(SCM_PIDFD, &fd.to_ne_bytes());
        } else {
            out.truncated = true;
        }
    }
    for m in &got.control {
        out.put_level(m.level, m.kind, &m.data);
    }
    install_rights(t, got.rights, flags & MSG_CMSG_CLOEXEC != 0, &mut out);
    let base = msg.addr();
    if hdr.name != 0 {
        let name = got.from.as_deref().unwrap_or_default();
        write_addr(t, name, hdr.name, UserPtr::new(base.wrapping_add(8)))?;
    }
    if !out.data.is_empty() {
        mm.copy_out(hdr.control, &out.data)?;
    }
    let mut result = got.flags | flags & MSG_CMSG_CLOEXEC;
    if out.truncated {
        result |= MSG_CTRUNC;
    }
    mm.copy_out(base.wrapping_add(48), result.as_bytes())?;
    mm.copy_out(base.wrapping_add(40), (out.data.len() as u64).as_bytes())?;
    Ok(got.len as u64)
}

/// Gives received files descriptors, as many as the control buffer has room for (`scm_detach_fds`).
fn install_rights(t: &Current<'_>, files: Vec<Arc<File>>, cloexec: bool, out: &mut ControlOut) {
    if files.is_empty() {
        return;
    }
    let left = out.room - out.data.len();
    let fit = left.saturating_sub(size_of::<CmsgHdr>()) / 4;
    let mut raw = Vec::new();
    let count = files.len();
    for file in files.into_iter().take(fit) {
        let Ok(fd) = t.install_fd(file, cloexec) else { break };
        raw.extend(i32::try_from(fd).unwrap_or(-1).to_ne_bytes());
    }
    let given = raw.len() / 4;
    if given > 0 {
        out.put(SCM_RIGHTS, &raw);
    }
    if given < count {
        out.truncated = true;
    }
}

pub fn recvmsg(t: &mut Current<'_>, fd: Fd, msg: UserPtr<MsgHdr>, flags: u32) -> SysResult {
    if flags & MSG_CMSG_COMPAT != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = socket_file(t, fd)?;
    receive_one(t, &file, msg, flags)
}

pub fn recvmmsg(
    t: &mut Current<'_>,
    fd: Fd,
    msgs: UserPtr<MMsgHdr>,
    count: u32,
    flags: u32,
    timeout: UserPtr<Timespec>,
) -> SysResult {
    if flags & MSG_CMSG_COMPAT != 0 {
        return Err(Errno::EINVAL.into());
    }
    let until = match timeout.optional() {
        None => None,
        Some(p) => {
            let ns = p.read(&t.mm())?.to_nanos_checked()?;
            Some(Deadline::after(t.kernel(), ns))
        }
    };
    let file = socket_file(t, fd)?;
    let mut each = flags & !MSG_WAITFORONE;
    let mut done = 0;
    for i in 0..count.min(1024) as usize {
        let at = msgs.add(i);
        let one = receive_one(t, &file, at.cast(), each).and_then(|n| {
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            t.mm().copy_out(at.addr().wrapping_add(56), n.as_bytes())?;
            Ok(())
        });
        match one {
            Ok(()) => done += 1,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
        if flags & MSG_WAITFORONE != 0 {
            each |= MSG_DONTWAIT;
        }
        // As Linux: the timeout is looked at only between messages.
        if until.is_some_and(|d| d.remaining(t.kernel()).is_none()) {
            break;
        }
    }
    if let Some(d) = until {
        let left = d.remaining(t.kernel()).map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
        timeout.write(&t.mm(), &Timespec::from_nanos(left))?;
    }
    Ok(done)
}
