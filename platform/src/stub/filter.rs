//! The seccomp filters of stub processes, which test the instruction pointer (seccompiler cannot), as a small assembler.
//!
//! Both end in RET_TRAP, never KILL: filters add up, the strongest action wins, and guest threads carry the mapper's filter too.
//! The mapper has every signal blocked, so for it a trap is the end of the process.

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter,
};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const TRAP: u32 = libc::SECCOMP_RET_TRAP;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const SET_THREAD_AREA_I386: u32 = 243;
/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const IP_LOW: u32 = 8;
const IP_HIGH: u32 = 12;
const fn arg_low(i: u32) -> u32 {
    16 + 8 * i
}
const fn arg_high(i: u32) -> u32 {
    20 + 8 * i
}

fn op(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
fn load(offset: u32) -> sock_filter {
    op(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
}
fn ret(action: u32) -> sock_filter {
    op(BPF_RET | BPF_K, action, 0, 0)
}
/// Goes on if the word at `offset` is `value`, else traps.
fn require(out: &mut Vec<sock_filter>, offset: u32, value: u32) {
    out.extend([load(offset), op(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0), ret(TRAP)]);
}
fn low(v: u64) -> u32 {
    v as u32
}
fn high(v: u64) -> u32 {
    (v >> 32) as u32
}

/// A `syscall` instruction of the stub that guest threads may execute.
#[derive(Clone)]
pub struct Site {
    /// Address of the next instruction.
    pub ip: u64,
    /// The call's number.
    pub nr: u32,
    /// Where the first argument must lie, if that matters; the high words of both ends are equal.
    pub arg0: Option<std::ops::RangeInclusive<u64>>,
    /// What the second argument must be (low word), if that matters.
    pub arg1: Option<u32>,
}

/// The filter of guest threads: only these sites; all else traps.
pub fn strict(sites: &[Site]) -> Vec<sock_filter> {
    let mut out = Vec::new();
    require(&mut out, ARCH, AUDIT_ARCH_X86_64);
    for site in sites {
        let mut then = Vec::new();
        require(&mut then, IP_HIGH, high(site.ip));
        require(&mut then, NR, site.nr);
        if let Some(value) = site.arg1 {
            require(&mut then, arg_low(1), value);
        }
        if let Some(within) = &site.arg0 {
            require(&mut then, arg_high(0), high(*within.start()));
            then.extend([
                load(arg_low(0)),
                op(BPF_JMP | BPF_JGE | BPF_K, low(*within.start()), 1, 0),
                ret(TRAP),
                op(BPF_JMP | BPF_JGT | BPF_K, low(*within.end()), 0, 1),
                ret(TRAP),
            ]);
        }
        then.push(ret(ALLOW));
        out.extend([load(IP_LOW), op(BPF_JMP | BPF_JEQ | BPF_K, low(site.ip), 0, then.len() as u8)]);
        out.extend(then);
    }
    out.push(ret(TRAP));
    out
}

/// The filter of the zygote and of mappers: what `stub.s` calls, and the mapping calls of commands, only from `text_start..text_end`.
/// `control` is the one descriptor that may be written.
/// `selector` is where the one 32-bit call of the mapper returns to.
pub fn loose(text_start: u64, text_end: u64, control: i32, selector: u64) -> Vec<sock_filter> {
    let mut out = Vec::new();
    let mut then = Vec::new();
    require(&mut then, IP_HIGH, high(selector));
    require(&mut then, IP_LOW, low(selector));
    require(&mut then, NR, SET_THREAD_AREA_I386);
    then.push(ret(ALLOW));
    out.extend([load(ARCH), op(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_I386, 0, then.len() as u8)]);
    out.extend(then);
    require(&mut out, ARCH, AUDIT_ARCH_X86_64);
    require(&mut out, IP_HIGH, high(text_start));
    out.extend([
        load(IP_LOW),
        op(BPF_JMP | BPF_JGE | BPF_K, low(text_start), 0, 1),
        op(BPF_JMP | BPF_JGE | BPF_K, low(text_end), 0, 1),
        ret(TRAP),
        load(NR),
    ]);
    let plain = [
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigaction,
        libc::SYS_sigaltstack,
        libc::SYS_seccomp,
        libc::SYS_getppid,
        libc::SYS_gettid,
        libc::SYS_pause,
        libc::SYS_sched_yield,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    for nr in plain {
        out.extend([op(BPF_JMP | BPF_JEQ | BPF_K, nr as u32, 0, 1), ret(ALLOW)]);
    }
    // pwrite64 to the control file only.
    out.extend([
        op(BPF_JMP | BPF_JEQ | BPF_K, libc::SYS_pwrite64 as u32, 0, 4),
        load(arg_low(0)),
        op(BPF_JMP | BPF_JEQ | BPF_K, control.cast_unsigned(), 1, 0),
        ret(TRAP),
        ret(ALLOW),
    ]);
    // prctl(PR_SET_PDEATHSIG) only.
    out.extend([
        op(BPF_JMP | BPF_JEQ | BPF_K, libc::SYS_prctl as u32, 0, 4),
        load(arg_low(0)),
        op(BPF_JMP | BPF_JEQ | BPF_K, libc::PR_SET_PDEATHSIG as u32, 1, 0),
        ret(TRAP),
        ret(ALLOW),
    ]);
    // clone without new namespaces (and without flags above 32 bits).
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    out.extend([
        op(BPF_JMP | BPF_JEQ | BPF_K, libc::SYS_clone as u32, 0, 6),
        load(arg_high(0)),
        op(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 3),
        load(arg_low(0)),
        op(BPF_JMP | BPF_JSET | BPF_K, namespaces.cast_unsigned(), 1, 0),
        ret(ALLOW),
        ret(TRAP),
    ]);
    out.push(ret(TRAP));
    out
}
