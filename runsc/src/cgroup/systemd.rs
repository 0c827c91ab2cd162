//! `--systemd-cgroup`: the container's processes in a scope of systemd, which makes the cgroup (systemd.scope(5), the
//! interface org.freedesktop.systemd1(5)). What systemd has no property for is written to the cgroup's files as
//! without it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime as oci;
use serde::{Deserialize, Serialize};

use crate::dbus::{Body, Bus, Refused, Target, Value};

const MANAGER: Target<'_> = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

/// A scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `NAME.scope`
    pub name: String,
    /// `NAME.slice`; `-.slice` is the root.
    pub slice: String,
}

impl Unit {
    /// From cgroupsPath, which then has the form `SLICE:PREFIX:NAME`.
    pub fn parse(path: Option<&Path>, id: &str, root: bool) -> Result<Unit> {
        let default_slice = if root { "system.slice" } else { "user.slice" };
        let Some(path) = path else {
            return Ok(Unit { name: format!("runsc-{id}.scope"), slice: default_slice.to_owned() });
        };
        let text = path.to_str().unwrap_or_default();
        let parts: Vec<&str> = text.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            bail!(
                "linux.cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, \
                 got {text:?} instead"
            );
        };
        ensure!(
            !name.is_empty() && !text.contains('/') && !text.contains(".."),
            "linux.cgroupsPath: {text:?} does not name a unit of systemd"
        );
        let slice = match slice {
            "" => default_slice.to_owned(),
            slice if slice.ends_with(".slice") => slice.to_owned(),
            slice => bail!("linux.cgroupsPath: {slice:?} is no slice of systemd"),
        };
        let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        Ok(Unit { name, slice })
    }

    /// Where systemd makes its cgroup, below the group that it has for itself: slices nest by their names' dashes.
    pub fn cgroup(&self) -> PathBuf {
        let mut path = PathBuf::from("/");
        let stem = self.slice.strip_suffix(".slice").unwrap_or(&self.slice);
        let mut name = String::new();
        for part in stem.split('-').filter(|p| !p.is_empty()) {
            if !name.is_empty() {
                name.push('-');
            }
            name.push_str(part);
            path.push(format!("{name}.slice"));
        }
        path.push(&self.name);
        path
    }

    /// Has systemd make the scope with a process in it.
    pub fn start(
        &self,
        bus: &mut Bus,
        id: &str,
        pid: i32,
        resources: Option<&oci::LinuxResources>,
    ) -> Result<()> {
        let mut list = vec![
            ("Description", Value::Text(format!("runsc container {id}"))),
            ("Slice", Value::Text(self.slice.clone())),
            ("Delegate", Value::Bool(true)),
            ("DefaultDependencies", Value::Bool(false)),
            ("MemoryAccounting", Value::Bool(true)),
            ("CPUAccounting", Value::Bool(true)),
            ("TasksAccounting", Value::Bool(true)),
            ("PIDs", Value::U32s(vec![u32::try_from(pid)?])),
        ];
        list.extend(resources.map(properties).unwrap_or_default());
        bus.subscribe(MANAGER.interface, "JobRemoved")?;
        bus.call(MANAGER, "Subscribe", Body::default()).context("systemd")?;
        let body = Body::default().text(&self.name).text("replace").properties(&list).no_units();
        self.job(bus, "StartTransientUnit", body)
    }

    /// Ends the scope for a caller that goes on in any case.
    pub fn forget(&self) {
        if let Err(error) = bus().and_then(|mut bus| self.stop(&mut bus)) {
            tracing::warn!("{error:#}");
        }
    }

    /// New limits.
    pub fn update(&self, bus: &mut Bus, resources: &oci::LinuxResources) -> Result<()> {
        let list = properties(resources);
        if list.is_empty() {
            return Ok(());
        }
        let body = Body::default().text(&self.name).bool(true).properties(&list);
        let done = bus.call(MANAGER, "SetUnitProperties", body);
        done.map(drop).with_context(|| format!("systemd: cannot change the unit {}", self.name))
    }

    /// Ends the scope, if it is still there: systemd forgets one by itself when its last process has ended.
    pub fn stop(&self, bus: &mut Bus) -> Result<()> {
        bus.subscribe(MANAGER.interface, "JobRemoved")?;
        bus.call(MANAGER, "Subscribe", Body::default()).context("systemd")?;
        match self.job(bus, "StopUnit", Body::default().text(&self.name).text("replace")) {
            Err(error) if !is_missing(&error) => return Err(error),
            _ => {}
        }
        // A failed one would keep its name.
        match bus.call(MANAGER, "ResetFailedUnit", Body::default().text(&self.name)) {
            Err(error) if !is_missing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Calls a method that starts a job, and waits for that.
    fn job(&self, bus: &mut Bus, method: &str, body: Body) -> Result<()> {
        let what = || format!("systemd: {method} of {}", self.name);
        let answer = bus.call(MANAGER, method, body).with_context(what)?;
        let job = answer.into_iter().next().with_context(what)?;
        // u id, o job, s unit, s result: the texts are the last three.
        let ended = bus.signal("JobRemoved", |t| t.first() == Some(&job)).with_context(what)?;
        match ended.get(2).map(String::as_str) {
            Some("done") => Ok(()),
            other => bail!("{}: the job ended as {:?}", what(), other.unwrap_or("nothing")),
        }
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    let refused = error.chain().find_map(|e| e.downcast_ref::<Refused>());
    refused.is_some_and(|r| r.name == "org.freedesktop.systemd1.NoSuchUnit")
}

/// Whether the system's systemd is asked, by root, and not a user's. Root of a user namespace (rootless Podman) is that user.
pub fn of_system() -> bool {
    rustix::process::geteuid().is_root() && !crate::state::in_user_namespace()
}

/// The bus that systemd is on: the system's or the user's own.
pub fn bus() -> Result<Bus> {
    let from = |variable: &str| {
        let address = std::env::var(variable).ok()?;
        let path = address.split(';').find_map(|a| a.strip_prefix("unix:path="))?.to_owned();
        Some(PathBuf::from(path.split(',').next().unwrap_or_default()))
    };
    let path = if of_system() {
        from("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| "/run/dbus/system_bus_socket".into())
    } else {
        let own = || Some(PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?).join("bus"));
        from("DBUS_SESSION_BUS_ADDRESS")
            .or_else(own)
            .context("--systemd-cgroup: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set")?
    };
    Bus::connect(&path).context("--systemd-cgroup: cannot reach systemd")
}

/// Limits as properties of units (systemd.resource-control(5)).
fn properties(resources: &oci::LinuxResources) -> Vec<(&'static str, Value)> {
    let mut list = Vec::new();
    let amount = |n: i64| Value::U64(u64::try_from(n).unwrap_or(u64::MAX));
    if let Some(memory) = resources.memory() {
        for (name, value) in [("MemoryMax", memory.limit()), ("MemoryLow", memory.reservation())] {
            if let Some(n) = value.filter(|n| *n != 0) {
                list.push((name, amount(n)));
            }
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|s| *s != 0) {
            list.push(("CPUWeight", Value::U64(super::limits::cpu_weight(shares))));
        }
        if let Some(quota) = cpu.quota().filter(|q| *q != 0) {
            let period = cpu.period().filter(|p| *p != 0).unwrap_or(100_000);
            // Microseconds for each second, in steps of ten milliseconds as systemd has them.
            let each_second = u64::try_from(quota)
                .ok()
                .map(|q| (u128::from(q) * 1_000_000).div_ceil(u128::from(period)).next_multiple_of(10_000));
            let value = each_second.map_or(u64::MAX, |v| u64::try_from(v).unwrap_or(u64::MAX));
            list.push(("CPUQuotaPerSecUSec", Value::U64(value)));
        }
    }
    if let Some(limit) = resources.pids().as_ref().map(|p| p.limit()).filter(|l| *l != 0) {
        list.push(("TasksMax", amount(super::limits::host_tasks(limit))));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dbus::tests::{done, encode, serve, texts};
    use std::os::unix::net::UnixListener;

    #[test]
    fn names() {
        let unit = |path: &str| Unit::parse(Some(Path::new(path)), "id", true);
        let pod = unit("kubepods-burstable-pod1.slice:cri-containerd:abc").unwrap();
        assert_eq!(pod.name, "cri-containerd-abc.scope");
        let wanted =
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-abc.scope";
        assert_eq!(pod.cgroup(), Path::new(wanted));
        assert_eq!(unit("::x").unwrap().cgroup(), Path::new("/system.slice/x.scope"));
        assert_eq!(unit("-.slice::x").unwrap().cgroup(), Path::new("/x.scope"));
        assert_eq!(Unit::parse(None, "id", false).unwrap().slice, "user.slice");
        for bad in ["/docker/abc", "a:b", "a.slice:b:", "a:b:c", "a.slice:b:../c"] {
            assert!(unit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_as_properties() {
        let resources: oci::LinuxResources = serde_json::from_str(
            r#"{"memory":{"limit":1048576},"cpu":{"shares":1024,"quota":25000,"period":100000},"pids":{"limit":-1}}"#,
        )
        .unwrap();
        let list = properties(&resources);
        let wanted = [
            ("MemoryMax", Value::U64(1_048_576)),
            ("CPUWeight", Value::U64(39)),
            ("CPUQuotaPerSecUSec", Value::U64(250_000)),
            ("TasksMax", Value::U64(u64::MAX)),
        ];
        assert_eq!(list, wanted);
    }

    /// The calls that a bus gets, with the texts that begin them, while `f` uses it.
    fn calls(
        result: &'static str,
        f: impl FnOnce(&mut Bus) -> Result<()>,
    ) -> (Vec<(String, Vec<u8>)>, Result<()>) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("bus");
        let listener = UnixListener::bind(&socket).unwrap();
        let peer = std::thread::spawn(move || {
            let mut got = Vec::new();
            serve(listener.accept().unwrap().0, |member, serial, body| {
                got.push((member.to_owned(), body.to_vec()));
                match member {
                    "StartTransientUnit" | "StopUnit" => {
                        let mut body = 9u32.to_le_bytes().to_vec();
                        body.extend(texts(&["/job/9", "x.scope", result]));
                        vec![
                            encode(2, serial, "", "o", &texts(&["/job/9"])),
                            encode(4, 0, "JobRemoved", "uoss", &body),
                        ]
                    }
                    "ResetFailedUnit" => {
                        let name = "org.freedesktop.systemd1.NoSuchUnit";
                        vec![encode(3, serial, name, "s", &texts(&["not loaded"]))]
                    }
                    _ => vec![done(serial)],
                }
            });
            got
        });
        let mut bus = Bus::connect(&socket).unwrap();
        let outcome = f(&mut bus);
        drop(bus);
        (peer.join().unwrap(), outcome)
    }

    #[test]
    fn a_scope_is_started_and_stopped() {
        let unit = Unit { name: "x.scope".to_owned(), slice: "system.slice".to_owned() };
        let (got, outcome) = calls("done", |bus| {
            unit.start(bus, "id", 42, None)?;
            unit.stop(bus)
        });
        outcome.unwrap();
        let names: Vec<&str> = got.iter().map(|(m, _)| m.as_str()).collect();
        let wanted = [
            "Hello",
            "AddMatch",
            "Subscribe",
            "StartTransientUnit",
            "AddMatch",
            "Subscribe",
            "StopUnit",
            "ResetFailedUnit",
        ];
        assert_eq!(names, wanted);
        let body = &got[3].1;
        assert!(body.starts_with(&texts(&["x.scope"])));
        assert!(body.windows(4).any(|w| w == b"PIDs"));
        assert!(body.windows(4).any(|w| w == 42u32.to_le_bytes()));
    }

    #[test]
    fn a_job_that_fails_is_an_error() {
        let unit = Unit { name: "x.scope".to_owned(), slice: "system.slice".to_owned() };
        let (_, outcome) = calls("failed", |bus| unit.start(bus, "id", 42, None));
        assert!(format!("{:#}", outcome.unwrap_err()).contains("failed"));
    }
}
