//! OCI bundles for the start-up bench: the same root file system and configuration for every runtime.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Makes a bundle below `base` whose container runs `args`; returns its path.
pub fn make(base: &Path, name: &str, programs: &[PathBuf], args: &[&str]) -> std::io::Result<PathBuf> {
    let bundle = base.join(name);
    let root = bundle.join("rootfs");
    for directory in ["proc", "dev", "sys", "tmp"] {
        std::fs::create_dir_all(root.join(directory))?;
    }
    for program in programs {
        let file = program.file_name().unwrap_or_default();
        std::fs::copy(program, root.join(file))?;
    }
    std::fs::write(bundle.join("config.json"), serde_json::to_string_pretty(&config(args))?)?;
    Ok(bundle)
}

/// What `runc spec` writes, as far as start-up depends on it.
fn config(args: &[&str]) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mounts = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs",
         "options": ["nosuid", "noexec", "nodev", "ro"]}
    ]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "bench",
        "mounts": mounts,
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
