//! Runs the micro-benchmarks and real programs natively and in the sandbox in alternation, and the start-up bench beside
//! other runtimes; prints tables and writes JSON.
//!
//! ```text
//! benches run      [--rounds N] [--platform P,…] [--only op,…] [--ms N] [--json FILE]
//! benches programs [--rounds N] [--platform P,…] [--only name,…] [--json FILE]
//! benches startup  [--rounds N] [--platform P] [--json FILE]
//! benches network  [--rounds N] [--platform P] [--only name,…] [--json FILE]
//! benches docker   [--rounds N] [--platform P] [--json FILE]
//! benches all      [...]
//! ```
//! `RUNSC` names the runsc to measure; otherwise it is the one beside this program.

mod driver;

use driver::{docker, micro, network, report, startup};
use std::path::PathBuf;

/// What the command line asks for.
pub struct Options {
    /// Rounds of alternation.
    pub rounds: usize,
    /// `--platform` for runsc, each in a column of its own.
    pub platforms: Vec<String>,
    /// Operations, programs or measures, comma separated; all if absent.
    pub only: Option<String>,
    /// Milliseconds of one batch in the guest.
    pub batch_ms: u64,
    /// The runsc to measure.
    pub runsc: PathBuf,
    /// Where this program and its guests lie.
    pub here: PathBuf,
}

impl Options {
    /// The platform of the benches that measure one: the first that is named.
    pub fn platform(&self) -> &str {
        self.platforms.first().map_or("systrap", String::as_str)
    }

    /// Whether something of that name is to be measured.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.split(',').any(|n| n == name))
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    let here = std::env::current_exe().ok().and_then(|p| p.parent().map(PathBuf::from)).unwrap_or_default();
    let options = Options {
        rounds: value("--rounds").and_then(|v| v.parse().ok()).unwrap_or(5),
        platforms: value("--platform")
            .as_deref()
            .unwrap_or("systrap")
            .split(',')
            .map(str::to_owned)
            .collect(),
        only: value("--only"),
        batch_ms: value("--ms").and_then(|v| v.parse().ok()).unwrap_or(20),
        runsc: std::env::var_os("RUNSC").map(PathBuf::from).unwrap_or_else(|| here.join("runsc")),
        here,
    };
    let mut json = serde_json::Map::new();
    let what = args.get(1).map(String::as_str).unwrap_or("help");
    if !["run", "programs", "startup", "network", "docker", "all"].contains(&what) {
        eprintln!(
            "usage: benches run|programs|startup|network|docker|all [--rounds N] [--platform P,…] [--only name,…] [--ms N] [--json FILE]"
        );
        std::process::exit(2);
    }
    let mut complete = true;
    if ["run", "all"].contains(&what) {
        let result = micro::run(&options);
        complete &= report::micro(&result, "micro", &mut json);
    }
    if ["programs", "all"].contains(&what) {
        let result = micro::run_programs(&options);
        complete &= report::micro(&result, "programs", &mut json);
    }
    if ["startup", "all"].contains(&what) {
        let result = startup::run(&options);
        complete &= report::startup(&result, &mut json);
    }
    if ["network", "all"].contains(&what) {
        let result = network::run(&options);
        complete &= report::network(&options, &result, &mut json);
    }
    if ["docker", "all"].contains(&what) {
        complete &= report::docker(&docker::run(&options), &mut json);
    }
    if let Some(file) = value("--json") {
        let text = serde_json::to_string_pretty(&json).unwrap_or_default();
        if let Err(error) = std::fs::write(&file, text + "\n") {
            eprintln!("benches: writing {file}: {error}");
            std::process::exit(1);
        }
    }
    if !complete {
        std::process::exit(1);
    }
}
