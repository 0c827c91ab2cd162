//! One thread that waits for donated descriptors on behalf of everybody. A descriptor is watched only while
//! somebody has asked (`arm`), once for each asking: an idle process does nothing.

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Somebody who asked.
pub trait Ready: Send + Sync {
    /// The descriptor is ready; `events` are the bits of poll(2).
    fn ready(&self, events: u16);
}

struct Armed {
    fd: Arc<OwnedFd>,
    events: u16,
    target: Arc<dyn Ready>,
}

struct Shared {
    wake: OwnedFd,
    armed: Mutex<Vec<Armed>>,
    /// How often the thread has looked and let go of what it looked at.
    rounds: Mutex<u64>,
    passed: Condvar,
}

/// The waiting thread; it is started by the first asking.
pub struct Poller {
    shared: OnceLock<Arc<Shared>>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Poller")
    }
}

impl Default for Poller {
    fn default() -> Self {
        Poller { shared: OnceLock::new() }
    }
}

/// What a descriptor is ready for right now, without waiting.
pub fn ready_now(fd: impl AsFd, events: u16) -> u16 {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::from_bits_retain(events))];
    match poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) => fds[0].revents().bits(),
        Err(_) => PollFlags::ERR.bits(),
    }
}

impl Poller {
    /// Calls `target` once when the descriptor is ready for one of `events`, or broken.
    pub fn arm(&self, fd: &Arc<OwnedFd>, events: u16, target: &Arc<dyn Ready>) -> io::Result<()> {
        let shared = match self.shared.get() {
            Some(s) => s,
            None => {
                let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                let new = Arc::new(Shared {
                    wake,
                    armed: Mutex::new(Vec::new()),
                    rounds: Mutex::new(0),
                    passed: Condvar::new(),
                });
                let run = Arc::clone(&new);
                let kept = self.shared.get_or_init(|| new);
                if Arc::ptr_eq(kept, &run) {
                    std::thread::Builder::new()
                        .name("poller".to_owned())
                        .stack_size(64 << 10)
                        .spawn(move || serve(&run))?;
                }
                kept
            }
        };
        {
            let mut armed = shared.armed.lock().unwrap_or_else(PoisonError::into_inner);
            match armed.iter_mut().find(|a| Arc::ptr_eq(&a.fd, fd) && Arc::ptr_eq(&a.target, target)) {
                Some(a) if a.events & events == events => return Ok(()),
                Some(a) => a.events |= events,
                None => armed.push(Armed { fd: Arc::clone(fd), events, target: Arc::clone(target) }),
            }
        }
        match rustix::io::write(&shared.wake, &1u64.to_ne_bytes()) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Watches the descriptor no more, for whoever has asked, and lets go of it: when this returns, it closes with its last
    /// other owner. Who closes a socket that listens may want its port again at once.
    pub fn forget(&self, fd: &Arc<OwnedFd>) {
        let Some(shared) = self.shared.get() else { return };
        let before = {
            let mut armed = shared.armed.lock().unwrap_or_else(PoisonError::into_inner);
            let before = armed.len();
            armed.retain(|a| !Arc::ptr_eq(&a.fd, fd));
            before - armed.len()
        };
        if before == 0 && Arc::strong_count(fd) == 1 {
            return;
        }
        // The thread holds it until it looks again. The only error is a full counter, and then it will.
        let rounds = shared.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = *rounds;
        let _ = rustix::io::write(&shared.wake, &1u64.to_ne_bytes());
        // It is never busy for so long.
        let _ = shared.passed.wait_timeout_while(rounds, Duration::from_millis(100), |now| *now == begun);
    }
}

fn serve(shared: &Shared) {
    loop {
        let watched: Vec<(Arc<OwnedFd>, u16)> = {
            let armed = shared.armed.lock().unwrap_or_else(PoisonError::into_inner);
            armed.iter().map(|a| (Arc::clone(&a.fd), a.events)).collect()
        };
        let mut fds = vec![PollFd::new(&shared.wake, PollFlags::IN)];
        fds.extend(
            watched
                .iter()
                .map(|(fd, e)| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::from_bits_retain(*e))),
        );
        if poll(&mut fds, None).is_err() {
            continue;
        }
        if !fds[0].revents().is_empty() {
            let mut count = [0; 8];
            let _ = rustix::io::read(&shared.wake, &mut count);
        }
        let mut told: Vec<(Arc<dyn Ready>, u16)> = Vec::new();
        {
            let mut armed = shared.armed.lock().unwrap_or_else(PoisonError::into_inner);
            for (fd, polled) in watched.iter().map(|w| &w.0).zip(&fds[1..]) {
                let events = polled.revents().bits();
                if events == 0 {
                    continue;
                }
                armed.retain(|a| {
                    if Arc::ptr_eq(&a.fd, fd) {
                        told.push((Arc::clone(&a.target), events));
                        return false;
                    }
                    true
                });
            }
        }
        drop(fds);
        drop(watched);
        *shared.rounds.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        shared.passed.notify_all();
        for (target, events) in told {
            target.ready(events);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    struct Tell(Mutex<Sender<u16>>);
    impl Ready for Tell {
        fn ready(&self, events: u16) {
            self.0.lock().unwrap().send(events).unwrap();
        }
    }

    /// Each time: somebody may bind to the same port at once, who could not if the thread still had the socket.
    #[test]
    fn what_is_forgotten_closes_with_its_owner() {
        struct Nobody;
        impl Ready for Nobody {
            fn ready(&self, _: u16) {}
        }
        let target: Arc<dyn Ready> = Arc::new(Nobody);
        let poller = Poller::default();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for round in 0..500 {
            let listener = std::net::TcpListener::bind(address);
            let fd = Arc::new(OwnedFd::from(listener.unwrap_or_else(|error| panic!("{round}: {error}"))));
            poller.arm(&fd, 1, &target).unwrap();
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
            poller.forget(&fd);
            assert_eq!(Arc::strong_count(&fd), 1);
        }
    }

    #[test]
    fn tells_once_for_each_asking() {
        let (r, w) = rustix::pipe::pipe().unwrap();
        let r = Arc::new(r);
        let (tx, rx) = channel();
        let target: Arc<dyn Ready> = Arc::new(Tell(Mutex::new(tx)));
        let poller = Poller::default();
        assert_eq!(ready_now(&*r, 1), 0);
        poller.arm(&r, 1, &target).unwrap();
        rustix::io::write(&w, b"x").unwrap();
        assert_eq!(rx.recv().unwrap() & 1, 1);
        assert!(rx.recv_timeout(std::time::Duration::from_millis(50)).is_err());
        poller.arm(&r, 1, &target).unwrap();
        assert_eq!(rx.recv().unwrap() & 1, 1);
        let mut b = [0; 4];
        rustix::io::read(&*r, &mut b).unwrap();
        drop(w);
        poller.arm(&r, 1, &target).unwrap();
        assert_ne!(rx.recv().unwrap() & 0x10, 0);
    }
}
