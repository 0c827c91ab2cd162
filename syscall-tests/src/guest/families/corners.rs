//! Paths of calls that few programs take: errors before anything has happened, values at the end of their range, two
//! rules that meet.

use super::ttys::pty;
use crate::case::{Case, NOWHERE, case, close, in_child, now_ms, pipe, zeroed};
use crate::out::{claim, done, must, ret};
use crate::{say, sys};
use libc::{EPOLLERR, EPOLLPRI, O_NONBLOCK, POLLERR, POLLIN, POLLOUT, pollfd};

/// clone3(2)'s arguments.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

pub const CASES: &[Case] = &[
    case("clone3/no_child_of_a_bad_pidfd", "wait4", || {
        let args = CloneArgs {
            flags: libc::CLONE_PIDFD as u64,
            pidfd: NOWHERE as u64,
            exit_signal: libc::SIGCHLD as u64,
            ..Default::default()
        };
        ret("clone3", sys!(clone3, &args, size_of::<CloneArgs>()));
        ret("nobody to wait for", sys!(wait4, -1, 0, 0, 0));
    }),
    case("clone/copies_no_more_than_nr_open", "unshare dup2", || {
        let path = "/proc/sys/fs/nr_open";
        let old = std::fs::read_to_string(path).unwrap_or_default();
        must("dup2", sys!(dup2, 2, 200));
        let set = |value: &str| std::fs::write(path, value).is_ok();
        in_child("lowered", || {
            claim("set", set("128"));
            ret("unshare", sys!(unshare, libc::CLONE_FILES));
            ret("fork", sys!(clone, libc::SIGCHLD, 0, 0, 0, 0));
            claim("set back", set(&old));
            0
        });
        claim("set back", set(&old));
        in_child("as before", || {
            ret("unshare", sys!(unshare, libc::CLONE_FILES));
            0
        });
    }),
    case("eventfd2/ends_of_the_range", "write poll", || {
        let fd = must("eventfd", sys!(eventfd2, 0, O_NONBLOCK)) as i32;
        let add = |n: u64| sys!(write, fd, &n, 8);
        ret("all ones", add(u64::MAX));
        ret("up to the last but one", add(u64::MAX - 1));
        ret("all ones when full", add(u64::MAX));
        ret("one more", add(1));
        ret("nothing more", add(0));
        let mut p = pollfd { fd, events: POLLIN | POLLOUT | POLLERR, revents: 0 };
        sys!(poll, &mut p, 1, 0);
        say!("in {} out {} err {}", p.revents & POLLIN, p.revents & POLLOUT, p.revents & POLLERR);
    }),
    case("io_submit/counts_an_eventfd_to_its_end", "io_setup io_getevents io_destroy eventfd2", || {
        let event = must("eventfd", sys!(eventfd2, 0, O_NONBLOCK)) as i32;
        let mut context = 0u64;
        must("io_setup", sys!(io_setup, 4, &mut context));
        must("fill", sys!(write, event, &(u64::MAX - 1), 8));
        let file = crate::case::file("f", b"");
        let text = b"x";
        // struct iocb: IOCB_CMD_PWRITE with IOCB_FLAG_RESFD.
        let block =
            [0u64, 0, 1 | (file as u64) << 32, text.as_ptr() as u64, 1, 0, 0, 1 | (event as u64) << 32];
        ret("submit", sys!(io_submit, context, 1, &[block.as_ptr()]));
        let mut events = [0u64; 4];
        ret("done", sys!(io_getevents, context, 1, 1, &mut events, 0));
        let mut p = pollfd { fd: event, events: POLLIN | POLLOUT, revents: 0 };
        sys!(poll, &mut p, 1, 1000);
        say!("err {}", p.revents & POLLERR);
        let mut count = 0u64;
        sys!(read, event, &mut count, 8);
        say!("count {count:#x}");
        ret("destroy", sys!(io_destroy, context));
    }),
    case("vmsplice/waits_for_some_room_only", "fcntl", || {
        let (r, w) = pipe(0);
        let size = must("size", sys!(fcntl, w, libc::F_GETPIPE_SZ)) as usize;
        let data = vec![7u8; 3 * size];
        let iov = [data.as_ptr() as usize, data.len()];
        // Nobody reads, so a write(2) of that much would not return.
        // How much fits depends on where the pages of the memory begin.
        let fills = |n: isize| n > 0 && n <= size as isize;
        say!("fills it {}", fills(sys!(vmsplice, w, &iov, 1, 0)));
        ret("full", sys!(vmsplice, w, &iov, 1, libc::SPLICE_F_NONBLOCK));
        let mut buffer = vec![0u8; size];
        must("read", sys!(read, r, buffer.as_mut_slice(), size));
        say!("fills it again {}", fills(sys!(vmsplice, w, &iov, 1, 0)));
        close(r);
        sys!(rt_sigaction, libc::SIGPIPE, &[1usize, 0, 0, 0], 0, 8);
        ret("no reader", sys!(vmsplice, w, &iov, 1, 0));
    }),
    case("splice/kinds_that_cannot", "eventfd2 timerfd_create epoll_create1 signalfd4 inotify_init1", || {
        let (r, w) = pipe(0);
        let directory = crate::case::open(".", libc::O_RDONLY);
        let kinds = [
            ("epoll", sys!(epoll_create1, 0) as i32),
            ("eventfd", sys!(eventfd2, 1, 0) as i32),
            ("timerfd", sys!(timerfd_create, libc::CLOCK_MONOTONIC, 0) as i32),
            ("signalfd", sys!(signalfd4, -1, &(1u64 << 9), 8, 0) as i32),
            ("inotify", sys!(inotify_init1, 0) as i32),
            ("directory", directory),
        ];
        for (name, fd) in kinds {
            // The pipe is empty, and nothing is ready to be read: neither is waited for.
            ret(format!("pipe to {name}"), sys!(splice, r, 0, fd, 0, 1, 0));
            ret(format!("{name} to pipe"), sys!(splice, fd, 0, w, 0, 1, 0));
        }
    }),
    case("shmget/rows_of_proc_sysvipc", "msgget semget shmctl msgctl semctl unshare", || {
        in_child("namespace", || {
            sys!(unshare, libc::CLONE_NEWIPC);
            let rows = |name: &str| {
                let text = std::fs::read_to_string(format!("/proc/sysvipc/{name}")).unwrap_or_default();
                for (number, line) in text.lines().enumerate() {
                    // Times and processes differ from run to run; where a column ends does not.
                    let ends: Vec<usize> = line
                        .char_indices()
                        .filter(|(at, c)| *c != ' ' && line[at + 1..].chars().next().is_none_or(|n| n == ' '))
                        .map(|(at, _)| at)
                        .collect();
                    let words: Vec<&str> = line.split_whitespace().collect();
                    let shown = if number == 0 { words.len() } else { 4 };
                    say!("{name} {:?} {ends:?}", &words[..shown.min(words.len())]);
                }
            };
            let key = 0x5157;
            let shm = must("shmget", sys!(shmget, key, 5000, libc::IPC_CREAT | 0o640));
            let msg = must("msgget", sys!(msgget, key, libc::IPC_CREAT | 0o600));
            let sem = must("semget", sys!(semget, key, 3, libc::IPC_CREAT | 0o666));
            rows("shm");
            rows("msg");
            rows("sem");
            sys!(shmctl, shm, libc::IPC_RMID, 0);
            sys!(msgctl, msg, libc::IPC_RMID, 0);
            sys!(semctl, sem, 0, libc::IPC_RMID, 0);
            rows("shm");
            0
        });
    }),
    case(
        "unshare/clocks_of_a_time_namespace",
        "clock_gettime sysinfo timerfd_settime clock_nanosleep",
        || {
            let path = "/proc/self/timens_offsets";
            let shown = || {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                text.lines()
                    .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            say!("{}", shown());
            let write = |text: &str| match std::fs::write(path, text) {
                Ok(()) => "ok".to_owned(),
                Err(e) => crate::out::errno(e.raw_os_error().unwrap_or(0)).to_owned(),
            };
            say!("in the first one: {}", write("monotonic 5 0\n"));
            let seconds = |clock: i32| {
                let mut t: libc::timespec = zeroed();
                sys!(clock_gettime, clock, &mut t);
                t.tv_sec
            };
            // What the C library reads, which may be no system call.
            let library = |clock: i32| {
                let mut t: libc::timespec = zeroed();
                // SAFETY: a place for the answer.
                unsafe { libc::clock_gettime(clock, &mut t) };
                t.tv_sec
            };
            let (monotonic, boottime) = (seconds(libc::CLOCK_MONOTONIC), seconds(libc::CLOCK_BOOTTIME));
            let info: fn() -> i64 = || {
                let mut info: libc::sysinfo = zeroed();
                sys!(sysinfo, &mut info);
                info.uptime
            };
            let uptime = info();
            in_child("namespace", || {
                must("unshare", sys!(unshare, 0x80));
                for wrong in [
                    "monotonic 1",
                    "realtime 1 0",
                    "monotonic 1 -1",
                    "monotonic 1 1000000000",
                    "boottime -9999999999 0",
                ] {
                    say!("{wrong}: {}", write(wrong));
                }
                say!("set: {}", write("monotonic 10000 5\nboottime 20000 0\n"));
                say!("{}", shown());
                claim("the caller's own clock stays", seconds(libc::CLOCK_MONOTONIC) - monotonic < 5000);
                in_child("inside", || {
                    let near = |label: &str, now: i64, expected: i64| {
                        claim(label, (expected..expected + 1000).contains(&now));
                    };
                    near("monotonic", seconds(libc::CLOCK_MONOTONIC), monotonic + 10_000);
                    near("boottime", seconds(libc::CLOCK_BOOTTIME), boottime + 20_000);
                    near("monotonic of the library", library(libc::CLOCK_MONOTONIC), monotonic + 10_000);
                    near("uptime", info(), uptime + 20_000);
                    // Times on that clock are as it shows them.
                    let soon = libc::timespec { tv_sec: seconds(libc::CLOCK_MONOTONIC) + 1, tv_nsec: 0 };
                    let began = now_ms();
                    ret("sleep", sys!(clock_nanosleep, libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &soon, 0));
                    claim("not long", now_ms() - began < 5000);
                    let timer = must("timerfd", sys!(timerfd_create, libc::CLOCK_BOOTTIME, 0)) as i32;
                    let at = libc::timespec { tv_sec: seconds(libc::CLOCK_BOOTTIME), tv_nsec: 0 };
                    let spec = [zeroed(), at];
                    ret("settime", sys!(timerfd_settime, timer, 1, &spec, 0));
                    let mut count = 0u64;
                    ret("expired", sys!(read, timer, &mut count, 8));
                    0
                });
                say!("when somebody is inside: {}", write("monotonic 7 0\n"));
                0
            });
        },
    ),
    case("vhangup/own_terminal", "setsid ioctl", || {
        in_child("session", || {
            sys!(setsid);
            ret("without a terminal", sys!(vhangup));
            let (master, slave) = pty();
            must("controlling", sys!(ioctl, slave, libc::TIOCSCTTY, 0));
            sys!(rt_sigaction, libc::SIGHUP, &[1usize, 0, 0, 0], 0, 8);
            ret("vhangup", sys!(vhangup));
            ret("write", sys!(write, slave, b"x", 1));
            ret("read", sys!(read, slave, &mut [0u8; 4], 4));
            close(master);
            0
        });
    }),
    case("statmount/out_of_reach_of_the_root", "statx chroot setresuid", || {
        let mut x: libc::statx = zeroed();
        let unique = 0x4000;
        must("statx", sys!(statx, libc::AT_FDCWD, c"/", 0, unique, &mut x));
        say!("mask has it {}", x.stx_mask & unique != 0);
        let id = x.stx_mnt_id;
        claim("no old number", id > u64::from(u32::MAX / 2));
        let mut answer = [0u64; 128];
        let mut ask = |label: &str| {
            ret(label, sys!(statmount, &[24u64, id, 2], &mut answer, 1024, 0));
        };
        ask("from the root");
        sys!(mkdir, c"inside", 0o755);
        in_child("below", || {
            must("chroot", sys!(chroot, c"inside"));
            ask("privileged");
            sys!(setresuid, 99, 99, 99);
            ask("not privileged");
            0
        });
    }),
    case("poll/changes_of_mounts", "epoll_ctl epoll_wait mount umount2", || {
        in_child("namespace", || {
            sys!(unshare, libc::CLONE_NEWNS);
            sys!(mount, 0, c"/", 0, libc::MS_REC | libc::MS_PRIVATE, 0);
            sys!(mkdir, c"m", 0o755);
            for name in ["/proc/self/mounts", "/proc/self/mountinfo"] {
                let fd = crate::case::open(name, libc::O_RDONLY);
                let look = || {
                    let mut p = pollfd { fd, events: libc::POLLPRI | POLLIN, revents: 0 };
                    let n = sys!(poll, &mut p, 1, 0);
                    format!("{n} pri {} err {}", p.revents & libc::POLLPRI, p.revents & POLLERR)
                };
                say!("{name} {}", look());
                let ep = must("epoll", sys!(epoll_create1, 0)) as i32;
                let mut event = libc::epoll_event { events: EPOLLPRI as u32, u64: 1 };
                ret("add", sys!(epoll_ctl, ep, libc::EPOLL_CTL_ADD, fd, &event));
                ret("nothing yet", sys!(epoll_wait, ep, &mut event, 1, 0));
                done("mount", sys!(mount, c"none", c"m", c"tmpfs", 0, 0));
                ret("told", sys!(epoll_wait, ep, &mut event, 1, 2000));
                let events = event.events as i32;
                say!("pri {} err {}", events & EPOLLPRI, events & EPOLLERR);
                ret("once", sys!(epoll_wait, ep, &mut event, 1, 0));
                done("umount", sys!(umount2, c"m", 0));
                say!("poll {}", look());
                say!("again {}", look());
                close(ep);
                close(fd);
            }
            0
        });
    }),
];
