//! rtnetlink(7): the neighbours of ARP and NDP (`ip neigh`).

use super::message::{Answers, CREATE, EXCL, REPLACE, Request};
use super::route::{address, family, raw};
use crate::socket::inet::errno;
use abi::socket::{AF_INET, AF_INET6};
use abi::{Errno, Result};
use kernel::Kernel;
use kernel::vfs::Caller;
use netstack::{LOOPBACK, Mac, NeighbourChange, NeighbourLine, NeighbourState, Stack};
use std::net::IpAddr;

pub const RTM_NEWNEIGH: u16 = 28;
pub const RTM_DELNEIGH: u16 = 29;
pub const RTM_GETNEIGH: u16 = 30;

/// `struct ndmsg`
const HEAD: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_CACHEINFO: u16 = 3;
const NDA_PROBES: u16 = 4;
const NDA_IFINDEX: u16 = 8;
const NDA_PROTOCOL: u16 = 12;

const NTF_USE: u8 = 1;
const NTF_PROXY: u8 = 8;
const NTF_ROUTER: u8 = 0x80;

/// `NUD_*`
fn number(state: NeighbourState) -> u16 {
    match state {
        NeighbourState::Incomplete => 0x1,
        NeighbourState::Reachable => 0x2,
        NeighbourState::Stale => 0x4,
        NeighbourState::Delay => 0x8,
        NeighbourState::Probe => 0x10,
        NeighbourState::Failed => 0x20,
        NeighbourState::NoArp => 0x40,
        NeighbourState::Permanent => 0x80,
    }
}

/// The state that a guest wants; of several bits the one that says most.
fn state(bits: u16) -> NeighbourState {
    use NeighbourState::{Delay, Failed, NoArp, Permanent, Probe, Reachable, Stale};
    let order = [Permanent, NoArp, Reachable, Delay, Probe, Stale];
    order.into_iter().find(|state| bits & number(*state) != 0).unwrap_or(Failed)
}

fn one(r: &Request<'_>, kind: u16, stack: &Stack, line: &NeighbourLine, out: &mut Answers) {
    const UNICAST: u8 = 1;
    const LOCAL: u8 = 2;
    let local = line.device == LOOPBACK || line.ip.is_ipv4() && stack.interfaces.local(line.ip).is_some();
    let mut head = vec![family(line.ip), 0, 0, 0];
    head.extend(line.device.to_ne_bytes());
    head.extend(number(line.state).to_ne_bytes());
    head.push(if line.router { NTF_ROUTER } else { 0 });
    head.push(if local { LOCAL } else { UNICAST });
    // USER_HZ; nobody else holds an entry.
    let hundredths = |age: &std::time::Duration| u32::try_from(age.as_millis() / 10).unwrap_or(u32::MAX);
    let mut info: Vec<u8> = line.ages.iter().flat_map(|age| hundredths(age).to_ne_bytes()).collect();
    info.extend(0u32.to_ne_bytes());
    let mut m = out.begin(r, kind).bytes(&head).attribute(NDA_DST, &raw(line.ip));
    m = m.maybe(NDA_LLADDR, line.state.is_valid().then_some(&line.mac[..]));
    m = m.number(NDA_PROBES, line.tries.into()).attribute(NDA_CACHEINFO, &info);
    out.push(m.maybe(NDA_PROTOCOL, (line.protocol != 0).then_some(&[line.protocol][..])));
}

pub fn dump(stack: &Stack, r: &Request<'_>, out: &mut Answers) -> Result<()> {
    let body = r.body();
    let wanted = body.first().copied().unwrap_or(0);
    let flags = body.get(10).copied().unwrap_or(0);
    let device = r.attribute(HEAD, NDA_IFINDEX).and_then(|a| a.try_into().ok()).map_or(0, u32::from_ne_bytes);
    for line in stack.neighbours() {
        let other = wanted != 0 && wanted != family(line.ip) || device != 0 && device != line.device;
        // Nobody is a proxy here.
        if !other && flags & NTF_PROXY == 0 {
            one(r, RTM_NEWNEIGH, stack, &line, out);
        }
    }
    out.end_dump(r);
    Ok(())
}

/// Interface and address that a request is about.
fn subject(stack: &Stack, r: &Request<'_>, device_first: bool) -> Result<(u32, IpAddr)> {
    let body = r.body();
    if body.len() < HEAD {
        return Err(Errno::EINVAL);
    }
    let key = r.attribute(HEAD, NDA_DST);
    let device = r.word(4);
    let there = || match device {
        0 => Ok(()),
        _ => stack.interfaces.by_index(device).map(|_| ()).ok_or(Errno::ENODEV),
    };
    if !device_first && key.is_none() {
        return Err(Errno::EINVAL);
    }
    there()?;
    let length = match u16::from(body[0]) {
        AF_INET => 4,
        AF_INET6 => 16,
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    let key = key.filter(|key| key.len() >= length).ok_or(Errno::EINVAL)?;
    if device == 0 {
        return Err(Errno::EINVAL);
    }
    Ok((device, address(&key[..length])?))
}

pub fn get(stack: &Stack, r: &Request<'_>, out: &mut Answers) -> Result<()> {
    let (device, ip) = subject(stack, r, true)?;
    let line = stack.neighbour(device, ip).ok_or(Errno::ENOENT)?;
    one(r, RTM_NEWNEIGH, stack, &line, out);
    Ok(())
}

/// Tells the members of `RTNLGRP_NEIGH`.
fn tell(kernel: &Kernel, stack: &Stack, kind: u16, line: &NeighbourLine) {
    const NEIGH: u32 = 3;
    super::announce(kernel, stack, NEIGH, |out| one(&Request::NEWS, kind, stack, line, out));
}

pub fn change(cx: &Caller<'_>, stack: &Stack, r: &Request<'_>) -> Result<()> {
    let (device, ip) = subject(stack, r, false)?;
    let body = r.body();
    let (bits, flags) = (u16::from_ne_bytes([body[8], body[9]]), body[10]);
    if flags & (NTF_PROXY | NTF_USE) != 0 {
        if let Some(task) = cx.task {
            kernel::gap!(task.kernel(), "flag of a neighbour", u32::from(flags));
        }
        return Err(Errno::EOPNOTSUPP);
    }
    let mac = match r.attribute(HEAD, NDA_LLADDR) {
        Some(mac) => Some(mac.get(..6).and_then(|mac| mac.try_into().ok()).ok_or(Errno::EINVAL)?),
        None => None,
    };
    match stack.neighbour(device, ip) {
        None if r.flags & CREATE == 0 => return Err(Errno::ENOENT),
        Some(_) if r.flags & EXCL != 0 => return Err(Errno::EEXIST),
        _ => {}
    }
    let protocol = r.attribute(HEAD, NDA_PROTOCOL).and_then(|p| p.first().copied()).unwrap_or(0);
    let fresh = stack.neighbour(device, ip).is_none();
    let change = NeighbourChange {
        mac: mac.map(Mac),
        state: state(bits),
        router: flags & NTF_ROUTER != 0,
        protocol,
        overrides: fresh || r.flags & REPLACE != 0,
    };
    stack.change_neighbour(device, ip, change).map_err(errno)?;
    if let (Some(task), Some(line)) = (cx.task, stack.neighbour(device, ip)) {
        tell(task.kernel(), stack, RTM_NEWNEIGH, &line);
    }
    Ok(())
}

pub fn delete(cx: &Caller<'_>, stack: &Stack, r: &Request<'_>) -> Result<()> {
    let (device, ip) = subject(stack, r, false)?;
    let line = stack.neighbour(device, ip).ok_or(Errno::ENOENT)?;
    stack.remove_neighbour(device, ip).map_err(|_| Errno::ENOENT)?;
    if let Some(task) = cx.task {
        // Linux says that it failed, then that it is gone.
        let line = NeighbourLine { state: NeighbourState::Failed, ..line };
        tell(task.kernel(), stack, RTM_NEWNEIGH, &line);
        tell(task.kernel(), stack, RTM_DELNEIGH, &line);
    }
    Ok(())
}
