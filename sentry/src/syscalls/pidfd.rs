//! pidfd_open(2), pidfd_getfd(2), pidfd_send_signal(2).

use super::signal::check_given;
use crate::Current;
use abi::fcntl::OpenFlags;
use abi::siginfo::SigInfo;
use abi::signal::code;
use abi::{Errno, Result};
use fs::pidfd::PidFd;
use kernel::signal::Sender;
use kernel::task::Pid;
use kernel::uaccess::UserPtr;
use kernel::vfs::{Fd, File};
use kernel::{SysResult, Task};
use std::sync::Arc;

/// `PIDFD_NONBLOCK` is `O_NONBLOCK`, `PIDFD_THREAD` is `O_EXCL`.
const NONBLOCK: u32 = 0o4000;
const THREAD: u32 = 0o200;

/// What a pidfd refers to.
pub fn pid_of(file: &File) -> Option<Arc<Pid>> {
    file.ops_as::<PidFd>().map(|p| Arc::clone(p.pid()))
}

/// A descriptor for a task's process, or for the thread alone.
pub fn open_for(t: &Current<'_>, task: &Arc<Task>, thread: bool, nonblock: bool) -> Result<i32> {
    let pid = if thread { task.pid() } else { Arc::clone(task.group().pid()) };
    open_pid(t, pid, thread, nonblock)
}

pub(super) fn open_pid(t: &Current<'_>, pid: Arc<Pid>, thread: bool, nonblock: bool) -> Result<i32> {
    let mut flags = OpenFlags::RDWR;
    if nonblock {
        flags |= OpenFlags::NONBLOCK;
    }
    let file = fs::anon::other_file(t.kernel(), "[pidfd]", PidFd::new(pid, thread), flags, t.creds());
    let fd = t.install_fd(file, true)?;
    i32::try_from(fd).map_err(|_| Errno::EMFILE)
}

pub fn pidfd_open(t: &mut Current<'_>, pid: i32, flags: u32) -> SysResult {
    if flags & !(NONBLOCK | THREAD) != 0 || pid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let found = t.pid_ns().find(pid).ok_or(Errno::ESRCH)?;
    let thread = flags & THREAD != 0;
    if found.task().is_none() {
        return Err(Errno::ESRCH.into());
    }
    if !thread && found.group().is_none() {
        // A thread that is no leader.
        return Err(Errno::ENOENT.into());
    }
    Ok(u64::from(open_pid(t, found, thread, flags & NONBLOCK != 0)?.unsigned_abs()))
}

pub fn pidfd_send_signal(
    t: &mut Current<'_>,
    fd: Fd,
    signal: i32,
    info: UserPtr<SigInfo>,
    flags: u32,
) -> SysResult {
    const SCOPES: u32 = 7;
    if flags & !SCOPES != 0 || flags.count_ones() > 1 {
        return Err(Errno::EINVAL.into());
    }
    let file = t.files().get(fd)?;
    // A directory of /proc will do as well.
    let pidfd = file.ops_as::<PidFd>();
    let pid = match pidfd {
        Some(p) => Arc::clone(p.pid()),
        None => fs::proc::pid_of(file.path().inode()?).ok_or(Errno::EBADF)?,
    };
    if pid.number_in(&t.pid_ns()).is_none() {
        return Err(Errno::EINVAL.into());
    }
    if !(0..=64).contains(&signal) {
        return Err(Errno::EINVAL.into());
    }
    let what = match info.optional() {
        None => Sender::Kill(code::SI_USER),
        Some(p) => {
            let given = p.read(&t.mm())?;
            if given.signo != signal {
                return Err(Errno::EINVAL.into());
            }
            let own = pid.task().is_some_and(|x| Arc::ptr_eq(&x, t.task));
            check_given(&given, own)?;
            Sender::Given(given)
        }
    };
    let scope = match flags {
        0 if pidfd.is_some_and(PidFd::is_thread) => 1,
        0 => 2,
        f => f,
    };
    match scope {
        1 => {
            let tid = pid.number_in(&t.pid_ns()).unwrap_or(0);
            let what = if let Sender::Kill(_) = what { Sender::Kill(code::SI_TKILL) } else { what };
            t.kill_thread(None, tid, signal, what)?;
        }
        4 => {
            let group = pid.process_group().ok_or(Errno::ESRCH)?;
            let mut result = Err(Errno::ESRCH);
            for m in group.members() {
                let r = t.queue_signal_to(m.pid(), signal, what);
                if result.is_err() {
                    result = r;
                }
            }
            result?;
        }
        _ => t.queue_signal_to(&pid, signal, what)?,
    }
    Ok(0)
}

pub fn pidfd_getfd(t: &mut Current<'_>, pidfd: Fd, target: Fd, flags: u32) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = t.files().get(pidfd)?;
    let pid = pid_of(&file).ok_or(Errno::EBADF)?;
    let task = pid.task().ok_or(Errno::ESRCH)?;
    if !t.may_trace(&task) {
        return Err(Errno::EPERM.into());
    }
    let files = task.try_files().ok_or(Errno::ESRCH)?;
    let theirs = files.get(target)?;
    Ok(t.install_fd(theirs, true)?)
}

/// process_mrelease(2): a process that is being killed gives its memory back. It does so by itself here as soon as its threads
/// look up, so nothing is left but the checks.
pub fn process_mrelease(t: &mut Current<'_>, fd: Fd, flags: u32) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = t.files().get(fd)?;
    let pid = pid_of(&file).ok_or(Errno::EBADF)?;
    let group = pid.group().ok_or(Errno::ESRCH)?;
    if group.is_dead() {
        return Err(Errno::ESRCH.into());
    }
    if group.state().lock().exiting.is_none() {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}
