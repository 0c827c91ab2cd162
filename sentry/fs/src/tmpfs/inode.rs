//! Inodes of tmpfs: attributes, extended attributes, names; and the operations of their open files.

use super::Shared;
use super::data::{FileData, seal};
use super::dir::{Dir, FIRST};
use abi::fcntl::OpenFlags;
use abi::stat::{FileType, mode};
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::io::{Sink, Source};
use kernel::mm::Mappable;
use kernel::vfs::{
    Attr, Caller, CreateArgs, DirSink, File, FileOps, FileSystem, Inode, InodeExtras, LinkTarget, Path, Perm,
    RenameFlags, SeekFrom, SetAttr, SetTime, XattrFlags,
};
use ksync::{LockClass, Mutex};
use smallvec::SmallVec;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// What Linux' tmpfs adds to a directory's size for each entry.
const ENTRY_SIZE: u64 = 20;
/// Most bytes of names and values of extended attributes of an inode.
const XATTR_MAX: usize = 1 << 20;

/// What a new inode shall be.
pub(super) struct NewInode<'a> {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub target: Option<&'a [u8]>,
}

impl NewInode<'_> {
    fn from(args: &CreateArgs) -> NewInode<'static> {
        NewInode { mode: args.mode, uid: args.uid, gid: args.gid, rdev: args.rdev, target: None }
    }
}

#[derive(Clone, Copy)]
struct Times {
    atime: Timespec,
    mtime: Timespec,
    ctime: Timespec,
}

enum Body {
    File(Arc<FileData>),
    Dir(Mutex<Dir>),
    Symlink(Box<[u8]>),
    Special,
}

type Xattrs = BTreeMap<Box<[u8]>, Vec<u8>>;

pub(super) struct TmpInode {
    me: Weak<TmpInode>,
    shared: Arc<Shared>,
    ino: u64,
    kind: FileType,
    rdev: u64,
    mode: AtomicU32,
    uid: AtomicU32,
    gid: AtomicU32,
    nlink: AtomicU32,
    times: Mutex<Times>,
    btime: Timespec,
    body: Body,
    xattrs: OnceLock<Box<Mutex<Xattrs>>>,
    extras: InodeExtras,
}

impl TmpInode {
    /// A new inode; ENOSPC when there are too many.
    pub fn new(shared: &Arc<Shared>, new: &NewInode<'_>, nlink: u32) -> Result<Arc<TmpInode>> {
        shared.charge_inode()?;
        Ok(TmpInode::build(shared, new, nlink))
    }

    /// The root directory, which the new file system has counted.
    pub fn root(shared: &Arc<Shared>, mode: u32, uid: u32, gid: u32) -> Arc<TmpInode> {
        let mode = FileType::Directory.mode_bits() | mode;
        TmpInode::build(shared, &NewInode { mode, uid, gid, rdev: 0, target: None }, 2)
    }

    fn build(shared: &Arc<Shared>, new: &NewInode<'_>, nlink: u32) -> Arc<TmpInode> {
        let shared = Arc::clone(shared);
        let ino = shared.new_ino();
        let now = shared.now();
        let kind = FileType::from_mode(new.mode).unwrap_or(FileType::Regular);
        let body = match kind {
            FileType::Regular => Body::File(FileData::new(&shared, ino)),
            FileType::Directory => Body::Dir(Mutex::new(LockClass::Inode, Dir::new())),
            FileType::Symlink => Body::Symlink(new.target.unwrap_or_default().into()),
            _ => Body::Special,
        };
        Arc::new_cyclic(|me| TmpInode {
            me: Weak::clone(me),
            shared,
            ino,
            kind,
            rdev: new.rdev,
            mode: AtomicU32::new(new.mode & mode::PERM),
            uid: AtomicU32::new(new.uid),
            gid: AtomicU32::new(new.gid),
            nlink: AtomicU32::new(nlink),
            times: Mutex::new(LockClass::InodeInner, Times { atime: now, mtime: now, ctime: now }),
            btime: now,
            body,
            xattrs: OnceLock::new(),
            extras: InodeExtras::default(),
        })
    }

    pub fn data(&self) -> Option<&Arc<FileData>> {
        match &self.body {
            Body::File(d) => Some(d),
            _ => None,
        }
    }

    fn dir(&self) -> Result<&Mutex<Dir>> {
        match &self.body {
            Body::Dir(d) => Ok(d),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn me(&self) -> Result<Arc<TmpInode>> {
        self.me.upgrade().ok_or(Errno::ENOENT)
    }

    fn changed(&self, content: bool) {
        let now = self.shared.now();
        let mut t = self.times.lock();
        t.ctime = now;
        if content {
            t.mtime = now;
        }
    }

    fn add_links(&self, n: u32) {
        self.nlink.fetch_add(n, Ordering::AcqRel);
    }
    fn sub_links(&self, n: u32) {
        let _ = self.nlink.fetch_update(Ordering::AcqRel, Ordering::Acquire, |l| Some(l.saturating_sub(n)));
    }

    fn add(&self, name: &[u8], child: &Arc<TmpInode>) -> Result<()> {
        self.dir()?.lock().insert(name, Arc::clone(child))?;
        if child.kind == FileType::Directory {
            self.add_links(1);
            if let Body::Dir(d) = &child.body {
                d.lock().parent = Weak::clone(&self.me);
            }
        }
        self.changed(true);
        Ok(())
    }

    fn drop_entry(&self, name: &[u8], child: &TmpInode) -> Result<()> {
        let gone = self.dir()?.lock().remove(name)?;
        if child.kind == FileType::Directory {
            self.sub_links(1);
        }
        self.changed(true);
        drop(gone);
        Ok(())
    }

    /// One name less; a directory without names has no links at all.
    fn unlinked(&self) {
        if self.kind == FileType::Directory {
            self.nlink.store(0, Ordering::Release);
        } else {
            self.sub_links(1);
            if self.nlink.load(Ordering::Acquire) > 0 {
                self.shared.uncharge_inode();
            }
        }
        self.changed(false);
    }

    fn kill_if_empty(&self) -> Result<()> {
        if let Body::Dir(d) = &self.body {
            let mut d = d.lock();
            if d.len() > 0 {
                return Err(Errno::ENOTEMPTY);
            }
            d.dead = true;
        }
        Ok(())
    }

    fn make(&self, name: &[u8], new: NewInode<'_>) -> Result<Arc<dyn Inode>> {
        let nlink = if FileType::from_mode(new.mode) == Some(FileType::Directory) { 2 } else { 1 };
        let child = TmpInode::new(&self.shared, &new, nlink)?;
        self.add(name, &child)?;
        Ok(child)
    }
}

impl Drop for TmpInode {
    /// Takes a tree apart in a loop: it may be deeper than our stack.
    fn drop(&mut self) {
        self.shared.uncharge_inode();
        let mut stack: Vec<Arc<TmpInode>> = Vec::new();
        let take = |inode: &TmpInode, stack: &mut Vec<Arc<TmpInode>>| {
            if let Body::Dir(d) = &inode.body {
                let dir = std::mem::replace(&mut *d.lock(), Dir::new());
                stack.extend(dir.into_inodes());
            }
        };
        take(self, &mut stack);
        while let Some(child) = stack.pop() {
            if let Some(last) = Arc::into_inner(child) {
                take(&last, &mut stack);
            }
        }
    }
}

fn tmp(inode: &Arc<dyn Inode>) -> Result<&TmpInode> {
    let any: &dyn Any = &**inode;
    any.downcast_ref().ok_or(Errno::EXDEV)
}

fn stamp(t: SetTime, now: Timespec) -> Timespec {
    match t {
        SetTime::Now => now,
        SetTime::At(t) => t,
    }
}

impl Inode for TmpInode {
    fn fs(&self) -> &dyn FileSystem {
        &*self.shared
    }
    fn file_type(&self) -> FileType {
        self.kind
    }
    fn ino(&self) -> u64 {
        self.ino
    }
    fn perm(&self) -> Result<Perm> {
        Ok(Perm {
            mode: self.kind.mode_bits() | self.mode.load(Ordering::Relaxed),
            uid: self.uid.load(Ordering::Relaxed),
            gid: self.gid.load(Ordering::Relaxed),
        })
    }
    fn attr(&self) -> Result<Attr> {
        let p = self.perm()?;
        let (size, blocks) = match &self.body {
            Body::File(d) => {
                let (size, pages) = d.size_and_pages();
                (size, pages * 8)
            }
            Body::Dir(d) => ((d.lock().len() as u64 + 2) * ENTRY_SIZE, 0),
            Body::Symlink(t) => (t.len() as u64, 0),
            Body::Special => (0, 0),
        };
        let t = *self.times.lock();
        Ok(Attr {
            dev: self.shared.dev,
            ino: self.ino,
            mode: p.mode,
            nlink: self.nlink.load(Ordering::Acquire),
            uid: p.uid,
            gid: p.gid,
            rdev: self.rdev,
            size,
            blksize: 4096,
            blocks,
            atime: t.atime,
            mtime: t.mtime,
            ctime: t.ctime,
            btime: Some(self.btime),
        })
    }
    fn set_attr(&self, _cx: &Caller<'_>, set: &SetAttr) -> Result<()> {
        if let (Some(new), Some(d)) = (set.mode, self.data())
            && d.seals() & seal::EXEC != 0
            && (new ^ self.mode.load(Ordering::Relaxed)) & 0o111 != 0
        {
            return Err(Errno::EPERM);
        }
        if let Some(size) = set.size {
            self.data().ok_or(Errno::EINVAL)?.set_size(size)?;
        }
        if let Some(m) = set.mode {
            self.mode.store(m & mode::PERM, Ordering::Relaxed);
        }
        if let Some(u) = set.uid {
            self.uid.store(u, Ordering::Relaxed);
        }
        if let Some(g) = set.gid {
            self.gid.store(g, Ordering::Relaxed);
        }
        let now = self.shared.now();
        let mut t = self.times.lock();
        if let Some(a) = set.atime {
            t.atime = stamp(a, now);
        }
        if let Some(m) = set.mtime {
            t.mtime = stamp(m, now);
        }
        if set.size.is_some() {
            t.mtime = now;
        }
        let only_access = set.atime == Some(SetTime::Now)
            && set.mtime.is_none()
            && set.mode.is_none()
            && set.uid.is_none()
            && set.gid.is_none()
            && set.size.is_none();
        if !only_access {
            t.ctime = now;
        }
        Ok(())
    }

    fn lookup(&self, _cx: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let found = self.dir()?.lock().get(name).cloned().ok_or(Errno::ENOENT)?;
        Ok(found)
    }
    fn create(&self, _cx: &Caller<'_>, name: &[u8], args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        self.make(name, NewInode::from(args))
    }
    fn mkdir(&self, _cx: &Caller<'_>, name: &[u8], args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        self.make(name, NewInode::from(args))
    }
    fn symlink(
        &self,
        _: &Caller<'_>,
        name: &[u8],
        target: &[u8],
        args: &CreateArgs,
    ) -> Result<Arc<dyn Inode>> {
        self.make(name, NewInode { target: Some(target), ..NewInode::from(args) })
    }
    fn tmpfile(&self, _cx: &Caller<'_>, args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        Ok(TmpInode::new(&self.shared, &NewInode::from(args), 0)?)
    }
    fn link(&self, _cx: &Caller<'_>, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = tmp(target)?.me()?;
        let further = target.nlink.load(Ordering::Acquire) > 0;
        if further {
            self.shared.charge_inode()?;
        }
        target.add_links(1);
        if let Err(e) = self.add(name, &target) {
            target.sub_links(1);
            if further {
                self.shared.uncharge_inode();
            }
            return Err(e);
        }
        target.changed(false);
        Ok(())
    }
    fn unlink(&self, _cx: &Caller<'_>, name: &[u8], child: &Arc<dyn Inode>) -> Result<()> {
        let child = tmp(child)?;
        self.drop_entry(name, child)?;
        child.unlinked();
        Ok(())
    }
    fn rmdir(&self, _cx: &Caller<'_>, name: &[u8], child: &Arc<dyn Inode>) -> Result<()> {
        let child = tmp(child)?;
        child.kill_if_empty()?;
        self.drop_entry(name, child)?;
        child.unlinked();
        Ok(())
    }
    fn rename(
        &self,
        cx: &Caller<'_>,
        name: &[u8],
        child: &Arc<dyn Inode>,
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        replaced: Option<&Arc<dyn Inode>>,
        flags: RenameFlags,
    ) -> Result<()> {
        let (child, to) = (tmp(child)?.me()?, tmp(new_dir)?);
        if flags.contains(RenameFlags::EXCHANGE) {
            let other = tmp(replaced.ok_or(Errno::ENOENT)?)?.me()?;
            self.dir()?.lock().replace(name, Arc::clone(&other))?;
            to.dir()?.lock().replace(new_name, Arc::clone(&child))?;
            for (inode, from, into) in [(&child, self, to), (&other, to, self)] {
                if let Body::Dir(d) = &inode.body {
                    from.sub_links(1);
                    into.add_links(1);
                    d.lock().parent = Weak::clone(&into.me);
                }
                inode.changed(false);
            }
        } else {
            if let Some(old) = replaced {
                let old = tmp(old)?;
                old.kill_if_empty()?;
                let gone = to.dir()?.lock().replace(new_name, Arc::clone(&child))?;
                if old.kind == FileType::Directory {
                    to.sub_links(1);
                }
                old.unlinked();
                drop(gone);
            } else {
                to.dir()?.lock().insert(new_name, Arc::clone(&child))?;
            }
            let gone = self.dir()?.lock().remove(name)?;
            drop(gone);
            if let Body::Dir(d) = &child.body {
                self.sub_links(1);
                to.add_links(1);
                d.lock().parent = Weak::clone(&to.me);
            }
            child.changed(false);
            if flags.contains(RenameFlags::WHITEOUT) {
                let new = NewInode {
                    mode: FileType::CharDevice.mode_bits(),
                    uid: cx.creds.fsuid,
                    gid: cx.creds.fsgid,
                    rdev: 0,
                    target: None,
                };
                self.make(name, new)?;
            }
        }
        self.changed(true);
        to.changed(true);
        Ok(())
    }

    fn readlink(&self, _cx: &Caller<'_>) -> Result<LinkTarget> {
        match &self.body {
            Body::Symlink(t) => Ok(LinkTarget::Text(t.to_vec())),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(&self, _cx: &Caller<'_>, _path: &Path, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Ok(self.me()?)
    }

    fn getxattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let x = self.xattrs.get().ok_or(Errno::ENODATA)?;
        x.lock().get(name).cloned().ok_or(Errno::ENODATA)
    }
    fn setxattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        let x = self.xattrs.get_or_init(|| Box::new(Mutex::new(LockClass::InodeInner, Xattrs::new())));
        let mut x = x.lock();
        let exists = x.contains_key(name);
        if exists && flags.contains(XattrFlags::CREATE) {
            return Err(Errno::EEXIST);
        }
        if !exists && flags.contains(XattrFlags::REPLACE) {
            return Err(Errno::ENODATA);
        }
        let used: usize = x.iter().map(|(k, v)| k.len() + v.len()).sum();
        if used + name.len() + value.len() > XATTR_MAX {
            return Err(Errno::ENOSPC);
        }
        x.insert(name.into(), value.to_vec());
        drop(x);
        self.changed(false);
        Ok(())
    }
    fn listxattr(&self) -> Result<Vec<Vec<u8>>> {
        Ok(self.xattrs.get().map_or(Vec::new(), |x| x.lock().keys().map(|k| k.to_vec()).collect()))
    }
    fn removexattr(&self, name: &[u8]) -> Result<()> {
        let x = self.xattrs.get().ok_or(Errno::ENODATA)?;
        x.lock().remove(name).map(|_| ()).ok_or(Errno::ENODATA)?;
        self.changed(false);
        Ok(())
    }

    fn extras(&self) -> &InodeExtras {
        &self.extras
    }
}

impl FileOps for TmpInode {
    fn read(&self, _cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, pos: &mut u64) -> Result<usize> {
        match &self.body {
            Body::File(d) => d.read(dst, pos),
            _ => Err(Errno::EISDIR),
        }
    }
    fn write(&self, _cx: &Caller<'_>, f: &File, src: &mut dyn Source, pos: &mut u64) -> Result<usize> {
        let Body::File(d) = &self.body else {
            return Err(Errno::EISDIR);
        };
        let n = d.write(src, pos, f.flags().contains(OpenFlags::APPEND))?;
        if n > 0 {
            self.changed(true);
        }
        Ok(n)
    }
    fn seek(&self, _cx: &Caller<'_>, f: &File, pos: u64, from: SeekFrom) -> Result<u64> {
        match &self.body {
            Body::File(d) => match d.seek(from) {
                Some(r) => r,
                None => f.generic_seek(pos, from),
            },
            _ => match from {
                SeekFrom::Set(_) | SeekFrom::Cur(_) => f.generic_seek(pos, from),
                _ => Err(Errno::EINVAL),
            },
        }
    }
    fn readdir(&self, _cx: &Caller<'_>, _f: &File, pos: u64, sink: &mut dyn DirSink) -> Result<()> {
        let dir = self.dir()?;
        let mut at = pos;
        if at == 0 {
            if !sink.entry(self.ino, 1, FileType::Directory, b".") {
                return Ok(());
            }
            at = 1;
        }
        if at == 1 {
            let parent = dir.lock().parent.upgrade().map_or(self.ino, |p| p.ino);
            if !sink.entry(parent, FIRST, FileType::Directory, b"..") {
                return Ok(());
            }
            at = FIRST;
        }
        // The sink may write to guest memory, which must not happen under the lock.
        loop {
            let batch: SmallVec<[(u64, u64, FileType, Box<[u8]>); 64]> = {
                let dir = dir.lock();
                dir.from(at).take(64).map(|(n, e)| (n, e.inode.ino, e.inode.kind, e.name.clone())).collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            for (number, ino, kind, name) in batch {
                if !sink.entry(ino, number + 1, kind, &name) {
                    return Ok(());
                }
                at = number + 1;
            }
        }
    }
    fn fsync(&self, _f: &File, _data_only: bool) -> Result<()> {
        Ok(())
    }
    fn fallocate(&self, _f: &File, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.data().ok_or(Errno::ENODEV)?.fallocate(mode, offset, len)?;
        self.changed(true);
        Ok(())
    }
    fn mappable(&self, _f: &File) -> Result<Arc<dyn Mappable>> {
        let data = self.data().ok_or(Errno::ENODEV)?;
        Ok(Arc::clone(data) as Arc<dyn Mappable>)
    }
    fn release(&self, f: &File) {
        if f.flags().can_write()
            && let Some(d) = self.data()
        {
            d.drop_spare();
        }
    }
    fn attr(&self, _f: &File) -> Result<Attr> {
        Inode::attr(self)
    }
    fn seals(&self) -> Result<u32> {
        Ok(self.data().ok_or(Errno::EINVAL)?.seals())
    }
    fn add_seals(&self, f: &File, seals: u32) -> Result<()> {
        let data = self.data().ok_or(Errno::EINVAL)?;
        if !f.flags().can_write() {
            return Err(Errno::EPERM);
        }
        data.add_seals(seals, self.mode.load(Ordering::Relaxed) & 0o111 != 0)
    }
}
