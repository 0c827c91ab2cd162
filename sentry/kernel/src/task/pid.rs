//! PID numbers and PID namespaces (pid_namespaces(7)).
//!
//! A [`Pid`] is what a number stands for: it lives as long as a task, process group or session uses
//! it or a pidfd refers to it. It has one number in its namespace and one in each ancestor.

use super::{ProcessGroup, Session, Task, ThreadGroup};
use crate::creds::UserNamespace;
use abi::{Errno, Result};
use ksync::live::{Kind, Live};
use ksync::{LockClass, Mutex, WaitQueue};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Numbers are given out below this (`/proc/sys/kernel/pid_max`).
pub const PID_MAX: i32 = 4_194_304;
/// After a wrap numbers start here.
const RESERVED: i32 = 300;

/// A PID namespace.
pub struct PidNamespace {
    /// The inode number that /proc/pid/ns shows.
    pub id: u64,
    /// 0 for the sandbox's root.
    pub level: usize,
    pub parent: Option<Arc<PidNamespace>>,
    pub user_ns: Arc<UserNamespace>,
    table: Mutex<Table>,
    /// The init process has ended: no new task can come in.
    dead: AtomicBool,
    /// Told whenever a number is freed: the init waits here for the others to go.
    pub emptied: Arc<WaitQueue>,
    /// For the test that nothing is leaked.
    _live: Live,
}

struct Table {
    map: BTreeMap<i32, Arc<Pid>>,
    last: i32,
    init: Weak<ThreadGroup>,
}

impl PidNamespace {
    /// A namespace below `parent`, or the root of a sandbox.
    pub fn new(id: u64, parent: Option<Arc<PidNamespace>>, user_ns: Arc<UserNamespace>) -> Arc<PidNamespace> {
        Arc::new(PidNamespace {
            _live: Live::new(Kind::PidNamespace),
            id,
            level: parent.as_ref().map_or(0, |p| p.level + 1),
            parent,
            user_ns,
            table: Mutex::new(LockClass::Leaf, Table { map: BTreeMap::new(), last: 0, init: Weak::new() }),
            dead: AtomicBool::new(false),
            emptied: Arc::new(WaitQueue::new()),
        })
    }

    /// The root of a sandbox, with the id that Linux' initial one has.
    pub fn root(user_ns: &Arc<UserNamespace>) -> Arc<PidNamespace> {
        Self::new(0xefff_fffc, None, Arc::clone(user_ns))
    }

    /// What a number stands for.
    pub fn find(&self, nr: i32) -> Option<Arc<Pid>> {
        self.table.lock().map.get(&nr).cloned()
    }
    /// The task with this number.
    pub fn task(&self, nr: i32) -> Option<Arc<Task>> {
        self.find(nr)?.task()
    }
    /// The process with this number.
    pub fn group(&self, nr: i32) -> Option<Arc<ThreadGroup>> {
        self.find(nr)?.group()
    }
    /// All tasks, by number.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        let pids: Vec<Arc<Pid>> = self.table.lock().map.values().cloned().collect();
        pids.iter().filter_map(|p| p.task()).collect()
    }
    /// All processes, by number.
    pub fn groups(&self) -> Vec<Arc<ThreadGroup>> {
        let pids: Vec<Arc<Pid>> = self.table.lock().map.values().cloned().collect();
        pids.iter().filter_map(|p| p.group()).collect()
    }
    /// The numbers of all processes from `from` on.
    pub fn group_numbers(&self, from: i32) -> Vec<i32> {
        let pids: Vec<(i32, Arc<Pid>)> =
            self.table.lock().map.range(from..).map(|(n, p)| (*n, Arc::clone(p))).collect();
        pids.into_iter().filter(|(_, p)| p.group().is_some()).map(|(n, _)| n).collect()
    }
    /// The process that is pid 1 here.
    pub fn init(&self) -> Option<Arc<ThreadGroup>> {
        self.table.lock().init.upgrade()
    }
    /// The number that was given out last (`ns_last_pid`, /proc/loadavg).
    pub fn last(&self) -> i32 {
        self.table.lock().last
    }
    /// Whether `self` is `other` or lies inside it.
    pub fn is_within(self: &Arc<Self>, other: &Arc<PidNamespace>) -> bool {
        let mut at = Some(Arc::clone(self));
        while let Some(ns) = at {
            if Arc::ptr_eq(&ns, other) {
                return true;
            }
            at = ns.parent.clone();
        }
        false
    }

    pub(super) fn set_init(&self, group: &Arc<ThreadGroup>) {
        self.table.lock().init = Arc::downgrade(group);
    }
    pub(super) fn set_dead(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }
    /// Whether its init has ended.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
    /// Whether it never had a task.
    pub fn is_fresh(&self) -> bool {
        let t = self.table.lock();
        t.last == 0
    }

    fn reserve(&self, pid: &Arc<Pid>) {
        let nr = pid.numbers[self.level].1;
        self.table.lock().map.insert(nr, Arc::clone(pid));
    }

    fn pick(&self, want: Option<i32>) -> Result<i32> {
        let mut t = self.table.lock();
        if let Some(nr) = want {
            if !(1..PID_MAX).contains(&nr) || (nr != 1 && t.last == 0) {
                return Err(Errno::EINVAL);
            }
            if t.map.contains_key(&nr) {
                return Err(Errno::EEXIST);
            }
            t.last = t.last.max(nr);
            return Ok(nr);
        }
        let mut nr = t.last;
        for _ in 0..PID_MAX {
            nr += 1;
            if nr >= PID_MAX {
                nr = RESERVED;
            }
            if !t.map.contains_key(&nr) {
                t.last = nr;
                return Ok(nr);
            }
        }
        Err(Errno::EAGAIN)
    }
}

impl std::fmt::Debug for PidNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PidNamespace({}, level {})", self.id, self.level)
    }
}

#[derive(Default)]
struct Attached {
    task: Option<Arc<Task>>,
    group: Option<Arc<ThreadGroup>>,
    pgrp: Weak<ProcessGroup>,
    session: Weak<Session>,
    /// Uses that are counted here because the pointers above are weak.
    pgrp_used: bool,
    session_used: bool,
}

/// What a PID number stands for (`struct pid`).
pub struct Pid {
    /// (namespace, number), the root first.
    numbers: Box<[(Arc<PidNamespace>, i32)]>,
    attached: Mutex<Attached>,
    /// For pidfds: told when the process (or thread) ends.
    pub exited: Arc<WaitQueue>,
    /// For the test that nothing is leaked.
    _live: Live,
}

impl Pid {
    /// New numbers in a namespace and all its ancestors. `want` asks for numbers from the innermost
    /// outwards (clone3's `set_tid`). Called with the task tree locked, so that a number that was picked is
    /// still free when it is taken.
    pub(super) fn allocate(ns: &Arc<PidNamespace>, want: &[i32], _tree: &TreeGuard<'_>) -> Result<Arc<Pid>> {
        if ns.is_dead() {
            return Err(Errno::ENOMEM);
        }
        let mut levels = Vec::new();
        let mut at = Some(Arc::clone(ns));
        while let Some(n) = at {
            at = n.parent.clone();
            levels.push(n);
        }
        let mut numbers = Vec::with_capacity(levels.len());
        for (i, n) in levels.iter().enumerate() {
            let nr = n.pick(want.get(i).copied())?;
            numbers.push((Arc::clone(n), nr));
        }
        numbers.reverse();
        let pid = Arc::new(Pid {
            _live: Live::new(Kind::Pid),
            numbers: numbers.into(),
            attached: Mutex::new(LockClass::Leaf, Attached::default()),
            exited: Arc::new(WaitQueue::new()),
        });
        for n in &levels {
            n.reserve(&pid);
        }
        Ok(pid)
    }

    /// The number in the sandbox's root namespace.
    pub fn root_number(&self) -> i32 {
        self.numbers[0].1
    }
    /// The number in its own namespace.
    pub fn number(&self) -> i32 {
        self.numbers[self.numbers.len() - 1].1
    }
    /// Its own namespace.
    pub fn namespace(&self) -> &Arc<PidNamespace> {
        &self.numbers[self.numbers.len() - 1].0
    }
    /// The number as seen from a namespace; `None` when it is not visible there.
    pub fn number_in(&self, ns: &PidNamespace) -> Option<i32> {
        self.numbers.get(ns.level).filter(|(n, _)| std::ptr::eq(&**n, ns)).map(|(_, nr)| *nr)
    }
    /// The numbers from the one in `ns` inwards (`NSpid` of /proc/pid/status).
    pub fn numbers_from(&self, ns: &PidNamespace) -> Vec<i32> {
        if self.number_in(ns).is_none() {
            return Vec::new();
        }
        self.numbers[ns.level..].iter().map(|(_, n)| *n).collect()
    }

    /// The task with this id.
    pub fn task(&self) -> Option<Arc<Task>> {
        self.attached.lock().task.clone()
    }
    /// The process with this id (the task is its leader).
    pub fn group(&self) -> Option<Arc<ThreadGroup>> {
        self.attached.lock().group.clone()
    }
    /// The process group with this id.
    pub fn process_group(&self) -> Option<Arc<ProcessGroup>> {
        self.attached.lock().pgrp.upgrade()
    }
    /// The session with this id.
    pub fn session(&self) -> Option<Arc<Session>> {
        self.attached.lock().session.upgrade()
    }

    pub(super) fn attach_task(&self, task: &Arc<Task>) {
        self.attached.lock().task = Some(Arc::clone(task));
    }
    pub(super) fn attach_group(&self, group: &Arc<ThreadGroup>) {
        self.attached.lock().group = Some(Arc::clone(group));
    }
    pub(super) fn attach_pgrp(&self, pgrp: &Arc<ProcessGroup>) {
        let mut a = self.attached.lock();
        a.pgrp = Arc::downgrade(pgrp);
        a.pgrp_used = true;
    }
    pub(super) fn attach_session(&self, session: &Arc<Session>) {
        let mut a = self.attached.lock();
        a.session = Arc::downgrade(session);
        a.session_used = true;
    }
    /// The task is released; the number is free again if nothing else has it.
    pub(super) fn detach_task(&self) {
        let (task, group) = {
            let mut a = self.attached.lock();
            (a.task.take(), a.group.take())
        };
        drop((task, group));
        self.free_if_unused();
    }
    pub(super) fn detach_pgrp(&self, pgrp: *const ProcessGroup) {
        {
            let mut a = self.attached.lock();
            if !std::ptr::eq(a.pgrp.as_ptr(), pgrp) {
                return;
            }
            a.pgrp_used = false;
        }
        self.free_if_unused();
    }
    pub(super) fn detach_session(&self, session: *const Session) {
        {
            let mut a = self.attached.lock();
            if !std::ptr::eq(a.session.as_ptr(), session) {
                return;
            }
            a.session_used = false;
        }
        self.free_if_unused();
    }

    /// Takes the numbers back when an allocation comes to nothing.
    pub(super) fn free_if_unused(&self) {
        {
            let a = self.attached.lock();
            if a.task.is_some() || a.pgrp_used || a.session_used {
                return;
            }
        }
        for (ns, nr) in &self.numbers {
            let gone = {
                let mut t = ns.table.lock();
                match t.map.get(nr) {
                    Some(p) if std::ptr::eq(&**p, self) => t.map.remove(nr),
                    _ => None,
                }
            };
            drop(gone);
            ns.emptied.wake(1);
        }
    }
}

impl std::fmt::Debug for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pid({})", self.root_number())
    }
}

/// Proof that the task tree is locked.
pub(super) type TreeGuard<'a> = ksync::MutexGuard<'a, super::tree::Tree>;
