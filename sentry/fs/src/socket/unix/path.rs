//! Sockets with a name in the file system.

use super::UnixSocket;
use abi::stat::{FileType, mode};
use abi::{Errno, Result};
use kernel::vfs::change::{self, New, umask};
use kernel::vfs::permission::{May, check};
use kernel::vfs::{Caller, Inode, LookupFlags, Start, resolve, resolve_parent};
use std::sync::{Arc, Weak};

/// What hangs at the inode.
struct Slot(Weak<UnixSocket>);

/// Keeps a socket bound to its inode.
pub struct Bound {
    inode: Arc<dyn Inode>,
    socket: Weak<UnixSocket>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        let mut slot = self.inode.extras().socket().lock();
        let ours = slot
            .as_ref()
            .and_then(|s| s.downcast_ref::<Slot>())
            .is_some_and(|s| Weak::ptr_eq(&s.0, &self.socket));
        if ours {
            *slot = None;
        }
    }
}

/// Finds the socket bound to a path. EACCES without write permission, ECONNREFUSED if it is no socket
/// or nobody has it open.
pub fn find(cx: &Caller<'_>, path: &[u8]) -> Result<Arc<UnixSocket>> {
    let at = resolve(cx, Start::of(cx)?, path, LookupFlags::FOLLOW)?;
    check(cx, &at, May::WRITE)?;
    let inode = at.inode()?;
    if inode.file_type() != FileType::Socket {
        return Err(Errno::ECONNREFUSED);
    }
    let slot = inode.extras().socket().lock();
    let found = slot.as_ref().and_then(|s| s.downcast_ref::<Slot>()).and_then(|s| s.0.upgrade());
    found.ok_or(Errno::ECONNREFUSED)
}

/// Makes a socket inode; EADDRINUSE if the name exists.
pub fn bind(cx: &Caller<'_>, path: &[u8], socket: &Arc<UnixSocket>) -> Result<Bound> {
    let parent = resolve_parent(cx, Start::of(cx)?, path, LookupFlags::empty())?;
    let new = New::Node { mode: FileType::Socket.mode_bits() | (0o777 & !umask(cx) & mode::PERM), rdev: 0 };
    let made = change::make(cx, &parent, &new)
        .map_err(|e| if e == Errno::EEXIST { Errno::EADDRINUSE } else { e })?;
    let inode = Arc::clone(made.inode()?);
    *inode.extras().socket().lock() = Some(Arc::new(Slot(Arc::downgrade(socket))));
    Ok(Bound { inode, socket: Arc::downgrade(socket) })
}
