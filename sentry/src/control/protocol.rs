//! The messages of the control socket, shared by both ends. A message is a four-byte length
//! (little endian) and that many bytes of JSON; descriptors ride on its first byte. Each request
//! gets exactly one reply, in order; `Wait` gets its reply when the process has ended.

use serde::{Deserialize, Serialize};

use crate::boot::spec::{ContainerSpec, Limits, ProcessSpec, WindowSize};

/// Longest message: an `Exec` with the largest argument list that Linux accepts (2 MiB), written
/// as JSON numbers, still fits.
pub const MAX_MESSAGE: usize = 16 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Id of the container in the sandbox.
    pub container: String,
    pub op: Operation,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// → `Reply::Status`
    Status,
    /// Runs the first process. → `Done`
    Start,
    /// Makes the container that the request names, in a sandbox that has others. Descriptors: its streams
    /// as for `Exec`, our end of its gofer's channel, what becomes readable when that gofer is gone, then
    /// `extra_fds` more. → `Done`
    Create {
        spec: Box<ContainerSpec>,
        extra_fds: u32,
    },
    /// Ends the container, which is not the sandbox's first, and forgets it. → `Done`
    Delete,
    /// → `Done`
    SetLimits {
        limits: Limits,
    },
    /// As `Wait`, from the host process that stands for this one: if that goes away it is killed, with
    /// the first process all of the container. → `Exited`
    Hold {
        target: WaitTarget,
    },
    /// → `Exited`, once it has ended.
    Wait {
        target: WaitTarget,
    },
    /// → `OomKills`, once more than `seen` processes of the container were killed because its limit of memory was
    /// reached.
    WaitOom {
        seen: u64,
    },
    /// → `Done`
    Signal {
        target: SignalTarget,
        signo: i32,
    },
    /// Starts another process. Descriptors: one terminal if `process.terminal`, else standard input,
    /// output and error; then `extra_fds` more that the process gets from number 3 on. → `Started`
    Exec {
        process: Box<ProcessSpec>,
        extra_fds: u32,
    },
    /// → `Processes`
    Processes,
    /// Stops all processes of the container until `Resume`. → `Done`
    Pause,
    Resume,
    /// → `Stats`
    Stats,
    /// The terminal of this process (0: of the container's first) has a new size. → `Done`
    Resize {
        pid: u32,
        size: WindowSize,
    },
    /// Ends the sandbox at once. → `Done`
    Shutdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitTarget {
    /// The container's first process.
    Init,
    /// A process in the container, by its number there.
    Process(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalTarget {
    /// The container's first process.
    Init,
    /// Every process of the container.
    All,
    /// One process, by its number in the container.
    Process(u32),
    /// The foreground process group of the terminal of that process (0: of the first process).
    Foreground(u32),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Done,
    Failed(ControlError),
    Status(ContainerStatus),
    Started { pid: u32 },
    Exited(ExitStatus),
    OomKills(u64),
    Processes(Vec<ProcessInfo>),
    Stats(Box<Stats>),
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    pub kind: ErrorKind,
    /// For a person: what was tried, on what, and why it failed.
    pub message: String,
}

impl ControlError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ControlError {
        ControlError { kind, message: message.into() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    NoSuchContainer,
    NoSuchProcess,
    /// Not possible in the container's present status.
    WrongStatus,
    /// The program is missing (exit code 127 for callers that care).
    NotFound,
    /// The program may not be run (exit code 126).
    NotPermitted,
    /// This build cannot do it.
    Unsupported,
    Invalid,
    Internal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerStatus {
    /// Set up; the first process waits for `Start`.
    Created,
    Running,
    Paused,
    /// The first process has ended.
    Stopped,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// exit(2)'s low eight bits.
    Code(u8),
    /// Killed by this signal.
    Signal(u8),
}

impl ExitStatus {
    /// As a shell reports it: the code, or 128 + the signal's number.
    pub fn shell_code(self) -> u8 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signo) => 128u8.wrapping_add(signo),
        }
    }
}

/// A process as `runsc ps` shows it. Numbers are those of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    pub uid: u32,
    pub pid: u32,
    pub ppid: u32,
    pub threads: u32,
    /// R, S, T, Z … as in /proc/PID/stat.
    pub state: char,
    /// Seconds since the epoch.
    pub start_time: u64,
    /// CPU time used, in milliseconds.
    pub cpu_ms: u64,
    /// Name of its terminal, `pts/0`; empty without one.
    pub tty: String,
    pub command: String,
}

/// What the sentry itself counts. The command line adds what the host's cgroup knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub processes: u64,
    pub threads: u64,
    /// Nanoseconds in guest code and in the sentry on its behalf.
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    /// Bytes of anonymous guest memory in use.
    pub memory_anonymous: u64,
    /// Bytes of files held in memory (tmpfs, overlay upper layer).
    pub memory_files: u64,
    /// The most bytes of memory in use at any time, as far as the container's are counted by themselves; else 0.
    pub memory_peak: u64,
    /// Processes that the sentry killed because the container's limit of memory was reached.
    pub oom_kills: u64,
}
