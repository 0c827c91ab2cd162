//! Two stacks with a cable between them: the sockets of one reach those of the other.

use super::*;
use crate::addr::Family;
use crate::engine::link::{Capabilities, Medium};
use crate::engine::pair::{Impairment, PairLink};
use crate::env::testing::{TestEnv, Told};
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
    let plain = SendHow {
        source: None,
        device: 0,
        ttl: 64,
        tos: 0,
        broadcast: false,
        multicast_loop: false,
        multicast_device: 0,
        multicast_source: None,
        want_errors: false,
        discover: 1,
        no_checksum: false,
        tag: Tag::default(),
        segment: None,
    };
    let bare = SendHow { no_checksum: true, ..plain };
    let arrives = |how: &SendHow| {
        sockets[0].send(Some(end6(1, 99)), Buf::copy_of(b"hello"), how, O).unwrap();
        run(&hosts, &cable, &env);
        sockets[1].receive().is_ok()
    };
    assert!(arrives(&plain) && !arrives(&bare));
    sockets[1].set_unchecked(true);
    assert!(arrives(&plain) && arrives(&bare));
    // What is cut is several datagrams on the wire.
    let cut = SendHow { segment: Some(2), ..plain };
    assert!(arrives(&cut));
    let rest: Vec<_> =
        std::iter::from_fn(|| sockets[1].receive().ok().flatten()).map(|d| d.data.len()).collect();
    assert_eq!(rest, [2, 1]);
}
