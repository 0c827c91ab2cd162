//! The general registers of a guest thread, in the layout of the kernel's `user_regs_struct`.

/// x86-64 registers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// Number of the system call, or all ones.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
/// CF PF AF ZF SF TF DF OF NT RF AC ID, as Linux lets user space set them (arch/x86/kernel/ptrace.c, FLAG_MASK; plus ID).
const FLAGS_USER: u64 = 0x0025_4dd5;
/// Always-one bit 1 and IF.
const FLAGS_FIXED: u64 = 0x202;
/// First address that user space cannot have with four-level page tables.
const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// The trap flag.
const TF: u64 = 0x100;

impl Registers {
    /// Registers of a new program: everything zero but `rip`, `rsp` and what user mode fixes.
    pub fn new(rip: u64, rsp: u64) -> Registers {
        let orig_rax = u64::MAX;
        Registers {
            rip,
            rsp,
            orig_rax,
            cs: USER_CS,
            ss: USER_SS,
            eflags: FLAGS_FIXED,
            ..Registers::default()
        }
    }

    /// Number of the system call after [`crate::Trap::Syscall`].
    pub fn syscall_nr(&self) -> u64 {
        self.orig_rax
    }

    /// Argument `i` (0 to 5) of the system call.
    pub fn arg(&self, i: usize) -> u64 {
        match i {
            0 => self.rdi,
            1 => self.rsi,
            2 => self.rdx,
            3 => self.r10,
            4 => self.r8,
            5 => self.r9,
            _ => 0,
        }
    }

    /// All six arguments.
    pub fn args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }

    /// The result of the system call: a value, or minus an errno.
    pub fn set_return(&mut self, value: i64) {
        self.rax = value.cast_unsigned();
    }

    /// The trap flag: one instruction at a time, each ending in SIGTRAP.
    pub fn set_single_step(&mut self, on: bool) {
        if on { self.eflags |= TF } else { self.eflags &= !TF }
    }

    /// Whether the trap flag is set.
    pub fn single_step(&self) -> bool {
        self.eflags & TF != 0
    }

    /// Makes values from a guest (sigreturn, ptrace) harmless: code and stack segment of 64-bit user mode, no privileged
    /// flags, segment bases that the processor accepts. A non-canonical `rip` stays; going there faults as on Linux.
    pub fn sanitize(&mut self) {
        self.cs = USER_CS;
        self.ss = USER_SS;
        (self.ds, self.es, self.fs, self.gs) = (0, 0, 0, 0);
        self.eflags = (self.eflags & FLAGS_USER) | FLAGS_FIXED;
        if self.fs_base >= TASK_SIZE {
            self.fs_base = 0;
        }
        if self.gs_base >= TASK_SIZE {
            self.gs_base = 0;
        }
    }

    /// Whether every value is one that [`Registers::sanitize`] leaves as it is.
    pub fn is_sane(&self) -> bool {
        let mut copy = *self;
        copy.sanitize();
        copy == *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_kernels() {
        assert_eq!(size_of::<Registers>(), 27 * 8);
        assert_eq!(std::mem::offset_of!(Registers, orig_rax), 15 * 8);
        assert_eq!(std::mem::offset_of!(Registers, gs), 26 * 8);
    }

    #[test]
    fn sanitize_keeps_user_bits() {
        let mut r = Registers::new(1, 2);
        r.eflags = u64::MAX;
        r.cs = 0x10;
        r.fs_base = 0xffff_8000_0000_0000;
        r.sanitize();
        assert_eq!((r.cs, r.ss, r.fs_base), (0x33, 0x2b, 0));
        assert_eq!(r.eflags & 0x3000, 0, "no I/O privilege");
        assert_ne!(r.eflags & 0x400, 0, "direction flag stays");
        assert!(r.is_sane());
    }
}
