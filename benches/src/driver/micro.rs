//! Runs the guest program natively and in the sandbox, turn by turn, so that both see the same machine.

use crate::Options;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

/// Nanoseconds of each operation in each round.
pub type Samples = BTreeMap<String, Vec<f64>>;

/// An operation or a program.
pub struct Op {
    /// Its name.
    pub name: String,
    /// The ratio to native that is aimed at, if there is one.
    pub aim: Option<f64>,
}

/// All halves.
#[derive(Default)]
pub struct Micro {
    /// The operations in the guest's order.
    pub order: Vec<Op>,
    /// On the host kernel.
    pub native: Samples,
    /// In sandboxes, by platform, in the order asked for.
    pub sandboxes: Vec<(String, Samples)>,
    /// What is left out and why.
    pub skipped: Vec<String>,
    /// What went wrong, once each.
    pub troubles: Vec<String>,
}

/// Runs all rounds of the single operations.
pub fn run(options: &Options) -> Micro {
    run_kind(options, &[])
}

/// Runs all rounds of the real programs that are installed.
pub fn run_programs(options: &Options) -> Micro {
    run_kind(options, &["programs"])
}

/// `kind` comes first among the guest's arguments.
fn run_kind(options: &Options, kind: &[&str]) -> Micro {
    let guest = options.here.join("micro");
    let list = Command::new(&guest).args(kind).arg("--list").output();
    let sandboxes = options.platforms.iter().map(|p| (p.clone(), Samples::new())).collect();
    let mut result = Micro { sandboxes, ..Micro::default() };
    let list = match list {
        Ok(out) => String::from_utf8_lossy(&out.stdout).into_owned(),
        Err(error) => {
            result.troubles.push(format!("{}: {error}", guest.display()));
            return result;
        }
    };
    for line in list.lines() {
        // Name, aim, and what is missing; operations have only the first.
        let mut columns = line.split('\t');
        let name = columns.next().unwrap_or_default().to_owned();
        let aim = columns.next().and_then(|a| a.parse().ok());
        if !options.wants(&name) {
            continue;
        }
        match columns.next() {
            None | Some("") => result.order.push(Op { name, aim }),
            Some(missing) => result.skipped.push(format!("{name}: skipped: {missing} is not installed")),
        }
    }
    let state = std::env::temp_dir().join(format!("benches-{}", std::process::id()));
    let _ = std::fs::create_dir_all(&state);
    // Single operations are for the root file system, an overlay in the sandbox; what it holds in memory the host's half has there too.
    let guest_dir = if kind.is_empty() { "/var/tmp" } else { "/tmp" };
    let memory = std::path::Path::new("/dev/shm").join(format!("benches-{}", std::process::id()));
    let native_dir = if std::fs::create_dir_all(&memory).is_ok() { memory } else { state.clone() };
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        // One operation at a time, host and sandbox next to each other: what disturbs the machine
        // disturbs both.
        for Op { name: op, .. } in &result.order {
            let arguments = |directory: &str| {
                vec![
                    "--dir".to_owned(),
                    directory.to_owned(),
                    "--ms".into(),
                    options.batch_ms.to_string(),
                    "--only".into(),
                    op.clone(),
                ]
            };
            let mut native = Command::new(&guest);
            native.args(kind).args(arguments(&native_dir.to_string_lossy()));
            collect(native, &mut result.native, &mut result.troubles, "native");
            for (platform, samples) in &mut result.sandboxes {
                let mut sandbox = Command::new(&options.runsc);
                sandbox.arg("--root").arg(&state).arg(format!("--platform={platform}"));
                sandbox
                    .args(["--network=none", "do", "--"])
                    .arg(&guest)
                    .args(kind)
                    .args(arguments(guest_dir));
                collect(sandbox, samples, &mut result.troubles, platform);
            }
        }
    }
    let _ = std::fs::remove_dir_all(&state);
    let _ = std::fs::remove_dir_all(&native_dir);
    result
}

fn collect(mut command: Command, into: &mut Samples, troubles: &mut Vec<String>, who: &str) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return note(troubles, format!("{who}: {error}")),
    };
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        note(troubles, format!("{who}: {}: {}", output.status, text.lines().last().unwrap_or_default()));
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        if let (Some(op), Some(ns)) = (value["op"].as_str(), value["median_ns"].as_f64()) {
            into.entry(op.to_owned()).or_default().push(ns);
        }
    }
}

fn note(troubles: &mut Vec<String>, text: String) {
    if !troubles.contains(&text) {
        troubles.push(text);
    }
}
