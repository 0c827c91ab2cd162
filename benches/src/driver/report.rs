//! Tables for people, JSON for comparisons. Each function tells whether every number is there.

use super::docker::Docker;
use super::micro::Micro;
use super::network;
use super::startup::Runtime;
use super::{aims, median};
use crate::Options;
use serde_json::{Map, Value, json};

fn nanoseconds(ns: f64) -> String {
    if ns >= 1e6 {
        format!("{:.2} ms", ns / 1e6)
    } else if ns >= 1e3 {
        format!("{:.2} µs", ns / 1e3)
    } else {
        format!("{ns:.0} ns")
    }
}

/// The table of operations or programs; the aims are for systrap. Each platform has a column for its time and one for the ratio to native.
pub fn micro(result: &Micro, kind: &str, json: &mut Map<String, Value>) -> bool {
    print!("{:<20} {:>11}", "operation", "native");
    result.sandboxes.iter().for_each(|(platform, _)| print!(" {platform:>11} {:>8}", "ratio"));
    println!(" {:>8}", "aim");
    let mut rows = Map::new();
    let mut complete = !result.order.is_empty();
    let show = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), nanoseconds);
    for op in &result.order {
        let native = result.native.get(&op.name).and_then(|v| median(v));
        let mut row = Map::new();
        row.insert("native_ns".to_owned(), json!(native));
        row.insert("native_rounds".to_owned(), json!(result.native.get(&op.name)));
        let aim = op.aim.or_else(|| aims::of(&op.name));
        row.insert("aim".to_owned(), json!(aim));
        print!("{:<20} {:>11}", op.name, show(native));
        for (platform, samples) in &result.sandboxes {
            let sandbox = samples.get(&op.name).and_then(|v| median(v));
            let ratio = native.zip(sandbox).map(|(n, s)| s / n);
            let times = ratio.map_or_else(|| "-".to_owned(), |r| format!("{r:.2} x"));
            print!(" {:>11} {times:>8}", show(sandbox));
            complete &= ratio.is_some();
            let rounds = samples.get(&op.name);
            row.insert(platform.clone(), json!({"ns": sandbox, "ratio": ratio, "rounds": rounds}));
        }
        println!(" {:>8}", aim.map_or_else(String::new, |a| format!("{a} x")));
        rows.insert(op.name.clone(), Value::Object(row));
    }
    result.skipped.iter().for_each(|line| println!("- {line}"));
    for trouble in &result.troubles {
        println!("! {trouble}");
    }
    json.insert(kind.to_owned(), Value::Object(rows));
    complete
}

/// The table of network figures.
pub fn network(options: &Options, results: &[network::Runtime], json: &mut Map<String, Value>) -> bool {
    println!(
        "{:<18} {:<11} {:>11} {:>11} {:>11} {:>11} {:>11} {:>6}",
        "measure", "unit", "native", "runc", "runsc", "runc/native", "runsc/nat.", "aim"
    );
    let mut rows = Map::new();
    let mut complete = network::MEASURES.iter().any(|(name, ..)| options.wants(name));
    for (name, unit, aim) in network::MEASURES.into_iter().filter(|(name, ..)| options.wants(name)) {
        let figure = |runtime: &str| {
            results
                .iter()
                .find(|r| r.name == runtime)
                .and_then(|r| r.figures.get(name))
                .and_then(|v| median(v))
        };
        let (native, runc, runsc) = (figure("native"), figure("runc"), figure("runsc"));
        let share =
            |mine: Option<f64>| mine.zip(native.filter(|n| *n > 0.0)).map(|(mine, native)| mine / native);
        let show =
            |v: Option<f64>, digits: usize| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
        println!(
            "{name:<18} {unit:<11} {:>11} {:>11} {:>11} {:>11} {:>11} {:>6}",
            show(native, 1),
            show(runc, 1),
            show(runsc, 1),
            show(share(runc), 2),
            show(share(runsc), 2),
            if aim > 0.0 { format!("{aim:.2}") } else { "-".to_owned() }
        );
        complete &= native.is_some() && runsc.is_some();
        rows.insert(
            name.to_owned(),
            json!({"unit": unit, "native": native, "runc": runc, "runsc": runsc, "share": share(runsc), "aim": aim}),
        );
    }
    for result in results {
        for trouble in &result.troubles {
            println!("! {}: {trouble}", result.name);
        }
    }
    json.insert("network".to_owned(), Value::Object(rows));
    complete
}

/// The table of runtimes.
pub fn startup(results: &[Runtime], json: &mut Map<String, Value>) -> bool {
    println!(
        "{:<16} {:>12} {:>22} {:>14} {:>16} {:>10}",
        "runtime", "run true", "create+start+delete", "idle PSS", "ticks in 10 s", "processes"
    );
    let mut rows = Map::new();
    let mut complete = !results.is_empty();
    for result in results {
        let (run, cycle, idle) = (median(&result.run_ms), median(&result.cycle_ms), median(&result.idle_kib));
        let ms = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.1} ms"));
        let mib = idle.map_or_else(|| "-".to_owned(), |k| format!("{:.1} MiB", k / 1024.0));
        let ticks = median(&result.idle_ticks);
        let show = ticks.map_or_else(|| "-".to_owned(), |t| format!("{t:.0}"));
        println!(
            "{:<16} {:>12} {:>22} {mib:>14} {show:>16} {:>10}",
            result.name,
            ms(run),
            ms(cycle),
            result.idle_processes
        );
        for trouble in &result.troubles {
            println!("! {}: {trouble}", result.name);
        }
        // The others are there for comparison; what they cannot do on this host is only noted.
        complete &= !result.name.starts_with("runsc") || (run.is_some() && cycle.is_some() && idle.is_some());
        rows.insert(
            result.name.clone(),
            json!({
                "run_ms": run, "create_start_delete_ms": cycle, "idle_pss_kib": idle,
                "idle_ticks": ticks, "idle_processes": result.idle_processes, "run_rounds": result.run_ms,
            }),
        );
    }
    json.insert("startup".to_owned(), Value::Object(rows));
    complete
}

/// The table of `docker run`; an engine that is not there is no failure.
pub fn docker(result: &Docker, json: &mut Map<String, Value>) -> bool {
    if let Some(why) = &result.skipped {
        println!("docker run true: skipped: {why}");
        return true;
    }
    println!("{:<24} {:>12} {:>12} {:>9}", "docker run true", "runc", "runsc", "ratio");
    let mut rows = Map::new();
    let mut complete = !result.rows.is_empty();
    for (network, runc, runsc) in &result.rows {
        let (runc_ms, runsc_ms) = (median(runc), median(runsc));
        let ratio = runc_ms.zip(runsc_ms).map(|(c, s)| s / c);
        let show = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.1} ms"));
        let times = ratio.map_or_else(|| "-".to_owned(), |r| format!("{r:.2} x"));
        println!(
            "{:<24} {:>12} {:>12} {times:>9}",
            format!("--network={network}"),
            show(runc_ms),
            show(runsc_ms)
        );
        complete &= ratio.is_some();
        rows.insert(
            (*network).to_owned(),
            json!({
                "runc_ms": runc_ms, "runsc_ms": runsc_ms, "ratio": ratio,
                "runc_rounds": runc, "runsc_rounds": runsc,
            }),
        );
    }
    for trouble in &result.troubles {
        println!("! {trouble}");
    }
    json.insert("docker".to_owned(), Value::Object(rows));
    complete
}
