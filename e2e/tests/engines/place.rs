//! Where the engines of one run live: a network namespace, directories, images, and the daemons, each
//! started when the first case asks for it. `cases/prelude.sh` has the shell's side of it.

use e2e::{Case, sweep};
use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

/// Seconds that a case may take with one runtime.
const LIMIT: u32 = 150;

/// Seconds that the start of an engine may take: images are made then.
const START_LIMIT: u32 = 600;

/// The exit status of a case that lacks something, after it has said what on its last line.
const SKIPPED: i32 = 77;

/// How a case went.
pub enum Outcome {
    Passed,
    /// Why it could not be tried.
    Skipped(String),
    /// Its output.
    Failed(String),
}

/// How an engine's start went, when it has been tried.
type Started = Arc<OnceLock<Result<(), String>>>;

pub struct Place {
    base: PathBuf,
    runtimes: Vec<String>,
    /// Who makes cgroups: the engines (`cgroupfs`) or `systemd`.
    cgroups: String,
    /// Times as long as usual may everything take.
    patience: u32,
    /// The directory with everything in it, and the process that holds the network namespace.
    ready: OnceLock<Result<u32, String>>,
    engines: Mutex<HashMap<String, Started>>,
}

impl Place {
    pub fn new() -> Place {
        let runtimes = std::env::var("E2E_RUNTIMES").unwrap_or_else(|_| "runc runsc".to_owned());
        Place {
            base: Path::new(sweep::BASE).join(std::process::id().to_string()),
            runtimes: runtimes.split_ascii_whitespace().map(str::to_owned).collect(),
            cgroups: std::env::var("E2E_CGROUPS").unwrap_or_else(|_| "cgroupfs".to_owned()),
            patience: std::env::var("E2E_PATIENCE").map_or(1, |n| n.parse().expect("E2E_PATIENCE: a number")),
            ready: OnceLock::new(),
            engines: Mutex::new(HashMap::new()),
        }
    }

    pub fn runtimes(&self) -> impl Iterator<Item = &str> {
        self.runtimes.iter().map(String::as_str)
    }

    /// Runs a case. `suffix` makes the name of what it uses another one.
    pub fn run(&self, case: &Case, runtime: &str, suffix: &str) -> Outcome {
        self.try_run(case, runtime, suffix).unwrap_or_else(Outcome::Failed)
    }

    fn try_run(&self, case: &Case, runtime: &str, suffix: &str) -> Result<Outcome, String> {
        self.engine(&case.engine)?;
        let script = format!("{}\n{}", prelude(), case.script);
        let name = format!("{}-{runtime}{suffix}", case.name);
        let output = self
            .shell(LIMIT, &script, &[("RT", runtime), ("N", &name), ("ENGINE", &case.engine)])?
            .output()
            .map_err(|e| format!("bash: {e}"))?;
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if std::env::var_os("E2E_KEEP").is_some() {
            eprintln!("--- {name}: {}\n{text}", output.status);
        }
        let why = text.lines().rev().find_map(|line| line.strip_prefix("skipped: "));
        match (output.status.code(), why) {
            (Some(0), _) => Ok(Outcome::Passed),
            (Some(SKIPPED), Some(why)) => Ok(Outcome::Skipped(why.to_owned())),
            _ => Err(format!("{}\n{}", output.status, end_of(&text))),
        }
    }

    fn prepare(&self) -> Result<u32, String> {
        let text = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o755).create(&self.base).map_err(|e| text("base", &e))?;
        if !sweep::is_ours(Path::new(sweep::BASE)) {
            return Err(format!("{} is not root's alone", sweep::BASE));
        }
        let runsc = std::env::var_os("RUNSC").map_or_else(built, PathBuf::from);
        // Under this name: Podman treats runtimes by it.
        std::fs::copy(&runsc, self.base.join("runsc")).map_err(|e| text(&runsc.display().to_string(), &e))?;
        let holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "ip link set lo up; exec sleep 86400"])
            .env(sweep::MARK, std::process::id().to_string())
            .spawn()
            .map_err(|e| text("unshare", &e))?;
        Ok(holder.id())
    }

    /// A shell in the run's network namespace.
    fn shell(&self, limit: u32, script: &str, env: &[(&str, &str)]) -> Result<Command, String> {
        let holder = self.ready.get_or_init(|| self.prepare()).clone()?;
        let run = std::process::id();
        let mut command = Command::new("timeout");
        command.args(["-k", "5", &(limit * self.patience).to_string(), "nsenter"]);
        command.arg(format!("--net=/proc/{holder}/ns/net"));
        command.args(["bash", "-eu", "-o", "pipefail", "-c", script]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin");
        command.env("HOME", &self.base).env("BASE", &self.base).env("LC_ALL", "C");
        let parent = match self.cgroups.as_str() {
            "systemd" => sweep::slice_name(run),
            _ => format!("/{}", sweep::cgroup_name(run)),
        };
        command.env("CGROUPS", &self.cgroups).env("PARENT", parent);
        command.env("PATIENCE", self.patience.to_string());
        command.env("CASES", Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"));
        // Kept for the next run: what takes long to make.
        command.env("STORE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e"));
        command.env(sweep::MARK, run.to_string()).envs(env.iter().copied());
        for name in ["E2E_PODS", "E2E_SEED"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.stdin(std::process::Stdio::null());
        Ok(command)
    }

    /// Starts an engine unless it has been: the function `start_ENGINE` of the prelude. Others wait for it.
    fn engine(&self, name: &str) -> Result<(), String> {
        let started = {
            let mut engines = self.engines.lock().map_err(|_| "another case has panicked".to_owned())?;
            Arc::clone(engines.entry(name.to_owned()).or_default())
        };
        started.get_or_init(|| self.start(name)).clone()
    }

    fn start(&self, name: &str) -> Result<(), String> {
        let log = self.base.join(format!("{name}.start"));
        let script = format!("{}\nexec > {} 2>&1\nset -x\nstart_{name}", prelude(), log.display());
        let env = [("RT", "runc"), ("N", name), ("ENGINE", name)];
        match self.shell(START_LIMIT, &script, &env)?.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                Err(format!("cannot start {name}: {status}\n{}", end_of(&log)))
            }
            Err(error) => Err(format!("bash: {error}")),
        }
    }
}

/// The last lines, where the reason of a failure is.
fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn prelude() -> String {
    crate::read("cases/prelude.sh")
}

/// runsc as cargo built it beside this test.
fn built() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).map(|d| d.join("runsc")).unwrap_or_default()
}
