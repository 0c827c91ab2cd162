//! The host calls this platform makes after the sentry is locked down.

use hostsys::seccomp::{Rule, Test, allow};

/// Rules beyond the sentry's base set. Processes that can be named are only the sandbox's own: it has a PID namespace.
pub fn seccomp_rules() -> Vec<Rule> {
    let ptrace = |request: u32, reason| allow(libc::SYS_ptrace, reason).wide(0, Test::Eq(request.into()));
    vec![
        ptrace(libc::PTRACE_SEIZE, "ptrace platform: take a new guest thread"),
        ptrace(libc::PTRACE_INTERRUPT, "ptrace platform: stop a new guest thread where it parks"),
        ptrace(libc::PTRACE_SYSCALL, "ptrace platform: let a new guest thread reach its park"),
        ptrace(libc::PTRACE_CONT, "ptrace platform: let a guest thread end itself"),
        ptrace(libc::PTRACE_SYSEMU, "ptrace platform: run guest code up to its next system call"),
        ptrace(libc::PTRACE_GETREGS, "ptrace platform: guest registers"),
        ptrace(libc::PTRACE_SETREGS, "ptrace platform: guest registers"),
        ptrace(libc::PTRACE_GETSIGINFO, "ptrace platform: what exception a guest thread raised"),
        ptrace(libc::PTRACE_GETREGSET, "ptrace platform: guest vector registers"),
        ptrace(libc::PTRACE_SETREGSET, "ptrace platform: guest vector registers"),
        allow(libc::SYS_wait4, "ptrace platform: wait for a guest thread's stop; reap stub processes"),
        allow(libc::SYS_waitid, "stubs: whether a stub process that does not answer was killed"),
        allow(libc::SYS_kill, "stubs: end a stub process").eq(1, libc::SIGKILL as u64),
        allow(libc::SYS_kill, "stubs: undo a SIGSTOP from outside").eq(1, libc::SIGCONT as u64),
        allow(libc::SYS_tgkill, "ptrace platform: interrupt a running guest thread")
            .eq(2, hostsys::signals::INTERRUPT as u64),
        allow(libc::SYS_clock_nanosleep, "stubs: wait for a killed stub process"),
        allow(libc::SYS_gettid, "ptrace platform: only the tracer may use a context"),
        allow(
            libc::SYS_sched_setaffinity,
            "stubs: a mapper runs where its caller waits; guest threads everywhere",
        ),
        allow(libc::SYS_getcpu, "stubs: where the caller is, if neither rseq nor the vDSO can tell"),
        allow(libc::SYS_futex, "stubs: wake a mapper and wait for it"),
    ]
}
