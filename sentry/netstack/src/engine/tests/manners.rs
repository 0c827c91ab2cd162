//! What routers, neighbours and strangers may and may not do to an engine; taps; memory.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::super::error::Error;
use super::super::events::Ready;
use super::super::link::Mac;
use super::super::neighbour::{Change, NeighbourState};
use super::super::net::{ICMP, ICMPV6, IGMP, TcpFeatures};
use super::super::pair::Impairment;
use super::super::raw::Way;
use super::super::sending::Outgoing;
use super::super::slab::Handle;
use super::super::tap::{FrameKind, TapFilter};
use super::super::tcp::ConnOptions;
use super::streams::connect;
use super::{Setup, World, at, inbox, ip4, ip6};

const MS: Duration = Duration::from_millis(1);

/// Engine 0 sends a message as it is, but for its checksum.
fn say(world: &mut World, from: IpAddr, to: IpAddr, protocol: u8, ttl: u8, message: &[u8]) {
    let engine = &mut world.engines[0];
    engine.set_now(world.now);
    let out = Outgoing { ttl: Some(ttl), ..Outgoing::new(from, to, protocol) };
    engine
        .raw
        .send(&mut engine.net, &out, Way { interface: Some(2), ..Way::default() }, message, Some(2))
        .unwrap();
    world.run(MS * 5);
}

/// Messages of a protocol that an engine sends while something happens: kinds, and to whom.
fn sent(world: &mut World, protocol: u8, act: impl FnOnce(&mut World)) -> Vec<(u8, IpAddr)> {
    let inbox = inbox();
    let id = world.engines[1].net.taps.add(TapFilter::default(), inbox.clone());
    act(world);
    world.engines[1].net.taps.remove(id);
    let frames = inbox.frames.lock().unwrap();
    let outgoing = frames.iter().filter(|frame| frame.kind == FrameKind::Outgoing);
    let read = |bytes: &[u8]| -> Option<(u8, u8, IpAddr)> {
        match bytes.get(14)? >> 4 {
            4 => {
                let at = 14 + usize::from(bytes[14] & 15) * 4;
                Some((bytes[23], bytes[at], <[u8; 4]>::try_from(&bytes[30..34]).ok()?.into()))
            }
            6 => {
                let to = <[u8; 16]>::try_from(&bytes[38..54]).ok()?.into();
                // Behind hop-by-hop options, or at once.
                Some(if bytes[20] == 0 { (bytes[54], bytes[62], to) } else { (bytes[20], bytes[54], to) })
            }
            _ => None,
        }
    };
    let all = outgoing.filter_map(|frame| read(&frame.data));
    all.filter(|(kind, ..)| *kind == protocol).map(|(_, kind, to)| (kind, to)).collect()
}

#[test]
fn old_routers_are_spoken_to_in_their_version() {
    let mut world = World::new(Setup::default());
    world.run(Duration::from_secs(3));
    let group = IpAddr::from([239, 1, 2, 3]);
    let all = IpAddr::from([224, 0, 0, 1]);
    // A general query of IGMPv2, one second.
    say(&mut world, ip4(0), all, IGMP, 1, &[0x11, 10, 0, 0, 0, 0, 0, 0]);
    let reports = sent(&mut world, IGMP, |world| {
        assert!(world.engines[1].net.join(2, group));
        world.run(Duration::from_secs(3));
    });
    assert_eq!(reports, [(0x16, group); 2]);
    let reports = sent(&mut world, IGMP, |world| {
        say(world, ip4(0), group, IGMP, 1, &[0x11, 10, 0, 0, 239, 1, 2, 3]);
        world.run(Duration::from_secs(2));
    });
    assert_eq!(reports, [(0x16, group)]);
    // Somebody else reports first.
    let reports = sent(&mut world, IGMP, |world| {
        say(world, ip4(0), all, IGMP, 1, &[0x11, 100, 0, 0, 0, 0, 0, 0]);
        say(world, ip4(0), group, IGMP, 1, &[0x16, 0, 0, 0, 239, 1, 2, 3]);
        world.run(Duration::from_secs(12));
    });
    assert!(reports.len() <= 1, "{reports:?}");
    let reports = sent(&mut world, IGMP, |world| {
        world.engines[1].net.leave(2, group);
        world.run(Duration::from_secs(3));
    });
    assert_eq!(reports[0], (0x17, IpAddr::from([224, 0, 0, 2])));
    // The router has gone: the newest version again.
    world.run(Duration::from_secs(300));
    let reports = sent(&mut world, IGMP, |world| {
        assert!(world.engines[1].net.join(2, group));
        world.run(Duration::from_secs(3));
    });
    assert_eq!(reports, [(0x22, IpAddr::from([224, 0, 0, 22])); 2]);
}

#[test]
fn old_listener_queries_are_answered_in_their_version() {
    let mut world = World::new(Setup::default());
    let link: Ipv6Addr = "fe80::1".parse().unwrap();
    let group: IpAddr = "ff15::123".parse().unwrap();
    world.engines[0].add_address(2, super::Prefix::new(link.into(), 64), false).unwrap();
    assert!(world.engines[1].net.join(2, group));
    world.run(Duration::from_secs(3));
    let mut query = vec![130, 0, 0, 0, 0x03, 0xe8, 0, 0];
    query.extend_from_slice(&[0; 16]);
    let reports = sent(&mut world, ICMPV6, |world| {
        say(world, link.into(), "ff02::1".parse().unwrap(), ICMPV6, 1, &query);
        world.run(Duration::from_secs(2));
    });
    assert!(reports.contains(&(131, group)), "{reports:?}");
    let reports = sent(&mut world, ICMPV6, |world| {
        world.engines[1].net.leave(2, group);
        world.run(Duration::from_secs(3));
    });
    assert_eq!(reports[0], (132, "ff02::2".parse().unwrap()));
}

#[test]
fn all_prefixes_of_a_router_are_taken() {
    let mut world = World::new(Setup::default());
    let router: Ipv6Addr = "fe80::1".parse().unwrap();
    world.engines[0].add_address(2, super::Prefix::new(router.into(), 64), false).unwrap();
    world.engines[1].net.accept_routers(2);
    let mut advert = vec![134, 0, 0, 0, 32, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    advert.extend_from_slice(&[1, 1, 2, 0, 0, 0, 0, 1]);
    for n in 1..3 {
        advert.extend_from_slice(&[3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
        advert.extend_from_slice(&[0xfd, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    // An option that nobody knows.
    advert.extend_from_slice(&[77, 1, 0, 0, 0, 0, 0, 0]);
    say(&mut world, router.into(), "ff02::1".parse().unwrap(), ICMPV6, 255, &advert);
    world.run(Duration::from_secs(2));
    let net = &world.engines[1].net;
    for n in 1..3u16 {
        let ip: Ipv6Addr = Ipv6Addr::new(0xfd00 | n, 0, 0, 0, 0, 0xff, 0xfe00, 2);
        assert!(net.is_local(ip.into()), "{ip}");
    }
    let far: IpAddr = "2001:db8::1".parse().unwrap();
    assert_eq!(net.path(far, None, None).map(|path| path.next_hop), Ok(router.into()));
    // Its life ends.
    world.run(Duration::from_secs(3700));
    assert_eq!(world.engines[1].net.path(far, None, None).err(), Some(Error::NetworkUnreachable));
}

#[test]
fn a_stranger_does_not_take_a_neighbours_place() {
    let mut world = World::new(Setup::default());
    let (_, b) = connect(&mut world, true, ConnOptions::default(), MS * 10).unwrap();
    let key = (2, ip6(0));
    let mac = world.engines[1].net.neighbours.mac(key);
    assert!(mac.is_some());
    let mut advert = vec![136, 0, 0, 0, 0x40, 0, 0, 0];
    if let IpAddr::V6(ip) = ip6(0) {
        advert.extend_from_slice(&ip.octets());
    }
    advert.extend_from_slice(&[2, 1, 2, 0, 0, 0, 0, 0x77]);
    // Without the override flag.
    say(&mut world, ip6(0), ip6(1), ICMPV6, 255, &advert);
    assert_eq!(world.engines[1].net.neighbours.mac(key), mac);
    advert[4] = 0x60;
    say(&mut world, ip6(0), ip6(1), ICMPV6, 255, &advert);
    assert_ne!(world.engines[1].net.neighbours.mac(key), mac);
    assert!(world.engines[1].tcp.state(b).is_some());
}

/// A packet-too-big message that quotes this part of a segment of engine 1.
fn too_big(seq: u32, port: u16) -> Vec<u8> {
    let mut message = vec![3, 4, 0, 0, 0, 0, 0x02, 0x58];
    message.extend_from_slice(&[0x45, 0, 5, 0xdc, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
    message.extend_from_slice(&80u16.to_be_bytes());
    message.extend_from_slice(&port.to_be_bytes());
    message.extend_from_slice(&seq.to_be_bytes());
    message
}

#[test]
fn only_who_knows_the_numbers_lowers_the_path_mtu() {
    let mut world = World::new(Setup::default());
    let (_, b) = connect(&mut world, false, ConnOptions::default(), MS * 10).unwrap();
    let mtu = |world: &World| world.engines[1].tcp.info(b, world.now).map(|info| info.path_mtu);
    say(&mut world, ip4(0), ip4(1), ICMP, 64, &too_big(12_345, 4000));
    assert_eq!(mtu(&world), Some(1500));
    // Engine 1 sends a segment that is lost, so that its number is in flight.
    world.link.set_impairment(Impairment { loss: 1000, ..Impairment::default() });
    let taps = inbox();
    let id = world.engines[1].net.taps.add(TapFilter::default(), taps.clone());
    let engine = &mut world.engines[1];
    engine.tcp.send(&mut engine.net, b, &[1; 5000]).unwrap();
    world.run(MS);
    world.engines[1].net.taps.remove(id);
    world.link.set_impairment(Impairment::default());
    let seq = {
        let frames = taps.frames.lock().unwrap();
        let data = &frames.iter().find(|frame| frame.kind == FrameKind::Outgoing).unwrap().data;
        u32::from_be_bytes([data[38], data[39], data[40], data[41]])
    };
    say(&mut world, ip4(0), ip4(1), ICMP, 64, &too_big(seq, 4000));
    assert_eq!(mtu(&world), Some(600));
}

#[test]
fn a_listener_that_defers_waits_for_data() {
    let mut world = World::new(Setup::default());
    let options = ConnOptions { defer_accept: 3, ..ConnOptions::default() };
    let listener = world.engines[1].tcp.listen(at(ip4(1), 80), false, 5, options, None);
    let begin = |world: &mut World, port: u16| -> Handle {
        let engine = &mut world.engines[0];
        engine.set_now(world.now);
        let options = ConnOptions::default();
        engine.tcp.connect(&mut engine.net, at(ip4(0), port), at(ip4(1), 80), options, None).unwrap()
    };
    let quiet = begin(&mut world, 1);
    world.run(MS * 100);
    assert!(world.engines[0].tcp.ready(quiet).has(Ready::WRITE), "the client is connected");
    assert_eq!(world.engines[1].tcp.accept(listener).err(), Some(Error::WouldBlock));
    let talking = begin(&mut world, 2);
    world.run(MS * 100);
    let engine = &mut world.engines[0];
    engine.tcp.send(&mut engine.net, talking, b"hello").unwrap();
    world.run(MS * 100);
    let accepted = world.engines[1].tcp.accept(listener).unwrap();
    assert_eq!(accepted.remote.port(), 2);
    // The other one gets in when its time is over.
    world.run(Duration::from_secs(4));
    assert_eq!(world.engines[1].tcp.accept(listener).err(), Some(Error::WouldBlock));
    world.run(Duration::from_secs(6));
    assert_eq!(world.engines[1].tcp.accept(listener).unwrap().remote.port(), 1);
}

#[test]
fn connections_share_what_memory_there_is() {
    let mut world = World::new(Setup::default());
    world.engines[1].net.memory.most = 200_000;
    world.engines[0].net.tcp_features = TcpFeatures::default();
    let listener = world.engines[1].tcp.listen(at(ip4(1), 80), false, 50, ConnOptions::default(), None);
    let mut clients = Vec::new();
    for port in 1..=10 {
        let engine = &mut world.engines[0];
        engine.set_now(world.now);
        let options = ConnOptions::default();
        let client =
            engine.tcp.connect(&mut engine.net, at(ip4(0), port), at(ip4(1), 80), options, None).unwrap();
        clients.push(client);
        world.run(MS * 5);
    }
    let servers: Vec<Handle> =
        clients.iter().map(|_| world.engines[1].tcp.accept(listener).unwrap().connection).collect();
    for client in &clients {
        let engine = &mut world.engines[0];
        engine.tcp.send(&mut engine.net, *client, &[7; 100_000]).unwrap();
    }
    world.run(Duration::from_secs(5));
    let used = world.engines[1].net.memory.used();
    assert!((150_000..300_000).contains(&used), "{used}");
    assert!(world.engines[1].net.stats.tcp_no_memory > 0);
    // All gets through once somebody reads.
    let mut got = 0;
    for _ in 0..600 {
        world.run(MS * 200);
        for server in &servers {
            let engine = &mut world.engines[1];
            if let Ok(chunks) = engine.tcp.receive(&mut engine.net, *server, 1 << 20) {
                got += chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
            }
        }
        if got == 1_000_000 {
            break;
        }
    }
    assert_eq!((got, world.engines[1].net.memory.used()), (1_000_000, 0));
}

#[test]
fn a_tap_sees_what_goes_by() {
    let mut world = World::new(Setup::default());
    let (all, arp) = (inbox(), inbox());
    world.engines[1].net.taps.add(TapFilter::default(), all.clone());
    world.engines[1].net.taps.add(TapFilter { protocol: Some(0x0806), interface: Some(2) }, arp.clone());
    connect(&mut world, false, ConnOptions::default(), MS * 10).unwrap();
    let kinds: Vec<(FrameKind, u16)> =
        all.frames.lock().unwrap().iter().map(|frame| (frame.kind, frame.protocol)).collect();
    assert!(kinds.contains(&(FrameKind::Broadcast, 0x0806)) && kinds.contains(&(FrameKind::Host, 0x0800)));
    assert!(kinds.contains(&(FrameKind::Outgoing, 0x0800)) && kinds.contains(&(FrameKind::Outgoing, 0x0806)));
    let seen = arp.frames.lock().unwrap();
    assert!(!seen.is_empty() && seen.iter().all(|f| f.protocol == 0x0806 && f.kind != FrameKind::Outgoing));
}

/// A neighbour whose address changed without a word is found again, though what was known still looked good.
#[test]
fn a_neighbour_that_has_moved_is_found_again() {
    let mut world = World::new(Setup::default());
    let (a, b) = connect(&mut world, false, ConnOptions::default(), MS * 10).unwrap();
    let now = world.now;
    let wrong = by_hand(0x77, NeighbourState::Reachable);
    world.engines[0].net.neighbours.change((2, ip4(1)), wrong, now).unwrap();
    world.run(Duration::from_secs(40));
    let engine = &mut world.engines[0];
    engine.tcp.send(&mut engine.net, a, b"hello").unwrap();
    world.run(Duration::from_secs(20));
    assert_eq!(world.engines[1].tcp.queues(b).0, 5);
}

/// An entry that somebody sets.
fn by_hand(mac: u8, state: NeighbourState) -> Change {
    Change { mac: Some(Mac([2, 0, 0, 0, 0, mac])), state, router: false, protocol: 4, overrides: true }
}

/// Who is set by hand is neither asked for nor replaced by what others say.
#[test]
fn a_permanent_neighbour_stays_what_it_is() {
    let mut world = World::new(Setup::default());
    let key = (2, ip4(0));
    let inbox = inbox();
    world.engines[1].net.taps.add(TapFilter::default(), inbox.clone());
    world.engines[1].net.change_neighbour(2, ip4(0), by_hand(0x55, NeighbourState::Permanent)).unwrap();
    // The real one introduces itself, by questions and by what it sends.
    world.engines[0].net.arp_request(2, std::net::Ipv4Addr::new(10, 0, 0, 2), None);
    world.run(MS * 10);
    let entry = world.engines[1].net.neighbours.get(key).unwrap();
    assert_eq!((entry.state, entry.mac.0[5], entry.protocol), (NeighbourState::Permanent, 0x55, 4));
    let engine = &mut world.engines[1];
    engine
        .udp
        .send(&mut engine.net, at(ip4(1), 9), at(ip4(0), 9), &Default::default(), Default::default())
        .unwrap();
    world.run(Duration::from_secs(400));
    let frames = inbox.frames.lock().unwrap();
    let mut out = frames.iter().filter(|frame| frame.kind == FrameKind::Outgoing).map(|frame| &frame.data);
    assert!(out.clone().any(|data| data[5] == 0x55 && data[12..14] == [8, 0]), "by the address that was set");
    assert!(!out.any(|data| data[12..14] == [8, 6] && data[21] == 1), "nobody is asked");
    assert_eq!(world.engines[1].net.neighbours.get(key).unwrap().state, NeighbourState::Permanent);
}

/// Who waits for an answer goes on when somebody says where the neighbour is.
#[test]
fn what_waits_goes_out_when_the_neighbour_is_set() {
    let mut world = World::new(Setup::default());
    let inbox = inbox();
    world.engines[0].net.taps.add(TapFilter::default(), inbox.clone());
    let engine = &mut world.engines[0];
    let nobody = IpAddr::from([10, 0, 0, 77]);
    engine
        .udp
        .send(&mut engine.net, at(ip4(0), 9), at(nobody, 9), &Default::default(), Default::default())
        .unwrap();
    assert!(engine.net.neighbours.mac((2, nobody)).is_none());
    engine.net.change_neighbour(2, nobody, by_hand(0x44, NeighbourState::Stale)).unwrap();
    assert_eq!(engine.net.neighbours.get((2, nobody)).unwrap().state, NeighbourState::Stale);
    world.run(MS);
    {
        let frames = inbox.frames.lock().unwrap();
        let sent = frames.iter().find(|frame| frame.data[12..14] == [8, 0]).expect("the datagram");
        assert_eq!(sent.data[..6], [2, 0, 0, 0, 0, 0x44]);
    }
    let engine = &mut world.engines[0];
    // Taken away while something waits: its sender hears of it.
    let other = IpAddr::from([10, 0, 0, 78]);
    engine
        .udp
        .send(&mut engine.net, at(ip4(0), 9), at(other, 9), &Default::default(), Default::default())
        .unwrap();
    assert!(engine.net.remove_neighbour(2, other) && !engine.net.remove_neighbour(2, other));
    assert_eq!(engine.net.errors.len(), 1);
}

/// Those that stay have a limit of their own; strangers do not push them out, nor they the strangers.
#[test]
fn permanent_neighbours_are_limited() {
    let mut world = World::new(Setup::default());
    let net = &mut world.engines[0].net;
    let ip = |n: u32| IpAddr::from((0x0a01_0000 + n).to_be_bytes());
    let set =
        |net: &mut super::super::net::Net, n: u32, state| net.change_neighbour(2, ip(n), by_hand(1, state));
    for n in 0..1024 {
        set(net, n, NeighbourState::Permanent).unwrap();
    }
    assert_eq!(set(net, 5000, NeighbourState::Permanent), Err(Error::NoBuffers));
    assert_eq!(set(net, 5, NeighbourState::Permanent), Ok(()), "again");
    for n in 2000..4000 {
        set(net, n, NeighbourState::Stale).unwrap();
    }
    assert_eq!(net.neighbours.iter().count(), 2048);
    assert!((0..1024).all(|n| net.neighbours.mac((2, ip(n))).is_some()));
    assert!(net.neighbours.mac((2, ip(3999))).is_some());
    // No address: only where one is known.
    let bare = Change { mac: None, ..by_hand(0, NeighbourState::Reachable) };
    assert_eq!(net.change_neighbour(2, ip(9000), bare), Err(Error::Invalid));
    assert_eq!(net.change_neighbour(2, ip(5), bare), Ok(()));
}
