//! The frame of a signal handler on the guest's stack, exactly as Linux on x86-64 lays it out
//! (arch/x86/kernel/signal_64.c, `struct rt_sigframe`), and its way back (rt_sigreturn(2)).

use super::deliver::HandlerCall;
use crate::mm::Mm;
use crate::task::{Task, no_altstack};
use abi::siginfo::{SigInfo, StackT, ss};
use abi::signal::{SaFlags, SigSet};
use abi::{Errno, Result};
use platform::{FpuState, Registers};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const RED_ZONE: u64 = 128;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
/// Where `struct _fpx_sw_bytes` lies in the legacy area.
const SW_RESERVED: usize = 464;
const LEGACY: usize = 512;
/// `UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`
const UC_FLAGS: u64 = 7;
/// Direction, resume and trap flag: off when a handler starts.
const FLAGS_CLEARED: u64 = 0x400 | 0x1_0000 | 0x100;

/// `struct sigcontext_64`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SigContext {
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    eflags: u64,
    cs: u16,
    gs: u16,
    fs: u16,
    ss: u16,
    err: u64,
    trapno: u64,
    oldmask: u64,
    cr2: u64,
    fpstate: u64,
    reserved: [u64; 8],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Ucontext {
    flags: u64,
    link: u64,
    stack: StackT,
    mcontext: SigContext,
    mask: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Frame {
    pretcode: u64,
    uc: Ucontext,
    info: SigInfo,
}

const _: () = assert!(size_of::<SigContext>() == 256 && size_of::<Frame>() == 440);

/// What the last fault of the task was, for `trapno`, `err` and `cr2`.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultRecord {
    pub trapno: u64,
    pub err: u64,
    pub cr2: u64,
}

/// What a frame is made of beside registers.
pub struct FrameContext<'a> {
    pub mm: &'a Mm,
    pub fpu: &'a FpuState,
    pub fault: FaultRecord,
}

fn on_stack(s: &StackT, sp: u64) -> bool {
    s.size != 0 && s.flags & ss::AUTODISARM == 0 && sp > s.sp && sp - s.sp <= s.size
}

fn on_stack_strict(s: &StackT, sp: u64) -> bool {
    s.size != 0 && sp > s.sp && sp - s.sp <= s.size
}

impl Task {
    /// sigaltstack(2): `sp` is the stack pointer of the caller. The old value, with the flags that tell whether
    /// it is in use.
    pub fn change_altstack(&self, new: Option<StackT>, sp: u64, min: u64) -> Result<StackT> {
        let mut sig = self.signals().lock();
        let old = sig.altstack;
        let mut shown = old;
        shown.pad = 0;
        shown.flags = (old.flags & ss::AUTODISARM)
            | if old.size == 0 {
                ss::DISABLE
            } else if on_stack(&old, sp) {
                ss::ONSTACK
            } else {
                0
            };
        if let Some(n) = new {
            if on_stack(&old, sp) {
                return Err(Errno::EPERM);
            }
            let mode = n.flags & !ss::AUTODISARM;
            if mode != 0 && mode != ss::ONSTACK && mode != ss::DISABLE {
                return Err(Errno::EINVAL);
            }
            if mode == ss::DISABLE {
                sig.altstack = StackT { sp: 0, flags: n.flags, pad: 0, size: 0 };
            } else {
                if n.size < min {
                    return Err(Errno::ENOMEM);
                }
                sig.altstack = StackT { pad: 0, ..n };
            }
        }
        Ok(shown)
    }
}

/// Writes the frame and sets the registers to the handler's start. EFAULT: the stack cannot be
/// written, which is a SIGSEGV.
pub fn write_frame(
    task: &Task,
    cx: &FrameContext<'_>,
    call: &HandlerCall,
    regs: &mut Registers,
) -> Result<()> {
    let flags = SaFlags::from_bits_retain(call.action.flags);
    if !flags.contains(SaFlags::RESTORER) {
        return Err(Errno::EFAULT);
    }
    let altstack = task.signals().lock().altstack;
    let mut sp = regs.rsp.wrapping_sub(RED_ZONE);
    let was_on = on_stack(&altstack, regs.rsp);
    let mut entering = false;
    if flags.contains(SaFlags::ONSTACK) && altstack.size != 0 && !was_on {
        sp = altstack.sp.wrapping_add(altstack.size);
        entering = true;
    }
    let mut fpu = cx.fpu.as_bytes().to_vec();
    let xstate_size = fpu.len();
    sp = sp.wrapping_sub(xstate_size as u64 + 4) & !63;
    let fpstate = sp;
    sp = (sp.wrapping_sub(size_of::<Frame>() as u64) & !15).wrapping_sub(8);
    if (was_on || entering) && !on_stack_strict(&altstack, sp) {
        return Err(Errno::EFAULT);
    }
    // struct _fpx_sw_bytes: magic, size with the second magic, features, size.
    let features = FpuState::components();
    let size = u32::try_from(xstate_size).map_err(|_| Errno::EFAULT)?;
    let sw = &mut fpu[SW_RESERVED..SW_RESERVED + 48];
    sw.fill(0);
    sw[0..4].copy_from_slice(&FP_XSTATE_MAGIC1.to_le_bytes());
    sw[4..8].copy_from_slice(&(size + 4).to_le_bytes());
    sw[8..16].copy_from_slice(&features.to_le_bytes());
    sw[16..20].copy_from_slice(&size.to_le_bytes());
    fpu.extend_from_slice(&FP_XSTATE_MAGIC2.to_le_bytes());
    let low = |v: u64| u16::try_from(v & 0xffff).unwrap_or(0);
    let frame = Frame {
        pretcode: call.action.restorer,
        uc: Ucontext {
            flags: UC_FLAGS,
            link: 0,
            stack: altstack,
            mcontext: SigContext {
                r8: regs.r8,
                r9: regs.r9,
                r10: regs.r10,
                r11: regs.r11,
                r12: regs.r12,
                r13: regs.r13,
                r14: regs.r14,
                r15: regs.r15,
                rdi: regs.rdi,
                rsi: regs.rsi,
                rbp: regs.rbp,
                rbx: regs.rbx,
                rdx: regs.rdx,
                rax: regs.rax,
                rcx: regs.rcx,
                rsp: regs.rsp,
                rip: regs.rip,
                eflags: regs.eflags,
                cs: low(regs.cs),
                gs: 0,
                fs: 0,
                ss: low(regs.ss),
                err: cx.fault.err,
                trapno: cx.fault.trapno,
                oldmask: call.mask.0,
                cr2: cx.fault.cr2,
                fpstate,
                reserved: [0; 8],
            },
            mask: call.mask.0,
        },
        info: call.info,
    };
    cx.mm.copy_out(fpstate, &fpu)?;
    if flags.contains(SaFlags::SIGINFO) {
        cx.mm.copy_out(sp, frame.as_bytes())?;
    } else {
        cx.mm.copy_out(sp, &frame.as_bytes()[..size_of::<Frame>() - size_of::<SigInfo>()])?;
    }
    if altstack.flags & ss::AUTODISARM != 0 {
        task.signals().lock().altstack = no_altstack();
    }
    let info = sp + (size_of::<Frame>() - size_of::<SigInfo>()) as u64;
    regs.rdi = u64::from(call.signal.number());
    regs.rax = 0;
    regs.rsi = info;
    regs.rdx = sp + 8;
    regs.rip = call.action.handler;
    regs.rsp = sp;
    regs.eflags &= !FLAGS_CLEARED;
    regs.orig_rax = u64::MAX;
    regs.sanitize();
    Ok(())
}

/// rt_sigreturn(2): registers, mask, alternate stack from the frame; the floating-point state to
/// load. EFAULT is a SIGSEGV.
pub fn restore_frame(task: &Task, mm: &Mm, regs: &mut Registers) -> Result<FpuState> {
    let at = regs.rsp.wrapping_sub(8);
    let mut bytes = vec![0u8; size_of::<Frame>() - size_of::<SigInfo>()];
    mm.copy_in(at, &mut bytes)?;
    let uc = Ucontext::read_from_bytes(&bytes[8..]).map_err(|_| Errno::EFAULT)?;
    let c = uc.mcontext;
    let fpu = read_fpu(mm, c.fpstate)?;
    task.set_blocked(SigSet(uc.mask));
    let sp = c.rsp;
    *regs = Registers {
        r15: c.r15,
        r14: c.r14,
        r13: c.r13,
        r12: c.r12,
        rbp: c.rbp,
        rbx: c.rbx,
        r11: c.r11,
        r10: c.r10,
        r9: c.r9,
        r8: c.r8,
        rax: c.rax,
        rcx: c.rcx,
        rdx: c.rdx,
        rsi: c.rsi,
        rdi: c.rdi,
        orig_rax: u64::MAX,
        rip: c.rip,
        eflags: c.eflags,
        rsp: c.rsp,
        ..*regs
    };
    regs.sanitize();
    // Errors of the stack's values are ignored, as in restore_altstack().
    let _ = task.change_altstack(Some(uc.stack), sp, ss::MIN_SIZE);
    Ok(fpu)
}

fn read_fpu(mm: &Mm, at: u64) -> Result<FpuState> {
    if at == 0 {
        return Ok(FpuState::initial());
    }
    let mut legacy = vec![0u8; LEGACY];
    mm.copy_in(at, &mut legacy)?;
    let word = |o: usize| u32::from_le_bytes(std::array::from_fn(|i| legacy[SW_RESERVED + o + i]));
    let size = word(16) as usize;
    let whole = word(0) == FP_XSTATE_MAGIC1
        && size >= LEGACY + 64
        && size <= FpuState::len()
        && word(4) as usize >= size + 4;
    let image = if whole {
        let mut all = vec![0u8; size + 4];
        mm.copy_in(at, &mut all)?;
        let magic2 = u32::from_le_bytes(std::array::from_fn(|i| all[size + i]));
        if magic2 == FP_XSTATE_MAGIC2 {
            all.truncate(size);
            all
        } else {
            legacy
        }
    } else {
        legacy
    };
    FpuState::from_guest(&image).map_err(|_| Errno::EFAULT)
}
