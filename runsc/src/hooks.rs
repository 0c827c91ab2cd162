//! OCI hooks: programs of the host that run at points of a container's life, with the container's
//! state on their standard input.
//!
//! All run in the runtime's namespaces and in the bundle directory, except createContainer hooks:
//! those get the network, IPC and UTS namespaces of the sandbox's process. (runc also shows them the
//! container's mounts; here those exist only inside the sandbox.) startContainer hooks are
//! programs of the image and are run by the sentry.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;
use sentry::boot::spec::HookSpec;

use crate::sandbox::namespaces::Visit;

/// Most of a hook's output that is repeated in an error.
const OUTPUT_SHOWN: u64 = 4096;

/// The state document for hooks.
pub fn state(
    version: &str,
    id: &str,
    status: &str,
    pid: Option<i32>,
    bundle: &Path,
    annotations: &std::collections::BTreeMap<String, String>,
) -> String {
    let mut state = serde_json::json!({
        "ociVersion": version,
        "id": id,
        "status": status,
        "bundle": bundle,
    });
    if let Some(pid) = pid {
        state["pid"] = pid.into();
    }
    if !annotations.is_empty() {
        state["annotations"] = serde_json::json!(annotations);
    }
    state.to_string()
}

/// Runs hooks one after another; the first failure ends it.
pub fn run(
    kind: &str,
    hooks: Option<&Vec<oci::Hook>>,
    state: &str,
    bundle: &Path,
    sandbox_pid: Option<i32>,
) -> Result<()> {
    for (index, hook) in hooks.into_iter().flatten().enumerate() {
        one(hook, state, bundle, sandbox_pid)
            .with_context(|| format!("error running {kind} hook #{index}"))?;
    }
    Ok(())
}

fn one(hook: &oci::Hook, state: &str, bundle: &Path, sandbox_pid: Option<i32>) -> Result<()> {
    let path = hook.path();
    if !path.is_absolute() {
        bail!("{}: the path of a hook must be absolute", path.display());
    }
    let mut command = Command::new(path);
    if let Some((name, args)) = hook.args().as_ref().and_then(|args| args.split_first()) {
        command.arg0(name).args(args);
    }
    command.env_clear();
    for variable in hook.env().iter().flatten() {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        command.env(name, value);
    }
    command.current_dir(bundle).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());

    let spawned = match sandbox_pid {
        // The child inherits the namespaces that this process visits for a moment.
        Some(pid) => {
            let visit = Visit::network_ipc_uts(pid)?;
            let spawned = command.spawn();
            visit.leave()?;
            spawned
        }
        None => command.spawn(),
    };
    let mut child = spawned.with_context(|| path.display().to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it.
        let _ = stdin.write_all(state.as_bytes());
    }
    let mut stdout = child.stdout.take();
    let mut stderr = child.stderr.take();

    let limit = hook.timeout().filter(|&t| t > 0).and_then(|t| u64::try_from(t).ok());
    let end = limit.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut output = Vec::new();
    let mut errors = Vec::new();
    // Output is read while it comes, or a chatty hook would block on a full pipe.
    while stdout.is_some() || stderr.is_some() {
        let mut interests = Vec::new();
        if let Some(pipe) = &stdout {
            interests.push(hostsys::socket::Interest::read(pipe.as_fd()));
        }
        if let Some(pipe) = &stderr {
            interests.push(hostsys::socket::Interest::read(pipe.as_fd()));
        }
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{}: no end after {} s, killed", path.display(), limit.unwrap_or(0));
        }
        hostsys::socket::wait(&mut interests, left)?;
        let mut readable = interests.iter().map(|i| i.readable).collect::<Vec<_>>().into_iter();
        if stdout.is_some() && readable.next() == Some(true) {
            take(&mut stdout, &mut output);
        }
        if stderr.is_some() && readable.next() == Some(true) {
            take(&mut stderr, &mut errors);
        }
    }
    loop {
        let status = match end {
            None => Some(child.wait()?),
            Some(_) => child.try_wait()?,
        };
        match status {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!(
                "{}: {status}, stdout: {}, stderr: {}",
                path.display(),
                String::from_utf8_lossy(&output).trim_end(),
                String::from_utf8_lossy(&errors).trim_end()
            ),
            None if end.is_some_and(|end| Instant::now() >= end) => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("{}: no end after {} s, killed", path.display(), limit.unwrap_or(0));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Reads what a pipe has; closes it at its end. Only the first part is kept.
fn take(pipe: &mut Option<impl Read>, kept: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    match pipe.as_mut().map(|p| p.read(&mut buffer)) {
        Some(Ok(n)) if n > 0 => {
            let room = usize::try_from(OUTPUT_SHOWN).unwrap_or(0).saturating_sub(kept.len());
            kept.extend(&buffer[..n.min(room)]);
        }
        _ => *pipe = None,
    }
}

/// startContainer hooks as the sentry gets them.
pub fn guest_hooks(hooks: Option<&Vec<oci::Hook>>, state: &str) -> Vec<HookSpec> {
    let bytes = |list: &Option<Vec<String>>| list.iter().flatten().map(|s| s.as_str().into()).collect();
    hooks
        .into_iter()
        .flatten()
        .map(|hook| HookSpec {
            path: hook.path().to_string_lossy().into_owned().into(),
            args: bytes(hook.args()),
            env: bytes(hook.env()),
            timeout: hook.timeout().and_then(|t| u32::try_from(t).ok()).filter(|&t| t > 0),
            state: state.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(json: serde_json::Value) -> Vec<oci::Hook> {
        vec![serde_json::from_value(json).unwrap()]
    }

    #[test]
    fn hooks_get_the_state_and_fail_loudly() {
        let sh = |script: &str, timeout: u32| {
            hook(serde_json::json!({
                "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["K=v"], "timeout": timeout
            }))
        };
        let run_one =
            |hooks: &Vec<oci::Hook>| run("prestart", Some(hooks), "{\"id\":1}", Path::new("/"), None);
        run_one(&sh("test \"$(cat)\" = '{\"id\":1}' && test $K = v && test $PWD = /", 0)).unwrap();
        let error = format!("{:#}", run_one(&sh("echo out; echo err >&2; exit 3", 0)).unwrap_err());
        assert!(error.starts_with("error running prestart hook #0: /bin/sh: exit status: 3"), "{error}");
        assert!(error.contains("stdout: out, stderr: err"), "{error}");
        let begin = Instant::now();
        let error = format!("{:#}", run_one(&sh("exec sleep 30", 1)).unwrap_err());
        assert!(error.contains("killed") && begin.elapsed() < Duration::from_secs(10), "{error}");
        let error = format!("{:#}", run_one(&hook(serde_json::json!({"path": "/no/hook"}))).unwrap_err());
        assert!(error.contains("/no/hook"), "{error}");
    }
}
