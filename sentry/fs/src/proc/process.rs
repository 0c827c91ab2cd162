//! The directory of a process or thread: /proc/PID and /proc/PID/task/TID.

use super::root::number;
use super::{clocks, fds, mappings, status};
use crate::pseudo::{DirNode, FileNode, LinkNode, Node, Owner, PseudoFs, PseudoInode};
use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use kernel::Task;
use kernel::creds::CapSet;
use kernel::task::PidNamespace;
use kernel::vfs::{Caller, FileOps, Inode, LinkTarget};
use std::sync::{Arc, Weak};

/// Numbers the entry of /proc/PID itself among the inodes of a process.
pub(super) const WHOLE_PROCESS: u64 = 0;

/// Inode number of the `part`-th file of a process.
pub(super) fn ino(pid: i32, part: u64) -> u64 {
    (u64::from(pid.unsigned_abs()) << 24) | part
}

/// What the files of one directory have in common.
#[derive(Clone)]
pub(super) struct Of {
    task: Weak<Task>,
    /// The namespace that this proc shows.
    pub ns: Arc<PidNamespace>,
    /// Of the whole process, not just of one thread.
    pub whole: bool,
    pub nr: i32,
}

impl Of {
    /// The task; ESRCH when it is gone.
    pub fn task(&self) -> Result<Arc<Task>> {
        let t = self.task.upgrade().ok_or(Errno::ESRCH)?;
        if t.pid().task().is_none() { Err(Errno::ESRCH) } else { Ok(t) }
    }
}

/// User and group that own the files of a task: those of its credentials, root when it is not
/// dumpable.
pub(super) fn owner_of(task: &Arc<Task>) -> Arc<dyn Fn() -> (u32, u32) + Send + Sync> {
    let task = Arc::downgrade(task);
    Arc::new(move || match task.upgrade() {
        Some(t) if t.group().dumpable() == 1 => {
            let c = t.creds();
            (c.euid, c.egid)
        }
        _ => (0, 0),
    })
}

/// The process whose directory this is.
pub fn pid_of(inode: &Arc<dyn Inode>) -> Option<Arc<kernel::task::Pid>> {
    let any: &dyn std::any::Any = &**inode;
    match any.downcast_ref::<PseudoInode>().map(PseudoInode::node) {
        Some(Node::Dir(d)) => d.pid(),
        _ => None,
    }
}

/// Whether the task behind the inode of a process' directory is still there.
pub(super) fn is_alive(inode: &Arc<dyn Inode>) -> bool {
    let any: &dyn std::any::Any = &**inode;
    match any.downcast_ref::<PseudoInode>().map(PseudoInode::node) {
        Some(Node::Dir(d)) => d.nlink() != 0,
        _ => false,
    }
}

/// Whether the caller may look at the insides of a task (`ptrace_may_access` with
/// `PTRACE_MODE_READ_FSCREDS`, ptrace(2)).
pub(super) fn may_inspect(cx: &Caller<'_>, task: &Task) -> Result<()> {
    if cx.task.is_some_and(|t| Arc::ptr_eq(t.group(), task.group())) {
        return Ok(());
    }
    let c = task.creds();
    let me = cx.creds;
    let same = [c.uid, c.euid, c.suid].iter().all(|u| *u == me.fsuid)
        && [c.gid, c.egid, c.sgid].iter().all(|g| *g == me.fsgid);
    let capable = me.has_cap_in(&c.user_ns, CapSet::SYS_PTRACE);
    if !capable && (!same || task.group().dumpable() != 1 || !me.permitted.contains(c.permitted)) {
        return Err(Errno::EACCES);
    }
    Ok(())
}

type Text = fn(&Of, &Caller<'_>, &Task) -> Result<Vec<u8>>;
type Write = fn(&Of, &Caller<'_>, &Task, &[u8]) -> Result<()>;
type Link = fn(&Of, &Caller<'_>, &Task) -> Result<LinkTarget>;

/// A kind of entry.
enum Kind {
    /// A file; the flag says that reading needs the right to inspect.
    Text(Text, bool),
    Writable(Text, Write),
    /// A list of mounts, whose changes can be waited for.
    Mounts(Text),
    /// A magic link; following and reading it needs the right to inspect.
    Link(Link),
    Mem,
    Fds,
    FdInfo,
    Ns,
    Tasks,
    Net,
}

struct EntryDef {
    name: &'static str,
    perm: u32,
    /// Only in /proc/PID, not in /proc/PID/task/TID.
    process_only: bool,
    kind: Kind,
}

const fn entry(name: &'static str, perm: u32, kind: Kind) -> EntryDef {
    EntryDef { name, perm, process_only: false, kind }
}

#[rustfmt::skip]
static ENTRIES: &[EntryDef] = &[
    EntryDef { name: "task", perm: 0o555, process_only: true, kind: Kind::Tasks },
    entry("fd", 0o500, Kind::Fds),
    entry("fdinfo", 0o555, Kind::FdInfo),
    entry("ns", 0o511, Kind::Ns),
    entry("net", 0o555, Kind::Net),
    entry("auxv", 0o400, Kind::Text(mappings::auxv, true)),
    entry("cgroup", 0o444, Kind::Text(status::cgroup, false)),
    entry("cmdline", 0o444, Kind::Text(mappings::cmdline, false)),
    entry("comm", 0o644, Kind::Writable(status::comm, status::set_comm)),
    entry("cwd", 0o777, Kind::Link(fds::cwd)),
    entry("environ", 0o400, Kind::Text(mappings::environ, true)),
    entry("exe", 0o777, Kind::Link(fds::exe)),
    entry("gid_map", 0o644, Kind::Writable(status::gid_map, status::set_gid_map)),
    entry("io", 0o400, Kind::Text(status::io, true)),
    entry("limits", 0o444, Kind::Text(status::limits, false)),
    entry("loginuid", 0o644, Kind::Writable(status::loginuid, status::set_loginuid)),
    entry("maps", 0o444, Kind::Text(mappings::maps, true)),
    entry("mem", 0o600, Kind::Mem),
    entry("mountinfo", 0o444, Kind::Mounts(status::mountinfo)),
    entry("mounts", 0o444, Kind::Mounts(status::mounts)),
    entry("mountstats", 0o400, Kind::Mounts(status::mountstats)),
    entry("oom_adj", 0o644, Kind::Writable(status::oom_adj, status::set_oom_adj)),
    entry("oom_score", 0o444, Kind::Text(status::oom_score, false)),
    entry("oom_score_adj", 0o644, Kind::Writable(status::oom_score_adj, status::set_oom_score_adj)),
    entry("personality", 0o400, Kind::Text(status::personality, true)),
    entry("root", 0o777, Kind::Link(fds::root)),
    entry("sched", 0o444, Kind::Text(status::sched, false)),
    entry("schedstat", 0o444, Kind::Text(status::schedstat, false)),
    entry("sessionid", 0o444, Kind::Text(status::sessionid, false)),
    entry("setgroups", 0o644, Kind::Writable(status::setgroups, status::set_setgroups)),
    entry("smaps", 0o444, Kind::Text(mappings::smaps, true)),
    entry("smaps_rollup", 0o444, Kind::Text(mappings::smaps_rollup, true)),
    entry("stack", 0o400, Kind::Text(status::stack, true)),
    entry("stat", 0o444, Kind::Text(status::stat, false)),
    entry("statm", 0o444, Kind::Text(mappings::statm, false)),
    entry("status", 0o444, Kind::Text(status::status, false)),
    entry("syscall", 0o400, Kind::Text(status::syscall, true)),
    entry("children", 0o444, Kind::Text(status::children, false)),
    EntryDef { name: "timerslack_ns", perm: 0o666, process_only: true, kind: Kind::Writable(status::timer_slack, status::set_timer_slack) },
    EntryDef { name: "timers", perm: 0o444, process_only: true, kind: Kind::Text(status::timers, false) },
    entry("timens_offsets", 0o644, Kind::Writable(clocks::timens_offsets, clocks::set_timens_offsets)),
    entry("uid_map", 0o644, Kind::Writable(status::uid_map, status::set_uid_map)),
    entry("wchan", 0o444, Kind::Text(status::wchan, false)),
];

/// /proc/PID or /proc/PID/task/TID
pub(super) struct TaskDir {
    of: Of,
}

impl TaskDir {
    pub fn new(task: &Arc<Task>, ns: Arc<PidNamespace>, whole: bool) -> TaskDir {
        let nr = task.pid().number_in(&ns).unwrap_or(0);
        TaskDir { of: Of { task: Arc::downgrade(task), ns, whole, nr } }
    }

    fn node(&self, def: &'static EntryDef) -> Node {
        let of = self.of.clone();
        match def.kind {
            Kind::Text(..) | Kind::Writable(..) | Kind::Mounts(_) | Kind::Mem => {
                Node::File(Arc::new(TaskFile { of, def }))
            }
            Kind::Link(target) => Node::Link(Arc::new(TaskLink { of, target })),
            Kind::Fds => Node::Dir(Arc::new(fds::FdDir { of, info: false })),
            Kind::FdInfo => Node::Dir(Arc::new(fds::FdDir { of, info: true })),
            Kind::Ns => Node::Dir(Arc::new(fds::NsDir { of })),
            Kind::Tasks => Node::Dir(Arc::new(Threads { of })),
            Kind::Net => Node::Dir(Arc::new(super::net::NetDir)),
        }
    }

    /// Threads have their numbers apart from processes, so that the inodes differ.
    fn part(&self, i: usize) -> u64 {
        let base = if self.of.whole { 1 } else { 0x80_0001 };
        base + i as u64
    }
}

impl DirNode for TaskDir {
    fn pid(&self) -> Option<Arc<kernel::task::Pid>> {
        if self.of.whole { self.of.task().ok().map(|t| t.pid()) } else { None }
    }
    fn lookup(&self, _cx: &Caller<'_>, fs: &Arc<PseudoFs>, name: &[u8]) -> Result<Arc<PseudoInode>> {
        let task = self.of.task().map_err(|_| Errno::ENOENT)?;
        let found = ENTRIES.iter().enumerate().find(|(_, e)| e.name.as_bytes() == name);
        let (i, def) = found.filter(|(_, e)| self.of.whole || !e.process_only).ok_or(Errno::ENOENT)?;
        let owner = Owner::Asked(owner_of(&task));
        Ok(PseudoInode::new(fs, ino(self.of.nr, self.part(i)), def.perm, owner, self.node(def)))
    }

    fn list(&self, _cx: &Caller<'_>, from: u64, emit: &mut dyn FnMut(u64, u64, FileType, &[u8]) -> bool) {
        for (i, e) in ENTRIES.iter().enumerate() {
            let at = i as u64 + 2;
            if at < from || (e.process_only && !self.of.whole) {
                continue;
            }
            let kind = match e.kind {
                Kind::Text(..) | Kind::Writable(..) | Kind::Mounts(_) | Kind::Mem => FileType::Regular,
                Kind::Link(_) => FileType::Symlink,
                _ => FileType::Directory,
            };
            if !emit(at, ino(self.of.nr, self.part(i)), kind, e.name.as_bytes()) {
                return;
            }
        }
    }

    fn revalidate(&self, _cx: &Caller<'_>, _name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        child.is_none() || self.of.task().is_ok()
    }

    fn nlink(&self) -> u32 {
        if self.of.task().is_ok() { 9 } else { 0 }
    }
}

struct TaskFile {
    of: Of,
    def: &'static EntryDef,
}

impl FileNode for TaskFile {
    fn read(&self, cx: &Caller<'_>) -> Result<Vec<u8>> {
        let task = self.of.task()?;
        match self.def.kind {
            Kind::Text(f, inspect) => {
                if inspect {
                    may_inspect(cx, &task)?;
                }
                f(&self.of, cx, &task)
            }
            Kind::Writable(f, _) | Kind::Mounts(f) => f(&self.of, cx, &task),
            _ => Err(Errno::EINVAL),
        }
    }

    fn write(&self, cx: &Caller<'_>, data: &[u8], _pos: u64) -> Result<usize> {
        let task = self.of.task()?;
        match self.def.kind {
            Kind::Writable(_, f) => f(&self.of, cx, &task, data).map(|()| data.len()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn may_open(&self, cx: &Caller<'_>, _flags: OpenFlags) -> Result<()> {
        let task = self.of.task()?;
        match self.def.kind {
            Kind::Text(_, true) | Kind::Mem => may_inspect(cx, &task),
            _ => Ok(()),
        }
    }

    fn special(self: Arc<Self>, _cx: &Caller<'_>, _flags: OpenFlags) -> Option<Result<Arc<dyn FileOps>>> {
        match self.def.kind {
            Kind::Mem => Some(self.of.task().map(|t| mappings::mem(&t))),
            Kind::Mounts(_) => Some(self.of.task().map(|t| super::mounts::open(self, &t))),
            _ => None,
        }
    }
}

struct TaskLink {
    of: Of,
    target: Link,
}

impl LinkNode for TaskLink {
    fn target(&self, cx: &Caller<'_>) -> Result<LinkTarget> {
        let task = self.of.task()?;
        may_inspect(cx, &task)?;
        (self.target)(&self.of, cx, &task)
    }
}

/// /proc/PID/task
struct Threads {
    of: Of,
}

impl Threads {
    fn numbers(&self) -> Vec<(i32, Arc<Task>)> {
        let Ok(task) = self.of.task() else { return Vec::new() };
        let threads = task.group().threads();
        let mut all: Vec<_> =
            threads.into_iter().filter_map(|t| t.pid().number_in(&self.of.ns).map(|n| (n, t))).collect();
        all.sort_unstable_by_key(|(n, _)| *n);
        all
    }
}

impl DirNode for Threads {
    fn lookup(&self, _cx: &Caller<'_>, fs: &Arc<PseudoFs>, name: &[u8]) -> Result<Arc<PseudoInode>> {
        let nr = number(name).ok_or(Errno::ENOENT)?;
        let (_, task) = self.numbers().into_iter().find(|(n, _)| *n == nr).ok_or(Errno::ENOENT)?;
        let dir = TaskDir::new(&task, Arc::clone(&self.of.ns), false);
        let owner = Owner::Asked(owner_of(&task));
        Ok(PseudoInode::new(fs, ino(nr, 0x80_0000), 0o555, owner, Node::Dir(Arc::new(dir))))
    }

    fn list(&self, _cx: &Caller<'_>, from: u64, emit: &mut dyn FnMut(u64, u64, FileType, &[u8]) -> bool) {
        for (nr, _) in self.numbers() {
            let at = u64::from(nr.unsigned_abs()) + 2;
            if at >= from && !emit(at, ino(nr, 0x80_0000), FileType::Directory, nr.to_string().as_bytes()) {
                return;
            }
        }
    }

    fn revalidate(&self, _cx: &Caller<'_>, _name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        child.is_some_and(is_alive)
    }

    fn nlink(&self) -> u32 {
        if self.of.task().is_ok() { 2 + u32::try_from(self.numbers().len()).unwrap_or(0) } else { 0 }
    }
}
