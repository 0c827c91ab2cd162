//! From a freshly forked process to a running sandbox. The command line has put this process in
//! its namespaces, taken away its rights and closed all but the donated descriptors; [`run`] gets
//! what it is to be as [`BootArgs`], builds the guest kernel, reports back and serves the control
//! socket until the sandbox is over.
//!
//! [`spec`] is the container as plain data, [`handshake`] the report to the command that waits,
//! [`assemble`] the place where kernel, file systems and platform are put together, [`filter`] what may
//! be asked of the host after that.

pub mod assemble;
mod container;
pub mod filter;
pub mod handshake;
mod hooks;
mod ids;
pub mod last_words;
pub mod mounts;
pub mod process;
mod profile;
pub mod sandbox;
pub mod spec;
pub mod types;

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use kernel::Kernel;
use netstack::Stack;
use platform::MemoryGroup;
use platform::hostsys::seccomp::Violation;

use crate::control::Stdio;
use crate::control::protocol::{ControlError, ErrorKind, ExitStatus};
use crate::control::server::{ExitBell, Server, TerminalWatch};
use handshake::{FromChild, Handshake};
use spec::ContainerSpec;

/// Everything a sandbox gets from outside. No other descriptor is open.
#[derive(Debug)]
pub struct BootArgs {
    /// Id of the first container; also the sandbox's name.
    pub id: String,
    pub container: ContainerSpec,
    pub stdio: Stdio,
    /// Descriptors for the first process from number 3 on.
    pub extra_fds: Vec<OwnedFd>,
    /// Readable once the gofer is gone.
    pub gofer_life: OwnedFd,
    /// Our end of the gofer's channel. Its mounts are those that the specification names.
    pub gofer: OwnedFd,
    /// The listening control socket.
    pub control: UnixListener,
    pub handshake: Handshake,
    /// Name of the platform, as [`platform`] knows it (`auto` included).
    pub platform: String,
    pub network: NetworkMode,
    /// Log each system call of the guest.
    pub strace: bool,
    /// What a host call that [`filter`] does not list does. Anything but `Kill` is for finding out
    /// what is missing from the list, and the command line offers it in debug builds only.
    pub violation: Violation,
    /// The memory controller's group of the host that the sandbox is in.
    pub memory_group: Option<MemoryGroup>,
    /// Where the reason of a panic goes: a pipe that does not block.
    pub last_words: Option<OwnedFd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    /// Loopback only.
    None,
    /// A stack of our own on the interfaces of the container's network namespace, see [`crate::net`].
    Sandbox,
    /// Sockets of the network namespace that the sentry is in, see [`fs::socket::host`].
    Host,
}

/// Why the sandbox could not be set up; its text goes to whoever ran `runsc create`.
pub type BootError = ControlError;

/// Runs the sandbox on this process; returns how the process is to end.
pub fn run(args: BootArgs) -> ExitStatus {
    let BootArgs {
        id,
        container,
        stdio,
        extra_fds,
        gofer,
        gofer_life,
        control,
        mut handshake,
        platform,
        network,
        strace,
        violation,
        memory_group,
        last_words,
    } = args;
    // A panic ends the sandbox.
    last_words::install(last_words.map(File::from));
    let parts = assemble::Parts {
        id,
        container,
        stdio,
        extra_fds,
        gofer,
        gofer_life,
        memory_group,
        platform,
        network,
        strace,
    };
    match prepare(parts, control, violation) {
        Ok((mut server, kernel, stack)) => {
            let ready = handshake.tell_parent(&FromChild::Ready);
            let committed = ready.and_then(|()| await_commit(&mut handshake, &kernel, &stack, network));
            if committed.is_err() {
                // The command that was starting us is gone, and with it the container's record.
                return ExitStatus::Code(1);
            }
            drop(handshake);
            server.run().unwrap_or_else(|error| {
                tracing::error!("the control socket failed: {error}");
                ExitStatus::Code(1)
            })
        }
        Err(error) => {
            tracing::debug!("boot failed: {error}");
            // If nobody listens any more there is nobody to tell.
            let message = match error.kind {
                ErrorKind::NotFound => FromChild::NoProgram(error.message),
                ErrorKind::NotPermitted => FromChild::NotRunnable(error.message),
                _ => FromChild::Failed(error.message),
            };
            let _ = handshake.tell_parent(&message);
            ExitStatus::Code(1)
        }
    }
}

/// Waits for the word to go on. Before it there may come the network, once hooks have made it.
fn await_commit(
    handshake: &mut Handshake,
    kernel: &Kernel,
    stack: &Arc<Stack>,
    network: NetworkMode,
) -> std::io::Result<()> {
    while let Some(mut donation) = handshake.await_network_or_commit()? {
        if let Some(settings) = donation.settings.take() {
            take_over_settings(kernel, settings)?;
        }
        let tables = std::mem::take(&mut donation.tables);
        if network == NetworkMode::Host {
            fs::socket::host::tables::Tables::of(kernel).donate(stack, tables);
        }
        let started = match network {
            NetworkMode::Host => crate::net::show(stack, donation),
            NetworkMode::None | NetworkMode::Sandbox => crate::net::start(stack, donation),
        };
        match started {
            Ok(()) => handshake.tell_parent(&FromChild::Ready)?,
            Err(error) => {
                let _ =
                    handshake.tell_parent(&FromChild::Failed(format!("cannot set up the network: {error}")));
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Shows the guest the settings that hold for the host's sockets.
fn take_over_settings(kernel: &Kernel, settings: OwnedFd) -> std::io::Result<()> {
    // Not the file itself, which would ask for its size: the filter has no rule for that.
    let text = std::io::read_to_string(File::from(settings).take(1 << 16))?;
    fs::socket::host::settings::Settings::of(kernel).take_over(&kernel.sysctls, &text);
    Ok(())
}

fn prepare(
    parts: assemble::Parts,
    control: UnixListener,
    violation: Violation,
) -> Result<(Server, Arc<Kernel>, Arc<Stack>), BootError> {
    let internal = |what: &str, error: &dyn std::fmt::Display| {
        BootError::new(ErrorKind::Internal, format!("cannot set up {what}: {error}"))
    };
    let network = parts.network;
    let bell = ExitBell::new().map_err(|e| internal("the control socket", &e))?;
    let terminal = match &parts.stdio {
        // Before there are other threads: all of them must have the signal blocked.
        Stdio::Terminal(terminal) => {
            Some(TerminalWatch::new(&parts.id, terminal).map_err(|e| internal("the terminal", &e))?)
        }
        Stdio::Streams { .. } => None,
    };
    let assembled = assemble::assemble(parts, bell.clone())?;
    let server = Server::new(control, bell, assembled.ops, terminal)
        .map_err(|e| internal("the control socket", &e))?;
    filter::install(assembled.platform_rules, network, violation)
        .map_err(|e| internal("the seccomp filter", &e))?;
    Ok((server, assembled.kernel, assembled.stack))
}
