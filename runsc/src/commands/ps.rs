//! `runsc ps`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::{Container, Context, Status, print, table};
use crate::cli::{PsArgs, TableOrJson};

pub fn ps(context: &Context, args: &PsArgs) -> Result<u8> {
    let container = Container::open(context, &args.id)?;
    let status = container.status();
    if args.format == TableOrJson::Json {
        // Engines look these numbers up on the host. A guest's processes are none of the host's;
        // the one that stands for the container is the sentry.
        let line = match container.pid(status) {
            0 => "null\n".to_owned(),
            pid => format!("[{pid}]\n"),
        };
        print(&line)?;
        return Ok(0);
    }
    let processes = match status {
        Status::Running | Status::Paused => container.client()?.processes()?,
        Status::Creating | Status::Created | Status::Stopped => Vec::new(),
    };
    let header = ["UID", "PID", "PPID", "S", "STIME", "TTY", "TIME", "CMD"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(processes.iter().map(|p| {
        let start = UNIX_EPOCH + Duration::from_secs(p.start_time);
        vec![
            p.uid.to_string(),
            p.pid.to_string(),
            p.ppid.to_string(),
            p.state.to_string(),
            start_column(start, SystemTime::now()),
            if p.tty.is_empty() { "?".to_owned() } else { p.tty.clone() },
            time_column(p.cpu_ms),
            p.command.clone(),
        ]
    }));
    print(&table(&rows))?;
    Ok(0)
}

/// The time of day, or the date if that was another day (UTC).
fn start_column(start: SystemTime, now: SystemTime) -> String {
    let (start, now) = (crate::log::timestamp(start, false), crate::log::timestamp(now, false));
    let part = |from: usize, to: usize| start.get(from..to).unwrap_or_default().to_owned();
    if start.get(..10) == now.get(..10) { part(11, 16) } else { part(5, 10) }
}

fn time_column(ms: u64) -> String {
    let seconds = ms / 1000;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
