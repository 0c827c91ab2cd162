//! Signals of the host: interrupting a thread of this process, masks, handlers that do nothing, and a signal descriptor.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The signal that makes a blocking host call of a sentry thread return EINTR.
pub const INTERRUPT: i32 = libc::SIGUSR1;

extern "C" fn nothing(_: i32) {}

/// Installs a handler for [`INTERRUPT`] that does nothing, without SA_RESTART.
pub fn install_interrupt() -> io::Result<()> {
    set(INTERRUPT, nothing as *const () as usize)
}

/// Ignores a signal (SIGPIPE).
pub fn ignore(signal: i32) -> io::Result<()> {
    set(signal, libc::SIG_IGN)
}

/// Gives a signal its default action.
pub fn set_default(signal: i32) -> io::Result<()> {
    set(signal, libc::SIG_DFL)
}

fn set(signal: i32, handler: usize) -> io::Result<()> {
    // SAFETY: all-zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    // SAFETY: the handler is one of the above.
    match unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Thread id of the calling thread.
pub fn gettid() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Sends a signal to one thread of process `tgid`.
pub fn tgkill(tgid: i32, tid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain numbers.
    match unsafe { libc::syscall(libc::SYS_tgkill, tgid, tid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends [`INTERRUPT`] to a thread of this process.
pub fn interrupt_thread(tid: i32) -> io::Result<()> {
    tgkill(std::process::id().cast_signed(), tid, INTERRUPT)
}

fn mask(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set.
    unsafe {
        let mut set: libc::sigset_t = MaybeUninit::zeroed().assume_init();
        libc::sigemptyset(&mut set);
        for s in signals {
            libc::sigaddset(&mut set, *s);
        }
        set
    }
}

fn change_mask(how: i32, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: a live set; the old one is not wanted.
    match unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) } {
        0 => Ok(()),
        e => Err(io::Error::from_raw_os_error(e)),
    }
}

/// Blocks signals for the calling thread (and those it makes).
pub fn block(signals: &[i32]) -> io::Result<()> {
    change_mask(libc::SIG_BLOCK, &mask(signals))
}

/// Unblocks signals for the calling thread.
pub fn unblock(signals: &[i32]) -> io::Result<()> {
    change_mask(libc::SIG_UNBLOCK, &mask(signals))
}

/// Unblocks everything and gives every signal its default action: for a process that was just forked.
pub fn reset_all() -> io::Result<()> {
    for signal in 1..=64 {
        if ![libc::SIGKILL, libc::SIGSTOP, 32, 33].contains(&signal) {
            set_default(signal)?;
        }
    }
    change_mask(libc::SIG_SETMASK, &mask(&[]))
}

/// A signalfd(2), close-on-exec. The signals must be blocked.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

/// One received signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Number.
    pub signal: i32,
    /// Sender's process, or the child of a SIGCHLD.
    pub pid: u32,
    /// Status of the child.
    pub status: i32,
}

impl SignalFd {
    /// Opens one for these signals.
    pub fn new(signals: &[i32], nonblocking: bool) -> io::Result<SignalFd> {
        let flags = libc::SFD_CLOEXEC | if nonblocking { libc::SFD_NONBLOCK } else { 0 };
        // SAFETY: a live set.
        let fd = unsafe { libc::signalfd(-1, &mask(signals), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor of ours.
        Ok(SignalFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for the next signal.
    pub fn read(&self) -> io::Result<Received> {
        // SAFETY: all-zero is a valid value.
        let mut info: libc::signalfd_siginfo = unsafe { MaybeUninit::zeroed().assume_init() };
        let len = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the kernel writes at most `len` bytes of plain data.
        let n = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), len) };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Received { signal: info.ssi_signo as i32, pid: info.ssi_pid, status: info.ssi_status })
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
