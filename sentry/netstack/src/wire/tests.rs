//! Two stacks with a cable between them: the sockets of one reach those of the other.

use super::*;
use crate::addr::Family;
use crate::engine::link::{Capabilities, Medium};
use crate::engine::pair::{Impairment, PairLink};
use crate::env::testing::{TestEnv, Told};
use crate::interface::RouteLine;
use crate::tcp::{TakeHow, TcpSocket};
use crate::udp::UdpSocket;

struct Quiet;

impl Alarm for Quiet {
    fn earlier(&self) {}
}

struct Host {
    stack: Arc<Stack>,
    wire: Arc<PacketWire>,
    index: u32,
}

const O: BindOptions = BindOptions::PLAIN;

fn hosts() -> (Vec<Host>, PairLink, Arc<TestEnv>) {
    let env = Arc::new(TestEnv::default());
    let cable = PairLink::new(1, 1500, Medium::Ethernet, Capabilities::default(), Impairment::default());
    let make = |side: usize| {
        let stack = Stack::new(env.clone(), true);
        let wire = PacketWire::new(&stack, Arc::new(Quiet));
        let own =
            IfAddr { ip: std::net::IpAddr::from([10, 0, 0, 1 + side as u8]), prefix: 24, broadcast: None };
        let attachment = Attachment {
            index: 0,
            name: "eth0".into(),
            link: cable.end(side),
            up: true,
            carrier: true,
            addresses: vec![own, IfAddr { ip: end6(side, 0).ip, prefix: 64, broadcast: None }],
        };
        let index = wire.attach(attachment).unwrap();
        Host { stack, wire, index }
    };
    (vec![make(0), make(1)], cable, env)
}

fn run(hosts: &[Host], cable: &PairLink, env: &TestEnv) {
    for _ in 0..200 {
        env.advance(1_000_000);
        for (side, host) in hosts.iter().enumerate() {
            let frames: Vec<RxFrame> =
                std::iter::from_fn(|| cable.arrived(Time(env.monotonic()), side)).collect();
            host.wire.drive(host.index, frames);
        }
    }
}

fn end6(side: usize, port: u16) -> Endpoint {
    Endpoint::new(std::net::IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1 + side as u16]), port)
}

fn end(side: u8, port: u16) -> Endpoint {
    Endpoint::new(std::net::IpAddr::from([10, 0, 0, 1 + side]), port)
}

#[test]
fn a_conversation_over_the_cable() {
    let (hosts, cable, env) = hosts();
    let listener = TcpSocket::new(&hosts[1].stack, Family::V4, Arc::new(Told::default()));
    listener.bind(end(1, 80), O).unwrap();
    listener.listen(5, O).unwrap();
    let client = TcpSocket::new(&hosts[0].stack, Family::V4, Arc::new(Told::default()));
    assert_eq!(client.connect(end(1, 80), O), Err(NetError::InProgress));
    assert_eq!(client.connected(), Err(NetError::InProgress));
    run(&hosts, &cable, &env);
    assert_eq!(client.connected(), Ok(()));
    let incoming = listener.accept().ok().unwrap();
    assert_eq!(incoming.remote, client.local());
    incoming.transport.commit(0, Some(Buf::copy_of(b"hello")), false);
    run(&hosts, &cable, &env);
    let taken = client.transport().unwrap().take(100, TakeHow::default()).unwrap();
    assert_eq!(taken.parts.iter().flat_map(|part| part.bytes().to_vec()).collect::<Vec<u8>>(), b"hello");
    incoming.transport.close(false);
    run(&hosts, &cable, &env);
    assert_eq!(client.transport().unwrap().take(100, TakeHow::default()).unwrap().len, 0);
    let refused = TcpSocket::new(&hosts[0].stack, Family::V4, Arc::new(Told::default()));
    assert_eq!(refused.connect(end(1, 81), O), Err(NetError::InProgress));
    run(&hosts, &cable, &env);
    assert_eq!(refused.connected(), Err(NetError::Refused));
}

#[test]
fn datagrams_without_a_checksum_are_for_who_wants_them() {
    let (hosts, cable, env) = hosts();
    for _ in 0..15 {
        run(&hosts, &cable, &env);
    }
    let sockets: Vec<Arc<UdpSocket>> = (0..2)
        .map(|side| {
            let socket = UdpSocket::new(&hosts[side].stack, Family::V6, false, Arc::new(Told::default()));
            socket.bind(end6(side, 99), O).unwrap();
            socket
        })
        .collect();
    let plain = SendHow { multicast_loop: false, ..SendHow::PLAIN };
    let bare = SendHow { no_checksum: true, ..plain.clone() };
    let arrives = |how: &SendHow| {
        sockets[0].send(Some(end6(1, 99)), Buf::copy_of(b"hello"), how, O).unwrap();
        run(&hosts, &cable, &env);
        sockets[1].receive().is_ok()
    };
    assert!(arrives(&plain) && !arrives(&bare));
    sockets[1].set_unchecked(true);
    assert!(arrives(&plain) && arrives(&bare));
    // What is cut is several datagrams on the wire.
    let cut = SendHow { segment: Some(2), ..plain.clone() };
    assert!(arrives(&cut));
    let rest: Vec<_> =
        std::iter::from_fn(|| sockets[1].receive().ok().flatten()).map(|d| d.data.len()).collect();
    assert_eq!(rest, [2, 1]);
}

#[test]
fn too_long_for_the_path_is_told_with_its_mtu() {
    let (hosts, cable, env) = hosts();
    let socket = UdpSocket::new(&hosts[0].stack, Family::V4, false, Arc::new(Told::default()));
    let how = SendHow { discover: 2, want_errors: true, ..SendHow::PLAIN };
    let other = UdpSocket::new(&hosts[1].stack, Family::V4, false, Arc::new(Told::default()));
    other.bind(end(1, 53), O).unwrap();
    let send =
        |length: usize, how: &SendHow| socket.send(Some(end(1, 53)), Buf::from_vec(vec![1; length]), how, O);
    assert_eq!(send(1472, &how), Ok(()));
    assert_eq!(send(1473, &how), Err(NetError::MessageSize));
    assert_eq!(socket.receive_report().map(|r| (r.info, r.origin, r.data.len())), Ok((1500, 1, 0)));
    // A router says that the path is narrower.
    hosts[0].wire.with(|engine| engine.net.pmtu.lower(end(1, 0).ip, 1400, engine.net.now));
    assert_eq!(send(1400, &how), Err(NetError::MessageSize));
    assert_eq!(socket.receive_report().map(|r| r.info), Ok(1400));
    assert_eq!(hosts[0].stack.path_mtu(end(1, 0).ip, None, 0), Ok(1400));
    for (discover, sent) in [(0, Ok(())), (1, Ok(())), (3, Ok(())), (4, Ok(())), (5, Ok(()))] {
        assert_eq!(send(1400, &SendHow { discover, ..how.clone() }), sent, "{discover}");
        run(&hosts, &cable, &env);
    }
    let mut came = Vec::new();
    while let Ok(Some(d)) = other.receive() {
        came.push((d.data.len(), d.fragment));
    }
    assert_eq!(came, [(1472, 0), (1400, 1396), (1400, 1396), (1400, 0), (1400, 0), (1400, 0)]);
}

#[test]
fn what_must_not_be_routed_goes_to_neighbours_only() {
    let (hosts, cable, env) = hosts();
    let line = RouteLine {
        to: std::net::IpAddr::from([0, 0, 0, 0]),
        prefix: 0,
        gateway: Some(end(1, 0).ip),
        device: hosts[0].index,
        source: None,
        metric: 0,
        protocol: 3,
    };
    hosts[0].stack.interfaces.add_route(line).unwrap();
    let socket = UdpSocket::new(&hosts[0].stack, Family::V4, false, Arc::new(Told::default()));
    let far = Endpoint::new(std::net::IpAddr::from([198, 51, 100, 1]), 9);
    let direct = SendHow { direct: true, ..SendHow::PLAIN };
    let send = |to: Endpoint, how: &SendHow| socket.send(Some(to), Buf::copy_of(b"x"), how, O);
    assert_eq!(send(far, &SendHow::PLAIN), Ok(()));
    assert_eq!(send(far, &direct), Err(NetError::NetworkUnreachable));
    assert_eq!(send(end(1, 9), &direct), Ok(()));
    run(&hosts, &cable, &env);
}
