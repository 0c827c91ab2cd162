//! mmap(2) and kin, mlock(2) and kin, process_vm_readv(2) and process_vm_writev(2), memory policy (set_mempolicy(2)) of a
//! machine with one node.

use crate::Current;
use abi::fcntl::OpenFlags;
use abi::mman::{MapFlags, ProtFlags};
use abi::resource::Resource;
use abi::{Errno, PAGE_SIZE, Result, page_up};
use kernel::creds::CapSet;
use kernel::mm::{
    Advice, LockAll, Mm, MmLimits, MmapArgs, MmapFile, Placement, SharedMemory, TASK_SIZE, VmFile, VmFlags,
    Vma,
};
use kernel::uaccess::{UserIoVec, UserPtr};
use kernel::vfs::{Caller, Fd, File};
use kernel::{SysResult, Task, gap};
use platform::Prot;
use std::sync::Arc;

const MAP_TYPE: u32 = 0xf;
const MAP_SHARED_VALIDATE: u32 = 3;
/// Flags that `MAP_SHARED_VALIDATE` knows (`LEGACY_MAP_MASK`), `MAP_FIXED_NOREPLACE` beside them.
const VALIDATED: u32 = 0x1f_fff3;
const PROT_SEM: u64 = 8;
const READ_IMPLIES_EXEC: u32 = 0x0040_0000;

/// The limits of the calling process for memory calls.
pub fn limits(t: &Task) -> MmLimits {
    let g = t.group();
    MmLimits {
        address_space: g.soft_limit(Resource::As),
        data: g.soft_limit(Resource::Data),
        stack: g.soft_limit(Resource::Stack),
        memlock: g.soft_limit(Resource::Memlock),
        may_lock: t.creds().has_cap(CapSet::IPC_LOCK),
    }
}

fn prot_of(bits: u64) -> Prot {
    Prot::from_bits_truncate((bits & 7) as u32)
}

fn implied_exec(t: &Task, prot: Prot) -> bool {
    prot.contains(Prot::READ) && t.attrs.lock().personality & READ_IMPLIES_EXEC != 0
}

pub fn mmap(
    t: &mut Current<'_>,
    addr: u64,
    len: u64,
    prot: u64,
    flags: u64,
    fd: Fd,
    offset: u64,
) -> SysResult {
    if offset % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL.into());
    }
    #[expect(clippy::cast_possible_truncation, reason = "Linux looks at the low 32 bits")]
    let bits = flags as u32;
    let f = MapFlags::from_bits_retain(bits);
    let file = if f.contains(MapFlags::ANONYMOUS) {
        None
    } else {
        let file = t.files().get(fd)?;
        if file.flags().contains(OpenFlags::PATH) {
            return Err(Errno::EBADF.into());
        }
        Some(file)
    };
    if len == 0 {
        return Err(Errno::EINVAL.into());
    }
    if f.contains(MapFlags::HUGETLB) {
        // No huge pages are reserved here.
        return Err(if file.is_some() { Errno::EINVAL } else { Errno::ENOMEM }.into());
    }
    let mut prot = prot_of(prot);
    let at = if f.contains(MapFlags::FIXED_NOREPLACE) {
        Placement::FixedNoReplace(addr)
    } else if f.contains(MapFlags::FIXED) {
        Placement::Fixed(addr)
    } else if f.contains(MapFlags::MAP_32BIT) {
        Placement::Low(addr)
    } else {
        Placement::Hint(addr)
    };
    let mut vm = Vma::MAY_ALL;
    vm.set(VmFlags::NORESERVE, f.contains(MapFlags::NORESERVE));
    vm.set(VmFlags::LOCKED, f.contains(MapFlags::LOCKED));
    let kind = bits & MAP_TYPE;
    let grows_down = f.contains(MapFlags::GROWSDOWN);
    let exec_too = implied_exec(t, prot);
    let target = match &file {
        Some(file) => {
            if kind == MAP_SHARED_VALIDATE && bits & !VALIDATED != 0 {
                return Err(Errno::EOPNOTSUPP.into());
            }
            let (object, more) = map_file(file, kind, prot)?;
            vm = (vm | more.set) - more.clear;
            if grows_down {
                return Err(Errno::EINVAL.into());
            }
            if exec_too && vm.contains(VmFlags::MAYEXEC) {
                prot |= Prot::EXEC;
            }
            Some(MmapFile { file: VmFile { object, file: Some(Arc::clone(file)) }, offset })
        }
        None => {
            if exec_too {
                prot |= Prot::EXEC;
            }
            match kind {
                1 if grows_down => return Err(Errno::EINVAL.into()),
                1 => {
                    let size = page_up(len).filter(|l| *l <= TASK_SIZE).ok_or(Errno::ENOMEM)?;
                    vm |= VmFlags::SHARED;
                    let object = SharedMemory::new(&t.kernel().memfile, t.mm().account(), size);
                    Some(MmapFile { file: VmFile { object, file: None }, offset: 0 })
                }
                2 => {
                    vm.set(VmFlags::GROWSDOWN, grows_down);
                    vm.set(VmFlags::STACK, f.contains(MapFlags::STACK));
                    None
                }
                _ => return Err(Errno::EINVAL.into()),
            }
        }
    };
    let populate = f.contains(MapFlags::POPULATE) && !f.contains(MapFlags::NONBLOCK);
    let args = MmapArgs { at, len, prot, flags: vm, file: target, populate, name: None };
    Ok(t.mm().mmap(args, &limits(t))?)
}

struct FlagChange {
    set: VmFlags,
    clear: VmFlags,
}

/// Whether a file may be mapped so, and what the mapping may become.
fn map_file(file: &Arc<File>, kind: u32, prot: Prot) -> Result<(Arc<dyn kernel::mm::Mappable>, FlagChange)> {
    let mut change = FlagChange { set: VmFlags::empty(), clear: VmFlags::empty() };
    let f = file.flags();
    let shared = match kind {
        1 | MAP_SHARED_VALIDATE => true,
        2 => false,
        _ => return Err(Errno::EINVAL),
    };
    if shared {
        if prot.contains(Prot::WRITE) && !f.can_write() {
            return Err(Errno::EACCES);
        }
        change.set |= VmFlags::SHARED;
        if !f.can_write() {
            change.clear |= VmFlags::MAYWRITE;
        }
    }
    if !f.can_read() {
        return Err(Errno::EACCES);
    }
    if file.path().mount.noexec() {
        if prot.contains(Prot::EXEC) {
            return Err(Errno::EPERM);
        }
        change.clear |= VmFlags::MAYEXEC;
    }
    let object = file.ops().mappable(file)?;
    if !object.mmap_check(shared, prot)? && shared {
        change.clear |= VmFlags::MAYWRITE;
    }
    Ok((object, change))
}

pub fn munmap(t: &mut Current<'_>, addr: u64, len: u64) -> SysResult {
    t.mm().munmap(addr, len)?;
    Ok(0)
}

pub fn brk(t: &mut Current<'_>, to: u64) -> SysResult {
    Ok(t.mm().brk(to, &limits(t)))
}

pub fn mprotect(t: &mut Current<'_>, addr: u64, len: u64, prot: u64) -> SysResult {
    let down = prot & u64::from(ProtFlags::GROWSDOWN.bits()) != 0;
    let up = prot & u64::from(ProtFlags::GROWSUP.bits()) != 0;
    let rest = prot & !u64::from((ProtFlags::GROWSDOWN | ProtFlags::GROWSUP).bits());
    if down && up || addr % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(0);
    }
    if page_up(len).and_then(|l| addr.checked_add(l)).is_none() {
        return Err(Errno::ENOMEM.into());
    }
    if rest & !(7 | PROT_SEM) != 0 {
        return Err(Errno::EINVAL.into());
    }
    if up {
        // No mapping grows upwards.
        return Err(Errno::EINVAL.into());
    }
    let mut p = prot_of(rest);
    if implied_exec(t, p) {
        p |= Prot::EXEC;
    }
    t.mm().mprotect(addr, len, p, down, &limits(t))?;
    Ok(0)
}

pub fn mseal(t: &mut Current<'_>, addr: u64, len: u64, flags: u64) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    t.mm().mseal(addr, len)?;
    Ok(0)
}

pub fn pkey_mprotect(t: &mut Current<'_>, addr: u64, len: u64, prot: u64, pkey: i32) -> SysResult {
    // Without protection keys only -1, "none", is valid.
    if pkey != -1 {
        return Err(Errno::EINVAL.into());
    }
    mprotect(t, addr, len, prot)
}

pub fn pkey_alloc(_t: &mut Current<'_>, flags: u64, rights: u64) -> SysResult {
    if flags != 0 || rights & !3 != 0 {
        return Err(Errno::EINVAL.into());
    }
    // As on a processor without protection keys.
    Err(Errno::ENOSPC.into())
}

pub fn pkey_free(_t: &mut Current<'_>, _pkey: i32) -> SysResult {
    Err(Errno::EINVAL.into())
}

pub fn mremap(t: &mut Current<'_>, old: u64, old_len: u64, new_len: u64, flags: u64, new: u64) -> SysResult {
    Ok(t.mm().mremap(old, old_len, new_len, flags, new, &limits(t))?)
}

pub fn madvise(t: &mut Current<'_>, addr: u64, len: u64, advice: i32) -> SysResult {
    let advice = Advice::from_raw(advice)?;
    advise(t, &t.mm(), addr, len, advice)?;
    Ok(0)
}

fn advise(t: &Task, mm: &Mm, addr: u64, len: u64, advice: Advice) -> Result<()> {
    const PUNCH_HOLE_KEEP_SIZE: u32 = 3;
    let punch = mm.madvise(addr, len, advice)?;
    for p in punch {
        let bytes = p.range.end - p.range.start;
        match &p.file.file {
            Some(f) => t.as_caller(|cx| fallocate(cx, f, PUNCH_HOLE_KEEP_SIZE, p.range.start, bytes))?,
            None => p.file.object.punch(p.range)?,
        }
    }
    Ok(())
}

fn fallocate(_cx: &Caller<'_>, f: &Arc<File>, mode: u32, at: u64, len: u64) -> Result<()> {
    f.ops().fallocate(f, mode, at, len)
}

pub fn remap_file_pages(
    t: &mut Current<'_>,
    start: u64,
    size: u64,
    prot: u64,
    page: u64,
    _flags: u64,
) -> SysResult {
    let start = start & !(PAGE_SIZE - 1);
    let size = size & !(PAGE_SIZE - 1);
    let end = start.checked_add(size).filter(|e| *e > start).ok_or(Errno::EINVAL)?;
    let offset =
        page.checked_mul(PAGE_SIZE).filter(|o| o.checked_add(size).is_some()).ok_or(Errno::EINVAL)?;
    if prot != 0 {
        return Err(Errno::EINVAL.into());
    }
    // As Linux since 4.0: a new mapping in place of the old one.
    let mm = t.mm();
    let (prot, flags, file) = mm.shared_mapping(&(start..end))?;
    let file = Some(MmapFile { file, offset });
    let at = Placement::Fixed(start);
    mm.mmap(MmapArgs { at, len: size, prot, flags, file, populate: false, name: None }, &limits(t))?;
    Ok(0)
}

pub fn process_madvise(
    t: &mut Current<'_>,
    pidfd: Fd,
    iov: UserPtr<[u64; 2]>,
    count: usize,
    advice: i32,
    flags: u32,
) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let ranges = UserIoVec::import(&t.mm(), iov, count)?;
    let file = t.files().get(pidfd)?;
    let target = super::pidfd::pid_of(&file).ok_or(Errno::EBADF)?.task().ok_or(Errno::ESRCH)?;
    let advice = Advice::from_raw(advice)?;
    let harmless = matches!(advice, Advice::Cold | Advice::PageOut | Advice::WillNeed | Advice::Collapse);
    if !harmless && !Arc::ptr_eq(target.group(), t.group()) {
        return Err(Errno::EINVAL.into());
    }
    may_access_memory(t, &target)?;
    let mm = target.try_mm().ok_or(Errno::ESRCH)?;
    let mut done = 0u64;
    for (addr, len) in &ranges.parts {
        match advise(t, &mm, *addr, *len as u64, advice) {
            Ok(()) => done += *len as u64,
            Err(e) if done == 0 => return Err(e.into()),
            Err(_) => break,
        }
    }
    Ok(done)
}

pub fn msync(t: &mut Current<'_>, addr: u64, len: u64, flags: u32) -> SysResult {
    const ASYNC: u32 = 1;
    const INVALIDATE: u32 = 2;
    const SYNC: u32 = 4;
    let both = ASYNC | SYNC;
    if flags & !(both | INVALIDATE) != 0 || addr % PAGE_SIZE != 0 || flags & both == both {
        return Err(Errno::EINVAL.into());
    }
    let len = page_up(len).ok_or(Errno::ENOMEM)?;
    let end = addr.checked_add(len).ok_or(Errno::ENOMEM)?;
    if len == 0 {
        return Ok(0);
    }
    let (objects, hole) = t.mm().msync_ranges(addr..end, flags & INVALIDATE != 0)?;
    if flags & SYNC != 0 {
        for o in objects {
            o.file.object.sync(o.range)?;
        }
    }
    if hole { Err(Errno::ENOMEM.into()) } else { Ok(0) }
}

pub fn mincore(t: &mut Current<'_>, addr: u64, len: u64, vec: UserPtr<u8>) -> SysResult {
    if addr % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL.into());
    }
    let len = page_up(len).ok_or(Errno::ENOMEM)?;
    let end = addr.checked_add(len).filter(|e| *e <= TASK_SIZE).ok_or(Errno::ENOMEM)?;
    let mm = t.mm();
    let mut at = addr;
    let mut out = vec;
    // In portions, so that the answer stays small.
    while at < end {
        let stop = end.min(at + (PAGE_SIZE << 12));
        let part = mm.mincore(at..stop)?;
        mm.copy_out(out.addr(), &part)?;
        out = out.add(part.len());
        at = stop;
    }
    Ok(0)
}

pub fn mlock(t: &mut Current<'_>, addr: u64, len: u64) -> SysResult {
    mlock2(t, addr, len, 0)
}

pub fn mlock2(t: &mut Current<'_>, addr: u64, len: u64, flags: u32) -> SysResult {
    const ONFAULT: u32 = 1;
    if flags & !ONFAULT != 0 {
        return Err(Errno::EINVAL.into());
    }
    t.mm().mlock(addr, len, flags & ONFAULT != 0, &limits(t))?;
    Ok(0)
}

pub fn munlock(t: &mut Current<'_>, addr: u64, len: u64) -> SysResult {
    t.mm().munlock(addr, len)?;
    Ok(0)
}

pub fn mlockall(t: &mut Current<'_>, flags: u32) -> SysResult {
    let flags = LockAll::from_bits(flags).ok_or(Errno::EINVAL)?;
    t.mm().mlockall(flags, &limits(t))?;
    Ok(0)
}

pub fn munlockall(t: &mut Current<'_>) -> SysResult {
    t.mm().munlockall();
    Ok(0)
}

/// Whether the caller may read and write another task's memory (`PTRACE_MODE_ATTACH_REALCREDS`).
fn may_access_memory(t: &Task, target: &Task) -> Result<()> {
    if t.may_attach(target) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Copies between two address spaces through a buffer, since the locks of both are never held at once.
fn transfer(
    t: &Current<'_>,
    pid: i32,
    local: [u64; 2],
    remote: [u64; 2],
    flags: u64,
    write: bool,
) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mine = t.mm();
    let count = |n: u64| usize::try_from(n).map_err(|_| Errno::EINVAL);
    let local = UserIoVec::import(&mine, UserPtr::new(local[0]), count(local[1])?)?;
    let n = count(remote[1])?;
    if n > 1024 {
        return Err(Errno::EINVAL.into());
    }
    if local.is_empty() || n == 0 {
        return Ok(0);
    }
    // The other side's addresses are looked at only when they are used.
    let parts: Vec<[u64; 2]> = UserPtr::new(remote[0]).read_array(&mine, n)?;
    if parts.iter().any(|[_, len]| i64::try_from(*len).is_err()) {
        return Err(Errno::EINVAL.into());
    }
    let target = t.pid_ns().task(pid).ok_or(Errno::ESRCH)?;
    may_access_memory(t, &target)?;
    let theirs = target.try_mm().ok_or(Errno::ESRCH)?;
    let total = local.len();
    let mut buf = vec![0; total.min(256 << 10)];
    let mut done = 0usize;
    let (mut part, mut within) = (0usize, 0usize);
    let mut take_local = |buf: &mut [u8]| -> usize {
        let mut n = 0;
        while n < buf.len() {
            let Some((addr, len)) = local.parts.get(part).copied() else { break };
            if within >= len {
                part += 1;
                within = 0;
                continue;
            }
            let want = (len - within).min(buf.len() - n);
            let at = addr + within as u64;
            let k = if write {
                mine.copy_in_partial(at, &mut buf[n..n + want])
            } else {
                mine.copy_out_partial(at, &buf[n..n + want])
            };
            n += k;
            within += k;
            if k < want {
                break;
            }
        }
        n
    };
    'all: for [addr, len] in parts {
        let mut at = 0u64;
        while at < len && done < total {
            let want = usize::try_from(len - at).unwrap_or(usize::MAX).min(total - done).min(buf.len());
            let here = addr.wrapping_add(at);
            let (k, n) = if write {
                let n = take_local(&mut buf[..want]);
                (theirs.copy_out_partial(here, &buf[..n]), want)
            } else {
                let k = theirs.copy_in_partial(here, &mut buf[..want]);
                (take_local(&mut buf[..k]), want)
            };
            done += k;
            at += k as u64;
            if k < n {
                break 'all;
            }
        }
    }
    if done == 0 { Err(Errno::EFAULT.into()) } else { Ok(done as u64) }
}

pub fn process_vm_readv(
    t: &mut Current<'_>,
    pid: i32,
    local: u64,
    local_count: u64,
    remote: u64,
    remote_count: u64,
    flags: u64,
) -> SysResult {
    transfer(t, pid, [local, local_count], [remote, remote_count], flags, false)
}

pub fn process_vm_writev(
    t: &mut Current<'_>,
    pid: i32,
    local: u64,
    local_count: u64,
    remote: u64,
    remote_count: u64,
    flags: u64,
) -> SysResult {
    transfer(t, pid, [local, local_count], [remote, remote_count], flags, true)
}

// Memory policy. There is one node; a policy can only name it, and changes nothing.

const MPOL_MAX: u32 = 7;
const MPOL_MODE_FLAGS: u32 = 0xe000;

/// Reads a node mask: only node 0 may be set, else EINVAL.
fn node_mask(t: &Current<'_>, mask: UserPtr<u64>, maxnode: u64) -> Result<u64> {
    let bits = maxnode.saturating_sub(1);
    if mask.is_null() || bits == 0 {
        return Ok(0);
    }
    if bits > PAGE_SIZE * 8 {
        return Err(Errno::EINVAL);
    }
    let words = usize::try_from(bits.div_ceil(64)).map_err(|_| Errno::EINVAL)?;
    let mut mask = mask.read_array(&t.mm(), words)?;
    if bits % 64 != 0
        && let Some(last) = mask.last_mut()
    {
        *last &= (1 << (bits % 64)) - 1;
    }
    if mask.iter().skip(1).any(|w| *w != 0) || mask[0] & !1 != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(mask[0])
}

fn check_policy(t: &Current<'_>, mode: u32, mask: UserPtr<u64>, maxnode: u64) -> Result<()> {
    let nodes = node_mask(t, mask, maxnode)?;
    let plain = mode & !MPOL_MODE_FLAGS;
    // MPOL_DEFAULT and MPOL_LOCAL take no nodes; MPOL_PREFERRED may have none; the others need one.
    let ok = match plain {
        0 | 4 => nodes == 0,
        1 => true,
        m if m < MPOL_MAX => nodes != 0,
        _ => false,
    };
    if ok { Ok(()) } else { Err(Errno::EINVAL) }
}

pub fn set_mempolicy(t: &mut Current<'_>, mode: u32, mask: UserPtr<u64>, maxnode: u64) -> SysResult {
    check_policy(t, mode, mask, maxnode)?;
    if mode & !MPOL_MODE_FLAGS != 0 {
        gap!(t.kernel(), "set_mempolicy: the policy is not remembered", mode);
    }
    Ok(0)
}

pub fn mbind(
    t: &mut Current<'_>,
    addr: u64,
    len: u64,
    mode: u32,
    mask: UserPtr<u64>,
    maxnode: u64,
    flags: u32,
) -> SysResult {
    if addr % PAGE_SIZE != 0 || flags & !7 != 0 || page_up(len).and_then(|l| addr.checked_add(l)).is_none() {
        return Err(Errno::EINVAL.into());
    }
    check_policy(t, mode, mask, maxnode)?;
    Ok(0)
}

pub fn get_mempolicy(
    t: &mut Current<'_>,
    mode: UserPtr<i32>,
    mask: UserPtr<u64>,
    maxnode: u64,
    addr: u64,
    flags: u64,
) -> SysResult {
    const NODE: u64 = 1;
    const ADDR: u64 = 2;
    const MEMS_ALLOWED: u64 = 4;
    if flags & !(NODE | ADDR | MEMS_ALLOWED) != 0 || !mask.is_null() && maxnode < 1 {
        return Err(Errno::EINVAL.into());
    }
    let allowed = flags & MEMS_ALLOWED != 0;
    if allowed && flags & (NODE | ADDR) != 0 || flags & ADDR == 0 && (addr != 0 || flags & NODE != 0) {
        return Err(Errno::EINVAL.into());
    }
    let mm = t.mm();
    if flags & ADDR != 0 && mm.maps().iter().all(|m| !m.range.contains(&addr)) {
        return Err(Errno::EFAULT.into());
    }
    if let Some(p) = mode.optional() {
        // MPOL_DEFAULT, and for `NODE` the number of the only node.
        p.write(&mm, &0)?;
    }
    if let Some(p) = mask.optional() {
        let words = usize::try_from((maxnode - 1).div_ceil(64).clamp(1, 512)).map_err(|_| Errno::EINVAL)?;
        let mut out = vec![0u64; words];
        out[0] = u64::from(allowed);
        p.write_array(&mm, &out)?;
    }
    Ok(0)
}
