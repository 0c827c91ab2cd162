//! What the sentry may ask of the host once guest code can run: an allow-list, each entry with its
//! reason. Everything else kills the sandbox. A platform adds its own list.
//!
//! Not in here on purpose: whatever opens, makes, removes or looks up a file by name, makes or
//! connects a socket, starts a program, changes credentials, namespaces or mounts, or makes memory
//! executable.

use platform::hostsys::seccomp::{self, Rule, Test, Violation, allow};

use super::NetworkMode;

// Flags of the host's own headers.
const PROT_EXEC: u64 = 4;
const F_DUPFD_CLOEXEC: u64 = 1030;
const F_GETFD: u64 = 1;
const F_GETFL: u64 = 3;
const F_SETFL: u64 = 4;
const F_OFD_GETLK: u64 = 36;
const F_OFD_SETLK: u64 = 37;
const LOCK_NB: u64 = 4;
const TCGETS: u64 = 0x5401;
const TCSETS: u64 = 0x5402;
const TIOCOUTQ: u64 = 0x5411;
const TIOCGWINSZ: u64 = 0x5413;
const TIOCSWINSZ: u64 = 0x5414;
const FIONREAD: u64 = 0x541b;
const FIONBIO: u64 = 0x5421;
const SIOCATMARK: u64 = 0x8905;
const SIOCOUTQNSD: u64 = 0x894b;
const PR_SET_NAME: u64 = 15;
const RUSAGE_SELF: u64 = 0;
const RUSAGE_THREAD: u64 = 1;

/// Host and guest are the same architecture, so the table of numbers serves for both. A name that
/// is not in it gives a rule that never matches; a test looks for those.
fn call(name: &str, reason: &'static str) -> Rule {
    let number = abi::nr::NAMES.iter().find(|(_, known)| *known == name).map_or(-1, |(nr, _)| i64::from(*nr));
    allow(number, reason)
}

/// The list that does not depend on platform or network.
pub fn base_rules() -> Vec<Rule> {
    let not_executable = Test::Masked { mask: PROT_EXEC, value: 0 };
    let fcntl = |command: u64, reason| call("fcntl", reason).eq(1, command);
    let ioctl = |request: u64, reason| call("ioctl", reason).eq(1, request);
    vec![
        // Donated files and standard streams.
        call("read", "donated pipes and terminals, eventfds"),
        call("write", "donated pipes and terminals, eventfds, the log"),
        call("readv", "donated pipes and terminals"),
        call("writev", "donated pipes and terminals"),
        call("pread64", "donated files"),
        call("pwrite64", "donated files"),
        call("preadv", "donated files, into guest memory"),
        call("pwritev", "donated files, from guest memory"),
        call("preadv2", "donated files, with RWF flags"),
        call("pwritev2", "donated files, with RWF flags"),
        call("lseek", "holes of donated files"),
        call("fstat", "size and times of donated files"),
        call("ftruncate", "length of donated files and of the memory file"),
        call("fallocate", "holes in the memory file, space of donated files"),
        call("fsync", "donated files"),
        call("fdatasync", "donated files"),
        call("close", "donated descriptors that are no longer used"),
        fcntl(F_DUPFD_CLOEXEC, "a second owner of a descriptor"),
        fcntl(F_GETFD, "debug builds of the standard library check descriptors"),
        fcntl(F_GETFL, "how a donated stream was opened"),
        fcntl(F_OFD_GETLK, "locks of donated files that others use as well"),
        fcntl(F_OFD_SETLK, "locks of donated files that others use as well"),
        call("flock", "the same; never waiting").arg(1, Test::Masked { mask: LOCK_NB, value: LOCK_NB }),
        fcntl(F_SETFL, "donated streams that are set non-blocking"),
        ioctl(TCGETS, "whether a donated stream is a terminal"),
        ioctl(TCSETS, "raw mode of a donated terminal"),
        ioctl(TIOCGWINSZ, "size of a donated terminal"),
        ioctl(TIOCSWINSZ, "the guest sets the size of its terminal"),
        ioctl(FIONREAD, "bytes waiting in a donated stream"),
        ioctl(TIOCOUTQ, "bytes not yet read from a donated stream, or sent by a guest's socket"),
        ioctl(FIONBIO, "control connections do not block"),
        // Channels to the gofer and the command line.
        call("recvmsg", "descriptors from the gofer and from exec"),
        call("sendmsg", "requests to the gofer, replies on the control socket"),
        call("recvfrom", "the hand-shake with the starting command"),
        call("sendto", "the same; without an address, so on connected sockets only").wide(4, Test::Eq(0)),
        call("accept4", "control connections"),
        call("poll", "the control socket, donated streams"),
        call("ppoll", "the control socket, donated streams"),
        call("eventfd2", "waking a thread that polls"),
        // Memory.
        call("mmap", "heap, stacks, the memory file").arg(2, not_executable),
        call("mprotect", "heap and guard pages").arg(2, not_executable),
        call("munmap", "heap, stacks, windows of files"),
        call("mremap", "large buffers grow"),
        call("madvise", "memory is given back, huge pages"),
        call("brk", "heap"),
        // Threads.
        call("clone3", "a host thread for each guest task"),
        call("clone", "the same where clone3 is missing"),
        call("set_robust_list", "start of a thread"),
        call("rseq", "start of a thread"),
        call("sigaltstack", "start and end of a thread"),
        call("rt_sigprocmask", "start and end of a thread"),
        call("sched_getaffinity", "size of a thread's first stack, number of CPUs"),
        call("prctl", "names of threads").eq(0, PR_SET_NAME),
        call("futex", "locks and sleeping"),
        call("sched_yield", "spinning politely"),
        call("exit", "end of a thread"),
        call("exit_group", "end of the sandbox"),
        call("gettid", "which thread to interrupt"),
        call("getpid", "abort() and interrupting a thread"),
        call("tgkill", "interrupting a thread, abort()"),
        call("rt_sigaction", "a panic restores the default action"),
        call("rt_sigreturn", "end of a signal handler"),
        call("restart_syscall", "a call was interrupted by stop and continue"),
        // Facts about time, chance and the machine.
        call("clock_gettime", "clocks that the vDSO does not answer"),
        call("clock_nanosleep", "short sleeps of the sentry itself"),
        call("getrandom", "random numbers for the guest, hash keys"),
        call("getrusage", "CPU time of the sandbox").eq(0, RUSAGE_SELF),
        call("getrusage", "CPU time of a task").eq(0, RUSAGE_THREAD),
        call("sysinfo", "memory of the machine"),
    ]
}

/// Sockets of the host's internet families. Addresses cannot be looked at here; what the sentry passes is in
/// `fs::socket::host`.
fn host_rules() -> Vec<Rule> {
    const AF_INET: u64 = 2;
    const AF_INET6: u64 = 10;
    // SOCK_STREAM or SOCK_DGRAM, non-blocking and close-on-exec.
    const STREAM: u64 = 1 | 0o4000 | 0o2_000_000;
    const DGRAM: u64 = 2 | 0o4000 | 0o2_000_000;
    const IPPROTO_ICMP: u64 = 1;
    const IPPROTO_ICMPV6: u64 = 58;
    const IPPROTO_UDPLITE: u64 = 136;
    let mut rules = Vec::new();
    for (family, ping) in [(AF_INET, IPPROTO_ICMP), (AF_INET6, IPPROTO_ICMPV6)] {
        for (kind, protocol) in [(STREAM, 0), (DGRAM, 0), (DGRAM, IPPROTO_UDPLITE), (DGRAM, ping)] {
            rules.push(call("socket", "a socket of a guest").eq(0, family).eq(1, kind).eq(2, protocol));
        }
    }
    rules.extend([
        call("epoll_ctl", "which sockets somebody waits for"),
        call("epoll_pwait", "news of sockets"),
        call("ioctl", "urgent data of a guest's socket").eq(1, SIOCATMARK),
        call("ioctl", "bytes that a guest's socket has not begun to send").eq(1, SIOCOUTQNSD),
        call("bind", "a guest's socket"),
        call("connect", "a guest's socket"),
        call("listen", "a guest's socket"),
        call("shutdown", "a guest's socket"),
        call("getsockname", "a guest's socket"),
        call("getpeername", "a guest's socket"),
        call("sendto", "datagrams of a guest"),
        call("getsockopt", "errors and options of a guest's socket"),
    ]);
    for option in fs::socket::host::SETTABLE {
        let number = |n: i32| u64::from(n.unsigned_abs());
        rules.push(
            call("setsockopt", "an option of a guest's socket")
                .eq(1, number(option.level))
                .eq(2, number(option.name)),
        );
    }
    rules
}

fn network_rules(network: NetworkMode) -> Vec<Rule> {
    match network {
        // Loopback is the sentry's own: nothing of the host is involved.
        NetworkMode::None => Vec::new(),
        // Sockets are donated; frames are read and written like files, rtnetlink is asked by send and recv.
        NetworkMode::Sandbox => vec![
            call(
                "bind",
                "a donated packet socket, to an interface that has come; a donated TCP socket, to a port of the guest's",
            ),
            call(
                "listen",
                "a donated TCP socket, for those in the namespace who look for the guest's servers",
            ),
            call("connect", "a donated TCP socket, to the name server on the namespace's loopback interface"),
            call("shutdown", "the end of what is said to the name server, and of listening"),
            call("getsockname", "the port that a connection inside the namespace is for"),
        ],
        NetworkMode::Host => host_rules(),
    }
}

/// Locks the process down, all threads of it; there is no way back.
pub fn install(
    platform_rules: Vec<Rule>,
    network: NetworkMode,
    violation: Violation,
) -> Result<(), seccomp::SeccompError> {
    let rules = seccomp::merge([base_rules(), platform_rules, network_rules(network)]);
    seccomp::install(&seccomp::compile(&rules, violation)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_known_and_has_no_redundancy() {
        let rules = base_rules();
        for rule in &rules {
            assert!(rule.nr >= 0, "unknown call for: {}", rule.reason);
        }
        assert_eq!(seccomp::redundancies(&rules), Vec::<String>::new());
        let mut numbers: Vec<i64> = rules.iter().map(|r| r.nr).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert!(numbers.len() <= 60, "{} calls", numbers.len());
    }

    #[test]
    fn the_lists_of_the_network_modes() {
        for mode in [NetworkMode::None, NetworkMode::Sandbox, NetworkMode::Host] {
            let rules = network_rules(mode);
            for rule in &rules {
                assert!(rule.nr >= 0, "unknown call for: {}", rule.reason);
            }
            assert_eq!(seccomp::redundancies(&rules), Vec::<String>::new(), "{mode:?}");
        }
    }

    #[test]
    fn what_must_never_be_there() {
        let rules = base_rules();
        for name in [
            "open",
            "openat",
            "openat2",
            "socket",
            "connect",
            "bind",
            "execve",
            "execveat",
            "fork",
            "vfork",
            "kill",
            "ptrace",
            "mount",
            "setns",
            "unshare",
            "setuid",
            "setresuid",
            "capset",
            "bpf",
            "io_uring_setup",
            "userfaultfd",
            "process_vm_readv",
            "pidfd_getfd",
            "keyctl",
            "perf_event_open",
            "memfd_create",
            "stat",
            "unlink",
            "mknod",
        ] {
            let number = call(name, "").nr;
            assert!(number >= 0, "{name}");
            assert!(rules.iter().all(|r| r.nr != number), "{name} is allowed");
        }
    }
}
