//! Every field that the OCI runtime specification (1.3) has for Linux containers: each is carried out or refused by
//! its name, and this table says which. A field that the table does not know is a gap.

use sentry::boot::spec::ByteString;
use serde_json::{Value, json};

use super::{base, plan_of};
use crate::spec::*;

/// What becomes of a field.
enum Fate {
    /// The plan has it; without it the plan is another.
    Plan(fn(&Plan) -> bool),
    /// A file of the container's cgroup is written; the field's name in the messages.
    Cgroup(&'static str),
    /// An error that names it.
    Refused,
    /// It is accepted and there is nothing to do, for the reason given.
    Nothing(&'static str),
}

use Fate::{Cgroup, Nothing, Plan as In, Refused};

/// The path to a field (`a.b[0].c`), a value for it, its fate.
type Row = (&'static str, Value, Fate);

/// Sets the value at a path; makes what is missing on the way.
fn set(config: &mut Value, path: &str, value: Value) {
    let mut at = config;
    for part in path.split('.') {
        let (name, index) = match part.split_once('[') {
            Some((name, index)) => (name, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[name];
        if let Some(index) = index {
            if !at.is_array() {
                *at = json!([]);
            }
            let list = at.as_array_mut().unwrap();
            while list.len() <= index {
                list.push(json!({}));
            }
            at = &mut list[index];
        }
    }
    *at = value;
}

fn hook() -> Value {
    json!([{"path": "/bin/true", "args": ["true", "x"], "env": ["A=b"], "timeout": 3}])
}

fn is_whole(hooks: &Option<Vec<oci::Hook>>) -> bool {
    hooks.iter().flatten().any(|h| {
        h.path() == Path::new("/bin/true")
            && h.args().as_ref().is_some_and(|a| a.len() == 2)
            && h.env().as_ref().is_some_and(|e| e == &["A=b"])
            && h.timeout() == Some(3)
    })
}

/// The mount that the rows of `mounts` change is the eighth.
const MOUNT: &str = "mounts[7]";

fn mount(plan: &Plan) -> Option<&sentry::boot::spec::MountSpec> {
    plan.container.mounts.get(7)
}

fn top_rows() -> Vec<Row> {
    vec![
        ("ociVersion", json!("1.3.0"), Nothing("any version 1.x is accepted, others are refused")),
        ("hostname", json!("h"), In(|p| p.container.hostname.as_deref() == Some("h"))),
        ("domainname", json!("d"), In(|p| p.container.domainname.as_deref() == Some("d"))),
        ("annotations", json!({"a": "b"}), In(|p| p.container.annotations.contains_key("a"))),
        ("root.path", json!("/"), In(|p| p.rootfs == Path::new("/"))),
        ("root.readonly", json!(false), In(|p| !p.container.root.readonly)),
        ("hooks.prestart", hook(), In(|p| is_whole(p.hooks.prestart()))),
        ("hooks.createRuntime", hook(), In(|p| is_whole(p.hooks.create_runtime()))),
        ("hooks.createContainer", hook(), In(|p| is_whole(p.hooks.create_container()))),
        ("hooks.startContainer", hook(), In(|p| is_whole(p.hooks.start_container()))),
        ("hooks.poststart", hook(), In(|p| is_whole(p.hooks.poststart()))),
        ("hooks.poststop", hook(), In(|p| is_whole(p.hooks.poststop()))),
        (
            MOUNT,
            json!({"destination": "/m", "type": "tmpfs", "source": "t", "options": ["ro", "mode=700"]}),
            In(|p| {
                mount(p).is_some_and(|m| {
                    m.destination.as_bytes() == b"/m" && m.flags.readonly && m.data == ["mode=700"]
                })
            }),
        ),
        (
            "mounts[7].source",
            json!("/usr"),
            In(|p| p.sources.iter().any(|s| s.path == Path::new("/usr") && !s.readonly)),
        ),
        ("mounts[7].uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), Refused),
        ("mounts[7].gidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), Refused),
    ]
}

fn process_rows() -> Vec<Row> {
    vec![
        ("process.args", json!(["a", "b"]), In(|p| p.container.process.args.len() == 2)),
        ("process.commandLine", json!("x"), Nothing("Windows only")),
        ("process.user.username", json!("x"), Nothing("Windows only")),
        ("process.env", json!(["X=y"]), In(|p| p.container.process.env == [ByteString::from("X=y")])),
        ("process.cwd", json!("/w"), In(|p| p.container.process.cwd.as_bytes() == b"/w")),
        ("process.terminal", json!(true), In(|p| p.container.process.terminal)),
        (
            "process.consoleSize",
            json!({"height": 5, "width": 7}),
            In(|p| p.container.process.console_size.is_some_and(|s| (s.rows, s.columns) == (5, 7))),
        ),
        ("process.user.uid", json!(5), In(|p| p.container.process.user.uid == 5)),
        ("process.user.gid", json!(6), In(|p| p.container.process.user.gid == 6)),
        ("process.user.umask", json!(0o27), In(|p| p.container.process.user.umask == Some(0o27))),
        (
            "process.user.additionalGids",
            json!([7, 8]),
            In(|p| p.container.process.user.additional_gids == [7, 8]),
        ),
        (
            "process.capabilities.bounding",
            json!(["CAP_CHOWN"]),
            In(|p| p.container.process.capabilities.bounding == 1),
        ),
        (
            "process.capabilities.permitted",
            json!(["CAP_CHOWN"]),
            In(|p| p.container.process.capabilities.permitted == 1),
        ),
        (
            "process.capabilities.effective",
            json!(["CAP_CHOWN"]),
            In(|p| p.container.process.capabilities.effective == 1),
        ),
        (
            "process.capabilities.inheritable",
            json!(["CAP_CHOWN"]),
            In(|p| p.container.process.capabilities.inheritable == 1),
        ),
        (
            "process.capabilities.ambient",
            json!(["CAP_CHOWN"]),
            In(|p| p.container.process.capabilities.ambient == 1),
        ),
        ("process.noNewPrivileges", json!(false), In(|p| !p.container.process.no_new_privileges)),
        ("process.oomScoreAdj", json!(300), In(|p| p.container.process.oom_score_adj == Some(300))),
        (
            "process.rlimits",
            json!([{"type": "RLIMIT_CPU", "soft": 1, "hard": 2}]),
            In(|p| {
                let r = p.container.process.rlimits[0];
                (r.resource, r.soft, r.hard) == (0, 1, 2)
            }),
        ),
        (
            "process.scheduler",
            json!({"policy": "SCHED_FIFO", "priority": 9}),
            In(|p| p.container.process.scheduler.is_some_and(|s| (s.policy, s.priority) == (1, 9))),
        ),
        (
            "process.scheduler",
            json!({"policy": "SCHED_DEADLINE", "runtime": 10_000, "deadline": 20_000, "period": 30_000}),
            In(|p| p.container.process.scheduler.is_some_and(|s| s.deadline == [10_000, 20_000, 30_000])),
        ),
        (
            "process.scheduler",
            json!({"policy": "SCHED_BATCH", "nice": 7}),
            In(|p| p.container.process.scheduler.is_some_and(|s| (s.policy, s.nice) == (3, 7))),
        ),
        ("process.scheduler.flags", json!(["SCHED_FLAG_KEEP_POLICY"]), Refused),
        (
            "process.ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 3}),
            In(|p| p.container.process.io_priority == Some(2 << 13 | 3)),
        ),
        (
            "process.execCPUAffinity",
            json!({"initial": "0", "final": "0-1"}),
            In(|p| p.container.process.cpus.as_deref() == Some(&[0, 1])),
        ),
        ("process.apparmorProfile", json!("x"), Refused),
        ("process.selinuxLabel", json!("x"), Refused),
    ]
}

fn linux_rows() -> Vec<Row> {
    let user = json!([{"type": "user"}]);
    let ids = json!([{"containerID": 1, "hostID": 2, "size": 3}]);
    vec![
        (
            "linux.devices",
            json!([{"type": "c", "path": "/dev/n", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 1, "gid": 2}]),
            In(|p| {
                p.container.devices.iter().any(|d| {
                    (d.major, d.minor, d.mode, d.uid, d.gid) == (1, 3, Some(0o600), Some(1), Some(2))
                })
            }),
        ),
        ("linux.netDevices", json!({"eth7": {"name": "eth0"}}), Refused),
        (
            "linux",
            json!({"uidMappings": ids, "gidMappings": ids, "namespaces": user}),
            In(|p| {
                let all = p.container.uid_mappings.iter().zip(&p.container.gid_mappings);
                all.filter(|(u, g)| u == g && (u.inside, u.outside, u.count) == (1, 2, 3)).count() == 1
            }),
        ),
        (
            "linux.namespaces",
            json!([{"type": "network", "path": "/proc/self/ns/net"}]),
            In(|p| p.joined.network.is_some()),
        ),
        (
            "linux.namespaces",
            json!([{"type": "uts", "path": "/proc/self/ns/uts"}, {"type": "ipc", "path": "/proc/self/ns/ipc"}]),
            In(|p| p.joined.uts.is_some() && p.joined.ipc.is_some()),
        ),
        (
            "linux.namespaces",
            json!([{"type": "pid", "path": "/proc/self/ns/pid"}]),
            In(|p| p.joined.pid.is_some()),
        ),
        ("linux.namespaces[0]", json!({"type": "time"}), Refused),
        ("linux.namespaces[0].path", json!("/no/such/namespace"), Refused),
        ("linux.namespaces[0]", json!({"type": "mount", "path": "/proc/self/ns/mnt"}), Refused),
        ("linux.namespaces[0]", json!({"type": "user", "path": "/proc/self/ns/user"}), Refused),
        ("linux.timeOffsets", json!({"monotonic": {"secs": 5, "nanosecs": 0}}), Refused),
        ("linux.cgroupsPath", json!("/x/y"), In(|p| p.cgroups_path.as_deref() == Some(Path::new("/x/y")))),
        ("linux.rootfsPropagation", json!("shared"), Refused),
        ("linux.rootfsPropagation", json!("slave"), Nothing("no mount of the sandbox is the host's")),
        (
            "linux.sysctl",
            json!({"kernel.shmmni": "7"}),
            In(|p| p.container.sysctl.get("kernel.shmmni").is_some_and(|v| v == "7")),
        ),
        ("linux.maskedPaths", json!(["/m"]), In(|p| p.container.masked_paths == [ByteString::from("/m")])),
        (
            "linux.readonlyPaths",
            json!(["/r"]),
            In(|p| p.container.readonly_paths == [ByteString::from("/r")]),
        ),
        ("linux.mountLabel", json!("x"), Refused),
        ("linux.intelRdt", json!({"closID": "x"}), Refused),
        ("linux.memoryPolicy", json!({"mode": "MPOL_DEFAULT", "nodes": "0"}), Refused),
        ("linux.personality", json!({"domain": "LINUX32"}), Refused),
    ]
}

fn seccomp_rows() -> Vec<Row> {
    fn of(plan: &Plan) -> Option<&sentry::boot::spec::SeccompSpec> {
        plan.container.seccomp.as_ref()
    }
    use sentry::boot::spec::{SeccompAction, SeccompOp};
    let rule = json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
        "args": [{"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]});
    vec![
        (
            "linux.seccomp",
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 9}),
            In(|p| of(p).is_some_and(|s| s.default_action == SeccompAction::Errno(9))),
        ),
        (
            "linux.seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "architectures": ["SCMP_ARCH_X86_64"]}),
            In(|p| of(p).is_some_and(|s| s.flags.len() == 1 && s.architectures.len() == 1)),
        ),
        (
            "linux.seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}),
            In(|p| {
                of(p).is_some_and(|s| {
                    let (r, a) = (&s.rules[0], s.rules[0].args[0]);
                    r.names == ["read"]
                        && r.action == SeccompAction::Errno(5)
                        && (a.index, a.op, a.value, a.value_two) == (1, SeccompOp::MaskedEqual, 2, 3)
                })
            }),
        ),
        ("linux.seccomp.defaultAction", json!("SCMP_ACT_NOTIFY"), Refused),
        ("linux.seccomp.listenerPath", json!("/run/listener"), Refused),
        (
            "linux.seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            Nothing("it belongs to listenerPath, which is refused"),
        ),
    ]
}

fn resource_rows() -> Vec<Row> {
    let rate = || json!([{"major": 8, "minor": 0, "rate": 1000}]);
    let weight = |name: &str| json!([{"major": 8, "minor": 0, name: 100}]);
    vec![
        (
            "linux.resources.devices",
            json!([{"allow": false, "access": "rwm"}]),
            Nothing("there is no device of the host"),
        ),
        ("linux.resources.unified", json!({"memory.high": "1"}), In(unified)),
        ("linux.resources.pids.limit", json!(9), Cgroup("pids.limit")),
        ("linux.resources.memory.limit", json!(1 << 30), Cgroup("memory.limit")),
        ("linux.resources.memory.reservation", json!(1 << 20), Cgroup("memory.reservation")),
        ("linux.resources.memory.swap", json!(1 << 30), Cgroup("memory.swap")),
        ("linux.resources.memory.kernel", json!(1 << 20), Refused),
        ("linux.resources.memory.kernelTCP", json!(1 << 20), Cgroup("memory.kernelTCP")),
        ("linux.resources.memory.swappiness", json!(10), Cgroup("memory.swappiness")),
        ("linux.resources.memory.disableOOMKiller", json!(true), Cgroup("memory.disableOOMKiller")),
        ("linux.resources.memory.useHierarchy", json!(true), Nothing("Linux has nothing else")),
        (
            "linux.resources.memory",
            json!({"checkBeforeUpdate": true}),
            In(|p| {
                p.resources.as_ref().and_then(|r| r.memory().as_ref()?.check_before_update()) == Some(true)
            }),
        ),
        ("linux.resources.cpu.shares", json!(512), Cgroup("cpu.shares")),
        ("linux.resources.cpu.quota", json!(50_000), Cgroup("cpu.quota")),
        ("linux.resources.cpu.burst", json!(1000), Cgroup("cpu.burst")),
        ("linux.resources.cpu.period", json!(100_000), Cgroup("cpu.period")),
        ("linux.resources.cpu.realtimeRuntime", json!(1000), Cgroup("cpu.realtimeRuntime")),
        ("linux.resources.cpu.realtimePeriod", json!(100_000), Cgroup("cpu.realtimePeriod")),
        ("linux.resources.cpu.cpus", json!("0"), Cgroup("cpu.cpus")),
        ("linux.resources.cpu.mems", json!("0"), Cgroup("cpu.mems")),
        ("linux.resources.cpu.idle", json!(1), Cgroup("cpu.idle")),
        ("linux.resources.blockIO.weight", json!(100), Cgroup("blockIO.weight")),
        ("linux.resources.blockIO.leafWeight", json!(100), Cgroup("blockIO.leafWeight")),
        ("linux.resources.blockIO.weightDevice", weight("weight"), Cgroup("blockIO.weightDevice")),
        ("linux.resources.blockIO.weightDevice", weight("leafWeight"), Cgroup("blockIO.weightDevice")),
        ("linux.resources.blockIO.throttleReadBpsDevice", rate(), Cgroup("blockIO.throttleReadBpsDevice")),
        ("linux.resources.blockIO.throttleWriteBpsDevice", rate(), Cgroup("blockIO.throttleWriteBpsDevice")),
        ("linux.resources.blockIO.throttleReadIOPSDevice", rate(), Cgroup("blockIO.throttleReadIOPSDevice")),
        (
            "linux.resources.blockIO.throttleWriteIOPSDevice",
            rate(),
            Cgroup("blockIO.throttleWriteIOPSDevice"),
        ),
        (
            "linux.resources.hugepageLimits",
            json!([{"pageSize": "2MB", "limit": 1}]),
            Cgroup("hugepageLimits"),
        ),
        ("linux.resources.network.classID", json!(1), Cgroup("network.classID")),
        (
            "linux.resources.network.priorities",
            json!([{"name": "eth0", "priority": 5}]),
            Cgroup("network.priorities"),
        ),
        ("linux.resources.rdma", json!({"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}}), Cgroup("rdma")),
    ]
}

fn unified(plan: &Plan) -> bool {
    plan.resources.as_ref().and_then(|r| r.unified().as_ref()).is_some_and(|u| u.contains_key("memory.high"))
}

/// The fields of a resource section that only make sense with others beside them.
fn prepare(config: &mut Value, path: &str) {
    if path.starts_with("mounts[7].") {
        set(
            config,
            MOUNT,
            json!({"destination": "/m", "type": "bind", "source": "/tmp", "options": ["bind"]}),
        );
    }
    if path.starts_with("linux.seccomp.") {
        set(config, "linux.seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    }
    if path == "process.scheduler.flags" {
        set(config, "process.scheduler", json!({"policy": "SCHED_OTHER"}));
    }
}

#[test]
fn every_field_is_carried_out_or_refused() {
    let rows = [top_rows(), process_rows(), linux_rows(), seccomp_rows(), resource_rows()];
    for (number, (path, value, fate)) in rows.into_iter().flatten().enumerate() {
        let mut config = base();
        prepare(&mut config, path);
        let before = plan_of(&format!("field{number}a"), &config).unwrap();
        set(&mut config, path, value);
        let after = plan_of(&format!("field{number}b"), &config);
        match fate {
            Refused => {
                let error = format!("{:#}", after.map(|_| ()).expect_err(path));
                // A message about a mount's maps names one of the two.
                let name = path.replace("gidMappings", "uidMappings");
                let name = name.trim_end_matches("[0]");
                assert!(error.contains(name) && !error.contains('\n'), "{path}: {error}");
            }
            In(check) => {
                assert!(check(&after.unwrap_or_else(|e| panic!("{path}: {e:#}"))), "{path} has no effect");
                assert!(!check(&before), "{path}: the test is true without it");
            }
            Cgroup(name) => {
                let plan = after.unwrap_or_else(|e| panic!("{path}: {e:#}"));
                let fields =
                    |plan: &Plan| plan.resources.as_ref().map(crate::cgroup::fields).unwrap_or_default();
                assert!(fields(&plan).contains(&name), "{path}: {:?}", fields(&plan));
                assert!(!fields(&before).contains(&name), "{path}: the test is true without it");
            }
            Nothing(why) => {
                assert!(after.is_ok() && !why.is_empty(), "{path}: {:#}", after.unwrap_err());
            }
        }
    }
}
