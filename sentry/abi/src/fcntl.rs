//! Flags of open(2), fcntl(2) and the `*at` calls.

use bitflags::bitflags;

bitflags! {
    /// Flags of open(2) and of an open file description (`f_flags`), x86-64 values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct OpenFlags: u32 {
        const WRONLY = 0o1;
        const RDWR = 0o2;
        const CREAT = 0o100;
        const EXCL = 0o200;
        const NOCTTY = 0o400;
        const TRUNC = 0o1000;
        const APPEND = 0o2000;
        const NONBLOCK = 0o4000;
        const DSYNC = 0o10000;
        const ASYNC = 0o20000;
        const DIRECT = 0o40000;
        const LARGEFILE = 0o100000;
        const DIRECTORY = 0o200000;
        const NOFOLLOW = 0o400000;
        const NOATIME = 0o1000000;
        const CLOEXEC = 0o2000000;
        const SYNC_BIT = 0o4000000;
        const PATH = 0o10000000;
        const TMPFILE_BIT = 0o20000000;
    }
}

impl OpenFlags {
    /// The two bits of the access mode.
    pub const ACCMODE: u32 = 3;

    /// Whether reading is allowed by the access mode (never with `O_PATH`).
    pub fn can_read(self) -> bool {
        !self.contains(Self::PATH) && matches!(self.bits() & Self::ACCMODE, 0 | 2)
    }

    /// Whether writing is allowed by the access mode (never with `O_PATH`).
    pub fn can_write(self) -> bool {
        !self.contains(Self::PATH) && matches!(self.bits() & Self::ACCMODE, 1 | 2)
    }

    /// Whether this is `O_TMPFILE` (which contains `O_DIRECTORY`).
    pub fn is_tmpfile(self) -> bool {
        self.contains(Self::TMPFILE_BIT)
    }
}

bitflags! {
    /// `AT_*` flags; each call accepts its own subset.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct AtFlags: u32 {
        const SYMLINK_NOFOLLOW = 0x100;
        /// Also `AT_EACCESS` (faccessat2).
        const REMOVEDIR = 0x200;
        const SYMLINK_FOLLOW = 0x400;
        const NO_AUTOMOUNT = 0x800;
        const EMPTY_PATH = 0x1000;
        const STATX_FORCE_SYNC = 0x2000;
        const STATX_DONT_SYNC = 0x4000;
        const RECURSIVE = 0x8000;
    }
}

/// `AT_FDCWD`: the current directory in place of a directory descriptor.
pub const AT_FDCWD: i32 = -100;
