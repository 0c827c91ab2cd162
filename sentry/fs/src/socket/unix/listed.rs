//! Lists of unix sockets: /proc/net/unix and what sock_diag(7) tells.

use super::address::AbstractNames;
use super::{Kind, UnixAddr, UnixSocket};
use abi::socket::{SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};
use kernel::vfs::Caller;
use std::sync::atomic::Ordering;

/// What is told of a socket.
pub struct Listed {
    pub kind: u8,
    /// As TCP's: 1 connected, 7 not, 10 listening.
    pub state: u8,
    pub ino: u64,
    /// Path, or name with its leading zero.
    pub name: Option<Vec<u8>>,
    /// Inode of the other end.
    pub peer: Option<u64>,
    /// Of a listening socket: connections that wait and how many may; of others: bytes that wait and that were sent.
    pub queues: (u32, u32),
}

/// All sockets of the caller's network namespace.
pub fn listed(cx: &Caller<'_>) -> Vec<Listed> {
    AbstractNames::of(cx).sockets().iter().map(|s| s.listed()).collect()
}

/// The rows of /proc/net/unix: all sockets of the caller's network namespace.
pub fn table(cx: &Caller<'_>) -> String {
    AbstractNames::of(cx).sockets().iter().map(|s| s.row()).collect()
}

impl UnixSocket {
    fn number(&self) -> i32 {
        match self.kind {
            Kind::Stream => SOCK_STREAM,
            Kind::Dgram => SOCK_DGRAM,
            Kind::Seqpacket => SOCK_SEQPACKET,
        }
    }

    fn listed(&self) -> Listed {
        let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (state, name, peer, waiting) = {
            let s = self.state.lock();
            let state = match (&s.listening, &s.peer) {
                (Some(_), _) => 10,
                (None, Some(_)) => 1,
                (None, None) => 7,
            };
            let name = s.addr.as_deref().map(|a| match a {
                UnixAddr::Path(p) => p.clone(),
                UnixAddr::Abstract(n) => [&[0][..], n].concat(),
            });
            let waiting = s.listening.as_ref().map(|l| (word(l.pending.len()), word(l.backlog)));
            (state, name, s.peer.clone(), waiting)
        };
        let queues = waiting.unwrap_or_else(|| (word(self.queue.lock().bytes()), word(self.account.used())));
        Listed {
            kind: u8::try_from(self.number()).unwrap_or(0),
            state,
            ino: self.ino.load(Ordering::Relaxed),
            name,
            peer: peer.map(|p| p.ino.load(Ordering::Relaxed)),
            queues,
        }
    }

    /// A row of /proc/net/unix. Where Linux shows an address of the kernel, there are zeroes.
    fn row(&self) -> String {
        const ACCEPTS: u32 = 1 << 16;
        let kind = self.number();
        let ino = self.ino.load(Ordering::Relaxed);
        let (listens, connected, addr) = {
            let s = self.state.lock();
            (s.listening.is_some(), s.connected && s.peer.is_some(), s.addr.clone())
        };
        // `SS_UNCONNECTED`, `SS_CONNECTING`, `SS_CONNECTED`.
        let state = match (connected, ino) {
            (true, 0) => 2,
            (true, _) => 3,
            (false, _) => 1,
        };
        let flags = if listens { ACCEPTS } else { 0 };
        let name: String = match addr.as_deref() {
            None => String::new(),
            Some(UnixAddr::Path(p)) => format!(" {}", String::from_utf8_lossy(p)),
            Some(UnixAddr::Abstract(n)) => {
                let shown: Vec<u8> = n.iter().map(|b| if *b == 0 { b'@' } else { *b }).collect();
                format!(" @{}", String::from_utf8_lossy(&shown))
            }
        };
        let refs = if connected { 3 } else { 2 };
        format!("{:016x}: {refs:08X} {:08X} {flags:08X} {kind:04X} {state:02X} {ino:5}{name}\n", 0, 0)
    }
}
