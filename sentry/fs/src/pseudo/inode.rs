//! Inodes of computed file systems.

use super::file::{PseudoDir, PseudoFile};
use abi::fcntl::OpenFlags;
use abi::stat::{FileType, StatFs};
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::vfs::{
    Attr, Caller, FileOps, FileSystem, FsFlags, Inode, InodeExtras, LinkTarget, Path, SetAttr,
};
use std::sync::{Arc, OnceLock};

/// A directory whose entries are computed.
pub trait DirNode: Send + Sync {
    /// The process that the directory shows, for the calls that take such a directory as a pidfd.
    fn pid(&self) -> Option<std::sync::Arc<kernel::task::Pid>> {
        None
    }
    /// Finds an entry; ENOENT.
    fn lookup(&self, cx: &Caller<'_>, fs: &Arc<PseudoFs>, name: &[u8]) -> Result<Arc<PseudoInode>>;
    /// Gives the entries whose position is at least `from` (positions start at 2, after "." and ".."), in order,
    /// until `emit` says false. Arguments: own position, inode number, type, name.
    fn list(&self, cx: &Caller<'_>, from: u64, emit: &mut dyn FnMut(u64, u64, FileType, &[u8]) -> bool);
    /// Whether what is cached for a name still holds.
    fn revalidate(&self, _cx: &Caller<'_>, _name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        child.is_some()
    }
    /// Number of links: 2 and the number of subdirectories.
    fn nlink(&self) -> u32 {
        2
    }
}

/// A file whose content is computed when it is read from the start.
pub trait FileNode: Send + Sync {
    /// The whole content now.
    fn read(&self, cx: &Caller<'_>) -> Result<Vec<u8>>;
    /// A write of `data` at a position; how much of it was taken.
    fn write(&self, _cx: &Caller<'_>, _data: &[u8], _pos: u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Called when it is opened: checks beyond the mode bits (`ptrace_may_access` and the like).
    fn may_open(&self, _cx: &Caller<'_>, _flags: OpenFlags) -> Result<()> {
        Ok(())
    }
    /// Operations of its own instead of those for computed content.
    fn special(self: Arc<Self>, _cx: &Caller<'_>, _flags: OpenFlags) -> Option<Result<Arc<dyn FileOps>>> {
        None
    }
}

/// A symbolic link whose target is computed.
pub trait LinkNode: Send + Sync {
    fn target(&self, cx: &Caller<'_>) -> Result<LinkTarget>;
}

/// What is behind an inode.
#[derive(Clone)]
pub enum Node {
    Dir(Arc<dyn DirNode>),
    File(Arc<dyn FileNode>),
    Link(Arc<dyn LinkNode>),
}

/// Who owns an inode.
#[derive(Clone)]
pub enum Owner {
    /// Always the same user and group.
    Fixed(u32, u32),
    /// Asked each time (the directory of a process follows its credentials).
    Asked(Arc<dyn Fn() -> (u32, u32) + Send + Sync>),
}

/// A computed file system.
pub struct PseudoFs {
    name: &'static str,
    dev: u64,
    magic: i64,
    flags: FsFlags,
    born: Timespec,
    options: String,
    root: OnceLock<Arc<PseudoInode>>,
}

impl PseudoFs {
    /// A file system with a root directory of mode 0555.
    pub fn new(
        name: &'static str,
        dev: u64,
        magic: i64,
        flags: FsFlags,
        born: Timespec,
        options: String,
        root: Arc<dyn DirNode>,
    ) -> Arc<PseudoFs> {
        let fs = Arc::new(PseudoFs { name, dev, magic, flags, born, options, root: OnceLock::new() });
        let inode = PseudoInode::new(&fs, 1, 0o555, Owner::Fixed(0, 0), Node::Dir(root));
        let _ = fs.root.set(inode);
        fs
    }
}

impl FileSystem for PseudoFs {
    fn name(&self) -> &'static str {
        self.name
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn flags(&self) -> FsFlags {
        self.flags
    }
    fn root(&self) -> Arc<dyn Inode> {
        match self.root.get() {
            Some(r) => Arc::clone(r) as Arc<dyn Inode>,
            None => unreachable!("the root is set by new()"),
        }
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { f_type: self.magic, f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..StatFs::default() })
    }
    fn show_options(&self) -> String {
        self.options.clone()
    }
}

/// An inode of a computed file system.
pub struct PseudoInode {
    fs: Arc<PseudoFs>,
    ino: u64,
    mode: u32,
    owner: Owner,
    node: Node,
    born: Timespec,
    extras: InodeExtras,
}

impl PseudoInode {
    /// An inode with permission bits `perm`.
    pub fn new(fs: &Arc<PseudoFs>, ino: u64, perm: u32, owner: Owner, node: Node) -> Arc<PseudoInode> {
        let kind = match node {
            Node::Dir(_) => FileType::Directory,
            Node::File(_) => FileType::Regular,
            Node::Link(_) => FileType::Symlink,
        };
        let mode = kind.mode_bits() | perm;
        Arc::new(PseudoInode {
            fs: Arc::clone(fs),
            ino,
            mode,
            owner,
            node,
            born: fs.born,
            extras: InodeExtras::default(),
        })
    }

    /// What is behind it.
    pub fn node(&self) -> &Node {
        &self.node
    }
}

impl Inode for PseudoInode {
    fn fs(&self) -> &dyn FileSystem {
        &*self.fs
    }
    fn file_type(&self) -> FileType {
        FileType::from_mode(self.mode).unwrap_or(FileType::Regular)
    }
    fn ino(&self) -> u64 {
        self.ino
    }
    fn attr(&self) -> Result<Attr> {
        let (uid, gid) = match &self.owner {
            Owner::Fixed(u, g) => (*u, *g),
            Owner::Asked(f) => f(),
        };
        let (nlink, size) = match &self.node {
            Node::Dir(d) => (d.nlink(), 0),
            Node::File(_) => (1, 0),
            Node::Link(_) => (1, if self.mode & 0o200 != 0 { 64 } else { 0 }),
        };
        Ok(Attr {
            dev: self.fs.dev,
            ino: self.ino,
            mode: self.mode,
            nlink,
            uid,
            gid,
            rdev: 0,
            size,
            blksize: 1024,
            blocks: 0,
            atime: self.born,
            mtime: self.born,
            ctime: self.born,
            btime: None,
        })
    }
    fn set_attr(&self, _cx: &Caller<'_>, set: &SetAttr) -> Result<()> {
        // O_TRUNC and truncate() on files that can be written are accepted and mean nothing.
        if set.mode.is_some() || set.uid.is_some() || set.gid.is_some() {
            return Err(Errno::EPERM);
        }
        Ok(())
    }
    fn lookup(&self, cx: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        match &self.node {
            Node::Dir(d) => d.lookup(cx, &self.fs, name).map(|i| i as Arc<dyn Inode>),
            _ => Err(Errno::ENOTDIR),
        }
    }
    fn revalidate(&self, cx: &Caller<'_>, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        match &self.node {
            Node::Dir(d) => d.revalidate(cx, name, child),
            _ => true,
        }
    }
    fn readlink(&self, cx: &Caller<'_>) -> Result<LinkTarget> {
        match &self.node {
            Node::Link(l) => l.target(cx),
            _ => Err(Errno::EINVAL),
        }
    }
    fn open(&self, cx: &Caller<'_>, _path: &Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        match &self.node {
            Node::Dir(d) => Ok(Arc::new(PseudoDir { node: Arc::clone(d), ino: self.ino })),
            Node::File(f) => {
                f.may_open(cx, flags)?;
                match Arc::clone(f).special(cx, flags) {
                    Some(ops) => ops,
                    None => Ok(Arc::new(PseudoFile::new(Arc::clone(f)))),
                }
            }
            Node::Link(_) => Err(Errno::ELOOP),
        }
    }
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }
}
