//! How a case reports facts. A fact is one line; the runner compares the lines of the host with the
//! lines of the sandbox, so nothing that differs from run to run (addresses, ids, times) may be in one.

use std::fmt::Display;

/// Prints one fact.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => { $crate::out::line(&format!($($arg)*)) };
}

/// Writes a line to standard output at once, so that a case that is killed keeps what it said.
pub fn line(text: &str) {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(b'\n');
    let mut rest: &[u8] = &bytes;
    while !rest.is_empty() {
        let n = crate::sys!(write, 1, rest, rest.len());
        if n <= 0 {
            return;
        }
        rest = &rest[n as usize..];
    }
}

/// Says the exact result: the number, or the errno's name.
pub fn ret(label: impl Display, result: isize) -> isize {
    say!("{label}: {}", number(result));
    result
}

/// Says only success or the errno's name, for results that are ids, addresses or times.
pub fn done(label: impl Display, result: isize) -> isize {
    if !(-4095..0).contains(&result) {
        say!("{label}: ok");
    } else {
        say!("{label}: {}", number(result));
    }
    result
}

/// A step that must work for the case to mean anything: ends the case loudly otherwise.
pub fn must(label: impl Display, result: isize) -> isize {
    if (-4095..0).contains(&result) {
        say!("BAD {label}: {}", number(result));
        crate::case::leave(70);
    }
    result
}

/// A claim that must hold on the host too; a broken one makes the case fail natively.
pub fn claim(label: impl Display, holds: bool) -> bool {
    if holds {
        say!("{label}: yes");
    } else {
        say!("BAD {label}: no");
    }
    holds
}

/// The result as text: a decimal number or an errno's name.
pub fn number(result: isize) -> String {
    if (-4095..0).contains(&result) {
        return errno(-result as i32).to_owned();
    }
    result.to_string()
}

macro_rules! errnos {
    ($($e:ident)*) => {
        /// The name of an errno.
        pub fn errno(code: i32) -> &'static str {
            match code { $(libc::$e => stringify!($e),)* _ => "E???" }
        }
    };
}
errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK
    EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE
    EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM
    ENODATA ETIME EOVERFLOW EBADFD EILSEQ EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE
    ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE
    EADDRNOTAVAIL ENETDOWN ENETUNREACH ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN
    ETIMEDOUT ECONNREFUSED EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT ECANCELED EOWNERDEAD
    ENOTRECOVERABLE ENOKEY EBADMSG EPROTO
}

macro_rules! signals {
    ($($s:ident)*) => {
        /// The name of a signal; real-time signals as an offset from the first.
        pub fn signal(number: i32) -> String {
            match number {
                $(libc::$s => stringify!($s).to_owned(),)*
                34..=64 => format!("SIGRTMIN+{}", number - 34),
                other => format!("signal {other}"),
            }
        }
    };
}
signals! {
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE
    SIGALRM SIGTERM SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ
    SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS
}

/// A wait status in words.
pub fn status(status: i32) -> String {
    if libc::WIFEXITED(status) {
        format!("exit {}", libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        format!("killed by {}", signal(libc::WTERMSIG(status)))
    } else if libc::WIFSTOPPED(status) {
        let event = status >> 16;
        let name = signal(libc::WSTOPSIG(status) & 0x7f);
        let sys = if libc::WSTOPSIG(status) & 0x80 != 0 { "|0x80" } else { "" };
        if event == 0 {
            format!("stopped by {name}{sys}")
        } else {
            format!("stopped by {name}{sys} event {event}")
        }
    } else if libc::WIFCONTINUED(status) {
        "continued".to_owned()
    } else {
        format!("status {status:#x}")
    }
}

/// Bytes as text with escapes.
pub fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The bytes up to the first zero, as text.
pub fn until_nul(bytes: &[u8]) -> String {
    text(bytes.split(|b| *b == 0).next().unwrap_or(&[]))
}
