//! An event of fanotify as it waits in the queue, and as it is read (`struct fanotify_event_metadata` and the records
//! behind it).

use super::bits;
use kernel::vfs::{Event, FileId, Happening, Inode, Path, encode_handle};
use std::sync::Arc;

/// `FAN_EVENT_METADATA_LEN`
pub(super) const HEAD: usize = 24;
/// Head of a record, file system id, head of a handle.
const RECORD: usize = 4 + 8 + 8;
/// Bytes of our handles, and the type of those that lead to the file.
const HANDLE: usize = 12;

/// Which records a group wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub fid: bool,
    pub dir: bool,
    pub name: bool,
    pub target: bool,
}

/// A file by handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fid {
    fsid: [i32; 2],
    id: FileId,
    lasting: bool,
}

impl Fid {
    pub(super) fn of(inode: &Arc<dyn Inode>) -> Option<Fid> {
        let fs = inode.fs();
        let dev = fs.dev();
        let half = |n: u64| i32::try_from(n & 0x7fff_ffff).unwrap_or(0);
        let fsid = match fs.statfs().map(|s| s.f_fsid) {
            Ok([0, 0]) | Err(_) => [half(dev), half(dev >> 32)],
            Ok(known) => known,
        };
        let lasting = fs.flags().contains(kernel::vfs::FsFlags::EXPORT);
        Some(Fid { fsid, id: FileId::of(inode).ok()?, lasting })
    }

    fn encode(&self, kind: u8, name: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0, 0, 0];
        out.extend(self.fsid.iter().flat_map(|h| h.to_ne_bytes()));
        out.extend(u32::try_from(HANDLE).unwrap_or(0).to_ne_bytes());
        out.extend((if self.lasting { 1i32 } else { 0x81 }).to_ne_bytes());
        out.extend(self.id.ino.to_ne_bytes());
        out.extend(self.id.generation.to_ne_bytes());
        if !name.is_empty() {
            out.extend(name);
            out.push(0);
        }
        out.resize(record_len(name), 0);
        let len = u16::try_from(out.len()).unwrap_or(u16::MAX);
        out[2..4].copy_from_slice(&len.to_ne_bytes());
        out
    }
}

fn record_len(name: &[u8]) -> usize {
    let name = if name.is_empty() { 0 } else { name.len() + 1 };
    (RECORD + HANDLE + name).next_multiple_of(4)
}

/// What an event is about.
#[derive(Clone)]
pub(super) enum What {
    /// Events were lost.
    Nothing,
    /// To be opened for the reader.
    Place(Path),
    /// One object alone: an entry's directory, or a file without one.
    Object(Fid),
    /// An entry: its directory, its name if it is to be told, the file if it is to be told.
    Entry { dir: Fid, name: Vec<u8>, child: Option<Fid> },
}

pub(super) struct Queued {
    pub mask: u32,
    pub pid: i32,
    pub what: What,
    layout: Option<Layout>,
}

/// The types of records.
const FID: u8 = 1;
const DFID_NAME: u8 = 2;
const DFID: u8 = 3;

impl Queued {
    pub fn overflow() -> Queued {
        Queued { mask: bits::Q_OVERFLOW, pid: 0, what: What::Nothing, layout: None }
    }

    /// From what the VFS told; `None` when it cannot be said in the group's form.
    pub fn new(h: &Happening<'_>, layout: Layout, by_handle: bool) -> Option<Queued> {
        let mask = h.event.bits();
        let on_dir = h.event.contains(Event::ISDIR);
        if !by_handle {
            let (mount, dentry) = (h.mount?, h.dentry?);
            let place = Path { mount: Arc::clone(mount), dentry: Arc::clone(dentry) };
            return Some(Queued {
                mask: mask & !bits::ONDIR,
                pid: h.pid,
                what: What::Place(place),
                layout: None,
            });
        }
        let entry = mask & bits::ENTRIES != 0;
        let dir = h.dir.and_then(|d| Some((d, d.inode()?)));
        let fid = |inode: &Arc<dyn Inode>, dentry: Option<&Arc<kernel::vfs::Dentry>>| {
            if let Some(d) = dentry {
                // So that the handle can be opened.
                let _ = encode_handle(d, false);
            }
            Fid::of(inode)
        };
        let object = fid(h.inode, h.dentry);
        // The object that a group without directories is told: for entries their directory.
        let own = if entry && !layout.target { dir.and_then(|(d, i)| fid(i, Some(d))) } else { object };
        let what = if layout.dir {
            let directory = if entry || !on_dir { dir.and_then(|(d, i)| fid(i, Some(d))) } else { object };
            match directory {
                None => What::Object(own?),
                Some(directory) => {
                    let child = own.filter(|own| layout.fid && *own != directory && !on_dir);
                    let named = layout.name && (entry || !on_dir);
                    let name = if named { h.name.unwrap_or_default().to_vec() } else { Vec::new() };
                    if name.is_empty() && child.is_none() {
                        What::Object(directory)
                    } else {
                        What::Entry { dir: directory, name, child }
                    }
                }
            }
        } else {
            What::Object(own?)
        };
        Some(Queued { mask, pid: h.pid, what, layout: Some(layout) })
    }

    /// About one object by handle (an inode that is gone).
    pub fn of_object(event: Event, pid: i32, fid: Fid, layout: Layout) -> Queued {
        Queued { mask: event.bits(), pid, what: What::Object(fid), layout: Some(layout) }
    }

    /// Whether `new` adds only bits to this one.
    pub fn merges(&self, new: &Queued) -> bool {
        if self.pid != new.pid || (self.mask ^ new.mask) & bits::ONDIR != 0 {
            return false;
        }
        match (&self.what, &new.what) {
            (What::Place(a), What::Place(b)) => a.mount.id == b.mount.id && Arc::ptr_eq(&a.dentry, &b.dentry),
            (What::Object(a), What::Object(b)) => a == b,
            (
                What::Entry { dir, name, child },
                What::Entry { dir: new_dir, name: new_name, child: new_child },
            ) => dir == new_dir && name == new_name && child == new_child,
            _ => false,
        }
    }

    /// The records behind the head.
    fn records(&self) -> Vec<u8> {
        let Some(layout) = self.layout else { return Vec::new() };
        match &self.what {
            What::Nothing | What::Place(_) => Vec::new(),
            What::Entry { dir, name, child } => {
                let kind = if name.is_empty() { DFID } else { DFID_NAME };
                let mut out = dir.encode(kind, name);
                if let Some(c) = child {
                    out.extend(c.encode(FID, b""));
                }
                out
            }
            What::Object(fid) => {
                let on_dir = self.mask & bits::ONDIR != 0;
                if !layout.dir {
                    fid.encode(FID, b"")
                } else if layout.name && on_dir {
                    fid.encode(DFID_NAME, b".")
                } else if self.mask & bits::ENTRIES != 0 || on_dir {
                    fid.encode(DFID, b"")
                } else {
                    fid.encode(FID, b"")
                }
            }
        }
    }

    /// Bytes that reading it takes.
    pub fn len(&self) -> usize {
        HEAD + self.records().len()
    }

    /// As it is read.
    pub fn encode(&self, fd: i32, pid: i32, by_handle: bool) -> Vec<u8> {
        const VERSION: u8 = 3;
        let records = self.records();
        let fd = if by_handle { -1 } else { fd };
        let mut out = Vec::with_capacity(HEAD + records.len());
        out.extend(u32::try_from(HEAD + records.len()).unwrap_or(0).to_ne_bytes());
        out.extend([VERSION, 0]);
        out.extend(u16::try_from(HEAD).unwrap_or(0).to_ne_bytes());
        out.extend(u64::from(self.mask).to_ne_bytes());
        out.extend(fd.to_ne_bytes());
        out.extend(pid.to_ne_bytes());
        out.extend(records);
        out
    }
}
