//! A cgroup2 hierarchy of one group: what a container finds at /sys/fs/cgroup. It shows the sandbox' own
//! limits and use; it cannot be changed from inside.

use crate::pseudo::{Node, PseudoFs, StaticDir, fixed, text};
use abi::{Errno, Result};
use kernel::Kernel;
use kernel::task::Members;
use kernel::vfs::{Caller, FileSystem, FsFlags};
use std::sync::Arc;

/// `CGROUP2_SUPER_MAGIC`
const MAGIC: i64 = 0x6367_7270;

fn kernel<'a>(cx: &Caller<'a>) -> Result<&'a Arc<Kernel>> {
    cx.task.map(|t| t.kernel()).ok_or(Errno::ESRCH)
}

fn line(n: impl std::fmt::Display) -> Result<Vec<u8>> {
    Ok(format!("{n}\n").into_bytes())
}

/// The container of whoever asks.
fn members<'a>(cx: &Caller<'a>) -> Result<&'a Arc<Members>> {
    cx.task.map(|t| t.group().members()).ok_or(Errno::ESRCH)
}

fn memory_current(cx: &Caller<'_>) -> Result<Vec<u8>> {
    line(members(cx)?.memory().used())
}

fn memory_events(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let m = members(cx)?;
    let max = m.memory().refusals();
    line(format!("low 0\nhigh 0\nmax {max}\noom {}\noom_kill {}\noom_group_kill 0", m.ooms(), m.oom_kills()))
}

fn memory_max(cx: &Caller<'_>) -> Result<Vec<u8>> {
    if let Some(limit) = members(cx)?.memory().limit() {
        return line(limit);
    }
    let hw = &kernel(cx)?.machine;
    if hw.memory() == hw.host.memory { line("max") } else { line(hw.memory()) }
}

fn pids_max(cx: &Caller<'_>) -> Result<Vec<u8>> {
    match members(cx)?.limit() {
        Some(limit) => line(limit),
        None => line("max"),
    }
}

fn cpu_max(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let hw = &kernel(cx)?.machine;
    if hw.cpus() == hw.host.cpus.len() {
        line("max 100000")
    } else {
        line(format!("{} 100000", hw.cpus() * 100_000))
    }
}

fn cpu_stat(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let k = kernel(cx)?;
    let (mut user, mut system) = (0, 0);
    for g in k.root_pid_ns.groups() {
        let (u, s) = g.cpu_time();
        user += u / 1000;
        system += s / 1000;
    }
    line(format!("usage_usec {}\nuser_usec {user}\nsystem_usec {system}", user + system))
}

fn procs(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let ns = cx.task.ok_or(Errno::ESRCH)?.pid_ns();
    Ok(ns.group_numbers(1).iter().flat_map(|n| format!("{n}\n").into_bytes()).collect())
}

fn threads(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let ns = cx.task.ok_or(Errno::ESRCH)?.pid_ns();
    let mut all: Vec<i32> = ns.tasks().iter().filter_map(|t| t.pid().number_in(&ns)).collect();
    all.sort_unstable();
    Ok(all.iter().flat_map(|n| format!("{n}\n").into_bytes()).collect())
}

/// The file system.
pub fn mount(kernel_: &Arc<Kernel>) -> Arc<dyn FileSystem> {
    let mut ino = 2;
    let mut d = StaticDir::new();
    let mut add = |name: &str, node: Node| {
        d.add(&mut ino, name, 0o444, node);
    };
    add("cgroup.controllers", fixed("cpu memory pids\n"));
    add("cgroup.subtree_control", fixed("\n"));
    add("cgroup.type", fixed("domain\n"));
    add("cgroup.procs", text(procs));
    add("cgroup.threads", text(threads));
    add("cgroup.events", fixed("populated 1\nfrozen 0\n"));
    add("cpu.max", text(cpu_max));
    add("cpu.stat", text(cpu_stat));
    add("memory.max", text(memory_max));
    add("memory.current", text(memory_current));
    add("memory.events", text(memory_events));
    add("memory.swap.max", text(|cx| line(kernel(cx)?.machine.swap())));
    add("pids.current", text(|cx| line(members(cx)?.tasks())));
    add("pids.max", text(pids_max));
    let now = kernel_.clocks.now();
    PseudoFs::new(
        "cgroup2",
        kernel_.vfs.new_dev(),
        MAGIC,
        FsFlags::empty(),
        now,
        "nsdelegate".to_owned(),
        Arc::new(d),
    )
}
