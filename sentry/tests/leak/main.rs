//! Nothing stays behind: a sandbox boots, its processes use every kind of kernel object, it ends, and no object of
//! any kind is alive. A program of its own, since the numbers are those of the whole process.

#[path = "../scripted/stage.rs"]
#[expect(dead_code, reason = "the scripted tests need more of it")]
mod stage;

use ksync::live::{Kind, count};
use stage::{Guest, PAGE, nr, run};
use std::time::{Duration, Instant};

/// CLONE_VM | FS | FILES | SIGHAND | THREAD
const THREAD: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000;
/// AT_FDCWD
const CWD: u64 = (-100i64).cast_unsigned();
/// Where paths and structures are put.
const AT: u64 = PAGE + 0x1000;

/// Makes a call that must succeed.
fn must(g: &mut Guest, what: &str, number: u64, args: &[u64]) -> u64 {
    let got = g.call(number, args);
    assert!(got >= 0, "{what}: {got}");
    got.cast_unsigned()
}

fn path(g: &mut Guest, name: &str) -> u64 {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    g.poke(AT, &bytes);
    AT
}

/// Directories, files with names and without, links, a mount of its own.
fn files(g: &mut Guest) {
    for name in ["/d", "/d/e", "/m"] {
        let name = path(g, name);
        must(g, "mkdir", 83, &[name, 0o755]);
    }
    let name = path(g, "/d/f");
    let file = must(g, "openat", 257, &[CWD, name, 0o102, 0o644]);
    must(g, "ftruncate", 77, &[file, 0x4000]);
    must(g, "mmap", nr::MMAP, &[0, 0x4000, 3, 1, file, 0]);
    must(g, "unlink", 87, &[name]);
    // Without a name, and mapped.
    let name = path(g, "m");
    let memfd = must(g, "memfd_create", 319, &[name, 1]);
    must(g, "ftruncate", 77, &[memfd, 0x4000]);
    let at = must(g, "mmap", nr::MMAP, &[0, 0x4000, 3, 2, memfd, 0]);
    g.poke(at, b"private");
    let name = path(g, "/d");
    must(g, "chdir", 80, &[name]);
    // A mount that is left where it is, in a namespace that ends with its last task.
    must(g, "unshare", 272, &[0x2_0000 | 0x400_0000]);
    g.poke(AT + 0x100, b"/d\0");
    g.poke(AT + 0x200, b"/m\0");
    // MS_BIND
    must(g, "mount", 165, &[AT + 0x100, AT + 0x200, 0, 0x1000, 0]);
    let name = path(g, "/m/inside");
    must(g, "openat", 257, &[CWD, name, 0o102, 0o644]);
}

/// Each kind of file without a name, waiting for another: epoll within epoll, inotify, timers that run.
fn nameless(g: &mut Guest) {
    let epoll = must(g, "epoll_create1", 291, &[0]);
    let outer = must(g, "epoll_create1", 291, &[0]);
    must(g, "pipe2", 293, &[AT, 0]);
    let pipe = u64::from(g.peek(AT));
    let event = must(g, "eventfd2", 290, &[5, 0]);
    let timer = must(g, "timerfd_create", 283, &[1, 0]);
    let spec: Vec<u8> = [1000u64, 0, 1000, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
    g.poke(AT, &spec);
    must(g, "timerfd_settime", 286, &[timer, 0, AT, 0]);
    must(g, "setitimer", 38, &[0, AT, 0]);
    g.poke(AT + 0x100, &(1u64 << 9).to_le_bytes());
    let signals = must(g, "signalfd4", 289, &[u64::MAX, AT + 0x100, 8, 0]);
    let notify = must(g, "inotify_init1", 294, &[0]);
    let name = path(g, "/");
    must(g, "inotify_add_watch", 254, &[notify, name, 0xfff]);
    g.poke(AT + 0x100, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for (set, fd) in
        [(epoll, pipe), (epoll, event), (epoll, timer), (epoll, signals), (epoll, notify), (outer, epoll)]
    {
        must(g, "epoll_ctl", 233, &[set, 1, fd, AT + 0x100]);
    }
    must(g, "pidfd_open", 434, &[1, 0]);
    must(g, "fcntl F_GETFD", 72, &[event, 1, 1]);
}

/// A pair of sockets that holds itself: each end is in flight to the other, and both are closed.
fn sockets(g: &mut Guest) {
    must(g, "socketpair", 53, &[1, 1, 0, AT]);
    let ends = [u64::from(g.peek(AT)), u64::from(g.peek(AT + 4))];
    for (number, end) in ends.into_iter().enumerate() {
        // struct iovec, struct cmsghdr with one SCM_RIGHTS descriptor, struct msghdr.
        let control = [20u64, 1 | 1 << 32, ends[1 - number]];
        let message = [0, 0, AT + 0x200, 1, AT + 0x300, 24, 0];
        g.poke(AT + 0x200, &[AT, 1].map(u64::to_le_bytes).concat());
        g.poke(AT + 0x300, &control.map(u64::to_le_bytes).concat());
        g.poke(AT + 0x400, &message.map(u64::to_le_bytes).concat());
        must(g, "sendmsg", 46, &[end, AT + 0x400, 0]);
    }
    for end in ends {
        must(g, "close", 3, &[end]);
    }
}

/// Processes in groups, sessions and namespaces of their own; some are killed in the end, some are not waited for.
fn processes(g: &mut Guest) {
    let zombie = g.fork(|c| c.exit_group(1));
    g.until("a zombie", {
        let task = g.find(i32::try_from(zombie).expect("a pid"));
        move || task.has_exited()
    });
    g.fork(|c| {
        must(c, "setsid", nr::SETSID, &[]);
        c.fork(|d| {
            d.call(nr::PAUSE, &[]);
        });
        c.clone_with(THREAD, |t| t.spin());
        c.call(nr::FUTEX, &[PAGE + 0x800, 0, 0, 0]);
    });
    let namespaces = g.fork(|c| {
        // CLONE_NEWUSER | NEWPID | NEWIPC | NEWNET
        must(c, "unshare", 272, &[0x1000_0000 | 0x2000_0000 | 0x800_0000 | 0x4000_0000]);
        let child = c.fork(|d| d.exit_group(0));
        c.wait(child, 0);
        c.exit_group(0);
    });
    assert_eq!(g.wait(namespaces, 0), (namespaces, 0));
    g.clone_with(THREAD, |t| t.spin());
}

#[test]
fn nothing_is_left_of_a_sandbox() {
    for round in 0..3 {
        run(|g| {
            processes(g);
            nameless(g);
            sockets(g);
            files(g);
            // The counters count.
            for kind in Kind::ALL {
                assert!(count(kind) > 0, "no {kind:?} while the sandbox runs");
            }
            g.exit_group(0);
        });
        let left = || -> Vec<(Kind, usize)> {
            Kind::ALL.iter().map(|&kind| (kind, count(kind))).filter(|&(_, n)| n > 0).collect()
        };
        // Host threads may be on their last steps.
        let end = Instant::now() + Duration::from_secs(20);
        while !left().is_empty() {
            assert!(Instant::now() < end, "round {round}: alive after the end: {:?}", left());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
