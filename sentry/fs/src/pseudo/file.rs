//! Open files and directories of computed file systems.

use super::inode::{DirNode, FileNode};
use abi::stat::FileType;
use abi::{Errno, Result};
use kernel::io::{Sink, Source};
use kernel::vfs::{Caller, DirSink, File, FileOps, SeekFrom};
use ksync::{LockClass, Mutex};
use std::sync::Arc;

/// The most that one write may bring, as for most files of /proc and /sys.
const MAX_WRITE: usize = 64 * 1024;

/// An open computed file. A read from position 0 computes the content anew; later reads go on in it.
pub struct PseudoFile {
    node: Arc<dyn FileNode>,
    content: Mutex<Option<Arc<Vec<u8>>>>,
}

impl PseudoFile {
    /// One that has computed nothing yet.
    pub fn new(node: Arc<dyn FileNode>) -> PseudoFile {
        PseudoFile { node, content: Mutex::new(LockClass::Leaf, None) }
    }
}

impl FileOps for PseudoFile {
    fn read(&self, cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, pos: &mut u64) -> Result<usize> {
        let kept = if *pos == 0 { None } else { self.content.lock().clone() };
        let content = match kept {
            Some(c) => c,
            None => {
                let fresh = Arc::new(self.node.read(cx)?);
                *self.content.lock() = Some(Arc::clone(&fresh));
                fresh
            }
        };
        let at = usize::try_from(*pos).unwrap_or(usize::MAX).min(content.len());
        let n = if at == content.len() { 0 } else { dst.put(&content[at..])? };
        *pos += n as u64;
        Ok(n)
    }

    fn write(&self, cx: &Caller<'_>, _f: &File, src: &mut dyn Source, pos: &mut u64) -> Result<usize> {
        let mut data = vec![0; src.remaining().min(MAX_WRITE)];
        let got = src.take(&mut data)?;
        data.truncate(got);
        let n = self.node.write(cx, &data, *pos)?;
        *pos += n as u64;
        Ok(n)
    }

    fn seek(&self, _cx: &Caller<'_>, f: &File, pos: u64, from: SeekFrom) -> Result<u64> {
        match from {
            SeekFrom::Set(_) | SeekFrom::Cur(_) => f.generic_seek(pos, from),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// An open computed directory.
pub(super) struct PseudoDir {
    pub(super) node: Arc<dyn DirNode>,
    pub(super) ino: u64,
}

impl FileOps for PseudoDir {
    fn read(&self, _cx: &Caller<'_>, _f: &File, _dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn readdir(&self, cx: &Caller<'_>, f: &File, pos: u64, sink: &mut dyn DirSink) -> Result<()> {
        if pos == 0 && !sink.entry(self.ino, 1, FileType::Directory, b".") {
            return Ok(());
        }
        if pos <= 1 {
            let parent =
                f.path().dentry.parent().and_then(|p| p.inode().map(|i| i.ino())).unwrap_or(self.ino);
            if !sink.entry(parent, 2, FileType::Directory, b"..") {
                return Ok(());
            }
        }
        self.node.list(cx, pos.max(2), &mut |at, ino, kind, name| sink.entry(ino, at + 1, kind, name));
        Ok(())
    }

    fn seek(&self, _cx: &Caller<'_>, f: &File, pos: u64, from: SeekFrom) -> Result<u64> {
        match from {
            SeekFrom::Set(_) | SeekFrom::Cur(_) => f.generic_seek(pos, from),
            _ => Err(Errno::EINVAL),
        }
    }

    fn fsync(&self, _f: &File, _data_only: bool) -> Result<()> {
        Err(Errno::EINVAL)
    }
}
