//! What a container is to be, as plain data: the part of an OCI configuration that the kernel
//! carries out. The command line reads and checks the JSON and builds these; nothing here knows
//! OCI's spelling. Paths, arguments and the environment are bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bytes that are mostly text: written as a JSON string when they are UTF-8 and as a list of
/// numbers when they are not, so that any argument survives the way through the control socket.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteString(pub Vec<u8>);

impl ByteString {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for ByteString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl std::fmt::Display for ByteString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl From<&str> for ByteString {
    fn from(text: &str) -> Self {
        ByteString(text.as_bytes().to_vec())
    }
}

impl From<String> for ByteString {
    fn from(text: String) -> Self {
        ByteString(text.into_bytes())
    }
}

impl From<Vec<u8>> for ByteString {
    fn from(bytes: Vec<u8>) -> Self {
        ByteString(bytes)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ByteStringForm {
    Text(String),
    Bytes(Vec<u8>),
}

impl Serialize for ByteString {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => ByteStringForm::Bytes(self.0.clone()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ByteString {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match ByteStringForm::deserialize(deserializer)? {
            ByteStringForm::Text(text) => ByteString(text.into_bytes()),
            ByteStringForm::Bytes(bytes) => ByteString(bytes),
        })
    }
}

/// One container of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Name of the UTS namespace; `None` keeps the sandbox's.
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub root: RootSpec,
    /// In the order in which they are to be mounted.
    pub mounts: Vec<MountSpec>,
    /// The first process.
    pub process: ProcessSpec,
    /// User namespace of the container as its processes see it; empty means the initial one.
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
    /// Device nodes asked for beside the default set. Only devices that the sentry has itself
    /// ever work; the command line has warned about the others.
    pub devices: Vec<DeviceSpec>,
    /// Paths hidden under an empty directory or /dev/null.
    pub masked_paths: Vec<ByteString>,
    /// Paths made read-only.
    pub readonly_paths: Vec<ByteString>,
    /// `net.ipv4.ip_forward` → `1`, names with dots.
    pub sysctl: BTreeMap<String, String>,
    /// System call filter of every process of the container, enforced by the sentry.
    pub seccomp: Option<SeccompSpec>,
    /// Programs of the image to run, one after another, in the container's namespaces before the
    /// first process starts (OCI's startContainer hooks). A failure stops the start.
    pub start_hooks: Vec<HookSpec>,
    pub annotations: BTreeMap<String, String>,
    pub limits: Limits,
    pub share: Share,
}

/// Other containers of the sandbox, by id, whose namespaces this one uses instead of new ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub pid: Option<String>,
    pub network: Option<String>,
    pub ipc: Option<String>,
    pub uts: Option<String>,
}

/// Where the root directory comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootSpec {
    /// Index of the gofer's mount.
    pub gofer_mount: u32,
    pub readonly: bool,
    pub overlay: RootOverlay,
}

/// What happens to writes to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootOverlay {
    /// They stay in the sandbox; the host's files are read and never changed.
    Memory,
    /// They go to the host's files.
    None,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountSpec {
    /// Absolute path inside the container's root. It may not exist there: it is then made.
    pub destination: ByteString,
    pub kind: MountKind,
    pub flags: MountFlags,
    /// Options of the file system itself (`mode=755`, `size=64k`), checked by name.
    pub data: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// Files of the host, through the gofer's mount of that index; `directory` tells what the
    /// mount point must be.
    Gofer {
        index: u32,
        directory: bool,
    },
    /// `copy_up`: starts with a copy of what the root has at the destination.
    Tmpfs {
        copy_up: bool,
    },
    Proc,
    Sysfs,
    Devpts,
    Mqueue,
    Cgroup,
}

/// mount(2)'s per-mount flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags {
    pub readonly: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    pub noatime: bool,
    pub nodiratime: bool,
    pub strictatime: bool,
    pub nosymfollow: bool,
    pub sync: bool,
}

/// A process to start: the first one of a container or one of `exec`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Never empty.
    pub args: Vec<ByteString>,
    /// `NAME=value`.
    pub env: Vec<ByteString>,
    /// Absolute; made if it is missing, as runc does.
    pub cwd: ByteString,
    pub user: UserSpec,
    pub capabilities: CapabilitySets,
    pub no_new_privileges: bool,
    pub rlimits: Vec<RlimitSpec>,
    /// Standard input, output and error are one terminal, which controls the new session.
    pub terminal: bool,
    /// Rows and columns the terminal starts with.
    pub console_size: Option<WindowSize>,
    pub oom_score_adj: Option<i32>,
    pub scheduler: Option<SchedulerSpec>,
    /// ioprio_set(2)'s number: class in the bits from 13 on, level below.
    pub io_priority: Option<i32>,
    /// Numbers of the CPUs that it may run on; `None` for all.
    pub cpus: Option<Vec<u32>>,
    /// Signals end it as they end any process, although it is the first of its PID namespace.
    pub mortal: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSpec {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub umask: Option<u32>,
}

/// Bit n is capability number n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySets {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// `resource` is the number of `RLIMIT_*`; `u64::MAX` is RLIM_INFINITY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RlimitSpec {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// sched_setattr(2)'s parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerSpec {
    /// The number of `SCHED_*`.
    pub policy: i32,
    pub reset_on_fork: bool,
    /// -20 to 19
    pub nice: i32,
    /// 1 to 99 with a real-time policy, else 0.
    pub priority: i32,
    /// Runtime, deadline and period of `SCHED_DEADLINE`, nanoseconds.
    pub deadline: [u64; 3],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    pub path: ByteString,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    Character,
    Block,
    Fifo,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HookSpec {
    pub path: ByteString,
    pub args: Vec<ByteString>,
    pub env: Vec<ByteString>,
    /// Seconds.
    pub timeout: Option<u32>,
    /// The container's state as JSON, for the hook's standard input.
    pub state: String,
}

/// What the container's cgroup limits, so that the guest sees it in /proc and sysinfo.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Memory and swap together, bytes.
    pub memory_and_swap: Option<u64>,
    /// Microseconds of CPU per period.
    pub cpu_quota: Option<u64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    pub cpu_shares: Option<u64>,
    /// How many CPUs the cpuset has.
    pub cpuset: Option<u64>,
    pub pids: Option<u64>,
}

/// An OCI seccomp profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompSpec {
    pub default_action: SeccompAction,
    /// Names as OCI spells them, `SCMP_ARCH_X86_64`.
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_LOG` and kin.
    pub flags: Vec<String>,
    pub rules: Vec<SeccompRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompRule {
    pub names: Vec<String>,
    pub action: SeccompAction,
    /// All must hold.
    pub args: Vec<SeccompArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompAction {
    Allow,
    Log,
    /// errno to return.
    Errno(u16),
    /// Message for the tracer.
    Trace(u16),
    Trap,
    KillThread,
    KillProcess,
    Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompArg {
    pub index: u8,
    pub op: SeccompOp,
    pub value: u64,
    /// The second operand of `MaskedEqual`: `arg & value == value_two`.
    pub value_two: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompOp {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    MaskedEqual,
}

#[cfg(test)]
mod tests {
    use super::ByteString;

    #[test]
    fn byte_strings_survive_json() {
        for bytes in [&b""[..], b"plain", b"\xff\xfe", "gr\u{fc}n".as_bytes()] {
            let value = ByteString(bytes.to_vec());
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<ByteString>(&json).unwrap(), value);
        }
    }
}
