//! What a case is, and the few things nearly all cases need: children, waiting, scratch files.

use crate::{out, sys};
use std::ffi::CString;

/// One case: a small program that runs in a process and a directory of its own and says facts.
pub struct Case {
    /// `syscall/what`.
    pub name: &'static str,
    /// Further system calls it exercises, beside the one in its name; separated by blanks.
    pub also: &'static str,
    /// The program.
    pub run: fn(),
}

/// Shorthand for the tables of cases.
pub const fn case(name: &'static str, also: &'static str, run: fn()) -> Case {
    Case { name, also, run }
}

/// Ends this process at once, without running anything at exit.
pub fn leave(code: i32) -> ! {
    loop {
        sys!(exit_group, code);
    }
}

/// Forks; the child runs `body` and leaves with its value. Returns the child's id.
pub fn fork(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the cases that fork keep no locks in other threads that the child would need.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        leave(body());
    }
    if pid < 0 {
        out::line("BAD fork failed");
        leave(71);
    }
    pid
}

/// Waits for a child and returns its status in words.
pub fn wait(pid: i32) -> String {
    let mut status = 0i32;
    let got = sys!(wait4, pid, &mut status, 0, 0);
    if got == pid as isize { out::status(status) } else { out::number(got) }
}

/// Forks, runs `body`, waits, says how it ended.
pub fn in_child(label: &str, body: impl FnOnce() -> i32) {
    let pid = fork(body);
    crate::say!("{label}: {}", wait(pid));
}

/// A C string of any bytes without zero.
pub fn cstr(bytes: impl AsRef<[u8]>) -> CString {
    CString::new(bytes.as_ref()).unwrap_or_default()
}

/// Creates a file with the contents and returns an open read-write descriptor.
pub fn file(name: &str, contents: &[u8]) -> i32 {
    let fd =
        out::must("create", sys!(open, &*cstr(name), libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC, 0o644))
            as i32;
    if !contents.is_empty() {
        out::must("fill", sys!(write, fd, contents, contents.len()));
        sys!(lseek, fd, 0, libc::SEEK_SET);
    }
    fd
}

/// Opens an existing name with the flags.
pub fn open(name: &str, flags: i32) -> i32 {
    out::must("open", sys!(open, &*cstr(name), flags, 0)) as i32
}

/// A pipe: read end, write end.
pub fn pipe(flags: i32) -> (i32, i32) {
    let mut ends = [0i32; 2];
    out::must("pipe2", sys!(pipe2, &mut ends, flags));
    (ends[0], ends[1])
}

/// Closes a descriptor.
pub fn close(fd: i32) {
    sys!(close, fd);
}

/// Sleeps that many milliseconds.
pub fn pause_ms(ms: i64) {
    let mut left = libc::timespec { tv_sec: ms / 1000, tv_nsec: (ms % 1000) * 1_000_000 };
    let at: *mut libc::timespec = &mut left;
    while sys!(nanosleep, at, at) == -(libc::EINTR as isize) {}
}

/// The monotonic clock in milliseconds.
pub fn now_ms() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    sys!(clock_gettime, libc::CLOCK_MONOTONIC, &mut now);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// A time span as the kernel wants it.
pub fn span_ms(ms: i64) -> libc::timespec {
    libc::timespec { tv_sec: ms / 1000, tv_nsec: (ms % 1000) * 1_000_000 }
}

/// A zeroed value of a plain C struct.
pub fn zeroed<T>() -> T {
    // SAFETY: used for C structs of integers and pointers only, for which all-zero bytes are valid.
    unsafe { std::mem::zeroed() }
}

/// An address that is never mapped in user space.
pub const NOWHERE: usize = 0x10;

/// Waits until `done` holds, at most five seconds; tells whether it came to hold.
pub fn until(mut holds: impl FnMut() -> bool) -> bool {
    for _ in 0..1000 {
        if holds() {
            return true;
        }
        pause_ms(5);
    }
    false
}

/// The state letter of a task from /proc/PID/stat.
pub fn state_of(pid: i32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|s| s.trim_start().chars().next()).unwrap_or('?')
}

/// Waits until a task sleeps (state S), so that "it is blocked now" is no guess about time.
pub fn asleep(pid: i32) -> bool {
    until(|| state_of(pid) == 'S')
}

/// Spends that much processor time, however busy the machine is.
pub fn burn_ms(ms: i64) {
    let spent = || {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        sys!(clock_gettime, libc::CLOCK_PROCESS_CPUTIME_ID, &mut now);
        now.tv_sec * 1000 + now.tv_nsec / 1_000_000
    };
    let end = spent() + ms;
    let limit = now_ms() + 3000;
    while spent() < end && now_ms() < limit {}
}
