//! `runsc do`: commands of this machine, by root and by a user without rights, and under tracers.

use std::path::Path;
use std::process::Command;

use crate::harness::{Done, run, skipped};

fn have(program: &str) -> bool {
    let found = ["/usr/bin", "/bin"].iter().any(|d| Path::new(d).join(program).exists());
    if !found {
        skipped(&format!("no {program} on this machine"));
    }
    found
}

/// Runs `do` from a directory of its own, which is the writable one.
fn on(platform: &str, state: &Path, command: &[&str]) -> Done {
    // Whatever goes wrong must not go on for ever.
    let mut runsc = Command::new("timeout");
    runsc
        .args(["-k", "1", "60", env!("CARGO_BIN_EXE_runsc"), "--root"])
        .arg(state)
        .args(["--platform", platform]);
    run(runsc.arg("do").args(command))
}

#[test]
fn strace_ends_and_shows_the_calls() {
    if !have("strace") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    for platform in ["systrap", "ptrace"] {
        let script = "strace -f -o /tmp/out sh -c 'echo hi; ls / >/dev/null; (echo a | cat)'; echo $?; \
                      grep -c 'exited with 0' /tmp/out; grep -o 'write(1, \"hi' /tmp/out";
        let done = on(platform, state.path(), &["sh", "-c", script]);
        let mut lines = done.stdout.lines();
        assert_eq!(
            (lines.next(), lines.next(), lines.next()),
            (Some("hi"), Some("a"), Some("0")),
            "{done:?}"
        );
        assert!(lines.next().and_then(|n| n.parse::<u32>().ok()) >= Some(3), "{done:?}");
        assert_eq!(lines.next(), Some("write(1, \"hi"), "{done:?}");
    }
}

#[test]
fn gdb_runs_a_program_to_its_end() {
    if !have("gdb") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    for platform in ["systrap", "ptrace"] {
        let commands =
            ["-ex", "catch syscall getppid", "-ex", "run", "-ex", "bt", "-ex", "delete", "-ex", "continue"];
        let command = [&["gdb", "-batch"][..], &commands, &["--args", "/bin/sh", "-c", "exit 5"]].concat();
        let done = on(platform, state.path(), &command);
        assert!(done.stdout.contains("Catchpoint 1"), "{done:?}");
        assert!(done.stdout.contains("exited with code 05"), "{done:?}");
    }
}

#[test]
fn a_user_without_rights() {
    if !rustix::process::geteuid().is_root() || !have("setpriv") {
        return;
    }
    // Where that user can reach both.
    let place = tempfile::Builder::new().tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let program = place.path().join("runsc");
    std::fs::copy(env!("CARGO_BIN_EXE_runsc"), &program).unwrap();
    // Not nobody: root's files, which have no id in the user namespace, show as that user's.
    let as_user = |program: &Path, args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "12345", "--regid", "12345", "--clear-groups"]).arg(program).args(args);
        run(command.current_dir("/"))
    };
    if as_user(Path::new("unshare"), &["--user", "true"]).code != 0 {
        println!("skipped: no user namespaces for users");
        return;
    }
    let root = place.path().join("state");
    let root = root.to_str().unwrap();
    // Not nobody: files of root, who has no id in the user namespace, show as that user's own.
    let script = "id -u; touch /etc/new 2>/dev/null || echo no; echo x > /tmp/own && cat /tmp/own";
    let done = as_user(&program, &["--root", root, "do", "sh", "-c", script]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "12345\nno\nx\n"), "{done:?}");
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 0);
}
