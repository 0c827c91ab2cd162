//! `runsc spec`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cli::SpecArgs;
use crate::spec::starter::starter;

pub fn spec(args: &SpecArgs) -> Result<u8> {
    let directory = args.bundle.clone().unwrap_or_else(|| PathBuf::from("."));
    let path = directory.join("config.json");
    if path.exists() {
        bail!("File {} exists. Remove it first", display(&path));
    }
    let ids =
        args.rootless.then(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
    let config = starter(&args.command, &args.cwd, ids);
    let mut text = serde_json::to_string_pretty(&config)?;
    text.push('\n');
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(0)
}

fn display(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).display().to_string()
}
