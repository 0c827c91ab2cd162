//! The loop that serves the control socket. One thread, no thread per connection: a waiting peer
//! costs one descriptor and is answered when the kernel rings the [`ExitBell`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use platform::hostsys::fd;
use platform::hostsys::signals::{self, SignalFd};
use platform::hostsys::socket::{self, Interest, Waker};
use platform::hostsys::tty;

use super::protocol::{
    ControlError, ErrorKind, ExitStatus, Operation, Reply, Request, SignalTarget, WaitTarget,
};
use super::wire::{self, Received, Receiver};
use super::{CreateArgs, ExecArgs, SandboxOps, Stdio};
use crate::boot::spec::WindowSize;

/// Connections beyond this are closed at once. Each detached `exec` holds one.
const MAX_CONNECTIONS: usize = 4096;

/// How long the last replies may take to reach their peers once the sandbox is over.
const FLUSH_TIME: Duration = Duration::from_millis(500);
/// How long those that stand for processes may take to end.
const STAND_INS_TIME: Duration = Duration::from_secs(2);
/// How long their parents have to note that, before they can find the first process ended as well.
const NOTED: Duration = Duration::from_millis(100);
/// After so long without a request the code that served the last ones (a start's above all) is not kept in memory.
const SETTLES: Duration = Duration::from_millis(100);

/// Tells the control server that a process has ended or that the sandbox is over.
#[derive(Debug, Clone)]
pub struct ExitBell(Arc<Waker>);

impl ExitBell {
    pub fn new() -> io::Result<ExitBell> {
        Ok(ExitBell(Arc::new(Waker::new()?)))
    }

    /// May be called from any thread, never blocks.
    pub fn ring(&self) {
        self.0.wake();
    }
}

#[derive(Debug, Clone, Copy)]
enum Awaited {
    Exit(WaitTarget),
    /// More processes killed for lack of memory than so many.
    OomKills(u64),
}

/// A `Wait` that has no answer yet.
#[derive(Debug)]
struct Waiting {
    container: String,
    awaited: Awaited,
    /// The container ends with the connection.
    holds: bool,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    receiver: Receiver,
    /// Bytes of replies that the socket has not taken yet.
    outgoing: Vec<u8>,
    waiting: Option<Waiting>,
    /// Processes that this connection started and has not waited for.
    started: Vec<(String, u32)>,
    /// The peer stands for a process on the host, and ends with it.
    stands_in: bool,
    closed: bool,
}

impl Connection {
    fn reply(&mut self, reply: &Reply) {
        match wire::encode(reply) {
            Ok(bytes) => self.outgoing.extend(bytes),
            Err(error) => {
                tracing::error!("cannot encode a control reply: {error}");
                self.closed = true;
            }
        }
    }

    fn flush(&mut self) {
        while !self.outgoing.is_empty() {
            match fd::send_with_fds(&self.stream, &self.outgoing, &[]) {
                Ok(sent) => drop(self.outgoing.drain(..sent)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }
}

/// SIGWINCH.
const WINDOW_CHANGED: i32 = 28;

/// Follows the size of the host terminal that the first process was given. That terminal controls
/// the sentry's session, so the host signals each change.
#[derive(Debug)]
pub struct TerminalWatch {
    container: String,
    terminal: OwnedFd,
    signals: SignalFd,
}

impl TerminalWatch {
    /// Blocks the signal in the calling thread; call before there are others.
    pub fn new(container: &str, terminal: &OwnedFd) -> io::Result<TerminalWatch> {
        signals::block(&[WINDOW_CHANGED])?;
        Ok(TerminalWatch {
            container: container.to_owned(),
            terminal: terminal.try_clone()?,
            signals: SignalFd::new(&[WINDOW_CHANGED], true)?,
        })
    }

    fn changed(&self, ops: &dyn SandboxOps) {
        while self.signals.read().is_ok() {}
        if let Ok((rows, columns)) = tty::window_size(&self.terminal)
            && let Err(error) = ops.resize(&self.container, 0, WindowSize { rows, columns })
        {
            tracing::debug!("window size not taken: {error}");
        }
    }
}

/// The server: owns the listening socket and all connections.
pub struct Server {
    listener: UnixListener,
    bell: ExitBell,
    ops: Arc<dyn SandboxOps>,
    terminal: Option<TerminalWatch>,
    connections: Vec<Connection>,
    /// When the last of those ended that stood for a process.
    stand_in_ended: Option<Instant>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("connections", &self.connections).finish_non_exhaustive()
    }
}

impl Server {
    pub fn new(
        listener: UnixListener,
        bell: ExitBell,
        ops: Arc<dyn SandboxOps>,
        terminal: Option<TerminalWatch>,
    ) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        Ok(Server { listener, bell, ops, terminal, connections: Vec::new(), stand_in_ended: None })
    }

    /// Serves until the sandbox is over and the last waiting peers have their answers.
    pub fn run(&mut self) -> io::Result<ExitStatus> {
        let mut settled = false;
        loop {
            if self.turn((!settled).then_some(SETTLES))? {
                settled = false;
            } else if !settled {
                settled = true;
                platform::hostsys::process::forget_text();
            }
            if let Some(status) = self.ops.finished() {
                self.answer_waiting();
                self.last_words();
                return Ok(status);
            }
        }
    }

    /// Waits for something to happen and handles it; false: nothing did.
    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let mut interests = vec![Interest::read(self.bell.0.as_fd()), Interest::read(self.listener.as_fd())];
        for connection in &self.connections {
            interests.push(Interest {
                write: !connection.outgoing.is_empty(),
                ..Interest::read(connection.stream.as_fd())
            });
        }
        let lives = self.ops.gofer_lives();
        interests.extend(lives.iter().map(|(_, life)| Interest::read(life.as_fd())));
        // Last, so that the connections keep their places.
        interests.extend(self.terminal.iter().map(|t| Interest::read(t.signals.as_fd())));
        if socket::wait(&mut interests, timeout)? == 0 {
            return Ok(false);
        }
        let rung = interests[0].readable;
        let incoming = interests[1].readable;
        let states = interests[2..].iter().map(|i| (i.readable, i.writable));
        let ready: Vec<(bool, bool)> = states.take(self.connections.len()).collect();
        let broken: Vec<bool> =
            interests[2 + ready.len()..].iter().take(lives.len()).map(|i| i.readable).collect();
        let resized = self.terminal.is_some() && interests.last().is_some_and(|i| i.readable);

        for (index, (readable, writable)) in ready.into_iter().enumerate() {
            if writable {
                self.connections[index].flush();
            }
            if readable {
                self.read(index);
            }
        }
        for ((container, _), _) in lives.iter().zip(broken).filter(|(_, broken)| *broken) {
            self.ops.gofer_gone(container);
        }
        if let Some(terminal) = self.terminal.as_ref().filter(|_| resized) {
            terminal.changed(self.ops.as_ref());
        }
        if rung {
            self.bell.0.clear();
            self.answer_waiting();
        }
        if incoming {
            self.accept();
        }
        self.drop_closed();
        Ok(true)
    }

    fn accept(&mut self) {
        // Several may be queued; more than a few at once can wait for the next turn.
        for _ in 0..16 {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let usable = stream.set_nonblocking(true).is_ok();
                    if usable && self.connections.len() < MAX_CONNECTIONS {
                        self.connections.push(Connection {
                            stream,
                            receiver: Receiver::default(),
                            outgoing: Vec::new(),
                            waiting: None,
                            started: Vec::new(),
                            stands_in: false,
                            closed: false,
                        });
                    }
                }
                Err(_) => return,
            }
        }
    }

    fn read(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        loop {
            match connection.receiver.receive::<Request>(&connection.stream) {
                Ok(Received::More) => {}
                Ok(Received::Message(request, fds)) => {
                    handle(self.ops.as_ref(), connection, request, fds);
                    connection.flush();
                    return;
                }
                Ok(Received::End) => {
                    connection.closed = true;
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!("bad control message: {error}");
                    connection.closed = true;
                    return;
                }
            }
        }
    }

    /// Replies to each waiting peer whose process has ended.
    fn answer_waiting(&mut self) {
        for connection in &mut self.connections {
            let Some(waiting) = connection.waiting.take() else {
                continue;
            };
            match answer(self.ops.as_ref(), connection, &waiting) {
                Ok(None) => connection.waiting = Some(waiting),
                Ok(Some(reply)) => connection.reply(&reply),
                Err(error) => connection.reply(&Reply::Failed(error)),
            }
            connection.flush();
        }
    }

    fn drop_closed(&mut self) {
        if self.connections.iter().any(|connection| connection.closed && connection.stands_in) {
            self.stand_in_ended = Some(Instant::now());
        }
        let ops = &self.ops;
        self.connections.retain(|connection| {
            if connection.closed {
                if let Some(held) = connection.waiting.as_ref().filter(|w| w.holds) {
                    let target = match held.awaited {
                        Awaited::Exit(WaitTarget::Process(pid)) => SignalTarget::Process(pid),
                        _ => SignalTarget::All,
                    };
                    let _ = ops.signal(&held.container, target, SIGKILL);
                }
                for (container, pid) in &connection.started {
                    ops.forget(container, *pid);
                }
            }
            !connection.closed
        });
    }

    /// Gives slow peers a moment to take their last replies.
    fn last_words(&mut self) {
        let end = Instant::now() + FLUSH_TIME;
        for connection in &mut self.connections {
            connection.flush();
            while !connection.outgoing.is_empty() && !connection.closed {
                let left = end.saturating_duration_since(Instant::now());
                let mut interest = [Interest { write: true, ..Interest::read(connection.stream.as_fd()) }];
                if left.is_zero() || socket::wait(&mut interest, Some(left)).is_err() {
                    break;
                }
                connection.flush();
            }
        }
        self.stand_ins();
    }

    /// Lets those that stand for processes end before the first process does, as in a PID namespace of the host: containerd's shim
    /// goes when that has ended, and with it the news of all others that it has not told yet.
    fn stand_ins(&mut self) {
        let end = Instant::now() + STAND_INS_TIME;
        for connection in &self.connections {
            if connection.stands_in && connection.waiting.is_none() {
                let mut interest = [Interest::read(connection.stream.as_fd())];
                // It says nothing more, so this is its end.
                let _ = socket::wait(&mut interest, Some(end.saturating_duration_since(Instant::now())));
                self.stand_in_ended = Some(Instant::now());
            }
        }
        let noted =
            self.stand_in_ended.map(|ended| (ended + NOTED).saturating_duration_since(Instant::now()));
        if let Some(left) = noted.filter(|left| !left.is_zero()) {
            let _ = socket::wait(&mut [], Some(left));
        }
    }
}

fn handle(ops: &dyn SandboxOps, connection: &mut Connection, request: Request, fds: Vec<OwnedFd>) {
    let container = request.container;
    let done = |result: Result<(), ControlError>| result.map(|()| Reply::Done);
    let result = match request.op {
        Operation::Status => ops.status(&container).map(Reply::Status),
        Operation::Start => done(ops.start(&container)),
        Operation::Wait { .. } | Operation::Hold { .. } | Operation::WaitOom { .. } => {
            let holds = matches!(request.op, Operation::Hold { .. });
            connection.stands_in |= matches!(request.op, Operation::Hold { target: WaitTarget::Process(_) });
            let awaited = match request.op {
                Operation::Wait { target } | Operation::Hold { target } => Awaited::Exit(target),
                Operation::WaitOom { seen } => Awaited::OomKills(seen),
                _ => return,
            };
            let waiting = Waiting { container, awaited, holds };
            match answer(ops, connection, &waiting) {
                Ok(None) => {
                    connection.waiting = Some(waiting);
                    return;
                }
                Ok(Some(reply)) => Ok(reply),
                Err(error) => Err(error),
            }
        }
        Operation::Create { spec, extra_fds } => {
            match donated(spec.process.terminal, extra_fds.saturating_add(2), fds) {
                Err(error) => Err(error),
                Ok((stdio, mut more)) => {
                    let extra_fds = more.split_off(2);
                    match (more.pop(), more.pop()) {
                        (Some(gofer_life), Some(gofer)) => {
                            let args = CreateArgs {
                                container: *spec,
                                stdio,
                                extra_fds,
                                gofer,
                                gofer_life,
                                memory_group: None,
                            };
                            done(ops.create(&container, args))
                        }
                        _ => Err(ControlError::new(ErrorKind::Invalid, "no channel to a gofer came along")),
                    }
                }
            }
        }
        Operation::Delete => done(ops.delete(&container)),
        Operation::SetLimits { limits } => done(ops.set_limits(&container, &limits)),
        Operation::Signal { target, signo } => done(ops.signal(&container, target, signo)),
        Operation::Exec { process, extra_fds } => match donated(process.terminal, extra_fds, fds) {
            Err(error) => Err(error),
            Ok((stdio, extra_fds)) => {
                let args = ExecArgs { process: *process, stdio, extra_fds };
                ops.exec(&container, args).map(|pid| {
                    connection.started.push((container, pid));
                    Reply::Started { pid }
                })
            }
        },
        Operation::Processes => ops.processes(&container).map(Reply::Processes),
        Operation::Pause => done(ops.pause(&container)),
        Operation::Resume => done(ops.resume(&container)),
        Operation::Stats => ops.stats(&container).map(|s| Reply::Stats(Box::new(s))),
        Operation::Resize { pid, size } => done(ops.resize(&container, pid, size)),
        Operation::Shutdown => done(ops.signal(&container, SignalTarget::All, SIGKILL)),
    };
    connection.reply(&result.unwrap_or_else(Reply::Failed));
}

const SIGKILL: i32 = 9;

/// The answer to a `Wait`, if there is one by now.
fn answer(
    ops: &dyn SandboxOps,
    connection: &mut Connection,
    waiting: &Waiting,
) -> Result<Option<Reply>, ControlError> {
    match waiting.awaited {
        Awaited::OomKills(seen) => {
            let kills = ops.oom_kills(&waiting.container)?;
            Ok((kills > seen).then_some(Reply::OomKills(kills)))
        }
        Awaited::Exit(target) => {
            let Some(status) = ops.exit_status(&waiting.container, target)? else { return Ok(None) };
            reap(ops, connection, waiting);
            Ok(Some(Reply::Exited(status)))
        }
    }
}

fn reap(ops: &dyn SandboxOps, connection: &mut Connection, waiting: &Waiting) {
    if let Awaited::Exit(WaitTarget::Process(pid)) = waiting.awaited {
        let own = |(container, started): &(String, u32)| *container == waiting.container && *started == pid;
        if connection.started.iter().any(own) {
            connection.started.retain(|s| !own(s));
            ops.forget(&waiting.container, pid);
        }
    }
}

/// Sorts the descriptors of an `Exec` message.
fn donated(terminal: bool, extra: u32, fds: Vec<OwnedFd>) -> Result<(Stdio, Vec<OwnedFd>), ControlError> {
    let streams = if terminal { 1 } else { 3 };
    if u64::try_from(fds.len()).ok() != Some(streams + u64::from(extra)) {
        return Err(ControlError::new(
            ErrorKind::Invalid,
            format!(
                "{} descriptors came with the request, {} were announced",
                fds.len(),
                streams + u64::from(extra)
            ),
        ));
    }
    let mut fds = fds.into_iter();
    let stdio = if terminal {
        fds.next().map(Stdio::Terminal)
    } else {
        match (fds.next(), fds.next(), fds.next()) {
            (Some(stdin), Some(stdout), Some(stderr)) => Some(Stdio::Streams { stdin, stdout, stderr }),
            _ => None,
        }
    };
    let stdio =
        stdio.ok_or_else(|| ControlError::new(ErrorKind::Invalid, "no descriptors came with the request"))?;
    Ok((stdio, fds.collect()))
}

/// Lends the descriptors of `stdio` in the order of an `Exec` message.
pub fn stdio_fds(stdio: &Stdio) -> Vec<BorrowedFd<'_>> {
    match stdio {
        Stdio::Streams { stdin, stdout, stderr } => {
            vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
        }
        Stdio::Terminal(terminal) => vec![terminal.as_fd()],
    }
}

#[cfg(test)]
mod tests;
