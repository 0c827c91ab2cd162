//! Scripts that run outside, on the host, and start commands on the host or by `runsc do`: what such a command does
//! to files and pipes that it was given must be the same.

use crate::Shared;
use crate::place::{Place, Run, follow};
use crate::{compare, package, scripts};
use libtest_mimic::{Failed, Trial};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

fn run(place: &Place, root: &Path, script: &Path) -> Result<Run, Failed> {
    let scene = place.scene(root, &[], false);
    // Whoever runs the tests may ignore SIGHUP, and a shell cannot undo that.
    let mut bash = Command::new("env");
    bash.args(["--default-signal=HUP", "bash"]);
    // Where the sandbox can write as well, and the names are the same for both.
    bash.arg(script).current_dir(scene.work.join("bind"));
    bash.env("RUN", "");
    if !matches!(place, Place::Native) {
        let runsc = scene.runsc();
        let words: Vec<_> = std::iter::once(runsc.get_program()).chain(runsc.get_args()).collect();
        let words: Option<Vec<_>> = words.into_iter().map(|w| w.to_str()).collect();
        bash.env("RUN", format!("{} do", words.ok_or("a path is not UTF-8")?.join(" ")));
    }
    Ok(follow(bash, LIMIT, || ()))
}

/// The trials of a platform.
pub fn trials(platform: &str, shared: &Arc<Shared>) -> Vec<Trial> {
    let folder = package().join("apps/outside");
    let trial = |name: String| {
        let (shared, place) = (Arc::clone(shared), Place::of(platform));
        let script = folder.join(format!("{name}.sh"));
        Trial::test(format!("{platform}::outside::{name}"), move || {
            let root = shared.rootfs()?;
            compare(&run(&Place::Native, &root, &script)?, &run(&place, &root, &script)?)
        })
    };
    scripts(&folder).into_iter().map(trial).collect()
}
