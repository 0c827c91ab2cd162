//! The lists of mounts as open files: poll(2) tells that the list has changed since it was asked last
//! (proc_pid_mounts(5)).

use crate::pseudo::{FileNode, PseudoFile};
use abi::Result;
use abi::poll::PollEvents;
use kernel::Task;
use kernel::io::Sink;
use kernel::vfs::{Caller, File, FileOps, MountNamespace, SeekFrom};
use ksync::WaitQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct MountsFile {
    text: PseudoFile,
    ns: Arc<MountNamespace>,
    /// The namespace's number of changes that was told last.
    told: AtomicU64,
}

/// Opens a list of the mounts that `task` sees.
pub(super) fn open(node: Arc<dyn FileNode>, task: &Task) -> Arc<dyn FileOps> {
    let ns = Arc::clone(&task.namespaces().mnt);
    let told = AtomicU64::new(ns.changes());
    Arc::new(MountsFile { text: PseudoFile::new(node), ns, told })
}

impl FileOps for MountsFile {
    fn read(&self, cx: &Caller<'_>, f: &File, dst: &mut dyn Sink, pos: &mut u64) -> Result<usize> {
        self.text.read(cx, f, dst, pos)
    }
    fn seek(&self, cx: &Caller<'_>, f: &File, pos: u64, from: SeekFrom) -> Result<u64> {
        self.text.seek(cx, f, pos, from)
    }
    fn poll(&self, _cx: &Caller<'_>, _f: &File) -> PollEvents {
        let now = self.ns.changes();
        let readable = PollEvents::IN | PollEvents::RDNORM;
        if self.told.swap(now, Ordering::Relaxed) == now {
            readable
        } else {
            readable | PollEvents::ERR | PollEvents::PRI
        }
    }
    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        Some(self.ns.watchers())
    }
}
