//! fork: the maps are copied, the pages are shared until somebody writes.

use super::hot::Copies;
use super::interval::Piece;
use super::room::NoRoom;
use super::{Inner, IntervalMap, Mm, Pma, VmFlags};
use abi::{Errno, PAGE_SIZE, Result};
use platform::{Backing, FileRange, Prot};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Mm {
    /// A copy for a new process, over a new address space of the platform.
    pub fn fork(&self) -> Result<Arc<Mm>> {
        self.fork_with(true)
    }

    /// As `fork`. `alone`: no thread writes to the memory meanwhile, so pages may be copied that will be written soon.
    pub fn fork_with(&self, alone: bool) -> Result<Arc<Mm>> {
        let child = Mm::on_platform(&self.platform, &self.memfile, Arc::clone(&self.hot), self.account())?;
        child.stack_limit.store(self.stack_limit.load(Ordering::Relaxed), Ordering::Relaxed);
        let mut inner = self.inner.write();
        // First the parent's pages become read-only, then the child can share them.
        let mut copies = if alone { self.copy_hot(&inner) } else { Copies::none() };
        let protected = self.write_protect(&mut inner, &copies);
        let copy = protected.map(|()| self.copy_maps(&mut inner, &mut copies));
        drop(inner);
        self.drop_copies(&copies);
        let copy = copy?;
        // Nobody else knows the child yet: its lock is free. (Two locks of one class at once are not allowed.)
        let mut mine = child.inner.write();
        *mine = copy;
        for (s, e, v) in mine.vmas.iter() {
            if let Some(f) = &v.file {
                f.object.add_mapping(&child.me, s, v.offset..v.offset + (e - s), v.is_shared_writable());
            }
        }
        drop(mine);
        Ok(child)
    }

    /// Makes every page of private memory copy-on-write, for the parent's own threads too; but for those that the child
    /// gets copies of.
    fn write_protect(&self, inner: &mut Inner, copies: &Copies) -> Result<()> {
        let mut work: Vec<(Range<u64>, Option<Prot>)> = Vec::new();
        let old = inner.pmas.take_all();
        let mut all = IntervalMap::default();
        let mut protect = |all: &mut IntervalMap<Pma>, r: Range<u64>, mut p: Pma| {
            p.cow = true;
            if let Some(m) = p.mapped
                && m.contains(Prot::WRITE)
            {
                let left = m - Prot::WRITE;
                p.mapped = Some(left);
                match work.last_mut() {
                    Some((last, prot)) if last.end == r.start && *prot == Some(left) => last.end = r.end,
                    _ => work.push((r.clone(), Some(left))),
                }
            }
            all.insert_apart(r, p);
        };
        for (r, p) in old {
            if !p.private {
                all.insert_apart(r, p);
                continue;
            }
            let spared = if p.cow { SmallVec::new() } else { copies.inside(&r) };
            let part = |s: u64| {
                let mut q = p.clone();
                if s > r.start {
                    q.cut_front(s - r.start);
                }
                q
            };
            let mut at = r.start;
            for run in spared {
                if at < run.start {
                    protect(&mut all, at..run.start, part(at));
                }
                at = run.end;
                all.insert_apart(run.clone(), part(run.start));
            }
            if at < r.end {
                protect(&mut all, at..r.end, part(at));
            }
        }
        all.join(0..u64::MAX);
        inner.pmas = all;
        self.set_rights(inner, &work).map_err(|e| {
            // What could not be protected must not be shared. Taken as writable it is written to without a copy, and
            // nobody else has it yet.
            tracing::error!(error = %e, "fork cannot protect the parent's memory");
            for (r, _) in work {
                inner.pmas.change(r, |_, p| p.cow = false);
            }
            Errno::ENOMEM
        })
    }

    fn copy_maps(&self, inner: &mut Inner, copies: &mut Copies) -> Inner {
        let mut vmas = IntervalMap::default();
        let mut pmas: IntervalMap<Pma> = IntervalMap::default();
        let (mut total_vm, mut data_vm, mut anon_rss, mut file_rss) = (0, 0, 0, 0);
        for (s, e, v) in inner.vmas.iter() {
            if v.flags.contains(VmFlags::DONTCOPY) {
                continue;
            }
            let mut v = v.clone();
            v.flags -= VmFlags::LOCKED | VmFlags::LOCKONFAULT;
            total_vm += e - s;
            if v.is_data() {
                data_vm += e - s;
            }
            if !v.flags.contains(VmFlags::WIPEONFORK) {
                for (ps, pe, p) in inner.pmas.overlapping(s..e) {
                    let Some((r, mut p)) = super::host::clip(&(ps..pe, p.clone()), &(s..e)) else { continue };
                    let len = r.end - r.start;
                    if p.private && !p.cow {
                        // Spared by `write_protect`.
                        for page in (r.start..r.end).step_by(abi::PAGE_BYTES) {
                            let Some(at) = copies.take(page) else { continue };
                            pmas.insert(page..page + PAGE_SIZE, self.private_pma(at, p.prot));
                            anon_rss += PAGE_SIZE;
                        }
                        continue;
                    }
                    if let Backing::Memory(m) = &p.backing {
                        m.inc_ref(FileRange { start: p.off, end: p.off + len });
                    }
                    if p.private {
                        anon_rss += len
                    } else {
                        file_rss += len
                    }
                    p.mapped = None;
                    pmas.insert_apart(r, p);
                }
            }
            vmas.insert_apart(s..e, v);
        }
        Inner {
            vmas,
            pmas,
            layout: inner.layout.clone(),
            no_room: NoRoom::default(),
            exe: inner.exe.clone(),
            total_vm,
            data_vm,
            locked_vm: 0,
            peak_vm: total_vm,
            peak_rss: anon_rss + file_rss,
            anon_rss,
            file_rss,
            def_flags: VmFlags::empty(),
            leaked: 0,
            cold: true,
        }
    }
}
