//! prctl(2), arch_prctl(2).

use super::seccomp;
use crate::Current;
use abi::signal::Signal;
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::task::securebits;
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::{SysResult, gap};
use std::sync::atomic::Ordering;

/// Options of prctl(2).
mod pr {
    pub const SET_PDEATHSIG: i32 = 1;
    pub const GET_PDEATHSIG: i32 = 2;
    pub const GET_DUMPABLE: i32 = 3;
    pub const SET_DUMPABLE: i32 = 4;
    pub const GET_KEEPCAPS: i32 = 7;
    pub const SET_KEEPCAPS: i32 = 8;
    pub const GET_TIMING: i32 = 13;
    pub const SET_TIMING: i32 = 14;
    pub const SET_NAME: i32 = 15;
    pub const GET_NAME: i32 = 16;
    pub const GET_SECCOMP: i32 = 21;
    pub const SET_SECCOMP: i32 = 22;
    pub const CAPBSET_READ: i32 = 23;
    pub const CAPBSET_DROP: i32 = 24;
    pub const GET_TSC: i32 = 25;
    pub const SET_TSC: i32 = 26;
    pub const GET_SECUREBITS: i32 = 27;
    pub const SET_SECUREBITS: i32 = 28;
    pub const SET_TIMERSLACK: i32 = 29;
    pub const GET_TIMERSLACK: i32 = 30;
    pub const MCE_KILL: i32 = 33;
    pub const MCE_KILL_GET: i32 = 34;
    pub const SET_MM: i32 = 35;
    pub const SET_CHILD_SUBREAPER: i32 = 36;
    pub const GET_CHILD_SUBREAPER: i32 = 37;
    pub const SET_NO_NEW_PRIVS: i32 = 38;
    pub const GET_NO_NEW_PRIVS: i32 = 39;
    pub const GET_TID_ADDRESS: i32 = 40;
    pub const SET_THP_DISABLE: i32 = 41;
    pub const GET_THP_DISABLE: i32 = 42;
    pub const CAP_AMBIENT: i32 = 47;
    pub const GET_SPECULATION_CTRL: i32 = 52;
    pub const SET_SPECULATION_CTRL: i32 = 53;
    pub const SET_IO_FLUSHER: i32 = 57;
    pub const GET_IO_FLUSHER: i32 = 58;
    pub const SET_VMA: i32 = 0x5356_4d41;
    pub const SET_PTRACER: i32 = 0x5961_6d61;
    pub const GET_AUXV: i32 = 0x4155_5856;
}

fn small(v: i32) -> SysResult {
    Ok(u64::from(v.unsigned_abs()))
}

fn one_cap(n: u64) -> Result<CapSet> {
    let set = if n < 64 { CapSet::from_bits(1 << n) } else { None };
    set.filter(|c| !c.is_empty()).ok_or(Errno::EINVAL)
}

#[expect(clippy::too_many_lines, reason = "one arm for each option")]
pub fn prctl(t: &mut Current<'_>, option: i32, a: u64, b: u64, c: u64, d: u64) -> SysResult {
    let mm = t.mm();
    match option {
        pr::SET_PDEATHSIG => {
            let n = i32::try_from(a).map_err(|_| Errno::EINVAL)?;
            if n != 0 && Signal::new(n).is_none() {
                return Err(Errno::EINVAL.into());
            }
            t.attrs.lock().parent_death_signal = u8::try_from(n).unwrap_or(0);
            Ok(0)
        }
        pr::GET_PDEATHSIG => {
            let n = i32::from(t.attrs.lock().parent_death_signal);
            UserPtr::<i32>::new(a).write(&mm, &n)?;
            Ok(0)
        }
        pr::GET_DUMPABLE => small(t.group().dumpable()),
        pr::SET_DUMPABLE => {
            if a > 1 {
                return Err(Errno::EINVAL.into());
            }
            t.group().dumpable.store(i32::from(a == 1), Ordering::Relaxed);
            Ok(0)
        }
        pr::GET_KEEPCAPS => Ok(u64::from(t.creds().securebits & securebits::KEEP_CAPS != 0)),
        pr::SET_KEEPCAPS => {
            let old = t.creds();
            if a > 1 {
                return Err(Errno::EINVAL.into());
            }
            if old.securebits & securebits::KEEP_CAPS_LOCKED != 0 {
                return Err(Errno::EPERM.into());
            }
            let mut new = (*old).clone();
            new.securebits =
                (old.securebits & !securebits::KEEP_CAPS) | if a == 1 { securebits::KEEP_CAPS } else { 0 };
            t.set_creds(new);
            Ok(0)
        }
        pr::GET_TIMING => Ok(0),
        pr::SET_TIMING if a == 0 => Ok(0),
        pr::SET_NAME => {
            let mut name = Vec::new();
            for i in 0..15 {
                let byte = UserPtr::<u8>::new(a.wrapping_add(i)).read(&mm)?;
                if byte == 0 {
                    break;
                }
                name.push(byte);
            }
            t.set_comm(&name);
            Ok(0)
        }
        pr::GET_NAME => {
            let mut name = t.comm();
            name.resize(16, 0);
            mm.copy_out(a, &name)?;
            Ok(0)
        }
        pr::GET_SECCOMP => Ok(seccomp::mode(t)),
        pr::SET_SECCOMP => match a {
            1 => seccomp::seccomp(t, 0, 0, UserPtr::new(0)),
            2 => seccomp::seccomp(t, 1, 0, UserPtr::new(b)),
            _ => Err(Errno::EINVAL.into()),
        },
        pr::CAPBSET_READ => Ok(u64::from(t.creds().bounding.contains(one_cap(a)?))),
        pr::CAPBSET_DROP => {
            let old = t.creds();
            if !old.has_cap(CapSet::SETPCAP) {
                return Err(Errno::EPERM.into());
            }
            let mut new = (*old).clone();
            new.bounding -= one_cap(a)?;
            t.set_creds(new);
            Ok(0)
        }
        pr::GET_TSC => {
            let v = t.attrs.lock().tsc;
            UserPtr::<i32>::new(a).write(&mm, &v)?;
            Ok(0)
        }
        pr::SET_TSC => match a {
            1 => Ok(0),
            2 => {
                gap!(t.kernel(), "prctl PR_SET_TSC PR_TSC_SIGSEGV");
                Err(Errno::EINVAL.into())
            }
            _ => Err(Errno::EINVAL.into()),
        },
        pr::GET_SECUREBITS => Ok(t.creds().securebits.into()),
        pr::SET_SECUREBITS => set_securebits(t, a),
        pr::SET_TIMERSLACK => {
            let mut at = t.attrs.lock();
            at.timer_slack = if a == 0 || i64::try_from(a).is_err() { at.default_timer_slack } else { a };
            Ok(0)
        }
        pr::GET_TIMERSLACK => Ok(t.attrs.lock().timer_slack),
        pr::MCE_KILL => {
            if c != 0 || d != 0 {
                return Err(Errno::EINVAL.into());
            }
            match (a, b) {
                (0, 0) => t.attrs.lock().mce_kill = 2,
                (1, 0..=2) => t.attrs.lock().mce_kill = i32::try_from(b).unwrap_or(2),
                _ => return Err(Errno::EINVAL.into()),
            }
            Ok(0)
        }
        pr::MCE_KILL_GET => {
            if a | b | c | d != 0 {
                return Err(Errno::EINVAL.into());
            }
            small(t.attrs.lock().mce_kill)
        }
        pr::SET_MM => {
            if !t.creds().has_cap(CapSet::SYS_RESOURCE) {
                return Err(Errno::EPERM.into());
            }
            gap!(t.kernel(), "prctl PR_SET_MM", a);
            Err(Errno::EINVAL.into())
        }
        pr::SET_CHILD_SUBREAPER => {
            t.group().is_subreaper.store(a != 0, Ordering::Relaxed);
            Ok(0)
        }
        pr::GET_CHILD_SUBREAPER => {
            let on = i32::from(t.group().is_subreaper.load(Ordering::Relaxed));
            UserPtr::<i32>::new(a).write(&mm, &on)?;
            Ok(0)
        }
        pr::SET_NO_NEW_PRIVS => {
            if a != 1 || b | c | d != 0 {
                return Err(Errno::EINVAL.into());
            }
            let mut new = (*t.creds()).clone();
            new.no_new_privs = true;
            t.set_creds(new);
            Ok(0)
        }
        pr::GET_NO_NEW_PRIVS => {
            if a | b | c | d != 0 {
                return Err(Errno::EINVAL.into());
            }
            Ok(u64::from(t.creds().no_new_privs))
        }
        pr::GET_TID_ADDRESS => {
            UserPtr::<u64>::new(a).write(&mm, &t.clear_child_tid.load(Ordering::Relaxed))?;
            Ok(0)
        }
        pr::SET_THP_DISABLE => {
            if b | c | d != 0 {
                return Err(Errno::EINVAL.into());
            }
            t.attrs.lock().thp_disable = a != 0;
            Ok(0)
        }
        pr::GET_THP_DISABLE => {
            if a | b | c | d != 0 {
                return Err(Errno::EINVAL.into());
            }
            Ok(u64::from(t.attrs.lock().thp_disable))
        }
        pr::CAP_AMBIENT => ambient(t, a, b, c | d),
        pr::GET_SPECULATION_CTRL | pr::SET_SPECULATION_CTRL => {
            gap!(t.kernel(), "prctl speculation control");
            Err(Errno::ENODEV.into())
        }
        pr::SET_IO_FLUSHER => {
            if !t.creds().has_cap(CapSet::SYS_RESOURCE) {
                return Err(Errno::EPERM.into());
            }
            if a > 1 || b | c | d != 0 {
                return Err(Errno::EINVAL.into());
            }
            t.attrs.lock().io_flusher = a == 1;
            Ok(0)
        }
        pr::GET_IO_FLUSHER => {
            if !t.creds().has_cap(CapSet::SYS_RESOURCE) {
                return Err(Errno::EPERM.into());
            }
            Ok(u64::from(t.attrs.lock().io_flusher))
        }
        pr::SET_VMA => {
            if a != 0 {
                return Err(Errno::EINVAL.into());
            }
            let name = match d {
                0 => None,
                p => {
                    let n = UserCStr(p).read(&mm, 80, Errno::EINVAL)?;
                    if n.iter().any(|ch| !(0x20..0x7f).contains(ch) || b"\\`$[]".contains(ch)) {
                        return Err(Errno::EINVAL.into());
                    }
                    Some(n.into())
                }
            };
            mm.set_anon_name(b, c, name)?;
            Ok(0)
        }
        // Yama is not there.
        pr::SET_PTRACER => Err(Errno::EINVAL.into()),
        pr::GET_AUXV => {
            if c | d != 0 {
                return Err(Errno::EINVAL.into());
            }
            let auxv: Vec<u8> = mm
                .layout()
                .auxv
                .iter()
                .flat_map(|(k, v)| [k.to_ne_bytes(), v.to_ne_bytes()].concat())
                .collect();
            let n = auxv.len().min(usize::try_from(b).unwrap_or(usize::MAX));
            mm.copy_out(a, &auxv[..n])?;
            Ok(auxv.len() as u64)
        }
        _ => {
            gap!(t.kernel(), "prctl with an unknown option", option.unsigned_abs());
            Err(Errno::EINVAL.into())
        }
    }
}

fn set_securebits(t: &Current<'_>, bits: u64) -> SysResult {
    let old = t.creds();
    let bits = u32::try_from(bits).map_err(|_| Errno::EPERM)?;
    let locks = (old.securebits & securebits::ALL_LOCKS) >> 1;
    let breaks_lock = locks & (old.securebits ^ bits) != 0;
    let drops_lock = old.securebits & securebits::ALL_LOCKS & !bits != 0;
    if breaks_lock || drops_lock || bits & !securebits::ALL != 0 || !old.has_cap(CapSet::SETPCAP) {
        return Err(Errno::EPERM.into());
    }
    let mut new = (*old).clone();
    new.securebits = bits;
    t.set_creds(new);
    Ok(0)
}

fn ambient(t: &Current<'_>, op: u64, cap: u64, rest: u64) -> SysResult {
    const IS_SET: u64 = 1;
    const RAISE: u64 = 2;
    const LOWER: u64 = 3;
    const CLEAR_ALL: u64 = 4;
    let old = t.creds();
    let mut new = (*old).clone();
    if op == CLEAR_ALL {
        if cap | rest != 0 {
            return Err(Errno::EINVAL.into());
        }
        new.ambient = CapSet::empty();
        t.set_creds(new);
        return Ok(0);
    }
    let one = one_cap(cap)?;
    if rest != 0 {
        return Err(Errno::EINVAL.into());
    }
    match op {
        IS_SET => return Ok(u64::from(old.ambient.contains(one))),
        RAISE => {
            if !(old.permitted & old.inheritable).contains(one)
                || old.securebits & securebits::NO_CAP_AMBIENT_RAISE != 0
            {
                return Err(Errno::EPERM.into());
            }
            new.ambient |= one;
        }
        LOWER => new.ambient -= one,
        _ => return Err(Errno::EINVAL.into()),
    }
    t.set_creds(new);
    Ok(0)
}

pub fn arch_prctl(t: &mut Current<'_>, code: i32, addr: u64) -> SysResult {
    const SET_GS: i32 = 0x1001;
    const SET_FS: i32 = 0x1002;
    const GET_FS: i32 = 0x1003;
    const GET_GS: i32 = 0x1004;
    const GET_CPUID: i32 = 0x1011;
    const SET_CPUID: i32 = 0x1012;
    const GET_XCOMP_SUPP: i32 = 0x1021;
    const GET_XCOMP_PERM: i32 = 0x1022;
    const REQ_XCOMP_PERM: i32 = 0x1023;
    let mm = t.mm();
    match code {
        SET_FS | SET_GS => {
            if addr >= kernel::mm::TASK_SIZE {
                return Err(Errno::EPERM.into());
            }
            if code == SET_FS {
                t.regs.fs_base = addr;
            } else {
                t.regs.gs_base = addr;
            }
            Ok(0)
        }
        GET_FS => {
            UserPtr::<u64>::new(addr).write(&mm, &t.regs.fs_base)?;
            Ok(0)
        }
        GET_GS => {
            UserPtr::<u64>::new(addr).write(&mm, &t.regs.gs_base)?;
            Ok(0)
        }
        GET_CPUID => Ok(1),
        SET_CPUID => Err(Errno::ENODEV.into()),
        GET_XCOMP_SUPP | GET_XCOMP_PERM => {
            UserPtr::<u64>::new(addr).write(&mm, &platform::FpuState::components())?;
            Ok(0)
        }
        REQ_XCOMP_PERM => {
            gap!(t.kernel(), "arch_prctl ARCH_REQ_XCOMP_PERM");
            Err(Errno::EOPNOTSUPP.into())
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
