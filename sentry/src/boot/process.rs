//! A process that the runtime starts: the first one of a container, or one of `exec`.

use super::BootError;
use super::ids;
use super::spec::{CapabilitySets, ProcessSpec};
use crate::control::Stdio;
use crate::control::protocol::ErrorKind;
use crate::loader;
use abi::fcntl::OpenFlags;
use abi::resource::{Resource, Rlimit};
use abi::stat::FileType;
use abi::{Errno, Result};
use kernel::Kernel;
use kernel::creds::{CapSet, Creds, UserNamespace};
use kernel::io::{SliceSource, Source};
use kernel::mm::MmLimits;
use kernel::seccomp::Chain;
use kernel::task::{
    AffinityMask, ExecFile, InitArgs, Members, Namespaces, PidNamespace, Task, ThreadGroup, exec_creds,
};
use kernel::vfs::change::{self, New};
use kernel::vfs::{
    Caller, FdTable, File, FsContext, LookupFlags, Path, Start, open_exec, open_path, resolve, resolve_parent,
};
use platform::Registers;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Where a process is put.
pub struct Place<'a> {
    pub kernel: &'a Arc<Kernel>,
    pub namespaces: Arc<Namespaces>,
    pub pid_ns: Arc<PidNamespace>,
    pub user_ns: Arc<UserNamespace>,
    pub members: Arc<Members>,
    /// The container's filter of system calls.
    pub seccomp: Option<Arc<Chain>>,
}

/// A process that has not run yet.
pub struct Prepared {
    pub task: Arc<Task>,
    pub regs: Registers,
}

fn bits(caps: u64) -> CapSet {
    CapSet::from_bits_truncate(caps)
}

/// The credentials before the program is executed: as runc sets them up, so that execve's own rules give the rest.
fn creds(spec: &ProcessSpec, user_ns: &Arc<UserNamespace>) -> std::result::Result<Creds, BootError> {
    let CapabilitySets { bounding, effective, permitted, inheritable, ambient } = spec.capabilities;
    let u = &spec.user;
    let uid = ids::kuid(user_ns, u.uid, "process.user.uid")?;
    let gid = ids::kgid(user_ns, u.gid, "process.user.gid")?;
    let mut groups = u
        .additional_gids
        .iter()
        .map(|&gid| ids::kgid(user_ns, gid, "process.user.additionalGids"))
        .collect::<std::result::Result<Vec<u32>, BootError>>()?;
    groups.sort_unstable();
    groups.dedup();
    Ok(Creds {
        uid,
        euid: uid,
        suid: uid,
        fsuid: uid,
        gid,
        egid: gid,
        sgid: gid,
        fsgid: gid,
        groups: groups.into(),
        permitted: bits(permitted),
        effective: bits(effective),
        inheritable: bits(inheritable),
        bounding: bits(bounding),
        ambient: bits(ambient) & bits(permitted) & bits(inheritable),
        securebits: 0,
        no_new_privs: spec.no_new_privileges,
        user_ns: Arc::clone(user_ns),
    })
}

fn command(spec: &ProcessSpec) -> String {
    spec.args.first().map(|a| String::from_utf8_lossy(a.as_bytes()).into_owned()).unwrap_or_default()
}

/// A failure of execve in the words that engines look for.
fn exec_error(name: &str, e: Errno) -> BootError {
    let kind = match e {
        Errno::ENOENT | Errno::ENOTDIR => ErrorKind::NotFound,
        Errno::EACCES | Errno::EPERM | Errno::EISDIR => ErrorKind::NotPermitted,
        _ => ErrorKind::Invalid,
    };
    let text = match e {
        // What it says when a directory is executed.
        Errno::EISDIR => Errno::EACCES.text(),
        e => e.text(),
    };
    BootError::new(kind, format!("exec {name:?}: {}", text.to_lowercase()))
}

/// Opens the program: by its path, or along `PATH` when there is no slash in the name.
fn find_program(
    cx: &Caller<'_>,
    start: &Start,
    spec: &ProcessSpec,
    program: Option<&[u8]>,
) -> std::result::Result<(Arc<File>, Vec<u8>), BootError> {
    let name = program.map_or_else(|| command(spec), |p| String::from_utf8_lossy(p).into_owned());
    let program = program.or_else(|| spec.args.first().map(|a| a.as_bytes()));
    let Some(program) = program.filter(|a| !a.is_empty()) else {
        return Err(BootError::new(ErrorKind::Invalid, "process.args: no program is named"));
    };
    let open = |path: &[u8]| -> Result<Arc<File>> {
        let place = resolve(cx, start.clone(), path, LookupFlags::FOLLOW)?;
        if place.inode()?.file_type() == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        open_exec(cx, &place)
    };
    if program.contains(&b'/') {
        return open(program).map(|f| (f, program.to_vec())).map_err(|e| exec_error(&name, e));
    }
    let path = spec.env.iter().rev().find_map(|e| e.as_bytes().strip_prefix(b"PATH=")).unwrap_or(b"");
    let mut denied = None;
    for dir in path.split(|b| *b == b':') {
        let dir = if dir.is_empty() { b".".as_slice() } else { dir };
        let full = [dir, b"/", program].concat();
        match open(&full) {
            Ok(f) => return Ok((f, full)),
            Err(e @ (Errno::EACCES | Errno::EPERM)) => denied = Some(e),
            Err(_) => {}
        }
    }
    Err(match denied {
        Some(e) => exec_error(&name, e),
        None => BootError::new(
            ErrorKind::NotFound,
            format!("exec: {name:?}: executable file not found in $PATH: no such file or directory"),
        ),
    })
}

/// Enters the directory that the process starts in; makes it if it is missing, as runc does.
fn working_directory(cx: &Caller<'_>, root: &Path, cwd: &[u8]) -> Result<Path> {
    let start = Start::inside(root);
    let cwd = if cwd.is_empty() { b"/" } else { cwd };
    let found = match resolve(cx, start.clone(), cwd, LookupFlags::FOLLOW) {
        Err(Errno::ENOENT) => {
            let mut at = Vec::new();
            for part in cwd.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
                at.push(b'/');
                at.extend_from_slice(part);
                let parent = resolve_parent(cx, start.clone(), &at, LookupFlags::empty())?;
                match change::make(cx, &parent, &New::Directory { mode: 0o755 }) {
                    Ok(_) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(e),
                }
            }
            resolve(cx, start, cwd, LookupFlags::FOLLOW)?
        }
        other => other?,
    };
    if found.inode()?.file_type() == FileType::Directory { Ok(found) } else { Err(Errno::ENOTDIR) }
}

fn limits(spec: &ProcessSpec) -> std::result::Result<[Rlimit; 16], BootError> {
    let mut all = ThreadGroup::default_limits();
    for l in &spec.rlimits {
        let slot = usize::try_from(l.resource).ok().and_then(|i| all.get_mut(i)).ok_or_else(|| {
            BootError::new(ErrorKind::Invalid, format!("process.rlimits: no resource {}", l.resource))
        })?;
        if l.soft > l.hard {
            let text = format!("process.rlimits: soft limit {} is above the hard limit {}", l.soft, l.hard);
            return Err(BootError::new(ErrorKind::Invalid, text));
        }
        *slot = Rlimit { cur: l.soft, max: l.hard };
    }
    Ok(all)
}

/// What a process has open from the start.
pub enum Streams {
    /// Descriptors 0 to 2, and the further ones from 3 on.
    Donated(Stdio, Vec<OwnedFd>),
    /// This text as standard input; output goes nowhere.
    Text(String),
}

/// A hook's descriptors.
fn text_descriptors(place: &Place<'_>, root: &Path, text: &str, creds: &Arc<Creds>) -> Result<Arc<FdTable>> {
    let cx = Caller { creds, task: None };
    let state = fs::tmpfs::memfd_create(place.kernel, creds, b"state", fs::tmpfs::MemfdFlags::empty())?;
    let mut bytes = text.as_bytes().to_vec();
    let (mut source, mut at) = (SliceSource::new(&mut bytes), 0);
    while Source::remaining(&source) > 0 {
        if state.ops().write(&cx, &state, &mut source, &mut at)? == 0 {
            return Err(Errno::EIO);
        }
    }
    let files = FdTable::new();
    files.install(state, false, 0, usize::MAX)?;
    // An image without a /dev has nothing to write to either.
    if let Ok(null) = resolve(&cx, Start::inside(root), b"/dev/null", LookupFlags::FOLLOW)
        && let Ok(null) = open_path(&cx, &null, OpenFlags::WRONLY)
    {
        files.install(Arc::clone(&null), false, 1, usize::MAX)?;
        files.install(null, false, 2, usize::MAX)?;
    }
    Ok(files)
}

fn descriptors(
    place: &Place<'_>,
    root: &Path,
    spec: &ProcessSpec,
    stdio: Stdio,
    extra: Vec<OwnedFd>,
    creds: &Arc<Creds>,
) -> Result<(Arc<FdTable>, Option<Arc<File>>)> {
    let files = FdTable::new();
    let mut terminal = None;
    let put = |file: Arc<File>, at: usize| -> Result<()> {
        files.install(file, false, at, usize::MAX)?;
        Ok(())
    };
    match stdio {
        Stdio::Terminal(fd) => {
            let size = spec.console_size.map(|s| (s.rows, s.columns));
            // A sandbox has one devpts for each container: the terminal's name must be in this one's.
            let cx = Caller { creds, task: None };
            let ptmx = resolve(&cx, Start::inside(root), b"/dev/pts/ptmx", LookupFlags::empty());
            let instance = ptmx.ok().and_then(|p| fs::devpts::instance_of(&p));
            let file = fs::console::terminal(place.kernel, instance, fd, size, creds)?;
            for at in 0..3 {
                put(Arc::clone(&file), at)?;
            }
            terminal = Some(file);
        }
        Stdio::Streams { stdin, stdout, stderr } => {
            for (at, fd) in [stdin, stdout, stderr].into_iter().enumerate() {
                put(fs::hostfd::open(place.kernel, fd, creds)?, at)?;
            }
        }
    }
    for (i, fd) in extra.into_iter().enumerate() {
        put(fs::hostfd::open(place.kernel, fd, creds)?, i + 3)?;
    }
    Ok((files, terminal))
}

/// The environment; HOME is what the image's /etc/passwd says unless it is given, as runc has it.
fn environment(spec: &ProcessSpec, cx: &Caller<'_>, root: &Path) -> Vec<Vec<u8>> {
    let mut env: Vec<Vec<u8>> = spec.env.iter().map(|e| e.as_bytes().to_vec()).collect();
    if !env.iter().any(|e| e.len() > 5 && e.starts_with(b"HOME=")) {
        env.retain(|e| !e.starts_with(b"HOME="));
        let home = home(cx, root, spec.user.uid).unwrap_or_else(|| b"/".to_vec());
        env.push([b"HOME=".as_slice(), &home].concat());
    }
    env
}

/// Most that is read of /etc/passwd.
const PASSWD: usize = 1 << 20;

/// The home directory of a user of the image.
fn home(cx: &Caller<'_>, root: &Path, uid: u32) -> Option<Vec<u8>> {
    let place = resolve(cx, Start::inside(root), b"/etc/passwd", LookupFlags::FOLLOW).ok()?;
    if place.inode().ok()?.file_type() != FileType::Regular {
        return None;
    }
    let file = kernel::vfs::open_path(cx, &place, abi::fcntl::OpenFlags::empty()).ok()?;
    let (mut text, mut at) = (Vec::new(), 0);
    let mut part = vec![0; 64 * 1024];
    while text.len() < PASSWD {
        let n = file.ops().read(cx, &file, &mut kernel::io::SliceSink::new(&mut part), &mut at).ok()?;
        if n == 0 {
            break;
        }
        text.extend_from_slice(part.get(..n)?);
    }
    text.split(|b| *b == b'\n').find_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let number = std::str::from_utf8(fields.nth(2)?).ok()?.parse::<u32>().ok()?;
        (number == uid).then(|| fields.nth(2).map(<[u8]>::to_vec)).flatten().filter(|h| !h.is_empty())
    })
}

/// Makes a process ready to run: what the first argument names.
pub fn prepare(
    place: &Place<'_>,
    spec: &ProcessSpec,
    streams: Streams,
) -> std::result::Result<Prepared, BootError> {
    prepare_program(place, spec, None, streams)
}

/// Makes a process ready to run. `program` if the first argument does not name it.
pub fn prepare_program(
    place: &Place<'_>,
    spec: &ProcessSpec,
    program: Option<&[u8]>,
    streams: Streams,
) -> std::result::Result<Prepared, BootError> {
    let internal = |what: &str, e: Errno| {
        BootError::new(ErrorKind::Internal, format!("{what}: {}", e.text().to_lowercase()))
    };
    let root = place.namespaces.mnt.root();
    let boss = Arc::new(ids::boss(&place.user_ns)?);
    let boss_cx = Caller { creds: &boss, task: None };
    let cwd_name = String::from_utf8_lossy(spec.cwd.as_bytes()).into_owned();
    let cwd = working_directory(&boss_cx, &root, spec.cwd.as_bytes()).map_err(|e| {
        let kind = if e == Errno::ENOENT { ErrorKind::NotFound } else { ErrorKind::Invalid };
        BootError::new(kind, format!("process.cwd: cannot enter {cwd_name:?}: {}", e.text().to_lowercase()))
    })?;
    let creds = Arc::new(creds(spec, &place.user_ns)?);
    let cx = Caller { creds: &creds, task: None };
    let start = Start { root: root.clone(), base: cwd.clone() };
    let (file, path) = find_program(&cx, &start, spec, program)?;
    let limits = limits(spec)?;
    let open = |path: &[u8]| -> Result<Arc<File>> {
        let place = resolve(&cx, start.clone(), path, LookupFlags::FOLLOW)?;
        open_exec(&cx, &place)
    };
    let comm = path.rsplit(|b| *b == b'/').next().unwrap_or(&path).to_vec();
    let loaded = loader::load(loader::ExecArgs {
        kernel: place.kernel,
        caller: cx,
        file,
        path,
        argv: spec.args.iter().map(|a| a.as_bytes().to_vec()).collect(),
        envp: environment(spec, &boss_cx, &root),
        limits: mm_limits(&limits),
        account: place.members.account(),
        no_randomize: false,
        open: &open,
        identity: &|file| identity(&creds, file),
    })
    .map_err(|e| exec_error(&command(spec), e))?;
    let owner = &loaded.identity.creds;
    let (files, terminal) = match streams {
        Streams::Donated(stdio, extra) => descriptors(place, &root, spec, stdio, extra, owner),
        Streams::Text(text) => text_descriptors(place, &root, &text, owner).map(|files| (files, None)),
    }
    .map_err(|e| internal("cannot set up the standard streams", e))?;
    let fs = FsContext::new(root, cwd, spec.user.umask.unwrap_or(0o022));
    let task = Task::new_process(
        place.kernel,
        InitArgs {
            pid_ns: Arc::clone(&place.pid_ns),
            mm: loaded.mm,
            fs,
            files,
            creds: Arc::clone(&loaded.identity.creds),
            namespaces: Arc::clone(&place.namespaces),
            limits: Some(limits),
            comm,
            members: Arc::clone(&place.members),
        },
    )
    .map_err(|e| internal("cannot make the process", e))?;
    task.set_seccomp(place.seccomp.clone());
    if let Some(adj) = spec.oom_score_adj {
        task.group().oom_score_adj.store(adj, std::sync::atomic::Ordering::Relaxed);
    }
    schedule(&task, spec)?;
    task.group().is_mortal.store(spec.mortal, std::sync::atomic::Ordering::Relaxed);
    if let Some(tty) = terminal {
        fs::console::make_controlling(&tty, &task).map_err(|e| internal("cannot set up the terminal", e))?;
    }
    Ok(Prepared { task, regs: loaded.regs })
}

/// Scheduling parameters, which the sentry keeps and tells (sched(7)).
fn schedule(task: &Task, spec: &ProcessSpec) -> std::result::Result<(), BootError> {
    let mut sched = task.sched.lock();
    if let Some(s) = spec.scheduler {
        sched.policy = s.policy;
        sched.reset_on_fork = s.reset_on_fork;
        sched.nice = s.nice;
        sched.priority = s.priority;
        sched.deadline = s.deadline;
    }
    if let Some(cpus) = &spec.cpus {
        let wanted = AffinityMask::of(cpus);
        if wanted.and(&AffinityMask::first(task.kernel().machine.cpus())).is_empty() {
            let text = format!("process.execCPUAffinity.final: the sandbox has none of the CPUs {cpus:?}");
            return Err(BootError::new(ErrorKind::Invalid, text));
        }
        sched.affinity = Some(wanted);
    }
    drop(sched);
    if let Some(priority) = spec.io_priority {
        task.attrs.lock().io_priority = priority;
    }
    Ok(())
}

/// Who the program runs as: execve's rules for the file's mode and owner.
fn identity(creds: &Arc<Creds>, file: &Arc<File>) -> Result<loader::Identity> {
    let attr = file.path().inode()?.attr()?;
    let nosuid = file.path().mount.nosuid();
    let of = ExecFile { mode: attr.mode, uid: attr.uid, gid: attr.gid, nosuid, caps: None, watched: false };
    let new = exec_creds(creds, &of)?;
    Ok(loader::Identity { creds: Arc::new(new.creds), secure: new.secure })
}

fn mm_limits(l: &[Rlimit; 16]) -> MmLimits {
    let of = |r: Resource| l[r as usize].cur;
    MmLimits {
        address_space: of(Resource::As),
        data: of(Resource::Data),
        stack: of(Resource::Stack),
        memlock: of(Resource::Memlock),
        may_lock: false,
    }
}
