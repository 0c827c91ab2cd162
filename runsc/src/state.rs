//! What is known of containers between two commands: one directory for each, root's alone, with
//! the record, a copy of the configuration, a lock and the control socket.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use sentry::boot::spec::Limits;
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::error::Missing;

/// A host process, safe against its number being used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    pub pid: i32,
    /// In clock ticks after boot, field 22 of /proc/PID/stat.
    pub start_time: u64,
}

impl ProcessRef {
    /// Takes a note of a live process.
    pub fn of(pid: i32) -> io::Result<ProcessRef> {
        let (_, start_time) = read_stat(pid)?;
        Ok(ProcessRef { pid, start_time })
    }

    /// Whether it still runs; a zombie does not.
    pub fn is_alive(self) -> bool {
        read_stat(self.pid)
            .is_ok_and(|(state, start)| start == self.start_time && !matches!(state, 'Z' | 'X'))
    }

    /// Kills it and waits until it is gone.
    pub fn kill_and_wait(self) {
        use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        // Between opening and the check below the number cannot change hands unnoticed.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if !self.is_alive() {
            return;
        }
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        let mut interest = [hostsys::socket::Interest::read(std::os::fd::AsFd::as_fd(&pidfd))];
        let _ = hostsys::socket::wait(&mut interest, Some(std::time::Duration::from_secs(10)));
    }
}

/// State letter and start time of a process.
fn read_stat(pid: i32) -> io::Result<(char, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let parsed = stat.rsplit_once(')').and_then(|(_, rest)| {
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let start = fields.nth(18)?.parse().ok()?;
        Some((state, start))
    });
    parsed.ok_or_else(|| io::Error::other("cannot read /proc/PID/stat"))
}

/// The record of a container, `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub oci_version: String,
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    /// Name of the user who made it.
    pub owner: String,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Absent until the container has been set up.
    #[serde(default)]
    pub sentry: Option<ProcessRef>,
    #[serde(default)]
    pub gofer: Option<ProcessRef>,
    /// The container whose sandbox this one has joined; `sentry` is then that one's.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// The process that stands for it on the host, if that is not the sentry.
    #[serde(default)]
    pub holder: Option<ProcessRef>,
    /// Directories of cgroups that were made for it.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    /// The network namespace that the sandbox has taken over and that is not its own.
    #[serde(default)]
    pub network: Option<PathBuf>,
    /// The scope of systemd that its cgroups belong to.
    #[serde(default)]
    pub scope: Option<cgroup::systemd::Unit>,
    pub platform: String,
    /// The command in the foreground that the sandbox dies with.
    #[serde(default)]
    pub command: Option<ProcessRef>,
}

impl Record {
    /// The process of the host that stands for the container.
    pub fn host_process(&self) -> Option<ProcessRef> {
        self.holder.or(self.sentry)
    }
}

/// A container's directory.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

/// Held while a container is being changed.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The directory that holds all containers' directories.
#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
}

impl Root {
    pub fn new(path: Option<&Path>) -> Result<Root> {
        let path = match path {
            Some(path) => std::path::absolute(path).with_context(|| format!("--root {}", path.display()))?,
            None => default_root(),
        };
        Ok(Root { path })
    }

    /// The directory of an existing container.
    pub fn open(&self, id: &str) -> Result<Directory> {
        check_id(id)?;
        let path = self.path.join(id);
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => Ok(Directory { path }),
            Ok(_) => bail!("{} is not a directory", path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Missing { id: id.to_owned() }.into())
            }
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Makes the directory of a new container and locks it.
    pub fn create(&self, id: &str) -> Result<(Directory, Lock)> {
        check_id(id)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .with_context(|| format!("cannot make the state directory {}", self.path.display()))?;
        self.check_owner()?;
        let path = self.path.join(id);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("container with id exists: {id}")
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot make {}", path.display()));
            }
        }
        let directory = Directory { path };
        let lock = directory.lock()?;
        Ok((directory, lock))
    }

    /// The default place without root is in a directory that anybody may write to: what somebody
    /// else has put there first must not be trusted.
    fn check_owner(&self) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        let metadata = self.path.metadata().with_context(|| self.path.display().to_string())?;
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            bail!(
                "the state directory {} must belong to the caller and be writable by nobody else",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Ids of all containers, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| self.path.display().to_string()),
        };
        let mut ids: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|id| check_id(id).is_ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

fn default_root() -> PathBuf {
    let uid = rustix::process::geteuid();
    if uid.is_root() && !in_user_namespace() {
        return "/run/runsc".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()) {
        Some(directory) => Path::new(&directory).join("runsc"),
        None if uid.is_root() => "/run/runsc".into(),
        None => format!("/tmp/runsc-{}", uid.as_raw()).into(),
    }
}

/// Whether this process's root is not the host's.
pub fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"])
}

/// runc's rule for ids; they become names of files, so nothing else may pass.
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+-.".contains(&b);
    if id.is_empty() || id.len() > 255 || !id.bytes().all(allowed) || id == "." || id == ".." {
        bail!("invalid container id {id:?}: only letters, digits and _ + - . are allowed");
    }
    Ok(())
}

impl Directory {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for other commands that change this container.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.path.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .with_context(|| path.display().to_string())?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
            .with_context(|| path.display().to_string())?;
        Ok(Lock { _file: file })
    }

    /// Whether another command is changing it now.
    pub fn is_busy(&self) -> bool {
        let Ok(file) = File::open(self.path.join("lock")) else { return false };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
    }

    /// `None` if there is none yet.
    pub fn read(&self) -> Result<Option<Record>> {
        let path = self.path.join("state.json");
        match std::fs::read(&path) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json).with_context(|| path.display().to_string())?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Replaces the record in one step: a reader sees the old one or the new one.
    pub fn write(&self, record: &Record) -> Result<()> {
        self.write_file("state.json", &serde_json::to_vec(record)?)
    }

    pub fn write_config(&self, json: &[u8]) -> Result<()> {
        self.write_file("config.json", json)
    }

    pub fn read_config(&self) -> Result<Vec<u8>> {
        let path = self.path.join("config.json");
        std::fs::read(&path).with_context(|| path.display().to_string())
    }

    /// The limits that the last `update` has left; none if there was no update.
    pub fn read_limits(&self) -> Result<Option<Limits>> {
        let path = self.path.join("limits.json");
        match std::fs::read(&path) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json).with_context(|| path.display().to_string())?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    pub fn write_limits(&self, limits: &Limits) -> Result<()> {
        self.write_file("limits.json", &serde_json::to_vec(limits)?)
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let new = self.path.join(format!("{name}.new"));
        let write = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.write_all(bytes)?;
            std::fs::rename(&new, self.path.join(name))
        };
        write().with_context(|| format!("cannot write {}", self.path.join(name).display()))
    }

    pub fn remove(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["a", "web-1", "A_b+c.d", &"x".repeat(255), "..."] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", "a/b", "/", ".", "..", "a b", "\u{e9}", &"x".repeat(256), "a\n"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_from_birth_to_removal() {
        let base = std::env::temp_dir().join(format!("runsc-state-{}", std::process::id()));
        let root = Root::new(Some(&base)).unwrap();
        assert!(root.ids().unwrap().is_empty());
        let (directory, lock) = root.create("one").unwrap();
        assert!(directory.is_busy());
        assert!(directory.read().unwrap().is_none());
        drop(lock);
        assert!(!directory.is_busy());
        assert_eq!(root.create("one").unwrap_err().to_string(), "container with id exists: one");
        let record = Record {
            oci_version: "1.0.2".into(),
            id: "one".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-01-01T00:00:00Z".into(),
            owner: "root".into(),
            annotations: BTreeMap::new(),
            sentry: Some(ProcessRef::of(std::process::id().cast_signed()).unwrap()),
            gofer: None,
            sandbox: None,
            holder: None,
            cgroups: Vec::new(),
            platform: "ptrace".into(),
            network: None,
            scope: None,
            command: None,
        };
        directory.write(&record).unwrap();
        let back = directory.read().unwrap().unwrap();
        assert!(back.sentry.unwrap().is_alive());
        assert!(!ProcessRef { start_time: 1, ..back.sentry.unwrap() }.is_alive());
        assert_eq!(root.ids().unwrap(), ["one"]);
        directory.remove().unwrap();
        assert!(root.open("one").unwrap_err().is::<Missing>());
        std::fs::remove_dir_all(&base).unwrap();
    }
}
