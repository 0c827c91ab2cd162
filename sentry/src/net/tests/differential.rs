//! What the host's TCP says to the engine's manners: resets, half-closed connections, closed windows,
//! keep-alive, losses with selective acknowledgements, and routers with smaller MTUs on the way.

use super::*;

use netstack::engine::checksum::Sum;
use netstack::engine::frame::{RxFrame, Segmentation};
use netstack::engine::tcp::ConnOptions;

const OWN: [&str; 2] = ["10.9.0.2", "fd09::2"];
const HOST: [&str; 2] = ["10.9.0.1", "fd09::1"];
const PORT: u16 = 80;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The link as seen through a router that loses frames and takes only short packets.
struct Router {
    link: Arc<PacketLink>,
    capabilities: Capabilities,
    state: std::sync::Mutex<RouterState>,
}

struct RouterState {
    random: SeededRandom,
    /// Thousandths of the frames to the host that are lost.
    loss: u64,
    frames: u64,
    mtu: usize,
    /// What the router says to the engine.
    answers: Vec<Vec<u8>>,
}

/// The length of the packets that a frame stands for, without the link's header.
fn packet_length(whole: usize, segment: Option<usize>, frame: &[u8]) -> usize {
    let Some(size) = segment else { return whole - 14 };
    let v4 = frame[14] >> 4 == 4;
    let ip = if v4 { 20 } else { 40 };
    size + ip + usize::from(frame[14 + ip + 12] >> 4) * 4
}

/// The error for a packet that is too big, as a frame from the router to `to`.
fn too_big(frame: &[u8], mtu: usize, to: [u8; 6]) -> Vec<u8> {
    let v4 = frame[14] >> 4 == 4;
    let mut message = if v4 { vec![3, 4, 0, 0, 0, 0] } else { vec![2, 0, 0, 0, 0, 0] };
    message.extend_from_slice(&(mtu as u16).to_be_bytes());
    message.extend_from_slice(&frame[14..frame.len().min(14 + 200)]);
    let (router, sender): (IpAddr, IpAddr) = match v4 {
        true => (address("10.9.0.254"), <[u8; 4]>::try_from(&frame[26..30]).expect("four bytes").into()),
        false => (address("fd09::fe"), <[u8; 16]>::try_from(&frame[22..38]).expect("sixteen bytes").into()),
    };
    let mut sum = if v4 { Sum::default() } else { Sum::pseudo(router, sender, 58, message.len()) };
    sum.add(&message);
    message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    let mut out = to.to_vec();
    out.extend_from_slice(&[2, 0, 0, 0, 9, 0xfe]);
    match (router, sender) {
        (IpAddr::V4(router), IpAddr::V4(sender)) => {
            let mut header = [0u8; 20];
            header[..2].copy_from_slice(&[0x45, 0xc0]);
            header[2..4].copy_from_slice(&(20 + message.len() as u16).to_be_bytes());
            header[8..10].copy_from_slice(&[64, 1]);
            header[12..16].copy_from_slice(&router.octets());
            header[16..20].copy_from_slice(&sender.octets());
            let mut sum = Sum::default();
            sum.add(&header);
            header[10..12].copy_from_slice(&sum.finish().to_be_bytes());
            out.extend_from_slice(&[8, 0]);
            out.extend_from_slice(&header);
        }
        (IpAddr::V6(router), IpAddr::V6(sender)) => {
            out.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            out.extend_from_slice(&(message.len() as u16).to_be_bytes());
            out.extend_from_slice(&[58, 64]);
            out.extend_from_slice(&router.octets());
            out.extend_from_slice(&sender.octets());
        }
        _ => {}
    }
    out.extend_from_slice(&message);
    out
}

impl LinkEndpoint for Router {
    fn transmit(&self, frame: TxFrame) {
        let mut state = self.state.lock().expect("the router");
        let segment = frame.segmentation.map(|Segmentation { size, .. }| usize::from(size));
        let bytes = frame.flatten();
        let ip = matches!(bytes[12..14], [8, 0] | [0x86, 0xdd]);
        if ip && packet_length(bytes.len(), segment, &bytes) > state.mtu {
            let answer = too_big(&bytes, state.mtu, MAC);
            state.answers.push(answer);
            return;
        }
        let loss = state.loss;
        state.frames += u64::from(ip);
        // Some by chance, and each twelfth for sure.
        if ip && loss > 0 && (state.random.below(1000) < loss || state.frames % 12 == 0) {
            return;
        }
        drop(state);
        self.link.transmit(frame);
    }
    fn flush(&self) {
        self.link.flush();
    }
    fn medium(&self) -> Medium {
        self.link.medium()
    }
    fn mtu(&self) -> usize {
        self.link.mtu()
    }
    fn mac(&self) -> Mac {
        self.link.mac()
    }
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }
}

struct Bench {
    peer: Peer,
    router: Arc<Router>,
    own: IpAddr,
    host: IpAddr,
    port: u16,
}

impl Bench {
    fn new(link: &Arc<PacketLink>, family: usize, offload: bool) -> Bench {
        let capabilities = if offload { link.capabilities() } else { Capabilities::default() };
        let state = RouterState {
            random: SeededRandom::new(3),
            loss: 0,
            frames: 0,
            mtu: usize::MAX,
            answers: Vec::new(),
        };
        let router =
            Arc::new(Router { link: link.clone(), capabilities, state: std::sync::Mutex::new(state) });
        let peer = peer_over(link.clone(), router.clone(), 0);
        Bench { peer, router, own: address(OWN[family]), host: address(HOST[family]), port: 20_000 }
    }

    /// A moment of the engine, and of the router.
    fn step(&mut self) {
        let mtu = self.router.state.lock().expect("the router").mtu;
        let link = self.router.link.clone();
        self.peer.step_with(|frame: &RxFrame| {
            let segment = frame.segment.map(usize::from);
            let ip = matches!(frame.data[12..14], [8, 0] | [0x86, 0xdd]);
            if !ip || packet_length(frame.data.len(), segment, &frame.data) <= mtu {
                return true;
            }
            let to: [u8; 6] = frame.data[6..12].try_into().expect("six bytes");
            link.transmit(TxFrame::with_body(too_big(&frame.data, mtu, to).into()));
            false
        });
        let answers = std::mem::take(&mut self.router.state.lock().expect("the router").answers);
        for answer in answers {
            let now = self.peer.now();
            self.peer.engine.receive(now, 2, [RxFrame::from(answer)]);
        }
        self.peer.link.flush();
    }

    fn run(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.step();
        }
    }

    /// Until something is so; fails after two minutes.
    fn until<R>(&mut self, what: &str, mut so: impl FnMut(&mut Peer) -> Option<R>) -> R {
        let begun = Instant::now();
        loop {
            if let Some(result) = so(&mut self.peer) {
                return result;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "{what}");
            self.step();
        }
    }

    /// The engine connects to a listener of the host.
    fn connect(&mut self, options: ConnOptions) -> (Handle, TcpStream) {
        let listener = TcpListener::bind(SocketAddr::new(self.host, 0)).expect("a listener");
        let to = listener.local_addr().expect("its address");
        self.port += 1;
        let own = SocketAddr::new(self.own, self.port);
        let engine = &mut self.peer.engine;
        engine.set_now(Time(self.peer.begun.elapsed().as_nanos() as u64));
        let handle = engine.tcp.connect(&mut engine.net, own, to, options, None).expect("begun");
        self.until("connected", |peer| (peer.state(handle) == 1).then_some(()));
        (handle, listener.accept().expect("accepted").0)
    }

    /// The host connects to a listener of the engine.
    fn accept(&mut self, options: ConnOptions) -> (Handle, TcpStream) {
        let own = SocketAddr::new(self.own, PORT);
        let engine = &mut self.peer.engine;
        let listener = engine.tcp.listen(own, false, 5, options, None);
        let client = std::thread::spawn(move || TcpStream::connect(own).expect("connected"));
        let accepted = self.until("accepted", |peer| peer.engine.tcp.accept(listener).ok());
        let engine = &mut self.peer.engine;
        engine.tcp.close_listener(&mut engine.net, listener);
        (accepted.connection, client.join().expect("the client"))
    }

    fn send(&mut self, handle: Handle, data: &[u8]) {
        let mut done = 0;
        self.until("sent", |peer| {
            let now = peer.now();
            peer.engine.set_now(now);
            let end = (done + 65_536).min(data.len());
            match peer.engine.tcp.send(&mut peer.engine.net, handle, &data[done..end]) {
                Ok(count) => done += count,
                Err(Error::WouldBlock) => {}
                Err(error) => panic!("{error:?} after {done}"),
            }
            (done == data.len()).then_some(())
        });
    }

    fn receive(&mut self, handle: Handle) -> Result<Vec<u8>, Error> {
        let mut piece = vec![0; 65_536];
        self.until("received", |peer| {
            let now = peer.now();
            peer.engine.set_now(now);
            match peer.engine.tcp.receive_into(&mut peer.engine.net, handle, &mut piece) {
                Ok(count) => Some(Ok(piece[..count].to_vec())),
                Err(Error::WouldBlock) => None,
                Err(error) => Some(Err(error)),
            }
        })
    }

    fn read_all(&mut self, handle: Handle) -> Vec<u8> {
        let mut data = Vec::new();
        loop {
            match self.receive(handle).expect("no error") {
                piece if piece.is_empty() => return data,
                piece => data.extend_from_slice(&piece),
            }
        }
    }

    fn shut(&mut self, handle: Handle) {
        let engine = &mut self.peer.engine;
        engine.tcp.shutdown_write(&mut engine.net, handle).expect("shut down");
    }

    fn close(&mut self, handle: Handle) {
        let engine = &mut self.peer.engine;
        engine.tcp.close(&mut engine.net, handle);
        self.run(Duration::from_millis(20));
    }
}

impl Peer {
    fn state(&self, handle: Handle) -> u8 {
        self.engine.tcp.state(handle).map_or(0, |state| state.number())
    }
}

fn kind(result: std::io::Result<usize>) -> Result<usize, std::io::ErrorKind> {
    result.map_err(|error| error.kind())
}

fn resets(bench: &mut Bench) {
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
    let mut byte = [0];
    // The engine aborts.
    let (handle, mut stream) = bench.connect(ConnOptions::default());
    let engine = &mut bench.peer.engine;
    engine.tcp.abort(&mut engine.net, handle);
    bench.close(handle);
    assert_eq!(kind(stream.read(&mut byte)), Err(ConnectionReset));
    // The engine closes with something unread.
    let (handle, mut stream) = bench.accept(ConnOptions::default());
    stream.write_all(b"unread").expect("written");
    bench.until("data", |peer| (peer.engine.tcp.queues(handle).0 == 6).then_some(()));
    bench.close(handle);
    assert_eq!(kind(stream.read(&mut byte)), Err(ConnectionReset));
    // The host closes with something unread.
    let (handle, stream) = bench.connect(ConnOptions::default());
    bench.send(handle, b"unread");
    bench.run(Duration::from_millis(30));
    drop(stream);
    assert_eq!(bench.receive(handle), Err(Error::ConnectionReset));
    bench.close(handle);
    // Nobody listens, on either side.
    let own = SocketAddr::new(bench.own, 81);
    let client = std::thread::spawn(move || TcpStream::connect(own).map(|_| 0));
    bench.until("refused", |_| client.is_finished().then_some(()));
    assert_eq!(kind(client.join().expect("the client")), Err(ConnectionRefused));
    let (own, to) = (SocketAddr::new(bench.own, 19_999), SocketAddr::new(bench.host, 1));
    let engine = &mut bench.peer.engine;
    let handle = engine.tcp.connect(&mut engine.net, own, to, ConnOptions::default(), None).expect("begun");
    let error = bench.until("refused", |peer| peer.engine.tcp.take_error(handle));
    assert_eq!(error, Error::ConnectionRefused);
    bench.close(handle);
}

fn half_close(bench: &mut Bench) {
    let data = pattern(300_000, 5);
    let (handle, mut stream) = bench.accept(ConnOptions::default());
    stream.write_all(b"first").expect("written");
    stream.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(bench.read_all(handle), b"first");
    assert_eq!(bench.peer.state(handle), 8, "CLOSE-WAIT");
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).map(|_| got)
    });
    bench.send(handle, &data);
    bench.shut(handle);
    bench.until("read", |_| reader.is_finished().then_some(()));
    assert!(reader.join().expect("the reader").expect("no error") == data);
    bench.until("over", |peer| (peer.state(handle) == 7).then_some(()));
    bench.close(handle);
    // The other way round.
    let (handle, mut stream) = bench.connect(ConnOptions::default());
    bench.shut(handle);
    bench.until("FIN-WAIT-2", |peer| (peer.state(handle) == 5).then_some(()));
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
    stream.write_all(b"late").expect("written");
    drop(stream);
    assert_eq!(bench.read_all(handle), b"late");
    bench.close(handle);
    assert!(bench.peer.engine.tcp.list().iter().any(|line| line.state == 6), "TIME-WAIT");
}

fn closed_windows(bench: &mut Bench) {
    // The host's window closes: its buffer is small.
    let sysctl = "/proc/sys/net/ipv4/tcp_rmem";
    let old = std::fs::read_to_string(sysctl).unwrap_or_default();
    let small = std::fs::write(sysctl, "4096 16384 16384").is_ok();
    let data = pattern(400_000, 6);
    let (handle, mut stream) = bench.connect(ConnOptions::default());
    let engine = &mut bench.peer.engine;
    let mut done = engine.tcp.send(&mut engine.net, handle, &data[..100_000]).expect("room");
    bench.run(Duration::from_millis(1500));
    let info = bench.peer.engine.tcp.info(handle, bench.peer.now()).expect("a connection");
    assert!(!small || (info.not_sent > 0 && info.probes > 0), "the window is closed: {info:?}");
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).map(|_| got)
    });
    while done < data.len() {
        let end = (done + 50_000).min(data.len());
        bench.send(handle, &data[done..end]);
        done = end;
    }
    bench.shut(handle);
    bench.until("read", |_| reader.is_finished().then_some(()));
    assert!(reader.join().expect("the reader").expect("no error") == data);
    bench.close(handle);
    let _ = std::fs::write(sysctl, old);
    // The engine's window closes.
    let options = ConnOptions { receive_buffer: Some(4096), ..ConnOptions::default() };
    let (handle, mut stream) = bench.accept(options);
    let expected = data.clone();
    let writer = std::thread::spawn(move || {
        stream.write_all(&data).expect("written");
        stream
    });
    bench.run(Duration::from_millis(1500));
    // The window is told in units of 128 bytes, and never taken back.
    let queued = bench.peer.engine.tcp.queues(handle).0;
    assert!(queued <= 4096 + 1024, "no more than there is room for: {queued}");
    let mut got = Vec::new();
    while got.len() < expected.len() {
        got.extend_from_slice(&bench.receive(handle).expect("data"));
    }
    assert!(got == expected);
    drop(writer.join().expect("the writer"));
    bench.close(handle);
}

fn keep_alive(bench: &mut Bench) {
    let options = ConnOptions {
        keep_alive: true,
        keep_idle: Duration::from_millis(300),
        keep_interval: Duration::from_millis(300),
        keep_count: 3,
        ..ConnOptions::default()
    };
    let (handle, stream) = bench.connect(options);
    let before = bench.peer.engine.tcp.info(handle, bench.peer.now()).expect("a connection").segments_out;
    bench.run(Duration::from_millis(1600));
    let info = bench.peer.engine.tcp.info(handle, bench.peer.now()).expect("a connection");
    assert!(info.state == 1 && info.segments_out >= before + 3, "the host answers: {info:?}");
    bench.router.state.lock().expect("the router").loss = 1000;
    let error = bench.until("noticed", |peer| peer.engine.tcp.take_error(handle));
    assert_eq!(error, Error::TimedOut);
    bench.router.state.lock().expect("the router").loss = 0;
    bench.close(handle);
    drop(stream);
}

/// Both sides send at once over a link that loses frames of both.
fn losses(bench: &mut Bench) {
    let (one, two) = (pattern(1 << 20, 7), pattern(1 << 20, 8));
    bench.router.state.lock().expect("the router").loss = 30;
    bench.peer.loss = 30;
    let (handle, stream) = bench.connect(ConnOptions::default());
    let mut writing = stream.try_clone().expect("a copy");
    let mut reading = stream;
    let (sent, expected) = (two.clone(), one.clone());
    let writer = std::thread::spawn(move || {
        writing.write_all(&sent).expect("written");
        writing.shutdown(Shutdown::Write).expect("shut down");
    });
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        reading.read_to_end(&mut got).expect("read");
        got == expected
    });
    bench.send(handle, &one);
    bench.shut(handle);
    assert!(bench.read_all(handle) == two, "what the engine got is right");
    bench.until("all is through", |_| (reader.is_finished() && writer.is_finished()).then_some(()));
    assert!(reader.join().expect("the reader"), "what the host got is right");
    writer.join().expect("the writer");
    let info = bench.peer.engine.tcp.info(handle, bench.peer.now()).expect("a connection");
    assert!(info.sack && info.total_retransmissions > 0, "{info:?}");
    bench.router.state.lock().expect("the router").loss = 0;
    bench.peer.loss = 0;
    bench.close(handle);
}

/// A router on the way takes packets of 1280 bytes, which both sides have to find out.
fn small_path(bench: &mut Bench) {
    // What the host has learnt before would make it announce small segments.
    assert!(ip("route flush cache") && ip("-6 route flush cache"));
    bench.router.state.lock().expect("the router").mtu = 1280;
    let (one, two) = (pattern(300_000, 9), pattern(300_000, 10));
    let (handle, mut stream) = bench.accept(ConnOptions::default());
    let (sent, expected) = (two.clone(), one.clone());
    let talker = std::thread::spawn(move || {
        stream.write_all(&sent).expect("written");
        stream.shutdown(Shutdown::Write).expect("shut down");
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("read");
        got == expected
    });
    assert!(bench.read_all(handle) == two, "what the engine got is right");
    bench.send(handle, &one);
    bench.shut(handle);
    bench.until("read", |_| talker.is_finished().then_some(()));
    assert!(talker.join().expect("the host's side"), "what the host got is right");
    let info = bench.peer.engine.tcp.info(handle, bench.peer.now()).expect("a connection");
    assert_eq!(info.path_mtu, 1280);
    bench.close(handle);
    bench.router.state.lock().expect("the router").mtu = usize::MAX;
}

fn all() {
    let Some(link) = namespace() else { return };
    for (family, offload) in [(0, true), (1, false), (0, false), (1, true)] {
        let mut bench = Bench::new(&link, family, offload);
        resets(&mut bench);
        half_close(&mut bench);
        losses(&mut bench);
        small_path(&mut bench);
        if offload {
            closed_windows(&mut bench);
            keep_alive(&mut bench);
        }
    }
}

#[test]
fn the_hosts_tcp_and_the_engines_manners() {
    std::thread::spawn(all).join().expect("no failure");
}
