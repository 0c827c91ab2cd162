//! Memory: mappings and their faults, protection, growth, sharing, advice, locking, the break.

use crate::case::{Case, NOWHERE, case, file, in_child, leave, open, zeroed};
use crate::out::{claim, done, number, ret};
use crate::{say, sys};
use libc::{
    MADV_DONTNEED, MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_GROWSDOWN, MAP_NORESERVE, MAP_POPULATE,
    MAP_PRIVATE, MAP_SHARED, MREMAP_FIXED, MREMAP_MAYMOVE, PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE,
};
use std::sync::atomic::{AtomicUsize, Ordering};

const PAGE: usize = 4096;
const RW: i32 = PROT_READ | PROT_WRITE;
const ANON: i32 = MAP_PRIVATE | MAP_ANONYMOUS;

fn map(pages: usize, protection: i32, flags: i32, fd: i32) -> usize {
    crate::out::must("mmap", sys!(mmap, 0, pages * PAGE, protection, flags, fd, 0)) as usize
}

fn anon(pages: usize) -> usize {
    map(pages, RW, ANON, -1)
}

fn get(at: usize) -> u8 {
    // SAFETY: the cases read what they mapped, or mean to fault.
    unsafe { std::ptr::read_volatile(at as *const u8) }
}

fn put(at: usize, value: u8) {
    // SAFETY: as above.
    unsafe { std::ptr::write_volatile(at as *mut u8, value) }
}

static BASE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn fault(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's siginfo.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let base = BASE.load(Ordering::SeqCst);
    say!("{} code {code} at base+{:#x}", crate::out::signal(signal), address.wrapping_sub(base));
    leave(0);
}

/// Runs the body in a child; a fault there is reported with its code and its distance from `base`.
pub fn faulting(label: &str, base: usize, body: impl FnOnce()) {
    in_child(label, || {
        BASE.store(base, Ordering::SeqCst);
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            // SAFETY: the handler makes system calls only and does not return.
            unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
        }
        body();
        say!("no fault");
        0
    });
}

fn maps_line(address: usize) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let range = fields.next().unwrap_or_default();
        let (a, b) = range.split_once('-').unwrap_or_default();
        let (a, b) = (usize::from_str_radix(a, 16).unwrap_or(0), usize::from_str_radix(b, 16).unwrap_or(0));
        if (a..b).contains(&address) {
            return format!(
                "+{:#x} {} {}",
                b - address,
                fields.next().unwrap_or_default(),
                fields.next().unwrap_or_default()
            );
        }
    }
    "unmapped".to_owned()
}

pub const CASES: &[Case] = &[
    case("mmap/anonymous", "munmap", || {
        let p = anon(3);
        say!("zero {}", get(p) == 0 && get(p + 3 * PAGE - 1) == 0);
        put(p + PAGE, 7);
        ret("unmap middle", sys!(munmap, p + PAGE, PAGE));
        faulting("gone", p, || put(p + PAGE + 5, 1));
        say!("first stays {} last stays {}", get(p), get(p + 2 * PAGE));
        ret("unmap all", sys!(munmap, p, 3 * PAGE));
        ret("unmap nothing", sys!(munmap, p, 3 * PAGE));
    }),
    case("mmap/errors", "", || {
        let fd = file("f", b"abc");
        ret("zero length", sys!(mmap, 0, 0, RW, ANON, -1, 0));
        ret("neither", sys!(mmap, 0, PAGE, RW, MAP_ANONYMOUS, -1, 0));
        ret("no descriptor", sys!(mmap, 0, PAGE, RW, MAP_PRIVATE, -1, 0));
        ret("odd offset", sys!(mmap, 0, PAGE, RW, MAP_PRIVATE, fd, 100));
        ret("odd fixed", sys!(mmap, 0x12345, PAGE, RW, ANON | MAP_FIXED, -1, 0));
        ret("too large", sys!(mmap, 0, 1usize << 60, RW, ANON, -1, 0));
        ret("length wraps", sys!(mmap, 0, usize::MAX, RW, ANON, -1, 0));
        ret("offset wraps", sys!(mmap, 0, 2 * PAGE, RW, MAP_PRIVATE, fd, i64::MAX & !0xfff));
        let ro = open("f", libc::O_RDONLY);
        ret("shared writable of read only", sys!(mmap, 0, PAGE, RW, MAP_SHARED, ro, 0));
        done("private writable of read only", sys!(mmap, 0, PAGE, RW, MAP_PRIVATE, ro, 0));
        let wo = open("f", libc::O_WRONLY);
        ret("write only", sys!(mmap, 0, PAGE, PROT_WRITE, MAP_SHARED, wo, 0));
        ret("directory", sys!(mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, open(".", libc::O_RDONLY), 0));
        ret("pipe", sys!(mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, crate::case::pipe(0).0, 0));
        ret("kernel address", sys!(mmap, 0xffff_8000_0000_0000usize, PAGE, RW, ANON | MAP_FIXED, -1, 0));
        ret("above user space", sys!(mmap, 0x7fff_ffff_f000usize, 2 * PAGE, RW, ANON | MAP_FIXED, -1, 0));
        in_child("low address as user", || {
            sys!(setresuid, 5, 5, 5);
            ret("page zero", sys!(mmap, 0, PAGE, RW, ANON | MAP_FIXED, -1, 0));
            0
        });
        ret(
            "validate with unknown flag",
            sys!(mmap, 0, PAGE, PROT_READ, libc::MAP_SHARED_VALIDATE | 0x80_0000, fd, 0),
        );
        ret("munmap odd", sys!(munmap, 0x12345, PAGE));
        ret("munmap zero", sys!(munmap, 0x10000, 0));
        ret("munmap beyond", sys!(munmap, 0x7fff_ffff_f000usize, 2 * PAGE));
    }),
    case("mmap/fixed_and_noreplace", "", || {
        let p = anon(4);
        put(p + PAGE, 9);
        let r = sys!(mmap, p + PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0) as usize;
        say!("replaced {} zero {}", r == p + PAGE, get(p + PAGE) == 0);
        ret("noreplace on mapped", sys!(mmap, p + PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
        sys!(munmap, p + 2 * PAGE, PAGE);
        say!(
            "noreplace in a hole {}",
            sys!(mmap, p + 2 * PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) as usize == p + 2 * PAGE
        );
        sys!(munmap, p + 2 * PAGE, PAGE);
        say!("hint in a hole {}", sys!(mmap, p + 2 * PAGE, PAGE, RW, ANON, -1, 0) as usize == p + 2 * PAGE);
        say!("hint on mapped moves {}", sys!(mmap, p, PAGE, RW, ANON, -1, 0) as usize != p);
        say!("odd hint is rounded {}", sys!(mmap, p + 100, PAGE, RW, ANON, -1, 0) as usize % PAGE);
        let low = sys!(mmap, 0, PAGE, RW, ANON | libc::MAP_32BIT, -1, 0) as usize;
        say!("32 bit {}", low < 1 << 31);
    }),
    case("mmap/file_private_and_shared", "msync pwrite64", || {
        let fd = file("f", b"0123456789");
        let shared = map(1, RW, MAP_SHARED, fd);
        let private = map(1, RW, MAP_PRIVATE, fd);
        put(shared, b'S');
        say!("private sees it {}", get(private) as char);
        put(private + 1, b'P');
        say!("shared does not {}", get(shared + 1) as char);
        sys!(pwrite64, fd, b"W", 1, 2);
        say!(
            "write seen {} {}",
            get(shared + 2) as char,
            get(private + 2) == b'1' || get(private + 2) == b'2'
        );
        put(shared + 100, b'X');
        ret("msync", sys!(msync, shared, PAGE, libc::MS_SYNC));
        say!("{}", crate::out::text(&std::fs::read("f").unwrap_or_default()));
        sys!(ftruncate, fd, 200);
        say!("beyond the end {}", get(shared + 150));
        sys!(close, fd);
        put(shared + 3, b'C');
        say!("{}", crate::out::text(&std::fs::read("f").unwrap_or_default()[..10]));
        in_child("fork shares", || {
            put(shared + 4, b'F');
            put(private + 5, b'F');
            0
        });
        say!("{} {}", get(shared + 4) as char, get(private + 5) as char);
    }),
    case("mmap/bus_error_beyond_eof", "ftruncate", || {
        let fd = file("f", b"0123456789");
        let p = map(3, RW, MAP_SHARED, fd);
        say!("rest of the page {}", get(p + 4000));
        faulting("second page", p, || put(p + PAGE + 7, 1));
        faulting("read third page", p, || {
            get(p + 2 * PAGE);
        });
        sys!(ftruncate, fd, 3 * PAGE);
        put(p + 2 * PAGE, 5);
        say!("grown {}", get(p + 2 * PAGE));
        sys!(ftruncate, fd, PAGE);
        faulting("cut again", p, || put(p + 2 * PAGE, 1));
        ret("system call into it", sys!(read, open("f", libc::O_RDONLY), p + PAGE, 10));
        sys!(ftruncate, fd, 3 * PAGE);
        say!("zero after regrowth {}", get(p + 2 * PAGE));
    }),
    case("mmap/shared_anonymous", "fork", || {
        let p = map(1, RW, MAP_SHARED | MAP_ANONYMOUS, -1);
        let q = anon(1);
        in_child("child", || {
            put(p, 3);
            put(q, 4);
            0
        });
        say!("{} {}", get(p), get(q));
        let z = open("/dev/zero", libc::O_RDWR);
        let s = map(1, RW, MAP_SHARED, z);
        in_child("child", || {
            put(s, 5);
            0
        });
        say!("dev zero {}", get(s));
        let v = map(1, RW, MAP_PRIVATE, z);
        say!("dev zero private {}", get(v));
    }),
    case("mmap/segv_codes", "mprotect", || {
        let p = anon(3);
        sys!(mprotect, p + PAGE, PAGE, PROT_READ);
        sys!(mprotect, p + 2 * PAGE, PAGE, PROT_NONE);
        faulting("write read-only", p, || put(p + PAGE + 1, 1));
        faulting("read none", p, || {
            get(p + 2 * PAGE);
        });
        faulting("null", 0, || {
            get(8);
        });
        faulting("execute data", p, || {
            // SAFETY: meant to fault at once.
            unsafe { std::mem::transmute::<usize, extern "C" fn()>(p)() }
        });
        faulting("kernel address", 0xffff_8000_0000_0000, || {
            get(0xffff_8000_0000_0000);
        });
        faulting("not canonical", 0, || {
            get(0x8000_0000_0000_0000);
        });
        in_child("without handler", || get(8) as i32);
    }),
    case("mmap/hardware_traps", "rt_sigaction", || {
        faulting("divide", 0, || unsafe {
            let at: usize;
            std::arch::asm!("lea {}, [rip + 3f]", out(reg) at);
            BASE.store(at, Ordering::SeqCst);
            std::arch::asm!("3:", "div ecx", in("ecx") 0, inout("eax") 1 => _, inout("edx") 0 => _);
        });
        faulting("undefined", 0, || unsafe {
            let at: usize;
            std::arch::asm!("lea {}, [rip + 4f]", out(reg) at);
            BASE.store(at, Ordering::SeqCst);
            std::arch::asm!("4:", "ud2");
        });
        in_child("breakpoint", || unsafe {
            super::signals::on(libc::SIGTRAP, 0);
            std::arch::asm!("int3");
            say!("{}", super::signals::seen());
            0
        });
        in_child("privileged", || unsafe {
            std::arch::asm!("hlt");
            0
        });
    }),
    case("mmap/grows_down", "", || {
        // Wide enough that the guard gap below a growing mapping meets nothing.
        let area = anon(1024);
        sys!(munmap, area, 1024 * PAGE);
        let top = area + 1000 * PAGE;
        let p = sys!(mmap, top, PAGE, RW, ANON | MAP_GROWSDOWN | MAP_FIXED, -1, 0) as usize;
        say!("at {}", p == top);
        put(top - 100, 1);
        say!("one page down {}", get(top - 100));
        put(top - 5 * PAGE, 2);
        say!("five pages down {}", get(top - 5 * PAGE));
        say!("reading grows too {}", get(top - 6 * PAGE));
    }),
    case("mmap/populate_and_noreserve", "mincore", || {
        let p = map(4, RW, ANON | MAP_POPULATE, -1);
        let mut v = [9u8; 4];
        ret("mincore", sys!(mincore, p, 4 * PAGE, &mut v));
        say!("{:?}", v.map(|b| b & 1));
        let q = map(1 << 18, PROT_NONE, ANON | MAP_NORESERVE, -1);
        ret("huge reservation", sys!(munmap, q, PAGE << 18));
        let q = anon(4);
        put(q + PAGE, 1);
        sys!(mincore, q, 4 * PAGE, &mut v);
        say!("{:?}", v.map(|b| b & 1));
        ret("unmapped", sys!(mincore, NOWHERE & !0xfff, PAGE, &mut v));
        ret("odd", sys!(mincore, q + 1, PAGE, &mut v));
        ret("bad vector", sys!(mincore, q, PAGE, NOWHERE));
    }),
    case("mprotect/splits_and_errors", "", || {
        let p = anon(4);
        ret("middle", sys!(mprotect, p + PAGE, PAGE, PROT_READ));
        put(p, 1);
        faulting("read only", p, || put(p + PAGE, 1));
        put(p + 2 * PAGE, 1);
        ret("back", sys!(mprotect, p, 4 * PAGE, RW));
        put(p + PAGE, 1);
        ret("odd", sys!(mprotect, p + 1, PAGE, RW));
        ret("zero", sys!(mprotect, p, 0, RW));
        ret("bad protection", sys!(mprotect, p, PAGE, 0x100));
        sys!(munmap, p + 2 * PAGE, PAGE);
        ret("across a hole", sys!(mprotect, p, 4 * PAGE, PROT_READ));
        faulting("before the hole changed", p, || put(p, 1));
        put(p + 3 * PAGE, 1);
        let ro = open_read_only();
        let s = map(1, PROT_READ, MAP_SHARED, ro);
        ret("write to a read-only shared file", sys!(mprotect, s, PAGE, RW));
        ret("growsdown on plain", sys!(mprotect, p, PAGE, PROT_READ | libc::PROT_GROWSDOWN));
    }),
    case("mprotect/code_that_was_written", "mmap", || {
        let p = anon(1);
        // mov eax, 42; ret
        for (i, byte) in [0xb8, 42, 0, 0, 0, 0xc3].into_iter().enumerate() {
            put(p + i, byte);
        }
        ret("executable", sys!(mprotect, p, PAGE, PROT_READ | PROT_EXEC));
        // SAFETY: the bytes above are a function.
        let value = unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(p)() };
        say!("{value}");
        let both = map(1, RW | PROT_EXEC, ANON, -1);
        for round in 1..4u8 {
            for (i, byte) in [0xb8, round, 0, 0, 0, 0xc3].into_iter().enumerate() {
                put(both + i, byte);
            }
            // SAFETY: as above.
            say!("{}", unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(both)() });
        }
    }),
    case("mremap/grow_shrink_move", "", || {
        let p = anon(4);
        for i in 0..4 {
            put(p + i * PAGE, i as u8 + 1);
        }
        say!("shrink {}", sys!(mremap, p, 4 * PAGE, 2 * PAGE, 0, 0) as usize == p);
        say!("{}", maps_or_gone(p + 2 * PAGE));
        say!("grow in place {}", sys!(mremap, p, 2 * PAGE, 4 * PAGE, 0, 0) as usize == p);
        say!("kept {} {} fresh {}", get(p), get(p + PAGE), get(p + 2 * PAGE));
        let target = anon(8);
        let q = sys!(mremap, p, 4 * PAGE, 6 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) as usize;
        say!("moved {} kept {} {}", q == target, get(q), get(q + PAGE));
        say!("old {}", maps_or_gone(p));
        say!("after {}", get(target + 7 * PAGE));
        let r = sys!(mremap, q, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP, 0) as usize;
        say!("dontunmap {} old zero {} new {}", r != q, get(q), get(r));
    }),
    case("mremap/errors", "", || {
        let p = anon(4);
        ret("odd", sys!(mremap, p + 1, PAGE, PAGE, 0, 0));
        ret("zero new", sys!(mremap, p, PAGE, 0, 0, 0));
        ret("unknown flag", sys!(mremap, p, PAGE, PAGE, 0x100, 0));
        ret("fixed without maymove", sys!(mremap, p, PAGE, PAGE, MREMAP_FIXED, p + PAGE));
        ret("overlap", sys!(mremap, p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + PAGE));
        ret("odd target", sys!(mremap, p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + 3));
        ret("unmapped", sys!(mremap, 0x10000, PAGE, 2 * PAGE, MREMAP_MAYMOVE, 0));
        let next = anon(1);
        let _ = next;
        sys!(mmap, p + 2 * PAGE, PAGE, PROT_READ, ANON | MAP_FIXED, -1, 0);
        ret("no room to grow", sys!(mremap, p, PAGE, 2 * PAGE, 0, 0));
        ret("across two mappings", sys!(mremap, p + PAGE, 2 * PAGE, 3 * PAGE, MREMAP_MAYMOVE, 0));
        ret("private old length zero", sys!(mremap, p, 0, PAGE, MREMAP_MAYMOVE, 0));
        let s = map(1, RW, MAP_SHARED | MAP_ANONYMOUS, -1);
        put(s, 8);
        let copy = sys!(mremap, s, 0, PAGE, MREMAP_MAYMOVE, 0);
        done("shared old length zero", copy);
        say!("second view {}", get(copy as usize));
    }),
    case("brk/moves", "", || {
        let start = sys!(brk, 0) as usize;
        let up = sys!(brk, start + 10_000) as usize;
        say!("up {}", up - start);
        put(start + 9_999, 1);
        say!("rest of the page {}", get(start + 12_000));
        let down = sys!(brk, start) as usize;
        say!("down {}", down == start);
        sys!(brk, start + PAGE * 3);
        say!("zero again {}", get((start + 9_999) & !0xfff | 0x70f));
        sys!(brk, start);
        say!("below the start {}", sys!(brk, 0x1000) as usize == start);
        say!("absurd {}", sys!(brk, usize::MAX / 2) as usize == start);
        in_child("limited", || {
            sys!(setrlimit, libc::RLIMIT_DATA, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
            (sys!(brk, start + (1 << 20)) as usize == start) as i32
        });
    }),
    case("madvise/dontneed_and_free", "", || {
        let p = anon(4);
        (0..4).for_each(|i| put(p + i * PAGE, 5));
        ret("dontneed", sys!(madvise, p + PAGE, PAGE, MADV_DONTNEED));
        say!("{} {} {}", get(p), get(p + PAGE), get(p + 2 * PAGE));
        ret("free", sys!(madvise, p, PAGE, libc::MADV_FREE));
        put(p, 6);
        say!("written after {}", get(p));
        let fd = file("f", b"file");
        let m = map(1, RW, MAP_PRIVATE, fd);
        put(m, b'X');
        sys!(madvise, m, PAGE, MADV_DONTNEED);
        say!("file again {}", get(m) as char);
        for advice in [
            libc::MADV_NORMAL,
            libc::MADV_RANDOM,
            libc::MADV_SEQUENTIAL,
            libc::MADV_WILLNEED,
            libc::MADV_DONTDUMP,
            libc::MADV_DODUMP,
        ] {
            ret(format!("advice {advice}"), sys!(madvise, p, PAGE, advice));
        }
        ret("unknown", sys!(madvise, p, PAGE, 12345));
        ret("odd", sys!(madvise, p + 1, PAGE, MADV_DONTNEED));
        ret("zero length", sys!(madvise, p, 0, MADV_DONTNEED));
        sys!(munmap, p + PAGE, PAGE);
        ret("hole", sys!(madvise, p, 4 * PAGE, MADV_DONTNEED));
        say!("around the hole {} {}", get(p), get(p + 2 * PAGE));
        ret("free of a file mapping", sys!(madvise, m, PAGE, libc::MADV_FREE));
        ret("populate write", sys!(madvise, p, PAGE, libc::MADV_POPULATE_WRITE));
    }),
    case("madvise/fork_behaviour", "fork", || {
        let p = anon(2);
        put(p, 1);
        put(p + PAGE, 2);
        ret("wipe on fork", sys!(madvise, p, PAGE, libc::MADV_WIPEONFORK));
        ret("dont fork", sys!(madvise, p + PAGE, PAGE, libc::MADV_DONTFORK));
        in_child("child", || get(p) as i32);
        faulting("not there", p, || {
            get(p + PAGE);
        });
        ret("keep on fork", sys!(madvise, p, PAGE, libc::MADV_KEEPONFORK));
        in_child("child", || get(p) as i32);
        let s = map(1, RW, MAP_SHARED | MAP_ANONYMOUS, -1);
        ret("wipe shared", sys!(madvise, s, PAGE, libc::MADV_WIPEONFORK));
    }),
    case("madvise/remove_punches_shared", "", || {
        let fd = file("f", &[7u8; 3 * 4096]);
        let p = map(3, RW, MAP_SHARED, fd);
        ret("remove", sys!(madvise, p + PAGE, PAGE, libc::MADV_REMOVE));
        say!("{} {} {}", get(p), get(p + PAGE), get(p + 2 * PAGE));
        let q = anon(1);
        ret("private", sys!(madvise, q, PAGE, libc::MADV_REMOVE));
    }),
    case("msync/flags", "", || {
        let fd = file("f", &[7u8; 4096]);
        let p = map(1, RW, MAP_SHARED, fd);
        ret("sync", sys!(msync, p, PAGE, libc::MS_SYNC));
        ret("async", sys!(msync, p, PAGE, libc::MS_ASYNC));
        ret("both", sys!(msync, p, PAGE, libc::MS_SYNC | libc::MS_ASYNC));
        ret("invalidate", sys!(msync, p, PAGE, libc::MS_INVALIDATE));
        ret("odd", sys!(msync, p + 1, PAGE, libc::MS_SYNC));
        ret("unknown", sys!(msync, p, PAGE, 0x80));
        ret("unmapped", sys!(msync, 0x10000, PAGE, libc::MS_SYNC));
        ret("zero", sys!(msync, p, 0, libc::MS_SYNC));
    }),
    case("mlock/limits_and_errors", "munlock mlock2 mlockall munlockall", || {
        let p = anon(4);
        ret("mlock", sys!(mlock, p, PAGE));
        ret("munlock", sys!(munlock, p, PAGE));
        ret("mlock2 on fault", sys!(mlock2, p, PAGE, 1));
        ret("mlock2 flag", sys!(mlock2, p, PAGE, 2));
        ret("unmapped", sys!(mlock, 0x10000, PAGE));
        ret("mlockall flags", sys!(mlockall, 8));
        ret("mlockall none", sys!(mlockall, 0));
        ret("munlockall", sys!(munlockall));
        in_child("user with no allowance", || {
            sys!(setrlimit, libc::RLIMIT_MEMLOCK, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
            sys!(setresuid, 5, 5, 5);
            ret("mlock", sys!(mlock, p, PAGE));
            ret("locked mapping", sys!(mmap, 0, PAGE, RW, ANON | libc::MAP_LOCKED, -1, 0));
            0
        });
        in_child("user with a page", || {
            sys!(setrlimit, libc::RLIMIT_MEMLOCK, &libc::rlimit { rlim_cur: 4096, rlim_max: 4096 });
            sys!(setresuid, 5, 5, 5);
            ret("one", sys!(mlock, p, PAGE));
            ret("two", sys!(mlock, p, 2 * PAGE));
            0
        });
    }),
    case("mmap/address_space_limit", "setrlimit", || {
        in_child("limited", || {
            sys!(setrlimit, libc::RLIMIT_AS, &libc::rlimit { rlim_cur: 64 << 20, rlim_max: 64 << 20 });
            ret("beyond", sys!(mmap, 0, 100usize << 20, RW, ANON, -1, 0));
            done("within", sys!(mmap, 0, 1usize << 20, RW, ANON, -1, 0));
            0
        });
    }),
    case("mmap/proc_maps", "mprotect", || {
        let p = anon(4);
        sys!(mprotect, p + PAGE, PAGE, PROT_READ | PROT_EXEC);
        say!("{}", maps_line(p + PAGE));
        let fd = file("f", b"x");
        let m = map(1, PROT_READ, MAP_SHARED, fd);
        say!("{}", maps_line(m));
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        for name in ["[stack]", "[heap]", "/f"] {
            say!("{name} {}", maps.lines().any(|l| l.ends_with(name)));
        }
    }),
    case("fork/copy_on_write_both_ways", "mmap", || {
        let p = anon(16);
        (0..16).for_each(|i| put(p + i * PAGE, 1));
        let (r, w) = crate::case::pipe(0);
        let child = crate::case::fork(|| {
            let mut b = [0u8; 1];
            sys!(read, r, &mut b, 1);
            let parents = (0..16).filter(|i| get(p + i * PAGE) != 1).count();
            (0..16).for_each(|i| put(p + i * PAGE, 3));
            parents as i32
        });
        (0..8).for_each(|i| put(p + i * PAGE, 2));
        // The kernel itself writes too.
        sys!(pread64, open("/dev/zero", libc::O_RDONLY), p + 9 * PAGE, 1, 0);
        sys!(write, w, b"x", 1);
        say!("child saw {}", crate::case::wait(child));
        say!("{:?}", (0..16).map(|i| get(p + i * PAGE)).collect::<Vec<_>>());
    }),
    case("shmget/sysv_segments", "shmat shmdt shmctl fork", || {
        let id = done("create", sys!(shmget, 0, 8192, libc::IPC_CREAT | 0o600)) as i32;
        let p = done("attach", sys!(shmat, id, 0, 0)) as usize;
        put(p, 4);
        in_child("child", || {
            put(p + 1, 5);
            get(p) as i32
        });
        say!("{}", get(p + 1));
        let mut ds: libc::shmid_ds = zeroed();
        ret("stat", sys!(shmctl, id, libc::IPC_STAT, &mut ds));
        say!("size {} attached {} mode {:o}", ds.shm_segsz, ds.shm_nattch, ds.shm_perm.mode);
        let q = sys!(shmat, id, 0, libc::SHM_RDONLY) as usize;
        faulting("read only", q, || put(q, 1));
        ret("odd address", sys!(shmat, id, p + 1, 0));
        ret("remove", sys!(shmctl, id, libc::IPC_RMID, 0));
        say!("still there {}", get(p));
        ret("detach", sys!(shmdt, p));
        ret("detach again", sys!(shmdt, p));
        ret("detach last", sys!(shmdt, q));
        ret("attach removed", sys!(shmat, id, 0, 0));
    }),
    case("shmget/keys_and_errors", "shmctl", || {
        let id = sys!(shmget, 0x1234, 4096, libc::IPC_CREAT | libc::IPC_EXCL | 0o600);
        ret("exclusive", sys!(shmget, 0x1234, 4096, libc::IPC_CREAT | libc::IPC_EXCL | 0o600));
        say!("same {}", sys!(shmget, 0x1234, 0, 0) == id);
        ret("larger", sys!(shmget, 0x1234, 8192, 0));
        ret("missing", sys!(shmget, 0x9999, 4096, 0));
        ret("zero size", sys!(shmget, 0x9998, 0, libc::IPC_CREAT));
        in_child("stranger", || {
            sys!(setresuid, 5, 5, 5);
            ret("get", sys!(shmget, 0x1234, 4096, 0o600));
            ret("attach", sys!(shmat, id, 0, 0));
            ret("remove", sys!(shmctl, id, libc::IPC_RMID, 0));
            0
        });
        ret("bad command", sys!(shmctl, id, 999, 0));
        ret("remove", sys!(shmctl, id, libc::IPC_RMID, 0));
        ret("bad id", sys!(shmctl, id, libc::IPC_RMID, 0));
    }),
    case("membarrier/commands", "", || {
        claim("query", sys!(membarrier, 0, 0, 0) > 0);
        ret("global", sys!(membarrier, 1, 0, 0));
        ret("private before registration", sys!(membarrier, 8, 0, 0));
        ret("register", sys!(membarrier, 16, 0, 0));
        ret("private", sys!(membarrier, 8, 0, 0));
        ret("unknown", sys!(membarrier, 1 << 20, 0, 0));
        ret("flags", sys!(membarrier, 0, 4, 0));
    }),
    case("remap_file_pages/and_mempolicy", "get_mempolicy set_mempolicy mbind", || {
        let mut mode = 9i32;
        ret("get", sys!(get_mempolicy, &mut mode, 0, 0, 0, 0));
        say!("{mode}");
        ret("set default", sys!(set_mempolicy, 0, 0, 0));
        ret("bad mode", sys!(set_mempolicy, 99, 0, 0));
        let p = anon(1);
        ret("mbind default", sys!(mbind, p, PAGE, 0, 0, 0, 0));
        ret("get bad flags", sys!(get_mempolicy, &mut mode, 0, 0, 0, 0x100));
        say!("{}", number(sys!(remap_file_pages, p, PAGE, 0, 0, 0)));
    }),
    case("process_madvise/self", "pidfd_open mseal", || {
        let p = anon(2);
        put(p, 5);
        let fd = sys!(pidfd_open, sys!(getpid), 0);
        let v = libc::iovec { iov_base: p as *mut _, iov_len: 2 * PAGE };
        ret("willneed", sys!(process_madvise, fd, &v, 1, libc::MADV_WILLNEED, 0));
        ret("flags", sys!(process_madvise, fd, &v, 1, libc::MADV_WILLNEED, 1));
        ret("bad fd", sys!(process_madvise, 99, &v, 1, libc::MADV_WILLNEED, 0));
        ret("mseal bad flags", sys!(mseal, p, PAGE, 1));
    }),
    case("arch_prctl/bases", "", || {
        let mut fs = 0u64;
        ret("get fs", sys!(arch_prctl, 0x1003, &mut fs));
        claim("set by the C library", fs != 0);
        ret("set gs", sys!(arch_prctl, 0x1001, 0x1234_5000));
        let mut gs = 0u64;
        ret("get gs", sys!(arch_prctl, 0x1004, &mut gs));
        say!("{gs:#x}");
        ret("not canonical", sys!(arch_prctl, 0x1001, 1u64 << 63));
        ret("bad pointer", sys!(arch_prctl, 0x1004, NOWHERE));
        ret("unknown", sys!(arch_prctl, 0x9999, 0));
        in_child("inherited", || {
            let mut gs = 0u64;
            sys!(arch_prctl, 0x1004, &mut gs);
            (gs == 0x1234_5000) as i32
        });
    }),
];

fn open_read_only() -> i32 {
    file("ro", b"x");
    open("ro", libc::O_RDONLY)
}

fn maps_or_gone(address: usize) -> String {
    let mut v = [0u8; 1];
    number(sys!(mincore, address, PAGE, &mut v))
}
