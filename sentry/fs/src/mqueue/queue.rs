//! One message queue: its messages by priority, who waits, and whom to tell of the first message.

use super::{Charges, Meta};
use abi::poll::PollEvents;
use abi::siginfo::SigInfo;
use abi::signal::{Signal, code};
use abi::{Errno, Result};
use kernel::ThreadGroup;
use kernel::vfs::{InodeExtras, LockOwner};
use ksync::{LockClass, Mutex, WaitQueue};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// How many messages of which size fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub messages: i64,
    pub size: i64,
}

impl Shape {
    /// In a device number, which a regular file has no use for: how mq_open(2) hands it through the VFS. 0 is
    /// "none given", so it is never the form of a shape that can be.
    pub fn pack(self) -> u64 {
        let part = |n: i64| u64::from(u32::try_from(n).unwrap_or(u32::MAX));
        1 << 63 | part(self.messages) << 32 & !(1 << 63) | part(self.size)
    }

    pub(super) fn unpack(raw: u64) -> Option<Shape> {
        let part = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        (raw != 0).then(|| Shape { messages: part(raw >> 32 & 0x7fff_ffff), size: part(raw & 0xffff_ffff) })
    }

    /// What it counts for in `RLIMIT_MSGQUEUE` (getrlimit(2)): the text, and Linux' two structures for each message.
    pub(super) fn bytes(self) -> u64 {
        const HEAD: u64 = 48;
        const NODE: u64 = 48;
        let (n, size) = (self.messages.unsigned_abs(), self.size.unsigned_abs());
        n.saturating_mul(size + HEAD).saturating_add(n.min(32_768) * NODE)
    }
}

/// What a queue is charged for, given back when it goes.
pub(super) struct Cost {
    pub uid: u32,
    pub bytes: u64,
    pub charges: Arc<Charges>,
    pub count: Arc<AtomicUsize>,
}

impl Drop for Cost {
    fn drop(&mut self) {
        self.charges.sub(self.uid, self.bytes);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who is to be told of a message that comes to the empty queue (mq_notify(3)).
pub struct Notify {
    pub group: Weak<ThreadGroup>,
    /// Its descriptors: closing the queue there ends the registration.
    pub table: LockOwner,
    /// `None`: registered, but not told (`SIGEV_NONE`).
    pub signal: Option<(Signal, u64)>,
}

#[derive(Default)]
struct State {
    messages: BTreeMap<u32, VecDeque<Vec<u8>>>,
    count: i64,
    bytes: u64,
    /// Tasks that wait for a message: they get it, and nobody is notified.
    receivers: usize,
    notify: Option<Notify>,
}

/// A message that was taken.
pub struct Received {
    pub text: Vec<u8>,
    pub priority: u32,
}

/// A queue. It lives as long as its name or an open description.
pub struct Queue {
    pub(super) ino: u64,
    pub shape: Shape,
    pub(super) meta: Mutex<Meta>,
    pub(super) linked: AtomicUsize,
    pub(super) extras: InodeExtras,
    state: Mutex<State>,
    /// News of messages and of room.
    pub wait: Arc<WaitQueue>,
    _cost: Cost,
}

impl Queue {
    pub(super) fn new(ino: u64, shape: Shape, meta: Meta, cost: Cost) -> Queue {
        Queue {
            ino,
            shape,
            meta: Mutex::new(LockClass::Leaf, meta),
            linked: AtomicUsize::new(1),
            extras: InodeExtras::default(),
            state: Mutex::new(LockClass::Stream, State::default()),
            wait: Arc::new(WaitQueue::new()),
            _cost: cost,
        }
    }

    /// How many messages there are.
    pub fn len(&self) -> i64 {
        self.state.lock().count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a message; `false` when there is no room. `sender`: how the receiver of a notification sees who sent, id and user.
    pub fn send(&self, text: &[u8], priority: u32, sender: impl FnOnce(&ThreadGroup) -> (i32, u32)) -> bool {
        let told = {
            let mut s = self.state.lock();
            if s.count >= self.shape.messages {
                return false;
            }
            let first = s.count == 0 && s.receivers == 0;
            s.messages.entry(priority).or_default().push_back(text.to_vec());
            s.count += 1;
            s.bytes += text.len() as u64;
            if first { s.notify.take() } else { None }
        };
        self.wait.wake(PollEvents::READABLE.bits());
        if let Some(notify) = told
            && let Some(group) = notify.group.upgrade()
            && let Some((signal, value)) = notify.signal
        {
            let (pid, uid) = sender(&group);
            group.send_signal(&SigInfo::queued(signal, code::SI_MESGQ, pid, uid, value));
        }
        true
    }

    /// Takes the oldest message of the highest priority.
    pub fn receive(&self) -> Option<Received> {
        let got = {
            let mut s = self.state.lock();
            let mut highest = s.messages.last_entry()?;
            let priority = *highest.key();
            let text = highest.get_mut().pop_front();
            if highest.get().is_empty() {
                highest.remove();
            }
            let text = text?;
            s.count -= 1;
            s.bytes = s.bytes.saturating_sub(text.len() as u64);
            Received { text, priority }
        };
        self.wait.wake(PollEvents::WRITABLE.bits());
        Some(got)
    }

    /// A task begins or ends to wait for a message.
    pub fn receiving(&self, begins: bool) {
        let mut s = self.state.lock();
        s.receivers = if begins { s.receivers + 1 } else { s.receivers.saturating_sub(1) };
    }

    /// Registers for the next message: EBUSY when somebody is.
    pub fn register(&self, notify: Notify) -> Result<()> {
        let mut s = self.state.lock();
        if s.notify.as_ref().is_some_and(|n| n.group.upgrade().is_some_and(|g| !g.is_dead())) {
            return Err(Errno::EBUSY);
        }
        s.notify = Some(notify);
        Ok(())
    }

    /// Ends the registration of a process.
    pub fn unregister(&self, group: &ThreadGroup) {
        let mut s = self.state.lock();
        if s.notify.as_ref().is_some_and(|n| std::ptr::eq(n.group.as_ptr(), group)) {
            s.notify = None;
        }
    }

    /// A descriptor of the table was closed.
    pub(super) fn closed(&self, table: LockOwner) {
        let mut s = self.state.lock();
        if s.notify.as_ref().is_some_and(|n| n.table == table) {
            s.notify = None;
        }
    }

    pub(super) fn ready(&self) -> PollEvents {
        let count = self.len();
        let mut events = PollEvents::empty();
        events.set(PollEvents::READABLE, count > 0);
        events.set(PollEvents::WRITABLE, count < self.shape.messages);
        events
    }

    /// What reading the file tells (mq_overview(7)).
    pub(super) fn describe(&self) -> String {
        let s = self.state.lock();
        let owner = s.notify.as_ref().and_then(|n| n.group.upgrade());
        let (pid, signal, kind) = match (&owner, &s.notify) {
            (Some(g), Some(n)) => {
                let signal = n.signal.map_or(0, |(signal, _)| i32::from(signal.number()));
                (g.pid().number(), signal, if n.signal.is_some() { 0 } else { 1 })
            }
            _ => (0, 0, 0),
        };
        format!("QSIZE:{:<10} NOTIFY:{kind:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}\n", s.bytes)
    }
}
