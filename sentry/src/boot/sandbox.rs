//! The sandbox as the control socket sees it: its containers and what can be done with them.

use super::BootError;
use super::container::{Container, gone, none_such, watch};
use super::hooks;
use super::process::{self, Streams};
use super::spec::{Limits, WindowSize};
use crate::control::protocol::{
    ContainerStatus, ControlError, ErrorKind, ExitStatus, ProcessInfo, SignalTarget, Stats, WaitTarget,
};
use crate::control::server::ExitBell;
use crate::control::{CreateArgs, ExecArgs, SandboxOps};
use crate::workers;
use abi::siginfo::SigInfo;
use abi::signal::{Signal, code};
use kernel::Kernel;
use kernel::signal::{DefaultAction, default_action};
use kernel::task::{OtherNamespace, ThreadGroup};
use ksync::{LockClass, Mutex};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

/// All containers of a sandbox.
pub struct Sandbox {
    kernel: Arc<Kernel>,
    /// The network namespace of the first container.
    net: Arc<OtherNamespace>,
    bell: ExitBell,
    containers: Mutex<BTreeMap<String, Container>>,
    /// The container whose end is the sandbox' end.
    main: String,
}

fn status_of(group: &ThreadGroup) -> Option<ExitStatus> {
    group.exit_status().map(|s| match s.signal() {
        Some(sig) => ExitStatus::Signal(sig.number()),
        None => ExitStatus::Code(s.code()),
    })
}

impl Sandbox {
    /// A sandbox with its first container, created and not started.
    pub fn new(
        kernel: Arc<Kernel>,
        bell: ExitBell,
        id: String,
        args: CreateArgs,
    ) -> Result<Arc<Sandbox>, BootError> {
        let first = Container::build(&kernel, &bell, args, &BTreeMap::new())?;
        let net = Arc::clone(&first.namespaces.net);
        let containers = BTreeMap::from([(id.clone(), first)]);
        let containers = Mutex::new(LockClass::Sandbox, containers);
        Ok(Arc::new(Sandbox { kernel, net, bell, containers, main: id }))
    }

    /// The stack of the first container, which others of a pod share.
    pub fn stack(&self) -> Arc<netstack::Stack> {
        fs::socket::inet::stack_of(&self.kernel, &self.net)
    }

    /// The network namespace of the first container.
    pub fn net(&self) -> Arc<OtherNamespace> {
        Arc::clone(&self.net)
    }

    fn with<R>(
        &self,
        id: &str,
        f: impl FnOnce(&mut Container) -> Result<R, ControlError>,
    ) -> Result<R, ControlError> {
        let mut all = self.containers.lock();
        let c = all.get_mut(id).ok_or_else(|| none_such(id))?;
        f(c)
    }
}

impl SandboxOps for Sandbox {
    fn create(&self, container: &str, args: CreateArgs) -> Result<(), ControlError> {
        let mut all = self.containers.lock();
        if all.contains_key(container) {
            let text = format!("container {container:?} is in this sandbox already");
            return Err(ControlError::new(ErrorKind::Invalid, text));
        }
        let new = Container::build(&self.kernel, &self.bell, args, &all)?;
        all.insert(container.to_owned(), new);
        Ok(())
    }

    fn delete(&self, container: &str) -> Result<(), ControlError> {
        if container == self.main {
            let text = "the sandbox's first container goes with the sandbox";
            return Err(ControlError::new(ErrorKind::Invalid, text));
        }
        self.signal(container, SignalTarget::All, Signal::SIGKILL.number().into())?;
        // Not under the lock: what is dropped closes files.
        let removed = self.containers.lock().remove(container);
        drop(removed);
        Ok(())
    }

    fn set_limits(&self, container: &str, limits: &Limits) -> Result<(), ControlError> {
        self.with(container, |c| {
            c.members.set_limit(limits.pids);
            c.members.memory().set_limit(limits.memory);
            Ok(())
        })?;
        if container == self.main {
            super::assemble::apply_limits(&self.kernel, limits);
        }
        Ok(())
    }

    fn gofer_lives(&self) -> Vec<(String, Arc<OwnedFd>)> {
        let all = self.containers.lock();
        all.iter().filter_map(|(id, c)| Some((id.clone(), Arc::clone(c.gofer_life.as_ref()?)))).collect()
    }

    fn gofer_gone(&self, container: &str) {
        let died = self.with(container, |c| {
            c.gofer_life = None;
            Ok(())
        });
        if died.is_ok() {
            tracing::error!("the gofer of container {container:?} is gone; its processes are killed");
            let _ = self.signal(container, SignalTarget::All, Signal::SIGKILL.number().into());
        }
    }

    fn status(&self, container: &str) -> Result<ContainerStatus, ControlError> {
        self.with(container, |c| Ok(c.status()))
    }

    fn start(&self, container: &str) -> Result<(), ControlError> {
        self.with(container, |c| {
            let Some(p) = c.waiting.take() else {
                let text = "cannot start a container that is not in the created state";
                return Err(ControlError::new(ErrorKind::WrongStatus, text));
            };
            let failed = |e: &dyn std::fmt::Display| {
                ControlError::new(ErrorKind::Internal, format!("cannot start the first process: {e}"))
            };
            let _ = c.members.started.set(self.kernel.clocks.monotonic());
            if c.hooks.is_empty() {
                return workers::spawn(&p.task, p.regs, None).map_err(|e| failed(&e));
            }
            let hooks = hooks::Hooks {
                kernel: Arc::clone(&self.kernel),
                namespaces: Arc::clone(&c.namespaces),
                pid_ns: Arc::clone(&c.pid_ns),
                user_ns: Arc::clone(&c.user_ns),
                members: Arc::clone(&c.members),
                process: c.process.clone(),
                list: std::mem::take(&mut c.hooks),
            };
            hooks.then_run(p, self.bell.clone()).map_err(|e| failed(&e))
        })
    }

    fn exec(&self, container: &str, args: ExecArgs) -> Result<u32, ControlError> {
        self.with(container, |c| {
            c.running()?;
            // An engine may have copied files into the container's root before.
            c.namespaces.mnt.root_mount().fs.look_again();
            let place = c.place(&self.kernel);
            let p = process::prepare(&place, &args.process, Streams::Donated(args.stdio, args.extra_fds))?;
            let number = p.task.pid().number_in(&c.pid_ns).unwrap_or(0).unsigned_abs();
            let started = watch(&p.task, &self.bell);
            workers::spawn(&p.task, p.regs, None).map_err(|e| {
                ControlError::new(ErrorKind::Internal, format!("cannot start the process: {e}"))
            })?;
            c.execs.insert(number, started);
            Ok(number)
        })
    }

    fn exit_status(&self, container: &str, target: WaitTarget) -> Result<Option<ExitStatus>, ControlError> {
        self.with(container, |c| match target {
            WaitTarget::Init => Ok(status_of(&c.init.group)),
            WaitTarget::Process(pid) => match c.execs.get(&pid) {
                Some(s) => Ok(status_of(&s.group)),
                None => {
                    let text = format!("no process {pid} was started in the container");
                    Err(ControlError::new(ErrorKind::NoSuchProcess, text))
                }
            },
        })
    }

    fn oom_kills(&self, container: &str) -> Result<u64, ControlError> {
        self.with(container, |c| Ok(c.members.oom_kills()))
    }

    fn forget(&self, container: &str, pid: u32) {
        let _ = self.with(container, |c| {
            c.execs.remove(&pid);
            Ok(())
        });
    }

    fn signal(&self, container: &str, target: SignalTarget, signo: i32) -> Result<(), ControlError> {
        let signal = match signo {
            0 => None,
            n => Some(
                Signal::new(n)
                    .ok_or_else(|| ControlError::new(ErrorKind::Invalid, format!("no signal {n}")))?,
            ),
        };
        // A created container: a signal that a program dies of without a handler ends it before it began.
        let deadly =
            signal.filter(|s| matches!(default_action(*s), DefaultAction::Terminate | DefaultAction::Core));
        let unborn = self.with(container, |c| match deadly {
            Some(s) if matches!(target, SignalTarget::Init | SignalTarget::All) => {
                Ok(c.waiting.take().map(|p| (p, s)))
            }
            _ => Ok(None),
        })?;
        if let Some((prepared, s)) = unborn {
            // Not under the lock: the end of a task closes files and wakes others.
            let status = kernel::task::ExitStatus::killed(s, false);
            prepared.task.group().begin_exit(status);
            prepared.task.exit(status);
            self.bell.ring();
            return Ok(());
        }
        self.with(container, |c| {
            if c.waiting.is_some() {
                return Ok(());
            }
            // In a PID namespace that is not its own it may have left others behind.
            if c.init.group.is_dead() && !matches!(target, SignalTarget::All) {
                return Err(gone());
            }
            let groups = match target {
                SignalTarget::Init => vec![Arc::clone(&c.init.group)],
                SignalTarget::All => c.groups(),
                SignalTarget::Process(pid) => vec![c.process(pid)?],
                SignalTarget::Foreground(pid) => match c.process(pid)?.tty().and_then(|t| t.foreground()) {
                    Some(pgrp) => pgrp.members(),
                    None => vec![c.process(pid)?],
                },
            };
            if let Some(s) = signal {
                for g in groups {
                    g.send_signal(&SigInfo::user(s, code::SI_USER, 0, 0));
                }
            }
            Ok(())
        })
    }

    fn processes(&self, container: &str) -> Result<Vec<ProcessInfo>, ControlError> {
        let clocks = &self.kernel.clocks;
        let epoch = clocks.realtime() - clocks.monotonic();
        self.with(container, |c| {
            c.running()?;
            let number = |g: &ThreadGroup| g.pid().number_in(&c.pid_ns).unwrap_or(0).unsigned_abs();
            Ok(c.groups()
                .iter()
                .map(|g| {
                    let task = g.live_thread();
                    let (user, system) = g.cpu_time();
                    let leader = g.leader();
                    let command = leader.as_ref().map(|t| t.comm()).unwrap_or_default();
                    ProcessInfo {
                        uid: g.leader_creds().euid,
                        pid: number(g),
                        ppid: g.parent().map_or(0, |p| number(&p)),
                        threads: u32::try_from(g.threads().len()).unwrap_or(u32::MAX),
                        state: task.map_or('Z', |t| t.state_letter()),
                        start_time: u64::try_from((g.start_time + epoch) / 1_000_000_000).unwrap_or(0),
                        cpu_ms: u64::try_from((user + system) / 1_000_000).unwrap_or(0),
                        tty: g.tty().map(|t| t.name()).unwrap_or_default(),
                        command: String::from_utf8_lossy(&command).into_owned(),
                    }
                })
                .collect())
        })
    }

    fn pause(&self, container: &str) -> Result<(), ControlError> {
        self.with(container, |c| {
            c.running()?;
            c.freeze(true);
            Ok(())
        })
    }

    fn resume(&self, container: &str) -> Result<(), ControlError> {
        self.with(container, |c| {
            c.running()?;
            c.freeze(false);
            Ok(())
        })
    }

    fn stats(&self, container: &str) -> Result<Stats, ControlError> {
        self.with(container, |c| {
            let groups = c.groups();
            let children = c.init.group.children_usage();
            let (mut user, mut system) = (children.user, children.system);
            for g in &groups {
                let (u, s) = g.cpu_time();
                user += u;
                system += s;
            }
            let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
            Ok(Stats {
                processes: count(groups.len()),
                threads: groups.iter().map(|g| count(g.threads().len())).sum(),
                cpu_user_ns: u64::try_from(user).unwrap_or(0),
                cpu_system_ns: u64::try_from(system).unwrap_or(0),
                memory_anonymous: c.members.memory().used(),
                memory_files: 0,
                memory_peak: c.members.memory().peak(),
                oom_kills: c.members.oom_kills(),
            })
        })
    }

    fn resize(&self, container: &str, pid: u32, size: WindowSize) -> Result<(), ControlError> {
        self.with(container, |c| {
            let started = if pid == 0 { Some(&c.init) } else { c.execs.get(&pid) };
            let given = started.and_then(|s| s.terminal.as_ref()).and_then(Weak::upgrade);
            let own = || c.process(pid).map(|group| group.tty());
            let tty = given.map_or_else(own, |t| Ok(Some(t)))?.ok_or_else(|| {
                ControlError::new(ErrorKind::Invalid, format!("process {pid} has no terminal"))
            })?;
            tty.resize(size.rows, size.columns);
            Ok(())
        })
    }

    fn finished(&self) -> Option<ExitStatus> {
        let status = self.containers.lock().get(&self.main).and_then(|c| status_of(&c.init.group))?;
        // What its programs have asked for in vain: the last lines of the sandbox's log.
        for (gap, times) in self.kernel.gaps.snapshot() {
            tracing::info!(gap, times, "met");
        }
        Some(status)
    }
}
