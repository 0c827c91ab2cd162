//! fanotify: groups, marks, and the events they get.

use crate::case::{Case, NOWHERE, asleep, case, close, file, fork, in_child, wait};
use crate::out::{claim, done, must, ret, text};
use crate::{say, sys};
use libc::{AT_FDCWD, O_CREAT, O_RDONLY, O_RDWR, O_WRONLY};

const ADD: u32 = 1;
const REMOVE: u32 = 2;
const FLUSH: u32 = 0x80;
const MOUNT: u32 = 0x10;
const FILESYSTEM: u32 = 0x100;
const ON_CHILD: u64 = 0x0800_0000;
const ONDIR: u64 = 0x4000_0000;
const REPORT_FID: u32 = 0x200;
const REPORT_DIR_FID: u32 = 0x400;
const REPORT_NAME: u32 = 0x800;
const NONBLOCK: u32 = 2;
/// Open, modify, both closes.
const PLAIN: u64 = 0x3a;

fn mask_words(mask: u64) -> String {
    let names = [
        (1, "access"),
        (2, "modify"),
        (4, "attrib"),
        (8, "close-write"),
        (0x10, "close"),
        (0x20, "open"),
        (0x40, "from"),
        (0x80, "to"),
        (0x100, "create"),
        (0x200, "delete"),
        (0x400, "delete-self"),
        (0x800, "move-self"),
        (0x1000, "exec"),
        (0x4000, "overflow"),
        (ONDIR, "dir"),
    ];
    let words: Vec<&str> = names.iter().filter(|(b, _)| mask & b != 0).map(|(_, n)| *n).collect();
    words.join("+")
}

/// Says what waits in a group.
fn events(group: isize) {
    let mut b = [0u8; 8192];
    let n = sys!(read, group, &mut b, b.len());
    if n <= 0 {
        say!("  read: {}", crate::out::number(n));
        return;
    }
    let mut at = 0;
    while at < n as usize {
        let u32_at = |i: usize| u32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let len = u32_at(at) as usize;
        let mask = u64::from(u32_at(at + 8)) | u64::from(u32_at(at + 12)) << 32;
        let fd = u32_at(at + 16) as i32;
        let own = u32_at(at + 20) as isize == sys!(getpid);
        let mut line = format!("  {} own {own}", mask_words(mask));
        if fd >= 0 {
            let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
            let name = name.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            line.push_str(&format!(" fd of {name}"));
            close(fd);
        }
        let mut record = at + 24;
        while record < at + len {
            let size = u16::from_ne_bytes([b[record + 2], b[record + 3]]) as usize;
            let bytes = u32_at(record + 12) as usize;
            let name = &b[record + 20 + bytes..record + size];
            let name = name.split(|c| *c == 0).next().unwrap_or_default();
            line.push_str(&format!(" record {} '{}'", b[record], text(name)));
            record += size;
        }
        say!("{line}");
        at += len;
    }
}

/// Runs the body in a fresh tmpfs in a mount namespace of its own.
fn in_tmpfs(body: impl FnOnce()) {
    in_child("tmpfs", || {
        sys!(unshare, libc::CLONE_NEWNS);
        sys!(mount, 0, c"/", 0, libc::MS_REC | libc::MS_PRIVATE, 0);
        sys!(mkdir, c"t", 0o755);
        must("mount", sys!(mount, c"none", c"t", c"tmpfs", 0, 0));
        body();
        0
    });
}

fn touch(path: &str) {
    close(file(path, b"x"));
}

pub const CASES: &[Case] = &[
    case("fanotify_init/flags", "", || {
        done("plain", sys!(fanotify_init, 0, O_RDONLY));
        done("handles", sys!(fanotify_init, REPORT_FID | REPORT_DIR_FID | REPORT_NAME, 0));
        done("content class", sys!(fanotify_init, 4, 0));
        ret("both classes", sys!(fanotify_init, 0xc, 0));
        ret("unknown", sys!(fanotify_init, 0x8000_0000u32, 0));
        ret("unknown event flags", sys!(fanotify_init, 0, O_CREAT));
        ret("mode 3", sys!(fanotify_init, 0, 3));
        ret("handles with a class", sys!(fanotify_init, 4 | REPORT_FID, 0));
        ret("names without directories", sys!(fanotify_init, REPORT_NAME, 0));
        ret("target without all", sys!(fanotify_init, 0x1000 | REPORT_FID, 0));
        in_child("user", || {
            sys!(setresuid, 9, 9, 9);
            ret("by descriptor", sys!(fanotify_init, 0, 0));
            ret("unlimited", sys!(fanotify_init, REPORT_FID | 0x10, 0));
            let g = sys!(fanotify_init, REPORT_FID, 0);
            done("by handle", g);
            ret("mount mark", sys!(fanotify_mark, g, ADD | MOUNT, PLAIN, AT_FDCWD, c"/tmp"));
            0
        });
        let g = sys!(fanotify_init, 1, 0);
        ret("close on exec", sys!(fcntl, g, libc::F_GETFD));
        ret("write", sys!(write, g, b"12345678", 8));
        ret("seek", sys!(lseek, g, 0, 0));
    }),
    case("fanotify_mark/errors", "fanotify_init", || {
        in_tmpfs(|| {
            touch("t/f");
            let g = sys!(fanotify_init, NONBLOCK, 0);
            let mark = |flags: u32, mask: u64, path: &std::ffi::CStr| {
                sys!(fanotify_mark, g, flags, mask, AT_FDCWD, path)
            };
            ret("no command", mark(0, PLAIN, c"t/f"));
            ret("two commands", mark(ADD | REMOVE, PLAIN, c"t/f"));
            ret("no events", mark(ADD, 0, c"t/f"));
            ret("unknown flag", mark(ADD | 0x8000, PLAIN, c"t/f"));
            ret("unknown event", mark(ADD, 1 << 40, c"t/f"));
            ret("both types", mark(ADD | MOUNT | FILESYSTEM, PLAIN, c"t/f"));
            ret("names by descriptor", mark(ADD, 0x100, c"t"));
            ret("missing", mark(ADD, PLAIN, c"t/none"));
            ret("only directories", mark(ADD | 8, PLAIN, c"t/f"));
            ret("remove none", mark(REMOVE, PLAIN, c"t/f"));
            ret("flush with more", mark(FLUSH | 8, 0, c"t/f"));
            ret("flush", mark(FLUSH, 0, c"t/f"));
            ret("bad path", sys!(fanotify_mark, g, ADD, PLAIN, AT_FDCWD, NOWHERE));
            ret("bad descriptor", sys!(fanotify_mark, -1, ADD, PLAIN, AT_FDCWD, c"t/f"));
            ret("not a group", sys!(fanotify_mark, file("p", b""), ADD, PLAIN, AT_FDCWD, c"t/f"));
            let dir = sys!(open, c"t", O_RDONLY);
            ret("by descriptor", sys!(fanotify_mark, g, ADD, PLAIN, dir, 0));
            ret("evictable mount", mark(ADD | MOUNT | 0x200, PLAIN, c"t"));
            ret("both ignores", mark(ADD | 0x20 | 0x400, PLAIN, c"t"));
        });
    }),
    case("fanotify_mark/events_by_descriptor", "fanotify_init", || {
        in_tmpfs(|| {
            touch("t/f");
            let g = sys!(fanotify_init, NONBLOCK, O_RDONLY);
            ret("mark", sys!(fanotify_mark, g, ADD, PLAIN | 1, AT_FDCWD, c"t/f"));
            events(g);
            let fd = sys!(open, c"t/f", O_RDWR);
            sys!(write, fd, b"abc", 3);
            sys!(lseek, fd, 0, 0);
            sys!(read, fd, &mut [0u8; 4], 4);
            close(fd as i32);
            events(g);
            in_child("another", || {
                close(sys!(open, c"t/f", O_RDONLY) as i32);
                0
            });
            events(g);
            touch("t/other");
            events(g);
            ret("directory", sys!(fanotify_mark, g, ADD, PLAIN | ON_CHILD, AT_FDCWD, c"t"));
            touch("t/third");
            events(g);
            close(sys!(open, c"t", O_RDONLY) as i32);
            say!("directories are not asked for");
            events(g);
            ret("with directories", sys!(fanotify_mark, g, ADD, 0x20 | ONDIR, AT_FDCWD, c"t"));
            close(sys!(open, c"t", O_RDONLY) as i32);
            events(g);
            ret("remove open", sys!(fanotify_mark, g, REMOVE, 0x20, AT_FDCWD, c"t"));
            close(sys!(open, c"t/third", O_RDONLY) as i32);
            events(g);
            ret("flush", sys!(fanotify_mark, g, FLUSH, 0, AT_FDCWD, 0));
            touch("t/f");
            events(g);
            ret("small buffer", sys!(fanotify_mark, g, ADD, PLAIN, AT_FDCWD, c"t/f"));
            touch("t/f");
            ret("read", sys!(read, g, &mut [0u8; 20], 20));
        });
    }),
    case("fanotify_mark/events_by_handle", "fanotify_init", || {
        in_tmpfs(|| {
            let every = 0xfff | ONDIR | ON_CHILD;
            for (label, flags) in [
                ("object", REPORT_FID),
                ("directory", REPORT_DIR_FID),
                ("directory and name", REPORT_DIR_FID | REPORT_NAME),
                ("all", REPORT_FID | REPORT_DIR_FID | REPORT_NAME),
            ] {
                say!("{label}");
                let g = sys!(fanotify_init, NONBLOCK | flags, 0);
                ret("mark", sys!(fanotify_mark, g, ADD, every, AT_FDCWD, c"t"));
                touch("t/new");
                events(g);
                sys!(rename, c"t/new", c"t/moved");
                events(g);
                sys!(chmod, c"t/moved", 0o600);
                events(g);
                sys!(unlink, c"t/moved");
                events(g);
                sys!(mkdir, c"t/d", 0o755);
                events(g);
                sys!(rmdir, c"t/d");
                events(g);
                close(g as i32);
            }
        });
    }),
    case("fanotify_mark/mounts_and_file_systems", "fanotify_init", || {
        in_tmpfs(|| {
            sys!(mkdir, c"t/d", 0o755);
            touch("t/d/f");
            let g = sys!(fanotify_init, NONBLOCK, 0);
            ret("mount", sys!(fanotify_mark, g, ADD | MOUNT, PLAIN, AT_FDCWD, c"t"));
            touch("t/d/f");
            events(g);
            sys!(mkdir, c"b", 0o755);
            ret("bind", sys!(mount, c"t", c"b", 0, libc::MS_BIND, 0));
            touch("b/d/f");
            say!("through another mount");
            events(g);
            ret("file system", sys!(fanotify_mark, g, ADD | FILESYSTEM, 0x20, AT_FDCWD, c"t"));
            touch("b/d/f");
            events(g);
            ret("ignore", sys!(fanotify_mark, g, ADD | 0x20 | 0x40, 0x20, AT_FDCWD, c"t/d/f"));
            touch("t/d/f");
            events(g);
            ret("remove", sys!(fanotify_mark, g, REMOVE | MOUNT, PLAIN, AT_FDCWD, c"t"));
            ret("again", sys!(fanotify_mark, g, REMOVE | MOUNT, PLAIN, AT_FDCWD, c"t"));
            let g = sys!(fanotify_init, NONBLOCK | REPORT_FID | REPORT_DIR_FID | REPORT_NAME, 0);
            ret("names on a mount", sys!(fanotify_mark, g, ADD | MOUNT, 0x100, AT_FDCWD, c"t"));
            ret("names", sys!(fanotify_mark, g, ADD | FILESYSTEM, 0x3c0 | ONDIR, AT_FDCWD, c"t"));
            touch("b/d/new");
            sys!(unlink, c"t/d/new");
            sys!(mkdir, c"t/d/e", 0o755);
            events(g);
        });
    }),
    case("fanotify_init/waiting_and_executing", "fanotify_mark poll", || {
        in_tmpfs(|| {
            touch("t/f");
            let g = sys!(fanotify_init, 0, 0);
            sys!(fanotify_mark, g, ADD, 0x20, AT_FDCWD, c"t/f");
            let mut p = libc::pollfd { fd: g as i32, events: libc::POLLIN, revents: 0 };
            ret("nothing", sys!(poll, &mut p, 1, 0));
            let reader = fork(|| {
                let n = sys!(read, g, &mut [0u8; 256], 256);
                claim("one event", n == 24);
                0
            });
            asleep(reader);
            close(sys!(open, c"t/f", O_WRONLY) as i32);
            say!("{}", wait(reader));
            close(sys!(open, c"t/f", O_RDONLY) as i32);
            ret("something", sys!(poll, &mut p, 1, 0));
            let mut n = 0i32;
            ret("bytes", sys!(ioctl, g, libc::FIONREAD, &mut n));
            say!("{n}");
            let copy = std::fs::copy("/proc/self/exe", "t/program").is_ok();
            claim("copied", copy);
            sys!(chmod, c"t/program", 0o755);
            let g = sys!(fanotify_init, NONBLOCK, 0);
            sys!(fanotify_mark, g, ADD, 0x1000, AT_FDCWD, c"t/program");
            let child = fork(|| {
                let args = [c"t/program".as_ptr(), c"helper:exit".as_ptr(), c"3".as_ptr(), std::ptr::null()];
                sys!(execve, c"t/program", &args, 0) as i32
            });
            say!("{}", wait(child));
            events(g);
        });
    }),
];
