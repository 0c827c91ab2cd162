//! `runsc update`

use std::io::Read;

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime as oci;
use sentry::boot::spec::Limits;
use sentry::control::protocol::Operation;

use super::{Container, Context, Status};
use crate::cgroup::systemd;
use crate::cli::UpdateArgs;
use crate::{cgroup, spec};

pub fn update(context: &Context, args: &UpdateArgs) -> Result<u8> {
    for (flag, given) in
        [("--l3-cache-schema", &args.l3_cache_schema), ("--mem-bw-schema", &args.mem_bw_schema)]
    {
        if given.as_ref().is_some_and(|schema| !schema.is_empty()) {
            bail!("{flag}: not supported");
        }
    }
    let container = Container::open(context, &args.id)?;
    if matches!(container.status(), Status::Stopped | Status::Creating) {
        bail!("container not running");
    }
    let _lock = container.directory.lock()?;
    let resources = resources(args)?;
    if let Some(scope) = &container.record.scope {
        scope.update(&mut systemd::bus()?, &resources)?;
    }
    cgroup::update(&container.record.cgroups, &resources)?;
    // What the guest sees of its limits, and what the sentry counts: memory and the number of processes.
    let before = match container.directory.read_limits()? {
        Some(limits) => limits,
        None => config_limits(&container)?,
    };
    let limits = changed(before, &resources);
    container.client()?.done(Operation::SetLimits { limits }, &[])?;
    // The next update changes these, and not those of the configuration again.
    container.directory.write_limits(&limits)?;
    Ok(0)
}

/// The limits after an update: what it does not name stays as it is. Unlimited is -1 in OCI, and 0 no change.
fn changed(mut limits: Limits, resources: &oci::LinuxResources) -> Limits {
    let new = spec::limits(Some(resources));
    let named = |value: Option<i64>| value.is_some_and(|v| v != 0);
    let memory = resources.memory().as_ref();
    let cpu = resources.cpu().as_ref();
    if named(memory.and_then(|m| m.limit())) {
        limits.memory = new.memory;
    }
    if named(memory.and_then(|m| m.swap())) {
        limits.memory_and_swap = new.memory_and_swap;
    }
    if named(cpu.and_then(|c| c.quota())) {
        limits.cpu_quota = new.cpu_quota;
    }
    limits.cpu_period = new.cpu_period.or(limits.cpu_period);
    limits.cpu_shares = new.cpu_shares.or(limits.cpu_shares);
    limits.cpuset = new.cpuset.or(limits.cpuset);
    if named(resources.pids().as_ref().map(|p| p.limit())) {
        limits.pids = new.pids;
    }
    limits
}

fn config_limits(container: &Container) -> Result<Limits> {
    let config: oci::Spec = spec::parse(&container.directory.read_config()?)?;
    Ok(spec::limits(config.linux().as_ref().and_then(|l| l.resources().as_ref())))
}

fn resources(args: &UpdateArgs) -> Result<oci::LinuxResources> {
    if let Some(path) = &args.resources {
        let json = if path.as_os_str() == "-" {
            let mut json = Vec::new();
            std::io::stdin().read_to_end(&mut json).context("standard input")?;
            json
        } else {
            std::fs::read(path).with_context(|| format!("--resources {}", path.display()))?
        };
        return spec::parse(&json).context("--resources");
    }
    let mut json = serde_json::json!({});
    let mut set = |group: &str, name: &str, value: Option<serde_json::Value>| {
        if let Some(value) = value {
            json[group][name] = value;
        }
    };
    set("memory", "limit", args.memory.map(Into::into));
    set("memory", "reservation", args.memory_reservation.map(Into::into));
    set("memory", "swap", args.memory_swap.map(Into::into));
    set("cpu", "quota", args.cpu_quota.map(Into::into));
    set("cpu", "period", args.cpu_period.map(Into::into));
    set("cpu", "shares", args.cpu_share.map(Into::into));
    set("cpu", "realtimePeriod", args.cpu_rt_period.map(Into::into));
    set("cpu", "realtimeRuntime", args.cpu_rt_runtime.map(Into::into));
    set("cpu", "cpus", args.cpuset_cpus.clone().map(Into::into));
    set("cpu", "mems", args.cpuset_mems.clone().map(Into::into));
    set("blockIO", "weight", args.blkio_weight.map(Into::into));
    set("pids", "limit", args.pids_limit.map(Into::into));
    Ok(serde_json::from_value(json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(before: Limits, json: serde_json::Value) -> Limits {
        changed(before, &serde_json::from_value(json).unwrap())
    }

    #[test]
    fn an_update_keeps_what_an_earlier_one_has_set() {
        let first =
            after(Limits::default(), serde_json::json!({"memory": {"limit": 4096}, "pids": {"limit": 5}}));
        let second = after(first, serde_json::json!({"cpu": {"shares": 512}, "memory": {"limit": 0}}));
        assert_eq!((second.memory, second.pids, second.cpu_shares), (Some(4096), Some(5), Some(512)));
        let third = after(second, serde_json::json!({"memory": {"limit": -1}, "pids": {"limit": -1}}));
        assert_eq!((third.memory, third.pids, third.cpu_shares), (None, None, Some(512)));
    }
}
