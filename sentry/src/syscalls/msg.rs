//! System V message queues: msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

use crate::Current;
use abi::Errno;
use abi::ipc::{
    IPC_INFO, IPC_NOWAIT, IPC_RMID, IPC_SET, IPC_STAT, MSG_COPY, MSG_EXCEPT, MSG_INFO, MSG_NOERROR, MSG_STAT,
    MSG_STAT_ANY, MsgInfo, MsqidDs,
};
use kernel::creds::CapSet;
use kernel::restart::Restart;
use kernel::sysv::{Message, MsgQueue, MsgTable, Want};
use kernel::uaccess::UserPtr;
use kernel::wait::{Blocked, WaitOn};
use kernel::{SysError, SysResult};
use std::sync::Arc;

fn table(t: &Current<'_>) -> Arc<MsgTable> {
    t.namespaces().ipc.objects.get_or_init(MsgTable::default)
}

fn limit(t: &Current<'_>, path: &str) -> usize {
    usize::try_from(t.kernel().sysctls.get_int(path)).unwrap_or(0)
}

fn now(t: &Current<'_>) -> i64 {
    t.kernel().clocks.now().tv_sec
}

pub fn msgget(t: &mut Current<'_>, key: i32, flags: u32) -> SysResult {
    let ipc = Arc::clone(&t.namespaces().ipc);
    let limits = (limit(t, "kernel/msgmni"), limit(t, "kernel/msgmnb"));
    let id = table(t).get(&t.creds(), &ipc.user_ns, key, flags, limits, now(t))?;
    Ok(u64::from(id.unsigned_abs()))
}

fn ended(b: Blocked) -> SysError {
    match b {
        Blocked::Interrupted => SysError::Restart(Restart::NoHandler),
        Blocked::TimedOut => Errno::EAGAIN.into(),
    }
}

pub fn msgsnd(t: &mut Current<'_>, id: i32, msg: UserPtr<i64>, size: usize, flags: u32) -> SysResult {
    let kind = msg.read(&t.mm())?;
    if size > limit(t, "kernel/msgmax") || id < 0 || kind < 1 {
        return Err(Errno::EINVAL.into());
    }
    let text = msg.add(1).cast::<u8>().read_array(&t.mm(), size)?;
    let queue = table(t).find(id)?;
    queue.state.lock().perm.check(&t.creds(), &t.namespaces().ipc.user_ns, 0o222)?;
    let message = Message { kind, text };
    let sent = t.block_on(&[WaitOn::any(&queue.queue)], None, || match queue.state.lock().send(&message) {
        Ok(true) => Some(Ok(())),
        Ok(false) if flags & IPC_NOWAIT != 0 => Some(Err(Errno::EAGAIN)),
        Ok(false) => None,
        Err(e) => Some(Err(e)),
    });
    sent.map_err(ended)??;
    {
        let (now, pid) = (now(t), t.group().tgid);
        let mut s = queue.state.lock();
        s.stime = now;
        s.lspid = pid;
    }
    queue.queue.wake_all(u32::MAX);
    Ok(0)
}

pub fn msgrcv(
    t: &mut Current<'_>,
    id: i32,
    msg: UserPtr<i64>,
    size: usize,
    kind: i64,
    flags: u32,
) -> SysResult {
    if id < 0 || isize::try_from(size).is_err() {
        return Err(Errno::EINVAL.into());
    }
    if flags & MSG_COPY != 0 && (flags & MSG_EXCEPT != 0 || flags & IPC_NOWAIT == 0) {
        return Err(Errno::EINVAL.into());
    }
    let want = if flags & MSG_COPY != 0 {
        Want::Copy(kind)
    } else if kind == 0 {
        Want::First
    } else if kind < 0 {
        Want::UpTo(kind.checked_neg().unwrap_or(i64::MAX))
    } else if flags & MSG_EXCEPT != 0 {
        Want::Except(kind)
    } else {
        Want::Kind(kind)
    };
    let queue = table(t).find(id)?;
    queue.state.lock().perm.check(&t.creds(), &t.namespaces().ipc.user_ns, 0o444)?;
    let cut = flags & MSG_NOERROR != 0;
    let got = t.block_on(&[WaitOn::any(&queue.queue)], None, || {
        match queue.state.lock().receive(want, size, cut) {
            Ok(Some(m)) => Some(Ok(m)),
            Ok(None) if flags & IPC_NOWAIT != 0 => Some(Err(Errno::ENOMSG)),
            Ok(None) => None,
            Err(e) => Some(Err(e)),
        }
    });
    let m = got.map_err(ended)??;
    if flags & MSG_COPY == 0 {
        let (now, pid) = (now(t), t.group().tgid);
        let mut s = queue.state.lock();
        s.rtime = now;
        s.lrpid = pid;
    }
    queue.queue.wake_all(u32::MAX);
    let n = m.text.len().min(size);
    msg.write(&t.mm(), &m.kind)?;
    msg.add(1).cast::<u8>().write_array(&t.mm(), &m.text[..n])?;
    Ok(n as u64)
}

fn describe(t: &Current<'_>, id: i32, q: &MsgQueue) -> MsqidDs {
    let s = q.state.lock();
    MsqidDs {
        perm: s.perm.to_abi(id, &t.creds().user_ns),
        stime: s.stime,
        rtime: s.rtime,
        ctime: s.ctime,
        cbytes: s.bytes as u64,
        qnum: s.len() as u64,
        qbytes: s.max_bytes as u64,
        lspid: s.lspid,
        lrpid: s.lrpid,
        ..MsqidDs::default()
    }
}

/// Process numbers as the caller sees them.
fn localize(t: &Current<'_>, mut d: MsqidDs) -> MsqidDs {
    let here = t.pid_ns();
    for pid in [&mut d.lspid, &mut d.lrpid] {
        *pid = t.kernel().root_pid_ns.task(*pid).and_then(|x| x.pid().number_in(&here)).unwrap_or(0);
    }
    d
}

pub fn msgctl(t: &mut Current<'_>, id: i32, cmd: i32, arg: UserPtr<MsqidDs>) -> SysResult {
    let table = table(t);
    let mm = t.mm();
    let creds = t.creds();
    let ipc = Arc::clone(&t.namespaces().ipc);
    if id < 0 {
        return Err(Errno::EINVAL.into());
    }
    match cmd {
        IPC_INFO | MSG_INFO => {
            let (queues, messages, bytes, highest) = table.counts();
            let n = |v: usize| i32::try_from(v).unwrap_or(i32::MAX);
            let mut info = MsgInfo {
                msgpool: n(limit(t, "kernel/msgmni") * limit(t, "kernel/msgmnb") / 1024),
                msgmap: n(limit(t, "kernel/msgmnb")),
                msgmax: n(limit(t, "kernel/msgmax")),
                msgmnb: n(limit(t, "kernel/msgmnb")),
                msgmni: n(limit(t, "kernel/msgmni")),
                msgssz: 16,
                msgtql: n(limit(t, "kernel/msgmnb")),
                msgseg: 0xffff,
                pad: 0,
            };
            if cmd == MSG_INFO {
                (info.msgpool, info.msgmap, info.msgtql) = (n(queues), n(messages), n(bytes));
            }
            arg.cast::<MsgInfo>().write(&mm, &info)?;
            Ok(u64::from(highest.unsigned_abs()))
        }
        MSG_STAT | MSG_STAT_ANY => {
            let (real, q) = table.at(id)?;
            if cmd == MSG_STAT {
                q.state.lock().perm.check(&creds, &ipc.user_ns, 0o444)?;
            }
            arg.write(&mm, &localize(t, describe(t, real, &q)))?;
            Ok(u64::from(real.unsigned_abs()))
        }
        IPC_STAT => {
            let q = table.find(id)?;
            q.state.lock().perm.check(&creds, &ipc.user_ns, 0o444)?;
            arg.write(&mm, &localize(t, describe(t, id, &q)))?;
            Ok(0)
        }
        IPC_SET => {
            let new = arg.read(&mm)?;
            let q = table.find(id)?;
            let (now, most) = (now(t), limit(t, "kernel/msgmnb"));
            {
                let mut s = q.state.lock();
                s.perm.check_owner(&creds, &ipc.user_ns)?;
                let bytes = usize::try_from(new.qbytes).unwrap_or(usize::MAX);
                if bytes > most && !creds.has_cap_in(&ipc.user_ns, CapSet::SYS_RESOURCE) {
                    return Err(Errno::EPERM.into());
                }
                s.perm.set(&new.perm, &creds.user_ns)?;
                s.max_bytes = bytes;
                s.ctime = now;
            }
            q.queue.wake_all(u32::MAX);
            Ok(0)
        }
        IPC_RMID => {
            let q = table.find(id)?;
            q.state.lock().perm.check_owner(&creds, &ipc.user_ns)?;
            table.remove(id);
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
