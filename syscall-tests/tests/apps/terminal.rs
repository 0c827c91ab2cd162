//! A person at a terminal of the host: bash is played step by step through a pseudo-terminal, once on the host
//! and once in a sandbox, and must show the same: by `runsc run` and `runsc do` in the foreground, by
//! `runsc exec --tty`, and by a console socket. The terminal changes its size meanwhile, and its keys stop and continue jobs.

use crate::Shared;
use crate::place::Place;
use libtest_mimic::{Failed, Trial};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the player waits for one thing to appear.
const PATIENCE: Duration = Duration::from_secs(60);

/// The prompt: nothing that a command prints.
const PROMPT: &str = "ready> ";

/// A step of the person.
enum Step {
    /// Types a line and waits for the next prompt; what appears is compared.
    Line(&'static str),
    /// Types a line and waits for that text, which the program prints once it runs.
    Until(&'static str, &'static str),
    /// Presses keys and waits for the next prompt.
    Keys(&'static str),
    /// Makes the window that large and waits for that text.
    Resize(u16, u16, &'static str),
    /// Makes the window that large while nobody waits for it.
    Silently(u16, u16),
}

/// What a bash as process 1 and one as a child both can.
const SESSION: &[Step] = &[
    Step::Line("stty size"),
    Step::Silently(33, 77),
    Step::Line("stty size"),
    Step::Line("echo hello | tr a-z A-Z; cat <<E\nfirst\nsecond\nE"),
    Step::Until(
        "sh -c 'trap \"stty size; exit\" WINCH; echo wait\"\"ing; while :; do sleep 0.1; done'",
        "waiting\r\n",
    ),
    Step::Resize(41, 101, "41 101"),
    Step::Line("stty size"),
    Step::Until("sh -c 'echo runn\"\"ing; exec sleep 100'", "running"),
    Step::Keys("\x1a"),
    Step::Line("jobs"),
    Step::Line("bg"),
    Step::Line("jobs"),
    Step::Until("fg", "exec sleep 100'\r\n"),
    Step::Keys("\x03"),
    Step::Line("echo status $?; jobs; echo none"),
    Step::Until("sh -c 'echo quit\"\"ting; exec sleep 100'", "quitting"),
    Step::Keys("\x1c"),
    Step::Line("echo status $?"),
    Step::Line(
        "sleep 101 & jobs; kill -STOP %1; sleep 0.2; jobs; kill -CONT %1; kill %1; wait; jobs > /dev/null",
    ),
    Step::Until("sh -c 'echo read\"\"ing; exec cat' | cat", "reading\r\n"),
    Step::Keys("typed\n\x04"),
    Step::Until("sh -c 'echo suspend\"\"ing; exec cat'; echo got $?", "suspending\r\n"),
    Step::Keys("\x1a"),
    Step::Until("fg", "exec cat'\r\n"),
    Step::Keys("\x04"),
    Step::Line("stty -echo; stty -a | grep -o -- -echo\\ ; stty echo"),
    Step::Line("set -o | grep monitor"),
    Step::Line("read -n 1 -t 5 key < /dev/tty <<< x; echo $key; test -t 0 && test -t 1 && echo terminal"),
];

/// A terminal, and what was seen on it.
struct Player {
    master: OwnedFd,
    unread: String,
    seen: String,
}

/// A new terminal, and its other end.
fn terminal() -> Result<(Player, OwnedFd), Failed> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let replica = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    tcsetwinsize(&replica, window(24, 80))?;
    Ok((Player::new(master), replica))
}

impl Player {
    fn new(master: OwnedFd) -> Player {
        Player { master, unread: String::new(), seen: String::new() }
    }

    /// Reads on until the text appears; gives all up to its end.
    fn until(&mut self, what: &str) -> Result<String, Failed> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.unread.find(what) {
                let rest = self.unread.split_off(at + what.len());
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
            poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 }))?;
            let mut bytes = [0; 4096];
            let hung_up = ready[0].revents().contains(PollFlags::HUP);
            match ready[0]
                .revents()
                .contains(PollFlags::IN)
                .then(|| rustix::io::read(&self.master, &mut bytes))
            {
                Some(Ok(n)) if n > 0 => self.unread.push_str(&String::from_utf8_lossy(&bytes[..n])),
                _ if hung_up || Instant::now() > end => {
                    let why = if hung_up { "the terminal was closed" } else { "nothing more came" };
                    return Err(format!(
                        "{why} before {what:?}\nbefore:\n{}\nthen: {:?}",
                        self.seen, self.unread
                    )
                    .into());
                }
                _ => {}
            }
        }
    }

    fn say(&self, text: &str) -> Result<(), Failed> {
        rustix::io::write(&self.master, text.as_bytes())?;
        Ok(())
    }

    fn note(&mut self, text: &str) {
        self.seen.push_str(&text.replace('\r', ""));
        self.seen.push('\n');
    }

    fn play(&mut self, steps: &[Step]) -> Result<(), Failed> {
        for step in steps {
            let text = match step {
                Step::Line(line) => {
                    self.say(&format!("{line}\n"))?;
                    // bash asks for each further line of a here-document with "> " of its own.
                    self.until(PROMPT)?
                }
                Step::Until(line, what) => {
                    self.say(&format!("{line}\n"))?;
                    let text = self.until(what)?;
                    // The job must have the terminal, and the program be where it waits.
                    std::thread::sleep(Duration::from_millis(600));
                    text
                }
                Step::Keys(keys) => {
                    self.say(keys)?;
                    self.until(PROMPT)?
                }
                Step::Resize(rows, columns, what) => {
                    tcsetwinsize(&self.master, window(*rows, *columns))?;
                    let mut text = self.until(what)?;
                    text.push_str(&self.until(PROMPT)?);
                    text
                }
                Step::Silently(rows, columns) => {
                    tcsetwinsize(&self.master, window(*rows, *columns))?;
                    std::thread::sleep(Duration::from_millis(500));
                    continue;
                }
            };
            self.note(&text);
        }
        Ok(())
    }

    /// The whole session; everything that was seen.
    fn session(mut self) -> Result<String, Failed> {
        let text = self.until(PROMPT)?;
        // The size follows late where the terminal is handed over first; the prompt may be moved by that.
        self.note(text.trim_start());
        self.play(SESSION)?;
        self.say("exit 7\n")?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
            poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 }))?;
            let events = ready[0].revents();
            if events.contains(PollFlags::IN) {
                let _ = rustix::io::read(&self.master, &mut [0; 4096]);
            } else if events.contains(PollFlags::HUP) {
                return Ok(self.seen);
            }
        }
        Err(format!("the terminal is not closed\n{}", self.seen).into())
    }
}

fn window(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// bash with a known prompt and nothing of the person who runs the tests.
fn shell() -> Vec<String> {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let prompt = format!("PS1={PROMPT}");
    let environment =
        ["/usr/bin/env", "-i", path, &prompt, "PS2=+ ", "TERM=dumb", "LANG=C.UTF-8", "HISTFILE="];
    let bash = ["/bin/bash", "--norc", "--noprofile", "--noediting", "-i"];
    environment.into_iter().chain(bash).map(str::to_owned).collect()
}

/// What makes its standard input the controlling terminal of a new session, and then runs a command in it.
fn in_a_session() -> Vec<String> {
    ["/usr/bin/setsid", "--ctty", "--wait"].map(str::to_owned).to_vec()
}

/// Plays the session with a command at a new terminal; what was seen, and how the command ended.
fn play(mut command: Command) -> Result<String, Failed> {
    let (player, replica) = terminal()?;
    let (second, third) = (replica.try_clone()?, replica.try_clone()?);
    let mut child = command.stdin(replica).stdout(second).stderr(third).spawn()?;
    // It holds the replica's descriptors, which must go for the end to be seen.
    drop(command);
    let seen = player.session();
    if seen.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    Ok(format!("{}{status}\n", seen?))
}

/// A shell on the host, as process 1 in the root file system.
fn native(root: &Path) -> Result<String, Failed> {
    // The session within the namespaces, or its job control would not know its processes' numbers.
    let scene = Place::Native.scene(root, &[in_a_session(), shell()].concat(), true);
    play(scene.command())
}

/// A shell on the host as it is.
fn native_shell(_root: &Path) -> Result<String, Failed> {
    play(as_command(&[in_a_session(), shell()].concat()))
}

fn as_command(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// A command of ours at a terminal of its own session.
fn with_session(inner: &Command) -> Command {
    let mut command = as_command(&in_a_session());
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

/// `runsc run` in the foreground.
fn run_foreground(place: &Place, root: &Path) -> Result<String, Failed> {
    let scene = place.scene(root, &shell(), true);
    play(with_session(&scene.command()))
}

/// `runsc do`.
fn run_do(place: &Place, root: &Path) -> Result<String, Failed> {
    let scene = place.scene(root, &[], false);
    let mut command = scene.runsc();
    command.arg("do").args(shell());
    play(with_session(&command))
}

/// `runsc exec -t` in a container that sleeps.
fn run_exec(place: &Place, root: &Path) -> Result<String, Failed> {
    let scene = place.scene(root, &["/bin/sleep", "600"].map(str::to_owned), false);
    let mut start = scene.runsc();
    start.args(["run", "--detach", "--bundle"]).arg(&scene.work).arg(&scene.id);
    finish(start)?;
    let mut command = scene.runsc();
    command.args(["exec", "--tty", &scene.id]).args(shell());
    play(with_session(&command))
}

/// The terminal is handed to a socket, as engines have it: the sandbox follows its size alone.
fn run_console_socket(place: &Place, root: &Path) -> Result<String, Failed> {
    let scene = place.scene(root, &shell(), true);
    let socket = scene.work.join("console");
    let listener = UnixListener::bind(&socket)?;
    let mut create = scene.runsc();
    create.args(["create", "--console-socket"]).arg(&socket).arg("--bundle").arg(&scene.work).arg(&scene.id);
    finish(create)?;
    let player = Player::new(receive(&listener)?);
    // Between create and start, as docker does it.
    tcsetwinsize(&player.master, window(24, 80))?;
    let mut start = scene.runsc();
    start.args(["start", &scene.id]);
    finish(start)?;
    let mut wait = scene.runsc();
    wait.args(["wait", &scene.id]);
    // Its status goes to whoever waits already.
    let waiting = std::thread::spawn(move || finish(wait));
    let seen = player.session()?;
    let answer = waiting.join().map_err(|_| "the thread that waits panicked")??;
    let ended = answer.contains("\"exitStatus\": 7") || answer.contains("\"exitStatus\":7");
    Ok(format!("{seen}{}\n", if ended { "exit status: 7" } else { &answer }))
}

/// Runs a command of ours to its end, which must be a good one; its output.
fn finish(mut command: Command) -> Result<String, Failed> {
    // Files and not pipes: a container keeps the streams it is made with.
    let (out, err) = (tempfile()?, tempfile()?);
    let status = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?).status()?;
    let read = |mut file: File| -> std::io::Result<String> {
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        Ok(text)
    };
    let (out, err) = (read(out)?, read(err)?);
    if status.success() { Ok(out) } else { Err(format!("{command:?}: {status}: {err}").into()) }
}

/// A file without a name.
fn tempfile() -> std::io::Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(File::from(rustix::fs::memfd_create("output", flags)?))
}

/// The descriptor that a console socket gets.
fn receive(listener: &UnixListener) -> Result<OwnedFd, Failed> {
    let (stream, _) = listener.accept()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.ok_or_else(|| "the console socket got no terminal".into())
}

fn same(native: &str, sandbox: &str) -> Result<(), Failed> {
    if native == sandbox {
        return Ok(());
    }
    let common = native.lines().zip(sandbox.lines()).take_while(|(a, b)| a == b).count();
    let rest = |text: &str| text.lines().skip(common).take(12).collect::<Vec<_>>().join("\n");
    Err(format!("after {common} equal lines\nhost:\n{}\nsandbox:\n{}", rest(native), rest(sandbox)).into())
}

/// Without what differs from run to run: process numbers that bash prints, and whether it had heard of a job's end
/// before it was told to wait for it.
fn settled(text: &str) -> String {
    let number = |line: &str| {
        line.strip_prefix("[1] ").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let lines = text.lines().filter(|line| !line.starts_with("[1]+  Terminated"));
    lines.map(|line| if number(line) { "[1] NUMBER\n".to_owned() } else { format!("{line}\n") }).collect()
}

/// The trials of a platform.
pub fn trials(platform: &str, shared: &Arc<Shared>) -> Vec<Trial> {
    type OnHost = fn(&Path) -> Result<String, Failed>;
    type InSandbox = fn(&Place, &Path) -> Result<String, Failed>;
    let trial = |name: &str, on_host: OnHost, in_sandbox: InSandbox| {
        let (place, shared) = (Place::of(platform), Arc::clone(shared));
        Trial::test(format!("{platform}::terminal::{name}"), move || {
            let root = shared.rootfs()?;
            let host = settled(&on_host(&root)?);
            same(&host, &settled(&in_sandbox(&place, &root)?))
        })
    };
    if platform == "native" {
        return Vec::new();
    }
    vec![
        trial("run", native, run_foreground),
        trial("do", native_shell, run_do),
        trial("exec", native, run_exec),
        trial("console_socket", native, run_console_socket),
    ]
}
