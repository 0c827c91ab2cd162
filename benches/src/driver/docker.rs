//! How long `docker run … true` takes with runc and with runsc: a daemon of this bench's own, and both
//! runtimes by turns, so that what disturbs the machine disturbs both.

use crate::Options;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What was measured, milliseconds of each round.
#[derive(Default)]
pub struct Docker {
    /// By network: its name for Docker, then the rounds of runc and of runsc.
    pub rows: Vec<(&'static str, Vec<f64>, Vec<f64>)>,
    /// Why nothing was measured.
    pub skipped: Option<String>,
    /// What went wrong, once each.
    pub troubles: Vec<String>,
}

/// How long a daemon may take to start and to end.
const PATIENCE: Duration = Duration::from_secs(30);

struct Daemon {
    base: PathBuf,
    process: Child,
}

/// Runs all rounds. Without an engine or the rights to start it there is only a reason.
pub fn run(options: &Options) -> Docker {
    let mut result = Docker::default();
    for needed in ["/usr/sbin/dockerd", "/usr/bin/docker", "/usr/sbin/runc"] {
        if !Path::new(needed).exists() {
            result.skipped = Some(format!("{needed} is not installed"));
            return result;
        }
    }
    let daemon = match Daemon::start(options) {
        Ok(daemon) => daemon,
        Err(why) => {
            result.skipped = Some(why);
            return result;
        }
    };
    if let Err(why) = daemon.image(options) {
        result.troubles.push(why);
        return result;
    }
    // Docker's own part is the same for both; with a bridge it is larger.
    for network in ["none", "bridge"] {
        let mut times = [Vec::new(), Vec::new()];
        // The first of each is not counted: it reads the binaries.
        for round in 0..=options.rounds {
            for (runtime, times) in ["runc", "runsc"].iter().zip(&mut times) {
                match daemon.once(runtime, network) {
                    Ok(ms) if round > 0 => times.push(ms),
                    Ok(_) => {}
                    Err(why) if result.troubles.contains(&why) => {}
                    Err(why) => result.troubles.push(why),
                }
            }
        }
        let [runc, runsc] = times;
        result.rows.push((network, runc, runsc));
    }
    result
}

impl Daemon {
    /// In a network namespace of its own, with all its files below one directory.
    fn start(options: &Options) -> Result<Daemon, String> {
        let base = std::env::temp_dir().join(format!("benches-docker-{}", std::process::id()));
        let text = |e: std::io::Error| format!("{}: {e}", base.display());
        std::fs::create_dir_all(&base).map_err(text)?;
        let config = serde_json::json!({
            "runtimes": {"runsc": {"path": options.runsc,
                "runtimeArgs": [format!("--platform={}", options.platform())]}},
        });
        std::fs::write(base.join("daemon.json"), config.to_string()).map_err(text)?;
        let log = std::fs::File::create(base.join("log")).map_err(text)?;
        let copy = log.try_clone().map_err(text)?;
        let process = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "ip link set lo up; exec dockerd \"$@\"", "dockerd"])
            .arg("--config-file")
            .arg(base.join("daemon.json"))
            .arg("--data-root")
            .arg(base.join("data"))
            .arg("--exec-root")
            .arg(base.join("exec"))
            .arg("--pidfile")
            .arg(base.join("pid"))
            .args(["--ip6tables=false", "-H"])
            .arg(format!("unix://{}", base.join("sock").display()))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let mut daemon = Daemon { base, process };
        let end = Instant::now() + PATIENCE;
        loop {
            let answers = daemon.docker(&["version"]).status().is_ok_and(|s| s.success());
            if answers {
                return Ok(daemon);
            }
            let ended = daemon.process.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > end {
                let log = std::fs::read_to_string(daemon.base.join("log")).unwrap_or_default();
                return Err(format!("dockerd does not start: {}", log.lines().last().unwrap_or_default()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn docker(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command.arg("-H").arg(format!("unix://{}", self.base.join("sock").display())).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The smallest image: one program that ends at once.
    fn image(&self, options: &Options) -> Result<(), String> {
        let tar = self.base.join("image.tar");
        let packed = Command::new("tar")
            .arg("-C")
            .arg(&options.here)
            .arg("-cf")
            .arg(&tar)
            .arg("micro-true")
            .status()
            .is_ok_and(|s| s.success());
        let tar = tar.display().to_string();
        let imported = packed && self.docker(&["import", &tar, "true"]).status().is_ok_and(|s| s.success());
        imported.then_some(()).ok_or_else(|| "cannot make an image of micro-true".to_owned())
    }

    /// Milliseconds of one container from the client's start to its end.
    fn once(&self, runtime: &str, network: &str) -> Result<f64, String> {
        let (runtime, network) = (format!("--runtime={runtime}"), format!("--network={network}"));
        let mut command = self.docker(&["run", "--rm", &runtime, &network, "true", "/micro-true"]);
        let began = Instant::now();
        let output = command.stderr(Stdio::piped()).output().map_err(|e| format!("docker: {e}"))?;
        let took = began.elapsed().as_secs_f64() * 1000.0;
        if output.status.success() {
            return Ok(took);
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(format!("{runtime} {network}: {}", text.lines().next().unwrap_or_default()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").arg(&pid).status();
        let end = Instant::now() + PATIENCE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.base);
    }
}
