//! Terminals: the object behind a pseudoterminal pair. The line discipline is in `ldisc.rs`, the files of
//! the two sides in `master.rs` and `replica.rs`, ioctls in `ioctl.rs`, job control in `jobs.rs`.
//!
//! The master side is either an open file of the guest, or the sandbox's console: then bytes come from and go to
//! a terminal of the host (see `hostfd`).

mod ioctl;
mod jobs;
pub mod ldisc;
mod master;
mod replica;

pub use master::Master;
pub use replica::Replica;

use abi::Errno;
use abi::poll::PollEvents;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use abi::stat::makedev;
use abi::termios::{Termios, Winsize, cc, lflag, pkt};
use kernel::task::{ControllingTty, Pid, ProcessGroup, Session};
use ksync::{LockClass, Mutex, WaitQueue};
use ldisc::{Effects, Ldisc};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// Bytes from the keyboard that can wait in front of the line discipline.
const PENDING_MAX: usize = 16 * 1024;
/// Bytes for the screen that can wait for the master side.
const OUTPUT_MAX: usize = 16 * 1024;

struct State {
    ldisc: Ldisc,
    /// From the keyboard, not yet taken by the line discipline for want of room.
    pending: VecDeque<u8>,
    window: Winsize,
    /// Open replicas, and whether there ever was one.
    replicas: u32,
    replica_seen: bool,
    /// `TIOCSPTLCK`
    locked: bool,
    /// The master is gone, or the terminal was hung up.
    hung_up: bool,
    /// `TIOCPKT`, and what changed since the master last read.
    packet: bool,
    status: u8,
    exclusive: bool,
}

/// Whose controlling terminal it is. A lock of its own, innermost, because it is asked from under those of tasks.
#[derive(Default)]
struct Jobs {
    session: Weak<Session>,
    foreground: Option<(Weak<ProcessGroup>, Arc<Pid>)>,
}

/// A pseudoterminal.
pub struct Tty {
    pub index: u32,
    me: Weak<Tty>,
    state: Mutex<State>,
    jobs: Mutex<Jobs>,
    replica_wait: Arc<WaitQueue>,
    master_wait: Arc<WaitQueue>,
}

/// What to tell whom once the lock is gone.
#[derive(Default)]
struct News {
    signals: Vec<Signal>,
    master: PollEvents,
    replica: PollEvents,
}

impl Tty {
    /// A terminal that nobody has open; locked, as a new pty of /dev/ptmx is.
    pub fn new(index: u32) -> Arc<Tty> {
        let state = State {
            ldisc: Ldisc::new(Termios::default()),
            pending: VecDeque::new(),
            window: Winsize::default(),
            replicas: 0,
            replica_seen: false,
            locked: true,
            hung_up: false,
            packet: false,
            status: 0,
            exclusive: false,
        };
        Arc::new_cyclic(|me| Tty {
            index,
            me: me.clone(),
            state: Mutex::new(LockClass::Stream, state),
            jobs: Mutex::new(LockClass::Leaf, Jobs::default()),
            replica_wait: Arc::new(WaitQueue::new()),
            master_wait: Arc::new(WaitQueue::new()),
        })
    }

    fn tell(&self, news: News) {
        if !news.signals.is_empty()
            && let Some(group) = self.foreground()
        {
            for s in news.signals {
                group.send_signal(&SigInfo::kernel(s));
            }
        }
        if !news.master.is_empty() {
            self.master_wait.wake(news.master.bits());
        }
        if !news.replica.is_empty() {
            self.replica_wait.wake(news.replica.bits());
        }
    }

    /// Bytes from the keyboard; how many were taken.
    pub fn input(&self, data: &[u8]) -> usize {
        let mut news = News::default();
        let n;
        {
            let mut s = self.state.lock();
            n = data.len().min(PENDING_MAX - s.pending.len().min(PENDING_MAX));
            s.pending.extend(&data[..n]);
            s.pump(&mut news);
        }
        self.tell(news);
        n
    }

    /// How many bytes [`Tty::input`] takes now.
    pub fn input_room(&self) -> usize {
        PENDING_MAX - self.state.lock().pending.len().min(PENDING_MAX)
    }

    /// Takes up to `max` bytes for the screen.
    pub fn take_output(&self, max: usize) -> Vec<u8> {
        let out: Vec<u8> = {
            let mut s = self.state.lock();
            let n = s.ldisc.output_len().min(max);
            s.ldisc.output().drain(..n).collect()
        };
        if !out.is_empty() {
            self.replica_wait.wake(PollEvents::WRITABLE.bits());
        }
        out
    }

    /// Puts bytes back that could not be shown.
    pub fn return_output(&self, data: &[u8]) {
        let mut s = self.state.lock();
        for c in data.iter().rev() {
            s.ldisc.output().push_front(*c);
        }
    }

    /// Whether there is something for the screen.
    pub fn has_output(&self) -> bool {
        self.state.lock().ldisc.output_len() > 0
    }

    /// Whether replicas were open and none is any more.
    pub fn replicas_closed(&self) -> bool {
        let s = self.state.lock();
        s.replica_seen && s.replicas == 0
    }

    /// News for the master side.
    pub fn master_queue(&self) -> &Arc<WaitQueue> {
        &self.master_wait
    }

    /// The size of the window.
    pub fn window(&self) -> Winsize {
        self.state.lock().window
    }

    /// Sets the size of the window; the foreground group hears of a change.
    pub fn set_window(&self, w: Winsize) {
        let mut news = News::default();
        {
            let mut s = self.state.lock();
            if s.window != w {
                s.window = w;
                news.signals.push(Signal::SIGWINCH);
            }
        }
        self.tell(news);
    }

    /// Lets replicas be opened (`TIOCSPTLCK`).
    pub fn set_locked(&self, locked: bool) {
        self.state.lock().locked = locked;
    }

    /// Counts a new open replica. EIO while locked or after a hang-up.
    fn open_replica(&self, privileged: bool) -> Result<(), Errno> {
        let mut s = self.state.lock();
        if s.locked || s.hung_up {
            return Err(Errno::EIO);
        }
        if s.exclusive && !privileged {
            return Err(Errno::EBUSY);
        }
        s.replicas += 1;
        s.replica_seen = true;
        Ok(())
    }

    fn close_replica(&self) {
        let mut last = false;
        {
            let mut s = self.state.lock();
            s.replicas -= 1;
            if s.replicas == 0 {
                last = true;
                s.exclusive = false;
            }
        }
        if last {
            self.master_wait.wake_all(u32::MAX);
        }
    }

    /// The master side is gone: readers see the end, writers errors, the session gets SIGHUP
    /// (`__tty_hangup`).
    pub fn hang_up(&self) {
        {
            let mut s = self.state.lock();
            if std::mem::replace(&mut s.hung_up, true) {
                return;
            }
            s.ldisc.flush_input();
            s.ldisc.output().clear();
            s.pending.clear();
        }
        let jobs = std::mem::take(&mut *self.jobs.lock());
        let (session, foreground) =
            (jobs.session.upgrade(), jobs.foreground.as_ref().and_then(|(g, _)| g.upgrade()));
        let leader = session.as_ref().and_then(|s| s.leader());
        if let Some(session) = session {
            drop(session.set_tty(None));
            if let Some(leader) = &leader {
                leader.send_signal(&SigInfo::kernel(Signal::SIGHUP));
                leader.send_signal(&SigInfo::kernel(Signal::SIGCONT));
            }
        }
        // The leader was told already: a second signal would come as one more when it is quick with the first.
        for member in foreground.iter().flat_map(|g| g.members()) {
            if !leader.as_ref().is_some_and(|l| Arc::ptr_eq(l, &member)) {
                member.send_signal(&SigInfo::kernel(Signal::SIGHUP));
            }
        }
        self.replica_wait.wake_all(u32::MAX);
        self.master_wait.wake_all(u32::MAX);
    }
}

/// Hangs up the controlling terminal of a task, if it has one (`tty_vhangup_self`).
pub fn hang_up_controlling(task: &kernel::Task) {
    let tty: Option<Arc<dyn std::any::Any + Send + Sync>> = task.group().tty().map(|tty| tty as _);
    if let Some(tty) = tty.and_then(|any| any.downcast::<Tty>().ok()) {
        tty.hang_up();
    }
}

impl State {
    /// Feeds the line discipline as far as it has room.
    fn pump(&mut self, news: &mut News) {
        let before = self.ldisc.output_len();
        let mut moved = false;
        while self.ldisc.room() > 0 {
            let Some(c) = self.pending.pop_front() else { break };
            moved = true;
            let fx = self.ldisc.receive(c);
            self.apply(fx, news);
        }
        if moved {
            news.master |= PollEvents::WRITABLE;
        }
        if self.ldisc.output_len() != before {
            news.master |= PollEvents::READABLE;
        }
        if self.ldisc.ready(1) {
            news.replica |= PollEvents::READABLE;
        }
    }

    fn apply(&mut self, fx: Effects, news: &mut News) {
        if let Some(s) = fx.signal {
            news.signals.push(s);
        }
        if fx.flush {
            self.note(pkt::FLUSHREAD | pkt::FLUSHWRITE, news);
        }
        match fx.stopped {
            Some(true) => {
                self.status &= !pkt::START;
                self.note(pkt::STOP, news);
            }
            Some(false) => {
                self.status &= !pkt::STOP;
                self.note(pkt::START, news);
                news.replica |= PollEvents::WRITABLE;
            }
            None => {}
        }
    }

    /// Something that the master hears of in packet mode.
    fn note(&mut self, bits: u8, news: &mut News) {
        if self.packet {
            self.status |= bits;
            news.master |= PollEvents::PRI | PollEvents::READABLE;
        }
    }

    /// How many bytes a read waits for in non-canonical mode, for `poll` (`MIN` without `TIME`).
    fn poll_minimum(&self) -> usize {
        let t = &self.ldisc.termios;
        if t.lflag & lflag::ICANON == 0 && t.cc[cc::VTIME] == 0 {
            usize::from(t.cc[cc::VMIN]).max(1)
        } else {
            1
        }
    }
}

impl ControllingTty for Tty {
    fn rdev(&self) -> u64 {
        makedev(crate::dev::majors::PTS, self.index)
    }
    fn name(&self) -> String {
        format!("pts/{}", self.index)
    }
    fn resize(&self, rows: u16, columns: u16) {
        self.set_window(Winsize { rows, cols: columns, ..Winsize::default() });
    }
    fn foreground(&self) -> Option<Arc<ProcessGroup>> {
        self.jobs.lock().foreground.as_ref().and_then(|(g, _)| g.upgrade())
    }
    fn disassociate(&self, session: &Arc<Session>) {
        let gone = {
            let mut s = self.jobs.lock();
            let ours = std::ptr::eq(s.session.as_ptr(), Arc::as_ptr(session));
            if ours { Some(std::mem::take(&mut *s)) } else { None }
        };
        drop(gone);
    }
}
