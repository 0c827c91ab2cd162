//! `runsc pause` and `runsc resume`

use anyhow::{Result, bail};

use super::{Container, Context, Status};
use crate::cli::IdArgs;

pub fn pause(context: &Context, args: &IdArgs) -> Result<u8> {
    let container = Container::open(context, &args.id)?;
    match container.status() {
        Status::Running | Status::Created => container.client()?.pause()?,
        Status::Paused => bail!("container already paused"),
        Status::Creating | Status::Stopped => bail!("container not running"),
    }
    Ok(0)
}

pub fn resume(context: &Context, args: &IdArgs) -> Result<u8> {
    let container = Container::open(context, &args.id)?;
    match container.status() {
        Status::Paused => container.client()?.resume()?,
        _ => bail!("container not paused"),
    }
    Ok(0)
}
