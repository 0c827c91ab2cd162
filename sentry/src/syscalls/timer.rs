//! Timers: alarm(2), setitimer(2), timer_create(2) and kin.

use super::time::nanos_of;
use crate::Current;
use abi::siginfo::{SigEvent, sigev};
use abi::signal::Signal;
use abi::time::{Itimerspec, Itimerval, Timespec, Timeval, clock};
use abi::{Errno, Result};
use kernel::SysResult;
use kernel::creds::CapSet;
use kernel::timer::{Clock, Itimer, TimerNotify};
use kernel::uaccess::UserPtr;
use std::sync::Arc;

const TIMER_ABSTIME: u32 = 1;

pub fn alarm(t: &mut Current<'_>, seconds: u32) -> SysResult {
    let g = t.group();
    let new = Itimer { value: i64::from(seconds) * 1_000_000_000, interval: 0 };
    let old = g.timers.set_real(t.kernel(), g, new);
    // Rounded to the nearest second, but never to 0 while it runs.
    let s = old.value / 1_000_000_000;
    let part = old.value % 1_000_000_000;
    let rounded = if (s == 0 && part > 0) || part >= 500_000_000 { s + 1 } else { s };
    Ok(rounded.unsigned_abs())
}

fn show(i: Itimer) -> Itimerval {
    Itimerval { it_interval: Timeval::from_nanos(i.interval), it_value: Timeval::from_nanos(i.value) }
}

fn read(t: &Current<'_>, which: i32) -> Result<Itimer> {
    let g = t.group();
    match which {
        0 => Ok(g.timers.real(t.kernel())),
        1 => Ok(g.timers.cpu_itimer(g, false)),
        2 => Ok(g.timers.cpu_itimer(g, true)),
        _ => Err(Errno::EINVAL),
    }
}

pub fn getitimer(t: &mut Current<'_>, which: i32, out: UserPtr<Itimerval>) -> SysResult {
    let i = read(t, which)?;
    out.write(&t.mm(), &show(i))?;
    Ok(0)
}

pub fn setitimer(
    t: &mut Current<'_>,
    which: i32,
    new: UserPtr<Itimerval>,
    old: UserPtr<Itimerval>,
) -> SysResult {
    let mm = t.mm();
    let new = match new.optional() {
        Some(p) => {
            let v = p.read(&mm)?;
            Itimer { value: nanos_of(v.it_value)?, interval: nanos_of(v.it_interval)? }
        }
        // Linux takes a null pointer for zeroes.
        None => Itimer::default(),
    };
    let g = t.group();
    let before = match which {
        0 => g.timers.set_real(t.kernel(), g, new),
        1 => g.timers.set_cpu_itimer(g, false, new),
        2 => g.timers.set_cpu_itimer(g, true, new),
        _ => return Err(Errno::EINVAL.into()),
    };
    if let Some(p) = old.optional() {
        p.write(&mm, &show(before))?;
    }
    Ok(0)
}

pub fn timer_create(t: &mut Current<'_>, id: i32, event: UserPtr<SigEvent>, out: UserPtr<i32>) -> SysResult {
    let c = Clock::find(t.task, id)?;
    match id {
        clock::MONOTONIC_RAW | clock::REALTIME_COARSE | clock::MONOTONIC_COARSE => {
            return Err(Errno::EOPNOTSUPP.into());
        }
        clock::REALTIME_ALARM | clock::BOOTTIME_ALARM if !t.creds().has_cap(CapSet::WAKE_ALARM) => {
            return Err(Errno::EPERM.into());
        }
        _ => {}
    }
    let mm = t.mm();
    let given = event.optional().map(|p| p.read(&mm)).transpose()?;
    let mut thread = None;
    if let Some(e) = &given {
        let kind = e.notify & !sigev::THREAD_ID;
        match (kind, e.notify & sigev::THREAD_ID != 0) {
            (sigev::SIGNAL, true) => {
                let found = t.pid_ns().task(e.tid).filter(|x| Arc::ptr_eq(x.group(), t.group()));
                thread = Some(Arc::downgrade(&found.ok_or(Errno::EINVAL)?));
            }
            (sigev::SIGNAL | sigev::THREAD | sigev::NONE, false) => {}
            _ => return Err(Errno::EINVAL.into()),
        }
        if e.notify != sigev::NONE && Signal::new(e.signo).is_none() {
            return Err(Errno::EINVAL.into());
        }
    }
    let g = t.group();
    let new = g.timers.create(c, id, |id| match given {
        // By default SIGALRM with the timer's id.
        None => TimerNotify::Process { signal: Signal::SIGALRM, value: u64::from(id.unsigned_abs()) },
        Some(e) => match (Signal::new(e.signo), thread) {
            (Some(signal), Some(thread)) => TimerNotify::Thread { signal, value: e.value, thread },
            (Some(signal), None) if e.notify != sigev::NONE => {
                TimerNotify::Process { signal, value: e.value }
            }
            _ => TimerNotify::None,
        },
    })?;
    if let Err(e) = out.write(&mm, &new) {
        g.timers.delete(t.kernel(), g, new)?;
        return Err(e.into());
    }
    Ok(0)
}

fn spec(i: Itimer) -> Itimerspec {
    Itimerspec { it_interval: Timespec::from_nanos(i.interval), it_value: Timespec::from_nanos(i.value) }
}

pub fn timer_settime(
    t: &mut Current<'_>,
    id: i32,
    flags: u32,
    new: UserPtr<Itimerspec>,
    old: UserPtr<Itimerspec>,
) -> SysResult {
    if new.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let mm = t.mm();
    let n = new.read(&mm)?;
    let mut new =
        Itimer { value: n.it_value.to_nanos_checked()?, interval: n.it_interval.to_nanos_checked()? };
    let g = t.group();
    let absolute = flags & TIMER_ABSTIME != 0;
    if absolute && new.value != 0 {
        // As the caller's time namespace has the clock; zero would disarm it.
        let shift = super::time::offset(t, &g.timers.clock_of(id)?);
        new.value = new.value.saturating_sub(shift).max(1);
    }
    let before = g.timers.set(t.kernel(), g, id, new, absolute)?;
    if let Some(p) = old.optional() {
        p.write(&mm, &spec(before))?;
    }
    Ok(0)
}

pub fn timer_gettime(t: &mut Current<'_>, id: i32, out: UserPtr<Itimerspec>) -> SysResult {
    let i = t.group().timers.get(t.kernel(), id)?;
    out.write(&t.mm(), &spec(i))?;
    Ok(0)
}

pub fn timer_getoverrun(t: &mut Current<'_>, id: i32) -> SysResult {
    Ok(u64::from(t.group().timers.overrun(id)?.unsigned_abs()))
}

pub fn timer_delete(t: &mut Current<'_>, id: i32) -> SysResult {
    let g = t.group();
    g.timers.delete(t.kernel(), g, id)?;
    Ok(0)
}
