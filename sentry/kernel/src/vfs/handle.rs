//! File handles (name_to_handle_at(2)): an inode's number, with something that tells it from a later one of the same
//! number, and how to find the file again by it.
//!
//! File systems here need not find an inode by number. What was given out is remembered instead, as the dentry as
//! long as that lives and else as the names that lead there. Only so many are remembered: the oldest become
//! stale, as do handles of files that were renamed while nobody had them in the cache.

use super::{Caller, Dentry, FsFlags, Inode, Mount, Path, child};
use abi::{Errno, Result};
use ksync::{LockClass, Mutex};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

/// Handles remembered for one file system.
const MOST: usize = 65_536;

/// What a handle says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    pub ino: u64,
    pub generation: u32,
}

impl FileId {
    /// That of an inode. Its time of birth tells it from others that had or get its number.
    pub fn of(inode: &Arc<dyn Inode>) -> Result<FileId> {
        let born =
            inode.attr()?.btime.map_or(0, |t| t.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(t.tv_nsec));
        let folded = (born ^ (born >> 32)).cast_unsigned() & 0xffff_ffff;
        Ok(FileId { ino: inode.ino(), generation: u32::try_from(folded).unwrap_or(0) })
    }
}

struct Known {
    dentry: Weak<Dentry>,
    /// From the root of the file system.
    names: Vec<Box<[u8]>>,
}

/// The handles of one file system that were given out.
pub(super) struct Handles(Mutex<Table>);

#[derive(Default)]
struct Table {
    known: HashMap<u64, Known>,
    order: VecDeque<u64>,
}

impl Default for Handles {
    fn default() -> Self {
        Handles(Mutex::new(LockClass::Leaf, Table::default()))
    }
}

impl Handles {
    fn remember(&self, ino: u64, dentry: &Arc<Dentry>) {
        let mut names = Vec::new();
        let mut at = Arc::clone(dentry);
        while let (Some(parent), name) = at.parent_and_name() {
            names.push(name);
            at = parent;
        }
        names.reverse();
        let mut table = self.0.lock();
        if table.known.insert(ino, Known { dentry: Arc::downgrade(dentry), names }).is_none() {
            table.order.push_back(ino);
        }
        while table.order.len() > MOST {
            if let Some(old) = table.order.pop_front() {
                table.known.remove(&old);
            }
        }
    }

    fn recall(&self, ino: u64) -> Option<(Weak<Dentry>, Vec<Box<[u8]>>)> {
        self.0.lock().known.get(&ino).map(|k| (Weak::clone(&k.dentry), k.names.clone()))
    }
}

/// A handle for the object of a dentry. `lasting`: one that [`find`] shall understand; EOPNOTSUPP on file systems
/// whose files are not found again.
pub fn encode(dentry: &Arc<Dentry>, lasting: bool) -> Result<FileId> {
    let inode = dentry.inode().ok_or(Errno::ENOENT)?;
    let exports = inode.fs().flags().contains(FsFlags::EXPORT);
    if lasting && !exports {
        return Err(Errno::EOPNOTSUPP);
    }
    let id = FileId::of(inode)?;
    if exports {
        dentry.tree().handles.remember(id.ino, dentry);
    }
    Ok(id)
}

/// The file of a handle on a file system: ESTALE when it is gone or was never given out.
pub fn find(cx: &Caller<'_>, mount: &Arc<Mount>, id: FileId) -> Result<Path> {
    let root = &mount.sb.root;
    let is_it = |d: &Arc<Dentry>| {
        d.inode().is_some_and(|i| {
            FileId::of(i).is_ok_and(|found| found == id) && i.attr().is_ok_and(|a| a.nlink > 0)
        })
    };
    let here = |dentry| Path { mount: Arc::clone(mount), dentry };
    let (dentry, names) = root.tree().handles.recall(id.ino).ok_or(Errno::ESTALE)?;
    if let Some(dentry) = dentry.upgrade() {
        return if is_it(&dentry) { Ok(here(dentry)) } else { Err(Errno::ESTALE) };
    }
    let mut at = here(Arc::clone(root));
    for name in &names {
        at = here(child(cx, &at, name).map_err(|_| Errno::ESTALE)?);
        if at.dentry.inode().is_none() {
            return Err(Errno::ESTALE);
        }
    }
    if is_it(&at.dentry) { Ok(at) } else { Err(Errno::ESTALE) }
}
