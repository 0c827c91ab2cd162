//! `runsc start`

use anyhow::{Result, bail};
use oci_spec::runtime as oci;

use super::{Container, Context, Status};
use crate::cli::IdArgs;
use crate::{hooks, spec};

pub fn start(context: &Context, args: &IdArgs) -> Result<u8> {
    let container = Container::open(context, &args.id)?;
    let _lock = container.directory.lock()?;
    match container.status() {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running | Status::Paused => bail!("cannot start an already running container"),
        Status::Creating => bail!("cannot start a container that is being created"),
    }
    start_container(&container)?;
    Ok(0)
}

/// Lets the program run; then the poststart hooks.
pub fn start_container(container: &Container) -> Result<()> {
    // What takes time comes before: containerd's shim asks to hear of ends for lack of memory only when this command is over.
    let config: oci::Spec = spec::parse(&container.directory.read_config()?)?;
    let poststart = config.hooks().as_ref().and_then(|h| h.poststart().as_ref());
    container.client()?.start()?;
    if poststart.is_some() {
        let record = &container.record;
        let state = hooks::state(
            &record.oci_version,
            &record.id,
            "created",
            record.host_process().map(|p| p.pid),
            &record.bundle,
            &record.annotations,
        );
        // The specification: a failure is logged, and the container goes on.
        if let Err(error) = hooks::run("poststart", poststart, &state, &record.bundle, None) {
            tracing::warn!("{error:#}");
        }
    }
    Ok(())
}
