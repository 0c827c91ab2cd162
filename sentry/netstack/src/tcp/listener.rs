//! Listening sockets: the queue of connections that wait to be accepted, and of those that wait for a place
//! in it.

use super::transport::Transport;
use super::{StreamOptions, TcpSocket};
use crate::addr::{Endpoint, Family};
use crate::counters::bump;
use crate::env::{Events, Waker};
use crate::local::stream::{self, LocalEnd};
use crate::local::syn;
use crate::reuse::Choice;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// A connection that nobody has accepted yet.
pub struct Incoming {
    pub transport: Arc<dyn Transport>,
    pub local: Endpoint,
    pub remote: Endpoint,
}

/// Somebody who connects and found no place: its SYN is dropped again and again, as it were.
struct Waiting {
    socket: Weak<TcpSocket>,
    local: Endpoint,
    remote: Endpoint,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Incoming>,
    /// Connections without data of a listener that asked for some first (`TCP_DEFER_ACCEPT`).
    deferred: Vec<(Arc<LocalEnd>, Endpoint, Endpoint)>,
    waiting: VecDeque<Waiting>,
    backlog: usize,
    /// What its connections over packets begin with.
    options: StreamOptions,
    closed: bool,
}

/// A listening socket's part that others reach.
pub struct Listener {
    pub(crate) local: Endpoint,
    pub(crate) family: Family,
    pub(crate) v6only: bool,
    pub(crate) device: u32,
    pub(crate) reuse_port: bool,
    /// How the group that it belongs to chooses.
    pub(crate) choice: OnceLock<Arc<Choice>>,
    waker: Arc<dyn Waker>,
    queue: Mutex<Queue>,
}

/// What became of an attempt to connect.
pub(crate) enum Offer {
    Done(Arc<LocalEnd>),
    Wait,
    Refused,
}

/// Data came for a connection that was deferred.
struct Promote(Weak<Listener>);

impl Waker for Promote {
    fn wake(&self, _events: Events) {
        if let Some(l) = self.0.upgrade() {
            l.promote();
        }
    }
}

impl Listener {
    pub(crate) fn new(
        local: Endpoint,
        family: Family,
        v6only: bool,
        device: u32,
        reuse_port: bool,
        waker: Arc<dyn Waker>,
    ) -> Arc<Listener> {
        Arc::new(Listener {
            local,
            family,
            v6only,
            device,
            reuse_port,
            choice: OnceLock::new(),
            waker,
            queue: Mutex::default(),
        })
    }

    /// Whether two listeners are of one group.
    pub(crate) fn grouped(&self, other: &Listener) -> bool {
        let key = |l: &Listener| (l.family, l.local.ip, l.v6only, l.device);
        self.reuse_port && other.reuse_port && key(self) == key(other)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_backlog(&self, n: usize) {
        self.lock().backlog = n;
    }

    pub(crate) fn set_options(&self, options: StreamOptions) {
        self.lock().options = options;
    }

    /// What connections that come in by packets begin with.
    pub fn options(&self) -> StreamOptions {
        self.lock().options
    }

    /// Connections that wait, and how many may.
    pub fn lengths(&self) -> (usize, usize) {
        let q = self.lock();
        (q.ready.len(), q.backlog)
    }

    /// Connections that nobody has accepted yet: both ends, and bytes that wait to be read.
    pub fn embryos(&self) -> Vec<(Endpoint, Endpoint, usize)> {
        self.lock().ready.iter().map(|i| (i.local, i.remote, i.transport.readable(true))).collect()
    }

    pub(crate) fn poll(&self) -> Events {
        if self.lock().ready.is_empty() { Events::NONE } else { Events::READABLE }
    }

    /// A score for an address that is connected to: the most special listener wins; `None` is none of ours.
    pub(crate) fn score(&self, to: IpAddr) -> Option<u32> {
        match (self.local.ip, to) {
            (a, b) if a == b => Some(2),
            (IpAddr::V4(a), IpAddr::V4(_)) if a.is_unspecified() => Some(1),
            (IpAddr::V6(a), IpAddr::V6(_)) if a.is_unspecified() => Some(1),
            (IpAddr::V6(a), IpAddr::V4(_)) if a.is_unspecified() && !self.v6only => Some(0),
            _ => None,
        }
    }

    /// Somebody of this stack connects. `from` and `to` as the client sees them.
    pub(crate) fn offer(self: &Arc<Self>, client: &Arc<TcpSocket>, from: Endpoint, to: Endpoint) -> Offer {
        let ledger = &client.stack().ledger;
        let settings = client.settings();
        let end = {
            let mut q = self.lock();
            if q.closed {
                return Offer::Refused;
            }
            if q.ready.len() > q.backlog {
                q.waiting.push_back(Waiting { socket: Arc::downgrade(client), local: from, remote: to });
                return Offer::Wait;
            }
            let (theirs, ours) = stream::pair(ledger, to.ip, &settings, &q.options);
            if q.options.save_syn > 0 {
                let env = &*client.stack().env;
                ours.save_syn(syn::segment(env, from, to, &settings, q.options.save_syn > 1));
            }
            bump(&client.stack().counters.passive_opens);
            if q.options.defer_accept > 0 {
                ours.set_embryo_waker(Arc::new(Promote(Arc::downgrade(self))));
                q.deferred.push((ours, to, from));
                return Offer::Done(theirs);
            }
            q.ready.push_back(Incoming { transport: ours, local: to, remote: from });
            theirs
        };
        self.waker.wake(Events::READABLE);
        Offer::Done(end)
    }

    /// A connection that came in by packets. Gives it back when the queue is full.
    pub fn push(&self, incoming: Incoming) -> Result<(), Incoming> {
        {
            let mut q = self.lock();
            if q.closed || q.ready.len() > q.backlog {
                return Err(incoming);
            }
            q.ready.push_back(incoming);
        }
        self.waker.wake(Events::READABLE);
        Ok(())
    }

    fn promote(&self) {
        let moved = {
            let mut q = self.lock();
            let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut q.deferred)
                .into_iter()
                .partition(|(end, ..)| end.poll(1, true).contains(Events::READABLE));
            q.deferred = later;
            let moved = !now.is_empty();
            for (transport, local, remote) in now {
                q.ready.push_back(Incoming { transport, local, remote });
            }
            moved
        };
        if moved {
            self.waker.wake(Events::READABLE);
        }
    }

    /// The next connection, if one waits.
    pub(crate) fn accept(self: &Arc<Self>) -> Option<Incoming> {
        let (got, next) = {
            let mut q = self.lock();
            let got = q.ready.pop_front();
            let next = if got.is_some() { q.waiting.pop_front() } else { None };
            (got, next)
        };
        if let Some(w) = next
            && let Some(socket) = w.socket.upgrade()
        {
            socket.retry_connect(self, w.local, w.remote);
        }
        got
    }

    /// Nobody listens any more: those in the queue are reset.
    pub(crate) fn close(&self) {
        let (ready, deferred, waiting) = {
            let mut q = self.lock();
            q.closed = true;
            (std::mem::take(&mut q.ready), std::mem::take(&mut q.deferred), std::mem::take(&mut q.waiting))
        };
        for i in ready {
            i.transport.close(true);
        }
        for (end, ..) in deferred {
            end.close(true);
        }
        for w in waiting {
            if let Some(s) = w.socket.upgrade() {
                s.refused();
            }
        }
        self.waker.wake(Events::ALL);
    }
}
