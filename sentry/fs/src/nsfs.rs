//! nsfs: the files that stand for namespaces (namespaces(7), ioctl_ns(2)).

use abi::fcntl::OpenFlags;
use abi::stat::{FileType, StatFs};
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::creds::UserNamespace;
use kernel::task::{IpcNamespace, NsKind, OtherNamespace, PidNamespace, TimeNamespace, UtsNamespace};
use kernel::uaccess::UserPtr;
use kernel::vfs::{
    Attr, Caller, Dentry, File, FileOps, FileSystem, FsFlags, Inode, InodeExtras, LinkTarget, Mount,
    MountNamespace, Path, SetAttr,
};
use kernel::{SysError, Task};
use std::sync::Arc;

/// `NSFS_MAGIC`
const MAGIC: i64 = 0x6e73_6673;

const NS_GET_USERNS: u32 = 0xb701;
const NS_GET_PARENT: u32 = 0xb702;
const NS_GET_NSTYPE: u32 = 0xb703;
const NS_GET_OWNER_UID: u32 = 0xb704;

/// A namespace of any kind.
#[derive(Clone)]
pub enum Namespace {
    Uts(Arc<UtsNamespace>),
    Ipc(Arc<IpcNamespace>),
    Mnt(Arc<MountNamespace>),
    Net(Arc<OtherNamespace>),
    Cgroup(Arc<OtherNamespace>),
    Time(Arc<TimeNamespace>),
    Pid(Arc<PidNamespace>),
    User(Arc<UserNamespace>),
}

impl Namespace {
    /// The number in its name; also the inode number.
    pub fn id(&self) -> u64 {
        match self {
            Namespace::Uts(n) => n.id,
            Namespace::Ipc(n) => n.id,
            Namespace::Mnt(n) => n.id,
            Namespace::Net(n) | Namespace::Cgroup(n) => n.id,
            Namespace::Time(n) => n.id,
            Namespace::Pid(n) => n.id,
            Namespace::User(n) => n.id,
        }
    }

    /// The kind, as setns(2) checks it.
    pub fn kind(&self) -> NsKind {
        match self {
            Namespace::Uts(_) => NsKind::Uts,
            Namespace::Ipc(_) => NsKind::Ipc,
            Namespace::Mnt(_) => NsKind::Mnt,
            Namespace::Net(_) => NsKind::Net,
            Namespace::Cgroup(_) => NsKind::Cgroup,
            Namespace::Time(_) => NsKind::Time,
            Namespace::Pid(_) => NsKind::Pid,
            Namespace::User(_) => NsKind::User,
        }
    }

    /// The user namespace that owns it; of a user namespace, its parent.
    pub fn owner(&self) -> Option<Arc<UserNamespace>> {
        Some(match self {
            Namespace::Uts(n) => Arc::clone(&n.user_ns),
            Namespace::Ipc(n) => Arc::clone(&n.user_ns),
            Namespace::Mnt(n) => Arc::clone(&n.owner),
            Namespace::Net(n) | Namespace::Cgroup(n) => Arc::clone(&n.user_ns),
            Namespace::Time(n) => Arc::clone(&n.user_ns),
            Namespace::Pid(n) => Arc::clone(&n.user_ns),
            Namespace::User(n) => return n.parent.clone(),
        })
    }

    fn name(&self) -> String {
        let kind = match self {
            Namespace::Uts(_) => "uts",
            Namespace::Ipc(_) => "ipc",
            Namespace::Mnt(_) => "mnt",
            Namespace::Net(_) => "net",
            Namespace::Cgroup(_) => "cgroup",
            Namespace::Time(_) => "time",
            Namespace::Pid(_) => "pid",
            Namespace::User(_) => "user",
        };
        format!("{kind}:[{}]", self.id())
    }
}

struct NsFs {
    dev: u64,
}

impl FileSystem for NsFs {
    fn name(&self) -> &'static str {
        "nsfs"
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn flags(&self) -> FsFlags {
        FsFlags::NOEXEC | FsFlags::NOSUID | FsFlags::NODEV
    }
    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(NsInode { fs: Arc::new(NsFs { dev: self.dev }), of: None, extras: InodeExtras::default() })
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { f_type: MAGIC, f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..StatFs::default() })
    }
}

/// The sandbox' one instance.
struct Instance {
    fs: Arc<NsFs>,
    mount: Arc<Mount>,
}

struct NsInode {
    fs: Arc<NsFs>,
    /// `None`: the root directory, which nobody reaches.
    of: Option<Namespace>,
    extras: InodeExtras,
}

impl Inode for NsInode {
    fn fs(&self) -> &dyn FileSystem {
        &*self.fs
    }
    fn file_type(&self) -> FileType {
        if self.of.is_some() { FileType::Regular } else { FileType::Directory }
    }
    fn ino(&self) -> u64 {
        self.of.as_ref().map_or(1, Namespace::id)
    }
    fn attr(&self) -> Result<Attr> {
        let zero = Timespec::default();
        Ok(Attr {
            dev: self.fs.dev,
            ino: self.ino(),
            mode: self.file_type().mode_bits() | 0o444,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blksize: 4096,
            blocks: 0,
            atime: zero,
            mtime: zero,
            ctime: zero,
            btime: None,
        })
    }
    fn set_attr(&self, _cx: &Caller<'_>, _set: &SetAttr) -> Result<()> {
        Err(Errno::EPERM)
    }
    fn open(&self, _cx: &Caller<'_>, _path: &Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        if flags.can_write() {
            return Err(Errno::EPERM);
        }
        let of = self.of.clone().ok_or(Errno::EISDIR)?;
        Ok(Arc::new(NsFile { of }))
    }
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }
}

/// An open namespace file.
pub struct NsFile {
    of: Namespace,
}

impl NsFile {
    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.of
    }
}

/// The place of a namespace's file.
pub fn path(task: &Task, of: Namespace) -> Path {
    let instance = task.kernel().extensions.get_or_init(|| {
        let fs = Arc::new(NsFs { dev: task.kernel().vfs.new_dev() });
        let mount = Mount::internal(Arc::clone(&fs) as Arc<dyn FileSystem>);
        Instance { fs, mount }
    });
    let name = of.name();
    let inode =
        Arc::new(NsInode { fs: Arc::clone(&instance.fs), of: Some(of), extras: InodeExtras::default() });
    Path { mount: Arc::clone(&instance.mount), dentry: Dentry::nameless(inode, name.as_bytes()) }
}

/// What a link of /proc/PID/ns leads to; `children` for the `*_for_children` ones.
pub fn link(task: &Task, kind: NsKind, children: bool) -> Result<LinkTarget> {
    let n = task.namespaces();
    let of = match kind {
        NsKind::Uts => Namespace::Uts(Arc::clone(&n.uts)),
        NsKind::Ipc => Namespace::Ipc(Arc::clone(&n.ipc)),
        NsKind::Mnt => Namespace::Mnt(Arc::clone(&n.mnt)),
        NsKind::Net => Namespace::Net(Arc::clone(&n.net)),
        NsKind::Cgroup => Namespace::Cgroup(Arc::clone(&n.cgroup)),
        NsKind::Time if children => Namespace::Time(Arc::clone(&n.time_for_children)),
        NsKind::Time => Namespace::Time(Arc::clone(&n.time)),
        NsKind::Pid if children => Namespace::Pid(Arc::clone(&n.pid_for_children)),
        NsKind::Pid => Namespace::Pid(task.pid_ns()),
        NsKind::User => Namespace::User(Arc::clone(&task.creds().user_ns)),
    };
    Ok(LinkTarget::Jump(path(task, of)))
}

impl FileOps for NsFile {
    fn ioctl(&self, task: &Task, _f: &File, cmd: u32, arg: u64) -> std::result::Result<u64, SysError> {
        let open = |of: Namespace| -> std::result::Result<u64, SysError> {
            let place = path(task, of.clone());
            let file = File::new(Arc::new(NsFile { of }), place, OpenFlags::empty(), task.creds());
            let limit = task.group().soft_limit(abi::resource::Resource::Nofile);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let fd = task.files().install(file, true, 0, limit)?;
            u64::try_from(fd.0).map_err(|_| Errno::EMFILE.into())
        };
        match cmd {
            NS_GET_USERNS => open(Namespace::User(self.of.owner().ok_or(Errno::EPERM)?)),
            NS_GET_PARENT => match &self.of {
                Namespace::User(n) => open(Namespace::User(n.parent.clone().ok_or(Errno::EPERM)?)),
                Namespace::Pid(n) => open(Namespace::Pid(n.parent.clone().ok_or(Errno::EPERM)?)),
                _ => Err(Errno::EINVAL.into()),
            },
            NS_GET_NSTYPE => Ok(u64::from(self.of.kind() as u32)),
            NS_GET_OWNER_UID => match &self.of {
                Namespace::User(n) => {
                    let uid = task.creds().user_ns.uid_in(n.owner_uid);
                    UserPtr::<u32>::new(arg).write(&task.mm(), &uid)?;
                    Ok(0)
                }
                _ => Err(Errno::EINVAL.into()),
            },
            _ => Err(Errno::ENOTTY.into()),
        }
    }
}
