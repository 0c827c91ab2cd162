//! One container of a sandbox: how it is built from its specification and what it consists of. The
//! first one makes the sandbox's namespaces; others (of a pod) share those that their specification
//! names and have a root, a gofer, streams and an exit status of their own.

use super::BootError;
use super::mounts::Builder;
use super::process::{self, Place, Prepared, Streams};
use super::spec::{ContainerSpec, HookSpec, ProcessSpec, Share};
use super::{ids, profile};
use crate::control::CreateArgs;
use crate::control::protocol::{ContainerStatus, ControlError, ErrorKind};
use crate::control::server::ExitBell;
use fs::gofer::Connection;
use kernel::Kernel;
use kernel::creds::UserNamespace;
use kernel::seccomp::Chain;
use kernel::task::{
    ControllingTty, IpcNamespace, Members, Namespaces, PidNamespace, Task, ThreadGroup, UtsNamespace,
};
use ksync::{Listener, Registration};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

/// One container.
pub struct Container {
    pub namespaces: Arc<Namespaces>,
    pub pid_ns: Arc<PidNamespace>,
    pub user_ns: Arc<UserNamespace>,
    pub members: Arc<Members>,
    pub seccomp: Option<Arc<Chain>>,
    pub init: Started,
    /// What runs before the first process does.
    pub hooks: Vec<HookSpec>,
    pub process: ProcessSpec,
    /// Set until `start`.
    pub waiting: Option<Prepared>,
    pub paused: bool,
    /// Processes of `exec`, by their number in the container.
    pub execs: BTreeMap<u32, Started>,
    /// Readable once its gofer is gone; taken when that has been seen to.
    pub gofer_life: Option<Arc<OwnedFd>>,
    _oom_bell: Registration,
}

/// A process that the runtime started.
pub struct Started {
    pub group: Arc<ThreadGroup>,
    /// The terminal it was given. An init that has left it to a child's session is still who is asked for.
    pub terminal: Option<Weak<dyn ControllingTty>>,
    _bell: Registration,
}

/// Rings when a process has ended.
struct Ringer(ExitBell);

impl Listener for Ringer {
    fn notify(&self, _mask: u32) -> bool {
        self.0.ring();
        true
    }
}

/// Has the bell rung at the end of a process.
pub fn watch(task: &Task, bell: &ExitBell) -> Started {
    let group = Arc::clone(task.group());
    let listener = Arc::new(Ringer(bell.clone()));
    let registration = group.pid().exited.register(listener, u32::MAX, false);
    let terminal = group.tty().map(|t| Arc::downgrade(&t));
    Started { group, terminal, _bell: registration }
}

pub fn gone() -> ControlError {
    ControlError::new(ErrorKind::WrongStatus, "container not running")
}

pub fn none_such(id: &str) -> ControlError {
    ControlError::new(ErrorKind::NoSuchContainer, format!("container {id:?} does not exist in this sandbox"))
}

/// The namespaces of a container.
fn namespaces(
    kernel: &Arc<Kernel>,
    spec: &ContainerSpec,
    pid_ns: &Arc<PidNamespace>,
    user_ns: &Arc<UserNamespace>,
    mnt: Arc<kernel::vfs::MountNamespace>,
    ipc: Arc<IpcNamespace>,
    others: &BTreeMap<String, Container>,
) -> Result<Arc<Namespaces>, BootError> {
    let Share { network, uts, .. } = &spec.share;
    let hostname = spec.hostname.clone().unwrap_or_else(|| "runsc".to_owned());
    let mut new = match others.values().next() {
        None => Namespaces::root(kernel, user_ns, mnt, hostname.as_bytes()),
        Some(any) => {
            let mut new = Namespaces::clone(&any.namespaces);
            new.mnt = mnt;
            let of = |id: &String| others.get(id).map(|c| &c.namespaces).ok_or_else(|| none_such(id));
            new.net = match network {
                Some(id) => Arc::clone(&of(id)?.net),
                None => kernel.new_other_ns(user_ns),
            };
            new.uts = match uts {
                Some(id) => Arc::clone(&of(id)?.uts),
                None => {
                    let id = kernel.next_ns_id();
                    UtsNamespace::new(id, Arc::clone(user_ns), hostname.as_bytes(), b"(none)")
                }
            };
            new
        }
    };
    let domain = spec.domainname.as_ref().or_else(|| spec.sysctl.get(super::assemble::DOMAINNAME));
    if let Some(domain) = domain.filter(|_| uts.is_none()) {
        new.uts.set_domainname(domain.as_bytes().to_vec());
    }
    new.pid_for_children = Arc::clone(pid_ns);
    new.ipc = ipc;
    Ok(Arc::new(new))
}

impl Container {
    /// Builds a container up to the point where its first process can run; finds the program and fails
    /// with `NotFound` or `NotPermitted` if it cannot be run.
    pub fn build(
        kernel: &Arc<Kernel>,
        bell: &ExitBell,
        args: CreateArgs,
        others: &BTreeMap<String, Container>,
    ) -> Result<Container, BootError> {
        let CreateArgs { container: spec, stdio, extra_fds, gofer, gofer_life, memory_group } = args;
        let user_ns = ids::user_namespace(kernel, &spec)?;
        let creds = Arc::new(ids::boss(&user_ns)?);
        let pid_ns = match &spec.share.pid {
            Some(id) => Arc::clone(&others.get(id).ok_or_else(|| none_such(id))?.pid_ns),
            None => {
                // Below the root namespace, so that the runtime's own view is not the container's.
                let above = Arc::clone(&kernel.root_pid_ns);
                PidNamespace::new(kernel.next_ns_id(), Some(above), Arc::clone(&user_ns))
            }
        };
        let connection = Arc::new(Connection::new(gofer));
        let ipc = match &spec.share.ipc {
            Some(id) => Arc::clone(&others.get(id).ok_or_else(|| none_such(id))?.namespaces.ipc),
            None if others.is_empty() => IpcNamespace::first(Arc::clone(&user_ns)),
            None => kernel.new_ipc_ns(&user_ns),
        };
        let builder = Builder { kernel, creds: &creds, gofer: &connection, pid_ns: &pid_ns, ipc: &ipc };
        let mnt = builder.build(&spec)?;
        let namespaces = namespaces(kernel, &spec, &pid_ns, &user_ns, mnt, ipc, others)?;
        let memory = kernel.memfile.new_account();
        if let Some(group) = memory_group {
            memory.watch(group);
        }
        memory.set_limit(spec.limits.memory);
        let members = Members::new(spec.limits.pids, memory);
        let ringer = Arc::new(Ringer(bell.clone()));
        let oom_bell = members.news.register(ringer, Members::KILLED, false);
        let seccomp = spec.seccomp.as_ref().map(profile::compile).transpose()?;
        let place = Place {
            kernel,
            namespaces: Arc::clone(&namespaces),
            pid_ns: Arc::clone(&pid_ns),
            user_ns: Arc::clone(&user_ns),
            members: Arc::clone(&members),
            seccomp: seccomp.clone(),
        };
        let prepared = process::prepare(&place, &spec.process, Streams::Donated(stdio, extra_fds))?;
        Ok(Container {
            namespaces,
            pid_ns,
            user_ns,
            members,
            seccomp,
            init: watch(&prepared.task, bell),
            hooks: spec.start_hooks,
            process: spec.process,
            waiting: Some(prepared),
            paused: false,
            execs: BTreeMap::new(),
            gofer_life: Some(Arc::new(gofer_life)),
            _oom_bell: oom_bell,
        })
    }

    /// Where a further process of the container goes.
    pub fn place<'a>(&self, kernel: &'a Arc<Kernel>) -> Place<'a> {
        Place {
            kernel,
            namespaces: Arc::clone(&self.namespaces),
            pid_ns: Arc::clone(&self.pid_ns),
            user_ns: Arc::clone(&self.user_ns),
            members: Arc::clone(&self.members),
            seccomp: self.seccomp.clone(),
        }
    }

    pub fn status(&self) -> ContainerStatus {
        if self.waiting.is_some() {
            ContainerStatus::Created
        } else if self.init.group.is_dead() {
            ContainerStatus::Stopped
        } else if self.paused {
            ContainerStatus::Paused
        } else {
            ContainerStatus::Running
        }
    }

    pub fn running(&self) -> Result<(), ControlError> {
        match self.status() {
            ContainerStatus::Running | ContainerStatus::Paused => Ok(()),
            _ => Err(gone()),
        }
    }

    /// Its processes, and not those of others in the same PID namespace.
    pub fn groups(&self) -> Vec<Arc<ThreadGroup>> {
        let mut groups = self.pid_ns.groups();
        groups.retain(|g| Arc::ptr_eq(g.members(), &self.members));
        groups
    }

    /// A process by its number in the container; 0 is the first one.
    pub fn process(&self, pid: u32) -> Result<Arc<ThreadGroup>, ControlError> {
        if pid == 0 {
            return Ok(Arc::clone(&self.init.group));
        }
        let found = i32::try_from(pid).ok().and_then(|n| self.pid_ns.group(n));
        found.filter(|g| Arc::ptr_eq(g.members(), &self.members)).ok_or_else(|| {
            ControlError::new(ErrorKind::NoSuchProcess, format!("there is no process {pid} in the container"))
        })
    }

    pub fn freeze(&mut self, on: bool) {
        self.paused = on;
        for g in self.groups() {
            g.freeze(on);
        }
    }
}
