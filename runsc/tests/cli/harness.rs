//! A state directory and bundles of one test, and running `runsc` on them. Everything is gone when
//! the value is dropped.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub struct Place {
    pub directory: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Place {
        // Containers' processes are reparented to this one, as they are to an engine's shim.
        hostsys::process::set_child_subreaper(true).unwrap();
        Place { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("state")
    }

    pub fn log(&self) -> PathBuf {
        self.path("log.json")
    }

    /// A bundle whose program is /bin/prog, changed by `change`.
    pub fn bundle(&self, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let bundle = self.path(name);
        std::fs::create_dir_all(bundle.join("rootfs/bin")).unwrap();
        let program = bundle.join("rootfs/bin/prog");
        std::fs::copy(env!("CARGO_BIN_EXE_runsc"), &program).unwrap();
        let done = run(Command::new(env!("CARGO_BIN_EXE_runsc"))
            .args(["spec", "--bundle"])
            .arg(&bundle)
            .args(["--", "/bin/prog"]));
        assert_eq!(done.code, 0, "{done:?}");
        let path = bundle.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["process"]["args"] = json!(["/bin/prog", "--version"]);
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
        bundle
    }

    /// `runsc` with this place's state and log.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runsc"));
        command.arg("--root").arg(self.root()).arg("--log").arg(self.log()).args(["--log-format", "json"]);
        command
    }

    pub fn runsc(&self, args: &[&str]) -> Done {
        run(self.command().args(args))
    }

    /// Messages in the log, oldest first.
    pub fn messages(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                assert!(line["time"].is_string() && line["level"].is_string(), "{line}");
                (line["level"] == "error").then(|| line["msg"].as_str().unwrap().to_owned())
            })
            .collect()
    }

    /// The container's state document.
    pub fn state(&self, id: &str) -> Value {
        let done = self.runsc(&["state", id]);
        assert_eq!(done.code, 0, "{done:?}");
        serde_json::from_str(&done.stdout).unwrap()
    }

    /// No container, no file of one.
    pub fn assert_empty(&self) {
        let left: Vec<_> = std::fs::read_dir(self.root())
            .map(|entries| entries.map(|e| e.unwrap().file_name()).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// Runs a command to its end. Its output goes to files and not to pipes: a container keeps the
/// streams it was created with, and would hold a pipe open for as long as it lives.
pub fn run(command: &mut Command) -> Done {
    let file = || tempfile::tempfile().unwrap();
    let (mut stdout, mut stderr) = (file(), file());
    let status = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().unwrap())
        .stderr(stderr.try_clone().unwrap())
        .status()
        .unwrap();
    let read = |file: &mut File| {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    };
    Done { code: status.code().unwrap_or(-1), stdout: read(&mut stdout), stderr: read(&mut stderr) }
}

/// Waits for the end of a child of this process, adopted or not: its exit status.
pub fn reap(pid: i32) -> i32 {
    use rustix::process::{Pid, WaitOptions, waitpid};
    let (_, status) = waitpid(Pid::from_raw(pid), WaitOptions::empty()).unwrap().unwrap();
    status.exit_status().unwrap_or_else(|| 1000 + status.terminating_signal().unwrap_or(0))
}

pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !matches!(rest.trim_start().chars().next(), Some('Z' | 'X')))
}

pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number from the container's record.
pub fn recorded_pid(place: &Place, id: &str, process: &str) -> i32 {
    let record = std::fs::read(place.root().join(id).join("state.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    i32::try_from(record[process]["pid"].as_i64().unwrap()).unwrap()
}

/// A test cannot do its work here. Where everything is installed, on a machine of CI, that is a failure.
pub fn skipped(why: &str) {
    println!("skipped: {why}");
    assert!(std::env::var_os("CI").is_none(), "skipped where nothing may be: {why}");
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
