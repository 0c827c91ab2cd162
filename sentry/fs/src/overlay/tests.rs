//! The overlay above a read-only gofer mount. The upper layer is another gofer mount here, since all it must be able to do is
//! to make nameless files.

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

use super::OverlayFs;
use crate::gofer::{AttachOptions, Connection, GoferFs, Sharing};

struct Setup {
    lower: tempfile::TempDir,
    _upper: tempfile::TempDir,
    mount: Arc<Mount>,
    root: Arc<dyn Inode>,
    creds: Arc<Creds>,
}

fn setup(populate: impl FnOnce(&HostPath)) -> Setup {
    let (lower, upper) = (tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir"));
    populate(lower.path());
    let mount = |path: &HostPath, readonly| MountConfig {
        root: MountRoot::Directory(fs::File::open(path).expect("open").into()),
        readonly,
        allow_devices: false,
    };
    let mounts = vec![mount(lower.path(), true), mount(upper.path(), false)];
    let (ours, theirs) = socket::seqpacket_pair().expect("socketpair");
    std::thread::spawn(move || gofer::serve(GoferConfig { mounts, socket: theirs, confinement: None }));
    let connection = Arc::new(Connection::new(ours));
    let attach = |mount| {
        let options = AttachOptions {
            mount,
            sharing: Sharing::Exclusive,
            dev: 70 + u64::from(mount),
            source: "x".into(),
        };
        GoferFs::attach(connection.clone(), options).expect("attach")
    };
    let creds = Arc::new(Creds::root(UserNamespace::root()));
    let fs = OverlayFs::new(attach(0), attach(1), 99, creds.clone());
    Setup { root: fs.root(), lower, _upper: upper, mount: Mount::internal(fs), creds }
}

impl Setup {
    fn cx(&self) -> Caller<'_> {
        Caller { creds: &self.creds, task: None }
    }
    fn args(&self, mode: u32) -> CreateArgs {
        let meta = self.lower.path().metadata().expect("stat");
        CreateArgs { mode, uid: meta.uid(), gid: meta.gid(), rdev: 0 }
    }
    fn find(&self, path: &str) -> Result<Arc<dyn Inode>> {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.fold(Ok(self.root.clone()), |dir, name| dir?.lookup(&self.cx(), name.as_bytes()))
    }
    fn open(&self, inode: &Arc<dyn Inode>, flags: OpenFlags) -> Arc<File> {
        let path = Path { mount: self.mount.clone(), dentry: Dentry::nameless(inode.clone(), b"test") };
        let ops = inode.open(&self.cx(), &path, flags).expect("open");
        File::new(ops, path, flags, self.creds.clone())
    }
    fn read(&self, file: &File) -> Vec<u8> {
        let mut buf = vec![0; 100_000];
        let mut sink = SliceSink::new(&mut buf);
        let done = file.ops().read(&self.cx(), file, &mut sink, &mut 0).expect("read");
        buf.truncate(done);
        buf
    }
    fn write(&self, file: &File, pos: u64, data: &[u8]) {
        let mut data = data.to_vec();
        let len = data.len();
        let mut pos = pos;
        let done = file.ops().write(&self.cx(), file, &mut SliceSource::new(&mut data), &mut pos);
        assert_eq!(done, Ok(len));
    }
    fn names(&self, dir: &Arc<dyn Inode>) -> BTreeMap<Vec<u8>, (u64, FileType)> {
        let file = self.open(dir, OpenFlags::DIRECTORY);
        let mut sink = All(BTreeMap::new());
        file.ops().readdir(&self.cx(), &file, 0, &mut sink).expect("readdir");
        sink.0
    }
    /// Everything below `dir` in a comparable form.
    fn tree(&self, dir: &Arc<dyn Inode>, at: &str, out: &mut BTreeMap<String, String>) {
        for (name, (ino, kind)) in self.names(dir) {
            let name = String::from_utf8(name).expect("name");
            let path = format!("{at}/{name}");
            let inode = dir.lookup(&self.cx(), name.as_bytes()).expect("lookup of a listed name");
            assert_eq!((inode.ino(), inode.file_type()), (ino, kind), "{path}");
            let attr = inode.attr().expect("attr");
            let content = match kind {
                FileType::Regular => format!("{:?}", self.read(&self.open(&inode, OpenFlags::empty()))),
                FileType::Symlink => match inode.readlink(&self.cx()) {
                    Ok(LinkTarget::Text(text)) => String::from_utf8(text).expect("target"),
                    _ => panic!("readlink of {path}"),
                },
                _ => String::new(),
            };
            // Host file systems count links of directories differently.
            let nlink = if kind == FileType::Directory { 0 } else { attr.nlink };
            out.insert(path.clone(), format!("{:o} {nlink} {content}", attr.mode));
            if kind == FileType::Directory {
                self.tree(&inode, &path, out);
            }
        }
    }
}

struct All(BTreeMap<Vec<u8>, (u64, FileType)>);

impl DirSink for All {
    fn entry(&mut self, ino: u64, _next: u64, kind: FileType, name: &[u8]) -> bool {
        if name != b"." && name != b".." {
            assert!(self.0.insert(name.to_vec(), (ino, kind)).is_none());
        }
        true
    }
}

fn populate(path: &HostPath) {
    fs::create_dir_all(path.join("d/sub/deep")).expect("mkdir");
    fs::write(path.join("d/file"), "from below").expect("write");
    fs::write(path.join("d/sub/other"), "other").expect("write");
    fs::hard_link(path.join("d/file"), path.join("link")).expect("link");
    symlink("d/file", path.join("sym")).expect("symlink");
    // A gofer in this process has cleared the umask, or not yet.
    for (name, mode) in
        [("d", 0o755), ("d/sub", 0o755), ("d/sub/deep", 0o755), ("d/file", 0o644), ("d/sub/other", 0o644)]
    {
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode)).expect("chmod");
    }
}

#[test]
fn changes_stay_above() {
    let s = setup(populate);
    let cx = s.cx();
    let file = s.find("d/file").expect("find");
    let reader = s.open(&file, OpenFlags::empty());
    let (ino, before) = (file.ino(), file.attr().expect("attr"));
    assert_eq!((before.size, before.nlink, before.dev), (10, 2, 99));
    let writer = s.open(&file, OpenFlags::RDWR);
    s.write(&writer, 5, b"ABOVE!");
    assert_eq!(s.read(&reader), b"from ABOVE!", "a reader from before sees it");
    assert_eq!(s.read(&s.open(&s.find("link").expect("link"), OpenFlags::empty())), b"from ABOVE!");
    let after = file.attr().expect("attr");
    assert_eq!((after.ino, after.size, after.nlink, after.mode), (ino, 11, 2, before.mode));
    drop((file, reader, writer));
    let again = s.find("d/file").expect("find");
    assert_eq!((again.ino(), s.read(&s.open(&again, OpenFlags::empty()))), (ino, b"from ABOVE!".to_vec()));
    assert_eq!(fs::read(s.lower.path().join("d/file")).expect("read"), b"from below");

    s.root.unlink(&cx, b"link", &again).expect("unlink");
    assert_eq!(again.attr().expect("attr").nlink, 1);
    assert_eq!(s.find("link").err(), Some(Errno::ENOENT));
    let new = s.root.create(&cx, b"link", &s.args(0o100_600)).expect("create");
    assert!(new.ino() != ino && new.attr().expect("attr").size == 0);
    s.root.unlink(&cx, b"link", &new).expect("unlink");
    assert_eq!(s.find("link").err(), Some(Errno::ENOENT), "what is below does not come back");
    assert!(!s.names(&s.root).contains_key(&b"link"[..]));
}

#[test]
fn metadata_without_data() {
    let s = setup(populate);
    let cx = s.cx();
    let other = s.find("d/sub/other").expect("find");
    let time = Timespec { tv_sec: 7, tv_nsec: 9 };
    let set =
        SetAttr { mode: Some(0o4755), uid: Some(12), mtime: Some(SetTime::At(time)), ..SetAttr::default() };
    other.set_attr(&cx, &set).expect("set_attr");
    other.setxattr(b"user.a", b"1", XattrFlags::empty()).expect("setxattr");
    assert_eq!(other.setxattr(b"user.b", b"1", XattrFlags::REPLACE), Err(Errno::ENODATA));
    drop(other);
    let other = s.find("d/sub/other").expect("find");
    let attr = other.attr().expect("attr");
    assert_eq!((attr.mode, attr.uid, attr.mtime, attr.size), (0o104_755, 12, time, 5));
    assert_eq!(other.listxattr(), Ok(vec![b"user.a".to_vec()]));
    assert_eq!(s.read(&s.open(&other, OpenFlags::empty())), b"other");
    other.set_attr(&cx, &SetAttr { size: Some(2), ..SetAttr::default() }).expect("truncate");
    assert_eq!(other.attr().expect("attr").size, 2);
    other.set_attr(&cx, &SetAttr { size: Some(4), ..SetAttr::default() }).expect("extend");
    assert_eq!(s.read(&s.open(&other, OpenFlags::empty())), b"ot\0\0");
    assert_eq!(
        fs::metadata(s.lower.path().join("d/sub/other")).expect("stat").permissions().mode() & 0o7000,
        0
    );
}

#[test]
fn directories_of_below_move() {
    let s = setup(populate);
    let cx = s.cx();
    let none = RenameFlags::empty();
    let (d, sub) = (s.find("d").expect("d"), s.find("d/sub").expect("sub"));
    sub.create(&cx, b"new", &s.args(0o100_644)).expect("create");
    assert_eq!(s.root.rmdir(&cx, b"d", &d), Err(Errno::ENOTEMPTY));
    d.rename(&cx, b"sub", &sub, &s.root, b"moved", None, none).expect("rename of a merged directory");
    assert_eq!(s.find("d/sub").err(), Some(Errno::ENOENT));
    assert_eq!(s.names(&sub).len(), 3);
    assert!(s.find("moved/deep").is_ok() && s.find("moved/other").is_ok() && s.find("moved/new").is_ok());
    assert_eq!(s.root.attr().expect("attr").nlink, 4);
    let empty = s.root.mkdir(&cx, b"empty", &s.args(0o040_755)).expect("mkdir");
    let refused = s.root.rename(&cx, b"empty", &empty, &s.root, b"moved", Some(&sub), none);
    assert_eq!(refused, Err(Errno::ENOTEMPTY));
    s.root
        .rename(&cx, b"moved", &sub, &s.root, b"empty", Some(&empty), none)
        .expect("over an empty directory");
    assert_eq!(empty.attr().expect("attr").nlink, 0);
    assert_eq!(empty.create(&cx, b"x", &s.args(0o100_644)).err(), Some(Errno::ENOENT));
    let deep = s.find("empty/deep").expect("deep");
    sub.rmdir(&cx, b"deep", &deep).expect("rmdir of a directory of below");
    let again = sub.mkdir(&cx, b"deep", &s.args(0o040_700)).expect("mkdir in its place");
    assert!(s.names(&again).is_empty() && again.ino() != deep.ino());
    // In one step through what is below as far as it reaches.
    let (found, missing) = s.root.lookup_ahead(&cx, &[b"d", b"file", b"x"]).expect("ahead");
    assert_eq!((found.len(), missing), (2, false));
    let (found, missing) = s.root.lookup_ahead(&cx, &[b"d", b"sub", b"deep"]).expect("ahead");
    assert_eq!((found.len(), missing), (1, false), "the directory was moved away");
    assert_eq!(s.find("d/sub").err(), Some(Errno::ENOENT));
}

/// Numbers that look random, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn host_tree(dir: &HostPath, at: &str, out: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).expect("list") {
        let entry = entry.expect("entry");
        let path = format!("{at}/{}", entry.file_name().to_str().expect("name"));
        let meta = entry.path().symlink_metadata().expect("stat");
        let content = if meta.is_file() {
            format!("{:?}", fs::read(entry.path()).expect("read"))
        } else if meta.is_symlink() {
            fs::read_link(entry.path()).expect("readlink").to_str().expect("target").to_owned()
        } else {
            String::new()
        };
        let nlink = if meta.is_dir() { 0 } else { meta.nlink() };
        out.insert(path.clone(), format!("{:o} {nlink} {content}", meta.mode()));
        if meta.is_dir() {
            host_tree(&entry.path(), &path, out);
        }
    }
}

/// The same changes on the overlay and on a directory of the host give the same tree.
#[test]
fn like_a_directory_of_the_host() {
    const PATHS: &[&str] = &[
        "a",
        "b",
        "a/c",
        "a/d",
        "a/c/e",
        "b/c",
        "b/c/e",
        "link",
        "d",
        "d/sub",
        "d/file",
        "d/sub/other",
        "d/sub/deep",
    ];
    for seed in 1..=12u64 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (seed << 20));
        let s = setup(populate);
        let cx = s.cx();
        let model = tempfile::tempdir().expect("tempdir");
        populate(model.path());
        for step in 0..150 {
            let path = PATHS[random.below(PATHS.len())];
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let other = PATHS[random.below(PATHS.len())];
            let (other_parent, other_name) = other.rsplit_once('/').unwrap_or(("", other));
            let host = model.path().join(path);
            let host_other = model.path().join(other);
            let Ok(dir) = s.find(parent) else { continue };
            if dir.file_type() != FileType::Directory {
                continue;
            }
            let child = dir.lookup(&cx, name.as_bytes()).ok();
            assert_eq!(
                child.is_some(),
                host.symlink_metadata().is_ok(),
                "{path} at step {step} of seed {seed}"
            );
            let is_dir = child.as_ref().is_some_and(|child| child.file_type() == FileType::Directory);
            let is_file = child.as_ref().is_some_and(|child| child.file_type() == FileType::Regular);
            match (random.below(9), &child) {
                (0, None) => {
                    dir.create(&cx, name.as_bytes(), &s.args(0o100_644)).expect("create");
                    fs::write(&host, "").expect("create");
                    fs::set_permissions(&host, fs::Permissions::from_mode(0o644)).expect("chmod");
                }
                (1, None) => {
                    dir.mkdir(&cx, name.as_bytes(), &s.args(0o040_755)).expect("mkdir");
                    fs::create_dir(&host).expect("mkdir");
                    // A gofer in this process has cleared the umask, or not yet.
                    fs::set_permissions(&host, fs::Permissions::from_mode(0o755)).expect("chmod");
                }
                (2, Some(child)) if is_file => {
                    let file = s.open(child, OpenFlags::RDWR);
                    let at = random.below(20) as u64;
                    s.write(&file, at, b"xyz");
                    use std::os::unix::fs::FileExt;
                    let file = fs::OpenOptions::new().write(true).open(&host).expect("open");
                    file.write_all_at(b"xyz", at).expect("write");
                }
                (3, Some(child)) if is_file => {
                    let size = random.below(15) as u64;
                    child
                        .set_attr(&cx, &SetAttr { size: Some(size), ..SetAttr::default() })
                        .expect("truncate");
                    fs::OpenOptions::new()
                        .write(true)
                        .open(&host)
                        .expect("open")
                        .set_len(size)
                        .expect("truncate");
                }
                (4, Some(child)) if is_dir => {
                    let ours = dir.rmdir(&cx, name.as_bytes(), child);
                    let theirs = fs::remove_dir(&host);
                    assert_eq!(ours.is_ok(), theirs.is_ok(), "rmdir {path}");
                }
                (5, Some(child)) if !is_dir => {
                    dir.unlink(&cx, name.as_bytes(), child).expect("unlink");
                    fs::remove_file(&host).expect("unlink");
                }
                (6, Some(child)) => {
                    let Ok(to) = s.find(other_parent) else { continue };
                    let inside = other == path
                        || other.starts_with(&format!("{path}/"))
                        || path.starts_with(&format!("{other}/"));
                    let replaced = to.lookup(&cx, other_name.as_bytes()).ok();
                    let mixed = replaced
                        .as_ref()
                        .is_some_and(|replaced| (replaced.file_type() == FileType::Directory) != is_dir);
                    if to.file_type() != FileType::Directory || inside || mixed {
                        continue;
                    }
                    let ours = dir.rename(
                        &cx,
                        name.as_bytes(),
                        child,
                        &to,
                        other_name.as_bytes(),
                        replaced.as_ref(),
                        RenameFlags::empty(),
                    );
                    let theirs = fs::rename(&host, &host_other);
                    assert_eq!(ours.is_ok(), theirs.is_ok(), "rename {path} to {other}: {ours:?} {theirs:?}");
                }
                (7, Some(child)) if !is_dir => {
                    let Ok(to) = s.find(other_parent) else { continue };
                    if to.file_type() != FileType::Directory || to.lookup(&cx, other_name.as_bytes()).is_ok()
                    {
                        continue;
                    }
                    to.link(&cx, other_name.as_bytes(), child).expect("link");
                    fs::hard_link(&host, &host_other).expect("link");
                }
                (8, Some(child)) if child.file_type() != FileType::Symlink => {
                    let mode = [0o600, 0o755, 0o4711][random.below(3)];
                    child.set_attr(&cx, &SetAttr { mode: Some(mode), ..SetAttr::default() }).expect("chmod");
                    fs::set_permissions(&host, fs::Permissions::from_mode(mode)).expect("chmod");
                }
                _ => {}
            }
        }
        let (mut ours, mut theirs) = (BTreeMap::new(), BTreeMap::new());
        s.tree(&s.root, "", &mut ours);
        host_tree(model.path(), "", &mut theirs);
        assert_eq!(ours, theirs, "seed {seed}");
    }
}
