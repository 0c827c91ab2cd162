//! Control groups of the host for a sandbox's processes: found in any of the layouts (v1, v2,
//! both), made where the configuration says, given the limits it lists, and removed in the end.
//! Engines read them for statistics and out-of-memory events, so the directories matter even
//! where no limit is set.

mod limits;
mod oom;
pub mod systemd;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hostsys::MemoryGroup;
use oci_spec::runtime as oci;

#[cfg(test)]
pub use limits::fields;
use limits::settings;
pub use limits::{refused, wants_limits};
pub use oom::note_kill;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// v1's controllers or `name=systemd`; empty for v2.
    controllers: Vec<String>,
    v2: bool,
}

/// The cgroups of one container.
#[derive(Debug, Default)]
pub struct Cgroups {
    directories: Vec<(Hierarchy, PathBuf)>,
}

impl Cgroups {
    /// What has to be removed in the end.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.directories.iter().map(|(_, path)| path.clone()).collect()
    }

    /// Where `path` (cgroupsPath) lies in each hierarchy; nothing is made yet.
    pub fn locate(path: &Path) -> Result<Cgroups> {
        let relative = clean(path)?;
        let mountinfo =
            std::fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let hierarchies = hierarchies(&mountinfo);
        let directories = hierarchies
            .into_iter()
            .map(|hierarchy| {
                // A relative path is below the caller's own group.
                let base = if path.is_absolute() { PathBuf::new() } else { own_group(&own, &hierarchy) };
                let directory = hierarchy.mount.join(base).join(&relative);
                (hierarchy, directory)
            })
            .collect();
        Ok(Cgroups { directories })
    }

    /// Where a process is that systemd has put into a scope: in each hierarchy at the place that it has in systemd's own.
    pub fn of_scope(pid: i32, unit: &systemd::Unit) -> Result<Cgroups> {
        let file = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let path = scope_of(&text, &unit.name)
            .with_context(|| format!("systemd: the process is not in {}, {file} says", unit.name))?;
        Cgroups::locate(&path)
    }

    /// Makes the directories and sets the limits.
    pub fn create(&self, resources: Option<&oci::LinuxResources>) -> Result<()> {
        for (hierarchy, path) in &self.directories {
            std::fs::create_dir_all(path)
                .with_context(|| format!("cannot make the cgroup {}", path.display()))?;
            if hierarchy.v2 {
                delegate(&hierarchy.mount, path);
            } else if hierarchy.controllers.iter().any(|c| c == "cpuset") {
                inherit_cpuset(&hierarchy.mount, path);
            }
        }
        if let Some(resources) = resources {
            self.apply(resources)?;
        }
        Ok(())
    }

    /// Moves a process there.
    pub fn add(&self, pid: i32) -> Result<()> {
        for (_, path) in &self.directories {
            let file = path.join("cgroup.procs");
            std::fs::write(&file, pid.to_string())
                .with_context(|| format!("cannot add the process to {}", file.display()))?;
        }
        Ok(())
    }

    fn v1(&self, controller: &str) -> Option<&Path> {
        self.directories
            .iter()
            .find(|(h, _)| !h.v2 && h.controllers.iter().any(|c| c == controller))
            .map(|(_, path)| path.as_path())
    }

    /// The v2 directory, if v2 has that controller there.
    fn v2(&self, controller: &str) -> Option<&Path> {
        let (_, path) = self.directories.iter().find(|(h, _)| h.v2)?;
        let available = std::fs::read_to_string(path.join("cgroup.controllers")).ok()?;
        available.split_ascii_whitespace().any(|c| c == controller).then_some(path.as_path())
    }

    /// The groups at directories that are on record.
    fn at(paths: &[PathBuf]) -> Result<Cgroups> {
        let mountinfo =
            std::fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
        let hierarchies = hierarchies(&mountinfo);
        // On a hybrid layout one mount point may lie below another: the longest is meant.
        let of = |path: &PathBuf| {
            let above = hierarchies.iter().filter(|h| path.starts_with(&h.mount));
            above.max_by_key(|h| h.mount.as_os_str().len()).map(|h| (h.clone(), path.clone()))
        };
        Ok(Cgroups { directories: paths.iter().filter_map(of).collect() })
    }

    fn apply(&self, resources: &oci::LinuxResources) -> Result<()> {
        self.check_use(resources)?;
        let mut refused = Vec::new();
        for setting in settings(resources) {
            let target = match (self.v1(setting.controller), self.v2(setting.controller)) {
                (Some(path), _) => setting.v1.as_ref().map(|s| (path, s)),
                (None, Some(path)) => setting.v2.as_ref().map(|s| (path, s)),
                (None, None) => None,
            };
            let Some((path, (name, value))) = target else {
                tracing::warn!(
                    "linux.resources.{}: not enforced by the host, the container has no cgroup of that controller",
                    setting.field
                );
                continue;
            };
            let file = path.join(name.as_ref());
            match std::fs::write(&file, value) {
                Ok(()) => {}
                Err(error) if setting.optional && error.kind() == io::ErrorKind::NotFound => {
                    tracing::warn!("linux.resources.{}: not enforced, the host has no {name}", setting.field);
                }
                // It may depend on another limit that has its old value yet.
                Err(_) => refused.push((setting.field, file, value.clone())),
            }
        }
        for (field, file, value) in refused {
            std::fs::write(&file, &value).with_context(|| {
                format!("linux.resources.{field}: cannot write {value} to {}", file.display())
            })?;
        }
        self.apply_unified(resources)?;
        Ok(())
    }

    /// memory.checkBeforeUpdate: a limit below what is in use already is refused.
    fn check_use(&self, resources: &oci::LinuxResources) -> Result<()> {
        let Some(memory) = resources.memory().as_ref().filter(|m| m.check_before_update() == Some(true))
        else {
            return Ok(());
        };
        let Some(limit) = memory.limit().and_then(|l| u64::try_from(l).ok()).filter(|&l| l > 0) else {
            return Ok(());
        };
        let file = match (self.v1("memory"), self.v2("memory")) {
            (Some(path), _) => path.join("memory.usage_in_bytes"),
            (None, Some(path)) => path.join("memory.current"),
            (None, None) => return Ok(()),
        };
        let used = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let used: u64 = used.trim().parse().with_context(|| file.display().to_string())?;
        if used > limit {
            bail!("linux.resources.memory.limit: {limit} is below the {used} bytes in use");
        }
        Ok(())
    }

    /// Files of v2 by name.
    fn apply_unified(&self, resources: &oci::LinuxResources) -> Result<()> {
        let Some(files) = resources.unified().as_ref().filter(|u| !u.is_empty()) else { return Ok(()) };
        let (_, path) = self
            .directories
            .iter()
            .find(|(h, _)| h.v2)
            .context("linux.resources.unified: the host has no cgroup v2")?;
        for (name, value) in files {
            if name.contains('/') {
                bail!("linux.resources.unified: {name:?} is no name of a file");
            }
            let file = path.join(name);
            std::fs::write(&file, value).with_context(|| {
                format!("linux.resources.unified: cannot write {value} to {}", file.display())
            })?;
        }
        Ok(())
    }
}

/// New limits for the groups of a container.
pub fn update(paths: &[PathBuf], resources: &oci::LinuxResources) -> Result<()> {
    Cgroups::at(paths)?.apply(resources)
}

/// Moves one more process to a container's groups, as far as that is possible.
pub fn join(paths: &[PathBuf], pid: i32) {
    for path in paths {
        if let Err(error) = std::fs::write(path.join("cgroup.procs"), pid.to_string()) {
            tracing::debug!("cannot add a process to {}: {error}", path.display());
        }
    }
}

/// Removes directories that were made for a container; processes that are ending may hold them
/// for a moment.
pub fn remove(paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let mut pause = Duration::from_millis(1);
        loop {
            match std::fs::remove_dir(path) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy && pause < Duration::from_secs(1) =>
                {
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot remove the cgroup {}", path.display()));
                }
            }
        }
    }
    Ok(())
}

/// The path without its leading slash; `..` could lead out of the hierarchy.
fn clean(path: &Path) -> Result<PathBuf> {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                bail!("linux.cgroupsPath: {} contains ..", path.display())
            }
        }
    }
    if out.as_os_str().is_empty() {
        bail!("linux.cgroupsPath: {} is the root group", path.display());
    }
    Ok(out)
}

/// Hierarchies among the lines of /proc/self/mountinfo; of several mounts of one, the first.
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut list: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let mut after = after.split(' ');
        let kind = after.next().unwrap_or("");
        let options = after.nth(1).unwrap_or("");
        let Some(mount) = before.split(' ').nth(4) else { continue };
        let hierarchy = match kind {
            "cgroup" => Hierarchy {
                mount: unescape(mount),
                controllers: options
                    .split(',')
                    .filter(|o| !matches!(*o, "rw" | "ro" | "xattr" | "noprefix" | "none"))
                    .filter(|o| !o.starts_with("release_agent="))
                    .map(str::to_owned)
                    .collect(),
                v2: false,
            },
            "cgroup2" => Hierarchy { mount: unescape(mount), controllers: Vec::new(), v2: true },
            _ => continue,
        };
        let same = |h: &Hierarchy| h.v2 == hierarchy.v2 && h.controllers == hierarchy.controllers;
        if !list.iter().any(same) {
            list.push(hierarchy);
        }
    }
    list
}

/// The group of a process that ends with a scope's name.
fn scope_of(own: &str, name: &str) -> Option<PathBuf> {
    let paths = own.lines().filter_map(|l| l.splitn(3, ':').nth(2)).map(Path::new);
    paths.filter(|p| p.file_name().is_some_and(|n| n == name)).map(Path::to_owned).next()
}

/// \040 and kin of mountinfo.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out.into()
}

/// This process's group in a hierarchy, without the leading slash.
fn own_group(cgroup_file: &str, hierarchy: &Hierarchy) -> PathBuf {
    for line in cgroup_file.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let matches = if hierarchy.v2 {
            controllers.is_empty()
        } else {
            !controllers.is_empty()
                && controllers.split(',').all(|c| hierarchy.controllers.iter().any(|h| h == c))
        };
        if matches {
            return path.trim_start_matches('/').into();
        }
    }
    PathBuf::new()
}

/// v2: lets each group on the way hand its controllers down. Where that is refused (a group with
/// processes in it, or no right to) the limits that need it say so later.
fn delegate(mount: &Path, path: &Path) {
    let Ok(relative) = path.strip_prefix(mount) else { return };
    let mut group = mount.to_path_buf();
    for component in relative.components() {
        if let Ok(available) = std::fs::read_to_string(group.join("cgroup.controllers")) {
            for controller in available.split_ascii_whitespace() {
                let _ = std::fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        group.push(component);
    }
}

/// v1: a new cpuset group has no CPUs and takes no process until it is given some.
fn inherit_cpuset(mount: &Path, path: &Path) {
    let Ok(relative) = path.strip_prefix(mount) else { return };
    let mut parent = mount.to_path_buf();
    for component in relative.components() {
        let group = parent.join(component);
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let is_empty = |text: String| text.trim().is_empty();
            if std::fs::read_to_string(group.join(name)).is_ok_and(is_empty)
                && let Ok(value) = std::fs::read_to_string(parent.join(name))
            {
                // Fails where it is not ours to set; adding the process then says why.
                let _ = std::fs::write(group.join(name), value.trim());
            }
        }
        parent = group;
    }
}

/// The memory controller's group that a process of the container is in, if there is one. `pid`: the process that is to use it.
pub fn memory_group(paths: &[PathBuf], pid: i32) -> Option<MemoryGroup> {
    let groups = Cgroups::at(paths).ok()?;
    let (group, usage) = match (groups.v1("memory"), groups.v2("memory")) {
        (Some(group), _) => (group, "memory.usage_in_bytes"),
        (None, group) => (group?, "memory.current"),
    };
    let open = |path: PathBuf| Some(OwnedFd::from(std::fs::File::open(path).ok()?));
    let score = format!("/proc/{pid}/oom_score_adj");
    let score = std::fs::File::options().read(true).write(true).open(score).ok().map(OwnedFd::from);
    Some(MemoryGroup::new(open(group.join(usage))?, open(group.join("memory.stat"))?, score))
}

/// How many processes of a container's groups the host has killed because their memory limit was reached.
pub fn oom_kills(paths: &[PathBuf]) -> u64 {
    // v1's file and v2's.
    ["memory.oom_control", "memory.events"]
        .iter()
        .flat_map(|name| paths.iter().map(move |path| path.join(name)))
        .filter_map(|file| {
            let text = std::fs::read_to_string(file).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
        })
        .sum()
}

/// Statistics of a container's groups, in the shape of runc's `events`.
pub fn statistics(paths: &[PathBuf]) -> serde_json::Value {
    let read = |name: &str| -> Option<String> {
        paths.iter().find_map(|path| std::fs::read_to_string(path.join(name)).ok())
    };
    let number = |name: &str| read(name).and_then(|t| t.trim().parse::<u64>().ok());
    let keyed = |name: &str, key: &str| -> Option<u64> {
        read(name)?.lines().find_map(|line| {
            let (k, v) = line.split_once(' ')?;
            (k == key).then(|| v.trim().parse().ok()).flatten()
        })
    };
    let micro = |key: &str| keyed("cpu.stat", key).map(|us| us * 1_000);
    let limit = number("memory.limit_in_bytes").or_else(|| number("memory.max"));
    serde_json::json!({
        "cpu": {
            "usage": {
                "total": number("cpuacct.usage").or_else(|| micro("usage_usec")).unwrap_or(0),
                "kernel": number("cpuacct.usage_sys").or_else(|| micro("system_usec")).unwrap_or(0),
                "user": number("cpuacct.usage_user").or_else(|| micro("user_usec")).unwrap_or(0)
            },
            "throttling": {
                "periods": keyed("cpu.stat", "nr_periods").unwrap_or(0),
                "throttledPeriods": keyed("cpu.stat", "nr_throttled").unwrap_or(0),
                "throttledTime": keyed("cpu.stat", "throttled_time")
                    .or_else(|| micro("throttled_usec")).unwrap_or(0)
            }
        },
        "memory": {
            "usage": {
                "limit": limit.unwrap_or(0),
                "usage": number("memory.usage_in_bytes").or_else(|| number("memory.current")).unwrap_or(0),
                "max": number("memory.max_usage_in_bytes").or_else(|| number("memory.peak")).unwrap_or(0),
                "failcnt": number("memory.failcnt").unwrap_or(0)
            }
        },
        "pids": {
            "current": number("pids.current").unwrap_or(0),
            "limit": number("pids.max").unwrap_or(0)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 23 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
31 23 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
32 23 0:28 / /sys/fs/my\\040groups rw - cgroup cgroup rw,memory
33 23 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
34 23 0:29 / /mnt/again rw - cgroup2 cgroup2 rw
35 23 0:30 / /proc rw - proc proc rw
";

    #[test]
    fn layouts() {
        let list = hierarchies(HYBRID);
        assert_eq!(list.len(), 4);
        assert_eq!(list[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(list[1].controllers, ["name=systemd"]);
        assert_eq!(list[2].mount, Path::new("/sys/fs/my groups"));
        assert!(list[3].v2);
        let own = "3:cpu,cpuacct:/a\n2:memory:/m/x\n1:name=systemd:/s\n0::/u\n";
        assert_eq!(own_group(own, &list[0]), Path::new("a"));
        assert_eq!(own_group(own, &list[2]), Path::new("m/x"));
        assert_eq!(own_group(own, &list[3]), Path::new("u"));
        let own = "2:memory:/\n1:name=systemd:/a.slice/x.scope\n0::/\n";
        assert_eq!(scope_of(own, "x.scope").unwrap(), Path::new("/a.slice/x.scope"));
        assert_eq!(scope_of(own, "y.scope"), None);
    }

    /// Groups `x` in a tree of plain directories: what would be written to the host's files.
    fn fake(root: &Path, hierarchies: &[(&str, &[&str], bool)]) -> Cgroups {
        let directories = hierarchies.iter().map(|(name, controllers, v2)| {
            let mount = root.join(name);
            std::fs::create_dir_all(mount.join("x")).unwrap();
            let list = controllers.join(" ");
            if *v2 {
                std::fs::write(mount.join("cgroup.controllers"), &list).unwrap();
                std::fs::write(mount.join("x/cgroup.controllers"), &list).unwrap();
            }
            let controllers =
                if *v2 { Vec::new() } else { controllers.iter().map(|c| (*c).to_owned()).collect() };
            (Hierarchy { mount: mount.clone(), controllers, v2: *v2 }, mount.join("x"))
        });
        Cgroups { directories: directories.collect() }
    }

    const LIMITS: &str = r#"{"memory":{"limit":4096,"reservation":2048},"pids":{"limit":10},
        "cpu":{"shares":512,"quota":20000,"period":100000,"cpus":"0-1"},
        "hugepageLimits":[{"pageSize":"2MB","limit":8192}],
        "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":100}]}}"#;

    #[test]
    fn limits_in_a_tree_of_v1() {
        let root = tempfile::tempdir().unwrap();
        let tree: [(&str, &[&str], bool); 6] = [
            ("memory", &["memory"], false),
            ("cpu,cpuacct", &["cpu", "cpuacct"], false),
            ("cpuset", &["cpuset"], false),
            ("pids", &["pids"], false),
            ("hugetlb", &["hugetlb"], false),
            ("systemd", &["name=systemd"], false),
        ];
        let groups = fake(root.path(), &tree);
        groups.create(Some(&serde_json::from_str(LIMITS).unwrap())).unwrap();
        groups.add(42).unwrap();
        let read = |name: &str| std::fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(read("memory/x/memory.limit_in_bytes"), "4096");
        assert_eq!(read("memory/x/memory.soft_limit_in_bytes"), "2048");
        assert_eq!(read("cpu,cpuacct/x/cpu.shares"), "512");
        assert_eq!(read("cpu,cpuacct/x/cpu.cfs_quota_us"), "20000");
        assert_eq!(read("cpuset/x/cpuset.cpus"), "0-1");
        assert_eq!(read("pids/x/pids.max"), "84");
        assert_eq!(read("hugetlb/x/hugetlb.2MB.limit_in_bytes"), "8192");
        assert_eq!(read("systemd/x/cgroup.procs"), "42");
    }

    #[test]
    fn limits_in_a_tree_of_v2_and_in_a_hybrid_one() {
        let root = tempfile::tempdir().unwrap();
        let all: &[&str] = &["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];
        let groups = fake(root.path(), &[("v2", all, true)]);
        groups.create(Some(&serde_json::from_str(LIMITS).unwrap())).unwrap();
        groups.add(42).unwrap();
        let read = |name: &str| std::fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(read("v2/x/memory.max"), "4096");
        assert_eq!(read("v2/x/memory.low"), "2048");
        assert_eq!(read("v2/x/cpu.weight"), "20");
        assert_eq!(read("v2/x/cpu.max"), "20000 100000");
        assert_eq!(read("v2/x/hugetlb.2MB.max"), "8192");
        assert_eq!(read("v2/x/cgroup.procs"), "42");
        // What the parent hands down.
        assert!(read("v2/cgroup.subtree_control").starts_with('+'));

        let groups = fake(root.path(), &[("memory", &["memory"], false), ("unified", &["hugetlb"], true)]);
        groups.create(Some(&serde_json::from_str(LIMITS).unwrap())).unwrap();
        assert_eq!(read("memory/x/memory.limit_in_bytes"), "4096");
        assert_eq!(read("unified/x/hugetlb.2MB.max"), "8192");
        assert!(!root.path().join("unified/x/memory.max").exists());
    }

    #[test]
    fn a_tree_that_may_not_be_changed_is_an_error_with_its_path() {
        let root = tempfile::tempdir().unwrap();
        let groups = fake(root.path(), &[("memory", &["memory"], false)]);
        std::fs::remove_dir(root.path().join("memory/x")).unwrap();
        std::fs::write(root.path().join("memory/x"), "").unwrap();
        let error = format!("{:#}", groups.create(None).unwrap_err());
        assert!(error.contains("memory/x"), "{error}");
    }

    #[test]
    fn paths_stay_inside() {
        assert_eq!(clean(Path::new("/docker/abc")).unwrap(), Path::new("docker/abc"));
        assert!(clean(Path::new("/a/../../b")).is_err());
        assert!(clean(Path::new("/")).is_err());
    }
}
