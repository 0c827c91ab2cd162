//! Dentries: names in directories and what is known about them; the bounded cache of unused ones.
//!
//! A parent knows its children weakly and a child holds its parent: a dentry lives as long as
//! somebody uses it or something below it. [`DentryTree`] keeps recently used ones alive. It follows that
//! a name that is missing from its parent's table has nobody at or below it. How names become paths
//! is in `dpath.rs`; who calls file systems to fill the cache is `walk.rs` and `change.rs`.

use super::Inode;
use ksync::live::{Kind, Live};
use ksync::{LockClass, Mutex, MutexGuard, RwLock};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// How many dentries one file system's cache keeps that nobody uses. Each takes 450 bytes with its inode, less than half of what Linux needs.
const CACHE_LIMIT: usize = 128 * 1024;

const UNHASHED: u8 = 1;
const USED: u8 = 2;
const NAMELESS: u8 = 4;
const DEAD: u8 = 8;

/// A fast hash for names; the tables are small and belong to one directory each.
#[derive(Default)]
pub(super) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
    fn write(&mut self, bytes: &[u8]) {
        let mut h = self.0 ^ (bytes.len() as u64);
        let mut chunks = bytes.chunks_exact(8);
        for c in &mut chunks {
            let mut w = [0; 8];
            w.copy_from_slice(c);
            h = (h.rotate_left(5) ^ u64::from_le_bytes(w)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        for b in chunks.remainder() {
            h = (h.rotate_left(5) ^ u64::from(*b)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        self.0 = h;
    }
    fn write_usize(&mut self, _: usize) {}
}

type Children = HashMap<Box<[u8]>, Weak<Dentry>, BuildHasherDefault<NameHasher>>;

/// A name in a directory, existing or known to be missing.
pub struct Dentry {
    inode: Option<Arc<dyn Inode>>,
    place: Mutex<Place>,
    children: RwLock<Children>,
    /// Serialises lookups in and changes of this directory (`i_rwsem`).
    dir: Mutex<()>,
    tree: Arc<DentryTree>,
    flags: AtomicU8,
    /// How many mounts, in any namespace, have this dentry as mount point.
    mounted: AtomicU32,
    /// The cache's reference: the dentry itself, taken out when it is to go.
    kept: Mutex<Option<Arc<Dentry>>>,
    /// For the test that nothing is leaked.
    _live: Live,
}

struct Place {
    name: Box<[u8]>,
    parent: Option<Arc<Dentry>>,
}

/// What all dentries of one file system share: the cache of unused ones.
pub(super) struct DentryTree {
    /// Dentries that hold a reference on themselves, oldest first; also some that do so no more.
    ring: Mutex<VecDeque<Weak<Dentry>>>,
    closed: AtomicBool,
    /// Inotify watches ever set on inodes of this file system: zero saves asking parents.
    pub(super) watches: AtomicUsize,
    /// Watches on all of the file system.
    pub(super) whole: super::Watches,
    /// File handles that were given out.
    pub(super) handles: super::handle::Handles,
    /// Renames between directories of one file system (`s_vfs_rename_mutex`).
    pub(super) renames: Mutex<()>,
}

impl DentryTree {
    fn new() -> Arc<DentryTree> {
        Arc::new(DentryTree {
            ring: Mutex::new(LockClass::Leaf, VecDeque::new()),
            closed: AtomicBool::new(false),
            watches: AtomicUsize::new(0),
            whole: super::Watches::new(),
            handles: super::handle::Handles::default(),
            renames: Mutex::new(LockClass::MountTree, ()),
        })
    }

    /// Keeps a dentry alive for a while; may let others go.
    fn keep(&self, d: &Arc<Dentry>) {
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        let before = d.kept.lock().replace(Arc::clone(d));
        let mut seen: smallvec::SmallVec<[Arc<Dentry>; 8]> = smallvec::SmallVec::new();
        {
            let mut ring = self.ring.lock();
            ring.push_back(Arc::downgrade(d));
            let mut tries = 8;
            while ring.len() > CACHE_LIMIT && tries > 0 {
                tries -= 1;
                let Some(old) = ring.pop_front() else {
                    break;
                };
                let Some(d) = old.upgrade() else {
                    continue;
                };
                if d.flags.fetch_and(!USED, Ordering::Relaxed) & USED != 0 {
                    ring.push_back(old);
                }
                seen.push(d);
            }
        }
        for d in seen {
            if d.flags.load(Ordering::Relaxed) & USED == 0 {
                d.let_go();
            }
        }
        drop(before);
    }

    /// Lets all unused dentries go; with `close` for good.
    pub(super) fn shrink(&self, close: bool) {
        if close {
            self.closed.store(true, Ordering::Relaxed);
        }
        let gone = std::mem::take(&mut *self.ring.lock());
        for d in gone.iter().filter_map(Weak::upgrade) {
            d.let_go();
        }
    }
}

impl Dentry {
    fn make(
        inode: Option<Arc<dyn Inode>>,
        name: &[u8],
        parent: Option<Arc<Dentry>>,
        tree: Arc<DentryTree>,
        flags: u8,
    ) -> Arc<Dentry> {
        Arc::new(Dentry {
            _live: Live::new(Kind::Dentry),
            inode,
            place: Mutex::new(LockClass::Dentry, Place { name: name.into(), parent }),
            children: RwLock::new(LockClass::Dentry, Children::default()),
            dir: Mutex::new(LockClass::Directory, ()),
            tree,
            flags: AtomicU8::new(flags),
            mounted: AtomicU32::new(0),
            kept: Mutex::new(LockClass::Leaf, None),
        })
    }

    /// The root of a file system.
    pub fn root(inode: Arc<dyn Inode>) -> Arc<Dentry> {
        Dentry::make(Some(inode), b"", None, DentryTree::new(), 0)
    }

    /// The only dentry of a file without a place in any directory; `name` is what /proc/pid/fd shows, e.g.
    /// `pipe:[123]`.
    pub fn nameless(inode: Arc<dyn Inode>, name: &[u8]) -> Arc<Dentry> {
        Dentry::make(Some(inode), name, None, DentryTree::new(), NAMELESS)
    }

    /// A dentry below `self` that no lookup will find (`O_TMPFILE`); `dead` means that it can get no name.
    pub(super) fn unlinked_child(
        self: &Arc<Self>,
        inode: Arc<dyn Inode>,
        name: &[u8],
        dead: bool,
    ) -> Arc<Dentry> {
        let flags = if dead { UNHASHED | DEAD } else { UNHASHED };
        Dentry::make(Some(inode), name, Some(Arc::clone(self)), Arc::clone(&self.tree), flags)
    }

    /// The inode; `None` when the name does not exist.
    pub fn inode(&self) -> Option<&Arc<dyn Inode>> {
        self.inode.as_ref()
    }

    /// The last component of its path.
    pub fn name(&self) -> Box<[u8]> {
        self.place.lock().name.clone()
    }

    /// The directory it is in; `None` for roots.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.lock().parent.clone()
    }

    /// Parent and name at one moment.
    pub fn parent_and_name(&self) -> (Option<Arc<Dentry>>, Box<[u8]>) {
        let place = self.place.lock();
        (place.parent.clone(), place.name.clone())
    }

    /// A cached child.
    pub fn cached(&self, name: &[u8]) -> Option<Arc<Dentry>> {
        self.children.read().get(name)?.upgrade()
    }

    /// Whether the name is gone (unlinked, or never was one).
    pub fn is_unlinked(&self) -> bool {
        self.flags.load(Ordering::Acquire) & UNHASHED != 0
    }

    /// Whether this directory was removed: nothing can be made in it any more.
    pub fn is_dead(&self) -> bool {
        self.flags.load(Ordering::Acquire) & DEAD != 0
    }

    /// Whether it is the dentry of a file without a place, e.g. a pipe.
    pub fn is_nameless(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & NAMELESS != 0
    }

    pub(super) fn tree(&self) -> &Arc<DentryTree> {
        &self.tree
    }

    /// Marks it as used lately.
    pub(super) fn touch(&self) {
        if self.flags.load(Ordering::Relaxed) & USED == 0 {
            self.flags.fetch_or(USED, Ordering::Relaxed);
        }
    }

    /// Whether something may be mounted here.
    pub(super) fn mounted(&self) -> bool {
        self.mounted.load(Ordering::Acquire) != 0
    }
    pub(super) fn add_mounted(&self) {
        self.mounted.fetch_add(1, Ordering::AcqRel);
    }
    pub(super) fn sub_mounted(&self) {
        self.mounted.fetch_sub(1, Ordering::AcqRel);
    }

    /// Locks the directory against lookups that miss and against changes.
    pub(super) fn lock_dir(&self) -> MutexGuard<'_, ()> {
        self.dir.lock()
    }

    /// Locks two different directories.
    pub(super) fn lock_dirs<'a>(a: &'a Dentry, b: &'a Dentry) -> (MutexGuard<'a, ()>, MutexGuard<'a, ()>) {
        Mutex::lock_pair(&a.dir, &b.dir)
    }

    /// Enters the result of a lookup; the directory is locked. If somebody is using a dentry of that
    /// name already and it is as good, that one is the result. `keep`: put it into the cache.
    pub(super) fn enter(
        self: &Arc<Self>,
        name: &[u8],
        inode: Option<Arc<dyn Inode>>,
        keep: bool,
    ) -> Arc<Dentry> {
        let fresh = Dentry::make(inode, name, Some(Arc::clone(self)), Arc::clone(&self.tree), 0);
        // The old one may die with our reference, which must not happen under the lock.
        let (old, good) = {
            let mut children = self.children.write();
            let old = children.get(name).and_then(Weak::upgrade);
            let good =
                old.as_ref().is_some_and(|d| d.inode.is_some() && fresh.inode.is_some() && !d.is_unlinked());
            if !good {
                children.insert(name.into(), Arc::downgrade(&fresh));
            }
            (old, good)
        };
        if let (Some(d), true) = (old, good) {
            return d;
        }
        if keep {
            self.tree.keep(&fresh);
        }
        fresh
    }

    /// Enters a name that has just been made, over a negative dentry.
    pub(super) fn enter_new(
        self: &Arc<Self>,
        name: &[u8],
        inode: Option<Arc<dyn Inode>>,
        keep: bool,
    ) -> Arc<Dentry> {
        let fresh = Dentry::make(inode, name, Some(Arc::clone(self)), Arc::clone(&self.tree), 0);
        self.children.write().insert(name.into(), Arc::downgrade(&fresh));
        if keep {
            self.tree.keep(&fresh);
        }
        fresh
    }

    /// A dentry with a name but without an entry in its parent's table, e.g. a negative one of a file system
    /// whose names are not cached.
    pub(super) fn passing(self: &Arc<Self>, name: &[u8], inode: Option<Arc<dyn Inode>>) -> Arc<Dentry> {
        Dentry::make(inode, name, Some(Arc::clone(self)), Arc::clone(&self.tree), 0)
    }

    /// The cache forgets it: it goes when nobody uses it.
    fn let_go(&self) {
        let kept = self.kept.lock().take();
        drop(kept);
    }

    /// The name is gone: no lookup finds this dentry any more (`d_drop`).
    pub(super) fn unhash(&self, dead: bool) {
        self.flags.fetch_or(if dead { UNHASHED | DEAD } else { UNHASHED }, Ordering::AcqRel);
        let (parent, name) = self.parent_and_name();
        if let Some(parent) = parent {
            let mut children = parent.children.write();
            if children.get(&name).is_some_and(|w| std::ptr::eq(w.as_ptr(), self)) {
                children.remove(&name);
            }
        }
        self.let_go();
        if dead {
            // What is known of names in a removed directory would keep it.
            let known: Vec<Arc<Dentry>> = self.children.read().values().filter_map(Weak::upgrade).collect();
            for d in known {
                d.let_go();
            }
        }
    }

    /// Moves a dentry to another place (`d_move`). Both directories are locked.
    pub(super) fn move_to(self: &Arc<Self>, dir: &Arc<Dentry>, name: &[u8]) {
        let (old_parent, old_name) = {
            let mut place = self.place.lock();
            let old =
                std::mem::replace(&mut *place, Place { name: name.into(), parent: Some(Arc::clone(dir)) });
            (old.parent, old.name)
        };
        if let Some(old) = &old_parent {
            let mut children = old.children.write();
            if children.get(&old_name).is_some_and(|w| std::ptr::eq(w.as_ptr(), Arc::as_ptr(self))) {
                children.remove(&old_name);
            }
        }
        self.flags.fetch_and(!UNHASHED, Ordering::AcqRel);
        dir.children.write().insert(name.into(), Arc::downgrade(self));
        drop(old_parent);
    }

    /// Changes the places of two dentries (`d_exchange`).
    pub(super) fn exchange(self: &Arc<Self>, other: &Arc<Dentry>) {
        let (pa, na) = self.parent_and_name();
        let (pb, nb) = other.parent_and_name();
        let (Some(pa), Some(pb)) = (pa, pb) else {
            return;
        };
        {
            let mut place = self.place.lock();
            place.name = nb.clone();
            place.parent = Some(Arc::clone(&pb));
        }
        {
            let mut place = other.place.lock();
            place.name = na.clone();
            place.parent = Some(Arc::clone(&pa));
        }
        pb.children.write().insert(nb, Arc::downgrade(self));
        pa.children.write().insert(na, Arc::downgrade(other));
    }

    /// Whether `self` is `top` or below it.
    pub fn is_below(self: &Arc<Self>, top: &Arc<Dentry>) -> bool {
        let mut at = Arc::clone(self);
        loop {
            if Arc::ptr_eq(&at, top) {
                return true;
            }
            match at.parent() {
                Some(p) => at = p,
                None => return false,
            }
        }
    }

    /// The child of `top` through which `self` lies below `top`.
    pub(super) fn step_below(self: &Arc<Self>, top: &Arc<Dentry>) -> Option<Arc<Dentry>> {
        let mut at = Arc::clone(self);
        loop {
            let p = at.parent()?;
            if Arc::ptr_eq(&p, top) {
                return Some(at);
            }
            at = p;
        }
    }

    fn take_place(&self) -> Place {
        std::mem::replace(&mut *self.place.lock(), Place { name: Box::new([]), parent: None })
    }
}

impl Drop for Dentry {
    /// Takes the name out of the parent's table. Goes up in a loop, because a guest can make trees that
    /// are deeper than our stack.
    fn drop(&mut self) {
        let mut place = self.take_place();
        while let Some(parent) = place.parent {
            {
                let mut children = parent.children.write();
                if children.get(&place.name).is_some_and(|w| w.strong_count() == 0) {
                    children.remove(&place.name);
                    if children.is_empty() {
                        children.shrink_to_fit();
                    }
                }
            }
            match Arc::into_inner(parent) {
                None => break,
                Some(last) => place = last.take_place(),
            }
        }
    }
}

impl std::fmt::Debug for Dentry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dentry({:?})", String::from_utf8_lossy(&self.name()))
    }
}
