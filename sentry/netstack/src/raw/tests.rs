use super::*;
use crate::env::testing::{TestEnv, Told};

fn how() -> SendHow {
    SendHow::PLAIN
}

#[test]
fn an_echo_on_loopback_is_seen_by_raw_and_ping_sockets() {
    let stack = Stack::new(Arc::new(TestEnv::default()), true);
    let waker = Arc::new(Told::default());
    let raw = RawSocket::new(&stack, Family::V4, ICMP, false, waker.clone());
    let ping = RawSocket::new(&stack, Family::V4, ICMP, true, waker);
    let to = Endpoint::new("127.0.0.1".parse().unwrap(), 0);
    let request = [8, 0, 0, 0, 0, 0, 0, 1, b'x'];
    ping.send(Some(to), &request, &how(), RawHow::default()).unwrap();
    let answer = ping.receive().unwrap().unwrap();
    assert_eq!((answer.data.bytes()[0], answer.data.bytes()[8]), (0, b'x'));
    assert_eq!(answer.to.port, ping.local().port);
    let seen: Vec<u8> = (0..2).map(|_| raw.receive().unwrap().unwrap().data.bytes()[20]).collect();
    assert_eq!(seen, [8, 0]);
    assert_eq!(raw.receive().unwrap_err(), NetError::WouldBlock);
    raw.set_filter([1 << 8, 0, 0, 0, 0, 0, 0, 0]);
    ping.send(Some(to), &request, &how(), RawHow::default()).unwrap();
    assert_eq!(raw.receive().unwrap().unwrap().data.bytes()[20], 0);
}

#[test]
fn ping_sockets_send_requests_only() {
    let stack = Stack::new(Arc::new(TestEnv::default()), true);
    let ping = RawSocket::new(&stack, Family::V6, ICMPV6, true, Arc::new(Told::default()));
    let to = Endpoint::new("::1".parse().unwrap(), 0);
    let send = |data: &[u8]| ping.send(Some(to), data, &how(), RawHow::default());
    assert_eq!(send(&[8, 0, 0, 0, 0, 0, 0, 0]), Err(NetError::Invalid));
    assert_eq!(send(&[128, 0, 0]), Err(NetError::Invalid));
    send(&[128, 0, 0, 0, 0, 0, 0, 7]).unwrap();
    assert_eq!(ping.receive().unwrap().unwrap().data.bytes()[7], 7);
}
