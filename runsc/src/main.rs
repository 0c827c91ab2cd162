//! `runsc`: the command line of the sandbox and an OCI runtime.
//!
//! [`cli`] reads arguments, [`commands`] has a file for each command, [`spec`] reads the OCI
//! configuration, [`sandbox`] starts the two processes of a sandbox (copies of this one: see
//! there), [`state`] keeps what the next command has to know.

#![forbid(unsafe_code)]

mod cgroup;
mod cli;
mod commands;
mod console;
mod control;
mod dbus;
mod error;
mod goflags;
mod hooks;
mod log;
mod sandbox;
mod spec;
mod state;

use std::ffi::OsString;
use std::fs::File;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, FromArgMatches};
use cli::{Cli, Command};

fn main() -> ExitCode {
    // What a caller has left open is not for the programs that this one starts (hooks).
    let _ = hostsys::fd::set_cloexec_from(3);
    let mut program = Cli::command();
    program.build();
    let args: Vec<OsString> = goflags::rewrite(std::env::args_os(), &program);
    let parsed = program.try_get_matches_from_mut(&args).and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => run(cli),
        Err(error) => usage(&error, &args),
    }
}

fn run(cli: Cli) -> ExitCode {
    if cli.global.version {
        return finish(commands::help::version().map(|()| 0), 1);
    }
    let Some(command) = cli.command else {
        return finish(commands::help::help(&cli::HelpArgs { topic: None }), 1);
    };
    let preserve = match &command {
        Command::Run(args) => args.create.preserve_fds,
        Command::Create(args) => args.preserve_fds,
        Command::Exec(args) => args.preserve_fds,
        _ => 0,
    };
    let failure = if matches!(command, Command::Exec(_)) { 255 } else { 1 };
    let preserved = console::preserved_fds(preserve);
    let opened = open_log(cli.global.log.as_deref(), cli.global.log_format);
    log::init(cli.global.debug);
    let result = opened.and(preserved).and_then(|preserved| {
        commands::dispatch(commands::Context { global: cli.global, preserved }, command)
    });
    finish(result, failure)
}

fn finish(result: anyhow::Result<u8>, failure: u8) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            log::fatal(&format!("{error:#}"));
            ExitCode::from(failure)
        }
    }
}

fn open_log(path: Option<&std::path::Path>, format: log::Format) -> anyhow::Result<()> {
    let file = path
        .map(|path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("--log {}", path.display()))
        })
        .transpose()?;
    let plain = format == log::Format::Text && file.is_none();
    log::retarget(file, (!plain).then_some(format));
    Ok(())
}

/// Arguments that clap refuses, and --help.
fn usage(error: &clap::Error, args: &[OsString]) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // Engines want the reason in their log file; find it without a parser that has just failed.
    let after = |name: &str| {
        args.iter().enumerate().find_map(|(index, arg)| {
            let text = arg.to_str()?;
            match text.strip_prefix(name)?.strip_prefix('=') {
                Some(value) => Some(value.to_owned()),
                None if text == name => args.get(index + 1)?.to_str().map(str::to_owned),
                None => None,
            }
        })
    };
    let format = match after("--log-format").as_deref() {
        Some("json") => log::Format::Json,
        _ => log::Format::Text,
    };
    let _ = open_log(after("--log").map(std::path::PathBuf::from).as_deref(), format);
    if error.kind() == ErrorKind::InvalidSubcommand {
        let word = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string).unwrap_or_default();
        log::fatal(&format!("no command {word:?}; `runsc help` lists them"));
        return ExitCode::from(3);
    }
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("bad arguments");
    // "the following required arguments were not provided:" goes on in the next line.
    let reason = first.strip_prefix("error: ").unwrap_or(first);
    let reason = match lines.next() {
        Some(next) if reason.ends_with(':') => format!("{reason} {next}"),
        _ => reason.to_owned(),
    };
    log::fatal(&format!("{reason} (see --help)"));
    ExitCode::FAILURE
}
