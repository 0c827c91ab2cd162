//! System V semaphores: semget(2), semop(2), semtimedop(2), semctl(2).

use crate::Current;
use abi::ipc::{
    GETALL, GETNCNT, GETPID, GETVAL, GETZCNT, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, SEM_INFO, SEM_STAT,
    SEM_STAT_ANY, SETALL, SETVAL, SemBuf, SemInfo, SemidDs,
};
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::SysResult;
use kernel::sysv::{Attempt, SEMVMX, SemCaller, SemLimits, SemSet, SemTable};
use kernel::time::Deadline;
use kernel::uaccess::UserPtr;
use kernel::wait::{Blocked, WaitOn};
use std::sync::Arc;

fn table(t: &Current<'_>) -> Arc<SemTable> {
    t.namespaces().ipc.objects.get_or_init(SemTable::default)
}

fn now(t: &Current<'_>) -> i64 {
    t.kernel().clocks.now().tv_sec
}

fn caller(t: &Current<'_>) -> SemCaller {
    SemCaller { group: t.group().key(), pid: t.group().tgid, now: now(t) }
}

fn limits(t: &Current<'_>) -> SemLimits {
    let text =
        kernel::sysctl::Sysctls::find("kernel/sem").map(|s| t.kernel().sysctls.get(s)).unwrap_or_default();
    let n: Vec<usize> = text.split('\t').filter_map(|w| w.parse().ok()).collect();
    let at = |i: usize| n.get(i).copied().unwrap_or(0);
    SemLimits { semmsl: at(0), semmns: at(1), semopm: at(2), semmni: at(3) }
}

pub fn semget(t: &mut Current<'_>, key: i32, count: i32, flags: u32) -> SysResult {
    let ipc = Arc::clone(&t.namespaces().ipc);
    let id = table(t).get(&t.creds(), &ipc.user_ns, key, count, flags, &limits(t), now(t))?;
    Ok(u64::from(id.unsigned_abs()))
}

pub fn semop(t: &mut Current<'_>, id: i32, ops: UserPtr<SemBuf>, count: u32) -> SysResult {
    operate(t, id, ops, count, None)
}

pub fn semtimedop(
    t: &mut Current<'_>,
    id: i32,
    ops: UserPtr<SemBuf>,
    count: u32,
    timeout: UserPtr<Timespec>,
) -> SysResult {
    let deadline = match timeout.optional() {
        None => None,
        Some(p) => {
            let ns = p.read(&t.mm())?.to_nanos_checked()?;
            Some(Deadline::after(t.kernel(), ns))
        }
    };
    operate(t, id, ops, count, deadline)
}

fn operate(
    t: &mut Current<'_>,
    id: i32,
    ops: UserPtr<SemBuf>,
    count: u32,
    deadline: Option<Deadline>,
) -> SysResult {
    if count == 0 || id < 0 {
        return Err(Errno::EINVAL.into());
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > limits(t).semopm {
        return Err(Errno::E2BIG.into());
    }
    let ops = ops.read_array(&t.mm(), count)?;
    let set = table(t).find(id)?;
    let who = caller(t);
    {
        let state = set.state.lock();
        if ops.iter().any(|o| usize::from(o.num) >= state.sems.len()) {
            return Err(Errno::EFBIG.into());
        }
        let want = if ops.iter().any(|o| o.op != 0) { 0o222 } else { 0o444 };
        state.perm.check(&t.creds(), &t.namespaces().ipc.user_ns, want)?;
    }
    // While it waits, the semaphore it waits for counts the caller.
    let mut counted: Option<usize> = None;
    let mut count_in = |set: &SemSet, at: Option<usize>| {
        let mut state = set.state.lock();
        for (i, up) in [(counted, false), (at, true)] {
            let Some(op) = i.and_then(|i| ops.get(i)) else { continue };
            let sem = &mut state.sems[usize::from(op.num)];
            let n = if op.op == 0 { &mut sem.zero } else { &mut sem.growing };
            *n = if up { *n + 1 } else { n.saturating_sub(1) };
        }
        counted = at;
    };
    let done = t.block_on(&[WaitOn::any(&set.queue)], deadline, || {
        let attempt = set.state.lock().attempt(&ops, &who);
        match attempt {
            Ok(Attempt::Wait(i)) => {
                count_in(&set, Some(i));
                None
            }
            Ok(Attempt::Done) => Some(Ok(())),
            Err(e) => Some(Err(e)),
        }
    });
    if done != Ok(Err(Errno::EIDRM)) {
        count_in(&set, None);
    }
    match done {
        Ok(Ok(())) => {
            set.queue.wake_all(u32::MAX);
            Ok(0)
        }
        Ok(Err(e)) => Err(e.into()),
        Err(Blocked::TimedOut) => Err(Errno::EAGAIN.into()),
        Err(Blocked::Interrupted) => Err(Errno::EINTR.into()),
    }
}

fn describe(t: &Current<'_>, id: i32, set: &SemSet) -> SemidDs {
    let s = set.state.lock();
    SemidDs {
        perm: s.perm.to_abi(id, &t.creds().user_ns),
        otime: s.otime,
        ctime: s.ctime,
        nsems: s.sems.len() as u64,
        ..SemidDs::default()
    }
}

pub fn semctl(t: &mut Current<'_>, id: i32, num: i32, cmd: i32, arg: u64) -> SysResult {
    let table = table(t);
    let mm = t.mm();
    let creds = t.creds();
    let ipc = Arc::clone(&t.namespaces().ipc);
    if id < 0 {
        return Err(Errno::EINVAL.into());
    }
    match cmd {
        IPC_INFO | SEM_INFO => {
            let l = limits(t);
            let (sets, sems, highest) = table.counts();
            let n = |v: usize| i32::try_from(v).unwrap_or(i32::MAX);
            let mut info = SemInfo {
                semmap: n(l.semmns),
                semmni: n(l.semmni),
                semmns: n(l.semmns),
                semmnu: n(l.semmns),
                semmsl: n(l.semmsl),
                semopm: n(l.semopm),
                semume: n(l.semopm),
                semusz: 20,
                semvmx: SEMVMX,
                semaem: SEMVMX,
            };
            if cmd == SEM_INFO {
                info.semusz = n(sets);
                info.semaem = n(sems);
            }
            UserPtr::<SemInfo>::new(arg).write(&mm, &info)?;
            return Ok(u64::from(highest.unsigned_abs()));
        }
        SEM_STAT | SEM_STAT_ANY => {
            let (real, set) = table.at(id)?;
            if cmd == SEM_STAT {
                set.state.lock().perm.check(&creds, &ipc.user_ns, 0o444)?;
            }
            UserPtr::<SemidDs>::new(arg).write(&mm, &describe(t, real, &set))?;
            return Ok(u64::from(real.unsigned_abs()));
        }
        _ => {}
    }
    let set = table.find(id)?;
    let index = usize::try_from(num).ok().filter(|n| *n < set.state.lock().sems.len());
    let check = |want: u32| -> Result<()> { set.state.lock().perm.check(&creds, &ipc.user_ns, want) };
    match cmd {
        IPC_STAT => {
            check(0o444)?;
            UserPtr::<SemidDs>::new(arg).write(&mm, &describe(t, id, &set))?;
            Ok(0)
        }
        IPC_SET => {
            let new = UserPtr::<SemidDs>::new(arg).read(&mm)?;
            let now = now(t);
            let mut s = set.state.lock();
            s.perm.check_owner(&creds, &ipc.user_ns)?;
            s.perm.set(&new.perm, &creds.user_ns)?;
            s.ctime = now;
            Ok(0)
        }
        IPC_RMID => {
            set.state.lock().perm.check_owner(&creds, &ipc.user_ns)?;
            table.remove(id);
            Ok(0)
        }
        GETALL => {
            check(0o444)?;
            let values: Vec<u16> =
                set.state.lock().sems.iter().map(|s| u16::try_from(s.value).unwrap_or(u16::MAX)).collect();
            UserPtr::<u16>::new(arg).write_array(&mm, &values)?;
            Ok(0)
        }
        SETALL => {
            let count = set.state.lock().sems.len();
            check(0o222)?;
            let values = UserPtr::<u16>::new(arg).read_array(&mm, count)?;
            if values.iter().any(|v| i32::from(*v) > SEMVMX) {
                return Err(Errno::ERANGE.into());
            }
            let who = caller(t);
            {
                let mut s = set.state.lock();
                for (i, v) in values.iter().enumerate() {
                    s.sems[i].value = i32::from(*v);
                    s.sems[i].pid = who.pid;
                    s.forget_undo(i);
                }
                s.ctime = who.now;
            }
            set.queue.wake_all(u32::MAX);
            Ok(0)
        }
        GETVAL | GETPID | GETNCNT | GETZCNT => {
            let i = index.ok_or(Errno::EINVAL)?;
            check(0o444)?;
            let sem = set.state.lock().sems[i];
            Ok(match cmd {
                GETVAL => u64::from(sem.value.unsigned_abs()),
                GETPID => {
                    let seen =
                        t.kernel().root_pid_ns.task(sem.pid).and_then(|x| x.pid().number_in(&t.pid_ns()));
                    u64::from(seen.unwrap_or(0).unsigned_abs())
                }
                GETNCNT => u64::from(sem.growing),
                _ => u64::from(sem.zero),
            })
        }
        SETVAL => {
            let i = index.ok_or(Errno::EINVAL)?;
            // The argument is an int.
            let value = i32::try_from(arg & 0xffff_ffff).map_err(|_| Errno::ERANGE)?;
            if value > SEMVMX {
                return Err(Errno::ERANGE.into());
            }
            check(0o222)?;
            let who = caller(t);
            {
                let mut s = set.state.lock();
                s.sems[i].value = value;
                s.sems[i].pid = who.pid;
                s.forget_undo(i);
                s.ctime = who.now;
            }
            set.queue.wake_all(u32::MAX);
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
