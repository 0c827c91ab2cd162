//! /proc/sysvipc: the System V objects of the reader's IPC namespace, one a line (proc_sysvipc(5)).

use crate::pseudo::{Node, StaticDir, text};
use abi::{Errno, Result};
use kernel::Task;
use kernel::creds::UserNamespace;
use kernel::sysv::{MsgTable, Perm, SemTable, ShmTable};
use kernel::vfs::Caller;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The directory.
pub(super) fn node(ino: &mut u64) -> Node {
    let mut dir = StaticDir::new();
    dir.add(ino, "msg", 0o444, text(msg));
    dir.add(ino, "sem", 0o444, text(sem));
    dir.add(ino, "shm", 0o444, text(shm));
    Node::Dir(Arc::new(dir))
}

fn task<'a>(cx: &Caller<'a>) -> Result<&'a Task> {
    cx.task.ok_or(Errno::EINVAL)
}

/// Owner and creator, as the reader's user namespace has them.
fn owners(perm: &Perm, ns: &UserNamespace) -> String {
    let (uid, gid) = (ns.uid_in(perm.uid), ns.gid_in(perm.gid));
    format!("{uid:5} {gid:5} {:5} {:5}", ns.uid_in(perm.cuid), ns.gid_in(perm.cgid))
}

/// A process by its number in the reader's PID namespace, 0 for one that is not there.
fn pid_in(task: &Task, pid: i32) -> i32 {
    let found = task.kernel().root_pid_ns.find(pid);
    found.and_then(|p| p.number_in(&task.pid_ns())).unwrap_or(0)
}

fn shm(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let task = task(cx)?;
    let ns = &cx.creds.user_ns;
    let mut out = String::from(
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      \
         atime      dtime      ctime                   rss                  swap\n",
    );
    let table = task.namespaces().ipc.objects.get_or_init(ShmTable::default);
    for s in table.all().0 {
        let perm = s.perm_now();
        // SHM_DEST and SHM_LOCKED stand beside the permissions.
        let mode = perm.mode
            | if s.doomed.load(Ordering::SeqCst) { 0o1000 } else { 0 }
            | if s.locked.load(Ordering::Relaxed) { 0o2000 } else { 0 };
        let _ = writeln!(
            out,
            "{:10} {:10}  {mode:4o} {:21} {:5} {:5}  {:5} {} {:10} {:10} {:10} {:21} {:21}",
            perm.key,
            s.id,
            s.size,
            pid_in(task, s.creator),
            pid_in(task, s.last_pid.load(Ordering::Relaxed)),
            s.attachments(),
            owners(&perm, ns),
            s.attached.load(Ordering::Relaxed),
            s.detached.load(Ordering::Relaxed),
            s.changed.load(Ordering::Relaxed),
            s.resident(),
            0
        );
    }
    Ok(out.into_bytes())
}

fn msg(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let task = task(cx)?;
    let mut out = String::from(
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      \
         stime      rtime      ctime\n",
    );
    let table = task.namespaces().ipc.objects.get_or_init(MsgTable::default);
    for q in table.all() {
        let (perm, bytes, count, pids, times) = {
            let s = q.state.lock();
            (s.perm.clone(), s.bytes, s.len(), [s.lspid, s.lrpid], [s.stime, s.rtime, s.ctime])
        };
        let _ = writeln!(
            out,
            "{:10} {:10}  {:4o}  {bytes:10} {count:10} {:5} {:5} {} {:10} {:10} {:10}",
            perm.key,
            q.id,
            perm.mode,
            pid_in(task, pids[0]),
            pid_in(task, pids[1]),
            owners(&perm, &cx.creds.user_ns),
            times[0],
            times[1],
            times[2]
        );
    }
    Ok(out.into_bytes())
}

fn sem(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let task = task(cx)?;
    let mut out = String::from(
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n",
    );
    let table = task.namespaces().ipc.objects.get_or_init(SemTable::default);
    for set in table.all() {
        let s = set.state.lock();
        let _ = writeln!(
            out,
            "{:10} {:10}  {:4o} {:10} {} {:10} {:10}",
            s.perm.key,
            set.id,
            s.perm.mode,
            s.sems.len(),
            owners(&s.perm, &cx.creds.user_ns),
            s.otime,
            s.ctime
        );
    }
    Ok(out.into_bytes())
}
