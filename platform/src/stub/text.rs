//! The text and the read-only data of stub processes, put together in a sealed memfd.

use super::{filter, layout};
use crate::error::PlatformError;
use libc::sock_filter;
use rustix::fs::{MemfdFlags, SealFlags};
use std::os::fd::OwnedFd;

std::arch::global_asm!(
    include_str!("stub.s"),
    text = const layout::TEXT,
    text_len = const layout::TEXT_LEN,
    data = const layout::DATA,
    data_len = const layout::DATA_LEN,
    cmd = const layout::CMD,
    vdso = const layout::VDSO,
    vdso_len = const layout::VDSO_LEN,
    task_end = const layout::TASK_END,
    data_bytes = const layout::DATA_BYTES,
    data_mask = const layout::DATA_MASK,
    data_loose_prog = const layout::DATA_LOOSE_PROG,
    data_strict_prog = const layout::DATA_STRICT_PROG,
    data_xsave = const layout::DATA_XSAVE,
    cmd_post = const layout::CMD_POST,
    cmd_done = const layout::CMD_DONE,
    cmd_waiting = const layout::CMD_WAITING,
    cmd_result = const layout::CMD_RESULT,
    cmd_failed = const layout::CMD_FAILED,
    cmd_count = const layout::CMD_COUNT,
    cmd_spin = const layout::CMD_SPIN,
    cmd_parent = const layout::CMD_PARENT,
    cmd_list = const layout::CMD_LIST,
    data_action = const layout::DATA_ACTION,
    signals = const layout::SIGNALS,
    ctx_size = const layout::CTX_SIZE,
    ctx_state = const layout::CTX_STATE,
    ctx_sentry_sleeps = const layout::CTX_SENTRY_SLEEPS,
    ctx_stub_sleeps = const layout::CTX_STUB_SLEEPS,
    ctx_spin = const layout::CTX_SPIN,
    ctx_signo = const layout::CTX_SIGNO,
    ctx_info = const layout::CTX_INFO,
    ctx_uc = const layout::CTX_UC,
    ctx_fs = const layout::CTX_FS,
    ctx_gs = const layout::CTX_GS,
    ctx_cpu = const layout::CTX_CPU,
    ctx_sentry_cpu = const layout::CTX_SENTRY_CPU,
    ctx_stack = const layout::CTX_STACK,
    ctx_mode = const layout::CTX_MODE,
    ctx_prev = const layout::CTX_PREV,
    ctx_result = const layout::CTX_RESULT,
    ctx_cont = const layout::CTX_CONT,
    ctx_rest = const layout::CTX_REST,
    ctx_iret = const layout::CTX_IRET,
    ctx_xsave = const layout::CTX_XSAVE,
    mode_bases = const layout::MODE_BASES,
    mode_vectors = const layout::MODE_VECTORS,
    state_trapped = const layout::STATE_TRAPPED,
    state_run = const layout::STATE_RUN,
    state_keep = const layout::STATE_KEEP,
    cmd_kept = const layout::CMD_KEPT,
    cmd_frame = const layout::CMD_FRAME,
    state_exit = const layout::STATE_EXIT,
    state_fast = const layout::STATE_FAST,
    state_save = const layout::STATE_SAVE,
    state_saved = const layout::STATE_SAVED,
    table = const layout::TABLE,
    table_len = const layout::TABLE_LEN,
    data_rdpid = const layout::DATA_RDPID,
    low = const layout::LOW,
    nr_selector = const layout::NR_SELECTOR,
    selector = const layout::SELECTOR,
    data_xmask = const layout::DATA_XMASK,
    data_numbers = const layout::DATA_NUMBERS,
    reg_r8 = const layout::reg(0),
    reg_r9 = const layout::reg(1),
    reg_r10 = const layout::reg(2),
    reg_r11 = const layout::reg(3),
    reg_r12 = const layout::reg(4),
    reg_r13 = const layout::reg(5),
    reg_r14 = const layout::reg(6),
    reg_r15 = const layout::reg(7),
    reg_rdi = const layout::reg(8),
    reg_rsi = const layout::reg(9),
    reg_rbp = const layout::reg(10),
    reg_rbx = const layout::reg(11),
    reg_rdx = const layout::reg(12),
    reg_rax = const layout::reg(13),
    reg_rcx = const layout::reg(14),
    reg_rsp = const layout::reg(15),
    reg_rip = const layout::reg(16),
    reg_eflags = const layout::reg(17),
);

unsafe extern "C" {
    static runsc_stub_start: u8;
    static runsc_stub_end: u8;
    static runsc_stub_zygote: u8;
    static runsc_stub_parked: u8;
    static runsc_stub_exit: u8;
    static runsc_stub_exited: u8;
    static runsc_stub_handler: u8;
    static runsc_stub_woke: u8;
    static runsc_stub_slept: u8;
    static runsc_stub_returned: u8;
    static runsc_stub_kept: u8;
    static runsc_stub_renewed: u8;
    static runsc_stub_first: u8;
    static runsc_stub_selector: u8;
    static runsc_stub_fast: u8;
    static runsc_stub_enter: u8;
    static runsc_stub_enter_far: u8;
    static runsc_stub_post: u8;
    static runsc_stub_fast_woke: u8;
    static runsc_stub_fast_slept: u8;
    static runsc_stub_iret: u8;
    static runsc_stub_fast_end: u8;
    static runsc_stub_const: u8;
    static runsc_stub_const_getpid: u8;
    static runsc_stub_const_gettid: u8;
    static runsc_stub_const_getuid: u8;
    static runsc_stub_const_geteuid: u8;
    static runsc_stub_const_getgid: u8;
    static runsc_stub_const_getegid: u8;
    static runsc_stub_const_getppid: u8;
    static runsc_stub_answer_zero: u8;
    static runsc_stub_answer_nonzero: u8;
    static runsc_stub_ask_zero: u8;
    static runsc_stub_ask_nonzero: u8;
    static runsc_stub_const_end: u8;
    static runsc_stub_const_nonzero: u8;
    static runsc_stub_const_zero: u8;
}

/// Where a label of `stub.s` is in a stub process.
fn address(label: *const u8) -> u64 {
    layout::TEXT + (label as u64 - &raw const runsc_stub_start as u64)
}

/// Where the zygote begins.
pub(super) fn zygote_address() -> u64 {
    address(&raw const runsc_stub_zygote)
}

/// Where a new guest thread waits for its tracer: the instruction after its pause(2).
pub fn parked_address() -> u64 {
    address(&raw const runsc_stub_parked)
}

/// Where a thread goes to end itself.
pub fn exit_address() -> u64 {
    address(&raw const runsc_stub_exit)
}

/// Where a kept thread begins anew.
pub fn first_address() -> u64 {
    address(&raw const runsc_stub_first)
}

/// The parts of the text that patched sites use, as addresses in a stub process.
#[derive(Clone, Copy, Debug)]
pub struct FastText {
    /// The way in where the next instruction follows the call.
    pub enter: u64,
    /// The way in where it does not: the address after the call stands in the eight bytes before the code to go on with.
    pub enter_far: u64,
    /// The ways in of calls that records answer, by number.
    pub constants: [(u64, u64); 7],
    /// All of the ways in, the wait and the way out.
    pub all: (u64, u64),
    /// The instruction that posts; up to it nothing is.
    pub post: u64,
    /// The instruction that loads `rip` and flags.
    pub iret: u64,
    /// The code that answers from records.
    pub answers: (u64, u64),
    /// Where in it the guest's zero flag was clear, whatever it is now.
    pub cleared: [(u64, u64); 3],
    /// For a record: with the zero flag clear, with it set.
    pub answer: (u64, u64),
    /// The same for one without answers.
    pub ask: (u64, u64),
}

/// See [`FastText`].
pub fn fast_text() -> FastText {
    FastText {
        enter: address(&raw const runsc_stub_enter),
        enter_far: address(&raw const runsc_stub_enter_far),
        constants: [
            (libc::SYS_getpid as u64, address(&raw const runsc_stub_const_getpid)),
            (libc::SYS_gettid as u64, address(&raw const runsc_stub_const_gettid)),
            (libc::SYS_getuid as u64, address(&raw const runsc_stub_const_getuid)),
            (libc::SYS_geteuid as u64, address(&raw const runsc_stub_const_geteuid)),
            (libc::SYS_getgid as u64, address(&raw const runsc_stub_const_getgid)),
            (libc::SYS_getegid as u64, address(&raw const runsc_stub_const_getegid)),
            (libc::SYS_getppid as u64, address(&raw const runsc_stub_const_getppid)),
        ],
        all: (address(&raw const runsc_stub_fast), address(&raw const runsc_stub_fast_end)),
        post: address(&raw const runsc_stub_post),
        iret: address(&raw const runsc_stub_iret),
        answers: (address(&raw const runsc_stub_const), address(&raw const runsc_stub_const_end)),
        cleared: [
            (address(&raw const runsc_stub_const_nonzero), address(&raw const runsc_stub_const_zero)),
            (address(&raw const runsc_stub_answer_nonzero), address(&raw const runsc_stub_ask_zero)),
            (address(&raw const runsc_stub_ask_nonzero), address(&raw const runsc_stub_const_end)),
        ],
        answer: (address(&raw const runsc_stub_answer_nonzero), address(&raw const runsc_stub_answer_zero)),
        ask: (address(&raw const runsc_stub_ask_nonzero), address(&raw const runsc_stub_ask_zero)),
    }
}

/// The signal mask of guest threads while they run guest code.
pub fn guest_mask() -> u64 {
    !u64::from(layout::SIGNALS)
}

/// Component 9: the protection keys, which would lock the stub out of its own pages.
const PKRU: u64 = 1 << 9;

fn text() -> &'static [u8] {
    let (start, end) = (&raw const runsc_stub_start, &raw const runsc_stub_end);
    // SAFETY: both labels are in one read-only section, start before end.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// The memfd: text pages, then the data page. `control` is the number of the control file's descriptor.
pub(super) fn build(control: i32) -> Result<OwnedFd, PlatformError> {
    let code = text();
    assert!(code.len() as u64 <= layout::TEXT_LEN, "the stub's text has outgrown its pages");
    let mut image = vec![0u8; (layout::TEXT_LEN + layout::DATA_LEN + layout::TABLE_LEN) as usize];
    image[..code.len()].copy_from_slice(code);
    let (image_data, tables) = image[layout::TEXT_LEN as usize..].split_at_mut(layout::DATA_LEN as usize);
    let data = image_data;
    for i in 0..layout::NUMBERS {
        let context = layout::CTX_BASE + i * layout::CTX_SIZE;
        let own = layout::CMD + (layout::CMD_RECORDS as u64) + i * layout::RECORD_LEN as u64;
        let record = if i < layout::RECORDS { own } else { layout::DATA + layout::DATA_RECORD as u64 };
        let at = 8 * i as usize;
        tables[at..][..8].copy_from_slice(&context.to_le_bytes());
        tables[layout::TABLE_RECORDS as usize + at..][..8].copy_from_slice(&record.to_le_bytes());
    }
    let fast = fast_text();
    for (i, word) in [fast.ask.0, fast.ask.1].into_iter().enumerate() {
        data[layout::DATA_RECORD + 8 * i..][..8].copy_from_slice(&word.to_le_bytes());
    }
    for (i, (nr, _)) in fast.constants.iter().enumerate() {
        data[layout::DATA_NUMBERS + 4 * i..][..4].copy_from_slice(&(*nr as u32).to_le_bytes());
    }
    const RDPID: u32 = 1 << 22;
    data[layout::DATA_RDPID] = u8::from(std::arch::x86_64::__cpuid_count(7, 0).ecx & RDPID != 0);
    let mask = crate::FpuState::components() & !PKRU;
    data[layout::DATA_XMASK..][..8].copy_from_slice(&mask.to_le_bytes());
    for (i, byte) in data[layout::DATA_BYTES..][..256].iter_mut().enumerate() {
        *byte = i as u8;
    }
    data[layout::DATA_MASK..][..8].copy_from_slice(&guest_mask().to_le_bytes());
    data[layout::DATA_XSAVE..][..2].copy_from_slice(&0x37fu16.to_le_bytes());
    data[layout::DATA_XSAVE + 24..][..4].copy_from_slice(&0x1f80u32.to_le_bytes());
    let loose = filter::loose(
        layout::TEXT,
        layout::TEXT + code.len() as u64,
        control,
        address(&raw const runsc_stub_selector),
    );
    // struct sigaction of the kernel: handler, flags, restorer, mask. The handler never returns to the restorer.
    const SA_RESTORER: u64 = 0x0400_0000;
    let handler = address(&raw const runsc_stub_handler);
    let flags = (libc::SA_SIGINFO | libc::SA_ONSTACK) as u64 | SA_RESTORER;
    for (i, word) in [handler, flags, exit_address(), u64::MAX].into_iter().enumerate() {
        data[layout::DATA_ACTION + 8 * i..][..8].copy_from_slice(&word.to_le_bytes());
    }
    let site = |label: *const u8, nr: i64, arg1, arg0| filter::Site {
        ip: address(label),
        nr: nr as u32,
        arg0,
        arg1,
    };
    let (wait, wake) = (Some(libc::FUTEX_WAIT as u32), Some(libc::FUTEX_WAKE as u32));
    let kept = layout::CMD + layout::CMD_KEPT as u64;
    let strict = filter::strict(&[
        // Who sleeps on the word of kept threads must have come there by their code.
        site(&raw const runsc_stub_slept, libc::SYS_futex, wait, Some(layout::CTX_BASE..=layout::TEXT - 4)),
        site(&raw const runsc_stub_woke, libc::SYS_futex, wake, None),
        site(&raw const runsc_stub_returned, libc::SYS_rt_sigreturn, None, None),
        site(&raw const runsc_stub_parked, libc::SYS_pause, None, None),
        site(&raw const runsc_stub_exited, libc::SYS_exit, None, None),
        site(&raw const runsc_stub_kept, libc::SYS_futex, wait, Some(kept..=kept)),
        site(&raw const runsc_stub_renewed, libc::SYS_rt_sigreturn, None, None),
        site(
            &raw const runsc_stub_fast_slept,
            libc::SYS_futex,
            wait,
            Some(layout::CTX_BASE..=layout::TEXT - 4),
        ),
        site(&raw const runsc_stub_fast_woke, libc::SYS_futex, wake, None),
    ]);
    let mut at = layout::DATA_FILTERS;
    for (program, slot) in [(loose, layout::DATA_LOOSE_PROG), (strict, layout::DATA_STRICT_PROG)] {
        // struct sock_fprog: u16 length, then the address at offset 8.
        data[slot..][..2].copy_from_slice(&(program.len() as u16).to_le_bytes());
        data[slot + 8..][..8].copy_from_slice(&(layout::DATA + at as u64).to_le_bytes());
        for sock_filter { code, jt, jf, k } in program {
            data[at..][..2].copy_from_slice(&code.to_le_bytes());
            (data[at + 2], data[at + 3]) = (jt, jf);
            data[at + 4..][..4].copy_from_slice(&k.to_le_bytes());
            at += 8;
        }
    }
    assert!(at <= layout::DATA_LEN as usize, "the filters have outgrown their page");
    let host = |what: &'static str| move |e: rustix::io::Errno| PlatformError::errno(what, e.raw_os_error());
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels whose vm.memfd_noexec refuses executable memfds say so here; those before 6.3 do not know the flag.
    let fd = rustix::fs::memfd_create("stub-text", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("stub-text", flags))
        .map_err(host("memfd_create for the stub's text"))?;
    let written = rustix::io::pwrite(&fd, &image, 0).map_err(host("writing the stub's text"))?;
    assert_eq!(written, image.len(), "short write to a memfd");
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals).map_err(host("sealing the stub's text"))?;
    Ok(fd)
}
