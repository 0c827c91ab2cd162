//! devpts: the file system of pseudoterminals, and the drivers of /dev/ptmx, /dev/tty, /dev/console and
//! /dev/pts/N (pts(4), tty(4)).

use crate::tty::{Master, Replica, Tty};
use abi::fcntl::OpenFlags;
use abi::stat::{FileType, StatFs, makedev};
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::task::{ControllingTty, Members};
use kernel::vfs::{
    Attr, Caller, DeviceDriver, DirSink, File, FileOps, FileSystem, FsFlags, Inode, InodeExtras, LookupFlags,
    Mount, Opened, Path, SetAttr, SetTime, Start, resolve,
};
use kernel::{Kernel, SysError};
use ksync::{LockClass, Mutex};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Inode numbers as Linux has them: the root, ptmx, then the terminals.
const ROOT_INO: u64 = 1;
const PTMX_INO: u64 = 2;
const FIRST_INO: u64 = 3;
/// `kernel.pty.max`
const MAX_TERMINALS: u32 = 4096;

#[derive(Clone, Copy, Debug)]
struct Options {
    uid: Option<u32>,
    gid: Option<u32>,
    mode: u32,
    ptmx_mode: u32,
    max: u32,
}

impl Options {
    fn parse(data: &[u8]) -> Result<Options> {
        let mut o = Options { uid: None, gid: None, mode: 0o600, ptmx_mode: 0, max: MAX_TERMINALS };
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let number = |radix| u32::from_str_radix(value, radix).map_err(|_| Errno::EINVAL);
            match name {
                "uid" => o.uid = Some(number(10)?),
                "gid" => o.gid = Some(number(10)?),
                "mode" => o.mode = number(8)? & 0o7777,
                "ptmxmode" => o.ptmx_mode = number(8)? & 0o7777,
                "max" => o.max = number(10)?.min(MAX_TERMINALS),
                "newinstance" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(o)
    }
}

/// One instance of the file system.
pub struct DevptsFs {
    me: Weak<DevptsFs>,
    dev: u64,
    options: Options,
    born: Timespec,
    terminals: Mutex<BTreeMap<u32, Arc<PtsInode>>>,
    ptmx: Mutex<Option<Arc<PtsInode>>>,
}

/// A new instance, for mount(2) and for boot.
pub fn mount(kernel: &Kernel, data: &[u8]) -> Result<Arc<DevptsFs>> {
    let options = Options::parse(data)?;
    Ok(Arc::new_cyclic(|me| DevptsFs {
        me: me.clone(),
        dev: kernel.vfs.new_dev(),
        options,
        born: kernel.clocks.now(),
        terminals: Mutex::new(LockClass::FileSystem, BTreeMap::new()),
        ptmx: Mutex::new(LockClass::FileSystem, None),
    }))
}

/// The instance that a path is in, if it is one of a terminal or of ptmx.
pub fn instance_of(path: &Path) -> Option<Arc<DevptsFs>> {
    node(path).map(|n| Arc::clone(&n.fs))
}

/// The instance beside a node of ptmx outside of any: what is mounted at `pts` in the same directory (as Linux'
/// devpts_mntget has it). ENOENT: nothing is there; ENODEV: something else.
fn beside(cx: &Caller<'_>, path: &Path) -> Result<Arc<DevptsFs>> {
    let dentry = path.dentry.parent().ok_or(Errno::ENOENT)?;
    let directory = Path { mount: Arc::clone(&path.mount), dentry };
    let find = |name| resolve(cx, Start::inside(&directory), name, LookupFlags::empty());
    find(b"pts")?;
    find(b"pts/ptmx").ok().and_then(|p| instance_of(&p)).ok_or(Errno::ENODEV)
}

impl DevptsFs {
    /// Makes a terminal with the lowest free number.
    pub fn create(&self, cx: &Caller<'_>) -> Result<Arc<Tty>> {
        let now = cx.task.map_or(self.born, |t| t.kernel().clocks.now());
        let me = self.me.upgrade().ok_or(Errno::ENODEV)?;
        let mut all = self.terminals.lock();
        let index = (0..self.options.max).find(|i| !all.contains_key(i)).ok_or(Errno::ENOSPC)?;
        let tty = Tty::new(index);
        let inode = PtsInode {
            fs: me,
            kind: Kind::Terminal(Arc::clone(&tty)),
            meta: Mutex::new(
                LockClass::Inode,
                Meta {
                    perm: self.options.mode,
                    uid: self.options.uid.unwrap_or(cx.creds.fsuid),
                    gid: self.options.gid.unwrap_or(cx.creds.fsgid),
                    times: [now; 3],
                },
            ),
            extras: InodeExtras::default(),
        };
        all.insert(index, Arc::new(inode));
        Ok(tty)
    }

    /// The terminal's name goes away.
    pub fn remove(&self, index: u32) {
        let gone = self.terminals.lock().remove(&index);
        drop(gone);
    }

    /// The path of a terminal on a mount of this instance; on an internal one if `mount` is of another file system.
    pub fn path_of(&self, index: u32, mount: &Arc<Mount>) -> Result<Path> {
        let inode = self.terminals.lock().get(&index).cloned().ok_or(Errno::EIO)?;
        let _ = mount;
        let me = self.me.upgrade().ok_or(Errno::EIO)?;
        let internal = Mount::internal(me);
        Ok(Path::nameless(&internal, inode, format!("/dev/pts/{index}").as_bytes()))
    }

    fn ptmx(&self) -> Result<Arc<PtsInode>> {
        let mut slot = self.ptmx.lock();
        if let Some(i) = &*slot {
            return Ok(Arc::clone(i));
        }
        let me = self.me.upgrade().ok_or(Errno::ENODEV)?;
        let meta = Meta { perm: self.options.ptmx_mode, uid: 0, gid: 0, times: [self.born; 3] };
        let new = Arc::new(PtsInode {
            fs: me,
            kind: Kind::Ptmx,
            meta: Mutex::new(LockClass::Inode, meta),
            extras: InodeExtras::default(),
        });
        *slot = Some(Arc::clone(&new));
        Ok(new)
    }
}

impl FileSystem for DevptsFs {
    fn name(&self) -> &'static str {
        "devpts"
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn flags(&self) -> FsFlags {
        FsFlags::NO_DCACHE
    }
    fn root(&self) -> Arc<dyn Inode> {
        let fs = self.me.upgrade();
        Arc::new(RootInode { fs, dev: self.dev, born: self.born, extras: InodeExtras::default() })
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { f_type: 0x1cd1, f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..StatFs::default() })
    }
    fn show_options(&self) -> String {
        let o = &self.options;
        let mut parts = Vec::new();
        if let Some(u) = o.uid {
            parts.push(format!("uid={u}"));
        }
        if let Some(g) = o.gid {
            parts.push(format!("gid={g}"));
        }
        parts.push(format!("mode={:03o}", o.mode));
        parts.push(format!("ptmxmode={:03o}", o.ptmx_mode));
        if o.max != MAX_TERMINALS {
            parts.push(format!("max={}", o.max));
        }
        parts.join(",")
    }
}

struct RootInode {
    fs: Option<Arc<DevptsFs>>,
    dev: u64,
    born: Timespec,
    extras: InodeExtras,
}

impl RootInode {
    fn fs(&self) -> Result<&Arc<DevptsFs>> {
        self.fs.as_ref().ok_or(Errno::ENOENT)
    }
}

/// Stands in for the file system of a root that outlived it.
struct Gone;

impl FileSystem for Gone {
    fn name(&self) -> &'static str {
        "devpts"
    }
    fn dev(&self) -> u64 {
        0
    }
    fn flags(&self) -> FsFlags {
        FsFlags::NO_DCACHE
    }
    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(RootInode { fs: None, dev: 0, born: Timespec::default(), extras: InodeExtras::default() })
    }
    fn statfs(&self) -> Result<StatFs> {
        Err(Errno::ENODEV)
    }
}

impl Inode for RootInode {
    fn fs(&self) -> &dyn FileSystem {
        match &self.fs {
            Some(f) => &**f,
            None => &Gone,
        }
    }
    fn file_type(&self) -> FileType {
        FileType::Directory
    }
    fn attr(&self) -> Result<Attr> {
        Ok(Attr {
            dev: self.dev,
            ino: ROOT_INO,
            mode: 0o040755,
            nlink: 2,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blksize: 1024,
            blocks: 0,
            atime: self.born,
            mtime: self.born,
            ctime: self.born,
            btime: None,
        })
    }
    fn set_attr(&self, _: &Caller<'_>, _: &SetAttr) -> Result<()> {
        Err(Errno::EPERM)
    }
    fn ino(&self) -> u64 {
        ROOT_INO
    }
    fn lookup(&self, _cx: &Caller<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let fs = self.fs()?;
        if name == b"ptmx" {
            return Ok(fs.ptmx()?);
        }
        let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let index: u32 = text.parse().map_err(|_| Errno::ENOENT)?;
        if text != index.to_string() {
            return Err(Errno::ENOENT);
        }
        let found = fs.terminals.lock().get(&index).cloned();
        found.map(|i| i as Arc<dyn Inode>).ok_or(Errno::ENOENT)
    }
    fn open(&self, _: &Caller<'_>, _: &Path, _: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(Directory(Arc::clone(self.fs()?))))
    }
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }
}

struct Directory(Arc<DevptsFs>);

impl FileOps for Directory {
    fn read(&self, _: &Caller<'_>, _: &File, _: &mut dyn kernel::io::Sink, _: &mut u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }
    fn readdir(&self, _cx: &Caller<'_>, _f: &File, pos: u64, sink: &mut dyn DirSink) -> Result<()> {
        let mut entries: Vec<(u64, u64, FileType, Vec<u8>)> = vec![
            (0, ROOT_INO, FileType::Directory, b".".to_vec()),
            (1, ROOT_INO, FileType::Directory, b"..".to_vec()),
            (2, PTMX_INO, FileType::CharDevice, b"ptmx".to_vec()),
        ];
        for i in self.0.terminals.lock().keys() {
            let at = u64::from(*i);
            entries.push((at + 3, at + FIRST_INO, FileType::CharDevice, i.to_string().into_bytes()));
        }
        for (at, ino, kind, name) in entries {
            if at >= pos && !sink.entry(ino, at + 1, kind, &name) {
                break;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Meta {
    perm: u32,
    uid: u32,
    gid: u32,
    times: [Timespec; 3],
}

enum Kind {
    Ptmx,
    Terminal(Arc<Tty>),
}

/// A node of the file system.
pub struct PtsInode {
    fs: Arc<DevptsFs>,
    kind: Kind,
    meta: Mutex<Meta>,
    extras: InodeExtras,
}

impl Inode for PtsInode {
    fn fs(&self) -> &dyn FileSystem {
        &*self.fs
    }
    fn file_type(&self) -> FileType {
        FileType::CharDevice
    }
    fn attr(&self) -> Result<Attr> {
        let m = *self.meta.lock();
        let rdev = match &self.kind {
            Kind::Ptmx => makedev(crate::dev::majors::TTY_AUX, 2),
            Kind::Terminal(t) => t.rdev(),
        };
        Ok(Attr {
            dev: self.fs.dev,
            ino: self.ino(),
            mode: FileType::CharDevice.mode_bits() | m.perm,
            nlink: 1,
            uid: m.uid,
            gid: m.gid,
            rdev,
            size: 0,
            blksize: 1024,
            blocks: 0,
            atime: m.times[0],
            mtime: m.times[1],
            ctime: m.times[2],
            btime: None,
        })
    }
    fn set_attr(&self, cx: &Caller<'_>, set: &SetAttr) -> Result<()> {
        let now = cx.task.map(|t| t.kernel().clocks.now());
        let mut m = self.meta.lock();
        m.perm = set.mode.unwrap_or(m.perm);
        m.uid = set.uid.unwrap_or(m.uid);
        m.gid = set.gid.unwrap_or(m.gid);
        for (i, time) in [set.atime, set.mtime].into_iter().enumerate() {
            match time {
                Some(SetTime::At(t)) => m.times[i] = t,
                Some(SetTime::Now) => m.times[i] = now.unwrap_or(m.times[i]),
                None => {}
            }
        }
        m.times[2] = now.unwrap_or(m.times[2]);
        Ok(())
    }
    fn ino(&self) -> u64 {
        match &self.kind {
            Kind::Ptmx => PTMX_INO,
            Kind::Terminal(t) => FIRST_INO + u64::from(t.index),
        }
    }
    fn open(&self, _: &Caller<'_>, _: &Path, _: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }
}

fn node(path: &Path) -> Option<&PtsInode> {
    let inode: &Arc<dyn Inode> = path.dentry.inode()?;
    let any: &dyn Any = &**inode;
    any.downcast_ref()
}

/// The driver of major 136: terminals.
pub struct Terminals;

impl DeviceDriver for Terminals {
    fn open(
        &self,
        cx: &Caller<'_>,
        path: &Path,
        _minor: u32,
        flags: OpenFlags,
    ) -> std::result::Result<Opened, SysError> {
        let tty = match node(path) {
            Some(PtsInode { kind: Kind::Terminal(t), .. }) => Arc::clone(t),
            // A node elsewhere names no terminal, since each instance counts from 0.
            _ => return Err(Errno::EIO.into()),
        };
        Ok(Opened::Ops(Replica::open(&tty, cx, flags)?))
    }
}

/// The terminal that each container's first process with one was given, for /dev/console.
pub struct Console(Mutex<Vec<(Weak<Members>, Weak<Tty>)>>);

impl Console {
    /// That of a kernel.
    pub fn of(kernel: &Kernel) -> Arc<Console> {
        kernel.extensions.get_or_init(|| Console(Mutex::new(LockClass::Leaf, Vec::new())))
    }
    /// Sets that of a container, if it has none yet.
    pub fn offer(&self, container: &Arc<Members>, tty: &Arc<Tty>) {
        let mut list = self.0.lock();
        list.retain(|(_, t)| t.strong_count() > 0);
        if !list.iter().any(|(m, _)| m.as_ptr() == Arc::as_ptr(container)) {
            list.push((Arc::downgrade(container), Arc::downgrade(tty)));
        }
    }
    fn get(&self, container: &Arc<Members>) -> Option<Arc<Tty>> {
        let list = self.0.lock();
        list.iter().find(|(m, _)| m.as_ptr() == Arc::as_ptr(container)).and_then(|(_, t)| t.upgrade())
    }
}

/// The driver of major 5: /dev/tty, /dev/console, /dev/ptmx.
pub struct Auxiliary;

impl DeviceDriver for Auxiliary {
    fn open(
        &self,
        cx: &Caller<'_>,
        path: &Path,
        minor: u32,
        flags: OpenFlags,
    ) -> std::result::Result<Opened, SysError> {
        let task = cx.task.ok_or(Errno::ENXIO)?;
        match minor {
            0 => {
                let tty = task.group().tty().ok_or(Errno::ENXIO)?;
                let any: Arc<dyn Any + Send + Sync> = tty;
                let tty: Arc<Tty> = any.downcast().map_err(|_| Errno::ENXIO)?;
                Ok(Opened::Ops(Replica::open(&tty, cx, flags | OpenFlags::NOCTTY)?))
            }
            1 => {
                let tty = Console::of(task.kernel()).get(task.group().members()).ok_or(Errno::ENXIO)?;
                Ok(Opened::Ops(Replica::open(&tty, cx, flags | OpenFlags::NOCTTY)?))
            }
            2 => {
                let instance = match node(path) {
                    Some(n) => Arc::clone(&n.fs),
                    None => beside(cx, path)?,
                };
                let tty = instance.create(cx)?;
                Ok(Opened::Ops(Master::new(tty, instance)))
            }
            _ => Err(Errno::ENXIO.into()),
        }
    }
}
