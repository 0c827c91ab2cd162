//! timerfd_create(2), timerfd_settime(2), timerfd_gettime(2).

use super::at;
use crate::Current;
use abi::fcntl::OpenFlags;
use abi::time::{Itimerspec, clock};
use abi::{Errno, Result};
use fs::timerfd::{ABSTIME, CANCEL_ON_SET, TimerFd};
use kernel::SysResult;
use kernel::creds::CapSet;
use kernel::timer::Clock;
use kernel::uaccess::UserPtr;
use kernel::vfs::{Fd, File};
use std::sync::Arc;

pub fn timerfd_create(t: &mut Current<'_>, clock_id: i32, flags: u32) -> SysResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    match clock_id {
        clock::REALTIME | clock::MONOTONIC | clock::BOOTTIME => {}
        clock::REALTIME_ALARM | clock::BOOTTIME_ALARM => {
            if !t.creds().has_cap(CapSet::WAKE_ALARM) {
                return Err(Errno::EPERM.into());
            }
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    let clock = Clock::find(t.task, clock_id)?;
    let ops = TimerFd::new(t.kernel(), clock, clock_id);
    let mode = OpenFlags::RDWR | flags - OpenFlags::CLOEXEC;
    let file = fs::anon::other_file(t.kernel(), "[timerfd]", ops, mode, t.creds());
    Ok(t.install_fd(file, flags.contains(OpenFlags::CLOEXEC))?)
}

fn timer(t: &Current<'_>, fd: Fd) -> Result<Arc<File>> {
    let file = at::file(t, fd)?;
    if file.ops_as::<TimerFd>().is_none() {
        return Err(Errno::EINVAL);
    }
    Ok(file)
}

pub fn timerfd_settime(
    t: &mut Current<'_>,
    fd: Fd,
    flags: u32,
    new: UserPtr<Itimerspec>,
    old: UserPtr<Itimerspec>,
) -> SysResult {
    let new = new.read(&t.mm())?;
    if flags & !(ABSTIME | CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL.into());
    }
    new.it_value.to_nanos_checked()?;
    new.it_interval.to_nanos_checked()?;
    let file = timer(t, fd)?;
    let timer = file.ops_as::<TimerFd>().ok_or(Errno::EINVAL)?;
    let shift = super::time::offset(t, timer.clock());
    let was = timer.set(t.kernel(), flags, &new, shift)?;
    if let Some(p) = old.optional() {
        p.write(&t.mm(), &was)?;
    }
    Ok(0)
}

pub fn timerfd_gettime(t: &mut Current<'_>, fd: Fd, now: UserPtr<Itimerspec>) -> SysResult {
    let file = timer(t, fd)?;
    let is = file.ops_as::<TimerFd>().ok_or(Errno::EINVAL)?.get();
    now.write(&t.mm(), &is)?;
    Ok(0)
}
