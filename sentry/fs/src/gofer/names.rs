//! Names in a root that this sandbox uses alone, but for an engine that now and then changes it from outside (`docker cp`).
//! What is known of a directory's names is believed for a while; then the directory's ctime tells whether any of them can have
//! changed. So a hot path costs one question per directory and second, and a file nothing.

use std::collections::HashSet;

use abi::stat::FileType;
use gofer_protocol::Timestamp;

use super::Sharing;
use super::inode::{GoferInode, monotonic};

/// How long names are believed without asking, in nanoseconds. A process that an engine starts makes all of them be asked
/// for again (see [`super::GoferFs`]'s `look_again`), so this is for programs that wait for a file to be copied in.
const WHILE: i64 = 1_000_000_000;

/// Names known to be absent that are remembered for one directory.
const MOST_ABSENT: usize = 4096;

/// What is known of the names in one directory.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// When the directory was asked last, and its ctime then.
    asked: Option<(i64, Timestamp)>,
    /// What was learnt of names before this may be wrong.
    changed: i64,
    /// Found missing since.
    absent: HashSet<Box<[u8]>>,
}

impl GoferInode {
    /// From when on something must have been learnt to be believed.
    pub(super) fn believed_since(&self, moment: i64) -> i64 {
        match self.fs.sharing() {
            Sharing::Shared => monotonic().saturating_sub(moment),
            Sharing::Rarely => monotonic().saturating_sub(WHILE).max(self.fs.looked_again()),
            Sharing::Exclusive => 0,
        }
    }

    /// Makes sure that what is known of this directory's names is not too old; forgets what may be wrong.
    pub(super) fn check_names(&self) {
        if self.fs.sharing() != Sharing::Rarely || self.kind != FileType::Directory {
            return;
        }
        let since = self.believed_since(0);
        let before = match self.state.lock().names.asked {
            Some((at, _)) if at >= since => return,
            asked => asked.map(|(_, ctime)| ctime),
        };
        let now = monotonic();
        // A directory that is gone has no names any more that could be asked for.
        let stat = self.ask_for_stat().ok();
        let mut state = self.state.lock();
        if let Some(stat) = stat {
            state.learn(self.fs.dressed(stat));
        }
        let ctime = stat.map(|s| s.ctime);
        state.names.asked = ctime.map(|ctime| (now, ctime));
        if ctime.is_some() && ctime == before {
            return;
        }
        state.names.changed = now;
        state.names.absent.clear();
        state.changes = state.changes.wrapping_add(1);
        state.lookups = 0;
        let listing = state.listing.take();
        drop(state);
        drop(listing);
    }

    /// A name was found missing at `when` or later.
    pub(super) fn note_absent(&self, name: &[u8], when: i64) {
        if self.fs.sharing() != Sharing::Rarely {
            return;
        }
        let names = &mut self.state.lock().names;
        if names.absent.len() >= MOST_ABSENT {
            names.absent.clear();
        }
        if when >= names.changed {
            names.absent.insert(name.into());
        }
    }

    /// The gofer told of it under this name.
    pub(super) fn met(&self, dir: &GoferInode, name: &[u8]) {
        let mut state = self.state.lock();
        if state.place.as_ref().is_some_and(|(at, its)| std::ptr::eq(&**at, dir) && **its == *name) {
            state.met_at = monotonic();
        }
    }

    /// Whether a name in this directory is known to mean `child`, or nothing.
    pub(super) fn name_is_known(&self, name: &[u8], child: Option<&GoferInode>) -> bool {
        self.check_names();
        let (changed, absent) = {
            let state = self.state.lock();
            (state.names.changed, child.is_none() && state.names.absent.contains(name))
        };
        match child {
            None => absent || matches!(self.listed(name), Some(None)),
            Some(child) => {
                let state = child.state.lock();
                let here =
                    state.place.as_ref().is_some_and(|(dir, at)| std::ptr::eq(&**dir, self) && **at == *name);
                here && state.met_at >= changed
            }
        }
    }
}
