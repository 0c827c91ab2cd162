//! Stub processes under attack from outside (SelfDoS at worst): signals of all kinds change nothing, SIGKILL ends the guest process that the
//! stub ran, and without any stub the sandbox ends and leaves nothing. And as many threads as a guest may want.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use serde_json::Value;

use crate::harness::until;

const THREADS: usize = 4096;

const SCRIPT: &str = "(while :; do :; done) & v=$!; echo ready; wait $v; echo \"ended $?\"; \
                      n=0; for i in 1 2 3; do n=$((n + $(sh -c 'echo 1'))); done; echo \"after $n\"";

fn start(platform: &str, state: &Path) -> Child {
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "90", env!("CARGO_BIN_EXE_runsc"), "--root"]).arg(state);
    command.args(["--platform", platform, "do", "sh", "-c", SCRIPT]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// The sentry of the only sandbox with that state directory.
fn sentry(state: &Path) -> i32 {
    let mut found = None;
    until("the record of the sandbox", || {
        let entries = std::fs::read_dir(state).into_iter().flatten().flatten();
        found = entries.into_iter().find_map(|e| {
            let record = std::fs::read(e.path().join("state.json")).ok()?;
            let record: Value = serde_json::from_slice(&record).ok()?;
            i32::try_from(record["sentry"]["pid"].as_i64()?).ok()
        });
        found.is_some()
    });
    found.unwrap()
}

/// The fields of /proc/PID/stat from the state on.
fn stat(pid: i32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = text.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    rest.split_whitespace().map(str::to_owned).collect()
}

fn stubs(sentry: i32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|p| stat(*p).get(1).is_some_and(|parent| *parent == sentry.to_string())).collect()
}

/// Processor time so far.
fn ticks(pid: i32) -> u64 {
    stat(pid).iter().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum()
}

/// The stub that works hardest.
fn busy(sentry: i32) -> i32 {
    let all: Vec<(i32, u64)> = stubs(sentry).into_iter().map(|p| (p, ticks(p))).collect();
    let mut most = (0, 0);
    until("a stub that works", || {
        std::thread::sleep(Duration::from_millis(50));
        most = all.iter().map(|(p, before)| (ticks(*p).saturating_sub(*before), *p)).max().unwrap();
        most.0 > 5
    });
    most.1
}

fn send(pid: i32, signal: i32) {
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let tid: i32 = task.file_name().to_string_lossy().parse().unwrap();
        let _ = hostsys::signals::tgkill(pid, tid, signal);
    }
}

#[test]
fn signals_from_outside() {
    if !rustix::process::geteuid().is_root() {
        println!("not root: other processes cannot be signalled");
        return;
    }
    for platform in ["systrap", "ptrace"] {
        let state = tempfile::tempdir().unwrap();
        let mut child = start(platform, state.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{platform}");
        let sentry = sentry(state.path());
        // SIGSTOP, SIGCONT, SIGTERM, SIGHUP, SIGSEGV, SIGSYS, SIGTRAP, SIGUSR1, SIGILL, SIGALRM, real-time ones.
        for signal in [19, 18, 15, 1, 11, 31, 5, 10, 4, 14, 35, 64, 19] {
            for pid in stubs(sentry) {
                send(pid, signal);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let victim = busy(sentry);
        send(victim, 9);
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("ended 137\n") && rest.ends_with("after 3\n"), "{platform}: {rest}");
        assert!(child.wait().unwrap().success(), "{platform}");
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0, "{platform}");
    }
}

#[test]
fn without_stubs_the_sandbox_ends() {
    if !rustix::process::geteuid().is_root() {
        println!("not root: other processes cannot be signalled");
        return;
    }
    for platform in ["systrap", "ptrace"] {
        let state = tempfile::tempdir().unwrap();
        let mut child = start(platform, state.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let sentry = sentry(state.path());
        for pid in stubs(sentry) {
            send(pid, 9);
        }
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert!(!child.wait().unwrap().success(), "{platform}: {rest}");
        until("the end of all", || stubs(sentry).is_empty() && stat(sentry).is_empty());
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0, "{platform}");
    }
}

/// All there at once, and each of them back with its own number.
#[test]
#[ignore = "a guest's program"]
fn guest_of_many_threads() {
    let all = Arc::new(Barrier::new(THREADS + 1));
    let thread = |n: usize| {
        let all = all.clone();
        let body = move || {
            all.wait();
            n
        };
        std::thread::Builder::new().stack_size(16 << 10).spawn(body).unwrap()
    };
    let threads: Vec<_> = (0..THREADS).map(thread).collect();
    all.wait();
    for (n, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), n);
    }
}

#[test]
fn four_thousand_threads() {
    let own = std::env::current_exe().unwrap();
    for platform in ["systrap", "ptrace"] {
        let state = tempfile::tempdir().unwrap();
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "200", env!("CARGO_BIN_EXE_runsc"), "--root"]).arg(state.path());
        command.args(["--platform", platform, "do"]).arg(&own);
        command.args(["stubs::guest_of_many_threads", "--ignored", "--exact"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{platform}: {output:?}");
    }
}
