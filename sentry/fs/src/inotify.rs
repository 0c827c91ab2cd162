//! inotify(7): the queue of events and the watches that fill it. The places that tell of events are in the
//! VFS (`kernel::vfs::notify`).

use abi::poll::PollEvents;
use abi::{Errno, Result};
use kernel::io::Sink;
use kernel::uaccess::UserPtr;
use kernel::vfs::{Caller, Event, File, FileOps, Inode, Path, Watch, add_watch};
use kernel::{Kernel, SysResult, Task};
use ksync::{LockClass, Mutex, WaitQueue};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// The events one can ask for (`IN_ALL_EVENTS`).
pub const ALL_EVENTS: u32 = 0xfff;
pub const IN_ONLYDIR: u32 = 0x0100_0000;
pub const IN_DONT_FOLLOW: u32 = 0x0200_0000;
pub const IN_EXCL_UNLINK: u32 = 0x0400_0000;
pub const IN_MASK_CREATE: u32 = 0x1000_0000;
pub const IN_MASK_ADD: u32 = 0x2000_0000;
pub const IN_ONESHOT: u32 = 0x8000_0000;
const IN_Q_OVERFLOW: u32 = 0x4000;
const HEAD: usize = 16;

#[derive(Clone, PartialEq, Eq)]
struct Queued {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Queued {
    /// Name with its NUL, padded to the size of an event's head; nothing without a name.
    fn padded(&self) -> usize {
        if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(HEAD) }
    }
    fn len(&self) -> usize {
        HEAD + self.padded()
    }
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        out.extend(self.wd.to_ne_bytes());
        out.extend(self.mask.to_ne_bytes());
        out.extend(self.cookie.to_ne_bytes());
        out.extend(u32::try_from(self.padded()).unwrap_or(0).to_ne_bytes());
        out.extend(&self.name);
        out.resize(self.len(), 0);
        out
    }
}

struct Watched {
    inotify: Weak<Inotify>,
    wd: i32,
    mask: AtomicU32,
    inode: Arc<dyn Inode>,
    dead: AtomicBool,
}

impl Watch for Watched {
    fn mask(&self) -> u32 {
        self.mask.load(Ordering::Acquire) & ALL_EVENTS
    }

    fn event(&self, event: Event, cookie: u32, name: Option<&[u8]>, unlinked: bool) {
        let Some(inotify) = self.inotify.upgrade() else { return };
        let mask = self.mask.load(Ordering::Acquire);
        if event.contains(Event::IGNORED) {
            inotify.forget(self.wd);
            return;
        }
        if self.dead.load(Ordering::Acquire) || unlinked && mask & IN_EXCL_UNLINK != 0 {
            return;
        }
        let name = name.unwrap_or_default().to_vec();
        inotify.push(Queued { wd: self.wd, mask: event.bits(), cookie, name });
        if mask & IN_ONESHOT != 0 {
            let _ = inotify.remove(self.wd);
        }
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    watches: BTreeMap<i32, Arc<Watched>>,
    last: i32,
}

/// An inotify instance.
pub struct Inotify {
    me: Weak<Inotify>,
    kernel: Weak<Kernel>,
    state: Mutex<State>,
    wait: Arc<WaitQueue>,
}

impl Inotify {
    /// An instance that watches nothing.
    pub fn new(kernel: &Arc<Kernel>) -> Arc<Inotify> {
        Arc::new_cyclic(|me| Inotify {
            me: me.clone(),
            kernel: Arc::downgrade(kernel),
            state: Mutex::new(LockClass::Leaf, State::default()),
            wait: Arc::new(WaitQueue::new()),
        })
    }

    fn limit(&self, path: &str) -> usize {
        let n = self.kernel.upgrade().map_or(0, |k| k.sysctls.get_int(path));
        usize::try_from(n).unwrap_or(0)
    }

    fn push(&self, e: Queued) {
        let max = self.limit("fs/inotify/max_queued_events");
        {
            let mut s = self.state.lock();
            let same = |q: &Queued| q.wd == e.wd && q.mask == e.mask && q.name == e.name;
            if s.queue.back().is_some_and(same) {
                return;
            }
            if s.queue.len() >= max {
                let lost = Queued { wd: -1, mask: IN_Q_OVERFLOW, cookie: 0, name: Vec::new() };
                if s.queue.back() != Some(&lost) {
                    s.queue.push_back(lost);
                }
            } else {
                s.queue.push_back(e);
            }
        }
        self.wait.wake(PollEvents::READABLE.bits());
    }

    /// The inode let go of a watch, or it was taken away.
    fn forget(&self, wd: i32) {
        let gone = self.state.lock().watches.remove(&wd);
        if let Some(w) = gone {
            w.dead.store(true, Ordering::Release);
            self.push(Queued { wd, mask: Event::IGNORED.bits(), cookie: 0, name: Vec::new() });
        }
    }

    /// inotify_add_watch(2) on a place that was found and may be read; the watch descriptor.
    pub fn add(&self, path: &Path, mask: u32) -> Result<i32> {
        let inode = path.inode()?;
        let kept = mask & (ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT);
        let limit = self.limit("fs/inotify/max_user_watches");
        let new = {
            let mut s = self.state.lock();
            let old = s.watches.values().find(|w| Arc::ptr_eq(&w.inode, inode)).cloned();
            if let Some(w) = old {
                if mask & IN_MASK_CREATE != 0 {
                    return Err(Errno::EEXIST);
                }
                if mask & IN_MASK_ADD != 0 {
                    w.mask.fetch_or(kept, Ordering::AcqRel);
                } else {
                    w.mask.store(kept, Ordering::Release);
                }
                drop(s);
                inode.extras().watches().update();
                return Ok(w.wd);
            }
            // One instance's share of the user's limit is all that is counted.
            if s.watches.len() >= limit {
                return Err(Errno::ENOSPC);
            }
            s.last = if s.last == i32::MAX { 1 } else { s.last + 1 };
            while s.watches.contains_key(&s.last) {
                s.last = if s.last == i32::MAX { 1 } else { s.last + 1 };
            }
            let w = Arc::new(Watched {
                inotify: self.me.clone(),
                wd: s.last,
                mask: AtomicU32::new(kept),
                inode: Arc::clone(inode),
                dead: AtomicBool::new(false),
            });
            s.watches.insert(w.wd, Arc::clone(&w));
            w
        };
        let wd = new.wd;
        if let Err(e) = add_watch(path, new) {
            self.state.lock().watches.remove(&wd);
            return Err(e);
        }
        Ok(wd)
    }

    /// inotify_rm_watch(2).
    pub fn remove(&self, wd: i32) -> Result<()> {
        let watch = self.state.lock().watches.get(&wd).cloned().ok_or(Errno::EINVAL)?;
        detach(&watch);
        self.forget(wd);
        Ok(())
    }
}

fn detach(watch: &Arc<Watched>) {
    watch.dead.store(true, Ordering::Release);
    let as_watch: Arc<dyn Watch> = watch.clone();
    watch.inode.extras().watches().remove(&as_watch);
}

impl FileOps for Inotify {
    fn read(&self, _cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
        let mut done = 0;
        loop {
            let event = {
                let mut s = self.state.lock();
                match s.queue.front() {
                    None => break,
                    Some(e) if e.len() > dst.remaining() => {
                        if done == 0 {
                            return Err(Errno::EINVAL);
                        }
                        break;
                    }
                    Some(_) => s.queue.pop_front(),
                }
            };
            let Some(event) = event else { break };
            let raw = event.encode();
            match dst.put(&raw) {
                Ok(n) if n == raw.len() => done += n,
                _ if done > 0 => break,
                _ => return Err(Errno::EFAULT),
            }
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }

    fn seekable(&self) -> bool {
        false
    }
    fn ignores_seek(&self) -> bool {
        true
    }

    fn poll(&self, _cx: &Caller<'_>, _f: &File) -> PollEvents {
        if self.state.lock().queue.is_empty() { PollEvents::empty() } else { PollEvents::READABLE }
    }

    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        Some(Arc::clone(&self.wait))
    }

    fn ioctl(&self, task: &Task, _f: &File, cmd: u32, arg: u64) -> SysResult {
        if cmd != abi::termios::FIONREAD {
            return Err(Errno::ENOTTY.into());
        }
        let n: usize = self.state.lock().queue.iter().map(Queued::len).sum();
        UserPtr::new(arg).write(&task.mm(), &i32::try_from(n).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn release(&self, _f: &File) {
        let watches = std::mem::take(&mut self.state.lock().watches);
        for w in watches.values() {
            detach(w);
        }
    }

    fn fdinfo(&self, _f: &File) -> String {
        let watches: Vec<Arc<Watched>> = self.state.lock().watches.values().cloned().collect();
        let mut out = String::new();
        for w in watches {
            let (ino, dev) = (w.inode.ino(), w.inode.fs().dev());
            let mask = w.mask.load(Ordering::Relaxed);
            let _ =
                writeln!(out, "inotify wd:{:x} ino:{ino:x} sdev:{dev:x} mask:{mask:x} ignored_mask:0 ", w.wd);
        }
        out
    }
}
