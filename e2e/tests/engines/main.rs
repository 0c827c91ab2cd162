//! Docker, containerd and Podman with runsc. Each case of `cases/` runs with runc first, and then with
//! runsc: what fails with runc is no test of runsc. Known exceptions stand in `exceptions.txt`.
//!
//! All engines are started here, in a network namespace and with directories of their own, and are
//! gone in the end. Needs root and the engines' packages; `.ci/run e2e` installs them.
//! Environment: `RUNSC` (the binary), `E2E_RUNTIMES` (default `runc runsc`), `E2E_KEEP` (show each output),
//! `E2E_PODS` (how many pods `cri::many-pods` makes in a row, default 50), `E2E_SEED` (which moments and victims the cases of
//! chaos choose), `E2E_STRICT` (what a case lacks is a failure; otherwise the case is skipped and says why), `E2E_CGROUPS`
//! (`systemd`: engines and runtimes have it make their cgroups; default `cgroupfs`), `E2E_PATIENCE` (a number of times that all
//! limits of time are longer, for a slow machine).

mod place;

use e2e::{Case, sweep};
use libtest_mimic::{Arguments, Failed, Trial};
use place::{Outcome, Place};
use std::path::Path;
use std::sync::{Arc, RwLock};

/// Cases that run side by side: they mostly wait.
const THREADS: usize = 3;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder cases")
        .flatten()
        .filter_map(|e| e.file_name().to_str().and_then(|n| n.strip_suffix(".sh")).map(str::to_owned))
        .filter(|n| n != "prelude")
        .collect();
    // What takes longest comes first.
    names.sort_by_key(|n| (!n.starts_with("services"), n.clone()));
    let parse = |n: &String| e2e::parse(n, &read(&format!("cases/{n}.sh"))).unwrap_or_else(|e| panic!("{e}"));
    let cases: Vec<Case> = names.iter().flat_map(parse).collect();
    for (i, case) in cases.iter().enumerate() {
        let twice = cases[..i].iter().any(|c| c.engine == case.engine && c.name == case.name);
        assert!(!twice, "two cases {}::{}", case.engine, case.name);
    }
    cases
}

fn one(place: &Place, case: &Case, exceptions: &[(String, String, String)]) -> Result<(), Failed> {
    let full = format!("{}::{}", case.engine, case.name);
    let strict = std::env::var_os("E2E_STRICT").is_some();
    for runtime in place.runtimes() {
        if runtime == "runc" && case.runsc_only {
            continue;
        }
        let excused = exceptions.iter().find(|(c, r, _)| *c == full && r == runtime);
        let mut outcome = place.run(case, runtime, "");
        if let (Outcome::Failed(output), None) = (&outcome, excused) {
            // Some wait for daemons that have their own hurry. It is not kept secret.
            eprintln!("once more: {full} failed with {runtime}\n{output}");
            outcome = place.run(case, runtime, "-2");
        }
        match (outcome, excused) {
            (Outcome::Passed, None) | (Outcome::Failed(_), Some(_)) => {}
            (Outcome::Passed, Some(_)) => {
                return Err(format!("passes with {runtime}: take it out of exceptions.txt").into());
            }
            (Outcome::Failed(output), None) => return Err(format!("fails with {runtime}\n{output}").into()),
            (Outcome::Skipped(why), _) if strict => {
                return Err(format!("cannot be tried with {runtime} here: {why}").into());
            }
            (Outcome::Skipped(why), _) => eprintln!("skipped: {full} with {runtime}: {why}"),
        }
    }
    Ok(())
}

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let cases = cases();
    let exceptions = e2e::exceptions(&read("exceptions.txt")).unwrap_or_else(|e| panic!("{e}"));
    for (case, _, _) in &exceptions {
        assert!(cases.iter().any(|c| format!("{}::{}", c.engine, c.name) == *case), "no case {case}");
    }
    let listing = arguments.list;
    let place = Arc::new(Place::new());
    let turns = Arc::new(RwLock::new(()));
    let exceptions = Arc::new(exceptions);
    let trials = cases
        .into_iter()
        .map(|case| {
            let (place, turns, exceptions) =
                (Arc::clone(&place), Arc::clone(&turns), Arc::clone(&exceptions));
            Trial::test(format!("{}::{}", case.engine, case.name), move || {
                if case.alone {
                    let _turn = turns.write();
                    one(&place, &case, &exceptions)
                } else {
                    let _turn = turns.read();
                    one(&place, &case, &exceptions)
                }
            })
        })
        .collect();
    if !listing {
        sweep::older_runs();
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !listing {
        sweep::run_over(std::process::id());
    }
    conclusion.exit();
}
