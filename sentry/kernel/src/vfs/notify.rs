//! File events: which inodes are watched and the calls that tell of events (inotify(7)). The queue of
//! an inotify instance is its file's matter; here is only the hook.

use super::{Caller, Dentry, Inode, Mount, Path};
use bitflags::bitflags;
use ksync::{LockClass, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

bitflags! {
    /// `IN_*`
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Event: u32 {
        const ACCESS = 0x1;
        const MODIFY = 0x2;
        const ATTRIB = 0x4;
        const CLOSE_WRITE = 0x8;
        const CLOSE_NOWRITE = 0x10;
        const OPEN = 0x20;
        const MOVED_FROM = 0x40;
        const MOVED_TO = 0x80;
        const CREATE = 0x100;
        const DELETE = 0x200;
        const DELETE_SELF = 0x400;
        const MOVE_SELF = 0x800;
        /// Opened to be executed; only fanotify(7) has it.
        const OPEN_EXEC = 0x1000;
        const UNMOUNT = 0x2000;
        const IGNORED = 0x8000;
        const ISDIR = 0x4000_0000;
    }
}

/// Who makes something happen, and through which mount.
#[derive(Clone, Copy, Default)]
pub struct Origin<'a> {
    /// Process id in the root PID namespace, 0 when nobody's.
    pub pid: i32,
    pub mount: Option<&'a Arc<Mount>>,
}

impl<'a> Origin<'a> {
    /// The caller, by no mount in particular.
    pub fn of(cx: &Caller<'_>) -> Origin<'a> {
        Origin { pid: cx.task.map_or(0, |t| t.group().tgid), mount: None }
    }
    /// The caller, at a place.
    pub fn at(cx: &Caller<'_>, path: &'a Path) -> Origin<'a> {
        Origin { mount: Some(&path.mount), ..Origin::of(cx) }
    }
}

/// What happened, with all that is known of it.
#[derive(Clone, Copy)]
pub struct Happening<'a> {
    pub event: Event,
    pub cookie: u32,
    /// The directory and the name there, of an entry or of the object.
    pub dir: Option<&'a Arc<Dentry>>,
    pub name: Option<&'a [u8]>,
    /// The object it happened to; for entries what the name stands for.
    pub inode: &'a Arc<dyn Inode>,
    pub dentry: Option<&'a Arc<Dentry>>,
    pub mount: Option<&'a Arc<Mount>>,
    pub pid: i32,
    /// The name is gone already.
    pub unlinked: bool,
}

/// As what a watch is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Of the directory whose entry was made, moved or removed.
    Entry,
    /// Of the directory that the object is in.
    Parent,
    /// Of the object.
    Object,
    /// Of the whole file system.
    Tree,
}

/// Somebody's interest in an inode.
pub trait Watch: Send + Sync {
    /// The `IN_*` bits it wants to hear of.
    fn mask(&self) -> u32;
    /// Something happened. `name` is that of the directory's entry when a directory is watched;
    /// `unlinked` tells that the entry's name is gone already (`IN_EXCL_UNLINK`). Must not block.
    /// With `IGNORED` the inode has let go of the watch.
    fn event(&self, event: Event, cookie: u32, name: Option<&[u8]>, unlinked: bool);
    /// As `event`, for those who want to know more.
    fn happened(&self, h: &Happening<'_>, role: Role) {
        let of_child = matches!(role, Role::Entry | Role::Parent);
        self.event(h.event, h.cookie, if of_child { h.name } else { None }, of_child && h.unlinked);
    }
}

/// The watches of one inode.
pub struct Watches {
    /// All masks together, so that an event nobody wants costs one load.
    mask: AtomicU32,
    list: Mutex<Vec<Arc<dyn Watch>>>,
}

impl Watches {
    pub(super) fn new() -> Watches {
        Watches { mask: AtomicU32::new(0), list: Mutex::new(LockClass::FileLocks, Vec::new()) }
    }

    /// Computes the common mask anew; call after a watch changed its own.
    pub fn update(&self) {
        let list = self.list.lock();
        self.mask.store(list.iter().fold(0, |m, w| m | w.mask()), Ordering::Release);
    }

    /// Takes a watch away without telling it.
    pub fn remove(&self, watch: &Arc<dyn Watch>) {
        let gone: Vec<_> = {
            let mut list = self.list.lock();
            let (gone, stay) = std::mem::take(&mut *list).into_iter().partition(|w| Arc::ptr_eq(w, watch));
            *list = stay;
            gone
        };
        drop(gone);
        self.update();
    }

    fn snapshot(&self, event: Event) -> smallvec::SmallVec<[Arc<dyn Watch>; 4]> {
        if self.mask.load(Ordering::Acquire) & event.bits() == 0 {
            return smallvec::SmallVec::new();
        }
        self.list.lock().iter().filter(|w| w.mask() & event.bits() != 0).cloned().collect()
    }

    fn take_all(&self) -> Vec<Arc<dyn Watch>> {
        self.mask.store(0, Ordering::Release);
        std::mem::take(&mut *self.list.lock())
    }
}

/// Adds a watch on the inode of a place.
pub fn add_watch(path: &Path, watch: Arc<dyn Watch>) -> abi::Result<()> {
    let watches = path.inode()?.extras().watches();
    watches.list.lock().push(watch);
    watches.update();
    path.dentry.tree().watches.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

/// Adds a watch on all of a file system, whose root this is.
pub fn add_tree_watch(root: &Arc<Dentry>, watch: Arc<dyn Watch>) {
    let tree = root.tree();
    tree.whole.list.lock().push(watch);
    tree.whole.update();
    tree.watches.fetch_add(1, Ordering::AcqRel);
}

/// Takes a watch on all of a file system away.
pub fn remove_tree_watch(root: &Arc<Dentry>, watch: &Arc<dyn Watch>) {
    root.tree().whole.remove(watch);
}

/// A watch on all of a file system changed its mask.
pub fn update_tree_watches(root: &Arc<Dentry>) {
    root.tree().whole.update();
}

fn tell(inode: &Arc<dyn Inode>, h: &Happening<'_>, role: Role) {
    if let Some(watches) = inode.extras().watches_if_any() {
        tell_watches(watches, h, role);
    }
}

fn tell_watches(watches: &Watches, h: &Happening<'_>, role: Role) {
    for w in watches.snapshot(h.event & !Event::ISDIR) {
        w.happened(h, role);
    }
}

fn with_dir_bit(inode: &Arc<dyn Inode>, event: Event) -> Event {
    if inode.file_type() == abi::stat::FileType::Directory { event | Event::ISDIR } else { event }
}

/// Something happened to the object behind a dentry: its watchers hear of it and those of its parent.
pub fn notify(from: Origin<'_>, dentry: &Arc<Dentry>, event: Event) {
    if dentry.tree().watches.load(Ordering::Acquire) == 0 {
        return;
    }
    let Some(inode) = dentry.inode() else {
        return;
    };
    let (parent, name) = dentry.parent_and_name();
    let h = Happening {
        event: with_dir_bit(inode, event),
        cookie: 0,
        dir: parent.as_ref(),
        name: parent.is_some().then_some(&*name),
        inode,
        dentry: Some(dentry),
        mount: from.mount,
        pid: from.pid,
        unlinked: dentry.is_unlinked(),
    };
    if let Some(dir) = parent.as_ref().and_then(|p| p.inode()) {
        tell(dir, &h, Role::Parent);
    }
    tell(inode, &h, Role::Object);
    tell_watches(&dentry.tree().whole, &h, Role::Tree);
}

/// An entry of a directory was made or removed; `child` says what it was.
pub(super) fn notify_entry(
    from: Origin<'_>,
    dir: &Arc<Dentry>,
    event: Event,
    child: &Arc<dyn Inode>,
    name: &[u8],
) {
    entry(from, dir, event, 0, child, name);
}

fn entry(
    from: Origin<'_>,
    dir: &Arc<Dentry>,
    event: Event,
    cookie: u32,
    child: &Arc<dyn Inode>,
    name: &[u8],
) {
    if dir.tree().watches.load(Ordering::Acquire) == 0 {
        return;
    }
    let h = Happening {
        event: with_dir_bit(child, event),
        cookie,
        dir: Some(dir),
        name: Some(name),
        inode: child,
        dentry: None,
        mount: from.mount,
        pid: from.pid,
        unlinked: false,
    };
    if let Some(inode) = dir.inode() {
        tell(inode, &h, Role::Entry);
    }
    tell_watches(&dir.tree().whole, &h, Role::Tree);
}

/// Something happened to an inode itself, wherever its names are.
fn object(from: Origin<'_>, tree: &super::dentry::DentryTree, event: Event, inode: &Arc<dyn Inode>) {
    let h = Happening {
        event,
        cookie: 0,
        dir: None,
        name: None,
        inode,
        dentry: None,
        mount: from.mount,
        pid: from.pid,
        unlinked: false,
    };
    tell(inode, &h, Role::Object);
    tell_watches(&tree.whole, &h, Role::Tree);
}

/// An entry moved from one directory to another.
pub(super) fn notify_move(
    who: Origin<'_>,
    from: &Arc<Dentry>,
    old: &[u8],
    to: &Arc<Dentry>,
    new: &[u8],
    child: &Arc<dyn Inode>,
) {
    static COOKIE: AtomicU32 = AtomicU32::new(1);
    if from.tree().watches.load(Ordering::Acquire) == 0 {
        return;
    }
    let cookie = COOKIE.fetch_add(1, Ordering::Relaxed);
    entry(who, from, Event::MOVED_FROM, cookie, child, old);
    entry(who, to, Event::MOVED_TO, cookie, child, new);
    object(who, from.tree(), Event::MOVE_SELF, child);
}

/// The number of links changed.
pub(super) fn notify_links(from: Origin<'_>, tree: &Arc<super::dentry::DentryTree>, inode: &Arc<dyn Inode>) {
    if tree.watches.load(Ordering::Acquire) != 0 {
        object(from, tree, Event::ATTRIB, inode);
    }
}

/// The inode has no name any more and nobody has it open: its watches end.
pub fn notify_gone(inode: &Arc<dyn Inode>) {
    if let Some(watches) = inode.extras().watches_if_any() {
        for w in watches.take_all() {
            if w.mask() & Event::DELETE_SELF.bits() != 0 {
                w.event(Event::DELETE_SELF, 0, None, false);
            }
            w.event(Event::IGNORED, 0, None, false);
        }
    }
}

/// The file system of the inode is being unmounted.
pub fn notify_unmount(inode: &Arc<dyn Inode>) {
    if let Some(watches) = inode.extras().watches_if_any() {
        for w in watches.take_all() {
            w.event(Event::UNMOUNT, 0, None, false);
            w.event(Event::IGNORED, 0, None, false);
        }
    }
}
