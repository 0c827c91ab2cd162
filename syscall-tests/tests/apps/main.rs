//! Real programs in a Debian root file system: each script of `apps/` runs on the host kernel (chroot
//! in namespaces of its own) and in the sandbox, and must print the same and end the same way.
//! CPython's and Go's own tests, pjdfstest and fsx are compared case by case.
//!
//! The root file system is made once with mmdebstrap, in `APPS_ROOTFS` or `target/apps/rootfs`.
//! Environment: `RUNSC`, `APPS_PLATFORMS` (default `ptrace`; `native` compares the host with itself).

mod outside;
mod place;
mod rootfs;
mod suites;
mod terminal;

use libtest_mimic::{Arguments, Failed, Trial};
use place::{Place, Run};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of a folder's scripts.
fn scripts(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder of the scripts")
        .flatten()
        .filter_map(|e| e.file_name().to_str().and_then(|n| n.strip_suffix(".sh")).map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// What all trials share: the root file system, made when the first needs it, and what commands did on the host.
#[derive(Default)]
pub struct Shared {
    ready: OnceLock<Result<PathBuf, String>>,
    tools: Mutex<()>,
    native: Mutex<HashMap<String, Arc<OnceLock<Run>>>>,
}

impl Shared {
    /// The root file system's path.
    fn rootfs(&self) -> Result<PathBuf, Failed> {
        self.ready.get_or_init(rootfs::prepare).clone().map_err(Failed::from)
    }

    /// What the command of that name does on the host: run once, whatever the number of platforms.
    fn native(&self, name: &str, root: &Path, command: &[String], limit: Duration) -> Run {
        let slot = Arc::clone(self.native.lock().expect("no panics").entry(name.to_owned()).or_default());
        slot.get_or_init(|| Place::Native.run(root, command, limit)).clone()
    }

    /// The root file system with that tool in it.
    fn with_tool(&self, tool: &str) -> Result<PathBuf, Failed> {
        let root = self.rootfs()?;
        let _one_at_a_time = self.tools.lock();
        rootfs::tool(&root, tool).map_err(Failed::from)?;
        Ok(root)
    }
}

fn compare(native: &Run, sandbox: &Run) -> Result<(), Failed> {
    if native.status != "exit status: 0" {
        return Err(format!("fails on the host itself: {}\n{}", native.status, native.tail(30)).into());
    }
    if native.output == sandbox.output && native.status == sandbox.status {
        return Ok(());
    }
    let mut text = format!("host: {}; sandbox: {}\n", native.status, sandbox.status);
    let (a, b): (Vec<&str>, Vec<&str>) = (native.output.lines().collect(), sandbox.output.lines().collect());
    let same = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    text.push_str(&format!("the first {same} lines are equal\n"));
    a.iter().skip(same).take(15).for_each(|l| text.push_str(&format!("- {l}\n")));
    b.iter().skip(same).take(15).for_each(|l| text.push_str(&format!("+ {l}\n")));
    Err(text.into())
}

fn main() {
    let mut args = Arguments::from_args();
    // Most of the time of most suites is sleep.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    args.test_threads.get_or_insert(2 * cores);
    let platforms = std::env::var("APPS_PLATFORMS").unwrap_or_else(|_| "ptrace".to_owned());
    let shared = Arc::new(Shared::default());
    let mut trials = Vec::new();
    let platforms: Vec<&str> = platforms.split(',').collect();
    // What takes longest comes first.
    for platform in &platforms {
        trials.extend(suites::trials(platform, &shared));
    }
    for platform in &platforms {
        for script in scripts(&package().join("apps")) {
            let (shared, place) = (Arc::clone(&shared), Place::of(platform));
            trials.push(Trial::test(format!("{platform}::app::{script}"), move || {
                let root = shared.rootfs()?;
                // Each command has to succeed on the host: a tool that fails in the same way in both places tests nothing. (In
                // `a && b` a failure of `a` is no end, so scripts have none.)
                let script_file = format!("/apps/{script}.sh");
                let command = ["/bin/bash", "-e", "-o", "pipefail", &script_file].map(str::to_owned);
                let limit = Duration::from_secs(300);
                let native = shared.native(&script, &root, &command, limit);
                compare(&native, &place.run(&root, &command, limit))
            }));
        }
        trials.extend(outside::trials(platform, &shared));
        trials.extend(terminal::trials(platform, &shared));
    }
    libtest_mimic::run(&args, trials).exit();
}
