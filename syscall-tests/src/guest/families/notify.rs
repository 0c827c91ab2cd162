//! inotify.

use crate::case::{Case, case, close, cstr, file, open};
use crate::out::{done, ret};
use crate::{say, sys};
use libc::{
    IN_ALL_EVENTS, IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MODIFY, IN_MOVED_FROM,
    IN_MOVED_TO, IN_NONBLOCK, IN_ONESHOT, IN_ONLYDIR,
};

const NAMES: &[(u32, &str)] = &[
    (0x1, "access"),
    (0x2, "modify"),
    (0x4, "attrib"),
    (0x8, "close_write"),
    (0x10, "close_nowrite"),
    (0x20, "open"),
    (0x40, "moved_from"),
    (0x80, "moved_to"),
    (0x100, "create"),
    (0x200, "delete"),
    (0x400, "delete_self"),
    (0x800, "move_self"),
    (0x2000, "unmount"),
    (0x4000, "overflow"),
    (0x8000, "ignored"),
    (0x4000_0000, "isdir"),
];

#[repr(C, align(8))]
struct Buffer([u8; 8192]);

fn events(fd: i32) -> String {
    let mut b = Buffer([0; 8192]);
    let n = sys!(read, fd, &mut b, 8192);
    if n < 0 {
        return crate::out::number(n);
    }
    let mut list = Vec::new();
    let mut cookies = Vec::new();
    let mut at = 0;
    while at < n as usize {
        let word =
            |i: usize| u32::from_ne_bytes([b.0[at + i], b.0[at + i + 1], b.0[at + i + 2], b.0[at + i + 3]]);
        let mask = word(4);
        let what: Vec<&str> = NAMES.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, n)| *n).collect();
        let name = crate::out::until_nul(&b.0[at + 16..at + 16 + word(12) as usize]);
        if word(8) != 0 && !cookies.contains(&word(8)) {
            cookies.push(word(8));
        }
        let cookie = cookies.iter().position(|c| *c == word(8)).map_or(String::new(), |i| format!("#{i}"));
        list.push(format!(
            "{}:{}{cookie}{}",
            word(0),
            what.join("|"),
            if name.is_empty() { name } else { format!("({name})") }
        ));
        at += 16 + word(12) as usize;
    }
    list.join(" ")
}

fn watch(fd: i32, path: &str, mask: u32) -> isize {
    sys!(inotify_add_watch, fd, &*cstr(path), mask)
}

pub const CASES: &[Case] = &[
    case("inotify_init1/files_in_a_directory", "inotify_add_watch read", || {
        sys!(mkdir, c"d", 0o755);
        let i = done("init", sys!(inotify_init1, IN_NONBLOCK)) as i32;
        ret("watch", watch(i, "d", IN_ALL_EVENTS));
        say!("nothing {}", events(i));
        let fd = file("d/f", b"x");
        say!("{}", events(i));
        sys!(write, fd, b"y", 1);
        close(fd);
        say!("{}", events(i));
        sys!(chmod, c"d/f", 0o600);
        say!("{}", events(i));
        sys!(rename, c"d/f", c"d/g");
        say!("{}", events(i));
        close(open("d/g", libc::O_RDONLY));
        say!("{}", events(i));
        sys!(link, c"d/g", c"d/h");
        say!("{}", events(i));
        sys!(unlink, c"d/g");
        sys!(unlink, c"d/h");
        say!("{}", events(i));
        sys!(mkdir, c"d/sub", 0o755);
        sys!(rmdir, c"d/sub");
        say!("{}", events(i));
        sys!(rmdir, c"d");
        say!("{}", events(i));
    }),
    case("inotify_add_watch/on_a_file_and_masks", "inotify_rm_watch", || {
        file("f", b"x");
        let i = sys!(inotify_init1, IN_NONBLOCK) as i32;
        let w = ret("watch", watch(i, "f", IN_MODIFY | IN_CLOSE_WRITE));
        ret("same watch", watch(i, "f", IN_MODIFY) - w);
        let fd = open("f", libc::O_RDWR);
        sys!(write, fd, b"y", 1);
        sys!(write, fd, b"y", 1);
        say!("merged {}", events(i));
        close(fd);
        say!("narrowed {}", events(i));
        ret("add", watch(i, "f", libc::IN_MASK_ADD | IN_DELETE_SELF) - w);
        sys!(truncate, c"f", 0);
        say!("{}", events(i));
        ret("remove", sys!(inotify_rm_watch, i, w));
        say!("{}", events(i));
        ret("remove again", sys!(inotify_rm_watch, i, w));
        watch(i, "f", IN_MODIFY | IN_ONESHOT);
        sys!(truncate, c"f", 1);
        sys!(truncate, c"f", 2);
        say!("once {}", events(i));
        watch(i, "f", IN_DELETE_SELF | libc::IN_ATTRIB);
        sys!(unlink, c"f");
        say!("{}", events(i));
    }),
    case("inotify_add_watch/moves_between_directories", "rename", || {
        sys!(mkdir, c"a", 0o755);
        sys!(mkdir, c"b", 0o755);
        let i = sys!(inotify_init1, IN_NONBLOCK) as i32;
        watch(i, "a", IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE);
        watch(i, "b", IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE);
        close(file("a/f", b""));
        close(file("b/g", b""));
        events(i);
        sys!(rename, c"a/f", c"b/f");
        say!("{}", events(i));
        sys!(rename, c"b/f", c"b/g");
        say!("{}", events(i));
        sys!(rename, c"b/g", c"out");
        say!("{}", events(i));
    }),
    case("inotify_init1/errors_and_reading", "inotify_init inotify_add_watch poll ioctl", || {
        ret("flags", sys!(inotify_init1, 1));
        done("old call", sys!(inotify_init));
        let i = sys!(inotify_init1, IN_NONBLOCK) as i32;
        ret("missing", watch(i, "zz", IN_ALL_EVENTS));
        ret("no mask", watch(i, ".", 0));
        file("f", b"");
        ret("only directory", watch(i, "f", IN_ALL_EVENTS | IN_ONLYDIR));
        ret("bad fd", watch(99, ".", IN_ALL_EVENTS));
        ret("not inotify", watch(0, ".", IN_ALL_EVENTS));
        ret("remove from another", sys!(inotify_rm_watch, 0, 1));
        ret("mask create twice", watch(i, ".", IN_CREATE | libc::IN_MASK_CREATE));
        ret("mask create again", watch(i, ".", IN_CREATE | libc::IN_MASK_CREATE));
        close(file("a-name", b""));
        let mut n = 0i32;
        ret("FIONREAD", sys!(ioctl, i, libc::FIONREAD, &mut n));
        say!("{n}");
        let mut p = libc::pollfd { fd: i, events: libc::POLLIN, revents: 0 };
        ret("poll", sys!(poll, &mut p, 1, 0));
        ret("too small", sys!(read, i, &mut [0u8; 20], 20));
        say!("{}", events(i));
        ret("write", sys!(write, i, b"x", 1));
        for _ in 0..3 {
            sys!(unlink, c"a-name");
            close(file("a-name", b""));
        }
        say!("creates are not merged with gaps {}", events(i));
    }),
];
