//! POSIX message queues beyond their first use, and asynchronous I/O.

use super::signals::{bits, block};
use crate::case::{Case, NOWHERE, asleep, case, file, fork, in_child, pause_ms, span_ms, wait};
use crate::out::{claim, done, must, ret, text};
use crate::{say, sys};
use libc::{O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY};

fn create(name: &std::ffi::CStr, messages: i64, size: i64, flags: i32) -> isize {
    sys!(mq_unlink, name);
    let attr = [0i64, messages, size, 0, 0, 0, 0, 0];
    must("create", sys!(mq_open, name, O_CREAT | O_EXCL | O_RDWR | flags, 0o600, &attr))
}

fn in_half_a_second() -> libc::timespec {
    let mut now = span_ms(0);
    sys!(clock_gettime, libc::CLOCK_REALTIME, &mut now);
    now.tv_nsec += 50_000_000;
    if now.tv_nsec >= 1_000_000_000 {
        now.tv_sec += 1;
        now.tv_nsec -= 1_000_000_000;
    }
    now
}

#[repr(C)]
struct Iocb {
    data: u64,
    key: u32,
    flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    len: u64,
    offset: i64,
    reserved: u64,
    more: u32,
    event_fd: u32,
}

fn iocb(opcode: u16, fd: isize, buf: &mut [u8], offset: i64) -> Iocb {
    let (buf, len) = (buf.as_mut_ptr() as u64, buf.len() as u64);
    Iocb {
        data: 7,
        key: 0,
        flags: 0,
        opcode,
        priority: 0,
        fd: fd as u32,
        buf,
        len,
        offset,
        reserved: 0,
        more: 0,
        event_fd: 0,
    }
}

pub const CASES: &[Case] = &[
    case("mq_open/errors", "mq_unlink mq_getsetattr", || {
        let bad = |messages: i64, size: i64| {
            let attr = [0i64, messages, size, 0, 0, 0, 0, 0];
            sys!(mq_open, c"mq-errors", O_CREAT | O_RDWR, 0o600, &attr)
        };
        ret("no messages", bad(0, 10));
        ret("no size", bad(10, 0));
        ret("negative", bad(-1, 10));
        ret("too many", bad(65_537, 10));
        ret("too large", bad(1, (16 << 20) + 1));
        ret("empty name", sys!(mq_open, c"", O_RDWR, 0, 0));
        ret("slash", sys!(mq_open, c"/x", O_CREAT | O_RDWR, 0o600, 0));
        ret("dot", sys!(mq_open, c".", O_RDWR, 0o600, 0));
        ret("bad name", sys!(mq_open, NOWHERE, O_RDWR, 0, 0));
        ret("bad attributes", sys!(mq_open, c"mq-errors", O_CREAT | O_RDWR, 0o600, NOWHERE));
        let long = crate::case::cstr(vec![b'n'; 256]);
        ret("long name", sys!(mq_open, &*long, O_CREAT | O_RDWR, 0o600, 0));
        ret("unlink long", sys!(mq_unlink, &*long));
        ret("unlink missing", sys!(mq_unlink, c"mq-nothing"));
        ret("unlink slash", sys!(mq_unlink, c"a/b"));
        let q = create(c"mq-errors", 2, 8, 0);
        ret("mode 3", sys!(mq_open, c"mq-errors", 3, 0, 0));
        ret("directory flag", sys!(mq_getsetattr, q, &[2i64, 0, 0, 0, 0, 0, 0, 0], 0));
        ret("of a file", sys!(mq_getsetattr, file("plain", b""), 0, 0));
        ret("of nothing", sys!(mq_getsetattr, -1, 0, 0));
        let reader = sys!(mq_open, c"mq-errors", O_RDONLY, 0, 0);
        ret("send on a reader", sys!(mq_timedsend, reader, b"x", 1, 0, 0));
        let writer = sys!(mq_open, c"mq-errors", O_WRONLY, 0, 0);
        ret("receive on a writer", sys!(mq_timedreceive, writer, &mut [0u8; 8], 8, 0, 0));
        ret("bad time", sys!(mq_timedsend, q, b"x", 1, 0, &[0i64, 2_000_000_000]));
        ret("bad message", sys!(mq_timedsend, q, NOWHERE, 4, 0, 0));
        in_child("user", || {
            sys!(setresuid, 9, 9, 9);
            ret("open", sys!(mq_open, c"mq-errors", O_RDWR, 0, 0));
            ret("unlink", sys!(mq_unlink, c"mq-errors"));
            ret("over the limit", bad(11, 10));
            0
        });
        ret("close on exec", sys!(fcntl, q, libc::F_GETFD));
        ret("unlink", sys!(mq_unlink, c"mq-errors"));
    }),
    case("mq_timedsend/blocking_and_timeouts", "mq_open mq_timedreceive mq_unlink", || {
        let q = create(c"mq-blocking", 1, 8, 0);
        ret("fill", sys!(mq_timedsend, q, b"one", 3, 0, 0));
        ret("full until", sys!(mq_timedsend, q, b"two", 3, 0, &in_half_a_second()));
        ret("long ago", sys!(mq_timedsend, q, b"two", 3, 0, &[1i64, 0]));
        let child = fork(|| sys!(mq_timedsend, q, b"two", 3, 7, 0) as i32);
        asleep(child);
        let mut b = [0u8; 8];
        let mut priority = 9u32;
        ret("receive", sys!(mq_timedreceive, q, &mut b, 8, &mut priority, 0));
        say!("{} {priority}", text(&b[..3]));
        say!("{}", wait(child));
        ret("receive", sys!(mq_timedreceive, q, &mut b, 8, &mut priority, 0));
        say!("{} {priority}", text(&b[..3]));
        ret("empty until", sys!(mq_timedreceive, q, &mut b, 8, 0, &in_half_a_second()));
        let child = fork(|| {
            let mut b = [0u8; 8];
            sys!(mq_timedreceive, q, &mut b, 8, 0, 0) as i32
        });
        asleep(child);
        ret("send", sys!(mq_timedsend, q, b"three", 5, 0, 0));
        say!("{}", wait(child));
        ret("empty message", sys!(mq_timedsend, q, b"", 0, 0, 0));
        ret("receive it", sys!(mq_timedreceive, q, &mut b, 8, 0, 0));
        sys!(mq_unlink, c"mq-blocking");
    }),
    case("mq_open/poll_and_attributes", "poll epoll_ctl mq_getsetattr mq_timedsend mq_unlink", || {
        let q = create(c"mq-poll", 1, 8, O_NONBLOCK);
        let ready = || {
            let mut p = libc::pollfd { fd: q as i32, events: libc::POLLIN | libc::POLLOUT, revents: 0 };
            sys!(poll, &mut p, 1, 0);
            p.revents
        };
        say!("{:#x}", ready());
        sys!(mq_timedsend, q, b"x", 1, 0, 0);
        say!("{:#x}", ready());
        let e = sys!(epoll_create1, 0);
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 5 };
        ret("epoll", sys!(epoll_ctl, e, libc::EPOLL_CTL_ADD, q, &mut event));
        ret("ready", sys!(epoll_wait, e, &mut event, 1, 0));
        let mut was = [0i64; 8];
        ret("block", sys!(mq_getsetattr, q, &[0i64; 8], &mut was));
        say!("{:?}", &was[..4]);
        ret("get", sys!(mq_getsetattr, q, 0, &mut was));
        say!("{:?}", &was[..4]);
        let mut stat: libc::stat = crate::case::zeroed();
        ret("stat", sys!(fstat, q, &mut stat));
        say!("{:o} {} {}", stat.st_mode, stat.st_size, stat.st_nlink);
        let mut line = [0u8; 128];
        let n = ret("read", sys!(read, q, &mut line, 128));
        say!("{}", text(&line[..n.max(0) as usize]));
        ret("write", sys!(write, q, b"x", 1));
        sys!(mq_unlink, c"mq-poll");
        sys!(fstat, q, &mut stat);
        say!("links {}", stat.st_nlink);
    }),
    case("mq_open/file_system", "mount mq_unlink unlink", || {
        in_child("mounted", || {
            sys!(unshare, libc::CLONE_NEWNS | libc::CLONE_NEWIPC);
            sys!(mkdir, c"queues", 0o755);
            ret("mount", sys!(mount, c"mqueue", c"queues", c"mqueue", 0, 0));
            let q = create(c"mq-seen", 4, 16, 0);
            done("send", sys!(mq_timedsend, q, b"12345", 5, 0, 0));
            let names = || {
                let list = std::fs::read_dir("queues").map(|d| {
                    let mut n: Vec<_> =
                        d.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
                    n.sort();
                    n.join(" ")
                });
                list.unwrap_or_default()
            };
            say!("names {}", names());
            say!("{}", std::fs::read_to_string("queues/mq-seen").unwrap_or_default().trim_end());
            ret("by open", sys!(open, c"queues/made", O_CREAT | O_RDWR, 0o640));
            say!("names {}", names());
            let mut now = [0i64; 8];
            let other = sys!(mq_open, c"made", O_RDWR, 0, 0);
            ret("default attributes", sys!(mq_getsetattr, other, 0, &mut now));
            say!("{:?}", &now[..4]);
            ret("no directories", sys!(mkdir, c"queues/d", 0o755));
            ret("no links", sys!(symlink, c"x", c"queues/l"));
            ret("no renames", sys!(rename, c"queues/made", c"queues/other"));
            ret("no fifos", sys!(mknod, c"queues/p", libc::S_IFIFO | 0o600, 0));
            ret("unlink", sys!(unlink, c"queues/made"));
            ret("gone", sys!(mq_open, c"made", O_RDWR, 0, 0));
            ret("mq_unlink", sys!(mq_unlink, c"mq-seen"));
            say!("names '{}'", names());
            in_child("another namespace", || {
                sys!(mq_open, c"mq-first", O_CREAT | O_RDWR, 0o600, 0);
                sys!(unshare, libc::CLONE_NEWIPC);
                ret("not there", sys!(mq_open, c"mq-first", O_RDWR, 0, 0));
                0
            });
            sys!(umount2, c"queues", 0);
            0
        });
    }),
    case("mq_notify/errors_and_order", "mq_open mq_timedsend mq_timedreceive mq_unlink", || {
        let q = create(c"mq-notify", 4, 8, O_NONBLOCK);
        block(&[libc::SIGUSR2]);
        let event = |signal: i32, kind: u64| [0xabu64, signal as u64 | kind << 32, 0, 0, 0, 0, 0, 0];
        ret("bad signal", sys!(mq_notify, q, &event(65, 0)));
        ret("bad kind", sys!(mq_notify, q, &event(10, 7)));
        ret("bad descriptor", sys!(mq_notify, -1, &event(10, 0)));
        ret("not a queue", sys!(mq_notify, file("plain", b""), &event(10, 0)));
        ret("bad pointer", sys!(mq_notify, q, NOWHERE));
        ret("none kind", sys!(mq_notify, q, &event(0, 1)));
        ret("busy", sys!(mq_notify, q, &event(12, 0)));
        ret("clear", sys!(mq_notify, q, 0));
        sys!(mq_timedsend, q, b"a", 1, 0, 0);
        ret("with a message there", sys!(mq_notify, q, &event(12, 0)));
        sys!(mq_timedsend, q, b"b", 1, 0, 0);
        let mut raw = [0u64; 16];
        let take = |raw: &mut [u64; 16]| sys!(rt_sigtimedwait, &bits(&[libc::SIGUSR2]), raw, &span_ms(50), 8);
        ret("not the second", take(&mut raw));
        let mut b = [0u8; 8];
        for _ in 0..2 {
            sys!(mq_timedreceive, q, &mut b, 8, 0, 0);
        }
        in_child("sender", || sys!(mq_timedsend, q, b"c", 1, 0, 0) as i32);
        ret("the first", take(&mut raw));
        say!("code {} value {:#x}", raw[1] as u32 as i32, raw[3]);
        sys!(mq_timedreceive, q, &mut b, 8, 0, 0);
        sys!(mq_timedsend, q, b"d", 1, 0, 0);
        ret("once only", take(&mut raw));
        sys!(mq_timedreceive, q, &mut b, 8, 0, 0);
        ret("again", sys!(mq_notify, q, &event(12, 0)));
        let reader = fork(|| {
            let q = sys!(mq_open, c"mq-notify", O_RDWR, 0, 0);
            sys!(mq_timedreceive, q, &mut [0u8; 8], 8, 0, 0) as i32
        });
        asleep(reader);
        sys!(mq_timedsend, q, b"e", 1, 0, 0);
        say!("{}", wait(reader));
        ret("a reader goes first", take(&mut raw));
        let copy = sys!(dup, q);
        ret("still registered", sys!(mq_notify, q, &event(12, 0)));
        sys!(close, copy);
        ret("closing ended it", sys!(mq_notify, q, &event(12, 0)));
        sys!(mq_unlink, c"mq-notify");
    }),
    case("io_submit/reads_and_writes", "io_setup io_getevents io_destroy", || {
        let mut context = 0u64;
        ret("setup", sys!(io_setup, 8, &mut context));
        claim("an id", context != 0);
        let fd = file("data", b"") as isize;
        let mut out = *b"hello, disk";
        let mut write = iocb(1, fd, &mut out, 0);
        let mut sync = iocb(2, fd, &mut [], 0);
        sync.buf = 0;
        let list = [&raw mut write as u64, &raw mut sync as u64];
        ret("submit", sys!(io_submit, context, 2, &list));
        let mut events = [[0u64; 4]; 4];
        ret("events", sys!(io_getevents, context, 2, 4, &mut events, 0));
        let mut results: Vec<(u64, i64)> = events[..2].iter().map(|e| (e[0], e[2] as i64)).collect();
        results.sort_unstable();
        say!("{results:?}");
        let mut back = [0u8; 32];
        let mut read = iocb(0, fd, &mut back, 7);
        let counter = sys!(eventfd2, 0, 0);
        read.more = 1;
        read.event_fd = counter as u32;
        ret("submit", sys!(io_submit, context, 1, &[&raw mut read as u64]));
        let mut count = 0u64;
        ret("counter", sys!(read, counter, &mut count, 8));
        ret("events", sys!(io_getevents, context, 1, 4, &mut events, &span_ms(1000)));
        say!("count {count} result {} obj {}", events[0][2] as i64, events[0][1] == &raw mut read as u64);
        say!("{}", text(&back[..4]));
        ret("none", sys!(io_getevents, context, 1, 4, &mut events, &span_ms(20)));
        ret("destroy", sys!(io_destroy, context));
        ret("gone", sys!(io_destroy, context));
    }),
    case("io_destroy/ends_who_waits", "io_setup io_getevents", || {
        let mut context = 0u64;
        ret("setup", sys!(io_setup, 8, &mut context));
        let waiter = std::thread::spawn(move || sys!(io_getevents, context, 1, 1, &mut [[0u64; 4]; 1], 0));
        pause_ms(50);
        ret("destroy", sys!(io_destroy, context));
        ret("waited", waiter.join().unwrap_or(-1));
    }),
    case("io_setup/errors", "io_submit io_getevents io_cancel io_pgetevents io_destroy", || {
        let mut context = 5u64;
        ret("in use", sys!(io_setup, 8, &mut context));
        context = 0;
        ret("no events", sys!(io_setup, 0, &mut context));
        ret("bad pointer", sys!(io_setup, 8, NOWHERE));
        ret("no context", sys!(io_submit, 0, 1, 0));
        ret("setup", sys!(io_setup, 2, &mut context));
        let mut b = [0u8; 8];
        let mut bad = iocb(0, 999, &mut b, 0);
        ret("bad descriptor", sys!(io_submit, context, 1, &[&raw mut bad as u64]));
        let fd = file("data", b"x") as isize;
        let mut odd = iocb(99, fd, &mut b, 0);
        ret("bad operation", sys!(io_submit, context, 1, &[&raw mut odd as u64]));
        ret("bad request", sys!(io_submit, context, 1, &[NOWHERE as u64]));
        ret("bad list", sys!(io_submit, context, 1, NOWHERE));
        ret("negative", sys!(io_submit, context, -1, 0));
        ret("nothing", sys!(io_submit, context, 0, 0));
        let reader = sys!(open, c"data", O_WRONLY, 0);
        let mut denied = iocb(0, reader, &mut b, 0);
        ret("not for reading", sys!(io_submit, context, 1, &[&raw mut denied as u64]));
        let mut events = [[0u64; 4]; 2];
        ret("least above most", sys!(io_getevents, context, 2, 1, &mut events, 0));
        ret("least negative", sys!(io_getevents, context, -1, 1, &mut events, 0));
        ret("with a mask", sys!(io_pgetevents, context, 0, 1, &mut events, &span_ms(1), 0));
        ret("cancel", sys!(io_cancel, context, &mut bad, &mut events));
        ret("destroy nothing", sys!(io_destroy, 12345));
        in_child("a child has none", || {
            ret("submit", sys!(io_submit, context, 0, 0));
            0
        });
        pause_ms(1);
    }),
];
