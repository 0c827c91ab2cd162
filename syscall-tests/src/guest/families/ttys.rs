//! Terminals: pseudo-terminals, the line discipline, job control, window size.

use super::signals::{block, count, on, seen};
use crate::case::{
    Case, NOWHERE, asleep, case, close, cstr, file, fork, in_child, open, pause_ms, pipe, state_of, until,
    wait, zeroed,
};
use crate::out::{claim, done, must, ret, status, text};
use crate::{say, sys};
use libc::{
    ECHO, ICANON, ISIG, O_NOCTTY, O_NONBLOCK, O_RDWR, SIGCONT, SIGHUP, SIGINT, SIGTSTP, SIGTTIN, SIGTTOU,
    SIGWINCH, TCGETS, TCSETS, TIOCGPGRP, TIOCGPTN, TIOCGSID, TIOCGWINSZ, TIOCNOTTY, TIOCSCTTY, TIOCSPGRP,
    TIOCSPTLCK, TIOCSWINSZ, WNOHANG, WUNTRACED,
};

/// A pty: master, slave.
pub(super) fn pty() -> (i32, i32) {
    let master = must("ptmx", sys!(open, c"/dev/ptmx", O_RDWR | O_NOCTTY, 0)) as i32;
    must("unlock", sys!(ioctl, master, TIOCSPTLCK, &0i32));
    let mut number = -1i32;
    must("number", sys!(ioctl, master, TIOCGPTN, &mut number));
    let slave = must("slave", sys!(open, &*cstr(format!("/dev/pts/{number}")), O_RDWR | O_NOCTTY, 0)) as i32;
    (master, slave)
}

/// struct termios of the kernel (TCGETS): four flags, line, 19 control characters.
#[repr(C)]
#[derive(Clone, Copy, PartialEq)]
struct Termios {
    iflag: u32,
    oflag: u32,
    cflag: u32,
    lflag: u32,
    line: u8,
    cc: [u8; 19],
}

fn termios(fd: i32) -> Termios {
    let mut t: Termios = zeroed();
    must("TCGETS", sys!(ioctl, fd, TCGETS, &mut t));
    t
}

fn change(fd: i32, f: impl FnOnce(&mut Termios)) {
    let mut t = termios(fd);
    f(&mut t);
    must("TCSETS", sys!(ioctl, fd, TCSETS, &t));
}

fn send(fd: i32, bytes: &[u8]) {
    sys!(write, fd, bytes, bytes.len());
}

/// What can be read now, waiting a little for the first of it.
fn got(fd: i32) -> String {
    let mut p = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    if sys!(poll, &mut p, 1, 300) == 0 {
        return "(nothing)".to_owned();
    }
    let mut b = [0u8; 512];
    let n = sys!(read, fd, &mut b, 512);
    if n < 0 { crate::out::number(n) } else { text(&b[..n as usize]) }
}

/// Runs `body` in a child that leads a session with the slave as its terminal.
fn session(slave: i32, body: impl FnOnce() -> i32) -> i32 {
    fork(|| {
        sys!(setsid);
        must("TIOCSCTTY", sys!(ioctl, slave, TIOCSCTTY, 0));
        body()
    })
}

pub const CASES: &[Case] = &[
    case("ioctl/pty_pair", "open", || {
        let (m, s) = pty();
        let mut st: libc::stat = zeroed();
        sys!(fstat, s, &mut st);
        say!("{:o} major {}", st.st_mode & libc::S_IFMT, libc::major(st.st_rdev));
        sys!(fstat, m, &mut st);
        say!("{:o} {}:{}", st.st_mode & libc::S_IFMT, libc::major(st.st_rdev), libc::minor(st.st_rdev));
        send(s, b"out\n");
        say!("master {}", got(m));
        send(m, b"in\n");
        say!("echo {}", got(m));
        say!("slave {}", got(s));
        close(s);
        say!("all slaves closed {}", got(m));
        let mut lock = 9i32;
        let again = sys!(open, c"/dev/ptmx", O_RDWR, 0) as i32;
        ret("lock state", sys!(ioctl, again, libc::TIOCGPTLCK, &mut lock));
        say!("{lock}");
        let mut n = 0i32;
        sys!(ioctl, again, TIOCGPTN, &mut n);
        ret("locked slave", sys!(open, &*cstr(format!("/dev/pts/{n}")), O_RDWR, 0));
        ret("peer", (sys!(ioctl, again, libc::TIOCGPTPEER, O_RDWR | O_NOCTTY) < 0) as isize);
    }),
    case("ioctl/termios_defaults", "", || {
        let (m, s) = pty();
        let t = termios(s);
        say!(
            "i {:#o} o {:#o} c {:#o} l {:#o} line {} cc {:?}",
            t.iflag,
            t.oflag,
            t.cflag,
            t.lflag,
            t.line,
            t.cc
        );
        claim("same through the master", termios(m) == t);
        change(s, |t| t.lflag &= !ECHO);
        say!("changed {:#o}", termios(m).lflag);
        ret("on a file", sys!(ioctl, file("f", b""), TCGETS, &mut termios(s)));
        ret("bad pointer", sys!(ioctl, s, TCGETS, NOWHERE));
        ret("bad set", sys!(ioctl, s, TCSETS, NOWHERE));
        ret("unknown", sys!(ioctl, s, 0x54fe, 0));
    }),
    case("ioctl/canonical_editing", "read", || {
        let (m, s) = pty();
        change(s, |t| t.lflag &= !ECHO);
        send(m, b"ab");
        say!("no line yet {}", got(s));
        send(m, b"\x7fc\n");
        say!("erase {}", got(s));
        send(m, b"junk\x15kept\n");
        say!("kill {}", got(s));
        send(m, b"one two\x17x\n");
        say!("word erase {}", got(s));
        send(m, b"\x16\x04lit\n");
        say!("literal {}", got(s));
        send(m, b"part\x04");
        say!("eof flushes {}", got(s));
        send(m, b"\x04");
        say!("eof {}", got(s));
        send(m, b"a\nb\n");
        say!("one line at a time {}", got(s));
        say!("{}", got(s));
        send(m, b"longline\n");
        let mut b = [0u8; 4];
        ret("part of a line", sys!(read, s, &mut b, 4));
        say!("{} {}", text(&b), got(s));
        send(m, b"cr\r");
        say!("icrnl {}", got(s));
    }),
    case("ioctl/echo_forms", "read", || {
        let (m, s) = pty();
        send(m, b"ab\x7f");
        say!("{}", got(m));
        send(m, b"\x01\x1b\n");
        say!("{}", got(m));
        send(m, b"xyz\x15");
        say!("{}", got(m));
        change(s, |t| t.lflag &= !libc::ECHO);
        send(m, b"hidden\n");
        say!("{}", got(m));
        change(s, |t| t.oflag &= !libc::OPOST);
        send(s, b"raw\n");
        say!("{}", got(m));
        change(s, |t| t.oflag |= libc::OPOST);
        send(s, b"a\tb\n");
        say!("{}", got(m));
    }),
    case("ioctl/raw_mode_min_time", "read", || {
        let (m, s) = pty();
        let raw = |min: u8, time: u8| {
            change(s, |t| {
                t.lflag &= !(ICANON | ECHO | ISIG);
                t.iflag = 0;
                t.cc[libc::VMIN] = min;
                t.cc[libc::VTIME] = time;
            });
        };
        let mut b = [0u8; 16];
        raw(1, 0);
        send(m, b"x\x03\x7f");
        ret("bytes", sys!(read, s, &mut b, 16));
        say!("{}", text(&b[..3]));
        raw(0, 0);
        ret("poll-like", sys!(read, s, &mut b, 16));
        raw(0, 1);
        ret("time", sys!(read, s, &mut b, 16));
        raw(3, 0);
        let child = fork(|| {
            send(m, b"a");
            pause_ms(20);
            send(m, b"bc");
            0
        });
        ret("min 3", sys!(read, s, &mut b, 16));
        wait(child);
        sys!(fcntl, s, libc::F_SETFL, O_NONBLOCK);
        ret("nonblock", sys!(read, s, &mut b, 16));
    }),
    case("ioctl/queues_and_flush", "", || {
        let (m, s) = pty();
        change(s, |t| t.lflag &= !ECHO);
        send(m, b"hello\nxy");
        let mut n = 0i32;
        pause_ms(20);
        ret("FIONREAD", sys!(ioctl, s, libc::FIONREAD, &mut n));
        say!("{n}");
        ret("TIOCOUTQ", sys!(ioctl, s, libc::TIOCOUTQ, &mut n));
        ret("flush", sys!(ioctl, s, libc::TCFLSH, 0));
        say!("{}", got(s));
        ret("drain", sys!(ioctl, s, libc::TCSBRK, 1));
        send(m, b"");
        let byte = b'q';
        in_child("push", || {
            sys!(setsid);
            sys!(ioctl, s, TIOCSCTTY, 0);
            // Kernels differ in whether they allow it; it must do no harm.
            sys!(ioctl, s, libc::TIOCSTI, &byte);
            0
        });
    }),
    case("ioctl/window_size", "kill", || {
        let (m, s) = pty();
        let mut w = [9u16; 4];
        ret("get", sys!(ioctl, s, TIOCGWINSZ, &mut w));
        say!("{w:?}");
        let child = session(s, || {
            on(SIGWINCH, 0);
            send(s, b"ready\n");
            until(|| count() > 0);
            sys!(ioctl, s, TIOCGWINSZ, &mut w);
            say!("{} {w:?}", seen());
            0
        });
        got(m);
        ret("set", sys!(ioctl, m, TIOCSWINSZ, &[24u16, 80, 0, 0]));
        say!("{}", wait(child));
        ret("pipe", sys!(ioctl, pipe(0).0, TIOCGWINSZ, &mut w));
    }),
    case("ioctl/controlling_terminal", "setsid open", || {
        let (_m, s) = pty();
        ret("no terminal", sys!(open, c"/dev/tty", O_RDWR, 0));
        let mut id = 0i32;
        ret("not mine", sys!(ioctl, s, TIOCGPGRP, &mut id));
        in_child("session", || {
            ret("not a leader", sys!(ioctl, s, TIOCSCTTY, 0));
            sys!(setsid);
            ret("take", sys!(ioctl, s, TIOCSCTTY, 0));
            ret("again", sys!(ioctl, s, TIOCSCTTY, 0));
            let me = sys!(getpid) as i32;
            sys!(ioctl, s, TIOCGPGRP, &mut id);
            say!("foreground is me {}", id == me);
            sys!(ioctl, s, TIOCGSID, &mut id);
            say!("session is me {}", id == me);
            let tty = done("/dev/tty", sys!(open, c"/dev/tty", O_RDWR, 0)) as i32;
            send(tty, b"hi");
            ret("bad group", sys!(ioctl, s, TIOCSPGRP, &999_999));
            ret("negative group", sys!(ioctl, s, TIOCSPGRP, &-1));
            let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            say!("tty in stat {} foreground {}", fields[4] != "0", fields[5] == me.to_string());
            on(SIGHUP, 0);
            on(SIGCONT, 0);
            ret("give up", sys!(ioctl, s, TIOCNOTTY, 0));
            ret("no terminal", sys!(open, c"/dev/tty", O_RDWR, 0));
            0
        });
        in_child("by opening", || {
            sys!(setsid);
            let link = std::fs::read_link(format!("/proc/self/fd/{s}")).unwrap_or_default();
            done("open", sys!(open, &*cstr(link.to_string_lossy().as_bytes()), O_RDWR, 0));
            done("/dev/tty", sys!(open, c"/dev/tty", O_RDWR, 0));
            0
        });
        in_child("stealing", || {
            let holder = session(s, || {
                pause_ms(5000);
                0
            });
            pause_ms(30);
            sys!(setsid);
            ret("taken", sys!(ioctl, s, TIOCSCTTY, 0));
            sys!(kill, holder, libc::SIGKILL);
            wait(holder);
            0
        });
    }),
    case("ioctl/keyboard_signals", "kill", || {
        let (m, s) = pty();
        for (label, byte, ends) in [("interrupt", 3u8, SIGINT), ("quit", 28, libc::SIGQUIT)] {
            let child = session(s, || {
                send(s, b"go\n");
                pause_ms(5000);
                0
            });
            got(m);
            send(m, &[byte]);
            say!("{label} {} {}", wait(child), crate::out::signal(ends));
            say!("echoed {}", got(m));
        }
        let child = session(s, || {
            let worker = fork(|| {
                sys!(setpgid, 0, 0);
                pause_ms(5000);
                0
            });
            sys!(setpgid, worker, worker);
            block(&[SIGTTOU]);
            sys!(ioctl, s, TIOCSPGRP, &worker);
            send(s, b"go\n");
            let mut code = 0i32;
            sys!(wait4, worker, &mut code, WUNTRACED, 0);
            say!("{}", status(code));
            sys!(kill, worker, SIGCONT);
            send(s, b"next\n");
            sys!(wait4, worker, &mut code, WUNTRACED, 0);
            say!("{}", status(code));
            0
        });
        got(m);
        send(m, &[26]);
        let _ = SIGTSTP;
        until(|| got(m).contains("next"));
        send(m, &[3]);
        say!("{}", wait(child));
    }),
    case("ioctl/background_access", "setpgid", || {
        let (m, s) = pty();
        let child = session(s, || {
            let background = |label: &str, body: &dyn Fn()| {
                let worker = fork(|| {
                    sys!(setpgid, 0, 0);
                    body();
                    0
                });
                sys!(setpgid, worker, worker);
                let mut code = 0i32;
                sys!(wait4, worker, &mut code, WUNTRACED, 0);
                say!("{label} {}", status(code));
                if state_of(worker) == 'T' {
                    sys!(kill, worker, libc::SIGKILL);
                    wait(worker);
                }
            };
            let mut b = [0u8; 4];
            let at = b.as_mut_ptr();
            background("read", &|| {
                sys!(read, s, at, 4);
            });
            background("read with SIGTTIN ignored", &|| {
                sys!(rt_sigaction, SIGTTIN, &[1u64, 0, 0, 0], 0, 8);
                ret("read", sys!(read, s, at, 4));
            });
            background("write without tostop", &|| {
                ret("write", sys!(write, s, b"x", 1));
            });
            change(s, |t| t.lflag |= libc::TOSTOP);
            background("write with tostop", &|| {
                sys!(write, s, b"x", 1);
            });
            background("write with tostop, blocked", &|| {
                block(&[SIGTTOU]);
                ret("write", sys!(write, s, b"x", 1));
            });
            background("tcsetattr", &|| {
                change(s, |t| t.lflag |= ECHO);
            });
            background("tcsetpgrp", &|| {
                sys!(ioctl, s, TIOCSPGRP, &(sys!(getpid) as i32));
            });
            0
        });
        say!("{}", wait(child));
        let _ = m;
    }),
    case("ioctl/hang_up", "close", || {
        let (m, s) = pty();
        let (r, w) = pipe(0);
        let child = session(s, || {
            close(m);
            on(SIGHUP, 0);
            sys!(write, w, b"x", 1);
            until(|| count() > 0);
            say!("{}", seen());
            let mut b = [0u8; 4];
            ret("read", sys!(read, s, &mut b, 4));
            ret("write", sys!(write, s, b"x", 1));
            let mut p = libc::pollfd { fd: s, events: libc::POLLIN | libc::POLLOUT, revents: 0 };
            ret("poll", sys!(poll, &mut p, 1, 0));
            say!("{:#x}", p.revents);
            0
        });
        let mut b = [0u8; 1];
        sys!(read, r, &mut b, 1);
        close(s);
        ret("close master", sys!(close, m));
        say!("{}", wait(child));
    }),
    case("ioctl/session_leader_exit_hangs_up", "exit_group", || {
        let (m, s) = pty();
        let (r, w) = pipe(0);
        let leader = session(s, || {
            fork(|| {
                on(SIGHUP, 0);
                sys!(write, w, b"x", 1);
                until(|| count() > 0);
                say!("foreground {}", seen());
                sys!(write, w, b"y", 1);
                0
            });
            let mut b = [0u8; 1];
            sys!(read, r, &mut b, 1);
            0
        });
        // Said when the other has said its part.
        let leader = wait(leader);
        let mut b = [0u8; 1];
        ret("wait", sys!(read, r, &mut b, 1));
        say!("{leader}");
        let mut id = 0i32;
        ret("no session", sys!(ioctl, s, TIOCGPGRP, &mut id));
        let _ = (m, WNOHANG);
    }),
    case("ioctl/give_up_without_leading", "fork", || {
        let (_m, s) = pty();
        let leader = session(s, || {
            in_child("member", || {
                let mut id = 0i32;
                done("before", sys!(ioctl, s, TIOCGPGRP, &mut id));
                ret("give up", sys!(ioctl, s, TIOCNOTTY, 0));
                ret("after", sys!(ioctl, s, TIOCGPGRP, &mut id));
                ret("again", sys!(ioctl, s, TIOCNOTTY, 0));
                ret("by name", sys!(open, c"/dev/tty", O_RDWR, 0));
                in_child("its child", || {
                    ret("by name", sys!(open, c"/dev/tty", O_RDWR, 0));
                    0
                });
                0
            });
            let mut id = 0i32;
            done("the leader keeps it", sys!(ioctl, s, TIOCGPGRP, &mut id));
            done("by name", sys!(open, c"/dev/tty", O_RDWR, 0));
            0
        });
        say!("{}", wait(leader));
    }),
    case("ioctl/packet_mode_and_exclusive", "", || {
        let (m, s) = pty();
        ret("packet", sys!(ioctl, m, libc::TIOCPKT, &1i32));
        send(s, b"data");
        say!("{}", got(m));
        ret("flush", sys!(ioctl, s, libc::TCFLSH, 2));
        say!("{}", got(m));
        ret("exclusive", sys!(ioctl, s, libc::TIOCEXCL));
        let link = std::fs::read_link(format!("/proc/self/fd/{s}")).unwrap_or_default();
        done("open as root", sys!(open, &*cstr(link.to_string_lossy().as_bytes()), O_RDWR | O_NOCTTY, 0));
    }),
    case("ioctl/poll_on_ptys", "poll epoll_wait", || {
        let (m, s) = pty();
        let look = |label: &str| {
            let mut p =
                [m, s].map(|fd| libc::pollfd { fd, events: libc::POLLIN | libc::POLLOUT, revents: 0 });
            sys!(poll, &mut p, 2, 0);
            say!("{label} master {:#x} slave {:#x}", p[0].revents, p[1].revents);
        };
        look("idle");
        send(m, b"a");
        pause_ms(10);
        look("half a line");
        send(m, b"\n");
        pause_ms(10);
        look("line");
        got(s);
        got(m);
        look("read");
        close(s);
        let mut p = libc::pollfd { fd: m, events: libc::POLLIN, revents: 0 };
        sys!(poll, &mut p, 1, 0);
        say!("{:#x}", p.revents);
        asleep(0);
        let _ = open;
    }),
    case("vhangup/permission", "", || {
        in_child("user", || {
            sys!(setresuid, 5, 5, 5);
            ret("vhangup", sys!(vhangup));
            0
        });
    }),
];
