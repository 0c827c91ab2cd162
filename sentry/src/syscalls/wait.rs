//! wait4(2), waitid(2).

use super::pidfd;
use crate::Current;
use abi::resource::{Rusage, wait};
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use abi::{Errno, Result};
use kernel::task::{ProcessGroup, WaitFor, WaitOptions};
use kernel::uaccess::UserPtr;
use kernel::vfs::Fd;
use kernel::{SysError, SysResult};
use std::sync::Arc;

fn group(t: &Current<'_>, pgid: i32) -> Option<Arc<ProcessGroup>> {
    t.pid_ns().find(pgid).and_then(|p| p.process_group())
}

fn by_pid(t: &Current<'_>, pid: i32) -> WaitFor {
    t.pid_ns().find(pid).map_or(WaitFor::Nobody, WaitFor::Pid)
}

pub fn wait4(
    t: &mut Current<'_>,
    pid: i32,
    status: UserPtr<i32>,
    options: u32,
    usage: UserPtr<Rusage>,
) -> SysResult {
    let known =
        wait::WNOHANG | wait::WUNTRACED | wait::WCONTINUED | wait::WNOTHREAD | wait::WCLONE | wait::WALL;
    if options & !known != 0 {
        return Err(Errno::EINVAL.into());
    }
    let who = match pid {
        i32::MIN => return Err(Errno::ESRCH.into()),
        -1 => WaitFor::All,
        0 => WaitFor::Group(Some(t.group().pgrp())),
        ..-1 => WaitFor::Group(group(t, -pid)),
        _ => by_pid(t, pid),
    };
    let Some(news) = t.task.wait_for(&who, WaitOptions(options | wait::WEXITED))? else {
        return Ok(0);
    };
    let mm = t.mm();
    if let Some(p) = status.optional() {
        p.write(&mm, &news.wstatus)?;
    }
    if let Some(p) = usage.optional() {
        p.write(&mm, &news.usage.rusage())?;
    }
    Ok(u64::from(news.pid.unsigned_abs()))
}

pub fn waitid(
    t: &mut Current<'_>,
    which: i32,
    id: i32,
    info: UserPtr<SigInfo>,
    options: u32,
    usage: UserPtr<Rusage>,
) -> SysResult {
    let known = wait::WNOHANG
        | wait::WNOWAIT
        | wait::WEXITED
        | wait::WSTOPPED
        | wait::WCONTINUED
        | wait::WNOTHREAD
        | wait::WCLONE
        | wait::WALL;
    if options & !known != 0 || options & (wait::WEXITED | wait::WSTOPPED | wait::WCONTINUED) == 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut quiet = false;
    let mut options = options;
    let who = match which {
        wait::P_ALL => WaitFor::All,
        wait::P_PID if id > 0 => by_pid(t, id),
        wait::P_PGID if id == 0 => WaitFor::Group(Some(t.group().pgrp())),
        wait::P_PGID if id > 0 => WaitFor::Group(group(t, id)),
        wait::P_PIDFD if id >= 0 => {
            let file = t.files().get(Fd(id))?;
            let pid = pidfd::pid_of(&file).ok_or(Errno::EBADF)?;
            if file.nonblocking() && options & wait::WNOHANG == 0 {
                options |= wait::WNOHANG;
                quiet = true;
            }
            WaitFor::Pid(pid)
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let news = t.task.wait_for(&who, WaitOptions(options))?;
    let mm = t.mm();
    let Some(news) = news else {
        if quiet {
            return Err(Errno::EAGAIN.into());
        }
        if let Some(p) = info.optional() {
            write_info(&mm, p, [0; 3], [0; 3])?;
        }
        return Ok(0);
    };
    if let Some(p) = usage.optional() {
        p.write(&mm, &news.usage.rusage())?;
    }
    if let Some(p) = info.optional() {
        let sigchld = i32::from(Signal::SIGCHLD.number());
        write_info(&mm, p, [sigchld, 0, news.code], [news.pid, news.uid.cast_signed(), news.status])
            .map_err(SysError::from)?;
    }
    Ok(0)
}

/// Only the fields that waitid fills; the rest of the guest's structure stays.
fn write_info(mm: &kernel::mm::Mm, at: UserPtr<SigInfo>, head: [i32; 3], child: [i32; 3]) -> Result<()> {
    at.cast::<[i32; 3]>().write(mm, &head)?;
    UserPtr::<[i32; 3]>::new(at.addr() + 16).write(mm, &child)
}
