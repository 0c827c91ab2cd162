//! The VFS: mounts, dentries, inodes and open file descriptions, under their Linux names.
//!
//! `inode.rs` and `file.rs` hold the traits that file systems implement; everything that is the
//! same for all of them (path resolution, permission checks, mount tables, descriptor tables) is in
//! its own file here and nowhere else.

pub mod acl;
mod atime;
pub mod change;
mod dentry;
mod dpath;
mod extras;
mod fasync;
mod fdtable;
mod file;
mod fs_context;
mod handle;
mod inode;
pub mod limits;
mod locks;
mod mount;
mod mount_ops;
mod mount_tree;
mod notify;
mod open;
mod path;
pub mod permission;
mod position;
pub mod rw;
pub mod setattr;
mod splice;
mod state;
mod walk;
pub mod xattr;

pub use dentry::Dentry;
pub use dpath::{cwd_path, d_path, dentry_path, path_below};
pub use extras::{DenyWrite, InodeExtras, Slot};
pub use fdtable::{Fd, FdTable};
pub use file::{DirSink, File, FileOps, FileOwner, SeekFrom};
pub use fs_context::FsContext;
pub use handle::{FileId, encode as encode_handle, find as find_handle};
pub use inode::{
    Attr, Caller, CreateArgs, FileSystem, FsFlags, Inode, LinkTarget, Perm, RenameFlags, SetAttr, SetTime,
    XattrFlags,
};
pub use locks::{FileLocks, LockOwner, LockWaits, Outside, OutsideLocks, RecordLock, TO_END};
pub use mount::{Mount, MountFlags, SuperBlock};
pub use mount_ops::{Propagation, UmountFlags, mounted_on};
pub use mount_tree::{MountInfo, MountNamespace, MountTree};
pub use notify::{
    Event, Happening, Origin, Role, Watch, Watches, add_tree_watch, add_watch, notify, notify_gone,
    remove_tree_watch, update_tree_watches,
};
pub use open::{OpenHow, open, open_exec, open_path};
pub use path::Path;
pub use splice::SplicePipe;
pub use state::{DeviceDriver, FifoOpener, FsType, Opened, Vfs, mount_flags};
pub use walk::{Last, LookupFlags, Parent, Start, child, resolve, resolve_parent};
