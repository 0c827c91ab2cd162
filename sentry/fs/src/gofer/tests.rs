//! The client against a real gofer server in a thread, on a scratch directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path as HostPath;
use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::time::Timespec;
use abi::{Errno, Result};
use gofer::{GoferConfig, MountConfig, MountRoot};
use kernel::creds::{Creds, UserNamespace};
use kernel::io::{SliceSink, SliceSource};
use kernel::vfs::{
    Caller, CreateArgs, Dentry, DirSink, File, FileSystem, Inode, LinkTarget, Mount, Path, RenameFlags,
    SetAttr, SetTime, XattrFlags,
};
use platform::hostsys::socket;

use super::{AttachOptions, Connection, GoferFs, Sharing};

struct Setup {
    dir: tempfile::TempDir,
    fs: Arc<GoferFs>,
    root: Arc<dyn Inode>,
    creds: Arc<Creds>,
}

fn serve(path: &HostPath, readonly: bool) -> Arc<Connection> {
    let (ours, theirs) = socket::seqpacket_pair().expect("socketpair");
    let root = fs::File::open(path).expect("open").into();
    let mounts = vec![MountConfig { root: MountRoot::Directory(root), readonly, allow_devices: false }];
    std::thread::spawn(move || gofer::serve(GoferConfig { mounts, socket: theirs, confinement: None }));
    Arc::new(Connection::new(ours))
}

fn setup(sharing: Sharing) -> Setup {
    let dir = tempfile::tempdir().expect("tempdir");
    let options = AttachOptions { mount: 0, sharing, dev: 77, source: "none".to_owned() };
    let fs = GoferFs::attach(serve(dir.path(), false), options).expect("attach");
    let root = fs.root();
    Setup { dir, fs, root, creds: Arc::new(Creds::root(UserNamespace::root())) }
}

impl Setup {
    fn cx(&self) -> Caller<'_> {
        Caller { creds: &self.creds, task: None }
    }
    fn args(&self, mode: u32) -> CreateArgs {
        let meta = self.dir.path().metadata().expect("stat");
        CreateArgs { mode, uid: meta.uid(), gid: meta.gid(), rdev: 0 }
    }
    fn find(&self, path: &str) -> Result<Arc<dyn Inode>> {
        path.split('/').try_fold(self.root.clone(), |dir, name| dir.lookup(&self.cx(), name.as_bytes()))
    }
    fn create(&self, name: &str) -> Arc<dyn Inode> {
        self.root.create(&self.cx(), name.as_bytes(), &self.args(0o100_644)).expect("create")
    }
    fn open(&self, inode: &Arc<dyn Inode>, flags: OpenFlags) -> Arc<File> {
        let fs: Arc<dyn FileSystem> = self.fs.clone();
        let path = Path { mount: Mount::internal(fs), dentry: Dentry::nameless(inode.clone(), b"test") };
        let ops = inode.open(&self.cx(), &path, flags).expect("open");
        File::new(ops, path, flags, self.creds.clone())
    }
    fn read(&self, file: &File, pos: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        let mut sink = SliceSink::new(&mut buf);
        let mut pos = pos;
        let done = file.ops().read(&self.cx(), file, &mut sink, &mut pos).expect("read");
        buf.truncate(done);
        buf
    }
    fn write(&self, file: &File, pos: u64, data: &[u8]) -> u64 {
        let mut data = data.to_vec();
        let mut pos = pos;
        let len = data.len();
        let done =
            file.ops().write(&self.cx(), file, &mut SliceSource::new(&mut data), &mut pos).expect("write");
        assert_eq!(done, len);
        pos
    }
    fn names(&self, dir: &Arc<dyn Inode>) -> BTreeMap<Vec<u8>, (u64, FileType)> {
        let file = self.open(dir, OpenFlags::DIRECTORY);
        let mut all = BTreeMap::new();
        let mut pos = 0;
        loop {
            // A few at a time, as a small getdents buffer does.
            let mut sink = Few { room: 3, entries: Vec::new() };
            file.ops().readdir(&self.cx(), &file, pos, &mut sink).expect("readdir");
            let Some(last) = sink.entries.last() else { return all };
            pos = last.1;
            for (ino, _, kind, name) in sink.entries {
                assert!(all.insert(name, (ino, kind)).is_none());
            }
        }
    }
}

struct Few {
    room: usize,
    entries: Vec<(u64, u64, FileType, Vec<u8>)>,
}

impl DirSink for Few {
    fn entry(&mut self, ino: u64, next: u64, kind: FileType, name: &[u8]) -> bool {
        if self.entries.len() == self.room {
            return false;
        }
        self.entries.push((ino, next, kind, name.to_vec()));
        true
    }
}

fn code<T>(result: Result<T>) -> Option<Errno> {
    result.err()
}

#[test]
fn lookups_and_listings() {
    for sharing in [Sharing::Exclusive, Sharing::Rarely, Sharing::Shared] {
        let s = setup(sharing);
        fs::create_dir_all(s.dir.path().join("a/b/c")).expect("mkdir");
        fs::write(s.dir.path().join("a/b/c/file"), "text").expect("write");
        symlink("b/c", s.dir.path().join("a/link")).expect("symlink");
        let file = s.find("a/b/c/file").expect("find");
        assert!(Arc::ptr_eq(&file, &s.find("a/b/c/file").expect("again")), "one inode for one file");
        let attr = file.attr().expect("attr");
        assert_eq!(
            (attr.dev, attr.size, attr.nlink, attr.mode),
            (77, 4, 1, fs::metadata(s.dir.path().join("a/b/c/file")).expect("stat").mode())
        );
        assert_eq!(code(s.find("a/x")), Some(Errno::ENOENT));
        assert_eq!(code(s.find("a/b/c/file/x")), Some(Errno::ENOTDIR));
        let link = s.find("a/link").expect("link");
        assert!(matches!(link.readlink(&s.cx()), Ok(LinkTarget::Text(text)) if text == b"b/c"));
        let (found, missing) = s.root.lookup_ahead(&s.cx(), &[b"a", b"b", b"none", b"x"]).expect("ahead");
        assert_eq!((found.len(), missing), (2, true));
        let (found, missing) = s.root.lookup_ahead(&s.cx(), &[b"a", b"link", b"file"]).expect("ahead");
        assert_eq!(
            (found.len(), missing, found.last().map(|last| last.file_type())),
            (2, false, Some(FileType::Symlink))
        );

        for number in 0..1000 {
            fs::write(s.dir.path().join(format!("a/b/{number}")), "").expect("write");
        }
        let names = s.names(&s.find("a/b").expect("dir"));
        assert_eq!(names.len(), 1003);
        assert_eq!(names.get(&b"c"[..]).map(|entry| entry.1), Some(FileType::Directory));
        assert_eq!(names.get(&b".."[..]).map(|entry| entry.0), Some(s.find("a").expect("a").ino()));
        let listed = s.find("a/b/17").expect("found by the listing");
        assert_eq!(names.get(&b"17"[..]).map(|entry| entry.0), Some(listed.ino()));
        assert_eq!(code(s.find("a/b/1017")), Some(Errno::ENOENT));
    }
}

#[test]
fn data_through_the_donated_descriptor() {
    for sharing in [Sharing::Exclusive, Sharing::Rarely, Sharing::Shared] {
        let s = setup(sharing);
        let inode = s.create("f");
        let file = s.open(&inode, OpenFlags::RDWR);
        assert_eq!(s.write(&file, 0, b"hello world"), 11);
        assert_eq!(s.read(&file, 6, 100), b"world");
        assert_eq!(s.read(&file, 11, 1), b"");
        assert_eq!(inode.attr().expect("attr").size, 11);
        let append = s.open(&inode, OpenFlags::WRONLY | OpenFlags::APPEND);
        assert_eq!(s.write(&append, 0, b"!"), 12);
        assert_eq!(fs::read(s.dir.path().join("f")).expect("read"), b"hello world!");
        inode.set_attr(&s.cx(), &SetAttr { size: Some(5), ..SetAttr::default() }).expect("truncate");
        assert_eq!((inode.attr().expect("attr").size, s.read(&file, 0, 99)), (5, b"hello".to_vec()));
        file.ops().fsync(&file, true).expect("fsync");
        // Unlinked, it goes on as long as it is open.
        s.root.unlink(&s.cx(), b"f", &inode).expect("unlink");
        assert_eq!(inode.attr().expect("attr").nlink, 0);
        s.write(&file, 5, b" again");
        inode
            .set_attr(&s.cx(), &SetAttr { mode: Some(0o600), ..SetAttr::default() })
            .expect("chmod without a name");
        let attr = inode.attr().expect("attr");
        assert_eq!((attr.size, attr.mode, attr.nlink), (11, 0o100_600, 0));
        assert_eq!(code(s.find("f")), Some(Errno::ENOENT));
        let other = s.create("f");
        assert!(!Arc::ptr_eq(&inode, &other) && inode.ino() != other.ino());
    }
}

#[test]
fn renames_links_and_attributes() {
    for sharing in [Sharing::Exclusive, Sharing::Rarely, Sharing::Shared] {
        let s = setup(sharing);
        let cx = s.cx();
        let dir = s.root.mkdir(&cx, b"d", &s.args(0o040_755)).expect("mkdir");
        assert_eq!(s.root.attr().expect("attr").nlink, 3);
        let file = s.create("one");
        dir.link(&cx, b"two", &file).expect("link");
        assert_eq!(file.attr().expect("attr").nlink, 2);
        assert!(Arc::ptr_eq(&file, &s.find("d/two").expect("two")));
        s.root.unlink(&cx, b"one", &file).expect("unlink");
        assert_eq!(file.attr().expect("attr").nlink, 1);
        file.set_attr(&cx, &SetAttr { mode: Some(0o640), ..SetAttr::default() })
            .expect("chmod by the other name");
        let time = Timespec { tv_sec: 1000, tv_nsec: 5 };
        file.set_attr(
            &cx,
            &SetAttr { atime: Some(SetTime::At(time)), mtime: Some(SetTime::Now), ..SetAttr::default() },
        )
        .expect("utimens");
        let host = s.dir.path().join("d/two").metadata().expect("stat");
        assert_eq!((host.permissions().mode(), host.atime(), host.atime_nsec()), (0o100_640, 1000, 5));

        let root: Arc<dyn Inode> = s.root.clone();
        let none = RenameFlags::empty();
        root.rename(&cx, b"d", &dir, &root, b"e", None, none).expect("rename of a directory");
        assert!(Arc::ptr_eq(&file, &s.find("e/two").expect("two")));
        let victim = s.create("victim");
        let open = s.open(&victim, OpenFlags::RDWR);
        s.write(&open, 0, b"last words");
        dir.rename(&cx, b"two", &file, &root, b"victim", Some(&victim), none)
            .expect("rename over an open file");
        assert_eq!(victim.attr().expect("attr").nlink, 0);
        assert_eq!(s.read(&open, 0, 99), b"last words");
        victim
            .set_attr(&cx, &SetAttr { mode: Some(0o400), ..SetAttr::default() })
            .expect("chmod of what was replaced");
        assert_eq!(victim.attr().expect("attr").mode, 0o100_400);
        assert!(Arc::ptr_eq(&file, &s.find("victim").expect("victim")));
        assert_eq!(file.attr().expect("attr").mode, 0o100_640);
        let other = s.create("other");
        root.rename(&cx, b"victim", &file, &root, b"other", Some(&other), RenameFlags::EXCHANGE)
            .expect("exchange");
        assert!(Arc::ptr_eq(&file, &s.find("other").expect("other")));
        assert!(Arc::ptr_eq(&other, &s.find("victim").expect("victim")));
        let again = root.rename(&cx, b"victim", &other, &root, b"other", Some(&file), RenameFlags::NOREPLACE);
        assert_eq!(code(again), Some(Errno::EEXIST));

        root.rmdir(&cx, b"e", &dir).expect("rmdir");
        assert_eq!(dir.attr().expect("attr").nlink, 0);
        assert_eq!(root.attr().expect("attr").nlink, 2);
        let fifo = root.create(&cx, b"fifo", &s.args(0o010_600)).expect("mkfifo");
        assert_eq!(fifo.attr().expect("attr").mode, 0o010_600);
        let link = root.symlink(&cx, b"s", b"x/y", &s.args(0o120_777)).expect("symlink");
        assert_eq!(link.attr().expect("attr").size, 3);
        let unnamed = root.tmpfile(&cx, &s.args(0o100_600)).expect("tmpfile");
        let open = s.open(&unnamed, OpenFlags::RDWR);
        s.write(&open, 0, b"late");
        root.link(&cx, b"named", &unnamed).expect("link of a file without a name");
        assert_eq!(fs::read(s.dir.path().join("named")).expect("read"), b"late");
        assert_eq!(unnamed.attr().expect("attr").nlink, 1);
    }
}

#[test]
fn extended_attributes() {
    for sharing in [Sharing::Exclusive, Sharing::Rarely, Sharing::Shared] {
        let s = setup(sharing);
        let file = s.create("f");
        assert_eq!(code(file.getxattr(b"user.k")), Some(Errno::ENODATA));
        file.setxattr(b"user.k", b"v", XattrFlags::CREATE).expect("set");
        assert_eq!(code(file.setxattr(b"user.k", b"v", XattrFlags::CREATE)), Some(Errno::EEXIST));
        assert_eq!(file.getxattr(b"user.k").expect("get"), b"v");
        assert_eq!(file.listxattr().expect("list"), [b"user.k"]);
        file.removexattr(b"user.k").expect("remove");
        assert_eq!(code(file.getxattr(b"user.k")), Some(Errno::ENODATA));
    }
}

#[test]
fn what_the_host_changes_is_seen_when_shared() {
    let s = setup(Sharing::Shared);
    let cx = s.cx();
    let path = s.dir.path().join("f");
    fs::write(&path, "one").expect("write");
    let file = s.find("f").expect("find");
    let wait = || std::thread::sleep(std::time::Duration::from_millis(2));
    fs::write(&path, "longer").expect("write");
    wait();
    assert_eq!(file.attr().expect("attr").size, 6);
    let open = s.open(&file, OpenFlags::empty());
    fs::write(&path, "x").expect("write");
    assert_eq!((file.attr().expect("attr").size, s.read(&open, 0, 9)), (1, b"x".to_vec()));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o611)).expect("chmod");
    wait();
    assert_eq!(file.attr().expect("attr").mode, 0o100_611);
    assert!(s.root.revalidate(&cx, b"f", Some(&file)));
    fs::rename(&path, s.dir.path().join("g")).expect("rename");
    wait();
    assert!(!s.root.revalidate(&cx, b"f", Some(&file)));
    assert!(s.root.revalidate(&cx, b"f", None));
    assert!(!s.root.revalidate(&cx, b"g", None));
    assert!(Arc::ptr_eq(&file, &s.find("g").expect("found under its new name")));
    fs::remove_file(s.dir.path().join("g")).expect("remove");
    fs::create_dir(&path).expect("mkdir");
    wait();
    assert!(!s.root.revalidate(&cx, b"f", Some(&file)));
}

#[test]
fn what_an_engine_changes_is_seen_after_a_look_again() {
    let s = setup(Sharing::Rarely);
    let cx = s.cx();
    let at = |name: &str| s.dir.path().join(name);
    fs::create_dir(at("d")).expect("mkdir");
    fs::write(at("d/old"), "one").expect("write");
    let dir = s.find("d").expect("find");
    let old = s.find("d/old").expect("find");
    assert_eq!(code(s.find("d/new")), Some(Errno::ENOENT));
    assert!(!s.names(&dir).contains_key(&b"new"[..]));
    // What is known holds for a while, without asking.
    assert!(dir.revalidate(&cx, b"old", Some(&old)));
    assert!(dir.revalidate(&cx, b"new", None));
    // As an engine's tar does it: what is there is removed first.
    fs::write(at("d/new"), "new").expect("write");
    // Written beside it: the host could give the number of what is removed to what comes next.
    fs::write(at("d/beside"), "replaced").expect("write");
    fs::rename(at("d/beside"), at("d/old")).expect("rename");
    s.fs.look_again();
    assert!(!dir.revalidate(&cx, b"new", None));
    assert!(!dir.revalidate(&cx, b"old", Some(&old)));
    assert_eq!(s.find("d/old").expect("find").attr().expect("attr").size, 8);
    let new = s.find("d/new").expect("found by now");
    assert!(s.names(&dir).contains_key(&b"new"[..]));
    // Nothing has changed: all of it holds, without a question for each name.
    assert_eq!(code(s.find("d/none")), Some(Errno::ENOENT));
    s.fs.look_again();
    assert!(dir.revalidate(&cx, b"none", None));
    assert!(dir.revalidate(&cx, b"new", Some(&new)));
    // Nor is anything missed that follows a change of the sandbox's own.
    dir.create(&cx, b"own", &s.args(0o100_644)).expect("create");
    fs::write(at("d/none"), "").expect("write");
    fs::set_permissions(at("d"), fs::Permissions::from_mode(0o711)).expect("chmod");
    s.fs.look_again();
    assert!(!dir.revalidate(&cx, b"none", None));
    assert_eq!(dir.attr().expect("attr").mode, 0o040_711);
    // And without being told, a little later.
    assert_eq!(code(s.find("late")), Some(Errno::ENOENT));
    fs::write(at("late"), "").expect("write");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(!s.root.revalidate(&cx, b"late", None));
    assert!(s.find("late").is_ok());
}

#[test]
fn handles_come_back_when_they_are_needed() {
    let s = setup(Sharing::Exclusive);
    let mut path = s.dir.path().to_path_buf();
    for _ in 0..200 {
        path.push("d");
    }
    fs::create_dir_all(&path).expect("mkdir");
    fs::write(path.join("leaf"), "found").expect("write");
    let deep = ["d"; 200].join("/");
    let dir = s.find(&deep).expect("find");
    s.fs.give_back_handles();
    s.fs.give_back_handles();
    let mut more = 0;
    while !s.fs.tables().handles.is_empty() {
        s.fs.give_back_handles();
        more += 1;
        assert!(more < 20);
    }
    let leaf = dir.lookup(&s.cx(), b"leaf").expect("lookup");
    let file = s.open(&leaf, OpenFlags::empty());
    assert_eq!(s.read(&file, 0, 99), b"found");
    drop((dir, file, leaf));
    // Only the root is left, by `Setup`.
    assert_eq!(s.fs.tables().inodes.len(), 1);
}

#[test]
fn many_threads_at_once() {
    let s = setup(Sharing::Shared);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let s = &s;
            scope.spawn(move || {
                for round in 0..50 {
                    let name = format!("t{thread}-{round}");
                    let inode = s.create(&name);
                    let file = s.open(&inode, OpenFlags::RDWR);
                    s.write(&file, 0, name.as_bytes());
                    assert_eq!(s.read(&file, 0, 99), name.as_bytes());
                    s.root.unlink(&s.cx(), name.as_bytes(), &inode).expect("unlink");
                }
            });
        }
    });
    assert_eq!(fs::read_dir(s.dir.path()).expect("list").count(), 0);
}
