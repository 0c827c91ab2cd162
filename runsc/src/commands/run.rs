//! `runsc run`: create, start, wait, delete; and what `do` shares with it.

use std::os::fd::AsFd;

use anyhow::{Context as _, Result};
use hostsys::process::Exit;
use sentry::control::protocol::SignalTarget;

use super::{Container, Context, create, delete, start};
use crate::cli::{Global, RunArgs};
use crate::sandbox::{Console, Sandbox, ended_by};
use crate::spec;
use crate::{cgroup, console};

pub fn run(context: Context, args: &RunArgs) -> Result<u8> {
    let bundle = spec::load(&args.create.bundle)?;
    let terminal = bundle.config.process().as_ref().and_then(|p| p.terminal()).unwrap_or(false);
    let console = match &args.create.console_socket {
        Some(path) => Console::Socket(path.clone()),
        None if args.detach => Console::Nobody,
        None => Console::Own,
    };
    if terminal && !args.detach && args.create.console_socket.is_some() {
        anyhow::bail!("--console-socket: cannot use console socket if runc will not detach or allocate tty");
    }
    let global = context.global.clone();
    let sandbox = create::from_bundle(context, &args.create, &bundle, console, !args.detach)?;
    let context = Context { global, preserved: Vec::new() };
    let container = Container::open(&context, &args.create.id)?;
    if args.detach {
        if let Err(error) = start::start_container(&container) {
            delete::remove(&container)?;
            return Err(error);
        }
        return Ok(0);
    }
    to_the_end(&container, &sandbox, args.keep, false)
}

/// Starts a container that this command has just made and stays until its end. `as_job`: signals
/// of the caller's terminal are for all its processes, as they would be without the sandbox.
pub fn to_the_end(container: &Container, sandbox: &Sandbox, keep: bool, as_job: bool) -> Result<u8> {
    let ended = attend(container, sandbox, as_job);
    let _ = sandbox.gofer.signal(9);
    let _ = sandbox.gofer.wait();
    if ended.is_err() || !keep {
        delete::remove(container)?;
    }
    ended
}

fn attend(container: &Container, sandbox: &Sandbox, as_job: bool) -> Result<u8> {
    let signals = console::take_signals()?;
    start::start_container(container)?;
    let terminal = sandbox.terminal.as_ref();
    console::attend(
        sandbox.sentry.pidfd.as_fd(),
        &signals,
        terminal,
        |signal| {
            // SIGINT, SIGQUIT and SIGTSTP come from the keyboard, SIGWINCH from the screen, to a whole job.
            let target = match signal {
                2 | 3 | 20 | console::SIGWINCH if as_job => SignalTarget::All,
                _ => SignalTarget::Init,
            };
            if let Err(error) = container.client().and_then(|c| c.signal(target, signal)) {
                tracing::debug!("cannot pass on signal {signal}: {error:#}");
            }
        },
        |size| {
            if let Err(error) = container.client().and_then(|c| c.resize(0, size)) {
                tracing::debug!("cannot pass on the window's size: {error:#}");
            }
        },
    )?;
    let exit = sandbox.sentry.wait().context("cannot wait for the sandbox")?;
    match exit {
        Exit::Code(code) => Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        Exit::Signal(signal) => {
            // Whether this was one of them the host does not tell.
            match cgroup::oom_kills(&container.record.cgroups) {
                kills @ 1.. if signal == 9 => tracing::error!(
                    "the sentry was killed by signal 9; the host has killed {kills} of the container's processes at its \
                     memory limit"
                ),
                _ => tracing::error!("{}", ended_by("sentry", signal, sandbox.last_words.as_ref())),
            }
            Ok(128u8.wrapping_add(u8::try_from(signal).unwrap_or(0)))
        }
    }
}

/// The flags that the foreground commands share.
pub fn without_descriptors(global: &Global) -> Context {
    Context { global: global.clone(), preserved: Vec::new() }
}
