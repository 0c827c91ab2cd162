//! Who a process is: user and group ids, capabilities, groups, sessions, names, limits, namespaces.

use crate::case::{Case, NOWHERE, case, cstr, fork, in_child, pause_ms, pipe, until, wait, zeroed};
use crate::out::{claim, done, must, ret, until_nul};
use crate::{say, sys};
use libc::{CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS};

fn ids() -> String {
    let (mut r, mut e, mut s) = (0u32, 0u32, 0u32);
    sys!(getresuid, &mut r, &mut e, &mut s);
    let (mut gr, mut ge, mut gs) = (0u32, 0u32, 0u32);
    sys!(getresgid, &mut gr, &mut ge, &mut gs);
    format!("uid {r} {e} {s} gid {gr} {ge} {gs}")
}

fn caps() -> (u64, u64, u64) {
    let header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    sys!(capget, &header, &mut data);
    let join = |i: usize| data[i] as u64 | (data[i + 3] as u64) << 32;
    (join(0), join(1), join(2))
}

fn capset(e: u64, p: u64, i: u64) -> isize {
    let header = [0x2008_0522u32, 0];
    let d = [e as u32, p as u32, i as u32, (e >> 32) as u32, (p >> 32) as u32, (i >> 32) as u32];
    sys!(capset, &header, &d)
}

/// Says which of the sets are empty and whether CAP_CHOWN and CAP_KILL are in them.
pub fn show_caps() {
    let (e, p, i) = caps();
    say!("effective {} permitted {} inheritable {}", words(e), words(p), words(i));
    say!("ambient kill {}", sys!(prctl, libc::PR_CAP_AMBIENT, 1, 5, 0, 0));
}

/// Only the first capabilities: how many exist depends on the kernel's version.
fn words(set: u64) -> String {
    format!("{:#x}", set & 0xffff)
}

const KEEPCAPS: i32 = libc::PR_SET_KEEPCAPS;

fn self_exe(helper: &str) -> isize {
    let h = cstr(helper);
    let argv = [c"guest".as_ptr(), h.as_ptr(), std::ptr::null()];
    sys!(execve, c"/proc/self/exe", &argv, 0)
}

fn copy_of_self(name: &str) {
    let _ = std::fs::copy("/proc/self/exe", name);
}

pub const CASES: &[Case] = &[
    case("getuid/family", "geteuid getgid getegid getresuid getresgid", || {
        ret("uid", sys!(getuid));
        ret("euid", sys!(geteuid));
        ret("gid", sys!(getgid));
        ret("egid", sys!(getegid));
        say!("{}", ids());
        ret("bad pointer", sys!(getresuid, NOWHERE, 0, 0));
        ret("bad pointer", sys!(getresgid, NOWHERE, 0, 0));
    }),
    case("setuid/as_root_and_user", "setgid", || {
        in_child("root", || {
            ret("setgid", sys!(setgid, 200));
            ret("setuid", sys!(setuid, 100));
            say!("{}", ids());
            ret("back", sys!(setuid, 0));
            ret("setgid", sys!(setgid, 0));
            ret("same", sys!(setuid, 100));
            ret("minus one", sys!(setuid, -1));
            0
        });
        in_child("effective only", || {
            sys!(setresuid, 1, 2, 3);
            ret("to saved", sys!(setuid, 3));
            say!("{}", ids());
            ret("to another", sys!(setuid, 4));
            0
        });
    }),
    case("setreuid/rules", "setregid", || {
        in_child("root", || {
            ret("setregid", sys!(setregid, 10, 20));
            ret("setreuid", sys!(setreuid, 100, 200));
            say!("{}", ids());
            ret("swap", sys!(setreuid, 200, 100));
            say!("{}", ids());
            ret("foreign", sys!(setreuid, -1, 300));
            ret("nothing", sys!(setreuid, -1, -1));
            ret("group foreign", sys!(setregid, 99, -1));
            0
        });
    }),
    case("setresuid/rules", "setresgid", || {
        in_child("root", || {
            ret("groups", sys!(setresgid, 10, 20, 30));
            ret("users", sys!(setresuid, 1, 2, 3));
            say!("{}", ids());
            ret("permute", sys!(setresuid, 3, 1, 2));
            say!("{}", ids());
            ret("foreign", sys!(setresuid, 4, -1, -1));
            ret("foreign group", sys!(setresgid, -1, 40, -1));
            ret("keep", sys!(setresuid, -1, -1, -1));
            0
        });
    }),
    case("setfsuid/returns_old", "setfsgid", || {
        sys!(chmod, c".", 0o777);
        ret("old", sys!(setfsuid, 1000));
        ret("now", sys!(setfsuid, -1));
        ret("group", sys!(setfsgid, 77));
        ret("group now", sys!(setfsgid, -1));
        crate::case::file("f", b"");
        let mut st: libc::stat = zeroed();
        sys!(stat, c"f", &mut st);
        say!("owner {}:{}", st.st_uid, st.st_gid);
    }),
    case("setgroups/getgroups", "getgroups", || {
        ret("set", sys!(setgroups, 3, &[5u32, 6, 7]));
        let mut list = [0u32; 8];
        ret("count", sys!(getgroups, 0, 0));
        ret("get", sys!(getgroups, 8, &mut list));
        say!("{:?}", &list[..3]);
        ret("small", sys!(getgroups, 2, &mut list));
        ret("negative", sys!(getgroups, -1, &mut list));
        ret("too many", sys!(setgroups, 65537, &list));
        ret("bad", sys!(setgroups, 2, NOWHERE));
        in_child("user", || {
            sys!(setresuid, 1, 1, 1);
            ret("set", sys!(setgroups, 0, 0));
            0
        });
    }),
    case("capget/versions", "capset", || {
        let mut header = [0u32, 0];
        let mut data = [0u32; 6];
        ret("probe", sys!(capget, &mut header, 0));
        say!("{:#x}", header[0]);
        ret("wrong version", sys!(capget, &mut [1u32, 0], &mut data));
        ret("no such process", sys!(capget, &mut [0x2008_0522u32, 999_999], &mut data));
        ret("negative", sys!(capget, &mut [0x2008_0522u32, u32::MAX], &mut data));
        ret("bad pointer", sys!(capget, NOWHERE, &mut data));
        ret("set other", sys!(capset, &[0x2008_0522u32, 999_999], &data));
    }),
    case("capset/rules", "capget", || {
        in_child("drop", || {
            ret("drop", capset(0x21, 0x21, 0));
            let (e, p, i) = caps();
            say!("{e:#x} {p:#x} {i:#x}");
            ret("regain", capset(0x23, 0x23, 0));
            ret("effective beyond permitted", capset(0x23, 0x21, 0));
            ret("lower effective", capset(1, 0x21, 0));
            ret("raise effective", capset(0x21, 0x21, 0));
            ret("inheritable of permitted", capset(0x21, 0x21, 0x1));
            ret("inheritable beyond", capset(0x21, 0x21, 0x101));
            0
        });
    }),
    case("setresuid/capabilities_change", "prctl capget", || {
        in_child("all away", || {
            sys!(setresuid, 5, 5, 5);
            let (e, p, _) = caps();
            say!("{e:#x} {p:#x}");
            0
        });
        in_child("effective only", || {
            sys!(setresuid, 0, 5, 0);
            let (e, p, _) = caps();
            say!("{e:#x} permitted {}", p != 0);
            sys!(setresuid, 0, 0, 0);
            say!("back {}", caps().0 == p);
            0
        });
        in_child("keep", || {
            ret("keepcaps", sys!(prctl, KEEPCAPS, 1));
            sys!(setresuid, 5, 5, 5);
            let (e, p, _) = caps();
            say!("{e:#x} permitted {}", p != 0);
            ret("get", sys!(prctl, libc::PR_GET_KEEPCAPS));
            0
        });
        in_child("fsuid", || {
            let before = caps().0;
            sys!(setfsuid, 5);
            say!("chown gone {}", before & 1 == 1 && caps().0 & 1 == 0);
            sys!(setfsuid, 0);
            say!("back {}", caps().0 == before);
            0
        });
    }),
    case("execve/capabilities", "capset prctl", || {
        in_child("root gets all again", || {
            capset(0x21, 0x21, 0);
            self_exe("helper:caps") as i32
        });
        in_child("user gets none", || {
            sys!(prctl, KEEPCAPS, 1);
            sys!(setresuid, 5, 5, 5);
            capset(0x21, 0x21, 0x20);
            self_exe("helper:caps") as i32
        });
        in_child("ambient stays", || {
            sys!(prctl, KEEPCAPS, 1);
            sys!(setresuid, 5, 5, 5);
            capset(0x21, 0x21, 0x20);
            ret("raise", sys!(prctl, libc::PR_CAP_AMBIENT, 2, 5, 0, 0));
            ret("raise not inheritable", sys!(prctl, libc::PR_CAP_AMBIENT, 2, 0, 0, 0));
            self_exe("helper:caps") as i32
        });
        in_child("bounding", || {
            ret("drop", sys!(prctl, libc::PR_CAPBSET_DROP, 0));
            ret("read", sys!(prctl, libc::PR_CAPBSET_READ, 0));
            ret("read other", sys!(prctl, libc::PR_CAPBSET_READ, 5));
            ret("read bad", sys!(prctl, libc::PR_CAPBSET_READ, 200));
            self_exe("helper:caps") as i32
        });
        in_child("noroot", || {
            ret("securebits", sys!(prctl, libc::PR_SET_SECUREBITS, 3));
            self_exe("helper:caps") as i32
        });
    }),
    case("execve/set_user_id", "chmod", || {
        copy_of_self("prog");
        sys!(chmod, c".", 0o755);
        sys!(chown, c"prog", 1234, 5678);
        sys!(chmod, c"prog", 0o6755);
        let argv = [c"prog".as_ptr(), c"helper:ids".as_ptr(), std::ptr::null()];
        in_child("user", || {
            sys!(setresgid, 1000, 1000, 1000);
            sys!(setresuid, 1000, 1000, 1000);
            sys!(execve, c"prog", &argv, 0) as i32
        });
        in_child("no new privileges", || {
            sys!(setresgid, 1000, 1000, 1000);
            sys!(setresuid, 1000, 1000, 1000);
            ret("set", sys!(prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
            sys!(execve, c"prog", &argv, 0) as i32
        });
        sys!(chmod, c"prog", 0o2745);
        in_child("set-group-id only", || {
            sys!(setresgid, 1000, 1000, 1000);
            sys!(setresuid, 1000, 1000, 1000);
            sys!(execve, c"prog", &argv, 0) as i32
        });
    }),
    case("prctl/names_and_flags", "", || {
        ret("set name", sys!(prctl, libc::PR_SET_NAME, c"a-name-that-is-too-long"));
        let mut name = [0u8; 16];
        ret("get name", sys!(prctl, libc::PR_GET_NAME, &mut name));
        say!("{}", until_nul(&name));
        say!("comm {}", std::fs::read_to_string("/proc/self/comm").unwrap_or_default().trim_end());
        ret("bad name", sys!(prctl, libc::PR_SET_NAME, NOWHERE));
        ret("dumpable", sys!(prctl, libc::PR_GET_DUMPABLE));
        ret("set dumpable", sys!(prctl, libc::PR_SET_DUMPABLE, 0));
        ret("dumpable", sys!(prctl, libc::PR_GET_DUMPABLE));
        ret("set dumpable 2", sys!(prctl, libc::PR_SET_DUMPABLE, 2));
        let mut signal = 9i32;
        ret("pdeathsig", sys!(prctl, libc::PR_GET_PDEATHSIG, &mut signal));
        say!("{signal}");
        ret("set pdeathsig", sys!(prctl, libc::PR_SET_PDEATHSIG, 65));
        ret("no new privs", sys!(prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
        ret("set with junk", sys!(prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0));
        ret("unset", sys!(prctl, libc::PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
        ret("timer slack", sys!(prctl, libc::PR_GET_TIMERSLACK));
        ret("set timer slack", sys!(prctl, libc::PR_SET_TIMERSLACK, 1000));
        ret("timer slack", sys!(prctl, libc::PR_GET_TIMERSLACK));
        let mut reaper = 9i32;
        ret("subreaper", sys!(prctl, libc::PR_GET_CHILD_SUBREAPER, &mut reaper));
        say!("{reaper}");
        ret("thp", sys!(prctl, libc::PR_GET_THP_DISABLE, 0, 0, 0, 0));
        ret("seccomp", sys!(prctl, libc::PR_GET_SECCOMP));
        ret("unknown", sys!(prctl, 9999));
    }),
    case("prctl/death_signal_and_subreaper", "fork getppid", || {
        ret("subreaper", sys!(prctl, libc::PR_SET_CHILD_SUBREAPER, 1));
        let (r, w) = pipe(0);
        let middle = fork(|| {
            fork(|| {
                super::signals::on(libc::SIGUSR1, 0);
                sys!(prctl, libc::PR_SET_PDEATHSIG, libc::SIGUSR1);
                sys!(write, w, b"r", 1);
                until(|| super::signals::count() > 0);
                say!("death signal {}", super::signals::seen());
                9
            });
            let mut b = [0u8; 1];
            sys!(read, r, &mut b, 1);
            3
        });
        // Said when the other has said its part.
        let middle = wait(middle);
        let mut status = 0i32;
        done("orphan came to us", sys!(wait4, -1, &mut status, 0, 0));
        say!("middle {middle}");
        say!("{}", crate::out::status(status));
    }),
    case("setpgid/rules", "getpgid getpgrp fork", || {
        let me = sys!(getpid);
        claim("leader of its group", sys!(getpgrp) == me);
        ret("session leader", sys!(setpgid, 0, 0));
        ret("negative", sys!(setpgid, 0, -1));
        ret("no such process", sys!(setpgid, 999_999, 0));
        let child = fork(|| {
            pause_ms(3000);
            0
        });
        ret("child own group", sys!(setpgid, child, child));
        say!("{}", sys!(getpgid, child) == child as isize);
        ret("back to ours", sys!(setpgid, child, me));
        ret("no such group", sys!(setpgid, child, 999_999));
        ret("getpgid no such", sys!(getpgid, 999_999));
        say!("getpgid self {}", sys!(getpgid, 0) == me);
        sys!(kill, child, libc::SIGKILL);
        wait(child);
        let (r, w) = pipe(0);
        let child = fork(|| {
            let argv = [c"guest".as_ptr(), c"helper:sleep".as_ptr(), c"3000".as_ptr(), std::ptr::null()];
            sys!(fcntl, w, libc::F_SETFD, 1);
            sys!(execve, c"/proc/self/exe", &argv, 0) as i32
        });
        sys!(close, w);
        let mut b = [0u8; 1];
        sys!(read, r, &mut b, 1);
        ret("after exec", sys!(setpgid, child, child));
        sys!(kill, child, libc::SIGKILL);
        wait(child);
    }),
    case("setsid/rules", "getsid", || {
        ret("leader", sys!(setsid));
        say!("{}", sys!(getsid, 0) == sys!(getpid));
        in_child("child", || {
            done("setsid", sys!(setsid));
            let me = sys!(getpid);
            say!("{} {}", sys!(getsid, 0) == me, sys!(getpgrp) == me);
            let other = sys!(getppid);
            ret("group of another session", sys!(setpgid, 0, other));
            0
        });
        ret("no such", sys!(getsid, 999_999));
    }),
    case("prlimit64/get_and_set", "getrlimit setrlimit", || {
        let mut old: libc::rlimit = zeroed();
        ret("getrlimit", sys!(getrlimit, libc::RLIMIT_NOFILE, &mut old));
        say!("{} {}", old.rlim_cur, old.rlim_max);
        ret("lower", sys!(setrlimit, libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: 100, rlim_max: 200 }));
        ret(
            "cur over max",
            sys!(setrlimit, libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: 300, rlim_max: 200 }),
        );
        in_child("user raises", || {
            sys!(setresuid, 5, 5, 5);
            ret(
                "raise",
                sys!(setrlimit, libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: 100, rlim_max: 300 }),
            );
            ret("soft", sys!(setrlimit, libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: 200, rlim_max: 200 }));
            0
        });
        ret("bad resource", sys!(getrlimit, 99, &mut old));
        ret("bad pointer", sys!(getrlimit, libc::RLIMIT_NOFILE, NOWHERE));
        let child = fork(|| {
            pause_ms(3000);
            0
        });
        ret(
            "other's",
            sys!(prlimit64, child, libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 }, &mut old),
        );
        say!("{} {}", old.rlim_cur, old.rlim_max);
        sys!(prlimit64, child, libc::RLIMIT_NOFILE, 0, &mut old);
        say!("inherited {} {}", old.rlim_cur, old.rlim_max);
        in_child("stranger", || {
            sys!(setresuid, 5, 5, 5);
            ret("read", sys!(prlimit64, child, libc::RLIMIT_CORE, 0, &mut old));
            0
        });
        ret("no such", sys!(prlimit64, 999_999, libc::RLIMIT_CORE, 0, &mut old));
        sys!(kill, child, libc::SIGKILL);
        wait(child);
    }),
    case("prlimit64/cpu_time_and_processes", "", || {
        in_child("cpu", || {
            sys!(setrlimit, libc::RLIMIT_CPU, &libc::rlimit { rlim_cur: 1, rlim_max: 2 });
            loop {
                std::hint::spin_loop();
            }
        });
        in_child("processes", || {
            sys!(setrlimit, libc::RLIMIT_NPROC, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
            sys!(setresuid, 23456, 23456, 23456);
            ret("fork", sys!(clone, libc::SIGCHLD, 0, 0, 0, 0));
            0
        });
    }),
    case("getpriority/nice", "setpriority", || {
        ret("get", sys!(getpriority, 0, 0));
        ret("set", sys!(setpriority, 0, 0, 5));
        ret("get", sys!(getpriority, 0, 0));
        ret("clamped", sys!(setpriority, 0, 0, 100));
        ret("get", sys!(getpriority, 0, 0));
        ret("raise as root", sys!(setpriority, 0, 0, -3));
        ret("get", sys!(getpriority, 0, 0));
        ret("bad which", sys!(getpriority, 9, 0));
        ret("no such", sys!(getpriority, 0, 999_999));
        ret("group", sys!(setpriority, 1, 0, 1));
        in_child("user", || {
            sys!(setresuid, 5, 5, 5);
            ret("lower", sys!(setpriority, 0, 0, 2));
            ret("raise", sys!(setpriority, 0, 0, 0));
            0
        });
    }),
    case("umask/is_shared_by_clone_fs", "", || {
        ret("old", sys!(umask, 0o777));
        ret("old", sys!(umask, 0o7022));
        ret("masked", sys!(umask, 0o022));
        let thread = std::thread::spawn(|| sys!(umask, 0o055));
        let _ = thread.join();
        ret("thread changed it", sys!(umask, 0o022));
    }),
    case("personality/read_and_set", "", || {
        ret("read", sys!(personality, 0xffff_ffffu32));
        ret("no randomize", sys!(personality, 0x0040000));
        ret("read", sys!(personality, 0xffff_ffffu32));
    }),
    case("unshare/hostname_namespace", "sethostname setdomainname uname", || {
        in_child("own name", || {
            must("unshare", sys!(unshare, CLONE_NEWUTS));
            ret("set", sys!(sethostname, b"inner", 5));
            ret("domain", sys!(setdomainname, b"dom", 3));
            let mut u: libc::utsname = zeroed();
            sys!(uname, &mut u);
            let text = |f: &[libc::c_char]| until_nul(&f.iter().map(|c| *c as u8).collect::<Vec<_>>());
            say!("{} {}", text(&u.nodename), text(&u.domainname));
            ret("too long", sys!(sethostname, &[b'x'; 65], 65));
            ret("bad", sys!(sethostname, NOWHERE, 5));
            sys!(setresuid, 5, 5, 5);
            ret("as user", sys!(sethostname, b"no", 2));
            0
        });
        let mut u: libc::utsname = zeroed();
        sys!(uname, &mut u);
        say!(
            "outer kept {}",
            u.nodename[0] as u8 != b'i' || u.nodename[1] as u8 != b'n' || u.nodename[4] as u8 != b'r'
        );
    }),
    case("unshare/errors", "", || {
        ret("unknown flag", sys!(unshare, 0x1));
        ret("nothing", sys!(unshare, 0));
        ret("files", sys!(unshare, libc::CLONE_FILES));
        ret("fs", sys!(unshare, libc::CLONE_FS));
        in_child("user without rights", || {
            sys!(setresuid, 5, 5, 5);
            ret("mounts", sys!(unshare, CLONE_NEWNS));
            ret("pids", sys!(unshare, CLONE_NEWPID));
            0
        });
        let thread = std::thread::spawn(|| {
            ret("thread flag with threads", sys!(unshare, libc::CLONE_THREAD));
            ret("vm with threads", sys!(unshare, libc::CLONE_VM));
        });
        let _ = thread.join();
    }),
    case("unshare/pid_namespace", "fork getpid", || {
        in_child("outer", || {
            must("unshare", sys!(unshare, CLONE_NEWPID));
            let child = fork(|| {
                ret("pid", sys!(getpid));
                ret("parent", sys!(getppid));
                let grandchild = fork(|| {
                    ret("second", sys!(getpid));
                    ret("parent", sys!(getppid));
                    0
                });
                say!("{}", wait(grandchild));
                // The first process of a namespace is not hurt by signals without a handler.
                sys!(kill, 1, libc::SIGTERM);
                sys!(kill, 1, libc::SIGKILL);
                say!("still here");
                0
            });
            say!("{}", wait(child));
            // The namespace died with its first process.
            ret("fork again", sys!(clone, libc::SIGCHLD, 0, 0, 0, 0));
            0
        });
    }),
    case("unshare/pid_namespace_init_death_kills_all", "fork", || {
        in_child("outer", || {
            must("unshare", sys!(unshare, CLONE_NEWPID));
            let (r, w) = pipe(0);
            let child = fork(|| {
                fork(|| {
                    pause_ms(10_000);
                    0
                });
                0
            });
            sys!(close, w);
            say!("{}", wait(child));
            let mut b = [0u8; 1];
            ret("everyone closed the pipe", sys!(read, r, &mut b, 1));
            0
        });
    }),
    case("unshare/user_namespace", "getuid", || {
        in_child("user", || {
            sys!(setgroups, 0, 0);
            sys!(setresgid, 1000, 1000, 1000);
            sys!(setresuid, 1000, 1000, 1000);
            // A process that changed its ids is not dumpable and could not write its own map.
            sys!(prctl, libc::PR_SET_DUMPABLE, 1);
            ret("unshare", sys!(unshare, CLONE_NEWUSER));
            ret("unmapped uid", sys!(getuid));
            let (e, _, _) = caps();
            say!("all capabilities {}", e & 0xffff == 0xffff);
            say!("map {:?}", std::fs::write("/proc/self/uid_map", "0 1000 1").is_ok());
            ret("mapped uid", sys!(getuid));
            say!("map twice {:?}", std::fs::write("/proc/self/uid_map", "0 1000 1").is_ok());
            say!("groups need deny {:?}", std::fs::write("/proc/self/gid_map", "0 1000 1").is_ok());
            let _ = std::fs::write("/proc/self/setgroups", "deny");
            say!("groups {:?}", std::fs::write("/proc/self/gid_map", "0 1000 1").is_ok());
            ret("gid", sys!(getgid));
            ret("hostname of the outer", sys!(sethostname, b"x", 1));
            ret("own uts", sys!(unshare, CLONE_NEWUTS));
            ret("hostname", sys!(sethostname, b"x", 1));
            0
        });
    }),
    case("setns/by_file_and_pidfd", "open pidfd_open", || {
        let (r, w) = pipe(0);
        let child = fork(|| {
            sys!(unshare, CLONE_NEWUTS);
            sys!(sethostname, b"elsewhere", 9);
            sys!(write, w, b"x", 1);
            pause_ms(5000);
            0
        });
        let mut b = [0u8; 1];
        sys!(read, r, &mut b, 1);
        let name = || {
            let mut u: libc::utsname = zeroed();
            sys!(uname, &mut u);
            until_nul(&u.nodename.iter().map(|c| *c as u8).collect::<Vec<_>>())
        };
        in_child("by file", || {
            let fd = crate::case::open(&format!("/proc/{child}/ns/uts"), libc::O_RDONLY);
            ret("wrong type", sys!(setns, fd, CLONE_NEWNS));
            ret("setns", sys!(setns, fd, CLONE_NEWUTS));
            say!("{}", name());
            0
        });
        in_child("by pidfd", || {
            let fd = sys!(pidfd_open, child, 0);
            ret("setns", sys!(setns, fd, CLONE_NEWUTS));
            say!("{}", name());
            0
        });
        ret("not a namespace", sys!(setns, 0, 0));
        ret("bad fd", sys!(setns, 99, 0));
        sys!(kill, child, libc::SIGKILL);
        wait(child);
    }),
    case("getpid/proc_self_agrees", "getppid gettid", || {
        let me = sys!(getpid);
        claim("tid is pid in the first thread", sys!(gettid) == me);
        let link = std::fs::read_link("/proc/self").unwrap_or_default();
        claim("/proc/self", link.to_string_lossy() == me.to_string());
        in_child("child", || (sys!(getppid) != me) as i32);
        let thread = std::thread::spawn(move || (sys!(getpid) == me, sys!(gettid) != me));
        say!("{:?}", thread.join().ok());
    }),
    case("setresuid/dumpable_and_proc_owner", "prctl", || {
        in_child("dropped", || {
            sys!(setresuid, 5, 5, 5);
            ret("dumpable", sys!(prctl, libc::PR_GET_DUMPABLE));
            let mut st: libc::stat = zeroed();
            sys!(stat, c"/proc/self/environ", &mut st);
            say!("owner {}", st.st_uid);
            0
        });
    }),
    case("getppid/reparenting", "fork wait4", || {
        let (r, w) = pipe(0);
        let (known, know) = pipe(0);
        let child = fork(|| {
            fork(|| {
                let parent = sys!(getppid) as i32;
                sys!(write, know, b"x", 1);
                until(|| sys!(getppid) as i32 != parent);
                let adopted = sys!(getppid) as i32 != parent;
                sys!(write, w, if adopted { b"y" } else { b"n" }, 1);
                0
            });
            sys!(read, known, &mut [0u8; 1], 1);
            0
        });
        say!("{}", wait(child));
        let mut b = [0u8; 1];
        ret("read", sys!(read, r, &mut b, 1));
        say!("adopted {}", b[0] == b'y');
    }),
];
