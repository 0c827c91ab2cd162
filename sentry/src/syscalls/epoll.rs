//! epoll_create(2), epoll_ctl(2), epoll_wait(2).

use crate::Current;
use abi::fcntl::OpenFlags;
use abi::poll::EpollEvent;
use abi::time::Timespec;
use abi::{Errno, Result};
use fs::epoll::{EPOLLWAKEUP, Epoll};
use kernel::creds::CapSet;
use kernel::time::Deadline;
use kernel::uaccess::UserPtr;
use kernel::vfs::{Fd, File};
use kernel::wait::Blocked;
use kernel::{SysError, SysResult};
use std::sync::Arc;

const EPOLL_CTL_ADD: i32 = 1;
const EPOLL_CTL_DEL: i32 = 2;
const EPOLL_CTL_MOD: i32 = 3;
/// `EP_MAX_EVENTS`
const MAX_EVENTS: i32 = i32::MAX / 12;
/// No more events than this are taken in one step; the guest may call again.
const BATCH: usize = 1 << 16;

pub fn epoll_create(t: &mut Current<'_>, size: i32) -> SysResult {
    if size <= 0 {
        return Err(Errno::EINVAL.into());
    }
    epoll_create1(t, 0)
}

pub fn epoll_create1(t: &mut Current<'_>, flags: u32) -> SysResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if !OpenFlags::CLOEXEC.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let file = fs::anon::other_file(t.kernel(), "[eventpoll]", Epoll::new(), OpenFlags::RDWR, t.creds());
    Ok(t.install_fd(file, flags.contains(OpenFlags::CLOEXEC))?)
}

pub fn epoll_ctl(t: &mut Current<'_>, epfd: Fd, op: i32, fd: Fd, event: UserPtr<EpollEvent>) -> SysResult {
    let mut ev = EpollEvent::default();
    if op != EPOLL_CTL_DEL {
        ev = event.read(&t.mm())?;
    }
    let ep_file = super::at::file(t, epfd)?;
    let target = super::at::file(t, fd)?;
    if target.ops().wait_queue(&target).is_none() {
        return Err(Errno::EPERM.into());
    }
    let ep = ep_file.ops_as::<Epoll>().ok_or(Errno::EINVAL)?;
    if Arc::ptr_eq(&ep_file, &target) {
        return Err(Errno::EINVAL.into());
    }
    let mut events = ev.events;
    if events & EPOLLWAKEUP != 0 && !t.creds().has_cap(CapSet::BLOCK_SUSPEND) {
        events &= !EPOLLWAKEUP;
    }
    let ev = fs::epoll::EpollEvent { events, data: ev.data };
    t.as_caller(|cx| match op {
        EPOLL_CTL_ADD => ep.add(cx, t.kernel(), &target, fd, ev),
        EPOLL_CTL_DEL => ep.remove(&target, fd),
        EPOLL_CTL_MOD => ep.modify(cx, &target, fd, ev),
        _ => Err(Errno::EINVAL),
    })?;
    Ok(0)
}

/// `None`: for ever.
fn wait(t: &Current<'_>, epfd: Fd, events: UserPtr<EpollEvent>, max: i32, timeout: Option<i64>) -> SysResult {
    let file = check(t, epfd, events, max)?;
    let ep = file.ops_as::<Epoll>().ok_or(Errno::EINVAL)?;
    let max = usize::try_from(max).unwrap_or(0).min(BATCH);
    let got = if timeout == Some(0) {
        ep.poll_once(t, max)
    } else {
        let deadline = timeout.map(|ns| Deadline::after(t.kernel(), ns));
        match ep.wait(t, max, deadline) {
            Ok(got) => got,
            Err(Blocked::TimedOut) => Vec::new(),
            Err(Blocked::Interrupted) => return Err(Errno::EINTR.into()),
        }
    };
    let out: Vec<EpollEvent> = got.iter().map(|e| EpollEvent { events: e.events, data: e.data }).collect();
    events.write_array(&t.mm(), &out)?;
    Ok(out.len() as u64)
}

fn check(t: &Current<'_>, epfd: Fd, events: UserPtr<EpollEvent>, max: i32) -> Result<Arc<File>> {
    if max <= 0 || max > MAX_EVENTS {
        return Err(Errno::EINVAL);
    }
    let bytes = u64::from(max.unsigned_abs()) * size_of::<EpollEvent>() as u64;
    if events.addr().checked_add(bytes).is_none_or(|end| end > kernel::mm::TASK_SIZE) {
        return Err(Errno::EFAULT);
    }
    let file = super::at::file(t, epfd)?;
    if file.ops_as::<Epoll>().is_none() {
        return Err(Errno::EINVAL);
    }
    Ok(file)
}

fn millis(timeout: i32) -> Option<i64> {
    u32::try_from(timeout).ok().map(|ms| i64::from(ms) * 1_000_000)
}

pub fn epoll_wait(
    t: &mut Current<'_>,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    max: i32,
    timeout: i32,
) -> SysResult {
    wait(t, epfd, events, max, millis(timeout))
}

pub fn epoll_pwait(
    t: &mut Current<'_>,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    max: i32,
    timeout: i32,
    mask: UserPtr<u64>,
    size: usize,
) -> SysResult {
    super::poll::with_mask(t, mask, size, |t| wait(t, epfd, events, max, millis(timeout)))
}

pub fn epoll_pwait2(
    t: &mut Current<'_>,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    max: i32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<u64>,
    size: usize,
) -> SysResult {
    let ns = match timeout.optional() {
        None => None,
        Some(p) => Some(p.read(&t.mm())?.to_nanos_checked().map_err(SysError::from)?),
    };
    super::poll::with_mask(t, mask, size, |t| wait(t, epfd, events, max, ns))
}
