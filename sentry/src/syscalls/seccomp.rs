//! seccomp(2): a task's own filters.

use crate::Current;
use abi::{Errno, Result};
use kernel::bpf::{Fprog, Insn, Program};
use kernel::creds::CapSet;
use kernel::seccomp::{Chain, ret};
use kernel::uaccess::UserPtr;
use kernel::{SysResult, gap};
use std::sync::Arc;

const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
const GET_NOTIF_SIZES: u32 = 3;

const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;
const FLAG_NEW_LISTENER: u32 = 8;
const FLAG_TSYNC_ESRCH: u32 = 16;
const FLAG_WAIT_KILLABLE: u32 = 32;

/// What PR_GET_SECCOMP tells: 0, 1 for strict mode, 2 for filters.
pub fn mode(t: &Current<'_>) -> u64 {
    match t.seccomp() {
        None => 0,
        Some(c) if c.is_strict() => 1,
        Some(_) => 2,
    }
}

/// Strict mode as a filter: read, write, exit and sigreturn, or death of the thread.
fn strict() -> Result<Program> {
    let insn = |code, jt, jf, k| Insn { code, jt, jf, k };
    Program::for_calls(vec![
        insn(0x20, 0, 0, 0),
        insn(0x15, 4, 0, 0),
        insn(0x15, 3, 0, 1),
        insn(0x15, 2, 0, 15),
        insn(0x15, 1, 0, 60),
        insn(0x06, 0, 0, ret::KILL_THREAD),
        insn(0x06, 0, 0, ret::ALLOW),
    ])
}

pub fn seccomp(t: &mut Current<'_>, op: u32, flags: u32, args: UserPtr<u8>) -> SysResult {
    match op {
        SET_MODE_STRICT => {
            if flags != 0 || !args.is_null() || mode(t) == 2 {
                return Err(Errno::EINVAL.into());
            }
            if mode(t) == 0 {
                t.set_seccomp(Some(Chain::strict(strict()?)));
            }
            Ok(0)
        }
        SET_MODE_FILTER => set_filter(t, flags, args),
        GET_ACTION_AVAIL => {
            if flags != 0 {
                return Err(Errno::EINVAL.into());
            }
            match args.cast::<u32>().read(&t.mm())? {
                ret::KILL_PROCESS
                | ret::KILL_THREAD
                | ret::TRAP
                | ret::ERRNO
                | ret::TRACE
                | ret::LOG
                | ret::ALLOW => Ok(0),
                _ => Err(Errno::EOPNOTSUPP.into()),
            }
        }
        GET_NOTIF_SIZES => {
            if flags != 0 {
                return Err(Errno::EINVAL.into());
            }
            args.cast::<[u16; 3]>().write(&t.mm(), &[80, 24, 64])?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn set_filter(t: &mut Current<'_>, flags: u32, args: UserPtr<u8>) -> SysResult {
    let known =
        FLAG_TSYNC | FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_NEW_LISTENER | FLAG_TSYNC_ESRCH | FLAG_WAIT_KILLABLE;
    if flags & !known != 0
        || (flags & FLAG_TSYNC != 0 && flags & FLAG_NEW_LISTENER != 0 && flags & FLAG_TSYNC_ESRCH == 0)
        || (flags & FLAG_WAIT_KILLABLE != 0 && flags & FLAG_NEW_LISTENER == 0)
    {
        return Err(Errno::EINVAL.into());
    }
    let mm = t.mm();
    let prog: Fprog = args.cast().read(&mm)?;
    if prog.len == 0 || usize::from(prog.len) > kernel::bpf::MAX_INSNS {
        return Err(Errno::EINVAL.into());
    }
    let creds = t.creds();
    if !creds.no_new_privs && !creds.has_cap(CapSet::SYS_ADMIN) {
        return Err(Errno::EACCES.into());
    }
    let insns: Vec<Insn> = UserPtr::new(prog.filter).read_array(&mm, prog.len.into())?;
    let program = Program::for_calls(insns)?;
    if flags & FLAG_NEW_LISTENER != 0 {
        gap!(t.kernel(), "seccomp user notification");
        return Err(Errno::EINVAL.into());
    }
    if mode(t) == 1 {
        return Err(Errno::EINVAL.into());
    }
    let mine = t.seccomp();
    let new = Chain::push(mine.as_deref(), program, flags & FLAG_LOG != 0)?;
    if flags & FLAG_TSYNC != 0 {
        let others: Vec<_> =
            t.group().threads().into_iter().filter(|x| !Arc::ptr_eq(x, t.task) && !x.has_exited()).collect();
        for x in &others {
            let theirs = x.seccomp();
            let older = theirs.as_deref();
            let fits = match (&mine, older) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(m), Some(o)) => m.descends_from(Some(o)),
            };
            if !fits {
                if flags & FLAG_TSYNC_ESRCH != 0 {
                    return Err(Errno::ESRCH.into());
                }
                return Ok(u64::from(x.tid_in(&t.pid_ns()).unsigned_abs()));
            }
        }
        for x in others {
            x.set_seccomp(Some(Arc::clone(&new)));
            // What it is told without asking the kernel must pass the filter from now on.
            x.kick();
            if creds.no_new_privs && !x.creds().no_new_privs {
                let mut c = (*x.creds()).clone();
                c.no_new_privs = true;
                x.set_creds(c);
            }
        }
    }
    t.set_seccomp(Some(new));
    Ok(0)
}
