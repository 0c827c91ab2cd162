//! OCI's startContainer hooks: programs of the image that run in the container before its first process does, one
//! after another, with the container's state on their standard input. The first that fails ends the container.

use super::process::{self, Place, Prepared, Streams};
use super::spec::{HookSpec, ProcessSpec};
use crate::control::server::ExitBell;
use crate::workers;
use kernel::Kernel;
use kernel::creds::UserNamespace;
use kernel::task::{ExitStatus, Members, Namespaces, PidNamespace};
use ksync::Listener;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// How often a wait looks up.
const STEP: Duration = Duration::from_millis(50);

/// What the hooks run in.
pub struct Hooks {
    pub kernel: Arc<Kernel>,
    pub namespaces: Arc<Namespaces>,
    pub pid_ns: Arc<PidNamespace>,
    pub user_ns: Arc<UserNamespace>,
    pub members: Arc<Members>,
    /// Whose user, directory and limits the hooks have.
    pub process: ProcessSpec,
    pub list: Vec<HookSpec>,
}

struct Ended(Sender<()>);

impl Listener for Ended {
    fn notify(&self, _mask: u32) -> bool {
        // Whoever waited has given up.
        let _ = self.0.send(());
        true
    }
}

fn exiting(init: &Prepared) -> Option<ExitStatus> {
    init.task.group().state().lock().exiting
}

impl Hooks {
    /// Runs the hooks on a thread of their own, since the control socket must be answered meanwhile, and then the
    /// first process.
    pub fn then_run(self, init: Prepared, bell: ExitBell) -> io::Result<()> {
        std::thread::Builder::new().name("hooks".to_owned()).spawn(move || {
            for (index, hook) in self.list.iter().enumerate() {
                if exiting(&init).is_some() {
                    break;
                }
                if let Err(reason) = self.one(hook, &init) {
                    tracing::error!("startContainer hook #{index}: {}: {reason}", hook.path);
                    init.task.group().begin_exit(ExitStatus::exited(1));
                    break;
                }
            }
            if let Some(status) = exiting(&init) {
                init.task.exit(status);
                bell.ring();
            } else if let Err(error) = workers::spawn(&init.task, init.regs, None) {
                tracing::error!("cannot start the first process: {error}");
                bell.ring();
            }
        })?;
        Ok(())
    }

    fn one(&self, hook: &HookSpec, init: &Prepared) -> Result<(), String> {
        let place = Place {
            kernel: &self.kernel,
            namespaces: Arc::clone(&self.namespaces),
            pid_ns: Arc::clone(&self.pid_ns),
            user_ns: Arc::clone(&self.user_ns),
            members: Arc::clone(&self.members),
            seccomp: None,
        };
        let args = if hook.args.is_empty() { vec![hook.path.clone()] } else { hook.args.clone() };
        let spec = ProcessSpec { args, env: hook.env.clone(), terminal: false, ..self.process.clone() };
        let program = Some(hook.path.as_bytes());
        let prepared = process::prepare_program(&place, &spec, program, Streams::Text(hook.state.clone()))
            .map_err(|e| e.message)?;
        let group = Arc::clone(prepared.task.group());
        let (sender, ended) = channel();
        let _watch = group.pid().exited.register(Arc::new(Ended(sender)), u32::MAX, false);
        workers::spawn(&prepared.task, prepared.regs, None).map_err(|e| e.to_string())?;
        let end = hook.timeout.map(|s| Instant::now() + Duration::from_secs(s.into()));
        // In steps, since the container may be killed meanwhile.
        while ended.recv_timeout(STEP).is_err() {
            let late = end.is_some_and(|end| Instant::now() >= end);
            if late || exiting(init).is_some() {
                group.begin_exit(ExitStatus::killed(abi::signal::Signal::SIGKILL, false));
                let seconds = hook.timeout.unwrap_or(0);
                return Err(if late {
                    format!("no end after {seconds} s, killed")
                } else {
                    "killed".to_owned()
                });
            }
        }
        match group.exit_status() {
            Some(status) if status.signal().is_none() && status.code() == 0 => Ok(()),
            Some(status) => match status.signal() {
                Some(signal) => Err(format!("killed by signal {}", signal.number())),
                None => Err(format!("exit status {}", status.code())),
            },
            None => Err("its end is not known".to_owned()),
        }
    }
}
