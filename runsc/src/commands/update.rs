//! `runsc update`

use std::io::Read;

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime as oci;
use sentry::control::protocol::Operation;

use super::{Container, Context, Status};
use crate::cgroup::systemd;
use crate::cli::UpdateArgs;
use crate::sandbox::namespaces::Privilege;
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
        scope.update(&mut systemd::bus(Privilege::current().root)?, &resources)?;
    }
    cgroup::update(&container.record.cgroups, &resources)?;
    // What the guest sees of its limits, and the number of processes, which the sentry counts.
    let mut limits = config_limits(&container)?;
    let new = spec::limits(Some(&resources));
    limits.memory = new.memory.or(limits.memory);
    limits.memory_and_swap = new.memory_and_swap.or(limits.memory_and_swap);
    limits.cpu_quota = new.cpu_quota.or(limits.cpu_quota);
    limits.cpu_period = new.cpu_period.or(limits.cpu_period);
    limits.cpu_shares = new.cpu_shares.or(limits.cpu_shares);
    limits.cpuset = new.cpuset.or(limits.cpuset);
    if resources.pids().as_ref().is_some_and(|p| p.limit() != 0) {
        limits.pids = new.pids;
    }
    container.client()?.done(Operation::SetLimits { limits }, &[])?;
    Ok(0)
}

fn config_limits(container: &Container) -> Result<sentry::boot::spec::Limits> {
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
