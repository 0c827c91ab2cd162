//! What files are: stat and statx, modes, owners, times, sizes, extended attributes, file systems.

use crate::case::{Case, NOWHERE, case, cstr, file, in_child, open, pipe, zeroed};
use crate::out::{claim, done, must, ret, text};
use crate::{say, sys};
use libc::{
    AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_CREAT, O_DIRECTORY, O_PATH, O_RDONLY, O_RDWR, O_WRONLY,
};

fn stat(path: &str) -> libc::stat {
    let mut st: libc::stat = zeroed();
    must("stat", sys!(lstat, &*cstr(path), &mut st));
    st
}

fn tell(path: &str) {
    let st = stat(path);
    say!(
        "{path}: mode {:o} links {} owner {}:{} size {}",
        st.st_mode,
        st.st_nlink,
        st.st_uid,
        st.st_gid,
        st.st_size
    );
}

fn as_user(label: &str, uid: u32, body: impl FnOnce() -> i32) {
    in_child(label, || {
        must("setgroups", sys!(setgroups, 0, 0));
        must("setgid", sys!(setresgid, uid, uid, uid));
        must("setuid", sys!(setresuid, uid, uid, uid));
        body()
    });
}

fn times(a: (i64, i64), m: (i64, i64)) -> [libc::timespec; 2] {
    [libc::timespec { tv_sec: a.0, tv_nsec: a.1 }, libc::timespec { tv_sec: m.0, tv_nsec: m.1 }]
}

pub const CASES: &[Case] = &[
    case("stat/kinds", "lstat", || {
        file("f", b"hello");
        sys!(mkdir, c"d", 0o750);
        sys!(symlink, c"f", c"l");
        sys!(mknod, c"p", libc::S_IFIFO | 0o600, 0);
        for name in ["f", "d", "l", "p"] {
            let st = stat(name);
            say!("{name} {:o} {} blocks {}", st.st_mode, st.st_nlink, st.st_blocks > 0);
        }
        let mut st: libc::stat = zeroed();
        ret("through link", sys!(stat, c"l", &mut st));
        say!("{:o} {}", st.st_mode, st.st_size);
        ret("missing", sys!(stat, c"zz", &mut st));
        ret("empty", sys!(stat, c"", &mut st));
        ret("bad path", sys!(stat, NOWHERE, &mut st));
        ret("bad buffer", sys!(stat, c"f", NOWHERE));
        ret("dev null", sys!(stat, c"/dev/null", &mut st));
        say!("{:o} {:#x}", st.st_mode & libc::S_IFMT, st.st_rdev);
    }),
    case("fstat/kinds", "pipe2 socket eventfd2", || {
        let mut st: libc::stat = zeroed();
        ret("pipe", sys!(fstat, pipe(0).0, &mut st));
        say!("{:o}", st.st_mode);
        ret("socket", sys!(fstat, sys!(socket, libc::AF_UNIX, libc::SOCK_STREAM, 0), &mut st));
        say!("{:o}", st.st_mode);
        ret("eventfd", sys!(fstat, sys!(eventfd2, 0, 0), &mut st));
        say!("{:o}", st.st_mode);
        ret("bad", sys!(fstat, 99, &mut st));
        ret("bad buffer", sys!(fstat, 0, NOWHERE));
    }),
    case("newfstatat/flags", "", || {
        let mut st: libc::stat = zeroed();
        let fd = file("f", b"abc");
        sys!(symlink, c"f", c"l");
        ret("follow", sys!(newfstatat, AT_FDCWD, c"l", &mut st, 0));
        say!("{:o}", st.st_mode);
        ret("nofollow", sys!(newfstatat, AT_FDCWD, c"l", &mut st, AT_SYMLINK_NOFOLLOW));
        say!("{:o}", st.st_mode);
        ret("empty path", sys!(newfstatat, fd, c"", &mut st, AT_EMPTY_PATH));
        say!("{}", st.st_size);
        ret("empty without flag", sys!(newfstatat, fd, c"", &mut st, 0));
        ret("unknown flag", sys!(newfstatat, fd, c"f", &mut st, 0x8000_0000u32));
        ret("bad fd", sys!(newfstatat, 99, c"f", &mut st, 0));
        ret("cwd by empty path", sys!(newfstatat, AT_FDCWD, c"", &mut st, AT_EMPTY_PATH));
        say!("{:o}", st.st_mode & libc::S_IFMT);
    }),
    case("statx/fields", "", || {
        file("f", b"hello");
        let mut stx: libc::statx = zeroed();
        ret("statx", sys!(statx, AT_FDCWD, c"f", 0, libc::STATX_BASIC_STATS, &mut stx));
        say!("mode {:o} links {} size {} uid {}", stx.stx_mode, stx.stx_nlink, stx.stx_size, stx.stx_uid);
        claim("basic mask", stx.stx_mask & libc::STATX_BASIC_STATS == libc::STATX_BASIC_STATS);
        let st = stat("f");
        claim("same inode", st.st_ino == stx.stx_ino);
        claim(
            "same time",
            st.st_mtime == stx.stx_mtime.tv_sec && st.st_mtime_nsec == stx.stx_mtime.tv_nsec as i64,
        );
        let both = libc::AT_STATX_FORCE_SYNC | libc::AT_STATX_DONT_SYNC;
        ret("both syncs", sys!(statx, AT_FDCWD, c"f", both, libc::STATX_BASIC_STATS, &mut stx));
        ret("reserved mask", sys!(statx, AT_FDCWD, c"f", 0, 0x8000_0000u32, &mut stx));
        ret("bad flag", sys!(statx, AT_FDCWD, c"f", 1, libc::STATX_BASIC_STATS, &mut stx));
        ret("missing", sys!(statx, AT_FDCWD, c"g", 0, libc::STATX_BASIC_STATS, &mut stx));
        ret("bad buffer", sys!(statx, AT_FDCWD, c"f", 0, libc::STATX_BASIC_STATS, NOWHERE));
        ret("by fd", sys!(statx, open("f", O_RDONLY), c"", AT_EMPTY_PATH, 0, &mut stx));
    }),
    case("access/root_and_user", "faccessat faccessat2", || {
        file("f", b"");
        sys!(chmod, c".", 0o755);
        sys!(chmod, c"f", 0o604);
        ret("exists", sys!(access, c"f", 0));
        ret("rw", sys!(access, c"f", 6));
        ret("root exec without x", sys!(access, c"f", 1));
        ret("missing", sys!(access, c"g", 0));
        ret("bad mode", sys!(access, c"f", 8));
        ret("empty", sys!(access, c"", 0));
        as_user("user", 1000, || {
            ret("r", sys!(access, c"f", 4));
            ret("w", sys!(access, c"f", 2));
            ret("rw", sys!(access, c"f", 6));
            0
        });
        in_child("real and effective", || {
            sys!(setresuid, 1000, 0, 0);
            ret("real", sys!(access, c"f", 2));
            ret("faccessat", sys!(faccessat, AT_FDCWD, c"f", 2));
            ret("effective", sys!(faccessat2, AT_FDCWD, c"f", 2, libc::AT_EACCESS));
            0
        });
        ret("unknown flag", sys!(faccessat2, AT_FDCWD, c"f", 2, 0x8000));
        sys!(symlink, c"nowhere", c"l");
        ret("dangling", sys!(faccessat2, AT_FDCWD, c"l", 0, 0));
        ret("dangling nofollow", sys!(faccessat2, AT_FDCWD, c"l", 0, AT_SYMLINK_NOFOLLOW));
    }),
    case("chmod/bits", "fchmod fchmodat", || {
        let fd = file("f", b"");
        ret("chmod", sys!(chmod, c"f", 0o7654));
        tell("f");
        ret("fchmod", sys!(fchmod, fd, 0o100));
        tell("f");
        ret("fchmodat", sys!(fchmodat, AT_FDCWD, c"f", 0o1777));
        tell("f");
        ret("high bits ignored", sys!(chmod, c"f", 0o170_644));
        tell("f");
        ret("missing", sys!(chmod, c"g", 0o644));
        ret("bad fd", sys!(fchmod, 99, 0o644));
        as_user("not the owner", 1000, || {
            ret("chmod", sys!(chmod, c"f", 0o777));
            ret("fchmod", sys!(fchmod, fd, 0o777));
            0
        });
    }),
    case("chmod/setgid_of_a_foreign_group", "chown", || {
        file("f", b"");
        sys!(chown, c"f", 1000, 2000);
        sys!(chmod, c".", 0o755);
        as_user("owner", 1000, || {
            ret("chmod", sys!(chmod, c"f", 0o2755));
            0
        });
        tell("f");
    }),
    case("fchmodat2/flags", "symlink", || {
        file("f", b"");
        sys!(symlink, c"f", c"l");
        ret("follow", sys!(fchmodat2, AT_FDCWD, c"l", 0o600, 0));
        ret("the link itself", sys!(fchmodat2, AT_FDCWD, c"l", 0o600, AT_SYMLINK_NOFOLLOW));
        ret("by path descriptor", sys!(fchmodat2, open("f", O_PATH), c"", 0o640, AT_EMPTY_PATH));
        ret("unknown flag", sys!(fchmodat2, AT_FDCWD, c"f", 0o600, 0x8000));
        tell("f");
    }),
    case("chown/owner_and_bits", "fchown lchown fchownat", || {
        let fd = file("f", b"");
        sys!(symlink, c"f", c"l");
        ret("chown", sys!(chown, c"f", 12, 34));
        tell("f");
        ret("only group", sys!(fchown, fd, -1, 56));
        tell("f");
        ret("nothing", sys!(chown, c"f", -1, -1));
        ret("lchown", sys!(lchown, c"l", 7, 8));
        tell("l");
        tell("f");
        ret("fchownat nofollow", sys!(fchownat, AT_FDCWD, c"l", 9, 9, AT_SYMLINK_NOFOLLOW));
        tell("l");
        ret("fchownat fd", sys!(fchownat, fd, c"", 3, 3, AT_EMPTY_PATH));
        ret("unknown flag", sys!(fchownat, AT_FDCWD, c"l", 9, 9, 0x8000));
        ret("missing", sys!(chown, c"g", 1, 1));
        ret("bad fd", sys!(fchown, 99, 1, 1));
        sys!(chmod, c"f", 0o6777);
        ret("chown of set-id", sys!(chown, c"f", 1, 1));
        tell("f");
        sys!(chmod, c"f", 0o2644);
        sys!(chown, c"f", 2, 2);
        tell("f");
    }),
    case("chown/as_user", "setgroups", || {
        file("f", b"");
        sys!(chmod, c".", 0o755);
        sys!(chown, c"f", 1000, 1000);
        sys!(chmod, c"f", 0o6755);
        in_child("user with groups", || {
            sys!(setgroups, 1, &[2000u32]);
            sys!(setresgid, 1000, 1000, 1000);
            sys!(setresuid, 1000, 1000, 1000);
            ret("to a group of mine", sys!(chown, c"f", -1, 2000));
            tell("f");
            ret("to another group", sys!(chown, c"f", -1, 3000));
            ret("to another owner", sys!(chown, c"f", 1001, -1));
            ret("to myself", sys!(chown, c"f", 1000, -1));
            0
        });
    }),
    case("write/clears_setid", "chmod", || {
        file("f", b"abc");
        sys!(chmod, c".", 0o755);
        sys!(chmod, c"f", 0o6777);
        as_user("user writes", 1000, || {
            let fd = open("f", O_RDWR);
            ret("write", sys!(write, fd, b"x", 1));
            0
        });
        tell("f");
        sys!(chmod, c"f", 0o6777);
        as_user("user truncates", 1000, || ret("truncate", sys!(truncate, c"f", 1)) as i32);
        tell("f");
    }),
    case("truncate/sizes", "ftruncate", || {
        let fd = file("f", b"0123456789");
        ret("shorter", sys!(truncate, c"f", 4));
        ret("longer", sys!(ftruncate, fd, 8));
        say!("{}", text(&std::fs::read("f").unwrap_or_default()));
        ret("negative", sys!(truncate, c"f", -1));
        ret("negative f", sys!(ftruncate, fd, -1));
        ret("missing", sys!(truncate, c"g", 0));
        sys!(mkdir, c"d", 0o755);
        ret("directory", sys!(truncate, c"d", 0));
        ret("read only", sys!(ftruncate, open("f", O_RDONLY), 0));
        ret("pipe", sys!(ftruncate, pipe(0).1, 0));
        ret("bad fd", sys!(ftruncate, 99, 0));
        ret("dev null", sys!(truncate, c"/dev/null", 0));
        sys!(mknod, c"p", libc::S_IFIFO | 0o600, 0);
        ret("fifo", sys!(truncate, c"p", 0));
        ret("large", sys!(ftruncate, fd, 1i64 << 40));
        tell("f");
    }),
    case("utimensat/times", "futimesat utimes utime", || {
        let fd = file("f", b"");
        let show = || {
            let st = stat("f");
            say!("{}.{} {}.{}", st.st_atime, st.st_atime_nsec, st.st_mtime, st.st_mtime_nsec);
        };
        ret("set", sys!(utimensat, AT_FDCWD, c"f", &times((10, 11), (20, 21)), 0));
        show();
        ret("omit", sys!(utimensat, AT_FDCWD, c"f", &times((1, libc::UTIME_OMIT), (30, 31)), 0));
        show();
        ret("by fd", sys!(utimensat, fd, 0, &times((5, 6), (7, 8)), 0));
        show();
        ret(
            "both omitted",
            sys!(utimensat, AT_FDCWD, c"zz", &times((1, libc::UTIME_OMIT), (3, libc::UTIME_OMIT)), 0),
        );
        ret("bad nanoseconds", sys!(utimensat, AT_FDCWD, c"f", &times((1, 1_000_000_000), (3, 0)), 0));
        ret("bad flag", sys!(utimensat, AT_FDCWD, c"f", &times((1, 1), (3, 0)), 0x8000));
        ret("missing", sys!(utimensat, AT_FDCWD, c"zz", 0, 0));
        ret("now", sys!(utimensat, AT_FDCWD, c"f", 0, 0));
        claim("recent", stat("f").st_mtime > 1_000_000_000);
        ret("negative time", sys!(utimensat, AT_FDCWD, c"f", &times((-5, 0), (-6, 0)), 0));
        show();
        let values = [libc::timeval { tv_sec: 3, tv_usec: 4 }, libc::timeval { tv_sec: 5, tv_usec: 6 }];
        ret("utimes", sys!(utimes, c"f", &values));
        show();
        ret("futimesat", sys!(futimesat, AT_FDCWD, c"f", &values));
        let bad = [libc::timeval { tv_sec: 3, tv_usec: 1_000_000 }, values[1]];
        ret("utimes bad", sys!(utimes, c"f", &bad));
        ret("utime", sys!(utime, c"f", &libc::utimbuf { actime: 77, modtime: 88 }));
        show();
    }),
    case("utimensat/permissions", "setresuid", || {
        file("f", b"");
        sys!(chmod, c".", 0o755);
        sys!(chmod, c"f", 0o666);
        as_user("writer", 1000, || {
            ret("now", sys!(utimensat, AT_FDCWD, c"f", 0, 0));
            ret("given", sys!(utimensat, AT_FDCWD, c"f", &times((1, 1), (1, 1)), 0));
            let now = times((0, libc::UTIME_NOW), (0, libc::UTIME_NOW));
            ret("both now", sys!(utimensat, AT_FDCWD, c"f", &now, 0));
            0
        });
        sys!(chmod, c"f", 0o644);
        as_user("stranger", 1000, || {
            ret("now", sys!(utimensat, AT_FDCWD, c"f", 0, 0));
            0
        });
    }),
    case("utimensat/symlink_itself", "symlink", || {
        file("f", b"");
        sys!(symlink, c"f", c"l");
        ret("nofollow", sys!(utimensat, AT_FDCWD, c"l", &times((1, 2), (3, 4)), AT_SYMLINK_NOFOLLOW));
        let st = stat("l");
        say!("{} {}", st.st_atime, st.st_mtime);
        claim("target untouched", stat("f").st_mtime > 1_000_000_000);
    }),
    case("stat/times_change", "chmod write link rename", || {
        let fd = file("f", b"");
        let mark = || sys!(utimensat, AT_FDCWD, c"f", &times((1000, 0), (1000, 0)), 0);
        mark();
        sys!(write, fd, b"x", 1);
        say!("write moves mtime {}", stat("f").st_mtime > 1000);
        mark();
        sys!(chmod, c"f", 0o600);
        say!("chmod leaves mtime {}", stat("f").st_mtime == 1000);
        sys!(utimensat, AT_FDCWD, c".", &times((1000, 0), (1000, 0)), 0);
        sys!(link, c"f", c"g");
        say!("link moves directory {}", stat(".").st_mtime > 1000);
        sys!(utimensat, AT_FDCWD, c".", &times((1000, 0), (1000, 0)), 0);
        sys!(rename, c"g", c"h");
        say!("rename moves directory {}", stat(".").st_mtime > 1000);
        mark();
        sys!(ftruncate, fd, 1);
        say!("truncate to same moves mtime {}", stat("f").st_mtime > 1000);
        mark();
        sys!(write, fd, b"x", 0);
        say!("empty write leaves mtime {}", stat("f").st_mtime == 1000);
    }),
    case(
        "setxattr/user_namespace",
        "getxattr listxattr removexattr fsetxattr fgetxattr flistxattr fremovexattr",
        || {
            let fd = file("f", b"");
            let mut b = [0u8; 64];
            ret("get missing", sys!(getxattr, c"f", c"trusted.x", &mut b, 64));
            ret("set", sys!(setxattr, c"f", c"trusted.x", b"hello", 5, 0));
            ret("size", sys!(getxattr, c"f", c"trusted.x", 0, 0));
            ret("get", sys!(getxattr, c"f", c"trusted.x", &mut b, 64));
            ret("small", sys!(getxattr, c"f", c"trusted.x", &mut b, 2));
            ret("create existing", sys!(setxattr, c"f", c"trusted.x", b"h", 1, libc::XATTR_CREATE));
            ret("replace missing", sys!(setxattr, c"f", c"trusted.y", b"h", 1, libc::XATTR_REPLACE));
            ret("bad flag", sys!(setxattr, c"f", c"trusted.y", b"h", 1, 4));
            ret("fset", sys!(fsetxattr, fd, c"trusted.z", b"zz", 2, 0));
            ret("fget", sys!(fgetxattr, fd, c"trusted.z", &mut b, 64));
            let n = ret("list", sys!(listxattr, c"f", &mut b, 64));
            let mut names: Vec<&[u8]> =
                b[..n.max(0) as usize].split(|c| *c == 0).filter(|n| !n.is_empty()).collect();
            names.sort();
            names.iter().for_each(|n| say!("{}", text(n)));
            ret("list size", sys!(flistxattr, fd, 0, 0));
            ret("list small", sys!(listxattr, c"f", &mut b, 3));
            ret("remove", sys!(removexattr, c"f", c"trusted.x"));
            ret("remove again", sys!(removexattr, c"f", c"trusted.x"));
            ret("fremove", sys!(fremovexattr, fd, c"trusted.z"));
            ret("no namespace", sys!(setxattr, c"f", c"plain", b"h", 1, 0));
            ret("unknown namespace", sys!(setxattr, c"f", c"what.ever", b"h", 1, 0));
            ret("empty name", sys!(setxattr, c"f", c"", b"h", 1, 0));
            ret(
                "long name",
                sys!(setxattr, c"f", &*cstr("trusted.".to_owned() + &"x".repeat(300)), b"h", 1, 0),
            );
            ret("too big", sys!(setxattr, c"f", c"trusted.big", NOWHERE, 70_000, 0));
            ret("missing file", sys!(getxattr, c"g", c"trusted.x", &mut b, 64));
            ret("bad fd", sys!(fgetxattr, 99, c"trusted.x", &mut b, 64));
        },
    ),
    case("lsetxattr/on_symlinks", "lgetxattr llistxattr lremovexattr", || {
        file("f", b"");
        sys!(symlink, c"f", c"l");
        let mut b = [0u8; 64];
        ret("user on a link", sys!(lsetxattr, c"l", c"user.x", b"h", 1, 0));
        ret("trusted on a link", sys!(lsetxattr, c"l", c"trusted.x", b"h", 1, 0));
        ret("get", sys!(lgetxattr, c"l", c"trusted.x", &mut b, 64));
        ret("list", sys!(llistxattr, c"l", &mut b, 64));
        ret("not on the target", sys!(getxattr, c"f", c"trusted.x", &mut b, 64));
        ret("remove", sys!(lremovexattr, c"l", c"trusted.x"));
        as_user("trusted as user", 1000, || {
            ret("get", sys!(getxattr, c"f", c"trusted.x", &mut b, 64));
            0
        });
    }),
    case("setxattr/user_attributes", "getxattr", || {
        file("f", b"");
        sys!(mknod, c"p", libc::S_IFIFO | 0o600, 0);
        let mut b = [0u8; 64];
        ret("set", sys!(setxattr, c"f", c"user.mime", b"text", 4, 0));
        ret("get", sys!(getxattr, c"f", c"user.mime", &mut b, 64));
        ret("fifo", sys!(setxattr, c"p", c"user.mime", b"text", 4, 0));
        ret("empty value", sys!(setxattr, c"f", c"user.none", 0, 0, 0));
        ret("get empty", sys!(getxattr, c"f", c"user.none", &mut b, 64));
    }),
    case("statfs/kinds", "fstatfs", || {
        let mut st: libc::statfs = zeroed();
        ret("proc", sys!(statfs, c"/proc", &mut st));
        say!("{:#x}", st.f_type);
        ret("here", sys!(statfs, c".", &mut st));
        say!("name length {} block {}", st.f_namelen, st.f_bsize);
        ret("fd", sys!(fstatfs, open(".", O_RDONLY), &mut st));
        ret("pipe", sys!(fstatfs, pipe(0).0, &mut st));
        say!("{:#x}", st.f_type);
        ret("missing", sys!(statfs, c"zz", &mut st));
        ret("bad fd", sys!(fstatfs, 99, &mut st));
        ret("bad buffer", sys!(statfs, c".", NOWHERE));
    }),
    case("ustat/old_calls", "stat sysfs", || {
        let mut b = [0u8; 64];
        ret("ustat of no device", sys!(ustat, 0xffff, &mut b));
        ret("sysfs count", (sys!(sysfs, 3) > 0) as isize);
        ret("sysfs bad", sys!(sysfs, 99));
    }),
    case("fsync/kinds", "fdatasync sync syncfs sync_file_range", || {
        let fd = file("f", b"abc");
        ret("fsync", sys!(fsync, fd));
        ret("fdatasync", sys!(fdatasync, fd));
        ret("pipe", sys!(fsync, pipe(0).1));
        ret("directory", sys!(fsync, open(".", O_RDONLY | O_DIRECTORY)));
        ret("bad", sys!(fsync, 99));
        ret("sync", sys!(sync));
        ret("syncfs", sys!(syncfs, fd));
        ret("syncfs bad", sys!(syncfs, 99));
        ret("range", sys!(sync_file_range, fd, 0, 3, 7));
        ret("range flag", sys!(sync_file_range, fd, 0, 3, 64));
        ret("range negative", sys!(sync_file_range, fd, -1, 3, 7));
        ret("range pipe", sys!(sync_file_range, pipe(0).1, 0, 3, 7));
    }),
    case("stat/proc_and_dev", "", || {
        let mut st: libc::stat = zeroed();
        for path in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"] {
            ret(path, sys!(stat, &*cstr(path), &mut st));
            say!("{:o} {}:{}", st.st_mode & libc::S_IFMT, libc::major(st.st_rdev), libc::minor(st.st_rdev));
        }
        for path in ["/proc/self", "/proc/self/exe", "/proc/self/fd", "/proc/self/status", "/proc/1"] {
            ret(path, sys!(lstat, &*cstr(path), &mut st));
            say!("{:o}", st.st_mode & libc::S_IFMT);
        }
    }),
    case("open/write_only_needs_permission", "chmod", || {
        file("f", b"");
        sys!(chown, c"f", 1000, 1000);
        sys!(chmod, c".", 0o755);
        sys!(chmod, c"f", 0o200);
        as_user("owner", 1000, || {
            ret("read", sys!(open, c"f", O_RDONLY, 0));
            done("write", sys!(open, c"f", O_WRONLY, 0));
            ret("create in a foreign directory", sys!(open, c"new", O_RDWR | O_CREAT, 0o644));
            0
        });
        sys!(chmod, c"f", 0o077);
        as_user("owner is not others", 1000, || {
            ret("read", sys!(open, c"f", O_RDONLY, 0));
            0
        });
        sys!(chown, c"f", 1, 1000);
        sys!(chmod, c"f", 0o707);
        as_user("group is not others", 1000, || {
            ret("read", sys!(open, c"f", O_RDONLY, 0));
            0
        });
    }),
];
