use super::*;
use crate::env::testing::Told;

fn send(e: &LocalEnd, data: &[u8]) -> Result<usize> {
    let n = e.reserve(data.len())?;
    e.commit(n, Some(Buf::copy_of(&data[..n])), false);
    Ok(n)
}

fn receive(e: &LocalEnd, max: usize) -> Result<Vec<u8>> {
    Ok(e.take(max, TakeHow::default())?.parts.iter().flat_map(|b| b.bytes().to_vec()).collect())
}

const LO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn pair_of(ledger: &Arc<Ledger>) -> (Arc<LocalEnd>, Arc<LocalEnd>) {
    pair(ledger, LO, &StreamOptions::default(), &StreamOptions::default())
}

fn connected() -> (Arc<LocalEnd>, Arc<LocalEnd>, Arc<Told>, Arc<Told>) {
    let (a, b) = pair_of(&Arc::default());
    let (wa, wb) = (Arc::new(Told::default()), Arc::new(Told::default()));
    a.set_waker(wa.clone());
    b.set_waker(wb.clone());
    (a, b, wa, wb)
}

#[test]
fn data_arrives_in_order_and_the_end_is_seen() {
    let (a, b, _, wb) = connected();
    assert_eq!(receive(&b, 10), Err(NetError::WouldBlock));
    send(&a, b"hello").unwrap();
    send(&a, b" world").unwrap();
    assert_eq!(wb.take(), Events::READABLE.0);
    assert_eq!(b.readable(false), 11);
    assert_eq!(receive(&b, 3).unwrap(), b"hel");
    let peeked = b.take(100, TakeHow { peek: true, ..TakeHow::default() }).unwrap();
    assert_eq!(peeked.len, 8);
    assert_eq!(receive(&b, 100).unwrap(), b"lo world");
    a.shutdown(false, true);
    assert_eq!(receive(&b, 100).unwrap(), b"");
    assert_eq!((a.state(), b.state()), (TcpState::FinWait2, TcpState::CloseWait));
    send(&b, b"x").unwrap();
    assert_eq!(receive(&a, 9).unwrap(), b"x");
    assert_eq!(b.close(false), Parting::Free);
    assert_eq!(a.close(false), Parting::Wait(TIME_WAIT));
}

#[test]
fn unread_data_at_close_resets() {
    let (a, b, wa, _) = connected();
    send(&a, b"hello").unwrap();
    send(&b, b"left").unwrap();
    assert_eq!(b.close(false), Parting::Free);
    assert!(Events(wa.take()).contains(Events::ERR));
    assert!(a.poll(1, false).contains(Events::ERR | Events::HUP));
    assert_eq!(receive(&a, 9).unwrap(), b"left");
    assert_eq!(receive(&a, 9), Err(NetError::Reset));
    assert_eq!(receive(&a, 9).unwrap(), b"");
    assert_eq!(send(&a, b"x"), Err(NetError::BrokenPipe));
}

#[test]
fn writing_to_a_closed_end_breaks_at_the_second_time() {
    let (a, b, _, _) = connected();
    b.close(false);
    assert_eq!(send(&a, b"x"), Ok(1));
    assert_eq!(receive(&a, 1).unwrap(), b"");
    assert_eq!(send(&a, b"x"), Err(NetError::BrokenPipe));
}

#[test]
fn the_urgent_byte_stands_beside_the_stream() {
    let (a, b, _, wb) = connected();
    send(&a, b"ab").unwrap();
    let n = a.reserve(1).unwrap();
    a.commit(n, Some(Buf::copy_of(b"!")), true);
    send(&a, b"cd").unwrap();
    assert!(Events(wb.take()).contains(Events::PRI));
    assert!(!b.at_mark());
    assert_eq!(b.readable(false), 2);
    assert_eq!(b.take_urgent(false), Ok(Some(b'!')));
    assert_eq!(b.take_urgent(false), Err(NetError::Invalid));
    assert_eq!(receive(&b, 10).unwrap(), b"ab");
    assert!(b.at_mark());
    assert_eq!(receive(&b, 10).unwrap(), b"cd");
}

#[test]
fn a_full_direction_tells_when_there_is_room() {
    let (a, b, wa, _) = connected();
    a.configure(&StreamOptions { send_buffer: Some(1000), ..StreamOptions::default() });
    b.configure(&StreamOptions { receive_buffer: Some(1000), ..StreamOptions::default() });
    let mut total = 0;
    while let Ok(n) = send(&a, &[7; 300]) {
        total += n;
    }
    assert_eq!(total, 2000);
    assert!(!a.poll(1, false).contains(Events::WRITABLE));
    assert_eq!(receive(&b, 100).unwrap().len(), 100);
    assert_eq!(wa.take(), 0);
    assert_eq!(receive(&b, 1000).unwrap().len(), 1000);
    assert!(Events(wa.take()).contains(Events::WRITABLE));
}

#[test]
fn a_socket_talks_to_itself() {
    let e = loopback(&Arc::default(), LO, &StreamOptions::default());
    send(&e, b"me").unwrap();
    assert_eq!(receive(&e, 9).unwrap(), b"me");
    e.shutdown(false, true);
    assert_eq!(receive(&e, 9).unwrap(), b"");
}

#[test]
fn what_is_queued_is_counted_and_limited() {
    let ledger: Arc<Ledger> = Arc::default();
    ledger.set_most(100_000);
    let ends: Vec<_> = (0..10).map(|_| pair_of(&ledger)).collect();
    for (a, _) in &ends {
        while send(a, &[1; 10_000]).is_ok() {}
    }
    assert!((100_000..170_000).contains(&ledger.used()), "{}", ledger.used());
    // The poorest gets on.
    let (a, b) = pair_of(&ledger);
    assert!(send(&a, &[1; 3000]).is_ok());
    let mut got = 0;
    for (_, b) in &ends {
        got += receive(b, usize::MAX).unwrap().len();
    }
    assert_eq!((ledger.used(), got > 100_000), (3000, true));
    assert!(send(&a, &[1; 60_000]).is_ok());
    b.close(false);
    assert_eq!(ledger.used(), 0);
    drop((ends, a, b));
    assert_eq!(ledger.used(), 0);
}
