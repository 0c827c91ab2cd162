//! Groups of sockets that share a port (`SO_REUSEPORT`) and the programs that choose among them
//! (`SO_ATTACH_REUSEPORT_CBPF`).

use crate::addr::Endpoint;
use crate::datagram::Datagram;
use crate::sieve::{Seen, Shape, segment_header};
use std::sync::{Arc, Mutex, PoisonError};

/// Chooses a socket.
pub trait Chooser: Send + Sync {
    /// The number of the socket in its group; what is too large chooses none.
    fn choose(&self, seen: &Seen<'_>) -> u32;
}

/// How a group chooses; all its sockets have the same.
#[derive(Default)]
pub(crate) struct Choice(Mutex<Option<Arc<dyn Chooser>>>);

impl Choice {
    /// Sets the program or takes it away; whether there was one.
    pub fn set(&self, chooser: Option<Arc<dyn Chooser>>) -> bool {
        let old = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), chooser);
        old.is_some()
    }

    /// The one that a datagram is for.
    pub fn of_datagram(&self, d: &Datagram, lite: bool, count: usize) -> Option<usize> {
        let shape = Shape::Udp { lite };
        self.pick(count, d.to.ip.is_ipv4(), d.device, d.tag.mark, || shape.packet(d))
    }

    /// The one that a connection is for.
    pub fn of_connection(&self, from: Endpoint, to: Endpoint, device: u32, count: usize) -> Option<usize> {
        self.pick(count, to.ip.is_ipv4(), device, 0, || segment_header(from, to))
    }

    fn pick(
        &self,
        count: usize,
        v4: bool,
        device: u32,
        mark: u32,
        packet: impl FnOnce() -> (Vec<u8>, usize),
    ) -> Option<usize> {
        let chooser = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let (packet, start) = packet();
        let protocol = if v4 { 0x0800 } else { 0x86dd };
        let n = chooser.choose(&Seen { packet: &packet, start, protocol, device, mark });
        usize::try_from(n).ok().filter(|n| *n < count)
    }
}

/// Takes a member out of a list; the last one of its group gets its number (`reuseport_detach_sock`).
pub(crate) fn leave<T>(list: &mut Vec<T>, at: usize, same_group: impl Fn(&T, &T) -> bool) -> T {
    let last = (at + 1..list.len()).rev().find(|other| same_group(&list[at], &list[*other]));
    if let Some(last) = last {
        list.swap(at, last);
        return list.remove(last);
    }
    list.remove(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_takes_the_place_of_who_leaves() {
        let mut list = vec!["a0", "a1", "b0", "a2", "b1"];
        let same = |x: &&str, y: &&str| x[..1] == y[..1];
        assert_eq!(leave(&mut list, 0, same), "a0");
        assert_eq!(list, ["a2", "a1", "b0", "b1"]);
        assert_eq!(leave(&mut list, 3, same), "b1");
        assert_eq!(leave(&mut list, 1, same), "a1");
        assert_eq!(list, ["a2", "b0"]);
    }
}
