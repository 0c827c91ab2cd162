//! The same calls give the same results on tmpfs, on the overlay (above a tree of the host that is filled in the same way) and
//! on directories of the host through the gofer, exclusive and shared.

use std::fmt::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path as HostPath;
use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::time::Timespec;
use abi::{Errno, Result};
use fs::gofer::{AttachOptions, Connection, GoferFs, Sharing};
use fs::overlay::OverlayFs;
use fs::tmpfs::{Options, TmpFs};
use gofer::{GoferConfig, MountConfig, MountRoot};
use kernel::creds::{Creds, UserNamespace};
use kernel::io::{SliceSink, SliceSource};
use kernel::vfs::change::{New, link, make, rename, rmdir, unlink};
use kernel::vfs::{
    Caller, DirSink, File, FileSystem, LinkTarget, LookupFlags, MountFlags, MountNamespace, OpenHow, Parent,
    Path, RenameFlags, SetTime, Start, SuperBlock, XattrFlags, open, resolve, resolve_parent, rw, setattr,
    xattr,
};
use kernel::{Kernel, SysError};
use platform::hostsys::socket;
use platform::mock::{MockPlatform, Step};
use platform::{MemoryFile, Trap};

struct World {
    name: &'static str,
    _kernel: Arc<Kernel>,
    ns: Arc<MountNamespace>,
    creds: Arc<Creds>,
    files: Vec<Option<Arc<File>>>,
    _dirs: Vec<tempfile::TempDir>,
}

fn populate(path: &HostPath) {
    std::fs::create_dir_all(path.join("d/sub/deep")).expect("mkdir");
    std::fs::write(path.join("d/file"), "from below").expect("write");
    std::fs::write(path.join("d/sub/other"), "other").expect("write");
    std::fs::hard_link(path.join("d/file"), path.join("l")).expect("link");
    symlink("d/file", path.join("s")).expect("symlink");
    symlink("../a", path.join("d/up")).expect("symlink");
    let set = |name: &str, mode| {
        std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    for (name, mode) in [
        (".", 0o755),
        ("d", 0o755),
        ("d/sub", 0o755),
        ("d/sub/deep", 0o755),
        ("d/file", 0o644),
        ("d/sub/other", 0o644),
    ] {
        set(name, mode);
    }
}

fn attach(paths: &[(&HostPath, Sharing, bool)]) -> Vec<Arc<GoferFs>> {
    let (ours, theirs) = socket::seqpacket_pair().expect("socketpair");
    let mounts = paths.iter().map(|(path, _, readonly)| MountConfig {
        root: MountRoot::Directory(std::fs::File::open(path).expect("open").into()),
        readonly: *readonly,
        allow_devices: false,
    });
    let mounts = mounts.collect();
    std::thread::spawn(move || gofer::serve(GoferConfig { mounts, socket: theirs, confinement: None }));
    let connection = Arc::new(Connection::new(ours));
    let fs = paths.iter().enumerate().map(|(index, (_, sharing, _))| {
        let mount = u32::try_from(index).expect("index");
        let options =
            AttachOptions { mount, sharing: *sharing, dev: 50 + u64::from(mount), source: "x".into() };
        GoferFs::attach(connection.clone(), options).expect("attach")
    });
    fs.collect()
}

fn worlds() -> Vec<World> {
    ["tmpfs", "overlay", "exclusive", "shared"].into_iter().map(World::new).collect()
}

impl World {
    fn new(name: &'static str) -> World {
        let mock = MockPlatform::new(|_| Step::Trap(Trap::Dead));
        let kernel = Kernel::new(mock, MemoryFile::new().expect("memory file"), platform::Machine::read());
        let user_ns = UserNamespace::root();
        let creds = Arc::new(Creds::root(user_ns.clone()));
        let tmpfs = || TmpFs::new(&kernel, Options::parse(b"").expect("options"));
        let dir = tempfile::tempdir().expect("tempdir");
        populate(dir.path());
        let fs: Arc<dyn FileSystem> = match name {
            "tmpfs" => tmpfs(),
            "overlay" => {
                let lower = attach(&[(dir.path(), Sharing::Exclusive, true)]).remove(0);
                OverlayFs::new(lower, tmpfs(), 99, creds.clone())
            }
            "exclusive" => attach(&[(dir.path(), Sharing::Exclusive, false)]).remove(0),
            _ => attach(&[(dir.path(), Sharing::Shared, false)]).remove(0),
        };
        let sb = SuperBlock::new(fs, false);
        let ns = kernel.vfs.mounts.new_namespace(user_ns, sb, MountFlags::RELATIME, b"test");
        let world =
            World { name, _kernel: kernel, ns, creds, files: vec![None, None, None], _dirs: vec![dir] };
        if name == "tmpfs" {
            world.populate();
        }
        world
    }

    fn populate(&self) {
        for dir in ["d", "d/sub", "d/sub/deep"] {
            make(&self.cx(), &self.parent(dir).expect("parent"), &New::Directory { mode: 0o755 })
                .expect("mkdir");
        }
        for (name, text) in [("d/file", &b"from below"[..]), ("d/sub/other", b"other")] {
            let file = self.open(name, OpenFlags::CREAT | OpenFlags::RDWR, 0o644).expect("create");
            self.write(&file, 0, text).expect("write");
        }
        link(&self.cx(), &self.at("d/file", false).expect("file"), &self.parent("l").expect("parent"))
            .expect("link");
        for (name, target) in [("s", &b"d/file"[..]), ("d/up", b"../a")] {
            make(&self.cx(), &self.parent(name).expect("parent"), &New::Symlink { target }).expect("symlink");
        }
        setattr::chmod(&self.cx(), &self.at("/", true).expect("root"), 0o755).expect("chmod");
    }

    fn cx(&self) -> Caller<'_> {
        Caller { creds: &self.creds, task: None }
    }
    fn start(&self) -> Start {
        Start::inside(&self.ns.root())
    }
    fn at(&self, path: &str, follow: bool) -> Result<Path> {
        let flags = if follow { LookupFlags::FOLLOW } else { LookupFlags::empty() };
        resolve(&self.cx(), self.start(), path.as_bytes(), flags)
    }
    fn parent(&self, path: &str) -> Result<Parent> {
        resolve_parent(&self.cx(), self.start(), path.as_bytes(), LookupFlags::empty())
    }
    fn open(&self, path: &str, flags: OpenFlags, mode: u32) -> Result<Arc<File>> {
        let how = OpenHow { flags, mode, ..OpenHow::default() };
        open(&self.cx(), self.start(), path.as_bytes(), &how).map_err(plain)
    }
    fn write(&self, file: &File, pos: u64, data: &[u8]) -> Result<usize> {
        rw::write(&self.cx(), file, &mut SliceSource::new(&mut data.to_vec()), Some(pos))
    }
    fn read(&self, file: &File) -> Result<Vec<u8>> {
        let mut buf = vec![0; 70_000];
        let done = rw::read(&self.cx(), file, &mut SliceSink::new(&mut buf), Some(0))?;
        buf.truncate(done);
        Ok(buf)
    }

    fn describe(&self, path: &Path) -> Result<String> {
        let inode = path.inode()?;
        let attr = inode.attr()?;
        let mut text = format!("{:o} {}:{}", attr.mode, attr.uid, attr.gid);
        if inode.file_type() != FileType::Directory {
            // File systems count and measure directories as they like.
            write!(text, " {} {} mtime {}", attr.nlink, attr.size, attr.mtime.tv_sec < 1_000_000)
                .expect("write");
        } else if attr.nlink == 0 {
            text.push_str(" removed");
        }
        if let Ok(mut names) = xattr::list(&self.cx(), path) {
            names.sort();
            for name in names {
                write!(text, " {}={:?}", String::from_utf8_lossy(&name), xattr::get(&self.cx(), path, &name))
                    .expect("write");
            }
        }
        Ok(text)
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        struct Names(Vec<String>);
        impl DirSink for Names {
            fn entry(&mut self, _: u64, _: u64, kind: FileType, name: &[u8]) -> bool {
                self.0.push(format!("{} {kind:?}", String::from_utf8_lossy(name)));
                true
            }
        }
        let file = self.open(path, OpenFlags::DIRECTORY, 0)?;
        let mut names = Names(Vec::new());
        rw::readdir(&self.cx(), &file, &mut names)?;
        names.0.sort();
        Ok(names.0)
    }

    /// Everything there is, in a comparable form.
    fn tree(&self, dir: &str, out: &mut Vec<String>) {
        for entry in self.list(dir).expect("list") {
            let (name, kind) = entry.rsplit_once(' ').expect("entry");
            if name == "." || name == ".." {
                continue;
            }
            let path = format!("{dir}/{name}");
            let mut text = format!(
                "{path}: {}",
                self.at(&path, false).and_then(|at| self.describe(&at)).expect("describe")
            );
            match kind {
                "Regular" => {
                    let data = self.open(&path, OpenFlags::empty(), 0).and_then(|file| self.read(&file));
                    write!(text, " {}", short(&data.expect("read"))).expect("write");
                }
                "Symlink" => {
                    let at = self.at(&path, false).expect("link");
                    let target = at.inode().and_then(|inode| inode.readlink(&self.cx()));
                    let Ok(LinkTarget::Text(target)) = target else { panic!("readlink of {path}") };
                    write!(text, " -> {}", String::from_utf8_lossy(&target)).expect("write");
                }
                _ => {}
            }
            out.push(text);
            if kind == "Directory" {
                self.tree(&path, out);
            }
        }
    }
}

/// Data with its zeros left out.
fn short(data: &[u8]) -> String {
    let some = data.iter().enumerate().filter(|(_, byte)| **byte != 0);
    let some: String = some.map(|(at, byte)| format!("{at}{}", char::from(*byte))).collect();
    format!("{} bytes: {some}", data.len())
}

fn plain(error: SysError) -> Errno {
    match error {
        SysError::Errno(errno) => errno,
        other => panic!("{other:?}"),
    }
}

fn say<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(errno) => errno.name().unwrap_or("?").to_owned(),
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("small")
    }
    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

const PATHS: &[&str] = &[
    "a",
    "b",
    "a/c",
    "a/x",
    "a/c/e",
    "b/c",
    "b/c/e",
    "l",
    "s",
    "d",
    "d/sub",
    "d/file",
    "d/sub/other",
    "d/sub/deep",
    "d/up",
    "d/up/x",
    "a/",
    "d/sub/",
    "d/file/",
    "s/",
    "d/sub/deep/new",
    "d/../l",
    ".",
    "d/sub/..",
];

/// One step: what it was and how each world does it.
fn step(random: &mut Random, worlds: &mut [World]) -> (String, Vec<String>) {
    let (path, other) = (random.of(PATHS), random.of(PATHS));
    let (number, slot) = (random.below(1000), random.below(3));
    let mut text = String::new();
    let mut all = |what: String, run: &mut dyn FnMut(&mut World) -> String| {
        text = what;
        worlds.iter_mut().map(run).collect::<Vec<_>>()
    };
    let results = match random.below(19) {
        0 => all(format!("mkdir {path}"), &mut |w| {
            say(w.parent(path).and_then(|at| make(&w.cx(), &at, &New::Directory { mode: 0o755 })).map(|_| ()))
        }),
        1 => all(format!("symlink {other} {path}"), &mut |w| {
            let new = New::Symlink { target: other.as_bytes() };
            say(w.parent(path).and_then(|at| make(&w.cx(), &at, &new)).map(|_| ()))
        }),
        2 => all(format!("mkfifo {path}"), &mut |w| {
            let new = New::Node { mode: 0o010_640, rdev: 0 };
            say(w.parent(path).and_then(|at| make(&w.cx(), &at, &new)).map(|_| ()))
        }),
        3 => all(format!("unlink {path}"), &mut |w| say(w.parent(path).and_then(|at| unlink(&w.cx(), &at)))),
        4 => all(format!("rmdir {path}"), &mut |w| say(w.parent(path).and_then(|at| rmdir(&w.cx(), &at)))),
        5 => all(format!("link {path} {other}"), &mut |w| {
            say(w.at(path, false).and_then(|old| link(&w.cx(), &old, &w.parent(other)?)))
        }),
        6 | 7 => {
            let flags =
                [RenameFlags::empty(), RenameFlags::empty(), RenameFlags::NOREPLACE, RenameFlags::EXCHANGE]
                    [number % 4];
            all(format!("rename {path} {other} {flags:?}"), &mut |w| {
                say(w.parent(path).and_then(|from| rename(&w.cx(), &from, &w.parent(other)?, flags)))
            })
        }
        8..=10 => {
            let mut flags = [OpenFlags::empty(), OpenFlags::RDWR, OpenFlags::WRONLY][number % 3];
            for (bit, flag) in [
                (1, OpenFlags::CREAT),
                (2, OpenFlags::EXCL),
                (4, OpenFlags::TRUNC),
                (8, OpenFlags::APPEND),
                (16, OpenFlags::NOFOLLOW),
                (32, OpenFlags::DIRECTORY),
            ] {
                if number / 3 & bit != 0 && (bit != 32 || number / 3 & 1 == 0) {
                    flags |= flag;
                }
            }
            all(format!("open {path} {flags:?}"), &mut |w| {
                // A FIFO needs a task that waits.
                let fifo = w.at(path, true).and_then(|at| Ok(at.inode()?.file_type() == FileType::Fifo));
                if fifo == Ok(true) {
                    return String::new();
                }
                match w.open(path, flags, 0o640) {
                    Ok(file) => {
                        let is_file =
                            file.path().inode().is_ok_and(|inode| inode.file_type() == FileType::Regular);
                        w.files[slot] = is_file.then_some(file);
                        "opened".to_owned()
                    }
                    Err(errno) => say::<()>(Err(errno)),
                }
            })
        }
        11 | 12 => all(format!("write {slot} at {number}"), &mut |w| match w.files[slot].clone() {
            Some(file) => say(w.write(&file, number as u64 % 50, &b"0123456789"[..number % 10])),
            None => String::new(),
        }),
        13 => all(format!("read {slot}"), &mut |w| match w.files[slot].clone() {
            Some(file) => say(w.read(&file).map(|data| short(&data))) + &say(w.describe(file.path())),
            None => String::new(),
        }),
        14 => all(format!("ftruncate {slot} {number}"), &mut |w| match w.files[slot].clone() {
            Some(file) => say(setattr::ftruncate(&w.cx(), &file, number as u64 % 60).map_err(plain)),
            None => String::new(),
        }),
        15 => all(format!("truncate {path} {number}"), &mut |w| {
            say(w
                .at(path, true)
                .and_then(|at| setattr::truncate(&w.cx(), &at, number as u64 % 5000).map_err(plain)))
        }),
        16 => {
            let mode = [0o600, 0o755, 0o4711, 0o2750, 0o1777][number % 5];
            all(format!("chmod {path} {mode:o}, chown, by slot {slot}"), &mut |w| {
                if number % 2 == 0 {
                    let path = w.files[slot].as_ref().map(|file| file.path().clone());
                    return match path {
                        Some(path) => say(setattr::chmod(&w.cx(), &path, mode)) + &say(w.describe(&path)),
                        None => String::new(),
                    };
                }
                say(w.at(path, true).and_then(|at| {
                    setattr::chmod(&w.cx(), &at, mode)?;
                    setattr::chown(&w.cx(), &at, Some(7), (number % 3 == 0).then_some(8))?;
                    let time = Some(SetTime::At(Timespec { tv_sec: 1000, tv_nsec: 5 }));
                    if number % 5 == 0 {
                        setattr::utimes(&w.cx(), &at, Some((time, time)))?;
                    }
                    w.describe(&at)
                }))
            })
        }
        17 => all(format!("xattr {path} {number}"), &mut |w| {
            let name = [&b"user.a"[..], b"user.b"][number % 2];
            say(w.at(path, true).and_then(|at| {
                if number % 5 == 0 {
                    return xattr::remove(&w.cx(), &at, name);
                }
                let flags = [XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE][number % 3];
                xattr::set(&w.cx(), &at, name, number.to_string().as_bytes(), flags)
            }))
        }),
        _ => all(format!("look at {path}"), &mut |w| {
            say(w.at(path, false).and_then(|at| w.describe(&at)))
                + &say(w.at(path, true).and_then(|at| w.describe(&at)))
                + &say(w.list(path))
        }),
    };
    (text, results)
}

#[test]
fn all_file_systems_agree() {
    // Seeds and steps can be raised for a longer search.
    let number =
        |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, seeds, steps) =
        (number("AGREE_FIRST", 1), number("AGREE_SEEDS", 12), number("AGREE_STEPS", 250));
    for seed in first..first + seeds {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (seed << 20));
        let mut worlds = worlds();
        let mut done = Vec::new();
        for _ in 0..steps {
            let (what, results) = step(&mut random, &mut worlds);
            done.push(format!("{what} = {}", results[0]));
            for (world, result) in worlds.iter().zip(&results) {
                let last = done[done.len().saturating_sub(12)..].join("\n");
                assert_eq!(result, &results[0], "{} differs from tmpfs, seed {seed}:\n{last}", world.name);
            }
        }
        let trees: Vec<Vec<String>> = worlds
            .iter()
            .map(|world| {
                let mut all = Vec::new();
                world.tree("/.", &mut all);
                all
            })
            .collect();
        for (world, tree) in worlds.iter().zip(&trees) {
            let differs = tree.iter().zip(&trees[0]).find(|(ours, theirs)| ours != theirs);
            assert_eq!(
                (differs, tree.len()),
                (None, trees[0].len()),
                "{} differs from tmpfs, seed {seed}",
                world.name
            );
        }
    }
}
