//! What /proc tells about an address space: maps, smaps, statm, status.

use super::advise::touched;
use super::{Mm, VmFlags, Vma};
use crate::vfs::File;
use platform::{Backing, FileRange, Prot};
use std::ops::Range;
use std::sync::Arc;

/// The name of a mapping.
#[derive(Clone)]
pub enum MapsName {
    None,
    /// `[heap]`, `[stack]`, `[vdso]`, `[anon:name]` …
    Text(Vec<u8>),
    /// The path of this description.
    File(Arc<File>),
}

/// A line of /proc/pid/maps.
#[derive(Clone)]
pub struct MapsEntry {
    pub range: Range<u64>,
    pub prot: Prot,
    pub flags: VmFlags,
    pub offset: u64,
    /// Device and inode; zeroes for anonymous memory.
    pub dev: u64,
    pub ino: u64,
    pub name: MapsName,
}

impl MapsEntry {
    /// `rwxp` and kin.
    pub fn rights(&self) -> [u8; 4] {
        let has = |p, c| if self.prot.contains(p) { c } else { b'-' };
        let shared = if self.flags.contains(VmFlags::SHARED) { b's' } else { b'p' };
        [has(Prot::READ, b'r'), has(Prot::WRITE, b'w'), has(Prot::EXEC, b'x'), shared]
    }

    /// The line without the name: a path is padded to column 73 by the caller.
    pub fn head(&self) -> String {
        let r = self.rights();
        let (major, minor) = (self.dev >> 8 & 0xfff, self.dev & 0xff | self.dev >> 12 & 0xfff00);
        format!(
            "{:08x}-{:08x} {}{}{}{} {:08x} {major:02x}:{minor:02x} {} ",
            self.range.start,
            self.range.end,
            r[0] as char,
            r[1] as char,
            r[2] as char,
            r[3] as char,
            self.offset,
            self.ino
        )
    }
}

/// The counts of one mapping for /proc/pid/smaps, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SmapsCounts {
    pub rss: u64,
    /// Shares of pages that others map as well count in part; we know only references.
    pub pss: u64,
    pub shared_clean: u64,
    pub shared_dirty: u64,
    pub private_clean: u64,
    pub private_dirty: u64,
    pub anonymous: u64,
    pub locked: u64,
}

/// Totals of an address space, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct VmCounts {
    pub total: u64,
    pub peak: u64,
    pub locked: u64,
    pub data: u64,
    pub stack: u64,
    /// The program's own code.
    pub exec: u64,
    /// Code of libraries: executable mappings that are not the program's.
    pub lib: u64,
    pub anon_rss: u64,
    pub file_rss: u64,
    pub peak_rss: u64,
}

impl Mm {
    /// The mappings, in order.
    pub fn maps(&self) -> Vec<MapsEntry> {
        let inner = self.inner.read();
        let l = &inner.layout;
        inner
            .vmas
            .iter()
            .map(|(s, e, v)| {
                let object = v.file.as_ref().filter(|_| !v.flags.contains(VmFlags::SPECIAL));
                let (dev, ino) = object.map_or((0, 0), |f| f.object.identity());
                let name = match (&v.file, &v.name) {
                    (Some(f), _) => match &f.file {
                        Some(file) => MapsName::File(Arc::clone(file)),
                        None => MapsName::Text(
                            v.name.as_ref().map_or_else(|| b"/dev/zero (deleted)".to_vec(), |n| n.to_vec()),
                        ),
                    },
                    (None, Some(n)) if v.flags.contains(VmFlags::SPECIAL) => MapsName::Text(n.to_vec()),
                    (None, _) if s <= l.brk && e > l.start_brk && l.brk > l.start_brk => {
                        MapsName::Text(b"[heap]".to_vec())
                    }
                    (None, _) if (s..e).contains(&l.start_stack) => MapsName::Text(b"[stack]".to_vec()),
                    (None, Some(n)) => MapsName::Text([b"[anon:", &**n, b"]"].concat()),
                    (None, None) => MapsName::None,
                };
                MapsEntry { range: s..e, prot: v.prot, flags: v.flags, offset: v.offset, dev, ino, name }
            })
            .collect()
    }

    /// The counts of one mapping.
    pub fn smaps_counts(&self, r: &Range<u64>) -> SmapsCounts {
        let inner = self.inner.read();
        let mut c = SmapsCounts::default();
        let locked = inner.vmas.get(r.start).is_some_and(|(.., v)| v.flags.contains(VmFlags::LOCKED));
        for (s, e, p) in inner.pmas.overlapping(r.clone()) {
            let run = s.max(r.start)..e.min(r.end);
            let bytes: u64 = touched(p, s, run.clone()).iter().map(|t| t.end - t.start).sum();
            let unique = match &p.backing {
                Backing::Memory(m) => {
                    let at = p.off + (run.start - s);
                    m.is_unique(FileRange { start: at, end: at + (run.end - run.start) })
                }
                Backing::Host(_) => false,
            };
            c.rss += bytes;
            c.pss += if unique { bytes } else { bytes / 2 };
            let dirty = p.private || p.writable;
            *match (unique, dirty) {
                (true, true) => &mut c.private_dirty,
                (true, false) => &mut c.private_clean,
                (false, true) => &mut c.shared_dirty,
                (false, false) => &mut c.shared_clean,
            } += bytes;
            if p.private {
                c.anonymous += bytes;
            }
        }
        if locked {
            c.locked = c.rss;
        }
        c
    }

    /// Totals. Resident sizes count pages that were touched.
    pub fn counts(&self) -> VmCounts {
        let inner = self.inner.read();
        let mut c = VmCounts {
            total: inner.total_vm,
            peak: inner.peak_vm,
            locked: inner.locked_vm,
            ..VmCounts::default()
        };
        let exe = inner.layout.start_code..inner.layout.end_code;
        for (s, e, v) in inner.vmas.iter() {
            let len = e - s;
            if v.is_data() {
                c.data += len;
            }
            if v.flags.contains(VmFlags::GROWSDOWN) {
                c.stack += len;
            }
            if is_code(v) {
                if exe.start < e && s < exe.end { c.exec += len } else { c.lib += len }
            }
        }
        for (s, e, p) in inner.pmas.iter() {
            let bytes: u64 = touched(p, s, s..e).iter().map(|t| t.end - t.start).sum();
            if p.private { c.anon_rss += bytes } else { c.file_rss += bytes }
        }
        c.peak_rss = inner.peak_rss.max(c.anon_rss + c.file_rss);
        c
    }

    /// Number of mappings.
    pub fn map_count(&self) -> usize {
        self.inner.read().vmas.len()
    }

    /// Bytes that have pages.
    pub fn rss(&self) -> u64 {
        let inner = self.inner.read();
        inner.anon_rss + inner.file_rss
    }

    /// Most bytes that had pages at any time, as far as known (`ru_maxrss`).
    pub fn peak_rss(&self) -> u64 {
        self.inner.read().peak_rss
    }
}

fn is_code(v: &Vma) -> bool {
    v.prot.contains(Prot::EXEC) && !v.prot.contains(Prot::WRITE) && v.file.is_some()
}
