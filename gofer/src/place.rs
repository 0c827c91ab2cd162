//! The only door to the host's files: opening and examining one name below one descriptor.
//!
//! Every function here takes a directory descriptor and a single component that was validated as
//! [`gofer_protocol::Name`], never follows a symlink, and so cannot leave the mount. openat2's
//! RESOLVE flags say the same a second time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gofer_protocol::{Name, Stat, Timestamp};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use crate::handles::File;

/// Device and inode: which file this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    pub dev: (u32, u32),
    pub ino: u64,
}

impl FileId {
    pub fn of(stat: &Stat) -> FileId {
        FileId { dev: (stat.dev_major, stat.dev_minor), ino: stat.ino }
    }
}

/// Set when the host has no openat2 (before Linux 5.6): then the O_NOFOLLOW of a single component must do.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Opens `name` (a validated component, or `.`) below `dir`.
fn open_component(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    // openat2 takes nothing beside these with O_PATH.
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let flags = if flags.contains(OFlags::PATH) { flags } else { flags | OFlags::NOCTTY };
    if !NO_OPENAT2.load(Ordering::Relaxed) {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(dir, name, flags, mode, resolve) {
            Err(Errno::NOSYS) => NO_OPENAT2.store(true, Ordering::Relaxed),
            done => return done,
        }
    }
    rustix::fs::openat(dir, name, flags, mode)
}

/// Finds out before the seccomp filter is installed whether openat2 exists.
pub fn probe_openat2(dir: BorrowedFd<'_>) {
    drop(open_component(dir, b".", OFlags::PATH, Mode::empty()));
}

/// What the probe found.
pub fn have_openat2() -> bool {
    !NO_OPENAT2.load(Ordering::Relaxed)
}

/// An O_PATH descriptor of `name`, which may be a symlink.
pub fn open_path(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    open_component(dir, name, OFlags::PATH, Mode::empty())
}

/// The directory `dir` again, for reading its entries or syncing it.
pub fn reopen_directory(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    open_component(dir, b".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// The directory `name`, for reading its entries.
pub fn open_directory(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    open_component(dir, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// Creates the regular file `name`; it must not exist.
pub fn create(dir: BorrowedFd<'_>, name: Name<'_>, mode: Mode) -> Result<OwnedFd, Errno> {
    open_component(dir, name.bytes(), OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NONBLOCK, mode)
}

/// A file without a name in `dir`.
pub fn create_unnamed(dir: BorrowedFd<'_>, mode: Mode) -> Result<OwnedFd, Errno> {
    open_component(dir, b".", OFlags::RDWR | OFlags::TMPFILE, mode)
}

/// What a name must still mean.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    Anything,
    /// An inode number, as the client knows it.
    Ino(u64),
    File(FileId),
}

impl Expect {
    fn check(self, stat: &Stat) -> Result<(), Errno> {
        let same = match self {
            Expect::Anything | Expect::Ino(0) => true,
            Expect::Ino(ino) => stat.ino == ino,
            Expect::File(id) => FileId::of(stat) == id,
        };
        if same { Ok(()) } else { Err(Errno::STALE) }
    }
}

/// Opens a regular file (or, for reading, a directory) for real. Anything else is refused before it is
/// opened, since opening a FIFO or a device has effects; O_NONBLOCK covers a name swapped in between.
pub fn open_real(
    dir: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
    expect: Expect,
) -> Result<(OwnedFd, Stat), Errno> {
    let before = stat_at(dir, name)?;
    expect.check(&before)?;
    check_openable(&before, flags)?;
    let fd = open_component(dir, name, flags.difference(OFlags::TRUNC) | OFlags::NONBLOCK, Mode::empty())?;
    let stat = stat_fd(fd.as_fd())?;
    expect.check(&stat)?;
    check_openable(&stat, flags)?;
    if flags.contains(OFlags::TRUNC) && stat.size != 0 {
        rustix::fs::ftruncate(&fd, 0)?;
        let stat = stat_fd(fd.as_fd())?;
        return Ok((fd, stat));
    }
    Ok((fd, stat))
}

fn check_openable(stat: &Stat, flags: OFlags) -> Result<(), Errno> {
    let writing = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
    if stat.is_regular() || (stat.is_directory() && !writing) {
        Ok(())
    } else if stat.is_directory() {
        Err(Errno::ISDIR)
    } else if stat.is_symlink() {
        Err(Errno::LOOP)
    } else {
        Err(Errno::NXIO)
    }
}

const STAT_MASK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// The attributes of one name, not following it.
pub fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, flags, STAT_MASK).map(|statx| convert_stat(&statx))
}

/// The attributes of an open (or O_PATH) descriptor.
pub fn stat_fd(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, STAT_MASK).map(|statx| convert_stat(&statx))
}

fn convert_stat(statx: &rustix::fs::Statx) -> Stat {
    let time = |time: rustix::fs::StatxTimestamp| Timestamp {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec,
        reserved: 0,
    };
    Stat {
        ino: statx.stx_ino,
        size: statx.stx_size,
        blocks: statx.stx_blocks,
        attributes: statx.stx_attributes.bits(),
        mode: u32::from(statx.stx_mode),
        nlink: statx.stx_nlink,
        uid: statx.stx_uid,
        gid: statx.stx_gid,
        blksize: statx.stx_blksize,
        mask: statx.stx_mask,
        dev_major: statx.stx_dev_major,
        dev_minor: statx.stx_dev_minor,
        rdev_major: statx.stx_rdev_major,
        rdev_minor: statx.stx_rdev_minor,
        atime: time(statx.stx_atime),
        mtime: time(statx.stx_mtime),
        ctime: time(statx.stx_ctime),
        btime: time(statx.stx_btime),
    }
}

/// A file that a request named: a handle, or a name below a directory's handle.
#[derive(Debug)]
pub enum Place<'a> {
    Handle(Arc<File>),
    Child { dir: Arc<File>, name: Name<'a>, ino: u64 },
}

impl Place<'_> {
    pub fn mount(&self) -> &crate::handles::Mount {
        match self {
            Place::Handle(file) => &file.mount,
            Place::Child { dir, .. } => &dir.mount,
        }
    }

    pub fn check_writable(&self) -> Result<(), Errno> {
        if self.mount().readonly { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// Its attributes now.
    pub fn stat(&self) -> Result<Stat, Errno> {
        match self {
            Place::Handle(file) => stat_fd(file.as_fd()),
            Place::Child { dir, name, ino } => {
                let stat = stat_at(dir.as_fd(), name.bytes())?;
                if *ino != 0 && stat.ino != *ino { Err(Errno::STALE) } else { Ok(stat) }
            }
        }
    }

    /// An O_PATH descriptor (shared with the handle if there is one) and the attributes.
    pub fn pin(&self) -> Result<(Arc<OwnedFd>, Stat), Errno> {
        match self {
            Place::Handle(file) => Ok((file.fd.clone(), stat_fd(file.as_fd())?)),
            Place::Child { dir, name, ino } => {
                let fd = open_path(dir.as_fd(), name.bytes())?;
                let stat = stat_fd(fd.as_fd())?;
                if *ino != 0 && stat.ino != *ino {
                    return Err(Errno::STALE);
                }
                Ok((Arc::new(fd), stat))
            }
        }
    }

    /// The directory descriptor and name by which system calls reach it, and which file it must be.
    /// A handle whose name was not kept, or that is a directory, has none.
    pub fn named(&self) -> Option<(BorrowedFd<'_>, &[u8], Expect)> {
        match self {
            Place::Handle(file) => {
                let (dir, name) = file.anchor.as_ref()?;
                Some((dir.as_fd(), name, Expect::File(file.id)))
            }
            Place::Child { dir, name, ino } => Some((dir.as_fd(), name.bytes(), Expect::Ino(*ino))),
        }
    }

    /// Opens it for real. Regular files, and directories for reading.
    pub fn open(&self, flags: OFlags) -> Result<(OwnedFd, Stat), Errno> {
        if let Place::Handle(file) = self {
            if file.is_directory() {
                if flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC) {
                    return Err(Errno::ISDIR);
                }
                let fd = reopen_directory(file.as_fd())?;
                let stat = stat_fd(fd.as_fd())?;
                return Ok((fd, stat));
            }
            if let Some(io) = &file.io {
                let fd = rustix::io::fcntl_dupfd_cloexec(io, 3)?;
                let writing = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
                let held = rustix::fs::fcntl_getfl(&fd)?;
                if writing && !held.intersects(OFlags::WRONLY | OFlags::RDWR) {
                    return Err(Errno::ACCESS);
                }
                if flags.contains(OFlags::TRUNC) {
                    rustix::fs::ftruncate(&fd, 0)?;
                }
                let stat = stat_fd(fd.as_fd())?;
                return Ok((fd, stat));
            }
        }
        let (dir, name, expect) = self.named().ok_or(Errno::STALE)?;
        open_real(dir, name, flags, expect)
    }
}
