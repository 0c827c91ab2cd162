//! signalfd(2): pending signals as messages.
//!
//! What can be read are the signals of whoever reads, so news are taken from the process of each task that ever
//! read or polled the file, and told on a queue of the file's own.

use abi::poll::PollEvents;
use abi::siginfo::SigInfo;
use abi::signal::{SigSet, code};
use abi::{Errno, Result};
use kernel::io::Sink;
use kernel::task::ThreadGroup;
use kernel::vfs::{Caller, File, FileOps};
use ksync::{Listener, LockClass, Mutex, Registration, WaitQueue};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct signalfd_siginfo`
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Message {
    signo: u32,
    errno: i32,
    code: i32,
    pid: u32,
    uid: u32,
    fd: i32,
    tid: u32,
    band: u32,
    overrun: u32,
    trapno: u32,
    status: i32,
    int: i32,
    ptr: u64,
    utime: u64,
    stime: u64,
    addr: u64,
    addr_lsb: u16,
    pad2: u16,
    syscall: i32,
    call_addr: u64,
    arch: u32,
    pad: [u8; 28],
}

const _: () = assert!(size_of::<Message>() == 128);

impl Message {
    /// Which fields a signal has depends on its number and code (`signalfd_copyinfo`).
    #[expect(clippy::cast_possible_truncation, reason = "halves of words")]
    fn new(i: &SigInfo) -> Message {
        let low = |w: u64| w as u32;
        let mut m =
            Message { signo: i.signo.cast_unsigned(), errno: i.errno, code: i.code, ..Message::default() };
        let sender = |m: &mut Message| {
            m.pid = low(i.fields[0]);
            m.uid = (i.fields[0] >> 32) as u32;
        };
        match (i.signo, i.code) {
            (_, code::SI_TIMER) => {
                m.tid = low(i.fields[0]);
                m.overrun = (i.fields[0] >> 32) as u32;
                m.ptr = i.fields[1];
                m.int = low(i.fields[1]).cast_signed();
            }
            (17, 1..=6) => {
                sender(&mut m);
                m.status = i.status();
                m.utime = i.fields[2];
                m.stime = i.fields[3];
            }
            (4 | 5 | 7 | 8 | 11, 1..=63) => m.addr = i.fields[0],
            (31, code::SYS_SECCOMP) => {
                m.call_addr = i.fields[0];
                m.syscall = low(i.fields[1]).cast_signed();
                m.arch = (i.fields[1] >> 32) as u32;
            }
            (29, 1..=6) | (_, code::SI_SIGIO) => {
                m.band = low(i.fields[0]);
                m.fd = low(i.fields[1]).cast_signed();
            }
            (_, code::SI_USER | code::SI_KERNEL | code::SI_TKILL) => sender(&mut m),
            _ => {
                sender(&mut m);
                m.ptr = i.fields[1];
                m.int = low(i.fields[1]).cast_signed();
            }
        }
        m
    }
}

/// A signalfd.
pub struct SignalFd {
    me: Weak<SignalFd>,
    mask: AtomicU64,
    queue: Arc<WaitQueue>,
    sources: Mutex<Vec<Source>>,
}

struct Source {
    group: Weak<ThreadGroup>,
    registration: Registration,
}

struct Forward(Weak<SignalFd>);

impl Listener for Forward {
    fn notify(&self, _mask: u32) -> bool {
        if let Some(f) = self.0.upgrade() {
            f.queue.wake_all(PollEvents::IN.bits());
        }
        true
    }
}

impl SignalFd {
    /// For the signals of a set.
    pub fn new(mask: SigSet) -> Arc<SignalFd> {
        Arc::new_cyclic(|me| SignalFd {
            me: me.clone(),
            mask: AtomicU64::new(mask.minus(SigSet::UNBLOCKABLE).0),
            queue: Arc::new(WaitQueue::new()),
            sources: Mutex::new(LockClass::Leaf, Vec::new()),
        })
    }

    /// Another set from now on.
    pub fn set_mask(&self, mask: SigSet) {
        self.mask.store(mask.minus(SigSet::UNBLOCKABLE).0, Ordering::Release);
        self.queue.wake_all(PollEvents::IN.bits());
    }

    fn mask(&self) -> SigSet {
        SigSet(self.mask.load(Ordering::Acquire))
    }

    /// Makes sure that news of the caller's process come here.
    pub fn listen(&self, cx: &Caller<'_>) {
        let Some(task) = cx.task else { return };
        let group = task.group();
        let known = |s: &Source| std::ptr::eq(s.group.as_ptr(), Arc::as_ptr(group));
        let gone: Vec<Source>;
        {
            let mut sources = self.sources.lock();
            if sources.iter().any(known) {
                return;
            }
            let all = std::mem::take(&mut *sources).into_iter();
            (gone, *sources) = all.partition(|s| s.group.strong_count() == 0);
            let registration =
                group.signal_queue.register(Arc::new(Forward(self.me.clone())), u32::MAX, false);
            sources.push(Source { group: Arc::downgrade(group), registration });
        }
        drop(gone);
    }
}

impl FileOps for SignalFd {
    fn read(&self, cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
        let room = dst.remaining() / size_of::<Message>();
        if room == 0 {
            return Err(Errno::EINVAL);
        }
        let task = cx.task.ok_or(Errno::EAGAIN)?;
        self.listen(cx);
        let mut done = 0;
        for _ in 0..room {
            let Some(info) = task.dequeue_signal(self.mask()) else { break };
            match dst.put(Message::new(&info).as_bytes()) {
                Ok(n) if n == size_of::<Message>() => done += n,
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

    fn poll(&self, cx: &Caller<'_>, _f: &File) -> PollEvents {
        self.listen(cx);
        let ready = cx.task.is_some_and(|t| t.has_pending(self.mask()));
        if ready { PollEvents::IN } else { PollEvents::empty() }
    }

    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        Some(Arc::clone(&self.queue))
    }

    fn release(&self, _f: &File) {
        let sources = std::mem::take(&mut *self.sources.lock());
        for s in sources {
            if let Some(g) = s.group.upgrade() {
                g.signal_queue.unregister(s.registration);
            }
        }
    }

    fn fdinfo(&self, _f: &File) -> String {
        format!("sigmask:\t{:016x}\n", self.mask().0)
    }
}
