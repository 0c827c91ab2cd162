//! What the host tells of its network namespace below /proc/net: files that were opened there for the sentry, which can open none.
//! They are only ever read, and only as text for a guest. Rows of the sandbox's own sockets have the numbers by which the
//! sandbox knows them.

use crate::socket::inet::stack_for;
use abi::{Errno, Result};
use kernel::Kernel;
use kernel::vfs::Caller;
use ksync::{LockClass, Mutex};
use netstack::Stack;
use platform::hostsys::hostfile::HostFile;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

/// The tables that are the host's. Of interfaces, addresses and routes the sandbox's stack knows, also what the guest has changed.
pub const NAMES: [&str; 22] = [
    "anycast6",
    "dev",
    "dev_mcast",
    "icmp",
    "icmp6",
    "igmp",
    "igmp6",
    "mcfilter",
    "mcfilter6",
    "netstat",
    "raw",
    "raw6",
    "snmp",
    "snmp6",
    "sockstat",
    "sockstat6",
    "tcp",
    "tcp6",
    "udp",
    "udp6",
    "udplite",
    "udplite6",
];

/// Tables with a row for each socket.
const OF_SOCKETS: [&str; 10] =
    ["icmp", "icmp6", "raw", "raw6", "tcp", "tcp6", "udp", "udp6", "udplite", "udplite6"];

/// The most of a table that is shown: some hundred thousand rows.
const MOST: usize = 64 << 20;
/// How much of one is asked for at once.
const PIECE: usize = 64 << 10;

/// The inode number and the user of a socket, as the sandbox has them.
type Tag = (u64, u32);

/// The tables of the sandbox's first network namespace, and its sockets there.
pub struct Tables {
    donated: OnceLock<(Arc<Stack>, BTreeMap<&'static str, Mutex<Arc<HostFile>>>)>,
    /// By the inode number that the sandbox has given.
    sockets: Mutex<BTreeMap<u64, (Weak<OwnedFd>, u32)>>,
}

impl Tables {
    /// Those of the sandbox.
    pub fn of(kernel: &Kernel) -> Arc<Tables> {
        kernel.extensions.get_or_init(|| Tables {
            donated: OnceLock::new(),
            sockets: Mutex::new(LockClass::Leaf, BTreeMap::new()),
        })
    }

    /// Those that a caller sees: `None` where the network is the sentry's own.
    pub fn seen_by(cx: &Caller<'_>) -> Option<Arc<Tables>> {
        Tables::beside(cx.task?.kernel(), &*stack_for(cx)?)
    }

    /// Those that tell of the namespace which a stack stands for, if it does so for one of the host's.
    pub fn beside(kernel: &Kernel, stack: &Stack) -> Option<Arc<Tables>> {
        let tables = Tables::of(kernel);
        let same = std::ptr::eq(&*tables.donated.get()?.0, stack);
        same.then_some(tables)
    }

    /// Takes files over that were opened in the namespace of `stack`; the numbers are places in [`NAMES`].
    pub fn donate(&self, stack: &Arc<Stack>, files: Vec<(usize, OwnedFd)>) {
        let named = files.into_iter().filter_map(|(place, fd)| {
            let file = HostFile::new(fd, false);
            Some((*NAMES.get(place)?, Mutex::new(LockClass::Leaf, file)))
        });
        // There is one donation only.
        let _ = self.donated.set((Arc::clone(stack), named.collect()));
    }

    /// The names of the tables that there are.
    pub fn names(&self) -> Vec<&'static str> {
        self.donated.get().iter().flat_map(|(_, files)| files.keys().copied()).collect()
    }

    pub(super) fn enter(&self, fd: &Arc<OwnedFd>, (ino, uid): Tag) {
        self.sockets.lock().insert(ino, (Arc::downgrade(fd), uid));
    }

    pub(super) fn leave(&self, ino: u64) {
        self.sockets.lock().remove(&ino);
    }

    /// A table as it is now; `None` if the host has none of that name.
    pub fn read(&self, kernel: &Kernel, name: &str) -> Option<Result<Vec<u8>>> {
        let file = self.donated.get()?.1.get(name)?;
        let read = || {
            if !OF_SOCKETS.contains(&name) {
                return whole(&file.lock());
            }
            // As long as they are held here none of their numbers is given to another.
            let held: Vec<(Arc<OwnedFd>, Tag)> = {
                let sockets = self.sockets.lock();
                let one =
                    |(ino, (fd, uid)): (&u64, &(Weak<OwnedFd>, u32))| Some((fd.upgrade()?, (*ino, *uid)));
                sockets.iter().filter_map(one).collect()
            };
            let number = |fd| platform::hostsys::inet::number_of(fd).ok();
            let own = held.iter().filter_map(|(fd, tag)| Some((number(&**fd)?, *tag))).collect();
            let text = whole(&file.lock())?;
            let given = crate::anon::sockets_given(kernel);
            Ok(translated(&String::from_utf8_lossy(&text), &own, given).into_bytes())
        };
        Some(read())
    }
}

/// Has a stack that stands for a namespace of the host tell what that has counted at its interfaces.
pub fn count(kernel: &Kernel, stack: &Stack) {
    let table = Tables::beside(kernel, stack).and_then(|tables| tables.read(kernel, "dev"));
    let Some(Ok(text)) = table else { return };
    let text = String::from_utf8_lossy(&text);
    let rows: HashMap<&str, Vec<u64>> = text.lines().filter_map(counters).collect();
    for i in stack.interfaces.list() {
        // Bytes and packets that were received, six more of these, and the same of what was sent.
        if let Some([bytes, packets, _, _, _, _, _, _, sent_bytes, sent_packets, ..]) =
            rows.get(i.name.as_str()).map(Vec::as_slice)
        {
            i.traffic.received_bytes.store(*bytes, Ordering::Relaxed);
            i.traffic.received_packets.store(*packets, Ordering::Relaxed);
            i.traffic.sent_bytes.store(*sent_bytes, Ordering::Relaxed);
            i.traffic.sent_packets.store(*sent_packets, Ordering::Relaxed);
        }
    }
}

/// An interface and its numbers.
fn counters(row: &str) -> Option<(&str, Vec<u64>)> {
    let (name, numbers) = row.split_once(':')?;
    let numbers = numbers.split_ascii_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
    Some((name.trim_start(), numbers))
}

/// All of a file of /proc; what is too much is cut off after a line.
fn whole(file: &HostFile) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let at = text.len();
        if at >= MOST {
            let end = text.iter().rposition(|b| *b == b'\n').map_or(0, |last| last + 1);
            text.truncate(end);
            return Ok(text);
        }
        text.resize(at + PIECE, 0);
        let got = file.read_at(&mut text[at..], at as u64).map_err(|e| Errno::from_host(&e))?;
        text.truncate(at + got);
        if got == 0 {
            return Ok(text);
        }
    }
}

/// Where a row's word ends, and the words.
fn words(row: &str) -> Vec<(usize, &str)> {
    let mut at = 0;
    let mut out = Vec::new();
    for part in row.split(' ') {
        at += part.len();
        if !part.is_empty() {
            out.push((at, part));
        }
        at += 1;
    }
    out
}

// The words of a row that matter here.
const LOCAL: usize = 1;
const STATE: usize = 3;
const BEFORE_UID: usize = 6;
const UID: usize = 7;
const WAITED: usize = 8;
const INODE: usize = 9;
const USERS: usize = 10;
const ADDRESS: usize = 11;

/// A table of sockets with the inode numbers and users of the sandbox's own. `given`: as many numbers the sandbox has given; sockets
/// of others with one of them are shown without.
fn translated(text: &str, own: &HashMap<u64, Tag>, given: u64) -> String {
    let rows: Vec<(&str, Vec<(usize, &str)>)> = text.lines().map(|row| (row, words(row))).collect();
    let tag = |words: &[(usize, &str)]| own.get(&words.get(INODE)?.1.parse().ok()?).copied();
    // Connections that wait to be accepted have the user of the sentry's socket that listens, and no number.
    let mut listeners = HashMap::new();
    let mut as_on_host = None;
    for (_, words) in rows.iter().skip(1) {
        if let Some((_, uid)) = tag(words) {
            as_on_host = words.get(UID).map(|w| w.1);
            if words[STATE].1 == "0A" {
                listeners.insert(port(words[LOCAL].1), uid);
            }
        }
    }
    let mut out = String::with_capacity(text.len());
    for (n, (row, words)) in rows.iter().enumerate() {
        // The head, and what is no row of a socket.
        let Some((_, inode)) = words.get(INODE).filter(|_| n > 0) else {
            let _ = writeln!(out, "{row}");
            continue;
        };
        let (ino, uid) = match tag(words) {
            Some((ino, uid)) => (ino, uid.to_string()),
            None => {
                let host: u64 = inode.parse().unwrap_or(0);
                let waits = host == 0 && Some(words[UID].1) == as_on_host;
                let listener = listeners.get(port(words[LOCAL].1)).filter(|_| waits);
                let uid = listener.map_or_else(|| words[UID].1.to_owned(), u32::to_string);
                (if host < given { 0 } else { host }, uid)
            }
        };
        let (start, _) = words[BEFORE_UID];
        let mut new = format!("{} {uid:>5} {:>8} {ino}", &row[..start], words[WAITED].1);
        if let Some((_, users)) = words.get(USERS) {
            let _ = write!(new, " {users}");
        }
        if let Some((end, address)) = words.get(ADDRESS) {
            // Where the host's kernel has the socket is nobody's business.
            let _ = write!(new, " {:0>1$}{2}", "", address.len(), row[*end..].trim_end());
        }
        // Some tables have rows of one width.
        let width = if row.ends_with(' ') { row.len() } else { 0 };
        let _ = writeln!(out, "{new:<width$}");
    }
    out
}

fn port(end: &str) -> &str {
    end.rsplit(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";

    #[test]
    fn own_sockets_have_the_numbers_of_the_sandbox() {
        let own = HashMap::from([(70_001, (12, 1000)), (70_002, (13, 0))]);
        let table = |rows: [&str; 4]| format!("{HEAD}\n{}\n", rows.join("\n"));
        let before = table([
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000001 00:00000000 00000000 65534        0 70001 1 00000000d9b0c35a 100 0 0 10 0    ",
            "   1: 0100007F:1F90 0100007F:1F91 01 00000000:00000000 00:00000000 00000000 65534        0 0 1 00000000d9b0c35a 20 4 30 10 -1       ",
            "   2: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 65534        7 70002 1 00000000d9b0c35a 20 4 30 10 -1   ",
            "   3: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 70003 1 00000000d9b0c35a 100 0 0 10 0    ",
        ]);
        let after = table([
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000001 00:00000000 00000000  1000        0 12 1 0000000000000000 100 0 0 10 0       ",
            "   1: 0100007F:1F90 0100007F:1F91 01 00000000:00000000 00:00000000 00000000  1000        0 0 1 0000000000000000 20 4 30 10 -1       ",
            "   2: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        7 13 1 0000000000000000 20 4 30 10 -1      ",
            "   3: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 70003 1 0000000000000000 100 0 0 10 0    ",
        ]);
        assert_eq!(translated(&before, &own, 20), after);
        // A number that the sandbox has given to something else is not the host's to show.
        let with_another = translated(&before, &own, 70_004);
        assert!(with_another.contains(" 0 0 1 0000000000000000 100 0 0 10 0        \n"), "{with_another}");
        assert!(with_another.contains(" 13 1 "), "{with_another}");
    }

    #[test]
    fn what_is_no_row_stays() {
        let text = format!("{HEAD}\n1: 2 3\n\n  \u{fffd} a b c d e f g h i\n");
        assert!(translated(&text, &HashMap::new(), 5).starts_with(&format!("{HEAD}\n1: 2 3\n\n")));
        assert_eq!(translated("", &HashMap::new(), 5), "");
    }
}
