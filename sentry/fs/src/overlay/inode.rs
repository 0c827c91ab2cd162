//! The overlay's inode, and how the VFS reaches its parts.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Weak};

use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use kernel::vfs::{
    Attr, Caller, CreateArgs, File, FileOps, FileSystem, Inode, InodeExtras, LinkTarget, Path, Perm,
    RenameFlags, SetAttr, XattrFlags,
};
use ksync::{LockClass, Mutex};

use super::content::{RegularFile, Upper};
use super::directory::{DirectoryFile, Name};
use super::metadata::Metadata;
use super::{Known, OverlayFs};
use crate::mappings::Mappings;

/// One file, directory, link … of the overlay.
pub struct OverlayInode {
    pub(super) fs: Arc<OverlayFs>,
    pub(super) me: Weak<OverlayInode>,
    ino: u64,
    pub(super) kind: FileType,
    /// Where it came from: what is not changed is there.
    pub(super) lower: Option<Arc<dyn Inode>>,
    pub(super) state: Mutex<State>,
    /// Held while a regular file is copied up or written.
    pub(super) content: Mutex<()>,
    /// Open descriptions.
    pub(super) users: AtomicU32,
    pub(super) mappings: Mappings,
    extras: InodeExtras,
}

/// What is different from below.
#[derive(Default)]
pub(super) struct State {
    pub(super) metadata: Option<Metadata>,
    /// Names of a directory that are not as below.
    pub(super) names: BTreeMap<Box<[u8]>, Name>,
    /// The data of a regular file, once changed.
    pub(super) upper: Option<Upper>,
    /// The lower file, open as long as somebody uses it.
    pub(super) lower_file: Option<Arc<File>>,
    /// Of a new symlink.
    pub(super) target: Option<Vec<u8>>,
}

impl OverlayInode {
    fn make(
        fs: Arc<OverlayFs>,
        ino: u64,
        kind: FileType,
        lower: Option<Arc<dyn Inode>>,
        state: State,
    ) -> Arc<OverlayInode> {
        Arc::new_cyclic(|me| OverlayInode {
            fs,
            me: me.clone(),
            ino,
            kind,
            lower,
            state: Mutex::new(LockClass::Inode, state),
            content: Mutex::new(LockClass::StackedFile, ()),
            users: AtomicU32::new(0),
            mappings: Mappings::default(),
            extras: InodeExtras::default(),
        })
    }

    /// As it is below. It keeps its number there.
    pub(super) fn from_lower(fs: Arc<OverlayFs>, lower: Arc<dyn Inode>) -> Arc<OverlayInode> {
        let (ino, kind) = (lower.ino(), lower.file_type());
        OverlayInode::make(fs, ino, kind, Some(lower), State::default())
    }

    /// Something new, without a name yet.
    pub(super) fn fresh(
        fs: &Arc<OverlayFs>,
        cx: &Caller<'_>,
        args: &CreateArgs,
        nlink: u32,
        target: Option<Vec<u8>>,
    ) -> Arc<OverlayInode> {
        let ino = fs.new_ino();
        let kind = FileType::from_mode(args.mode).unwrap_or(FileType::Regular);
        let mut metadata = Metadata::new(cx, fs.dev, ino, args, nlink);
        metadata.attr.size = match (&target, kind) {
            (Some(target), _) => u64::try_from(target.len()).unwrap_or(0),
            // What most file systems of hosts say of a small directory.
            (None, FileType::Directory) => 4096,
            (None, _) => 0,
        };
        let state = State { metadata: Some(metadata), target, ..State::default() };
        OverlayInode::make(fs.clone(), ino, kind, None, state)
    }

    pub(super) fn myself(&self) -> Result<Arc<OverlayInode>> {
        self.me.upgrade().ok_or(Errno::ESTALE)
    }

    /// A changed inode from below must be found again as long as it has a name.
    pub(super) fn keep(&self, linked: bool) {
        if self.lower.is_none() {
            return;
        }
        let Some(me) = self.me.upgrade() else { return };
        let old = {
            let mut known = self.fs.known();
            match known.get(&self.ino) {
                Some(Known::Changed(_)) if linked => return,
                Some(Known::Unchanged(_)) if !linked => return,
                _ => {}
            }
            let entry = if linked { Known::Changed(me.clone()) } else { Known::Unchanged(self.me.clone()) };
            known.insert(self.ino, entry)
        };
        drop(old);
    }
}

impl Drop for OverlayInode {
    fn drop(&mut self) {
        if self.lower.is_some() {
            let mut known = self.fs.known();
            if let Some(Known::Unchanged(listed)) = known.get(&self.ino)
                && listed.ptr_eq(&self.me)
            {
                known.remove(&self.ino);
            }
        }
        // One by one: recursion would overflow the stack on a deep tree.
        let mut below: Vec<Name> = std::mem::take(&mut self.state.get_mut().names).into_values().collect();
        while let Some(name) = below.pop() {
            if let Name::Here { inode, .. } = name
                && let Some(mut inode) = Arc::into_inner(inode)
            {
                below.extend(std::mem::take(&mut inode.state.get_mut().names).into_values());
            }
        }
    }
}

impl Inode for OverlayInode {
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
        if let Some(Metadata { attr, .. }) = &self.state.lock().metadata {
            return Ok(Perm { mode: attr.mode, uid: attr.uid, gid: attr.gid });
        }
        self.lower.as_ref().ok_or(Errno::EIO)?.perm()
    }

    fn set_attr(&self, cx: &Caller<'_>, set: &SetAttr) -> Result<()> {
        self.change_attr(cx, set)
    }

    fn lookup(&self, cx: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.find(cx, name)
    }

    fn lookup_ahead(&self, cx: &Caller<'_>, names: &[&[u8]]) -> Result<(Vec<Arc<dyn Inode>>, bool)> {
        self.find_ahead(cx, names)
    }

    fn create(&self, cx: &Caller<'_>, name: &[u8], args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        let new = OverlayInode::fresh(&self.fs, cx, args, 1, None);
        self.add(cx, name, new)
    }

    fn mkdir(&self, cx: &Caller<'_>, name: &[u8], args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        let new = OverlayInode::fresh(&self.fs, cx, args, 2, None);
        self.add(cx, name, new)
    }

    fn symlink(
        &self,
        cx: &Caller<'_>,
        name: &[u8],
        target: &[u8],
        args: &CreateArgs,
    ) -> Result<Arc<dyn Inode>> {
        let new = OverlayInode::fresh(&self.fs, cx, args, 1, Some(target.to_vec()));
        self.add(cx, name, new)
    }

    fn tmpfile(&self, cx: &Caller<'_>, args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        Ok(OverlayInode::fresh(&self.fs, cx, args, 0, None))
    }

    fn link(&self, cx: &Caller<'_>, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        self.add_link(cx, name, target)
    }

    fn unlink(&self, cx: &Caller<'_>, name: &[u8], child: &Arc<dyn Inode>) -> Result<()> {
        self.remove(cx, name, child)
    }

    fn rmdir(&self, cx: &Caller<'_>, name: &[u8], child: &Arc<dyn Inode>) -> Result<()> {
        self.remove_directory(cx, name, child)
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
        self.move_child(cx, (name, child), (new_dir, new_name), replaced, flags)
    }

    fn readlink(&self, cx: &Caller<'_>) -> Result<LinkTarget> {
        if let Some(target) = &self.state.lock().target {
            return Ok(LinkTarget::Text(target.clone()));
        }
        self.lower.as_ref().ok_or(Errno::EINVAL)?.readlink(cx)
    }

    fn open(&self, cx: &Caller<'_>, _path: &Path, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let me = self.myself()?;
        match self.kind {
            FileType::Directory => Ok(Arc::new(DirectoryFile::new(me))),
            FileType::Regular => Ok(Arc::new(RegularFile::open(cx, me)?)),
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
