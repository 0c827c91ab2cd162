//! System calls that guest code makes often: the platform may make them cheaper if it is told where they are.
//!
//! Nothing of it is seen here: what backs the page stays what it was, and any change of its mapping undoes it.

use super::{Inner, Mm, VmFlags};
use abi::{PAGE_SIZE, page_down};
use platform::{CallSite, GuestRange, Prot};

/// Room for the platform is taken so far below the code, where mappings that the kernel places do not come soon.
const AWAY: [u64; 2] = [1 << 30, 1 << 20];
/// How far above the base of mappings it may be: the stack is not near.
const ABOVE_BASE: u64 = 64 << 20;

impl Mm {
    /// A call that ends at `after` is made often.
    pub fn speed_up(&self, after: u64, nr: u64) {
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let page = page_down(after);
        let Some((start, _, vma)) = inner.vmas.get(page) else { return };
        let code = vma.prot.contains(Prot::EXEC) && !vma.prot.contains(Prot::WRITE);
        if !code || vma.is_shared() || vma.flags.contains(VmFlags::SPECIAL) {
            return;
        }
        let Some((run, _, p)) = inner.pmas.get(page) else { return };
        let (Some(prot), true) = (p.mapped, p.mapped == p.host_prot()) else { return };
        let room = match self.space.patch_room(after) {
            None => None,
            Some((within, len)) => match self.far_gap(inner, start, within, len) {
                Some(room) => Some(room),
                None => return,
            },
        };
        let file = p.backing.host_file();
        let call = CallSite { after, nr, file, offset: p.off + (page - run), prot, room };
        match self.space.patch_call(&call) {
            Ok(done) => tracing::trace!(after, nr, done, "a call that is made often"),
            Err(e) => tracing::debug!(error = %e, after, "a call cannot be made cheaper"),
        }
    }

    /// Free addresses in reach of the code at `start` that mmap does not come to by itself.
    fn far_gap(&self, inner: &Inner, start: u64, within: GuestRange, len: u64) -> Option<GuestRange> {
        let free = |at: u64| {
            let room = GuestRange { start: at, end: at.checked_add(len)? };
            let inside = room.start >= within.start.max(self.limits.min)
                && room.end <= within.end.min(self.limits.max);
            (inside && inner.vmas.is_free(room.start..room.end)).then_some(room)
        };
        let base = page_down(inner.layout.mmap_base) + PAGE_SIZE;
        if base >= within.start && base <= within.end {
            let steps = (base..base + ABOVE_BASE).step_by(usize::try_from(len).ok()?);
            if let Some(room) = steps.take(64).find_map(free) {
                return Some(room);
            }
        }
        AWAY.into_iter().find_map(|away| {
            let below = page_down(start.checked_sub(away)?).checked_sub(len)?;
            free(below)
        })
    }
}
