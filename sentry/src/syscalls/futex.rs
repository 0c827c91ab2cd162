//! futex(2), futex_waitv(2), and the new calls futex_wait, futex_wake and futex_requeue.

use crate::Current;
use abi::time::{Timespec, clock};
use abi::{Errno, Result};
use kernel::futex::{MATCH_ANY, WaitError, Word};
use kernel::restart::Restart;
use kernel::task::RestartBlock;
use kernel::time::Deadline;
use kernel::uaccess::UserPtr;
use kernel::{SysError, SysResult};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const WAIT: u32 = 0;
const WAKE: u32 = 1;
const REQUEUE: u32 = 3;
const CMP_REQUEUE: u32 = 4;
const WAKE_OP: u32 = 5;
const LOCK_PI: u32 = 6;
const UNLOCK_PI: u32 = 7;
const TRYLOCK_PI: u32 = 8;
const WAIT_BITSET: u32 = 9;
const WAKE_BITSET: u32 = 10;
const WAIT_REQUEUE_PI: u32 = 11;
const CMP_REQUEUE_PI: u32 = 12;
const LOCK_PI2: u32 = 13;

const PRIVATE_FLAG: u32 = 128;
const CLOCK_REALTIME: u32 = 256;

/// `FUTEX2_SIZE_U32` and its mask, `FUTEX2_PRIVATE`.
const SIZE_U32: u32 = 2;
const SIZE_MASK: u32 = 3;
const FUTEX2_PRIVATE: u32 = 128;
/// Most words of futex_waitv.
const WAITV_MAX: u32 = 128;

/// `struct futex_waitv`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FutexWaitv {
    val: u64,
    uaddr: u64,
    flags: u32,
    reserved: u32,
}

/// A time on a clock as a deadline of the monotonic clock.
fn absolute(t: &Current<'_>, time: Timespec, realtime: bool) -> Result<Deadline> {
    let ns = time.to_nanos_checked()?;
    let clocks = &t.kernel().clocks;
    Ok(Deadline(if realtime {
        ns.saturating_sub(clocks.realtime()).saturating_add(clocks.monotonic())
    } else {
        ns
    }))
}

fn clock_is_real(clockid: i32) -> Result<bool> {
    match clockid {
        clock::REALTIME => Ok(true),
        clock::MONOTONIC => Ok(false),
        _ => Err(Errno::EINVAL),
    }
}

fn count(n: u32) -> Result<usize> {
    // Negative counts are refused where two counts are given.
    let n = n.cast_signed();
    usize::try_from(n).map_err(|_| Errno::EINVAL)
}

/// How many to wake: as Linux, at least one.
fn wake_count(n: u32) -> usize {
    usize::try_from(n.cast_signed()).unwrap_or(0).max(1)
}

/// A wait as `restart_syscall` may go on with it.
pub fn wait(t: &Current<'_>, word: Word, value: u32, bitset: u32, deadline: Option<Deadline>) -> SysResult {
    match t.kernel().futexes.wait(t, word, value, bitset, deadline) {
        Ok(()) => Ok(0),
        Err(WaitError::Errno(e)) => Err(e.into()),
        Err(WaitError::Interrupted) => match deadline {
            None => Err(SysError::Restart(Restart::Sys)),
            Some(d) => {
                let flags = u32::from(word.shared);
                t.set_restart(RestartBlock::Futex { addr: word.addr, value, flags, bitset, deadline: d.0 });
                Err(SysError::Restart(Restart::Block))
            }
        },
    }
}

/// Goes on with a wait that was interrupted (restart_syscall(2)).
pub fn restart_wait(
    t: &Current<'_>,
    addr: u64,
    value: u32,
    flags: u32,
    bitset: u32,
    deadline: i64,
) -> SysResult {
    wait(t, Word { addr, shared: flags != 0 }, value, bitset, Some(Deadline(deadline)))
}

fn lock_pi(t: &Current<'_>, word: Word, try_only: bool, deadline: Option<Deadline>) -> SysResult {
    let ns = t.pid_ns();
    let exists = |tid: u32| i32::try_from(tid).is_ok_and(|tid| ns.task(tid).is_some());
    let tid = t.own_tid().unsigned_abs();
    match t.kernel().futexes.lock_pi(t, word, tid, try_only, deadline, &exists) {
        Ok(()) => Ok(0),
        Err(WaitError::Errno(e)) => Err(e.into()),
        Err(WaitError::Interrupted) => Err(SysError::Restart(Restart::NoIntr)),
    }
}

pub fn futex(
    t: &mut Current<'_>,
    addr: u64,
    op: u32,
    val: u32,
    timeout: UserPtr<Timespec>,
    addr2: u64,
    val3: u32,
) -> SysResult {
    let cmd = op & !(PRIVATE_FLAG | CLOCK_REALTIME);
    let realtime = op & CLOCK_REALTIME != 0;
    if realtime && !matches!(cmd, WAIT_BITSET | WAIT_REQUEUE_PI | LOCK_PI2) {
        return Err(Errno::ENOSYS.into());
    }
    let shared = op & PRIVATE_FLAG == 0;
    let word = Word { addr, shared };
    let word2 = Word { addr: addr2, shared };
    let mut deadline = None;
    if matches!(cmd, WAIT | LOCK_PI | LOCK_PI2 | WAIT_BITSET | WAIT_REQUEUE_PI)
        && let Some(p) = timeout.optional()
    {
        let time = p.read(&t.mm())?;
        deadline = Some(match cmd {
            WAIT => Deadline::after(t.kernel(), time.to_nanos_checked()?),
            LOCK_PI => absolute(t, time, true)?,
            _ => absolute(t, time, realtime)?,
        });
    }
    // The register of the timeout is a count for some operations.
    #[expect(clippy::cast_possible_truncation, reason = "an int argument in a 64-bit register")]
    let val2 = timeout.addr() as u32;
    let mm = t.mm();
    let futexes = &t.kernel().futexes;
    let n = match cmd {
        WAIT => return wait(t, word, val, MATCH_ANY, deadline),
        WAIT_BITSET => return wait(t, word, val, val3, deadline),
        WAKE => futexes.wake(&mm, word, wake_count(val), MATCH_ANY)?,
        WAKE_BITSET => futexes.wake(&mm, word, wake_count(val), val3)?,
        REQUEUE => futexes.requeue(&mm, word, word2, count(val)?, count(val2)?, None)?,
        CMP_REQUEUE => futexes.requeue(&mm, word, word2, count(val)?, count(val2)?, Some(val3))?,
        WAKE_OP => futexes.wake_op(&mm, word, word2, wake_count(val), wake_count(val2), val3)?,
        LOCK_PI | LOCK_PI2 => return lock_pi(t, word, false, deadline),
        TRYLOCK_PI => return lock_pi(t, word, true, None),
        UNLOCK_PI => {
            futexes.unlock_pi(&mm, word, t.own_tid().unsigned_abs())?;
            0
        }
        WAIT_REQUEUE_PI => {
            let tid = t.own_tid().unsigned_abs();
            return match futexes.wait_requeue_pi(t, (word, val, MATCH_ANY), word2, tid, deadline) {
                Ok(()) => Ok(0),
                Err(WaitError::Errno(e)) => Err(e.into()),
                Err(WaitError::Interrupted) => Err(SysError::Restart(Restart::NoIntr)),
            };
        }
        CMP_REQUEUE_PI => {
            if val != 1 {
                return Err(Errno::EINVAL.into());
            }
            // One is woken with the lock, or moved as the others are.
            futexes.requeue_pi(&mm, word, word2, count(val2)?.saturating_add(1), val3)?
        }
        _ => return Err(Errno::ENOSYS.into()),
    };
    Ok(n as u64)
}

/// Checks the flags of the futex2 calls; whether the word is shared.
fn futex2_shared(flags: u32) -> Result<bool> {
    if flags & !(SIZE_MASK | FUTEX2_PRIVATE) != 0 || flags & SIZE_MASK != SIZE_U32 {
        return Err(Errno::EINVAL);
    }
    Ok(flags & FUTEX2_PRIVATE == 0)
}

fn futex2_deadline(t: &Current<'_>, timeout: UserPtr<Timespec>, clockid: i32) -> Result<Option<Deadline>> {
    let Some(p) = timeout.optional() else { return Ok(None) };
    let realtime = clock_is_real(clockid)?;
    Ok(Some(absolute(t, p.read(&t.mm())?, realtime)?))
}

pub fn futex_waitv(
    t: &mut Current<'_>,
    waiters: UserPtr<FutexWaitv>,
    n: u32,
    flags: u32,
    timeout: UserPtr<Timespec>,
    clockid: i32,
) -> SysResult {
    if flags != 0 || n == 0 || n > WAITV_MAX || waiters.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let deadline = futex2_deadline(t, timeout, clockid)?;
    let raw = waiters.read_array(&t.mm(), n as usize)?;
    let mut words = Vec::with_capacity(raw.len());
    for w in raw {
        let shared = futex2_shared(w.flags)?;
        let value = u32::try_from(w.val).map_err(|_| Errno::EINVAL)?;
        if w.reserved != 0 {
            return Err(Errno::EINVAL.into());
        }
        words.push((Word { addr: w.uaddr, shared }, value));
    }
    match t.kernel().futexes.wait_many(t, &words, deadline) {
        Ok(i) => Ok(i as u64),
        Err(WaitError::Errno(e)) => Err(e.into()),
        Err(WaitError::Interrupted) => Err(SysError::Restart(Restart::Sys)),
    }
}

pub fn futex_wake(t: &mut Current<'_>, addr: u64, mask: u64, n: i32, flags: u32) -> SysResult {
    let shared = futex2_shared(flags)?;
    let mask = u32::try_from(mask).map_err(|_| Errno::EINVAL)?;
    let n = usize::try_from(n).unwrap_or(0);
    if n == 0 {
        // As Linux for the new calls: zero wakes nobody.
        t.mm().word_key(addr, shared)?;
        return if mask == 0 { Err(Errno::EINVAL.into()) } else { Ok(0) };
    }
    Ok(t.kernel().futexes.wake(&t.mm(), Word { addr, shared }, n, mask)? as u64)
}

pub fn futex_wait(
    t: &mut Current<'_>,
    addr: u64,
    value: u64,
    mask: u64,
    flags: u32,
    timeout: UserPtr<Timespec>,
    clockid: i32,
) -> SysResult {
    let shared = futex2_shared(flags)?;
    let value = u32::try_from(value).map_err(|_| Errno::EINVAL)?;
    let mask = u32::try_from(mask).map_err(|_| Errno::EINVAL)?;
    let deadline = futex2_deadline(t, timeout, clockid)?;
    match t.kernel().futexes.wait(t, Word { addr, shared }, value, mask, deadline) {
        Ok(()) => Ok(0),
        Err(WaitError::Errno(e)) => Err(e.into()),
        Err(WaitError::Interrupted) => Err(SysError::Restart(Restart::Sys)),
    }
}

pub fn futex_requeue(
    t: &mut Current<'_>,
    waiters: UserPtr<FutexWaitv>,
    flags: u32,
    wake: i32,
    requeue: i32,
) -> SysResult {
    if flags != 0 || waiters.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let mm = t.mm();
    let raw = waiters.read_array(&mm, 2)?;
    let word = |w: &FutexWaitv| -> Result<Word> {
        if w.reserved != 0 || u32::try_from(w.val).is_err() {
            return Err(Errno::EINVAL);
        }
        Ok(Word { addr: w.uaddr, shared: futex2_shared(w.flags)? })
    };
    let (from, to) = (word(&raw[0])?, word(&raw[1])?);
    let wake = usize::try_from(wake).map_err(|_| Errno::EINVAL)?;
    let requeue = usize::try_from(requeue).map_err(|_| Errno::EINVAL)?;
    let value = u32::try_from(raw[0].val).map_err(|_| Errno::EINVAL)?;
    Ok(t.kernel().futexes.requeue(&mm, from, to, wake, requeue, Some(value))? as u64)
}
