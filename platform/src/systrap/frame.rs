//! The signal frame in a context block: reading it as a trap, writing registers and vector state into it.
//!
//! Layout: arch/x86/include/uapi/asm/{ucontext,sigcontext}.h and asm-generic/siginfo.h. All of it is guest-writable: addresses are
//! checked against the block, values are registers of that guest.

use super::blocks::ContextBlock;
use crate::stub::layout::{CTX_FS, CTX_GS, CTX_INFO, CTX_SIGNO, CTX_SIZE, CTX_UC};
use crate::{Access, FaultInfo, FpuState, Registers, SignalInfo, Trap};
use std::sync::atomic::Ordering::Relaxed;

/// Offset of the general registers in `struct ucontext`.
const UC_REGS: usize = 40;
const UC_ERR: usize = UC_REGS + 19 * 8;
const UC_TRAPNO: usize = UC_REGS + 20 * 8;
const UC_FPSTATE: usize = UC_REGS + 23 * 8;
const UC_SIGMASK: usize = UC_REGS + 256;
const UC_LEN: usize = UC_SIGMASK + 8;
const INFO_LEN: usize = 128;
/// The page before the signal stack.
const CONTEXT_PAGE: usize = 0x1000;
/// Longest vector state that fits on the signal stack.
pub(super) const MAX_XSTATE: usize = 0x5000;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const TRAP_PAGE_FAULT: u64 = 14;

/// Where the parts of the frame are in the block. `None`: the guest has spoilt the pointers.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    uc: usize,
    info: usize,
}

impl Frame {
    /// `place` is the block's address in the stub.
    pub(super) fn find(block: &ContextBlock, place: u64) -> Option<Frame> {
        let uc = inside(block.get(CTX_UC), place, UC_LEN, 8)?;
        let info = inside(block.get(CTX_INFO), place, INFO_LEN, 8)?;
        Some(Frame { uc, info })
    }

    /// The registers at the trap.
    pub(super) fn registers(self, block: &ContextBlock) -> Registers {
        let g = |i: usize| block.get(self.uc + UC_REGS + 8 * i);
        Registers {
            r8: g(0),
            r9: g(1),
            r10: g(2),
            r11: g(3),
            r12: g(4),
            r13: g(5),
            r14: g(6),
            r15: g(7),
            rdi: g(8),
            rsi: g(9),
            rbp: g(10),
            rbx: g(11),
            rdx: g(12),
            rax: g(13),
            rcx: g(14),
            rsp: g(15),
            rip: g(16),
            eflags: g(17),
            cs: g(18) & 0xffff,
            ss: g(18) >> 48,
            orig_rax: u64::MAX,
            fs_base: block.get(CTX_FS),
            gs_base: block.get(CTX_GS),
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
        }
    }

    /// Loads the registers for rt_sigreturn.
    pub(super) fn set_registers(self, block: &ContextBlock, r: &Registers, mask: u64) {
        let values = [
            r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax,
            r.rcx, r.rsp, r.rip, r.eflags,
        ];
        for (i, value) in values.into_iter().enumerate() {
            block.put(self.uc + UC_REGS + 8 * i, value);
        }
        block.put(self.uc + UC_REGS + 18 * 8, (r.cs & 0xffff) | (r.ss & 0xffff) << 48);
        block.put(self.uc + UC_SIGMASK, mask);
        block.put(CTX_FS, r.fs_base);
        block.put(CTX_GS, r.gs_base);
    }

    /// What happened. `None`: a signal from outside, or nonsense; the guest goes on.
    pub(super) fn trap(self, block: &ContextBlock, regs: &mut Registers, interrupt: i32) -> Option<Cause> {
        let signo = block.word(CTX_SIGNO).load(Relaxed).cast_signed();
        let code = (block.get(self.info + 8) as u32).cast_signed();
        if signo == interrupt {
            return Some(Cause::Interrupt);
        }
        if code <= 0 {
            return None;
        }
        let addr = block.get(self.info + 16);
        let err = block.get(self.uc + UC_ERR);
        Some(Cause::Trap(match signo {
            libc::SIGSYS => {
                let arch = (block.get(self.info + 24) >> 32) as u32;
                if arch == AUDIT_ARCH_X86_64 {
                    // The kernel has put the number back into rax. As at a stop of ptrace, -ENOSYS stands there.
                    regs.orig_rax = regs.rax;
                    regs.rax = i64::from(-libc::ENOSYS).cast_unsigned();
                    Trap::Syscall
                } else {
                    // As on a kernel without 32-bit calls: a protection fault of the instruction.
                    if regs.cs == 0x33 {
                        regs.rip = regs.rip.wrapping_sub(2);
                    }
                    Trap::Signal(SignalInfo { signo: libc::SIGSEGV, code: libc::SI_KERNEL, addr: 0 })
                }
            }
            libc::SIGSEGV | libc::SIGBUS => {
                let addr = if code == libc::SI_KERNEL { 0 } else { addr };
                let page_fault = block.get(self.uc + UC_TRAPNO) == TRAP_PAGE_FAULT;
                // Bits of the page-fault error code: 1 write, 4 instruction fetch.
                let access = page_fault.then_some(match err {
                    e if e & 0x10 != 0 => Access::Exec,
                    e if e & 0x2 != 0 => Access::Write,
                    _ => Access::Read,
                });
                Trap::Fault(FaultInfo { signo, code, addr, access })
            }
            libc::SIGILL | libc::SIGFPE | libc::SIGTRAP => Trap::Signal(SignalInfo { signo, code, addr }),
            _ => return None,
        }))
    }

    /// The vector state; the initial one if the guest has spoilt it.
    pub(super) fn fpu(self, block: &ContextBlock, place: u64) -> FpuState {
        let Some(at) = self.xstate(block, place) else { return FpuState::initial() };
        let mut image = vec![0; FpuState::len()];
        for (i, chunk) in image.chunks_exact_mut(8).enumerate() {
            chunk.copy_from_slice(&block.get(at + 8 * i).to_le_bytes());
        }
        FpuState::from_signal_frame(image)
    }

    /// Replaces the vector state.
    pub(super) fn set_fpu(self, block: &ContextBlock, place: u64, state: &FpuState) {
        let Some(at) = self.xstate(block, place) else { return };
        for (i, chunk) in state.as_bytes().chunks_exact(8).enumerate() {
            // Bytes 464 to 511 are the kernel's description of the frame.
            if !(464..512).contains(&(8 * i)) {
                let word: [u8; 8] = std::array::from_fn(|k| chunk[k]);
                block.put(at + 8 * i, u64::from_le_bytes(word));
            }
        }
    }

    fn xstate(self, block: &ContextBlock, place: u64) -> Option<usize> {
        inside(block.get(self.uc + UC_FPSTATE), place, FpuState::len().next_multiple_of(8), 64)
    }
}

/// A signal frame of this host as it is before any guest code has run: from it frames can be made for other blocks.
pub(super) struct Template {
    /// Where it begins in a block; it goes to the block's end.
    start: usize,
    words: Vec<u64>,
    /// Offsets of the `ucontext` and of the siginfo.
    frame: Frame,
    /// Offset of the vector state.
    xstate: usize,
}

const UC_STACK: usize = 16;
const REG_RIP: usize = 16;

impl Template {
    /// Learns from the first frame of a new thread.
    pub(super) fn of(block: &ContextBlock, place: u64) -> Option<Template> {
        let frame = Frame::find(block, place)?;
        let xstate = frame.xstate(block, place)?;
        // The return address lies before the context.
        let start = (frame.uc - 8).min(frame.info).min(xstate) & !7;
        let words = (start..CTX_SIZE as usize).step_by(8).map(|off| block.get(off)).collect();
        Some(Template { start, words, frame, xstate })
    }

    /// Offset of the `ucontext`, from which rt_sigreturn loads.
    pub(super) fn context(&self) -> usize {
        self.frame.uc
    }

    /// Writes a frame that leads to `rip` with nothing in the registers.
    pub(super) fn write(&self, block: &ContextBlock, place: u64, rip: u64, mask: u64) {
        for (i, word) in self.words.iter().enumerate() {
            block.put(self.start + 8 * i, *word);
        }
        let uc = self.frame.uc;
        for i in 0..REG_RIP {
            block.put(uc + UC_REGS + 8 * i, 0);
        }
        block.put(uc + UC_REGS + 8 * REG_RIP, rip);
        // Interrupts on and nothing else.
        block.put(uc + UC_REGS + 8 * (REG_RIP + 1), 0x202);
        block.put(uc + UC_SIGMASK, mask);
        block.put(uc + UC_STACK, place + CONTEXT_PAGE as u64);
        block.put(uc + UC_FPSTATE, place + self.xstate as u64);
    }

    /// Whether the thread stands at the trap that follows, with the signal stack it should have.
    pub(super) fn is_first_trap(&self, block: &ContextBlock, place: u64, rip: u64) -> bool {
        // `mov eax, 110; syscall`
        const LEN: u64 = 7;
        let uc = self.frame.uc;
        block.get(CTX_UC) == place + uc as u64
            && block.get(CTX_INFO) == place + self.frame.info as u64
            && block.word(CTX_SIGNO).load(Relaxed).cast_signed() == libc::SIGSYS
            && block.get(uc + UC_REGS + 8 * REG_RIP) == rip + LEN
            && block.get(uc + UC_STACK) == place + CONTEXT_PAGE as u64
    }
}

/// Why a guest thread is in the handler.
pub(super) enum Cause {
    /// Its own doing.
    Trap(Trap),
    /// The sentry's.
    Interrupt,
}

/// The offset of a guest address in the block's signal stack, if `len` bytes from there on are inside.
fn inside(addr: u64, place: u64, len: usize, align: u64) -> Option<usize> {
    let off = addr.checked_sub(place)?;
    let ok =
        off >= CONTEXT_PAGE as u64 && off.is_multiple_of(align) && off.checked_add(len as u64)? <= CTX_SIZE;
    ok.then_some(off as usize)
}
