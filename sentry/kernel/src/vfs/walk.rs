//! Path resolution (path_resolution(7)): the only place where path names are walked.
//!
//! [`resolve`] walks to the end, [`resolve_parent`] to the directory of the last component. The last component
//! of an open(2) that may create is taken further by `open.rs` through [`Walk`].

use super::inode::{Caller, FsFlags, Inode, LinkTarget};
use super::mount::MountFlags;
use super::mount_tree::{follow_mounts, mount_point};
use super::permission::{May, check_inode};
use super::{Dentry, Path, atime};
use abi::stat::{FileType, mode};
use abi::{Errno, Result};
use bitflags::bitflags;
use smallvec::SmallVec;
use std::sync::Arc;

/// Most symbolic links in one walk (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;
/// Longest name (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Most names asked for in one step.
const AHEAD: usize = 16;

bitflags! {
    /// How to walk (`LOOKUP_*`, and the `RESOLVE_*` of openat2(2)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct LookupFlags: u32 {
        /// Follow a symbolic link at the end.
        const FOLLOW = 1;
        /// ENOTDIR unless the end is a directory.
        const DIRECTORY = 2;
        /// EXDEV when a mount is crossed.
        const NO_XDEV = 0x100;
        /// ELOOP at a magic link.
        const NO_MAGICLINKS = 0x200;
        /// ELOOP at any symbolic link.
        const NO_SYMLINKS = 0x400;
        /// EXDEV when the walk leaves where it began.
        const BENEATH = 0x800;
        /// Where the walk begins is its root.
        const IN_ROOT = 0x1000;
        /// EAGAIN unless all is in the cache.
        const CACHED = 0x2000;
    }
}

impl LookupFlags {
    fn scoped(self) -> bool {
        self.intersects(Self::BENEATH | Self::IN_ROOT)
    }
}

/// What the last component of a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    Normal,
    Dot,
    DotDot,
    /// The path is just slashes.
    Root,
}

/// A directory and a name in it that is not looked up yet.
#[derive(Clone, Debug)]
pub struct Parent {
    pub dir: Path,
    pub name: SmallVec<[u8; 64]>,
    pub last: Last,
    /// The name was followed by a slash.
    pub slash: bool,
}

/// Where a walk may begin: the root, and the directory for relative paths.
#[derive(Clone, Debug)]
pub struct Start {
    pub root: Path,
    pub base: Path,
}

impl Start {
    /// Root and current directory of the calling task; ENOENT where there is no task.
    pub fn of(cx: &Caller<'_>) -> Result<Start> {
        let fs = cx.task.ok_or(Errno::ENOENT)?.fs();
        let (root, base) = fs.root_and_cwd();
        Ok(Start { root, base })
    }
    /// The root of the calling task with another directory to begin at.
    pub fn at(cx: &Caller<'_>, base: Path) -> Result<Start> {
        Ok(Start { root: cx.task.ok_or(Errno::ENOENT)?.fs().root(), base })
    }
    /// Both at one place.
    pub fn inside(root: &Path) -> Start {
        Start { root: root.clone(), base: root.clone() }
    }
}

enum Text<'a> {
    Given(&'a [u8]),
    Link(Vec<u8>),
}

struct Frame<'a> {
    text: Text<'a>,
    at: usize,
}

impl Frame<'_> {
    fn bytes(&self) -> &[u8] {
        match &self.text {
            Text::Given(b) => b,
            Text::Link(v) => v,
        }
    }
    fn skip_slashes(&mut self) {
        let b = self.bytes();
        let n = b[self.at..].iter().take_while(|c| **c == b'/').count();
        self.at += n;
    }
    fn done(&self) -> bool {
        self.at >= self.bytes().len()
    }
}

/// A walk under way.
pub struct Walk<'a> {
    cx: &'a Caller<'a>,
    root: Path,
    flags: LookupFlags,
    cur: Path,
    links: u32,
    frames: SmallVec<[Frame<'a>; 2]>,
    /// A slash followed a link that was the last component: what it leads to must be a directory.
    slash: bool,
}

/// Walks a path to its end. ENOENT when the end does not exist.
pub fn resolve(cx: &Caller<'_>, start: Start, path: &[u8], flags: LookupFlags) -> Result<Path> {
    let mut walk = Walk::new(cx, start, path, flags)?;
    loop {
        let parent = walk.to_parent()?;
        match parent.last {
            Last::Normal => {}
            _ => return Ok(walk.cur),
        }
        if let Some(end) = walk.finish(&parent)? {
            return Ok(end);
        }
    }
}

/// Walks to the directory of the last component, which is not looked up.
pub fn resolve_parent(cx: &Caller<'_>, start: Start, path: &[u8], flags: LookupFlags) -> Result<Parent> {
    Walk::new(cx, start, path, flags)?.to_parent()
}

impl<'a> Walk<'a> {
    /// Begins a walk; ENOENT for an empty path.
    pub fn new(cx: &'a Caller<'a>, start: Start, path: &'a [u8], flags: LookupFlags) -> Result<Walk<'a>> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() >= 4096 {
            return Err(Errno::ENAMETOOLONG);
        }
        let Start { mut root, base } = start;
        let absolute = path[0] == b'/';
        if flags.scoped() {
            if absolute && flags.contains(LookupFlags::BENEATH) {
                return Err(Errno::EXDEV);
            }
            root = base.clone();
        }
        let cur = if absolute && !flags.scoped() { root.clone() } else { base };
        let mut frames = SmallVec::new();
        frames.push(Frame { text: Text::Given(path), at: 0 });
        Ok(Walk { cx, root, flags, cur, links: 0, frames, slash: false })
    }

    /// Walks on until only the last component is left. With `Last::Root`, `Dot` and `DotDot` the step
    /// is done and `self.cur` is the end.
    pub fn to_parent(&mut self) -> Result<Parent> {
        loop {
            while let Some(f) = self.frames.last_mut() {
                f.skip_slashes();
                if !f.done() {
                    break;
                }
                self.frames.pop();
            }
            if self.frames.is_empty() {
                self.check_end(&self.cur)?;
                return Ok(self.parent_at(&[], Last::Root, false));
            }
            self.may_enter()?;
            let (name, slash) = self.next_name()?;
            // Nothing but slashes may follow a last component, in its own text and in those below it.
            let last = self.frames.iter_mut().all(|f| {
                f.skip_slashes();
                f.done()
            });
            match name.as_slice() {
                b"." => {
                    if last {
                        self.slash |= slash;
                        return Ok(self.parent_at(b".", Last::Dot, slash));
                    }
                }
                b".." => {
                    self.up()?;
                    if last {
                        return Ok(self.parent_at(b"..", Last::DotDot, slash));
                    }
                }
                _ if last => {
                    self.slash |= slash;
                    return Ok(self.parent_at(&name, Last::Normal, self.slash));
                }
                _ => {
                    let child = self.child(&name, true)?;
                    self.step(child, true)?;
                }
            }
        }
    }

    fn parent_at(&self, name: &[u8], last: Last, slash: bool) -> Parent {
        Parent { dir: self.cur.clone(), name: SmallVec::from_slice(name), last, slash }
    }

    /// Where the walk stands.
    pub fn current(&self) -> &Path {
        &self.cur
    }

    /// The end's demand to be a directory.
    fn check_end(&self, end: &Path) -> Result<()> {
        if (self.slash || self.flags.contains(LookupFlags::DIRECTORY))
            && end.inode()?.file_type() != FileType::Directory
        {
            return Err(Errno::ENOTDIR);
        }
        Ok(())
    }

    /// Looks the last component up. `None`: it was a link, which is followed by another `to_parent`.
    pub fn finish(&mut self, parent: &Parent) -> Result<Option<Path>> {
        let child = self.child(&parent.name, false)?;
        self.finish_with(child)
    }

    /// As `finish`, with the child looked up already.
    pub fn finish_with(&mut self, child: Arc<Dentry>) -> Result<Option<Path>> {
        let follow = self.flags.contains(LookupFlags::FOLLOW) || self.slash;
        if self.step(child, follow)? {
            self.check_end(&self.cur)?;
            return Ok(Some(self.cur.clone()));
        }
        Ok(None)
    }

    fn next_name(&mut self) -> Result<(SmallVec<[u8; 64]>, bool)> {
        let Some(f) = self.frames.last_mut() else {
            return Err(Errno::ENOENT);
        };
        let rest = &f.bytes()[f.at..];
        let len = rest.iter().position(|c| *c == b'/').unwrap_or(rest.len());
        let slash = len < rest.len();
        if len > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let name = SmallVec::from_slice(&rest[..len]);
        f.at += len;
        Ok((name, slash))
    }

    /// The current place must be a directory that the caller may search.
    fn may_enter(&self) -> Result<()> {
        let inode = self.cur.inode()?;
        if inode.file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        check_inode(self.cx.creds, self.cur.mount.fs_flags, inode, May::EXEC)
    }

    fn up(&mut self) -> Result<()> {
        if self.cur.same(&self.root) {
            return if self.flags.contains(LookupFlags::BENEATH) { Err(Errno::EXDEV) } else { Ok(()) };
        }
        while self.cur.is_mount_root() {
            let Some(up) = mount_point(&self.cur.mount) else {
                return Ok(());
            };
            if self.flags.contains(LookupFlags::NO_XDEV) {
                return Err(Errno::EXDEV);
            }
            self.cur = up;
            if self.cur.same(&self.root) {
                return Ok(());
            }
        }
        if let Some(parent) = self.cur.dentry.parent() {
            if self.flags.scoped() && !self.below_root(&parent) {
                return Err(Errno::EXDEV);
            }
            self.cur.dentry = parent;
        }
        if follow_mounts(&mut self.cur) && self.flags.contains(LookupFlags::NO_XDEV) {
            return Err(Errno::EXDEV);
        }
        Ok(())
    }

    /// A rename may have moved a scoped walk out of its root.
    fn below_root(&self, dentry: &Arc<Dentry>) -> bool {
        let mut at = self.cur.with(Arc::clone(dentry));
        loop {
            if at.same(&self.root) {
                return true;
            }
            if at.is_mount_root() {
                match mount_point(&at.mount) {
                    Some(up) => at = up,
                    None => return false,
                }
            } else {
                match at.dentry.parent() {
                    Some(p) => at.dentry = p,
                    None => return false,
                }
            }
        }
    }

    /// The dentry of a name in the current directory; names that follow it may be fetched along.
    fn child(&mut self, name: &[u8], more: bool) -> Result<Arc<Dentry>> {
        if let Some(d) = cached_child(self.cx, &self.cur, name) {
            return Ok(d);
        }
        if self.flags.contains(LookupFlags::CACHED) {
            return Err(Errno::EAGAIN);
        }
        let mut names: SmallVec<[&[u8]; AHEAD]> = SmallVec::new();
        names.push(name);
        if more && let Some(f) = self.frames.last() {
            for part in f.bytes()[f.at..].split(|c| *c == b'/').filter(|p| !p.is_empty()) {
                if names.len() == AHEAD || part == b"." || part == b".." || part.len() > NAME_MAX {
                    break;
                }
                names.push(part);
            }
        }
        lookup_slow(self.cx, &self.cur, &names)
    }

    /// Goes to a child: across mounts and, with `follow`, through a link. Tells whether it arrived; false
    /// means that a link's text was put in front of what is left.
    fn step(&mut self, child: Arc<Dentry>, follow: bool) -> Result<bool> {
        let Some(inode) = child.inode() else {
            return Err(Errno::ENOENT);
        };
        if inode.file_type() != FileType::Symlink || !follow {
            self.cur.dentry = child;
            if follow_mounts(&mut self.cur) && self.flags.contains(LookupFlags::NO_XDEV) {
                return Err(Errno::EXDEV);
            }
            return Ok(true);
        }
        self.links += 1;
        if self.links > MAX_LINKS
            || self.flags.contains(LookupFlags::NO_SYMLINKS)
            || self.cur.mount.flags().contains(MountFlags::NOSYMFOLLOW)
        {
            return Err(Errno::ELOOP);
        }
        self.may_follow(inode)?;
        atime::touch(self.cx, &self.cur.with(Arc::clone(&child)), false);
        match inode.readlink(self.cx)? {
            LinkTarget::Text(text) => {
                if text.is_empty() {
                    return Err(Errno::ENOENT);
                }
                if text[0] == b'/' {
                    if self.flags.contains(LookupFlags::BENEATH) {
                        return Err(Errno::EXDEV);
                    }
                    if self.flags.contains(LookupFlags::NO_XDEV)
                        && !Arc::ptr_eq(&self.root.mount, &self.cur.mount)
                    {
                        return Err(Errno::EXDEV);
                    }
                    self.cur = self.root.clone();
                }
                while self.frames.last().is_some_and(Frame::done) {
                    self.frames.pop();
                }
                self.frames.push(Frame { text: Text::Link(text), at: 0 });
                Ok(false)
            }
            LinkTarget::Jump(to) => {
                if self.flags.contains(LookupFlags::NO_MAGICLINKS) {
                    return Err(Errno::ELOOP);
                }
                if self.flags.scoped()
                    || (self.flags.contains(LookupFlags::NO_XDEV) && !Arc::ptr_eq(&to.mount, &self.cur.mount))
                {
                    return Err(Errno::EXDEV);
                }
                self.cur = to;
                Ok(true)
            }
        }
    }

    /// `protected_symlinks`: in a sticky world-writable directory only the follower's own links and those of
    /// the directory's owner are followed.
    fn may_follow(&self, link: &Arc<dyn Inode>) -> Result<()> {
        let Some(task) = self.cx.task else {
            return Ok(());
        };
        let (l, dir) = (link.perm()?, self.cur.inode()?.perm()?);
        let sticky = mode::S_ISVTX | 0o002;
        if l.uid == self.cx.creds.fsuid || dir.mode & sticky != sticky || dir.uid == l.uid {
            return Ok(());
        }
        if task.kernel().sysctls.get_int("fs/protected_symlinks") == 0 {
            return Ok(());
        }
        Err(Errno::EACCES)
    }
}

/// A child that is in the cache and still holds.
fn cached_child(cx: &Caller<'_>, dir: &Path, name: &[u8]) -> Option<Arc<Dentry>> {
    let d = dir.dentry.cached(name)?;
    if dir.mount.fs_flags.intersects(FsFlags::REVALIDATE | FsFlags::NO_DCACHE) {
        let inode = dir.dentry.inode()?;
        if !inode.revalidate(cx, name, d.inode()) {
            if !d.mounted() {
                d.unhash(false);
                return None;
            }
            return Some(d);
        }
    }
    d.touch();
    Some(d)
}

/// Asks the file system for a name (and those below it), with the directory locked.
fn lookup_slow(cx: &Caller<'_>, dir: &Path, names: &[&[u8]]) -> Result<Arc<Dentry>> {
    let _lock = dir.dentry.lock_dir();
    lookup_locked(cx, dir, names)
}

/// The dentry of a name in a directory that the caller has locked. Negative if it does not exist.
pub(super) fn child_locked(cx: &Caller<'_>, dir: &Path, name: &[u8]) -> Result<Arc<Dentry>> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    lookup_locked(cx, dir, &[name])
}

/// The dentry of a name in a directory. Negative if it does not exist.
pub fn child(cx: &Caller<'_>, dir: &Path, name: &[u8]) -> Result<Arc<Dentry>> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    match cached_child(cx, dir, name) {
        Some(d) => Ok(d),
        None => lookup_slow(cx, dir, &[name]),
    }
}

fn lookup_locked(cx: &Caller<'_>, dir: &Path, names: &[&[u8]]) -> Result<Arc<Dentry>> {
    let name = names.first().copied().ok_or(Errno::ENOENT)?;
    if let Some(d) = cached_child(cx, dir, name) {
        return Ok(d);
    }
    if dir.dentry.is_dead() {
        return Err(Errno::ENOENT);
    }
    let keep = !dir.mount.fs_flags.contains(FsFlags::NO_DCACHE);
    let inode = dir.inode()?;
    let (found, missing) = inode.lookup_ahead(cx, names)?;
    if !found.is_empty() || missing {
        let mut at = Arc::clone(&dir.dentry);
        let mut first = None;
        let count = found.len();
        for (name, inode) in names.iter().zip(found) {
            at = at.enter(name, Some(inode), keep);
            first.get_or_insert_with(|| Arc::clone(&at));
        }
        if missing
            && keep
            && let Some(name) = names.get(count)
        {
            let negative = at.enter(name, None, true);
            first.get_or_insert(negative);
        }
        if let Some(first) = first {
            return Ok(first);
        }
    }
    match inode.lookup(cx, name) {
        Ok(found) => Ok(dir.dentry.enter(name, Some(found), keep)),
        Err(Errno::ENOENT) if dir.mount.fs_flags.contains(FsFlags::NO_NEGATIVE) => Err(Errno::ENOENT),
        Err(Errno::ENOENT) if keep => Ok(dir.dentry.enter(name, None, true)),
        Err(Errno::ENOENT) => Ok(dir.dentry.passing(name, None)),
        Err(e) => Err(e),
    }
}
