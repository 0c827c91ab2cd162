//! The way in for `runsc`: a unix socket in the container's state directory, on which the command
//! line asks the sandbox to start, signal, list, pause and so on.
//!
//! [`protocol`] has the messages, [`wire`] their framing, [`server`] the one loop that serves all
//! connections. What a request does to the guest kernel is behind [`SandboxOps`]; nothing in here
//! knows a task.

pub mod protocol;
pub mod server;
pub mod wire;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use platform::MemoryGroup;

use crate::boot::spec::{ContainerSpec, Limits, ProcessSpec, WindowSize};
use protocol::{ContainerStatus, ControlError, ExitStatus, ProcessInfo, SignalTarget, Stats, WaitTarget};

/// Standard streams of a container's process, donated by the command line.
#[derive(Debug)]
pub enum Stdio {
    /// Standard input, output and error as they were given to `runsc`.
    Streams { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    /// One host terminal (a pty replica in raw mode) for all three.
    Terminal(OwnedFd),
}

/// A further container of the sandbox.
#[derive(Debug)]
pub struct CreateArgs {
    pub container: ContainerSpec,
    pub stdio: Stdio,
    /// Further descriptors, from number 3 on.
    pub extra_fds: Vec<OwnedFd>,
    /// Our end of the channel of its gofer, whose mounts are those that the specification names.
    pub gofer: OwnedFd,
    /// Readable once that gofer is gone.
    pub gofer_life: OwnedFd,
    /// The memory controller's group that the sandbox is in, for its first container.
    pub memory_group: Option<MemoryGroup>,
}

/// A process that `exec` starts.
#[derive(Debug)]
pub struct ExecArgs {
    pub process: ProcessSpec,
    pub stdio: Stdio,
    /// Further descriptors, from number 3 on.
    pub extra_fds: Vec<OwnedFd>,
}

/// What the guest kernel does for the control socket. All calls come from one thread, one at a
/// time, and must return promptly: nothing here may wait for the guest to finish something.
pub trait SandboxOps: Send + Sync {
    fn status(&self, container: &str) -> Result<ContainerStatus, ControlError>;

    /// Makes a further container, ready to be started.
    fn create(&self, container: &str, args: CreateArgs) -> Result<(), ControlError>;

    /// Ends what is left of a container, and forgets it. Not for the first one: its end is the sandbox's.
    fn delete(&self, container: &str) -> Result<(), ControlError>;

    /// New limits for a container that exists.
    fn set_limits(&self, container: &str, limits: &Limits) -> Result<(), ControlError>;

    /// By container, the descriptors that become readable when its gofer is gone.
    fn gofer_lives(&self) -> Vec<(String, Arc<OwnedFd>)>;

    /// The gofer of this container is gone, and with it its files: its processes are killed.
    fn gofer_gone(&self, container: &str);

    /// Lets the first process run. `WrongStatus` unless the container is `Created`.
    fn start(&self, container: &str) -> Result<(), ControlError>;

    /// Starts another process; its number in the container.
    fn exec(&self, container: &str, args: ExecArgs) -> Result<u32, ControlError>;

    /// How a process ended, `None` while it runs. Asked again whenever the kernel calls
    /// [`server::ExitBell::ring`], which it must do each time a first process or a process from
    /// `exec` has ended.
    fn exit_status(&self, container: &str, target: WaitTarget) -> Result<Option<ExitStatus>, ControlError>;

    /// How many processes were killed because the container's limit of memory was reached. Asked again as `exit_status`.
    fn oom_kills(&self, container: &str) -> Result<u64, ControlError>;

    /// Nobody will ask for the exit status of this process of `exec` any more.
    fn forget(&self, container: &str, pid: u32);

    fn signal(&self, container: &str, target: SignalTarget, signo: i32) -> Result<(), ControlError>;

    fn processes(&self, container: &str) -> Result<Vec<ProcessInfo>, ControlError>;

    fn pause(&self, container: &str) -> Result<(), ControlError>;

    fn resume(&self, container: &str) -> Result<(), ControlError>;

    fn stats(&self, container: &str) -> Result<Stats, ControlError>;

    fn resize(&self, container: &str, pid: u32, size: WindowSize) -> Result<(), ControlError>;

    /// Set once the sandbox is over: how its process is to end. Asked after each ring of the bell.
    fn finished(&self) -> Option<ExitStatus>;
}
