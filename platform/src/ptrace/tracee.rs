//! One traced host thread: the ptrace calls, with the tracer's thread checked.

use crate::error::PlatformError;
use crate::registers::Registers;
use crate::stub;
use hostsys::signals::gettid;
use std::io;
use std::mem::MaybeUninit;

/// Why a tracee is not running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// At the entry of a system call that will not be made.
    Syscall,
    /// About to get a signal, which it will not get unless it is passed on.
    Signal(i32),
    /// The process was stopped by a signal.
    Group,
    /// The answer to PTRACE_INTERRUPT, or the end of a group stop.
    Event,
    /// Gone.
    Ended,
}

/// A host thread `tid` traced by host thread `tracer`.
pub(super) struct Tracee {
    tid: i32,
    tracer: i32,
}

const NT_X86_XSTATE: usize = 0x202;

fn request(what: &'static str, rc: i64) -> Result<i64, PlatformError> {
    if rc < 0 { Err(PlatformError::last(what)) } else { Ok(rc) }
}

/// Whether the error says that the tracee has been killed under our hands.
pub(super) fn is_gone(e: &PlatformError) -> bool {
    e.host_errno() == Some(libc::ESRCH)
}

impl Tracee {
    /// Takes over a thread that parks itself in the stub's text, and waits until it has come so far.
    pub(super) fn seize(tid: i32) -> Result<Tracee, PlatformError> {
        let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
        // SAFETY: SEIZE takes the options as data and touches no memory of ours.
        let rc = unsafe { libc::ptrace(libc::PTRACE_SEIZE, tid, 0usize, options as usize) };
        request("PTRACE_SEIZE", rc)?;
        let tracee = Tracee { tid, tracer: gettid() };
        tracee.interrupt()?;
        loop {
            let stop = tracee.wait()?;
            if stop == Stop::Ended {
                return Err(PlatformError::Dead);
            }
            // Only in the park is it certain that the strict filter is in force.
            let parked = tracee.registers()?.rip == stub::parked_address();
            match stop {
                Stop::Event if parked => return Ok(tracee),
                Stop::Syscall if parked => {
                    // At the entry of its pause: in a moment it is inside, and that is interrupted.
                    tracee.interrupt()?;
                    tracee.resume(libc::PTRACE_CONT)?;
                }
                // On to the next entry or exit of one of the few calls a new thread makes.
                _ => tracee.resume(libc::PTRACE_SYSCALL)?,
            }
        }
    }

    fn interrupt(&self) -> Result<(), PlatformError> {
        // SAFETY: no memory is involved.
        let rc = unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, self.tid, 0usize, 0usize) };
        request("PTRACE_INTERRUPT", rc).map(drop)
    }

    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    /// Whether the calling thread is the tracer.
    pub(super) fn is_mine(&self) -> bool {
        self.tracer == gettid()
    }

    fn resume(&self, how: libc::c_uint) -> Result<(), PlatformError> {
        // SAFETY: no memory is involved; signal 0 is passed on.
        let rc = unsafe { libc::ptrace(how, self.tid, 0usize, 0usize) };
        request("resuming a guest thread", rc).map(drop)
    }

    /// Lets it run guest code.
    pub(super) fn run(&self) -> Result<(), PlatformError> {
        self.resume(libc::PTRACE_SYSEMU)
    }

    /// Waits until it stops.
    pub(super) fn wait(&self) -> Result<Stop, PlatformError> {
        let mut status = 0;
        loop {
            // SAFETY: a live status word.
            let rc = unsafe { libc::waitpid(self.tid, &mut status, libc::__WALL | libc::__WNOTHREAD) };
            if rc == self.tid {
                break;
            }
            let e = io::Error::last_os_error();
            match e.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::ECHILD) => return Ok(Stop::Ended),
                _ => return Err(PlatformError::Host { what: "waiting for a guest thread", source: e }),
            }
        }
        if !libc::WIFSTOPPED(status) {
            return Ok(Stop::Ended);
        }
        let signal = libc::WSTOPSIG(status);
        Ok(if status >> 16 != 0 {
            if signal == libc::SIGTRAP { Stop::Event } else { Stop::Group }
        } else if signal == libc::SIGTRAP | 0x80 {
            Stop::Syscall
        } else {
            Stop::Signal(signal)
        })
    }

    /// All general registers.
    pub(super) fn registers(&self) -> Result<Registers, PlatformError> {
        let mut regs = MaybeUninit::<Registers>::uninit();
        // SAFETY: `Registers` has the layout of user_regs_struct.
        let rc = unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.tid, 0usize, regs.as_mut_ptr()) };
        request("PTRACE_GETREGS", rc)?;
        // SAFETY: filled by the kernel.
        Ok(unsafe { regs.assume_init() })
    }

    /// Sets all general registers.
    pub(super) fn set_registers(&self, regs: &Registers) -> Result<(), PlatformError> {
        // SAFETY: as above; the kernel only reads.
        let rc = unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.tid, 0usize, std::ptr::from_ref(regs)) };
        request("PTRACE_SETREGS", rc).map(drop)
    }

    /// The signal of a `Stop::Signal`.
    pub(super) fn signal_info(&self) -> Result<libc::siginfo_t, PlatformError> {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: a live siginfo.
        let rc = unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, self.tid, 0usize, info.as_mut_ptr()) };
        request("PTRACE_GETSIGINFO", rc)?;
        // SAFETY: all-zero is valid, and the kernel filled it.
        Ok(unsafe { info.assume_init() })
    }

    /// The XSAVE image.
    pub(super) fn xstate(&self) -> Result<Vec<u8>, PlatformError> {
        let mut image = vec![0u8; 16 << 10];
        let mut iov = libc::iovec { iov_base: image.as_mut_ptr().cast(), iov_len: image.len() };
        // SAFETY: the iovec names a live buffer.
        let rc = unsafe { libc::ptrace(libc::PTRACE_GETREGSET, self.tid, NT_X86_XSTATE, &raw mut iov) };
        request("PTRACE_GETREGSET", rc)?;
        image.truncate(iov.iov_len);
        Ok(image)
    }

    /// Sets the XSAVE image.
    pub(super) fn set_xstate(&self, image: &[u8]) -> Result<(), PlatformError> {
        let mut iov = libc::iovec { iov_base: image.as_ptr().cast_mut().cast(), iov_len: image.len() };
        // SAFETY: the kernel only reads the buffer.
        let rc = unsafe { libc::ptrace(libc::PTRACE_SETREGSET, self.tid, NT_X86_XSTATE, &raw mut iov) };
        match rc {
            0 => Ok(()),
            _ if io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) => Err(PlatformError::Dead),
            _ => Err(PlatformError::BadFpu("refused by the host")),
        }
    }

    /// Lets it end itself, and reaps it. From another thread than the tracer nothing can be done; then it goes with its process.
    pub(super) fn end(self) {
        if !self.is_mine() {
            tracing::warn!(tid = self.tid, "a guest thread was released by another thread than ran it");
            return;
        }
        let regs = Registers::new(stub::exit_address(), 0);
        if self.set_registers(&regs).and_then(|()| self.resume(libc::PTRACE_CONT)).is_err() {
            // It was killed; what is left is to reap it.
        }
        loop {
            match self.wait() {
                Ok(Stop::Ended) | Err(_) => return,
                // A signal that came in between.
                Ok(_) => {
                    if self.set_registers(&regs).and_then(|()| self.resume(libc::PTRACE_CONT)).is_err() {
                        continue;
                    }
                }
            }
        }
    }
}
