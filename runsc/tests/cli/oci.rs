//! What of the configuration only a program inside can see: id mappings, the seccomp profile, hooks, limits. The
//! programs are busybox's, if a static one is installed.

use std::path::PathBuf;
use std::process::Stdio;

use crate::cgroups::TestGroup;
use crate::harness::{Done, Place, recorded_pid, skipped, text, until};
use serde_json::{Value, json};

/// A bundle whose first process is `sh -c script`; `None` without busybox.
fn shell(place: &Place, name: &str, script: &str, change: impl FnOnce(&mut Value)) -> Option<PathBuf> {
    let Some(busybox) = ["/usr/bin/busybox", "/bin/busybox"].iter().map(PathBuf::from).find(|p| p.exists())
    else {
        skipped("no busybox on this machine");
        return None;
    };
    let bundle = place.bundle(name, |config| {
        config["process"]["args"] = json!(["/bin/busybox", "sh", "-c", script]);
        config["process"]["env"] = json!(["PATH=/bin"]);
        config["root"]["readonly"] = json!(false);
        change(config);
    });
    let bin = bundle.join("rootfs/bin");
    std::fs::remove_file(bin.join("prog")).unwrap();
    std::fs::copy(busybox, bin.join("busybox")).unwrap();
    for applet in
        ["sh", "cat", "id", "mkdir", "stat", "touch", "sleep", "dd", "head", "tail", "grep", "ls", "echo"]
    {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    // A dynamic one would need its libraries.
    let probe = place.runsc(&["run", "--bundle", text(&bundle), &format!("probe-{name}")]);
    if probe.stderr.contains("no such file") {
        skipped("no static busybox on this machine");
        return None;
    }
    Some(bundle)
}

fn run(place: &Place, bundle: &std::path::Path, id: &str) -> Done {
    place.runsc(&["run", "--bundle", text(bundle), id])
}

fn profile(default: &str, rules: Value) -> Value {
    json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
}

#[test]
fn the_seccomp_profile_is_enforced() {
    let place = Place::new();
    let script = "mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status; sh -c 'mkdir /y' 2>&1; echo $?";
    let Some(bundle) = shell(&place, "errno", script, |c| {
        c["linux"]["seccomp"] = profile(
            "SCMP_ACT_ALLOW",
            json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]),
        );
    }) else {
        return;
    };
    let done = run(&place, &bundle, "errno");
    let expected = "mkdir: can't create directory '/tmp/x': No space left on device\nSeccomp:\t2\n\
                    mkdir: can't create directory '/y': No space left on device\n1\n";
    assert_eq!(done.stdout, expected, "{done:?}");

    // A call that kills; one that is traced by nobody; one that is only logged.
    for (action, result) in [
        ("SCMP_ACT_KILL_PROCESS", "159\n"),
        ("SCMP_ACT_KILL", "159\n"),
        ("SCMP_ACT_TRAP", "159\n"),
        ("SCMP_ACT_TRACE", "1\n"),
        ("SCMP_ACT_LOG", "0\n"),
    ] {
        let bundle = shell(&place, action, "sh -c 'mkdir /z' 2>/dev/null; echo $?", |c| {
            c["linux"]["seccomp"] =
                profile("SCMP_ACT_ALLOW", json!([{"names": ["mkdir", "mkdirat"], "action": action}]));
        });
        let done = run(&place, &bundle.unwrap(), action);
        assert_eq!(done.stdout, result, "{action}: {done:?}");
    }
    place.assert_empty();
}

#[test]
fn exec_is_under_the_profile_too() {
    let place = Place::new();
    let Some(bundle) = shell(&place, "e", "echo", |_| {}) else { return };
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["process"]["args"] = json!(["/bin/sleep", "100"]);
    config["linux"]["seccomp"] =
        profile("SCMP_ACT_ALLOW", json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]));
    std::fs::write(&path, config.to_string()).unwrap();
    assert_eq!(place.runsc(&["create", "--bundle", text(&bundle), "e"]).code, 0);
    assert_eq!(place.runsc(&["start", "e"]).code, 0);
    let done = place.runsc(&["exec", "e", "mkdir", "/tmp/new"]);
    assert!(done.code == 1 && done.stderr.contains("Operation not permitted"), "{done:?}");
    assert_eq!(place.runsc(&["delete", "--force", "e"]).code, 0);
    place.assert_empty();
}

#[test]
fn ids_are_mapped() {
    if !rustix::process::geteuid().is_root() {
        println!("not root: no ids to map");
        return;
    }
    let place = Place::new();
    let script = "id -u; id -g; cat /proc/self/uid_map; stat -c '%u %g' /bin/busybox /dev /dev/null /host; \
                  touch /tmp/new && stat -c %u /tmp/new; echo data > /host/made";
    let shared = place.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::os::unix::fs::chown(&shared, Some(200_000), Some(200_000)).unwrap();
    let Some(bundle) = shell(&place, "ids", "echo", |_| {}) else { return };
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["process"]["args"][3] = json!(script);
    let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    config["mounts"].as_array_mut().unwrap().extend([
        json!({"destination": "/host", "type": "bind", "source": shared, "options": ["rbind"]}),
        json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}),
    ]);
    std::fs::write(&path, config.to_string()).unwrap();
    std::os::unix::fs::chown(bundle.join("rootfs"), Some(200_000), Some(200_000)).unwrap();
    let done = run(&place, &bundle, "ids");
    let map = format!("{:>10} {:>10} {:>10}", 0, 200_000, 65536);
    // busybox belongs to the host's root, who has no id in there.
    let expected = format!("0\n0\n{map}\n65534 65534\n0 0\n0 0\n0 0\n0\n");
    assert_eq!(done.stdout, expected, "{done:?}");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(shared.join("made").metadata().unwrap().uid(), 200_000);

    config["process"]["user"]["uid"] = json!(70_000);
    std::fs::write(&path, config.to_string()).unwrap();
    let done = run(&place, &bundle, "outside");
    assert!(done.code == 1 && done.stderr.contains("process.user.uid: 70000"), "{done:?}");
    place.assert_empty();
}

#[test]
fn start_container_hooks_run_in_the_container() {
    let place = Place::new();
    let hook =
        |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin", "A=b"]});
    let Some(bundle) = shell(&place, "hooks", "cat /seen; echo main", |c| {
        c["hooks"] = json!({"startContainer": [
            hook("cat > /state; echo $A > /seen"),
            hook("grep -o '\"status\":\"[a-z]*\"' /state >> /seen"),
        ]});
    }) else {
        return;
    };
    let done = run(&place, &bundle, "hooks");
    assert_eq!((done.code, done.stdout.as_str()), (0, "b\n\"status\":\"created\"\nmain\n"), "{done:?}");
    let bundle = shell(&place, "bad", "echo main", |c| {
        c["hooks"] = json!({"startContainer": [hook("exit 3")]});
    });
    let done = run(&place, &bundle.unwrap(), "bad");
    assert_eq!((done.code, done.stdout.as_str()), (1, ""), "{done:?}");
    place.assert_empty();
}

#[test]
fn sysctl_rlimits_and_privileges() {
    let place = Place::new();
    let script = "cat /proc/sys/kernel/shmmni; ulimit -n; ulimit -Hn; grep NoNewPrivs /proc/self/status; \
                  cat /proc/self/oom_score_adj";
    let Some(bundle) = shell(&place, "limits", script, |c| {
        c["linux"]["sysctl"] = json!({"kernel.shmmni": "1234"});
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]);
        c["process"]["oomScoreAdj"] = json!(500);
    }) else {
        return;
    };
    let done = run(&place, &bundle, "limits");
    assert_eq!(done.stdout, "1234\n77\n88\nNoNewPrivs:\t1\n500\n", "{done:?}");
    let bundle = shell(&place, "unknown", "echo", |c| c["linux"]["sysctl"] = json!({"kernel.no_such": "1"}));
    let done = run(&place, &bundle.unwrap(), "unknown");
    assert!(done.code == 1 && done.stderr.contains("kernel.no_such"), "{done:?}");
    place.assert_empty();
}

/// v1's or v2's file of a container's group.
fn group_file(place: &Place, id: &str, names: &[&str]) -> Option<String> {
    let record = std::fs::read(place.root().join(id).join("state.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let paths: Vec<PathBuf> = serde_json::from_value(record["cgroups"].clone()).unwrap();
    let files = paths.iter().flat_map(|p| names.iter().map(move |n| p.join(n)));
    files.filter_map(|f| std::fs::read_to_string(f).ok()).next().map(|t| t.trim().to_owned())
}

#[test]
fn limits_are_in_the_cgroups() {
    if !rustix::process::geteuid().is_root() {
        println!("not root: no cgroups to make");
        return;
    }
    let place = Place::new();
    let group = TestGroup::new("limits");
    let Some(bundle) = shell(&place, "l", "sleep 0", |c| {
        c["linux"]["cgroupsPath"] = json!(format!("/{}/l", group.name()));
        c["linux"]["resources"] = json!({
            "memory": {"limit": 128 << 20}, "pids": {"limit": 50},
            "cpu": {"shares": 512, "quota": 50000, "period": 100_000, "cpus": "0"}
        });
    }) else {
        return;
    };
    assert_eq!(place.runsc(&["create", "--bundle", text(&bundle), "l"]).code, 0);
    let read = |names: &[&str]| group_file(&place, "l", names);
    // Only what the host has a controller for.
    for (names, values) in [
        (["memory.limit_in_bytes", "memory.max"], ["134217728", "134217728"]),
        (["cpu.shares", "cpu.weight"], ["512", "20"]),
        (["cpu.cfs_quota_us", "cpu.max"], ["50000", "50000 100000"]),
        (["cpuset.cpus", "cpuset.cpus"], ["0", "0"]),
    ] {
        if let Some(value) = read(&names) {
            assert!(values.contains(&value.as_str()), "{names:?}: {value}");
        }
    }
    let pid = recorded_pid(&place, "l", "sentry");
    let inside = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(inside.contains(group.name()), "{inside}");
    assert_eq!(place.runsc(&["delete", "--force", "l"]).code, 0);
    assert!(group.below().is_empty());
    place.assert_empty();
}

#[test]
fn the_memory_limit_ends_a_container() {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/sys/fs/cgroup/memory").exists() {
        println!("no memory controller here");
        return;
    }
    let place = Place::new();
    let group = TestGroup::new("oom");
    // tail keeps what it reads: there is no line in it.
    let Some(bundle) = shell(&place, "m", "echo", |c| {
        c["linux"]["cgroupsPath"] = json!(format!("/{}/m", group.name()));
        c["linux"]["resources"] = json!({"memory": {"limit": 96 << 20}});
    }) else {
        return;
    };
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (id, script, status) in [
        ("first", "sleep 1; exec tail /dev/zero", 137),
        // Only the child dies, as on a host.
        ("child", "sleep 1; tail /dev/zero; test $? = 137 && sleep 1; exit 7", 7),
    ] {
        config["process"]["args"][3] = json!(script);
        std::fs::write(&path, config.to_string()).unwrap();
        assert_eq!(place.runsc(&["create", "--bundle", text(&bundle), id]).code, 0);
        let pid = recorded_pid(&place, id, "sentry");
        let output = place.path(&format!("events-{id}"));
        let mut events = place.command();
        let file = std::fs::File::create(&output).unwrap();
        events.args(["events", "--interval", "1s", id]).stdin(Stdio::null()).stdout(file);
        let mut events = events.spawn().unwrap();
        assert_eq!(place.runsc(&["start", id]).code, 0);
        until("the end", || !crate::harness::alive(pid));
        let ended = crate::harness::reap(pid);
        assert!(ended == status || (status == 137 && ended == 1009), "{id}: {ended}");
        events.wait().unwrap();
        let told = std::fs::read_to_string(&output).unwrap();
        assert!(told.contains("\"type\":\"oom\""), "{id}: {told}");
        assert_eq!(place.runsc(&["delete", id]).code, 0);
    }
    place.assert_empty();
}
