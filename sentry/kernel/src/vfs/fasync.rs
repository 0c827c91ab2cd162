//! Signals for readiness: `O_ASYNC` with `F_SETOWN` and `F_SETSIG` (fcntl(2)).

use super::File;
use crate::Kernel;
use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use ksync::{Listener, Registration, WaitQueue};
use std::sync::{Arc, Weak};

/// A description's place in its wait queue.
pub(super) struct Async {
    queue: Arc<WaitQueue>,
    entry: Registration,
}

impl Async {
    pub(super) fn end(self) {
        self.queue.unregister(self.entry);
    }
}

/// Turns news of a wait queue into a signal for the owner.
struct Teller {
    file: Weak<File>,
    kernel: Weak<Kernel>,
    /// The descriptor that is told in the signal.
    fd: i32,
    /// Tells of urgent bytes by SIGURG, of nothing else.
    urgent: bool,
}

/// `POLL_*` and the band of a readiness (`si_code` and `si_band` of SIGIO).
fn reason(mask: u32) -> (i32, i64) {
    let events = PollEvents::from_bits_truncate(mask);
    if events.contains(PollEvents::HUP) {
        (6, 0x18)
    } else if events.contains(PollEvents::ERR) {
        (4, 8)
    } else if events.contains(PollEvents::PRI) {
        (5, 0x82)
    } else if events.contains(PollEvents::IN) {
        (1, 0x41)
    } else {
        (2, 0x304)
    }
}

impl Listener for Teller {
    fn notify(&self, mask: u32) -> bool {
        // A wake-up of everybody for everything is no urgent byte.
        if self.urgent && (mask == u32::MAX || mask & PollEvents::PRI.bits() == 0) {
            return false;
        }
        let (Some(file), Some(kernel)) = (self.file.upgrade(), self.kernel.upgrade()) else {
            return false;
        };
        let owner = *file.owner().lock();
        let Some(pid) = kernel.root_pid_ns.find(owner.id) else {
            return true;
        };
        let (code, band) = reason(mask);
        let info = match Signal::new(i32::from(owner.signal)) {
            Some(signal) => SigInfo::poll(signal, code, band, self.fd),
            None => SigInfo::kernel(Signal::SIGIO),
        };
        let info = if self.urgent { SigInfo::kernel(Signal::SIGURG) } else { info };
        match owner.kind {
            0 => {
                if let Some(task) = pid.task() {
                    task.send_signal(&info);
                }
            }
            2 => {
                if let Some(group) = pid.process_group() {
                    group.send_signal(&info);
                }
            }
            _ => {
                if let Some(group) = pid.group() {
                    group.send_signal(&info);
                }
            }
        }
        true
    }
}

impl File {
    /// fcntl(F_SETFL) set or cleared `O_ASYNC`.
    pub fn set_async(self: &Arc<Self>, kernel: &Arc<Kernel>, fd: i32, on: bool) {
        let new = match (on, self.ops().wait_queue(self)) {
            (true, Some(queue)) => {
                let teller =
                    Teller { file: Arc::downgrade(self), kernel: Arc::downgrade(kernel), fd, urgent: false };
                let entry = queue.register(Arc::new(teller), u32::MAX, false);
                self.ops().listened_to(self);
                Some(Async { queue, entry })
            }
            _ => None,
        };
        let old = std::mem::replace(&mut *self.asynchronous().lock(), new);
        if let Some(old) = old {
            old.end();
        }
    }

    /// fcntl(F_SETOWN) named an owner: from now on it is told of urgent bytes.
    pub fn watch_urgent(self: &Arc<Self>, kernel: &Arc<Kernel>) {
        let Some(queue) = self.ops().wait_queue(self).filter(|_| self.ops().has_urgent()) else { return };
        let mut slot = self.urgent().lock();
        if slot.is_none() {
            let teller =
                Teller { file: Arc::downgrade(self), kernel: Arc::downgrade(kernel), fd: -1, urgent: true };
            let entry = queue.register(Arc::new(teller), PollEvents::PRI.bits(), false);
            self.ops().listened_to(self);
            *slot = Some(Async { queue, entry });
        }
    }

    /// Whether signals are sent for its readiness.
    pub fn is_async(&self) -> bool {
        self.flags().contains(OpenFlags::ASYNC)
    }
}
