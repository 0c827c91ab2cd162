//! The OCI configuration: reading config.json, refusing what is not understood or not supported
//! (always by the field's name), and turning the rest into a [`Plan`]: what the sentry gets, what
//! the gofer gets, and what this command does on the host.

mod capabilities;
mod linux;
mod mounts;
mod process;
mod schedule;
mod seccomp;
pub mod starter;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;
use sentry::boot::spec::{ContainerSpec, RootOverlay, RootSpec, Share};

pub use capabilities::{ALL as ALL_CAPABILITIES, names as capability_names};
pub use linux::{JoinedNamespaces, limits};
pub use mounts::Source;
pub use process::{capability_bit, process_spec};

/// A bundle directory with its configuration.
#[derive(Debug)]
pub struct Bundle {
    /// Absolute.
    pub directory: PathBuf,
    pub config: oci::Spec,
    /// config.json as it was read, for the container's record.
    pub raw: Vec<u8>,
}

/// What a configuration means for each of the processes.
#[derive(Debug)]
pub struct Plan {
    pub container: ContainerSpec,
    /// What the gofer serves, in the order of the mount indices in `container`; the root first.
    pub sources: Vec<Source>,
    /// Absolute path of the root on the host.
    pub rootfs: PathBuf,
    pub hooks: oci::Hooks,
    pub joined: JoinedNamespaces,
    pub cgroups_path: Option<PathBuf>,
    pub resources: Option<oci::LinuxResources>,
}

/// Longest name that sethostname(2) takes.
const HOST_NAME_MAX: usize = 64;

/// Choices of the command line that a plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub overlay: Overlay,
}

/// What is wanted for writes to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlay {
    /// To the host's files if the root directory is a mount: engines make one for each container, and read
    /// there what it has written. In memory if it is any directory, which others may use as well.
    Auto,
    Memory,
    None,
}

/// Where writes to the root go.
fn root_overlay(wanted: Overlay, rootfs: &Path, readonly: bool) -> RootOverlay {
    let own_mount = || {
        let flags = rustix::fs::AtFlags::empty();
        let mask = rustix::fs::StatxFlags::BASIC_STATS;
        rustix::fs::statx(rustix::fs::CWD, rootfs, flags, mask)
            .is_ok_and(|s| s.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
    };
    let through = match wanted {
        Overlay::Memory => false,
        Overlay::None => true,
        Overlay::Auto => rootfs != Path::new("/") && own_mount(),
    };
    // Nothing is written to a read-only root but the mount points that it lacks, and nobody is to see those.
    if through && !readonly { RootOverlay::None } else { RootOverlay::Memory }
}

/// Parses JSON; an error names the field.
pub fn parse<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if path == "." || inner.is_syntax() || inner.is_eof() {
            anyhow::anyhow!("{inner}")
        } else {
            anyhow::anyhow!("{path}: {inner}")
        }
    })?;
    reader.end().map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(value)
}

/// Reads `directory`/config.json.
pub fn load(directory: &Path) -> Result<Bundle> {
    let directory = directory.canonicalize().with_context(|| format!("bundle {}", directory.display()))?;
    if !directory.is_dir() {
        bail!("bundle {}: not a directory", directory.display());
    }
    let path = directory.join("config.json");
    let raw = match std::fs::read(&path) {
        Ok(raw) => raw,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("JSON specification file {} not found: no such file or directory", path.display())
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let config: oci::Spec = parse(&raw).with_context(|| path.display().to_string())?;
    Ok(Bundle { directory, config, raw })
}

/// Checks a configuration and works out what it asks for.
pub fn plan(bundle: &Bundle, options: Options) -> Result<Plan> {
    let config = &bundle.config;
    check_version(config.version())
        .with_context(|| bundle.directory.join("config.json").display().to_string())?;
    if config.solaris().is_some() || config.windows().is_some() || config.vm().is_some() {
        bail!("only Linux containers are supported: the configuration has a section for another system");
    }
    let root = config.root().as_ref().context("root: missing")?;
    let rootfs = bundle.directory.join(root.path());
    let rootfs = rootfs.canonicalize().with_context(|| format!("root.path: {}", rootfs.display()))?;
    if !rootfs.is_dir() {
        bail!("root.path: {} is not a directory", rootfs.display());
    }
    let process = config.process().as_ref().context("process: missing")?;
    for (field, name) in [("hostname", config.hostname()), ("domainname", config.domainname())] {
        if name.as_ref().is_some_and(|n| n.len() > HOST_NAME_MAX) {
            bail!("{field}: longer than {HOST_NAME_MAX} bytes");
        }
    }
    let linux = config.linux().clone().unwrap_or_default();
    let readonly = root.readonly().unwrap_or(false);

    let overlay = root_overlay(options.overlay, &rootfs, readonly);
    let mut sources = vec![Source {
        path: rootfs.clone(),
        // With an overlay nothing is ever written to the host's files.
        readonly: overlay == RootOverlay::Memory,
        recursive: true,
        directory: true,
        hidden: Vec::new(),
    }];
    let mut devices = linux::devices(&linux)?;
    let mounts = mounts::mounts(
        config.mounts().as_deref().unwrap_or(&[]),
        &bundle.directory,
        &mut sources,
        &mut devices,
    )?;
    let joined = linux::check(&linux)?;
    let (uid_mappings, gid_mappings) = linux::id_mappings(&linux)?;
    let container = ContainerSpec {
        hostname: config.hostname().clone(),
        domainname: config.domainname().clone(),
        root: RootSpec { gofer_mount: 0, readonly, overlay },
        mounts,
        process: process_spec(process, "process")?,
        uid_mappings,
        gid_mappings,
        devices,
        masked_paths: linux::paths(linux.masked_paths(), "linux.maskedPaths")?,
        readonly_paths: linux::paths(linux.readonly_paths(), "linux.readonlyPaths")?,
        sysctl: linux.sysctl().clone().unwrap_or_default().into_iter().collect(),
        seccomp: linux.seccomp().as_ref().map(seccomp::seccomp).transpose()?,
        // Filled in when the container's state is known.
        start_hooks: Vec::new(),
        annotations: config.annotations().clone().unwrap_or_default().into_iter().collect(),
        limits: linux::limits(linux.resources().as_ref()),
        // Filled in when the sandbox it belongs to is known.
        share: Share::default(),
    };
    Ok(Plan {
        container,
        sources,
        rootfs,
        hooks: config.hooks().clone().unwrap_or_default(),
        joined,
        cgroups_path: linux.cgroups_path().clone().filter(|p| !p.as_os_str().is_empty()),
        resources: linux.resources().clone(),
    })
}

/// Version 1 of the specification in any of its minor versions.
fn check_version(version: &str) -> Result<()> {
    if version.is_empty() {
        bail!("ociVersion: missing");
    }
    if version.split('.').next() != Some("1") {
        bail!("ociVersion: {version:?} is not supported, only versions 1.x are");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
