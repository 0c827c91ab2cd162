//! Tests of the engine as a whole: two engines over a pair link under a virtual clock.

mod frames;
mod fuzz;
mod headers;
mod manners;
mod network;
mod onwire;
mod streams;
mod tuning;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Engine;
use super::addresses::Prefix;
use super::error::PacketError;
use super::events::{Datagram, DatagramSink};
use super::link::{Capabilities, Medium};
use super::pair::{Impairment, PairLink};
use super::random::SeededRandom;
use super::tap::{FrameSink, SeenFrame};
use super::time::Time;

/// Two engines and what lies between.
pub struct World {
    pub engines: [Engine; 2],
    pub link: PairLink,
    pub now: Time,
}

/// What a world is made with.
#[derive(Clone, Copy)]
pub struct Setup {
    pub seed: u64,
    pub mtu: usize,
    pub medium: Medium,
    pub capabilities: Capabilities,
    pub impairment: Impairment,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            seed: 1,
            mtu: 1500,
            medium: Medium::Ethernet,
            capabilities: Capabilities::default(),
            impairment: Impairment { delay: Duration::from_micros(50), ..Impairment::default() },
        }
    }
}

pub fn ip4(side: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, 1 + side as u8])
}

pub fn ip6(side: usize) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1 + side as u16])
}

impl World {
    pub fn new(setup: Setup) -> World {
        let Setup { seed, mtu, medium, capabilities, impairment } = setup;
        let link = PairLink::new(seed, mtu, medium, capabilities, impairment);
        let engines = [0, 1].map(|side| {
            let mut engine = Engine::new(Box::new(SeededRandom::new(seed * 2 + side as u64)));
            engine.attach(2, link.end(side)).unwrap();
            engine.add_address(2, Prefix::new(ip4(side), 24), false).unwrap();
            engine.add_address(2, Prefix::new(ip6(side), 64), false).unwrap();
            engine
        });
        World { engines, link, now: Time(0) }
    }

    /// Goes on to the next thing that happens, if it happens by `until`. False: nothing does.
    pub fn step(&mut self, until: Time) -> bool {
        let next = [self.link.next(), self.engines[0].deadline(), self.engines[1].deadline()];
        let Some(next) = next.into_iter().flatten().min().filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            for engine in &mut self.engines {
                engine.set_now(until);
                engine.events().into_iter().for_each(|event| event.dispatch());
            }
            return false;
        };
        self.now = self.now.max(next);
        for side in 0..2 {
            let frames: Vec<_> = std::iter::from_fn(|| self.link.arrived(self.now, side)).collect();
            self.engines[side].receive(self.now, 2, frames);
            self.engines[side].poll(self.now);
            self.engines[side].events().into_iter().for_each(|event| event.dispatch());
        }
        true
    }

    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let mut steps = 0u64;
        while self.step(until) {
            steps += 1;
            assert!(steps < 3_000_000, "the world spins");
        }
    }
}

/// Keeps what arrives.
#[derive(Default)]
pub struct Inbox {
    pub datagrams: Mutex<Vec<Datagram>>,
    pub errors: Mutex<Vec<PacketError>>,
    pub frames: Mutex<Vec<SeenFrame>>,
}

impl DatagramSink for Inbox {
    fn deliver(&self, datagram: Datagram) {
        self.datagrams.lock().unwrap().push(datagram);
    }

    fn error(&self, error: &PacketError) {
        self.errors.lock().unwrap().push(error.clone());
    }
}

impl FrameSink for Inbox {
    fn frame(&self, frame: SeenFrame) {
        self.frames.lock().unwrap().push(frame);
    }
}

pub fn inbox() -> Arc<Inbox> {
    Arc::default()
}

pub fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}
