//! Descriptors of the host that were donated as standard streams: pipes, files, terminals, sockets.
//!
//! The host's object is read and written as it is; only readiness is turned into our wait queues, by one thread of
//! the platform. The description's flags on the host are never changed, since others share it.

use crate::anon;
use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::stat::{FileType, makedev};
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::creds::Creds;
use kernel::io::{Sink, Source};
use kernel::mm::Mappable;
use kernel::uaccess::UserPtr;
use kernel::vfs::{Attr, Caller, File, FileOps, SeekFrom};
use kernel::{Kernel, SysError, Task, gap};
use ksync::WaitQueue;
use platform::HostFile;
use platform::hostsys::poller::{Poller, Ready, ready_now};
use platform::hostsys::stream::HostStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const TCGETS: u32 = 0x5401;
const TIOCGWINSZ: u32 = 0x5413;
const FIONREAD: u32 = 0x541b;

/// Bytes that are written to a stream in one step: a pipe that is ready for writing takes as much at once.
const STEP: usize = 4096;

struct News(Arc<WaitQueue>);

impl Ready for News {
    fn ready(&self, events: u16) {
        self.0.wake_all(u32::from(events) | PollEvents::UNASKED.bits());
    }
}

/// A donated descriptor without a position.
struct HostFd {
    stream: HostStream,
    queue: Arc<WaitQueue>,
    news: Arc<dyn Ready>,
    poller: Arc<Poller>,
}

impl HostFd {
    fn arm(&self, events: PollEvents) {
        let events = u16::try_from(events.bits() & 0xffff).unwrap_or(0);
        if let Err(e) = self.poller.arm(self.stream.fd(), events, &self.news) {
            tracing::warn!("cannot watch a donated descriptor: {e}");
        }
    }

    fn ready(&self, events: PollEvents) -> PollEvents {
        let asked = u16::try_from(events.bits() & 0xffff).unwrap_or(0);
        PollEvents::from_bits_truncate(u32::from(ready_now(&**self.stream.fd(), asked)))
    }
}

fn attr_of(s: &platform::hostsys::stream::Facts) -> Attr {
    let t = |(sec, nsec): (i64, i64)| Timespec { tv_sec: sec, tv_nsec: nsec };
    Attr {
        dev: makedev(0, 9),
        ino: s.ino,
        mode: s.mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: s.rdev,
        size: s.size,
        blksize: s.blksize,
        blocks: s.blocks,
        atime: t(s.atime),
        mtime: t(s.mtime),
        ctime: t(s.ctime),
        btime: None,
    }
}

impl FileOps for HostFd {
    fn read(&self, _cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        if self.ready(PollEvents::IN).is_empty() {
            self.arm(PollEvents::IN);
            return Err(Errno::EAGAIN);
        }
        dst.fill_with(usize::MAX, &mut |blocks| self.stream.read(blocks).map_err(|e| Errno::from_host(&e)))
    }

    fn write(&self, cx: &Caller<'_>, _f: &File, src: &mut dyn Source, _pos: &mut u64) -> Result<usize> {
        let mut done = 0;
        while src.remaining() > 0 {
            let ready = self.ready(PollEvents::OUT);
            if ready.is_empty() {
                self.arm(PollEvents::OUT);
                return if done > 0 { Ok(done) } else { Err(Errno::EAGAIN) };
            }
            match src.drain_with(STEP, &mut |b| self.stream.write(b).map_err(|e| Errno::from_host(&e))) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => {
                    if e == Errno::EPIPE {
                        crate::sigpipe(cx);
                    }
                    return Err(e);
                }
            }
        }
        Ok(done)
    }

    fn writes_all(&self) -> bool {
        true
    }

    fn seekable(&self) -> bool {
        false
    }

    fn poll(&self, _cx: &Caller<'_>, f: &File) -> PollEvents {
        let mut want = PollEvents::empty();
        if f.flags().can_read() {
            want |= PollEvents::IN | PollEvents::RDNORM | PollEvents::PRI | PollEvents::RDHUP;
        }
        if f.flags().can_write() {
            want |= PollEvents::OUT | PollEvents::WRNORM;
        }
        let ready = self.ready(want);
        let missing = want - ready;
        if !missing.is_empty() && !self.queue.is_empty() {
            self.arm(missing);
        }
        ready
    }

    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        Some(Arc::clone(&self.queue))
    }

    fn ioctl(&self, task: &Task, _f: &File, cmd: u32, arg: u64) -> std::result::Result<u64, SysError> {
        let host = |e: std::io::Error| Errno::from_host(&e);
        match cmd {
            TCGETS => {
                let t = self.stream.terminal_attributes().map_err(host)?;
                UserPtr::<[u8; 36]>::new(arg).write(&task.mm(), &t)?;
                Ok(0)
            }
            TIOCGWINSZ => {
                let (rows, columns) =
                    platform::hostsys::tty::window_size(&**self.stream.fd()).map_err(host)?;
                UserPtr::<[u16; 4]>::new(arg).write(&task.mm(), &[rows, columns, 0, 0])?;
                Ok(0)
            }
            FIONREAD => {
                let n = self.stream.available().map_err(host)?;
                UserPtr::<i32>::new(arg).write(&task.mm(), &i32::try_from(n).unwrap_or(i32::MAX))?;
                Ok(0)
            }
            _ => {
                gap!(task.kernel(), "ioctl of a donated descriptor", cmd);
                Err(Errno::ENOTTY.into())
            }
        }
    }
}

/// A donated regular file. Its position is that of the host's description: standard output and standard error
/// may be one, and the command that started us goes on where the guest ended.
struct HostRegular {
    file: Arc<HostFile>,
    stream: HostStream,
    /// The position after the last read or write at the description's own position. An operation that starts there
    /// goes by the host's position, any other is at its own.
    cursor: AtomicU64,
}

impl HostRegular {
    fn start(&self, pos: u64) -> Result<(u64, bool)> {
        let own = pos == self.cursor.load(Ordering::Relaxed);
        let at = if own { self.stream.position().map_err(|e| Errno::from_host(&e))? } else { pos };
        Ok((at, own))
    }

    fn end(&self, at: u64, own: bool, pos: &mut u64) -> Result<()> {
        if own {
            self.stream.set_position(at).map_err(|e| Errno::from_host(&e))?;
            self.cursor.store(at, Ordering::Relaxed);
        }
        *pos = at;
        Ok(())
    }
}

impl FileOps for HostRegular {
    fn read(&self, _cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, pos: &mut u64) -> Result<usize> {
        let (mut at, own) = self.start(*pos)?;
        let n = dst.fill_with(usize::MAX, &mut |b| {
            let n = self.file.read_into(b, at).map_err(|e| Errno::from_host(&e))?;
            at += n as u64;
            Ok(n)
        })?;
        self.end(at, own, pos)?;
        Ok(n)
    }
    fn write(&self, _cx: &Caller<'_>, f: &File, src: &mut dyn Source, pos: &mut u64) -> Result<usize> {
        let append = f.flags().contains(OpenFlags::APPEND);
        let (mut at, own) = self.start(*pos)?;
        let n = src.drain_with(usize::MAX, &mut |b| {
            let done = if append { self.file.append_from(b) } else { self.file.write_from(b, at) };
            let n = done.map_err(|e| Errno::from_host(&e))?;
            at += n as u64;
            Ok(n)
        })?;
        if append {
            at = self.file.size().map_err(|e| Errno::from_host(&e))?;
        }
        self.end(at, own, pos)?;
        Ok(n)
    }
    fn seek(&self, _cx: &Caller<'_>, f: &File, pos: u64, from: SeekFrom) -> Result<u64> {
        let (now, _) = self.start(pos)?;
        let to = f.generic_seek(now, from)?;
        let mut pos = 0;
        self.end(to, true, &mut pos)?;
        Ok(to)
    }
    fn fsync(&self, _f: &File, data_only: bool) -> Result<()> {
        self.file.sync(data_only).map_err(|e| Errno::from_host(&e))
    }
    fn mappable(&self, _f: &File) -> Result<Arc<dyn Mappable>> {
        Err(Errno::ENODEV)
    }
    fn attr(&self, f: &File) -> Result<Attr> {
        f.path().inode()?.attr()
    }
}

/// What is needed to open a donated descriptor once more.
struct Again {
    stream: HostStream,
    poller: Arc<Poller>,
    regular: bool,
    flags: OpenFlags,
}

impl Again {
    fn ops(&self) -> Result<Arc<dyn FileOps>> {
        let host = |e: std::io::Error| Errno::from_host(&e);
        if self.regular {
            let file = HostFile::new(self.stream.duplicate().map_err(host)?, self.flags.can_write());
            let cursor = AtomicU64::new(self.stream.position().map_err(host)?);
            return Ok(Arc::new(HostRegular { file, stream: self.stream.clone(), cursor }));
        }
        let queue = Arc::new(WaitQueue::new());
        let news: Arc<dyn Ready> = Arc::new(News(Arc::clone(&queue)));
        Ok(Arc::new(HostFd { stream: self.stream.clone(), queue, news, poller: Arc::clone(&self.poller) }))
    }
}

impl anon::Donated for Again {
    fn attr(&self) -> Result<Attr> {
        self.stream.facts().map(|s| attr_of(&s)).map_err(|e| Errno::from_host(&e))
    }
    fn open(&self, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let more = flags.can_read() && !self.flags.can_read() || flags.can_write() && !self.flags.can_write();
        if more { Err(Errno::EACCES) } else { self.ops() }
    }
    fn set_len(&self, len: u64) -> Result<()> {
        // Truncating a pipe or a terminal means nothing.
        if self.regular { self.stream.set_len(len).map_err(|e| Errno::from_host(&e)) } else { Ok(()) }
    }
}

/// Takes over a donated descriptor.
pub fn open(kernel: &Arc<Kernel>, fd: OwnedFd, creds: &Arc<Creds>) -> Result<Arc<File>> {
    let host = |e: std::io::Error| Errno::from_host(&e);
    let stream = HostStream::new(fd);
    let facts = stream.facts().map_err(host)?;
    let flags = OpenFlags::from_bits_retain(stream.flags().map_err(host)?)
        & (OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::APPEND);
    let regular = FileType::from_mode(facts.mode) == Some(FileType::Regular);
    let position = if regular { stream.position().map_err(host)? } else { 0 };
    let again = Again { stream, poller: kernel.extensions.get_or_init(Poller::default), regular, flags };
    let ops = again.ops()?;
    let path = anon::donated_path(kernel, creds, Arc::new(again));
    let file = File::new(ops, path, flags, Arc::clone(creds));
    if regular {
        *file.pos().lock() = position;
    }
    Ok(file)
}
