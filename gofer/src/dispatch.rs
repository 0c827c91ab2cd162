//! From a message to the function that answers it.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use gofer_protocol::codec::{MAX_MESSAGE, Malformed};
use gofer_protocol::{
    ANY_CPU, Attach, Attached, Entry, MOUNT_READ_ONLY, Name, Node, Op, Reader, RequestHeader, StatResult,
    Writer,
};
use rustix::io::Errno;

use crate::MountConfig;
use crate::channel::Workers;
use crate::handles::{File, HandleTable, Mount, MountRoot};
use crate::place::{self, FileId, Place};

/// Descriptors kept back for everything that is not a handle.
const SPARE_DESCRIPTORS: u64 = 128;
/// Handles at most, however many descriptors the process may have.
const MAX_HANDLES: u64 = 1 << 17;

#[derive(Debug)]
struct AttachPoint {
    mount: Arc<Mount>,
    fd: Arc<OwnedFd>,
    anchor: Option<(Arc<OwnedFd>, Box<[u8]>)>,
}

/// Everything the channels share.
#[derive(Debug)]
pub struct Server {
    mounts: Vec<AttachPoint>,
    pub handles: HandleTable,
    pub workers: Workers,
}

/// Why a request got no answer but an errno.
#[derive(Clone, Copy, Debug)]
pub struct Refusal(pub Errno);

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal(errno)
    }
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Refusal {
        Refusal(Errno::INVAL)
    }
}

/// Lets this thread run where the sentry's thread waits, which is cheaper than to wake another processor up.
fn come_to(cpu: u32) {
    thread_local!(static BOUND: Cell<u32> = const { Cell::new(ANY_CPU) });
    if cpu == ANY_CPU || BOUND.replace(cpu) == cpu {
        return;
    }
    // Where the sandbox may not use that processor, or there is none of that number, the thread stays where it is.
    let _ = hostsys::process::set_affinity(0, &[cpu as usize]);
}

/// A descriptor that goes with the reply, or none.
pub type Answer = Result<Option<OwnedFd>, Refusal>;

impl Server {
    pub fn new(configured: Vec<MountConfig>) -> io::Result<Arc<Server>> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
        let max = limit.saturating_sub(SPARE_DESCRIPTORS).clamp(16, MAX_HANDLES);
        let mut mounts = Vec::with_capacity(configured.len());
        for (index, config) in configured.into_iter().enumerate() {
            let mount =
                Arc::new(Mount { index, readonly: config.readonly, allow_devices: config.allow_devices });
            let (fd, anchor) = match config.root {
                MountRoot::Directory(fd) => {
                    place::probe_openat2(fd.as_fd());
                    (fd, None)
                }
                MountRoot::File { directory, name } => {
                    let fd = place::open_path(directory.as_fd(), &name)?;
                    (fd, Some((Arc::new(directory), name.into_boxed_slice())))
                }
            };
            mounts.push(AttachPoint { mount, fd: Arc::new(fd), anchor });
        }
        let handles = HandleTable::new(usize::try_from(max).unwrap_or(1024));
        Ok(Arc::new(Server { mounts, handles, workers: Workers::default() }))
    }

    /// Answers one message. Whatever it holds, there is a reply.
    pub fn answer(&self, message: &[u8], reply: &mut Writer) -> Option<OwnedFd> {
        let mut reader = Reader::new(message);
        let Ok(header) = reader.get::<RequestHeader>() else {
            reply.fail(0, Errno::INVAL.raw_os_error().unsigned_abs());
            return None;
        };
        come_to(header.cpu);
        reply.reply(header.sequence);
        let answer = match Op::try_from(header.op) {
            Ok(op) => self.dispatch(op, &mut reader, reply),
            Err(Malformed) => Err(Refusal(Errno::OPNOTSUPP)),
        };
        match answer {
            Ok(_) if reply.len() > MAX_MESSAGE => {
                reply.fail(header.sequence, Errno::RANGE.raw_os_error().unsigned_abs());
                None
            }
            Ok(donated) => donated,
            Err(Refusal(errno)) => {
                reply.fail(header.sequence, errno.raw_os_error().unsigned_abs());
                None
            }
        }
    }

    fn dispatch(&self, op: Op, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        match op {
            Op::Attach => self.attach(request, reply),
            Op::Walk => self.walk(request, reply),
            Op::Open => self.open(request, reply),
            Op::Readlink => self.readlink(request, reply),
            Op::GetStats => self.get_stats(request, reply),
            Op::StatFs => self.stat_fs(request, reply),
            Op::Readdir => self.readdir(request, reply),
            Op::Create => self.create(request, reply),
            Op::TmpFile => self.create_unnamed(request, reply),
            Op::Mkdir => self.mkdir(request, reply),
            Op::Symlink => self.symlink(request, reply),
            Op::Mknod => self.mknod(request, reply),
            Op::Link => self.link(request, reply),
            Op::Unlink => self.unlink(request, reply),
            Op::Rename => self.rename(request, reply),
            Op::SetAttr => self.set_attr(request, reply),
            Op::GetXattr => self.get_xattr(request, reply),
            Op::SetXattr => self.set_xattr(request),
            Op::ListXattr => self.list_xattr(request, reply),
            Op::RemoveXattr => self.remove_xattr(request),
            Op::Fsync => self.fsync(request),
            Op::SyncFs => self.sync_fs(request),
            Op::Close => self.close(request),
            Op::Channel => self.another_channel(request),
        }
    }

    /// The node at the front of a request together with the optional name in its tail.
    pub fn place<'a>(&self, node: Node, request: &mut Reader<'a>) -> Result<Place<'a>, Refusal> {
        let file = self.handles.get(node.handle)?;
        match request.optional_name()? {
            None => {
                if node.ino != 0 && node.ino != file.id.ino {
                    return Err(Refusal(Errno::STALE));
                }
                Ok(Place::Handle(file))
            }
            Some(name) => {
                if !file.is_directory() {
                    return Err(Refusal(Errno::NOTDIR));
                }
                Ok(Place::Child { dir: file, name, ino: node.ino })
            }
        }
    }

    /// A handle that must be a directory.
    pub fn directory(&self, handle: u64) -> Result<Arc<File>, Refusal> {
        let file = self.handles.get(handle)?;
        if file.is_directory() { Ok(file) } else { Err(Refusal(Errno::NOTDIR)) }
    }

    /// A directory in which something is about to change.
    pub fn writable_directory(&self, handle: u64) -> Result<Arc<File>, Refusal> {
        let file = self.directory(handle)?;
        if file.mount.readonly { Err(Refusal(Errno::ROFS)) } else { Ok(file) }
    }

    /// Gives a handle to something found or made below `dir`.
    pub fn insert_child(
        &self,
        dir: &File,
        name: Name<'_>,
        fd: Arc<OwnedFd>,
        stat: &gofer_protocol::Stat,
    ) -> Result<u64, Errno> {
        let anchor = (!stat.is_directory()).then(|| (dir.fd.clone(), Box::from(name.bytes())));
        let file = File {
            fd,
            mount: dir.mount.clone(),
            id: FileId::of(stat),
            kind: stat.file_type(),
            anchor,
            io: None,
        };
        self.handles.insert(file)
    }

    fn attach(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: Attach = request.get()?;
        request.end()?;
        let index = usize::try_from(body.mount).map_err(|_| Errno::INVAL)?;
        let point = self.mounts.get(index).ok_or(Errno::INVAL)?;
        let stat = place::stat_fd(point.fd.as_fd())?;
        let file = File {
            fd: point.fd.clone(),
            mount: point.mount.clone(),
            id: FileId::of(&stat),
            kind: stat.file_type(),
            anchor: point.anchor.clone(),
            io: None,
        };
        let handle = self.handles.insert(file)?;
        let max_handles = u32::try_from(self.handles.max()).unwrap_or(u32::MAX);
        let flags = if point.mount.readonly { MOUNT_READ_ONLY } else { 0 };
        reply.put(&Attached { root: Entry { handle, stat }, max_handles, flags });
        Ok(None)
    }

    fn close(&self, request: &mut Reader<'_>) -> Answer {
        let count: u32 = request.get()?;
        for _ in 0..count {
            let handle: u64 = request.get()?;
            self.handles.remove(handle);
        }
        request.end()?;
        Ok(None)
    }

    fn get_stats(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let count: u32 = request.get()?;
        reply.put(&count);
        for _ in 0..count {
            let node: Node = request.get()?;
            // A handle that is gone is that entry's error, a malformed name the whole request's.
            let result = match self.handles.get(node.handle) {
                Ok(_) => match self.place(node, request) {
                    Ok(place) => place.stat(),
                    Err(Refusal(Errno::INVAL)) => return Err(Refusal(Errno::INVAL)),
                    Err(Refusal(errno)) => Err(errno),
                },
                Err(errno) => {
                    request.optional_name()?;
                    Err(errno)
                }
            };
            let result = match result {
                Ok(stat) => StatResult { errno: 0, reserved: 0, stat },
                Err(errno) => StatResult {
                    errno: errno.raw_os_error().unsigned_abs(),
                    reserved: 0,
                    stat: gofer_protocol::Stat::default(),
                },
            };
            reply.put(&result);
            if reply.len() > MAX_MESSAGE {
                return Err(Refusal(Errno::INVAL));
            }
        }
        request.end()?;
        Ok(None)
    }

    fn another_channel(&self, request: &mut Reader<'_>) -> Answer {
        request.end()?;
        Ok(Some(self.workers.open_another()?))
    }
}
