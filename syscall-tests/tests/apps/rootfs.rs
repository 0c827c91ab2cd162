//! The Debian root file system and the test tools in it, made once and kept.

use crate::suites::GO;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGES: &str =
    "python3,libpython3.11-testsuite,gcc,libc6-dev,make,git,perl,sqlite3,procps,busybox,ncurses-bin,netbase";

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
    if !std::fs::read_to_string(&mark).is_ok_and(|packages| packages == PACKAGES) {
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
        std::fs::write(&mark, PACKAGES).map_err(|e| e.to_string())?;
    }
    // debootstrap makes none, and the suites bind and connect to it.
    std::fs::write(root.join("etc/hosts"), "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n")
        .map_err(|e| e.to_string())?;
    Ok(root)
}

/// Makes the tests of packages of Go's library, each in a copy of its source, since they read files of it. They are
/// linked statically.
fn go(root: &Path) -> Result<(), String> {
    let place = root.join("opt/tools/go");
    let mark = place.join("complete");
    if mark.exists() {
        return Ok(());
    }
    eprintln!("making the tests of {}", GO.join(", "));
    let command = |subcommand: &str| {
        let mut go = Command::new("go");
        go.arg(subcommand).env("CGO_ENABLED", "0");
        go
    };
    let output = command("env").arg("GOROOT").output().map_err(|error| format!("go env: {error}"))?;
    let source = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("src");
    for package in GO {
        let (from, into) = (source.join(package), place.join(package));
        std::fs::create_dir_all(&into).map_err(|e| e.to_string())?;
        run(Command::new("cp").arg("-a").arg(from.join(".")).arg(&into))?;
        run(command("test").arg("-c").arg("-o").arg(into.join("tests")).arg(package))?;
    }
    run(Command::new("cp").arg("-a").arg(source.join("testdata")).arg(&place))?;
    std::fs::write(&mark, "").map_err(|e| e.to_string())
}

/// Installs a tool, once. One that comes from the registry is built as this workspace is: statically.
pub fn tool(root: &Path, wanted: &str) -> Result<(), String> {
    if wanted == "go" {
        return go(root);
    }
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
