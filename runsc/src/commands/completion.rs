//! `runsc completion` and `runsc man`: made from the same source as the help, so they cannot be out of date.

use anyhow::{Context as _, Result};
use clap::CommandFactory;

use super::print;
use crate::cli::{Cli, CompletionArgs, ManArgs};

pub fn completion(args: &CompletionArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "runsc", &mut script);
    print(&String::from_utf8(script).context("the script")?)?;
    Ok(0)
}

/// One page for the program and one for each command.
pub fn man(args: &ManArgs) -> Result<u8> {
    let mut program = Cli::command();
    program.build();
    let page = |command: clap::Command| -> Result<Vec<u8>> {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        Ok(page)
    };
    let Some(directory) = &args.directory else {
        print(&String::from_utf8(page(program)?).context("the page")?)?;
        return Ok(0);
    };
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let write = |name: &str, page: Vec<u8>| {
        let file = directory.join(format!("{name}.1"));
        std::fs::write(&file, page).with_context(|| file.display().to_string())
    };
    for command in program.get_subcommands().filter(|c| !c.is_hide_set()) {
        let name = format!("runsc-{}", command.get_name());
        // The name of a page is made of 'static text in clap: these few are kept for the life of the program.
        let command =
            command.clone().name(&*Box::leak(name.clone().into_boxed_str())).display_name(name.clone());
        write(&name, page(command)?)?;
    }
    write("runsc", page(program)?)?;
    Ok(0)
}
