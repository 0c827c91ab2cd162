//! The container's files for those who look for them in the mount namespace of the container's process.
//!
//! Podman copies to and from a running container that way. The process that stands for a container has no use
//! for these files and must not reach them: its own root is elsewhere, so that only whoever enters the namespace from outside
//! (which takes the rights of the one who made it) has them before it.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::MoveMountFlags;
use sentry::boot::spec::{MountKind, RootOverlay};

use super::gofer_process::clone_tree;
use super::namespaces::detach_mounts;
use crate::spec::Plan;

/// The annotation by which an engine tells that it is Podman.
const MANAGER: (&str, &str) = ("io.container.manager", "libpod");

/// Copies of the container's mounts, attached nowhere.
#[derive(Debug)]
pub struct ShownRoot {
    root: OwnedFd,
    mounts: Vec<(PathBuf, OwnedFd)>,
}

/// Whatever a path of the container leads to, inside its root.
fn inside(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Makes the last component of a mount's destination, which the container is going to make anyway, but later.
fn make_place(root: &OwnedFd, destination: &Path, directory: bool) -> rustix::io::Result<()> {
    let (Some(above), Some(name)) = (destination.parent(), destination.file_name()) else { return Ok(()) };
    if inside(root, destination).is_ok() {
        return Ok(());
    }
    let above = inside(root, above)?;
    let mode = Mode::from_raw_mode(if directory { 0o755 } else { 0o644 });
    let made = if directory {
        rustix::fs::mkdirat(&above, name, mode)
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&above, name, flags, mode).map(drop)
    };
    match made {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        other => other,
    }
}

impl ShownRoot {
    /// For an engine that looks for the files there.
    pub fn prepare(plan: &Plan) -> Result<Option<ShownRoot>> {
        let (name, value) = MANAGER;
        if plan.container.annotations.get(name).map(String::as_str) != Some(value) {
            return Ok(None);
        }
        let source = |index: u32| plan.sources.get(usize::try_from(index).ok()?);
        let Some(root) = source(plan.container.root.gofer_mount) else { return Ok(None) };
        let root = clone_tree(root)?;
        let through = plan.container.root.overlay == RootOverlay::None;
        let mut mounts = Vec::new();
        for mount in &plan.container.mounts {
            if let MountKind::Gofer { index, .. } = mount.kind
                && let Some(source) = source(index)
            {
                let destination = String::from_utf8_lossy(mount.destination.as_bytes()).into_owned();
                let destination = PathBuf::from(destination);
                if through && let Err(error) = make_place(&root, &destination, source.directory) {
                    tracing::debug!("{}: no place to show it: {error}", destination.display());
                }
                mounts.push((destination, clone_tree(source)?));
            }
        }
        Ok(Some(ShownRoot { root, mounts }))
    }

    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        std::iter::once(self.root.as_raw_fd()).chain(self.mounts.iter().map(|(_, tree)| tree.as_raw_fd()))
    }

    /// In a process that is alone in a new mount namespace: makes the files all there is in that, and `own_root` the
    /// process's root.
    pub fn enter(self, own_root: &OwnedFd) -> Result<()> {
        detach_mounts()?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&self.root, "", rustix::fs::CWD, "/", flags)
            .context("cannot mount the container's root")?;
        hostsys::mountsys::pivot_into(&self.root).context("cannot pivot into the container's root")?;
        for (destination, tree) in &self.mounts {
            // What the root has no place for is seen by the container alone.
            let Ok(place) = inside(&self.root, destination) else { continue };
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            if let Err(error) = rustix::mount::move_mount(tree, "", &place, "", flags) {
                tracing::debug!("{}: not shown: {error}", destination.display());
            }
        }
        rustix::process::fchdir(own_root).context("cannot change the directory")?;
        rustix::process::chroot(".").context("cannot change the root")
    }
}
