//! The host calls this platform makes after the sentry is locked down.

use hostsys::seccomp::{Rule, allow};

/// Rules beyond the sentry's base set. Processes that can be named are only the sandbox's own: it has a PID namespace.
pub fn seccomp_rules() -> Vec<Rule> {
    vec![
        allow(
            libc::SYS_sched_setaffinity,
            "stubs: a mapper runs where its caller waits; guest threads everywhere",
        ),
        allow(libc::SYS_getcpu, "stubs: where the caller is, if neither rseq nor the vDSO can tell"),
        allow(libc::SYS_futex, "stubs: hand-off to guest threads and mappers"),
        allow(libc::SYS_wait4, "stubs: reap stub processes"),
        allow(libc::SYS_waitid, "stubs: whether a stub process that does not answer was killed"),
        allow(libc::SYS_kill, "stubs: end a stub process").eq(1, libc::SIGKILL as u64),
        allow(libc::SYS_kill, "stubs: undo a SIGSTOP from outside").eq(1, libc::SIGCONT as u64),
        allow(libc::SYS_tgkill, "systrap platform: interrupt a running guest thread")
            .eq(2, hostsys::signals::INTERRUPT as u64),
        allow(libc::SYS_fallocate, "systrap platform: empty the context block of an ended guest thread"),
        allow(libc::SYS_clock_nanosleep, "systrap platform: wait for a killed stub process"),
    ]
}
