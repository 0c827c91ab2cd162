//! The user namespace of a container, and ids of the configuration in it. Inside the sentry an id is always the
//! host's, as the gofer sees it on files; `linux.uidMappings` and `gidMappings` say what the container calls it.

use super::BootError;
use super::spec::{ContainerSpec, IdMapping};
use crate::control::protocol::ErrorKind;
use kernel::Kernel;
use kernel::creds::{Creds, IdRange, UserNamespace};
use std::sync::Arc;

/// The container's user namespace: the sandbox's own without mappings.
pub fn user_namespace(kernel: &Arc<Kernel>, spec: &ContainerSpec) -> Result<Arc<UserNamespace>, BootError> {
    if spec.uid_mappings.is_empty() {
        return Ok(Arc::clone(&kernel.root_user_ns));
    }
    let ns = UserNamespace::child(kernel.next_ns_id(), &kernel.root_user_ns, 0, 0);
    *ns.uid_map.lock() = ranges(&spec.uid_mappings, "linux.uidMappings")?;
    *ns.gid_map.lock() = ranges(&spec.gid_mappings, "linux.gidMappings")?;
    Ok(ns)
}

fn ranges(mappings: &[IdMapping], field: &str) -> Result<Vec<IdRange>, BootError> {
    let overlap = |a: u32, b: u32, n: u32, m: u32| a < b.saturating_add(m) && b < a.saturating_add(n);
    for (index, a) in mappings.iter().enumerate() {
        for b in &mappings[..index] {
            if overlap(a.inside, b.inside, a.count, b.count)
                || overlap(a.outside, b.outside, a.count, b.count)
            {
                let text = format!("{field}[{index}]: overlaps another range");
                return Err(BootError::new(ErrorKind::Invalid, text));
            }
        }
    }
    let convert = |m: &IdMapping| IdRange { inside: m.inside, outside: m.outside, count: m.count };
    Ok(mappings.iter().map(convert).collect())
}

fn unmapped(id: u32, field: &str) -> BootError {
    BootError::new(ErrorKind::Invalid, format!("{field}: {id} is in no range of the container's id mappings"))
}

/// A user of the container as the sentry knows it.
pub fn kuid(ns: &UserNamespace, uid: u32, field: &str) -> Result<u32, BootError> {
    ns.kuid(uid).ok_or_else(|| unmapped(uid, field))
}

/// A group of the container as the sentry knows it.
pub fn kgid(ns: &UserNamespace, gid: u32, field: &str) -> Result<u32, BootError> {
    ns.kgid(gid).ok_or_else(|| unmapped(gid, field))
}

/// The container's root, who sets everything up. A container without an id 0 belongs to the first id it has.
pub fn boss(ns: &Arc<UserNamespace>) -> Result<Creds, BootError> {
    let first = |map: &[IdRange]| map.iter().min_by_key(|r| r.inside).map_or(0, |r| r.inside);
    let uid = first(&ns.uid_map.lock());
    let gid = first(&ns.gid_map.lock());
    let uid = kuid(ns, uid, "linux.uidMappings")?;
    let gid = kgid(ns, gid, "linux.gidMappings")?;
    Ok(Creds {
        uid,
        euid: uid,
        suid: uid,
        fsuid: uid,
        gid,
        egid: gid,
        sgid: gid,
        fsgid: gid,
        ..Creds::root(Arc::clone(ns))
    })
}
