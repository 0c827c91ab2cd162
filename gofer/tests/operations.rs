//! The server over a real channel, against a scratch directory; and against nonsense. Each scenario runs twice: against
//! a forked process with its capabilities dropped and its seccomp filter on, and against a thread of this process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use gofer_protocol::codec::{Body, MAX_MESSAGE};
use gofer_protocol::*;
use proptest::prelude::*;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};

use gofer::{Confinement, GoferConfig, MountConfig, MountRoot};
use hostsys::process::{Child, Exit, ForkOptions, fork_run};
use libtest_mimic::{Arguments, Trial};
use std::sync::atomic::{AtomicBool, Ordering};

static CONFINED: AtomicBool = AtomicBool::new(false);

struct Client {
    socket: OwnedFd,
    process: Option<Child>,
    writer: Writer,
    sequence: u32,
}

struct Reply {
    message: Vec<u8>,
    donated: Option<OwnedFd>,
}

impl Reply {
    fn reader(&self) -> Reader<'_> {
        Reader::new(&self.message)
    }
    fn body<T: Body>(&self) -> T {
        self.reader().get().expect("body of reply")
    }
    fn bytes(&self) -> Vec<u8> {
        self.reader().bytes(MAX_MESSAGE).expect("bytes of reply").to_vec()
    }
    fn file(self) -> fs::File {
        fs::File::from(self.donated.expect("donated descriptor"))
    }
}

/// A process that was killed by its filter is a failed test.
impl Drop for Client {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both).expect("shutdown");
            let exit = process.wait().expect("wait");
            if !std::thread::panicking() {
                assert_eq!(exit, Exit::Code(0));
            }
        }
    }
}

impl Client {
    fn exchange(&self, message: &[u8]) -> (Vec<u8>, Option<OwnedFd>) {
        rustix::net::send(&self.socket, message, SendFlags::NOSIGNAL).expect("send");
        let mut buffer = vec![0; MAX_MESSAGE + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .expect("recvmsg");
        assert!(got.bytes > 0, "the server hung up");
        buffer.truncate(got.bytes);
        let mut donated = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                for fd in fds {
                    assert!(donated.is_none());
                    donated = Some(fd);
                }
            }
        }
        (buffer, donated)
    }

    fn call<T: Body>(&mut self, op: Op, body: T, tail: impl FnOnce(&mut Writer)) -> Result<Reply, Errno> {
        self.sequence += 1;
        let mut writer = std::mem::take(&mut self.writer);
        writer.request(op, self.sequence, gofer_protocol::ANY_CPU, &body);
        tail(&mut writer);
        let (message, donated) = self.exchange(writer.message());
        self.writer = writer;
        let mut reader = Reader::new(&message);
        let header: ReplyHeader = reader.get().expect("reply header");
        assert_eq!(header.sequence, self.sequence);
        if header.errno != 0 {
            assert!(donated.is_none());
            return Err(Errno::from_raw_os_error(i32::try_from(header.errno).expect("errno")));
        }
        let rest = message[size_of::<ReplyHeader>()..].to_vec();
        Ok(Reply { message: rest, donated })
    }

    fn attach(&mut self, mount: u32) -> Result<Attached, Errno> {
        self.call(Op::Attach, Attach { mount, reserved: 0 }, |_| {}).map(|reply| reply.body())
    }

    fn walk(
        &mut self,
        handle: u64,
        names: &[&str],
        flags: u32,
        open: u32,
    ) -> Result<(Walked, Vec<Entry>, Option<Vec<u8>>, Option<OwnedFd>), Errno> {
        let count = u32::try_from(names.len()).expect("count");
        let reply = self.call(Op::Walk, Walk { handle, count, flags, open, reserved: 0 }, |writer| {
            for name in names {
                writer.put_name(name.as_bytes());
            }
        })?;
        let mut reader = reply.reader();
        let walked: Walked = reader.get().expect("walked");
        let entries = (0..walked.count).map(|_| reader.get().expect("entry")).collect();
        let target = (walked.end == WALK_SYMLINK).then(|| reader.bytes(4096).expect("target").to_vec());
        reader.end().expect("end of reply");
        Ok((walked, entries, target, reply.donated))
    }

    fn named<T: Body>(&mut self, op: Op, body: T, names: &[&str]) -> Result<Reply, Errno> {
        self.call(op, body, |writer| {
            for name in names {
                writer.put_name(name.as_bytes());
            }
        })
    }

    fn readdir(&mut self, handle: u64, flags: u32) -> BTreeMap<Vec<u8>, (DirEntry, Option<Stat>)> {
        let mut all = BTreeMap::new();
        let mut cookie = 0;
        loop {
            let reply = self
                .call(Op::Readdir, Readdir { node: Node::handle(handle), cookie, flags, count: 0 }, |_| {})
                .expect("readdir");
            let mut reader = reply.reader();
            let summary: ReaddirReply = reader.get().expect("summary");
            for _ in 0..summary.count {
                let entry: DirEntry = reader.get().expect("entry");
                let name = reader.entry_name().expect("name").to_vec();
                let stat = (entry.has_stat == 1).then(|| reader.get().expect("stat"));
                assert!(all.insert(name, (entry, stat)).is_none());
            }
            reader.end().expect("end");
            cookie = summary.next;
            if summary.end == 1 {
                return all;
            }
        }
    }
}

fn mount(path: &Path, readonly: bool) -> MountConfig {
    let root = rustix::fs::open(
        path,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY,
        rustix::fs::Mode::empty(),
    )
    .expect("root");
    MountConfig { root: MountRoot::Directory(root), readonly, allow_devices: false }
}

fn start(mounts: Vec<MountConfig>) -> Client {
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .expect("socketpair");
    let mut ours = Some(ours);
    let process = if CONFINED.load(Ordering::Relaxed) {
        let confinement = Some(Confinement { device_nodes: false });
        Some(
            fork_run(ForkOptions::default(), || {
                // The child's copy: with it open the server would never see its client's end.
                drop(ours.take());
                match gofer::serve(GoferConfig { mounts, socket: theirs, confinement }) {
                    Ok(()) => 0,
                    Err(error) => {
                        eprintln!("{error}");
                        1
                    }
                }
            })
            .expect("fork"),
        )
    } else {
        std::thread::spawn(move || gofer::serve(GoferConfig { mounts, socket: theirs, confinement: None }));
        None
    };
    Client { socket: ours.expect("socket"), process, writer: Writer::new(), sequence: 0 }
}

struct Scratch {
    dir: tempfile::TempDir,
    client: Client,
    root: u64,
}

fn scratch() -> Scratch {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut client = start(vec![mount(dir.path(), false), mount(dir.path(), true)]);
    let root = client.attach(0).expect("attach").root.handle;
    Scratch { dir, client, root }
}

fn owner() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn make(directory: u64, mode: u32) -> Create {
    let (uid, gid) = owner();
    Create { node: Node::handle(directory), mode, uid, gid, flags: 0 }
}

fn walk_to_file_missing_symlink_and_file_in_the_way() {
    let Scratch { dir, mut client, root } = scratch();
    fs::create_dir_all(dir.path().join("a/b")).expect("mkdir");
    fs::write(dir.path().join("a/b/file"), "hello").expect("write");
    symlink("../x/y", dir.path().join("a/link")).expect("symlink");

    let (walked, entries, _, fd) = client.walk(root, &["a", "b", "file"], 0, OPEN_READ).expect("walk");
    assert_eq!((walked.end, entries.len()), (WALK_COMPLETE, 3));
    assert!(entries[0].stat.is_directory() && entries[0].handle != 0);
    assert_eq!((entries[2].handle, entries[2].stat.size), (0, 5));
    let mut text = String::new();
    fs::File::from(fd.expect("donated")).read_to_string(&mut text).expect("read");
    assert_eq!(text, "hello");

    let (walked, entries, ..) = client.walk(root, &["a", "no", "file"], 0, 0).expect("walk");
    assert_eq!((walked.end, entries.len()), (WALK_MISSING, 1));
    let (walked, entries, ..) = client.walk(root, &["a", "b", "file", "x"], 0, 0).expect("walk");
    assert_eq!((walked.end, entries.len()), (WALK_NOT_DIRECTORY, 3));
    let (walked, entries, target, _) = client.walk(root, &["a", "link", "x"], 0, 0).expect("walk");
    assert_eq!((walked.end, entries.len(), target.as_deref()), (WALK_SYMLINK, 2, Some(&b"../x/y"[..])));
    let link = client.named(Op::Readlink, Node::child(entries[0].handle, 0), &["link"]).expect("readlink");
    assert_eq!(link.bytes(), b"../x/y");
    assert_eq!(
        client.named(Op::Readlink, Node::child(entries[0].handle, 0), &["b"]).err(),
        Some(Errno::INVAL)
    );
}

fn names_cannot_leave() {
    let Scratch { dir, mut client, root } = scratch();
    fs::create_dir(dir.path().join("d")).expect("mkdir");
    symlink("/etc", dir.path().join("etc")).expect("symlink");
    symlink("/etc/passwd", dir.path().join("passwd")).expect("symlink");
    for bad in ["..", ".", "", "d/..", "/etc", "a\0b"] {
        assert_eq!(client.walk(root, &["d", bad], 0, 0).err(), Some(Errno::INVAL), "{bad:?}");
        assert_eq!(client.named(Op::Create, make(root, 0o600), &[bad]).err(), Some(Errno::INVAL), "{bad:?}");
        assert_eq!(
            client
                .named(
                    Op::Rename,
                    Rename { old_directory: root, new_directory: root, flags: 0, reserved: 0 },
                    &["d", bad]
                )
                .err(),
            Some(Errno::INVAL)
        );
    }
    let (walked, entries, ..) =
        client.walk(root, &["etc", "passwd"], WALK_FILE_HANDLES, OPEN_READ).expect("walk");
    assert_eq!((walked.end, walked.count), (WALK_SYMLINK, 1));
    assert_eq!(client.walk(entries[0].handle, &["passwd"], 0, 0).err(), Some(Errno::NOTDIR));
    let open = Open { node: Node::child(root, 0), flags: OPEN_READ, reserved: 0 };
    assert_eq!(client.named(Op::Open, open, &["passwd"]).err(), Some(Errno::LOOP));
    let attr = SetAttr {
        node: Node::child(root, 0),
        valid: ATTR_SIZE,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
    };
    assert_eq!(client.named(Op::SetAttr, attr, &["passwd"]).err(), Some(Errno::LOOP));
}

fn create_write_rename_unlink() {
    let Scratch { dir, mut client, root } = scratch();
    let reply = client.named(Op::Create, make(root, 0o640), &["f"]).expect("create");
    let entry: Entry = reply.body();
    assert_eq!(entry.stat.mode, 0o100_640);
    reply.file().write_all(b"data").expect("write");
    assert_eq!(fs::read(dir.path().join("f")).expect("read"), b"data");
    assert_eq!(client.named(Op::Create, make(root, 0o640), &["f"]).err(), Some(Errno::EXIST));

    let sub: Entry = client.named(Op::Mkdir, make(root, 0o1777), &["sub"]).expect("mkdir").body();
    assert_eq!(sub.stat.mode, 0o041_777);
    client
        .named(
            Op::Rename,
            Rename { old_directory: root, new_directory: sub.handle, flags: 0, reserved: 0 },
            &["f", "g"],
        )
        .expect("rename");
    assert!(dir.path().join("sub/g").exists());
    client.named(Op::Create, make(root, 0o600), &["h"]).expect("create");
    let rename = Rename { old_directory: root, new_directory: sub.handle, flags: 1, reserved: 0 };
    assert_eq!(client.named(Op::Rename, rename, &["h", "g"]).err(), Some(Errno::EXIST));
    client.named(Op::Rename, Rename { flags: 2, ..rename }, &["h", "g"]).expect("exchange");
    assert_eq!(fs::read(dir.path().join("h")).expect("read"), b"data");

    let link: Entry = client
        .named(Op::Link, Link { source: Node::child(root, 0), directory: sub.handle }, &["h", "second"])
        .expect("link")
        .body();
    assert_eq!(link.stat.nlink, 2);
    let gone: Entry = client
        .named(Op::Unlink, Unlink { node: Node::child(root, 0), flags: 0, reserved: 0 }, &["h"])
        .expect("unlink")
        .body();
    assert_eq!((gone.handle, gone.stat.nlink), (0, 1));
    let pinned: Entry = client
        .named(
            Op::Unlink,
            Unlink { node: Node::child(sub.handle, 0), flags: UNLINK_PIN, reserved: 0 },
            &["second"],
        )
        .expect("unlink")
        .body();
    assert_eq!(pinned.stat.nlink, 0);
    let open = Open { node: Node::handle(pinned.handle), flags: OPEN_READ | OPEN_WRITE, reserved: 0 };
    let mut text = String::new();
    client
        .named(Op::Open, open, &[""])
        .expect("open of a file without a name")
        .file()
        .read_to_string(&mut text)
        .expect("read");
    assert_eq!(text, "data");
    let attr = SetAttr {
        node: Node::handle(pinned.handle),
        valid: ATTR_SIZE | ATTR_MODE,
        mode: 0o444,
        uid: 0,
        gid: 0,
        size: 2,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
    };
    let stat: Stat = client.named(Op::SetAttr, attr, &[""]).expect("setattr").body();
    assert_eq!((stat.size, stat.mode), (2, 0o100_444));
    assert_eq!(
        client
            .named(
                Op::Unlink,
                Unlink { node: Node::child(root, 0), flags: UNLINK_DIRECTORY, reserved: 0 },
                &["sub"]
            )
            .err(),
        Some(Errno::NOTEMPTY)
    );
    let wrong = Unlink { node: Node::child(sub.handle, 12345), flags: 0, reserved: 0 };
    assert_eq!(client.named(Op::Unlink, wrong, &["g"]).err(), Some(Errno::STALE));
}

fn attributes_symlinks_nodes_unnamed_files() {
    let Scratch { dir, mut client, root } = scratch();
    let (uid, gid) = owner();
    let reply = client.call(Op::Symlink, make(root, 0o777), |writer| {
        writer.put_name(b"l").put_bytes(b"to/where");
    });
    assert!(reply.expect("symlink").body::<Entry>().stat.is_symlink());
    assert_eq!(fs::read_link(dir.path().join("l")).expect("readlink"), Path::new("to/where"));
    let node =
        |file_type| Mknod { create: make(root, 0o600), file_type, rdev_major: 1, rdev_minor: 3, reserved: 0 };
    for (name, kind) in [("fifo", 0o010_000), ("sock", 0o140_000), ("reg", 0o100_000)] {
        let entry: Entry = client.named(Op::Mknod, node(kind), &[name]).expect(name).body();
        assert_eq!(entry.stat.mode, kind | 0o600);
    }
    assert_eq!(client.named(Op::Mknod, node(0o020_000), &["null"]).err(), Some(Errno::PERM));
    let open = Open { node: Node::child(root, 0), flags: OPEN_READ, reserved: 0 };
    assert_eq!(client.named(Op::Open, open, &["fifo"]).err(), Some(Errno::NXIO));
    assert_eq!(client.named(Op::Open, open, &["sock"]).err(), Some(Errno::NXIO));

    let times = SetAttr {
        node: Node::child(root, 0),
        valid: ATTR_MODE | ATTR_ATIME | ATTR_MTIME_NOW | ATTR_UID,
        mode: 0o4711,
        uid,
        gid,
        size: 0,
        atime: Timestamp { seconds: -5, nanoseconds: 7, reserved: 0 },
        mtime: Timestamp::default(),
    };
    for name in ["reg", "fifo", "sock"] {
        let stat: Stat = client.named(Op::SetAttr, times, &[name]).expect(name).body();
        assert_eq!((stat.mode & 0o7777, stat.atime.seconds, stat.atime.nanoseconds), (0o4711, -5, 7));
        assert!(stat.mtime.seconds > 1_600_000_000);
    }
    assert_eq!(client.named(Op::SetAttr, times, &["l"]).err(), Some(Errno::OPNOTSUPP));

    let reply = client.call(Op::TmpFile, make(root, 0o600), |_| {}).expect("tmpfile");
    let entry: Entry = reply.body();
    assert_eq!(entry.stat.nlink, 0);
    reply.file().write_all(b"late").expect("write");
    client
        .named(Op::Link, Link { source: Node::handle(entry.handle), directory: root }, &["", "named"])
        .expect("link of an unnamed file");
    assert_eq!(fs::read(dir.path().join("named")).expect("read"), b"late");
}

fn listings_in_batches_and_xattrs() {
    let Scratch { dir, mut client, root } = scratch();
    for number in 0..2500 {
        fs::write(dir.path().join(format!("a-file-with-a-rather-long-name-{number}")), "").expect("write");
    }
    assert_eq!(client.readdir(root, 0).len(), 2500);
    let all = client.readdir(root, READDIR_STAT);
    assert_eq!(all.len(), 2500);
    assert!(all.values().all(|(entry, stat)| entry.kind == 8
        && stat.is_some_and(|stat| stat.is_regular() && stat.ino == entry.ino)));

    fs::create_dir_all(dir.path().join("x/y")).expect("mkdir");
    fs::write(dir.path().join("x/y/inner"), "").expect("write");
    symlink("y", dir.path().join("x/link")).expect("symlink");
    let below = |client: &mut Client, ino, names: &[&str]| {
        let count = u32::try_from(names.len()).expect("count");
        let request = Readdir { node: Node::child(root, ino), cookie: 0, flags: 0, count };
        client.named(Op::Readdir, request, names).map(|reply| reply.body::<ReaddirReply>().count)
    };
    let ino = dir.path().join("x/y").metadata().expect("stat").ino();
    assert_eq!(below(&mut client, ino, &["x", "y"]), Ok(1));
    assert_eq!(below(&mut client, ino, &["x"]), Err(Errno::STALE));
    assert_eq!(below(&mut client, 0, &["x", "link"]), Err(Errno::NOTDIR));
    assert_eq!(below(&mut client, 0, &["x", ".."]), Err(Errno::INVAL));

    let set = |client: &mut Client, name: &[u8], value: &[u8]| {
        client.call(Op::SetXattr, SetXattr { node: Node::handle(root), flags: 0, reserved: 0 }, |writer| {
            writer.put_name(b"").put_bytes(name).put_bytes(value);
        })
    };
    assert_eq!(set(&mut client, b"security.capability", b"x").err(), Some(Errno::PERM));
    assert_eq!(set(&mut client, b"trusted.x", b"x").err(), Some(Errno::PERM));
    set(&mut client, b"user.k", b"value").expect("set");
    let get = |client: &mut Client, size: u64| {
        client.call(Op::GetXattr, GetXattr { node: Node::handle(root), size }, |writer| {
            writer.put_name(b"").put_bytes(b"user.k");
        })
    };
    assert_eq!(get(&mut client, 0).expect("get").bytes(), b"value");
    assert_eq!(get(&mut client, 3).err(), Some(Errno::RANGE));
    let names = client
        .named(Op::ListXattr, GetXattr { node: Node::handle(root), size: 0 }, &[""])
        .expect("list")
        .bytes();
    assert!(names.windows(7).any(|window| window == b"user.k\0"));
    client
        .call(Op::RemoveXattr, Node::handle(root), |writer| {
            writer.put_name(b"").put_bytes(b"user.k");
        })
        .expect("remove");
    assert_eq!(get(&mut client, 0).err(), Some(Errno::NODATA));
}

fn a_read_only_mount_refuses_changes_and_writers() {
    let Scratch { dir, mut client, .. } = scratch();
    fs::write(dir.path().join("f"), "x").expect("write");
    fs::set_permissions(dir.path().join("f"), fs::Permissions::from_mode(0o666)).expect("chmod");
    let attached = client.attach(1).expect("attach");
    assert_eq!(attached.flags, MOUNT_READ_ONLY);
    let root = attached.root.handle;
    let rename = Rename { old_directory: root, new_directory: root, flags: 0, reserved: 0 };
    let attr = SetAttr {
        node: Node::child(root, 0),
        valid: ATTR_MTIME_NOW,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
    };
    for (what, result) in [
        ("create", client.named(Op::Create, make(root, 0o600), &["n"])),
        ("mkdir", client.named(Op::Mkdir, make(root, 0o600), &["n"])),
        (
            "unlink",
            client.named(Op::Unlink, Unlink { node: Node::child(root, 0), flags: 0, reserved: 0 }, &["f"]),
        ),
        ("rename", client.named(Op::Rename, rename, &["f", "g"])),
        ("link", client.named(Op::Link, Link { source: Node::child(root, 0), directory: root }, &["f", "g"])),
        ("setattr", client.named(Op::SetAttr, attr, &["f"])),
        (
            "open",
            client.named(
                Op::Open,
                Open { node: Node::child(root, 0), flags: OPEN_WRITE, reserved: 0 },
                &["f"],
            ),
        ),
        (
            "truncate",
            client.named(
                Op::Open,
                Open { node: Node::child(root, 0), flags: OPEN_WRITE | OPEN_TRUNCATE, reserved: 0 },
                &["f"],
            ),
        ),
    ] {
        assert_eq!(result.err(), Some(Errno::ROFS), "{what}");
    }
    let best = Open { node: Node::child(root, 0), flags: OPEN_READ | OPEN_WRITE | OPEN_BEST, reserved: 0 };
    let reply = client.named(Op::Open, best, &["f"]).expect("open");
    assert_eq!(reply.body::<Entry>().handle, 0);
    assert!(reply.file().write_all(b"y").is_err());
    // Moving between mounts is refused even where the host could do it.
    let other = client.attach(0).expect("attach").root.handle;
    assert_eq!(
        client.named(Op::Rename, Rename { old_directory: other, ..rename }, &["f", "g"]).err(),
        Some(Errno::ROFS)
    );
    assert_eq!(
        client.named(Op::Link, Link { source: Node::child(root, 0), directory: other }, &["f", "g"]).err(),
        Some(Errno::XDEV)
    );
}

fn handles_channels_and_file_mounts() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs::write(dir.path().join("one"), "1").expect("write");
    let parent =
        rustix::fs::open(dir.path(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).expect("open");
    let root = MountRoot::File { directory: parent, name: b"one".to_vec() };
    let mut client = start(vec![MountConfig { root, readonly: false, allow_devices: false }]);
    let root = client.attach(0).expect("attach").root;
    assert!(root.stat.is_regular());
    let open = Open { node: Node::handle(root.handle), flags: OPEN_READ, reserved: 0 };
    assert!(client.named(Op::Open, open, &[""]).expect("open").donated.is_some());
    assert_eq!(
        client.named(Op::Open, Open { node: Node::child(root.handle, 0), ..open }, &["x"]).err(),
        Some(Errno::NOTDIR)
    );
    assert_eq!(client.attach(7).err(), Some(Errno::INVAL));

    let another = client.call(Op::Channel, [0u8; 0], |_| {}).expect("channel").donated.expect("socket");
    let mut second = Client { socket: another, process: None, writer: Writer::new(), sequence: 100 };
    assert!(second.named(Op::Open, open, &[""]).expect("open by the other channel").donated.is_some());

    client
        .call(Op::Close, 3u32, |writer| {
            writer.put(&root.handle).put(&root.handle).put(&u64::MAX);
        })
        .expect("close");
    assert_eq!(client.named(Op::Open, open, &[""]).err(), Some(Errno::BADF));
    let stats = client.call(Op::GetStats, 1u32, |writer| {
        writer.put(&Node::handle(root.handle)).put_name(b"");
    });
    let stats = stats.expect("get stats");
    let mut reader = stats.reader();
    assert_eq!(reader.get::<u32>(), Ok(1));
    assert_eq!(reader.get::<StatResult>().map(|result| result.errno), Ok(9));
}

/// A request that is nearly right: a known operation, small handles, short names.
fn nearly_valid() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(0u64),
        Just(1 << 32 | 1),
        Just(1 << 32 | 2),
        Just(2 << 32 | 2),
        0u64..40,
        any::<u64>()
    ];
    let name = prop_oneof![
        Just(b"a".to_vec()),
        Just(b"b".to_vec()),
        Just(b"link".to_vec()),
        Just(b"..".to_vec()),
        Just(Vec::new()),
        proptest::collection::vec(any::<u8>(), 0..12)
    ];
    (0u32..30, proptest::collection::vec(word, 0..14), proptest::collection::vec(name, 0..4), 0usize..8)
        .prop_map(|(op, words, names, cut)| {
            let mut message = Vec::new();
            message.extend(op.to_ne_bytes());
            message.extend(1u32.to_ne_bytes());
            for word in &words {
                message.extend(word.to_ne_bytes());
            }
            message.truncate(message.len() - cut.min(message.len()));
            for name in names {
                message.extend(u16::try_from(name.len()).unwrap_or(0).to_ne_bytes());
                message.extend(name);
            }
            message
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    fn nonsense_gets_an_error_and_touches_nothing_outside(
        messages in proptest::collection::vec(prop_oneof![nearly_valid(), proptest::collection::vec(any::<u8>(), 1..200)], 1..150)
    ) {
        let outer = tempfile::tempdir().expect("tempdir");
        fs::write(outer.path().join("secret"), "untouched").expect("write");
        let inner = outer.path().join("mount");
        fs::create_dir_all(inner.join("a/b")).expect("mkdir");
        symlink("../secret", inner.join("link")).expect("symlink");
        let before = fs::metadata(outer.path().join("secret")).expect("stat");
        let mut client = start(vec![mount(&inner, false)]);
        client.attach(0).expect("attach");
        client.attach(0).expect("attach");
        for message in messages {
            let (reply, donated) = client.exchange(&message);
            let header: ReplyHeader = Reader::new(&reply).get().expect("header");
            if let Some(fd) = donated {
                prop_assert_eq!(header.errno, 0);
                let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(fd.as_fd()).expect("stat").st_mode);
                prop_assert!(kind == rustix::fs::FileType::RegularFile || kind == rustix::fs::FileType::Socket);
            }
        }
        let after = fs::metadata(outer.path().join("secret")).expect("stat");
        prop_assert_eq!((before.ctime(), before.ctime_nsec(), before.ino()), (after.ctime(), after.ctime_nsec(), after.ino()));
        prop_assert_eq!(fs::read_dir(outer.path()).expect("list").count(), 2);
    }
}

const SCENARIOS: &[(&str, fn())] = &[
    ("walk_to_file_missing_symlink_and_file_in_the_way", walk_to_file_missing_symlink_and_file_in_the_way),
    ("names_cannot_leave", names_cannot_leave),
    ("create_write_rename_unlink", create_write_rename_unlink),
    ("attributes_symlinks_nodes_unnamed_files", attributes_symlinks_nodes_unnamed_files),
    ("listings_in_batches_and_xattrs", listings_in_batches_and_xattrs),
    ("a_read_only_mount_refuses_changes_and_writers", a_read_only_mount_refuses_changes_and_writers),
    ("handles_channels_and_file_mounts", handles_channels_and_file_mounts),
    (
        "nonsense_gets_an_error_and_touches_nothing_outside",
        nonsense_gets_an_error_and_touches_nothing_outside,
    ),
];

/// Failures are panics, which abort: the name printed last tells which scenario it was.
fn main() {
    let mut arguments = Arguments::from_args();
    // Forking needs a process with one thread, so the forked half comes first and all run one by one.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for (half, confined) in [("confined", true), ("open", false)] {
        for (name, scenario) in SCENARIOS {
            trials.push(Trial::test(format!("{half}/{name}"), move || {
                CONFINED.store(confined, Ordering::Relaxed);
                scenario();
                Ok(())
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}
