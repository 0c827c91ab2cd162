//! Directories whose entries never change, and files out of a function.

use super::inode::{DirNode, FileNode, Node, Owner, PseudoFs, PseudoInode};
use abi::stat::FileType;
use abi::{Errno, Result};
use kernel::vfs::{Caller, Inode};
use std::collections::BTreeMap;
use std::sync::Arc;

struct Entry {
    ino: u64,
    perm: u32,
    node: Node,
}

/// A directory with entries that are known from the start.
#[derive(Default)]
pub struct StaticDir {
    entries: BTreeMap<Vec<u8>, Entry>,
}

impl StaticDir {
    /// An empty directory.
    pub fn new() -> StaticDir {
        StaticDir::default()
    }

    /// Adds or replaces an entry. Inode numbers come from `next_ino`.
    pub fn add(&mut self, next_ino: &mut u64, name: &str, perm: u32, node: Node) -> &mut Self {
        let ino = *next_ino;
        *next_ino += 1;
        self.entries.insert(name.as_bytes().to_vec(), Entry { ino, perm, node });
        self
    }

    /// Whether a name is there.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.entries.contains_key(name)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn kind(node: &Node) -> FileType {
    match node {
        Node::Dir(_) => FileType::Directory,
        Node::File(_) => FileType::Regular,
        Node::Link(_) => FileType::Symlink,
    }
}

impl DirNode for StaticDir {
    fn lookup(&self, _cx: &Caller<'_>, fs: &Arc<PseudoFs>, name: &[u8]) -> Result<Arc<PseudoInode>> {
        let e = self.entries.get(name).ok_or(Errno::ENOENT)?;
        Ok(PseudoInode::new(fs, e.ino, e.perm, Owner::Fixed(0, 0), e.node.clone()))
    }

    fn list(&self, _cx: &Caller<'_>, from: u64, emit: &mut dyn FnMut(u64, u64, FileType, &[u8]) -> bool) {
        let skip = usize::try_from(from.saturating_sub(2)).unwrap_or(usize::MAX);
        for (i, (name, e)) in self.entries.iter().enumerate().skip(skip) {
            if !emit(i as u64 + 2, e.ino, kind(&e.node), name) {
                return;
            }
        }
    }

    fn revalidate(&self, _cx: &Caller<'_>, _name: &[u8], _child: Option<&Arc<dyn Inode>>) -> bool {
        true
    }

    fn nlink(&self) -> u32 {
        let dirs = self.entries.values().filter(|e| matches!(e.node, Node::Dir(_))).count();
        u32::try_from(dirs).unwrap_or(u32::MAX).saturating_add(2)
    }
}

type ReadFn = dyn Fn(&Caller<'_>) -> Result<Vec<u8>> + Send + Sync;
type WriteFn = dyn Fn(&Caller<'_>, &[u8]) -> Result<()> + Send + Sync;

/// A file out of functions. (These are part of the tree that boot builds anew, not state of the guest.)
struct FnFile {
    read: Box<ReadFn>,
    write: Option<Box<WriteFn>>,
}

impl FileNode for FnFile {
    fn read(&self, cx: &Caller<'_>) -> Result<Vec<u8>> {
        (self.read)(cx)
    }
    fn write(&self, cx: &Caller<'_>, data: &[u8], _pos: u64) -> Result<usize> {
        match &self.write {
            None => Err(Errno::EINVAL),
            Some(w) => w(cx, data).map(|()| data.len()),
        }
    }
}

/// A file whose content a function gives.
pub fn text(read: impl Fn(&Caller<'_>) -> Result<Vec<u8>> + Send + Sync + 'static) -> Node {
    Node::File(Arc::new(FnFile { read: Box::new(read), write: None }))
}

/// A file with a content that never changes.
pub fn fixed(content: impl Into<Vec<u8>>) -> Node {
    let content = content.into();
    text(move |_| Ok(content.clone()))
}

/// A file with a function for reading and one for writing.
pub fn writable(
    read: impl Fn(&Caller<'_>) -> Result<Vec<u8>> + Send + Sync + 'static,
    write: impl Fn(&Caller<'_>, &[u8]) -> Result<()> + Send + Sync + 'static,
) -> Node {
    Node::File(Arc::new(FnFile { read: Box::new(read), write: Some(Box::new(write)) }))
}
