//! What the end of a thread does to futexes: the robust list (get_robust_list(2)) and `clear_child_tid`
//! (set_tid_address(2)).

use super::pi::{OWNER_DIED, TID_MASK, WAITERS};
use super::{MATCH_ANY, Word};
use crate::Kernel;
use crate::mm::Mm;
use crate::task::Task;
use crate::uaccess::UserPtr;
use abi::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Most entries of a robust list that are looked at (`ROBUST_LIST_LIMIT`).
const LIMIT: usize = 2048;

/// The calling task ends or leaves its memory (execve).
pub fn exit_task(task: &Task) {
    let Some(mm) = task.try_mm() else { return };
    let kernel = task.kernel();
    let robust_list = task.robust_list.swap(0, Ordering::Relaxed);
    if robust_list != 0 {
        // A list that cannot be read ends where it breaks off.
        let _ = walk(kernel, &mm, task.own_tid().unsigned_abs(), robust_list);
    }
    let addr = task.clear_child_tid.swap(0, Ordering::Relaxed);
    // Nobody needs to see the zero when no other task uses the memory: the task's reference and ours are the only ones.
    if addr != 0 && Arc::strong_count(&mm) > 2 && UserPtr::<u32>::new(addr).write(&mm, &0).is_ok() {
        let _ = kernel.futexes.wake(&mm, Word { addr, shared: true }, 1, MATCH_ANY);
    }
}

fn walk(kernel: &Kernel, mm: &Mm, tid: u32, head: u64) -> Result<()> {
    let [first, offset, pending]: [u64; 3] = UserPtr::new(head).read(mm)?;
    let mut entry = first;
    for _ in 0..LIMIT {
        let (at, pi) = (entry & !1, entry & 1 != 0);
        if at == head {
            break;
        }
        // The next one first: waking the owner of this one may free it.
        let next = UserPtr::<u64>::new(at).read(mm);
        if at != pending & !1 {
            died(kernel, mm, at.wrapping_add(offset), tid, pi, false)?;
        }
        entry = next?;
    }
    if pending & !1 != 0 {
        died(kernel, mm, (pending & !1).wrapping_add(offset), tid, pending & 1 != 0, true)?;
    }
    Ok(())
}

/// Marks a lock as one whose owner died, and wakes one who waits for it (`handle_futex_death`).
fn died(kernel: &Kernel, mm: &Mm, addr: u64, tid: u32, pi: bool, pending: bool) -> Result<()> {
    if addr % 4 != 0 {
        return Err(Errno::EINVAL);
    }
    let word = Word { addr, shared: true };
    let wake_one = || {
        let _ = kernel.futexes.wake(mm, word, 1, MATCH_ANY);
    };
    loop {
        let old = mm.load_u32(addr)?;
        if pending && !pi && old == 0 {
            // The owner may have unlocked and died before it could wake.
            wake_one();
            return Ok(());
        }
        if old & TID_MASK != tid {
            return Ok(());
        }
        if pi && old & WAITERS != 0 {
            return kernel.futexes.owner_died(mm, word, tid);
        }
        if mm.cas_u32(addr, old, old & WAITERS | OWNER_DIED)?.is_ok() {
            if !pi && old & WAITERS != 0 {
                wake_one();
            }
            return Ok(());
        }
    }
}
