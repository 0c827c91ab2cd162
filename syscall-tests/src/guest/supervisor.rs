//! Runs many cases in one process: each in a forked child with a session, a scratch directory and a
//! time limit of its own. The output of a case stands between `@begin NAME` and `@end NAME STATUS`.

use crate::case::{self, Case, cstr, leave, now_ms};
use crate::{out, sys};
use std::path::PathBuf;

/// What to run and how.
pub struct Plan {
    /// Make mount, PID, IPC, UTS and network namespaces first: the host half of a comparison.
    pub isolate: bool,
    /// Where the scratch directories are made.
    pub scratch: PathBuf,
    /// Limit for one case.
    pub timeout_s: i64,
    /// The cases in order.
    pub cases: Vec<&'static Case>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { isolate: false, scratch: "/tmp/syscall-tests".into(), timeout_s: 20, cases: Vec::new() }
    }
}

/// Runs the plan in this process or, isolated, in a child that is the first of its namespaces.
pub fn run(plan: &Plan) {
    if !plan.isolate {
        return run_here(plan);
    }
    let _ = std::fs::create_dir_all(&plan.scratch);
    let spaces =
        libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;
    out::must("unshare", sys!(unshare, spaces));
    let pid = case::fork(|| {
        sys!(prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        out::must("private /", sys!(mount, c"none", c"/", 0, libc::MS_REC | libc::MS_PRIVATE, 0));
        out::must("mount proc", sys!(mount, c"proc", c"/proc", c"proc", 0u32, 0));
        let scratch = cstr(plan.scratch.as_os_str().as_encoded_bytes());
        out::must("mount tmpfs", sys!(mount, c"tmpfs", &*scratch, c"tmpfs", 0u32, c"mode=1777"));
        loopback_up();
        run_here(plan);
        0
    });
    let mut status = 0i32;
    sys!(wait4, pid, &mut status, 0, 0);
    leave(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 });
}

/// A sandbox comes with its loopback up; so must the host's half.
pub fn loopback_up() {
    let fd = sys!(socket, libc::AF_INET, libc::SOCK_DGRAM, 0);
    let mut request: libc::ifreq = case::zeroed();
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    sys!(ioctl, fd, libc::SIOCSIFFLAGS, &request);
    sys!(close, fd);
}

fn run_here(plan: &Plan) {
    let _ = std::fs::create_dir_all(&plan.scratch);
    sys!(prctl, libc::PR_SET_CHILD_SUBREAPER, 1);
    for (index, case) in plan.cases.iter().enumerate() {
        let dir = plan.scratch.join(format!("c{index}"));
        let _ = std::fs::create_dir_all(&dir);
        out::line(&format!("@begin {}", case.name));
        let (said, end) = run_one(case, &dir, plan.timeout_s);
        let mut said = said;
        if !said.is_empty() && said.last() != Some(&b'\n') {
            said.push(b'\n');
        }
        out::line(&format!("{}@end {} {end}", String::from_utf8_lossy(&said), case.name));
        let _ = std::fs::remove_dir_all(&dir);
    }
}

fn run_one(case: &Case, dir: &std::path::Path, timeout_s: i64) -> (Vec<u8>, String) {
    let (from, to) = case::pipe(libc::O_CLOEXEC);
    let deadline = now_ms() + timeout_s * 1000;
    let pid = case::fork(|| {
        sys!(setsid);
        let null = sys!(open, c"/dev/null", libc::O_RDWR, 0) as i32;
        sys!(dup2, null, 0);
        sys!(dup2, to, 1);
        sys!(dup2, to, 2);
        sys!(close_range, 3, u32::MAX, 0);
        if sys!(chdir, &*cstr(dir.as_os_str().as_encoded_bytes())) < 0 {
            out::line("BAD no scratch directory");
        }
        plain_process();
        (case.run)();
        0
    });
    case::close(to);
    let mut said = Vec::new();
    let mut status = None;
    let mut timed_out = false;
    loop {
        let mut poll = libc::pollfd { fd: from, events: libc::POLLIN, revents: 0 };
        sys!(poll, &mut poll, 1, if status.is_some() { 0 } else { 20 });
        let mut chunk = [0u8; 4096];
        let n = if poll.revents != 0 { sys!(read, from, &mut chunk, chunk.len()) } else { -1 };
        if n > 0 {
            said.extend_from_slice(&chunk[..n as usize]);
            continue;
        }
        if status.is_some() {
            break;
        }
        let mut code = 0i32;
        if sys!(wait4, pid, &mut code, libc::WNOHANG, 0) == pid as isize {
            status = Some(code);
            sweep(pid);
        } else if now_ms() > deadline && !timed_out {
            timed_out = true;
            sys!(kill, pid, libc::SIGKILL);
        }
    }
    case::close(from);
    let end = match status {
        _ if timed_out => "timeout".to_owned(),
        Some(code) => out::status(code),
        None => "lost".to_owned(),
    };
    (said, end)
}

/// Kills what a case left behind and reaps it, so that cases cannot touch each other.
fn sweep(session: i32) {
    sys!(kill, -session, libc::SIGKILL);
    if sys!(getpid) == 1 {
        sys!(kill, -1, libc::SIGKILL);
    }
    let until = now_ms() + 2000;
    loop {
        let mut code = 0i32;
        let got = sys!(wait4, -1, &mut code, libc::WNOHANG, 0);
        if got == -(libc::ECHILD as isize) || now_ms() > until {
            return;
        }
        if got == 0 {
            case::pause_ms(1);
        }
    }
}

/// Undoes what the language's start-up did to this process: handlers, the ignored SIGPIPE, the
/// alternate stack; and fixes the environment, umask and limits that cases rely on.
pub fn plain_process() {
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP && signal != 32 && signal != 33 {
            let default = [0u64; 4];
            sys!(rt_sigaction, signal, &default, 0, 8);
        }
    }
    let none = 0u64;
    sys!(rt_sigprocmask, libc::SIG_SETMASK, &none, 0, 8);
    let off = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    sys!(sigaltstack, &off, 0);
    sys!(umask, 0o022);
    // Limits differ from machine to machine; the cases read and change these.
    for (what, soft, hard) in [
        (libc::RLIMIT_NOFILE, 1024, 4096),
        (libc::RLIMIT_CORE, 0, 0),
        (libc::RLIMIT_STACK, 8 << 20, libc::RLIM_INFINITY),
        (libc::RLIMIT_FSIZE, libc::RLIM_INFINITY, libc::RLIM_INFINITY),
    ] {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        sys!(prlimit64, 0, what, &limit, 0);
    }
}
