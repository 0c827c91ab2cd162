//! Limits and usage: getrlimit(2), prlimit(2), getrusage(2), times(2).

use crate::Current;
use abi::resource::{Resource, Rlimit, Rusage};
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::uaccess::UserPtr;
use kernel::{SysResult, Task, ThreadGroup};
use std::sync::Arc;

fn resource(n: u32) -> Result<Resource> {
    Resource::new(n).ok_or(Errno::EINVAL)
}

fn set(t: &Current<'_>, group: &Arc<ThreadGroup>, r: Resource, mut new: Rlimit) -> Result<()> {
    if new.cur > new.max {
        return Err(Errno::EINVAL);
    }
    if r == Resource::Nofile && new.max > t.kernel().sysctls.get_int("fs/nr_open").unsigned_abs() {
        return Err(Errno::EPERM);
    }
    let old = group.limit(r);
    if new.max > old.max && !t.creds().has_cap(CapSet::SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    if r == Resource::Cpu && new.cur == 0 {
        // As Linux: zero would kill at once what should be told first.
        new.cur = 1;
    }
    group.set_limit(r, new);
    if r == Resource::Cpu {
        group.timers.limit_changed(group);
    }
    if r == Resource::Stack
        && let Some(mm) = group.live_thread().and_then(|l| l.try_mm())
    {
        mm.set_stack_limit(new.cur);
    }
    Ok(())
}

pub fn getrlimit(t: &mut Current<'_>, which: u32, out: UserPtr<Rlimit>) -> SysResult {
    let l = t.group().limit(resource(which)?);
    out.write(&t.mm(), &l)?;
    Ok(0)
}

pub fn setrlimit(t: &mut Current<'_>, which: u32, new: UserPtr<Rlimit>) -> SysResult {
    let new = new.read(&t.mm())?;
    set(t, t.group(), resource(which)?, new)?;
    Ok(0)
}

/// Whether the caller may see and change another's limits.
fn may_limit(me: &Task, other: &Task) -> bool {
    if Arc::ptr_eq(me.group(), other.group()) {
        return true;
    }
    let (c, o) = (me.creds(), other.creds());
    let same = [o.uid, o.euid, o.suid].iter().all(|u| *u == c.uid)
        && [o.gid, o.egid, o.sgid].iter().all(|g| *g == c.gid);
    same || c.has_cap_in(&o.user_ns, CapSet::SYS_RESOURCE)
}

pub fn prlimit64(
    t: &mut Current<'_>,
    pid: i32,
    which: u32,
    new: UserPtr<Rlimit>,
    old: UserPtr<Rlimit>,
) -> SysResult {
    let mm = t.mm();
    let new = new.optional().map(|p| p.read(&mm)).transpose()?;
    let task = match pid {
        0 => Arc::clone(t.task),
        n => t.pid_ns().task(n).ok_or(Errno::ESRCH)?,
    };
    if !may_limit(t, &task) {
        return Err(Errno::EPERM.into());
    }
    let r = resource(which)?;
    let before = task.group().limit(r);
    if let Some(l) = new {
        set(t, task.group(), r, l)?;
    }
    if let Some(p) = old.optional() {
        p.write(&mm, &before)?;
    }
    Ok(0)
}

pub fn getrusage(t: &mut Current<'_>, who: i32, out: UserPtr<Rusage>) -> SysResult {
    const SELF: i32 = 0;
    const CHILDREN: i32 = -1;
    const THREAD: i32 = 1;
    let mut used = match who {
        SELF => t.group().total_usage(),
        CHILDREN => t.group().children_usage(),
        THREAD => t.usage(),
        _ => return Err(Errno::EINVAL.into()),
    };
    if who != CHILDREN {
        used.maxrss = used.maxrss.max(t.mm().peak_rss() >> 10);
    }
    out.write(&t.mm(), &used.rusage())?;
    Ok(0)
}

pub fn times(t: &mut Current<'_>, out: UserPtr<[i64; 4]>) -> SysResult {
    const TICK: i64 = 10_000_000;
    if let Some(p) = out.optional() {
        let (u, s) = t.group().cpu_time();
        let c = t.group().children_usage();
        p.write(&t.mm(), &[u / TICK, s / TICK, c.user / TICK, c.system / TICK])?;
    }
    Ok((platform::clock::boottime() / TICK).unsigned_abs())
}
