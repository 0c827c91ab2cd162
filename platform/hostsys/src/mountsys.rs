//! Mounts: the calls rustix has under `rustix::mount` are used from there; here is what it lacks and the few sequences
//! that must be right (pivoting into a new root).

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

pub use rustix::fs::{ResolveFlags, openat2};
pub use rustix::mount::{
    MoveMountFlags, OpenTreeFlags, mount, mount_bind, mount_remount, move_mount, open_tree, unmount,
};

bitflags::bitflags! {
    /// Attributes of a mount, with the values of MOUNT_ATTR_*.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MountAttr: u64 {
        /// Read-only.
        const RDONLY = 0x1;
        /// Ignore set-id bits.
        const NOSUID = 0x2;
        /// Device nodes do nothing.
        const NODEV = 0x4;
        /// No execution.
        const NOEXEC = 0x8;
        /// Symbolic links are not followed.
        const NOSYMFOLLOW = 0x20_0000;
    }
}

#[repr(C)]
struct RawMountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// mount_setattr(2) on the mount a descriptor refers to (with all below it if `recursive`).
pub fn mount_setattr(fd: impl AsFd, recursive: bool, set: MountAttr, clear: MountAttr) -> io::Result<()> {
    let raw = RawMountAttr { set: set.bits(), clear: clear.bits(), propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty path string and a struct of the size that is passed.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of::<RawMountAttr>(),
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `/` and everything below private, so that nothing that follows is seen outside.
pub fn make_root_private() -> io::Result<()> {
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Makes the mount at `new_root` the root of this mount namespace and detaches the old one with everything below it.
/// The current directory is the new root afterwards.
pub fn pivot_into(new_root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(new_root)?;
    // pivot_root(2): with both arguments ".", the old root ends up stacked on the new one and is unmounted from there.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Pivots into a fresh empty tmpfs that is then made read-only. `scratch` is any existing directory (it is covered only in
/// this mount namespace).
pub fn pivot_into_empty(scratch: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("none", scratch, "tmpfs", flags, Some(c"size=4k,nr_inodes=1,mode=0555"))?;
    let root: OwnedFd =
        rustix::fs::open(scratch, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    pivot_into(&root)?;
    rustix::mount::mount_remount("/", flags | MountFlags::RDONLY, "")?;
    Ok(())
}
