//! The system as a whole: names, sizes, randomness, mounts, and what is refused.

use crate::case::{Case, NOWHERE, case, close, file, in_child, open, zeroed};
use crate::out::{claim, done, must, number, ret, until_nul};
use crate::{say, sys};
use libc::{CLONE_NEWNS, MNT_DETACH, MS_BIND, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT, O_RDONLY};

/// Runs in a mount namespace of its own, nothing shared with the outer one.
fn with_mounts(body: impl FnOnce()) {
    in_child("own mounts", || {
        must("unshare", sys!(unshare, CLONE_NEWNS));
        must("private", sys!(mount, c"none", c"/", 0, MS_REC | MS_PRIVATE, 0));
        body();
        0
    });
}

pub const CASES: &[Case] = &[
    case("uname/fields", "", || {
        let mut u: libc::utsname = zeroed();
        ret("uname", sys!(uname, &mut u));
        let show = |f: &[libc::c_char]| until_nul(&f.iter().map(|c| *c as u8).collect::<Vec<_>>());
        say!("{} {}", show(&u.sysname), show(&u.machine));
        let major: u32 = show(&u.release).split('.').next().and_then(|v| v.parse().ok()).unwrap_or(0);
        claim("at least 5", major >= 5);
        ret("bad pointer", sys!(uname, NOWHERE));
    }),
    case("sysinfo/sane", "", || {
        let mut i: libc::sysinfo = zeroed();
        ret("sysinfo", sys!(sysinfo, &mut i));
        claim("memory", i.totalram > 0 && i.freeram <= i.totalram && i.mem_unit > 0);
        claim("processes", i.procs > 0);
        ret("bad pointer", sys!(sysinfo, NOWHERE));
    }),
    case("getrandom/flags", "", || {
        let mut b = [0u8; 64];
        ret("some", sys!(getrandom, &mut b, 64, 0));
        claim("not zero", b.iter().any(|x| *x != 0));
        ret("nonblock", sys!(getrandom, &mut b, 16, 1));
        ret("random", sys!(getrandom, &mut b, 16, 2));
        ret("none", sys!(getrandom, 0, 0, 0));
        ret("bad flags", sys!(getrandom, &mut b, 16, 0x10));
        ret("insecure and random", sys!(getrandom, &mut b, 16, 6));
        ret("bad pointer", sys!(getrandom, NOWHERE, 16, 0));
    }),
    case("mount/devpts_and_terminal_nodes_elsewhere", "mknod", || {
        with_mounts(|| {
            sys!(mkdir, c"m", 0o755);
            ret("tmpfs", sys!(mount, c"none", c"m", c"tmpfs", 0u32, 0));
            must("chdir", sys!(chdir, c"m"));
            ret("ptmx", sys!(mknod, c"ptmx", libc::S_IFCHR | 0o666, 0x502));
            ret("nothing beside it", sys!(open, c"ptmx", libc::O_RDWR | libc::O_NOCTTY, 0));
            sys!(mkdir, c"pts", 0o755);
            ret("something else", sys!(open, c"ptmx", libc::O_RDWR | libc::O_NOCTTY, 0));
            ret("devpts", sys!(mount, c"none", c"pts", c"devpts", 0u32, c"newinstance,ptmxmode=666"));
            let master = sys!(open, c"ptmx", libc::O_RDWR | libc::O_NOCTTY, 0);
            claim("opened", master >= 0);
            let mut number = -1i32;
            ret("number", sys!(ioctl, master, libc::TIOCGPTN, &mut number));
            say!("{number} {:o}", sys!(access, c"pts/0", 0));
            // Terminals have names in their own instance only.
            ret("terminal", sys!(mknod, c"zero", libc::S_IFCHR | 0o666, 0x8800));
            ret("open", sys!(open, c"zero", libc::O_RDWR | libc::O_NOCTTY, 0));
        });
    }),
    case("mount/tmpfs_and_umount", "umount2 statfs", || {
        with_mounts(|| {
            sys!(mkdir, c"m", 0o755);
            ret("mount", sys!(mount, c"none", c"m", c"tmpfs", 0u32, c"size=1m,mode=750"));
            let mut st: libc::stat = zeroed();
            sys!(stat, c"m", &mut st);
            say!("{:o}", st.st_mode);
            let mut fs: libc::statfs = zeroed();
            sys!(statfs, c"m", &mut fs);
            say!("{:#x} {}", fs.f_type, fs.f_blocks * fs.f_bsize as u64);
            let fd = file("m/f", b"");
            let big = vec![1u8; 2 << 20];
            claim("limited", sys!(write, fd, big.as_slice(), big.len()) <= 1 << 20);
            ret("more", sys!(write, fd, big.as_slice(), 4096));
            ret("busy", sys!(umount2, c"m", 0));
            ret("detach", sys!(umount2, c"m", MNT_DETACH));
            ret("hidden", sys!(stat, c"m/f", &mut st));
            ret("descriptor lives", sys!(pwrite64, fd, b"x", 1, 0));
            ret("not a mount", sys!(umount2, c"m", 0));
            ret("missing", sys!(umount2, c"zz", 0));
            ret("bad flags", sys!(umount2, c"m", 0x100));
        });
    }),
    case("mount/bind_and_read_only", "umount2 open", || {
        with_mounts(|| {
            sys!(mkdir, c"a", 0o755);
            sys!(mkdir, c"b", 0o755);
            close(file("a/f", b"x"));
            ret("bind", sys!(mount, c"a", c"b", 0, MS_BIND, 0));
            done("seen", sys!(open, c"b/f", O_RDONLY, 0));
            ret("read-only", sys!(mount, c"none", c"b", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0));
            ret("write", sys!(open, c"b/f", libc::O_WRONLY, 0));
            ret("create", sys!(open, c"b/g", libc::O_CREAT | libc::O_RDWR, 0o644));
            ret("mkdir", sys!(mkdir, c"b/h", 0o755));
            ret("unlink", sys!(unlink, c"b/f"));
            ret("chmod", sys!(chmod, c"b/f", 0o600));
            ret("access", sys!(access, c"b/f", 2));
            done("through the other", sys!(open, c"a/f", libc::O_WRONLY, 0));
            ret("rename across", sys!(rename, c"a/f", c"b/g"));
            ret("link across", sys!(link, c"a/f", c"b/g"));
            ret("rmdir a mount point", sys!(rmdir, c"b"));
            close(file("t", b""));
            ret("bind a file", sys!(mount, c"a/f", c"t", 0, MS_BIND, 0));
            say!("{}", std::fs::read_to_string("t").unwrap_or_default());
            ret("unlink a mount point", sys!(unlink, c"t"));
            ret("file on directory", sys!(mount, c"t", c"a", 0, MS_BIND, 0));
            ret("unmount", sys!(umount2, c"b", MNT_DETACH));
        });
    }),
    case("mount/errors", "", || {
        with_mounts(|| {
            sys!(mkdir, c"m", 0o755);
            ret("unknown type", sys!(mount, c"none", c"m", c"nosuchfs", 0u32, 0));
            ret("missing target", sys!(mount, c"none", c"zz", c"tmpfs", 0u32, 0));
            ret("no type", sys!(mount, c"none", c"m", 0, 0u32, 0));
            ret("bad option", sys!(mount, c"none", c"m", c"tmpfs", 0u32, c"nonsense=1"));
            ret("missing source", sys!(mount, c"zz", c"m", 0, MS_BIND, 0));
            ret("bad pointer", sys!(mount, c"none", NOWHERE, c"tmpfs", 0u32, 0));
        });
        in_child("user", || {
            sys!(setresuid, 9, 9, 9);
            ret("mount", sys!(mount, c"none", c"/tmp", c"tmpfs", 0u32, 0));
            ret("umount", sys!(umount2, c"/proc", 0));
            ret("pivot_root", sys!(pivot_root, c".", c"."));
            0
        });
    }),
    case("mount/noexec_nosuid_nodev", "execve open", || {
        with_mounts(|| {
            sys!(mkdir, c"m", 0o755);
            let flags = libc::MS_NOEXEC | libc::MS_NODEV | libc::MS_NOSUID;
            ret("mount", sys!(mount, c"none", c"m", c"tmpfs", flags, 0));
            let _ = std::fs::copy("/proc/self/exe", "m/prog");
            sys!(chmod, c"m/prog", 0o755);
            ret("exec", sys!(execve, c"m/prog", 0, 0));
            let fd = open("m/prog", O_RDONLY);
            let map = sys!(mmap, 0, 4096, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE, fd, 0);
            ret("map executable", map.min(0));
            let line = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let line = line
                .lines()
                .find(|l| l.split(' ').nth(4).is_some_and(|p| p.ends_with("/m")))
                .unwrap_or_default()
                .to_owned();
            say!("{}", line.split(' ').nth(5).unwrap_or_default());
            let mut fs: libc::statfs = zeroed();
            sys!(statfs, c"m", &mut fs);
            let mut raw = [0u64; 15];
            sys!(statfs, c"m", &mut raw);
            say!("{:#x}", raw[10] & 0xf);
        });
    }),
    case("pivot_root/new_root", "mount umount2 chdir", || {
        with_mounts(|| {
            sys!(mkdir, c"new", 0o755);
            must("mount", sys!(mount, c"none", c"new", c"tmpfs", 0u32, 0));
            sys!(mkdir, c"new/old", 0o755);
            close(file("new/marker", b""));
            ret("not a mount", sys!(pivot_root, c"new/old", c"new/old"));
            ret("pivot", sys!(pivot_root, c"new", c"new/old"));
            sys!(chdir, c"/");
            done("marker", sys!(open, c"/marker", O_RDONLY, 0));
            done("old root", sys!(open, c"/old/proc", O_RDONLY, 0));
            ret("detach the old", sys!(umount2, c"/old", MNT_DETACH));
            ret("gone", sys!(open, c"/old/proc", O_RDONLY, 0));
        });
    }),
    case("fsopen/new_mount_calls", "fsconfig fsmount move_mount open_tree fspick mount_setattr", || {
        with_mounts(|| {
            sys!(mkdir, c"m", 0o755);
            let fs = sys!(fsopen, c"tmpfs", 0);
            if fs == -(libc::ENOSYS as isize) {
                say!("not there");
                return;
            }
            done("fsopen", fs);
            ret("option", sys!(fsconfig, fs, 1, c"size", c"1m", 0));
            ret("create", sys!(fsconfig, fs, 6, 0, 0, 0));
            let mnt = done("fsmount", sys!(fsmount, fs, 0, 0));
            ret("move", sys!(move_mount, mnt, c"", libc::AT_FDCWD, c"m", 4));
            let mut st: libc::statfs = zeroed();
            sys!(statfs, c"m", &mut st);
            say!("{:#x}", st.f_type);
            let tree = done("open_tree", sys!(open_tree, libc::AT_FDCWD, c"m", 1));
            close(tree as i32);
            ret("bad type", sys!(fsopen, c"nosuchfs", 0));
            ret("bad flags", sys!(fsopen, c"tmpfs", 0x100));
            let attr = [1u64, 0, 0, 0];
            ret("mount_setattr", sys!(mount_setattr, libc::AT_FDCWD, c"m", 0, &attr, 32));
            ret("now read-only", sys!(mkdir, c"m/x", 0o755));
            ret("fspick", sys!(fspick, libc::AT_FDCWD, c"zz", 0));
        });
    }),
    case(
        "syslog/and_privileged_calls_as_user",
        "reboot swapon swapoff iopl ioperm nfsservctl afs_syscall tuxcall security",
        || {
            in_child("user", || {
                sys!(setresuid, 9, 9, 9);
                ret("syslog clear", sys!(syslog, 5, 0, 0));
                ret("syslog bad", sys!(syslog, 99, 0, 0));
                ret("reboot", sys!(reboot, 0xfee1deadu32, 672274793, 0));
                ret("swapon", sys!(swapon, c"/dev/null", 0));
                ret("swapoff", sys!(swapoff, c"/dev/null"));
                ret("iopl", sys!(iopl, 3));
                ret("ioperm", sys!(ioperm, 0, 1, 1));
                ret("nfsservctl", sys!(nfsservctl, 0, 0, 0));
                ret("afs", sys!(afs_syscall));
                ret("tuxcall", sys!(tuxcall));
                ret("security", sys!(security));
                0
            });
        },
    ),
    case("ioprio_set/and_get", "ioprio_get", || {
        ret("get", sys!(ioprio_get, 1, 0));
        ret("set best effort 3", sys!(ioprio_set, 1, 0, (2 << 13) | 3));
        ret("get", sys!(ioprio_get, 1, 0));
        ret("bad class", sys!(ioprio_set, 1, 0, 7 << 13));
        ret("bad which", sys!(ioprio_get, 9, 0));
        ret("no such", sys!(ioprio_get, 1, 999_999));
    }),
    case("open/unknown_calls", "", || {
        ret("unknown call number", crate::raw::call(9999, &[]));
        ret("negative call number", crate::raw::call(-1, &[]));
        ret("call number with high bits", crate::raw::call(0x4000_0000 | 39, &[]));
    }),
    case("open/proc_contents", "read", || {
        let read = |p: &str| {
            std::fs::read_to_string(p)
                .unwrap_or_else(|e| crate::out::errno(e.raw_os_error().unwrap_or(0)).to_owned())
        };
        for key in ["Name", "State", "Uid", "Gid", "Threads", "SigBlk", "NoNewPrivs", "CapEff"] {
            let status = read("/proc/self/status");
            let line = status.lines().find(|l| l.starts_with(key)).unwrap_or_default().to_owned();
            say!(
                "{}",
                if key == "CapEff" { line.split(':').next().unwrap_or_default().to_owned() } else { line }
            );
        }
        for path in [
            "/proc/meminfo",
            "/proc/stat",
            "/proc/cpuinfo",
            "/proc/uptime",
            "/proc/loadavg",
            "/proc/version",
            "/proc/mounts",
            "/proc/filesystems",
            "/proc/self/limits",
            "/proc/self/io",
            "/proc/sys/kernel/pid_max",
            "/proc/sys/kernel/hostname",
            "/proc/sys/fs/file-max",
            "/proc/self/oom_score_adj",
            "/proc/self/cgroup",
            "/proc/self/auxv",
            "/proc/self/statm",
            "/proc/self/smaps",
        ] {
            say!("{path} {}", std::fs::read(path).map(|b| !b.is_empty()).unwrap_or(false));
        }
        say!("cmdline {}", std::fs::read("/proc/self/cmdline").map(|b| b.ends_with(b"\0")).unwrap_or(false));
        say!("environ {}", read("/proc/self/environ") == read("/proc/thread-self/environ"));
        ret("write cmdline", sys!(open, c"/proc/self/cmdline", libc::O_WRONLY, 0));
        ret("create in proc", sys!(open, c"/proc/new", libc::O_CREAT | libc::O_RDWR, 0o644));
        ret("missing process", sys!(open, c"/proc/999999", O_RDONLY, 0));
        say!("{}", number(sys!(mkdir, c"/proc/self/x", 0o755)));
    }),
    case("pkey_alloc/errors", "pkey_free pkey_mprotect", || {
        // Processors differ in having keys; these are refused everywhere, or always work.
        ret("alloc flags", sys!(pkey_alloc, 1, 0));
        ret("free of none", sys!(pkey_free, 14));
        let p = sys!(mmap, 0, 4096, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        ret("mprotect without a key", sys!(pkey_mprotect, p, 4096, libc::PROT_READ, -1));
        ret("mprotect of a key not held", sys!(pkey_mprotect, p, 4096, libc::PROT_READ, 14));
    }),
    case("write/proc_comm_and_oom", "prctl", || {
        say!("{}", std::fs::write("/proc/self/comm", "renamed\n").is_ok());
        let mut name = [0u8; 16];
        sys!(prctl, libc::PR_GET_NAME, &mut name);
        say!("{}", until_nul(&name));
        say!("{}", std::fs::write("/proc/self/oom_score_adj", "500").is_ok());
        say!("{}", std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default().trim());
        say!("{}", std::fs::write("/proc/self/oom_score_adj", "5000").is_err());
    }),
];
