//! The messages: one structure per operation, no padding, no pointers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::codec::Malformed;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Op { $($(#[$doc])* $name = $number,)* }

        impl Op {
            pub const ALL: &'static [Op] = &[$(Op::$name,)*];
        }

        impl TryFrom<u32> for Op {
            type Error = Malformed;
            fn try_from(number: u32) -> Result<Op, Malformed> {
                match number { $($number => Ok(Op::$name),)* _ => Err(Malformed) }
            }
        }
    };
}

operations! {
    /// [`Attach`] → [`Attached`].
    Attach = 1,
    /// [`Walk`], names → [`Walked`], [`Entry`]s, and the target if it ended at a symlink. With [`Walk::open`] set and a
    /// regular file at the end also a descriptor.
    Walk = 2,
    /// [`Open`], optional name → [`Entry`] + descriptor (regular files only).
    Open = 3,
    /// [`Create`], name → [`Entry`] + descriptor for reading and writing. Always exclusive.
    Create = 4,
    /// [`Create`], name → [`Entry`].
    Mkdir = 5,
    /// [`Create`], name, target bytes → [`Entry`].
    Symlink = 6,
    /// [`Mknod`], name → [`Entry`].
    Mknod = 7,
    /// [`Link`], optional source name, new name → [`Entry`].
    Link = 8,
    /// [`Unlink`], name → [`Entry`] of the file as it is now (its handle if pinned, else 0).
    Unlink = 9,
    /// [`Rename`], old name, new name → [`Entry`] of what was replaced, if [`RENAME_PIN`] asks for it.
    Rename = 10,
    /// [`Node`], optional name → bytes.
    Readlink = 11,
    /// [`SetAttr`], optional name → [`Stat`].
    SetAttr = 12,
    /// [`Node`] → [`StatFs`].
    StatFs = 13,
    /// [`Readdir`], names leading down from the handle → [`ReaddirReply`], entries.
    Readdir = 14,
    /// [`GetXattr`], optional name, attribute name bytes → bytes.
    GetXattr = 15,
    /// [`SetXattr`], optional name, attribute name bytes, value bytes → nothing.
    SetXattr = 16,
    /// [`GetXattr`], optional name → bytes (names, each ended by NUL).
    ListXattr = 17,
    /// [`Node`], optional name, attribute name bytes → nothing.
    RemoveXattr = 18,
    /// [`Node`], optional name → nothing. Data and metadata of that file or directory.
    Fsync = 19,
    /// [`Node`] → nothing. The whole file system of that node (syncfs).
    SyncFs = 20,
    /// `u32` count, handles → nothing. Unknown handles are ignored.
    Close = 21,
    /// `u32` count, then ([`Node`], optional name) each → `u32` count, then [`StatResult`] each.
    GetStats = 22,
    /// Nothing → nothing + descriptor of one more channel.
    Channel = 23,
    /// [`Create`] (an anonymous file in that directory, O_TMPFILE) → [`Entry`] + descriptor.
    TmpFile = 24,
}

/// In front of every request.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RequestHeader {
    pub op: u32,
    pub sequence: u32,
    /// The processor on which the sender waits for the reply, or [`ANY_CPU`]. A wish: it is free then, while another one may be asleep.
    pub cpu: u32,
}

/// No processor.
pub const ANY_CPU: u32 = u32::MAX;

/// In front of every reply. `errno` is Linux's number, 0 for success.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReplyHeader {
    pub sequence: u32,
    pub errno: u32,
}

/// A file: `handle` itself, or the name that follows in the tail below the directory `handle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Node {
    pub handle: u64,
    /// The inode number expected there, or 0.
    pub ino: u64,
}

/// A moment: seconds since 1970 (may be negative) and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
    pub reserved: u32,
}

/// What statx knows, without the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Stat {
    pub ino: u64,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    /// STATX_ATTR_* bits.
    pub attributes: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub blksize: u32,
    /// STATX_* bits that are true in this structure.
    pub mask: u32,
    pub dev_major: u32,
    pub dev_minor: u32,
    pub rdev_major: u32,
    pub rdev_minor: u32,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub btime: Timestamp,
}

impl Stat {
    /// The S_IFMT part of the mode.
    #[must_use]
    pub const fn file_type(&self) -> u32 {
        self.mode & 0o170_000
    }
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        self.file_type() == 0o040_000
    }
    #[must_use]
    pub const fn is_regular(&self) -> bool {
        self.file_type() == 0o100_000
    }
    #[must_use]
    pub const fn is_symlink(&self) -> bool {
        self.file_type() == 0o120_000
    }
}

/// A file and the handle it got (0: none).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entry {
    pub handle: u64,
    pub stat: Stat,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Attach {
    /// Index into the mounts the server was started with.
    pub mount: u32,
    pub reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Attached {
    pub root: Entry,
    /// How many handles the server keeps for all mounts together.
    pub max_handles: u32,
    /// [`MOUNT_READ_ONLY`] and kin.
    pub flags: u32,
}

/// The mount refuses every change.
pub const MOUNT_READ_ONLY: u32 = 1;

/// Walks down from a directory handle.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Walk {
    pub handle: u64,
    /// Number of names in the tail, 1 to [`crate::codec::MAX_WALK`].
    pub count: u32,
    /// [`WALK_FILE_HANDLES`].
    pub flags: u32,
    /// 0, or how to open the file at the end: [`OPEN_READ`] …
    pub open: u32,
    pub reserved: u32,
}

/// Give handles to files that are not directories too. (Directories always get one.)
pub const WALK_FILE_HANDLES: u32 = 1;
/// Give no handle to the last component, whatever it is.
pub const WALK_NO_LAST_HANDLE: u32 = 2;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Walked {
    /// How many [`Entry`]s follow: the components that exist, as far as the walk came.
    pub count: u32,
    /// Why it came no further: [`WALK_COMPLETE`] …
    pub end: u32,
    /// With [`WALK_FAILED`] or [`WALK_OPEN_FAILED`], the errno.
    pub errno: u32,
    pub reserved: u32,
}

/// All names were found.
pub const WALK_COMPLETE: u32 = 0;
/// The component after the last entry does not exist.
pub const WALK_MISSING: u32 = 1;
/// The last entry is a symlink; its target follows as bytes. (Also when it is the last component.)
pub const WALK_SYMLINK: u32 = 2;
/// The last entry is no directory but there are more names.
pub const WALK_NOT_DIRECTORY: u32 = 3;
/// Looking up the component after the last entry failed with `errno`.
pub const WALK_FAILED: u32 = 4;
/// All names were found but the open failed with `errno`.
pub const WALK_OPEN_FAILED: u32 = 5;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Open {
    pub node: Node,
    /// [`OPEN_READ`], [`OPEN_WRITE`], [`OPEN_TRUNCATE`].
    pub flags: u32,
    pub reserved: u32,
}

pub const OPEN_READ: u32 = 1;
pub const OPEN_WRITE: u32 = 2;
pub const OPEN_TRUNCATE: u32 = 4;
/// With [`OPEN_WRITE`]: if writing is refused, open for reading only. The reply says what it became (`Entry::handle` is 1 if writable).
pub const OPEN_BEST: u32 = 8;

/// Makes something new in the directory `node.handle`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Create {
    pub node: Node,
    /// Permission bits, exact (the guest's umask is already applied).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// [`CREATE_HANDLE`].
    pub flags: u32,
}

/// Give a handle to the new file. (A new directory always gets one.)
pub const CREATE_HANDLE: u32 = 1;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Mknod {
    pub create: Create,
    /// S_IFREG, S_IFIFO, S_IFSOCK; devices where the configuration allows them.
    pub file_type: u32,
    pub rdev_major: u32,
    pub rdev_minor: u32,
    pub reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Link {
    pub source: Node,
    /// Directory handle that gets the new name.
    pub directory: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Unlink {
    /// The directory; `ino` 0 or what the name must mean.
    pub node: Node,
    /// [`UNLINK_DIRECTORY`], [`UNLINK_PIN`].
    pub flags: u32,
    pub reserved: u32,
}

/// rmdir, not unlink.
pub const UNLINK_DIRECTORY: u32 = 1;
/// Return a handle by which the file stays reachable after its name is gone.
pub const UNLINK_PIN: u32 = 2;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rename {
    pub old_directory: u64,
    pub new_directory: u64,
    /// RENAME_NOREPLACE (1) or RENAME_EXCHANGE (2), as in renameat2; [`RENAME_PIN`].
    pub flags: u32,
    pub reserved: u32,
}

/// Return a handle by which what the new name meant stays reachable.
pub const RENAME_PIN: u32 = 1 << 16;

/// Changes those attributes whose bit is in `valid`, in one go, in the order size, owner, mode, times.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetAttr {
    pub node: Node,
    /// ATTR_* bits.
    pub valid: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
}

pub const ATTR_MODE: u32 = 1;
pub const ATTR_UID: u32 = 2;
pub const ATTR_GID: u32 = 4;
pub const ATTR_SIZE: u32 = 8;
pub const ATTR_ATIME: u32 = 16;
pub const ATTR_MTIME: u32 = 32;
/// The host's present time instead of the given one.
pub const ATTR_ATIME_NOW: u32 = 64;
pub const ATTR_MTIME_NOW: u32 = 128;
pub const ATTR_ALL: u32 = 255;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StatFs {
    pub file_system_type: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_length: u64,
    pub fragment_size: u64,
    pub flags: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Readdir {
    /// A directory handle, with the inode number expected where the names end (or 0).
    pub node: Node,
    /// 0 for the beginning, else the `next` of an earlier reply.
    pub cookie: u64,
    /// [`READDIR_STAT`].
    pub flags: u32,
    /// Number of names that follow, up to [`crate::codec::MAX_WALK`].
    pub count: u32,
}

/// Send the [`Stat`] of each entry too.
pub const READDIR_STAT: u32 = 1;

/// Followed by `count` × ([`DirEntry`], name, and [`Stat`] if `DirEntry::has_stat` is 1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReaddirReply {
    /// Cookie to go on with.
    pub next: u64,
    pub count: u32,
    /// 1: there is nothing after these.
    pub end: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DirEntry {
    pub ino: u64,
    /// Position after this entry.
    pub cookie: u64,
    /// DT_* value.
    pub kind: u32,
    pub has_stat: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetXattr {
    pub node: Node,
    /// Room of the caller in bytes; 0 asks for the size only (answered as bytes of that length all the same).
    pub size: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetXattr {
    pub node: Node,
    /// XATTR_CREATE (1), XATTR_REPLACE (2) or 0.
    pub flags: u32,
    pub reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StatResult {
    /// 0: `stat` is true.
    pub errno: u32,
    pub reserved: u32,
    pub stat: Stat,
}
