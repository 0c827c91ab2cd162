//! Containers from create to delete as engines drive them. What the program in them does is the
//! business of other tests.

use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Place, alive, reap, recorded_pid, run, text, until};
use serde_json::{Value, json};

fn create(place: &Place, id: &str, change: impl FnOnce(&mut Value)) -> i32 {
    let bundle = place.bundle(&format!("bundle-{id}"), change);
    let pid_file = place.path(&format!("{id}.pid"));
    let done = place.runsc(&["create", "--bundle", text(&bundle), "--pid-file", text(&pid_file), id]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
    // Exactly a number: no newline.
    let pid = std::fs::read_to_string(pid_file).unwrap();
    pid.parse().unwrap()
}

#[test]
fn created_killed_deleted() {
    let place = Place::new();
    let pid = create(&place, "one", |c| c["annotations"] = json!({"a.b": "c"}));
    let gofer = recorded_pid(&place, "one", "gofer");
    let state = place.state("one");
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], pid);
    assert_eq!(state["annotations"]["a.b"], "c");
    assert_eq!(state["bundle"], text(&place.path("bundle-one")));
    assert_eq!(place.runsc(&["ps", "--format", "json", "one"]).stdout, format!("[{pid}]\n"));
    let list: Value = serde_json::from_str(&place.runsc(&["list", "--format=json"]).stdout).unwrap();
    assert_eq!(list[0]["id"], "one");
    assert_eq!(place.runsc(&["list", "-q"]).stdout, "one\n");

    // The same id again, while it exists.
    let again = place.runsc(&["create", "--bundle", text(&place.path("bundle-one")), "one"]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("exists: one"), "{}", again.stderr);
    assert_eq!(place.state("one")["status"], "created");

    assert_eq!(place.runsc(&["exec", "one", "true"]).code, 255);
    assert_eq!(place.runsc(&["kill", "one", "0"]).code, 0);
    assert_eq!(place.runsc(&["kill", "--all", "one", "9"]).code, 0);
    // The status of a first process that was killed, as runc's would have it.
    assert_eq!(reap(pid), 128 + 9);
    let state = place.state("one");
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    assert_eq!(place.runsc(&["ps", "--format", "json", "one"]).stdout, "null\n");
    let kill = place.runsc(&["kill", "one", "9"]);
    assert_eq!(kill.code, 1);
    assert!(kill.stderr.contains("container not running"), "{}", kill.stderr);
    assert_eq!(place.runsc(&["kill", "--all", "one", "9"]).code, 0);
    assert_eq!(place.runsc(&["start", "one"]).code, 1);
    assert_eq!(place.runsc(&["exec", "one", "true"]).code, 255);
    assert_eq!(place.runsc(&["delete", "one"]).code, 0);
    assert_eq!(place.runsc(&["delete", "--force", "one"]).code, 0);
    until("the gofer's end", || !alive(gofer));
    reap(gofer);
    place.assert_empty();
}

#[test]
fn a_created_container_can_be_deleted() {
    let place = Place::new();
    let pid = create(&place, "c", |_| {});
    let gofer = recorded_pid(&place, "c", "gofer");
    assert_eq!(place.runsc(&["delete", "c"]).code, 0);
    reap(pid);
    reap(gofer);
    place.assert_empty();
}

#[test]
fn whoever_of_the_two_is_killed() {
    let place = Place::new();
    for (index, victim) in ["sentry", "gofer"].into_iter().enumerate() {
        let id = format!("k{index}");
        let pid = create(&place, &id, |_| {});
        let gofer = recorded_pid(&place, &id, "gofer");
        let killed = recorded_pid(&place, &id, victim);
        let handle = hostsys::process::pidfd_open(killed).unwrap();
        hostsys::process::pidfd_send_signal(std::os::fd::AsFd::as_fd(&handle), 9).unwrap();
        if victim == "sentry" {
            assert_eq!(reap(pid), 1000 + 9);
            assert_eq!(place.state(&id)["status"], "stopped");
            // Its end of the channel is closed.
            until("the gofer's end", || !alive(gofer));
        }
        assert_eq!(place.runsc(&["delete", "--force", &id]).code, 0);
        if victim == "gofer" {
            reap(pid);
        }
        reap(gofer);
    }
    place.assert_empty();
}

#[test]
fn creation_that_is_killed_leaves_nothing_alive() {
    let place = Place::new();
    // A hook holds the creation up where both processes are there already.
    let marker = place.path("reached");
    let script = format!("echo $$ > {}; exec sleep 30", marker.display());
    let bundle = place.bundle("b", |c| {
        c["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    });
    let mut command = place.command();
    command.args(["create", "--bundle", text(&bundle), "c"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the hook", || std::fs::read_to_string(&marker).is_ok_and(|t| t.ends_with('\n')));
    let hook: i32 = std::fs::read_to_string(&marker).unwrap().trim().parse().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let children: Vec<i32> = children.split_whitespace().map(|p| p.parse().unwrap()).collect();
    assert!(children.len() >= 3, "{children:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    for pid in children {
        if pid == hook {
            let handle = hostsys::process::pidfd_open(hook).unwrap();
            hostsys::process::pidfd_send_signal(std::os::fd::AsFd::as_fd(&handle), 9).unwrap();
        }
        until("the end of a process of the sandbox", || !alive(pid));
        reap(pid);
    }
    assert_eq!(place.runsc(&["delete", "--force", "c"]).code, 0);
    place.assert_empty();
}

#[test]
fn hooks_see_the_container() {
    let place = Place::new();
    let out = place.path("hooks");
    let hook = |name: &str| {
        let script = format!(
            "cat > {0}.{name}; pwd > {0}.{name}.cwd; readlink /proc/self/ns/net > {0}.{name}.net",
            out.display()
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
    };
    let pid = create(&place, "h", |c| {
        c["hooks"] = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
            "createContainer": hook("createContainer"), "poststop": hook("poststop")
        });
    });
    let read = |name: &str| std::fs::read_to_string(format!("{}.{name}", out.display())).unwrap();
    for name in ["prestart", "createRuntime", "createContainer"] {
        let state: Value = serde_json::from_str(&read(name)).unwrap();
        assert_eq!(state["status"], "creating", "{name}");
        assert_eq!(state["pid"], pid, "{name}");
        assert_eq!(state["id"], "h");
        assert_eq!(read(&format!("{name}.cwd")).trim(), text(&place.path("bundle-h")));
    }
    let net = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap().display().to_string();
    assert_eq!(read("prestart.net").trim(), net("self"));
    assert_eq!(read("createContainer.net").trim(), net(&pid.to_string()));
    assert_eq!(place.runsc(&["delete", "h"]).code, 0);
    reap(pid);
    let state: Value = serde_json::from_str(&read("poststop")).unwrap();
    assert_eq!(state["status"], "stopped");
    assert!(state.get("pid").is_none());

    // One that fails ends the creation, and says so.
    let bundle = place.bundle("f", |c| {
        c["hooks"] = json!({"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", "echo bad >&2; exit 4"]}]});
    });
    let done = place.runsc(&["create", "--bundle", text(&bundle), "f"]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("prestart hook #0") && done.stderr.contains("bad"), "{}", done.stderr);
    place.assert_empty();
}

#[test]
fn a_console_socket_gets_the_terminal() {
    let place = Place::new();
    let socket = place.path("console");
    let listener = UnixListener::bind(&socket).unwrap();
    let bundle = place.bundle("t", |c| {
        c["process"]["terminal"] = json!(true);
        c["process"]["consoleSize"] = json!({"height": 30, "width": 90});
    });
    let pid_file = place.path("pid");
    let done = place.runsc(&[
        "create",
        "--bundle",
        text(&bundle),
        "--console-socket",
        text(&socket),
        "--pid-file",
        text(&pid_file),
        "t",
    ]);
    assert_eq!(done.code, 0, "{done:?}");
    let (stream, _) = listener.accept().unwrap();
    let mut name = [0; 64];
    let (length, fds) = hostsys::fd::recv_with_fds(&stream, &mut name).unwrap();
    assert_eq!(&name[..length], b"/dev/ptmx");
    assert_eq!(fds.len(), 1);
    assert_eq!(hostsys::tty::window_size(&fds[0]).unwrap(), (30, 90));
    assert_eq!(place.runsc(&["delete", "--force", "t"]).code, 0);
    reap(std::fs::read_to_string(pid_file).unwrap().parse().unwrap());
    place.assert_empty();
}

#[test]
fn wait_is_answered_when_it_ends() {
    let place = Place::new();
    let pid = create(&place, "w", |_| {});
    let mut waiting = place.command();
    let waiting = waiting.args(["wait", "w"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(place.runsc(&["kill", "w", "TERM"]).code, 0);
    let output = waiting.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer, json!({"id": "w", "exitStatus": 143}));
    assert_eq!(reap(pid), 143);
    assert_eq!(place.runsc(&["delete", "w"]).code, 0);
}

#[test]
fn long_state_paths() {
    // A control socket below such a path could not be bound by its name.
    let place = Place::new();
    let long = place.path(&"d".repeat(200));
    let bundle = place.bundle("b", |_| {});
    let command = |args: &[&str]| {
        run(std::process::Command::new(env!("CARGO_BIN_EXE_runsc")).arg("--root").arg(&long).args(args))
    };
    let done = command(&["create", "--bundle", text(&bundle), "c"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(command(&["state", "c"]).stdout.contains("\"created\""));
    assert_eq!(command(&["delete", "-force", "c"]).code, 0);
}

#[test]
fn many_at_once_leave_nothing() {
    let place = Place::new();
    let bundle = place.bundle("b", |_| {});
    for round in 0..3 {
        let ids: Vec<String> = (0..10).map(|n| format!("m{round}-{n}")).collect();
        std::thread::scope(|scope| {
            for id in &ids {
                let (place, bundle) = (&place, &bundle);
                scope.spawn(move || {
                    let done = place.runsc(&["create", "--bundle", text(bundle), id]);
                    assert_eq!(done.code, 0, "{done:?}");
                    let pids = ["sentry", "gofer"].map(|p| recorded_pid(place, id, p));
                    assert_eq!(place.runsc(&["delete", "--force", id]).code, 0);
                    for pid in pids {
                        reap(pid);
                    }
                });
            }
        });
    }
    place.assert_empty();
}

#[test]
fn cgroups_are_made_and_removed() {
    if !rustix::process::geteuid().is_root() {
        println!("not root: no cgroups to make");
        return;
    }
    let place = Place::new();
    let group = crate::cgroups::TestGroup::new("cli");
    let name = group.name();
    let pid = create(&place, "g", |c| {
        c["linux"]["cgroupsPath"] = json!(format!("/{name}/g"));
        c["linux"]["resources"]["pids"] = json!({"limit": 100});
    });
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(groups.lines().any(|l| l.ends_with(&format!("/{name}/g"))), "{groups}");
    let record = std::fs::read(place.root().join("g/state.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let paths: Vec<String> = serde_json::from_value(record["cgroups"].clone()).unwrap();
    assert!(!paths.is_empty());
    assert_eq!(
        group.below().into_iter().collect::<std::collections::BTreeSet<_>>(),
        paths.iter().cloned().collect()
    );
    assert_eq!(place.runsc(&["delete", "--force", "g"]).code, 0);
    reap(pid);
    for path in paths {
        let path = std::path::Path::new(&path);
        assert!(!path.exists(), "{}", path.display());
        // Its parent was made on the way and belongs to whoever named it, as with runc.
        assert!(path.parent().unwrap().exists(), "{}", path.display());
    }
}
