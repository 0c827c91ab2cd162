//! The host's own TCP as the peer, over a TUN device in a private network namespace: what both sides see of a conversation is what two
//! of the host's would see. `host_tcp.py` holds the other end. Wants python3 and the right to make namespaces; says so otherwise.

use netstack::engine::frame::{RxFrame, TxFrame};
use netstack::engine::link::{LinkEndpoint, Medium};
use netstack::tcp::{StreamOptions, TakeHow, TcpSocket, TcpState};
use netstack::{
    Alarm, Attachment, BindOptions, Buf, Endpoint, Env, Events, Family, IfAddr, NetError, PacketWire,
};
use netstack::{Stack, Waker};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

struct RealTime(Instant);

impl Env for RealTime {
    fn monotonic(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap()
    }
    fn realtime(&self) -> u64 {
        self.monotonic()
    }
    fn random(&self, out: &mut [u8]) {
        std::fs::File::open("/dev/urandom").unwrap().read_exact(out).unwrap();
    }
}

struct Nobody;

impl Waker for Nobody {
    fn wake(&self, _: Events) {}
}

impl Alarm for Nobody {
    fn earlier(&self) {}
}

/// Frames go out over the stream to the other side's TUN device.
struct Cable(Mutex<UnixStream>);

impl Cable {
    fn send(&self, kind: u8, data: &[u8]) {
        let mut frame = u32::try_from(data.len() + 1).unwrap().to_be_bytes().to_vec();
        frame.push(kind);
        frame.extend(data);
        // The other side may be gone at the end.
        let _ = self.0.lock().unwrap().write_all(&frame);
    }
}

impl LinkEndpoint for Cable {
    fn transmit(&self, frame: TxFrame) {
        self.send(b'p', &frame.flatten());
    }
    fn medium(&self) -> Medium {
        Medium::Ip
    }
    fn mtu(&self) -> usize {
        1500
    }
}

fn read_frames(mut from: UnixStream, to: &Sender<(u8, Vec<u8>)>) {
    let mut length = [0; 4];
    while from.read_exact(&mut length).is_ok() {
        let mut data = vec![0; u32::from_be_bytes(length) as usize];
        if from.read_exact(&mut data).is_err() || to.send((data[0], data.split_off(1))).is_err() {
            return;
        }
    }
}

const O: BindOptions = BindOptions::PLAIN;

struct World {
    peer: Child,
    stack: Arc<Stack>,
    wire: Arc<PacketWire>,
    index: u32,
    cable: Arc<Cable>,
    frames: Receiver<(u8, Vec<u8>)>,
    answers: Mutex<Vec<String>>,
    family: Family,
    hosts: [IpAddr; 2],
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.peer.kill();
        let _ = self.peer.wait();
    }
}

fn skipped(why: &str) -> Option<World> {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    println!("skipped: {why}");
    None
}

impl World {
    fn new(trouble: &str, version: u32) -> Option<World> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host_tcp.py");
        let mut peer = Command::new("unshare");
        peer.args(["--user", "--map-root-user", "--net", "--kill-child", "python3", script, trouble]);
        peer.arg(version.to_string()).stdin(Stdio::from(OwnedFd::from(theirs)));
        let Ok(peer) = peer.spawn() else { return skipped("no unshare") };
        let (sender, frames) = channel();
        let incoming = ours.try_clone().unwrap();
        std::thread::spawn(move || read_frames(incoming, &sender));
        let stack = Stack::new(Arc::new(RealTime(Instant::now())), true);
        let wire = PacketWire::new(&stack, Arc::new(Nobody));
        let cable = Arc::new(Cable(Mutex::new(ours)));
        let (family, prefix, hosts): (_, _, [IpAddr; 2]) = match version {
            4 => (Family::V4, 24, [[10, 9, 0, 1].into(), [10, 9, 0, 2].into()]),
            _ => (Family::V6, 64, ["fd09::1".parse().unwrap(), "fd09::2".parse().unwrap()]),
        };
        let attachment = Attachment {
            index: 0,
            name: "tun0".into(),
            link: cable.clone(),
            up: true,
            carrier: true,
            addresses: vec![IfAddr { ip: hosts[1], prefix, broadcast: None }],
        };
        let index = wire.attach(attachment).unwrap();
        let answers = Mutex::default();
        let world = World { peer, stack, wire, index, cable, frames, answers, family, hosts };
        match world.answer() {
            Some(ready) if ready == "ready" => Some(world),
            other => skipped(&format!("no TUN device, namespace or python3: {other:?}")),
        }
    }

    /// Takes what has come in, and waits for it at most until a timer is due. False: the other side is gone.
    fn turn(&self) -> bool {
        let next = self.wire.drive(self.index, []).map(|at| self.wire.until(at));
        let first = self.frames.recv_timeout(next.unwrap_or(Duration::MAX).min(Duration::from_millis(50)));
        let gone = matches!(first, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
        let mut packets = Vec::new();
        for (kind, data) in first.into_iter().chain(self.frames.try_iter().take(63)) {
            match kind {
                b'p' => packets.push(RxFrame::from(data)),
                _ => self.answers.lock().unwrap().push(String::from_utf8(data).unwrap()),
            }
        }
        self.wire.drive(self.index, packets);
        !gone
    }

    fn wait<R>(&self, mut until: impl FnMut() -> Option<R>) -> R {
        let limit = Instant::now() + Duration::from_secs(90);
        loop {
            if let Some(result) = until() {
                return result;
            }
            assert!(Instant::now() < limit, "nothing happens any more");
            assert!(self.turn(), "the other side is gone");
        }
    }

    /// What the other side says next; nothing if it is gone.
    fn answer(&self) -> Option<String> {
        let limit = Instant::now() + Duration::from_secs(90);
        loop {
            let mut answers = self.answers.lock().unwrap();
            if !answers.is_empty() {
                return Some(answers.remove(0));
            }
            drop(answers);
            if !self.turn() || Instant::now() > limit {
                return self.answers.lock().unwrap().pop();
            }
        }
    }

    fn socket(&self) -> Arc<TcpSocket> {
        let socket = TcpSocket::new(&self.stack, self.family, Arc::new(Nobody));
        socket.configure(|o: &mut StreamOptions| o.no_delay = true);
        socket
    }

    fn connect(&self, port: u16) -> Result<Arc<TcpSocket>, NetError> {
        let socket = self.socket();
        assert_eq!(socket.connect(Endpoint::new(self.hosts[0], port), O), Err(NetError::InProgress));
        self.wait(|| match socket.connected() {
            Err(NetError::InProgress) => None,
            other => Some(other),
        })?;
        Ok(socket)
    }

    /// Sends as much as goes at once.
    fn push(socket: &TcpSocket, data: &mut &[u8]) -> Result<(), NetError> {
        let transport = socket.transport().unwrap();
        while !data.is_empty() {
            match transport.reserve(data.len().min(20_000)) {
                Ok(room) => {
                    let (now, later) = data.split_at(room);
                    transport.commit(room, Some(Buf::copy_of(now)), false);
                    *data = later;
                }
                Err(NetError::WouldBlock) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes what is there; true: that was the end.
    fn pull(socket: &TcpSocket, into: &mut Vec<u8>) -> Result<bool, NetError> {
        loop {
            match socket.transport().unwrap().take(100_000, TakeHow::default()) {
                Ok(taken) if taken.len == 0 => return Ok(true),
                Ok(taken) => taken.parts.iter().for_each(|part| into.extend(part.bytes())),
                Err(NetError::WouldBlock) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends all, ends, and reads to the other side's end meanwhile.
    fn exchange(&self, socket: &TcpSocket, data: &[u8]) -> Result<Vec<u8>, NetError> {
        let (mut rest, mut ended, mut back) = (data, false, Vec::new());
        self.wait(|| {
            let step = Self::push(socket, &mut rest).and_then(|()| Self::pull(socket, &mut back));
            if rest.is_empty() && !std::mem::replace(&mut ended, rest.is_empty()) {
                socket.shutdown(false, true).unwrap();
            }
            match step {
                Ok(false) => None,
                Ok(true) => Some(Ok(())),
                Err(error) => Some(Err(error)),
            }
        })?;
        Ok(back)
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect()
}

/// SHA-256 by the host's own program.
fn digest(data: &[u8]) -> String {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(data).unwrap();
    let out = child.wait_with_output().unwrap();
    String::from_utf8(out.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

fn conversations(trouble: &str, version: u32) {
    let Some(w) = World::new(trouble, version) else { return };
    let mebibyte = pattern(1 << 20);

    let echo = w.connect(7).unwrap();
    assert!(w.exchange(&echo, &mebibyte).unwrap() == mebibyte, "echo");
    // We ended first: the socket is closed, what waits for late segments is another thing, as on Linux.
    w.wait(|| (echo.state() == TcpState::Close).then_some(()));

    for port in [9, 10] {
        let sink = w.connect(port).unwrap();
        let data = &mebibyte[..if port == 10 { 200_000 } else { mebibyte.len() }];
        assert_eq!(String::from_utf8(w.exchange(&sink, data).unwrap()).unwrap(), digest(data), "port {port}");
    }

    // Its window closes as nobody reads for a while.
    let source = w.connect(19).unwrap();
    let later = Instant::now() + Duration::from_millis(1200);
    w.wait(|| (Instant::now() > later).then_some(()));
    let all = w.exchange(&source, b"").unwrap();
    assert_eq!(all.len(), 1_500_000);
    let after_the_end = w.connect(21).unwrap();
    let half = w.exchange(&after_the_end, &mebibyte[..300_000]).unwrap();
    assert!(half[..] == all[..300_000], "both are the same text");

    let reset = w.connect(20).unwrap();
    assert_eq!(w.exchange(&reset, b"xy"), Err(NetError::Reset));
    assert_eq!(reset.state(), TcpState::Close);

    let urgent = w.connect(22).unwrap();
    let byte = w.wait(|| match urgent.transport().unwrap().take_urgent(false) {
        Ok(Some(byte)) => Some(byte),
        _ => None,
    });
    assert_eq!(byte, b'c');
    assert_eq!(w.exchange(&urgent, b"").unwrap(), b"abd");

    // Timestamps, SACK, window scale; whole segments of the device.
    let options = String::from_utf8(w.exchange(&w.connect(23).unwrap(), b"").unwrap()).unwrap();
    let (bits, size) = options.split_once(' ').unwrap();
    assert_eq!(bits.parse::<u8>().unwrap() & 7, 7, "{options}");
    assert_eq!(size.parse::<u32>().unwrap(), if version == 4 { 1448 } else { 1428 }, "{options}");

    assert_eq!(w.connect(1).err(), Some(NetError::Refused));

    // The other way round.
    let listener = w.socket();
    listener.bind(Endpoint::new(w.hosts[1], 7000), O).unwrap();
    listener.listen(5, O).unwrap();
    w.cable.send(b'c', b"client");
    let incoming = w.wait(|| listener.accept().ok());
    let served = listener.accepted(incoming, Arc::new(Nobody));
    let (mut waiting, mut sent, mut ended) = (Vec::new(), 0, false);
    w.wait(|| {
        ended = ended || World::pull(&served, &mut waiting).unwrap();
        let mut rest = &waiting[sent..];
        World::push(&served, &mut rest).unwrap();
        sent = waiting.len() - rest.len();
        (ended && rest.is_empty()).then_some(())
    });
    served.close(false);
    assert_eq!(w.answer().unwrap(), "the same");
    w.cable.send(b'c', b"refused");
    assert_eq!(w.answer().unwrap(), "ConnectionRefusedError");
}

#[test]
fn over_a_good_cable() {
    conversations("0", 4);
    conversations("0", 6);
}

#[test]
fn over_a_bad_cable() {
    conversations("0.02", 4);
    conversations("0.02", 6);
}
