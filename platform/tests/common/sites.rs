//! Guests that make calls from sites that can be patched.

use crate::common::{DATA, Guest, regs};
use platform::*;
use std::sync::{Arc, OnceLock};

std::arch::global_asm!(
    ".section .rodata.patch_guests, \"a\"",
    ".balign 4096",
    ".globl p_start",
    "p_start: nop; nop; nop; nop; nop; nop; nop; nop; nop; nop",
    // every register but rax, rcx and r11 stays, as do flags and the red zone; rdi counts
    ".globl p_number",
    "p_number: mov qword ptr [rsp - 8], 77; mov qword ptr [rsp - 128], 78",
    "  mov eax, 121",
    "  syscall",
    ".globl p_number_end",
    "p_number_end: inc rbx",
    "  jmp p_number",
    // the same with the zero flag set, and carry
    ".globl p_flags",
    "p_flags: xor eax, eax; stc; mov eax, 121",
    "  syscall",
    ".globl p_flags_end",
    "p_flags_end: pushfq; pop r9; inc rbx; jmp p_flags",
    // as Go and syscall(3) have it
    ".globl p_compare",
    "p_compare: mov rax, r15",
    ".globl p_compare_call",
    "p_compare_call: syscall",
    ".globl p_compare_end",
    "p_compare_end: cmp rax, -4095",
    "  jae 2f",
    "  inc rbx; jmp p_compare",
    "2: inc rbp; jmp p_compare",
    // as musl has it
    ".globl p_moved",
    "p_moved: mov r11, 55; mov rax, r15; call 3f; inc rbx; jmp p_moved",
    "3: mov [rsp + 8], r11",
    "  syscall",
    ".globl p_moved_end",
    "p_moved_end: ret",
    // a call that records answer
    ".globl p_pid",
    "p_pid: test rbx, rbx; mov eax, 39",
    "  syscall",
    ".globl p_pid_end",
    "p_pid_end: pushfq; pop r9; mov r10, rcx; inc rbx; cmp eax, r12d; je p_pid; ud2",
    // the one whose answer others can change
    ".globl p_parent",
    "p_parent: test rbx, rbx; mov eax, 110",
    "  syscall",
    ".globl p_parent_end",
    "p_parent_end: pushfq; pop r9; mov r10, rcx; inc rbx; cmp eax, r12d; je p_parent; ud2",
    // vector registers over calls
    ".globl p_fpu",
    "p_fpu: movq rbx, xmm7; mov eax, 121",
    "  syscall",
    ".globl p_fpu_end",
    "p_fpu_end: jmp p_fpu",
    ".globl p_end",
    "p_end: nop; nop; nop; nop; nop; nop; nop; nop; nop; nop",
    ".text",
);

unsafe extern "C" {
    pub static p_start: u8;
    pub static p_end: u8;
    pub static p_number: u8;
    pub static p_number_end: u8;
    pub static p_flags: u8;
    pub static p_flags_end: u8;
    pub static p_compare: u8;
    pub static p_compare_call: u8;
    pub static p_compare_end: u8;
    pub static p_moved: u8;
    pub static p_moved_end: u8;
    pub static p_pid: u8;
    pub static p_pid_end: u8;
    pub static p_parent: u8;
    pub static p_parent_end: u8;
    pub static p_fpu: u8;
    pub static p_fpu_end: u8;
}

/// Where the code of these guests is mapped.
pub const CODE: u64 = 0x5555_5540_0000;

/// Guest address of a label.
#[macro_export]
macro_rules! pos {
    ($label:ident) => {
        sites::CODE + (&raw const sites::$label as u64 - &raw const sites::p_start as u64)
    };
}

pub fn systrap() -> Arc<dyn Platform> {
    static P: OnceLock<Arc<dyn Platform>> = OnceLock::new();
    P.get_or_init(|| platform::open("systrap").expect("systrap platform")).clone()
}

/// An address space with that code, and a thread in it.
pub struct World {
    pub g: Guest,
    pub code: FileRange,
    pub space: Arc<dyn AddressSpace>,
    pub cx: Box<dyn Context>,
}

impl World {
    pub fn new() -> World {
        let g = Guest::new(systrap());
        let code = g.mem.allocate(PAGE, AllocOpts::default()).unwrap();
        // SAFETY: both labels are in one read-only section.
        let bytes = unsafe {
            std::slice::from_raw_parts(
                &raw const p_start,
                &raw const p_end as usize - &raw const p_start as usize,
            )
        };
        assert!(bytes.len() < PAGE as usize);
        g.mem.block(code).write(0, bytes).unwrap();
        let space = g.platform.new_address_space().unwrap();
        let cx = g.platform.new_context().unwrap();
        g.map_data(&space, Prot::READ | Prot::WRITE);
        let w = World { g, code, space, cx };
        w.map_code();
        w
    }

    pub fn map_code(&self) {
        let at = GuestRange { start: CODE, end: CODE + PAGE };
        self.space.map(at, self.g.mem.host_file(), self.code.start, Prot::READ | Prot::EXEC, false).unwrap();
    }

    pub fn patch(&self, after: u64, nr: u64) -> bool {
        let room = self.space.patch_room(after).map(|(_, len)| {
            let start = CODE - (1 << 20);
            GuestRange { start, end: start + len }
        });
        let file = self.g.mem.host_file();
        let prot = Prot::READ | Prot::EXEC;
        self.space.patch_call(&CallSite { after, nr, file, offset: self.code.start, prot, room }).unwrap()
    }

    pub fn switch(&mut self, r: &mut Registers) -> Trap {
        self.cx.switch(&self.space, r).unwrap()
    }
}

/// Registers at the start of one, each with a value of its own.
pub fn full(rip: u64) -> Registers {
    let mut r = regs(rip);
    r.rsp = DATA + 8 * PAGE;
    (r.rdi, r.rsi, r.rdx, r.r10, r.r8) = (1, 2, 3, 4, 5);
    (r.rbp, r.r12, r.r13, r.r14, r.r15) = (10, 12, 13, 14, 121);
    r
}
