//! exit(2), exit_group(2), and what a thread registers for its end: set_tid_address(2), set_robust_list(2).

use crate::Current;
use abi::Errno;
use kernel::task::ExitStatus;
use kernel::uaccess::UserPtr;
use kernel::{SysError, SysResult};
use std::sync::atomic::Ordering;

/// `sizeof(struct robust_list_head)`
const ROBUST_HEAD: usize = 24;

pub fn exit(t: &mut Current<'_>, code: i32) -> SysResult {
    t.end_thread(ExitStatus::exited(code));
    Err(SysError::NoReturn)
}

pub fn exit_group(t: &mut Current<'_>, code: i32) -> SysResult {
    t.task.exit_group(ExitStatus::exited(code));
    Err(SysError::NoReturn)
}

pub fn set_tid_address(t: &mut Current<'_>, addr: u64) -> SysResult {
    t.clear_child_tid.store(addr, Ordering::Relaxed);
    Ok(u64::from(t.own_tid().unsigned_abs()))
}

pub fn set_robust_list(t: &mut Current<'_>, head: u64, len: usize) -> SysResult {
    if len != ROBUST_HEAD {
        return Err(Errno::EINVAL.into());
    }
    t.robust_list.store(head, Ordering::Relaxed);
    Ok(0)
}

pub fn get_robust_list(t: &mut Current<'_>, pid: i32, head: UserPtr<u64>, len: UserPtr<u64>) -> SysResult {
    let task = match pid {
        0 => std::sync::Arc::clone(t.task),
        n => t.pid_ns().task(n).ok_or(Errno::ESRCH)?,
    };
    if !t.may_trace(&task) {
        return Err(Errno::EPERM.into());
    }
    let mm = t.mm();
    len.write(&mm, &(ROBUST_HEAD as u64))?;
    head.write(&mm, &task.robust_list.load(Ordering::Relaxed))?;
    Ok(0)
}
