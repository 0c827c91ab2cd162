//! What stands beside the header of IP, on the wire: options, extension headers, the flag DF, pieces, and what is said of what is
//! wrong.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::extensions::{Between, Chain, Extensions};
use crate::options::{Giver, Options, Stamp};

use super::super::checksum;
use super::super::chunk::Chunk;
use super::super::error::Error;
use super::super::frame::{Body, RxChecksum, RxFrame};
use super::super::net::ICMPV6;
use super::super::random::{Random, SeededRandom};
use super::super::raw::RawBinding;
use super::super::sending::{Extra, Fragmenting};
use super::super::tap::{FrameKind, TapFilter};
use super::super::tcp::{ConnOptions, State};
use super::super::udp::{UdpBinding, UdpSend};
use super::{Inbox, Setup, World, at, inbox, ip4, ip6};

const MS: Duration = Duration::from_millis(1);
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

/// The IP packets that engine 0 sends.
struct Watch(Arc<Inbox>);

impl Watch {
    fn on(world: &mut World) -> Watch {
        let inbox = inbox();
        world.engines[0].net.taps.add(TapFilter::default(), inbox.clone());
        Watch(inbox)
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        let frames = std::mem::take(&mut *self.0.frames.lock().unwrap());
        let out = frames.iter().filter(|frame| frame.kind == FrameKind::Outgoing);
        // No packets of neighbours.
        let own =
            |data: &&[u8]| data[12..14] == [8, 0] || (data[12..14] == [0x86, 0xdd] && data[20] != ICMPV6);
        out.map(|frame| &frame.data[..]).filter(own).map(|data| data[14..].to_vec()).collect()
    }
}

fn body(length: usize) -> Body {
    let mut body = Body::new();
    body.push(Chunk::from(vec![7; length]));
    body
}

fn send(world: &mut World, to: IpAddr, how: &UdpSend<'_>, length: usize) -> Result<(), Error> {
    let engine = &mut world.engines[0];
    let own = if to.is_ipv4() { ip4(0) } else { ip6(0) };
    let sent = engine.udp.send(&mut engine.net, at(own, 1000), at(to, 53), how, body(length));
    world.run(10 * MS);
    sent.map(|_| ())
}

fn chain(hop: bool, routed: bool) -> Chain {
    let routing = routed.then(|| {
        let mut header = vec![0, 2, 4, 0, 0, 0, 0, 0];
        header.extend([0; 16]);
        if let IpAddr::V6(first) = ip6(1) {
            header[8..24].copy_from_slice(&first.octets());
        }
        header
    });
    let all = Extensions {
        hop: hop.then(|| PADDING.to_vec()),
        before_routing: None,
        routing,
        destination: Some(PADDING.to_vec()),
    };
    all.chain(Ipv6Addr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]))
}

#[test]
fn the_flag_df_and_pieces_are_as_the_sender_wants() {
    let mut world = World::new(Setup::default());
    let inbox = inbox();
    world.engines[1].udp.bind(UdpBinding::new(at(ip4(1), 53)), inbox.clone());
    let watch = Watch::on(&mut world);
    for (fragmenting, flag, cut) in [
        (Fragmenting::Allowed, 0, true),
        (Fragmenting::Here, 0x40, true),
        (Fragmenting::Never, 0x40, false),
        (Fragmenting::NotHere, 0, false),
    ] {
        let how = UdpSend { fragmenting, ..UdpSend::default() };
        assert_eq!(send(&mut world, ip4(1), &how, 1472), Ok(()));
        let sent = watch.sent();
        assert_eq!((sent.len(), sent[0][6] & 0xe0), (1, flag), "{fragmenting:?}");
        assert_eq!(inbox.datagrams.lock().unwrap().pop().unwrap().fragment, 0);
        let long = send(&mut world, ip4(1), &how, 1473);
        let sent = watch.sent();
        if cut {
            assert_eq!((long, sent.len(), sent[0][6] & 0xe0), (Ok(()), 2, 0x20));
            assert_eq!(inbox.datagrams.lock().unwrap().pop().unwrap().fragment, 1500);
        } else {
            assert_eq!((long, sent.len()), (Err(Error::MessageTooLong), 0));
        }
    }
}

#[test]
fn extension_headers_go_and_come_whole_and_in_pieces() {
    let mut world = World::new(Setup::default());
    let inbox = inbox();
    world.engines[1].udp.bind(UdpBinding::new(at(ip6(1), 53)), inbox.clone());
    let watch = Watch::on(&mut world);
    let chain = chain(true, false);
    let extra = Extra { chain: Some(&chain), flow: 0x12345, pieces: 1400, ..Extra::default() };
    let how = UdpSend { extra, tos: 0x1c, ..UdpSend::default() };
    for (length, pieces, largest) in [(10, 1, 0), (1436, 1, 0), (1437, 2, 1400), (5000, 4, 1400)] {
        assert_eq!(send(&mut world, ip6(1), &how, length), Ok(()));
        let sent = watch.sent();
        assert_eq!(sent.len(), pieces, "{length}");
        for packet in &sent {
            assert_eq!(packet[..4], [0x61, 0xc1, 0x23, 0x45]);
            // Hop-by-hop first; behind it destination options, or the header of a piece.
            assert_eq!((packet[6], packet[40]), (0, if pieces == 1 { 60 } else { 44 }));
        }
        let got = inbox.datagrams.lock().unwrap().pop().expect("arrives");
        assert_eq!((got.payload.len(), got.flow, got.fragment), (length, 0x12345, largest));
        let between = got.between.expect("headers");
        let kinds: Vec<u8> = between.headers().iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [0, 60], "{length}");
    }
}

#[test]
fn a_routing_header_leads_to_its_first_segment() {
    let mut world = World::new(Setup::default());
    let watch = Watch::on(&mut world);
    let chain = chain(false, true);
    let extra = Extra { chain: Some(&chain), ..Extra::default() };
    let how = UdpSend { extra, hop: Some(ip6(1)), ..UdpSend::default() };
    let end: IpAddr = "fd00::99".parse().unwrap();
    assert_eq!(send(&mut world, end, &how, 10), Ok(()));
    let sent = watch.sent();
    let IpAddr::V6(first) = ip6(1) else { panic!() };
    assert_eq!((sent.len(), sent[0][6]), (1, 43));
    assert_eq!(sent[0][24..40], first.octets());
    assert_eq!(sent[0][48..64], "fd00::2".parse::<Ipv6Addr>().unwrap().octets());
}

#[test]
fn options_of_ipv4_are_sent_filled_and_told() {
    let mut world = World::new(Setup::default());
    let inbox = inbox();
    world.engines[1].udp.bind(UdpBinding::new(at(ip4(1), 53)), inbox.clone());
    let watch = Watch::on(&mut world);
    // A route with the sender's address, and a router alert.
    let options = [7, 11, 8, 10, 0, 0, 1, 0, 0, 0, 0, 148, 4, 0, 0, 0];
    let extra = Extra { options: &options, ..Extra::default() };
    let how = UdpSend { extra, ..UdpSend::default() };
    assert_eq!(send(&mut world, ip4(1), &how, 3), Ok(()));
    let sent = watch.sent();
    assert_eq!((sent[0][0], &sent[0][20..36]), (0x49, &options[..]));
    let got = inbox.datagrams.lock().unwrap().pop().expect("arrives");
    let told = got.between.expect("options");
    assert_eq!(told.bytes[..], [7, 11, 12, 10, 0, 0, 1, 10, 0, 0, 2, 148, 4, 0, 0, 0]);
    // Pieces behind the first have what is for all.
    assert_eq!(send(&mut world, ip4(1), &how, 3000), Ok(()));
    let sent = watch.sent();
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[1][20..36], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 148, 4, 0, 0, 0]);
    let got = inbox.datagrams.lock().unwrap().pop().expect("arrives");
    assert_eq!((got.payload.len(), got.fragment), (3000, 1500));
}

/// Engine 1 gets a packet of IPv6 from engine 0 that was made by hand; what engine 0 sees of ICMPv6 (type, code, pointer).
fn problem_with(packet: &[u8]) -> Option<(u8, u8, u32)> {
    let mut world = World::new(Setup::default());
    let inbox = inbox();
    let binding =
        RawBinding { v4: false, protocol: ICMPV6, local: None, remote: None, interface: None, ident: None };
    world.engines[0].raw.bind(binding, inbox.clone());
    receive(&mut world, packet);
    world.run(Duration::from_secs(1));
    let got = inbox.datagrams.lock().unwrap();
    let error = got.iter().map(|d| &d.payload[..]).find(|m| m[0] < 128)?;
    Some((error[0], error[1], u32::from_be_bytes([error[4], error[5], error[6], error[7]])))
}

fn packet6(to: &str, first: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((rest.len() as u16).to_be_bytes());
    packet.extend([first, 64]);
    let IpAddr::V6(from) = ip6(0) else { panic!() };
    packet.extend(from.octets());
    packet.extend(to.parse::<Ipv6Addr>().unwrap().octets());
    packet.extend_from_slice(rest);
    packet
}

#[test]
fn problems_with_options_are_told_where_they_are() {
    let option = |kind: u8| [17, 0, kind, 4, 0, 0, 0, 0, 1, 2, 3, 4, 0, 8, 0, 0];
    for (to, first, kind, told) in [
        ("fd00::2", 60, 0x83, Some((4, 2, 42))),
        ("fd00::2", 0, 0xc3, Some((4, 2, 42))),
        ("fd00::2", 60, 0x43, None),
        // All nodes: only what wants an answer in spite of that.
        ("ff02::1", 60, 0x83, Some((4, 2, 42))),
        ("ff02::1", 60, 0xc3, None),
    ] {
        assert_eq!(problem_with(&packet6(to, first, &option(kind))), told, "{to} {first} {kind:x}");
    }
    let dead = [17, 2, 0, 1, 0, 0, 0, 0].iter().copied().chain([0; 16]).collect::<Vec<u8>>();
    assert_eq!(problem_with(&packet6("fd00::2", 43, &dead)), Some((4, 0, 42)));
    let late = [0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(problem_with(&packet6("fd00::2", 60, &late)), Some((4, 1, 40)));
}

#[test]
fn a_problem_comes_back_with_its_place() {
    let mut world = World::new(Setup::default());
    let inbox = inbox();
    world.engines[0].udp.bind(UdpBinding::new(at(ip6(0), 1000)), inbox.clone());
    let mut unknown = PADDING;
    unknown[2] = 0x83;
    let all = Extensions { destination: Some(unknown.to_vec()), ..Extensions::default() };
    let IpAddr::V6(to) = ip6(1) else { panic!() };
    let chain = all.chain(to);
    let how = UdpSend { extra: Extra { chain: Some(&chain), ..Extra::default() }, ..UdpSend::default() };
    assert_eq!(send(&mut world, ip6(1), &how, 20), Ok(()));
    let error = inbox.errors.lock().unwrap().pop().expect("told");
    assert_eq!((error.error, error.hard, error.info), (Error::ProtocolUnreachable, true, 42));
    assert_eq!((error.quote.len(), error.before), (28, 48));
}

/// Gives engine 1 a frame from engine 0 that was made by hand.
fn receive(world: &mut World, packet: &[u8]) {
    let v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame[..6].copy_from_slice(world.engines[1].net.interface(2).unwrap().mac.as_bytes());
    frame.extend(if v4 { [8, 0] } else { [0x86, 0xdd] });
    frame.extend_from_slice(packet);
    let frame = RxFrame { data: frame.into(), checksum: RxChecksum::Valid, segment: None };
    let now = world.now;
    world.engines[1].receive(now, 2, [frame]);
    world.engines[1].poll(now);
    world.engines[1].events().into_iter().for_each(|event| event.dispatch());
}

fn packet4(protocol: u8, options: &[u8], rest: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + rest.len()) as u16).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend_from_slice(options);
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(rest);
    packet
}

#[test]
fn source_routes_are_dropped_and_wrong_options_told_of() {
    let datagram = [0x10, 0, 0, 53, 0, 9, 0, 0, b'x'];
    for (options, arrives, told) in [
        (&[1, 1, 1, 0][..], true, None),
        (&[131, 7, 4, 10, 0, 0, 9, 0], false, None),
        (&[137, 7, 8, 10, 0, 0, 9, 0], false, None),
        (&[1, 7, 9, 4], false, Some(21)),
        (&[7, 7, 5, 0, 0, 0, 0, 0], false, Some(22)),
    ] {
        let mut world = World::new(Setup::default());
        let (inbox, errors) = (inbox(), inbox());
        world.engines[1].udp.bind(UdpBinding::new(at(ip4(1), 53)), inbox.clone());
        world.engines[0].udp.bind(UdpBinding::new(at(ip4(0), 0x1000)), errors.clone());
        receive(&mut world, &packet4(17, options, &datagram));
        world.run(Duration::from_secs(1));
        assert_eq!(inbox.datagrams.lock().unwrap().len(), usize::from(arrives), "{options:?}");
        assert_eq!(errors.errors.lock().unwrap().pop().map(|e| e.info), told, "{options:?}");
    }
}

#[test]
fn extensions_of_icmp_are_found_in_what_a_socket_gets() {
    let mut world = World::new(Setup::default());
    let inbox = inbox();
    world.engines[1].udp.bind(UdpBinding::new(at(ip4(1), 5000)), inbox.clone());
    // Time exceeded: 128 bytes of a datagram of engine 1, and an object.
    let mut message = vec![11, 0, 0, 0, 0, 32, 0, 0];
    message.extend([0x45, 0, 1, 0, 0, 0, 0, 0, 1, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
    message.extend([0x13, 0x88, 0, 9, 0, 236, 0, 0]);
    message.resize(8 + 128, 0xaa);
    message.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 1, 2, 3, 4]);
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    receive(&mut world, &packet4(1, &[], &message));
    let error = inbox.errors.lock().unwrap().pop().expect("told");
    // Counted from the header of UDP on.
    assert_eq!((error.error, error.extension), (Error::HostUnreachable, Some((108, true))));
    assert_eq!(error.quote.get(108..112), Some(&[0x20, 0, 0, 0][..]));
}

#[test]
fn who_is_too_far_away_is_not_heard() {
    // What the server wants and sends with, and what the client does.
    for (least, there, wish, hops, opens) in [
        (0, 255, 0, 1, true),
        (255, 255, 0, 255, true),
        (255, 255, 0, 64, false),
        (64, 255, 0, 63, false),
        (0, 64, 64, 255, true),
        (0, 64, 65, 255, false),
    ] {
        let mut world = World::new(Setup::default());
        let own = ConnOptions { least_hops: [least, 0], ttl: Some(there), ..ConnOptions::default() };
        let any = at([0; 4].into(), 179);
        world.engines[1].tcp.listen(any, false, 4, own, None);
        let other = ConnOptions { least_hops: [wish, 0], ttl: Some(hops), ..ConnOptions::default() };
        let engine = &mut world.engines[0];
        let conn =
            engine.tcp.connect(&mut engine.net, at(ip4(0), 4000), at(ip4(1), 179), other, None).unwrap();
        world.run(100 * MS);
        let state = world.engines[0].tcp.state(conn).unwrap();
        assert_eq!(state == State::Established, opens, "{least} {there} {wish} {hops} {state:?}");
    }
}

/// Random options and extension headers: no panic and no loop without end.
#[test]
fn hostile_headers() {
    let mut random = SeededRandom::new(7);
    let mut world = World::new(Setup::default());
    let inbox = inbox();
    for ip in [ip4(1), ip6(1)] {
        world.engines[1].udp.bind(UdpBinding::new(at(ip, 53)), inbox.clone());
    }
    let datagram = [0x10, 0, 0, 53, 0, 9, 0, 0, b'x'];
    for round in 0..20_000 {
        let kinds: &[u8] = if round % 2 == 0 { &[0, 1, 7, 68, 131, 137, 148, 200] } else { &[0, 43, 44, 60] };
        let mut bytes = Vec::new();
        while random.below(6) != 0 {
            let mut piece = vec![0; 1 + random.below(12) as usize];
            random.fill(&mut piece);
            piece[0] = kinds[random.below(kinds.len() as u64) as usize];
            if round % 2 == 1 {
                piece.resize(8 * (1 + random.below(3) as usize), random.below(3) as u8);
                piece[1] = (piece.len() / 8 - 1) as u8 + u8::from(random.below(20) == 0);
                piece[2] = [0, 1, 5, 0xc2, 0x83, 4][random.below(6) as usize];
                piece[3] = random.below(8) as u8;
            } else if let (Some(length), true) = (piece.get(1), random.below(4) != 0) {
                piece[1] = (length % 12).max(2);
            }
            bytes.extend(piece);
        }
        if round % 2 == 0 {
            bytes.resize(bytes.len().next_multiple_of(4).min(40), 0);
            let _ = Options::read(&bytes, Giver::Program(round % 4 == 0)).map(|options| {
                let sent = options.sent(Stamp::new([10, 0, 0, 2].into(), round), [10, 0, 0, 1].into());
                assert_eq!(sent.bytes.len(), options.len());
            });
            if let Ok(options) = Options::read(&bytes, Giver::Packet) {
                let came = options.arrived(Stamp::new([10, 0, 0, 2].into(), round));
                let _ = Options::read(&came.echoed(), Giver::Packet);
            }
            receive(&mut world, &packet4(17, &bytes, &datagram));
        } else {
            let first = kinds[random.below(4) as usize];
            let between = Between { first, bytes: bytes.clone().into() };
            assert!(between.headers().len() <= bytes.len() / 8);
            bytes.extend(datagram);
            receive(&mut world, &packet6("fd00::2", first, &bytes));
        }
    }
    assert!(inbox.datagrams.lock().unwrap().len() > 100, "some are right");
    assert!(world.engines[1].net.reassembly.held() <= 4 << 20);
}
