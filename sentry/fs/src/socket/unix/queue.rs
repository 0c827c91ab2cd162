//! What waits in a socket to be received, and the account of its sender.

use super::address::UnixAddr;
use super::rights::Rights;
use crate::socket::Sender;
use abi::poll::PollEvents;
use ksync::WaitQueue;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes a socket has on their way, against its `SO_SNDBUF`.
#[derive(Debug)]
pub struct SendAccount {
    used: AtomicUsize,
    queue: Arc<WaitQueue>,
}

impl SendAccount {
    pub fn new(queue: Arc<WaitQueue>) -> Arc<SendAccount> {
        Arc::new(SendAccount { used: AtomicUsize::new(0), queue })
    }
    /// Memory charged now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

/// What Linux charges for a buffer with `len` bytes of data (`skb->truesize`).
pub fn true_size(len: usize) -> usize {
    if len <= 16384 - 320 {
        256 + (len + 320).next_power_of_two()
    } else {
        256 + 512 + len.next_multiple_of(4096)
    }
}

/// One message, or one piece of a stream.
pub struct Packet {
    pub data: Vec<u8>,
    /// Bytes of `data` that were received already (streams).
    pub off: usize,
    pub sender: Sender,
    pub rights: Option<Rights>,
    pub from: Option<Arc<UnixAddr>>,
    /// The urgent byte (`MSG_OOB`).
    pub oob: bool,
    charged: usize,
    account: Arc<SendAccount>,
}

impl Packet {
    /// A packet, charged to its sender.
    pub fn new(
        data: Vec<u8>,
        sender: Sender,
        rights: Option<Rights>,
        from: Option<Arc<UnixAddr>>,
        account: &Arc<SendAccount>,
    ) -> Packet {
        let charged = true_size(data.len());
        account.used.fetch_add(charged, Ordering::AcqRel);
        Packet { data, off: 0, sender, rights, from, oob: false, charged, account: Arc::clone(account) }
    }
    /// What has not been received.
    pub fn rest(&self) -> &[u8] {
        &self.data[self.off..]
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // Wakes the sender: packets are dropped outside of all locks of sockets.
        self.account.used.fetch_sub(self.charged, Ordering::AcqRel);
        self.account.queue.wake((PollEvents::WRITABLE | PollEvents::WRBAND).bits());
    }
}

/// The receive queue.
#[derive(Default)]
pub struct ReceiveQueue {
    pub packets: VecDeque<Packet>,
}

impl ReceiveQueue {
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.packets.iter().map(|p| p.rest().len()).sum()
    }
}
