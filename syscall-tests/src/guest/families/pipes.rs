//! Pipes and FIFOs: capacity, atomicity, blocking, packets.

use crate::case::{Case, NOWHERE, asleep, case, close, fork, open, pause_ms, pipe, wait};
use crate::out::{claim, ret, text};
use crate::{say, sys};
use libc::{O_CLOEXEC, O_DIRECT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY};

pub const CASES: &[Case] = &[
    case("pipe2/flags_and_errors", "pipe", || {
        let mut ends = [0i32; 2];
        ret("pipe", sys!(pipe, &mut ends));
        say!("{ends:?}");
        ret("cloexec", sys!(pipe2, &mut ends, O_CLOEXEC | O_NONBLOCK));
        say!(
            "{} {:o} {:o}",
            sys!(fcntl, ends[0], libc::F_GETFD),
            sys!(fcntl, ends[0], libc::F_GETFL),
            sys!(fcntl, ends[1], libc::F_GETFL)
        );
        ret("bad flag", sys!(pipe2, &mut ends, libc::O_APPEND));
        ret("bad pointer", sys!(pipe, NOWHERE));
        ret("no descriptor leaked", sys!(dup, 0));
        let link = std::fs::read_link(format!("/proc/self/fd/{}", ends[0])).unwrap_or_default();
        say!("{}", link.to_string_lossy().starts_with("pipe:["));
    }),
    case("pipe2/capacity_and_partial_writes", "write read", || {
        let (r, w) = pipe(O_NONBLOCK);
        let big = vec![7u8; 200_000];
        ret("fills", sys!(write, w, big.as_slice(), big.len()));
        ret("full", sys!(write, w, big.as_slice(), 1));
        let mut b = vec![0u8; 100_000];
        ret("drain a bit", sys!(read, r, b.as_mut_slice(), 1000));
        ret("no whole page is free", sys!(write, w, big.as_slice(), 4096));
        ret("a larger one neither", sys!(write, w, big.as_slice(), 5000));
        ret("drain a page", sys!(read, r, b.as_mut_slice(), 4096));
        ret("now atomic", sys!(write, w, big.as_slice(), 4096));
        ret("rest", sys!(read, r, b.as_mut_slice(), 100_000));
        ret("empty", sys!(read, r, b.as_mut_slice(), 1));
        close(w);
        ret("eof", sys!(read, r, b.as_mut_slice(), 1));
    }),
    case("pipe2/blocking_writer", "fork", || {
        let (r, w) = pipe(0);
        let child = fork(|| {
            close(r);
            let big = vec![7u8; 300_000];
            (sys!(write, w, big.as_slice(), big.len()) == 300_000) as i32
        });
        close(w);
        asleep(child);
        let mut total = 0;
        let mut b = vec![0u8; 10_000];
        loop {
            let n = sys!(read, r, b.as_mut_slice(), b.len());
            if n <= 0 {
                break;
            }
            total += n;
        }
        say!("{total} {}", wait(child));
    }),
    case("pipe2/reader_dies_under_writer", "fork kill", || {
        let (r, w) = pipe(0);
        let child = fork(|| {
            close(r);
            sys!(rt_sigaction, libc::SIGPIPE, &[1u64, 0, 0, 0], 0, 8);
            let big = vec![7u8; 300_000];
            ret("first takes part", sys!(write, w, big.as_slice(), big.len()));
            ret("second", sys!(write, w, b"x", 1));
            0
        });
        asleep(child);
        close(r);
        say!("{}", wait(child));
    }),
    case("pipe2/packets", "read write", || {
        let (r, w) = pipe(O_DIRECT);
        sys!(write, w, b"one", 3);
        sys!(write, w, b"three", 5);
        let mut b = [0u8; 16];
        ret("first packet", sys!(read, r, &mut b, 16));
        ret("cut", sys!(read, r, &mut b, 2));
        let n = libc::O_NONBLOCK;
        sys!(fcntl, r, libc::F_SETFL, n);
        ret("rest is gone", sys!(read, r, &mut b, 16));
    }),
    case("pipe2/interrupted_partial_write", "kill", || {
        super::signals::on(libc::SIGUSR1, libc::SA_RESTART);
        let (_r, w) = pipe(0);
        let me = sys!(getpid);
        let child = fork(|| {
            asleep(me as i32);
            sys!(kill, me, libc::SIGUSR1);
            0
        });
        let big = vec![7u8; 200_000];
        ret("what fit", sys!(write, w, big.as_slice(), big.len()));
        say!("{}", wait(child));
    }),
    case("pipe2/order_between_writers", "fork", || {
        let (r, w) = pipe(0);
        let children: Vec<i32> = (b'a'..b'd')
            .map(|letter| {
                fork(move || {
                    for _ in 0..50 {
                        sys!(write, w, &[letter; 512], 512);
                    }
                    0
                })
            })
            .collect();
        close(w);
        let mut all = Vec::new();
        let mut b = [0u8; 4096];
        loop {
            let n = sys!(read, r, &mut b, 4096);
            if n <= 0 {
                break;
            }
            all.extend_from_slice(&b[..n as usize]);
        }
        children.into_iter().for_each(|c| {
            wait(c);
        });
        claim("blocks are whole", all.chunks(512).all(|c| c.iter().all(|x| *x == c[0])));
        say!("{}", all.len());
    }),
    case("pipe2/proc_fd_reopen", "open", || {
        let (r, w) = pipe(0);
        let again = open(&format!("/proc/self/fd/{w}"), O_WRONLY);
        sys!(write, again, b"via proc", 8);
        let mut b = [0u8; 16];
        ret("read", sys!(read, r, &mut b, 16));
        say!("{}", text(&b[..8]));
    }),
    case("mknod/fifo_semantics", "open read write", || {
        sys!(mknod, c"p", libc::S_IFIFO | 0o600, 0);
        let rw = open("p", O_RDWR);
        ret("write", sys!(write, rw, b"abc", 3));
        let r = open("p", O_RDONLY | O_NONBLOCK);
        let mut b = [0u8; 8];
        ret("read", sys!(read, r, &mut b, 8));
        close(rw);
        ret("no writer", sys!(read, r, &mut b, 8));
        let w = open("p", O_WRONLY);
        close(r);
        sys!(rt_sigaction, libc::SIGPIPE, &[1u64, 0, 0, 0], 0, 8);
        ret("no reader", sys!(write, w, b"x", 1));
        let mut st: libc::stat = crate::case::zeroed();
        sys!(stat, c"p", &mut st);
        say!("size {}", st.st_size);
        ret("seek", sys!(lseek, w, 0, 0));
        sys!(unlink, c"p");
        pause_ms(1);
    }),
    case("mknod/fifo_open_interrupted", "open kill", || {
        sys!(mknod, c"p", libc::S_IFIFO | 0o600, 0);
        super::signals::on(libc::SIGUSR1, 0);
        let me = sys!(getpid);
        let child = fork(|| {
            asleep(me as i32);
            sys!(kill, me, libc::SIGUSR1);
            0
        });
        ret("open", sys!(open, c"p", O_RDONLY, 0));
        say!("{}", wait(child));
    }),
];
