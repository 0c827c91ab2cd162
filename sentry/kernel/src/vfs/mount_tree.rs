//! How mounts hang together: which mount is on which place, in which namespace, and who hears of
//! changes (mount_namespaces(7), "Shared subtrees"). The operations of mount(2) are in `mount_ops.rs`.

use super::mount::SuperBlock;
use super::{Dentry, Mount, MountFlags, Path};
use crate::creds::UserNamespace;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use ksync::live::{Kind, Live};
use ksync::{LockClass, Mutex, MutexGuard, RwLock, WaitQueue};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most mounts in one namespace (`/proc/sys/fs/mount-max` is 100,000 on Linux; this is what a sandbox
/// may need at most, bounded because each costs memory outside the guest's).
pub const MOUNT_MAX: usize = 10_000;

/// All mounts of a sandbox: namespaces that were copied from one another share one tree, because
/// propagation reaches from one to the other.
pub struct MountTree {
    /// One mount operation at a time (`namespace_sem`).
    ops: Mutex<()>,
    topology: RwLock<Topology>,
    next_mount: AtomicU64,
    next_group: AtomicU64,
    next_ns: AtomicU64,
    /// Those who watch the list of mounts.
    watchers: Arc<WaitQueue>,
}

/// While it lives no other operation on mounts runs; then those who watch the list of mounts are told.
pub(super) struct Operation<'a> {
    lock: Option<MutexGuard<'a, ()>>,
    watchers: &'a WaitQueue,
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        drop(self.lock.take());
        self.watchers.wake_all((PollEvents::PRI | PollEvents::ERR).bits());
    }
}

/// Where one mount is.
#[derive(Clone)]
pub(super) struct Node {
    pub mount: Arc<Mount>,
    pub ns: u64,
    /// The mount and the dentry it covers; `None` for the root of a namespace.
    pub parent: Option<(Arc<Mount>, Arc<Dentry>)>,
    pub children: Vec<u64>,
    /// Peer group; 0: not shared.
    pub group: u64,
    /// The peer group it receives from; 0: no slave.
    pub master: u64,
    pub unbindable: bool,
}

#[derive(Default)]
pub(super) struct Topology {
    pub nodes: HashMap<u64, Node>,
    at: HashMap<(u64, usize), Arc<Mount>>,
    /// How often the mounts of each namespace have changed.
    changes: HashMap<u64, u64>,
}

fn key(mount: &Mount, dentry: &Arc<Dentry>) -> (u64, usize) {
    (mount.id, Arc::as_ptr(dentry) as usize)
}

impl Topology {
    pub fn child_at(&self, mount: &Mount, dentry: &Arc<Dentry>) -> Option<&Arc<Mount>> {
        self.at.get(&key(mount, dentry))
    }

    pub fn node(&self, mount: &Mount) -> Option<&Node> {
        self.nodes.get(&mount.id)
    }

    /// Hangs a mount that has a node without a place onto a place. What is there already (only
    /// propagation meets that) goes on top of it.
    pub fn attach(&mut self, mount: &Arc<Mount>, at: &Path, ns: u64) {
        let k = key(&at.mount, &at.dentry);
        if let Some(over) = self.at.remove(&k) {
            at.dentry.sub_mounted();
            let root = Arc::clone(&mount.root);
            root.add_mounted();
            self.at.insert(key(mount, &root), Arc::clone(&over));
            if let Some(n) = self.nodes.get_mut(&over.id) {
                n.parent = Some((Arc::clone(mount), root));
            }
            if let Some(p) = self.nodes.get_mut(&at.mount.id) {
                p.children.retain(|c| *c != over.id);
            }
            if let Some(n) = self.nodes.get_mut(&mount.id) {
                n.children.push(over.id);
            }
        }
        at.dentry.add_mounted();
        self.at.insert(k, Arc::clone(mount));
        if let Some(n) = self.nodes.get_mut(&mount.id) {
            n.parent = Some((Arc::clone(&at.mount), Arc::clone(&at.dentry)));
        }
        if let Some(p) = self.nodes.get_mut(&at.mount.id) {
            p.children.push(mount.id);
        }
        for id in self.subtree(mount.id) {
            if let Some(n) = self.nodes.get_mut(&id) {
                n.ns = ns;
            }
        }
        self.changed(ns);
    }

    fn changed(&mut self, ns: u64) {
        *self.changes.entry(ns).or_insert(0) += 1;
    }

    /// Takes a mount off its place; it keeps its node.
    pub fn detach(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let ns = node.ns;
        if let Some((mount, dentry)) = node.parent.take() {
            self.changed(ns);
            self.at.remove(&key(&mount, &dentry));
            dentry.sub_mounted();
            if let Some(p) = self.nodes.get_mut(&mount.id) {
                p.children.retain(|c| *c != id);
            }
        }
    }

    /// A mount and all below it, parents first.
    pub fn subtree(&self, id: u64) -> Vec<u64> {
        let mut all = vec![id];
        let mut i = 0;
        while i < all.len() {
            if let Some(n) = self.nodes.get(&all[i]) {
                all.extend_from_slice(&n.children);
            }
            i += 1;
        }
        all
    }

    pub fn insert(&mut self, mount: &Arc<Mount>, ns: u64, group: u64, master: u64, unbindable: bool) {
        let node = Node {
            mount: Arc::clone(mount),
            ns,
            parent: None,
            children: Vec::new(),
            group,
            master,
            unbindable,
        };
        self.nodes.insert(mount.id, node);
    }

    /// Leaves a peer group: if it was the last of it, its slaves pass to its own master.
    pub fn leave_group(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let (group, master) = (std::mem::take(&mut node.group), node.master);
        if group != 0 && !self.nodes.values().any(|n| n.group == group) {
            for n in self.nodes.values_mut().filter(|n| n.master == group) {
                n.master = master;
            }
        }
    }

    /// Removes a mount without children for good.
    pub fn remove(&mut self, id: u64) -> Option<Node> {
        self.detach(id);
        self.leave_group(id);
        self.nodes.remove(&id)
    }

    pub fn count(&self, ns: u64) -> usize {
        self.nodes.values().filter(|n| n.ns == ns).count()
    }
}

impl MountTree {
    /// A tree without mounts.
    pub fn new() -> Arc<MountTree> {
        Arc::new(MountTree {
            ops: Mutex::new(LockClass::MountTree, ()),
            topology: RwLock::new(LockClass::Mounts, Topology::default()),
            next_mount: AtomicU64::new(20),
            next_group: AtomicU64::new(1),
            next_ns: AtomicU64::new(0xf000_0000),
            watchers: Arc::new(WaitQueue::new()),
        })
    }

    pub(super) fn lock_ops(&self) -> Operation<'_> {
        Operation { lock: Some(self.ops.lock()), watchers: &self.watchers }
    }
    pub(super) fn topology(&self) -> &RwLock<Topology> {
        &self.topology
    }
    pub(super) fn new_group(&self) -> u64 {
        self.next_group.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn new_mount(
        self: &Arc<Self>,
        sb: Arc<SuperBlock>,
        root: Arc<Dentry>,
        flags: MountFlags,
        source: &[u8],
    ) -> Arc<Mount> {
        let id = self.next_mount.fetch_add(1, Ordering::Relaxed);
        Mount::make(id, sb, root, flags, source, Arc::downgrade(self))
    }

    /// A new namespace whose root is a file system.
    pub fn new_namespace(
        self: &Arc<Self>,
        owner: Arc<UserNamespace>,
        sb: Arc<SuperBlock>,
        flags: MountFlags,
        source: &[u8],
    ) -> Arc<MountNamespace> {
        let root = Arc::clone(&sb.root);
        let mount = self.new_mount(sb, root, flags, source);
        let ns = self.empty_namespace(owner, Arc::clone(&mount));
        self.topology.write().insert(&mount, ns.id, 0, 0, false);
        ns
    }

    pub(super) fn empty_namespace(
        self: &Arc<Self>,
        owner: Arc<UserNamespace>,
        root: Arc<Mount>,
    ) -> Arc<MountNamespace> {
        Arc::new(MountNamespace {
            _live: Live::new(Kind::MountNamespace),
            id: self.next_ns.fetch_add(1, Ordering::Relaxed),
            owner,
            tree: Arc::clone(self),
            root: RwLock::new(LockClass::Mounts, root),
        })
    }
}

impl std::fmt::Debug for MountTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MountTree")
    }
}

/// A mount namespace: the mounts below one root.
pub struct MountNamespace {
    /// Also the inode number of /proc/pid/ns/mnt.
    pub id: u64,
    pub owner: Arc<UserNamespace>,
    pub(super) tree: Arc<MountTree>,
    pub(super) root: RwLock<Arc<Mount>>,
    /// For the test that nothing is leaked.
    _live: Live,
}

impl MountNamespace {
    /// The root mount itself, below anything mounted over it.
    pub fn root_mount(&self) -> Arc<Mount> {
        Arc::clone(&self.root.read())
    }
    /// The tree that this namespace is a part of.
    pub fn tree(&self) -> &Arc<MountTree> {
        &self.tree
    }
    /// The place that `/` of a new process is.
    pub fn root(&self) -> Path {
        let mut path = self.root_mount().root_path();
        follow_mounts(&mut path);
        path
    }
    /// A number that is another one after each change of its mounts.
    pub fn changes(&self) -> u64 {
        self.tree.topology.read().changes.get(&self.id).copied().unwrap_or(0)
    }
    /// Where changes of mounts are told, of this and of other namespaces.
    pub fn watchers(&self) -> Arc<WaitQueue> {
        Arc::clone(&self.tree.watchers)
    }
    /// Whether a mount is in this namespace.
    pub fn contains(&self, mount: &Mount) -> bool {
        self.tree.topology.read().node(mount).is_some_and(|n| n.ns == self.id)
    }
}

impl std::fmt::Debug for MountNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MountNamespace({:#x})", self.id)
    }
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        // Mounts are dropped after the locks: their file systems may have much to clean up.
        let gone: Vec<Node> = {
            let mut topology = self.tree.topology.write();
            let mut ids: Vec<u64> =
                topology.nodes.values().filter(|n| n.ns == self.id).map(|n| n.mount.id).collect();
            ids.sort_unstable_by(|a, b| b.cmp(a));
            let gone = ids.into_iter().filter_map(|id| topology.remove(id)).collect();
            topology.changes.remove(&self.id);
            gone
        };
        drop(gone);
    }
}

/// Goes from a place that is covered to the top of what covers it. Tells whether it moved.
pub(super) fn follow_mounts(path: &mut Path) -> bool {
    let mut moved = false;
    while path.dentry.mounted() {
        let Some(tree) = path.mount.tree() else {
            break;
        };
        let Some(child) = tree.topology.read().child_at(&path.mount, &path.dentry).cloned() else {
            break;
        };
        *path = child.root_path();
        moved = true;
    }
    moved
}

/// From the root of a mount to the place it covers; `None` at the top or outside of any namespace.
pub(super) fn mount_point(mount: &Arc<Mount>) -> Option<Path> {
    let tree = mount.tree()?;
    let topology = tree.topology.read();
    let (mount, dentry) = topology.node(mount)?.parent.clone()?;
    Some(Path { mount, dentry })
}

/// Whether a dentry is a mount point in the namespace of `mount` (`is_local_mountpoint`).
pub(super) fn is_local_mountpoint(mount: &Mount, dentry: &Arc<Dentry>) -> bool {
    if !dentry.mounted() {
        return false;
    }
    let Some(tree) = mount.tree() else {
        return false;
    };
    let topology = tree.topology.read();
    let Some(ns) = topology.node(mount).map(|n| n.ns) else {
        return false;
    };
    topology
        .nodes
        .values()
        .any(|n| n.ns == ns && n.parent.as_ref().is_some_and(|(_, d)| Arc::ptr_eq(d, dentry)))
}

/// A directory was removed in a namespace where it is no mount point: what other namespaces have mounted on
/// it goes away (`detach_mounts`).
pub(super) fn detach_mounts(mount: &Mount, dentry: &Arc<Dentry>) {
    if !dentry.mounted() {
        return;
    }
    let Some(tree) = mount.tree() else {
        return;
    };
    let gone: Vec<Node> = {
        let mut topology = tree.topology.write();
        let tops: Vec<u64> = topology
            .nodes
            .values()
            .filter(|n| n.parent.as_ref().is_some_and(|(_, d)| Arc::ptr_eq(d, dentry)))
            .map(|n| n.mount.id)
            .collect();
        let mut gone = Vec::new();
        for top in tops {
            for id in topology.subtree(top).into_iter().rev() {
                gone.extend(topology.remove(id));
            }
        }
        gone
    };
    drop(gone);
}

/// One line of /proc/pid/mountinfo as data.
pub struct MountInfo {
    pub mount: Arc<Mount>,
    pub parent_id: u64,
    /// The mount's root inside its file system.
    pub root: Vec<u8>,
    /// Where it is as seen from `root`.
    pub mount_point: Vec<u8>,
    pub group: u64,
    pub master: u64,
    pub unbindable: bool,
}

impl MountNamespace {
    /// The mounts below `root` in the order in which they were made, as /proc/pid/mountinfo shows them.
    pub fn mount_info(&self, root: &Path) -> Vec<MountInfo> {
        let nodes: Vec<Node> = {
            let topology = self.tree.topology.read();
            let mut nodes: Vec<Node> = topology.nodes.values().filter(|n| n.ns == self.id).cloned().collect();
            nodes.sort_unstable_by_key(|n| n.mount.id);
            nodes
        };
        let mut lines = Vec::new();
        for n in nodes {
            let Some(mount_point) = super::dpath::path_below(&n.mount.root_path(), root) else {
                continue;
            };
            lines.push(MountInfo {
                root: super::dpath::dentry_path(&n.mount.root),
                mount_point,
                parent_id: n.parent.as_ref().map_or(n.mount.id, |(m, _)| m.id),
                group: n.group,
                master: n.master,
                unbindable: n.unbindable,
                mount: n.mount,
            });
        }
        lines
    }

    pub(super) fn check_room(&self, more: usize) -> Result<()> {
        if self.tree.topology.read().count(self.id) + more > MOUNT_MAX { Err(Errno::ENOSPC) } else { Ok(()) }
    }
}
