//! The Debian root file system and the test tools in it, made once and kept.

use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGES: &str =
    "python3,libpython3.11-testsuite,gcc,libc6-dev,make,git,perl,sqlite3,procps,busybox,ncurses-bin";

/// Tools from the cargo registry: package, version.
const TOOLS: &[(&str, &str)] = &[("pjdfstest", "^0.2"), ("fsx", "^0.3")];

fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let tail: Vec<&str> = text.lines().rev().take(5).collect();
            Err(format!(
                "{shown}: {}: {}",
                output.status,
                tail.into_iter().rev().collect::<Vec<_>>().join(" | ")
            ))
        }
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// Where things are kept: beside the build's output.
pub fn store() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    target.join("apps")
}

/// The root file system, complete.
pub fn prepare() -> Result<PathBuf, String> {
    let root = std::env::var_os("APPS_ROOTFS").map_or_else(|| store().join("rootfs"), PathBuf::from);
    let mark = root.with_extension("complete");
    if !mark.exists() {
        eprintln!("making the Debian root file system in {}, once", root.display());
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.parent().unwrap_or(&root)).map_err(|e| e.to_string())?;
        run(Command::new("mmdebstrap")
            .args(["--variant=minbase", "--quiet"])
            .arg(format!("--include={PACKAGES}"))
            .arg("bookworm")
            .arg(&root))?;
        for directory in ["apps", "bind", "opt/tools"] {
            std::fs::create_dir_all(root.join(directory)).map_err(|e| e.to_string())?;
        }
        std::fs::write(&mark, "").map_err(|e| e.to_string())?;
    }
    Ok(root)
}

/// Installs a tool that comes from the registry, once. It is built as this workspace is: statically.
pub fn tool(root: &Path, wanted: &str) -> Result<(), String> {
    for (package, version) in TOOLS.iter().filter(|(package, _)| *package == wanted) {
        let place = root.join("opt/tools").join(package);
        if place.exists() {
            continue;
        }
        eprintln!("installing {package} {version}");
        let into = store().join("tools");
        run(Command::new(option_env!("CARGO").unwrap_or("cargo"))
            .args(["install", "--quiet", "--locked", "--version", version, package, "--root"])
            .arg(&into)
            .env_remove("CARGO_TARGET_DIR")
            .current_dir(env!("CARGO_MANIFEST_DIR")))?;
        std::fs::copy(into.join("bin").join(package), &place).map_err(|e| e.to_string())?;
    }
    Ok(())
}
