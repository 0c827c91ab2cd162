//! Clocks and sleeping: clock_gettime(2) and kin, nanosleep(2), and restart_syscall(2), which goes on with sleeps.

use crate::Current;
use abi::time::{Timespec, Timeval, clock};
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::restart::Restart;
use kernel::task::RestartBlock;
use kernel::time::Deadline;
use kernel::timer::Clock;
use kernel::uaccess::UserPtr;
use kernel::wait::Blocked;
use kernel::{SysError, SysResult};

const TIMER_ABSTIME: u32 = 1;

/// The offset of the task's time namespace for a clock.
pub(super) fn offset(t: &Current<'_>, c: &Clock) -> i64 {
    let ns = t.namespaces().time.clone();
    match c {
        Clock::Monotonic | Clock::MonotonicRaw => ns.monotonic(),
        Clock::Boottime => ns.boottime(),
        _ => 0,
    }
}

pub fn clock_gettime(t: &mut Current<'_>, id: i32, out: UserPtr<Timespec>) -> SysResult {
    let c = Clock::find(t.task, id)?;
    let now = match id {
        clock::REALTIME_COARSE => t.kernel().clocks.realtime_coarse(),
        clock::MONOTONIC_COARSE => t.kernel().clocks.monotonic_coarse(),
        _ => c.now(t.kernel())?,
    };
    let now = now + offset(t, &c);
    out.write(&t.mm(), &Timespec::from_nanos(now))?;
    Ok(0)
}

pub fn clock_getres(t: &mut Current<'_>, id: i32, out: UserPtr<Timespec>) -> SysResult {
    Clock::find(t.task, id)?;
    let coarse = matches!(id, clock::REALTIME_COARSE | clock::MONOTONIC_COARSE);
    let ns = if coarse { t.kernel().clocks.coarse_resolution() } else { 1 };
    if let Some(p) = out.optional() {
        p.write(&t.mm(), &Timespec::from_nanos(ns))?;
    }
    Ok(0)
}

pub fn clock_settime(t: &mut Current<'_>, id: i32, new: UserPtr<Timespec>) -> SysResult {
    match id {
        clock::REALTIME => {}
        ..0 | clock::MONOTONIC..=clock::BOOTTIME_ALARM | clock::TAI => return Err(Errno::EINVAL.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    let ts = new.read(&t.mm())?;
    ts.to_nanos_checked()?;
    // Nobody in a sandbox may set the clock, whatever its capabilities say inside.
    Err(Errno::EPERM.into())
}

pub fn gettimeofday(t: &mut Current<'_>, tv: UserPtr<Timeval>, tz: UserPtr<[i32; 2]>) -> SysResult {
    let mm = t.mm();
    if let Some(p) = tv.optional() {
        p.write(&mm, &Timeval::from_nanos(t.kernel().clocks.realtime()))?;
    }
    if let Some(p) = tz.optional() {
        p.write(&mm, &[0, 0])?;
    }
    Ok(0)
}

pub fn settimeofday(t: &mut Current<'_>, tv: UserPtr<Timeval>, _tz: UserPtr<[i32; 2]>) -> SysResult {
    if let Some(p) = tv.optional() {
        let v = p.read(&t.mm())?;
        if v.tv_usec < 0 || v.tv_usec >= 1_000_000 {
            return Err(Errno::EINVAL.into());
        }
    }
    Err(Errno::EPERM.into())
}

pub fn time(t: &mut Current<'_>, out: UserPtr<i64>) -> SysResult {
    let now = t.kernel().clocks.realtime() / 1_000_000_000;
    if let Some(p) = out.optional() {
        p.write(&t.mm(), &now)?;
    }
    Ok(now.unsigned_abs())
}

/// adjtimex(2): reading is allowed, adjusting is not.
pub fn adjtimex(t: &mut Current<'_>, buf: UserPtr<u8>) -> SysResult {
    clock_adjtime(t, clock::REALTIME, buf)
}

pub fn clock_adjtime(t: &mut Current<'_>, id: i32, buf: UserPtr<u8>) -> SysResult {
    const SIZE: usize = 208;
    const TIME_ERROR: u64 = 5;
    const STA_UNSYNC: u32 = 0x40;
    if id != clock::REALTIME {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let mm = t.mm();
    let given = buf.read_array(&mm, SIZE)?;
    let modes = u32::from_ne_bytes([given[0], given[1], given[2], given[3]]);
    // ADJ_OFFSET_SS_READ only reads.
    if modes != 0 && modes != 0xa001 {
        let _ = t.creds().has_cap(CapSet::SYS_TIME);
        return Err(Errno::EPERM.into());
    }
    let mut out = vec![0u8; SIZE];
    let mut put = |at: usize, v: u64| out[at..at + 8].copy_from_slice(&v.to_ne_bytes());
    put(0, u64::from(modes));
    put(24, 16_000_000);
    put(32, 16_000_000);
    put(40, u64::from(STA_UNSYNC));
    put(56, 1);
    put(64, 32_768_000);
    let now = Timeval::from_nanos(t.kernel().clocks.realtime());
    put(72, now.tv_sec.unsigned_abs());
    put(80, now.tv_usec.unsigned_abs());
    put(88, 10_000);
    mm.copy_out(buf.addr(), &out)?;
    Ok(TIME_ERROR)
}

pub fn nanosleep(t: &mut Current<'_>, time: UserPtr<Timespec>, rest: UserPtr<Timespec>) -> SysResult {
    let ns = time.read(&t.mm())?.to_nanos_checked()?;
    let until = t.kernel().clocks.monotonic().saturating_add(ns);
    sleep(t, clock::MONOTONIC, until, Some(rest))
}

pub fn clock_nanosleep(
    t: &mut Current<'_>,
    id: i32,
    flags: u32,
    time: UserPtr<Timespec>,
    rest: UserPtr<Timespec>,
) -> SysResult {
    let c = Clock::find(t.task, id)?;
    if matches!(
        id,
        clock::MONOTONIC_RAW | clock::REALTIME_COARSE | clock::MONOTONIC_COARSE | clock::THREAD_CPUTIME_ID
    ) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if let Clock::Thread(..) = c {
        return Err(Errno::EINVAL.into());
    }
    let ns = time.read(&t.mm())?.to_nanos_checked()?;
    let absolute = flags & TIMER_ABSTIME != 0;
    if absolute {
        return sleep(t, id, ns.saturating_sub(offset(t, &c)), None);
    }
    // A relative sleep does not care when the real-time clock is set: it is one on the monotonic clock.
    let id = if c.is_cpu() { id } else { clock::MONOTONIC };
    let now = Clock::find(t.task, id)?.now(t.kernel())?;
    sleep(t, id, now.saturating_add(ns), Some(rest))
}

/// Sleeps until a clock shows `until`. `rest`: relative, so that it goes on after a restart and tells what is left.
fn sleep(t: &Current<'_>, id: i32, until: i64, rest: Option<UserPtr<Timespec>>) -> SysResult {
    let c = Clock::find(t.task, id)?;
    let kernel = t.kernel();
    let passed = || c.now(kernel).is_ok_and(|now| now >= until);
    let result = if c.is_cpu() {
        // CPU time passes while others run: look again and again.
        loop {
            let left = until.saturating_sub(c.now(kernel)?).max(0);
            let step = Deadline::after(kernel, left.clamp(1_000_000, 50_000_000));
            match t.block_on(&[], Some(step), || passed().then_some(())) {
                Err(Blocked::TimedOut) => {}
                r => break r,
            }
        }
    } else {
        let deadline = Deadline(c.to_monotonic(kernel, until)?);
        t.block_on(&[], Some(deadline), || None::<()>)
    };
    match result {
        Ok(()) | Err(Blocked::TimedOut) => Ok(0),
        Err(Blocked::Interrupted) => {
            let Some(rest) = rest else {
                return Err(SysError::Restart(Restart::NoHandler));
            };
            let left = until.saturating_sub(c.now(kernel)?);
            if left <= 0 {
                return Ok(0);
            }
            if let Some(p) = rest.optional() {
                p.write(&t.mm(), &Timespec::from_nanos(left))?;
            }
            t.set_restart(RestartBlock::Nanosleep { clock: id, until, remaining: rest.addr() });
            Err(SysError::Restart(Restart::Block))
        }
    }
}

pub fn restart_syscall(t: &mut Current<'_>) -> SysResult {
    match t.take_restart() {
        RestartBlock::None => Err(Errno::EINTR.into()),
        RestartBlock::Nanosleep { clock, until, remaining } => {
            sleep(t, clock, until, Some(UserPtr::new(remaining)))
        }
        RestartBlock::Futex { addr, value, flags, bitset, deadline } => {
            super::futex::restart_wait(t, addr, value, flags, bitset, deadline)
        }
        RestartBlock::Poll { fds, count, deadline } => super::poll::restart_poll(t, fds, count, deadline),
    }
}

/// A time that a guest gave, in nanoseconds.
pub fn nanos_of(v: Timeval) -> Result<i64> {
    if v.tv_sec < 0 || !(0..1_000_000).contains(&v.tv_usec) {
        return Err(Errno::EINVAL);
    }
    Ok(v.tv_sec.saturating_mul(1_000_000_000).saturating_add(v.tv_usec * 1000))
}
