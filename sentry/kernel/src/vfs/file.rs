//! Open file descriptions and the operations behind them.

use super::inode::{Attr, Caller};
use super::notify::{Event, Origin, notify};
use super::path::Path;
use super::position::Position;
use crate::creds::Creds;
use crate::io::{Sink, Source};
use crate::mm::Mappable;
use crate::task::Task;
use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::stat::FileType;
use abi::{Errno, Result};
use ksync::live::{Kind, Live};
use ksync::{LockClass, Mutex, WaitQueue};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

/// `whence` of lseek(2) with its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekFrom {
    Set(i64),
    Cur(i64),
    End(i64),
    Data(i64),
    Hole(i64),
}

/// Takes directory entries; `false` means that the entry did not fit and was not taken.
pub trait DirSink {
    /// `next` is the position (`d_off`) after this entry.
    fn entry(&mut self, ino: u64, next: u64, kind: FileType, name: &[u8]) -> bool;
}

/// What an open file description can do. None of these blocks: what is not ready says EAGAIN, and
/// the queue of `wait_queue` tells when to try again; the calls' generic code does the waiting.
///
/// The defaults are what Linux answers for a file that cannot do a thing.
pub trait FileOps: Any + Send + Sync {
    /// Reads from `*pos` on and moves it, for files that have positions; others ignore it.
    fn read(&self, _cx: &Caller<'_>, _f: &File, _dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Writes at `*pos` and moves it; with `O_APPEND` in the file's flags at the end, whatever `*pos`.
    fn write(&self, _cx: &Caller<'_>, _f: &File, _src: &mut dyn Source, _pos: &mut u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Whether a blocking write goes on, waiting, until all is written (pipes, stream sockets): the
    /// generic code then calls `write` again for the rest after a short count.
    fn writes_all(&self) -> bool {
        false
    }
    /// How long a blocking read (or write) may wait, in nanoseconds: `SO_RCVTIMEO` and `SO_SNDTIMEO`.
    fn io_timeout(&self, _write: bool) -> Option<i64> {
        None
    }
    /// Whether it has urgent bytes, of which its owner is told by SIGURG.
    fn has_urgent(&self) -> bool {
        false
    }
    /// Somebody waits in its queue who will not poll: for files that do not watch what they stand for unless asked.
    fn listened_to(&self, _f: &File) {}
    /// The pipe, for splice(2) and its kin.
    fn as_pipe(&self) -> Option<&dyn super::SplicePipe> {
        None
    }
    /// How long a blocking read waits for data, in nanoseconds, before it ends with 0 (terminals with
    /// `VTIME`). `None` waits for ever.
    fn read_timeout(&self, _f: &File) -> Option<i64> {
        None
    }
    /// Whether lseek does nothing and succeeds although there are no positions (`noop_llseek`).
    fn ignores_seek(&self) -> bool {
        false
    }
    /// Whether the file has positions: false makes lseek and pread fail with ESPIPE.
    fn seekable(&self) -> bool {
        true
    }
    /// The new position for an lseek; `pos` is the present one. The default is that of a file whose
    /// size `attr` tells, without holes.
    fn seek(&self, cx: &Caller<'_>, f: &File, pos: u64, from: SeekFrom) -> Result<u64> {
        let _ = cx;
        f.generic_seek(pos, from)
    }
    /// Gives directory entries from position `pos` on ("." and ".." included) until the sink is full
    /// or there are no more.
    fn readdir(&self, _cx: &Caller<'_>, _f: &File, _pos: u64, _sink: &mut dyn DirSink) -> Result<()> {
        Err(Errno::ENOTDIR)
    }
    /// What is ready now.
    fn poll(&self, _cx: &Caller<'_>, _f: &File) -> PollEvents {
        PollEvents::ALWAYS
    }
    /// Where changes of readiness are told, with `PollEvents` bits as mask. `None`: never changes
    /// (and epoll_ctl says EPERM).
    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        None
    }
    fn ioctl(&self, _task: &Task, _f: &File, _cmd: u32, _arg: u64) -> crate::SysResult {
        Err(Errno::ENOTTY.into())
    }
    /// fsync(2), fdatasync(2). EINVAL for files that have nothing to sync.
    fn fsync(&self, _f: &File, _data_only: bool) -> Result<()> {
        Err(Errno::EINVAL)
    }
    /// fallocate(2); `mode` has its `FALLOC_FL_*` bits.
    fn fallocate(&self, _f: &File, _mode: u32, _offset: u64, _len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// What mmap(2) maps. ENODEV for files that cannot be mapped.
    fn mappable(&self, _f: &File) -> Result<Arc<dyn Mappable>> {
        Err(Errno::ENODEV)
    }
    /// close(2) of one descriptor (there may be others).
    fn flush(&self, _f: &File) -> Result<()> {
        Ok(())
    }
    /// A descriptor for it in a table was closed; there may be others, in that table too.
    fn closed_in(&self, _table: super::LockOwner) {}
    /// Where locks of the file are held as well, because others than this sandbox use it.
    fn outside_locks(&self) -> super::Outside {
        None
    }
    /// The last reference is gone. Must not block.
    fn release(&self, _f: &File) {}
    /// fcntl(F_SETFL) is about to set these flags.
    fn flags_changed(&self, _f: &File, _flags: OpenFlags) -> Result<()> {
        Ok(())
    }
    /// Attributes where they are not the inode's own (pipes and sockets without a name).
    fn attr(&self, f: &File) -> Result<Attr> {
        f.path().inode()?.attr()
    }
    /// The seals of a file in memory (`F_GET_SEALS`). EINVAL for files that cannot be sealed.
    fn seals(&self) -> Result<u32> {
        Err(Errno::EINVAL)
    }
    /// fcntl(F_ADD_SEALS).
    fn add_seals(&self, _f: &File, _seals: u32) -> Result<()> {
        Err(Errno::EINVAL)
    }
    /// Lines for /proc/pid/fdinfo beyond pos, flags, mnt_id and ino.
    fn fdinfo(&self, _f: &File) -> String {
        String::new()
    }
}

/// An open file description (`struct file`).
pub struct File {
    ops: Arc<dyn FileOps>,
    path: Path,
    flags: AtomicU32,
    pos: Position,
    creds: Arc<Creds>,
    /// Owner for SIGIO (`F_SETOWN`, `F_SETSIG`).
    owner: Mutex<FileOwner>,
    /// The place in the wait queue of an `O_ASYNC` description.
    asynchronous: Mutex<Option<super::fasync::Async>>,
    /// The same for urgent bytes of sockets that have an owner.
    urgent: Mutex<Option<super::fasync::Async>>,
    id: u64,
    /// Counted in the inode as open for writing.
    writer: bool,
    /// Keeps the inode from being opened for writing: it runs as a program.
    denies: AtomicBool,
    /// What happens through it is no event: it was opened by a listener of events.
    silent: AtomicBool,
    /// The process that opened it, in the root PID namespace.
    opener: AtomicI32,
    /// Has or had a lock that belongs to this description (flock, OFD).
    locked: AtomicBool,
    /// For the test that nothing is leaked.
    _live: Live,
}

/// Who gets SIGIO or SIGURG for a file, as `F_SETOWN_EX` has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileOwner {
    /// `F_OWNER_TID` 0, `F_OWNER_PID` 1, `F_OWNER_PGRP` 2.
    pub kind: i32,
    /// Id in the root PID namespace, 0 for nobody.
    pub id: i32,
    /// 0 means SIGIO.
    pub signal: u8,
}

impl File {
    /// A new description on opened operations. `O_CREAT`, `O_EXCL`, `O_NOCTTY` and `O_TRUNC` do not
    /// stay in the flags.
    pub fn new(ops: Arc<dyn FileOps>, path: Path, flags: OpenFlags, creds: Arc<Creds>) -> Arc<File> {
        File::new_counted(ops, path, flags, creds, false)
    }

    /// As `new`; `writer` says that the inode counts this description as one that writes.
    pub(super) fn new_counted(
        ops: Arc<dyn FileOps>,
        path: Path,
        flags: OpenFlags,
        creds: Arc<Creds>,
        writer: bool,
    ) -> Arc<File> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let kept = flags
            - (OpenFlags::CREAT
                | OpenFlags::EXCL
                | OpenFlags::NOCTTY
                | OpenFlags::TRUNC
                | OpenFlags::CLOEXEC);
        if let Some(inode) = path.dentry.inode() {
            inode.extras().opened();
        }
        Arc::new(File {
            _live: Live::new(Kind::File),
            ops,
            path,
            flags: AtomicU32::new(kept.bits()),
            pos: Position::new(),
            creds,
            owner: Mutex::new(LockClass::Leaf, FileOwner::default()),
            asynchronous: Mutex::new(LockClass::Leaf, None),
            urgent: Mutex::new(LockClass::Leaf, None),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            writer,
            denies: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            opener: AtomicI32::new(0),
            locked: AtomicBool::new(false),
        })
    }

    pub(super) fn urgent(&self) -> &Mutex<Option<super::fasync::Async>> {
        &self.urgent
    }

    pub(super) fn asynchronous(&self) -> &Mutex<Option<super::fasync::Async>> {
        &self.asynchronous
    }

    /// Keeps the inode from being opened for writing as long as the description lives; ETXTBSY when it is open
    /// for that already.
    pub(super) fn deny_write(&self) -> Result<()> {
        self.path.inode()?.extras().deny_write()?;
        self.denies.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Ends what opening for execution began: the file may be written again (an interpreter once it is loaded).
    pub fn allow_write(&self) {
        if self.denies.swap(false, Ordering::Relaxed)
            && let Some(inode) = self.path.dentry.inode()
        {
            inode.extras().allow_write();
        }
    }

    /// Tells those who watch the file.
    pub fn tell(&self, cx: &Caller<'_>, event: Event) {
        if !self.silent.load(Ordering::Relaxed) {
            notify(Origin::at(cx, &self.path), &self.path.dentry, event);
        }
    }

    /// Nobody is told what happens through this description.
    pub fn silence(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_opener(&self, cx: &Caller<'_>) {
        self.opener.store(Origin::of(cx).pid, Ordering::Relaxed);
    }

    /// It has got a lock of its own, which goes with it.
    pub fn mark_locked(&self) {
        self.locked.store(true, Ordering::Relaxed);
    }

    /// The operations.
    pub fn ops(&self) -> &Arc<dyn FileOps> {
        &self.ops
    }
    /// The operations as a concrete type.
    pub fn ops_as<T: FileOps>(&self) -> Option<&T> {
        let any: &dyn Any = &*self.ops;
        any.downcast_ref()
    }
    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Whose rights it was opened with.
    pub fn creds(&self) -> &Arc<Creds> {
        &self.creds
    }
    /// A number that no other description of the process has or had.
    pub fn id(&self) -> u64 {
        self.id
    }
    /// Access mode and status flags.
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }
    /// Sets the status flags (access mode included).
    pub fn set_flags(&self, flags: OpenFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }
    /// Whether calls on it shall not wait.
    pub fn nonblocking(&self) -> bool {
        self.flags().contains(OpenFlags::NONBLOCK)
    }
    /// The position; locked over a whole read or write as in Linux.
    pub fn pos(&self) -> &Position {
        &self.pos
    }
    /// The SIGIO owner.
    pub fn owner(&self) -> &Mutex<FileOwner> {
        &self.owner
    }

    /// lseek for a file with a size and without holes.
    pub fn generic_seek(&self, pos: u64, from: SeekFrom) -> Result<u64> {
        let size =
            || -> Result<i64> { i64::try_from(self.ops.attr(self)?.size).map_err(|_| Errno::EOVERFLOW) };
        let cur = i64::try_from(pos).map_err(|_| Errno::EOVERFLOW)?;
        let to = match from {
            SeekFrom::Set(o) => Some(o),
            SeekFrom::Cur(o) => cur.checked_add(o),
            SeekFrom::End(o) => size()?.checked_add(o),
            SeekFrom::Data(o) => {
                if o < 0 || o >= size()? {
                    return Err(Errno::ENXIO);
                }
                Some(o)
            }
            SeekFrom::Hole(o) => {
                let s = size()?;
                if o < 0 || o >= s {
                    return Err(Errno::ENXIO);
                }
                Some(s)
            }
        };
        match to {
            None => Err(Errno::EINVAL),
            Some(t) => u64::try_from(t).map_err(|_| Errno::EINVAL),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let flags = self.flags();
        let listening = self.asynchronous.lock().take();
        let urgent = self.urgent.lock().take();
        listening.into_iter().chain(urgent).for_each(super::fasync::Async::end);
        if !flags.contains(OpenFlags::PATH) && !self.silent.load(Ordering::Relaxed) {
            let event = if flags.can_write() { Event::CLOSE_WRITE } else { Event::CLOSE_NOWRITE };
            let from = Origin { pid: self.opener.load(Ordering::Relaxed), mount: Some(&self.path.mount) };
            notify(from, &self.path.dentry, event);
        }
        if let Some(inode) = self.path.dentry.inode() {
            if self.locked.load(Ordering::Relaxed)
                && let Some(locks) = inode.extras().locks_if_any()
            {
                locks.release_file(self.id);
            }
            if self.writer {
                inode.extras().put_write();
            }
            self.allow_write();
        }
        let ops = Arc::clone(&self.ops);
        ops.release(self);
        if let Some(inode) = self.path.dentry.inode()
            && inode.extras().closed()
            && self.path.dentry.is_unlinked()
            && inode.extras().watches_if_any().is_some()
            && inode.attr().is_ok_and(|a| super::change::no_links(&a))
        {
            super::notify::notify_gone(inode);
        }
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "File({}, {:?})", self.id, self.flags())
    }
}
