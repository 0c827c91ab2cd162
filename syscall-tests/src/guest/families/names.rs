//! Names: open and its flags, creation and removal, links, rename, directories, path lookup.

use crate::case::{Case, NOWHERE, case, close, cstr, file, fork, in_child, open, wait, zeroed};
use crate::out::{done, must, ret, text};
use crate::{say, sys};
use libc::{
    AT_EMPTY_PATH, AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, O_APPEND, O_CLOEXEC, O_CREAT, O_DIRECTORY,
    O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY,
};

fn ls(dir: &str) -> String {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .map(|d| d.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names.join(" ")
}

fn readlink(path: &str) -> String {
    let mut b = [0u8; 300];
    let n = sys!(readlink, &*cstr(path), &mut b, b.len());
    if n < 0 { crate::out::number(n) } else { text(&b[..n as usize]) }
}

fn mkdir(path: &str) {
    must("mkdir", sys!(mkdir, &*cstr(path), 0o755));
}

fn as_nobody(label: &str, body: impl FnOnce() -> i32) {
    in_child(label, || {
        must("setgid", sys!(setresgid, 1000, 1000, 1000));
        must("setuid", sys!(setresuid, 1000, 1000, 1000));
        body()
    });
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

fn openat2(dir: i32, path: &str, flags: i32, resolve: u64) -> isize {
    let how = OpenHow { flags: flags as u64, mode: 0, resolve };
    sys!(openat2, dir, &*cstr(path), &how, 24)
}

#[repr(C, align(8))]
struct Aligned([u8; 1024]);

pub const CASES: &[Case] = &[
    case("open/create_and_truncate", "", || {
        done("create", sys!(open, c"f", O_CREAT | O_WRONLY, 0o640));
        ret("exclusive on existing", sys!(open, c"f", O_CREAT | O_EXCL | O_WRONLY, 0o640));
        let fd = open("f", O_WRONLY);
        sys!(write, fd, b"hello", 5);
        done("truncate", sys!(open, c"f", O_TRUNC | O_RDONLY, 0));
        ret("size", sys!(lseek, fd, 0, libc::SEEK_END));
        ret("missing", sys!(open, c"g", O_RDONLY, 0));
        ret("empty", sys!(open, c"", O_RDONLY, 0));
        ret("bad address", sys!(open, NOWHERE, O_RDONLY, 0));
        ret("null", sys!(open, 0, O_RDONLY, 0));
    }),
    case("open/lowest_descriptor", "close dup", || {
        ret("first", sys!(open, c".", O_RDONLY, 0));
        ret("second", sys!(open, c".", O_RDONLY, 0));
        ret("third", sys!(open, c".", O_RDONLY, 0));
        ret("close", sys!(close, 4));
        ret("again", sys!(open, c".", O_RDONLY, 0));
    }),
    case("open/umask_and_mode", "umask fstat", || {
        ret("umask", sys!(umask, 0o027));
        ret("umask back", sys!(umask, 0o1777));
        sys!(umask, 0o026);
        let fd = done("create", sys!(open, c"f", O_CREAT | O_WRONLY, 0o7777));
        let mut st: libc::stat = zeroed();
        sys!(fstat, fd, &mut st);
        say!("mode {:o}", st.st_mode);
    }),
    case("open/directories", "", || {
        mkdir("d");
        ret("write", sys!(open, c"d", O_WRONLY, 0));
        ret("read write", sys!(open, c"d", O_RDWR, 0));
        done("read", sys!(open, c"d", O_RDONLY, 0));
        ret("create", sys!(open, c"d", O_RDONLY | O_CREAT, 0o644));
        ret("create with slash", sys!(open, c"new/", O_RDWR | O_CREAT, 0o644));
        file("f", b"");
        ret("O_DIRECTORY on a file", sys!(open, c"f", O_RDONLY | O_DIRECTORY, 0));
        ret("file with slash", sys!(open, c"f/", O_RDONLY, 0));
        ret("below a file", sys!(open, c"f/x", O_RDONLY, 0));
        ret("O_DIRECTORY and O_CREAT", sys!(open, c"n", O_RDONLY | O_CREAT | O_DIRECTORY, 0o644));
        say!("left: {}", ls("."));
    }),
    case("open/symlinks", "symlink readlink", || {
        file("f", b"x");
        sys!(symlink, c"f", c"l");
        sys!(symlink, c"nowhere", c"dangling");
        done("through", sys!(open, c"l", O_RDONLY, 0));
        ret("nofollow", sys!(open, c"l", O_RDONLY | O_NOFOLLOW, 0));
        done("path nofollow", sys!(open, c"l", O_PATH | O_NOFOLLOW, 0));
        ret("dangling", sys!(open, c"dangling", O_RDONLY, 0));
        ret("dangling exclusive", sys!(open, c"dangling", O_RDWR | O_CREAT | O_EXCL, 0o644));
        done("dangling create", sys!(open, c"dangling", O_RDWR | O_CREAT, 0o644));
        say!("left: {}", ls("."));
    }),
    case("open/loops_and_length", "symlink", || {
        sys!(symlink, c"b", c"a");
        sys!(symlink, c"a", c"b");
        ret("loop", sys!(open, c"a", O_RDONLY, 0));
        for i in 0..41 {
            sys!(symlink, &*cstr(format!("s{}", i + 1)), &*cstr(format!("s{i}")));
        }
        file("s41", b"");
        done("40 links", sys!(open, c"s1", O_RDONLY, 0));
        ret("41 links", sys!(open, c"s0", O_RDONLY, 0));
        ret("255", sys!(open, &*cstr("n".repeat(255)), O_RDONLY, 0));
        ret("256", sys!(open, &*cstr("n".repeat(256)), O_RDONLY, 0));
        ret("4095", sys!(open, &*cstr("./".repeat(2047) + "a"), O_RDONLY, 0));
        ret("4096", sys!(open, &*cstr("./".repeat(2047) + "aa"), O_RDONLY, 0));
        done("create 255", sys!(open, &*cstr("n".repeat(255)), O_RDWR | O_CREAT, 0o644));
    }),
    case("open/path_descriptor", "fstat fchmod ioctl fchdir", || {
        file("f", b"abc");
        let fd = open("f", O_PATH);
        let mut st: libc::stat = zeroed();
        ret("fstat", sys!(fstat, fd, &mut st));
        ret("fchmod", sys!(fchmod, fd, 0o600));
        ret("fchown", sys!(fchown, fd, 0, 0));
        ret("fsync", sys!(fsync, fd));
        ret("ioctl", sys!(ioctl, fd, libc::FIONREAD, &mut st));
        ret("mmap", sys!(mmap, 0, 4096, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0));
        say!("flags {:o}", sys!(fcntl, fd, libc::F_GETFL));
        let d = open(".", O_PATH | O_DIRECTORY);
        ret("fchdir", sys!(fchdir, d));
        let mut b = Aligned([0; 1024]);
        ret("getdents", sys!(getdents64, d, &mut b, 1024));
        done("openat below", sys!(openat, d, c"f", O_RDONLY, 0));
    }),
    case("open/proc_self_fd", "unlink", || {
        let fd = file("f", b"hello");
        let again = done("reopen", sys!(open, &*cstr(format!("/proc/self/fd/{fd}")), O_RDONLY, 0)) as i32;
        let mut b = [0u8; 8];
        ret("read", sys!(read, again, &mut b, 8));
        sys!(unlink, c"f");
        done("reopen unlinked", sys!(open, &*cstr(format!("/proc/self/fd/{fd}")), O_RDONLY, 0));
        let link = readlink(&format!("/proc/self/fd/{fd}"));
        say!("ends {}", &link[link.len().saturating_sub(12)..]);
        ret("no such", sys!(open, c"/proc/self/fd/99", O_RDONLY, 0));
    }),
    case("open/busy_text", "execve", || {
        std::fs::copy("/proc/self/exe", "prog").ok();
        sys!(chmod, c"prog", 0o755);
        let w = open("prog", O_WRONLY);
        in_child("exec while written", || {
            let argv = [c"prog".as_ptr(), c"--calls".as_ptr(), std::ptr::null()];
            ret("execve", sys!(execve, c"prog", &argv, 0));
            0
        });
        close(w);
    }),
    case("open/tmpfile", "linkat", || {
        let fd = done("tmpfile", sys!(open, c".", O_TMPFILE | O_RDWR, 0o600)) as i32;
        ret("write", sys!(write, fd, b"hidden", 6));
        say!("listed: '{}'", ls("."));
        let from = cstr(format!("/proc/self/fd/{fd}"));
        ret("link in", sys!(linkat, AT_FDCWD, &*from, AT_FDCWD, c"seen", AT_SYMLINK_FOLLOW));
        say!("listed: '{}'", ls("."));
        ret("read only", sys!(open, c".", O_TMPFILE | O_RDONLY, 0o600));
        let ex = done("exclusive", sys!(open, c".", O_TMPFILE | O_RDWR | O_EXCL, 0o600));
        ret("link exclusive", sys!(linkat, ex, c"", AT_FDCWD, c"no", AT_EMPTY_PATH));
        file("f", b"");
        ret("in a file", sys!(open, c"f", O_TMPFILE | O_RDWR, 0o600));
    }),
    case("open/permissions", "setresuid chmod", || {
        file("f", b"");
        sys!(chmod, c".", 0o777);
        sys!(chmod, c"f", 0o640);
        as_nobody("other", || {
            ret("read", sys!(open, c"f", O_RDONLY, 0));
            ret("write", sys!(open, c"f", O_WRONLY, 0));
            done("path", sys!(open, c"f", O_PATH, 0));
            ret("create", sys!(open, c"mine", O_CREAT | O_RDWR, 0));
            ret("own without mode", sys!(open, c"mine", O_RDWR, 0));
            0
        });
        sys!(chmod, c".", 0o700);
        as_nobody("no search", || {
            ret("open", sys!(open, c"f", O_RDONLY, 0));
            ret("missing", sys!(open, c"zzz", O_RDONLY, 0));
            0
        });
        sys!(chmod, c"f", 0);
        done("root", sys!(open, c"f", O_RDWR, 0));
    }),
    case("open/protected_sticky", "chown", || {
        mkdir("t");
        sys!(chmod, c"t", 0o1777);
        file("t/roots", b"");
        sys!(chmod, c"t/roots", 0o666);
        as_nobody("in sticky", || {
            ret("unlink", sys!(unlink, c"t/roots"));
            ret("rename", sys!(rename, c"t/roots", c"t/x"));
            done("mine", sys!(open, c"t/mine", O_CREAT | O_RDWR, 0o644));
            ret("unlink mine", sys!(unlink, c"t/mine"));
            0
        });
    }),
    case("creat/basics", "", || {
        let fd = done("creat", sys!(creat, c"f", 0o600));
        say!("access mode {}", sys!(fcntl, fd, libc::F_GETFL) & 3);
        mkdir("d");
        ret("directory", sys!(creat, c"d", 0o600));
        ret("missing parent", sys!(creat, c"x/y", 0o600));
    }),
    case("openat/directory_descriptor", "mkdirat", || {
        ret("mkdirat", sys!(mkdirat, AT_FDCWD, c"d", 0o755));
        let d = open("d", O_RDONLY | O_DIRECTORY);
        done("create below", sys!(openat, d, c"f", O_CREAT | O_RDWR, 0o644));
        ret("missing", sys!(openat, d, c"g", O_RDONLY, 0));
        ret("bad descriptor", sys!(openat, 99, c"f", O_RDONLY, 0));
        done("absolute ignores it", sys!(openat, 99, c"/dev/null", O_RDONLY, 0));
        let f = open("d/f", O_RDONLY);
        ret("file as directory", sys!(openat, f, c"x", O_RDONLY, 0));
        ret("empty", sys!(openat, d, c"", O_RDONLY, 0));
        sys!(rename, c"d", c"e");
        done("after rename", sys!(openat, d, c"f", O_RDONLY, 0));
        sys!(unlink, c"e/f");
        sys!(rmdir, c"e");
        ret("create in removed", sys!(openat, d, c"f", O_CREAT | O_RDWR, 0o644));
    }),
    case("openat2/resolve", "symlink", || {
        mkdir("d");
        file("d/f", b"");
        file("top", b"");
        sys!(symlink, c"../top", c"d/up");
        sys!(symlink, c"f", c"d/in");
        sys!(symlink, c"/top", c"d/abs");
        let d = open("d", O_RDONLY | O_DIRECTORY);
        const BENEATH: u64 = 0x08;
        const IN_ROOT: u64 = 0x10;
        const NO_SYMLINKS: u64 = 0x04;
        const NO_MAGIC: u64 = 0x02;
        const NO_XDEV: u64 = 0x01;
        done("plain", openat2(d, "f", O_RDONLY, 0));
        done("beneath", openat2(d, "f", O_RDONLY, BENEATH));
        done("beneath link inside", openat2(d, "in", O_RDONLY, BENEATH));
        ret("beneath link up", openat2(d, "up", O_RDONLY, BENEATH));
        ret("beneath dotdot", openat2(d, "../top", O_RDONLY, BENEATH));
        ret("beneath absolute", openat2(d, "/dev/null", O_RDONLY, BENEATH));
        ret("in root absolute", openat2(d, "/f", O_RDONLY, IN_ROOT) >> 8);
        ret("in root dotdot", openat2(d, "../../f", O_RDONLY, IN_ROOT) >> 8);
        ret("in root link", openat2(d, "abs", O_RDONLY, IN_ROOT));
        ret("no symlinks", openat2(d, "in", O_RDONLY, NO_SYMLINKS));
        ret("no magic", openat2(AT_FDCWD, "/proc/self/cwd", O_RDONLY, NO_MAGIC));
        ret("no xdev", openat2(AT_FDCWD, "/proc/self", O_RDONLY, NO_XDEV));
        ret("beneath and in root", openat2(d, "f", O_RDONLY, BENEATH | IN_ROOT));
        ret("unknown resolve", openat2(d, "f", O_RDONLY, 1 << 40));
    }),
    case("openat2/how", "", || {
        file("f", b"");
        let how = OpenHow { flags: O_RDONLY as u64, mode: 0, resolve: 0 };
        ret("small", sys!(openat2, AT_FDCWD, c"f", &how, 16));
        ret("zero", sys!(openat2, AT_FDCWD, c"f", &how, 0));
        let larger = [0u64; 5];
        done("larger with zeros", sys!(openat2, AT_FDCWD, c"f", &larger, 40));
        let larger = [0u64, 0, 0, 1, 0];
        ret("larger with a bit", sys!(openat2, AT_FDCWD, c"f", &larger, 40));
        ret("page more", sys!(openat2, AT_FDCWD, c"f", &larger, 5000));
        let how = OpenHow { flags: O_RDONLY as u64, mode: 0o644, resolve: 0 };
        ret("mode without create", sys!(openat2, AT_FDCWD, c"f", &how, 24));
        let how = OpenHow { flags: 1 << 40, mode: 0, resolve: 0 };
        ret("unknown flag", sys!(openat2, AT_FDCWD, c"f", &how, 24));
        let how = OpenHow { flags: (O_CREAT | O_RDWR) as u64, mode: 0o10000, resolve: 0 };
        ret("bad mode", sys!(openat2, AT_FDCWD, c"g", &how, 24));
        ret("bad address", sys!(openat2, AT_FDCWD, c"f", NOWHERE, 24));
    }),
    case("mkdir/basics", "rmdir", || {
        ret("mkdir", sys!(mkdir, c"d", 0o777));
        ret("exists", sys!(mkdir, c"d", 0o777));
        ret("with slash", sys!(mkdir, c"e/", 0o777));
        ret("missing parent", sys!(mkdir, c"x/y", 0o777));
        ret("empty", sys!(mkdir, c"", 0o777));
        ret("dot", sys!(mkdir, c".", 0o777));
        ret("root", sys!(mkdir, c"/", 0o777));
        file("f", b"");
        ret("below a file", sys!(mkdir, c"f/x", 0o777));
        ret("on a file", sys!(mkdir, c"f", 0o777));
        sys!(symlink, c"gone", c"l");
        ret("on a dangling link", sys!(mkdir, c"l", 0o777));
        let mut st: libc::stat = zeroed();
        sys!(stat, c"d", &mut st);
        say!("mode {:o} links {}", st.st_mode, st.st_nlink);
    }),
    case("mkdir/setgid_inherits", "chmod chown", || {
        mkdir("d");
        sys!(chown, c"d", 0, 4321);
        sys!(chmod, c"d", 0o2775);
        mkdir("d/e");
        file("d/f", b"");
        let mut st: libc::stat = zeroed();
        sys!(stat, c"d/e", &mut st);
        say!("directory {:o} group {}", st.st_mode, st.st_gid);
        sys!(stat, c"d/f", &mut st);
        say!("file {:o} group {}", st.st_mode, st.st_gid);
    }),
    case("rmdir/errors", "mkdir", || {
        mkdir("d");
        mkdir("d/e");
        ret("not empty", sys!(rmdir, c"d"));
        ret("dot", sys!(rmdir, c"d/."));
        ret("dotdot", sys!(rmdir, c"d/e/.."));
        ret("leaf", sys!(rmdir, c"d/e/"));
        file("f", b"");
        ret("file", sys!(rmdir, c"f"));
        ret("missing", sys!(rmdir, c"g"));
        sys!(symlink, c"d", c"l");
        ret("link", sys!(rmdir, c"l"));
        ret("link with slash", sys!(rmdir, c"l/"));
        ret("mount point", sys!(rmdir, c"/proc"));
        ret("now", sys!(rmdir, c"d"));
    }),
    case("rmdir/working_directory", "getcwd chdir", || {
        mkdir("d");
        sys!(chdir, c"d");
        ret("remove cwd", sys!(rmdir, c"../d"));
        let mut b = [0u8; 300];
        ret("getcwd", sys!(getcwd, &mut b, 300));
        ret("create", sys!(open, c"x", O_CREAT | O_RDWR, 0o644));
        ret("mkdir", sys!(mkdir, c"y", 0o755));
        done("open dot", sys!(open, c".", O_RDONLY, 0));
        ret("stat dotdot below", sys!(open, c"nothing", O_RDONLY, 0));
        say!("listed '{}'", ls("."));
    }),
    case("unlink/basics", "fstat", || {
        let fd = file("f", b"still here");
        ret("unlink", sys!(unlink, c"f"));
        ret("again", sys!(unlink, c"f"));
        let mut st: libc::stat = zeroed();
        sys!(fstat, fd, &mut st);
        say!("links {} size {}", st.st_nlink, st.st_size);
        let mut b = [0u8; 20];
        ret("read on", sys!(read, fd, &mut b, 20));
        mkdir("d");
        ret("directory", sys!(unlink, c"d"));
        ret("with slash", sys!(unlink, c"d/"));
        sys!(symlink, c"d", c"l");
        ret("link", sys!(unlink, c"l"));
        ret("dot", sys!(unlink, c"."));
        ret("empty", sys!(unlink, c""));
        say!("left {}", ls("."));
    }),
    case("unlinkat/flags", "mkdirat", || {
        mkdir("d");
        file("d/f", b"");
        let d = open("d", O_RDONLY | O_DIRECTORY);
        ret("file", sys!(unlinkat, d, c"f", 0));
        ret("directory without flag", sys!(unlinkat, AT_FDCWD, c"d", 0));
        ret("directory", sys!(unlinkat, AT_FDCWD, c"d", AT_REMOVEDIR));
        file("g", b"");
        ret("file with removedir", sys!(unlinkat, AT_FDCWD, c"g", AT_REMOVEDIR));
        ret("unknown flag", sys!(unlinkat, AT_FDCWD, c"g", 0x8000));
        ret("bad fd", sys!(unlinkat, 99, c"g", 0));
    }),
    case("link/basics", "stat", || {
        file("f", b"x");
        ret("link", sys!(link, c"f", c"g"));
        ret("exists", sys!(link, c"f", c"g"));
        ret("missing", sys!(link, c"zz", c"h"));
        mkdir("d");
        ret("directory", sys!(link, c"d", c"e"));
        sys!(symlink, c"f", c"l");
        ret("of a link", sys!(link, c"l", c"l2"));
        say!("l2 -> {}", readlink("l2"));
        ret("slash", sys!(link, c"f", c"h/"));
        ret("cross mount", sys!(link, c"f", c"/proc/x"));
        let mut st: libc::stat = zeroed();
        sys!(stat, c"g", &mut st);
        say!("links {}", st.st_nlink);
    }),
    case("linkat/flags", "", || {
        let fd = file("f", b"x");
        sys!(symlink, c"f", c"l");
        ret("follow", sys!(linkat, AT_FDCWD, c"l", AT_FDCWD, c"hard", AT_SYMLINK_FOLLOW));
        say!("hard is {}", readlink("hard"));
        ret("empty path", sys!(linkat, fd, c"", AT_FDCWD, c"by_fd", AT_EMPTY_PATH));
        ret("empty without flag", sys!(linkat, fd, c"", AT_FDCWD, c"x", 0));
        ret("unknown flag", sys!(linkat, AT_FDCWD, c"f", AT_FDCWD, c"x", 0x8000));
        ret("bad fd", sys!(linkat, 99, c"f", AT_FDCWD, c"x", 0));
        say!("left {}", ls("."));
    }),
    case("symlink/basics", "readlink", || {
        ret("symlink", sys!(symlink, c"some where", c"l"));
        say!("{}", readlink("l"));
        ret("exists", sys!(symlink, c"x", c"l"));
        ret("empty target", sys!(symlink, c"", c"m"));
        ret("empty name", sys!(symlink, c"x", c""));
        ret("missing parent", sys!(symlink, c"x", c"p/q"));
        ret("4095", sys!(symlink, &*cstr("x".repeat(4095)), c"long"));
        ret("4096", sys!(symlink, &*cstr("x".repeat(4096)), c"longer"));
        ret("slash", sys!(symlink, c"x", c"n/"));
        let mut st: libc::stat = zeroed();
        sys!(lstat, c"l", &mut st);
        say!("mode {:o} size {}", st.st_mode, st.st_size);
    }),
    case("symlinkat/basics", "readlinkat", || {
        mkdir("d");
        let d = open("d", O_RDONLY | O_DIRECTORY);
        ret("symlinkat", sys!(symlinkat, c"target", d, c"l"));
        let mut b = [0u8; 20];
        ret("readlinkat", sys!(readlinkat, d, c"l", &mut b, 20));
        ret("truncated", sys!(readlinkat, d, c"l", &mut b, 3));
        ret("bad fd", sys!(symlinkat, c"target", 99, c"l"));
    }),
    case("readlink/errors", "readlinkat", || {
        file("f", b"");
        let mut b = [0u8; 20];
        ret("file", sys!(readlink, c"f", &mut b, 20));
        ret("missing", sys!(readlink, c"g", &mut b, 20));
        sys!(symlink, c"f", c"l");
        ret("zero size", sys!(readlink, c"l", &mut b, 0));
        ret("negative size", sys!(readlink, c"l", &mut b, -1));
        ret("bad buffer", sys!(readlink, c"l", NOWHERE, 20));
        let p = open("l", O_PATH | O_NOFOLLOW);
        ret("by descriptor", sys!(readlinkat, p, c"", &mut b, 20));
        ret("dot", sys!(readlink, c".", &mut b, 20));
        ret("with slash", sys!(readlink, c"l/", &mut b, 20));
    }),
    case("rename/files", "", || {
        file("a", b"A");
        file("b", b"B");
        ret("over", sys!(rename, c"a", c"b"));
        say!("b is {}", text(&std::fs::read("b").unwrap_or_default()));
        ret("missing", sys!(rename, c"a", c"c"));
        ret("itself", sys!(rename, c"b", c"b"));
        sys!(link, c"b", c"same");
        ret("two names of one", sys!(rename, c"b", c"same"));
        ret("slash", sys!(rename, c"b", c"c/"));
        ret("dot", sys!(rename, c".", c"x"));
        ret("dotdot", sys!(rename, c"..", c"x"));
        ret("to dot", sys!(rename, c"b", c"."));
        ret("empty", sys!(rename, c"", c"x"));
        ret("cross mount", sys!(rename, c"b", c"/proc/x"));
        say!("left {}", ls("."));
    }),
    case("rename/directories", "mkdir", || {
        mkdir("d");
        mkdir("d/e");
        mkdir("empty");
        file("f", b"");
        ret("into itself", sys!(rename, c"d", c"d/e/x"));
        ret("over empty", sys!(rename, c"d", c"empty"));
        mkdir("g");
        ret("over full", sys!(rename, c"g", c"empty"));
        ret("directory over file", sys!(rename, c"g", c"f"));
        ret("file over directory", sys!(rename, c"f", c"g"));
        ret("to new with slash", sys!(rename, c"g", c"h/"));
        ret("parent over child", sys!(rename, c"empty/e", c"empty"));
        let mut st: libc::stat = zeroed();
        sys!(stat, c"empty", &mut st);
        say!("links {}", st.st_nlink);
        sys!(symlink, c"h", c"l");
        ret("link with slash", sys!(rename, c"l/", c"m"));
        say!("left {} / {}", ls("."), ls("empty"));
    }),
    case("rename/busy_and_open", "", || {
        let fd = file("a", b"kept");
        file("b", b"lost");
        let lost = open("b", O_RDONLY);
        ret("over open", sys!(rename, c"a", c"b"));
        let mut b = [0u8; 8];
        ret("replaced still readable", sys!(read, lost, &mut b, 8));
        let link = readlink(&format!("/proc/self/fd/{fd}"));
        say!("followed: {}", &link[link.len() - 2..]);
    }),
    case("renameat/descriptors", "", || {
        mkdir("d");
        mkdir("e");
        file("d/f", b"");
        let (d, e) = (open("d", O_RDONLY), open("e", O_RDONLY));
        ret("move", sys!(renameat, d, c"f", e, c"g"));
        ret("bad", sys!(renameat, 99, c"f", e, c"g"));
        say!("{} / {}", ls("d"), ls("e"));
    }),
    case("renameat2/flags", "", || {
        file("a", b"A");
        file("b", b"BB");
        mkdir("d");
        ret("noreplace", sys!(renameat2, AT_FDCWD, c"a", AT_FDCWD, c"b", 1));
        ret("noreplace new", sys!(renameat2, AT_FDCWD, c"a", AT_FDCWD, c"c", 1));
        ret("exchange", sys!(renameat2, AT_FDCWD, c"c", AT_FDCWD, c"b", 2));
        say!("b is {}", text(&std::fs::read("b").unwrap_or_default()));
        ret("exchange with directory", sys!(renameat2, AT_FDCWD, c"d", AT_FDCWD, c"b", 2));
        ret("exchange missing", sys!(renameat2, AT_FDCWD, c"d", AT_FDCWD, c"zz", 2));
        ret("both", sys!(renameat2, AT_FDCWD, c"c", AT_FDCWD, c"b", 3));
        ret("unknown", sys!(renameat2, AT_FDCWD, c"c", AT_FDCWD, c"b", 0x80));
        say!("left {} / {}", ls("."), ls("d"));
    }),
    case("mknod/kinds", "mknodat", || {
        let mut st: libc::stat = zeroed();
        ret("file", sys!(mknod, c"f", libc::S_IFREG | 0o600, 0));
        ret("no type", sys!(mknod, c"g", 0o600, 0));
        ret("fifo", sys!(mknod, c"p", libc::S_IFIFO | 0o600, 0));
        ret("socket", sys!(mknod, c"s", libc::S_IFSOCK | 0o600, 0));
        ret("directory", sys!(mknod, c"d", libc::S_IFDIR | 0o600, 0));
        ret("exists", sys!(mknod, c"f", libc::S_IFREG | 0o600, 0));
        ret("bad type", sys!(mknod, c"x", 0o170000, 0));
        ret("at", sys!(mknodat, AT_FDCWD, c"q", libc::S_IFIFO | 0o666, 0));
        for name in ["f", "g", "p", "s", "q"] {
            sys!(stat, &*cstr(name), &mut st);
            say!("{name} {:o}", st.st_mode);
        }
        ret("open socket file", sys!(open, c"s", O_RDWR, 0));
        as_nobody("device as nobody", || {
            ret("mknod", sys!(mknod, c"dev", libc::S_IFCHR | 0o600, 0x103));
            0
        });
    }),
    case("mknodat/whiteout_device", "stat", || {
        let mut st: libc::stat = zeroed();
        let made = ret("null device", sys!(mknodat, AT_FDCWD, c"null", libc::S_IFCHR | 0o666, 0x103));
        if made == 0 {
            sys!(stat, c"null", &mut st);
            say!("{:o} {:#x}", st.st_mode, st.st_rdev);
        }
    }),
    case("getdents64/listing", "lseek", || {
        mkdir("d");
        for i in 0..5 {
            file(&format!("d/file{i}"), b"");
        }
        mkdir("d/sub");
        sys!(symlink, c"x", c"d/link");
        sys!(mknod, c"d/fifo", libc::S_IFIFO | 0o600, 0);
        let fd = open("d", O_RDONLY | O_DIRECTORY);
        let mut names = Vec::new();
        let mut b = Aligned([0; 1024]);
        loop {
            let n = sys!(getdents64, fd, &mut b, 200);
            if n <= 0 {
                ret("end", n);
                break;
            }
            let mut at = 0usize;
            while at < n as usize {
                let len = u16::from_ne_bytes([b.0[at + 16], b.0[at + 17]]) as usize;
                let kind = b.0[at + 18];
                let name = crate::out::until_nul(&b.0[at + 19..at + len]);
                names.push(format!("{name}:{kind}"));
                crate::out::claim("aligned", len.is_multiple_of(8));
                at += len;
            }
        }
        names.sort();
        say!("{}", names.join(" "));
        ret("rewind", sys!(lseek, fd, 0, libc::SEEK_SET));
        say!("again {}", sys!(getdents64, fd, &mut b, 1024) > 0);
    }),
    case("getdents64/errors", "rmdir getdents", || {
        mkdir("d");
        let fd = open("d", O_RDONLY | O_DIRECTORY);
        let mut b = Aligned([0; 1024]);
        ret("too small", sys!(getdents64, fd, &mut b, 10));
        ret("bad buffer", sys!(getdents64, fd, NOWHERE, 1024));
        ret("file", sys!(getdents64, file("f", b""), &mut b, 1024));
        ret("bad fd", sys!(getdents64, 99, &mut b, 1024));
        sys!(rmdir, c"d");
        ret("removed", sys!(getdents64, fd, &mut b, 1024));
        let here = open(".", O_RDONLY);
        say!("old call {}", sys!(getdents, here, &mut b, 1024) > 0);
        ret("old call end", sys!(getdents, here, &mut b, 1024));
    }),
    case("getdents64/changes_while_reading", "unlink", || {
        mkdir("d");
        for i in 0..200 {
            file(&format!("d/f{i:03}"), b"");
        }
        // Descriptors must not run out: the cases have 1024.
        sys!(close_range, 3, u32::MAX, 0);
        let fd = open("d", O_RDONLY | O_DIRECTORY);
        let mut seen = std::collections::BTreeMap::new();
        let mut b = Aligned([0; 1024]);
        loop {
            let n = sys!(getdents64, fd, &mut b, 1024);
            if n <= 0 {
                break;
            }
            let mut at = 0usize;
            while at < n as usize {
                let len = u16::from_ne_bytes([b.0[at + 16], b.0[at + 17]]) as usize;
                let name = crate::out::until_nul(&b.0[at + 19..at + len]);
                if name.starts_with('f') {
                    sys!(unlink, &*cstr(format!("d/{name}")));
                }
                *seen.entry(name).or_insert(0) += 1;
                at += len;
            }
        }
        say!("seen {} each once {}", seen.len(), seen.values().all(|n| *n == 1));
        ret("empty now", sys!(rmdir, c"d"));
    }),
    case("chdir/basics", "getcwd fchdir", || {
        mkdir("d");
        file("f", b"");
        ret("into", sys!(chdir, c"d"));
        let mut b = [0u8; 300];
        sys!(getcwd, &mut b, 300);
        say!("ends in /d {}", crate::out::until_nul(&b).ends_with("/d"));
        ret("missing", sys!(chdir, c"x"));
        ret("file", sys!(chdir, c"../f"));
        ret("empty", sys!(chdir, c""));
        ret("bad address", sys!(chdir, NOWHERE));
        ret("up", sys!(chdir, c".."));
        let fd = open("f", O_RDONLY);
        ret("fchdir file", sys!(fchdir, fd));
        ret("fchdir bad", sys!(fchdir, 99));
        ret("fchdir", sys!(fchdir, open("d", O_RDONLY)));
        sys!(chdir, c"..");
        sys!(chmod, c"d", 0o700);
        sys!(chmod, c".", 0o755);
        as_nobody("no search permission", || {
            ret("chdir", sys!(chdir, c"d"));
            0
        });
    }),
    case("getcwd/errors", "", || {
        let mut b = [0u8; 300];
        ret("zero", sys!(getcwd, &mut b, 0));
        ret("small", sys!(getcwd, &mut b, 1));
        ret("bad", sys!(getcwd, NOWHERE, 300));
        sys!(chdir, c"/");
        ret("root", sys!(getcwd, &mut b, 300));
        ret("exact", sys!(getcwd, &mut b, 2));
    }),
    case("chroot/basics", "chdir getcwd", || {
        mkdir("jail");
        mkdir("jail/in");
        file("secret", b"");
        in_child("jailed", || {
            ret("chroot", sys!(chroot, c"jail"));
            ret("old cwd still reaches out", sys!(open, c"secret", O_RDONLY, 0) >> 8);
            let mut b = [0u8; 300];
            sys!(getcwd, &mut b, 300);
            say!("cwd is outside {}", b.starts_with(b"(unreachable)/"));
            say!("begins {}", text(&b[..13]));
            sys!(chdir, c"/");
            ret("dotdot stays", sys!(open, c"../../secret", O_RDONLY, 0));
            done("inside", sys!(open, c"/in", O_RDONLY, 0));
            ret("getcwd", sys!(getcwd, &mut b, 300));
            0
        });
        ret("file", sys!(chroot, c"secret"));
        ret("missing", sys!(chroot, c"zz"));
        as_nobody("without capability", || {
            ret("chroot", sys!(chroot, c"jail"));
            0
        });
    }),
    case("open/lookup_dots_and_slashes", "", || {
        mkdir("d");
        file("d/f", b"");
        for path in [
            "d//f",
            "./d/./f",
            "d/../d/f",
            "d/f/",
            "d/f/.",
            "d/f/..",
            "d/../../../../../../../../dev/null",
            "//dev//null",
        ] {
            done(path, sys!(open, &*cstr(path), O_RDONLY, 0));
        }
        sys!(symlink, c"d/", c"ls");
        sys!(symlink, c"d/f/", c"lf");
        done("link to directory with slash", sys!(open, c"ls/f", O_RDONLY, 0));
        ret("link to file with slash", sys!(open, c"lf", O_RDONLY, 0));
    }),
    case("open/nonblocking_fifo", "mknod", || {
        sys!(mknod, c"p", libc::S_IFIFO | 0o600, 0);
        ret("write without reader", sys!(open, c"p", O_WRONLY | O_NONBLOCK, 0));
        let r = done("read", sys!(open, c"p", O_RDONLY | O_NONBLOCK, 0)) as i32;
        let mut b = [0u8; 4];
        ret("no writer", sys!(read, r, &mut b, 4));
        let w = done("write now", sys!(open, c"p", O_WRONLY | O_NONBLOCK, 0)) as i32;
        ret("empty", sys!(read, r, &mut b, 4));
        ret("write", sys!(write, w, b"abc", 3));
        ret("read", sys!(read, r, &mut b, 4));
        done("both", sys!(open, c"p", O_RDWR, 0));
    }),
    case("open/fifo_blocks_until_both", "mknod fork", || {
        sys!(mknod, c"p", libc::S_IFIFO | 0o600, 0);
        let child = fork(|| {
            let w = open("p", O_WRONLY);
            sys!(write, w, b"hi", 2);
            0
        });
        let r = open("p", O_RDONLY);
        let mut b = [0u8; 8];
        ret("read", sys!(read, r, &mut b, 8));
        say!("child {}", wait(child));
        ret("end", sys!(read, r, &mut b, 8));
    }),
    case("open/limit_of_descriptors", "setrlimit prlimit64", || {
        let limit = libc::rlimit { rlim_cur: 5, rlim_max: 4096 };
        ret("limit", sys!(prlimit64, 0, libc::RLIMIT_NOFILE, &limit, 0));
        ret("3", sys!(open, c".", O_RDONLY, 0));
        ret("4", sys!(open, c".", O_RDONLY, 0));
        ret("5", sys!(open, c".", O_RDONLY, 0));
        ret("dup", sys!(dup, 0));
        ret("dup2 beyond", sys!(dup2, 0, 5));
        ret("missing file at the limit", sys!(open, c"zz", O_RDONLY, 0));
    }),
    case("open/flags_read_back", "fcntl", || {
        file("f", b"");
        for (label, flags) in [
            ("rdonly", O_RDONLY),
            ("append nonblock", O_WRONLY | O_APPEND | O_NONBLOCK),
            ("create trunc", O_RDWR | O_CREAT | O_TRUNC),
            ("cloexec", O_RDONLY | O_CLOEXEC),
            ("sync", O_RDWR | libc::O_SYNC),
            ("noatime", O_RDONLY | libc::O_NOATIME),
            ("nofollow", O_RDONLY | O_NOFOLLOW),
            ("path", O_PATH | O_RDWR),
        ] {
            let fd = sys!(open, c"f", flags, 0o644);
            say!("{label}: {:o} {}", sys!(fcntl, fd, libc::F_GETFL), sys!(fcntl, fd, libc::F_GETFD));
        }
        ret("mode 3", sys!(open, c"f", 3, 0) >> 8);
    }),
    case("name_to_handle_at/support", "open_by_handle_at", || {
        file("f", b"");
        let mut handle = [0u8; 136];
        let mut mount = 0i32;
        ret("too small", sys!(name_to_handle_at, AT_FDCWD, c"f", &mut handle, &mut mount, 0));
        ret("bad flags", sys!(name_to_handle_at, AT_FDCWD, c"f", &mut handle, &mut mount, 0x4000_0000));
        ret("missing", sys!(name_to_handle_at, AT_FDCWD, c"nothing", &mut handle, &mut mount, 0));
        ret("open garbage", sys!(open_by_handle_at, AT_FDCWD, &handle, O_RDONLY));
    }),
];
