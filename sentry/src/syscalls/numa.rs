//! Where pages are, for a machine with one memory node: move_pages(2), migrate_pages(2), set_mempolicy_home_node(2).

use crate::Current;
use abi::{Errno, PAGE_SIZE, Result, page_up};
use kernel::creds::CapSet;
use kernel::uaccess::UserPtr;
use kernel::{SysResult, Task};
use std::sync::Arc;

/// The process whose pages are meant; 0 is the caller.
fn target(t: &Current<'_>, pid: i32) -> Result<Arc<Task>> {
    if pid == 0 {
        return Ok(Arc::clone(t.task));
    }
    let task = t.pid_ns().task(pid).ok_or(Errno::ESRCH)?;
    if t.may_trace(&task) { Ok(task) } else { Err(Errno::EPERM) }
}

/// The status of a page: the number of its node, or why it has none.
fn node_of(task: &Task, page: u64) -> i32 {
    let failed = |e: Errno| -i32::from(e.raw());
    let Some(mm) = task.try_mm() else { return failed(Errno::EFAULT) };
    let start = page & !(PAGE_SIZE - 1);
    match start.checked_add(PAGE_SIZE).map(|end| mm.mincore(start..end)) {
        Some(Ok(present)) if present.first().is_some_and(|p| p & 1 != 0) => 0,
        Some(Ok(_)) => failed(Errno::ENOENT),
        _ => failed(Errno::EFAULT),
    }
}

pub fn move_pages(
    t: &mut Current<'_>,
    pid: i32,
    count: u64,
    pages: UserPtr<u64>,
    nodes: UserPtr<i32>,
    status: UserPtr<i32>,
    flags: u32,
) -> SysResult {
    const MOVE: u32 = 2;
    const MOVE_ALL: u32 = 4;
    if flags & !(MOVE | MOVE_ALL) != 0 {
        return Err(Errno::EINVAL.into());
    }
    if flags & MOVE_ALL != 0 && !t.creds().has_cap(CapSet::SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    let task = target(t, pid)?;
    let mm = t.mm();
    for i in 0..usize::try_from(count).map_err(|_| Errno::E2BIG)? {
        if t.must_look_up() {
            return Err(kernel::restart::Restart::Sys.into());
        }
        let page = pages.add(i).read(&mm)?;
        if let Some(nodes) = nodes.optional()
            && nodes.add(i).read(&mm)? != 0
        {
            return Err(Errno::ENODEV.into());
        }
        status.add(i).write(&mm, &node_of(&task, page))?;
    }
    Ok(0)
}

/// A set of nodes of which only the first exists.
fn nodes(t: &Current<'_>, mask: UserPtr<u64>, maxnode: u64) -> Result<u64> {
    if maxnode > PAGE_SIZE * 8 {
        return Err(Errno::EINVAL);
    }
    if mask.is_null() || maxnode <= 1 { Ok(0) } else { mask.read(&t.mm()) }
}

pub fn migrate_pages(
    t: &mut Current<'_>,
    pid: i32,
    maxnode: u64,
    old: UserPtr<u64>,
    new: UserPtr<u64>,
) -> SysResult {
    nodes(t, old, maxnode)?;
    let to = nodes(t, new, maxnode)?;
    target(t, pid)?;
    // There must be a node to go to; every page is there already.
    if to & 1 == 0 { Err(Errno::EINVAL.into()) } else { Ok(0) }
}

/// Only ranges with a policy of their own can have a home node, and with one node there are none.
pub fn set_mempolicy_home_node(
    _t: &mut Current<'_>,
    start: u64,
    len: u64,
    node: u64,
    flags: u64,
) -> SysResult {
    if start % PAGE_SIZE != 0 || flags != 0 || node != 0 {
        return Err(Errno::EINVAL.into());
    }
    let end = page_up(len).and_then(|l| start.checked_add(l)).ok_or(Errno::EINVAL)?;
    if end == start { Ok(0) } else { Err(Errno::ENOENT.into()) }
}
