//! Address spaces over the mock platform.

use super::*;
use abi::PAGE_SIZE;
use platform::mock::{MockPlatform, MockSpace, Step};
use platform::{Access, FaultInfo, Prot, Trap};
use std::collections::BTreeMap;

const RW: Prot = Prot::READ.union(Prot::WRITE);
const P: u64 = PAGE_SIZE;

/// Numbers below the one given, the same for the same seed.
fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |n| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    }
}

fn new_mm() -> Arc<Mm> {
    let platform: Arc<dyn Platform> = MockPlatform::new(|_| Step::Trap(Trap::Dead));
    Mm::on_platform(&platform, &MemoryFile::new().unwrap(), Arc::new(super::hot::HotPages::new()), 0).unwrap()
}

fn args(at: Placement, pages: u64, prot: Prot) -> MmapArgs {
    MmapArgs { at, len: pages * P, prot, flags: Vma::MAY_ALL, file: None, populate: false, name: None }
}

fn anon(mm: &Mm, at: u64, pages: u64, prot: Prot) -> u64 {
    mm.mmap(args(Placement::Fixed(at), pages, prot), &MmLimits::NONE).unwrap()
}

/// Accesses memory as the guest's processor does: faults are answered until the access succeeds.
fn guest(mm: &Mm, addr: u64, data: &mut [u8], write: bool, known: bool) -> Result<(), FaultSignal> {
    let space: &MockSpace = mm.space().as_any().downcast_ref().unwrap();
    for _ in 0..10 {
        match space.access(addr, data, write) {
            Ok(()) => return Ok(()),
            Err(f) => mm.handle_fault(&FaultInfo { access: f.access.filter(|_| known), ..f }, 0x1234)?,
        }
    }
    panic!("the fault at {addr:#x} does not end");
}

fn put(mm: &Mm, addr: u64, v: u8) -> Result<(), FaultSignal> {
    guest(mm, addr, &mut [v], true, addr % 2 == 0)
}

fn take(mm: &Mm, addr: u64) -> Result<u8, FaultSignal> {
    let mut b = [0];
    guest(mm, addr, &mut b, false, addr % 2 == 0)?;
    Ok(b[0])
}

#[test]
fn faults_and_copies_agree() {
    let mm = new_mm();
    let a = anon(&mm, 0x10_0000, 8, RW);
    put(&mm, a + 5, 7).unwrap();
    let mut out = [0; 3];
    mm.copy_in(a + 4, &mut out).unwrap();
    assert_eq!(out, [0, 7, 0]);
    mm.copy_out(a + P - 1, b"xyz").unwrap();
    assert_eq!(take(&mm, a + P), Ok(b'y'));
    assert_eq!(take(&mm, a - 1).unwrap_err().code, 1);
    assert_eq!(mm.copy_out_partial(a + 8 * P - 2, b"abcd"), 2);
    assert_eq!(mm.copy_in(TASK_SIZE - 1, &mut [0; 2]), Err(Errno::EFAULT));
    assert_eq!(mm.copy_in(u64::MAX, &mut [0; 2]), Err(Errno::EFAULT));
    mm.copy_out(a, b"hello\0").unwrap();
    assert_eq!(mm.copy_in_str(a, 100), Ok(Some(b"hello".to_vec())));
    assert_eq!(mm.copy_in_str(a, 5), Ok(None));
    assert_eq!(mm.copy_in_str(a - 3, 5), Err(Errno::EFAULT));
    mm.mprotect(a + P, P, Prot::READ, false, &MmLimits::NONE).unwrap();
    assert_eq!(put(&mm, a + P, 1).unwrap_err().code, 2);
    assert_eq!(put(&mm, a + P + 1, 1).unwrap_err().code, 2);
    assert_eq!(mm.copy_out(a + P, b"1"), Err(Errno::EFAULT));
    assert_eq!(mm.copy_out_forced(a + P, b"f"), 1);
    assert_eq!(take(&mm, a + P), Ok(b'f'));
    mm.mprotect(a + P, P, Prot::empty(), false, &MmLimits::NONE).unwrap();
    assert_eq!(take(&mm, a + P).unwrap_err().code, 2);
    mm.mprotect(a, 2 * P, RW, false, &MmLimits::NONE).unwrap();
    assert_eq!(take(&mm, a + P), Ok(b'f'));
    assert_eq!(mm.map_count(), 1);
}

#[test]
fn fork_copies_on_write_both_ways() {
    let mm = new_mm();
    let a = anon(&mm, 0x10_0000, 64, RW);
    let shared =
        MmapFile { file: VmFile { object: SharedMemory::new(&mm.memfile, 0, 4 * P), file: None }, offset: 0 };
    let flags = Vma::MAY_ALL | VmFlags::SHARED;
    let s = MmapArgs { flags, file: Some(shared), ..args(Placement::Hint(0), 4, RW) };
    let s = mm.mmap(s, &MmLimits::NONE).unwrap();
    for i in 0..64 {
        put(&mm, a + i * P, i as u8).unwrap();
    }
    put(&mm, s, 1).unwrap();
    let child = mm.fork().unwrap();
    assert_ne!(child.id(), mm.id());
    put(&child, a, 100).unwrap();
    put(&mm, a + 63 * P, 200).unwrap();
    mm.copy_out(a + 40 * P, &[201]).unwrap();
    child.copy_out(a + 41 * P, &[101]).unwrap();
    put(&child, s, 2).unwrap();
    assert_eq!((take(&mm, a), take(&child, a)), (Ok(0), Ok(100)));
    assert_eq!((take(&mm, a + 63 * P), take(&child, a + 63 * P)), (Ok(200), Ok(63)));
    assert_eq!((take(&mm, a + 40 * P), take(&child, a + 40 * P)), (Ok(201), Ok(40)));
    assert_eq!((take(&mm, a + 41 * P), take(&child, a + 41 * P)), (Ok(41), Ok(101)));
    assert_eq!(take(&mm, s), Ok(2));
    let memfile = Arc::clone(&mm.memfile);
    drop(mm);
    for i in 1..40 {
        assert_eq!(take(&child, a + i * P), Ok(i as u8));
        put(&child, a + i * P, 1).unwrap();
    }
    drop(child);
    assert_eq!(memfile.usage(), 0);
}

#[test]
fn mremap_moves_grows_and_doubles() {
    let mm = new_mm();
    let l = &MmLimits::NONE;
    let a = anon(&mm, 0x10_0000, 4, RW);
    anon(&mm, a + 4 * P, 1, Prot::READ);
    put(&mm, a + 3 * P, 9).unwrap();
    assert_eq!(mm.mremap(a, 4 * P, 8 * P, 0, 0, l), Err(Errno::ENOMEM));
    let b = mm.mremap(a, 4 * P, 8 * P, 1, 0, l).unwrap();
    assert_ne!(a, b);
    assert_eq!(take(&mm, b + 3 * P), Ok(9));
    assert_eq!(take(&mm, a).unwrap_err().code, 1);
    put(&mm, b + 7 * P, 3).unwrap();
    assert_eq!(mm.mremap(b, 8 * P, 2 * P, 0, 0, l), Ok(b));
    assert_eq!(take(&mm, b + 3 * P).unwrap_err().code, 1);
    assert_eq!(mm.mremap(b, 2 * P, 4 * P, 0, 0, l), Ok(b));
    assert_eq!(take(&mm, b + 3 * P), Ok(0));
    assert_eq!(mm.mremap(b, 0, 2 * P, 1, 0, l), Err(Errno::EINVAL));
    assert_eq!(mm.mremap(b, 4 * P, 4 * P, 3, b + P, l), Err(Errno::EINVAL));
    assert_eq!(mm.mremap(0x50_0000, P, P, 1, 0, l), Err(Errno::EFAULT));
    put(&mm, b, 5).unwrap();
    let c = mm.mremap(b, 4 * P, 4 * P, 5, 0, l).unwrap();
    assert_eq!((take(&mm, c), take(&mm, b)), (Ok(5), Ok(0)));
}

#[test]
fn places_and_limits() {
    let mm = new_mm();
    let l = &MmLimits::NONE;
    let a = mm.mmap(args(Placement::Hint(0), 1, RW), l).unwrap();
    let b = mm.mmap(args(Placement::Hint(0), 1, RW), l).unwrap();
    assert_eq!(b, a - P, "top down");
    assert_eq!(mm.map_count(), 1, "neighbours join");
    assert_eq!(mm.mmap(args(Placement::Hint(a + 123), 1, RW), l), Ok(b - P));
    assert_eq!(mm.mmap(args(Placement::FixedNoReplace(a), 1, RW), l), Err(Errno::EEXIST));
    assert_eq!(mm.mmap(args(Placement::Fixed(a + 1), 1, RW), l), Err(Errno::EINVAL));
    assert_eq!(mm.mmap(args(Placement::Fixed(0), 1, RW), l), Err(Errno::EPERM));
    assert_eq!(mm.mmap(args(Placement::Hint(0), 0, RW), l), Err(Errno::EINVAL));
    assert_eq!(mm.mmap(args(Placement::Hint(0), 1 << 40, RW), l), Err(Errno::ENOMEM));
    let low = mm.mmap(args(Placement::Low(0), 1, RW), l).unwrap();
    assert_eq!(low, 0x4000_0000);
    let tight = MmLimits { address_space: 5 * P, ..*l };
    assert!(mm.mmap(args(Placement::Hint(0), 1, RW), &tight).is_ok());
    assert_eq!(mm.mmap(args(Placement::Hint(0), 1, RW), &tight), Err(Errno::ENOMEM));
    let nolock = MmLimits { memlock: 0, may_lock: false, ..*l };
    assert_eq!(mm.mlock(a, P, false, &nolock), Err(Errno::EPERM));
    assert_eq!(mm.munmap(a, 0), Err(Errno::EINVAL));
    assert_eq!(mm.munmap(a + 1, P), Err(Errno::EINVAL));
    assert_eq!(mm.munmap(TASK_SIZE, P), Err(Errno::EINVAL));
    assert_eq!(mm.munmap(0x7000_0000, P), Ok(()));
}

#[test]
fn stack_grows_down_to_its_limit_and_guard() {
    let mm = new_mm();
    let top = 0x4000_0000u64;
    let flags = Vma::MAY_ALL | VmFlags::GROWSDOWN;
    let s = MmapArgs { flags, ..args(Placement::Fixed(top - P), 1, RW) };
    mm.mmap(s, &MmLimits::NONE).unwrap();
    mm.set_stack_limit(4 << 20);
    put(&mm, top - (1 << 20), 1).unwrap();
    put(&mm, top - (4 << 20), 1).unwrap();
    assert_eq!(put(&mm, top - (4 << 20) - 1, 1).unwrap_err().code, 1);
    mm.set_stack_limit(64 << 20);
    anon(&mm, top - (6 << 20), 1, RW);
    assert_eq!(put(&mm, top - (6 << 20) + P + (1 << 20) - P, 1).unwrap_err().code, 1);
    mm.copy_out(top - (6 << 20) + P + (1 << 20), b"1").unwrap();
}

#[test]
fn madvise_forgets_and_keeps() {
    let mm = new_mm();
    let a = anon(&mm, 0x10_0000, 4, RW);
    put(&mm, a, 1).unwrap();
    put(&mm, a + P, 2).unwrap();
    let m = |len, advice| mm.madvise(a, len, advice).map(|_| ());
    m(P, Advice::DontNeed).unwrap();
    assert_eq!((take(&mm, a), take(&mm, a + P)), (Ok(0), Ok(2)));
    assert_eq!(mm.mincore(a..a + 2 * P).unwrap(), vec![1, 1]);
    assert_eq!(m(5 * P, Advice::Normal), Err(Errno::ENOMEM));
    assert_eq!(mm.mincore(a..a + 5 * P), Err(Errno::ENOMEM));
    m(2 * P, Advice::WipeOnFork).unwrap();
    mm.madvise(a + 2 * P, P, Advice::DontFork).unwrap();
    let child = mm.fork().unwrap();
    assert_eq!(take(&child, a + P), Ok(0));
    assert_eq!(take(&child, a + 2 * P).unwrap_err().code, 1);
    assert_eq!(m(P, Advice::Remove), Err(Errno::EINVAL));
}

#[test]
fn a_stack_is_shown_when_it_is_used() {
    let mm = new_mm();
    let map = |at, flags| {
        let args = MmapArgs { flags: Vma::MAY_ALL | flags, ..args(Placement::Fixed(at), 2, RW) };
        mm.mmap(args, &MmLimits::NONE).unwrap()
    };
    let shown = |at: u64| {
        let space: &MockSpace = mm.space().as_any().downcast_ref().unwrap();
        space.access(at, &mut [0], true).is_ok()
    };
    // The first fault of an address space shows all there is.
    put(&mm, map(0x80_0000, VmFlags::empty()), 1).unwrap();
    let plain = map(0x10_0000, VmFlags::empty());
    assert!(shown(plain), "at once");
    let stack = map(plain + 2 * P, VmFlags::STACK);
    assert!(!shown(stack) && !shown(stack + P));
    put(&mm, stack, 1).unwrap();
    assert!(shown(stack + P));
    // As on Linux, what it was made for is no mark that keeps neighbours apart.
    assert_eq!(mm.map_count(), 2);
}

#[test]
fn brk_moves() {
    let mm = new_mm();
    let start = 0x55_0000_0000u64;
    mm.set_layout(|l| (l.start_brk, l.brk) = (start, start));
    assert_eq!(mm.brk(0, &MmLimits::NONE), start);
    assert_eq!(mm.brk(start + 100, &MmLimits::NONE), start + 100);
    put(&mm, start + 99, 1).unwrap();
    put(&mm, start + P - 1, 1).unwrap();
    assert_eq!(put(&mm, start + P, 1).unwrap_err().code, 1);
    assert_eq!(mm.brk(start + 10 * P, &MmLimits::NONE), start + 10 * P);
    assert_eq!(mm.brk(start, &MmLimits::NONE), start);
    assert_eq!(take(&mm, start).unwrap_err().code, 1);
    let tight = MmLimits { data: P, ..MmLimits::NONE };
    assert_eq!(mm.brk(start + 2 * P, &tight), start);
}

/// What searches have learnt changes nothing of where mappings go.
#[test]
fn searches_from_the_top_and_what_they_know() {
    let mut rand = numbers(0x2545_f491_4f6c_dd1d);
    let mut spaces = vec![(new_mm(), Vec::<(u64, u64)>::new())];
    for step in 0..4000 {
        if step % 1000 == 999 {
            let (mm, mapped) = &spaces[spaces.len() - 1];
            // Some of the mappings do not go to the child.
            for (at, pages) in mapped.iter().step_by(5) {
                mm.madvise(*at, pages * P, Advice::DontFork).unwrap();
            }
            let child = mm.fork().unwrap();
            let rest = mapped.iter().enumerate().filter(|(i, _)| i % 5 != 0).map(|(_, m)| *m).collect();
            spaces.push((child, rest));
        }
        let (mm, mapped) = spaces.last_mut().unwrap();
        if rand(3) == 0 && !mapped.is_empty() {
            let (at, pages) = mapped.swap_remove(rand(mapped.len() as u64) as usize);
            mm.munmap(at, pages * P).unwrap();
            continue;
        }
        let pages = [1, 2, 3, 5, 8, 30, 31][rand(7) as usize];
        let expected = {
            let mut inner = mm.inner.write();
            let known = std::mem::take(&mut inner.no_room);
            let at = mm.find_room(&mut inner, Placement::Hint(0), pages * P).unwrap();
            inner.no_room = known;
            at
        };
        // Different rights, so that neighbours stay apart.
        let prot = [RW, Prot::READ][step % 2];
        let at = mm.mmap(args(Placement::Hint(0), pages, prot), &MmLimits::NONE).unwrap();
        assert_eq!(at, expected, "step {step}");
        mapped.push((at, pages));
    }
}

/// Random calls, compared with a map from page to (rights, first byte), through the guest's side and ours.
#[test]
fn random_calls_against_a_model() {
    let mut rand = numbers(0x9e37_79b9_7f4a_7c15);
    const BASE: u64 = 0x1000_0000;
    const PAGES: u64 = 1600;
    type Model = BTreeMap<u64, (Prot, u8)>;
    let mut spaces: Vec<(Arc<Mm>, Model)> = vec![(new_mm(), Model::new())];
    let memfile = Arc::clone(&spaces[0].0.memfile);
    let l = &MmLimits::NONE;
    for step in 0..6000u64 {
        let which = rand(spaces.len() as u64) as usize;
        let count = spaces.len();
        let (mm, model) = &mut spaces[which];
        let page = rand(PAGES);
        let n = (1 + rand(40)).min(PAGES - page);
        let (addr, len) = (BASE + page * P, n * P);
        let prot = [RW, RW, Prot::READ, Prot::empty()][rand(4) as usize];
        match rand(10) {
            0 | 1 => {
                anon(mm, addr, n, prot);
                model.extend((page..page + n).map(|p| (p, (prot, 0))));
            }
            2 => {
                mm.munmap(addr, len).unwrap();
                model.retain(|p, _| !(page..page + n).contains(p));
            }
            3 => {
                let hole = (page..page + n).find(|p| !model.contains_key(p));
                let r = mm.mprotect(addr, len, prot, false, l);
                assert_eq!(r.is_err(), hole.is_some());
                for p in page..hole.unwrap_or(page + n) {
                    model.get_mut(&p).unwrap().0 = prot;
                }
            }
            4 => {
                let to = rand(PAGES - n);
                let overlap = to < page + n && page < to + n;
                let one = mm.inner.read().vmas.get(addr).is_some_and(|(_, e, _)| e >= addr + len);
                let r = mm.mremap(addr, len, len, 3, BASE + to * P, l);
                assert_eq!(r.is_ok(), one && !overlap, "{r:?}");
                if !overlap && model.contains_key(&page) {
                    model.retain(|p, _| !(to..to + n).contains(p));
                }
                if r.is_ok() {
                    for i in 0..n {
                        let v = model.remove(&(page + i)).unwrap();
                        model.insert(to + i, v);
                    }
                }
            }
            5 => {
                let _ = mm.madvise(addr, len, Advice::DontNeed);
                model.range_mut(page..page + n).for_each(|(_, v)| v.1 = 0);
            }
            6 if count < 6 => {
                let child = (mm.fork().unwrap(), model.clone());
                spaces.push(child);
            }
            6 => drop(spaces.swap_remove(which)),
            _ => {
                for p in page..page + n {
                    let a = BASE + p * P;
                    let v = (step % 251) as u8;
                    let can = model.get(&p).map(|m| m.0);
                    let ok = if rand(2) == 0 { put(mm, a, v).is_ok() } else { mm.copy_out(a, &[v]).is_ok() };
                    assert_eq!(ok, can.is_some_and(|c| c.contains(Prot::WRITE)), "page {p}");
                    if ok {
                        model.get_mut(&p).unwrap().1 = v;
                    }
                }
            }
        }
        if step % 100 == 0 {
            for (mm, model) in &spaces {
                for p in 0..PAGES {
                    let a = BASE + p * P;
                    let want = model.get(&p).filter(|m| !m.0.is_empty()).map(|m| m.1);
                    assert_eq!(take(mm, a).ok(), want, "page {p} as the guest sees it");
                    let mut b = [0];
                    assert_eq!(mm.copy_in(a, &mut b).ok().map(|()| b[0]), want, "page {p} as we see it");
                }
                let inner = mm.inner.read();
                assert_eq!(inner.total_vm, model.len() as u64 * P);
                let data = model.values().filter(|m| m.0.contains(Prot::WRITE)).count() as u64;
                assert_eq!(inner.data_vm, data * P);
                check_platform(mm, &inner);
            }
        }
    }
    drop(spaces);
    assert_eq!(memfile.usage(), 0);
}

/// The platform shows exactly what the map says it shows, with no more rights.
fn check_platform(mm: &Mm, inner: &Inner) {
    let space: &MockSpace = mm.space().as_any().downcast_ref().unwrap();
    let mut shown: BTreeMap<u64, (u64, Prot)> = BTreeMap::new();
    for (s, m) in space.mappings() {
        for p in (s..m.end).step_by(4096) {
            shown.insert(p, (m.offset + (p - s), m.prot));
        }
    }
    let mut known = BTreeMap::new();
    for (s, e, p) in inner.pmas.iter() {
        if let Some(prot) = p.mapped {
            assert!(p.host_prot().is_some_and(|h| h.contains(prot)));
            for a in (s..e).step_by(4096) {
                known.insert(a, (p.off + (a - s), prot));
            }
        }
    }
    assert!(shown == known);
}

#[test]
fn words_have_keys() {
    let mm = new_mm();
    let a = anon(&mm, 0x10_0000, 1, RW);
    assert_eq!(mm.word_key(a + 2, false), Err(Errno::EINVAL));
    assert_eq!(mm.word_key(a + 4, false), Ok(WordKey::Private(mm.id(), a + 4)));
    let object = SharedMemory::new(&mm.memfile, 0, 4 * P);
    let map = |offset| {
        let file = MmapFile { file: VmFile { object: object.clone(), file: None }, offset };
        let flags = Vma::MAY_ALL | VmFlags::SHARED;
        mm.mmap(MmapArgs { flags, file: Some(file), ..args(Placement::Hint(0), 1, RW) }, &MmLimits::NONE)
            .unwrap()
    };
    let (x, y) = (map(P), map(P));
    assert_eq!(mm.word_key(x + 8, true), mm.word_key(y + 8, true));
    mm.copy_out(x + 8, &7u32.to_le_bytes()).unwrap();
    assert_eq!(mm.cas_u32(y + 8, 7, 8), Ok(Ok(7)));
    assert_eq!(mm.load_u32(x + 8), Ok(8));
    let mut got = 0;
    let n = mm.with_blocks(x, 4096, Access::Read, &mut |b| {
        got = b.iter().map(platform::Block::len).sum();
        Ok(got)
    });
    assert_eq!((n, got), (Ok(4096), 4096));
    object.punch(P..2 * P).unwrap();
    assert_eq!(mm.load_u32(x + 8), Ok(0));
}
