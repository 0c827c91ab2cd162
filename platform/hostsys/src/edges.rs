//! News of sockets of the host by epoll(7), edge-triggered: each time something comes, also while there is more to read, as
//! edge-triggered waiting and signals of a guest want it. A socket is watched only while somebody listens: where nobody does, the
//! first news ends it.

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::Timespec;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// Who is told.
pub trait Edge: Send + Sync {
    /// Something has come; `events` are the bits of poll(2). Called by a thread that holds nothing.
    fn news(&self, events: u16);
    /// Whether nobody listens. Whoever begins to listen does so before [`Watch::begin`].
    fn idle(&self) -> bool;
}

/// Each has an epoll instance of its own: what comes in must not look like new room to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Data, connections, urgent data, ends.
    In,
    /// Room to send.
    Out,
}

impl Side {
    fn flags(self) -> EventFlags {
        let asked = match self {
            Side::In => EventFlags::IN | EventFlags::RDNORM | EventFlags::PRI | EventFlags::RDHUP,
            Side::Out => EventFlags::OUT | EventFlags::WRNORM,
        };
        asked | EventFlags::ET
    }
}

/// How many events are fetched at once.
const BATCH: usize = 64;

/// The instances and the thread that waits for them; it is started by the first watch.
pub struct Edges {
    sides: [OwnedFd; 2],
    wake: OwnedFd,
    known: Mutex<Known>,
    thread: OnceLock<()>,
}

#[derive(Default)]
struct Known {
    next: u64,
    sockets: HashMap<u64, Weak<Inner>>,
    /// What was fetched by others than the thread and is for it to tell.
    fetched: Vec<(Side, u64, u16)>,
}

struct Inner {
    key: u64,
    edges: Arc<Edges>,
    target: Arc<dyn Edge>,
    state: Mutex<State>,
}

struct State {
    /// `None` when it is over: nothing here keeps the socket open then.
    fd: Option<Arc<OwnedFd>>,
    on: [bool; 2],
}

/// A socket's place among the watched.
pub struct Watch(Arc<Inner>);

impl std::fmt::Debug for Edges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Edges")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Edges {
    /// Makes the instances, for all sockets of the process.
    pub fn new() -> io::Result<Arc<Edges>> {
        Ok(Arc::new(Edges {
            sides: [epoll::create(CreateFlags::CLOEXEC)?, epoll::create(CreateFlags::CLOEXEC)?],
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            known: Mutex::new(Known::default()),
            thread: OnceLock::new(),
        }))
    }

    /// A place for a socket. Nothing is watched yet.
    pub fn enter(self: &Arc<Self>, fd: &Arc<OwnedFd>, target: Arc<dyn Edge>) -> Watch {
        let mut known = lock(&self.known);
        let key = known.next;
        known.next += 1;
        let inner = Arc::new(Inner {
            key,
            edges: Arc::clone(self),
            target,
            state: Mutex::new(State { fd: Some(Arc::clone(fd)), on: [false; 2] }),
        });
        known.sockets.insert(key, Arc::downgrade(&inner));
        Watch(inner)
    }

    fn fetch(&self, side: Side) -> Vec<(Side, u64, u16)> {
        let mut events = Vec::with_capacity(BATCH);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(&self.sides[side as usize], spare_capacity(&mut events), Some(&now)).is_err() {
            return Vec::new();
        }
        let one = |e: &epoll::Event| {
            let (data, flags) = (e.data, e.flags);
            (side, data.u64(), u16::try_from(flags.bits() & 0xffff).unwrap_or(0))
        };
        events.iter().map(one).collect()
    }

    fn start(self: &Arc<Self>) -> io::Result<()> {
        if self.thread.set(()).is_err() {
            return Ok(());
        }
        let run = Arc::clone(self);
        let thread = std::thread::Builder::new().name("edges".to_owned()).stack_size(64 << 10);
        thread.spawn(move || run.serve()).map(|_| ())
    }

    fn serve(&self) {
        loop {
            let mut fds =
                [&self.wake, &self.sides[0], &self.sides[1]].map(|fd| PollFd::new(fd, PollFlags::IN));
            if poll(&mut fds, None).is_err() {
                continue;
            }
            if !fds[0].revents().is_empty() {
                let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            }
            let mut events = std::mem::take(&mut lock(&self.known).fetched);
            events.extend(self.fetch(Side::In));
            events.extend(self.fetch(Side::Out));
            for (side, key, bits) in events {
                let socket = lock(&self.known).sockets.get(&key).and_then(Weak::upgrade);
                if let Some(socket) = socket {
                    socket.target.news(bits);
                    socket.rest(side);
                }
            }
        }
    }
}

impl Inner {
    /// Ends the watch of one side if nobody listens.
    fn rest(&self, side: Side) {
        let mut state = lock(&self.state);
        if state.on[side as usize] && self.target.idle() {
            state.end(self, side);
        }
    }
}

impl State {
    fn end(&mut self, inner: &Inner, side: Side) {
        if let (true, Some(fd)) = (self.on[side as usize], &self.fd) {
            // It can only be that it is not there.
            let _ = epoll::delete(&inner.edges.sides[side as usize], fd.as_fd());
        }
        self.on[side as usize] = false;
    }
}

impl Watch {
    /// Watches a side from now on. True if it was not watched before: then the caller has to look for itself what is there
    /// already, since only what comes later is told.
    pub fn begin(&self, side: Side) -> io::Result<bool> {
        let Inner { key, edges, state, .. } = &*self.0;
        let mut state = lock(state);
        let Some(fd) = state.fd.as_ref().filter(|_| !state.on[side as usize]) else { return Ok(false) };
        edges.start()?;
        epoll::add(&edges.sides[side as usize], fd, EventData::new_u64(*key), side.flags())?;
        state.on[side as usize] = true;
        // What is there now is an event already; it is no news. Events of others that come along are for the thread.
        loop {
            let events = edges.fetch(side);
            let mine = events.iter().any(|e| e.1 == *key);
            let last = events.len() < BATCH;
            let others: Vec<_> = events.into_iter().filter(|e| e.1 != *key).collect();
            if !others.is_empty() {
                lock(&edges.known).fetched.extend(others);
                // The only error is a full counter, and then the thread will look.
                let _ = rustix::io::write(&edges.wake, &1u64.to_ne_bytes());
            }
            if mine || last {
                return Ok(true);
            }
        }
    }

    /// Watches the socket no more and lets go of it.
    pub fn end(&self) {
        let mut state = lock(&self.0.state);
        state.end(&self.0, Side::In);
        state.end(&self.0, Side::Out);
        state.fd = None;
        drop(state);
        lock(&self.0.edges.known).sockets.remove(&self.0.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    struct Tell(Mutex<Sender<u16>>, AtomicBool);
    impl Edge for Tell {
        fn news(&self, events: u16) {
            self.0.lock().unwrap().send(events).unwrap();
        }
        fn idle(&self) -> bool {
            self.1.load(Ordering::SeqCst)
        }
    }

    fn watched() -> (UnixStream, UnixStream, Arc<OwnedFd>, Arc<Tell>, Watch, Receiver<u16>) {
        let (a, b) = UnixStream::pair().unwrap();
        let (tx, rx) = channel();
        let tell = Arc::new(Tell(Mutex::new(tx), AtomicBool::new(false)));
        let fd = Arc::new(OwnedFd::from(a.try_clone().unwrap()));
        let watch = Edges::new().unwrap().enter(&fd, Arc::clone(&tell) as Arc<dyn Edge>);
        (a, b, fd, tell, watch, rx)
    }

    const SOON: Duration = Duration::from_millis(50);

    #[test]
    fn each_arrival_is_told_and_what_was_there_is_not() {
        let (_a, mut b, _fd, _tell, watch, rx) = watched();
        b.write_all(b"before").unwrap();
        assert!(watch.begin(Side::In).unwrap());
        assert!(!watch.begin(Side::In).unwrap());
        assert!(watch.begin(Side::Out).unwrap());
        assert!(rx.recv_timeout(SOON).is_err());
        for _ in 0..3 {
            b.write_all(b"more").unwrap();
            let events = rx.recv_timeout(Duration::from_secs(5)).unwrap();
            assert_eq!(events & 5, 1, "IN and not OUT");
        }
        drop(b);
        assert_ne!(rx.recv_timeout(Duration::from_secs(5)).unwrap() & 0x10, 0);
    }

    #[test]
    fn a_watch_ends_when_nobody_listens_and_begins_again() {
        let (mut a, mut b, _fd, tell, watch, rx) = watched();
        assert!(watch.begin(Side::In).unwrap());
        tell.1.store(true, Ordering::SeqCst);
        b.write_all(b"1").unwrap();
        rx.recv_timeout(Duration::from_secs(5)).unwrap();
        // The thread looks whether anybody listens only after it has told.
        let begun = (0..500).find(|_| {
            std::thread::sleep(Duration::from_millis(1));
            !lock(&watch.0.state).on[0]
        });
        assert!(begun.is_some());
        b.write_all(b"2").unwrap();
        assert!(rx.recv_timeout(SOON).is_err());
        tell.1.store(false, Ordering::SeqCst);
        assert!(watch.begin(Side::In).unwrap());
        a.read_exact(&mut [0; 2]).unwrap();
        b.write_all(b"3").unwrap();
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)).unwrap() & 1, 1);
    }

    #[test]
    fn after_the_end_nothing_keeps_the_socket() {
        let (a, mut b, fd, _tell, watch, rx) = watched();
        assert!(watch.begin(Side::In).unwrap());
        watch.end();
        assert_eq!(Arc::strong_count(&fd), 1);
        b.write_all(b"x").unwrap();
        assert!(rx.recv_timeout(SOON).is_err());
        assert!(!watch.begin(Side::In).unwrap());
        drop(a);
    }
}
