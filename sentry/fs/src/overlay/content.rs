//! The data of regular files: below until the first change, then in a nameless file of the upper layer.
//!
//! Everything goes through the inode, not through what was open when a description was made: so a reader that
//! opened the file before sees what is written after, and mappings do too.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::fcntl::OpenFlags;
use abi::{Errno, Result};
use kernel::io::{Sink, SliceSink, SliceSource, Source};
use kernel::mm::{MapError, Mappable, Mm, Segment};
use kernel::vfs::{Caller, CreateArgs, File, FileOps, Inode, SeekFrom, SetAttr};
use platform::Access;

use super::inode::OverlayInode;

/// Data is copied up in pieces of this size.
const PIECE: usize = 256 * 1024;

/// The file of the upper layer that holds the data.
#[derive(Clone)]
pub(super) struct Upper {
    pub(super) inode: Arc<dyn Inode>,
    pub(super) file: Arc<File>,
}

impl OverlayInode {
    /// The open file that has the data now; `None` for a new file that was never written.
    fn data(&self, cx: &Caller<'_>) -> Result<Option<Arc<File>>> {
        {
            let state = self.state.lock();
            if let Some(upper) = &state.upper {
                return Ok(Some(upper.file.clone()));
            }
            if let Some(file) = &state.lower_file {
                return Ok(Some(file.clone()));
            }
        }
        let Some(lower) = &self.lower else { return Ok(None) };
        let file = self.fs.open_lower(cx, lower)?;
        let mut state = self.state.lock();
        if let Some(upper) = &state.upper {
            let upper = upper.file.clone();
            drop(state);
            drop(file);
            return Ok(Some(upper));
        }
        if let Some(first) = &state.lower_file {
            // Somebody was faster; what we opened is closed without the lock.
            let first = first.clone();
            drop(state);
            drop(file);
            return Ok(Some(first));
        }
        state.lower_file = Some(file.clone());
        Ok(Some(file))
    }

    /// The upper file, made if there is none, with the first `keep` bytes of what is below. The content lock is held.
    fn copy_up(&self, cx: &Caller<'_>, keep: u64) -> Result<Upper> {
        if let Some(upper) = &self.state.lock().upper {
            return Ok(upper.clone());
        }
        let args = CreateArgs { mode: 0o100_600, uid: 0, gid: 0, rdev: 0 };
        let inode = self.fs.upper_root.tmpfile(cx, &args)?;
        let file = self.fs.open_upper(cx, &inode)?;
        if keep > 0
            && let Some(from) = self.data(cx)?
        {
            copy(cx, &from, &file, keep)?;
        }
        // The metadata become the overlay's own before the data do, since they still tell the lower size until then.
        self.change(|_| ())?;
        let upper = Upper { inode, file };
        let mut state = self.state.lock();
        state.upper = Some(upper.clone());
        let lower_file = state.lower_file.take();
        drop(state);
        self.mappings.invalidate(self, &(0..u64::MAX), false);
        drop(lower_file);
        Ok(upper)
    }

    pub(super) fn truncate(&self, cx: &Caller<'_>, size: u64) -> Result<()> {
        let old = self.current_attr()?.size;
        let _content = self.content.lock();
        let upper = self.copy_up(cx, size.min(old))?;
        upper.inode.set_attr(cx, &SetAttr { size: Some(size), ..SetAttr::default() })?;
        if size < old {
            self.mappings.invalidate(self, &(size..u64::MAX), true);
        }
        Ok(())
    }

    /// Closes the lower file if that was the last description and nothing maps it.
    fn close_unused(&self) {
        if self.users.load(Ordering::Acquire) == 0 && self.mappings.is_empty() {
            // The lower file system keeps what it wants to keep.
            let file = self.state.lock().lower_file.take();
            drop(file);
        }
    }
}

/// Copies the first `len` bytes, leaving holes where there are some.
fn copy(cx: &Caller<'_>, from: &File, to: &File, len: u64) -> Result<()> {
    let mut buffer = vec![0; PIECE.min(usize::try_from(len).unwrap_or(PIECE))];
    let mut at = 0;
    while at < len {
        if let Ok(offset) = i64::try_from(at) {
            match from.ops().seek(cx, from, 0, SeekFrom::Data(offset)) {
                Ok(data) if data > at => {
                    at = data;
                    continue;
                }
                Err(Errno::ENXIO) => break,
                _ => {}
            }
        }
        let want = usize::try_from(len - at).unwrap_or(usize::MAX).min(buffer.len());
        let mut sink = SliceSink::new(&mut buffer[..want]);
        let mut position = at;
        let got = from.ops().read(cx, from, &mut sink, &mut position)?;
        if got == 0 {
            break;
        }
        let mut written = 0;
        while written < got {
            let mut source = SliceSource::new(&mut buffer[written..got]);
            let mut position = at + written as u64;
            match to.ops().write(cx, to, &mut source, &mut position)? {
                0 => return Err(Errno::ENOSPC),
                some => written += some,
            }
        }
        at += got as u64;
    }
    Ok(())
}

/// An open regular file.
pub(super) struct RegularFile {
    inode: Arc<OverlayInode>,
}

impl RegularFile {
    pub(super) fn open(cx: &Caller<'_>, inode: Arc<OverlayInode>) -> Result<RegularFile> {
        inode.users.fetch_add(1, Ordering::AcqRel);
        let file = RegularFile { inode };
        // What cannot be opened is found out here and not at the first read.
        file.inode.data(cx)?;
        Ok(file)
    }
}

impl Drop for RegularFile {
    fn drop(&mut self) {
        self.inode.users.fetch_sub(1, Ordering::AcqRel);
        self.inode.close_unused();
    }
}

impl FileOps for RegularFile {
    fn read(&self, cx: &Caller<'_>, f: &File, dst: &mut dyn Sink, pos: &mut u64) -> Result<usize> {
        let done = match self.inode.data(cx)? {
            Some(file) => file.ops().read(cx, &file, dst, pos)?,
            None => 0,
        };
        self.inode.accessed(cx, f);
        Ok(done)
    }

    fn write(&self, cx: &Caller<'_>, f: &File, src: &mut dyn Source, pos: &mut u64) -> Result<usize> {
        if src.remaining() == 0 {
            return Ok(0);
        }
        let _content = self.inode.content.lock();
        let upper = self.inode.copy_up(cx, u64::MAX)?;
        if f.flags().contains(OpenFlags::APPEND) {
            *pos = upper.inode.attr()?.size;
        }
        let done = upper.file.ops().write(cx, &upper.file, src, pos)?;
        self.inode.touch(cx)?;
        Ok(done)
    }

    fn seek(&self, cx: &Caller<'_>, f: &File, pos: u64, from: SeekFrom) -> Result<u64> {
        if let SeekFrom::Data(_) | SeekFrom::Hole(_) = from
            && let Some(file) = self.inode.data(cx)?
        {
            return file.ops().seek(cx, &file, pos, from);
        }
        f.generic_seek(pos, from)
    }

    /// There is nothing behind the overlay that outlives the sandbox.
    fn fsync(&self, _f: &File, _data_only: bool) -> Result<()> {
        Ok(())
    }

    fn fallocate(&self, f: &File, mode: u32, offset: u64, len: u64) -> Result<()> {
        let cx = Caller { creds: f.creds(), task: None };
        let _content = self.inode.content.lock();
        let upper = self.inode.copy_up(&cx, u64::MAX)?;
        let old = upper.inode.attr()?.size;
        upper.file.ops().fallocate(&upper.file, mode, offset, len)?;
        const KEEP_SIZE_OR_ALLOCATE: u32 = 1;
        if mode & !KEEP_SIZE_OR_ALLOCATE != 0 {
            // A hole was made or data moved.
            self.inode.mappings.invalidate(&*self.inode, &(offset..u64::MAX), false);
        }
        let new = upper.inode.attr()?.size;
        if new < old {
            self.inode.mappings.invalidate(&*self.inode, &(new..u64::MAX), true);
        }
        self.inode.touch(&cx)
    }

    fn mappable(&self, f: &File) -> Result<Arc<dyn Mappable>> {
        let cx = Caller { creds: f.creds(), task: None };
        if f.flags().can_write() || self.inode.lower.is_none() {
            // A shared mapping of it may be written without us being asked again.
            let _content = self.inode.content.lock();
            self.inode.copy_up(&cx, u64::MAX)?;
        }
        Ok(self.inode.clone())
    }
}

impl Mappable for OverlayInode {
    fn translate(
        &self,
        required: Range<u64>,
        optional: Range<u64>,
        access: Access,
    ) -> Result<Vec<Segment>, MapError> {
        let cx = Caller { creds: &self.fs.creds, task: None };
        let (file, upper) = {
            let state = self.state.lock();
            let upper = state.upper.as_ref().map(|upper| upper.file.clone());
            (upper.clone().or_else(|| state.lower_file.clone()), upper.is_some())
        };
        let file = match file {
            Some(file) => file,
            None => self.data(&cx).map_err(|_| MapError::Bus)?.ok_or(MapError::Bus)?,
        };
        let object = file.ops().mappable(&file).map_err(|_| MapError::Bus)?;
        let mut segments = object.translate(required, optional, access)?;
        if !upper {
            for segment in &mut segments {
                segment.writable = false;
            }
        }
        Ok(segments)
    }

    fn add_mapping(&self, mm: &Weak<Mm>, _at: u64, range: Range<u64>, _writable_shared: bool) {
        self.mappings.add(mm, &range);
    }

    fn remove_mapping(&self, mm: &Weak<Mm>, _at: u64, range: Range<u64>, _writable_shared: bool) {
        self.mappings.remove(mm, &range);
        self.close_unused();
    }

    fn identity(&self) -> (u64, u64) {
        (self.fs.dev, self.ino())
    }
}
