//! `runsc events`

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Container, Context, Status, print};
use crate::cgroup;
use crate::cli::EventsArgs;

/// How often it is looked for processes that were killed for lack of memory, and for the end.
const LOOK: Duration = Duration::from_millis(250);

pub fn events(context: &Context, args: &EventsArgs) -> Result<u8> {
    let interval = parse_duration(&args.interval)?;
    let container = Container::open(context, &args.id)?;
    if container.status() == Status::Stopped {
        bail!("container with id {} is not running", args.id);
    }
    let mut kills = cgroup::oom_kills(&container.record.cgroups);
    let mut tell_kills = || -> Result<()> {
        let now = cgroup::oom_kills(&container.record.cgroups);
        while kills < now {
            kills += 1;
            print(&format!("{}\n", serde_json::json!({"type": "oom", "id": container.record.id})))?;
        }
        Ok(())
    };
    loop {
        match line(&container) {
            Ok(line) => print(&format!("{line}\n"))?,
            // It has ended meanwhile.
            Err(_) if container.status() == Status::Stopped => return tell_kills().map(|()| 0),
            Err(error) => return Err(error),
        }
        if args.stats {
            return Ok(0);
        }
        let next = Instant::now() + interval;
        loop {
            tell_kills()?;
            if container.status() == Status::Stopped {
                // Of the end itself.
                tell_kills()?;
                return Ok(0);
            }
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

/// One line: what the host's cgroup counts, or where there is none, what the sentry counts.
fn line(container: &Container) -> Result<serde_json::Value> {
    let stats = container.client()?.stats()?;
    let mut data = cgroup::statistics(&container.record.cgroups);
    // The group of a container that has joined a sandbox has only its stand-in process.
    if container.record.cgroups.is_empty() || container.record.sandbox.is_some() {
        data["cpu"]["usage"] = serde_json::json!({
            "total": stats.cpu_user_ns + stats.cpu_system_ns,
            "kernel": stats.cpu_system_ns,
            "user": stats.cpu_user_ns
        });
        data["memory"]["usage"]["usage"] = (stats.memory_anonymous + stats.memory_files).into();
        if stats.memory_peak > 0 {
            data["memory"]["usage"]["max"] = stats.memory_peak.into();
        }
    }
    // Guest processes, not the host threads that carry them.
    data["pids"]["current"] = stats.processes.into();
    Ok(serde_json::json!({"type": "stats", "id": container.record.id, "data": data}))
}

/// Go's way: a number with ms, s, m or h.
fn parse_duration(text: &str) -> Result<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => bail!("--interval: {text:?} is no time; write 500ms, 5s or 1m"),
    };
    let number: f64 = number.parse().with_context(|| format!("--interval: {text:?} is no time"))?;
    let time = Duration::try_from_secs_f64(number * seconds).context("--interval: too long")?;
    if time.is_zero() {
        bail!("--interval: must be longer than 0");
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(parse_duration("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("20ms").unwrap(), Duration::from_millis(20));
        for bad in ["", "5", "s", "0s", "-1s", "1d", "1e99h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
