//! A container that joins another one's sandbox: which one that is, and the host process that stands
//! for the container.
//!
//! Pods of Kubernetes and Podman name their sandbox in annotations. Beside that, whoever asks for the
//! PID, network or IPC namespace of another container of this runtime (by `/proc/PID/ns/…` of the process that
//! stands for it) joins its sandbox, since that is where those namespaces are.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hostsys::process::{Child, ForkOptions, Namespaces, fork_run};
use sentry::boot::spec::{ContainerSpec, Share};
use sentry::control::Stdio;
use sentry::control::protocol::{Operation, WaitTarget};
use sentry::control::server::stdio_fds;

use super::namespaces::Visit;
use super::shown_root::ShownRoot;
use crate::control::Client;
use crate::spec::{JoinedNamespaces, Plan};
use crate::state::{Directory, Record, Root};

/// The sandbox that a container joins.
#[derive(Debug)]
pub struct Host {
    pub directory: Directory,
    pub record: Record,
}

/// What engines call the kind of a container, and the id of the sandbox it belongs to.
const ANNOTATIONS: [(&str, &str); 2] = [
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
];

fn open(root: &Root, id: &str) -> Option<Host> {
    let directory = root.open(id).ok()?;
    let record = directory.read().ok()??;
    record.sentry.is_some_and(|s| s.is_alive()).then_some(Host { directory, record })
}

/// The container that a process of the host stands for.
fn of_process(root: &Root, pid: i32) -> Option<Host> {
    let ids = root.ids().ok()?;
    ids.iter().filter_map(|id| open(root, id)).find(|h| h.record.host_process().is_some_and(|p| p.pid == pid))
}

/// `PID` of `/proc/PID/ns/KIND`.
fn process_of_path(path: &Path) -> Option<i32> {
    let text = path.to_str()?;
    let (pid, rest) = text.strip_prefix("/proc/")?.split_once('/')?;
    rest.starts_with("ns/").then(|| pid.parse().ok()).flatten()
}

/// The sandbox to join, if any; fills in what the container shares with whom.
pub fn find(root: &Root, plan: &mut Plan) -> Result<Option<Host>> {
    let JoinedNamespaces { network, ipc, uts, pid, .. } = &plan.joined;
    let of = |path: &Option<PathBuf>| {
        path.as_deref().and_then(process_of_path).and_then(|pid| of_process(root, pid))
    };
    let sharers = [of(pid), of(network), of(ipc), of(uts)];
    let [pid_of, network_of, ipc_of, uts_of] =
        sharers.each_ref().map(|h| h.as_ref().map(|h| h.record.id.clone()));
    let mut host = annotated(root, &plan.container)?;
    for sharer in sharers.into_iter().take(3).flatten() {
        if host.is_none() {
            host = Some(main_of(root, sharer)?);
        }
    }
    let Some(host) = host else {
        if let Some(path) = pid {
            bail!(
                "linux.namespaces: {}: no container of this runtime has that pid namespace, others cannot be joined",
                path.display()
            );
        }
        return Ok(None);
    };
    let main = host.record.id.clone();
    // A network or IPC namespace that was made beforehand for the whole pod is the sandbox's.
    let same = |path: &Option<PathBuf>, found: Option<String>, of_pod: bool| match (path, found) {
        (_, Some(id)) => Some(id),
        (Some(_), None) if of_pod => Some(main.clone()),
        _ => None,
    };
    plan.container.share = Share {
        pid: pid_of,
        network: same(network, network_of, true),
        ipc: same(ipc, ipc_of, true),
        uts: same(uts, uts_of, true),
    };
    Ok(Some(host))
}

/// The sandbox that the annotations name.
fn annotated(root: &Root, container: &ContainerSpec) -> Result<Option<Host>> {
    for (kind, sandbox) in ANNOTATIONS {
        if container.annotations.get(kind).map(String::as_str) == Some("container") {
            let Some(id) = container.annotations.get(sandbox) else { continue };
            return match open(root, id) {
                Some(host) => Ok(Some(main_of(root, host)?)),
                None => bail!("annotation {sandbox}: there is no running sandbox {id:?}"),
            };
        }
    }
    Ok(None)
}

/// The container that the sandbox began with.
fn main_of(root: &Root, host: Host) -> Result<Host> {
    match host.record.sandbox.clone() {
        None => Ok(host),
        Some(id) => open(root, &id).with_context(|| format!("the sandbox {id:?} is gone")),
    }
}

/// What goes to the sandbox with the specification.
#[derive(Debug)]
pub struct Streams {
    pub stdio: Stdio,
    pub gofer: OwnedFd,
    pub gofer_life: OwnedFd,
    pub extra_fds: Vec<OwnedFd>,
}

/// What the process that stands for the container has of it on the host.
#[derive(Debug)]
pub struct Surroundings {
    pub shown: Option<ShownRoot>,
    pub cgroups: Vec<PathBuf>,
}

/// Has the sandbox make the container, and starts the process that stands for it: that ends with the
/// container's status, and the container ends with it.
pub fn create(
    host: &Host,
    own: &Directory,
    id: &str,
    container: ContainerSpec,
    streams: Streams,
    surroundings: Surroundings,
) -> Result<Child> {
    let Surroundings { shown, cgroups } = surroundings;
    // The socket itself, under a second name: each command finds it in its container's directory.
    crate::control::share(&host.directory, own).context("cannot share the control socket")?;
    let client = Client::connect(own, id).context("cannot reach the sandbox")?;
    let own_network = container.share.network.is_none();
    let Streams { stdio, gofer, gofer_life, extra_fds } = streams;
    let mut fds = stdio_fds(&stdio);
    fds.extend([gofer.as_fd(), gofer_life.as_fd()]);
    fds.extend(extra_fds.iter().map(AsFd::as_fd));
    let count = u32::try_from(extra_fds.len())?;
    client.done(Operation::Create { spec: Box::new(container), extra_fds: count }, &fds)?;

    client.ask_hold(WaitTarget::Init)?;
    let terminal = match stdio {
        Stdio::Terminal(terminal) => Some(terminal),
        Stdio::Streams { .. } => None,
    };
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .context("/dev/null")?;
    let mut keep: Vec<RawFd> = vec![0, 1, 2, client.as_fd().as_raw_fd(), null.as_raw_fd()];
    keep.extend(terminal.iter().map(AsRawFd::as_raw_fd));
    keep.extend(shown.iter().flat_map(ShownRoot::descriptors));
    let host_root = rustix::fs::open(
        "/",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .context("/")?;
    keep.push(host_root.as_raw_fd());
    let sentry = host.record.sentry.context("the sandbox is gone")?;
    // Others join its namespaces by its number, as they would any container's.
    let visit = Visit::network_ipc_uts(sentry.pid)?;
    let mut namespaces = if own_network { Namespaces::NET } else { Namespaces::empty() };
    if shown.is_some() {
        namespaces |= Namespaces::MOUNT;
    }
    let (directory, id) = (own.clone(), id.to_owned());
    let child = fork_run(ForkOptions { namespaces, sibling: false }, move || {
        if hostsys::fd::close_all_but(&keep).is_err() {
            return 255;
        }
        crate::log::become_sandbox(None, crate::log::Format::Text, false);
        let _ = super::redirect_stdio(&null);
        drop(null);
        if let Some(Err(error)) = shown.map(|shown| shown.enter(&host_root)) {
            tracing::error!("{error:#}");
            return 255;
        }
        drop(host_root);
        // A session of its own, so that the container's terminal can be its controlling one.
        let _ = rustix::process::setsid();
        let _ = hostsys::process::set_name("runsc-container");
        super::stand_in::StandIn {
            client: &client,
            directory: &directory,
            id: &id,
            pid: 0,
            cgroups: &cgroups,
        }
        .run(terminal)
    });
    visit.leave()?;
    child.context("cannot start the process that stands for the container")
}
