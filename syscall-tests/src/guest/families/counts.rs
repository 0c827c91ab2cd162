//! What the kernel counts: processor time, bytes read and written, faults, switches; and what /proc tells of a task
//! that waits.

use super::signals::{block, on};
use crate::case::{Case, asleep, burn_ms, case, close, file, fork, in_child, now_ms, open, pause_ms, wait};
use crate::out::{claim, done, ret};
use crate::{say, sys};

/// User and system time of this process in milliseconds.
fn used() -> i64 {
    let mut r: libc::rusage = crate::case::zeroed();
    sys!(getrusage, libc::RUSAGE_SELF, &mut r);
    let ms = |t: libc::timeval| t.tv_sec * 1000 + t.tv_usec / 1000;
    ms(r.ru_utime) + ms(r.ru_stime)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The number behind a word at the start of a line.
fn field(text: &str, name: &str) -> i64 {
    let line = text.lines().find(|l| l.split([':', ' ']).next() == Some(name)).unwrap_or_default();
    line[name.len().min(line.len())..].trim_start_matches([':', ' ']).parse().unwrap_or(-1)
}

pub const CASES: &[Case] = &[
    case("getrusage/who_waits_uses_nothing", "times clock_gettime nanosleep", || {
        in_child("sleeper", || {
            let before = used();
            pause_ms(300);
            claim("asleep", used() - before < 150);
            let before = used();
            burn_ms(100);
            claim("at work", used() - before >= 90);
            0
        });
        // More workers than processors: together they cannot have worked longer than all processors did.
        let began = now_ms();
        let workers: Vec<i32> = (0..8)
            .map(|_| {
                fork(|| {
                    let end = now_ms() + 400;
                    while now_ms() < end {}
                    0
                })
            })
            .collect();
        for w in workers {
            wait(w);
        }
        let passed = now_ms() - began;
        let mut r: libc::rusage = crate::case::zeroed();
        sys!(getrusage, libc::RUSAGE_CHILDREN, &mut r);
        let ms = |t: libc::timeval| t.tv_sec * 1000 + t.tv_usec / 1000;
        let all = ms(r.ru_utime) + ms(r.ru_stime);
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as i64);
        claim("no more than the processors", all <= passed * cpus * 3 / 2);
        claim("something", all >= 100);
        let mut last = 0;
        let grows = (0..200).all(|_| {
            let now = used();
            let ok = now >= last;
            last = now;
            ok
        });
        claim("never goes back", grows);
    }),
    case("read/counted_in_proc_io", "write pread64", || {
        let fd = file("data", &[7u8; 4096]);
        let before = read("/proc/self/io");
        sys!(write, fd, &[1u8; 1000], 1000);
        sys!(pread64, fd, &mut [0u8; 512], 500, 0);
        let after = read("/proc/self/io");
        let grown = |name: &str| field(&after, name) - field(&before, name);
        say!("written {} by {}", grown("wchar"), grown("syscw"));
        claim("read", (500..2000).contains(&grown("rchar")));
        claim("reads", (1..8).contains(&grown("syscr")));
        close(fd);
    }),
    case("open/counts_of_the_system", "mmap", || {
        let faults = || field(&read("/proc/vmstat"), "pgfault");
        let before = faults();
        let p = sys!(mmap, 0, 1 << 22, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        for i in 0..64 {
            // SAFETY: mapped above, writable.
            unsafe { ((p + i * 65_536) as *mut u8).write_volatile(1) };
        }
        claim("faults", faults() > before);
        let stat = read("/proc/stat");
        claim("switches", field(&stat, "ctxt") > 0);
        claim("processes", field(&stat, "processes") > 0);
        claim("running", field(&stat, "procs_running") > 0);
    }),
    case("socket/rows_of_proc_net_unix", "bind listen connect socketpair", || {
        let mut addr: libc::sockaddr_un = crate::case::zeroed();
        addr.sun_family = libc::AF_UNIX as u16;
        for (to, from) in addr.sun_path.iter_mut().skip(1).zip(b"counted-name") {
            *to = *from as libc::c_char;
        }
        let len = 2 + 1 + 12;
        let listener = sys!(socket, libc::AF_UNIX, libc::SOCK_STREAM, 0);
        ret("bind", sys!(bind, listener, &addr, len));
        let rows = |what: &str| {
            let mut found: Vec<String> = read("/proc/net/unix")
                .lines()
                .filter(|l| l.contains(what))
                .map(|l| {
                    let w: Vec<&str> = l.split_whitespace().collect();
                    format!(
                        "protocol {} flags {} type {} state {} name {}",
                        w[2],
                        w[3],
                        w[4],
                        w[5],
                        w.get(7).unwrap_or(&"")
                    )
                })
                .collect();
            found.sort();
            found
        };
        say!("{:?}", rows("@counted-name"));
        sys!(listen, listener, 5);
        let client = sys!(socket, libc::AF_UNIX, libc::SOCK_STREAM, 0);
        ret("connect", sys!(connect, client, &addr, len));
        say!("{:?}", rows("@counted-name"));
        done("accept", sys!(accept, listener, 0, 0));
        say!("{:?}", rows("@counted-name"));
        let mut pair = [0i32; 2];
        sys!(socketpair, libc::AF_UNIX, libc::SOCK_DGRAM, 0, &mut pair);
        let mut stat: libc::stat = crate::case::zeroed();
        sys!(fstat, pair[0], &mut stat);
        say!("{:?}", rows(&format!(" {}", stat.st_ino)).len());
        close(listener as i32);
        claim(
            "head",
            read("/proc/net/unix").starts_with("Num       RefCount Protocol Flags    Type St Inode Path"),
        );
    }),
    case("setns/user_and_time_by_pidfd", "pidfd_open unshare", || {
        in_child("caller", || {
            let (r, w) = crate::case::pipe(0);
            let target = fork(|| {
                sys!(unshare, libc::CLONE_NEWUSER | libc::CLONE_NEWUTS);
                sys!(write, w, b"x", 1);
                pause_ms(10_000);
                0
            });
            sys!(read, r, &mut [0u8; 1], 1);
            let fd = sys!(pidfd_open, target, 0);
            let link = |pid: i32, kind: &str| {
                std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default()
            };
            let me = sys!(getpid) as i32;
            claim("another namespace", link(me, "user") != link(target, "user"));
            ret("both", sys!(setns, fd, libc::CLONE_NEWUSER | libc::CLONE_NEWUTS));
            claim("user", link(me, "user") == link(target, "user"));
            claim("uts", link(me, "uts") == link(target, "uts"));
            ret("again", sys!(setns, fd, libc::CLONE_NEWUSER));
            sys!(kill, target, libc::SIGKILL);
            say!("{}", wait(target));
            0
        });
    }),
    case("pause/seen_in_proc", "timer_create", || {
        let child = fork(|| {
            on(libc::SIGUSR1, 0);
            sys!(pause);
            0
        });
        asleep(child);
        let text = read(&format!("/proc/{child}/syscall"));
        let words: Vec<&str> = text.split_whitespace().collect();
        say!("call {} with {} words", words.first().unwrap_or(&""), words.len());
        sys!(kill, child, libc::SIGUSR1);
        say!("{}", wait(child));
        block(&[libc::SIGUSR2]);
        let event = [0x1234u64, libc::SIGUSR2 as u64, 0, 0, 0, 0, 0, 0];
        let mut id = 0i32;
        ret("timer", sys!(timer_create, libc::CLOCK_MONOTONIC, &event, &mut id));
        let timers = read("/proc/self/timers");
        for line in timers.lines() {
            say!("{}", line.split('.').next().unwrap_or_default());
        }
        say!("slack {}", read("/proc/self/timerslack_ns").trim());
        claim("set", std::fs::write("/proc/self/timerslack_ns", "70000").is_ok());
        say!("slack {}", read("/proc/self/timerslack_ns").trim());
        ret("by prctl", sys!(prctl, libc::PR_GET_TIMERSLACK));
        done("default again", std::fs::write("/proc/self/timerslack_ns", "0").map_or(-1, |()| 0));
        say!("slack {}", read("/proc/self/timerslack_ns").trim());
        close(open("/proc/self/limits", libc::O_RDONLY));
    }),
];
