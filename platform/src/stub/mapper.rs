//! The sentry's end of a mapper thread: runs batches of commands in a stub process.

use super::control::Slot;
use super::layout;
use crate::error::PlatformError;
use hostsys::futex;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A system call for the mapper. Only the sentry decides its arguments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    /// SYS_*.
    pub(super) nr: i64,
    /// Arguments.
    pub(super) args: [u64; 6],
    /// Whether the result is wanted (else only failures are reported).
    pub(super) report: bool,
}

/// Why a batch did not finish.
#[derive(Debug)]
pub(super) enum BatchError {
    /// Command `index` failed; those before it took effect.
    Failed {
        /// Which of the commands.
        index: usize,
        /// Errno.
        errno: i32,
    },
    /// The process is gone.
    Dead,
}

impl BatchError {
    pub(super) fn into_platform(self, what: &'static str) -> PlatformError {
        match self {
            BatchError::Failed { errno, .. } => PlatformError::errno(what, errno),
            BatchError::Dead => PlatformError::Dead,
        }
    }
}

/// A mapper thread, the first thread of process `pid`.
pub(super) struct Mapper {
    slot: Slot,
    pid: AtomicI32,
    dead: AtomicBool,
    /// Held during a batch. The processor the thread is bound to.
    lock: Mutex<Option<u32>>,
}

/// How long the sentry sleeps before it looks whether the process still lives.
const LOOK: Duration = Duration::from_millis(50);
/// After this time a living mapper that does not answer is given up.
const GIVE_UP: Duration = Duration::from_secs(20);

impl Mapper {
    pub(super) fn new(slot: Slot) -> Mapper {
        Mapper { slot, pid: AtomicI32::new(0), dead: AtomicBool::new(false), lock: Mutex::new(None) }
    }

    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.load(Relaxed)
    }

    pub(super) fn set_pid(&self, pid: i32) {
        self.pid.store(pid, Relaxed);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    pub(super) fn set_dead(&self) {
        self.dead.store(true, Relaxed);
    }

    /// Runs the commands in order; returns the last reported result (0 if none asked for one).
    pub(super) fn run(&self, commands: &[Command]) -> Result<i32, BatchError> {
        let mut bound = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.come_here(&mut bound);
        let mut result = 0;
        let mut before = 0;
        // One round also for an empty list: it shows that the mapper is there.
        for batch in commands.chunks(layout::CMD_MAX).chain(commands.is_empty().then_some(&commands[..0])) {
            match self.batch(batch) {
                Ok(r) => result = r,
                Err(BatchError::Failed { index, errno }) => {
                    return Err(BatchError::Failed { index: before + index, errno });
                }
                Err(e) => return Err(e),
            }
            before += batch.len();
        }
        Ok(result)
    }

    /// Binds the thread to the caller's processor. The caller is about to sleep until the batch is done, so this one is free, while
    /// waking another, idle processor can take longer than all the rest.
    fn come_here(&self, bound: &mut Option<u32>) {
        let pid = self.pid();
        if let Some(here) = hostsys::process::current_cpu()
            && *bound != Some(here)
            && pid != 0
            && hostsys::process::set_affinity(pid, &[here as usize]).is_ok()
        {
            *bound = Some(here);
        }
    }

    fn batch(&self, commands: &[Command]) -> Result<i32, BatchError> {
        if self.is_dead() {
            return Err(BatchError::Dead);
        }
        let word = |off| self.slot.word(off);
        for (i, command) in commands.iter().enumerate() {
            let at = layout::CMD_LIST + 64 * i;
            self.slot.long(at).store(command.nr.cast_unsigned(), Relaxed);
            for (k, arg) in command.args.iter().enumerate() {
                self.slot.long(at + 8 + 8 * k).store(*arg, Relaxed);
            }
            self.slot.long(at + 56).store(command.report.into(), Relaxed);
        }
        word(layout::CMD_COUNT).store(commands.len() as u32, Relaxed);
        word(layout::CMD_RESULT).store(0, Relaxed);
        word(layout::CMD_FAILED).store(0, Relaxed);
        word(layout::CMD_WAITING).store(0, Relaxed);
        let number = word(layout::CMD_POST).load(Relaxed).wrapping_add(1);
        word(layout::CMD_POST).store(number, SeqCst);
        futex::wake(word(layout::CMD_POST), 1);
        self.wait(number)?;
        let result = word(layout::CMD_RESULT).load(Relaxed).cast_signed();
        if result < 0 {
            let index = (word(layout::CMD_FAILED).load(Relaxed) & 0xff) as usize;
            return Err(BatchError::Failed { index, errno: -result });
        }
        Ok(result)
    }

    fn wait(&self, number: u32) -> Result<(), BatchError> {
        let done = self.slot.word(layout::CMD_DONE);
        if done.load(Acquire) == number {
            return Ok(());
        }
        self.slot.word(layout::CMD_WAITING).store(1, SeqCst);
        let start = Instant::now();
        loop {
            let seen = done.load(SeqCst);
            if seen == number {
                return Ok(());
            }
            futex::wait(done, seen, Some(LOOK));
            if start.elapsed() >= LOOK && done.load(SeqCst) != number {
                let pid = self.pid();
                if pid != 0 && has_exited(pid) {
                    self.set_dead();
                    return Err(BatchError::Dead);
                }
                if pid != 0 && start.elapsed() > GIVE_UP {
                    tracing::error!(
                        pid,
                        "the mapper thread of a stub process does not answer; the process is killed"
                    );
                    kill(pid, libc::SIGKILL);
                    // Whoever hears "dead" gives the memory to others. With ptrace the end is only seen once every tracer has looked,
                    // so there is a limit; by then no thread of it runs any more.
                    for _ in 0..100 {
                        if has_exited(pid) {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    self.set_dead();
                    return Err(BatchError::Dead);
                }
                // Someone may have stopped it.
                kill(pid, libc::SIGCONT);
            }
        }
    }
}

/// Whether a child has ended, without reaping it.
pub(super) fn has_exited(pid: i32) -> bool {
    // SAFETY: all-zero is a valid siginfo.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: `info` is live.
    let rc = unsafe { libc::waitid(libc::P_PID, pid.cast_unsigned(), &mut info, options) };
    // SAFETY: waitid filled a SIGCHLD siginfo or left it zero.
    rc != 0 || unsafe { info.si_pid() } == pid
}

/// Sends a signal to a stub process that was not reaped yet (so the number is still its own).
pub(super) fn kill(pid: i32, signal: i32) {
    if pid > 1 {
        // SAFETY: plain numbers.
        unsafe { libc::kill(pid, signal) };
    }
}
