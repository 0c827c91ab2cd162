use super::*;
use crate::env::testing::{TestEnv, Told};
use crate::extensions::Extensions;
use std::net::IpAddr;

fn stack() -> Arc<Stack> {
    Stack::new(Arc::new(TestEnv::default()), true)
}

fn socket(s: &Arc<Stack>, family: Family) -> (Arc<UdpSocket>, Arc<Told>) {
    let told = Arc::new(Told::default());
    (UdpSocket::new(s, family, false, told.clone()), told)
}

fn at(ip: &str, port: u16) -> Endpoint {
    Endpoint::new(ip.parse().unwrap(), port)
}

const HOW: SendHow = SendHow::PLAIN;

#[test]
fn datagrams_find_the_most_special_socket() {
    let s = stack();
    let o = BindOptions { reuse_addr: true, ..BindOptions::default() };
    let (any, _) = socket(&s, Family::V4);
    let (own, told) = socket(&s, Family::V4);
    any.bind(at("0.0.0.0", 5000), o).unwrap();
    own.bind(at("127.0.0.1", 5000), o).unwrap();
    let (c, _) = socket(&s, Family::V4);
    c.send(Some(at("127.0.0.1", 5000)), Buf::copy_of(b"hi"), &HOW, o).unwrap();
    assert_eq!(told.take(), Events::READABLE.0);
    let d = own.receive().unwrap().unwrap();
    assert_eq!((d.data.bytes(), d.from.port), (&b"hi"[..], c.local().port));
    assert_eq!(any.receive().unwrap_err(), NetError::WouldBlock);
    c.send(Some(at("127.0.0.7", 5000)), Buf::copy_of(b"x"), &HOW, o).unwrap();
    assert!(any.receive().unwrap().is_some());
}

#[test]
fn nobody_there_is_told_to_the_connected() {
    let s = stack();
    let o = BindOptions::default();
    let (c, told) = socket(&s, Family::V4);
    c.connect(at("127.0.0.1", 9), o, &HOW).unwrap();
    c.send(None, Buf::copy_of(b"x"), &HOW, o).unwrap();
    assert!(Events(told.take()).contains(Events::ERR));
    assert_eq!(c.send(None, Buf::copy_of(b"x"), &HOW, o), Err(NetError::Refused));
    assert_eq!(c.send(Some(at("127.255.255.255", 9)), Buf::copy_of(b"x"), &HOW, o), Err(NetError::Access));
}

#[test]
fn a_v6_wildcard_hears_v4() {
    let s = stack();
    let o = BindOptions::default();
    let (six, _) = socket(&s, Family::V6);
    six.bind(at("::", 7000), o).unwrap();
    let (c, _) = socket(&s, Family::V4);
    c.send(Some(at("127.0.0.1", 7000)), Buf::copy_of(b"4"), &HOW, o).unwrap();
    assert_eq!(six.receive().unwrap().unwrap().from.ip, "127.0.0.1".parse::<IpAddr>().unwrap());
    let (c6, _) = socket(&s, Family::V6);
    c6.send(Some(at("::1", 7000)), Buf::copy_of(b"6"), &HOW, o).unwrap();
    assert_eq!(six.receive().unwrap().unwrap().data.bytes(), b"6");
}

#[test]
fn a_flow_has_a_label() {
    let s = stack();
    let o = BindOptions::default();
    let (a, _) = socket(&s, Family::V6);
    a.bind(at("::1", 5000), o).unwrap();
    let how = SendHow { auto_flow: true, ..HOW };
    let flow = |b: &UdpSocket, how: &SendHow| {
        b.send(Some(at("::1", 5000)), Buf::copy_of(b"x"), how, o).unwrap();
        a.receive().unwrap().unwrap().flow
    };
    let ((b, _), (c, _)) = (socket(&s, Family::V6), socket(&s, Family::V6));
    let label = flow(&b, &how);
    assert!(label != 0 && label <= 0xf_ffff);
    assert_eq!((flow(&b, &how), flow(&b, &HOW)), (label, 0));
    assert_ne!(flow(&c, &how), label);
    assert_eq!(flow(&b, &SendHow { flow: 7, ..how.clone() }), 7);
}

/// Who sends headers and no data fills a queue as well.
#[test]
fn headers_count_in_a_queue() {
    let s = stack();
    let o = BindOptions::default();
    let (a, _) = socket(&s, Family::V6);
    a.bind(at("::1", 5000), o).unwrap();
    a.set_limit(10_000);
    let destination = Some([&[0u8, 0][..], &[0x1e, 4, 1, 2, 3, 4]].concat());
    let long = Extensions { destination, ..Extensions::default() };
    let how = SendHow { extensions: Some(Arc::new(long)), ..HOW };
    let (b, _) = socket(&s, Family::V6);
    for _ in 0..20 {
        b.send(Some(at("::1", 5000)), Buf::copy_of(b""), &how, o).unwrap();
    }
    let with = a.usage().0;
    let each = (with / 13, with % 13);
    assert_eq!((a.usage().1, each), (7, (776, 0)));
}
