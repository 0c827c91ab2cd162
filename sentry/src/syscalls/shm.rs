//! System V shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2).

use super::memory::limits;
use crate::Current;
use abi::ipc::{
    IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, SHM_DEST, SHM_EXEC, SHM_HUGETLB, SHM_INFO, SHM_LOCK, SHM_LOCKED,
    SHM_RDONLY, SHM_REMAP, SHM_RND, SHM_STAT, SHM_STAT_ANY, SHM_UNLOCK, ShmInfo64, ShmUsage, ShmidDs,
};
use abi::{Errno, PAGE_SIZE, Result};
use kernel::SysResult;
use kernel::creds::CapSet;
use kernel::mm::{Mappable, MmapArgs, MmapFile, Placement, VmFile, VmFlags, Vma};
use kernel::sysv::{ShmCaller, ShmLimits, ShmSegment, ShmTable};
use kernel::uaccess::UserPtr;
use platform::Prot;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn table(t: &Current<'_>) -> Arc<ShmTable> {
    t.namespaces().ipc.objects.get_or_init(ShmTable::default)
}

fn system_limits(t: &Current<'_>) -> ShmLimits {
    let get = |path| t.kernel().sysctls.get_int(path).unsigned_abs();
    ShmLimits { shmmax: get("kernel/shmmax"), shmmni: get("kernel/shmmni"), shmall: get("kernel/shmall") }
}

fn now(t: &Current<'_>) -> i64 {
    t.kernel().clocks.now().tv_sec
}

pub fn shmget(t: &mut Current<'_>, key: i32, size: u64, flags: u32) -> SysResult {
    if flags & SHM_HUGETLB != 0 {
        // No huge pages are reserved here.
        return Err(Errno::ENOMEM.into());
    }
    let creds = t.creds();
    let ipc = Arc::clone(&t.namespaces().ipc);
    let cx = ShmCaller { creds: &creds, ns: &ipc.user_ns, pid: t.group().tgid, now: now(t) };
    let id =
        table(t).get((&t.kernel().memfile, t.mm().account()), &cx, key, size, flags, &system_limits(t))?;
    Ok(u64::from(id.unsigned_abs()))
}

pub fn shmat(t: &mut Current<'_>, id: i32, addr: u64, flags: u32) -> SysResult {
    let remap = flags & SHM_REMAP != 0;
    if id < 0 {
        return Err(Errno::EINVAL.into());
    }
    let at = if addr == 0 {
        if remap {
            return Err(Errno::EINVAL.into());
        }
        Placement::Hint(0)
    } else {
        let down = addr & !(PAGE_SIZE - 1);
        if down != addr && flags & SHM_RND == 0 || down == 0 && remap {
            return Err(Errno::EINVAL.into());
        }
        if remap { Placement::Fixed(down) } else { Placement::FixedNoReplace(down) }
    };
    let segment = table(t).find(id)?;
    let mut want = 0o444;
    let mut prot = Prot::READ;
    let mut vm = Vma::MAY_ALL | VmFlags::SHARED;
    if flags & SHM_RDONLY == 0 {
        want |= 0o222;
        prot |= Prot::WRITE;
    } else {
        vm -= VmFlags::MAYWRITE;
    }
    if flags & SHM_EXEC != 0 {
        want |= 0o111;
        prot |= Prot::EXEC;
    }
    let perm = segment.perm_now();
    perm.check(&t.creds(), &t.namespaces().ipc.user_ns, want)?;
    let object: Arc<dyn Mappable> = Arc::clone(&segment) as Arc<dyn Mappable>;
    let file = Some(MmapFile { file: VmFile { object, file: None }, offset: 0 });
    let name = format!("/SYSV{:08x} (deleted)", perm.key).into_bytes();
    let len = segment.pages_size();
    let args = MmapArgs { at, len, prot, flags: vm, file, populate: false, name: Some(name.into()) };
    let at = t.mm().mmap(args, &limits(t)).map_err(|e| if e == Errno::EEXIST { Errno::EINVAL } else { e })?;
    segment.attached.store(now(t), Ordering::Relaxed);
    segment.last_pid.store(t.group().tgid, Ordering::Relaxed);
    Ok(at)
}

fn as_segment(object: &dyn Mappable) -> Option<&ShmSegment> {
    let any: &dyn Any = object;
    any.downcast_ref()
}

pub fn shmdt(t: &mut Current<'_>, addr: u64) -> SysResult {
    if addr % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = t.mm().detach(addr, &|o| as_segment(o).is_some())?;
    if let Some(s) = as_segment(&*file.object) {
        s.detached.store(now(t), Ordering::Relaxed);
        s.last_pid.store(t.group().tgid, Ordering::Relaxed);
    }
    Ok(0)
}

/// A process id as the caller's PID namespace has it.
fn visible_pid(t: &Current<'_>, pid: i32) -> i32 {
    let root = &t.kernel().root_pid_ns;
    root.find(pid).and_then(|p| p.number_in(&t.pid_ns())).unwrap_or(0)
}

fn status(t: &Current<'_>, s: &ShmSegment) -> ShmidDs {
    let mut perm = s.perm_now().to_abi(s.id, &t.creds().user_ns);
    if s.doomed.load(Ordering::SeqCst) {
        perm.mode |= SHM_DEST;
    }
    if s.locked.load(Ordering::Relaxed) {
        perm.mode |= SHM_LOCKED;
    }
    ShmidDs {
        perm,
        segsz: s.size,
        atime: s.attached.load(Ordering::Relaxed),
        dtime: s.detached.load(Ordering::Relaxed),
        ctime: s.changed.load(Ordering::Relaxed),
        cpid: visible_pid(t, s.creator),
        lpid: visible_pid(t, s.last_pid.load(Ordering::Relaxed)),
        nattch: s.attachments(),
        ..ShmidDs::default()
    }
}

fn may_lock(t: &Current<'_>, s: &ShmSegment) -> Result<()> {
    let creds = t.creds();
    if creds.has_cap_in(&t.namespaces().ipc.user_ns, CapSet::IPC_LOCK) {
        return Ok(());
    }
    let perm = s.perm_now();
    if creds.euid != perm.uid && creds.euid != perm.cuid {
        return Err(Errno::EPERM);
    }
    if limits(t).memlock == 0 { Err(Errno::EPERM) } else { Ok(()) }
}

pub fn shmctl(t: &mut Current<'_>, id: i32, cmd: i32, buf: UserPtr<u8>) -> SysResult {
    if id < 0 || cmd < 0 {
        return Err(Errno::EINVAL.into());
    }
    let table = table(t);
    let mm = t.mm();
    let ns = Arc::clone(&t.namespaces().ipc.user_ns);
    match cmd {
        IPC_INFO => {
            let l = system_limits(t);
            let info = ShmInfo64 {
                shmmax: l.shmmax,
                shmmin: 1,
                shmmni: l.shmmni,
                shmseg: l.shmmni,
                shmall: l.shmall,
                ..ShmInfo64::default()
            };
            buf.cast().write(&mm, &info)?;
            Ok(u64::from(table.all().1.unsigned_abs()))
        }
        SHM_INFO => {
            let (all, highest) = table.all();
            let used_ids = i32::try_from(all.len()).unwrap_or(i32::MAX);
            let tot = all.iter().map(|s| s.pages_size() / PAGE_SIZE).sum();
            let rss = all.iter().map(|s| s.resident() / PAGE_SIZE).sum();
            buf.cast().write(&mm, &ShmUsage { used_ids, tot, rss, ..ShmUsage::default() })?;
            Ok(u64::from(highest.unsigned_abs()))
        }
        IPC_STAT | SHM_STAT | SHM_STAT_ANY => {
            let s = if cmd == IPC_STAT { table.find(id)? } else { table.at(id)? };
            if cmd != SHM_STAT_ANY {
                s.perm_now().check(&t.creds(), &ns, 0o444)?;
            }
            buf.cast().write(&mm, &status(t, &s))?;
            Ok(if cmd == IPC_STAT { 0 } else { u64::from(s.id.unsigned_abs()) })
        }
        IPC_SET => {
            let new: ShmidDs = buf.cast().read(&mm)?;
            let s = table.find(id)?;
            let mut perm = s.perm_now();
            perm.check_owner(&t.creds(), &ns)?;
            perm.set(&new.perm, &t.creds().user_ns)?;
            *s.perm.lock() = perm;
            s.changed.store(now(t), Ordering::Relaxed);
            Ok(0)
        }
        IPC_RMID => {
            let s = table.find(id)?;
            s.perm_now().check_owner(&t.creds(), &ns)?;
            table.remove(&s);
            Ok(0)
        }
        SHM_LOCK | SHM_UNLOCK => {
            let s = table.find(id)?;
            may_lock(t, &s)?;
            s.locked.store(cmd == SHM_LOCK, Ordering::Relaxed);
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
