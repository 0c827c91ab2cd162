//! Unimplemented things are counted, so that gaps are found by running programs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The names of all gaps: what a call that is answered does not do. A test compares them with the places that count.
pub const NAMES: &[&str] = &[
    "arch_prctl ARCH_REQ_XCOMP_PERM",
    "clone3 CLONE_INTO_CGROUP",
    "core dumps",
    "fanotify_init FAN_REPORT_PIDFD, FAN_REPORT_TID",
    "fanotify_mark FAN_RENAME, FAN_FS_ERROR, permission events",
    "fcntl F_NOTIFY",
    "fcntl F_SETLEASE",
    "flag of a neighbour",
    "flags of SO_TIMESTAMPING",
    "fsconfig with a binary, path or descriptor value",
    "io_submit IOCB_CMD_POLL",
    "io_submit with RWF flags",
    "ioctl of a donated descriptor",
    "ioctl of a socket of the host",
    "ioctl of a terminal",
    "ioctl of an interface",
    "ioctl TFD_IOC_SET_TICKS",
    "kcmp KCMP_EPOLL_TFD",
    "memfd_create MFD_HUGETLB",
    "modify_ldt with a descriptor",
    "move_mount flags",
    "mq_notify SIGEV_THREAD",
    "netlink protocol",
    "new network interfaces",
    "places of filters of sockets",
    "prctl PR_SET_MM",
    "prctl PR_SET_TSC PR_TSC_SIGSEGV",
    "prctl speculation control",
    "prctl with an unknown option",
    "ptrace PTRACE_SYSEMU_SINGLESTEP",
    "ptrace request",
    "ptrace: hardware breakpoints",
    "published ARP entry",
    "rtnetlink message",
    "seccomp user notification",
    "sending by packet sockets",
    "set_mempolicy: the policy is not remembered",
    "setsockopt of IP, IPv6 or TCP",
    "sock_diag family",
    "socket family",
];

/// The gaps one sandbox has met: name → how often.
#[derive(Debug, Default)]
pub struct Gaps {
    met: Mutex<BTreeMap<&'static str, u64>>,
}

impl Gaps {
    /// Counts a gap; logs it the first time.
    pub fn hit(&self, name: &'static str, detail: u64) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let n = met.entry(name).or_insert(0);
        *n += 1;
        if *n == 1 {
            tracing::info!(gap = name, detail, "not implemented");
        }
    }

    /// All gaps met so far.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.iter().map(|(k, v)| (*k, *v)).collect()
    }
}

/// Marks something Linux has and we have not: `gap!(kernel, "ioctl TIOCSTI", detail)`, with a name of [`NAMES`]. The
/// caller then returns the error that Linux gives where the thing is not supported.
#[macro_export]
macro_rules! gap {
    ($kernel:expr, $name:literal) => {
        $kernel.gaps.hit($name, 0)
    };
    ($kernel:expr, $name:literal, $detail:expr) => {
        $kernel.gaps.hit($name, u64::from($detail))
    };
}
