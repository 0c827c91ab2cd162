//! The child that becomes the sentry: from the fork to [`sentry::boot::run`]. By then it is the
//! first process of its PID namespace (so that nothing outlives it), runs under an id of the host
//! without rights, has no capability and no way to get one, an empty read-only root, and no
//! descriptor but the donated ones.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};
use hostsys::process::{Child, ForkOptions, Namespaces, fork_run};
use rustix::process::{Resource, Rlimit};
use sentry::boot::BootArgs;
use sentry::boot::handshake::FromChild;
use sentry::control::Stdio;

use super::namespaces::{self, Privilege};
use super::shown_root::ShownRoot;

/// What the child needs beside [`BootArgs`].
#[derive(Debug)]
pub struct Setting {
    pub privilege: Privilege,
    /// /dev/null, to become standard input, output and error.
    pub null: OwnedFd,
    pub log: Option<File>,
    pub log_format: crate::log::Format,
    pub debug: bool,
    /// The sandbox must not outlive the command that started it.
    pub die_with_parent: bool,
    /// Namespaces that the child inherits instead of getting new ones.
    pub inherited: Namespaces,
    /// What whoever enters its mount namespace is to find there.
    pub shown: Option<ShownRoot>,
}

/// Forks the sentry. It waits for its id maps before it does anything.
pub fn start(args: BootArgs, setting: Setting) -> Result<Child> {
    let mut keep: Vec<RawFd> = vec![
        0,
        1,
        2,
        setting.null.as_raw_fd(),
        args.gofer.as_raw_fd(),
        args.gofer_life.as_raw_fd(),
        args.control.as_raw_fd(),
        args.handshake.stream().as_raw_fd(),
    ];
    keep.extend(sentry::control::server::stdio_fds(&args.stdio).iter().map(AsRawFd::as_raw_fd));
    keep.extend(args.last_words.iter().map(AsRawFd::as_raw_fd));
    keep.extend(args.extra_fds.iter().map(AsRawFd::as_raw_fd));
    keep.extend(setting.log.iter().map(AsRawFd::as_raw_fd));
    keep.extend(setting.shown.iter().flat_map(ShownRoot::descriptors));
    let namespaces = Namespaces::USER
        | Namespaces::PID
        | Namespaces::MOUNT
        | Namespaces::IPC
        | Namespaces::UTS
        | Namespaces::NET;
    let options = ForkOptions { namespaces: namespaces - setting.inherited, sibling: false };
    fork_run(options, move || {
        // What else this process has open is never used again here: the child ends by _exit.
        match hostsys::fd::close_all_but(&keep) {
            Ok(()) => child(args, setting),
            Err(_) => 1,
        }
    })
    .context("cannot start the sentry")
}

fn child(mut args: BootArgs, setting: Setting) -> i32 {
    let failed = match become_sentry(&mut args, setting) {
        Ok(()) => return i32::from(sentry::boot::run(args).shell_code()),
        Err(error) => format!("cannot confine the sentry: {error:#}"),
    };
    // If the parent is gone there is nobody to tell.
    let _ = args.handshake.tell_parent(&FromChild::Failed(failed));
    1
}

fn become_sentry(args: &mut BootArgs, setting: Setting) -> Result<()> {
    let Setting { privilege, null, log, log_format, debug, die_with_parent, shown, .. } = setting;
    crate::log::become_sandbox(log, log_format, debug);
    hostsys::process::forget_environment().context("environment")?;
    hostsys::process::set_name("runsc-sentry").context("name")?;
    super::reset_signals()?;
    // A session of its own: signals of the caller's terminal are not for the sandbox.
    rustix::process::setsid().context("new session")?;
    args.memory_group = args.handshake.await_memory_group().context("the command that starts it is gone")?;
    if privilege.root {
        hostsys::process::set_ids(0, 0, &[]).context("ids")?;
    } else {
        hostsys::process::set_ids_keep_groups(0, 0).context("ids")?;
    }
    limits()?;
    hostsys::ns::unshare(Namespaces::CGROUP).context("new cgroup namespace")?;
    // Read from /proc, which is out of reach from the new root.
    platform::remember_vdso();
    namespaces::detach_mounts()?;
    drop(namespaces::enter_new_root(shown, |_| Ok(()), |_| Ok(()))?);
    if let Stdio::Terminal(terminal) = &args.stdio {
        // So that its changes of size reach the sandbox. Another session may have it already.
        let _ = rustix::process::ioctl_tiocsctty(terminal.as_fd());
    }
    super::redirect_stdio(&null)?;
    drop(null);
    drop_rights()?;
    if die_with_parent {
        // After the last change of ids, which would clear it. A parent that has died before is found out by the
        // hand-shake.
        hostsys::process::set_parent_death_signal(9).context("parent death signal")?;
    }
    Ok(())
}

/// A sandbox needs many descriptors and must not leave guest memory in core files.
fn limits() -> Result<()> {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })
        .context("descriptor limit")?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).context("core limit")
}

/// No capability, none to be had, and no debugger.
fn drop_rights() -> Result<()> {
    hostsys::process::set_no_new_privs().context("no_new_privs")?;
    hostsys::caps::drop_all().context("capabilities")?;
    hostsys::process::set_dumpable(false).context("dumpable")
}
