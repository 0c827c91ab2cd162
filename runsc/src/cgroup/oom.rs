//! Telling the host of a process that the sentry has killed because a container of a pod was out of memory.
//!
//! The memory of such a container is the sandbox's and is counted there. But it is the container's own cgroup that engines
//! watch for such ends (memory.events, or the event of memory.oom_control). So the host's kernel is given one to note there: a
//! child of the process that stands for the container uses more than the group may have, for the moment that it takes.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hostsys::process::{Exit, ForkOptions, fork_run};

use super::Cgroups;

/// What the group may use meanwhile, beyond what it does.
const ROOM: u64 = 1 << 20;
/// By how much the limit exceeds the largest process of the group meanwhile: the host's kernel chooses by size, to which a
/// child with the highest oom_score_adj has the whole limit added. (oom_badness; a file that is mapped counts as size.)
const LEAD: u64 = 4 << 20;
/// What the child uses at most beyond the limit: more than what the host's kernel counts in advance.
const BEYOND: u64 = 32 << 20;

/// Sets the limit back, whatever happens.
struct Changed {
    file: PathBuf,
    before: String,
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(&self.file, &self.before) {
            tracing::warn!("cannot set {} back to {}: {error}", self.file.display(), self.before);
        }
    }
}

/// Has the host note that a process of the calling process's memory group was killed for lack of memory. `paths`: the
/// groups of the container. Nothing to do where there is no memory controller.
pub fn note_kill(paths: &[PathBuf]) -> Result<()> {
    let groups = Cgroups::at(paths)?;
    match (groups.v1("memory"), groups.v2("memory")) {
        (Some(group), _) => note_in(group, "memory.usage_in_bytes", "memory.limit_in_bytes"),
        (None, Some(group)) => note_in(group, "memory.current", "memory.max"),
        (None, None) => Ok(()),
    }
}

fn note_in(group: &Path, usage: &str, limit: &str) -> Result<()> {
    let read = |name: &str| {
        let file = group.join(name);
        std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    };
    let before = read(limit)?.trim().to_owned();
    let used: u64 = read(usage)?.trim().parse().with_context(|| usage.to_owned())?;
    let target = (used + ROOM).max(largest(&read("cgroup.procs")?) + LEAD);
    let (wait, mut go) = std::io::pipe().context("cannot make a pipe")?;
    let (mut ready, tell) = std::io::pipe().context("cannot make a pipe")?;
    let child = fork_run(ForkOptions::default(), move || use_up(target + BEYOND, wait, tell))
        .context("cannot start a process")?;
    // Not before it has made itself the first to go: the host would choose another one.
    if ready.read_exact(&mut [0]).is_err() {
        let _ = child.signal(9);
        bail!("the process that was to use up memory ended with {:?}", child.wait());
    }
    let changed = Changed { file: group.join(limit), before };
    if let Err(error) = std::fs::write(&changed.file, target.to_string()) {
        let _ = child.signal(9);
        let _ = child.wait();
        return Err(error).with_context(|| format!("cannot write {target} to {}", changed.file.display()));
    }
    // If it is gone, the end of it says so.
    let _ = go.write_all(&[1]);
    drop(go);
    match child.wait().context("cannot wait for a process")? {
        Exit::Signal(9) => Ok(()),
        other => bail!("a process that used up the memory of {} ended with {other:?}", group.display()),
    }
}

/// The size of the largest of some processes, bytes.
fn largest(pids: &str) -> u64 {
    let pages = |pid: &str| -> Option<u64> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", pid.trim())).ok()?;
        statm.split(' ').nth(1)?.parse().ok()
    };
    pids.lines().filter_map(pages).max().unwrap_or(0) * hostsys::PAGE
}

/// The child.
fn use_up(bytes: u64, mut wait: std::io::PipeReader, mut tell: std::io::PipeWriter) -> i32 {
    if std::fs::write("/proc/self/oom_score_adj", "1000").is_err() {
        return 1;
    }
    if tell.write_all(&[1]).is_err() || wait.read_exact(&mut [0]).is_err() {
        return 2;
    }
    let mut used = Vec::new();
    for _ in 0..bytes >> 20 {
        used.push(vec![1u8; 1 << 20]);
        std::hint::black_box(&used);
    }
    0
}
