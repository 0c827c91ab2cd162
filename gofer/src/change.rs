//! Requests that change the host's files. Each checks the mount's read-only flag before anything else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use gofer_protocol::codec::MAX_TARGET;
use gofer_protocol::{
    ATTR_ALL, ATTR_ATIME, ATTR_ATIME_NOW, ATTR_GID, ATTR_MODE, ATTR_MTIME, ATTR_MTIME_NOW, ATTR_SIZE,
    ATTR_UID, CREATE_HANDLE, Create, Entry, Link, Mknod, Name, RENAME_PIN, Reader, Rename, SetAttr, Stat,
    Timestamp, UNLINK_DIRECTORY, UNLINK_PIN, Unlink, Writer,
};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::dispatch::{Answer, Refusal, Server};
use crate::handles::File;
use crate::place::{self, Expect, FileId, Place};

const S_IFREG: u32 = 0o100_000;
const S_IFIFO: u32 = 0o010_000;
const S_IFSOCK: u32 = 0o140_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;

/// -1 means "leave" to chown(2), so it is no id.
fn check_owner(uid: u32, gid: u32) -> Result<(), Errno> {
    if uid == u32::MAX || gid == u32::MAX { Err(Errno::INVAL) } else { Ok(()) }
}

fn permission_bits(mode: u32) -> Result<Mode, Errno> {
    if mode & !0o7777 != 0 { Err(Errno::INVAL) } else { Ok(Mode::from_raw_mode(mode)) }
}

/// chmod of whatever a descriptor stands for. O_PATH descriptors need fchmodat2 (Linux 6.6); before that a
/// file or directory is opened for it.
fn change_mode(
    fd: BorrowedFd<'_>,
    mode: Mode,
    reopen: impl FnOnce() -> Result<OwnedFd, Errno>,
) -> Result<(), Errno> {
    match hostsys::fsat::change_mode(fd, mode.as_raw_mode()) {
        Err(error) if error.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => {
            rustix::fs::fchmod(reopen()?, mode)
        }
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        Ok(()) => Ok(()),
    }
}

/// Gives a fresh file the owner and mode that the sentry decided, where the host chose others.
fn settle(
    fd: BorrowedFd<'_>,
    create: &Create,
    reopen: impl FnOnce() -> Result<OwnedFd, Errno>,
) -> Result<Stat, Errno> {
    let mut stat = place::stat_fd(fd)?;
    let mut changed = false;
    if stat.uid != create.uid || stat.gid != create.gid {
        let owner = (Uid::from_raw(create.uid), Gid::from_raw(create.gid));
        rustix::fs::chownat(fd, c"", Some(owner.0), Some(owner.1), AtFlags::EMPTY_PATH)?;
        // chown may have cleared set-id bits.
        stat = place::stat_fd(fd)?;
        changed = true;
    }
    if !stat.is_symlink() && stat.mode & 0o7777 != create.mode {
        change_mode(fd, permission_bits(create.mode)?, reopen)?;
        changed = true;
    }
    if changed { place::stat_fd(fd) } else { Ok(stat) }
}

impl Server {
    pub fn create(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: Create = request.get()?;
        let name = request.name()?;
        request.end()?;
        let dir = self.writable_directory(body.node.handle)?;
        let mode = permission_bits(body.mode)?;
        check_owner(body.uid, body.gid)?;
        let fd = place::create(dir.as_fd(), name, mode)?;
        let made = (|| {
            let stat = settle(fd.as_fd(), &body, || rustix::io::dup(&fd))?;
            let handle = if body.flags & CREATE_HANDLE != 0 {
                let path = place::open_path(dir.as_fd(), name.bytes())?;
                if FileId::of(&place::stat_fd(path.as_fd())?) != FileId::of(&stat) {
                    return Err(Errno::STALE);
                }
                self.insert_child(&dir, name, Arc::new(path), &stat)?
            } else {
                0
            };
            Ok(Entry { handle, stat })
        })();
        let entry = undo_on_error(made, &dir, name, AtFlags::empty())?;
        reply.put(&entry);
        Ok(Some(fd))
    }

    pub fn create_unnamed(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: Create = request.get()?;
        request.end()?;
        let dir = self.writable_directory(body.node.handle)?;
        let mode = permission_bits(body.mode)?;
        check_owner(body.uid, body.gid)?;
        let fd = place::create_unnamed(dir.as_fd(), mode)?;
        let stat = settle(fd.as_fd(), &body, || rustix::io::dup(&fd))?;
        let kept = Arc::new(rustix::io::fcntl_dupfd_cloexec(&fd, 3)?);
        let io = Some(rustix::io::fcntl_dupfd_cloexec(&fd, 3)?);
        let file = File {
            fd: kept,
            mount: dir.mount.clone(),
            id: FileId::of(&stat),
            kind: stat.file_type(),
            anchor: None,
            io,
        };
        let handle = self.handles.insert(file)?;
        reply.put(&Entry { handle, stat });
        Ok(Some(fd))
    }

    pub fn mkdir(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: Create = request.get()?;
        let name = request.name()?;
        request.end()?;
        let dir = self.writable_directory(body.node.handle)?;
        let mode = permission_bits(body.mode)?;
        check_owner(body.uid, body.gid)?;
        rustix::fs::mkdirat(dir.as_fd(), name.bytes(), mode)?;
        let made = (|| {
            let fd = place::open_path(dir.as_fd(), name.bytes())?;
            let stat = settle(fd.as_fd(), &body, || place::reopen_directory(fd.as_fd()))?;
            if !stat.is_directory() {
                return Err(Errno::STALE);
            }
            let handle = self.insert_child(&dir, name, Arc::new(fd), &stat)?;
            Ok(Entry { handle, stat })
        })();
        reply.put(&undo_on_error(made, &dir, name, AtFlags::REMOVEDIR)?);
        Ok(None)
    }

    pub fn symlink(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: Create = request.get()?;
        let name = request.name()?;
        let target = request.bytes(MAX_TARGET)?;
        request.end()?;
        if target.is_empty() || target.contains(&0) {
            return Err(Refusal(Errno::INVAL));
        }
        let dir = self.writable_directory(body.node.handle)?;
        check_owner(body.uid, body.gid)?;
        rustix::fs::symlinkat(target, dir.as_fd(), name.bytes())?;
        let made = self.finish_node(&dir, name, &body);
        reply.put(&undo_on_error(made, &dir, name, AtFlags::empty())?);
        Ok(None)
    }

    /// FIFO and socket nodes are inert on the host until somebody there uses them; the sentry's own
    /// pipes and sockets stand behind them inside the sandbox. Devices are not inert.
    pub fn mknod(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: Mknod = request.get()?;
        let name = request.name()?;
        request.end()?;
        let dir = self.writable_directory(body.create.node.handle)?;
        let mode = permission_bits(body.create.mode)?;
        check_owner(body.create.uid, body.create.gid)?;
        let device = match body.file_type {
            S_IFREG | S_IFIFO | S_IFSOCK => 0,
            S_IFCHR | S_IFBLK if dir.mount.allow_devices => {
                rustix::fs::makedev(body.rdev_major, body.rdev_minor)
            }
            S_IFCHR | S_IFBLK => return Err(Refusal(Errno::PERM)),
            _ => return Err(Refusal(Errno::INVAL)),
        };
        rustix::fs::mknodat(
            dir.as_fd(),
            name.bytes(),
            FileType::from_raw_mode(body.file_type),
            mode,
            device,
        )?;
        let made = self.finish_node(&dir, name, &body.create);
        reply.put(&undo_on_error(made, &dir, name, AtFlags::empty())?);
        Ok(None)
    }

    fn finish_node(&self, dir: &File, name: Name<'_>, body: &Create) -> Result<Entry, Errno> {
        let fd = place::open_path(dir.as_fd(), name.bytes())?;
        let stat = settle(fd.as_fd(), body, || {
            place::open_real(dir.as_fd(), name.bytes(), OFlags::RDONLY, Expect::Anything).map(|(fd, _)| fd)
        })?;
        let handle = if body.flags & CREATE_HANDLE != 0 {
            self.insert_child(dir, name, Arc::new(fd), &stat)?
        } else {
            0
        };
        Ok(Entry { handle, stat })
    }

    pub fn link(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: Link = request.get()?;
        let source = self.place(body.source, request)?;
        let name = request.name()?;
        request.end()?;
        let dir = self.writable_directory(body.directory)?;
        if dir.mount.index != source.mount().index {
            return Err(Refusal(Errno::XDEV));
        }
        let (fd, before) = source.pin()?;
        if before.is_directory() {
            return Err(Refusal(Errno::PERM));
        }
        // A file without a name (O_TMPFILE) can only be linked by its descriptor.
        let by_name = source.named().filter(|(from, old, _)| {
            place::stat_at(*from, old).is_ok_and(|now| FileId::of(&now) == FileId::of(&before))
        });
        match by_name {
            Some((from, old, _)) => {
                rustix::fs::linkat(from, old, dir.as_fd(), name.bytes(), AtFlags::empty())?
            }
            None => {
                let io = match &source {
                    Place::Handle(file) => file.io.as_ref(),
                    Place::Child { .. } => None,
                };
                let held = io.map_or(fd.as_fd(), AsFd::as_fd);
                rustix::fs::linkat(held, c"", dir.as_fd(), name.bytes(), AtFlags::EMPTY_PATH)?;
            }
        }
        reply.put(&Entry { handle: 0, stat: place::stat_fd(fd.as_fd())? });
        Ok(None)
    }

    pub fn unlink(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: Unlink = request.get()?;
        let name = request.name()?;
        request.end()?;
        if body.flags & !(UNLINK_DIRECTORY | UNLINK_PIN) != 0 {
            return Err(Refusal(Errno::INVAL));
        }
        let dir = self.writable_directory(body.node.handle)?;
        let place = Place::Child { dir: dir.clone(), name, ino: body.node.ino };
        let last = Last::hold(&place, body.flags & UNLINK_PIN != 0)?;
        let flags = if body.flags & UNLINK_DIRECTORY != 0 { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(dir.as_fd(), name.bytes(), flags)?;
        reply.put(&self.release(last, &dir)?);
        Ok(None)
    }

    /// What is left of a file after one of its names is gone, with a handle if it was asked for.
    fn release(&self, last: Last, dir: &File) -> Result<Entry, Errno> {
        let stat = place::stat_fd(last.fd.as_fd())?;
        let mut handle = 0;
        if last.pin {
            let Last { fd, io, .. } = last;
            let file = File {
                fd,
                mount: dir.mount.clone(),
                id: FileId::of(&stat),
                kind: stat.file_type(),
                anchor: None,
                io,
            };
            // The name is gone already; without room for a handle the file stays reachable by donated descriptors only.
            handle = self.handles.insert(file).unwrap_or(0);
        }
        Ok(Entry { handle, stat })
    }

    pub fn rename(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: Rename = request.get()?;
        let old_name = request.name()?;
        let new_name = request.name()?;
        request.end()?;
        let old_dir = self.writable_directory(body.old_directory)?;
        let new_dir = self.writable_directory(body.new_directory)?;
        if old_dir.mount.index != new_dir.mount.index {
            return Err(Refusal(Errno::XDEV));
        }
        let pin = body.flags & RENAME_PIN != 0;
        let flags = match body.flags & !RENAME_PIN {
            0 => RenameFlags::empty(),
            1 => RenameFlags::NOREPLACE,
            2 => RenameFlags::EXCHANGE,
            _ => return Err(Refusal(Errno::INVAL)),
        };
        let place = Place::Child { dir: new_dir.clone(), name: new_name, ino: 0 };
        let last = if pin { Some(Last::hold(&place, true)?) } else { None };
        rustix::fs::renameat_with(
            old_dir.as_fd(),
            old_name.bytes(),
            new_dir.as_fd(),
            new_name.bytes(),
            flags,
        )?;
        let replaced = match last {
            Some(last) => self.release(last, &new_dir)?,
            None => Entry { handle: 0, stat: Stat::default() },
        };
        reply.put(&replaced);
        Ok(None)
    }

    pub fn set_attr(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: SetAttr = request.get()?;
        let place = self.place(body.node, request)?;
        request.end()?;
        if body.valid & !ATTR_ALL != 0 {
            return Err(Refusal(Errno::INVAL));
        }
        place.check_writable()?;
        let times = timestamps(&body)?;
        let (fd, stat) = place.pin()?;
        if body.valid & ATTR_SIZE != 0 {
            if stat.is_directory() {
                return Err(Refusal(Errno::ISDIR));
            }
            let (file, _) = place.open(OFlags::WRONLY)?;
            rustix::fs::ftruncate(&file, body.size)?;
        }
        if body.valid & (ATTR_UID | ATTR_GID) != 0 {
            check_owner(body.uid, body.gid)?;
            let uid = (body.valid & ATTR_UID != 0).then(|| Uid::from_raw(body.uid));
            let gid = (body.valid & ATTR_GID != 0).then(|| Gid::from_raw(body.gid));
            rustix::fs::chownat(fd.as_fd(), c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if body.valid & ATTR_MODE != 0 {
            let mode = permission_bits(body.mode)?;
            if stat.is_symlink() {
                return Err(Refusal(Errno::OPNOTSUPP));
            }
            change_mode(fd.as_fd(), mode, || place.open(OFlags::RDONLY).map(|(fd, _)| fd))?;
        }
        if let Some(times) = times {
            rustix::fs::utimensat(fd.as_fd(), c"", &times, AtFlags::EMPTY_PATH)?;
        }
        reply.put(&place::stat_fd(fd.as_fd())?);
        Ok(None)
    }
}

/// A file that is about to lose a name, held by what can still be done with it afterwards.
struct Last {
    fd: Arc<OwnedFd>,
    io: Option<OwnedFd>,
    pin: bool,
}

impl Last {
    fn hold(place: &Place<'_>, pin: bool) -> Result<Last, Errno> {
        let (fd, stat) = place.pin()?;
        let io = if pin && stat.is_regular() {
            place.open(OFlags::RDWR).or_else(|_| place.open(OFlags::RDONLY)).ok().map(|(fd, _)| fd)
        } else {
            None
        };
        Ok(Last { fd, io, pin })
    }
}

/// Takes a half-made file away again if a later step failed.
fn undo_on_error(
    made: Result<Entry, Errno>,
    dir: &File,
    name: Name<'_>,
    flags: AtFlags,
) -> Result<Entry, Errno> {
    if made.is_err() {
        // Its error is less interesting than the first one.
        let _ = rustix::fs::unlinkat(dir.as_fd(), name.bytes(), flags);
    }
    made
}

fn timestamps(body: &SetAttr) -> Result<Option<Timestamps>, Errno> {
    let time = |set: u32, now: u32, time: Timestamp| {
        if body.valid & now != 0 {
            Ok(Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW })
        } else if body.valid & set == 0 {
            Ok(Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT })
        } else if time.nanoseconds < 1_000_000_000 {
            Ok(Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) })
        } else {
            Err(Errno::INVAL)
        }
    };
    let last_access = time(ATTR_ATIME, ATTR_ATIME_NOW, body.atime)?;
    let last_modification = time(ATTR_MTIME, ATTR_MTIME_NOW, body.mtime)?;
    let any = body.valid & (ATTR_ATIME | ATTR_MTIME | ATTR_ATIME_NOW | ATTR_MTIME_NOW) != 0;
    Ok(any.then_some(Timestamps { last_access, last_modification }))
}
