//! File systems and inodes: the traits.

use super::file::FileOps;
use crate::creds::Creds;
use crate::task::Task;
use abi::fcntl::OpenFlags;
use abi::stat::{FileType, StatFs};
use abi::time::Timespec;
use abi::{Errno, Result};
use bitflags::bitflags;
use std::any::Any;
use std::sync::Arc;

/// On whose behalf something is done: credentials, and the task if there is one (there is none
/// while a sandbox boots).
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    pub creds: &'a Arc<Creds>,
    pub task: Option<&'a Task>,
}

/// Attributes of an inode: what statx(2) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    pub dev: u64,
    pub ino: u64,
    /// With the type bits.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blksize: u32,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub btime: Option<Timespec>,
}

impl Attr {
    /// The type of the file.
    pub fn file_type(&self) -> FileType {
        FileType::from_mode(self.mode).unwrap_or(FileType::Regular)
    }
}

/// What permission checks need of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perm {
    /// With the type bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    At(Timespec),
}

/// Attributes to change; `None` leaves one as it is. Permissions have been checked, and set-id bits
/// and ctime follow as Linux' `notify_change` has it: the VFS puts a resulting mode into `mode`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits (07777) without the type.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

/// What a new inode shall be.
#[derive(Clone, Copy, Debug)]
pub struct CreateArgs {
    /// With the type bits; umask, ACLs and set-gid inheritance are applied already.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// For device nodes.
    pub rdev: u64,
}

/// What a symbolic link leads to.
#[derive(Clone)]
pub enum LinkTarget {
    /// A path to walk.
    Text(Vec<u8>),
    /// A place to jump to (magic links of /proc).
    Jump(super::Path),
}

bitflags! {
    /// Properties of a file system.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct FsFlags: u32 {
        /// Names may change behind the VFS: cached dentries are asked for again by `Inode::revalidate`.
        const REVALIDATE = 1;
        /// Positive and negative dentries must not be kept at all (proc).
        const NO_DCACHE = 2;
        /// Device nodes on it do not open devices.
        const NODEV = 4;
        /// No executables, as `MNT_NOEXEC`.
        const NOEXEC = 8;
        /// Set-id bits have no effect.
        const NOSUID = 16;
        /// User extended attributes are supported.
        const XATTR = 32;
        /// Access control lists are supported, as `system.posix_acl_*` attributes.
        const POSIX_ACL = 64;
        /// The file system sees to access times itself (those of files of the host).
        const OWN_ATIME = 128;
        /// Files are found again by their handles (name_to_handle_at(2)).
        const EXPORT = 512;
        /// A name that is missing is ENOENT even for those who would make it (proc).
        const NO_NEGATIVE = 256;
    }
}

bitflags! {
    /// Flags of renameat2(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct RenameFlags: u32 {
        const NOREPLACE = 1;
        const EXCHANGE = 2;
        const WHITEOUT = 4;
    }
}

bitflags! {
    /// Flags of setxattr(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct XattrFlags: u32 {
        const CREATE = 1;
        const REPLACE = 2;
    }
}

/// A mounted file system (`super_block`).
pub trait FileSystem: Any + Send + Sync {
    /// The type's name as in /proc/filesystems.
    fn name(&self) -> &'static str;
    /// `st_dev` of its inodes.
    fn dev(&self) -> u64;
    fn flags(&self) -> FsFlags;
    fn root(&self) -> Arc<dyn Inode>;
    fn statfs(&self) -> Result<StatFs>;
    /// syncfs(2).
    fn sync(&self) -> Result<()> {
        Ok(())
    }
    /// The options for /proc/mounts beyond the mount's own, e.g. `size=64k,mode=755`.
    fn show_options(&self) -> String {
        String::new()
    }
    /// The source for /proc/mounts.
    fn source(&self) -> String {
        self.name().to_owned()
    }
    /// mount(2) with `MS_REMOUNT`: new options.
    fn reconfigure(&self, _data: &[u8]) -> Result<()> {
        Ok(())
    }
    /// Something outside may have changed the files: what is known of them is not to be believed without asking.
    fn look_again(&self) {}
    /// The last mount is gone and no file is open: what keeps the file system and its inodes alive by each other must go.
    fn unmounted(&self) {}
}

/// An inode. The VFS has checked permissions, types and name rules, and holds the directory's
/// lock, before any of the changing methods is called. Methods must not block on the guest's
/// behalf and must not touch guest memory while holding locks.
///
/// The defaults are what Linux answers for a file type that cannot do a thing.
pub trait Inode: Any + Send + Sync {
    fn fs(&self) -> &dyn FileSystem;
    fn file_type(&self) -> FileType;
    fn attr(&self) -> Result<Attr>;
    fn set_attr(&self, cx: &Caller<'_>, set: &SetAttr) -> Result<()>;

    /// Mode and owner without the rest: asked for at every step of a walk.
    fn perm(&self) -> Result<Perm> {
        let a = self.attr()?;
        Ok(Perm { mode: a.mode, uid: a.uid, gid: a.gid })
    }

    /// The inode number without asking for the rest.
    fn ino(&self) -> u64;

    // Directories.

    /// Finds a name; ENOENT when it is not there.
    fn lookup(&self, _cx: &Caller<'_>, _name: &[u8]) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOTDIR)
    }
    /// Finds several names one below the other in one step, as far as directories reach: the inodes
    /// for a prefix of `names`. An empty vector means: use `lookup`. The flag tells that the name after the
    /// prefix does not exist.
    fn lookup_ahead(&self, _cx: &Caller<'_>, _names: &[&[u8]]) -> Result<(Vec<Arc<dyn Inode>>, bool)> {
        Ok((Vec::new(), false))
    }
    /// Whether a cached result for `name` still holds (only with `FsFlags::REVALIDATE`). `child` is
    /// `None` for a negative entry.
    fn revalidate(&self, _cx: &Caller<'_>, _name: &[u8], _child: Option<&Arc<dyn Inode>>) -> bool {
        true
    }
    /// Makes a regular file, FIFO, socket or device node. EEXIST when the name exists.
    fn create(&self, _cx: &Caller<'_>, _name: &[u8], _args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }
    fn mkdir(&self, _cx: &Caller<'_>, _name: &[u8], _args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }
    fn symlink(
        &self,
        _cx: &Caller<'_>,
        _name: &[u8],
        _target: &[u8],
        _args: &CreateArgs,
    ) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }
    /// A regular file without a name (`O_TMPFILE`); `link` can give it one.
    fn tmpfile(&self, _cx: &Caller<'_>, _args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        Err(Errno::EOPNOTSUPP)
    }
    fn link(&self, _cx: &Caller<'_>, _name: &[u8], _target: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EPERM)
    }
    fn unlink(&self, _cx: &Caller<'_>, _name: &[u8], _child: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EPERM)
    }
    fn rmdir(&self, _cx: &Caller<'_>, _name: &[u8], _child: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// Moves `child` (named `name` here) to `new_name` in `new_dir` (same file system), replacing
    /// `replaced` or changing places with it.
    fn rename(
        &self,
        _cx: &Caller<'_>,
        _name: &[u8],
        _child: &Arc<dyn Inode>,
        _new_dir: &Arc<dyn Inode>,
        _new_name: &[u8],
        _replaced: Option<&Arc<dyn Inode>>,
        _flags: RenameFlags,
    ) -> Result<()> {
        Err(Errno::EPERM)
    }

    // Symbolic links.

    fn readlink(&self, _cx: &Caller<'_>) -> Result<LinkTarget> {
        Err(Errno::EINVAL)
    }

    // Opening.

    /// Opens the inode. Called for every type but symbolic links; FIFOs, sockets and device nodes are
    /// routed by the VFS before this is asked.
    fn open(&self, cx: &Caller<'_>, path: &super::Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>>;

    // Extended attributes.

    fn getxattr(&self, _name: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }
    fn setxattr(&self, _name: &[u8], _value: &[u8], _flags: XattrFlags) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn listxattr(&self) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }
    fn removexattr(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Where state that the VFS keeps for every inode hangs: advisory locks, watches, the pipe of a
    /// FIFO, the socket bound here. Created on first use.
    fn extras(&self) -> &super::InodeExtras;
}
