//! The sandbox's network stack against the host's, over a cable between two network namespaces: each script of `network/`
//! runs with a container of its own and must end with status 0. A Debian root file system with the programs is made once with
//! mmdebstrap, in `NETWORK_ROOTFS` or `target/tmp/network/rootfs`.
//!
//! Environment: `RUNSC`, `NETWORK_PLATFORMS` (default `systrap`).

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::json;

const PACKAGES: &str = "bind9-dnsutils,curl,ethtool,iperf3,iproute2,iputils-arping,iputils-ping,nginx-light,\
    openssh-client,openssh-server,openssl,procps,python3-minimal,libpython3-stdlib,redis-server,wrk";

/// How long one script may take.
const LIMIT: Duration = Duration::from_secs(120);

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("network")
}

fn runsc() -> PathBuf {
    if let Some(path) = std::env::var_os("RUNSC") {
        return path.into();
    }
    Path::new(env!("CARGO_BIN_EXE_guest")).with_file_name("runsc")
}

/// The root file system, made when the first case needs it.
fn rootfs() -> Result<PathBuf, String> {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("network/rootfs");
    let root = std::env::var_os("NETWORK_ROOTFS").map_or(kept, PathBuf::from);
    let mark = root.with_extension("complete");
    if !mark.exists() {
        eprintln!("making the Debian root file system in {}, once", root.display());
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.parent().unwrap_or(&root)).map_err(|e| e.to_string())?;
        let made = Command::new("mmdebstrap")
            .args(["--variant=minbase", "--quiet", &format!("--include={PACKAGES}"), "bookworm"])
            .arg(&root)
            .output()
            .map_err(|e| format!("mmdebstrap: {e}"))?;
        if !made.status.success() {
            return Err(format!("mmdebstrap: {}", String::from_utf8_lossy(&made.stderr)));
        }
        std::fs::write(&mark, "").map_err(|e| e.to_string())?;
    }
    // It has the machine's, whose servers nobody answers for in the namespaces.
    std::fs::write(root.join("etc/resolv.conf"), "").map_err(|e| e.to_string())?;
    Ok(root)
}

fn config(root: &Path, id: &str) -> serde_json::Value {
    let capabilities = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_KILL",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_NET_ADMIN",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SYS_CHROOT",
        "CAP_AUDIT_WRITE",
        "CAP_SYS_RESOURCE",
    ];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["sleep", "1000"], "cwd": "/",
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 20000, "soft": 20000}]
        },
        "root": {"path": root, "readonly": false},
        "hostname": "guest",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}
        ],
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            {"type": "network", "path": format!("/run/netns/{id}-in")}
        ]}
    })
}

/// Runs one script. Whatever it does, its container, namespaces and processes are gone afterwards.
fn case(script: &Path, platform: &str, root: &Path) -> Result<(), Failed> {
    let name = script.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
    let id = format!("net{}-{name}-{platform}", std::process::id());
    let work = std::env::temp_dir().join(&id);
    std::fs::create_dir_all(&work)?;
    std::fs::write(work.join("config.json"), config(root, &id).to_string())?;
    let log = std::fs::File::create(work.join("log"))?;
    let mut shell = Command::new("bash")
        .arg("-c")
        .arg(r#". "$0/prelude.sh"; . "$1""#)
        .arg(scripts())
        .arg(script)
        .envs([("ID", id.as_str()), ("PLATFORM", platform)])
        .envs([("ROOT", root), ("WORK", &work), ("RUNSC", &runsc())])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    let end = Instant::now() + LIMIT;
    let status = loop {
        match shell.try_wait()? {
            Some(status) => break status.to_string(),
            None if Instant::now() > end => break format!("did not end in {LIMIT:?}"),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let quiet = |program: &str, arguments: &[&str]| {
        let _ = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    };
    let group = format!("-{}", shell.id());
    quiet("kill", &["-9", "--", &group]);
    let _ = shell.wait();
    let _ =
        Command::new(runsc()).arg("--root").arg(work.join("state")).args(["delete", "--force", &id]).output();
    for side in ["out", "in", "mid"] {
        quiet("ip", &["netns", "del", &format!("{id}-{side}")]);
    }
    let text = std::fs::read_to_string(work.join("log")).unwrap_or_default();
    let _ = std::fs::remove_dir_all(&work);
    if status == "exit status: 0" {
        return Ok(());
    }
    let tail: Vec<&str> = text.lines().rev().take(30).collect();
    Err(format!("{status}\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n")).into())
}

fn main() {
    let mut arguments = Arguments::from_args();
    // They share the machine's processors and measure nothing, but wait for each other's servers.
    arguments.test_threads.get_or_insert(1);
    let missing = ["ip", "nsenter", "unshare", "mmdebstrap"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_err());
    let root_user = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    if missing.is_some() || !root_user {
        let why = missing.map_or("wants root".to_owned(), |program| format!("{program} is missing"));
        println!("skipped: {why}");
        std::process::exit(i32::from(std::env::var_os("CI").is_some()));
    }
    let platforms = std::env::var("NETWORK_PLATFORMS").unwrap_or_else(|_| "systrap".to_owned());
    let root: Arc<OnceLock<Result<PathBuf, String>>> = Arc::default();
    let mut names: Vec<PathBuf> = std::fs::read_dir(scripts())
        .expect("the folder of the scripts")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name != "prelude.sh"))
        .collect();
    names.sort();
    let mut trials = Vec::new();
    for platform in platforms.split(',') {
        for script in &names {
            let (script, platform, root) = (script.clone(), platform.to_owned(), root.clone());
            let name = script.file_stem().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
            trials.push(Trial::test(format!("{platform}::{name}"), move || {
                let root = root.get_or_init(rootfs).clone()?;
                case(&script, &platform, &root)
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}
