//! fanotify(7): groups with marks on inodes, mounts and file systems, and the queue of events that they fill. The
//! places that tell of events are in the VFS (`kernel::vfs::notify`). There are no permission events, as in a kernel
//! without CONFIG_FANOTIFY_ACCESS_PERMISSIONS.

mod event;
mod mark;

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use event::{Layout, Queued, What};
use kernel::io::Sink;
use kernel::uaccess::UserPtr;
use kernel::vfs::{Caller, File, FileOps};
use kernel::{SysResult, Task};
use ksync::{LockClass, Mutex, WaitQueue};
use mark::Mark;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

pub use mark::{Change, Target, check_kind};

/// Flags of fanotify_init(2).
pub mod init {
    pub const CLOEXEC: u32 = 1;
    pub const NONBLOCK: u32 = 2;
    pub const CLASS_CONTENT: u32 = 4;
    pub const CLASS_PRE_CONTENT: u32 = 8;
    pub const UNLIMITED_QUEUE: u32 = 0x10;
    pub const UNLIMITED_MARKS: u32 = 0x20;
    pub const ENABLE_AUDIT: u32 = 0x40;
    pub const REPORT_PIDFD: u32 = 0x80;
    pub const REPORT_TID: u32 = 0x100;
    pub const REPORT_FID: u32 = 0x200;
    pub const REPORT_DIR_FID: u32 = 0x400;
    pub const REPORT_NAME: u32 = 0x800;
    pub const REPORT_TARGET_FID: u32 = 0x1000;
    pub const ANY_FID: u32 = REPORT_FID | REPORT_DIR_FID | REPORT_NAME | REPORT_TARGET_FID;
}

/// Bits of an event's mask beyond those that inotify has, too.
pub mod bits {
    pub const Q_OVERFLOW: u32 = 0x4000;
    pub const EVENT_ON_CHILD: u32 = 0x0800_0000;
    pub const ONDIR: u32 = 0x4000_0000;
    /// What an open file can show: access, modify, close, open, open for execution.
    pub const BY_PATH: u32 = 0x103b;
    /// Making, removing and moving names.
    pub const ENTRIES: u32 = 0x3c0;
    /// Everything that can be asked for here: no `FAN_RENAME`, no `FAN_FS_ERROR`.
    pub const EVENTS: u32 = 0x1fff;
}

/// How a group was made.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Of fanotify_init(2).
    pub flags: u32,
    /// With which its descriptors for objects are opened.
    pub event_flags: OpenFlags,
    /// Made without the right to see what others do.
    pub unprivileged: bool,
    pub max_events: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    marks: Vec<Arc<Mark>>,
}

/// A notification group.
pub struct Fanotify {
    me: Weak<Fanotify>,
    pub setup: Setup,
    state: Mutex<State>,
    wait: Arc<WaitQueue>,
}

impl Fanotify {
    /// A group without marks.
    pub fn new(setup: Setup) -> Arc<Fanotify> {
        Arc::new_cyclic(|me| Fanotify {
            me: Weak::clone(me),
            setup,
            state: Mutex::new(LockClass::Leaf, State::default()),
            wait: Arc::new(WaitQueue::new()),
        })
    }

    fn has(&self, flag: u32) -> bool {
        self.setup.flags & flag != 0
    }

    /// Whether events name objects by handles.
    pub fn by_handle(&self) -> bool {
        self.has(init::ANY_FID)
    }

    fn push(&self, e: Queued) {
        {
            let mut s = self.state.lock();
            if let Some(old) = s.queue.iter_mut().rev().take(128).find(|old| old.merges(&e)) {
                old.mask |= e.mask;
                return;
            }
            if s.queue.len() >= self.setup.max_events {
                if !s.queue.back().is_some_and(|last| last.mask == bits::Q_OVERFLOW) {
                    s.queue.push_back(Queued::overflow());
                }
            } else {
                s.queue.push_back(e);
            }
        }
        self.wait.wake(PollEvents::READABLE.bits());
    }

    /// The marks that stand for one object.
    fn marks(&self) -> Vec<Arc<Mark>> {
        self.state.lock().marks.clone()
    }

    /// fanotify_mark(2) with `FAN_MARK_ADD`: more events for an object, or more that are ignored.
    pub fn add(&self, target: Target, change: mark::Change) -> Result<()> {
        let old = self.marks().into_iter().find(|m| m.target.is(&target));
        match old {
            Some(m) => {
                m.change(change, true);
                Ok(())
            }
            None => {
                let m = Arc::new(Mark::new(Weak::clone(&self.me), target));
                m.change(change, true);
                self.state.lock().marks.push(Arc::clone(&m));
                if let Err(e) = m.attach() {
                    self.forget(&m);
                    return Err(e);
                }
                Ok(())
            }
        }
    }

    /// `FAN_MARK_REMOVE`: ENOENT when there is no mark.
    pub fn remove(&self, target: &Target, change: mark::Change) -> Result<()> {
        let m = self.marks().into_iter().find(|m| m.target.is(target)).ok_or(Errno::ENOENT)?;
        m.change(change, false);
        if m.is_empty() {
            self.forget(&m);
            m.detach();
        }
        Ok(())
    }

    /// `FAN_MARK_FLUSH`: all marks of a kind go.
    pub fn flush_marks(&self, like: &Target) {
        let gone: Vec<Arc<Mark>> = {
            let mut s = self.state.lock();
            let (gone, stay) =
                std::mem::take(&mut s.marks).into_iter().partition(|m| m.target.same_kind(like));
            s.marks = stay;
            gone
        };
        gone.iter().for_each(|m| m.detach());
    }

    fn forget(&self, mark: &Mark) {
        let gone: Vec<Arc<Mark>> = {
            let mut s = self.state.lock();
            let (gone, stay) =
                std::mem::take(&mut s.marks).into_iter().partition(|m| std::ptr::eq(&**m, mark));
            s.marks = stay;
            gone
        };
        drop(gone);
    }

    fn layout(&self) -> Layout {
        Layout {
            fid: self.has(init::REPORT_FID),
            dir: self.has(init::REPORT_DIR_FID),
            name: self.has(init::REPORT_NAME),
            target: self.has(init::REPORT_TARGET_FID),
        }
    }

    /// A descriptor for the object of an event in the reader's table; negative when there can be none.
    fn open_object(&self, cx: &Caller<'_>, what: &What) -> (i32, Option<kernel::vfs::Fd>) {
        let What::Place(place) = what else { return (-1, None) };
        let Some(task) = cx.task else { return (-1, None) };
        let flags = self.setup.event_flags;
        let opened = || -> Result<kernel::vfs::Fd> {
            let kind = place.inode()?.file_type();
            if !matches!(kind, abi::stat::FileType::Regular | abi::stat::FileType::Directory) {
                return Err(Errno::ENXIO);
            }
            let ops = place.inode()?.open(cx, place, flags)?;
            let file = File::new(ops, place.clone(), flags - OpenFlags::CLOEXEC, Arc::clone(cx.creds));
            // What the listener does with it is no event.
            file.silence();
            let limit = task.group().soft_limit(abi::resource::Resource::Nofile);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            task.files().install(file, flags.contains(OpenFlags::CLOEXEC), 0, limit)
        };
        match opened() {
            Ok(fd) => (fd.0, Some(fd)),
            Err(_) => (-1, None),
        }
    }
}

impl FileOps for Fanotify {
    fn read(&self, cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
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
            let (fd, installed) = self.open_object(cx, &event.what);
            let seen = |pid: i32| -> i32 {
                let Some(task) = cx.task else { return 0 };
                if self.setup.unprivileged && pid != task.group().tgid {
                    return 0;
                }
                let ns = task.pid_ns();
                task.kernel().root_pid_ns.find(pid).and_then(|p| p.number_in(&ns)).unwrap_or(0)
            };
            let raw = event.encode(fd, seen(event.pid), self.by_handle());
            match dst.put(&raw) {
                Ok(n) if n == raw.len() => done += n,
                result => {
                    if let (Some(fd), Some(task)) = (installed, cx.task) {
                        drop(task.files().remove(fd));
                    }
                    if done > 0 {
                        break;
                    }
                    result?;
                    return Err(Errno::EFAULT);
                }
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
        let n = self.state.lock().queue.len() * event::HEAD;
        UserPtr::new(arg).write(&task.mm(), &i32::try_from(n).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn release(&self, _f: &File) {
        let marks = std::mem::take(&mut self.state.lock().marks);
        marks.iter().for_each(|m| m.detach());
    }

    fn fdinfo(&self, _f: &File) -> String {
        let mut out = format!(
            "fanotify flags:{:x} event-flags:{:x}\n",
            self.setup.flags,
            self.setup.event_flags.bits()
        );
        for m in self.marks() {
            out.push_str(&m.describe());
        }
        out
    }
}
