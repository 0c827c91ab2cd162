//! Docker's name server as the guest sees it: 127.0.0.11:53. It runs on the loopback interface of the host's namespace,
//! behind address translation of its own, so what guests send there is carried over by donated sockets: datagrams by one
//! that is connected to that address, under identifiers of our own; conversations over TCP by a few that are connected
//! to it and to nobody else. Nothing else of that interface can be reached.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netstack::datagram::Datagram;
use netstack::tcp::Transport;
use netstack::{Buf, Endpoint, LOOPBACK, NetError, Relay, Stack};

use super::conversation::{Conversation, Conversations, Ring};
use super::donation::NameServer;
use super::hostsys::inet;
use super::hostsys::socket::Waker;

/// Where it is, for the guest and for the host.
pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);

/// Questions that may wait for an answer; the oldest makes room.
const QUESTIONS: usize = 4096;
/// After this long nobody waits for an answer any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who asked, and under which identifier.
struct Question {
    from: Endpoint,
    id: [u8; 2],
    asked: Instant,
}

#[derive(Default)]
struct Questions {
    open: HashMap<u16, Question>,
    order: VecDeque<u16>,
}

pub struct Names {
    stack: Arc<Stack>,
    datagrams: OwnedFd,
    present: AtomicBool,
    next: AtomicU16,
    questions: Mutex<Questions>,
    free: Mutex<Vec<OwnedFd>>,
    /// Conversations that the thread of the network has not seen yet.
    new: Mutex<Vec<Conversation>>,
    bell: Arc<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn here() -> Endpoint {
    Endpoint::new(ADDRESS.ip(), ADDRESS.port())
}

impl Names {
    pub fn new(server: NameServer, stack: &Arc<Stack>, bell: Arc<Waker>) -> Arc<Names> {
        let mut first = [0; 2];
        super::hostsys::rand::fill(&mut first);
        let names = Arc::new(Names {
            stack: stack.clone(),
            datagrams: server.datagrams,
            present: AtomicBool::new(server.present),
            next: AtomicU16::new(u16::from_ne_bytes(first)),
            questions: Mutex::default(),
            free: Mutex::new(server.conversations.into()),
            new: Mutex::default(),
            bell,
        });
        stack.set_relay(names.clone());
        names
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.datagrams.as_fd()
    }

    /// Answers go back to whoever has asked.
    pub fn answers(&self) {
        let mut buffer = vec![0; 65_536];
        loop {
            let count = match inet::receive(&self.datagrams, &mut buffer) {
                Ok(Some(count)) => count,
                Ok(None) => return,
                // Nobody is there: what has been asked stays without an answer.
                Err(_) => continue,
            };
            let Some(answer) = buffer.get_mut(..count) else { continue };
            let Some(id) = answer.first_chunk_mut::<2>() else { continue };
            let Some(question) = lock(&self.questions).open.remove(&u16::from_be_bytes(*id)) else {
                continue;
            };
            *id = question.id;
            self.present.store(true, Ordering::Relaxed);
            let datagram = Datagram {
                from: here(),
                to: question.from,
                device: LOOPBACK,
                data: Buf::copy_of(answer),
                time: self.stack.env.realtime(),
                ttl: 64,
                tos: 0,
                drops: 0,
                tag: Default::default(),
                segment: None,
                fragment: 0,
                between: None,
                flow: 0,
            };
            // Who has asked may be gone.
            let _ = self.stack.deliver_datagram(datagram, false);
        }
    }
}

impl Relay for Names {
    fn wants(&self, to: Endpoint, taken: bool) -> bool {
        (to.ip, to.port) == (ADDRESS.ip(), ADDRESS.port()) && (!taken || self.present.load(Ordering::Relaxed))
    }

    fn datagram(&self, from: Endpoint, _to: Endpoint, data: &[u8]) -> Result<(), NetError> {
        // What is no message of DNS has nobody to go to.
        let Some(&id) = data.first_chunk::<2>() else { return Ok(()) };
        let mut message = data.to_vec();
        let own = {
            let mut questions = lock(&self.questions);
            let now = Instant::now();
            while let Some(&oldest) = questions.order.front() {
                let late = |q: &Question| now.duration_since(q.asked) > PATIENCE;
                if questions.order.len() < QUESTIONS && questions.open.get(&oldest).is_some_and(|q| !late(q))
                {
                    break;
                }
                questions.order.pop_front();
                questions.open.remove(&oldest);
            }
            let mut own = self.next.fetch_add(0x9e37, Ordering::Relaxed);
            while questions.open.contains_key(&own) {
                own = self.next.fetch_add(0x9e37, Ordering::Relaxed);
            }
            questions.open.insert(own, Question { from, id, asked: now });
            questions.order.push_back(own);
            own
        };
        message[..2].copy_from_slice(&own.to_be_bytes());
        match inet::send(&self.datagrams, &message) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err(NetError::Refused),
            // Lost, as datagrams are.
            Err(_) => Ok(()),
        }
    }

    fn connection(&self, far: Arc<dyn Transport>, _to: Endpoint) -> Result<(), NetError> {
        let host = lock(&self.free).pop().ok_or(NetError::NoBuffers)?;
        if let Err(error) = inet::connect(&host, ADDRESS) {
            tracing::debug!("no conversation with the name server: {error}");
            self.give_back(host);
            return Err(NetError::Refused);
        }
        far.set_waker(Arc::new(Ring(self.bell.clone())));
        lock(&self.new).push(Conversation::to_host(far, host));
        self.bell.wake();
        Ok(())
    }
}

impl Names {
    /// Goes on with the conversations, of which `events` tell what is ready.
    pub fn carry(&self, conversations: &mut Conversations, events: &[(bool, bool)]) {
        conversations.carry(events).into_iter().for_each(|host| self.give_back(host));
        conversations.add(std::mem::take(&mut *lock(&self.new)));
    }

    fn give_back(&self, host: OwnedFd) {
        if inet::disconnect(&host).is_ok() {
            lock(&self.free).push(host);
        }
    }
}
