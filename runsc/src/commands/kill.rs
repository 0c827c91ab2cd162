//! `runsc kill`

use anyhow::{Result, bail};
use sentry::control::protocol::SignalTarget;

use super::{Container, Context, Status, parse_signal};
use crate::cli::KillArgs;

const SIGKILL: i32 = 9;

pub fn kill(context: &Context, args: &KillArgs) -> Result<u8> {
    let signo = parse_signal(&args.signal)?;
    let container = Container::open(context, &args.id)?;
    let target = match (args.all, args.pid) {
        (true, _) => SignalTarget::All,
        (false, Some(pid)) => SignalTarget::Process(pid),
        (false, None) => SignalTarget::Init,
    };
    if container.status() == Status::Stopped {
        // Engines sweep up with --all whether anything is left or not.
        if args.all {
            return Ok(0);
        }
        bail!("container not running");
    }
    let result = container.client().and_then(|client| client.signal(target, signo));
    match result {
        Ok(()) => Ok(0),
        Err(error) => {
            let refused = crate::control::reason(&error).is_some();
            let process = container.record.host_process();
            match process {
                // It has just ended by itself.
                Some(sentry) if !sentry.is_alive() && (args.all || signo == SIGKILL) => Ok(0),
                // A sandbox that does not answer must die all the same.
                Some(sentry) if signo == SIGKILL && !refused && args.pid.is_none() => {
                    // Of a pod only this container: the sandbox notices the end of its stand-in.
                    sentry.kill_and_wait();
                    Ok(0)
                }
                _ => Err(error),
            }
        }
    }
}
