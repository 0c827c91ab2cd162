//! Wrong input: one line that names the thing, the right status, the same line in the log, and
//! nothing left behind.

use crate::harness::{Place, run, text};
use serde_json::{Value, json};

/// Runs `create` and `run` and expects both to fail with a message that has all of `words`.
fn refused(words: &[&str], change: impl FnOnce(&mut Value)) {
    let place = Place::new();
    let bundle = place.bundle("b", change);
    both(&place, &["--bundle", text(&bundle), "c"], words);
}

/// `create` and `run` with these arguments fail, say so in one line and leave nothing behind.
fn both(place: &Place, args: &[&str], words: &[&str]) {
    for command in ["create", "run"] {
        let done = place.runsc(&[&[command], args].concat());
        assert_eq!((done.code, done.stdout.as_str()), (1, ""), "{command}: {done:?}");
        check_line(place, &done.stderr, words);
        place.assert_empty();
    }
}

fn check_line(place: &Place, stderr: &str, words: &[&str]) {
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let messages = place.messages();
    let last = messages.last().expect("nothing in the log");
    assert!(stderr.contains(last.as_str()), "log {last:?}, standard error {stderr:?}");
    for word in words {
        assert!(last.contains(word), "no {word:?} in {last:?}");
    }
}

#[test]
fn missing_bundle() {
    both(&Place::new(), &["--bundle", "/no/such/bundle", "c"], &["/no/such/bundle", "No such file"]);
}

#[test]
fn bundle_without_configuration() {
    let place = Place::new();
    both(
        &place,
        &["--bundle", text(place.directory.path()), "c"],
        &["config.json", "no such file or directory"],
    );
}

#[test]
fn malformed_configuration() {
    let place = Place::new();
    let bundle = place.bundle("b", |_| {});
    for wrong in ["{\"ociVersion\": \"1.0.2\", ", "", "[]", "{\"ociVersion\": 1}", "{} {}"] {
        std::fs::write(bundle.join("config.json"), wrong).unwrap();
        both(&place, &["--bundle", text(&bundle), "c"], &["config.json"]);
    }
}

#[test]
fn unknown_values_of_fields() {
    refused(&["linux.namespaces[0].type", "pidd"], |c| c["linux"]["namespaces"][0]["type"] = json!("pidd"));
    refused(&["mounts[0].type", "zfs"], |c| c["mounts"][0]["type"] = json!("zfs"));
    refused(&["process.rlimits[0].type"], |c| c["process"]["rlimits"][0]["type"] = json!("RLIMIT_NONE"));
    refused(&["process.capabilities.effective[0]"], |c| {
        c["process"]["capabilities"]["effective"][0] = json!("CAP_ANY");
    });
    refused(&["hostname", "64"], |c| c["hostname"] = json!("h".repeat(65)));
    refused(&["linux.seccomp.defaultAction"], |c| {
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_MAYBE"});
    });
}

#[test]
fn what_is_not_supported_is_named() {
    refused(&["process.apparmorProfile"], |c| c["process"]["apparmorProfile"] = json!("docker-default"));
    refused(&["process.selinuxLabel"], |c| c["process"]["selinuxLabel"] = json!("a:b:c"));
    refused(&["linux.intelRdt"], |c| c["linux"]["intelRdt"] = json!({"closID": "x"}));
    let place = Place::new();
    let bundle = place.bundle("b", |_| {});
    for (flag, word) in
        [("--network=bridge", "--network"), ("--platform=warp", "--platform"), ("--strace", "--debug-log")]
    {
        let done = run(place.command().arg(flag).args(["create", "--bundle", text(&bundle), "c"]));
        assert_eq!(done.code, 1, "{done:?}");
        check_line(&place, &done.stderr, &[word]);
    }
    place.assert_empty();
}

#[test]
fn programs_that_cannot_be_run() {
    let cases = [
        ("/no/such", "no such file or directory"),
        ("nothing-of-that-name", "no such file or directory"),
        ("/bin", "permission denied"),
        ("/etc", "no such file or directory"),
        ("bin/prog/x", "no such file or directory"),
    ];
    for (program, reason) in cases {
        refused(&[program, reason], |c| c["process"]["args"] = json!([program]));
    }
    let place = Place::new();
    let bundle = place.bundle("b", |c| c["process"]["args"] = json!(["/data"]));
    std::fs::write(bundle.join("rootfs/data"), "no program").unwrap();
    let done = place.runsc(&["create", "--bundle", text(&bundle), "c"]);
    assert_eq!(done.code, 1);
    check_line(&place, &done.stderr, &["/data", "permission denied"]);
    place.assert_empty();
}

#[test]
fn a_link_out_of_the_root_is_looked_up_inside() {
    // /outside points at the host's /bin/sh, which the container does not have.
    let place = Place::new();
    let bundle = place.bundle("b", |c| c["process"]["args"] = json!(["/outside"]));
    std::os::unix::fs::symlink("/bin/sh", bundle.join("rootfs/outside")).unwrap();
    let done = place.runsc(&["create", "--bundle", text(&bundle), "c"]);
    assert_eq!(done.code, 1);
    check_line(&place, &done.stderr, &["/outside", "no such file or directory"]);
}

#[test]
fn a_root_that_is_not_there() {
    refused(&["root.path", "nowhere"], |c| c["root"]["path"] = json!("nowhere"));
    refused(&["root.path", "not a directory"], |c| c["root"]["path"] = json!("config.json"));
    refused(&["root"], |c| drop(c.as_object_mut().unwrap().remove("root")));
}

#[test]
fn broken_programs() {
    let place = Place::new();
    let bundle = place.bundle("b", |_| {});
    let program = bundle.join("rootfs/bin/prog");
    let whole = std::fs::read(&program).unwrap();
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (name, content) in [("cut", &whole[..100]), ("text", b"no program"), ("script", b"#!/no/interpreter")]
    {
        let file = bundle.join("rootfs").join(name);
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        config["process"]["args"] = json!([format!("/{name}")]);
        std::fs::write(&path, config.to_string()).unwrap();
        for command in ["run", "create"] {
            let done = place.runsc(&[command, "--bundle", text(&bundle), "c"]);
            assert_eq!(done.code, 1, "{command} {name}: {done:?}");
            let reason = if name == "script" { "no such file or directory" } else { "exec format error" };
            check_line(&place, &done.stderr, &[name, reason]);
            place.assert_empty();
        }
    }
}

/// Like `create`'s, but the status is exec's and the container goes on.
#[test]
fn exec_of_what_cannot_be_run() {
    let place = Place::new();
    let bundle = place.bundle("b", |c| c["process"]["args"] = json!(["/bin/sleep"]));
    let Some(busybox) =
        ["/usr/bin/busybox", "/bin/busybox"].iter().find(|p| std::path::Path::new(p).exists())
    else {
        return;
    };
    std::fs::copy(busybox, bundle.join("rootfs/bin/sleep")).unwrap();
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["process"]["args"] = json!(["/bin/sleep", "100"]);
    std::fs::write(&path, config.to_string()).unwrap();
    std::fs::write(bundle.join("rootfs/data"), "no program").unwrap();
    assert_eq!(place.runsc(&["create", "--bundle", text(&bundle), "c"]).code, 0);
    if place.runsc(&["start", "c"]).code == 0 {
        for (args, words) in [
            (&["c", "/no/such"][..], &["/no/such", "no such file or directory"][..]),
            (&["c", "/bin"], &["/bin", "permission denied"]),
            (&["c", "/data"], &["/data", "permission denied"]),
            (&["c", "unknown"], &["unknown", "not found in $PATH"]),
            (&["c"], &["process args cannot be empty"]),
            (&["--user", "root", "c", "x"], &["--user", "root"]),
            (&["--cwd", "x", "c", "x"], &["--cwd"]),
            (&["--process", "/no/file", "c"], &["/no/file"]),
        ] {
            let done = place.runsc(&[&["exec"][..], args].concat());
            assert_eq!(done.code, 255, "{args:?}: {done:?}");
            check_line(&place, &done.stderr, words);
        }
        assert_eq!(place.state("c")["status"], "running");
        assert_eq!(place.runsc(&["delete", "c"]).code, 1);
    }
    assert_eq!(place.runsc(&["delete", "--force", "c"]).code, 0);
    place.assert_empty();
}

#[test]
fn ids() {
    let place = Place::new();
    let bundle = place.bundle("b", |_| {});
    for id in ["a/b", "/a", "../x", "..", "a b", ""] {
        both(&place, &["--bundle", text(&bundle), id], &["invalid container id"]);
    }
    // A second one of that name; the first does not notice.
    assert_eq!(place.runsc(&["create", "--bundle", text(&bundle), "twice"]).code, 0);
    let state = place.state("twice");
    for command in ["create", "run"] {
        let done = place.runsc(&[command, "--bundle", text(&bundle), "twice"]);
        assert_eq!((done.code, done.stdout.as_str()), (1, ""), "{done:?}");
        check_line(&place, &done.stderr, &["twice", "exist"]);
        assert_eq!(place.state("twice"), state);
    }
    assert_eq!(place.runsc(&["delete", "--force", "twice"]).code, 0);
    place.assert_empty();
    for command in ["state", "start", "kill", "delete", "pause", "resume", "ps", "wait"] {
        let done = place.runsc(&[command, "../../etc"]);
        assert_eq!(done.code, 1, "{command}");
        let done = place.runsc(&[command, "missing"]);
        assert_eq!(done.code, 1, "{command}");
        check_line(&place, &done.stderr, &["missing", "does not exist"]);
    }
    assert_eq!(place.runsc(&["exec", "missing", "ls"]).code, 255);
    let done = place.runsc(&["delete", "--force", "missing"]);
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (0, "", ""));
}

#[test]
fn usage() {
    let place = Place::new();
    let done = place.runsc(&["frobnicate"]);
    assert_eq!(done.code, 3);
    check_line(&place, &done.stderr, &["frobnicate"]);
    let done = place.runsc(&["create", "--no-such-flag", "c"]);
    assert_eq!(done.code, 1);
    check_line(&place, &done.stderr, &["--no-such-flag"]);
    let done = place.runsc(&["create"]);
    assert_eq!(done.code, 1);
    check_line(&place, &done.stderr, &["<ID>"]);
    let done = place.runsc(&["kill", "c", "SIGNOTHING"]);
    assert_eq!(done.code, 1);
    check_line(&place, &done.stderr, &["SIGNOTHING"]);
    for help in [
        &["--help"][..],
        &["help"],
        &["create", "--help"],
        &["-help"],
        &["help", "platforms"],
        &["help", "syscalls"],
        // Podman asks these two.
        &["checkpoint", "--help"],
        &["restore", "--help"],
    ] {
        let done = place.runsc(help);
        assert_eq!(done.code, 0, "{help:?}");
        assert!(!done.stdout.is_empty(), "{help:?}");
    }
    // As the shim and conmon call them.
    for (command, args) in [
        (
            "checkpoint",
            &["--image-path", "/d", "--work-path", "/w", "--file-locks", "--leave-running", "c"][..],
        ),
        (
            "restore",
            &["--image-path", "/d", "--detach", "--pid-file", "/p", "-no-subreaper", "--bundle", "/b", "c"],
        ),
        ("checkpoint", &[]),
    ] {
        let done = place.runsc(&[&[command], args].concat());
        assert_eq!((done.code, done.stdout.as_str()), (1, ""), "{done:?}");
        check_line(&place, &done.stderr, &[command, "not supported"]);
        assert!(!place.runsc(&["--help"]).stdout.contains(command));
    }
    let version = place.runsc(&["--version"]).stdout;
    let lines: Vec<&str> = version.lines().collect();
    assert!(lines[0].starts_with("runsc version ") && lines[1].starts_with("commit: "), "{version}");
    assert!(lines[2].starts_with("spec: 1."), "{version}");
    let features: Value = serde_json::from_str(&place.runsc(&["features"]).stdout).unwrap();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    // --systemd-cgroup, with the user's systemd too.
    let cgroup = &features["linux"]["cgroup"];
    assert_eq!((&cgroup["systemd"], &cgroup["systemdUser"]), (&json!(true), &json!(true)));
}

#[test]
fn terminals_need_somebody_to_take_them() {
    let place = Place::new();
    let bundle = place.bundle("n", |c| c["process"]["terminal"] = json!(true));
    let done = place.runsc(&["create", "--bundle", text(&bundle), "c"]);
    assert_eq!(done.code, 1, "{done:?}");
    check_line(&place, &done.stderr, &["process.terminal"]);
    let bundle = place.bundle("b", |_| {});
    let done = place.runsc(&["create", "--console-socket", "/no/such", "--bundle", text(&bundle), "c"]);
    assert_eq!(done.code, 1);
    check_line(&place, &done.stderr, &["--console-socket"]);
    let bundle = place.bundle("t", |c| c["process"]["terminal"] = json!(true));
    let done = place.runsc(&["create", "--console-socket", "/no/such", "--bundle", text(&bundle), "c"]);
    assert_eq!(done.code, 1);
    check_line(&place, &done.stderr, &["/no/such"]);
    place.assert_empty();
}
