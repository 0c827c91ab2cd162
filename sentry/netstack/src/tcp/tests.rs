use super::*;
use crate::buf::Buf;
use crate::env::testing::{TestEnv, Told};

fn stack() -> Arc<Stack> {
    Stack::new(Arc::new(TestEnv::default()), true)
}

fn socket(s: &Arc<Stack>) -> (Arc<TcpSocket>, Arc<Told>) {
    let told = Arc::new(Told::default());
    (TcpSocket::new(s, Family::V4, told.clone()), told)
}

fn at(ip: &str, port: u16) -> Endpoint {
    Endpoint::new(ip.parse().unwrap(), port)
}

const O: BindOptions = BindOptions::PLAIN;

#[test]
fn connect_accept_talk_close() {
    let s = stack();
    let (l, told) = socket(&s);
    l.bind(at("127.0.0.1", 80), O).unwrap();
    l.listen(5, O).unwrap();
    assert_eq!(l.accept().err(), Some(NetError::WouldBlock));
    let (c, _) = socket(&s);
    assert_eq!(c.connect(at("127.0.0.1", 80), O), Err(NetError::InProgress));
    assert_eq!(c.connected(), Ok(()));
    assert_eq!(c.connect(at("127.0.0.1", 80), O), Err(NetError::Connected));
    assert_eq!(told.take(), Events::READABLE.0);
    let server = l.accepted(l.accept().ok().unwrap(), Arc::new(Told::default()));
    assert_eq!(server.remote(), Some(c.local()));
    let t = c.transport().unwrap();
    let n = t.reserve(5).unwrap();
    t.commit(n, Some(Buf::copy_of(b"hello")), false);
    assert!(server.poll(1, false).contains(Events::READABLE));
    let port = c.local().port;
    server.transport().unwrap().take(10, TakeHow::default()).unwrap();
    c.close(false);
    server.close(false);
    assert_eq!(s.time_wait().len(), 1);
    assert_eq!(s.time_wait()[0].0.port, port);
}

#[test]
fn nobody_listens() {
    let s = stack();
    let (c, told) = socket(&s);
    assert_eq!(c.connect(at("127.0.0.1", 81), O), Err(NetError::InProgress));
    assert_eq!(told.take(), Events::ALL.0);
    assert!(c.poll(1, false).contains(Events::ERR | Events::HUP | Events::WRITABLE | Events::READABLE));
    assert_eq!(c.connected(), Err(NetError::Refused));
    assert_ne!(c.local().port, 0, "getsockname(2) goes on telling the port that connect chose");
    assert_eq!(c.connect(at("8.8.8.8", 81), O), Err(NetError::NetworkUnreachable));
}

#[test]
fn a_full_backlog_makes_clients_wait() {
    let s = stack();
    let (l, _) = socket(&s);
    l.bind(at("0.0.0.0", 80), O).unwrap();
    l.listen(0, O).unwrap();
    let clients: Vec<_> = (0..2).map(|_| socket(&s).0).collect();
    for c in &clients {
        assert_eq!(c.connect(at("127.0.0.1", 80), O), Err(NetError::InProgress));
    }
    assert_eq!(clients[1].connected(), Err(NetError::InProgress));
    assert_eq!(clients[1].state(), TcpState::SynSent);
    l.accept().ok().unwrap();
    assert_eq!(clients[1].connected(), Ok(()));
    l.close(false);
    assert!(clients[1].poll(1, false).contains(Events::ERR | Events::HUP));
}
