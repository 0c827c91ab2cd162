//! Memory accesses that survive a fault.
//!
//! The sentry maps memory it does not control: pages of donated host files that may be truncated at any
//! moment, and shared memory whose backing the host may fail to supply. Such an access raises SIGSEGV or
//! SIGBUS. The routines here are the only code that touches that memory; [`install`] places a signal handler that
//! recognises their instructions by address and lets them return how far they got. Every other fault
//! goes to whoever handled it before (std's stack-overflow report, then a crash).
//!
//! Not here: which addresses are valid (see `block`).

use std::mem::MaybeUninit;
use std::sync::OnceLock;

/// The access hit memory that is not there (unmapped, truncated, not writable, or not to be had from the host).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory access fault")]
pub struct Fault;

std::arch::global_asm!(include_str!("fault.s"));

macro_rules! labels { ($($name:ident),* $(,)?) => { unsafe extern "C" { $(fn $name();)* } } }
labels!(
    hostsys_copy_word,
    hostsys_copy_word_end,
    hostsys_copy_rep,
    hostsys_copy_rep_end,
    hostsys_copy_tail,
    hostsys_copy_byte,
    hostsys_copy_byte_end,
    hostsys_copy_done,
    hostsys_zero_rep,
    hostsys_zero_rep_end,
    hostsys_load32_at,
    hostsys_load32_end,
    hostsys_load64_at,
    hostsys_load64_end,
    hostsys_store32_at,
    hostsys_store32_end,
    hostsys_store64_at,
    hostsys_store64_end,
    hostsys_cmpxchg32_at,
    hostsys_cmpxchg32_end,
    hostsys_cmpxchg64_at,
    hostsys_cmpxchg64_end,
    hostsys_access_failed,
);
unsafe extern "C" {
    fn hostsys_copy(dst: *mut u8, src: *const u8, len: usize) -> usize;
    fn hostsys_zero(dst: *mut u8, len: usize) -> usize;
    fn hostsys_load32(src: *const u32, out: *mut u32) -> u32;
    fn hostsys_load64(src: *const u64, out: *mut u64) -> u32;
    fn hostsys_store32(dst: *mut u32, value: u32) -> u32;
    fn hostsys_store64(dst: *mut u64, value: u64) -> u32;
    fn hostsys_cmpxchg32(dst: *mut u32, old: u32, new: u32, seen: *mut u32) -> u32;
    fn hostsys_cmpxchg64(dst: *mut u64, old: u64, new: u64, seen: *mut u64) -> u32;
}

type Label = unsafe extern "C" fn();
/// (first instruction that may fault, first one after, where to continue)
static FIXUPS: [(Label, Label, Label); 10] = [
    (hostsys_copy_word, hostsys_copy_word_end, hostsys_copy_tail),
    (hostsys_copy_rep, hostsys_copy_rep_end, hostsys_copy_tail),
    (hostsys_copy_byte, hostsys_copy_byte_end, hostsys_copy_done),
    (hostsys_zero_rep, hostsys_zero_rep_end, hostsys_zero_rep_end),
    (hostsys_load32_at, hostsys_load32_end, hostsys_access_failed),
    (hostsys_load64_at, hostsys_load64_end, hostsys_access_failed),
    (hostsys_store32_at, hostsys_store32_end, hostsys_access_failed),
    (hostsys_store64_at, hostsys_store64_end, hostsys_access_failed),
    (hostsys_cmpxchg32_at, hostsys_cmpxchg32_end, hostsys_access_failed),
    (hostsys_cmpxchg64_at, hostsys_cmpxchg64_end, hostsys_access_failed),
];

struct Previous {
    segv: libc::sigaction,
    bus: libc::sigaction,
}
static PREVIOUS: OnceLock<Previous> = OnceLock::new();

/// Installs the handler, once per process. Called by everything that hands out a `Block`, so nobody can forget it;
/// call it early anyway where the seccomp filter will forbid rt_sigaction later.
pub fn install() {
    PREVIOUS.get_or_init(|| Previous { segv: install_one(libc::SIGSEGV), bus: install_one(libc::SIGBUS) });
}

fn install_one(signal: i32) -> libc::sigaction {
    // SAFETY: sigaction is plain data for which all-zero is a valid value.
    let mut new: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: as above.
    let mut old: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    new.sa_sigaction = on_fault as *const () as usize;
    new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: both pointers are to live values; the handler is async-signal-safe.
    let rc = unsafe { libc::sigaction(signal, &new, &mut old) };
    assert_eq!(rc, 0, "cannot install a handler for signal {signal}");
    old
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid ucontext to an SA_SIGINFO handler.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let rip = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
    // SAFETY: as above, for siginfo. A positive code means that the kernel raised it, not kill(2).
    let from_kernel = unsafe { (*info).si_code } > 0;
    if from_kernel {
        for (start, end, recover) in &FIXUPS {
            if (*start as *const () as i64..*end as *const () as i64).contains(rip) {
                *rip = *recover as *const () as i64;
                return;
            }
        }
    }
    // Not ours: give the signal back to whoever had it and let the instruction fault again.
    if let Some(previous) = PREVIOUS.get() {
        let old = if signal == libc::SIGBUS { &previous.bus } else { &previous.segv };
        // SAFETY: `old` was filled by sigaction(2).
        unsafe { libc::sigaction(signal, old, std::ptr::null_mut()) };
    }
    if !from_kernel {
        // A signal sent by kill(2) does not come again by itself.
        // SAFETY: raise has no memory preconditions.
        unsafe { libc::raise(signal) };
    }
}

/// Copies `len` bytes and returns how many were copied before a fault (`len` if none).
///
/// # Safety
/// Each of the two ranges must be either memory that nothing in this program holds a Rust reference to (mapped or not,
/// it may fault), or memory valid for this access. They must not overlap.
pub(crate) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) -> usize {
    // SAFETY: the routine touches only the two ranges; a fault returns early.
    len - unsafe { hostsys_copy(dst, src, len) }
}

/// Zeroes `len` bytes and returns how many were zeroed before a fault.
///
/// # Safety
/// As for [`copy`].
pub(crate) unsafe fn zero(dst: *mut u8, len: usize) -> usize {
    // SAFETY: see the function's contract.
    len - unsafe { hostsys_zero(dst, len) }
}

macro_rules! scalar {
    ($load:ident, $store:ident, $cas:ident, $t:ty, $l:ident, $s:ident, $c:ident) => {
        /// One load. # Safety: as for [`copy`], `src` aligned for the type if it is to be atomic.
        pub(crate) unsafe fn $load(src: *const $t) -> Result<$t, Fault> {
            let mut out = 0;
            // SAFETY: see the function's contract; `out` is ours.
            if unsafe { $l(src, &mut out) } == 0 { Ok(out) } else { Err(Fault) }
        }
        /// One store. # Safety: as for the load.
        pub(crate) unsafe fn $store(dst: *mut $t, value: $t) -> Result<(), Fault> {
            // SAFETY: see the function's contract.
            if unsafe { $s(dst, value) } == 0 { Ok(()) } else { Err(Fault) }
        }
        /// One locked compare and exchange; the inner result is as in `AtomicU32::compare_exchange`.
        /// # Safety: as for the load.
        pub(crate) unsafe fn $cas(dst: *mut $t, old: $t, new: $t) -> Result<Result<$t, $t>, Fault> {
            let mut seen = 0;
            // SAFETY: see the function's contract; `seen` is ours.
            if unsafe { $c(dst, old, new, &mut seen) } != 0 {
                return Err(Fault);
            }
            Ok(if seen == old { Ok(seen) } else { Err(seen) })
        }
    };
}
scalar!(load_u32, store_u32, compare_exchange_u32, u32, hostsys_load32, hostsys_store32, hostsys_cmpxchg32);
scalar!(load_u64, store_u64, compare_exchange_u64, u64, hostsys_load64, hostsys_store64, hostsys_cmpxchg64);
