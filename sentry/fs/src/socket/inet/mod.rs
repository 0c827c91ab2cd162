//! AF_INET and AF_INET6 (ip(7), ipv6(7)): the socket files over the stack of `netstack`.

pub mod address;
mod base;
pub mod control;
mod cork;
mod datagram;
pub mod groups;
mod headers;
pub mod options;
mod raw;
mod stacks;
mod stream;
mod streamoptions;
mod tcpinfo;

pub use base::{Completions, SIOCINQ, SIOCOUTQ, answer, directions, may_bind};
pub use stacks::{errno, stack_for, stack_of};

use super::{Family as FamilyTrait, SockOptions, SocketOps, Speaks};
use abi::socket::{SOCK_DGRAM, SOCK_RAW, SOCK_STREAM};
use abi::{Errno, Result};
use base::Base;
use kernel::creds::CapSet;
use kernel::vfs::Caller;
use netstack::Family;
use std::sync::Arc;

pub use datagram::InetDatagram;
pub use raw::InetRaw;
pub use stream::InetStream;

pub const IPPROTO_ICMP: i32 = 1;
pub const IPPROTO_ICMPV6: i32 = 58;
pub const IPPROTO_TCP: i32 = 6;
pub const IPPROTO_UDP: i32 = 17;
pub(super) const IPPROTO_UDPLITE: i32 = 136;

/// Makes sockets of one of the two families.
pub struct InetFamily(pub Family);

impl FamilyTrait for InetFamily {
    fn create(&self, cx: &Caller<'_>, kind: i32, protocol: i32) -> Result<(Arc<dyn SocketOps>, i32)> {
        let stack = stack_for(cx).ok_or(Errno::EAFNOSUPPORT)?;
        if !(0..=262).contains(&protocol) {
            return Err(Errno::EINVAL);
        }
        let uid = cx.creds.euid;
        match (kind, protocol) {
            (SOCK_STREAM, 0 | IPPROTO_TCP) => {
                let options = SockOptions::with_buffers(Speaks::Internet(true), 16384, 131_072);
                let base = Base::new(stack, self.0, true, uid, options).with_settings(cx);
                Ok((InetStream::create(base), IPPROTO_TCP))
            }
            (SOCK_DGRAM, 0 | IPPROTO_UDP | IPPROTO_UDPLITE) => {
                let base = Base::new(stack, self.0, false, uid, SockOptions::new(Speaks::Internet(false)))
                    .with_settings(cx);
                Ok((
                    InetDatagram::create(base, protocol == IPPROTO_UDPLITE),
                    if protocol == 0 { IPPROTO_UDP } else { protocol },
                ))
            }
            (SOCK_RAW, 0) => Err(Errno::EPROTONOSUPPORT),
            (SOCK_RAW, 1..=255) => {
                let task = cx.task.ok_or(Errno::EPERM)?;
                if !cx.creds.has_cap_in(&task.namespaces().net.user_ns, CapSet::NET_RAW) {
                    return Err(Errno::EPERM);
                }
                let number = u8::try_from(protocol).map_err(|_| Errno::EPROTONOSUPPORT)?;
                let base = Base::new(stack, self.0, false, uid, SockOptions::new(Speaks::Internet(false)))
                    .with_settings(cx);
                Ok((InetRaw::create(base, number, false), protocol))
            }
            (SOCK_DGRAM, IPPROTO_ICMP | IPPROTO_ICMPV6)
                if (protocol == IPPROTO_ICMP) == (self.0 == Family::V4) =>
            {
                if !may_ping(cx) {
                    return Err(Errno::EACCES);
                }
                let number = u8::try_from(protocol).map_err(|_| Errno::EPROTONOSUPPORT)?;
                let base = Base::new(stack, self.0, false, uid, SockOptions::new(Speaks::Internet(false)))
                    .with_settings(cx);
                Ok((InetRaw::create(base, number, true), protocol))
            }
            (SOCK_STREAM | SOCK_DGRAM, _) => Err(Errno::EPROTONOSUPPORT),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        }
    }
}

/// Whether one of the caller's groups may have ping sockets (`net.ipv4.ping_group_range`).
pub fn may_ping(cx: &Caller<'_>) -> bool {
    let Some(task) = cx.task else { return false };
    let text = kernel::sysctl::Sysctls::find("net/ipv4/ping_group_range")
        .map(|s| task.kernel().sysctls.get(s))
        .unwrap_or_default();
    let mut numbers = text.split_whitespace().map(|n| n.parse::<u32>().unwrap_or(0));
    let (Some(first), Some(last)) = (numbers.next(), numbers.next()) else { return false };
    let fits = |gid: u32| (first..=last).contains(&cx.creds.user_ns.gid_in(gid));
    fits(cx.creds.egid) || cx.creds.groups.iter().any(|g| fits(*g))
}
