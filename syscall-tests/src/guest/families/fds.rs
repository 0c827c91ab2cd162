//! Descriptor tables, fcntl, file locks of all three kinds, file ioctls.

use crate::case::{Case, NOWHERE, asleep, case, close, file, fork, in_child, open, pause_ms, pipe, wait};
use crate::out::{done, ret};
use crate::{say, sys};
use libc::{
    F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_GETLK, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_SETFD,
    F_SETFL, F_SETLK, F_SETLKW, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, O_APPEND, O_CLOEXEC, O_NONBLOCK,
    O_RDONLY, O_RDWR, O_WRONLY,
};

fn lock(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: 0, l_start: start, l_len: len, l_pid: 0 }
}

const R: i32 = libc::F_RDLCK;
const W: i32 = libc::F_WRLCK;
const U: i32 = libc::F_UNLCK;

/// What another process would find in its way.
fn seen_by_child(start: i64, len: i64) {
    in_child("seen", || {
        let fd = open("f", O_RDWR);
        let mut l = lock(W, start, len);
        ret("getlk", sys!(fcntl, fd, F_GETLK, &mut l));
        if l.l_type as i32 == U {
            say!("{start}+{len}: free");
        } else {
            say!("{start}+{len}: type {} {}+{}", l.l_type, l.l_start, l.l_len);
        }
        0
    });
}

pub const CASES: &[Case] = &[
    case("dup/basics", "dup2 dup3", || {
        ret("dup", sys!(dup, 0));
        ret("dup bad", sys!(dup, 99));
        ret("dup2", sys!(dup2, 0, 10));
        ret("dup2 same", sys!(dup2, 0, 0));
        ret("dup2 same bad", sys!(dup2, 99, 99));
        ret("dup2 bad", sys!(dup2, 99, 10));
        ret("dup2 negative", sys!(dup2, 0, -1));
        ret("dup2 over the limit", sys!(dup2, 0, 1024));
        ret("dup3", sys!(dup3, 0, 11, O_CLOEXEC));
        ret("cloexec", sys!(fcntl, 11, F_GETFD));
        ret("dup3 same", sys!(dup3, 0, 0, 0));
        ret("dup3 flag", sys!(dup3, 0, 12, O_NONBLOCK));
        ret("dup2 clears cloexec", sys!(dup2, 11, 12));
        ret("cloexec", sys!(fcntl, 12, F_GETFD));
    }),
    case("close/errors", "", || {
        ret("close", sys!(close, 0));
        ret("again", sys!(close, 0));
        ret("negative", sys!(close, -1));
        ret("huge", sys!(close, 1 << 30));
    }),
    case("close_range/flags", "dup2", || {
        for fd in 3..10 {
            sys!(dup2, 0, fd);
        }
        ret("middle", sys!(close_range, 4, 6, 0));
        say!("{:?}", (3..10).map(|fd| sys!(fcntl, fd, F_GETFD)).collect::<Vec<_>>());
        ret("cloexec", sys!(close_range, 7, 8, 4));
        say!("{:?}", (3..10).map(|fd| sys!(fcntl, fd, F_GETFD)).collect::<Vec<_>>());
        ret("reversed", sys!(close_range, 9, 8, 0));
        ret("unknown flag", sys!(close_range, 3, 8, 8));
        ret("unshare", sys!(close_range, 3, u32::MAX, 2));
        say!("{:?}", (3..10).map(|fd| sys!(fcntl, fd, F_GETFD)).collect::<Vec<_>>());
    }),
    case("fcntl/flags", "pipe2", || {
        let fd = file("f", b"");
        ret("getfd", sys!(fcntl, fd, F_GETFD));
        ret("setfd", sys!(fcntl, fd, F_SETFD, 1));
        ret("getfd", sys!(fcntl, fd, F_GETFD));
        say!("getfl {:o}", sys!(fcntl, fd, F_GETFL));
        ret("setfl", sys!(fcntl, fd, F_SETFL, O_APPEND | O_NONBLOCK | O_WRONLY));
        say!("getfl {:o}", sys!(fcntl, fd, F_GETFL));
        ret("dupfd", sys!(fcntl, fd, F_DUPFD, 20));
        ret("dupfd again", sys!(fcntl, fd, F_DUPFD, 20));
        ret("dupfd cloexec", sys!(fcntl, fd, F_DUPFD_CLOEXEC, 5));
        ret("its flag", sys!(fcntl, 5, F_GETFD));
        ret("dupfd too high", sys!(fcntl, fd, F_DUPFD, 1024));
        ret("dupfd negative", sys!(fcntl, fd, F_DUPFD, -1));
        ret("unknown", sys!(fcntl, fd, 9999, 0));
        ret("bad fd", sys!(fcntl, 99, F_GETFD));
        ret("on O_PATH", sys!(fcntl, open("f", libc::O_PATH), F_SETFL, 0));
    }),
    case("fcntl/pipe_size", "pipe2 write", || {
        let (r, w) = pipe(O_NONBLOCK);
        ret("size", sys!(fcntl, w, libc::F_GETPIPE_SZ));
        ret("smaller", sys!(fcntl, w, libc::F_SETPIPE_SZ, 4096));
        ret("fill", sys!(write, w, &[0u8; 8192], 8192));
        ret("rounded", sys!(fcntl, r, libc::F_SETPIPE_SZ, 5000));
        ret("too small for contents", sys!(fcntl, r, libc::F_SETPIPE_SZ, 0));
        ret("file", sys!(fcntl, file("f", b""), libc::F_GETPIPE_SZ));
    }),
    case("fcntl/owner_and_signal", "getpid", || {
        let (r, _w) = pipe(0);
        ret("getown", sys!(fcntl, r, libc::F_GETOWN));
        let me = sys!(getpid);
        ret("setown", sys!(fcntl, r, libc::F_SETOWN, me));
        say!("mine {}", sys!(fcntl, r, libc::F_GETOWN) == me);
        ret("setsig", sys!(fcntl, r, 10, libc::SIGUSR1));
        ret("getsig", sys!(fcntl, r, 11));
        ret("bad signal", sys!(fcntl, r, 10, 99));
        let owner = [0i32, me as i32];
        ret("setown ex thread", sys!(fcntl, r, 15, &owner));
        ret("no such process", sys!(fcntl, r, libc::F_SETOWN, 999_999));
    }),
    case("fcntl/async_io_signal", "rt_sigprocmask rt_sigtimedwait", || {
        let (r, w) = pipe(0);
        let set = 1u64 << (libc::SIGIO - 1);
        sys!(rt_sigprocmask, libc::SIG_BLOCK, &set, 0, 8);
        sys!(fcntl, r, libc::F_SETOWN, sys!(getpid));
        ret("async", sys!(fcntl, r, F_SETFL, libc::O_ASYNC));
        sys!(write, w, b"x", 1);
        ret("signal", sys!(rt_sigtimedwait, &set, 0, &crate::case::span_ms(2000), 8));
    }),
    case("fcntl/cloexec_over_exec", "execve dup2", || {
        sys!(dup3, 0, 20, O_CLOEXEC);
        sys!(dup2, 0, 21);
        in_child("exec", || {
            let argv =
                [c"guest".as_ptr(), c"helper:fds".as_ptr(), c"20".as_ptr(), c"21".as_ptr(), std::ptr::null()];
            sys!(execve, c"/proc/self/exe", &argv, 0) as i32
        });
    }),
    case("fcntl/posix_locks_basic", "", || {
        let fd = file("f", b"");
        ret("write lock", sys!(fcntl, fd, F_SETLK, &lock(W, 10, 10)));
        seen_by_child(0, 10);
        seen_by_child(0, 0);
        seen_by_child(15, 1);
        ret("read lock in the middle", sys!(fcntl, fd, F_SETLK, &lock(R, 13, 4)));
        seen_by_child(13, 1);
        seen_by_child(10, 3);
        seen_by_child(17, 3);
        ret("unlock all", sys!(fcntl, fd, F_SETLK, &lock(U, 0, 0)));
        seen_by_child(0, 0);
        let mut mine = lock(W, 0, 0);
        sys!(fcntl, fd, F_SETLK, &lock(W, 0, 1));
        ret("own lock is no obstacle", sys!(fcntl, fd, F_GETLK, &mut mine));
        say!("{}", mine.l_type);
    }),
    case("fcntl/posix_locks_errors", "", || {
        let fd = file("f", b"0123456789");
        ret("read lock on write only", sys!(fcntl, open("f", O_WRONLY), F_SETLK, &lock(R, 0, 1)));
        ret("write lock on read only", sys!(fcntl, open("f", O_RDONLY), F_SETLK, &lock(W, 0, 1)));
        ret("bad type", sys!(fcntl, fd, F_SETLK, &lock(9, 0, 1)));
        ret("negative start", sys!(fcntl, fd, F_SETLK, &lock(W, -1, 1)));
        ret("negative length", sys!(fcntl, fd, F_SETLK, &lock(W, 5, -3)));
        seen_by_child(0, 0);
        ret("overflow", sys!(fcntl, fd, F_SETLK, &lock(W, i64::MAX, 2)));
        let mut l = lock(W, 0, 1);
        l.l_whence = 9;
        ret("bad whence", sys!(fcntl, fd, F_SETLK, &l));
        l = lock(W, -2, 1);
        l.l_whence = 2;
        ret("from the end", sys!(fcntl, fd, F_SETLK, &l));
        seen_by_child(5, 0);
        ret("bad pointer", sys!(fcntl, fd, F_SETLK, NOWHERE));
        ret("pipe", sys!(fcntl, pipe(0).0, F_SETLK, &lock(R, 0, 1)));
    }),
    case("fcntl/posix_locks_die_with_close", "dup close", || {
        let fd = file("f", b"");
        let other = open("f", O_RDWR);
        sys!(fcntl, fd, F_SETLK, &lock(W, 0, 0));
        seen_by_child(0, 0);
        ret("close another descriptor", sys!(close, other));
        seen_by_child(0, 0);
        sys!(fcntl, fd, F_SETLK, &lock(W, 0, 0));
        in_child("not inherited", || {
            ret("child wants", sys!(fcntl, fd, F_SETLK, &lock(W, 0, 0)));
            0
        });
    }),
    case("fcntl/posix_locks_wait", "fork", || {
        let fd = file("f", b"");
        sys!(fcntl, fd, F_SETLK, &lock(W, 0, 0));
        let child = fork(|| ret("child got", sys!(fcntl, fd, F_SETLKW, &lock(W, 0, 0))) as i32);
        say!("child sleeps {}", asleep(child));
        say!("unlocking");
        sys!(fcntl, fd, F_SETLK, &lock(U, 0, 0));
        say!("{}", wait(child));
    }),
    case("fcntl/posix_locks_deadlock", "fork", || {
        let fd = file("f", b"");
        let (r, w) = pipe(0);
        sys!(fcntl, fd, F_SETLK, &lock(W, 0, 1));
        let child = fork(|| {
            sys!(fcntl, fd, F_SETLK, &lock(W, 1, 1));
            sys!(write, w, b"x", 1);
            sys!(fcntl, fd, F_SETLKW, &lock(W, 0, 1));
            0
        });
        let mut b = [0u8; 1];
        sys!(read, r, &mut b, 1);
        asleep(child);
        ret("would deadlock", sys!(fcntl, fd, F_SETLKW, &lock(W, 1, 1)));
        sys!(fcntl, fd, F_SETLK, &lock(U, 0, 0));
        say!("{}", wait(child));
    }),
    case("fcntl/ofd_locks", "fork", || {
        let a = file("f", b"");
        let b = open("f", O_RDWR);
        ret("first", sys!(fcntl, a, F_OFD_SETLK, &lock(W, 0, 10)));
        ret("second description", sys!(fcntl, b, F_OFD_SETLK, &lock(W, 5, 10)));
        let mut l = lock(W, 5, 10);
        ret("getlk", sys!(fcntl, b, F_OFD_GETLK, &mut l));
        say!("type {} {}+{} pid {}", l.l_type, l.l_start, l.l_len, l.l_pid);
        l.l_pid = 5;
        ret("pid must be zero", sys!(fcntl, b, F_OFD_SETLK, &l));
        in_child("inherited", || ret("child", sys!(fcntl, a, F_OFD_SETLK, &lock(W, 0, 20))) as i32);
        close(open("f", O_RDWR));
        ret("survives another close", sys!(fcntl, b, F_OFD_SETLK, &lock(W, 0, 1)));
        let child = fork(|| {
            let c = open("f", O_RDWR);
            close(a);
            ret("waiter", sys!(fcntl, c, F_OFD_SETLKW, &lock(R, 0, 1))) as i32
        });
        asleep(child);
        close(a);
        say!("{}", wait(child));
    }),
    case("flock/basics", "fork", || {
        let a = file("f", b"");
        let b = open("f", O_RDONLY);
        ret("shared", sys!(flock, a, LOCK_SH));
        ret("shared twice", sys!(flock, b, LOCK_SH | LOCK_NB));
        ret("upgrade refused", sys!(flock, a, LOCK_EX | LOCK_NB));
        ret("unlock", sys!(flock, b, LOCK_UN));
        ret("exclusive", sys!(flock, a, LOCK_EX | LOCK_NB));
        ret("refused", sys!(flock, b, LOCK_SH | LOCK_NB));
        in_child("child shares the description", || ret("child", sys!(flock, a, LOCK_SH | LOCK_NB)) as i32);
        ret("both kinds", sys!(flock, a, LOCK_SH | LOCK_EX));
        ret("nothing", sys!(flock, a, 0));
        ret("bad fd", sys!(flock, 99, LOCK_SH));
        ret("pipe", sys!(flock, pipe(0).0, LOCK_EX | LOCK_NB));
        ret("O_PATH", sys!(flock, open("f", libc::O_PATH), LOCK_SH));
    }),
    case("flock/waits", "fork", || {
        let a = file("f", b"");
        sys!(flock, a, LOCK_EX);
        let child = fork(|| {
            let b = open("f", O_RDONLY);
            close(a);
            ret("got", sys!(flock, b, LOCK_EX)) as i32
        });
        say!("sleeps {}", asleep(child));
        say!("closing");
        close(a);
        say!("{}", wait(child));
    }),
    case("flock/interrupted", "rt_sigaction kill", || {
        let a = file("f", b"");
        sys!(flock, a, LOCK_EX);
        let child = fork(|| {
            super::signals::on(libc::SIGUSR1, 0);
            let b = open("f", O_RDONLY);
            ret("interrupted", sys!(flock, b, LOCK_EX));
            0
        });
        asleep(child);
        sys!(kill, child, libc::SIGUSR1);
        say!("{}", wait(child));
    }),
    case("ioctl/file_kinds", "", || {
        let fd = file("f", b"0123456789");
        let mut n = 0i32;
        ret("FIONREAD", sys!(ioctl, fd, libc::FIONREAD, &mut n));
        say!("{n}");
        let (r, w) = pipe(0);
        sys!(write, w, b"abc", 3);
        ret("FIONREAD pipe", sys!(ioctl, r, libc::FIONREAD, &mut n));
        say!("{n}");
        n = 1;
        ret("FIONBIO", sys!(ioctl, r, libc::FIONBIO, &n));
        say!("{:o}", sys!(fcntl, r, F_GETFL));
        ret("FIOCLEX", sys!(ioctl, r, libc::FIOCLEX));
        ret("flag", sys!(fcntl, r, F_GETFD));
        ret("FIONCLEX", sys!(ioctl, r, libc::FIONCLEX));
        ret("flag", sys!(fcntl, r, F_GETFD));
        ret("TCGETS on a file", sys!(ioctl, fd, libc::TCGETS, &mut [0u8; 64]));
        ret("unknown", sys!(ioctl, fd, 0x1234_5678, 0));
        ret("bad fd", sys!(ioctl, 99, libc::FIONREAD, &mut n));
        ret("bad pointer", sys!(ioctl, r, libc::FIONREAD, NOWHERE));
    }),
    case("kcmp/descriptors", "dup getpid", || {
        let me = sys!(getpid);
        let fd = file("f", b"");
        let other = open("f", O_RDONLY);
        let copy = sys!(dup, fd);
        ret("same", sys!(kcmp, me, me, 0, fd, copy));
        say!("different {}", sys!(kcmp, me, me, 0, fd, other) > 0);
        ret("bad fd", sys!(kcmp, me, me, 0, fd, 99));
        ret("vm", sys!(kcmp, me, me, 1, 0, 0));
        ret("bad type", sys!(kcmp, me, me, 99, 0, 0));
        ret("no such process", sys!(kcmp, me, 999_999, 1, 0, 0));
    }),
    case("fcntl/leases_and_hints", "", || {
        let fd = file("f", b"");
        let mut hint = 2u64;
        ret("set hint", sys!(fcntl, fd, 1036, &hint));
        hint = 9;
        ret("get hint", sys!(fcntl, fd, 1035, &mut hint));
        say!("{hint}");
        ret("lease state", sys!(fcntl, open("f", O_RDONLY), libc::F_GETLEASE));
        done("dnotify unset", sys!(fcntl, fd, libc::F_NOTIFY, 0).min(0));
        pause_ms(1);
    }),
];
