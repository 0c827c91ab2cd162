//! Device nodes that the guest made on a mount of the gofer.
//!
//! The gofer makes no device for a sandbox: a node that the host would open is the host's business. What the guest
//! asked for is a name with an owner, a mode, links and a number, and only the sentry's own drivers open it. So the
//! gofer keeps an empty regular file in its place, which all calls on names work on, and the number is remembered
//! here for the life of the mount. The host, and a later sandbox, see the empty file.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use abi::stat::FileType;
use abi::stat::mode::S_IFMT;
use gofer_protocol::{Stat, Timestamp};

/// What a node is: its type and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) kind: FileType,
    pub(super) major: u32,
    pub(super) minor: u32,
}

impl Device {
    /// Makes the attributes of the file in its place those of the node.
    pub(super) fn dress(self, stat: &mut Stat) {
        stat.mode = stat.mode & !S_IFMT | self.kind.mode_bits();
        (stat.rdev_major, stat.rdev_minor) = (self.major, self.minor);
    }
}

/// The nodes of a file system by number; with the time of birth, since the host may use a number again. The lock is innermost and
/// outside the checked order, as those of the file system's other tables.
#[derive(Debug, Default)]
pub(super) struct Devices {
    nodes: Mutex<HashMap<u64, (Timestamp, Device)>>,
    count: AtomicUsize,
}

impl Devices {
    pub(super) fn add(&self, ino: u64, born: Timestamp, device: Device) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.insert(ino, (born, device));
        self.count.store(nodes.len(), Ordering::Release);
    }

    /// The node that stands behind attributes which the gofer told.
    pub(super) fn find(&self, ino: u64, stat: &Stat) -> Option<Device> {
        if self.count.load(Ordering::Acquire) == 0
            || FileType::from_mode(stat.mode) != Some(FileType::Regular)
            || stat.size != 0
        {
            return None;
        }
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get(&ino).filter(|(born, _)| *born == stat.btime).map(|(_, device)| *device)
    }

    /// The type to list for a regular file of that number.
    pub(super) fn kind(&self, ino: u64) -> Option<FileType> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get(&ino).map(|(_, device)| device.kind)
    }

    /// The last name is gone.
    pub(super) fn remove(&self, ino: u64) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.remove(&ino);
        self.count.store(nodes.len(), Ordering::Release);
    }
}
