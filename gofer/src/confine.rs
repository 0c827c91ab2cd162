//! The gofer's own wall: capabilities, no_new_privs, seccomp.
//!
//! Namespaces and the mount tree are arranged by whoever forks the gofer, since that needs the
//! rights that are given up here.

use std::io;

use hostsys::seccomp::{Rule, Test, Violation, allow};

/// What the gofer keeps.
#[derive(Clone, Copy, Debug)]
pub struct Confinement {
    /// Some mount lets the sentry make device nodes.
    pub device_nodes: bool,
}

/// Why the gofer could not be confined, and at which step.
#[derive(Debug, thiserror::Error)]
#[error("cannot confine the gofer: {step}: {source}")]
pub struct ConfineError {
    pub step: &'static str,
    #[source]
    pub source: io::Error,
}

// Numbers of capabilities(7).
const CHOWN: u64 = 1 << 0;
const DAC_OVERRIDE: u64 = 1 << 1;
const DAC_READ_SEARCH: u64 = 1 << 2;
const FOWNER: u64 = 1 << 3;
const FSETID: u64 = 1 << 4;
const MKNOD: u64 = 1 << 27;

/// File ownership and access, nothing else: the sentry decides as Linux would who may do what, so the gofer must
/// be able to do what any user of the sandbox may.
fn kept_capabilities(confinement: Confinement) -> u64 {
    let files = CHOWN | DAC_OVERRIDE | DAC_READ_SEARCH | FOWNER | FSETID;
    if confinement.device_nodes { files | MKNOD } else { files }
}

/// Gives up privileges that the gofer does not need. For the single thread of the forked process, after its mount tree
/// is in place; [`crate::serve`] does it, and then adds the filter when its threads exist.
pub fn drop_privileges(confinement: Confinement) -> Result<(), ConfineError> {
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| ConfineError { step: "no_new_privs", source: error.into() })?;
    hostsys::caps::keep_only(kept_capabilities(confinement))
        .map_err(|source| ConfineError { step: "capabilities", source })
}

/// Installs the filter on all threads.
pub fn install_filter(openat2: bool) -> Result<(), ConfineError> {
    let step = |error: hostsys::seccomp::SeccompError| ConfineError {
        step: "seccomp filter",
        source: io::Error::other(error),
    };
    let filter = hostsys::seccomp::compile(&seccomp_rules(openat2), Violation::Kill).map_err(step)?;
    hostsys::seccomp::install(&filter).map_err(step)
}

/// All that a gofer may ask of the host. No thread, process or namespace can be made: the threads exist before.
pub fn seccomp_rules(openat2: bool) -> Vec<Rule> {
    let no_exec = Test::Masked { mask: libc::PROT_EXEC as u64, value: 0 };
    let mut rules = vec![
        allow(libc::SYS_recvfrom, "requests of the sentry"),
        allow(libc::SYS_sendmsg, "replies and donated descriptors"),
        allow(libc::SYS_socketpair, "another channel for the sentry")
            .eq(0, libc::AF_UNIX as u64)
            .eq(1, (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as u64),
        allow(libc::SYS_close, "handles and donated descriptors after they are sent"),
        allow(libc::SYS_statx, "attributes"),
        allow(libc::SYS_readlinkat, "symlink targets"),
        allow(libc::SYS_getdents64, "directory listings"),
        allow(libc::SYS_lseek, "continuing a listing"),
        allow(libc::SYS_fstatfs, "statfs of a mount"),
        allow(libc::SYS_mkdirat, "mkdir"),
        allow(libc::SYS_mknodat, "FIFO and socket nodes, devices only with the capability"),
        allow(libc::SYS_symlinkat, "symlink"),
        allow(libc::SYS_linkat, "link"),
        allow(libc::SYS_unlinkat, "unlink and rmdir"),
        allow(libc::SYS_renameat2, "rename with flags"),
        allow(libc::SYS_renameat, "rename without flags"),
        allow(libc::SYS_fchownat, "chown"),
        allow(libc::SYS_fchmod, "chmod on hosts without fchmodat2"),
        allow(libc::SYS_fchmodat2, "chmod"),
        allow(libc::SYS_utimensat, "file times"),
        allow(libc::SYS_ftruncate, "truncate"),
        allow(libc::SYS_fsync, "fsync of directories and of files that are not donated"),
        allow(libc::SYS_syncfs, "sync of a mount"),
        allow(libc::SYS_fgetxattr, "extended attributes"),
        allow(libc::SYS_fsetxattr, "extended attributes"),
        allow(libc::SYS_flistxattr, "extended attributes"),
        allow(libc::SYS_fremovexattr, "extended attributes"),
        allow(libc::SYS_fcntl, "second descriptor of a file without a name")
            .eq(1, libc::F_DUPFD_CLOEXEC as u64),
        allow(libc::SYS_fcntl, "how a descriptor was opened").eq(1, libc::F_GETFL as u64),
        allow(libc::SYS_fcntl, "debug builds of the standard library check descriptors")
            .eq(1, libc::F_GETFD as u64),
        allow(libc::SYS_dup, "chmod of a fresh file on hosts without fchmodat2"),
        allow(libc::SYS_mmap, "memory for large messages").arg(2, no_exec),
        allow(libc::SYS_munmap, "memory"),
        allow(libc::SYS_mprotect, "a thread's heap grows").arg(2, no_exec),
        allow(libc::SYS_mremap, "large buffers grow"),
        allow(libc::SYS_madvise, "memory is given back"),
        allow(libc::SYS_brk, "memory"),
        allow(libc::SYS_sched_setaffinity, "a thread runs where the sentry waits for it").eq(0, 0),
        allow(libc::SYS_futex, "locks between the channels' threads"),
        allow(libc::SYS_getrandom, "the allocator's start"),
        allow(libc::SYS_write, "the log"),
        allow(libc::SYS_restart_syscall, "a call was interrupted by stop and continue"),
        allow(libc::SYS_rt_sigreturn, "end of a signal handler"),
        allow(libc::SYS_exit_group, "the sentry is gone"),
    ];
    if !openat2 {
        rules.push(allow(libc::SYS_openat, "one component, no symlink: this host has no openat2"));
    } else {
        rules.push(allow(libc::SYS_openat2, "one component beneath a mount, no symlink"));
    }
    rules
}
