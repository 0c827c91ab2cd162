//! One file for each command.

mod completion;
mod create;
mod delete;
mod do_;
mod events;
mod exec;
mod features;
pub mod help;
mod install;
mod kill;
mod list;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod update;
mod wait;

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, bail};
use sentry::control::protocol::ContainerStatus;

use crate::cli::{Command, Global};
use crate::control::Client;
use crate::error::Missing;
use crate::state::{Directory, Record, Root};

/// The version of the runtime specification that is implemented.
pub const OCI_VERSION: &str = "1.2.0";

/// What every command gets.
#[derive(Debug)]
pub struct Context {
    pub global: Global,
    /// Descriptors of --preserve-fds.
    pub preserved: Vec<OwnedFd>,
}

/// Runs a command; its value is the exit status.
pub fn dispatch(context: Context, command: Command) -> Result<u8> {
    match command {
        Command::Run(args) => run::run(context, &args),
        Command::Create(args) => create::create(context, &args),
        Command::Start(args) => start::start(&context, &args),
        Command::Exec(args) => exec::exec(context, &args),
        Command::Kill(args) => kill::kill(&context, &args),
        Command::Delete(args) => delete::delete(&context, &args),
        Command::State(args) => state::state(&context, &args),
        Command::List(args) => list::list(&context, &args),
        Command::Ps(args) => ps::ps(&context, &args),
        Command::Wait(args) => wait::wait(&context, &args),
        Command::Spec(args) => spec::spec(&args),
        Command::Do(args) => do_::run(context, &args),
        Command::Update(args) => update::update(&context, &args),
        Command::Events(args) => events::events(&context, &args),
        Command::Pause(args) => pause::pause(&context, &args),
        Command::Resume(args) => pause::resume(&context, &args),
        Command::Checkpoint(_) => bail!("checkpoint is not supported: a sandbox cannot save its state"),
        Command::Restore(_) => bail!("restore is not supported: a sandbox cannot save its state"),
        Command::Features => features::features(),
        Command::Install(args) => install::install(&args),
        Command::Uninstall(args) => install::uninstall(&args),
        Command::Completion(args) => completion::completion(&args),
        Command::Man(args) => completion::man(&args),
        Command::Help(args) => help::help(&args),
    }
}

/// A container as `state` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Another command is setting it up.
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// An existing container.
#[derive(Debug)]
pub struct Container {
    pub directory: Directory,
    pub record: Record,
}

impl Container {
    pub fn open(context: &Context, id: &str) -> Result<Container> {
        let directory = Root::new(context.global.root.as_deref())?.open(id)?;
        match directory.read()? {
            Some(record) => Ok(Container { directory, record }),
            // Its creation has only just begun, or was killed at that point.
            None => Err(Missing { id: id.to_owned() }.into()),
        }
    }

    pub fn client(&self) -> Result<Client> {
        Client::connect(&self.directory, &self.record.id).context("cannot reach the sandbox")
    }

    pub fn status(&self) -> Status {
        let Some(sentry) = self.record.sentry else {
            return if self.directory.is_busy() { Status::Creating } else { Status::Stopped };
        };
        if !sentry.is_alive() {
            return Status::Stopped;
        }
        match self.client().and_then(|client| client.status()) {
            Ok(ContainerStatus::Created) => Status::Created,
            Ok(ContainerStatus::Running) => Status::Running,
            Ok(ContainerStatus::Paused) => Status::Paused,
            Ok(ContainerStatus::Stopped) => Status::Stopped,
            // It may have ended between the two questions.
            Err(_) if !sentry.is_alive() => Status::Stopped,
            Err(error) => {
                tracing::debug!("no status from the sandbox: {error:#}");
                Status::Running
            }
        }
    }

    /// Its host process id, 0 once it has ended.
    pub fn pid(&self, status: Status) -> i32 {
        match (status, self.record.host_process()) {
            (Status::Stopped | Status::Creating, _) | (_, None) => 0,
            (_, Some(process)) => process.pid,
        }
    }

    /// The document of `state` and, in a list, of `list`.
    pub fn document(&self) -> serde_json::Value {
        let status = self.status();
        let record = &self.record;
        let mut document = serde_json::json!({
            "ociVersion": record.oci_version,
            "id": record.id,
            "pid": self.pid(status),
            "status": status.name(),
            "bundle": record.bundle,
            "rootfs": record.rootfs,
            "created": record.created,
        });
        if !record.annotations.is_empty() {
            document["annotations"] = serde_json::json!(record.annotations);
        }
        document["owner"] = record.owner.clone().into();
        document
    }
}

/// A number, or a name with or without `SIG`.
pub fn parse_signal(text: &str) -> Result<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    /// SIGRTMIN and SIGRTMAX as glibc gives them to programs.
    const REALTIME: (i32, i32) = (34, 64);
    let unknown = || format!("unknown signal {text:?}");
    if let Ok(number) = text.parse::<i32>() {
        return (0..=64).contains(&number).then_some(number).with_context(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|n| *n == name) {
        return Ok(i32::try_from(index)? + 1);
    }
    let number = match name {
        "IOT" => Some(6),
        "CLD" => Some(17),
        "POLL" => Some(29),
        "RTMIN" => Some(REALTIME.0),
        "RTMAX" => Some(REALTIME.1),
        _ => {
            let above = name.strip_prefix("RTMIN+").and_then(|n| n.parse::<i32>().ok());
            let below = name.strip_prefix("RTMAX-").and_then(|n| n.parse::<i32>().ok());
            above.map(|n| REALTIME.0 + n).or(below.map(|n| REALTIME.1 - n))
        }
    };
    number.filter(|n| (REALTIME.0..=REALTIME.1).contains(n) || matches!(n, 6 | 17 | 29)).with_context(unknown)
}

/// Prints to standard output; a reader that has gone away is no failure.
pub fn print(text: &str) -> Result<()> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

/// Rows with their columns aligned, as runc's tables are.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|c| rows.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (text, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{text:<w$}   ", w = *width));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("0", 0),
            ("SYS", 31),
            ("SIGRTMIN+1", 35),
            ("RTMAX-14", 50),
            ("RTMIN", 34),
            ("64", 64),
            ("IOT", 6),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "65", "-1", "KILLL", "RTMIN+31", "RTMIN+-1", "SIG"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tables() {
        let rows = [vec!["ID".into(), "PID".into()], vec!["long".into(), "1".into()]];
        assert_eq!(table(&rows), "ID     PID\nlong   1\n");
    }
}
