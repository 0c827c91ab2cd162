//! The settings below /proc/sys that are plain values (sysctl(8)): their names, defaults, limits, and what
//! they are set to in this sandbox.

use abi::{Errno, Result};
use ksync::{LockClass, Mutex};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A number in a range.
    Int(i64, i64),
    /// Several numbers, separated by tabs when read.
    Ints(usize),
    /// Text up to a length.
    Text(usize),
    /// Cannot be written.
    Fixed,
}

/// One setting: path below /proc/sys, default, kind.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub path: &'static str,
    pub default: &'static str,
    pub kind: Kind,
}

const fn fixed(path: &'static str, default: &'static str) -> Setting {
    Setting { path, default, kind: Kind::Fixed }
}
const fn int(path: &'static str, default: &'static str, min: i64, max: i64) -> Setting {
    Setting { path, default, kind: Kind::Int(min, max) }
}
const fn flag(path: &'static str, default: &'static str) -> Setting {
    int(path, default, 0, 1)
}
const fn ints(path: &'static str, default: &'static str, n: usize) -> Setting {
    Setting { path, default, kind: Kind::Ints(n) }
}

const I32: i64 = i32::MAX as i64;

/// All settings, by path.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    int("fs/aio-max-nr", "65536", 0, i64::MAX),
    fixed("fs/aio-nr", "0"),
    int("fs/epoll/max_user_watches", "1048576", 0, i64::MAX),
    int("fs/fanotify/max_queued_events", "16384", 0, I32),
    int("fs/fanotify/max_user_groups", "128", 0, I32),
    int("fs/fanotify/max_user_marks", "1048576", 0, I32),
    int("fs/file-max", "9223372036854775807", 0, i64::MAX),
    int("fs/inotify/max_queued_events", "16384", 0, I32),
    int("fs/inotify/max_user_instances", "128", 0, I32),
    int("fs/inotify/max_user_watches", "1048576", 0, I32),
    int("fs/lease-break-time", "45", 0, I32),
    flag("fs/leases-enable", "1"),
    int("fs/mount-max", "100000", 1, I32),
    int("fs/mqueue/msg_default", "10", 1, 65536),
    int("fs/mqueue/msg_max", "10", 1, 65536),
    int("fs/mqueue/msgsize_default", "8192", 128, 16_777_216),
    int("fs/mqueue/msgsize_max", "8192", 128, 16_777_216),
    int("fs/mqueue/queues_max", "256", 0, I32),
    int("fs/nr_open", "1048576", 8, 2_147_483_584),
    int("fs/overflowgid", "65534", 0, 65535),
    int("fs/overflowuid", "65534", 0, 65535),
    int("fs/pipe-max-size", "1048576", 4096, 1 << 31),
    int("fs/pipe-user-pages-hard", "0", 0, I32),
    int("fs/pipe-user-pages-soft", "16384", 0, I32),
    int("fs/protected_fifos", "0", 0, 2),
    flag("fs/protected_hardlinks", "0"),
    int("fs/protected_regular", "0", 0, 2),
    flag("fs/protected_symlinks", "0"),
    int("fs/suid_dumpable", "0", 0, 2),
    fixed("kernel/cap_last_cap", "40"),
    Setting { path: "kernel/core_pattern", default: "core", kind: Kind::Text(127) },
    flag("kernel/core_uses_pid", "0"),
    flag("kernel/dmesg_restrict", "0"),
    fixed("kernel/io_uring_disabled", "2"),
    fixed("kernel/io_uring_group", "-1"),
    fixed("kernel/kexec_load_disabled", "1"),
    int("kernel/kptr_restrict", "0", 0, 2),
    fixed("kernel/modules_disabled", "1"),
    int("kernel/msgmax", "8192", 0, I32),
    int("kernel/msgmnb", "16384", 0, I32),
    int("kernel/msgmni", "32000", 0, 32768),
    fixed("kernel/ngroups_max", "65536"),
    fixed("kernel/ostype", "Linux"),
    int("kernel/overflowgid", "65534", 0, 65535),
    int("kernel/overflowuid", "65534", 0, 65535),
    int("kernel/panic", "0", i32::MIN as i64, I32),
    int("kernel/pid_max", "4194304", 301, 4_194_304),
    ints("kernel/printk", "4\t4\t1\t7", 4),
    fixed("kernel/random/entropy_avail", "256"),
    fixed("kernel/random/poolsize", "256"),
    int("kernel/randomize_va_space", "2", 0, 2),
    fixed("kernel/seccomp/actions_avail", "kill_process kill_thread trap errno user_notif trace log allow"),
    ints("kernel/sem", "32000\t1024000000\t500\t32000", 4),
    flag("kernel/shm_rmid_forced", "0"),
    int("kernel/shmall", "18446744073692774", 0, i64::MAX),
    int("kernel/shmmax", "9223372036854775807", 0, i64::MAX),
    int("kernel/shmmni", "4096", 0, 32768),
    fixed("kernel/tainted", "0"),
    int("kernel/threads-max", "192653", 20, 4_194_304),
    int("kernel/unprivileged_bpf_disabled", "2", 0, 2),
    int("net/core/optmem_max", "131072", 0, I32),
    int("net/core/rmem_default", "212992", 2304, I32),
    int("net/core/rmem_max", "212992", 2304, I32),
    int("net/core/somaxconn", "4096", 0, I32),
    int("net/core/wmem_default", "212992", 4608, I32),
    int("net/core/wmem_max", "212992", 4608, I32),
    int("net/ipv4/ip_default_ttl", "64", 1, 255),
    flag("net/ipv4/ip_forward", "0"),
    ints("net/ipv4/ip_local_port_range", "32768\t60999", 2),
    flag("net/ipv4/ip_nonlocal_bind", "0"),
    int("net/ipv4/ip_unprivileged_port_start", "1024", 0, 65535),
    ints("net/ipv4/ping_group_range", "1\t0", 2),
    Setting { path: "net/ipv4/tcp_congestion_control", default: "cubic", kind: Kind::Text(15) },
    fixed("net/ipv4/tcp_available_congestion_control", "reno cubic"),
    fixed("net/ipv4/tcp_allowed_congestion_control", "reno cubic"),
    int("net/ipv4/tcp_fin_timeout", "60", 0, I32),
    int("net/ipv4/tcp_keepalive_intvl", "75", 1, 32767),
    int("net/ipv4/tcp_keepalive_probes", "9", 1, 127),
    int("net/ipv4/tcp_keepalive_time", "7200", 1, 32767),
    int("net/ipv4/tcp_max_syn_backlog", "1024", 0, I32),
    ints("net/ipv4/tcp_rmem", "4096\t131072\t6291456", 3),
    flag("net/ipv4/tcp_sack", "1"),
    int("net/ipv4/tcp_syncookies", "1", 0, 2),
    int("net/ipv4/tcp_timestamps", "1", 0, 2),
    int("net/ipv4/tcp_tw_reuse", "2", 0, 2),
    flag("net/ipv4/tcp_window_scaling", "1"),
    ints("net/ipv4/tcp_wmem", "4096\t16384\t4194304", 3),
    flag("net/ipv6/bindv6only", "0"),
    flag("net/ipv6/conf/all/disable_ipv6", "0"),
    flag("net/ipv6/conf/default/disable_ipv6", "0"),
    flag("net/ipv6/ip_nonlocal_bind", "0"),
    int("net/unix/max_dgram_qlen", "10", 0, I32),
    int("user/max_ipc_namespaces", "96000", 0, I32),
    int("user/max_mnt_namespaces", "96000", 0, I32),
    int("user/max_net_namespaces", "96000", 0, I32),
    int("user/max_pid_namespaces", "96000", 0, I32),
    int("user/max_user_namespaces", "96000", 0, I32),
    int("user/max_uts_namespaces", "96000", 0, I32),
    // The host's caches are not the guest's to drop; writing is allowed and changes nothing that can be seen.
    int("vm/drop_caches", "0", 0, 7),
    int("vm/max_map_count", "65530", 0, I32),
    int("vm/mmap_min_addr", "65536", 0, i64::MAX),
    int("vm/nr_hugepages", "0", 0, 0),
    int("vm/overcommit_memory", "0", 0, 2),
    int("vm/overcommit_ratio", "50", 0, I32),
    int("vm/swappiness", "60", 0, 200),
];

/// The settings of one sandbox.
#[derive(Debug)]
pub struct Sysctls {
    changed: Mutex<BTreeMap<&'static str, String>>,
    writes: AtomicU64,
}

impl Default for Sysctls {
    fn default() -> Self {
        Sysctls { changed: Mutex::new(LockClass::Leaf, BTreeMap::new()), writes: AtomicU64::new(0) }
    }
}

impl Sysctls {
    /// The setting of a path below /proc/sys (`kernel/pid_max`).
    pub fn find(path: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|s| s.path == path)
    }

    /// The value as text, without a newline.
    pub fn get(&self, s: &Setting) -> String {
        self.changed.lock().get(s.path).cloned().unwrap_or_else(|| s.default.to_owned())
    }

    /// The value as a number; 0 for one that is none.
    pub fn get_int(&self, path: &str) -> i64 {
        Self::find(path).and_then(|s| self.get(s).parse().ok()).unwrap_or(0)
    }

    /// How often values have been set: who sees the same number again has nothing new to look for.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// Sets a value from what was written. EINVAL for what is no such value, EACCES for fixed ones.
    pub fn set(&self, s: &'static Setting, written: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(written).map_err(|_| Errno::EINVAL)?.trim();
        let value = match s.kind {
            Kind::Fixed => return Err(Errno::EACCES),
            Kind::Int(min, max) => {
                let n: i64 = text.parse().map_err(|_| Errno::EINVAL)?;
                if n < min || n > max {
                    return Err(Errno::EINVAL);
                }
                n.to_string()
            }
            Kind::Ints(count) => {
                let n: Vec<i64> = text
                    .split_whitespace()
                    .map(str::parse)
                    .collect::<std::result::Result<_, _>>()
                    .map_err(|_| Errno::EINVAL)?;
                if n.is_empty() || n.len() > count {
                    return Err(Errno::EINVAL);
                }
                let old = self.get(s);
                let mut all: Vec<String> = old.split('\t').map(str::to_owned).collect();
                for (slot, new) in all.iter_mut().zip(n) {
                    *slot = new.to_string();
                }
                all.join("\t")
            }
            Kind::Text(max) => text.chars().take(max).collect(),
        };
        self.changed.lock().insert(s.path, value);
        self.writes.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_kept() {
        let s = Sysctls::default();
        let pid_max = Sysctls::find("kernel/pid_max").unwrap();
        assert_eq!(s.set(pid_max, b"5\n"), Err(Errno::EINVAL));
        assert_eq!(s.set(pid_max, b"1000\n"), Ok(()));
        assert_eq!(s.get_int("kernel/pid_max"), 1000);
        let range = Sysctls::find("net/ipv4/ip_local_port_range").unwrap();
        assert_eq!(s.set(range, b"1024 2048"), Ok(()));
        assert_eq!(s.get(range), "1024\t2048");
        for s in SETTINGS {
            assert!(!s.path.starts_with('/') && !s.default.is_empty());
        }
    }
}
