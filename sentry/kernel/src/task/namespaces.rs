//! Namespaces beside those of PIDs, users and mounts (namespaces(7)).

use super::PidNamespace;
use crate::creds::UserNamespace;
use crate::extensions::Extensions;
use crate::vfs::MountNamespace;
use ksync::{LockClass, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// What uname(2) says beside the names of a namespace.
pub mod uts {
    /// `release`: a Linux whose interface is the measure for ours.
    pub const RELEASE: &str = "6.12.0-runsc";
    /// `version`
    pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC runsc";
}

/// Host and domain name (uts_namespaces(7)).
pub struct UtsNamespace {
    pub id: u64,
    pub user_ns: Arc<UserNamespace>,
    names: Mutex<(Vec<u8>, Vec<u8>)>,
}

impl UtsNamespace {
    pub fn new(id: u64, user_ns: Arc<UserNamespace>, host: &[u8], domain: &[u8]) -> Arc<UtsNamespace> {
        let names = Mutex::new(LockClass::Leaf, (host.to_vec(), domain.to_vec()));
        Arc::new(UtsNamespace { id, user_ns, names })
    }
    pub fn hostname(&self) -> Vec<u8> {
        self.names.lock().0.clone()
    }
    pub fn domainname(&self) -> Vec<u8> {
        self.names.lock().1.clone()
    }
    pub fn set_hostname(&self, name: Vec<u8>) {
        self.names.lock().0 = name;
    }
    pub fn set_domainname(&self, name: Vec<u8>) {
        self.names.lock().1 = name;
    }
}

/// System V objects and POSIX message queues (ipc_namespaces(7)); each kind keeps its own state here.
pub struct IpcNamespace {
    pub id: u64,
    pub user_ns: Arc<UserNamespace>,
    pub objects: Extensions,
}

impl IpcNamespace {
    /// The first of a sandbox, with the id that Linux' initial one has.
    pub fn first(user_ns: Arc<UserNamespace>) -> Arc<IpcNamespace> {
        Arc::new(IpcNamespace { id: 0xefff_ffff, user_ns, objects: Extensions::default() })
    }
}

/// Offsets of clocks (time_namespaces(7)), nanoseconds.
#[derive(Debug)]
pub struct TimeNamespace {
    pub id: u64,
    pub user_ns: Arc<UserNamespace>,
    monotonic: AtomicI64,
    boottime: AtomicI64,
    /// A task has entered it: the offsets stay as they are.
    entered: AtomicBool,
}

impl TimeNamespace {
    /// One that nobody has entered yet.
    pub fn new(id: u64, user_ns: Arc<UserNamespace>, monotonic: i64, boottime: i64) -> Arc<TimeNamespace> {
        let (monotonic, boottime) = (AtomicI64::new(monotonic), AtomicI64::new(boottime));
        Arc::new(TimeNamespace { id, user_ns, monotonic, boottime, entered: AtomicBool::new(false) })
    }
    /// What is added to `CLOCK_MONOTONIC`.
    pub fn monotonic(&self) -> i64 {
        self.monotonic.load(Ordering::Relaxed)
    }
    /// What is added to `CLOCK_BOOTTIME`.
    pub fn boottime(&self) -> i64 {
        self.boottime.load(Ordering::Relaxed)
    }
    /// Whether its clocks are others than the sandbox'.
    pub fn is_shifted(&self) -> bool {
        self.monotonic() != 0 || self.boottime() != 0
    }
    /// A task enters.
    pub fn enter(&self) {
        self.entered.store(true, Ordering::Relaxed);
    }
    /// Sets the offsets that are given: EACCES when a task has entered.
    pub fn set(&self, monotonic: Option<i64>, boottime: Option<i64>) -> abi::Result<()> {
        if self.entered.load(Ordering::Relaxed) {
            return Err(abi::Errno::EACCES);
        }
        for (slot, new) in [(&self.monotonic, monotonic), (&self.boottime, boottime)] {
            if let Some(new) = new {
                slot.store(new, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// A namespace whose content lives elsewhere (network, cgroup): an identity and room for state.
pub struct OtherNamespace {
    pub id: u64,
    pub user_ns: Arc<UserNamespace>,
    pub objects: Extensions,
}

/// The namespaces of a task, beside those of its credentials and its own PID (`struct nsproxy`).
#[derive(Clone)]
pub struct Namespaces {
    pub uts: Arc<UtsNamespace>,
    pub ipc: Arc<IpcNamespace>,
    pub mnt: Arc<MountNamespace>,
    pub net: Arc<OtherNamespace>,
    pub cgroup: Arc<OtherNamespace>,
    pub time: Arc<TimeNamespace>,
    pub time_for_children: Arc<TimeNamespace>,
    pub pid_for_children: Arc<PidNamespace>,
}

/// The kinds, with the value of their `CLONE_NEW*` flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NsKind {
    Time = 0x80,
    Mnt = 0x20000,
    Cgroup = 0x0200_0000,
    Uts = 0x0400_0000,
    Ipc = 0x0800_0000,
    User = 0x1000_0000,
    Pid = 0x2000_0000,
    Net = 0x4000_0000,
}

impl Namespaces {
    /// The first namespaces of a sandbox, with the ids that Linux' initial ones have; they belong to `user`.
    pub fn root(
        kernel: &crate::Kernel,
        user: &Arc<UserNamespace>,
        mnt: Arc<MountNamespace>,
        hostname: &[u8],
    ) -> Namespaces {
        let user = Arc::clone(user);
        let other =
            |id| Arc::new(OtherNamespace { id, user_ns: Arc::clone(&user), objects: Extensions::default() });
        let time = TimeNamespace::new(0xefff_fffa, Arc::clone(&user), 0, 0);
        time.enter();
        Namespaces {
            uts: UtsNamespace::new(0xefff_fffe, Arc::clone(&user), hostname, b"(none)"),
            ipc: IpcNamespace::first(Arc::clone(&user)),
            mnt,
            net: other(0xf000_0098),
            cgroup: other(0xefff_fffb),
            time_for_children: Arc::clone(&time),
            time,
            pid_for_children: Arc::clone(&kernel.root_pid_ns),
        }
    }
}

impl crate::Kernel {
    /// A number for a new namespace, unlike all others.
    pub fn next_ns_id(&self) -> u64 {
        0xf000_0100 + self.tasks.next_key()
    }
    /// A new namespace of a kind that has no content of its own.
    pub fn new_other_ns(&self, user_ns: &Arc<UserNamespace>) -> Arc<OtherNamespace> {
        let (id, user_ns) = (self.next_ns_id(), Arc::clone(user_ns));
        Arc::new(OtherNamespace { id, user_ns, objects: Extensions::default() })
    }
    /// A new IPC namespace.
    pub fn new_ipc_ns(&self, user_ns: &Arc<UserNamespace>) -> Arc<IpcNamespace> {
        let (id, user_ns) = (self.next_ns_id(), Arc::clone(user_ns));
        Arc::new(IpcNamespace { id, user_ns, objects: Extensions::default() })
    }
}
