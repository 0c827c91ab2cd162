//! Namespaces: unshare(2), setns(2), and what clone(2) makes for its child.

use super::pidfd;
use crate::Current;
use abi::sched::CloneFlags;
use abi::{Errno, Result};
use fs::nsfs::{Namespace, NsFile};
use kernel::SysResult;
use kernel::creds::{CapSet, Creds, UserNamespace};
use kernel::task::{Namespaces, PidNamespace, TimeNamespace, UtsNamespace};
use kernel::vfs::{Fd, FsContext};
use std::sync::Arc;

const NEW_ANY: CloneFlags = CloneFlags::NEWNS
    .union(CloneFlags::NEWCGROUP)
    .union(CloneFlags::NEWUTS)
    .union(CloneFlags::NEWIPC)
    .union(CloneFlags::NEWUSER)
    .union(CloneFlags::NEWPID)
    .union(CloneFlags::NEWNET)
    .union(CloneFlags::NEWTIME);
/// PID namespaces lie in each other at most this deep.
const MAX_PID_LEVEL: usize = 32;

/// The credentials in a new user namespace (user_namespaces(7)).
fn new_user_ns(t: &Current<'_>) -> Result<Creds> {
    let old = t.creds();
    let mut depth = 0;
    let mut at = Some(Arc::clone(&old.user_ns));
    while let Some(ns) = at {
        depth += 1;
        at = ns.parent.clone();
    }
    if depth > 32 {
        return Err(Errno::ENOSPC);
    }
    // Both ids must be mapped, or the owner could not be named.
    let known = |map: &ksync::Mutex<Vec<kernel::creds::IdRange>>, id: u32| {
        map.lock().iter().any(|r| id >= r.outside && id - r.outside < r.count)
    };
    let (user, group) = (known(&old.user_ns.uid_map, old.euid), known(&old.user_ns.gid_map, old.egid));
    if !user || !group {
        return Err(Errno::EPERM);
    }
    let ns = UserNamespace::child(t.kernel().next_ns_id(), &old.user_ns, old.euid, old.egid);
    let mut new = (*old).clone();
    new.user_ns = ns;
    new.permitted = CapSet::all();
    new.effective = CapSet::all();
    new.bounding = CapSet::all();
    new.inheritable = CapSet::empty();
    new.ambient = CapSet::empty();
    new.securebits = 0;
    Ok(new)
}

fn derive(
    t: &Current<'_>,
    flags: CloneFlags,
    creds: &Arc<Creds>,
    fs: &Arc<FsContext>,
) -> Result<(Arc<Namespaces>, Arc<FsContext>)> {
    let old = t.namespaces();
    let own = NEW_ANY.difference(CloneFlags::NEWUSER);
    if !flags.intersects(own) {
        return Ok((old, Arc::clone(fs)));
    }
    let user = &creds.user_ns;
    if !creds.has_cap(CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let kernel = t.kernel();
    let mut new = (*old).clone();
    let mut fs = Arc::clone(fs);
    if flags.contains(CloneFlags::NEWUTS) {
        new.uts = UtsNamespace::new(
            kernel.next_ns_id(),
            Arc::clone(user),
            &old.uts.hostname(),
            &old.uts.domainname(),
        );
    }
    if flags.contains(CloneFlags::NEWIPC) {
        new.ipc = kernel.new_ipc_ns(user);
    }
    if flags.contains(CloneFlags::NEWNET) {
        new.net = kernel.new_other_ns(user);
    }
    if flags.contains(CloneFlags::NEWCGROUP) {
        new.cgroup = kernel.new_other_ns(user);
    }
    if flags.contains(CloneFlags::NEWPID) {
        if t.pid_ns().level + 1 >= MAX_PID_LEVEL {
            return Err(Errno::ENOSPC);
        }
        new.pid_for_children = PidNamespace::new(kernel.next_ns_id(), Some(t.pid_ns()), Arc::clone(user));
    }
    if flags.contains(CloneFlags::NEWTIME) {
        let o = &old.time_for_children;
        new.time_for_children =
            TimeNamespace::new(kernel.next_ns_id(), Arc::clone(user), o.monotonic(), o.boottime());
    }
    if flags.contains(CloneFlags::NEWNS) {
        let (mut root, mut cwd) = fs.root_and_cwd();
        new.mnt = old.mnt.copy(Arc::clone(user), &mut [&mut root, &mut cwd])?;
        fs = FsContext::new(root, cwd, fs.umask());
    }
    Ok((Arc::new(new), fs))
}

/// Moves the caller, which is alone in its process, to a time namespace.
fn enter_time(t: &Current<'_>, new: &mut Namespaces, time: &Arc<TimeNamespace>) {
    time.enter();
    new.time = Arc::clone(time);
    new.time_for_children = Arc::clone(time);
    crate::loader::fit_vdso(&t.mm(), t.kernel(), time.is_shifted());
}

/// Credentials, namespaces and file system context of a new task.
pub fn for_child(
    t: &Current<'_>,
    flags: CloneFlags,
) -> Result<(Arc<Creds>, Arc<Namespaces>, Arc<FsContext>)> {
    let creds = if flags.contains(CloneFlags::NEWUSER) { Arc::new(new_user_ns(t)?) } else { t.creds() };
    let fs = if flags.contains(CloneFlags::FS) { t.fs() } else { t.fs().fork() };
    let (mut namespaces, fs) = derive(t, flags, &creds, &fs)?;
    // A child process enters the time namespace that was made for it.
    if !flags.contains(CloneFlags::VM) && !Arc::ptr_eq(&namespaces.time, &namespaces.time_for_children) {
        let mut n = (*namespaces).clone();
        n.time = Arc::clone(&n.time_for_children);
        n.time.enter();
        namespaces = Arc::new(n);
    }
    Ok((creds, namespaces, fs))
}

pub fn unshare(t: &mut Current<'_>, flags: u64) -> SysResult {
    let mut flags = CloneFlags::from_bits_retain(flags);
    let allowed = NEW_ANY
        | CloneFlags::FS
        | CloneFlags::FILES
        | CloneFlags::SYSVSEM
        | CloneFlags::VM
        | CloneFlags::SIGHAND
        | CloneFlags::THREAD;
    if flags.contains(CloneFlags::NEWUSER) {
        flags |= CloneFlags::THREAD | CloneFlags::FS;
    }
    if flags.contains(CloneFlags::VM) {
        flags |= CloneFlags::SIGHAND;
    }
    if flags.contains(CloneFlags::NEWNS) {
        flags |= CloneFlags::FS;
    }
    if !allowed.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    if flags.intersects(CloneFlags::THREAD | CloneFlags::SIGHAND | CloneFlags::VM)
        && t.group().state().lock().live > 1
    {
        return Err(Errno::EINVAL.into());
    }
    let creds = if flags.contains(CloneFlags::NEWUSER) { Some(Arc::new(new_user_ns(t)?)) } else { None };
    let with = creds.clone().unwrap_or_else(|| t.creds());
    let fs = if flags.contains(CloneFlags::FS) { t.fs().fork() } else { t.fs() };
    let (namespaces, fs) = derive(t, flags, &with, &fs)?;
    if flags.contains(CloneFlags::FILES) {
        // A table that nobody else has is not copied: the task's reference and this one (`unshare_fd`).
        let old = t.files();
        if Arc::strong_count(&old) > 2 {
            drop(t.set_files(super::clone::copied_files(t)?));
        }
    }
    if flags.contains(CloneFlags::FS) {
        drop(t.set_fs(fs));
    }
    t.set_namespaces((*namespaces).clone());
    if let Some(c) = creds {
        t.set_creds((*c).clone());
    }
    Ok(0)
}

/// setns(2): with a pidfd several kinds at once; with a file of /proc/pid/ns the one it stands for.
pub fn setns(t: &mut Current<'_>, fd: Fd, kind: i32) -> SysResult {
    let file = t.files().get(fd)?;
    if let Some(pid) = pidfd::pid_of(&file) {
        let flags = CloneFlags::from_bits_retain(u64::from(kind.unsigned_abs()));
        if flags.is_empty() || !NEW_ANY.contains(flags) {
            return Err(Errno::EINVAL.into());
        }
        let target = pid.task().filter(|t| !t.has_exited()).ok_or(Errno::ESRCH)?;
        let theirs = target.namespaces();
        let mut new = (*t.namespaces()).clone();
        let user = flags.contains(CloneFlags::NEWUSER).then(|| Arc::clone(&target.creds().user_ns));
        let entered = user.map(|ns| in_user_ns(t, ns)).transpose()?;
        // The rights in the namespace that is entered first count for the others.
        let me = entered.clone().unwrap_or_else(|| t.creds());
        for k in [
            CloneFlags::NEWUTS,
            CloneFlags::NEWIPC,
            CloneFlags::NEWNET,
            CloneFlags::NEWCGROUP,
            CloneFlags::NEWPID,
        ] {
            if !flags.contains(k) {
                continue;
            }
            let owner = match k {
                CloneFlags::NEWUTS => &theirs.uts.user_ns,
                CloneFlags::NEWIPC => &theirs.ipc.user_ns,
                CloneFlags::NEWNET => &theirs.net.user_ns,
                CloneFlags::NEWCGROUP => &theirs.cgroup.user_ns,
                _ => &theirs.pid_for_children.user_ns,
            };
            if !me.has_cap_in(owner, CapSet::SYS_ADMIN) || !me.has_cap(CapSet::SYS_ADMIN) {
                return Err(Errno::EPERM.into());
            }
            match k {
                CloneFlags::NEWUTS => new.uts = Arc::clone(&theirs.uts),
                CloneFlags::NEWIPC => new.ipc = Arc::clone(&theirs.ipc),
                CloneFlags::NEWNET => new.net = Arc::clone(&theirs.net),
                CloneFlags::NEWCGROUP => new.cgroup = Arc::clone(&theirs.cgroup),
                _ => new.pid_for_children = target.pid_ns(),
            }
        }
        let mut fs = None;
        if flags.contains(CloneFlags::NEWNS) {
            if !me.has_cap(CapSet::SYS_ADMIN) || !me.has_cap(CapSet::SYS_CHROOT) {
                return Err(Errno::EPERM.into());
            }
            new.mnt = Arc::clone(&theirs.mnt);
            let root = new.mnt.root();
            fs = Some(FsContext::new(root.clone(), root, t.fs().umask()));
        }
        if flags.contains(CloneFlags::NEWTIME) {
            if !me.has_cap_in(&theirs.time.user_ns, CapSet::SYS_ADMIN) || !me.has_cap(CapSet::SYS_ADMIN) {
                return Err(Errno::EPERM.into());
            }
            if t.group().state().lock().live > 1 {
                return Err(Errno::EUSERS.into());
            }
            enter_time(t, &mut new, &theirs.time);
        }
        if let Some(creds) = entered {
            t.set_creds((*creds).clone());
        }
        t.set_namespaces(new);
        if let Some(fs) = fs {
            drop(t.set_fs(fs));
        }
        return Ok(0);
    }
    let ns = file.ops_as::<NsFile>().ok_or(Errno::EINVAL)?.namespace().clone();
    enter(t, ns, kind.unsigned_abs())
}

/// The caller's credentials in another user namespace, with all capabilities there.
fn in_user_ns(t: &Current<'_>, ns: Arc<UserNamespace>) -> Result<Arc<Creds>> {
    let me = t.creds();
    if Arc::ptr_eq(&ns, &me.user_ns) || t.group().state().lock().live > 1 {
        return Err(Errno::EINVAL);
    }
    if !me.has_cap_in(&ns, CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let mut c = (*me).clone();
    c.user_ns = ns;
    c.permitted = CapSet::all();
    c.effective = CapSet::all();
    c.bounding = CapSet::all();
    c.inheritable = CapSet::empty();
    c.ambient = CapSet::empty();
    Ok(Arc::new(c))
}

/// Enters one namespace.
fn enter(t: &Current<'_>, ns: Namespace, wanted: u32) -> SysResult {
    if wanted != 0 && wanted != ns.kind() as u32 {
        return Err(Errno::EINVAL.into());
    }
    let me = t.creds();
    let admin = |owner: &Arc<UserNamespace>| {
        if me.has_cap_in(owner, CapSet::SYS_ADMIN) && me.has_cap(CapSet::SYS_ADMIN) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    };
    let mut new = (*t.namespaces()).clone();
    match ns {
        Namespace::Uts(n) => {
            admin(&n.user_ns)?;
            new.uts = n;
        }
        Namespace::Ipc(n) => {
            admin(&n.user_ns)?;
            new.ipc = n;
        }
        Namespace::Net(n) => {
            admin(&n.user_ns)?;
            new.net = n;
        }
        Namespace::Cgroup(n) => {
            admin(&n.user_ns)?;
            new.cgroup = n;
        }
        Namespace::Time(n) => {
            admin(&n.user_ns)?;
            if t.group().state().lock().live > 1 {
                return Err(Errno::EUSERS.into());
            }
            enter_time(t, &mut new, &n);
        }
        Namespace::Pid(n) => {
            admin(&n.user_ns)?;
            if !n.is_within(&t.pid_ns()) {
                return Err(Errno::EINVAL.into());
            }
            new.pid_for_children = n;
        }
        Namespace::Mnt(n) => {
            if !me.has_cap(CapSet::SYS_ADMIN) || !me.has_cap(CapSet::SYS_CHROOT) {
                return Err(Errno::EPERM.into());
            }
            let root = n.root();
            new.mnt = n;
            drop(t.set_fs(FsContext::new(root.clone(), root, t.fs().umask())));
        }
        Namespace::User(n) => {
            let creds = in_user_ns(t, n)?;
            t.set_creds((*creds).clone());
        }
    }
    t.set_namespaces(new);
    Ok(0)
}
