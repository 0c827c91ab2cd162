//! Semaphores (semget(2), semop(2), semctl(2)).

use super::{Found, IdTable, Perm};
use crate::creds::{Creds, UserNamespace};
use abi::ipc::SemBuf;
use abi::{Errno, Result};
use ksync::{LockClass, Mutex, WaitQueue};
use std::collections::HashMap;
use std::sync::Arc;

/// Greatest value of a semaphore (`SEMVMX`).
pub const SEMVMX: i32 = 32767;
/// `SEM_UNDO`
pub const SEM_UNDO: i16 = 0x1000;
/// `IPC_NOWAIT` as it stands in a `sembuf`.
const NOWAIT: i16 = 0o4000;

/// One semaphore.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sem {
    pub value: i32,
    /// Who changed it last, in the sandbox' root PID namespace.
    pub pid: i32,
    /// Tasks that wait for it to grow, and to become zero.
    pub growing: u32,
    pub zero: u32,
}

/// What a set's lock guards.
#[derive(Debug)]
pub struct SemState {
    pub perm: Perm,
    pub sems: Vec<Sem>,
    /// Seconds.
    pub otime: i64,
    pub ctime: i64,
    pub removed: bool,
    /// Adjustments at exit: key of the process → one for each semaphore.
    undo: HashMap<u64, Vec<i32>>,
}

/// A set of semaphores.
#[derive(Debug)]
pub struct SemSet {
    pub id: i32,
    pub state: Mutex<SemState>,
    /// News of any value.
    pub queue: Arc<WaitQueue>,
}

/// What an attempt of semop(2) came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    Done,
    /// The operation at this index has to wait.
    Wait(usize),
}

/// Who operates on semaphores.
#[derive(Clone, Copy)]
pub struct SemCaller {
    /// Key of the process, for its adjustments.
    pub group: u64,
    pub pid: i32,
    /// Seconds.
    pub now: i64,
}

impl SemState {
    /// Tries all operations: all of them happen, or none.
    pub fn attempt(&mut self, ops: &[SemBuf], who: &SemCaller) -> Result<Attempt> {
        if self.removed {
            return Err(Errno::EIDRM);
        }
        let mut values: Vec<i32> = self.sems.iter().map(|s| s.value).collect();
        let none = vec![0; values.len()];
        let mut undo = self.undo.get(&who.group).unwrap_or(&none).clone();
        for (i, op) in ops.iter().enumerate() {
            let slot = values.get_mut(usize::from(op.num)).ok_or(Errno::EFBIG)?;
            let delta = i32::from(op.op);
            let blocked = if delta == 0 { *slot != 0 } else { *slot + delta < 0 };
            if blocked {
                return if op.flags & NOWAIT != 0 { Err(Errno::EAGAIN) } else { Ok(Attempt::Wait(i)) };
            }
            if *slot + delta > SEMVMX {
                return Err(Errno::ERANGE);
            }
            *slot += delta;
            if op.flags & SEM_UNDO != 0 {
                let u = &mut undo[usize::from(op.num)];
                *u -= delta;
                if u.abs() > SEMVMX {
                    return Err(Errno::ERANGE);
                }
            }
        }
        for (sem, value) in self.sems.iter_mut().zip(values) {
            sem.value = value;
        }
        for op in ops {
            self.sems[usize::from(op.num)].pid = who.pid;
        }
        if undo.iter().any(|u| *u != 0) {
            self.undo.insert(who.group, undo);
        } else {
            self.undo.remove(&who.group);
        }
        self.otime = who.now;
        Ok(Attempt::Done)
    }

    /// `SETVAL` and `SETALL` forget adjustments of all processes for the semaphore.
    pub fn forget_undo(&mut self, num: usize) {
        for u in self.undo.values_mut() {
            u[num] = 0;
        }
    }
}

/// The sets of an IPC namespace.
pub struct SemTable {
    sets: Mutex<IdTable<Arc<SemSet>>>,
}

impl Default for SemTable {
    fn default() -> Self {
        SemTable { sets: Mutex::new(LockClass::FileSystem, IdTable::default()) }
    }
}

/// The four numbers of /proc/sys/kernel/sem.
#[derive(Clone, Copy, Debug)]
pub struct SemLimits {
    /// Semaphores in a set, in all sets; operations in a call; sets.
    pub semmsl: usize,
    pub semmns: usize,
    pub semopm: usize,
    pub semmni: usize,
}

impl SemTable {
    /// semget(2).
    pub fn get(
        &self,
        creds: &Creds,
        ns: &Arc<UserNamespace>,
        key: i32,
        count: i32,
        flags: u32,
        limits: &SemLimits,
        now: i64,
    ) -> Result<i32> {
        let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
        if count > limits.semmsl {
            return Err(Errno::EINVAL);
        }
        let mut sets = self.sets.lock();
        match sets.find(key, flags, |s| s.state.lock().perm.key)? {
            Found::Existing(id, set) => {
                let state = set.state.lock();
                if count > state.sems.len() {
                    return Err(Errno::EINVAL);
                }
                state.perm.check(creds, ns, flags & 0o777)?;
                Ok(id)
            }
            Found::New => {
                if count == 0 {
                    return Err(Errno::EINVAL);
                }
                let used: usize = sets.iter().map(|(_, s)| s.state.lock().sems.len()).sum();
                if used + count > limits.semmns {
                    return Err(Errno::ENOSPC);
                }
                let state = SemState {
                    perm: Perm::new(key, flags, creds),
                    sems: vec![Sem::default(); count],
                    otime: 0,
                    ctime: now,
                    removed: false,
                    undo: HashMap::new(),
                };
                sets.insert(limits.semmni, |id| {
                    let queue = Arc::new(WaitQueue::new());
                    Arc::new(SemSet { id, state: Mutex::new(LockClass::FileLocks, state), queue })
                })
            }
        }
    }

    /// The set of an id: EINVAL.
    pub fn find(&self, id: i32) -> Result<Arc<SemSet>> {
        self.sets.lock().get(id)
    }

    /// The set at a place (`SEM_STAT`).
    pub fn at(&self, place: i32) -> Result<(i32, Arc<SemSet>)> {
        self.sets.lock().at(place)
    }

    /// `IPC_RMID`; those who wait see EIDRM.
    pub fn remove(&self, id: i32) {
        let set = self.sets.lock().remove(id);
        if let Some(set) = set {
            set.state.lock().removed = true;
            set.queue.wake_all(u32::MAX);
        }
    }

    /// All sets.
    pub fn all(&self) -> Vec<Arc<SemSet>> {
        self.sets.lock().iter().map(|(_, s)| Arc::clone(s)).collect()
    }

    /// Number of sets, of semaphores, and the highest place in use.
    pub fn counts(&self) -> (usize, usize, i32) {
        let sets = self.sets.lock();
        let sems = sets.iter().map(|(_, s)| s.state.lock().sems.len()).sum();
        (sets.len(), sems, sets.highest())
    }

    /// A process ended: its adjustments are applied. A value that would fall below zero becomes zero.
    pub fn process_exited(&self, group: u64, pid: i32, now: i64) {
        let all: Vec<Arc<SemSet>> = self.sets.lock().iter().map(|(_, s)| Arc::clone(s)).collect();
        for set in all {
            let mut state = set.state.lock();
            let Some(undo) = state.undo.remove(&group) else { continue };
            for (sem, u) in state.sems.iter_mut().zip(undo) {
                if u != 0 {
                    sem.value = (sem.value + u).clamp(0, SEMVMX);
                    sem.pid = pid;
                }
            }
            state.otime = now;
            drop(state);
            set.queue.wake_all(u32::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(num: u16, op: i16, flags: i16) -> SemBuf {
        SemBuf { num, op, flags }
    }

    #[test]
    fn all_or_nothing_and_undo() {
        let table = SemTable::default();
        let ns = UserNamespace::root();
        let creds = Creds::root(Arc::clone(&ns));
        let limits = SemLimits { semmsl: 10, semmns: 10, semopm: 10, semmni: 10 };
        let id = table.get(&creds, &ns, 0, 2, 0o600, &limits, 1).unwrap();
        let set = table.find(id).unwrap();
        let who = SemCaller { group: 7, pid: 3, now: 5 };
        let try_ops = |ops: &[SemBuf]| set.state.lock().attempt(ops, &who);
        assert_eq!(try_ops(&[op(0, 2, 0), op(1, -1, 0)]), Ok(Attempt::Wait(1)));
        assert_eq!(set.state.lock().sems[0].value, 0);
        assert_eq!(try_ops(&[op(0, 2, SEM_UNDO)]), Ok(Attempt::Done));
        assert_eq!(try_ops(&[op(0, 0, NOWAIT)]), Err(Errno::EAGAIN));
        assert_eq!(try_ops(&[op(2, 1, 0)]), Err(Errno::EFBIG));
        table.process_exited(7, 3, 9);
        assert_eq!(set.state.lock().sems[0].value, 0);
        table.remove(id);
        assert_eq!(try_ops(&[op(0, 1, 0)]), Err(Errno::EIDRM));
        assert!(table.find(id).is_err());
    }
}
