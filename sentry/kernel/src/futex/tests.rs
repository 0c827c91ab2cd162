//! What needs no task: keys, operations, moving.

use super::*;
use crate::mm::WordKey;

fn entry(key: WordKey, bitset: u32) -> Arc<Entry> {
    Arc::new(Entry {
        key: std::sync::Mutex::new(key),
        bitset,
        woken: AtomicBool::new(false),
        waiter: Arc::default(),
        pi_tid: AtomicU32::new(0),
        requeue_to: None,
    })
}

#[test]
fn wakes_in_order_and_by_bits() {
    let f = Futexes::default();
    let key = WordKey::Private(1, 4096);
    let e: Vec<_> = [1, 2, 3, u32::MAX].map(|b| entry(key, b)).into();
    f.bucket(key).lock().extend(e.iter().cloned());
    let other = entry(WordKey::Private(2, 4096), 1);
    f.bucket(other.key()).lock().push(other.clone());
    assert_eq!(f.wake_key(key, 1, 2), 1);
    assert!(e[1].is_woken());
    assert_eq!(f.wake_key(key, 2, 1), 2);
    assert!(e[0].is_woken() && e[2].is_woken() && !e[3].is_woken());
    assert!(f.remove(&e[3]) && !f.remove(&e[3]));
    assert_eq!(f.wake_key(key, 9, MATCH_ANY), 0);
    assert!(f.remove(&other));
}

#[test]
fn wake_operations() {
    let op = |op: u32, cmp: u32, a: u32, b: u32| {
        WakeOp::decode(op << 28 | cmp << 24 | (a & 0xfff) << 12 | b & 0xfff)
    };
    assert_eq!(op(1, 0, 0xfff, 0).unwrap().apply(5), 4, "arguments are signed");
    assert_eq!(op(8 | 2, 0, 4, 0).unwrap().apply(1), 17, "shifted argument");
    assert_eq!(op(3, 0, 3, 0).unwrap().apply(7), 4);
    assert_eq!(op(4, 0, 3, 0).unwrap().apply(5), 6);
    assert!(op(0, 2, 0, 0xfff).unwrap().matches(u32::MAX - 1));
    assert!(!op(0, 4, 0, 0).unwrap().matches(u32::MAX));
    assert!(op(5, 0, 0, 0).is_err() && op(0, 6, 0, 0).is_err());
}
