//! The command line: flags of every command, as clap reads them. The same flags as runc has, so
//! that engines need not know the difference; what Go programs accept beside (`-flag`,
//! `--flag=false`) is translated in [`crate::goflags`] before clap sees it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::log::Format;

const ABOUT: &str = "Runs containers in a sandbox: their system calls are answered by a kernel \
in user space, not by the host's.";

const AFTER_HELP: &str = "\
Try it, no bundle and no engine needed:
    runsc do uname -a            a command on this machine's files, in a sandbox
    runsc do bash                a shell; what it writes stays in memory

A container from a bundle (a directory with config.json and a root file system):
    runsc spec --bundle B        writes a starter config.json
    runsc run --bundle B NAME    creates, starts and waits; or create, start, kill, delete

Under Docker, in /etc/docker/daemon.json:
    {\"runtimes\": {\"runsc\": {\"path\": \"/usr/local/bin/runsc\"}}}

Topics: runsc help platforms, runsc help syscalls. One command: runsc COMMAND --help.";

#[derive(Debug, Parser)]
#[command(
    name = "runsc",
    about = ABOUT,
    after_help = AFTER_HELP,
    disable_help_subcommand = true,
    disable_version_flag = true,
    subcommand_required = false,
    arg_required_else_help = false,
    max_term_width = 100
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Directory with the state of all containers [default: /run/runsc, or $XDG_RUNTIME_DIR/runsc
    /// without root]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// File that errors and warnings are appended to [default: standard error]
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How log lines are written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: Format,
    /// Log more
    #[arg(long)]
    pub debug: bool,
    /// File for the log of the sandbox itself; implies --debug for it
    #[arg(long, value_name = "FILE")]
    pub debug_log: Option<PathBuf>,
    /// Log every system call of the container (needs --debug-log)
    #[arg(long)]
    pub strace: bool,
    /// How guest code is run: auto, systrap, ptrace or kvm (see `runsc help platforms`)
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub platform: String,
    /// What the container's network is: sandbox (a network stack of our own on the interfaces of the container's
    /// network namespace), host (sockets of that namespace) or none (loopback only)
    #[arg(long, value_name = "MODE", default_value = "sandbox")]
    pub network: String,
    /// Where writes to the root go: root (an overlay in memory), none (the host's files), or auto: the
    /// host's files if the root is a mount of its own, as engines make one for each container, else memory
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    pub overlay: OverlayFlag,
    /// Where criu is: accepted for runc's sake; a sandbox needs none
    #[arg(long, value_name = "FILE", hide = true)]
    pub criu: Option<PathBuf>,
    /// Have systemd make the cgroups: linux.cgroupsPath is SLICE:PREFIX:NAME then
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Make no cgroups, whatever the configuration says: nothing of the host limits or counts the container
    #[arg(long)]
    pub ignore_cgroups: bool,
    /// Go on when cgroups may not be made: true, false or auto (without root)
    #[arg(long, value_name = "BOOL", default_value = "auto")]
    pub rootless: Rootless,
    /// For finding gaps in the sentry's seccomp filter: log what it forbids on the host and go on
    #[cfg(debug_assertions)]
    #[arg(long, hide = true)]
    pub log_forbidden_calls: bool,
    /// Print the version
    #[arg(long, short = 'v')]
    pub version: bool,
}

impl Global {
    /// What happens to a sentry that asks the host for what its filter forbids.
    pub fn violation(&self) -> hostsys::seccomp::Violation {
        #[cfg(debug_assertions)]
        if self.log_forbidden_calls {
            return hostsys::seccomp::Violation::Log;
        }
        hostsys::seccomp::Violation::Kill
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OverlayFlag {
    Auto,
    Root,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    #[value(alias = "1")]
    True,
    #[value(alias = "0")]
    False,
    Auto,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a container from a bundle and run it to its end
    Run(RunArgs),
    /// Set a container up; `start` runs its program
    Create(CreateArgs),
    /// Run the program of a created container
    Start(IdArgs),
    /// Run another program in a running container
    Exec(ExecArgs),
    /// Send a signal to a container
    Kill(KillArgs),
    /// Remove what is left of a container
    Delete(DeleteArgs),
    /// Show a container's state as JSON
    State(IdArgs),
    /// List the containers
    List(ListArgs),
    /// List the processes in a container
    Ps(PsArgs),
    /// Wait for a container's end and show its exit status
    Wait(WaitArgs),
    /// Write a starter config.json
    Spec(SpecArgs),
    /// Run a command on this machine's files in a sandbox; changes stay in memory
    Do(DoArgs),
    /// Change the limits of a container
    Update(UpdateArgs),
    /// Show statistics of a container as JSON lines
    Events(EventsArgs),
    /// Stop all processes of a container until `resume`
    Pause(IdArgs),
    /// Let a paused container go on
    Resume(IdArgs),
    /// Refused: the state of a sandbox cannot be saved
    #[command(hide = true)]
    Checkpoint(RefusedArgs),
    /// Refused: the state of a sandbox cannot be saved
    #[command(hide = true)]
    Restore(RefusedArgs),
    /// Show what this runtime supports, as JSON
    Features,
    /// Make this runtime known to Docker or containerd
    Install(InstallArgs),
    /// Take back what `install` has done
    Uninstall(UninstallArgs),
    /// Write a script that completes commands and flags in a shell
    Completion(CompletionArgs),
    /// Write manual pages
    Man(ManArgs),
    /// Help on a command or topic
    #[command(visible_alias = "h")]
    Help(HelpArgs),
}

#[derive(Debug, Args)]
pub struct IdArgs {
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Directory with config.json
    #[arg(long, short, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub bundle: PathBuf,
    /// Unix socket that gets the terminal's master end
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// File to write the container's host process id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Pass N more descriptors (3, 4 …) to the container
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub preserve_fds: u32,
    /// Accepted for runc's sake: the sandbox never pivots into the container's root on the host
    #[arg(long)]
    pub no_pivot: bool,
    /// Accepted for runc's sake: no keyring of the host is shown to a container
    #[arg(long)]
    pub no_new_keyring: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub create: CreateArgs,
    /// Do not wait for the container's end
    #[arg(long, short)]
    pub detach: bool,
    /// Keep the state after the end; `delete` removes it
    #[arg(long)]
    pub keep: bool,
    /// Do not become the reaper of the container's processes (they never are the host's)
    #[arg(long)]
    pub no_subreaper: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: runsc exec -t web sh")]
pub struct ExecArgs {
    /// Unix socket that gets the terminal's master end
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// NAME=value for the environment; may be given several times
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<OsString>,
    /// Give the process a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// UID or UID:GID
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
    /// Further group ids
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// JSON file with the whole process ("process" of config.json)
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Do not wait for the process's end
    #[arg(long, short)]
    pub detach: bool,
    /// File to write the host process id to that ends with the process
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// SELinux label (not supported)
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile (not supported)
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// The process and its children never gain privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Add a capability; may be given several times
    #[arg(long, short, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Pass N more descriptors (3, 4 …) to the process
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub preserve_fds: u32,
    /// Run in a sub-cgroup of the container (not supported)
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<String>,
    /// Start in a paused container as well
    #[arg(long)]
    pub ignore_paused: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples: runsc kill web; runsc kill web HUP; runsc kill --all web 9")]
pub struct KillArgs {
    /// Signal every process of the container
    #[arg(long, short)]
    pub all: bool,
    /// Signal this process of the container (its number there)
    #[arg(long, value_name = "PID", conflicts_with = "all")]
    pub pid: Option<u32>,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// Number or name
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    pub signal: String,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Kill it first if it runs; a container that does not exist is no error
    #[arg(long, short)]
    pub force: bool,
    /// The containers' ids
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableOrJson {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub format: TableOrJson,
    /// Ids only
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "The table shows the processes as the container numbers them. The JSON \
form is what container engines ask for: process ids of the host.")]
pub struct PsArgs {
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub format: TableOrJson,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// Options of ps(1), accepted and not used
    #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub options: Vec<OsString>,
}

/// Of a command that engines know and that is there to say no.
#[derive(Debug, Args)]
pub struct RefusedArgs {
    /// Whatever runc takes
    #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Wait for this process of the container (its number there) instead of the first
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct SpecArgs {
    /// Directory to write config.json to
    #[arg(long, short, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// For a caller without root: with a user namespace and without cgroups
    #[arg(long)]
    pub rootless: bool,
    /// Working directory of the program
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub cwd: String,
    /// The program and its arguments, instead of sh
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The command sees this machine's files as they are, and may change them as it likes: the changes
are kept in memory and are gone when it ends. /proc, /sys, /dev and /tmp are the sandbox's own.
The exit status is the command's.

Examples:
    runsc do python3 -c 'import os; print(os.uname())'
    runsc do --volume /srv/data sh -c 'make install > /srv/data/log'
    runsc --strace --debug-log /tmp/log do ls /")]
pub struct DoArgs {
    /// Share a directory or file with the host, writable unless :ro; may be given several times
    #[arg(long, value_name = "SRC[:DST[:ro]]")]
    pub volume: Vec<String>,
    /// Working directory [default: the current one]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// UID or UID:GID [default: the caller's]
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
    /// NAME=value for the environment, beside the caller's; may be given several times
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<OsString>,
    /// Use this directory as the root instead of the machine's
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub rootfs: PathBuf,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Sizes in bytes. A limit that is not given stays. Examples: runsc update --memory 268435456 \
web; runsc update --resources limits.json web"
)]
pub struct UpdateArgs {
    /// JSON file with LinuxResources, as in config.json; - for standard input
    #[arg(long, short, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight of block I/O
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// CPU time per period in microseconds, -1 for no limit
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Length of a period in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<u64>,
    /// Weight among other containers
    #[arg(long, value_name = "N")]
    pub cpu_share: Option<u64>,
    /// Length of a period for real-time processes in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_rt_period: Option<u64>,
    /// Time of real-time processes per period in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs to use, as 0-2,4
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Bytes of memory, -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Bytes of memory that are not taken away under pressure
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// Bytes of memory and swap together, -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Number of processes and threads, -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Intel RDT's cache allocation (not supported)
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Intel RDT's memory bandwidth (not supported)
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Time between two lines: 5s, 500ms, 1m
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub interval: String,
    /// One line, then end
    #[arg(long)]
    pub stats: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    Docker,
    Containerd,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n    runsc install\n    runsc install docker --runtime runsc-debug -- --debug \
--debug-log /tmp/runsc.log\n    runsc install containerd --dry-run"
)]
pub struct InstallArgs {
    /// Whose configuration to change
    #[arg(value_name = "ENGINE", default_value = "docker")]
    pub engine: Engine,
    /// Name of the runtime there
    #[arg(long, value_name = "NAME", default_value = "runsc")]
    pub runtime: String,
    /// The engine's file [default: /etc/docker/daemon.json or /etc/containerd/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The program to enter [default: this one]
    #[arg(long, value_name = "FILE")]
    pub path: Option<PathBuf>,
    /// Show the new file and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Global flags for each call (Docker only)
    #[arg(value_name = "FLAGS", last = true)]
    pub arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// Whose configuration to change
    #[arg(value_name = "ENGINE", default_value = "docker")]
    pub engine: Engine,
    /// Name of the runtime there
    #[arg(long, value_name = "NAME", default_value = "runsc")]
    pub runtime: String,
    /// The engine's file [default: /etc/docker/daemon.json or /etc/containerd/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Show the new file and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: runsc completion bash > /etc/bash_completion.d/runsc")]
pub struct CompletionArgs {
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: runsc man /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Directory for the pages of the program and of each command [default: the program's to standard output]
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct HelpArgs {
    /// A command, or one of: platforms, syscalls
    #[arg(value_name = "TOPIC")]
    pub topic: Option<String>,
}
