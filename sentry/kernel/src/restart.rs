//! What a system call may end with beyond a value or an error: a wish to be restarted.
//!
//! These codes never reach a guest; signal delivery turns them into EINTR or a restart.

use abi::Errno;

/// How an interrupted call wants to go on (signal(7), "Interruption of system calls").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Restart if the handler has `SA_RESTART` or there is no handler; else EINTR (`ERESTARTSYS`).
    Sys,
    /// Restart only if no handler runs (`ERESTARTNOHAND`).
    NoHandler,
    /// Always restart (`ERESTARTNOINTR`).
    NoIntr,
    /// Restart through `restart_syscall(2)` if no handler runs; the task's restart block says how
    /// (`ERESTART_RESTARTBLOCK`).
    Block,
}

/// The unsuccessful end of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysError {
    /// An error the guest will see.
    Errno(Errno),
    /// A signal came first.
    Restart(Restart),
    /// The registers are already what the guest shall see (rt_sigreturn, execve).
    NoReturn,
}

/// The result of a system call: the value for `rax`.
pub type SysResult = Result<u64, SysError>;

impl From<Errno> for SysError {
    fn from(e: Errno) -> Self {
        SysError::Errno(e)
    }
}

impl From<Restart> for SysError {
    fn from(r: Restart) -> SysError {
        SysError::Restart(r)
    }
}
