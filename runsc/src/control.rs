//! The command line's end of the control socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sentry::control::protocol::{
    ContainerStatus, ControlError, ExitStatus, Operation, ProcessInfo, Reply, Request, SignalTarget, Stats,
    WaitTarget,
};
use sentry::control::wire;

use crate::state::Directory;

const SOCKET: &str = "control.sock";

/// A sentry that does not answer within this time is taken for stuck; only `Wait` takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A path to the socket that fits into sun_path however long the state directory's name is. The
/// descriptor must stay open while the path is used.
fn short_path(directory: &std::fs::File) -> String {
    format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd())
}

/// Makes the socket that the sentry is going to serve.
pub fn listen(directory: &Directory) -> io::Result<UnixListener> {
    let handle = std::fs::File::open(directory.path())?;
    // The directory is its owner's alone, so the socket's own mode does not matter.
    UnixListener::bind(short_path(&handle))
}

/// Gives the socket of a sandbox a second name, in the directory of a container that joins it.
pub fn share(of: &Directory, with: &Directory) -> io::Result<()> {
    std::fs::hard_link(of.path().join(SOCKET), with.path().join(SOCKET))
}

/// A connection to a sandbox, for one of its containers.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    container: String,
}

impl Client {
    pub fn connect(directory: &Directory, container: &str) -> io::Result<Client> {
        let handle = std::fs::File::open(directory.path())?;
        let stream = UnixStream::connect(short_path(&handle))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream, container: container.to_owned() })
    }

    /// Sends a request and does not wait for the answer.
    pub fn send(&self, op: Operation, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let request = Request { container: self.container.clone(), op };
        wire::send(&self.stream, &request, fds).context("cannot reach the sandbox")
    }

    /// The answer to the oldest request that has none.
    pub fn receive(&self) -> Result<Reply> {
        match wire::receive(&self.stream) {
            Ok((Reply::Failed(error), _)) => Err(error.into()),
            Ok((reply, _)) => Ok(reply),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                bail!("the sandbox does not answer")
            }
            Err(error) => Err(error).context("the sandbox is gone"),
        }
    }

    pub fn ask(&self, op: Operation, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        self.send(op, fds)?;
        self.receive()
    }

    /// Asks for something that has no answer but that it was done.
    pub fn done(&self, op: Operation, fds: &[BorrowedFd<'_>]) -> Result<()> {
        match self.ask(op, fds)? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    pub fn status(&self) -> Result<ContainerStatus> {
        match self.ask(Operation::Status, &[])? {
            Reply::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    pub fn start(&self) -> Result<()> {
        self.done(Operation::Start, &[])
    }

    pub fn signal(&self, target: SignalTarget, signo: i32) -> Result<()> {
        self.done(Operation::Signal { target, signo }, &[])
    }

    pub fn pause(&self) -> Result<()> {
        self.done(Operation::Pause, &[])
    }

    pub fn resume(&self) -> Result<()> {
        self.done(Operation::Resume, &[])
    }

    pub fn resize(&self, pid: u32, size: sentry::boot::spec::WindowSize) -> Result<()> {
        self.done(Operation::Resize { pid, size }, &[])
    }

    pub fn processes(&self) -> Result<Vec<ProcessInfo>> {
        match self.ask(Operation::Processes, &[])? {
            Reply::Processes(processes) => Ok(processes),
            other => Err(unexpected(&other)),
        }
    }

    pub fn stats(&self) -> Result<Stats> {
        match self.ask(Operation::Stats, &[])? {
            Reply::Stats(stats) => Ok(*stats),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks to be told when a process has ended; [`Client::exited`] reads the answer.
    pub fn ask_wait(&self, target: WaitTarget) -> Result<()> {
        self.stream.set_read_timeout(None)?;
        self.send(Operation::Wait { target }, &[])
    }

    /// As [`Client::ask_wait`]; the process ends with this connection, or the container if it is its first.
    pub fn ask_hold(&self, target: WaitTarget) -> Result<()> {
        self.stream.set_read_timeout(None)?;
        self.send(Operation::Hold { target }, &[])
    }

    /// Asks to be told when more than `seen` processes of the container were killed for lack of memory; the answer is
    /// [`Reply::OomKills`].
    pub fn ask_wait_oom(&self, seen: u64) -> Result<()> {
        self.stream.set_read_timeout(None)?;
        self.send(Operation::WaitOom { seen }, &[])
    }

    /// Blocks until the process of [`Client::ask_wait`] has ended.
    pub fn exited(&self) -> Result<ExitStatus> {
        match self.receive()? {
            Reply::Exited(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn unexpected(reply: &Reply) -> anyhow::Error {
    anyhow::anyhow!("the sandbox gave an answer that does not fit: {reply:?}")
}

/// The sandbox's own reason, if that is what an error is.
pub fn reason(error: &anyhow::Error) -> Option<&ControlError> {
    error.downcast_ref()
}
