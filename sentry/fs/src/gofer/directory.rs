//! Directories of the gofer file system: finding names, changing them, listing them.

use std::sync::Arc;

use abi::stat::{FileType, major, minor};
use abi::{Errno, Result};
use gofer_protocol::codec::MAX_WALK;
use gofer_protocol::{Create, Entry, Mknod, Node, RENAME_PIN, UNLINK_DIRECTORY, UNLINK_PIN};
use kernel::vfs::{Caller, CreateArgs, DirSink, File, FileOps, Inode, RenameFlags};
use ksync::{LockClass, Mutex};
use platform::HostFile;
use std::any::Any;

use super::Sharing;
use super::calls::WalkResult;
use super::devices::Device;
use super::inode::{GoferInode, monotonic};
use super::listing::Listing;

/// After this many lookups in one directory its whole listing is read,
const LOOKUPS_BEFORE_LISTING: u32 = 4;
/// … if that takes no more than so many calls (of some 400 entries each).
const READ_AHEAD_CALLS: u32 = 4;

/// The gofer inode behind a VFS inode of the same file system.
fn own<'a>(dir: &GoferInode, inode: &'a Arc<dyn Inode>) -> Result<&'a GoferInode> {
    let any: &dyn Any = &**inode;
    any.downcast_ref::<GoferInode>().filter(|inode| Arc::ptr_eq(&inode.fs, &dir.fs)).ok_or(Errno::EXDEV)
}

impl GoferInode {
    /// Runs a call that needs this directory's handle, again when the handle was given back meanwhile or the gofer
    /// has no room for another.
    fn with_handle<T>(&self, mut call: impl FnMut(u64) -> Result<T>) -> Result<T> {
        let mut result = Err(Errno::ESTALE);
        for _ in 0..4 {
            result = self.directory_handle().and_then(&mut call);
            match result {
                Err(Errno::EBADF) => {}
                Err(Errno::ENFILE) => self.fs.give_back_handles(),
                _ => break,
            }
        }
        result
    }

    /// Runs a call that needs only the way to this directory; with a handle if that is the shorter one.
    fn with_route<T>(&self, mut call: impl FnMut((Node, &[Box<[u8]>])) -> Result<T>) -> Result<T> {
        let (handle, names, _) = self.route()?;
        if handle != 0 {
            match call((Node::child(handle, self.host_ino), &names)) {
                Err(Errno::EBADF | Errno::ESTALE | Errno::ENOENT | Errno::ENOTDIR) => {}
                done => return done,
            }
        }
        self.with_handle(|handle| call((Node::handle(handle), &[])))
    }

    fn walk(&self, names: &[&[u8]], flags: u32) -> Result<WalkResult> {
        self.with_handle(|handle| self.fs.connection().walk(handle, names, flags))
    }

    fn child(self: &Arc<Self>, name: &[u8], entry: &Entry) -> Arc<GoferInode> {
        GoferInode::of(&self.fs, entry, Some((self.clone(), name.into())))
    }

    fn myself(&self) -> Result<Arc<GoferInode>> {
        self.me.upgrade().ok_or(Errno::ESTALE)
    }

    /// What a kept listing says about a name: `Some(None)` that it does not exist.
    pub(super) fn listed(&self, name: &[u8]) -> Option<Option<Entry>> {
        if !self.fs.exclusive() {
            return None;
        }
        self.check_names();
        let listing = self.state.lock().listing.clone()?;
        match listing.find(&self.fs, name) {
            None => Some(None),
            Some(None) => None,
            Some(Some(entry)) => Some(Some(entry)),
        }
    }

    pub(super) fn find(&self, name: &[u8]) -> Result<Arc<GoferInode>> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let me = self.myself()?;
        match self.listed(name) {
            Some(None) => return Err(Errno::ENOENT),
            Some(Some(entry)) => return Ok(GoferInode::of_listed(&me, name, &entry)),
            None => {}
        }
        self.read_ahead();
        match self.listed(name) {
            Some(None) => return Err(Errno::ENOENT),
            Some(Some(entry)) => return Ok(GoferInode::of_listed(&me, name, &entry)),
            None => {}
        }
        let when = monotonic();
        let walked = self.walk(&[name], 0)?;
        match walked.entries.first() {
            Some(entry) => {
                let child = me.child(name, entry);
                if let Some(target) = walked.target {
                    child.set_target(target);
                }
                Ok(child)
            }
            None => {
                if walked.missing {
                    self.note_absent(name, when);
                }
                Err(walked.failed.unwrap_or(Errno::ENOENT))
            }
        }
    }

    pub(super) fn find_ahead(&self, names: &[&[u8]]) -> Result<(Vec<Arc<dyn Inode>>, bool)> {
        if names.len() < 2 {
            return Ok((Vec::new(), false));
        }
        let mut found: Vec<Arc<dyn Inode>> = Vec::with_capacity(names.len());
        let mut dir = self.myself()?;
        // What listings know costs nothing; the gofer walks from there.
        while let Some(name) = names.get(found.len()) {
            match dir.listed(name) {
                None => break,
                Some(None) => return Ok((found, true)),
                Some(Some(entry)) => {
                    let child = GoferInode::of_listed(&dir, name, &entry);
                    found.push(child.clone());
                    if child.kind != FileType::Directory {
                        return Ok((found, false));
                    }
                    dir = child;
                }
            }
        }
        let names = &names[found.len()..];
        let names = &names[..names.len().min(MAX_WALK)];
        if names.is_empty() {
            return Ok((found, false));
        }
        let when = monotonic();
        let walked = match dir.walk(names, 0) {
            Err(_) if !found.is_empty() => return Ok((found, false)),
            walked => walked?,
        };
        let last = walked.entries.len().wrapping_sub(1);
        for (index, (name, entry)) in names.iter().zip(&walked.entries).enumerate() {
            let child = dir.child(name, entry);
            if index == last
                && let Some(target) = &walked.target
            {
                child.set_target(target.clone());
            }
            found.push(child.clone());
            dir = child;
        }
        if walked.missing
            && let Some(name) = names.get(walked.entries.len())
        {
            dir.note_absent(name, when);
        }
        match walked.failed {
            Some(errno) if found.is_empty() => Err(errno),
            _ => Ok((found, walked.missing)),
        }
    }

    /// Whether `name` still means `child` (or nothing). Also takes over the attributes the gofer sends.
    pub(super) fn still_holds(&self, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        let sharing = self.fs.sharing();
        if sharing == Sharing::Exclusive {
            return true;
        }
        let child = match child.map(|child| own(self, child)) {
            None => None,
            Some(Ok(child)) => Some(child),
            Some(Err(_)) => return false,
        };
        let known = match sharing {
            Sharing::Rarely => self.name_is_known(name, child),
            _ => child.is_some_and(GoferInode::fresh),
        };
        if known {
            return true;
        }
        let when = monotonic();
        let Ok(walked) = self.walk(&[name], gofer_protocol::WALK_NO_LAST_HANDLE) else { return false };
        match (walked.entries.first(), child) {
            (None, None) => {
                if walked.missing {
                    self.note_absent(name, when);
                }
                walked.missing
            }
            (Some(entry), Some(child)) => {
                let same = self.fs.number(&entry.stat) == child.ino()
                    && FileType::from_mode(self.fs.dressed(entry.stat).mode) == Some(child.kind);
                if same {
                    child.learn(entry.stat);
                    child.met(self, name);
                }
                same
            }
            _ => false,
        }
    }

    fn request(handle: u64, args: &CreateArgs) -> Create {
        Create {
            node: Node::handle(handle),
            mode: args.mode & 0o7777,
            uid: args.uid,
            gid: args.gid,
            flags: 0,
        }
    }

    pub(super) fn make_file(&self, name: &[u8], args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        let me = self.myself()?;
        if FileType::from_mode(args.mode) == Some(FileType::Regular) {
            let (entry, fd) =
                self.with_handle(|handle| self.fs.connection().create(&Self::request(handle, args), name))?;
            self.forget();
            let child = me.child(name, &entry);
            child.adopt_host_file(HostFile::new(fd, true), true);
            return Ok(child);
        }
        let kind = FileType::from_mode(args.mode).ok_or(Errno::EINVAL)?;
        let (major, minor) = (major(args.rdev), minor(args.rdev));
        let make = |kind: FileType| {
            let file_type = kind.mode_bits();
            self.with_handle(|handle| {
                let create = Self::request(handle, args);
                let request = Mknod { create, file_type, rdev_major: major, rdev_minor: minor, reserved: 0 };
                self.fs.connection().mknod(&request, name)
            })
        };
        let entry = match make(kind) {
            Err(Errno::EPERM) if matches!(kind, FileType::CharDevice | FileType::BlockDevice) => {
                let entry = make(FileType::Regular)?;
                let device = Device { kind, major, minor };
                self.fs.devices.add(self.fs.number(&entry.stat), entry.stat.btime, device);
                entry
            }
            made => made?,
        };
        self.forget();
        Ok(me.child(name, &entry))
    }

    pub(super) fn make_directory(&self, name: &[u8], args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        let me = self.myself()?;
        let entry =
            self.with_handle(|handle| self.fs.connection().mkdir(&Self::request(handle, args), name))?;
        self.forget();
        Ok(me.child(name, &entry))
    }

    pub(super) fn make_symlink(
        &self,
        name: &[u8],
        target: &[u8],
        args: &CreateArgs,
    ) -> Result<Arc<dyn Inode>> {
        let me = self.myself()?;
        let entry = self
            .with_handle(|handle| self.fs.connection().symlink(&Self::request(handle, args), name, target))?;
        self.forget();
        let child = me.child(name, &entry);
        child.set_target(target.to_vec());
        Ok(child)
    }

    pub(super) fn make_unnamed(&self, args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        let (entry, fd) =
            self.with_handle(|handle| self.fs.connection().create_unnamed(&Self::request(handle, args)))?;
        let file = GoferInode::of(&self.fs, &entry, None);
        file.adopt_host_file(HostFile::new(fd, true), true);
        Ok(file)
    }

    pub(super) fn add_link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let source = own(self, target)?;
        let entry = self.with_handle(|handle| {
            source.with_node(|node, old| self.fs.connection().link(node, old, handle, name))
        })?;
        self.forget();
        source.learn_change(entry.stat);
        let mut state = source.state.lock();
        if state.place.is_none() {
            let place = (self.myself()?, name.into());
            state.place = Some(place);
        }
        Ok(())
    }

    pub(super) fn remove(&self, name: &[u8], child: &Arc<dyn Inode>, flags: u32) -> Result<()> {
        let child = own(self, child)?;
        let mut flags = flags;
        if flags & UNLINK_DIRECTORY == 0 && (child.in_use() || child.state.lock().stat.nlink > 1) {
            // It stays reachable: by descriptors, or by names that are not known here.
            flags |= UNLINK_PIN;
        }
        let gone = self.with_handle(|handle| {
            self.fs.connection().unlink(Node::child(handle, child.host_ino), name, flags)
        })?;
        self.forget();
        let mut stat = gone.stat;
        if flags & UNLINK_DIRECTORY != 0 {
            // Some file systems keep 1 or 2 here; nobody can reach it any more.
            stat.nlink = 0;
        }
        child.unlinked(self, name, stat, gone.handle);
        Ok(())
    }

    pub(super) fn move_child(
        &self,
        name: &[u8],
        child: &Arc<dyn Inode>,
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        replaced: Option<&Arc<dyn Inode>>,
        flags: RenameFlags,
    ) -> Result<()> {
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let child = own(self, child)?;
        let new_dir = own(self, new_dir)?;
        let replaced = replaced.map(|replaced| own(self, replaced)).transpose()?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let mut bits = flags.bits();
        if let Some(old) = replaced
            && !exchange
            && old.kind != FileType::Directory
            && (old.in_use() || old.state.lock().stat.nlink > 1)
        {
            bits |= RENAME_PIN;
        }
        let gone = self.with_handle(|from| {
            new_dir.with_handle(|to| self.fs.connection().rename((from, name), (to, new_name), bits))
        })?;
        let (here, there) = (self.myself()?, new_dir.myself()?);
        let moved = |inode: &GoferInode, place| {
            let mut state = inode.state.lock();
            state.known_at = None;
            let old = state.place.replace(place);
            drop(state);
            drop(old);
        };
        if let Some(old) = replaced {
            if exchange {
                moved(old, (here, name.into()));
            } else if std::ptr::eq(old, child) {
                self.fs.close_later(gone.handle);
            } else if bits & RENAME_PIN != 0 {
                old.unlinked(new_dir, new_name, gone.stat, gone.handle);
            } else {
                let mut stat = old.state.lock().stat;
                stat.nlink = 0;
                old.unlinked(new_dir, new_name, stat, 0);
            }
        }
        // Both names may be links to one file: then rename(2) does nothing.
        if !replaced.is_some_and(|old| std::ptr::eq(old, child)) {
            moved(child, (there, new_name.into()));
        }
        self.forget();
        new_dir.forget();
        Ok(())
    }

    /// All entries now; in exclusive mode the listing that was read last, if nothing changed since.
    fn listing(&self) -> Result<Arc<Listing>> {
        self.check_names();
        if self.fs.exclusive()
            && let Some(listing) = self.state.lock().listing.clone()
        {
            return Ok(listing);
        }
        self.read_listing(u32::MAX)?.ok_or(Errno::EIO)
    }

    /// Reads all entries, unless that takes too many calls. In exclusive mode with their attributes, to answer
    /// lookups from.
    fn read_listing(&self, max_calls: u32) -> Result<Option<Arc<Listing>>> {
        let exclusive = self.fs.exclusive();
        let before = self.state.lock().changes;
        let read = self.with_route(|route| Listing::read(&self.fs, route, exclusive, max_calls))?;
        let Some(listing) = read.map(Arc::new) else { return Ok(None) };
        if exclusive {
            let mut state = self.state.lock();
            if state.changes == before {
                state.listing = Some(listing.clone());
                drop(state);
                self.fs.keep_listing(&self.me, listing.len());
            }
        }
        Ok(Some(listing))
    }

    /// Several names were asked for here one by one: more will be (a search path, an import, a build). The whole listing answers
    /// them all, also those of names that do not exist.
    fn read_ahead(&self) {
        if !self.fs.exclusive() {
            return;
        }
        {
            let mut state = self.state.lock();
            state.lookups = state.lookups.saturating_add(1);
            if state.lookups != LOOKUPS_BEFORE_LISTING || state.listing.is_some() {
                return;
            }
        }
        // Without it each lookup is a call of its own, as before.
        let _ = self.read_listing(READ_AHEAD_CALLS);
    }

    fn parent_number(&self) -> u64 {
        let parent = self.state.lock().place.as_ref().map(|(parent, _)| parent.clone());
        parent.map_or(self.ino(), |parent| parent.ino())
    }
}

impl GoferInode {
    /// The inode for an entry of a kept listing. One in use knows more than the listing does.
    fn of_listed(dir: &Arc<GoferInode>, name: &[u8], entry: &Entry) -> Arc<GoferInode> {
        let ino = dir.fs.number(&entry.stat);
        let known = dir.fs.tables().inodes.get(&ino).and_then(std::sync::Weak::upgrade);
        match known {
            Some(known) if Some(known.kind) == FileType::from_mode(dir.fs.dressed(entry.stat).mode) => known,
            _ => dir.child(name, entry),
        }
    }
}

/// An open directory: a snapshot of its entries from the last rewind, so that positions stay true while it changes.
pub(super) struct DirectoryFile {
    inode: Arc<GoferInode>,
    snapshot: Mutex<Option<Arc<Listing>>>,
}

impl DirectoryFile {
    pub(super) fn new(inode: Arc<GoferInode>) -> DirectoryFile {
        DirectoryFile { inode, snapshot: Mutex::new(LockClass::Dentry, None) }
    }
}

impl FileOps for DirectoryFile {
    fn read(
        &self,
        _cx: &Caller<'_>,
        _f: &File,
        _dst: &mut dyn kernel::io::Sink,
        _pos: &mut u64,
    ) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn readdir(&self, _cx: &Caller<'_>, _f: &File, pos: u64, sink: &mut dyn DirSink) -> Result<()> {
        let kept = if pos == 0 { None } else { self.snapshot.lock().clone() };
        let listing = match kept {
            Some(listing) => listing,
            None => {
                let listing = self.inode.listing()?;
                *self.snapshot.lock() = Some(listing.clone());
                listing
            }
        };
        let total = u64::try_from(listing.len()).unwrap_or(u64::MAX).saturating_add(2);
        for at in pos..total {
            let taken = match at {
                0 => sink.entry(self.inode.ino(), 1, FileType::Directory, b"."),
                1 => sink.entry(self.inode.parent_number(), 2, FileType::Directory, b".."),
                _ => {
                    let index = usize::try_from(at - 2).unwrap_or(usize::MAX);
                    let Some((ino, kind, name)) = listing.entry(index) else { break };
                    sink.entry(ino, at + 1, kind, name)
                }
            };
            if !taken {
                break;
            }
        }
        Ok(())
    }

    fn fsync(&self, _f: &File, _data_only: bool) -> Result<()> {
        if self.inode.fs.read_only() {
            return Ok(());
        }
        self.inode.with_node(|node, name| self.inode.fs.connection().fsync(node, name))
    }
}
