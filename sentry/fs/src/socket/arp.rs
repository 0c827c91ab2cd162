//! The ioctls of the ARP cache (arp(7)) and the table /proc/net/arp.

use super::inet::{errno, stack_of};
use super::interfaces::hardware_type;
use abi::Errno;
use abi::socket::AF_INET;
use kernel::creds::CapSet;
use kernel::uaccess::UserPtr;
use kernel::{SysResult, Task};
use netstack::{Mac, NeighbourChange, NeighbourLine, NeighbourState, Stack};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

const SIOCDARP: u32 = 0x8953;
const SIOCGARP: u32 = 0x8954;
const SIOCSARP: u32 = 0x8955;

const ATF_COM: u32 = 2;
const ATF_PERM: u32 = 4;
const ATF_PUBL: u32 = 8;
const ATF_NETMASK: u32 = 0x20;
const ATF_DONTPUB: u32 = 0x40;

/// Whether a number is one of these ioctls.
pub fn is_arp_ioctl(cmd: u32) -> bool {
    matches!(cmd, SIOCDARP | SIOCGARP | SIOCSARP)
}

/// `ATF_*` of an entry.
fn flags(line: &NeighbourLine) -> u32 {
    match line.state {
        NeighbourState::Permanent => ATF_PERM | ATF_COM,
        state if state.is_valid() => ATF_COM,
        _ => 0,
    }
}

/// What /proc/net/arp shows.
pub fn table(stack: &Stack) -> String {
    let mut out =
        "IP address       HW type     Flags       HW address            Mask     Device\n".to_owned();
    let interfaces = stack.interfaces.list();
    for line in stack.neighbours() {
        let interface = interfaces.iter().find(|interface| interface.index == line.device);
        let (Some(interface), true) = (interface, line.ip.is_ipv4() && line.state != NeighbourState::NoArp)
        else {
            continue;
        };
        let (ip, mac) = (line.ip.to_string(), Mac(line.mac).to_string().replace('-', ":"));
        let (kind, flags, name) = (hardware_type(interface), flags(&line), &interface.name);
        let _ = writeln!(out, "{ip:<16} 0x{kind:<10x}0x{flags:<10x}{mac:<17}     *        {name}");
    }
    out
}

/// A `struct arpreq`.
pub fn ioctl(task: &Task, cmd: u32, arg: u64) -> SysResult {
    let net = task.namespaces().net.clone();
    if cmd != SIOCGARP && !task.creds().has_cap_in(&net.user_ns, CapSet::NET_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    let stack = stack_of(task.kernel(), &net);
    let mm = task.mm();
    let at = UserPtr::<[u8; 68]>::new(arg);
    let mut req = at.read(&mm)?;
    let half = |at: usize| u16::from_ne_bytes([req[at], req[at + 1]]);
    if half(0) != AF_INET {
        return Err(Errno::EPFNOSUPPORT.into());
    }
    let bits = u32::from_ne_bytes([req[32], req[33], req[34], req[35]]);
    if bits & ATF_PUBL == 0 && bits & (ATF_NETMASK | ATF_DONTPUB) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let ip = IpAddr::V4(Ipv4Addr::new(req[4], req[5], req[6], req[7]));
    let name = &req[52..68];
    let end = name.iter().position(|b| *b == 0).unwrap_or(15);
    let interface = if end > 0 {
        stack.interfaces.by_name(&name[..end]).ok_or(Errno::ENODEV)?
    } else if cmd == SIOCGARP {
        return Err(Errno::ENODEV.into());
    } else {
        let way = stack.route(ip, None, 0).map_err(errno)?;
        stack.interfaces.by_index(way.device).ok_or(Errno::ENODEV)?
    };
    let kind = hardware_type(&interface);
    if cmd == SIOCSARP && half(16) != 0 && half(16) != kind {
        return Err(Errno::EINVAL.into());
    }
    if bits & ATF_PUBL != 0 {
        kernel::gap!(task.kernel(), "published ARP entry");
        return Err(Errno::EOPNOTSUPP.into());
    }
    match cmd {
        SIOCSARP => {
            let permanent = bits & ATF_PERM != 0;
            let mac = <[u8; 6]>::try_from(&req[18..24]).map_err(|_| Errno::EINVAL)?;
            let change = NeighbourChange {
                mac: (permanent || bits & ATF_COM != 0).then_some(Mac(mac)),
                state: if permanent { NeighbourState::Permanent } else { NeighbourState::Stale },
                router: false,
                protocol: 0,
                overrides: true,
            };
            stack.change_neighbour(interface.index, ip, change).map_err(errno)?;
        }
        SIOCDARP => stack.remove_neighbour(interface.index, ip).map_err(|_| Errno::ENXIO)?,
        _ => {
            let shown = |line: &NeighbourLine| line.state != NeighbourState::NoArp;
            let line = stack.neighbour(interface.index, ip).filter(shown).ok_or(Errno::ENXIO)?;
            req[16..32].fill(0);
            req[16..18].copy_from_slice(&kind.to_ne_bytes());
            req[18..24].copy_from_slice(&line.mac);
            req[32..36].copy_from_slice(&flags(&line).to_ne_bytes());
            // The mask that everybody has who does not speak for others.
            req[40..44].fill(0xff);
            at.write(&mm, &req)?;
        }
    }
    Ok(0)
}
