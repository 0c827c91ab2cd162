//! Programs from a tmpfs: a real one is laid out as Linux does it, broken ones give errors.

use super::*;
use abi::fcntl::OpenFlags;
use fs::tmpfs::{Options, TmpFs};
use kernel::creds::UserNamespace;
use kernel::io::SliceSource;
use kernel::uaccess::UserPtr;
use kernel::vfs::{MountFlags, MountNamespace, OpenHow, Start, SuperBlock, open};
use platform::mock::{MockPlatform, Step};
use platform::{MemoryFile, Trap};

struct World {
    kernel: Arc<Kernel>,
    ns: Arc<MountNamespace>,
    creds: Arc<Creds>,
}

impl World {
    fn new() -> World {
        let mock = MockPlatform::new(|_| Step::Trap(Trap::Dead));
        let kernel = Kernel::new(mock, MemoryFile::new().unwrap(), platform::Machine::read());
        let tmp = TmpFs::new(&kernel, Options::parse(b"").unwrap());
        let user_ns = UserNamespace::root();
        let sb = SuperBlock::new(tmp, false);
        let ns = kernel.vfs.mounts.new_namespace(Arc::clone(&user_ns), sb, MountFlags::RELATIME, b"tmpfs");
        World { kernel, ns, creds: Arc::new(Creds::root(user_ns)) }
    }
    fn cx(&self) -> Caller<'_> {
        Caller { creds: &self.creds, task: None }
    }
    fn open(&self, path: &[u8], flags: OpenFlags) -> Result<Arc<File>> {
        let how = OpenHow { flags, mode: 0o755, ..OpenHow::default() };
        match open(&self.cx(), Start::inside(&self.ns.root()), path, &how) {
            Ok(f) => Ok(f),
            Err(kernel::SysError::Errno(e)) => Err(e),
            Err(other) => panic!("{other:?}"),
        }
    }
    fn write(&self, path: &str, data: &[u8]) {
        let f = self.open(path.as_bytes(), OpenFlags::RDWR | OpenFlags::CREAT | OpenFlags::TRUNC).unwrap();
        let mut copy = data.to_vec();
        let mut source = SliceSource::new(&mut copy);
        assert_eq!(f.ops().write(&self.cx(), &f, &mut source, &mut 0), Ok(data.len()));
    }
    fn exec(&self, path: &str, argv: &[&str], stack: u64) -> Result<Loaded> {
        let bytes = |s: &[&str]| s.iter().map(|x| x.as_bytes().to_vec()).collect();
        load(ExecArgs {
            kernel: &self.kernel,
            caller: self.cx(),
            file: self.open(path.as_bytes(), OpenFlags::empty())?,
            path: path.as_bytes().to_vec(),
            argv: bytes(argv),
            envp: bytes(&["HOME=/", "A=b"]),
            limits: MmLimits { stack, ..MmLimits::NONE },
            account: 0,
            no_randomize: false,
            open: &|p| self.open(p, OpenFlags::empty()),
            identity: &|_| Ok(Identity { creds: Arc::clone(&self.creds), secure: false }),
        })
    }
}

/// An ELF file with the given program headers: (type, flags, offset, vaddr, filesz, memsz).
fn elf(kind: u16, entry: u64, segments: &[(u32, u32, u64, u64, u64, u64)], len: usize) -> Vec<u8> {
    let mut f = vec![0u8; 64];
    f[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    f[16..18].copy_from_slice(&kind.to_le_bytes());
    f[18..20].copy_from_slice(&62u16.to_le_bytes());
    f[20] = 1;
    f[24..32].copy_from_slice(&entry.to_le_bytes());
    f[32] = 64;
    f[52] = 64;
    f[54] = 56;
    f[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
    for s in segments {
        f.extend(s.0.to_le_bytes());
        f.extend(s.1.to_le_bytes());
        for v in [s.2, s.3, s.3, s.4, s.5, 4096] {
            f.extend(v.to_le_bytes());
        }
    }
    let start = f.len();
    f.resize(len.max(start), 0);
    for (i, b) in f.iter_mut().enumerate().skip(start) {
        *b = (i % 251) as u8 + 1;
    }
    f
}

const LOAD: u32 = 1;

fn simple() -> Vec<u8> {
    elf(
        2,
        0x40_1000,
        &[(LOAD, 5, 0, 0x40_0000, 0x1800, 0x1800), (LOAD, 6, 0x1800, 0x40_2800, 0x600, 0x3000)],
        0x1e00,
    )
}

#[test]
fn a_static_program_is_laid_out() {
    let w = World::new();
    w.write("/p", &simple());
    let l = w.exec("/p", &["p", "x y"], 8 << 20).unwrap();
    assert_eq!(l.regs.rip, 0x40_1000);
    assert_eq!(l.regs.rsp % 16, 0);
    let mm = &l.mm;
    let word = |a: u64| UserPtr::<u64>::new(a).read(mm).unwrap();
    let text = |a: u64| mm.copy_in_str(a, 4096).unwrap().unwrap();
    let sp = l.regs.rsp;
    assert_eq!(word(sp), 2);
    assert_eq!((text(word(sp + 8)), text(word(sp + 16))), (b"p".to_vec(), b"x y".to_vec()));
    assert_eq!(
        (word(sp + 24), text(word(sp + 32)), text(word(sp + 40))),
        (0, b"HOME=/".to_vec(), b"A=b".to_vec())
    );
    assert_eq!(word(sp + 48), 0);
    let layout = mm.layout();
    let aux = |k| layout.auxv.iter().find(|a| a.0 == k).map(|a| a.1).unwrap();
    assert_eq!((word(sp + 56), word(sp + 64)), layout.auxv[0]);
    assert_eq!((aux(3), aux(5), aux(9), aux(7)), (0x40_0040, 2, 0x40_1000, 0));
    assert_eq!(text(aux(31)), b"/p");
    assert_eq!(word(sp + 8), layout.arg.start);
    assert_eq!(layout.arg.end, layout.env.start);
    assert_eq!(mm.copy_in_str(layout.env.start, 99), Ok(Some(b"HOME=/".to_vec())));
    // File contents, zeroes behind them.
    let mut b = [0; 2];
    mm.copy_in(0x40_2dff, &mut b).unwrap();
    assert_eq!(b, [(0x1dffu32 % 251) as u8 + 1, 0]);
    mm.copy_in(0x40_57ff, &mut b[..1]).unwrap();
    assert_eq!(mm.copy_in(0x40_6000, &mut b[..1]), Err(Errno::EFAULT));
    assert_eq!(mm.copy_out(0x40_0000, b"x"), Err(Errno::EFAULT));
    assert!(layout.brk >= 0x40_6000 && layout.start_brk == layout.brk);
    let lines: Vec<String> = mm.maps().iter().map(kernel::mm::MapsEntry::head).collect();
    assert!(lines[0].starts_with("00400000-00402000 r-xp 00000000 "), "{lines:?}");
    assert!(lines[1].starts_with("00402000-00403000 rw-p 00001000 "), "{lines:?}");
    assert!(lines[2].starts_with("00403000-00406000 rw-p 00000000 00:00 0"), "{lines:?}");
}

#[test]
fn linkers_scripts_and_limits() {
    let w = World::new();
    let linker = elf(3, 0x10, &[(LOAD, 5, 0, 0, 0x1000, 0x1000)], 0x1000);
    w.write("/ld", &linker);
    let mut pie = elf(3, 0x20, &[(3, 4, 0xf00, 0xf00, 4, 4), (LOAD, 7, 0, 0, 0x1000, 0x9000)], 0x1000);
    pie[0xf00..0xf04].copy_from_slice(b"/ld\0");
    w.write("/pie", &pie);
    let l = w.exec("/pie", &["a"], 8 << 20).unwrap();
    let layout = l.mm.layout();
    let aux = |k| layout.auxv.iter().find(|a| a.0 == k).map(|a| a.1).unwrap();
    assert_eq!(l.regs.rip, aux(7) + 0x10);
    assert_eq!(aux(9) & 0xfff, 0x20);
    assert!(aux(9) > 0x5000_0000_0000 && aux(7) > aux(9));
    w.write("/s", b"#!/pie -x  y \nfoo");
    let l = w.exec("/s", &["zero", "one"], 8 << 20).unwrap();
    let sp = l.regs.rsp;
    let arg = |i: u64| {
        l.mm.copy_in_str(UserPtr::<u64>::new(sp + 8 + 8 * i).read(&l.mm).unwrap(), 99).unwrap().unwrap()
    };
    let args: Vec<Vec<u8>> = (0..4).map(arg).collect();
    assert_eq!(args, [b"/pie".to_vec(), b"-x  y".to_vec(), b"/s".to_vec(), b"one".to_vec()]);
    w.write("/loop", b"#!/loop\n");
    let e = |r: Result<Loaded>| r.err().unwrap();
    assert_eq!(e(w.exec("/loop", &["x"], 8 << 20)), Errno::ELOOP);
    w.write("/none", b"#!/not-there\n");
    assert_eq!(e(w.exec("/none", &["x"], 8 << 20)), Errno::ENOENT);
    w.write("/text", b"hello");
    assert_eq!(e(w.exec("/text", &["x"], 8 << 20)), Errno::ENOEXEC);
    w.write(
        "/ld",
        b"hello, this is no ELF file, but longer than the header of one is, so that it can be read.",
    );
    assert_eq!(e(w.exec("/pie", &["x"], 8 << 20)), Errno::ELIBBAD);
    w.write("/ld", b"short");
    assert_eq!(e(w.exec("/pie", &["x"], 8 << 20)), Errno::EIO);
    w.write("/p", &simple());
    let long = "x".repeat(131_072);
    assert_eq!(e(w.exec("/p", &[&long], 8 << 20)), Errno::E2BIG);
    let long = "x".repeat(131_000);
    assert_eq!(e(w.exec("/p", &[&long, &long], 1 << 19)), Errno::E2BIG);
    assert!(w.exec("/p", &[&long, &long], 4 << 20).is_ok());
}

/// Changed headers must give an error or a program, never a panic or a hang.
#[test]
fn hostile_files() {
    let w = World::new();
    let mut seed = 42u64;
    let mut rand = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    let odd =
        [0, 1, 0xfff, 0x1000, u64::MAX, i64::MAX as u64, 1 << 47, (1 << 47) - 1, 0x7fff_ffff_f000, 1 << 63];
    let mut loaded = 0;
    for _ in 0..1500 {
        let mut f = simple();
        for _ in 0..1 + rand(3) {
            let at = if rand(2) == 0 { rand(64) } else { 64 + rand(112) } as usize;
            match rand(3) {
                0 => f[at] = rand(256) as u8,
                1 => f[at] ^= 1 << rand(8),
                _ => {
                    let v = odd[rand(odd.len() as u64) as usize];
                    f[at & !7..(at & !7) + 8].copy_from_slice(&v.to_le_bytes());
                }
            }
        }
        if rand(10) == 0 {
            f.truncate(rand(0x1e00) as usize);
        }
        w.write("/p", &f);
        loaded += usize::from(w.exec("/p", &["p"], 8 << 20).is_ok());
    }
    assert!(loaded > 100, "{loaded}");
}
