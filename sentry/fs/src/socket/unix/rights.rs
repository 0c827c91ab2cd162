//! Open files in flight between sockets (`SCM_RIGHTS`), and the collection of those that nobody can
//! receive any more: sockets that hold each other in their queues.

use super::UnixSocket;
use crate::socket::Socket;
use kernel::Kernel;
use kernel::vfs::File;
use ksync::{LockClass, Mutex};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Files on their way.
pub struct Rights {
    files: Vec<Arc<File>>,
    flight: Arc<InFlight>,
}

struct Entry {
    file: Weak<File>,
    /// In how many messages the file is.
    times: usize,
}

/// All files in flight of a sandbox.
pub struct InFlight {
    /// Sockets among them, by the number of their open file description.
    sockets: Mutex<HashMap<u64, Entry>>,
    count: AtomicUsize,
    /// With so many in flight the next that is sent looks for garbage first.
    crowd: AtomicUsize,
    /// How often a collection was asked for since the one that is under way began; 0 if none is.
    asked: AtomicUsize,
}

/// As many in flight make Linux look for garbage (`UNIX_INFLIGHT_TRIGGER_GC`).
const CROWD: usize = 16_000;

/// What a kernel has of them. When it ends, nobody closes a socket any more, and so nobody would look.
struct OfKernel(Arc<InFlight>);

impl Drop for OfKernel {
    fn drop(&mut self) {
        self.0.collect();
    }
}

fn unix_of(file: &File) -> Option<&UnixSocket> {
    let socket = file.ops_as::<Socket>()?;
    let any: &dyn std::any::Any = &**socket.ops();
    any.downcast_ref()
}

impl InFlight {
    /// That of a kernel.
    pub fn of(kernel: &Kernel) -> Arc<InFlight> {
        let new = || InFlight {
            sockets: Mutex::new(LockClass::Leaf, HashMap::new()),
            count: AtomicUsize::new(0),
            crowd: AtomicUsize::new(CROWD),
            asked: AtomicUsize::new(0),
        };
        Arc::clone(&kernel.extensions.get_or_init(|| OfKernel(Arc::new(new()))).0)
    }

    /// How many files are in flight.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Looks for garbage if there are many in flight, and again when there are twice as many as were left.
    pub fn thin(&self) {
        if self.count() > self.crowd.load(Ordering::Relaxed) {
            self.collect();
            self.crowd.store(CROWD.max(2 * self.count()), Ordering::Relaxed);
        }
    }

    /// Puts files into flight.
    pub fn launch(self: &Arc<Self>, files: Vec<Arc<File>>) -> Rights {
        self.count.fetch_add(files.len(), Ordering::Relaxed);
        let mut sockets = self.sockets.lock();
        for f in files.iter().filter(|f| unix_of(f).is_some()) {
            let new = || Entry { file: Arc::downgrade(f), times: 0 };
            sockets.entry(f.id()).or_insert_with(new).times += 1;
        }
        drop(sockets);
        Rights { files, flight: Arc::clone(self) }
    }

    fn land(&self, files: &[Arc<File>]) {
        self.count.fetch_sub(files.len(), Ordering::Relaxed);
        let mut sockets = self.sockets.lock();
        for f in files {
            if let Some(e) = sockets.get_mut(&f.id()) {
                e.times -= 1;
                if e.times == 0 {
                    sockets.remove(&f.id());
                }
            }
        }
    }

    /// Frees sockets that exist only in each other's queues. Called when a socket was closed while
    /// sockets are in flight; does nothing if none are. There is one collection at a time: whoever asks
    /// meanwhile, as sockets that are freed do, has it look once more.
    pub fn collect(&self) {
        if self.asked.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        loop {
            let asked = self.asked.load(Ordering::Acquire);
            self.collect_once();
            if self.asked.compare_exchange(asked, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
        }
    }

    fn collect_once(&self) {
        let listed: Vec<(Arc<File>, usize)> = {
            let sockets = self.sockets.lock();
            if sockets.is_empty() {
                return;
            }
            sockets.values().filter_map(|e| Some((e.file.upgrade()?, e.times))).collect()
        };
        // A file that only messages refer to (and we, just now) is a candidate; what a message of a socket
        // that is no candidate holds can still be received, and so on from there.
        let mut candidates: HashMap<u64, Arc<File>> = HashMap::new();
        let mut alive = Vec::new();
        for (file, times) in listed {
            if Arc::strong_count(&file) == times + 1 {
                candidates.insert(file.id(), file);
            } else {
                alive.push(file);
            }
        }
        if candidates.is_empty() {
            return;
        }
        let mut inside: HashMap<u64, Vec<u64>> = HashMap::new();
        for (id, file) in &candidates {
            inside.insert(*id, unix_of(file).map(UnixSocket::queued_files).unwrap_or_default());
        }
        // Everything in candidates' queues that nobody else holds stays a candidate; what is in the
        // queue of a socket outside of them was counted by `strong_count` only as a message, so such
        // sockets are asked too.
        let held_by_candidates: HashMap<u64, usize> =
            inside.values().flatten().fold(HashMap::new(), |mut m, id| {
                *m.entry(*id).or_insert(0) += 1;
                m
            });
        let times: HashMap<u64, usize> = self.sockets.lock().iter().map(|(k, e)| (*k, e.times)).collect();
        let mut live: Vec<u64> =
            candidates.keys().filter(|id| times.get(id) != held_by_candidates.get(id)).copied().collect();
        let mut reached: HashSet<u64> = HashSet::new();
        while let Some(id) = live.pop() {
            if reached.insert(id) {
                live.extend(inside.get(&id).into_iter().flatten().filter(|i| candidates.contains_key(i)));
            }
        }
        let garbage: Vec<Arc<File>> =
            candidates.into_iter().filter(|(id, _)| !reached.contains(id)).map(|(_, f)| f).collect();
        drop(alive);
        for file in garbage {
            let doomed = unix_of(&file).map(UnixSocket::drain_rights);
            drop(doomed);
            drop(file);
        }
    }
}

impl Rights {
    /// The files, no longer in flight.
    pub fn take(mut self) -> Vec<Arc<File>> {
        let files = std::mem::take(&mut self.files);
        self.flight.land(&files);
        files
    }
    /// The files without taking them (`MSG_PEEK`).
    pub fn peek(&self) -> Vec<Arc<File>> {
        self.files.clone()
    }
    /// Their numbers.
    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.files.iter().map(|f| f.id())
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        let files = std::mem::take(&mut self.files);
        self.flight.land(&files);
    }
}
