//! The task that runs: what a system call handler is given.

use abi::Result;
use kernel::uaccess::UserPtr;
use kernel::vfs::{Fd, File};
use kernel::{SysResult, Task};
use platform::{Context, Registers};
use std::ops::Deref;
use std::sync::Arc;

/// The calling task with its registers. Passed explicitly: nothing of the sentry depends on which
/// host thread runs it.
pub struct Current<'a> {
    pub task: &'a Arc<Task>,
    /// The guest's registers; `rip` is after the `syscall` instruction.
    pub regs: &'a mut Registers,
    /// The platform's side of the guest thread (floating point state).
    pub context: &'a mut dyn Context,
}

impl Deref for Current<'_> {
    type Target = Task;
    fn deref(&self) -> &Task {
        self.task
    }
}

impl Current<'_> {
    /// How many descriptors the task may have open (`RLIMIT_NOFILE`).
    pub fn fd_limit(&self) -> u64 {
        self.group().soft_limit(abi::resource::Resource::Nofile)
    }

    /// Gives an open file the lowest free descriptor, as a call's result.
    pub fn install_fd(&self, file: Arc<File>, cloexec: bool) -> Result<u64> {
        let limit = usize::try_from(self.fd_limit()).unwrap_or(usize::MAX);
        let fd = self.files().install(file, cloexec, 0, limit)?;
        Ok(u64::from(fd.0.unsigned_abs()))
    }

    /// Gives two open files descriptors and writes those to guest memory; neither stays if that fails.
    pub fn install_pair(&self, files: [Arc<File>; 2], cloexec: bool, out: UserPtr<[i32; 2]>) -> SysResult {
        let [a, b] = files;
        let limit = usize::try_from(self.fd_limit()).unwrap_or(usize::MAX);
        let table = self.files();
        let first = table.install(a, cloexec, 0, limit)?;
        let forget = |fd: Fd| drop(table.remove(fd));
        let second = match table.install(b, cloexec, 0, limit) {
            Ok(fd) => fd,
            Err(e) => {
                forget(first);
                return Err(e.into());
            }
        };
        if let Err(e) = out.write(&self.mm(), &[first.0, second.0]) {
            forget(first);
            forget(second);
            return Err(e.into());
        }
        Ok(0)
    }
}
