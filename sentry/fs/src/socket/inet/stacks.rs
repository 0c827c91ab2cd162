//! The network stack of each network namespace, and what the stack needs of the sentry.

use abi::Errno;
use kernel::Kernel;
use kernel::task::OtherNamespace;
use kernel::vfs::Caller;
use ksync::WaitQueue;
use netstack::{Env, Events, NetError, Stack, Waker};
use std::sync::{Arc, Weak};

/// Number of the network namespace that a sandbox begins with.
const FIRST: u64 = 0xf000_0098;

/// Time, chance and settings of the sandbox.
struct SandboxEnv(Weak<Kernel>);

impl Env for SandboxEnv {
    fn monotonic(&self) -> u64 {
        self.0.upgrade().map_or(0, |k| k.clocks.monotonic().unsigned_abs())
    }
    fn realtime(&self) -> u64 {
        self.0.upgrade().map_or(0, |k| k.clocks.realtime().unsigned_abs())
    }
    fn random(&self, out: &mut [u8]) {
        platform::hostsys::rand::fill(out);
    }
    fn port_range(&self) -> (u16, u16) {
        let text = self.0.upgrade().and_then(|k| {
            kernel::sysctl::Sysctls::find("net/ipv4/ip_local_port_range").map(|s| k.sysctls.get(s))
        });
        let mut numbers = text.iter().flat_map(|t| t.split_whitespace()).map(|n| n.parse().unwrap_or(0));
        match (numbers.next(), numbers.next()) {
            (Some(a), Some(b)) if a > 0 && b >= a => (a, b),
            _ => (32768, 60999),
        }
    }
}

struct Holder(Arc<Stack>);

/// The stack of a namespace. That of the sandbox has its loopback interface up.
pub fn stack_of(kernel: &Arc<Kernel>, ns: &OtherNamespace) -> Arc<Stack> {
    let make = || Holder(Stack::new(Arc::new(SandboxEnv(Arc::downgrade(kernel))), ns.id == FIRST));
    Arc::clone(&ns.objects.get_or_init(make).0)
}

/// The caller's stack.
pub fn stack_for(cx: &Caller<'_>) -> Option<Arc<Stack>> {
    let task = cx.task?;
    Some(stack_of(task.kernel(), &task.namespaces().net))
}

/// Tells a wait queue of news.
pub struct QueueWaker(pub Arc<WaitQueue>);

impl Waker for QueueWaker {
    fn wake(&self, events: Events) {
        if events == Events::ALL {
            self.0.wake_all(u32::MAX);
        } else {
            self.0.wake(events.0);
        }
    }
}

/// The number of an error of the stack.
pub fn errno(e: NetError) -> Errno {
    match e {
        NetError::NotPermitted => Errno::EPERM,
        NetError::Access => Errno::EACCES,
        NetError::WouldBlock => Errno::EAGAIN,
        NetError::Invalid => Errno::EINVAL,
        NetError::NoDevice => Errno::ENODEV,
        NetError::Exists => Errno::EEXIST,
        NetError::NotFound => Errno::ESRCH,
        NetError::BrokenPipe => Errno::EPIPE,
        NetError::Protocol => Errno::EPROTO,
        NetError::MessageSize => Errno::EMSGSIZE,
        NetError::NoDestination => Errno::EDESTADDRREQ,
        NetError::NotSupported => Errno::EOPNOTSUPP,
        NetError::WrongFamily => Errno::EAFNOSUPPORT,
        NetError::AddressInUse => Errno::EADDRINUSE,
        NetError::AddressNotAvailable => Errno::EADDRNOTAVAIL,
        NetError::NetworkDown => Errno::ENETDOWN,
        NetError::NetworkUnreachable => Errno::ENETUNREACH,
        NetError::HostUnreachable => Errno::EHOSTUNREACH,
        NetError::Aborted => Errno::ECONNABORTED,
        NetError::Reset => Errno::ECONNRESET,
        NetError::Refused => Errno::ECONNREFUSED,
        NetError::NoBuffers => Errno::ENOBUFS,
        NetError::Connected => Errno::EISCONN,
        NetError::NotConnected => Errno::ENOTCONN,
        NetError::TimedOut => Errno::ETIMEDOUT,
        NetError::Already => Errno::EALREADY,
        NetError::InProgress => Errno::EINPROGRESS,
    }
}
