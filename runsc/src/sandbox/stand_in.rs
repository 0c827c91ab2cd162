//! A host process that stands for one of the sandbox's: it ends with the same status.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use sentry::control::protocol::{Reply, SignalTarget};

use crate::control::Client;
use crate::state::Directory;
use crate::{cgroup, console};

/// What a process is told to have died of whose sandbox is gone: SIGKILL, as a shell shows it.
const KILLED: i32 = 137;

/// Ends for lack of memory that the host is told of one by one, if there are many at once.
const TOLD_AT_ONCE: u64 = 8;

/// Signals that are passed on: all but those that cannot be caught, those that are about this process
/// itself, and the one that tells of a new size.
fn passed_on() -> Vec<i32> {
    (1..=31)
        .filter(|n| !matches!(n, 4 | 5 | 7 | 8 | 9 | 11 | 13 | 17 | 19 | 20 | 21 | 22 | 28 | 31))
        .collect()
}

/// The process stood for.
#[derive(Debug)]
pub struct StandIn<'a> {
    /// Its end comes on this connection.
    pub client: &'a Client,
    pub directory: &'a Directory,
    pub id: &'a str,
    /// Its number; 0: the container's first.
    pub pid: u32,
    /// Groups of the host that are to hear of ends for lack of memory.
    pub cgroups: &'a [PathBuf],
}

/// What the sandbox has to say of ends for lack of memory.
struct OomWatch {
    client: Client,
    seen: u64,
}

impl StandIn<'_> {
    fn connect(&self) -> Option<Client> {
        Client::connect(self.directory, self.id).ok()
    }

    fn watch_oom(&self) -> Option<OomWatch> {
        if self.cgroups.is_empty() {
            return None;
        }
        let client = self.connect()?;
        client.ask_wait_oom(0).ok()?;
        Some(OomWatch { client, seen: 0 })
    }

    /// Tells the host of the ends up to the `kills`th.
    fn tell_oom(&self, watch: &mut OomWatch, kills: u64) {
        for _ in 0..kills.saturating_sub(watch.seen).min(TOLD_AT_ONCE) {
            if let Err(error) = cgroup::note_kill(self.cgroups) {
                tracing::warn!("an end for lack of memory is not noted in the container's cgroup: {error:#}");
            }
        }
        watch.seen = watch.seen.max(kills);
    }

    /// Reads the end, and tells what the host has not been told yet.
    fn end(&self, watch: Option<OomWatch>) -> i32 {
        let status = self.client.exited().map_or(KILLED, |s| i32::from(s.shell_code()));
        if let Some(mut watch) = watch
            && let Some(stats) = self.connect().and_then(|client| client.stats().ok())
        {
            self.tell_oom(&mut watch, stats.oom_kills);
        }
        status
    }

    /// Waits for the end; passes signals on, and follows the size of the terminal, since only a host process can.
    pub fn run(&self, terminal: Option<OwnedFd>) -> i32 {
        let mut taken = passed_on();
        if terminal.as_ref().is_some_and(|t| rustix::process::ioctl_tiocsctty(t).is_ok()) {
            taken.push(console::SIGWINCH);
            // When the other end is closed, this end's users get SIGHUP: that is for the container's
            // processes, which see the end of their terminal, and not for this one.
            taken.retain(|n| *n != 1);
            let _ = hostsys::signals::ignore(1);
        }
        if hostsys::signals::block(&taken).is_err() {
            drop(terminal);
            return self.end(None);
        }
        let Ok(signals) = hostsys::signals::SignalFd::new(&taken, true) else { return self.end(None) };
        let pass_size = || {
            if let (Some(size), Some(second)) = (terminal.as_ref().and_then(console::size), self.connect()) {
                let _ = second.resize(self.pid, size);
            }
        };
        // Whoever has the other end may have set a size before this process could hear of it.
        pass_size();
        let mut watch = self.watch_oom();
        let target = if self.pid == 0 { SignalTarget::Init } else { SignalTarget::Process(self.pid) };
        loop {
            let mut interests = vec![
                hostsys::socket::Interest::read(self.client.as_fd()),
                hostsys::socket::Interest::read(signals.as_fd()),
            ];
            interests.extend(watch.iter().map(|w| hostsys::socket::Interest::read(w.client.as_fd())));
            if hostsys::socket::wait(&mut interests, None).is_err() || interests[0].readable {
                // Only the container's use may keep the terminal open.
                drop(terminal);
                return self.end(watch);
            }
            let told = interests.get(2).is_some_and(|i| i.readable);
            if told && let Some(mut w) = watch.take() {
                // The sandbox is gone, or the container is: then there is nothing to hear any more.
                if let Ok(Reply::OomKills(kills)) = w.client.receive() {
                    self.tell_oom(&mut w, kills);
                    watch = w.client.ask_wait_oom(w.seen).is_ok().then_some(w);
                }
            }
            while let Ok(received) = signals.read() {
                if received.signal == console::SIGWINCH {
                    pass_size();
                } else if let Some(second) = self.connect() {
                    let _ = second.signal(target, received.signal);
                }
            }
        }
    }
}
