//! The keeper: a thread of the sentry that forked the zygote and reaps stub processes.
//!
//! It must be one long-lived thread, since PR_SET_PDEATHSIG of zygote and stubs refers to the thread that is their parent.

use super::control::ControlFile;
use super::mapper::{Command, Mapper, has_exited, kill};
use super::space::AfterDeath;
use super::vdso::{ClockCode, HostVdso};
use super::{layout, text};
use crate::error::PlatformError;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Makes stub processes.
pub struct Stubs {
    control: Arc<ControlFile>,
    zygote: Mapper,
    /// Processors guest threads may use.
    cpus: Vec<usize>,
    to_keeper: Mutex<Sender<Work>>,
    keeper: Mutex<Option<std::thread::JoinHandle<()>>>,
    clock_code: Option<ClockCode>,
}

enum Work {
    /// Kill and reap; then what is to be done.
    End(i32, Box<Mapper>, Vec<AfterDeath>),
    Stop,
}

impl Stubs {
    /// Starts the keeper and the zygote. Before the process is locked down.
    pub fn start() -> Result<Arc<Stubs>, PlatformError> {
        let cpus = hostsys::process::affinity(0)
            .map_err(|source| PlatformError::Host { what: "sched_getaffinity", source })?;
        let control = ControlFile::new()?;
        let zygote = Mapper::new(control.slot()?);
        let text = text::build(control.raw_fd())?;
        let (to_keeper, work) = channel();
        let (report, reported) = channel();
        let text_fd = text.as_raw_fd();
        let (fd, offset) = (control.raw_fd(), zygote.slot().offset());
        let vdso = HostVdso::find();
        let clock_code = vdso.as_ref().map(HostVdso::code);
        let keeper = std::thread::Builder::new()
            .name("stub-keeper".into())
            .stack_size(64 << 10)
            .spawn(move || {
                let pid = fork_zygote(text_fd, fd, offset, vdso.as_ref());
                let ok = pid.is_ok();
                let _ = report.send(pid);
                if ok {
                    keep(&work);
                }
            })
            .map_err(|source| PlatformError::Host { what: "starting the keeper thread", source })?;
        let pid = reported.recv().map_err(|_| PlatformError::Misuse("the keeper thread ended"))??;
        zygote.set_pid(pid);
        let mut stubs = Stubs {
            control,
            zygote,
            cpus,
            to_keeper: Mutex::new(to_keeper),
            keeper: Mutex::new(Some(keeper)),
            clock_code: None,
        };
        stubs.zygote.run(&[]).map_err(|_| PlatformError::Unavailable {
            name: "stub".into(),
            why: "the first stub process ended while it set itself up (seccomp filters or prctl refused by the host?)".into(),
        })?;
        let moved =
            stubs.zygote.slot().word(layout::CMD_VDSO).load(std::sync::atomic::Ordering::Relaxed) != 0;
        stubs.clock_code = clock_code.filter(|_| moved);
        // The zygote has mapped its text; nobody needs the descriptor any more.
        drop(text);
        Ok(Arc::new(stubs))
    }

    /// Forks a new stub process with nothing mapped but the stub's own pages.
    pub(super) fn new_process(&self) -> Result<Mapper, PlatformError> {
        let mapper = Mapper::new(self.control.slot()?);
        let fork = Command {
            nr: libc::SYS_clone,
            args: [(libc::CLONE_FILES | libc::CLONE_PARENT) as u64, 0, 0, 0, 0, mapper.slot().offset()],
            report: true,
        };
        let pid = self.zygote.run(&[fork]).map_err(|e| e.into_platform("forking a stub process"))?;
        mapper.set_pid(pid);
        Ok(mapper)
    }

    /// Kills the process; the keeper reaps it.
    pub(super) fn end(&self, mapper: Mapper, after: Vec<AfterDeath>) {
        let pid = mapper.pid();
        kill(pid, libc::SIGKILL);
        let sender = self.to_keeper.lock().unwrap_or_else(PoisonError::into_inner);
        // If the keeper is gone, so is the sentry.
        let _ = sender.send(Work::End(pid, Box::new(mapper), after));
    }

    /// The command page of a mapper: descriptor and offset.
    pub(super) fn command_page(&self, mapper: &Mapper) -> (i32, u64) {
        (self.control.raw_fd(), mapper.slot().offset())
    }

    /// Processors guest threads may use.
    pub(super) fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    /// Code of the host that reads clocks, if stub processes have it.
    pub fn clock_code(&self) -> Option<ClockCode> {
        self.clock_code
    }

    /// Process id of the zygote.
    pub fn zygote_pid(&self) -> i32 {
        self.zygote.pid()
    }
}

impl Drop for Stubs {
    fn drop(&mut self) {
        kill(self.zygote.pid(), libc::SIGKILL);
        reap(self.zygote.pid());
        let _ = self.to_keeper.lock().unwrap_or_else(PoisonError::into_inner).send(Work::Stop);
        if let Some(keeper) = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = keeper.join();
        }
    }
}

fn keep(work: &Receiver<Work>) {
    while let Ok(Work::End(pid, mapper, after)) = work.recv() {
        reap(pid);
        // Only now may its command page go to another process.
        drop(mapper);
        after.into_iter().for_each(|f| f());
    }
}

fn reap(pid: i32) {
    loop {
        let mut status = 0;
        // SAFETY: a live status word.
        let rc = unsafe { libc::waitpid(pid, &mut status, libc::__WALL) };
        if rc == pid || (rc < 0 && std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted)
        {
            return;
        }
    }
}

/// Forks the zygote from the calling thread and waits until it has left the sentry's memory (or died).
fn fork_zygote(text: i32, control: i32, offset: u64, vdso: Option<&HostVdso>) -> Result<i32, PlatformError> {
    let entry = text::zygote_address();
    let parent = std::process::id().cast_signed();
    // No CLONE_VM: the child has a copy of this memory. No exit signal: nobody has to handle SIGCHLD.
    // SAFETY: the child runs only `zygote_child`, which allocates nothing and takes no lock.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_FILES, 0usize, 0usize, 0usize, 0usize) };
    match pid {
        -1 => Err(PlatformError::last("forking the stub zygote")),
        // SAFETY: this is the child of the fork above.
        0 => unsafe { zygote_child(text, control, offset, entry, parent, vdso) },
        pid => {
            let pid = pid as i32;
            if has_exited(pid) {
                reap(pid);
                return Err(PlatformError::errno("setting up the stub zygote", libc::EPERM));
            }
            Ok(pid)
        }
    }
}

/// Leaves everything of the sentry behind and jumps into the stub's text.
///
/// # Safety
/// Only in the child of a fork without CLONE_VM. Runs between fork and the end of the old address space, with other
/// threads' locks possibly held for ever: system calls and nothing else.
unsafe fn zygote_child(
    text: i32,
    control: i32,
    offset: u64,
    entry: u64,
    parent: i32,
    vdso: Option<&HostVdso>,
) -> ! {
    // SAFETY: system calls on this process's own memory; the fixed mappings may replace whatever lies there (at most the main
    // thread's stack), but not this thread's stack, which the kernel placed below.
    unsafe {
        unregister_rseq();
        let all = u64::MAX;
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0usize, 8usize);
        // The kernel's sigaction: handler, flags, restorer, mask. All zero is the default action.
        let default = [0u64; 4];
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0usize, 8usize);
        }
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        if libc::syscall(libc::SYS_getppid) != i64::from(parent) {
            libc::_exit(71);
        }
        // The sentry is not dumpable; stubs must be, or an unprivileged sentry could not trace them. They hold guest memory only.
        libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        libc::syscall(libc::SYS_prctl, libc::PR_SET_NAME, c"runsc-stub".as_ptr(), 0, 0, 0);
        if libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            libc::_exit(72);
        }
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::syscall(libc::SYS_setrlimit, libc::RLIMIT_CORE, &raw const none);
        if let Some(vdso) = vdso {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            let mut all = true;
            for piece in &vdso.pieces {
                let (len, to) = (piece.end - piece.start, vdso.target(piece));
                let got = libc::syscall(libc::SYS_mremap, piece.start, len, len, flags, to);
                all &= got.cast_unsigned() == to;
            }
            // The command page is not mapped writable here; the file is.
            let yes = u32::from(all);
            let at = offset + layout::CMD_VDSO as u64;
            libc::syscall(libc::SYS_pwrite64, control, &raw const yes, 4usize, at);
        }
        let fixed = libc::MAP_FIXED;
        let map = |at: u64, len: u64, prot: i32, flags: i32, fd: i32, off: u64| {
            let got = libc::syscall(libc::SYS_mmap, at, len, prot, flags | fixed, fd, off);
            if got.cast_unsigned() != at {
                libc::_exit(73);
            }
        };
        let (read, exec) = (libc::PROT_READ, libc::PROT_READ | libc::PROT_EXEC);
        map(layout::TEXT, layout::TEXT_LEN, exec, libc::MAP_PRIVATE, text, 0);
        map(layout::DATA, layout::DATA_LEN, read, libc::MAP_PRIVATE, text, layout::TEXT_LEN);
        let tables = layout::TEXT_LEN + layout::DATA_LEN;
        map(layout::TABLE, layout::TABLE_LEN, read, libc::MAP_PRIVATE, text, tables);
        map(layout::CMD, 4096, read, libc::MAP_SHARED, control, offset);
        std::arch::asm!(
            "jmp {entry}",
            entry = in(reg) entry,
            in("r12") u64::from(control.cast_unsigned()),
            in("r13") offset,
            options(noreturn),
        )
    }
}

/// Takes back the C library's rseq registration: the kernel would kill a process whose rseq area is gone.
///
/// # Safety
/// Only where nothing will use rseq again.
unsafe fn unregister_rseq() {
    unsafe extern "C" {
        static __rseq_offset: isize;
        static __rseq_size: u32;
    }
    let thread: usize;
    // SAFETY: the word at fs:0 is the thread pointer itself on x86-64; the two symbols are constants of the C library.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) thread, options(nostack, readonly));
        let area = thread.wrapping_add_signed(__rseq_offset);
        // The length must be that of the registration: 32 before the C library used larger areas, later the feature size.
        for len in [32, __rseq_size, __rseq_size.next_multiple_of(32)] {
            if libc::syscall(libc::SYS_rseq, area, len, 1, 0x5305_3053) == 0 {
                break;
            }
        }
    }
}
