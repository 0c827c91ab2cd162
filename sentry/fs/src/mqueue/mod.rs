//! POSIX message queues (mq_overview(7)): the file system whose files they are, one for each IPC namespace.
//! `queue.rs` has a queue with its messages and its notification, `node.rs` the inodes and open files.

mod node;
mod queue;

pub use node::MqFile;
pub use queue::{Notify, Queue, Received, Shape};

use abi::stat::StatFs;
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::Kernel;
use kernel::creds::{CapSet, Creds};
use kernel::task::IpcNamespace;
use kernel::vfs::{FileSystem, FsFlags, Inode, InodeExtras, Mount};
use ksync::{LockClass, Mutex};
use node::RootNode;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

const MAGIC: i64 = 0x1980_0202;
/// Bounds that no setting and no capability lifts.
const HARD_MESSAGES: i64 = 65_536;
const HARD_MESSAGE_SIZE: i64 = 16 << 20;

/// Bytes of queues by user (`RLIMIT_MSGQUEUE`), for a whole sandbox.
pub(super) struct Charges(Mutex<HashMap<u32, u64>>);

impl Charges {
    fn of(kernel: &Kernel) -> Arc<Charges> {
        kernel.extensions.get_or_init(|| Charges(Mutex::new(LockClass::Leaf, HashMap::new())))
    }

    fn add(&self, uid: u32, bytes: u64, limit: u64) -> Result<()> {
        let mut all = self.0.lock();
        let sum = all.get(&uid).copied().unwrap_or(0).checked_add(bytes).ok_or(Errno::EMFILE)?;
        if sum > limit {
            return Err(Errno::EMFILE);
        }
        all.insert(uid, sum);
        Ok(())
    }

    fn sub(&self, uid: u32, bytes: u64) {
        let mut all = self.0.lock();
        let rest = all.get(&uid).copied().unwrap_or(0).saturating_sub(bytes);
        if rest == 0 {
            all.remove(&uid);
        } else {
            all.insert(uid, rest);
        }
    }
}

/// Modes, owner and times of an inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
}

/// The queues of an IPC namespace as a file system.
pub struct MqFs {
    me: Weak<MqFs>,
    kernel: Weak<Kernel>,
    dev: u64,
    names: Mutex<BTreeMap<Box<[u8]>, Arc<Queue>>>,
    meta: Mutex<Meta>,
    extras: InodeExtras,
    next_ino: AtomicU64,
    /// Queues there are, those without a name included.
    count: Arc<AtomicUsize>,
    charges: Arc<Charges>,
}

/// What an IPC namespace holds: the file system and a mount of it in no tree, for mq_open(2).
pub struct MqNamespace {
    pub fs: Arc<MqFs>,
    pub mount: Arc<Mount>,
}

impl MqNamespace {
    /// That of a namespace, made at the first use.
    pub fn of(kernel: &Arc<Kernel>, ipc: &IpcNamespace) -> Arc<MqNamespace> {
        let charges = Charges::of(kernel);
        ipc.objects.get_or_init(|| {
            let now = kernel.clocks.now();
            let meta = Meta { mode: 0o041777, uid: 0, gid: 0, atime: now, mtime: now, ctime: now };
            let fs = Arc::new_cyclic(|me| MqFs {
                me: Weak::clone(me),
                kernel: Arc::downgrade(kernel),
                dev: kernel.vfs.new_dev(),
                names: Mutex::new(LockClass::Inode, BTreeMap::new()),
                meta: Mutex::new(LockClass::Leaf, meta),
                extras: InodeExtras::default(),
                next_ino: AtomicU64::new(2),
                count: Arc::default(),
                charges,
            });
            MqNamespace { mount: Mount::internal(Arc::clone(&fs) as Arc<dyn FileSystem>), fs }
        })
    }
}

impl MqFs {
    fn now(&self) -> Timespec {
        self.kernel.upgrade().map_or(Timespec::default(), |k| k.clocks.now())
    }

    fn setting(&self, name: &str) -> i64 {
        self.kernel.upgrade().map_or(0, |k| k.sysctls.get_int(name))
    }

    /// The shape of a queue that was made without saying one.
    fn default_shape(&self) -> Shape {
        let least = |a, b| self.setting(a).min(self.setting(b));
        Shape {
            messages: least("fs/mqueue/msg_max", "fs/mqueue/msg_default"),
            size: least("fs/mqueue/msgsize_max", "fs/mqueue/msgsize_default"),
        }
    }

    /// Whether somebody may make a queue of that shape: EINVAL, EOVERFLOW.
    fn check_shape(&self, creds: &Creds, shape: Shape) -> Result<()> {
        let privileged = creds.has_cap(CapSet::SYS_RESOURCE);
        let (most, largest) = if privileged {
            (HARD_MESSAGES, HARD_MESSAGE_SIZE)
        } else {
            (self.setting("fs/mqueue/msg_max"), self.setting("fs/mqueue/msgsize_max"))
        };
        if shape.messages <= 0 || shape.size <= 0 || shape.messages > most || shape.size > largest {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// A new queue with what it costs charged to its maker.
    fn new_queue(&self, creds: &Creds, meta: Meta, shape: Option<Shape>, limit: u64) -> Result<Arc<Queue>> {
        if let Some(shape) = shape {
            self.check_shape(creds, shape)?;
        }
        let most = usize::try_from(self.setting("fs/mqueue/queues_max")).unwrap_or(0);
        if self.count.load(Ordering::Relaxed) >= most && !creds.has_cap(CapSet::SYS_RESOURCE) {
            return Err(Errno::ENOSPC);
        }
        let shape = shape.unwrap_or_else(|| self.default_shape());
        let bytes = shape.bytes();
        self.charges.add(creds.uid, bytes, limit)?;
        self.count.fetch_add(1, Ordering::Relaxed);
        let ino = self.next_ino.fetch_add(1, Ordering::Relaxed);
        let (count, charges) = (Arc::clone(&self.count), Arc::clone(&self.charges));
        Ok(Arc::new(Queue::new(ino, shape, meta, queue::Cost { uid: creds.uid, bytes, charges, count })))
    }
}

impl FileSystem for MqFs {
    fn name(&self) -> &'static str {
        "mqueue"
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn flags(&self) -> FsFlags {
        // Several mounts show the same names, each with dentries of its own.
        FsFlags::REVALIDATE | FsFlags::NODEV | FsFlags::NOEXEC
    }
    fn root(&self) -> Arc<dyn Inode> {
        match self.me.upgrade() {
            Some(me) => Arc::new(RootNode(me)),
            None => unreachable!("the file system is borrowed, so it lives"),
        }
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { f_type: MAGIC, f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..StatFs::default() })
    }
}
