//! Addresses in stub processes and offsets in their command pages; `stub.s` gets them as constants.

/// Where the text of stubs lies, above the context blocks. The place is chosen to be above the kernel's mmap base
/// even without address randomisation, so that the zygote can map it while the sentry's memory is still there.
pub const TEXT: u64 = 0x7fff_f800_0000;
/// Bytes of text, whole pages.
pub const TEXT_LEN: u64 = 0x2000;
/// Read-only data of stubs, right after the text.
pub const DATA: u64 = TEXT + TEXT_LEN;
/// Bytes of data.
pub const DATA_LEN: u64 = 0x1000;
/// The command page.
pub const CMD: u64 = TEXT + 0x1_0000;
/// Tables of all threads of a process, the same in each: where the context page is, and [`TABLE_RECORDS`] further on where the record
/// of constants is. Aligned to its size: a thread's place in it is the low half of an address.
pub const TABLE: u64 = TEXT + 0x2_0000;
/// Bytes of both tables.
pub const TABLE_LEN: u64 = 0x1_0000;
/// The second table.
pub const TABLE_RECORDS: u64 = 0x8000;
/// The command page's second place, which 32-bit calls can reach. In reach of guests: it is only used while no guest has mapped there.
pub const LOW: u64 = 0x1_0000;
/// Not a call: a command that sets the descriptor of the thread that is cloned next. Arguments 2 and 3 are the structure.
pub const NR_SELECTOR: i64 = 0x7000;
/// The first descriptor of a thread (entry 12), as user code names it.
pub const SELECTOR: u16 = 12 << 3 | 3;
/// Where the host's vdso goes, with its data pages.
pub const VDSO: u64 = TEXT + 0x4_0000;
/// Most bytes it may have.
pub const VDSO_LEN: u64 = 0x4_0000;
/// First address user space cannot have.
pub const TASK_END: u64 = 0x7fff_ffff_f000;

/// The 256 bytes 0, 1, … 255.
pub const DATA_BYTES: usize = 0;
/// Signal mask of guest threads.
pub const DATA_MASK: usize = 0x100;
/// `struct sock_fprog` of the mapper's filter.
pub const DATA_LOOSE_PROG: usize = 0x110;
/// `struct sock_fprog` of guest threads' filter.
pub const DATA_STRICT_PROG: usize = 0x120;
/// An XSAVE image of the initial state (legacy area and header).
pub const DATA_XSAVE: usize = 0x140;
/// u8: whether the processor has RDPID.
pub const DATA_RDPID: usize = 0x380;
/// Mask of the state components in vector images, u64: without protection keys and AMX tiles.
pub const DATA_XMASK: usize = 0x3a0;
/// The record of threads that have none: everything is asked of the sentry.
pub const DATA_RECORD: usize = 0x3e0;
/// Numbers of the calls that records can answer, u32 each.
pub const DATA_NUMBERS: usize = 0x400;
/// The kernel's `struct sigaction` of guest threads' handler.
pub const DATA_ACTION: usize = 0x3c0;
/// Filter instructions.
pub const DATA_FILTERS: usize = 0x440;

/// u32, counts batches: written by the sentry, futex of the mapper.
pub const CMD_POST: usize = 0;
/// u32, the last batch that was finished: written by the mapper through the file, futex of the sentry.
pub const CMD_DONE: usize = 4;
/// u32, whether the sentry sleeps on `CMD_DONE`.
pub const CMD_WAITING: usize = 8;
/// i32, result of the failed command or of one that asked for it.
pub const CMD_RESULT: usize = 12;
/// u8, index of the failed command.
pub const CMD_FAILED: usize = 16;
/// u32, number of commands.
pub const CMD_COUNT: usize = 20;
/// u32, how often the mapper looks for the next batch before it sleeps.
pub const CMD_SPIN: usize = 24;
/// u32, process id of the sentry as the stub sees it.
pub const CMD_PARENT: usize = 28;
/// u32, whether the zygote has moved the host's vdso.
pub const CMD_VDSO: usize = 32;
/// u32, 1 while the only guest thread of the process is kept without a guest. Futex of that thread.
pub const CMD_KEPT: usize = 36;
/// u64, address of the signal frame with which a kept thread goes on.
pub const CMD_FRAME: usize = 40;
/// u32, futex a kept thread is moved to when it is taken, to learn that it sleeps.
pub const CMD_TAKEN: usize = 48;
/// The commands: 64 bytes each.
pub const CMD_LIST: usize = 64;
/// Most commands in a batch.
pub const CMD_MAX: usize = (CMD_RECORDS - CMD_LIST) / 64;
/// Records of the first threads of the process: [`RECORD_LEN`] bytes each.
pub const CMD_RECORDS: usize = 0x800;
/// Bytes of a record: where to go with the zero flag clear, where with it set, seven answers (u32), at 48 the context page.
pub const RECORD_LEN: usize = 64;
/// Where in a record getppid(2)'s answer is.
pub const RECORD_PARENT: usize = 40;
/// How many threads of a process have a record.
pub const RECORDS: u64 = ((4096 - CMD_RECORDS) / RECORD_LEN) as u64;

/// Signals with the handler, as a mask with bit n-1 for signal n: what instructions can raise, and the interrupt.
pub const SIGNALS: u32 = {
    1 << (libc::SIGSEGV - 1)
        | 1 << (libc::SIGBUS - 1)
        | 1 << (libc::SIGILL - 1)
        | 1 << (libc::SIGFPE - 1)
        | 1 << (libc::SIGTRAP - 1)
        | 1 << (libc::SIGSYS - 1)
        | 1 << (hostsys::signals::INTERRUPT - 1)
};

/// Where the context blocks of a process lie, up to the text. Guests cannot map from here on.
pub const CTX_BASE: u64 = TEXT - 0x1000_0000;
/// Bytes of a context block: a context page, then the signal stack. Blocks are aligned to their size.
pub const CTX_SIZE: u64 = 0x8000;
/// Most context blocks in a process, so most guest threads.
pub const CTX_MAX: u64 = (TEXT - CTX_BASE) / CTX_SIZE;
/// How many threads of a process can be told their number.
pub const NUMBERS: u64 = TABLE_RECORDS / 8;
// Both sides look at the first line of 64 bytes while they wait, so whatever is written there takes it from the other's core: it
// holds what is looked at with the state, and what is written right before it. What a call writes before it is posted, and what
// seldom changes, lies behind the registers.
/// u32: what happens (STATE_*). Futex of both sides.
pub const CTX_STATE: usize = 0;
/// u32: the sentry sleeps on the state.
pub const CTX_SENTRY_SLEEPS: usize = 4;
/// u32: the stub sleeps on the state.
pub const CTX_STUB_SLEEPS: usize = 8;
/// u32: what the state was before the last trap.
pub const CTX_PREV: usize = 12;
/// u32: how to go on after a call from a patched site: zero, or MODE_*.
pub const CTX_MODE: usize = 16;
/// i32: not zero while the host thread is there; cleared by the host's kernel.
pub const CTX_TID: usize = 20;
/// u64: result of a call from a patched site.
pub const CTX_RESULT: usize = 24;
/// `stack_t` of the signal stack.
pub const CTX_STACK: usize = 64;
/// u64: address of the siginfo.
pub const CTX_INFO: usize = 88;
/// u64: address of the ucontext.
pub const CTX_UC: usize = 96;
/// u32: the signal.
pub const CTX_SIGNO: usize = 104;
/// Registers of a call from a patched site, in the order of `struct sigcontext`.
pub const CTX_REGS: usize = 128;
/// Offset of a register there.
pub const fn reg(index: usize) -> usize {
    CTX_REGS + 8 * index
}
/// u64: FS base.
pub const CTX_FS: usize = reg(18);
/// u64: GS base.
pub const CTX_GS: usize = reg(19);
/// u64: where a patched site goes on.
pub const CTX_CONT: usize = reg(20);
/// u32: the processor on which the guest thread trapped.
pub const CTX_CPU: usize = reg(21);
/// u32: the processor on which the sentry was when it let the guest thread run.
pub const CTX_SENTRY_CPU: usize = reg(21) + 4;
/// u32: how often the stub looks at the state before it sleeps.
pub const CTX_SPIN: usize = reg(22);
/// u32: 1 when the answer will take long, so that the thread had better sleep than look for it.
pub const CTX_REST: usize = reg(22) + 4;
/// What `iretq` takes from a stack.
pub const CTX_IRET: usize = 0x140;
/// Vector state of a thread at a patched site.
pub const CTX_XSAVE: usize = 0x400;
/// Most bytes of it.
pub const CTX_XSAVE_LEN: usize = 0xc00;
/// All general registers are to be loaded.
pub const MODE_REGISTERS: u32 = 1;
/// Segment bases too.
pub const MODE_BASES: u32 = 2;
/// Vector registers too.
pub const MODE_VECTORS: u32 = 4;
/// The guest thread trapped and waits.
pub const STATE_TRAPPED: u32 = 1;
/// The guest thread runs or shall run.
pub const STATE_RUN: u32 = 2;
/// The host thread shall end.
pub const STATE_EXIT: u32 = 3;
/// The host thread, the only one of its process, shall wait for another guest.
pub const STATE_KEEP: u32 = 4;
/// A call came from a patched site; the thread waits.
pub const STATE_FAST: u32 = 5;
/// The sentry wants the vector state of a thread that waits at a patched site.
pub const STATE_SAVE: u32 = 7;
/// It is there.
pub const STATE_SAVED: u32 = 8;
