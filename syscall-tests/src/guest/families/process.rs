//! Processes: fork and clone, exec, exit, waiting, pidfds, scheduling, accounting.

use crate::case::{
    Case, NOWHERE, asleep, case, cstr, file, fork, in_child, leave, open, pause_ms, pipe, state_of, until,
    wait, zeroed,
};
use crate::out::{claim, done, number, ret, status};
use crate::{say, sys};
use libc::{
    CLONE_FILES, CLONE_FS, CLONE_PARENT_SETTID, CLONE_PIDFD, CLONE_SIGHAND, CLONE_THREAD, CLONE_VFORK,
    CLONE_VM, SIGCHLD, SIGKILL, SIGSTOP, SIGTERM, WCONTINUED, WEXITED, WNOHANG, WNOWAIT, WSTOPPED,
};
use std::sync::atomic::{AtomicI32, Ordering};

fn copy_of_self(name: &str, mode: i32) {
    let _ = std::fs::copy("/proc/self/exe", name);
    sys!(chmod, &*cstr(name), mode);
}

/// Calls execve of a path with these arguments and returns the errno.
fn exec(path: &str, args: &[&str]) -> isize {
    let args: Vec<_> = args.iter().map(cstr).collect();
    let mut argv: Vec<*const libc::c_char> = args.iter().map(|a| a.as_ptr()).collect();
    argv.push(std::ptr::null());
    sys!(execve, &*cstr(path), argv.as_slice(), 0)
}

fn script(name: &str, text: &str) {
    let fd = file(name, text.as_bytes());
    sys!(chmod, &*cstr(name), 0o755);
    sys!(close, fd);
}

fn sleeper() -> i32 {
    fork(|| {
        pause_ms(8000);
        0
    })
}

fn end(pid: i32) {
    sys!(kill, pid, SIGKILL);
    wait(pid);
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// clone3 whose child, if it shares no memory, runs on and leaves with the code.
fn clone3(args: &CloneArgs, code: i32) -> isize {
    let r = sys!(clone3, args, size_of::<CloneArgs>());
    if r == 0 {
        leave(code);
    }
    r
}

static SHARED: AtomicI32 = AtomicI32::new(0);

/// clone with memory shared on a stack of its own; the child runs `body` and exits with its value.
fn clone_vm(flags: i32, body: extern "C" fn(*mut libc::c_void) -> i32) -> i32 {
    let stack = Box::leak(vec![0u128; 4096].into_boxed_slice());
    let top: *mut libc::c_void = stack.as_mut_ptr_range().end.cast();
    // SAFETY: the stack is leaked, so it outlives the child.
    unsafe { libc::clone(body, top, flags, std::ptr::null_mut()) }
}

extern "C" fn touch(_: *mut libc::c_void) -> i32 {
    SHARED.store(77, Ordering::SeqCst);
    5
}

pub const CASES: &[Case] = &[
    case("fork/memory_is_a_copy", "", || {
        let mut value = Box::new(1);
        SHARED.store(1, Ordering::SeqCst);
        in_child("child", || {
            *value = 2;
            SHARED.store(2, Ordering::SeqCst);
            *value
        });
        say!("{} {}", value, SHARED.load(Ordering::SeqCst));
        *value += 1;
        let r = sys!(fork);
        if r == 0 {
            leave(*value);
        }
        say!("{}", wait(r as i32));
    }),
    case("vfork/parent_waits", "exit_group", || {
        let began = crate::case::now_ms();
        // A child that shares memory must not return from here; clone with CLONE_VFORK on its own stack.
        extern "C" fn slow(_: *mut libc::c_void) -> i32 {
            pause_ms(60);
            SHARED.store(5, Ordering::SeqCst);
            3
        }
        let pid = clone_vm(CLONE_VM | CLONE_VFORK | SIGCHLD, slow);
        say!("waited {} shared {}", crate::case::now_ms() - began >= 60, SHARED.load(Ordering::SeqCst));
        say!("{}", wait(pid));
        let r: isize;
        unsafe {
            std::arch::asm!(
                "syscall", "test rax, rax", "jnz 2f",
                "mov edi, 9", "mov eax, 231", "syscall",
                "2:",
                inlateout("rax") libc::SYS_vfork as isize => r, out("rdi") _, out("rcx") _, out("r11") _,
            );
        }
        say!("raw vfork {}", wait(r as i32));
    }),
    case("vfork/exec_releases_the_parent", "execve", || {
        extern "C" fn run(_: *mut libc::c_void) -> i32 {
            exec("/proc/self/exe", &["guest", "helper:exit", "6"]);
            1
        }
        let pid = clone_vm(CLONE_VM | CLONE_VFORK | SIGCHLD, run);
        say!("{}", wait(pid));
    }),
    case("clone/shared_memory_and_files", "", || {
        let pid = clone_vm(CLONE_VM | SIGCHLD, touch);
        say!("{} {}", wait(pid), SHARED.load(Ordering::SeqCst));
        extern "C" fn opens(_: *mut libc::c_void) -> i32 {
            sys!(dup2, 0, 30);
            sys!(chdir, c"/");
            0
        }
        wait(clone_vm(CLONE_VM | SIGCHLD, opens));
        ret("separate files", sys!(fcntl, 30, libc::F_GETFD));
        wait(clone_vm(CLONE_VM | CLONE_FILES | CLONE_FS | SIGCHLD, opens));
        ret("shared files", sys!(fcntl, 30, libc::F_GETFD));
        let mut b = [0u8; 100];
        ret("shared directory", sys!(getcwd, &mut b, 100));
    }),
    case("clone/errors", "", || {
        let bad = |flags: i32| {
            let r = sys!(clone, flags, 0, 0, 0, 0);
            if r == 0 {
                leave(0);
            }
            r
        };
        ret("thread without sighand", bad(CLONE_THREAD | CLONE_VM));
        ret("sighand without vm", bad(CLONE_SIGHAND));
        ret("newns and fs", bad(libc::CLONE_NEWNS | CLONE_FS));
        ret("newpid and thread", bad(libc::CLONE_NEWPID | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM));
        ret("newuser and fs", bad(libc::CLONE_NEWUSER | CLONE_FS));
        ret("pidfd and parent tid", bad(CLONE_PIDFD | CLONE_PARENT_SETTID | SIGCHLD));
    }),
    case("clone/parent_and_exit_signal", "wait4", || {
        super::signals::on(libc::SIGUSR1, 0);
        let r = sys!(clone, libc::SIGUSR1, 0, 0, 0, 0);
        if r == 0 {
            leave(4);
        }
        let mut code = 0i32;
        until(|| super::signals::count() > 0);
        say!("signal {}", super::signals::seen());
        ret("plain wait", sys!(wait4, -1, &mut code, WNOHANG, 0));
        claim("__WALL", sys!(wait4, -1, &mut code, libc::__WALL, 0) == r);
        say!("{}", status(code));
        let r = sys!(clone, 0, 0, 0, 0, 0);
        if r == 0 {
            leave(5);
        }
        claim("__WCLONE", sys!(wait4, -1, &mut code, libc::__WCLONE, 0) == r);
        say!("{}", status(code));
    }),
    case("clone/tids_and_clear", "set_tid_address futex", || {
        static TID: AtomicI32 = AtomicI32::new(0);
        static PARENT: AtomicI32 = AtomicI32::new(0);
        let flags = libc::CLONE_CHILD_SETTID | CLONE_PARENT_SETTID | SIGCHLD;
        let r = sys!(clone, flags, 0, PARENT.as_ptr(), TID.as_ptr(), 0);
        if r == 0 {
            leave((TID.load(Ordering::SeqCst) as isize == sys!(getpid)) as i32);
        }
        say!(
            "parent's {} child's copy untouched {}",
            PARENT.load(Ordering::SeqCst) as isize == r,
            TID.load(Ordering::SeqCst)
        );
        say!("{}", wait(r as i32));
        claim("set_tid_address returns tid", sys!(set_tid_address, 0) == sys!(gettid));
        TID.store(1, Ordering::SeqCst);
        extern "C" fn clears(_: *mut libc::c_void) -> i32 {
            sys!(set_tid_address, TID.as_ptr());
            0
        }
        wait(clone_vm(CLONE_VM | SIGCHLD, clears));
        say!("cleared {}", TID.load(Ordering::SeqCst));
    }),
    case("clone3/basics", "", || {
        let plain = CloneArgs { exit_signal: SIGCHLD as u64, ..Default::default() };
        say!("{}", wait(clone3(&plain, 7) as i32));
        let mut pidfd = 0i32;
        let with = CloneArgs {
            flags: CLONE_PIDFD as u64,
            pidfd: &raw mut pidfd as u64,
            exit_signal: SIGCHLD as u64,
            ..Default::default()
        };
        let pid = clone3(&with, 8);
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{pidfd}")).unwrap_or_default();
        say!("pidfd names it {}", info.contains(&format!("Pid:\t{pid}")));
        ret("cloexec", sys!(fcntl, pidfd, libc::F_GETFD));
        say!("{}", wait(pid as i32));
        ret("small", sys!(clone3, &plain, 8));
        ret("huge", sys!(clone3, &plain, 5000));
        ret("bad pointer", sys!(clone3, NOWHERE, 64));
        ret("bad exit signal", clone3(&CloneArgs { exit_signal: 300, ..Default::default() }, 0));
        ret(
            "stack without size",
            clone3(&CloneArgs { stack: 4096, exit_signal: 17, ..Default::default() }, 0),
        );
        ret(
            "size without stack",
            clone3(&CloneArgs { stack_size: 4096, exit_signal: 17, ..Default::default() }, 0),
        );
        ret("detached", clone3(&CloneArgs { flags: 0x0040_0000, exit_signal: 17, ..Default::default() }, 0));
        ret("low byte", clone3(&CloneArgs { flags: 17, exit_signal: 17, ..Default::default() }, 0));
        let tid = 500i32;
        let taken = CloneArgs {
            set_tid: &raw const tid as u64,
            set_tid_size: 1,
            exit_signal: 17,
            ..Default::default()
        };
        let got = clone3(&taken, 0);
        ret("chosen id", got);
        wait(got as i32);
        let clear = CloneArgs { flags: 0x1_0000_0000, exit_signal: 17, ..Default::default() };
        super::signals::on(libc::SIGUSR1, 0);
        let r = sys!(clone3, &clear, size_of::<CloneArgs>());
        if r == 0 {
            let mut old = [0u64; 4];
            sys!(rt_sigaction, libc::SIGUSR1, 0, &mut old, 8);
            leave(old[0] as i32 & 0xff);
        }
        say!("handlers cleared {}", wait(r as i32));
    }),
    case("execve/arguments_and_environment", "", || {
        in_child("echo", || exec("/proc/self/exe", &["guest", "helper:echo", "a", "", "b c"]) as i32);
        in_child("env", || {
            let argv = [c"guest".as_ptr(), c"helper:env".as_ptr(), std::ptr::null()];
            let envp = [c"A=1".as_ptr(), c"B=two words".as_ptr(), std::ptr::null()];
            sys!(execve, c"/proc/self/exe", &argv, &envp) as i32
        });
        in_child("no argv", || {
            let r = sys!(execve, c"/proc/self/exe", 0, 0);
            ret("returned", r);
            0
        });
    }),
    case("execve/errors", "", || {
        sys!(close, file("plain", b"no program"));
        sys!(mkdir, c"d", 0o755);
        ret("missing", exec("missing", &["x"]));
        ret("directory", exec("d", &["x"]));
        ret("not executable", exec("plain", &["x"]));
        sys!(chmod, c"plain", 0o755);
        ret("no format", exec("plain", &["x"]));
        sys!(close, file("empty", b""));
        sys!(chmod, c"empty", 0o755);
        ret("empty", exec("empty", &["x"]));
        ret("below a file", exec("plain/x", &["x"]));
        ret("empty name", exec("", &["x"]));
        ret("null name", sys!(execve, 0, 0, 0));
        ret("bad argv", sys!(execve, c"/proc/self/exe", NOWHERE, 0));
        ret("bad string", sys!(execve, c"/proc/self/exe", &[NOWHERE, 0], 0));
        ret("bad envp", sys!(execve, c"/proc/self/exe", 0, &[NOWHERE, 0]));
        sys!(symlink, c"loop", c"loop");
        ret("loop", exec("loop", &["x"]));
        script("truncated", "\x7fELF\x02\x01\x01");
        ret("truncated program", exec("truncated", &["x"]));
        ret("long argument", exec("/proc/self/exe", &[&"x".repeat(131_072)]));
        ret("argument that just fits", exec("missing", &[&"x".repeat(131_071)]));
        let many = vec!["0123456789abcdef".repeat(4000); 40];
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        ret("too much in all", exec("/proc/self/exe", &many));
        in_child("user without x", || {
            sys!(chmod, c"plain", 0o744);
            sys!(setresuid, 5, 5, 5);
            ret("exec", exec("plain", &["x"]));
            0
        });
    }),
    case("execve/scripts", "", || {
        copy_of_self("prog", 0o755);
        script("one", "#!prog helper:echo\nignored\n");
        in_child("interpreter", || exec("one", &["zero", "first", "second"]) as i32);
        script("spaces", "#!  prog   helper:echo  more words  \n");
        in_child("one argument", || exec("./spaces", &["zero"]) as i32);
        script("nested", "#!one\n");
        in_child("nested", || exec("nested", &["zero", "x"]) as i32);
        script("nothing", "#!\n");
        ret("nothing", exec("nothing", &["x"]));
        script("gone", "#!/does/not/exist\n");
        ret("gone", exec("gone", &["x"]));
        script("itself", "#!itself\n");
        ret("itself", exec("itself", &["x"]));
        script("noeol", "#!prog helper:echo");
        in_child("no newline", || exec("noeol", &["zero"]) as i32);
        script("toolong", &format!("#!{}\n", "x".repeat(300)));
        ret("too long", exec("toolong", &["x"]));
    }),
    case("execve/name_and_links", "readlink prctl", || {
        copy_of_self("a-program-with-a-long-name", 0o755);
        in_child("name", || exec("a-program-with-a-long-name", &["zero", "helper:state"]) as i32);
    }),
    case("execve/kills_other_threads", "gettid", || {
        let (r, w) = pipe(libc::O_CLOEXEC);
        let child = fork(|| {
            for _ in 0..3 {
                std::thread::spawn(|| pause_ms(9000));
            }
            let me = sys!(getpid);
            std::thread::spawn(move || {
                // Not the first thread: after exec the id must be the process's.
                let _ = me;
                exec("/proc/self/exe", &["guest", "helper:exit", "12"]);
            });
            pause_ms(9000);
            1
        });
        sys!(close, w);
        let mut b = [0u8; 1];
        ret("closed by exec", sys!(read, r, &mut b, 1));
        say!("{}", wait(child));
    }),
    case("execveat/forms", "open", || {
        copy_of_self("prog", 0o755);
        let argv = [c"guest".as_ptr(), c"helper:echo".as_ptr(), c"hi".as_ptr(), std::ptr::null()];
        let dir = open(".", libc::O_RDONLY);
        in_child("relative", || sys!(execveat, dir, c"prog", &argv, 0, 0) as i32);
        let fd = open("prog", libc::O_RDONLY);
        in_child("by descriptor", || sys!(execveat, fd, c"", &argv, 0, libc::AT_EMPTY_PATH) as i32);
        ret("empty without flag", sys!(execveat, fd, c"", &argv, 0, 0));
        sys!(symlink, c"prog", c"l");
        ret("nofollow", sys!(execveat, dir, c"l", &argv, 0, libc::AT_SYMLINK_NOFOLLOW));
        ret("bad flag", sys!(execveat, dir, c"prog", &argv, 0, 0x8000));
        ret("bad fd", sys!(execveat, 99, c"prog", &argv, 0, 0));
        in_child("memfd", || {
            let m = sys!(memfd_create, c"prog", 0) as i32;
            let bytes = std::fs::read("prog").unwrap_or_default();
            sys!(write, m, bytes.as_slice(), bytes.len());
            sys!(execveat, m, c"", &argv, 0, libc::AT_EMPTY_PATH) as i32
        });
    }),
    case("exit/status_and_threads", "exit_group", || {
        in_child("low byte", || 0x1234);
        in_child("group", || {
            std::thread::spawn(|| leave(9));
            pause_ms(5000);
            1
        });
        let child = fork(|| {
            std::thread::spawn(|| {
                pause_ms(40);
                leave(11);
            });
            // Only the first thread goes; the process lives on.
            loop {
                sys!(exit, 3);
            }
        });
        until(|| state_of(child) == 'Z');
        say!("{}", wait(child));
    }),
    case("wait4/selectors", "setpgid fork", || {
        let mut code = 0i32;
        ret("none", sys!(wait4, -1, &mut code, 0, 0));
        let a = fork(|| 1);
        let b = fork(|| {
            pause_ms(2000);
            2
        });
        sys!(setpgid, b, b);
        claim("by group zero", sys!(wait4, 0, &mut code, 0, 0) == a as isize);
        ret("group zero has none", sys!(wait4, 0, &mut code, WNOHANG, 0));
        ret("other group nohang", sys!(wait4, -b, &mut code, WNOHANG, 0));
        ret("not a child", sys!(wait4, 1, &mut code, WNOHANG, 0));
        ret("bad options", sys!(wait4, -1, &mut code, 0x100, 0));
        ret("minimum", sys!(wait4, i32::MIN, &mut code, 0, 0));
        sys!(kill, b, SIGTERM);
        let mut usage: libc::rusage = zeroed();
        claim("by group", sys!(wait4, -b, &mut code, 0, &mut usage) == b as isize);
        say!("{}", status(code));
        let c = fork(|| 3);
        until(|| state_of(c) == 'Z');
        ret("bad pointer", sys!(wait4, c, NOWHERE, 0, 0));
        ret("it is gone", sys!(wait4, c, &mut code, 0, 0));
    }),
    case("waitid/forms", "pidfd_open", || {
        let show = |label: &str, r: isize, info: &libc::siginfo_t| {
            let (pid, uid, code) = unsafe { (info.si_pid(), info.si_uid(), info.si_status()) };
            say!(
                "{label} {} signo {} code {} pid {} uid {uid} status {code}",
                number(r),
                info.si_signo,
                info.si_code,
                pid > 0
            );
        };
        let mut info: libc::siginfo_t = zeroed();
        let a = sleeper();
        let r = sys!(waitid, libc::P_PID, a, &mut info, WEXITED | WNOHANG, 0);
        show("nothing yet", r, &info);
        sys!(kill, a, SIGSTOP);
        let r = sys!(waitid, libc::P_PID, a, &mut info, WSTOPPED, 0);
        show("stopped", r, &info);
        sys!(kill, a, libc::SIGCONT);
        let r = sys!(waitid, libc::P_PID, a, &mut info, WCONTINUED, 0);
        show("continued", r, &info);
        sys!(kill, a, SIGTERM);
        let r = sys!(waitid, libc::P_PID, a, &mut info, WEXITED | WNOWAIT, 0);
        show("killed, left", r, &info);
        let r = sys!(waitid, libc::P_ALL, 0, &mut info, WEXITED, 0);
        show("killed", r, &info);
        let b = fork(|| 33);
        let fd = sys!(pidfd_open, b, 0);
        let r = sys!(waitid, libc::P_PIDFD, fd, &mut info, WEXITED, 0);
        show("exited", r, &info);
        ret("no options", sys!(waitid, libc::P_ALL, 0, &mut info, 0, 0));
        ret("bad type", sys!(waitid, 9, 0, &mut info, WEXITED, 0));
        ret("no child", sys!(waitid, libc::P_ALL, 0, &mut info, WEXITED, 0));
        ret("pid zero", sys!(waitid, libc::P_PID, 0, &mut info, WEXITED, 0));
        ret("not a pidfd", sys!(waitid, libc::P_PIDFD, 0, &mut info, WEXITED, 0));
    }),
    case("wait4/threads_share_children", "", || {
        let child = fork(|| {
            pause_ms(20);
            6
        });
        let thread = std::thread::spawn(move || wait(child));
        say!("{:?}", thread.join().ok());
        let thread = std::thread::spawn(move || {
            let c = fork(|| 7);
            let mut code = 0i32;
            (c, sys!(wait4, c, &mut code, libc::__WNOTHREAD, 0) == c as isize, status(code))
        });
        say!("{:?}", thread.join().ok().map(|(_, a, b)| (a, b)));
    }),
    case("pidfd_open/and_signals", "pidfd_send_signal poll", || {
        let child = sleeper();
        let fd = done("open", sys!(pidfd_open, child, 0)) as i32;
        let mut p = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        ret("alive", sys!(poll, &mut p, 1, 0));
        ret("null signal", sys!(pidfd_send_signal, fd, 0, 0, 0));
        ret("term", sys!(pidfd_send_signal, fd, SIGTERM, 0, 0));
        ret("poll", sys!(poll, &mut p, 1, 3000));
        say!("revents {}", p.revents);
        say!("{}", wait(child));
        ret("gone", sys!(pidfd_send_signal, fd, SIGTERM, 0, 0));
        ret("no such", sys!(pidfd_open, 999_999, 0));
        ret("zero", sys!(pidfd_open, 0, 0));
        ret("negative", sys!(pidfd_open, -1, 0));
        ret("flags", sys!(pidfd_open, 1, 1));
        let nb = sys!(pidfd_open, sys!(getpid), libc::PIDFD_NONBLOCK);
        say!("nonblock {:o}", sys!(fcntl, nb, libc::F_GETFL));
        ret("not a pidfd", sys!(pidfd_send_signal, 0, SIGTERM, 0, 0));
        let mut b = [0u8; 8];
        ret("read", sys!(read, nb, &mut b, 8));
    }),
    case("pidfd_getfd/copies", "pipe2", || {
        let (r, w) = pipe(0);
        let child = fork(|| {
            let (_cr, cw) = pipe(0);
            sys!(dup2, cw, 40);
            sys!(write, w, b"x", 1);
            pause_ms(5000);
            0
        });
        let mut b = [0u8; 1];
        sys!(read, r, &mut b, 1);
        let fd = sys!(pidfd_open, child, 0);
        let got = done("copy", sys!(pidfd_getfd, fd, 40, 0));
        ret("write to it", sys!(write, got, b"hi", 2));
        ret("cloexec", sys!(fcntl, got, libc::F_GETFD));
        ret("no such", sys!(pidfd_getfd, fd, 77, 0));
        ret("flags", sys!(pidfd_getfd, fd, 40, 1));
        end(child);
    }),
    case(
        "sched_yield/and_priorities",
        "sched_getscheduler sched_setscheduler sched_getparam sched_setparam sched_get_priority_max sched_get_priority_min",
        || {
            ret("yield", sys!(sched_yield));
            ret("policy", sys!(sched_getscheduler, 0));
            for policy in [0, 1, 2, 3, 5, 9] {
                ret(format!("max {policy}"), sys!(sched_get_priority_max, policy));
                ret(format!("min {policy}"), sys!(sched_get_priority_min, policy));
            }
            let mut param = 99i32;
            ret("getparam", sys!(sched_getparam, 0, &mut param));
            say!("{param}");
            param = 0;
            ret("batch", sys!(sched_setscheduler, 0, 3, &param));
            ret("policy", sys!(sched_getscheduler, 0));
            ret("idle", sys!(sched_setscheduler, 0, 5, &param));
            ret("other", sys!(sched_setscheduler, 0, 0, &param));
            ret("setparam", sys!(sched_setparam, 0, &param));
            param = 5;
            ret("other with priority", sys!(sched_setscheduler, 0, 0, &param));
            ret("bad policy", sys!(sched_setscheduler, 0, 77, &param));
            ret("no such", sys!(sched_getscheduler, 999_999));
            ret("negative", sys!(sched_getscheduler, -1));
            ret("bad pointer", sys!(sched_getparam, 0, 0));
        },
    ),
    case("sched_setaffinity/masks", "sched_getaffinity getcpu", || {
        let mut mask = [0u64; 16];
        say!("bytes multiple of 8 {}", sys!(sched_getaffinity, 0, 128, &mut mask) % 8 == 0);
        claim("some processor", mask[0] != 0);
        ret("small", sys!(sched_getaffinity, 0, 4, &mut mask));
        ret("odd", sys!(sched_getaffinity, 0, 9, &mut mask));
        ret("one", sys!(sched_setaffinity, 0, 8, &1u64));
        let mut now = [0u64; 16];
        sys!(sched_getaffinity, 0, 128, &mut now);
        say!("{}", now[0]);
        ret("none", sys!(sched_setaffinity, 0, 8, &0u64));
        ret("no such", sys!(sched_setaffinity, 999_999, 8, &1u64));
        let (mut cpu, mut node) = (9u32, 9u32);
        ret("getcpu", sys!(getcpu, &mut cpu, &mut node, 0));
        say!("cpu {cpu}");
        ret("bad pointer", sys!(getcpu, NOWHERE, 0, 0));
        in_child("inherited", || {
            let mut mask = [0u64; 16];
            sys!(sched_getaffinity, 0, 128, &mut mask);
            mask[0] as i32
        });
    }),
    case("sched_setattr/forms", "sched_getattr sched_rr_get_interval", || {
        let mut attr = [0u8; 56];
        ret("get", sys!(sched_getattr, 0, &mut attr, 48, 0));
        say!("size {} policy {}", attr[0], attr[4]);
        ret("small", sys!(sched_getattr, 0, &mut attr, 10, 0));
        ret("flags", sys!(sched_getattr, 0, &mut attr, 48, 1));
        attr = [0; 56];
        attr[0] = 48;
        attr[16] = 3;
        ret("nice 3", sys!(sched_setattr, 0, &attr, 0));
        ret("priority", sys!(getpriority, 0, 0));
        ret("flags", sys!(sched_setattr, 0, &attr, 1));
        let mut slice = libc::timespec { tv_sec: 9, tv_nsec: 9 };
        ret("interval", sys!(sched_rr_get_interval, 0, &mut slice));
        say!("{}", slice.tv_sec);
        ret("interval no such", sys!(sched_rr_get_interval, 999_999, &mut slice));
    }),
    case("getrusage/and_times", "times wait4", || {
        let mut usage: libc::rusage = zeroed();
        ret("self", sys!(getrusage, libc::RUSAGE_SELF, &mut usage));
        claim("has memory", usage.ru_maxrss > 0);
        ret("children", sys!(getrusage, libc::RUSAGE_CHILDREN, &mut usage));
        say!("no children yet {}", usage.ru_utime.tv_sec == 0 && usage.ru_utime.tv_usec == 0);
        ret("thread", sys!(getrusage, 1, &mut usage));
        ret("bad", sys!(getrusage, 9, &mut usage));
        ret("bad pointer", sys!(getrusage, 0, NOWHERE));
        in_child("burn", || {
            crate::case::burn_ms(60);
            0
        });
        sys!(getrusage, libc::RUSAGE_CHILDREN, &mut usage);
        let spent = usage.ru_utime.tv_usec
            + usage.ru_stime.tv_usec
            + 1_000_000 * (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec);
        claim("children's time counted", spent >= 20_000);
        let mut t: libc::tms = zeroed();
        claim("times", sys!(times, &mut t) > 0);
        claim("children's ticks", t.tms_cutime + t.tms_cstime >= 2);
        ret("times bad pointer", sys!(times, NOWHERE));
    }),
    case("acct/refused", "", || {
        in_child("user", || {
            sys!(setresuid, 5, 5, 5);
            ret("acct", sys!(acct, 0));
            0
        });
    }),
    case("ptrace/trace_me_and_peek", "wait4", || {
        static VALUE: AtomicI32 = AtomicI32::new(0x1234_5678);
        let child = fork(|| {
            ret("traceme", sys!(ptrace, libc::PTRACE_TRACEME as i32, 0, 0, 0));
            sys!(kill, sys!(getpid), SIGSTOP);
            VALUE.load(Ordering::SeqCst)
        });
        let mut code = 0i32;
        sys!(wait4, child, &mut code, 0, 0);
        say!("{}", status(code));
        let mut word = 0i64;
        ret("peek", sys!(ptrace, libc::PTRACE_PEEKDATA as i32, child, VALUE.as_ptr(), &mut word));
        say!("{:#x}", word as u32);
        ret("poke", sys!(ptrace, libc::PTRACE_POKEDATA as i32, child, VALUE.as_ptr(), (word & !0xff) | 0x21));
        ret("peek nowhere", sys!(ptrace, libc::PTRACE_PEEKDATA as i32, child, NOWHERE, &mut word));
        let mut regs: libc::user_regs_struct = zeroed();
        ret("getregs", sys!(ptrace, libc::PTRACE_GETREGS as i32, child, 0, &mut regs));
        say!("in kill {} result {}", regs.orig_rax, regs.rax);
        ret("cont", sys!(ptrace, libc::PTRACE_CONT as i32, child, 0, 0));
        say!("{}", wait(child));
        ret("not traced", sys!(ptrace, libc::PTRACE_CONT as i32, child, 0, 0));
    }),
    case("ptrace/syscall_stops", "wait4", || {
        let child = fork(|| {
            sys!(ptrace, libc::PTRACE_TRACEME as i32, 0, 0, 0);
            sys!(kill, sys!(getpid), SIGSTOP);
            sys!(close, 12_345);
            0
        });
        let mut code = 0i32;
        sys!(wait4, child, &mut code, 0, 0);
        ret("options", sys!(ptrace, libc::PTRACE_SETOPTIONS as i32, child, 0, libc::PTRACE_O_TRACESYSGOOD));
        for _ in 0..4 {
            sys!(ptrace, libc::PTRACE_SYSCALL as i32, child, 0, 0);
            sys!(wait4, child, &mut code, 0, 0);
            let mut regs: libc::user_regs_struct = zeroed();
            sys!(ptrace, libc::PTRACE_GETREGS as i32, child, 0, &mut regs);
            let shown = if regs.orig_rax == libc::SYS_close as u64 {
                number(regs.rax as isize)
            } else {
                String::new()
            };
            say!("{} call {} {shown}", status(code), regs.orig_rax);
        }
        ret("kill", sys!(ptrace, libc::PTRACE_KILL as i32, child, 0, 0));
        say!("{}", wait(child));
    }),
    case("ptrace/attach_step_detach", "wait4", || {
        let child = fork(|| {
            for _ in 0..2000 {
                pause_ms(5);
            }
            0
        });
        asleep(child);
        ret("attach", sys!(ptrace, libc::PTRACE_ATTACH as i32, child, 0, 0));
        let mut code = 0i32;
        sys!(wait4, child, &mut code, 0, 0);
        say!("{}", status(code));
        ret("step", sys!(ptrace, libc::PTRACE_SINGLESTEP as i32, child, 0, 0));
        sys!(wait4, child, &mut code, 0, 0);
        say!("{}", status(code));
        ret("detach", sys!(ptrace, libc::PTRACE_DETACH as i32, child, 0, 0));
        ret("runs", sys!(wait4, child, &mut code, WNOHANG, 0));
        end(child);
        ret("no such", sys!(ptrace, libc::PTRACE_ATTACH as i32, 999_999, 0, 0));
        ret("myself", sys!(ptrace, libc::PTRACE_ATTACH as i32, sys!(getpid), 0, 0));
        ret("unknown", sys!(ptrace, 0x9999, 1, 0, 0));
    }),
    case("process_vm_readv/and_writev", "process_vm_writev", || {
        static TEXT: [AtomicI32; 2] = [AtomicI32::new(1), AtomicI32::new(2)];
        let child = fork(|| {
            TEXT[0].store(42, Ordering::SeqCst);
            until(|| TEXT[1].load(Ordering::SeqCst) == 55);
            TEXT[1].load(Ordering::SeqCst)
        });
        let mut got = [0i32; 2];
        let local = libc::iovec { iov_base: got.as_mut_ptr().cast(), iov_len: 8 };
        let remote = libc::iovec { iov_base: TEXT.as_ptr() as *mut _, iov_len: 8 };
        until(|| {
            sys!(process_vm_readv, child, &local, 1, &remote, 1, 0);
            got[0] == 42
        });
        ret("read", sys!(process_vm_readv, child, &local, 1, &remote, 1, 0));
        say!("{got:?}");
        let fifty_five = [42, 55i32];
        let source = libc::iovec { iov_base: fifty_five.as_ptr() as *mut _, iov_len: 8 };
        ret("write", sys!(process_vm_writev, child, &source, 1, &remote, 1, 0));
        say!("{}", wait(child));
        let other = sleeper();
        let nowhere = libc::iovec { iov_base: NOWHERE as *mut _, iov_len: 8 };
        ret("nowhere", sys!(process_vm_readv, other, &local, 1, &nowhere, 1, 0));
        ret("flags", sys!(process_vm_readv, other, &local, 1, &remote, 1, 1));
        ret("too many", sys!(process_vm_readv, other, &local, 1025, &remote, 1, 0));
        let mixed = [remote, nowhere];
        let wide = [local, local];
        ret("partial", sys!(process_vm_readv, other, &wide, 2, &mixed, 2, 0));
        in_child("stranger", || {
            sys!(setresuid, 5, 5, 5);
            ret("read", sys!(process_vm_readv, other, &local, 1, &remote, 1, 0));
            0
        });
        ret("no such", sys!(process_vm_readv, 999_999, &local, 1, &remote, 1, 0));
        end(other);
    }),
    case("fork/many_children", "wait4", || {
        let children: Vec<i32> = (0..50).map(|i| fork(move || i)).collect();
        let mut sum = 0;
        for _ in &children {
            let mut code = 0i32;
            sys!(wait4, -1, &mut code, 0, 0);
            sum += libc::WEXITSTATUS(code);
        }
        say!("{sum}");
    }),
    case("clone/many_threads", "futex exit", || {
        let threads: Vec<_> = (0..40).map(|i| std::thread::spawn(move || i * 2)).collect();
        say!("{}", threads.into_iter().filter_map(|t| t.join().ok()).sum::<i32>());
        say!("threads left {}", std::fs::read_dir("/proc/self/task").map(|d| d.count()).unwrap_or(0) <= 2);
    }),
    case("seccomp/strict_and_filter", "prctl", || {
        in_child("strict", || {
            ret("set", sys!(prctl, libc::PR_SET_SECCOMP, 1, 0, 0, 0));
            say!("write is allowed");
            sys!(getpid);
            0
        });
        // BPF: load the number, compare, return.
        let filter = |nr: i64, action: u32| {
            [
                [0x20u64, 0],
                [0x15 | (1 << 24) | ((nr as u64) << 32), 0],
                [0x06 | ((action as u64) << 32), 0],
                [0x06 | (0x7fff_0000u64 << 32), 0],
            ]
            .map(|x| x[0])
        };
        let install = |program: &[u64; 4]| {
            let header = [4u64, program.as_ptr() as u64];
            sys!(prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            sys!(seccomp, 1, 0, &header)
        };
        in_child("errno", || {
            ret("install", install(&filter(libc::SYS_getppid, 0x0005_0000 | 42)));
            ret("getppid", sys!(getppid));
            say!("mode {}", sys!(prctl, libc::PR_GET_SECCOMP));
            in_child("inherited", || (sys!(getppid) == -42) as i32);
            0
        });
        in_child("kill", || {
            install(&filter(libc::SYS_getppid, 0x8000_0000));
            sys!(getppid);
            0
        });
        in_child("trap", || {
            super::signals::on(libc::SIGSYS, 0);
            install(&filter(libc::SYS_getppid, 0x0003_0000));
            sys!(getppid);
            say!("{}", super::signals::seen());
            0
        });
        in_child("user without no_new_privs", || {
            sys!(setresuid, 5, 5, 5);
            let program = filter(0, 0);
            ret("install", sys!(seccomp, 1, 0, &[4u64, program.as_ptr() as u64]));
            0
        });
        ret("bad operation", sys!(seccomp, 99, 0, 0));
        ret("strict with flags", sys!(seccomp, 0, 1, 0));
        ret("action available", sys!(seccomp, 2, 0, &0x7fff_0000u32));
        ret("action unknown", sys!(seccomp, 2, 0, &0x1234_0000u32));
    }),
    case("exit_group/orphaned_stopped_group", "setpgid kill", || {
        // When the parent of a stopped background group dies, the group gets SIGHUP and SIGCONT.
        sys!(prctl, libc::PR_SET_CHILD_SUBREAPER, 1);
        let (r, w) = pipe(0);
        let leader = fork(|| {
            sys!(setsid);
            let child = fork(|| {
                super::signals::on(libc::SIGHUP, 0);
                sys!(setpgid, 0, 0);
                sys!(write, w, b"x", 1);
                sys!(kill, sys!(getpid), SIGSTOP);
                until(|| super::signals::count() > 0);
                say!("woken by {}", super::signals::seen());
                0
            });
            let mut b = [0u8; 1];
            sys!(read, r, &mut b, 1);
            let mut code = 0i32;
            sys!(wait4, child, &mut code, libc::WUNTRACED, 0);
            0
        });
        let (leader, mut code) = (wait(leader), 0i32);
        done("reap", sys!(wait4, -1, &mut code, 0, 0));
        say!("{leader}");
        say!("{}", status(code));
    }),
];
