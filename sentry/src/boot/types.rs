//! The types of file systems that a guest can mount, and how each is made.

use abi::stat::FileType;
use abi::{Errno, Result};
use kernel::Kernel;
use kernel::creds::Creds;
use kernel::io::SliceSource;
use kernel::task::{IpcNamespace, PidNamespace};
use kernel::vfs::{
    Caller, CreateArgs, DirSink, FileSystem, FsType, Inode, LinkTarget, Path, SetAttr, SetTime, child,
    open_path,
};
use std::sync::Arc;

/// What a file system is made from.
pub struct TypeArgs<'a> {
    pub kernel: &'a Arc<Kernel>,
    pub pid_ns: &'a Arc<PidNamespace>,
    pub ipc: &'a IpcNamespace,
    pub creds: &'a Arc<Creds>,
    pub data: &'a [u8],
}

/// Name, and whether the root of a user namespace may mount it.
const TYPES: &[(&str, bool)] = &[
    ("tmpfs", true),
    ("ramfs", false),
    ("devtmpfs", false),
    ("proc", true),
    ("sysfs", true),
    ("devpts", true),
    ("mqueue", true),
    ("cgroup2", true),
];

/// A tmpfs with the options of tmpfs(5).
pub fn tmpfs(kernel: &Arc<Kernel>, data: &[u8]) -> Result<Arc<dyn FileSystem>> {
    let fs: Arc<dyn FileSystem> = fs::tmpfs::TmpFs::mount(kernel, data)?;
    Ok(fs)
}

/// Makes a file system of a type.
pub fn make(name: &str, a: &TypeArgs<'_>) -> Result<Arc<dyn FileSystem>> {
    let k = a.kernel;
    let now = k.clocks.now();
    Ok(match name {
        "tmpfs" | "ramfs" | "devtmpfs" => fs::tmpfs::TmpFs::mount_for(k, a.data, a.creds)?,
        "proc" => fs::proc::new(k.vfs.new_dev(), now, Arc::clone(a.pid_ns)),
        "sysfs" => fs::sysfs::new(k.vfs.new_dev(), now, k.machine.cpus()),
        "devpts" => fs::devpts::mount(k, a.data)?,
        "mqueue" => Arc::clone(&fs::mqueue::MqNamespace::of(k, a.ipc).fs) as Arc<dyn FileSystem>,
        "cgroup2" => fs::cgroup::mount(k),
        _ => return Err(Errno::ENODEV),
    })
}

struct Mountable(&'static str, bool);

impl FsType for Mountable {
    fn name(&self) -> &'static str {
        self.0
    }
    fn in_user_ns(&self) -> bool {
        self.1
    }
    fn make(&self, cx: &Caller<'_>, _source: &[u8], options: &[u8]) -> Result<Arc<dyn FileSystem>> {
        let task = cx.task.ok_or(Errno::EPERM)?;
        let pid_ns = task.pid_ns();
        let (namespaces, creds) = (task.namespaces(), cx.creds);
        let ipc = &namespaces.ipc;
        make(self.0, &TypeArgs { kernel: task.kernel(), pid_ns: &pid_ns, ipc, creds, data: options })
    }
}

/// Makes all types known to mount(2).
pub fn register(kernel: &Kernel) {
    for (name, in_user_ns) in TYPES {
        kernel.vfs.register_type(Arc::new(Mountable(name, *in_user_ns)));
    }
}

struct Names(Vec<(FileType, Vec<u8>, u64)>);

impl DirSink for Names {
    fn entry(&mut self, _ino: u64, next: u64, kind: FileType, name: &[u8]) -> bool {
        self.0.push((kind, name.to_vec(), next));
        self.0.len() < 512
    }
}

/// Bytes copied in one step.
const STEP: usize = 256 * 1024;

/// Copies what is below a directory into a fresh file system (the option tmpcopyup).
pub fn copy_tree(cx: &Caller<'_>, from: &Path, to: &Arc<dyn Inode>) -> Result<()> {
    let dir = open_path(cx, from, abi::fcntl::OpenFlags::DIRECTORY).map_err(|_| Errno::EIO)?;
    let mut pos = 0;
    loop {
        let mut names = Names(Vec::new());
        dir.ops().readdir(cx, &dir, pos, &mut names)?;
        let Some(last) = names.0.last() else { return Ok(()) };
        pos = last.2;
        for (_, name, _) in names.0.iter().filter(|n| n.1 != b"." && n.1 != b"..") {
            copy_entry(cx, from, to, name)?;
        }
    }
}

fn copy_entry(cx: &Caller<'_>, dir: &Path, to: &Arc<dyn Inode>, name: &[u8]) -> Result<()> {
    let dentry = child(cx, dir, name)?;
    let source = Path { mount: Arc::clone(&dir.mount), dentry };
    let inode = source.inode()?;
    let attr = inode.attr()?;
    let args = CreateArgs { mode: attr.mode, uid: attr.uid, gid: attr.gid, rdev: attr.rdev };
    let new = match attr.file_type() {
        FileType::Directory => {
            let new = to.mkdir(cx, name, &args)?;
            copy_tree(cx, &source, &new)?;
            new
        }
        FileType::Symlink => match inode.readlink(cx)? {
            LinkTarget::Text(t) => to.symlink(cx, name, &t, &args)?,
            LinkTarget::Jump(_) => return Ok(()),
        },
        FileType::Regular => {
            let new = to.create(cx, name, &args)?;
            copy_data(cx, &source, &new, &dir.mount)?;
            new
        }
        _ => to.create(cx, name, &args)?,
    };
    let set = SetAttr {
        atime: Some(SetTime::At(attr.atime)),
        mtime: Some(SetTime::At(attr.mtime)),
        ..SetAttr::default()
    };
    new.set_attr(cx, &set)
}

fn copy_data(
    cx: &Caller<'_>,
    from: &Path,
    to: &Arc<dyn Inode>,
    mount: &Arc<kernel::vfs::Mount>,
) -> Result<()> {
    use abi::fcntl::OpenFlags;
    let source = open_path(cx, from, OpenFlags::empty()).map_err(|_| Errno::EIO)?;
    let place =
        Path { mount: Arc::clone(mount), dentry: kernel::vfs::Dentry::nameless(Arc::clone(to), b"copy") };
    let ops = to.open(cx, &place, OpenFlags::WRONLY)?;
    let target = kernel::vfs::File::new(ops, place, OpenFlags::WRONLY, Arc::clone(cx.creds));
    let mut buf = vec![0; STEP];
    let (mut at, mut out) = (0, 0);
    loop {
        let n = source.ops().read(cx, &source, &mut kernel::io::SliceSink::new(&mut buf), &mut at)?;
        if n == 0 {
            return Ok(());
        }
        let mut data = SliceSource::new(&mut buf[..n]);
        while kernel::io::Source::remaining(&data) > 0 {
            if target.ops().write(cx, &target, &mut data, &mut out)? == 0 {
                return Err(Errno::EIO);
            }
        }
    }
}
