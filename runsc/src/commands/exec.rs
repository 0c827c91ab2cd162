//! `runsc exec`

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context as _, Result, bail};
use hostsys::process::{ForkOptions, fork_run};
use oci_spec::runtime as oci;
use rustix::fs::{Mode, OFlags};
use sentry::boot::spec::{ByteString, ProcessSpec, UserSpec};
use sentry::control::Stdio;
use sentry::control::protocol::{Operation, Reply, SignalTarget, WaitTarget};
use sentry::control::server::stdio_fds;

use super::{Container, Context, Status};
use crate::cli::ExecArgs;
use crate::control::Client;
use crate::{cgroup, console, sandbox, spec};

pub fn exec(context: Context, args: &ExecArgs) -> Result<u8> {
    let container = Container::open(&context, &args.id)?;
    match container.status() {
        Status::Running => {}
        Status::Paused if args.ignore_paused => {}
        Status::Paused => bail!("cannot exec in a paused container (use --ignore-paused to override)"),
        Status::Stopped => bail!("cannot exec in a stopped container"),
        Status::Creating | Status::Created => bail!("cannot exec in a container that is not running"),
    }
    let process = process(&container, args)?;
    let terminal = process.terminal;
    match (&args.console_socket, terminal, args.detach) {
        (None, true, true) => {
            bail!("cannot allocate tty if runc will detach without setting console socket")
        }
        (Some(_), false, _) => bail!("--console-socket: the process has no terminal"),
        (Some(_), true, false) => bail!("--console-socket: only with --detach"),
        _ => {}
    }

    let null =
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("/dev/null")?;
    let (stdio, master) = if terminal {
        let own = || args.console_socket.is_none().then(|| console::size(std::io::stdin())).flatten();
        let pty = console::open_pty(process.console_size.or_else(own))?;
        match &args.console_socket {
            Some(path) => {
                console::send(path, &pty.master)?;
                (Stdio::Terminal(pty.replica), None)
            }
            None => (Stdio::Terminal(pty.replica), Some(pty.master)),
        }
    } else {
        (console::own_streams(&null)?, None)
    };

    let client = container.client()?;
    let mut fds: Vec<BorrowedFd<'_>> = stdio_fds(&stdio);
    fds.extend(context.preserved.iter().map(AsFd::as_fd));
    let extra_fds = u32::try_from(context.preserved.len())?;
    let signals = if args.detach { None } else { Some(console::take_signals()?) };
    let pid = match client.ask(Operation::Exec { process: Box::new(process), extra_fds }, &fds)? {
        Reply::Started { pid } => pid,
        other => bail!("the sandbox gave an answer that does not fit: {other:?}"),
    };
    if args.detach {
        client.ask_hold(WaitTarget::Process(pid))?;
    } else {
        client.ask_wait(WaitTarget::Process(pid))?;
    }

    let Some(signals) = signals else {
        return detach(&container, args, client, pid, stdio, null);
    };
    drop(stdio);
    if let Some(path) = &args.pid_file {
        sandbox::write_pid_file(path, i32::try_from(std::process::id())?)?;
    }
    console::attend(
        client.as_fd(),
        &signals,
        master.as_ref(),
        |signal| pass_on(&container, pid, signal),
        |size| {
            if let Err(error) = container.client().and_then(|c| c.resize(pid, size)) {
                tracing::debug!("cannot pass on the window's size: {error:#}");
            }
        },
    )?;
    Ok(client.exited()?.shell_code())
}

fn pass_on(container: &Container, pid: u32, signal: i32) {
    let target = SignalTarget::Process(pid);
    if let Err(error) = container.client().and_then(|c| c.signal(target, signal)) {
        tracing::debug!("cannot pass on signal {signal}: {error:#}");
    }
}

/// Leaves a process behind that stands for the one in the container on the host: its number goes
/// into the pid-file, and it ends with the same status.
fn detach(
    container: &Container,
    args: &ExecArgs,
    client: Client,
    pid: u32,
    stdio: Stdio,
    null: OwnedFd,
) -> Result<u8> {
    let terminal = match stdio {
        Stdio::Terminal(terminal) => Some(terminal),
        Stdio::Streams { .. } => None,
    };
    let mut keep = vec![client.as_fd().as_raw_fd(), null.as_raw_fd()];
    keep.extend(terminal.iter().map(AsRawFd::as_raw_fd));
    keep.extend([0, 1, 2]);
    let directory = container.directory.clone();
    let id = container.record.id.clone();
    let child = fork_run(ForkOptions::default(), move || {
        if hostsys::fd::close_all_but(&keep).is_err() {
            return 255;
        }
        crate::log::become_sandbox(None, crate::log::Format::Text, false);
        for number in 0..3 {
            let _ = hostsys::fd::dup_onto(&null, number);
        }
        drop(null);
        // A session of its own, so that the process's terminal can be its controlling one.
        let _ = rustix::process::setsid();
        let _ = hostsys::process::set_name("runsc-exec");
        sandbox::stand_in::StandIn { client: &client, directory: &directory, id: &id, pid, cgroups: &[] }
            .run(terminal)
    })
    .context("cannot start the process that waits")?;
    if !container.record.cgroups.is_empty() {
        // With the others, so that one place counts them and sweeps them up.
        cgroup::join(&container.record.cgroups, child.pid);
    }
    if let Some(path) = &args.pid_file {
        sandbox::write_pid_file(path, child.pid)?;
    }
    Ok(0)
}

/// What is to run: the given process file, or the container's own process with the flags' changes.
fn process(container: &Container, args: &ExecArgs) -> Result<ProcessSpec> {
    for (flag, given) in [
        ("--process-label", args.process_label.as_deref().is_some_and(|l| !l.is_empty())),
        ("--apparmor", args.apparmor.as_deref().is_some_and(|p| !p.is_empty())),
        ("--cgroup", !args.cgroup.is_empty()),
    ] {
        if given {
            bail!("{flag}: not supported");
        }
    }
    if let Some(path) = &args.process {
        let json = std::fs::read(path).with_context(|| format!("--process {}", path.display()))?;
        let process: oci::Process =
            spec::parse(&json).with_context(|| format!("--process {}", path.display()))?;
        let mut process = spec::process_spec(&process, "process")?;
        // conmon names the terminal on the command line as well.
        process.terminal |= args.tty;
        return Ok(process);
    }
    if args.command.is_empty() {
        bail!("process args cannot be empty: give a command or --process FILE");
    }
    let config: oci::Spec = spec::parse(&container.directory.read_config()?)?;
    let base = config.process().as_ref().context("the container's configuration has no process")?;
    let mut process = spec::process_spec(base, "process")?;
    let bytes = |text: &OsStr| ByteString(text.as_bytes().to_vec());
    process.args = args.command.iter().map(|a| bytes(a)).collect();
    process.terminal = args.tty;
    process.console_size = None;
    if let Some(cwd) = &args.cwd {
        if !cwd.starts_with('/') {
            bail!("--cwd: {cwd:?} is not an absolute path");
        }
        process.cwd = cwd.as_str().into();
    }
    for variable in &args.env {
        set_variable(&mut process.env, bytes(variable))?;
    }
    if let Some(user) = &args.user {
        let umask = process.user.umask;
        process.user = UserSpec { umask, ..parse_user(user)? };
    }
    process.user.additional_gids.extend(&args.additional_gids);
    process.no_new_privileges |= args.no_new_privs;
    for name in &args.cap {
        let bit = spec::capability_bit(name, "--cap")?;
        let sets = &mut process.capabilities;
        sets.bounding |= bit;
        sets.permitted |= bit;
        sets.effective |= bit;
        // Never inheritable or ambient (CVE-2022-29162): what a program gains by that, the
        // container's own processes would not have.
    }
    Ok(process)
}

/// Adds `NAME=value`, in the place of an older value.
pub fn set_variable(env: &mut Vec<ByteString>, variable: ByteString) -> Result<()> {
    let name_length = variable
        .as_bytes()
        .iter()
        .position(|&b| b == b'=')
        .filter(|&length| length > 0)
        .with_context(|| format!("--env: {variable:?} is not NAME=value"))?;
    let name = variable.as_bytes()[..=name_length].to_vec();
    env.retain(|old| !old.as_bytes().starts_with(&name));
    env.push(variable);
    Ok(())
}

/// `UID` or `UID:GID`, in numbers and nothing else: a name that is taken for 0 would be root.
pub fn parse_user(text: &str) -> Result<UserSpec> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| part.parse::<u32>().ok())
            .flatten()
            .filter(|&id| id != u32::MAX)
            .with_context(|| format!("--user: {text:?} is not UID or UID:GID in numbers"))
    };
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (number(uid)?, number(gid)?),
        None => (number(text)?, 0),
    };
    Ok(UserSpec { uid, gid, ..UserSpec::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        assert_eq!(parse_user("1000").unwrap().uid, 1000);
        let both = parse_user("1000:100").unwrap();
        assert_eq!((both.uid, both.gid), (1000, 100));
        for bad in ["", "root", "1000:", ":1", "-1", "+1", "4294967295", "4294967296", "1:2:3", " 1"] {
            assert!(parse_user(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn variables_replace_older_ones() {
        let mut env = vec!["A=1".into(), "AB=2".into()];
        set_variable(&mut env, "A=3".into()).unwrap();
        assert_eq!(env, ["AB=2".into(), "A=3".into()]);
        assert!(set_variable(&mut env, "=x".into()).is_err());
        assert!(set_variable(&mut env, "x".into()).is_err());
    }
}
