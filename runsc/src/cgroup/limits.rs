//! OCI's `linux.resources` as files of cgroups and what is written to them, in either version.

use std::borrow::Cow;

use oci_spec::runtime as oci;

/// One limit: the file and value in either version.
pub struct Setting {
    pub field: &'static str,
    pub controller: &'static str,
    pub v1: Option<(Cow<'static, str>, String)>,
    pub v2: Option<(Cow<'static, str>, String)>,
    /// Some hosts are built without the file.
    pub optional: bool,
}

/// v1's shares as v2's weight: the kernel's own conversion between the ranges 2..262144 and 1..10000.
pub fn cpu_weight(shares: u64) -> u64 {
    1 + ((shares.clamp(2, 262_144) - 2) * 9_999) / 262_142
}

/// What a limit of tasks is on the host, negative for none: the sandbox's own processes and threads count there, so they
/// get room. What the guest may start is limited to the exact number by the sentry.
pub fn host_tasks(limit: i64) -> i64 {
    if limit < 0 { -1 } else { limit.saturating_mul(2).saturating_add(64) }
}

pub fn settings(resources: &oci::LinuxResources) -> Vec<Setting> {
    let mut list = Vec::new();
    let limit_v2 = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    if let Some(memory) = resources.memory() {
        if let Some(limit) = memory.limit().filter(|&l| l != 0) {
            list.push(Setting {
                field: "memory.limit",
                controller: "memory",
                v1: Some((Cow::Borrowed("memory.limit_in_bytes"), limit.to_string())),
                v2: Some((Cow::Borrowed("memory.max"), limit_v2(limit))),
                optional: false,
            });
        }
        if let Some(reservation) = memory.reservation().filter(|&r| r != 0) {
            list.push(Setting {
                field: "memory.reservation",
                controller: "memory",
                v1: Some((Cow::Borrowed("memory.soft_limit_in_bytes"), reservation.to_string())),
                v2: Some((Cow::Borrowed("memory.low"), limit_v2(reservation))),
                optional: false,
            });
        }
        if let Some(swap) = memory.swap().filter(|&s| s != 0) {
            // v1 counts memory and swap together, v2 swap alone.
            let alone = if swap < 0 { -1 } else { (swap - memory.limit().unwrap_or(0)).max(0) };
            list.push(Setting {
                field: "memory.swap",
                controller: "memory",
                v1: Some((Cow::Borrowed("memory.memsw.limit_in_bytes"), swap.to_string())),
                v2: Some((Cow::Borrowed("memory.swap.max"), limit_v2(alone))),
                optional: true,
            });
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|&s| s != 0) {
            let weight = cpu_weight(shares);
            list.push(Setting {
                field: "cpu.shares",
                controller: "cpu",
                v1: Some((Cow::Borrowed("cpu.shares"), shares.to_string())),
                v2: Some((Cow::Borrowed("cpu.weight"), weight.to_string())),
                optional: false,
            });
        }
        let period = cpu.period().filter(|&p| p != 0);
        if let Some(period) = period {
            list.push(Setting {
                field: "cpu.period",
                controller: "cpu",
                v1: Some((Cow::Borrowed("cpu.cfs_period_us"), period.to_string())),
                v2: None,
                optional: true,
            });
        }
        if cpu.quota().is_some_and(|q| q != 0) || period.is_some() {
            let quota = cpu.quota().filter(|&q| q != 0).unwrap_or(-1);
            list.push(Setting {
                field: "cpu.quota",
                controller: "cpu",
                v1: Some((Cow::Borrowed("cpu.cfs_quota_us"), quota.to_string())),
                v2: Some((
                    Cow::Borrowed("cpu.max"),
                    format!("{} {}", limit_v2(quota), period.unwrap_or(100_000)),
                )),
                optional: true,
            });
        }
        extra_cpu(cpu, &mut list);
        for (field, file, value) in
            [("cpu.cpus", "cpuset.cpus", cpu.cpus()), ("cpu.mems", "cpuset.mems", cpu.mems())]
        {
            if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
                list.push(Setting {
                    field,
                    controller: "cpuset",
                    v1: Some((Cow::Borrowed(file), value.to_owned())),
                    v2: Some((Cow::Borrowed(file), value.to_owned())),
                    optional: false,
                });
            }
        }
    }
    if let Some(limit) = resources.pids().as_ref().map(|p| p.limit()).filter(|&l| l != 0) {
        let value = if limit < 0 { "max".to_owned() } else { host_tasks(limit).to_string() };
        list.push(Setting {
            field: "pids.limit",
            controller: "pids",
            v1: Some((Cow::Borrowed("pids.max"), value.clone())),
            v2: Some((Cow::Borrowed("pids.max"), value)),
            optional: false,
        });
    }
    if let Some(memory) = resources.memory() {
        if let Some(swappiness) = memory.swappiness() {
            list.push(Setting {
                field: "memory.swappiness",
                controller: "memory",
                v1: Some((Cow::Borrowed("memory.swappiness"), swappiness.to_string())),
                v2: None,
                optional: true,
            });
        }
        if let Some(limit) = memory.kernel_tcp().filter(|&l| l != 0) {
            list.push(Setting {
                field: "memory.kernelTCP",
                controller: "memory",
                v1: Some((Cow::Borrowed("memory.kmem.tcp.limit_in_bytes"), limit.to_string())),
                v2: None,
                optional: true,
            });
        }
        if memory.disable_oom_killer() == Some(true) {
            list.push(Setting {
                field: "memory.disableOOMKiller",
                controller: "memory",
                v1: Some((Cow::Borrowed("memory.oom_control"), "1".to_owned())),
                v2: None,
                optional: true,
            });
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let (size, bytes) = (limit.page_size(), limit.limit().to_string());
        list.push(Setting {
            field: "hugepageLimits",
            controller: "hugetlb",
            v1: Some((Cow::Owned(format!("hugetlb.{size}.limit_in_bytes")), bytes.clone())),
            v2: Some((Cow::Owned(format!("hugetlb.{size}.max")), bytes)),
            optional: true,
        });
    }
    if let Some(block) = resources.block_io() {
        block_io(block, &mut list);
    }
    network_and_rdma(resources, &mut list);
    list.retain(|s| s.v1.is_some() || s.v2.is_some());
    list
}

/// What a configuration asks for that no host can carry out any more, by name. memory.useHierarchy is not
/// among them: every host has had nothing else since Linux 5.11.
pub fn refused(resources: &oci::LinuxResources) -> Option<&'static str> {
    // Taken out of Linux in 5.16.
    let kernel = resources.memory().as_ref().and_then(|m| m.kernel()).is_some_and(|limit| limit > 0);
    kernel.then_some("memory.kernel")
}

/// Classes and priorities of packets, which only v1 has, and shares of RDMA devices.
fn network_and_rdma(resources: &oci::LinuxResources, list: &mut Vec<Setting>) {
    let network = resources.network().as_ref();
    if let Some(class) = network.and_then(|n| n.class_id()).filter(|&id| id != 0) {
        list.push(Setting {
            field: "network.classID",
            controller: "net_cls",
            v1: Some((Cow::Borrowed("net_cls.classid"), class.to_string())),
            v2: None,
            optional: true,
        });
    }
    for priority in network.iter().flat_map(|n| n.priorities().iter().flatten()) {
        list.push(Setting {
            field: "network.priorities",
            controller: "net_prio",
            v1: Some((
                Cow::Borrowed("net_prio.ifpriomap"),
                format!("{} {}", priority.name(), priority.priority()),
            )),
            v2: None,
            optional: true,
        });
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        let part = |name: &str, n: Option<u32>| n.map(|n| format!(" {name}={n}")).unwrap_or_default();
        let value = format!(
            "{device}{}{}",
            part("hca_handle", limit.hca_handles()),
            part("hca_object", limit.hca_objects())
        );
        list.push(Setting {
            field: "rdma",
            controller: "rdma",
            v1: Some((Cow::Borrowed("rdma.max"), value.clone())),
            v2: Some((Cow::Borrowed("rdma.max"), value)),
            optional: true,
        });
    }
}

/// Burst, idleness and real-time shares: what only some hosts have.
fn extra_cpu(cpu: &oci::LinuxCpu, list: &mut Vec<Setting>) {
    let mut add = |field, v1: &'static str, v2: Option<&'static str>, value: Option<String>| {
        if let Some(value) = value {
            list.push(Setting {
                field,
                controller: "cpu",
                v1: Some((Cow::Borrowed(v1), value.clone())),
                v2: v2.map(|name| (Cow::Borrowed(name), value)),
                optional: true,
            });
        }
    };
    let text = |value: Option<u64>| value.filter(|&v| v != 0).map(|v| v.to_string());
    add("cpu.burst", "cpu.cfs_burst_us", Some("cpu.max.burst"), text(cpu.burst()));
    add("cpu.idle", "cpu.idle", Some("cpu.idle"), cpu.idle().map(|v| v.to_string()));
    // v2 has none of these two.
    add("cpu.realtimePeriod", "cpu.rt_period_us", None, text(cpu.realtime_period()));
    let runtime = cpu.realtime_runtime().filter(|&v| v != 0).map(|v| v.to_string());
    add("cpu.realtimeRuntime", "cpu.rt_runtime_us", None, runtime);
}

/// Weights and rates of block devices.
fn block_io(block: &oci::LinuxBlockIo, list: &mut Vec<Setting>) {
    if let Some(weight) = block.weight().filter(|&w| w != 0) {
        // The kernel's own conversion between the ranges 10..1000 and 1..10000.
        let v2 = 1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990;
        list.push(Setting {
            field: "blockIO.weight",
            controller: if blkio_is_v1() { "blkio" } else { "io" },
            v1: Some((Cow::Borrowed("blkio.weight"), weight.to_string())),
            v2: Some((Cow::Borrowed("io.weight"), v2.to_string())),
            optional: true,
        });
    }
    if let Some(weight) = block.leaf_weight().filter(|&w| w != 0) {
        list.push(Setting {
            field: "blockIO.leafWeight",
            controller: "blkio",
            v1: Some((Cow::Borrowed("blkio.leaf_weight"), weight.to_string())),
            v2: None,
            optional: true,
        });
    }
    for device in block.weight_device().iter().flatten() {
        let at = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|&w| w != 0) {
            list.push(Setting {
                field: "blockIO.weightDevice",
                controller: if blkio_is_v1() { "blkio" } else { "io" },
                v1: Some((Cow::Borrowed("blkio.weight_device"), format!("{at} {weight}"))),
                v2: Some((Cow::Borrowed("io.weight"), format!("{at} {weight}"))),
                optional: true,
            });
        }
        if let Some(weight) = device.leaf_weight().filter(|&w| w != 0) {
            list.push(Setting {
                field: "blockIO.weightDevice",
                controller: "blkio",
                v1: Some((Cow::Borrowed("blkio.leaf_weight_device"), format!("{at} {weight}"))),
                v2: None,
                optional: true,
            });
        }
    }
    let rates = [
        (
            "blockIO.throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            "rbps",
            block.throttle_read_bps_device(),
        ),
        (
            "blockIO.throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            "wbps",
            block.throttle_write_bps_device(),
        ),
        (
            "blockIO.throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            "riops",
            block.throttle_read_iops_device(),
        ),
        (
            "blockIO.throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            "wiops",
            block.throttle_write_iops_device(),
        ),
    ];
    for (field, v1, v2, devices) in rates {
        for device in devices.iter().flatten() {
            let at = format!("{}:{}", device.major(), device.minor());
            list.push(Setting {
                field,
                controller: if blkio_is_v1() { "blkio" } else { "io" },
                v1: Some((Cow::Borrowed(v1), format!("{at} {}", device.rate()))),
                v2: Some((Cow::Borrowed("io.max"), format!("{at} {v2}={}", device.rate()))),
                optional: true,
            });
        }
    }
}

/// The controller of block I/O changed its name with v2.
fn blkio_is_v1() -> bool {
    std::fs::read_to_string("/proc/self/cgroup").is_ok_and(|t| {
        t.lines().any(|l| l.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == "blkio")))
    })
}

/// Fields that some file of a cgroup carries out.
#[cfg(test)]
pub fn fields(resources: &oci::LinuxResources) -> Vec<&'static str> {
    settings(resources).into_iter().map(|s| s.field).collect()
}

/// Whether there is any limit that a cgroup would carry out.
pub fn wants_limits(resources: Option<&oci::LinuxResources>) -> bool {
    resources.is_some_and(|r| !settings(r).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_in_both_versions() {
        let resources: oci::LinuxResources = serde_json::from_str(
            r#"{"memory":{"limit":100,"swap":300},"cpu":{"shares":1024,"quota":50000,"period":100000},"pids":{"limit":10}}"#,
        )
        .unwrap();
        let find = |field: &str| settings(&resources).into_iter().find(|s| s.field == field).unwrap();
        assert_eq!(find("memory.swap").v1.unwrap().1, "300");
        assert_eq!(find("memory.swap").v2.unwrap().1, "200");
        assert_eq!(find("cpu.shares").v2.unwrap().1, "39");
        assert_eq!(find("cpu.quota").v2.unwrap().1, "50000 100000");
        let unlimited: oci::LinuxResources =
            serde_json::from_str(r#"{"memory":{"limit":-1},"pids":{"limit":-1}}"#).unwrap();
        let max: Vec<String> = settings(&unlimited).into_iter().map(|s| s.v2.unwrap().1).collect();
        assert_eq!(max, ["max", "max"]);
    }
}
