//! Neighbours, ICMP, fragments, UDP, duplicate addresses.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::super::addresses::Prefix;
use super::super::chunk::Chunk;
use super::super::error::Error;
use super::super::frame::Body;
use super::super::interface::AddressState;
use super::super::net::ICMP;
use super::super::raw::{RawBinding, Way};
use super::super::sending::Outgoing;
use super::super::udp::{UdpBinding, UdpSend};
use super::{Setup, World, at, inbox, ip4, ip6};

fn body(bytes: &[u8]) -> Body {
    let mut body = Body::new();
    body.push(Chunk::from(bytes));
    body
}

#[test]
fn datagrams_of_all_sizes_in_both_families() {
    let mut world = World::new(Setup::default());
    for ip in [ip4 as fn(usize) -> IpAddr, ip6] {
        let inbox = inbox();
        world.engines[1].udp.bind(UdpBinding::new(at(ip(1), 53)), inbox.clone());
        for size in [0, 1, 100, 1400, 1473, 4000, 65_507] {
            let data: Vec<u8> = (0..size).map(|n| (n * 31) as u8).collect();
            let engine = &mut world.engines[0];
            engine
                .udp
                .send(&mut engine.net, at(ip(0), 1000), at(ip(1), 53), &UdpSend::default(), body(&data))
                .unwrap();
            world.run(Duration::from_millis(10));
            let got = inbox.datagrams.lock().unwrap().pop().expect("arrives");
            assert_eq!(&got.payload[..], &data[..]);
            assert_eq!((got.source, got.source_port), (ip(0), 1000));
        }
    }
}

#[test]
fn nobody_at_the_port() {
    let mut world = World::new(Setup::default());
    for ip in [ip4 as fn(usize) -> IpAddr, ip6] {
        let inbox = inbox();
        let engine = &mut world.engines[0];
        engine.udp.bind(
            UdpBinding { remote: Some(at(ip(1), 9)), ..UdpBinding::new(at(ip(0), 1000)) },
            inbox.clone(),
        );
        engine
            .udp
            .send(&mut engine.net, at(ip(0), 1000), at(ip(1), 9), &UdpSend::default(), body(b"x"))
            .unwrap();
        world.run(Duration::from_millis(10));
        assert_eq!(inbox.errors.lock().unwrap().pop().map(|e| e.error), Some(Error::ConnectionRefused));
    }
}

#[test]
fn no_neighbour_is_host_unreachable() {
    let mut world = World::new(Setup::default());
    for to in [IpAddr::from([10, 0, 0, 77]), "fd00::77".parse().unwrap()] {
        let inbox = inbox();
        let engine = &mut world.engines[0];
        let own = if to.is_ipv4() { ip4(0) } else { ip6(0) };
        engine.udp.bind(UdpBinding::new(at(own, 1000)), inbox.clone());
        engine.udp.send(&mut engine.net, at(own, 1000), at(to, 9), &UdpSend::default(), body(b"x")).unwrap();
        world.run(Duration::from_millis(2900));
        assert!(inbox.errors.lock().unwrap().is_empty());
        world.run(Duration::from_millis(300));
        assert_eq!(inbox.errors.lock().unwrap().pop().map(|e| e.error), Some(Error::HostUnreachable));
    }
}

#[test]
fn ping_and_the_own_address() {
    let mut world = World::new(Setup::default());
    for to in [ip4(1), ip4(0)] {
        let inbox = inbox();
        let engine = &mut world.engines[0];
        let binding = RawBinding {
            v4: true,
            protocol: ICMP,
            local: None,
            remote: None,
            interface: None,
            ident: Some(77),
        };
        let handle = engine.raw.bind(binding, inbox.clone());
        engine
            .raw
            .ping(
                &mut engine.net,
                at(ip4(0), 77),
                &Outgoing::new(ip4(0), to, 1),
                Way::default(),
                &[8, 0, 0, 0, 0, 0, 0, 1, 5, 6],
            )
            .unwrap();
        engine.settle();
        world.run(Duration::from_millis(10));
        let got = inbox.datagrams.lock().unwrap().pop().expect("answered");
        assert_eq!((got.source, &got.payload[4..]), (to, &[0, 77, 0, 1, 5, 6][..]));
        world.engines[0].raw.close(handle);
    }
}

#[test]
fn a_small_ttl_is_fine_on_the_link_and_unknown_protocols_are_told() {
    let mut world = World::new(Setup::default());
    let inbox = inbox();
    let engine = &mut world.engines[0];
    engine.raw.bind(
        RawBinding { v4: true, protocol: 200, local: None, remote: None, interface: None, ident: None },
        inbox.clone(),
    );
    let out = Outgoing { ttl: Some(1), ..Outgoing::new(ip4(0), ip4(1), 200) };
    engine.raw.send(&mut engine.net, &out, Way::default(), b"12345678", None).unwrap();
    world.run(Duration::from_millis(10));
    assert_eq!(inbox.errors.lock().unwrap().pop().map(|e| e.error), Some(Error::ProtocolUnreachable));
}

#[test]
fn duplicate_addresses_are_found() {
    let mut world = World::new(Setup::default());
    world.engines[0].add_address(2, Prefix::new(ip6(1), 64), true).unwrap();
    let fresh: Ipv6Addr = "fd00::99".parse().unwrap();
    world.engines[0].add_address(2, Prefix::new(fresh.into(), 64), true).unwrap();
    world.run(Duration::from_secs(2));
    let interface = world.engines[0].net.interface_mut(2).unwrap();
    assert_eq!(interface.find(ip6(1)).map(|a| a.state), Some(AddressState::Duplicate));
    assert_eq!(interface.find(fresh.into()).map(|a| a.state), Some(AddressState::Valid));
}

#[test]
fn groups_are_joined_and_reported() {
    let mut world = World::new(Setup::default());
    world.run(Duration::from_secs(5));
    for group in [IpAddr::from([239, 1, 2, 3]), "ff15::123".parse().unwrap()] {
        let inbox = inbox();
        let before = world.link.sent(1);
        assert!(world.engines[1].net.join(2, group));
        let any = if group.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        world.engines[1].udp.bind(UdpBinding::new(at(any, 5000)), inbox.clone());
        let engine = &mut world.engines[0];
        let how = UdpSend { interface: Some(2), ..UdpSend::default() };
        engine.udp.send(&mut engine.net, at(any, 1), at(group, 5000), &how, body(b"all")).unwrap();
        world.run(Duration::from_secs(3));
        assert_eq!(inbox.datagrams.lock().unwrap().len(), 1);
        assert_eq!(world.link.sent(1) - before, 2, "two reports");
        assert!(world.engines[1].net.leave(2, group));
        world.run(Duration::from_secs(3));
        assert!(!world.engines[1].net.is_member(2, group));
    }
    assert_eq!(world.engines[1].net.timers.len(), 0, "no timer stays");
}
