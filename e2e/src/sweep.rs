//! Taking back whatever a run has left on the machine: processes, mounts, cgroups, files. It works
//! from the run's number alone, so that a later run can do it for one that was killed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where runs have their directories, each named by the process id of its runner.
pub const BASE: &str = "/var/tmp/runsc-e2e";

/// The variable by which everything that a run starts is known, and which children inherit.
pub const MARK: &str = "RUNSC_E2E";

/// The cgroup below which the containers of a run are, where engines make cgroups themselves.
pub fn cgroup_name(run: u32) -> String {
    format!("runsc-e2e-{run}")
}

/// The same where they have systemd make them. No dashes: for systemd they are levels.
pub fn slice_name(run: u32) -> String {
    format!("runsc_e2e_{run}.slice")
}

/// Sweeps up after runs whose runner is gone.
pub fn older_runs() {
    let Ok(entries) = std::fs::read_dir(BASE) else { return };
    for entry in entries.flatten() {
        let Some(run) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let exe = std::fs::read_link(format!("/proc/{run}/exe"));
        let alive = exe.is_ok_and(|exe| exe.to_string_lossy().contains("engines-"));
        if !alive {
            eprintln!("sweeping up after run {run}");
            run_over(run);
        }
    }
}

/// Removes all traces of a run.
pub fn run_over(run: u32) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let left = processes(run);
        if left.is_empty() || Instant::now() > end {
            break;
        }
        for pid in left {
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let base = Path::new(BASE).join(run.to_string());
    unmount_below(&base);
    for group in cgroups(run) {
        remove_cgroup(&group);
    }
    let _ = std::fs::remove_dir_all(&base);
}

/// Processes that carry the run's mark or sit in its cgroups.
fn processes(run: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mark = format!("{MARK}={run}");
    let own = std::process::id();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if pid != own && environ.split(|b| *b == 0).any(|v| v == mark.as_bytes()) && !is_zombie(pid) {
            found.push(pid);
        }
    }
    let mut groups = cgroups(run);
    while let Some(group) = groups.pop() {
        let procs = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        found.extend(procs.lines().filter_map(|l| l.parse::<u32>().ok()).filter(|&pid| pid != 0));
        groups.extend(below(&group));
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// The run's group in each hierarchy.
fn cgroups(run: u32) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut places = vec![root.to_owned()];
    places.extend(below(root));
    let names = [cgroup_name(run), slice_name(run)];
    places.iter().flat_map(|p| names.each_ref().map(|n| p.join(n))).filter(|p| p.is_dir()).collect()
}

fn below(group: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn remove_cgroup(group: &Path) {
    for inner in below(group) {
        remove_cgroup(&inner);
    }
    for _ in 0..20 {
        if std::fs::remove_dir(group).is_ok() || !group.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Mounts below a directory, the innermost first.
fn unmount_below(base: &Path) {
    for _ in 0..3 {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut points: Vec<&str> = mountinfo
            .lines()
            .filter_map(|l| l.split(' ').nth(4))
            .filter(|p| Path::new(p).starts_with(base))
            .collect();
        if points.is_empty() {
            return;
        }
        points.reverse();
        for point in points {
            let _ = std::process::Command::new("umount").args(["-l", point]).status();
        }
    }
}

/// Whether a directory is root's alone to write to.
pub fn is_ours(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.is_dir() && m.uid() == 0 && m.mode() & 0o022 == 0)
}
