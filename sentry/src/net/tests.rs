//! The host's own TCP as the engine's peer, over a veth pair in a private network namespace: both ways,
//! with and without offloads, with loss and reordering made here.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netstack::engine::addresses::Prefix;
use netstack::engine::error::Error;
use netstack::engine::frame::{RxFrame, TxFrame};
use netstack::engine::link::{Capabilities, LinkEndpoint, Mac, Medium};
use netstack::engine::random::SeededRandom;
use netstack::engine::tcp::ConnOptions;
use netstack::engine::time::Time;
use netstack::engine::{Engine, Handle};

mod differential;

use super::PacketLink;
use super::hostsys::socket::{Interest, wait};
use super::hostsys::{ns, packet};
use super::packet_link::Room;

const MAC: [u8; 6] = [2, 0, 0, 0, 9, 2];

/// The link with chosen offloads.
struct Chosen(Arc<PacketLink>, Capabilities);

impl LinkEndpoint for Chosen {
    fn transmit(&self, frame: TxFrame) {
        self.0.transmit(frame);
    }
    fn flush(&self) {
        self.0.flush();
    }
    fn medium(&self) -> Medium {
        self.0.medium()
    }
    fn mtu(&self) -> usize {
        self.0.mtu()
    }
    fn mac(&self) -> Mac {
        self.0.mac()
    }
    fn capabilities(&self) -> Capabilities {
        self.1
    }
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).output().is_ok_and(|out| out.status.success())
}

struct Peer {
    engine: Engine,
    link: Arc<PacketLink>,
    begun: Instant,
    random: SeededRandom,
    /// Thousandths of the frames that are lost on their way in.
    loss: u64,
    held: Option<RxFrame>,
    room: Room,
}

impl Peer {
    fn now(&self) -> Time {
        Time(self.begun.elapsed().as_nanos() as u64)
    }

    /// Waits a moment for frames and timers.
    fn step(&mut self) {
        self.step_with(|_| true);
    }

    /// The same; only the frames that `passes` likes arrive.
    fn step_with(&mut self, passes: impl Fn(&RxFrame) -> bool) {
        let next = self.engine.poll(self.now());
        self.link.flush();
        let left = next.map_or(Duration::from_millis(20), |at| at.since(self.now()));
        let mut interests = [Interest::read(self.link.fd().as_fd())];
        let _ = wait(&mut interests, Some(left.min(Duration::from_millis(20))));
        let mut frames = Vec::new();
        self.link.receive(&mut self.room, |frame| frames.push(frame)).expect("frames");
        let now = self.now();
        for frame in frames {
            if self.random.below(1000) < self.loss || !passes(&frame) {
                continue;
            }
            // Now and then two frames change places.
            if self.loss > 0 && self.held.is_none() && self.random.below(10) == 0 {
                self.held = Some(frame);
                continue;
            }
            self.engine.receive(now, 2, [frame]);
            if let Some(held) = self.held.take() {
                self.engine.receive(now, 2, [held]);
            }
        }
        self.engine.events();
        self.link.flush();
    }

    fn send_all(&mut self, handle: Handle, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let end = (done + 65_536).min(data.len());
            self.engine.set_now(self.now());
            match self.engine.tcp.send(&mut self.engine.net, handle, &data[done..end]) {
                Ok(count) => done += count,
                Err(Error::WouldBlock) => self.step(),
                Err(error) => panic!("{error:?} after {done}"),
            }
        }
    }

    fn read_all(&mut self, handle: Handle) -> Vec<u8> {
        let mut data = Vec::new();
        let mut piece = vec![0; 65_536];
        loop {
            self.engine.set_now(self.now());
            match self.engine.tcp.receive_into(&mut self.engine.net, handle, &mut piece) {
                Ok(0) => return data,
                Ok(count) => data.extend_from_slice(&piece[..count]),
                Err(Error::WouldBlock) => self.step(),
                Err(error) => panic!("{error:?} after {}", data.len()),
            }
        }
    }
}

fn pattern(length: usize, salt: u64) -> Vec<u8> {
    let mut random = SeededRandom::new(salt);
    (0..length / 8 + 1).flat_map(|_| random.next().to_le_bytes()).take(length).collect()
}

fn index_of(name: &str) -> u32 {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev_mcast").unwrap_or_default();
    let number = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
    };
    text.lines().filter_map(number).find(|(_, n): &(u32, String)| n == name).map_or(0, |(n, _)| n)
}

/// Makes a network namespace for this thread, with a veth pair: the host has one end, the engine gets the
/// other. None, with the reason, where that is not allowed.
fn namespace() -> Option<Arc<PacketLink>> {
    if ns::unshare(ns::Namespaces::NET).is_err() || !ip("link add h0 type veth peer name s0") {
        let why = "no private network namespace with a veth pair";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("skipped: {why}");
        return None;
    }
    for command in [
        "addr add 10.9.0.1/24 dev h0",
        "addr add fd09::1/64 dev h0 nodad",
        "link set lo up",
        "link set h0 up",
    ] {
        assert!(ip(command), "{command}");
    }
    assert!(ip("link set s0 address 02:00:00:00:09:02") && ip("link set s0 up"));
    let fd = packet::open(index_of("s0")).expect("a packet socket");
    Some(Arc::new(PacketLink::new(Arc::new(fd), 1500, MAC)))
}

/// An engine over the link as `seen` shows it.
fn peer_over(link: Arc<PacketLink>, seen: Arc<dyn LinkEndpoint>, loss: u64) -> Peer {
    let mut engine = Engine::new(Box::new(SeededRandom::new(99)));
    engine.attach(2, seen).expect("attached");
    for (own, length) in [("10.9.0.2", 24), ("fd09::2", 64)] {
        engine.add_address(2, Prefix::new(own.parse().unwrap(), length), false).expect("an address");
    }
    Peer {
        engine,
        link,
        begun: Instant::now(),
        random: SeededRandom::new(7 + loss),
        loss,
        held: None,
        room: Room::default(),
    }
}

/// Runs in a thread of its own, which has its own network namespace.
fn in_namespace() {
    let Some(link) = namespace() else { return };
    let own: [IpAddr; 2] = ["10.9.0.2".parse().unwrap(), "fd09::2".parse().unwrap()];
    for (offload, loss) in [(true, 0), (false, 0), (true, 50), (false, 50)] {
        let capabilities = if offload { link.capabilities() } else { Capabilities::default() };
        let mut peer = peer_over(link.clone(), Arc::new(Chosen(link.clone(), capabilities)), loss);
        for (family, host) in [(0, "10.9.0.1"), (1, "fd09::1")] {
            let size = if loss == 0 { 8 << 20 } else { 2 << 20 };
            outgoing(
                &mut peer,
                SocketAddr::new(own[family], 4000 + u16::from(offload) * 2 + loss as u16),
                host.parse().unwrap(),
                size,
            );
            incoming(&mut peer, SocketAddr::new(own[family], 80), size);
        }
    }
}

/// The engine connects; both sides send at once, then end.
fn outgoing(peer: &mut Peer, own: SocketAddr, host: IpAddr, size: usize) {
    let listener = TcpListener::bind(SocketAddr::new(host, 0)).expect("a listener");
    let to = listener.local_addr().expect("its address");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        talk(&mut stream, size)
    });
    peer.engine.set_now(peer.now());
    let handle =
        peer.engine.tcp.connect(&mut peer.engine.net, own, to, ConnOptions::default(), None).expect("begun");
    finish(peer, handle, size);
    assert!(server.join().expect("the host's side"), "what the host got is right");
}

/// The host connects to the engine.
fn incoming(peer: &mut Peer, own: SocketAddr, size: usize) {
    let listener = peer.engine.tcp.listen(own, false, 5, ConnOptions::default(), None);
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(own).expect("connected");
        talk(&mut stream, size)
    });
    let handle = loop {
        if let Ok(accepted) = peer.engine.tcp.accept(listener) {
            break accepted.connection;
        }
        peer.step();
    };
    finish(peer, handle, size);
    peer.engine.tcp.close_listener(&mut peer.engine.net, listener);
    assert!(client.join().expect("the host's side"), "what the host got is right");
}

fn finish(peer: &mut Peer, handle: Handle, size: usize) {
    peer.send_all(handle, &pattern(size, 1));
    peer.engine.set_now(peer.now());
    peer.engine.tcp.shutdown_write(&mut peer.engine.net, handle).expect("shut down");
    let got = peer.read_all(handle);
    assert!(got == pattern(size, 2), "what the engine got is right: {} of {size}", got.len());
    peer.engine.tcp.close(&mut peer.engine.net, handle);
    for _ in 0..5 {
        peer.step();
    }
}

/// The host's side: reads all, then sends.
fn talk(stream: &mut TcpStream, size: usize) -> bool {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("read");
    stream.write_all(&pattern(size, 2)).expect("written");
    stream.shutdown(Shutdown::Write).expect("shut down");
    got == pattern(size, 1)
}

#[test]
fn the_hosts_own_tcp() {
    std::thread::spawn(in_namespace).join().expect("no failure");
}
