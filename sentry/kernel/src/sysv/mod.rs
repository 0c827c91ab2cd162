//! System V IPC (sysvipc(7)): what shared memory, message queues and semaphores have in common (ids, keys,
//! permissions), and a file for each of the three.

mod msg;
mod sem;
mod shm;

pub use msg::{Message, MsgQueue, MsgState, MsgTable, Want};
pub use sem::{Attempt, SEM_UNDO, SEMVMX, Sem, SemCaller, SemLimits, SemSet, SemState, SemTable};
pub use shm::{ShmCaller, ShmLimits, ShmSegment, ShmTable};

use crate::creds::{CapSet, Creds, UserNamespace};
use abi::ipc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE, IpcPerm};
use abi::{Errno, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ids are a place in the table and a number that tells its users apart.
const PLACES: i32 = 32768;

/// Owner and rights of an object.
#[derive(Clone, Debug)]
pub struct Perm {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Perm {
    /// Of a new object.
    pub fn new(key: i32, flags: u32, creds: &Creds) -> Perm {
        let (uid, gid) = (creds.euid, creds.egid);
        Perm { key, uid, gid, cuid: uid, cgid: gid, mode: flags & 0o777 }
    }

    /// Whether rights (in any of the three places of a mode) are given: EACCES.
    pub fn check(&self, creds: &Creds, ns: &Arc<UserNamespace>, want: u32) -> Result<()> {
        let want = (want >> 6 | want >> 3 | want) & 7;
        let granted = if creds.euid == self.cuid || creds.euid == self.uid {
            self.mode >> 6
        } else if self.in_group(creds) {
            self.mode >> 3
        } else {
            self.mode
        };
        if want & !granted & 7 == 0 || creds.has_cap_in(ns, CapSet::IPC_OWNER) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    fn in_group(&self, creds: &Creds) -> bool {
        [self.cgid, self.gid].iter().any(|g| creds.egid == *g || creds.groups.contains(g))
    }

    /// Whether the caller may change or remove the object: EPERM.
    pub fn check_owner(&self, creds: &Creds, ns: &Arc<UserNamespace>) -> Result<()> {
        let owner = creds.euid == self.cuid || creds.euid == self.uid;
        if owner || creds.has_cap_in(ns, CapSet::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// As a program sees it.
    pub fn to_abi(&self, id: i32, ns: &UserNamespace) -> IpcPerm {
        IpcPerm {
            key: self.key,
            uid: ns.uid_in(self.uid),
            gid: ns.gid_in(self.gid),
            cuid: ns.uid_in(self.cuid),
            cgid: ns.gid_in(self.cgid),
            mode: self.mode,
            seq: u16::try_from(id / PLACES).unwrap_or(0),
            ..IpcPerm::default()
        }
    }

    /// `IPC_SET`: owner and permission bits from what a program gave. EINVAL for ids without a mapping.
    pub fn set(&mut self, from: &IpcPerm, ns: &UserNamespace) -> Result<()> {
        let (uid, gid) = (ns.kuid(from.uid), ns.kgid(from.gid));
        (self.uid, self.gid) = (uid.ok_or(Errno::EINVAL)?, gid.ok_or(Errno::EINVAL)?);
        self.mode = self.mode & !0o777 | from.mode & 0o777;
        Ok(())
    }
}

/// What `*get` found.
pub enum Found<T> {
    Existing(i32, T),
    /// Nothing: a new object is to be made.
    New,
}

/// Objects by id.
pub struct IdTable<T> {
    by_place: BTreeMap<i32, (i32, T)>,
    next: i32,
    seq: i32,
}

impl<T> Default for IdTable<T> {
    fn default() -> Self {
        IdTable { by_place: BTreeMap::new(), next: 0, seq: 0 }
    }
}

impl<T: Clone> IdTable<T> {
    /// The object of an id: EINVAL when there is none (EIDRM is for the callers that slept).
    pub fn get(&self, id: i32) -> Result<T> {
        let (real, t) = self.by_place.get(&(id % PLACES)).ok_or(Errno::EINVAL)?;
        if id < 0 || *real != id {
            return Err(Errno::EINVAL);
        }
        Ok(t.clone())
    }

    /// The object at a place, with its id (`SHM_STAT` and kin).
    pub fn at(&self, place: i32) -> Result<(i32, T)> {
        self.by_place.get(&place).cloned().ok_or(Errno::EINVAL)
    }

    /// The start of `*get`: looks a key up, with the rules of `IPC_CREAT` and `IPC_EXCL`.
    pub fn find(&self, key: i32, flags: u32, key_of: impl Fn(&T) -> i32) -> Result<Found<T>> {
        if key == IPC_PRIVATE {
            return Ok(Found::New);
        }
        match self.by_place.values().find(|(_, t)| key_of(t) == key) {
            None if flags & IPC_CREAT == 0 => Err(Errno::ENOENT),
            None => Ok(Found::New),
            Some(_) if flags & IPC_CREAT != 0 && flags & IPC_EXCL != 0 => Err(Errno::EEXIST),
            Some((id, t)) => Ok(Found::Existing(*id, t.clone())),
        }
    }

    /// Puts an object in: ENOSPC from `limit` objects on.
    pub fn insert(&mut self, limit: usize, make: impl FnOnce(i32) -> T) -> Result<i32> {
        if self.by_place.len() >= limit.min(usize::try_from(PLACES).unwrap_or(0)) {
            return Err(Errno::ENOSPC);
        }
        // Places are used in turn, so that an id is not used again soon.
        let mut place = self.next;
        while self.by_place.contains_key(&place) {
            place = (place + 1) % PLACES;
        }
        if place < self.next {
            self.seq = (self.seq + 1) % 0xffff;
        }
        self.next = (place + 1) % PLACES;
        let id = self.seq * PLACES + place;
        self.by_place.insert(place, (id, make(id)));
        Ok(id)
    }

    /// Takes an object out.
    pub fn remove(&mut self, id: i32) -> Option<T> {
        let place = id % PLACES;
        if self.by_place.get(&place).is_some_and(|(real, _)| *real == id) {
            return self.by_place.remove(&place).map(|(_, t)| t);
        }
        None
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &T)> {
        self.by_place.values().map(|(id, t)| (*id, t))
    }

    /// Takes out what `f` does not want to keep.
    pub fn retain(&mut self, f: impl Fn(&T) -> bool) {
        self.by_place.retain(|_, (_, t)| f(t));
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.by_place.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// The highest place in use, 0 for none (`IPC_INFO`).
    pub fn highest(&self) -> i32 {
        self.by_place.keys().next_back().copied().unwrap_or(0)
    }
}
