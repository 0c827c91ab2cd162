//! The system as a whole: uname(2), sysinfo(2), host names, getrandom(2), personality(2), membarrier(2), kcmp(2), syslog(2),
//! reboot(2), and calls that no sandbox is allowed.

use crate::Current;
use abi::signal::Signal;
use abi::{Errno, Result};
use kernel::SysResult;
use kernel::creds::CapSet;
use kernel::task::{ExitStatus, uts};
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::vfs::Fd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const NAME: usize = 65;
const UNAME26: u32 = 0x0002_0000;
/// Longest host name (`__NEW_UTS_LEN`).
const MAX_NAME: i32 = 64;

pub fn uname(t: &mut Current<'_>, out: UserPtr<u8>) -> SysResult {
    let ns = Arc::clone(&t.namespaces().uts);
    let old = t.attrs.lock().personality & UNAME26 != 0;
    let release = if old { "2.6.72" } else { uts::RELEASE };
    let parts: [Vec<u8>; 6] = [
        b"Linux".to_vec(),
        ns.hostname(),
        release.as_bytes().to_vec(),
        uts::VERSION.as_bytes().to_vec(),
        b"x86_64".to_vec(),
        ns.domainname(),
    ];
    let mut all = vec![0u8; NAME * 6];
    for (i, p) in parts.iter().enumerate() {
        let n = p.len().min(NAME - 1);
        all[i * NAME..i * NAME + n].copy_from_slice(&p[..n]);
    }
    t.mm().copy_out(out.addr(), &all)?;
    Ok(0)
}

fn new_name(t: &Current<'_>, name: UserPtr<u8>, len: i32) -> Result<Vec<u8>> {
    let ns = Arc::clone(&t.namespaces().uts);
    if !t.creds().has_cap_in(&ns.user_ns, CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if !(0..=MAX_NAME).contains(&len) {
        return Err(Errno::EINVAL);
    }
    name.read_array(&t.mm(), usize::try_from(len).map_err(|_| Errno::EINVAL)?)
}

pub fn sethostname(t: &mut Current<'_>, name: UserPtr<u8>, len: i32) -> SysResult {
    let name = new_name(t, name, len)?;
    t.namespaces().uts.set_hostname(name);
    Ok(0)
}

pub fn setdomainname(t: &mut Current<'_>, name: UserPtr<u8>, len: i32) -> SysResult {
    let name = new_name(t, name, len)?;
    t.namespaces().uts.set_domainname(name);
    Ok(0)
}

/// `struct sysinfo`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SysInfo {
    uptime: i64,
    loads: [u64; 3],
    totalram: u64,
    freeram: u64,
    sharedram: u64,
    bufferram: u64,
    totalswap: u64,
    freeswap: u64,
    procs: u16,
    pad: u16,
    pad2: u32,
    totalhigh: u64,
    freehigh: u64,
    mem_unit: u32,
    pad3: u32,
}

pub fn sysinfo(t: &mut Current<'_>, out: UserPtr<SysInfo>) -> SysResult {
    let k = t.kernel();
    let total = k.machine.memory();
    let used = k.memfile.usage();
    let up = (k.clocks.monotonic() - k.machine.booted + t.namespaces().time.boottime()) / 1_000_000_000;
    let info = SysInfo {
        uptime: up,
        totalram: total,
        freeram: total.saturating_sub(used),
        totalswap: k.machine.swap(),
        freeswap: k.machine.swap(),
        procs: u16::try_from(t.pid_ns().tasks().len()).unwrap_or(u16::MAX),
        mem_unit: 1,
        ..SysInfo::default()
    };
    out.write(&t.mm(), &info)?;
    Ok(0)
}

pub fn getrandom(t: &mut Current<'_>, buf: UserPtr<u8>, len: usize, flags: u32) -> SysResult {
    const NONBLOCK: u32 = 1;
    const RANDOM: u32 = 2;
    const INSECURE: u32 = 4;
    let both = RANDOM | INSECURE;
    if flags & !(NONBLOCK | both) != 0 || flags & both == both {
        return Err(Errno::EINVAL.into());
    }
    let len = len.min(kernel::uaccess::MAX_RW_COUNT);
    let mm = t.mm();
    let mut done = 0;
    let mut chunk = [0u8; 4096];
    while done < len {
        let n = (len - done).min(chunk.len());
        platform::hostsys::rand::fill(&mut chunk[..n]);
        let k = mm.copy_out_partial(buf.addr().wrapping_add(done as u64), &chunk[..n]);
        done += k;
        if k < n {
            if done == 0 {
                return Err(Errno::EFAULT.into());
            }
            break;
        }
        // A signal ends a long read after its first page.
        if t.must_look_up() {
            break;
        }
    }
    Ok(done as u64)
}

pub fn personality(t: &mut Current<'_>, new: u32) -> SysResult {
    let mut a = t.attrs.lock();
    let old = a.personality;
    if new != u32::MAX {
        a.personality = new;
    }
    Ok(old.into())
}

pub fn membarrier(t: &mut Current<'_>, cmd: i32, flags: u32, _cpu: i32) -> SysResult {
    const QUERY: i32 = 0;
    const GLOBAL: i32 = 1;
    const GLOBAL_EXPEDITED: i32 = 2;
    const REGISTER_GLOBAL: i32 = 4;
    const PRIVATE: i32 = 8;
    const REGISTER_PRIVATE: i32 = 16;
    const PRIVATE_SYNC_CORE: i32 = 32;
    const REGISTER_SYNC_CORE: i32 = 64;
    const GET_REGISTRATIONS: i32 = 512;
    const ALL: i32 = GLOBAL
        | GLOBAL_EXPEDITED
        | REGISTER_GLOBAL
        | PRIVATE
        | REGISTER_PRIVATE
        | PRIVATE_SYNC_CORE
        | REGISTER_SYNC_CORE
        | GET_REGISTRATIONS;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let g = t.group();
    // A thread that leaves guest code has a full barrier behind it.
    let barrier = |of: &kernel::ThreadGroup| {
        std::sync::atomic::fence(Ordering::SeqCst);
        for x in of.threads() {
            if !Arc::ptr_eq(&x, t.task) && !x.has_exited() {
                x.kick();
            }
        }
    };
    match cmd {
        QUERY => Ok(u64::from(ALL.unsigned_abs())),
        GLOBAL | GLOBAL_EXPEDITED => {
            for other in t.kernel().tasks.all_groups() {
                barrier(&other);
            }
            Ok(0)
        }
        REGISTER_GLOBAL | REGISTER_PRIVATE | REGISTER_SYNC_CORE => {
            g.membarrier.fetch_or(u64::from(cmd.unsigned_abs()), Ordering::Relaxed);
            Ok(0)
        }
        PRIVATE | PRIVATE_SYNC_CORE => {
            let need = if cmd == PRIVATE { REGISTER_PRIVATE } else { REGISTER_SYNC_CORE };
            if g.membarrier.load(Ordering::Relaxed) & u64::from(need.unsigned_abs()) == 0 {
                return Err(Errno::EPERM.into());
            }
            barrier(g);
            Ok(0)
        }
        GET_REGISTRATIONS => Ok(g.membarrier.load(Ordering::Relaxed)),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// The order of two kernel objects as kcmp(2) tells it.
fn order<T: ?Sized>(a: &Arc<T>, b: &Arc<T>) -> u64 {
    let (a, b) = (Arc::as_ptr(a).cast::<u8>(), Arc::as_ptr(b).cast::<u8>());
    match a.cmp(&b) {
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Less => 1,
        std::cmp::Ordering::Greater => 2,
    }
}

pub fn kcmp(t: &mut Current<'_>, pid1: i32, pid2: i32, kind: i32, a: u64, b: u64) -> SysResult {
    let ns = t.pid_ns();
    let x = ns.task(pid1).ok_or(Errno::ESRCH)?;
    let y = ns.task(pid2).ok_or(Errno::ESRCH)?;
    if !t.may_trace(&x) || !t.may_trace(&y) {
        return Err(Errno::EPERM.into());
    }
    let fd = |n: u64| i32::try_from(n).map(Fd).map_err(|_| Errno::EBADF);
    let gone = Errno::ESRCH;
    Ok(match kind {
        0 => {
            let f = x.try_files().ok_or(gone)?.get(fd(a)?)?;
            let g = y.try_files().ok_or(gone)?.get(fd(b)?)?;
            order(&f, &g)
        }
        1 => order(&x.try_mm().ok_or(gone)?, &y.try_mm().ok_or(gone)?),
        2 => order(&x.try_files().ok_or(gone)?, &y.try_files().ok_or(gone)?),
        3 => order(&x.try_fs().ok_or(gone)?, &y.try_fs().ok_or(gone)?),
        4 => order(&x.group().sighand(), &y.group().sighand()),
        // No task has an I/O context or semaphore undo lists of its own: all are alike.
        5 | 6 => 0,
        7 => {
            kernel::gap!(t.kernel(), "kcmp KCMP_EPOLL_TFD");
            return Err(Errno::EOPNOTSUPP.into());
        }
        _ => return Err(Errno::EINVAL.into()),
    })
}

pub fn syslog(t: &mut Current<'_>, kind: i32, buf: UserPtr<u8>, len: i32) -> SysResult {
    const READ: i32 = 2;
    const READ_ALL: i32 = 3;
    const READ_CLEAR: i32 = 4;
    const CONSOLE_LEVEL: i32 = 8;
    const SIZE_BUFFER: i32 = 10;
    let capable = t.creds().has_cap(CapSet::SYSLOG) || t.creds().has_cap(CapSet::SYS_ADMIN);
    if !capable && !matches!(kind, READ_ALL | SIZE_BUFFER) {
        return Err(Errno::EPERM.into());
    }
    if !(0..=10).contains(&kind) {
        return Err(Errno::EINVAL.into());
    }
    match kind {
        READ | READ_ALL | READ_CLEAR if buf.is_null() || len < 0 => Err(Errno::EINVAL.into()),
        SIZE_BUFFER => Ok(1 << 18),
        CONSOLE_LEVEL if !(1..=8).contains(&len) => Err(Errno::EINVAL.into()),
        // The log of a sandbox that has nothing to say.
        _ => Ok(0),
    }
}

/// reboot(2): ends the PID namespace, as Linux does in a container.
pub fn reboot(t: &mut Current<'_>, magic1: u32, magic2: u32, cmd: u32, _arg: u64) -> SysResult {
    let ns = t.pid_ns();
    if !t.creds().has_cap_in(&ns.user_ns, CapSet::SYS_BOOT) {
        return Err(Errno::EPERM.into());
    }
    if magic1 != 0xfee1_dead || ![672_274_793, 85_072_278, 369_367_448, 537_993_216].contains(&magic2) {
        return Err(Errno::EINVAL.into());
    }
    let signal = match cmd {
        0x0123_4567 | 0xa1b2_c3d4 => Signal::SIGHUP,
        0x4321_fedc | 0xcdef_0123 => Signal::SIGINT,
        0 | 0x89ab_cdef => return Ok(0),
        _ => return Err(Errno::EINVAL.into()),
    };
    if let Some(init) = ns.init() {
        init.begin_exit(ExitStatus::killed(signal, false));
    }
    Ok(0)
}

/// What no capability inside a sandbox allows: EPERM, as on a host that is locked down.
fn refuse() -> SysResult {
    Err(Errno::EPERM.into())
}

pub fn swapon(_t: &mut Current<'_>, _path: UserCStr, _flags: u32) -> SysResult {
    refuse()
}
pub fn swapoff(_t: &mut Current<'_>, _path: UserCStr) -> SysResult {
    refuse()
}
pub fn acct(_t: &mut Current<'_>, _path: UserCStr) -> SysResult {
    refuse()
}
/// vhangup(2): the caller's own terminal, if it has one.
pub fn vhangup(t: &mut Current<'_>) -> SysResult {
    if !t.creds().has_cap(CapSet::SYS_TTY_CONFIG) {
        return Err(Errno::EPERM.into());
    }
    fs::tty::hang_up_controlling(t.task);
    Ok(0)
}
