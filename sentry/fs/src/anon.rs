//! Files without names: the inodes and paths of pipes, sockets, eventfds and their kin.
//!
//! Linux keeps them on three internal file systems (pipefs, sockfs, anon_inodefs); so do we, because
//! their device and inode numbers can be seen by fstat(2) and in /proc/pid/fd.

use abi::fcntl::OpenFlags;
use abi::stat::{FileType, StatFs, makedev};
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::Kernel;
use kernel::creds::Creds;
use kernel::vfs::{
    Attr, Caller, Dentry, File, FileOps, FileSystem, FsFlags, Inode, InodeExtras, Mount, Path, SetAttr,
    SetTime,
};
use ksync::{LockClass, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// One of the internal file systems.
struct AnonFs {
    me: Weak<AnonFs>,
    name: &'static str,
    dev: u64,
    magic: i64,
    next_ino: AtomicU64,
}

impl FileSystem for AnonFs {
    fn name(&self) -> &'static str {
        self.name
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn flags(&self) -> FsFlags {
        FsFlags::NODEV | FsFlags::NOEXEC | FsFlags::NOSUID
    }
    fn root(&self) -> Arc<dyn Inode> {
        let fs = self.me.upgrade().unwrap_or_else(|| AnonFs::make(self.name, self.dev, self.magic));
        Arc::new(AnonInode::new(fs, 1, 0o040555, None))
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { f_type: self.magic, f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..StatFs::default() })
    }
}

/// The first number: netstat(8) of net-tools finds the owners of sockets only by numbers of two digits and more.
const FIRST_INO: u64 = 1000;

impl AnonFs {
    fn make(name: &'static str, dev: u64, magic: i64) -> Arc<AnonFs> {
        Arc::new_cyclic(|me| AnonFs { me: me.clone(), name, dev, magic, next_ino: AtomicU64::new(FIRST_INO) })
    }
}

#[derive(Clone, Copy)]
struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    atime: Timespec,
    mtime: Timespec,
    ctime: Timespec,
}

/// What is behind an inode without a name that can be opened again through /proc/pid/fd: a descriptor of the host.
pub trait Donated: Send + Sync {
    fn attr(&self) -> Result<Attr>;
    fn open(&self, flags: OpenFlags) -> Result<Arc<dyn FileOps>>;
    fn set_len(&self, len: u64) -> Result<()>;
}

/// An inode that is in no directory. Most cannot be opened by themselves: the open file is made with it.
struct AnonInode {
    fs: Arc<AnonFs>,
    ino: u64,
    meta: Mutex<Meta>,
    extras: InodeExtras,
    /// anon_inodes are shared by all their files and refuse changes.
    fixed: bool,
    donated: Option<Arc<dyn Donated>>,
}

impl AnonInode {
    fn new(fs: Arc<AnonFs>, ino: u64, mode: u32, made: Option<(&Kernel, &Creds)>) -> AnonInode {
        let now = made.map_or(Timespec::default(), |(k, _)| k.clocks.now());
        let meta = Meta {
            mode,
            uid: made.map_or(0, |(_, c)| c.fsuid),
            gid: made.map_or(0, |(_, c)| c.fsgid),
            atime: now,
            mtime: now,
            ctime: now,
        };
        AnonInode {
            fs,
            ino,
            meta: Mutex::new(LockClass::Inode, meta),
            extras: InodeExtras::default(),
            fixed: made.is_none(),
            donated: None,
        }
    }
}

impl Inode for AnonInode {
    fn fs(&self) -> &dyn FileSystem {
        &*self.fs
    }
    fn file_type(&self) -> FileType {
        if self.donated.is_some() {
            // Whatever it is on the host: no driver of ours is asked to open it.
            return FileType::Regular;
        }
        FileType::from_mode(self.meta.lock().mode).unwrap_or(FileType::Regular)
    }
    fn attr(&self) -> Result<Attr> {
        let m = *self.meta.lock();
        if let Some(d) = &self.donated {
            let real = d.attr()?;
            let perm = if m.mode == 0 { real.mode } else { real.mode & abi::stat::mode::S_IFMT | m.mode };
            return Ok(Attr { dev: self.fs.dev, ino: self.ino, mode: perm, uid: m.uid, gid: m.gid, ..real });
        }
        Ok(Attr {
            dev: self.fs.dev,
            ino: self.ino,
            mode: m.mode,
            nlink: 1,
            uid: m.uid,
            gid: m.gid,
            rdev: 0,
            size: 0,
            blksize: 4096,
            blocks: 0,
            atime: m.atime,
            mtime: m.mtime,
            ctime: m.ctime,
            btime: None,
        })
    }
    fn set_attr(&self, cx: &Caller<'_>, set: &SetAttr) -> Result<()> {
        if self.fixed {
            return Err(Errno::EOPNOTSUPP);
        }
        let now = cx.task.map(|t| t.kernel().clocks.now());
        if let (Some(d), Some(len)) = (&self.donated, set.size) {
            d.set_len(len)?;
        }
        let mut m = self.meta.lock();
        if let Some(mode) = set.mode {
            m.mode = (m.mode & abi::stat::mode::S_IFMT) | (mode & abi::stat::mode::PERM);
        }
        m.uid = set.uid.unwrap_or(m.uid);
        m.gid = set.gid.unwrap_or(m.gid);
        let time = |old: Timespec, set: Option<SetTime>| match set {
            None => old,
            Some(SetTime::At(t)) => t,
            Some(SetTime::Now) => now.unwrap_or(old),
        };
        m.atime = time(m.atime, set.atime);
        m.mtime = time(m.mtime, set.mtime);
        m.ctime = now.unwrap_or(m.ctime);
        Ok(())
    }
    fn ino(&self) -> u64 {
        self.ino
    }
    fn open(&self, _cx: &Caller<'_>, _path: &Path, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        self.donated.as_ref().ok_or(Errno::ENXIO)?.open(flags)
    }
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }
}

/// The internal mounts of a sandbox.
struct AnonMounts {
    pipes: (Arc<AnonFs>, Arc<Mount>),
    sockets: (Arc<AnonFs>, Arc<Mount>),
    others: (Arc<AnonFs>, Arc<Mount>),
    /// The one inode of everything on anon_inodefs.
    other: Arc<AnonInode>,
}

impl AnonMounts {
    fn of(kernel: &Kernel) -> Arc<AnonMounts> {
        kernel.extensions.get_or_init(|| {
            let mount = |name, minor, magic| {
                let fs = AnonFs::make(name, makedev(0, minor), magic);
                (fs.clone(), Mount::internal(fs))
            };
            let others = mount("anon_inodefs", 15, 0x0904_1934);
            let other = Arc::new(AnonInode::new(others.0.clone(), 1, 0o600, None));
            AnonMounts {
                pipes: mount("pipefs", 14, 0x5049_5045),
                sockets: mount("sockfs", 8, 0x534f_434b),
                others,
                other,
            }
        })
    }
}

/// A new path for the two ends of a pipe, `pipe:[N]`.
pub fn pipe_path(kernel: &Kernel, creds: &Creds) -> Path {
    let mounts = AnonMounts::of(kernel);
    numbered(kernel, creds, &mounts.pipes, 0o010600, "pipe")
}

/// A new path for a socket, `socket:[N]`.
pub fn socket_path(kernel: &Kernel, creds: &Creds) -> Path {
    let mounts = AnonMounts::of(kernel);
    numbered(kernel, creds, &mounts.sockets, 0o140777, "socket")
}

/// As many numbers were given to sockets; each is smaller.
pub fn sockets_given(kernel: &Kernel) -> u64 {
    AnonMounts::of(kernel).sockets.0.next_ino.load(Ordering::Relaxed)
}

fn numbered(
    kernel: &Kernel,
    creds: &Creds,
    (fs, mount): &(Arc<AnonFs>, Arc<Mount>),
    mode: u32,
    what: &str,
) -> Path {
    let ino = fs.next_ino.fetch_add(1, Ordering::Relaxed);
    let inode = Arc::new(AnonInode::new(fs.clone(), ino, mode, Some((kernel, creds))));
    let text = format!("{what}:[{ino}]");
    Path { mount: mount.clone(), dentry: Dentry::nameless(inode, text.as_bytes()) }
}

/// The path of everything else, e.g. `anon_inode:[eventfd]`: `name` comes with its brackets if it has any.
pub fn other_path(kernel: &Kernel, name: &str) -> Path {
    let mounts = AnonMounts::of(kernel);
    let text = format!("anon_inode:{name}");
    Path { mount: mounts.others.1.clone(), dentry: Dentry::nameless(mounts.other.clone(), text.as_bytes()) }
}

/// The path of a descriptor of the host, `host:[N]`, owned by `creds`.
pub fn donated_path(kernel: &Kernel, creds: &Creds, donated: Arc<dyn Donated>) -> Path {
    let mounts = AnonMounts::of(kernel);
    let (fs, mount) = &mounts.others;
    let ino = fs.next_ino.fetch_add(1, Ordering::Relaxed);
    let mut inode = AnonInode::new(fs.clone(), ino, 0, Some((kernel, creds)));
    inode.donated = Some(donated);
    Path {
        mount: mount.clone(),
        dentry: Dentry::nameless(Arc::new(inode), format!("host:[{ino}]").as_bytes()),
    }
}

/// An open file on [`other_path`].
pub fn other_file(
    kernel: &Kernel,
    name: &str,
    ops: Arc<dyn FileOps>,
    flags: OpenFlags,
    creds: Arc<Creds>,
) -> Arc<File> {
    File::new(ops, other_path(kernel, name), flags, creds)
}
