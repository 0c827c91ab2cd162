//! Programs that cases execute: this binary again, called as `guest helper:NAME ARG…`.

use crate::out::{number, until_nul};
use crate::{say, sys};

/// Runs the helper of that name.
pub fn helper(name: &str, args: Vec<String>) {
    match name {
        "fds" => args.iter().for_each(|fd| {
            let fd: i32 = fd.parse().unwrap_or(-1);
            say!("fd {fd} after exec: {}", number(sys!(fcntl, fd, libc::F_GETFD)));
        }),
        "echo" => say!("args {}", args.join("|")),
        "exit" => crate::case::leave(args.first().and_then(|a| a.parse().ok()).unwrap_or(0)),
        "ids" => {
            let (mut r, mut e, mut s) = (0u32, 0u32, 0u32);
            sys!(getresuid, &mut r, &mut e, &mut s);
            say!("uid {r} {e} {s}");
            sys!(getresgid, &mut r, &mut e, &mut s);
            say!("gid {r} {e} {s}");
            say!("secure {}", super::signals::auxv(libc::AT_SECURE));
        }
        "state" => state(),
        "clocks" => say!("after exec {:?}", super::code::clocks_disagree()),
        "caps" => super::identity::show_caps(),
        "env" => std::env::vars().for_each(|(k, v)| say!("{k}={v}")),
        "cat" => {
            let mut b = [0u8; 4096];
            loop {
                let n = sys!(read, 0, &mut b, b.len());
                if n <= 0 {
                    break;
                }
                sys!(write, 1, &b, n);
            }
        }
        "own-network" => own_network(&args),
        "sockopts" => super::net::options::answered(),
        "sleep" => crate::case::pause_ms(args.first().and_then(|a| a.parse().ok()).unwrap_or(1000)),
        other => say!("no helper {other}"),
    }
}

/// Executes a program in a new network namespace with its loopback up.
fn own_network(args: &[String]) {
    use std::os::unix::process::CommandExt;
    crate::out::must("unshare", sys!(unshare, libc::CLONE_NEWNET));
    crate::supervisor::loopback_up();
    // As most systems and engines have it: ping sockets are for everybody.
    let _ = std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
    if let Some((program, rest)) = args.split_first() {
        let error = std::process::Command::new(program).args(rest).exec();
        eprintln!("{program}: {error}");
    }
    crate::case::leave(127);
}

/// What a new program finds: signals, name, masks.
fn state() {
    let mut mask = 0u64;
    sys!(rt_sigprocmask, 0, 0, &mut mask, 8);
    say!("blocked {mask:#x}");
    for signal in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM, libc::SIGCHLD] {
        let mut old = [0u64; 4];
        sys!(rt_sigaction, signal, 0, &mut old, 8);
        say!(
            "{}: {}",
            crate::out::signal(signal),
            if old[0] > 1 { "handler".into() } else { old[0].to_string() }
        );
    }
    let mut pending = 0u64;
    sys!(rt_sigpending, &mut pending, 8);
    say!("pending {pending:#x}");
    let mut name = [0u8; 16];
    sys!(prctl, libc::PR_GET_NAME, &mut name);
    say!("name {}", until_nul(&name));
    say!("umask {:o}", sys!(umask, 0o22));
    let mut stack: libc::stack_t = crate::case::zeroed();
    // The language's start-up may have made an alternate stack of its own: only the first look counts.
    sys!(sigaltstack, 0, &mut stack);
}
