//! What is on the wire in moments that data alone does not show: challenges to blind attackers (RFC 5961), TIME-WAIT,
//! TCP_USER_TIMEOUT, Nagle's rule, TCP_CORK and acknowledgements that wait.

use std::sync::Arc;
use std::time::Duration;

use super::super::checksum::Sum;
use super::super::error::Error;
use super::super::frame::{RxChecksum, RxFrame};
use super::super::link::Mac;
use super::super::neighbour::{Change, NeighbourState};
use super::super::net::TcpFeatures;
use super::super::pair::Impairment;
use super::super::slab::Handle;
use super::super::tap::{FrameKind, TapFilter};
use super::super::tcp::{ConnOptions, State};
use super::super::time::Time;
use super::streams::connect;
use super::{Inbox, Setup, World, at, inbox, ip4};

const MS: Duration = Duration::from_millis(1);
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A TCP segment of IPv4 as it was seen, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub at: Time,
    ports: (u16, u16),
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub length: usize,
    /// Of a SYN: the segment size that it announces.
    pub mss: u16,
}

/// What one engine sends.
pub struct Watch(Arc<Inbox>);

impl Watch {
    pub fn on(world: &mut World, side: usize) -> Watch {
        let inbox = inbox();
        world.engines[side].net.taps.add(TapFilter::default(), inbox.clone());
        Watch(inbox)
    }

    /// The segments since the last call.
    pub fn sent(&self) -> Vec<Seen> {
        let frames = std::mem::take(&mut *self.0.frames.lock().unwrap());
        let outgoing = frames.iter().filter(|frame| frame.kind == FrameKind::Outgoing);
        outgoing.filter_map(|frame| read(&frame.data, frame.arrived)).collect()
    }
}

fn read(frame: &[u8], at: Time) -> Option<Seen> {
    if frame.get(12..14)? != [8, 0] || frame.get(23) != Some(&6) {
        return None;
    }
    let tcp = &frame[34..];
    let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    let half = |at: usize| u16::from_be_bytes(tcp[at..at + 2].try_into().unwrap());
    let length = tcp.len() - usize::from(tcp[12] >> 4) * 4;
    Some(Seen {
        at,
        ports: (half(0), half(2)),
        seq: word(4),
        ack: word(8),
        flags: tcp[13] & 0x3f,
        window: half(14),
        length,
        // The first option, always.
        mss: if tcp[13] & SYN != 0 { half(22) } else { 0 },
    })
}

/// A segment for engine 1 that somebody sends in the name of engine 0.
fn segment(world: &World, seq: u32, ack: u32, flags: u8, data: &[u8]) -> RxFrame {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet[2..4].copy_from_slice(&(40 + data.len() as u16).to_be_bytes());
    let mut sum = Sum::default();
    sum.add(&packet);
    packet[10..12].copy_from_slice(&sum.finish().to_be_bytes());
    packet.extend(4000u16.to_be_bytes());
    packet.extend(80u16.to_be_bytes());
    packet.extend(seq.to_be_bytes());
    packet.extend(ack.to_be_bytes());
    packet.extend([0x50, flags, 0x40, 0, 0, 0, 0, 0]);
    packet.extend(data);
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame[..6].copy_from_slice(world.engines[1].net.interface(2).unwrap().mac.as_bytes());
    frame.extend(packet);
    RxFrame { data: frame.into(), checksum: RxChecksum::Valid, segment: None }
}

/// Engine 1 gets such a segment.
fn forged(world: &mut World, seq: u32, ack: u32, flags: u8, data: &[u8]) {
    let (now, frame) = (world.now, segment(world, seq, ack, flags, data));
    world.engines[1].receive(now, 2, [frame]);
    world.run(MS);
}

/// A connection on which each side has said something, without timestamps; the numbers that engine 1 is at.
fn talked() -> (World, Handle, Handle, Watch, Seen) {
    let mut world = World::new(Setup::default());
    world.engines[0].net.tcp_features = TcpFeatures { timestamps: false, ..TcpFeatures::default() };
    let (a, b) = connect(&mut world, false, ConnOptions::default(), MS * 10).unwrap();
    let watch = Watch::on(&mut world, 1);
    send(&mut world, 0, a, b"hello");
    world.run(MS * 100);
    let last = watch.sent().pop().expect("an acknowledgement");
    // Nonsense on its way here is not counted with the next.
    world.run(MS * 1000);
    (world, a, b, watch, last)
}

pub fn send(world: &mut World, side: usize, handle: Handle, bytes: &[u8]) {
    let now = world.now;
    let engine = &mut world.engines[side];
    engine.set_now(now);
    assert_eq!(engine.tcp.send(&mut engine.net, handle, bytes), Ok(bytes.len()));
}

pub fn close(world: &mut World, side: usize, handle: Handle) {
    let engine = &mut world.engines[side];
    engine.tcp.close(&mut engine.net, handle);
}

/// The one answer to something odd: an acknowledgement of what there is.
fn is_challenge(sent: &[Seen], last: &Seen) -> bool {
    matches!(sent, [one] if (one.seq, one.ack, one.flags, one.length) == (last.seq, last.ack, ACK, 0))
}

#[test]
fn a_reset_must_hit_the_very_number() {
    let (mut world, _, b, watch, last) = talked();
    // In the window, but not next (RFC 5961, 3.2).
    forged(&mut world, last.ack + 1, 0, RST, b"");
    let sent = watch.sent();
    assert!(is_challenge(&sent, &last), "{sent:?}");
    // Only so many answers.
    for n in 2..20 {
        forged(&mut world, last.ack + n, 0, RST, b"");
    }
    assert_eq!(watch.sent(), []);
    world.run(MS * 500);
    forged(&mut world, last.ack + 9, 0, RST, b"");
    assert!(is_challenge(&watch.sent(), &last));
    // Out of the window: not even an answer.
    world.run(MS * 1000);
    forged(&mut world, last.ack.wrapping_sub(5000), 0, RST, b"");
    forged(&mut world, last.ack + 10_000_000, 0, RST, b"");
    assert_eq!(watch.sent(), []);
    assert_eq!(world.engines[1].tcp.state(b), Some(State::Established));
    forged(&mut world, last.ack, 0, RST, b"");
    assert_eq!(watch.sent(), []);
    assert_eq!(world.engines[1].tcp.take_error(b), Some(Error::ConnectionReset));
}

#[test]
fn a_syn_in_a_connection_is_challenged() {
    let (mut world, a, b, watch, last) = talked();
    for seq in [last.ack, last.ack + 100, last.ack.wrapping_sub(7000)] {
        forged(&mut world, seq, 0, SYN, b"");
        let sent = watch.sent();
        assert!(is_challenge(&sent, &last), "{sent:?}");
        world.run(MS * 1000);
    }
    // The connection is what it was.
    send(&mut world, 0, a, b"again");
    world.run(MS * 100);
    assert_eq!(world.engines[1].tcp.queues(b).0, 10);
}

#[test]
fn blind_data_needs_an_acknowledgement_that_could_be() {
    let (mut world, _, b, watch, last) = talked();
    // Nobody has sent what this acknowledges, or it is older than any window (RFC 5961, 5.2).
    for ack in [last.seq + 1, last.seq.wrapping_sub(10_000_000)] {
        forged(&mut world, last.ack, ack, ACK, b"evil");
        let sent = watch.sent();
        assert!(is_challenge(&sent, &last), "{sent:?}");
        world.run(MS * 1000);
    }
    assert_eq!(world.engines[1].tcp.queues(b).0, 5, "none of it was taken");
    forged(&mut world, last.ack, last.seq, ACK, b"good");
    assert_eq!(world.engines[1].tcp.queues(b).0, 9);
}

#[test]
fn the_user_timeout_ends_a_connection_in_time() {
    let limit = Duration::from_secs(10);
    let mut world = World::new(Setup::default());
    let options = ConnOptions { user_timeout: Some(limit), ..ConnOptions::default() };
    let (a, _) = connect(&mut world, false, options, MS * 10).unwrap();
    world.run(MS * 100);
    let watch = Watch::on(&mut world, 0);
    world.link.set_impairment(Impairment { loss: 1000, ..Setup::default().impairment });
    send(&mut world, 0, a, b"lost");
    // From the first time it was sent again, as Linux counts (tcp_clamp_rto_to_user_timeout).
    world.run(MS * 500);
    let first = watch.sent()[1].at;
    world.run(limit - MS * 600);
    assert_eq!(world.engines[0].tcp.state(a), Some(State::Established));
    let begun = world.now;
    while world.engines[0].tcp.state(a) == Some(State::Established) {
        assert!(world.now.since(begun) < limit, "it does not end");
        world.run(MS * 10);
    }
    assert_eq!(world.engines[0].tcp.take_error(a), Some(Error::TimedOut));
    let took = world.now.since(first);
    assert!(took >= limit && took < limit + MS * 300, "{took:?} after the first repetition");
}

#[test]
fn the_end_of_a_user_timeout_that_is_answered() {
    let mut world = World::new(Setup::default());
    let options = ConnOptions { user_timeout: Some(Duration::from_secs(3)), ..ConnOptions::default() };
    let (a, b) = connect(&mut world, false, options, MS * 10).unwrap();
    // Silence without anything to say is no matter; nor is a peer that comes back in time, again and again.
    world.run(Duration::from_secs(60));
    for round in 1..5 {
        world.link.set_impairment(Impairment { loss: 1000, ..Setup::default().impairment });
        send(&mut world, 0, a, b"word");
        world.run(MS * 2000);
        world.link.set_impairment(Setup::default().impairment);
        world.run(MS * 3000);
        assert_eq!(world.engines[1].tcp.queues(b).0, 4 * round);
    }
}

/// A connection over a link of 20 ms, where engine 1 acknowledges at once.
fn slow(options: ConnOptions) -> (World, Handle, Handle) {
    let impairment = Impairment { delay: MS * 20, ..Impairment::default() };
    let mut world = World::new(Setup { impairment, ..Setup::default() });
    let (a, b) = connect(&mut world, false, options, MS * 500).unwrap();
    world.run(MS * 100);
    (world, a, b)
}

#[test]
fn nagle_holds_back_one_small_segment_at_a_time() {
    let (mut world, a, _) = slow(ConnOptions::default());
    let watch = Watch::on(&mut world, 0);
    for word in [b"one", b"two", b"six"] {
        send(&mut world, 0, a, word);
    }
    world.run(MS * 15);
    let lengths = |watch: &Watch| -> Vec<usize> {
        watch.sent().iter().map(|seen| seen.length).filter(|length| *length > 0).collect()
    };
    assert_eq!(lengths(&watch), [3], "the first goes");
    world.run(MS * 30);
    assert_eq!(lengths(&watch), [6], "its acknowledgement lets the others go, as one");
    world.run(MS * 100);
    // A whole segment does not wait, what is behind it does not either unless something small is on its way.
    send(&mut world, 0, a, &[7; 1448 + 10]);
    send(&mut world, 0, a, b"x");
    world.run(MS * 15);
    assert_eq!(lengths(&watch), [1448, 10]);
    world.run(MS * 200);
    watch.sent();
    let engine = &mut world.engines[0];
    engine.tcp.set_options(&mut engine.net, a, |options| options.no_delay = true).unwrap();
    for word in [b"one", b"two"] {
        send(&mut world, 0, a, word);
    }
    world.run(MS);
    assert_eq!(lengths(&watch), [3, 3], "without the rule");
}

#[test]
fn a_cork_keeps_small_segments_for_a_while() {
    let (mut world, a, _) = slow(ConnOptions { cork: true, ..ConnOptions::default() });
    let watch = Watch::on(&mut world, 0);
    let begun = world.now;
    send(&mut world, 0, a, &[1; 1448 + 100]);
    send(&mut world, 0, a, &[2; 100]);
    world.run(MS * 190);
    let data =
        |watch: &Watch| -> Vec<Seen> { watch.sent().into_iter().filter(|seen| seen.length > 0).collect() };
    let sent = data(&watch);
    assert_eq!(sent.iter().map(|seen| seen.length).collect::<Vec<_>>(), [1448], "only what is whole");
    world.run(MS * 100);
    let sent = data(&watch);
    assert_eq!(sent.iter().map(|seen| seen.length).collect::<Vec<_>>(), [200], "the rest after 200 ms");
    assert!(sent[0].at.since(begun) >= MS * 200, "{:?}", sent[0].at.since(begun));
    send(&mut world, 0, a, b"more");
    world.run(MS * 50);
    assert_eq!(data(&watch), []);
    let engine = &mut world.engines[0];
    engine.tcp.set_options(&mut engine.net, a, |options| options.cork = false).unwrap();
    world.run(MS);
    assert_eq!(data(&watch).len(), 1, "pulled");
}

#[test]
fn acknowledgements_wait_for_a_second_segment_or_40_ms() {
    let mut world = World::new(Setup::default());
    let options = ConnOptions { quick_ack: false, no_delay: true, ..ConnOptions::default() };
    let (a, b) = connect(&mut world, false, options, MS * 10).unwrap();
    world.run(MS * 100);
    send(&mut world, 0, a, &[1; 1448]);
    world.run(MS * 100);
    // An acknowledgement that waited in vain has ended the dialogue.
    let dialogue = |world: &mut World| {
        let engine = &mut world.engines[1];
        assert_eq!(engine.tcp.is_quick(b), Some(true));
        engine.tcp.set_quick(&mut engine.net, b, false);
    };
    dialogue(&mut world);
    let watch = Watch::on(&mut world, 1);
    let begun = world.now;
    send(&mut world, 0, a, b"small");
    world.run(MS * 39);
    assert_eq!(watch.sent(), [], "it waits");
    world.run(MS * 10);
    let sent = watch.sent();
    assert_eq!(sent.len(), 1);
    assert!((40..45).contains(&sent[0].at.since(begun).as_millis()), "{sent:?}");
    // Two whole segments: at once.
    dialogue(&mut world);
    send(&mut world, 0, a, &[1; 2 * 1448]);
    world.run(MS * 5);
    assert_eq!(watch.sent().len(), 1);
    // With data that goes the other way: a dialogue goes on.
    send(&mut world, 0, a, b"question");
    world.run(MS * 5);
    send(&mut world, 1, b, b"answer");
    world.run(MS * 60);
    let sent = watch.sent();
    assert!(matches!(&sent[..], [one] if one.length == 6), "{sent:?}");
    assert_eq!(world.engines[1].tcp.is_quick(b), Some(false));
    // Quick ones, while TCP_QUICKACK holds.
    let engine = &mut world.engines[1];
    engine.tcp.set_options(&mut engine.net, b, |options| options.quick_ack = true).unwrap();
    send(&mut world, 0, a, b"small");
    world.run(MS * 5);
    assert_eq!(watch.sent().len(), 1);
}

#[test]
fn what_comes_together_is_acknowledged_together() {
    let (mut world, _, b, watch, last) = talked();
    let engine = &mut world.engines[1];
    engine.tcp.set_quick(&mut engine.net, b, false);
    let mut next = last.ack;
    // Segments of 1,460 bytes, each so many behind the one before.
    let mut come = |world: &mut World, gaps: &[u32]| -> Vec<u32> {
        let frames: Vec<RxFrame> = gaps
            .iter()
            .map(|gap| {
                next = next.wrapping_add(1460 * gap);
                let frame = segment(world, next, last.seq, ACK, &[1; 1460]);
                next = next.wrapping_add(1460);
                frame
            })
            .collect();
        let now = world.now;
        world.engines[1].receive(now, 2, frames);
        // Nobody else has a say: engine 0 has sent none of this.
        world.engines[1].events().into_iter().for_each(|event| event.dispatch());
        watch.sent().iter().map(|seen| seen.ack.wrapping_sub(last.ack) / 1460).collect()
    };
    assert_eq!(come(&mut world, &[0, 0, 0, 0, 0]), [5]);
    // The sender has to hear of a hole at once, and of each segment behind it.
    assert_eq!(come(&mut world, &[0, 0, 1, 0]), [7, 7]);
}

/// Engine 1 has closed first and rests in TIME-WAIT; somebody listens at its port again. Since when.
fn resting() -> (World, Watch, Seen, Time) {
    let (mut world, a, b, watch, _) = talked();
    let mut out = [0; 8];
    let engine = &mut world.engines[1];
    engine.tcp.receive_into(&mut engine.net, b, &mut out).unwrap();
    close(&mut world, 1, b);
    world.run(MS * 10);
    close(&mut world, 0, a);
    world.run(MS * 10);
    assert_eq!((world.engines[0].tcp.counts(), world.engines[1].tcp.counts()), ((0, 0), (0, 1)));
    world.engines[1].tcp.listen(at(ip4(1), 80), false, 16, ConnOptions::default(), None);
    let last = watch.sent().pop().expect("the last acknowledgement");
    let since = last.at;
    // The other engine knows nothing of what is forged, and would say so.
    world.link.set_impairment(Impairment { loss: 1000, ..Setup::default().impairment });
    let mac = Some(Mac([2, 0, 0, 0, 0, 1]));
    let there = Change { mac, state: NeighbourState::Permanent, router: false, protocol: 0, overrides: true };
    world.engines[1].net.change_neighbour(2, ip4(0), there).unwrap();
    (world, watch, last, since)
}

#[test]
fn a_pair_rests_for_a_minute() {
    let (mut world, watch, last, since) = resting();
    let until = |world: &mut World, seconds: u64| {
        let left = (since + Duration::from_millis(seconds * 1000)).since(world.now);
        world.run(left);
    };
    until(&mut world, 59);
    assert_eq!(world.engines[1].tcp.counts().1, 1);
    // The peer's FIN once more, whose acknowledgement was lost: it is answered, and the minute begins anew.
    forged(&mut world, last.ack - 1, last.seq, FIN | ACK, b"");
    let sent = watch.sent();
    assert!(is_challenge(&sent, &last), "{sent:?}");
    until(&mut world, 118);
    assert_eq!(world.engines[1].tcp.counts().1, 1);
    until(&mut world, 120);
    assert_eq!(world.engines[1].tcp.counts().1, 0);
    assert_eq!(watch.sent(), []);
}

#[test]
fn a_newer_syn_ends_the_rest_and_an_older_one_does_not() {
    let (mut world, watch, last, _) = resting();
    forged(&mut world, last.ack.wrapping_sub(1000), 0, SYN, b"");
    let sent = watch.sent();
    assert!(is_challenge(&sent, &last), "{sent:?}");
    // Old data that was on its way.
    world.run(MS * 1000);
    forged(&mut world, last.ack - 3, last.seq, ACK, b"old");
    assert!(is_challenge(&watch.sent(), &last));
    forged(&mut world, last.ack + 50_000, 0, SYN, b"");
    let sent = watch.sent();
    let [answer] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((answer.flags, answer.ack), (SYN | ACK, last.ack + 50_001));
    assert_eq!(answer.seq, last.seq.wrapping_add(65_537), "above the old connection's numbers");
}

#[test]
fn a_reset_ends_the_rest_only_by_its_number() {
    let (mut world, watch, last, _) = resting();
    for seq in [last.ack + 1, last.ack - 1, last.ack + 1_000_000] {
        forged(&mut world, seq, 0, RST, b"");
    }
    assert_eq!((watch.sent(), world.engines[1].tcp.counts().1), (vec![], 1));
    // As Linux without net.ipv4.tcp_rfc1337.
    forged(&mut world, last.ack, 0, RST, b"");
    assert_eq!((watch.sent(), world.engines[1].tcp.counts().1), (vec![], 0));
}
