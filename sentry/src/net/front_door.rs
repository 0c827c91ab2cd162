//! The namespace's own addresses, for those inside of it who look for the guest's servers there: kubelet's port-forward and somebody with
//! nsenter on 127.0.0.1, Podman's port publishing without root. Every TCP connection to 127.0.0.1 comes to one donated
//! socket (`hostsys::steer`); where the host allows no such thing, one of a few donated sockets is bound to each port on which
//! the guest listens. It is carried to the same port of the stack.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use netstack::tcp::TcpSocket;
use netstack::{Alarm, BindOptions, Endpoint, Family, NetError, Stack};

use super::conversation::{Conversation, Conversations, Ring};
use super::donation::Steered;
use super::hostsys::inet;
use super::hostsys::socket::{Interest, Waker};

/// Conversations at once; others wait in the host's queue.
const MOST: usize = 64;
/// Connections that wait at a port of the guest, on the host's side.
const BACKLOG: i32 = 128;

/// Wakes the thread of the network when the guest's listeners change.
struct Watch {
    changed: AtomicBool,
    bell: Arc<Waker>,
}

impl Alarm for Watch {
    fn earlier(&self) {
        self.changed.store(true, Ordering::Release);
        self.bell.wake();
    }
}

/// A listening socket of the host.
struct Door {
    listener: OwnedFd,
    /// The port of the guest's that it is for; 0 for all.
    port: u16,
    open: bool,
}

pub struct FrontDoor {
    stack: Arc<Stack>,
    doors: Vec<Door>,
    /// Sockets that may become doors.
    spare: Vec<OwnedFd>,
    watch: Option<Arc<Watch>>,
    /// Connections come to the door for all ports as long as it is open.
    _steering: Option<OwnedFd>,
    conversations: Conversations,
    bell: Arc<Waker>,
}

impl FrontDoor {
    pub fn new(steered: Steered, stack: &Arc<Stack>, bell: Arc<Waker>) -> FrontDoor {
        let (mut doors, mut spare, mut watch, mut of_all) = (Vec::new(), Vec::new(), None, None);
        match steered {
            Steered::All { listener, steering } => {
                doors.push(Door { listener, port: 0, open: true });
                of_all = Some(steering);
            }
            Steered::Each(sockets) => {
                spare.extend(sockets);
                let told = Arc::new(Watch { changed: AtomicBool::new(true), bell: bell.clone() });
                stack.watch_listeners(told.clone());
                watch = Some(told);
            }
        }
        let conversations = Conversations::default();
        FrontDoor { stack: stack.clone(), doors, spare, watch, _steering: of_all, conversations, bell }
    }

    /// Opens doors for ports on which the guest has begun to listen, and shuts those of others.
    pub fn follow(&mut self) {
        if !self.watch.as_ref().is_some_and(|watch| watch.changed.swap(false, Ordering::AcqRel)) {
            return;
        }
        let ports = self.stack.listening_ports();
        for door in &mut self.doors {
            let wanted = ports.contains(&door.port);
            if wanted != door.open {
                // A socket keeps its port for good.
                let done = if wanted {
                    inet::listen(&door.listener, BACKLOG)
                } else {
                    inet::shutdown(&door.listener, 0)
                };
                if let Err(error) = &done {
                    tracing::debug!("port {} in the network namespace: {error}", door.port);
                }
                door.open = wanted && done.is_ok();
            }
        }
        for port in ports {
            if self.doors.iter().any(|door| door.port == port) {
                continue;
            }
            let Some(listener) = self.spare.pop() else {
                tracing::debug!("no socket left to stand for port {port} in the network namespace");
                return;
            };
            let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
            if let Err(error) = inet::bind(&listener, any) {
                tracing::debug!("port {port} in the network namespace: {error}");
                self.spare.push(listener);
                continue;
            }
            let listens = inet::listen(&listener, BACKLOG);
            if let Err(error) = &listens {
                tracing::debug!("port {port} in the network namespace: {error}");
            }
            self.doors.push(Door { listener, port, open: listens.is_ok() });
        }
    }

    pub fn interests(&self) -> impl Iterator<Item = Interest<'_>> {
        let room = self.conversations.len() < MOST;
        // One that is shut would be told as hung up again and again.
        let doors = self.doors.iter().filter(|door| door.open).map(move |door| {
            let mut interest = Interest::read(door.listener.as_fd());
            interest.read = room;
            interest
        });
        doors.chain(self.conversations.interests())
    }

    /// `events`: readable and writable, as in `interests`.
    pub fn serve(&mut self, events: &[(bool, bool)]) {
        let open: Vec<usize> =
            self.doors.iter().enumerate().filter(|(_, door)| door.open).map(|(at, _)| at).collect();
        let Some((doors, others)) = events.split_at_checked(open.len()) else { return };
        drop(self.conversations.carry(others));
        for (at, _) in open.into_iter().zip(doors).filter(|(_, event)| event.0) {
            while self.conversations.len() < MOST {
                let Some(door) = self.doors.get(at) else { break };
                // Nobody waits any more, or the client is gone again.
                let Ok((host, _)) = inet::accept(&door.listener) else { break };
                let Ok(Some(name)) = inet::own_name(&host) else { continue };
                // Where nobody listens, the client sees the end at once.
                self.conversations.add(self.connect(host, name));
            }
        }
    }

    /// To the address that the client has asked for, if the guest has it, or else to loopback.
    fn connect(&self, host: OwnedFd, name: SocketAddr) -> Option<Conversation> {
        let places: [(Family, IpAddr); 3] = [
            (Family::V4, name.ip()),
            (Family::V4, Ipv4Addr::LOCALHOST.into()),
            (Family::V6, Ipv6Addr::LOCALHOST.into()),
        ];
        let there = places.into_iter().filter(|(_, ip)| self.stack.is_local(*ip));
        let connected = there.into_iter().find_map(|(family, ip)| {
            let socket = TcpSocket::new(&self.stack, family, Arc::new(Ring(self.bell.clone())));
            match socket.connect(Endpoint::new(ip, name.port()), BindOptions::default()) {
                Ok(()) | Err(NetError::InProgress) if socket.transport().is_some() => Some(socket),
                _ => {
                    socket.close(true);
                    None
                }
            }
        })?;
        Conversation::from_host(connected, host)
    }
}
