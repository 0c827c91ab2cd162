//! `runsc install` and `runsc uninstall`: an entry for this runtime in the configuration of Docker or
//! containerd. What else is there stays; doing it twice changes nothing.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::print;
use crate::cli::{Engine, InstallArgs, UninstallArgs};

const BEGIN: &str = "# Begin of what runsc install has written for";
const END: &str = "# End of what runsc install has written for";

pub fn install(args: &InstallArgs) -> Result<u8> {
    let binary = match &args.path {
        Some(path) => path.clone(),
        None => std::env::current_exe().context("cannot tell where this program is; give --path")?,
    };
    if !binary.is_absolute() {
        bail!("--path: {} is not absolute", binary.display());
    }
    check_name(&args.runtime)?;
    let file = args.config.clone().unwrap_or_else(|| default_file(args.engine));
    let old = read(&file)?;
    let new = match args.engine {
        Engine::Docker => docker(&old, &args.runtime, Some((&binary, &args.arguments)), &file)?,
        Engine::Containerd => {
            if !args.arguments.is_empty() {
                bail!("containerd passes no arguments to a runtime; only Docker does");
            }
            containerd(&old, &args.runtime, Some(&binary), &file)?
        }
    };
    finish(&file, &old, &new, args.dry_run, args.engine)
}

pub fn uninstall(args: &UninstallArgs) -> Result<u8> {
    check_name(&args.runtime)?;
    let file = args.config.clone().unwrap_or_else(|| default_file(args.engine));
    let old = read(&file)?;
    let new = match args.engine {
        Engine::Docker => docker(&old, &args.runtime, None, &file)?,
        Engine::Containerd => containerd(&old, &args.runtime, None, &file)?,
    };
    finish(&file, &old, &new, args.dry_run, args.engine)
}

fn default_file(engine: Engine) -> PathBuf {
    match engine {
        Engine::Docker => "/etc/docker/daemon.json".into(),
        Engine::Containerd => "/etc/containerd/config.toml".into(),
    }
}

/// Names become keys of TOML.
fn check_name(name: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if name.is_empty() || !name.bytes().all(plain) {
        bail!("--runtime: {name:?}: only letters, digits, _ and - are allowed");
    }
    Ok(())
}

/// An absent file is an empty one.
fn read(file: &Path) -> Result<String> {
    match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.with_context(|| file.display().to_string()),
    }
}

fn finish(file: &Path, old: &str, new: &str, dry_run: bool, engine: Engine) -> Result<u8> {
    if dry_run {
        print(new)?;
        return Ok(0);
    }
    if old == new {
        print(&format!("{}: nothing to change\n", file.display()))?;
        return Ok(0);
    }
    write(file, new).with_context(|| format!("cannot write {}", file.display()))?;
    let reload = match engine {
        Engine::Docker if keys(old).is_subset(&keys(new)) => "systemctl reload docker",
        // At a reload dockerd goes on with what the file no longer names.
        Engine::Docker => "systemctl restart docker",
        Engine::Containerd => "systemctl restart containerd",
    };
    print(&format!("{}: changed; `{reload}` makes it known\n", file.display()))?;
    Ok(0)
}

/// What a daemon.json sets.
fn keys(json: &str) -> BTreeSet<String> {
    serde_json::from_str::<Map<String, Value>>(json).unwrap_or_default().into_iter().map(|(k, _)| k).collect()
}

/// In one step, with the mode that the file had.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mode = file.metadata().map_or(0o644, |m| m.permissions().mode() & 0o777);
    // Through a link, as an editor would.
    let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let mut new =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&name)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    std::fs::rename(&name, &file)
}

/// daemon.json with the entry, or without it.
fn docker(old: &str, name: &str, entry: Option<(&Path, &[String])>, file: &Path) -> Result<String> {
    let mut config: Map<String, Value> = if old.trim().is_empty() {
        Map::new()
    } else {
        serde_json::from_str(old).with_context(|| file.display().to_string())?
    };
    let before = config.clone();
    match entry {
        Some((binary, arguments)) => {
            let runtimes = config.entry("runtimes").or_insert_with(|| json!({}));
            let runtimes = runtimes
                .as_object_mut()
                .with_context(|| format!("{}: \"runtimes\" is no object", file.display()))?;
            let mut runtime = json!({ "path": binary });
            if !arguments.is_empty() {
                runtime["runtimeArgs"] = json!(arguments);
            }
            runtimes.insert(name.to_owned(), runtime);
        }
        None => {
            let runtimes = config.get_mut("runtimes").and_then(Value::as_object_mut);
            let empty = runtimes.is_some_and(|r| r.remove(name).is_some() && r.is_empty());
            if empty {
                config.remove("runtimes");
            }
            if config.get("default-runtime").and_then(Value::as_str) == Some(name) {
                config.remove("default-runtime");
            }
        }
    }
    // The file's own layout stays if nothing is to be changed.
    if config == before {
        return Ok(old.to_owned());
    }
    Ok(format!("{}\n", serde_json::to_string_pretty(&config)?))
}

/// config.toml with the entry, or without it. It is edited as text, so that comments stay.
fn containerd(old: &str, name: &str, binary: Option<&Path>, file: &Path) -> Result<String> {
    let (begin, end) = (format!("{BEGIN} {name}"), format!("{END} {name}"));
    let mut kept = String::new();
    let mut inside = false;
    for line in old.lines() {
        if line.trim_end() == begin {
            inside = true;
        } else if line.trim_end() == end {
            inside = false;
        } else if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    if inside {
        bail!("{}: {begin:?} has no end", file.display());
    }
    let Some(binary) = binary else {
        let rest = kept.trim_end_matches('\n').to_owned() + if kept.is_empty() { "" } else { "\n" };
        // What was written beside this entry may be needed by another one.
        let needs = rest.lines().find(|l| l.starts_with(BEGIN)).map(str::to_owned);
        let beside = default_beside(&rest, name);
        return Ok(match needs {
            Some(first) => rest.replacen(&format!("{first}\n"), &format!("{first}\n{beside}"), 1),
            None => rest,
        });
    };
    let version =
        kept.lines().map(str::trim).find_map(|l| l.strip_prefix("version")?.trim().strip_prefix('='));
    let plugin = match version.map(|v| v.split('#').next().unwrap_or("").trim()) {
        Some("3") => "io.containerd.cri.v1.runtime",
        Some("2") => "io.containerd.grpc.v1.cri",
        None if kept.trim().is_empty() => {
            kept = "version = 2\n".to_owned();
            "io.containerd.grpc.v1.cri"
        }
        _ => bail!("{}: only versions 2 and 3 of the configuration are supported", file.display()),
    };
    let section = |quote: char| format!("[plugins.{quote}{plugin}{quote}.containerd.runtimes.{name}]");
    if kept.lines().map(str::trim).any(|l| l == section('"') || l == section('\'')) {
        bail!("{}: there is a section for runtime {name} that runsc install has not written", file.display());
    }
    let binary = binary.to_str().filter(|b| !b.contains(['"', '\\'])).context("--path: not plain text")?;
    let header = section('"');
    let beside = default_beside(&kept, name);
    let options = header.replace(&format!("runtimes.{name}]"), &format!("runtimes.{name}.options]"));
    Ok(format!(
        "{}\n{begin}\n{beside}{header}\n  runtime_type = \"io.containerd.runc.v2\"\n{options}\n  BinaryName = \"{binary}\"\n{end}\n",
        kept.trim_end_matches('\n').to_owned() + "\n",
    ))
}

/// The section of containerd's default runtime, where the file has to name it beside `name`. In version 2 (containerd up to 1.7) the
/// runtimes of the file take the place of all that containerd has by itself, and without its default one the whole CRI plugin
/// does not start. A default that the file sets is the administrator's to name.
fn default_beside(config: &str, name: &str) -> String {
    let text = || config.lines().map(|l| l.split('#').next().unwrap_or("").trim().replace('\'', "\""));
    let value = |key: &str| {
        text().find_map(|l| {
            Some(l.strip_prefix(key)?.trim().strip_prefix('=')?.trim().trim_matches('"').to_owned())
        })
    };
    let default = value("default_runtime_name").unwrap_or_else(|| "runc".to_owned());
    let section = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc";
    let named = text().any(|l| l.strip_prefix(section).is_some_and(|l| l.starts_with([']', '.'])));
    if value("version").as_deref() != Some("2") || default != "runc" || name == "runc" || named {
        return String::new();
    }
    format!("{section}]\n  runtime_type = \"io.containerd.runc.v2\"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_keeps_what_is_there() {
        let file = Path::new("daemon.json");
        let binary = Path::new("/usr/local/bin/runsc");
        let old = r#"{"log-level": "warn", "runtimes": {"crun": {"path": "crun"}}}"#;
        let new = docker(old, "runsc", Some((binary, &["--debug".to_owned()])), file).unwrap();
        let value: Value = serde_json::from_str(&new).unwrap();
        assert_eq!(
            value["runtimes"]["runsc"],
            json!({"path": "/usr/local/bin/runsc", "runtimeArgs": ["--debug"]})
        );
        assert_eq!(
            (&value["log-level"], &value["runtimes"]["crun"]["path"]),
            (&json!("warn"), &json!("crun"))
        );
        assert_eq!(docker(&new, "runsc", Some((binary, &["--debug".to_owned()])), file).unwrap(), new);
        let without: Value = serde_json::from_str(&docker(&new, "runsc", None, file).unwrap()).unwrap();
        assert_eq!(without, serde_json::from_str::<Value>(old).unwrap());
        assert_eq!(docker("", "runsc", None, file).unwrap(), "");
        assert!(docker("[]", "runsc", None, file).is_err());
    }

    #[test]
    fn containerd_keeps_what_is_there() {
        let file = Path::new("config.toml");
        let binary = Some(Path::new("/usr/local/bin/runsc"));
        let old = "version = 2 # as always\n# mine\n[plugins]\n";
        let new = containerd(old, "runsc", binary, file).unwrap();
        assert!(
            new.starts_with(old)
                && new.contains("runtimes.runsc.options]\n  BinaryName = \"/usr/local/bin/runsc\"")
        );
        assert_eq!(containerd(&new, "runsc", binary, file).unwrap(), new);
        assert_eq!(containerd(&new, "runsc", None, file).unwrap(), old);
        assert!(containerd("", "runsc", binary, file).unwrap().starts_with("version = 2\n"));
        assert!(
            containerd("version = 3\n", "r", binary, file).unwrap().contains("io.containerd.cri.v1.runtime")
        );
        assert!(containerd("version = 1\n", "r", binary, file).is_err());
        // Debian's file names no runtime: containerd's own default has to be there, once.
        let default = "containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n";
        assert_eq!(new.matches(default).count(), 1);
        let two = containerd(&new, "second", binary, file).unwrap();
        assert_eq!(two.matches(default).count(), 1);
        let second = containerd(&two, "runsc", None, file).unwrap();
        assert_eq!(second.matches(default).count(), 1, "the other one needs it");
        assert_eq!(containerd(&second, "second", None, file).unwrap(), old);
        let named = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\n";
        for has_one in [named, "version = 2\ndefault_runtime_name = \"crun\"\n", "version = 3\n"] {
            assert!(!containerd(has_one, "runsc", binary, file).unwrap().contains(default), "{has_one}");
        }
        let like_it = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc-old]\n";
        assert!(containerd(like_it, "runsc", binary, file).unwrap().contains(default));
        let theirs = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runsc]\n";
        assert!(containerd(theirs, "runsc", binary, file).is_err());
    }
}
