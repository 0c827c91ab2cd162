//! TCP between two engines: handshakes, endings, and the property that all bytes come through whatever
//! the link does.

use std::time::Duration;

use super::super::error::Error;
use super::super::events::Ready;
use super::super::link::{Capabilities, Medium};
use super::super::net::TcpFeatures;
use super::super::pair::Impairment;
use super::super::random::SeededRandom;
use super::super::slab::Handle;
use super::super::tcp::{Algorithm, ConnOptions};
use super::super::time::Time;
use super::{Setup, World, at, ip4, ip6};

const MS: Duration = Duration::from_millis(1);

/// A connection from engine 0 to a listener of engine 1; none if it did not come about.
pub fn connect(
    world: &mut World,
    v6: bool,
    options: ConnOptions,
    time: Duration,
) -> Option<(Handle, Handle)> {
    let ip = if v6 { ip6 } else { ip4 };
    let listener = world.engines[1].tcp.listen(at(ip(1), 80), false, 16, options, None);
    let engine = &mut world.engines[0];
    let mut client =
        engine.tcp.connect(&mut engine.net, at(ip(0), 4000), at(ip(1), 80), options, None).unwrap();
    let until = world.now + time;
    for port in 4001.. {
        if world.engines[0].tcp.take_error(client).is_some() {
            // A bad link may lose all questions for the neighbour.
            let engine = &mut world.engines[0];
            engine.tcp.close(&mut engine.net, client);
            let _ = engine
                .tcp
                .connect(&mut engine.net, at(ip(0), port), at(ip(1), 80), options, None)
                .map(|c| client = c);
        }
        if let Ok(accepted) = world.engines[1].tcp.accept(listener) {
            let engine = &mut world.engines[1];
            engine.tcp.close_listener(&mut engine.net, listener);
            return Some((client, accepted.connection));
        }
        if !world.step(until) {
            return None;
        }
    }
    None
}

fn send(world: &mut World, side: usize, handle: Handle, bytes: &[u8]) -> Result<usize, Error> {
    let engine = &mut world.engines[side];
    engine.tcp.send(&mut engine.net, handle, bytes)
}

fn receive(world: &mut World, side: usize, handle: Handle, limit: usize) -> Result<Vec<u8>, Error> {
    let engine = &mut world.engines[side];
    let mut out = vec![0; limit];
    let count = engine.tcp.receive_into(&mut engine.net, handle, &mut out)?;
    out.truncate(count);
    Ok(out)
}

fn shut(world: &mut World, side: usize, handle: Handle) {
    let engine = &mut world.engines[side];
    engine.tcp.shutdown_write(&mut engine.net, handle).unwrap();
}

fn close(world: &mut World, side: usize, handle: Handle) {
    let engine = &mut world.engines[side];
    engine.tcp.close(&mut engine.net, handle);
}

fn byte(direction: usize, position: usize) -> u8 {
    (position as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_shr(40) as u8 ^ direction as u8
}

/// How an exchange goes on, beside its setup.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    v6: bool,
    /// Bytes that each side sends.
    sizes: [usize; 2],
    /// The first side closes as soon as all is in its buffer; what it sent has to arrive all the same.
    hurry: bool,
    /// Nothing gets through from then on for so long.
    blackout: Option<(Duration, Duration)>,
    /// What the second side speaks.
    features: TcpFeatures,
}

/// Both sides send `sizes` bytes, read at random paces, shut down, close; then nothing is left.
fn exchange(setup: Setup, options: ConnOptions, course: Course) -> Time {
    let seed = setup.seed;
    let Course { v6, sizes, hurry, mut blackout, features } = course;
    let mut random = SeededRandom::new(seed ^ 0xabcdef);
    let mut world = World::new(setup);
    world.engines[1].net.tcp_features = features;
    // Where acknowledgements are lost as well, round trips are measured from the first copy that came through, as on
    // Linux: timeouts grow to their bound of two minutes, and without SACK there is one for each few segments.
    let hours = if setup.impairment.loss > 150 && !features.sack { 6 } else { 1 };
    let limit = Duration::from_secs(hours * 3600);
    let Some((a, b)) = connect(&mut world, v6, options, limit) else {
        // All answers to a SYN may be lost, then the listener forgets it while the client believes.
        let all = world.engines.each_ref().map(|engine| (engine.tcp.list(), engine.net.stats));
        assert!(setup.impairment.loss > 50, "seed {seed}: no connection: {options:?} {course:?} {all:?}");
        return Time(0);
    };
    let handles = [a, b];
    let (mut sent, mut got, mut ended) = ([0usize; 2], [0usize; 2], [hurry, false]);
    let mut shut_down = [false; 2];
    let begun = world.now;
    let until = world.now + limit;
    loop {
        if let Some((after, length)) = blackout
            && world.now.since(begun) >= after
        {
            let still = world.now.since(begun) < after + length;
            let impairment =
                if still { Impairment { loss: 1000, ..setup.impairment } } else { setup.impairment };
            world.link.set_impairment(impairment);
            blackout = blackout.filter(|_| still);
        }
        for side in 0..2 {
            if !shut_down[side] {
                let want = (sizes[side] - sent[side]).min(1 + random.below(40_000) as usize);
                let data: Vec<u8> = (sent[side]..sent[side] + want).map(|n| byte(side, n)).collect();
                match send(&mut world, side, handles[side], &data) {
                    Ok(count) => sent[side] += count,
                    Err(Error::WouldBlock) => {}
                    Err(error) => panic!("seed {seed}: send {error:?}"),
                }
                if sent[side] == sizes[side] {
                    match hurry && side == 0 {
                        true => close(&mut world, side, handles[side]),
                        false => shut(&mut world, side, handles[side]),
                    }
                    shut_down[side] = true;
                }
            }
            // A lazy reader at times, so that windows close.
            if !ended[side] && random.below(4) != 0 {
                match receive(&mut world, side, handles[side], 1 + random.below(50_000) as usize) {
                    Ok(data) if data.is_empty() => ended[side] = true,
                    Ok(data) => {
                        for (n, &value) in data.iter().enumerate() {
                            assert_eq!(value, byte(1 - side, got[side] + n), "seed {seed}: wrong byte");
                        }
                        got[side] += data.len();
                    }
                    Err(Error::WouldBlock) => {}
                    Err(error) => panic!("seed {seed}: receive {error:?} after {got:?} of {sizes:?}"),
                }
            }
        }
        if ended[0] && ended[1] {
            break;
        }
        let readable =
            (0..2).any(|side| !ended[side] && world.engines[side].tcp.ready(handles[side]).has(Ready::READ));
        let pause = if readable || blackout.is_some() { world.now + MS } else { until };
        let stalled = !world.step(pause);
        let unsent = (0..2)
            .any(|side| !shut_down[side] && world.engines[side].tcp.ready(handles[side]).has(Ready::WRITE));
        assert!(
            !stalled || readable || unsent || blackout.is_some(),
            "seed {seed}: stuck with {got:?} of {sizes:?}, sent {sent:?}: {options:?} {course:?} {:?}",
            [0, 1].map(|side| (
                world.engines[side].tcp.info(handles[side], world.now),
                world.engines[side].tcp.list()
            ))
        );
        assert!(world.now < until, "seed {seed}: too slow with {got:?} of {sizes:?}, sent {sent:?}");
    }
    assert_eq!([got[1], got[0]], sizes, "seed {seed}");
    let took = world.now;
    world.link.set_impairment(setup.impairment);
    close(&mut world, 0, a);
    close(&mut world, 1, b);
    world.run(Duration::from_secs(400));
    for engine in &world.engines {
        assert_eq!(engine.tcp.counts(), (0, 0), "seed {seed}: {:?} is left", engine.tcp.list());
        assert_eq!(engine.net.timers.len(), 0, "seed {seed}: a timer is left");
        assert_eq!(engine.net.memory.used(), 0, "seed {seed}: memory is left");
    }
    took
}

fn random_setup(seed: u64) -> (Setup, ConnOptions, Course) {
    let mut random = SeededRandom::new(seed);
    let mtu = [576, 1280, 1500, 1500, 9000, 65_535][random.below(6) as usize];
    let offload = random.below(2) == 0;
    let harsh = random.below(3);
    let impairment = Impairment {
        loss: random.below([1, 50, 200][harsh as usize]),
        duplicate: random.below([1, 50, 100][harsh as usize]),
        reorder: random.below([1, 100, 300][harsh as usize]),
        corrupt: if offload { 0 } else { random.below([1, 10, 50][harsh as usize]) },
        delay: Duration::from_micros(random.below(20_000)),
        jitter: Duration::from_micros(random.below(5000)),
    };
    let capabilities = Capabilities {
        checksum: offload,
        segmentation: if offload && random.below(2) == 0 { 65_536 } else { 0 },
        udp_segmentation: false,
    };
    let medium = if random.below(4) == 0 { Medium::Ip } else { Medium::Ethernet };
    let options = ConnOptions {
        no_delay: random.below(2) == 0,
        congestion: if random.below(3) == 0 { Algorithm::Reno } else { Algorithm::Cubic },
        receive_buffer: (random.below(3) == 0).then(|| 2000 + random.below(60_000) as usize),
        send_buffer: (random.below(3) == 0).then(|| 2000 + random.below(60_000) as usize),
        syn_retries: 20,
        user_timeout: Some(Duration::from_secs(3000)),
        ..ConnOptions::default()
    };
    let sizes = [
        random.below(200_000) as usize,
        if random.below(2) == 0 { 0 } else { random.below(100_000) as usize },
    ];
    let v6 = random.below(2) == 0 && mtu >= 1280;
    let options = ConnOptions {
        cork: random.below(8) == 0,
        quick_ack: random.below(4) != 0,
        keep_alive: random.below(4) == 0,
        keep_idle: Duration::from_secs(1 + random.below(20)),
        max_segment: (random.below(8) == 0).then(|| 88 + random.below(1400) as u16),
        window_clamp: (random.below(8) == 0).then(|| 1152 + random.below(30_000) as usize),
        not_sent_low: (random.below(8) == 0).then(|| 1 + random.below(20_000) as usize),
        ..options
    };
    let features = TcpFeatures {
        timestamps: random.below(4) != 0,
        sack: random.below(4) != 0,
        scaling: random.below(4) != 0,
    };
    let course = Course {
        v6,
        sizes,
        hurry: sizes[1] == 0 && random.below(2) == 0,
        blackout: (random.below(8) == 0)
            .then(|| (MS * random.below(200) as u32, MS * random.below(10_000) as u32)),
        features,
    };
    (Setup { seed, mtu, medium, capabilities, impairment }, options, course)
}

/// Seeds to try: NETSTACK_SEEDS, or some hundred.
#[test]
fn all_bytes_come_through() {
    let seeds = std::env::var("NETSTACK_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let first = std::env::var("NETSTACK_FIRST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for seed in first..first + seeds {
        let (setup, options, course) = random_setup(seed);
        exchange(setup, options, course);
    }
}

#[test]
fn a_clean_link_is_used_fully() {
    let impairment = Impairment { delay: MS * 10, ..Impairment::default() };
    for segmentation in [0, 65_536] {
        let capabilities = Capabilities { checksum: true, segmentation, udp_segmentation: false };
        let setup = Setup { impairment, capabilities, ..Setup::default() };
        let took =
            exchange(setup, ConnOptions::default(), Course { sizes: [20 << 20, 0], ..Course::default() });
        assert!(took < Time::from_millis(2500), "{took:?}");
    }
}

#[test]
fn a_lossy_link_does_not_need_timeouts() {
    let impairment = Impairment { delay: MS * 10, loss: 10, ..Impairment::default() };
    let took = exchange(
        Setup { impairment, seed: 5, ..Setup::default() },
        ConnOptions::default(),
        Course { sizes: [4 << 20, 0], ..Course::default() },
    );
    assert!(took < Time::from_millis(6000), "{took:?}");
}

#[test]
fn refused_and_silent_peers() {
    let mut world = World::new(Setup::default());
    let engine = &mut world.engines[0];
    let client = engine
        .tcp
        .connect(&mut engine.net, at(ip4(0), 1), at(ip4(1), 81), ConnOptions::default(), None)
        .unwrap();
    world.run(MS * 10);
    assert_eq!(world.engines[0].tcp.take_error(client), Some(Error::ConnectionRefused));
    let engine = &mut world.engines[0];
    let nobody = at([10, 0, 0, 99].into(), 80);
    let client =
        engine.tcp.connect(&mut engine.net, at(ip4(0), 2), nobody, ConnOptions::default(), None).unwrap();
    world.run(Duration::from_secs(4));
    assert_eq!(world.engines[0].tcp.take_error(client), Some(Error::HostUnreachable));
}

#[test]
fn both_open_at_once() {
    let mut world = World::new(Setup::default());
    world.run(MS);
    let mut handles = Vec::new();
    for side in 0..2 {
        let engine = &mut world.engines[side];
        engine.set_now(world.now);
        let peer = at(ip4(1 - side), 7);
        handles.push(
            engine
                .tcp
                .connect(&mut engine.net, at(ip4(side), 7), peer, ConnOptions::default(), None)
                .unwrap(),
        );
    }
    world.run(MS * 300);
    for (engine, handle) in world.engines.iter().zip(&handles) {
        assert_eq!(engine.tcp.info(*handle, world.now).map(|i| i.state), Some(1));
    }
    send(&mut world, 0, handles[0], b"hello").unwrap();
    world.run(MS * 5);
    assert_eq!(receive(&mut world, 1, handles[1], 100).unwrap(), b"hello");
}

#[test]
fn unread_data_resets_and_abort_resets() {
    let mut world = World::new(Setup::default());
    let (a, b) = connect(&mut world, false, ConnOptions::default(), MS * 10).unwrap();
    send(&mut world, 0, a, b"unread").unwrap();
    world.run(MS);
    close(&mut world, 1, b);
    world.run(MS);
    assert_eq!(receive(&mut world, 0, a, 10), Err(Error::ConnectionReset));
    let mut world = World::new(Setup::default());
    let (a, b) = connect(&mut world, true, ConnOptions::default(), MS * 10).unwrap();
    let engine = &mut world.engines[0];
    engine.tcp.abort(&mut engine.net, a);
    close(&mut world, 0, a);
    world.run(MS);
    assert_eq!(receive(&mut world, 1, b, 10), Err(Error::ConnectionReset));
    close(&mut world, 1, b);
    assert_eq!((world.engines[0].tcp.counts(), world.engines[1].tcp.counts()), ((0, 0), (0, 0)));
}

#[test]
fn the_urgent_byte_is_apart() {
    let mut world = World::new(Setup::default());
    let (a, b) = connect(&mut world, false, ConnOptions::default(), MS * 10).unwrap();
    send(&mut world, 0, a, b"abc").unwrap();
    let engine = &mut world.engines[0];
    engine.tcp.send_urgent(&mut engine.net, a, b"!").unwrap();
    send(&mut world, 0, a, b"def").unwrap();
    world.run(MS * 50);
    assert!(world.engines[1].tcp.ready(b).has(Ready::URGENT));
    assert_eq!(world.engines[1].tcp.receive_urgent(b, false), Ok(b'!'));
    assert_eq!(world.engines[1].tcp.receive_urgent(b, false), Err(Error::Invalid));
    assert_eq!(receive(&mut world, 1, b, 100).unwrap(), b"abc");
    assert!(world.engines[1].tcp.queues(b).3, "at the mark");
    assert_eq!(receive(&mut world, 1, b, 100).unwrap(), b"def");
}

#[test]
fn a_dead_peer_is_noticed() {
    let mut world = World::new(Setup::default());
    let options = ConnOptions {
        keep_alive: true,
        keep_idle: Duration::from_secs(10),
        keep_interval: Duration::from_secs(1),
        keep_count: 3,
        ..ConnOptions::default()
    };
    let (a, _) = connect(&mut world, false, options, MS * 10).unwrap();
    world.run(Duration::from_secs(100));
    assert_eq!(world.engines[0].tcp.info(a, world.now).map(|i| i.state), Some(1), "answers keep it");
    world.link.set_impairment(Impairment { loss: 1000, ..Impairment::default() });
    world.run(Duration::from_secs(15));
    assert_eq!(receive(&mut world, 0, a, 1), Err(Error::TimedOut));
}

#[test]
fn idle_connections_have_no_timers() {
    let mut world = World::new(Setup::default());
    let (a, b) = connect(&mut world, false, ConnOptions::default(), MS * 10).unwrap();
    send(&mut world, 0, a, b"x").unwrap();
    world.run(Duration::from_secs(10));
    assert_eq!(receive(&mut world, 1, b, 9).unwrap(), b"x");
    world.run(Duration::from_secs(60));
    assert_eq!(world.engines.each_ref().map(|engine| engine.net.timers.len()), [0, 0]);
}

#[test]
fn a_closed_window_is_probed_and_opens() {
    let mut world = World::new(Setup::default());
    let options = ConnOptions { receive_buffer: Some(4096), ..ConnOptions::default() };
    let (a, b) = connect(&mut world, false, options, MS * 10).unwrap();
    assert_eq!(send(&mut world, 0, a, &[7; 20_000]).unwrap(), 20_000);
    world.run(Duration::from_secs(30));
    let mut total = 0;
    // The window update is lost: the probe has to find out.
    world.link.set_impairment(Impairment { loss: 1000, ..Impairment::default() });
    total += receive(&mut world, 1, b, 100_000).unwrap().len();
    world.run(MS * 10);
    world.link.set_impairment(Impairment::default());
    for _ in 0..100 {
        world.run(Duration::from_secs(2));
        if let Ok(data) = receive(&mut world, 1, b, 100_000) {
            total += data.len();
        }
    }
    assert_eq!(total, 20_000);
}

#[test]
fn a_flood_of_syns_leaves_room() {
    let mut world = World::new(Setup::default());
    let listener = world.engines[1].tcp.listen(at(ip4(1), 80), false, 8, ConnOptions::default(), None);
    let nobody = |n: u16| at([10, 0, 0, 200].into(), n);
    // The flood's sources do not answer: engine 0 takes no part, frames come from nowhere.
    let mut made = 0;
    for n in 1..500 {
        let engine = &mut world.engines[0];
        engine.net.interface_mut(2).unwrap().addresses[0].prefix.address = nobody(n).ip();
        let _ = engine.tcp.connect(&mut engine.net, nobody(n), at(ip4(1), 80), ConnOptions::default(), None);
        made += 1;
    }
    world.engines[0].tcp = super::super::tcp::Tcp::new(&mut world.engines[0].net);
    world.engines[0].net.interface_mut(2).unwrap().addresses[0].prefix.address = ip4(0);
    world.engines[0].net.changed();
    assert!(made > 100);
    world.run(MS * 5);
    let engine = &mut world.engines[0];
    let client = engine
        .tcp
        .connect(&mut engine.net, at(ip4(0), 4000), at(ip4(1), 80), ConnOptions::default(), None)
        .unwrap();
    world.run(MS * 20);
    send(&mut world, 0, client, b"through").unwrap();
    world.run(MS * 20);
    let accepted = world.engines[1].tcp.accept(listener).unwrap();
    assert_eq!(receive(&mut world, 1, accepted.connection, 20).unwrap(), b"through");
    assert!(world.engines[1].net.stats.cookies_ok == 1, "{:?}", world.engines[1].net.stats);
    let info = world.engines[1].tcp.info(accepted.connection, world.now).unwrap();
    assert!(info.sack && info.window_scaling && info.timestamps);
}

/// A window that is never larger than a segment must open all the same.
#[test]
fn a_clamped_window_under_the_segment_size_opens() {
    let setup = Setup { mtu: 65_535, ..Setup::default() };
    for scaling in [true, false] {
        let features = TcpFeatures { scaling, ..TcpFeatures::default() };
        let options = ConnOptions { window_clamp: Some(20_000), ..ConnOptions::default() };
        exchange(setup, options, Course { sizes: [300_000, 300_000], features, ..Course::default() });
    }
}

/// Without selective acknowledgements a hole that is filled late must not look like a long round trip.
#[test]
fn losses_do_not_spoil_the_round_trip_time() {
    let (setup, options, course) = random_setup(815);
    assert!(exchange(setup, options, course) < Time::from_millis(600_000));
}

/// A reader that comes often takes little in the time of the handshake's round trip; the window has to grow all the same.
#[test]
fn the_window_grows_for_a_reader_that_comes_often() {
    let impairment = Impairment { delay: Duration::from_micros(5), ..Impairment::default() };
    let capabilities = Capabilities { checksum: true, segmentation: 65_536, udp_segmentation: false };
    let mut world = World::new(Setup { impairment, capabilities, ..Setup::default() });
    let (a, b) = connect(&mut world, false, ConnOptions::default(), MS * 10).unwrap();
    for _ in 0..1000 {
        while send(&mut world, 0, a, &[7; 65_536]).is_ok() {}
        world.run(Duration::from_micros(40));
        let _ = receive(&mut world, 1, b, 65_536);
    }
    let space = world.engines[1].tcp.info(b, world.now).unwrap().rcv_space;
    assert!(space > 1 << 20, "{space}");
}
