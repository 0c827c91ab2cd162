//! A guest thread on the ptrace platform.

use super::PtraceSpace;
use super::tracee::{Stop, Tracee, is_gone};
use crate::*;
use hostsys::signals::{self, INTERRUPT};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI32};

/// See the module.
pub(super) struct PtraceContext {
    /// The host thread, and the address space it is in.
    guest: Option<(Tracee, Arc<dyn AddressSpace>)>,
    /// State to load before guest code runs next.
    fpu: Option<FpuState>,
    interrupt: Arc<PtraceInterrupt>,
}

/// Where to send the interrupt. The signal goes to the *guest's* host thread: there it makes a ptrace stop, whether it
/// arrives before or after the thread runs, so no wake-up is lost.
#[derive(Default)]
struct PtraceInterrupt {
    pending: AtomicBool,
    /// Process and thread, 0 while no guest code runs.
    tgid: AtomicI32,
    tid: AtomicI32,
}

impl PtraceInterrupt {
    fn take(&self) -> bool {
        self.pending.swap(false, SeqCst)
    }
}

impl Interrupt for PtraceInterrupt {
    fn interrupt(&self) {
        if self.pending.swap(true, SeqCst) {
            return;
        }
        let tid = self.tid.load(SeqCst);
        if tid != 0 {
            // It may just have ended; then nobody needs the signal.
            let _ = signals::tgkill(self.tgid.load(SeqCst), tid, INTERRUPT);
        }
    }
}

fn ptrace_space(space: &Arc<dyn AddressSpace>) -> Result<&PtraceSpace, PlatformError> {
    space.as_any().downcast_ref().ok_or(PlatformError::Misuse("address space of another platform"))
}

impl PtraceContext {
    pub(super) fn new() -> PtraceContext {
        PtraceContext { guest: None, fpu: Some(FpuState::initial()), interrupt: Arc::default() }
    }

    /// Makes sure that there is a host thread in `space`, traced by the calling thread.
    fn enter(&mut self, space: &Arc<dyn AddressSpace>) -> Result<(), PlatformError> {
        if let Some((tracee, old)) = &self.guest {
            if !tracee.is_mine() {
                return Err(PlatformError::Misuse("a context was used by two host threads"));
            }
            if Arc::ptr_eq(old, space) {
                return Ok(());
            }
            self.release();
        }
        let stub = &ptrace_space(space)?.0;
        let tracee = Tracee::seize(stub.clone_thread()?)?;
        self.guest = Some((tracee, space.clone()));
        if self.fpu.is_none() {
            self.fpu = Some(FpuState::initial());
        }
        Ok(())
    }

    /// The process died: forget the thread.
    fn died(&mut self) -> Trap {
        if let Some((tracee, space)) = self.guest.take() {
            self.stopped();
            tracee.end();
            if let Ok(space) = ptrace_space(&space) {
                // All its threads are being killed. Others may run for the moment until their processor hears of it; whoever hears
                // "dead" gives the memory to other guests.
                space.0.kill(libc::SIGKILL);
                std::thread::sleep(std::time::Duration::from_millis(1));
                space.0.set_dead();
            }
        }
        Trap::Dead
    }

    fn stopped(&self) {
        self.interrupt.tid.store(0, SeqCst);
    }

    fn run(&mut self, regs: &mut Registers) -> Result<Trap, PlatformError> {
        let Some((tracee, space)) = &self.guest else { return Ok(Trap::Dead) };
        let stub = &ptrace_space(space)?.0;
        if let Some(fpu) = self.fpu.take() {
            tracee.set_xstate(&fpu.for_host())?;
        }
        if !regs.is_sane() {
            regs.sanitize();
        }
        // The host's kernel must never restart a call by itself.
        regs.orig_rax = u64::MAX;
        tracee.set_registers(regs)?;
        self.interrupt.tgid.store(stub.pid(), SeqCst);
        self.interrupt.tid.store(tracee.tid(), SeqCst);
        loop {
            if self.interrupt.take() {
                *regs = tracee.registers()?;
                regs.orig_rax = u64::MAX;
                return Ok(Trap::Interrupted);
            }
            tracee.run()?;
            later::catch_up();
            let trap = match tracee.wait()? {
                Stop::Ended => return Err(PlatformError::Dead),
                Stop::Syscall => {
                    *regs = tracee.registers()?;
                    return Ok(syscall(regs));
                }
                Stop::Event => None,
                Stop::Group => {
                    // Somebody sent SIGSTOP to the process. Only the sentry decides who stops.
                    stub.kill(libc::SIGCONT);
                    None
                }
                Stop::Signal(signo) => exception(signo, &tracee.signal_info()?),
            };
            match trap {
                Some(Raised::Trap(trap)) => {
                    *regs = tracee.registers()?;
                    regs.orig_rax = u64::MAX;
                    return Ok(trap);
                }
                Some(Raised::Vsyscall(nr)) => {
                    *regs = tracee.registers()?;
                    regs.orig_rax = nr;
                    return Ok(Trap::Syscall);
                }
                // Our interrupt (looked at above), or a signal from outside, which means nothing to a guest.
                None => {}
            }
        }
    }
}

/// What stopped at the entry of a system call. The `syscall` instruction leaves its return address in rcx and the flags in r11;
/// `int 0x80` does not. 32-bit calls do not exist here: as on a kernel without them, the instruction is a protection fault.
fn syscall(regs: &mut Registers) -> Trap {
    if regs.rcx == regs.rip && regs.cs == 0x33 {
        return Trap::Syscall;
    }
    regs.rax = regs.orig_rax;
    regs.orig_rax = u64::MAX;
    if regs.cs == 0x33 {
        regs.rip = regs.rip.wrapping_sub(2);
    }
    Trap::Signal(SignalInfo { signo: libc::SIGSEGV, code: libc::SI_KERNEL, addr: 0 })
}

enum Raised {
    Trap(Trap),
    Vsyscall(u64),
}

/// What a signal means: `None` for one that the guest's own instructions did not cause.
fn exception(signo: i32, info: &libc::siginfo_t) -> Option<Raised> {
    let code = info.si_code;
    if code <= 0 {
        return None;
    }
    // SAFETY: a fault's siginfo has the address here; for other kinds it is some number.
    let addr = unsafe { info.si_addr() } as u64;
    match signo {
        libc::SIGSEGV | libc::SIGBUS => {
            let addr = if code == libc::SI_KERNEL { 0 } else { addr };
            Some(Raised::Trap(Trap::Fault(FaultInfo { signo, code, addr, access: None })))
        }
        libc::SIGILL | libc::SIGFPE | libc::SIGTRAP => {
            Some(Raised::Trap(Trap::Signal(SignalInfo { signo, code, addr })))
        }
        // The strict filter: a call on the vsyscall page. The kernel has already done the page's `ret`.
        libc::SIGSYS => {
            // struct { void *call_addr; int syscall; unsigned arch; } begins at offset 16 of siginfo.
            let words = std::ptr::from_ref(info).cast::<u32>();
            // SAFETY: siginfo has 128 bytes.
            let nr = unsafe { words.add(6).read() };
            Some(Raised::Vsyscall(nr.into()))
        }
        _ => None,
    }
}

impl Context for PtraceContext {
    fn switch(&mut self, space: &Arc<dyn AddressSpace>, regs: &mut Registers) -> Result<Trap, PlatformError> {
        if self.interrupt.take() {
            return Ok(Trap::Interrupted);
        }
        let entered = self.enter(space);
        let result = entered.and_then(|()| self.run(regs));
        self.stopped();
        match result {
            Err(PlatformError::Dead) => Ok(self.died()),
            Err(e) if is_gone(&e) => Ok(self.died()),
            other => other,
        }
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        self.interrupt.clone()
    }

    fn fpu(&mut self) -> Result<FpuState, PlatformError> {
        match (&self.fpu, &self.guest) {
            (Some(state), _) => Ok(state.clone()),
            (None, Some((tracee, _))) => Ok(FpuState::from_host(tracee.xstate()?)),
            (None, None) => Ok(FpuState::initial()),
        }
    }

    fn set_fpu(&mut self, state: &FpuState) -> Result<(), PlatformError> {
        self.fpu = Some(state.clone());
        Ok(())
    }

    fn release(&mut self) {
        self.stopped();
        if let Some((tracee, _space)) = self.guest.take() {
            tracee.end();
        }
    }
}

impl Drop for PtraceContext {
    fn drop(&mut self) {
        self.release();
    }
}
