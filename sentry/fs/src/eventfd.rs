//! eventfd(2): a counter to wait for.

use abi::poll::PollEvents;
use abi::{Errno, Result};
use kernel::io::{Sink, Source};
use kernel::vfs::{Caller, File, FileOps};
use ksync::{LockClass, Mutex, WaitQueue};
use std::sync::Arc;

/// The counter behind an eventfd.
pub struct EventFd {
    count: Mutex<u64>,
    semaphore: bool,
    queue: Arc<WaitQueue>,
    id: u64,
}

impl EventFd {
    /// A counter with a start value; `semaphore`: reads take one.
    pub fn new(count: u64, semaphore: bool) -> Arc<EventFd> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        Arc::new(EventFd {
            count: Mutex::new(LockClass::Stream, count),
            semaphore,
            queue: Arc::new(WaitQueue::new()),
            id: NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        })
    }
}

impl EventFd {
    /// The kernel counts, which never waits: what does not fit is dropped, and the counter is at its very end, which
    /// no write can reach and which polls as an error (`eventfd_signal`).
    pub fn add(&self, n: u64) {
        {
            let mut count = self.count.lock();
            *count = count.saturating_add(n);
        }
        self.queue.wake(PollEvents::READABLE.bits());
    }
}

impl FileOps for EventFd {
    fn read(&self, _cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let value;
        {
            let mut count = self.count.lock();
            if *count == 0 {
                return Err(Errno::EAGAIN);
            }
            value = if self.semaphore { 1 } else { *count };
            *count -= value;
        }
        self.queue.wake(PollEvents::WRITABLE.bits());
        if dst.put(&value.to_ne_bytes())? < 8 {
            return Err(Errno::EFAULT);
        }
        Ok(8)
    }

    fn write(&self, _cx: &Caller<'_>, _f: &File, src: &mut dyn Source, _pos: &mut u64) -> Result<usize> {
        if src.remaining() != 8 {
            return Err(Errno::EINVAL);
        }
        let mut raw = [0; 8];
        if src.take(&mut raw)? < 8 {
            return Err(Errno::EFAULT);
        }
        let value = u64::from_ne_bytes(raw);
        if value == u64::MAX {
            return Err(Errno::EINVAL);
        }
        {
            let mut count = self.count.lock();
            match count.checked_add(value) {
                Some(sum) if sum < u64::MAX => *count = sum,
                _ => return Err(Errno::EAGAIN),
            }
        }
        self.queue.wake(PollEvents::READABLE.bits());
        Ok(8)
    }

    fn seekable(&self) -> bool {
        false
    }
    fn ignores_seek(&self) -> bool {
        true
    }

    fn poll(&self, _cx: &Caller<'_>, _f: &File) -> PollEvents {
        let count = *self.count.lock();
        let mut events = PollEvents::empty();
        if count > 0 {
            events |= PollEvents::IN;
        }
        if count == u64::MAX {
            events |= PollEvents::ERR;
        }
        if count < u64::MAX - 1 {
            events |= PollEvents::OUT;
        }
        events
    }

    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        Some(Arc::clone(&self.queue))
    }

    fn fdinfo(&self, _f: &File) -> String {
        let count = *self.count.lock();
        let semaphore = u8::from(self.semaphore);
        format!("eventfd-count: {count:16x}\neventfd-id: {}\neventfd-semaphore: {semaphore}\n", self.id)
    }
}
