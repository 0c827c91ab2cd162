//! Terminals and standard streams: making a pty for a container, handing its master end to an
//! engine, and, for a command in the foreground, carrying bytes, window sizes and signals between
//! the caller's terminal and the sandbox.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use hostsys::signals::SignalFd;
use hostsys::socket::{Interest, wait};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use sentry::boot::spec::WindowSize;
use sentry::control::Stdio;

/// A pseudoterminal of the host.
#[derive(Debug)]
pub struct Pty {
    pub master: OwnedFd,
    pub replica: OwnedFd,
}

/// Makes a pty in raw mode: the sandbox's own terminal does the line editing and the signals.
pub fn open_pty(size: Option<WindowSize>) -> Result<Pty> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let make = || -> rustix::io::Result<Pty> {
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::unlockpt(&master)?;
        // By the master's descriptor and not by name: /dev/pts may be another instance's.
        let replica = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        let mut settings = tcgetattr(&replica)?;
        settings.make_raw();
        tcsetattr(&replica, OptionalActions::Now, &settings)?;
        Ok(Pty { master, replica })
    };
    let pty = make().context("cannot make a terminal")?;
    if let Some(size) = size {
        set_size(&pty.master, size).context("process.consoleSize")?;
    }
    Ok(pty)
}

pub fn set_size(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

pub fn size(terminal: impl AsFd) -> Option<WindowSize> {
    let size = tcgetwinsize(terminal).ok()?;
    Some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Sends a master end to a console socket as runc does: one message with the name that the
/// receiver may show and exactly one descriptor.
pub fn send(socket: &Path, master: &OwnedFd) -> Result<()> {
    let stream =
        UnixStream::connect(socket).with_context(|| format!("--console-socket {}", socket.display()))?;
    hostsys::fd::send_with_fds(&stream, b"/dev/ptmx", &[master.as_fd()])
        .with_context(|| format!("--console-socket {}", socket.display()))?;
    Ok(())
}

/// Copies of this command's own standard streams; /dev/null for one that is closed.
pub fn own_streams(null: &OwnedFd) -> Result<Stdio> {
    let copy = |fd: BorrowedFd<'_>| match fd.try_clone_to_owned() {
        Ok(copy) => Ok(copy),
        Err(_) => null.try_clone(),
    };
    let streams = || -> io::Result<Stdio> {
        Ok(Stdio::Streams {
            stdin: copy(io::stdin().as_fd())?,
            stdout: copy(io::stdout().as_fd())?,
            stderr: copy(io::stderr().as_fd())?,
        })
    };
    streams().context("cannot pass on the standard streams")
}

/// The descriptors from 3 on that --preserve-fds names. Before this command opens anything itself, or
/// it might find its own.
pub fn preserved_fds(count: u32) -> Result<Vec<OwnedFd>> {
    (0..count)
        .map(|index| {
            let number = RawFd::try_from(index).unwrap_or(RawFd::MAX).saturating_add(3);
            hostsys::fd::adopt(number)
                .with_context(|| format!("--preserve-fds: descriptor {number} is not open"))
        })
        .collect()
}

/// Whether the caller works at a terminal: then a command gets one of its own.
pub fn caller_has_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Signals that a command in the foreground passes on.
const PASSED_ON: [i32; 10] = [
    1,  // SIGHUP
    2,  // SIGINT
    3,  // SIGQUIT
    10, // SIGUSR1
    12, // SIGUSR2
    14, // SIGALRM
    15, // SIGTERM
    18, // SIGCONT
    20, // SIGTSTP
    28, // SIGWINCH
];
pub const SIGWINCH: i32 = 28;

/// Raw mode of the caller's terminal, for as long as this lives.
struct RawMode(Option<Termios>);

impl RawMode {
    fn new() -> RawMode {
        let Ok(before) = tcgetattr(io::stdin()) else { return RawMode(None) };
        let mut raw = before.clone();
        raw.make_raw();
        match tcsetattr(io::stdin(), OptionalActions::Now, &raw) {
            Ok(()) => RawMode(Some(before)),
            Err(_) => RawMode(None),
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Blocks the signals that [`attend`] reads. Before the program starts, so that none is lost;
/// after the last fork, so that no child inherits it.
pub fn take_signals() -> Result<SignalFd> {
    hostsys::signals::block(&PASSED_ON).context("cannot block signals")?;
    SignalFd::new(&PASSED_ON, true).context("cannot take signals")
}

/// Stays with a process in the foreground until `done` is readable.
///
/// `terminal` is the master end of the process's pty, if it has one. `signal` is called for each
/// signal to pass on, a change of the window's size among them if the process has no terminal of its
/// own; `resized` after the caller's window has changed, with the pty set already.
pub fn attend(
    done: BorrowedFd<'_>,
    signals: &SignalFd,
    terminal: Option<&OwnedFd>,
    mut signal: impl FnMut(i32),
    mut resized: impl FnMut(WindowSize),
) -> Result<()> {
    let _raw = terminal.map(|_| RawMode::new());
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let mut input_open = terminal.is_some();
    let mut output_open = terminal.is_some();
    let mut follow_size = |terminal: &OwnedFd| {
        if let Some(new) = size(io::stdin())
            && size(terminal) != Some(new)
        {
            let _ = set_size(terminal, new);
            resized(new);
        }
    };
    // It may have changed since the terminal was made, before the signal could be taken.
    if let Some(terminal) = terminal {
        follow_size(terminal);
    }
    loop {
        let mut interests = vec![Interest::read(done), Interest::read(signals.as_fd())];
        if let Some(terminal) = terminal {
            // A descriptor that has reached its end would be ready for ever.
            interests.push(Interest::read(if output_open { terminal.as_fd() } else { done }));
            interests.push(Interest::read(if input_open { stdin.as_fd() } else { done }));
        }
        wait(&mut interests, None).context("cannot wait for the sandbox")?;
        let ready = |index: usize| interests.get(index).is_some_and(|i| i.readable);
        let (ended, signalled, output, input) = (ready(0), ready(1), ready(2), ready(3));
        if let Some(terminal) = terminal {
            if output && output_open {
                output_open = copy(terminal.as_fd(), stdout.as_fd());
            }
            if input && input_open {
                input_open = copy(stdin.as_fd(), terminal.as_fd());
            }
        }
        if signalled {
            while let Ok(received) = signals.read() {
                match (received.signal, terminal) {
                    (SIGWINCH, Some(terminal)) => follow_size(terminal),
                    // Standard streams may be the caller's terminal itself.
                    (number, _) => signal(number),
                }
            }
        }
        if ended {
            break;
        }
    }
    if let Some(terminal) = terminal {
        // What was written last may still be on its way.
        while output_open {
            let mut last = [Interest::read(terminal.as_fd())];
            match wait(&mut last, Some(Duration::from_millis(50))) {
                Ok(n) if n > 0 => output_open = copy(terminal.as_fd(), stdout.as_fd()),
                _ => break,
            }
        }
    }
    Ok(())
}

/// Carries what there is from one to the other; whether there may be more.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 16 << 10];
    let length = match rustix::io::read(from, &mut buffer) {
        Ok(0) => return false,
        Ok(length) => length,
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return true,
        // EIO of a master: the last user of the other end is gone.
        Err(_) => return false,
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let mut room = [Interest { write: true, ..Interest::read(to) }];
                if wait(&mut room, None).is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_pty_is_raw_and_sized() {
        let pty = open_pty(Some(WindowSize { rows: 33, columns: 101 })).unwrap();
        assert_eq!(size(&pty.replica), Some(WindowSize { rows: 33, columns: 101 }));
        rustix::io::write(&pty.master, b"\x03\n").unwrap();
        let mut got = [0; 8];
        assert_eq!(rustix::io::read(&pty.replica, &mut got).unwrap(), 2);
        assert_eq!(&got[..2], b"\x03\n");
    }

    #[test]
    fn the_console_socket_gets_one_message() {
        let path = std::env::temp_dir().join(format!("runsc-console-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let pty = open_pty(None).unwrap();
        send(&path, &pty.master).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut name = [0; 64];
        let (length, fds) = hostsys::fd::recv_with_fds(&stream, &mut name).unwrap();
        assert_eq!((&name[..length], fds.len()), (&b"/dev/ptmx"[..], 1));
        assert_eq!(stream.read(&mut name).unwrap(), 0);
        std::fs::remove_file(&path).unwrap();
        assert!(send(&path, &pty.master).is_err());
    }
}
