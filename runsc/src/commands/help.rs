//! `runsc help` and `runsc --version`

use anyhow::{Result, bail};
use clap::CommandFactory;

use super::{OCI_VERSION, print, table};
use crate::cli::{Cli, HelpArgs};

/// Names that --platform takes, each with what it means.
pub const PLATFORMS: [(&str, &str); 4] = [
    ("auto", "the best one that this host and this build have (the default)"),
    (
        "systrap",
        "guest code runs in processes whose system calls trap by seccomp; needs no rights and no special hardware",
    ),
    ("ptrace", "guest code runs in processes traced with PTRACE_SYSEMU; slow, works everywhere"),
    ("kvm", "guest code runs in a virtual machine; needs /dev/kvm"),
];

pub fn help(args: &HelpArgs) -> Result<u8> {
    let mut program = Cli::command();
    match args.topic.as_deref() {
        None => print(&program.render_long_help().to_string())?,
        Some("platforms") => {
            let mut text = String::from("How the code of a container is run (--platform=NAME):\n\n");
            let rows: Vec<Vec<String>> =
                PLATFORMS.iter().map(|(name, what)| vec![(*name).into(), (*what).into()]).collect();
            text.push_str(&table(&rows));
            text.push_str(
                "\nOn every one of them each system call goes to the sandbox's own kernel; none is passed\n\
                 through to the host. A platform that this build or host does not have is an error at create.\n",
            );
            print(&text)?;
        }
        Some("syscalls") => print(&syscalls())?,
        Some(topic) => {
            // Global help, so that subcommands know the program's name.
            program.build();
            match program.find_subcommand_mut(topic) {
                Some(command) => print(&command.render_long_help().to_string())?,
                None => bail!("no help topic for {topic:?}; there are the commands, platforms and syscalls"),
            }
        }
    }
    Ok(0)
}

/// The sentry's own table, so it cannot be out of date.
fn syscalls() -> String {
    let mut rows = vec![vec!["NR".to_owned(), "NAME".to_owned(), "ARGUMENTS".to_owned()]];
    for entry in sentry::syscalls::TABLE {
        let args: Vec<&str> = entry.args.iter().map(|(name, _)| *name).collect();
        rows.push(vec![entry.nr.to_string(), entry.name.to_owned(), args.join(", ")]);
    }
    let count = rows.len() - 1;
    let mut refused = vec![vec!["NR".to_owned(), "NAME".to_owned(), "ERROR".to_owned(), "WHY".to_owned()]];
    for r in sentry::syscalls::REFUSED {
        refused.push(vec![r.nr.to_string(), r.name.to_owned(), format!("{:?}", r.errno), r.why.to_owned()]);
    }
    let gaps: String = sentry::syscalls::GAPS.iter().map(|name| format!("  {name}\n")).collect();
    format!(
        "{}\n{count} system calls of x86-64 Linux are implemented. These are refused:\n\n{}\nAll others give ENOSYS.\n\n\
         What the implemented calls do not do yet (--debug-log counts what a sandbox has met of it):\n\n{gaps}",
        table(&rows),
        table(&refused)
    )
}

/// The shape that dockerd and Podman parse.
pub fn version() -> Result<()> {
    print(&format!(
        "runsc version {}\ncommit: {}\nspec: {OCI_VERSION}\n",
        env!("CARGO_PKG_VERSION"),
        option_env!("RUNSC_COMMIT").unwrap_or("unknown"),
    ))
}
