//! The descriptors that a sandbox gets for its network. All were opened in the container's network namespace by the
//! command that made it, since the sentry can make no socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// TCP sockets for conversations with the name server.
pub const CONVERSATIONS: usize = 4;

/// The way to the name server that Docker runs on the loopback interface of the namespace.
#[derive(Debug)]
pub struct NameServer {
    /// A UDP socket connected to it.
    pub datagrams: OwnedFd,
    /// TCP sockets connected to nobody.
    pub conversations: [OwnedFd; CONVERSATIONS],
    /// It was seen there.
    pub present: bool,
}

/// TCP sockets for ports of the guest, where there is no socket for all of them.
pub const DOORS: usize = 16;

/// What comes to the namespace's own addresses from inside of it.
#[derive(Debug)]
pub enum Steered {
    /// All ports of 127.0.0.1.
    All {
        /// The socket that listens for them.
        listener: OwnedFd,
        /// What makes it so, while it is open.
        steering: OwnedFd,
    },
    /// TCP sockets that are bound to nothing yet, for one port each.
    Each([OwnedFd; DOORS]),
}

/// All descriptors.
#[derive(Debug)]
pub struct Donation {
    /// Questions of rtnetlink.
    pub questions: OwnedFd,
    /// News of rtnetlink.
    pub news: OwnedFd,
    /// None where loopback is down.
    pub names: Option<NameServer>,
    /// None where nobody could come from inside.
    pub steered: Option<Steered>,
    /// Packet sockets that are bound to nothing yet: one for each interface there may be at once.
    pub packets: Vec<OwnedFd>,
    /// What keeps the sentry's end from waiting for them, while it is open (`packet::closed_later`).
    pub keeper: Option<OwnedFd>,
    /// A pipe with the namespace's settings that are the sandbox's as well: a name and a value on each line.
    pub settings: Option<OwnedFd>,
    /// Files below the namespace's /proc/net, each with its place in [`fs::socket::host::tables::NAMES`].
    pub tables: Vec<(usize, OwnedFd)>,
}

const NAMES: u64 = 1;
const PRESENT: u64 = 2;
const STEERED: u64 = 4;
const KEPT: u64 = 8;
const EACH: u64 = 16;
const SETTINGS: u64 = 32;
/// That of the first table; the others follow.
const TABLES: u64 = 64;

const fn table(place: usize) -> u64 {
    TABLES << place
}

const _: () = assert!(table(fs::socket::host::tables::NAMES.len()) > TABLES);

impl Donation {
    /// The descriptors in the order in which they travel, and what goes with them.
    pub fn parts(&self) -> (u64, Vec<BorrowedFd<'_>>) {
        let mut fds = vec![self.questions.as_fd(), self.news.as_fd()];
        let mut flags = 0;
        if let Some(names) = &self.names {
            flags = NAMES | if names.present { PRESENT } else { 0 };
            fds.push(names.datagrams.as_fd());
            fds.extend(names.conversations.iter().map(AsFd::as_fd));
        }
        match &self.steered {
            Some(Steered::All { listener, steering }) => {
                flags |= STEERED;
                fds.extend([listener.as_fd(), steering.as_fd()]);
            }
            Some(Steered::Each(sockets)) => {
                flags |= EACH;
                fds.extend(sockets.iter().map(AsFd::as_fd));
            }
            None => {}
        }
        if let Some(keeper) = &self.keeper {
            flags |= KEPT;
            fds.push(keeper.as_fd());
        }
        if let Some(settings) = &self.settings {
            flags |= SETTINGS;
            fds.push(settings.as_fd());
        }
        for (place, file) in &self.tables {
            flags |= table(*place);
            fds.push(file.as_fd());
        }
        fds.extend(self.packets.iter().map(AsFd::as_fd));
        (flags, fds)
    }

    /// The other way.
    pub fn from_parts(flags: u64, fds: Vec<OwnedFd>) -> io::Result<Donation> {
        let few = || io::Error::from(io::ErrorKind::InvalidData);
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(few);
        let (questions, news) = (next()?, next()?);
        let names = if flags & NAMES != 0 {
            let datagrams = next()?;
            let list = (0..CONVERSATIONS).map(|_| next()).collect::<io::Result<Vec<OwnedFd>>>()?;
            let conversations = list.try_into().map_err(|_| few())?;
            Some(NameServer { datagrams, conversations, present: flags & PRESENT != 0 })
        } else {
            None
        };
        let steered = if flags & STEERED != 0 {
            Some(Steered::All { listener: next()?, steering: next()? })
        } else if flags & EACH != 0 {
            let list = (0..DOORS).map(|_| next()).collect::<io::Result<Vec<OwnedFd>>>()?;
            Some(Steered::Each(list.try_into().map_err(|_| few())?))
        } else {
            None
        };
        let keeper = if flags & KEPT != 0 { Some(next()?) } else { None };
        let settings = if flags & SETTINGS != 0 { Some(next()?) } else { None };
        let mut tables = Vec::new();
        for place in 0..fs::socket::host::tables::NAMES.len() {
            if flags & table(place) != 0 {
                tables.push((place, next()?));
            }
        }
        Ok(Donation { questions, news, names, steered, packets: fds.collect(), keeper, settings, tables })
    }
}
