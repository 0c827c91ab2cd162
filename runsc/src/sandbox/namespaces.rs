//! Namespaces of the sandbox's processes: user id maps, the empty root, and visiting the
//! namespaces of another process for a moment.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hostsys::mountsys::{MountAttr, make_root_private, mount_setattr, pivot_into};
use hostsys::ns::{IdMap, write_id_maps};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::shown_root::ShownRoot;

/// The id that the sentry runs under on the host when root starts it: nobody, who owns nothing.
const NOBODY: u32 = 65_534;

/// What the caller may do with ids.
#[derive(Debug, Clone, Copy)]
pub struct Privilege {
    /// Root, of the host or of a user namespace: any mapped id can be used.
    pub root: bool,
    pub uid: u32,
    pub gid: u32,
}

impl Privilege {
    pub fn current() -> Privilege {
        let uid = rustix::process::geteuid().as_raw();
        Privilege { root: uid == 0, uid, gid: rustix::process::getegid().as_raw() }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    User,
    Group,
}

impl Kind {
    fn map_file(self) -> &'static str {
        match self {
            Kind::User => "uid_map",
            Kind::Group => "gid_map",
        }
    }

    /// Ranges of ids that exist in this process's user namespace: first id and count.
    fn ranges(self) -> Vec<(u32, u32)> {
        let text = std::fs::read_to_string(format!("/proc/self/{}", self.map_file()));
        parse_ranges(&text.unwrap_or_default())
    }
}

fn parse_ranges(map: &str) -> Vec<(u32, u32)> {
    map.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let first = fields.next()?.parse().ok()?;
            Some((first, fields.nth(1)?.parse().ok()?))
        })
        .collect()
}

/// Nobody, or else the last id there is.
fn unprivileged(ranges: &[(u32, u32)]) -> u32 {
    if ranges.iter().any(|&(first, count)| (first..first.saturating_add(count)).contains(&NOBODY)) {
        return NOBODY;
    }
    ranges.iter().map(|&(first, count)| first.saturating_add(count).saturating_sub(1)).max().unwrap_or(0)
}

/// Maps for the sentry's user namespace: id 0 there is an id of the host without rights.
pub fn write_sentry_maps(pid: i32, privilege: Privilege) -> io::Result<()> {
    let (uid, gid) = if privilege.root {
        (unprivileged(&Kind::User.ranges()), unprivileged(&Kind::Group.ranges()))
    } else {
        (privilege.uid, privilege.gid)
    };
    let one = |outside| [IdMap { inside: 0, outside, count: 1 }];
    write_id_maps(Some(pid), &one(uid), &one(gid), !privilege.root)
}

/// Maps for the gofer's user namespace: every id is itself, so that owners of files show as they
/// are; only the rights of the host's root are gone.
pub fn write_gofer_maps(pid: i32, privilege: Privilege) -> io::Result<()> {
    let identity = |kind: Kind, own: u32| -> Vec<IdMap> {
        let ranges = if privilege.root { kind.ranges() } else { vec![(own, 1)] };
        ranges.iter().map(|&(first, count)| IdMap { inside: first, outside: first, count }).collect()
    };
    let uids = identity(Kind::User, privilege.uid);
    let gids = identity(Kind::Group, privilege.gid);
    write_id_maps(Some(pid), &uids, &gids, !privilege.root)
}

/// Cuts a new mount namespace off from the one it is a copy of: nothing that is mounted or
/// unmounted from now on shows there.
pub fn detach_mounts() -> Result<()> {
    make_root_private().context("cannot make mounts private")
}

/// Moves this process, alone in a new mount namespace that is cut off, to a root of its own in which `fill` may
/// make mount points and what belongs there; in the end it is read-only and nothing of the old
/// root can be reached. With `shown`, the namespace shows that, and the new root is not in it. Returns the new root.
pub fn enter_new_root(
    shown: Option<ShownRoot>,
    fill: impl FnOnce(&OwnedFd) -> Result<()>,
    mount: impl FnOnce(&OwnedFd) -> Result<()>,
) -> Result<OwnedFd> {
    let context =
        rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).context("cannot open a tmpfs")?;
    for (key, value) in [("size", "64k"), ("nr_inodes", "4096"), ("mode", "0555")] {
        rustix::mount::fsconfig_set_string(&context, key, value).context("cannot set up a tmpfs")?;
    }
    rustix::mount::fsconfig_create(&context).context("cannot make a tmpfs")?;
    let root = rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )
    .context("cannot mount a tmpfs")?;
    fill(&root)?;
    if let Some(shown) = shown {
        mount_setattr(&root, false, MountAttr::RDONLY, MountAttr::empty())
            .context("cannot make the new root read-only")?;
        shown.enter(&root)?;
        return Ok(root);
    }
    rustix::mount::move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context("cannot mount the new root")?;
    pivot_into(&root).context("cannot pivot into the new root")?;
    mount(&root)?;
    mount_setattr(&root, false, MountAttr::RDONLY, MountAttr::empty())
        .context("cannot make the new root read-only")?;
    Ok(root)
}

/// This process's namespaces while it is in others.
#[derive(Debug)]
pub struct Visit {
    home: Vec<(OwnedFd, LinkNameSpaceType)>,
}

impl Visit {
    /// Goes to the namespaces that `paths` name. Where this process is already it need not go, and without root may not
    /// (`podman run --network host`).
    pub fn go(paths: &[(PathBuf, LinkNameSpaceType)]) -> Result<Visit> {
        let mut visit = Visit { home: Vec::new() };
        for (path, kind) in paths {
            let there = open(path)?;
            let home = open(Path::new(home_path(*kind)))?;
            if is_same(&there, &home)? {
                continue;
            }
            if let Err(error) = move_into_link_name_space(there.as_fd(), Some(*kind)) {
                visit.leave()?;
                return Err(error).with_context(|| format!("cannot join the namespace {}", path.display()));
            }
            visit.home.push((home, *kind));
        }
        Ok(visit)
    }

    /// Goes to the namespaces of a process that a container's hook is to see.
    pub fn network_ipc_uts(pid: i32) -> Result<Visit> {
        let path = |name: &str| PathBuf::from(format!("/proc/{pid}/ns/{name}"));
        Visit::go(&[
            (path("net"), LinkNameSpaceType::Network),
            (path("ipc"), LinkNameSpaceType::InterProcessCommunication),
            (path("uts"), LinkNameSpaceType::HostNameAndNISDomainName),
        ])
    }

    /// Goes to the network namespace of a process.
    pub fn network(pid: i32) -> Result<Visit> {
        Visit::at(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// Goes to a network namespace.
    pub fn at(path: &Path) -> Result<Visit> {
        Visit::go(&[(path.to_owned(), LinkNameSpaceType::Network)])
    }

    /// Comes back. Who is root in a user namespace only may not enter namespaces of the host again; then the command
    /// stays where it is, in a namespace that the container gets, until its early end.
    pub fn leave(self) -> Result<()> {
        for (home, kind) in &self.home {
            match move_into_link_name_space(home.as_fd(), Some(*kind)) {
                Err(rustix::io::Errno::PERM) => tracing::debug!("no way back from a {kind:?} namespace"),
                other => other.context("cannot return to this command's own namespace")?,
            }
        }
        Ok(())
    }
}

/// The host's name in a UTS namespace, or in this process's own.
pub fn host_name(uts: Option<&Path>) -> Result<Option<String>> {
    let kind = LinkNameSpaceType::HostNameAndNISDomainName;
    let paths: Vec<_> = uts.map(|path| (path.to_owned(), kind)).into_iter().collect();
    let visit = Visit::go(&paths)?;
    let name = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
    visit.leave()?;
    Ok(name.filter(|n| !n.is_empty()))
}

fn home_path(kind: LinkNameSpaceType) -> &'static str {
    match kind {
        LinkNameSpaceType::InterProcessCommunication => "/proc/self/ns/ipc",
        LinkNameSpaceType::HostNameAndNISDomainName => "/proc/self/ns/uts",
        _ => "/proc/self/ns/net",
    }
}

/// Whether two descriptors are of one namespace.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> Result<bool> {
    let id = |of: &OwnedFd| rustix::fs::fstat(of).map(|s| (s.st_dev, s.st_ino)).context("namespace");
    Ok(id(one)? == id(other)?)
}

fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("namespace {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_without_rights() {
        assert_eq!(unprivileged(&parse_ranges("         0          0 4294967295\n")), NOBODY);
        assert_eq!(unprivileged(&parse_ranges("0 1000 1\n1 100000 65536\n")), NOBODY);
        assert_eq!(unprivileged(&parse_ranges("0 1000 1\n")), 0);
        assert_eq!(unprivileged(&parse_ranges("0 1000 1\n1 100000 100\n")), 100);
    }
}
