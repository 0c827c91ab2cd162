//! The guest of the micro-benchmarks: one static program that times single operations.
//!
//! `micro --dir DIR [--ms N] [--only a,b,…]` prints one JSON line for each operation with the
//! nanoseconds of one turn: the median and the least over several batches. `micro --list` names
//! them; `micro programs` does the same with real programs, in a directory of each. `micro exit` ends at once, `micro idle` waits for a signal: what start-up benches run. `micro echo` prints how
//! often a byte comes back over TCP on loopback in a second.
#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "a guest program: each operation is a raw system call or a plain libc call"
)]

mod operations;
mod programs;
mod timing;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    match args.get(1).map(String::as_str) {
        Some("exit") => return,
        Some("echo") => return println!("{:.0}", operations::echo_of_a_byte()),
        Some("idle") => {
            println!("idle");
            loop {
                unsafe { libc::pause() };
            }
        }
        Some("programs") if args.iter().any(|a| a == "--list") => {
            // Name, aim, and what is missing.
            let line =
                |p: &programs::Program| format!("{}\t{}\t{}", p.name, p.aim, p.missing().unwrap_or(""));
            return programs::ALL.iter().for_each(|p| println!("{}", line(p)));
        }
        Some("--list") => return operations::ALL.iter().for_each(|(name, _)| println!("{name}")),
        _ => {}
    }
    let directory = value("--dir").unwrap_or_else(|| "/tmp".to_owned());
    if std::env::set_current_dir(&directory).is_err() {
        eprintln!("micro: no directory {directory}");
        std::process::exit(2);
    }
    let batch_ms = value("--ms").and_then(|v| v.parse().ok()).unwrap_or(20);
    let only = value("--only").map(|v| v.split(',').map(str::to_owned).collect::<Vec<_>>());
    if args.get(1).is_some_and(|a| a == "programs") {
        return run_programs(only.as_deref().unwrap_or_default());
    }
    for (name, run) in operations::ALL {
        if only.as_ref().is_some_and(|list| !list.iter().any(|n| n == name)) {
            continue;
        }
        let timed = timing::Clock { batch_ns: batch_ms * 1_000_000 };
        let result = run(&timed);
        println!(
            "{{\"op\":\"{name}\",\"median_ns\":{:.1},\"least_ns\":{:.1},\"turns\":{}}}",
            result.median, result.least, result.turns
        );
    }
}

/// How often a program runs, beside the first time.
const TURNS: usize = 3;

fn run_programs(only: &[String]) {
    for program in programs::ALL.iter().filter(|p| only.iter().any(|n| n == p.name)) {
        let made =
            std::fs::create_dir_all(program.name).and_then(|()| std::env::set_current_dir(program.name));
        let result = made.map_err(|e| format!("{}: {e}", program.name)).and_then(|()| program.run(TURNS));
        match result {
            Ok(mut samples) => {
                samples.sort_by(f64::total_cmp);
                let (median, least) = (samples[samples.len() / 2], samples[0]);
                println!("{{\"op\":\"{}\",\"median_ns\":{median:.1},\"least_ns\":{least:.1}}}", program.name);
            }
            Err(error) => {
                eprintln!("micro: {error}");
                std::process::exit(1);
            }
        }
        let _ = std::env::set_current_dir("..");
        let _ = std::fs::remove_dir_all(program.name);
    }
}
