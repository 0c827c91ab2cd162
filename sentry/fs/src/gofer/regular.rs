//! Regular files of the gofer file system: all data goes through the descriptor that the gofer donated.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::fcntl::OpenFlags;
use abi::{Errno, PAGE_SIZE, Result, page_up};
use gofer_protocol::{OPEN_READ, OPEN_WRITE};
use kernel::io::{Sink, Source};
use kernel::mm::{MapError, Mappable, Mm, Segment};
use kernel::vfs::{Caller, File, FileOps, Inode, LockOwner, Outside, OutsideLocks, RecordLock, SeekFrom};
use platform::hostsys::AllocateMode;
use platform::{Access, Backing, Block, HostFile};

use super::inode::GoferInode;

/// `FALLOC_FL_*` (fallocate(2)).
const KEEP_SIZE: u32 = 0x01;
const PUNCH_HOLE: u32 = 0x02;
const COLLAPSE_RANGE: u32 = 0x08;
const ZERO_RANGE: u32 = 0x10;
const INSERT_RANGE: u32 = 0x20;

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_host(error)
}

impl GoferInode {
    /// The host's file, opened by the gofer at the first use; `write`: able to write.
    pub(super) fn host_file(&self, write: bool) -> Result<Arc<HostFile>> {
        {
            let state = self.state.lock();
            if let Some(host) = &state.host
                && (state.host_writable || !write)
            {
                return Ok(host.clone());
            }
        }
        let flags = if write { OPEN_READ | OPEN_WRITE } else { OPEN_READ };
        let open = || self.with_node(|node, name| self.fs.connection().open(node, name, flags));
        let (entry, fd) = match open() {
            Err(Errno::EMFILE) => {
                self.fs.give_back_host_files();
                open()
            }
            opened => opened,
        }
        .map_err(|errno| if errno == Errno::EMFILE { Errno::ENFILE } else { errno })?;
        let host = HostFile::new(fd, write);
        let host = self.adopt_host_file(host, write);
        self.learn(entry.stat);
        self.fs.keep_host_file(&self.me);
        Ok(host)
    }

    /// Keeps `host` as the file's, unless there is a better one already. A read-only one that it replaces shows
    /// the same pages, so those who use it may go on.
    pub(super) fn adopt_host_file(&self, host: Arc<HostFile>, writable: bool) -> Arc<HostFile> {
        let mut state = self.state.lock();
        if let Some(present) = &state.host
            && (state.host_writable || !writable)
        {
            return present.clone();
        }
        state.host_writable = writable;
        let old = state.host.replace(host.clone());
        drop(state);
        drop(old);
        host
    }

    /// Closes the host's file if nobody uses it; false if somebody does.
    pub(super) fn give_back_host_file(&self) -> bool {
        if self.in_use() {
            return false;
        }
        let mut state = self.state.lock();
        if state.stat.nlink == 0 {
            // It could not be opened again.
            return false;
        }
        let host = state.host.take();
        if std::mem::take(&mut state.host_writable) {
            // The kept attributes are older than what was written.
            state.known_at = None;
            self.fs.changed();
        }
        drop(state);
        drop(host);
        true
    }
}

/// An open regular file.
pub(super) struct RegularFile {
    inode: Arc<GoferInode>,
    host: Arc<HostFile>,
}

impl RegularFile {
    pub(super) fn open(inode: Arc<GoferInode>, flags: OpenFlags) -> Result<RegularFile> {
        // Counted before it is looked for, so that it is not closed in between.
        inode.users.fetch_add(1, Ordering::Relaxed);
        match inode.host_file(flags.can_write()) {
            Ok(host) => Ok(RegularFile { inode, host }),
            Err(errno) => {
                inode.users.fetch_sub(1, Ordering::Relaxed);
                Err(errno)
            }
        }
    }
}

impl Drop for RegularFile {
    fn drop(&mut self) {
        self.inode.users.fetch_sub(1, Ordering::Relaxed);
    }
}

fn total(blocks: &[Block<'_>]) -> usize {
    blocks.iter().map(Block::len).sum()
}

impl FileOps for RegularFile {
    fn read(&self, _cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, pos: &mut u64) -> Result<usize> {
        let mut done = 0;
        while dst.remaining() > 0 {
            let mut short = false;
            let result = dst.fill_with(usize::MAX, &mut |blocks| {
                let got = self.host.read_into(blocks, *pos).map_err(|error| errno(&error))?;
                // preadv takes at most so many blocks; only less than those is the end of the file.
                short = got < total(&blocks[..blocks.len().min(1024)]);
                Ok(got)
            });
            match result {
                Ok(0) => break,
                Ok(got) => {
                    done += got;
                    *pos += got as u64;
                    if short {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    fn write(&self, _cx: &Caller<'_>, f: &File, src: &mut dyn Source, pos: &mut u64) -> Result<usize> {
        let writers = self.inode.write_lock.lock();
        let append = f.flags().contains(OpenFlags::APPEND);
        if append && self.inode.fs.exclusive() {
            *pos = self.inode.size(&self.host)?;
        }
        let mut done = 0;
        let mut result = Ok(0);
        while src.remaining() > 0 {
            let at = *pos;
            result = src.drain_with(usize::MAX, &mut |blocks| {
                let written = if append && !self.inode.fs.exclusive() {
                    // The host may append as well: only its own kernel knows the end.
                    self.host.append_from(blocks)
                } else {
                    self.host.write_from(blocks, at)
                };
                written.map_err(|error| errno(&error))
            });
            match result {
                Ok(written) if written > 0 => {
                    done += written;
                    *pos = if append && !self.inode.fs.exclusive() {
                        self.host.size().map_err(|error| errno(&error))?
                    } else {
                        at + written as u64
                    };
                }
                _ => break,
            }
        }
        drop(writers);
        if done > 0 {
            return Ok(done);
        }
        result
    }

    fn seek(&self, _cx: &Caller<'_>, f: &File, pos: u64, from: SeekFrom) -> Result<u64> {
        let (offset, hole) = match from {
            SeekFrom::Data(offset) => (offset, false),
            SeekFrom::Hole(offset) => (offset, true),
            _ => return f.generic_seek(pos, from),
        };
        let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        self.host.seek_hole_data(offset, hole).map_err(|error| errno(&error))
    }

    fn fsync(&self, _f: &File, data_only: bool) -> Result<()> {
        if self.inode.fs.read_only() {
            return Ok(());
        }
        self.host.sync(data_only).map_err(|error| errno(&error))
    }

    fn fallocate(&self, _f: &File, mode: u32, offset: u64, len: u64) -> Result<()> {
        const PUNCH: u32 = PUNCH_HOLE | KEEP_SIZE;
        const ZERO_KEEP: u32 = ZERO_RANGE | KEEP_SIZE;
        let mode = match mode {
            0 => AllocateMode::Allocate,
            KEEP_SIZE => AllocateMode::KeepSize,
            PUNCH => AllocateMode::PunchHole,
            ZERO_RANGE => AllocateMode::Zero(false),
            ZERO_KEEP => AllocateMode::Zero(true),
            COLLAPSE_RANGE => AllocateMode::Collapse,
            INSERT_RANGE => AllocateMode::Insert,
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let _writers = self.inode.write_lock.lock();
        self.host.allocate(mode, offset, len).map_err(|error| errno(&error))
    }

    fn mappable(&self, _f: &File) -> Result<Arc<dyn Mappable>> {
        Ok(self.inode.clone())
    }

    fn outside_locks(&self) -> Outside {
        if self.inode.fs.exclusive() {
            return None;
        }
        // What has locks is never exchanged for another file of the host, so it is one that can be locked for writing.
        let host = self.inode.host_file(true).unwrap_or_else(|_| self.host.clone());
        Some(Arc::new(HostLocks(host)))
    }
}

/// The locks of a file that others on the host use as well.
struct HostLocks(Arc<HostFile>);

impl OutsideLocks for HostLocks {
    fn flock(&self, exclusive: Option<bool>) -> Result<()> {
        self.0.flock(exclusive).map_err(|error| errno(&error))
    }

    fn record(&self, write: Option<bool>, start: u64, last: u64) -> Result<()> {
        self.0.lock_range(write, start, last).map_err(|error| errno(&error))
    }

    fn conflict(&self, wanted: &RecordLock) -> Result<Option<RecordLock>> {
        let found = self.0.lock_in_the_way(wanted.write, wanted.start, wanted.last);
        let found = found.map_err(|error| errno(&error))?;
        let lock =
            |(write, start, last)| RecordLock { owner: LockOwner::Outside, pid: 0, write, start, last };
        Ok(found.map(lock))
    }
}

impl Mappable for GoferInode {
    fn translate(
        &self,
        required: Range<u64>,
        optional: Range<u64>,
        _access: Access,
    ) -> Result<Vec<Segment>, MapError> {
        let (host, writable) = {
            let state = self.state.lock();
            (state.host.clone(), state.host_writable)
        };
        // A mapping keeps the host's file open, so it is there unless the gofer is gone.
        let host = match host {
            Some(host) => host,
            None => self.host_file(false).map_err(|_| MapError::Bus)?,
        };
        let size = self.size(&host).map_err(|_| MapError::Bus)?;
        let end = page_up(size).unwrap_or(!(PAGE_SIZE - 1));
        if required.end > end {
            return Err(MapError::Bus);
        }
        let range = optional.start.min(required.start)..optional.end.clamp(required.end, end);
        let backing_offset = range.start;
        Ok(vec![Segment { range, backing: Backing::Host(host), backing_offset, writable }])
    }

    fn add_mapping(&self, mm: &Weak<Mm>, _at: u64, range: Range<u64>, _writable_shared: bool) {
        self.mappings.add(mm, &range);
    }

    fn remove_mapping(&self, mm: &Weak<Mm>, _at: u64, range: Range<u64>, _writable_shared: bool) {
        self.mappings.remove(mm, &range);
    }

    fn sync(&self, _range: Range<u64>) -> Result<()> {
        let host = self.state.lock().host.clone();
        match host {
            Some(host) if !self.fs.read_only() => host.sync(true).map_err(|error| errno(&error)),
            _ => Ok(()),
        }
    }

    fn identity(&self) -> (u64, u64) {
        (self.fs.options.dev, self.ino())
    }
}
