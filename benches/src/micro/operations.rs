//! The operations that are timed.

use crate::timing::{Clock, Timed};
use libc::{c_int, c_long, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

type Run = fn(&Clock) -> Timed;

/// Name and body of each.
pub const ALL: &[(&str, Run)] = &[
    // Natively as cheap as any call can be; it is the sentry that answers it.
    ("getpgrp", |c| c.time(|| call0(libc::SYS_getpgrp))),
    ("getpid", |c| c.time(|| check(unsafe { libc::getpid() } as isize))),
    ("getppid", |c| c.time(|| check(unsafe { libc::getppid() } as isize))),
    ("getpgrp_unpatched", |c| c.time(|| unpatched(libc::SYS_getpgrp))),
    ("read_1b_dev_zero", |c| {
        let fd = open("/dev/zero\0", libc::O_RDONLY);
        let mut b = [0u8; 1];
        let r = c.time(|| check(unsafe { libc::read(fd, b.as_mut_ptr().cast(), 1) }));
        close(fd);
        r
    }),
    ("clock_gettime", |c| {
        let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        c.time(|| check(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) } as isize))
    }),
    ("clock_gettime_syscall", |c| {
        let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        c.time(|| {
            check(unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &mut t) } as isize)
        })
    }),
    ("open_close", |c| {
        with_file(1, |_| ());
        c.time(|| close(open("bench-file\0", libc::O_RDONLY)))
    }),
    ("stat", |c| {
        with_file(1, |_| ());
        let mut st = unsafe { std::mem::zeroed::<libc::stat>() };
        c.time(|| check(unsafe { libc::stat(c"bench-file".as_ptr(), &mut st) } as isize))
    }),
    ("pread_4k", |c| with_file(1 << 20, |fd| transfer(c, fd, 4096, false))),
    ("read_1m", |c| with_file(1 << 20, |fd| transfer(c, fd, 1 << 20, false))),
    ("pwrite_4k", |c| with_file(1 << 20, |fd| transfer(c, fd, 4096, true))),
    ("write_1m", |c| with_file(1 << 20, |fd| transfer(c, fd, 1 << 20, true))),
    ("create_unlink", |c| {
        c.time(|| {
            close(open("bench-new\0", libc::O_RDWR | libc::O_CREAT | libc::O_EXCL));
            check(unsafe { libc::unlink(c"bench-new".as_ptr()) } as isize);
        })
    }),
    ("getpgrp_busy", |c| {
        // As many threads as there are processors run guest code beside this one.
        let stop = Arc::new(AtomicU32::new(0));
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let spinners: Vec<_> = (0..count)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    while stop.load(Ordering::Relaxed) == 0 {
                        std::hint::spin_loop();
                    }
                })
            })
            .collect();
        let r = c.time(|| call0(libc::SYS_getpgrp));
        stop.store(1, Ordering::Relaxed);
        for s in spinners {
            let _ = s.join();
        }
        r
    }),
    ("getpgrp_other_core_busy", |c| {
        let stop = Arc::new(AtomicU32::new(0));
        let other = Arc::clone(&stop);
        let spinner = std::thread::spawn(move || {
            while other.load(Ordering::Relaxed) == 0 {
                std::hint::spin_loop();
            }
        });
        let r = c.time(|| call0(libc::SYS_getpgrp));
        stop.store(1, Ordering::Relaxed);
        let _ = spinner.join();
        r
    }),
    ("read_sequential_4k", |c| with_file(16 << 20, |fd| in_order(c, fd, false))),
    ("write_sequential_4k", |c| with_file(16 << 20, |fd| in_order(c, fd, true))),
    ("pipe_one_thread", |c| {
        let mut ends = [0; 2];
        check(unsafe { libc::pipe(ends.as_mut_ptr()) } as isize);
        let mut byte = [0u8; 1];
        let at: *mut c_void = byte.as_mut_ptr().cast();
        let r = c.time(|| {
            check(unsafe { libc::write(ends[1], at, 1) });
            check(unsafe { libc::read(ends[0], at, 1) });
        });
        close(ends[0]);
        close(ends[1]);
        r
    }),
    ("pipe_round_trip", pipe_round_trip),
    ("futex_round_trip", futex_round_trip),
    ("fork_wait", |c| {
        c.time(|| {
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                unsafe { libc::_exit(0) };
            }
            reap(pid);
        })
    }),
    ("fork_exec_wait", |c| {
        c.time(|| {
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let argv = [c"micro".as_ptr(), c"exit".as_ptr(), std::ptr::null()];
                unsafe {
                    libc::execv(c"/proc/self/exe".as_ptr(), argv.as_ptr());
                    libc::_exit(127);
                }
            }
            reap(pid);
        })
    }),
    ("mmap_touch_munmap", |c| c.time(|| touch_pages(1))),
    ("page_fault_sequential", |c| {
        const PAGES: usize = 4096;
        let r = c.time(|| touch_pages(PAGES));
        Timed {
            median: r.median / PAGES as f64,
            least: r.least / PAGES as f64,
            turns: r.turns * PAGES as u64,
        }
    }),
    ("signal_to_self", |c| {
        extern "C" fn nothing(_: c_int) {}
        unsafe { libc::signal(libc::SIGUSR1, nothing as *const () as usize) };
        let me = unsafe { libc::getpid() };
        c.time(|| check(unsafe { libc::kill(me, libc::SIGUSR1) } as isize))
    }),
    ("thread_create_join", |c| {
        c.time(|| {
            let _ = std::thread::spawn(|| ()).join();
        })
    }),
];

fn check(r: isize) {
    if r < 0 {
        eprintln!("micro: an operation failed: {}", std::io::Error::last_os_error());
        std::process::exit(1);
    }
}

fn call0(nr: c_long) {
    check(unsafe { libc::syscall(nr) } as isize);
}

/// A system call from a site that no pattern of a binary patcher matches: the number comes from
/// another register and an instruction without a match follows.
#[inline(never)]
fn unpatched(nr: c_long) {
    let r: isize;
    unsafe {
        std::arch::asm!("mov rax, {nr}", "nop", "syscall", "nop", nr = in(reg) nr,
            out("rax") r, out("rcx") _, out("r11") _, options(nostack));
    }
    check(r);
}

fn open(path: &str, flags: c_int) -> c_int {
    let fd = unsafe { libc::open(path.as_ptr().cast(), flags, 0o644) };
    check(fd as isize);
    fd
}

fn close(fd: c_int) {
    check(unsafe { libc::close(fd) } as isize);
}

fn reap(pid: c_int) {
    let mut status = 0;
    check(unsafe { libc::waitpid(pid, &mut status, 0) } as isize);
    check(if status == 0 { 0 } else { -1 });
}

/// A file of that size in the current directory, open for reading and writing.
fn with_file<T>(size: usize, body: impl FnOnce(c_int) -> T) -> T {
    let fd = open("bench-file\0", libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC);
    let bytes = vec![1u8; size];
    check(unsafe { libc::write(fd, bytes.as_ptr().cast(), size) });
    let r = body(fd);
    close(fd);
    r
}

fn transfer(clock: &Clock, fd: c_int, size: usize, write: bool) -> Timed {
    let mut b = vec![2u8; size];
    clock.time(|| {
        check(if write {
            unsafe { libc::pwrite(fd, b.as_ptr().cast(), size, 0) }
        } else {
            unsafe { libc::pread(fd, b.as_mut_ptr().cast(), size, 0) }
        });
    })
}

/// Through the file from its start to its end, again and again; a write makes it anew each time.
fn in_order(clock: &Clock, fd: c_int, write: bool) -> Timed {
    let mut b = vec![3u8; 4096];
    let (mut at, end) = (0, 16 << 20);
    clock.time(|| {
        if at == end {
            at = 0;
            check(unsafe { libc::lseek(fd, 0, libc::SEEK_SET) } as isize);
            if write {
                check(unsafe { libc::ftruncate(fd, 0) } as isize);
            }
        }
        at += b.len();
        check(if write {
            unsafe { libc::write(fd, b.as_ptr().cast(), b.len()) }
        } else {
            unsafe { libc::read(fd, b.as_mut_ptr().cast(), b.len()) }
        });
    })
}

fn touch_pages(pages: usize) {
    let len = pages * 4096;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let p =
        unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    check(if p == libc::MAP_FAILED { -1 } else { 0 });
    for page in 0..pages {
        unsafe { p.cast::<u8>().add(page * 4096).write_volatile(1) };
    }
    check(unsafe { libc::munmap(p, len) } as isize);
}

fn pipe_round_trip(clock: &Clock) -> Timed {
    let (mut there, mut back) = ([0; 2], [0; 2]);
    check(unsafe { libc::pipe(there.as_mut_ptr()) } as isize);
    check(unsafe { libc::pipe(back.as_mut_ptr()) } as isize);
    let pid = unsafe { libc::fork() };
    let mut byte = [0u8; 1];
    let at: *mut c_void = byte.as_mut_ptr().cast();
    if pid == 0 {
        unsafe {
            libc::close(there[1]);
            while libc::read(there[0], at, 1) == 1 {
                libc::write(back[1], at, 1);
            }
            libc::_exit(0);
        }
    }
    let r = clock.time(|| {
        check(unsafe { libc::write(there[1], at, 1) });
        check(unsafe { libc::read(back[0], at, 1) });
    });
    close(there[1]);
    reap(pid);
    for fd in [there[0], back[0], back[1]] {
        close(fd);
    }
    r
}

fn futex(word: &AtomicU32, op: c_int, value: u32) {
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), op | libc::FUTEX_PRIVATE_FLAG, value, 0usize, 0usize, 0)
    };
}

/// Two threads hand a token to and fro.
fn futex_round_trip(clock: &Clock) -> Timed {
    let word = Arc::new(AtomicU32::new(0));
    let other = Arc::clone(&word);
    let thread = std::thread::spawn(move || {
        loop {
            match other.load(Ordering::Acquire) {
                1 => {
                    other.store(0, Ordering::Release);
                    futex(&other, libc::FUTEX_WAKE, 1);
                }
                2 => return,
                _ => futex(&other, libc::FUTEX_WAIT, 0),
            }
        }
    });
    let r = clock.time(|| {
        word.store(1, Ordering::Release);
        futex(&word, libc::FUTEX_WAKE, 1);
        while word.load(Ordering::Acquire) == 1 {
            futex(&word, libc::FUTEX_WAIT, 1);
        }
    });
    word.store(2, Ordering::Release);
    futex(&word, libc::FUTEX_WAKE, 1);
    let _ = thread.join();
    r
}

/// Round trips of one byte in a second between two threads, over TCP on loopback: the median of five times 4,000.
pub fn echo_of_a_byte() -> f64 {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    const TURNS: u32 = 4000;
    let run = || -> std::io::Result<f64> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let (mut server, _) = listener.accept()?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let echo = std::thread::spawn(move || {
            let mut byte = [0];
            while server.read_exact(&mut byte).and_then(|()| server.write_all(&byte)).is_ok() {}
        });
        let mut rates = Vec::new();
        for _ in 0..5 {
            let start = std::time::Instant::now();
            for _ in 0..TURNS {
                client.write_all(b"x")?;
                client.read_exact(&mut [0])?;
            }
            rates.push(f64::from(TURNS) / start.elapsed().as_secs_f64());
        }
        drop(client);
        let _ = echo.join();
        rates.sort_by(f64::total_cmp);
        Ok(rates[2])
    };
    run().unwrap_or_else(|error| {
        eprintln!("micro: echo: {error}");
        std::process::exit(1);
    })
}
