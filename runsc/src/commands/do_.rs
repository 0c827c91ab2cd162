//! `runsc do`: a command on this machine's files, in a sandbox. There is no bundle; the
//! configuration is made up here.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime as oci;
use sentry::boot::spec::{ByteString, CapabilitySets, RlimitSpec, UserSpec};
use serde_json::{Value, json};

use super::exec::{parse_user, set_variable};
use super::{Container, Context, OCI_VERSION, run};
use crate::cli::DoArgs;
use crate::error::NotRun;
use crate::sandbox::namespaces::Privilege;
use crate::sandbox::{self, Console};
use crate::spec::{self, Bundle, Options, Overlay, starter};
use crate::{console, log, state};

/// What the sentry has its own of, so that the gofer must not reach the host's.
const OWN: [&str; 3] = ["/proc", "/sys", "/dev"];

pub fn run(context: Context, args: &DoArgs) -> Result<u8> {
    let cwd = match &args.cwd {
        Some(cwd) => cwd.clone(),
        None => std::env::current_dir().context("the current directory is gone; use --cwd")?,
    };
    if !cwd.is_absolute() {
        bail!("--cwd: {} is not an absolute path", cwd.display());
    }
    let terminal = console::caller_has_terminal();
    let config = config(args, &cwd, terminal)?;
    let raw = serde_json::to_vec(&config)?;
    let bundle = Bundle { directory: PathBuf::from("/"), config: spec::parse::<oci::Spec>(&raw)?, raw };
    let mut plan = spec::plan(&bundle, Options { overlay: Overlay::Memory })?;
    plan.joined.own_network = context.global.network == "host";
    for source in &mut plan.sources {
        // What is mounted below the root or below a volume comes along, so that the files are all
        // there; but the host's own /proc and kin must not.
        source.hidden = OWN
            .iter()
            .map(Path::new)
            .filter_map(|own| own.strip_prefix(&source.path).ok())
            .map(|inside| Path::new("/").join(inside))
            .collect();
        if source.hidden.iter().any(|path| path == Path::new("/")) {
            bail!("--volume: {} cannot be shared", source.path.display());
        }
    }
    let process = &mut plan.container.process;
    let bytes = |text: &OsStr| ByteString(text.as_bytes().to_vec());
    process.args = args.command.iter().map(|a| bytes(a)).collect();
    process.cwd = bytes(cwd.as_os_str());
    process.env = std::env::vars_os()
        .map(|(name, value)| ByteString([name.into_vec(), b"=".to_vec(), value.into_vec()].concat()))
        .collect();
    for variable in &args.env {
        set_variable(&mut process.env, bytes(variable))?;
    }
    let privilege = Privilege::current();
    process.user = match &args.user {
        Some(user) => parse_user(user)?,
        None => UserSpec {
            uid: privilege.uid,
            gid: privilege.gid,
            additional_gids: groups(),
            umask: Some(umask()),
        },
    };
    if process.user.uid == 0 {
        let all = spec::ALL_CAPABILITIES;
        process.capabilities =
            CapabilitySets { bounding: all, effective: all, permitted: all, ..CapabilitySets::default() };
    }
    // `runsc do sh -c 'while echo y; do :; done' | head` has to end.
    process.mortal = true;
    process.rlimits = own_limits();
    process.console_size = if terminal { console::size(std::io::stdin()) } else { None };

    if let Err(error) = sweep(&context) {
        tracing::warn!("cannot look for what killed commands have left: {error:#}");
    }
    let id = format!("do-{}", std::process::id());
    let sandbox = match sandbox::create(sandbox::Request {
        global: &context.global,
        id: &id,
        bundle: &bundle.directory,
        config: &bundle.raw,
        oci_version: OCI_VERSION,
        plan,
        console: Console::Own,
        pid_file: None,
        die_with_command: true,
        extra_fds: context.preserved,
    }) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            let Some(not_run) = error.downcast_ref::<NotRun>() else { return Err(error) };
            log::fatal(&format!("{error:#}"));
            return Ok(not_run.code);
        }
    };
    let context = run::without_descriptors(&context.global);
    let container = Container::open(&context, &id)?;
    run::to_the_end(&container, &sandbox, false, true)
}

/// Removes what commands that were killed have left; their sandboxes died with them. What cannot be removed is no
/// reason not to run this one.
fn sweep(context: &Context) -> Result<()> {
    let root = state::Root::new(context.global.root.as_deref())?;
    for id in root.ids()? {
        let Some(number) = id.strip_prefix("do-").and_then(|n| n.parse::<i32>().ok()) else { continue };
        let Ok(directory) = root.open(&id) else { continue };
        let ended = match directory.read() {
            Ok(Some(record)) => !record.command.is_some_and(state::ProcessRef::is_alive),
            // Killed before it had written anything, or just begun.
            _ => state::ProcessRef::of(number).is_err(),
        };
        if ended
            && !directory.is_busy()
            && let Err(error) = super::delete::one(context, &id, true)
        {
            tracing::warn!("cannot remove what {id} has left: {error:#}");
        }
    }
    Ok(())
}

/// The limits of this process.
fn own_limits() -> Vec<RlimitSpec> {
    use rustix::process::Resource as R;
    let all = [
        R::Cpu,
        R::Fsize,
        R::Data,
        R::Stack,
        R::Core,
        R::Rss,
        R::Nproc,
        R::Nofile,
        R::Memlock,
        R::As,
        R::Locks,
        R::Sigpending,
        R::Msgqueue,
        R::Nice,
        R::Rtprio,
        R::Rttime,
    ];
    // The numbers are the places in this list.
    (0..)
        .zip(all)
        .map(|(resource, kind)| {
            let limit = rustix::process::getrlimit(kind);
            let number = |value: Option<u64>| value.unwrap_or(u64::MAX);
            RlimitSpec { resource, soft: number(limit.current), hard: number(limit.maximum) }
        })
        .collect()
}

fn config(args: &DoArgs, cwd: &Path, terminal: bool) -> Result<Value> {
    let mut mounts = starter::mounts();
    let list = mounts.as_array_mut().context("no mounts")?;
    // Work in /tmp must find its files there; what it writes stays in the sandbox all the same.
    if !cwd.starts_with("/tmp") {
        list.push(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
                         "options": ["mode=1777"]}));
    }
    for volume in &args.volume {
        let (source, destination, readonly) = parse_volume(volume)?;
        let mut options = vec!["rbind"];
        if readonly {
            options.push("ro");
        }
        list.push(json!({"destination": destination, "type": "bind", "source": source, "options": options}));
    }
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Ok(json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            // The real ones may be no text; they are put in their place later.
            "args": ["command"],
            "cwd": "/"
        },
        "root": {"path": args.rootfs, "readonly": false},
        "hostname": hostname,
        "mounts": mounts,
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
        ]}
    }))
}

fn parse_volume(text: &str) -> Result<(PathBuf, String, bool)> {
    let mut parts: Vec<&str> = text.split(':').collect();
    let readonly = match parts.last() {
        Some(&"ro") => {
            parts.pop();
            true
        }
        Some(&"rw") => {
            parts.pop();
            false
        }
        _ => false,
    };
    let (source, destination) = match parts[..] {
        [source] => (source, source),
        [source, destination] => (source, destination),
        _ => bail!("--volume: {text:?} is not SRC[:DST[:ro]]"),
    };
    let source = std::path::absolute(source).with_context(|| format!("--volume: {text:?}"))?;
    let destination = if destination.starts_with('/') {
        destination.to_owned()
    } else if parts.len() == 1 {
        source.to_str().with_context(|| format!("--volume: {text:?} is not UTF-8"))?.to_owned()
    } else {
        bail!("--volume: {destination:?} is not an absolute path");
    };
    Ok((source, destination, readonly))
}

fn groups() -> Vec<u32> {
    rustix::process::getgroups().unwrap_or_default().iter().map(|g| g.as_raw()).collect()
}

/// The caller's; it can only be read by setting it.
fn umask() -> u32 {
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::umask(mask);
    mask.as_raw_mode()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let parse = |text| parse_volume(text).map(|(s, d, r)| (s.display().to_string(), d, r));
        assert_eq!(parse("/a").unwrap(), ("/a".into(), "/a".into(), false));
        assert_eq!(parse("/a:/b").unwrap(), ("/a".into(), "/b".into(), false));
        assert_eq!(parse("/a:/b:ro").unwrap(), ("/a".into(), "/b".into(), true));
        assert_eq!(parse("/a:ro").unwrap(), ("/a".into(), "/a".into(), true));
        assert!(parse("/a:b").is_err());
        assert!(parse("/a:/b:/c").is_err());
    }
}
