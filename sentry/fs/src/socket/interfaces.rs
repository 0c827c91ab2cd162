//! The ioctls that ask for and change network interfaces (netdevice(7)); any socket answers them.

use super::inet::{errno, stack_of};
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::uaccess::UserPtr;
use kernel::{SysResult, Task};
use netstack::{IfAddr, Interface, RouteLine, Stack};
use std::net::{IpAddr, Ipv4Addr};

pub const IFF_UP: u32 = 0x1;
pub const IFF_BROADCAST: u32 = 0x2;
pub const IFF_LOOPBACK: u32 = 0x8;
pub const IFF_RUNNING: u32 = 0x40;
pub const IFF_MULTICAST: u32 = 0x1000;
pub const IFF_LOWER_UP: u32 = 0x10000;

const SIOCADDRT: u32 = 0x890b;
const SIOCDELRT: u32 = 0x890c;
const SIOCGIFNAME: u32 = 0x8910;
const SIOCGIFCONF: u32 = 0x8912;
const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCSIFFLAGS: u32 = 0x8914;
const SIOCGIFADDR: u32 = 0x8915;
const SIOCSIFADDR: u32 = 0x8916;
const SIOCGIFDSTADDR: u32 = 0x8917;
const SIOCGIFBRDADDR: u32 = 0x8919;
const SIOCGIFNETMASK: u32 = 0x891b;
const SIOCSIFNETMASK: u32 = 0x891c;
const SIOCGIFMETRIC: u32 = 0x891d;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCSIFMTU: u32 = 0x8922;
const SIOCGIFHWADDR: u32 = 0x8927;
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCGIFTXQLEN: u32 = 0x8942;
const SIOCETHTOOL: u32 = 0x8946;
const SIOCGIFMAP: u32 = 0x8970;

/// `ARPHRD_LOOPBACK`, `ARPHRD_ETHER`
pub fn hardware_type(i: &Interface) -> u16 {
    if i.loopback { 772 } else { 1 }
}

/// `IFF_*` of an interface.
pub fn flags(i: &Interface) -> u32 {
    let mut f = if i.loopback { IFF_LOOPBACK } else { IFF_BROADCAST | IFF_MULTICAST };
    if i.up {
        f |= IFF_UP;
    }
    if i.up && i.carrier {
        f |= IFF_RUNNING | IFF_LOWER_UP;
    }
    f
}

/// The mask of a prefix.
pub fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0))
}

fn first4(i: &Interface) -> Option<(Ipv4Addr, IfAddr)> {
    i.addrs.iter().find_map(|a| match a.ip {
        IpAddr::V4(v4) => Some((v4, *a)),
        IpAddr::V6(_) => None,
    })
}

fn sockaddr(ip: Ipv4Addr) -> [u8; 16] {
    super::inet::address::encode4(ip, 0).try_into().unwrap_or([0; 16])
}

/// Whether a number is one of these ioctls.
pub fn is_interface_ioctl(cmd: u32) -> bool {
    matches!(cmd, SIOCADDRT | SIOCDELRT | 0x8910..=0x8943 | SIOCETHTOOL | SIOCGIFMAP)
}

/// `internet`: the socket is of AF_INET or AF_INET6, which know addresses.
pub fn ioctl(task: &Task, cmd: u32, arg: u64, internet: bool) -> SysResult {
    let stack = stack_of(task.kernel(), &task.namespaces().net);
    match cmd {
        SIOCGIFCONF => return list(task, &stack, arg),
        SIOCADDRT | SIOCDELRT => return route(task, &stack, cmd, arg, internet),
        _ => {}
    }
    let mm = task.mm();
    let at = UserPtr::<[u8; 40]>::new(arg);
    let mut req = at.read(&mm)?;
    if cmd == SIOCGIFNAME {
        let index = i32::from_ne_bytes([req[16], req[17], req[18], req[19]]);
        let i = stack.interfaces.by_index(index.unsigned_abs()).ok_or(Errno::ENODEV)?;
        req[..16].fill(0);
        req[..i.name.len()].copy_from_slice(i.name.as_bytes());
        at.write(&mm, &req)?;
        return Ok(0);
    }
    let end = req[..16].iter().position(|b| *b == 0).unwrap_or(15);
    let changes = matches!(cmd, SIOCSIFFLAGS | SIOCSIFADDR | SIOCSIFMTU | SIOCSIFNETMASK);
    if changes && !task.creds().has_cap_in(&task.namespaces().net.user_ns, CapSet::NET_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    let addresses = matches!(
        cmd,
        SIOCGIFADDR | SIOCSIFADDR | SIOCGIFDSTADDR | SIOCGIFBRDADDR | SIOCGIFNETMASK | SIOCSIFNETMASK
    );
    if addresses && !internet {
        return Err(Errno::ENOTTY.into());
    }
    let i = stack.interfaces.by_name(&req[..end]).ok_or(Errno::ENODEV)?;
    let value = &mut req[16..];
    match cmd {
        SIOCGIFFLAGS => {
            let bits = flags(&i) & 0xffff;
            value[..2].copy_from_slice(&bits.to_ne_bytes()[..2]);
        }
        SIOCSIFFLAGS => {
            let bits = u32::from(u16::from_ne_bytes([value[0], value[1]]));
            stack.interfaces.set_up(i.index, bits & IFF_UP != 0).map_err(errno)?;
            return Ok(0);
        }
        SIOCGIFADDR | SIOCGIFDSTADDR | SIOCGIFBRDADDR | SIOCGIFNETMASK => {
            let (ip, a) = first4(&i).ok_or(Errno::EADDRNOTAVAIL)?;
            let answer = match cmd {
                SIOCGIFNETMASK => mask(a.prefix),
                SIOCGIFBRDADDR => a.broadcast.unwrap_or(Ipv4Addr::UNSPECIFIED),
                _ => ip,
            };
            value[..16].copy_from_slice(&sockaddr(answer));
        }
        SIOCSIFADDR => {
            let ip = Ipv4Addr::new(value[4], value[5], value[6], value[7]);
            set_address(&stack, &i, ip, None)?;
            return Ok(0);
        }
        SIOCSIFNETMASK => {
            let m = u32::from(Ipv4Addr::new(value[4], value[5], value[6], value[7]));
            let (ip, _) = first4(&i).ok_or(Errno::EADDRNOTAVAIL)?;
            if m.leading_ones() + m.trailing_zeros() < 32 {
                return Err(Errno::EINVAL.into());
            }
            set_address(&stack, &i, ip, u8::try_from(m.leading_ones()).ok())?;
            return Ok(0);
        }
        SIOCGIFMETRIC => value[..4].fill(0),
        SIOCGIFMTU => value[..4].copy_from_slice(&i.mtu.to_ne_bytes()),
        SIOCSIFMTU => {
            let mtu = i32::from_ne_bytes([value[0], value[1], value[2], value[3]]);
            let mtu = u32::try_from(mtu).map_err(|_| Errno::EINVAL)?;
            stack.interfaces.set_mtu(i.index, mtu).map_err(errno)?;
            return Ok(0);
        }
        SIOCGIFHWADDR => {
            value[..2].copy_from_slice(&hardware_type(&i).to_ne_bytes());
            value[2..8].copy_from_slice(&i.hardware);
            value[8..16].fill(0);
        }
        SIOCGIFINDEX => value[..4].copy_from_slice(&i.index.to_ne_bytes()),
        SIOCGIFTXQLEN => value[..4].copy_from_slice(&1000i32.to_ne_bytes()),
        SIOCGIFMAP => value.fill(0),
        SIOCETHTOOL => return Err(Errno::EOPNOTSUPP.into()),
        _ => {
            kernel::gap!(task.kernel(), "ioctl of an interface", cmd);
            return Err(Errno::ENOTTY.into());
        }
    }
    at.write(&mm, &req)?;
    Ok(0)
}

/// The one IPv4 address that the old calls know is replaced.
fn set_address(stack: &Stack, i: &Interface, ip: Ipv4Addr, prefix: Option<u8>) -> Result<()> {
    if let Some((_, old)) = first4(i) {
        stack.interfaces.remove_address(i.index, old.ip, old.prefix).map_err(errno)?;
    }
    if ip.is_unspecified() {
        return Ok(());
    }
    // The class of the address, as ever.
    let class = match ip.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    };
    let prefix = prefix.unwrap_or(class);
    let broadcast = if i.loopback { None } else { Some(netstack::broadcast_of(ip, prefix)) };
    stack.interfaces.add_address(i.index, IfAddr { ip: IpAddr::V4(ip), prefix, broadcast }).map_err(errno)
}

/// `SIOCGIFCONF`: the interfaces that have an IPv4 address.
fn list(task: &Task, stack: &Stack, arg: u64) -> SysResult {
    let mm = task.mm();
    // An int: with a negative one there is no room.
    let length = UserPtr::<i32>::new(arg);
    let room = usize::try_from(length.read(&mm)?).unwrap_or(0);
    let buffer = UserPtr::<u64>::new(arg.wrapping_add(8)).read(&mm)?;
    let mut out = Vec::new();
    for i in stack.interfaces.list() {
        for a in &i.addrs {
            if let IpAddr::V4(ip) = a.ip {
                let mut one = [0u8; 40];
                one[..i.name.len()].copy_from_slice(i.name.as_bytes());
                one[16..32].copy_from_slice(&sockaddr(ip));
                out.extend(one);
            }
        }
    }
    if buffer != 0 {
        out.truncate(room / 40 * 40);
        mm.copy_out(buffer, &out)?;
    }
    length.write(&mm, &i32::try_from(out.len()).unwrap_or(i32::MAX))?;
    Ok(0)
}

/// `SIOCADDRT`, `SIOCDELRT`: a `struct rtentry`.
fn route(task: &Task, stack: &Stack, cmd: u32, arg: u64, internet: bool) -> SysResult {
    const RTF_GATEWAY: u16 = 2;
    if !internet {
        return Err(Errno::ENOTTY.into());
    }
    if !task.creds().has_cap_in(&task.namespaces().net.user_ns, CapSet::NET_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    let mm = task.mm();
    let raw = UserPtr::<[u8; 120]>::new(arg).read(&mm)?;
    let ip = |at: usize| Ipv4Addr::new(raw[at + 4], raw[at + 5], raw[at + 6], raw[at + 7]);
    let (to, gateway, netmask) = (ip(8), ip(24), u32::from(ip(40)));
    let bits = u16::from_ne_bytes([raw[56], raw[57]]);
    let name = u64::from_ne_bytes(raw[88..96].try_into().unwrap_or_default());
    let gateway = (bits & RTF_GATEWAY != 0).then_some(IpAddr::V4(gateway));
    let mut device = 0;
    if name != 0 {
        let text = UserPtr::<[u8; 16]>::new(name).read(&mm)?;
        let end = text.iter().position(|b| *b == 0).unwrap_or(15);
        device = stack.interfaces.by_name(&text[..end]).ok_or(Errno::ENODEV)?.index;
    }
    if device == 0 {
        let via = gateway.ok_or(Errno::ENODEV)?;
        device = stack.route(via, None, 0).map_err(errno)?.device;
    }
    let prefix = u8::try_from(netmask.leading_ones()).unwrap_or(32);
    let to = IpAddr::V4(to);
    let result = if cmd == SIOCADDRT {
        let line = RouteLine { to, prefix, gateway, device, source: None, metric: 0, protocol: 3 };
        stack.interfaces.add_route(line)
    } else {
        stack.interfaces.remove_route(to, prefix, gateway, 0)
    };
    result.map_err(errno)?;
    Ok(0)
}
