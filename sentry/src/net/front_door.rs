//! 127.0.0.1 of the host's namespace, for those who look for the guest's servers there: kubelet's port-forward, or somebody
//! with nsenter. Every TCP connection to that address comes to one donated socket (`hostsys::steer`) and is carried to the
//! same port of the stack's own loopback interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use netstack::tcp::TcpSocket;
use netstack::{BindOptions, Endpoint, Family, NetError, Stack};

use super::conversation::{Conversation, Conversations, Ring};
use super::donation::Steered;
use super::hostsys::inet;
use super::hostsys::socket::{Interest, Waker};

/// Conversations at once; others wait in the host's queue.
const MOST: usize = 64;

pub struct FrontDoor {
    stack: Arc<Stack>,
    listener: OwnedFd,
    /// Connections come here as long as it is open.
    _steering: OwnedFd,
    conversations: Conversations,
    bell: Arc<Waker>,
}

impl FrontDoor {
    pub fn new(steered: Steered, stack: &Arc<Stack>, bell: Arc<Waker>) -> FrontDoor {
        let Steered { listener, steering } = steered;
        let conversations = Conversations::default();
        FrontDoor { stack: stack.clone(), listener, _steering: steering, conversations, bell }
    }

    pub fn interests(&self) -> impl Iterator<Item = Interest<'_>> {
        let mut listener = Interest::read(self.listener.as_fd());
        listener.read = self.conversations.len() < MOST;
        std::iter::once(listener).chain(self.conversations.interests())
    }

    /// `events`: readable and writable, as in `interests`.
    pub fn serve(&mut self, events: &[(bool, bool)]) {
        let Some((listener, others)) = events.split_first() else { return };
        drop(self.conversations.carry(others));
        while listener.0 && self.conversations.len() < MOST {
            // Nobody waits any more, or the client is gone again.
            let Ok((host, _)) = inet::accept(&self.listener) else { return };
            let Ok(Some(name)) = inet::own_name(&host) else { continue };
            // Where nobody listens, the client sees the end at once.
            self.conversations.add(self.connect(host, name.port()));
        }
    }

    fn connect(&self, host: OwnedFd, port: u16) -> Option<Conversation> {
        let places: [(Family, IpAddr); 2] =
            [(Family::V4, Ipv4Addr::LOCALHOST.into()), (Family::V6, Ipv6Addr::LOCALHOST.into())];
        let connected = places.into_iter().find_map(|(family, ip)| {
            let socket = TcpSocket::new(&self.stack, family, Arc::new(Ring(self.bell.clone())));
            match socket.connect(Endpoint::new(ip, port), BindOptions::default()) {
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
