//! Message queues (msgget(2), msgsnd(2), msgrcv(2), msgctl(2)).

use super::{Found, IdTable, Perm};
use crate::creds::{Creds, UserNamespace};
use abi::{Errno, Result};
use ksync::{LockClass, Mutex, WaitQueue};
use std::collections::VecDeque;
use std::sync::Arc;

/// A message.
#[derive(Clone, Debug)]
pub struct Message {
    pub kind: i64,
    pub text: Vec<u8>,
}

/// What a queue's lock guards.
#[derive(Debug)]
pub struct MsgState {
    pub perm: Perm,
    messages: VecDeque<Message>,
    /// Bytes of all messages, and the most there may be (`msg_qbytes`).
    pub bytes: usize,
    pub max_bytes: usize,
    /// Seconds.
    pub stime: i64,
    pub rtime: i64,
    pub ctime: i64,
    /// Last sender and receiver, in the sandbox' root PID namespace.
    pub lspid: i32,
    pub lrpid: i32,
    pub removed: bool,
}

/// A queue.
#[derive(Debug)]
pub struct MsgQueue {
    pub id: i32,
    pub state: Mutex<MsgState>,
    /// News of messages and of room.
    pub queue: Arc<WaitQueue>,
}

/// Which message msgrcv(2) wants.
#[derive(Clone, Copy, Debug)]
pub enum Want {
    First,
    Kind(i64),
    /// Not of this kind (`MSG_EXCEPT`).
    Except(i64),
    /// The lowest kind up to this.
    UpTo(i64),
    /// By position, without taking it (`MSG_COPY`).
    Copy(i64),
}

impl MsgState {
    /// Number of messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Adds a message; `false` when there is no room.
    pub fn send(&mut self, m: &Message) -> Result<bool> {
        if self.removed {
            return Err(Errno::EIDRM);
        }
        if self.bytes + m.text.len() > self.max_bytes || self.messages.len() >= self.max_bytes {
            return Ok(false);
        }
        self.bytes += m.text.len();
        self.messages.push_back(m.clone());
        Ok(true)
    }

    /// Takes the wanted message: E2BIG when it is longer than `max` and may not be cut.
    pub fn receive(&mut self, want: Want, max: usize, cut: bool) -> Result<Option<Message>> {
        if self.removed {
            return Err(Errno::EIDRM);
        }
        let at = match want {
            Want::First => (!self.messages.is_empty()).then_some(0),
            Want::Kind(k) => self.messages.iter().position(|m| m.kind == k),
            Want::Except(k) => self.messages.iter().position(|m| m.kind != k),
            Want::UpTo(k) => {
                let low = self.messages.iter().map(|m| m.kind).filter(|n| *n <= k).min();
                low.and_then(|l| self.messages.iter().position(|m| m.kind == l))
            }
            Want::Copy(n) => {
                let found = usize::try_from(n).ok().and_then(|n| self.messages.get(n));
                return match found {
                    Some(m) if m.text.len() > max && !cut => Err(Errno::E2BIG),
                    found => Ok(found.cloned()),
                };
            }
        };
        let Some(at) = at else { return Ok(None) };
        if self.messages[at].text.len() > max && !cut {
            return Err(Errno::E2BIG);
        }
        let m = self.messages.remove(at);
        self.bytes -= m.as_ref().map_or(0, |m| m.text.len());
        Ok(m)
    }
}

/// The queues of an IPC namespace.
pub struct MsgTable {
    queues: Mutex<IdTable<Arc<MsgQueue>>>,
}

impl Default for MsgTable {
    fn default() -> Self {
        MsgTable { queues: Mutex::new(LockClass::FileSystem, IdTable::default()) }
    }
}

impl MsgTable {
    /// msgget(2). `limit`: most queues; `max_bytes`: of a new one.
    pub fn get(
        &self,
        creds: &Creds,
        ns: &Arc<UserNamespace>,
        key: i32,
        flags: u32,
        (limit, max_bytes): (usize, usize),
        now: i64,
    ) -> Result<i32> {
        let mut queues = self.queues.lock();
        match queues.find(key, flags, |q| q.state.lock().perm.key)? {
            Found::Existing(id, q) => {
                q.state.lock().perm.check(creds, ns, flags & 0o777)?;
                Ok(id)
            }
            Found::New => {
                let state = MsgState {
                    perm: Perm::new(key, flags, creds),
                    messages: VecDeque::new(),
                    bytes: 0,
                    max_bytes,
                    stime: 0,
                    rtime: 0,
                    ctime: now,
                    lspid: 0,
                    lrpid: 0,
                    removed: false,
                };
                queues.insert(limit, |id| {
                    let queue = Arc::new(WaitQueue::new());
                    Arc::new(MsgQueue { id, state: Mutex::new(LockClass::FileLocks, state), queue })
                })
            }
        }
    }

    /// The queue of an id: EINVAL.
    pub fn find(&self, id: i32) -> Result<Arc<MsgQueue>> {
        self.queues.lock().get(id)
    }

    /// The queue at a place (`MSG_STAT`).
    pub fn at(&self, place: i32) -> Result<(i32, Arc<MsgQueue>)> {
        self.queues.lock().at(place)
    }

    /// `IPC_RMID`; those who wait see EIDRM.
    pub fn remove(&self, id: i32) {
        let q = self.queues.lock().remove(id);
        if let Some(q) = q {
            q.state.lock().removed = true;
            q.queue.wake_all(u32::MAX);
        }
    }

    /// All queues.
    pub fn all(&self) -> Vec<Arc<MsgQueue>> {
        self.queues.lock().iter().map(|(_, q)| Arc::clone(q)).collect()
    }

    /// Number of queues, of messages, of bytes, and the highest place in use.
    pub fn counts(&self) -> (usize, usize, usize, i32) {
        let queues = self.queues.lock();
        let (mut messages, mut bytes) = (0, 0);
        for (_, q) in queues.iter() {
            let s = q.state.lock();
            messages += s.len();
            bytes += s.bytes;
        }
        (queues.len(), messages, bytes, queues.highest())
    }
}
