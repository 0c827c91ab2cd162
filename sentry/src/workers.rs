//! Host threads of tasks. A thread whose task has ended waits a while for another one: a new thread costs a dozen host
//! calls before it does anything.
//!
//! Here: where the threads come from. Not here: what they do (`run`).

use crate::run;
use abi::Errno;
use abi::signal::Signal;
use kernel::Task;
use kernel::task::ExitStatus;
use ksync::{LockClass, Mutex};
use platform::{FpuState, Registers};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Stack of a task's host thread. The loader and the VFS walk are the deepest.
const STACK: usize = 512 << 10;
/// Most threads that wait, and how long they do.
const WAITING: usize = 8;
const PATIENCE: Duration = Duration::from_secs(3);

struct Job {
    task: Arc<Task>,
    regs: Registers,
    fpu: Option<FpuState>,
}

/// The threads that wait, of a whole sandbox.
struct Workers {
    waiting: Mutex<Vec<(u64, SyncSender<Job>)>>,
}

impl Default for Workers {
    fn default() -> Workers {
        Workers { waiting: Mutex::new(LockClass::Leaf, Vec::new()) }
    }
}

/// Gives a new task a host thread on which it begins with these registers. `fpu`: floating-point state
/// other than that of a new program.
pub fn spawn(task: &Arc<Task>, regs: Registers, fpu: Option<FpuState>) -> Result<(), Errno> {
    let workers = task.kernel().extensions.get_or_init(Workers::default);
    let mut job = Job { task: Arc::clone(task), regs, fpu };
    loop {
        let Some((_, worker)) = workers.waiting.lock().pop() else { break };
        match worker.send(job) {
            Ok(()) => return Ok(()),
            Err(refused) => job = refused.0,
        }
    }
    let thread = std::thread::Builder::new().name(name(task)).stack_size(STACK);
    let first_tid = task.key();
    match thread.spawn(move || serve(&workers, first_tid, job)) {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!("no host thread for a task: {error}");
            task.exit(ExitStatus::killed(Signal::SIGKILL, false));
            Err(Errno::EAGAIN)
        }
    }
}

fn name(task: &Task) -> String {
    format!("task-{}", task.tid())
}

/// `id` is a number that no other thread has.
fn serve(workers: &Workers, id: u64, first: Job) {
    let mut next = Some(first);
    let (sender, receiver) = sync_channel(1);
    while let Some(Job { task, regs, fpu }) = next.take() {
        run::run(&task, regs, fpu);
        drop(task);
        {
            let mut waiting = workers.waiting.lock();
            if waiting.len() >= WAITING {
                return;
            }
            waiting.push((id, sender.clone()));
        }
        next = wait(workers, id, &receiver);
    }
}

fn wait(workers: &Workers, id: u64, jobs: &Receiver<Job>) -> Option<Job> {
    match jobs.recv_timeout(PATIENCE) {
        Ok(job) => Some(job),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => {
            let mut waiting = workers.waiting.lock();
            let before = waiting.len();
            waiting.retain(|(other, _)| *other != id);
            let still_there = waiting.len() < before;
            drop(waiting);
            // Who took the sender out of the list sends.
            if still_there { None } else { jobs.recv().ok() }
        }
    }
}
