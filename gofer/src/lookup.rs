//! Requests that look but change nothing: walk, open, readlink, statfs, sync.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use gofer_protocol::codec::MAX_WALK;
use gofer_protocol::{
    Entry, Name, Node, OPEN_BEST, OPEN_READ, OPEN_TRUNCATE, OPEN_WRITE, Open, Reader, Stat, StatFs,
    WALK_COMPLETE, WALK_FAILED, WALK_FILE_HANDLES, WALK_MISSING, WALK_NO_LAST_HANDLE, WALK_NOT_DIRECTORY,
    WALK_OPEN_FAILED, WALK_SYMLINK, Walk, Walked, Writer,
};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::dispatch::{Answer, Refusal, Server};
use crate::handles::{File, Mount};
use crate::place::{self, FileId, Place};

/// The open(2) flags for the protocol's, checked against the mount.
fn open_flags(flags: u32, mount: &Mount) -> Result<OFlags, Errno> {
    if flags & !(OPEN_READ | OPEN_WRITE | OPEN_TRUNCATE | OPEN_BEST) != 0 {
        return Err(Errno::INVAL);
    }
    let writing = flags & OPEN_WRITE != 0;
    if flags & OPEN_TRUNCATE != 0 && !writing || flags & (OPEN_READ | OPEN_WRITE) == 0 {
        return Err(Errno::INVAL);
    }
    if writing && mount.readonly {
        if flags & OPEN_BEST != 0 && flags & OPEN_READ != 0 && flags & OPEN_TRUNCATE == 0 {
            return Ok(OFlags::RDONLY);
        }
        return Err(Errno::ROFS);
    }
    let access = match (flags & OPEN_READ != 0, writing) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    Ok(if flags & OPEN_TRUNCATE != 0 { access | OFlags::TRUNC } else { access })
}

/// Opens a regular file with the protocol's flags; true if the descriptor can write.
fn open_regular(place: &Place<'_>, flags: u32) -> Result<(OwnedFd, Stat, bool), Errno> {
    let wanted = open_flags(flags, place.mount())?;
    let writable = wanted.intersects(OFlags::WRONLY | OFlags::RDWR);
    let (opened, writable) = match place.open(wanted) {
        // A text file being executed on the host, a file system mounted read-only, an owner without the right.
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY)
            if flags & OPEN_BEST != 0 && flags & OPEN_READ != 0 && flags & OPEN_TRUNCATE == 0 && writable =>
        {
            (place.open(OFlags::RDONLY)?, false)
        }
        opened => (opened?, writable),
    };
    let (fd, stat) = opened;
    if !stat.is_regular() {
        return Err(Errno::ISDIR);
    }
    Ok((fd, stat, writable))
}

impl Server {
    pub fn walk(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: Walk = request.get()?;
        let count = usize::try_from(body.count).map_err(|_| Errno::INVAL)?;
        if count == 0 || count > MAX_WALK || body.flags & !(WALK_FILE_HANDLES | WALK_NO_LAST_HANDLE) != 0 {
            return Err(Refusal(Errno::INVAL));
        }
        // All names are looked at before the first lookup: a malformed request has no effect.
        let mut names = request.clone();
        for _ in 0..count {
            request.name()?;
        }
        request.end()?;
        let head = reply.len();
        let mut walked = Walked { count: 0, end: WALK_COMPLETE, errno: 0, reserved: 0 };
        reply.put(&walked);
        let mut directory = self.directory(body.handle)?;
        let mut donated = None;
        let mut given = Vec::new();
        for position in 1..=count {
            let name = names.name()?;
            let last = position == count;
            let open = if last { body.open } else { 0 };
            let step = match self.step(&directory, name, last, body.flags, open) {
                Ok(step) => step,
                Err(Refusal(Errno::NOENT)) => {
                    walked.end = WALK_MISSING;
                    break;
                }
                Err(Refusal(errno @ (Errno::NFILE | Errno::MFILE))) => {
                    // The client frees handles and walks again; what this walk gave out, it must not keep.
                    for handle in given {
                        self.handles.remove(handle);
                    }
                    return Err(Refusal(errno));
                }
                Err(Refusal(errno)) => {
                    walked.end = WALK_FAILED;
                    walked.errno = errno.raw_os_error().unsigned_abs();
                    break;
                }
            };
            if step.entry.handle != 0 {
                given.push(step.entry.handle);
            }
            reply.put(&step.entry);
            walked.count += 1;
            if step.entry.stat.is_symlink() {
                let target = rustix::fs::readlinkat(directory.as_fd(), name.bytes(), Vec::new())?;
                reply.put_bytes(target.as_bytes());
                walked.end = WALK_SYMLINK;
                break;
            }
            match step.opened {
                Some(Ok(fd)) => donated = Some(fd),
                Some(Err(errno)) => {
                    walked.end = WALK_OPEN_FAILED;
                    walked.errno = errno.raw_os_error().unsigned_abs();
                }
                None => {}
            }
            if last {
                break;
            }
            if !step.entry.stat.is_directory() {
                walked.end = WALK_NOT_DIRECTORY;
                break;
            }
            directory = self.handles.get(step.entry.handle)?;
        }
        reply.patch(head, &walked);
        Ok(donated)
    }

    /// One component: its attributes, a handle where one is due, and the open at the end.
    fn step(
        &self,
        dir: &Arc<File>,
        name: Name<'_>,
        last: bool,
        flags: u32,
        open: u32,
    ) -> Result<Step, Refusal> {
        let mut stat = place::stat_at(dir.as_fd(), name.bytes())?;
        let mut opened = None;
        if open != 0 && stat.is_regular() {
            let place = Place::Child { dir: dir.clone(), name, ino: stat.ino };
            opened = Some(match open_regular(&place, open) {
                Ok((fd, now, _)) => {
                    stat = now;
                    Ok(fd)
                }
                Err(errno) => Err(errno),
            });
        }
        let wants_handle = if last && flags & WALK_NO_LAST_HANDLE != 0 {
            false
        } else {
            stat.is_directory() || flags & WALK_FILE_HANDLES != 0
        };
        let mut handle = 0;
        if wants_handle {
            let fd = place::open_path(dir.as_fd(), name.bytes())?;
            let pinned = place::stat_fd(fd.as_fd())?;
            if opened.is_some() && FileId::of(&pinned) != FileId::of(&stat) {
                // The name changed its meaning between the open and now: the next attempt sees one or the other.
                return Err(Refusal(Errno::STALE));
            }
            stat = pinned;
            handle = self.insert_child(dir, name, Arc::new(fd), &stat)?;
        }
        Ok(Step { entry: Entry { handle, stat }, opened })
    }

    pub fn open(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: Open = request.get()?;
        let place = self.place(body.node, request)?;
        request.end()?;
        let (fd, stat, writable) = open_regular(&place, body.flags)?;
        reply.put(&Entry { handle: u64::from(writable), stat });
        Ok(Some(fd))
    }

    pub fn readlink(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let node: Node = request.get()?;
        let place = self.place(node, request)?;
        request.end()?;
        let (fd, stat) = place.pin()?;
        if !stat.is_symlink() {
            return Err(Refusal(Errno::INVAL));
        }
        // An O_PATH descriptor of a symlink with an empty name means the link itself.
        let target = rustix::fs::readlinkat(fd.as_fd(), c"", Vec::new())?;
        reply.put_bytes(target.as_bytes());
        Ok(None)
    }

    pub fn stat_fs(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let node: Node = request.get()?;
        request.end()?;
        let file = self.handles.get(node.handle)?;
        let stat = rustix::fs::fstatfs(file.as_fd())?;
        let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
        reply.put(&StatFs {
            file_system_type: unsigned(stat.f_type),
            block_size: unsigned(stat.f_bsize),
            blocks: stat.f_blocks,
            blocks_free: stat.f_bfree,
            blocks_available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            name_length: unsigned(stat.f_namelen),
            fragment_size: unsigned(stat.f_frsize),
            flags: unsigned(stat.f_flags),
        });
        Ok(None)
    }

    pub fn fsync(&self, request: &mut Reader<'_>) -> Answer {
        let node: Node = request.get()?;
        let place = self.place(node, request)?;
        request.end()?;
        let (fd, _) = place.open(OFlags::RDONLY)?;
        rustix::fs::fsync(&fd)?;
        Ok(None)
    }

    pub fn sync_fs(&self, request: &mut Reader<'_>) -> Answer {
        let node: Node = request.get()?;
        request.end()?;
        let file = self.directory(node.handle)?;
        if file.mount.readonly {
            return Ok(None);
        }
        let fd = place::reopen_directory(file.as_fd())?;
        rustix::fs::syncfs(&fd)?;
        Ok(None)
    }
}

struct Step {
    entry: Entry,
    opened: Option<Result<OwnedFd, Errno>>,
}
