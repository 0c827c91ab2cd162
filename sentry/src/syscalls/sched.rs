//! Scheduling (sched(7)): policies, priorities and affinity are kept and told; the host's scheduler decides.

use super::clone::read_sized;
use crate::Current;
use abi::resource::Resource;
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::task::{AffinityMask, Sched, policy};
use kernel::uaccess::UserPtr;
use kernel::{SysResult, Task};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

fn target(t: &Current<'_>, pid: i32) -> Result<Arc<Task>> {
    match pid {
        ..0 => Err(Errno::EINVAL),
        0 => Ok(Arc::clone(t.task)),
        n => t.pid_ns().task(n).ok_or(Errno::ESRCH),
    }
}

fn same_owner(me: &Task, other: &Task) -> bool {
    let (c, o) = (me.creds(), other.creds());
    c.euid == o.euid || c.euid == o.uid
}

pub fn sched_yield(_t: &mut Current<'_>) -> SysResult {
    std::thread::yield_now();
    Ok(0)
}

/// The range of priorities of a policy.
fn range(p: i32) -> Result<(i32, i32)> {
    match p {
        policy::FIFO | policy::RR => Ok((1, 99)),
        policy::OTHER | policy::BATCH | policy::IDLE | policy::DEADLINE => Ok((0, 0)),
        _ => Err(Errno::EINVAL),
    }
}

pub fn sched_get_priority_max(_t: &mut Current<'_>, p: i32) -> SysResult {
    Ok(u64::from(range(p)?.1.unsigned_abs()))
}
pub fn sched_get_priority_min(_t: &mut Current<'_>, p: i32) -> SysResult {
    Ok(u64::from(range(p)?.0.unsigned_abs()))
}

/// Puts new parameters in force, if the caller may (`__sched_setscheduler`).
fn change(t: &Current<'_>, task: &Task, new: &Sched) -> Result<()> {
    let old = task.sched.lock().clone();
    let (low, high) = range(new.policy)?;
    if new.priority < low || new.priority > high {
        return Err(Errno::EINVAL);
    }
    if !t.creds().has_cap(CapSet::SYS_NICE) {
        if !same_owner(t, task) {
            return Err(Errno::EPERM);
        }
        let real_time = matches!(new.policy, policy::FIFO | policy::RR);
        if new.policy == policy::DEADLINE {
            return Err(Errno::EPERM);
        }
        if real_time {
            let most = task.group().soft_limit(Resource::Rtprio);
            if new.policy != old.policy && most == 0 {
                return Err(Errno::EPERM);
            }
            if new.priority > old.priority && u64::from(new.priority.unsigned_abs()) > most {
                return Err(Errno::EPERM);
            }
        } else if new.nice < old.nice && !may_nice(task, new.nice) {
            return Err(Errno::EPERM);
        }
        if old.policy == policy::IDLE && new.policy != policy::IDLE && !may_nice(task, old.nice) {
            return Err(Errno::EPERM);
        }
        if old.reset_on_fork && !new.reset_on_fork {
            return Err(Errno::EPERM);
        }
    }
    *task.sched.lock() = new.clone();
    Ok(())
}

/// `RLIMIT_NICE` allows nice values down to 20 minus itself.
fn may_nice(task: &Task, nice: i32) -> bool {
    let floor = 20 - i64::try_from(task.group().soft_limit(Resource::Nice).min(40)).unwrap_or(40);
    i64::from(nice) >= floor
}

pub fn sched_setscheduler(t: &mut Current<'_>, pid: i32, p: i32, param: UserPtr<i32>) -> SysResult {
    if p < 0 {
        return Err(Errno::EINVAL.into());
    }
    if param.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let priority = param.read(&t.mm())?;
    let task = target(t, pid)?;
    let mut new = task.sched.lock().clone();
    new.reset_on_fork = p & policy::RESET_ON_FORK != 0;
    new.policy = p & !policy::RESET_ON_FORK;
    if new.policy == policy::DEADLINE {
        return Err(Errno::EINVAL.into());
    }
    new.priority = priority;
    change(t, &task, &new)?;
    Ok(0)
}

pub fn sched_getscheduler(t: &mut Current<'_>, pid: i32) -> SysResult {
    let task = target(t, pid)?;
    let s = task.sched.lock();
    let flag = if s.reset_on_fork { policy::RESET_ON_FORK } else { 0 };
    Ok(u64::from((s.policy | flag).unsigned_abs()))
}

pub fn sched_setparam(t: &mut Current<'_>, pid: i32, param: UserPtr<i32>) -> SysResult {
    if param.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let priority = param.read(&t.mm())?;
    let task = target(t, pid)?;
    let mut new = task.sched.lock().clone();
    new.priority = priority;
    change(t, &task, &new)?;
    Ok(0)
}

pub fn sched_getparam(t: &mut Current<'_>, pid: i32, param: UserPtr<i32>) -> SysResult {
    if param.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let task = target(t, pid)?;
    let priority = task.sched.lock().priority;
    param.write(&t.mm(), &priority)?;
    Ok(0)
}

/// `struct sched_attr`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

const ATTR_MIN: usize = 48;
const FLAG_RESET_ON_FORK: u64 = 1;
const FLAG_KEEP_POLICY: u64 = 8;
const FLAG_KEEP_PARAMS: u64 = 16;
const FLAGS: u64 = 0x7f;

pub fn sched_setattr(t: &mut Current<'_>, pid: i32, attr: UserPtr<u32>, flags: u32) -> SysResult {
    if attr.is_null() || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mm = t.mm();
    let mut size = attr.read(&mm)? as usize;
    if size == 0 {
        size = ATTR_MIN;
    }
    if !(ATTR_MIN..=4096).contains(&size) {
        attr.write(&mm, &u32::try_from(size_of::<SchedAttr>()).unwrap_or(56))?;
        return Err(Errno::E2BIG.into());
    }
    let a: SchedAttr = match read_sized(t, attr.addr(), size) {
        Err(Errno::E2BIG) => {
            attr.write(&mm, &u32::try_from(size_of::<SchedAttr>()).unwrap_or(56))?;
            return Err(Errno::E2BIG.into());
        }
        r => r?,
    };
    if a.flags & !FLAGS != 0 || a.policy.cast_signed() < 0 {
        return Err(Errno::EINVAL.into());
    }
    let task = target(t, pid)?;
    let mut new = task.sched.lock().clone();
    if a.flags & FLAG_KEEP_POLICY == 0 {
        new.policy = a.policy.cast_signed();
    }
    if a.flags & FLAG_KEEP_PARAMS == 0 {
        new.priority = i32::try_from(a.priority).map_err(|_| Errno::EINVAL)?;
        if matches!(new.policy, policy::OTHER | policy::BATCH) {
            new.nice = a.nice.clamp(-20, 19);
        }
        new.deadline = [a.runtime, a.deadline, a.period];
    }
    new.reset_on_fork = a.flags & FLAG_RESET_ON_FORK != 0;
    if new.policy == policy::DEADLINE {
        let [runtime, deadline, period] = new.deadline;
        let period = if period == 0 { deadline } else { period };
        if runtime < 1024 || deadline < runtime || period < deadline {
            return Err(Errno::EINVAL.into());
        }
    }
    change(t, &task, &new)?;
    Ok(0)
}

pub fn sched_getattr(t: &mut Current<'_>, pid: i32, attr: u64, size: u32, flags: u32) -> SysResult {
    let size = size as usize;
    if attr == 0 || pid < 0 || flags != 0 || !(ATTR_MIN..=4096).contains(&size) {
        return Err(Errno::EINVAL.into());
    }
    let task = target(t, pid)?;
    let s = task.sched.lock().clone();
    let real_time = matches!(s.policy, policy::FIFO | policy::RR);
    let n = size.min(size_of::<SchedAttr>());
    let a = SchedAttr {
        size: u32::try_from(n).unwrap_or(0),
        policy: s.policy.unsigned_abs(),
        flags: if s.reset_on_fork { FLAG_RESET_ON_FORK } else { 0 },
        nice: if real_time { 0 } else { s.nice },
        priority: s.priority.unsigned_abs(),
        runtime: s.deadline[0],
        deadline: s.deadline[1],
        period: s.deadline[2],
        util_min: 0,
        util_max: 1024,
    };
    t.mm().copy_out(attr, &a.as_bytes()[..n])?;
    Ok(0)
}

pub fn sched_rr_get_interval(t: &mut Current<'_>, pid: i32, out: UserPtr<Timespec>) -> SysResult {
    let task = target(t, pid)?;
    let ns = match task.sched.lock().policy {
        policy::RR => 100_000_000,
        policy::FIFO => 0,
        _ => 3_000_000,
    };
    out.write(&t.mm(), &Timespec::from_nanos(ns))?;
    Ok(0)
}

fn online(t: &Current<'_>) -> AffinityMask {
    AffinityMask::first(t.kernel().machine.cpus())
}

pub fn sched_setaffinity(t: &mut Current<'_>, pid: i32, len: u32, mask: UserPtr<u8>) -> SysResult {
    let n = (len as usize).min(128);
    let bytes = mask.read_array(&t.mm(), n)?;
    let mut words = [0u64; 16];
    for (i, b) in bytes.iter().enumerate() {
        words[i / 8] |= u64::from(*b) << (8 * (i % 8));
    }
    let task = target(t, pid).map_err(|_| Errno::ESRCH)?;
    if !same_owner(t, &task) && !t.creds().has_cap(CapSet::SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    let chosen = AffinityMask(words).and(&online(t));
    if chosen.is_empty() {
        return Err(Errno::EINVAL.into());
    }
    task.sched.lock().affinity = Some(chosen);
    Ok(0)
}

pub fn sched_getaffinity(t: &mut Current<'_>, pid: i32, len: u32, out: UserPtr<u8>) -> SysResult {
    let cpus = t.kernel().machine.cpus();
    let len = len as usize;
    if len * 8 < cpus || len % 8 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let task = target(t, pid).map_err(|_| Errno::ESRCH)?;
    let set = task.sched.lock().affinity;
    let mask = set.map(|m| m.and(&online(t))).filter(|m| !m.is_empty()).unwrap_or_else(|| online(t));
    let bytes: Vec<u8> = mask.0.iter().flat_map(|w| w.to_le_bytes()).collect();
    // As many bytes as the kernel's own masks have.
    let n = len.min(cpus.div_ceil(64) * 8);
    t.mm().copy_out(out.addr(), &bytes[..n])?;
    Ok(n as u64)
}

pub fn getcpu(t: &mut Current<'_>, cpu: UserPtr<u32>, node: UserPtr<u32>) -> SysResult {
    let affinity = t.sched.lock().affinity;
    let here = affinity
        .map_or(t.own_tid().unsigned_abs() % u32::try_from(t.kernel().machine.cpus()).unwrap_or(1), |m| {
            m.lowest()
        });
    let mm = t.mm();
    if let Some(p) = cpu.optional() {
        p.write(&mm, &here)?;
    }
    if let Some(p) = node.optional() {
        p.write(&mm, &0)?;
    }
    Ok(0)
}

/// The tasks that a `which`, `who` pair of getpriority(2) and ioprio_get(2) means.
fn members(t: &Current<'_>, which: i32, who: i32) -> Result<Vec<Arc<Task>>> {
    let ns = t.pid_ns();
    Ok(match which {
        0 => target(t, who).into_iter().collect(),
        1 => {
            let group = match who {
                0 => Some(t.group().pgrp()),
                n => ns.find(n).and_then(|p| p.process_group()),
            };
            group.map_or_else(Vec::new, |g| g.members().iter().flat_map(|m| m.threads()).collect())
        }
        2 => {
            let c = t.creds();
            let uid = if who == 0 { Some(c.uid) } else { c.user_ns.kuid(who.unsigned_abs()) };
            ns.tasks().into_iter().filter(|x| Some(x.creds().uid) == uid).collect()
        }
        _ => return Err(Errno::EINVAL),
    })
}

pub fn getpriority(t: &mut Current<'_>, which: i32, who: i32) -> SysResult {
    let all = members(t, which, who)?;
    let best = all.iter().map(|x| x.sched.lock().nice).min().ok_or(Errno::ESRCH)?;
    Ok(u64::from((20 - best).unsigned_abs()))
}

pub fn setpriority(t: &mut Current<'_>, which: i32, who: i32, nice: i32) -> SysResult {
    let nice = nice.clamp(-20, 19);
    let all = members(t, which, who)?;
    let mut result = Err(Errno::ESRCH);
    for x in all {
        let capable = t.creds().has_cap(CapSet::SYS_NICE);
        let present = x.sched.lock().nice;
        let now = if !same_owner(t, &x) && t.creds().uid != x.creds().uid && !capable {
            Err(Errno::EPERM)
        } else if nice < present && !capable && !may_nice(&x, nice) {
            Err(Errno::EACCES)
        } else {
            x.sched.lock().nice = nice;
            Ok(0)
        };
        result = match (result, now) {
            (Err(Errno::ESRCH) | Ok(_), n) => n,
            (e, _) => e,
        };
    }
    Ok(result?)
}

/// An I/O priority: class in the upper bits, level below.
fn check_ioprio(t: &Current<'_>, prio: i32) -> Result<()> {
    let (class, level) = (prio >> 13, prio & 7);
    match class {
        1 if !t.creds().has_cap(CapSet::SYS_ADMIN) && !t.creds().has_cap(CapSet::SYS_NICE) => {
            Err(Errno::EPERM)
        }
        1..=3 => Ok(()),
        0 if level == 0 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

pub fn ioprio_set(t: &mut Current<'_>, which: i32, who: i32, prio: i32) -> SysResult {
    check_ioprio(t, prio)?;
    let all = members(t, which - 1, who)?;
    if all.is_empty() {
        return Err(Errno::ESRCH.into());
    }
    for x in all {
        if !same_owner(t, &x) && !t.creds().has_cap(CapSet::SYS_NICE) {
            return Err(Errno::EPERM.into());
        }
        x.attrs.lock().io_priority = prio;
    }
    Ok(0)
}

pub fn ioprio_get(t: &mut Current<'_>, which: i32, who: i32) -> SysResult {
    let all = members(t, which - 1, who)?;
    // Without a class of its own a task has the lowest rank in the comparison (ioprio_best).
    let of = |x: &Arc<Task>| x.attrs.lock().io_priority;
    let best = all.iter().map(of).min().ok_or(Errno::ESRCH)?;
    Ok(u64::from(best.unsigned_abs()))
}
