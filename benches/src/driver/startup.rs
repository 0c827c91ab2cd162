//! How long a container takes to start, and what an idle one costs in memory, for runsc and for every
//! other runtime that is installed.

use super::bundle;
use crate::Options;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The measurements of one runtime.
#[derive(Default)]
pub struct Runtime {
    /// What it is called in the table.
    pub name: String,
    /// Milliseconds of `run` of a program that ends at once.
    pub run_ms: Vec<f64>,
    /// Milliseconds of create, start and delete.
    pub cycle_ms: Vec<f64>,
    /// KiB of PSS, summed over all processes of an idle container.
    pub idle_kib: Vec<f64>,
    /// Clock ticks of processor time that all of them used in `IDLE` of doing nothing.
    pub idle_ticks: Vec<f64>,
    /// How many processes that were.
    pub idle_processes: usize,
    /// What went wrong, once each.
    pub troubles: Vec<String>,
}

/// How long an idle container is watched, in the last round.
const IDLE: Duration = Duration::from_secs(10);

struct Launcher {
    name: String,
    binary: PathBuf,
    options: Vec<String>,
}

/// Runs all rounds; in each the runtimes take turns.
pub fn run(options: &Options) -> Vec<Runtime> {
    let base = std::env::temp_dir().join(format!("benches-startup-{}", std::process::id()));
    let programs = [options.here.join("micro"), options.here.join("micro-true")];
    let bundles = bundle::make(&base, "true", &programs, &["/micro-true"])
        .and_then(|t| Ok((t, bundle::make(&base, "idle", &programs, &["/micro", "idle"])?)));
    let (short, idle) = match bundles {
        Ok(both) => both,
        Err(error) => {
            return vec![Runtime {
                troubles: vec![format!("making bundles: {error}")],
                ..Runtime::default()
            }];
        }
    };
    let launchers = launchers(options);
    let mut results: Vec<Runtime> =
        launchers.iter().map(|l| Runtime { name: l.name.clone(), ..Runtime::default() }).collect();
    for round in 0..options.rounds {
        eprintln!("start-up round {} of {}", round + 1, options.rounds);
        for (launcher, result) in launchers.iter().zip(&mut results) {
            let state = base.join(format!("state-{}", launcher.name));
            let id = format!("bench-{}-{round}", std::process::id());
            launcher.measure(&state, &short, &idle, &id, round + 1 == options.rounds, result);
        }
    }
    let _ = std::fs::remove_dir_all(&base);
    results
}

fn launchers(options: &Options) -> Vec<Launcher> {
    let ours = |platform: &String| Launcher {
        name: format!("runsc-{platform}"),
        binary: options.runsc.clone(),
        options: vec![format!("--platform={platform}"), "--network=none".to_owned()],
    };
    let mut list: Vec<Launcher> = options.platforms.iter().map(ours).collect();
    for name in ["runc", "crun"] {
        let found = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
        if let Some(binary) = found.iter().map(|d| Path::new(d).join(name)).find(|p| p.exists()) {
            list.push(Launcher { name: name.to_owned(), binary, options: Vec::new() });
        }
    }
    list
}

impl Launcher {
    fn command(&self, state: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(state).args(&self.options).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs a step; its wall time if it ended well. Errors go to a file, since a container that lives
    /// on would hold a pipe open.
    fn step(&self, state: &Path, args: &[&str], trouble: &mut Vec<String>) -> Option<f64> {
        let log = state.with_extension("stderr");
        let mut command = self.command(state, args);
        if let Ok(file) = std::fs::File::create(&log) {
            command.stderr(file);
        }
        let began = Instant::now();
        let status = command.status();
        let took = began.elapsed().as_secs_f64() * 1000.0;
        let why = match status {
            Ok(status) if status.success() => return Some(took),
            Ok(status) => {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                format!(
                    "{}: {status}: {}",
                    args.first().unwrap_or(&""),
                    text.lines().last().unwrap_or_default()
                )
            }
            Err(error) => format!("{}: {error}", self.binary.display()),
        };
        if !trouble.contains(&why) {
            trouble.push(why);
        }
        None
    }

    fn measure(&self, state: &Path, short: &Path, idle: &Path, id: &str, watch: bool, result: &mut Runtime) {
        let (short, idle) = (short.to_string_lossy(), idle.to_string_lossy());
        if let Some(ms) = self.step(state, &["run", "--bundle", &short, id], &mut result.troubles) {
            result.run_ms.push(ms);
        }
        let cycle = [
            self.step(state, &["create", "--bundle", &short, id], &mut result.troubles),
            self.step(state, &["start", id], &mut result.troubles),
        ];
        // The time that the program takes to end belongs to nobody.
        std::thread::sleep(Duration::from_millis(30));
        let deleted = self.step(state, &["delete", "--force", id], &mut result.troubles);
        if let ([Some(a), Some(b)], Some(c)) = (cycle, deleted) {
            result.cycle_ms.push(a + b + c);
        }
        let pid_file = state.with_extension("pid");
        let pid_path = pid_file.to_string_lossy();
        let started = self.step(
            state,
            &["create", "--pid-file", &pid_path, "--bundle", &idle, id],
            &mut result.troubles,
        );
        if started.is_some() && self.step(state, &["start", id], &mut result.troubles).is_some() {
            std::thread::sleep(Duration::from_millis(200));
            let pid =
                std::fs::read_to_string(&pid_file).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0);
            let processes = self.processes(pid);
            let total: f64 = processes.iter().filter_map(|p| pss_kib(*p)).sum();
            if total > 0.0 {
                result.idle_kib.push(total);
                result.idle_processes = processes.len();
            }
            if watch && !processes.is_empty() {
                let used = || processes.iter().filter_map(|p| ticks(*p)).sum::<u64>();
                let before = used();
                std::thread::sleep(IDLE);
                result.idle_ticks.push(used().saturating_sub(before) as f64);
            }
        }
        let _ = self.command(state, &["kill", id, "KILL"]).status();
        std::thread::sleep(Duration::from_millis(30));
        let _ = self.command(state, &["delete", "--force", id]).status();
        let _ = std::fs::remove_file(&pid_file);
        let _ = std::fs::remove_file(state.with_extension("stderr"));
    }

    /// All processes of the sandbox: the container's first with its descendants, and every process
    /// that still is this runtime (the sentry, the gofer, what waits for them).
    fn processes(&self, first: i32) -> BTreeSet<i32> {
        let own = std::fs::canonicalize(&self.binary).ok();
        let mut parents = BTreeMap::new();
        let mut set = BTreeSet::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat
                .rsplit(')')
                .next()
                .and_then(|s| s.split_whitespace().nth(1))
                .and_then(|p| p.parse::<i32>().ok());
            parents.insert(pid, parent.unwrap_or(0));
            if std::fs::read_link(entry.path().join("exe")).ok() == own && own.is_some() {
                set.insert(pid);
            }
        }
        if parents.contains_key(&first) {
            set.insert(first);
        }
        loop {
            let more: Vec<i32> = parents
                .iter()
                .filter(|(p, parent)| set.contains(parent) && !set.contains(p))
                .map(|(p, _)| *p)
                .collect();
            if more.is_empty() {
                return set;
            }
            set.extend(more);
        }
    }
}

fn pss_kib(pid: i32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|l| l.starts_with("Pss:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Processor time of a process so far, user and system.
fn ticks(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit(')').next()?.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}
