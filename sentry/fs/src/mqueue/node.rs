//! The inodes of mqueue and their open files: a directory of queues, and the queues.

use super::{Meta, MqFs, Queue, Shape};
use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::resource::Resource;
use abi::stat::{FileType, mode};
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::io::Sink;
use kernel::vfs::{
    Attr, Caller, CreateArgs, DirSink, File, FileOps, FileSystem, Inode, InodeExtras, LockOwner, Path,
    SeekFrom, SetAttr, SetTime,
};
use ksync::{Mutex, WaitQueue};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The size that Linux shows for a directory entry and for a queue.
const ENTRY_SIZE: u64 = 20;
const QUEUE_SIZE: u64 = 80;

fn attr(fs: &MqFs, ino: u64, nlink: u32, size: u64, m: Meta) -> Attr {
    Attr {
        dev: fs.dev,
        ino,
        mode: m.mode,
        nlink,
        uid: m.uid,
        gid: m.gid,
        rdev: 0,
        size,
        blksize: 4096,
        blocks: 0,
        atime: m.atime,
        mtime: m.mtime,
        ctime: m.ctime,
        btime: None,
    }
}

fn set(meta: &Mutex<Meta>, set: &SetAttr, now: Timespec) {
    let mut m = meta.lock();
    if let Some(perm) = set.mode {
        m.mode = m.mode & mode::S_IFMT | perm & mode::PERM;
    }
    m.uid = set.uid.unwrap_or(m.uid);
    m.gid = set.gid.unwrap_or(m.gid);
    let time = |old, new: Option<SetTime>| match new {
        None => old,
        Some(SetTime::Now) => now,
        Some(SetTime::At(at)) => at,
    };
    m.atime = time(m.atime, set.atime);
    m.mtime = time(m.mtime, set.mtime);
    m.ctime = now;
}

/// The root directory.
pub(super) struct RootNode(pub Arc<MqFs>);

/// A queue as an inode.
struct QueueNode {
    fs: Arc<MqFs>,
    queue: Arc<Queue>,
}

impl RootNode {
    fn changed(&self) {
        let now = self.0.now();
        let mut m = self.0.meta.lock();
        (m.mtime, m.ctime) = (now, now);
    }

    fn node(&self, queue: &Arc<Queue>) -> Arc<dyn Inode> {
        Arc::new(QueueNode { fs: Arc::clone(&self.0), queue: Arc::clone(queue) })
    }
}

impl Inode for RootNode {
    fn fs(&self) -> &dyn FileSystem {
        &*self.0
    }
    fn file_type(&self) -> FileType {
        FileType::Directory
    }
    fn ino(&self) -> u64 {
        1
    }
    fn attr(&self) -> Result<Attr> {
        let n = self.0.names.lock().len() as u64;
        let meta = *self.0.meta.lock();
        Ok(attr(&self.0, 1, 2, (n + 2) * ENTRY_SIZE, meta))
    }
    fn set_attr(&self, _cx: &Caller<'_>, new: &SetAttr) -> Result<()> {
        set(&self.0.meta, new, self.0.now());
        Ok(())
    }
    fn lookup(&self, _cx: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let found = self.0.names.lock().get(name).cloned();
        found.map(|q| self.node(&q)).ok_or(Errno::ENOENT)
    }
    fn revalidate(&self, _cx: &Caller<'_>, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        let now = self.0.names.lock().get(name).map(|q| q.ino);
        now == child.map(|c| c.ino())
    }
    fn create(&self, cx: &Caller<'_>, name: &[u8], args: &CreateArgs) -> Result<Arc<dyn Inode>> {
        if FileType::from_mode(args.mode) != Some(FileType::Regular) {
            return Err(Errno::EPERM);
        }
        let limit = cx.task.map_or(u64::MAX, |t| t.group().soft_limit(Resource::Msgqueue));
        let now = self.0.now();
        let (mode, uid, gid) = (args.mode, args.uid, args.gid);
        let meta = Meta { mode, uid, gid, atime: now, mtime: now, ctime: now };
        let queue = self.0.new_queue(cx.creds, meta, Shape::unpack(args.rdev), limit)?;
        {
            let mut names = self.0.names.lock();
            if names.contains_key(name) {
                return Err(Errno::EEXIST);
            }
            names.insert(name.into(), Arc::clone(&queue));
        }
        self.changed();
        Ok(self.node(&queue))
    }
    fn unlink(&self, _cx: &Caller<'_>, name: &[u8], _child: &Arc<dyn Inode>) -> Result<()> {
        let gone = self.0.names.lock().remove(name).ok_or(Errno::ENOENT)?;
        gone.linked.store(0, Ordering::Relaxed);
        gone.meta.lock().ctime = self.0.now();
        self.changed();
        Ok(())
    }
    fn open(&self, _cx: &Caller<'_>, _path: &Path, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(RootFile(Arc::clone(&self.0))))
    }
    fn extras(&self) -> &InodeExtras {
        &self.0.extras
    }
}

impl Inode for QueueNode {
    fn fs(&self) -> &dyn FileSystem {
        &*self.fs
    }
    fn file_type(&self) -> FileType {
        FileType::Regular
    }
    fn ino(&self) -> u64 {
        self.queue.ino
    }
    fn attr(&self) -> Result<Attr> {
        let links = u32::try_from(self.queue.linked.load(Ordering::Relaxed)).unwrap_or(1);
        let meta = *self.queue.meta.lock();
        Ok(attr(&self.fs, self.queue.ino, links, QUEUE_SIZE, meta))
    }
    fn set_attr(&self, _cx: &Caller<'_>, new: &SetAttr) -> Result<()> {
        set(&self.queue.meta, new, self.fs.now());
        Ok(())
    }
    fn open(&self, _cx: &Caller<'_>, _path: &Path, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(MqFile { fs: Arc::clone(&self.fs), queue: Arc::clone(&self.queue) }))
    }
    fn extras(&self) -> &InodeExtras {
        &self.queue.extras
    }
}

/// The open directory.
struct RootFile(Arc<MqFs>);

impl FileOps for RootFile {
    fn read(&self, _cx: &Caller<'_>, _f: &File, _dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }
    /// Positions are inode numbers, which grow with each queue.
    fn readdir(&self, _cx: &Caller<'_>, _f: &File, pos: u64, sink: &mut dyn DirSink) -> Result<()> {
        for (at, name) in [(0, b".".as_slice()), (1, b"..")] {
            if pos <= at && !sink.entry(1, at + 1, FileType::Directory, name) {
                return Ok(());
            }
        }
        let mut all: Vec<(u64, Box<[u8]>)> =
            self.0.names.lock().iter().map(|(name, q)| (q.ino, name.clone())).collect();
        all.sort_unstable();
        for (ino, name) in all.iter().filter(|(ino, _)| *ino >= pos) {
            if !sink.entry(*ino, ino + 1, FileType::Regular, name) {
                break;
            }
        }
        Ok(())
    }
    fn seek(&self, _cx: &Caller<'_>, f: &File, pos: u64, from: SeekFrom) -> Result<u64> {
        match from {
            SeekFrom::Set(_) | SeekFrom::Cur(_) => f.generic_seek(pos, from),
            _ => Err(Errno::EINVAL),
        }
    }
    fn fsync(&self, _f: &File, _data_only: bool) -> Result<()> {
        Ok(())
    }
}

/// An open queue.
pub struct MqFile {
    fs: Arc<MqFs>,
    pub queue: Arc<Queue>,
}

impl MqFile {
    /// The queue behind an open file, if it is one.
    pub fn of(file: &File) -> Option<&MqFile> {
        let any: &dyn Any = &**file.ops();
        any.downcast_ref()
    }

    /// A message came or went: the times of the inode follow.
    pub fn used(&self, sent: bool) {
        let now = self.fs.now();
        let mut m = self.queue.meta.lock();
        m.ctime = now;
        if sent {
            m.mtime = now;
        } else {
            m.atime = now;
        }
    }
}

impl FileOps for MqFile {
    fn read(&self, _cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, pos: &mut u64) -> Result<usize> {
        let text = self.queue.describe();
        let at = usize::try_from(*pos).unwrap_or(usize::MAX).min(text.len());
        let n = if at == text.len() { 0 } else { dst.put(&text.as_bytes()[at..])? };
        *pos += n as u64;
        Ok(n)
    }
    fn poll(&self, _cx: &Caller<'_>, _f: &File) -> PollEvents {
        self.queue.ready()
    }
    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        Some(Arc::clone(&self.queue.wait))
    }
    fn closed_in(&self, table: LockOwner) {
        self.queue.closed(table);
    }
}
