//! A guest thread that waits in the stub after a call from a patched site: its registers are in the context page, and all but a few also still
//! where they were. The answer is one word, or all registers anew.

use super::blocks::ContextBlock;
use crate::stub::layout::{
    CTX_FS, CTX_GS, CTX_MODE, CTX_XSAVE, MODE_BASES, MODE_REGISTERS, MODE_VECTORS, reg,
};
use crate::{FpuState, Registers};
use std::sync::atomic::Ordering::Relaxed;

/// The registers at the call, as a kernel would have left them: rcx and r11 hold the return address and the flags.
pub(super) fn registers(block: &ContextBlock) -> Registers {
    let g = |i: usize| block.get(reg(i));
    let (rip, eflags) = (g(16), g(17));
    Registers {
        r8: g(0),
        r9: g(1),
        r10: g(2),
        r11: eflags,
        r12: g(4),
        r13: g(5),
        r14: g(6),
        r15: g(7),
        rdi: g(8),
        rsi: g(9),
        rbp: g(10),
        rbx: g(11),
        rdx: g(12),
        rax: i64::from(-libc::ENOSYS).cast_unsigned(),
        rcx: rip,
        rsp: g(15),
        rip,
        eflags,
        cs: 0x33,
        ss: 0x2b,
        orig_rax: g(13),
        fs_base: block.get(CTX_FS),
        gs_base: block.get(CTX_GS),
        ds: 0,
        es: 0,
        fs: 0,
        gs: 0,
    }
}

/// Says how the thread goes on. `at_call` are its registers as they were. What it returns is the result, if nothing else has changed.
pub(super) fn answer(
    block: &ContextBlock,
    at_call: &Registers,
    regs: &Registers,
    fpu: Option<&FpuState>,
) -> Option<u64> {
    let mut same = *at_call;
    (same.rax, same.orig_rax) = (regs.rax, regs.orig_rax);
    if fpu.is_none() && same == *regs {
        if block.word(CTX_MODE).load(Relaxed) != 0 {
            block.word(CTX_MODE).store(0, Relaxed);
        }
        return Some(regs.rax);
    }
    let r = regs;
    let values = [
        r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax,
        r.rcx, r.rsp, r.rip, r.eflags,
    ];
    for (i, value) in values.into_iter().enumerate() {
        block.put(reg(i), value);
    }
    let mut mode = MODE_REGISTERS;
    if (r.fs_base, r.gs_base) != (at_call.fs_base, at_call.gs_base) {
        block.put(CTX_FS, r.fs_base);
        block.put(CTX_GS, r.gs_base);
        mode |= MODE_BASES;
    }
    if let Some(state) = fpu {
        for (i, chunk) in state.as_bytes().chunks_exact(8).enumerate() {
            let word: [u8; 8] = std::array::from_fn(|k| chunk[k]);
            block.put(CTX_XSAVE + 8 * i, u64::from_le_bytes(word));
        }
        mode |= MODE_VECTORS;
    }
    block.word(CTX_MODE).store(mode, Relaxed);
    None
}

/// The vector state that the stub has saved.
pub(super) fn fpu(block: &ContextBlock) -> FpuState {
    let mut image = vec![0; FpuState::len()];
    for (i, chunk) in image.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&block.get(CTX_XSAVE + 8 * i).to_le_bytes());
    }
    FpuState::from_signal_frame(image)
}
