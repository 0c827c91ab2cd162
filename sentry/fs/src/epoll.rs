//! epoll(7): interest lists and ready lists.
//!
//! Each watched descriptor is an [`Item`], a listener on the file's wait queue. News put it on the
//! ready list; `epoll_wait` asks the files on that list, and nobody else, what is ready. The interest
//! lock is never held while user memory is touched, and the ready list's lock is taken from wake-ups,
//! so nothing else is done under it.

use abi::poll::PollEvents;
use abi::{Errno, Result};
use kernel::time::Deadline;
use kernel::vfs::{Caller, Fd, File, FileOps};
use kernel::wait::{Blocked, WaitOn};
use kernel::{Kernel, Task};
use ksync::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use ksync::{Listener, LockClass, Mutex, Registration, WaitQueue};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::{Arc, Weak};

/// Event bits beyond [`PollEvents`] (epoll_ctl(2)).
pub const EPOLLEXCLUSIVE: u32 = 1 << 28;
/// Needs `CAP_BLOCK_SUSPEND`, else it is ignored; keeps nothing awake here.
pub const EPOLLWAKEUP: u32 = 1 << 29;
/// Disabled after one event until `EPOLL_CTL_MOD`.
pub const EPOLLONESHOT: u32 = 1 << 30;
/// Edge triggered.
pub const EPOLLET: u32 = 1 << 31;
const PRIVATE_BITS: u32 = EPOLLEXCLUSIVE | EPOLLWAKEUP | EPOLLONESHOT | EPOLLET;
const UNASKED: u32 = PollEvents::UNASKED.bits();
/// What may stand beside `EPOLLEXCLUSIVE`.
const EXCLUSIVE_OK: u32 =
    PollEvents::IN.bits() | PollEvents::OUT.bits() | UNASKED | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;
/// How deep epoll instances may watch each other.
const MAX_NESTS: usize = 4;

/// What a guest asked for and is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpollEvent {
    pub events: u32,
    pub data: u64,
}

/// Number of the open file description, descriptor: the same file may be watched through several.
type Key = (u64, i32);

/// One watched descriptor.
struct Item {
    me: Weak<Item>,
    core: Weak<Core>,
    file: Weak<File>,
    events: AtomicU32,
    data: AtomicU64,
    /// On the ready list.
    linked: AtomicBool,
    /// Taken out of the interest list.
    dead: AtomicBool,
}

impl Item {
    /// Puts the item on the ready list; whether it was not there.
    fn enqueue(&self, core: &Core) -> bool {
        let fresh = !self.linked.swap(true, Ordering::AcqRel);
        if fresh && let Some(me) = self.me.upgrade() {
            core.ready.lock().push_back(me);
        }
        fresh
    }

    /// What is ready of what was asked for.
    fn ready_now(&self, cx: &Caller<'_>, file: &File) -> u32 {
        let events = self.events.load(Ordering::Acquire);
        if events & !PRIVATE_BITS == 0 {
            return 0;
        }
        file.ops().poll(cx, file).bits() & (events | UNASKED)
    }
}

impl Listener for Item {
    fn notify(&self, mask: u32) -> bool {
        let events = self.events.load(Ordering::Acquire);
        // A disabled one-shot item is told nothing, not even errors.
        if events & !PRIVATE_BITS == 0 || mask & (events | UNASKED) == 0 {
            return false;
        }
        let Some(core) = self.core.upgrade() else { return false };
        let fresh = self.enqueue(&core);
        let taken = core.queue.wake(PollEvents::READABLE.bits());
        // News that is for one alone goes to an instance that somebody waits for, and not to one whose waiter has been
        // told and has not come yet: the next one is to have it.
        (fresh && taken) || events & EPOLLEXCLUSIVE == 0
    }
}

/// The part of an instance that its items point back to.
struct Core {
    ready: Mutex<VecDeque<Arc<Item>>>,
    queue: Arc<WaitQueue>,
    /// Instances that watch this one.
    watchers: Mutex<Vec<Weak<Core>>>,
}

struct Registered {
    item: Arc<Item>,
    on: Arc<WaitQueue>,
    registration: Registration,
}

impl Registered {
    fn undo(self) {
        self.item.dead.store(true, Ordering::Release);
        self.on.unregister(self.registration);
    }
}

#[derive(Default)]
struct Interest {
    items: BTreeMap<Key, Registered>,
    /// When there are more, items of closed files are looked for.
    sweep_at: usize,
}

/// An epoll instance.
pub struct Epoll {
    core: Arc<Core>,
    interest: Mutex<Interest>,
}

/// Makes checks for loops of instances and the additions they allow one step.
struct Graph(std::sync::Mutex<()>);

impl Epoll {
    /// An instance that watches nothing.
    pub fn new() -> Arc<Epoll> {
        let core = Core {
            ready: Mutex::new(LockClass::EpollReady, VecDeque::new()),
            queue: Arc::new(WaitQueue::new()),
            watchers: Mutex::new(LockClass::Leaf, Vec::new()),
        };
        Arc::new(Epoll {
            core: Arc::new(core),
            interest: Mutex::new(LockClass::Epoll, Interest { items: BTreeMap::new(), sweep_at: 64 }),
        })
    }

    /// Where readiness of the instance itself is told.
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.core.queue
    }

    /// `EPOLL_CTL_ADD`.
    pub fn add(
        &self,
        cx: &Caller<'_>,
        kernel: &Kernel,
        file: &Arc<File>,
        fd: Fd,
        ev: EpollEvent,
    ) -> Result<()> {
        let on = file.ops().wait_queue(file).ok_or(Errno::EPERM)?;
        let target = file.ops_as::<Epoll>();
        let exclusive = ev.events & EPOLLEXCLUSIVE != 0;
        if exclusive && (ev.events & !EXCLUSIVE_OK != 0 || target.is_some()) {
            return Err(Errno::EINVAL);
        }
        let graph = target.map(|_| kernel.extensions.get_or_init(|| Graph(std::sync::Mutex::new(()))));
        let _graph = graph.as_ref().map(|g| g.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        if let Some(target) = target {
            let below = target.depth_below(&self.core, 0).ok_or(Errno::ELOOP)?;
            if below + 1 + self.core.depth_above(0) > MAX_NESTS {
                return Err(Errno::ELOOP);
            }
        }
        let key = (file.id(), fd.0);
        let item = Arc::new_cyclic(|me| Item {
            me: me.clone(),
            core: Arc::downgrade(&self.core),
            file: Arc::downgrade(file),
            events: AtomicU32::new(ev.events | UNASKED),
            data: AtomicU64::new(ev.data),
            linked: AtomicBool::new(false),
            dead: AtomicBool::new(false),
        });
        let mut swept = Vec::new();
        {
            let mut interest = self.interest.lock();
            if interest.items.contains_key(&key) {
                return Err(Errno::EEXIST);
            }
            if interest.items.len() >= interest.sweep_at {
                let closed: Vec<Key> = interest
                    .items
                    .iter()
                    .filter(|(_, r)| r.item.file.strong_count() == 0)
                    .map(|(k, _)| *k)
                    .collect();
                swept.extend(closed.iter().filter_map(|k| interest.items.remove(k)));
                interest.sweep_at = interest.items.len() * 2 + 64;
            }
            let registration = on.register(item.clone(), ev.events & !PRIVATE_BITS | UNASKED, exclusive);
            interest.items.insert(key, Registered { item: item.clone(), on, registration });
        }
        swept.into_iter().for_each(Registered::undo);
        if let Some(target) = target {
            let mut watchers = target.core.watchers.lock();
            watchers.retain(|w| w.strong_count() > 0);
            watchers.push(Arc::downgrade(&self.core));
        }
        self.check_now(cx, &item, file);
        Ok(())
    }

    fn check_now(&self, cx: &Caller<'_>, item: &Item, file: &File) {
        if item.ready_now(cx, file) != 0 {
            item.enqueue(&self.core);
            self.core.queue.wake(PollEvents::READABLE.bits());
        }
    }

    /// `EPOLL_CTL_MOD`.
    pub fn modify(&self, cx: &Caller<'_>, file: &Arc<File>, fd: Fd, ev: EpollEvent) -> Result<()> {
        let item;
        {
            let mut interest = self.interest.lock();
            let r = interest.items.get_mut(&(file.id(), fd.0)).ok_or(Errno::ENOENT)?;
            if (ev.events | r.item.events.load(Ordering::Relaxed)) & EPOLLEXCLUSIVE != 0 {
                return Err(Errno::EINVAL);
            }
            item = r.item.clone();
            item.events.store(ev.events | UNASKED, Ordering::Release);
            item.data.store(ev.data, Ordering::Release);
            let mask = ev.events & !PRIVATE_BITS | UNASKED;
            let new = r.on.register(item.clone(), mask, false);
            let old = std::mem::replace(&mut r.registration, new);
            r.on.unregister(old);
        }
        self.check_now(cx, &item, file);
        Ok(())
    }

    /// `EPOLL_CTL_DEL`.
    pub fn remove(&self, file: &Arc<File>, fd: Fd) -> Result<()> {
        let r = self.interest.lock().items.remove(&(file.id(), fd.0)).ok_or(Errno::ENOENT)?;
        r.undo();
        if let Some(target) = file.ops_as::<Epoll>() {
            let me = Arc::as_ptr(&self.core);
            let mut watchers = target.core.watchers.lock();
            if let Some(i) = watchers.iter().position(|w| w.as_ptr() == me) {
                watchers.swap_remove(i);
            }
        }
        Ok(())
    }

    /// Takes up to `max` events that are ready now.
    fn collect(&self, cx: &Caller<'_>, max: usize) -> Vec<EpollEvent> {
        let mut events = Vec::new();
        // Files are let go of only after the locks: the last reference may be ours.
        let mut files = Vec::new();
        let mut gone = Vec::new();
        {
            // Serialises scans: a second waiter must not find the list empty while items are looked at.
            let interest = self.interest.lock();
            let mut left = self.core.ready.lock().len();
            while left > 0 && events.len() < max {
                left -= 1;
                let Some(item) = self.core.ready.lock().pop_front() else { break };
                item.linked.store(false, Ordering::SeqCst);
                if item.dead.load(Ordering::Acquire) {
                    gone.push(item);
                    continue;
                }
                let Some(file) = item.file.upgrade() else {
                    gone.push(item);
                    continue;
                };
                let ready = item.ready_now(cx, &file);
                files.push(file);
                if ready == 0 {
                    continue;
                }
                events.push(EpollEvent { events: ready, data: item.data.load(Ordering::Acquire) });
                let asked = item.events.load(Ordering::Acquire);
                if asked & EPOLLONESHOT != 0 {
                    item.events.store(asked & PRIVATE_BITS, Ordering::Release);
                } else if asked & EPOLLET == 0 {
                    item.enqueue(&self.core);
                }
            }
            drop(interest);
        }
        drop(files);
        drop(gone);
        events
    }

    /// Waits for events and takes up to `max` of them.
    pub fn wait(
        &self,
        task: &Task,
        max: usize,
        deadline: Option<Deadline>,
    ) -> std::result::Result<Vec<EpollEvent>, Blocked> {
        let on = WaitOn {
            queue: Arc::clone(&self.core.queue),
            mask: PollEvents::READABLE.bits(),
            exclusive: true,
        };
        let got = task.block_on(&[on], deadline, || Some(self.take(task, max)).filter(|got| !got.is_empty()));
        // What is left is for the next one who waits. Only now: while this one was in the queue, it could be told itself.
        self.pass_on();
        got
    }

    /// Takes up to `max` events that are ready now, without waiting.
    pub fn poll_once(&self, task: &Task, max: usize) -> Vec<EpollEvent> {
        let got = self.take(task, max);
        self.pass_on();
        got
    }

    /// Others may have looked while items were off the list, or wait for what is left.
    fn pass_on(&self) {
        if self.maybe_ready() {
            self.core.queue.wake(PollEvents::READABLE.bits());
        }
    }

    /// Takes up to `max` events, without the interest lock when there can be none.
    fn take(&self, task: &Task, max: usize) -> Vec<EpollEvent> {
        if self.maybe_ready() { task.as_caller(|cx| self.collect(cx, max)) } else { Vec::new() }
    }

    /// Whether something is on the ready list; it need not be ready any more.
    fn maybe_ready(&self) -> bool {
        !self.core.ready.lock().is_empty()
    }

    /// Whether an event could be taken now. Takes only the ready lists' locks, so that instances can ask each other.
    fn ready(&self, cx: &Caller<'_>) -> bool {
        let items: Vec<Arc<Item>> = self.core.ready.lock().iter().cloned().collect();
        items.iter().any(|item| {
            !item.dead.load(Ordering::Acquire)
                && item.file.upgrade().is_some_and(|file| item.ready_now(cx, &file) != 0)
        })
    }

    fn watched_instances(&self) -> Vec<Arc<File>> {
        let interest = self.interest.lock();
        let files = interest.items.values().filter_map(|r| r.item.file.upgrade());
        files.filter(|f| f.ops_as::<Epoll>().is_some()).collect()
    }

    /// How many instances lie below this one; `None` when `top` is among them or it is too deep.
    fn depth_below(&self, top: &Arc<Core>, depth: usize) -> Option<usize> {
        if Arc::ptr_eq(&self.core, top) || depth > MAX_NESTS {
            return None;
        }
        let mut deepest = 0;
        for file in self.watched_instances() {
            if let Some(child) = file.ops_as::<Epoll>() {
                deepest = deepest.max(1 + child.depth_below(top, depth + 1)?);
            }
        }
        Some(deepest)
    }
}

impl Core {
    fn depth_above(&self, depth: usize) -> usize {
        if depth > MAX_NESTS {
            return depth;
        }
        let watchers: Vec<Arc<Core>> = self.watchers.lock().iter().filter_map(Weak::upgrade).collect();
        watchers.iter().map(|w| 1 + w.depth_above(depth + 1)).max().unwrap_or(0)
    }
}

impl FileOps for Epoll {
    fn seekable(&self) -> bool {
        false
    }
    fn ignores_seek(&self) -> bool {
        true
    }
    fn poll(&self, cx: &Caller<'_>, _f: &File) -> PollEvents {
        if self.ready(cx) { PollEvents::READABLE } else { PollEvents::empty() }
    }
    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        Some(Arc::clone(&self.core.queue))
    }
    fn release(&self, _f: &File) {
        let items = std::mem::take(&mut self.interest.lock().items);
        items.into_values().for_each(Registered::undo);
        let ready = std::mem::take(&mut *self.core.ready.lock());
        drop(ready);
    }
    fn fdinfo(&self, _f: &File) -> String {
        let mut rows = Vec::new();
        for (key, r) in &self.interest.lock().items {
            let (events, data) = (&r.item.events, &r.item.data);
            if let Some(file) = r.item.file.upgrade() {
                rows.push((key.1, events.load(Ordering::Relaxed), data.load(Ordering::Relaxed), file));
            }
        }
        let mut out = String::new();
        for (fd, events, data, file) in rows {
            let (ino, dev) = file.path().inode().map_or((0, 0), |i| (i.ino(), i.fs().dev()));
            let pos = file.pos().shown();
            let _ = writeln!(
                out,
                "tfd: {fd:8} events: {events:8x} data: {data:16x}  pos:{pos} ino:{ino:x} sdev:{dev:x}"
            );
        }
        out
    }
}
