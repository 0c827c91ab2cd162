//! Opening FIFOs, and pipes by their links in /proc/pid/fd (fifo(7)).

use crate::pipe::Pipe;
use abi::Errno;
use abi::fcntl::OpenFlags;
use kernel::SysError;
use kernel::restart::Restart;
use kernel::vfs::{Caller, FifoOpener, FileOps, Path};
use kernel::wait::WaitOn;
use std::sync::Arc;

/// Opens FIFOs for the VFS.
pub struct Fifos;

impl FifoOpener for Fifos {
    fn open(&self, cx: &Caller<'_>, path: &Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>, SysError> {
        let inode = path.inode()?;
        let pipe = {
            let mut slot = inode.extras().fifo().lock();
            let found = slot.as_ref().and_then(|p| Arc::clone(p).downcast::<Pipe>().ok());
            match found {
                Some(p) => p,
                None => {
                    let p = Pipe::new();
                    *slot = Some(Arc::clone(&p) as Arc<dyn std::any::Any + Send + Sync>);
                    p
                }
            }
        };
        // A pipe without a name, opened by its link in /proc: nobody is waited for.
        let nameless = path.dentry.is_nameless();
        let nonblock = flags.contains(OpenFlags::NONBLOCK);
        let (read, write) = (flags.can_read(), flags.can_write());
        if write && !read && nonblock && !nameless && pipe.opens().readers == 0 {
            return Err(Errno::ENXIO.into());
        }
        let end = pipe.end(read, write);
        if nameless {
            end.met();
        }
        if read && write || nonblock || nameless {
            return Ok(end);
        }
        let met = || end.partner_came().then_some(());
        let waited = match cx.task {
            Some(task) => task.block_on(&[WaitOn::any(pipe.queue())], None, met),
            None => met().ok_or(kernel::wait::Blocked::Interrupted),
        };
        match waited {
            Ok(()) => {
                end.met();
                Ok(end)
            }
            Err(_) => {
                end.abandon();
                Err(Restart::Sys.into())
            }
        }
    }
}

/// Gives a pipe without a name to its inode, so that it can be opened again through /proc/pid/fd.
pub fn attach(path: &Path, pipe: &Arc<Pipe>) {
    if let Ok(inode) = path.inode() {
        let weak: Arc<dyn std::any::Any + Send + Sync> = Arc::clone(pipe) as _;
        *inode.extras().fifo().lock() = Some(weak);
    }
}
