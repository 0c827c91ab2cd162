//! A mark: what a group wants to hear of one inode, mount or file system.

use super::event::{Fid, Queued};
use super::{Fanotify, bits};
use abi::{Errno, Result};
use kernel::vfs::{
    Dentry, Event, Happening, Inode, Mount, Path, Role, Watch, add_tree_watch, add_watch, remove_tree_watch,
};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// What is marked.
pub enum Target {
    Inode(Path),
    /// All that is reached through a mount.
    Mount(Arc<Mount>),
    /// A whole file system.
    FileSystem(Arc<Mount>),
}

impl Target {
    pub(super) fn is(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Inode(a), Target::Inode(b)) => match (a.inode(), b.inode()) {
                (Ok(a), Ok(b)) => Arc::ptr_eq(a, b),
                _ => false,
            },
            (Target::Mount(a), Target::Mount(b)) => a.id == b.id,
            (Target::FileSystem(a), Target::FileSystem(b)) => Arc::ptr_eq(&a.sb, &b.sb),
            _ => false,
        }
    }

    pub(super) fn same_kind(&self, other: &Target) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// What fanotify_mark(2) changes of a mark.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub mask: u32,
    /// Of the events that are ignored.
    pub ignored: bool,
    /// What is ignored stays so when the object is written.
    pub survives: bool,
}

/// What a mark holds of its target: marks of file systems do not keep those.
pub(super) struct Marked(Target);

impl Marked {
    pub(super) fn is(&self, other: &Target) -> bool {
        self.0.is(other)
    }
    pub(super) fn same_kind(&self, other: &Target) -> bool {
        self.0.same_kind(other)
    }
}

pub(super) struct Mark {
    group: Weak<Fanotify>,
    pub(super) target: Marked,
    mask: AtomicU32,
    ignored: AtomicU32,
    survives: AtomicBool,
    dead: AtomicBool,
}

impl Mark {
    pub(super) fn new(group: Weak<Fanotify>, target: Target) -> Mark {
        Mark {
            group,
            target: Marked(target),
            mask: AtomicU32::new(0),
            ignored: AtomicU32::new(0),
            survives: AtomicBool::new(false),
            dead: AtomicBool::new(false),
        }
    }

    /// Adds or takes away.
    pub(super) fn change(&self, c: Change, add: bool) {
        let field = if c.ignored { &self.ignored } else { &self.mask };
        if add {
            field.fetch_or(c.mask, Ordering::AcqRel);
            if c.ignored && c.survives {
                self.survives.store(true, Ordering::Release);
            }
        } else {
            field.fetch_and(!c.mask, Ordering::AcqRel);
        }
        self.update();
    }

    pub(super) fn is_empty(&self) -> bool {
        let flags = bits::ONDIR | bits::EVENT_ON_CHILD;
        (self.mask.load(Ordering::Acquire) | self.ignored.load(Ordering::Acquire)) & !flags == 0
    }

    fn tree_root(&self) -> Option<&Arc<Dentry>> {
        match &self.target.0 {
            Target::Inode(_) => None,
            Target::Mount(m) | Target::FileSystem(m) => Some(&m.sb.root),
        }
    }

    fn update(&self) {
        match &self.target.0 {
            Target::Inode(place) => {
                if let Ok(inode) = place.inode() {
                    inode.extras().watches().update();
                }
            }
            Target::Mount(m) | Target::FileSystem(m) => kernel::vfs::update_tree_watches(&m.sb.root),
        }
    }

    pub(super) fn attach(self: &Arc<Self>) -> Result<()> {
        let watch: Arc<dyn Watch> = Arc::clone(self) as Arc<dyn Watch>;
        match &self.target.0 {
            Target::Inode(place) => add_watch(place, watch),
            Target::Mount(m) | Target::FileSystem(m) => {
                add_tree_watch(&m.sb.root, watch);
                Ok(())
            }
        }
    }

    pub(super) fn detach(self: &Arc<Self>) {
        self.dead.store(true, Ordering::Release);
        let watch: Arc<dyn Watch> = Arc::clone(self) as Arc<dyn Watch>;
        match (&self.target.0, self.tree_root()) {
            (Target::Inode(place), _) => {
                if let Ok(inode) = place.inode() {
                    inode.extras().watches().remove(&watch);
                }
            }
            (_, Some(root)) => remove_tree_watch(root, &watch),
            _ => {}
        }
    }

    /// Whether it speaks for what happened when told so in that role.
    fn applies(&self, h: &Happening<'_>, role: Role) -> bool {
        let entry = h.event.bits() & bits::ENTRIES != 0;
        if role != Role::Tree && entry != (role == Role::Entry) {
            return false;
        }
        match (&self.target.0, role) {
            (Target::Inode(place), Role::Parent | Role::Entry) => {
                let own = place
                    .inode()
                    .is_ok_and(|own| h.dir.and_then(|d| d.inode()).is_some_and(|dir| Arc::ptr_eq(dir, own)));
                own && (role == Role::Entry || self.mask.load(Ordering::Acquire) & bits::EVENT_ON_CHILD != 0)
            }
            (Target::Inode(place), Role::Object) => place.inode().is_ok_and(|own| Arc::ptr_eq(own, h.inode)),
            (Target::Mount(m), Role::Tree) => h.mount.is_some_and(|at| at.id == m.id),
            (Target::FileSystem(_), Role::Tree) => true,
            _ => false,
        }
    }

    fn wants(&self, event: u32) -> bool {
        let mask = self.mask.load(Ordering::Acquire);
        mask & event & bits::EVENTS != 0 && (event & bits::ONDIR == 0 || mask & bits::ONDIR != 0)
    }

    pub(super) fn describe(&self) -> String {
        let (mask, ignored) = (self.mask.load(Ordering::Relaxed), self.ignored.load(Ordering::Relaxed));
        match &self.target.0 {
            Target::Inode(p) => {
                let (ino, dev) = p.inode().map_or((0, 0), |i| (i.ino(), i.fs().dev()));
                format!(
                    "fanotify ino:{ino:x} sdev:{dev:x} mflags:0 mask:{mask:x} ignored_mask:{ignored:x} \n"
                )
            }
            Target::Mount(m) => {
                format!("fanotify mnt_id:{:x} mflags:0 mask:{mask:x} ignored_mask:{ignored:x}\n", m.id)
            }
            Target::FileSystem(m) => {
                let dev = m.fs.dev();
                format!("fanotify sdev:{dev:x} mflags:0 mask:{mask:x} ignored_mask:{ignored:x}\n")
            }
        }
    }
}

const ROLES: [Role; 4] = [Role::Entry, Role::Parent, Role::Object, Role::Tree];

impl Watch for Mark {
    fn mask(&self) -> u32 {
        let mask = self.mask.load(Ordering::Acquire) & bits::EVENTS;
        // Writing ends what is ignored, so it must be heard of.
        if self.ignored.load(Ordering::Acquire) != 0 { mask | Event::MODIFY.bits() } else { mask }
    }

    /// Only news that come without their object: the inode goes away.
    fn event(&self, event: Event, _cookie: u32, _name: Option<&[u8]>, _unlinked: bool) {
        let Some(group) = self.group.upgrade() else { return };
        if event.contains(Event::IGNORED) {
            self.dead.store(true, Ordering::Release);
            group.forget(self);
            return;
        }
        let Target::Inode(place) = &self.target.0 else { return };
        if group.by_handle()
            && self.wants(event.bits())
            && let Ok(inode) = place.inode()
            && let Some(fid) = Fid::of(inode)
        {
            group.push(Queued::of_object(event, 0, fid, group.layout()));
        }
    }

    fn happened(&self, h: &Happening<'_>, role: Role) {
        let Some(group) = self.group.upgrade() else { return };
        if self.dead.load(Ordering::Acquire) {
            return;
        }
        let event = h.event.bits();
        let marks = group.marks();
        if h.event.contains(Event::MODIFY) {
            for m in marks.iter().filter(|m| !m.survives.load(Ordering::Acquire)) {
                if matches!(m.target.0, Target::Inode(_)) && m.applies(h, Role::Object) {
                    m.ignored.store(0, Ordering::Release);
                    m.update();
                }
            }
        }
        // All marks of the group decide together, when the first of them is told.
        let first = ROLES.iter().find_map(|r| {
            marks.iter().find(|m| m.applies(h, *r) && m.wants(event)).map(|m| (Arc::as_ptr(m), *r))
        });
        if first != Some((std::ptr::from_ref(self), role)) {
            return;
        }
        let mut wanted = 0;
        let mut ignored = 0;
        for m in &marks {
            if ROLES.iter().any(|r| m.applies(h, *r)) {
                if m.wants(event) {
                    wanted |= m.mask.load(Ordering::Acquire);
                }
                ignored |= m.ignored.load(Ordering::Acquire);
            }
        }
        let told = event & wanted & !ignored & bits::EVENTS;
        if told == 0 {
            return;
        }
        let kept = Event::from_bits_retain(told | event & bits::ONDIR);
        let h = Happening { event: kept, ..*h };
        if let Some(q) = Queued::new(&h, group.layout(), group.by_handle()) {
            group.push(q);
        }
    }
}

/// A mark on an inode: ENOTDIR when events of names are asked of what has none.
pub fn check_kind(inode: &Arc<dyn Inode>, mask: u32, strict: bool) -> Result<()> {
    let dir = inode.file_type() == abi::stat::FileType::Directory;
    let needs = bits::ENTRIES | bits::EVENT_ON_CHILD | bits::ONDIR;
    if !dir && strict && mask & needs != 0 { Err(Errno::ENOTDIR) } else { Ok(()) }
}
