//! Options of connections that tune them: what is on the wire because of TCP_MAXSEG, TCP_WINDOW_CLAMP, TCP_LINGER2, TCP_SYNCNT,
//! TCP_QUICKACK, TCP_NOTSENT_LOWAT, SO_MAX_PACING_RATE, bounds of timeouts, and what is kept because of TCP_SAVE_SYN.

use std::sync::Arc;
use std::time::Duration;

use super::super::error::Error;
use super::super::events::{Observer, Ready};
use super::super::pair::Impairment;
use super::super::slab::Handle;
use super::super::tap::{FrameKind, TapFilter};
use super::super::tcp::{ConnOptions, State};
use super::onwire::{Watch, close, send};
use super::streams::connect;
use super::{Setup, World, at, inbox, ip4};

const MS: Duration = Duration::from_millis(1);
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn read(world: &mut World, side: usize, handle: Handle) -> usize {
    let engine = &mut world.engines[side];
    engine.set_now(world.now);
    engine
        .tcp
        .receive(&mut engine.net, handle, 1 << 20)
        .map_or(0, |chunks| chunks.iter().map(|c| c.len()).sum())
}

fn set(world: &mut World, side: usize, handle: Handle, change: impl FnOnce(&mut ConnOptions)) {
    let engine = &mut world.engines[side];
    engine.set_now(world.now);
    engine.tcp.set_options(&mut engine.net, handle, change).unwrap();
}

#[test]
fn the_segment_size_is_settled_by_the_syns() {
    let mut world = World::new(Setup::default());
    let watches = [Watch::on(&mut world, 0), Watch::on(&mut world, 1)];
    let options = ConnOptions { max_segment: Some(1000), no_delay: true, ..ConnOptions::default() };
    let (a, b) = connect(&mut world, false, options, MS * 10).unwrap();
    world.run(MS * 50);
    let mss = watches.each_ref().map(|w| w.sent().iter().find(|s| s.flags & SYN != 0).unwrap().mss);
    assert_eq!(mss, [1000, 1000]);
    // Later it changes nothing, in neither direction.
    for (side, handle) in [(0, a), (1, b)] {
        set(&mut world, side, handle, |options| options.max_segment = Some(500));
        send(&mut world, side, handle, &[1; 5000]);
        world.run(MS * 50);
        let largest = watches[side].sent().iter().map(|s| s.length).max();
        assert_eq!(largest, Some(988));
        let info = world.engines[side].tcp.info(handle, world.now).unwrap();
        assert_eq!((info.snd_mss, info.advertised_mss), (988, 988));
    }
}

#[test]
fn a_clamp_bounds_the_window_from_the_syn_on() {
    let mut world = World::new(Setup::default());
    let watches = [Watch::on(&mut world, 0), Watch::on(&mut world, 1)];
    let options = ConnOptions { window_clamp: Some(5000), ..ConnOptions::default() };
    let (a, b) = connect(&mut world, false, options, MS * 10).unwrap();
    send(&mut world, 0, a, &[1; 30_000]);
    world.run(MS * 900);
    for watch in &watches {
        let sent = watch.sent();
        assert_eq!(sent.iter().find(|s| s.flags & SYN != 0).map(|s| s.window), Some(5000));
    }
    // It is about what is announced, not about what waits.
    assert_eq!(read(&mut world, 1, b), 30_000);
    let mut end = None;
    for _ in 0..20 {
        send(&mut world, 0, a, &[1; 20_000]);
        world.run(MS * 50);
        read(&mut world, 1, b);
        for s in watches[1].sent() {
            assert!(usize::from(s.window) << 7 <= 5120, "{s:?}");
            end = Some(s.ack + (u32::from(s.window) << 7));
        }
        assert!(watches[0].sent().iter().all(|s| end.is_none_or(|end| s.seq < end)));
    }
}

/// Engine 0 closes; the peer does not.
fn half_closed(options: ConnOptions) -> (World, Handle, Watch) {
    let mut world = World::new(Setup::default());
    let (a, b) = connect(&mut world, false, options, MS * 10).unwrap();
    world.run(MS * 50);
    let watch = Watch::on(&mut world, 0);
    close(&mut world, 0, a);
    world.run(MS * 100);
    (world, b, watch)
}

#[test]
fn a_peer_that_does_not_close_is_not_waited_for_for_ever() {
    let options = ConnOptions { fin_timeout: Some(Duration::from_secs(2)), ..ConnOptions::default() };
    let (mut world, b, watch) = half_closed(options);
    assert_eq!((watch.sent().len(), world.engines[0].tcp.counts()), (1, (1, 0)));
    world.run(MS * 1700);
    assert_eq!(world.engines[0].tcp.counts(), (1, 0));
    world.run(MS * 400);
    // Nothing rests: the peer's end will be answered with a reset.
    assert_eq!((watch.sent(), world.engines[0].tcp.counts()), (vec![], (0, 0)));
    close(&mut world, 1, b);
    world.run(MS * 10);
    assert!(matches!(&watch.sent()[..], [one] if one.flags == RST));
}

#[test]
fn nobody_waits_when_the_time_is_negative() {
    let options = ConnOptions { fin_timeout: None, ..ConnOptions::default() };
    let (mut world, b, watch) = half_closed(options);
    let sent = watch.sent();
    assert!(matches!(&sent[..], [fin, reset] if fin.flags & FIN != 0 && reset.flags == RST), "{sent:?}");
    assert_eq!(world.engines[0].tcp.counts(), (0, 0));
    assert_eq!(world.engines[1].tcp.take_error(b), Some(Error::BrokenPipe));
    // Also when its own end was acknowledged before.
    let mut world = World::new(Setup::default());
    let (a, b) = connect(&mut world, false, options, MS * 10).unwrap();
    let engine = &mut world.engines[0];
    engine.tcp.shutdown_write(&mut engine.net, a).unwrap();
    world.run(MS * 100);
    assert_eq!(world.engines[0].tcp.state(a), Some(State::FinWait2));
    close(&mut world, 0, a);
    world.run(MS * 10);
    assert_eq!(world.engines[1].tcp.take_error(b), Some(Error::BrokenPipe));
    // Who closes last has nobody to wait for.
    let mut world = World::new(Setup::default());
    let (a, b) = connect(&mut world, false, options, MS * 10).unwrap();
    close(&mut world, 1, b);
    world.run(MS * 100);
    let watch = Watch::on(&mut world, 0);
    close(&mut world, 0, a);
    world.run(MS * 100);
    assert!(watch.sent().iter().all(|s| s.flags & RST == 0));
}

#[test]
fn syns_are_repeated_as_often_as_is_asked() {
    for (retries, seconds) in [(1, 3), (2, 7), (4, 31)] {
        let mut world = World::new(Setup::default());
        let options = ConnOptions::default();
        connect(&mut world, false, options, MS * 10).unwrap();
        world.link.set_impairment(Impairment { loss: 1000, ..Impairment::default() });
        let watch = Watch::on(&mut world, 0);
        let begun = world.now;
        let engine = &mut world.engines[0];
        engine.set_now(begun);
        let options = ConnOptions { syn_retries: retries, ..options };
        let a = engine.tcp.connect(&mut engine.net, at(ip4(0), 99), at(ip4(1), 80), options, None).unwrap();
        while world.engines[0].tcp.state(a) == Some(State::SynSent) {
            world.run(MS * 10);
        }
        assert_eq!(world.engines[0].tcp.take_error(a), Some(Error::TimedOut));
        assert_eq!(world.now.since(begun).as_secs(), seconds);
        let syns = watch.sent().iter().filter(|s| s.flags == SYN).count();
        assert_eq!(syns, 1 + retries as usize);
    }
}

#[test]
fn who_answers_acknowledges_with_the_answer() {
    let mut world = World::new(Setup::default());
    let options = ConnOptions { no_delay: true, ..ConnOptions::default() };
    let (a, b) = connect(&mut world, false, options, MS * 10).unwrap();
    world.run(MS * 100);
    let watch = Watch::on(&mut world, 1);
    let quick = |world: &World| world.engines[1].tcp.is_quick(b).unwrap();
    assert!(quick(&world));
    // The first question is acknowledged at once, and answered.
    send(&mut world, 0, a, b"question");
    world.run(MS);
    assert_eq!(watch.sent().len(), 1);
    read(&mut world, 1, b);
    send(&mut world, 1, b, b"answer");
    world.run(MS * 100);
    assert!(!quick(&world), "a dialogue");
    watch.sent();
    for _ in 0..5 {
        send(&mut world, 0, a, b"question");
        world.run(MS);
        read(&mut world, 1, b);
        send(&mut world, 1, b, b"answer");
        world.run(MS);
    }
    let sent = watch.sent();
    assert!(sent.len() == 5 && sent.iter().all(|s| s.length == 6), "{sent:?}");
    // TCP_QUICKACK: at once, what waits too, when it was read.
    send(&mut world, 0, a, b"question");
    world.run(MS);
    assert_eq!(watch.sent(), []);
    read(&mut world, 1, b);
    let engine = &mut world.engines[1];
    engine.set_now(world.now);
    engine.tcp.set_quick(&mut engine.net, b, true);
    world.run(MS);
    assert!(matches!(&watch.sent()[..], [one] if one.flags == ACK && one.length == 0));
    assert!(quick(&world));
}

struct Told(std::sync::Mutex<u32>);

impl Observer for Told {
    fn changed(&self, ready: Ready) {
        *self.0.lock().unwrap() += u32::from(ready.has(Ready::WRITE));
    }
}

#[test]
fn little_is_queued_that_is_not_sent() {
    let mut world = World::new(Setup::default());
    let (a, b) = connect(&mut world, false, ConnOptions::default(), MS * 10).unwrap();
    let told = Arc::new(Told(Default::default()));
    let engine = &mut world.engines[0];
    engine.tcp.observe(&mut engine.net, a, Some(told.clone()));
    set(&mut world, 0, a, |options| options.not_sent_low = Some(4000));
    set(&mut world, 1, b, |options| options.receive_buffer = Some(20_000));
    world.run(MS * 10);
    *told.0.lock().unwrap() = 0;
    for _ in 0..100 {
        let engine = &mut world.engines[0];
        engine.set_now(world.now);
        while engine.tcp.send(&mut engine.net, a, &[1; 1000]).is_ok() {}
        world.run(MS * 5);
    }
    let unsent = |world: &World| world.engines[0].tcp.queues(a).2;
    assert!((4000..5000).contains(&unsent(&world)), "{}", unsent(&world));
    assert!(!world.engines[0].tcp.ready(a).has(Ready::WRITE));
    let writes = *told.0.lock().unwrap();
    // Half of it has to go before a writer is told.
    while unsent(&world) > 0 {
        let before = unsent(&world);
        read(&mut world, 1, b);
        world.run(MS * 50);
        let now = unsent(&world);
        let told = *told.0.lock().unwrap() > writes;
        assert_eq!(told, now < 2000, "{before} {now}");
        assert_eq!(world.engines[0].tcp.ready(a).has(Ready::WRITE), now < 2000);
    }
}

#[test]
fn a_pace_is_kept() {
    for rate in [100_000, 1_000_000, 20_000_000] {
        let mut world = World::new(Setup::default());
        let options = ConnOptions { pacing: Some(rate), ..ConnOptions::default() };
        let (a, b) = connect(&mut world, false, options, MS * 10).unwrap();
        world.run(MS * 10);
        let mut got = 0;
        let begun = world.now;
        while world.now.since(begun) < MS * 1000 {
            let engine = &mut world.engines[0];
            engine.set_now(world.now);
            let _ = engine.tcp.send(&mut engine.net, a, &[1; 100_000]);
            world.run(MS);
            got += read(&mut world, 1, b);
        }
        // The first ten segments go at once.
        let rate = usize::try_from(rate).unwrap();
        assert!((rate * 98 / 100..rate * 102 / 100 + 20_000).contains(&got), "{got} at {rate}");
        let info = world.engines[0].tcp.info(a, world.now).unwrap();
        assert_eq!((info.pacing_rate, info.most_pacing), (rate as u64, rate as u64));
        // Without it, it is as fast as ever.
        set(&mut world, 0, a, |options| options.pacing = None);
        world.run(MS * 200);
        assert!(read(&mut world, 1, b) > 0);
        let engine = &mut world.engines[0];
        engine.set_now(world.now);
        let sent = engine.tcp.send(&mut engine.net, a, &[1; 100_000]).unwrap();
        world.run(MS * 100);
        assert!(read(&mut world, 1, b) >= sent);
    }
}

#[test]
fn a_listener_keeps_the_syn() {
    for (mode, v6) in [(1, false), (2, false), (1, true), (0, false)] {
        let mut world = World::new(Setup::default());
        let options = ConnOptions { save_syn: mode, ..ConnOptions::default() };
        let seen = inbox();
        world.engines[1].net.taps.add(TapFilter::default(), seen.clone());
        let (_, b) = connect(&mut world, v6, options, MS * 20).unwrap();
        let frames = seen.frames.lock().unwrap();
        let tcp = |frame: &[u8]| if v6 { frame[20] == 6 } else { frame[12..14] == [8, 0] && frame[23] == 6 };
        let syn = frames.iter().find(|f| f.kind == FrameKind::Host && tcp(&f.data)).unwrap();
        let tcp = &mut world.engines[1].tcp;
        if mode > 0 {
            assert_eq!(tcp.saved_syn(b, 50), Err(Error::Invalid));
        }
        let kept = tcp.saved_syn(b, 200).unwrap();
        assert_eq!(
            kept,
            syn.data[if mode == 1 { 14 } else { 0 }..if mode == 0 { 0 } else { syn.data.len() }]
        );
        assert_eq!(tcp.saved_syn(b, 200).unwrap(), [], "it is told once");
    }
}

/// When a segment that is lost is sent again, in milliseconds since it was sent.
fn repetitions(options: ConnOptions) -> Vec<u128> {
    let mut world = World::new(Setup::default());
    world.engines[0].net.tcp_features.sack = false;
    let (a, _) = connect(&mut world, false, options, MS * 10).unwrap();
    world.run(MS * 100);
    let watch = Watch::on(&mut world, 0);
    world.link.set_impairment(Impairment { loss: 1000, ..Setup::default().impairment });
    let begun = world.now;
    send(&mut world, 0, a, b"lost");
    world.run(MS * 3000);
    watch.sent().iter().map(|s| s.at.since(begun).as_millis()).collect()
}

#[test]
fn timeouts_have_the_bounds_that_are_asked_for() {
    let plain = ConnOptions::default();
    let about = |got: &[u128], want: &[u128]| {
        assert_eq!(got.len(), want.len(), "{got:?}");
        assert!(got.iter().zip(want).all(|(got, want)| got.abs_diff(*want) <= 20), "{got:?}");
    };
    about(&repetitions(plain), &[0, 200, 600, 1400]);
    let bounds = (MS * 48, MS * 1000);
    about(&repetitions(ConnOptions { rto_bounds: bounds, ..plain }), &[0, 48, 144, 336, 720, 1488, 2488]);
    // A thin stream may ask for steady ones, for a while.
    let thin = ConnOptions { thin_linear: true, ..plain };
    about(&repetitions(thin), &[0, 200, 400, 600, 800, 1000, 1200, 1400, 1800, 2600]);
}

#[test]
fn an_acknowledgement_waits_as_long_as_it_may() {
    for (most, waits) in [(MS * 8, 8), (MS * 200, 40)] {
        let mut world = World::new(Setup::default());
        let options = ConnOptions { ack_most: most, quick_ack: false, ..ConnOptions::default() };
        let (a, _) = connect(&mut world, false, options, MS * 10).unwrap();
        world.run(MS * 100);
        let watch = Watch::on(&mut world, 1);
        let begun = world.now;
        send(&mut world, 0, a, b"word");
        world.run(MS * 100);
        let sent = watch.sent();
        assert!(matches!(&sent[..], [one] if one.at.since(begun).as_millis() == waits), "{sent:?}");
    }
}

/// Ends of a connection with 20 ms there and back.
fn far_apart(options: ConnOptions) -> (World, Handle, Handle) {
    let impairment = Impairment { delay: MS * 10, ..Impairment::default() };
    let mut world = World::new(Setup { impairment, ..Setup::default() });
    let (a, b) = connect(&mut world, false, options, MS * 100).unwrap();
    world.run(MS * 100);
    (world, a, b)
}

#[test]
fn the_rate_of_delivery_is_measured() {
    let (mut world, a, _) = far_apart(ConnOptions { pacing: Some(1_000_000), ..ConnOptions::default() });
    let info = |world: &World| world.engines[0].tcp.info(a, world.now).unwrap();
    assert_eq!(info(&world).delivery_rate, 0);
    send(&mut world, 0, a, &[1; 100_000]);
    world.run(MS * 200);
    let seen = info(&world);
    assert!((900_000..1_100_000).contains(&seen.delivery_rate), "{}", seen.delivery_rate);
    // Who gives little is not a slow path.
    for _ in 0..10 {
        send(&mut world, 0, a, &[1; 1000]);
        world.run(MS * 100);
    }
    assert_eq!(info(&world).delivery_rate, seen.delivery_rate);
    // 100,000 bytes a second and the way, then 10 times there and back and whatever their acknowledgements waited.
    assert!((300..1200).contains(&info(&world).busy.as_millis()), "{:?}", info(&world).busy);
    assert_eq!((info(&world).window_limited, info(&world).buffer_limited), Default::default());
}

#[test]
fn what_holds_data_back_is_told() {
    // The peer does not read.
    let (mut world, a, b) = far_apart(ConnOptions { receive_buffer: Some(20_000), ..ConnOptions::default() });
    let info = |world: &World| world.engines[0].tcp.info(a, world.now).unwrap();
    send(&mut world, 0, a, &[1; 60_000]);
    world.run(MS * 1000);
    let seen = info(&world);
    assert!(seen.window_limited > MS * 850 && seen.busy >= seen.window_limited, "{seen:?}");
    while read(&mut world, 1, b) > 0 {
        world.run(MS * 300);
    }
    let idle = info(&world).busy;
    world.run(MS * 1000);
    assert_eq!(info(&world).busy, idle);
    // A user who would give more than the buffer takes.
    let (mut world, a, b) = far_apart(ConnOptions { send_buffer: Some(4000), ..ConnOptions::default() });
    let until = world.now + MS * 1000;
    while world.now < until {
        let now = world.now;
        let engine = &mut world.engines[0];
        engine.set_now(now);
        let _ = engine.tcp.send(&mut engine.net, a, &[1; 8000]);
        world.run(MS);
        read(&mut world, 1, b);
    }
    let seen = world.engines[0].tcp.info(a, world.now).unwrap();
    assert!(seen.buffer_limited > MS * 500 && seen.window_limited.is_zero(), "{seen:?}");
}
