//! Ids of users, groups and processes (credentials(7)).

use crate::Current;
use abi::{Errno, Result};
use kernel::SysResult;
use kernel::creds::{CapSet, Creds};
use kernel::uaccess::UserPtr;
use std::sync::Arc;

/// "Leave it as it is."
const SAME: u32 = u32::MAX;
const NGROUPS_MAX: usize = 65536;

fn number(n: i32) -> SysResult {
    Ok(u64::from(n.unsigned_abs()))
}

pub fn getpid(t: &mut Current<'_>) -> SysResult {
    number(t.group().pid().number())
}
pub fn gettid(t: &mut Current<'_>) -> SysResult {
    number(t.own_tid())
}
pub fn getppid(t: &mut Current<'_>) -> SysResult {
    number(t.group().ppid())
}

pub fn getpgid(t: &mut Current<'_>, pid: i32) -> SysResult {
    let ns = t.pid_ns();
    let group = match pid {
        0 => Arc::clone(t.group()),
        n => Arc::clone(ns.task(n).ok_or(Errno::ESRCH)?.group()),
    };
    number(group.pgrp().pid().number_in(&ns).unwrap_or(0))
}
pub fn getpgrp(t: &mut Current<'_>) -> SysResult {
    getpgid(t, 0)
}
pub fn setpgid(t: &mut Current<'_>, pid: i32, pgid: i32) -> SysResult {
    t.set_pgid(pid, pgid)?;
    Ok(0)
}
pub fn getsid(t: &mut Current<'_>, pid: i32) -> SysResult {
    let ns = t.pid_ns();
    let group = match pid {
        0 => Arc::clone(t.group()),
        n => Arc::clone(ns.task(n).ok_or(Errno::ESRCH)?.group()),
    };
    number(group.session().pid().number_in(&ns).unwrap_or(0))
}
pub fn setsid(t: &mut Current<'_>) -> SysResult {
    number(t.new_session()?)
}

pub fn getuid(t: &mut Current<'_>) -> SysResult {
    let c = t.creds();
    Ok(c.user_ns.uid_in(c.uid).into())
}
pub fn geteuid(t: &mut Current<'_>) -> SysResult {
    let c = t.creds();
    Ok(c.user_ns.uid_in(c.euid).into())
}
pub fn getgid(t: &mut Current<'_>) -> SysResult {
    let c = t.creds();
    Ok(c.user_ns.gid_in(c.gid).into())
}
pub fn getegid(t: &mut Current<'_>) -> SysResult {
    let c = t.creds();
    Ok(c.user_ns.gid_in(c.egid).into())
}

fn kuid(c: &Creds, id: u32) -> Result<u32> {
    c.user_ns.kuid(id).ok_or(Errno::EINVAL)
}
fn kgid(c: &Creds, id: u32) -> Result<u32> {
    c.user_ns.kgid(id).ok_or(Errno::EINVAL)
}
/// An id that may be "the same".
fn optional(id: u32, f: impl FnOnce(u32) -> Result<u32>) -> Result<Option<u32>> {
    if id == SAME { Ok(None) } else { f(id).map(Some) }
}

/// Puts changed user ids in force.
fn commit_uids(t: &Current<'_>, old: &Creds, mut new: Creds) -> SysResult {
    new.fix_caps_after_setuid(old);
    if (new.euid, new.fsuid) != (old.euid, old.fsuid) {
        not_dumpable(t);
    }
    t.kernel().tasks.users.move_task(old.uid, new.uid);
    t.set_creds(new);
    Ok(0)
}
fn commit_gids(t: &Current<'_>, old: &Creds, new: Creds) -> SysResult {
    if (new.egid, new.fsgid) != (old.egid, old.fsgid) {
        not_dumpable(t);
    }
    t.set_creds(new);
    Ok(0)
}
/// A change of the effective ids makes others unable to look inside (prctl(2), `PR_SET_DUMPABLE`).
fn not_dumpable(t: &Current<'_>) {
    t.group().dumpable.store(0, std::sync::atomic::Ordering::Relaxed);
    t.attrs.lock().parent_death_signal = 0;
}

pub fn setuid(t: &mut Current<'_>, uid: u32) -> SysResult {
    let old = t.creds();
    let k = kuid(&old, uid)?;
    let mut new = (*old).clone();
    if old.has_cap(CapSet::SETUID) {
        new.uid = k;
        new.suid = k;
    } else if k != old.uid && k != old.suid {
        return Err(Errno::EPERM.into());
    }
    new.euid = k;
    new.fsuid = k;
    commit_uids(t, &old, new)
}

pub fn setgid(t: &mut Current<'_>, gid: u32) -> SysResult {
    let old = t.creds();
    let k = kgid(&old, gid)?;
    let mut new = (*old).clone();
    if old.has_cap(CapSet::SETGID) {
        new.gid = k;
        new.sgid = k;
    } else if k != old.gid && k != old.sgid {
        return Err(Errno::EPERM.into());
    }
    new.egid = k;
    new.fsgid = k;
    commit_gids(t, &old, new)
}

pub fn setreuid(t: &mut Current<'_>, ruid: u32, euid: u32) -> SysResult {
    let old = t.creds();
    let r = optional(ruid, |i| kuid(&old, i))?;
    let e = optional(euid, |i| kuid(&old, i))?;
    let mut new = (*old).clone();
    let cap = old.has_cap(CapSet::SETUID);
    if let Some(r) = r {
        if r != old.uid && r != old.euid && !cap {
            return Err(Errno::EPERM.into());
        }
        new.uid = r;
    }
    if let Some(e) = e {
        if e != old.uid && e != old.euid && e != old.suid && !cap {
            return Err(Errno::EPERM.into());
        }
        new.euid = e;
    }
    if r.is_some() || e.is_some_and(|e| e != old.uid) {
        new.suid = new.euid;
    }
    new.fsuid = new.euid;
    commit_uids(t, &old, new)
}

pub fn setregid(t: &mut Current<'_>, rgid: u32, egid: u32) -> SysResult {
    let old = t.creds();
    let r = optional(rgid, |i| kgid(&old, i))?;
    let e = optional(egid, |i| kgid(&old, i))?;
    let mut new = (*old).clone();
    let cap = old.has_cap(CapSet::SETGID);
    if let Some(r) = r {
        if r != old.gid && r != old.egid && !cap {
            return Err(Errno::EPERM.into());
        }
        new.gid = r;
    }
    if let Some(e) = e {
        if e != old.gid && e != old.egid && e != old.sgid && !cap {
            return Err(Errno::EPERM.into());
        }
        new.egid = e;
    }
    if r.is_some() || e.is_some_and(|e| e != old.gid) {
        new.sgid = new.egid;
    }
    new.fsgid = new.egid;
    commit_gids(t, &old, new)
}

pub fn setresuid(t: &mut Current<'_>, ruid: u32, euid: u32, suid: u32) -> SysResult {
    let old = t.creds();
    let [r, e, s] = [ruid, euid, suid].map(|i| optional(i, |i| kuid(&old, i)));
    let (r, e, s) = (r?, e?, s?);
    if !old.has_cap(CapSet::SETUID) {
        for id in [r, e, s].into_iter().flatten() {
            if id != old.uid && id != old.euid && id != old.suid {
                return Err(Errno::EPERM.into());
            }
        }
    }
    let mut new = (*old).clone();
    new.uid = r.unwrap_or(old.uid);
    new.euid = e.unwrap_or(old.euid);
    new.suid = s.unwrap_or(old.suid);
    new.fsuid = new.euid;
    commit_uids(t, &old, new)
}

pub fn setresgid(t: &mut Current<'_>, rgid: u32, egid: u32, sgid: u32) -> SysResult {
    let old = t.creds();
    let [r, e, s] = [rgid, egid, sgid].map(|i| optional(i, |i| kgid(&old, i)));
    let (r, e, s) = (r?, e?, s?);
    if !old.has_cap(CapSet::SETGID) {
        for id in [r, e, s].into_iter().flatten() {
            if id != old.gid && id != old.egid && id != old.sgid {
                return Err(Errno::EPERM.into());
            }
        }
    }
    let mut new = (*old).clone();
    new.gid = r.unwrap_or(old.gid);
    new.egid = e.unwrap_or(old.egid);
    new.sgid = s.unwrap_or(old.sgid);
    new.fsgid = new.egid;
    commit_gids(t, &old, new)
}

pub fn getresuid(t: &mut Current<'_>, r: UserPtr<u32>, e: UserPtr<u32>, s: UserPtr<u32>) -> SysResult {
    let (c, mm) = (t.creds(), t.mm());
    r.write(&mm, &c.user_ns.uid_in(c.uid))?;
    e.write(&mm, &c.user_ns.uid_in(c.euid))?;
    s.write(&mm, &c.user_ns.uid_in(c.suid))?;
    Ok(0)
}

pub fn getresgid(t: &mut Current<'_>, r: UserPtr<u32>, e: UserPtr<u32>, s: UserPtr<u32>) -> SysResult {
    let (c, mm) = (t.creds(), t.mm());
    r.write(&mm, &c.user_ns.gid_in(c.gid))?;
    e.write(&mm, &c.user_ns.gid_in(c.egid))?;
    s.write(&mm, &c.user_ns.gid_in(c.sgid))?;
    Ok(0)
}

pub fn setfsuid(t: &mut Current<'_>, uid: u32) -> SysResult {
    let old = t.creds();
    let before = old.user_ns.uid_in(old.fsuid);
    if let Some(k) = old.user_ns.kuid(uid) {
        let allowed = [old.uid, old.euid, old.suid, old.fsuid].contains(&k) || old.has_cap(CapSet::SETUID);
        if allowed && k != old.fsuid {
            let mut new = (*old).clone();
            new.fsuid = k;
            new.fix_caps_after_setfsuid(old.fsuid);
            not_dumpable(t);
            t.set_creds(new);
        }
    }
    Ok(before.into())
}

pub fn setfsgid(t: &mut Current<'_>, gid: u32) -> SysResult {
    let old = t.creds();
    let before = old.user_ns.gid_in(old.fsgid);
    if let Some(k) = old.user_ns.kgid(gid) {
        let allowed = [old.gid, old.egid, old.sgid, old.fsgid].contains(&k) || old.has_cap(CapSet::SETGID);
        if allowed && k != old.fsgid {
            let mut new = (*old).clone();
            new.fsgid = k;
            not_dumpable(t);
            t.set_creds(new);
        }
    }
    Ok(before.into())
}

pub fn getgroups(t: &mut Current<'_>, size: i32, list: UserPtr<u32>) -> SysResult {
    let c = t.creds();
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    let n = c.groups.len();
    if size != 0 {
        if n > size {
            return Err(Errno::EINVAL.into());
        }
        let shown: Vec<u32> = c.groups.iter().map(|g| c.user_ns.gid_in(*g)).collect();
        list.write_array(&t.mm(), &shown)?;
    }
    Ok(n as u64)
}

pub fn setgroups(t: &mut Current<'_>, size: i32, list: UserPtr<u32>) -> SysResult {
    let old = t.creds();
    let denied = old.user_ns.setgroups_denied.load(std::sync::atomic::Ordering::Relaxed);
    let unmapped = old.user_ns.gid_map.lock().is_empty();
    if !old.has_cap(CapSet::SETGID) || denied || unmapped {
        return Err(Errno::EPERM.into());
    }
    let n = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    if n > NGROUPS_MAX {
        return Err(Errno::EINVAL.into());
    }
    let given = list.read_array(&t.mm(), n)?;
    let mut groups = given.iter().map(|g| kgid(&old, *g)).collect::<Result<Vec<u32>>>()?;
    groups.sort_unstable();
    let mut new = (*old).clone();
    new.groups = groups.into();
    t.set_creds(new);
    Ok(0)
}
