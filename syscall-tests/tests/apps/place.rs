//! Where a command runs: on the host kernel in a chroot with namespaces of its own, or in a sandbox.
//! Both see the same root file system below a writable layer, /proc, /dev, a tmpfs on /tmp, the scripts
//! on /apps and a writable bind mount on /bind.

use serde_json::json;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A command's end and all it printed.
#[derive(Clone)]
pub struct Run {
    /// Standard output and error, in order.
    pub output: String,
    /// `exit status: N`, or what else ended it.
    pub status: String,
}

impl Run {
    /// The last lines.
    pub fn tail(&self, n: usize) -> String {
        let lines: Vec<&str> = self.output.lines().collect();
        lines[lines.len().saturating_sub(n)..].join("\n")
    }
}

/// Host or sandbox.
#[derive(Clone)]
pub enum Place {
    /// On the host kernel.
    Native,
    /// In a sandbox of that platform.
    Sandbox(String),
}

/// Sets the host's half up: an overlay over the root file system, the usual mounts, then the command.
const NATIVE: &str = r#"
set -e
root=$1 work=$2 apps=$3; shift 3
mount -t tmpfs none "$work/layers"
mkdir "$work/layers/upper" "$work/layers/work"
mount -t overlay -o "lowerdir=$root,upperdir=$work/layers/upper,workdir=$work/layers/work" none "$work/merged"
cd "$work/merged"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 none dev
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 dev/${node%:*} c 1 ${node#*:}; done
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd; ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
mount -t tmpfs -o mode=1777 none dev/shm
mount -t tmpfs -o mode=1777 none tmp
mount --bind -o ro "$apps" apps
mount --bind "$work/bind" bind
ip link set lo up 2>/dev/null || true
hostname apps
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=xterm chroot . "$@"
"#;

impl Place {
    /// By the name of a platform; `native` is the host itself.
    pub fn of(platform: &str) -> Self {
        if platform == "native" { Self::Native } else { Self::Sandbox(platform.to_owned()) }
    }

    /// Runs the command to its end or to the limit.
    pub fn run(&self, root: &Path, command: &[String], limit: Duration) -> Run {
        let scene = self.scene(root, command, false);
        follow(scene.command(), limit, || scene.end())
    }

    /// The files and the configuration for one command.
    pub fn scene(&self, root: &Path, command: &[String], terminal: bool) -> Scene {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let id = format!("apps-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let work = std::env::temp_dir().join(&id);
        for directory in ["layers", "merged", "bind", "state"] {
            std::fs::create_dir_all(work.join(directory)).expect("a directory for the run");
        }
        if matches!(self, Self::Sandbox(_)) {
            let config = config(root, &work.join("bind"), &apps(), command, terminal);
            std::fs::write(work.join("config.json"), config.to_string()).expect("a bundle can be written");
        }
        Scene { place: self.clone(), root: root.to_owned(), command: command.to_owned(), work, id }
    }
}

/// One run's files, gone with the value, and the sandbox with them.
pub struct Scene {
    place: Place,
    root: PathBuf,
    command: Vec<String>,
    /// Of this run alone; the bundle of a sandbox.
    pub work: PathBuf,
    /// The container's.
    pub id: String,
}

impl Scene {
    /// What runs the command and ends with its status.
    pub fn command(&self) -> Command {
        match &self.place {
            Place::Native => {
                let mut host = Command::new("unshare");
                host.args(["--mount", "--pid", "--fork", "--ipc", "--uts", "--net", "--kill-child"]);
                host.args(["sh", "-c", NATIVE, "sh"]);
                host.arg(&self.root).arg(&self.work).arg(apps()).args(&self.command);
                host
            }
            Place::Sandbox(_) => {
                let mut sandbox = self.runsc();
                sandbox.args(["run", "--bundle"]).arg(&self.work).arg(&self.id);
                sandbox
            }
        }
    }

    /// `runsc` with this run's state.
    pub fn runsc(&self) -> Command {
        let mut runsc = Command::new(runsc());
        runsc.arg("--root").arg(self.work.join("state")).arg("--network=none");
        if let Place::Sandbox(platform) = &self.place {
            runsc.arg(format!("--platform={platform}"));
        }
        if let Ok(log) = std::env::var("APPS_DEBUG_LOG") {
            runsc.arg("--strace").arg(format!("--debug-log={log}"));
        }
        runsc
    }

    /// Removes the container, running or not.
    pub fn end(&self) {
        if matches!(self.place, Place::Sandbox(_)) {
            let _ = self.runsc().args(["delete", "--force", &self.id]).stdin(Stdio::null()).output();
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.end();
        let _ = std::fs::remove_dir_all(&self.work);
    }
}

fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("apps")
}

/// Starts the command with both outputs in one file, waits, stops it at the limit.
pub fn follow(mut command: Command, limit: Duration, after: impl FnOnce()) -> Run {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let second = writer.try_clone().expect("a descriptor");
    command.stdin(Stdio::null()).stdout(writer).stderr(second).process_group(0);
    let child = command.spawn();
    // The command holds the write ends; they must go for the reader to see the end.
    drop(command);
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Run { output: String::new(), status: format!("does not start: {error}") },
    };
    let output = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let began = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.to_string(),
            Ok(None) if began.elapsed() > limit => {
                let _ = child.kill();
                let _ = child.wait();
                break format!("stopped after {} s", limit.as_secs());
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => break error.to_string(),
        }
    };
    after();
    Run { output: output.join().unwrap_or_default(), status }
}

/// The OCI configuration of the sandbox' half.
fn config(root: &Path, bind: &Path, apps: &Path, command: &[String], terminal: bool) -> serde_json::Value {
    let all: Vec<&str> = CAPABILITIES.split_whitespace().collect();
    let environment = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "LANG=C.UTF-8",
        "TERM=xterm",
    ];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": terminal, "user": {"uid": 0, "gid": 0}, "args": command, "env": environment, "cwd": "/",
            "capabilities": {"bounding": all, "effective": all, "permitted": all},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 20000, "soft": 1024}]
        },
        "root": {"path": root, "readonly": false},
        "hostname": "apps",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["mode=1777"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
            {"destination": "/apps", "type": "bind", "source": apps, "options": ["bind", "ro"]},
            {"destination": "/bind", "type": "bind", "source": bind, "options": ["bind", "rw"]}
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]}
    })
}

const CAPABILITIES: &str = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID \
    CAP_SETUID CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW \
    CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_NICE \
    CAP_SYS_RESOURCE CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_SETFCAP";

/// The runsc to test: `RUNSC`, or the one of this workspace.
fn runsc() -> PathBuf {
    if let Some(path) = std::env::var_os("RUNSC") {
        return path.into();
    }
    Path::new(env!("CARGO_BIN_EXE_guest")).with_file_name("runsc")
}
