//! An inode of the gofer file system: what the sentry knows of one file of the host, and how the gofer finds it.
//!
//! A file is found by its directory and name; only directories (and files whose name is gone) have a
//! handle in the gofer, so that knowing many files costs the gofer nothing.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use gofer_protocol::codec::MAX_WALK;
use gofer_protocol::{Entry, Node, Stat, Timestamp};
use kernel::vfs::{
    Attr, Caller, CreateArgs, FileOps, FileSystem, Inode, InodeExtras, LinkTarget, Path, Perm, RenameFlags,
    SetAttr, XattrFlags,
};
use ksync::{LockClass, Mutex};
use platform::HostFile;

use super::GoferFs;
use super::directory::DirectoryFile;
use super::listing::Listing;
use super::names::Names;
use super::regular::RegularFile;
use crate::mappings::Mappings;

/// A directory and a name in it.
pub(super) type Place = (Arc<GoferInode>, Box<[u8]>);

/// One file, directory, link … of the host.
pub struct GoferInode {
    pub(super) fs: Arc<GoferFs>,
    pub(super) me: Weak<GoferInode>,
    ino: u64,
    /// On the host, to recognise it.
    pub(super) host_ino: u64,
    btime: Timestamp,
    pub(super) kind: FileType,
    pub(super) state: Mutex<State>,
    /// Held over a write to a regular file, so that appending finds the true end.
    pub(super) write_lock: Mutex<()>,
    /// Open descriptions.
    pub(super) users: AtomicU32,
    pub(super) mappings: Mappings,
    target: OnceLock<Vec<u8>>,
    extras: InodeExtras,
}

/// What may change.
pub(super) struct State {
    pub(super) stat: Stat,
    /// When `stat` was true, on the host's monotonic clock; `None` if it is known to be old.
    pub(super) known_at: Option<i64>,
    /// The gofer's handle, or 0.
    pub(super) handle: u64,
    /// Where it was last seen; `None` for the root and for what has no name.
    pub(super) place: Option<Place>,
    /// The host's file, once opened, and whether it may be written.
    pub(super) host: Option<Arc<HostFile>>,
    pub(super) host_writable: bool,
    pub(super) listing: Option<Arc<Listing>>,
    /// How often this directory was changed, and how often the gofer was asked for a name in it.
    pub(super) changes: u32,
    pub(super) lookups: u32,
    pub(super) names: Names,
    /// When the gofer last told of it under the name where it is.
    pub(super) met_at: i64,
    /// It was found to have no extended attributes.
    pub(super) no_xattrs: bool,
}

impl State {
    /// Takes fresh attributes. A new ctime may mean new extended attributes.
    pub(super) fn learn(&mut self, stat: Stat) {
        self.no_xattrs &= self.stat.ctime == stat.ctime;
        self.stat = stat;
        self.known_at = Some(monotonic());
    }
}

/// How long the attributes of a file that the host may change are believed, in nanoseconds: long enough for the steps of one system
/// call, too short to notice.
const MOMENT: i64 = 1_000_000;

pub(super) fn monotonic() -> i64 {
    platform::clock::monotonic()
}

impl GoferInode {
    /// The inode for a file that the gofer told of: the one in use, or a new one.
    pub(super) fn of(fs: &Arc<GoferFs>, entry: &Entry, place: Option<Place>) -> Arc<GoferInode> {
        let ino = fs.number(&entry.stat);
        let stat = fs.dressed(entry.stat);
        let kind = FileType::from_mode(stat.mode).unwrap_or(FileType::Regular);
        let make = |place: Option<Place>| {
            Arc::new_cyclic(|me| GoferInode {
                fs: fs.clone(),
                me: me.clone(),
                ino,
                host_ino: stat.ino,
                btime: stat.btime,
                kind,
                state: Mutex::new(
                    LockClass::Inode,
                    State {
                        stat,
                        known_at: Some(monotonic()),
                        handle: entry.handle,
                        place,
                        host: None,
                        host_writable: false,
                        listing: None,
                        changes: 0,
                        lookups: 0,
                        names: Names::default(),
                        met_at: monotonic(),
                        no_xattrs: false,
                    },
                ),
                write_lock: Mutex::new(LockClass::FileWrite, ()),
                users: AtomicU32::new(0),
                mappings: Mappings::default(),
                target: OnceLock::new(),
                extras: InodeExtras::default(),
            })
        };
        let mut tables = fs.tables();
        let known = tables.inodes.get(&ino).and_then(Weak::upgrade);
        // The same number with another type or birth is a new file that got the number of an old one.
        let same = known.as_ref().is_some_and(|known| known.kind == kind && known.btime == stat.btime);
        let Some(known) = known.as_ref().filter(|_| same) else {
            let new = make(place);
            tables.inodes.insert(ino, new.me.clone());
            // Before an old inode may be dropped, which takes this lock.
            drop(tables);
            drop(known);
            if entry.handle != 0 {
                fs.lend_handle(&new.me);
            }
            return new;
        };
        drop(tables);
        let mut state = known.state.lock();
        state.learn(stat);
        let old = if place.is_some() {
            state.met_at = monotonic();
            std::mem::replace(&mut state.place, place)
        } else {
            None
        };
        let mut lent = false;
        if entry.handle != 0 {
            if state.handle == 0 {
                state.handle = entry.handle;
                lent = true;
            } else if state.handle != entry.handle {
                fs.close_later(entry.handle);
            }
        }
        drop(state);
        // Dropping a directory may drop its parents, which must not happen under a lock.
        drop(old);
        if lent {
            fs.lend_handle(&known.me);
        }
        known.clone()
    }

    pub(super) fn handle(&self) -> u64 {
        self.state.lock().handle
    }

    fn is_root(&self) -> bool {
        self.handle() == self.fs.root.handle
    }

    /// Lets the gofer close its descriptor; a directory gets a new one when it is needed.
    pub(super) fn give_back_handle(&self) {
        if self.kind != FileType::Directory || self.is_root() {
            return;
        }
        let mut state = self.state.lock();
        if state.place.is_some() {
            let handle = std::mem::take(&mut state.handle);
            drop(state);
            self.fs.close_later(handle);
        }
    }

    /// The way to this directory: the handle of the nearest ancestor (or itself) that has one, and the names down from there.
    /// So deep that one call cannot name it, the handle is 0 and the ancestor where this ended is given.
    pub(super) fn route(&self) -> Result<(u64, Vec<Box<[u8]>>, Option<Arc<GoferInode>>)> {
        let (mut handle, mut place) = {
            let state = self.state.lock();
            (state.handle, state.place.clone())
        };
        let mut names = Vec::new();
        let mut at = None;
        while handle == 0 && names.len() < MAX_WALK {
            let Some((parent, name)) = place else { return Err(Errno::ESTALE) };
            names.push(name);
            (handle, place) = {
                let state = parent.state.lock();
                (state.handle, state.place.clone())
            };
            at = Some(parent);
        }
        names.reverse();
        Ok((handle, names, at))
    }

    /// A handle of this directory. One that was given back is walked to again, in one call from the nearest
    /// ancestor that still has one.
    pub(super) fn directory_handle(&self) -> Result<u64> {
        for attempt in 0..4 {
            let (handle, names, start) = self.route()?;
            if names.is_empty() {
                return Ok(handle);
            }
            // So deep that one walk does not do: the ancestor first, by itself.
            let from = match start {
                Some(start) if handle == 0 => start.directory_handle()?,
                _ => handle,
            };
            let path: Vec<&[u8]> = names.iter().map(AsRef::as_ref).collect();
            let walked = match self.fs.connection().walk(from, &path, 0) {
                Ok(walked) => walked,
                Err(Errno::ENFILE) => {
                    self.fs.give_back_handles();
                    continue;
                }
                // The ancestor gave its handle back, or something was renamed, in between.
                Err(Errno::EBADF) if attempt < 3 => continue,
                Err(errno) => return Err(errno),
            };
            let complete = walked.entries.len() == path.len();
            let mut found = None;
            for (index, entry) in walked.entries.iter().enumerate() {
                if complete && index + 1 == path.len() && entry.stat.ino == self.host_ino {
                    found = Some(entry.handle);
                } else {
                    self.fs.close_later(entry.handle);
                }
            }
            let Some(found) = found else { return Err(Errno::ESTALE) };
            let mut state = self.state.lock();
            if state.handle != 0 {
                let kept = state.handle;
                drop(state);
                self.fs.close_later(found);
                return Ok(kept);
            }
            state.handle = found;
            drop(state);
            self.fs.lend_handle(&self.me);
            return Ok(found);
        }
        Err(Errno::ESTALE)
    }

    /// Calls `call` with what names this file to the gofer; again when it was moved meanwhile.
    pub(super) fn with_node<T>(&self, mut call: impl FnMut(Node, &[u8]) -> Result<T>) -> Result<T> {
        let mut result = Err(Errno::ESTALE);
        for _ in 0..4 {
            let (handle, place) = {
                let state = self.state.lock();
                (state.handle, state.place.clone())
            };
            if self.kind == FileType::Directory {
                result = self.directory_handle().and_then(|handle| call(Node::handle(handle), b""));
            } else if let Some((parent, name)) = &place {
                result =
                    parent.directory_handle().and_then(|dir| call(Node::child(dir, self.host_ino), name));
                if handle != 0 && matches!(result, Err(Errno::ENOENT | Errno::ESTALE | Errno::ENOTDIR)) {
                    result = call(Node::handle(handle), b"");
                }
            } else if handle != 0 {
                result = call(Node::handle(handle), b"");
            } else {
                return Err(Errno::ESTALE);
            }
            match result {
                Err(Errno::ENOENT | Errno::ESTALE | Errno::EBADF | Errno::ENOTDIR) => {}
                Err(Errno::ENFILE) => self.fs.give_back_handles(),
                _ => return result,
            }
            let state = self.state.lock();
            let same_place = match (&state.place, &place) {
                (Some(now), Some(then)) => Arc::ptr_eq(&now.0, &then.0) && now.1 == then.1,
                (_, None) => state.handle == handle,
                (None, Some(_)) => false,
            };
            if same_place && !matches!(result, Err(Errno::ENFILE | Errno::EBADF)) {
                break;
            }
        }
        result
    }

    /// Takes fresh attributes.
    pub(super) fn learn(&self, stat: Stat) {
        let stat = self.fs.dressed(stat);
        self.state.lock().learn(stat);
    }

    /// Takes the attributes that a change of ours led to.
    pub(super) fn learn_change(&self, stat: Stat) {
        self.fs.changed();
        self.learn(stat);
    }

    /// The attributes (and for a directory the listing) are not what they were.
    pub(super) fn forget(&self) {
        self.fs.changed();
        let mut state = self.state.lock();
        state.known_at = None;
        state.listing = None;
        state.changes = state.changes.wrapping_add(1);
        state.lookups = 0;
    }

    pub(super) fn forget_listing(&self) {
        let listing = self.state.lock().listing.take();
        drop(listing);
    }

    /// Whether what is known of it can still be believed.
    pub(super) fn fresh(&self) -> bool {
        match self.state.lock().known_at {
            None => false,
            // A file that only this sandbox writes to, or that is replaced by another inode.
            Some(_) if self.fs.exclusive() && self.kind != FileType::Directory => true,
            Some(at) => at > self.believed_since(MOMENT),
        }
    }

    /// What the gofer sent along for a symlink.
    pub(super) fn set_target(&self, target: Vec<u8>) {
        let _ = self.target.set(target);
    }

    /// Somebody besides dentries uses the file.
    pub(super) fn in_use(&self) -> bool {
        self.users.load(Ordering::Relaxed) > 0 || !self.mappings.is_empty()
    }

    /// A name of this file is gone; `stat` is what it is now, `handle` how the gofer still finds it (0: it does not).
    pub(super) fn unlinked(&self, parent: &GoferInode, name: &[u8], stat: Stat, handle: u64) {
        let stat = self.fs.dressed(stat);
        let mut state = self.state.lock();
        state.learn(stat);
        let here =
            state.place.as_ref().is_some_and(|(dir, at)| std::ptr::eq(&**dir, parent) && **at == *name);
        let place = if here { state.place.take() } else { None };
        if handle != 0 {
            if state.handle == 0 {
                state.handle = handle;
            } else {
                self.fs.close_later(handle);
            }
        }
        drop(state);
        drop(place);
        if stat.nlink == 0 {
            self.leave_table();
            self.fs.devices.remove(self.ino);
        }
    }

    /// The host may give the number to a new file now.
    fn leave_table(&self) {
        let mut tables = self.fs.tables();
        if tables.inodes.get(&self.ino).is_some_and(|listed| listed.ptr_eq(&self.me)) {
            tables.inodes.remove(&self.ino);
        }
    }
}

impl Drop for GoferInode {
    fn drop(&mut self) {
        self.leave_table();
        let state = self.state.get_mut();
        if state.host_writable {
            // It may have been written since some listing told its size.
            self.fs.changed();
        }
        self.fs.close_later(state.handle);
        // Ancestors that only this inode kept go one by one: recursion would overflow the stack on a deep tree.
        let mut place = state.place.take();
        while let Some((parent, _)) = place {
            place = Arc::into_inner(parent).and_then(|mut parent| parent.state.get_mut().place.take());
        }
    }
}

impl Inode for GoferInode {
    fn fs(&self) -> &dyn FileSystem {
        &*self.fs
    }

    fn file_type(&self) -> FileType {
        self.kind
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn attr(&self) -> Result<Attr> {
        self.current_attr()
    }

    fn perm(&self) -> Result<Perm> {
        if !self.fresh() {
            self.current_attr()?;
        }
        let state = self.state.lock();
        Ok(Perm { mode: state.stat.mode, uid: state.stat.uid, gid: state.stat.gid })
    }

    fn set_attr(&self, _cx: &Caller<'_>, set: &SetAttr) -> Result<()> {
        self.change_attr(set)
    }

    fn lookup(&self, _cx: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.find(name).map(|found| found as Arc<dyn Inode>)
    }

    fn lookup_ahead(&self, _cx: &Caller<'_>, names: &[&[u8]]) -> Result<(Vec<Arc<dyn Inode>>, bool)> {
        self.find_ahead(names)
    }

    fn revalidate(&self, _cx: &Caller<'_>, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        self.still_holds(name, child)
    }

    fn create(&self, _cx: &Caller<'_>, name: &[u8], args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        self.make_file(name, args)
    }

    fn mkdir(&self, _cx: &Caller<'_>, name: &[u8], args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        self.make_directory(name, args)
    }

    fn symlink(
        &self,
        _cx: &Caller<'_>,
        name: &[u8],
        target: &[u8],
        args: &CreateArgs,
    ) -> Result<Arc<dyn Inode>> {
        self.make_symlink(name, target, args)
    }

    fn tmpfile(&self, _cx: &Caller<'_>, args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        self.make_unnamed(args)
    }

    fn link(&self, _cx: &Caller<'_>, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        self.add_link(name, target)
    }

    fn unlink(&self, _cx: &Caller<'_>, name: &[u8], child: &Arc<dyn Inode>) -> Result<()> {
        self.remove(name, child, 0)
    }

    fn rmdir(&self, _cx: &Caller<'_>, name: &[u8], child: &Arc<dyn Inode>) -> Result<()> {
        self.remove(name, child, gofer_protocol::UNLINK_DIRECTORY)
    }

    fn rename(
        &self,
        _cx: &Caller<'_>,
        name: &[u8],
        child: &Arc<dyn Inode>,
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        replaced: Option<&Arc<dyn Inode>>,
        flags: RenameFlags,
    ) -> Result<()> {
        self.move_child(name, child, new_dir, new_name, replaced, flags)
    }

    fn readlink(&self, _cx: &Caller<'_>) -> Result<LinkTarget> {
        if self.kind != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        if let Some(target) = self.target.get() {
            return Ok(LinkTarget::Text(target.clone()));
        }
        let target = self.with_node(|node, name| self.fs.connection().readlink(node, name))?;
        // A link's target never changes; another target is another inode.
        Ok(LinkTarget::Text(self.target.get_or_init(|| target).clone()))
    }

    fn open(&self, _cx: &Caller<'_>, _path: &Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let me = self.me.upgrade().ok_or(Errno::ESTALE)?;
        match self.kind {
            FileType::Directory => Ok(Arc::new(DirectoryFile::new(me))),
            FileType::Regular => Ok(Arc::new(RegularFile::open(me, flags)?)),
            _ => Err(Errno::ENXIO),
        }
    }

    fn getxattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.read_xattr(name)
    }

    fn setxattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        self.write_xattr(name, value, flags)
    }

    fn listxattr(&self) -> Result<Vec<Vec<u8>>> {
        self.xattr_names()
    }

    fn removexattr(&self, name: &[u8]) -> Result<()> {
        self.delete_xattr(name)
    }

    fn extras(&self) -> &InodeExtras {
        &self.extras
    }
}
