//! Directories: names with a number each, which is their position for readdir and never changes.

use super::inode::TmpInode;
use abi::{Errno, Result};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

/// The first number of an entry; below are "." and "..".
pub(super) const FIRST: u64 = 2;

pub(super) struct Entry {
    pub name: Box<[u8]>,
    pub inode: Arc<TmpInode>,
}

pub(super) struct Dir {
    by_name: HashMap<Box<[u8]>, u64>,
    entries: BTreeMap<u64, Entry>,
    next: u64,
    pub parent: Weak<TmpInode>,
    /// Removed: nothing can be made in it any more.
    pub dead: bool,
}

impl Dir {
    pub fn new() -> Dir {
        Dir {
            by_name: HashMap::new(),
            entries: BTreeMap::new(),
            next: FIRST,
            parent: Weak::new(),
            dead: false,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn get(&self, name: &[u8]) -> Option<&Arc<TmpInode>> {
        self.by_name.get(name).and_then(|n| self.entries.get(n)).map(|e| &e.inode)
    }

    pub fn insert(&mut self, name: &[u8], inode: Arc<TmpInode>) -> Result<()> {
        if self.dead {
            return Err(Errno::ENOENT);
        }
        if self.by_name.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let number = self.next;
        self.next += 1;
        self.by_name.insert(name.into(), number);
        self.entries.insert(number, Entry { name: name.into(), inode });
        Ok(())
    }

    /// Puts another inode under a name that is there, in the same position.
    pub fn replace(&mut self, name: &[u8], inode: Arc<TmpInode>) -> Result<Arc<TmpInode>> {
        let entry = self.by_name.get(name).and_then(|n| self.entries.get_mut(n)).ok_or(Errno::ENOENT)?;
        Ok(std::mem::replace(&mut entry.inode, inode))
    }

    pub fn remove(&mut self, name: &[u8]) -> Result<Arc<TmpInode>> {
        let number = self.by_name.remove(name).ok_or(Errno::ENOENT)?;
        self.entries.remove(&number).map(|e| e.inode).ok_or(Errno::ENOENT)
    }

    /// Entries from a position on.
    pub fn from(&self, pos: u64) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.range(pos..).map(|(n, e)| (*n, e))
    }
}

impl Dir {
    /// Everything in it, for taking a tree apart.
    pub fn into_inodes(self) -> impl Iterator<Item = Arc<TmpInode>> {
        self.entries.into_values().map(|e| e.inode)
    }
}
