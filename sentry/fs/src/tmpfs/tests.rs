//! The file system through the VFS, without guests.

use super::*;
use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use kernel::creds::UserNamespace;
use kernel::io::{SliceSink, SliceSource};
use kernel::vfs::change::{New, link, make, rename, rmdir, unlink};
use kernel::vfs::{
    Attr, Caller, DirSink, Event, File, Last, LookupFlags, MountFlags, MountNamespace, OpenHow, Parent, Path,
    Propagation, RenameFlags, SeekFrom, SetAttr, Start, SuperBlock, UmountFlags, Watch, add_watch, d_path,
    open, permission, resolve, resolve_parent, rw, setattr,
};
use platform::mock::{MockPlatform, Step};
use platform::{MemoryFile, Trap};
use std::sync::Mutex as StdMutex;

struct World {
    kernel: Arc<Kernel>,
    ns: Arc<MountNamespace>,
    creds: Arc<Creds>,
}

fn world_with(options: &[u8]) -> World {
    let mock = MockPlatform::new(|_| Step::Trap(Trap::Dead));
    let kernel = Kernel::new(mock, MemoryFile::new().unwrap(), platform::Machine::read());
    let fs = TmpFs::new(&kernel, Options::parse(options).unwrap());
    let user_ns = UserNamespace::root();
    let sb = SuperBlock::new(fs, false);
    let flags = MountFlags::STRICTATIME;
    let ns = kernel.vfs.mounts.new_namespace(Arc::clone(&user_ns), sb, flags, b"tmpfs");
    World { kernel, ns, creds: Arc::new(Creds::root(user_ns)) }
}

impl World {
    fn cx(&self) -> Caller<'_> {
        Caller { creds: &self.creds, task: None }
    }
    fn start(&self) -> Start {
        Start::inside(&self.ns.root())
    }
    fn at(&self, path: &str) -> Result<Path> {
        resolve(&self.cx(), self.start(), path.as_bytes(), LookupFlags::FOLLOW)
    }
    fn parent(&self, path: &str) -> Parent {
        resolve_parent(&self.cx(), self.start(), path.as_bytes(), LookupFlags::empty()).unwrap()
    }
    fn mkdir(&self, path: &str) -> Result<Path> {
        make(&self.cx(), &self.parent(path), &New::Directory { mode: 0o755 })
    }
    fn symlink(&self, target: &str, path: &str) -> Result<Path> {
        make(&self.cx(), &self.parent(path), &New::Symlink { target: target.as_bytes() })
    }
    fn open(&self, path: &str, flags: OpenFlags) -> Result<Arc<File>> {
        let how = OpenHow { flags, mode: 0o644, ..OpenHow::default() };
        match open(&self.cx(), self.start(), path.as_bytes(), &how) {
            Ok(f) => Ok(f),
            Err(kernel::SysError::Errno(e)) => Err(e),
            Err(other) => panic!("{other:?}"),
        }
    }
    fn create(&self, path: &str) -> Arc<File> {
        self.open(path, OpenFlags::CREAT | OpenFlags::RDWR).unwrap()
    }
    fn write(&self, f: &File, data: &[u8], at: u64) -> Result<usize> {
        rw::write(&self.cx(), f, &mut SliceSource::new(&mut data.to_vec()), Some(at))
    }
    fn read(&self, f: &File, at: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        let n = rw::read(&self.cx(), f, &mut SliceSink::new(&mut buf), Some(at)).unwrap();
        buf.truncate(n);
        buf
    }
    fn attr(&self, path: &str) -> Attr {
        self.at(path).unwrap().inode().unwrap().attr().unwrap()
    }
    fn list(&self, path: &str) -> Vec<String> {
        struct Names(Vec<String>);
        impl DirSink for Names {
            fn entry(&mut self, _: u64, _: u64, _: FileType, name: &[u8]) -> bool {
                self.0.push(String::from_utf8_lossy(name).into_owned());
                true
            }
        }
        let f = self.open(path, OpenFlags::DIRECTORY).unwrap();
        let mut names = Names(Vec::new());
        rw::readdir(&self.cx(), &f, &mut names).unwrap();
        names.0.sort();
        names.0
    }
    fn name_of(&self, path: &Path) -> String {
        String::from_utf8(d_path(path, &self.ns.root())).unwrap()
    }
}

#[test]
fn names_links_and_renames() {
    let w = world_with(b"");
    w.mkdir("/a").unwrap();
    w.mkdir("/a/b").unwrap();
    let f = w.create("/a/b/f");
    assert_eq!(w.mkdir("/a").unwrap_err(), Errno::EEXIST);
    assert_eq!(w.at("/a/b/none").unwrap_err(), Errno::ENOENT);
    assert_eq!(w.at("/a/b/f/x").unwrap_err(), Errno::ENOTDIR);
    assert_eq!(w.at("/a/b/f/").unwrap_err(), Errno::ENOTDIR);
    assert_eq!(w.name_of(&w.at("/a/../a/./b//f").unwrap()), "/a/b/f");
    link(&w.cx(), &w.at("/a/b/f").unwrap(), &w.parent("/g")).unwrap();
    assert_eq!(w.attr("/g").nlink, 2);
    assert_eq!(w.attr("/a").nlink, 3);
    let mv = |a: &str, b: &str, fl| rename(&w.cx(), &w.parent(a), &w.parent(b), fl);
    assert_eq!(mv("/a", "/a/b/c", RenameFlags::empty()), Err(Errno::EINVAL));
    assert_eq!(mv("/g", "/a", RenameFlags::empty()), Err(Errno::EISDIR));
    assert_eq!(mv("/a", "/g", RenameFlags::empty()), Err(Errno::ENOTDIR));
    assert_eq!(mv("/a/b/f", "/g", RenameFlags::NOREPLACE), Err(Errno::EEXIST));
    w.mkdir("/d").unwrap();
    mv("/a/b", "/d/moved", RenameFlags::empty()).unwrap();
    assert_eq!(w.name_of(f.path()), "/d/moved/f");
    assert_eq!((w.attr("/a").nlink, w.attr("/d").nlink), (2, 3));
    mv("/d/moved", "/g", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(w.list("/g"), [".", "..", "f"]);
    assert_eq!(w.attr("/d/moved").file_type(), FileType::Regular);
    assert_eq!(w.name_of(f.path()), "/g/f");
    assert_eq!(rmdir(&w.cx(), &w.parent("/g")), Err(Errno::ENOTEMPTY));
    unlink(&w.cx(), &w.parent("/g/f")).unwrap();
    assert_eq!(w.name_of(f.path()), "/g/f (deleted)");
    rmdir(&w.cx(), &w.parent("/g")).unwrap();
    assert_eq!(unlink(&w.cx(), &w.parent("/a")), Err(Errno::EISDIR));
    assert_eq!(w.list("/"), [".", "..", "a", "d"]);
}

#[test]
fn symlinks_and_dotdot() {
    let w = world_with(b"");
    w.mkdir("/d").unwrap();
    w.symlink("d", "/l").unwrap();
    w.symlink("/l/x", "/m").unwrap();
    assert_eq!(w.open("/m", OpenFlags::empty()).unwrap_err(), Errno::ENOENT);
    let f = w.create("/m");
    assert_eq!(w.name_of(f.path()), "/d/x");
    w.symlink("loop", "/loop").unwrap();
    assert_eq!(w.at("/loop").unwrap_err(), Errno::ELOOP);
    assert_eq!(w.open("/l", OpenFlags::NOFOLLOW).unwrap_err(), Errno::ELOOP);
    assert!(w.open("/l", OpenFlags::NOFOLLOW | OpenFlags::PATH).is_ok());
    assert_eq!(w.open("/m", OpenFlags::CREAT | OpenFlags::EXCL).unwrap_err(), Errno::EEXIST);
    assert_eq!(w.name_of(&w.at("/../../d/..//l/../d").unwrap()), "/d");
    let how = |flags| resolve(&w.cx(), w.start(), b"l/x", flags);
    assert_eq!(how(LookupFlags::NO_SYMLINKS).unwrap_err(), Errno::ELOOP);
    assert!(how(LookupFlags::BENEATH).is_ok());
    let inside = Start { root: w.ns.root(), base: w.at("/d").unwrap() };
    let up = |flags| resolve(&w.cx(), inside.clone(), b"../l", flags | LookupFlags::FOLLOW);
    assert!(up(LookupFlags::empty()).is_ok());
    assert_eq!(up(LookupFlags::BENEATH).unwrap_err(), Errno::EXDEV);
    assert_eq!(up(LookupFlags::IN_ROOT).unwrap_err(), Errno::ENOENT);
    assert_eq!(w.parent("/d/").last, Last::Normal);
    assert_eq!(w.parent("/d/..").last, Last::DotDot);
}

#[test]
fn data_holes_and_space() {
    let w = world_with(b"size=64k");
    let f = w.create("/f");
    assert_eq!(w.write(&f, b"hello", 10_000).unwrap(), 5);
    assert_eq!(w.attr("/f").size, 10_005);
    assert_eq!(w.attr("/f").blocks, 8);
    assert_eq!(w.read(&f, 9_998, 100), b"\0\0hello");
    let seek = |from| rw::seek(&w.cx(), &f, from);
    assert_eq!(seek(SeekFrom::Data(0)), Ok(8192));
    assert_eq!(seek(SeekFrom::Hole(0)), Ok(0));
    assert_eq!(seek(SeekFrom::Hole(9000)), Ok(10_005));
    assert_eq!(seek(SeekFrom::Data(10_005)), Err(Errno::ENXIO));
    assert_eq!(w.write(&f, &[7; 100_000], 0).unwrap(), 65_536);
    assert_eq!(w.write(&f, b"x", 65_536), Err(Errno::ENOSPC));
    f.ops().fallocate(&f, 3, 5000, 20_000).unwrap();
    let r = w.read(&f, 4999, 3);
    assert_eq!(r, [7, 0, 0]);
    assert_eq!(w.attr("/f").blocks, 8 * 12);
    w.write(&f, &[9; 4096], 8192).unwrap();
    setattr::truncate(&w.cx(), f.path(), 3).unwrap();
    assert_eq!(w.attr("/f").blocks, 8);
    setattr::truncate(&w.cx(), f.path(), 9000).unwrap();
    assert_eq!(w.read(&f, 0, 10_000)[..8], [7, 7, 7, 0, 0, 0, 0, 0]);
    let fs = w.ns.root().mount.fs.statfs().unwrap();
    assert_eq!((fs.f_blocks, fs.f_bfree), (16, 15));
    unlink(&w.cx(), &w.parent("/f")).unwrap();
    drop(f);
    assert_eq!(w.ns.root().mount.fs.statfs().unwrap().f_bfree, 16);
    assert_eq!(w.kernel.memfile.usage(), 0);
}

#[test]
fn random_writes_against_a_model() {
    let w = world_with(b"");
    let f = w.create("/f");
    let mut model: Vec<u8> = Vec::new();
    let mut seed = 0x1234_5678_9abc_def0u64;
    let mut rnd = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    for step in 0..3000u32 {
        let (off, len) = (rnd(60_000), rnd(20_000));
        let (o, l) = (off as usize, len as usize);
        match rnd(5) {
            0 | 1 => {
                let data: Vec<u8> = (0..l).map(|i| (i as u32 ^ step) as u8).collect();
                assert_eq!(w.write(&f, &data, off).unwrap(), l);
                if l > 0 {
                    model.resize(model.len().max(o + l), 0);
                    model[o..o + l].copy_from_slice(&data);
                }
            }
            2 => {
                setattr::ftruncate(&w.cx(), &f, off).unwrap();
                model.resize(o, 0);
            }
            3 if len > 0 => {
                f.ops().fallocate(&f, 3, off, len).unwrap();
                let end = (o + l).min(model.len());
                if o < end {
                    model[o..end].fill(0);
                }
            }
            _ => {
                let end = (o + l).min(model.len());
                let want = if o < end { &model[o..end] } else { &[] };
                assert!(w.read(&f, off, l) == want, "step {step}");
            }
        }
    }
    assert!(w.read(&f, 0, 1 << 20) == model);
}

#[test]
fn mounts_and_propagation() {
    let w = world_with(b"");
    w.mkdir("/m").unwrap();
    w.mkdir("/n").unwrap();
    let new = || SuperBlock::new(TmpFs::new(&w.kernel, Options::default()), false);
    let flags = MountFlags::empty();
    w.ns.mount(new(), &w.at("/m").unwrap(), flags, b"t").unwrap();
    w.create("/m/inside");
    assert_eq!(w.name_of(&w.at("/m/inside").unwrap()), "/m/inside");
    assert_eq!(w.name_of(&w.at("/m/..").unwrap()), "/");
    assert_eq!(rmdir(&w.cx(), &w.parent("/m")), Err(Errno::EBUSY));
    w.ns.bind(&w.at("/m").unwrap(), &w.at("/n").unwrap(), false).unwrap();
    assert!(w.at("/n/inside").is_ok());
    let f = w.open("/n/inside", OpenFlags::empty()).unwrap();
    assert_eq!(w.ns.umount(&w.at("/n").unwrap(), UmountFlags::empty()), Err(Errno::EBUSY));
    drop(f);
    w.ns.umount(&w.at("/n").unwrap(), UmountFlags::empty()).unwrap();
    assert!(w.at("/n/inside").is_err());
    // A shared mount and a copy of the namespace hear of each other.
    w.ns.set_propagation(&w.ns.root(), Propagation::Shared, true).unwrap();
    let other = w.ns.copy(Arc::clone(&w.ns.owner), &mut []).unwrap();
    w.ns.mount(new(), &w.at("/n").unwrap(), flags, b"t").unwrap();
    w.create("/n/seen");
    let there = |p: &str| resolve(&w.cx(), Start::inside(&other.root()), p.as_bytes(), LookupFlags::FOLLOW);
    assert!(there("/n/seen").is_ok());
    assert_eq!(w.ns.mount_info(&w.ns.root()).len(), 3);
    assert_eq!(other.mount_info(&other.root()).len(), 3);
    w.ns.umount(&w.at("/n").unwrap(), UmountFlags::DETACH).unwrap();
    assert!(there("/n/seen").is_err());
    // pivot_root
    let w = world_with(b"");
    w.mkdir("/new").unwrap();
    w.ns.mount(
        SuperBlock::new(TmpFs::new(&w.kernel, Options::default()), false),
        &w.at("/new").unwrap(),
        flags,
        b"t",
    )
    .unwrap();
    w.mkdir("/new/old").unwrap();
    w.ns.pivot_root(&w.ns.root(), &w.at("/new").unwrap(), &w.at("/new/old").unwrap()).unwrap();
    assert!(w.at("/old/new").is_ok());
    w.ns.umount(&w.at("/old").unwrap(), UmountFlags::DETACH).unwrap();
    assert_eq!(w.ns.mount_info(&w.ns.root()).len(), 1);
}

#[test]
fn rights() {
    let w = world_with(b"mode=755");
    w.mkdir("/d").unwrap();
    let f = w.create("/d/f");
    let mut user = (*w.creds).clone();
    (user.uid, user.euid, user.fsuid, user.gid, user.egid, user.fsgid) = (7, 7, 7, 7, 7, 7);
    user.effective = kernel::creds::CapSet::empty();
    let user = Arc::new(user);
    let cx = Caller { creds: &user, task: None };
    let file = w.at("/d/f").unwrap();
    assert_eq!(permission::check(&cx, &file, permission::May::WRITE), Err(Errno::EACCES));
    assert!(permission::check(&cx, &file, permission::May::READ).is_ok());
    assert_eq!(permission::check(&w.cx(), &file, permission::May::EXEC), Err(Errno::EACCES));
    assert_eq!(setattr::chmod(&cx, &file, 0o777), Err(Errno::EPERM));
    assert_eq!(unlink(&cx, &w.parent("/d/f")), Err(Errno::EACCES));
    setattr::chmod(&w.cx(), &w.at("/d").unwrap(), 0o1777).unwrap();
    assert_eq!(unlink(&cx, &w.parent("/d/f")), Err(Errno::EPERM));
    setattr::chown(&w.cx(), &file, Some(7), None).unwrap();
    setattr::chmod(&w.cx(), &file, 0o6711).unwrap();
    w.write(&f, b"x", 0).unwrap();
    assert_eq!(w.attr("/d/f").mode & 0o7777, 0o6711, "root keeps set-id bits");
    rw::write(&cx, &f, &mut SliceSource::new(&mut [1]), Some(0)).unwrap();
    assert_eq!(w.attr("/d/f").mode & 0o7777, 0o711);
    unlink(&cx, &w.parent("/d/f")).unwrap();
    let set = SetAttr { size: Some(1), ..SetAttr::default() };
    assert!(f.path().inode().unwrap().set_attr(&cx, &set).is_ok());
}

#[test]
fn events() {
    struct Log(StdMutex<Vec<(Event, Option<Vec<u8>>)>>);
    impl Watch for Log {
        fn mask(&self) -> u32 {
            u32::MAX
        }
        fn event(&self, event: Event, _: u32, name: Option<&[u8]>, _: bool) {
            self.0.lock().unwrap().push((event, name.map(<[u8]>::to_vec)));
        }
    }
    let w = world_with(b"");
    w.mkdir("/d").unwrap();
    let log = Arc::new(Log(StdMutex::default()));
    add_watch(&w.at("/d").unwrap(), log.clone()).unwrap();
    let f = w.create("/d/f");
    w.write(&f, b"x", 0).unwrap();
    drop(f);
    rename(&w.cx(), &w.parent("/d/f"), &w.parent("/d/g"), RenameFlags::empty()).unwrap();
    unlink(&w.cx(), &w.parent("/d/g")).unwrap();
    rmdir(&w.cx(), &w.parent("/d")).unwrap();
    let got = std::mem::take(&mut *log.0.lock().unwrap());
    let name = |s: &str| Some(s.as_bytes().to_vec());
    let want = [
        (Event::CREATE, name("f")),
        (Event::OPEN, name("f")),
        (Event::MODIFY, name("f")),
        (Event::CLOSE_WRITE, name("f")),
        (Event::MOVED_FROM, name("f")),
        (Event::MOVED_TO, name("g")),
        (Event::DELETE, name("g")),
        (Event::DELETE_SELF, None),
        (Event::IGNORED, None),
    ];
    assert_eq!(got, want);
}

#[test]
fn deep_trees_go_without_recursion() {
    let w = world_with(b"");
    let mut path = w.ns.root();
    for _ in 0..200_000 {
        let at = Parent {
            dir: path,
            name: smallvec::SmallVec::from_slice(b"d"),
            last: Last::Normal,
            slash: false,
        };
        path = make(&w.cx(), &at, &New::Directory { mode: 0o755 }).unwrap();
    }
    drop(path);
    drop(w);
}

#[test]
fn sealed_memory() {
    let w = world_with(b"");
    let f = memfd_create(&w.kernel, &w.creds, b"n", MemfdFlags::ALLOW_SEALING).unwrap();
    w.write(&f, b"abc", 0).unwrap();
    f.ops().add_seals(&f, 4 | 2).unwrap();
    assert_eq!(w.write(&f, b"xyz", 2).unwrap(), 1);
    assert_eq!(w.write(&f, b"xyz", 3), Err(Errno::EPERM));
    assert!(setattr::ftruncate(&w.cx(), &f, 1).is_err());
    f.ops().add_seals(&f, 8).unwrap();
    assert_eq!(w.write(&f, b"x", 0), Err(Errno::EPERM));
    f.ops().add_seals(&f, 1).unwrap();
    assert_eq!(f.ops().add_seals(&f, 16), Err(Errno::EPERM));
    assert_eq!(w.name_of(f.path()), "/memfd:n (deleted)");
}
