//! Credentials: ids, capabilities, secure bits (credentials(7), capabilities(7)).

use bitflags::bitflags;
use ksync::live::{Kind, Live};
use std::sync::Arc;

bitflags! {
    /// A set of capabilities; the bit positions are those of capabilities(7).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct CapSet: u64 {
        const CHOWN = 1 << 0;
        const DAC_OVERRIDE = 1 << 1;
        const DAC_READ_SEARCH = 1 << 2;
        const FOWNER = 1 << 3;
        const FSETID = 1 << 4;
        const KILL = 1 << 5;
        const SETGID = 1 << 6;
        const SETUID = 1 << 7;
        const SETPCAP = 1 << 8;
        const LINUX_IMMUTABLE = 1 << 9;
        const NET_BIND_SERVICE = 1 << 10;
        const NET_BROADCAST = 1 << 11;
        const NET_ADMIN = 1 << 12;
        const NET_RAW = 1 << 13;
        const IPC_LOCK = 1 << 14;
        const IPC_OWNER = 1 << 15;
        const SYS_MODULE = 1 << 16;
        const SYS_RAWIO = 1 << 17;
        const SYS_CHROOT = 1 << 18;
        const SYS_PTRACE = 1 << 19;
        const SYS_PACCT = 1 << 20;
        const SYS_ADMIN = 1 << 21;
        const SYS_BOOT = 1 << 22;
        const SYS_NICE = 1 << 23;
        const SYS_RESOURCE = 1 << 24;
        const SYS_TIME = 1 << 25;
        const SYS_TTY_CONFIG = 1 << 26;
        const MKNOD = 1 << 27;
        const LEASE = 1 << 28;
        const AUDIT_WRITE = 1 << 29;
        const AUDIT_CONTROL = 1 << 30;
        const SETFCAP = 1 << 31;
        const MAC_OVERRIDE = 1 << 32;
        const MAC_ADMIN = 1 << 33;
        const SYSLOG = 1 << 34;
        const WAKE_ALARM = 1 << 35;
        const BLOCK_SUSPEND = 1 << 36;
        const AUDIT_READ = 1 << 37;
        const PERFMON = 1 << 38;
        const BPF = 1 << 39;
        const CHECKPOINT_RESTORE = 1 << 40;
    }
}

/// One range of a user namespace's id map: `count` ids from `inside` stand for those from `outside`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

/// A user namespace of the guest. Ids in [`Creds`] and inodes are those of the root namespace.
#[derive(Debug)]
pub struct UserNamespace {
    /// `None`: the sandbox's root user namespace.
    pub parent: Option<Arc<UserNamespace>>,
    pub owner_uid: u32,
    pub owner_gid: u32,
    pub uid_map: ksync::Mutex<Vec<IdRange>>,
    pub gid_map: ksync::Mutex<Vec<IdRange>>,
    pub setgroups_denied: std::sync::atomic::AtomicBool,
    pub id: u64,
    /// For the test that nothing is leaked.
    _live: Live,
}

/// The id that stands for ids without a mapping (`/proc/sys/kernel/overflowuid`).
pub const OVERFLOW_ID: u32 = 65534;

impl UserNamespace {
    /// The first namespace of a sandbox, where every id maps to itself.
    pub fn root() -> Arc<UserNamespace> {
        let all = vec![IdRange { inside: 0, outside: 0, count: u32::MAX }];
        Arc::new(UserNamespace {
            _live: Live::new(Kind::UserNamespace),
            parent: None,
            owner_uid: 0,
            owner_gid: 0,
            uid_map: ksync::Mutex::new(ksync::LockClass::Leaf, all.clone()),
            gid_map: ksync::Mutex::new(ksync::LockClass::Leaf, all),
            setgroups_denied: std::sync::atomic::AtomicBool::new(false),
            id: 0xefff_fffd,
        })
    }

    /// A namespace inside another, without any mapping yet.
    pub fn child(id: u64, parent: &Arc<UserNamespace>, owner_uid: u32, owner_gid: u32) -> Arc<UserNamespace> {
        Arc::new(UserNamespace {
            _live: Live::new(Kind::UserNamespace),
            parent: Some(Arc::clone(parent)),
            owner_uid,
            owner_gid,
            uid_map: ksync::Mutex::new(ksync::LockClass::Leaf, Vec::new()),
            gid_map: ksync::Mutex::new(ksync::LockClass::Leaf, Vec::new()),
            setgroups_denied: std::sync::atomic::AtomicBool::new(false),
            id,
        })
    }

    fn map_in(map: &[IdRange], kid: u32) -> Option<u32> {
        map.iter()
            .find(|r| kid >= r.outside && kid - r.outside < r.count)
            .map(|r| r.inside + (kid - r.outside))
    }

    fn map_out(map: &[IdRange], id: u32) -> Option<u32> {
        map.iter().find(|r| id >= r.inside && id - r.inside < r.count).map(|r| r.outside + (id - r.inside))
    }

    /// How a user of the sandbox looks in this namespace.
    pub fn uid_in(&self, kuid: u32) -> u32 {
        Self::map_in(&self.uid_map.lock(), kuid).unwrap_or(OVERFLOW_ID)
    }
    /// How a group of the sandbox looks in this namespace.
    pub fn gid_in(&self, kgid: u32) -> u32 {
        Self::map_in(&self.gid_map.lock(), kgid).unwrap_or(OVERFLOW_ID)
    }
    /// Whether a user of the sandbox has an id in this namespace.
    pub fn maps_uid(&self, kuid: u32) -> bool {
        Self::map_in(&self.uid_map.lock(), kuid).is_some()
    }
    /// Whether a group of the sandbox has an id in this namespace.
    pub fn maps_gid(&self, kgid: u32) -> bool {
        Self::map_in(&self.gid_map.lock(), kgid).is_some()
    }
    /// The user that an id of this namespace stands for.
    pub fn kuid(&self, uid: u32) -> Option<u32> {
        if uid == u32::MAX { None } else { Self::map_out(&self.uid_map.lock(), uid) }
    }
    /// The group that an id of this namespace stands for.
    pub fn kgid(&self, gid: u32) -> Option<u32> {
        if gid == u32::MAX { None } else { Self::map_out(&self.gid_map.lock(), gid) }
    }
}

/// Credentials of a task: immutable once shared; a change makes a new value.
#[derive(Clone, Debug)]
pub struct Creds {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: Arc<[u32]>,
    pub permitted: CapSet,
    pub effective: CapSet,
    pub inheritable: CapSet,
    pub bounding: CapSet,
    pub ambient: CapSet,
    /// `SECBIT_*`
    pub securebits: u32,
    pub no_new_privs: bool,
    pub user_ns: Arc<UserNamespace>,
}

impl Creds {
    /// Root with all capabilities in a namespace.
    pub fn root(user_ns: Arc<UserNamespace>) -> Creds {
        Creds {
            uid: 0,
            euid: 0,
            suid: 0,
            fsuid: 0,
            gid: 0,
            egid: 0,
            sgid: 0,
            fsgid: 0,
            groups: Arc::new([]),
            permitted: CapSet::all(),
            effective: CapSet::all(),
            inheritable: CapSet::empty(),
            bounding: CapSet::all(),
            ambient: CapSet::empty(),
            securebits: 0,
            no_new_privs: false,
            user_ns,
        }
    }

    /// Whether a capability is effective in the credential's own user namespace.
    pub fn has_cap(&self, cap: CapSet) -> bool {
        self.effective.contains(cap)
    }

    /// Whether a capability is effective towards an object that belongs to `ns`
    /// (user_namespaces(7), "Interaction of user namespaces and other types of namespaces").
    pub fn has_cap_in(&self, ns: &Arc<UserNamespace>, cap: CapSet) -> bool {
        let mut at = Arc::clone(ns);
        loop {
            if Arc::ptr_eq(&at, &self.user_ns) {
                return self.effective.contains(cap);
            }
            let Some(parent) = at.parent.clone() else {
                return false;
            };
            if Arc::ptr_eq(&parent, &self.user_ns) && at.owner_uid == self.euid {
                return true;
            }
            at = parent;
        }
    }

    /// Whether the file-system group or a supplementary group is `gid`.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
}
