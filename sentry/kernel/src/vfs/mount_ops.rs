//! The operations of mount(2), umount2(2), move_mount(2), pivot_root(2) and of copying a mount namespace. The
//! callers have checked capabilities.

use super::mount::SuperBlock;
use super::mount_tree::{MountTree, Node, Topology, detach_mounts, follow_mounts, mount_point};
use super::{Dentry, Mount, MountFlags, MountNamespace, Path};
use crate::creds::UserNamespace;
use abi::stat::FileType;
use abi::{Errno, Result};
use bitflags::bitflags;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

bitflags! {
    /// Flags of umount2(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct UmountFlags: u32 {
        const FORCE = 1;
        const DETACH = 2;
        const EXPIRE = 4;
        const NOFOLLOW = 8;
    }
}

/// How a mount takes part in propagation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Private,
    Shared,
    Slave,
    Unbindable,
}

fn is_dir(d: &Arc<Dentry>) -> bool {
    d.inode().is_some_and(|i| i.file_type() == FileType::Directory)
}

fn same_kind(a: &Arc<Dentry>, b: &Arc<Dentry>) -> Result<()> {
    if is_dir(a) == is_dir(b) { Ok(()) } else { Err(Errno::ENOTDIR) }
}

/// The group roles of a copied mount.
#[derive(Clone, Copy)]
enum Role {
    /// As mount(2) with MS_BIND: in the same group, same master.
    Same,
    /// A copy for a slave: receives from the original's group.
    Slave,
}

/// Copies a mount and, with `rec`, those below it. The copies are in the topology without a place.
fn copy_tree(
    tree: &Arc<MountTree>,
    topology: &mut Topology,
    top: &Arc<Mount>,
    root: &Arc<Dentry>,
    rec: bool,
    role: Role,
    keep_unbindable: bool,
) -> Result<Arc<Mount>> {
    let mut made: HashMap<u64, Arc<Mount>> = HashMap::new();
    let mut result = None;
    let ids = if rec { topology.subtree(top.id) } else { vec![top.id] };
    for id in ids {
        let Some(node) = topology.nodes.get(&id).cloned() else {
            continue;
        };
        let place = match (&node.parent, id == top.id) {
            (_, true) => None,
            (Some((parent, dentry)), false) => {
                if node.unbindable && !keep_unbindable {
                    continue;
                }
                let Some(new_parent) = made.get(&parent.id) else {
                    continue;
                };
                if parent.id == top.id && !dentry.is_below(root) {
                    continue;
                }
                Some(Path { mount: Arc::clone(new_parent), dentry: Arc::clone(dentry) })
            }
            (None, false) => continue,
        };
        let old = &node.mount;
        let new_root = if id == top.id { root } else { &old.root };
        let new = tree.new_mount(Arc::clone(&old.sb), Arc::clone(new_root), old.flags(), &old.source);
        new.locked.store(old.locked.load(Ordering::Relaxed), Ordering::Relaxed);
        let (group, master) = match role {
            Role::Same => (node.group, node.master),
            Role::Slave if node.group != 0 => (0, node.group),
            Role::Slave => (0, node.master),
        };
        topology.insert(&new, 0, group, master, node.unbindable);
        if let Some(place) = place {
            topology.attach(&new, &place, 0);
        } else {
            result = Some(Arc::clone(&new));
        }
        made.insert(id, new);
    }
    result.ok_or(Errno::EINVAL)
}

/// Attaches a tree of mounts that is in the topology without a place, and propagates that.
fn attach_tree(tree: &Arc<MountTree>, topology: &mut Topology, source: &Arc<Mount>, at: &Path) -> Result<()> {
    let Some(parent) = topology.node(&at.mount).cloned() else {
        return Err(Errno::EINVAL);
    };
    if parent.group != 0 {
        for id in topology.subtree(source.id) {
            if let Some(n) = topology.nodes.get_mut(&id)
                && n.group == 0
            {
                n.group = tree.new_group();
                n.unbindable = false;
            }
        }
        propagate(tree, topology, source, parent.group, Some(at.mount.id), &at.dentry, 0)?;
    }
    topology.attach(source, at, parent.ns);
    Ok(())
}

/// Gives copies of `source` to all mounts of a peer group except `skip`, and to its slaves.
fn propagate(
    tree: &Arc<MountTree>,
    topology: &mut Topology,
    source: &Arc<Mount>,
    group: u64,
    skip: Option<u64>,
    dentry: &Arc<Dentry>,
    depth: u32,
) -> Result<()> {
    if depth > 64 {
        return Err(Errno::ENOSPC);
    }
    let sorted = |mut v: Vec<Node>| {
        v.sort_unstable_by_key(|n| n.mount.id);
        v
    };
    let peers: Vec<Node> = sorted(
        topology.nodes.values().filter(|n| n.group == group && Some(n.mount.id) != skip).cloned().collect(),
    );
    for peer in peers {
        if peer.ns != 0 && dentry.is_below(&peer.mount.root) {
            let copy = copy_tree(tree, topology, source, &source.root, true, Role::Same, true)?;
            let at = Path { mount: Arc::clone(&peer.mount), dentry: Arc::clone(dentry) };
            topology.attach(&copy, &at, peer.ns);
        }
    }
    let slaves: Vec<Node> = sorted(topology.nodes.values().filter(|n| n.master == group).cloned().collect());
    let mut groups_done = Vec::new();
    for slave in slaves {
        if slave.ns == 0 || groups_done.contains(&slave.group) || !dentry.is_below(&slave.mount.root) {
            continue;
        }
        let copy = copy_tree(tree, topology, source, &source.root, true, Role::Slave, true)?;
        if slave.group != 0 {
            groups_done.push(slave.group);
            for id in topology.subtree(copy.id) {
                if let Some(n) = topology.nodes.get_mut(&id) {
                    n.group = tree.new_group();
                }
            }
            propagate(tree, topology, &copy, slave.group, Some(slave.mount.id), dentry, depth + 1)?;
        }
        let at = Path { mount: Arc::clone(&slave.mount), dentry: Arc::clone(dentry) };
        topology.attach(&copy, &at, slave.ns);
        if slave.group != 0 {
            // Slaves of the shared slave's group were served by the recursion above.
            continue;
        }
    }
    Ok(())
}

/// Every mount that a mount on `dentry` of a mount in `group` was propagated to.
fn propagated(topology: &Topology, group: u64, dentry: &Arc<Dentry>) -> Vec<u64> {
    let mut groups = vec![group];
    let mut found = Vec::new();
    let mut i = 0;
    while i < groups.len() {
        let g = groups[i];
        i += 1;
        for n in topology.nodes.values() {
            if n.group == g || n.master == g {
                if let Some(child) = topology.child_at(&n.mount, dentry) {
                    found.push(child.id);
                }
                if n.group != 0 && !groups.contains(&n.group) {
                    groups.push(n.group);
                }
            }
        }
    }
    found
}

impl MountNamespace {
    fn check_place(&self, at: &Path) -> Result<()> {
        if !self.contains(&at.mount) {
            return Err(Errno::EINVAL);
        }
        if at.dentry.is_dead() || at.dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        Ok(())
    }

    /// Mounts a file system (`do_new_mount`).
    pub fn mount(
        &self,
        sb: Arc<SuperBlock>,
        at: &Path,
        flags: MountFlags,
        source: &[u8],
    ) -> Result<Arc<Mount>> {
        let _ops = self.tree.lock_ops();
        let mut at = at.clone();
        follow_mounts(&mut at);
        self.check_place(&at)?;
        if at.is_mount_root() && Arc::ptr_eq(&at.mount.sb, &sb) && Arc::ptr_eq(&at.mount.root, &sb.root) {
            return Err(Errno::EBUSY);
        }
        same_kind(&sb.root, &at.dentry)?;
        self.check_room(1)?;
        let root = Arc::clone(&sb.root);
        let mount = self.tree.new_mount(sb, root, flags, source);
        let mut topology = self.tree.topology().write();
        topology.insert(&mount, 0, 0, 0, false);
        attach_tree(&self.tree, &mut topology, &mount, &at)?;
        Ok(mount)
    }

    /// Shows a place at another one, too (`do_loopback`).
    pub fn bind(&self, from: &Path, at: &Path, rec: bool) -> Result<()> {
        let _ops = self.tree.lock_ops();
        let mut at = at.clone();
        follow_mounts(&mut at);
        if !self.contains(&from.mount) {
            return Err(Errno::EINVAL);
        }
        self.check_place(&at)?;
        same_kind(&from.dentry, &at.dentry)?;
        let copy = {
            let mut topology = self.tree.topology().write();
            let node = topology.node(&from.mount).ok_or(Errno::EINVAL)?;
            if node.unbindable {
                return Err(Errno::EINVAL);
            }
            if topology.count(self.id) + topology.subtree(from.mount.id).len() > super::mount_tree::MOUNT_MAX
            {
                return Err(Errno::ENOSPC);
            }
            copy_tree(&self.tree, &mut topology, &from.mount, &from.dentry, rec, Role::Same, false)?
        };
        let mut topology = self.tree.topology().write();
        attach_tree(&self.tree, &mut topology, &copy, &at)
    }

    /// A copy of a place that is in no namespace yet (`open_tree` with `OPEN_TREE_CLONE`).
    pub fn clone_detached(&self, from: &Path, rec: bool) -> Result<Arc<Mount>> {
        let _ops = self.tree.lock_ops();
        if !self.contains(&from.mount) {
            return Err(Errno::EINVAL);
        }
        let mut topology = self.tree.topology().write();
        if topology.node(&from.mount).ok_or(Errno::EINVAL)?.unbindable {
            return Err(Errno::EINVAL);
        }
        copy_tree(&self.tree, &mut topology, &from.mount, &from.dentry, rec, Role::Same, false)
    }

    /// A new mount that is in no namespace yet (fsmount(2)).
    pub fn new_detached(&self, sb: Arc<SuperBlock>, flags: MountFlags, source: &[u8]) -> Arc<Mount> {
        let _ops = self.tree.lock_ops();
        let root = Arc::clone(&sb.root);
        let mount = self.tree.new_mount(sb, root, flags, source);
        self.tree.topology().write().insert(&mount, 0, 0, 0, false);
        mount
    }

    /// Lets go of a detached tree that was never attached.
    pub fn drop_detached(&self, mount: &Arc<Mount>) {
        let _ops = self.tree.lock_ops();
        let gone: Vec<Node> = {
            let mut topology = self.tree.topology().write();
            if topology.node(mount).is_none_or(|n| n.ns != 0) {
                return;
            }
            topology.subtree(mount.id).into_iter().rev().filter_map(|id| topology.remove(id)).collect()
        };
        drop(gone);
    }

    /// Moves a mount with all below it to another place (`do_move_mount`).
    pub fn move_mount(&self, from: &Path, to: &Path) -> Result<()> {
        let _ops = self.tree.lock_ops();
        let mut to = to.clone();
        follow_mounts(&mut to);
        self.check_place(&to)?;
        if !from.is_mount_root() {
            return Err(Errno::EINVAL);
        }
        same_kind(&from.dentry, &to.dentry)?;
        let mut topology = self.tree.topology().write();
        let node = topology.node(&from.mount).ok_or(Errno::EINVAL)?.clone();
        let detached = node.ns == 0 && node.parent.is_none();
        if !detached {
            if node.ns != self.id {
                return Err(Errno::EINVAL);
            }
            let Some((parent, _)) = &node.parent else {
                return Err(Errno::EINVAL);
            };
            if topology.node(parent).is_some_and(|p| p.group != 0) {
                return Err(Errno::EINVAL);
            }
        }
        let below = topology.subtree(from.mount.id);
        if topology.node(&to.mount).is_some_and(|p| p.group != 0)
            && below.iter().any(|id| topology.nodes.get(id).is_some_and(|n| n.unbindable))
        {
            return Err(Errno::EINVAL);
        }
        if below.contains(&to.mount.id) {
            return Err(Errno::ELOOP);
        }
        topology.detach(from.mount.id);
        attach_tree(&self.tree, &mut topology, &from.mount, &to)
    }

    /// Takes a mount away (`do_umount`). `path` must be the caller's only reference to the mount.
    pub fn umount(&self, path: &Path, flags: UmountFlags) -> Result<()> {
        let _ops = self.tree.lock_ops();
        if !path.is_mount_root() {
            return Err(Errno::EINVAL);
        }
        let mount = &path.mount;
        let gone: Vec<Node> = {
            let mut topology = self.tree.topology().write();
            let node = topology.node(mount).ok_or(Errno::EINVAL)?;
            if node.ns != self.id || mount.locked.load(Ordering::Relaxed) != 0 {
                return Err(Errno::EINVAL);
            }
            let is_root = node.parent.is_none();
            let (has_children, parent) = (!node.children.is_empty(), node.parent.clone());
            // The node, the table of places and the caller hold one reference each.
            let busy = has_children || Arc::strong_count(mount) > 3;
            if flags.contains(UmountFlags::EXPIRE) {
                if busy || is_root {
                    return Err(Errno::EBUSY);
                }
                if !mount.expiry_mark.swap(true, Ordering::Relaxed) {
                    return Err(Errno::EAGAIN);
                }
            }
            if is_root {
                return Err(if flags.contains(UmountFlags::DETACH) { Errno::EINVAL } else { Errno::EBUSY });
            }
            let mut tops = vec![mount.id];
            if flags.contains(UmountFlags::DETACH) {
                tops.splice(0..0, topology.subtree(mount.id).into_iter().skip(1).rev());
            } else if busy {
                return Err(Errno::EBUSY);
            }
            if let Some((parent, dentry)) = parent
                && let Some(group) = topology.node(&parent).map(|p| p.group)
                && group != 0
            {
                for other in propagated(&topology, group, &dentry) {
                    let lone = topology.nodes.get(&other).is_some_and(|n| n.children.is_empty());
                    if !tops.contains(&other) && (lone || flags.contains(UmountFlags::DETACH)) {
                        tops.extend(topology.subtree(other).into_iter().rev());
                    }
                }
            }
            tops.into_iter().filter_map(|id| topology.remove(id)).collect()
        };
        if Arc::strong_count(&mount.sb) <= 2 + gone.len() {
            let _ = mount.fs.sync();
        }
        if let Some(inode) = mount.root.inode() {
            super::notify::notify_unmount(inode);
        }
        drop(gone);
        Ok(())
    }

    /// `MS_PRIVATE` and kin.
    pub fn set_propagation(&self, path: &Path, how: Propagation, rec: bool) -> Result<()> {
        let _ops = self.tree.lock_ops();
        if !path.is_mount_root() || !self.contains(&path.mount) {
            return Err(Errno::EINVAL);
        }
        let mut topology = self.tree.topology().write();
        let ids = if rec { topology.subtree(path.mount.id) } else { vec![path.mount.id] };
        for id in ids {
            let Some(node) = topology.nodes.get(&id) else {
                continue;
            };
            let (group, master) = (node.group, node.master);
            match how {
                Propagation::Shared => {
                    let fresh = if group == 0 { self.tree.new_group() } else { group };
                    if let Some(n) = topology.nodes.get_mut(&id) {
                        n.group = fresh;
                        n.unbindable = false;
                    }
                }
                Propagation::Private | Propagation::Unbindable => {
                    topology.leave_group(id);
                    if let Some(n) = topology.nodes.get_mut(&id) {
                        n.master = 0;
                        n.unbindable = how == Propagation::Unbindable;
                    }
                }
                Propagation::Slave => {
                    if group != 0 {
                        let others = topology.nodes.values().any(|n| n.group == group && n.mount.id != id);
                        topology.leave_group(id);
                        if let Some(n) = topology.nodes.get_mut(&id) {
                            n.master = if others { group } else { master };
                        }
                    }
                    if let Some(n) = topology.nodes.get_mut(&id) {
                        n.unbindable = false;
                    }
                }
            }
        }
        Ok(())
    }

    /// `MS_REMOUNT | MS_BIND`: the flags of one mount. EPERM when it would undo a lock.
    pub fn set_mount_flags(&self, path: &Path, flags: MountFlags) -> Result<()> {
        let _ops = self.tree.lock_ops();
        if !path.is_mount_root() || !self.contains(&path.mount) {
            return Err(Errno::EINVAL);
        }
        path.mount.set_flags(flags);
        Ok(())
    }

    /// mount_setattr(2): the flags to set and to clear, of one mount or of all from it on.
    pub fn change_mount_flags(
        &self,
        path: &Path,
        set: MountFlags,
        clear: MountFlags,
        rec: bool,
    ) -> Result<()> {
        let _ops = self.tree.lock_ops();
        if !path.is_mount_root() {
            return Err(Errno::EINVAL);
        }
        let topology = self.tree.topology().read();
        let ids = if rec { topology.subtree(path.mount.id) } else { vec![path.mount.id] };
        for id in ids {
            if let Some(n) = topology.nodes.get(&id) {
                n.mount.set_flags((n.mount.flags() - clear) | set);
            }
        }
        Ok(())
    }

    /// `MS_REMOUNT`: options of the file system and flags of the mount.
    pub fn remount(&self, path: &Path, readonly: bool, flags: MountFlags, data: &[u8]) -> Result<()> {
        let _ops = self.tree.lock_ops();
        if !path.is_mount_root() || !self.contains(&path.mount) {
            return Err(Errno::EINVAL);
        }
        path.mount.fs.reconfigure(data)?;
        path.mount.sb.set_readonly(readonly);
        path.mount.set_flags(flags);
        Ok(())
    }

    /// pivot_root(2). `root` is the caller's root; the caller then moves the roots and current
    /// directories of all tasks that stood at the old one.
    pub fn pivot_root(&self, root: &Path, new_root: &Path, put_old: &Path) -> Result<()> {
        let _ops = self.tree.lock_ops();
        let mut topology = self.tree.topology().write();
        let node = |t: &Topology, p: &Path| t.node(&p.mount).cloned().ok_or(Errno::EINVAL);
        let (root_node, new_node, old_node) =
            (node(&topology, root)?, node(&topology, new_root)?, node(&topology, put_old)?);
        if new_root.dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        if root_node.ns != self.id || new_node.ns != self.id || old_node.ns != self.id {
            return Err(Errno::EINVAL);
        }
        let shared = |t: &Topology, m: &Arc<Mount>| t.node(m).is_some_and(|n| n.group != 0);
        let new_parent = new_node.parent.clone();
        if shared(&topology, &put_old.mount)
            || new_parent.as_ref().is_some_and(|(m, _)| shared(&topology, m))
            || root_node.parent.as_ref().is_some_and(|(m, _)| shared(&topology, m))
        {
            return Err(Errno::EINVAL);
        }
        if Arc::ptr_eq(&new_root.mount, &root.mount) || Arc::ptr_eq(&put_old.mount, &root.mount) {
            return Err(Errno::EBUSY);
        }
        if !root.is_mount_root() || !new_root.is_mount_root() || new_parent.is_none() {
            return Err(Errno::EINVAL);
        }
        let reaches = |t: &Topology, from: &Path, to: &Path| {
            let mut at = from.clone();
            loop {
                if Arc::ptr_eq(&at.mount, &to.mount) {
                    return at.dentry.is_below(&to.dentry);
                }
                match t.node(&at.mount).and_then(|n| n.parent.clone()) {
                    Some((mount, dentry)) => at = Path { mount, dentry },
                    None => return false,
                }
            }
        };
        if !reaches(&topology, put_old, new_root) || !reaches(&topology, new_root, root) {
            return Err(Errno::EINVAL);
        }
        let root_place = root_node.parent.clone();
        topology.detach(new_root.mount.id);
        topology.detach(root.mount.id);
        topology.attach(&root.mount, put_old, self.id);
        match root_place {
            Some((mount, dentry)) => topology.attach(&new_root.mount, &Path { mount, dentry }, self.id),
            None => {
                drop(topology);
                *self.root.write() = Arc::clone(&new_root.mount);
            }
        }
        Ok(())
    }

    /// A copy of the namespace (`CLONE_NEWNS`), and where the given places are in the copy. With another
    /// owner the copies become slaves and locked, so that they can be neither seen through nor changed.
    pub fn copy(&self, owner: Arc<UserNamespace>, places: &mut [&mut Path]) -> Result<Arc<MountNamespace>> {
        let _ops = self.tree.lock_ops();
        let stranger = !Arc::ptr_eq(&owner, &self.owner);
        let old_root = self.root_mount();
        let mut topology = self.tree.topology().write();
        let order = topology.subtree(old_root.id);
        let role = if stranger { Role::Slave } else { Role::Same };
        let new_root = copy_tree(&self.tree, &mut topology, &old_root, &old_root.root, true, role, true)?;
        let new_order = topology.subtree(new_root.id);
        let ns = self.tree.empty_namespace(owner, Arc::clone(&new_root));
        let mut new_of: HashMap<u64, Arc<Mount>> = HashMap::new();
        for (old, new) in order.iter().zip(&new_order) {
            if let Some(n) = topology.nodes.get_mut(new) {
                n.ns = ns.id;
                if stranger {
                    n.mount.locked.store(1, Ordering::Relaxed);
                }
                new_of.insert(*old, Arc::clone(&n.mount));
            }
        }
        for place in places {
            if let Some(m) = new_of.get(&place.mount.id) {
                place.mount = Arc::clone(m);
            }
        }
        Ok(ns)
    }
}

/// A directory is going away in the namespace of `mount`; other namespaces' mounts on it go, too.
pub(super) fn directory_removed(mount: &Mount, dentry: &Arc<Dentry>) {
    detach_mounts(mount, dentry);
}

/// The place of a mount's root in its parent, for callers outside.
pub fn mounted_on(mount: &Arc<Mount>) -> Option<Path> {
    mount_point(mount)
}
