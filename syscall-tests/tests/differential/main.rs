//! Runs every case of the guest on the host kernel and in the sandbox and compares what it said.
//!
//! Each case is one test, `PLATFORM::SYSCALL/WHAT`. Cases run in batches, many in one sandbox, when the
//! first test that needs one is asked for. Environment: `RUNSC` (binary; built when unset),
//! `SYSCALL_TESTS_PLATFORMS` (comma separated, default `ptrace,systrap,hostnet`; `hostnet` is systrap with `--network=host`, for
//! the cases about internet sockets; `native` compares the host with itself, which finds facts that change from run to run),
//! `SYSCALL_TESTS_JOBS`.

mod batch;
mod expectations;
mod sockets;

use batch::{Batch, HOSTNET, Outcome, Runner};
use expectations::Expectations;
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, OnceLock};

const GUEST: &str = env!("CARGO_BIN_EXE_guest");

/// A case as `guest --map` names it.
#[derive(Clone)]
struct CaseName {
    name: String,
    family: String,
}

fn cases() -> Vec<CaseName> {
    let map = Command::new(GUEST).arg("--map").output().expect("the guest runs");
    let text = String::from_utf8(map.stdout).expect("the map is text");
    text.lines()
        .map(|line| {
            let mut columns = line.split('\t');
            let mut next = || columns.next().unwrap_or_default().to_owned();
            CaseName { name: next(), family: next() }
        })
        .collect()
}

/// The families whose sockets are the host's with `--network=host`.
const INTERNET: [&str; 12] = [
    "controls",
    "diag",
    "filters",
    "headers",
    "net",
    "paths",
    "raw",
    "readiness",
    "sockopts",
    "tcp",
    "transfer",
    "udp",
];

impl CaseName {
    /// Whether the case runs there: the sentry's own files and sockets are the same in every mode of the network.
    fn runs_on(&self, platform: &str) -> bool {
        platform != HOSTNET || INTERNET.contains(&self.family.as_str())
    }
}

/// What both halves said, computed once when the first test needs it.
struct Results {
    native: OnceLock<BTreeMap<String, Outcome>>,
    sandboxed: BTreeMap<String, OnceLock<BTreeMap<String, Outcome>>>,
    wanted: BTreeMap<String, Vec<CaseName>>,
}

impl Results {
    fn native(&self) -> &BTreeMap<String, Outcome> {
        self.native.get_or_init(|| {
            let mut all: Vec<CaseName> = Vec::new();
            for case in self.wanted.values().flatten() {
                if !all.iter().any(|c| c.name == case.name) {
                    all.push(case.clone());
                }
            }
            Runner::Native.run(GUEST, &batches(&all))
        })
    }

    fn of(&self, platform: &str) -> &BTreeMap<String, Outcome> {
        self.sandboxed[platform]
            .get_or_init(|| Runner::named(platform).run(GUEST, &batches(&self.wanted[platform])))
    }
}

/// Cuts the cases into batches of a few dozen, families kept together.
fn batches(cases: &[CaseName]) -> Vec<Batch> {
    const SIZE: usize = 40;
    let mut list: Vec<Batch> = Vec::new();
    let mut sorted = cases.to_vec();
    sorted.sort_by(|a, b| a.family.cmp(&b.family));
    for chunk in sorted.chunks(SIZE) {
        list.push(Batch { cases: chunk.iter().map(|c| c.name.clone()).collect() });
    }
    list
}

fn compare(results: &Results, expectations: &Expectations, platform: &str, case: &str) -> Result<(), Failed> {
    let missing = Outcome::missing();
    let native = results.native().get(case).unwrap_or(&missing);
    if let Some(why) = native.broken() {
        return Err(format!("the case does not hold on the host itself: {why}\n{}", native.text()).into());
    }
    let sandboxed = results.of(platform).get(case).unwrap_or(&missing);
    let difference = native.difference(sandboxed);
    match (difference, expectations.of(platform, case)) {
        (None, None) => Ok(()),
        (Some(difference), None) => Err(difference.into()),
        (Some(_), Some(_)) => Ok(()),
        (None, Some(expected)) if expected.exact && !expected.reason.starts_with("flaky:") => Err(format!(
            "passes, but expectations.txt line {} says it fails ({}): remove the line",
            expected.line, expected.reason
        )
        .into()),
        (None, Some(_)) => Ok(()),
    }
}

/// A line with a pattern must still be needed: some case that it covers must fail.
fn pattern_still_needed(
    results: &Results,
    platform: &str,
    line: usize,
    covered: &[String],
) -> Result<(), Failed> {
    let missing = Outcome::missing();
    let sandboxed = results.of(platform);
    let fails = |case: &String| {
        let native = results.native().get(case).unwrap_or(&missing);
        native.difference(sandboxed.get(case).unwrap_or(&missing)).is_some()
    };
    if covered.iter().any(fails) {
        return Ok(());
    }
    Err(format!("no case that expectations.txt line {line} covers fails any more: remove the line").into())
}

fn main() {
    let args = Arguments::from_args();
    let platforms =
        std::env::var("SYSCALL_TESTS_PLATFORMS").unwrap_or_else(|_| "ptrace,systrap,hostnet".to_owned());
    let platforms: Vec<String> = platforms.split(',').map(str::to_owned).collect();
    let cases = cases();
    let expectations = Arc::new(Expectations::load());
    expectations.check(&cases.iter().map(|c| c.name.as_str()).collect::<Vec<_>>());

    let wanted = |name: &str| {
        let hit = |f: &String| if args.exact { name == f } else { name.contains(f.as_str()) };
        args.filter.as_ref().is_none_or(hit) && !args.skip.iter().any(hit)
    };
    let mut selection = BTreeMap::new();
    for platform in &platforms {
        let here = |c: &&CaseName| c.runs_on(platform) && wanted(&format!("{platform}::{}", c.name));
        let list: Vec<CaseName> = cases.iter().filter(here).cloned().collect();
        selection.insert(platform.clone(), list);
    }
    let results = Arc::new(Results {
        native: OnceLock::new(),
        sandboxed: platforms.iter().map(|p| (p.clone(), OnceLock::new())).collect(),
        wanted: selection,
    });

    let mut trials = Vec::new();
    for platform in &platforms {
        for case in cases.iter().filter(|c| c.runs_on(platform)) {
            let (results, expectations) = (Arc::clone(&results), Arc::clone(&expectations));
            let (platform, case) = (platform.clone(), case.name.clone());
            trials.push(Trial::test(format!("{platform}::{case}"), move || {
                compare(&results, &expectations, &platform, &case)
            }));
        }
        for (line, pattern) in expectations.patterns(platform) {
            let covered: Vec<String> = results.wanted[platform]
                .iter()
                .map(|c| c.name.clone())
                .filter(|c| pattern.covers(c))
                .collect();
            if args.filter.is_none() && args.skip.is_empty() {
                let (results, platform) = (Arc::clone(&results), platform.clone());
                trials.push(Trial::test(format!("{platform}::expectations-line-{line}"), move || {
                    pattern_still_needed(&results, &platform, line, &covered)
                }));
            }
        }
    }
    if let Some(platform) = platforms.iter().find(|p| *p != "native" && *p != HOSTNET) {
        let platform = platform.clone();
        trials.push(Trial::test(format!("{platform}::docs/sockets"), move || sockets::check(&platform)));
    }
    libtest_mimic::run(&args, trials).exit();
}
