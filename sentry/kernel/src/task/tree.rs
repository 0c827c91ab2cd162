//! The tree of processes: parents, children, tracees. One lock guards it (`tasklist_lock`).

use super::{Pid, PidNamespace, ProcessGroup, Session, Task, ThreadGroup, Users};
use abi::{Errno, Result};
use ksync::{LockClass, Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// All processes of a sandbox.
pub struct TaskTree {
    tree: Mutex<Tree>,
    next_key: AtomicU64,
    pub users: Users,
    /// Processes made since boot (/proc/stat).
    pub forks: AtomicU64,
}

/// What the tree's lock guards.
pub(crate) struct Tree {
    nodes: HashMap<u64, Node>,
    /// Tracer's group key → tasks it traces.
    tracees: HashMap<u64, Vec<Weak<Task>>>,
}

pub(super) struct Node {
    pub group: Arc<ThreadGroup>,
    /// Key of the parent process.
    pub parent: Option<u64>,
    /// Key of the parent's thread that made it.
    pub parent_thread: u64,
    pub children: Vec<u64>,
}

impl Default for TaskTree {
    fn default() -> Self {
        TaskTree {
            tree: Mutex::new(LockClass::TaskTree, Tree { nodes: HashMap::new(), tracees: HashMap::new() }),
            next_key: AtomicU64::new(1),
            users: Users::default(),
            forks: AtomicU64::new(0),
        }
    }
}

impl TaskTree {
    pub(crate) fn next_key(&self) -> u64 {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }
    pub(super) fn lock(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock()
    }
    /// Number of processes, zombies included.
    pub fn process_count(&self) -> usize {
        self.lock().nodes.len()
    }
    /// All processes.
    pub fn all_groups(&self) -> Vec<Arc<ThreadGroup>> {
        self.lock().nodes.values().map(|n| Arc::clone(&n.group)).collect()
    }
}

impl Tree {
    pub(super) fn node(&self, key: u64) -> Option<&Node> {
        self.nodes.get(&key)
    }
    /// Adds a process.
    pub(super) fn insert(&mut self, group: &Arc<ThreadGroup>, parent: Option<u64>, parent_thread: u64) {
        if let Some(p) = parent
            && let Some(n) = self.nodes.get_mut(&p)
        {
            n.children.push(group.key());
        }
        let node = Node { group: Arc::clone(group), parent, parent_thread, children: Vec::new() };
        self.nodes.insert(group.key(), node);
    }
    /// Takes a process out.
    pub(super) fn remove(&mut self, key: u64) -> Option<Node> {
        let node = self.nodes.remove(&key)?;
        if let Some(p) = node.parent
            && let Some(n) = self.nodes.get_mut(&p)
        {
            n.children.retain(|c| *c != key);
        }
        Some(node)
    }
    /// Gives a process another parent. All its threads know when this returns, so before anybody can learn that the old one is gone.
    pub(super) fn reparent(&mut self, child: u64, to: Option<u64>, thread: u64) {
        if let Some(n) = self.nodes.get_mut(&child) {
            let group = Arc::clone(&n.group);
            let old = n.parent;
            n.parent = to;
            n.parent_thread = thread;
            if let Some(o) = old.and_then(|o| self.nodes.get_mut(&o)) {
                o.children.retain(|c| *c != child);
            }
            if let Some(t) = to.and_then(|t| self.nodes.get_mut(&t)) {
                t.children.push(child);
            }
            let ppid = self.ppid(&group);
            for thread in group.threads() {
                thread.tell_ppid(ppid);
            }
        }
    }
    /// See [`ThreadGroup::ppid`].
    pub(super) fn ppid(&self, group: &ThreadGroup) -> i32 {
        self.parent(group).and_then(|p| p.pid().number_in(group.pid().namespace())).unwrap_or(0)
    }
    pub(super) fn parent(&self, group: &ThreadGroup) -> Option<Arc<ThreadGroup>> {
        let p = self.nodes.get(&group.key())?.parent?;
        self.nodes.get(&p).map(|n| Arc::clone(&n.group))
    }
    pub(super) fn children(&self, key: u64) -> Vec<Arc<ThreadGroup>> {
        let Some(n) = self.nodes.get(&key) else {
            return Vec::new();
        };
        n.children.iter().filter_map(|c| self.nodes.get(c)).map(|n| Arc::clone(&n.group)).collect()
    }
    pub(super) fn tracees(&self, tracer_group: u64) -> Vec<Arc<Task>> {
        self.tracees
            .get(&tracer_group)
            .map_or_else(Vec::new, |v| v.iter().filter_map(Weak::upgrade).collect())
    }
    pub(super) fn add_tracee(&mut self, tracer_group: u64, task: &Arc<Task>) {
        self.tracees.entry(tracer_group).or_default().push(Arc::downgrade(task));
    }
    pub(super) fn remove_tracee(&mut self, tracer_group: u64, task: &Task) {
        if let Some(v) = self.tracees.get_mut(&tracer_group) {
            v.retain(|w| !std::ptr::eq(w.as_ptr(), task));
            if v.is_empty() {
                self.tracees.remove(&tracer_group);
            }
        }
    }

    /// Whether no member of the group (other than `without`) has a parent in the same session but another group
    /// (setpgid(2), "orphaned process group").
    pub(super) fn is_orphaned(&self, pgrp: &Arc<ProcessGroup>, without: Option<&ThreadGroup>) -> bool {
        for m in pgrp.members() {
            if without.is_some_and(|w| std::ptr::eq(w, &*m)) || m.is_dead() {
                continue;
            }
            let Some(parent) = self.parent(&m) else {
                continue;
            };
            // Linux passes over the children of the host's init only; the first process of a container is none.
            let theirs = parent.pgrp();
            if !Arc::ptr_eq(&theirs, pgrp) && Arc::ptr_eq(theirs.session(), pgrp.session()) {
                return false;
            }
        }
        true
    }
}

impl ThreadGroup {
    /// The parent process; none for the first process of a container and of an exec session.
    pub fn parent(&self) -> Option<Arc<ThreadGroup>> {
        self.kernel()?.tasks.lock().parent(self)
    }
    /// The parent's number as this process sees it, 0 when it is outside of its namespace.
    pub fn ppid(&self) -> i32 {
        self.ppid_in(self.pid().namespace())
    }
    /// The parent's number in a namespace.
    pub fn ppid_in(&self, ns: &PidNamespace) -> i32 {
        self.parent().and_then(|p| p.pid().number_in(ns)).unwrap_or(0)
    }
    /// The child processes.
    pub fn children(&self) -> Vec<Arc<ThreadGroup>> {
        self.kernel().map_or_else(Vec::new, |k| k.tasks.lock().children(self.key()))
    }
    /// Whether its process group is orphaned: then SIGTSTP, SIGTTIN and SIGTTOU do not stop it, and
    /// reading from the terminal fails with EIO instead.
    pub fn in_orphaned_pgrp(&self) -> bool {
        self.kernel().is_some_and(|k| k.tasks.lock().is_orphaned(&self.pgrp(), None))
    }
}

impl Task {
    /// setpgid(2).
    pub fn set_pgid(&self, pid: i32, pgid: i32) -> Result<()> {
        let ns = self.pid_ns();
        let own = self.group.pid().number();
        let pid = if pid == 0 { own } else { pid };
        let pgid = if pgid == 0 { pid } else { pgid };
        if pgid < 0 {
            return Err(Errno::EINVAL);
        }
        let tree = self.kernel.tasks.lock();
        let target = ns.group(pid).ok_or(Errno::ESRCH)?;
        let mine = self.group.session();
        let parent = tree.node(target.key()).and_then(|n| n.parent);
        if parent == Some(self.group.key()) {
            if !Arc::ptr_eq(&target.session(), &mine) {
                return Err(Errno::EPERM);
            }
            if target.has_execed.load(Ordering::Relaxed) {
                return Err(Errno::EACCES);
            }
        } else if !Arc::ptr_eq(&target, &self.group) {
            return Err(Errno::ESRCH);
        }
        if target.is_session_leader() {
            return Err(Errno::EPERM);
        }
        let group = if pgid == pid {
            match target.pid().process_group() {
                Some(g) if Arc::ptr_eq(g.session(), &mine) => g,
                _ => ProcessGroup::new(target.pid(), &mine),
            }
        } else {
            let g = ns.find(pgid).and_then(|p| p.process_group()).filter(|g| !g.members().is_empty());
            g.filter(|g| Arc::ptr_eq(g.session(), &mine)).ok_or(Errno::EPERM)?
        };
        move_to(&target, &group);
        drop(tree);
        Ok(())
    }

    /// setsid(2): the new session's id.
    pub fn new_session(&self) -> Result<i32> {
        let tree = self.kernel.tasks.lock();
        let pid: &Arc<Pid> = self.group.pid();
        if self.group.is_session_leader() || pid.process_group().is_some_and(|g| !g.members().is_empty()) {
            return Err(Errno::EPERM);
        }
        let session = Session::new(pid, &self.group);
        let pgrp = ProcessGroup::new(pid, &session);
        move_to(&self.group, &pgrp);
        drop(tree);
        Ok(pid.number())
    }
}

/// Moves a process to another group. The tree is locked.
fn move_to(group: &Arc<ThreadGroup>, to: &Arc<ProcessGroup>) {
    let old = group.pgrp();
    if Arc::ptr_eq(&old, to) {
        return;
    }
    // In the new one first, so that a number that both share stays in use.
    to.add(group);
    group.set_pgrp(Arc::clone(to));
    old.remove(group);
}
