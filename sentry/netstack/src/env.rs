//! What the stack needs of its embedder: time, random numbers, and somebody to tell of news.

/// Poll bits, with the numbers of poll(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(pub u32);

impl Events {
    pub const NONE: Events = Events(0);
    /// `POLLIN | POLLRDNORM`
    pub const READABLE: Events = Events(0x41);
    /// `POLLPRI`
    pub const PRI: Events = Events(0x2);
    /// `POLLOUT | POLLWRNORM`
    pub const WRITABLE: Events = Events(0x104);
    /// `POLLWRBAND`
    pub const WRBAND: Events = Events(0x200);
    /// `POLLERR`
    pub const ERR: Events = Events(0x8);
    /// `POLLHUP`
    pub const HUP: Events = Events(0x10);
    /// `POLLRDHUP`
    pub const RDHUP: Events = Events(0x2000);
    /// Anything.
    pub const ALL: Events = Events(u32::MAX);

    /// Whether all bits of `other` are in this set.
    pub fn contains(self, other: Events) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Events {
    type Output = Events;
    fn bitor(self, o: Events) -> Events {
        Events(self.0 | o.0)
    }
}

impl std::ops::BitOrAssign for Events {
    fn bitor_assign(&mut self, o: Events) {
        self.0 |= o.0;
    }
}

/// Told when the readiness of a socket may have changed. Called without locks of the stack; must not block.
pub trait Waker: Send + Sync {
    fn wake(&self, events: Events);
}

/// Time and chance, passed in so that tests have their own.
pub trait Env: Send + Sync {
    /// Nanoseconds of a clock that never goes back.
    fn monotonic(&self) -> u64;
    /// Nanoseconds since 1970, for timestamps.
    fn realtime(&self) -> u64;
    /// Fills with bytes that nobody can guess.
    fn random(&self, out: &mut [u8]);

    /// The ports that are given to those who ask for any: first and last (`ip_local_port_range`).
    fn port_range(&self) -> (u16, u16) {
        (32768, 60999)
    }

    /// A number below `limit`, which is not 0; the bias of the remainder does not matter here.
    fn random_below(&self, limit: u32) -> u32 {
        let mut raw = [0; 8];
        self.random(&mut raw);
        u32::try_from(u64::from_ne_bytes(raw) % u64::from(limit.max(1))).unwrap_or(0)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! An environment whose time stands until it is moved.
    use super::{Env, Events, Waker};
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    #[derive(Debug, Default)]
    pub struct TestEnv {
        now: AtomicU64,
        seed: AtomicU64,
    }

    impl TestEnv {
        pub fn advance(&self, ns: u64) {
            self.now.fetch_add(ns, Ordering::Relaxed);
        }
    }

    impl Env for TestEnv {
        fn monotonic(&self) -> u64 {
            self.now.load(Ordering::Relaxed)
        }
        fn realtime(&self) -> u64 {
            self.now.load(Ordering::Relaxed)
        }
        fn random(&self, out: &mut [u8]) {
            for b in out {
                let x = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
                *b = (x >> 33) as u8 ^ (x >> 50) as u8;
            }
        }
    }

    /// Collects what it is told.
    #[derive(Debug, Default)]
    pub struct Told(pub AtomicU32);

    impl Waker for Told {
        fn wake(&self, events: Events) {
            self.0.fetch_or(events.0, Ordering::Relaxed);
        }
    }

    impl Told {
        pub fn take(&self) -> u32 {
            self.0.swap(0, Ordering::Relaxed)
        }
    }
}
