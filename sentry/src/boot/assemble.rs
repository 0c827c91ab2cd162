//! Puts kernel, file systems and platform together into a sandbox with its first container.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::BootError;
use super::NetworkMode;
use super::sandbox::Sandbox;
use super::spec::{ContainerSpec, Limits};
use super::types;
use crate::control::protocol::ErrorKind;
use crate::control::server::ExitBell;
use crate::control::{CreateArgs, SandboxOps, Stdio};
use kernel::Kernel;
use platform::{Machine, MemoryFile, MemoryGroup};

/// How Docker says what the specification has a field for.
pub(super) const DOMAINNAME: &str = "kernel.domainname";

/// What [`super::BootArgs`] has for the kernel.
#[derive(Debug)]
pub struct Parts {
    pub id: String,
    pub container: ContainerSpec,
    pub stdio: Stdio,
    pub extra_fds: Vec<OwnedFd>,
    pub gofer: OwnedFd,
    pub gofer_life: OwnedFd,
    pub memory_group: Option<MemoryGroup>,
    pub platform: String,
    pub network: NetworkMode,
    pub strace: bool,
}

/// What [`assemble`] hands over.
pub struct Assembled {
    pub ops: Arc<dyn SandboxOps>,
    pub kernel: Arc<Kernel>,
    /// The sandbox's network stack.
    pub stack: Arc<netstack::Stack>,
    /// Host calls that the platform makes from now on.
    pub platform_rules: Vec<platform::hostsys::seccomp::Rule>,
}

/// Builds kernel and container up to the point where the first process can run; finds the program
/// and fails with `NotFound` or `NotPermitted` if it cannot be run.
pub fn assemble(parts: Parts, bell: ExitBell) -> Result<Assembled, BootError> {
    let internal =
        |what: &str, e: &dyn std::fmt::Display| BootError::new(ErrorKind::Internal, format!("{what}: {e}"));
    platform::hostsys::process::one_malloc_arena();
    let platform = platform::open(&parts.platform)
        .map_err(|e| BootError::new(ErrorKind::Unsupported, format!("--platform: {e}")))?;
    let platform_rules = platform::seccomp_rules(platform.as_ref());
    tracing::debug!("sandbox {}: platform {}, network {:?}", parts.id, platform.name(), parts.network);
    let memfile = MemoryFile::new().map_err(|e| internal("cannot make the memory file", &e))?;
    let kernel = Kernel::new(platform, memfile, Machine::read());
    apply_limits(&kernel, &parts.container.limits);
    // That of a namespace, which does not exist yet.
    let settings = parts.container.sysctl.iter().filter(|(name, _)| *name != DOMAINNAME);
    for (name, value) in settings {
        match fs::proc::set_by_name(&kernel.sysctls, name, value) {
            Some(Ok(())) => {}
            Some(Err(e)) => {
                let text = format!("linux.sysctl: {name} cannot be {value:?}: {}", e.text().to_lowercase());
                return Err(BootError::new(ErrorKind::Invalid, text));
            }
            None => {
                let text = format!("linux.sysctl: there is no setting {name}");
                return Err(BootError::new(ErrorKind::Unsupported, text));
            }
        }
    }
    let options = kernel.extensions.get_or_init(crate::run::Options::default);
    options.strace.store(parts.strace, std::sync::atomic::Ordering::Relaxed);
    fs::register(&kernel);
    types::register(&kernel);

    let args = CreateArgs {
        container: parts.container,
        stdio: parts.stdio,
        extra_fds: parts.extra_fds,
        gofer: parts.gofer,
        gofer_life: parts.gofer_life,
        memory_group: parts.memory_group,
    };
    let sandbox = Sandbox::new(Arc::clone(&kernel), bell, parts.id, args)?;
    if parts.network == NetworkMode::Host {
        fs::socket::host::register(&kernel, &sandbox.net())
            .map_err(|e| internal("watching sockets of the host", &e))?;
    }
    let stack = sandbox.stack();
    Ok(Assembled { ops: sandbox, kernel, stack, platform_rules })
}

/// What the container's cgroup limits is what the guest sees as its hardware.
pub(super) fn apply_limits(kernel: &Kernel, l: &Limits) {
    // No limit (any more): what the host has.
    kernel.machine.set_memory(l.memory.unwrap_or(u64::MAX));
    kernel.memfile.set_limit(l.memory.unwrap_or(u64::MAX));
    let swap = l.memory.zip(l.memory_and_swap).map_or(0, |(own, both)| both.saturating_sub(own));
    kernel.machine.set_swap(swap);
    let share = l.cpu_quota.zip(l.cpu_period).filter(|(_, period)| *period > 0).map(|(q, p)| q.div_ceil(p));
    let cpus = share.into_iter().chain(l.cpuset).min().unwrap_or(u64::MAX);
    kernel.machine.set_cpus(usize::try_from(cpus).unwrap_or(usize::MAX));
}
