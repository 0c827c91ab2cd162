//! `mounts`: which of them are the sentry's own file systems and which are files of the host that
//! the gofer serves, and what their options mean.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;
use sentry::boot::spec::{DeviceKind, DeviceSpec, MountFlags, MountKind, MountSpec};

use super::linux::{own_device, path_bytes};

/// A tree or file of the host that the gofer serves.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: PathBuf,
    pub readonly: bool,
    /// With what is mounted below it.
    pub recursive: bool,
    pub directory: bool,
    /// Directories below it that the gofer must not reach either; covered by empty ones.
    pub hidden: Vec<PathBuf>,
}

/// Options that say how a mount is made, whatever its type.
#[derive(Debug, Default)]
struct Common {
    flags: MountFlags,
    bind: bool,
    recursive: bool,
    copy_up: bool,
    /// What is left: options of the file system.
    data: Vec<String>,
}

pub fn mounts(
    list: &[oci::Mount],
    bundle: &Path,
    sources: &mut Vec<Source>,
    devices: &mut Vec<DeviceSpec>,
) -> Result<Vec<MountSpec>> {
    let mut out = Vec::new();
    for (index, mount) in list.iter().enumerate() {
        let field = format!("mounts[{index}]");
        let destination = mount.destination();
        // runc takes a relative destination as one below the root; so did images of old.
        let destination = Path::new("/").join(destination);
        if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
            bail!("{field}.uidMappings: id-mapped mounts are not supported");
        }
        let common = options(mount.options().as_deref().unwrap_or(&[]), &field)?;
        let typ = mount.typ().as_deref().unwrap_or("");
        let kind = if common.bind || typ == "bind" {
            let source = mount.source().as_ref().with_context(|| format!("{field}.source: missing"))?;
            match bind(&bundle.join(source), &destination, &common, &field, sources, devices)? {
                Some(kind) => kind,
                None => continue,
            }
        } else {
            match typ {
                "tmpfs" => MountKind::Tmpfs { copy_up: common.copy_up },
                "proc" => MountKind::Proc,
                "sysfs" => MountKind::Sysfs,
                "devpts" => MountKind::Devpts,
                "mqueue" => MountKind::Mqueue,
                "cgroup" | "cgroup2" => MountKind::Cgroup,
                "" => bail!("{field}.type: missing"),
                other => bail!("{field}.type: file system {other:?} is not supported"),
            }
        };
        check_data(&kind, &common.data, &field)?;
        out.push(MountSpec {
            destination: path_bytes(&destination),
            kind,
            flags: common.flags,
            data: common.data,
        });
    }
    Ok(out)
}

/// A bind mount: adds to what the gofer serves. A device that the sentry has itself becomes that
/// one, and then there is nothing to mount.
fn bind(
    source: &Path,
    destination: &Path,
    common: &Common,
    field: &str,
    sources: &mut Vec<Source>,
    devices: &mut Vec<DeviceSpec>,
) -> Result<Option<MountKind>> {
    let path = source.canonicalize().with_context(|| format!("{field}.source: {}", source.display()))?;
    let metadata = path.metadata().with_context(|| format!("{field}.source: {}", path.display()))?;
    let kind = metadata.file_type();
    if kind.is_char_device() {
        let (major, minor) = device_number(metadata.rdev());
        if !own_device(major, minor) {
            bail!("{field}.source: the sandbox has no device like {}", path.display());
        }
        devices.push(DeviceSpec {
            path: path_bytes(destination),
            kind: DeviceKind::Character,
            major,
            minor,
            mode: Some(metadata.mode() & 0o7777),
            uid: None,
            gid: None,
        });
        return Ok(None);
    }
    if !kind.is_dir() && !kind.is_file() {
        bail!(
            "{field}.source: {} is neither a directory nor a regular file, that is not supported",
            path.display()
        );
    }
    let index = u32::try_from(sources.len()).context("too many mounts")?;
    sources.push(Source {
        path,
        readonly: common.flags.readonly,
        recursive: common.recursive,
        directory: kind.is_dir(),
        hidden: Vec::new(),
    });
    Ok(Some(MountKind::Gofer { index, directory: kind.is_dir() }))
}

/// makedev(3) backwards.
fn device_number(rdev: u64) -> (u32, u32) {
    (rustix::fs::major(rdev), rustix::fs::minor(rdev))
}

fn options(list: &[String], field: &str) -> Result<Common> {
    let mut common = Common::default();
    for option in list {
        let flags = &mut common.flags;
        match option.as_str() {
            "" | "defaults" | "async" | "dirsync" | "relatime" | "norelatime" | "rrelatime"
            | "rnorelatime" | "nostrictatime" | "rnostrictatime" | "loud" | "silent" | "mand" | "nomand"
            | "iversion" | "noiversion" | "lazytime" | "nolazytime" | "acl" | "noacl" | "norbind" => {}
            "ro" | "rro" => flags.readonly = true,
            "rw" | "rrw" => flags.readonly = false,
            "nosuid" | "rnosuid" => flags.nosuid = true,
            "suid" | "rsuid" => flags.nosuid = false,
            "nodev" | "rnodev" => flags.nodev = true,
            "dev" | "rdev" => flags.nodev = false,
            "noexec" | "rnoexec" => flags.noexec = true,
            "exec" | "rexec" => flags.noexec = false,
            "noatime" | "rnoatime" => flags.noatime = true,
            "atime" | "ratime" => flags.noatime = false,
            "nodiratime" | "rnodiratime" => flags.nodiratime = true,
            "diratime" | "rdiratime" => flags.nodiratime = false,
            "strictatime" | "rstrictatime" => flags.strictatime = true,
            "nosymfollow" | "rnosymfollow" => flags.nosymfollow = true,
            "symfollow" | "rsymfollow" => flags.nosymfollow = false,
            "sync" => flags.sync = true,
            "bind" => common.bind = true,
            "rbind" => {
                common.bind = true;
                common.recursive = true;
            }
            "tmpcopyup" => common.copy_up = true,
            // Mounts of the sandbox never propagate to the host, nor the host's into it.
            "private" | "rprivate" | "slave" | "rslave" | "unbindable" | "runbindable" => {}
            "shared" | "rshared" => {
                bail!("{field}.options: {option:?}: mounts made in the sandbox cannot reach the host")
            }
            "idmap" | "ridmap" => bail!("{field}.options: id-mapped mounts are not supported"),
            "remount" => bail!("{field}.options: {option:?} is not supported"),
            other => common.data.push(other.to_owned()),
        }
    }
    Ok(common)
}

/// Options of the file system that the sentry knows.
fn check_data(kind: &MountKind, data: &[String], field: &str) -> Result<()> {
    let known: &[&str] = match kind {
        MountKind::Tmpfs { .. } => {
            &["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "inode64", "inode32", "huge", "noswap"]
        }
        MountKind::Devpts => &["newinstance", "ptmxmode", "mode", "gid", "uid", "max"],
        MountKind::Proc => &["hidepid", "gid", "subset"],
        // Podman and others pass "noswap"-like hints for cgroup mounts; none mean anything here.
        MountKind::Cgroup => &["nsdelegate", "memory_recursiveprot"],
        MountKind::Sysfs | MountKind::Mqueue | MountKind::Gofer { .. } => &[],
    };
    for option in data {
        let name = option.split('=').next().unwrap_or(option);
        // SELinux contexts are passed for every mount where an engine thinks they matter.
        if name == "context" {
            bail!("{field}.options: {option:?}: SELinux is not supported");
        }
        if !known.contains(&name) {
            bail!("{field}.options: unknown option {option:?}");
        }
    }
    Ok(())
}
