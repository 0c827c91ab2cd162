//! `runsc delete`

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use oci_spec::runtime as oci;
use sentry::control::protocol::{Operation, SignalTarget};

use super::{Container, Context, Status};
use crate::cli::DeleteArgs;
use crate::error::Missing;
use crate::state::Root;
use crate::{cgroup, hooks, sandbox, spec};

pub fn delete(context: &Context, args: &DeleteArgs) -> Result<u8> {
    let mut first_error = None;
    for id in &args.ids {
        if let Err(error) = one(context, id, args.force) {
            if first_error.is_some() {
                tracing::error!("{error:#}");
            }
            first_error = first_error.or(Some(error));
        }
    }
    match first_error {
        None => Ok(0),
        Some(error) => Err(error),
    }
}

/// `force`: even if it still runs, and none is no failure.
pub fn one(context: &Context, id: &str, force: bool) -> Result<()> {
    let directory = match Root::new(context.global.root.as_deref())?.open(id) {
        Ok(directory) => directory,
        Err(error) if force && error.is::<Missing>() => return Ok(()),
        Err(error) => return Err(error),
    };
    // Waits for a creation that is still going on.
    let lock = directory.lock();
    let record = match directory.read() {
        Ok(Some(record)) => record,
        // A creation that was killed before it had done anything else; or somebody else was
        // faster, and there is nothing left.
        Ok(None) => return directory.remove(),
        Err(error) if force => {
            tracing::warn!("{error:#}");
            return directory.remove();
        }
        Err(error) => return Err(error),
    };
    let _lock = lock?;
    let container = Container { directory, record };
    if !force {
        match container.status() {
            Status::Stopped | Status::Created | Status::Creating => {}
            status @ (Status::Running | Status::Paused) => {
                bail!("cannot delete container {id} that is not stopped: {}", status.name())
            }
        }
    }
    remove(&container)
}

/// How long the process that stands for a container may take to end with the status it should.
const LAST_STATUS: Duration = Duration::from_secs(5);

/// Takes a container out of the sandbox that others are in.
fn leave(container: &Container) {
    let Ok(client) = container.client() else { return };
    let ended = client.signal(SignalTarget::All, 9).and_then(|()| {
        let end = Instant::now() + LAST_STATUS;
        while container.record.holder.is_some_and(|h| h.is_alive()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        client.done(Operation::Delete, &[])
    });
    if let Err(error) = ended {
        tracing::debug!("the sandbox does not know the container any more: {error:#}");
    }
}

/// Ends whatever is left of a container and removes its traces.
pub fn remove(container: &Container) -> Result<()> {
    let record = &container.record;
    if record.sandbox.is_some() {
        leave(container);
    }
    let sentry = record.sentry.filter(|_| record.sandbox.is_none());
    for process in [sentry, record.holder, record.gofer].into_iter().flatten() {
        process.kill_and_wait();
    }
    if let Some(path) = &record.network {
        sandbox::give_back_network(path);
    }
    let cgroups = cgroup::remove(&record.cgroups);
    if let Some(scope) = &record.scope {
        scope.forget();
    }
    // The copy of the configuration is lost only if somebody has meddled with it.
    let config: Option<oci::Spec> =
        container.directory.read_config().and_then(|json| spec::parse(&json)).ok();
    let poststop = config.as_ref().and_then(|c| c.hooks().as_ref()).and_then(|h| h.poststop().as_ref());
    if poststop.is_some() {
        let state = hooks::state(
            &record.oci_version,
            &record.id,
            "stopped",
            None,
            &record.bundle,
            &record.annotations,
        );
        // The specification: a failure is logged, and the rest goes on.
        if let Err(error) = hooks::run("poststop", poststop, &state, &record.bundle, None) {
            tracing::warn!("{error:#}");
        }
    }
    container.directory.remove()?;
    cgroups
}
