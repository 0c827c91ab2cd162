//! The toolkit of file systems whose files are computed: proc and sysfs. Nothing here knows what is
//! in them.
//!
//! A node is a [`DirNode`], a [`FileNode`] or a [`LinkNode`]; [`PseudoInode`] puts one into the VFS.

mod file;
mod inode;
mod tree;

pub use file::PseudoFile;
pub use inode::{DirNode, FileNode, LinkNode, Node, Owner, PseudoFs, PseudoInode};
pub use tree::{StaticDir, fixed, text, writable};
