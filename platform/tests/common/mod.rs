//! Tiny guests for tests of platforms: machine code copied into a memory file and mapped.

use platform::*;
use std::sync::Arc;

/// Where guest code is mapped.
pub const CODE: u64 = 0x40_0000;
/// Where guest data is mapped (16 pages).
pub const DATA: u64 = 0x50_0000;

std::arch::global_asm!(
    ".section .rodata.guests, \"a\"",
    ".globl guests_start",
    "guests_start:",
    // getpgid in a loop; adds the results in rbx
    ".globl g_loop",
    "g_loop: mov eax, 121",
    "  syscall",
    "  add rbx, rax",
    "  jmp g_loop",
    // all arguments
    ".globl g_args",
    "g_args: mov rdi, 1; mov rsi, 2; mov rdx, 3; mov r10, 4; mov r8, 5; mov r9, 6; mov eax, 777",
    "  syscall",
    "  ud2",
    // spins, counting in rbx
    ".globl g_spin",
    "g_spin: inc rbx",
    "  jmp g_spin",
    // stores rbx at rdi, loads it to rcx, then a syscall with what it read
    ".globl g_store",
    "g_store: mov [rdi], rbx",
    "  mov rsi, [rdi]",
    "  mov eax, 1",
    "  syscall",
    "  ud2",
    // exceptions
    ".globl g_ud2",
    "g_ud2: ud2",
    ".globl g_div",
    "g_div: xor edx, edx; xor ecx, ecx; mov eax, 1; div ecx",
    ".globl g_int3",
    "g_int3: int3",
    ".globl g_hlt",
    "g_hlt: hlt",
    ".globl g_int80",
    "g_int80: mov eax, 20; int 0x80",
    ".globl g_sysenter",
    "g_sysenter: mov eax, 20; sysenter",
    // time() on the vsyscall page
    // (its address is 0xffffffffff600400)
    ".globl g_vsyscall",
    "g_vsyscall: mov rdi, 0x500000",
    "  mov rax, -10484736",
    "  call rax",
    "  mov rbx, rax",
    "  ud2",
    // three plain instructions and a syscall
    ".globl g_step",
    "g_step: nop; nop; nop",
    "  mov eax, 39",
    "  syscall",
    "  nop; nop",
    "  ud2",
    // segment bases: gs:[0] -> rbx, fs:[8] -> rcx
    ".globl g_bases",
    "g_bases: mov rbx, gs:[0]; mov rsi, fs:[8]; mov eax, 5; syscall; ud2",
    // vector state: xmm0 := rbx, syscall, rbx := xmm0, syscall
    ".globl g_fpu",
    "g_fpu: movq xmm0, rbx; mov eax, 1; syscall; movq rbx, xmm0; mov eax, 2; syscall; jmp g_fpu",
    // adds 1 to [rdi] atomically rsi times, then syscall
    ".globl g_count",
    "g_count: lock inc qword ptr [rdi]; dec rsi; jnz g_count; mov eax, 60; syscall; ud2",
    // reads [rdi] for ever until it changes from rsi, then syscall
    ".globl g_watch",
    "g_watch: cmp [rdi], rsi; je g_watch; mov eax, 3; syscall; ud2",
    // every general register is kept over a syscall
    ".globl g_keep",
    "g_keep: syscall; ud2",
    // fills [rdi] .. [rdi + 8 rcx] with rax, then a syscall, again and again
    ".globl g_spoil",
    "g_spoil: mov r8, rdi; mov r9, rcx",
    "2: mov rdi, r8; mov rcx, r9; rep stosq; mov eax, 39; syscall; jmp 2b",
    // the same without the syscall
    ".globl g_spoil_spin",
    "g_spoil_spin: mov r8, rdi; mov r9, rcx",
    "2: mov rdi, r8; mov rcx, r9; rep stosq; jmp 2b",
    ".globl guests_end",
    "guests_end: nop",
    ".text",
);

macro_rules! labels {
    ($($name:ident),*) => {
        unsafe extern "C" { $(pub static $name: u8;)* }

        /// Where they all are in this program.
        fn addresses() -> Vec<u64> {
            vec![$(&raw const $name as u64),*]
        }
    };
}
labels!(
    guests_start,
    guests_end,
    g_loop,
    g_args,
    g_spin,
    g_store,
    g_ud2,
    g_div,
    g_int3,
    g_hlt,
    g_int80,
    g_sysenter,
    g_vsyscall,
    g_step,
    g_bases,
    g_fpu,
    g_count,
    g_watch,
    g_keep,
    g_spoil,
    g_spoil_spin
);

/// Guest address of a label.
#[macro_export]
macro_rules! at {
    ($label:ident) => {
        common::CODE + (&raw const common::$label as u64 - &raw const common::guests_start as u64)
    };
}

/// A memory file with the guests' code in it, and a data area.
pub struct Guest {
    pub platform: Arc<dyn Platform>,
    pub mem: Arc<MemoryFile>,
    pub code: FileRange,
    pub data: FileRange,
}

impl Guest {
    pub fn new(platform: Arc<dyn Platform>) -> Guest {
        let mem = MemoryFile::new().unwrap();
        let code = mem.allocate(4 * PAGE, AllocOpts::default()).unwrap();
        let data = mem.allocate(16 * PAGE, AllocOpts::default()).unwrap();
        let (start, end) = (&raw const guests_start, &raw const guests_end);
        assert!(addresses().iter().all(|a| (start as u64..=end as u64).contains(a)));
        // SAFETY: both labels are in one read-only section.
        let bytes = unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) };
        mem.block(code).write(0, bytes).unwrap();
        let guest = Guest { platform, mem, code, data };
        assert_eq!(guest.word(0), 0, "new memory is empty");
        guest
    }

    pub fn space(&self) -> Arc<dyn AddressSpace> {
        let space = self.platform.new_address_space().unwrap();
        let at = GuestRange { start: CODE, end: CODE + self.code.len() };
        space.map(at, self.mem.host_file(), self.code.start, Prot::READ | Prot::EXEC, false).unwrap();
        space
    }

    pub fn map_data(&self, space: &Arc<dyn AddressSpace>, prot: Prot) {
        let at = GuestRange { start: DATA, end: DATA + self.data.len() };
        space.map(at, self.mem.host_file(), self.data.start, prot, false).unwrap();
    }

    /// A word of the data area.
    pub fn word(&self, off: usize) -> u64 {
        self.mem.block(self.data).load_u64(off).unwrap()
    }
}

pub fn regs(rip: u64) -> Registers {
    Registers::new(rip, DATA + 16 * PAGE)
}
