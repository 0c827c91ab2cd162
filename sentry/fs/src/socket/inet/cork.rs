//! Data of a TCP socket that waits for more (`TCP_CORK`, `MSG_MORE`) on a connection inside the sandbox. Over
//! packets the engine holds it back itself.

use abi::poll::PollEvents;
use kernel::Kernel;
use kernel::timer::{Alarm, Clock};
use ksync::{Listener, Registration};
use netstack::Buf;
use netstack::tcp::Transport;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// How long data is held back at most, in nanoseconds (tcp(7)).
const CEILING: i64 = 200_000_000;
/// What is no longer held back: a segment of the loopback interface.
const SEGMENT: usize = 32_741;

#[derive(Default)]
struct Held {
    /// Room taken for it.
    reserved: usize,
    data: Vec<u8>,
    transport: Option<Arc<dyn Transport>>,
}

/// What one socket holds back.
pub struct Corked {
    me: Weak<Corked>,
    /// Not empty: asked without the lock by every send.
    waits: AtomicBool,
    /// Also keeps the order of those who send at once; nothing below takes it.
    held: Mutex<Held>,
    alarm: OnceLock<(Arc<Alarm>, Registration)>,
}

/// Sends what is held when the time is up.
struct Bell(Weak<Corked>);

impl Listener for Bell {
    fn notify(&self, _mask: u32) -> bool {
        if let Some(corked) = self.0.upgrade() {
            corked.flush();
        }
        true
    }
}

impl Corked {
    pub fn new() -> Arc<Corked> {
        Arc::new_cyclic(|me| Corked {
            me: me.clone(),
            waits: AtomicBool::new(false),
            held: Mutex::default(),
            alarm: OnceLock::new(),
        })
    }

    /// Whether something is held.
    pub fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// Holds data back for which `reserved` bytes of room were taken; whole segments go at once.
    pub fn add(&self, kernel: &Arc<Kernel>, transport: &Arc<dyn Transport>, reserved: usize, data: &[u8]) {
        let full = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.reserved += reserved;
            held.data.extend_from_slice(data);
            held.transport = Some(Arc::clone(transport));
            held.data.len() >= SEGMENT
        };
        if full {
            self.flush();
        } else if !self.waits.swap(true, Ordering::AcqRel) {
            let (alarm, _) = self.alarm.get_or_init(|| {
                let alarm = Alarm::new(kernel, Clock::Monotonic);
                let entry =
                    alarm.queue.register(Arc::new(Bell(self.me.clone())), PollEvents::IN.bits(), false);
                (alarm, entry)
            });
            // Without a timer nothing would ever be sent: then it goes now.
            if alarm.set(Some(kernel.clocks.monotonic() + CEILING), 0).is_err() {
                self.flush();
            }
        }
    }

    /// Sends what is held.
    pub fn flush(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.waits.store(false, Ordering::Release);
        let Held { reserved, data, transport } = std::mem::take(&mut *held);
        if let Some(transport) = transport {
            transport.commit(reserved, Some(Buf::from_vec(data)), false);
        }
    }
}
