//! Terminals of the host as screens and keyboards of terminals of ours.
//!
//! The command line gives the sandbox a pseudoterminal of the host in raw mode. The guest does not see it: it gets
//! a terminal of our devpts, with its line discipline and job control, and bytes are carried between the two
//! by whoever has news: the thread that polls, or the task that wrote.

use crate::devpts::{self, Console, DevptsFs};
use crate::tty::{Replica, Tty};
use abi::fcntl::OpenFlags;
use abi::termios::Winsize;
use abi::{Errno, Result};
use kernel::Kernel;
use kernel::creds::Creds;
use kernel::task::Task;
use kernel::vfs::{Caller, File, Mount};
use ksync::{Listener, LockClass, Registration};
use platform::Block;
use platform::hostsys::poller::{Poller, Ready};
use platform::hostsys::stream::HostStream;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

const POLLIN: u16 = 1;
const POLLOUT: u16 = 4;

/// A terminal of the host and ours behind it.
struct Pair {
    me: Weak<Pair>,
    host: HostStream,
    tty: Arc<Tty>,
    instance: Arc<DevptsFs>,
    poller: Arc<Poller>,
    all: Weak<Pairs>,
    /// Calls of `pump` that are not served yet; whoever finds 0 serves.
    requests: AtomicU32,
    over: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Output that the host's terminal did not take yet.
    left: Vec<u8>,
    registration: Option<Registration>,
}

/// Keeps the pairs of a sandbox alive.
struct Pairs(ksync::Mutex<Vec<Arc<Pair>>>);

impl Ready for Pair {
    fn ready(&self, _events: u16) {
        self.pump();
    }
}

/// Hears of news of our terminal.
struct Nudge(Weak<Pair>);

impl Listener for Nudge {
    fn notify(&self, _mask: u32) -> bool {
        if let Some(p) = self.0.upgrade() {
            p.pump();
        }
        true
    }
}

impl Pair {
    /// Carries bytes both ways until neither side has more.
    fn pump(&self) {
        if self.requests.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        loop {
            let seen = self.requests.load(Ordering::Acquire);
            if !self.over.load(Ordering::Acquire) && !self.carry() {
                self.end();
            }
            if self.requests.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
        }
    }

    /// `false`: the host's terminal is gone, or all is done.
    fn carry(&self) -> bool {
        let mut wanted = 0;
        let mut buf = [0; 4096];
        loop {
            let mut left = std::mem::take(&mut self.inner().left);
            if left.is_empty() {
                left = self.tty.take_output(buf.len());
            }
            if left.is_empty() {
                break;
            }
            let result = self.host.write(&[Block::from_mut_slice(&mut left)]);
            let done = match &result {
                Ok(n) => *n,
                Err(_) => 0,
            };
            left.drain(..done);
            self.inner().left = left;
            match result {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    wanted |= POLLOUT;
                    break;
                }
                Err(_) => return false,
            }
        }
        loop {
            let room = self.tty.input_room().min(buf.len());
            if room == 0 {
                // News of our terminal bring us back.
                break;
            }
            match self.host.read(&[Block::from_mut_slice(&mut buf[..room])]) {
                // The other end of a pseudoterminal was closed.
                Ok(0) => return false,
                Ok(n) => {
                    self.tty.input(&buf[..n]);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    wanted |= POLLIN;
                    break;
                }
                Err(_) => return false,
            }
        }
        if self.tty.replicas_closed() && wanted & POLLOUT == 0 && !self.tty.has_output() {
            return false;
        }
        if let Some(me) = self.me.upgrade()
            && wanted != 0
        {
            let me: Arc<dyn Ready> = me;
            return self.poller.arm(self.host.fd(), wanted, &me).is_ok();
        }
        true
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.over.store(true, Ordering::Release);
        let registration = self.inner().registration.take();
        if let Some(r) = registration {
            self.tty.master_queue().unregister(r);
        }
        self.instance.remove(self.tty.index);
        self.tty.hang_up();
        if let Some(all) = self.all.upgrade() {
            let gone: Vec<Arc<Pair>> = {
                let mut list = all.0.lock();
                let (gone, stay) =
                    std::mem::take(&mut *list).into_iter().partition(|p| std::ptr::eq(Arc::as_ptr(p), self));
                *list = stay;
                gone
            };
            drop(gone);
        }
    }
}

/// An open file on a new terminal of the guest whose screen and keyboard are a terminal of the host.
/// `instance`: the devpts it is made in, which is that of the container; without one, its own. `size`: rows and
/// columns.
pub fn terminal(
    kernel: &Arc<Kernel>,
    instance: Option<Arc<DevptsFs>>,
    fd: OwnedFd,
    size: Option<(u16, u16)>,
    creds: &Arc<Creds>,
) -> Result<Arc<File>> {
    let host = HostStream::new(fd);
    let failed = |e: std::io::Error| Errno::from_host(&e);
    host.set_nonblocking().map_err(failed)?;
    let instance = match instance {
        Some(i) => i,
        None => devpts::mount(kernel, b"")?,
    };
    let cx = Caller { creds, task: None };
    let tty = instance.create(&cx)?;
    tty.set_locked(false);
    let (rows, cols) = match size {
        Some(s) => s,
        None => platform::hostsys::tty::window_size(&**host.fd()).unwrap_or((0, 0)),
    };
    tty.set_window(Winsize { rows, cols, ..Winsize::default() });
    let flags = OpenFlags::RDWR;
    let path = instance.path_of(tty.index, &Mount::internal(instance.clone()))?;
    let replica = Replica::open(&tty, &cx, flags | OpenFlags::NOCTTY)?;
    let file = File::new(replica, path, flags, Arc::clone(creds));
    let all =
        kernel.extensions.get_or_init(|| Arc::new(Pairs(ksync::Mutex::new(LockClass::Leaf, Vec::new()))));
    let pair = Arc::new_cyclic(|me| Pair {
        me: me.clone(),
        host,
        tty: Arc::clone(&tty),
        instance,
        poller: kernel.extensions.get_or_init(Poller::default),
        all: Arc::downgrade(&all),
        requests: AtomicU32::new(0),
        over: AtomicBool::new(false),
        inner: Mutex::default(),
    });
    let nudge = Arc::new(Nudge(Arc::downgrade(&pair)));
    pair.inner().registration = Some(tty.master_queue().register(nudge, u32::MAX, false));
    all.0.lock().push(Arc::clone(&pair));
    pair.pump();
    Ok(file)
}

/// Makes the terminal of a file that [`terminal`] gave the controlling one of a session leader.
pub fn make_controlling(file: &Arc<File>, task: &Arc<Task>) -> Result<()> {
    let replica = file.ops_as::<Replica>().ok_or(Errno::ENOTTY)?;
    Console::of(task.kernel()).offer(task.group().members(), replica.tty());
    replica.tty().opened_by(task);
    Ok(())
}
