//! Setting a sandbox up: its two processes, their channels, cgroups, hooks and record, in an order
//! that leaves nothing behind whatever fails and whenever this command is killed.
//!
//! This process has one thread until it ends; both children are copies of it.

mod gofer_process;
mod last_words;
mod member;
pub mod namespaces;
mod network;
mod program;
mod sentry_process;
mod shown_root;
pub mod stand_in;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hostsys::process::{Child, Exit, Namespaces};
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;
use sentry::boot::handshake::{FromChild, FromParent, Handshake};
use sentry::boot::{BootArgs, NetworkMode};
use sentry::control::Stdio;
use sentry::control::protocol::Operation;

use crate::cgroup::systemd::{self, Unit};
use crate::cgroup::{self, Cgroups};
use crate::cli::{Global, Rootless};
use crate::error::NotRun;
use crate::spec::{JoinedNamespaces, Plan};
use crate::state::{Directory, ProcessRef, Record, Root};
use crate::{console, control, hooks, log};
use last_words::LastWords;
use namespaces::{Privilege, Visit};

/// By how much more likely stubs are to be killed at a memory limit than the sentry is. A thousand is the limit itself
/// (`oom_badness`): the sentry may have mapped all of what its guests use, a stub only what it has touched.
const STUBS_FIRST: i32 = 1000;
/// The same where the sentry's value may not be lowered. The process that has an end noted (`hostsys::memgroup`) has the
/// highest value there is and must still come before all but the largest stubs.
const STUBS_BEFORE: i32 = 300;

/// Where the terminal of a container goes.
#[derive(Debug)]
pub enum Console {
    /// To whoever listens on this socket.
    Socket(PathBuf),
    /// It stays with this command.
    Own,
    /// There is no one to take it.
    Nobody,
}

/// What to set up.
#[derive(Debug)]
pub struct Request<'a> {
    pub global: &'a Global,
    pub id: &'a str,
    /// Absolute.
    pub bundle: &'a Path,
    /// config.json, for the record.
    pub config: &'a [u8],
    pub oci_version: &'a str,
    pub plan: Plan,
    pub console: Console,
    pub pid_file: Option<&'a Path>,
    /// Kill the sandbox when this command is killed.
    pub die_with_command: bool,
    /// Descriptors for the program from number 3 on.
    pub extra_fds: Vec<OwnedFd>,
}

/// A container that waits for its start.
#[derive(Debug)]
pub struct Sandbox {
    /// The process that stands for the container: the sentry, or in another's sandbox one of its own.
    pub sentry: Child,
    pub gofer: Child,
    /// Of the sentry; none in another's sandbox.
    pub last_words: Option<LastWords>,
    /// The master end, with [`Console::Own`].
    pub terminal: Option<OwnedFd>,
}

/// Takes everything back unless the setting up came to its end.
struct Undo {
    directory: Option<Directory>,
    children: Vec<Child>,
    cgroups: Vec<PathBuf>,
    /// The network namespace that has been taken over.
    network: Option<PathBuf>,
    scope: Option<Unit>,
    /// The container in somebody else's sandbox.
    joined: Option<(Directory, String)>,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some((directory, id)) = &self.joined
            && let Ok(client) = control::Client::connect(directory, id)
        {
            // It knows the container only if it came to be.
            let _ = client.done(Operation::Delete, &[]);
        }
        for child in &self.children {
            let _ = child.signal(9);
            let _ = child.wait();
        }
        if let Some(path) = &self.network {
            give_back_network(path);
        }
        if let Err(error) = cgroup::remove(&self.cgroups) {
            tracing::warn!("{error:#}");
        }
        if let Some(scope) = &self.scope {
            scope.forget();
        }
        if let Some(Err(error)) = self.directory.as_ref().map(Directory::remove) {
            tracing::warn!("{error:#}");
        }
    }
}

/// Gives a network namespace that outlives its sandbox back to the host, if it is still there.
pub fn give_back_network(path: &Path) {
    if path.exists()
        && let Err(error) = network::give_back(path)
    {
        tracing::warn!("{error:#}");
    }
}

/// Makes the container of `request`; it is "created" when this returns.
pub fn create(request: Request<'_>) -> Result<Sandbox> {
    let Request {
        global,
        id,
        bundle,
        config,
        oci_version,
        mut plan,
        console,
        pid_file,
        die_with_command,
        extra_fds,
    } = request;
    let network = check_global(global)?;
    let terminal = plan.container.process.terminal;
    match (&console, terminal) {
        (Console::Nobody, true) => {
            bail!("process.terminal: cannot allocate tty if runsc will detach without setting console socket")
        }
        (Console::Socket(_), false) => {
            bail!("--console-socket: cannot use console socket if process.terminal is not set")
        }
        _ => {}
    }
    program::check(&plan)?;

    let privilege = Privilege::current();
    let root = Root::new(global.root.as_deref())?;
    let host = member::find(&root, &mut plan)?;
    let network = if host.is_some() { network } else { network::mode(network, &plan, privilege)? };
    if plan.container.hostname.is_none() {
        plan.container.hostname = namespaces::host_name(plan.joined.uts.as_deref())?;
    }
    let (directory, _lock) = root.create(id)?;
    let mut undo = Undo {
        directory: Some(directory.clone()),
        children: Vec::new(),
        cgroups: Vec::new(),
        network: None,
        scope: None,
        joined: None,
    };
    let annotations: BTreeMap<String, String> = plan.container.annotations.clone();
    let mut record = Record {
        oci_version: oci_version.to_owned(),
        id: id.to_owned(),
        bundle: bundle.to_owned(),
        rootfs: plan.rootfs.clone(),
        created: log::timestamp(std::time::SystemTime::now(), true),
        owner: owner(),
        annotations: annotations.clone(),
        sentry: None,
        gofer: None,
        sandbox: host.as_ref().map(|h| h.record.id.clone()),
        holder: None,
        cgroups: Vec::new(),
        network: plan.joined.network.clone().filter(|_| host.is_none() && network == NetworkMode::Sandbox),
        scope: None,
        platform: global.platform.clone(),
        command: if die_with_command {
            let own = i32::try_from(std::process::id())?;
            Some(ProcessRef::of(own).context("cannot read this command's own number")?)
        } else {
            None
        },
    };
    let state =
        |status: &str, pid: Option<i32>| hooks::state(oci_version, id, status, pid, bundle, &annotations);
    plan.container.start_hooks =
        hooks::guest_hooks(plan.hooks.start_container().as_ref(), &state("created", Some(1)));
    directory.write_config(config)?;

    let scope = if global.systemd_cgroup && !global.ignore_cgroups {
        Some(Unit::parse(plan.cgroups_path.as_deref(), id, systemd::of_system())?)
    } else {
        None
    };
    let cgroups = match &scope {
        Some(scope) => Some(Cgroups::locate(&scope.cgroup())?),
        None => locate_cgroups(global, privilege, id, &plan)?,
    };
    record.scope.clone_from(&scope);
    if let Some(cgroups) = &cgroups {
        // On record before they exist: whoever cleans up after a killed command finds them.
        record.cgroups = cgroups.paths();
        undo.cgroups = cgroups.paths();
    }
    directory.write(&record)?;
    if let Some(cgroups) = cgroups.as_ref().filter(|_| scope.is_none()) {
        match cgroups.create(plan.resources.as_ref()) {
            Err(error) if may_do_without_cgroups(global, privilege) => {
                tracing::warn!("no cgroups for this container: {error:#}");
            }
            other => other?,
        }
    }

    let null =
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("/dev/null")?;
    let (stdio, own_terminal) = if terminal {
        let asked = plan.container.process.console_size;
        // What the caller will see is as large as the caller's terminal, from the first moment on.
        let size = asked
            .or_else(|| matches!(console, Console::Own).then(|| console::size(std::io::stdin())).flatten());
        let pty = console::open_pty(size)?;
        let own = match &console {
            Console::Socket(path) => {
                console::send(path, &pty.master)?;
                None
            }
            Console::Own | Console::Nobody => Some(pty.master),
        };
        (Stdio::Terminal(pty.replica), own)
    } else {
        (console::own_streams(&null)?, None)
    };
    let debug_log = global
        .debug_log
        .as_ref()
        .map(|path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("--debug-log {}", path.display()))
        })
        .transpose()?;
    let sandbox_log = || -> Result<Option<File>> {
        match &debug_log {
            Some(file) => Ok(Some(file.try_clone().context("cannot copy a descriptor")?)),
            None => Ok(log::duplicate_fd().map(File::from)),
        }
    };
    let debug = global.debug || debug_log.is_some();

    let shown = shown_root::ShownRoot::prepare(&plan)?;
    let words: Option<LastWords>;
    let (gofer_end, sentry_end) = hostsys::socket::seqpacket_pair().context("cannot make a socket pair")?;
    let (gofer_life, life) = std::io::pipe().context("cannot make a pipe")?;
    let gofer_life = OwnedFd::from(gofer_life);
    let (mut gofer_talk, gofer_handshake) = handshake()?;
    let gofer = gofer_process::start(gofer_process::Setting {
        privilege,
        sources: plan.sources,
        socket: gofer_end,
        life: life.into(),
        handshake: gofer_handshake,
        null: null.try_clone().context("cannot copy a descriptor")?,
        log: sandbox_log()?,
        log_format: global.log_format,
        debug,
    })?;
    let gofer_ref = ProcessRef::of(gofer.pid);
    let gofer_pid = gofer.pid;
    undo.children.push(gofer);

    record.gofer = Some(gofer_ref.context("the gofer ended at once")?);

    let oom_score_adj = plan.container.process.oom_score_adj;
    let limited = cgroups.is_some() && plan.container.limits.memory.is_some();
    let enter = |pid: i32, record: &mut Record, undo: &mut Undo| -> Result<()> {
        if let Some(scope) = &scope {
            // From here on there is something to take back.
            undo.scope = Some(scope.clone());
            let mut bus = systemd::bus()?;
            scope.start(&mut bus, id, pid, plan.resources.as_ref())?;
            let actual = Cgroups::of_scope(pid, scope)?;
            record.cgroups = actual.paths();
            undo.cgroups = actual.paths();
            directory.write(record)?;
            actual.create(plan.resources.as_ref())?;
            return actual.add(pid).and_then(|()| actual.add(gofer_pid));
        }
        if let Some(cgroups) = &cgroups {
            match cgroups.add(pid).and_then(|()| cgroups.add(gofer_pid)) {
                Err(error) if may_do_without_cgroups(global, privilege) => tracing::warn!("{error:#}"),
                other => other?,
            }
        }
        Ok(())
    };
    let hooks_of = |pid: i32| -> Result<()> {
        let creating = state("creating", Some(pid));
        hooks::run("prestart", plan.hooks.prestart().as_ref(), &creating, bundle, None)?;
        hooks::run("createRuntime", plan.hooks.create_runtime().as_ref(), &creating, bundle, None)?;
        hooks::run("createContainer", plan.hooks.create_container().as_ref(), &creating, bundle, Some(pid))
    };
    let map_gofer = |talk: &mut Handshake, children: &[Child]| -> Result<()> {
        expect(talk, FromChild::NeedsIdMaps, "gofer", children, None)?;
        namespaces::write_gofer_maps(gofer_pid, privilege).context("cannot map the gofer's ids")?;
        let _ = talk.tell_child(FromParent::IdMapsWritten);
        Ok(())
    };
    if let Some(host) = host {
        map_gofer(&mut gofer_talk, &undo.children)?;
        expect(&mut gofer_talk, FromChild::Ready, "gofer", &undo.children, None)?;
        words = None;
        let streams = member::Streams { stdio, gofer: sentry_end, gofer_life, extra_fds };
        let surroundings = member::Surroundings { shown, cgroups: record.cgroups.clone() };
        undo.joined = Some((directory.clone(), id.to_owned()));
        let holder = member::create(&host, &directory, id, plan.container, streams, surroundings)?;
        let holder_pid = holder.pid;
        record.holder = ProcessRef::of(holder_pid).ok();
        record.sentry = host.record.sentry;
        undo.children.push(holder);
        directory.write(&record)?;
        enter(holder_pid, &mut record, &mut undo)?;
        if let Some(score) = oom_score_adj {
            set_oom_score(holder_pid, score, privilege)?;
        }
        hooks_of(holder_pid)?;
        if let Some(path) = pid_file {
            write_pid_file(path, holder_pid)?;
        }
    } else {
        let control = control::listen(&directory).context("cannot make the control socket")?;
        let (ours, theirs) = LastWords::pair()?;
        words = Some(ours);
        let (mut sentry_talk, sentry_handshake) = handshake()?;
        let settings = plan.container.sysctl.clone();
        let (visit, mut inherited) = join(&plan.joined)?;
        if network == NetworkMode::Host && plan.joined.own_network {
            inherited |= Namespaces::NET;
        }
        let sentry = sentry_process::start(
            BootArgs {
                id: id.to_owned(),
                container: plan.container,
                stdio,
                extra_fds,
                gofer_life,
                gofer: sentry_end,
                control,
                handshake: sentry_handshake,
                platform: global.platform.clone(),
                network,
                strace: global.strace,
                violation: global.violation(),
                memory_group: None,
                last_words: Some(theirs),
            },
            sentry_process::Setting {
                privilege,
                null,
                log: sandbox_log()?,
                log_format: global.log_format,
                debug,
                die_with_parent: die_with_command,
                inherited,
                shown,
            },
        );
        visit.leave()?;
        let sentry = sentry?;
        let sentry_pid = sentry.pid;
        let sentry_ref = ProcessRef::of(sentry_pid);
        undo.children.push(sentry);
        record.sentry = Some(sentry_ref.context("the sentry ended at once")?);
        enter(sentry_pid, &mut record, &mut undo)?;
        let own_score = oom_score(sentry_pid, oom_score_adj, limited, privilege)?;
        namespaces::write_sentry_maps(sentry_pid, privilege).context("cannot map the sentry's ids")?;
        // If it is gone, what it has said last comes out below.
        let _ = sentry_talk.give_memory_group(cgroup::memory_group(&record.cgroups, sentry_pid).as_ref());
        map_gofer(&mut gofer_talk, &undo.children)?;

        // The sandbox's processes go on meanwhile; what hooks need of them, their namespaces, is there.
        if let Err(error) = hooks_of(sentry_pid) {
            // Hooks fail when the sandbox is gone: then its own reason is the one to tell.
            return Err(reason(&mut sentry_talk).unwrap_or(error));
        }
        expect(&mut gofer_talk, FromChild::Ready, "gofer", &undo.children, None)?;
        expect(&mut sentry_talk, FromChild::Ready, "sentry", &undo.children, words.as_ref())?;
        if network == NetworkMode::Sandbox {
            undo.network = record.network.clone();
        }
        if network != NetworkMode::None
            && let Some(donation) = network::donation(sentry_pid, network, &plan.joined, &settings)?
        {
            sentry_talk.give_network(&donation).context("the sentry is gone")?;
            expect(&mut sentry_talk, FromChild::Ready, "sentry", &undo.children, words.as_ref())?;
        }
        if let Some(score) = own_score {
            set_oom_score(sentry_pid, score, privilege)?;
        }
        directory.write(&record)?;
        if let Some(path) = pid_file {
            write_pid_file(path, sentry_pid)?;
        }
        sentry_talk.tell_child(FromParent::Commit).context("the sentry is gone")?;
    }
    directory.write(&record)?;

    undo.joined = None;
    undo.directory = None;
    undo.cgroups.clear();
    undo.network = None;
    undo.scope = None;
    let mut children = std::mem::take(&mut undo.children).into_iter();
    match (children.next(), children.next()) {
        (Some(gofer), Some(sentry)) => {
            Ok(Sandbox { sentry, gofer, last_words: words, terminal: own_terminal })
        }
        _ => bail!("the sandbox's processes are gone"),
    }
}

/// Refuses global flags that ask for what is not there.
fn check_global(global: &Global) -> Result<NetworkMode> {
    if !crate::commands::help::PLATFORMS.iter().any(|(name, _)| *name == global.platform) {
        bail!("--platform: unknown platform {:?}; see `runsc help platforms`", global.platform);
    }
    if global.strace && global.debug_log.is_none() {
        bail!("--strace needs --debug-log: that is where the calls are written");
    }
    match global.network.as_str() {
        "none" => Ok(NetworkMode::None),
        "sandbox" => Ok(NetworkMode::Sandbox),
        "host" => Ok(NetworkMode::Host),
        other => bail!("--network: unknown mode {other:?}; there are none, sandbox and host"),
    }
}

/// The cgroups to make, if any: where the configuration says, or a default place if it has limits.
fn locate_cgroups(global: &Global, privilege: Privilege, id: &str, plan: &Plan) -> Result<Option<Cgroups>> {
    if global.ignore_cgroups {
        return Ok(None);
    }
    let path = match &plan.cgroups_path {
        Some(path) => path.clone(),
        None if cgroup::wants_limits(plan.resources.as_ref()) => Path::new("/").join(id),
        None => return Ok(None),
    };
    match Cgroups::locate(&path) {
        Err(error) if may_do_without_cgroups(global, privilege) => {
            tracing::warn!("no cgroups for this container: {error:#}");
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn may_do_without_cgroups(global: &Global, privilege: Privilege) -> bool {
    match global.rootless {
        Rootless::True => true,
        Rootless::False => false,
        Rootless::Auto => !privilege.root,
    }
}

fn handshake() -> Result<(Handshake, Handshake)> {
    let (parent, child) = UnixStream::pair().context("cannot make a socket pair")?;
    Ok((Handshake::new(parent), Handshake::new(child)))
}

/// Goes where the sentry is to be born, for the namespaces that are not its own.
fn join(joined: &JoinedNamespaces) -> Result<(Visit, Namespaces)> {
    let mut paths = Vec::new();
    let mut inherited = Namespaces::empty();
    let wanted = [
        (&joined.network, LinkNameSpaceType::Network, Namespaces::NET),
        (&joined.ipc, LinkNameSpaceType::InterProcessCommunication, Namespaces::IPC),
        (&joined.uts, LinkNameSpaceType::HostNameAndNISDomainName, Namespaces::UTS),
    ];
    for (path, kind, flag) in wanted {
        if let Some(path) = path {
            paths.push((path.clone(), kind));
            inherited |= flag;
        }
    }
    Ok((Visit::go(&paths)?, inherited))
}

/// How long a failing sentry may take to say why after a hook has noticed.
const REASON: Duration = Duration::from_millis(200);

/// Why a sentry has given up, if it has.
fn reason(talk: &mut Handshake) -> Option<anyhow::Error> {
    let mut interest = [hostsys::socket::Interest::read(talk.stream().as_fd())];
    hostsys::socket::wait(&mut interest, Some(REASON)).ok()?;
    if !interest[0].readable {
        return None;
    }
    match talk.hear_child() {
        Ok(FromChild::Failed(reason)) => Some(anyhow::anyhow!("{reason}")),
        _ => None,
    }
}

/// What it means that a signal has ended the sentry or the gofer. `words`: what it has said before.
pub fn ended_by(who: &str, signal: i32, words: Option<&LastWords>) -> String {
    if let Some(text) = words.and_then(LastWords::text) {
        return format!("the {who} ended by signal {signal}; this is a bug. It has said: {text}");
    }
    match signal {
        // It asked the host for something it may not have.
        31 => format!("the {who} was stopped by its own seccomp filter (SIGSYS); this is a bug"),
        // The first process of a PID namespace is deaf to the signal of abort(3), which then makes a fault.
        6 | 11 => format!(
            "the {who} ended by signal {signal}, as it does when it panics; this is a bug, and --debug-log=FILE shows its reason"
        ),
        _ => format!("the {who} was killed by signal {signal}"),
    }
}

/// The child's next message, which must be this one. `words`: what it says if it panics.
fn expect(
    talk: &mut Handshake,
    wanted: FromChild,
    who: &str,
    children: &[Child],
    words: Option<&LastWords>,
) -> Result<()> {
    match talk.hear_child() {
        Ok(message) if message == wanted => Ok(()),
        Ok(FromChild::Failed(reason)) => bail!("{reason}"),
        Ok(FromChild::NoProgram(reason)) => Err(NotRun { reason, code: NotRun::MISSING }.into()),
        Ok(FromChild::NotRunnable(reason)) => Err(NotRun { reason, code: NotRun::FORBIDDEN }.into()),
        Ok(other) => bail!("the {who} said {other:?} instead of {wanted:?}"),
        Err(_) => {
            let index = usize::from(who == "sentry");
            match children.get(index).and_then(|child| child.wait().ok()) {
                Some(Exit::Signal(signal)) => bail!(ended_by(who, signal, words)),
                Some(Exit::Code(code)) => bail!("the {who} ended with status {code}"),
                None => bail!("the {who} is gone"),
            }
        }
    }
}

/// Sets what the stubs shall have, which inherit it from the sentry; the result is what the sentry gets when they are
/// there. At a memory limit the host shall kill the largest guest process, so its stub and not the sentry.
fn oom_score(pid: i32, wanted: Option<i32>, limited: bool, privilege: Privilege) -> Result<Option<i32>> {
    let score = wanted.unwrap_or(0);
    if limited {
        let below = (score - STUBS_FIRST).max(-999);
        // Whoever may not lower the value can still come back from a higher one.
        if std::fs::write(format!("/proc/{pid}/oom_score_adj"), below.to_string()).is_ok() {
            set_oom_score(pid, score, privilege)?;
            return Ok(Some(below));
        }
        set_oom_score(pid, (score + STUBS_BEFORE).min(1000), privilege)?;
        return Ok(Some(score));
    }
    if wanted.is_some() {
        set_oom_score(pid, score, privilege)?;
    }
    Ok(None)
}

fn set_oom_score(pid: i32, score: i32, privilege: Privilege) -> Result<()> {
    let path = format!("/proc/{pid}/oom_score_adj");
    match std::fs::write(&path, score.to_string()) {
        // Lowering it takes a right that a caller without root does not have; runc ignores it too.
        Err(error) if !privilege.root || error.kind() == std::io::ErrorKind::PermissionDenied => {
            tracing::warn!("process.oomScoreAdj: cannot write {path}: {error}");
            Ok(())
        }
        other => other.with_context(|| format!("process.oomScoreAdj: cannot write {path}")),
    }
}

/// Decimal and no newline, in one step: a reader never sees half of it.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        let new = path.with_file_name(name);
        std::fs::write(&new, pid.to_string())?;
        std::fs::rename(&new, path)
    };
    write().with_context(|| format!("--pid-file {}", path.display()))
}

/// In a child: nothing of the caller's signal settings.
fn reset_signals() -> Result<()> {
    hostsys::signals::reset_all().context("signals")?;
    // A peer that goes away is an error of the write, not the end of the process.
    hostsys::signals::ignore(13).context("SIGPIPE")
}

fn redirect_stdio(null: &OwnedFd) -> Result<()> {
    for number in 0..3 {
        hostsys::fd::dup_onto(null, number).context("standard streams")?;
    }
    Ok(())
}

/// The caller's name, as `list` shows it.
fn owner() -> String {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}
