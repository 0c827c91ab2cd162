//! What two engines move over a link in memory, in wall-clock time: one stream of TCP with and without
//! frames that hold many segments, one-byte questions and answers, datagrams.
//!
//! `cargo run --release -p netstack --example throughput`

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use netstack::engine::addresses::Prefix;
use netstack::engine::chunk::Chunk;
use netstack::engine::error::Error;
use netstack::engine::frame::{RxChecksum, RxFrame, TxFrame};
use netstack::engine::link::{Capabilities, LinkEndpoint, Mac, Medium};
use netstack::engine::random::SeededRandom;
use netstack::engine::tcp::ConnOptions;
use netstack::engine::time::Time;
use netstack::engine::udp::UdpSend;
use netstack::engine::{Engine, Handle};

/// One direction's frames.
#[derive(Default)]
struct Wire(Mutex<VecDeque<TxFrame>>);

struct End {
    out: Arc<Wire>,
    mac: u8,
    capabilities: Capabilities,
}

impl LinkEndpoint for End {
    fn transmit(&self, frame: TxFrame) {
        self.out.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(frame);
    }
    fn medium(&self) -> Medium {
        Medium::Ethernet
    }
    fn mtu(&self) -> usize {
        1500
    }
    fn mac(&self) -> Mac {
        Mac([2, 0, 0, 0, 0, self.mac])
    }
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }
}

struct World {
    engines: [Engine; 2],
    wires: [Arc<Wire>; 2],
    begun: Instant,
}

fn ip(side: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, 1 + side as u8])
}

impl World {
    fn new(capabilities: Capabilities) -> World {
        let wires = [Arc::<Wire>::default(), Arc::default()];
        let engines = [0, 1].map(|side: usize| {
            let mut engine = Engine::new(Box::new(SeededRandom::new(side as u64)));
            let end = End { out: wires[side].clone(), mac: 1 + side as u8, capabilities };
            let _ = engine.attach(2, Arc::new(end));
            let _ = engine.add_address(2, Prefix::new(ip(side), 24), false);
            engine
        });
        World { engines, wires, begun: Instant::now() }
    }

    fn now(&self) -> Time {
        Time(self.begun.elapsed().as_nanos() as u64)
    }

    /// Carries what is on the wires over. A frame is copied once, as by a packet socket.
    fn carry(&mut self) {
        let now = self.now();
        for side in 0..2 {
            loop {
                let frame = self.wires[1 - side].0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(mut frame) = frame else { break };
                let checksum =
                    if frame.checksum_offload().is_some() { RxChecksum::Valid } else { RxChecksum::Unknown };
                if checksum == RxChecksum::Unknown {
                    frame.finish_checksum();
                }
                let segment = frame.segmentation.map(|cut| cut.size);
                let data = frame.flatten().into();
                self.engines[side].receive(now, 2, [RxFrame { data, checksum, segment }]);
            }
            self.engines[side].poll(now);
            self.engines[side].events();
        }
    }

    fn connect(&mut self) -> (Handle, Handle) {
        let options = ConnOptions::default();
        let to = SocketAddr::new(ip(1), 80);
        let listener = self.engines[1].tcp.listen(to, false, 4, options, None);
        let engine = &mut self.engines[0];
        let from = SocketAddr::new(ip(0), 4000);
        let Ok(client) = engine.tcp.connect(&mut engine.net, from, to, options, None) else {
            std::process::exit(1)
        };
        loop {
            self.carry();
            if let Ok(accepted) = self.engines[1].tcp.accept(listener) {
                return (client, accepted.connection);
            }
        }
    }
}

fn stream(what: &str, capabilities: Capabilities, bytes: usize) {
    let mut world = World::new(capabilities);
    let (a, b) = world.connect();
    let piece = Chunk::from(vec![7u8; 65_536]);
    let (mut sent, mut got) = (0, 0);
    let begun = Instant::now();
    while got < bytes {
        for _ in 0..4 {
            let engine = &mut world.engines[0];
            let room = engine.tcp.send_room(&engine.net, a).unwrap_or(0).min(piece.len()).min(bytes - sent);
            if room > 0 {
                let part = piece.slice(0, room);
                sent += engine.tcp.send_chunks(&mut engine.net, a, [part], false).unwrap_or(0);
            }
        }
        world.carry();
        let engine = &mut world.engines[1];
        match engine.tcp.receive(&mut engine.net, b, 1 << 20) {
            Ok(chunks) => got += chunks.iter().map(|chunk| chunk.len()).sum::<usize>(),
            Err(Error::WouldBlock) => {}
            Err(error) => {
                eprintln!("{what}: {error:?}");
                return;
            }
        }
    }
    let took = begun.elapsed();
    let rate = bytes as f64 * 8.0 / took.as_secs_f64() / 1e9;
    println!("{what}: {rate:.2} Gbit/s ({bytes} bytes in {took:?})");
}

fn questions(count: u32) {
    let mut world = World::new(Capabilities { checksum: true, ..Capabilities::default() });
    let (a, b) = world.connect();
    let begun = Instant::now();
    for _ in 0..count {
        for (from, to, side) in [(a, b, 0), (b, a, 1)] {
            let engine = &mut world.engines[side];
            let _ = engine.tcp.send(&mut engine.net, from, b"?");
            world.carry();
            let engine = &mut world.engines[1 - side];
            let _ = engine.tcp.receive(&mut engine.net, to, 10);
        }
    }
    let each = begun.elapsed() / count;
    println!("one byte there and back: {each:?}");
}

fn datagrams(count: u32) {
    let mut world = World::new(Capabilities { checksum: true, ..Capabilities::default() });
    let payload = Chunk::from(vec![1u8; 1400]);
    let how = UdpSend::default();
    let begun = Instant::now();
    for _ in 0..count {
        let engine = &mut world.engines[0];
        let (from, to) = (SocketAddr::new(ip(0), 1), SocketAddr::new(ip(1), 2));
        let body = [payload.clone()].into_iter().collect();
        let _ = engine.udp.send(&mut engine.net, from, to, &how, body);
        world.carry();
    }
    let each = begun.elapsed() / count;
    println!("a datagram of 1400 bytes (nobody takes it): {each:?}");
}

fn main() {
    let cut = Capabilities { checksum: true, segmentation: 65_535, udp_segmentation: false };
    stream("frames of 64 KiB", cut, 4 << 30);
    stream("frames of 1500 bytes", Capabilities { checksum: true, ..Capabilities::default() }, 1 << 30);
    stream("frames of 1500 bytes, checksums made and checked", Capabilities::default(), 1 << 30);
    questions(200_000);
    datagrams(500_000);
}
