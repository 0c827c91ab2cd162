//! Address spaces with guest code that really runs: faults, copy-on-write between processes, and what they cost.

use kernel::Kernel;
use kernel::mm::{Mm, MmLimits, MmapArgs, Placement, VmFlags, Vma};
use platform::{Context, MemoryFile, Platform, Prot, Registers, Trap};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

const CODE: u64 = 0x40_0000;
/// mov %al,(%rdi); add $4096,%rdi; cmp %rsi,%rdi; jb; syscall
const WRITE: &[u8] = &[0x88, 7, 0x48, 0x81, 0xc7, 0, 0x10, 0, 0, 0x48, 0x39, 0xf7, 0x72, 0xf2, 0x0f, 5];
/// The same with mov (%rdi),%al.
const READ: &[u8] = &[0x8a, 7, 0x48, 0x81, 0xc7, 0, 0x10, 0, 0, 0x48, 0x39, 0xf7, 0x72, 0xf2, 0x0f, 5];
const READ_AT: u64 = CODE + 64;
const P: u64 = 4096;
const RW: Prot = Prot::READ.union(Prot::WRITE);

fn kernel_on(name: &str) -> Arc<Kernel> {
    static PTRACE: OnceLock<Arc<Kernel>> = OnceLock::new();
    static SYSTRAP: OnceLock<Arc<Kernel>> = OnceLock::new();
    let cell = if name == "ptrace" { &PTRACE } else { &SYSTRAP };
    let make = || {
        let platform: Arc<dyn Platform> = platform::open(name).unwrap();
        Kernel::new(platform, MemoryFile::new().unwrap(), platform::Machine::read())
    };
    Arc::clone(cell.get_or_init(make))
}

fn anon(mm: &Mm, at: Placement, pages: u64, prot: Prot) -> u64 {
    let args =
        MmapArgs { at, len: pages * P, prot, flags: Vma::MAY_ALL, file: None, populate: false, name: None };
    mm.mmap(args, &MmLimits::NONE).unwrap()
}

struct Process {
    mm: Arc<Mm>,
    context: Box<dyn Context>,
    faults: usize,
}

impl Process {
    fn new(k: &Arc<Kernel>) -> Process {
        let mm = Mm::new(k).unwrap();
        anon(&mm, Placement::Fixed(CODE), 1, Prot::READ | Prot::EXEC);
        assert_eq!(mm.copy_out_forced(CODE, WRITE), WRITE.len());
        assert_eq!(mm.copy_out_forced(READ_AT, READ), READ.len());
        Process::of(k, mm)
    }
    fn of(k: &Arc<Kernel>, mm: Arc<Mm>) -> Process {
        Process { mm, context: k.platform.new_context().unwrap(), faults: 0 }
    }
    /// Touches each page of a range; the last byte read.
    fn run(&mut self, code: u64, from: u64, pages: u64, value: u8) -> Result<u8, (i32, i32, u64)> {
        let mut r = Registers::new(code, 0);
        (r.rdi, r.rsi, r.rax) = (from, from + pages * P, value.into());
        loop {
            match self.context.switch(self.mm.space(), &mut r).unwrap() {
                Trap::Syscall => return Ok((r.orig_rax & 0xff) as u8),
                Trap::Fault(f) => {
                    self.faults += 1;
                    assert!(self.faults < 10_000, "faults without end");
                    self.mm.handle_fault(&f, r.rip).map_err(|s| (s.signo, s.code, s.addr))?;
                }
                Trap::Interrupted => {}
                other => panic!("{other:?}"),
            }
        }
    }
    fn write(&mut self, from: u64, pages: u64, value: u8) -> Result<u8, (i32, i32, u64)> {
        self.run(CODE, from, pages, value)
    }
    fn read(&mut self, from: u64) -> Result<u8, (i32, i32, u64)> {
        self.run(READ_AT, from, 1, 0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.context.release();
    }
}

macro_rules! tests {
    ($($name:ident)*) => {
        mod on_ptrace { $( #[test] fn $name() { super::$name(&super::kernel_on("ptrace")) } )* }
        mod on_systrap { $( #[test] fn $name() { super::$name(&super::kernel_on("systrap")) } )* }
    };
}
tests! { rights_and_signals fork_and_write clock_without_trap costs }

fn rights_and_signals(k: &Arc<Kernel>) {
    let mut p = Process::new(k);
    let l = &MmLimits::NONE;
    let a = anon(&p.mm, Placement::Hint(0), 8, RW);
    p.write(a, 8, 7).unwrap();
    assert_eq!(p.read(a + 5 * P), Ok(7));
    p.mm.mprotect(a + P, P, Prot::READ, false, l).unwrap();
    assert_eq!(p.write(a, 2, 8), Err((11, 2, a + P)));
    assert_eq!((p.read(a), p.read(a + P)), (Ok(8), Ok(7)));
    p.mm.mprotect(a + P, P, RW, false, l).unwrap();
    p.write(a + P, 1, 9).unwrap();
    p.mm.mprotect(a + P, P, Prot::empty(), false, l).unwrap();
    assert_eq!(p.read(a + P), Err((11, 2, a + P)));
    p.mm.munmap(a + 2 * P, P).unwrap();
    assert_eq!(p.read(a + 2 * P), Err((11, 1, a + 2 * P)));
    // Running where there is no right to: no endless faults.
    assert_eq!(p.run(a, 0, 0, 0), Err((11, 2, a)));
    assert_eq!(p.run(a + 2 * P, 0, 0, 0), Err((11, 1, a + 2 * P)));
    assert_eq!(p.write(CODE, 1, 0), Err((11, 2, CODE)));
    // A stack.
    let s = MmapArgs {
        at: Placement::Fixed(0x5000_0000),
        len: P,
        prot: RW,
        flags: Vma::MAY_ALL | VmFlags::GROWSDOWN,
        file: None,
        populate: false,
        name: None,
    };
    p.mm.mmap(s, l).unwrap();
    p.write(0x5000_0000 - 100 * P, 1, 1).unwrap();
    assert_eq!(p.write(0x5000_0000 - (9 << 20), 1, 1), Err((11, 1, 0x5000_0000 - (9 << 20))));
}

fn fork_and_write(k: &Arc<Kernel>) {
    let mut p = Process::new(k);
    let a = anon(&p.mm, Placement::Hint(0), 512, RW);
    p.write(a, 512, 1).unwrap();
    let mut children: Vec<Process> = (0..4).map(|_| Process::of(k, p.mm.fork().unwrap())).collect();
    p.write(a, 100, 2).unwrap();
    for (i, c) in children.iter_mut().enumerate() {
        assert_eq!((c.read(a), c.read(a + 511 * P)), (Ok(1), Ok(1)));
        c.write(a + 50 * P, 200, 10 + i as u8).unwrap();
        c.mm.copy_out(a + 300 * P, &[99]).unwrap();
    }
    for (i, c) in children.iter_mut().enumerate() {
        let want = [(0, 1), (49, 1), (50, 10 + i as u8), (249, 10 + i as u8), (250, 1), (300, 99), (301, 1)];
        for (page, v) in want {
            assert_eq!(c.read(a + page * P), Ok(v), "page {page} of child {i}");
        }
    }
    assert_eq!((p.read(a + 99 * P), p.read(a + 100 * P), p.read(a + 300 * P)), (Ok(2), Ok(1), Ok(1)));
    drop(children);
    p.write(a, 512, 3).unwrap();
    assert_eq!(p.read(a + 511 * P), Ok(3));
}

fn clock_without_trap(k: &Arc<Kernel>) {
    let Some(code) = k.platform.features().clock_code else {
        println!("no clock code on this host");
        return;
    };
    let mut p = Process::new(k);
    let data = anon(&p.mm, Placement::Hint(0), 4, RW);
    // call *%rax; mov $0x1234,%eax; syscall
    assert_eq!(p.mm.copy_out_forced(CODE + 128, &[0xff, 0xd0, 0xb8, 0x34, 0x12, 0, 0, 0x0f, 5]), 9);
    let call = |p: &mut Process, function: u64, clock: u64| {
        let mut r = Registers::new(CODE + 128, data + 3 * P);
        (r.rax, r.rdi, r.rsi) = (function, clock, data);
        loop {
            match p.context.switch(p.mm.space(), &mut r).unwrap() {
                Trap::Fault(f) => p.mm.handle_fault(&f, r.rip).unwrap(),
                Trap::Syscall => break,
                other => panic!("{other:?}"),
            }
        }
        let word = |i: u64| {
            let mut b = [0; 8];
            p.mm.copy_in(data + 8 * i, &mut b).unwrap();
            i64::from_le_bytes(b)
        };
        (r.orig_rax, word(0), word(1))
    };
    let before = platform::clock::monotonic();
    let (nr, sec, ns) = call(&mut p, code.clock_gettime, 1);
    assert_eq!(nr, 0x1234, "it traps");
    let got = sec * 1_000_000_000 + ns;
    assert!((before..=platform::clock::monotonic()).contains(&got));
    // A clock that only the kernel knows: an ordinary system call of the guest.
    assert_eq!(call(&mut p, code.clock_gettime, 2).0, 228);
}

/// Prints what things cost, beside the same on the host where that is simple.
fn costs(k: &Arc<Kernel>) {
    let name = k.platform.name();
    let mut p = Process::new(k);
    p.write(anon(&p.mm, Placement::Hint(0), 1, RW), 1, 1).unwrap();
    let print = |what: &str, n: u32, start: Instant, faults: usize| {
        let ns = start.elapsed().as_nanos() / u128::from(n);
        println!("{name:8} {what:44} {ns:>9} ns, {faults} faults");
    };
    let pages = 32768;
    let a = anon(&p.mm, Placement::Hint(0), pages, RW);
    p.faults = 0;
    let t = Instant::now();
    p.write(a, pages, 1).unwrap();
    print("fresh memory, a page", pages as u32, t, p.faults);
    p.mm.munmap(a, pages * P).unwrap();

    p.faults = 0;
    let t = Instant::now();
    for _ in 0..200 {
        let a = anon(&p.mm, Placement::Hint(0), 1, RW);
        p.write(a, 1, 1).unwrap();
        p.mm.munmap(a, P).unwrap();
    }
    print("mmap, touch, munmap of a page", 200, t, p.faults);

    let a = anon(&p.mm, Placement::Hint(0), 256, RW);
    p.write(a, 256, 1).unwrap();
    let (mut copied, mut taken_back) = (0, 0);
    let t = Instant::now();
    for i in 0..50 {
        let mut c = Process::of(k, p.mm.fork().unwrap());
        c.write(a, 8, i).unwrap();
        copied += c.faults;
        drop(c);
        p.faults = 0;
        p.write(a, 8, i).unwrap();
        taken_back += p.faults;
    }
    print("fork, 8 pages written in child and parent", 50, t, copied + taken_back);
    let t = Instant::now();
    for _ in 0..50 {
        drop(p.mm.fork().unwrap());
    }
    print("fork alone", 50, t, 0);
    let t = Instant::now();
    let mut buf = [0; 4096];
    for _ in 0..10_000 {
        p.mm.copy_in(a + 100, &mut buf[..64]).unwrap();
    }
    print("copy_in of 64 bytes", 10_000, t, 0);
    let t = Instant::now();
    for _ in 0..10_000 {
        p.mm.copy_out(a, &buf).unwrap();
    }
    print("copy_out of 4 KiB", 10_000, t, 0);
}
