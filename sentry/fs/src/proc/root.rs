//! The root directory of a proc: fixed files and a directory for each process of one PID namespace.

use super::process::{self, TaskDir, WHOLE_PROCESS};
use super::{sys, system};
use crate::pseudo::{DirNode, LinkNode, Node, Owner, PseudoFs, PseudoInode, StaticDir, fixed, text};
use abi::stat::FileType;
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::task::PidNamespace;
use kernel::vfs::{Caller, FsFlags, Inode, LinkTarget};
use std::sync::Arc;

/// `PROC_SUPER_MAGIC`
const MAGIC: i64 = 0x9fa0;

/// Position of the first process in the directory: behind all fixed entries.
const FIRST_PROCESS: u64 = 256;

/// A proc that shows the processes of `pid_ns`.
pub fn new(dev: u64, born: Timespec, pid_ns: Arc<PidNamespace>) -> Arc<PseudoFs> {
    let mut ino = 0xf000_0000;
    let mut top = StaticDir::new();
    top.add(&mut ino, "cpuinfo", 0o444, text(system::cpuinfo));
    top.add(&mut ino, "meminfo", 0o444, text(system::meminfo));
    top.add(&mut ino, "uptime", 0o444, text(system::uptime));
    top.add(&mut ino, "stat", 0o444, text(system::stat));
    top.add(&mut ino, "loadavg", 0o444, text(system::loadavg));
    top.add(&mut ino, "vmstat", 0o444, text(system::vmstat));
    top.add(&mut ino, "version", 0o444, text(super::uts::version));
    top.add(&mut ino, "filesystems", 0o444, fixed(system::FILESYSTEMS));
    top.add(&mut ino, "devices", 0o444, fixed(system::DEVICES));
    top.add(&mut ino, "cmdline", 0o444, fixed("runsc\n"));
    top.add(&mut ino, "swaps", 0o444, text(system::swaps));
    top.add(&mut ino, "partitions", 0o444, fixed("major minor  #blocks  name\n\n"));
    top.add(&mut ino, "diskstats", 0o444, fixed(""));
    top.add(&mut ino, "interrupts", 0o444, fixed(""));
    top.add(&mut ino, "modules", 0o444, fixed(""));
    top.add(&mut ino, "locks", 0o444, fixed(""));
    top.add(&mut ino, "misc", 0o444, fixed(""));
    top.add(&mut ino, "crypto", 0o444, fixed(""));
    top.add(&mut ino, "consoles", 0o444, fixed(""));
    top.add(&mut ino, "cgroups", 0o444, fixed("#subsys_name\thierarchy\tnum_cgroups\tenabled\n"));
    top.add(&mut ino, "kallsyms", 0o444, fixed(""));
    top.add(&mut ino, "timer_list", 0o400, fixed(""));
    top.add(&mut ino, "sched_debug", 0o444, fixed(""));
    top.add(&mut ino, "kcore", 0o400, fixed(""));
    for name in ["acpi", "bus", "fs", "irq", "scsi", "tty", "driver"] {
        top.add(&mut ino, name, 0o555, Node::Dir(Arc::new(StaticDir::new())));
    }
    let sysvipc = super::sysvipc::node(&mut ino);
    top.add(&mut ino, "sysvipc", 0o555, sysvipc);
    let settings = sys::tree(&mut ino);
    top.add(&mut ino, "sys", 0o555, Node::Dir(Arc::new(settings)));
    top.add(
        &mut ino,
        "self",
        0o777,
        Node::Link(Arc::new(SelfLink { thread: false, pid_ns: Arc::clone(&pid_ns) })),
    );
    let thread_self = SelfLink { thread: true, pid_ns: Arc::clone(&pid_ns) };
    top.add(&mut ino, "thread-self", 0o777, Node::Link(Arc::new(thread_self)));
    for (name, target) in [("mounts", "self/mounts"), ("net", "self/net")] {
        top.add(&mut ino, name, 0o777, Node::Link(Arc::new(TextLink(target))));
    }
    let root: Arc<dyn DirNode> = Arc::new(Root { top, pid_ns });
    let flags =
        FsFlags::REVALIDATE | FsFlags::NO_NEGATIVE | FsFlags::NOEXEC | FsFlags::NOSUID | FsFlags::NODEV;
    PseudoFs::new("proc", dev, MAGIC, flags, born, String::new(), root)
}

struct TextLink(&'static str);

impl LinkNode for TextLink {
    fn target(&self, _cx: &Caller<'_>) -> Result<LinkTarget> {
        Ok(LinkTarget::Text(self.0.as_bytes().to_vec()))
    }
}

/// /proc/self and /proc/thread-self
struct SelfLink {
    thread: bool,
    pid_ns: Arc<PidNamespace>,
}

impl LinkNode for SelfLink {
    fn target(&self, cx: &Caller<'_>) -> Result<LinkTarget> {
        let task = cx.task.ok_or(Errno::ENOENT)?;
        let pid = task.group().pid().number_in(&self.pid_ns).ok_or(Errno::ENOENT)?;
        let text = if self.thread {
            let tid = task.pid().number_in(&self.pid_ns).ok_or(Errno::ENOENT)?;
            format!("{pid}/task/{tid}")
        } else {
            pid.to_string()
        };
        Ok(LinkTarget::Text(text.into_bytes()))
    }
}

struct Root {
    top: StaticDir,
    pid_ns: Arc<PidNamespace>,
}

/// A process or thread number as the name of a directory: digits without leading zeroes.
pub(super) fn number(name: &[u8]) -> Option<i32> {
    if name.first() == Some(&b'0') || name.is_empty() || !name.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

impl DirNode for Root {
    fn lookup(&self, cx: &Caller<'_>, fs: &Arc<PseudoFs>, name: &[u8]) -> Result<Arc<PseudoInode>> {
        let Some(nr) = number(name) else { return self.top.lookup(cx, fs, name) };
        let task = self.pid_ns.task(nr).ok_or(Errno::ENOENT)?;
        let dir = TaskDir::new(&task, Arc::clone(&self.pid_ns), true);
        let owner = Owner::Asked(process::owner_of(&task));
        Ok(PseudoInode::new(fs, process::ino(nr, WHOLE_PROCESS), 0o555, owner, Node::Dir(Arc::new(dir))))
    }

    fn list(&self, cx: &Caller<'_>, from: u64, emit: &mut dyn FnMut(u64, u64, FileType, &[u8]) -> bool) {
        let mut more = true;
        if from < FIRST_PROCESS {
            self.top.list(cx, from, &mut |at, ino, kind, name| {
                more = emit(at, ino, kind, name);
                more
            });
        }
        let start = i32::try_from(from.saturating_sub(FIRST_PROCESS)).unwrap_or(i32::MAX);
        if !more {
            return;
        }
        for nr in self.pid_ns.group_numbers(start.max(1)) {
            let at = FIRST_PROCESS + u64::from(nr.unsigned_abs());
            let ino = process::ino(nr, WHOLE_PROCESS);
            if !emit(at, ino, FileType::Directory, nr.to_string().as_bytes()) {
                return;
            }
        }
    }

    fn revalidate(&self, _cx: &Caller<'_>, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        match (number(name), child) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(_), Some(inode)) => process::is_alive(inode),
        }
    }

    fn nlink(&self) -> u32 {
        let processes = u32::try_from(self.pid_ns.group_numbers(1).len()).unwrap_or(u32::MAX - 64);
        self.top.nlink() + processes
    }
}
