//! Processes: fork without exec from a single-threaded process, waiting, and settings of the own process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::AssertUnwindSafe;

use crate::PAGE;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

bitflags::bitflags! {
    /// Namespaces, with the values of CLONE_NEW*.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Namespaces: i32 {
        /// Mount namespace.
        const MOUNT = libc::CLONE_NEWNS;
        /// Cgroup namespace.
        const CGROUP = libc::CLONE_NEWCGROUP;
        /// Host name.
        const UTS = libc::CLONE_NEWUTS;
        /// System V IPC and POSIX queues.
        const IPC = libc::CLONE_NEWIPC;
        /// User namespace.
        const USER = libc::CLONE_NEWUSER;
        /// PID namespace.
        const PID = libc::CLONE_NEWPID;
        /// Network namespace.
        const NET = libc::CLONE_NEWNET;
    }
}

/// A host process id.
pub type Pid = i32;

/// A forked child.
#[derive(Debug)]
pub struct Child {
    /// As the parent sees it.
    pub pid: Pid,
    /// Refers to exactly this process, also after its death.
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With a status.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Exit {
    /// As shells and runc print it: the status, or 128 plus the signal.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(c) => c,
            Exit::Signal(s) => 128 + s,
        }
    }
}

/// How [`fork_run`] forks.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForkOptions {
    /// New namespaces for the child.
    pub namespaces: Namespaces,
    /// The child becomes a sibling (child of this process's parent).
    pub sibling: bool,
}

/// Number of threads of this process, from /proc/self/task.
pub fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Forks; the child runs `f` and exits with its value (a panic: 101). It shares nothing with the parent but descriptors, so it may use
/// everything, since no other thread can have held a lock: the call fails (EBUSY) if this process has a second thread or if
/// that cannot be told.
pub fn fork_run(options: ForkOptions, f: impl FnOnce() -> i32) -> io::Result<Child> {
    match thread_count() {
        Ok(1) => {}
        Ok(n) => {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("fork in a process with {n} threads"),
            ));
        }
        Err(e) => {
            return Err(io::Error::new(e.kind(), format!("cannot count threads in /proc/self/task: {e}")));
        }
    }
    fork(options, f)
}

/// Starts a process that waits for `go` (an eventfd), uses up to `bytes` of memory and ends: whether the host lets it is for its
/// caller to see.
pub fn use_up(bytes: usize, go: BorrowedFd<'_>) -> io::Result<Child> {
    // Made here and touched there: another thread may hold a lock of malloc's now, for ever in the child.
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
    fork(ForkOptions::default(), || {
        if rustix::io::read(go, &mut [0; 8]).is_err() {
            return 1;
        }
        for page in memory.spare_capacity_mut().iter_mut().step_by(PAGE as usize) {
            std::hint::black_box(page.write(1));
        }
        0
    })
}

/// The fork of [`fork_run`]. If the process has other threads, `f` allocates nothing and takes no lock.
fn fork(options: ForkOptions, f: impl FnOnce() -> i32) -> io::Result<Child> {
    let mut pidfd: libc::c_int = -1;
    let mut flags = libc::CLONE_PIDFD | options.namespaces.bits();
    flags |= if options.sibling { libc::CLONE_PARENT } else { libc::SIGCHLD };
    // SAFETY: a fork (no CLONE_VM): the child has its own copy of everything, and uses only what no other thread can have
    // locked. With CLONE_PIDFD the third argument receives the descriptor.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, &raw mut pidfd, 0usize, 0usize) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(AssertUnwindSafe(f)).unwrap_or(101);
            exit_now(code)
        }
        // SAFETY: the kernel made a new descriptor for us.
        pid => Ok(Child { pid: pid as Pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Ends the process without running exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: no preconditions.
    unsafe { libc::_exit(code) }
}

impl Child {
    /// Waits for the end of the process and reaps it.
    pub fn wait(&self) -> io::Result<Exit> {
        loop {
            match wait_pidfd(self.pidfd.as_raw_fd(), 0) {
                Ok(Some(exit)) => return Ok(exit),
                Ok(None) => continue,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
        }
    }

    /// Reaps the process if it has ended.
    pub fn try_wait(&self) -> io::Result<Option<Exit>> {
        wait_pidfd(self.pidfd.as_raw_fd(), libc::WNOHANG)
    }

    /// Sends a signal; it can only reach this process.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        use std::os::fd::AsFd;
        pidfd_send_signal(self.pidfd.as_fd(), signal)
    }
}

fn wait_pidfd(fd: i32, flags: i32) -> io::Result<Option<Exit>> {
    // SAFETY: all-zero is a valid siginfo.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is live for the call.
    let rc = unsafe {
        libc::waitid(libc::P_PIDFD, fd as libc::id_t, &mut info, libc::WEXITED | libc::__WALL | flags)
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid filled the fields of a SIGCHLD siginfo, or left them zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some(if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) }))
}

/// pidfd_open(2). Works for any process, not only children.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    let pid =
        rustix::process::Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// pidfd_send_signal(2); signal 0 only checks.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no siginfo is passed.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn prctl(option: i32, arg: usize) -> io::Result<()> {
    // SAFETY: only used below with options whose argument is a number.
    match unsafe { libc::prctl(option, arg, 0usize, 0usize, 0usize) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Sets the name of the calling thread (for the main thread: comm of the process); cut at 15 bytes.
pub fn set_name(name: &str) -> io::Result<()> {
    let cut = name.as_bytes().iter().take(15).take_while(|b| **b != 0).copied();
    let name = std::ffi::CString::new(cut.collect::<Vec<u8>>())?;
    Ok(rustix::thread::set_name(&name)?)
}

/// The signal this process gets when the thread that forked it ends; 0 for none. Check afterwards that the parent still lives.
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as usize)
}

/// Whether others of the same user may trace this process and read its memory.
pub fn set_dumpable(on: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, usize::from(on))
}

/// PR_SET_NO_NEW_PRIVS.
pub fn set_no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// PR_SET_CHILD_SUBREAPER.
pub fn set_child_subreaper(on: bool) -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, usize::from(on))
}

/// PR_SET_KEEPCAPS: keep permitted capabilities when the user id changes.
pub fn set_keep_caps(on: bool) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, usize::from(on))
}

/// Changes real, effective and saved ids of the process, groups first. Needs the capabilities; single-threaded processes only
/// (the raw calls act on the calling thread).
pub fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: plain numbers, and a live array with its length.
    let ok = unsafe {
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
            && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
    };
    if ok { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the ids without touching the supplementary groups (in user namespaces where setgroups is denied).
pub fn set_ids_keep_groups(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: plain numbers.
    let ok = unsafe {
        libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
            && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
    };
    if ok { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// setrlimit(2) of this process; `resource` is RLIMIT_*.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: a live rlimit.
    match unsafe { libc::setrlimit(resource, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The processors a thread may run on (0: the calling one).
pub fn affinity(tid: Pid) -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(rustix::process::Pid::from_raw(tid))?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// The processor the calling thread is on, if the host tells.
pub fn current_cpu() -> Option<u32> {
    // SAFETY: no preconditions.
    u32::try_from(unsafe { libc::sched_getcpu() }).ok()
}

/// Restricts a thread to these processors.
pub fn set_affinity(tid: Pid, cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus.iter().filter(|c| **c < CpuSet::MAX_CPU) {
        set.set(*cpu);
    }
    Ok(sched_setaffinity(rustix::process::Pid::from_raw(tid), &set)?)
}

/// Lets the C library's allocator use its main arena only. With more it reads the number of processors from /sys when a
/// thread first allocates, and /proc/sys/vm/overcommit_memory when an arena shrinks, which a locked-down process must
/// not do; and it keeps more memory than a sandbox should. (Small blocks come from caches of the threads anyway.)
pub fn one_malloc_arena() {
    // SAFETY: plain numbers.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Overwrites the environment that the kernel has put into the process' memory and shows in /proc. Nothing of it is found afterwards.
pub fn forget_environment() -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat has no place of an environment");
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Fields 50 and 51 (proc_pid_stat(5)); the name, which may have blanks, is the second.
    let mut fields = stat.rsplit_once(')').ok_or_else(odd)?.1.split_whitespace().skip(47);
    let mut next = || fields.next().and_then(|f| f.parse::<u64>().ok()).ok_or_else(odd);
    let (start, end) = (next()?, next()?);
    let length = end.checked_sub(start).and_then(|n| usize::try_from(n).ok()).ok_or_else(odd)?;
    // Not by a pointer: the kernel says where it lies, and finds nothing to write to if that is wrong.
    let memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem")?;
    memory.write_all_at(&vec![0; length], start)
}

/// Takes the program's own code and constants out of the process' memory; what is used again comes back from the file's cache, 16 pages
/// at a time. For processes that live long after a start that needed far more code than what follows.
pub fn forget_text() {
    // SAFETY: only data that the call hands over while it lasts is read, and `forget_segments` does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(forget_segments), std::ptr::null_mut()) };
}

/// Segments that nothing is written to (relocations neither).
unsafe extern "C" fn forget_segments(info: *mut libc::dl_phdr_info, _: usize, _: *mut libc::c_void) -> i32 {
    // SAFETY: `info` and its headers live as long as this call; dropping clean pages of a file changes no byte of memory.
    unsafe {
        let headers = std::slice::from_raw_parts((*info).dlpi_phdr, usize::from((*info).dlpi_phnum));
        for h in headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_W == 0) {
            let start = ((*info).dlpi_addr + h.p_vaddr) & !(crate::PAGE - 1);
            let end = (*info).dlpi_addr + h.p_vaddr + h.p_memsz;
            libc::madvise(start as *mut libc::c_void, (end - start) as usize, libc::MADV_DONTNEED);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_with_threads() {
        // The test harness runs tests on threads, so this process has at least two.
        let e = fork_run(ForkOptions::default(), || 0).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::ResourceBusy);
    }
}
