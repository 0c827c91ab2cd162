//! The rest of the `linux` section: namespaces, id maps, devices, paths, limits.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;
use sentry::boot::spec::{ByteString, DeviceKind, DeviceSpec, IdMapping, Limits};

/// Namespaces of the host that the sentry's process is put in instead of new ones.
#[derive(Debug, Default)]
pub struct JoinedNamespaces {
    pub network: Option<PathBuf>,
    /// There is no new network namespace and no path: the one of the command itself.
    pub own_network: bool,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    pub pid: Option<PathBuf>,
}

/// Refuses what is not supported and returns the namespaces to join.
pub fn check(linux: &oci::Linux) -> Result<JoinedNamespaces> {
    if linux.intel_rdt().is_some() {
        bail!("linux.intelRdt: not supported");
    }
    if linux.memory_policy().is_some() {
        bail!("linux.memoryPolicy: not supported");
    }
    if linux.net_devices().as_ref().is_some_and(|d| !d.is_empty()) {
        bail!("linux.netDevices: not supported");
    }
    if linux.personality().is_some() {
        bail!("linux.personality: not supported");
    }
    if linux.mount_label().as_deref().is_some_and(|l| !l.is_empty()) {
        bail!("linux.mountLabel: not supported");
    }
    if let Some(field) = linux.resources().as_ref().and_then(crate::cgroup::refused) {
        bail!("linux.resources.{field}: not supported");
    }
    if linux.time_offsets().as_ref().is_some_and(|o| !o.is_empty()) {
        bail!("linux.timeOffsets: not supported");
    }
    if let Some(propagation) = linux.rootfs_propagation() {
        match propagation.as_str() {
            // Nothing that is mounted in the sandbox can ever reach the host.
            "" | "private" | "rprivate" | "slave" | "rslave" | "unbindable" | "runbindable" => {}
            "shared" | "rshared" => bail!("linux.rootfsPropagation: {propagation:?} is not supported"),
            _ => bail!("linux.rootfsPropagation: unknown value {propagation:?}"),
        }
    }
    let mut joined = JoinedNamespaces::default();
    let mut seen = Vec::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        use oci::LinuxNamespaceType as N;
        let field = format!("linux.namespaces[{index}]");
        let kind = namespace.typ();
        if seen.contains(&kind) {
            bail!("{field}: a second {kind} namespace");
        }
        seen.push(kind);
        let Some(path) = namespace.path().clone().filter(|p| !p.as_os_str().is_empty()) else {
            if kind == N::Time {
                bail!("{field}: time namespaces are not supported");
            }
            continue;
        };
        if !path.exists() {
            bail!("{field}.path: {}: no such file or directory", path.display());
        }
        match kind {
            N::Network => joined.network = Some(path),
            N::Ipc => joined.ipc = Some(path),
            N::Uts => joined.uts = Some(path),
            // The sentry's own cgroup namespace changes nothing that a guest can see.
            N::Cgroup => {}
            // Whether it can be joined turns out when the other container has been looked for.
            N::Pid => joined.pid = Some(path),
            N::Mount | N::User | N::Time => {
                bail!("{field}.path: joining another container's {kind} namespace is not supported")
            }
        }
    }
    joined.own_network = !seen.contains(&oci::LinuxNamespaceType::Network);
    Ok(joined)
}

/// User and group id maps.
pub fn id_mappings(linux: &oci::Linux) -> Result<(Vec<IdMapping>, Vec<IdMapping>)> {
    let convert = |mappings: &Option<Vec<oci::LinuxIdMapping>>, field: &str| {
        mappings
            .iter()
            .flatten()
            .enumerate()
            .map(|(index, mapping)| {
                let (inside, outside, count) = (mapping.container_id(), mapping.host_id(), mapping.size());
                let fits = |start: u32| start.checked_add(count).is_some();
                if count == 0 || !fits(inside) || !fits(outside) {
                    bail!("linux.{field}[{index}]: {inside} {outside} {count} is no id range");
                }
                Ok(IdMapping { inside, outside, count })
            })
            .collect::<Result<Vec<_>>>()
    };
    let uids = convert(linux.uid_mappings(), "uidMappings")?;
    let gids = convert(linux.gid_mappings(), "gidMappings")?;
    if uids.is_empty() != gids.is_empty() {
        bail!("linux.uidMappings and linux.gidMappings: only one of them is there");
    }
    let namespace = linux.namespaces().iter().flatten().any(|n| n.typ() == oci::LinuxNamespaceType::User);
    if namespace && uids.is_empty() {
        bail!("linux.uidMappings: missing, though linux.namespaces has a user namespace");
    }
    if !namespace && !uids.is_empty() {
        bail!("linux.uidMappings: there is no user namespace in linux.namespaces");
    }
    Ok((uids, gids))
}

/// Devices that the sentry has itself, by number: what they do does not depend on the host's.
const OWN_DEVICES: [(u32, u32); 7] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];

/// Whether the sentry has a character device of that number.
pub fn own_device(major: u32, minor: u32) -> bool {
    OWN_DEVICES.contains(&(major, minor))
}

pub fn devices(linux: &oci::Linux) -> Result<Vec<DeviceSpec>> {
    let mut devices = Vec::new();
    let mut left_out = Vec::new();
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let field = format!("linux.devices[{index}]");
        let path = device.path();
        if !path.is_absolute() {
            bail!("{field}.path: {} is not absolute", path.display());
        }
        let kind = match device.typ() {
            oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => DeviceKind::Character,
            oci::LinuxDeviceType::B => DeviceKind::Block,
            oci::LinuxDeviceType::P => DeviceKind::Fifo,
            oci::LinuxDeviceType::A => bail!("{field}.type: \"a\" is no kind of device node"),
        };
        let number = |value: i64, name: &str| {
            u32::try_from(value).with_context(|| format!("{field}.{name}: {value} is no device number"))
        };
        let (major, minor) = match kind {
            DeviceKind::Fifo => (0, 0),
            _ => (number(device.major(), "major")?, number(device.minor(), "minor")?),
        };
        let usable = match kind {
            DeviceKind::Character => own_device(major, minor),
            DeviceKind::Block => false,
            DeviceKind::Fifo => true,
        };
        if !usable {
            left_out.push(path.display().to_string());
            continue;
        }
        devices.push(DeviceSpec {
            path: path_bytes(path),
            kind,
            major,
            minor,
            mode: device.file_mode(),
            uid: device.uid(),
            gid: device.gid(),
        });
    }
    if !left_out.is_empty() {
        // A privileged container lists every device of the host: no reason to refuse it, but no
        // reason either to leave a person guessing.
        tracing::warn!("linux.devices: the sandbox has no {}; left out", left_out.join(", "));
    }
    Ok(devices)
}

pub fn paths(list: &Option<Vec<String>>, field: &str) -> Result<Vec<ByteString>> {
    list.iter()
        .flatten()
        .enumerate()
        .map(|(index, path)| {
            if !path.starts_with('/') {
                bail!("{field}[{index}]: {path:?} is not absolute");
            }
            Ok(ByteString::from(path.as_str()))
        })
        .collect()
}

/// What the container is to see as its limits. Zero and negative mean "no limit" in OCI.
pub fn limits(resources: Option<&oci::LinuxResources>) -> Limits {
    let Some(resources) = resources else {
        return Limits::default();
    };
    let positive = |value: Option<i64>| value.and_then(|v| u64::try_from(v).ok()).filter(|&v| v > 0);
    let memory = resources.memory().as_ref();
    let cpu = resources.cpu().as_ref();
    Limits {
        memory: positive(memory.and_then(|m| m.limit())),
        memory_and_swap: positive(memory.and_then(|m| m.swap())),
        cpu_quota: positive(cpu.and_then(|c| c.quota())),
        cpu_period: cpu.and_then(|c| c.period()).filter(|&p| p > 0),
        cpu_shares: cpu.and_then(|c| c.shares()).filter(|&s| s > 0),
        cpuset: cpu.and_then(|c| c.cpus().as_ref()).and_then(|list| cpus_in(list)),
        pids: positive(resources.pids().as_ref().map(|p| p.limit())),
    }
}

/// How many CPUs a list such as `0-2,7` names; none if it is no such list, which the cgroup refuses.
fn cpus_in(list: &str) -> Option<u64> {
    let ranges = list.split(',').map(str::trim).filter(|r| !r.is_empty()).map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        last.checked_sub(first)?.checked_add(1)
    });
    ranges.sum::<Option<u64>>().filter(|&n| n > 0)
}

pub fn path_bytes(path: &std::path::Path) -> ByteString {
    use std::os::unix::ffi::OsStrExt;
    ByteString(path.as_os_str().as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::cpus_in;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpus_in("0-2,7"), Some(4));
        assert_eq!((cpus_in("1"), cpus_in(""), cpus_in("2-1"), cpus_in("x")), (Some(1), None, None, None));
    }
}
