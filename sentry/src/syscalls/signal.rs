//! Signals: sigaction(2), sigprocmask(2), kill(2) and kin, sigaltstack(2), sigreturn(2), sigtimedwait(2).

use crate::Current;
use abi::siginfo::{SigAction, SigInfo, StackT, ss};
use abi::signal::{SaFlags, SigSet, Signal, code};
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::signal::{Sender, is_ignored, restore_frame};
use kernel::time::Deadline;
use kernel::uaccess::UserPtr;
use kernel::{SysError, SysResult};

const SET_SIZE: usize = 8;

fn check_size(size: usize) -> Result<()> {
    if size == SET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

fn check_number(signal: i32) -> Result<()> {
    if (0..=64).contains(&signal) { Ok(()) } else { Err(Errno::EINVAL) }
}

pub fn rt_sigaction(
    t: &mut Current<'_>,
    signal: i32,
    new: UserPtr<SigAction>,
    old: UserPtr<SigAction>,
    size: usize,
) -> SysResult {
    check_size(size)?;
    let mm = t.mm();
    let new = new.optional().map(|p| p.read(&mm)).transpose()?;
    let s = Signal::new(signal).ok_or(Errno::EINVAL)?;
    if new.is_some() && SigSet::UNBLOCKABLE.contains(s) {
        return Err(Errno::EINVAL.into());
    }
    let hand = t.group().sighand();
    let before = match new {
        None => hand.get(s),
        Some(mut a) => {
            let known = SaFlags::all() - SaFlags::UNSUPPORTED;
            a.flags &= known.bits();
            a.mask &= !SigSet::UNBLOCKABLE.0;
            let before = hand.set(s, a);
            if is_ignored(s, &a) {
                t.group().flush_ignored(s);
            }
            before
        }
    };
    if let Some(p) = old.optional() {
        p.write(&mm, &before)?;
    }
    Ok(0)
}

pub fn rt_sigprocmask(
    t: &mut Current<'_>,
    how: i32,
    new: UserPtr<u64>,
    old: UserPtr<u64>,
    size: usize,
) -> SysResult {
    check_size(size)?;
    let mm = t.mm();
    let before = t.blocked();
    if let Some(p) = new.optional() {
        let set = SigSet(p.read(&mm)?).minus(SigSet::UNBLOCKABLE);
        let next = match how {
            0 => before.union(set),
            1 => before.minus(set),
            2 => set,
            _ => return Err(Errno::EINVAL.into()),
        };
        t.set_blocked(next);
    }
    if let Some(p) = old.optional() {
        p.write(&mm, &before.0)?;
    }
    Ok(0)
}

pub fn rt_sigpending(t: &mut Current<'_>, set: UserPtr<u8>, size: usize) -> SysResult {
    if size > SET_SIZE {
        return Err(Errno::EINVAL.into());
    }
    let bytes = t.pending_signals().0.to_ne_bytes();
    t.mm().copy_out(set.addr(), &bytes[..size])?;
    Ok(0)
}

pub fn rt_sigsuspend(t: &mut Current<'_>, mask: UserPtr<u64>, size: usize) -> SysResult {
    check_size(size)?;
    let mask = SigSet(mask.read(&t.mm())?);
    Err(t.suspend(Some(mask)))
}

pub fn pause(t: &mut Current<'_>) -> SysResult {
    Err(t.suspend(None))
}

pub fn rt_sigtimedwait(
    t: &mut Current<'_>,
    set: UserPtr<u64>,
    info: UserPtr<SigInfo>,
    timeout: UserPtr<Timespec>,
    size: usize,
) -> SysResult {
    check_size(size)?;
    let mm = t.mm();
    let set = SigSet(set.read(&mm)?);
    let deadline = match timeout.optional() {
        None => None,
        Some(p) => Some(Deadline::after(t.kernel(), p.read(&mm)?.to_nanos_checked()?)),
    };
    let got = t.wait_signal(set, deadline)?;
    if let Some(p) = info.optional() {
        p.write(&mm, &got)?;
    }
    Ok(u64::from(got.signo.unsigned_abs()))
}

/// What a task may claim about a signal it sends to others (`do_rt_sigqueueinfo`).
pub fn check_given(info: &SigInfo, own: bool) -> Result<()> {
    if (info.code >= 0 || info.code == code::SI_TKILL) && !own { Err(Errno::EPERM) } else { Ok(()) }
}

pub fn rt_sigqueueinfo(t: &mut Current<'_>, pid: i32, signal: i32, info: UserPtr<SigInfo>) -> SysResult {
    let mut given = info.read(&t.mm())?;
    given.signo = signal;
    let own = pid == t.own_tid();
    check_given(&given, own)?;
    check_number(signal)?;
    let pid = t.pid_ns().find(pid).ok_or(Errno::ESRCH)?;
    t.queue_signal_to(&pid, signal, Sender::Given(given))?;
    Ok(0)
}

pub fn rt_tgsigqueueinfo(
    t: &mut Current<'_>,
    tgid: i32,
    tid: i32,
    signal: i32,
    info: UserPtr<SigInfo>,
) -> SysResult {
    let mut given = info.read(&t.mm())?;
    given.signo = signal;
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    check_given(&given, tid == t.own_tid())?;
    check_number(signal)?;
    t.kill_thread(Some(tgid), tid, signal, Sender::Given(given))?;
    Ok(0)
}

pub fn kill(t: &mut Current<'_>, pid: i32, signal: i32) -> SysResult {
    check_number(signal)?;
    t.task.kill(pid, signal)?;
    Ok(0)
}

pub fn tkill(t: &mut Current<'_>, tid: i32, signal: i32) -> SysResult {
    if tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    check_number(signal)?;
    t.kill_thread(None, tid, signal, Sender::Kill(code::SI_TKILL))?;
    Ok(0)
}

pub fn tgkill(t: &mut Current<'_>, tgid: i32, tid: i32, signal: i32) -> SysResult {
    if tid <= 0 || tgid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    check_number(signal)?;
    t.kill_thread(Some(tgid), tid, signal, Sender::Kill(code::SI_TKILL))?;
    Ok(0)
}

pub fn sigaltstack(t: &mut Current<'_>, new: UserPtr<StackT>, old: UserPtr<StackT>) -> SysResult {
    let mm = t.mm();
    let new = new.optional().map(|p| p.read(&mm)).transpose()?;
    let before = t.change_altstack(new, t.regs.rsp, ss::MIN_SIZE)?;
    if let Some(p) = old.optional() {
        p.write(&mm, &before)?;
    }
    Ok(0)
}

pub fn rt_sigreturn(t: &mut Current<'_>) -> SysResult {
    let mm = t.mm();
    match restore_frame(t.task, &mm, t.regs) {
        Ok(fpu) => {
            if let Err(error) = t.context.set_fpu(&fpu) {
                tracing::debug!("floating-point state of a signal frame: {error}");
                t.force_signal(&SigInfo::kernel(Signal::SIGSEGV));
            }
        }
        Err(_) => t.force_signal(&SigInfo::kernel(Signal::SIGSEGV)),
    }
    Err(SysError::NoReturn)
}
