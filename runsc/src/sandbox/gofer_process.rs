//! The child that becomes the gofer: from the fork to [`gofer::serve`]. Its mount namespace holds
//! the trees it serves and nothing else of the host.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use anyhow::{Context, Result};
use gofer::{Confinement, GoferConfig, MountConfig, MountRoot};
use hostsys::mountsys::{MountAttr, mount_setattr};
use hostsys::process::{Child, ForkOptions, Namespaces, fork_run};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use sentry::boot::handshake::{FromChild, FromParent, Handshake};

use super::namespaces::{self, Privilege};
use crate::spec::Source;

#[derive(Debug)]
pub struct Setting {
    pub privilege: Privilege,
    pub sources: Vec<Source>,
    /// Our end of the channel to the sentry.
    pub socket: OwnedFd,
    /// Kept open and nothing else: its other end tells the sentry when the gofer is gone.
    pub life: OwnedFd,
    pub handshake: Handshake,
    pub null: OwnedFd,
    pub log: Option<File>,
    pub log_format: crate::log::Format,
    pub debug: bool,
}

/// Forks the gofer. Without root it waits for its id maps first, with root later: see [`child`].
pub fn start(setting: Setting) -> Result<Child> {
    let mut keep: Vec<RawFd> = vec![
        0,
        1,
        2,
        setting.socket.as_raw_fd(),
        setting.life.as_raw_fd(),
        setting.handshake.stream().as_raw_fd(),
        setting.null.as_raw_fd(),
    ];
    keep.extend(setting.log.iter().map(AsRawFd::as_raw_fd));
    let mut namespaces =
        Namespaces::MOUNT | Namespaces::PID | Namespaces::IPC | Namespaces::UTS | Namespaces::NET;
    if !setting.privilege.root {
        namespaces |= Namespaces::USER;
    }
    let options = ForkOptions { namespaces, sibling: false };
    fork_run(options, move || {
        // What else this process has open is never used again here: the child ends by _exit.
        match hostsys::fd::close_all_but(&keep) {
            Ok(()) => child(setting),
            Err(_) => 1,
        }
    })
    .context("cannot start the gofer")
}

fn child(setting: Setting) -> i32 {
    let Setting { privilege, sources, socket, life, mut handshake, null, log, log_format, debug } = setting;
    crate::log::become_sandbox(log, log_format, debug);
    let mounts = match become_gofer(&mut handshake, privilege, &sources, null) {
        Ok(mounts) => mounts,
        Err(error) => {
            // If the parent is gone there is nobody to tell.
            let _ = handshake.tell_parent(&FromChild::Failed(format!("{error:#}")));
            return 1;
        }
    };
    if handshake.tell_parent(&FromChild::Ready).is_err() {
        return 1;
    }
    // From here on it lives as long as the sentry's end of the channel is open.
    drop(handshake);
    let confinement = Some(Confinement { device_nodes: false });
    let served = gofer::serve(GoferConfig { mounts, socket, confinement });
    drop(life);
    match served {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("the gofer failed: {error}");
            1
        }
    }
}

fn become_gofer(
    handshake: &mut Handshake,
    privilege: Privilege,
    sources: &[Source],
    null: OwnedFd,
) -> Result<Vec<MountConfig>> {
    hostsys::process::forget_environment().context("environment")?;
    hostsys::process::set_name("runsc-gofer").context("name")?;
    super::reset_signals()?;
    rustix::process::setsid().context("new session")?;
    let map_ids = |handshake: &mut Handshake| {
        handshake
            .tell_parent(&FromChild::NeedsIdMaps)
            .and_then(|()| handshake.await_parent(FromParent::IdMapsWritten))
            .context("the command that starts the gofer is gone")
    };
    if !privilege.root {
        map_ids(handshake)?;
    }
    namespaces::detach_mounts()?;
    let trees: Vec<OwnedFd> = sources.iter().map(clone_tree).collect::<Result<_>>()?;
    let mut mounts = Vec::new();
    let root = namespaces::enter_new_root(
        None,
        |root| make_mount_points(root, sources),
        |root| {
            for (index, (source, tree)) in sources.iter().zip(trees).enumerate() {
                mounts.push(attach(root, index, source, tree)?);
            }
            Ok(())
        },
    )?;
    drop(root);
    super::redirect_stdio(&null)?;
    drop(null);
    if privilege.root {
        // Only now: the mounts above belong to the host's user namespace and are out of reach of
        // whatever capability the gofer keeps in this one.
        hostsys::ns::unshare(Namespaces::USER).context("new user namespace")?;
        map_ids(handshake)?;
    }
    Ok(mounts)
}

/// A copy of the mounts at a path of the host, attached nowhere.
pub fn clone_tree(source: &Source) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if source.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = rustix::mount::open_tree(CWD, &source.path, flags)
        .with_context(|| format!("cannot mount {}", source.path.display()))?;
    let mut attributes = MountAttr::NOSUID | MountAttr::NODEV;
    attributes.set(MountAttr::RDONLY, source.readonly);
    mount_setattr(&tree, source.recursive, attributes, MountAttr::empty())
        .with_context(|| format!("cannot set up the mount of {}", source.path.display()))?;
    Ok(tree)
}

/// Name of the empty directory that covers what is hidden.
const EMPTY: &str = "empty";

fn make_mount_points(root: &OwnedFd, sources: &[Source]) -> Result<()> {
    for (index, source) in sources.iter().enumerate() {
        let name = index.to_string();
        if !source.directory {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(rustix::fs::openat(root, &name, flags, Mode::RUSR).context("mount point")?);
        } else if !source.hidden.is_empty() {
            rustix::fs::mkdirat(root, &name, Mode::RUSR).context("mount point")?;
        }
    }
    if sources.iter().any(|s| !s.hidden.is_empty()) {
        rustix::fs::mkdirat(root, EMPTY, Mode::from_raw_mode(0o555)).context("mount point")?;
    }
    Ok(())
}

/// Makes one tree ready to be served. A file has to have a name, so that it can be opened again;
/// a directory that nothing below is hidden of needs no place in this namespace at all.
fn attach(root: &OwnedFd, index: usize, source: &Source, tree: OwnedFd) -> Result<MountConfig> {
    let name = index.to_string();
    let place = || {
        rustix::mount::move_mount(&tree, "", root, &name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .with_context(|| format!("cannot attach the mount of {}", source.path.display()))
    };
    let mount_root = if !source.directory {
        place()?;
        let directory = root.try_clone().context("cannot copy a descriptor")?;
        MountRoot::File { directory, name: name.into_bytes() }
    } else if source.hidden.is_empty() {
        MountRoot::Directory(tree)
    } else {
        place()?;
        for path in &source.hidden {
            cover(root, &tree, path)?;
        }
        MountRoot::Directory(tree)
    };
    Ok(MountConfig { root: mount_root, readonly: source.readonly, allow_devices: false })
}

/// Mounts an empty directory over `path` in `tree`, if that is there.
fn cover(root: &OwnedFd, tree: &OwnedFd, path: &Path) -> Result<()> {
    use rustix::fs::ResolveFlags;
    let relative = path.strip_prefix("/").unwrap_or(path);
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = match rustix::fs::openat2(tree, relative, flags, Mode::empty(), inside) {
        Ok(place) => place,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let empty = rustix::mount::open_tree(
        root,
        EMPTY,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .context("cannot copy the empty directory")?;
    mount_setattr(&empty, false, MountAttr::RDONLY, MountAttr::empty())
        .context("cannot set up the empty directory")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&empty, "", &place, "", flags)
        .with_context(|| format!("cannot cover {}", path.display()))
}
