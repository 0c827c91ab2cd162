//! Directories of the overlay: names from below, names of our own, and names that are gone.

use std::any::Any;
use std::sync::Arc;

use abi::stat::FileType;
use abi::{Errno, Result};
use kernel::io::Sink;
use kernel::vfs::{Caller, DirSink, File, FileOps, Inode, RenameFlags};
use ksync::{LockClass, Mutex};

use super::inode::OverlayInode;

/// A name that is not as in the lower directory.
pub(super) enum Name {
    /// It exists below and was removed (a whiteout).
    Gone,
    /// `hides`: there is such a name below as well.
    Here { inode: Arc<OverlayInode>, hides: bool },
}

/// The overlay's inode behind one of the VFS.
fn own(dir: &OverlayInode, inode: &Arc<dyn Inode>) -> Result<Arc<OverlayInode>> {
    let any: &dyn Any = &**inode;
    let inode = any.downcast_ref::<OverlayInode>().filter(|inode| Arc::ptr_eq(&inode.fs, &dir.fs));
    inode.and_then(|inode| inode.me.upgrade()).ok_or(Errno::EXDEV)
}

/// An entry of a listing.
type Listed = (u64, FileType, Box<[u8]>);

/// Takes everything.
struct Collect(Vec<Listed>);

impl DirSink for Collect {
    fn entry(&mut self, ino: u64, _next: u64, kind: FileType, name: &[u8]) -> bool {
        if name != b"." && name != b".." {
            self.0.push((ino, kind, name.into()));
        }
        true
    }
}

impl OverlayInode {
    pub(super) fn find(&self, cx: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        match self.state.lock().names.get(name) {
            Some(Name::Gone) => return Err(Errno::ENOENT),
            Some(Name::Here { inode, .. }) => return Ok(inode.clone()),
            None => {}
        }
        let lower = self.lower.as_ref().ok_or(Errno::ENOENT)?;
        Ok(self.fs.above(lower.lookup(cx, name)?))
    }

    fn has_own(&self, name: &[u8]) -> bool {
        self.state.lock().names.contains_key(name)
    }

    /// Asks the lower layer for as many names at once as are only there.
    pub(super) fn find_ahead(&self, cx: &Caller<'_>, names: &[&[u8]]) -> Result<(Vec<Arc<dyn Inode>>, bool)> {
        let (Some(lower), Some(first)) = (&self.lower, names.first()) else { return Ok((Vec::new(), false)) };
        if self.has_own(first) {
            return Ok((Vec::new(), false));
        }
        let (below, missing) = lower.lookup_ahead(cx, names)?;
        let complete = below.len();
        let mut found: Vec<Arc<dyn Inode>> = Vec::with_capacity(complete);
        let mut dir = self.myself()?;
        for (name, inode) in names.iter().zip(below) {
            if dir.has_own(name) {
                return Ok((found, false));
            }
            dir = self.fs.above(inode);
            found.push(dir.clone());
        }
        // What is missing below may be here.
        let missing = missing && names.get(complete).is_some_and(|next| !dir.has_own(next));
        Ok((found, missing))
    }

    /// Enters an inode under a name that does not exist, or that `replaces` something; whether that was below is kept.
    fn enter(&self, name: &[u8], inode: Arc<OverlayInode>, replaces: bool) {
        let mut state = self.state.lock();
        let hides = match state.names.get(name) {
            Some(Name::Gone) => true,
            Some(Name::Here { hides, .. }) => *hides,
            None => replaces,
        };
        let old = state.names.insert(name.into(), Name::Here { inode, hides });
        drop(state);
        drop(old);
    }

    /// Takes a name out that exists.
    fn strike(&self, name: &[u8]) {
        let mut state = self.state.lock();
        let below = match state.names.get(name) {
            Some(Name::Here { hides, .. }) => *hides,
            Some(Name::Gone) | None => true,
        };
        let old = if below { state.names.insert(name.into(), Name::Gone) } else { state.names.remove(name) };
        drop(state);
        drop(old);
    }

    /// A name in a directory that was removed can be neither made nor linked.
    fn check_alive(&self) -> Result<()> {
        let removed = self.state.lock().metadata.as_ref().is_some_and(|metadata| metadata.attr.nlink == 0);
        if removed { Err(Errno::ENOENT) } else { Ok(()) }
    }

    pub(super) fn add(&self, cx: &Caller<'_>, name: &[u8], new: Arc<OverlayInode>) -> Result<Arc<dyn Inode>> {
        self.check_alive()?;
        self.touch(cx)?;
        if new.kind == FileType::Directory {
            self.count_directories(1)?;
        }
        self.enter(name, new.clone(), false);
        Ok(new)
    }

    pub(super) fn add_link(&self, cx: &Caller<'_>, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = own(self, target)?;
        self.check_alive()?;
        target.count_links(cx, 1)?;
        self.touch(cx)?;
        self.enter(name, target, false);
        Ok(())
    }

    pub(super) fn remove(&self, cx: &Caller<'_>, name: &[u8], child: &Arc<dyn Inode>) -> Result<()> {
        let child = own(self, child)?;
        child.count_links(cx, -1)?;
        self.strike(name);
        self.touch(cx)
    }

    pub(super) fn remove_directory(
        &self,
        cx: &Caller<'_>,
        name: &[u8],
        child: &Arc<dyn Inode>,
    ) -> Result<()> {
        let child = own(self, child)?;
        child.bury(cx)?;
        self.strike(name);
        self.count_directories(-1)?;
        self.touch(cx)
    }

    /// An empty directory loses its last name.
    fn bury(&self, cx: &Caller<'_>) -> Result<()> {
        if !self.is_empty(cx)? {
            return Err(Errno::ENOTEMPTY);
        }
        self.change(|metadata| metadata.attr.nlink = 0)
    }

    pub(super) fn move_child(
        &self,
        cx: &Caller<'_>,
        (name, child): (&[u8], &Arc<dyn Inode>),
        (new_dir, new_name): (&Arc<dyn Inode>, &[u8]),
        replaced: Option<&Arc<dyn Inode>>,
        flags: RenameFlags,
    ) -> Result<()> {
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let child = own(self, child)?;
        let new_dir = own(self, new_dir)?;
        let replaced = replaced.map(|replaced| own(self, replaced)).transpose()?;
        if replaced.as_ref().is_some_and(|replaced| Arc::ptr_eq(replaced, &child)) {
            // Two names of one file: nothing happens.
            return Ok(());
        }
        if replaced.is_some() && flags.contains(RenameFlags::NOREPLACE) {
            return Err(Errno::EEXIST);
        }
        new_dir.check_alive()?;
        let directory = |inode: &OverlayInode| i32::from(inode.kind == FileType::Directory);
        let time = super::metadata::now(cx);
        let changed = |inode: &OverlayInode| inode.change(|metadata| metadata.attr.ctime = time);
        let (mut here, mut there) = (-directory(&child), directory(&child));
        if flags.contains(RenameFlags::EXCHANGE) {
            let other = replaced.ok_or(Errno::ENOENT)?;
            here += directory(&other);
            there -= directory(&other);
            changed(&other)?;
            changed(&child)?;
            new_dir.enter(new_name, child, true);
            self.enter(name, other, true);
        } else {
            if let Some(old) = &replaced {
                if old.kind == FileType::Directory {
                    old.bury(cx)?;
                    there -= 1;
                } else {
                    old.count_links(cx, -1)?;
                }
            }
            changed(&child)?;
            new_dir.enter(new_name, child, replaced.is_some());
            self.strike(name);
        }
        if std::ptr::eq(self, &*new_dir) {
            self.count_directories(here + there)?;
        } else {
            self.count_directories(here)?;
            new_dir.count_directories(there)?;
            new_dir.touch(cx)?;
        }
        self.touch(cx)
    }

    /// What is in the lower directory.
    fn below(&self, cx: &Caller<'_>) -> Result<Vec<Listed>> {
        let Some(lower) = &self.lower else { return Ok(Vec::new()) };
        let file = self.fs.open_lower(cx, lower)?;
        let mut all = Collect(Vec::new());
        file.ops().readdir(cx, &file, 0, &mut all)?;
        Ok(all.0)
    }

    fn is_empty(&self, cx: &Caller<'_>) -> Result<bool> {
        if self.state.lock().names.values().any(|name| matches!(name, Name::Here { .. })) {
            return Ok(false);
        }
        let below = self.below(cx)?;
        let state = self.state.lock();
        Ok(below.iter().all(|(_, _, name)| state.names.contains_key(name)))
    }

    /// All entries but `.` and `..`.
    fn entries(&self, cx: &Caller<'_>) -> Result<Vec<Listed>> {
        let mut all = self.below(cx)?;
        let state = self.state.lock();
        if !state.names.is_empty() {
            all.retain(|(_, _, name)| !state.names.contains_key(name));
        }
        for (name, entry) in &state.names {
            if let Name::Here { inode, .. } = entry {
                all.push((inode.ino(), inode.kind, name.clone()));
            }
        }
        Ok(all)
    }
}

/// An open directory: a snapshot of its entries from the last rewind, so that positions stay true while it changes.
pub(super) struct DirectoryFile {
    inode: Arc<OverlayInode>,
    snapshot: Mutex<Option<Arc<Vec<Listed>>>>,
}

impl DirectoryFile {
    pub(super) fn new(inode: Arc<OverlayInode>) -> DirectoryFile {
        DirectoryFile { inode, snapshot: Mutex::new(LockClass::Dentry, None) }
    }
}

impl FileOps for DirectoryFile {
    fn read(&self, _cx: &Caller<'_>, _f: &File, _dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn readdir(&self, cx: &Caller<'_>, f: &File, pos: u64, sink: &mut dyn DirSink) -> Result<()> {
        if pos == 0 {
            self.inode.accessed(cx, f);
        }
        let kept = if pos == 0 { None } else { self.snapshot.lock().clone() };
        let entries = match kept {
            Some(entries) => entries,
            None => {
                let entries = Arc::new(self.inode.entries(cx)?);
                *self.snapshot.lock() = Some(entries.clone());
                entries
            }
        };
        let parent = || {
            let parent = f.path().dentry.parent();
            parent.and_then(|parent| parent.inode().map(|inode| inode.ino())).unwrap_or(self.inode.ino())
        };
        let total = u64::try_from(entries.len()).unwrap_or(u64::MAX).saturating_add(2);
        for at in pos..total {
            let taken = match at {
                0 => sink.entry(self.inode.ino(), 1, FileType::Directory, b"."),
                1 => sink.entry(parent(), 2, FileType::Directory, b".."),
                _ => {
                    let entry = usize::try_from(at - 2).ok().and_then(|index| entries.get(index));
                    let Some((ino, kind, name)) = entry else { break };
                    sink.entry(*ino, at + 1, *kind, name)
                }
            };
            if !taken {
                break;
            }
        }
        Ok(())
    }

    fn fsync(&self, _f: &File, _data_only: bool) -> Result<()> {
        Ok(())
    }
}
