//! Runs batches of cases, natively or in a sandbox, and reads the framed output. A sandbox that dies
//! in the middle is started again with the cases that are left.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

/// Cases that run one after the other in one process tree.
pub struct Batch {
    /// Their names.
    pub cases: Vec<String>,
}

/// What one case said and how it ended.
#[derive(Clone)]
pub struct Outcome {
    lines: Vec<String>,
    end: String,
}

impl Outcome {
    /// Stands for a case that never ran.
    pub fn missing() -> Self {
        Self { lines: Vec::new(), end: "did not run".to_owned() }
    }

    /// Why the case is no use even on the host.
    pub fn broken(&self) -> Option<String> {
        if self.end != "exit 0" {
            return Some(format!("it ended with '{}'", self.end));
        }
        self.lines.iter().find(|l| l.starts_with("BAD ")).cloned()
    }

    /// All that was said.
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// The differences to another run of the same case, as text; none if equal.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.lines == other.lines && self.end == other.end {
            return None;
        }
        let mut text = String::from("host (-) and sandbox (+) differ:\n");
        let common = self.lines.iter().zip(&other.lines).take_while(|(a, b)| a == b).count();
        for line in self.lines.iter().take(common).skip(common.saturating_sub(3)) {
            text.push_str(&format!("  {line}\n"));
        }
        let (mine, theirs) = (&self.lines[common..], &other.lines[common..]);
        if mine.len() == theirs.len() {
            for (a, b) in mine.iter().zip(theirs).filter(|(a, b)| a != b) {
                text.push_str(&format!("- {a}\n+ {b}\n"));
            }
        } else {
            mine.iter().take(12).for_each(|l| text.push_str(&format!("- {l}\n")));
            theirs.iter().take(12).for_each(|l| text.push_str(&format!("+ {l}\n")));
        }
        if self.end != other.end {
            text.push_str(&format!("- @end {}\n+ @end {}\n", self.end, other.end));
        }
        Some(text)
    }
}

/// Where cases run.
pub enum Runner {
    /// On the host kernel, in namespaces of their own.
    Native,
    /// In a sandbox of that platform.
    Sandbox {
        /// The name for `--platform`.
        platform: String,
        /// The name for `--network`. The sockets of `host` are those of a namespace of the run's own.
        network: &'static str,
    },
}

/// A run on systrap with `--network=host`, of the families whose sockets are the host's then.
pub const HOSTNET: &str = "hostnet";

/// Seconds a case may take; the guest enforces it.
const CASE_LIMIT_S: u64 = 20;
/// Seconds of silence after which the whole run is given up.
const SILENCE_S: u64 = CASE_LIMIT_S + 20;

impl Runner {
    /// The runner that tests call so.
    pub fn named(name: &str) -> Self {
        let (platform, network) = match name {
            "native" => return Self::Native,
            HOSTNET => ("systrap", "host"),
            platform => (platform, "none"),
        };
        Self::Sandbox { platform: platform.to_owned(), network }
    }

    /// Runs the batches on a few threads.
    pub fn run(&self, guest: &str, batches: &[Batch]) -> BTreeMap<String, Outcome> {
        let jobs = std::env::var("SYSCALL_TESTS_JOBS").ok().and_then(|j| j.parse().ok()).unwrap_or(2usize);
        let next = AtomicUsize::new(0);
        let dead_starts = AtomicUsize::new(0);
        let results = Mutex::new(BTreeMap::new());
        let runsc = match self {
            Self::Native => PathBuf::new(),
            Self::Sandbox { .. } => runsc(),
        };
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let got = self.run_batch(guest, &runsc, batch, &dead_starts);
                        results.lock().expect("no panic while held").extend(got);
                    }
                });
            }
        });
        results.into_inner().expect("no panic while held")
    }

    /// What a helper of the guest prints.
    pub fn helper(&self, guest: &str, name: &str) -> Result<String, String> {
        let Self::Sandbox { platform, .. } = self else { return Err("helpers run in sandboxes".to_owned()) };
        let state = tempdir();
        let output = Command::new(runsc())
            .arg("--root")
            .arg(&state)
            .arg(format!("--platform={platform}"))
            .args(["--network=none", "do", "--", guest, &format!("helper:{name}")])
            .stdin(Stdio::null())
            .output();
        let _ = std::fs::remove_dir_all(&state);
        let output = output.map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn run_batch(
        &self,
        guest: &str,
        runsc: &std::path::Path,
        batch: &Batch,
        dead_starts: &AtomicUsize,
    ) -> BTreeMap<String, Outcome> {
        let mut results = BTreeMap::new();
        let mut left: &[String] = &batch.cases;
        while let Some(first) = left.first() {
            if dead_starts.load(Ordering::Relaxed) > 2 {
                let end = "not run: sandboxes do not start".to_owned();
                results.extend(
                    left.iter().map(|c| (c.clone(), Outcome { lines: Vec::new(), end: end.clone() })),
                );
                break;
            }
            let run = self.run_once(guest, runsc, left);
            let done = run.outcomes.len();
            results.extend(run.outcomes);
            if done == left.len() {
                break;
            }
            // The case that was running is to blame, or the start itself.
            let blamed = &left[done];
            let lines = run.unfinished;
            results.insert(blamed.clone(), Outcome { lines, end: format!("the run broke off: {}", run.end) });
            if done == 0 && blamed == first && !run.began {
                dead_starts.fetch_add(1, Ordering::Relaxed);
            }
            left = &left[done + 1..];
        }
        results
    }

    fn run_once(&self, guest: &str, runsc: &std::path::Path, cases: &[String]) -> Run {
        let state = tempdir();
        let mut command = match self {
            Self::Native => {
                let mut command = Command::new(guest);
                command.arg("--isolate").arg("--scratch").arg(state.join("scratch"));
                command
            }
            Self::Sandbox { platform, network } => {
                let mut command = match *network {
                    "host" => {
                        let mut command = Command::new(guest);
                        command.arg("helper:own-network").arg(runsc);
                        command
                    }
                    _ => Command::new(runsc),
                };
                command.arg("--root").arg(&state).arg(format!("--platform={platform}"));
                if let Ok(log) = std::env::var("SYSCALL_TESTS_DEBUG_LOG") {
                    command.arg("--strace").arg(format!("--debug-log={log}"));
                }
                command.arg(format!("--network={network}"));
                command.args(["do", "--", guest, "--scratch", "/tmp/syscall-tests"]);
                command
            }
        };
        command.args(["--timeout", &CASE_LIMIT_S.to_string(), "--run"]).args(cases);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let run = match command.spawn() {
            Ok(child) => Run::follow(child),
            Err(error) => {
                Run { end: format!("{} does not start: {error}", runsc.display()), ..Run::default() }
            }
        };
        let _ = std::fs::remove_dir_all(&state);
        run
    }
}

/// A directory of this process's own.
fn tempdir() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("syscall-tests-{}-{count}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a temporary directory can be made");
    path
}

/// One run of the guest, cut into outcomes.
#[derive(Default)]
struct Run {
    outcomes: Vec<(String, Outcome)>,
    /// What the case said that never ended.
    unfinished: Vec<String>,
    /// Whether any case began.
    began: bool,
    /// How the process ended, with the last it wrote to standard error.
    end: String,
}

impl Run {
    fn follow(mut child: Child) -> Self {
        let (send, receive) = mpsc::channel();
        let out = child.stdout.take().expect("piped");
        let mut err = child.stderr.take().expect("piped");
        let lines = std::thread::spawn(move || {
            let mut reader = BufReader::new(out);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                if send.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = err.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut run = Self::default();
        let mut silent = false;
        let mut current: Option<String> = None;
        loop {
            match receive.recv_timeout(Duration::from_secs(SILENCE_S)) {
                Ok(line) => run.line(line, &mut current),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    silent = true;
                    let _ = child.kill();
                    break;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = child.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
        if !silent {
            let _ = lines.join();
        }
        let errors = if silent { String::new() } else { errors.join().unwrap_or_default() };
        let tail: Vec<&str> = errors.lines().rev().take(8).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        let silence = if silent { "no output any more; " } else { "" };
        run.end = format!("{silence}{status}: {}", tail.join(" | "));
        run
    }

    fn line(&mut self, line: String, current: &mut Option<String>) {
        if let Some(name) = line.strip_prefix("@begin ") {
            self.began = true;
            *current = Some(name.to_owned());
            self.unfinished.clear();
        } else if let Some(end) = line.strip_prefix("@end ") {
            let (name, status) = end.split_once(' ').unwrap_or((end, ""));
            if current.as_deref() == Some(name) {
                let lines = std::mem::take(&mut self.unfinished);
                self.outcomes.push((name.to_owned(), Outcome { lines, end: status.to_owned() }));
                *current = None;
            }
        } else {
            self.unfinished.push(line);
        }
    }
}

/// The runsc to test: `RUNSC`, or the one of this workspace, built now so that it is not stale.
fn runsc() -> PathBuf {
    if let Some(path) = std::env::var_os("RUNSC") {
        return path.into();
    }
    let guest = PathBuf::from(env!("CARGO_BIN_EXE_guest"));
    let directory = guest.parent().expect("a binary lies in a directory");
    let mut build = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    build.args(["build", "--quiet", "--package", "runsc"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if directory.ends_with("release") {
        build.arg("--release");
    }
    if !build.status().is_ok_and(|s| s.success()) {
        eprintln!("building runsc failed; the tests run what is there");
    }
    directory.join("runsc")
}
