//! The mount tree of a container: its root, the mounts of its configuration, device nodes, masked and
//! read-only paths. All of it is the sentry's own; no mount of the host is made or changed.

use super::BootError;
use super::spec::{
    ByteString, ContainerSpec, DeviceKind, MountFlags as SpecFlags, MountKind, MountSpec, RootOverlay,
};
use super::types::{self, TypeArgs};
use crate::control::protocol::ErrorKind;
use abi::stat::{FileType, StatFs, makedev};
use abi::{Errno, Result};
use fs::gofer::{AttachOptions, Connection, GoferFs, Sharing};
use kernel::Kernel;
use kernel::creds::Creds;
use kernel::task::{IpcNamespace, PidNamespace};
use kernel::vfs::change::{self, New};
use kernel::vfs::{
    Caller, FileSystem, FsFlags, Inode, LookupFlags, MountFlags, MountNamespace, Path, Start, SuperBlock,
    resolve, resolve_parent,
};
use std::sync::Arc;

/// What building the tree needs.
pub struct Builder<'a> {
    pub kernel: &'a Arc<Kernel>,
    pub creds: &'a Arc<Creds>,
    pub gofer: &'a Arc<Connection>,
    pub pid_ns: &'a Arc<PidNamespace>,
    pub ipc: &'a Arc<IpcNamespace>,
}

/// The device nodes that every container has: name, major, minor.
const DEVICES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The symbolic links in /dev.
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn failed(what: String, e: Errno) -> BootError {
    let kind = match e {
        Errno::ENOENT => ErrorKind::NotFound,
        Errno::EACCES | Errno::EPERM => ErrorKind::NotPermitted,
        _ => ErrorKind::Internal,
    };
    BootError::new(kind, format!("{what}: {}", e.text().to_lowercase()))
}

fn flags(spec: &SpecFlags) -> MountFlags {
    let mut f = MountFlags::empty();
    f.set(MountFlags::RDONLY, spec.readonly);
    f.set(MountFlags::NOSUID, spec.nosuid);
    f.set(MountFlags::NODEV, spec.nodev);
    f.set(MountFlags::NOEXEC, spec.noexec);
    f.set(MountFlags::NOATIME, spec.noatime);
    f.set(MountFlags::NODIRATIME, spec.nodiratime);
    f.set(MountFlags::STRICTATIME, spec.strictatime);
    f.set(MountFlags::NOSYMFOLLOW, spec.nosymfollow);
    if !spec.noatime && !spec.strictatime {
        f.insert(MountFlags::RELATIME);
    }
    f
}

impl Builder<'_> {
    fn caller(&self) -> Caller<'_> {
        Caller { creds: self.creds, task: None }
    }

    fn attach(&self, mount: u32, sharing: Sharing, source: &str) -> Result<Arc<GoferFs>> {
        let dev = self.kernel.vfs.new_dev();
        GoferFs::attach(
            Arc::clone(self.gofer),
            AttachOptions { mount, sharing, dev, source: source.to_owned() },
        )
    }

    /// Builds everything.
    pub fn build(&self, spec: &ContainerSpec) -> std::result::Result<Arc<MountNamespace>, BootError> {
        let root_fs =
            self.root_fs(spec).map_err(|e| failed("cannot set up the root file system".to_owned(), e))?;
        let sb = SuperBlock::new(root_fs, false);
        let source: &[u8] = match spec.root.overlay {
            RootOverlay::Memory => b"overlay",
            RootOverlay::None => b"root",
        };
        let tree = &self.kernel.vfs.mounts;
        let ns = tree.new_namespace(Arc::clone(&self.creds.user_ns), sb, MountFlags::RELATIME, source);
        for m in &spec.mounts {
            self.mount(&ns, spec, m)
                .map_err(|e| failed(format!("cannot mount on {}", show(m.destination.as_bytes())), e))?;
        }
        self.devices(&ns, spec).map_err(|e| failed("cannot make the device nodes".to_owned(), e))?;
        for path in &spec.readonly_paths {
            self.make_readonly(&ns, path)
                .map_err(|e| failed(format!("cannot make {} read-only", show(path.as_bytes())), e))?;
        }
        for path in &spec.masked_paths {
            self.mask(&ns, path).map_err(|e| failed(format!("cannot mask {}", show(path.as_bytes())), e))?;
        }
        if spec.root.readonly {
            let root = ns.root_mount().root_path();
            ns.change_mount_flags(&root, MountFlags::RDONLY, MountFlags::empty(), false)
                .map_err(|e| failed("cannot make the root read-only".to_owned(), e))?;
        }
        Ok(ns)
    }

    fn root_fs(&self, spec: &ContainerSpec) -> Result<Arc<dyn FileSystem>> {
        let sharing = match spec.root.overlay {
            RootOverlay::None => Sharing::Rarely,
            RootOverlay::Memory => Sharing::Exclusive,
        };
        let lower = self.attach(spec.root.gofer_mount, sharing, "root")?;
        match spec.root.overlay {
            RootOverlay::None => Ok(lower),
            RootOverlay::Memory => {
                let upper = types::tmpfs(self.kernel, b"")?;
                let dev = self.kernel.vfs.new_dev();
                Ok(fs::overlay::OverlayFs::new(lower, upper, dev, Arc::clone(self.creds)))
            }
        }
    }

    /// The place of an absolute path below the container's root; links are followed inside it only.
    fn find(&self, ns: &MountNamespace, path: &[u8]) -> Result<Path> {
        resolve(&self.caller(), Start::inside(&ns.root()), path, LookupFlags::FOLLOW)
    }

    /// Like `find`; makes what is missing: directories, and for `directory` false a file at the end.
    fn find_or_make(&self, ns: &MountNamespace, path: &[u8], directory: bool) -> Result<Path> {
        match self.find(ns, path) {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty()).collect();
        let mut at = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            at.push(b'/');
            at.extend_from_slice(part);
            if self.find(ns, &at).is_ok() {
                continue;
            }
            if i + 1 == parts.len() && !directory {
                let mode = FileType::Regular.mode_bits() | 0o644;
                self.make(ns, &at, &New::Node { mode, rdev: 0 })?;
            } else {
                self.make(ns, &at, &New::Directory { mode: 0o755 })?;
            }
        }
        self.find(ns, path)
    }

    fn make(&self, ns: &MountNamespace, path: &[u8], new: &New<'_>) -> Result<Path> {
        let cx = self.caller();
        let parent = resolve_parent(&cx, Start::inside(&ns.root()), path, LookupFlags::empty())?;
        change::make(&cx, &parent, new)
    }

    /// Options that name users and groups, which the configuration writes as the container has them.
    fn own_ids(&self, data: &[String]) -> Result<Vec<String>> {
        let ns = &self.creds.user_ns;
        let convert = |option: &String| {
            let mapped = match option.split_once('=') {
                Some((name @ "uid", id)) => id.parse().ok().map(|id| (name, ns.kuid(id))),
                Some((name @ "gid", id)) => id.parse().ok().map(|id| (name, ns.kgid(id))),
                _ => None,
            };
            match mapped {
                Some((name, id)) => Ok(format!("{name}={}", id.ok_or(Errno::EINVAL)?)),
                None => Ok(option.clone()),
            }
        };
        data.iter().map(convert).collect()
    }

    fn mount(&self, ns: &MountNamespace, spec: &ContainerSpec, m: &MountSpec) -> Result<()> {
        let destination = m.destination.as_bytes();
        let data = self.own_ids(&m.data)?.join(",");
        let directory = match &m.kind {
            MountKind::Gofer { directory, .. } => *directory,
            _ => true,
        };
        let at = self.find_or_make(ns, destination, directory)?;
        let (kernel, pid_ns, ipc, creds) = (self.kernel, self.pid_ns, self.ipc, self.creds);
        let args = TypeArgs { kernel, pid_ns, ipc, creds, data: data.as_bytes() };
        let (fs, source): (Arc<dyn FileSystem>, &str) = match &m.kind {
            MountKind::Gofer { index, .. } => {
                let fs = self.attach(*index, Sharing::Shared, "bind")?;
                (fs, "bind")
            }
            MountKind::Tmpfs { copy_up } => {
                let fs = types::make("tmpfs", &args)?;
                if *copy_up {
                    types::copy_tree(&self.caller(), &at, &fs.root())?;
                }
                (fs, "tmpfs")
            }
            MountKind::Proc => (types::make("proc", &args)?, "proc"),
            MountKind::Sysfs => (types::make("sysfs", &args)?, "sysfs"),
            MountKind::Devpts => (types::make("devpts", &args)?, "devpts"),
            MountKind::Mqueue => (types::make("mqueue", &args)?, "mqueue"),
            MountKind::Cgroup => (types::make("cgroup2", &args)?, "cgroup"),
        };
        let _ = spec;
        let sb = SuperBlock::new(fs, false);
        ns.mount(sb, &at, flags(&m.flags), source.as_bytes())?;
        Ok(())
    }

    fn node(
        &self,
        ns: &MountNamespace,
        path: &str,
        kind: FileType,
        rdev: u64,
        mode: u32,
    ) -> Result<Option<Path>> {
        let new = New::Node { mode: kind.mode_bits() | mode, rdev };
        // The root of a user namespace of its own may make no device.
        let root_ns = Arc::clone(&self.kernel.root_user_ns);
        let creds = Arc::new(Creds { user_ns: root_ns, ..(**self.creds).clone() });
        let maker = Builder { creds: &creds, ..*self };
        match maker.make(ns, path.as_bytes(), &new) {
            Ok(p) => Ok(Some(p)),
            Err(Errno::EEXIST) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Device nodes and links in /dev, where that is a memory file system of this container.
    fn devices(&self, ns: &MountNamespace, spec: &ContainerSpec) -> Result<()> {
        let dev = match self.find(ns, b"/dev") {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other?,
        };
        if dev.mount.fs.name() != "tmpfs" {
            return Ok(());
        }
        for (name, major, minor) in DEVICES {
            self.node(ns, &format!("/dev/{name}"), FileType::CharDevice, makedev(*major, *minor), 0o666)?;
        }
        for (name, target) in LINKS {
            let new = New::Symlink { target: target.as_bytes() };
            match self.make(ns, format!("/dev/{name}").as_bytes(), &new) {
                Ok(_) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e),
            }
        }
        if spec.process.terminal {
            self.node(ns, "/dev/console", FileType::CharDevice, makedev(5, 1), 0o620)?;
        }
        for d in &spec.devices {
            let kind = match d.kind {
                DeviceKind::Character => FileType::CharDevice,
                DeviceKind::Block => FileType::BlockDevice,
                DeviceKind::Fifo => FileType::Fifo,
            };
            let path = show(d.path.as_bytes());
            let node = self.node(ns, &path, kind, makedev(d.major, d.minor), d.mode.unwrap_or(0o666))?;
            if let Some(p) = node
                && (d.uid.is_some() || d.gid.is_some())
            {
                let ns = &self.creds.user_ns;
                let uid = d.uid.map(|id| ns.kuid(id).ok_or(Errno::EINVAL)).transpose()?;
                let gid = d.gid.map(|id| ns.kgid(id).ok_or(Errno::EINVAL)).transpose()?;
                let set = kernel::vfs::SetAttr { uid, gid, ..Default::default() };
                p.inode()?.set_attr(&self.caller(), &set)?;
            }
        }
        Ok(())
    }

    fn make_readonly(&self, ns: &MountNamespace, path: &ByteString) -> Result<()> {
        let at = match self.find(ns, path.as_bytes()) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other?,
        };
        ns.bind(&at, &at, true)?;
        let over = self.find(ns, path.as_bytes())?;
        ns.change_mount_flags(&over, MountFlags::RDONLY, MountFlags::empty(), false)
    }

    fn mask(&self, ns: &MountNamespace, path: &ByteString) -> Result<()> {
        let at = match self.find(ns, path.as_bytes()) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other?,
        };
        let hidden = types::tmpfs(self.kernel, b"size=0,mode=755")?;
        if at.inode()?.file_type() == FileType::Directory {
            ns.mount(SuperBlock::new(hidden, true), &at, MountFlags::RDONLY, b"tmpfs")?;
            return Ok(());
        }
        // A null device of our own: what an image has at /dev/null does not matter.
        let args = kernel::vfs::CreateArgs {
            mode: FileType::CharDevice.mode_bits() | 0o666,
            uid: self.creds.fsuid,
            gid: self.creds.fsgid,
            rdev: makedev(1, 3),
        };
        let null = hidden.root().create(&self.caller(), b"null", &args)?;
        let only = SuperBlock::new(Arc::new(OneFile { of: hidden, file: null }), false);
        ns.mount(only, &at, MountFlags::empty(), b"tmpfs")?;
        Ok(())
    }
}

/// A file system of which just one file is shown, as its root.
struct OneFile {
    of: Arc<dyn FileSystem>,
    file: Arc<dyn Inode>,
}

impl FileSystem for OneFile {
    fn name(&self) -> &'static str {
        self.of.name()
    }
    fn dev(&self) -> u64 {
        self.of.dev()
    }
    fn flags(&self) -> FsFlags {
        self.of.flags()
    }
    fn root(&self) -> Arc<dyn Inode> {
        Arc::clone(&self.file)
    }
    fn statfs(&self) -> Result<StatFs> {
        self.of.statfs()
    }
}
